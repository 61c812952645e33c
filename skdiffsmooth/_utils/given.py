"""Parses the parameters `given` and `columns`: columns by label or index, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .validation import LARGEST_VALUE, check_finite, check_real_array, check_size, wrong_type


def resolve_columns(name: str, columns: Any, labels: np.ndarray | None, d: int) -> np.ndarray:
    """Return the indices (k,) of columns, in increasing order.

    `columns` is a collection of labels of the training columns, `labels` (d,), or of indices from 0 on.
    Where the training columns have labels that are not strings, only labels are accepted, since an
    index could be mistaken for one. Messages call the parameter `name`.

    Raises TypeError if `columns` is not a collection, or holds something that is neither a label
    nor an index; ValueError if a column is unknown, or named twice.
    """
    if isinstance(columns, str | bytes) or not hasattr(columns, "__iter__"):
        raise wrong_type(name, columns, "a collection of columns, such as [0, 2] or ['age'].")
    indices = [_index(name, column, labels, d) for column in columns]
    if len(set(indices)) < len(indices):
        raise ValueError(
            f"{name}={list(columns)!r} names a column twice; expected each at most once."
        )
    return np.array(sorted(indices), dtype=np.intp)


def _index(name: str, column: Any, labels: np.ndarray | None, d: int) -> int:
    """Return the index of one column."""
    where = {"column": name, "columns": "columns: column"}.get(name, f"{name} column")
    is_index = isinstance(column, int | np.integer) and not isinstance(column, bool)
    if labels is not None:
        matches = [j for j, label in enumerate(labels) if _is_same(label, column)]
        if len(matches) > 1:
            raise ValueError(
                f"{where} {column!r} is the label of {len(matches)} columns; expected labels "
                "that differ. Rename the columns, and fit again."
            )
        if matches:
            return matches[0]
        if not is_index or not all(isinstance(label, str) for label in labels):
            raise ValueError(
                f"{where} {column!r} is not known; expected one of "
                f"{', '.join(map(repr, labels))}, the columns of the training data."
            )
    elif isinstance(column, str):
        raise ValueError(
            f"{where} {column!r} is a name, but the training data had no column names; pass an "
            f"index from 0 to {d - 1}, or fit on a DataFrame."
        )
    if not is_index:
        raise TypeError(
            f"{where} {column!r} has type {type(column).__name__}; expected an index or a name."
        )
    if not 0 <= column < d:
        raise ValueError(
            f"{where} {column!r} is out of range; expected an index from 0 to {d - 1}."
        )
    return int(column)


def _is_same(label: Any, column: Any) -> bool:
    """Return whether a column is named by its label; True is not the label 1."""
    return isinstance(label, bool) == isinstance(column, bool) and bool(label == column)


def resolve_scored_columns(
    columns: Any, given: Any, labels: np.ndarray | None, d: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of the columns to score (None is all that are not given), and of given ones.

    Raises as `resolve_columns`; also if a column is in both, if all are given, or `columns` is empty.
    """
    none = np.array([], dtype=np.intp)
    given_columns = none if given is None else resolve_columns("given", given, labels, d)
    _check_some_free(given_columns, d)
    if columns is None:
        return np.setdiff1d(np.arange(d), given_columns), given_columns
    scored = resolve_columns("columns", columns, labels, d)
    if not len(scored):
        raise ValueError(
            f"columns={columns!r} is empty; expected at least one column whose density to return. Pass "
            "None for all."
        )
    both = np.intersect1d(scored, given_columns)
    if len(both):
        raise ValueError(
            f"columns={list(columns)!r} and given={list(given)!r} share column {both[0]}; expected each "
            "column in at most one of them."
        )
    return scored, given_columns


def _check_some_free(given: np.ndarray, d: int) -> None:
    if len(given) == d:
        raise ValueError(
            f"given names all {d} columns; expected fewer, so that at least one column is left to draw "
            "or score."
        )


def resolve_given_values(
    given: Any, n_samples: int, labels: np.ndarray | None, d: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the given columns, and their values (n_samples, n_given).

    `given` maps columns to one value, or to one for each row; `labels` (d,) are those of the training
    columns, or None.

    Raises TypeError if `given` is not a mapping; ValueError if a column is invalid, or a value is
    neither a finite number nor one for each row.
    """
    if not isinstance(given, Mapping):
        raise wrong_type(
            "given", given, "a mapping from columns to values, such as {0: 1.5} or {'age': 40}."
        )
    columns = resolve_columns("given", given, labels, d)
    _check_some_free(columns, d)
    values = np.empty((n_samples, len(columns)))
    for column, value in given.items():
        if any(isinstance(each, str | bytes) for each in np.asarray(value, dtype=object).flat):
            raise ValueError(
                f"given[{column!r}]={value!r:.100} holds strings and is not numeric; expected numbers "
                "in the units of X. Convert it by float()."
            )
        column_values = check_real_array(f"given[{column!r}]", value)
        if column_values.shape not in ((), (n_samples,)):
            raise ValueError(
                f"given[{column!r}] has shape {column_values.shape}; expected a number, or {n_samples} "
                "of them, one for each of n_samples rows."
            )
        check_finite(
            f"given[{column!r}]",
            column_values,
            "Leave the column out of given where its value is not known.",
        )
        check_size(f"given[{column!r}]", column_values, largest=LARGEST_VALUE)
        index = np.searchsorted(columns, _index("given", column, labels, d))
        values[:, index] = column_values
    return columns, values
