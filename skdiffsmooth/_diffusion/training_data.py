"""Training rows, with the scales, relations and periods of their columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .._coordinates.columns import ColumnSpace
from .._coordinates.metric import is_scaled, is_warped
from .._coordinates.periodic import PeriodicColumns
from .._utils.cached import cached_property
from .._utils.dequantize import ExcludedRows, excluded_rows
from .._utils.rows import WholeTable, evenly
from .._utils.shards import Shards
from .settings import Metric


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Distinct training rows (n_points, d) and their weights (n_points,), which sum to one."""

    points: np.ndarray
    weights: np.ndarray
    shards: Shards
    n_samples: int  # How many rows the user passed
    is_weighted: bool  # Whether the user passed weights
    units: np.ndarray | None = None
    """The step (d,) in which each column was recorded, 0 where it is unknown; None if all are."""
    widths: np.ndarray | None = None
    """Widths (d,) of the intervals of values that were recorded as the same value; None is 0."""
    table: TrainingData | None = None
    """All rows, of which these are a part; relations and maps of columns are those of all rows."""
    periods: np.ndarray | None = None
    """Period (d,) of each column, 0 where it has none; None where no column has one."""
    whole: WholeTable | None = None
    """The user's table, if these rows are a part of it that keeps its relations between columns."""

    @cached_property
    def columns(self) -> ColumnSpace:
        """Scales of the columns and relations between them."""
        if self.periodic is not None:
            return self.periodic.join_columns(self.linear.columns)
        if not self.points.shape[1]:
            return ColumnSpace.plain(0)
        if self.table is not None:
            return self.table.columns.of_rows(self.points, self.weights)
        return ColumnSpace.of_part(self.points, self.weights, self.units, self.whole, self.shards)

    def with_rows(self, points: np.ndarray, weights: np.ndarray) -> TrainingData:
        """Return other rows (n, d) of the same table, with weights (n,) of any sum."""
        weights = weights / weights.sum()
        return TrainingData(
            points,
            weights,
            self.shards,
            len(points),
            is_weighted=True,
            widths=self.widths,
            table=self.table or self,
            periods=self.periods,
        )

    @cached_property
    def periodic(self) -> PeriodicColumns | None:
        """The periodic columns that vary, for metrics of scaled columns; None if none has a period."""
        if self.periods is None:
            return None
        own = PeriodicColumns.of(self.points, self.weights, self.periods, self._varies)
        if self.table is None or self.table.periodic is None:
            return own
        # Columns that are constant in these rows keep their scales.
        return own.with_scales(self.table.periodic.scales)

    def periodic_for(self, metric: Metric) -> PeriodicColumns | None:
        """Return the periodic columns that are separate coordinates in a metric, or None."""
        if self.periods is None or is_scaled(metric):
            return self.periodic
        return PeriodicColumns.of(self.points, self.weights, self.periods, self.periods > 0)

    @property
    def has_circles(self) -> bool:
        """Whether there are periodic columns, and more than one dimension varies."""
        return self.periodic is not None and len(self.periodic.scales) + self.rank > 1

    @property
    def _varies(self) -> np.ndarray:
        """Mask (d,) of columns that are periodic and vary; a constant scaled column is a relation."""
        assert self.periods is not None
        points = self.points if self.table is None else self.table.points
        return (self.periods > 0) & ((len(points) == 1) | (np.ptp(points, axis=0) > 0))

    @cached_property
    def linear(self) -> TrainingData:
        """The same rows without the `periodic` columns."""
        return self.only(~self._varies, None if self.table is None else self.table.linear)

    def only(self, kept: np.ndarray, table: TrainingData | None = None) -> TrainingData:
        """Return the same rows (parts of `table`) with the columns of a mask (d,), without periods."""
        return replace(
            self,
            points=self.points[:, kept],
            units=None if self.units is None else self.units[kept],
            widths=None if self.widths is None else self.widths[kept],
            table=table,
            periods=None,
            whole=None if self.whole is None else self.whole.only(kept),
        )

    @cached_property
    def excluded(self) -> ExcludedRows | None:
        """Values at which left-out rows are scored if columns are rounded; None: their own values."""
        return excluded_rows(self.points, self.weights, self.widths)

    def evenly(self, most: int) -> np.ndarray:
        """Return the indices of at most `most` rows, taken evenly by their distance from the center."""
        n_points = len(self.points)
        if n_points <= most:
            return np.arange(n_points)
        return np.sort(self.columns.order(self.points)[evenly(n_points, most)])

    @cached_property
    def warped_columns(self) -> ColumnSpace | None:
        """The same as `columns`, with maps of the columns that need one; None if none does."""
        if self.periodic is not None:
            linear = self.linear.warped_columns
            return None if linear is None else self.periodic.join_columns(linear)
        return self.columns.warped(self.points, self.weights, self.units, self.whole)

    def columns_for(self, metric: Metric) -> ColumnSpace | None:
        """Return the scales, relations and maps of columns in a metric; None if it uses none of them."""
        if self.table is not None:
            columns = self.table.columns_for(metric)
            return None if columns is None else columns.of_rows(self.points, self.weights)
        if not is_warped(metric):
            return self.columns if is_scaled(metric) else None
        if not self.shards.alone:
            raise ValueError(
                f"metric={metric!r} cannot be computed with shards='distributed', since maps of columns "
                "are fitted to all rows; use another metric."
            )
        return self.warped_columns or self.columns

    @property
    def rank(self) -> int:
        """Dimension of the affine hull of the points, without periodic columns."""
        columns = self.columns if self.periods is None else self.linear.columns
        return min(columns.n_directions, self.shards.total(len(self.points)) - 1)
