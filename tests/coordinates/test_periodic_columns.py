"""Circular means and standard deviations, and the widths of periodic columns about neighbours."""

import math

import numpy as np
import pytest

from skdiffsmooth._coordinates.local_covariance import local_scales
from skdiffsmooth._coordinates.periodic import circular_center, circular_std


def equal(n):
    return np.full(n, 1 / n)


@pytest.mark.parametrize("period", [1e-3, 24.0, 1e12])
def test_narrow_data_have_the_ordinary_mean_and_deviation(period):
    x = period * (0.999 + 1e-5 * np.random.RandomState(0).normal(size=50))
    # The relative difference is of the order of the squared spread, in radians: 4e-9.
    assert circular_std(x % period, equal(50), period) == pytest.approx(x.std(), rel=1e-7)
    assert circular_center(x % period, equal(50), period) == pytest.approx(x.mean(), rel=1e-9)


def test_wrapped_normal_data_have_its_deviation_and_uniform_data_theirs():
    rng = np.random.RandomState(0)
    x = (350 + 40 * rng.normal(size=20_000)) % 360
    # Monte-Carlo errors of some 0.5 %.
    assert circular_std(x, equal(len(x)), 360.0) == pytest.approx(40, rel=0.03)
    grid = np.arange(0, 360, 10.0)
    assert circular_std(grid, equal(36), 360.0) == pytest.approx(360 / math.sqrt(12))


def test_deviations_follow_shifts_units_and_reflections():
    x = np.random.RandomState(1).vonmises(1.0, 2.0, size=40)
    std = circular_std(x, equal(40), 2 * math.pi)
    moved = (5 - x) * 3 % (6 * math.pi)
    assert circular_std(moved, equal(40), 6 * math.pi) == pytest.approx(3 * std, rel=1e-12)
    center = circular_center(x, equal(40), 2 * math.pi)
    assert circular_center(moved, equal(40), 6 * math.pi) == pytest.approx(
        (5 - center) * 3 % (6 * math.pi), rel=1e-12
    )


def test_a_uniform_angle_gets_a_wide_kernel_and_a_narrow_one_a_narrow_kernel():
    rng = np.random.RandomState(0)
    line = rng.normal(size=(200, 1))
    uniform = rng.uniform(-math.sqrt(3), math.sqrt(3), size=200)
    narrow = line[:, 0] + 0.05 * rng.normal(size=200)
    periods = np.array([2 * math.sqrt(3), 20.0])
    width, widths = local_scales(
        line, np.column_stack([uniform, narrow]), periods, np.full(200, 1 / 200)
    )
    assert widths[0] > 4 * width
    assert widths[1] < 2 * width
    # Whole periods change nothing.
    moved = np.column_stack([uniform + periods[0], narrow - 3 * periods[1]])
    again = local_scales(line, moved, periods, np.full(200, 1 / 200))
    np.testing.assert_allclose(again[1], widths, rtol=1e-9)
