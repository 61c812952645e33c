"""Bad input: each error and warning names the column, the value, what is expected and what to do."""

import datetime
import re
from decimal import Decimal

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
    TableColumns,
)

NAMES = [f"name {i}" for i in range(12)]
ZONES = [datetime.UTC, datetime.timezone(datetime.timedelta(hours=1))]


def numbers(n=12, seed=0):
    return np.random.RandomState(seed).normal(size=n)


def frame(**columns):
    return pd.DataFrame({"a": numbers(), **columns})


def test_text_with_as_many_values_as_rows_is_an_identifier():
    X = frame(name=NAMES)
    with pytest.raises(
        ValueError, match=r"column 'name' .*as many values as rows \(12\).*kinds={'name': None}"
    ):
        TableColumns.fit(X)
    assert TableColumns.fit(X, {"name": None}).names == ("a",)
    assert len(TableColumns.fit(X, {"name": Categorical()}).kinds["name"].levels) == 12
    with pytest.raises(ValueError, match="column 'name'"):
        TableColumns.fit(pl.from_pandas(X))
    with pytest.raises(ValueError, match="column 1 "):
        TableColumns.fit(X.to_numpy())


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ([f"2020-01-{i:02d}" for i in range(1, 13)], "Its texts are dates: .*pandas.to_datetime"),
        ([f"{i}.5" for i in range(12)], "Its texts are numbers: .*pandas.to_numeric"),
    ],
)
def test_numbers_and_dates_as_text(text, advice):
    with pytest.raises(ValueError, match=advice):
        TableColumns.fit(frame(b=text))


def test_text_with_hardly_fewer_values_than_rows_warns():
    X = frame(name=NAMES).iloc[[*range(12), *range(12)]]
    X["name"] = [*(f"{i}" for i in range(20)), *"0123"]
    with pytest.warns(UserWarning, match="column 'name' holds 20 levels in 24 rows.*identifier"):
        TableColumns.fit(X)


@pytest.mark.parametrize(
    "empty",
    [[None] * 12, [np.nan] * 12, pd.Series([pd.NaT] * 12), pd.array([None] * 12, dtype="Int64")],
)
def test_all_missing_columns(empty):
    with pytest.raises(
        ValueError, match=r"column 'b' of X has no value in any of 12 rows.*kinds={'b': None}"
    ):
        TableColumns.fit(frame(b=empty))


def test_all_missing_rows_warn():
    X = frame(b=["x", "y"] * 6).astype({"b": object})
    X.iloc[[3, 5]] = None
    with pytest.warns(
        UserWarning, match=r"2 of 12 rows of X have no value in any column \(first: row 3\)"
    ):
        columns = TableColumns.fit(X)
    rows = columns.encode(X)
    assert rows.levels[3].tolist() == [-1]
    assert np.isnan(rows.values[3]).all()


@pytest.mark.parametrize(
    "constant", ["x", 7, 2.5, True, pd.Timestamp("2020-01-01"), pd.Timedelta("3h")]
)
def test_one_value_in_all_rows_warns(constant):
    with pytest.warns(UserWarning, match=r"column 'b' holds .* in all rows.*kinds={'b': None}"):
        columns = TableColumns.fit(frame(b=[constant] * 12))
    X = frame(b=[constant] * 12)
    pd.testing.assert_frame_equal(columns.decode(columns.encode(X)), X)


def test_mixed_types_in_one_column():
    X = frame(b=pd.Series([1, "two", 3.0, None] * 3, dtype=object))
    with pytest.raises(
        ValueError, match=r"column 'b' .*several types: 6 cells of numbers, such as 1, 3 .*'two'"
    ):
        TableColumns.fit(X)
    with pytest.raises(ValueError, match=r"column 1 .*several types"):
        TableColumns.fit(X.to_numpy())


