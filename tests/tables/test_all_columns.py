"""The columns of a table: coordinates, means of draws, labels, messages, called directly."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skdiffsmooth.tables import (
    Boolean,
    Categorical,
    Continuous,
    ContinuousCoordinate,
    DiscreteCoordinate,
    EncodedTable,
    Integer,
    Interval,
    Ordinal,
    Periodic,
    Positive,
    TableColumns,
    _columns,
)
from skdiffsmooth.tables._frames import Cells


def frame(n=12):
    """Return rows of a level, a number with an atom, a number, a period and a count."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "level": np.resize(["x", "y", "x"], n),
            "amount": np.where(np.arange(n) % 3 == 0, 0.0, rng.uniform(1, 9, n)),
            "number": rng.normal(size=n),
            "hour": rng.uniform(0, 24, n),
            "count": np.arange(n) + 2.0,
        }
    )


KINDS = {
    "level": Categorical(["x", "y"]),
    "amount": Continuous(atoms=(0, 5), unit=None),
    "number": Continuous(atoms=(), unit=None),
    "hour": Periodic(24, atoms=(), unit=None),
    "count": Integer(0, atoms=(), unit=1.0),
}


@pytest.fixture(scope="module")
def table():
    return TableColumns.fit(frame(), KINDS)


def rows_of(table, levels, values):
    levels = np.array(levels)
    return EncodedTable(levels, np.array(values, dtype=float), is_new=np.zeros(levels.shape, bool))


# ------------------------------------------------------------------------------ fit


def test_coordinates_are_in_the_order_of_the_columns(table):
    assert table.discrete == (
        DiscreteCoordinate("level", 2, False, None),
        DiscreteCoordinate("amount", 3, False, 0),
    )
    assert table.continuous == (
        ContinuousCoordinate("amount", None, 0.0, 1),
        ContinuousCoordinate("number", None, 0.0, None),
        ContinuousCoordinate("hour", 24.0, 0.0, None),
        ContinuousCoordinate("count", None, 1.0, None),
    )
    assert [(each.discrete, each.continuous) for each in table.columns] == [
        (0, None), (1, 0), (None, 1), (None, 2), (None, 3),
    ]  # fmt: skip
    assert table.names == tuple(KINDS)
    assert table.labels.dtype == object
    assert table.kinds == KINDS
    assert table.ignored == ()
    assert table.new_levels == "error"
    ordered = TableColumns.fit(pd.DataFrame({"a": [1, 2, 1]}), {"a": Ordinal([1, 2, 3])})
    assert ordered.discrete == (DiscreteCoordinate("a", 3, True, None),)


@pytest.mark.parametrize(
    ("weights", "n"), [(None, 12), (np.repeat([1.0, 2.0], 6), 18), ("zeros", 6)]
)
def test_new_levels_have_the_probability_of_half_a_row(weights, n):
    if isinstance(weights, str):
        weights = np.repeat([0.0, 1.0], 6)
    found = TableColumns.fit(frame(), KINDS, weights)
    assert found.new_weight == pytest.approx(0.5 / (n + 0.5))


def test_rows_of_weight_zero_are_absent():
    X = frame()
    X.loc[0, "level"] = "z"
    X.loc[1, "count"] = -1.0
    weights = np.ones(12)
    weights[:2] = 0
    found = TableColumns.fit(X, {"count": Integer(0)}, weights)
    assert found.kinds["level"] == Categorical(["x", "y"])
    with pytest.raises(ValueError, match="column 'count' holds -1"):
        TableColumns.fit(X, {"count": Integer(0)})


def test_columns_that_are_left_out():
    found = TableColumns.fit(frame(), {**KINDS, "level": None, "hour": None})
    assert found.ignored == ("level", "hour")
    assert found.names == ("amount", "number", "count")
    assert found.kinds["level"] is None
    assert [each.discrete for each in found.columns] == [0, None, None]
    assert found.discrete[0].continuous == 0
    assert repr(found).splitlines()[-2:] == ["  'level' is left out", "  'hour' is left out"]
    with pytest.raises(ValueError, match="kinds leaves out all 5 columns; expected at least one"):
        TableColumns.fit(frame(), dict.fromkeys(KINDS))


