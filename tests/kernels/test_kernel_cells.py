"""Cells of the data, their tangents, gates and thickness, against small cases by hand."""

import warnings

import numpy as np
import pytest

from skdiffsmooth.kernels._cells import (
    Cells,
    _halving_means,
    _Part,
    _principal_axes,
    _tangent,
    default_n_cells,
)


@pytest.mark.parametrize(
    ("n_points", "n_components", "n_cells"),
    [
        (3, 1, 1),
        (7, 1, 1),
        (8, 1, 2),
        (15, 2, 1),
        (16, 2, 2),
        (8, 0, 2),
        (127, 1, 31),
        (999, 1, 32),
    ],
)
def test_default_numbers_of_cells(n_points, n_components, n_cells):
    assert default_n_cells(n_points, n_components) == n_cells


def test_principal_axes_are_those_of_the_weighted_covariance():
    points, weights = np.random.default_rng(0).normal(size=(9, 3)), np.arange(1.0, 10.0)
    mean, variances, axes = _principal_axes(points, weights)
    np.testing.assert_allclose(mean, np.average(points, axis=0, weights=weights))
    covariance = np.cov(points.T, bias=True, aweights=weights)
    assert (np.diff(variances) < 0).all()
    np.testing.assert_allclose((axes * variances) @ axes.T, covariance)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)


def test_a_part_has_the_inertia_of_its_members():
    points, weights = np.random.default_rng(0).normal(size=(9, 2)), np.arange(1.0, 10.0)
    members = np.array([0, 3, 4, 8])
    part = _Part.of(points, weights, members)
    own = weights[members]
    mean = own @ points[members] / own.sum()
    np.testing.assert_allclose(part.mean, mean)
    assert part.inertia == pytest.approx(own @ ((points[members] - mean) ** 2).sum(axis=1))
    first = np.linalg.eigh(np.cov(points[members].T, bias=True, aweights=own))[1][:, -1]
    assert abs(part.axis @ first) == pytest.approx(1.0)


def test_the_widest_part_is_cut_at_its_mean():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0], [12.0, 0.0], [40.0, 0.0]])
    weights = np.full(5, 0.2)

    def means(n):
        return sorted(_halving_means(points, weights, n)[:, 0].tolist())

    assert means(1) == pytest.approx([12.6])
    assert means(2) == pytest.approx([5.75, 40.0])
    assert means(3) == pytest.approx([0.5, 11.0, 40.0])
    # The part with the larger inertia comes first: of 10 and 12, not of 0 and 1.
    assert means(4) == pytest.approx([0.5, 10.0, 12.0, 40.0])
    # A point at the mean stays with those before it.
    assert _halving_means(np.array([[0.0], [1.0], [2.0]]), np.ones(3), 2).tolist() == [[0.5], [2.0]]
    # There are no more parts than points.
    assert means(9) == pytest.approx([0.0, 1.0, 10.0, 12.0, 40.0])


@pytest.mark.parametrize(("width", "n_parts"), [(1.9e-7, 2), (2.1e-7, 3)])
def test_parts_that_coincide_up_to_rounding_are_not_cut(width, n_parts):
    """Below 1e-14 of the whole inertia: here it is 2 / 9 nearly, that of the pair width^2 / 6."""
    width *= np.sqrt(2 / 9 * 6) / 2
    points = np.array([[0.0], [1.0], [1.0 + width]])
    assert len(_halving_means(points, np.full(3, 1 / 3), 3)) == n_parts


def test_a_tangent_is_fitted_to_the_nearest_points():
    """Of the points at distance 0, 1, 1 and 9; equal distances in the order of the points."""
    points = np.array([[9.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 0.5]])
    weights = np.array([0.1, 0.4, 0.4, 0.1])
    tangent, thickness = _tangent(points, weights, np.zeros(3), 1, 3)
    assert abs(tangent[1, 0]) == pytest.approx(1.0)
    near, own = points[1:], weights[1:] / 0.9
    across = np.linalg.eigvalsh(np.cov(near.T, bias=True, aweights=own))[:2]
    assert thickness == pytest.approx(np.sqrt(across.mean()))
    tangent, thickness = _tangent(points, weights, np.zeros(3), 2, 4)
    assert tangent.shape == (3, 2)
    every = np.linalg.eigvalsh(np.cov(points.T, bias=True, aweights=weights))
    assert thickness == pytest.approx(np.sqrt(every[0]), rel=1e-6)


