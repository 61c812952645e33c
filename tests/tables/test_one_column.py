"""One column: its description, encoding, decoding and messages, called directly."""

import datetime
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from skdiffsmooth.tables import (
    Boolean,
    Categorical,
    Continuous,
    Datetime,
    EncodedTable,
    Integer,
    Interval,
    Ordinal,
    Periodic,
    Positive,
    _column,
)
from skdiffsmooth.tables._column import Column, decode_column, encode_column, fit_column
from skdiffsmooth.tables._detect import Lattice
from skdiffsmooth.tables._frames import Cells, ColumnType

FLOAT = ColumnType("float64", "number")
LABEL = ColumnType("object", "label")
DATE = ColumnType("datetime64[s]", "date", resolution="s")
DURATION = ColumnType("timedelta64[s]", "duration", resolution="s")


def cells_of(values, family="number", dtype=np.float64):
    """Return cells, missing where a value is None."""
    missing = np.array([value is None for value in values])
    if family == "label":
        held = np.empty(len(values), dtype=object)
        held[:] = values
    else:
        fill = np.array(0, dtype="datetime64[s]") if dtype == "datetime64[s]" else 0
        held = np.array([fill if value is None else value for value in values], dtype=dtype)
    return Cells(family, held, missing)


def dates(*values):
    return cells_of(
        [None if value is None else np.datetime64(value, "s") for value in values],
        "date", "datetime64[s]",
    )  # fmt: skip


def durations(*seconds):
    return Cells(
        "duration", np.array(seconds, dtype="timedelta64[s]"), np.zeros(len(seconds), dtype=bool)
    )


def column_of(kind, stored=FLOAT, lattice=Lattice(), **changes):  # noqa: B008 (it is frozen)
    own = {"origin": 0, "discrete": None, "continuous": 0, "is_declared": False}
    own |= {"missing_weight": 0.0, "atom_weights": ()}
    return Column("a", kind, stored, lattice, **{**own, **changes})


def empty(n):
    """Return n rows of one discrete and one continuous coordinate."""
    return EncodedTable(
        np.full((n, 1), -1), np.full((n, 1), np.nan), is_new=np.zeros((n, 1), dtype=bool)
    )


def encoded(column, cells, lowest=-1):
    rows = empty(len(cells.missing))
    encode_column(column, cells, rows, lowest)
    return rows


# ------------------------------------------------------------------------------ descriptions


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (column_of(Categorical(["x"]), LABEL), "categorical 1 level: 'x'"),
        (column_of(Ordinal([1, 2]), FLOAT), "ordinal     2 levels: 1, 2"),
        (column_of(Boolean(), FLOAT), "boolean     2 levels: False, True"),
        (
            column_of(Categorical(list("abcde")), LABEL),
            "categorical 5 levels: 'a', 'b', 'c', 'd', 'e'",
        ),
        (
            column_of(Categorical(list("abcdefg")), LABEL),
            "categorical 7 levels: 'a', 'b', 'c', 'd', 'e', and 2 more",
        ),
        (column_of(Continuous(atoms=(), unit=None)), "continuous  "),
        (column_of(Continuous(atoms=(), unit=0.25)), "continuous  unit 0.25"),
        (column_of(Continuous(atoms=(), unit=1 / 3)), "continuous  unit 0.333333"),
        (
            column_of(Continuous(atoms=(), unit=None), lattice=Lattice(0.0, 0.01)),
            "continuous  recorded to 0.01",
        ),
        (
            column_of(Continuous(atoms=(1.5, 2.0), unit=0.5), atom_weights=(0.25, 0.123)),
            "continuous  atom 1.5 (25.0%); atom 2 (12.3%); unit 0.5",
        ),
        (column_of(Positive(atoms=(), unit=None)), "positive    from 0"),
        (
            column_of(Interval(-math.inf, 3, atoms=(), unit=None), is_declared=True),
            "interval    to 3; declared",
        ),
        (
            column_of(Interval(1, 3.5, atoms=(), unit=None), missing_weight=0.125),
            "interval    from 1 to 3.5; 12.5% missing",
        ),
        (column_of(Periodic(24, atoms=(), unit=None)), "periodic    period 24"),
        (column_of(Periodic(7, origin=-2, atoms=(), unit=None)), "periodic    period 7 from -2"),
        (
            column_of(Continuous(atoms=(), unit=1 / 24), DURATION),
            "continuous  in days; unit 0.0416667",
        ),
        (
            column_of(Datetime("h"), DATE, origin=31),
            "datetime    in days from 1970-02-01, unit h",
        ),
    ],
)
def test_descriptions(column, text):
    assert column.describe() == text


