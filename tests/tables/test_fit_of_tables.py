"""The fit of the density of a table, its estimator and cells, called directly."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.polynomial.legendre import leggauss

from skdiffsmooth import KDESampler
from skdiffsmooth.tables import (
    Categorical,
    Continuous,
    EncodedTable,
    Integer,
    Interval,
    Periodic,
    Positive,
    TableColumns,
    TableDensity,
    _cells,
    _estimator,
    _fitting,
    _relations,
)
from skdiffsmooth.tables._cells import (
    in_cells,
    lattice,
    lattice_of,
    log_widths,
    mapped,
    mapped_ends,
)

FAST = KDESampler(bandwidth=0.5)


def frame(n=24):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "kind": np.resize(["x", "y"], n),
            "a": np.where(np.arange(n) % 4 == 0, 0.0, rng.normal(5, 1, n)),
            "b": np.where(np.arange(n) % 3 == 0, 9.0, rng.normal(size=n)),
            "c": rng.normal(size=n),
            "d": rng.poisson(4, n) + 0.0,
        }
    )


KINDS = {
    "kind": Categorical(["x", "y"]),
    "a": Continuous(atoms=(0,), unit=None),
    "b": Continuous(atoms=(9,), unit=None),
    "c": Continuous(atoms=(), unit=None),
    "d": Integer(0, atoms=(), unit=1.0),
}


def fit(X, kinds=KINDS, **options):
    kinds = {name: kind for name, kind in kinds.items() if name in X}
    return TableDensity(kinds, density=FAST).fit(X, **options)


# ------------------------------------------------------------------------------ cells


@pytest.fixture(scope="module")
def table():
    X = pd.DataFrame(
        {"n": [1.0, 3.0, 4.0, 9.0], "s": [0.25, 0.5, 0.75, 0.5], "z": [0.1, 2.3, 1.1, 5.5]}
    )
    kinds = {
        "n": Integer(0, atoms=(), unit=1.0),
        "s": Interval(0, 1, atoms=(), unit=0.25),
        "z": Continuous(atoms=(), unit=None),
    }
    return TableColumns.fit(X, kinds)


VALUES = np.array([[1.0, 0.5, 0.3], [0.0, 0.75, 2.0]])


def test_mapped_values_of_some_columns(table):
    z, log_slopes = table.coordinates(VALUES)
    for columns in ([0], [1, 2], [2, 0]):
        own, slopes = mapped(table, VALUES, np.array(columns))
        np.testing.assert_array_equal(own, z[:, columns])
        np.testing.assert_allclose(slopes, sum(log_slopes[:, k] for k in columns))


def test_points_in_cells_against_loops(table):
    columns, offsets = np.array([0, 1]), np.array([[0.5, -0.25], [0.0, 0.0], [-0.1, 0.4]])
    z, log_slopes = in_cells(table, VALUES, columns, offsets)
    assert z.shape == (3, 2, 2)
    assert log_slopes.shape == (3, 2)
    for m, i in np.ndindex(3, 2):
        moved = VALUES[[i]].copy()
        moved[0, 0] += offsets[m, 0]
        moved[0, 1] += 0.25 * offsets[m, 1]
        if i == 1:
            # The cell of 3/4 ends at 1.
            moved[0, 1] = (0.625 + 1) / 2 + 0.375 * offsets[m, 1]
        own, slopes = table.coordinates(moved)
        np.testing.assert_allclose(z[m, i], own[0, columns])
        assert log_slopes[m, i] == pytest.approx(slopes[0, columns].sum())


def test_widths_and_ends_of_cells(table):
    found = log_widths(table, VALUES, np.array([0, 1, 2]))
    np.testing.assert_allclose(found, np.log([0.25, 0.375]))
    assert log_widths(table, VALUES, np.array([2])).tolist() == [0, 0]
    low, high = mapped_ends(table, VALUES, np.array([0, 2]))
    with np.errstate(divide="ignore"):
        ends = [table.coordinates(each)[0][:, [0, 2]] for each in table.cells(VALUES)]
    np.testing.assert_array_equal([low, high], ends)
    assert low[1, 0] == -math.inf
    np.testing.assert_array_equal(low[:, 1], high[:, 1])


@pytest.mark.parametrize(
    ("observed", "is_integrated", "are_few", "n"),
    [
        ([True, True], False, False, 17),
        ([True, True], False, True, 17),
        ([True, True], True, False, 17),
        ([True, True], True, True, 5),
        ([True, False], True, False, 3),
        ([True, False], False, False, 17),
        ([False, False], True, False, 1),
    ],
)
def test_numbers_of_points(observed, is_integrated, are_few, n):
    part = SimpleNamespace(offsets=lattice(np.array([True, True])), is_integrated=is_integrated)
    observed = np.array(observed)
    for n_refined in range(3):
        points = _cells.points_of(part, observed, are_few=are_few, n_refined=n_refined)
        assert len(points) == (n * 3**n_refined if n > 1 else 1)
    if n == 3:
        expected = np.array([[-1 / 3, 0.0], [0.0, 0.0], [1 / 3, 0.0]])
        points = _cells.points_of(part, observed, are_few=are_few)
        np.testing.assert_allclose(points, expected, atol=1e-15)
    one = SimpleNamespace(offsets=lattice(np.array([True, False])), is_integrated=True)
    points = _cells.points_of(one, np.array([False, True]), are_few=True)
    assert points.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("curvature", [0.0, 0.05, 0.4, 5.0])
def test_columns_are_averaged_where_the_density_varies_in_their_cells(curvature):
    """The log-density at the recorded value differs from that of the mean over the cell."""
    X = pd.DataFrame({"n": np.arange(30.0), "m": np.arange(30.0)})
    kind = Continuous(atoms=(), unit=1.0)
    table = TableColumns.fit(X, {"n": kind, "m": kind})
    rows = table.encode(X)

    def of_all(queries):
        return 2.0 - curvature * (queries[:, 0] - np.rint(queries[:, 0])) ** 2

    part = SimpleNamespace(columns=np.array([0, 1]), of_all=of_all)
    nodes, weights = leggauss(3)
    mean = np.log((weights / 2) @ np.exp(-curvature * (nodes / 2) ** 2))
    is_averaged = bool(abs(mean) > 0.01)
    assert is_averaged == (curvature > 0.2)
    found = lattice_of(table, part, np.array([1.0, 1.0]), rows)
    np.testing.assert_array_equal(found, lattice(np.array([is_averaged, False])))
    exact = lattice_of(table, part, np.array([0.0, 1.0]), rows)
    np.testing.assert_array_equal(exact, np.zeros((1, 2)))


def test_slopes_of_maps_count_for_averages():
    """A density that is constant in the values has a slope in the coordinates, and no errors."""
    X = pd.DataFrame({"n": np.arange(1.0, 31)})
    table = TableColumns.fit(X, {"n": Interval(0, 31, atoms=(), unit=1.0)})
    rows = table.encode(X)

    def of_all(queries):
        with np.errstate(divide="ignore"):
            return -table.coordinates(table.values_at(queries))[1][:, 0]

    part = SimpleNamespace(columns=np.array([0]), of_all=of_all)
    assert lattice_of(table, part, np.array([1.0]), rows).tolist() == [[0.0]]


def test_at_most_64_rows_are_tested():
    X = pd.DataFrame({"n": np.arange(100.0)})
    table = TableColumns.fit(X, {"n": Continuous(atoms=(), unit=1.0)})
    sizes = []

    def of_all(queries):
        sizes.append(len(queries))
        return np.zeros(len(queries))

    part = SimpleNamespace(columns=np.array([0]), of_all=of_all)
    lattice_of(table, part, np.array([1.0]), table.encode(X))
    assert sizes == [64 * 4]


# ------------------------------------------------------------------------------ fit


def test_columns_without_atoms_have_one_density_and_the_others_are_given_them():
    density = fit(frame()).density_
    assert [part.columns.tolist() for part in density.parts] == [[2, 3]]
    assert sorted(part.columns.tolist() for part in density.amounts) == [[0], [0, 1], [1]]
    assert all(part.base.tolist() == [2, 3] for part in density.amounts)
    for part in density.amounts:
        X = frame()
        is_used = np.ones(24, dtype=bool)
        for k in part.columns:
            name, atom = [("a", 0.0), ("b", 9.0)][k]
            is_used &= X[name] != atom
        assert len(part.x) == is_used.sum()
    # Where searches begin all levels have equal masses.
    for kernel in density.parts[0].kernels:
        np.testing.assert_allclose(kernel.masses, 1 / len(kernel.masses))


def test_sets_that_are_at_no_atom_together_where_all_columns_have_atoms(recwarn):
    density = fit(frame()[["a", "b"]]).density_
    assert density.amounts == []
    assert sorted(part.columns.tolist() for part in density.parts) == [[0], [0, 1], [1]]
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore:fewer than 10 rows have values:UserWarning")
def test_few_rows_together_have_no_density_of_their_own():
    X = frame()
    X["b"] = np.where(np.arange(24) % 4 == 0, np.arange(24) / 7, 9.0)
    X.loc[[1, 2], "b"] = [0.3, 0.7]
    with pytest.warns(
        UserWarning,
        match=r"fewer than 10 rows hold values that are no atoms .*: \['a', 'b'\] \(2\)",
    ):
        density = fit(X).density_
    assert sorted(part.columns.tolist() for part in density.amounts) == [[0], [1]]
    with pytest.warns(
        UserWarning, match="fewer than 10 different rows have values in all .*'a', 'b'"
    ):
        density = fit(X[["a", "b"]]).density_
    assert sorted(part.columns.tolist() for part in density.parts) == [[0], [1]]


@pytest.mark.parametrize(("n_complete", "warns"), [(9, True), (10, False)])
def test_ten_different_rows_have_a_density_together(n_complete, warns, recwarn):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(30, 2)), columns=["c", "e"])
    X.loc[n_complete:19, "e"] = X.loc[20:, "c"] = np.nan
    kinds = {name: Continuous(atoms=(), unit=None) for name in X}
    density = fit(X, kinds).density_
    messages = [str(each.message) for each in recwarn.list]
    if warns:
        (message,) = messages
        assert "fewer than 10 different rows" in message
        assert "['c', 'e'] (30 rows if missing" in message
        assert [part.columns.tolist() for part in density.parts] == [[0], [1]]
        assert [len(part.rows) for part in density.parts] == [20, 19]
    else:
        assert not messages
        assert [part.columns.tolist() for part in density.parts] == [[0, 1]]
        assert len(density.parts[0].rows) == 10


@pytest.mark.parametrize(("n_known", "base"), [(9, []), (10, [1])])
def test_amounts_beside_missing_numbers_depend_on_levels_only(n_known, base, recwarn):
    X = frame(40)[["a", "c"]]
    off_atom = np.flatnonzero(X["a"] != 0)
    X.loc[off_atom[n_known:], "c"] = np.nan
    (part,) = fit(X).density_.amounts
    assert part.base.tolist() == base
    assert len(part.x) == (n_known if base else 30)
    messages = [str(each.message) for each in recwarn.list]
    assert len(messages) == (not base)
    if messages:
        assert messages[0].startswith(
            "fewer than 10 rows have values that are no atoms in ['a'] and values in all of the "
            "columns ['c']. There the columns ['a'] depend on levels only."
        )


def test_periods_are_those_of_the_columns():
    X = frame().assign(c=np.arange(24) * 1.3)
    kinds = {**KINDS, "c": Periodic(24, atoms=(), unit=None)}
    density = fit(X, kinds).density_
    assert density.parts[0].fitted.periods == {0: 24.0}
    for part in density.amounts:
        assert part.periods.tolist() == [24.0, 0.0]
    table = SimpleNamespace(continuous=[SimpleNamespace(period=p) for p in (None, 7.0, None, 24.0)])
    assert _fitting._with_periods(table, FAST, (0, 2)) is FAST
    found = _fitting._with_periods(table, FAST, (3, 0, 1))
    assert found.periods == {0: 24.0, 2: 7.0}
    assert FAST.periods is None


def test_knots_are_those_of_lower_bounds(monkeypatch):
    seen = []
    fit_amounts = _fitting.fit_amounts

    def record(*arguments):
        seen.append(arguments[-1])
        return fit_amounts(*arguments)

    monkeypatch.setattr(_fitting, "fit_amounts", record)
    X = frame().assign(a=lambda X: X["a"].abs())
    kinds = {**KINDS, "a": Positive(atoms=(0,), unit=None)}
    fit(X[["a", "b", "c"]], kinds)
    largest = X["a"].max()
    for knots in seen:
        assert len(knots) in (1, 2)
        if len(knots) == 2:
            np.testing.assert_allclose(knots, [largest / 2, np.nan])
    upper = {**KINDS, "a": Interval(-math.inf, 99, atoms=(0,), unit=None)}
    seen.clear()
    fit(X[["a", "c"]], upper)
    np.testing.assert_array_equal(seen, [[np.nan]])


def test_one_value_beside_an_atom_warns():
    X = frame().assign(a=np.where(np.arange(24) % 2, 0.0, -4.5))
    with pytest.warns(
        UserWarning, match="column 'a' has one value in rows where it is not at an at"
    ):
        density = fit(X[["a", "c"]]).density_
    assert density.amounts[0].deviation.tolist() == [4.5]
    with pytest.warns(
        UserWarning, match="is a Gaussian about it, of width 4.5, since one value has"
    ):
        density = fit(X[["a"]]).density_
    assert density.parts[0].fitted.bandwidth == 4.5


def test_weights_and_rows_without_cells():
    X = frame()[["c"]]
    X.loc[3] = np.nan
    weights = np.r_[0.0, np.ones(22), 2.0]
    with pytest.warns(UserWarning, match="no value in any column"):
        model = fit(X, sample_weight=weights)
    part = model.density_.parts[0]
    assert len(part.rows) == 22
    assert part.weights.max() == pytest.approx(2 / 23)
    np.testing.assert_array_equal(part.rows[:, 0], X["c"].drop([0, 3]))


# ------------------------------------------------------------------------------ estimator


def test_attributes_of_the_estimator():
    model = fit(frame())
    assert list(model.lambdas_) == ["kind", "a", "b"]
    kernels = model.density_.level_density.kernels
    assert list(model.lambdas_.values()) == [kernel.lam for kernel in kernels]
    parts = model.parts_
    assert parts[0]["columns"] == ["c", "d"]
    assert parts[0]["rows"] == 24
    assert parts[0]["density"] is model.density_.parts[0].fitted
    assert parts[1]["density"] is model.density_.amounts[0]
    assert list(parts[0]["lambdas"]) == ["kind", "a", "b"]
    assert model.base_measure_ == model.columns_.base_measure
    tags = model.__sklearn_tags__().input_tags
    assert tags.allow_nan
    assert tags.string
    assert tags.categorical


def test_all_other_columns_are_missing():
    model = fit(frame())
    rows = model.columns_.encode(frame())
    found = model._only(rows, np.array([1, 3]))
    np.testing.assert_array_equal(found.levels[:, 1], rows.levels[:, 1])
    assert (found.levels[:, [0, 2]] == -1).all()
    np.testing.assert_array_equal(found.values[:, [0, 2]], rows.values[:, [0, 2]])
    assert np.isnan(found.values[:, [1, 3]]).all()
    assert found.index is rows.index


def test_scores_given_others_are_differences():
    model, X = fit(frame()[["kind", "c", "d"]]), frame()[:5][["kind", "c", "d"]]
    joint = model.score_samples(X)
    for given in (["kind"], ["c"], ["kind", "c"]):
        rest = [name for name in X if name not in given]
        marginal = model.score_samples(X, columns=given)
        conditional = model.score_samples(X, given=given)
        np.testing.assert_allclose(conditional, joint - marginal, atol=1e-12)
        np.testing.assert_allclose(
            model.score_samples(X, columns=rest, given=given), conditional, atol=1e-12
        )
    others = model._given_others(X)
    assert others.shape == (5, 3)
    for k, name in enumerate(X):
        given = [other for other in X if other != name]
        np.testing.assert_allclose(others[:, k], model.score_samples(X, given=given), atol=1e-9)


def test_new_levels_are_scored_by_their_own_probability():
    X = frame()[["kind", "c"]]
    kinds = {"kind": KINDS["kind"], "c": KINDS["c"]}
    model = TableDensity(kinds, density=FAST, new_levels="missing").fit(X)
    query = X[:2].assign(kind=["x", "q"])
    w = 0.5 / 24.5
    found = model.score_samples(query)
    plain = fit(X)
    expected = [
        plain.score_samples(X[:1].assign(kind="x"))[0] + math.log(1 - w),
        plain.score_samples(X[1:2], columns=["c"])[0] + math.log(w),
    ]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(
        model.score_samples(query, columns=["c"]), plain.score_samples(X[:2], columns=["c"])
    )
    np.testing.assert_allclose(model.score_samples(query, columns=["kind"])[1], math.log(w))
    # In the density of other columns, and among all of them.
    np.testing.assert_allclose(
        model._given_others(query)[1], [math.log(w), expected[1] - math.log(w)], atol=1e-9
    )


def test_large_errors_warn(recwarn):
    _estimator._warn_of_errors(np.array([0.25, 0.1]))
    assert not recwarn.list
    _estimator._warn_of_errors(np.array([0.26, 0.1, 3.0]))
    (found,) = recwarn.list
    assert "error of 2 of 3 log-densities is large, up to 3 nats" in str(found.message)
    recwarn.clear()
    _estimator._warn_of_errors(np.array([0.4]), 0.5)
    assert not recwarn.list
    _estimator._warn_of_errors(np.array([0.6]), 0.5)
    assert len(recwarn.list) == 1


def test_errors_of_conditionals_add(monkeypatch):
    model = fit(frame()[["kind", "c"]])
    errors = iter([np.full(3, 0.03), np.full(3, 0.04)])
    log_density = type(model.density_).log_density

    def with_errors(self, rows, tolerance=None):
        return log_density(self, rows, tolerance)[0], next(errors)

    monkeypatch.setattr(type(model.density_), "log_density", with_errors)
    _, error = model.score_samples(frame()[:3][["kind", "c"]], given=["c"], return_error=True)
    np.testing.assert_allclose(error, 0.05)


def test_levels_alone_are_drawn_without_numbers(monkeypatch):
    model = fit(frame()[["kind", "c"]])
    monkeypatch.setattr(type(model.density_), "draw_missing", None)
    rng = np.random.RandomState(0)
    drawn = model._draw(6, rng, {"kind": "x"}, only_levels=True)
    assert drawn["kind"].tolist() == ["x"] * 6
    assert drawn["c"].isna().all()
    drawn = model._draw(200, rng, None, only_levels=True)
    assert set(drawn["kind"]) == {"x", "y"}


# ------------------------------------------------------------------------------ relations


@pytest.mark.parametrize(
    ("scale", "n", "found"),
    [(5.5, 20, True), (4.5, 20, False), (5.5, 14, False), (5.5, 15, True)],
)
def test_relations_of_rounded_columns_need_cells_and_rows(scale, n, found):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n))
    a, b = (scale * (each - each.mean()) / each.std() for each in (a, b))
    values = np.column_stack([a, b, a * 0.6 + b * 0.8 + 0 * a])
    values[:, 2] *= scale / values[:, 2].std()
    n_relations, columns = _relations._within_cells(values, np.ones(3))
    assert n_relations == found
    assert columns.tolist() == ([0, 1, 2] if found else [])


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e6])
def test_the_variance_of_a_relation_is_in_squared_cells(factor):
    rng = np.random.default_rng(0)
    a = 20 * rng.normal(size=60)
    unit = np.array([1.0, 3.0])
    for size, found in ((0.5, 1), (0.65, 0)):
        # Of a direction of norm one, the variance is a sixth where the deviation is 0.41.
        noise = rng.normal(size=60)
        noise = size * (noise - noise.mean()) / noise.std()
        values = np.column_stack([a, 3 * (a + noise)])
        _, axes = np.linalg.eigh(np.cov((values / unit).T, bias=True))
        variance = np.var((values / unit) @ axes[:, 0])
        assert (variance < 1 / 6) == found
        n, columns = _relations._within_cells(values * factor, unit * factor)
        assert n == found
        assert columns.tolist() == ([0, 1] if found else [])


def test_columns_of_small_loadings_are_in_no_relation(recwarn):
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(2, 30))
    _relations.warn_of_relations("abc", np.column_stack([a, 2 * a + 1, c]), np.zeros(3))
    (found,) = recwarn.list
    assert "the columns ['a', 'b'] satisfy 1 exact relations, such as" in str(found.message)
    recwarn.clear()
    _relations.warn_of_relations("abc", np.column_stack([a, 2 * a + 1, 5 - a]), np.zeros(3))
    (found,) = recwarn.list
    assert "the columns ['a', 'b', 'c'] satisfy 2 exact relations" in str(found.message)
    recwarn.clear()
    whole = np.rint(30 * np.column_stack([a, c, a + c]))
    assert (whole[:, 0] + whole[:, 1] != whole[:, 2]).any()
    _relations.warn_of_relations("abc", whole, np.ones(3))
    (found,) = recwarn.list
    assert "satisfy 1 relations up to their rounding" in str(found.message)


def test_rows_of_a_table_are_taken_in_one_call():
    model = fit(frame()[["kind", "c"]])
    rows = EncodedTable(np.array([[0]]), np.array([[0.5]]))
    found, error = model.density_.log_density(rows)
    assert found.shape == error.shape == (1,)
