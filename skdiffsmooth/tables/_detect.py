"""Detection of kinds, atoms, units and bounds of columns, by rules on dtypes and values.

All rules depend only on the values and on how many rows have each of them, not on the order of rows.
Except for whole numbers, and for the bounds 1 and 100 of shares and percentages, they do not depend on
the units of a column.

A value b is taken for a bound if many values are close to it and none is beyond. With c1 values within w
of b and c2 values in the next interval of width w, extrapolation gives c1^2 / c2 values within w beyond
b. If these are twenty or more, b is a bound (that there are none by chance has probability exp(-20)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._utils.column_precision import column_precision
from .._utils.warnings import warn_of_table
from ._frames import Cells, ColumnType, shown
from ._kinds import (
    SECONDS,
    Boolean,
    Categorical,
    Continuous,
    Datetime,
    Integer,
    Interval,
    Kind,
    Numerical,
    Ordinal,
    Positive,
    WithLevels,
)

# With fewer rows no levels, atoms or bounds are detected.
_FEWEST_ROWS = 10
# Fewest rows in which texts that are all different are an identifier; fewest rows for the warning that
# there are more than half as many levels as rows.
_FEWEST_NAMES = 10
_MANY_LEVELS = 20
# Numbers are levels if each has at least this number and this fraction of the rows,
_ROWS_OF_LEVEL, _SHARE_OF_LEVEL = 5, 0.05
# or if at most this many are different, half of them have that number of rows, and they are this many
# units apart on average.
_MOST_SPARSE, _SPARSE_STEPS = 20, 100
# Least number and fraction of the rows that are at an atom; least ratio of their number to that of each
# neighbouring value; number of neighbours on each side. Fewest other values in a column with atoms.
_ROWS_OF_ATOM, _SHARE_OF_ATOM, _ATOM_RATIO, _N_NEIGHBOURS = 5, 0.02, 4, 10
_FEWEST_OTHERS = 5
# On a lattice of fewer steps only the lowest and the highest value can be atoms.
_FINE_LATTICE = 1000
# Floats that begin at 0 or 1 unit are counts if the largest is at most this many units.
_MOST_STEPS = 100
# Largest distance of a recorded value from a multiple of its unit, in units.
_FARTHEST = 0.02
# Fewest float64 numbers between two neighbouring decimals; with fewer, any value is near a decimal.
_FEWEST_STEPS = 1000
# Fewest values that would be expected beyond a bound if it were no bound; fewest rows for that test and
# for the test of logarithms.
_BEYOND = 20
_ROWS_FOR_BOUNDS = 20
# A column is positive if a Gaussian fits its logarithm better, by these nats per row and in total, and
# if its lowest value is below half the median.
_LOG_GAIN, _TOTAL_LOG_GAIN = 0.03, 10.0


@dataclass(frozen=True)
class Lattice:
    """The values to which draws are rounded: multiples of a step away from an offset."""

    unit: float = 0.0  # The width of the cell of a value; 0 for values that are exact
    step: float = 0.0
    """The unit, or that of the last decimal of exact values; 0 where nothing was rounded."""
    offset: float = 0.0
    decimals: int | None = None
    """The number of decimals of all values, or None if no number below 16 fits."""
    slack: float = 0.0
    """Largest distance of recorded values from the lattice that is taken for floating-point rounding."""

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest values of the lattice; those that are on it are returned unchanged."""
        if not self.step:
            return values
        # Values that are too many steps away for float64 are returned unchanged.
        is_coarse = np.abs(values - self.offset) < self.step / np.finfo(np.float64).eps
        steps = np.rint(np.where(is_coarse, values - self.offset, 0.0) / self.step)
        nearest = self.offset + self.step * steps
        if self.decimals is not None:
            nearest = np.round(nearest, self.decimals)
        is_exact = ~is_coarse | (np.abs(values - nearest) <= self.slack)
        return np.where(is_exact, values, nearest)


def number_of_days(durations: np.ndarray) -> np.ndarray:
    """Return timedelta64 (n,) as float64 days; NaT is NaN."""
    return durations / np.timedelta64(1, "D")


