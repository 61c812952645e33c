"""Sums over boxes and cubes of points: what replaces the points of a cube, edges, and tiles."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffsmooth._engine import box_sums
from skdiffsmooth._engine.box_sums import BoxSums
from skdiffsmooth._engine.radial_kernels import RADIAL_KERNELS


def case(d, n=200, seed=0, n_far=7):
    """Points of which nearly all are in one cube, if the bandwidth is one."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1.9, size=(n, d))
    points[0] = 0.0  # the lowest corner of all
    if n_far:
        points[-n_far:] = 9 + rng.uniform(0, 30, size=(n_far, d))
    return points, rng.dirichlet(np.ones(n)), rng


def by_sums(kernel, points, weights, x, h, left=None):
    own, d, result = RADIAL_KERNELS[kernel], points.shape[1], []
    for b, y in enumerate(x):
        rho = np.linalg.norm(y - points, axis=1) / h
        logits = np.log(weights) + own.log_profile(torch.from_numpy(rho)).numpy()
        if left is not None:
            logits[left[b]] = -np.inf
            logits -= math.log(np.delete(weights, left[b]).sum())
        result.append(np.logaddexp.reduce(logits) - own.log_normalizer(d) - d * math.log(h))
    return np.array(result)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("tile", [2**17, 1])
def test_nodes_that_replace_points_keep_their_moments(d, tile, monkeypatch):
    """Polynomials of lower degree in each coordinate than there are nodes have the same sums."""
    monkeypatch.setattr(box_sums, "_SUMS_TILE", tile)
    points, weights, _ = case(d, n=300 if d < 3 else 700)
    own = BoxSums(points, weights, RADIAL_KERNELS["gaussian"], 1.0, 0.3)
    assert own._n_cubes == 1
    inside = (points < 2).all(axis=1)
    n, middle = own._n_nodes, own._middles[0].numpy()
    assert_allclose(middle, np.ones(d))
    grid = np.stack(np.meshgrid(*[own._nodes.numpy()] * d, indexing="ij"), -1).reshape(-1, d)
    for degrees in np.ndindex(*[min(n, 3)] * d):
        expected = weights[inside] @ np.prod((points[inside] - middle) ** degrees, axis=1)
        found = own._grid_weights[0].numpy() @ np.prod(grid**degrees, axis=1)
        assert found == pytest.approx(expected, abs=1e-12)
    highest = weights[inside] @ (points[inside, 0] - middle[0]) ** (n - 1)
    assert own._grid_weights[0].numpy() @ grid[:, 0] ** (n - 1) == pytest.approx(highest, abs=1e-12)
    assert own._cubes.log_weights[0] == pytest.approx(math.log(weights[inside].sum()))
    assert_allclose(own._cubes.low[0], middle - 1)
    assert_allclose(own._cubes.high[0], middle + 1)


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov", "exponential"])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("rtol", [0.1, 1e-4])
def test_densities_have_the_requested_relative_error(kernel, d, rtol):
    n = 1500 if kernel == "gaussian" and d == 3 else 300
    points, weights, rng = case(d, n=n)
    h = 1.0
    own = BoxSums(points, weights, RADIAL_KERNELS[kernel], h, rtol)
    assert (own._n_cubes > 0) == (kernel == "gaussian" and own._n_nodes**d < n - 7)
    left = np.array([0, 5, n - 1, n - 3])
    x = np.concatenate([points[left], rng.uniform(-3, 5, size=(3, d)), [[14.0] * d, [-9.0] * d]])
    expected = by_sums(kernel, points, weights, x, h)
    found = own.log_density(torch.from_numpy(x), 64.0).numpy()
    assert ((found == -math.inf) == (expected == -math.inf)).all()
    is_finite = expected > -math.inf
    assert_allclose(found[is_finite], expected[is_finite], rtol=0, atol=rtol)
    # One query at a time, the same to the bit.
    few = own.log_density(torch.from_numpy(x), 256 * (len(own._x) + own._n_cubes) * 1.5 / 2**20)
    assert (few.numpy() == found).all()
    expected = by_sums(kernel, points, weights, x[:4], h, left)
    found = own.log_density(torch.from_numpy(x[:4]), 64.0, exclude=torch.from_numpy(left)).numpy()
    is_finite = expected > -math.inf
    assert ((found == -math.inf) == ~is_finite).all()
    assert_allclose(found[is_finite], expected[is_finite], rtol=0, atol=rtol)


