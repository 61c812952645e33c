"""Summaries of densities: probabilities, distribution functions, quantiles, marginals, dependence.

Estimates are compared to known values within 4.5 standard errors, which one comparison in 100 000
exceeds; the seeds are fixed.
"""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler
from skdiffsmooth.compose import DensityClassifier
from skdiffsmooth.tables import (
    Ordinal,
    Periodic,
    TableDensity,
    cdf,
    marginal,
    mutual_information,
    probability,
    quantile,
)
from skdiffsmooth.tables._draws import DrawnColumn
from skdiffsmooth.tables._mutual_information import _mixed_terms

N_ERRORS = 4.5
ROWS = np.random.RandomState(0).normal(size=(60, 2)) * [1, 20]
H = 0.7


def _frame(n=200):
    rng = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "city": rng.choice(["Bern", "Graz", "Lyon"], n),
            "grade": rng.choice(["low", "mid", "high"], n, p=[0.5, 0.3, 0.2]),
            "income": np.where(rng.uniform(size=n) < 0.3, 0.0, rng.lognormal(7, 1, n)),
            "children": rng.poisson(1.2, n),
            "hour": rng.normal(0, 2, n) % 24,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.randint(0, 900, n), unit="D"),
            "height": rng.normal(170, 9, n).round(1),
        }
    )


@pytest.fixture(scope="module")
def kde():
    return KDESampler(bandwidth=H).fit(ROWS)


@pytest.fixture(scope="module")
def table():
    kinds = {"hour": Periodic(24), "grade": Ordinal(["low", "mid", "high"])}
    return TableDensity(kinds, density=KDESampler()).fit(_frame())


def _mixture_cdf(x, column=0):
    return norm.cdf(np.asarray(x)[..., None], ROWS[:, column], H).mean(axis=-1)


def test_the_probability_of_a_box_is_its_integral(kde):
    in_columns = [
        norm.cdf(1, ROWS[:, 0], H) - norm.cdf(-0.5, ROWS[:, 0], H),
        norm.cdf(10, ROWS[:, 1], H),
    ]
    value, error = probability(kde, {0: (-0.5, 1), 1: (None, 10)}, error=0.003, random_state=0)
    assert error <= 0.003
    assert abs(value - np.mean(in_columns[0] * in_columns[1])) < N_ERRORS * error


@pytest.mark.parametrize(
    "kind", ["classifier", "pipeline", "search", "mixture", "search of a table"]
)
def test_models_without_a_method_sample_have_the_probabilities_of_their_draws(kind):
    """Of two columns 0 and 20 the model is the distribution of the rows, up to a thousandth."""
    rows = pd.DataFrame(
        ROWS * [1e-2, 1e-3] + np.tile([[0, 0], [1, 20], [1, 20], [1, 20]], (15, 1)),
        columns=["a", "b"],
    )
    scaled = KDESampler("loo", metric="scaled")
    model = {
        "classifier": lambda: DensityClassifier(scaled).fit(rows, rows["a"] > 0.5),
        "pipeline": lambda: make_pipeline(StandardScaler(), KDESampler("loo")).fit(rows),
        "search": lambda: GridSearchCV(scaled, {"metric": ["scaled"]}, cv=2).fit(rows),
        "mixture": lambda: GaussianMixture(2, random_state=0).fit(rows),
        "search of a table": lambda: GridSearchCV(
            TableDensity(density=scaled), {"density": [scaled]}, cv=2
        ).fit(rows),
    }[kind]()
    value, error = probability(
        model, {"a": (0.5, None), "b": (10, None)}, error=0.02, random_state=0
    )
    assert abs(value - 0.75) < N_ERRORS * error
    value, error = quantile(model, "b", [0.1, 0.9], error=0.02, random_state=0)
    assert_allclose(value, [0, 20], atol=0.2)


def test_distribution_function_and_quantile_are_those_of_the_mixture(kde):
    x = np.array([[-1.5, 0.0], [0.4, 2.0]])
    value, error = cdf(kde, 0, x, random_state=0)
    assert value.shape == error.shape == (2, 2)
    assert np.all(np.abs(value - _mixture_cdf(x)) < N_ERRORS * error)
    q = np.array([0.001, 0.1, 0.5, 0.9])
    value, error = quantile(kde, 0, q, random_state=1)
    grid = np.linspace(-8, 8, 4001)
    exact = np.interp(q, _mixture_cdf(grid), grid)
    assert np.all(error > 0)
    assert np.all(np.abs(value - exact) < N_ERRORS * error)


@pytest.fixture(scope="module")
def three_columns():
    rng = np.random.RandomState(0)
    a, noise = rng.normal(size=80), rng.normal(size=(80, 2))
    b = a + noise[:, 0]
    frame = pd.DataFrame({"a": a, "b": 10 * b, "c": np.sin(2 * b) + noise[:, 1] / 2})
    return TableDensity().fit(frame)


