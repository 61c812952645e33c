"""Mixtures of radial kernels, their gradients, marginals and offsets, by definition and quadrature."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import kve

from skdiffsmooth._engine import radial_marginal, radial_mixture
from skdiffsmooth._engine.radial_kernels import RADIAL_KERNELS
from skdiffsmooth._engine.radial_marginal import log_marginal_kernel, sample_free_offsets
from skdiffsmooth._engine.radial_mixture import RadialMixture


def case(kernel, h=1.3, memory_limit=64.0, n=6, d=2):
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(n, d)), rng.dirichlet(np.ones(n))
    own = RadialMixture(
        *map(torch.from_numpy, (points, np.log(weights))),
        RADIAL_KERNELS[kernel],
        h,
        memory_limit=memory_limit,
    )
    x = points[rng.integers(n, size=5)] + 0.3 * rng.normal(size=(5, d))
    return own, points, weights, x


def log_density(kernel, points, weights, x, h):
    """Return log sum_i w_i K(|x - x_i| / h) / h^d at one x."""
    own, d = RADIAL_KERNELS[kernel], len(x)
    rho = np.linalg.norm(x - points, axis=1) / h
    log_kernel = own.log_profile(torch.from_numpy(rho)).numpy() - own.log_normalizer(d)
    return np.logaddexp.reduce(np.log(weights) + log_kernel) - d * math.log(h)


@pytest.mark.parametrize("kernel", RADIAL_KERNELS)
@pytest.mark.parametrize("memory_limit", [64.0, 0.001])
def test_densities_and_gradients(kernel, memory_limit):
    own, points, weights, x = case(kernel, memory_limit=memory_limit)
    found = own.log_density(torch.from_numpy(x))
    assert_allclose(found, [log_density(kernel, points, weights, y, 1.3) for y in x], rtol=1e-9)
    left = np.array([0, 5, 2, 3, 3])
    found = own.log_density(torch.from_numpy(x), exclude=torch.from_numpy(left))
    for b, i in enumerate(left):
        others = np.delete(weights, i) / np.delete(weights, i).sum()
        expected = log_density(kernel, np.delete(points, i, axis=0), others, x[b], 1.3)
        assert found[b] == pytest.approx(expected, rel=1e-9)
    gradient, step = own.gradient(torch.from_numpy(x)).numpy(), 1e-6
    for b in range(5):
        for j in range(2):
            ends = [x[b] + sign * step * np.eye(2)[j] for sign in (1, -1)]
            high, low = (log_density(kernel, points, weights, end, 1.3) for end in ends)
            assert gradient[b, j] == pytest.approx((high - low) / (2 * step), abs=1e-5)


def test_densities_beyond_the_support():
    own, *_ = case("epanechnikov")
    far = torch.tensor([[50.0, 0.0]]).double()
    assert own.log_density(far)[0] == -math.inf
    assert own.gradient(far).isnan().all()


@pytest.mark.parametrize("kernel", RADIAL_KERNELS)
@pytest.mark.parametrize("n_free", [1, 2, 3])
def test_marginals_are_integrals(kernel, n_free):
    own, d = RADIAL_KERNELS[kernel], n_free + 1
    area = {1: 2.0, 2: 2 * math.pi, 3: 4 * math.pi}[n_free]
    rho = np.array([0.0, 0.4, 0.95])
    found = log_marginal_kernel(own, rho, d, n_free)
    for at, value in zip(rho, found, strict=True):

        def integrand(r, at=at):
            profile = own.log_profile(torch.tensor([math.hypot(at, r)]).double())
            return r ** (n_free - 1) * math.exp(float(profile[0]))

        last = math.sqrt(1 - at**2) if own.is_compact else 30.0
        expected = area * quad(integrand, 0, last, limit=40, epsrel=1e-6)[0]
        expected = math.log(expected) - own.log_normalizer(d)
        # Profiles with a kink at the center, or an exponential one, are harder.
        assert value == pytest.approx(expected, abs=1e-3)
    if own.is_compact:
        edges = log_marginal_kernel(own, np.array([np.nextafter(1, 0), 1.0, 1.5]), d, n_free)
        assert (edges[1:] == -np.inf).all()
        assert edges[0] < -15


@pytest.mark.parametrize("n_free", [1, 3])
def test_marginals_of_exponential_kernels_to_any_distance(n_free):
    """They are Bessel functions: the integral of exp(-sqrt(rho^2 + r^2)) over r is rho K_1(rho)."""
    own, rho = RADIAL_KERNELS["exponential"], np.array([0.01, 1.0, 10.0, 1e3, 1e6])
    found = log_marginal_kernel(own, rho, n_free + 1, n_free)
    # In three free columns 4 pi times rho^2 K_2(rho).
    if n_free == 1:
        expected = np.log(2 * rho * kve(1, rho)) - rho
    else:
        expected = np.log(4 * math.pi * rho**2 * kve(2, rho)) - rho
    assert_allclose(found, expected - own.log_normalizer(n_free + 1), rtol=1e-9, atol=1e-4)


def test_the_largest_radius():
    """Where a compact kernel ends; otherwise where fifty nats and two a dimension are lost."""
    ball = radial_marginal._largest_radius(RADIAL_KERNELS["tophat"], np.array([0.0, 0.6, 1.0]), 2)
    assert_allclose(ball, [1.0, 0.8, 0.0])
    kernel, rho = RADIAL_KERNELS["exponential"], np.array([0.0, 3.0, 1e6])
    found = radial_marginal._largest_radius(kernel, rho, 3)
    assert_allclose(np.hypot(rho, found) - rho, 56.0, rtol=1e-9)


@pytest.mark.parametrize("kernel", ["tophat", "gaussian", "exponential"])
@pytest.mark.parametrize("n_free", [1, 2, 3])
def test_offsets_are_quantiles_of_the_integrand(kernel, n_free):
    """With given uniform numbers and directions."""

    class Given:
        def __init__(self):
            self.draws = [np.array([0.1, 0.5, 0.9]), np.array([0.5, 0.5, 0.5])]

        def uniform(self, size):
            assert size == 3
            return self.draws.pop(0)

        def standard_normal(self, size):
            assert size == (3, n_free)
            return np.tile(np.arange(1.0, n_free + 1), (3, 1)) * [[1], [-1], [2]]

    own, rho = RADIAL_KERNELS[kernel], np.array([0.3, 0.6, 0.3])
    offsets = sample_free_offsets(own, Given(), rho, n_free)
    length = np.linalg.norm(offsets, axis=1)
    unit = np.arange(1.0, n_free + 1) / math.sqrt(sum(k * k for k in range(1, n_free + 1)))
    assert_allclose(offsets / length[:, None], unit * np.array([[1], [-1], [1]]), rtol=1e-12)
    for at, r, u in zip(rho, length, (0.1, 0.5, 0.9), strict=True):
        last = math.sqrt(1 - at**2) if own.is_compact else 20.0
        edges = np.linspace(0, last, 100_001)
        middle = (edges[1:] + edges[:-1]) / 2
        profile = own.log_profile(torch.from_numpy(np.hypot(at, middle))).numpy()
        cumulated = np.cumsum(middle ** (n_free - 1) * np.exp(profile))
        below = np.interp(r, middle, cumulated / cumulated[-1])
        # A cell of the table is a 512th of the range.
        assert below == pytest.approx(u, abs=0.05 if kernel == "gaussian" else 0.08)


def test_queries_at_once_stay_in_the_cache():
    for n, expected in ((100, 2621), (2**18, 1), (2**19, 1)):
        own = RadialMixture(
            torch.zeros(n, 1).double(),
            torch.zeros(n).double(),
            RADIAL_KERNELS["gaussian"],
            1.0,
            memory_limit=2.0**14,
        )
        assert own._rows == expected
    assert radial_mixture._TILE == 2**18
