"""DensityOverSampler: imbalanced-learn's own checks, and frames that keep their types."""

import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier

from skdiffsmooth import KDESampler, tables
from skdiffsmooth.tables import DensityImputer, DensityOverSampler, TableDensity


def sampler(**options):
    return DensityOverSampler(TableDensity(density=KDESampler(0.5)), random_state=0, **options)


@parametrize_with_checks([sampler()])
def test_the_checks_of_imbalanced_learn(estimator, check):
    with warnings.catch_warnings():
        # Of tables with few rows.
        warnings.simplefilter("ignore", UserWarning)
        check(estimator)


def frame(n=120, seed=0):
    rng = np.random.RandomState(seed)
    y = np.where(rng.uniform(size=n) < 0.2, "yes", "no")
    X = pd.DataFrame(
        {
            "kind": pd.Categorical(rng.choice(["a", "b"], n), categories=["b", "a"]),
            "count": rng.poisson(2 + 4 * (y == "yes")),
            "mass": rng.lognormal(y == "yes", 0.3),
            "flag": rng.uniform(size=n) < 0.5,
        }
    )
    return X, y


def test_drawn_rows_are_like_those_of_their_class():
    X, y = frame(400)
    more, labels = sampler().fit_resample(X, y)
    assert more.dtypes.equals(X.dtypes)
    pd.testing.assert_frame_equal(more[: len(X)], X)
    assert dict(zip(*np.unique(labels, return_counts=True), strict=True)) == {
        "no": np.sum(y == "no"),
        "yes": np.sum(y == "no"),
    }
    drawn, own = more[len(X) :], X[y == "yes"]
    assert (drawn["count"] >= 0).all()
    # Standard errors of means: about 0.3 counts of some 80 rows, plus those of the draws.
    assert drawn["count"].mean() == pytest.approx(own["count"].mean(), abs=1.0)
    assert np.log(drawn["mass"]).mean() == pytest.approx(np.log(own["mass"]).mean(), abs=0.15)


def test_a_density_of_arrays_draws_frames_with_rounded_integers():
    """imbalanced-learn converts by truncation, which would lower counts by half a unit."""
    rng = np.random.RandomState(0)
    y = np.repeat(["no", "yes"], [400, 60])
    X = pd.DataFrame({"size": rng.normal(size=460), "count": rng.poisson(6, 460)})
    density = DensityOverSampler(KDESampler("loo", metric="scaled"), random_state=0)
    more, labels = density.fit_resample(X.assign(flag=X["size"] > 0), y)
    assert more.dtypes.tolist() == [float, int, bool]
    assert np.sum(labels == "yes") == 400
    drawn, own = more[460:], X[y == "yes"]
    # Four standard errors of the mean of 340 draws.
    assert abs(drawn["count"].mean() - own["count"].mean()) < 4 * 2.6 / np.sqrt(340)
    assert abs(drawn["flag"].mean() - (own["size"] > 0).mean()) < 4 * 0.5 / np.sqrt(340)


def test_frames_of_polars_are_refused():
    X, y = frame()
    with pytest.raises(TypeError, match=r"polars.*X.to_pandas\(\)"):
        sampler().fit_resample(pl.DataFrame({"mass": X["mass"].to_numpy()}), y)


def test_missing_cells_are_kept():
    X, y = frame()
    X.loc[:5, "mass"] = np.nan
    more, _ = sampler().fit_resample(X, y)
    assert more["mass"].isna().sum() == 6


def test_in_a_pipeline():
    X, y = frame()
    X = X[["count", "mass"]]
    X.loc[:5, "mass"] = np.nan
    imputer = DensityImputer(TableDensity(density=KDESampler(0.5)), random_state=0)
    model = make_pipeline(imputer, sampler(), DecisionTreeClassifier(random_state=0))
    assert cross_val_score(model, X, y, cv=2, error_score="raise").mean() > 0.7


def test_the_library_works_without_imbalanced_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "skdiffsmooth.tables._oversampler", None)
    assert "DensityOverSampler" in dir(tables)
    with pytest.raises(
        ImportError, match=r"DensityOverSampler needs imbalanced-learn .*pip install"
    ):
        tables.DensityOverSampler  # noqa: B018
