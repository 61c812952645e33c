"""Learned tangents beside isotropic smoothing and the KDE: held-out likelihood, mass and time.

All are tuned over the same grid of scales, in units of the leave-one-out bandwidth of the KDE, on the
held-out rows themselves, so that the best of each is compared.
"""

import numpy as np
from _common import full_requested, header, row, timed
from sklearn import datasets

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_bump_images, make_wavy_circle

BANDWIDTHS, SIGMAS = (0.5, 0.85), (1.5, 3.0, 4.5)


class Split:
    """One training set with held-out rows, and the density of either kernel."""

    def __init__(self, X, held_out, n_components):
        self.X, self.held_out, self.n_components = X, held_out, n_components
        self.kde = KDESampler("loo").fit(X)

    def model(self, factors, learned):
        scales = [factor * self.kde.bandwidth_ for factor in factors]
        if learned:
            return ManifoldAdaptedDiffusion(*scales, n_components=self.n_components).fit(self.X)
        return SmoothedScoreDiffusion(*scales).fit(self.X)

    def score(self, factors, learned):
        return self.model(factors, learned).score(self.held_out)

    def seconds(self, learned, n_queries=1000):
        """Return the time of the log-densities of rows like the training rows."""
        rng = np.random.RandomState(0)
        Q = self.X[rng.randint(len(self.X), size=n_queries)]
        Q = Q + 0.5 * self.kde.bandwidth_ * rng.normal(size=Q.shape)
        model = self.model((0.7, 2.0), learned)
        return timed(lambda: model.score_samples(Q), repeats=3)[0]

    def mass(self, factors):
        """Integrate the density of the learned kernel in the plane."""
        step = factors[0] * self.kde.bandwidth_ / 2
        low, high = self.X.min(0) - 12 * step, self.X.max(0) + 12 * step
        axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        return np.exp(self.model(factors, True).score_samples(grid)).sum() * step**2


def ring(n, rng, d=2, wave=0.0, noise=0.0):
    """Return rows on a circle with eight waves in R^d."""
    X = make_wavy_circle(n, amplitude=wave, distribution="parameter", random_state=rng)
    X = np.pad(X, ((0, 0), (0, d - 2)))
    return X + noise * rng.normal(size=X.shape)


def roll(n, rng):
    """Return rows near a swiss roll in R^10."""
    X = np.zeros((n, 10))
    X[:, :3] = datasets.make_swiss_roll(n, random_state=rng)[0] / 10
    return X + 0.02 * rng.normal(size=X.shape)


def sphere(n, rng):
    """Return rows on the unit sphere in R^3."""
    X = rng.normal(size=(n, 3))
    return X / np.linalg.norm(X, axis=1)[:, None]


def images(n, rng):
    """Return images of a bump at the 16 positions of the training images, or at others between them."""
    if n == 16:
        return make_bump_images()
    return make_bump_images(96)[rng.permutation(np.flatnonzero(np.arange(96) % 6))[:n]]


def table(load):
    """Return rows of a standardised table, unrounded; those of other seeds are other rows."""
    X = np.unique(load().data, axis=0)
    units = [np.diff(np.unique(column)).min() for column in X.T]
    X = X + units * np.random.RandomState(0).uniform(-0.5, 0.5, size=X.shape)
    return (X - X.mean(0)) / X.std(0)


def normal(n, rng):
    """Return correlated normal rows in R^5."""
    return rng.normal(size=(n, 5)) @ np.random.RandomState(5).normal(size=(5, 5))


def splits(make, n, n_held_out, n_seeds):
    """Return pairs of training and held-out rows."""
    for seed in range(n_seeds):
        rng = np.random.RandomState(seed)
        if isinstance(make, np.ndarray):
            rows = rng.permutation(make)
            yield rows[:n], rows[n:]
        else:
            yield make(n, rng), make(n_held_out, rng)