def test_empty_rows_are_counted_among_columns_that_are_used(recwarn):
    X = frame()
    X.loc[[3, 7], ["level", "amount", "number", "hour"]] = None
    TableColumns.fit(X, KINDS)
    assert not recwarn.list
    TableColumns.fit(X, {**KINDS, "count": None})
    (found,) = recwarn.list
    assert str(found.message).startswith(
        "2 of 12 rows of X have no value in any column (first: row 3)"
    )


@pytest.mark.parametrize(
    ("kinds", "error", "message"),
    [
        ([1], TypeError, r"kinds=\[1\] has type list; expected a mapping"),
        ({"b": None}, ValueError, "kinds has a column 'b', which X lacks; .* one of 'a'"),
        ({"a": Categorical}, TypeError, r"Categorical is a class; .* Pass Categorical\(\)"),
        ({"a": 3}, TypeError, r"kinds\['a'\]=3 has type int; expected a kind"),
        ({"a": int}, TypeError, r"kinds\['a'\]=<class 'int'> has type type"),
    ],
)
def test_declarations_that_are_none(kinds, error, message):
    with pytest.raises(error, match=message):
        _columns._check_kinds(kinds, ["a"])


def test_declarations_are_copied():
    kinds = {"a": None}
    found = _columns._check_kinds(kinds, ["a"])
    assert found == kinds
    assert found is not kinds
    assert _columns._check_kinds(None, ["a"]) == {}


def test_base_measures():
    kinds = {**KINDS, "amount": Continuous(atoms=(0, 5.5), unit=0.5)}
    X = frame().assign(amount=[0.0, 5.5, 1.0, 2.5] * 3)
    assert TableColumns.fit(X, kinds).base_measure == {
        "level": "counting measure of levels",
        "amount": "counting measure of cells of width 0.5, and counting measure of 0, 5.5",
        "number": "Lebesgue measure",
        "hour": "Lebesgue measure",
        "count": "counting measure of cells of width 1",
    }


def test_the_report(table):
    assert repr(table).splitlines() == [
        "TableColumns of a pandas table with 5 columns:",
        "  'level'   categorical 2 levels: 'x', 'y'; declared",
        "  'amount'  continuous  atom 0 (33.3%); atom 5 (0.0%); declared",
        "  'number'  continuous  declared",
        "  'hour'    periodic    period 24; declared",
        "  'count'   integer     from 0; unit 1; declared",
    ]
    one = TableColumns.fit(np.array([[0.1], [0.25], [0.7]]))
    assert repr(one).splitlines() == ["TableColumns of a numpy table with 1 column:", "  0  contin"
                                      "uous"]  # fmt: skip


# ------------------------------------------------------------------------------ rows


def test_rows_begin_without_cells(table):
    rows = table._empty(3)
    assert rows.levels.tolist() == [[-1, -1]] * 3
    assert rows.values.shape == (3, 4)
    assert np.isnan(rows.values).all()
    assert rows.is_new.tolist() == [[False, False]] * 3


def test_given_values_are_in_every_row(table):
    rows = table.encode_given({"level": ["y", "x", "y"], "amount": 5, "hour": 3.5}, 3)
    assert rows.levels.tolist() == [[1, 2], [0, 2], [1, 2]]
    assert np.isnan(rows.values[:, [0, 1, 3]]).all()
    assert rows.values[:, 2].tolist() == [3.5] * 3
    with pytest.raises(ValueError, match=r"given\['number'\] has missing values"):
        table.encode_given({"number": [1.0, None, 2.0]}, 3)
    with pytest.raises(TypeError, match="given='level' has type str; expected a mapping"):
        table.encode_given("level", 3)


def test_new_levels_are_errors_or_missing(table):
    X = frame()[:3].assign(level=["y", "q", "x"])
    with pytest.raises(ValueError, match="column 'level' holds 'q'"):
        table.encode(X)
    rows = table.encode(X, new_levels="missing")
    assert rows.levels[:, 0].tolist() == [1, -1, 0]
    assert rows.is_new[:, 0].tolist() == [False, True, False]
    lenient = replace(table, new_levels="missing")
    assert lenient.encode(X).levels[:, 0].tolist() == [1, -1, 0]
    with pytest.raises(ValueError, match="column 'level' holds 'q'"):
        lenient.encode(X, new_levels="error")
    assert lenient.is_missing(X)[:, 0].tolist() == [False, False, False]
    w = table.new_weight
    rows = lenient.encode(X.assign(level=["y", "q", None]))
    expected = np.zeros((3, 5))
    expected[:, 0] = math.log(1 - w), math.log(w), 0
    np.testing.assert_allclose(lenient.log_new(rows), expected)
    np.testing.assert_array_equal(table.log_new(rows), np.zeros((3, 5)))