def test_atoms_of_a_column():
    assert column_of(Continuous(atoms=(2.0, 1.0))).atoms == (1.0, 2.0)
    assert column_of(Categorical(["x"]), LABEL).atoms == ()
    assert column_of(Datetime("D"), DATE).atoms == ()
    assert column_of(Datetime("D"), DATE, only_date=0.0).atoms == (0.0,)
    assert column_of(Datetime("D"), DATE).edges == (-math.inf, math.inf)
    assert column_of(Datetime("D"), DATE).extremes == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("kind", "step", "offset", "extremes"),
    [
        (Interval(0.2, 4.9, atoms=()), 0.5, 0.0, (0.5, 4.5)),
        (Interval(0.2, 4.9, atoms=()), 0.5, 0.25, (0.25, 4.75)),
        (Interval(0.25, 4.75, atoms=()), 0.5, 0.25, (0.75, 4.25)),
        # Bounds that are a rounding error away from a value are that value.
        (Interval(0.25 - 1e-9, 4.75 + 1e-9, atoms=()), 0.5, 0.25, (0.75, 4.25)),
        (Interval(0.25 + 1e-9, 4.75 - 1e-9, atoms=()), 0.5, 0.25, (0.75, 4.25)),
        (Interval(0.25 - 1e-5, 4.75 + 1e-5, atoms=()), 0.5, 0.25, (0.25, 4.75)),
        (Integer(0, 5, atoms=(), unit=1.0), 1.0, 0.0, (0.0, 5.0)),
        (Integer(0.3, 5.3, atoms=(), unit=1.0), 1.0, 0.0, (1.0, 5.0)),
        (Integer(0, 5, atoms=(0, 5), unit=1.0), 1.0, 0.0, (1.0, 4.0)),
        (Integer(0, 6, atoms=(), unit=3.0), 3.0, 1.0, (1.0, 4.0)),
        (Positive(atoms=()), 2.0, 0.0, (2.0, math.inf)),
        (Interval(-math.inf, 7, atoms=()), 2.0, 1.0, (-math.inf, 5.0)),
        (Continuous(atoms=()), 2.0, 0.0, (-math.inf, math.inf)),
    ],
)
def test_extreme_values_on_a_lattice(kind, step, offset, extremes):
    column = column_of(kind, lattice=Lattice(step, step, offset))
    assert column.extremes == pytest.approx(extremes, abs=1e-12)
    half = step / 2
    edges = (extremes[0] - half, extremes[1] + half) if isinstance(kind, Integer) else kind.bounds
    assert column.edges == pytest.approx(edges, abs=1e-12)


def test_extreme_values_in_single_precision():
    column = column_of(Interval(1, 2, atoms=()), ColumnType("float32", "number"))
    one, two = np.float32(1), np.float32(2)
    assert column.extremes == (np.nextafter(one, two), np.nextafter(two, one))
    column = column_of(Interval(1, 2, atoms=()))
    assert column.extremes == (np.nextafter(1.0, 2.0), np.nextafter(2.0, 1.0))
    low, high = column_of(Continuous(atoms=())).extremes
    assert low == -np.finfo(np.float64).max
    assert high == np.finfo(np.float64).max


# ------------------------------------------------------------------------------ fit


def fit(cells, declared=None, stored=FLOAT, copies=None):
    copies = np.ones(len(cells.missing)) if copies is None else np.array(copies, dtype=float)
    return fit_column("a", declared, stored, cells, copies)


def test_a_column_without_values_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"column 'a' of X has no value in any of 3 rows; .* kinds=\{'a': None\}",
    ):
        fit(cells_of([None, None, None]))


def test_weights_of_atoms_and_missing_cells_count_copies():
    kind = Continuous(atoms=(0, 5), unit=None)
    column = fit(cells_of([0.0, 0.0, 5.0, 1.3, 2.7, None]), kind, copies=[1, 2, 1, 3, 1, 2])
    assert column.atom_weights == pytest.approx((3 / 8, 1 / 8))
    assert column.missing_weight == pytest.approx(2 / 10)
    assert column.is_declared is True
    assert (column.discrete, column.continuous, column.origin) == (None, None, 0)
    assert column.only_date is None
    assert column.knot == math.inf
    assert fit(cells_of([0.3, 1.7, 2.2])).is_declared is False