def test_columns_of_one_name():
    X = pd.DataFrame(np.ones((3, 3)), columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="several columns with the name 'a'"):
        TableColumns.fit(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pd.DataFrame(), r"X has 0 feature"),
        (pd.DataFrame({"a": []}), r"X has 0 sample"),
        (pl.DataFrame({"a": []}), r"X has 0 sample"),
        (np.empty((0, 2)), r"X has 0 sample"),
        (np.empty((2, 0)), r"X has 0 feature"),
        (np.ones(3), r"shape \(3,\); expected 2D array"),
        (pd.Series([1.0, 2.0]), r"expected 2D array"),
        ([[1.0, 2.0], [3.0]], r"shape"),
    ],
)
def test_tables_without_rows_or_columns(X, message):
    with pytest.raises(ValueError, match=message):
        TableColumns.fit(X)


def test_values_that_are_infinite():
    for X in (
        frame(b=[np.inf, *numbers(11)]),
        frame(b=pd.array([np.inf, *numbers(11)], dtype="Float64")),
    ):
        with pytest.raises(
            ValueError, match=r"column 'b' of X holds infinity, in 1 of 12 rows \(first in row 0\)"
        ):
            TableColumns.fit(X)
    columns = TableColumns.fit(frame())
    with pytest.raises(ValueError, match="column 'a' of X holds infinity"):
        columns.encode(pd.DataFrame({"a": [-np.inf]}))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.arrays.SparseArray(np.eye(12)[0]), r"is sparse .*X\['b'\]\.sparse\.to_dense\(\)"),
        (pd.period_range("2020-01", periods=12, freq="M"), r"has dtype period.*to_timestamp"),
        ([Decimal(k) for k in range(12)], r"Decimal\('0'\).*astype\(float\)"),
        (pd.interval_range(0, 12), r"has dtype interval.*astype\('category'\)"),
        (numbers() + 1j, r"has dtype complex128.*real and the imaginary"),
        (
            [datetime.date(2020, 1, 1 + i) for i in range(12)],
            r"cells of type date.*pandas.to_datetime",
        ),
        (
            [datetime.datetime(2020, 1, 1 + i, tzinfo=ZONES[i % 2]) for i in range(12)],
            r"cells of type datetime.*pandas.to_datetime\(X\['b'\], utc=True\)",
        ),
        ([datetime.time(i) for i in range(12)], r"cells of type time.*hours.*Periodic\(24\)"),
        ([[i] for i in range(12)], r"cells of type list"),
        ([2**60 + i for i in range(12)], r"integers beyond 2\*\*53.*kinds={'b': None}"),
    ],
)
def test_dtypes_that_cannot_be_used(column, message):
    with pytest.raises(ValueError, match="column 'b' of X .*" + message):
        TableColumns.fit(frame(b=column))


def test_tables_that_cannot_be_used():
    with pytest.raises(TypeError, match=r"sparse .*X.toarray\(\)"):
        TableColumns.fit(sparse.csr_array(np.eye(3)))
    with pytest.raises(TypeError, match=r"structured array with the fields a, b.*pandas.DataFrame"):
        TableColumns.fit(np.zeros(3, dtype=[("a", float), ("b", int)]))
    with pytest.raises(TypeError, match=r"LazyFrame .*X.collect\(\)"):
        TableColumns.fit(pl.LazyFrame({"a": [1.0]}))
    with pytest.raises(ValueError, match=r"column 'b' of X has dtype Time.*Periodic"):
        TableColumns.fit(pl.DataFrame({"b": [datetime.time(3), datetime.time(4)]}))


