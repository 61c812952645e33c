"""Columns of frames and arrays, and kinds, called directly: dtypes, limits, missing cells, messages."""

import datetime
import decimal
import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from skdiffsmooth.tables import (
    Boolean,
    Categorical,
    Continuous,
    Datetime,
    Integer,
    Interval,
    Ordinal,
    Periodic,
    Positive,
    _frames,
)
from skdiffsmooth.tables._frames import Cells, ColumnType, FrameType


@pytest.mark.parametrize(
    ("dtype", "is_whole", "limits"),
    [
        ("int8", True, (-128, 127)),
        ("uint8", True, (0, 255)),
        ("Int16", True, (-(2**15), 2**15 - 1)),
        ("UInt16", True, (0, 2**16 - 1)),
        ("int32[pyarrow]", True, (-(2**31), 2**31 - 1)),
        ("int64", True, (-(2**53), 2**53)),
        ("uint64", True, (0, 2**53)),
        ("object", True, (-(2**53), 2**53 - 1)),
        ("float64", False, (-math.inf, math.inf)),
        ("object", False, (-math.inf, math.inf)),
    ],
)
def test_limits_of_dtypes(dtype, is_whole, limits):
    assert ColumnType(dtype, "number", is_whole).limits == limits


@pytest.mark.parametrize("dtype", ["float32", "Float32", "float[pyarrow]"])
def test_limits_of_single_precision(dtype):
    stored = ColumnType(dtype, "number")
    largest = float(np.finfo(np.float32).max)
    assert stored.is_single
    assert stored.limits == (-largest, largest)
    assert not ColumnType("float64", "number").is_single


def test_values_in_messages():
    assert _frames.shown("x" * 60) == "'" + "x" * 49
    assert _frames.shown(np.float64(2.5)) == "2.5"
    assert _frames.shown(np.datetime64("2020-01-01")) == "2020-01-01"
    assert _frames.shown(np.timedelta64(3, "D")) == "3 days"
    assert _frames.shown(None) == "None"
    error = _frames._refuse("a", "is odd", "Drop it.")
    assert str(error) == (
        "column 'a' of X is odd; expected numbers, text, categories, booleans or dates. Drop it."
    )


def test_objects_of_any_shape_are_one_array():
    found = _frames.as_objects([(1, 2), (3, 4)])
    assert found.shape == (2,)
    assert found[0] == (1, 2)
    assert _frames.as_objects([]).shape == (0,)


@pytest.mark.parametrize(
    ("n_rows", "names", "message"),
    [
        (0, (), r"X has 0 feature\(s\) \(shape=\(0, 0\)\) while a minimum of 1 is required"),
        (3, (), r"X has 0 feature\(s\) \(shape=\(3, 0\)\)"),
        (0, ("a", "b"), r"X has 0 sample\(s\) \(rows\) of 2 columns; expected at least one"),
        (3, ("a", "a"), "'a'"),
    ],
)
def test_shapes_that_are_no_table(n_rows, names, message):
    with pytest.raises(ValueError, match=message):
        _frames.check_shape(n_rows, names)
    _frames.check_shape(1, ("a",))


# ------------------------------------------------------------------------------ pandas


def read(values, dtype=None):
    series = pd.Series(values, dtype=dtype) if not isinstance(values, pd.Series) else values
    return _frames._read_series("a", series)


def back(kind, cells, index=None):
    return _frames._make_series(kind, cells, pd.RangeIndex(len(cells.values)))