def test_a_conditional_distribution_function_is_the_integral_of_the_density(three_columns):
    """The reference implementation sums the density of whole rows over a grid.

    Steps are a fifth of the standard deviations: errors of the sums are below 0.002.
    """
    b, c = np.linspace(-60, 60, 61), np.linspace(-5, 5, 41)
    grid = np.array([each.ravel() for each in np.meshgrid([0.5], b, c, indexing="ij")]).T
    density = np.exp(three_columns.score_samples(pd.DataFrame(grid, columns=list("abc"))))
    masses = density.reshape(len(b), len(c)).sum(axis=1)
    below = (np.cumsum(masses) - masses / 2) / masses.sum()
    x = [-5.0, 5.0, 15.0]
    value, error = cdf(three_columns, "b", x, given={"a": 0.5}, error=0.01, random_state=0)
    assert np.all(np.abs(value - np.interp(x, b, below)) < N_ERRORS * np.hypot(error, 0.002))
    of_quantile, _ = quantile(three_columns, "b", value, given={"a": 0.5}, random_state=1)
    assert np.all(np.abs(np.interp(of_quantile, b, below) - value) < 0.03)


def test_errors_given_numbers_are_not_less_than_the_standard_deviations(three_columns):
    """Equal draws are allowed there, but each counts only as often as proposals are effective."""
    kwargs = {"given": {"a": 0.5}, "error": 0.03}
    estimates = [
        cdf(three_columns, "b", [-5.0, 5.0, 15.0], random_state=seed, **kwargs)
        for seed in range(20)
    ]
    values = np.array([each.value for each in estimates])
    # The root of the mean variance of 3 times 20 values is within 40 % with a probability of 0.999.
    ratios = values.std(axis=0, ddof=1) / estimates[0].error
    assert np.sqrt(np.mean(ratios**2)) < 1.4


def test_errors_are_the_standard_deviations_of_estimates(kde):
    estimates = [quantile(kde, 0, 0.3, error=0.02, random_state=seed) for seed in range(60)]
    value, error = np.array(estimates).T
    # The standard deviation of 60 values is within 30 % with a probability of 0.999.
    assert_allclose(value.std(), error.mean(), rtol=0.3)
    assert probability(kde, {0: (50, 60)}, random_state=0).error > 0


def test_names_of_columns_of_a_frame_are_accepted_for_a_density_of_arrays():
    model = KDESampler(bandwidth=H).fit(pd.DataFrame(ROWS, columns=["a", "b"]))
    event = {"b": (0, None)}
    value, error = probability(model, event, random_state=0)
    assert abs(value - (1 - _mixture_cdf(0.0, 1))) < N_ERRORS * error
    by_given = probability(model, event, given={"a": 0.5}, random_state=0)
    weights = norm.pdf(0.5, ROWS[:, 0], H)
    exact = np.average(norm.sf(0, ROWS[:, 1], H), weights=weights)
    assert abs(by_given.value - exact) < N_ERRORS * by_given.error


def test_probabilities_of_levels_cells_and_atoms_are_those_of_the_density(table):
    query = _frame()[:1].assign(city="Graz", grade="mid", income=0.0, children=2, height=170.5)
    for columns in (["city"], ["income"], ["children"], ["height"], ["city", "grade"]):
        event = {name: query[name][0] for name in columns}
        value, error = probability(table, event, random_state=0)
        exact = np.exp(table.score_samples(query, columns=columns)[0])
        assert abs(value - exact) < N_ERRORS * error, columns


def test_conditions_of_every_kind(table):
    drawn = table.sample(10_000, random_state=0)
    masks = {
        "city": (["Bern", "Lyon"], drawn["city"] != "Graz"),
        "grade": (("mid", None), drawn["grade"] != "low"),
        "income": ((None, 1000), drawn["income"] <= 1000),
        "children": ((1, 2), drawn["children"].isin([1, 2])),
        "hour": ((22, 2), (drawn["hour"] >= 22) | (drawn["hour"] <= 2)),
        "since": ((None, pd.Timestamp("2021-01-01")), drawn["since"] <= "2021-01-01"),
        "height": ((170.1, 170.3), drawn["height"].between(170.09, 170.31)),
    }
    everything = np.ones(len(drawn), dtype=bool)
    for name, (condition, mask) in masks.items():
        assert probability(table, {name: condition}, random_state=0).value == mask.mean(), name
        everything &= mask
    event = {name: condition for name, (condition, _) in masks.items()}
    assert probability(table, event, random_state=0).value == everything.mean()