def test_categories_without_rows_are_new_levels():
    X = pd.DataFrame({"a": pd.Categorical(["u", "v", "u"], categories=["u", "v", "w"])})
    table = TableColumns.fit(X)
    query = pd.DataFrame({"a": pd.Categorical(["w", "u"], categories=["u", "v", "w"])})
    rows = table.encode(query)
    assert rows.levels[:, 0].tolist() == [-1, 0]
    w = 0.5 / 3.5
    np.testing.assert_allclose(table.log_new(rows)[:, 0], np.log([w, 1 - w]))


def test_missing_cells_are_found(table):
    X = frame()[:4]
    X.loc[0, "level"] = X.loc[1, "amount"] = X.loc[2, "number"] = None
    found = table.is_missing(X)
    expected = np.zeros((4, 5), dtype=bool)
    expected[[0, 1, 2], [0, 1, 2]] = True
    np.testing.assert_array_equal(found, expected)


def test_points_are_equal_for_equal_rows(table):
    X = pd.concat([frame()[:3], frame()[:1]]).reset_index(drop=True)
    X.loc[1, "number"] = X.loc[2, "level"] = None
    points = table.points(X)
    assert points.shape == (4, 2 + 4 + 4)
    np.testing.assert_array_equal(points[0], points[3])
    assert points[2, 0] == -1
    np.testing.assert_array_equal(points[:, 6:], np.isnan(table.encode(X).values))
    assert points[1, 3] == 0.0
    assert points[1, 2] == X.loc[1, "amount"]
    new = replace(table, new_levels="missing").points(X.assign(level="q"))
    assert set(new[:, 0]) == {-2.0}


def test_frames_are_joined_in_an_order(table):
    X = frame()
    joined = table.concat([X[:2], X[5:7]], np.array([3, 0, 2]))
    expected = X.iloc[[6, 0, 5]].reset_index(drop=True)
    pd.testing.assert_frame_equal(joined, expected)


def test_labels_of_levels(table):
    assert [table.label_of(0, k) for k in range(2)] == ["x", "y"]
    assert [table.label_of(1, k) for k in range(3)] == ["not 0.0, 5.0", 0.0, 5.0]


# ------------------------------------------------------------------------------ means of draws


def test_means_of_draws_are_numbers_and_the_most_frequent_level(table):
    levels = np.array([[[1, 0], [0, 0]], [[1, 0], [1, 0]], [[0, 0], [-1, 0]]])
    values = np.array(
        [
            [[2.0, 1.0, 23.0, 4.0], [1.0, 3.0, 5.0, 1.0]],
            [[4.0, 3.0, 3.0, 5.0], [1.0, 3.0, 5.0, 1.0]],
            [[9.0, 5.0, 1.0, 6.0], [1.0, 3.0, 5.0, 1.0]],
        ]
    )
    mean = table.mean_of_draws(rows_of(table, levels.reshape(6, 2), values.reshape(6, 4)), 3)
    assert len(mean) == 2
    assert mean.levels.tolist() == [[1, 0], [0, 0]]
    # On the circle 23, 3 and 1 are around 1.
    np.testing.assert_allclose(mean.values, [[5, 3, 1, 5], [1, 3, 5, 1]])


@pytest.mark.parametrize(
    ("levels", "values", "level", "value"),
    [
        ([2, 2], [np.nan, np.nan], 2, np.nan),
        ([2, 1], [np.nan, np.nan], 0, 2.5),
        ([0, 2], [2.0, np.nan], 0, 3.5),
        ([1, 1], [np.nan, np.nan], 1, np.nan),
        ([0, 0], [2.0, 3.0], 0, 2.5),
    ],
)
def test_atoms_are_in_means_with_their_value(table, levels, values, level, value):
    rows = rows_of(table, [[0, each] for each in levels], [[each, 1, 1, 1] for each in values])
    mean = table.mean_of_draws(rows, 2)
    assert mean.levels.tolist() == [[0, level]]
    np.testing.assert_allclose(mean.values[0, 0], value)
    assert mean.values[0, 1] == 1


