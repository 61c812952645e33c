"""One column of a table: its kind and coordinates, and its cells as levels and values and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import numpy as np

from .._utils.warnings import warn_of_table
from ._detect import Lattice, complete, detect, lattice_of, number_of_days
from ._distances import knot_of
from ._frames import Cells, ColumnType, as_objects, read_frame, shown
from ._kinds import SECONDS, Boolean, Datetime, Integer, Kind, Numerical, Periodic, WithLevels

_MOST_LISTED = 5
# Codes of cells without a level: missing; a category of the dtype that is no level; another value that
# is no level. `EncodedTable` has `MISSING` for all three.
MISSING, UNUSED, UNKNOWN = -1, -2, -3
# The days, from 1970-01-01, before year 1 and after year 9999: Python's dates are between them.
_FIRST_DAY, _LAST_DAY = -719163, 2932897


@dataclass(frozen=True, eq=False)
class EncodedTable:
    """The rows of a table as levels and values."""

    levels: np.ndarray  # Levels (n, n_discrete) as integers; -1 is missing
    values: np.ndarray
    """Values (n, n_continuous) in units of the columns; NaN where a cell is missing or at an atom."""
    index: Any = None  # The index of a pandas frame, or None
    is_new: np.ndarray | None = None
    """Which levels (n, n_discrete) are -1 because the level is new to the column; None: no level is."""

    def __len__(self) -> int:
        return len(self.levels)

    def take(self, rows: Any) -> EncodedTable:
        """Return some of the rows, by indices or a mask."""
        index = None if self.index is None else self.index[rows]
        is_new = None if self.is_new is None else self.is_new[rows]
        return EncodedTable(self.levels[rows], self.values[rows], index, is_new)


@dataclass(frozen=True)
class Column:
    """One column: its kind, how its frame stores it, and its coordinates."""

    name: Any
    kind: Kind
    stored: ColumnType
    lattice: Lattice
    origin: int  # of dates: the day from which they are counted, in days from 1970-01-01
    discrete: int | None  # index of its discrete coordinate
    continuous: int | None  # index of its continuous coordinate
    is_declared: bool
    missing_weight: float  # fraction of the training rows in which it is missing
    atom_weights: tuple[float, ...]  # fraction at each atom, of the rows with a value
    # With one bound, the distance from it above which the coordinate is linear (`_distances.py`).
    knot: float = math.inf
    # The date of all training rows, in days from `origin`, if the kind is detected and there is one.
    only_date: float | None = None

    @property
    def atoms(self) -> tuple[float, ...]:
        """The atoms of a column of numbers, or the only date of a column of dates; else empty."""
        if self.only_date is not None:
            return (self.only_date,)
        return self.kind.atoms if isinstance(self.kind, Numerical) else ()

    @property
    def edges(self) -> tuple[float, float]:
        """The bounds of the range in which values that are no atoms have a density."""
        low, high = self.extremes
        if isinstance(self.kind, Integer):
            return low - self.lattice.unit / 2, high + self.lattice.unit / 2
        return self.kind.bounds if isinstance(self.kind, Numerical) else (-math.inf, math.inf)

    @property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest value that is no atom."""
        if not isinstance(self.kind, Numerical):
            return -math.inf, math.inf
        low, high = self.kind.bounds
        unit, offset = self.lattice.step, self.lattice.offset
        if not unit:
            # Open bounds: the next floats within, in the precision of the column.
            dtype = np.float32 if self.stored.is_single else np.float64
            ends = np.array([low, high], dtype=dtype)
            inner = np.nextafter(ends, ends[::-1])
            return float(inner[0]), float(inner[1])
        if math.isfinite(low):
            first = math.ceil((low - offset) / unit - 1e-6)
            is_value = offset + unit * first > low + 1e-6 * unit
            low = offset + unit * (first if is_value or self._may_be(low) else first + 1)
        if math.isfinite(high):
            last = math.floor((high - offset) / unit + 1e-6)
            is_value = offset + unit * last < high - 1e-6 * unit
            high = offset + unit * (last if is_value or self._may_be(high) else last - 1)
        return low, high

    def _may_be(self, bound: float) -> bool:
        """Return whether a value that is no atom may be equal to a bound."""
        kind = self.kind
        return isinstance(kind, Numerical) and not kind.is_open and bound not in kind.atoms

    def describe(self) -> str:
        """Return one line with the kind, levels, bounds, atoms, unit and missing cells of the column."""
        kind, parts = self.kind, []
        if isinstance(kind, WithLevels):
            levels = kind.levels or ()
            listed = ", ".join(repr(level) for level in levels[:_MOST_LISTED])
            more = f", and {len(levels) - _MOST_LISTED} more" if len(levels) > _MOST_LISTED else ""
            parts.append(f"{len(levels)} level{'s' * (len(levels) != 1)}: {listed}{more}")
        if isinstance(kind, Numerical):
            low, high = kind.bounds
            if isinstance(kind, Periodic):
                parts.append(
                    f"period {kind.period:g}" + (f" from {kind.origin:g}" if kind.origin else "")
                )
            elif math.isfinite(low) or math.isfinite(high):
                ends = [f"from {low:g}"] * math.isfinite(low) + [f"to {high:g}"] * math.isfinite(
                    high
                )
                parts.append(" ".join(ends))
            parts += [
                f"atom {atom:g} ({share:.1%})"
                for atom, share in zip(kind.atoms, self.atom_weights, strict=True)
            ]
            if self.stored.family == "duration":
                parts.append("in days")
            if kind.unit:
                parts.append(f"unit {kind.unit:.6g}")
            elif self.lattice.step:
                parts.append(f"recorded to {self.lattice.step:g}")
        if isinstance(kind, Datetime):
            parts.append(f"in days from {np.datetime64(self.origin, 'D')}, unit {kind.unit}")
        if self.missing_weight:
            parts.append(f"{self.missing_weight:.1%} missing")
        if self.is_declared:
            parts.append("declared")
        return f"{kind.name:<11} " + "; ".join(parts)


