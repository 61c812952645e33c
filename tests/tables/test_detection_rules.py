"""The rules of the detection of kinds at their thresholds, called directly."""

import math

import numpy as np
import pytest

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
    _detect,
)
from skdiffsmooth.tables._detect import Lattice
from skdiffsmooth.tables._frames import Cells, ColumnType

FLOAT = ColumnType("float64", "number")
WHOLE = ColumnType("int64", "number", is_whole=True)
IRREGULAR = np.sqrt(np.arange(2.0, 200.0))


def cells_of(values, family="number"):
    if family == "label":
        held = np.empty(len(values), dtype=object)
        held[:] = values
    else:
        held = np.array(values)
    return Cells(family, held, np.zeros(len(held), dtype=bool))


def ones(n):
    return np.ones(n, dtype=int)


# ------------------------------------------------------------------------------ lattices


def test_values_are_rounded_to_the_lattice():
    lattice = Lattice(0.5, 0.5, 0.25)
    found = lattice.rounded(np.array([0.3, 0.49, 0.51, -0.4, 9.9]))
    np.testing.assert_allclose(found, [0.25, 0.25, 0.75, -0.25, 9.75])
    decimals = Lattice(0.1, 0.1, 0.0, 1)
    assert decimals.rounded(np.array([0.29]))[0] == 0.3
    # Without decimals three tenths are 0.30000000000000004.
    assert Lattice(0.1, 0.1).rounded(np.array([0.29]))[0] == 3 * 0.1
    assert Lattice().rounded(np.array([0.29]))[0] == 0.29


def test_values_within_the_slack_stay():
    lattice = Lattice(1.0, 1.0, 0.0, 0, slack=0.125)
    values = np.array([1.125, 0.875, 1.126, -2.125])
    np.testing.assert_array_equal(lattice.rounded(values), [1.125, 0.875, 1.0, -2.125])


def test_values_that_are_too_many_steps_away_stay():
    lattice = Lattice(1.0, 1.0, 0.5)
    far = 2.0**52
    values = np.array([far + 1, -far - 3, 1e300, 1e15, np.nan])
    np.testing.assert_array_equal(
        lattice.rounded(values), [far + 1, -far - 3, 1e300, 1e15 + 0.5, np.nan]
    )
    assert Lattice(1.0, 1.0, 1.0).rounded(np.array([-far + 1]))[0] == -far + 1


def test_distances_from_a_lattice():
    deviation, offset = _detect._deviation(np.array([0.5, 1.6, -0.25]), 1.0, 0.5)
    assert deviation == pytest.approx(0.25)
    assert offset == 0.5
    assert _detect._deviation(np.array([3.0, 7.0]), 4.0, 3.0)[0] == 0
    assert _detect._deviation(np.array([5.0]), 4.0, 3.0)[0] == 2


def test_rounding_errors_are_those_of_the_largest_value():
    eps = np.finfo(np.float64).eps
    assert _detect._rounding(np.array([1.0, -3.0])) == 24 * eps
    assert _detect._rounding(np.array([])) == 0


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([1.0, 20.0], 0), ([0.5], 1), ([0.25, 3.0], 2), ([1e-15], 15), ([], 0)],
)
def test_decimals_of_values(values, decimals):
    found = _detect._with_decimals(Lattice(0.01, 0.01), np.array(values, dtype=float))
    assert found.decimals == decimals
    assert (found.unit, found.step, found.offset) == (0.01, 0.01, 0.0)


def test_values_without_decimals():
    assert _detect._with_decimals(Lattice(), np.array([1e-17, 0.1])).decimals == 1
    assert _detect._with_decimals(Lattice(), np.array([1e-17])).decimals is None


