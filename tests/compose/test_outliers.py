"""DensityOutlierDetector: held-out scores, the fraction of rows that is flagged, false-alarm rates."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityOutlierDetector

KDE = KDESampler(0.5)
SMOOTHED = SmoothedScoreDiffusion(0.3, 0.5, n_nodes=16, n_levels=6, n_steps=6)
ROUNDING = 1e-12


def table(n=60, d=2, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


def flagged(labels):
    assert set(labels) <= {-1, 1}
    return np.sum(labels == -1)


# --------------------------------------------------------------------------- held-out scores


def test_training_rows_are_scored_by_densities_fitted_without_them():
    X = table()
    detector = DensityOutlierDetector(KDE, cv=4).fit(X)
    expected = np.empty(len(X))
    rows = np.unique(X, axis=0)
    for train, test in KFold(4, shuffle=True, random_state=0).split(rows):
        expected[test] = clone(KDE).fit(rows[train]).score_samples(rows[test])
    assert_array_equal(detector.points_, rows)
    assert_allclose(detector.held_out_log_density_, expected, rtol=ROUNDING)
    assert_allclose(detector.score_samples(rows), expected, rtol=ROUNDING)
    assert np.all(expected < clone(KDE).fit(X).score_samples(rows) + 0.5)


def test_single_rows_are_left_out_where_the_density_has_a_method_for_it():
    X = table()
    detector = DensityOutlierDetector(SMOOTHED).fit(X)
    expected = clone(SMOOTHED).fit(X).leave_one_out_log_density()
    assert_allclose(detector.held_out_log_density_, expected, rtol=ROUNDING)
    # Folds are used on request.
    folds = DensityOutlierDetector(SMOOTHED, cv=5).fit(X)
    assert not np.allclose(folds.held_out_log_density_, expected)


def test_a_splitter_chooses_the_held_out_rows():
    X = np.sort(table(20, 1), axis=0)
    splitter = KFold(4)
    expected = np.empty(len(X))
    for train, test in splitter.split(X):
        expected[test] = clone(KDE).fit(X[train]).score_samples(X[test])
    for cv in (splitter, list(splitter.split(X)), splitter.split(X)):
        detector = DensityOutlierDetector(KDE, cv=cv).fit(X)
        assert_allclose(detector.held_out_log_density_, expected, rtol=ROUNDING)
    # A copy in another fold does not make a row an inlier: its lower log-density counts.
    twice = np.vstack([X, [[9.0], [9.0]]])
    apart = [np.r_[:10, 20], np.r_[10:20, 21]]
    detector = DensityOutlierDetector(KDE, cv=[apart, apart[::-1]]).fit(twice)
    least = [clone(KDE).fit(twice[rows]).score_samples([[9.0]])[0] for rows in apart]
    assert detector.held_out_log_density_[-1] == pytest.approx(min(least), rel=ROUNDING)


def test_new_rows_are_scored_by_the_density_of_all_rows():
    X, new = table(), table(seed=1)
    detector = DensityOutlierDetector(KDE).fit(X)
    assert_allclose(
        detector.score_samples(new), clone(KDE).fit(X).score_samples(new), rtol=ROUNDING
    )
    # Whatever company they come in, and how often.
    mixed = np.vstack([new[:5], X[:5], new[:5], X[3:6]])
    alone = np.concatenate([detector.score_samples(row[None]) for row in mixed])
    assert_allclose(detector.score_samples(mixed), alone, rtol=ROUNDING)


def test_a_zero_of_either_sign_is_the_same_row():
    X = table()
    X[0] = 0.0
    detector = DensityOutlierDetector(KDE).fit(X)
    assert_array_equal(detector.score_samples([[-0.0, 0.0]]), detector.score_samples([[0.0, 0.0]]))


def test_a_duplicated_outlier_is_an_outlier():
    X = np.vstack([table(), [[9.0, 9.0], [9.0, 9.0]]])
    for density in (KDE, SMOOTHED, GaussianMixture(1)):
        detector = DensityOutlierDetector(density, contamination=0.1).fit(X)
        assert list(detector.predict([[9.0, 9.0], [0.0, 0.0]])) == [-1, 1]


# ------------------------------------------------------------------------------ the threshold


@given(st.integers(5, 60), st.floats(0.01, 0.5), st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_the_fraction_of_flagged_training_rows_is_the_contamination(n, contamination, seed):
    detector = DensityOutlierDetector(KDE, contamination=contamination)
    found = flagged(detector.fit_predict(table(n, seed=seed)))
    # The nearest whole number, a half going down.
    assert abs(found - n * contamination) <= 0.5 + 1e-9


@pytest.mark.parametrize("density", [KDE, SMOOTHED, GaussianMixture(1)])
def test_scores_threshold_and_labels_agree(density):
    X, new = table(), 2 * table(seed=1)
    detector = DensityOutlierDetector(density, contamination=0.2).fit(X)
    for rows in (X, new):
        scores = detector.score_samples(rows)
        assert_array_equal(detector.decision_function(rows), scores - detector.offset_)
        assert_array_equal(detector.predict(rows), np.where(scores < detector.offset_, -1, 1))
    assert flagged(detector.predict(X)) == 12
    assert_array_equal(clone(detector).fit_predict(X), detector.predict(X))
    assert detector.predict([[50.0, 50.0]]) == [-1]


@pytest.mark.parametrize("density", [KDE, SMOOTHED])
def test_a_row_of_weight_k_is_k_rows(density):
    X = table(40)
    times = np.random.RandomState(1).randint(0, 4, size=len(X))
    order = np.random.RandomState(2).permutation(times.sum())
    weighted = DensityOutlierDetector(density).fit(X, sample_weight=times)
    repeated = DensityOutlierDetector(density).fit(np.repeat(X, times, axis=0)[order])
    assert_allclose(weighted.offset_, repeated.offset_, rtol=ROUNDING)
    assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=ROUNDING)


def test_the_threshold_weighs_rows():
    X = table(100)
    plain = DensityOutlierDetector(KDE, contamination=0.1).fit(X)
    lowest = np.argmin(plain.score_samples(X))
    # A tenth of all weight on the outlier alone: it is the fraction that is flagged.
    weight = np.ones(100)
    weight[lowest] = 11.0
    detector = DensityOutlierDetector(KDE, contamination=0.1).fit(X, sample_weight=weight)
    assert list(np.flatnonzero(detector.predict(X) == -1)) == [lowest]


@pytest.mark.parametrize(
    "density",
    [
        KDESampler(),
        SmoothedScoreDiffusion(0.5, 0.8, n_nodes=16, n_levels=6, n_steps=6),
        GaussianMixture(1),
    ],
    ids=["kde", "smoothed", "gaussian"],
)
def test_new_rows_of_the_same_distribution_are_flagged_at_that_rate(density):
    rates, in_sample = [], []
    for seed in range(10):
        rng = np.random.RandomState(seed)
        X, new = rng.normal(size=(100, 4)), rng.normal(size=(300, 4))
        detector = DensityOutlierDetector(density, contamination=0.1).fit(X)
        rates.append(np.mean(detector.predict(new) == -1))
        own = detector.estimator_.score_samples(X)
        in_sample.append(np.mean(detector.estimator_.score_samples(new) < np.quantile(own, 0.1)))
    # A quantile of 100 rows has a standard error of 0.03 and a fraction of 300 one of 0.017, so the mean
    # of ten seeds one of 0.011: more than three of them, a false alarm in 1000. Folds are of fewer rows,
    # which takes off up to 0.01 more.
    assert abs(np.mean(rates) - 0.1) < 0.04
    if not isinstance(density, GaussianMixture):
        # A quantile of in-sample log-densities would flag about twice as many, or more.
        assert np.mean(in_sample) > np.mean(rates) + 0.08


def test_the_order_of_the_rows_does_not_matter():
    X = table()
    order = np.random.RandomState(0).permutation(len(X))
    one = DensityOutlierDetector(KDE).fit(X)
    two = DensityOutlierDetector(KDE).fit(X[order])
    assert one.offset_ == pytest.approx(two.offset_, rel=ROUNDING)
    assert_array_equal(one.predict(X[order]), two.predict(X[order]))


# ---------------------------------------------------------------------------- scikit-learn's use


def test_tags_are_those_of_an_outlier_detector():
    assert get_tags(DensityOutlierDetector()).estimator_type == "outlier_detector"


def test_pipelines_may_be_thresholded():
    # Their log-densities are those of scaled rows, all off by the same number.
    X = table() * [1.0, 100.0]
    inside = DensityOutlierDetector(make_pipeline(StandardScaler(), KDE)).fit(X)
    assert flagged(inside.predict(X)) == 6
    assert inside.predict([[0.0, 1000.0]]) == [-1]


def test_the_density_sees_column_names():
    frame = pd.DataFrame(table(), columns=["a", "b"])
    detector = DensityOutlierDetector(KDE).fit(frame)
    assert list(detector.estimator_.feature_names_in_) == ["a", "b"]
    new = frame + 0.1
    assert_array_equal(
        detector.predict(new),
        DensityOutlierDetector(KDE).fit(frame.to_numpy()).predict(new.to_numpy()),
    )
    with pytest.raises(ValueError, match="feature names should match"):
        detector.predict(frame[["b", "a"]])


def test_few_rows_make_few_folds():
    X = table(3)
    assert_array_equal(
        DensityOutlierDetector(KDE).fit(X).held_out_log_density_,
        DensityOutlierDetector(KDE, cv=3).fit(X).held_out_log_density_,
    )


@pytest.mark.parametrize("method", ["predict", "decision_function", "score_samples", "score"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="DensityOutlierDetector"):
        getattr(DensityOutlierDetector(), method)(table())


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"contamination": 0.0}, ValueError, "contamination=0.0 is out of range"),
        ({"contamination": 0.6}, ValueError, "contamination=0.6 is out of range"),
        ({"contamination": "auto"}, TypeError, "contamination='auto' has type str"),
        ({"cv": 1}, ValueError, "cv=1 is too small"),
        ({"cv": 61}, ValueError, "cv=61 folds need as many distinct rows"),
        ({"cv": []}, ValueError, r"cv=\[\] does not test each row once"),
        ({"cv": 10**30}, ValueError, "cv=10+ is too large"),
        ({"contamination": 10**400}, ValueError, "contamination=10+ is out of range"),
        ({"cv": "loo"}, TypeError, "cv='loo' has type str"),
        ({"estimator": KDESampler(1e-3, "tophat")}, ValueError, "density zero under the density"),
        ({"estimator": KDESampler(-1.0)}, ValueError, "estimator: bandwidth=-1.0"),
        (
            {"estimator": KDESampler},
            TypeError,
            r"estimator is the class KDESampler; pass .*KDESampler\(\)",
        ),
        ({"estimator": StandardScaler()}, TypeError, "estimator of type StandardScaler has no fit"),
    ],
)
def test_bad_parameters(params, error, message):
    with pytest.raises(error, match=message):
        DensityOutlierDetector(**{"estimator": KDE, **params}).fit(table())


@pytest.mark.parametrize("estimator", [KDE, SMOOTHED, GaussianMixture(1), None])
@pytest.mark.parametrize("cv", [None, 2, [([0], [0])]], ids=["None", "folds", "splits"])
def test_one_distinct_row_is_refused(estimator, cv):
    for X in (table(1), np.repeat(table(1), 3, axis=0)):
        with pytest.raises(
            ValueError, match=r"X has 1 distinct row.*n_samples = 1.*at least two.*Pass more rows"
        ):
            DensityOutlierDetector(estimator, cv=cv).fit(X)


def test_tensors_with_gradients_are_refused():
    X = torch.tensor(table(), requires_grad=True)
    with pytest.raises(TypeError, match=r"X is a tensor that requires gradients.*X\.detach\(\)"):
        DensityOutlierDetector(KDE).fit(X)
    with pytest.raises(TypeError, match=r"X\.detach\(\)"):
        DensityOutlierDetector(KDE).fit(X.detach()).predict(X)


def test_rows_out_of_reach_are_outliers():
    X = np.vstack([0.1 * table(40), [[9.0, 9.0]]])
    detector = DensityOutlierDetector(KDESampler(1.0, "tophat"), contamination=0.1).fit(X)
    assert np.isfinite(detector.offset_)
    assert_array_equal(detector.decision_function([[9.0, 9.0], [-5.0, 5.0]]), [-np.inf, -np.inf])


def test_weights_need_a_density_that_takes_them():
    with pytest.raises(TypeError, match="estimator of type GaussianMixture takes no sample_weight"):
        DensityOutlierDetector(GaussianMixture(1)).fit(table(), sample_weight=np.ones(60))


def test_parameters_set_after_fit_change_no_answer():
    X = table()
    detector = DensityOutlierDetector(clone(KDE)).fit(X)
    expected = detector.decision_function(X)
    detector.set_params(estimator__bandwidth=9.0, contamination=0.5, cv=2)
    assert_array_equal(detector.decision_function(X), expected)


def test_a_fit_that_fails_leaves_the_old_one_whole():
    detector = DensityOutlierDetector(KDE).fit(table())
    expected = detector.predict(table(seed=1))
    with pytest.raises(ValueError, match="contamination"):
        detector.set_params(contamination=2.0).fit(table(d=3))
    assert_array_equal(detector.predict(table(seed=1)), expected)
