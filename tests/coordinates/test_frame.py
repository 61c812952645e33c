"""Frames separate given columns from free ones, also where axes differ by many orders of magnitude."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skdiffsmooth._coordinates.frame import Frame


@pytest.mark.parametrize("columns", [[0], [2, 0], [1, 2, 3]])
def test_given_coordinates_fix_the_given_columns_and_no_others(columns):
    rng = np.random.RandomState(0)
    origin, axes = rng.normal(size=4), rng.normal(size=(4, 4))
    frame = Frame.of(origin, axes, np.linalg.slogdet(axes)[1], np.array(columns))
    rows = rng.normal(size=(5, 4))
    inside = frame.given(rows[:, columns]) @ frame.given_axes.T
    free = rng.normal(size=(5, 4 - len(columns))) @ frame.free_axes.T
    assert_allclose((origin + (inside + free) @ axes)[:, columns], rows[:, columns], atol=1e-12)
    both = np.hstack([frame.given_axes, frame.free_axes])
    assert_allclose(both.T @ both, np.eye(4), atol=1e-12)
    # The volume of the free columns along the free axes: a minor of the axes.
    others = np.setdiff1d(range(4), columns)
    minor = np.linalg.slogdet((frame.free_axes.T @ axes)[:, others])[1]
    assert frame.log_volume == pytest.approx(-minor, abs=1e-12)


def test_a_relation_as_narrow_as_rounding_keeps_its_digits():
    # Columns u, c - u + 1e-13 e, v: the first two are given, and their sum tells e from rounding.
    axes = np.array([[1.0, -1.0, 0.3], [0.0, 0.0, 1.0], [0.0, 1e-13, 0.0]])
    frame = Frame.of(np.zeros(3), axes, np.log(1e-13), np.array([0, 1]))
    z = frame.given(np.array([[2.0, -2.0]])) @ frame.given_axes.T
    assert_allclose(z, [[2.0, 0.0, 0.0]], atol=0.05)
    assert frame.log_volume == pytest.approx(0.0, abs=1e-3)
