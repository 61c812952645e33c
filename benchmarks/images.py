"""P3: sampling images of 4096 pixels, beside Monte Carlo with the published number of draws."""

import math

import numpy as np
import torch
from _common import full_requested, header, row, timed
from published import posterior_weights

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_bump_images

BANDWIDTH, N_SAMPLES, N_STEPS, RIVAL_NODES = math.sqrt(1e-3), 100, 100, 50_000


def model(sigma, images, n_nodes="auto"):
    """Return the estimator, fitted."""
    return SmoothedScoreDiffusion(
        BANDWIDTH, sigma, n_nodes=n_nodes, n_levels=N_STEPS, n_steps=N_STEPS, terminal_scale=3
    ).fit(images)


def rival_score(images, x, v, sigma, n_nodes, tile):
    """Average the score over fresh draws, a tile of them at a time: all would not fit."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(x)
    for _ in range(n_nodes // tile):
        offsets = sigma * torch.randn(tile, x.shape[1], generator=generator)
        y = x[:, None] + offsets
        mean = posterior_weights(images, y, v).mean(1) @ images
        total += tile * (mean - y.mean(1)) / v
    return total / n_nodes


def run(full=False):
    """Print the table: times of all samples and steps, errors of the field at the last step."""
    images = make_bump_images()
    dimension = images.shape[1]
    points = torch.tensor(images, dtype=torch.float32)
    n_timed = 200 if full else 40
    print(
        f"P3, images: {len(images)} training images of {dimension} pixels, {N_SAMPLES} samples, "
        f"{N_STEPS} steps; ours with fit. Rival: {RIVAL_NODES} fresh draws a step, shared by the "
        f"samples, Euler steps, float32; its time is extrapolated from one step with {n_timed} "
        "draws. Errors: of the posterior mean of two samples at the bandwidth, in the images' norm, "
        "against 16384 nodes; floor: sigma sqrt(d / draws), what the noise of the draws predicts.\n"
    )
    header(
        "sigma",
        "nodes",
        "ours (s)",
        "rival (s, extrapolated)",
        "ratio",
        "our error",
        "rival's",
        "floor",
    )
    for sigma in (1.0, 1.8, 2.6) if full else (1.8,):
        samples = model(sigma, images).sample(N_SAMPLES, random_state=0)
        x = torch.tensor(samples, dtype=torch.float32)
        # One Euler step costs one score; of tiles from 2 to 40 draws, 2 was the fastest.
        step, _ = timed(
            lambda s=sigma, x=x: rival_score(points, x, BANDWIDTH**2, s, n_timed, 2), repeats=1
        )
        theirs = step * RIVAL_NODES / n_timed * N_STEPS
        two = samples[:2]
        exact = model(sigma, images, n_nodes=16384).grad_log_density(two)
        drawn = rival_score(points, x[:2], BANDWIDTH**2, sigma, RIVAL_NODES, 500).numpy()
        for n_nodes in (64, "auto"):
            ours, _ = timed(
                lambda s=sigma, n=n_nodes: model(s, images, n).sample(N_SAMPLES, random_state=0),
                repeats=3,
            )
            fitted = model(sigma, images, n_nodes)
            our_error, rival_error = (
                BANDWIDTH**2 * np.linalg.norm(score - exact, axis=1).mean()
                for score in (fitted.grad_log_density(two), drawn)
            )
            row(
                sigma,
                fitted.n_nodes_,
                f"{ours:.2f}",
                f"{theirs:.0f}",
                f"{theirs / ours:.0f}x",
                f"{our_error:.3f}",
                f"{rival_error:.3f}",
                f"{sigma * math.sqrt(dimension / RIVAL_NODES):.3f}",
            )


if __name__ == "__main__":
    run(full_requested())
