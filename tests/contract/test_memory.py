"""Peak memory of calls that have a bound on it, measured in a process of their own."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.manifolds import Sphere, estimate_reach
from skdiffsmooth.metrics import coverage_scale

MIB = 2**20

# Prints the resident memory in MiB that each call adds at its peak.
MEASURE = """
import ctypes
import re
from pathlib import Path
import numpy as np
import torch
from skdiffsmooth import KDESampler
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.metrics import distance_to_data

def resident(field):
    return int(re.search(rf"{field}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

rng = np.random.RandomState(0)
X, wide = rng.normal(size=(15000, 4)), rng.normal(size=(5000, 50))
linear = KDESampler(2.0, "linear", memory_limit=64).fit(X)
flat = KDESampler(0.5, memory_limit=64, rtol=1e-3).fit(rng.normal(size=(50000, 3)))
many = torch.from_numpy(rng.normal(size=(200_000, 16)))
posterior = Posterior(many, many.new_full((200_000,), -np.log(200_000)), memory_limit=64)
offsets = 0.1 * torch.from_numpy(rng.normal(size=(64, 16)))
nodes = Nodes(offsets, many.new_full((64,), 1 / 64), float(offsets.norm(dim=1).max()))
calls = {
    "compact kernel": lambda n: linear.score_samples(X[:n]),
    "gradient of a compact kernel": lambda n: linear.grad_log_density(X[:n]),
    "boxes": lambda n: flat.score_samples(X[:n, :3]),
    "nearest rows": lambda n: distance_to_data(wide[:n], wide),
    # Seven tables of nodes; before, two of them and two further copies of the points were held.
    "tables of nodes": lambda n: posterior.moments(many[: n // 1000 + 1], 4.0, nodes),
}
for name, call in calls.items():
    call(5)  # what is loaded at the first call
    ctypes.CDLL(None).malloc_trim(0)  # freed memory would hide as much of what the call takes
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    call(1000)
    print(f"{name}:{resident('VmHWM') - before}")
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_within_the_limit():
    run = [sys.executable, "-c", MEASURE]
    # Freed arrays go back to the system at once. Otherwise the allocator keeps up to 35 MiB of them, not
    # the same in each run.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    output = subprocess.run(run, check=True, capture_output=True, text=True, env=env).stdout
    peaks = dict(line.split(":") for line in output.splitlines())
    assert len(peaks) == 5
    # Of 64 MiB, with the rows and results.
    assert all(float(peak) < 1.2 * 64 for peak in peaks.values()), peaks


def test_temporaries_of_measures_of_rows_are_bounded():
    """numpy's arrays are traced; before, the reach took 8 n^2 (k + 6) bytes, here 63 MiB."""
    X = np.random.RandomState(0).normal(size=(3000, 3))
    X /= np.linalg.norm(X, axis=1)[:, None]
    sphere = Sphere(np.zeros(3), 1.0)
    for call, limit in (
        (lambda: estimate_reach(sphere, X[:1000]), 16),
        (lambda: coverage_scale(X[:1500], X[1500:]), 64),
        (lambda: ManifoldParzen(8).leave_one_out(X[:600], np.full(600, 1 / 600), 0, 4), 4),
    ):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1] / MIB
        tracemalloc.stop()
        assert peak < 1.2 * limit + 1
