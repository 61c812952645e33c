"""The density of whole rows: normalised, and consistent with draws, marginals and conditionals."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import chisquare

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.tables import (
    Categorical,
    Continuous,
    Integer,
    Positive,
    TableDensity,
    _density,
    _discrete,
)

KINDS = {"count": Integer(0, 5), "income": Positive(atoms=(0,))}


def _frame(n=120, seed=0):
    """Return rows of a category, a boolean, a count and an income with zeros, all dependent."""
    rng = np.random.RandomState(seed)
    kind = rng.choice(["a", "b", "c"], size=n, p=[0.6, 0.3, 0.1])
    flag = rng.uniform(size=n) < np.where(kind == "b", 0.8, 0.3)
    count = np.minimum(rng.poisson(1 + 2 * (kind == "b")), 5)
    income = rng.lognormal(1 + 0.3 * count, 0.6)
    income[rng.uniform(size=n) < 0.3] = 0
    return pd.DataFrame({"kind": kind, "flag": flag, "count": count, "income": income})


def _incomes(n):
    """Return incomes (n,), far apart in the tails, and the weights of sums that are integrals."""
    steps = np.linspace(-3.3, 3.3, n)
    income = np.exp(1.5 + np.sinh(steps))
    return income, income * np.cosh(steps) * (steps[1] - steps[0])


def _grid(counts, n_incomes):
    """Return all combinations of levels, counts and incomes, zero included, and their weights."""
    income, weights = _incomes(n_incomes)
    weights = np.r_[1.0, weights]
    rows = itertools.product(["a", "b", "c"], [False, True], counts, np.r_[0.0, income])
    frame = pd.DataFrame(rows, columns=["kind", "flag", "count", "income"])
    return frame, np.tile(weights, len(frame) // len(weights))


@pytest.fixture(scope="module")
def smoothed():
    """Return a density with a smoothed flow, of few nodes and steps."""
    return TableDensity(KINDS, density=SmoothedScoreDiffusion(n_nodes=8, n_steps=8)).fit(_frame())


@pytest.fixture(scope="module")
def kde():
    """Return a density whose continuous part is a kernel density estimate, which costs little."""
    return TableDensity(KINDS, density=KDESampler()).fit(_frame())


def test_total_mass_with_atoms_cells_and_categories(kde):
    grid, weights = _grid(np.arange(6), 100)
    # The sums over incomes, trapezoidal in the logarithm, have errors far below the tolerance.
    assert (weights * np.exp(kde.score_samples(grid))).sum() == pytest.approx(1, abs=0.002)


def test_total_mass_of_a_smoothed_flow(smoothed):
    grid, weights = _grid(np.arange(6), 36)
    assert (weights * np.exp(smoothed.score_samples(grid))).sum() == pytest.approx(1, abs=0.002)


def test_draws_are_of_the_density_that_is_scored(kde):
    drawn = kde.sample(4000, random_state=1)
    cells = pd.DataFrame(
        itertools.product(["a", "b", "c"], [False, True], range(6)),
        columns=["kind", "flag", "count"],
    ).assign(income=np.nan)
    zero = np.exp(kde.score_samples(cells.assign(income=0.0)))
    any_income = np.exp(kde.score_samples(cells))
    expected = np.r_[zero, any_income - zero]
    keys = [*zip(cells["kind"], cells["flag"], cells["count"], strict=True)]
    held = pd.Series(zip(drawn["kind"], drawn["flag"], drawn["count"], strict=True))
    counts = [((held == key) & (drawn["income"] == 0)).sum() for key in keys]
    counts += [((held == key) & (drawn["income"] > 0)).sum() for key in keys]
    rest = 1 - expected.sum(), len(drawn) - np.sum(counts)
    observed, expected = np.r_[counts, rest[1]], np.r_[expected, rest[0]] * len(drawn)
    few = expected < 5
    observed = np.r_[observed[~few], observed[few].sum()]
    expected = np.r_[expected[~few], expected[few].sum()]
    # Fails correct code once in a thousand seeds.
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def test_draws_of_numbers_are_of_their_conditional_density(smoothed):
    given = {"kind": "b", "flag": True, "count": 3}
    drawn = smoothed.sample(400, random_state=2, given=given)["income"].to_numpy()
    income, weights = _incomes(80)
    frame = pd.DataFrame({**given, "income": income})
    masses = weights * np.exp(smoothed.score_samples(frame, given=list(given)))
    zero = np.exp(smoothed.score_samples(frame.assign(income=0.0)[:1], given=list(given)))[0]
    assert masses.sum() + zero == pytest.approx(1, abs=0.002)
    edges = np.interp(np.linspace(0, 1, 11)[1:-1], np.cumsum(masses) / masses.sum(), income)
    counts = np.bincount(np.searchsorted(edges, drawn[drawn > 0]), minlength=10)
    expected = np.r_[zero, np.full(10, (1 - zero) / 10)] * len(drawn)
    # Fails correct code once in a thousand seeds.
    assert chisquare(np.r_[(drawn == 0).sum(), counts], expected).pvalue > 1e-3


def test_missing_levels_are_summed_over(smoothed):
    frame = _frame(3, seed=1)
    all_kinds = [smoothed.score_samples(frame.assign(kind=kind)) for kind in "abc"]
    expected = logsumexp(all_kinds, axis=0)
    missing = smoothed.score_samples(frame.assign(kind=None))
    np.testing.assert_allclose(missing, expected, atol=1e-10)
    columns = ["flag", "count", "income"]
    np.testing.assert_allclose(smoothed.score_samples(frame, columns=columns), expected, atol=1e-10)


def test_missing_numbers_are_integrated_out(kde):
    frame = _frame(4, seed=1)
    income, weights = _incomes(300)
    repeated = frame.loc[frame.index.repeat(301)]
    repeated = repeated.assign(income=np.tile(np.r_[0.0, income], len(frame)))
    log_density = kde.score_samples(repeated).reshape(len(frame), -1)
    expected = logsumexp(log_density, b=np.r_[1.0, weights], axis=1)
    np.testing.assert_allclose(kde.score_samples(frame.assign(income=np.nan)), expected, atol=1e-3)


def test_conditional_is_joint_less_marginal(smoothed):
    frame = _frame(20, seed=1)
    joint, marginal = smoothed.score_samples(frame), smoothed.score_samples(frame, columns=["kind"])
    conditional = smoothed.score_samples(frame, given=["kind"])
    np.testing.assert_allclose(conditional, joint - marginal, atol=1e-10)


def test_exact_numbers_alone_are_the_continuous_density():
    X = np.random.RandomState(0).normal(size=(80, 2)) @ [[1.0, 0.5], [0.0, 2.0]]
    kinds = {0: Continuous(atoms=(), unit=None), 1: Continuous(atoms=(), unit=None)}
    table, plain = TableDensity(kinds).fit(X), SmoothedScoreDiffusion().fit(X)
    np.testing.assert_allclose(table.score_samples(X), plain.score_samples(X), atol=1e-10)


def test_levels_alone_have_probabilities():
    frame = _frame()[["kind", "flag"]]
    model = TableDensity().fit(frame)
    cells = pd.DataFrame(itertools.product("abc", [False, True]), columns=["kind", "flag"])
    assert np.exp(model.score_samples(cells)).sum() == pytest.approx(1, abs=1e-12)
    assert set(model.sample(50, random_state=0)["kind"]) <= set("abc")


def test_row_order_does_not_matter(kde):
    frame = _frame()
    order = np.random.RandomState(1).permutation(len(frame))
    other = TableDensity(KINDS, density=KDESampler()).fit(frame.iloc[order])
    np.testing.assert_allclose(other.score_samples(frame), kde.score_samples(frame), atol=1e-8)


@pytest.mark.parametrize("density", ["kde", "smoothed"])
def test_rows_beside_missing_numbers_are_scored_together_as_alone(density, request):
    """The density of an income given a missing count is a mean over draws, equal for all rows."""
    model, frame = request.getfixturevalue(density), _frame(3, 3)
    frame.loc[0, "income"] = 3.0
    rows = pd.concat([frame, frame.assign(count=np.nan), frame.assign(count=np.nan, kind=None)])
    # A row that is equal but for its income has the same draws.
    rows = pd.concat([rows, rows[3:4].assign(income=4.0), rows[:4]], ignore_index=True)
    together = model.score_samples(rows)
    alone = [model.score_samples(rows[k : k + 1])[0] for k in range(len(rows))]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-9)


def test_weights_are_numbers_of_copies():
    frame, counts = _frame(60), np.random.RandomState(0).randint(0, 3, size=60)
    weighted = TableDensity(KINDS, density=KDESampler()).fit(frame, sample_weight=counts)
    copies = TableDensity(KINDS, density=KDESampler()).fit(frame.loc[frame.index.repeat(counts)])
    np.testing.assert_allclose(
        weighted.score_samples(frame), copies.score_samples(frame), atol=1e-6
    )


def test_units_shift_log_densities_by_a_constant(kde):
    frame = _frame()
    other = TableDensity(KINDS, density=KDESampler()).fit(
        frame.assign(income=frame["income"] * 1e3)
    )
    shift = kde.score_samples(frame) - other.score_samples(
        frame.assign(income=frame["income"] * 1e3)
    )
    expected = np.where(frame["income"] > 0, np.log(1e3), 0.0)
    np.testing.assert_allclose(shift, expected, atol=1e-6)


def test_bandwidths_of_levels_find_what_depends_on_what():
    rng = np.random.RandomState(0)
    kind, other = rng.choice(["a", "b"], size=300), rng.choice(["u", "v"], size=300)
    x = rng.normal(np.where(kind == "a", 0.0, 3.0))
    model = TableDensity().fit(pd.DataFrame({"kind": kind, "other": other, "x": x}))
    (part,) = model.parts_
    assert part["lambdas"]["kind"] < 0.1 < 0.5 < part["lambdas"]["other"]
    assert model.lambdas_["other"] > 0.5


def test_imputed_levels_follow_their_posterior():
    rng = np.random.RandomState(0)
    kind = rng.choice(["a", "b"], size=300)
    frame = pd.DataFrame({"kind": kind, "x": rng.normal(np.where(kind == "a", 0.0, 2.0))})
    model = TableDensity().fit(frame)
    query = pd.DataFrame({"kind": [None] * 2000, "x": [0.8] * 2000})
    share = (model.impute(query, random_state=0)["kind"] == "a").mean()
    expected = np.exp(model.score_samples(query[:1].assign(kind="a"), given=["x"]))[0]
    # Four standard errors of a share of 2000 draws.
    assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 2000))


def test_imputed_numbers_follow_their_conditional_density(kde):
    query = pd.DataFrame({"kind": "b", "flag": True, "count": [np.nan] * 3000, "income": 9.0})
    drawn = kde.impute(query, random_state=0)["count"]
    counts = pd.DataFrame({"kind": "b", "flag": True, "count": range(6), "income": 9.0})
    expected = np.exp(kde.score_samples(counts, given=["kind", "flag", "income"]))
    shares = np.bincount(drawn.astype(int), minlength=6) / len(drawn)
    # Four standard errors of the largest shares.
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / 3000))


@pytest.mark.parametrize("density", [KDESampler(), SmoothedScoreDiffusion(n_nodes=8, n_steps=8)])
def test_numbers_are_drawn_given_other_numbers(density):
    rng = np.random.RandomState(0)
    x = rng.normal(size=100)
    model = TableDensity(density=density).fit(
        pd.DataFrame({"x": x, "y": x + 0.1 * rng.normal(size=100)})
    )
    drawn = model.sample(100, random_state=0, given={"x": 1.5})
    assert drawn["y"].mean() == pytest.approx(1.5, abs=0.25)
    assert drawn["y"].std() < 0.5


def test_warns_where_given_levels_are_in_no_row():
    frame = pd.DataFrame({"kind": ["a", "b"] * 20, "sex": ["f", "m"] * 20})
    frame["debt"] = [5.5, 0.0] * 20 + np.linspace(0, 0.1, 40).round(4) * ([1, 0] * 20)
    model = TableDensity({"debt": Positive(atoms=(0,))}, density=KDESampler()).fit(frame)
    with pytest.warns(UserWarning, match="no training row has the given levels") as caught:
        model.score_samples(frame[:3].assign(sex=["m", "f", "f"]), given=["kind", "sex"])
    # One warning for all combinations, with the labels of the first.
    (warning,) = caught
    example = "{'kind': 'a', 'sex': 'm'} (2 of 3 conditions)"
    assert f"such as {example}" in str(warning.message)
    with pytest.warns(UserWarning, match=r"such as \{'kind': 'a', 'debt': 0.0\} \(1 of 1"):
        model.score_samples(frame[:1].assign(debt=0.0), given=["kind", "debt"])
    with pytest.warns(UserWarning, match=r"such as \{'kind': 'b', 'debt': 'not 0.0'\} \(1 of 1"):
        model.score_samples(frame[1:2].assign(debt=5.0), given=["kind", "debt"])


def test_columns_that_are_never_complete_are_independent_with_a_warning():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame({"kind": rng.choice(["a", "b"], size=60), "x": rng.normal(size=60)})
    frame["y"] = rng.normal(size=60)
    frame.loc[:29, "x"], frame.loc[30:, "y"] = np.nan, np.nan
    with pytest.warns(UserWarning, match=r"fewer than 10 different rows have values in all of"):
        model = TableDensity({"kind": Categorical()}).fit(frame)
    row = pd.DataFrame({"kind": ["a"], "x": [0.1], "y": [-0.2]})
    parts = [model.score_samples(row, columns=[name], given=["kind"]) for name in "xy"]
    np.testing.assert_allclose(
        model.score_samples(row, given=["kind"]), parts[0] + parts[1], atol=1e-10
    )


def test_warns_of_a_total_beside_its_parts():
    rng = np.random.RandomState(0)
    parts = rng.normal(size=(60, 2)) @ [[3.0, 0.0], [1.0, 5.0]]
    frame = pd.DataFrame(np.column_stack([parts, parts.sum(axis=1)]), columns=["a", "b", "sum"])
    with pytest.warns(UserWarning, match=r"\['a', 'b', 'sum'\] satisfy 1 exact relations"):
        TableDensity().fit(frame)


def test_warns_of_counts_that_others_determine():
    rng = np.random.RandomState(0)
    school, work = rng.poisson(25, 80), rng.poisson(12, 80)
    frame = pd.DataFrame({"school": school, "z": rng.normal(size=80), "work": work})
    frame["age"] = frame["school"] + frame["work"] + 6
    with pytest.warns(UserWarning, match=r"\['school', 'work', 'age'\] satisfy 1 exact relations"):
        TableDensity().fit(frame)


@pytest.mark.parametrize("unit", [0.01, 0.0001])
def test_warns_of_rounded_shares_that_sum_to_one(unit):
    shares = np.random.RandomState(0).dirichlet([3, 4, 9], size=120)
    names = ["labor", "capital", "fuel"]
    frame = pd.DataFrame(np.round(shares / unit) * unit, columns=names)
    frame["output"] = np.random.RandomState(1).lognormal(5, 1, size=120).round(1)
    with pytest.warns(
        UserWarning,
        match=r"\['labor', 'capital', 'fuel'\] satisfy 1 relations up to their rounding",
    ):
        TableDensity(density=KDESampler("scott")).fit(frame)


def test_numbers_that_depend_on_others_closely_are_no_relation(recwarn):
    rng = np.random.RandomState(0)
    height = rng.normal(170, 9, size=200)
    frame = pd.DataFrame(
        {"height": height.round(), "span": (height + rng.normal(size=200)).round()}
    )
    frame["rare"] = (rng.uniform(size=200) < 0.06) * rng.randint(1, 4, size=200)
    TableDensity(density=KDESampler("scott")).fit(frame)
    assert not any("relations" in str(each.message) for each in recwarn)


def test_warns_where_columns_with_atoms_are_rarely_at_none_together():
    rng = np.random.RandomState(0)
    has_debt = rng.uniform(size=150) < 0.5
    has_both = np.arange(150) < 6
    debt = np.where(has_debt | has_both, rng.lognormal(3, 1, size=150), 0.0)
    savings = np.where(~has_debt | has_both, rng.lognormal(4, 1, size=150), 0.0)
    frame = pd.DataFrame({"age": rng.normal(40, 9, size=150), "debt": debt, "savings": savings})
    with pytest.warns(UserWarning, match=r"sets: \['debt', 'savings'\] \(6\). There the columns"):
        TableDensity(density=KDESampler("scott")).fit(frame)


def test_warns_where_a_column_with_atoms_depends_on_levels_only():
    rng = np.random.RandomState(0)
    debt = np.where(rng.uniform(size=150) < 0.5, rng.lognormal(3, 1, size=150), 0.0)
    frame = pd.DataFrame({"age": rng.normal(40, 9, size=150), "debt": debt})
    frame.loc[(debt > 0) & (np.arange(150) > 12), "age"] = np.nan
    with pytest.warns(UserWarning, match=r"There the columns \['debt'\] depend on levels only"):
        TableDensity(density=KDESampler("scott")).fit(frame)


@pytest.mark.filterwarnings("ignore:(fewer than|column .* has one value):UserWarning")
def test_one_row_that_is_at_no_atom_has_a_broad_density(recwarn):
    frame = pd.DataFrame({"age": np.arange(40.0), "debt": [7.5] + [0.0] * 39})
    kinds = {"age": Continuous(unit=None), "debt": Continuous(atoms=(0,), unit=None)}
    model = TableDensity(kinds, density=KDESampler("scott")).fit(frame)
    grid = np.sinh(np.linspace(-12, 12, 4000))
    query = pd.DataFrame({"age": 20.0, "debt": grid})
    masses = np.exp(model.score_samples(query, given=["age"])) * np.gradient(grid)
    of_zero = np.exp(model.score_samples(query[:1].assign(debt=0.0), given=["age"]))[0]
    assert masses.sum() + of_zero == pytest.approx(1, abs=0.002)
    near = masses[np.abs(grid - 7.5) < 1].sum() / masses.sum()
    assert near < 0.3
    assert not [each for each in recwarn if each.category is not UserWarning]


def test_dates_of_one_value_are_no_relation():
    frame = pd.DataFrame({"x": np.random.RandomState(0).normal(size=40)})
    frame["day"] = pd.Timestamp("2020-02-01")
    with pytest.warns(UserWarning, match="in all rows that have a value") as caught:
        TableDensity(density=KDESampler()).fit(frame)
    assert not any("relations" in str(each.message) for each in caught)


def _spending(n, seed):
    """Return rows of numbers that depend on one another, and one with zeros that depends on none."""
    rng = np.random.RandomState(seed)
    age = rng.normal(40, 10, size=n)
    frame = {"age": age, "income": rng.lognormal(8 + 0.02 * age), "score": rng.normal(0.05 * age)}
    frame["count"] = rng.poisson(1.3, size=n)
    spend = np.where(rng.uniform(size=n) < 0.378, 0.0, rng.lognormal(3, 1.6, size=n))
    return pd.DataFrame({**frame, "spend": spend})


@pytest.mark.parametrize("density", [KDESampler(), SmoothedScoreDiffusion(n_nodes=8, n_steps=8)])
def test_an_atom_that_depends_on_nothing_has_its_frequency(density):
    rows, others = _spending(300, 0), ["age", "income", "score", "count"]
    model = TableDensity(density=density).fit(rows)
    new = _spending(100, 1)
    is_zero, share = (new["spend"] == 0).to_numpy(), (rows["spend"] == 0).mean()
    of_zero = np.exp(model.score_samples(new.assign(spend=0.0), given=others))
    assert of_zero.mean() == pytest.approx(share, abs=0.03)
    score = np.log(np.where(is_zero, of_zero, 1 - of_zero)).mean()
    assert score > np.log(np.where(is_zero, share, 1 - share)).mean() - 0.02
    filled = model.impute(new.assign(spend=np.nan), random_state=0)
    drawn = model.sample(1000, random_state=0)["spend"]
    log_drawn, logs = np.log(drawn[drawn > 0]), np.log(rows["spend"][rows["spend"] > 0])
    # Draws of the logarithm have no tails that its exponential would stretch.
    assert log_drawn.std() < 1.25 * logs.std()
    # Three standard errors of a share of 100 rows.
    assert (filled["spend"] == 0).mean() == pytest.approx(share, abs=0.15)


def test_columns_with_atoms_given_missing_columns():
    rows = _spending(200, 0)
    rows["spend"] *= np.exp(0.1 * (rows["age"] - 40))
    model = TableDensity(density=KDESampler()).fit(rows[["age", "spend"]])
    spend = np.array([3.0, 30.0, 300.0])
    ages = np.linspace(-20, 100, 400)
    grid = pd.DataFrame({"age": np.repeat(ages, 3), "spend": np.tile(spend, 400)})
    expected = logsumexp(model.score_samples(grid).reshape(400, 3), axis=0) + np.log(
        ages[1] - ages[0]
    )
    only = pd.DataFrame({"age": np.nan, "spend": spend})
    found, error = model.score_samples(only, return_error=True)
    # Three standard errors of a mean over draws.
    assert (np.abs(found - expected) < 3 * error + 0.01).all()
    age = model.impute(only.loc[[2] * 300], random_state=0)["age"]
    masses = np.exp(model.score_samples(grid[grid["spend"] == 300], given=["spend"]))
    assert age.mean() == pytest.approx(np.average(ages, weights=masses), abs=2.5)


@pytest.mark.parametrize("unit", [None, 1.0])
def test_amounts_beside_zeros_have_mass_one_given_a_number(unit):
    """An amount that is linear in the number, far above the knot of its logarithm."""
    rng = np.random.RandomState(0)
    age = rng.normal(40, 10, 120)
    spend = np.where(rng.uniform(size=120) < 0.4, 0, np.maximum(3 * age + rng.normal(0, 8, 120), 1))
    spend, kind = np.rint(spend) if unit else spend, Positive(atoms=(0,), unit=unit)
    rows = pd.DataFrame({"age": age, "spend": spend})
    model = TableDensity({"age": Continuous(), "spend": kind}, density=KDESampler()).fit(rows)
    (part,) = model.density_.amounts
    assert np.isfinite(part.shifts).all()
    steps = np.arange(1.0, 600) if unit else np.geomspace(0.01, 600, 2000)
    queries = pd.DataFrame({"age": 40.0, "spend": np.r_[0.0, steps]})
    zero, *others = np.exp(model.score_samples(queries, given=["age"]))
    total = np.sum(others) if unit else np.trapezoid(others, steps)
    assert zero + total == pytest.approx(1, abs=1e-4)


def test_mass_where_columns_with_atoms_are_seldom_off_them_together():
    rng = np.random.RandomState(0)
    counts, pattern = 1 + rng.poisson(2, (90, 3)), rng.randint(3, size=90)
    counts *= np.array([[0, 1, 0], [1, 0, 1], [0, 0, 1]])[pattern]
    counts[:2] = [[2, 3, 0], [4, 1, 0]]
    rows = pd.DataFrame(counts, columns=list("abc")).assign(x=rng.normal(size=90))
    kinds = dict.fromkeys("abc", Integer(0, 12, atoms=(0,)))
    model = TableDensity(kinds, density=KDESampler()).fit(rows)
    assert [0, 1] not in [part.columns.tolist() for part in model.density_.amounts]
    queries = pd.DataFrame(np.indices((13, 13, 1)).reshape(3, -1).T, columns=list("abc"))
    log_densities = model.score_samples(queries.assign(x=0.3), given=["c", "x"])
    assert np.exp(log_densities).sum() == pytest.approx(1, abs=1e-9)


def test_tails_of_positive_columns_are_in_their_units():
    """A tail that is heavy in the logarithm reaches thousands of times the largest row."""
    rng = np.random.RandomState(0)
    income = rng.lognormal(0, 1, 200)
    frame = pd.DataFrame({"income": income, "count": rng.poisson(income)})
    kinds = {"income": Positive(), "count": Integer(0)}
    drawn = (
        TableDensity(kinds, density=SmoothedScoreDiffusion(n_nodes=8, n_steps=8))
        .fit(frame)
        .sample(4000, random_state=0)
    )
    assert (drawn.max() < 10 * frame.max()).all()
    assert (drawn.std() < 1.5 * frame.std()).all()
    # So do columns with atoms, which have a density of their own.
    frame["income"] = np.where(rng.uniform(size=200) < 0.3, 0.0, income)
    kinds["income"] = Positive(atoms=(0,))
    drawn = TableDensity(kinds, density=KDESampler()).fit(frame).sample(4000, random_state=0)
    assert drawn["income"].max() < 10 * frame["income"].max()


def test_bandwidths_of_each_column_do_not_depend_on_units():
    found = []
    for factor in (1, 1000):
        frame = _frame()[["kind", "count", "income"]]
        frame["income"] = (frame["income"].round(2) + 1) * factor
        kinds = {"count": Integer(0), "income": Positive(atoms=(), unit=0.01 * factor)}
        model = TableDensity(kinds, density=KDESampler("scott")).fit(frame)
        found.append(model.score_samples(frame))
    # Probabilities of cells; scales are chosen to a hundredth.
    np.testing.assert_allclose(*found, atol=0.02)


@pytest.mark.parametrize("n_others", [2, 7])
def test_few_rows_beside_an_atom_have_bounded_losses(n_others):
    """No value within the range of the rows is as good as excluded, whatever the other columns are."""
    rng = np.random.RandomState(0)
    others = rng.normal(size=(160, n_others))
    debt = np.exp(1 + 0.8 * others[:, 0] + 0.1 * rng.normal(size=160))
    debt[rng.uniform(size=160) < 0.75] = 0
    frame = pd.DataFrame(others, columns=[f"x{j}" for j in range(n_others)])
    names, frame["debt"] = list(frame), debt
    model = TableDensity(density=KDESampler("loo", metric="scaled")).fit(frame)
    rows = pd.DataFrame(rng.normal(size=(40, n_others)), columns=names)
    rows.loc[:19, names[-1]] = 6.0
    rows["debt"] = np.median(debt[debt > 0])
    # A hundredth of the mass is a distribution of all rows, whose density there is some exp(-3).
    assert model.score_samples(rows, columns=["debt"], given=names).min() > -9
    # The extremest row: mass one, and draws of the density.
    row = rows.loc[[0]]
    points = np.exp(np.linspace(-8, 6, 4000))
    grid = row.loc[[0] * 4000].assign(debt=points)
    masses = np.exp(model.score_samples(grid, columns=["debt"], given=names)) * points * 14 / 3999
    zero = np.exp(model.score_samples(row.assign(debt=0), columns=["debt"], given=names))[0]
    assert masses.sum() + zero == pytest.approx(1, abs=0.002)
    drawn = model.impute(row.loc[[0] * 2000].assign(debt=np.nan), random_state=0)["debt"]
    for end in np.quantile(debt[debt > 0], [0.2, 0.5, 0.9]):
        # Four standard errors of a share of 2000 draws.
        share = zero + masses[points < end].sum()
        assert (drawn < end).mean() == pytest.approx(share, abs=0.045)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_one_value_beside_an_atom_has_a_gaussian_about_it(value):
    """Its width is the value, and one where that is zero."""
    frame = pd.DataFrame({"x": np.repeat([5.0, value], [10, 3])})
    with pytest.warns(UserWarning, match="one value in rows where it is not at an atom"):
        model = TableDensity({"x": Continuous(atoms=(5.0,), unit=None)}).fit(frame)
    at, at_width = model.score_samples(pd.DataFrame({"x": [value, value + (value or 1.0)]}))
    assert at - at_width == pytest.approx(0.5, rel=1e-9)


def test_rows_that_lack_unlike_columns_are_scored_together_as_alone():
    """Their integrals are over one model, and draws are followed together."""
    rng = np.random.RandomState(0)
    numbers = np.column_stack([rng.normal(size=(60, 2)), rng.poisson(2.0, 60)])
    frame = pd.DataFrame(numbers, columns=["a", "b", "count"])
    frame["kind"] = np.where(numbers[:, 0] > 0, "high", "low")
    density = SmoothedScoreDiffusion(n_nodes=8, n_steps=8)
    model = TableDensity({"count": Integer(0)}, density=density).fit(frame)
    rows = pd.concat([frame[:2].assign(**{name: np.nan}) for name in frame] + [frame[:2]])
    together = model.score_samples(rows, return_error=True)
    alone = [model.score_samples(rows[k : k + 1], return_error=True) for k in range(len(rows))]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=0, atol=1e-9)


def test_errors_of_two_counts_with_wide_cells_are_small_and_true():
    """Pairs of points of a cell say 0.2 nats where one count is narrow; sums over all cells are one."""
    rng = np.random.RandomState(0)
    week, count = rng.randint(1, 6, 120), rng.poisson(1.0, 120)
    frame = pd.DataFrame({"week": week, "count": count})
    model = TableDensity({"week": Integer(1, 5), "count": Integer(0)}).fit(frame)
    cells = pd.DataFrame([(i, j) for i in range(1, 6) for j in range(12)], columns=frame.columns)
    log_density, error = model.score_samples(cells, return_error=True)
    assert error.max() < 0.1
    assert abs(np.exp(log_density).sum() - 1) < 0.002
    (part,) = model.density_.parts
    dense = replace(part, offsets=(np.outer(np.arange(233), [1, 89]) / 233 + 0.5) % 1 - 0.5)
    rows = model.columns_.encode(cells[::6])
    accurate, _ = replace(model.density_, parts=[dense]).log_density(rows)
    assert (np.abs(log_density[::6] - accurate) < 3 * error[::6] + 1e-3).all()


@pytest.mark.parametrize(("value", "width"), [(3.0, 3.0), (0.0, 1.0)])
def test_one_value_beside_an_atom_has_a_gaussian_of_its_own_size(value, width):
    X = pd.DataFrame({"x": np.repeat([5.0, value], [12, 6])})
    with pytest.warns(UserWarning, match=rf"column 'x' has one value .* of width {width:.0f},"):
        model = TableDensity({"x": Continuous(atoms=(5.0,))}).fit(X)
    found = model.score_samples(pd.DataFrame({"x": value + width * np.array([0.0, 1.0, -2.0])}))
    np.testing.assert_allclose(found[1:] - found[0], [-0.5, -2.0], rtol=1e-12)


def test_parts_do_not_change_draws_and_masses_of_levels(monkeypatch):
    rng = np.random.RandomState(0)
    # Levels that depend on one another: else the row that a level is drawn from would not matter.
    first = rng.randint(4, size=60)
    levels = np.column_stack([first % 2, first % 3, first])
    kinds = [2, 3, 4], [False, False, True], [False] * 3
    density = _discrete.LevelDensity.fit(levels, np.ones(60), *kinds)
    given = np.where(rng.uniform(size=(200, 3)) < 0.5, -1, levels[rng.randint(60, size=200)])
    drawn = density.draw(given, np.random.RandomState(1))
    masses = density.log_density(given)
    assert np.array_equal(drawn[given >= 0], given[given >= 0])
    monkeypatch.setattr(_discrete, "_MOST_PAIRS", 3 * len(density.levels))
    assert np.array_equal(density.draw(given, np.random.RandomState(1)), drawn)
    np.testing.assert_allclose(density.log_density(given), masses, rtol=1e-12)


def test_amounts_are_not_drawn_below_zero():
    """Without a bound some of 2000 prices are negative."""
    rng = np.random.RandomState(0)
    price = np.rint(rng.lognormal(7, 0.9, 150)).astype(int)
    frame = pd.DataFrame({"price": price, "age": rng.randint(1, 90, 150)})
    drawn = TableDensity().fit(frame).sample(2000, random_state=0)
    assert drawn.min().min() >= 0
    unbounded = TableDensity({"price": Integer(), "age": Integer()}).fit(frame)
    assert unbounded.sample(2000, random_state=0).min().min() < 0


def test_combinations_of_missing_levels_that_are_omitted_are_in_the_error(monkeypatch):
    """120 combinations of three columns, of which the 64 likeliest are summed."""
    rng = np.random.RandomState(0)
    shares = [np.arange(k, 0, -1) / (k * (k + 1) / 2) for k in (6, 5, 4)]
    u, v, w = (rng.choice(list("abcdef")[: len(p)], 300, p=p) for p in shares)
    x = rng.normal(size=300) + 3 * (u == "a") + 5 * (v == "b") - 4 * (w == "c")
    model = TableDensity(density=KDESampler(0.5)).fit(
        pd.DataFrame({"u": u, "v": v, "w": w, "x": x})
    )
    row = pd.DataFrame({"u": [None], "v": [None], "w": [None], "x": [0.5]}, dtype=object)
    row["x"] = row["x"].astype(float)
    assert len(model.density_._that_matter()) == 3
    found, error = model.score_samples(row, return_error=True)
    monkeypatch.setattr(_density, "_MOST_COMBINATIONS", 1000)
    exact, _ = model.score_samples(row, return_error=True)
    # The error is the loss of the combinations' own masses, which that of their densities at x exceeds.
    assert 0 < exact - found < 2 * error
    # For rows of the density the omitted part has the mass of the levels as its mean.
    rows = model.sample(150, random_state=0).astype(dict.fromkeys("uvw", object))
    rows[list("uvw")] = None
    exact, _ = model.score_samples(rows, return_error=True)
    monkeypatch.setattr(_density, "_MOST_COMBINATIONS", 64)
    found, error = model.score_samples(rows, return_error=True)
    omitted, mass = -np.expm1(found - exact), -np.expm1(-error[0])
    assert abs(omitted.mean() - mass) < 5 * omitted.std() / np.sqrt(150)


@pytest.mark.filterwarnings("ignore:column 'only' holds")
@pytest.mark.parametrize("density", [None, KDESampler(0.5)])
@pytest.mark.parametrize(
    ("value", "other", "kind"),
    [
        (pd.Timestamp("2020-03-01"), pd.Timestamp("2020-03-02"), None),
        (pd.Timestamp("2020-03-01 12:30:11.5", tz="Europe/Berlin"), pd.NaT, None),
        (pd.Timedelta(days=3), pd.Timedelta(days=4), None),
        (3.5, 3.6, Continuous()),
        (7, 8, Integer()),
        (7.5, 7.6, Positive()),
    ],
)
def test_the_only_value_of_a_column_has_probability_one(value, other, kind, density):
    x = np.random.RandomState(0).standard_normal(40)
    frame = pd.DataFrame({"x": x, "only": [value] * 40})
    parameters = {} if density is None else {"density": density}
    # A level that all rows share is of probability one.
    with_level = TableDensity(**parameters).fit(frame.assign(only="a"))
    expected = with_level.score_samples(frame.assign(only="a"))
    model = TableDensity({"only": kind} if kind else None, **parameters).fit(frame)
    np.testing.assert_allclose(model.score_samples(frame), expected, rtol=1e-9)
    assert (model.sample(30, random_state=0)["only"] == value).all()
    # Another value has no probability; a missing one is summed over.
    expected = expected if other is pd.NaT else np.full(40, -np.inf)
    log_density = model.score_samples(frame.assign(only=[other] * 40))
    np.testing.assert_allclose(log_density, expected, rtol=1e-9)
