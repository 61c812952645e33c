"""Rows in a metric and scales in its units, on a few rows with scales that are known by hand."""

import math
import warnings

import numpy as np
import pytest
from likelihood_problems import geometry_of, parsed
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from skdiffsmooth._coordinates.metric import warped
from skdiffsmooth._diffusion.geometry import (
    check_above_rounding,
    check_no_copies,
    given_or_default,
    leave_one_out_bandwidth,
    rounding_error,
    scales_in,
)
from skdiffsmooth._diffusion.settings import Relative
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.kernels import AnisotropicGaussianKernel, GaussianKernel

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(20, 2)) * [1.0, 3.0]


@pytest.mark.parametrize(
    ("params", "factors", "expected"),
    [
        ({}, None, (Relative(0.85), Relative(1.5))),
        ({}, (0.7, 3.0), (Relative(0.7), Relative(3.0))),
        ({"sigma": 0.0}, None, (Relative(1.0), 0.0)),
        ({"sigma": 0.0}, (0.7, 3.0), (Relative(1.0), 0.0)),
        ({"sigma": 0.4}, None, (Relative(0.85), 0.4)),
        ({"bandwidth": 0.3}, None, (0.3, Relative(1.5))),
        ({"bandwidth": 0.3, "sigma": "2h"}, None, (0.3, Relative(2.0))),
        ({"base": "parzen"}, None, (Relative(1.0), Relative(1.0))),
        ({"base": "parzen", "sigma": 0.0}, None, (Relative(1.0), 0.0)),
        ({"base": GaussianMixture(2)}, None, (Relative(0.3), Relative(2.0))),
        ({"base": GaussianMixture(2), "sigma": 0.0}, None, (Relative(0.3), 0.0)),
    ],
)
def test_scales_left_at_auto(params, factors, expected):
    assert given_or_default(parsed(**params), factors) == expected


def by_noise(scale):
    return 2 * scale


def test_a_function_is_smoothing_too():
    bandwidth, sigma = given_or_default(parsed(sigma=by_noise))
    assert bandwidth == Relative(0.85)
    assert sigma(0.5) == 1.0


@pytest.mark.parametrize("kernel", [GaussianKernel(), AnisotropicGaussianKernel("data")])
def test_relative_scales_are_multiples_of_h_along_the_widest_direction_of_the_kernel(kernel):
    settings = parsed(kernel=kernel)
    geometry = geometry_of(ROWS, settings=settings)
    assert geometry.unit == geometry.kernel.widest_std
    h = leave_one_out_bandwidth(geometry, settings)
    found = scales_in(geometry, settings, (Relative(0.5), Relative(3.0)))
    assert_allclose(found, [0.5 * h, 3 * h / geometry.unit])
    assert_allclose(scales_in(geometry, settings, (Relative(0.5), 0.7), 2.0), [1.0, 0.7])
    assert_allclose(
        scales_in(geometry, settings, (0.3, Relative(2.0)), 0.1), [0.3, 0.2 / geometry.unit]
    )
    assert scales_in(geometry, settings, (0.3, 0.7)) == (0.3, 0.7)


def test_numbers_are_divided_by_the_unit_of_extreme_tables():
    settings = parsed()
    geometry = geometry_of(ROWS * 2.0**400, settings=settings)
    unit = geometry.metric.unit
    assert unit > 2.0**399
    bandwidth, sigma = scales_in(geometry, settings, (0.3 * unit, 0.7 * unit))
    assert_allclose([bandwidth, sigma], [0.3, 0.7])
    _, sigma = scales_in(geometry, settings, (0.3 * unit, by_noise))
    assert sigma(0.5) == 1.0
    _, sigma = scales_in(geometry, settings, (0.3 * unit, lambda scale: scale**2 / unit))
    assert sigma(0.5) == 0.25
    assert_allclose(geometry.coordinates, geometry_of(ROWS * 2.0**400 / unit).coordinates)


def test_a_single_row_has_the_unit_of_a_number_as_bandwidth():
    row = np.array([[1.0, 0.0]])
    tiny = parsed(bandwidth=2.0**-600)
    assert geometry_of(row, settings=tiny).metric.unit == 2.0**-600
    assert geometry_of(row * 2.0**500, settings=parsed(bandwidth="1h")).metric.unit == 2.0**500
    assert geometry_of(ROWS, settings=tiny).metric.unit == 1.0
    # The row must be finite in the unit, so that the message for far rows is raised later.
    assert geometry_of(row * 2.0**500, settings=tiny).metric.unit == 2.0**-500


