"""The density of whole rows and its parts, called directly, against loops."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from skdiffsmooth import KDESampler
from skdiffsmooth.tables import (
    Categorical,
    Continuous,
    EncodedTable,
    Integer,
    Positive,
    TableColumns,
    TableDensity,
    _continuous,
    _density,
)
from skdiffsmooth.tables._cells import lattice
from skdiffsmooth.tables._density import MixedDensity, _AtPoints, _Group
from skdiffsmooth.tables._discrete import LevelDensity, LevelKernel

KINDS = {
    "kind": Categorical(["u", "v", "w"]),
    "count": Integer(0, atoms=(), unit=1.0),
    "number": Continuous(atoms=(), unit=None),
    "amount": Positive(atoms=(0,), unit=None),
}


def frame(n=36):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n)
    number = kind + rng.normal(size=n)
    amount = np.where(rng.uniform(size=n) < 0.3, 0.0, rng.lognormal(0.5 * number, 0.5))
    count = rng.poisson(2 + kind)
    return pd.DataFrame(
        {"kind": np.array(list("uvw"))[kind], "count": count, "number": number, "amount": amount}
    )


@pytest.fixture(scope="module")
def model():
    return TableDensity(KINDS, density=KDESampler(bandwidth=0.6)).fit(frame())


@pytest.fixture
def all_weights(monkeypatch):
    """Rows of small weight are not omitted."""
    monkeypatch.setattr(_continuous, "_NEGLIGIBLE", 0.0)


def of_levels(density, levels):
    """Return the probability of levels (q,), by loops."""
    total = 0.0
    for row, weight in zip(density.levels, density.weights, strict=True):
        tables = zip(density.kernels, levels, row, strict=True)
        total += weight * math.prod(kernel.table[query, own] for kernel, query, own in tables)
    return total


def of_numbers(density, part, levels, values):
    """Return the mean density of a count and a number over the points of the cell of the count."""
    weights = part.weights.copy()
    for kernel, query, own in zip(part.kernels, levels, part.levels.T, strict=True):
        weights *= kernel.table[query, own]
    weights /= weights.sum()
    h, total = float(part.fitted.bandwidth_), 0.0
    low, high = density.table.cells(values[None])
    for offset in part.offsets:
        moved = (low + high)[0] / 2 + 0.0
        moved[part.columns] += offset * (high - low)[0, part.columns]
        z, log_slopes = density.table.coordinates(moved[None])
        kernels = norm.pdf(z[0, part.columns], part.rows, h).prod(axis=1)
        total += weights @ kernels * math.exp(log_slopes[0, part.columns].sum())
    return total / len(part.offsets)


def by_loops(density, rows):
    expected = []
    (part,) = density.parts
    (amounts,) = density.amounts
    for levels, values in zip(rows.levels, rows.values, strict=True):
        value = math.log(of_levels(density.level_density, levels))
        value += math.log(of_numbers(density, part, levels, values))
        if not np.isnan(values[2]):
            z, log_slopes = density.table.coordinates(values[None])
            y = z[:, [2]]
            value += amounts.log_density(levels[None], z[:, amounts.base], y, y)[0]
            value += log_slopes[0, 2]
        expected.append(value)
    return np.array(expected)


def test_densities_of_whole_rows_against_loops(model, all_weights):
    rows = model.columns_.encode(frame()[:9])
    found, error = model.density_.log_density(rows)
    np.testing.assert_allclose(found, by_loops(model.density_, rows), rtol=1e-9)
    assert error.shape == (9,)


def test_missing_levels_are_summed_over(model, all_weights):
    X = frame()[:4]
    expected = []
    for level in "uvw":
        rows = model.columns_.encode(X.assign(kind=level))
        expected.append(by_loops(model.density_, rows))
    found, error = model.density_.log_density(model.columns_.encode(X.assign(kind=None)))
    np.testing.assert_allclose(found, logsumexp(expected, axis=0), rtol=1e-9)
    assert (error < 0.01).all()


def test_levels_alone_have_their_probability(model):
    rows = model.columns_.encode_given({"kind": ["u", "v", "w"]}, 3)
    found, error = model.density_.log_density(rows)
    expected = [of_levels(model.density_.level_density, [k, -1]) for k in range(3)]
    np.testing.assert_allclose(np.exp(found), expected)
    assert np.exp(found).sum() == pytest.approx(1)
    assert error.tolist() == [0, 0, 0]


def test_a_number_alone_has_the_marginal_density(model, all_weights):
    density, (part,) = model.density_, model.density_.parts
    rows = model.columns_.encode_given({"number": [0.5, 2.0], "kind": "u"}, 2)
    found, _ = density.log_density(rows)
    weights = part.weights * part.kernels[0].table[0, part.levels[:, 0]]
    # It does not depend on whether the amount is at its atom, or the level is summed over.
    assert part.kernels[1].lam == 1 or len(part.relevant) == 2
    expected = []
    for number in (0.5, 2.0):
        total = 0.0
        for atom in (0, 1):
            own = weights * part.kernels[1].table[atom, part.levels[:, 1]]
            own /= own.sum()
            p = of_levels(density.level_density, [0, atom])
            h = float(part.fitted.bandwidth_)
            total += p * (own @ norm.pdf(number, part.rows[:, 1], h))
        expected.append(math.log(total))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_values_at_an_atom_by_their_level_have_no_density(model):
    levels = np.array([[0, 1], [0, 0]])
    values = np.array([[1.0, 0.3, 2.0], [1.0, 0.3, 2.0]])
    found, error = model.density_.log_density_given(levels, values)
    assert found[0] == -math.inf
    assert math.isfinite(found[1])
    assert error[0] == 0


def test_coordinates_that_are_present(model):
    density = model.density_
    assert density.common.tolist() == [0, 1]
    assert density.conditional.tolist() == [2]
    found = density.present(np.array([[0, 0], [1, 1], [-1, -1]]))
    np.testing.assert_array_equal(found[:, :2], True)
    assert found[:, 2].tolist() == [True, False, True]
    assert density.part((0, 1)) is density.parts[0]
    assert density.part((1, 0)) is None
    assert density.all_parts == [*density.parts, *density.amounts]
    # The level of atoms decides which values there are.
    assert density._that_matter().tolist() == [0, 1] or density._that_matter().tolist() == [1]


def test_coordinates_where_every_column_has_atoms():
    X = pd.DataFrame({"a": [0.0, 0.0, 1.3, 2.2], "b": [5.0, 3.1, 5.0, 1.7]})
    kinds = {"a": Continuous(atoms=(0,), unit=None), "b": Continuous(atoms=(5,), unit=None)}
    density = MixedDensity(TableColumns.fit(X, kinds), None, [], [])
    assert density.conditional.tolist() == []
    assert density.conditional.dtype == np.intp
    assert density.common.tolist() == [0, 1]


def test_values_are_rounded_as_recorded(model):
    found = model.density_._recorded(np.array([[1.4, 0.123, 5.5], [-3.0, 0.1, np.nan]]))
    np.testing.assert_array_equal(found, [[1.0, 0.123, 5.5], [0.0, 0.1, np.nan]])


def test_amounts_at_no_atom_together():
    first, second, both = (SimpleNamespace(columns=np.array(c)) for c in ([1], [3], [1, 3]))
    density = SimpleNamespace(conditional=np.array([1, 3]), amounts=[first, both, second])
    pattern = np.array([True, True, True, True])
    assert MixedDensity._amounts_of(density, pattern) == [both]
    density.amounts = [first, second]
    assert MixedDensity._amounts_of(density, pattern) == [first, second]
    assert MixedDensity._amounts_of(density, np.array([True, True, True, False])) == [first]
    assert MixedDensity._amounts_of(density, np.array([True, False, True, False])) == []


def test_parts_of_a_group():
    first, second, both = (SimpleNamespace(columns=np.array(c)) for c in ([0], [2], [0, 2]))
    own = {(0,): first, (2,): second, (0, 2): both}
    density = SimpleNamespace(common=np.array([0, 2]), part=own.get)
    observed = np.array([True, False, False])
    group = _Group(np.arange(2), np.array([True, True, True]), observed)
    ((part, of_part),) = MixedDensity._parts_of(density, group)
    assert part is both
    assert of_part.tolist() == [True, False]
    del own[0, 2]
    found = MixedDensity._parts_of(density, group)
    assert [part for part, _ in found] == [first, second]
    assert [of_part.tolist() for _, of_part in found] == [[True], [False]]
    del own[0,]
    assert [part for part, _ in MixedDensity._parts_of(density, group)] == [second]
    other = group._replace(pattern=np.array([False, True, True]))
    assert [part for part, _ in MixedDensity._parts_of(density, other)] == [second]


# ------------------------------------------------------------------------------ missing levels


def density_of_levels(n_levels):
    """Return a density of levels only, and its probabilities by combination."""
    rng = np.random.default_rng(0)
    levels = np.column_stack([rng.integers(0, n, 6) for n in n_levels])
    kernels = [LevelKernel(np.full(n, 1 / n), False, 0.3) for n in n_levels]
    own = LevelDensity(levels, np.full(6, 1 / 6), kernels)
    table = SimpleNamespace(
        discrete=[SimpleNamespace(n_levels=n, continuous=None) for n in n_levels], continuous=[]
    )
    return MixedDensity(table, own, [], [])


@pytest.mark.parametrize("most", [64, 7, 2, 1])
def test_the_likeliest_combinations_of_missing_levels_are_kept(monkeypatch, most):
    monkeypatch.setattr(_density, "_MOST_COMBINATIONS", most)
    density = density_of_levels([2, 3, 4])
    found, left = density._combinations_of(np.array([-1, 2, -1]), np.array([0, 1, 2]))
    every = np.array([[a, 2, b] for a in range(2) for b in range(4)])
    masses = np.exp(density.level_density.log_density(every))
    if most >= 8:
        assert sorted(map(tuple, found)) == sorted(map(tuple, every))
        assert left == 0
        return
    assert len(found) == most
    kept = np.exp(density.level_density.log_density(found))
    if most == 7:
        np.testing.assert_allclose(np.sort(kept), np.sort(masses)[-most:])
        assert left == pytest.approx(math.log(masses.sum() / kept.sum()))
    assert left > 0


def test_only_levels_that_matter_are_filled():
    density = density_of_levels([2, 3])
    found, left = density._combinations_of(np.array([-1, -1]), np.array([1]))
    assert found.tolist() == [[-1, 0], [-1, 1], [-1, 2]]
    assert left == 0


def test_combinations_of_several_rows(monkeypatch):
    density = density_of_levels([2, 3])
    monkeypatch.setattr(MixedDensity, "_that_matter", lambda self: np.array([0]))
    rows = EncodedTable(np.array([[0, -1], [-1, 2], [1, 1], [-1, -1]]), np.empty((4, 0)))
    source, levels, left = density._combinations(rows)
    pairs = sorted((int(s), tuple(own)) for s, own in zip(source, levels.tolist(), strict=True))
    assert pairs == [
        (0, (0, -1)), (1, (0, 2)), (1, (1, 2)), (2, (1, 1)), (3, (0, -1)), (3, (1, -1)),
    ]  # fmt: skip
    assert left.tolist() == [0, 0, 0, 0]
    monkeypatch.setattr(_density, "_MOST_COMBINATIONS", 1)
    source, levels, left = density._combinations(rows)
    assert len(source) == 4
    assert (left > 0).tolist() == [False, True, False, True]


class Recorded(MixedDensity):
    """A density whose log-densities of values, and their errors, are known and recorded."""

    def log_density_given(self, levels, values, tolerance=None):
        self.calls.append((levels.tolist(), values.tolist(), tolerance))
        error = np.full(len(levels), 0.001) if tolerance != 0.3 else 0.2 + 0.1 * levels[:, 0]
        return -1.0 * levels[:, 0] + (10 if tolerance != 0.3 else 0), error * 1.0


def recorded(n_levels):
    plain = density_of_levels(n_levels)
    table = SimpleNamespace(discrete=plain.table.discrete, continuous=[None, None])
    found = Recorded(table, plain.level_density, [], [])
    object.__setattr__(found, "calls", [])
    return found


def test_rows_without_missing_numbers_are_computed_once():
    density = recorded([3])
    levels, values = np.array([[0], [1], [2]]), np.array([[0.5, 1.0], [0.7, 2.0]])
    found, errors = density._log_masses(np.array([0, 0, 1]), levels, values, 0.03, 0.05)
    # No sum has an error of its terms: the second row has one term, the first all its numbers.
    calls = [call for call in density.calls if call[0]]
    assert calls == [([[0], [1], [2]], [[0.5, 1.0], [0.5, 1.0], [0.7, 2.0]], 0.05)]
    expected = density.level_density.log_density(levels) + 10 - np.arange(3)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(errors, 0.001)


@pytest.mark.parametrize("of_sum", [0.0, 0.05, 0.1, 0.2, 0.28, 1.0])
def test_the_terms_of_largest_error_are_computed_again(of_sum):
    density = recorded([4])
    levels, values = np.arange(4)[:, None], np.array([[0.5, np.nan]])
    source = np.zeros(4, dtype=int)
    found, errors = density._log_masses(source, levels, values, of_sum, 0.05)
    log_masses = density.level_density.log_density(levels)
    terms = np.exp(log_masses - np.arange(4))
    weighted = terms / terms.sum() * (0.2 + 0.1 * np.arange(4))
    # From the smallest on, terms stay rough while their errors sum to at most `of_sum`.
    order = np.argsort(weighted)
    stay = order[np.cumsum(weighted[order]) <= of_sum]
    again = np.setdiff1d(np.arange(4), stay)
    assert density.calls[0][2] == 0.3
    assert sorted(density.calls[-1][0]) == [[k] for k in again]
    expected = log_masses - np.arange(4)
    expected[again] += 10
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(errors[again], 0.001)
    np.testing.assert_allclose(errors[stay], 0.2 + 0.1 * stay)


def test_sums_of_each_row_have_their_own_errors():
    density = recorded([2])
    levels, values = np.array([[0], [1], [0], [1], [1]]), np.full((3, 2), [0.5, np.nan])
    source = np.array([0, 0, 1, 1, 2])
    density._log_masses(source, levels, values, 0.0, 0.05)
    # One term is computed at once as accurately as requested.
    assert density.calls[0][0] == [[0], [1], [0], [1]]
    assert density.calls[1][0] == [[1]]
    assert density.calls[1][2] == 0.05
    assert sorted(density.calls[2][0]) == [[0], [0], [1], [1]]


# ------------------------------------------------------------------------------ cells


class Cells(MixedDensity):
    """A density whose values at points of cells are known."""

    def _at_points(self, part, levels, values, tolerance, n_refined=0):
        self.calls.append((values[:, 0].tolist(), n_refined))
        # The mean over every third point differs from one by `spread`.
        m = 27
        spread = 8 * values[:, 0] / (1, 1, 3)[n_refined]
        ratio = np.ones((m, len(values)))
        ratio[1::3] += spread
        ratio[0::3] -= spread / 2
        ratio[2::3] -= spread / 2
        with np.errstate(invalid="ignore"):
            log_density = np.log(ratio)
        known = ~np.isnan(values[:, part.columns])
        return [
            _AtPoints(np.arange(len(values)), known[0], None, log_density, np.zeros_like(ratio))
        ]


@pytest.mark.parametrize(
    ("tolerance", "is_integrated", "refined"),
    [
        (None, False, [[0.05, 0.11, 0.22], [0.11, 0.22], [0.22]]),
        (0.115, False, [[0.05, 0.11, 0.22], [0.22], [0.22]]),
        (0.23, False, [[0.05, 0.11, 0.22]]),
        (None, True, [[0.05, 0.11, 0.22], [0.11, 0.22], [0.22]]),
    ],
)
def test_cells_with_large_errors_have_more_points(tolerance, is_integrated, refined):
    table = TableColumns.fit(
        pd.DataFrame({"a": [0.05, 0.5, 0.7, 0.2]}), {"a": Continuous(atoms=(), unit=None)}
    )
    density = Cells(table, None, [], [])
    object.__setattr__(density, "calls", [])
    part = SimpleNamespace(columns=np.array([0]), is_integrated=is_integrated)
    values = np.array([[0.05], [0.11], [0.22]])
    result, error = density._of_part(part, np.empty((3, 0)), values, tolerance)
    assert [call[0] for call in density.calls] == refined
    assert [call[1] for call in density.calls] == list(range(len(refined)))
    np.testing.assert_allclose(result, 0, atol=1e-12)
    np.testing.assert_allclose(error, [0.05, 0.11, 0.22 / 3 if len(refined) == 3 else 0.22])


@pytest.mark.parametrize(("tolerance", "n"), [(None, 17), (0.1, 5)])
def test_rough_integrals_have_fewer_points(tolerance, n):
    X = pd.DataFrame({"a": np.arange(6.0), "b": np.arange(6.0)})
    kind = Continuous(atoms=(), unit=1.0)
    table = TableColumns.fit(X, {"a": kind, "b": kind})
    density, requested = MixedDensity(table, None, [], []), []

    def log_densities(levels, requests, tolerance):
        requested.append((len(requests[0][1]), tolerance))
        return [(np.arange(len(queries)) * 1.0, np.ones(len(queries))) for _, queries in requests]

    part = SimpleNamespace(
        columns=np.array([0, 1]), relevant=np.array([], dtype=int), is_integrated=True,
        offsets=lattice(np.array([True, True])), log_densities=log_densities,
    )  # fmt: skip
    levels, values = np.empty((2, 0), dtype=int), np.array([[1.0, 2.0], [3.0, 4.0]])
    (found,) = density._at_points(part, levels, values, tolerance)
    assert requested == [(2 * n, tolerance)]
    assert found.observed.tolist() == [True, True]
    # Without maps there are no slopes: what was returned for each point and row.
    np.testing.assert_array_equal(found.log_density, np.arange(2.0 * n).reshape(n, 2))
    np.testing.assert_array_equal(found.error, np.ones((n, 2)))


# ------------------------------------------------------------------------------ draws


def test_levels_are_drawn_by_their_masses(model):
    X = frame()[:2].assign(kind=None)
    rows = model.columns_.encode(pd.concat([X] * 1500, ignore_index=True))
    drawn = model.density_.draw_levels(rows, np.random.RandomState(0))
    masses = []
    for level in "uvw":
        of_level = model.columns_.encode(X.assign(kind=level))
        masses.append(np.exp(model.density_.log_density(of_level)[0]))
    p = np.array(masses) / np.sum(masses, axis=0)
    for row in range(2):
        for level in range(3):
            share = (drawn[row::2, 0] == level).mean()
            q = p[level, row]
            assert abs(share - q) < 5 * math.sqrt(q * (1 - q) / 1500) + 0.005
    np.testing.assert_array_equal(drawn[:, 1], rows.levels[:, 1])


def test_drawn_rows_keep_what_is_given(model):
    X = frame()[:6].copy()
    X.loc[0, "number"] = X.loc[1, "count"] = X.loc[2, "amount"] = X.loc[3, "kind"] = None
    X.loc[4, ["count", "number"]] = None
    X.loc[5, list(KINDS)] = None
    rows = model.columns_.encode(X)
    drawn = model.density_.draw_missing(rows, np.random.RandomState(0))
    known = ~np.isnan(rows.values)
    np.testing.assert_array_equal(drawn.values[known], rows.values[known])
    np.testing.assert_array_equal(drawn.levels[rows.levels >= 0], rows.levels[rows.levels >= 0])
    assert (drawn.levels >= 0).all()
    is_at_atom = drawn.levels[:, 1] > 0
    np.testing.assert_array_equal(np.isnan(drawn.values[:, 2]), is_at_atom)
    assert not np.isnan(drawn.values[:, :2]).any()
    np.testing.assert_array_equal(drawn.values[:, 0], np.rint(drawn.values[:, 0]))
    assert (drawn.values[:, 2][~is_at_atom] > 0).all()


def test_amounts_are_drawn_given_the_others(model):
    row = frame()[frame()["amount"] > 0].iloc[:1]
    n = 2500
    X = pd.concat([row.assign(amount=np.nan)] * n, ignore_index=True)
    rows = model.columns_.encode(X)
    rows.levels[:, 1] = 0
    drawn = model.density_.draw_missing(rows, np.random.RandomState(0)).values[:, 2]
    w = np.exp(np.linspace(-9, 8, 3000))
    grid = row.loc[[row.index[0]] * 3000].assign(amount=w)
    mass = np.exp(model.density_.log_density(model.columns_.encode(grid))[0]) * w * 17 / 2999
    mass /= mass.sum()
    for q in (0.2, 0.5, 0.8):
        end = w[np.searchsorted(np.cumsum(mass), q)]
        assert abs((drawn < end).mean() - q) < 5 * math.sqrt(q * (1 - q) / n) + 0.01


def test_a_count_is_drawn_given_the_other_numbers(model):
    """It is weighted by the density of the amount, which depends on it."""
    row = frame()[frame()["amount"] > 0].iloc[:1]
    n = 400
    X = pd.concat([row.assign(count=np.nan)] * n, ignore_index=True)
    drawn = model.density_.draw_missing(model.columns_.encode(X), np.random.RandomState(0))
    counts = np.arange(12)
    grid = row.loc[[row.index[0]] * 12].assign(count=counts)
    p = np.exp(model.density_.log_density(model.columns_.encode(grid))[0])
    p /= p.sum()
    for count in counts:
        share = (drawn.values[:, 0] == count).mean()
        # One of 64 draws is chosen.
        assert abs(share - p[count]) < 5 * math.sqrt(p[count] * (1 - p[count]) / n) + 0.02


def test_missing_numbers_are_the_same_for_rows_alone_and_together(model):
    density = model.density_
    rows = model.columns_.encode(frame()[:3].assign(number=np.nan))
    together = density._with_common(rows.levels, rows.values, 4)
    assert together.shape == (4, 3, 3)
    for k in range(3):
        alone = density._with_common(rows.levels[[k]], rows.values[[k]], 4)
        np.testing.assert_allclose(alone[:, 0], together[:, k])
    np.testing.assert_array_equal(together[:, :, 0], np.tile(rows.values[:, 0], (4, 1)))
    np.testing.assert_array_equal(together[:, :, 2], np.tile(rows.values[:, 2], (4, 1)))
    assert len(set(together[:, 0, 1])) == 4
    equal = density._with_common(rows.levels[[0, 0]], rows.values[[0, 0]], 4)
    np.testing.assert_allclose(equal[:, 0], equal[:, 1])
    own = density._with_common(
        rows.levels[[0, 0]], rows.values[[0, 0]], 4, np.random.RandomState(0)
    )
    assert len(set(own[:, :, 1].ravel())) == 8


def test_the_density_of_an_amount_beside_a_missing_number_is_a_mean(model):
    density = model.density_
    X = frame()[frame()["amount"] > 0][:3].assign(number=np.nan)
    rows = model.columns_.encode(X)
    present = density.present(rows.levels)
    (group,) = _density._groups(present, present & ~np.isnan(rows.values))
    found, error = density._of_amounts(group, rows.levels, rows.values)
    filled = density._with_common(rows.levels, rows.values, 64)
    terms = np.array([density._log_amounts(density.amounts, rows.levels, own) for own in filled])
    np.testing.assert_allclose(found, logsumexp(terms, axis=0) - math.log(64))
    ratio = np.exp(terms - found)
    np.testing.assert_allclose(error, ratio.std(axis=0, ddof=1) / 8)
    np.testing.assert_allclose(
        density._log_amounts_at_draws(density.amounts, rows.levels, filled), terms
    )
    nothing = group._replace(observed=np.zeros(3, dtype=bool))
    for own in density._of_amounts(nothing, rows.levels, rows.values):
        assert own.tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------ support


def test_levels_that_no_row_has_are_named(model, recwarn):
    rows = EncodedTable(np.array([[0, -1], [-1, 1], [-1, -1], [0, 0]]), np.full((4, 3), np.nan))
    model.density_.warn_of_support(rows)
    assert not recwarn.list
    density = replace(
        model.density_,
        level_density=replace(
            model.density_.level_density, levels=np.array([[0, 0], [1, 1]]), weights=np.ones(2) / 2
        ),
    )
    rows = EncodedTable(
        np.array([[0, -1], [0, 1], [2, -1], [0, 1], [1, 1]]), np.full((5, 3), np.nan)
    )
    density.warn_of_support(rows)
    (found,) = recwarn.list
    assert str(found.message).startswith(
        "no training row has the given levels of ['kind', 'amount'] together, such as {'kind': 'u', "
        "'amount': 0.0} (3 of 5 conditions): draws"
    )


# ------------------------------------------------------------------------------ groups and sums


def test_rows_with_equal_labels():
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 1], [0, 0]])
    found = {index: rows.tolist() for index, rows in _density._same_rows(labels)}
    assert found == {1: [1, 4], 3: [3], 0: [0, 2]}
    assert list(_density._same_rows(labels[:0])) == []
    ((index, rows),) = _density._same_rows(np.empty((3, 0)))
    assert (index, rows.tolist()) == (0, [0, 1, 2])


def test_groups_have_the_same_coordinates():
    present = np.array([[1, 1], [1, 0], [1, 1], [1, 1]], dtype=bool)
    observed = np.array([[1, 0], [1, 0], [0, 0], [1, 0]], dtype=bool)
    found = {
        tuple(group.rows.tolist()): (group.pattern.tolist(), group.observed.tolist())
        for group in _density._groups(present, observed)
    }
    assert found == {
        (0, 3): ([True, True], [True, False]),
        (1,): ([True, False], [True, False]),
        (2,): ([True, True], [False, False]),
    }


def test_distinct_rows_with_missing_values():
    levels = np.array([[0], [0], [1], [0], [0]])
    values = np.array([[1.0, np.nan], [1.0, np.nan], [1.0, np.nan], [1.0, 0.0], [np.nan, 0.0]])
    first, which = _density._distinct(levels, values)
    assert len(first) == 4
    assert which[0] == which[1]
    assert len(set(which)) == 4
    for row, index in enumerate(which):
        assert levels[first[index]] == levels[row]
        np.testing.assert_array_equal(values[first[index]], values[row])


def test_sums_of_terms_by_row():
    terms = np.array([-1000.0, -1001.0, 3.0, -np.inf, -np.inf])
    source = np.array([0, 0, 2, 2, 3])
    sums, shares = _density._log_sums(terms, source, 4)
    expected = [-1000 + math.log(1 + math.exp(-1)), -math.inf, 3.0, -math.inf]
    np.testing.assert_allclose(sums, expected)
    first = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(shares, [first, 1 - first, 1, 0, 0])
