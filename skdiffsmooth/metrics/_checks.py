"""Checks of the rows that metrics compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.validation import check_finite, check_real, check_real_array, check_size


def check_rows(name: str, rows: Any, *, minimum: int = 1) -> np.ndarray:
    """Return rows as a new float64 array (n, d) of finite values, with n >= `minimum`."""
    array = check_real_array(name, rows)
    if array.ndim != 2:
        raise ValueError(
            f"{name} has shape {array.shape}; expected (n, d), one row a sample. Pass "
            f"{name}.reshape(-1, 1) for one column, or {name}.reshape(len({name}), -1) for images."
        )
    if array.shape[1] == 0 or len(array) < minimum:
        raise ValueError(
            f"{name} has shape {array.shape}; expected at least {minimum} "
            f"row{'s' * (minimum > 1)} and one column."
        )
    check_finite(name, array, "Drop those rows.")
    check_size(name, array)
    return array


def check_returned(name: str, values: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return what a function of rows of a shape returned, after checking its shape and values."""
    array = check_real_array(name, values)
    n_wrong = array.size - np.count_nonzero(np.isfinite(array))
    if array.shape != shape or n_wrong:
        raise ValueError(
            f"{name} returned an array of shape {array.shape} with {n_wrong} values that are not "
            f"finite{where}; expected finite values of the shape {shape} of its rows."
        )
    return array


def check_pair(
    X: Any, other: Any, name: str, *, minimum: tuple[int, int] = (1, 1)
) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of rows, X and `name`, after checking that they have the same columns."""
    first = check_rows("X", X, minimum=minimum[0])
    second = check_rows(name, other, minimum=minimum[1])
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"X has {first.shape[1]} columns and {name} has {second.shape[1]}; expected the same "
            "columns in both."
        )
    if (
        hasattr(X, "columns")
        and hasattr(other, "columns")
        and list(X.columns) != list(other.columns)
    ):
        raise ValueError(
            f"X has the columns {list(X.columns)} and {name} has {list(other.columns)}; expected the "
            f"same names in the same order. Pass X[{name}.columns]."
        )
    return first, second


def check_fraction(name: str, value: Any, *, zero: bool = False, one: bool = False) -> float:
    """Return a number between zero and one after checking it; `zero` and `one` allow the ends."""
    ends = f"in {'[' if zero else '('}0, 1{']' if one else ')'}"
    number = check_real(name, value, strict=not zero, hint=f"It is {ends}.")
    if number > 1 or (number == 1 and not one):
        raise ValueError(f"{name}={value!r} is out of range; expected a number {ends}.")
    return number