# --- declarations


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Periodic(0), "period=0 is out of range"),
        (lambda: Periodic(-24), "period=-24 is out of range"),
        (lambda: Periodic("day"), "period='day' has type str"),
        (lambda: Interval(1, 1), "low=1.0 and high=1.0 bound no interval"),
        (lambda: Interval(-np.inf, np.inf), "are no bounds.*Continuous"),
        (lambda: Interval(0, np.nan), "high=nan is out of range"),
        (lambda: Integer(5, 3), "low=5.0 and high=3.0 leave no two values"),
        (lambda: Integer(unit=None), "unit=None of an Integer"),
        (lambda: Positive(atoms=(-1,)), r"atoms=\(-1.0,\) .*outside its bounds"),
        (lambda: Continuous(atoms=0), "atoms=0 has type int"),
        (lambda: Continuous(atoms="zero"), "atoms='zero' is not known"),
        (lambda: Continuous(unit=0), "unit=0 is out of range"),
        (lambda: Continuous(unit="cm"), "unit='cm' is not known"),
        (lambda: Datetime("week"), "unit='week' is not known"),
        (lambda: Categorical("abc"), "levels of type str"),
        (lambda: Categorical({"a", "b"}), "levels in a set"),
        (lambda: Ordinal([]), "0 levels"),
        (lambda: Ordinal(["a", "b", "a"]), "3 levels, of which 2 are different"),
        (lambda: Categorical(["a", None]), "missing value as a level"),
        (lambda: Categorical([["a"]]), "not hashable"),
    ],
)
def test_kinds_that_make_no_sense(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"c": Continuous()}, "kinds has a column 'c', which X lacks; expected one of 'a', 'b'"),
        ({"a": Continuous}, r"is a class; expected an object. Pass Continuous\(\)"),
        ({"a": "positive"}, "has type str; expected a kind"),
        ([Continuous()], "has type list; expected a mapping"),
        ({"a": None, "b": None}, "leaves out all 2 columns"),
        (
            {"b": Continuous()},
            r"column 'b' is declared as Continuous\(\), but holds text or categories, such as 'x'",
        ),
        ({"b": Boolean()}, "column 'b' is declared as .*expected True and False, or 1 and 0"),
        ({"a": Datetime()}, "column 'a' is declared as .*expected dates"),
        (
            {"b": Ordinal()},
            r"column 'b' is declared as Ordinal\(\), but holds text, whose order is not known",
        ),
        ({"a": Integer()}, "column 'a' holds .*no multiple of unit=1"),
        ({"a": Continuous(unit=0.5)}, "column 'a' holds .*no multiple of unit=0.5"),
    ],
)
def test_declarations_that_do_not_fit(kinds, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TableColumns.fit(frame(b=["x", "y", "z"] * 4), kinds)


@pytest.mark.parametrize(
    ("kind", "column", "message"),
    [
        (
            Positive(),
            [-1.5, *range(1, 12)],
            "holds -1.5 .*outside the bounds; expected values between 0 and inf",
        ),
        (Interval(0, 1), [0.5] * 11 + [1.25], "holds 1.25 .*row 11; 1 such rows.*between 0 and 1"),
        (Interval(0, 1, atoms=()), [0.5] * 11 + [1.0], "holds 1 .*on a bound, and no atom.*atoms="),
        (
            Integer(0, 5),
            [*range(5), 7] * 2,
            "holds 7 .*outside the bounds; expected values between 0 and 5",
        ),
        (Categorical(["a"]), ["a"] * 11 + ["b"], r"holds 'b' .*none of its 1 levels: 'a'"),
        (Boolean(), [0, 1, 2] * 4, "holds 2.0 .*none of its 2 levels"),
    ],
)
def test_training_values_outside_their_declaration(kind, column, message):
    """They are an error in fit, and not only when the rows are encoded."""
    X = pd.DataFrame({"b": column})
    with pytest.raises(ValueError, match="column 'b' " + message):
        TableColumns.fit(X, {"b": kind})


# --- queries


def fitted():
    X = pd.DataFrame(
        {
            "x": numbers(40),
            "income": np.random.RandomState(1).lognormal(size=40),
            "species": ["a", "b"] * 20,
            "day": pd.date_range("2020-01-01", periods=40).astype("datetime64[ns]"),
        }
    )
    return X, TableColumns.fit(X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda X: X.drop(columns="x"),
            "X lacks 'x'; expected the columns 'x', 'income', 'species', 'day'",
        ),
        (lambda X: X.assign(y=1.0), "X has 'y', which the training table lacks"),
        (lambda X: X.rename(columns={"x": "y"}), "X lacks 'x' and has 'y'"),
        (
            lambda X: X.assign(x="one"),
            "column 'x' of X holds labels, such as 'one'; expected numbers",
        ),
        (
            lambda X: X.assign(species=3),
            "column 'species' holds 3.0 .*none of its 2 levels: 'a', 'b'",
        ),
        (
            lambda X: X.assign(species="c"),
            r"column 'species' holds 'c' \(row 0; 40 such rows\).*new_levels='missing'",
        ),
        (
            lambda X: X.assign(income=0.0),
            r"column 'income' holds 0 .*on a bound.*detected in fit.*atoms=\(0,\)",
        ),
        (lambda X: X.assign(income=-3.0), "column 'income' holds -3 .*outside the bounds"),
        (lambda X: X.assign(day=X["x"]), "column 'day' of X holds numbers.*expected dates"),
        (
            lambda X: X.assign(day=np.datetime64("9999-12-31", "s")),
            "column 'day' holds 9999-12-31.*beyond the range of dates in units of ns.*2262",
        ),
        (lambda X: X.iloc[:0], "X has 0 sample"),
        (
            lambda X: X.to_numpy()[:, :3],
            "X has 3 features, but TableColumns is expecting 4 features",
        ),
    ],
)
def test_queries_that_do_not_fit(change, message):
    X, columns = fitted()
    with pytest.raises(ValueError, match=message):
        columns.encode(change(X))