@pytest.mark.parametrize(
    ("values", "dtype", "name", "family", "is_whole", "missing"),
    [
        ([1.5, None], "float64", "float64", "number", False, [False, True]),
        ([1, 2], "int8", "int8", "number", True, [False, False]),
        ([1, None], "UInt16", "UInt16", "number", True, [False, True]),
        ([1.5, None], "Float32", "Float32", "number", False, [False, True]),
        ([True, False], "bool", "bool", "flag", False, [False, False]),
        ([True, None], "boolean", "boolean", "flag", False, [False, True]),
        (["x", None], "str", "str", "label", False, [False, True]),
        (["x", None], "string[python]", "string[python]", "label", False, [False, True]),
        (["x", None], "object", "object", "label", False, [False, True]),
        ([3, 4], "object", "object", "number", True, [False, False]),
        ([3, 2.5], "object", "object", "number", False, [False, False]),
        ([3, float("nan")], "object", "object", "number", True, [False, True]),
        ([True, None], "object", "object", "flag", False, [False, True]),
        ([None, None], "object", "object", "label", False, [True, True]),
    ],
)
def test_series_are_read_and_made(values, dtype, name, family, is_whole, missing):
    kind, cells = read(values, dtype)
    assert (kind.dtype, kind.family, kind.is_whole) == (name, family, is_whole)
    assert cells.family == family
    assert cells.missing.tolist() == missing
    if family in ("number", "flag"):
        assert cells.values.dtype == np.float64
    pd.testing.assert_series_equal(back(kind, cells), pd.Series(values, dtype=dtype))


def test_categories_are_read_and_made():
    for is_ordered in (False, True):
        series = pd.Series(pd.Categorical(["b", None, "a"], ["c", "b", "a"], ordered=is_ordered))
        kind, cells = read(series)
        assert kind.family == cells.family == "label"
        assert kind.categories == ("c", "b", "a")
        assert kind.is_ordered is is_ordered
        assert kind.is_whole is False
        assert cells.values.tolist() == ["b", None, "a"]
        assert cells.missing.tolist() == [False, True, False]
        pd.testing.assert_series_equal(back(kind, cells), series)


def test_dates_and_durations_are_read_and_made():
    days = pd.Series(pd.to_datetime(["2020-01-01", None])).astype("datetime64[ms]")
    kind, cells = read(days)
    assert (kind.family, kind.resolution, kind.zone) == ("date", "ms", None)
    assert cells.missing.tolist() == [False, True]
    pd.testing.assert_series_equal(back(kind, cells), days)
    zone = days.dt.tz_localize("Europe/Berlin")
    kind, cells = read(zone)
    assert (kind.zone, kind.resolution) == ("Europe/Berlin", "ms")
    assert cells.values[0] == np.datetime64("2019-12-31T23:00")
    pd.testing.assert_series_equal(back(kind, cells), zone)
    waits = pd.Series(pd.to_timedelta([3, None], unit="s")).astype("timedelta64[s]")
    kind, cells = read(waits)
    assert (kind.family, kind.resolution) == ("duration", "s")
    pd.testing.assert_series_equal(back(kind, cells), waits)


