"""How precisely each column of a table was recorded: rounding of its floats, unit, ties.

A column is *coarse* if its values are multiples of one unit (counts, measurements to one decimal, also
after a change of units). m values on a range of K units would all lie within a share delta of a unit of
such multiples with probability below K (2 delta)^(m - 2) if they were continuous. A unit is accepted
where this is below 1e-9, so that continuous data of any size, in float64 or float32, have none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["ColumnPrecision", "column_precision", "copies_of"]

# A unit is accepted where continuous values would have one with a lower probability.
_FALSE_ALARM = 1e-9
# Units finer than this share of the range change no result.
_FINEST = 2.0**-20
# A remainder below this share of a candidate for the unit is zero.
_REMAINDER = 0.01
# With fewer rows, or with few values and hardly any ties, a lattice may be a grid or an accident.
_FEWEST_ROWS = 10
_FEWEST_VALUES = 20
_FEWEST_TIES = 0.1


@dataclass(frozen=True)
class ColumnPrecision:
    """Rounding, unit and ties of each of d columns."""

    rounding: np.ndarray
    """Largest rounding error (d,) of the floats: eps times the largest absolute value, with the eps of
    float32 where all values are float32 numbers."""
    unit: np.ndarray
    """The unit (d,) of which the values are multiples, up to one offset; 0 where they are continuous."""
    n_values: np.ndarray
    """Number (d,) of distinct values."""
    ties: np.ndarray
    """Weight (d,) of the rows that share their value with another row."""
    mode_weight: np.ndarray
    """Weight (d,) of the commonest value."""


def column_precision(points: np.ndarray, weights: np.ndarray) -> ColumnPrecision:
    """Return how precisely the columns of distinct rows (n, d) of weights (n,) were recorded.

    It depends on neither the order of the rows nor the units of the columns, and takes n log n steps a
    column. A row of weight k and k equal rows are the same.
    """
    copies = copies_of(weights)
    share = weights / weights.sum()
    described = [_describe(column, copies, share) for column in points.T]
    rounding, unit, n_values, ties, mode_weight = (
        np.array(part) for part in zip(*described, strict=True)
    )
    return ColumnPrecision(rounding, unit, n_values.astype(np.intp), ties, mode_weight)


def copies_of(weights: np.ndarray) -> np.ndarray:
    """Return how many equal rows each weight (n,) stands for, if weights are multiples of one.

    The numbers have no common divisor; without a common unit they are all one.
    """
    ordered = np.unique(np.append(weights, 0.0))
    if len(ordered) == 2:
        return np.ones(len(weights), dtype=np.intp)
    unit = _lattice(ordered, 4 * np.finfo(np.float64).eps * ordered[-1])
    if not unit:
        return np.ones(len(weights), dtype=np.intp)
    return np.maximum(np.round(weights / unit), 1).astype(np.intp)


def _describe(
    column: np.ndarray, copies: np.ndarray, weights: np.ndarray
) -> tuple[float, float, int, float, float]:
    """Return rounding, unit, number of values, ties and weight of the commonest value of a column."""
    rounding = _rounding(column)
    values, index = np.unique(column + 0.0, return_inverse=True)
    rows, held = np.bincount(index, copies), np.bincount(index, weights)
    ties = float(held[rows > 1].sum())
    unit = 0.0
    if rows.sum() >= _FEWEST_ROWS and (ties >= _FEWEST_TIES or len(values) >= _FEWEST_VALUES):
        # Values such as 0.1 + 0.2 and 0.3 are one.
        apart = np.append(True, np.diff(values) > 4 * rounding)
        unit = _lattice(values[apart], 4 * rounding)
    return rounding, unit, len(values), ties, float(held.max())


def _rounding(column: np.ndarray) -> float:
    """Return the largest rounding error of the floats in a column."""
    # Mantissas, and not a conversion, since no unit of a column shall change the result.
    mantissas = np.frexp(column)[0]
    scaled = mantissas * 2.0**24
    is_single = bool(np.all(scaled == np.round(scaled)))
    # Small integers and fractions of two are exact in both formats.
    is_short = is_single and bool(np.all(mantissas * 2.0**12 == np.round(mantissas * 2.0**12)))
    eps = np.finfo(np.float32 if is_single and not is_short else np.float64).eps
    return float(eps) * float(np.abs(column).max())


def _lattice(values: np.ndarray, noise: float) -> float:
    """Return the unit of which increasing values (m,) are multiples up to one offset, or 0.

    `noise` is the error of the values. This is Euclid's algorithm on their differences.
    """
    if len(values) < 3:
        return 0.0
    steps = np.diff(values)
    extent = float(values[-1] - values[0])
    unit = float(steps.min())
    while unit >= _FINEST * extent and unit > 2 * noise:
        multiples = np.round(steps / unit)
        # The sum of steps of few units has a smaller error a unit than one remainder.
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
