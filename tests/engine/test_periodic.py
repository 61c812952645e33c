"""The posterior on circles against sums over so many images that the rest is below rounding."""

import functools

import numpy as np
import pytest
import torch

from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.periodic import PeriodicPosterior
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth._engine.torus import TorusPosterior
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth._utils.kernel_weights import log_wrapped_kernel
from skdiffsmooth._utils.periods import wrapped

BACKEND = Backend(torch.device("cpu"), torch.float64)
PERIODS = np.array([0.0, 2.0, 0.7])
# Images up to so many periods: at noise scales below a period others are below 1e-16.
N_IMAGES = 9


def data(n, seed=0):
    rng = np.random.RandomState(seed)
    points = np.column_stack(
        [rng.normal(size=n), rng.uniform(-1, 1, n), rng.uniform(-0.35, 0.35, n)]
    )
    weights = rng.uniform(0.2, 1, size=n)
    return points, weights / weights.sum(), rng


def by_all_images(points, weights, y, v, exclude=None):
    """Return log-density, mean, trace and weights of the points, for one query, by a loop."""
    k = np.arange(-N_IMAGES, N_IMAGES + 1)
    shifts = np.array([(0.0, i * PERIODS[1], j * PERIODS[2]) for i in k for j in k])
    images = (points[:, None] + shifts).reshape(-1, 3)
    rows = np.repeat(np.arange(len(points)), len(shifts))
    log_weights = np.log(weights)[rows]
    if exclude is not None:
        log_weights = np.where(rows == exclude, -np.inf, log_weights - np.log(1 - weights[exclude]))
    logits = log_weights - np.sum((y - images) ** 2, axis=1) / (2 * v)
    top = logits.max()
    masses = np.exp(logits - top)
    log_density = top + np.log(masses.sum()) - 1.5 * np.log(2 * np.pi * v)
    masses /= masses.sum()
    mean = masses @ images
    covariance = (masses[:, None] * (images - mean)).T @ (images - mean)
    return log_density, mean, covariance, np.bincount(rows, masses)


@pytest.mark.parametrize("scale", [0.003, 0.1, 0.6])
@pytest.mark.parametrize("n", [5, 200])
@pytest.mark.parametrize("is_excluding", [False, True])
def test_moments_are_those_of_all_images(scale, n, is_excluding):
    points, weights, rng = data(n)
    x = rng.uniform(-3, 3, size=(4, 3))
    x[:2] = points[:2] + [0.0, 4.0, -0.7]  # near data, periods away, where few images matter
    exclude = np.array([0, 1, 2, 3]) if is_excluding else None
    offsets = scale * np.array([[0.5, 0.1, -0.2], [-0.5, -0.1, 0.2]])
    nodes = Nodes.from_arrays(offsets, np.array([0.5, 0.5]), BACKEND)
    posterior = PeriodicPosterior(points, weights, PERIODS, BACKEND, memory_limit=64)
    index = None if exclude is None else torch.from_numpy(exclude)
    found = posterior.moments(torch.from_numpy(x), scale**2, nodes, trace=True, exclude=index)
    density = posterior.log_density(torch.from_numpy(x), scale**2, exclude=index)
    for b, y in enumerate(x):
        excluded = None if exclude is None else exclude[b]
        parts = [by_all_images(points, weights, y + xi, scale**2, excluded) for xi in offsets]
        alone = by_all_images(points, weights, y, scale**2, excluded)[0]
        # Images that are left out add 1e-10 of each kernel; far from all points at small noise exponents
        # are millions of nats, of which float64 keeps sixteen digits.
        assert density[b].item() == pytest.approx(alone, rel=1e-12, abs=1e-9)
        assert found.log_density[b].item() == pytest.approx(
            np.mean([part[0] for part in parts]), rel=1e-12, abs=1e-9
        )
        mean = np.mean([part[1] for part in parts], axis=0)
        np.testing.assert_allclose(found.mean[b].numpy(), mean, atol=1e-8)
        trace = np.mean([np.trace(part[2]) for part in parts])
        assert found.trace[b].item() == pytest.approx(trace, abs=1e-8 * (1 + scale**2))


