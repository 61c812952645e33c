"""Periodic columns: their centers and scales, and their separate coordinates in metrics and hulls.

A periodic column is a coordinate of its own in every metric and hull, after those of the other columns:
no metric mixes it with others, no relation contains it, and it has no map. Rows are differences from
the circular mean, wrapped to half a period on either side (`ColumnSpace.scaled`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .._utils.periods import wrapped
from .._utils.rows import MergedRows
from .columns import ColumnSpace
from .hull import AffineHull
from .local_covariance import local_scales
from .metric import LinearMetric, fit_metric, is_scaled

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class PeriodicColumns:
    """The p periodic columns among d, which have coordinates of their own."""

    is_periodic: np.ndarray  # (d,): which columns they are
    # (d,): periods of all columns, 0 where a column has none. A column that has one but is not in
    # `is_periodic` is constant: it is wrapped, and otherwise like other constants.
    periods: np.ndarray
    # centers, scales (p,): circular means, and what the columns are divided by, in units of X
    centers: np.ndarray
    scales: np.ndarray
    has_extent: np.ndarray  # (p,): whether columns vary; the scales of those that do not are 1
    # (p,): order of the coordinates, by the resultant length, so that the columns' order has no effect
    order: np.ndarray
    signs: np.ndarray  # (p,): signs of the coordinates, by the circular skewness

    @classmethod
    def of(
        cls, points: np.ndarray, weights: np.ndarray, periods: np.ndarray, is_periodic: np.ndarray
    ) -> PeriodicColumns:
        """Return the columns of a mask (d,) with their centers and scales in rows (n, d)."""
        own = periods[is_periodic]
        columns = points[:, is_periodic]
        centers, stds = np.empty(len(own)), np.empty(len(own))
        signs = np.ones(len(own))
        for k, period in enumerate(own):
            centers[k] = circular_center(columns[:, k], weights, period)
            stds[k] = circular_std(columns[:, k], weights, period)
            angles = 2 * math.pi / period * wrapped(columns[:, k] - centers[k], period)
            signs[k] = -1.0 if weights @ (np.sin(angles) * (1 - np.cos(angles))) < 0 else 1.0
        has_extent = stds > 8 * _EPS * own
        order = np.argsort(-stds / own, kind="stable")
        scales = np.where(has_extent, stds, 1.0)
        return cls(is_periodic, periods, centers, scales, has_extent, order, signs)

    def with_scales(self, scales: np.ndarray) -> PeriodicColumns:
        """Return the same columns with scales (p,) for those that are constant."""
        return replace(self, scales=np.where(self.has_extent, self.scales, scales))

    def join_columns(self, linear: ColumnSpace | None) -> ColumnSpace:
        """Return the space of all columns: these and the `linear` ones; None scales no column."""
        d = len(self.is_periodic)
        if linear is None:
            plain = ColumnSpace.plain(d)
            origin = self._joined(np.zeros(d - len(self.scales)), self.centers)
            return replace(plain, origin=origin, periods=self.periods)
        p, n_directions = len(self.scales), linear.n_directions
        axes = None
        if linear.axes is not None:
            axes = np.zeros((d, n_directions + p))
            axes[~self.is_periodic, :n_directions] = linear.axes
            axes[self.is_periodic, n_directions:] = np.eye(p)
        warp = linear.warp
        if warp is not None:
            warp = replace(warp, columns=np.flatnonzero(~self.is_periodic)[warp.columns])
        return ColumnSpace(
            self._joined(linear.origin, self.centers),
            self._joined(linear.scales, self.scales),
            axes,
            self._joined(linear.widths, _EPS * self.periods[self.is_periodic] / self.scales),
            self._joined(linear.deviations, np.ones(p)),
            warp,
            self.periods,
        )

    def of_others(self, metric: str | float | np.ndarray) -> str | float | np.ndarray:
        """Return the metric of the other columns."""
        if not isinstance(metric, np.ndarray):
            return metric
        return metric[np.ix_(~self.is_periodic, ~self.is_periodic)]

    def factors(
        self,
        metric: str | float | np.ndarray,
        linear: LinearMetric,
        points: np.ndarray,
        weights: np.ndarray,
    ) -> np.ndarray:
        """Return the factors (p,) by which a metric multiplies the scaled periodic columns.

        `linear` is the metric of the other columns. In the local metric, kernels about neighbours are
        then equally wide in all coordinates.
        """
        if isinstance(metric, np.ndarray):
            return np.sqrt(np.diag(metric)[self.is_periodic])
        if not str(metric).endswith("local") or not np.any(self.has_extent):
            return np.ones(len(self.scales))
        own = self.periods[self.is_periodic]
        angles = wrapped(points[:, self.is_periodic] - self.centers, own) / self.scales
        rows = linear.to_metric(points[:, ~self.is_periodic])
        width, widths = local_scales(rows, angles, own / self.scales, weights)
        if not rows.shape[1]:
            width = float(np.exp(np.mean(np.log(widths))))
        return width / widths

    def join_metric(
        self, linear: LinearMetric, factors: np.ndarray, *, is_scaled: bool
    ) -> LinearMetric:
        """Return the metric of all columns, from that of the other columns and factors (p,)."""
        p = len(factors)
        position = self._positions(linear.columns)
        basis = np.zeros((linear.columns.n_directions + p, len(linear.scales) + p))
        basis[np.ix_(~position, np.arange(len(linear.scales)))] = linear.basis
        basis[position, len(linear.scales) :] = np.eye(p)
        periods = np.zeros(len(position))
        joined = self.join_columns(linear.columns if is_scaled else None)
        periods[position] = factors * self.periods[self.is_periodic]
        periods[position] /= joined.scales[self.is_periodic]
        scales = np.append(linear.scales, factors)
        if np.all(factors == 1):
            basis, scales = basis[:, : len(linear.scales)], linear.scales
        return LinearMetric(joined, basis, scales, linear.n_axes, periods)

    def join_hull(self, linear: AffineHull, metric: LinearMetric) -> AffineHull:
        """Return the hull of all columns, with periodic coordinates last, from that of the others."""
        position = self._positions(metric.columns)
        p, r = len(self.scales), linear.dimension
        center, basis = np.zeros(len(position)), np.zeros((len(position), r + p))
        center[~position] = linear.center
        basis[~position, :r] = linear.basis
        basis[np.flatnonzero(position)[self.order], r + np.arange(p)] = self.signs[self.order]
        return AffineHull(center, basis)

    def _positions(self, linear: ColumnSpace) -> np.ndarray:
        """Return which coordinates of the metric are periodic columns."""
        if linear.axes is None:
            return self.is_periodic
        return np.arange(linear.n_directions + len(self.scales)) >= linear.n_directions

    def _joined(self, linear: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return values (d,) of all columns, from those of linear and of periodic columns."""
        values = np.empty(len(self.is_periodic))
        values[~self.is_periodic], values[self.is_periodic] = linear, own
        return values