def detect(name: Any, kind: ColumnType, cells: Cells, copies: np.ndarray) -> Kind:
    """Return the kind of a column, in which each row counts as `copies` (n,) rows."""
    present, copies = cells.values[~cells.missing], copies[~cells.missing]
    if cells.family == "flag":
        return Boolean()
    if cells.family == "label":
        _check_levels(name, present)
        return Ordinal() if kind.is_ordered else Categorical()
    if cells.family == "date":
        return Datetime()
    if cells.family == "duration":
        # The unit of durations follows from their ticks, without rounding.
        distinct, counts = _distinct(number_of_days(present), copies)
        duration = _detect_kind(False, distinct, counts) if len(distinct) > 1 else Continuous()
        return replace(duration, unit="auto")
    distinct, counts = _distinct(present, copies)
    return _detect_levels(kind.is_whole, distinct, counts) or _detect_kind(
        kind.is_whole, distinct, counts
    )


def complete(
    name: Any, kind: Kind, column_type: ColumnType, cells: Cells, copies: np.ndarray
) -> Kind:
    """Return a kind whose "auto" parameters and missing levels are chosen from the training rows.

    Raises
    ------
    ValueError
        If the values of the column are not of the kind.
    """
    present, copies = cells.values[~cells.missing], copies[~cells.missing]
    _check_family(name, kind, cells, present)
    if isinstance(kind, WithLevels):
        return kind if kind.levels is not None else _with_levels(name, kind, column_type, present)
    if isinstance(kind, Datetime):
        return Datetime(_time_unit(present)) if kind.unit == "auto" else kind
    assert isinstance(kind, Numerical)
    values = number_of_days(present) if cells.family == "duration" else present
    distinct, counts = _distinct(values, copies)
    if kind.atoms == "auto":
        unit = kind.unit if isinstance(kind.unit, float) else _unit(distinct, counts)
        atoms = _atoms(distinct, counts, unit)
        if kind.is_open:
            low, high = kind.bounds
            atoms = sorted({*atoms, *distinct[(distinct == low) | (distinct == high)].tolist()})
        low, high = kind.bounds
        kind = replace(kind, atoms=tuple(a for a in atoms if low <= a <= high))
    if cells.family == "duration" and kind.unit in ("auto", None):
        kind = replace(kind, unit=SECONDS[_time_unit(present)] / SECONDS["D"])
    if kind.unit == "auto":
        is_rest = ~np.isin(distinct, kind.atoms)
        unit = _unit(distinct[is_rest], counts[is_rest])
        if isinstance(kind, Integer):
            is_integer = np.all(distinct[is_rest] == np.rint(distinct[is_rest]))
            unit = unit if unit and not is_integer else max(1.0, unit)
        kind = replace(kind, unit=unit or None)
    return kind


def lattice_of(name: Any, kind: Numerical, values: np.ndarray) -> Lattice:
    """Return the lattice on which the values (n,) of a column lie; they do not include atoms.

    Raises
    ------
    ValueError
        If the values, less an offset, are not multiples of the declared unit.
    """
    if kind.unit is None or not len(values):
        step = kind.unit or _last_decimal(values)
        return _with_decimals(Lattice(kind.unit or 0.0, step), values) if step else Lattice()
    unit = float(kind.unit)
    deviation, offset = min(_deviation(values, unit, start) for start in (0.0, values.min()))
    if deviation > _FARTHEST * unit + _rounding(values):
        remainders = np.abs((values - offset) / unit - np.rint((values - offset) / unit))
        raise ValueError(
            f"column {name!r} holds {shown(values[np.argmax(remainders)])}, which is no multiple of "
            f"unit={unit:g} away from {offset:g}; expected values that were recorded in that unit"
            + (", such as whole numbers. " if unit == 1 else ". ")
            + f"Declare {name!r} as Continuous(), or pass another unit, or None."
        )
    return _with_decimals(Lattice(unit, unit, offset), values)


def _deviation(values: np.ndarray, unit: float, offset: float) -> tuple[float, float]:
    """Return the largest distance of values (m,) from ``offset + k * unit``, k integer; and `offset`."""
    steps = (values - offset) / unit
    return float(np.abs(steps - np.rint(steps)).max()) * unit, offset


def _rounding(values: np.ndarray) -> float:
    """Return a bound on the floating-point rounding errors of values (n,)."""
    return 8 * np.finfo(np.float64).eps * float(np.abs(values).max(initial=0.0))


