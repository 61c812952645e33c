"""Rates of coarse scores: distance to the manifold and coverage against the number of rows.

Shapes are a sphere and a torus in R^3, four times denser on one half than on the other, and closed plane
curves of limited smoothness. Each slope is that of a straight line through log-log points of
all sizes and draws; in brackets its standard error. Run with --quick for one minute, or --full.
"""

import warnings

import numpy as np
from _common import full_requested, header, row
from scipy.spatial import cKDTree
from scipy.stats import linregress

from skdiffsmooth import CoarseScoreDiffusion, KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import PiecewiseConstant, sphere, torus
from skdiffsmooth.metrics import coverage_scale, distance_to_data, distance_to_manifold

# Fraction of the distribution that need not be covered, and of its own mass that a ball must have.
ALPHA, LEAST_MASS = 0.05, 0.25
SIZES, CURVE_SIZES = (400, 800, 1600, 3200, 6400), (100, 200, 400, 800, 1600)
QUICK_SIZES, QUICK_CURVE_SIZES = (400, 800, 1600), (100, 200, 400)

SPHERE = sphere(distribution=PiecewiseConstant((1, 4)))
TORUS = torus(2, 0.7, distribution=PiecewiseConstant((4, 1)))
SURFACES = {"sphere": SPHERE, "torus": TORUS}
SHARE_OF_REACH = 0.3


class RoughCurve:
    """r(t) = 1 + sum_j 2^(-j beta) cos(2^j t + j) / 4, j >= 1: Hoelder-smooth of order beta.

    Rough at every place; rough_circle of the library is so at four knots, which a mean over all
    places hardly sees, and for whole numbers beta only.
    """

    n_components, scale = 1, 0.1

    def __init__(self, beta):
        self.beta = beta
        t = np.linspace(0, 2 * np.pi, 400_000, endpoint=False)
        self.manifold = Polygon(self._place(t))

    def _place(self, t):
        j = np.arange(1, 16)
        waves = 2.0 ** (-j * self.beta) * np.cos(np.multiply.outer(t, 2.0**j) + j)
        r = 1 + waves.sum(axis=1) / 4
        return np.column_stack([r * np.cos(t), r * np.sin(t)])

    def sample(self, n, seed):
        """Return points, four times as many to the right."""
        rng = np.random.RandomState(seed)
        t = rng.uniform(-np.pi / 2, np.pi / 2, size=n) + np.pi * (rng.uniform(size=n) > 0.8)
        return self._place(t)


class Polygon:
    """A closed polygon with so many corners that it approximates a curve."""

    def __init__(self, corners):
        self.corners = corners
        self.tree = cKDTree(corners)

    def distance(self, x):
        """Return distances to the two edges that meet in the nearest corner."""
        _, nearest = self.tree.query(x)
        best = np.full(len(x), np.inf)
        for side in (-1, 1):
            start = self.corners[nearest]
            along = self.corners[(nearest + side) % len(self.corners)] - start
            share = np.sum((x - start) * along, axis=1) / np.sum(along**2, axis=1)
            foot = start + np.clip(share, 0, 1)[:, None] * along
            best = np.minimum(best, np.linalg.norm(x - foot, axis=1))
        return best


def switch_scale(shape):
    """Return the switch scale; a rough curve has no reach from which to choose it."""
    if isinstance(shape, RoughCurve):
        return shape.scale
    return round(SHARE_OF_REACH * shape.manifold.reach, 2)


def methods(shape, n, full):
    """Yield name, estimator, and the theoretical slope of the distance, as text."""
    k, s = shape.n_components, switch_scale(shape)
    h = n ** (-1 / (k + 4))
    yield "KDE, N^(-1/(k+4))", KDESampler(h / 2), f"{-1 / (k + 4):.2f}"
    inertial = CoarseScoreDiffusion(h / 2, 0, n_components=k)
    yield "inertial (degree 0), N^(-1/(k+4))", inertial, f"{-2 / (k + 4):.2f}"
    if k > 1 and n <= (1600 if full else 400):
        yield "smoothed score, defaults", SmoothedScoreDiffusion(random_state=0), ""
    yield f"degree 0, s = {s}", CoarseScoreDiffusion(s, 0, n_components=k), "0"
    for degree in (1, 2, 3):
        expected = f"{-(degree + 1) / k:.2f}"
        if isinstance(shape, RoughCurve):
            expected = f"{-min(degree + 1, shape.beta) / k:.2f}"
        yield (
            f"coarse, degree {degree}, s = {s}",
            CoarseScoreDiffusion(s, degree, n_components=k),
            expected,
        )