def test_a_coordinate_is_uniform_where_noise_exceeds_its_period():
    points, weights, rng = data(30)
    x = torch.from_numpy(rng.uniform(-3, 3, size=(5, 3)))
    v = 0.8**2  # above the period of 0.7, below that of 2
    posterior = PeriodicPosterior(points, weights, PERIODS, BACKEND, memory_limit=64)
    found = posterior.moments(x, v, Nodes.single(x), trace=True)
    for b, y in enumerate(x.numpy()):
        log_density, mean, covariance, _ = by_all_images(points, weights, y, v)
        # The kernel is uniform up to a share of 2 exp(-2 pi^2 (0.8 / 0.7)^2) = 1e-11.
        assert found.log_density[b].item() == pytest.approx(log_density, abs=1e-9)
        np.testing.assert_allclose(found.mean[b].numpy(), mean, atol=1e-8)
        assert found.mean[b, 2] == x[b, 2]
        assert found.trace[b].item() == pytest.approx(np.trace(covariance), abs=1e-8)
    everywhere = posterior.moments(x, 9.0, Nodes.single(x), trace=True)
    line = Posterior(
        torch.from_numpy(points[:, :1]), torch.from_numpy(np.log(weights)), memory_limit=64
    )
    alone = line.log_density(x[:, :1], 9.0) - np.log(2.0 * 0.7)
    np.testing.assert_allclose(everywhere.log_density.numpy(), alone.numpy(), rtol=1e-14)
    circles = PeriodicPosterior(points[:, 1:], weights, PERIODS[1:], BACKEND, memory_limit=64)
    all_uniform = circles.moments(x[:, 1:], 9.0, Nodes.single(x[:, 1:]), trace=True)
    np.testing.assert_allclose(all_uniform.log_density.numpy(), -np.log(1.4), rtol=1e-14)
    assert torch.equal(all_uniform.mean, x[:, 1:])
    np.testing.assert_allclose(all_uniform.trace.numpy(), 18.0)


@pytest.mark.parametrize("scale", [0.1, 0.9, 3.0])
def test_covariances_and_influence_are_sums_over_images(scale):
    points, weights, rng = data(20)
    x = rng.uniform(-1, 1, size=(3, 3))
    directions = torch.from_numpy(rng.normal(size=(3, 3, 2)))
    posterior = PeriodicPosterior(points, weights, PERIODS, BACKEND, memory_limit=64)
    single = posterior.covariance_along(torch.from_numpy(x), scale**2, directions)
    influence = posterior.influence(
        torch.from_numpy(x)[:, None], scale**2, torch.ones(1, dtype=torch.float64)
    )
    for b, y in enumerate(x):
        # Up to 9 images of the smaller period are enough here only below three periods.
        _, _, covariance, masses = by_all_images(points, weights, y, min(scale, 0.9) ** 2)
        if scale < 1:
            np.testing.assert_allclose(
                single.along[b].numpy(), covariance @ directions[b].numpy(), atol=1e-8
            )
            np.testing.assert_allclose(influence.weights[b].numpy(), masses, atol=1e-9)
            np.testing.assert_allclose(
                influence.derivatives[b].numpy().sum(axis=0)[0], 0, atol=1e-9
            )
        np.testing.assert_allclose(influence.weights[b].sum(), 1, rtol=1e-12)
    # Sums over images and products leave out other images.
    mean = posterior.moments(*_single(x, scale)).mean
    np.testing.assert_allclose(mean, single.mean, rtol=1e-8, atol=1e-9)


def _single(x, scale):
    tensor = torch.from_numpy(x)
    return tensor, scale**2, Nodes.single(tensor)


