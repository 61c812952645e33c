"""Parts of tables against loops and integrals: kernels of levels, cells, maps, atoms, bounds, counts."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import digamma as psi

from skdiffsmooth.tables import (
    Continuous,
    Integer,
    Interval,
    Periodic,
    Positive,
    TableColumns,
    _amounts,
    _cells,
    _detect,
    _discrete,
    _distances,
    _mutual_information,
    _summaries,
)
from skdiffsmooth.tables._column import listed
from skdiffsmooth.tables._discrete import LevelDensity, LevelKernel
from skdiffsmooth.tables._relations import _within_cells, warn_of_relations

# ------------------------------------------------------------------------------ levels


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_kernels_of_levels_against_their_formula(is_ordered, lam):
    masses = np.array([0.5, 0.2, 0.3])
    table = LevelKernel(masses, is_ordered, lam).table
    expected = np.ones((4, 4))
    for a in range(3):
        expected[a, 3] = masses[a]
        for b in range(3):
            if is_ordered:
                total = sum(masses[c] * lam ** abs(c - b) for c in range(3))
                expected[a, b] = masses[a] * lam ** abs(a - b) / total
            else:
                expected[a, b] = (1 - lam) * (a == b) + lam * masses[a]
    np.testing.assert_allclose(table, expected, rtol=1e-14)
    np.testing.assert_allclose(table[:3].sum(axis=0), 1)


def test_frequencies_have_half_a_row_more():
    levels, weights = np.array([0, 2, -1, 2]), np.array([1.0, 2.0, 5.0, 1.0])
    # One copy of each row has weight 1, so that half a row is 1/2.
    np.testing.assert_allclose(
        _discrete.frequencies(levels, weights, 3), np.array([1.5, 0.5, 3.5]) / 5.5
    )
    fractions = np.array([0.5, 0.5, 0.5, 0.25])
    a_row = (fractions @ fractions) / fractions.sum()
    expected = np.array([0.5, 0, 0.75]) + a_row / 2
    np.testing.assert_allclose(
        _discrete.frequencies(levels, fractions, 3), expected / expected.sum()
    )


def test_one_copy_of_a_row():
    np.testing.assert_array_equal(_discrete.one_row(np.array([0.0, 1.0, 3.0])), [0, 1, 1])
    np.testing.assert_array_equal(_discrete.one_row(np.array([0.5, 3.0])), [0.5, 3])
    assert list(_discrete.some_rows(3, 3)) == [0, 1, 2]
    some = _discrete.some_rows(10, 3)
    assert len(set(some)) == 3
    assert list(some) == sorted(some)


def test_products_skip_a_coordinate():
    rng = np.random.default_rng(0)
    tables = [rng.uniform(size=(3, 3)), rng.uniform(size=(4, 4))]
    queries, levels = np.array([[0, 2], [-1, 1]]), np.array([[1, -1], [0, 0], [1, 2]])
    for skip in (-1, 0, 1):
        expected = np.ones((2, 3))
        for i, j, k in np.ndindex(2, 3, 2):
            if k != skip:
                expected[i, j] *= tables[k][queries[i, k], levels[j, k]]
        np.testing.assert_allclose(_discrete.products(tables, queries, levels, skip), expected)


@pytest.mark.parametrize(
    ("loss", "expected", "atol"),
    [
        (lambda lam: lam, 1e-4, 0),
        (lambda lam: -lam, 1.0, 0),
        (lambda lam: (lam - 0.27) ** 2, 0.27, 2e-3),
        (lambda lam: (lam - 0.004) ** 2, 0.004, 1e-3),
        # The search does not go beyond 0.98, and 1 is less likely.
        (lambda lam: (lam - 0.975) ** 2 + (lam == 1), 0.975, 2e-3),
        (lambda lam: -float(lam == 0.35), 0.35, 0),
    ],
)
def test_the_best_of_a_grid_is_refined(loss, expected, atol):
    assert _discrete._best(loss) == pytest.approx(expected, abs=atol + 1e-15)


@pytest.mark.parametrize("is_conditional", [True, False])
def test_losses_of_bandwidths_against_loops(is_conditional):
    rng = np.random.default_rng(0)
    kernel, own = LevelKernel(np.array([0.4, 0.6]), False), np.array([0, 1, 2])
    sums, rest = rng.uniform(size=(2, 3, 3))
    weights = np.array([0.2, 0.5, 0.3])
    loss = _discrete._Loss(kernel, own, weights, sums, rest if is_conditional else None)
    table = LevelKernel(kernel.masses, False, 0.3).table
    expected = 0.0
    for i in range(3):
        value = math.log(sum(sums[i, b] * table[own[i], b] for b in range(3)))
        if is_conditional:
            value -= math.log(sum(rest[i, b] * table[own[i], b] for b in range(3)))
        expected -= weights[i] * value
    assert loss(0.3) == pytest.approx(expected)


def density_of_levels():
    kernels = [
        LevelKernel(np.array([0.3, 0.7]), False, 0.2),
        LevelKernel(np.array([0.2, 0.3, 0.5]), True, 0.4),
    ]
    levels = np.array([[0, 0], [1, 2], [1, -1]])
    return LevelDensity(levels, np.array([0.5, 0.3, 0.2]), kernels)


def test_probabilities_of_levels_sum_to_one(monkeypatch):
    density = density_of_levels()
    tables = [kernel.table for kernel in density.kernels]
    queries = np.array([[a, b] for a in (0, 1, -1) for b in (0, 1, 2, -1)])
    expected = [
        sum(
            weight * tables[0][a, row[0]] * tables[1][b, row[1]]
            for row, weight in zip(density.levels, density.weights, strict=True)
        )
        for a, b in queries
    ]
    for most_pairs in (4_000_000, 3, 7):
        monkeypatch.setattr(_discrete, "_MOST_PAIRS", most_pairs)
        found = np.exp(density.log_density(queries))
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    known = (queries >= 0).all(axis=1)
    assert found[known].sum() == pytest.approx(1)
    assert found[-1] == pytest.approx(1)
    for row, has in (([0, 0], True), ([0, 2], False), ([1, -1], True), ([-1, -1], True)):
        assert density.has_row(np.array(row)) == has


def test_draws_of_levels_have_their_probabilities(monkeypatch):
    monkeypatch.setattr(_discrete, "_MOST_PAIRS", 3)
    density, n = density_of_levels(), 4000
    for given in ([-1, -1], [1, -1], [-1, 0]):
        drawn = density.draw(np.tile(given, (n, 1)), np.random.RandomState(0))
        for a in range(2):
            for b in range(3):
                is_possible = given[0] in (a, -1) and given[1] in (b, -1)
                joint, condition = np.exp(density.log_density(np.array([[a, b], given])))
                p = joint / condition if is_possible else 0.0
                frequency = (drawn == [a, b]).all(axis=1).mean()
                assert abs(frequency - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-12


# ------------------------------------------------------------------------------ cells


@pytest.mark.parametrize("n_columns", [1, 2, 8, 9, 14, 20])
def test_lattices_of_cells_are_symmetric_and_are_refined(n_columns):
    has_cells = np.zeros(n_columns + 1, dtype=bool)
    has_cells[1:] = True
    points = _cells.lattice(has_cells)
    assert len(points) == {1: 27, 2: 17, 8: 17}.get(n_columns, 31)
    assert np.all(points[:, 0] == 0)
    assert np.abs(points).max() <= 0.5
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
    for n_times in (3, 9):
        finer = _cells._refined(points)
        assert len(finer) == 3 * len(points)
        # It contains the points that it refines, and no point twice.
        np.testing.assert_allclose(finer[: len(points)], points, atol=1e-12)
        for column in range(1, n_columns + 1):
            steps = np.sort(finer[:, column])
            np.testing.assert_allclose(np.diff(steps), 1 / len(finer), atol=1e-9)
        points = finer
        assert n_times * (27 if n_columns == 1 else 17 if n_columns <= 8 else 31) == len(points)
    np.testing.assert_array_equal(_cells.lattice(np.zeros(2, dtype=bool)), [[0, 0]])
    np.testing.assert_allclose(
        _cells.lattice(np.array([True]), 4)[:, 0], [-0.375, -0.125, 0.125, 0.375]
    )
    assert len(_cells.lattice(np.array([True, True]), 4, 5)) == 5


@pytest.mark.parametrize("m", [1, 3, 5, 27, 17, 81, 51])
def test_means_over_cells_and_their_errors(m):
    rng = np.random.default_rng(0)
    terms, errors = rng.normal(size=(m, 2)) - 800, rng.uniform(0, 0.1, (m, 2))
    values = np.exp(terms + 800)
    mean = values.mean(axis=0)
    log_mean, error, of_cells = _cells.averaged(terms, errors)
    np.testing.assert_allclose(log_mean, np.log(mean) - 800)
    ratio = values / mean
    if m == 1:
        expected = np.zeros(2)
    elif m in (3, 27):
        expected = np.abs(np.mean([ratio[i] for i in range(1, m, 3)], axis=0) - 1) / 8
    elif m % 3 == 0:
        thirds = [ratio[k * m // 3 : (k + 1) * m // 3].mean(axis=0) for k in range(3)]
        expected = np.std(thirds, axis=0, ddof=1) / math.sqrt(3)
    else:
        pairs = [(ratio[i] + ratio[m - i]) / 2 for i in range(1, m // 2 + 1)]
        expected = np.std(pairs, axis=0, ddof=1) / math.sqrt(m // 2)
    np.testing.assert_allclose(of_cells, expected)
    np.testing.assert_allclose(error, np.hypot((ratio * errors).mean(axis=0), expected))


# ------------------------------------------------------------------------------ maps of distances


@pytest.mark.parametrize("knot", [0.5, 7.0])
def test_distances_are_mapped_to_the_line_and_back(knot):
    w = np.array([1e-12, 0.1, knot, 3.0, 1e3])
    z, log_slopes = _distances.to_line(w, knot)
    np.testing.assert_allclose(z, np.log(w) + w / knot)
    np.testing.assert_allclose(np.exp(log_slopes), 1 / w + 1 / knot)
    np.testing.assert_allclose(_distances.from_line(z, knot), w, rtol=1e-12)
    assert _distances.knot_of(np.array([1.0, 4.0])) == 2.0
    assert _distances.knot_of(np.array([])) == 1.0
    assert _distances.knot_of(np.zeros(2)) == 1.0


@pytest.mark.parametrize("shift", [-2.0, 0.0, 3.0])
def test_maps_of_amounts_and_their_inverses(shift):
    knots, shifts = np.array([2.0, np.nan]), np.array([shift, np.nan])
    w = np.array([1e-25, 0.01, 1.0, 30.0])
    y = np.column_stack([_distances.to_line(w, 2.0)[0], [-1.0, 0.0, 1.0, np.inf]])
    mapped, log_slopes = _amounts._mapped(y, shifts, knots)
    scaled = np.exp(shift) * w
    np.testing.assert_allclose(mapped[:, 0], scaled + np.log(-np.expm1(-scaled)), rtol=1e-9)
    np.testing.assert_array_equal(mapped[:, 1], y[:, 1])
    np.testing.assert_array_equal(log_slopes[:, 1], 0)
    np.testing.assert_allclose(_amounts._unmapped(mapped, shifts, knots), y, rtol=1e-9)
    step = 1e-6
    ends = [_amounts._mapped(y + sign * step, shifts, knots)[0][:, 0] for sign in (-1, 1)]
    slopes = (ends[1] - ends[0]) / (2 * step)
    np.testing.assert_allclose(np.exp(log_slopes[:, 0]), slopes, rtol=1e-6)


# ------------------------------------------------------------------------------ intervals


def test_probabilities_of_intervals_under_gaussians_and_logistics():
    low = np.array([-1.0, 0.5, 3.0, -9.0, 2.0, -30.0])
    high = np.array([-1.0, 0.7, 3.5, -8.0, 2.0, -29.0])
    centers, width = np.array([0.0, 0.6, -1.0]), 1.5
    found = _amounts._log_normal(low, high, centers, width)
    for i, j in np.ndindex(6, 3):
        normal = stats.norm(centers[j], width)
        if low[i] == high[i]:
            expected = normal.logpdf(low[i])
        else:
            below = normal.cdf(high[i]) - normal.cdf(low[i])
            above = normal.sf(low[i]) - normal.sf(high[i])
            expected = math.log(min(below, above) if below * above else max(below, above))
        assert found[i, j] == pytest.approx(expected, rel=1e-6)
    found = _amounts._log_logistic(low, high, width)
    logistic = stats.logistic(0, width)
    for i in range(6):
        if low[i] == high[i]:
            assert found[i] == pytest.approx(logistic.logpdf(low[i]))
        else:
            expected = quad(logistic.pdf, low[i], high[i], epsabs=0)[0]
            assert found[i] == pytest.approx(math.log(expected))
    # Far above zero, where differences of distribution functions are zero.
    reflected = _amounts._log_logistic(-high, -low, width)
    np.testing.assert_allclose(reflected, found)


@pytest.mark.parametrize("period", [0.0, 2.0])
def test_log_kernels_of_coordinates(period):
    a, b = np.array([0.1, 1.9]), np.array([0.0, 1.0, 1.8])
    found = _amounts._log_kernel(a, b, period, 0.5)
    for i, j in np.ndindex(2, 3):
        distance = abs(a[i] - b[j])
        distance = min(distance, period - distance) if period else distance
        assert found[i, j] == pytest.approx(-2 * distance**2)
    assert [_amounts._last_best(x) for x in ([1, 2, 2, 0], [3, 1], [0, 0, 0])] == [2, 0, 2]


# ------------------------------------------------------------------------------ detection


@pytest.mark.parametrize(
    ("counts", "values", "expected"),
    [
        ([1, 1, 1], [1, 2, 3], 2),
        ([5, 1, 1], [1, 2, 3], 1),
        ([1, 1], [1, 2], 1),
        ([1, 1, 3], [1, 2, 3], 3),
    ],
)
def test_weighted_medians(counts, values, expected):
    assert _detect._median(np.array(values, dtype=float), np.array(counts)) == expected


def test_bounds_need_twenty_values_beyond():
    values = np.array([0.1, 1.5])
    for first, second, expected in (
        (9, 4, True),
        (8, 4, False),
        (5, 1, True),
        (4, 1, False),
        (5, 0, True),
    ):
        assert _detect._has_bound(values, np.array([first, second]), 0.0, 1.0) == expected


@pytest.mark.parametrize(
    ("dates", "unit"),
    [
        (["2020-01-01", "2021-05-05"], "D"),
        (["2020-01-01T03", "2021-05-05"], "h"),
        (["2020-01-01T03:30"], "min"),
        (["2020-01-01T03:30:01"], "s"),
        (["2020-01-01T03:30:01.5"], "ms"),
        (["2020-01-01T03:30:01.000005"], "us"),
        (["2020-01-01T03:30:01.000000005"], "ns"),
    ],
)
def test_units_of_dates(dates, unit):
    assert _detect._time_unit(np.array(dates, dtype="datetime64[ns]")) == unit


def test_distinct_values_and_their_rows():
    values, counts = _detect._distinct(np.array([2.0, 0.0, -0.0, 2.0]), np.array([1, 2, 3, 4]))
    np.testing.assert_array_equal(values, [0, 2])
    np.testing.assert_array_equal(counts, [5, 5])
    assert _detect._last_decimal(np.arange(9) / 10) == 0.0
    assert _detect._last_decimal(np.arange(10) / 10) == 0.1
    assert _detect._last_decimal(np.arange(10) / 100 + 3) == 0.01
    assert _detect._last_decimal(np.arange(10.0)) == 1.0
    assert _detect._last_decimal(np.arange(10) / 7) == 0.0
    assert _detect._last_decimal(1e13 + np.arange(10) / 8) == 0.0


def test_values_of_a_lattice():
    lattice = _detect.Lattice(unit=0.1, step=0.1, offset=0.05, decimals=2, slack=1e-12)
    values = np.array([0.05, 0.149, 0.151, 0.25 + 1e-13, -0.3, 1e300])
    np.testing.assert_array_equal(
        lattice.rounded(values), [0.05, 0.15, 0.15, 0.25 + 1e-13, -0.25, 1e300]
    )
    assert _detect.Lattice().rounded(values) is values
    with pytest.raises(
        ValueError, match=r"'a' holds 0.5, which is no multiple of unit=1 away from 0"
    ):
        _detect.lattice_of("a", Continuous(unit=1.0), np.array([0.0, 1.0, 0.5, 2.0]))
    found = _detect.lattice_of("a", Continuous(unit=1.0), np.array([0.5, 1.5, 3.5]))
    assert (found.unit, found.offset, found.decimals) == (1.0, 0.5, 1)


# ------------------------------------------------------------------------------ columns


@pytest.mark.parametrize(
    ("kind", "extremes", "edges"),
    [
        (Integer(0, 5), (0, 5), (-0.5, 5.5)),
        (Integer(0, None), (0, math.inf), (-0.5, math.inf)),
        (Integer(0, 5, atoms=(0.0,)), (1, 5), (0.5, 5.5)),
        (Integer(0, 5, atoms=(5.0,)), (0, 4), (-0.5, 4.5)),
        (Interval(0, 5, unit=1.0), (1, 4), (0, 5)),
        (Interval(0.5, 4.7, unit=1.0), (1, 4), (0.5, 4.7)),
        (Positive(unit=1.0), (1, math.inf), (0, math.inf)),
        (Continuous(unit=1.0), (-math.inf, math.inf), (-math.inf, math.inf)),
        (Interval(0, 5, unit=None, atoms=()), (5e-324, np.nextafter(5, 0)), (0, 5)),
    ],
)
def test_extreme_values_of_columns(kind, extremes, edges):
    table = TableColumns.fit(pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 2.0]}), {"a": kind})
    (column,) = table.columns
    assert column.extremes == extremes
    assert column.edges == edges
    values = np.array([[1.0], [2.0], [4.0], [np.nan]])
    z, log_slopes = table.coordinates(values)
    np.testing.assert_allclose(table.values_at(z), values, rtol=1e-12)
    step = 1e-6
    ends = [table.coordinates(values + sign * step)[0] for sign in (-1, 1)]
    slopes = ((ends[1] - ends[0]) / (2 * step))[:3]
    np.testing.assert_allclose(np.exp(log_slopes[:3]), slopes, rtol=1e-6)
    assert log_slopes[3, 0] == 0
    low, high = table.cells(values[:3])
    if kind.unit is None:
        np.testing.assert_array_equal(low, high)
    else:
        first = edges[0] if extremes[0] == 1 else 0.5
        last = edges[1] if extremes[1] == 4 else 4.5
        np.testing.assert_array_equal(low[:, 0], [first, 1.5, 3.5])
        np.testing.assert_array_equal(high[:, 0], [1.5, 2.5, last])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Periodic(24), "period 24"),
        (Periodic(360, origin=-180), "period 360 from -180"),
        (Interval(0, 9), "from 0 to 9"),
        (Positive(), "from 0"),
    ],
)
def test_descriptions_of_ranges(kind, text):
    table = TableColumns.fit(pd.DataFrame({"a": [1.0, 2.5, 3.3]}), {"a": kind})
    assert table.columns[0].describe().split("; ")[0].split(maxsplit=1)[1] == text


def test_names_in_messages():
    assert listed(["a"]) == "'a'"
    assert listed(list("abcde")) == "'a', 'b', 'c', 'd', 'e'"
    assert listed(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"


# ------------------------------------------------------------------------------ relations


def test_relations_up_to_rounding():
    rng = np.random.default_rng(0)
    exact = rng.normal(0, 30, (50, 3))
    values = np.column_stack([exact, exact[:, 0] + exact[:, 1]]).round()
    n, columns = _within_cells(values, np.ones(4))
    assert n == 1
    np.testing.assert_array_equal(columns, [0, 1, 3])
    for units, n_rows in (([1, 1, 1, 0], 50), ([1, 1, 1, 15], 50), ([1, 1, 1, 1], 19)):
        assert _within_cells(values[:n_rows], np.array(units, dtype=float))[0] == 0
    assert _within_cells(values[:20], np.ones(4))[0] == 1
    assert _within_cells(values[:, :1], np.ones(1))[0] == 0


def test_exact_relations_name_their_columns(recwarn):
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 40))
    warn_of_relations("abcd", np.column_stack([a, np.full(40, 2.0), c, 1 - a - c]), np.zeros(4))
    (found,) = recwarn.list
    assert "the columns ['a', 'c', 'd'] satisfy 1 exact relations" in str(found.message)
    recwarn.clear()
    warn_of_relations("abc", np.column_stack([a, b, c]), np.zeros(3))
    warn_of_relations("ab", np.ones((5, 2)), np.zeros(2))
    assert not recwarn.list


# ------------------------------------------------------------------------------ summaries


@pytest.mark.parametrize(
    ("error", "n"), [(0.005, 10_000), (0.5, 100), (0.0499, 101), (0.003, 27_778)]
)
def test_numbers_of_draws(error, n):
    assert _summaries._number_of_draws(error) == n
    assert _summaries._checked_number(10_000_000, "error") == 10_000_000
    with pytest.raises(ValueError, match=r"error needs 1e\+07 draws"):
        _summaries._checked_number(10_000_001, "error")


def test_fractions_have_errors_above_zero():
    value, error = _summaries._fraction(np.array([0, 50, 100]), 100)
    np.testing.assert_array_equal(value, [0, 0.5, 1])
    p = np.array([1, 51, 101]) / 102
    np.testing.assert_allclose(error, np.sqrt(p * (1 - p) / 100))


@pytest.mark.parametrize("kind", ["continuous", "levels", "mixed", "ties"])
def test_terms_of_the_mutual_information_against_loops(kind):
    rng = np.random.default_rng(0)
    n = 40
    a, b = rng.normal(size=(2, n))
    if kind in ("levels", "mixed"):
        a = 100.0 * rng.integers(0, 2, n)
    if kind == "levels":
        b = 100.0 * rng.integers(0, 2, n)
    if kind == "ties":
        a, b = rng.integers(0, 5, (2, n)).astype(float)
    expected = []
    for i in range(n):
        distances = np.maximum(np.abs(a - a[i]), np.abs(b - b[i]))
        ordered = np.sort(distances)
        radius = ordered[5]
        is_tied = ordered[6] == radius
        if is_tied:
            k = (distances <= radius).sum()
            counts = [(np.abs(x - x[i]) <= radius).sum() for x in (a, b)]
        else:
            k, counts = 5, [(np.abs(x - x[i]) < radius).sum() for x in (a, b)]
        expected.append(psi(k) + psi(n) - psi(counts[0]) - psi(counts[1]))
    np.testing.assert_allclose(_mutual_information._mixed_terms(a, b), expected)
    parts = _mutual_information._means_of_parts(a, b, 4)
    for k in range(4):
        assert parts[k] == pytest.approx(_mutual_information._mixed_terms(a[k::4], b[k::4]).mean())
