"""How precisely columns were recorded: units of rounded columns, and none of continuous ones."""

import numpy as np
import pytest

from skdiffsmooth import KDESampler
from skdiffsmooth._utils import column_precision as parts
from skdiffsmooth._utils.column_precision import (
    column_precision,
    copies_of,
    far_columns,
    has_extent,
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


@pytest.mark.parametrize(
    "values", [[54321], [1e9], [54321000], [0, 54321], [1234567, 1234568], [19999, 24999, 49999]]
)
def test_few_integers_are_no_rounded_float32_numbers(values):
    """A constant 1e9 was drawn with a standard deviation of 6700, codes 1234567 and 1234568 with 9."""
    column = np.resize(np.array(values, dtype=float), 60)
    assert precision(column).rounding[0] == np.finfo(np.float64).eps * max(values)
    # Two neighbouring float32 numbers still differ by rounding only.
    neighbours = np.resize(
        np.array([1, np.nextafter(np.float32(1), np.float32(0))], dtype=float), 60
    )
    assert not precision(neighbours).std.any()


@pytest.mark.parametrize("constant", [54321, 1e9])
def test_constants_are_drawn_up_to_the_rounding_of_float64(constant):
    X = np.column_stack([np.random.RandomState(0).normal(size=60), np.full(60, constant)])
    drawn = KDESampler("loo", metric="scaled").fit(X).sample(50, random_state=0)
    np.testing.assert_allclose(drawn[:, 1], constant, rtol=1e-10)


# ------------------------------------------------------------------------------ parts, at thresholds


@pytest.mark.parametrize("factor", [0.999, 1.001])
@pytest.mark.parametrize("of_noise", [True, False])
@pytest.mark.parametrize("n_values", [12, 20])
def test_a_unit_is_accepted_where_chance_would_give_one_in_a_billion(n_values, of_noise, factor):
    """K (2 delta)^(m - 2) = 1e-9, with delta the noise or the largest deviation of the m values."""
    values = 3.0 * np.arange(n_values) - 7
    delta = (1e-9 / (n_values - 1)) ** (1 / (n_values - 2)) / 2 * factor
    noise = 3 * delta if of_noise else 0.0
    if not of_noise:
        values[5] -= 3 * delta
    found = parts._accepted(values, np.arange(float(n_values)), noise)
    assert found == (3.0 if factor < 1 else 0.0)


@pytest.mark.parametrize(
    ("values", "noise", "unit"),
    [
        ([0, 1], 0.0, 0.0),
        ([0, 1, 3], 0.0, 1.0),
        ([0, 2, 5], 0.0, 1.0),
        ([-4, 6, 21, 27], 0.0, 1.0),
        # Units below 2^-20 of the range change no result.
        ([0, 1, 2**20], 0.0, 1.0),
        ([0, 1, 2**20 + 1], 0.0, 0.0),
        # So much noise may be chance.
        ([0, 1, 3], 0.4, 0.0),
        ([0, 1, 3], 0.6, 0.0),
        # Remainders within the noise are none.
        ([0, 1, 2, 3.015, 4, 5, 6, 7, 8, 9, 10, 11, 12], 0.0301, 1.0),
        ([0, 1, 2, 3.015, 4, 5, 6, 7, 8, 9, 10, 11, 12], 0.0299, 0.0),
        # Remainders below a hundredth of the unit are none.
        ([0, 1, 2, 3.009, 4, 5, 6, 7, 8, 9, 10, 11, 12], 0.0, 1.0),
    ],
)
@pytest.mark.parametrize("factor", [1.0, 8.0, 0.125])
def test_lattices(values, noise, unit, factor):
    found = parts._lattice(factor * np.array(values, dtype=float), factor * noise)
    assert found == pytest.approx(factor * unit, rel=1e-12)


@pytest.mark.parametrize(("step", "is_found"), [(99, True), (100, True), (101, False)])
def test_steps_of_at_most_a_hundred_units_give_the_unit(step, is_found):
    """The smallest step is wrong by 6e-5, which makes 0.6 units of the largest one."""
    values = np.cumsum([0.0, 1 + 6e-5, step, step, step, step, 10_000])
    assert (parts._lattice(values, 0.0) == pytest.approx(1.0, rel=1e-6)) == is_found


@pytest.mark.parametrize(
    ("held", "rows", "expected"),
    [
        ([0.8, 0.2, 0.1], [8, 2, 1], 0.8),
        ([0.2, 0.8, 0.1], [2, 8, 1], 0.8),
        ([0.1, 0.21, 0.8], [1, 2, 8], 0.0),
        ([0.8, 0.1, 0.1], [1, 1, 1], 0.0),
        ([0.8, 0.1, 0.1], [2, 1, 1], 0.8),
        ([0.9, 0.1], [9, 1], 0.0),
    ],
)
def test_values_that_stand_out_are_four_times_as_frequent_as_any_other(held, rows, expected):
    assert parts._atom_weight(np.array(held), np.array(rows)) == expected


SINGLE, DOUBLE = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)


