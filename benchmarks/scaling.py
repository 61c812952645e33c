"""P6: how the time of fitting and sampling grows with the number of points on a surface."""

import numpy as np
from _common import full_requested, header, row, timed
from _problems import surface

from skdiffsmooth import SmoothedScoreDiffusion

N_CHECKED = 20


def model(X, **params):
    """Return the estimator, fitted, its bandwidth that of a two-dimensional set."""
    bandwidth = 0.5 * len(X) ** (-1 / 6)
    return SmoothedScoreDiffusion(bandwidth, 2 * bandwidth, memory_limit=2048, **params).fit(X)


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


def run(full=False):
    """Print the table and the exponent of the time in the number of points."""
    if "tolerance" not in SmoothedScoreDiffusion().get_params():
        print("P6, scaling: this version has no parameter tolerance.")
        return
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


if __name__ == "__main__":
    run(full_requested())
