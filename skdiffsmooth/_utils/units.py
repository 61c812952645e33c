"""Powers of two by which numbers are divided, without rounding, so that their squares are finite."""

from __future__ import annotations

import math

import numpy as np

# Sizes from 1e-6 to 1e6 are left as they are; in float32 their fourth powers are finite.
_ORDINARY = 20
# numpy reduces rows of at most this many columns ten times faster column by column.
_NARROW = 8


def unit_for(size: float, ordinary: int = _ORDINARY) -> float:
    """Return the largest power of two up to a size >= 0, or 1 for ordinary sizes and for 0.

    Sizes from 2^-ordinary to 2^ordinary are ordinary.
    """
    exponent = math.frexp(size)[1] - 1
    return 1.0 if size == 0 or abs(exponent) <= ordinary else math.ldexp(1.0, exponent)


def common_unit(rows: np.ndarray, ordinary: int = _ORDINARY) -> float:
    """Return `unit_for` the range of rows (n, d), or for their size where all are equal."""
    extent = float(np.abs(rows - rows[:1]).max(initial=0.0))
    return unit_for(extent or float(np.abs(rows).max(initial=0.0)), ordinary)


def column_range(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest value (d,) of each column of rows (n, d), n > 0."""
    if rows.shape[1] > _NARROW:
        return rows.min(axis=0), rows.max(axis=0)
    columns = rows.T
    return np.array([c.min() for c in columns]), np.array([c.max() for c in columns])


def column_sizes(rows: np.ndarray) -> np.ndarray:
    """Return the largest absolute value (d,) of each column of rows (n, d); 0 without rows."""
    if not len(rows):
        return np.zeros(rows.shape[1])
    low, high = column_range(rows)
    return np.maximum(np.abs(low), np.abs(high))


def column_norms(matrix: np.ndarray) -> np.ndarray:
    """Return the Euclidean norms of the columns of a matrix, without overflow or underflow."""
    units = [unit_for(size) for size in column_sizes(matrix)]
    return units * np.linalg.norm(matrix / units, axis=0)


def per_unit(name: str, values: np.ndarray, *units: float | np.ndarray) -> np.ndarray:
    """Return values divided by each unit; raise ValueError if one leaves the finite range.

    `name` is the method, for the message.
    """
    with np.errstate(over="ignore", under="ignore"):
        result = values
        for unit in units:
            result = result / unit
    is_lost = ~np.isfinite(result) | ((result == 0) & (values != 0))
    if is_lost.any():
        raise ValueError(
            f"{name} leaves the finite range in units of X: {is_lost.sum()} of {values.size} values "
            "overflow or underflow. Multiply the columns of X by powers of two that bring them to size "
            "one, fit again, and rescale."
        )
    return result