def test_the_slack_is_twice_the_largest_distance():
    values = np.array([1.0, 2.004, 2.998])
    found = _detect._with_decimals(Lattice(1.0, 1.0), values)
    # The decimals of the values are three, so that multiples of one stay.
    assert found.decimals == 3
    assert found.slack == pytest.approx(0.008 + _detect._rounding(values), abs=1e-15)
    exact = _detect._with_decimals(Lattice(1.0, 1.0), np.array([1.0, 2.0]))
    assert exact.slack == _detect._rounding(np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("unit", "values", "offset"),
    [
        (0.5, [0.5, 2.0], 0.0),
        (0.5, [0.75, 2.25], 0.75),
        # A deviation of a fiftieth of the unit is allowed.
        (1.0, [0.0, 1.02, 3.0], 0.0),
        (1.0, [0.0, 2.98, 3.0], 0.0),
        (4.0, [0.0, 4.07, 12.0], 0.0),
    ],
)
def test_lattices_of_declared_units(unit, values, offset):
    found = _detect.lattice_of("a", Continuous(unit=unit), np.array(values))
    assert (found.unit, found.step, found.offset) == (unit, unit, offset)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            Continuous(unit=1.0), [0.0, 1.021, 3.0, 1.03],
            r"'a' holds 1.03, which is no multiple of unit=1 away from 0; .* such as whole numbers\.",
        ),
        (
            Continuous(unit=0.5), [0.1, 1.1, 0.75, 2.1],
            r"'a' holds 0.75, which is no multiple of unit=0.5 away from 0.1; .* in that unit\. Decl",
        ),
    ],
)  # fmt: skip
def test_values_that_are_no_multiples_of_their_unit(kind, values, message):
    with pytest.raises(ValueError, match=message):
        _detect.lattice_of("a", kind, np.array(values))


def test_lattices_without_a_unit():
    tenths = np.arange(10) / 10
    found = _detect.lattice_of("a", Continuous(unit=None), tenths)
    assert (found.unit, found.step, found.decimals) == (0.0, 0.1, 1)
    assert _detect.lattice_of("a", Continuous(unit=None), tenths[:9]) == Lattice()
    assert _detect.lattice_of("a", Continuous(unit=None), IRREGULAR) == Lattice()
    empty = _detect.lattice_of("a", Continuous(unit=0.5), np.array([]))
    assert (empty.unit, empty.step) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (np.arange(10) / 1e9, 1e-9),
        (np.arange(10) / 1e10, 0.0),
        (np.arange(10) + 0.125, 1e-3),
        # A thousand times eps is 2.2e-13, of the largest value at most the last decimal.
        (4e11 + np.arange(10) / 10, 0.1),
        (5e11 + np.arange(10) / 10, 0.0),
        (5e12 + np.arange(10), 0.0),
        (4e12 + np.arange(10), 1.0),
        # The largest value decides.
        (np.r_[0.0, 5e11 + np.arange(10) / 10], 0.0),
    ],
)
def test_the_last_decimal_needs_a_thousand_floats_between(values, unit):
    assert _detect._last_decimal(values) == unit


# ------------------------------------------------------------------------------ levels


@pytest.mark.parametrize(
    ("n", "n_levels", "fails", "warns"),
    [
        (9, 9, False, False),
        (10, 10, True, False),
        (19, 18, False, False),
        (20, 19, False, True),
        (20, 11, False, True),
        (20, 10, False, False),
        (20, 20, True, False),
    ],
)
def test_texts_that_differ_are_identifiers(n, n_levels, fails, warns, recwarn):
    texts = np.array([f"name {k % n_levels}" for k in range(n)], dtype=object)
    if fails:
        with pytest.raises(ValueError, match=rf"column 'a' holds text with as many .*\({n}\).*'na"):
            _detect._check_levels("a", texts)
    else:
        _detect._check_levels("a", texts)
    assert len(recwarn) == warns
    if warns:
        assert f"column 'a' holds {n_levels} levels in {n} rows" in str(recwarn[0].message)


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        (["1", "2.5"], " Its texts are numbers: convert them by pandas.to_numeric."),
        (["2020-01-01", "2020-02-02"], " Its texts are dates: convert them by pandas.to_datetime."),
        (["x", "1"], ""),
    ],
)
def test_advice_on_texts(texts, advice):
    assert _detect._conversion(np.array(texts, dtype=object)) == advice


