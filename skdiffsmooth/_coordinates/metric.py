"""The metric: linear coordinates in which the distance between rows is measured."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._utils.shards import ONE_PROCESS, Shards
from .._utils.validation import check_choice, check_finite, check_real, check_real_array, wrong_type
from .columns import ColumnSpace
from .hull import AffineHull, principal_axes
from .local_covariance import local_covariance

_METRICS = ("euclidean", "scaled", "whitened", "local")
# Powers of the correlation matrix, or for "local" of the local covariance.
_POWERS = {"scaled": 0.0, "whitened": 1.0, "local": 1.0}
# Prefix of the name of a metric that maps skewed columns first.
_WARPED = "warped "
# What "auto" chooses from, the simplest first.
_CANDIDATES = ("scaled", 0.25, 0.5, 0.75, "whitened", "local")

_HINT = "Or pass a power from 0 ('scaled') to 1 ('whitened'), or a positive definite matrix."
# An eigenvalue below this fraction of the largest is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class LinearMetric:
    """Coordinates z = W y in which the distance between rows is the Euclidean one.

    y (d',) are the scaled columns without the relations between them (`ColumnSpace`), and
    W = I - V V^T + V diag(scales) V^T, with one column of V for each direction in which the data have
    extent, so that no more than V is stored.
    """

    columns: ColumnSpace  # Origin and scale of each column, and the relations between columns
    basis: np.ndarray  # (d', r): orthonormal columns V
    scales: np.ndarray  # (r,): factor along each of them
    # Number of the first columns of V that are principal axes of the data, which the model must then use
    # too: whitened data have no principal axes but those of rounding errors
    n_axes: int = 0
    # (d',): periods of the coordinates, 0 where a coordinate has none; None where no column has one
    periods: np.ndarray | None = None
    # The power of two by which rows are divided if the metric is Euclidean and X has extreme values
    unit: float = 1.0

    def to_metric(self, X: np.ndarray) -> np.ndarray:
        """Return coordinates (n, d') of rows X (n, d), without their part that breaks relations."""
        return self.of_inside(self.columns.inside(self.columns.scaled(X)))

    def of_inside(self, inside: np.ndarray) -> np.ndarray:
        """Return coordinates (n, d') of rows that are given as scaled columns without relations."""
        return self._scale(inside, self.scales)

    def from_metric(self, Z: np.ndarray) -> np.ndarray:
        """Return rows in units of X, from coordinates Z (n, d')."""
        return self.columns.unscaled(self.scaled_from_metric(Z))

    def scaled_from_metric(self, Z: np.ndarray) -> np.ndarray:
        """Return rows or directions (n, d) in scaled columns, from coordinates Z (n, d')."""
        return self.columns.lift(self._scale(Z, 1 / self.scales))

    def steps_from_metric(self, Z: np.ndarray) -> np.ndarray:
        """Return differences of rows in units of X, from differences Z (n, d') of coordinates."""
        return self.scaled_from_metric(Z) * self.columns.scales

    def steps_to_metric(self, steps: np.ndarray) -> np.ndarray:
        """Return differences of coordinates (n, d'), from differences (n, d) of rows in units of X."""
        return self.of_inside(self.columns.inside(steps / self.columns.scales))

    def gradient_from_metric(self, gradients: np.ndarray) -> np.ndarray:
        """Return gradients (n, d) along the columns of X, from gradients (n, d') in the metric."""
        return self.columns.lift(self._scale(gradients, self.scales)) / self.columns.scales

    def gradient_to_metric(self, gradients: np.ndarray) -> np.ndarray:
        """Return gradients (n, d') in the metric, from gradients (n, d) along the columns of X."""
        return self._scale(self.columns.inside(gradients * self.columns.scales), 1 / self.scales)

    def hull_of(self, Z: np.ndarray, shards: Shards) -> AffineHull:
        """Return the affine hull of training rows Z (n_points, d'), in metric coordinates."""
        return AffineHull.of(Z, shards, self.basis[:, : self.n_axes] if self.n_axes else None)

    @property
    def is_euclidean(self) -> bool:
        """Whether the metric is the identity: noise then has the same scale in all columns."""
        return (
            not len(self.scales)
            and self.columns.warp is None
            and bool(np.all(self.columns.scales == self.unit))
        )

    @property
    def log_abs_det(self) -> float:
        """Return log |det| of the map from (mapped) columns to z and residuals of relations, in nats."""
        return float(np.sum(np.log(self.scales))) + self.columns.log_abs_det

    def _scale(self, rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
        if not len(scales):
            return rows
        return rows + (rows @ self.basis) * (scales - 1) @ self.basis.T


def check_metric(metric: Any, n_features: int) -> str | float | np.ndarray:
    """Return the parameter `metric` after checking it: a name, a power, or a matrix.

    Raises TypeError if it is neither a name, a number nor an array; ValueError if the name is not
    known, the power outside [0, 1], or the matrix not positive definite.
    """
    if isinstance(metric, str):
        if is_warped(metric):
            return warped(_checked_power(metric))
        return check_choice("metric", metric, ("auto", *_METRICS), hint=_HINT)
    if isinstance(metric, numbers.Real):
        return check_real("metric", metric, strict=False, maximum=1, hint=_HINT)
    if metric is None or isinstance(metric, dict | set):
        raise wrong_type("metric", metric, f"'auto', {', '.join(map(repr, _METRICS))}. {_HINT}")
    matrix = check_real_array("metric", metric)
    if matrix.shape != (n_features, n_features):
        raise ValueError(
            f"metric has shape {matrix.shape}; expected ({n_features}, {n_features}), a row and a "
            "column for each feature of X."
        )
    check_finite("metric", matrix, "Pass 'scaled' or 'whitened' to estimate it from the rows.")
    if np.abs(matrix - matrix.T).max() > _ROUNDING * np.abs(matrix).max():
        raise ValueError("metric is not symmetric; pass (metric + metric.T) / 2.")
    smallest, largest = np.linalg.eigvalsh(matrix)[[0, -1]]
    if smallest <= _ROUNDING * largest or largest <= 0:
        raise ValueError(
            f"metric has eigenvalues from {smallest:.3g} to {largest:.3g}; expected a positive definite "
            "matrix. Add a small multiple of the identity."
        )
    return matrix


def check_linear_metric(metric: Any, n_features: int) -> str | float | np.ndarray:
    """Return the parameter `metric` as `check_metric` does, if it maps no column and is not "auto"."""
    checked = check_metric(metric, n_features)
    if isinstance(checked, str) and (checked == "auto" or is_warped(checked)):
        raise ValueError(
            f"metric={metric!r} is a choice of SmoothedScoreDiffusion, whose columns may be mapped and "
            f"compared by leave-one-out likelihood; expected {', '.join(map(repr, _METRICS))}. {_HINT}"
        )
    return checked


def _checked_power(metric: str) -> str | float:
    """Return the metric of the mapped columns, from a name such as "warped local"."""
    name = metric.removeprefix(_WARPED)
    if name in _POWERS:
        return name
    try:
        power = float(name)
    except ValueError:
        power = math.nan
    if not 0 <= power <= 1:
        names = ", ".join(repr(warped(name)) for name in _POWERS)
        raise ValueError(
            f"metric={metric!r} is not known; expected {names}, or a power from 0 to 1 as in "
            "'warped 0.5'."
        )
    return power


def is_warped(metric: str | float | np.ndarray) -> bool:
    """Return whether some columns are mapped before the metric applies."""
    return isinstance(metric, str) and metric.startswith(_WARPED)


def warped(metric: str | float | np.ndarray) -> str:
    """Return the name of a metric, given by name or power, with maps of some columns before it."""
    return f"{_WARPED}{metric}"


def is_scaled(metric: str | float | np.ndarray) -> bool:
    """Return whether a metric divides columns by their scales: all but "euclidean" and matrices."""
    return not isinstance(metric, np.ndarray) and metric != "euclidean"


def candidate_metrics(rank: int) -> tuple[str | float, ...]:
    """Return the metrics that "auto" compares, for rows whose hull has this dimension."""
    return _CANDIDATES if rank > 1 else _CANDIDATES[:1]


def fit_metric(
    metric: str | float | np.ndarray,
    points: np.ndarray,
    weights: np.ndarray,
    shards: Shards = ONE_PROCESS,
    columns: ColumnSpace | None = None,
    unit: float = 1.0,
) -> LinearMetric:
    """Return the coordinates of a metric, which may depend on the data.

    - `metric`: checked. "scaled" divides columns by their standard deviations. A power alpha then
      multiplies by R^(-alpha / 2), R the correlation matrix, in the affine hull of the points;
      "whitened" is the power 1. Where the points are too few to span all columns, volumes in their
      hull do not change. "local" multiplies by the root of the inverse of the local covariance. A
      matrix M measures sqrt((x - y)^T M (x - y)). If a name begins with "warped ", the metric of the
      rest of the name is fitted to mapped columns; `columns` must contain the maps.
    - `points` (n_points, d): distinct rows of this process.
    - `weights` (n_points,): their weights, summing to one over all processes.
    - `shards`: the processes that hold the other points, if these are not all.
    - `columns`: scales and relations of the columns, if they come from more rows than these. Only
      powers use them.
    - `unit`: the power of two by which "euclidean" coordinates divide rows.
    """
    n_features = points.shape[1]
    if isinstance(metric, np.ndarray):
        variances, axes = np.linalg.eigh((metric + metric.T) / 2)
        return LinearMetric(ColumnSpace.plain(n_features), axes, np.sqrt(variances))
    if not is_scaled(metric):
        return replace(_plain(ColumnSpace.plain(n_features, unit)), unit=unit)
    if isinstance(metric, str) and is_warped(metric):
        metric = _checked_power(metric)
    power = _POWERS[metric] if isinstance(metric, str) else metric
    if not n_features:
        return _plain(ColumnSpace.plain(0))
    if columns is None:
        columns = ColumnSpace.of(points, weights, shards=shards)
    if power == 0:
        return _plain(columns)
    scaled = columns.inside(columns.scaled(points))
    hull = AffineHull.of(scaled, shards)
    within, _ = hull.split(scaled)
    within = within - shards.total(weights @ within)
    singular_values, axes = principal_axes(np.sqrt(weights)[:, None] * within, shards)
    # Directions in which only rows of negligible weight have extent get the width of rounding.
    smallest = np.finfo(np.float64).eps * singular_values.max(initial=0.0)
    stds = np.maximum(singular_values, smallest)
    basis, scales = hull.basis @ axes.T, stds**-power
    if metric == "local" and hull.dimension:
        if not shards.alone:
            raise ValueError(
                "metric='local' cannot be computed with shards='distributed'; fit a subsample with "
                "shards=None, or use another metric."
            )
        whitened = (within @ axes.T) / stds
        factor = np.linalg.cholesky(local_covariance(whitened, weights, columns.scaled(points)))
        directions, lengths, _ = np.linalg.svd(stds[:, None] * factor)
        basis, scales = basis @ directions, 1 / lengths
    is_open = hull.dimension < columns.n_directions
    if is_open and columns.covariance is not None:
        # The rows are a part of a table, which has extent along the other directions.
        normals = np.linalg.qr(hull.basis, mode="complete")[0][:, hull.dimension :]
        lifted = columns.lift(normals.T)
        variances, axes = np.linalg.eigh(lifted @ columns.covariance @ lifted.T)
        basis = np.column_stack([basis, normals @ axes])
        largest = float(np.trace(columns.covariance))
        variances = np.maximum(variances, (np.finfo(np.float64).eps) ** 2 * largest)
        relative = np.exp(np.mean(np.log(scales * stds**power))) if hull.dimension else 1.0
        scales = np.append(scales, relative * variances ** (-power / 2))
        is_open = False
    # The local covariance has no unit of its own, and in directions without extent, where rows are few,
    # noise is in units of scaled columns. So volumes in the hull are those in scaled columns.
    if hull.dimension and (metric == "local" or is_open):
        scales /= np.exp(np.mean(np.log(scales)))
    return LinearMetric(columns, basis, scales, hull.dimension)


def _plain(columns: ColumnSpace) -> LinearMetric:
    """Return the metric of scaled columns."""
    return LinearMetric(columns, np.empty((columns.n_directions, 0)), np.empty(0))
