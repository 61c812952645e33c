"""Rows that were drawn from a density, the values of their columns, and what is estimated from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.utils.validation import check_is_fitted

from .._utils.estimator import DensityEstimatorMixin
from .._utils.given import resolve_columns
from .._utils.validation import check_generator, check_real_array
from ..compose import sample
from ..compose._members import unwrap
from ._column import listed, without_zone
from ._columns import TableColumns
from ._frames import FrameType, as_objects, read_frame, shown
from ._kinds import Periodic, WithLevels

# Distance of neighbouring levels, larger than any distance of normal scores.
_LEVEL_DISTANCE = 100.0


class Estimate(NamedTuple):
    """A value that is estimated from draws, and its standard error.

    Both are floats, or arrays of one shape.
    """

    value: Any
    error: Any


def generator_of(model: Any, random_state: Any) -> np.random.RandomState:
    """Return the generator of draws of a model, which must be a fitted density."""
    if isinstance(model, type) or not hasattr(model, "fit"):
        raise TypeError(
            f"model={model!r:.100} has type {type(model).__name__}; expected a fitted density, such as "
            "TableDensity().fit(frame)."
        )
    check_is_fitted(model)
    own = getattr(model, "random_state", None)
    return check_generator(own if random_state is None else random_state)


@dataclass(frozen=True)
class DrawnColumn:
    """The values of one column in all draws."""

    name: Any
    values: np.ndarray  # (n,) numbers, dates or durations; of a column with levels, their indices
    levels: tuple[Any, ...] | None
    is_ordered: bool
    atoms: tuple[float, ...]
    unit: float  # the width in which values were recorded; 0 where they are exact
    period: tuple[float, float] | None  # where the period begins and ends
    index: int  # of the column in the rows

    @property
    def is_time(self) -> bool:
        """Whether values are dates or durations."""
        return self.values.dtype.kind in "mM"

    @property
    def tolerance(self) -> Any:
        """Largest difference, by floating-point rounding, of values that are taken as equal."""
        if self.is_time:
            return np.timedelta64(0)
        return 1e-9 * self.unit if self.levels is None else 0

    def positions(self, values: Any) -> np.ndarray:
        """Return the user's values in the form of `self.values`: levels become their indices."""
        if self.levels is not None:
            index = {level: k for k, level in enumerate(self.levels)}
            array = np.empty((), dtype=object)
            array[()] = values
            if not isinstance(values, str | bytes):
                array = np.asarray(values, dtype=object)
            unknown = [each for each in array.flat if each not in index]
            if unknown:
                raise ValueError(
                    f"column {self.name!r} has no level {shown(unknown[0])}; expected levels among "
                    f"{listed(self.levels)}."
                )
            flat = [index[each] for each in array.flat]
            return np.array(flat, dtype=np.intp).reshape(array.shape)
        if self.is_time:
            try:
                return np.asarray(without_zone(values), dtype=self.values.dtype)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"column {self.name!r} holds values of type {self.values.dtype}, and {values!r:.50} "
                    f"is none ({error}); expected what numpy converts to it."
                ) from error
        array = check_real_array(f"the value of column {self.name!r}", values, allow_bool=False)
        if np.isnan(array).any():
            raise ValueError(f"the value of column {self.name!r} is NaN; expected a number.")
        return array

    def followed_by(self, more: DrawnColumn) -> DrawnColumn:
        """Return the column with the values of further draws appended."""
        return replace(self, values=np.concatenate([self.values, more.values]))

    def check_order(self) -> None:
        """Raise ValueError if the column has levels without an order."""
        if self.levels is not None and not self.is_ordered:
            raise ValueError(
                f"column {self.name!r} has levels without an order; expected a column of numbers, dates "
                "or ordered levels. Pass a list of levels to probability, or declare the column as "
                "Ordinal([...])."
            )

    def holds(self, condition: Any) -> np.ndarray:
        """Return which draws (n,) satisfy a condition."""
        if isinstance(condition, tuple):
            return self._is_between(condition)
        if isinstance(condition, list | set | frozenset | np.ndarray):
            values = list(condition)
            if not values:
                raise ValueError(f"event[{self.name!r}] is empty; expected at least one value.")
            return np.any([self._is_at(value) for value in values], axis=0)
        return self._is_at(condition)

    def _is_at(self, value: Any) -> np.ndarray:
        """Return which draws (n,) have a value."""
        position = self.positions(value)
        if position.shape:
            raise ValueError(
                f"event[{self.name!r}]={value!r:.50} has shape {position.shape}; expected one value, an "
                "interval as a tuple (low, high), or a list of values."
            )
        if self.levels is None and not self.unit and position not in self.atoms:
            raise ValueError(
                f"event[{self.name!r}]={value!r:.50} is one value of a column of exact numbers, which "
                "has probability zero; expected an interval (low, high)."
            )
        return abs(self.values - position) <= self.tolerance

    def _is_between(self, condition: tuple[Any, ...]) -> np.ndarray:
        """Return which draws (n,) are in an interval."""
        if len(condition) != 2:
            raise ValueError(
                f"event[{self.name!r}]={condition!r:.100} is a tuple of {len(condition)}; expected an "
                "interval (low, high), or a list of values."
            )
        self.check_order()
        low, high = (None if end is None else self.positions(end)[()] for end in condition)
        inside = np.ones(len(self.values), dtype=bool)
        from_low = inside if low is None else self.values >= low - self.tolerance
        to_high = inside if high is None else self.values <= high + self.tolerance
        if self.period is not None:
            start, end = self.period
            if any(not start <= each <= end for each in (low, high) if each is not None):
                raise ValueError(
                    f"event[{self.name!r}]={condition!r:.100} is outside the period from {start:g} to "
                    f"{end:g}; expected ends within it. Pass (22, 2) for two hours about midnight."
                )
        if low is not None and high is not None and (low > high):
            if self.period is None:
                raise ValueError(
                    f"event[{self.name!r}]={condition!r:.100} is empty: its lower end is above its "
                    "upper end; expected (low, high)."
                )
            return from_low | to_high
        if low is not None and low == high and self.levels is None:
            return self._is_at(condition[0])
        return from_low & to_high

    def parts(self, n_bins: int) -> tuple[list[Any], np.ndarray]:
        """Return the parts of the column (see `Marginal`), and the index (n,) of each draw's part."""
        if self.levels is not None:
            return list(self.levels), self.values
        distinct, index, counts = np.unique(self.values, return_inverse=True, return_counts=True)
        starts = np.arange(len(distinct))
        if len(distinct) > n_bins:
            ordered = np.sort(self.values)
            low, high = ordered[[len(ordered) // 100, -1 - len(ordered) // 100]]
            steps = [0.5] if n_bins == 2 else np.arange(n_bins - 1) / (n_bins - 2)
            targets = [low + (high - low) * step for step in steps]
            at_atoms = np.searchsorted(distinct, self.atoms)
            at_targets = np.searchsorted(distinct, np.array(targets, dtype=distinct.dtype))
            starts = np.unique([0, *at_targets, *at_atoms, *at_atoms + 1])
            starts = starts[starts < len(distinct)].astype(np.intp)
        edges = [distinct[k - 1] + (distinct[k] - distinct[k - 1]) / 2 for k in starts[1:]]
        sizes = np.diff([*starts, len(distinct)])
        parts = []
        for k, (start, low, high) in enumerate(
            zip(starts, [None, *edges], [*edges, None], strict=True)
        ):
            is_value = sizes[k] == 1 and (counts[start] > 1 or self.unit > 0)
            parts.append(_plain(distinct[start]) if is_value else (_plain(low), _plain(high)))
        return parts, np.searchsorted(starts, index.ravel(), side="right") - 1

    def coordinates(self) -> np.ndarray:
        """Return normal scores (n,) of numbers; of levels, numbers (n,) that are far from each other."""
        if self.levels is not None:
            return self.values * _LEVEL_DISTANCE
        values = self.values.astype(np.int64) if self.is_time else self.values
        ranks = rankdata(values)
        if self.unit:
            # Random points within the cells of recorded values have the same information, and no ties.
            uniform = np.random.RandomState(self.index).uniform(size=len(values))
            in_cells = np.argsort(np.lexsort((uniform, values))) + 1
            ranks = np.where(np.isin(values, self.atoms), ranks, in_cells)
        return ndtri((ranks - 0.5) / len(ranks))


@dataclass(frozen=True)
class Draws:
    """Rows that were drawn from a model."""

    model: Any
    frame: FrameType
    cells: list[Any]
    n: int
    labels: np.ndarray | None

    @classmethod
    def of(
        cls, model: Any, n: int, given: Any, random_state: Any, parameter: str, columns: Any
    ) -> Draws:
        """Return n rows of a fitted model; `columns`, the value of the argument `parameter`, is checked.

        Numbers in other columns may be missing; if numbers are given, draws may be equal.
        """
        rng, model = generator_of(model, random_state), unwrap(model)
        if isinstance(table := getattr(model, "columns_", None), TableColumns):
            used = resolve_columns(parameter, columns, table.labels, len(table.columns))
            only_levels = all(table.columns[index].continuous is None for index in used)
            rows = model._draw(n, rng, given, only_levels=only_levels, for_means=True)
        else:
            # Pipelines and GaussianMixture have no such method, or one without random_state.
            method = getattr(model, "sample", None)
            if method is not None and "random_state" in signature(method).parameters:
                rows = method(n, random_state=rng, **({} if given is None else {"given": given}))
            else:
                rows = sample(model, n, rng, given=given)
            if isinstance(rows, tuple):  # of a classifier, with classes
                rows = rows[0]
        frame, cells, _ = read_frame(rows)
        labels = getattr(model, "feature_names_in_", None)
        if isinstance(model, DensityEstimatorMixin):
            labels = model._column_labels()
        if frame.library != "numpy":
            labels = as_objects(frame.names)
        resolve_columns(parameter, columns, labels, len(frame.names))
        return cls(model, frame, cells, n, labels)

    def column(self, name: Any) -> DrawnColumn:
        """Return the values of a column, by its label or index."""
        (index,) = resolve_columns("columns", [name], self.labels, len(self.cells))
        cells, stored = self.cells[index], self.frame.types[index]
        table = getattr(self.model, "_table_", None)
        levels, is_ordered = stored.categories, stored.is_ordered
        atoms, unit, period = (), 0.0, None
        if isinstance(table, TableColumns):
            column = table.columns[index]
            if isinstance(column.kind, WithLevels):
                levels, is_ordered = column.kind.levels, column.kind.is_ordered
            elif cells.family != "duration":
                atoms, unit = column.atoms, column.lattice.unit
            if isinstance(column.kind, Periodic):
                period = (column.kind.origin, column.kind.origin + column.kind.period)
        if cells.family == "duration":
            # Durations are recorded in whole ticks, each of which has a positive probability.
            unit = 1.0
        periods = getattr(self.model, "periods_", None)
        if periods is not None and periods[index]:
            period = (0.0, float(periods[index]))
        values = cells.values
        if levels is None and cells.family in ("label", "flag"):
            levels = tuple(np.unique(values).tolist())
        if levels is not None:
            codes = {level: k for k, level in enumerate(levels)}
            values = np.array([codes[value] for value in values.tolist()], dtype=np.intp)
        return DrawnColumn(name, values, levels, is_ordered, atoms, unit, period, index)


def _plain(value: Any) -> Any:
    """Return a numpy float as a Python float; dates, durations and None unchanged."""
    return float(value) if isinstance(value, np.floating) else value
