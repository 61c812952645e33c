"""Numbers of nodes, radii and rotations at their boundaries, and rows at which errors are estimated."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skdiffsmooth.kernels import _node_error, _nodes
from skdiffsmooth.kernels._node_error import enough_nodes
from skdiffsmooth.kernels._nodes import NodeRule, gaussian_frames, gaussian_nodes


@pytest.mark.parametrize(
    ("dimension", "n_nodes", "n_radii", "n_rotations"),
    [
        (3, 8, 3, 1),  # three radii and a rotation at least
        (3, 24, 3, 2),  # four frames
        (3, 95, 3, 6),
        (3, 96, 4, 4),  # a fourth radius from sixteen frames on
        (3, 384, 5, 13),
        (10, 60, 3, 1),
        (10, 61, 3, 2),
        (11, 8, 2, 2),  # above ten dimensions rotations matter more
        (11, 88, 2, 2),
        (11, 89, 2, 3),
    ],
)
def test_numbers_of_radii_and_rotations(dimension, n_nodes, n_radii, n_rotations):
    nodes, weights = gaussian_frames(dimension, n_nodes, 0, 0)
    assert len(nodes) == len(weights) == 2 * dimension * n_radii * n_rotations
    assert len(np.unique(np.linalg.norm(nodes, axis=1).round(9))) == n_radii
    assert weights.sum() == pytest.approx(1.0)
    assert_allclose((weights[:, None] * nodes).T @ nodes, np.eye(dimension), atol=1e-10)


def test_small_tables_are_kept_and_shared():
    for make, kept, made in (
        (lambda n: gaussian_nodes(4, n, 0, 7), 2**12, 2**12 + 2),
        (lambda n: gaussian_frames(4, n, 0, 7)[0], 500, 6000),
        (lambda n: gaussian_frames(32, n, 0, 7)[0], 512, 513),
    ):
        assert make(kept) is make(kept)
        assert not make(kept).flags.writeable
        assert make(made) is not make(made)
        assert make(made).flags.writeable


@pytest.mark.parametrize("kept", [_nodes._kept_nodes, _nodes._kept_frames])
def test_kept_tables_take_32_mebibytes_at_most(kept):
    largest = gaussian_nodes(4, 2**12, 0, 7)
    assert largest is gaussian_nodes(4, 2**12, 0, 7)
    assert kept.cache_info().maxsize * largest.nbytes == 2**25


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100])
def test_rows_are_checked_evenly_in_order_of_the_widest_coordinate(n):
    points = np.random.default_rng(0).normal(size=(n, 2))
    index = _node_error._evenly(points, 16)
    assert len(index) == len(set(index.tolist())) == min(n, 16)
    assert (np.diff(points[index, 0]) > 0).all()
    assert index[0] == points[:, 0].argmin()
    assert index[-1] == (points[:, 0].argmax() if n > 1 else 0)
    assert _node_error._evenly(np.empty((1, 0)), 16).tolist() == [0]


@pytest.mark.parametrize(
    ("errors", "tol", "is_fixed", "n_nodes"),
    [
        ([0.19], None, False, 64),
        ([0.2, 0.1], None, False, 128),  # below the tolerance, not at it
        ([9.0] * 4, None, False, 512),  # at most 512
        ([9.0], None, True, 64),
        ([0.06], 0.1, False, 64),  # 0.7 of the accuracy that is requested
        ([0.08, 0.06], 0.1, False, 128),
        ([9.0] * 7, 0.1, False, 4096),
    ],
)
def test_nodes_are_doubled_until_they_are_enough(monkeypatch, errors, tol, is_fixed, n_nodes):
    remaining, pairs = list(errors), []

    def schedule(rule):
        return SimpleNamespace(smoothing=SimpleNamespace(has_divergence=True), rule=rule)

    def error(coarse, fine):
        pairs.append((coarse.rule, fine.rule))
        return remaining.pop(0)

    monkeypatch.setattr(_node_error, "node_error", error)
    rule, value = enough_nodes(schedule, NodeRule("sobol", 64, 3), tol, is_fixed=is_fixed)
    assert (rule.n_nodes, value, remaining) == (n_nodes, errors[-1], [])
    for coarse, fine in pairs:
        # Other nodes, of another scrambling, and twice as many.
        assert fine == NodeRule("sobol", 2 * coarse.n_nodes, 4)
    none = SimpleNamespace(smoothing=SimpleNamespace(has_divergence=False))
    rule, value = enough_nodes(lambda rule: none, rule, tol, is_fixed=is_fixed)
    assert rule.n_nodes == n_nodes
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("n_nodes", "per_axis"), [(4, 2), (8, 2), (9, 3), (64, 8), (63, 7), (2, 2)]
)
def test_grids_have_as_many_nodes_on_an_axis_as_fit(n_nodes, per_axis):
    nodes, weights = _nodes._gauss_hermite(2, n_nodes, 0, 0)
    assert len(np.unique(nodes[:, 0])) == per_axis
    assert weights.sum() == pytest.approx(1.0)
    assert_allclose(weights @ nodes**2, 1.0)