def slope(sizes, values):
    """Return the slope of log values against log sizes, and its standard error."""
    if len(set(sizes)) < 2:
        return np.nan, np.nan
    fit = linregress(np.log(sizes), np.log(values))
    return fit.slope, fit.stderr


def distances(shape, sizes, n_draws, full):
    """Print the table of mean distances from the manifold."""
    found, expected = {}, {}
    for n in sizes:
        for seed in range(n_draws):
            X = shape.sample(n, seed)
            for name, model, exponent in methods(shape, n, full):
                few = 200 if name.startswith("smoothed") else 1000
                if few == 200 and seed > 1:
                    continue
                rows = model.fit(X).sample(few, random_state=seed)
                values = found.setdefault(name, [])
                novelty = distance_to_data(rows, X).mean()
                off = distance_to_manifold(rows, shape.manifold).mean()
                values.append((n, off, novelty))
                expected[name] = exponent
    header("method", f"N = {sizes[0]}", "largest N", "to the nearest row", "slope", "theory")
    for name, values in found.items():
        size, off, novelty = np.array(values).T
        cells = []
        for n in (size.min(), size.max()):
            here = off[size == n]
            error = here.std(ddof=1) / np.sqrt(len(here)) if len(here) > 1 else np.nan
            cells.append(f"{here.mean():.2g} +- {error:.1g}")
        if size.max() < sizes[-1]:
            cells[1] += f" (N = {size.max():.0f})"
        rate, error = slope(size, off)
        nearest = novelty[size == size.max()].mean()
        row(name, *cells, f"{nearest:.2g}", f"{rate:+.2f} +- {error:.2f}", expected[name])


def coverage(shape, sizes, n_draws, n_samples, n_reference):
    """Print the table of coverage scales."""
    k, s = shape.n_components, switch_scale(shape)
    makers = {
        "the rows": lambda X, seed: X,
        "KDE, N^(-1/(k+4))": lambda X, seed: (
            KDESampler(len(X) ** (-1 / (k + 4)) / 2).fit(X).sample(n_samples, random_state=seed)
        ),
        "inertial (degree 0)": lambda X, seed: (
            CoarseScoreDiffusion(len(X) ** (-1 / (k + 4)) / 2, 0, n_components=k)
            .fit(X)
            .sample(n_samples, random_state=seed)
        ),
        f"coarse, degree 2, s = {s}": lambda X, seed: (
            CoarseScoreDiffusion(s, n_components=k).fit(X).sample(n_samples, random_state=seed)
        ),
        "the true distribution": lambda X, seed: shape.sample(n_samples, seed + 99),
    }
    header("method", *(f"N = {n}" for n in sizes), "slope")
    for name, make in makers.items():
        cells, size, values = [], [], []
        for n in sizes:
            here = []
            for seed in range(n_draws):
                X = shape.sample(n, seed)
                reference = shape.sample(n_reference, 1000 + seed)
                scale = coverage_scale(make(X, seed), reference, alpha=ALPHA, c=LEAST_MASS)
                here.append(scale)
            size += [n] * n_draws
            values += here
            error = np.std(here, ddof=1) / np.sqrt(n_draws) if n_draws > 1 else np.nan
            cells.append(f"{np.mean(here):.3f} +- {error:.3f}")
        rate, error = slope(size, values)
        row(name, *cells, f"{rate:+.2f} +- {error:.2f}")


def run(full=False):
    """Print all tables."""
    # At 400 rows of the torus one to four samples in a hundred are off the learned surface; the means
    # below contain them.
    warnings.filterwarnings("ignore", ".*project to points")
    n_draws = 3 if full else 2
    sizes = SIZES if full else QUICK_SIZES
    for name, shape in SURFACES.items():
        print(f"\n### Mean distance from the manifold: {name}\n")
        distances(shape, sizes, n_draws, full)
    for beta in (1.5, 2.5, 3.5) if full else (2.5,):
        print(f"\n### Mean distance from the manifold: plane curve of smoothness {beta}\n")
        distances(
            RoughCurve(beta), CURVE_SIZES if full else QUICK_CURVE_SIZES, n_draws + full, full
        )
    print(f"\n### Coverage scale at (alpha, c) = ({ALPHA}, {LEAST_MASS})\n")
    for name, shape in SURFACES.items():
        print(f"\n{name}\n")
        coverage(shape, sizes, n_draws, *((8000, 4000) if full else (2000, 2000)))


if __name__ == "__main__":
    run(full_requested())