def test_levels_of_training_rows():
    categories = ColumnType("object", "label", categories=("c", "b", "a"))
    present = np.array(["a", "c", "a"], dtype=object)
    assert _detect._with_levels("a", Categorical(), categories, present).levels == ("c", "a")
    assert _detect._with_levels("a", Ordinal(), categories, present).levels == ("c", "b", "a")
    label = ColumnType("object", "label")
    assert _detect._with_levels("a", Categorical(), label, present) == Categorical(["a", "c"])
    numbers = np.array([3.0, 1.0, 3.0])
    whole = _detect._with_levels("a", Ordinal(), WHOLE, numbers)
    assert whole.levels == (1, 3)
    assert all(type(level) is int for level in whole.levels)
    assert type(_detect._with_levels("a", Ordinal(), FLOAT, numbers).levels[0]) is float
    mixed = np.array(["a", b"a"], dtype=object)
    assert _detect._with_levels("a", Categorical(), label, mixed).levels == ("a", b"a")
    with pytest.raises(
        ValueError,
        match=r"'a' is declared as Ordinal\(\), .*Pass Ordinal\(\['a', 'b', 'c', 'd'\]\)",
    ):
        _detect._with_levels("a", Ordinal(), label, np.array(list("edcba"), dtype=object))


@pytest.mark.parametrize(
    ("counts", "values", "is_whole", "expected"),
    [
        ([3], [2.0], True, Categorical([2])),
        ([3], [2.5], False, Categorical([2.5])),
        # Two values.
        ([8, 2], [0, 1], True, Boolean()),
        ([8, 2], [0.0, 1.0], False, Boolean()),
        ([8, 2], [1, 2], True, Ordinal([1, 2])),
        ([9, 1], [0, 1], True, Boolean()),
        ([9, 1], [0, 2], True, Ordinal([0, 2])),
        ([7, 2], [0, 1], True, None),
        # Five rows each, and 5 % of them.
        ([5, 5, 5], [1, 2, 4], True, Ordinal([1, 2, 4])),
        ([5, 4, 5], [1, 2, 4], True, None),
        ([10, 10, 180], [1, 2, 4], True, Ordinal([1, 2, 4])),
        ([9, 10, 181], [1, 2, 4], True, None),
        ([5, 5, 5], [0.5, 2, 4], False, Ordinal([0.5, 2.0, 4.0])),
    ],
)
def test_which_numbers_are_levels(counts, values, is_whole, expected):
    found = _detect._detect_levels(is_whole, np.array(values, dtype=float), np.array(counts))
    assert found == expected


@pytest.mark.parametrize(
    ("n_levels", "last", "counts", "is_sparse"),
    [
        # 19 levels of 0, 1, ..., and a last one: 100 units apart on average.
        (20, 2000, (5, 1), True),
        (20, 1999, (5, 1), False),
        (21, 2100, (5, 1), False),
        (20, 2000, (4, 1), False),
    ],
)
def test_few_numbers_that_are_far_apart_are_levels(n_levels, last, counts, is_sparse):
    values = np.r_[np.arange(n_levels - 1.0), last]
    of_values = np.full(n_levels, counts[0])
    of_values[0] = counts[1]
    found = _detect._detect_levels(True, values, of_values)
    assert (found is not None) == is_sparse


def test_half_of_far_levels_have_five_rows():
    values = np.array([0.0, 1.0, 2.0, 1000.0])
    assert _detect._detect_levels(True, values, np.array([1, 1, 9, 9])) is not None
    assert _detect._detect_levels(True, values, np.array([1, 1, 4, 9])) is None


# ------------------------------------------------------------------------------ atoms