def problems(full):
    """Return name, generator, rows and dimension of the tangents."""
    iris, wine = table(datasets.load_iris), table(datasets.load_wine)
    cases = [
        ("wavy circle", lambda n, rng: ring(n, rng, wave=0.13), 30, 1),
        ("wavy circle", lambda n, rng: ring(n, rng, wave=0.13), 100, 1),
        ("wavy circle, noise 0.03", lambda n, rng: ring(n, rng, wave=0.13, noise=0.03), 100, 1),
        ("circle", ring, 12, 1),
        ("circle", ring, 60, 1),
        ("circle in R^10, noise 0.03", lambda n, rng: ring(n, rng, d=10, noise=0.03), 100, 1),
        ("sphere", sphere, 400, 2),
        ("swiss roll in R^10", roll, 300, 2),
        ("images of a bump", images, 16, 1),
        ("iris", iris, 104, 2),
        ("wine", wine, 124, 4),
        ("normal in R^5", normal, 400, 2),
    ]
    if full:
        cases += [
            ("wavy circle", lambda n, rng: ring(n, rng, wave=0.13), 300, 1),
            ("swiss roll in R^10", roll, 630, 2),
        ]
    return cases


def nodes():
    """Print time and error of a kernel by its number of nodes, on a swiss roll."""
    X, few, many = (roll(n, np.random.RandomState(k)) for k, n in enumerate((630, 150, 1000)))
    kinds = {
        "isotropic": lambda **given: SmoothedScoreDiffusion(0.04, 0.2, **given).fit(X),
        "learned": lambda **given: ManifoldAdaptedDiffusion(0.04, 0.2, n_components=2, **given).fit(
            X
        ),
    }
    print("\nSwiss roll in R^10, 630 rows, bandwidth 0.04, sigma 0.2; errors against 512 nodes.\n")
    header("kernel", "nodes", "rms error (nats a row)", "150 rows (s)", "1000 rows (s)")
    for name, make in kinds.items():
        reference = make(n_nodes=512, random_state=3).score_samples(few)
        for n_nodes in (32, 64):
            model = make(n_nodes=n_nodes)
            error = np.sqrt(np.mean((model.score_samples(few) - reference) ** 2))
            times = [
                timed(lambda m=model, Q=Q: m.score_samples(Q), repeats=3)[0] for Q in (few, many)
            ]
            row(name, n_nodes, f"{error:.3f}", *[f"{seconds:.2f}" for seconds in times])


def run(full=False):
    """Print the tables."""
    n_held_out, n_seeds = (200, 3) if full else (80, 2)
    print(
        "Learned tangents: held-out nats a row, means of seeds, at the best of "
        f"{len(BANDWIDTHS) * len(SIGMAS)} pairs of scales (bandwidth, sigma), in units of the KDE's; "
        "mass of the density there; time of score_samples for 1000 rows, over isotropic smoothing's.\n"
    )
    header("data", "N", "cells", "KDE", "isotropic", "learned", "gain", "mass", "time")
    grid = [(a, b) for a in BANDWIDTHS for b in SIGMAS]
    for name, make, n, n_components in problems(full):
        pairs = splits(make, n, n_held_out, n_seeds)
        cases = [Split(X, held_out, n_components) for X, held_out in pairs]
        kde = np.mean([case.kde.score(case.held_out) for case in cases])
        (isotropic, at), (learned, there) = (
            max((np.mean([case.score(f, kernel) for case in cases]), f) for f in grid)
            for kernel in (False, True)
        )
        case = cases[0]
        mass = f"{case.mass(there):.4f}" if case.X.shape[1] == 2 and n <= 60 else ""
        row(
            *(name, n, len(case.model(there, True).cells_), f"{kde:.3f}"),
            f"{isotropic:.3f} {at}",
            f"{learned:.3f} {there}",
            f"{learned - isotropic:+.3f}",
            mass,
            f"{case.seconds(True) / case.seconds(False):.1f}x",
        )
    nodes()


if __name__ == "__main__":
    run(full_requested())
