"""Checks of the rows that metrics compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.validation import LARGEST, check_real, check_real_array

__all__ = ["check_fraction", "check_pair", "check_rows"]


def check_rows(name: str, rows: Any, *, minimum: int = 1) -> np.ndarray:
    """Return rows as a finite float64 array of its own.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    rows : array-like of shape (n, d)
        What the user passed.
    minimum : int, default=1
        How many rows there must be.

    Returns
    -------
    ndarray of shape (n, d)

    Raises
    ------
    ValueError
        If they are not numeric, not finite or above 1e150, not two-dimensional, or too few.
    """
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
    if not np.all(np.abs(array) <= LARGEST):
        raise ValueError(
            f"{name} holds {np.sum(~(np.abs(array) <= LARGEST))} values that are NaN, infinite or "
            f"above {LARGEST:g}; expected numbers whose squares are finite. Drop those rows, or use "
            "larger units."
        )
    return array


def check_pair(
    X: Any, other: Any, name: str, *, minimum: tuple[int, int] = (1, 1)
) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of rows of the same columns.

    Parameters
    ----------
    X, other : array-like of shape (n, d) and (m, d)
        What the user passed.
    name : str
        The second parameter's name, for the message; the first is X.
    minimum : tuple of int, default=(1, 1)
        How many rows there must be.

    Returns
    -------
    X : ndarray of shape (n, d)
    other : ndarray of shape (m, d)

    Raises
    ------
    ValueError
        If either is no set of rows, or their columns differ.
    """
    first, second = (
        check_rows(label, rows, minimum=least)
        for label, rows, least in zip(("X", name), (X, other), minimum, strict=True)
    )
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
    """Return a number between zero and one.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    value : object
        What the user passed.
    zero, one : bool, default=False
        Whether the ends are allowed.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If it is no such number.
    """
    ends = f"in {'[' if zero else '('}0, 1{']' if one else ')'}"
    number = check_real(name, value, strict=not zero, hint=f"It is {ends}.")
    if number > 1 or (number == 1 and not one):
        raise ValueError(f"{name}={value!r} is out of range; expected a number {ends}.")
    return number
