"""Tests of the affine hull: its rank, its coordinates, and residuals outside it.

Data of rank k are made as products of a (n, k) and a (k, d) matrix: rounding spoils their rank by
an epsilon, which the hull must not mistake for an extent.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiffsmooth._coordinates.hull import AffineHull, hull_in_one_unit

EPS = np.finfo(float).eps

seeds = st.integers(0, 2**20)


def flat_data(seed, n_points, n_features, rank, scale=1.0, offset=0.0):
    """Points of an affine subspace of dimension `rank`, at a distance of `offset` from zero."""
    rng = np.random.RandomState(seed)
    coordinates = rng.standard_normal((n_points, rank)) * np.linspace(1, 2, rank)
    directions = rng.standard_normal((rank, n_features))
    return scale * coordinates @ directions + offset * rng.uniform(0.5, 1, n_features)


def rotation(seed, d):
    return np.linalg.qr(np.random.RandomState(seed).standard_normal((d, d)))[0]


# ---------------------------------------------------------------------------------------- rank


@settings(deadline=None, max_examples=150)
@given(
    seed=seeds,
    n_points=st.integers(1, 30),
    n_features=st.integers(1, 30),
    rank=st.integers(0, 8),
    log_scale=st.integers(-6, 6),
)
def test_rank(seed, n_points, n_features, rank, log_scale):
    X = flat_data(seed, n_points, n_features, rank, 10.0**log_scale)
    hull = AffineHull.of(X)
    assert hull.dimension == min(rank, n_points - 1, n_features)
    assert hull.n_features == n_features
    assert hull.codimension == n_features - hull.dimension
    np.testing.assert_allclose(
        hull.center, X.mean(axis=0), rtol=1e-12, atol=1e-12 * 10.0**log_scale
    )
    identity = np.eye(hull.dimension)
    np.testing.assert_allclose(hull.basis.T @ hull.basis, identity, atol=1e-13)


@settings(deadline=None, max_examples=100)
@given(
    seed=seeds,
    shape=st.sampled_from(
        [(20, 5, 2), (5, 20, 3), (200, 3, 2), (3, 3, 1), (10, 100, 4), (2, 7, 1)]
    ),
    log_scale=st.integers(-6, 0),
    log_offset=st.integers(0, 6),
)
def test_rank_far_from_the_origin(seed, shape, log_scale, log_offset):
    """A scale of 1e-6 and an offset of 1e6 together: coordinates keep four digits of the scale.

    Two roundings are of the size of the offset and not of the data: each coordinate's own, and that of
    the mean, which all rows share and which is a direction of its own if it is not subtracted.
    """
    X = flat_data(seed, *shape, 10.0**log_scale, 10.0**log_offset)
    assert AffineHull.of(X).dimension == shape[2]


@pytest.mark.parametrize(("n_points", "n_features"), [(5, 1000), (50, 1000), (5000, 300)])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_rank_of_many_features(n_points, n_features, offset, scale):
    """Images: hundreds of columns, each rounded on its own. Together these roundings are longer than
    one of them by the root of the number of columns; that of the mean, which all rows share, by the
    root of the number of rows as well.
    """
    X = flat_data(0, n_points, n_features, 3, scale, offset)
    assert AffineHull.of(X).dimension == 3


def test_redundant_columns():
    X = flat_data(0, 20, 4, 4)
    twins = np.column_stack([X, X[:, 1], -2 * X[:, 3], X @ [1.0, 2.0, 3.0, 4.0]])
    constants = np.column_stack([np.full(20, 1e6), X, np.zeros(20), np.full(20, -0.3)])
    for redundant in (twins, constants):
        assert AffineHull.of(redundant).dimension == 4
    # A constant column is part of no direction, and lifting restores it.
    hull = AffineHull.of(constants)
    np.testing.assert_allclose(hull.basis[[0, 5, 6]], 0, atol=1e-9)
    np.testing.assert_allclose(hull.lift(np.ones((1, 4)))[0, [0, 5, 6]], [1e6, 0, -0.3], rtol=1e-9)


def test_a_thin_direction_counts():
    """Ratios of 1e-9 are data: the threshold is that of rounding."""
    X = flat_data(0, 50, 3, 3) * [1.0, 1e-4, 1e-9]
    assert AffineHull.of(X).dimension == 3


@pytest.mark.parametrize("point", [[0.0, 0.0, 0.0], [1e6, -3.0, 1e-300]])
def test_one_point(point):
    hull = AffineHull.of(np.array([point]))
    assert (hull.dimension, hull.codimension) == (0, 3)
    coordinates, residual = hull.split(np.array([point, [1.0, 2.0, 3.0]]))
    assert coordinates.shape == (2, 0)
    np.testing.assert_array_equal(residual[0], 0)
    np.testing.assert_array_equal(residual[1], np.array([1.0, 2.0, 3.0]) - point)
    np.testing.assert_array_equal(hull.lift(coordinates), [point, point])


# ------------------------------------------------------------------------------- coordinates


@settings(deadline=None, max_examples=80)
@given(
    seed=seeds,
    n_points=st.integers(2, 12),
    n_features=st.integers(1, 12),
    rank=st.integers(1, 6),
    log_scale=st.integers(-6, 6),
)
def test_split_and_lift(seed, n_points, n_features, rank, log_scale):
    """What is split comes together again, at right angles; points of the hull stick out of it by
    rounding, 1e-13 of their size.
    """
    scale = 10.0**log_scale
    points = flat_data(seed, n_points, n_features, rank, scale)
    hull = AffineHull.of(points)
    X = scale * np.random.RandomState(seed + 1).standard_normal((7, n_features))
    coordinates, residual = hull.split(X)
    rounding = 1e-13 * np.abs([points.min(), points.max(), X.min(), X.max()]).max()
    rounding *= np.sqrt(n_features)
    assert coordinates.shape == (7, hull.dimension)
    np.testing.assert_allclose(hull.lift(coordinates) + residual, X, rtol=0, atol=rounding)
    np.testing.assert_allclose(residual @ hull.basis, 0, atol=rounding)
    np.testing.assert_allclose(hull.split(points)[1], 0, atol=rounding)
    # Lengths are those of the space.
    squares = np.sum(coordinates**2, axis=1) + np.sum(residual**2, axis=1)
    np.testing.assert_allclose(squares, np.sum((X - hull.center) ** 2, axis=1), rtol=1e-12)
    # The other way round.
    again, nothing = hull.split(hull.lift(coordinates))
    np.testing.assert_allclose(again, coordinates, rtol=0, atol=rounding)
    np.testing.assert_allclose(nothing, 0, atol=rounding)


def test_principal_coordinates():
    """Uncorrelated over the points, by decreasing singular value."""
    points = flat_data(3, 50, 8, 4)
    coordinates, _ = AffineHull.of(points).split(points)
    scatter = coordinates.T @ coordinates
    np.testing.assert_allclose(scatter, np.diag(np.diag(scatter)), atol=1e-10)
    assert np.all(np.diff(np.diag(scatter)) < 0)


def test_full_rank_has_residuals_of_exactly_zero():
    """Not rounding, which a small bandwidth would magnify: zero."""
    hull = AffineHull.of(flat_data(0, 30, 6, 6))
    X = 1e3 * np.random.RandomState(1).standard_normal((10, 6))
    assert hull.codimension == 0
    assert np.all(hull.split(X)[1] == 0)
    assert np.all(hull.project_out(X) == 0)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, rank=st.integers(0, 5))
def test_project_out(seed, rank):
    hull = AffineHull.of(flat_data(seed, 10, 5, rank, offset=3.0))
    vectors = np.random.RandomState(seed + 1).standard_normal((4, 5))
    out = hull.project_out(vectors)
    np.testing.assert_allclose(hull.project_out(out), out, atol=1e-14)
    np.testing.assert_allclose(out @ hull.basis, 0, atol=1e-14)
    # Directions, not points: what is removed lies along the hull, wherever the hull is.
    removed = vectors - out
    np.testing.assert_allclose(removed, removed @ hull.basis @ hull.basis.T, atol=1e-14)
    np.testing.assert_allclose(out, hull.split(hull.center + vectors)[1], atol=1e-13)


@settings(deadline=None, max_examples=80)
@given(
    seed=seeds,
    shape=st.sampled_from([(12, 3, 3), (12, 5, 2), (6, 10, 3), (100, 2, 2), (4, 4, 2)]),
    log_scale=st.integers(-6, 6),
)
def test_coordinates_rotate_with_the_data(seed, shape, log_scale):
    """Rotated, mirrored and translated data have the same coordinates, signs and all.

    1e-9 of their size, which allows for axes of nearly equal singular values: rounding rotates these
    by 1e-15 over the relative gap.
    """
    d, scale = shape[1], 10.0**log_scale
    points = flat_data(seed, *shape, scale)
    turn, shift = rotation(seed + 1, d), scale * np.arange(1.0, d + 1)
    hull, turned = AffineHull.of(points), AffineHull.of(points @ turn.T + shift)
    X = scale * np.random.RandomState(seed + 2).standard_normal((5, d))
    expected, residual = hull.split(X)
    found, turned_residual = turned.split(X @ turn.T + shift)
    tolerance = 1e-9 * scale * np.sqrt(d)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(turned_residual, residual @ turn.T, rtol=0, atol=tolerance)


def test_coordinates_do_not_depend_on_the_order_of_points():
    points = flat_data(0, 20, 6, 3)
    shuffled = points[np.random.RandomState(1).permutation(20)]
    np.testing.assert_allclose(
        AffineHull.of(shuffled).split(points)[0], AffineHull.of(points).split(points)[0], atol=1e-12
    )


# ------------------------------------------------------------------------------------- two hulls


@pytest.mark.parametrize("exponent", [-480, -400, 400, 480])
def test_coordinates_do_not_depend_on_units(exponent):
    """Signs come from third moments, and cubes overflow long before the rows do."""
    X = flat_data(0, 20, 4, 3)
    np.testing.assert_allclose(AffineHull.of(np.ldexp(X, exponent)).basis, AffineHull.of(X).basis)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    ranks=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_a_joined_hull_holds_both_and_keeps_coordinates(seed, ranks, scale):
    rng = np.random.RandomState(seed)
    first, second = (
        AffineHull(scale * rng.normal(size=6), np.linalg.qr(rng.normal(size=(6, 6)))[0][:, :rank])
        for rank in ranks
    )
    joined = first.joined(second)
    assert joined.dimension == min(sum(ranks) + 1, 6)
    np.testing.assert_allclose(joined.basis.T @ joined.basis, np.eye(joined.dimension), atol=1e-12)
    for hull in (first, second):
        rows = hull.lift(scale * rng.normal(size=(4, hull.dimension)))
        np.testing.assert_allclose(joined.split(rows)[1], 0, atol=1e-9 * scale)
    rows = first.lift(scale * rng.normal(size=(4, first.dimension)))
    coordinates = joined.split(rows)[0]
    np.testing.assert_allclose(
        coordinates[:, : first.dimension], first.split(rows)[0], atol=1e-12 * scale
    )


def test_a_hull_joined_with_a_subspace_of_it_is_unchanged():
    rng = np.random.RandomState(0)
    hull = AffineHull.of(rng.normal(size=(9, 3)) @ rng.normal(size=(3, 5)) + 1e3)
    inside = AffineHull(hull.lift(np.ones((1, 3)))[0], hull.basis[:, :1])
    np.testing.assert_array_equal(hull.joined(inside).basis, hull.basis)
    assert hull.joined(None).dimension == 5


@pytest.mark.parametrize("far", [[1e15, 0.0, 0.0], [1e15, 1e15, 1e15], [0.0, -1e13, 1e15]])
@pytest.mark.parametrize("rank", [2, 3])
def test_a_far_row_does_not_hide_directions(far, rank):
    """Rounding errors of the far row are as large as the other rows, which span `rank` directions."""
    rows = np.random.RandomState(0).normal(size=(100, rank)) @ np.eye(3)[-rank:]
    hull = AffineHull.of(np.vstack([rows, far]))
    spanned = np.linalg.matrix_rank(np.vstack([np.eye(3)[-rank:], np.sign(far)]))
    assert hull.dimension == spanned
    # The center, a mean, is as inexact as the far row: 1e13 has a spacing of 0.002.
    assert np.abs(hull.split(rows)[1]).max() < 0.01


@pytest.mark.parametrize("exponent", [-40, 0, 40])
def test_large_constants_and_large_steps_of_other_columns_hide_no_direction(exponent):
    """Rounding is judged by column, and rows off a tight majority are directions, not far rows."""
    rng = np.random.RandomState(0)
    constant = np.column_stack([np.full(80, 2.0**60), rng.normal(size=(80, 2))])
    assert AffineHull.of(np.ldexp(constant, exponent)).dimension == 2
    label = rng.uniform(size=80) < 0.3
    steps = np.column_stack([np.full(80, 2.0**30), 2.0**40 * label, 2.0**-43 * rng.normal(size=80)])
    basis = AffineHull.of(np.ldexp(steps, exponent)).basis
    assert np.linalg.norm(basis[1]) == pytest.approx(1.0)


def test_a_column_that_is_lost_in_the_rounding_of_another_is_named():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(80, 3)) * np.ldexp(1.0, [60, 0, 60])
    with pytest.raises(ValueError, match=r"column.* 1 of X extend.*Divide each column"):
        hull_in_one_unit(X, None)
    assert hull_in_one_unit(X / np.ldexp(1.0, [60, 30, 60]), None).dimension == 3
