"""Tests of the radially symmetric kernels: profiles, normalisers, sampling.

The expected values come from the textbook formulas below, from scipy's quadrature and from
scikit-learn, never from the module under test.

The statistical tests draw N_DRAWS times from a fixed seed, the dimension, so they always give the
same answer. With a fresh seed a Kolmogorov-Smirnov (KS) test would fail a correct sampler with
probability FALSE_ALARM. Each is paired with a mutant that it must catch.
"""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from sklearn.neighbors import KernelDensity

from skdiffsmooth._engine.radial_kernels import RADIAL_KERNELS, sample_offsets

LOG_PROFILES = oracles.log_profiles(np)
COMPACT = {"tophat", "epanechnikov", "linear", "cosine"}
KINKED = {"exponential", "linear"}

FALSE_ALARM = 1e-4
N_DRAWS = 20_000

every_kernel = pytest.mark.parametrize("name", LOG_PROFILES)


def tensor(*u, dtype=torch.float64, **kwargs):
    return torch.tensor(u, dtype=dtype, **kwargs)


def log_radial_density(name, d, u):
    """log of u^(d-1) K(u), the unnormalised density of the radius."""
    return special.xlogy(d - 1, u) + LOG_PROFILES[name](u)


def radial_range(name, d):
    """Interval outside which the radius has a probability below 1e-20."""
    if name in COMPACT:
        return max(0.0, 1 - 60 / d), 1.0
    if name == "gaussian":
        return max(0.0, math.sqrt(d) - 12), math.sqrt(d) + 12
    return max(0.0, d - 14 * math.sqrt(d)), d + 14 * math.sqrt(d) + 60


def radial_cdf(name, d):
    """CDF of the radius by Simpson's rule; its error is far below 1 / sqrt(N_DRAWS)."""
    u = np.linspace(*radial_range(name, d), 20_001)
    with np.errstate(divide="ignore"):  # log 0 at the edge of the support
        log_density = log_radial_density(name, d, u)
    mass = integrate.cumulative_simpson(np.exp(log_density - log_density.max()), x=u, initial=0)
    return lambda x: np.interp(x, u, mass / mass[-1])


def test_registry():
    assert set(RADIAL_KERNELS) == set(LOG_PROFILES)
    assert all(kernel.name == name for name, kernel in RADIAL_KERNELS.items())
    assert {name for name, kernel in RADIAL_KERNELS.items() if kernel.is_compact} == COMPACT


# ------------------------------------------------------------------------------------ profiles


@every_kernel
@settings(deadline=None)  # the first call of a torch function can take a second
@given(data=st.data())
def test_profile_is_the_textbook_formula(name, data):
    """Compared as K, not log K: near the edge it is the textbook formula that lacks digits.

    The tolerance is for rounding: a few units in the last place of K(0) = 1.
    """
    u = data.draw(st.floats(0, 1, exclude_max=True) if name in COMPACT else st.floats(0, 1e3))
    log_profile = RADIAL_KERNELS[name].log_profile(tensor(u)).item()
    assert math.exp(log_profile) == pytest.approx(math.exp(LOG_PROFILES[name](u)), abs=1e-15)