def _with_decimals(lattice: Lattice, values: np.ndarray) -> Lattice:
    """Return a lattice with the decimals and the slack of the values (n,) on it."""
    decimals = None
    for number in range(16):
        if np.abs(np.round(values, number) - values).max(initial=0.0) <= _rounding(values):
            decimals = number
            break
    with_decimals = replace(lattice, decimals=decimals)
    slack = np.abs(with_decimals.rounded(values) - values).max(initial=0.0)
    return replace(with_decimals, slack=2 * float(slack) + _rounding(values))


def _last_decimal(values: np.ndarray) -> float:
    """Return the unit of the last decimal of values (n,), such as 0.01, or 0 if they are not rounded."""
    if len(np.unique(values)) < _FEWEST_ROWS:
        return 0.0
    largest = float(np.abs(values).max())
    for decimals in range(10):
        # Continuous values would all be so near to decimals with a probability below 1e-30.
        if 10.0**-decimals < _FEWEST_STEPS * np.finfo(np.float64).eps * largest:
            break
        if np.array_equal(np.round(values, decimals), values):
            return 10.0**-decimals
    return 0.0


def _check_family(name: Any, kind: Kind, cells: Cells, present: np.ndarray) -> None:
    """Raise ValueError if a column does not hold the type of values that its kind has."""
    families = {
        "numbers": ("number", "duration"),
        "True and False, or 1 and 0": ("flag", "number"),
        "text, numbers or booleans": ("label", "number", "flag"),
        "dates": ("date",),
    }
    if isinstance(kind, Numerical):
        expected = "numbers"
    elif isinstance(kind, Boolean):
        expected = "True and False, or 1 and 0"
    else:
        expected = "text, numbers or booleans" if isinstance(kind, WithLevels) else "dates"
    if cells.family not in families[expected]:
        holds = {"flag": "booleans", "label": "text or categories", "date": "dates"}
        example = f", such as {shown(present[0])}" if len(present) else ""
        raise ValueError(
            f"column {name!r} is declared as {kind!r}, but holds "
            f"{holds.get(cells.family, cells.family + 's')}{example}; expected {expected}. "
            "Declare another kind, or convert the column."
        )


# --- levels


def _check_levels(name: Any, present: np.ndarray) -> None:
    """Raise ValueError if all texts differ, as identifiers do, and warn if most of them do."""
    n_levels, n = len(set(present.tolist())), len(present)
    if n_levels == n and n >= _FEWEST_NAMES:
        raise ValueError(
            f"column {name!r} holds text with as many values as rows ({n}), such as "
            f"{shown(present[0])}: an identifier, which has no distribution to learn; expected "
            f"levels that rows share. Leave it out by kinds={{{name!r}: None}}, or keep it by "
            f"kinds={{{name!r}: Categorical()}}.{_conversion(present)}"
        )
    if 2 * n_levels > n >= _MANY_LEVELS:
        warn_of_table(
            f"column {name!r} holds {n_levels} levels in {n} rows, which is hardly more than "
            f"one row for each; if it is an identifier, leave it out by kinds={{{name!r}: "
            "None}."
        )


def _conversion(texts: np.ndarray) -> str:
    """Return advice on how to convert texts (n,) that are all numbers or dates, else an empty text."""
    for dtype, what, how in (
        (np.float64, "numbers", "pandas.to_numeric"),
        ("datetime64[s]", "dates", "pandas.to_datetime"),
    ):
        try:
            texts.astype(dtype)
        except (TypeError, ValueError):
            continue
        return f" Its texts are {what}: convert them by {how}."
    return ""


def _with_levels(
    name: Any, kind: WithLevels, column_type: ColumnType, present: np.ndarray
) -> WithLevels:
    """Return a kind with the levels of the training rows (n,)."""
    levels = set(present.tolist())
    if column_type.categories is not None:
        # Ordered levels are all kept: the distance of two levels depends on the levels between them.
        ordered = [level for level in column_type.categories if kind.is_ordered or level in levels]
        return type(kind)(tuple(ordered))
    if kind.is_ordered and any(isinstance(level, str | bytes) for level in levels):
        raise ValueError(
            f"column {name!r} is declared as Ordinal(), but holds text, whose order is not "
            "known; expected its levels from the lowest to the highest. Pass "
            f"Ordinal({sorted(levels)[:4]!r}) in the right order, or an ordered categorical "
            "dtype."
        )
    try:
        return type(kind)(_plain_levels(sorted(levels), column_type.is_whole))
    except TypeError:  # levels of several types, which have no order
        return type(kind)(tuple(sorted(levels, key=repr)))


