"""The metric: linear coordinates in which the distance between rows is measured."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.shards import ONE_PROCESS, Shards
from .._utils.validation import check_choice, check_real, check_real_array
from .hull import AffineHull, principal_axes

__all__ = ["LinearMetric", "candidate_metrics", "check_metric", "fit_metric"]

_METRICS = ("euclidean", "scaled", "whitened")
# What "auto" chooses from.
_CANDIDATES = ("euclidean", "scaled", 0.25, 0.5, 0.75, "whitened")

_HINT = "Or pass a power from 0 ('scaled') to 1 ('whitened'), or a positive definite matrix."
# An eigenvalue below this fraction of the largest is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class LinearMetric:
    """Coordinates z = A x in which the distance between rows is the Euclidean one.

    A = (rest * (I - V V^T) + V diag(scales) V^T) diag(1 / columns), with one column of V for each
    direction in which the data have extent, so that no more than V is stored.

    Parameters
    ----------
    columns : ndarray of shape (d,)
        What each column is divided by first, in its unit.
    basis : ndarray of shape (d, r)
        Orthonormal columns V.
    scales : ndarray of shape (r,)
        Factor along each of them.
    rest : float
        Factor of the other d - r directions.
    spans : bool, default=False
        Whether V holds the principal axes of the data, which the model must then use too: whitened
        data have no principal axes but those of rounding errors.
    """

    columns: np.ndarray
    basis: np.ndarray
    scales: np.ndarray
    rest: float = 1.0
    spans: bool = False

    def to_metric(self, X: np.ndarray) -> np.ndarray:
        """Convert rows X (n, d), or differences of rows, to coordinates of the metric."""
        return self._scale(X / self.columns, self.scales, self.rest)

    def from_metric(self, Z: np.ndarray) -> np.ndarray:
        """Return rows in units of X, from rows Z (n, d) in the metric."""
        return self._scale(Z, 1 / self.scales, 1 / self.rest) * self.columns

    def gradient_from_metric(self, gradients: np.ndarray) -> np.ndarray:
        """Return gradients A^T g (n, d) in the user's columns from gradients g in the metric."""
        return self._scale(gradients, self.scales, self.rest) / self.columns

    def hull_of(self, Z: np.ndarray, shards: Shards) -> AffineHull:
        """Return the affine hull of training rows Z (n_points, d), in metric coordinates."""
        return AffineHull.of(Z, shards, self.basis if self.spans else None)

    @property
    def is_euclidean(self) -> bool:
        """Whether the metric is the identity: noise then has the same scale in all columns."""
        return not len(self.scales) and self.rest == 1 and bool(np.all(self.columns == 1))

    @property
    def log_abs_det(self) -> float:
        """Return log |det A| in nats; adding it converts a log-density to units of X."""
        n_features, rank = self.basis.shape
        within = float(np.sum(np.log(self.scales))) + (n_features - rank) * math.log(self.rest)
        return within - float(np.sum(np.log(self.columns)))

    def _scale(self, rows: np.ndarray, scales: np.ndarray, rest: float) -> np.ndarray:
        if not len(scales):
            return rest * rows
        return rest * rows + (rows @ self.basis) * (scales - rest) @ self.basis.T


def check_metric(metric: Any, n_features: int) -> str | float | np.ndarray:
    """Return the parameter `metric` after checking it: a name, a power, or a matrix.

    Raises
    ------
    TypeError
        If it is neither a name, a number nor an array.
    ValueError
        If the name is not known, the power outside [0, 1], or the matrix not positive definite.
    """
    if isinstance(metric, str):
        return check_choice("metric", metric, ("auto", *_METRICS), hint=_HINT)
    if isinstance(metric, numbers.Real):
        power = check_real("metric", metric, strict=False, hint=_HINT)
        if power > 1:
            raise ValueError(f"metric={metric!r} is out of range; expected a power <= 1. {_HINT}")
        return power
    if metric is None or isinstance(metric, dict | set):
        raise TypeError(
            f"metric={metric!r} has type {type(metric).__name__}; expected 'auto', "
            f"{', '.join(map(repr, _METRICS))}. {_HINT}"
        )
    matrix = check_real_array("metric", metric)
    if matrix.shape != (n_features, n_features):
        raise ValueError(
            f"metric has shape {matrix.shape}; expected ({n_features}, {n_features}), a row and a "
            "column for each feature of X."
        )
    if not np.all(np.isfinite(matrix)):
        raise ValueError("metric has entries that are NaN or infinite; expected finite numbers.")
    if np.abs(matrix - matrix.T).max() > _ROUNDING * np.abs(matrix).max():
        raise ValueError("metric is not symmetric; pass (metric + metric.T) / 2.")
    smallest, largest = np.linalg.eigvalsh(matrix)[[0, -1]]
    if smallest <= _ROUNDING * largest or largest <= 0:
        raise ValueError(
            f"metric has eigenvalues from {smallest:.3g} to {largest:.3g}; expected a positive definite "
            "matrix. Add a small multiple of the identity."
        )
    return matrix


