"""The posterior of a mixture of Gaussians, against loops over its components and nodes."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp

from skdiffsmooth._coordinates.hull import AffineHull
from skdiffsmooth._engine.component_posterior import ComponentPosterior
from skdiffsmooth._engine.components import GaussianComponents
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._utils.backend import Backend

BACKEND = Backend.from_params("cpu", "float64")


def components_of(n=4, r=3, k=1, seed=0):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(n, r, r)))[0][:, :, :k]
    return GaussianComponents(
        rng.dirichlet(np.ones(n)),
        rng.normal(size=(n, r)),
        rng.uniform(0.1, 0.4, size=n),
        axes,
        rng.uniform(0.5, 2.0, size=(n, k)),
    )


def posterior_of(own, memory_limit=16.0, backend=BACKEND):
    return ComponentPosterior(own, backend, memory_limit=memory_limit)


def covariances_of(own):
    """Return the covariances f (I - U U') + U diag(l) U', by loops."""
    result = []
    for floor, axes, variances in zip(own.floors, own.axes, own.variances, strict=True):
        covariance = floor * (np.eye(len(axes)) - axes @ axes.T)
        for axis, variance in zip(axes.T, variances, strict=True):
            covariance += variance * np.outer(axis, axis)
        result.append(covariance)
    return np.array(result)


def by_definition(own, y, v, exclude=None):
    """Return mean, covariance and log-density of the posterior at one query."""
    weights = own.weights.copy()
    if exclude is not None:
        weights[exclude] = 0
        weights /= weights.sum()
    d, means, covariances, logits = len(y), [], [], []
    for w, mu, S in zip(weights, own.means, covariances_of(own), strict=True):
        gain = S @ np.linalg.inv(S + v * np.eye(d))
        means.append(mu + gain @ (y - mu))
        covariances.append(S - gain @ S)
        square = (y - mu) @ np.linalg.solve(S + v * np.eye(d), y - mu)
        volume = np.linalg.slogdet(2 * math.pi * (S + v * np.eye(d)))[1]
        logits.append(-(square + volume) / 2 + (math.log(w) if w else -math.inf))
    posterior = np.exp(logits - logsumexp(logits))
    mean = posterior @ np.array(means)
    total = np.zeros((d, d))
    for p, m, C in zip(posterior, means, covariances, strict=True):
        total += p * (C + np.outer(m - mean, m - mean))
    return mean, total, logsumexp(logits)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize("memory_limit", [16.0, 0.004])
def test_moments_are_averages_over_nodes(k, memory_limit):
    own, rng, v = components_of(k=k), np.random.default_rng(1), 0.3
    x, offsets = rng.normal(size=(3, 3)), 0.4 * rng.normal(size=(4, 3))
    node_weights = rng.dirichlet(np.ones(4))
    offsets -= node_weights @ offsets
    exclude = np.array([0, 1, 3])
    nodes = Nodes.from_arrays(offsets, node_weights, BACKEND)
    posterior = posterior_of(own, memory_limit)
    for index in (None, exclude):
        tensor = None if index is None else torch.from_numpy(index)
        found = posterior.moments(torch.from_numpy(x), v, nodes, trace=True, exclude=tensor)
        for b in range(3):
            left = None if index is None else index[b]
            each = [by_definition(own, x[b] + xi, v, left) for xi in offsets]
            mean, trace, log_density = (
                sum(w * value for w, value in zip(node_weights, values, strict=True))
                for values in zip(*((m, np.trace(C), p) for m, C, p in each), strict=True)
            )
            assert_allclose(found.mean[b], mean, rtol=1e-9)
            assert_allclose(found.trace[b], trace, rtol=1e-9)
            assert_allclose(found.log_density[b], log_density, rtol=1e-9)
        plain = posterior.moments(torch.from_numpy(x), v, nodes, exclude=tensor)
        assert plain.trace is None
        assert_allclose(plain.mean, found.mean, rtol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize("memory_limit", [16.0, 0.004])
def test_covariances_along_directions(k, memory_limit):
    own, rng, v = components_of(k=k), np.random.default_rng(1), 0.2
    y, directions = rng.normal(size=(5, 3)), rng.normal(size=(5, 3, 2))
    exclude = np.array([3, 1, 2, 0, 0])
    posterior = posterior_of(own, memory_limit)
    for index in (None, exclude):
        found = posterior.covariance_along(
            torch.from_numpy(y),
            v,
            torch.from_numpy(directions),
            exclude=None if index is None else torch.from_numpy(index),
        )
        for b in range(5):
            left = None if index is None else index[b]
            mean, covariance, log_density = by_definition(own, y[b], v, left)
            assert_allclose(found.mean[b], mean, rtol=1e-9)
            assert_allclose(found.trace[b], np.trace(covariance), rtol=1e-9)
            assert_allclose(found.log_density[b], log_density, rtol=1e-9)
            assert_allclose(found.along[b], covariance @ directions[b], rtol=1e-8, atol=1e-12)


def test_densities_are_those_of_single_nodes():
    own, y, v = components_of(), np.random.default_rng(2).normal(size=(4, 3)), 0.5
    posterior, exclude = posterior_of(own), np.array([0, 1, 2, 3])
    found = posterior.log_density(torch.from_numpy(y), v)
    assert_allclose(found, [by_definition(own, each, v)[2] for each in y], rtol=1e-12)
    found = posterior.log_density(torch.from_numpy(y), v, exclude=torch.from_numpy(exclude))
    expected = [by_definition(own, y[b], v, b)[2] for b in exclude]
    assert_allclose(found, expected, rtol=1e-12)


def test_traces_by_stein_are_exact_for_one_gaussian():
    """The averaged Laplacian of a quadratic log-density is that of the nodes' second moments."""
    own, v = components_of(n=1, k=2), 0.3
    rng, scale = np.random.default_rng(3), 0.4
    frame = np.concatenate([np.eye(3), -np.eye(3)]) * math.sqrt(3) * scale
    # Stein's factors |xi|^2 / s^4 - d / s^2 vanish on this frame, so two lengths are mixed.
    offsets = np.concatenate([frame * math.sqrt(1.5), frame * math.sqrt(0.5)])
    weights = np.full(12, 1 / 12)
    factors = (offsets**2).sum(axis=1) / scale**4 - 3 / scale**2
    # Scaled such that the average of h(xi) |xi|^2 / 2 is d, as for the normal distribution.
    factors *= 3 / (weights @ (factors * (offsets**2).sum(axis=1) / 2))
    isotropic = GaussianComponents(
        np.ones(1), own.means, np.array([0.7]), np.empty((1, 3, 0)), np.empty((1, 0))
    )
    nodes = Nodes.from_arrays(offsets, weights, BACKEND, factors)
    x = torch.from_numpy(rng.normal(size=(3, 3)))
    found = posterior_of(isotropic).moments(x, v, nodes, trace=True)
    assert_allclose(found.trace, np.full(3, 3 * v * 0.7 / (v + 0.7)), rtol=1e-9)
    # Where factors magnify rounding too much, or no trace is requested, they are not used.
    wrong = Nodes.from_arrays(offsets, weights, BACKEND, 1e9 * factors)
    found = posterior_of(isotropic).moments(x, v, wrong, trace=True)
    assert_allclose(found.trace, np.full(3, 3 * v * 0.7 / (v + 0.7)), rtol=1e-9)


def test_rounding_decides_on_double_precision():
    """Exponents are off by the rounding of positions times lengths over the narrowest variance."""
    own = components_of()
    posterior = posterior_of(own, backend=Backend.from_params("cpu", "float32"))
    radius = np.linalg.norm(own.means, axis=1).max()
    narrowest = min(np.linalg.eigvalsh(S).min() for S in covariances_of(own))
    widest = math.sqrt(max(np.linalg.eigvalsh(S).max() for S in covariances_of(own)))
    for v in (1e-4, 1.0):
        # A quadratic equation for the norm of the longest node at the edge.
        most = 1e-3 * (narrowest + v) / 2.0**-23
        length = (-radius + math.sqrt(radius**2 + 4 * most)) / 2
        edge = length - widest - math.sqrt(v)
        assert posterior._is_exact(v, 0.999 * edge)
        assert not posterior._is_exact(v, 1.001 * edge)
    far = GaussianComponents(
        np.ones(1), np.full((1, 2), 1e5), np.full(1, 1e-6), np.empty((1, 2, 0)), np.empty((1, 0))
    )
    single = posterior_of(far, backend=Backend.from_params("cpu", "float32"))
    assert single.precision_at(1e-6) == torch.float64
    y = torch.full((1, 2), 1e5) + torch.tensor([[0.0, 1 / 128]])
    found = single.covariance_along(y, 1e-6, torch.eye(2)[None])
    assert found.mean.dtype == torch.float32
    assert_allclose(found.along[0], 5e-7 * np.eye(2), rtol=1e-6, atol=1e-12)
    assert single.moments(y, 1e-6, Nodes.single(y), trace=True).trace[0] == pytest.approx(1e-6)


def test_components_in_coordinates_of_a_hull():
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.normal(size=(5, 3)))[0]
    inside = components_of(k=2)
    hull = AffineHull(center=rng.normal(size=5), basis=basis)
    outside = GaussianComponents(
        inside.weights,
        hull.center + inside.means @ basis.T,
        inside.floors,
        basis @ inside.axes,
        inside.variances,
    )
    found = outside.within(hull)
    assert_allclose(found.means, inside.means, atol=1e-12)
    assert_allclose(found.axes, inside.axes, atol=1e-12)
    assert_allclose(found.covariances, covariances_of(inside), atol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_draws_have_the_moments_of_the_mixture(k):
    own = components_of(k=k)
    drawn = own.sample(np.random.RandomState(0), 4000)
    mean = own.weights @ own.means
    offsets = own.means - mean
    expected = np.einsum("k,kij->ij", own.weights, covariances_of(own))
    expected += np.einsum("k,ki,kj->ij", own.weights, offsets, offsets)
    assert_allclose(drawn.mean(axis=0), mean, atol=5 * math.sqrt(expected.max() / 4000))
    assert_allclose(np.cov(drawn.T), expected, atol=0.1 * expected.max())
    # Of one component along and across its axes.
    one = GaussianComponents(
        np.ones(1), own.means[:1], own.floors[:1], own.axes[:1], own.variances[:1]
    )
    white = one.sample(np.random.RandomState(1), 2000) - own.means[0]
    assert_allclose(np.cov(white.T), covariances_of(one)[0], atol=0.1 * one.widest**2)