def test_nearness_is_that_of_euclid():
    """Of two points the one nearer by squares, not by fourth powers, is the second of the nearest."""
    points = np.array([[0.0, 0.1, 0.0], [2.2, 2.2, 0.0], [0.0, 0.0, 2.9]])
    tangent, _ = _tangent(points, np.ones(3), np.zeros(3), 1, 2)
    assert abs(tangent[2, 0]) > 0.99


def test_a_tangent_has_one_neighbour_more_than_its_dimension_at_least():
    points = np.random.default_rng(0).normal(size=(12, 3))
    weights = np.full(12, 1 / 12)
    cells = Cells.of(points, weights, 2, n_cells=1, n_neighbors=1)
    near = np.argsort(((points - points.mean(axis=0)) ** 2).sum(axis=1))[:3]
    normal = np.cross(*(points[near[1:]] - points[near[0]]))
    np.testing.assert_allclose(normal @ cells.tangents[0], [0, 0], atol=1e-12)
    assert cells.thickness[0] == pytest.approx(0.0, abs=1e-7)


def test_k_means_does_not_warn():
    points = np.random.default_rng(0).normal(size=(12, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cells.of(points, np.full(12, 1 / 12), 1, n_cells=3)


def test_cells_of_two_pieces():
    """Two pieces of a line, one of which is turned, with different masses."""
    t = np.linspace(-1, 1, 9)
    first = np.column_stack([t, np.zeros(9), np.zeros(9)])
    second = np.column_stack([np.full(9, 30.0), t, np.zeros(9)])
    # The second piece has points at both sides, at a distance of a tenth.
    second[::2, 2] += 0.1
    points = np.vstack([first, second])
    weights = np.repeat([3.0, 1.0], 9) / 36
    cells = Cells.of(points, weights, 1, n_cells=2)
    order = np.argsort(cells.means[:, 0])
    assert len(cells) == 2
    np.testing.assert_allclose(cells.masses[order], [0.75, 0.25])
    np.testing.assert_allclose(cells.means[order], [[0, 0, 0], second.mean(axis=0)], atol=1e-12)
    tangents = cells.tangents[order]
    np.testing.assert_allclose(np.abs(tangents[0, :, 0]), [1, 0, 0], atol=1e-12)
    assert abs(tangents[1, 1, 0]) == pytest.approx(1.0, abs=1e-3)
    distance = np.linalg.norm(np.diff(cells.means, axis=0))
    assert cells.width == pytest.approx(distance / np.sqrt(12))
    # Eight neighbours by default, 4 (k + 1), and as many as are requested.
    for n_neighbors, kwargs in ((8, {}), (4, {"n_neighbors": 4}), (2, {"n_neighbors": 1})):
        found = Cells.of(points, weights, 1, n_cells=2, **kwargs)
        for mean, thickness in zip(found.means, found.thickness, strict=True):
            near = np.argsort(((points - mean) ** 2).sum(axis=1), kind="stable")[:n_neighbors]
            values = np.linalg.eigvalsh(np.cov(points[near].T, bias=True))
            assert thickness == pytest.approx(np.sqrt(values[:2].mean().clip(0)), abs=1e-7)


def test_three_cells_have_the_mean_square_of_the_nearest_distances():
    points = np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0], [3.1, 0.0], [9.0, 0.0], [9.1, 0.0]])
    weights = np.array([0.1, 0.1, 0.2, 0.2, 0.2, 0.2])
    cells = Cells.of(points, weights, 1, n_cells=3)
    nearest = np.array([3.0, 3.0, 6.0])
    assert cells.width == pytest.approx(np.sqrt([0.2, 0.4, 0.4] @ nearest**2 / 12))
    assert cells.masses.sum() == pytest.approx(1.0)
    one = Cells.of(points, weights, 1, n_cells=1)
    assert (len(one), one.width) == (1, 1.0)
    # The default: six points make one cell.
    assert len(Cells.of(points, weights, 1)) == 1


@pytest.mark.parametrize("n_components", [2, 3])
def test_tangents_of_all_dimensions_are_one_cell(n_components):
    points = np.random.default_rng(0).normal(size=(40, 2))
    cells = Cells.of(points, np.arange(1.0, 41.0) / 820, n_components)
    np.testing.assert_array_equal(cells.masses, [1.0])
    np.testing.assert_allclose(cells.means, [np.arange(1.0, 41.0) / 820 @ points])
    np.testing.assert_array_equal(cells.tangents, [np.eye(2)])
    np.testing.assert_array_equal(cells.thickness, [0.0])
    assert cells.width == 1.0