def test_scales_that_rows_do_not_set_are_named():
    settings = parsed()
    with pytest.raises(ValueError, match=r"bandwidth='auto' with sigma='auto': .*pass numbers"):
        scales_in(geometry_of(ROWS[:1], settings=settings), settings, (Relative(1.0), 0.0))
    mixture = parsed(base=GaussianMixture(1), bandwidth="1h")
    geometry = geometry_of(ROWS, settings=mixture)
    with pytest.raises(ValueError, match="a mixture has components and not rows"):
        scales_in(geometry, mixture, given_or_default(mixture))
    mixture = parsed(base=GaussianMixture(1))
    bandwidth, sigma = scales_in(geometry_of(ROWS, settings=mixture), mixture, (Relative(0.3), 0.0))
    narrowest = np.sqrt(np.linalg.eigvalsh(np.cov(ROWS.T, ddof=0))[0])
    assert_allclose(bandwidth, 0.3 * narrowest, rtol=1e-5)  # `reg_covar`
    assert sigma == 0.0
    windows = parsed(base=ManifoldParzen(5))
    geometry = geometry_of(ROWS, settings=windows)
    expected = windows.base.leave_one_out(
        geometry.coordinates, geometry.data.weights, 0, windows.resources.memory_limit
    )
    assert isinstance(windows.base, ManifoldParzen)
    assert scales_in(geometry, windows, (Relative(2.0), 0.0))[0] == 2 * expected


def test_bandwidths_are_above_the_rounding_of_the_rows():
    geometry = geometry_of(ROWS + [0.0, 1e9])
    largest = np.abs(geometry.coordinates).max()
    assert rounding_error(geometry) == 2.0**-52 * largest
    check_above_rounding(geometry, rounding_error(geometry))
    with pytest.raises(ValueError, match=r"bandwidth=.* is below the rounding error of rows up to"):
        check_above_rounding(geometry, 0.99 * rounding_error(geometry))
    windows = geometry_of(ROWS, settings=parsed(base=ManifoldParzen(5)))
    check_above_rounding(windows, 0.0)
    scaled = geometry_of(ROWS * 2.0**400)
    radius = scaled.metric.unit * np.abs(scaled.coordinates).max()
    message = f"bandwidth={1e-20 * scaled.metric.unit:g} is below the .* up to {radius:.3g} from"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        check_above_rounding(scaled, 1e-20)
    assert rounding_error(geometry_of(np.empty((1, 0)))) == 0.0


def copies_warned(settings, bandwidth, sigma, geometry):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_no_copies(geometry, settings, bandwidth, sigma)
    return bool(caught)


def test_narrow_scales_are_warned_of_by_bandwidth_and_sigma_together():
    line = np.column_stack([np.arange(20.0), np.zeros(20)])  # neighbours at 1
    settings = parsed(bandwidth=0.1, sigma=0.1)
    geometry = geometry_of(line, settings=settings)
    edge = 1 / 3 / math.sqrt(2)  # sqrt(2 (bandwidth^2 + sigma^2)) is a third
    for bandwidth, sigma in ((0.6, 0.8), (0.8, 0.6), (1.0, 0.0)):
        assert copies_warned(settings, 0.99 * bandwidth * edge, 0.99 * sigma * edge, geometry)
        assert not copies_warned(settings, 1.01 * bandwidth * edge, 1.01 * sigma * edge, geometry)
    assert copies_warned(settings, 0.44 * edge, by_noise, geometry)  # 0.44 sqrt(5) = 0.98
    assert not copies_warned(settings, 0.45 * edge, by_noise, geometry)
    assert not copies_warned(parsed(), 1e-3, 0.0, geometry)
    windows = parsed(base=ManifoldParzen(5), bandwidth=0.1)
    assert not copies_warned(windows, 1e-3, 0.0, geometry_of(line, settings=windows))


def test_periods_in_the_hull_are_those_of_its_axes():
    rows = np.column_stack([ROWS, RNG.uniform(0, 6, 20)])
    periods = np.array([0.0, 0.0, 6.0])
    geometry = geometry_of(rows, settings=parsed(3, periods={2: 6.0}), periods=periods)
    assert_allclose(sorted(geometry.periods), [0.0, 0.0, 6.0], atol=1e-9)
    (students,) = {tuple(each.periods) for each in geometry.students}
    assert_allclose(students, [6.0])
    assert geometry_of(ROWS).periods is None