def listed(names: Sequence[Any]) -> str:
    """Return names for a message, at most five."""
    listed = ", ".join(repr(name) for name in names[:_MOST_LISTED])
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return listed + more


def fit_column(
    name: Any, declared: Kind | None, stored: ColumnType, cells: Cells, copies: np.ndarray
) -> Column:
    """Return one column; the caller sets its `discrete` and `continuous`."""
    if cells.missing.all():
        raise ValueError(
            f"column {name!r} of X has no value in any of {len(cells.missing)} rows; expected "
            f"some. Drop it, or leave it out by kinds={{{name!r}: None}}."
        )
    kind = detect(name, stored, cells, copies) if declared is None else declared
    kind = complete(name, kind, stored, cells, copies)
    _warn_of_constant(name, cells)
    present = cells.values[~cells.missing]
    lattice, origin = Lattice(), 0
    weights: tuple[float, ...] = ()
    if isinstance(kind, Datetime):
        _check_dates(name, cells, stored.resolution)
        origin = int(present.min().astype("datetime64[D]").astype(np.int64))
        unit = SECONDS[kind.unit] / SECONDS["D"]
        lattice = Lattice(unit, unit)
    if isinstance(kind, Numerical):
        values = number_of_days(present) if cells.family == "duration" else present
        is_atom = np.isin(values, kind.atoms)
        total = copies[~cells.missing].sum()
        weights = tuple(copies[~cells.missing][values == atom].sum() / total for atom in kind.atoms)
        if not is_atom.all():
            lattice = lattice_of(name, kind, values[~is_atom])
    share = float(copies[cells.missing].sum() / copies.sum())
    column = Column(
        name, kind, stored, lattice, origin, None, None, declared is not None, share, weights
    )
    if isinstance(kind, Datetime) and declared is None and np.all(present == present[0]):
        return replace(column, only_date=float(_days_from(column, cells)[~cells.missing][0]))
    ends = [edge for edge in column.edges if math.isfinite(edge)]
    if len(ends) != 1:
        return column
    return replace(column, knot=knot_of(np.abs(values[~is_atom] - ends[0])))


