"""Divergences from log-densities at the nodes, against traces of posterior covariances."""

import math

import numpy as np
import pytest
import torch

from skdiffsmooth._engine.component_posterior import ComponentPosterior
from skdiffsmooth._engine.components import GaussianComponents
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.kernels import FrozenKernel, LinearShape
from skdiffsmooth.kernels._nodes import NodeRule, gaussian_frames
from skdiffsmooth.scores import SmoothedScore

CPU = Backend(torch.device("cpu"), torch.float64)
SINGLE = Backend(torch.device("cpu"), torch.float32)


def points_posterior(n=60, r=3, seed=0, backend=CPU, memory_limit=64):
    points = np.random.RandomState(seed).standard_normal((n, r))
    points -= points.mean(axis=0)
    log_weights = np.full(n, -math.log(n))
    return Posterior(backend.tensor(points), backend.tensor(log_weights), memory_limit=memory_limit)


def mixture_posterior(k=5, r=3, seed=0, backend=CPU):
    rng = np.random.RandomState(seed)
    roots = 0.5 * rng.standard_normal((k, r, r))
    components = GaussianComponents.of(
        rng.dirichlet(np.ones(k)), rng.standard_normal((k, r)), roots @ roots.transpose(0, 2, 1)
    )
    return ComponentPosterior(components, backend, memory_limit=64)


def field(posterior, sigma, n_nodes, level=0, r=3, backend=CPU, exclude=None):
    kernel = FrozenKernel(
        LinearShape(np.eye(r)), np.full(9999, sigma), NodeRule("sobol", n_nodes, 0)
    )
    return kernel.field(level, posterior, backend, exclude)


def by_definition(posterior, field, x, v, sigma, exclude=None):
    """Sum over nodes of log-densities of single queries, one node at a time."""
    offsets, weights = field.nodes.offsets, field.nodes.weights
    total = torch.zeros(len(x), dtype=x.dtype)
    for offset, weight in zip(offsets, weights, strict=True):
        factor = (offset @ offset / sigma**2 - x.shape[1]) / sigma**2
        total += weight * factor * posterior.log_density(x + offset, v, exclude=exclude)
    return total


POSTERIORS = {"points": points_posterior, "mixture": mixture_posterior}
every_posterior = pytest.mark.parametrize("make", POSTERIORS.values(), ids=POSTERIORS)


@every_posterior
@pytest.mark.parametrize("v", [1e-6, 1e-2, 0.3, 40.0])
@pytest.mark.parametrize("excluding", [False, True])
def test_divergence_is_the_sum_over_nodes(make, v, excluding):
    """At noise where exponentials factorise and where they do not, with and without a left-out point.

    The tolerance is rounding of log-densities, of size 10 / v, times v / sigma^2, in units of 1 / v.
    """
    posterior = make()
    x = torch.tensor(np.random.RandomState(1).standard_normal((7, 3)))
    exclude = torch.arange(7) % 5 if excluding else None
    smoothed = field(posterior, 0.4, 64, exclude=exclude)
    score, divergence = smoothed.with_divergence(x, v)
    expected = by_definition(posterior, smoothed, x, v, 0.4, exclude)
    torch.testing.assert_close(v * divergence, v * expected, rtol=1e-9, atol=1e-9)
    # The score is the same with and without the divergence.
    torch.testing.assert_close(score, smoothed(x, v), rtol=1e-12, atol=1e-12 / v)


def test_one_gaussian_is_exact():
    """Log-densities are quadratic: no quadrature error for one point or component, at any frame."""
    components = GaussianComponents.of(
        np.ones(1), np.zeros((1, 4)), np.diag([0.1, 0.5, 1.0, 2.0])[None]
    )
    posterior = ComponentPosterior(components, CPU, memory_limit=64)
    x = torch.tensor(np.random.RandomState(0).standard_normal((5, 4)))
    for v in (0.01, 1.0, 50.0):
        _, divergence = field(posterior, 0.7, 2, r=4).with_divergence(x, v)
        expected = -np.sum(1 / (np.array([0.1, 0.5, 1.0, 2.0]) + v))
        np.testing.assert_allclose(divergence, expected, rtol=1e-10)


@every_posterior
def test_divergence_converges_to_that_of_the_trace(make):
    """Against 16384 nodes with traces: 22 rotations for 4, so the error is 0.43 times as large."""
    posterior, v, sigma = make(), 0.2, 0.5
    x = torch.tensor(np.random.RandomState(1).standard_normal((20, 3)))
    offsets, weights = gaussian_frames(3, 2**14, 0, 9)
    nodes = Nodes.from_arrays(sigma * offsets, weights, CPU)
    _, expected = SmoothedScore(posterior, nodes).with_divergence(x, v)
    errors = []
    for n_nodes in (64, 640):
        found = [
            field(posterior, sigma, n_nodes, level).with_divergence(x, v)[1] for level in range(8)
        ]
        errors.append(float((torch.stack(found) - expected).square().mean().sqrt()))
    assert errors[1] < errors[0] / 2


def test_frames_are_unbiased():
    """The mean over 1000 levels of a single rotation, within five standard errors."""
    posterior, v, sigma = points_posterior(30, 3), 0.4, 0.5
    x = torch.tensor(np.random.RandomState(1).standard_normal((4, 3)))
    offsets, weights = gaussian_frames(3, 2**14, 0, 9)
    nodes = Nodes.from_arrays(sigma * offsets, weights, CPU)
    _, expected = SmoothedScore(posterior, nodes).with_divergence(x, v)
    found = torch.stack(
        [field(posterior, sigma, 2, level).with_divergence(x, v)[1] for level in range(1000)]
    )
    # Three radii are a rule of degree eleven: their own error is far below.
    error = (found.mean(0) - expected).abs()
    assert bool((error < 5 * found.std(0) / math.sqrt(1000) + 2e-3).all())


@pytest.mark.parametrize("v", [0.05, 1.0, 20.0, 500.0])
def test_single_precision(v):
    """Within some thousandths of a nat in v div s; at the largest noise the trace is computed."""
    x = np.random.RandomState(1).standard_normal((7, 3))
    results = [
        v
        * field(points_posterior(backend=backend), 0.4, 64, backend=backend)
        .with_divergence(backend.tensor(x), v)[1]
        .double()
        for backend in (CPU, SINGLE)
    ]
    torch.testing.assert_close(*results, rtol=0, atol=5e-3)


def test_tiles_change_nothing():
    x = torch.tensor(np.random.RandomState(1).standard_normal((50, 3)))
    whole, tiled = (
        field(points_posterior(2000, memory_limit=limit), 0.4, 512).with_divergence(x, 0.1)
        for limit in (64, 0.5)
    )
    for one, other in zip(whole, tiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