def test_t_distributions_without_a_variance_are_for_single_columns():
    degrees = [[s.degrees for s in geometry_of(rows).students] for rows in (ROWS, ROWS[:, :1])]
    assert degrees == [[4.0, 8.0], [1.0, 2.0, 4.0, 8.0]]
    # One row tells nothing, a constant column is a dimension, a circle is none.
    assert [s.degrees for s in geometry_of(ROWS[:1]).students] == [1.0, 2.0, 4.0, 8.0]
    flat = np.column_stack([ROWS[:, 0], np.zeros(20)])
    assert [s.degrees for s in geometry_of(flat).students] == [4.0, 8.0]
    circle = np.column_stack([ROWS[:, 0], RNG.uniform(0, 6, 20)])
    on_circle = geometry_of(circle, periods=np.array([0.0, 6.0]))
    assert [s.degrees for s in on_circle.students] == [1.0, 2.0, 4.0, 8.0]


def test_rounded_rows_are_left_out_one_by_one():
    counts = np.round(3 * ROWS[:, :1])
    points, index, n_equal = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    geometry = geometry_of(points, weights=n_equal / 20, widths=np.array([1.0]))
    excluded = geometry.excluded
    x, exclude, weights = geometry.queries
    assert weights.sum() == pytest.approx(1.0)
    expected = geometry.coordinates[exclude] + excluded.offsets @ geometry.hull.basis
    assert_allclose(x, expected)
    apart = geometry.with_copies_apart()
    assert (apart.coordinates == geometry.coordinates[excluded.point]).all()
    assert apart.data.weights.sum() == pytest.approx(1.0)
    # Each excluded point is a copy of the row that it was recorded as.
    assert_allclose(apart.data.points[exclude], points[excluded.point[exclude]])
    assert apart.queries is geometry.queries
    assert apart.excluded is excluded
    exact = geometry_of(points, weights=n_equal / 20)
    assert exact.queries is exact.excluded is None
    assert exact.with_copies_apart() is exact
    assert len(index) == 20


def test_moved_rows_are_those_of_moved_points():
    skewed = np.exp(2 * np.random.default_rng(1).normal(size=(40, 2)))
    for metric, points in (
        ("euclidean", ROWS),
        ("scaled", ROWS),
        (0.5, ROWS),
        (warped("scaled"), skewed),
    ):
        geometry = geometry_of(points, metric)
        assert (geometry.metric.columns.warp is not None) == (points is skewed)
        index, offsets = np.array([3, 3, 7]), RNG.normal(size=(3, 2))
        expected, _ = geometry.hull.split(geometry.metric.to_metric(points[index] + offsets))
        assert_allclose(geometry.moved(index, offsets), expected)
        unmoved = geometry.moved(index, np.zeros((3, 2)))
        assert_allclose(unmoved, geometry.coordinates[index], rtol=0 if points is ROWS else 1e-12)


def test_components_of_a_mixture_fill_the_space_and_windows_only_the_hull():
    line = np.column_stack([ROWS[:, 0], ROWS[:, 0]])
    windows = geometry_of(line, settings=parsed(base=ManifoldParzen(5)))
    assert windows.hull.dimension == windows.base.means.shape[1] == 1
    mixture = geometry_of(line, settings=parsed(base=GaussianMixture(1)))
    assert mixture.hull.dimension == mixture.base.means.shape[1] == 2
    assert geometry_of(line[:1]).unit == 1.0  # a kernel without a direction


def test_rows_of_a_plane_have_its_leave_one_out_bandwidth_only_in_units_of_X():
    """In metrics that scale columns the plane is a relation of the table, not of these rows."""
    plane = np.column_stack([ROWS, np.zeros(20)])
    settings = parsed(3)
    flat, two = geometry_of(plane, settings=settings), geometry_of(ROWS)
    narrow = leave_one_out_bandwidth(flat, settings)
    assert flat.hull.codimension == 1
    assert narrow < 0.95 * leave_one_out_bandwidth(two, parsed())
    scaled = [geometry_of(rows, "scaled") for rows in (plane, ROWS)]
    h, expected = (leave_one_out_bandwidth(each, settings) for each in scaled)
    assert h == pytest.approx(expected, rel=1e-6)
