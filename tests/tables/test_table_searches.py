"""TableDensity in searches and comparisons."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate

from skdiffsmooth import KDESampler, compare
from skdiffsmooth.compose import DensityClassifier, DensityOutlierDetector, DensityStacking
from skdiffsmooth.tables import TableColumns, TableDensity


def _frame(n=90):
    rng = np.random.RandomState(0)
    income = rng.lognormal(size=n)
    # Twelve equal values, all of which are test rows of the first fold: no atom is found there.
    income[:12] = 0.5
    return pd.DataFrame({"income": income, "age": rng.normal(size=n)})


def test_candidates_of_a_fold_have_one_measure():
    frame, folds = _frame(), KFold(3)
    measures = []
    for bandwidth in (0.2, 0.6):
        model = TableDensity(density=KDESampler(bandwidth))
        fitted = cross_validate(model, frame, cv=folds, return_estimator=True)["estimator"]
        measures.append([each.base_measure_ for each in fitted])
    assert measures[0] == measures[1]
    assert measures[0][0] != measures[0][1]
    grid = {"density__bandwidth": [0.2, 0.6]}
    search = GridSearchCV(TableDensity(density=KDESampler()), grid, cv=folds).fit(frame)
    assert np.isfinite(search.best_score_)


def test_exact_numbers_compare_with_densities_of_arrays():
    frame = pd.DataFrame(np.random.RandomState(0).normal(size=(80, 2)), columns=["a", "b"])
    models = {"table": TableDensity(density=KDESampler()), "kde": KDESampler()}
    for model in models.values():
        model.fit(frame[:40])
    result = compare(models, frame[40:])
    np.testing.assert_allclose(
        result.log_density[:, 0], models["table"].score_samples(frame[40:]), rtol=1e-12
    )


def test_declared_kinds_are_those_of_all_folds():
    frame = _frame()
    model = TableDensity(TableColumns.fit(frame).kinds, density=KDESampler(0.3))
    fitted = cross_validate(model, frame, cv=KFold(3), return_estimator=True)["estimator"]
    whole = TableDensity(density=KDESampler(0.3)).fit(frame)
    assert [each.base_measure_ for each in fitted] == [whole.base_measure_] * 3


def _rare(dtype):
    rng = np.random.RandomState(0)
    letters = np.array(["a", "b"] * 30, dtype=object)
    letters[[0, 59]] = "first", "last"
    return pd.DataFrame({"letter": letters, "x": rng.normal(size=60)}).astype({"letter": dtype})


@pytest.mark.parametrize(("dtype", "new_levels"), [("object", "missing"), ("category", "error")])
def test_levels_that_folds_lack_do_not_stop_a_search(dtype, new_levels):
    frame = _rare(dtype)
    model = TableDensity(density=KDESampler(0.3), new_levels=new_levels)
    search = GridSearchCV(model, {"density__bandwidth": [0.2, 0.6]}, cv=KFold(3)).fit(frame)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    y = np.arange(60) % 3
    assert np.isfinite(
        cross_validate(DensityClassifier(model), frame, y, cv=KFold(3))["test_score"]
    ).all()


def test_without_it_the_error_names_both_remedies():
    frame = _rare("object")
    model = TableDensity(density=KDESampler(0.3)).fit(frame[1:])
    with pytest.raises(
        ValueError, match=r"TableColumns.fit\(table\).kinds; or pass new_levels='missing'"
    ):
        model.score_samples(frame)


@pytest.mark.parametrize("dtype", ["object", "category"])
def test_new_levels_have_the_probability_of_half_a_row(dtype):
    frame = _rare(dtype)
    model = TableDensity(density=KDESampler(0.3), new_levels="missing").fit(frame[1:])
    queries = pd.concat([frame[:1].assign(letter=letter) for letter in ("first", "a", "b", "last")])
    queries = queries.astype({"letter": frame["letter"].dtype})
    joint, levels = model.score_samples(queries), model.score_samples(queries, columns=["letter"])
    assert abs(np.exp(levels[0]) - 0.5 / 59.5) < 1e-15
    # All values of the column together, new ones as one of them.
    np.testing.assert_allclose(np.exp(levels).sum(), 1, rtol=1e-9)
    given = model.score_samples(queries[:1], given=["letter"])
    x = model.score_samples(queries[:1], columns=["x"])
    np.testing.assert_allclose([given[0], joint[0]], [x[0], x[0] + levels[0]], rtol=1e-9)
    # Two equal rows that count as one of weight two, or three with one of weight zero, change nothing.
    weighted = TableDensity(density=KDESampler(0.3), new_levels="missing")
    weighted.fit(frame, sample_weight=np.arange(60) > 0)
    np.testing.assert_allclose(weighted.score_samples(queries), joint, rtol=1e-9)
    assert model.impute(queries.assign(x=np.nan), random_state=0)["letter"].tolist()[0] == "first"
    assert "first" not in set(model.sample(300, random_state=0)["letter"])


def test_a_new_level_makes_its_column_unusual():
    frame = _rare("object")
    detector = DensityOutlierDetector(
        TableDensity(density=KDESampler(0.3), new_levels="missing"), cv=3
    )
    nats = detector.fit(frame[1:]).attribute(frame[:1].assign(x=10.0, letter=["first"]))
    assert nats[0, 0] < -2


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: DensityStacking([("a", model), ("b", model)], cv=KFold(2)),
        lambda model: GridSearchCV(model, {"density__bandwidth": [0.2, 0.6]}, cv=2),
    ],
)
def test_parts_of_a_table_have_one_measure(wrap):
    frame = _frame()
    # Each class has rows without the atom, and with it.
    y = np.arange(len(frame)) % 2
    whole = TableDensity(density=KDESampler(0.3)).fit(frame)
    model = wrap(TableDensity(density=KDESampler(0.3)))
    members = DensityClassifier(model).fit(frame, y).estimators_
    inner = [getattr(each, "best_estimator_", each) for each in members]
    assert [each.base_measure_ for each in inner] == [whole.base_measure_] * 2
    detector = DensityOutlierDetector(model, cv=KFold(2)).fit(frame)
    assert np.isfinite(detector.held_out_log_density_).all()


def test_weights_reach_a_search_by_routing():
    frame, weights = _frame(), np.where(np.arange(90) % 3, 1.0, 3.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = TableDensity(density=KDESampler()).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"density__bandwidth": [0.2, 0.6]}, cv=KFold(3))
        search.fit(frame, sample_weight=weights)
    expected = search.best_estimator_.score_samples(frame)
    again = clone(search.best_estimator_)
    np.testing.assert_array_equal(
        again.fit(frame, sample_weight=weights).score_samples(frame), expected
    )
    assert not np.allclose(again.fit(frame).score_samples(frame), expected)
