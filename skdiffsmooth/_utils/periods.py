"""Periods of columns, such as 24 of hours: the parameter, and values within one period."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .given import resolve_columns
from .table import column_label, column_names
from .validation import check_real, wrong_type
from .warnings import warn_user

_EPS = float(np.finfo(np.float64).eps)
# Values that are rounded by more than this fraction of a period have no meaningful phase.
_LARGEST_ROUNDING = 1e-6
_TURN = 2 * math.pi
_EXAMPLE = "such as {'hour': 24} or {0: 360}"


def column_labels(X: Any) -> np.ndarray | None:
    """Return the labels of the columns of a table, or None where they are 0, 1, ... or absent."""
    labels = list(getattr(X, "columns", ()))
    return np.array(labels, dtype=object) if labels != list(range(len(labels))) else None


def resolve_periods(periods: Any, labels: np.ndarray | None, d: int) -> np.ndarray | None:
    """Return the period (d,) of each column, 0 where it has none; None where no column has one.

    `periods` maps labels or indices to numbers. Raises TypeError or ValueError if it is not valid.
    """
    if periods is None:
        return None
    if not isinstance(periods, Mapping):
        raise wrong_type(
            "periods", periods, f"a mapping from columns to their periods, {_EXAMPLE}, or None."
        )
    resolve_columns("periods", periods, labels, d)
    result = np.zeros(d)
    for column, period in periods.items():
        hint = "It is the length of one turn in units of the column: 360 for degrees, 24 for hours."
        checked = check_real(f"periods[{column!r}]", period, hint=hint)
        result[resolve_columns("periods", [column], labels, d)[0]] = checked
    return result if result.any() else None


def reduced(X: np.ndarray, periods: np.ndarray, names: Any = None) -> np.ndarray:
    """Return rows X (n, d) with each periodic column in [0, period).

    A value that is below a multiple of its period by rounding is 0. `names` is the table of the user,
    for messages.

    Raises ValueError if values are so large that their rounding exceeds a millionth of the period.
    """
    X = X.copy()
    for column in np.flatnonzero(periods).tolist():
        period, values = periods[column], X[:, column]
        rounding = _EPS * np.maximum(np.abs(values), period)
        largest = float(rounding.max(initial=0.0))
        if largest > _LARGEST_ROUNDING * period:
            raise ValueError(
                f"column {column_label(column_names(names), column)} of X holds "
                f"{float(values[rounding.argmax()]):.6g}, whose float64 rounding of {largest:.2g} is "
                f"too large for its period of {period:.6g}; expected values below "
                f"{_LARGEST_ROUNDING / _EPS:.0e} periods. Subtract whole periods before values are "
                "stored as float64."
            )
        phase = np.mod(values, period)
        X[:, column] = np.where(period - phase <= 4 * rounding, 0.0, phase)
    return X


def warn_of_units(X: np.ndarray, periods: np.ndarray, names: Any) -> None:
    """Warn of columns of X (n, d) that look like degrees with the period of radians, or the reverse."""
    for column in np.flatnonzero(periods).tolist():
        period, low, high = periods[column], X[:, column].min(), X[:, column].max()
        of_radians, of_degrees = (abs(period - turn) < 1e-3 * turn for turn in (_TURN, 360.0))
        # Ends may be rounded, to float32 or to three decimals.
        slack = 1e-3 * _TURN
        is_one_turn = any(
            start - slack <= low and high <= start + _TURN + slack for start in (0, -math.pi)
        )
        if of_radians and high - low > 2 * _TURN and low >= -360 and high <= 360:
            unit, advice = "degrees", "Pass 360 as its period; reduce unrolled phases by np.mod"
        elif of_degrees and high - low > 0.9 * _TURN and is_one_turn:
            unit = "radians"
            advice = "Pass 2 * np.pi as its period; add 360 to one value if they are degrees"
        else:
            continue
        warn_user(
            f"column {column_label(column_names(names), column)} of X holds values from {low:.6g} to "
            f"{high:.6g}, which look like {unit}, with a period of {period:.6g}. {advice}."
        )


def wrapped(differences: Any, period: float) -> Any:
    """Return differences, an array or tensor, less whole periods: from -period / 2 to period / 2."""
    return differences - period * (differences / period).round()
