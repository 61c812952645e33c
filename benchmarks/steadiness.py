"""Variance of a smoothed score over data sets: estimates from one data set, and fresh data sets.

    python benchmarks/steadiness.py [--full]

200 rows near the unit circle, with noise of 0.05; scores at one point beside it, for many draws of the
rows. *Rows* is the mean effective sample size, *variance* that of the score over the draws (the sum
over both components), *estimate* the mean of `score_variance`.
"""

import numpy as np
from _common import full_requested, header, row

from skdiffsmooth import SmoothedScoreDiffusion

PLACE = np.array([[0.85, 0.3]])
N_ROWS = 200


def draw(rng):
    """Return rows near the circle."""
    angle = rng.uniform(0, 2 * np.pi, N_ROWS)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * rng.normal(size=(N_ROWS, 2))


def main():
    """Print the table."""
    n_draws = 2000 if full_requested() else 200
    header("noise scale", "sigma", "rows", "variance", "estimate", "ratio")
    for scale in (0.5, 0.2, 0.1, 0.05):
        for sigma in (0.0, 0.1, 0.3):
            rng = np.random.RandomState(0)
            found = []
            for _ in range(n_draws):
                model = SmoothedScoreDiffusion(0.03, sigma, metric="euclidean", n_nodes=64)
                model.fit(draw(rng))
                size = model.effective_sample_size(PLACE, scale**2)
                estimate = model.score_variance(PLACE, scale**2).sum()
                found.append([*model.grad_log_density(PLACE, scale**2)[0], size[0], estimate])
            *scores, sizes, estimates = np.array(found).T
            variance, estimate = np.var(scores, axis=1, ddof=1).sum(), estimates.mean()
            numbers = [f"{number:.3g}" for number in (variance, estimate)]
            row(scale, sigma, f"{sizes.mean():.0f}", *numbers, f"{estimate / variance:.2f}")


if __name__ == "__main__":
    main()