def test_whole_numbers_that_cannot_be_missing_become_floats():
    cells = Cells("number", np.array([1.0, 7.0, 3.2]), np.array([False, True, False]))
    kind = ColumnType("int64", "number", is_whole=True)
    made = back(kind, cells)
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, [1.0, np.nan, 3.2])
    nothing = Cells("number", np.array([1.4, 2.6]), np.zeros(2, dtype=bool))
    made = back(kind, nothing)
    assert (made.dtype, made.tolist()) == (np.int64, [1, 3])
    nullable = back(
        ColumnType("Int8", "number", is_whole=True),
        Cells("number", np.array([1.0, 7.0]), np.array([False, True])),
    )
    assert (str(nullable.dtype), nullable[0], nullable[1]) == ("Int8", 1, pd.NA)
    flags = Cells("flag", np.array([1.0, 0.0, 1.0]), np.array([False, False, True]))
    made = back(ColumnType("bool", "flag"), flags)
    assert made.tolist() == [True, False, None]
    assert str(back(ColumnType("boolean", "flag"), flags).dtype) == "boolean"


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (pd.Series(pd.arrays.SparseArray([0.0, 1.0])), r"is sparse .*X\['a'\].sparse.to_dense"),
        (pd.Series(pd.period_range("2020-01", periods=2, freq="M")), "has dtype period.*to_timest"),
        (pd.Series(pd.interval_range(0, 2)), "has dtype interval.*array.mid"),
        (pd.Series([1j, 2j]), "has dtype complex128.*Complex data not supported"),
        (pd.Series([1.0, "x", "y", 2], dtype=object),
         r"2 cells of numbers, such as 1.0, 2 cells of labels, such as 'x'.*Convert it to one"),
        (pd.Series([True, 2], dtype=object), "1 cells of flags, such as True, 1 cells of numbers"),
        (pd.Series([datetime.date(2020, 1, 1)], dtype=object), "type date, .*pandas.to_datetime, or"),
        (pd.Series([datetime.timedelta(1)], dtype=object), "of type timedelta, .*pandas.to_timedel"),
        (pd.Series([decimal.Decimal(1)], dtype=object), r"type Decimal, .*Convert it by astype\(fl"),
        (pd.Series([[1], [2]], dtype=object), r"of type list, such as \[1\]; .*Convert it, or drop"),
        (pd.Series([1.0, np.inf, -np.inf]), r"'a' of X holds infinity, in 2 of 3 rows \(first in row 1"),
        (pd.Series([1, 2**53 + 2, 5]), "'a' of X holds integers beyond 2.*such as 9007199254740994,"),
        (pd.Series([-(2**60), 2]), "'a' of X holds integers beyond .*such as -1152921504606846976,"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_used(series, message):
    with pytest.raises(ValueError, match=message):
        read(series)


def test_the_largest_integers_are_allowed():
    _, cells = read(pd.Series([2**53, -(2**53)]))
    assert cells.values.tolist() == [2.0**53, -(2.0**53)]
    _, cells = _frames._read_numeric(
        "a", "float64", False, np.array([False, True]), np.array([1e300, np.inf])
    )
    np.testing.assert_array_equal(cells.values, [1e300, np.nan])


def test_frames_keep_their_labels_and_index():
    X = pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]}, index=pd.Index([3, 9], name="row"))
    X.columns.name = "what"
    frame, cells, index = _frames.read_frame(X)
    assert (frame.library, frame.names, frame.index_name) == ("pandas", ("a", "b"), "row")
    assert frame.columns_name == "what"
    pd.testing.assert_frame_equal(frame.build(cells, index), X)
    made = frame.build(cells)
    assert made.index.tolist() == [0, 1]
    assert made.index.name == "row"
    double = X.copy()
    double.columns = pd.MultiIndex.from_tuples([("u", 1), ("u", 2)], names=["p", "q"])
    double.index = pd.MultiIndex.from_tuples([(1, 2), (3, 4)], names=["r", "s"])
    frame, cells, index = _frames.read_frame(double)
    assert frame.index_name == ["r", "s"]
    pd.testing.assert_frame_equal(frame.build(cells, index), double)
    made = frame.build(cells)
    assert made.index.name is None
    pd.testing.assert_frame_equal(made, double.reset_index(drop=True))
    numbered = pd.DataFrame([[1.5, 2.5]], columns=[4, 7])
    frame, cells, index = _frames.read_frame(numbered)
    assert frame.has_object_names is False
    assert frame.build(cells, index).columns.dtype == np.int64
    objects = numbered.copy()
    objects.columns = pd.Index([4, 7], dtype=object)
    frame, cells, index = _frames.read_frame(objects)
    assert frame.has_object_names is True
    assert frame.build(cells, index).columns.dtype == object


# ------------------------------------------------------------------------------ polars

# Series are made in the tests, since a process with threads of polars must not be forked.


