"""The flow of a smoothed score on a sphere, and its scales of highest leave-one-out likelihood.

Noise is that of the heat kernel, p_v the mixture of heat kernels at the rows. The score is the gradient
of log p_v averaged over small rotations exp(sigma W) of the query, W antisymmetric with standard normal
entries: an average along geodesics. Along the flow dx/dy = -y s(x, y^2), y = sqrt(v),

    log p_h(x) = log p_T(x_T) - int_h^T y^2 div s(x_y, y^2) d log y.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

from .._engine.sphere import SpherePosterior
from .._utils.draws import draw_points
from .._utils.rows import evenly
from .._utils.warnings import warn_user
from ..kernels._nodes import gaussian_nodes

# Candidates for bandwidth and sigma, as multiples of the best bandwidth of a kernel density estimate.
_CANDIDATES = ((1.0, 0.0), (0.85, 1.0), (0.85, 2.0), (0.7, 1.5), (0.7, 3.0))
# Multiples that are compared for one of the two scales where the other is given: of that best bandwidth
# for the bandwidth, of the given bandwidth for sigma.
_FACTORS, _SIGMA_FACTORS = (1.0, 0.85, 0.7), (0.0, 1.0, 2.0, 3.0)
# Most rows at which candidates are scored; fewer, but at least `_MIN_ROWS`, if rows times training
# points would exceed `_MAX_PAIRS`.
_MAX_ROWS, _MIN_ROWS, _MAX_PAIRS = 300, 100, 300_000
# Most rows at which kernel density estimates are scored: with a grid of bandwidths, then near the best.
_MAX_ROWS_OF_KERNELS = 300, 1000
# Numbers of rotations and of steps with which candidates are scored.
_SCREENING = 16, 12
# Range and number of the bandwidths of that grid, in radians.
BANDWIDTHS, _N_BANDWIDTHS = (1e-6, 1.5), 28
MAX_BACKGROUND = 0.5


def _rotation_nodes(dimension: int, sigma: float, n_nodes: int, level: int) -> np.ndarray:
    """Return rotations exp(sigma W) (M, d, d), in pairs of inverses, for noise level `level`."""
    i, j = np.triu_indices(dimension, 1)
    generators = np.zeros((n_nodes, dimension, dimension))
    generators[:, i, j] = sigma * gaussian_nodes(len(i), n_nodes, level, 0)
    generators -= generators.transpose(0, 2, 1)
    return expm(generators)


def _moved(x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Return unit vectors x (n, d) moved along geodesics by tangent vectors (n, d)."""
    angle = np.linalg.norm(tangent, axis=1, keepdims=True)
    y = np.cos(angle) * x + np.sinc(angle / math.pi) * tangent
    return y / np.linalg.norm(y, axis=1, keepdims=True)


