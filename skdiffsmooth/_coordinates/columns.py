"""Scales of the columns, and the exact linear relations that the rows satisfy.

With the columns in units of their standard deviations, u = (x - origin) / scales, every training row
is in the span of orthonormal axes A (d, d'): u = A y. The other d - d' directions are relations:
constant columns, copies, sums of other columns. Along them a row has a Gaussian residual e: rounding
errors D^(1/2) xi of the columns (D diagonal, xi standard normal), without their part along A. Whatever
the noise scale is, the covariance of e is N^T D N for any orthonormal basis N of the complement of A.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from .._utils.column_precision import relative_rounding
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.periods import reduced, wrapped
from .._utils.rows import WholeTable, order_from_center
from .._utils.shards import ONE_PROCESS, Shards
from .._utils.units import column_sizes
from .hull import principal_axes
from .warp import ColumnWarp, fit_warp

_EPS = float(np.finfo(np.float64).eps)
# Bounds in units of the rounding error of a column's largest value. A column whose range is below the
# first is constant; standardised columns that differ by less than the second are copies; relations are
# as wide as the third: rounding lowers log-densities of rows that satisfy them by less than 1e-8 nats.
# With float32 numbers draws would then be visibly off relations. So these are as wide as the fourth, and
# rounding lowers log-densities by less than 1e-4 nats.
_CONSTANT, _COPY, _RELATION, _SINGLE_RELATION = 8, 32, 2**14, 2**6
# A column is in no relation if the squared norm of its part along relations is below this.
_FREE = 1e-9
# A column that others determine keeps at least this weight in distances.
_LEAST_INFLUENCE = 1e-3
_N_STEPS = 50
# A row that is off a relation by this many widths breaks it.
_BROKEN = 10
# Smallest scale of a column, in units of the steps in which it was recorded.
_LEAST_SCALE = 1.5


@dataclass(frozen=True)
class ColumnSpace:
    """Columns in units of their scales, in coordinates without the relations between them."""

    # (d,): a training row, which is subtracted first, so that large offsets lose no digits
    origin: np.ndarray
    # (d,): what each column is divided by: its standard deviation, times sqrt(k) for each of k
    # copies
    scales: np.ndarray
    axes: np.ndarray | None  # (d, d'): orthonormal columns A, or None for all d directions
    # (d,): standard deviation of the rounding error of each column, in units of its scale
    widths: np.ndarray
    # (d,): standard deviation of each column in units of its scale, 0 for constants
    deviations: np.ndarray
    # Monotone maps of some columns, applied first; all other fields are in units of mapped columns
    warp: ColumnWarp | None = None
    # (d,): periods of the columns in units of X, 0 where a column has none; None where no column
    # has one. Differences from the origin are wrapped, and rows of X are from 0 to the period.
    periods: np.ndarray | None = None
    # (d, d): covariance of the whole table, in scaled columns, if the rows are a part of it without
    # extent along some of its directions
    covariance: np.ndarray | None = None

    @classmethod
    def plain(cls, n_features: int, unit: float = 1.0) -> ColumnSpace:
        """Return the columns as they are, in a common unit."""
        scales = np.full(n_features, unit)
        return cls(np.zeros(n_features), scales, None, *np.zeros((2, n_features)))

    @classmethod
    def of(
        cls,
        points: np.ndarray,
        weights: np.ndarray,
        units: np.ndarray | None = None,
        shards: Shards = ONE_PROCESS,
        rounding: np.ndarray | float = 0.0,
        eps: np.ndarray | None = None,
    ) -> ColumnSpace:
        """Return scales and relations of distinct rows (n_points, d) with weights that sum to one.

        `units` (d,) are the steps in which columns were recorded, 0 where they are not known. A relation
        is as wide as half a step, or as the rounding of the floats, of relative size `eps` (d,), or as
        `rounding` (d,) if that is larger.
        """
        n_features = points.shape[1]
        units = np.zeros(n_features) if units is None else units
        origin = shards.first(typical_row(points))
        if shards.total(len(points)) == 1:
            # A single row has no scale and no relation.
            return replace(cls.plain(n_features), origin=origin)
        largest = np.max(shards.gather(np.abs(points).max(axis=0)), axis=0)
        largest = np.maximum(largest, rounding / _EPS)
        eps = relative_rounding(points) if eps is None else eps
        eps = np.min(shards.gather(eps), axis=0)
        centered = points - origin
        extent = np.max(shards.gather(np.abs(centered).max(axis=0)), axis=0)
        varies = extent > _CONSTANT * eps * largest
        # A power of two for each column scales without rounding, and keeps squares within range.
        exponents = np.frexp(np.where(varies, extent, 1.0))[1]
        centered = np.ldexp(centered[:, varies], -exponents[varies])
        centered, stds = _standardised(centered, weights, shards)
        scales = np.where(units > 0, units, np.where(largest > 0, largest, 1.0))
        scales[varies] = np.ldexp(stds, exponents[varies])
        noise = np.zeros(n_features)
        noise[varies] = (eps * largest / scales)[varies]
        group, sign, sizes = _copies(centered, _COPY * noise[varies], shards)
        scales[varies] *= np.sqrt(sizes[group])
        axes = np.zeros((n_features, len(sizes)))
        axes[np.flatnonzero(varies), group] = sign / np.sqrt(sizes[group])
        # One column of each group of copies is used in place of all of them.
        firsts = np.unique(group, return_index=True)[1]
        group_noise = np.zeros(len(sizes))
        np.maximum.at(group_noise, group, noise[varies])
        within = _without_relations(centered[:, firsts], group_noise, shards)
        has_axes = len(sizes) < n_features or within is not None
        if within is not None:
            factors = np.sqrt(_influence_of_columns(within))
            axes = np.linalg.qr(axes @ (within * factors[:, None]))[0]
            scales[varies] /= factors[group]
        relative = np.maximum(_RELATION * _EPS, _SINGLE_RELATION * eps)
        width = np.maximum(relative * np.where(largest > 0, largest, 1.0), units / 2)
        deviations = np.zeros(n_features)
        deviations[varies] = stds / np.ldexp(scales[varies], -exponents[varies])
        space = cls(origin, scales, axes if has_axes else None, width / scales, deviations)
        # A column that varies by less than its unit would determine the bandwidth of all columns.
        ratios = np.maximum(_LEAST_SCALE * units / (scales * np.maximum(deviations, _EPS)), 1.0)
        return space._rescaled(np.where(varies, ratios, 1.0))

    @classmethod
    def of_part(
        cls,
        points: np.ndarray,
        weights: np.ndarray,
        units: np.ndarray | None,
        whole: WholeTable | None,
        shards: Shards = ONE_PROCESS,
        warp: ColumnWarp | None = None,
    ) -> ColumnSpace:
        """Return scales and relations of rows, of which `warp` maps some columns, in a `whole` table.

        A relation that holds in a part only (a sum that is broken in one row of the table, say) would be
        as wide as rounding: log-densities would be 20 nats above those of other parts, and 1e20 below
        them at that row. So a part has the relations of the table. In other directions in which its rows
        have no extent, its density is as wide as the noise, with the covariance of the table there.
        """
        mapped = points
        if warp is not None:
            mapped = warp.mapped(points)
            if units is not None:
                units = units.copy()
                units[warp.columns] = 0.0
        rounding = np.zeros(points.shape[1]) + (0.0 if whole is None else whole.rounding)
        if warp is not None:
            rounding[warp.columns] = 0.0
        # Folds and classes that happen to hold float32 numbers have the width of the table.
        eps = relative_rounding(points if whole is None else whole.points)
        if warp is not None:
            eps[warp.columns] = _EPS
        space = replace(cls.of(mapped, weights, units, shards, rounding, eps), warp=warp)
        if whole is None or whole.points is points:
            return space
        table = cls.of_part(whole.points, whole.weights, whole.precision.unit, whole, warp=warp)
        if table.n_directions == space.n_directions:
            return space
        assert units is not None
        # The rows vary along too few directions for scales of their own.
        rows = table.scaled(points)
        is_constant = np.ptp(rows, axis=0) <= _CONSTANT * table.widths / _RELATION
        is_constant &= table.deviations > 0
        stds = np.where(is_constant, table.scales * table.deviations, 1.0)
        ratios = np.where(is_constant, np.maximum(_LEAST_SCALE * units / stds, 1.0), 1.0)
        space = table._rescaled(ratios, table.deviations * ratios)
        rows = space.scaled(whole.points)
        rows -= whole.weights @ rows
        return replace(space, covariance=(rows.T * whole.weights) @ rows)

    def warped(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        units: np.ndarray | None,
        whole: WholeTable | None = None,
    ) -> ColumnSpace | None:
        """Return the same columns with maps of those that need one and are in no relation, or None."""
        warp = fit_warp(points, weights, self.is_free, units)
        if warp is None:
            return None
        return ColumnSpace.of_part(points, weights, units, whole, warp=warp)

    def of_rows(self, points: np.ndarray, weights: np.ndarray) -> ColumnSpace:
        """Return the columns with the scales of other rows (n, d); constant columns keep theirs."""
        rows = self.scaled(points)
        varies = np.ptp(rows, axis=0) > _CONSTANT * self.widths / _RELATION
        varies &= self.deviations > 0
        ratios = np.ones(self.n_features)
        ratios[varies] = _standardised(rows[:, varies], weights)[1] / self.deviations[varies]
        return self._rescaled(ratios, self.deviations * ratios)

    def _rescaled(self, ratios: np.ndarray, deviations: np.ndarray | None = None) -> ColumnSpace:
        """Return the same relations with scales (d,) that are multiplied by ratios."""
        if np.all(ratios == 1):
            return self
        axes = None if self.axes is None else np.linalg.qr(self.axes / ratios[:, None])[0]
        deviations = (self.deviations if deviations is None else deviations) / ratios
        return replace(
            self,
            scales=self.scales * ratios,
            axes=axes,
            widths=self.widths / ratios,
            deviations=deviations,
            covariance=None
            if self.covariance is None
            else self.covariance / ratios / ratios[:, None],
        )

    @property
    def n_features(self) -> int:
        """Number d of columns of X."""
        return len(self.scales)

    @property
    def n_directions(self) -> int:
        """Number d' of directions without relations."""
        return self.n_features if self.axes is None else self.axes.shape[1]

    @property
    def is_free(self) -> np.ndarray:
        """Which columns (d,) vary and are in no relation."""
        is_free = self.deviations > 0
        if self.axes is not None:
            # The span of the axes contains the unit vector of a column that is in no relation.
            is_free &= np.sum(self.axes**2, axis=1) > 1 - _FREE
        return is_free

    @property
    def n_relations(self) -> int:
        """Number d - d' of relations."""
        return self.n_features - self.n_directions

    @property
    def log_abs_det(self) -> float:
        """Return the log |det| of the map from X to scaled columns, in nats, without `log_slopes`."""
        return -float(np.sum(np.log(self.scales)))

    def scaled(self, X: np.ndarray) -> np.ndarray:
        """Return rows X (n, d) in scaled columns, relative to the origin."""
        mapped = X if self.warp is None else self.warp.mapped(X)
        differences = mapped - self.origin
        if self.periods is not None:
            for column in np.flatnonzero(self.periods):
                differences[:, column] = wrapped(differences[:, column], self.periods[column])
        return differences / self.scales

    def unscaled(self, rows: np.ndarray) -> np.ndarray:
        """Return rows in units of X, from scaled columns (n, d)."""
        mapped = self.origin + rows * self.scales
        X = mapped if self.warp is None else self.warp.unmapped(mapped)
        return X if self.periods is None else reduced(X, self.periods)

    def log_slopes(self, rows: np.ndarray) -> np.ndarray | float:
        """Return the log |det| (n,) of the maps at rows in scaled columns (n, d), in nats, or 0."""
        return 0.0 if self.warp is None else self.warp.log_slopes(self.unscaled(rows))

    def inside(self, rows: np.ndarray) -> np.ndarray:
        """Return coordinates (n, d') along `axes` of rows or directions in scaled columns (n, d)."""
        return rows if self.axes is None else rows @ self.axes

    def lift(self, coordinates: np.ndarray) -> np.ndarray:
        """Return rows or directions (n, d) in scaled columns, from their coordinates (n, d')."""
        return coordinates if self.axes is None else coordinates @ self.axes.T

    def outside(self, rows: np.ndarray) -> np.ndarray:
        """Return the part (n, d) of rows or directions in scaled columns that breaks relations."""
        return np.zeros_like(rows) if self.axes is None else rows - self.lift(self.inside(rows))

    def along(self, steps: np.ndarray) -> np.ndarray:
        """Return differences of rows (n, d) in units of X, without their part that breaks relations."""
        return self.lift(self.inside(steps / self.scales)) * self.scales

    def order(self, points: np.ndarray) -> np.ndarray:
        """Return an order (n,) of rows that does not depend on the order or the units of columns."""
        return order_from_center(self.inside(self.scaled(points)))

    def relation_axes(self) -> np.ndarray:
        """Return directions (d - d', d) of the noise along relations, whose lengths are its stds."""
        if self.axes is None:
            return np.empty((0, self.n_features))
        normals = np.linalg.qr(self.axes, mode="complete")[0][:, self.n_directions :]
        _, lengths, right = np.linalg.svd(self.widths[:, None] * normals, full_matrices=False)
        return lengths[:, None] * (normals @ right.T).T

    def relation_noise(self, shape: tuple[int, int], rng: np.random.RandomState) -> np.ndarray:
        """Return rounding errors (n, d) along the relations, in scaled columns."""
        return self.outside(self.widths * rng.standard_normal(shape))

    def relation_log_density(self, residual: np.ndarray) -> np.ndarray:
        """Return the log-density (n,) of residuals (n, d) along the relations, in nats."""
        if self.axes is None:
            return np.zeros(len(residual))
        errors, triangle = self._likeliest_errors(residual)
        # The determinant of N^T D N is det D det(A^T D^-1 A), and D^(-1/2) A = Q R.
        log_volume = np.log(self.widths).sum() + np.log(np.abs(np.diag(triangle))).sum()
        normalizer = gaussian_log_normalizer(self.n_relations, 1.0) + log_volume
        return -0.5 * np.sum(errors**2, axis=1) - normalizer

    def breaks_relations(self, X: np.ndarray) -> np.ndarray:
        """Return which rows X (n, d) are more than ten widths (50 nats or more) off a relation."""
        if self.axes is None:
            return np.zeros(len(X), dtype=bool)
        errors, _ = self._likeliest_errors(self.outside(self.scaled(X)))
        return np.max(np.abs(errors), axis=1) > _BROKEN

    def relation_gradient(self, residual: np.ndarray) -> np.ndarray:
        """Return the gradient (n, d) of `relation_log_density` along the scaled columns."""
        if self.axes is None:
            return np.zeros_like(residual)
        return -self._likeliest_errors(residual)[0] / self.widths

    def _likeliest_errors(self, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the likeliest rounding errors (n, d) that give residuals, in widths, and R of a QR."""
        assert self.axes is not None
        basis, triangle = np.linalg.qr(self.axes / self.widths[:, None])
        errors = residual / self.widths
        return errors - (errors @ basis) @ basis.T, triangle


def typical_row(points: np.ndarray) -> np.ndarray:
    """Return a row (d,) near the median of each column, whatever the units and the orders are."""
    middle = len(points) // 2
    distances = np.abs(points - np.partition(points, middle, axis=0)[middle])
    largest = column_sizes(distances)
    relative = distances / np.where(largest > 0, largest, 1.0)
    return points[np.argmin(np.sum(relative, axis=1))]


def _standardised(
    rows: np.ndarray, weights: np.ndarray, shards: Shards = ONE_PROCESS
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n, k) with mean zero and variance one, and their standard deviations (k,)."""
    centered = rows - shards.total(weights @ rows)
    # After a large mean the first difference is rounded; the second corrects it.
    centered -= shards.total(weights @ centered)
    stds = np.sqrt(shards.total(weights @ centered**2))
    # If only rows of negligible weight differ from the others, weights are ignored.
    n_points = shards.total(len(centered))
    plain = np.sqrt(shards.total(np.sum(centered**2, axis=0)) / n_points)
    stds = np.where(stds > _EPS * plain, stds, plain)
    return centered / stds, stds


def _copies(
    standardised: np.ndarray, tolerance: np.ndarray, shards: Shards
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return group (k,) and sign (k,) of columns that are equal up to sign, and sizes of groups."""
    n_columns = standardised.shape[1]
    draws = np.random.RandomState(shards.rank).standard_normal(len(standardised))
    projections = shards.total(draws @ standardised)
    error = shards.total(np.abs(draws).sum()) * tolerance
    sign = np.where(projections < 0, -1.0, 1.0)
    representative = np.arange(n_columns)
    # Copies have equal projections on random directions, up to the sign, and so are next to each other.
    order = np.argsort(np.abs(projections), kind="stable")
    for before, column in itertools.pairwise(order.tolist()):
        gap = abs(projections[column]) - abs(projections[before])
        if gap > error[column] + error[before]:
            continue
        first = representative[before]
        difference = sign[column] * standardised[:, column] - sign[first] * standardised[:, first]
        if shards.largest(np.abs(difference).max()) <= tolerance[column] + tolerance[first]:
            representative[column] = first
    # Groups are numbered by their first columns.
    for first in np.unique(representative):
        members = np.flatnonzero(representative == first)
        representative[members] = members[0]
    firsts, group, sizes = np.unique(representative, return_inverse=True, return_counts=True)
    return group.ravel(), sign * sign[firsts[group.ravel()]], sizes


def _influence_of_columns(loadings: np.ndarray) -> np.ndarray:
    """Return weights w (k,) of columns with loadings b_j (k, r) that make sum_j w_j b_j b_j^T largest.

    The determinant of the sum is the largest for weights of sum r: they give the ellipsoid of John
    (1948), the largest in which no column exceeds one. Copies of columns do not change the sum, and
    without relations (k = r) all weights are one. (Multiplicative steps: Titterington 1976.)
    """
    weights = np.full(len(loadings), loadings.shape[1] / len(loadings))
    for _ in range(_N_STEPS):
        moments = (loadings * weights[:, None]).T @ loadings
        weights *= np.sum(loadings * np.linalg.solve(moments, loadings.T).T, axis=1)
    return np.maximum(weights, _LEAST_INFLUENCE)


def _without_relations(columns: np.ndarray, noise: np.ndarray, shards: Shards) -> np.ndarray | None:
    """Return axes (k, r) that span rows (n, k) up to rounding `noise` (k,); None without relations."""
    n_points, n_columns = shards.total(len(columns)), columns.shape[1]
    columns = columns - shards.total(columns.sum(axis=0)) / n_points
    singular_values, directions = principal_axes(columns, shards)
    # The first term is the error of the decomposition, the second the length of rounding errors.
    size = np.sqrt(n_points) + np.sqrt(n_columns)
    rounding = _EPS * max(n_points, n_columns) * singular_values.max(initial=0.0)
    rounding = rounding + 4 * size * np.sqrt(directions**2 @ (noise**2 + _EPS**2))
    spanned = singular_values > rounding
    rank = int(spanned.sum())
    return directions[spanned].T if rank < min(n_columns, n_points - 1) else None