@pytest.mark.parametrize(
    ("make", "family", "is_whole"),
    [
        (lambda: pl.Series("a", [1.5, None]), "number", False),
        (lambda: pl.Series("a", [1, None], dtype=pl.Int8), "number", True),
        (lambda: pl.Series("a", [1, 3], dtype=pl.UInt32), "number", True),
        (lambda: pl.Series("a", [1.5, 2.5], dtype=pl.Float32), "number", False),
        (lambda: pl.Series("a", [True, None]), "flag", False),
        (lambda: pl.Series("a", ["x", None]), "label", False),
        (lambda: pl.Series("a", ["x", None], dtype=pl.Categorical), "label", False),
        (lambda: pl.Series("a", ["x", None], dtype=pl.Enum(["y", "x"])), "label", False),
        (lambda: pl.Series("a", [datetime.date(2020, 1, 2), None]), "date", False),
        (lambda: pl.Series("a", [datetime.datetime(2020, 1, 2, 3), None]), "date", False),
        (lambda: pl.Series("a", [datetime.timedelta(hours=3), None]), "duration", False),
    ],
)
def test_series_of_polars_are_read_and_made(make, family, is_whole):
    series = make()
    kind, cells = _frames._read_polars_series("a", series)
    assert (kind.family, cells.family, kind.is_whole) == (family, family, is_whole)
    assert cells.missing.tolist() == series.is_null().to_list()
    assert kind.categories == (("y", "x") if series.dtype == pl.Enum else None)
    made = _frames._make_polars_series("a", kind, cells)
    assert made.dtype == series.dtype
    assert made.to_list() == series.to_list()


def test_dates_of_polars_have_zones():
    series = pl.Series("a", [datetime.datetime(2020, 1, 2, 3)]).dt.replace_time_zone("Asia/Tokyo")
    kind, cells = _frames._read_polars_series("a", series)
    assert kind.zone == "Asia/Tokyo"
    assert cells.values[0] == np.datetime64("2020-01-01T18:00")
    made = _frames._make_polars_series("a", kind, cells)
    assert made.dtype == series.dtype
    assert made.to_list() == series.to_list()


def test_whole_numbers_of_polars_are_rounded():
    cells = Cells("number", np.array([1.4, 2.6]), np.array([False, True]))
    made = _frames._make_polars_series("a", ColumnType("Int8", "number", True), cells)
    assert (made.dtype, made.to_list()) == (pl.Int8, [1, None])
    made = _frames._make_polars_series("a", ColumnType("Float64", "number"), cells)
    assert made.to_list() == [1.4, None]
    nothing = _frames._read_polars_series("a", pl.Series("a", [None, None]))
    assert nothing[0].family == "label"
    assert nothing[1].missing.tolist() == [True, True]
    seconds = Cells("date", np.array(["2020-01-01"], dtype="datetime64[s]"), np.zeros(1, bool))
    made = _frames._make_polars_series("a", ColumnType("Datetime", "date", resolution="s"), seconds)
    assert made.dtype == pl.Datetime("ms")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pl.Series("a", [datetime.time(3)]),
            r"has dtype Time.*dt.hour\(\), and declare Periodic",
        ),
        (
            lambda: pl.Series("a", [decimal.Decimal("1.5")]),
            r"has dtype Decimal.*cast\(pl.Float64\)",
        ),
        (lambda: pl.Series("a", [[1], [2]]), r"has dtype List\(Int64\).*Convert it, or drop it"),
    ],
)
def test_series_of_polars_that_cannot_be_used(make, message):
    with pytest.raises(ValueError, match="column 'a' of X " + message):
        _frames._read_polars_series("a", make())


def test_what_is_no_table():
    with pytest.raises(TypeError, match=r"X is a LazyFrame of polars; .*Pass X.collect\(\)"):
        _frames.read_frame(pl.LazyFrame({"a": [1]}))
    with pytest.raises(TypeError, match=r"X is a sparse .*dense data is required"):
        _frames.read_frame(sparse.csr_matrix(np.eye(2)))
    with pytest.raises(TypeError, match="structured array with the fields u, v"):
        _frames.read_frame(np.zeros(2, dtype=[("u", float), ("v", int)]))
    with pytest.raises(ValueError, match=r"X of type ndarray has shape \(3,\); expected 2D array"):
        _frames.read_frame(np.zeros(3))
    with pytest.raises(ValueError, match=r"X of type Series has shape \(2,\); expected 2D array"):
        _frames.read_frame(pd.Series([1.0, 2.0]))


