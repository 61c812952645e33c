"""Parses the parameter `given`, which holds columns by index or name, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .validation import check_real_array, check_size

__all__ = ["resolve_given_columns", "resolve_given_values"]


def resolve_given_columns(given: Any, n_features: int, names: np.ndarray | None) -> np.ndarray:
    """Return the indices of the given columns, in increasing order.

    `given` is a collection of indices from 0 on, or of column names; `names` (n_features,) are
    those of the training data, or None.

    Raises
    ------
    TypeError
        If `given` is not a collection, or holds something that is neither an integer nor a string.
    ValueError
        If a column is unknown or named twice, or if all columns are given.
    """
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(
            f"given={given!r} has type {type(given).__name__}; expected a collection of columns, such "
            "as [0, 2] or ['age']."
        )
    columns = [_resolve_column(column, n_features, names) for column in given]
    if len(set(columns)) < len(columns):
        raise ValueError(f"given={list(given)!r} names a column twice; expected each at most once.")
    if len(columns) == n_features:
        raise ValueError(
            f"given names all {n_features} columns; expected fewer, so that at least one column is left "
            "to draw or score."
        )
    return np.array(sorted(columns), dtype=np.intp)


def _resolve_column(column: Any, n_features: int, names: np.ndarray | None) -> int:
    if isinstance(column, str):
        if names is None:
            raise ValueError(
                f"given column {column!r} is a name, but the training data had no column names; pass an "
                f"index from 0 to {n_features - 1}, or fit on a DataFrame."
            )
        indices = np.flatnonzero(names == column)
        if not len(indices):
            raise ValueError(
                f"given column {column!r} is not known; expected one of {', '.join(map(repr, names))}."
            )
        return int(indices[0])
    if isinstance(column, bool | np.bool_) or not isinstance(column, int | np.integer):
        raise TypeError(
            f"given column {column!r} has type {type(column).__name__}; expected an index or a name."
        )
    if not 0 <= column < n_features:
        raise ValueError(
            f"given column {column!r} is out of range; expected an index from 0 to {n_features - 1}."
        )
    return int(column)


def resolve_given_values(
    given: Any, n_samples: int, n_features: int, names: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the given columns, and their values (n_samples, n_given).

    `given` maps columns to one value, or to one for each row; `names` (n_features,) are those of the
    training data, or None.

    Raises
    ------
    TypeError
        If `given` is not a mapping.
    ValueError
        If a column is invalid, or a value neither a finite number nor one for each row.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"given={given!r} has type {type(given).__name__}; expected a mapping from columns to "
            "values, such as {0: 1.5} or {'age': 40}."
        )
    columns = resolve_given_columns(given, n_features, names)
    values = np.empty((n_samples, len(columns)))
    for column, value in given.items():
        column_values = check_real_array(f"given[{column!r}]", value)
        if column_values.shape not in ((), (n_samples,)):
            raise ValueError(
                f"given[{column!r}] has shape {column_values.shape}; expected a number, or {n_samples} "
                "of them, one for each of n_samples rows."
            )
        if not np.all(np.isfinite(column_values)):
            raise ValueError(
                f"given[{column!r}] holds NaN or infinity; expected finite numbers. Leave the "
                "column out of given where its value is not known."
            )
        check_size(f"given[{column!r}]", column_values)
        index = np.searchsorted(columns, _resolve_column(column, n_features, names))
        values[:, index] = column_values
    return columns, values
