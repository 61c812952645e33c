"""The published procedure, beside the values that the publication and its notebooks print.

Farghly et al. (arXiv 2510.02305) average the empirical score over fresh draws xi from N(0, sigma^2 I),
in all d coordinates, for every row and step, and take Euler steps in the variance v of the noise on a
geometric grid. A likelihood follows the flow upwards from N(0, v) at the end of it; the divergence is
averaged over draws of its own. Samples follow the reverse process downwards from N(0, v), with noise in
every step or in all but the last. This file is the only place where that procedure is written down;
it is plain, and not the library's.
"""

import itertools
import math
import time

import numpy as np
import torch
from _common import full_requested, header, row

from skdiffsmooth.datasets import make_bump_images, make_circle

# Fig. 4: negative log-likelihood of points of the circle, read from the figure of its notebook.
FIG_4 = {0.05: 1.52, 0.10: 0.08, 0.15: -0.39, 0.20: -0.30, 0.25: 0.10, 0.30: 0.78, 0.35: 1.82}
# The same for the whole circle in place of twelve points, as the notebook prints it: 1000 steps.
TRUE_CIRCLE = -0.7412
# Fig. 8: mean distance of samples from the manifold of images, read from the figure of its notebook.
FIG_8 = {1.0: 0.30, 1.4: 0.41, 1.8: 0.56, 2.0: 0.67, 2.2: 0.82, 2.4: 1.04, 2.6: 1.34}
# Numbers that a tile of shifted queries may hold.
_TILE = 2**20


def posterior_moments(points, y, v):
    """Return means (..., d) and traces (...) of the posterior of points (N, d) at y (..., d)."""
    norms = points.square().sum(1)
    weights = torch.softmax((y @ points.T - norms / 2) / v, dim=-1)
    means = weights @ points
    return means, weights @ norms - means.square().sum(-1)


def published_log_density(
    X,
    rows,
    sigma,
    *,
    n_steps=100,
    n_score_draws=200,
    n_divergence_draws=1000,
    variances=(1e-3, 5.0),
    seed=0,
):
    """Return log-densities (n,) of rows (n, d) by Euler steps in v; the defaults are those of Fig. 4."""
    points = torch.as_tensor(X, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    d = points.shape[1]

    def shifted(x, n_draws):
        draws = torch.randn(len(x), n_draws, d, generator=generator, dtype=x.dtype)
        return x[:, None] + sigma * draws

    log_densities = []
    for part in torch.as_tensor(rows, dtype=torch.float64).split(10):
        x = part
        change = torch.zeros(len(x), dtype=x.dtype)
        for v, following in itertools.pairwise(np.geomspace(*variances, n_steps + 1)):
            _, trace = posterior_moments(points, shifted(x, n_divergence_draws), v)
            change -= (following - v) / 2 * (trace.mean(1) / v - d) / v
            y = shifted(x, n_score_draws)
            mean, _ = posterior_moments(points, y, v)
            x = x - (following - v) / 2 * (mean - y).mean(1) / v
        v = variances[1]
        terminal = -x.square().sum(1) / (2 * v) - d / 2 * math.log(2 * math.pi * v)
        log_densities.append(terminal + change)
    return torch.cat(log_densities).numpy()


def published_samples(
    X,
    sigma,
    n_samples,
    *,
    n_draws=50_000,
    n_steps=100,
    variances=(1e-6, 9.0),
    last_noise=True,
    seed=0,
):
    """Return samples (n, d) of the reverse process; the defaults are those of Fig. 8.

    Only the mean of the draws matters orthogonally to the span of X. It is drawn itself there, from N(0,
    sigma^2 / M I), which is the distribution of the mean of M draws.
    """
    points = torch.as_tensor(X, dtype=torch.float32)
    basis = torch.linalg.qr(points.T)[0]
    within = points @ basis
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    samples = []
    # The grid of variances goes down to `variances[0]` and then to zero.
    grid = [*np.geomspace(*variances[::-1], n_steps), 0.0]
    n_at_once = max(1, _TILE // (n_draws * basis.shape[1]))
    for n in torch.arange(n_samples).split(n_at_once):
        x = math.sqrt(variances[1]) * normal(len(n), points.shape[1])
        for v, following in itertools.pairwise(grid):
            xi = sigma * normal(len(n), n_draws, basis.shape[1])
            mean = posterior_moments(within, (x @ basis)[:, None] + xi, v)[0].mean(1) @ basis.T
            mean_of_draws = sigma / math.sqrt(n_draws) * normal(*x.shape)
            mean_of_draws += (xi.mean(1) - mean_of_draws @ basis) @ basis.T
            x = x + (1 - following / v) * (mean - x - mean_of_draws)
            if following or last_noise:
                x += math.sqrt(v - following) * normal(*x.shape)
        samples.append(x)
    return torch.cat(samples).double().numpy()


def circle(full):
    """Print Fig. 4 as published, and as the published procedure gives it here."""
    X, rows = make_circle(12, spacing="even"), make_circle(1000, spacing="even")
    rows = rows if full else rows[::10]
    # Nothing is smoothed, so one draw is enough.
    plain = {"n_steps": 1000, "n_score_draws": 1, "n_divergence_draws": 1}
    whole = -published_log_density(make_circle(2000, spacing="even"), rows[:1], 0.0, **plain)[0]
    print(
        f"Fig. 4, negative log-likelihood of {len(rows)} points of the circle (nats), 100 Euler "
        f"steps. The whole circle, 1000 steps: {TRUE_CIRCLE} published, {whole:.4f} here.\n"
    )
    header("sigma", "published", "here", "difference")
    for sigma, published in FIG_4.items():
        value = -published_log_density(X, rows, sigma).mean()
        row(sigma, published, f"{value:.3f}", f"{value - published:+.3f}")


def images(full):
    """Print Fig. 8 as published, and as the published procedure gives it here."""
    X, shape = make_bump_images(return_shape=True)
    print(
        "\nFig. 8, mean distance of samples from the manifold of images, 50 000 draws, with noise in "
        "the last step, and its standard error.\n"
    )
    header("sigma", "published", "here", "standard error", "difference", "time (s)")
    for sigma, published in FIG_8.items() if full else [(1.0, FIG_8[1.0])]:
        # Up to 2.0 distances differ little between samples.
        start, n = time.perf_counter(), (30 if sigma > 2.0 else 8) if full else 4
        distance = shape.manifold.distance(published_samples(X, sigma, n))
        error = distance.std(ddof=1) / math.sqrt(n)
        row(
            *(sigma, published, f"{distance.mean():.3f}", f"{error:.3f}"),
            *(f"{distance.mean() - published:+.3f}", f"{time.perf_counter() - start:.0f}"),
        )


def run(full=False):
    """Print both tables: all scales in full, one scale of the images and few samples in quick mode."""
    circle(full)
    images(full)


if __name__ == "__main__":
    run(full_requested())
