"""The check of tables that users pass: real finite numbers, or an error that names the column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, validate_data

from .validation import check_detached

_TABLES = "pass the table to skdiffsmooth.tables.TableDensity"
_ENCODE = f"{_TABLES}, encode it, for example with sklearn.preprocessing.OneHotEncoder, or drop it"
# What a column holds, by the kind of its dtype, and what to do.
_WRONG_KINDS = {
    "M": ("dates", f"{_TABLES}, subtract a date and divide by a timedelta, or drop it"),
    "m": ("time differences", "divide them by a timedelta of one unit, such as a day"),
    "U": ("text", _ENCODE),
    "S": ("text", _ENCODE),
    "category": ("categories", _ENCODE),
    "c": ("complex numbers", "use the real and the imaginary parts as two columns"),
}


def column_names(X: Any) -> np.ndarray | None:
    """Return the names (d,) of the columns of a table, or None if X has none that are all text."""
    names = getattr(X, "columns", None)
    if names is None or not all(isinstance(name, str) for name in names):
        return None
    return np.asarray(list(names), dtype=object)


def column_label(names: Sequence[Any] | np.ndarray | None, column: int) -> str:
    """Return what messages call a column: its name in quotes, or its index."""
    return str(column) if names is None else repr(names[column])


def n_dimensions(X: Any) -> int:
    """Return the number of dimensions of X, or raise an error for rows of unequal lengths."""
    try:
        return np.ndim(X)
    except ValueError as error:
        raise ValueError(
            f"X of type {type(X).__name__} has rows of unequal lengths ({error}); expected the same "
            "number of values in each row. Write a missing value as NaN, or drop short rows."
        ) from error


def check_table(
    X: Any, owner: Any, *, is_query: bool = False, ignored: Sequence[int] | np.ndarray = ()
) -> np.ndarray:
    """Return the table X of the user as a float64 array (n, d), whose values are finite.

    `owner` is the estimator or function that messages name; queries are compared with the columns to
    which an estimator was fitted. Columns of the indices `ignored` may hold missing values and are set
    to zero.

    Raises TypeError if X is sparse, a lazy frame, a dict or other container that is no table, a tensor
    that requires gradients or of a type that numpy lacks, or has cells that are no numbers; ValueError
    if X has another shape, two columns of one name, columns that are not numeric, masked, missing or
    infinite cells, or other columns than those of `fit`.
    """
    check_detached("X", X)
    X = check_container(X)
    names = column_names(X)
    _check_types(X, names)
    options: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": False}
    try:
        if is_query:
            checked = validate_data(owner, X, reset=False, **options)
        else:
            checked = check_array(X, estimator=owner, input_name="X", **options)
    except (TypeError, ValueError, OverflowError) as error:
        if "inhomogeneous" in str(error):
            n_dimensions(X)
        column = _first_not_numeric(X)
        if isinstance(error, OverflowError):
            where = "" if column is None else f"column {column_label(names, column)} of "
            raise ValueError(
                f"{where}X holds an integer beyond the range of float64 ({error}); expected finite "
                "numbers. Divide by a power of ten."
            ) from error
        if column is None:
            raise
        raise type(error)(
            f"column {column_label(names, column)} of X is not numeric: {error}; expected real "
            f"numbers. To use it, {_ENCODE}."
        ) from error
    if len(ignored):
        checked = checked.copy()
        checked[:, ignored] = 0.0
    _check_finite(checked, names)
    return checked


def check_container(X: Any) -> Any:
    """Return X, a Table of pyarrow as a frame of pandas; raise an error if it is no table.

    Raises TypeError if X is a lazy frame, dict, generator or structured array, or all its columns are
    sparse; ValueError if two columns have one name.
    """
    if hasattr(X, "column_names") and hasattr(X, "to_pandas"):
        X = X.to_pandas()
    fields = getattr(getattr(X, "dtype", None), "names", None)
    # A sparse array by keys is a mapping, too; scikit-learn refuses it by its name.
    if fields is not None or (isinstance(X, Mapping | Iterator) and not issparse(X)):
        advice = "list(X)" if isinstance(X, Iterator) else "pandas.DataFrame(X)"
        of_fields = f"structured array with the fields {', '.join(fields or ())}"
        raise TypeError(
            f"X is a {type(X).__name__ if fields is None else of_fields}; expected an array of "
            f"numbers or a DataFrame, with one row for each sample. Pass {advice}."
        )
    if hasattr(X, "collect_schema") and not hasattr(X, "shape"):
        raise TypeError(
            f"X is a {type(X).__name__} of polars; expected a DataFrame. Pass X.collect()."
        )
    if not hasattr(X, "columns"):
        return X
    check_names_differ(list(X.columns))
    is_sparse = [hasattr(dtype, "fill_value") for dtype in X.dtypes]
    if is_sparse and all(is_sparse):
        raise TypeError(
            "the columns of X are sparse, but dense data is required. Pass X.sparse.to_dense() if it "
            "fits into memory."
        )
    return X


def check_names_differ(names: Sequence[Any]) -> None:
    """Raise ValueError if a table has two columns of one name."""
    if len(set(names)) < len(names):
        double = sorted({repr(name) for name in names if list(names).count(name) > 1})
        raise ValueError(
            f"X has several columns with the name {', '.join(double)}; expected names that "
            "differ, since columns are found by name. Rename them."
        )


def _check_types(X: Any, names: np.ndarray | None) -> None:
    """Raise an error if X, or a column of it, has a type that numpy would convert without an error."""
    dtype = getattr(X, "dtype", None)
    if str(dtype).endswith("bfloat16"):
        raise TypeError(
            f"X is an array of dtype {dtype}, which numpy does not have; expected float32 or float64. "
            "Pass X.float() of a tensor, or X.astype('float32')."
        )
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        masked = np.flatnonzero(np.atleast_2d(np.ma.getmaskarray(X)).any(axis=0))
        raise ValueError(
            f"X is a masked array with {np.ma.count_masked(X)} masked cells, in columns "
            f"{masked.tolist()}; expected a value in every cell. Drop those rows, or fill them: a mask "
            "is not taken into account."
        )
    dtypes = X.dtypes if hasattr(X, "columns") else [dtype]  # a Series has one dtype
    kinds = [_kind(column) for column in dtypes]
    wrong = [column for column, kind in enumerate(kinds) if kind in _WRONG_KINDS]
    if wrong and kinds[wrong[0]] not in "US":
        column = wrong[0]
        what, advice = _WRONG_KINDS[kinds[column]]
        prefix = "Complex data not supported: " if kinds[column] == "c" else ""
        raise ValueError(
            f"{prefix}column {column_label(names, column)} of X holds {what}; expected real numbers. To "
            f"use it, {advice}."
        )
    text = _first_text(X) if "O" in kinds or isinstance(X, list | tuple) else None
    text = wrong[0] if wrong else text
    if text is not None:
        raise ValueError(
            f"column {column_label(names, text)} of X holds text; expected real numbers, to "
            f"which text is not converted. To use it, convert it to float, or {_ENCODE}."
        )


def _first_text(X: Any) -> int | None:
    """Return the first column of a list or table of objects with a cell of text, or None."""
    try:
        cells = np.asarray(X, dtype=object)
    except (TypeError, ValueError):  # rows of different lengths
        return None
    if cells.ndim != 2:
        return None
    is_text = np.frompyfunc(lambda cell: isinstance(cell, str | bytes), 1, 1)(cells).astype(bool)
    columns = np.flatnonzero(is_text.any(axis=0))
    return int(columns[0]) if len(columns) else None


def _kind(dtype: Any) -> str:
    """Return the kind of a dtype of numpy, pandas or polars, as numpy abbreviates it."""
    if hasattr(dtype, "is_numeric"):
        if dtype.is_numeric() or str(dtype) == "Boolean":
            return "f"
        return {"String": "U", "Duration": "m"}.get(
            str(dtype).split("(")[0], "M" if dtype.is_temporal() else "category"
        )
    if hasattr(dtype, "categories"):
        return "category"
    if str(dtype) in ("str", "string") or str(dtype).startswith(("string[", "large_string")):
        return "U"
    return getattr(dtype, "kind", "f")


def _first_not_numeric(X: Any) -> int | None:
    """Return the first column of a table whose cells cannot be converted to numbers, or None."""
    try:
        cells = np.asarray(X, dtype=object)
    except (TypeError, ValueError):
        return None
    for column in range(cells.shape[1] if cells.ndim == 2 else 0):
        try:
            cells[:, column].astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            return column
    return None


def _check_finite(X: np.ndarray, names: np.ndarray | None) -> None:
    """Raise ValueError, naming the column, if a value of X (n, d) is missing or infinite."""
    # The sum is finite for nearly all tables without such values, and needs no array of flags.
    with np.errstate(over="ignore"):
        total = X.sum()
    if np.isfinite(total):
        return
    for what, flags, advice in (
        ("NaN", np.isnan(X), "or impute them, for example with sklearn.impute.SimpleImputer"),
        ("infinity", np.isinf(X), "or replace the values"),
    ):
        columns = np.flatnonzero(flags.any(axis=0))
        if len(columns):
            described = ", ".join(
                f"{column_label(names, column)} ({flags[:, column].sum()} of {len(X)} rows)"
                for column in columns[:5]
            )
            more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
            raise ValueError(
                f"Input X contains {what} in column {described}{more}; expected finite numbers. Drop "
                f"those rows, {advice}."
            )
