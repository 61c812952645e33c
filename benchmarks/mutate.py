"""Mutation testing: a seeded, stratified sample of faults, each against the tests of its wing.

`python benchmarks/mutate.py 400` draws as many mutants, an equal number from each wing, writes one line
for each to build/mutants.jsonl, and prints the share that tests detect with its 95 % interval, and the
survivors. A second run continues where the first ended; a count of 0 prints only. The tests of a wing
run first without a fault; a mutant that takes three times as long is out of time, and detected.
Remove the file when the code has changed.
"""

import argparse
import ast
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _common import header, row
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "mutants.jsonl"
# Files of a wing, and the tests that must detect faults there, beside those of the file's own name.
WINGS = {
    "engine": ("_engine/*.py", "tests/engine"),
    "likelihood": ("_diffusion/*.py", "tests/diffusion tests/estimators"),
    "bandwidth": ("bandwidth.py", "tests/test_bandwidth.py"),
    "kernels": ("kernels/*.py", "tests/kernels"),
    "solvers": ("solvers/*.py", "tests/solvers"),
    "metrics": ("metrics/*.py", "tests/metrics"),
    "columns": ("tables/_*.py", "tests/tables"),
    "rows": ("_utils/*.py", "tests/utils tests/contract/test_bad_input.py"),
}
COPIED = ("tests", "setup.cfg", "pyproject.toml", "README.md", "docs", "benchmarks")
PYTEST = [sys.executable, "-m", "pytest", "-xq", "-n0", "-p", "no:cacheprovider", "-m", "not slow"]
OPERATORS = "Add Sub, Mult Div, FloorDiv Div, Pow Mult, Lt LtE, Gt GtE, Eq NotEq, Is IsNot, And Or"
SWAPS = dict(pair.split() for pair in f"{OPERATORS}, BitAnd BitOr".split(", "))
SWAPS = {b: a for a, b in SWAPS.items()} | SWAPS
NAMES = {"min": "max", "minimum": "maximum", "argmin": "argmax", "amin": "amax", "any": "all"}
NAMES |= {b: a for a, b in NAMES.items()}


def mutate(node):
    """Change a node of a syntax tree in place; return whether it is of a kind that can be changed."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign | ast.Compare):
        operators = node.ops if isinstance(node, ast.Compare) else [node.op]
        swapped = SWAPS.get(type(operators[0]).__name__)
        if swapped is None:
            return False
        operators[0] = getattr(ast, swapped)()
        if not isinstance(node, ast.Compare):
            node.op = operators[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node.op = ast.UAdd()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value = node.value + 1 if node.value in (0, 1) else node.value * 2
    elif isinstance(node, ast.Attribute | ast.Name):
        field = "attr" if isinstance(node, ast.Attribute) else "id"
        name = getattr(node, field)
        setattr(node, field, NAMES.get(name, name))
        return name in NAMES
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        return False
    return True


def executed(tree):
    """Yield the nodes that run: no annotations or texts of messages."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_params") or isinstance(tree, ast.JoinedStr):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST):
                yield node
                yield from executed(node)


def sample(count, wings):
    """Return (wing, file, node) of mutants, wings in turn, so that any first part is stratified."""
    drawn = []
    for wing in wings:
        found = []
        for file in sorted((ROOT / "skdiffsmooth").glob(WINGS[wing][0])):
            nodes = list(executed(ast.parse(file.read_text())))
            name = str(file.relative_to(ROOT))
            found += [(wing, name, i) for i, node in enumerate(nodes) if mutate(node)]
        order = np.random.default_rng([0, list(WINGS).index(wing)]).permutation(len(found))
        drawn.append([found[i] for i in order[: -(-count // len(wings))]])
    return [m for group in zip(*drawn, strict=True) for m in group][:count]


def mutated(file, index):
    """Return the source of a mutant, the number of its line, and the part before and after."""
    tree = ast.parse((ROOT / file).read_text())
    node = list(executed(tree))[index]
    before = ast.unparse(getattr(node, "test", node))
    mutate(node)
    return ast.unparse(tree), node.lineno, before, ast.unparse(getattr(node, "test", node))


def outcome(wing, file, source, seconds=None):
    """Return "survived", "detected" or "out of time", after the tests of a file and then of its wing."""
    folders = WINGS[wing][1].split()
    own = f"test_{Path(file).stem.lstrip('_')}.py"
    first = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob(own)]

    def limit():
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "skdiffsmooth", Path(folder, "skdiffsmooth"))
        for part in COPIED:
            Path(folder, part).symlink_to(ROOT / part)
        Path(folder, file).write_text(source)
        for tests in (first, folders) if first else (folders,):
            code = subprocess.run(
                [*PYTEST, *tests],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                preexec_fn=limit,
                check=False,
            ).returncode
            if code:
                return "detected" if code > 0 else "out of time"
    return "survived"


def longest(wing):
    """Return the seconds of CPU that a mutant may take; raise if the tests fail without a fault."""
    file = next((ROOT / "skdiffsmooth").glob(WINGS[wing][0]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    if outcome(wing, str(file.relative_to(ROOT)), file.read_text()) != "survived":
        raise RuntimeError(f"the tests of {wing} fail without a fault")
    return int(3 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)) + 10


def report(results):
    """Print the share of detected mutants with its exact 95 % interval, and the survivors."""
    header("wing", "mutants", "detected", "of these out of time", "95 % interval")
    for wing in [*WINGS, "all"]:
        found = [r["outcome"] for r in results if wing in (r["wing"], "all")]
        if found:
            detected = len(found) - found.count("survived")
            low, high = binomtest(detected, len(found)).proportion_ci()
            row(wing, len(found), detected, found.count("out of time"), f"{low:.0%} to {high:.0%}")
    for r in results:
        if r["outcome"] == "survived":
            print(f"\n{r['file']}:{r['line']}\n  - {r['before']}\n  + {r['after']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=40)
    parser.add_argument("--wings", nargs="+", choices=WINGS, default=list(WINGS))
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    results = [json.loads(line) for line in RESULTS.open()] if RESULTS.exists() else []
    done, limits = {(r["wing"], r["file"], r["node"]) for r in results}, {}
    for wing, file, index in sample(arguments.count, arguments.wings):
        if (wing, file, index) in done:
            continue
        if wing not in limits:
            limits[wing] = longest(wing)
        source, line, before, after = mutated(file, index)
        end = outcome(wing, file, source, limits[wing])
        print(f"{file}:{line}", end, flush=True)
        result = {"wing": wing, "file": file, "node": index, "outcome": end, "line": line}
        results.append(result | {"before": before, "after": after})
        with RESULTS.open("a") as lines:
            lines.write(json.dumps(results[-1]) + "\n")
    report(results)
