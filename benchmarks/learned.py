"""The learned kernel beside the isotropic one and the KDE: held-out likelihood, mass and time.

All are tuned over the same grid of scales, in units of the leave-one-out bandwidth of the KDE, on the
held-out rows themselves: what is compared is what each can reach.
"""

import math

import numpy as np
import torch
from _common import full_requested, header, row, timed
from _problems import bump_images
from sklearn import datasets

from skdiffsmooth import KDESampler
from skdiffsmooth._backend import Backend
from skdiffsmooth._gated import Cells, GatedKernel, GatedScore
from skdiffsmooth._hierarchy import PointHierarchy
from skdiffsmooth._hull import AffineHull
from skdiffsmooth._terminal import EmpiricalTerminal
from skdiffsmooth.bandwidth import gaussian_leave_one_out
from skdiffsmooth.kernels import GaussianKernel, default_n_nodes
from skdiffsmooth.likelihood import flow_log_density
from skdiffsmooth.noise import NoiseLevels
from skdiffsmooth.scores import ScoreSchedule
from skdiffsmooth.solvers import Heun

BANDWIDTHS, SIGMAS = (0.5, 0.85), (1.5, 3.0, 4.5)
CPU = Backend.from_params("cpu", "float64")


class GatedSchedule(ScoreSchedule):
    """The fields of the learned kernel."""

    def at(self, level):
        if self._last is None or self._last[0] != level:
            posterior = self.posterior_at(self.levels.start(level))
            self._last = level, GatedScore.of(posterior, self.kernel, level, self.backend)
        return self._last[1]


class Fit:
    """One training set, in coordinates of its hull, with the density of either kernel."""

    def __init__(self, X, n_components):
        self.X, self.hull = X, AffineHull.of(X)
        self.points, _ = self.hull.split(X)
        self.weights = np.full(len(X), 1 / len(X))
        self.scale = gaussian_leave_one_out(
            self.points, self.weights, self.hull.codimension, CPU, 1024.0
        )
        self.cells = Cells.of(self.points, self.weights, n_components)

    def schedule(self, bandwidth, sigma, learned):
        top = max(self.points.std(0).max(), 3 * sigma, 2 * bandwidth)
        levels = NoiseLevels(bandwidth, top, 32)
        hierarchy = PointHierarchy.of(self.points, self.weights, 0.0, bandwidth)
        n_nodes = default_n_nodes(self.hull.dimension)
        if learned:
            kernel = GatedKernel(sigma, self.cells, n_nodes, 0)
            return GatedSchedule(levels, hierarchy, kernel, CPU, 1024.0)
        kernel = GaussianKernel(sigma, np.eye(self.hull.dimension), n_nodes, 0)
        return ScoreSchedule(levels, hierarchy, kernel, CPU, 1024.0)

    def log_density(self, Q, bandwidth, sigma, learned):
        schedule = self.schedule(bandwidth, sigma, learned)
        x, residual = self.hull.split(Q)
        terminal = EmpiricalTerminal(schedule, schedule.levels.terminal_scale)
        steps = schedule.levels.steps(1)
        x = torch.tensor(x)
        within = flow_log_density(Heun(), schedule, x, steps, terminal.log_density).numpy()
        normalizer = self.hull.codimension * math.log(math.sqrt(2 * math.pi) * bandwidth)
        return within - 0.5 * np.sum((residual / bandwidth) ** 2, axis=1) - normalizer

    def seconds(self, learned, n_queries=1000):
        """Return the time of one field with divergence, in the middle of the levels."""
        schedule = self.schedule(0.7 * self.scale, 2 * self.scale, learned)
        field, v = schedule.at(16), schedule.levels.start(16) ** 2
        rng = np.random.RandomState(0)
        x = self.points[rng.randint(len(self.points), size=n_queries)]
        x = torch.tensor(x + math.sqrt(v) * rng.normal(size=x.shape))
        return timed(lambda: field.with_divergence(x, v), repeats=3)[0]

    def mass(self, bandwidth, sigma, learned):
        """Integrate the density of a model in the plane."""
        low, high = self.X.min(0) - 6 * bandwidth, self.X.max(0) + 6 * bandwidth
        axes = [np.arange(a, b, bandwidth / 2) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        log_density = self.log_density(grid, bandwidth, sigma, learned)
        return np.exp(log_density).sum() * bandwidth**2 / 4


def ring(n, rng, d=2, wave=0.0, noise=0.0):
    """Return rows on a circle with eight waves in R^d."""
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = 1 + wave * np.sin(8 * angle)
    X = np.zeros((n, d))
    X[:, 0], X[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
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
    """Return images of a bump at 16 places that are held by the model, or at others between them."""
    if n == 16:
        return bump_images()
    return bump_images(96)[rng.permutation(np.flatnonzero(np.arange(96) % 6))[:n]]


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


def run(full=False):
    """Print the table."""
    n_held_out, n_seeds = (200, 3) if full else (80, 2)
    print(
        "The learned kernel: held-out nats a row, means of seeds, at the best of "
        f"{len(BANDWIDTHS) * len(SIGMAS)} pairs of scales (bandwidth, sigma), in units of the KDE's; "
        "mass of the density there; time of one field with divergence for 1000 queries.\n"
    )
    header("data", "N", "K", "KDE", "isotropic", "learned", "gain", "mass", "time (s)", "ratio")
    grid = [(a, b) for a in BANDWIDTHS for b in SIGMAS]
    for name, make, n, n_components in problems(full):
        pairs = list(splits(make, n, n_held_out, n_seeds))
        fits = [Fit(train, n_components) for train, _ in pairs]
        held_out = [test for _, test in pairs]
        kde = np.mean(
            [
                KDESampler("loo").fit(fit.X).score_samples(Q).mean()
                for fit, Q in zip(fits, held_out, strict=True)
            ]
        )
        best = {
            learned: max(
                (
                    np.mean(
                        [
                            fit.log_density(Q, a * fit.scale, b * fit.scale, learned).mean()
                            for fit, Q in zip(fits, held_out, strict=True)
                        ]
                    ),
                    (a, b),
                )
                for a, b in grid
            )
            for learned in (False, True)
        }
        (isotropic, at), (learned, there) = best[False], best[True]
        fit = fits[0]
        mass = ""
        if fit.X.shape[1] == 2 and n <= 60:
            mass = f"{fit.mass(*(factor * fit.scale for factor in there), True):.4f}"
        times = fit.seconds(False), fit.seconds(True)
        row(
            *(name, n, len(fit.cells), f"{kde:.3f}"),
            f"{isotropic:.3f} {at}",
            f"{learned:.3f} {there}",
            f"{learned - isotropic:+.3f}",
            mass,
            f"{times[1]:.3f}",
            f"{times[1] / times[0]:.1f}x",
        )


if __name__ == "__main__":
    run(full_requested())
