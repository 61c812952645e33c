"""How precisely each column of a table was recorded: rounding of its floats, unit, ties.

A column is *coarse* if its values are multiples of one unit (counts, measurements to one decimal, also
after a change of units). If m values on a range of K units were continuous, all would be within delta
units of such multiples with probability below K (2 delta)^(m - 2). A unit is accepted if this is below
1e-9, so that continuous data of any size, in float64 or float32, have no unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .table import column_label
from .units import column_norms, column_range, column_sizes

# A unit is accepted where continuous values would have one with a lower probability.
_FALSE_ALARM = 1e-9
# Units finer than this fraction of the range would change no result.
_FINEST = 2.0**-20
# A remainder below this fraction of a candidate for the unit counts as zero.
_REMAINDER = 0.01
# With fewer rows, or with few values and few ties, multiples of a unit may be a grid or chance.
_FEWEST_ROWS = 10
_FEWEST_VALUES = 20
_FEWEST_TIES = 0.1
# `fit` warns of units above `_COARSE` standard deviations, and of a value whose weight is at least
# `_ATOM` and `_ATOM_RATIO` times that of any other.
_COARSE = 1 / 3
_ATOM = 0.2
_ATOM_RATIO = 4
_MOST_DESCRIBED = 8
# `fit` warns of rounding errors of the floats above this, in standard deviations.
_LOST = 1e-3
# Below this number float32 holds fractions, too.
_INTEGERS = 2.0**23
# `fit` warns if, in one of n rows, a value is farther from the median than `_FAR` n times the distance
# within which the fraction `_NEAR` of the rows is. A column of a Cauchy distribution has such a value
# with probability 5e-4, whatever the number of rows.
_FAR, _NEAR = 100.0, 0.95
# So many values mostly suffice to see that a column does not hold float32 numbers only.
_FEW = 1000


@dataclass(frozen=True)
class ColumnPrecision:
    """Rounding, unit and ties of each of d columns."""

    rounding: np.ndarray
    """Largest rounding error (d,) of the floats: eps times the largest absolute value, with the eps of
    float32 where all values are float32 numbers."""
    unit: np.ndarray
    """The unit (d,) of which the values are multiples, up to one offset; 0 where they are continuous."""
    width: np.ndarray
    """Widths (d,) of the intervals of values that are recorded as the same value: the unit, or half the
    difference of the values of a column that has two; 0 for continuous columns."""
    n_values: np.ndarray
    """Number (d,) of distinct values."""
    ties: np.ndarray
    """Fraction (d,) of the rows, by weight, whose value also occurs in another row."""
    atom_weight: np.ndarray
    """Weight (d,) of a value that is far more frequent than all others, or 0."""
    std: np.ndarray
    """Standard deviation (d,) of the values; 0 where they differ by rounding only."""

    @property
    def width_of_part(self) -> np.ndarray:
        """The `width` (d,) assumed for each column in subsets of rows where it is constant.

        A column without unit gets its standard deviation: with the width of rounding, rows of folds in
        which it is constant would be some 25 nats likelier than those of the other folds.
        """
        width = np.maximum(self.unit, self.width)
        return np.where(width > 0, width, self.std)

    def discrete_columns(self, names: np.ndarray | None) -> list[str]:
        """Return descriptions of the columns that are far from continuous, at most eight of them.

        These have a unit above a third of their standard deviation, two values, or one value that is
        far more frequent than all others.
        """
        is_coarse = self.unit > _COARSE * self.std
        is_binary = (self.n_values == 2) & (self.width > 0)
        has_atom = self.atom_weight >= _ATOM
        columns = np.flatnonzero(is_coarse | is_binary | has_atom)
        described = []
        for column in columns[:_MOST_DESCRIBED]:
            if is_coarse[column]:
                what = (
                    f"values are multiples of {self.unit[column]:.6g}, and {self.ties[column]:.0%} of "
                    "the rows share theirs (counts, or rounded)"
                )
            elif is_binary[column]:
                what = "has two values"
            else:
                what = f"{self.atom_weight[column]:.0%} of the rows have the same value"
            described.append(f"column {column_label(names, column)}: {what}")
        if len(columns) > _MOST_DESCRIBED:
            described.append(f"and {len(columns) - _MOST_DESCRIBED} more")
        return described

    def rounded_columns(self, points: np.ndarray, names: np.ndarray | None) -> list[str]:
        """Return descriptions of columns of distinct rows (n, d) that lose digits by float rounding.

        Their values are many standard deviations from zero, and not multiples of a unit. At most eight
        are described. Weights are ignored: a column in which one row has most weight is not narrow.
        """
        std = column_norms(points - points.mean(axis=0)) / np.sqrt(len(points))
        is_rounded = (self.rounding > _LOST * std) & (self.std > 0) & (self.unit == 0)
        return [
            f"column {column_label(names, column)}: to {self.rounding[column]:.2g}, and its standard "
            f"deviation is {std[column]:.2g}"
            for column in np.flatnonzero(is_rounded)[:_MOST_DESCRIBED]
        ]


def column_precision(points: np.ndarray, weights: np.ndarray) -> ColumnPrecision:
    """Return how precisely the columns of distinct rows (n, d) of weights (n,) were recorded.

    The result depends on neither the order of the rows nor the units of the columns. It takes n log n
    steps per column. A row of weight k and k equal rows give the same result.
    """
    copies = copies_of(weights)
    share = weights / weights.sum()
    described = [_describe(column, copies, share) for column in points.T]
    rounding, unit, width, n_values, ties, atom_weight = (
        np.array(part) for part in zip(*described, strict=True)
    )
    std = column_norms(np.sqrt(share)[:, None] * (points - share @ points)) * has_extent(points)
    return ColumnPrecision(rounding, unit, width, n_values.astype(np.intp), ties, atom_weight, std)


def has_extent(points: np.ndarray) -> np.ndarray:
    """Return whether each column of rows (n, d) varies by more than the rounding of its floats."""
    low, high = column_range(points)
    return high - low > 4 * relative_rounding(points) * column_sizes(points)


def relative_rounding(points: np.ndarray) -> np.ndarray:
    """Return the eps of the floats in each column of rows (n, d): that of float32 or of float64."""
    return np.array([_eps(column) for column in points.T])


def far_columns(points: np.ndarray, weights: np.ndarray, names: np.ndarray | None) -> list[str]:
    """Return descriptions of columns of distinct rows (n, d) with few values far from all others.

    At most eight are described. `weights` (n,) sum to one. Columns most of whose values are equal are
    not described.
    """
    described: list[str] = []
    n_rows = len(points)
    # Divided by two, so that differences do not overflow.
    for column, values in enumerate((points / 2).T):
        median = np.sort(values)[n_rows // 2]
        distances = np.abs(values - median)
        order = np.argsort(distances, kind="stable")
        near = distances[order[np.searchsorted(np.cumsum(weights[order]), _NEAR)]]
        is_far = distances / _FAR > n_rows * near
        if near and is_far.any() and len(described) < _MOST_DESCRIBED:
            described.append(
                f"column {column_label(names, column)}: {is_far.sum()} of {n_rows} values are up to "
                f"{2 * distances.max():.3g} from the median, and {_NEAR:.0%} of the rows within "
                f"{2 * near:.3g}"
            )
    return described


def copies_of(weights: np.ndarray) -> np.ndarray:
    """Return the number of equal rows for each weight (n,) if all are multiples of a unit; else ones."""
    ordered = np.unique(np.append(weights, 0.0))
    if len(ordered) == 2:
        return np.ones(len(weights), dtype=np.intp)
    unit = _lattice(ordered, 4 * np.finfo(np.float64).eps * ordered[-1])
    if not unit:
        return np.ones(len(weights), dtype=np.intp)
    return np.maximum(np.round(weights / unit), 1).astype(np.intp)


def _describe(
    column: np.ndarray, copies: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int, float, float]:
    """Return rounding, unit, width, n_values, ties and atom weight (`ColumnPrecision`) of a column."""
    rounding = _rounding(column)
    values, rows, held = np.sort(column + 0.0), copies, weights
    if np.any(values[1:] == values[:-1]):
        values, index = np.unique(column + 0.0, return_inverse=True)
        rows, held = np.bincount(index, copies), np.bincount(index, weights)
    ties = float(held[rows > 1].sum())
    unit = 0.0
    if ties >= _FEWEST_TIES or len(values) >= _FEWEST_VALUES:
        # Values such as 0.1 + 0.2 and 0.3 count as one.
        apart = np.append(True, np.diff(values) > 4 * rounding)
        unit = _lattice(values[apart], 4 * rounding)
    if rows.sum() < _FEWEST_ROWS:
        return rounding, 0.0, 0.0, len(values), ties, 0.0
    is_binary = len(values) == 2 and rows.min() > 1
    width = float(values[1] - values[0]) / 2 if is_binary else unit
    return rounding, unit, width, len(values), ties, _atom_weight(held, rows)


def _atom_weight(held: np.ndarray, rows: np.ndarray) -> float:
    """Return the weight of a far more frequent value, or 0, from weights and counts (m,) of values."""
    if len(held) < 3:
        return 0.0
    heaviest = np.argpartition(held, -2)[-2:]
    second, first = heaviest[np.argsort(held[heaviest])]
    stands_out = rows[first] > 1 and held[first] >= _ATOM_RATIO * held[second]
    return float(held[first]) if stands_out else 0.0


def _rounding(column: np.ndarray) -> float:
    """Return the largest rounding error of the floats in a column."""
    return _eps(column) * float(np.abs(column).max())


def _eps(column: np.ndarray) -> float:
    """Return the eps of float32 if all values of a column (n,) are float32 numbers; or of float64."""
    # Mantissas are compared, not converted values, so that the unit of a column has no effect.
    for values in (column[:_FEW], column):
        mantissas = np.frexp(values)[0]
        scaled = mantissas * 2.0**24
        if not np.all(scaled == np.round(scaled)):
            return float(np.finfo(np.float64).eps)
    # Integers and fractions of powers of two are exact in both formats. All of m rounded numbers would
    # end in k zero bits by chance with probability 2^(-k m), which is below 1e-9 for k m = 30.
    n_values = len(np.unique(column[column != 0]))
    n_bits = max(12, 24 - math.ceil(30 / max(n_values, 1)))
    is_short = bool(np.all(np.ldexp(mantissas, n_bits) % 1 == 0))
    # Few values say little: integers, such as codes, that float32 would not have had to round to
    # integers are taken for what they are, and so is one value, such as a constant of a million.
    is_integer = np.abs(column).max() <= _INTEGERS and bool(np.all(column == np.rint(column)))
    is_exact = is_short or is_integer or n_values < 2
    return float(np.finfo(np.float64 if is_exact else np.float32).eps)


def _lattice(values: np.ndarray, noise: float) -> float:
    """Return the unit of which increasing values (m,) are multiples up to offset and `noise`, or 0."""
    if len(values) < 3:
        return 0.0
    steps = np.diff(values)
    extent = float(values[-1] - values[0])
    unit = float(steps.min())
    while unit >= _FINEST * extent:
        multiples = np.round(steps / unit)
        # The sum of all steps of at most 100 units gives the unit more precisely than one remainder.
        few = (multiples <= 100) & (np.abs(steps - unit * multiples) < _REMAINDER * unit)
        if few.any():
            unit = float(steps[few].sum() / multiples[few].sum())
            multiples = np.round(steps / unit)
        remainders = np.abs(steps - unit * multiples)
        remainders = remainders[remainders > max(_REMAINDER * unit, noise)]
        if not len(remainders):
            return _accepted(values, np.append(0.0, np.cumsum(multiples)), noise)
        unit = float(remainders.min())
    return 0.0


def _accepted(values: np.ndarray, multiples: np.ndarray, noise: float) -> float:
    """Return the unit of values (m,) that are near multiples of it, or 0 if that may be chance."""
    length = float(multiples[-1])
    unit = float(values[-1] - values[0]) / length
    deviation = float(np.abs(values - values[0] - unit * multiples).max())
    delta = max(deviation, noise) / unit
    log_chance = math.log(length) + (len(values) - 2) * math.log(2 * delta) if delta else -math.inf
    return unit if log_chance < math.log(_FALSE_ALARM) else 0.0