def test_dates_and_ordered_levels_have_distribution_functions(table):
    assert cdf(table, "grade", ["low", "high"], random_state=0).value[1] == 1
    value, error = quantile(table, "since", 0.5, random_state=0)
    assert abs(value - np.datetime64("2021-03-25")) < np.timedelta64(60, "D")
    assert np.timedelta64(0, "D") < error < np.timedelta64(30, "D")
    below = cdf(table, "since", value, random_state=0)
    assert 0.5 <= below.value < 0.51


def test_dates_with_a_time_zone_are_instants(recwarn):
    frame = _frame()[["since"]]
    frame["since"] = frame["since"].dt.tz_localize("UTC").dt.tz_convert("Europe/Vienna")
    model = TableDensity(density=KDESampler()).fit(frame)
    bound = pd.Timestamp("2021-01-01 00:30", tz="Europe/Vienna")
    drawn = model.sample(10_000, random_state=0)["since"]
    value = probability(model, {"since": (bound, None)}, random_state=0).value
    assert value == (drawn >= bound).mean()
    midnight = pd.Timestamp("2021-01-01 01:00", tz="Europe/Vienna")
    given = model.columns_.encode_given({"since": midnight}, 1)
    assert model.columns_.decode(given)["since"][0] == midnight
    first = drawn[:3]
    for dates in (first, first.to_numpy(), list(first), pd.DatetimeIndex(first)):
        encoded = model.columns_.encode_given({"since": dates}, 3)
        assert list(model.columns_.decode(encoded)["since"]) == list(first)
        assert cdf(model, "since", dates, random_state=0).value.shape == (3,)
    assert not recwarn.list


def test_a_marginal_has_the_probabilities_of_its_parts(table):
    for columns in (["income"], ["city", "children"], ["since"], ["height"], ["hour"]):
        parts, probabilities, error = marginal(table, columns, error=0.02, random_state=0)
        assert probabilities.shape == error.shape == tuple(map(len, parts))
        assert_allclose(probabilities.sum(), 1, atol=1e-12)
        for position in np.ndindex(*probabilities.shape):
            event = {name: parts[axis][position[axis]] for axis, name in enumerate(columns)}
            value, own_error = probability(table, event, error=0.02, random_state=0)
            assert_allclose(
                (value, own_error), (probabilities[position], error[position]), atol=1e-12
            )
    assert 0.0 in marginal(table, ["income"], random_state=0).parts[0]
    (_, second), both, _ = marginal(table, ["children", "city"], error=0.02, random_state=0)
    assert second == ["Bern", "Graz", "Lyon"]
    turned = marginal(table, ["city", "children"], error=0.02, random_state=0).probability
    assert_allclose(both.T, turned, atol=0)


class _Pairs(BaseEstimator):
    """A distribution of two columns, as a fitted density."""

    def __init__(self, draw):
        self.draw = draw

    def fit(self, X):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def sample(self, n_samples, random_state):
        return pd.DataFrame(dict(zip("ab", self.draw(random_state, n_samples), strict=True)))


def _gaussian(correlation):
    def draw(rng, n):
        x = rng.normal(size=(n, 2))
        # Neither the units nor a monotone map of a column matter.
        return np.exp(x[:, 0]), 1e6 * (
            correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
        )

    return draw


def _levels(rng, n):
    a = rng.randint(0, 3, n)
    b = np.where(rng.uniform(size=n) < 0.7, a, rng.randint(0, 3, n))
    return np.array(list("xyz"))[a], np.array(list("uvw"))[b]


def _shifted(rng, n):
    a = rng.randint(0, 2, n)
    return np.array(list("xy"))[a], rng.uniform(size=n) + 0.5 * a


def _zeros(rng, n):
    x, y = _gaussian(0.8)(rng, n)
    is_zero = rng.uniform(size=n) < 0.3
    return np.where(is_zero, 0, x), np.where(is_zero, 0, y)