@pytest.mark.parametrize(
    ("values", "period", "expected"),
    [
        ([1.0, 5.0], None, 3.0),
        ([23.0, 3.0], 24.0, 1.0),
        ([350.0, 350.0], 360.0, 350.0),
        ([5.0, 7.0], 7.0, 6.0),
        ([0.3, 0.5], 1.0, 0.4),
    ],
)
def test_means_on_the_line_and_on_the_circle(values, period, expected):
    found = _columns._mean(np.array(values)[:, None], period)
    np.testing.assert_allclose(found, [expected])


def test_missing_cells_are_filled(table):
    X = frame()[:3]
    X.loc[0, "level"] = X.loc[1, "amount"] = X.loc[2, "hour"] = None
    rows = rows_of(table, [[1, 2]] * 3, [[np.nan, 7.0, 8.0, 9.0]] * 3)
    found = table.fill(X, rows)
    expected = X.copy()
    expected.loc[0, "level"], expected.loc[1, "amount"], expected.loc[2, "hour"] = "y", 5.0, 8.0
    pd.testing.assert_frame_equal(found, expected)


def test_filled_columns_have_the_dtypes_of_the_training_table():
    X = pd.DataFrame({"n": [1, 4, 2, 7], "t": pd.to_datetime(["2020-01-01"] * 3 + ["2020-01-09"])})
    kinds = {"n": Integer(unit=1.0, atoms=())}
    table = TableColumns.fit(X, kinds)
    query = pd.DataFrame({"n": [1.0, np.nan], "t": [pd.NaT, pd.Timestamp("2020-01-02")]})
    rows = EncodedTable(np.empty((2, 0), dtype=int), np.array([[5.0, 3.0], [6.0, 3.0]]))
    found = table.fill(query, rows)
    assert found["n"].dtype == np.int64
    assert found["n"].tolist() == [1, 6]
    assert found["t"].tolist() == [pd.Timestamp("2020-01-04"), pd.Timestamp("2020-01-02")]
    # Another library keeps its own types.
    array = np.array([[1.0, np.nan], [np.nan, 3.0]])
    plain = TableColumns.fit(np.array([[1, 2], [4, 3], [2, 8]]), {0: Integer(), 1: Integer()})
    filled = plain.fill(array, EncodedTable(rows.levels, np.array([[5.0, 4.0], [6.0, 3.0]])))
    assert filled.tolist() == [[1, 4], [6, 3]]


# ------------------------------------------------------------------------------ coordinates


@pytest.mark.parametrize(
    ("kind", "low", "high", "knot"),
    [
        (Positive(atoms=(), unit=None), 0.0, math.inf, 2.0),
        (Interval(1, math.inf, atoms=(), unit=None), 1.0, math.inf, 1.5),
        (Interval(-math.inf, 6, atoms=(), unit=None), -math.inf, 6.0, 2.0),
        (Interval(-1, 6, atoms=(), unit=None), -1.0, 6.0, None),
        (Continuous(atoms=(), unit=None), -math.inf, math.inf, None),
        (Integer(1, 5, atoms=(), unit=1.0), 0.5, 5.5, None),
    ],
)
def test_maps_of_bounded_columns_against_their_formula(kind, low, high, knot):
    table = TableColumns.fit(pd.DataFrame({"a": [2.0, 3.0, 4.0]}), {"a": kind})
    x = np.array([[2.0], [3.0], [4.5], [np.nan]])
    z, log_slopes = table.coordinates(x)
    for own, slope, value in zip(z[:3, 0], log_slopes[:3, 0], x[:3, 0], strict=True):
        if math.isinf(low) and math.isinf(high):
            expected = value, 1.0
        elif math.isinf(high):
            w = value - low
            expected = math.log(w) + w / knot, 1 / w + 1 / knot
        elif math.isinf(low):
            w = high - value
            expected = -math.log(w) - w / knot, 1 / w + 1 / knot
        else:
            a, b = value - low, high - value
            expected = math.log(a / b), 1 / a + 1 / b
        assert own == pytest.approx(expected[0], rel=1e-12)
        assert math.exp(slope) == pytest.approx(expected[1], rel=1e-12)
    assert np.isnan(z[3, 0])
    assert log_slopes[3, 0] == 0
    np.testing.assert_allclose(table.values_at(z), x, rtol=1e-12)
    far = table.values_at(np.array([[-1e6], [1e6], [800.0], [-800.0]]))
    assert (far >= low).all()
    assert (far <= high).all()
    if math.isfinite(low):
        assert far[0, 0] == np.nextafter(low, math.inf)
    if math.isfinite(high):
        assert far[1, 0] == np.nextafter(high, -math.inf)


