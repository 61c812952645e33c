"""Products of wrapped Gaussians, one coordinate at a time, against long sums over images."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffsmooth._engine import torus
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.torus import TorusPosterior
from skdiffsmooth._utils.backend import Backend

BACKEND = Backend.from_params("cpu", "float64")
K = np.arange(-12, 13)


def circle(t, ratio):
    """Return log sum exp(-(k - t)^2 / 2 ratio^2), mean and variance of k - t, of one t."""
    exponents = -((K - t) ** 2) / (2 * ratio**2)
    log_sum = np.logaddexp.reduce(exponents)
    weights = np.exp(exponents - log_sum)
    mean = weights @ (K - t)
    return log_sum, mean, weights @ (K - t - mean) ** 2


@pytest.mark.parametrize(
    "ratio", [0.003, 0.02, 0.09, 0.11, 0.112, 0.15, 0.16, 0.2, 0.24, 0.249, 0.25, 0.3, 0.45, 0.99]
)
def test_sums_over_images_and_their_series(ratio):
    t = np.array([-0.5, -0.37, -0.02, 0.0, 0.1, 0.49, 0.5])
    found = torus._wrapped_gaussian(torch.from_numpy(t), ratio)
    expected = np.array([circle(each, ratio) for each in t]).T
    # What is left out is below 1e-12 of the largest term, as documented, and a share of ratio^4.
    assert_allclose(found.log_sum, expected[0], rtol=1e-13, atol=3e-12)
    assert_allclose(found.mean, expected[1], rtol=0, atol=1e-10 * ratio)
    assert_allclose(found.variance, expected[2], rtol=1e-8, atol=1e-14)


PERIODS = np.array([0.0, 2.0, 0.0, 0.7])


def by_loops(points, weights, y, v, exclude=None):
    """Return mean, covariance, log-density and weights of the points, for one query."""
    logits, means, covariances = [], [], []
    for x, w in zip(points, weights, strict=True):
        mean, variance, logit = x - y, np.zeros(4), math.log(w)
        for j, period in enumerate(PERIODS):
            if not period:
                logit -= mean[j] ** 2 / (2 * v)
                continue
            t = -mean[j] / period
            t -= round(t)
            log_sum, own, square = circle(t, math.sqrt(v) / period)
            logit += log_sum
            mean[j], variance[j] = own * period, square * period**2
        logits.append(logit)
        means.append(y + mean)
        covariances.append(np.diag(variance))
    logits, means = np.array(logits), np.array(means)
    if exclude is not None:
        logits[exclude] = -np.inf
        logits -= math.log(1 - weights[exclude])
    posterior = np.exp(logits - np.logaddexp.reduce(logits))
    mean = posterior @ means
    covariance = sum(
        p * (C + np.outer(m - mean, m - mean))
        for p, C, m in zip(posterior, covariances, means, strict=True)
    )
    log_density = np.logaddexp.reduce(logits) - 2 * math.log(2 * math.pi * v)
    return mean, covariance, log_density, posterior, means


def case(n=5, n_queries=3):
    rng = np.random.default_rng(0)
    points, x = rng.normal(size=(n, 4)), 2 * rng.normal(size=(n_queries, 4))
    weights, trace_weights = rng.dirichlet(np.ones(n)), np.array([0.5, 2.0, 3.0, 1.5])
    return points, weights, x, trace_weights, rng


@pytest.mark.parametrize("scale", [0.05, 0.3, 0.69])
@pytest.mark.parametrize("memory_limit", [64.0, 1e-9])
def test_moments_are_averages_over_nodes(scale, memory_limit):
    points, weights, x, trace_weights, rng = case()
    v, offsets, node_weights = scale**2, 0.3 * rng.normal(size=(2, 4)), np.array([0.3, 0.7])
    own = TorusPosterior(
        points, weights, PERIODS, BACKEND, memory_limit=memory_limit, trace_weights=trace_weights
    )
    assert len(own) == 5
    nodes = Nodes.from_arrays(offsets, node_weights, BACKEND)
    for exclude in (None, np.array([4, 0, 1])):
        index = None if exclude is None else torch.from_numpy(exclude)
        found = own.moments(torch.from_numpy(x), v, nodes, trace=True, exclude=index)
        alone = own.log_density(torch.from_numpy(x), v, exclude=index)
        for b in range(3):
            left = None if exclude is None else exclude[b]
            each = [by_loops(points, weights, x[b] + xi, v, left) for xi in offsets]
            mean = sum(w * e[0] for w, e in zip(node_weights, each, strict=True))
            trace = sum(
                w * np.diag(e[1]) @ trace_weights for w, e in zip(node_weights, each, strict=True)
            )
            log_density = sum(w * e[2] for w, e in zip(node_weights, each, strict=True))
            assert_allclose(found.mean[b], mean, atol=1e-9)
            assert_allclose(found.trace[b], trace, rtol=1e-7)
            assert_allclose(found.log_density[b], log_density, rtol=1e-10)
            expected = by_loops(points, weights, x[b], v, left)[2]
            assert_allclose(alone[b], expected, rtol=1e-10)
    assert own.moments(torch.from_numpy(x), v, nodes).trace is None
    assert own.precision_at(v) == torch.float64


@pytest.mark.parametrize("memory_limit", [64.0, 1e-9])
def test_covariances_and_influence(memory_limit):
    points, weights, x, trace_weights, rng = case()
    v, directions = 0.3**2, rng.normal(size=(3, 4, 2))
    own = TorusPosterior(
        points, weights, PERIODS, BACKEND, memory_limit=memory_limit, trace_weights=trace_weights
    )
    exclude = np.array([4, 0, 1])
    for index in (None, exclude):
        found = own.covariance_along(
            torch.from_numpy(x),
            v,
            torch.from_numpy(directions),
            exclude=None if index is None else torch.from_numpy(index),
        )
        for b in range(3):
            left = None if index is None else index[b]
            mean, covariance, log_density, _, _ = by_loops(points, weights, x[b], v, left)
            assert_allclose(found.mean[b], mean, atol=1e-9)
            assert_allclose(found.trace[b], np.diag(covariance) @ trace_weights, rtol=1e-7)
            assert_allclose(found.log_density[b], log_density, rtol=1e-10)
            assert_allclose(found.along[b], covariance @ directions[b], atol=1e-9)
    y, node_weights = np.stack([x, x + 0.1, x - 0.3], axis=1), np.array([0.2, 0.3, 0.5])
    influence = own.influence(torch.from_numpy(y), v, torch.from_numpy(node_weights))
    for b in range(3):
        expected, derivatives = np.zeros(5), np.zeros((5, 4))
        for w, query in zip(node_weights, y[b], strict=True):
            mean, _, _, posterior, means = by_loops(points, weights, query, v)
            expected += w * posterior
            derivatives += w * posterior[:, None] * (means - mean)
        assert_allclose(influence.weights[b], expected, atol=1e-12)
        assert_allclose(influence.derivatives[b], derivatives, atol=1e-9)


def test_factors_of_stein_are_used_for_traces_only_where_rounding_permits():
    points, weights, x, _, rng = case()
    offsets, node_weights = 0.2 * rng.normal(size=(2, 4)), np.array([0.3, 0.7])
    own = TorusPosterior(points, weights, PERIODS, BACKEND, memory_limit=64)
    queries, v = torch.from_numpy(x), 0.25
    factors = np.array([3.0, -2.0])
    nodes = Nodes.from_arrays(offsets, node_weights, BACKEND, factors)
    found = own.moments(queries, v, nodes, trace=True)
    plain = own.moments(queries, v, nodes.without_stein(), trace=True)
    for b in range(3):
        densities = [by_loops(points, weights, x[b] + xi, v)[2] for xi in offsets]
        laplacian = np.sum(node_weights * factors * densities)
        assert found.trace[b] == pytest.approx(v * (4 + v * laplacian), rel=1e-9)
    assert_allclose(found.log_density, plain.log_density)
    large = Nodes.from_arrays(offsets, node_weights, BACKEND, 1e8 * factors)
    assert_allclose(own.moments(queries, v, large, trace=True).trace, plain.trace)
    single = own.moments(queries.float(), v, nodes.to(torch.float32), trace=True)
    assert single.mean.dtype == single.trace.dtype == torch.float32
    assert_allclose(single.mean, found.mean, atol=1e-5)


def test_above_a_period_a_coordinate_is_uniform():
    points, weights, x, _, _ = case()
    own = TorusPosterior(points, weights, PERIODS, BACKEND, memory_limit=64)
    for scale in (0.69999, 0.70001):
        v = scale**2
        found = own.moments(torch.from_numpy(x), v, Nodes.single(torch.from_numpy(x)), trace=True)
        for b in range(3):
            mean, covariance, log_density, _, _ = by_loops(points, weights, x[b], v)
            assert found.log_density[b] == pytest.approx(log_density, abs=1e-8)
            assert_allclose(found.mean[b], mean, atol=1e-7)
            assert found.trace[b] == pytest.approx(np.trace(covariance), abs=1e-6)
    # Exactly so above the period: the query's own coordinate, and the variance of the noise.
    alone = TorusPosterior(np.zeros((1, 1)), np.ones(1), np.array([0.7]), BACKEND, memory_limit=64)
    y = torch.tensor([[0.1], [0.3]]).double()
    found = alone.moments(y, 1.0, Nodes.single(y), trace=True)
    assert torch.equal(found.mean, y)
    assert found.trace.tolist() == [1.0, 1.0]
    assert_allclose(found.log_density, -math.log(0.7), rtol=1e-14)


@pytest.mark.parametrize(("memory_limit", "megabytes"), [(2.0, 2), (64.0, 8)])
def test_queries_at_once(memory_limit, megabytes):
    """Of each query, node and point a number for each column, six for each period, and four."""
    points, weights, _, _, _ = case(n=50)
    own = TorusPosterior(points, weights, PERIODS, BACKEND, memory_limit=memory_limit)
    parts = own._parts(10**6, 10)
    assert parts[0].stop == int(megabytes * 2**20 / (8 * (4 + 4 + 12) * 10 * 50))
