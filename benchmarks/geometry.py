"""Distances to the manifold and coverage of samples of four kinds of smoothing, equally novel."""

import warnings
from dataclasses import dataclass

import numpy as np
from _common import full_requested, header, row

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import (
    Shape,
    make_bump_images,
    make_circle,
    make_swiss_roll,
    make_wavy_circle,
)
from skdiffsmooth.metrics import distance_to_data

N_HALVINGS = 8

# Scales above a manifold's reach, where log-densities may be off; samples are all that is looked at.
warnings.filterwarnings("ignore", message="sigma=.* is large")


@dataclass
class Problem:
    """Rows of a known manifold, a dense sample of it, and the scales to compare at."""

    name: str
    X: np.ndarray
    shape: Shape
    dense: np.ndarray
    bandwidth: float
    sigma: float
    n_nodes: int = 32
    n_samples: int = 400


def problems(full):
    """Return the problems, the images last: they take as long as all others."""
    given = {"random_state": 0, "return_shape": True}
    wavy = make_wavy_circle(60, distribution="parameter", **given)
    circle = make_circle(30, **given)
    # A fifth of scikit-learn's roll, some four units wide.
    roll = make_swiss_roll(
        400, radius=4.5 * np.pi / 5, height=21 / 5, distribution="parameter", n_features=10, **given
    )
    images = make_bump_images(**given)
    return [
        Problem("wavy circle, 60 points", *wavy, along(wavy[1]), 0.01, 0.12),
        Problem("circle, 30 points", *circle, along(circle[1]), 0.01, 0.3),
        Problem(
            "swiss roll in R^10, 400 points",
            *roll,
            roll[1].sample(10_000, random_state=1),
            0.02,
            0.25,
        ),
        Problem(
            *("bump images in R^4096, 16 images", *images, along(images[1], 1000), 0.002, 2.5),
            n_samples=100 if full else 50,
        ),
    ]


def along(shape, n=4000):
    """Return rows that are spaced evenly on a curve."""
    return shape.sample(n, spacing="even")


def ways(problem):
    """Return for each way of smoothing a model of one scale."""
    given = {"n_nodes": problem.n_nodes}

    def learned(scale):
        return ManifoldAdaptedDiffusion(
            problem.bandwidth, scale, n_components=problem.shape.n_components, **given
        )

    return {
        "KDE": KDESampler,
        "isotropic": lambda scale: SmoothedScoreDiffusion(problem.bandwidth, scale, **given),
        "learned tangents": learned,
        "known, translated": lambda scale: ManifoldAdaptedDiffusion(
            problem.bandwidth, scale, manifold=problem.shape.manifold, **given
        ),
        "known, level set": lambda scale: ManifoldAdaptedDiffusion(
            problem.bandwidth, scale, manifold=problem.shape.manifold, push="level-set", **given
        ),
    }


class Measured:
    """Samples of one fitted model, and their distances from the data and from the manifold."""

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