def atoms_of(counts, values=None, unit=0.0):
    counts = np.array(counts)
    values = IRREGULAR[: len(counts)] if values is None else np.array(values, dtype=float)
    found = _detect._atoms(values, counts, unit)
    return [int(np.flatnonzero(values == atom)[0]) for atom in found]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Five rows, and five other values.
        ([5, 1, 1, 1, 1, 1], [0]),
        ([4, 1, 1, 1, 1, 2], []),
        ([5, 1, 1, 1, 2], []),
        ([6, 1, 1, 1, 1], []),
        ([1, 1, 1, 5, 1, 1], [3]),
        # Four times as many rows as each neighbour.
        ([8, 2, 1, 1, 1, 1], [0]),
        ([7, 2, 1, 1, 1, 1], []),
        # Atoms are no neighbours of atoms; the more frequent one is found first.
        ([5, 20, 1, 1, 1, 1, 1], [0, 1]),
        ([20, 5, 1, 1, 1, 1, 1], [0, 1]),
        ([5, 5, 1, 1, 1, 1, 1], []),
        # Ten rows in all.
        ([5, 1, 1, 1, 1], []),
        # A fiftieth of the rows.
        ([5] + [1] * 245, None),
    ],
)
def test_which_values_are_atoms(counts, expected):
    if expected is None:
        counts = [6, *[1] * 190]
        assert atoms_of(counts) == [0]
        values = np.sqrt(np.arange(2.0, 300.0))
        assert atoms_of([6, *[1] * 294], values[:295]) == [0]
        assert atoms_of([6, *[1] * 295], values[:296]) == []
        return
    assert atoms_of(counts) == expected


def test_one_value_is_an_atom_and_few_rows_have_none():
    assert _detect._atoms(np.array([3.0]), np.array([2]), 0.0) == [3.0]
    assert _detect._atoms(np.array([3.0, 4.0]), np.array([7, 2]), 0.0) == []
    # Nine rows in all.
    assert atoms_of([5, 1, 1, 1, 1]) == []


def test_neighbours_are_the_ten_nearest_values():
    counts = np.ones(40, dtype=int)
    counts[[10, 20]] = 24, 6
    # The eleventh value on either side is no neighbour.
    counts[9] = 3
    assert atoms_of(counts) == [10, 20]
    counts[9] = 1
    for position, is_neighbour in ((30, True), (31, False), (10, True), (9, False)):
        counts = np.ones(40, dtype=int)
        counts[20], counts[position] = 6, 2
        assert atoms_of(counts) == ([] if is_neighbour else [20])


@pytest.mark.parametrize(
    ("position", "n_steps", "expected"),
    [(0, 999, [0]), (5, 999, []), (5, 1000, [5]), (9, 999, [9])],
)
def test_on_a_coarse_lattice_only_ends_are_atoms(position, n_steps, expected):
    values = np.r_[np.arange(9.0), n_steps]
    counts = np.ones(10, dtype=int)
    counts[position] = 6
    assert atoms_of(counts, values, 1.0) == expected


# ------------------------------------------------------------------------------ units and counts


def test_units_of_values():
    assert _detect._unit(np.array([]), np.array([])) == 0.0
    assert _detect._unit(np.arange(20) * 0.5, ones(20)) == pytest.approx(0.5)
    assert _detect._unit(IRREGULAR[:30], ones(30)) == 0.0


@pytest.mark.parametrize(
    ("rest", "counts", "expected"),
    [
        # From 0 on: twenty rows, and less than a thousand units.
        ([0, 600, 999], [1, 9, 10], True),
        ([0, 600, 1000], [1, 9, 10], False),
        ([0, 600, 999], [1, 8, 10], False),
        # At 0 or 1, with at most a hundred units.
        ([1, 100], [1, 1], True),
        ([0, 100], [1, 1], True),
        ([1, 101], [1, 1], False),
        ([2, 50], [5, 1], False),
        ([-1, 50], [5, 1], False),
        ([0.5, 50.5], [5, 1], False),
        # Further where many values are within a fourth of the median: 5^2 >= 20 and 4^2 < 20.
        ([1, 8, 40, 200, 400], [4, 1, 6, 1, 1], True),
        ([1, 8, 40, 200, 400], [3, 1, 6, 1, 1], False),
        # The first interval is a unit at least.
        ([1, 2, 3, 400], [9, 1, 1, 1], False),
    ],
)
def test_which_multiples_are_counts(rest, counts, expected):
    for unit in (1.0, 0.25):
        assert _detect._is_count(np.array(rest) * unit, np.array(counts), unit) == expected


