"""Classifier and outlier detector over TableDensity, on frames."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skdiffsmooth import KDESampler, sample
from skdiffsmooth.compose import DensityClassifier, DensityOutlierDetector
from skdiffsmooth.tables import DensityImputer, DensityOverSampler, TableDensity


def density(**kinds):
    return TableDensity(kinds or None, density=KDESampler(bandwidth="loo"))


def frame(n=120, seed=0):
    rng = np.random.RandomState(seed)
    label = rng.choice(["ham", "spam"], n)
    is_spam = label == "spam"
    X = pd.DataFrame(
        {
            "sender": np.where(rng.uniform(size=n) < 0.8, np.where(is_spam, "new", "old"), "bot"),
            "length": rng.normal(is_spam * 2.0, 1.0, n),
        }
    )
    X.loc[:4, "sender"] = None
    X.loc[5:9, "length"] = np.nan
    return X, label


def test_classifier_on_a_frame():
    X, y = frame()
    model = DensityClassifier(density()).fit(X, y)
    assert model.score(X, y) > 0.85
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    # Bayes' rule: the mixture of the classes' densities.
    joint = np.column_stack([member.score_samples(X) for member in model.estimators_])
    log_density = np.logaddexp.reduce(joint + np.log(model.class_prior_), axis=1)
    np.testing.assert_allclose(model.score_samples(X), log_density, rtol=1e-12)
    # Kinds are those of the whole table: levels that a class lacks have a probability.
    assert len({str(member.columns_.kinds) for member in model.estimators_}) == 1
    np.testing.assert_array_equal(model.predict(X.iloc[:, ::-1]), model.predict(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), proba)


def test_classifier_draws_frames():
    X, y = frame()
    model = DensityClassifier(density()).fit(X, y)
    drawn, labels = model.sample(200, random_state=0)
    assert list(drawn) == list(X)
    assert model.score(drawn, labels) > 0.85
    given, labels = model.sample(200, random_state=0, given={"sender": "old"})
    assert set(given["sender"]) == {"old"}
    assert np.mean(labels == "ham") > 0.85


def test_classifier_with_some_columns():
    X, y = frame()
    model = DensityClassifier(density()).fit(X, y)
    alone = X.assign(length=np.nan)
    np.testing.assert_allclose(
        model.predict_proba(X, columns=["sender"]), model.predict_proba(alone), rtol=1e-9
    )


def test_classifier_on_polars_and_arrays():
    X, y = frame()
    X = X.iloc[10:].reset_index(drop=True)
    expected = DensityClassifier(density()).fit(X, y[10:]).predict_proba(X)
    for table in (pl.from_pandas(X), X.to_numpy(dtype=object)):
        model = DensityClassifier(density()).fit(table, y[10:])
        np.testing.assert_allclose(model.predict_proba(table), expected, rtol=1e-9)


def test_classifier_in_searches():
    X, y = frame(60)
    pipeline = make_pipeline(
        DensityImputer(density(), random_state=0), DensityClassifier(density())
    )
    grid = {"densityclassifier__priors": [None, [0.5, 0.5]]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.score(X, y) > 0.8
    search = GridSearchCV(density(), {"density__bandwidth": [0.3, 0.6]}, cv=2, error_score="raise")
    assert np.isfinite(search.fit(X).best_score_)


def outliers():
    X, _ = frame(120)
    X = X.iloc[10:].reset_index(drop=True)
    odd = pd.DataFrame({"sender": ["old", "new", "old"], "length": [9.0, -6.0, 0.1]})
    return X, odd


def test_outliers_of_a_frame():
    X, odd = outliers()
    detector = DensityOutlierDetector(density(), contamination=0.05, cv=4).fit(X)
    assert detector.predict(odd).tolist() == [-1, -1, 1]
    assert np.mean(detector.predict(X) == -1) <= 0.05
    np.testing.assert_allclose(detector.score_samples(X), detector.held_out_log_density_)


def test_which_column_makes_a_row_unusual():
    X, odd = outliers()
    detector = DensityOutlierDetector(density(), cv=3).fit(X)
    nats = detector.attribute(odd)
    assert nats.shape == (3, 2)
    assert nats[:2].argmin(axis=1).tolist() == [1, 1]
    assert nats[2].min() > -3 > nats[:2].min(axis=1).max()
    # Relative to the mean over rows that the density draws.
    drawn = detector.estimator_.sample(32, 0)
    np.testing.assert_allclose(detector.attribute(drawn).mean(axis=0), 0, atol=1e-9)
    # A column of numbers, with a density of ours: the definition.
    Z = np.random.RandomState(0).normal(size=(100, 2))
    detector = DensityOutlierDetector(KDESampler(0.5)).fit(Z)
    nats, model = detector.attribute([[0, 4], [3, 0]]), detector.estimator_
    assert nats.argmin(axis=1).tolist() == [1, 0]
    queries = [[0.0, 4.0], [3.0, 0.0], [0.0, 0.0]]
    given = model.score_samples(queries, columns=[1], given=[0])
    with pytest.warns(
        UserWarning, match="2 of 3 rows of X are training rows.*Fit the detector on the other"
    ):
        detector.attribute([*Z[:2], [0.0, 0.0]])
    np.testing.assert_allclose(
        np.diff(detector.attribute(queries)[:, 1]), np.diff(given), rtol=1e-9
    )


def test_a_missing_cell_makes_no_row_unusual():
    X, odd = outliers()
    detector = DensityOutlierDetector(density(), cv=3).fit(X)
    nats = detector.attribute(odd.assign(length=np.nan))
    np.testing.assert_array_equal(nats[:, 1], 0.0)
    assert np.all(nats[:, 0] != 0)


@pytest.mark.parametrize("make", [DensityClassifier, DensityOutlierDetector])
def test_new_levels_are_an_error(make):
    X, y = frame()
    model = make(density()).fit(X, y)
    with pytest.raises(ValueError, match="column 'sender' holds 'me'"):
        model.predict(X.assign(sender="me"))


def test_columns_that_are_left_out():
    X, y = frame()
    X = X.assign(id=[f"row {i}" for i in range(len(X))])[["id", "sender", "length"]]
    own = density(id=None)
    model = DensityClassifier(own).fit(X, y)
    without = DensityClassifier(density()).fit(X.drop(columns="id"), y)
    for options in ({}, {"columns": ["sender"]}):
        np.testing.assert_allclose(
            model.predict_proba(X, **options),
            without.predict_proba(X.drop(columns="id"), **options),
        )
    detector = DensityOutlierDetector(own, cv=3).fit(X[5:])
    assert detector.attribute(X[10:11].assign(length=9.0)).shape == (1, 2)


def test_the_function_sample_draws_frames():
    X, y = frame()
    model = density().fit(X)
    expected = model.sample(20, np.random.RandomState(3), given={"sender": "old"})
    search = GridSearchCV(density(), {"random_state": [0]}, cv=2).fit(X)
    for fitted in (model, make_pipeline("passthrough", model), search):
        drawn = sample(fitted, 20, 3, given={"sender": "old"})
        pd.testing.assert_frame_equal(drawn, expected)
        pd.testing.assert_frame_equal(
            sample(fitted, 20, 3, given={"sender": "old"}, output="pandas"), expected
        )
    converted = sample(model, 20, 3, given={"sender": "old"}, output="polars")
    assert converted["sender"].to_list() == list(expected["sender"])
    np.testing.assert_array_equal(converted["length"], expected["length"])
    of_polars = density().fit(pl.DataFrame({name: list(X[name][10:]) for name in X}))
    assert isinstance(sample(of_polars, 3, 0), pl.DataFrame)
    assert list(sample(of_polars, 3, 0, output="pandas")) == ["sender", "length"]
    of_array = TableDensity().fit(X[10:].to_numpy(dtype=object))
    assert sample(of_array, 3, 0).dtype == object
    assert sample(of_array, 3, 0, output="pandas").shape == (3, 2)
    classifier = DensityClassifier(density()).fit(X, y)
    rows, labels = sample(classifier, 30, 0)
    drawn = sample(classifier, 30, 0, output="pandas")
    pd.testing.assert_frame_equal(drawn, rows.assign(target=labels))
    # In random order, with an index that counts them.
    np.testing.assert_array_equal(drawn.index, np.arange(30))
    assert 0 < np.mean(labels[:15] == "ham") < 1
    with_labels = sample(classifier, 30, 0, output="polars")
    assert with_labels["target"].to_list() == list(labels)


def test_a_class_may_have_all_rows_at_an_atom():
    """Nothing is spent without a card: the probability of such a row is zero, and none is drawn."""
    rng = np.random.RandomState(0)
    y = np.repeat(["no", "yes"], 40)
    spent = np.where((y == "no") | (rng.uniform(size=80) < 0.3), 0.0, rng.lognormal(size=80))
    X = pd.DataFrame({"spent": spent, "age": rng.normal(40, 9, 80)})
    model = DensityClassifier(TableDensity(density=KDESampler())).fit(X, y)
    probability = model.predict_proba(X)[:, 0]
    assert np.all(probability[spent > 0] == 0)
    assert np.all(probability[spent == 0] > 0.5)
    assert np.all(model.estimators_[0].sample(50, random_state=0)["spent"] == 0)


def test_no_estimator_modifies_a_frame():
    X, y = frame()
    before = X.copy(deep=True)
    density().fit(X).score_samples(X)
    DensityImputer(density(), random_state=0).fit(X).transform(X)
    DensityClassifier(density()).fit(X, y).predict(X)
    DensityOutlierDetector(density(), cv=3).fit(X).attribute(X[:2])
    rare = np.arange(len(X)) % 4 == 0
    DensityOverSampler(density(), random_state=0).fit_resample(X, rare)
    pd.testing.assert_frame_equal(X, before)
