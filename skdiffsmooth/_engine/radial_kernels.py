"""Radially symmetric kernels for kernel density estimation.

Profiles, normalisers in any dimension, and exact sampling, for the six kernels of
:class:`sklearn.neighbors.KernelDensity`. With ``u = |x - x_i| / h`` the distance to a data point
in units of the bandwidth, each point of a sample in R^d contributes the log density ::

    log_profile(u) - log_normalizer(d) - d log(h)

A compact kernel is zero from ``u = 1`` on, the edge included, as in scikit-learn, which tests
``dist < h``. Rounded to nearest, ``dist / h < 1`` holds exactly when ``dist < h`` does, so compute
``u`` by a division; ``dist * (1 / h)`` can move a point across the edge.

References
----------
The profiles are those of the scikit-learn user guide, "Kernel Density Estimation". Kernels and
normalisers in d dimensions: B. W. Silverman, *Density Estimation for Statistics and Data
Analysis*, Chapman & Hall, 1986, chapter 4. Rejection and uniform directions: L. Devroye,
*Non-Uniform Random Variate Generation*, Springer, 1986, sections II.3 and V.4.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch

from .._utils.gaussian import gaussian_log_normalizer


class RadialKernel(ABC):
    """A kernel K on R^d that depends on the length of its argument alone, with K(0) = 1."""

    name: ClassVar[str]  # The name of the kernel in scikit-learn
    is_compact: ClassVar[bool] = False  # Whether K(u) = 0 for every u >= 1

    @abstractmethod
    def log_profile(self, u: torch.Tensor) -> torch.Tensor:
        """Return log K(u), or -inf if K(u) = 0, for distances u >= 0 in units of the bandwidth."""

    @abstractmethod
    def profile_slope(self, u: torch.Tensor) -> torch.Tensor:
        """Return g(u) = (d log K / du) / u, which times a displacement is the gradient of log K.

        That is, grad_x log K(|x - x_i| / h) = g(u) (x - x_i) / h^2. The result is finite: it is 0
        outside the support, and 0 at u = 0 where the kernel has a kink, the mean of the one-sided
        gradients.
        """

    @abstractmethod
    def log_normalizer(self, d: int) -> float:
        """Return the log of the integral of K(|x|) over R^d, precise in every dimension d >= 1."""

    @abstractmethod
    def sample_radius(self, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
        """Draw n radii, in bandwidths, from the density proportional to u^(d-1) K(u)."""


class _CompactKernel(RadialKernel):
    """A kernel that is zero for u >= 1; subclasses give the formulas for u < 1."""

    is_compact = True

    def log_profile(self, u: torch.Tensor) -> torch.Tensor:
        # Masked before the formula as well as after, so that no NaN arises outside the support,
        # neither in the value nor in what autograd sends back through it.
        outside = u >= 1
        return self._log_inside(u.masked_fill(outside, 0.0)).masked_fill(outside, -math.inf)

    def profile_slope(self, u: torch.Tensor) -> torch.Tensor:
        outside = u >= 1
        return self._slope_inside(u.masked_fill(outside, 0.0)).masked_fill(outside, 0.0)

    @abstractmethod
    def _log_inside(self, u: torch.Tensor) -> torch.Tensor:
        """Return log K(u) for 0 <= u < 1."""

    @abstractmethod
    def _slope_inside(self, u: torch.Tensor) -> torch.Tensor:
        """Return (d log K / du) / u for 0 <= u < 1."""


class _Gaussian(RadialKernel):
    """K(u) = exp(-u^2 / 2); its integral is (2 pi)^(d/2), and the radius is chi-distributed."""

    name = "gaussian"

    def log_profile(self, u: torch.Tensor) -> torch.Tensor:
        return -0.5 * u * u

    def profile_slope(self, u: torch.Tensor) -> torch.Tensor:
        return torch.full_like(u, -1.0)

    def log_normalizer(self, d: int) -> float:
        return gaussian_log_normalizer(d)

    def sample_radius(self, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
        return np.sqrt(rng.chisquare(d, n))


class _Tophat(_CompactKernel):
    """K(u) = 1; its integral is V_d, the volume of the unit ball; a radius is (uniform draw)^(1/d)."""

    name = "tophat"

    def _log_inside(self, u: torch.Tensor) -> torch.Tensor:
        return 0.0 * u  # not zeros_like: this one stays in the autograd graph

    def _slope_inside(self, u: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(u)

    def log_normalizer(self, d: int) -> float:
        return _log_ball_volume(d)

    def sample_radius(self, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
        return rng.random_sample(n) ** (1 / d)


class _Epanechnikov(_CompactKernel):
    """K(u) = 1 - u^2; its integral is 2 V_d / (d + 2), and u^2 has a Beta(d/2, 2) distribution."""

    name = "epanechnikov"

    def _log_inside(self, u: torch.Tensor) -> torch.Tensor:
        # The factored form keeps full relative accuracy where 1 - u^2 is about to vanish.
        return torch.log((1 - u) * (1 + u))

    def _slope_inside(self, u: torch.Tensor) -> torch.Tensor:
        return -2 / ((1 - u) * (1 + u))

    def log_normalizer(self, d: int) -> float:
        return _log_ball_volume(d) + math.log(2 / (d + 2))

    def sample_radius(self, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
        return np.sqrt(rng.beta(d / 2, 2, n))


class _Exponential(RadialKernel):
    """K(u) = exp(-u), not smooth at 0; its integral is d! V_d, and the radius is Gamma(d)."""

    name = "exponential"

    def log_profile(self, u: torch.Tensor) -> torch.Tensor:
        return -u

    def profile_slope(self, u: torch.Tensor) -> torch.Tensor:
        return -_reciprocal_or_zero(u)

    def log_normalizer(self, d: int) -> float:
        return _log_ball_volume(d) + math.lgamma(d + 1)

    def sample_radius(self, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
        return rng.standard_gamma(d, n)


class _Linear(_CompactKernel):
    """K(u) = 1 - u, not smooth at 0; its integral is V_d / (d + 1), its radius Beta(d, 2)."""

    name = "linear"

    def _log_inside(self, u: torch.Tensor) -> torch.Tensor:
        return torch.log1p(-u)

    def _slope_inside(self, u: torch.Tensor) -> torch.Tensor:
        return -_reciprocal_or_zero(u) / (1 - u)

    def log_normalizer(self, d: int) -> float:
        return _log_ball_volume(d) - math.log(d + 1)

    def sample_radius(self, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
        return rng.beta(d, 2, n)


class _Cosine(_CompactKernel):
    """K(u) = cos(pi u / 2); its integral is d V_d I_d, where I_d is computed by a series.

    The formulas use the sine: 1 - u is exact near the edge, where the cosine would lose its digits
    to the rounding of pi u / 2.

    I_d = int_0^1 u^(d-1) K(u) du. Expanding the sine in powers of 1 - u and integrating term by
    term (Beta functions) gives, with c = pi / 2,

        I_d = c / (d (d + 1)) [ 1 - c^2 / ((d + 2)(d + 3)) + c^4 / ((d + 2)(d + 3)(d + 4)(d + 5)) -
        ... ]

    Each term is at most 0.21 times the one before, so hardly anything cancels, and stopping after
    ten leaves a relative error below 2e-17 at d = 1 and less beyond. Integration by parts, as in
    scikit-learn 1.9, subtracts huge numbers instead: that is wrong or NaN in every even dimension
    there (it drops the last term) and has lost all digits by d = 21.
    """

    name = "cosine"

    def _log_inside(self, u: torch.Tensor) -> torch.Tensor:
        return torch.log(torch.sin(0.5 * math.pi * (1 - u)))

    def _slope_inside(self, u: torch.Tensor) -> torch.Tensor:
        # -(pi/2) tan(pi u / 2) / u, which is 0/0 at u = 0, by way of sinc(t) = sin(pi t) / (pi t).
        return -((0.5 * math.pi) ** 2) * torch.sinc(0.5 * u) / torch.sin(0.5 * math.pi * (1 - u))

    def log_normalizer(self, d: int) -> float:
        term = series = 1.0
        for k in range(2, 20, 2):
            term *= -((0.5 * math.pi) ** 2) / ((d + k) * (d + k + 1))
            series += term
        return _log_ball_volume(d) + math.log(0.5 * math.pi / (d + 1) * series)

    def sample_radius(self, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
        # Rejection from the linear kernel's Beta(d, 2): sin(pi v / 2) <= pi v / 2 with v = 1 - u,
        # and the ratio sinc(v / 2) is at least 2/pi, so every round keeps 64 % or more.
        radius = np.empty(n)
        pending = np.arange(n)
        while pending.size:
            u = rng.beta(d, 2, pending.size)
            accepted = rng.random_sample(pending.size) < np.sinc(0.5 * (1 - u))
            radius[pending[accepted]] = u[accepted]
            pending = pending[~accepted]
        return radius


RADIAL_KERNELS: dict[str, RadialKernel] = {
    kernel.name: kernel
    for kernel in (_Gaussian(), _Tophat(), _Epanechnikov(), _Exponential(), _Linear(), _Cosine())
}
"""The kernels by the names scikit-learn gives them."""


def sample_offsets(kernel: RadialKernel, rng: np.random.RandomState, n: int, d: int) -> np.ndarray:
    """Draw n vectors (n, d) with the kernel as their density, in units of the bandwidth."""
    normal = rng.standard_normal((n, d))
    if isinstance(kernel, _Gaussian):
        return normal
    # A normal vector has a uniform direction, independent of its length.
    direction = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return kernel.sample_radius(rng, n, d)[:, np.newaxis] * direction


def _log_ball_volume(d: int) -> float:
    """Return log V_d of the unit ball, V_d = pi^(d/2) / Gamma(d/2 + 1); the sphere has area d V_d."""
    return 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1)


def _reciprocal_or_zero(u: torch.Tensor) -> torch.Tensor:
    """Return 1 / u, or 0 if `u` is so small that 1 / u may overflow."""
    return u.masked_fill(u < torch.finfo(u.dtype).tiny, math.inf).reciprocal()