# ------------------------------------------------------------------------------ bounds


def test_a_bound_is_where_values_would_extend_beyond():
    near = np.linspace(0.01, 1, 40)
    high = math.inf
    values = np.r_[near, 3.0, 5.0]
    assert _detect._bounds(values, values, ones(42), []) == (0.0, high)
    far = values + 10
    assert _detect._bounds(far, far, ones(42), []) == (-math.inf, high)
    negative = np.r_[-0.1, values]
    assert _detect._bounds(negative, negative, ones(43), []) == (-math.inf, high)


def test_few_rows_have_the_bounds_of_their_atoms_only():
    values = np.linspace(0.01, 1, 20) ** 3
    assert _detect._bounds(values, values, np.r_[0, ones(19)], []) == (-math.inf, math.inf)
    assert _detect._bounds(values, values, ones(20), [])[0] == 0.0
    distinct = np.r_[-1.0, values, 5.0]
    few = np.r_[0, ones(19)]
    assert _detect._bounds(distinct, values, few, [-1.0, 5.0]) == (-1.0, 5.0)
    assert _detect._bounds(distinct, values, few, [-1.0]) == (-1.0, math.inf)
    assert _detect._bounds(distinct, values, few, [5.0]) == (-math.inf, 5.0)
    assert _detect._bounds(distinct, values, few, [0.5]) == (-math.inf, math.inf)


@pytest.mark.parametrize("end", [1.0, 100.0])
def test_shares_and_percentages_have_a_second_bound(end):
    rest = np.linspace(0.002, 0.998, 200) * end
    assert _detect._bounds(rest, rest, ones(200), []) == (0.0, end)
    # A value at the end, which is no atom, is beyond.
    reached = np.r_[rest, end]
    assert _detect._bounds(reached, reached, ones(201), [])[1] == math.inf
    # Few values near the end.
    skewed = rest[rest < 0.6 * end]
    assert _detect._bounds(skewed, skewed, ones(len(skewed)), [])[1] == math.inf
    # An atom at zero is the lower bound.
    with_zero = np.r_[0.0, rest]
    assert _detect._bounds(with_zero, rest, ones(200), [0.0]) == (0.0, end)
    # Atoms at the upper end keep theirs.
    above = np.r_[rest, 3 * end]
    assert _detect._bounds(above, rest, ones(200), [3 * end]) == (0.0, 3 * end)
    # Within an atom that is elsewhere, the lower bound is its own.
    below = np.r_[-end, rest]
    assert _detect._bounds(below, rest, ones(200), [-end]) == (-end, math.inf)


def test_values_above_one_are_no_shares():
    rest = np.linspace(0.002, 0.998, 200) * 2
    assert _detect._bounds(rest, rest, ones(200), []) == (0.0, math.inf)


def test_bounds_count_values_in_two_intervals():
    values = np.array([0.5, 0.99, 1.0, 1.5, 1.99, 2.0])
    # Below 1: two values; from 1 to below 2: three.
    for counts, expected in (
        ([4, 4, 1, 1, 1, 9], True),  # 64 >= 60
        ([4, 3, 1, 1, 1, 0], False),  # 49 < 60
        ([5, 3, 1, 1, 1, 0], True),
        ([5, 5, 2, 2, 1, 0], True),  # 100 >= 100
        ([3, 2, 0, 0, 0, 0], True),  # 25 >= 20
        ([2, 2, 0, 0, 0, 0], False),
    ):
        assert _detect._has_bound(values, np.array(counts), 0.0, 1.0) is expected
    assert _detect._has_bound(values + 3, np.array([4, 4, 1, 1, 1, 9]), 3.0, 1.0) is True


