"""Converts frames of pandas and polars and arrays of numpy to one plain array per column, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from scipy.sparse import issparse

from .._utils.table import check_container, check_names_differ
from .._utils.validation import check_detached

# float64 does not represent all larger integers.
_LARGEST_INTEGER = 2**53
# pandas has two dtypes called string[pyarrow]; this is ArrowDtype's.
_ARROW_STRING = "arrow string"


@dataclass(frozen=True)
class Cells:
    """The cells of one column."""

    # "number" or "flag" (float64), "label" (Python objects), "date" or "duration" (those of numpy)
    family: str
    values: np.ndarray  # (n,); arbitrary where a cell is missing
    missing: np.ndarray  # (n,) which cells are missing


@dataclass(frozen=True)
class ColumnType:
    """How a frame stores one column, in plain data that can be saved with a model."""

    dtype: str  # its name, as the library of the frame writes it
    family: str  # see `Cells`
    is_whole: bool = False  # whether it holds integers only
    categories: tuple[Any, ...] | None = None  # of a categorical dtype
    is_ordered: bool = False  # whether the categories have an order
    resolution: str = ""  # unit of the ticks of dates and durations
    zone: str | None = None  # time zone of dates

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest number that both the dtype and float64 represent."""
        name = self.dtype.lower()
        if self.is_whole:
            parsed = re.match(r"(u?)int(\d+)", name)
            bits = int(parsed[2]) - (not parsed[1]) if parsed else 53
            high = min(2**bits - 1, _LARGEST_INTEGER)
            return (0 if parsed and parsed[1] else max(-(2**bits), -_LARGEST_INTEGER)), high
        if self.is_single:
            largest = float(np.finfo(np.float32).max)
            return -largest, largest
        return -math.inf, math.inf

    @property
    def is_single(self) -> bool:
        """Whether the column holds float32."""
        return self.dtype.lower() in ("float32", "float[pyarrow]")


@dataclass(frozen=True)
class FrameType:
    """What is needed to make a frame like the training frame."""

    library: str  # "pandas", "polars" or "numpy"
    names: tuple[Any, ...]  # labels of the columns; indices, where the frame has none
    types: tuple[ColumnType, ...]
    index_name: Any = None
    columns_name: Any = None
    has_object_names: bool = False  # whether labels are stored as objects, not as their common type
    dtype: str = "object"  # of an array of numpy

    def build(self, columns: Sequence[Cells], index: Any = None) -> Any:
        """Return a frame of columns, with an index of pandas, or one of row numbers."""
        return _BUILDERS[self.library](self, columns, index)


def read_frame(X: Any, names: tuple[Any, ...] | None = None) -> tuple[FrameType, list[Cells], Any]:
    """Return the type of a table, its columns, and its index (None unless of pandas).

    `names` are labels of the columns of an array for messages; None is their indices.

    The table is not changed, and no column shares memory with it in a way that could change it.

    Raises
    ------
    TypeError
        If X is sparse, or no table.
    ValueError
        If it has no rows or columns, two columns of one name, or a column that cannot be used.
    """
    check_detached("X", X)
    if issparse(X):
        raise TypeError(
            f"X is a sparse {type(X).__name__}, but dense data is required; expected a "
            "DataFrame or a dense array. Pass X.toarray() if it fits into memory."
        )
    X = check_container(X)
    library = type(X).__module__.split(".")[0]
    if library == "polars":
        return _read_polars(X)
    return (
        _read_pandas(X) if library == "pandas" and hasattr(X, "columns") else _read_array(X, names)
    )


def check_shape(n_rows: int, names: Sequence[Any]) -> None:
    """Raise ValueError if a table is empty, or has two columns of one name."""
    if not names:
        raise ValueError(
            f"X has 0 feature(s) (shape=({n_rows}, 0)) while a minimum of 1 is required."
        )
    if not n_rows:
        raise ValueError(
            f"X has 0 sample(s) (rows) of {len(names)} columns; expected at least one."
        )
    check_names_differ(names)


