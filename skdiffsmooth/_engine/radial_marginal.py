"""Marginals and conditionals of radial kernels, by quadrature over the distance in the free columns.

A kernel K(|x|) on R^d, x = (a, b) with m free columns a, has at |b| = rho the marginal

    M(rho) = A_m int_0^R r^(m-1) K(sqrt(rho^2 + r^2)) dr,    A_m the area of the unit sphere in R^m,

and given b the distance |a| = r has a density in proportion to the integrand; directions are uniform.
R is where a compact kernel ends, or where K has fallen by e^-50.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import gammaln

from .._utils.draws import choose_in_rows
from .radial_kernels import RadialKernel

# Gauss-Legendre nodes of the integral, and cells of the tables that distances are drawn from.
_N_NODES = 48
_N_CELLS = 512
# A kernel that is not compact is integrated up to a decay of its profile by at least this many nats.
_DECAY = 50.0


def log_marginal_kernel(kernel: RadialKernel, rho: np.ndarray, d: int, n_free: int) -> np.ndarray:
    """Return the log of the kernel's marginal in d - n_free columns, at distances rho in bandwidths."""
    nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
    result = np.full(rho.shape, -np.inf)
    inside = rho < 1 if kernel.is_compact else np.ones_like(rho, dtype=bool)
    near = rho[inside]
    # r = R sin(pi s / 2) removes the square root at the edge of a compact kernel from the integrand.
    s = (nodes + 1) / 2
    t = np.sin(0.5 * math.pi * s)
    log_slope = np.log(0.25 * math.pi * weights * np.cos(0.5 * math.pi * s))
    limit = _largest_radius(kernel, near, n_free)
    log_values = _log_integrand(kernel, near[:, None], t * limit[:, None], n_free) + log_slope
    largest = log_values.max(axis=1, keepdims=True, initial=-np.inf)
    total = np.log(np.exp(log_values - largest).sum(axis=1)) + largest[:, 0] + np.log(limit)
    log_area = math.log(2) + 0.5 * n_free * math.log(math.pi) - gammaln(0.5 * n_free)
    result[inside] = total + log_area - kernel.log_normalizer(d)
    return result


def sample_free_offsets(
    kernel: RadialKernel, rng: np.random.RandomState, rho: np.ndarray, n_free: int
) -> np.ndarray:
    """Draw offsets (n, n_free) in the free columns, given distances rho (n,) in the other columns."""
    limit = _largest_radius(kernel, rho, n_free)
    edges = np.linspace(0, 1, _N_CELLS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    log_values = _log_integrand(kernel, rho[:, None], middle * limit[:, None], n_free)
    masses = np.exp(log_values - log_values.max(axis=1, keepdims=True))
    n = len(rho)
    cell = choose_in_rows(masses, np.arange(n), rng.uniform(size=n))
    radius = limit * (cell + rng.uniform(size=n)) / _N_CELLS
    direction = rng.standard_normal((n, n_free))
    return radius[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _largest_radius(kernel: RadialKernel, rho: np.ndarray, n_free: int) -> np.ndarray:
    if kernel.is_compact:
        return np.sqrt((1 - rho) * (1 + rho))
    farthest = _DECAY + 2 * n_free
    return np.sqrt(farthest * (2 * rho + farthest))


def _log_integrand(
    kernel: RadialKernel, rho: np.ndarray, radius: np.ndarray, n_free: int
) -> np.ndarray:
    """Return log r^(m-1) K(sqrt(rho^2 + r^2))."""
    distance = np.hypot(rho, radius)
    if kernel.is_compact:
        distance = np.minimum(distance, np.nextafter(1.0, 0.0))
    profile = kernel.log_profile(torch.from_numpy(distance)).numpy()
    with np.errstate(divide="ignore"):
        return (n_free - 1) * np.log(radius) + profile if n_free > 1 else profile
