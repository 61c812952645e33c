"""Densities of points on a sphere S^m, or of rotations, noised by the heat kernel, and their scores.

The heat kernel K_v of noise variance v, the solution of dK/dv = (Laplacian of K) / 2, depends on the
angle theta to its centre only. On S^2 it is an integral, with cos(phi / 2) = cos(theta / 2) cos(a),

    K_v = 2 exp(v / 8) (2 pi v)^(-3/2) int_0^(pi / 2) S(phi) / sin(phi / 2) da,
    S(phi) = sum_k (-1)^k (phi + 2 pi k) exp(-(phi + 2 pi k)^2 / 2 v),

and at large v the series of zonal harmonics. On S^1 it is the wrapped Gaussian. The kernel
two dimensions higher (up to S^5, where rounding is still below 1e-7) follows from

    K_v on S^(m + 2) = -exp(m v / 2) / (2 pi sin(theta)) dK_v / dtheta on S^m.

A rotation is a pair +-q of unit quaternions on S^3, and the kernel of rotations is

    K_v = exp(v / 2) (2 pi v)^(-3/2) / sin(theta)
          sum_k (-1)^k (theta + pi k) exp(-(theta + pi k)^2 / 2 v).

log K_v + theta^2 / 2 v is a cubic spline of theta, from which all derivatives are taken, so that a score
is the exact gradient of its log-density.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import eval_gegenbauer, logsumexp

from .._coordinates.directions import log_area
from .._utils.memory import slices_within

# From this variance on the series are summed; terms of degree _MAX_DEGREE or more are below 1e-17.
_SERIES_FROM, _MAX_DEGREE = 0.5, 20
_N_ANGLES = 1025
# Gauss-Legendre nodes of the integral, where its integrand is above exp(-_NEGLIGIBLE).
_N_NODES, _NEGLIGIBLE = 64, 40.0
# Bytes of temporaries of a pair of a query and a point; size in MiB of tiles that stay in the cache.
_BYTES_A_PAIR, _LARGEST_TILE = 160, 8
# Cosines of smaller angles round to one.
_SMALLEST_ANGLE = 1e-7


def _excess_on_sphere(v: float, theta: np.ndarray, dimension: int) -> np.ndarray:
    """Return log K_v + theta^2 / 2 v (n,) on S^m, at equidistant angles from 0 to pi."""
    if v >= _SERIES_FROM and dimension > 1:
        order = (dimension - 1) / 2
        degree = np.arange(_MAX_DEGREE)[:, None]
        terms = (degree / order + 1) * np.exp(-degree * (degree + dimension - 1) * v / 2)
        total = np.sum(terms * eval_gegenbauer(degree, order, np.cos(theta)), axis=0)
        return np.log(total) - log_area(dimension) + theta**2 / (2 * v)
    if dimension == 1:
        turns = 2 * math.pi * np.arange(-2, 3)[:, None]
        exponents = -turns * (turns + 2 * theta) / (2 * v)
        return logsumexp(exponents, axis=0) - 0.5 * math.log(2 * math.pi * v)
    if dimension == 2:
        return _excess_on_s2(v, theta)
    lower = _kernel_of(v, theta, _excess_on_sphere(v, theta, dimension - 2)).values(theta)
    # The ratio is 0 / 0 at both ends. It increases, so that a decrease near the far end is rounding.
    ratio = np.append(-lower.curvature[0], -lower.slope[1:-1] / np.sin(theta[1:-1]))
    ratio = np.append(ratio, lower.curvature[-1] if v > 2 * theta[1] else ratio[-1])
    ratio = np.maximum.accumulate(ratio)
    constant = (dimension - 2) * v / 2 - math.log(2 * math.pi)
    return lower.log + theta**2 / (2 * v) + np.log(ratio) + constant


def _excess_on_s2(v: float, theta: np.ndarray) -> np.ndarray:
    """Return log K_v + theta^2 / 2 v (n,) on S^2, by the integral."""
    nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
    sine, cosine = np.sin(theta / 2), np.cos(theta / 2)
    # Half the largest angle phi that matters, and the value `end` of a there.
    last = np.minimum(np.sqrt(theta**2 + 2 * v * _NEGLIGIBLE), math.pi) / 2
    ends = np.sqrt(np.sin(last - theta / 2) * np.sin(last + theta / 2))
    ratio = np.divide(ends, cosine, out=np.ones_like(ends), where=last < math.pi / 2)
    end = np.arcsin(np.minimum(ratio, 1.0))
    a = end[:, None] * (nodes + 1) / 2
    # Sines of half the angles, accurate where these are small.
    sines = np.hypot(sine[:, None], cosine[:, None] * np.sin(a))
    phi = 2 * np.arctan2(sines, cosine[:, None] * np.cos(a))
    total = np.zeros_like(phi)
    for k in (-1, 0, 1):
        turned = phi + 2 * math.pi * k
        total += (-1) ** k * turned * np.exp((theta[:, None] ** 2 - turned**2) / (2 * v))
    integral = (total / sines) @ weights * end / 2
    return np.log(2 * integral) + v / 8 - 1.5 * math.log(2 * math.pi * v)


def _excess_of_rotations(v: float, theta: np.ndarray) -> np.ndarray:
    """Return log K_v + theta^2 / 2 v (n,) of pairs +-q on S^3, for angles up to pi / 2."""
    sine = np.sin(theta)
    if v >= _SERIES_FROM:
        order = 2 * np.arange(_MAX_DEGREE)[:, None] + 1
        waves = np.divide(np.sin(order * theta), sine, out=order + 0 * theta, where=sine > 0)
        total = np.sum(order * np.exp((1 - order**2) * v / 2) * waves, axis=0)
        return np.log(total / math.pi**2) + theta**2 / (2 * v)
    total = np.zeros_like(theta)
    for k in (-2, -1, 0, 1, 2):
        turned = theta + math.pi * k
        slope = 1 - turned**2 / v  # of the term at theta = 0, where the sum is zero
        part = np.divide(turned, sine, out=slope, where=sine > 0)
        total += (-1) ** k * part * np.exp((theta**2 - turned**2) / (2 * v))
    return np.log(total) + v / 2 - 1.5 * math.log(2 * math.pi * v)


class _KernelValues(NamedTuple):
    """Logarithms of a kernel, and their first two derivatives in the angle, all of one shape."""

    log: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray


@dataclass(frozen=True, eq=False)
class HeatKernel:
    """The heat kernel of one noise variance v."""

    v: float
    last: float  # The largest angle, pi or pi / 2
    coefficients: np.ndarray
    """Coefficients (4, n_angles - 1) of cubic polynomials between angles, highest power first."""

    def values(self, theta: np.ndarray) -> _KernelValues:
        """Return the logarithm and its derivatives at angles of any shape."""
        n = self.coefficients.shape[1]
        step = self.last / n
        index = np.minimum((theta / step).astype(np.intp), n - 1)
        t = theta - step * index
        a, b, c, d = (np.take(row, index) for row in self.coefficients)
        return _KernelValues(
            ((a * t + b) * t + c) * t + d - theta**2 / (2 * self.v),
            (3 * a * t + 2 * b) * t + c - theta / self.v,
            6 * a * t + 2 * b - 1 / self.v,
        )

    def draw_angles(self, rng: np.random.RandomState, n: int, dimension: int) -> np.ndarray:
        """Draw n angles to the centre, on a sphere of m dimensions."""
        theta = np.linspace(0, min(self.last, 10 * math.sqrt(self.v)), 2**13 + 1)
        middle = (theta[1:] + theta[:-1]) / 2
        log_kernel = self.values(middle).log
        masses = np.exp(log_kernel - log_kernel.max()) * np.sin(middle) ** (dimension - 1)
        cumulated = np.append(0, np.cumsum(masses))
        return np.interp(rng.uniform(size=n), cumulated / cumulated[-1], theta)


def _kernel_of(v: float, theta: np.ndarray, excess: np.ndarray) -> HeatKernel:
    """Return the kernel, given log K_v + theta^2 / 2 v (n,) at equidistant angles from zero."""
    last = float(theta[-1])
    # The kernel is even about both ends, but at small v the angles are too far apart to use the far one.
    far_end = (1, last / v) if v > 2 * theta[1] else (2, 0.0)
    return HeatKernel(v, last, CubicSpline(theta, excess, bc_type=((1, 0.0), far_end)).c)


@functools.lru_cache(maxsize=256)
def heat_kernel(v: float, dimension: int = 2, *, is_antipodal: bool = False) -> HeatKernel:
    """Return the heat kernel of noise variance v on S^m, or of rotations with `is_antipodal`."""
    theta = np.linspace(0, math.pi / 2 if is_antipodal else math.pi, _N_ANGLES)
    if is_antipodal:
        return _kernel_of(v, theta, _excess_of_rotations(v, theta))
    return _kernel_of(v, theta, _excess_on_sphere(v, theta, dimension))


class SphereField(NamedTuple):
    """A smoothed score (n, d), its divergence (n,) and the averaged log-density (n,)."""

    score: np.ndarray
    divergence: np.ndarray
    log_density: np.ndarray


class SpherePosterior:
    """Weighted points on a sphere under noise: densities, and scores smoothed by fixed rotations.

    Rotations R_m are isometries, so the average l(x) of log p_v(R_m x) has the gradient
    mean R_m^T (grad log p_v)(R_m x) and the Laplacian mean (Laplacian log p_v)(R_m x), exactly.

    `points` (N, d) are unit vectors, `log_weights` (N,) the logarithms of weights that sum to one.
    `is_antipodal` is whether x and -x are one point, as quaternions of rotations are.
    """

    def __init__(
        self,
        points: np.ndarray,
        log_weights: np.ndarray,
        *,
        is_antipodal: bool,
        memory_limit: float,
    ) -> None:
        self.points, self.log_weights = points, log_weights
        self.is_antipodal, self.memory_limit = is_antipodal, memory_limit
        # Log of the weight of all other points; for the heaviest point, 1 - w would be rounding.
        heaviest = int(log_weights.argmax())
        self._log_others = np.zeros(len(points))
        rest = np.arange(len(points)) != heaviest
        self._log_others[rest] = np.log1p(-np.exp(log_weights[rest]))
        if rest.any():
            self._log_others[heaviest] = logsumexp(log_weights[rest])

    def kernel(self, v: float) -> HeatKernel:
        """Return the heat kernel of variance v."""
        return heat_kernel(v, self.points.shape[1] - 1, is_antipodal=self.is_antipodal)

    def log_density(self, x: np.ndarray, v: float, exclude: np.ndarray | None = None) -> np.ndarray:
        """Return log p_v (n,) at unit vectors x (n, d), without the points of indices `exclude` (n,)."""
        identity = np.eye(x.shape[1])[None]
        return self.field(x, v, identity, exclude, derivatives=False).log_density

    def field(
        self,
        x: np.ndarray,
        v: float,
        rotations: np.ndarray,
        exclude: np.ndarray | None = None,
        *,
        derivatives: bool = True,
    ) -> SphereField:
        """Return the score smoothed by rotations (M, d, d) at unit vectors x (n, d)."""
        bytes_per_row = _BYTES_A_PAIR * len(rotations) * len(self.points)
        limit = min(self.memory_limit, _LARGEST_TILE)
        parts = [
            self._field(
                x[part], v, rotations, None if exclude is None else exclude[part], derivatives
            )
            for part in slices_within(len(x), bytes_per_row, limit)
        ]
        return SphereField(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _field(
        self,
        x: np.ndarray,
        v: float,
        rotations: np.ndarray,
        exclude: np.ndarray | None,
        derivatives: bool,
    ) -> SphereField:
        """Return `field` of a slice of the queries."""
        n, d = x.shape
        y = np.einsum("mij,nj->nmi", rotations, x)
        cosine = y.reshape(-1, d) @ self.points.T
        signs = np.sign(cosine) if self.is_antipodal else 1.0
        # Cosines of the angles to the points, or to the nearer of x_i and -x_i.
        along = np.minimum(cosine * signs, 1.0, out=cosine)
        np.maximum(along, -1.0, out=along)
        theta = np.maximum(np.arccos(along), _SMALLEST_ANGLE)
        kernel = self.kernel(v).values(theta)
        logits = (kernel.log + self.log_weights).reshape(n, len(rotations), -1)
        log_others = 0.0
        if exclude is not None:
            logits[np.arange(n), :, exclude] = -np.inf
            log_others = self._log_others[exclude]
        highest = logits.max(axis=2, keepdims=True)
        posterior = np.exp(logits - highest)
        total = posterior.sum(axis=2, keepdims=True)
        log_density = (highest + np.log(total))[:, :, 0].mean(axis=1) - log_others
        if not derivatives:
            return SphereField(np.zeros((n, d)), np.zeros(n), log_density)
        posterior = (posterior / total).reshape(len(theta), -1)
        ratio = kernel.slope / np.maximum(np.sqrt((1 - along) * (1 + along)), _SMALLEST_ANGLE)
        along_point = -posterior * ratio * signs
        gradient = (along_point @ self.points).reshape(y.shape)
        gradient -= np.sum(gradient * y, axis=2, keepdims=True) * y
        terms = kernel.curvature + (d - 2) * ratio * along + kernel.slope**2
        laplacian = np.sum(posterior * terms, axis=1).reshape(n, -1) - np.sum(gradient**2, axis=2)
        score = np.einsum("mij,nmi->nj", rotations, gradient) / len(rotations)
        return SphereField(score, laplacian.mean(axis=1), log_density)
