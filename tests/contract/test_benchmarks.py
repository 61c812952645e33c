"""The benchmarks are not run by the tests, but they must still find what they import."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# In a process of its own: the scripts have short names, and one of them may be another package's. What
# is missing of the rivals that they compare with is no failure.
IMPORT_ALL = """
import importlib, sys
local = {name.removesuffix(".py") for name in sys.argv[1:]}
for name in sorted(local):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in local | {"skdiffsmooth"}:
            raise
    print(name)
"""


def test_every_benchmark_finds_what_it_imports():
    names = sorted(path.name for path in BENCHMARKS.glob("*.py"))
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    done = subprocess.run(command, check=False, cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(names)
