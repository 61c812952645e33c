"""Points of cells at which densities are averaged."""

from types import SimpleNamespace

import numpy as np
import pytest

from skdiffsmooth.tables._cells import lattice, points_of


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