@pytest.mark.parametrize(
    ("column", "eps"),
    [
        ([0.1, 0.2], DOUBLE),
        (np.float32([0.1, 0.2]), SINGLE),
        (np.float32([0.1, 0.1]), DOUBLE),
        (np.float32([0.1, 0.0]), DOUBLE),
        # Integers up to 2^23 are exact in float32.
        ([2.0**23 - 1, 2.0**23 - 3], DOUBLE),
        ([2.0**23, 2.0**23 - 1], DOUBLE),
        ([2.0**23 + 1, 2.0**23 - 1], SINGLE),
        ([-(2.0**23) - 1, 5.0], SINGLE),
        # The last mantissa bits of m values: 24 less 30 / m, but at least twelve, are left.
        ([1 + 2.0**-11, 1.5], DOUBLE),
        ([1 + 2.0**-12, 1.5], SINGLE),
        ([1 + 2.0**-13 + i / 8 for i in range(3)], DOUBLE),
        ([1 + 2.0**-14 + i / 8 for i in range(3)], SINGLE),
        ([1 + 2.0**-20 + i / 64 for i in range(10)], DOUBLE),
        ([1 + 2.0**-21 + i / 64 for i in range(10)], SINGLE),
    ],
)
@pytest.mark.parametrize("n_zeros", [0, 3])
def test_the_format_of_values(column, eps, n_zeros):
    values = np.append(np.asarray(column, dtype=float), np.zeros(n_zeros))
    assert parts._eps(values) == eps


def test_a_thousand_values_are_looked_at_first(monkeypatch):
    looked_at = []
    frexp = np.frexp
    monkeypatch.setattr(np, "frexp", lambda values: looked_at.append(len(values)) or frexp(values))
    for values, expected in (
        (np.full(1500, 0.1), [1000]),
        (np.append(np.zeros(1499), 0.1), [1000, 1500]),
    ):
        looked_at.clear()
        parts._eps(values)
        assert looked_at == expected


def described(column, copies=None, weights=None):
    column = np.asarray(column, dtype=float)
    copies = np.ones(len(column), dtype=int) if copies is None else np.asarray(copies)
    weights = copies / copies.sum() if weights is None else np.asarray(weights)
    return parts._describe(column, copies, weights)


def test_which_columns_may_have_a_unit():
    """At least twenty values, or ties of a tenth of the weight; and at least ten rows."""
    _, unit, width, n_values, ties, atom = described(np.arange(20.0))
    assert (unit, width, n_values, ties, atom) == (1.0, 1.0, 20, 0.0, 0.0)
    assert described(np.arange(19.0))[1:] == (0.0, 0.0, 19, 0.0, 0.0)
    tied = np.append(np.arange(18.0), [18.0, 18.0])
    assert described(tied)[1:4] == (1.0, 1.0, 19)
    assert described(tied)[4] == pytest.approx(0.1)
    weights = np.append(np.full(18, 0.901 / 18), [0.0495, 0.0495])
    assert described(tied, weights=weights)[1] == 0.0
    # Nine rows, of which one may be several.
    few = [0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert described(few, [1, 1, 1, 1, 1, 1, 1, 2])[1:] == (0.0, 0.0, 6, 6 / 9, 0.0)
    assert described(few, [1, 1, 1, 1, 1, 1, 1, 3])[1:4] == (1.0, 1.0, 6)
    # Values that differ by rounding are one value.
    rounded = np.append(np.arange(30) / 10, 0.1 + 0.2)
    assert described(rounded)[1] == pytest.approx(0.1)
    assert described(np.append(np.arange(20.0), -0.0))[3] == 20


def test_columns_of_two_values_have_half_their_difference_as_width():
    two = np.repeat([1.0, 4.0], 5)
    assert described(two)[1:4] == (0.0, 1.5, 2)
    assert described(np.append(np.ones(9), 4.0))[2] == 0.0
    assert described(np.ones(12))[1:] == (0.0, 0.0, 1, 1.0, 0.0)


def precision_of(**columns):
    of_d = {"rounding": 0, "unit": 0, "width": 0, "n_values": 30, "ties": 0, "atom_weight": 0}
    of_d |= {"std": 1.0} | columns
    d = max(np.size(value) for value in of_d.values())
    return parts.ColumnPrecision(
        **{name: np.broadcast_to(value, d) for name, value in of_d.items()}
    )


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"unit": 1.0, "std": 3.0}, None),
        ({"unit": 1.0, "std": 2.99, "ties": 0.5}, "multiples of 1, and 50% of the rows share"),
        ({"n_values": 2, "width": 0.5}, "has two values"),
        ({"n_values": 2}, None),
        ({"n_values": 3, "width": 0.5}, None),
        ({"atom_weight": 0.2}, "20% of the rows have the same value"),
        ({"atom_weight": 0.199}, None),
    ],
)
def test_which_columns_are_described_as_discrete(columns, text):
    found = precision_of(**columns).discrete_columns(None)
    assert len(found) == (text is not None)
    assert text is None or text in found[0]