def test_new_levels_can_be_missing():
    X, columns = fitted()
    X.loc[3, "species"] = "c"
    rows = columns.encode(X, new_levels="missing")
    assert rows.levels[:5, 0].tolist() == [0, 1, 0, -1, 0]
    with pytest.raises(
        ValueError, match="new_levels='drop' is not known; expected one of 'error', 'missing'"
    ):
        columns.encode(X, new_levels="drop")


def test_a_query_without_names_warns():
    X, columns = fitted()
    array = X[["x", "income"]].to_numpy()
    columns = TableColumns.fit(X[["x", "income"]])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        rows = columns.encode(array)
    np.testing.assert_array_equal(rows.values, array)
    with pytest.warns(UserWarning, match="X has column names, but TableColumns was fitted without"):
        TableColumns.fit(array).encode(X[["x", "income"]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"color": "red"}, "given column 'color' is not known"),
        ({"species": "c"}, "column 'species' holds 'c'"),
        ({"species": None}, r"given\['species'\] has missing values"),
        ({"x": [1.0, 2.0]}, r"given\['x'\] has shape \(2,\); expected one value, or 3"),
        ({"x": "one"}, "column 'x' of X holds labels"),
        ({"day": "yesterday"}, r"given\['day'\]='yesterday' is no date"),
        ("species", "has type str; expected a mapping"),
    ],
)
def test_given_values_that_do_not_fit(given, message):
    _, columns = fitted()
    with pytest.raises((TypeError, ValueError), match=message):
        columns.encode_given(given, 3)


def test_dates_that_stand_for_no_date():
    X = pd.DataFrame({"day": np.array(["2020-01-01", "99999-01-01"], dtype="datetime64[s]")})
    with pytest.raises(
        ValueError, match=r"column 'day' holds 99999-01-01.*row 1.*pass a missing cell"
    ):
        TableColumns.fit(X)


def test_messages_say_what_to_do():
    """Every message of the wing has an advice after what is expected."""
    X, columns = fitted()
    for change in (lambda X: X.drop(columns="x"), lambda X: X.assign(species="c")):
        with pytest.raises(ValueError, match="column") as caught:
            columns.encode(change(X))
        assert re.search(r"(Pass|Declare|Drop|Convert)[^.]*", str(caught.value))
