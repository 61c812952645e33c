"""Error of the log-likelihood against nodes, levels and steps, on a problem that is hard for them.

Twelve points on the unit circle, bandwidth sqrt(1e-3), sigma 0.15 (the setting of the paper's Fig. 4):
at low noise the posterior mean jumps between points, so that the error of finitely many nodes is large.
"""

import math
import time

import numpy as np

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle

BANDWIDTH, SIGMA = math.sqrt(1e-3), 0.15
POINTS, QUERIES = (make_circle(n, spacing="even") for n in (12, 1000))


def model(n_nodes, n_levels, n_steps, seed=0):
    """Return the estimator, fitted."""
    return SmoothedScoreDiffusion(
        BANDWIDTH,
        SIGMA,
        n_nodes=n_nodes,
        n_levels=n_levels,
        n_steps=n_steps,
        random_state=seed,
    ).fit(POINTS)


def mass(fitted, width=1.8, n=201):
    """Integrate exp(score_samples) over a square."""
    axis = np.linspace(-width, width, n)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return np.exp(fitted.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 2


def run(n_seeds=5):
    """Print the table."""
    converged = np.mean([model(1024, 96, 192, seed).score(QUERIES) for seed in range(3)])
    print(
        f"Accuracy: mean log-likelihood of 1000 points on the circle, converged {converged:.4f}\n"
    )
    print("| nodes | levels | steps | error, mean of seeds | sd over seeds | mass - 1 | time (s) |")
    print("|---|---|---|---|---|---|---|")
    settings = [
        (16, 32, 32),
        (64, 1, 32),
        (64, 8, 32),
        (64, 16, 32),
        (64, 32, 32),
        (64, 32, 96),
        (64, 96, 96),
        (256, 32, 32),
        (256, 96, 192),
    ]
    for n_nodes, n_levels, n_steps in settings:
        start = time.perf_counter()
        scores = [model(n_nodes, n_levels, n_steps, seed).score(QUERIES) for seed in range(n_seeds)]
        elapsed = (time.perf_counter() - start) / n_seeds
        excess = mass(model(n_nodes, n_levels, n_steps)) - 1
        print(
            f"| {n_nodes} | {n_levels} | {n_steps} | {np.mean(scores) - converged:+.4f} "
            f"| {np.std(scores):.4f} | {excess:+.4f} | {elapsed:.2f} |"
        )


if __name__ == "__main__":
    run()
