"""How precisely columns were recorded: units of rounded columns, and none of continuous ones."""

import numpy as np
import pytest

from skdiffsmooth import KDESampler
from skdiffsmooth._utils.column_precision import (
    column_precision,
    copies_of,
    far_columns,
    relative_rounding,
)
from skdiffsmooth._utils.rows import merge_duplicates
from skdiffsmooth._utils.units import column_range, column_sizes


def precision(X, weights=None):
    X = np.asarray(X, dtype=float)
    X = X[:, None] if X.ndim == 1 else X
    return column_precision(*merge_duplicates(X, np.ones(len(X)) if weights is None else weights))


def table(seed, n=60):
    """Return a continuous column, counts, a rounded one and a dummy."""
    rng = np.random.RandomState(seed)
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.poisson(2, n),
            rng.normal(size=n).round(1),
            rng.binomial(1, 0.4, n),
        ]
    )


@pytest.mark.parametrize("shape", [(1, 3), (50, 1), (50, 8), (50, 9), (5, 0)])
def test_ranges_of_columns_are_those_of_numpy(shape):
    """Narrow tables are reduced column by column, wide ones by rows."""
    X = np.random.RandomState(0).normal(size=shape) - 1
    np.testing.assert_array_equal(column_range(X), [X.min(axis=0), X.max(axis=0)])
    np.testing.assert_array_equal(column_sizes(X), np.abs(X).max(axis=0))
    np.testing.assert_array_equal(column_sizes(X[:0]), np.zeros(shape[1]))


def test_one_late_value_in_double_precision_counts():
    """The first thousand values are float32 numbers, the last one is not."""
    X = np.random.RandomState(0).normal(size=(1500, 1)).astype(np.float32).astype(float)
    eps = np.finfo(np.float32).eps, np.finfo(np.float64).eps
    assert relative_rounding(X)[0] == eps[0]
    X[-1] = 0.1
    assert relative_rounding(X)[0] == eps[1]


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (np.random.RandomState(0).poisson(1, 120), 1.0),
        (np.random.RandomState(1).normal(0, 0.05, 120).round(1), 0.1),
        # After a change of units, and after standardisation.
        (np.random.RandomState(2).normal(70, 3, 200).round(1) * 2.54, 0.254),
        ((np.random.RandomState(3).normal(1e4, 3, 200).round(1) - 1e4) / 3, 0.1 / 3),
        (np.random.RandomState(4).standard_cauchy(200).round(1), 0.1),
        (np.random.RandomState(5).normal(1.7e9, 300, 300).round(1), 0.1),
        (np.random.RandomState(6).normal(size=200).round(1).astype(np.float32), 0.1),
        (np.random.RandomState(7).lognormal(10, 1.5, 300).round(-2), 100.0),
        # The unit is not the smallest step: 4.6, 5.7, 6.2, 7.4.
        ([4.6] * 10 + [5.7, 6.2, 7.4], 0.1),
    ],
)
def test_unit_of_a_rounded_column(column, unit):
    assert precision(column).unit[0] == pytest.approx(unit, rel=1e-6)


def test_widths_of_a_part_are_units_or_standard_deviations():
    found = precision(table(0))
    assert found.width_of_part[0] == found.std[0] > 0
    np.testing.assert_allclose(found.width_of_part[1:], [1, 0.1, 0.5], rtol=1e-9)


def test_continuous_columns_have_no_unit():
    """No false alarm in 1200 columns: float64 and float32, offsets, copied rows, few and many rows."""
    for seed in range(400):
        rng = np.random.RandomState(seed)
        n = rng.randint(2, 60)
        X = rng.normal(size=(n, 3)) * 10.0 ** rng.randint(-5, 5) + rng.choice([0.0, 1e3])
        X = X.astype(np.float32) if seed % 2 else X
        X = X[rng.randint(n, size=n)] if seed % 3 else X
        assert not precision(X).unit.any()
    for dtype in (np.float32, np.float64):
        large = np.random.RandomState(0).uniform(size=200_000).astype(dtype)
        assert not precision(large).unit.any()


def test_fewer_than_ten_rows_have_no_unit_and_no_atom():
    """Few integers may be an accident: three fives of seven are none of a lattice."""
    few = precision(np.array([1.0, 2, 3, 5, 5, 5, 8]))
    assert (few.unit[0], few.width[0], few.atom_weight[0]) == (0, 0, 0)
    many = precision(np.array([1.0, 2, 3, 5, 5, 5, 8, 1, 2, 2]))
    assert many.unit[0] == many.width[0] == 1


def test_zeros_and_dummies_are_ties_without_a_unit():
    rng = np.random.RandomState(0)
    income = np.where(rng.uniform(size=200) < 0.6, 0.0, rng.lognormal(size=200))
    described = precision(np.column_stack([income, rng.binomial(1, 0.3, 200)]))
    np.testing.assert_array_equal(described.unit, [0.0, 0.0])
    assert described.atom_weight[0] == pytest.approx(np.mean(income == 0))
    assert described.ties == pytest.approx([np.mean(income == 0), 1.0])
    np.testing.assert_array_equal(described.n_values, [1 + np.sum(income > 0), 2])


