"""DensityStacking with members that are densities of tables."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import logsumexp
from sklearn.model_selection import GridSearchCV

from skdiffsmooth import KDESampler, LinearObservation, compare, sample
from skdiffsmooth.compose import DensityStacking
from skdiffsmooth.tables import TableDensity, probability


def density(bandwidth):
    return TableDensity({"id": None}, density=KDESampler(bandwidth))


def table(n=90):
    rng = np.random.RandomState(0)
    kind = rng.choice(["cat", "dog"], n)
    frame = pd.DataFrame(
        {
            "id": [f"row {i}" for i in range(n)],
            "kind": kind,
            "mass": rng.standard_t(2, n) + 20 * (kind == "dog"),
        }
    )
    frame.loc[:4, "kind"], frame.loc[5:9, "mass"] = None, np.nan
    return frame


@pytest.fixture(scope="module")
def fitted():
    return DensityStacking([("narrow", density(0.3)), ("wide", density(2.0))], cv=3).fit(table())


def test_the_density_is_the_mixture_of_the_members(fitted):
    frame = table()
    assert np.all(fitted.weights_ > 0)
    np.testing.assert_array_equal(fitted.oof_log_density_.shape, (90, 2))

    def mixture(**options):
        parts = [member.score_samples(frame, **options) for member in fitted.estimators_]
        return logsumexp(np.column_stack(parts) + np.log(fitted.weights_), axis=1)

    np.testing.assert_allclose(fitted.score_samples(frame), mixture(), rtol=1e-12)
    np.testing.assert_allclose(
        fitted.score_samples(frame, columns=["kind"], given=["mass"]),
        mixture() - mixture(columns=["mass"]),
        atol=1e-12,
    )
    reordered = frame[["mass", "kind", "id"]]
    np.testing.assert_array_equal(fitted.score_samples(reordered), fitted.score_samples(frame))
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.score_samples(frame), fitted.score_samples(frame))
    result = compare({"mixture": fitted, "narrow": fitted.estimators_[0]}, frame)
    assert list(result.names) == ["mixture", "narrow"]


def test_draws_are_frames(fitted):
    drawn = fitted.sample(400, random_state=0)
    assert list(drawn) == ["kind", "mass"]
    probabilities = np.exp(fitted.score_samples(pd.DataFrame({"kind": ["dog"], "mass": [np.nan]})))
    assert abs((drawn["kind"] == "dog").mean() - probabilities[0]) < 0.08
    dogs = fitted.sample(50, random_state=0, given={"kind": "dog"})
    assert set(dogs["kind"]) == {"dog"}
    assert dogs["mass"].median() > 15
    kinds = fitted.sample(3, random_state=0, given={"mass": [0.0, 20.0, 0.1]})["kind"]
    assert kinds.tolist() == ["cat", "dog", "cat"]
    pd.testing.assert_frame_equal(sample(fitted, 9, 1), fitted.sample(9, 1))
    assert probability(fitted, {"kind": "dog"}, error=0.05, random_state=0).value > 0.3


def test_members_are_all_densities_of_tables(fitted):
    with pytest.raises(TypeError, match="member 'kde' of type KDESampler is no density of tables"):
        DensityStacking([("table", density(0.3)), ("kde", KDESampler())]).fit(table())
    with pytest.raises(TypeError, match="needs a density of numbers"):
        fitted.log_evidence(LinearObservation([[1.0, 0.0, 0.0]], [0.0], noise=1.0))


def test_prefit_members_and_searches():
    frame = table(60)
    search = GridSearchCV(density(0.3), {"density__bandwidth": [0.3, 1.0]}, cv=2)
    members = [("search", search), ("wide", density(2.0))]
    model = DensityStacking(members, cv=2).fit(frame)
    prefit = DensityStacking(list(model.named_estimators_.items()), cv="prefit").fit(table(30))
    for each in (model, prefit):
        assert list(each.sample(3, random_state=0)) == ["kind", "mass"]


def test_other_libraries():
    frame = table(60).drop(columns="id")[10:].reset_index(drop=True)
    members = [("narrow", density(0.3).set_params(kinds=None))]
    expected = DensityStacking(members, cv=2).fit(frame)
    for other, column in ((pl.from_pandas(frame), "mass"), (frame.to_numpy(dtype=object), 1)):
        model = DensityStacking(members, cv=2).fit(other)
        np.testing.assert_allclose(model.score_samples(other), expected.score_samples(frame))
        np.testing.assert_allclose(
            model.score_samples(other, columns=[column]),
            expected.score_samples(frame, columns=["mass"]),
        )
        assert type(model.sample(2, 0)) is type(other)


def test_a_stack_without_tables_has_no_measure_of_its_own():
    with pytest.raises(AttributeError, match="members are densities of tables"):
        DensityStacking([("kde", KDESampler(0.5))]).base_measure_  # noqa: B018
