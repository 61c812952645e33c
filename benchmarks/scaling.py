"""P6: how the time of fitting and sampling grows with the number of points on a surface."""

import time
from copy import copy
from dataclasses import replace

import numpy as np
from _common import full_requested, header, row, timed
from _problems import engine_case, surface
from _tables import load

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._diffusion.accuracy import _with_checked_merging
from skdiffsmooth._diffusion.fitting import LEAST_MERGING
from skdiffsmooth._engine.hierarchy import PointHierarchy

N_CHECKED = 20
FIXED = {"n_nodes": 64, "n_levels": 18, "n_steps": 18, "memory_limit": 2048}
# The tolerance, in nats, of the bound of each level under the default `tol`.
BOUND = 0.02


def model(X):
    """Return the estimator, fitted, its bandwidth that of a two-dimensional set."""
    bandwidth = 0.5 * len(X) ** (-1 / 6)
    return SmoothedScoreDiffusion(bandwidth, 2 * bandwidth, **FIXED).fit(X)


def merged(fitted, tolerance):
    """Return a copy of an estimator whose points are merged to a tolerance, with 0 not at all."""
    other, data = copy(fitted), fitted.model_.data
    points = data.hierarchy
    cells = PointHierarchy.of(
        points.points, points.weights, LEAST_MERGING * tolerance, points.finest
    )
    hierarchy = replace(cells, tolerance=tolerance)
    other.model_ = replace(fitted.model_, source=replace(data, hierarchy=hierarchy))
    return other


def cpu_seconds(call, repeats=1):
    """Return the least CPU time of a call, in seconds, and its result."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        found = call()
        times.append(time.process_time() - start)
    return min(times), found


def cpu_milliseconds(call, n):
    """Return the least CPU time of a call for one of its n rows, and its result."""
    seconds, found = cpu_seconds(call, repeats=3)
    return 1e3 * seconds / n, found


def extrapolated_sampling(exact, n_samples, few=20, more=100):
    """Return the time of all samples, on the line through two smaller numbers of them."""
    first, second = (
        cpu_seconds(lambda n=n: exact.sample(n, random_state=0))[0] for n in (few, more)
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
    fitted = model(X)
    spent, exact = cpu_seconds(lambda: merged(fitted, 0.0).score_samples(queries))
    print(
        f"\nMerging: {n} points as above, score_samples of {n_queries} rows near them, in nats; without "
        f"merging {1e3 * spent / n_queries:.1f} ms of CPU a row. `fit` chooses "
        f"{fitted.hierarchy_.tolerance:.3f}.\n"
    )
    header("tolerance", "points left at the bandwidth", "time (ms)", "mean error", "rms", "largest")
    for tolerance in (0.005, BOUND, 0.08, 0.32):
        other = merged(fitted, tolerance)
        spent, found = cpu_milliseconds(lambda m=other: m.score_samples(queries), n_queries)
        left = len(other.hierarchy_.at(other.bandwidth_)[0])
        row(tolerance, left, f"{spent:.1f}", *errors(found - exact))


def errors(differences):
    """Return mean, root mean square and largest of differences, as text."""
    largest = np.abs(differences).max()
    return f"{differences.mean():+.4f}", f"{np.sqrt(np.mean(differences**2)):.4f}", f"{largest:.3f}"


def curve(n, seed=0):
    """Return n rows about a curve in space, in all directions 0.05 from it."""
    rng = np.random.RandomState(seed)
    t = rng.uniform(0, 9, size=n)
    return np.column_stack([np.cos(t), np.sin(t), 0.3 * t]) + 0.05 * rng.normal(size=(n, 3))


def clusters(n, seed=0):
    """Return n rows of two Gaussian clusters in the plane."""
    rng = np.random.RandomState(seed)
    first = rng.normal(size=(n, 2)) @ np.array([[1.0, 0.5], [0.0, 0.6]])
    second = 0.5 * rng.normal(size=(n, 2)) + [3.0, 0.0]
    return np.where(rng.uniform(size=(n, 1)) < 0.4, second, first)


def standardised(name, n_queries):
    """Return all rows but some of a table, and those, in standard deviations of its columns."""
    X = load(name)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X[:-n_queries], X[-n_queries:]


def single_queries(n=100_000, n_queries=100):
    """Print S6: the time of a log-density and a draw among many rows, and the errors of merging."""
    cases = {
        "surface in R^8": (surface(n, noise=0), surface(n_queries, 1, noise=0), 0.073),
        "with noise of 0.02": (surface(n), surface(n_queries, 1), 0.073),
        "curve with noise of 0.05": (curve(n), curve(n_queries, 1), 0.05),
        "two clusters in the plane": (clusters(n), clusters(n_queries, 1), 0.1),
        "weather": (*standardised("weather", n_queries), 0.1),
        "storms": (*standardised("storms", n_queries), 0.1),
    }
    print(
        f"\nS6: one of {n_queries} log-densities and draws, in milliseconds of CPU, sigma twice the "
        "bandwidth. First line of each: merged as far as the bound of each level allows; second: as "
        "`fit` chooses, which takes *check* seconds. Errors against no merging, in nats.\n"
    )
    header(
        "data",
        "N",
        "bandwidth",
        "tolerance",
        "check",
        "log-density",
        "draw",
        "mean",
        "rms",
        "largest",
    )
    for name, (X, queries, bandwidth) in cases.items():
        fitted = SmoothedScoreDiffusion(bandwidth, 2 * bandwidth, background=0.0).fit(X)
        plain = merged(fitted, BOUND)
        checking, _ = cpu_seconds(lambda f=plain: _with_checked_merging(f.model_, f._resources()))
        exact = merged(fitted, 0.0).score_samples(queries)
        for other, seconds in ((plain, ""), (fitted, f"{checking:.1f}")):
            spent, found = cpu_milliseconds(
                lambda m=other, q=queries: m.score_samples(q), n_queries
            )
            draw, _ = cpu_milliseconds(
                lambda m=other: m.sample(n_queries, random_state=0), n_queries
            )
            tolerance = f"{other.hierarchy_.tolerance:.3f}"
            times = f"{spent:.2f}", f"{draw:.2f}"
            row(name, len(X), bandwidth, tolerance, seconds, *times, *errors(found - exact))


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
        "0.5 N^(-1/6), sigma twice that, memory_limit 2048; CPU seconds. Rival: no merging, from "
        f"20 and 100 samples. Errors against it, the largest of {N_CHECKED} queries: of the score "
        "times the noise scale, at five noise levels, and of score_samples in nats.\n"
    )
    header(
        "N",
        "fit (s)",
        "sample (s)",
        "no merging (s, extrapolated)",
        "ratio",
        "error of score",
        "error of score_samples",
    )
    seconds = []
    for n in sizes:
        X, queries = surface(n, noise=0), surface(N_CHECKED, seed=1)
        fitting, fitted = cpu_seconds(lambda X=X: model(X))
        sampling, _ = cpu_seconds(lambda m=fitted: m.sample(n_samples, random_state=0))
        seconds.append(fitting + sampling)
        rival = ratio = score = density = "not run"
        if n <= largest_checked:
            exact = merged(fitted, 0.0)
            theirs = extrapolated_sampling(exact, n_samples)
            change = fitted.score_samples(queries) - exact.score_samples(queries)
            rival, ratio = f"{theirs:.0f}", f"{theirs / sampling:.1f}x"
            score = f"{score_error(fitted, exact, queries):.0e}"
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