# ------------------------------------------------------------------------------ logarithms


def gain_of(values, counts):
    """Return how much better, in nats per row, a Gaussian fits the logarithms."""
    rows = np.repeat(values, counts)
    logs = np.log(rows)
    return 0.5 * math.log(rows.var()) - 0.5 * math.log(logs.var()) - logs.mean()


@pytest.mark.parametrize("scale", [0.1, 0.2, 0.3, 0.35, 0.5, 1.0])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e200])
def test_logarithms_need_a_gain_in_each_row_and_in_all(scale, factor):
    rng = np.random.default_rng(0)
    values = np.sort(np.exp(scale * rng.normal(size=120)))
    for n_copies in (1, 3):
        counts = np.full(120, n_copies)
        counts[50] += 2
        gain = gain_of(values, counts)
        median = _detect._median(values, counts)
        expected = values[0] < median / 2 and gain >= 0.03 and gain * counts.sum() >= 10
        assert _detect._is_likelier_as_logarithm(values * factor, counts) == expected


def test_few_rows_are_no_evidence_for_a_logarithm():
    values = np.exp(np.linspace(-1.5, 1.5, 30))
    found = []
    for n in range(1, 40):
        counts = np.full(30, n)
        found.append(_detect._is_likelier_as_logarithm(values, counts))
        assert found[-1] == (gain_of(values, counts) * counts.sum() >= 10)
    assert found[-1]


# ------------------------------------------------------------------------------ kinds


@pytest.mark.parametrize(
    ("is_whole", "values", "counts", "expected"),
    [
        (True, np.arange(2.0, 12.0), None, Integer(0, atoms=(), unit=1.0)),
        (True, np.arange(2.0, 11.0), None, Integer(atoms=(), unit=1.0)),
        # The lowest is at most half of the highest.
        (True, np.arange(11.0, 23.0), None, Integer(0, atoms=(), unit=1.0)),
        (True, np.arange(12.0, 23.0), None, Integer(atoms=(), unit=1.0)),
        (True, np.arange(-1.0, 23.0), None, Integer(atoms=(), unit=1.0)),
        (True, np.arange(0.0, 12.0), None, Integer(0, atoms=(), unit=1.0)),
        (True, np.arange(40.0, 81.0) * 5, None, Integer(0, atoms=(), unit=5.0)),
        # An atom at the end is the upper bound.
        (True, np.arange(2.0, 12.0), [1] * 9 + [8], Integer(0, 11, atoms=(11.0,), unit=1.0)),
        (True, np.arange(2.0, 12.0), [8] + [1] * 9, Integer(0, atoms=(2.0,), unit=1.0)),
        (False, np.arange(0.0, 24.0) / 4, [2] * 24, Integer(0, atoms=(), unit=0.25)),
        (False, np.arange(30.0, 54.0) / 4, [2] * 24, Continuous(atoms=(), unit=0.25)),
        (False, IRREGULAR[:15] + 10, None, Continuous(atoms=(), unit=None)),
        (False, np.exp(IRREGULAR[:60]), None, Positive(atoms=(), unit=None)),
        (False, np.r_[-5.0, IRREGULAR[:8]], [9] + [1] * 8, None),
    ],
)
def test_kinds_of_numbers(is_whole, values, counts, expected):
    counts = ones(len(values)) if counts is None else np.array(counts)
    found = _detect._detect_kind(is_whole, values, counts)
    if expected is None:
        expected = Interval(-5, math.inf, atoms=(-5.0,), unit=None)
    assert found == expected


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (cells_of([0.0, 1.0], "flag"), ColumnType("bool", "flag"), Boolean()),
        (cells_of(["x", "y"], "label"), ColumnType("object", "label"), Categorical()),
        (
            cells_of(["x", "y"], "label"), ColumnType("object", "label", is_ordered=True), Ordinal(),
        ),
        (
            cells_of(["2020-01-01"], "date"),
            ColumnType("datetime64[s]", "date", resolution="s"), Datetime(),
        ),
        (
            cells_of(np.array([5, 5], dtype="timedelta64[s]"), "duration"),
            ColumnType("timedelta64[s]", "duration", resolution="s"), Continuous(),
        ),
        (
            cells_of(np.array([5, 8, 13], dtype="timedelta64[s]"), "duration"),
            ColumnType("timedelta64[s]", "duration", resolution="s"), Continuous(atoms=()),
        ),
        (cells_of([1.0, 1.0, 2.5]), FLOAT, Continuous(atoms=(), unit=None)),
        (cells_of([4.0, 4.0]), WHOLE, Categorical([4])),
    ],
)  # fmt: skip
def test_kinds_of_types(cells, kind, expected):
    assert _detect.detect("a", kind, cells, ones(len(cells.values))) == expected