@pytest.mark.parametrize("seed", range(5))
def test_units_follow_the_columns(seed):
    """Powers of two scale units exactly; the orders of rows and columns do not matter."""
    X = table(seed)
    described = precision(X)
    assert described.unit == pytest.approx([0, 1, 0.1, 0])
    factors = 2.0 ** np.random.RandomState(seed).randint(-300, 300, size=4)
    scaled = precision(X * factors)
    np.testing.assert_array_equal(scaled.unit, described.unit * factors)
    np.testing.assert_array_equal(scaled.rounding, described.rounding * factors)
    rng = np.random.RandomState(seed)
    columns = rng.permutation(4)
    moved = precision(X[rng.permutation(len(X))][:, columns])
    np.testing.assert_array_equal(moved.unit, described.unit[columns])


def test_copies_and_integer_weights_are_the_same():
    X = table(0)[:, 1:]
    weights = np.random.RandomState(0).randint(1, 5, size=len(X))
    copied, weighted = precision(np.repeat(X, weights, axis=0)), precision(X, weights)
    np.testing.assert_array_equal(copied.unit, weighted.unit)
    np.testing.assert_allclose(copied.ties, weighted.ties, rtol=1e-12)
    # Weights have no unit, so the common divisor of the copies is lost.
    np.testing.assert_array_equal(copies_of(np.array([6.0, 2.0, 4.0]) / 7), [3, 1, 2])
    np.testing.assert_array_equal(copies_of(np.random.RandomState(0).uniform(size=5)), np.ones(5))


@pytest.mark.parametrize("offset", [0, 5001, 2**17 + 1, -(2**26) - 1])
def test_integers_have_their_unit_at_any_offset(offset):
    """Those from 4096 on were taken for rounded float32 numbers, and few values then for continuous."""
    X = np.random.RandomState(0).poisson(2, 40) + offset
    assert len(np.unique(X)) < 8
    assert precision(X).unit[0] == 1
    # float32 numbers of such a size are rounded in their last bits.
    rounded = np.float64(np.float32(np.random.RandomState(0).normal(size=9) + 5001))
    assert precision(np.append(rounded, rounded)).rounding[0] >= 1e-7 * 5001


def test_rounding_is_that_of_the_format():
    values = np.random.RandomState(0).normal(size=50)
    largest = np.abs(values).max()
    assert precision(values).rounding[0] == np.finfo(np.float64).eps * largest
    single = values.astype(np.float32).astype(float)
    assert precision(single).rounding[0] == np.finfo(np.float32).eps * np.abs(single).max()
    # Small integers are exact in both.
    assert precision(np.arange(30.0)).rounding[0] == np.finfo(np.float64).eps * 29


def n_far(column):
    """Return the number of columns, 0 or 1, in which some values are far from all others."""
    points, weights = merge_duplicates(
        np.asarray(column, dtype=float)[:, None], np.ones(len(column))
    )
    return len(far_columns(points, weights, None))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_offset_beside_which_digits_are_lost_warns(dtype):
    """The rounding is above a thousandth of the standard deviation; counts keep all their digits."""
    digits = np.finfo(dtype).nmant
    Z = np.random.RandomState(0).normal(size=(60, 2))
    counts = np.random.RandomState(0).poisson(4, 60)
    for exponent, is_lost in ((digits - 12, False), (digits - 8, True), (digits - 3, True)):
        X = np.column_stack([Z + [0, 2.0**exponent], counts + 2.0 ** (digits - 8)])
        rounded = X.astype(dtype)
        described = precision(rounded).rounded_columns(rounded.astype(float), None)
        assert [text[:9] for text in described] == ["column 1:"] * is_lost
    with pytest.warns(
        UserWarning, match="rounded by their storage as floats: column 1: to 0.*Subtract"
    ):
        KDESampler(0.3).fit((Z + [0, 2.0 ** (digits - 3)]).astype(dtype))


def test_heavy_tails_have_no_far_values():
    """Of 200 Cauchy columns each has one with probability 5e-4: two of them have none by chance 1e-2."""
    tables = np.random.RandomState(0).standard_cauchy(size=(200, 1000))
    assert sum(map(n_far, tables)) <= 1
    assert not any(n_far(np.exp(2 * column[:60].clip(-3, 3))) for column in tables)


@pytest.mark.parametrize("unit", [1e-300, 1.0, 1e290])
def test_far_values_are_found_in_any_unit(unit):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.normal(size=(60, 2)), np.zeros(60)])
    X[5, 0], X[7, 2] = 1e7, 1.0
    (described,) = far_columns(unit * X, np.full(60, 1 / 60), None)
    assert described.startswith("column 0: 1 of 60 values are up to")
    X[9:14, 0] = -1e7
    # A tenth of the rows is a group, and no accident.
    assert not far_columns(unit * X, np.full(60, 1 / 60), None)


@pytest.mark.parametrize(("n_columns", "last"), [(8, "column 7"), (9, "and 1 more")])
def test_at_most_eight_columns_are_described(n_columns, last):
    X = np.random.RandomState(0).poisson(2, size=(60, n_columns))
    described = precision(X).discrete_columns(None)
    assert len(described) == n_columns
    assert described[-1].startswith(last)