def as_objects(values: Sequence[Any]) -> np.ndarray:
    """Return a sequence as an array of objects (n,), whatever the objects are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def shown(value: Any) -> str:
    """Return a value as messages print it, cut after 50 characters."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    return f"{value.item() if isinstance(value, np.generic) else value!r:.50}"


_COMPLEX = "Complex data not supported: pass the real and the imaginary part as two columns."


def _refuse(name: Any, what: str, advice: str) -> ValueError:
    """Return the error about a column that cannot be used."""
    return ValueError(
        f"column {name!r} of X {what}; expected numbers, text, categories, booleans or dates. "
        f"{advice}"
    )


# --- pandas


def _read_pandas(X: Any) -> tuple[FrameType, list[Cells], Any]:
    """Read a DataFrame of pandas."""
    names = tuple(X.columns)
    check_shape(len(X), names)
    columns = [_read_series(name, X.iloc[:, j]) for j, name in enumerate(names)]
    frame = FrameType(
        "pandas",
        names,
        tuple(kind for kind, _ in columns),
        index_name=list(X.index.names) if X.index.nlevels > 1 else X.index.name,
        columns_name=list(X.columns.names) if X.columns.nlevels > 1 else X.columns.name,
        has_object_names=X.columns.dtype == object,
    )
    return frame, [cells for _, cells in columns], X.index