def test_missing_cells_are_no_rows():
    cells = Cells("number", np.array([1.0, 2.0, 77.0]), np.array([False, False, True]))
    found = _detect.detect("a", FLOAT, cells, np.array([5, 5, 1]))
    assert found == Ordinal([1.0, 2.0])
    completed = _detect.complete("a", Continuous(unit=None), FLOAT, cells, np.array([50, 5, 90]))
    assert completed == Continuous(atoms=(), unit=None)


# ------------------------------------------------------------------------------ completion


def complete(kind, values, stored=FLOAT, family="number", copies=None):
    cells = cells_of(values, family)
    return _detect.complete(
        "a", kind, stored, cells, ones(len(values)) if copies is None else copies
    )


def test_levels_are_completed_once():
    assert complete(Ordinal(), [2.0, 1.0]) == Ordinal([1.0, 2.0])
    declared = Ordinal([1, 2, 3])
    assert complete(declared, [2.0, 1.0]) is declared


def test_units_of_dates_are_completed_once():
    dates = np.array(["2020-01-01T06", "2020-01-02T00"], dtype="datetime64[s]")
    stored = ColumnType("datetime64[s]", "date", resolution="s")
    assert complete(Datetime(), dates, stored, "date") == Datetime("h")
    assert complete(Datetime("s"), dates, stored, "date") == Datetime("s")


@pytest.mark.parametrize(
    ("kind", "values", "atoms"),
    [
        # Values on open bounds are atoms; detected atoms outside the bounds are none.
        (Interval(0, 1), [0.0, 0.3, 0.7, 1.0], (0.0, 1.0)),
        (Interval(0, 2), [0.0, 0.3, 0.7, 1.0], (0.0,)),
        (Positive(), [0.0, 0.3, 0.7], (0.0,)),
        (Integer(0, 3), [0.0, 1.0, 3.0], ()),
        (Interval(0, 1), [-2.0] * 9 + [0.1, 0.23, 0.37, 0.59, 0.71], ()),
        (Interval(-2, 1), [-2.0] * 9 + [0.1, 0.23, 0.37, 0.59, 0.71], (-2.0,)),
        (Continuous(), [-2.0] * 9 + [0.1, 0.23, 0.37, 0.59, 0.71], (-2.0,)),
        (Continuous(atoms=()), [-2.0] * 9 + [0.1, 0.23, 0.37, 0.59, 0.71], ()),
    ],
)
def test_atoms_are_completed(kind, values, atoms):
    assert complete(kind, np.array(values)).atoms == atoms


def test_the_unit_of_a_declaration_decides_which_values_are_atoms():
    """Within a coarse lattice only ends are atoms."""
    values = np.r_[np.full(9, 3.0), np.arange(10.0)]
    assert complete(Continuous(unit=1.0), values).atoms == ()
    assert complete(Continuous(unit=None), values).atoms == ()
    assert complete(Continuous(unit=1e-3), values).atoms == (3.0,)


