"""Points of cells at which densities are averaged."""

from types import SimpleNamespace

import numpy as np
import pytest

from skdiffsmooth.tables._cells import _error_of_mean, lattice, points_of


@pytest.mark.parametrize("n_columns", [1, 2, 4, 9])
def test_points_are_lattices_of_which_refined_ones_hold_the_others(n_columns):
    """Sums over all cells of a lattice of points are integrals."""
    offsets = lattice(np.r_[False, np.full(n_columns, True)])
    part = SimpleNamespace(offsets=offsets, is_integrated=False)
    every = np.full(1 + n_columns, True)
    for n_refined in range(3):
        points = points_of(part, every, are_few=False, n_refined=n_refined)
        assert len(points) == 3**n_refined * len(offsets)
        np.testing.assert_allclose(points[: len(offsets)], offsets, atol=1e-12)
        steps = np.round((points - points[0]) * len(points)).astype(int) % len(points)
        members = set(map(tuple, steps))
        assert len(members) == len(points)
        assert {tuple((each + steps[-1]) % len(points)) for each in steps} == members


@pytest.mark.parametrize("n", [3, 27])
def test_the_error_of_midpoints_is_exact_for_quadratics(n):
    """A cell is from 0 to 1, and the mean of a + b (u - c)^2 is known."""
    u = (np.arange(n)[:, None] + 0.5) / n
    a, b, c = np.array([1.0, 0.2, 3.0]), np.array([2.0, 5.0, -1.0]), np.array([0.5, 0.1, 0.9])
    values = a + b * (u - c) ** 2
    exact = a + b * (1 / 3 - c + c**2)
    mean = values.mean(axis=0)
    expected = np.abs(exact / mean - 1)
    np.testing.assert_allclose(_error_of_mean(values / mean), expected, rtol=1e-9)


def test_the_error_of_a_lattice_is_the_standard_error_over_pairs_of_opposite_points():
    values = np.random.RandomState(0).uniform(0.5, 1.5, size=(17, 4))
    pairs = np.array([(values[k] + values[17 - k]) / 2 for k in range(1, 9)])
    expected = np.sqrt(((pairs - pairs.mean(axis=0)) ** 2).sum(axis=0) / 7 / 8)
    np.testing.assert_allclose(_error_of_mean(values), expected, rtol=1e-12)
    three = np.array([part.mean(axis=0) for part in (values[:5], values[5:10], values[10:15])])
    expected = np.sqrt(((three - three.mean(axis=0)) ** 2).sum(axis=0) / 2 / 3)
    np.testing.assert_allclose(_error_of_mean(values[:15]), expected, rtol=1e-12)
