"""Detection of kinds, atoms, units and bounds: what is detected, and what never is."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from skdiffsmooth.tables import (
    Boolean,
    Categorical,
    Continuous,
    Datetime,
    EncodedTable,
    Integer,
    Interval,
    Ordinal,
    Positive,
    TableColumns,
)


def kind_of(column, **options):
    return TableColumns.fit(pd.DataFrame({"x": column}), **options).kinds["x"]


def rng(seed=0):
    return np.random.RandomState(seed)


def zeros_and_incomes(n=300, seed=0):
    return np.where(rng(seed).uniform(size=n) < 0.3, 0.0, rng(seed + 1).lognormal(10, 1, n))


NUMBERS = {
    "normal": (rng().normal(size=200), Continuous(atoms=(), unit=None)),
    "heights": (rng().normal(170, 10, 200).round(1), Continuous(atoms=(), unit=0.1)),
    "temperatures": (rng().normal(5, 10, 200).round(), Continuous(atoms=(), unit=1.0)),
    "exponential": (rng().exponential(size=200), Positive(atoms=(), unit=None)),
    "lognormal": (rng().lognormal(3, 1, 200), Positive(atoms=(), unit=None)),
    "incomes": (zeros_and_incomes(), Positive(atoms=(0.0,), unit=None)),
    "shares": (rng().uniform(size=200), Interval(0, 1, atoms=(), unit=None)),
    "percentages": (rng().beta(0.5, 0.5, 200) * 100, Interval(0, 100, atoms=(), unit=None)),
    "censored": (
        rng().normal(40, 8, 300).clip(None, 50),
        Interval(-np.inf, 50, atoms=(50.0,), unit=None),
    ),
    "with a spike": (
        np.where(rng().uniform(size=300) < 0.2, 0.0, rng(1).normal(size=300)),
        Continuous(atoms=(0.0,), unit=None),
    ),
    "counts": (rng().poisson(2, 200), Integer(0, atoms=(), unit=1.0)),
    "counts as floats": (rng().poisson(2, 200) * 1.0, Integer(0, atoms=(), unit=1.0)),
    "counts from one": (rng().geometric(0.2, 200), Integer(0, atoms=(), unit=1.0)),
    "differences": (rng().poisson(5, 200) - 5, Integer(atoms=(), unit=1.0)),
    "years": (rng().randint(1900, 2020, 200), Integer(atoms=(), unit=1.0)),
    "prices": (rng().randint(20, 4000, 200) * 50, Integer(0, atoms=(), unit=50.0)),
    "ages": (rng().randint(18, 65, 200), Integer(0, atoms=(), unit=1.0)),
    "few spend": (np.r_[np.zeros(80), rng().lognormal(3, 1, 7)], Positive(atoms=(0.0,), unit=None)),
    "changes": (rng().randint(-3, 65, 200), Integer(atoms=(), unit=1.0)),
    "schooling": (rng().randint(0, 400, 200) / 20, Integer(0, atoms=(), unit=0.05)),
    "grades": (rng().randint(1, 6, 200), Ordinal([1, 2, 3, 4, 5])),
    "doses": (rng().choice([0.5, 1.0, 2.0], 60), Ordinal([0.5, 1.0, 2.0])),
    "years in eight answers": (
        rng().choice(
            [0.125, 0.417, 0.75, 1.5, 4, 7, 10, 15], 300, p=[0.01, 0.01, *[0.15] * 4, 0.2, 0.18]
        ),
        Ordinal([0.125, 0.417, 0.75, 1.5, 4, 7, 10, 15]),
    ),
    "dummy": (rng().binomial(1, 0.2, 60), Boolean()),
    "dummy as floats": (rng().binomial(1, 0.2, 60) * 1.0, Boolean()),
    "codes": (rng().choice([1, 2], 60), Ordinal([1, 2])),
    "few rows": ([0, 1, 1, 0, 2], Integer(atoms=(), unit=1.0)),
    "few floats": ([0.5, 0.5, 1.5, 2.5], Continuous(atoms=(), unit=None)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    column, expected = NUMBERS[name]
    kind = kind_of(column)
    assert type(kind) is type(expected)
    if hasattr(kind, "unit") and kind.unit:
        # Euclid's algorithm on rounded floats.
        assert kind.unit == pytest.approx(expected.unit, rel=1e-9)
        kind = type(kind)(**{**vars(kind), "unit": expected.unit})
    assert kind == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["b", "a", "b"], Categorical(["a", "b"])),
        (pd.Categorical(["b", "a"], categories=["c", "b", "a"]), Categorical(["b", "a"])),
        (
            pd.Categorical(["b"] * 2 + ["a"], ["c", "b", "a"], ordered=True),
            Ordinal(["c", "b", "a"]),
        ),
        (pd.Categorical([4, 6, 4, 8]), Categorical([4, 6, 8])),
        ([True, False], Boolean()),
        (pd.array([True, None, False], dtype="boolean"), Boolean()),
        (pd.array([1, None, 7], dtype="Int64"), Integer(atoms=(), unit=1.0)),
        (pd.date_range("2020-01-01", periods=3), Datetime("D")),
        (pd.to_datetime(["2020-01-01 10:30", "2020-01-01 12:00"]), Datetime("min")),
        (pd.to_datetime(["2020-01-01 10:30:00.5", "2020-01-01 12:00:00.0"]), Datetime("ms")),
        (pd.to_timedelta([90, 30], unit="min"), Continuous(atoms=(), unit=1 / 1440)),
    ],
)
def test_dtypes_speak_for_themselves(column, expected):
    assert kind_of(column) == expected


def test_continuous_columns_are_continuous():
    """No atom, unit or bound in 300 columns: sizes 5 to 400, ties by bootstrap, float32."""
    for seed in range(100):
        state = rng(seed)
        n = state.randint(5, 400)
        X = np.column_stack(
            [state.normal(size=n), state.uniform(-1, 2, n), 100 + state.standard_t(3, n)]
        )
        X = X[state.randint(n, size=n)] if seed % 3 == 0 else X
        X = X.astype(np.float32) if seed % 2 else X
        kinds = TableColumns.fit(X).kinds.values()
        assert set(kinds) == {Continuous(atoms=(), unit=None)}, (seed, kinds)


@pytest.mark.parametrize("factor", [2.0**-40, 1e-3, 3.7, 1e6])
def test_detection_follows_the_units(factor):
    floats = {
        name: column * factor
        for name, (column, _) in NUMBERS.items()
        # The bounds of shares are 1 and 100 in the units of the column.
        if isinstance(column, np.ndarray)
        and column.dtype.kind == "f"
        and name not in ("shares", "percentages", "dummy as floats")
    }
    for name, column in floats.items():
        before, kind = kind_of(column / factor), kind_of(column)
        assert type(kind) is type(before)
        for part in ("atoms", "unit", "low", "high", "levels"):
            if getattr(before, part, None) not in (None, ()):
                expected = np.multiply(getattr(before, part), factor)
                assert getattr(kind, part) == pytest.approx(expected, rel=1e-9), name


def test_atoms_are_not_the_ties_of_rounded_values():
    for seed in range(50):
        column = rng(seed).normal(size=rng(seed).randint(20, 500)).round(1)
        kind = kind_of(column)
        assert kind.atoms == () if hasattr(kind, "atoms") else isinstance(kind, Ordinal)


def test_two_atoms_at_the_ends():
    column = np.clip(rng().normal(0.5, 0.4, 400), 0, 1)
    kind = kind_of(column)
    assert kind == Interval(0, 1, atoms=(0, 1), unit=None)
    columns = TableColumns.fit(pd.DataFrame({"x": column}))
    assert f"atom 0 ({np.mean(column == 0):.1%}); atom 1 ({np.mean(column == 1):.1%})" in repr(
        columns
    )


def test_values_beyond_a_bound_speak_against_it():
    """Of shares that end at one a few are above; with them the column has its lower bound only."""
    shares = rng().uniform(size=400)
    assert (kind_of(shares).low, kind_of(shares).high) == (0, 1)
    above = np.append(shares, [1.2, 1.3])
    assert isinstance(kind_of(above), Positive)


def test_a_declared_kind_is_completed():
    column = zeros_and_incomes()
    assert kind_of(column, kinds={"x": Continuous()}) == Continuous(atoms=(0.0,), unit=None)
    assert kind_of(column, kinds={"x": Positive(unit=None)}) == Positive(atoms=(0.0,), unit=None)
    # A value on an open bound has no density, so it is an atom however rare it is.
    rare = np.append(rng().uniform(size=99), 1.0)
    assert kind_of(rare, kinds={"x": Interval(0, 1)}).atoms == (1.0,)
    codes = rng().choice([3, 1, 2], 50)
    assert kind_of(codes, kinds={"x": Categorical()}) == Categorical([1, 2, 3])


def test_the_report_has_one_line_for_each_column():
    X = pd.DataFrame({"income": zeros_and_incomes(40), "kind": ["a", "b"] * 20})
    lines = repr(TableColumns.fit(X)).splitlines()
    assert lines[0] == "TableColumns of a pandas table with 2 columns:"
    assert lines[1].split() == ["'income'", "positive", "from", "0;", "atom", "0", "(17.5%)"]
    assert lines[2].split() == ["'kind'", "categorical", "2", "levels:", "'a',", "'b'"]


def test_fine_decimals_are_no_unit_but_draws_have_them():
    column = rng().lognormal(8, 2, 200).round(2)
    X = pd.DataFrame({"x": column})
    columns = TableColumns.fit(X)
    assert columns.continuous[0].unit == 0
    drawn = EncodedTable(np.empty((2, 0), dtype=int), np.array([[1234.5678], [1e-5]]))
    assert columns.decode(drawn)["x"].tolist() == [1234.57, 0.01]
    assert columns.decode(columns.encode(X)).equals(X)
    assert "recorded to 0.01" in repr(columns)


def test_little_evidence_is_none():
    """Thirty uniform rows begin at zero by chance; values near multiples of a unit are not rounded."""
    assert kind_of(rng().uniform(0, 10, 30)) == Continuous(atoms=(), unit=None)
    day, is_leap = rng().randint(0, 365, 2000), np.arange(2000) % 2
    assert kind_of(2016 + day / 366 + is_leap * (1 + day / 365 - day / 366)).unit is None


@pytest.mark.parametrize(
    ("n", "width", "expected"),
    [
        (40, 0.45, Continuous),
        (30000, 0.18, Continuous),
        (3000, 0.3, Positive),
        (100, 0.5, Positive),
    ],
)
def test_a_logarithm_needs_evidence_in_each_row_and_in_all(n, width, expected):
    """Lognormal quantiles: gains in nats of 0.13 in each of 40 rows, 0.024, 0.07, 0.17."""
    column = np.exp(width * norm.ppf((np.arange(n) + 0.5) / n))
    assert kind_of(column) == expected(atoms=(), unit=None)
