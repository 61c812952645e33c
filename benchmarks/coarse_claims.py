"""Claims about coarse scores and smoothed log-densities: tables of docs/evidence/coarse.md and paper.md.

    python benchmarks/coarse_claims.py [coverage] [density] [trained] [curvature]

Without names it prints all tables, in some five CPU minutes. Errors are standard errors over three draws
of the training rows, those of slopes that of a straight line through log-log points.
"""

import sys
import warnings

import numpy as np
from _common import header, row
from coarse_rates import ALPHA, LEAST_MASS, SURFACES, RoughCurve, slope, switch_scale
from scipy.special import logsumexp
from scipy.stats import qmc
from sklearn.neural_network import MLPRegressor

from skdiffsmooth import CoarseScoreDiffusion, KDESampler, NeuralScoreDiffusion
from skdiffsmooth.manifolds import Sphere, smooth_along_level_sets
from skdiffsmooth.metrics import coverage_scale, distance_to_data, distance_to_manifold

SIZES, N_DRAWS, N_PLACES = (400, 800, 1600, 3200, 6400), 3, 500


def mean_and_error(values):
    """Return a mean with its standard error as text."""
    values = np.asarray(values)
    if not np.isfinite(values).all():
        return "infinite"
    return f"{values.mean():.2g} +- {values.std(ddof=1) / np.sqrt(len(values)):.1g}"


def exact_scale(model, shape, places):
    """Return the coverage scale of infinitely many samples near places of the distribution.

    A small ball of radius r about a place, at distance e from the learned manifold, holds the disc of
    radius sqrt(r^2 - e^2) of it, and so q / p (1 - e^2 / r^2)^(k / 2) of its own mass.
    """
    off = model.manifold_.distance(places)
    density = np.exp(model.score_samples(places))
    with np.errstate(divide="ignore"):
        needed = LEAST_MASS * np.exp(shape.log_density(places)) / density
        share = 1 - np.minimum(needed, 1) ** (2 / shape.n_components)
        return np.quantile(off / np.sqrt(share), 1 - ALPHA, method="higher")


