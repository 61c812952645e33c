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
# The same at one of the twelve points, without smoothing.
AT_A_POINT = -2.6466
# Fig. 8: mean distance of samples from the manifold of images, read from the figure of its notebook.
FIG_8 = {1.0: 0.30, 1.4: 0.41, 1.8: 0.56, 2.0: 0.67, 2.2: 0.82, 2.4: 1.04, 2.6: 1.34}
# Numbers that a tile of shifted queries may hold.
_TILE = 2**20


def posterior_weights(points, y, v):
    """Return the weights (..., N) of points (N, d) at y (..., d), with noise of variance v."""
    return torch.softmax((y @ points.T - points.square().sum(1) / 2) / v, dim=-1)


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
    points = torch.as_tensor(X, dtype=torch.float32)
    norms, d = points.square().sum(1), points.shape[1]
    generator = torch.Generator().manual_seed(seed)

    def shifted(x, n_draws):
        return x[:, None] + sigma * torch.randn(len(x), n_draws, d, generator=generator)

    log_densities = []
    for part in torch.as_tensor(rows, dtype=torch.float32).split(10):
        x, change = part, torch.zeros(len(part))
        for v, following in itertools.pairwise(np.geomspace(*variances, n_steps + 1)):
            weights = posterior_weights(points, shifted(x, n_divergence_draws), v)
            trace = weights @ norms - (weights @ points).square().sum(2)
            change -= (following - v) / 2 * (trace.mean(1) / v - d) / v
            y = shifted(x, n_score_draws)
            mean = posterior_weights(points, y, v).mean(1) @ points
            x = x - (following - v) / 2 * (mean - y.mean(1)) / v
        v = variances[1]
        terminal = -x.square().sum(1) / (2 * v) - d / 2 * math.log(2 * math.pi * v)
        log_densities.append(terminal + change)
    return torch.cat(log_densities).double().numpy()


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
            mean = posterior_weights(within, (x @ basis)[:, None] + xi, v).mean(1) @ points
            mean_of_draws = sigma / math.sqrt(n_draws) * normal(*x.shape)
            mean_of_draws += (xi.mean(1) - mean_of_draws @ basis) @ basis.T
            x = x + (1 - following / v) * (mean - x - mean_of_draws)
            if following or last_noise:
                x += math.sqrt(v - following) * normal(*x.shape)
        samples.append(x)
    return torch.cat(samples).double().numpy()


def notebook_points(n=1000):
    """Return the random points (n, 2) of the circle at which the notebook computes likelihoods.

    Their angles are uniform, from the generator Threefry-2x32 (Salmon et al. 2011) of JAX, with key 0:
    at small sigma the density varies so much along the circle that other points have another mean.
    """
    keys = np.array([0, 0, 0x1BD11BDA], dtype=np.uint32)
    first, second = np.arange(n, dtype=np.uint32).reshape(2, -1)
    for block in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            first = first + second
            second = first ^ (second << np.uint32(turn) | second >> np.uint32(32 - turn))
        first = first + keys[(block + 1) % 3]
        second = second + keys[(block + 2) % 3] + np.uint32(block + 1)
    # The upper 23 bits are the fraction of a number in [1, 2).
    bits = np.concatenate([first, second]) >> np.uint32(9) | np.uint32(0x3F800000)
    angle = 2 * np.pi * (bits.view(np.float32) - 1)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def circle(full):
    """Print Fig. 4 as published, and as the published procedure gives it here."""
    X, rows = make_circle(12, spacing="even"), notebook_points()
    # Nothing is smoothed, so one draw is enough.
    plain = {"n_steps": 1000, "n_score_draws": 1, "n_divergence_draws": 1}
    whole = -published_log_density(make_circle(2000, spacing="even"), rows[:1], 0.0, **plain)[0]
    row_itself = -published_log_density(X, X[:1], 0.0, **plain)[0]
    print(
        f"Without smoothing, at one of the twelve points, 1000 Euler steps: {AT_A_POINT} published, "
        f"{row_itself:.4f} here.\n"
        f"Fig. 4, negative log-likelihood of the notebook's {len(rows)} points of the circle (nats), "
        f"100 Euler steps. The whole circle, 1000 steps: {TRUE_CIRCLE} published, {whole:.4f} here.\n"
    )
    header("sigma", "published", "here", "difference")
    for sigma, published in FIG_4.items() if full else [(0.15, FIG_4[0.15])]:
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
