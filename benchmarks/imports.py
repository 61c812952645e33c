"""P9: the time that importing the package adds to that of the libraries it imports."""

import statistics
import subprocess
import sys

from _common import full_requested, header, row

CHILD = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
LIBRARIES = "import torch, sklearn"
STATEMENTS = (
    LIBRARIES,
    f"{LIBRARIES}, skdiffsmooth",
    f"{LIBRARIES}; from skdiffsmooth import KDESampler",
    f"{LIBRARIES}; from skdiffsmooth import SmoothedScoreDiffusion",
    f"{LIBRARIES}; from skdiffsmooth import *",
)


def run(full=False):
    """Print the table: medians over fresh processes, taken in turn."""
    repeats = 15 if full else 3
    times = {statement: [] for statement in STATEMENTS}
    # One round more than is kept: the first reads the files from disk.
    for _ in range(repeats + 1):
        for statement in STATEMENTS:
            command = [sys.executable, "-c", CHILD.format(statement)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            times[statement].append(float(out))
    print(f"P9, import: medians of {repeats} fresh processes; half range: of their times.\n")
    header("statement", "time (s)", "half range (s)", "minus that of the libraries (s)")
    kept = {statement: times[statement][1:] for statement in STATEMENTS}
    least = statistics.median(kept[LIBRARIES])
    for statement, seconds in kept.items():
        median = statistics.median(seconds)
        half_range = (max(seconds) - min(seconds)) / 2
        row(f"`{statement}`", f"{median:.2f}", f"{half_range:.2f}", f"{median - least:+.2f}")


if __name__ == "__main__":
    run(full_requested())
