"""Tests of averages along level sets, against closed forms and quadrature by hand."""

import numpy as np
import pytest
from scipy.special import logsumexp, roots_hermitenorm

import skdiffsmooth.manifolds._level_sets as level_sets
from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.kernels import OffsetsKernel
from skdiffsmooth.manifolds import (
    AffineSubspace,
    Circle,
    Curve,
    PointCloud,
    Sphere,
    Torus,
    smooth_along_level_sets,
)

SIGMA = 0.2


def hermite(dimension, n=12):
    """Offsets and weights of a Gauss-Hermite grid for N(0, SIGMA^2 I)."""
    nodes, weights = roots_hermitenorm(n)
    grid = np.stack(np.meshgrid(*[nodes] * dimension, indexing="ij"), -1).reshape(-1, dimension)
    products = np.prod(np.meshgrid(*[weights] * dimension, indexing="ij"), axis=0).ravel()
    return SIGMA * grid, products / products.sum()


def rows_near(shape, n=20, noise=0.3, seed=0):
    rng = np.random.RandomState(seed)
    on_it = shape.project(rng.normal(size=(n, shape.n_features)))
    return on_it + noise * rng.normal(size=on_it.shape)


def log_normal(rows):
    """A log-density that no symmetry of the manifolds keeps."""
    return -0.5 * np.sum((rows - 0.7) ** 2, axis=1) + np.sin(3 * rows[:, 0])


@pytest.mark.parametrize("d", [2, 3])
def test_along_a_sphere_it_is_the_average_over_directions(d):
    """One loop over rows and offsets: the direction of x + xi, at the radius of its side."""
    X = rows_near(Sphere(np.zeros(d), 1.0))
    offsets, weights = hermite(d, 8)
    expected = []
    for x in X:
        distance, total = abs(np.linalg.norm(x) - 1), 0.0
        for xi, weight in zip(offsets, weights, strict=True):
            length = np.linalg.norm(x + xi)
            radius = 1 + np.sign(length - 1) * distance
            total += weight * log_normal((radius * (x + xi) / length)[None])[0]
        expected.append(total)
    found = smooth_along_level_sets(
        log_normal, Sphere(np.zeros(d), 1.0), X, offsets, weights=weights
    )
    # Rounding alone.
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_along_a_curve_in_space_it_stays_on_the_tube():
    """The circle in R^3: the moved angle in its plane, the moved angle of the tube about it."""
    curve = Curve(lambda t: np.stack([np.cos(t), np.sin(t), 0 * t], 1), 0, 2 * np.pi, closed=True)
    X = rows_near(curve)
    offsets, weights = hermite(3, 6)
    moved = X[:, None] + offsets
    in_plane = np.hypot(moved[..., 0], moved[..., 1])
    across, up = in_plane - 1, moved[..., 2]
    stretch = np.hypot(np.hypot(X[:, 0], X[:, 1]) - 1, X[:, 2])[:, None] / np.hypot(across, up)
    radius = (1 + stretch * across) / in_plane
    pushed = np.stack([radius * moved[..., 0], radius * moved[..., 1], stretch * up], -1)
    expected = log_normal(pushed.reshape(-1, 3)).reshape(len(X), -1) @ weights
    found = smooth_along_level_sets(log_normal, curve, X, offsets, weights=weights)
    # The curve is a series with an error below 1e-10.
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_on_flat_data_it_is_log_smoothing_up_to_a_constant():
    """Prop. 3.1, node by node: offsets across the subspace add a constant."""
    rng = np.random.RandomState(0)
    subspace = AffineSubspace([[0.3, 0.8, -0.5]], [0.4])
    X = subspace.project(rng.normal(size=(15, 3)))
    half = SIGMA * rng.normal(size=(16, 3))
    offsets = np.concatenate([half, -half])
    queries = X[:8] + 0.2 * rng.normal(size=(8, 3))
    kde = KDESampler(0.3).fit(X)
    along = smooth_along_level_sets(kde.score_samples, subspace, queries, offsets)
    kernel = OffsetsKernel(offsets)
    everywhere = -SmoothedScoreDiffusion(0.3, 1.0, kernel=kernel).fit(X).energy(queries)
    assert np.ptp(along) > 0.5
    # Rounding alone: energies are relative to noise of variance 0.09.
    np.testing.assert_allclose(np.ptp(along - everywhere), 0, atol=1e-10)