@pytest.mark.parametrize(
    ("columns", "n_described"),
    [
        ({"rounding": 4.04e-3}, 1),
        ({"rounding": 3.96e-3}, 0),
        ({"rounding": 1.0, "unit": 0.5}, 0),
        ({"rounding": 1.0, "std": 0.0}, 0),
        ({"rounding": np.ones(8)}, 8),
        ({"rounding": np.ones(9)}, 8),
    ],
)
def test_which_columns_are_described_as_rounded(columns, n_described):
    found = precision_of(**columns)
    points = np.tile([[-4.0], [4.0]], len(found.std))
    names = np.array(list("abcdefghi"), dtype=object)
    described = found.rounded_columns(points, names)
    assert len(described) == n_described
    rounding = f"{found.rounding[0]:.2g}"
    for name, text in zip("abcdefgh", described, strict=False):
        assert text == f"column '{name}': to {rounding}, and its standard deviation is 4"


def test_widths_of_parts_take_the_larger_of_unit_and_width():
    found = precision_of(unit=[1.0, 0, 2, 0], width=[0.5, 3, 2, 0], std=[7.0, 7, 7, 7])
    np.testing.assert_array_equal(found.width_of_part, [1, 3, 2, 7])


def test_standard_deviations_are_weighted():
    points, weights = np.array([[0.0, 3.0], [1.0, 3.0], [5.0, 3.0]]), np.array([2.0, 1.0, 1.0])
    found = column_precision(points, weights)
    np.testing.assert_allclose(found.std, [np.std([0.0, 0, 1, 5]), 0])
    assert found.n_values.tolist() == [3, 1]


@pytest.mark.parametrize(("factor", "varies"), [(3.9, False), (4.0, False), (5.0, True)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_columns_vary_by_more_than_four_roundings(factor, varies, sign):
    column = sign * np.array([1.0 - factor * DOUBLE, 1.0, 1.0 - DOUBLE])
    assert has_extent(column[:, None])[0] == varies


@pytest.mark.parametrize(
    ("weights", "copies"),
    [
        ([0.2, 0.2, 0.2], [1, 1, 1]),
        ([0.2, 0.4, 0.4], [1, 2, 2]),
        ([0.25, 0.75], [1, 3]),
        ([0.5, 0.3], [5, 3]),
        ([1e-12, 1.0], [1, 1]),
        # Four roundings of the largest one are noise, which makes units by chance.
        ([1.0, 700.0], [1, 700]),
        ([1.0, 800.0], [1, 1]),
        ([1.0, np.sqrt(2)], [1, 1]),
    ],
)
def test_weights_that_are_multiples_of_a_unit(weights, copies):
    found = copies_of(np.array(weights))
    assert found.dtype == np.intp
    np.testing.assert_array_equal(found, copies)


def far_described(distances, weights=None, d=1):
    values = np.asarray(distances, dtype=float)
    weights = np.full(len(values), 1 / len(values)) if weights is None else np.asarray(weights)
    return far_columns(np.repeat(values[:, None], d, axis=1), weights, None)


def test_values_far_from_all_others_by_their_definition():
    """Of 40 values, of median 1, 95 % are within 19 of it; one is beyond 40 x 100 times that."""
    near = np.arange(-19.0, 20)
    assert far_described(np.append(near, 4000 * 19 + 2)) == [
        "column 0: 1 of 40 values are up to 7.6e+04 from the median, and 95% of the rows within 19"
    ]
    assert not far_described(np.append(near, 4000 * 19))
    # By weight the far row is more than a twentieth, or the near ones are the rest.
    weights = np.append(np.full(39, 0.94 / 39), 0.06)
    assert not far_described(np.append(near, 1e9), weights)
    # Most values of a column are equal.
    assert not far_described(np.append(np.zeros(39), 1e9))
    assert len(far_described(np.append(near, 1e9), d=8)) == 8
    assert len(far_described(np.append(near, 1e9), d=9)) == 8
    assert not far_described([0.0])
