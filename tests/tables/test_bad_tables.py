"""Bad tables, as all estimators that take tables report them."""

import numpy as np
import pandas as pd
import pytest

from skdiffsmooth import KDESampler
from skdiffsmooth.compose import DensityClassifier, DensityOutlierDetector, DensityStacking
from skdiffsmooth.tables import (
    DensityImputer,
    DensityOverSampler,
    Interval,
    Periodic,
    TableDensity,
)

N = 40
Y = np.where(np.arange(N) % 4 == 0, "yes", "no")


def density(kinds=None):
    return TableDensity(kinds, density=KDESampler("scott"))


def good():
    rng = np.random.RandomState(0)
    days = pd.to_timedelta(rng.randint(0, 400, N), unit="D")
    return pd.DataFrame(
        {
            "kind": rng.choice(["a", "b"], N),
            "mass": rng.lognormal(0, 1, N),
            "hour": rng.uniform(0, 24, N),
            "since": pd.Timestamp("2020-01-01") + days,
        }
    )


FITS = {
    "density": lambda model, X: model.fit(X),
    "imputer": lambda model, X: DensityImputer(model, random_state=0).fit(X),
    "classifier": lambda model, X: DensityClassifier(model).fit(X, Y[: len(X)]),
    "outlier": lambda model, X: DensityOutlierDetector(model, cv=2).fit(X),
    "stacking": lambda model, X: DensityStacking([("table", model)], cv=2).fit(X),
    "sampler": lambda model, X: DensityOverSampler(model).fit_resample(X, Y[: len(X)]),
}


def renamed(X):
    return X.set_axis(["kind", "mass", "mass", "since"], axis=1)


BAD_TRAINING = {
    "an identifier": (lambda X: X.assign(id=[f"r{i}" for i in range(N)]), None, "'id'.*identifier"),
    "no value": (lambda X: X.assign(empty=np.nan), None, "'empty' of X has no value"),
    "several types": (lambda X: X.assign(kind=[1, "x"] * (N // 2)), None, "'kind'.*several types"),
    "one name twice": (renamed, None, "several columns with the name 'mass'"),
    "beyond bounds": (lambda X: X, {"mass": Interval(0, 1)}, "'mass' holds.*outside the bounds"),
    "no columns": (lambda X: X[[]], None, r"X has 0 feature\(s\) \(shape="),
    "an unknown column": (lambda X: X, {"nope": Periodic(24)}, "column 'nope', which X lacks"),
}


@pytest.mark.filterwarnings("ignore:column 'since' holds")
@pytest.mark.parametrize("bad", BAD_TRAINING)
@pytest.mark.parametrize("fit", FITS)
def test_training_tables(fit, bad):
    change, kinds, message = BAD_TRAINING[bad]
    X = change(good())
    before = X.copy(deep=True)
    with pytest.raises(ValueError, match=message):
        FITS[fit](density(kinds), X)
    pd.testing.assert_frame_equal(X, before)


@pytest.mark.parametrize("fit", FITS)
def test_an_empty_row_and_one_level_warn_once(fit):
    X = good().assign(one="x")
    X.loc[3] = None
    before = X.copy(deep=True)
    with pytest.warns(UserWarning, match="column .one. holds") as caught:
        FITS[fit](density(), X)
    messages = [str(each.message)[:20] for each in caught]
    assert sorted(messages) == ["1 of 40 rows of X ha", "column 'one' holds '"]
    pd.testing.assert_frame_equal(X, before)


@pytest.fixture(scope="module")
def fitted():
    X, kinds = good(), {"hour": Periodic(24)}
    models = {name: fit(density(kinds), X) for name, fit in FITS.items() if name != "sampler"}
    return {
        "density": models["density"].score_samples,
        "impute": models["density"].impute,
        "imputer": models["imputer"].transform,
        "classifier": models["classifier"].predict_proba,
        "outlier": models["outlier"].predict,
        "attribute": models["outlier"].attribute,
        "stacking": models["stacking"].score_samples,
    }


FAR = np.array(["9999-12-31"] * 4, dtype="datetime64[s]")
BAD_QUERIES = {
    "a new level": (lambda X: X.assign(kind="zz"), "'kind' holds 'zz'.*none of its 2 levels"),
    "below zero": (lambda X: X.assign(mass=-1.0), "'mass' holds -1.*outside the bounds"),
    "text": (lambda X: X.assign(mass="x"), "'mass' of X holds labels.*expected numbers"),
    "infinity": (lambda X: X.assign(mass=np.inf), "'mass' of X holds infinity"),
    "one name twice": (renamed, "several columns with the name 'mass'"),
    "a column less": (lambda X: X.drop(columns="mass"), "X lacks 'mass'"),
    "a column more": (lambda X: X.assign(more=1), "X has 'more', which the training table lacks"),
    "no rows": (lambda X: X[:0], r"X has 0 sample\(s\)"),
    "one column alone": (lambda X: X["mass"], r"shape \(4,\); expected 2D array"),
}


@pytest.mark.parametrize("bad", BAD_QUERIES)
def test_queries(fitted, bad):
    change, message = BAD_QUERIES[bad]
    for name, query in fitted.items():
        X = change(good()[:4])
        before = X.copy(deep=True)
        with pytest.raises(ValueError, match=message):
            query(X)
        assert X.equals(before), name


def test_given_values_that_are_infinite_name_their_column(fitted):
    model = fitted["density"].__self__
    with pytest.raises(ValueError, match="column 'mass' of X holds infinity"):
        model.sample(2, given={"mass": np.inf})


@pytest.mark.filterwarnings("ignore:given values of")
def test_what_is_far_or_missing_is_scored(fitted):
    X = good()[:4]
    X.loc[0] = None
    for query in fitted.values():
        for change in ({"since": FAR}, {"hour": 30.0}, dict.fromkeys(X, None)):
            result = query(X.assign(**change).astype(X.dtypes))
            assert len(result) == 4
