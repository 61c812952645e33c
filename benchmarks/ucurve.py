"""P2: the likelihood of a circle against sigma, beside Monte Carlo, autodiff and Euler steps."""

import math

import numpy as np
import torch
from _common import full_requested, header, row, timed
from _rivals import monte_carlo_log_likelihood

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle

SIGMAS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35)
LOWEST, HIGHEST = math.sqrt(1e-3), math.sqrt(5)
N_STEPS, RIVAL_NODES = 100, 1000


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


def rival(sigma, queries, n_steps=N_STEPS, tile=10):
    """Return the mean log-density by Monte Carlo, autodiff and Euler; the first steps if fewer."""
    variances = np.geomspace(LOWEST**2, HIGHEST**2, N_STEPS + 1)[: n_steps + 1].tolist()
    generator = torch.Generator().manual_seed(0)
    points = torch.tensor(make_circle(12, spacing="even"), dtype=torch.float32)
    values = [
        monte_carlo_log_likelihood(points, part, sigma, RIVAL_NODES, variances, generator)
        for part in torch.tensor(queries, dtype=torch.float32).split(tile)
    ]
    return float(torch.cat(values).mean())


def run(full=False):
    """Print the table: every sigma in full, one and the whole curve's time in quick mode."""
    queries = make_circle(1000, spacing="even")
    n_timed = 20 if full else 3
    print(
        f"P2, circle: 12 points, mean log-likelihood of {len(queries)} queries, {N_STEPS} steps from "
        f"v = {LOWEST**2:.0e} to {HIGHEST**2:.0f}. Rival: {RIVAL_NODES} fresh draws for each query and "
        f"step, divergence by autodiff, Euler steps, Gaussian terminal distribution, float32; "
        f"its time is extrapolated from {n_timed} of {N_STEPS} steps, its error is that of 40 queries "
        "in full. Errors are of the mean, against 1024 nodes, with the rival's over the same 40 "
        "queries.\n"
    )
    header("sigma", "ours (s)", "rival (s, extrapolated)", "ratio", "our error", "rival's error")
    total = {"ours": 0.0, "rival": 0.0}
    for sigma in SIGMAS if full else (0.15,):
        ours, value = timed(lambda s=sigma: log_likelihood(s, queries), repeats=3)
        few, _ = timed(lambda s=sigma: rival(s, queries, n_timed), repeats=1, warm_up=False)
        theirs = few * N_STEPS / n_timed
        converged = log_likelihood(sigma, queries, n_nodes=1024, seed=1)
        some = queries[::25]
        rival_error = rival(sigma, some) - log_likelihood(sigma, some, n_nodes=1024, seed=1)
        total["ours"] += ours
        total["rival"] += theirs
        row(
            sigma,
            f"{ours:.2f}",
            f"{theirs:.0f}",
            f"{theirs / ours:.0f}x",
            f"{value - converged:+.4f}",
            f"{rival_error:+.3f}",
        )
    if full:
        ratio = total["rival"] / total["ours"]
        print(
            f"\nThe whole curve: {total['ours']:.1f} s against {total['rival']:.0f} s (extrapolated), "
            f"{ratio:.0f}x."
        )


if __name__ == "__main__":
    run(full_requested())