@pytest.mark.filterwarnings("ignore:column 'a' holds:UserWarning")
def test_the_lattice_is_that_of_values_that_are_no_atoms():
    column = fit(cells_of([0.3, 0.3, 1.0, 3.0, 7.0]), Continuous(atoms=(0.3,), unit=2.0))
    assert (column.lattice.unit, column.lattice.offset) == (2.0, 1.0)
    only = fit(cells_of([0.5, 0.5, 0.5, 0.5]), Continuous(atoms=(0.5,), unit=None))
    assert only.lattice == Lattice()


@pytest.mark.parametrize(
    ("kind", "values", "knot"),
    [
        # Half of the largest distance from the bound, atoms left out.
        (Positive(atoms=(9.0,), unit=None), [9.0, 0.5, 4.0], 2.0),
        (Interval(-math.inf, 10, atoms=(), unit=None), [9.0, 0.0, 4.0], 5.0),
        (Interval(0, 10, atoms=(), unit=None), [9.0, 0.5, 4.0], math.inf),
        (Continuous(atoms=(), unit=None), [9.0, 0.5, 4.0], math.inf),
        (Integer(0, atoms=(), unit=1.0), [9.0, 1.0, 4.0], 4.75),
        (Positive(atoms=(2.0,), unit=None), [2.0, 2.0, 2.0], 1.0),
    ],
)
@pytest.mark.filterwarnings("ignore:column 'a' holds:UserWarning")
def test_knots_are_those_of_columns_with_one_bound(kind, values, knot):
    assert fit(cells_of(values), kind).knot == knot


@pytest.mark.filterwarnings("ignore:column 'a' holds:UserWarning")
def test_dates_begin_at_the_earliest():
    column = fit(dates("2020-03-01T12:00", None, "1960-01-02T00:00"), stored=DATE)
    assert column.kind == Datetime("h")
    assert column.origin == (np.datetime64("1960-01-02") - np.datetime64("1970-01-01")).astype(int)
    assert (column.lattice.unit, column.lattice.step) == (1 / 24, 1 / 24)
    assert column.only_date is None
    declared = fit(dates("2020-03-01", "2020-03-01"), Datetime(), DATE)
    assert declared.only_date is None


def test_a_single_date_is_an_atom():
    with pytest.warns(UserWarning, match=r"column 'a' holds 2020-03-01T06:00:00 in all rows"):
        column = fit(dates("2020-03-01T06:00", None, "2020-03-01T06:00"), stored=DATE)
    assert column.only_date == 0.25
    assert column.atoms == (0.25,)
    missing_first = fit(dates(None, "2020-03-01T06:00"), stored=DATE)
    assert missing_first.only_date == 0.25


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        (cells_of([2.5, 2.5]), "2.5"),
        (cells_of([1.0, 1.0], "flag"), "True"),
        (cells_of(["x", None, "x"], "label"), "'x'"),
        (cells_of([1.0]), None),
        (cells_of([1.0, None]), None),
        (cells_of([1.0, 2.0]), None),
    ],
)
def test_a_constant_column_warns_once(cells, shown, recwarn):
    _column._warn_of_constant("a", cells)
    if shown is None:
        assert not recwarn.list
    else:
        (found,) = recwarn.list
        assert str(found.message).startswith(f"column 'a' holds {shown} in all rows that have a")
        assert "kinds={'a': None}" in str(found.message)


# ------------------------------------------------------------------------------ encode