def test_small_distances_from_bounds_keep_their_digits():
    table = TableColumns.fit(
        pd.DataFrame({"a": [0.2, 0.3, 0.4]}), {"a": Interval(0, 1, atoms=(), unit=None)}
    )
    z = np.array([[-600.0], [-1.0], [0.0], [2.0]])
    np.testing.assert_allclose(
        table.values_at(z)[:, 0],
        [math.exp(-600), 1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-2))],
        rtol=1e-14,
    )


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        (Integer(1, 5, atoms=(), unit=1.0), 0.5, 5.5),
        (Interval(0, 6, atoms=(), unit=1.0), 0.0, 6.0),
        (Interval(0.8, 5.4, atoms=(), unit=1.0), 0.8, 5.4),
    ],
)
def test_cells_end_at_the_bounds(kind, first, last):
    table = TableColumns.fit(pd.DataFrame({"a": [2.0, 3.0, 4.0]}), {"a": kind})
    low, high = table.cells(np.array([[1.0], [2.0], [4.0], [5.0], [np.nan]]))
    np.testing.assert_allclose(low[:, 0], [first, 1.5, 3.5, 4.5, np.nan])
    np.testing.assert_allclose(high[:, 0], [1.5, 2.5, 4.5, last, np.nan])


def test_exact_columns_have_cells_of_no_width(table):
    values = np.array([[1.5, 2.5, 3.5, 4.0]])
    low, high = table.cells(values)
    np.testing.assert_array_equal(low, [[1.5, 2.5, 3.5, 3.5]])
    np.testing.assert_array_equal(high, [[1.5, 2.5, 3.5, 4.5]])


# ------------------------------------------------------------------------------ queries


def test_columns_of_queries_are_found():
    X = frame()
    table = TableColumns.fit(X, {**KINDS, "level": None})
    shuffled = X[["hour", "count", "amount", "level", "number"]]
    assert table._positions(TableColumns.fit(shuffled, KINDS).frame) == [2, 4, 0, 1]
    # A column that is left out may be absent.
    used = TableColumns.fit(shuffled.drop(columns="level"), dict(list(KINDS.items())[1:]))
    assert table._positions(used.frame) == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X.drop(columns=["hour", "count"]), "^X lacks 'hour', 'count'; expected the col"),
        (lambda X: X.assign(q=1), "^X has 'q', which the training table lacks; expected"),
        (lambda X: X.rename(columns={"hour": "h"}), "^X lacks 'hour' and has 'h', which the tr"),
        (lambda X: X.to_numpy()[:, :3], "^X has 3 features, but TableColumns is expecting 4 feat"),
    ],
)
def test_columns_that_queries_lack(change, message):
    table = TableColumns.fit(frame(), {**KINDS, "level": None})
    with pytest.raises(ValueError, match=message):
        table.encode(change(frame()))


@pytest.mark.parametrize("n_columns", [4, 5])
def test_columns_without_names_are_taken_in_their_order(n_columns):
    table = TableColumns.fit(frame(), {**KINDS, "level": None})
    X = frame().iloc[:, 5 - n_columns :]
    with pytest.warns(UserWarning, match="does not have valid feature names .*'amount', 'number'"):
        rows = table.encode(X.to_numpy())
    np.testing.assert_array_equal(rows.values, table.encode(X).values)
    array = frame().iloc[:, 1:].to_numpy()
    plain = TableColumns.fit(array)
    with pytest.warns(UserWarning, match="has column names, but TableColumns was fitted without"):
        plain.encode(frame().iloc[:, 1:])


def test_cells_of_flags_come_back():
    X = pd.DataFrame({"a": [True, False, True]})
    table = TableColumns.fit(X)
    assert table.kinds == {"a": Boolean()}
    pd.testing.assert_frame_equal(table.decode(table.encode(X)), X)


def test_rows_without_values_are_named(recwarn):
    nothing = Cells("number", np.zeros(3), np.array([False, True, True]))
    some = Cells("number", np.zeros(3), np.array([True, False, True]))
    _columns._warn_of_empty_rows([nothing, some])
    (found,) = recwarn.list
    assert "1 of 3 rows of X have no value in any column (first: row 2)" in str(found.message)
    recwarn.clear()
    _columns._warn_of_empty_rows([nothing, replace(some, missing=~nothing.missing)])
    assert not recwarn.list
