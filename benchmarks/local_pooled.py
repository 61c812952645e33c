"""What patches of all places would add to the denoisers of `LocalScoreDiffusion`, in nats an image.

    python benchmarks/local_pooled.py SET      # digits or coarse-mnist

A pooled denoiser of a pixel weights the patches of many places of the training images, with edges
repeated: of the neighbouring places (shift 1) or of all. The prediction is the number of pixels times
the integral of the difference of errors over log(scale), as `benchmarks/local.py criterion` checks it.
Weights are chosen on the held-out images themselves, so that it is rather too high.
"""

import sys

import numpy as np
import torch
from _common import header, row
from local import SETS

from skdiffsmooth._engine.local import LocalPosterior
from skdiffsmooth._estimators.local_choice import WIDTHS, _best_weights
from skdiffsmooth._estimators.local_groups import resolve_groups
from skdiffsmooth.noise import NoiseLevels

N_LEVELS, SIZES = 10, (1, 3, 5)


def patches(images, size, shift, pixel):
    """Return the patches (n_patches, size^2) about a pixel and about those within a shift."""
    side = images.shape[1]
    padded = np.pad(images, ((0, 0), *((size // 2, size // 2),) * 2), mode="edge")
    i, j = divmod(pixel, side)
    near = [np.arange(max(c - shift, 0), min(c + shift + 1, side)) for c in (i, j)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return windows[:, near[0]][:, :, near[1]].reshape(-1, size**2)


def pooled(train, noised, scale, size, shift, columns):
    """Return the denoised pixels (n, n_columns) of noised images (n, side, side)."""
    denoised = []
    for pixel in columns:
        rows, queries = patches(train, size, shift, pixel), patches(noised, size, 0, pixel)
        logits = queries @ rows.T / scale**2 - (rows**2).sum(axis=1) / (2 * scale**2)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        denoised.append(weights @ rows[:, size**2 // 2] / weights.sum(axis=1))
    return np.transpose(denoised)


def run(name, n_queries=64, n_columns=16):
    """Print one line for each noise scale, and the sums."""
    train, held_out = SETS[name][0](0)
    held_out, d = held_out[:n_queries], train.shape[1]
    side = round(d**0.5)
    images, center = train.reshape(-1, side, side), train.mean(axis=0)
    points, queries = train - center, held_out - center
    covariance = points.T @ points / len(points)
    std = np.sqrt(np.trace(covariance) / d)
    family = resolve_groups("auto", (side, side), "auto", d, covariance)
    levels = NoiseLevels(0.01, 4 * std, N_LEVELS)
    step = np.log(4 * std / 0.01) / N_LEVELS
    columns = np.sort(np.random.default_rng(0).choice(d, n_columns, replace=False))
    log_weights = torch.full((len(points),), -np.log(len(points)), dtype=torch.float64)
    shifts, gains = (1, side - 1), np.zeros((2, n_queries))
    header("noise scale", "error, fixed places", *(f"shift {shift} too" for shift in shifts))
    for level in range(N_LEVELS):
        scale = levels.middle(level)
        noise = np.random.default_rng([3, level]).standard_normal(queries.shape)
        x = torch.from_numpy(queries + scale * noise)
        fixed = [-x.numpy() @ np.linalg.inv(covariance + scale**2 * np.eye(d))]
        for size in family.sizes:
            groups = family.make(size, scale).only(columns)
            for width in WIDTHS:
                own = width * covariance if width else None
                background = 0.001, 9 * std**2
                local = LocalPosterior(
                    torch.from_numpy(points), log_weights, groups, own, 256, background
                )
                fixed.append(local.score(x, scale**2)[0].numpy())
        residuals = [(noise + scale * score)[:, columns] for score in fixed]
        errors = [errors_of(residuals)]
        noised = held_out + scale * noise
        for number, shift in enumerate(shifts):
            more = [
                (
                    pooled(images, noised.reshape(-1, side, side), scale, size, shift, columns)
                    - held_out[:, columns]
                )
                / scale
                for size in SIZES
            ]
            errors.append(errors_of(residuals + more))
            gains[number] += d * step * (errors[0] - errors[-1])
        row(f"{scale:.3f}", *(f"{error.mean():.3f}" for error in errors))
    root = np.sqrt(n_queries)
    sums = (f"{gain.mean():+.2f} ± {gain.std() / root:.2f} nats" for gain in gains)
    row("sum", "", *sums)


def errors_of(residuals):
    """Return the mean squared errors (n,) of the best weighted mean of denoisers."""
    stacked = np.stack(residuals, axis=2)
    products = np.einsum("ipj,ipk->jk", stacked, stacked) / stacked[..., 0].size
    return np.square(stacked @ _best_weights(products)).mean(axis=1)


if __name__ == "__main__":
    run(sys.argv[1])