# ------------------------------------------------------------------------------ numpy


@pytest.mark.parametrize(
    ("array", "family"),
    [
        (np.array([[1.5, np.nan], [2.5, 3.5]]), "number"),
        (np.array([[1, 2], [3, 4]], dtype=np.int16), "number"),
        (np.array([[True, False], [False, False]]), "flag"),
        (np.array([["x", "y"], ["z", "y"]]), "label"),
        (np.array([[b"x", b"y"], [b"z", b"y"]]), "label"),
        (np.array([["2020-01-01"], ["NaT"]], dtype="datetime64[ms]"), "date"),
        (np.array([[3], [5]], dtype="timedelta64[ns]"), "duration"),
        (np.array([["x", 1], [None, 2]], dtype=object), None),
    ],
)
def test_arrays_are_read_and_made(array, family):
    frame, cells, index = _frames.read_frame(array)
    assert frame.library == "numpy"
    assert frame.names == tuple(range(array.shape[1]))
    assert index is None
    if family is not None:
        assert {each.family for each in cells} == {family}
    made = frame.build(cells)
    assert made.dtype == array.dtype
    np.testing.assert_array_equal(made, array)


def test_arrays_with_missing_cells_that_they_cannot_hold():
    missing, present = np.array([True, False]), np.zeros(2, dtype=bool)
    number = Cells("number", np.array([1.4, 2.6]), present)
    whole = ColumnType("int64", "number", is_whole=True)
    frame = FrameType("numpy", (0,), (whole,), dtype="int64")
    made = frame.build([number])
    assert (made.dtype, made[:, 0].tolist()) == (np.int64, [1, 3])
    made = frame.build([Cells("number", number.values, missing)])
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made[:, 0], [np.nan, 2.6])
    text = FrameType("numpy", (0,), (ColumnType("<U1", "label"),), dtype="<U1")
    label = Cells("label", np.array(["x", "y"], dtype=object), present)
    assert text.build([label]).dtype == np.dtype("<U1")
    made = text.build([Cells("label", label.values, missing)])
    assert made.dtype == object
    assert made[:, 0].tolist() == [None, "y"]


def test_days_become_seconds_and_masks_missing_cells():
    kind, cells = _frames._read_array_column(
        "a", np.array(["2020-01-02", "NaT"], dtype="datetime64[D]"), np.zeros(2, dtype=bool)
    )
    assert kind.resolution == "s"
    assert cells.missing.tolist() == [False, True]
    mask = np.array([True, False])
    plain = [1.0, 2.0], [True, False], ["x", "y"]
    waits = np.array([1, 2], dtype="timedelta64[s]")
    for values in (*map(np.array, plain), np.array([1, 2], dtype=object), waits):
        _, cells = _frames._read_array_column("a", values, mask)
        assert cells.missing.tolist() == [True, False]
    masked = np.ma.MaskedArray([[1.0, 2.0], [3.0, 4.0]], [[True, False], [False, False]])
    _, (first, second), _ = _frames.read_frame(masked)
    assert first.missing.tolist() == [True, False]
    assert second.missing.tolist() == [False, False]
    with pytest.raises(ValueError, match=r"'a' of X has dtype complex128.*Complex data not"):
        _frames._read_array_column("a", np.array([1j]), np.zeros(1, dtype=bool))
    with pytest.raises(ValueError, match=r"'a' of X has dtype .*V.*Convert it, or drop it"):
        _frames._read_array_column("a", np.zeros(1, dtype="V4"), np.zeros(1, dtype=bool))


