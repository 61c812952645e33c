"""TableDensity in searches and comparisons."""

import numpy as np
import pandas as pd
import pytest
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