def coverage():
    """Print exact coverage scales of degree 2 against the number of rows, and their exponents."""
    header("shape", *(f"N = {n}" for n in SIZES), "slope", "-beta / k", "-beta / (4k)")
    for name, shape in SURFACES.items():
        found = np.empty((len(SIZES), N_DRAWS))
        for i, n in enumerate(SIZES):
            for seed in range(N_DRAWS):
                model = CoarseScoreDiffusion(switch_scale(shape), n_components=2)
                model.fit(shape.sample(n, seed))
                found[i, seed] = exact_scale(model, shape, shape.sample(N_PLACES, 1000 + seed))
        # Infinite where fewer than 95 % of places have a quarter of their mass.
        is_finite = np.isfinite(found).all(axis=1)
        sizes = np.repeat(np.array(SIZES)[is_finite], N_DRAWS)
        rate, error = slope(sizes, found[is_finite].ravel())
        cells = [mean_and_error(values) for values in found]
        row(name, *cells, f"{rate:+.2f} +- {error:.2f}", "-1.5", "-0.375")
    # On a curve: the distance that 95 % of the distribution are within, from the learned curve.
    sizes = tuple(n // 4 for n in SIZES)
    header("beta, degree", *(f"N = {n}" for n in sizes), "slope", "-beta / k", "-beta / (4k)")
    for beta in (1.5, 2.5, 3.5):
        shape = RoughCurve(beta)
        for degree in (1, 3):
            found = np.empty((len(sizes), N_DRAWS))
            for i, n in enumerate(sizes):
                for seed in range(N_DRAWS):
                    model = CoarseScoreDiffusion(shape.scale, degree, n_components=1)
                    model.fit(shape.sample(n, seed))
                    off = model.manifold_.distance(shape.sample(N_PLACES, 1000 + seed))
                    found[i, seed] = np.quantile(off, 1 - ALPHA)
            rate, error = slope(np.repeat(sizes, N_DRAWS), found.ravel())
            cells = [mean_and_error(values) for values in found]
            least = min(beta, degree + 1)
            expected = f"{-least:.1f}", f"{-least / 4:.2f}"
            row(f"{beta}, {degree}", *cells, f"{rate:+.2f} +- {error:.2f}", *expected)


def lattice(n):
    """Return n points of the unit sphere of nearly equal areas."""
    i = np.arange(n) + 0.5
    height, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    across = np.sqrt(1 - height**2)
    return np.column_stack([np.cos(turn) * across, np.sin(turn) * across, height])


def density():
    """Print ratios of the densities of samples and of the truth, both with noise b, off the sphere."""
    shape, b = SURFACES["sphere"], 0.05
    nodes = lattice(100_000)
    log_nodes = shape.log_density(nodes) + np.log(4 * np.pi / len(nodes))
    header("N", "distance / b", "lowest", "5 %", "median", "95 %", "highest")
    for n in (400, 1600, 6400):
        model = CoarseScoreDiffusion(0.3, n_components=2, bandwidth=b).fit(shape.sample(n, 0))
        for steps in (-3, -1.5, 0, 1.5, 3):
            places = shape.sample(300, 1) * (1 + steps * b)
            squares = np.sum(places**2, axis=1)[:, None] + 1 - 2 * places @ nodes.T
            true = logsumexp(log_nodes - squares / (2 * b**2), axis=1)
            true -= 1.5 * np.log(2 * np.pi * b**2)
            ratio = np.exp(model.score_samples(places) - true)
            quantiles = np.quantile(ratio, (0, 0.05, 0.5, 0.95, 1))
            row(n, steps, *(f"{q:.2f}" for q in quantiles))


def trained():
    """Print distances and coverage of trained networks beside the coarse score in closed form."""
    shape, scale, n_samples = SURFACES["sphere"], 0.3, 2000
    n_noisy = 10_000
    header("N", "sampler", "from the sphere", "to the nearest row", "coverage scale")
    for n in (400,):
        found = {}
        for seed in range(N_DRAWS):
            X, rng = shape.sample(n, seed), np.random.RandomState(seed)
            ours = CoarseScoreDiffusion(scale, n_components=2).fit(X)
            noisy = X[rng.randint(n, size=n_noisy)] + scale * rng.normal(size=(n_noisy, 3))
            step = MLPRegressor(
                hidden_layer_sizes=(128, 128), early_stopping=True, random_state=seed
            )
            step.fit(noisy, ours.manifold_.project(noisy) - noisy)
            start = X[rng.randint(n, size=n_samples)] + scale * rng.normal(size=(n_samples, 3))
            once = start + step.predict(start)
            network = NeuralScoreDiffusion(bandwidth=0.05, random_state=seed).fit(X)
            rows = {
                "network, score matching (bandwidth 0.05)": network.sample(
                    n_samples, random_state=seed
                ),
                "network, coarse target, one step": once,
                "coarse, degree 2": ours.sample(n_samples, random_state=seed),
                "the true distribution": shape.sample(n_samples, seed + 99),
            }
            reference = shape.sample(2000, 1000 + seed)
            for name, drawn in rows.items():
                found.setdefault(name, []).append(
                    (
                        distance_to_manifold(drawn, shape.manifold).mean(),
                        distance_to_data(drawn, X).mean(),
                        coverage_scale(drawn, reference, alpha=ALPHA, c=LEAST_MASS),
                    )
                )
        for name, values in found.items():
            row(n, name, *(mean_and_error(column) for column in np.transpose(values)))


def divergence(X, bandwidth, sigma, n_places, seed):
    """Return the Renyi divergence of order 2 of the log-smoothed density from the theorem's, in nats.

    By importance sampling about the unit sphere that the rows (N, d) are on.
    """
    d, rng = X.shape[1], np.random.RandomState(seed)
    half = qmc.MultivariateNormalQMC(np.zeros(d), rng=np.random.default_rng(0)).random(64)
    offsets = sigma * np.concatenate([half, -half])
    manifold, kde = Sphere(np.zeros(d), 1.0), KDESampler(bandwidth).fit(X)
    wide = KDESampler(np.hypot(bandwidth, sigma)).fit(X)
    x = wide.sample(n_places, random_state=rng)
    # The density is negligible farther away.
    x = x[np.abs(np.linalg.norm(x, axis=1) - 1) < 5 * bandwidth]
    moved = (x[:, None] + offsets).reshape(-1, d)
    smoothed = kde.score_samples(moved).reshape(len(x), -1).mean(axis=1)
    squares = np.mean(manifold.distance(moved).reshape(len(x), -1) ** 2, axis=1)
    levels = np.sqrt(squares - squares.min())
    along = smooth_along_level_sets(kde.score_samples, manifold, x, offsets, distances=levels)
    proposal = wide.score_samples(x)
    cross, one, other = (
        logsumexp(term - proposal) for term in (2 * smoothed - along, smoothed, along)
    )
    return float(cross - 2 * one + other)


def curvature():
    """Print Thm 3.6's divergence against scale, bandwidth, rows and dimension, one at a time."""
    sigmas = (0.05, 0.1, 0.2, 0.3)
    header("d", "N", "bandwidth", *(f"sigma = {s}" for s in sigmas), "slope in sigma")
    cases = [(2, 100, 0.1), (2, 100, 0.05), (2, 100, 0.2), (2, 25, 0.1), (2, 400, 0.1)]
    cases += [(3, 100, 0.1), (3, 400, 0.1), (4, 400, 0.1), (6, 400, 0.1)]
    for d, n, bandwidth in cases:
        found = np.empty((len(sigmas), N_DRAWS))
        for seed in range(N_DRAWS):
            X = np.random.RandomState(seed).normal(size=(n, d))
            X /= np.linalg.norm(X, axis=1, keepdims=True)
            found[:, seed] = [divergence(X, bandwidth, s, 1500, seed) for s in sigmas]
        rate, error = slope(np.repeat(sigmas, N_DRAWS), found.ravel())
        cells = [mean_and_error(values) for values in found]
        row(d, n, bandwidth, *cells, f"{rate:.2f} +- {error:.2f}")


TABLES = {each.__name__: each for each in (coverage, density, trained, curvature)}


def run(names=()):
    """Print the tables of these names, or all."""
    warnings.filterwarnings("ignore", ".*project to points")
    for name in names or TABLES:
        print(f"\n### {name}\n")
        TABLES[name]()


if __name__ == "__main__":
    run(sys.argv[1:])
