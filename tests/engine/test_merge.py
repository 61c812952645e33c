"""Moments merged over two shards, against those of all points by their definition."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from thread_shards import in_two_threads

from skdiffsmooth._engine.merge import Merger, Pairs, merger_of
from skdiffsmooth._engine.moments import SingleMoments
from skdiffsmooth._utils.shards import ONE_PROCESS


def moments_of(points, masses):
    """Return log-sums, means and covariances of points (N, r) under masses (..., N)."""
    total = masses.sum(axis=-1)
    mean = masses @ points / total[..., None]
    offsets = points - mean[..., None, :]
    covariance = np.einsum("...n,...ni,...nj->...ij", masses, offsets, offsets)
    return np.log(total), mean, covariance / total[..., None, None]


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    points, masses = rng.normal(size=(7, 3)), rng.uniform(0.1, 5, size=(4, 6, 7))
    node_weights = rng.dirichlet(np.ones(6))
    return points, masses, node_weights, (slice(0, 2), slice(2, 7))


def pairs_of(points, masses):
    log_sums, means, covariances = moments_of(points, masses)
    traces = np.trace(covariances, axis1=-2, axis2=-1)
    return Pairs(*map(torch.from_numpy, (means.transpose(0, 2, 1).copy(), traces, log_sums)))


def test_averages_of_two_shards_are_those_of_all_points(case):
    points, masses, node_weights, parts = case
    weights = torch.from_numpy(node_weights)

    def work(shards):
        merger, part = merger_of(shards), parts[shards.rank]
        pairs = pairs_of(points[part], masses[:, :, part])
        own, log_sums = merger.pair_weights(pairs.log_sums, weights)
        of_means = torch.einsum("brm,bm->br", pairs.means, own)
        return merger.total(merger.average(pairs, weights)), log_sums, merger.total(of_means)

    log_sums, means, covariances = moments_of(points, masses)
    traces = np.trace(covariances, axis1=-2, axis2=-1)
    expected = np.column_stack(
        [
            np.einsum("bmr,m->br", means, node_weights),
            traces @ node_weights,
            log_sums @ node_weights,
        ]
    )
    for average, of_pairs, mean in in_two_threads(work):
        assert_allclose(average, expected, rtol=1e-12)
        assert_allclose(of_pairs, log_sums, rtol=1e-12)
        assert_allclose(mean, expected[:, :3], rtol=1e-12)
    alone = Merger().average(pairs_of(points, masses), weights)
    assert_allclose(alone, expected, rtol=1e-12)


def test_covariances_of_two_shards_are_those_of_all_points(case):
    points, masses, _, parts = case
    masses = masses[:, 0]
    directions = np.random.default_rng(2).normal(size=(4, 3, 2))

    def single(points, masses):
        log_sums, means, covariances = moments_of(points, masses)
        traces = np.trace(covariances, axis1=-2, axis2=-1)
        own = means, traces, log_sums, covariances @ directions
        return SingleMoments(*map(torch.from_numpy, own))

    def work(shards):
        part = parts[shards.rank]
        own = single(points[part], masses[:, part])
        return merger_of(shards).single(own, torch.from_numpy(directions))

    expected = single(points, masses)
    for found in in_two_threads(work):
        for each, value in zip(found, expected, strict=True):
            assert_allclose(each, value, rtol=1e-12)
    assert merger_of(ONE_PROCESS).single(expected, torch.from_numpy(directions)) is expected


def test_log_sums_far_apart_and_conditions_of_one_process():
    """Exponentials of the log-sums themselves would be zero or infinite."""
    own = [torch.tensor([-2000.0, 3000.0]).double(), torch.tensor([-2001.0, 2000.0]).double()]

    def work(shards):
        merger = merger_of(shards)
        before = own[shards.rank].clone()
        log_sums = merger.log_sums(own[shards.rank])
        weights, _ = merger.pair_weights(own[shards.rank][:, None], torch.ones(1).double())
        assert torch.equal(own[shards.rank], before)
        conditions = [merger.any(shards.rank == 1), merger.any(False), merger.any(True)]
        return log_sums, weights[:, 0], conditions

    results = in_two_threads(work)
    for log_sums, _, conditions in results:
        assert_allclose(log_sums, [np.logaddexp(-2000, -2001), 3000.0], rtol=1e-15)
        assert conditions == [True, False, True]
    fraction = 1 / (1 + np.exp(-1))
    assert_allclose(results[0][1], [fraction, 1.0])
    assert_allclose(results[1][1], [1 - fraction, 0.0])
    alone = merger_of(ONE_PROCESS)
    assert alone.log_sums(own[0]) is own[0]
    assert alone.any(True) is True
    assert alone.any(False) is False