@pytest.mark.parametrize(
    ("name", "slope_at_edge"), [("epanechnikov", 2), ("linear", 1), ("cosine", math.pi / 2)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_profile_keeps_its_digits_at_the_edge(name, slope_at_edge, dtype):
    """K(1 - v) = slope * v to first order in v, here the machine epsilon; the tolerance is O(v)."""
    v = torch.finfo(dtype).eps
    log_profile = RADIAL_KERNELS[name].log_profile(tensor(1 - v, dtype=dtype)).item()
    assert log_profile == pytest.approx(math.log(slope_at_edge * v), rel=2 * v)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_distances(name, dtype):
    """No NaN or misplaced infinity at any u >= 0, and a NaN distance is not hidden."""
    kernel = RADIAL_KERNELS[name]
    below_one = 1 - torch.finfo(dtype).eps / 2
    tiny = torch.finfo(dtype).tiny
    u = tensor(0, tiny / 4, tiny, below_one, 1, 2, torch.finfo(dtype).max, math.inf, dtype=dtype)
    log_profile, slope = kernel.log_profile(u), kernel.profile_slope(u)
    assert log_profile.dtype == slope.dtype == dtype
    assert torch.isfinite(log_profile[:4]).all()
    assert torch.isfinite(slope).all()
    assert log_profile[0] == 0
    assert (slope[0] == 0) == (name in KINKED or name == "tophat")
    assert log_profile[-1] == -math.inf
    if name in COMPACT:
        assert (log_profile[4:] == -math.inf).all()
        assert (slope[4:] == 0).all()
    assert torch.isnan(kernel.log_profile(tensor(math.nan))).all()


@every_kernel
@settings(deadline=None)  # the first call of a torch function can take a second
@given(data=st.data())
def test_slope_is_the_derivative(name, data):
    """Against autograd, which loses digits to cancellation: eps / u, so 2e-12 at u = 1e-4."""
    kernel = RADIAL_KERNELS[name]
    u = tensor(data.draw(st.floats(1e-4, 1 - 1e-9 if name in COMPACT else 1e3)), requires_grad=True)
    (derivative,) = torch.autograd.grad(kernel.log_profile(u).sum(), u)
    torch.testing.assert_close(kernel.profile_slope(u) * u, derivative, rtol=1e-11, atol=0)


@every_kernel
def test_slope_near_the_centre(name):
    """The limits at u -> 0, by hand: (d log K / du) / u, or d log K / du = -1 at a kink."""
    u = tensor(1e-300, 1e-9)
    slope = RADIAL_KERNELS[name].profile_slope(u)
    # The next term of each expansion is of relative order u, which the tolerance allows for.
    limits = {"gaussian": -1, "tophat": 0, "epanechnikov": -2, "cosine": -(math.pi**2) / 4}
    expected = -1 / u if name in KINKED else torch.full_like(u, limits[name])
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=0)


@every_kernel
def test_slope_gives_the_gradient_in_space(name):
    h, centre = 0.7, tensor(0.3, -0.2, 0.1)
    x = tensor(0.5, 0.1, 0.2, requires_grad=True)
    kernel = RADIAL_KERNELS[name]
    u = torch.linalg.vector_norm(x - centre) / h
    (gradient,) = torch.autograd.grad(kernel.log_profile(u), x)
    torch.testing.assert_close(kernel.profile_slope(u) * (x - centre) / h**2, gradient)


@every_kernel
def test_autograd_is_finite_everywhere(name):
    """Masked values must not leak NaN into the gradients of either function."""
    kernel = RADIAL_KERNELS[name]
    u = tensor(0, 0.5, 1, 2, 1e300, requires_grad=True)
    for function in (kernel.log_profile, kernel.profile_slope):
        (gradient,) = torch.autograd.grad((function(u) + 0 * u).sum(), u)
        assert torch.isfinite(gradient).all()


# --------------------------------------------------------------------------------- normalisers


@every_kernel
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 7, 10, 50, 300, 10_000])
def test_normalizer_against_quadrature(name, d):
    """Sphere area times the radial integral, scaled by its peak to fit in a float at any d.

    The tolerance is the quadrature's, plus 1e-11 for the rounding of exponents of 1e5 at d = 1e4.
    """
    lower, upper = radial_range(name, d)
    breaks = np.linspace(lower, upper, 42)[1:-1]
    peak = log_radial_density(name, d, breaks).max()
    integral, _ = integrate.quad(
        lambda u: math.exp(log_radial_density(name, d, u) - peak) / (upper - lower),
        *(lower, upper),
        points=breaks,
        limit=500,
        epsabs=1e-13,
        epsrel=1e-11,
    )
    log_area = math.log(2) + d / 2 * math.log(math.pi) - special.gammaln(d / 2)
    expected = log_area + peak + math.log(integral * (upper - lower))
    # A relative 1e-10 of the integral is an absolute 1e-10 of its logarithm.
    assert RADIAL_KERNELS[name].log_normalizer(d) == pytest.approx(expected, rel=0, abs=1e-10)


@pytest.mark.parametrize(
    ("d", "integral"),
    [
        (1, 4 / math.pi),
        (2, 4 - 8 / math.pi),
        (3, 8 * (1 - 8 / math.pi**2)),
        (4, 4 * math.pi - 96 / math.pi + 192 / math.pi**2),
    ],
)
def test_cosine_normalizer_by_hand(d, integral):
    """Sphere area times int_0^1 u^(d-1) cos(pi u / 2) du, integrated by parts."""
    assert RADIAL_KERNELS["cosine"].log_normalizer(d) == pytest.approx(
        math.log(integral), rel=1e-13
    )


# scikit-learn 1.9's cosine is wrong in even dimensions, and right to 1e-10 in odd ones only to 9.
@pytest.mark.parametrize(
    ("name", "d"),
    [
        (name, d)
        for name in LOG_PROFILES
        for d in ([1, 3, 5, 7, 9] if name == "cosine" else [1, 2, 3, 4, 9, 40])
    ],
)
def test_density_against_sklearn(name, d):
    h, u = 0.7, np.array([0, 0.1, 0.5, 0.9, 0.99, 1.3, 5])
    # Along an axis, so that scikit-learn sees the distance h u without a rounding of its own.
    reference = KernelDensity(kernel=name, bandwidth=h, leaf_size=1, atol=0, rtol=0)
    expected = reference.fit(np.zeros((1, d))).score_samples(np.outer(h * u, np.eye(d)[0]))
    kernel = RADIAL_KERNELS[name]
    log_density = kernel.log_profile(torch.tensor(u)) - kernel.log_normalizer(d) - d * math.log(h)
    np.testing.assert_allclose(log_density.numpy(), expected, rtol=0, atol=1e-10)