def test_levels_are_encoded_by_their_position():
    stored = ColumnType("object", "label", categories=("z", "y", "x"))
    column = column_of(Categorical(["y", "x"]), stored, discrete=0, continuous=None)
    cells = cells_of(["x", "y", None, "z", "w", "y"], "label")
    rows = encoded(column, cells, lowest=-3)
    assert rows.levels[:, 0].tolist() == [1, 0, -1, -1, -1, 0]
    assert rows.is_new[:, 0].tolist() == [False, False, False, True, True, False]
    assert np.isnan(rows.values).all()
    with pytest.raises(ValueError, match=r"holds 'w' \(row 4; 1 such rows\)"):
        encoded(column, cells, lowest=-2)
    with pytest.raises(ValueError, match=r"holds 'z' \(row 3; 2 such rows\)"):
        encoded(column, cells, lowest=-1)
    # Rows that do not record new levels.
    rows = replace(empty(2), is_new=None)
    encode_column(column, cells_of(["x", "w"], "label"), rows, -3)
    assert rows.levels[:, 0].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (Categorical(["x"]), r"kinds=\{'a': Categorical\(\[...\]\)\}"),
        (Ordinal(["x"]), r"kinds=\{'a': Ordinal\(\[...\]\)\}"),
        (Boolean(), r"2 levels: False, True\..*kinds=\{'a': Categorical\(\[...\]\)\}"),
    ],
)
def test_new_levels_are_an_error_with_advice(kind, advice):
    column = column_of(kind, LABEL, discrete=0, continuous=None)
    with pytest.raises(ValueError, match=advice):
        encoded(column, cells_of(["x", "q"], "label"))


def test_atoms_are_encoded_as_levels_and_other_values_as_numbers():
    column = column_of(Continuous(atoms=(0, 5), unit=None), discrete=0)
    rows = encoded(column, cells_of([5.0, 1.5, None, 0.0, -2.0]))
    assert rows.levels[:, 0].tolist() == [2, 0, -1, 1, 0]
    np.testing.assert_array_equal(rows.values[:, 0], [np.nan, 1.5, np.nan, np.nan, -2.0])
    plain = encoded(column_of(Continuous(atoms=(), unit=None)), cells_of([5.0, None]))
    assert plain.levels[:, 0].tolist() == [-1, -1]
    np.testing.assert_array_equal(plain.values[:, 0], [5.0, np.nan])


def test_values_of_a_query_are_not_changed():
    cells = cells_of([5.0, 1.5])
    encoded(column_of(Continuous(atoms=(5,), unit=None), discrete=0), cells)
    assert cells.values.tolist() == [5.0, 1.5]


def test_dates_and_durations_are_encoded_in_days():
    column = column_of(Datetime("h"), DATE, origin=1)
    rows = encoded(column, dates("1970-01-03T18:00", None, "1970-01-01"))
    np.testing.assert_array_equal(rows.values[:, 0], [1.75, np.nan, -1.0])
    only = replace(column, only_date=1.75, discrete=0)
    rows = encoded(only, dates("1970-01-03T18:00", None, "1970-01-01"))
    np.testing.assert_array_equal(rows.values[:, 0], [np.nan, np.nan, -1.0])
    assert rows.levels[:, 0].tolist() == [1, -1, 0]
    column = column_of(Continuous(atoms=(), unit=1 / 24), DURATION)
    np.testing.assert_array_equal(encoded(column, durations(43200)).values[:, 0], [0.5])


def test_cells_of_another_type_are_an_error():
    number = column_of(Continuous(atoms=()))
    cells = cells_of([None, "x", "y"], "label")
    with pytest.raises(
        ValueError,
        match=r"column 'a' of X holds labels, such as 'x'; expected numbers, as in the training",
    ):
        _column.in_family(number, cells)
    empty_cells = cells_of([None, None], "label")
    found = _column.in_family(number, empty_cells)
    assert (found.family, found.values.dtype) == ("number", np.float64)
    assert found.missing.tolist() == [True, True]
    for stored, dtype in ((DATE, "datetime64[s]"), (DURATION, "timedelta64[s]")):
        found = _column.in_family(column_of(Continuous(), stored), empty_cells)
        assert (found.family, found.values.dtype) == (stored.family, np.dtype(dtype))
    # Levels may be text, numbers or booleans.
    level = column_of(Categorical(["x"]), LABEL)
    for family in ("label", "number", "flag"):
        cells = cells_of([1.0], family)
        assert _column.in_family(level, cells) is cells
    cells = cells_of([None, 1.0])
    assert _column.in_family(level, cells) is cells
    with pytest.raises(ValueError, match="holds dates, such as 1970-01-02T00:00:00; expected lab"):
        _column.in_family(level, dates("1970-01-02"))
    cells = cells_of([None], "number")
    assert _column.in_family(level, cells).family == "label"


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Interval(0, 2, atoms=()), [1, 2], r"holds 2 \(row 1; 1 such rows\), which is on a bound"),
        (Interval(0, 2, atoms=()), [0, 2, 2], r"holds 0 \(row 0; 3 such rows\), which is on a bou"),
        (Interval(0, 2, atoms=()), [1, 3, 1, -1], r"holds 3 \(row 1; 2 such rows\), which is outs"),
        (Interval(0, 2, atoms=()), [1, -0.5], r"holds -0.5 \(row 1; 1 such rows\), which is outsi"),
        (Interval(0, 2, atoms=()), [2], r"Interval\(..., atoms=\(2,\)\)"),
        (Interval(0, 2, atoms=()), [9], "Declare wider bounds, or Continuous"),
        (Integer(0, 2, atoms=()), [0, 2, 3], r"holds 3 \(row 2; 1 .*between 0 and 2 \(kind int"),
        (Integer(0, 2, atoms=()), [-1], r"outside the bounds; .*kind integer, detected in fit\)"),
    ],
)
def test_values_outside_the_bounds_name_the_row(kind, values, message):
    with pytest.raises(ValueError, match=message):
        _column._check_bounds(column_of(kind), np.array(values, dtype=float))
    with pytest.raises(ValueError, match=re.escape(f"(kind {kind.name}, declared)")):
        _column._check_bounds(column_of(kind, is_declared=True), np.array(values, dtype=float))