def _warn_of_constant(name: Any, cells: Cells) -> None:
    """Warn if all cells of a column hold one value."""
    present = cells.values[~cells.missing]
    if len(present) > 1 and np.all(present == present[0]):
        value = bool(present[0]) if cells.family == "flag" else present[0]
        warn_of_table(
            f"column {name!r} holds {shown(value)} in all rows that have a value: it adds "
            "nothing to the density, and every draw has this value. Leave it out by "
            f"kinds={{{name!r}: None}}."
        )


def encode_column(column: Column, cells: Cells, rows: EncodedTable, lowest: int = MISSING) -> None:
    """Write the cells of one column into `rows`; ValueError if a level has a code below `lowest`."""
    cells = in_family(column, cells)
    kind, missing = column.kind, cells.missing
    if isinstance(kind, WithLevels):
        index = dict.fromkeys(column.stored.categories or (), UNUSED)
        index |= {level: position for position, level in enumerate(kind.levels or ())}
        positions = map(index.get, cells.values.tolist(), repeat(UNKNOWN))
        levels = np.fromiter(positions, dtype=np.intp, count=len(missing))
        levels[missing] = MISSING
        (wrong,) = np.nonzero(levels < lowest)
        if len(wrong):
            _raise_new_level(column, cells, wrong)
        rows.levels[:, column.discrete] = np.maximum(levels, MISSING)
        if rows.is_new is not None:
            rows.is_new[:, column.discrete] = levels < MISSING
        return
    if isinstance(kind, Datetime):
        values = _days_from(column, cells)
    else:
        values = number_of_days(cells.values) if cells.family == "duration" else cells.values.copy()
        values[missing] = np.nan
    is_atom = np.isin(values, column.atoms)
    if column.discrete is not None:
        levels = np.where(is_atom, np.searchsorted(column.atoms, values) + 1, 0)
        rows.levels[:, column.discrete] = np.where(missing, -1, levels)
    values[is_atom] = np.nan
    if isinstance(kind, Numerical):
        _check_bounds(column, values)
    rows.values[:, column.continuous] = values


def in_family(column: Column, cells: Cells) -> Cells:
    """Return the cells of a query, after checking that they have the type of the training column."""
    family = column.stored.family
    is_level = isinstance(column.kind, WithLevels) and cells.family in ("label", "number", "flag")
    if cells.family == family or (is_level and not cells.missing.all()):
        return cells
    if not cells.missing.all():
        raise ValueError(
            f"column {column.name!r} of X holds {cells.family}s, such as "
            f"{shown(cells.values[~cells.missing][0])}; expected {family}s, as in the training "
            "table. Convert the column."
        )
    # A column without values has no type of its own.
    dtype = {"date": "datetime64[s]", "duration": "timedelta64[s]"}.get(family, "float64")
    return Cells(family, np.zeros(len(cells.missing), dtype=dtype), cells.missing)


def _raise_new_level(column: Column, cells: Cells, new: np.ndarray) -> None:
    """Raise the error about levels that a column does not have, in rows `new`."""
    assert isinstance(column.kind, WithLevels)
    levels = column.kind.levels or ()
    kind = "Categorical" if isinstance(column.kind, Boolean) else type(column.kind).__name__
    raise ValueError(
        f"column {column.name!r} holds {shown(cells.values[new[0]])} (row {new[0]}; {len(new)} "
        f"such rows), which is none of its {len(levels)} levels: {listed(levels)}. Declare all "
        f"levels by kinds={{{column.name!r}: {kind}([...])}}, or take those of a whole table by "
        "kinds=TableColumns.fit(table).kinds; or pass new_levels='missing', which gives values like "
        "this together the probability of half a training row."
    )