PAIRS = {
    "independent numbers": (_gaussian(0), 0),
    "a correlation of 0.5": (_gaussian(0.5), -0.5 * np.log(1 - 0.5**2)),
    "a correlation of 0.95": (_gaussian(0.95), -0.5 * np.log(1 - 0.95**2)),
    "independent counts": (lambda rng, n: (rng.poisson(2, n), rng.poisson(5, n)), 0),
    "a count and a number": (lambda rng, n: (rng.poisson(2, n), rng.normal(size=n)), 0),
    "levels": (_levels, 0.8 * np.log(2.4) + 0.2 * np.log(0.3)),
    "levels and numbers": (_shifted, 0.5 * np.log(2)),
    "zeros": (_zeros, -0.3 * np.log(0.3) - 0.7 * np.log(0.7) - 0.35 * np.log(1 - 0.64)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_mutual_information_is_the_known_one(name):
    draw, exact = PAIRS[name]
    value, error = mutual_information(_Pairs(draw), "a", "b", random_state=0)
    assert 0 < error < 0.02
    assert abs(value - exact) < N_ERRORS * error
    assert_allclose(
        mutual_information(_Pairs(draw), "b", "a", random_state=0).value, value, atol=1e-9
    )


@pytest.mark.parametrize("unit", [0.01, 0.05, 0.1])
def test_mutual_information_does_not_depend_on_fine_rounding(unit):
    """With ties it was up to 0.25 nats off."""
    exact = np.column_stack(_gaussian(0.83)(np.random.RandomState(0), 5000))
    rounded = np.round(exact / unit) * unit
    columns = (
        DrawnColumn(k, values, None, False, (), unit, None, k) for k, values in enumerate(rounded.T)
    )
    terms = _mixed_terms(*(column.coordinates() for column in columns))
    # The standard error of the mean of 5000 terms is 0.015.
    assert terms.mean() == pytest.approx(-0.5 * np.log(1 - 0.83**2), abs=0.05)


def test_mutual_information_of_a_copy_is_reported_as_unbounded():
    copies = _Pairs(lambda rng, n: 2 * (rng.normal(size=n),))
    with pytest.warns(UserWarning, match="may determine"):
        assert mutual_information(copies, "a", "b", random_state=0).value > 3


def test_mutual_information_of_columns_of_a_table(table):
    value, error = mutual_information(table, "city", "income", random_state=0)
    assert value < 0.1
    assert error < 0.1


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ({"town": "Bern"}, ValueError, "'town' is not known"),
        ({}, ValueError, "event is empty"),
        ([("city", "Bern")], TypeError, "mapping"),
        ({"city": []}, ValueError, "'city'.*is empty"),
        ({"city": "Oslo"}, ValueError, "no level 'Oslo'"),
        ({"city": ("Bern", "Graz")}, ValueError, "without an order"),
        ({"grade": ("high", "low")}, ValueError, "lower end is above"),
        ({"children": (3, 1)}, ValueError, "lower end is above"),
        ({"children": (1, 2, 3)}, ValueError, "tuple of 3"),
        ({"children": np.nan}, ValueError, "NaN"),
        ({"children": "two"}, ValueError, "'children'"),
        ({"income": 500.5}, ValueError, "probability zero"),
        ({"income": (500.5, 500.5)}, ValueError, "probability zero"),
        ({"hour": (-2, 2)}, ValueError, "outside the period"),
        ({"since": ("yesterday", None)}, ValueError, "'since'"),
    ],
)
def test_an_event_that_cannot_be_is_an_error_that_names_the_column(table, event, error, message):
    with pytest.raises(error, match=message):
        probability(table, event, error=0.05, random_state=0)


def test_other_bad_input_is_an_error(table, kde):
    with pytest.raises(NotFittedError):
        probability(TableDensity(), {"a": 1})
    with pytest.raises(TypeError, match="type object; expected a fitted density"):
        probability(object(), {"a": 1})
    with pytest.raises(ValueError, match=r"^column 'a' is a name"):
        cdf(kde, "a", 0.0, error=0.05)
    with pytest.raises(ValueError, match="error needs"):
        probability(kde, {0: (0, 1)}, error=1e-5)
    with pytest.raises(ValueError, match="error=-1"):
        cdf(kde, 0, 0.0, error=-1)
    with pytest.raises(ValueError, match="expected probabilities in"):
        quantile(kde, 0, 1.0)
    with pytest.raises(ValueError, match="'grade' has levels"):
        quantile(table, "grade", 0.5, error=0.05)
    with pytest.raises(ValueError, match="out of range"):
        cdf(kde, 2, 0.0, error=0.05)
    with pytest.raises(ValueError, match="names a column twice"):
        mutual_information(kde, 0, 0)
    with pytest.raises(ValueError, match="3 columns"):
        marginal(table, ["city", "grade", "hour"], error=0.05)


def test_numbers_are_drawn_only_where_they_matter(monkeypatch):
    rng = np.random.RandomState(0)
    kind = rng.choice(["cat", "dog"], size=80)
    frame = pd.DataFrame({"kind": kind, "mass": rng.normal(3.0 * (kind == "dog"), 1.0)})
    model = TableDensity(density=KDESampler(0.5)).fit(frame)
    given = {"mass": 1.0}
    drawn = model.sample(10_000, 0, given=given)["kind"] == "dog"
    monkeypatch.setattr(type(model.density_), "draw_missing", None)
    value, _ = probability(model, {"kind": "dog"}, given=given, random_state=0)
    assert value == drawn.mean()