@every_kernel
@pytest.mark.parametrize("h", [1.0, 0.3, 0.7, 1e-3])
def test_support_ends_where_sklearn_ends_it(name, h):
    dist = np.array([np.nextafter(h, 0), h, np.nextafter(h, np.inf)])
    reference = KernelDensity(kernel=name, bandwidth=h, leaf_size=1).fit([[0.0]])
    expected = reference.score_samples(dist[:, np.newaxis]) > -np.inf
    inside = RADIAL_KERNELS[name].log_profile(torch.tensor(dist) / h) > -math.inf
    np.testing.assert_array_equal(inside.numpy(), expected)
    assert inside.tolist() == ([True, False, False] if name in COMPACT else [True] * 3)


# ------------------------------------------------------------------------------------ sampling


@every_kernel
@pytest.mark.parametrize("d", [1, 2, 3, 10, 100])
def test_radius_law(name, d):
    """A KS test; with a fresh seed a correct sampler fails it once in 10 000 (FALSE_ALARM)."""
    radius = RADIAL_KERNELS[name].sample_radius(np.random.RandomState(d), N_DRAWS, d)
    assert radius.shape == (N_DRAWS,)
    assert stats.kstest(radius, radial_cdf(name, d)).pvalue > FALSE_ALARM


@every_kernel
@pytest.mark.parametrize("d", [2, 3, 10])
def test_radius_law_detects_a_wrong_dimension(name, d):
    """The mutant, radii for d - 1 dimensions, fails test_radius_law; 30 other seeds: p < 1e-20."""
    mutant = RADIAL_KERNELS[name].sample_radius(np.random.RandomState(d), N_DRAWS, d - 1)
    assert stats.kstest(mutant, radial_cdf(name, d)).pvalue < FALSE_ALARM


@pytest.mark.parametrize("d", [1, 2, 3])
def test_radius_law_detects_a_missing_rejection(d):
    """The mutant, the cosine's proposals all accepted, fails too; 30 other seeds: p < 1e-11."""
    mutant = RADIAL_KERNELS["linear"].sample_radius(np.random.RandomState(d), N_DRAWS, d)
    assert stats.kstest(mutant, radial_cdf("cosine", d)).pvalue < FALSE_ALARM


def direction_pvalue(offsets, axis):
    """KS p-value of the directions' projections on a unit axis, for uniform directions.

    If w is uniform on the unit sphere of R^d, (1 + <axis, w>) / 2 is Beta((d-1)/2, (d-1)/2).
    """
    half = (offsets.shape[1] - 1) / 2
    directions = offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
    return stats.kstest((1 + directions @ axis) / 2, stats.beta(half, half).cdf).pvalue


def probe_axes(d):
    """A coordinate axis and the main diagonal."""
    return np.eye(d)[0], np.full(d, d**-0.5)


@every_kernel
@pytest.mark.parametrize("d", [2, 3, 10])
def test_offsets_have_the_radius_law_in_every_direction(name, d):
    """Seven KS tests at FALSE_ALARM each: a fresh seed fails at most 7 times in 10 000.

    The far half is tested apart from the near one: the direction must not depend on the radius.
    """
    offsets = sample_offsets(RADIAL_KERNELS[name], np.random.RandomState(d), N_DRAWS, d)
    assert offsets.shape == (N_DRAWS, d)
    radius = np.linalg.norm(offsets, axis=1)
    far = radius > np.median(radius)
    assert stats.kstest(radius, radial_cdf(name, d)).pvalue > FALSE_ALARM
    for axis in probe_axes(d):
        for part in (offsets, offsets[far], offsets[~far]):
            assert direction_pvalue(part, axis) > FALSE_ALARM


@pytest.mark.parametrize("d", [2, 3, 10])
def test_direction_test_detects_a_cube(d):
    """The mutant, directions of points of a cube, fails on an axis; 30 other seeds: p < 1e-10."""
    mutant = np.random.RandomState(d).uniform(-1, 1, (N_DRAWS, d))
    assert min(direction_pvalue(mutant, axis) for axis in probe_axes(d)) < FALSE_ALARM


@every_kernel
def test_offsets_on_the_line(name):
    """The direction is a fair sign. Two tests: a fresh seed fails at most 2 times in 10 000."""
    offsets = sample_offsets(RADIAL_KERNELS[name], np.random.RandomState(1), N_DRAWS, 1)[:, 0]
    n_positive = int((offsets > 0).sum())
    assert stats.binomtest(n_positive, N_DRAWS).pvalue > FALSE_ALARM
    assert stats.kstest(abs(offsets), radial_cdf(name, 1)).pvalue > FALSE_ALARM


@every_kernel
@pytest.mark.parametrize("n", [0, 1, 5])
def test_offsets_shape_and_reproducibility(name, n):
    first, again = (
        sample_offsets(RADIAL_KERNELS[name], np.random.RandomState(7), n, 3) for _ in range(2)
    )
    assert first.shape == (n, 3)
    np.testing.assert_array_equal(first, again)


@every_kernel
def test_sampling_in_high_dimension(name):
    """At d = 10 000 the radius concentrates; false alarms of radial_range: below 20 in 1e20."""
    d = 10_000
    offsets = sample_offsets(RADIAL_KERNELS[name], np.random.RandomState(0), 20, d)
    lower, upper = radial_range(name, d)
    radius = np.linalg.norm(offsets, axis=1)
    assert ((lower <= radius) & (radius <= upper)).all()