def test_means_follow_nodes_that_are_periods_away():
    points, weights, rng = data(20)
    x = torch.from_numpy(rng.uniform(-3, 3, size=(4, 3)))
    posterior = PeriodicPosterior(points, weights, PERIODS, BACKEND, memory_limit=64)
    # One node, since whole periods of nodes with mirror images cancel.
    offset = np.array([[0.2, 5.3, -2.9]])
    nodes = Nodes.from_arrays(offset, np.ones(1), BACKEND)
    moved = x + torch.from_numpy(offset)
    expected = posterior.moments(moved, 0.04, Nodes.single(moved)).mean
    mean = posterior.moments(x, 0.04, nodes).mean
    np.testing.assert_allclose(mean.numpy(), expected.numpy(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("ratio", [1e-3, 0.1, 0.5, 0.999, 1.001, 3.0])
def test_wrapped_kernel_is_the_sum_over_images(ratio):
    u = wrapped(np.linspace(-3, 3, 25), 2.0)
    k = np.arange(-40, 41)
    exponents = -((u[:, None] + 2.0 * k) ** 2) / (2 * (2.0 * ratio) ** 2)
    top = exponents.max(axis=1)
    expected = top + np.log(np.exp(exponents - top[:, None]).sum(axis=1))
    # Above one period the kernel is uniform up to 2 exp(-2 pi^2).
    tolerance = 1e-8 if ratio > 1 else 1e-9
    np.testing.assert_allclose(log_wrapped_kernel(u, 2.0, 2.0 * ratio), expected, atol=tolerance)


@pytest.mark.parametrize("by", ["moments", "stein"])
@pytest.mark.parametrize("scale", [0.003, 0.1, 0.17, 0.18, 0.6, 0.8])
def test_products_are_the_sums_over_images(scale, by):
    """Both ways, on each side of the scales of 0.7 / 4, 0.7 and 2 / 4 where the series changes."""
    points, weights, rng = data(20)
    x, exclude = torch.from_numpy(rng.uniform(-3, 3, size=(4, 3))), torch.arange(4)
    x[0] = torch.from_numpy(points[0])
    offsets = scale * np.array([[0.5, 0.1, -0.2], [-0.5, -0.1, 0.2]])
    # Any factors with the mean zero: both ways multiply log-densities by them.
    factors = np.array([0.7, -0.7]) / scale**2 if by == "stein" else None
    nodes = Nodes.from_arrays(offsets, np.array([0.5, 0.5]), BACKEND, factors)
    weights_of_traces = np.array([0.5, 2.0, 3.0]) if by == "moments" else np.ones(3)
    own = {"memory_limit": 64, "trace_weights": weights_of_traces}
    torus, images = (
        kind(points, weights, PERIODS, BACKEND, **own)
        for kind in (TorusPosterior, PeriodicPosterior)
    )
    found, expected = (
        each.moments(x, scale**2, nodes, trace=True, exclude=exclude) for each in (torus, images)
    )
    # Images that are left out add 1e-10 of each kernel; exponents may be millions of nats.
    assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-8)
    for name in ("mean", "trace", "log_density"):
        assert_close(getattr(found, name), getattr(expected, name), err_msg=name)


def test_many_circles_are_products():
    """Densities of nine circles are those of the factors, where there is one point."""
    point, periods = np.linspace(-0.4, 0.4, 9)[None], np.linspace(0.9, 3.0, 9)
    posterior = PeriodicPosterior(point, np.ones(1), periods, BACKEND, memory_limit=64)
    x = np.random.RandomState(0).uniform(-1, 1, size=(5, 9))
    for scale in (0.02, 0.3, 1.5):
        expected = np.zeros(5)
        for j, period in enumerate(periods):
            u = wrapped(x[:, j] - point[0, j], period)
            expected += log_wrapped_kernel(u, period, scale) - np.log(np.sqrt(2 * np.pi) * scale)
        found = posterior.log_density(torch.from_numpy(x), scale**2)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("n_nodes", [1, 10, 100])
def test_parts_of_products_fit_into_the_memory(n_nodes):
    points, weights, _ = data(20)
    posterior = TorusPosterior(points, weights, PERIODS, BACKEND, memory_limit=1.0)
    parts = posterior._parts(1000, n_nodes)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    most = max(part.stop - part.start for part in parts)
    # Of each query, node and point at least a shift for each column, a weight and a log-density.
    assert most == 1 or 8 * most * n_nodes * len(posterior) * (len(PERIODS) + 2) <= 2**20
