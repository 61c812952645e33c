"""Where samples go: distances to the manifold and coverage of four ways to smooth, equally novel."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from _common import full_requested, header, row
from _problems import bump_images
from sklearn.datasets import make_swiss_roll

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.manifolds import Circle, Curve, PointCloud
from skdiffsmooth.metrics import distance_to_data

N_HALVINGS = 8

# Scales above a manifold's reach, where log-densities may be off; samples are all that is looked at.
warnings.filterwarnings("ignore", message="sigma=.* is large")


@dataclass
class Problem:
    """Rows of a known manifold, a dense sample of it, and the scales to compare at."""

    name: str
    X: np.ndarray
    dense: np.ndarray
    manifold: Any
    n_components: int
    bandwidth: float
    sigma: float
    n_nodes: int = 32
    n_samples: int = 400


def wavy(t, amplitude=0.13):
    """Return points of the circle with eight waves (Farghly et al. 2025, Fig. 5)."""
    radius = 1 + amplitude * np.sin(8 * t)
    return np.column_stack([radius * np.cos(t), radius * np.sin(t)])


def roll(n, seed):
    """Return points of a swiss roll in R^10, some four units wide."""
    X = np.zeros((n, 10))
    X[:, :3] = make_swiss_roll(n, random_state=seed)[0] / 5
    return X


def images_at(t):
    """Return images of a bump on its circle of places."""
    axis = np.linspace(-1, 1, 64)
    pixels = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    places = 0.5 * np.column_stack([np.cos(t), np.sin(t)])
    squares = ((pixels - places[:, None]) ** 2).sum(-1)
    return np.exp(-squares / (2 * 0.2**2))


def problems(full):
    """Return the problems, the images last: they take as long as all others."""
    angles = np.random.RandomState(0).uniform(0, 2 * np.pi, size=60)
    turn = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    unit = np.column_stack([np.cos(turn), np.sin(turn)])
    dense_roll = roll(10_000, 1)
    return [
        Problem(
            *("wavy circle, 60 points", wavy(angles), wavy(turn)),
            *(Curve(wavy, 0, 2 * np.pi, closed=True), 1, 0.01, 0.12),
        ),
        Problem(
            *("circle, 30 points", wavy(angles[:30], 0.0), unit),
            *(Circle([0.0, 0.0], 1.0), 1, 0.01, 0.3),
        ),
        Problem(
            *("swiss roll in R^10, 400 points", roll(400, 0), dense_roll),
            *(PointCloud(dense_roll, 2), 2, 0.02, 0.25),
        ),
        Problem(
            *("bump images in R^4096, 16 images", bump_images(), images_at(turn[::4])),
            *(Curve(images_at, 0, 2 * np.pi, closed=True), 1, 0.002, 2.5, 32),
            n_samples=100 if full else 50,
        ),
    ]


def ways(problem):
    """Return for each way of smoothing a model of one scale."""
    given = {"n_nodes": problem.n_nodes}

    def learned(scale):
        return ManifoldAdaptedDiffusion(
            problem.bandwidth, scale, n_components=problem.n_components, **given
        )

    return {
        "KDE": KDESampler,
        "isotropic": lambda scale: SmoothedScoreDiffusion(problem.bandwidth, scale, **given),
        "learned tangents": learned,
        "known, translated": lambda scale: ManifoldAdaptedDiffusion(
            problem.bandwidth, scale, manifold=problem.manifold, **given
        ),
        "known, level set": lambda scale: ManifoldAdaptedDiffusion(
            problem.bandwidth, scale, manifold=problem.manifold, push="level-set", **given
        ),
    }


class Measured:
    """Samples of one fitted model, and how far they are from what they should be near."""

    def __init__(self, problem, model):
        samples = model.fit(problem.X).sample(problem.n_samples, random_state=0)
        self.novelty = distance_to_data(samples, problem.X).mean()
        self.to_manifold = distance_to_data(samples, problem.dense).mean()
        self.gap = distance_to_data(problem.dense, samples).mean()


def matched(problem, way, novelty, guess):
    """Return the scale, by halving intervals of its logarithm, at which samples are as novel."""
    low, high = np.log(guess / 8), np.log(guess * 8)
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        found = Measured(problem, way(np.exp(middle)))
        low, high = (middle, high) if found.novelty < novelty else (low, middle)
    return np.exp(middle), found


def run(full=False):
    """Print the table."""
    print(
        "Samples of five ways to smooth, each at the scale at which they are as far from the data on "
        "average (novelty) as those of isotropic smoothing at the scale given; the bandwidth is the "
        "same for all but the KDE, whose scale it is. Gap: mean distance of the manifold from the "
        "samples.\n"
    )
    header("data", "smoothing", "scale", "novelty", "to manifold", "gap")
    for problem in problems(full):
        makers = ways(problem)
        target = Measured(problem, makers["isotropic"](problem.sigma)).novelty
        for name, way in makers.items():
            guess = target / np.sqrt(problem.X.shape[1]) if name == "KDE" else problem.sigma
            scale, found = matched(problem, way, target, guess)
            row(
                *(problem.name, name, f"{scale:.3g}", f"{found.novelty:.3f}"),
                *(f"{found.to_manifold:.4f}", f"{found.gap:.3f}"),
            )


if __name__ == "__main__":
    run(full_requested())
