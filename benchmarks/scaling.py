"""P6: how the time of fitting and sampling grows with the number of points on a surface."""

import time
import warnings

import numpy as np
from _common import full_requested, header, row, timed
from _problems import engine_case, surface
from sklearn.exceptions import ConvergenceWarning

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._engine.groups import _local_order

N_CHECKED = 20
# Points in a block of neighbours, whole groups of the engine.
BLOCK = 128
# Nodes, levels and steps do not follow from tol, so that only merging differs.
FIXED = {"n_nodes": 64, "n_levels": 18, "n_steps": 18, "memory_limit": 2048}


def model(X, tolerance=None):
    """Return the estimator, fitted, its bandwidth that of a two-dimensional set."""
    bandwidth = 0.5 * len(X) ** (-1 / 6)
    tol = "auto" if tolerance is None else max(10 * tolerance, 1e-12)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="tol=", category=ConvergenceWarning)
        return SmoothedScoreDiffusion(bandwidth, 2 * bandwidth, tol=tol, **FIXED).fit(X)


def extrapolated_sampling(exact, n_samples, few=20, more=100):
    """Return the time of all samples, on the line through two smaller numbers of them."""
    first, second = (
        timed(lambda n=n: exact.sample(n, random_state=0), repeats=1, warm_up=False)[0]
        for n in (few, more)
    )
    return first + (second - first) / (more - few) * (n_samples - few)


def score_error(fast, exact, queries):
    """Return the largest error of the score, in units of one over the noise scale, over noise."""
    scales = np.geomspace(exact.bandwidth_, exact.noise_levels_.terminal_scale, 5)
    return max(
        scale
        * np.linalg.norm(
            fast.grad_log_density(queries, scale**2) - exact.grad_log_density(queries, scale**2),
            axis=1,
        ).max()
        for scale in scales
    )


def merging_errors(full):
    """Print errors of log-densities by merging, for several tolerances."""
    n, n_queries = 20_000, 200 if full else 50
    X, queries = surface(n, noise=0), surface(n_queries, seed=1)
    seconds, exact = timed(
        lambda: model(X, tolerance=0).score_samples(queries), repeats=1, warm_up=False
    )
    print(
        f"\nMerging: {n} points as above, score_samples of {n_queries} rows near them, in nats; without "
        f"merging {seconds:.1f} s, fit included.\n"
    )
    header("tolerance", "points left at the bandwidth", "time (s)", "mean error", "rms", "largest")
    for tolerance in (0.005, 0.02, 0.08, 0.32):
        merged = model(X, tolerance=tolerance)
        spent, found = timed(
            lambda t=tolerance: model(X, tolerance=t).score_samples(queries),
            repeats=1,
            warm_up=False,
        )
        left = len(merged.hierarchy_.at(merged.bandwidth_)[0])
        error = found - exact
        row(
            tolerance,
            left,
            f"{spent:.1f}",
            f"{error.mean():.0e}",
            f"{np.sqrt(np.mean(error**2)):.0e}",
            f"{np.abs(error).max():.0e}",
        )


