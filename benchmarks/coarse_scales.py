"""Which switch scale, noisy rows, masses and density ratios: tables of docs/evidence/coarse.md."""

import warnings

import numpy as np
from _common import header, row
from coarse_rates import SPHERE, SURFACES
from scipy.spatial import cKDTree

from skdiffsmooth import CoarseScoreDiffusion
from skdiffsmooth.manifolds import LocalPolynomialManifold, estimate_reach

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


def scales():
    """Print distance, hole and breaks for scales from a twentieth of the reach to most of it."""
    header("manifold", "N", "s / reach", "distance", "hole", "not idempotent")
    for name, shape in SURFACES.items():
        for n in (300, 2000):
            X = shape.sample(n, 0)
            places = shape.sample(3000, 1)
            for share in SHARES:
                scale = share * shape.manifold.reach
                model = CoarseScoreDiffusion(scale, n_components=2).fit(X)
                rows = model.sample(4000, random_state=0)
                again = model.manifold_.project(rows)
                moved = np.linalg.norm(again - rows, axis=1) > 1e-3 * scale
                hole = cKDTree(rows).query(places)[0].max()
                row(
                    name,
                    n,
                    share,
                    f"{shape.manifold.distance(rows).mean():.1e}",
                    f"{hole:.2f}",
                    f"{100 * moved.mean():.2f} %",
                )


def reaches():
    """Print estimates of the reach of a noisy circle against the number of neighbours."""
    header("noise", "neighbours", "estimated reach")
    rng = np.random.RandomState(0)
    t = rng.uniform(0, 2 * np.pi, 1000)
    for noise in (0.0, 0.05):
        X = np.column_stack([np.cos(t), np.sin(t)]) + noise * rng.normal(size=(1000, 2))
        for n_neighbors in ("auto", 100, 200, 300):
            manifold = LocalPolynomialManifold(1, n_neighbors=n_neighbors).fit(X)
            row(noise, manifold.n_neighbors_, f"{estimate_reach(manifold, X):.2f}")


def masses():
    """Print integrals of the density over a sphere, known and learned."""
    header("sphere", "N", "scale", "mass")
    i = np.arange(1000) + 0.5
    height, turn = 1 - i / 500, np.pi * (1 + 5**0.5) * i
    across = np.sqrt(1 - height**2)
    places = np.column_stack([np.cos(turn) * across, np.sin(turn) * across, height])
    X = SPHERE.sample(1000, 0)
    for name, manifold in (("known", SPHERE.manifold), ("learned", None)):
        for scale in (0.2, 0.3):
            model = CoarseScoreDiffusion(scale, manifold=manifold, n_components=2).fit(X)
            mass = 4 * np.pi * np.exp(model.score_samples(places)).mean()
            row(name, len(X), scale, f"{mass:.5f}")


def ratios():
    """Print the density of the samples over the true one, at points of the sphere."""
    header("N", "lowest", "5 %", "median", "95 %", "highest")
    places = SPHERE.sample(500, 1)
    for n in (400, 1600, 6400):
        model = CoarseScoreDiffusion(0.3, n_components=2)
        model.fit(SPHERE.sample(n, 0))
        found = np.exp(model.score_samples(places) - SPHERE.log_density(places))
        row(n, *(f"{q:.2f}" for q in np.quantile(found, (0, 0.05, 0.5, 0.95, 1))))


def run():
    """Print the tables."""
    warnings.filterwarnings("ignore", ".*project to points")
    for table in (scales, reaches, masses, ratios):
        print(f"\n### {table.__name__}\n")
        table()


if __name__ == "__main__":
    run()
