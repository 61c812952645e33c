"""P7 and S9: peak memory of a call against memory_limit, each in a fresh process."""

import ctypes
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from _common import full_requested, header, row

from skdiffsmooth import CoarseScoreDiffusion, KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.manifolds import LocalPolynomialManifold, estimate_reach
from skdiffsmooth.metrics import coverage_scale, distance_to_data, fidelity_and_diversity

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(field):
    """Return VmRSS, the resident memory, or VmHWM, its peak, in MiB.

    Not ru_maxrss: a process inherits that one from the process that started it.
    """
    return int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())[1]) / 1024


def held():
    """Return the memory in MiB that the process holds, and measure the peak anew."""
    # Freed memory that malloc keeps would hide as much of what a call takes: up to 60 MiB.
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # resets VmHWM
    return resident("VmRSS")


def measure(method, n_queries, n_nodes, n_points, bandwidth, memory_limit):
    """Return a call's additional memory in MiB, and how much its result differs with a large limit."""
    rng = np.random.RandomState(0)
    X, Q = rng.normal(size=(n_points, 8)), rng.normal(size=(n_queries, 8))
    # Two steps: every step makes the same temporaries.
    model = SmoothedScoreDiffusion(
        bandwidth,
        1.5 * bandwidth,
        n_nodes=n_nodes,
        n_levels=2,
        n_steps=2,
        memory_limit=memory_limit,
    ).fit(X)

    def call():
        if method == "sample":
            return model.sample(n_queries, random_state=0)
        return model.score_samples(Q)

    before = held()
    found = call()
    used = resident("VmHWM") - before
    model.set_params(memory_limit=1024)
    return used, float(np.abs(call() - found).max())


def ring(n):
    """Return noisy rows about a closed curve in R^3."""
    # Evenly spaced in any order, so that the first rows are all around, too.
    t = 2 * np.pi * ((np.arange(n) * (np.sqrt(5) - 1) / 2) % 1)
    noise = np.random.RandomState(0).normal(scale=0.01, size=(n, 3))
    return np.column_stack([np.cos(t), np.sin(t), 0.3 * np.cos(2 * t)]) + noise


def kernel_case(kernel, method):
    """Return a function of the number of queries that calls a method of a KDE of 15 000 rows in R^5."""
    X = np.random.RandomState(0).normal(size=(15_000, 5))
    model = KDESampler(1.5, kernel, memory_limit=64).fit(X)
    return lambda n: getattr(model, method)(X[:n])


def boxes_case():
    """Return the same for log-densities under 10^5 rows in R^3, which are sorted into boxes."""
    X = np.random.RandomState(0).normal(size=(100_000, 3))
    model = KDESampler(0.2, rtol=1e-3, memory_limit=64).fit(X)
    return lambda n: model.score_samples(X[:n])


def coarse_case(method):
    """Return the same for a method of CoarseScoreDiffusion, fitted to 3000 rows."""
    X = ring(3000)
    model = CoarseScoreDiffusion(bandwidth=0.02, n_components=1, memory_limit=64)
    if method != "fit":
        model.fit(X)
    return lambda n: getattr(model, method)(n if method == "sample" else X[: 3 * n])


def reach_case():
    """Return the same for the reach of a learned manifold."""
    X = ring(3000)
    manifold = LocalPolynomialManifold(1, memory_limit=16).fit(X)
    return lambda n: estimate_reach(manifold, X[: 3 * n])


def rows_case(measure, dimension):
    """Return the same for a measure of samples, of up to 6000 rows."""
    X, Y = np.random.RandomState(0).normal(size=(2, 6000, dimension))
    return lambda n: measure(X[: 6 * n], Y[: 6 * n])


# By what is measured: how it is made, and its limit in MiB.
KINDS = {
    **{
        f"KDESampler({kernel!r}).{method}": (kernel_case, (kernel, method), 64)
        for kernel in ("gaussian", "epanechnikov", "linear", "cosine", "exponential")
        for method in ("score_samples", "grad_log_density")
    },
    "KDESampler, d = 3, sorted into boxes": (boxes_case, (), 64),
    **{
        f"CoarseScoreDiffusion.{method}": (coarse_case, (method,), 64)
        for method in ("fit", "sample", "score_samples")
    },
    "estimate_reach, 3000 rows": (reach_case, (), 16),
    "coverage_scale": (rows_case, (coverage_scale, 2), 64),
    "fidelity_and_diversity": (rows_case, (fidelity_and_diversity, 50), 64),
    "distance_to_data": (rows_case, (distance_to_data, 50), 64),
}


def measure_kind(name):
    """Return the additional memory in MiB of one of `KINDS`, after a small call."""
    make, arguments, _ = KINDS[name]
    call = make(*arguments)
    call(20)
    before = held()
    call(1000)
    return resident("VmHWM") - before


def kinds():
    """Print the table of S9."""
    print(
        "\nS9, memory of other calls, 1000 queries or up to 6000 rows: MiB above what the process held "
        "after a small call.\n"
    )
    header("call", "limit", "peak", "peak / limit")
    for name, (_, _, limit) in KINDS.items():
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            used = pool.submit(measure_kind, name).result()
        row(name, limit, f"{used:.0f}", f"{used / limit:.2f}")


def run(full=False):
    """Print both tables."""
    if not CLEAR.exists():
        print("P7, memory: needs Linux's /proc.")
        return
    cases = [(1000, 64, 1000, 0.3, 16), (200, 64, 20_000, 0.3, 64), (20, 64, 50_000, 0.3, 128)]
    if full:
        cases += [
            (10_000, 64, 2000, 0.3, 64),
            (1000, 1024, 2000, 0.3, 64),
            (20, 256, 100_000, 0.3, 256),
            (1, 64, 1_000_000, 0.3, 512),
            # Here exponentials underflow, so that points are grouped, too.
            (1, 64, 1_000_000, 0.05, 512),
        ]
    print(
        "P7, memory: B queries, M nodes, N points in 8 dimensions; MiB above what the process held "
        "after fit. Difference: of the result from that with memory_limit=1024.\n"
    )
    header(
        "B",
        "M",
        "N",
        "bandwidth",
        "data",
        "memory_limit",
        "call",
        "peak",
        "(peak - data) / limit",
        "difference",
    )
    for n_queries, n_nodes, n_points, bandwidth, limit in cases:
        # What a call must hold whatever the limit: rows in, rows out and the tensors made of them.
        data = 8 * 8 * (n_points + n_queries) / 2**20
        for method in ("score_samples", "sample"):
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                used, error = pool.submit(
                    measure, method, n_queries, n_nodes, n_points, bandwidth, limit
                ).result()
            row(
                n_queries,
                n_nodes,
                n_points,
                bandwidth,
                f"{data:.1f}",
                limit,
                method,
                f"{used:.0f}",
                f"{(used - data) / limit:.2f}",
                f"{error:.0e}",
            )
    kinds()


if __name__ == "__main__":
    run(full_requested())