def _check_bounds(column: Column, values: np.ndarray) -> None:
    """Raise ValueError if values (n,) that are no atoms are outside the bounds of their column."""
    kind = column.kind
    assert isinstance(kind, Numerical)
    low, high = kind.bounds
    is_outside = (values < low) | (values > high)
    if kind.is_open:
        is_outside |= (values == low) | (values == high)
    outside = np.flatnonzero(is_outside)
    if len(outside):
        value = values[outside[0]]
        on_bound = value in (low, high)
        advice = (
            f"Declare it as an atom: {type(kind).__name__}(..., atoms=({value:g},))"
            if on_bound
            else "Declare wider bounds, or Continuous()"
        )
        where = "on a bound, and no atom" if on_bound else "outside the bounds"
        how = "declared" if column.is_declared else "detected in fit"
        raise ValueError(
            f"column {column.name!r} holds {value:.6g} (row {outside[0]}; {len(outside)} such "
            f"rows), which is {where}; expected values between {low:g} and {high:g} (kind "
            f"{kind.name}, {how}). {advice}, in kinds, or drop these rows."
        )
    # Not checked in other columns, whose values may be between multiples of the detected unit.
    if isinstance(kind, Integer) and column.lattice.unit % 1 == 0:
        # Any whole number is allowed, even if the detected unit is larger, such as 50.
        steps = values - column.lattice.offset
        (off,) = np.nonzero(np.abs(steps - np.rint(steps)) > 0.02)
        if len(off):
            raise ValueError(
                f"column {column.name!r} holds {values[off[0]]:.6g} (row {off[0]}; {len(off)} "
                "such rows), which is not whole; expected whole numbers (kind integer). Round the "
                "values, or declare the column as Continuous()."
            )


def _days_from(column: Column, cells: Cells) -> np.ndarray:
    """Return dates as float64 days from the origin of a column; NaT is NaN."""
    _check_dates(column.name, cells, column.stored.resolution)
    dates = np.where(cells.missing, np.datetime64("NaT"), cells.values)
    days = (dates.astype(_origin(column).dtype) - _origin(column)) / np.timedelta64(1, "D")
    return np.where(cells.missing, np.nan, days)


def _check_dates(name: Any, cells: Cells, resolution: str) -> None:
    """Raise ValueError if dates are outside the range of a resolution, or of the years 1 to 9999."""
    low, high = _range_of_dates(resolution)
    days = cells.values.astype("datetime64[D]").astype(np.int64)
    (outside,) = np.nonzero(~cells.missing & ((days <= low) | (days >= high)))
    if len(outside):
        ends = [np.datetime64(math.ceil(end), "D") for end in (low, high)]
        raise ValueError(
            f"column {name!r} holds {cells.values[outside[0]]} (row {outside[0]}; "
            f"{len(outside)} such rows), which is beyond the range of dates in units of "
            f"{resolution}, those of the training table; expected dates between {ends[0]} and "
            f"{ends[1]}. If it stands for an unknown or open date, pass a missing cell; else "
            "fit on dates in seconds."
        )


def _range_of_dates(resolution: str) -> tuple[float, float]:
    """Return the first and the last day of dates of a resolution, in days from 1970-01-01."""
    limit = 2.0**63 * SECONDS[resolution] / SECONDS["D"] - 1
    return max(_FIRST_DAY, -limit), min(_LAST_DAY, limit)


def _origin(column: Column) -> np.datetime64:
    """Return the day from which the dates of a column are counted, in its resolution."""
    return np.datetime64(column.origin, "D").astype(f"datetime64[{column.stored.resolution}]")