def _read_series(name: Any, series: Any) -> tuple[ColumnType, Cells]:
    """Read one column of a DataFrame of pandas."""
    import pandas as pd

    dtype = series.dtype
    text = str(dtype)
    missing = series.isna().to_numpy(dtype=bool)
    if isinstance(dtype, pd.SparseDtype):
        raise _refuse(name, f"is sparse ({text})", f"Pass X[{name!r}].sparse.to_dense().")
    if isinstance(dtype, pd.CategoricalDtype):
        categories = tuple(dtype.categories.tolist())
        codes = series.cat.codes.to_numpy()
        values = as_objects((*categories, None))[codes]
        kind = ColumnType(
            str(dtype.categories.dtype), "label", False, categories, bool(dtype.ordered)
        )
        return kind, Cells("label", values, missing)
    if pd.api.types.is_bool_dtype(dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return ColumnType(text, "flag"), Cells("flag", values, missing)
    if pd.api.types.is_string_dtype(dtype) and text != "object":
        if isinstance(dtype, pd.StringDtype):
            is_nan = getattr(dtype, "na_value", None) is not pd.NA
            text = "str" if is_nan else f"string[{dtype.storage}]"
        elif text == "string[pyarrow]":
            text = _ARROW_STRING
        values = series.to_numpy(dtype=object)
        return ColumnType(text, "label"), Cells("label", values, missing)
    if text == "object":
        return _read_objects(name, series.to_numpy(dtype=object), missing)
    symbol = getattr(dtype, "kind", "O")
    if symbol in "iuf" and pd.api.types.is_numeric_dtype(dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return _read_numeric(name, text, symbol != "f", missing, values)
    if symbol in "Mm":
        zone = getattr(getattr(dtype, "pyarrow_dtype", dtype), "tz", None)
        if zone is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        values = _ticks(series, "datetime64" if symbol == "M" else "timedelta64")
        return _read_ticks(text, values, missing, zone)
    advice = {
        "period": f"Pass X[{name!r}].dt.to_timestamp().",
        "interval": f"Pass X[{name!r}].array.mid, or X[{name!r}].astype('category').",
        "complex": _COMPLEX,
        "dictionary": f"Pass X[{name!r}].astype('category').",
        "decimal": f"Pass X[{name!r}].astype(float).",
    }
    known = [text_of for start, text_of in advice.items() if text.startswith(start)]
    raise _refuse(name, f"has dtype {text}", known[0] if known else "Convert it, or drop it.")


def _ticks(series: Any, what: str) -> np.ndarray:
    """Return a Series of dates or durations as an array of numpy in its own resolution."""
    dtype = series.dtype
    unit = getattr(dtype, "unit", None) or np.datetime_data(getattr(dtype, "numpy_dtype", dtype))[0]
    unit = "s" if unit in ("D", "generic") else unit
    return series.astype(f"{what}[{unit}]").to_numpy()


def _build_pandas(frame: FrameType, columns: Sequence[Cells], index: Any) -> Any:
    """Make a DataFrame of pandas."""
    import pandas as pd

    if index is None:
        index = pd.RangeIndex(len(columns[0].values) if columns else 0)
        if not isinstance(frame.index_name, list):
            index.name = frame.index_name
    series = {
        j: _make_series(kind, cells, index)
        for j, (kind, cells) in enumerate(zip(frame.types, columns, strict=True))
    }
    made = pd.DataFrame(series, index=index)
    if isinstance(frame.columns_name, list):
        made.columns = pd.MultiIndex.from_tuples(frame.names, names=frame.columns_name)
    else:
        dtype = object if frame.has_object_names else None
        made.columns = pd.Index(list(frame.names), dtype=dtype, name=frame.columns_name)
    return made


def _make_series(kind: ColumnType, cells: Cells, index: Any) -> Any:
    """Make one column of a DataFrame of pandas."""
    import pandas as pd

    missing, values = cells.missing, cells.values
    if kind.categories is not None:
        categories = pd.Index(list(kind.categories), dtype=kind.dtype)
        dtype = pd.CategoricalDtype(categories, ordered=kind.is_ordered)
        return pd.Series(pd.Categorical(_with_missing(cells), dtype=dtype), index=index)
    if kind.family in ("date", "duration"):
        series = pd.Series(_ticks_or_nat(cells), index=index)
        if kind.zone is not None:
            series = series.dt.tz_localize("UTC").dt.tz_convert(kind.zone)
        return series.astype(kind.dtype)
    if kind.dtype == "object":
        return pd.Series(_python_objects(kind, cells), index=index, dtype=object)
    if kind.family == "label":
        dtype = kind.dtype
        if dtype == _ARROW_STRING:
            dtype = pd.ArrowDtype(import_module("pyarrow").string())
        return pd.Series(_with_missing(cells), index=index, dtype=dtype)
    if kind.family == "flag":
        flags = values == 1
        if kind.dtype == "bool":
            held = _with_missing(Cells("flag", flags, missing)) if missing.any() else flags
            return pd.Series(held, index=index)
        return pd.Series(_with_missing(Cells("flag", flags, missing)), index=index).astype(
            kind.dtype
        )
    values = np.where(missing, np.nan, values)
    if kind.is_whole:
        if not missing.any():
            return pd.Series(np.rint(values).astype(np.int64), index=index).astype(kind.dtype)
        if (
            kind.dtype[0] in "iu" and "[" not in kind.dtype
        ):  # numpy's integers hold no missing cells
            return pd.Series(values, index=index)
        return pd.Series(values, index=index).astype("Int64").astype(kind.dtype)
    return pd.Series(values, index=index).astype(kind.dtype)


# --- polars


def _read_polars(X: Any) -> tuple[FrameType, list[Cells], Any]:
    """Read a DataFrame of polars."""
    if type(X).__name__ != "DataFrame":
        raise TypeError(
            f"X is a {type(X).__name__} of polars; expected a DataFrame. Pass X.collect(), or "
            "X.to_frame() of a Series."
        )
    names = tuple(X.columns)
    check_shape(X.height, names)
    columns = [_read_polars_series(name, X[name]) for name in names]
    frame = FrameType("polars", names, tuple(kind for kind, _ in columns))
    return frame, [cells for _, cells in columns], None


def _read_polars_series(name: str, series: Any) -> tuple[ColumnType, Cells]:
    """Read one column of a DataFrame of polars."""
    import polars as pl

    dtype = series.dtype
    base = str(dtype.base_type())
    missing = series.is_null().to_numpy()
    if base in ("Categorical", "Enum", "String"):
        values = as_objects(series.cast(pl.String).to_list())
        categories = tuple(dtype.categories.to_list()) if base == "Enum" else None
        return ColumnType(base, "label", categories=categories), Cells("label", values, missing)
    if base == "Null":
        return ColumnType(base, "label"), Cells("label", as_objects([None] * len(series)), missing)
    if base == "Boolean":
        values = series.cast(pl.Float64).to_numpy()
        return ColumnType(base, "flag"), Cells("flag", values, missing)
    if base in ("Date", "Datetime", "Duration"):
        zone = getattr(dtype, "time_zone", None)
        if zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        values = series.to_numpy()
        if base == "Date":
            values = values.astype("datetime64[s]")
        return _read_ticks(base, values, missing, zone)
    if dtype.is_numeric() and base != "Decimal":
        values = series.cast(pl.Float64).to_numpy()
        return _read_numeric(name, base, dtype.is_integer(), missing, values)
    advice = {
        "Time": f"Pass pl.col({name!r}).dt.hour(), and declare Periodic(24).",
        "Decimal": f"Pass pl.col({name!r}).cast(pl.Float64).",
    }
    raise _refuse(name, f"has dtype {dtype}", advice.get(base, "Convert it, or drop it."))


def _build_polars(frame: FrameType, columns: Sequence[Cells], index: Any) -> Any:
    """Make a DataFrame of polars."""
    import polars as pl

    series = [
        _make_polars_series(str(name), kind, cells)
        for name, kind, cells in zip(frame.names, frame.types, columns, strict=True)
    ]
    return pl.DataFrame(series)


def _make_polars_series(name: str, kind: ColumnType, cells: Cells) -> Any:
    """Make one column of a DataFrame of polars."""
    import polars as pl

    if kind.family == "label":
        # A training column that held only nulls gets the type of the values.
        dtype: Any = None if kind.dtype == "Null" else getattr(pl, kind.dtype)
        if kind.categories is not None:
            dtype = dtype(kind.categories)
        return pl.Series(name, _with_missing(cells).tolist(), dtype=dtype)
    if kind.family == "flag":
        flags = Cells("flag", cells.values == 1, cells.missing)
        return pl.Series(name, _with_missing(flags).tolist(), dtype=pl.Boolean)
    if kind.family in ("date", "duration"):
        values = _ticks_or_nat(cells)
        if kind.dtype == "Date":
            return pl.Series(name, values.astype("datetime64[D]"))
        if kind.resolution == "s":
            values = values.astype(values.dtype.str.replace("[s]", "[ms]"))
        series = pl.Series(name, values)
        if kind.zone is not None:
            series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(kind.zone)
        return series
    values = np.where(cells.missing, np.nan, cells.values)
    series = pl.Series(name, np.rint(values) if kind.is_whole else values).fill_nan(None)
    return series.cast(getattr(pl, kind.dtype))


# --- numpy


def _read_array(X: Any, names: tuple[Any, ...] | None) -> tuple[FrameType, list[Cells], Any]:
    """Read a two-dimensional array, or a sequence of rows."""
    is_masked = isinstance(X, np.ma.MaskedArray)
    # numpy would turn lists of numbers and text into text.
    array = np.asarray(X, dtype=object) if isinstance(X, list | tuple) else np.asarray(X)
    if array.ndim != 2:
        raise ValueError(
            f"X of type {type(X).__name__} has shape {array.shape}; expected 2D array, a table "
            "of rows and columns. Reshape your data: X.reshape(-1, 1) if it has a single "
            "column, X.reshape(1, -1) if it has a single row."
        )
    names = names or tuple(range(array.shape[1]))
    check_shape(len(array), names)
    mask = np.ma.getmaskarray(X) if is_masked else np.zeros(array.shape, dtype=bool)
    columns = [_read_array_column(name, array[:, j], mask[:, j]) for j, name in enumerate(names)]
    types = tuple(kind for kind, _ in columns)
    dtype = str(array.dtype)
    if isinstance(X, list | tuple) and all(kind.family in ("number", "flag") for kind in types):
        dtype = "float64"
    return FrameType("numpy", names, types, dtype=dtype), [cells for _, cells in columns], None


def _read_array_column(name: Any, column: np.ndarray, mask: np.ndarray) -> tuple[ColumnType, Cells]:
    """Read one column of an array."""
    kind, text = column.dtype.kind, str(column.dtype)
    if kind == "O":
        return _read_objects(name, column, mask)
    if kind == "b":
        return ColumnType(text, "flag"), Cells("flag", column.astype(np.float64), mask)
    if kind in "iuf":
        missing = mask | np.isnan(column)
        return _read_numeric(name, text, kind != "f", missing, column.astype(np.float64))
    if kind in "US":
        return ColumnType(text, "label"), Cells("label", column.astype(object), mask)
    if kind in "Mm":
        if np.datetime_data(column.dtype)[0] not in ("s", "ms", "us", "ns"):
            column = column.astype(f"{kind}8[s]")
        return _read_ticks(text, column, mask | np.isnat(column), None)
    advice = _COMPLEX if kind == "c" else "Convert it, or drop it."
    raise _refuse(name, f"has dtype {text}", advice)


def _build_array(frame: FrameType, columns: Sequence[Cells], index: Any) -> np.ndarray:
    """Make an array of numpy."""
    n = len(columns[0].values) if columns else 0
    has_missing = any(cells.missing.any() for cells in columns)
    dtype = np.dtype(frame.dtype)
    if dtype.kind in "biu" and has_missing:
        dtype = np.dtype(np.float64)
    if dtype.kind in "USO":
        dtype = np.dtype(object) if has_missing or dtype.kind == "O" else dtype
    array = np.empty((n, len(columns)), dtype=dtype)
    for j, (kind, cells) in enumerate(zip(frame.types, columns, strict=True)):
        if dtype.kind == "O":
            array[:, j] = _python_objects(kind, cells)
        elif dtype.kind in "Mm":
            array[:, j] = _ticks_or_nat(cells)
        elif dtype.kind in "US":
            array[:, j] = cells.values
        else:
            values = np.where(cells.missing, np.nan, cells.values)
            array[:, j] = np.rint(values) if dtype.kind in "biu" else values
    return array


# --- cells that are Python objects, and what all libraries have in common


def _read_objects(name: Any, column: np.ndarray, is_masked: Any) -> tuple[ColumnType, Cells]:
    """Read a column of Python objects, which must be of one family; cells of the mask are missing."""
    values = column.tolist()
    _, first, index = np.unique(
        np.fromiter(map(id, map(type, values)), dtype=np.intp, count=len(values)),
        return_index=True,
        return_inverse=True,
    )
    names = np.array([_family(values[row]) for row in first], dtype=object)
    families = names[index]
    missing = is_masked | (families == "missing")
    may_be_missing = np.flatnonzero((families == "number") & ~missing)
    missing[may_be_missing] = np.isnan(column[may_be_missing].astype(np.float64))
    present = families[~missing]
    known = list(dict.fromkeys(present.tolist()))
    if len(known) > 1:
        examples = ", ".join(
            f"{np.sum(present == family)} cells of {family}s, such as "
            f"{shown(column[~missing][present == family][0])}"
            for family in known
        )
        raise _refuse(
            name,
            f"has cells of several types: {examples}",
            "Convert it to one type, for example by astype(str), or replace what does not belong.",
        )
    family = known[0] if known else "label"
    if family not in ("number", "flag", "label"):
        example = f"has cells of type {family}, such as {shown(column[~missing][0])}"
        is_time = family in ("date", "datetime", "Timestamp", "datetime64")
        advice = "Convert it, or drop it."
        if is_time and any(getattr(cell, "tzinfo", None) for cell in column[~missing]):
            # Without utc=True pandas refuses instants of several time zones.
            advice = f"Convert it by pandas.to_datetime(X[{name!r}], utc=True)."
        elif is_time or family in ("timedelta", "Timedelta", "timedelta64"):
            what = "datetime" if is_time else "timedelta"
            advice = f"Convert it by pandas.to_{what}, or to numpy's {what}64."
        elif family == "Decimal":
            advice = "Convert it by astype(float)."
        elif family == "time":
            advice = (
                f"Pass the hours, X[{name!r}].map(lambda t: t.hour + t.minute / 60), and declare "
                "Periodic(24)."
            )
        raise _refuse(name, example, advice)
    if family == "label":
        return ColumnType("object", "label"), Cells("label", column, missing)
    if family == "flag":
        flags = np.where(missing, np.nan, column).astype(np.float64)
        return ColumnType("object", "flag"), Cells("flag", flags, missing)
    is_float = np.array([isinstance(values[row], float | np.floating) for row in first])
    is_whole = not is_float[index][~missing].any()
    of_floats = np.where(missing, np.nan, column).astype(np.float64)
    return _read_numeric(name, "object", is_whole, missing, of_floats)


def _family(cell: Any) -> str:
    """Return the family of one Python object, or the name of its type."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return "missing"
    if isinstance(cell, bool | np.bool_):
        return "flag"
    if isinstance(cell, int | float | np.integer | np.floating):
        return "number"
    return "label" if isinstance(cell, str | bytes) else type(cell).__name__


def _read_numeric(
    name: Any, dtype: str, is_whole: bool, missing: np.ndarray, values: np.ndarray
) -> tuple[ColumnType, Cells]:
    """Read a column of numbers, which must be finite where they are not missing."""
    missing = missing | np.isnan(values)
    infinite = np.flatnonzero(np.isinf(values) & ~missing)
    if len(infinite):
        raise ValueError(
            f"column {name!r} of X holds infinity, in {len(infinite)} of {len(values)} rows "
            f"(first in row {infinite[0]}); expected finite numbers or missing cells. Drop "
            "these rows, or replace the values."
        )
    values = np.where(missing, np.nan, values)
    if is_whole and np.any(np.abs(values[~missing]) > _LARGEST_INTEGER):
        raise ValueError(
            f"column {name!r} of X holds integers beyond 2**53, such as "
            f"{values[~missing][np.argmax(np.abs(values[~missing]))]:.0f}, which float64 does "
            "not represent exactly; expected smaller ones. If it is an identifier, leave it out by "
            f"kinds={{{name!r}: None}}, or convert it to text."
        )
    return ColumnType(dtype, "number", is_whole), Cells("number", values, missing)


def _read_ticks(
    dtype: str, values: np.ndarray, missing: np.ndarray, zone: Any
) -> tuple[ColumnType, Cells]:
    """Read a column of dates or durations, in the resolution of its values."""
    family = "date" if values.dtype.kind == "M" else "duration"
    resolution, own_zone = np.datetime_data(values.dtype)[0], None if zone is None else str(zone)
    kind = ColumnType(dtype, family, resolution=resolution, zone=own_zone)
    return kind, Cells(family, values, missing)


def _ticks_or_nat(cells: Cells) -> np.ndarray:
    """Return dates or durations, NaT where a cell is missing."""
    return np.where(cells.missing, np.array("NaT", dtype=cells.values.dtype), cells.values)


def _with_missing(cells: Cells, missing_value: Any = None) -> np.ndarray:
    """Return values as objects, with `missing_value` in missing cells."""
    values = cells.values.astype(object)
    values[cells.missing] = missing_value
    return values


def _python_objects(kind: ColumnType, cells: Cells) -> np.ndarray:
    """Return a column of objects as the training frame holds them; missing cells are None or NaN."""
    if kind.family == "flag":
        return _with_missing(Cells("flag", cells.values == 1, cells.missing))
    if kind.family == "number":
        values = cells.values
        if kind.is_whole:
            values = np.rint(np.where(cells.missing, 0, values)).astype(np.int64)
        return _with_missing(Cells("number", values, cells.missing), np.nan)
    return _with_missing(cells)


_BUILDERS: dict[str, Callable[[FrameType, Sequence[Cells], Any], Any]] = {
    "pandas": _build_pandas,
    "polars": _build_polars,
    "numpy": _build_array,
}