def _plain_levels(levels: list[Any], is_whole: bool) -> tuple[Any, ...]:
    """Return levels as a tuple; whole numbers as integers."""
    return tuple(int(level) for level in levels) if is_whole else tuple(levels)


# --- numbers


def _distinct(values: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values (m,) in increasing order, and the number of rows of each."""
    distinct, index = np.unique(values + 0.0, return_inverse=True)
    return distinct, np.bincount(index, copies, minlength=len(distinct)).astype(np.intp)


def _detect_levels(is_whole: bool, distinct: np.ndarray, counts: np.ndarray) -> WithLevels | None:
    """Return the kind of a column of distinct numbers (m,) that are levels, or None if they are not."""
    levels = _plain_levels(distinct.tolist(), is_whole)
    n = counts.sum()
    if len(distinct) == 1:
        return Categorical(levels)
    if n < _FEWEST_ROWS:
        return None
    if len(distinct) == 2:
        return Boolean() if levels == (0, 1) else Ordinal(levels)
    is_frequent = counts.min() >= max(_ROWS_OF_LEVEL, _SHARE_OF_LEVEL * n)
    is_sparse = (
        len(distinct) <= _MOST_SPARSE
        and np.median(counts) >= _ROWS_OF_LEVEL
        and np.ptp(distinct) >= _SPARSE_STEPS * len(distinct) * _unit(distinct, counts)
    )
    return Ordinal(levels) if is_frequent or is_sparse else None


def _detect_kind(is_whole: bool, distinct: np.ndarray, counts: np.ndarray) -> Numerical:
    """Return the kind of a column of distinct numbers (m,) that are not levels."""
    atoms = _atoms(distinct, counts, _unit(distinct, counts))
    is_rest = ~np.isin(distinct, atoms)
    rest, rest_counts = distinct[is_rest], counts[is_rest]
    unit = _unit(rest, rest_counts)
    kinds: dict[str, Any] = {"atoms": tuple(atoms), "unit": unit or None}
    low, high = _bounds(distinct, rest, rest_counts, atoms)
    if is_whole:
        # Amounts, ages and counts begin near zero, which becomes their bound; years do not.
        is_amount = counts.sum() >= _FEWEST_ROWS and 0 <= 2 * distinct[0] <= distinct[-1]
        top = atoms[-1] if atoms and atoms[-1] == distinct[-1] else None
        kinds["unit"] = max(1.0, unit)
        return Integer(0.0 if is_amount else None, top, **kinds)
    if unit and _is_count(rest, rest_counts, unit):
        return Integer(0.0, **kinds)
    if low == 0 and high == math.inf:
        return Positive(**kinds)
    return (
        Continuous(**kinds)
        if low == -math.inf and high == math.inf
        else Interval(low, high, **kinds)
    )


def _is_count(rest: np.ndarray, counts: np.ndarray, unit: float) -> bool:
    """Return whether multiples (m,) of a unit are counts of units, from 0 or 1 on."""
    if rest[0] == 0 and rest[-1] < _FINE_LATTICE * unit and counts.sum() >= _ROWS_FOR_BOUNDS:
        # Few columns have the lowest value 0 by chance.
        return True
    steps = rest[0] / unit
    if not (-0.01 < steps < 1.01 and abs(steps - round(steps)) < 0.01):
        return False
    width = max(unit, _median(rest, counts) / 4)
    return rest[-1] <= _MOST_STEPS * unit or _has_bound(rest, counts, 0.0, width)


def _unit(distinct: np.ndarray, counts: np.ndarray) -> float:
    """Return the unit of which distinct values (m,) are multiples, or 0."""
    if not len(distinct):
        return 0.0
    unit = float(column_precision(distinct[:, None], counts.astype(np.float64)).unit[0])
    # Values that are only near multiples of a unit were not rounded to it.
    is_rounded = unit and _deviation(distinct, unit, distinct[0])[0] <= _FARTHEST * unit
    return unit if is_rounded else 0.0


def _atoms(distinct: np.ndarray, counts: np.ndarray, unit: float) -> list[float]:
    """Return the values that many rows hold exactly, in increasing order, or the only value."""
    if len(distinct) == 1:
        return [float(distinct[0])]
    n = counts.sum()
    if n < _FEWEST_ROWS:
        return []
    least = max(_ROWS_OF_ATOM, _SHARE_OF_ATOM * n)
    frequent = np.flatnonzero(counts >= least)
    is_fine = not unit or distinct[-1] - distinct[0] >= _FINE_LATTICE * unit
    is_atom = np.zeros(len(distinct), dtype=bool)
    # From the most frequent value on; of equally frequent values the lowest first.
    for index in frequent[np.argsort(-counts[frequent], kind="stable")]:
        near = slice(max(index - _N_NEIGHBOURS, 0), index + _N_NEIGHBOURS + 1)
        is_neighbour = ~is_atom[near]
        is_neighbour[index - near.start] = False
        others = counts[near][is_neighbour]
        is_end = index in (0, len(distinct) - 1)
        stands_out = len(others) > 0 and counts[index] >= _ATOM_RATIO * others.max()
        is_atom[index] = stands_out and (is_fine or is_end)
    return distinct[is_atom].tolist() if np.sum(~is_atom) >= _FEWEST_OTHERS else []


def _bounds(
    distinct: np.ndarray, rest: np.ndarray, counts: np.ndarray, atoms: list[float]
) -> tuple[float, float]:
    """Return the bounds of a continuous column; infinite where no bound is detected.

    `distinct` are all values, `rest` those that are no `atoms`, with their numbers of rows.
    """
    low = atoms[0] if atoms and atoms[0] == distinct[0] else -math.inf
    high = atoms[-1] if atoms and atoms[-1] == distinct[-1] else math.inf
    if counts.sum() < _ROWS_FOR_BOUNDS:
        return low, high
    if rest[0] > 0 and low == -math.inf and atoms[:1] != [0.0]:
        width = (_median(rest, counts) - 0.0) / 4
        if _has_bound(rest, counts, 0.0, width) or _is_likelier_as_logarithm(rest, counts):
            low = 0.0
    if low == 0 and high == math.inf:
        for end in (1.0, 100.0):
            width = (end - _median(rest, counts)) / 4
            if rest[-1] < end and _has_bound(end - rest[::-1], counts[::-1], 0.0, width):
                high = end
                break
    return low, high


def _has_bound(values: np.ndarray, counts: np.ndarray, bound: float, width: float) -> bool:
    """Return whether increasing values (m,) would extend far below `bound` if it were no bound."""
    near, next_to_it = np.searchsorted(values, [bound + width, bound + 2 * width])
    first, second = counts[:near].sum(), counts[near:next_to_it].sum()
    return bool(first**2 >= _BEYOND * max(second, 1))


def _median(values: np.ndarray, counts: np.ndarray) -> float:
    """Return the median of increasing values (m,), weighted by their numbers of rows."""
    return float(values[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])


def _is_likelier_as_logarithm(values: np.ndarray, counts: np.ndarray) -> bool:
    """Return whether a Gaussian fits the logarithms of values (m,) > 0 much better than the values."""
    if values[0] >= _median(values, counts) / 2:
        return False
    # Divided by the largest, so that squares are finite.
    scaled = values / values[-1]
    logs = np.log(scaled)
    weights = counts / counts.sum()
    gain = (
        0.5 * math.log(weights @ (scaled - weights @ scaled) ** 2)
        - 0.5 * math.log(weights @ (logs - weights @ logs) ** 2)
        - weights @ logs
    )
    return bool(gain >= _LOG_GAIN and gain * counts.sum() >= _TOTAL_LOG_GAIN)


# --- dates


def _time_unit(dates: np.ndarray) -> str:
    """Return the coarsest unit of which dates or durations (n,) are multiples."""
    resolution = np.datetime_data(dates.dtype)[0]
    ticks = dates.astype(np.int64)
    divisor = int(np.gcd.reduce(ticks))
    for unit, seconds in SECONDS.items():
        length = round(seconds / SECONDS[resolution]) if seconds >= SECONDS[resolution] else 0
        if length and divisor % length == 0:
            return unit
    return resolution
