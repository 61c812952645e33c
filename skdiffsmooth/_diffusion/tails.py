"""A multivariate t distribution about the training rows, which bounds the log-density of far rows.

In p dimensions, with scale matrix S, center m and nu degrees of freedom,

    p(x) = Gamma((nu + p) / 2) / (Gamma(nu / 2) (nu pi)^(p/2) |S|^(1/2)) (1 + q / nu)^(-(nu + p) / 2),

with q = (x - m)^T S^-1 (x - m). Its maximum-likelihood parameters are mean and covariance of the rows
under weights v_i proportional to w_i (nu + p) / (nu + q_i), which the EM algorithm iterates. Without row
i and with the other weights as they are, q_i becomes q_i / ((1 - v_i) (1 - c_i q_i)), with
c_i = v_i / (1 - v_i), and |S| is multiplied by (1 - c_i q_i) (1 - v_i)^-p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln

from .._coordinates.embedding import Embedding
from .._utils.shards import Shards
from .._utils.triangular import divide_by_triangle
from ..bandwidth import weight_of_others

# With fewer rows per dimension than this, the covariance of the rows is too uncertain to be used.
_ROWS_A_DIMENSION = 5
# Kent, Tyler and Vardi's (1994) form of EM halves the distance to the maximum in an iteration or two.
# It ends when the change of each EM weight, relative to the row's weight, and the change of the log
# volume of the scale matrix are below `_CHANGE`.
_N_ITERATIONS, _CHANGE = 40, 1e-7
# Least scale along a direction, in standard deviations of the rows. If it is smaller, most rows do not
# vary along it (a rare indicator, say), and the likelihood of a t distribution has no maximum.
_LEAST_SCALE = 1e-3
# Added to variances, relative to each: only rounding makes a scale matrix singular.
_RIDGE = 1e-12


@dataclass(frozen=True, eq=False)
class StudentT:
    """A t distribution of p hull coordinates, and of residuals outside the hull without relations."""

    center: np.ndarray  # Shape (p,)
    factor: np.ndarray  # Lower triangular factor (p, p) of the scale matrix
    degrees: float  # Degrees of freedom nu
    residual_scale: float = 1.0
    """Scale of the residuals, the same in all directions outside the hull."""
    codimension: int = 0  # Number of those directions, without relations between columns
    n_pooled: int = 0
    """Number of dimensions that share a single scale; zero if a scale matrix was fitted."""
    periods: tuple[float, ...] = ()
    """Periods of the coordinates after the first p, in which the distribution is uniform."""

    @property
    def dimension(self) -> int:
        """Number of dimensions, with those outside the hull."""
        return len(self.center) + self.codimension

    @property
    def log_peak(self) -> float:
        """Log-density at the center, in nats."""
        d, nu = self.dimension, self.degrees
        volume = float(np.log(np.diag(self.factor)).sum())
        volume += self.codimension * math.log(self.residual_scale)
        volume += sum(map(math.log, self.periods))
        normalizer = gammaln(nu / 2) - gammaln((nu + d) / 2) + d / 2 * math.log(nu * math.pi)
        return -float(normalizer) - volume

    def distances(self, coordinates: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        """Return the distances (n,) of rows from the center, in units of the scales."""
        coordinates = coordinates[:, : len(self.center)]
        scaled = _whitened(coordinates - self.center, self.factor)
        if residual is not None and self.codimension:
            scaled = np.hstack([scaled, residual / self.residual_scale])
        # The squares of rows 1e150 and more away would overflow.
        largest = np.abs(scaled).max(axis=1, initial=np.finfo(np.float64).tiny)
        return largest * np.sqrt(np.sum((scaled / largest[:, None]) ** 2, axis=1))

    def log_density(
        self, coordinates: np.ndarray, residual: np.ndarray | None = None
    ) -> np.ndarray:
        """Return log-densities (n,) in hull coordinates and residuals, in nats."""
        with np.errstate(divide="ignore"):
            logarithm = 2 * np.log(self.distances(coordinates, residual)) - math.log(self.degrees)
        return self.log_peak - self._exponent * np.logaddexp(0.0, logarithm)

    def leave_one_out_log_density(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the log-density (n_points,) of each point if it is left out and EM weights are kept."""
        squares = self.distances(points) ** 2
        v, n_scaled = weights, self.n_pooled
        if not self.n_pooled:
            n_scaled = len(self.center)
            v = _em_weights(self.degrees, n_scaled, squares, weights)
            v = v / v.sum()
        others = weight_of_others(v)
        # Zero where the point alone spans a direction, along which the others have no variance.
        left = 1 - v / others * squares / max(self.n_pooled, 1)
        left = np.maximum(left, np.finfo(np.float64).tiny)
        volume = 0.5 * max(self.n_pooled, 1) * np.log(left) - 0.5 * n_scaled * np.log(others)
        with np.errstate(over="ignore"):
            exponent = self._exponent * np.log1p(squares / others / left / self.degrees)
        return self.log_peak - volume - exponent

    def draw(self, n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """Return hull coordinates (n, p) of draws, and the scales (n, 1) of their residuals."""
        stretch = 1 / np.sqrt(rng.chisquare(self.degrees, size=(n, 1)) / self.degrees)
        normal = rng.standard_normal((n, len(self.center)))
        coordinates = self.center + stretch * (normal @ self.factor.T)
        if self.periods:
            turns = rng.uniform(-0.5, 0.5, size=(n, len(self.periods)))
            coordinates = np.hstack([coordinates, turns * self.periods])
        return coordinates, stretch * self.residual_scale

    @property
    def _exponent(self) -> float:
        return (self.degrees + self.dimension) / 2


@dataclass(frozen=True, eq=False)
class TailBound:
    """A lower bound of log-densities: ``-constant - (degrees + d) * log(1 + distance)``, in nats.

    The background of a fitted model contains a multivariate t distribution, whose weight, center
    and scales give the bound for every row of R^d. Where columns are mapped, distances are those of the
    mapped columns, and the least slope of their maps is part of the constant. Where columns satisfy
    relations, the small weight of rows that break relations is part of the constant, too.
    """

    student: StudentT
    embedding: Embedding
    weight: float  # Weight of the t distribution in the whole density

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the t distribution."""
        return self.student.degrees

    @property
    def constant(self) -> float:
        """The constant of the bound, in nats."""
        # (1 + R^2 / nu) <= (1 + R)^2, as nu is at least one.
        metric = self.embedding.metric
        warp = metric.columns.warp
        slopes = 0.0 if warp is None else warp.least_log_slope
        return -math.log(self.weight) - self.student.log_peak - metric.log_abs_det - slopes

    def distances(self, X: np.ndarray) -> np.ndarray:
        """Return the distances (n,) of rows X (n, d) from the center, in units of the scales."""
        return self.student.distances(*self.embedding.split(np.asarray(X, dtype=np.float64)))


def fit_student_t(
    points: np.ndarray,
    weights: np.ndarray,
    embedding: Embedding,
    degrees: tuple[float, ...],
    shards: Shards,
    periods: tuple[float, ...] = (),
) -> list[StudentT]:
    """Return t distributions of hull coordinates (n_points, p), smallest degrees of freedom first.

    If rows are few, or most do not vary along some direction, all directions have the same scale. In
    the last coordinates, which have `periods`, distributions are uniform; if these are all coordinates,
    there is a single distribution.
    """
    if periods:
        linear = points[:, : points.shape[1] - len(periods)]
        if not linear.shape[1]:
            scale, codimension = embedding.residual_scale(max(periods)), embedding.hull.codimension
            none = np.empty(0), np.empty((0, 0))
            return [StudentT(*none, max(degrees), scale, codimension, periods=periods)]
        students = fit_student_t(linear, weights, embedding, degrees, shards)
        return [replace(student, periods=periods) for student in students]
    p, n_points = points.shape[1], shards.total(len(points))
    mean = shards.total(weights @ points)
    variances = shards.total(weights @ (points - mean) ** 2)
    fitted: list[StudentT] = []
    if n_points > max(_ROWS_A_DIMENSION * p, 1) and np.all(variances > 0):
        std = np.sqrt(variances)
        scaled = (points - mean) / std
        whitening = _factor(shards.total((weights[:, None] * scaled).T @ scaled))
        white = _whitened(scaled, whitening)
        center, factor = np.zeros(p), np.eye(p)
        residual_scale = embedding.residual_scale(float(std.max(initial=0.0)))
        for nu in sorted(degrees, reverse=True):
            v = weights
            for _ in range(_N_ITERATIONS):
                squares = np.sum(((white - center) @ np.linalg.inv(factor).T) ** 2, axis=1)
                last, v = v, _em_weights(nu, p, squares, weights)
                v = v / shards.total(v.sum())
                center = shards.total(v @ white)
                scatter = shards.total((v[:, None] * (white - center)).T @ (white - center))
                is_narrow = p > 0 and np.linalg.eigvalsh(scatter)[0] < _LEAST_SCALE**2
                if is_narrow:
                    break
                narrowed = np.log(np.diag(factor))
                factor = _factor(scatter)
                # The scale may still shrink along a direction when weights no longer change.
                narrowed -= np.log(np.diag(factor))
                change = float(np.max(np.abs(v - last) / weights))
                if shards.largest(max(change, abs(float(narrowed.sum())))) < _CHANGE:
                    break
            if is_narrow:
                break  # fewer degrees of freedom narrow that direction even more
            fitted.append(
                StudentT(
                    mean + std * (whitening @ center),
                    std[:, None] * (whitening @ factor),
                    nu,
                    residual_scale,
                    embedding.hull.codimension,
                )
            )
    if fitted:
        return fitted[::-1]
    # p + 1 rows span their hull by chance: new rows vary as much outside of it.
    n_pooled = embedding.hull.n_features if n_points == p + 1 else p
    scale = math.sqrt(variances.sum() / max(n_pooled, 1))
    residual_scale = scale if n_points == p + 1 else embedding.residual_scale(scale)
    codimension = embedding.hull.codimension
    pooled = StudentT(mean, scale * np.eye(p), 1.0, residual_scale, codimension, n_pooled)
    return [replace(pooled, degrees=nu) for nu in sorted(degrees)]


def _em_weights(degrees: float, p: int, squares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return weights (n_points,) of the rows in the EM algorithm, from their squared distances."""
    return weights * (degrees + p) / (degrees + squares)


def _whitened(rows: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return rows (n, p) multiplied by the inverse of a lower triangular factor."""
    return divide_by_triangle(rows, factor)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Return the lower triangular factor of a covariance matrix."""
    return np.linalg.cholesky(covariance + _RIDGE * np.diag(np.diag(covariance)))