def test_lists_of_rows():
    frame, cells, _ = _frames.read_frame([[1, 2.5], [3, None]])
    assert frame.dtype == "float64"
    assert [each.family for each in cells] == ["number", "number"]
    frame, cells, _ = _frames.read_frame([[1, "x"], [3, "y"]])
    assert frame.dtype == "object"
    assert [each.family for each in cells] == ["number", "label"]
    made = frame.build(cells)
    assert made.tolist() == [[1, "x"], [3, "y"]]
    assert type(made[0, 0]) is int
    frame, _, _ = _frames.read_frame(((True, 2.0), (False, 3.0)))
    assert frame.dtype == "float64"
    frame, _, _ = _frames.read_frame(np.array([[1, 2]], dtype=object))
    assert frame.dtype == "object"
    named, _, _ = _frames.read_frame(np.zeros((1, 2)), ("u", "v"))
    assert named.names == ("u", "v")


@pytest.mark.parametrize(
    ("cell", "family"),
    [
        (None, "missing"), (pd.NA, "missing"), (pd.NaT, "missing"), (True, "flag"),
        (np.bool_(False), "flag"), (3, "number"), (2.5, "number"), (np.int8(3), "number"),
        (np.float32(1), "number"), ("x", "label"), (b"x", "label"), ([1], "list"),
        (datetime.date(2020, 1, 1), "date"),
    ],
)  # fmt: skip
def test_families_of_objects(cell, family):
    assert _frames._family(cell) == family


def test_objects_come_back_as_they_were():
    missing = np.array([False, True, False])
    cells = Cells("number", np.array([1.0, 9.0, 3.0]), missing)
    found = _frames._python_objects(ColumnType("object", "number", is_whole=True), cells)
    assert found[0] == 1
    assert isinstance(found[0], int | np.integer)
    assert math.isnan(found[1])
    found = _frames._python_objects(ColumnType("object", "number"), cells)
    assert isinstance(found[0], float)
    flags = _frames._python_objects(
        ColumnType("object", "flag"), Cells("flag", np.array([1.0, 0.0, 0.0]), missing)
    )
    assert flags.tolist() == [True, None, False]
    labels = Cells("label", np.array(["x", "y", "z"], dtype=object), missing)
    assert _frames._python_objects(ColumnType("object", "label"), labels).tolist() == [
        "x", None, "z",
    ]  # fmt: skip
    assert labels.values[1] == "y"