def candidate_metrics(points: np.ndarray) -> tuple[str | float, ...]:
    """Return the metrics that "auto" compares on distinct rows (n_points, n_features).

    Only "euclidean" for a single column, or where the rows do not span all columns: otherwise
    densities in the directions without extent would decide the comparison.
    """
    n_features = points.shape[1]
    # Checked first, since a decomposition of few rows of very many columns would take long.
    if n_features == 1 or len(points) <= n_features:
        return ("euclidean",)
    return _CANDIDATES if AffineHull.of(points).codimension == 0 else ("euclidean",)


def fit_metric(
    metric: str | float | np.ndarray,
    points: np.ndarray,
    weights: np.ndarray,
    shards: Shards = ONE_PROCESS,
) -> LinearMetric:
    """Return the coordinates of a metric, which may depend on the data.

    Directions in which the data have no extent are measured like the narrowest one that has.

    Parameters
    ----------
    metric : {"euclidean", "scaled", "whitened"}, float or ndarray of shape (d, d)
        Checked. "scaled" divides columns by their standard deviations. A power alpha then
        multiplies by R^(-alpha / 2), R the correlation matrix; "whitened" is the power 1. A matrix
        M measures sqrt((x - y)^T M (x - y)).
    points : ndarray of shape (n_points, d)
        Distinct rows of this process.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one over all processes.
    shards : Shards, default=ONE_PROCESS
        Where the other points are, if these are not all.

    Returns
    -------
    LinearMetric
    """
    n_features = points.shape[1]
    plain = LinearMetric(np.ones(n_features), np.empty((n_features, 0)), np.empty(0))
    if isinstance(metric, np.ndarray):
        variances, axes = np.linalg.eigh((metric + metric.T) / 2)
        return LinearMetric(plain.columns, axes, np.sqrt(variances))
    if metric == "euclidean":
        return plain
    power = {"scaled": 0.0, "whitened": 1.0}[metric] if isinstance(metric, str) else metric
    centered = points - shards.total(weights @ points)
    # Around a large mean the first difference is rounded; the second corrects it.
    centered -= shards.total(weights @ centered)
    columns = np.sqrt(shards.total(weights @ centered**2))
    largest = np.max(shards.gather(np.abs(points).max(axis=0)), axis=0)
    columns = _without_zeros(columns, columns > _ROUNDING * largest)
    if power == 0:
        return LinearMetric(columns, plain.basis, plain.scales)
    hull = AffineHull.of(points / columns, shards)
    within, _ = hull.split(points / columns)
    within = within - shards.total(weights @ within)
    singular_values, axes = principal_axes(np.sqrt(weights)[:, None] * within, shards)
    # Directions in which only rows of negligible weight have extent are as narrow as rounding.
    smallest = np.finfo(np.float64).eps * singular_values.max(initial=0.0)
    scales = np.maximum(singular_values, smallest) ** -power
    basis = hull.basis @ axes.T
    return LinearMetric(columns, basis, scales, float(scales.max(initial=1.0)), spans=True)


def _without_zeros(lengths: np.ndarray, has_extent: np.ndarray) -> np.ndarray:
    """Return the lengths; zeros are replaced by the smallest other length, or by one."""
    if has_extent.all():
        return lengths
    narrowest = lengths[has_extent].min() if has_extent.any() else 1.0
    return np.where(has_extent, lengths, narrowest)