def test_values_within_bounds_are_none():
    for kind, values in (
        (Integer(0, 2, atoms=()), [0.0, 2.0, np.nan]),
        (Interval(0, 2, atoms=()), [1e-9, 1.999]),
        (Continuous(atoms=()), [-1e300, 1e300]),
    ):
        _column._check_bounds(column_of(kind), np.array(values))


@pytest.mark.parametrize(("offset", "unit"), [(0.0, 1.0), (0.25, 1.0), (3.0, 50.0)])
def test_whole_numbers_may_be_none_of_the_detected_multiples(offset, unit):
    column = column_of(Integer(atoms=(), unit=unit), lattice=Lattice(unit, unit, offset))
    _column._check_bounds(column, offset + np.array([0.0, 1.0, 7.01, -3.0, np.nan]))
    with pytest.raises(
        ValueError,
        match=rf"column 'a' holds {offset + 7.25:.6g} \(row 1; 2 such rows\), which is not whole",
    ):
        _column._check_bounds(column, offset + np.array([1.0, 7.25, -3.1]))
    with pytest.raises(ValueError, match="which is not whole"):
        _column._check_bounds(column, offset + np.array([7.03]))


def test_fractions_are_allowed_where_the_unit_is_no_whole_number():
    column = column_of(Integer(atoms=(), unit=0.5), lattice=Lattice(0.5, 0.5, 0.0))
    _column._check_bounds(column, np.array([0.25]))
    column = column_of(Continuous(atoms=(), unit=1.0), lattice=Lattice(1.0, 1.0, 0.0))
    _column._check_bounds(column, np.array([0.25]))


# ------------------------------------------------------------------------------ dates


def test_ranges_of_dates():
    """Years 1 to 9999, or what 64 bits hold but for a day."""
    first, last = (np.datetime64(day, "D").astype(np.int64) for day in ("0001-01-01", "9999-12-31"))
    for resolution in ("s", "ms", "us"):
        assert _column._range_of_dates(resolution) == (first - 1, last + 1)
    days = 2.0**63 * 1e-9 / 86400 - 1
    assert _column._range_of_dates("ns") == pytest.approx((-days, days), abs=1e-9)


def test_dates_beyond_the_range_name_the_row_and_the_range():
    for resolution in ("s", "ns"):
        low, high = _column._range_of_dates(resolution)
        inside = [math.floor(low) + 1, math.ceil(high) - 1]
        values = np.array([*inside, 0, math.ceil(high), math.floor(low)], dtype="datetime64[D]")
        cells = Cells("date", values.astype("datetime64[s]"), np.zeros(5, dtype=bool))
        expected = rf"column 'a' holds {values[3]}T00:00:00 \(row 3; 2 such rows\).*of {resolution}"
        with pytest.raises(ValueError, match=expected):
            _column._check_dates("a", cells, resolution)
        hidden = replace(cells, missing=np.array([False] * 3 + [True] * 2))
        _column._check_dates("a", hidden, resolution)
    with pytest.raises(ValueError, match="between 0000-12-31 and 10000-01-01"):
        _column._check_dates("a", dates("10001-01-01"), "s")
    with pytest.raises(ValueError, match="between 1677-09-23 and 2262-04-11"):
        _column._check_dates("a", dates("10001-01-01"), "ns")


