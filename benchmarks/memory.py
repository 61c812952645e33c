"""P7: peak memory of a call against memory_limit, each in a fresh process."""

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from _common import full_requested, header, row

from skdiffsmooth import SmoothedScoreDiffusion

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(field):
    """Return VmRSS, the resident memory, or VmHWM, its peak, in MiB.

    Not ru_maxrss: a process inherits that one from the process that started it.
    """
    return int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())[1]) / 1024


def measure(method, n_queries, n_nodes, n_points, memory_limit):
    """Return a call's additional memory in MiB, and how much its result differs with a large limit."""
    rng = np.random.RandomState(0)
    X, Q = rng.normal(size=(n_points, 8)), rng.normal(size=(n_queries, 8))
    # Two steps: every step makes the same temporaries.
    model = SmoothedScoreDiffusion(
        0.3, 0.45, n_nodes=n_nodes, n_levels=2, n_steps=2, memory_limit=memory_limit
    ).fit(X)

    def call():
        if method == "sample":
            return model.sample(n_queries, random_state=0)
        return model.score_samples(Q)

    before = resident("VmRSS")
    CLEAR.write_text("5")  # resets VmHWM
    found = call()
    used = resident("VmHWM") - before
    model.set_params(memory_limit=1024)
    return used, float(np.abs(call() - found).max())


def run(full=False):
    """Print the table."""
    if not CLEAR.exists():
        print("P7, memory: needs Linux's /proc.")
        return
    cases = [(1000, 64, 1000, 16), (200, 64, 20_000, 64), (20, 64, 50_000, 128)]
    if full:
        cases += [
            (10_000, 64, 2000, 64),
            (1000, 1024, 2000, 64),
            (20, 256, 100_000, 256),
            (1, 64, 1_000_000, 512),
        ]
    print(
        "P7, memory: B queries, M nodes, N points in 8 dimensions; MiB above what the process held "
        "after fit. Difference: of the result from that with memory_limit=1024.\n"
    )
    header(
        "B", "M", "N", "data", "memory_limit", "call", "peak", "(peak - data) / limit", "difference"
    )
    for n_queries, n_nodes, n_points, limit in cases:
        # What a call must hold whatever the limit: rows in, rows out and the tensors made of them.
        data = 8 * 8 * (n_points + n_queries) / 2**20
        for method in ("score_samples", "sample"):
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                used, error = pool.submit(
                    measure, method, n_queries, n_nodes, n_points, limit
                ).result()
            row(
                n_queries,
                n_nodes,
                n_points,
                f"{data:.1f}",
                limit,
                method,
                f"{used:.0f}",
                f"{(used - data) / limit:.2f}",
                f"{error:.0e}",
            )


if __name__ == "__main__":
    run(full_requested())