def decode_column(column: Column, rows: EncodedTable) -> Cells:
    """Return the cells of one column."""
    kind, family = column.kind, column.stored.family
    if isinstance(kind, WithLevels):
        assert column.discrete is not None
        position = rows.levels[:, column.discrete]
        values = as_objects(kind.levels or ())[np.maximum(position, 0)]
        values = values if family == "label" else values.astype(np.float64)
        return Cells(family, values, position < 0)
    assert column.continuous is not None
    values = rows.values[:, column.continuous]
    if isinstance(kind, Datetime):
        return _decode_dates(column, _with_atoms(column, rows, values))
    assert isinstance(kind, Numerical)
    if family == "duration":
        # float64 does not represent every larger number of ticks.
        limit = 2.0**52 * SECONDS[column.stored.resolution] / SECONDS["D"]
        values = np.clip(values, -limit, limit)
    if isinstance(kind, Periodic):
        inside = (values >= kind.origin) & (values < kind.origin + kind.period)
        values = np.where(inside, values, kind.origin + np.mod(values - kind.origin, kind.period))
    values = column.lattice.rounded(values)
    if isinstance(kind, Periodic):
        # Values that are rounded to the end of the period are moved to its beginning.
        values = np.where(values >= kind.origin + kind.period, values - kind.period, values)
    inside = np.clip(np.clip(values, *column.extremes), *column.stored.limits)
    values = np.where(np.abs(inside - values) <= column.lattice.slack, values, inside)
    values = _with_atoms(column, rows, values)
    if family == "duration":
        ticks = _ticks(column, column.stored.resolution, values)
        return Cells("duration", ticks, np.isnan(values))
    return Cells(family, values, np.isnan(values))


def _with_atoms(column: Column, rows: EncodedTable, values: np.ndarray) -> np.ndarray:
    """Return values (n,) of a column, with its atoms in rows that are at one of them."""
    if column.discrete is None:
        return values
    level = rows.levels[:, column.discrete]
    atoms = np.array([np.nan, *column.atoms])[np.maximum(level, 0)]
    return np.where(level > 0, atoms, np.where(level < 0, np.nan, values))


def _decode_dates(column: Column, days: np.ndarray) -> Cells:
    """Return days (n,) from the origin as dates, within the range of the column's resolution."""
    assert isinstance(column.kind, Datetime)
    low, high = _range_of_dates(column.stored.resolution)
    days = np.clip(days, low - column.origin, high - column.origin)
    return Cells("date", _origin(column) + _ticks(column, column.kind.unit, days), np.isnan(days))


def _ticks(column: Column, unit: str, days: np.ndarray) -> np.ndarray:
    """Return days (n,) as timedelta64 of the column's resolution, rounded to a unit; NaN is 0."""
    resolution = column.stored.resolution
    n_units = np.rint(np.nan_to_num(days) * (SECONDS["D"] / SECONDS[unit])).astype(np.int64)
    per_unit = max(1, round(SECONDS[unit] / SECONDS[resolution]))
    return (n_units * per_unit).astype(f"timedelta64[{resolution}]")


def without_zone(value: Any) -> Any:
    """Return dates with a time zone as UTC dates without one, as numpy needs; others unchanged.

    The value is one date, or an array, Series or list of them.
    """
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    dtype = getattr(value, "dtype", None)
    if np.ndim(value) == 0 or (isinstance(dtype, np.dtype) and dtype.kind != "O"):
        return value
    return [without_zone(each) for each in value]


def given_cells(column: Column, value: Any, n_rows: int) -> Cells:
    """Return cells (n_rows,) of a column from one value for all rows, or one value for each row."""
    family = column.stored.family
    if family in ("date", "duration"):
        kind = "datetime64" if family == "date" else "timedelta64"
        try:
            array = np.asarray(without_zone(value), dtype=f"{kind}[{column.stored.resolution}]")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"given[{column.name!r}]={value!r:.50} is no {family} ({error}); expected "
                f"numpy's {kind}, or what converts to it."
            ) from error
    elif isinstance(value, str | bytes):
        array = np.empty((), dtype=object)
        array[()] = value
    else:
        array = np.asarray(value, dtype=object)
    if array.shape not in ((), (n_rows,)):
        raise ValueError(
            f"given[{column.name!r}] has shape {array.shape}; expected one value, or {n_rows} "
            "of them, one for each row."
        )
    table = np.broadcast_to(array, (n_rows,))[:, None]
    _, (cells,), _ = read_frame(table, (column.name,))
    return cells