def check_metric_of_periods(metric: str | float | np.ndarray, periods: np.ndarray) -> None:
    """Raise an error if a matrix mixes columns that have periods (d,) with others."""
    if isinstance(metric, np.ndarray):
        off_diagonal = metric - np.diag(np.diag(metric))
        columns = np.flatnonzero((periods > 0) & off_diagonal.any(axis=0))
        if len(columns):
            raise ValueError(
                f"metric mixes column {columns[0]}, which has the period {periods[columns[0]]:g}, with "
                "others; expected zeros off the diagonal in its row. Set them to zero, or drop the "
                "period."
            )


def fit_metric_of_rows(
    metric: str | float | np.ndarray, rows: MergedRows, unit: float = 1.0
) -> LinearMetric:
    """Return `fit_metric` of training rows, whose columns may have periods; see there."""
    if rows.periods is not None:
        return _fit_metric_of_periods(metric, rows, rows.periods)
    columns = None
    if is_scaled(metric):
        columns = ColumnSpace.of_part(rows.points, rows.weights, rows.precision.unit, rows.whole)
    return fit_metric(metric, rows.points, rows.weights, columns=columns, unit=unit)


def _fit_metric_of_periods(
    metric: str | float | np.ndarray, rows: MergedRows, periods: np.ndarray
) -> LinearMetric:
    """Return `fit_metric` of rows whose columns have periods (d,), 0 where one has none."""
    points, weights = rows.points, rows.weights
    is_periodic = periods > 0
    if is_scaled(metric) and len(points) > 1:
        is_periodic &= np.ptp(points, axis=0) > 0
    periodic = PeriodicColumns.of(points, weights, periods, is_periodic)
    others = ~is_periodic
    columns = None
    if others.any():
        whole, units = rows.whole, rows.precision.unit[others]
        whole = None if whole is None else whole.only(others)
        columns = ColumnSpace.of_part(points[:, others], weights, units, whole)
    linear = fit_metric(periodic.of_others(metric), points[:, others], weights, columns=columns)
    factors = periodic.factors(metric, linear, points, weights)
    return periodic.join_metric(linear, factors, is_scaled=is_scaled(metric))


def _moment(values: np.ndarray, weights: np.ndarray, period: float) -> tuple[float, float, float]:
    """Return a circular mean, one minus the mean cosine about it, and the mean sine about it."""
    angles = 2 * math.pi / period * values
    center = period / (2 * math.pi) * math.atan2(weights @ np.sin(angles), weights @ np.cos(angles))
    angles = 2 * math.pi / period * wrapped(values - center, period)
    # One minus a cosine near one would be rounding.
    return center, float(2 * weights @ np.sin(angles / 2) ** 2), float(weights @ np.sin(angles))


def circular_center(values: np.ndarray, weights: np.ndarray, period: float) -> float:
    """Return the circular mean of values (n,), from 0 to the period; `weights` (n,) sum to one."""
    center, below_one, sine = _moment(values, weights, period)
    center += period / (2 * math.pi) * math.atan2(sine, 1 - below_one)
    return center % period


def circular_std(values: np.ndarray, weights: np.ndarray, period: float) -> float:
    """Return the standard deviation of values (n,) of a period; `weights` (n,) sum to one.

    With R the resultant length it is sqrt(-2 log R), in radians, that of the wrapped normal distribution
    of the same R, and at most that of the uniform distribution. For narrow data it is the usual std.
    """
    _, below_one, sine = _moment(values, weights, period)
    # 1 - R^2, from the first moment about the mean.
    complement = 2 * below_one - below_one**2 - sine**2
    uniform = period / math.sqrt(12)
    if complement >= 1:
        return uniform
    angle = math.sqrt(max(-math.log1p(-complement), 0.0))
    return min(period / (2 * math.pi) * angle, uniform)
