"""Sums over boxes of points: within the requested relative error of sums over all points."""

import pickle

import numpy as np
import pytest
import torch

from skdiffsmooth import KDESampler
from skdiffsmooth._engine.box_sums import BoxSums
from skdiffsmooth._engine.radial_kernels import RADIAL_KERNELS
from skdiffsmooth._engine.radial_mixture import RadialMixture
from skdiffsmooth._estimators import kde

# Rounding of exponents, and of sums relative to them.
ROUNDING = 1e-14


def clusters(d, n=4000):
    """Weighted points: a wide cluster, a narrow one and a few far away; and queries near and far."""
    rng = np.random.RandomState(d)
    narrow = 0.1 * rng.normal(size=(n // 2, d)) + 3
    points = np.vstack([rng.normal(size=(n // 2, d)), narrow, 30 * rng.normal(size=(20, d))])
    weights = rng.uniform(0.1, 1, len(points)) ** 4
    near = points[rng.randint(len(points), size=60)] + 0.3 * rng.normal(size=(60, d))
    queries = np.vstack([near, 8 * rng.normal(size=(30, d)), 1e3 * rng.normal(size=(5, d))])
    return points, weights / weights.sum(), torch.from_numpy(queries)


def all_points(points, weights, kernel, bandwidth):
    log_weights = torch.from_numpy(np.log(weights))
    points = torch.from_numpy(points)
    return RadialMixture(points, log_weights, RADIAL_KERNELS[kernel], bandwidth, memory_limit=64)


def check(found, expected, rtol):
    """Compare log-densities: equal where they are minus infinity, and within rtol elsewhere."""
    is_zero = np.isinf(expected)
    np.testing.assert_array_equal(found[is_zero], expected[is_zero])
    found, expected = found[~is_zero], expected[~is_zero]
    error = np.abs(np.expm1(found - expected))
    assert np.all(error <= rtol + ROUNDING * (100 + np.abs(expected))), (error.max(), rtol)


@pytest.mark.parametrize("rtol", [1e-12, 1e-6, 1e-3])
@pytest.mark.parametrize("kernel", RADIAL_KERNELS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_densities_have_the_requested_error(d, kernel, rtol):
    points, weights, queries = clusters(d)
    for bandwidth in (1e-3, 0.1, 0.7, 20.0):
        exact = all_points(points, weights, kernel, bandwidth)
        boxes = BoxSums(points, weights, RADIAL_KERNELS[kernel], bandwidth, rtol)
        check(boxes.log_density(queries, 64).numpy(), exact.log_density(queries).numpy(), rtol)
        # A grid has at least one, and at this bandwidth the narrow cluster lies in few cubes.
        if kernel == "gaussian" and bandwidth == 0.7 and (d < 3 or rtol == 1e-3):
            assert boxes._n_cubes


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_excluded_points_add_nothing(d, kernel):
    """One point has most of the weight of its cube, so that hardly any is left when it is excluded."""
    points, weights, _ = clusters(d)
    weights[0] = 0.5
    weights /= weights.sum()
    exclude = torch.arange(0, len(points), 37)
    exclude[-1] = len(points) - 1
    queries = torch.from_numpy(points)[exclude]
    for bandwidth in (0.1, 0.7):
        exact = all_points(points, weights, kernel, bandwidth)
        boxes = BoxSums(points, weights, RADIAL_KERNELS[kernel], bandwidth, 1e-6)
        found = boxes.log_density(queries, 64, exclude=exclude).numpy()
        check(found, exact.log_density(queries, exclude=exclude).numpy(), 1e-6)


def test_results_do_not_depend_on_tiles_or_other_queries():
    points, weights, queries = clusters(2)
    boxes = BoxSums(points, weights, RADIAL_KERNELS["gaussian"], 0.5, 1e-3)
    together = boxes.log_density(queries, 64)
    for few in (boxes.log_density(queries, 0.05), boxes.log_density(queries.flip(0), 64).flip(0)):
        # Rounding of sums that are taken in another order.
        np.testing.assert_allclose(few, together, rtol=0, atol=1e-13)


def test_replaced_points_keep_their_weight():
    """The kernel of a very wide query is constant on a cube, so the grid's weights add up to its own."""
    points, weights, _ = clusters(2)
    boxes = BoxSums(points, weights, RADIAL_KERNELS["gaussian"], 0.7, 1e-6)
    sums = boxes._grid_weights.sum(1)
    np.testing.assert_allclose(sums, boxes._cubes.log_weights.exp(), rtol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "whitened"])
@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
def test_the_estimator_agrees_with_sums_over_all_rows(kernel, metric, monkeypatch):
    monkeypatch.setattr(kde, "_MANY_POINTS", 500)
    points, weights, queries = clusters(2, n=1200)
    exact, found = (
        KDESampler(0.6, kernel, metric=metric, rtol=rtol).fit(points, sample_weight=weights)
        for rtol in (0, 1e-5)
    )
    assert exact._boxes_ is None
    assert found._boxes_ is not None
    check(found.score_samples(queries), exact.score_samples(queries), 1e-5)
    own = 0.3 * exact.weights_
    for arguments in ((), (own,)):
        left_out = (model.leave_one_out_log_density(*arguments) for model in (found, exact))
        check(*left_out, 1e-5)
    found.set_params(memory_limit=1e-3)
    with pytest.raises(ValueError, match="memory_limit"):
        found.score_samples(queries)


@pytest.mark.parametrize("bandwidth", [1e-9, [0.5, 2.0]])
def test_far_queries_and_bandwidths_of_each_feature(bandwidth, monkeypatch):
    monkeypatch.setattr(kde, "_MANY_POINTS", 500)
    points, weights, queries = clusters(2)
    queries = np.vstack([queries, [[1e100, 0.0], [1e12, -1e13]]])
    exact, found = (
        KDESampler(bandwidth, rtol=rtol).fit(points, sample_weight=weights) for rtol in (0, 1e-9)
    )
    np.testing.assert_allclose(
        found.score_samples(queries), exact.score_samples(queries), rtol=1e-9
    )


@pytest.mark.parametrize("far", [-1e15, -1e14, -1e11, 1e9, 1e15])
def test_one_far_row(far, monkeypatch):
    monkeypatch.setattr(kde, "_MANY_POINTS", 500)
    points = np.random.RandomState(0).normal(size=(3000, 1))
    points[0] = far
    exact, found = (KDESampler(0.1, rtol=rtol).fit(points) for rtol in (0, 1e-3))
    check(found.score_samples(points[:200]), exact.score_samples(points[:200]), 1e-3)


def test_saved_models_sort_their_rows_again(monkeypatch):
    monkeypatch.setattr(kde, "_MANY_POINTS", 500)
    points, weights, queries = clusters(2, n=1200)
    skops = pytest.importorskip("skops.io")
    model = KDESampler(0.6, rtol=1e-5).fit(points, sample_weight=weights)
    saved = skops.dumps(model)  # without tensors, which it cannot save
    loaded = skops.loads(saved, trusted=skops.get_untrusted_types(data=saved))
    for copy in (loaded, pickle.loads(pickle.dumps(model))):
        assert copy._boxes_ is not None
        np.testing.assert_array_equal(copy.score_samples(queries), model.score_samples(queries))


def test_a_bandwidth_that_no_float_can_divide_by_is_refused():
    with pytest.raises(ValueError, match="bandwidth=1e-300 is too small for rows that extend over"):
        KDESampler(1e-300).fit([[0.0], [1e10]])