def test_far_queries_are_summed_over_points():
    """Nodes replace points up to an absolute error, which is too large where densities are small."""
    points, weights, _ = case(2, n=300, n_far=0)
    own = BoxSums(points, weights, RADIAL_KERNELS["gaussian"], 1.0, 1e-3)
    assert own._n_cubes == 1
    calls, original = [], own._log_sums_of_points

    def watched(x, excluded, n_groups, lower=None):
        calls.append((len(x), n_groups))
        return original(x, excluded, n_groups, lower)

    own._log_sums_of_points = watched
    x = np.array([[1.0, 1.0], [0.3, 1.5], [40.0, 1.0], [1.0, -60.0]])
    found = own.log_density(torch.from_numpy(x), 64.0)
    assert_allclose(found, by_sums("gaussian", points, weights, x, 1.0), rtol=1e-3)
    assert calls[0] == (4, 0)
    assert calls[1] == (2, len(own._groups.low))


def test_an_excluded_point_that_has_most_of_the_weight():
    points, _, _ = case(1, n=200, n_far=0)
    weights = np.full(200, 1e-7)
    weights[3] = 1 - 199e-7
    own = BoxSums(points, weights, RADIAL_KERNELS["gaussian"], 1.0, 1e-6)
    assert own._n_cubes == 1
    x, left = torch.from_numpy(points[[3, 4]]), np.array([3, 4])
    found = own.log_density(x, 64.0, exclude=torch.from_numpy(left))
    assert_allclose(found, by_sums("gaussian", points, weights, x.numpy(), 1.0, left), atol=1e-5)


def test_memory_for_a_query():
    points, weights, _ = case(1, n=300)
    own = BoxSums(points, weights, RADIAL_KERNELS["linear"], 1.0, 1e-6)
    x, one = torch.zeros(5, 1).double(), 256 * len(own._x) / 2**20
    sizes, log_sums = [], own._log_sums
    own._log_sums = lambda x, excluded: sizes.append(len(x)) or log_sums(x, excluded)
    for limit, expected in ((1.001, [1] * 5), (2.5, [2, 2, 1]), (100, [5])):
        sizes.clear()
        own.log_density(x, limit * one)
        assert sizes == expected
    with pytest.raises(ValueError, match="too small for one row"):
        own.log_density(x, 0.999 * one)


def test_smallest_relative_errors_are_those_of_rounding():
    points, weights, _ = case(1, n=100, n_far=0)
    own = BoxSums(points, weights, RADIAL_KERNELS["gaussian"], 1.0, 1e-30)
    assert own.rtol == 1e-15
    assert own._n_nodes == box_sums._nodes_for(1e-15, 1)[0]
    assert BoxSums(points, weights, RADIAL_KERNELS["gaussian"], 1.0, 1e-9).rtol == 1e-9


@pytest.mark.parametrize(
    ("n", "fewest", "n_cubes"), [(64, 64, 1), (63, 64, 0), (200, 200, 1), (200, 201, 0)]
)
def test_cubes_hold_enough_points(n, fewest, n_cubes):
    points = np.random.default_rng(0).uniform(0, 1, size=(n, 2))
    _, counts, middles = box_sums._split(points, 2.0, fewest)
    assert len(middles) == n_cubes
    assert counts.tolist() == ([0, n] if n_cubes else [n])


def test_boxes_and_groups_are_padded_with_points_of_weight_zero():
    points, weights, _ = case(2, n=64 * 33 + 5, n_far=0)
    own = BoxSums(points, weights, RADIAL_KERNELS["tophat"], 1.0, 1e-6)
    assert own._x.shape == (34, 2, 64)
    assert own._starts.tolist() == [0, 32, 34]
    assert own._group.tolist() == [0] * 32 + [1] * 2
    assert int((own._log_weights == -math.inf).sum()) == 59
    assert_allclose(own._log_weights.exp().sum(), 1.0)
    assert_allclose(np.logaddexp.reduce(own._groups.log_weights.numpy()), 0.0, atol=1e-12)
    for i in (0, 100, len(points) - 1):
        slot = int(own._slot[i])
        assert own._x[slot // 64, :, slot % 64].tolist() == points[i].tolist()
        assert own._log_weights[slot // 64, slot % 64] == pytest.approx(math.log(weights[i]))
    assert (own._groups.low <= own._boxes.low.amin(0) + 2).all()
    assert_allclose(own._groups.low.amin(0), points.min(axis=0))
    assert_allclose(own._groups.high.amax(0), points.max(axis=0))


def test_queries_at_once_have_half_a_million_bounds():
    points, weights, _ = case(2, n=64 * 33 + 5, n_far=0)
    own, sizes = BoxSums(points, weights, RADIAL_KERNELS["tophat"], 1.0, 1e-6), []
    own._log_sums = lambda x, excluded: sizes.append(len(x)) or x[:, 0]
    own.log_density(torch.zeros(2**19 // 34 + 1, 2).double(), 2.0**14)
    assert sizes == [2**19 // 34, 1]