# ------------------------------------------------------------------------------ kinds


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Categorical(), "Categorical()"),
        (Categorical(["x", 2]), "Categorical(['x', 2])"),
        (Ordinal([1, 2]), "Ordinal([1, 2])"),
        (Boolean(), "Boolean()"),
        (Continuous(), "Continuous()"),
        (Continuous(atoms=(0,)), "Continuous(atoms=(0.0,))"),
        (Continuous(unit=None), "Continuous(unit=None)"),
        (Interval(0, 1), "Interval(0.0, 1.0)"),
        (Interval(-math.inf, 1, unit=0.5), "Interval(-inf, 1.0, unit=0.5)"),
        (Integer(high=5), "Integer(high=5.0)"),
        (Integer(0, 5), "Integer(0.0, 5.0)"),
        (Integer(0), "Integer(0.0)"),
        (Periodic(24), "Periodic(24.0)"),
        (Periodic(360, -180, atoms=()), "Periodic(360.0, -180.0, atoms=())"),
        (Datetime("h"), "Datetime('h')"),
        (Datetime(), "Datetime()"),
    ],
)
def test_kinds_are_shown_as_the_call_that_makes_them(kind, text):
    assert repr(kind) == text
    assert eval(text, {**globals(), "inf": math.inf}) == kind


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Categorical("xy"), TypeError, r"Categorical\('xy'\) has levels of type str"),
        (
            lambda: Ordinal(3),
            TypeError,
            r"Ordinal\(3\) has levels of type int; expected a sequence",
        ),
        (lambda: Categorical({"x"}), TypeError, "Categorical has levels in a set"),
        (lambda: Categorical(frozenset("x")), TypeError, "levels in a set"),
        (lambda: Categorical([[1]]), TypeError, "Categorical: one of levels is not hashable"),
        (lambda: Categorical(["x", None]), ValueError, "has a missing value as a level"),
        (lambda: Categorical([1.0, math.nan]), ValueError, "has a missing value as a level"),
        (lambda: Categorical([]), ValueError, "has 0 levels, of which 0 are different"),
        (
            lambda: Categorical(["x", "y", "x"]),
            ValueError,
            "has 3 levels, of which 2 are different",
        ),
        (
            lambda: Continuous(atoms=3),
            TypeError,
            "atoms=3 has type int; expected 'auto' or a tuple",
        ),
        (lambda: Continuous(atoms="no"), ValueError, r"atoms='no'.*Or pass a tuple of numbers"),
        (lambda: Continuous(atoms=(math.inf,)), ValueError, "atoms"),
        (lambda: Continuous(unit="no"), ValueError, "unit='no'.*Or pass a number > 0, or None"),
        (lambda: Continuous(unit=0), ValueError, "unit=0.*Pass None for exact values"),
        (
            lambda: Positive(atoms=(-1,)),
            ValueError,
            r"atoms=\(-1.0,\) of a column of kind positive",
        ),
        (lambda: Interval(0, 1, atoms=(2,)), ValueError, "values outside its bounds, 0 and 1;"),
        (lambda: Interval(1, 1), ValueError, "low=1.0 and high=1.0 bound no interval"),
        (lambda: Interval(-math.inf, math.inf), ValueError, "low=-inf and high=inf are no bounds"),
        (lambda: Interval(math.inf, 3), ValueError, "low=inf.*Pass -inf for none"),
        (lambda: Interval(0, -math.inf), ValueError, "high=-inf.*Pass inf for none"),
        (lambda: Integer(unit=None), ValueError, "unit=None of an Integer column"),
        (lambda: Integer(3, 3), ValueError, "low=3.0 and high=3.0 leave no two values"),
        (lambda: Integer(0, 5, atoms=(6,)), ValueError, "values outside its bounds, 0 and 5"),
        (lambda: Periodic(0), ValueError, "period=0.*such as 24 for hours"),
        (lambda: Periodic(24, math.nan), ValueError, "origin=nan"),
        (lambda: Datetime("w"), ValueError, "unit='w'"),
    ],
)
def test_kinds_that_are_none(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_parameters_of_kinds_are_plain():
    levels = Categorical(np.array([2, 1])).levels
    assert levels == (2, 1)
    assert all(type(level) is int for level in levels)
    assert Continuous(atoms=[3, 1, 3]).atoms == (1.0, 3.0)
    assert Continuous().atoms == "auto"
    assert type(Interval(0, 1).low) is float
    assert type(Integer(0, 5).high) is float
    assert type(Periodic(24).period) is float
    assert Interval(-math.inf, 3).bounds == (-math.inf, 3.0)
    assert Interval(3, math.inf).bounds == (3.0, math.inf)
    assert Integer().bounds == (-math.inf, math.inf)
    assert Integer(2).bounds == (2.0, math.inf)
    assert Integer(high=2).bounds == (-math.inf, 2.0)
    assert Positive().bounds == (0.0, math.inf)
    assert Continuous(unit=2).unit == 2.0
    assert Interval(0, 1, atoms=(0, 1)).atoms == (0.0, 1.0)
    assert [kind.is_open for kind in (Positive(), Interval(0, 1), Integer(), Continuous())] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [kind.is_ordered for kind in (Ordinal(), Categorical(), Boolean())] == [
        True,
        False,
        False,
    ]
    assert Boolean().levels == (False, True)