def test_ticks_are_multiples_of_the_unit():
    column = column_of(Datetime("h"), DATE)
    found = _column._ticks(column, "h", np.array([0.5, 1.02, np.nan, -2.0]))
    assert found.dtype == np.dtype("timedelta64[s]")
    assert found.astype(int).tolist() == [43200, 86400, 0, -172800]
    # Units below the resolution become ticks.
    assert _column._ticks(column, "ms", np.array([1e-3])).astype(int).tolist() == [86400]


def test_dates_come_back_and_stay_within_their_range():
    column = column_of(Datetime("D"), DATE, origin=10)
    rows = empty(4)
    rows.values[:, 0] = [1.4, np.nan, 1e9, -1e9]
    cells = decode_column(column, rows)
    assert cells.family == "date"
    assert cells.missing.tolist() == [False, True, False, False]
    days = cells.values.astype("datetime64[D]").astype(np.int64)
    low, high = _column._range_of_dates("s")
    assert days[0] == 11
    assert (days[2], days[3]) == (high, low)


def test_the_only_date_comes_back():
    column = column_of(Datetime("h"), DATE, origin=1, only_date=0.25, discrete=0)
    rows = empty(3)
    rows.levels[:, 0], rows.values[:, 0] = [1, 0, -1], [np.nan, 3.0, 2.0]
    cells = decode_column(column, rows)
    assert cells.missing.tolist() == [False, False, True]
    assert cells.values[:2].tolist() == [
        datetime.datetime(1970, 1, 2, 6), datetime.datetime(1970, 1, 5),
    ]  # fmt: skip


def test_zones_are_taken_off():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    noon = datetime.datetime(2020, 5, 1, 12, tzinfo=zone)
    plain = datetime.datetime(2020, 5, 1, 10)
    assert _column.without_zone(noon) == plain
    assert _column.without_zone(plain) is plain
    assert _column.without_zone("x") == "x"
    assert _column.without_zone(3) == 3
    found = _column.without_zone(np.array([noon, plain], dtype=object))
    assert found == [plain, plain]
    assert _column.without_zone([noon]) == [plain]
    array = np.array(["2020-01-01"], dtype="datetime64[s]")
    assert _column.without_zone(array) is array
    scalar = array[0]
    assert _column.without_zone(scalar) is scalar


# ------------------------------------------------------------------------------ decode