@pytest.mark.parametrize(
    ("kind", "values", "unit"),
    [
        (Continuous(atoms=()), np.arange(24) * 0.5, 0.5),
        (Continuous(atoms=()), IRREGULAR[:30], None),
        (Continuous(atoms=(), unit=None), np.arange(12) * 0.5, None),
        # Atoms are not among the values that have a unit.
        (Continuous(atoms=(0.3,)), np.r_[0.3, np.arange(1.0, 25.0)], 1.0),
        (Integer(atoms=()), np.arange(24.0) * 5, 5.0),
        (Integer(atoms=()), np.array([1.0, 2.0, 7.0]), 1.0),
        (Integer(atoms=()), np.arange(1, 41) * 0.5, 0.5),
        (Integer(atoms=()), np.array([0.5, 1.5, 2.75]), 1.0),
        (Integer(atoms=(), unit=0.25), np.arange(12.0), 0.25),
        (Periodic(24, atoms=()), np.arange(24.0), 1.0),
    ],
)
def test_units_are_completed(kind, values, unit):
    assert complete(kind, values).unit == (None if unit is None else pytest.approx(unit, rel=1e-12))


def test_units_of_durations_are_those_of_their_ticks():
    stored = ColumnType("timedelta64[s]", "duration", resolution="s")
    hours = np.array([3600, 7200, 36000], dtype="timedelta64[s]")
    for kind in (Continuous(atoms=()), Continuous(atoms=(), unit=None)):
        assert complete(kind, hours, stored, "duration").unit == 1 / 24
    assert complete(Continuous(atoms=(), unit=1.0), hours, stored, "duration").unit == 1.0


@pytest.mark.parametrize(
    ("kind", "values", "family", "message"),
    [
        (Continuous(), ["x"], "label", r"declared as Continuous\(\), but holds text or cat.* 'x'; ex"),
        (Boolean(), ["x"], "label", r"declared as Boolean\(\).*expected True and False, or 1 and 0"),
        (Categorical(), ["2020-01-01"], "date", "but holds dates.*expected text, numbers or bool"),
        (Datetime(), [1.5], "number", "but holds numbers, such as 1.5; expected dates"),
        (Datetime(), [1.0], "flag", "but holds booleans, such as 1.0; expected dates"),
        (Datetime(), np.array([], dtype=float), "number", "but holds numbers; expected dates"),
        (
            Datetime(), np.array([3], dtype="timedelta64[s]"), "duration",
            "but holds durations, such as 3 seconds; expected dates",
        ),
        (Positive(), [1.0], "flag", "but holds booleans, such as 1.0; expected numbers"),
    ],
)  # fmt: skip
def test_declarations_of_another_type(kind, values, family, message):
    cells = cells_of(values, family)
    with pytest.raises(ValueError, match="column 'a' is " if "declared" in message else message):
        _detect._check_family("a", kind, cells, cells.values)
    with pytest.raises(ValueError, match=message):
        _detect._check_family("a", kind, cells, cells.values)


def test_declarations_of_a_type_that_fits():
    for kind, family in (
        (Continuous(), "number"),
        (Continuous(), "duration"),
        (Boolean(), "flag"),
        (Boolean(), "number"),
        (Categorical(), "label"),
        (Ordinal(), "number"),
        (Ordinal(), "flag"),
        (Datetime(), "date"),
    ):
        _detect._check_family("a", kind, cells_of([1.0], family), np.array([1.0]))


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [
        ([86400, 0], "D"),
        ([3600, 86400], "h"),
        ([60], "min"),
        ([61], "s"),
        ([0], "D"),
        ([-7200], "h"),
    ],
)
def test_units_of_durations(seconds, unit):
    assert _detect._time_unit(np.array(seconds, dtype="timedelta64[s]")) == unit


def test_no_unit_is_below_the_resolution():
    assert _detect._time_unit(np.array([1], dtype="timedelta64[ms]")) == "ms"
    assert _detect._time_unit(np.array([1], dtype="timedelta64[us]")) == "us"
    assert _detect._time_unit(np.array([1], dtype="timedelta64[h]")) == "h"