def single_queries(n=100_000, n_queries=50):
    """Print S6: the time of a query of many rows, and how many of the points a query needs at all."""
    X, queries = surface(n, noise=0), surface(n_queries, seed=1)
    bandwidth = 0.5 * n ** (-1 / 6)
    fitted = SmoothedScoreDiffusion(bandwidth, 2 * bandwidth, background=0.0).fit(X)
    milliseconds, found = [], None
    for call in (fitted.score_samples, lambda rows: fitted.sample(len(rows), random_state=0)):
        start = time.process_time()
        result = call(queries)
        milliseconds.append(1e3 * (time.process_time() - start) / n_queries)
        found = result if found is None else found
    print(
        f"\nS6: {n} points, one of {n_queries} log-densities {milliseconds[0]:.1f} ms of CPU, one draw "
        f"{milliseconds[1]:.1f} ms; mean log-density {found.mean():.4f}, error_ {fitted.error_:.3f}. "
        "Points whose weight is above 1e-8 of the largest, the mean of 10 queries, and those in "
        f"blocks of {BLOCK} neighbours that hold one:\n"
    )
    header("level", "points, merged", "in blocks", "for any node of a query", "for one node")
    rng = np.random.RandomState(0)
    levels, rows = fitted.noise_levels_, fitted.model_.embedding.split(queries)[0][:10]
    totals = np.zeros(4)
    for level in range(levels.n_levels):
        scale = levels.start(level)
        points, _ = fitted.hierarchy_.at(scale)
        offsets, _ = fitted.kernel_.nodes(level)
        # Without the last few points, which fill no block.
        blocks = _local_order(points[: len(points) // BLOCK * BLOCK]).reshape(-1, BLOCK)
        counts = []
        for x in rows + scale * rng.normal(size=rows.shape):
            half_squares = ((x + offsets)[:, None] - points) ** 2 / (2 * scale**2)
            exponents = half_squares.sum(axis=2)
            near = exponents < exponents.min(axis=1, keepdims=True) + np.log(1e8)
            needed = near.any(axis=0)
            in_blocks = BLOCK * needed[blocks].any(axis=1).sum()
            counts.append((in_blocks, needed.sum(), near.sum(axis=1).mean()))
        found = [len(points), *np.mean(counts, axis=0)]
        totals += found
        if level % 5 == 0:
            row(level, *(f"{count:.0f}" for count in found))
    row("sum of all levels", *(f"{count:.0f}" for count in totals))


def rates():
    """Print the engine's rate of arithmetic over the number of points."""
    print("\nEngine: 128 queries, 64 nodes, 8 dimensions, sigma 0.3, v = 0.3, float64.\n")
    header("N", "mean + trace (GFlop/s)", "mean only (GFlop/s)")
    for n in (2000, 20_000, 200_000):
        case = engine_case(n_points=n, n_queries=128, n_nodes=64)
        found = []
        for trace, columns in ((True, 10), (False, 2)):
            spent, _ = timed(lambda c=case, t=trace: c.moments(0.3, trace=t), repeats=3)
            found.append(f"{2 * columns * 128 * 64 * n / spent / 1e9:.0f}")
        row(n, *found)


def run(full=False):
    """Print the table and the exponent of the time in the number of points."""
    sizes = (10_000, 100_000, 1_000_000) if full else (10_000, 30_000)
    n_samples = 1000 if full else 200
    # Sums over more points than these take minutes without merging.
    largest_checked = 100_000 if full else 30_000
    print(
        f"P6, scaling: fit, then {n_samples} samples, of a surface in R^8; bandwidth "
        "0.5 N^(-1/6), sigma twice that, memory_limit 2048. Rival: tolerance=0, extrapolated from "
        f"20 and 100 samples. Errors against it, the largest of {N_CHECKED} queries: of the score "
        "times the noise scale, at five noise levels, and of score_samples in nats.\n"
    )
    header(
        "N",
        "fit (s)",
        "sample (s)",
        "tolerance=0 (s, extrapolated)",
        "ratio",
        "error of score",
        "error of score_samples",
    )
    seconds = []
    for n in sizes:
        X, queries = surface(n, noise=0), surface(N_CHECKED, seed=1)
        fitting, merged = timed(lambda X=X: model(X), repeats=1, warm_up=False)
        sampling, _ = timed(
            lambda m=merged: m.sample(n_samples, random_state=0),
            repeats=1,
            warm_up=False,
        )
        seconds.append(fitting + sampling)
        rival = ratio = score = density = "not run"
        if n <= largest_checked:
            exact = model(X, tolerance=0)
            theirs = extrapolated_sampling(exact, n_samples)
            change = merged.score_samples(queries) - exact.score_samples(queries)
            rival, ratio = f"{theirs:.0f}", f"{theirs / sampling:.1f}x"
            score = f"{score_error(merged, exact, queries):.0e}"
            density = f"{np.abs(change).max():.0e}"
        row(n, f"{fitting:.2f}", f"{sampling:.2f}", rival, ratio, score, density)
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(f"\nfit + sample grows like N^{exponent:.2f} over these sizes.")
    if full:
        single_queries()
    merging_errors(full)
    rates()


if __name__ == "__main__":
    run(full_requested())