def test_levels_come_back():
    rows = empty(4)
    rows.levels[:, 0] = [1, 0, -1, 1]
    column = column_of(Categorical(["x", "y"]), LABEL, discrete=0, continuous=None)
    cells = decode_column(column, rows)
    assert (cells.family, cells.missing.tolist()) == ("label", [False, False, True, False])
    assert cells.values[[0, 1, 3]].tolist() == ["y", "x", "y"]
    flags = decode_column(replace(column, kind=Boolean(), stored=ColumnType("bool", "flag")), rows)
    assert flags.values.dtype == np.float64
    assert flags.values[[0, 1, 3]].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (column_of(Continuous(atoms=())), [1.5, np.nan], [1.5, np.nan]),
        (
            column_of(Periodic(24, origin=-2, atoms=())),
            [-2.0, 21.9, 22.0, 23.0, -3.0, 70.0],
            [-2.0, 21.9, -2.0, -1.0, 21.0, -2.0],
        ),
        (
            column_of(Periodic(24, atoms=()), lattice=Lattice(1.0, 1.0, 0.0, 0)),
            [23.6, 23.4, -0.2, 12.6],
            [0.0, 23.0, 0.0, 13.0],
        ),
        (
            column_of(Interval(0, 5, atoms=()), lattice=Lattice(1.0, 1.0, 0.0, 0)),
            [0.2, 2.4, 4.9],
            [1.0, 2.0, 4.0],
        ),
        (
            column_of(Integer(0, 5, atoms=()), lattice=Lattice(1.0, 1.0, 0.0, 0)),
            [-7.0, 2.6, 9.0],
            [0.0, 3.0, 5.0],
        ),
        # Values that rounding errors move beyond the extremes are no others.
        (
            column_of(Integer(0, 5, atoms=()), lattice=Lattice(1.0, 1.0, 0.0, None, slack=0.01)),
            [-0.009, 5.009, 5.011],
            [-0.009, 5.009, 5.0],
        ),
        (
            column_of(Continuous(atoms=()), ColumnType("int8", "number", is_whole=True)),
            [300.0, -300.0],
            [127.0, -128.0],
        ),
        (
            column_of(Continuous(atoms=()), ColumnType("float32", "number")),
            [1e300, -1e300],
            [float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max)],
        ),
    ],
)
def test_numbers_come_back_rounded_and_within_bounds(column, values, expected):
    rows = empty(len(values))
    rows.values[:, 0] = values
    cells = decode_column(column, rows)
    assert cells.family == "number"
    np.testing.assert_allclose(cells.values, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(cells.missing, np.isnan(expected))


def test_atoms_come_back_with_their_level():
    column = column_of(Continuous(atoms=(0, 5)), discrete=0)
    rows = empty(4)
    rows.levels[:, 0], rows.values[:, 0] = [2, 0, -1, 1], [np.nan, 1.5, 3.0, 9.0]
    cells = decode_column(column, rows)
    np.testing.assert_array_equal(cells.values, [5.0, 1.5, np.nan, 0.0])
    assert cells.missing.tolist() == [False, False, True, False]


def test_durations_come_back_in_ticks():
    column = column_of(Continuous(atoms=(), unit=None), DURATION)
    rows = empty(4)
    rows.values[:, 0] = [0.5, np.nan, 1e300, -1e300]
    cells = decode_column(column, rows)
    assert cells.family == "duration"
    assert cells.missing.tolist() == [False, True, False, False]
    assert cells.values.dtype == np.dtype("timedelta64[s]")
    ticks = cells.values.astype(np.int64)
    assert ticks[0] == 43200
    assert abs(ticks[2] - 2**52) <= 1
    assert ticks[3] == -ticks[2]
    stored = ColumnType("timedelta64[ms]", "duration", resolution="ms")
    ticks = decode_column(replace(column, stored=stored), rows).values.astype(np.int64)
    assert ticks[0] == 43_200_000
    assert abs(ticks[2] - 2**52) <= 1


# ------------------------------------------------------------------------------ given values


def test_given_values_become_cells():
    number, label = column_of(Continuous(atoms=())), column_of(Categorical(["xy"]), LABEL)
    cells = _column.given_cells(number, 3, 2)
    assert (cells.family, cells.values.tolist()) == ("number", [3.0, 3.0])
    assert _column.given_cells(number, [1, 2.5], 2).values.tolist() == [1.0, 2.5]
    assert _column.given_cells(label, "xy", 2).values.tolist() == ["xy", "xy"]
    assert _column.given_cells(label, b"xy", 1).values.tolist() == [b"xy"]
    assert _column.given_cells(label, ["a", "b"], 2).values.tolist() == ["a", "b"]
    day = column_of(Datetime("D"), DATE)
    cells = _column.given_cells(day, "2020-01-02", 2)
    assert cells.family == "date"
    assert cells.values.tolist() == [datetime.datetime(2020, 1, 2)] * 2
    length = column_of(Continuous(atoms=()), DURATION)
    cells = _column.given_cells(length, np.timedelta64(3, "h"), 1)
    assert (cells.family, cells.values.astype(int).tolist()) == ("duration", [10800])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (column_of(Continuous()), [1.0, 2.0], r"given\['a'\] has shape \(2,\); expected one value"),
        (column_of(Continuous()), [[1.0]] * 3, r"shape \(3, 1\); expected one value, or 3 of them"),
        (column_of(Datetime("D"), DATE), "soon", r"given\['a'\]='soon' is no date .*datetime64"),
        (column_of(Continuous(), DURATION), "x", r"given\['a'\]='x' is no duration .*timedelta64"),
    ],
)
def test_given_values_that_are_no_cells(column, value, message):
    with pytest.raises(ValueError, match=message):
        _column.given_cells(column, value, 3)


def test_rows_are_taken_with_all_they_have():
    rows = EncodedTable(
        np.array([[0], [1], [2]]), np.array([[0.0], [1.0], [2.0]]), np.array(list("abc")),
        np.array([[True], [False], [False]]),
    )  # fmt: skip
    taken = rows.take([2, 0])
    assert taken.levels.tolist() == [[2], [0]]
    assert taken.values.tolist() == [[2.0], [0.0]]
    assert taken.index.tolist() == ["c", "a"]
    assert taken.is_new.tolist() == [[False], [True]]
    assert len(taken) == 2
    plain = EncodedTable(rows.levels, rows.values).take([1])
    assert plain.index is None
    assert plain.is_new is None