def _transported(tangent: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return tangent vectors (n, d) at `start` (n, d), transported along geodesics to `end` (n, d)."""
    cosine = np.sum(start * end, axis=1, keepdims=True)
    along = np.sum(tangent * end, axis=1, keepdims=True) / np.maximum(1 + cosine, 1e-12)
    return tangent - along * (start + end)


@dataclass(frozen=True, eq=False)
class SphericalFlow:
    """The flow of a smoothed score between noise scales, in principal axes and radians of the sphere.

    `scales` (n_steps + 1,) increase from the bandwidth to the terminal scale; `sigma` is the smoothing
    scale.
    """

    posterior: SpherePosterior
    scales: np.ndarray
    sigma: float
    n_nodes: int

    @classmethod
    def of(
        cls, posterior: SpherePosterior, bandwidth: float, sigma: float, n_nodes: int, n_steps: int
    ) -> SphericalFlow:
        """Return the flow from a bandwidth to the data's std, 3 sigma or 2 bandwidths, the largest."""
        # Standard deviation of the points about their main axis: the root mean square sine of their
        # angle to it, per dimension.
        off_axis = posterior.points[:, 1:] ** 2
        std = math.sqrt(float(np.exp(posterior.log_weights) @ off_axis.mean(axis=1)))
        terminal = max(3 * sigma, std, 2 * bandwidth)
        return cls(posterior, np.geomspace(bandwidth, terminal, n_steps + 1), sigma, n_nodes)

    def log_density(self, x: np.ndarray, exclude: np.ndarray | None = None) -> np.ndarray:
        """Return log-densities (n,) at x (n, d), without the points of indices `exclude` (n,)."""
        if self.sigma == 0:
            return self.posterior.log_density(x, self.scales[0] ** 2, exclude)
        x, change = self._followed(x, self.scales, exclude)
        return self.posterior.log_density(x, self.scales[-1] ** 2, exclude) - change

    def draw(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Return n draws, unit vectors (n, d)."""
        scales = self.scales[:1] if self.sigma == 0 else self.scales[::-1]
        points = self.posterior.points
        x = draw_points(rng, points, np.exp(self.posterior.log_weights), n)
        theta = self.posterior.kernel(scales[0] ** 2).draw_angles(rng, n, points.shape[1] - 1)
        tangent = rng.standard_normal(x.shape)
        tangent -= np.sum(tangent * x, axis=1, keepdims=True) * x
        tangent *= (theta / np.linalg.norm(tangent, axis=1))[:, None]
        return self._followed(_moved(x, tangent), scales, None)[0]

    def _followed(
        self, x: np.ndarray, scales: np.ndarray, exclude: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x (n, d) after Heun steps along scales, and the integral (n,) of y^2 div s d log y."""
        change = np.zeros(len(x))
        for start, end in pairwise(scales):
            # The rotations of an interval are the same at both ends, whether the flow goes up or down.
            level = int(np.searchsorted(self.scales, min(start, end)))
            rotations = _rotation_nodes(x.shape[1], self.sigma, self.n_nodes, level)
            length = math.log(end / start)
            here = self.posterior.field(x, start**2, rotations, exclude)
            first = -length * start**2 * here.score
            ahead = _moved(x, first)
            there = self.posterior.field(ahead, end**2, rotations, exclude)
            second = -length * end**2 * _transported(there.score, ahead, x)
            x = _moved(x, (first + second) / 2)
            change += length / 2 * (start**2 * here.divergence + end**2 * there.divergence)
        return x, change


def mixed_with_uniform(log_density: np.ndarray, background: float, log_volume: float) -> np.ndarray:
    """Return log-densities (n,) of a mixture with the uniform distribution of weight `background`."""
    if background == 0:
        return log_density
    return np.logaddexp(log_density + math.log1p(-background), math.log(background) - log_volume)


def _best_background(log_density: np.ndarray, weights: np.ndarray, log_volume: float) -> float:
    """Return the uniform distribution's weight of highest likelihood, from left-out log-densities (n,).

    It is at least 1 / (n + 1), since the next row may be unlike all others.
    """
    least = 1 / (len(weights) + 1)

    def loss(b: float) -> float:
        return -float(weights @ mixed_with_uniform(log_density, b, log_volume))

    best = minimize_scalar(loss, bounds=(least, MAX_BACKGROUND), options={"xatol": 1e-4}).x
    return min((least, float(best)), key=loss)


def _best_bandwidth(likelihood: Callable[[float, int], float]) -> float:
    """Return the bandwidth of highest likelihood, in radians of the sphere.

    `likelihood(h, most)` returns the mean log-density of at most `most` left-out rows.
    """
    some, many = _MAX_ROWS_OF_KERNELS
    grid = np.geomspace(*BANDWIDTHS, _N_BANDWIDTHS)
    best = int(np.argmax([likelihood(h, some) for h in grid]))
    if best == 0:
        warn_user(
            "the bandwidth of highest leave-one-out likelihood is the smallest that is compared, "
            f"{grid[0]:g} radians: rows are about as close as float64 resolves angles. If they are "
            "copies, pass sample_weight instead; if not, fit their positions in the tangent plane by "
            "SmoothedScoreDiffusion."
        )
    ends = np.log(grid[[max(best - 1, 0), min(best + 1, len(grid) - 1)]])
    refined = minimize_scalar(
        lambda log_h: -likelihood(math.exp(log_h), many),
        bounds=tuple(ends),
        options={"xatol": 0.02},
    )
    return math.exp(refined.x)


def chosen_flow(
    posterior: SpherePosterior,
    log_volume: float,
    bandwidth: float | None,
    sigma: float | None,
    given: float | None,
    n_nodes: int,
    n_steps: int,
) -> tuple[SphericalFlow, float]:
    """Return the flow of highest leave-one-out likelihood, and the weight of the background.

    `bandwidth` and `sigma`, in radians of the sphere, and `given`, the weight of the background, are
    chosen if None. The background is uniform, with the log-density ``-log_volume``.
    """
    n_points = len(posterior.points)
    weights = np.exp(posterior.log_weights)

    def screened(h: float, smoothing: float, most: int) -> tuple[float, float]:
        """Return a mean leave-one-out log-density of up to `most` rows, and the background's weight."""
        rows = evenly(n_points, most)
        own = weights[rows] / weights[rows].sum()
        flow = SphericalFlow.of(posterior, h, smoothing, *_SCREENING)
        log_density = flow.log_density(posterior.points[rows], rows)
        b = _best_background(log_density, own, log_volume) if given is None else given
        return float(own @ mixed_with_uniform(log_density, b, log_volume)), b

    if bandwidth is None:
        bandwidth = _best_bandwidth(lambda h, most: screened(h, 0.0, most)[0])
        factors = _CANDIDATES if sigma is None else [(f, 0.0) for f in _FACTORS]
    else:
        factors = [(1.0, f) for f in _SIGMA_FACTORS] if sigma is None else [(1.0, 0.0)]
    pairs = [(a * bandwidth, b * bandwidth if sigma is None else sigma) for a, b in factors]
    best, background = 0, given
    if len(pairs) > 1 or background is None:
        most = min(max(_MAX_PAIRS // n_points, _MIN_ROWS), _MAX_ROWS)
        assessed = [screened(h, smoothing, most) for h, smoothing in pairs]
        best = int(np.argmax([value for value, _ in assessed]))
        background = assessed[best][1]
    return SphericalFlow.of(posterior, *pairs[best], n_nodes, n_steps), background
