"""How narrow scales copy training rows: shares of copies and an attack on membership, on five tables.

Half of at most 400 standardised rows of each table are fitted, the others are held out. Scales are given
by the distance of draws from their training row, sqrt(d (bandwidth^2 + sigma^2)), in units of the median
distance of a training row from its nearest other row, and as multiples of the leave-one-out bandwidth.
Along a manifold of k dimensions that distance is sqrt(k s^2 + (d - k) r^2), with the switch scale s and
the residual scale r.
Each cell is the smallest and the largest value of the tables; `python benchmarks/memorization.py`.
"""

import warnings

import numpy as np
from _common import header, row
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    LocalScoreDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.bandwidth import nearest_distances
from skdiffsmooth.metrics import memorization_report

NAMES = ("iris", "wine", "diabetes", "breast_cancer")


def tables():
    """Yield training rows and held-out rows, as many of both."""
    moons = datasets.make_moons(400, noise=0.1, random_state=0)[0]
    for rows in (moons, *(getattr(datasets, f"load_{name}")().data for name in NAMES)):
        rng = np.random.default_rng(0)
        X = StandardScaler().fit_transform(rng.permutation(rows)[:400])
        # Equal rows have no distance.
        X = X + 1e-9 * rng.normal(size=X.shape)
        half = len(X) // 2
        yield X[:half], X[half : 2 * half]


def models(train):
    """Yield the name of a setting, and the model for training rows (n, d)."""
    loo = KDESampler("loo").fit(train).bandwidth_
    for factor in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
        yield f"KDE, bandwidth {factor:g} loo", KDESampler(factor * loo)
    spacing = np.median(nearest_distances(train)) / train.shape[1] ** 0.5
    for factor in (0.1, 0.3, 1.0):
        yield (
            f"bandwidth 0.05 loo, sigma {factor:g} spacings",
            SmoothedScoreDiffusion(
                0.05 * loo, factor * spacing, metric="euclidean", background=0.0, n_nodes=32
            ),
        )
    for factor in (0.05, 0.2, 0.5):
        for degree in (0, 2):
            yield (
                f"coarse, degree {degree}, switch scale {factor:g} loo",
                CoarseScoreDiffusion(factor * loo, degree),
            )
    yield "coarse, degree 2, auto", CoarseScoreDiffusion()
    for factor in (0.05, 0.2):
        for size in (1, train.shape[1]):
            groups = "one column" if size == 1 else "all columns"
            yield (
                f"local, {groups}, bandwidth {factor:g} loo",
                LocalScoreDiffusion(factor * loo, size=size, width=0.0),
            )


def distance_of_draws(model, d):
    """Return the distance of a typical draw from the row that its noise is added to."""
    if not isinstance(model, CoarseScoreDiffusion):
        return np.hypot(model.bandwidth_, getattr(model, "sigma_", 0.0)) * d**0.5
    k = d if model.manifold_ is None else model.n_components_
    across = 0.0 if k == d else (d - k) * model.residual_scale_**2
    return (k * model.switch_scale_**2 + across) ** 0.5


if __name__ == "__main__":
    found = {}
    for train, held_out in tables():
        spacing = np.median(nearest_distances(train))
        for name, model in models(train):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(train)
            report = memorization_report(model.sample(len(train), random_state=0), train, held_out)
            distance = distance_of_draws(model, train.shape[1]) / spacing
            warned = any("near-copies" in str(each.message) for each in caught)
            cells = distance, report.near, report.ratio, report.attack, warned
            found.setdefault(name, []).append(cells)
    header("scales", "distance of draws", "near", "copies", "attack", "tables that warn")
    for name, cells in found.items():
        low, high = np.min(cells, axis=0), np.max(cells, axis=0)
        ranges = [f"{a:.2f} to {b:.2f}" for a, b in zip(low[:4], high[:4], strict=True)]
        row(name, *ranges, sum(cell[4] for cell in cells))
