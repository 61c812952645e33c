"""Weights in scores, scorers and searches: weight zero is absence, and weight k is k copies."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from skdiffsmooth import CoarseScoreDiffusion, KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import (
    DensityClassifier,
    DensityOutlierDetector,
    DensityStacking,
    TransformedDensity,
)
from skdiffsmooth.model_selection import (
    SmoothedScoreDiffusionCV,
    denoising_score,
    hyvarinen_score,
    make_denoising_scorer,
    make_hyvarinen_scorer,
)

SMOOTHED = SmoothedScoreDiffusion(n_nodes=8, n_levels=3, n_steps=3)
MEMBERS = [("narrow", KDESampler(0.3)), ("wide", KDESampler(1.5))]
ESTIMATORS = {
    "kde": KDESampler(0.5),
    "smoothed": SmoothedScoreDiffusion(0.4, 0.5, n_nodes=8, n_levels=3, n_steps=3),
    "coarse": CoarseScoreDiffusion(1.0, 0, bandwidth=0.5, n_components=1),
    "stacking": DensityStacking(MEMBERS, cv=3),
    "transformed": TransformedDensity(KDESampler(0.5)),
    "outliers": DensityOutlierDetector(KDESampler(0.5)),
    "search": SmoothedScoreDiffusionCV(
        SMOOTHED,
        bandwidth_factors=[0.85],
        sigma_factors=[1.0],
        metrics=["scaled"],
        n_refinements=0,
        cv=2,
    ),
    "classifier": DensityClassifier(KDESampler(0.5)),
}
# Sums of other lengths round otherwise.
ROUNDING = 1e-10


def weighted(n=36, seed=0):
    """Return rows, two classes, and weights 0 to 3 of which a quarter each."""
    rng = np.random.RandomState(seed)
    return rng.normal(size=(n, 2)), np.arange(n) % 2, rng.permutation(np.arange(n) % 4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_score_counts_a_row_by_its_weight(name):
    X, y, k = weighted()
    model = clone(ESTIMATORS[name]).fit(X, y)
    repeated = model.score(np.repeat(X, k, axis=0), np.repeat(y, k))
    assert model.score(X, y, sample_weight=k) == pytest.approx(repeated, rel=ROUNDING)
    assert model.score(X, y, sample_weight=k * 1e300) == pytest.approx(repeated, rel=ROUNDING)


def test_rows_of_weight_zero_are_not_scored():
    # Far from all compact kernels a log-density is -inf, and -inf times zero is no number.
    model = KDESampler(0.5, "tophat").fit([[0.0], [1.0]])
    assert np.isfinite(model.score([[0.0], [9.0]], sample_weight=[1.0, 0.0]))
    frame = pd.DataFrame({"a": [0.0, 1.0, 9.0]})
    assert np.isfinite(KDESampler(0.5, "tophat").fit(frame).score(frame, sample_weight=[1, 1, 0]))
    with pytest.raises(ValueError, match="sample_weight has shape"):
        model.score([[0.0], [9.0]], sample_weight=[1.0])
    with pytest.raises(ValueError, match="sample_weight is zero for every row"):
        model.score([[0.0]], sample_weight=[0.0])


@pytest.mark.parametrize(
    "scorer",
    [hyvarinen_score, denoising_score, make_hyvarinen_scorer(0.3), make_denoising_scorer(0.1, 1)],
)
def test_a_scorer_counts_a_row_by_its_weight(scorer):
    X, _, k = weighted()
    model = KDESampler(0.5).fit(X)
    repeated = scorer(model, np.repeat(X, k, axis=0))
    assert scorer(model, X, sample_weight=k) == pytest.approx(repeated, rel=ROUNDING)
    assert scorer(model, X, sample_weight=k) != pytest.approx(scorer(model, X), rel=1e-3)


def splits(k, n_folds=3):
    """Return folds of rows, and the same folds of rows that are repeated k times each."""
    fold = np.arange(len(k)) % n_folds
    return tuple(
        [(np.flatnonzero(f != j), np.flatnonzero(f == j)) for j in range(n_folds)]
        for f in (fold, np.repeat(fold, k))
    )


@pytest.mark.parametrize("scoring", [None, make_denoising_scorer(0.1, 1.0, 3)])
@pytest.mark.parametrize("is_routed", [False, True])
def test_a_search_counts_a_row_by_its_weight(scoring, is_routed):
    X, _, k = weighted()
    by_row, by_copy = splits(k)
    grid = {"bandwidth": [0.2, 0.4, 0.8]}
    with sklearn.config_context(enable_metadata_routing=is_routed):
        density = KDESampler()
        if is_routed:
            density.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            if scoring is not None:
                scoring.set_score_request(sample_weight=True)
        search = GridSearchCV(density, grid, cv=by_row, scoring=scoring).fit(X, sample_weight=k)
        copies = np.repeat(X, k, axis=0)
        expected = GridSearchCV(KDESampler(), grid, cv=by_copy, scoring=scoring).fit(copies)
    for name in ("split0_test_score", "split2_test_score"):
        assert_allclose(search.cv_results_[name], expected.cv_results_[name], rtol=ROUNDING)
    assert search.best_params_ == expected.best_params_


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda search: DensityStacking([("search", search)], cv=2),
        DensityClassifier,
        DensityOutlierDetector,
        TransformedDensity,
    ],
)
@pytest.mark.parametrize("is_routed", [False, True])
def test_a_search_inside_an_estimator_gets_its_weights(wrapper, is_routed):
    X, y, k = weighted()
    with sklearn.config_context(enable_metadata_routing=is_routed):
        density = KDESampler()
        if is_routed:
            density.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(density, {"bandwidth": [0.4]}, cv=2)
        model = wrapper(search).fit(X, y, sample_weight=k)
        expected = wrapper(KDESampler(0.4)).fit(X, y, sample_weight=k)
    assert_allclose(model.score_samples(X + 1), expected.score_samples(X + 1), rtol=ROUNDING)


ROUTED = ("smoothed", "stacking", "transformed", "outliers", "search")


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.filterwarnings("ignore:.*rows equal another one")
def test_cross_validation_routes_weights_to_fits_and_scores(name):
    X, _, k = weighted()
    by_row, by_copy = splits(k)
    copies = np.repeat(X, k, axis=0)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = clone(ESTIMATORS[name]).set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=True)
        scores = cross_val_score(estimator, X, cv=by_row, params={"sample_weight": k})
    assert_allclose(scores, cross_val_score(estimator, copies, cv=by_copy), rtol=1e-7)