@pytest.mark.parametrize(
    "manifold",
    [
        Circle([0.0, 0.0], 1.0),
        Sphere(np.zeros(3), 1.0),
        Torus([0.0, 0.0, 0.0], 1.0, 0.3),
        AffineSubspace([[1.0, 0.5]], [0.3]),
        PointCloud(np.random.RandomState(1).normal(size=(200, 2)), n_components=1),
    ],
    ids=lambda manifold: type(manifold).__name__,
)
def test_moved_rows_are_as_far_from_any_manifold(manifold, monkeypatch):
    """Within the reach; and rows do not depend on each other, nor on the parts they are cut into."""
    X = rows_near(manifold, noise=0.05)
    offsets = 0.05 * np.random.RandomState(2).normal(size=(30, X.shape[1]))

    def distance_squared(rows):
        return -(manifold.distance(rows) ** 2)

    found = smooth_along_level_sets(distance_squared, manifold, X, offsets)
    if not isinstance(manifold, PointCloud):
        np.testing.assert_allclose(-found, manifold.distance(X) ** 2, atol=1e-12)
    monkeypatch.setattr(level_sets, "_MEMORY", 1e-6)
    some = smooth_along_level_sets(distance_squared, manifold, X[3:5], offsets)
    # Products of matrices round differently for other numbers of rows.
    np.testing.assert_allclose(some, found[3:5], rtol=1e-9)


def test_a_moved_row_on_the_manifold_is_pushed_along_a_normal():
    circle = Circle([0.0, 0.0], 1.0)
    pushed = []
    smooth_along_level_sets(
        lambda rows: pushed.append(rows) or np.zeros(len(rows)), circle, [[1.2, 0.0]], [[-0.2, 0.0]]
    )
    assert circle.distance(pushed[0]) == pytest.approx(0.2, abs=1e-12)


def test_given_distances_and_weights_are_used():
    circle, X = Circle([0.0, 0.0], 1.0), np.array([[1.3, 0.0], [0.0, 0.8]])
    offsets = np.array([[0.1, 0.0], [0.0, 0.1]])

    def on_ring(rows):
        return np.abs(np.linalg.norm(rows, axis=1) - 1)

    found = smooth_along_level_sets(on_ring, circle, X, offsets, distances=[0.0, 0.5])
    np.testing.assert_allclose(found, [0.0, 0.5], atol=1e-12)
    first = smooth_along_level_sets(log_normal, circle, X, offsets, weights=[1.0, 1e-300])
    alone = smooth_along_level_sets(log_normal, circle, X, offsets[:1])
    np.testing.assert_allclose(first, alone, atol=1e-14)


def test_smoothed_density_of_a_kde_is_that_of_a_mixture_average():
    """The KDE's log-density at moved rows, by hand: logsumexp over twelve points."""
    angle = np.arange(12) * np.pi / 6
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    offsets, weights = hermite(2)
    query = np.array([[0.0, 1.1]])
    moved = query + offsets
    length = np.linalg.norm(moved, axis=1)
    pushed = moved * ((1 + np.sign(length - 1) * 0.1) / length)[:, None]
    squares = np.sum((pushed[:, None] - X) ** 2, axis=2)
    expected = weights @ (
        logsumexp(-squares / (2 * 0.3**2), axis=1) - np.log(12 * 2 * np.pi * 0.3**2)
    )
    kde = KDESampler(0.3).fit(X)
    found = smooth_along_level_sets(
        kde.score_samples, Circle([0.0, 0.0], 1.0), query, offsets, weights=weights
    )
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"log_density": 1.0}, TypeError, "log_density=1.0 has type float"),
        ({"X": [[0.0]]}, ValueError, r"X has shape \(1, 1\); expected \(n, 2\)"),
        ({"X": [[0.0, np.nan]]}, ValueError, "X holds 1 values that are NaN"),
        ({"offsets": [[0.0, 1.0, 2.0]]}, ValueError, "offsets has shape"),
        ({"offsets": np.zeros((0, 2))}, ValueError, "offsets has no rows"),
        ({"weights": [1.0, 2.0]}, ValueError, r"weights has shape \(2,\); expected \(1,\)"),
        ({"weights": [0.0]}, ValueError, "weights holds 0; expected weights > 0"),
        ({"distances": [-0.1]}, ValueError, "distances holds -0.1"),
        ({"distances": [np.inf]}, ValueError, "distances holds 1 values that are NaN or infinite"),
        ({"log_density": lambda rows: rows}, ValueError, "log_density returned the shape"),
    ],
)
def test_bad_input_is_refused(changes, error, message):
    arguments = {
        "log_density": log_normal,
        "manifold": Circle([0.0, 0.0], 1.0),
        "X": [[1.0, 0.0]],
        "offsets": [[0.1, 0.0]],
    }
    with pytest.raises(error, match=message):
        smooth_along_level_sets(**(arguments | changes))


def test_no_rows():
    found = smooth_along_level_sets(
        log_normal, Circle([0.0, 0.0], 1.0), np.zeros((0, 2)), [[0.1, 0.0]]
    )
    assert found.shape == (0,)
