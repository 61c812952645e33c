"""P2: the likelihood of a circle against sigma, beside the published procedure."""

import math

from _common import full_requested, header, row, timed
from published import published_log_density

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle

SIGMAS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35)
LOWEST, HIGHEST = math.sqrt(1e-3), math.sqrt(5)
N_STEPS = 100


def log_likelihood(sigma, queries, n_nodes=64, seed=0):
    """Return the mean log-density of the queries under the model of twelve points."""
    model = SmoothedScoreDiffusion(
        LOWEST,
        sigma,
        n_nodes=n_nodes,
        n_levels=N_STEPS,
        n_steps=N_STEPS,
        terminal_scale=HIGHEST,
        random_state=seed,
    )
    return model.fit(make_circle(12, spacing="even")).score(queries)


def run(full=False):
    """Print the table: every sigma in full, one and the whole curve's time in quick mode."""
    queries = make_circle(1000, spacing="even")
    n_timed = 20 if full else 3
    print(
        f"P2, circle: 12 points, mean log-likelihood of {len(queries)} queries, {N_STEPS} steps from "
        f"v = {LOWEST**2:.0e} to {HIGHEST**2:.0f}. Published: the procedure of `published.py`, whose "
        f"time is extrapolated from {n_timed} of {N_STEPS} steps; its error is that of 40 queries in "
        "full. Errors are of the mean, against 1024 nodes, with the published one's over the same 40 "
        "queries.\n"
    )
    header("sigma", "ours (s)", "published (s)", "ratio", "our error", "published error")
    total = {"ours": 0.0, "published": 0.0}
    points = make_circle(12, spacing="even")
    for sigma in SIGMAS if full else (0.15,):
        ours, value = timed(lambda s=sigma: log_likelihood(s, queries), repeats=3)
        few, _ = timed(
            lambda s=sigma: published_log_density(points, queries, s, n_steps=n_timed),
            repeats=1,
            warm_up=False,
        )
        theirs = few * N_STEPS / n_timed
        converged = log_likelihood(sigma, queries, n_nodes=1024, seed=1)
        some = queries[::25]
        published = published_log_density(points, some, sigma).mean()
        published_error = published - log_likelihood(sigma, some, n_nodes=1024, seed=1)
        total["ours"] += ours
        total["published"] += theirs
        row(
            sigma,
            f"{ours:.2f}",
            f"{theirs:.0f}",
            f"{theirs / ours:.0f}x",
            f"{value - converged:+.4f}",
            f"{published_error:+.3f}",
        )
    if full:
        ratio = total["published"] / total["ours"]
        print(
            f"\nThe whole curve: {total['ours']:.1f} s against {total['published']:.0f} s "
            f"(extrapolated), {ratio:.0f}x."
        )


if __name__ == "__main__":
    run(full_requested())
