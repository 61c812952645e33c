"""Frames as levels and values, and back: every dtype, and the laws of the coordinates."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiffsmooth.tables import (
    Categorical,
    Continuous,
    Datetime,
    EncodedTable,
    Integer,
    Interval,
    Ordinal,
    Periodic,
    Positive,
    TableColumns,
)

N = 60


def arrow(dtype):
    return pd.ArrowDtype(dtype)


def pandas_columns(seed=0, n=N):
    """Return one column of each dtype that a pandas frame may have."""
    rng = np.random.RandomState(seed)
    days = pd.Series(pd.date_range("2019-12-20", periods=n))
    hours = pd.Series(pd.date_range("2021-03-27 10:00", periods=n, freq="7h"))
    counts, text = rng.poisson(3, n), rng.choice(["a", "b", "c"], n)
    flags, normal = rng.uniform(size=n) < 0.3, rng.normal(size=n)
    seconds = pd.Series(pd.to_timedelta(rng.exponential(1e6, n).round(), unit="s"))
    return {
        "float64": normal,
        "float32": normal.astype(np.float32),
        "rounded": rng.normal(170, 10, n).round(1),
        "rounded float32": normal.round(2).astype(np.float32),
        "income": np.where(flags, 0.0, rng.lognormal(10, 1, n)),
        "share": rng.beta(1, 1, n),
        "int64": counts,
        "uint8": rng.randint(0, 200, n).astype(np.uint8),
        "Int64": pd.array(counts, dtype="Int64"),
        "Float64": pd.array(normal, dtype="Float64"),
        "int arrow": pd.array(counts, dtype=arrow(pa.int64())),
        "float arrow": pd.array(normal, dtype=arrow(pa.float64())),
        "bool": flags,
        "boolean": pd.array(flags, dtype="boolean"),
        "bool arrow": pd.array(flags, dtype=arrow(pa.bool_())),
        "str": pd.array(text, dtype="str"),
        "string": pd.array(text, dtype="string"),
        "string arrow": pd.array(text, dtype=arrow(pa.string())),
        "text object": pd.Series(text, dtype=object),
        "int object": pd.Series([int(count) for count in counts], dtype=object),
        "bool object": pd.Series([bool(flag) for flag in flags], dtype=object),
        "category": pd.Categorical(text, categories=["c", "never", "b", "a"]),
        "category of int": pd.Categorical(counts % 3),
        "ordered": pd.Categorical(text, categories=["c", "a", "b"], ordered=True),
        "date s": days.astype("datetime64[s]"),
        "date ns": hours.astype("datetime64[ns]"),
        "date zone": hours.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
        "date arrow": days.astype(arrow(pa.date32())),
        "zone arrow": hours.dt.tz_localize("UTC").astype(arrow(pa.timestamp("us", tz="UTC"))),
        "timedelta": seconds,
        "duration arrow": seconds.astype(arrow(pa.duration("ms"))),
    }


def frame(seed=0, n=N):
    made = pd.DataFrame(pandas_columns(seed, n))
    made.index = pd.RangeIndex(7, n + 7, name="row")
    return made


def with_missing(column, seed=0):
    """Return a Series with missing cells, in the dtype that pandas then needs."""
    series = pd.Series(column)
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "iu":
        series = series.astype(float)
    if series.dtype == bool:
        series = series.astype(object)
    rows = np.random.RandomState(seed).choice(len(series), len(series) // 5, replace=False)
    series.iloc[rows] = None
    return series


def assert_same(made, expected):
    pd.testing.assert_frame_equal(made, expected, check_exact=True)


def test_a_frame_of_every_dtype_comes_back():
    X = frame()
    columns = TableColumns.fit(X)
    assert_same(columns.decode(columns.encode(X)), X)


def test_it_comes_back_with_missing_cells():
    parts = enumerate(pandas_columns().items())
    X = pd.DataFrame({name: with_missing(column, seed) for seed, (name, column) in parts})
    columns = TableColumns.fit(X)
    rows = columns.encode(X)
    assert_same(columns.decode(rows), X)
    # Each column has the same missing cells in each of its coordinates, but for values at an atom.
    for j, coordinate in enumerate(columns.discrete):
        np.testing.assert_array_equal(rows.levels[:, j] == -1, X[coordinate.name].isna())
    for j, coordinate in enumerate(columns.continuous):
        is_atom = 0 if coordinate.discrete is None else rows.levels[:, coordinate.discrete] > 0
        missing = np.isnan(rows.values[:, j])
        np.testing.assert_array_equal(missing, X[coordinate.name].isna() | is_atom)


def test_a_polars_frame_comes_back():
    kept = [name for name in pandas_columns() if "object" not in name and name != "category of int"]
    X = pl.from_pandas(frame()[kept].reset_index(drop=True))
    rng = np.random.RandomState(1)
    X = X.with_columns(
        pl.col("date s").cast(pl.Date).alias("Date"),
        pl.col("date ns").cast(pl.Datetime("ms", "Asia/Tokyo")),
        pl.Series("Enum", rng.choice(["u", "v"], N)).cast(pl.Enum(["v", "w", "u"])),
        pl.col("int64").cast(pl.Int8).alias("Int8"),
    )
    gaps = rng.uniform(size=(N, X.width)) < 0.2
    X = X.with_columns(
        pl.when(pl.Series(~gaps[:, j])).then(pl.col(name)).otherwise(None).alias(name)
        for j, name in enumerate(X.columns)
    )
    columns = TableColumns.fit(X)
    made = columns.decode(columns.encode(X))
    assert made.schema == X.schema
    assert made.equals(X)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool", "<U1", object])
def test_an_array_comes_back(dtype):
    X = (
        np.random.RandomState(0)
        .poisson(1, size=(N, 3))
        .clip(0, 1 if dtype == "bool" else 9)
        .astype(dtype)
    )
    columns = TableColumns.fit(X)
    made = columns.decode(columns.encode(X))
    assert made.dtype == X.dtype
    np.testing.assert_array_equal(made, X)
    assert columns.names == (0, 1, 2)


def test_an_array_of_objects_keeps_their_types():
    X = np.array([[1, "a", 0.5, True], [2, "b", None, False], [3, "a", 1.5, None]], dtype=object)
    columns = TableColumns.fit(X)
    made = columns.decode(columns.encode(X))
    assert [type(cell) for cell in made[0]] == [int, str, float, bool]
    assert pd.DataFrame(made).isna().equals(pd.DataFrame(X).isna())


def test_lists_and_masked_arrays():
    rows = [[1.5, 2.0], [2.5, None], [0.5, 7.0]]
    columns = TableColumns.fit(rows)
    np.testing.assert_array_equal(
        columns.decode(columns.encode(rows)), [[1.5, 2], [2.5, np.nan], [0.5, 7]]
    )
    masked = np.ma.masked_invalid(np.array(rows, dtype=float))
    assert np.isnan(TableColumns.fit(masked).encode(masked).values[1, 1])


def test_a_frame_is_not_modified():
    X = frame()
    before = X.copy(deep=True)
    columns = TableColumns.fit(X)
    made = columns.decode(columns.encode(X))
    made["float64"] = 0.0
    made.iloc[:, 0] = 0.0
    assert_same(X, before)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b"],
        pd.Index(["a", "b"], dtype=object),
        [3, 1],
        pd.MultiIndex.from_product([["a"], [1, 2]]),
    ],
)
def test_labels_come_back(names):
    X = pd.DataFrame(np.random.RandomState(0).normal(size=(12, 2)), columns=names)
    X.columns.names = [f"level {i}" for i in range(X.columns.nlevels)]
    X.index = pd.MultiIndex.from_product([["u", "v"], range(6)], names=["first", "second"])
    columns = TableColumns.fit(X)
    assert_same(columns.decode(columns.encode(X)), X)


def test_columns_are_found_by_name():
    X = frame()
    columns = TableColumns.fit(X)
    order = list(np.random.RandomState(0).permutation(X.columns))
    assert_same(columns.decode(columns.encode(X[order])), X)


def test_fit_with_the_kinds_that_were_detected_changes_nothing():
    X = frame()
    columns = TableColumns.fit(X)
    again = TableColumns.fit(X, columns.kinds)
    assert again.kinds == columns.kinds
    first, second = columns.encode(X), again.encode(X)
    np.testing.assert_array_equal(first.levels, second.levels)
    np.testing.assert_array_equal(first.values, second.values)


def test_fit_follows_neither_rows_nor_weights_order():
    X = frame()
    order = np.random.RandomState(1).permutation(N)
    columns = TableColumns.fit(X)
    assert TableColumns.fit(X.iloc[order]).kinds == columns.kinds
    # A row of weight two and a copy are the same, and a row of weight zero is absent.
    weight = np.random.RandomState(2).randint(0, 3, N)
    copied = X.iloc[np.repeat(np.arange(N), weight)]
    assert TableColumns.fit(X, sample_weight=weight).kinds == TableColumns.fit(copied).kinds


def test_a_query_changes_nothing_that_was_detected():
    X = frame()
    columns = TableColumns.fit(X)
    before = repr(columns), columns.kinds
    one = X.iloc[[3]]
    rows, alone = columns.encode(X), columns.encode(one)
    np.testing.assert_array_equal(alone.levels, rows.levels[[3]])
    np.testing.assert_array_equal(alone.values, rows.values[[3]])
    assert_same(columns.decode(alone), one)
    assert (repr(columns), columns.kinds) == before


def test_it_can_be_pickled():
    X = frame()
    columns = TableColumns.fit(X)
    copied = pickle.loads(pickle.dumps(columns))
    assert_same(copied.decode(columns.encode(X)), X)


def test_left_out_columns():
    X = frame()[["int64", "str", "float64"]]
    columns = TableColumns.fit(X, {"str": None})
    assert columns.names == ("int64", "float64")
    for query in (X, X.drop(columns="str")):
        assert_same(columns.decode(columns.encode(query)), X.drop(columns="str"))
    assert "'str' is left out" in repr(columns)
    array = np.arange(30.0).reshape(10, 3) ** 2
    columns = TableColumns.fit(array, {1: None})
    np.testing.assert_array_equal(columns.decode(columns.encode(array)), array[:, [0, 2]])
    np.testing.assert_array_equal(
        columns.decode(columns.encode(array[:, [0, 2]])), array[:, [0, 2]]
    )


# --- draws: rounding, bounds, periods


def draws(columns, values, levels=None):
    """Return encoded rows of one continuous column."""
    values = np.asarray(values, dtype=float)[:, None]
    n_discrete = len(columns.discrete)
    levels = np.zeros((len(values), n_discrete), dtype=int) if levels is None else levels
    return EncodedTable(levels, values)


def test_draws_are_rounded_as_the_training_rows():
    X = pd.DataFrame({"x": np.random.RandomState(0).normal(170, 10, 100).round(1)})
    columns = TableColumns.fit(X)
    made = columns.decode(draws(columns, [170.04999, 0.31, 169.96]))["x"].tolist()
    # The floats that print like that, and not 170.00000000000003.
    assert made == [170.0, 0.3, 170.0]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (Integer(0, 5), [-3.0, 0.4, 2.6, 9.0], [0, 0, 3, 5]),
        (Integer(0, atoms=(0,)), [-3.0, 0.4, 2.6], [1, 1, 3]),
        (Positive(unit=0.1, atoms=(0,)), [1e-9, 0.04, 0.06], [0.1, 0.1, 0.1]),
        (Interval(0, 1, unit=0.25), [0.01, 0.3, 0.99], [0.25, 0.25, 0.75]),
        (Periodic(24), [25.5, -0.5, 23.0], [1.5, 23.5, 23.0]),
        (Periodic(24, unit=1.0), [23.7, -0.2, 11.6], [0.0, 0.0, 12.0]),
        (Periodic(360, -180), [190.0, -180.0], [-170.0, -180.0]),
        (Datetime("h"), [0.3, 1.0], ["2020-01-01 07:00", "2020-01-02 00:00"]),
    ],
)
def test_draws_stay_within_bounds_and_periods(kind, values, expected):
    training = {"Integer": [1, 2, 4, 5], "Positive": [0.5, 0.1], "Interval": [0.25, 0.5]}
    column = training.get(type(kind).__name__, [3.0, 11.0])
    if isinstance(kind, Datetime):
        column = pd.to_datetime(["2020-01-01", "2020-02-01"])
        expected = pd.to_datetime(expected).tolist()
    columns = TableColumns.fit(pd.DataFrame({"x": column}), {"x": kind})
    assert columns.decode(draws(columns, values))["x"].tolist() == expected


def test_lattices_of_inexact_floats_come_back():
    """Recorded values that are near multiples of a unit, or far from zero, are not moved."""
    rng = np.random.RandomState(0)
    X = pd.DataFrame(
        {
            "inches": rng.poisson(3, 200).clip(1) * 0.01 * 2.54,
            "centered": rng.randint(0, 50, 200) / 10 - 2.37,
            "years": 2000 + rng.randint(0, 4000, 200) / 365.25,
            "noise": rng.randint(1, 30, 200) * 0.1 + rng.normal(0, 1e-5, 200),
        }
    )
    columns = TableColumns.fit(X)
    assert_same(columns.decode(columns.encode(X)), X)


def test_atoms_come_back_exactly():
    kinds = {"x": Continuous(atoms=(0.0, 50.0))}
    X = pd.DataFrame({"x": [0.0, 0.0, 50.0, 1.25, 7.5, np.nan]})
    with pytest.warns(UserWarning, match="1 of 6 rows of X have no value in any column"):
        columns = TableColumns.fit(X, kinds)
    rows = columns.encode(X)
    assert rows.levels[:, 0].tolist() == [1, 1, 2, 0, 0, -1]
    np.testing.assert_array_equal(rows.values[:, 0], [np.nan] * 3 + [1.25, 7.5, np.nan])
    (atoms,), (number,) = columns.discrete, columns.continuous
    assert (atoms.n_levels, atoms.continuous, number.discrete) == (3, 0, 0)
    assert_same(columns.decode(rows), X)


def test_draws_of_every_kind_are_valid_queries():
    """Rows drawn far beyond the training rows are encoded again without an error."""
    X = frame()
    columns = TableColumns.fit(X)
    rng = np.random.RandomState(0)
    levels = np.column_stack([rng.randint(0, c.n_levels, 500) for c in columns.discrete])
    z = rng.standard_cauchy(size=(500, len(columns.continuous))) * 50
    made = columns.decode(EncodedTable(levels, columns.values_at(z)))
    again = columns.encode(made)
    np.testing.assert_array_equal(again.levels, levels)
    assert made.dtypes.equals(X.dtypes)
    assert made.index.name == "row"
    assert_same(columns.decode(again), made)


# --- coordinates

BOUNDED = {
    "positive": Positive(),
    "interval": Interval(-3, 7),
    "above": Interval(2, np.inf),
    "below": Interval(-np.inf, 5),
    "count": Integer(0),
    "score": Integer(0, 10),
    "free": Continuous(),
    "hour": Periodic(24),
}
STARTS = [0, -3, 2, -10, 0, 0, -9, 0]
ENDS = [9, 7, 9, 5, 9, 10, 9, 24]


def bounded(seed=0, n=50):
    values = np.random.RandomState(seed).uniform(STARTS, ENDS, size=(n, len(STARTS)))
    X = pd.DataFrame(values, columns=list(BOUNDED))
    X[["count", "score"]] = X[["count", "score"]].round()
    return X


def test_coordinates_and_values_are_inverse():
    X = bounded()
    columns = TableColumns.fit(X, BOUNDED)
    values = columns.encode(X).values
    z, log_slopes = columns.coordinates(values)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(columns.values_at(z), values, rtol=1e-13, atol=1e-13)
    # Slopes are derivatives: central differences, whose error is of second order in a step of 1e-6.
    step = 1e-6
    ahead, behind = columns.coordinates(values + step)[0], columns.coordinates(values - step)[0]
    np.testing.assert_allclose(np.exp(log_slopes), (ahead - behind) / (2 * step), rtol=1e-6)
    assert not np.any(log_slopes[:, [6, 7]])


def test_a_density_of_coordinates_integrates_to_one():
    """For each bounded column, a logistic density on the line, with its slopes, has mass one."""
    X = bounded()
    columns = TableColumns.fit(X, BOUNDED)
    z = np.tile(np.linspace(-40, 40, 200_001)[:, None], (1, len(BOUNDED)))
    density = 0.25 / np.cosh(z / 2) ** 2
    x = columns.values_at(z)
    log_slopes = columns.coordinates(x)[1]
    mass = np.trapezoid(density * np.exp(log_slopes), x, axis=0)
    # The trapezoidal rule on steps of 4e-4.
    np.testing.assert_allclose(mass[[0, 1, 2, 3, 4, 5, 6]], 1.0, rtol=1e-6)


def test_missing_values_have_no_slopes():
    columns = TableColumns.fit(bounded(), BOUNDED)
    z, log_slopes = columns.coordinates(np.full((2, len(BOUNDED)), np.nan))
    assert np.isnan(z).all()
    assert not log_slopes.any()


COLUMNS = TableColumns.fit(bounded(), BOUNDED)


@given(st.lists(st.floats(-1e4, 1e4), min_size=8, max_size=8))
@settings(max_examples=50)
def test_values_of_any_coordinates_are_within_bounds(z):
    values = COLUMNS.values_at(np.array([z]))
    low = [0, -3, 2, -np.inf, -0.5, -0.5, -np.inf, -np.inf]
    high = [np.inf, 7, np.inf, 5, np.inf, 10.5, np.inf, np.inf]
    assert np.all((values > low) & (values < high))


def test_cells_of_recorded_values_cover_the_range_once():
    X = pd.DataFrame(
        {
            "count": [0, 1, 2, 3, 4],
            "score": [0, 1, 2, 3, 4],
            "no zero": [1, 2, 3, 4, 5],
            "rain": [0.1, 0.2, 0.3, 0.4, 0.5],
            "exact": np.arange(5) ** 2.5,
        }
    )
    kinds = {
        "count": Integer(0),
        "score": Integer(0, 4),
        "no zero": Integer(0, atoms=(0,)),
        "rain": Positive(unit=0.1),
        "exact": Continuous(),
    }
    columns = TableColumns.fit(X, kinds)
    values = columns.encode(X).values
    low, high = columns.cells(values)
    np.testing.assert_allclose(low[1:, :4], high[:-1, :4], rtol=1e-12)
    np.testing.assert_allclose(low[0], [-0.5, -0.5, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(high[-1, :4], [4.5, 4.5, 5.5, 0.55], rtol=1e-12)
    np.testing.assert_array_equal(low[:, 4], high[:, 4])
    # A draw is rounded to the value in whose cell it is.
    inside = np.random.RandomState(0).uniform(low, high)
    made = columns.decode(EncodedTable(np.zeros((5, 1), dtype=int), inside))
    np.testing.assert_allclose(made.iloc[:, :4], X.iloc[:, :4], rtol=1e-12)


# --- given values


def test_given_values_are_encoded_alone():
    X = frame()
    columns = TableColumns.fit(X)
    rows = columns.encode_given({"str": "b", "float64": np.arange(3.0), "income": 0}, 3)
    names = [coordinate.name for coordinate in columns.discrete]
    text, income = names.index("str"), names.index("income")
    assert rows.levels[:, text].tolist() == [1, 1, 1]
    assert rows.levels[:, income].tolist() == [1, 1, 1]
    assert np.sum(rows.levels >= 0) == 6
    assert rows.values[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert np.sum(~np.isnan(rows.values)) == 3
    dates = columns.encode_given({"date s": "2019-12-21", "timedelta": np.timedelta64(36, "h")}, 1)
    assert sorted(dates.values[~np.isnan(dates.values)].tolist()) == [1.0, 1.5]


def test_levels_that_are_declared_but_absent():
    X = pd.DataFrame({"grade": ["low", "high"], "code": [3, 1]})
    kinds = {"grade": Ordinal(["low", "mid", "high"]), "code": Categorical([1, 2, 3])}
    columns = TableColumns.fit(X, kinds)
    assert columns.encode(X).levels.tolist() == [[0, 2], [2, 0]]
    made = columns.decode(EncodedTable(np.array([[1, 1]]), np.empty((1, 0))))
    assert made.to_dict("list") == {"grade": ["mid"], "code": [2]}


def test_take():
    X = frame()
    columns = TableColumns.fit(X)
    rows = np.array([4, 2, 2])
    assert_same(columns.decode(columns.encode(X).take(rows)), X.iloc[rows])


def test_decimals_between_detected_multiples_are_no_error():
    """Years of marriage are 0.125, 0.417, 0.75 and more: a fold without 0.417 has multiples of 0.125."""
    years = np.random.RandomState(0).choice([0.125, 0.75, 1.5, 4.0, 7.0, 10.0], 60)
    years[:2] = 0.25
    columns = TableColumns.fit(pd.DataFrame({"years": years}))
    assert columns.columns[0].lattice.unit == 0.125
    low, high = columns.cells(columns.encode(pd.DataFrame({"years": [0.417]})).values)
    np.testing.assert_allclose([low[0, 0], high[0, 0]], [0.417 - 0.125 / 2, 0.417 + 0.125 / 2])
