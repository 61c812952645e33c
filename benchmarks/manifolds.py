"""Time and accuracy of projections onto manifolds: the table of docs/evidence/manifolds.md."""

import numpy as np
from _common import describe_machine, header, row, timed

from skdiffsmooth.datasets import bump_images, make_circle
from skdiffsmooth.manifolds import (
    AffineSubspace,
    Circle,
    Curve,
    LocalPolynomialManifold,
    PointCloud,
    Sphere,
)

N_QUERIES = 3200


def unit_rows(n, d, seed):
    """Return points spaced evenly on the unit sphere of R^d."""
    rows = np.random.RandomState(seed).normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def turned(t):
    """Return points of the unit circle."""
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def trefoil(t):
    """Return points of a knot in R^3."""
    r = 2 + np.cos(3 * t)
    return np.stack([r * np.cos(2 * t), r * np.sin(2 * t), np.sin(3 * t)], axis=1)


def problems():
    """Yield a name, how to build the manifold, queries, and their exact projections where known.

    Queries lie on normals of known points, so these are their projections.
    """
    rng = np.random.RandomState(0)
    t = rng.uniform(0, 2 * np.pi, N_QUERIES)
    factors = rng.uniform(0.7, 1.3, (N_QUERIES, 1))
    turn = 2 * np.pi

    feet = rng.normal(size=(N_QUERIES, 4096)) * (np.arange(4096) < 10)
    frame = np.eye(4096)[:, :10]
    across = rng.normal(size=feet.shape) * (np.arange(4096) >= 10)
    yield (
        "`AffineSubspace`, k = 10 in R^4096",
        lambda: AffineSubspace.from_basis(np.zeros(4096), frame),
        *(feet + across, feet),
    )
    feet = turned(t)
    yield "`Circle` in R^2", lambda: Circle([0, 0], 1), factors * feet, feet
    yield "`Curve`, that circle", lambda: Curve(turned, 0, turn, True), factors * feet, feet
    feet = unit_rows(N_QUERIES, 3, 1)
    yield "`Sphere`, k = 2 in R^3", lambda: Sphere(np.zeros(3), 1), factors * feet, feet

    velocity = (trefoil(t + 1e-6) - trefoil(t - 1e-6)) / 2e-6
    normal = np.cross(velocity, [0.3, 0.5, 0.8])
    normal *= 0.2 / np.linalg.norm(normal, axis=1, keepdims=True)
    feet = trefoil(t)
    yield "`Curve`, trefoil in R^3", lambda: Curve(trefoil, 0, turn, True), feet + normal, feet

    images = bump_images().chart.function
    feet = images(t)
    velocity = (images(t + 1e-6) - images(t - 1e-6)) / 2e-6
    noise = 0.01 * rng.normal(size=feet.shape)
    share = np.sum(noise * velocity, axis=1) / np.sum(velocity**2, axis=1)
    queries = feet + noise - share[:, None] * velocity
    yield "`Curve`, bump images in R^4096", lambda: Curve(images, 0, turn, True), queries, feet

    rows = make_circle(2000, spacing="even")
    feet = turned(t)
    yield "`PointCloud`, 2000 of a circle", lambda: PointCloud(rows, 1), factors * feet, feet
    feet = unit_rows(N_QUERIES, 3, 1)
    for degree in (1, 2, 3):
        yield (
            f"`LocalPolynomialManifold`, degree {degree}, 1600 of a sphere",
            lambda degree=degree: LocalPolynomialManifold(2, degree=degree).fit(
                unit_rows(1600, 3, 0)
            ),
            *(factors * feet, feet),
        )


def run():
    """Print the table: times of the construction and of 3200 projections, gaps and errors."""
    print(
        f"{N_QUERIES} queries on normals of known points. Gap: the farthest that a projection moves "
        "when it is projected again. Error: the mean distance from the known point.\n"
    )
    header("manifold", "build (ms)", "project (ms)", "gap", "error")
    for name, build, queries, feet in problems():
        built, manifold = timed(build, repeats=1)
        time, projected = timed(lambda m=manifold, q=queries: m.project(q), repeats=3)
        gap = np.linalg.norm(manifold.project(projected) - projected, axis=1).max()
        error = np.linalg.norm(projected - feet, axis=1).mean()
        row(name, f"{1e3 * built:.1f}", f"{1e3 * time:.1f}", f"{gap:.0e}", f"{error:.0e}")


if __name__ == "__main__":
    describe_machine()
    run()
