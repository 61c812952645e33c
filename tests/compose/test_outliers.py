"""DensityOutlierDetector: held-out scores, the fraction of rows that is flagged, false-alarm rates."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from oracles import rows_for_folds
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GroupKFold, KFold, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils import get_tags

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityOutlierDetector, _outliers

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
    rows = rows_for_folds(X)
    for train, test in KFold(4, shuffle=True, random_state=0).split(rows):
        expected[test] = clone(KDE).fit(rows[train]).score_samples(rows[test])
    assert_allclose(detector.score_samples(rows), expected, rtol=ROUNDING)
    assert_array_equal(detector.held_out_log_density_, detector.score_samples(X))
    assert np.all(expected < clone(KDE).fit(X).score_samples(rows) + 0.5)


def test_single_rows_are_left_out_where_the_density_has_a_method_for_it():
    X = table()
    detector = DensityOutlierDetector(SMOOTHED).fit(X)
    density = clone(SMOOTHED).fit(X)
    expected = density.leave_one_out_log_density()
    assert_allclose(detector.score_samples(density.points_), expected, rtol=ROUNDING)
    # Folds are used on request.
    folds = DensityOutlierDetector(SMOOTHED, cv=5).fit(X)
    assert not np.allclose(folds.score_samples(density.points_), expected)


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


# Each way to hold rows out: of single rows, folds with weights, folds of a density without weights.
HELD_OUT = {
    "single rows": DensityOutlierDetector(KDE),
    "flow": DensityOutlierDetector(SMOOTHED),
    "folds": DensityOutlierDetector(KDE, cv=5),
    "no weights": DensityOutlierDetector(GaussianMixture(2, random_state=0)),
}


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_value_that_most_rows_hold_is_the_most_usual(name):
    rng = np.random.RandomState(0)
    X = np.concatenate([np.zeros(140), rng.normal(8, 1, size=60)])[:, None]
    detector = clone(HELD_OUT[name]).set_params(contamination=0.4).fit(X)
    scores = detector.held_out_log_density_
    assert scores[0] > scores[140:].max()
    # The zeros, which all have one score, would be too many.
    assert flagged(detector.predict(X)) <= 80
    assert np.all(detector.predict(X[:140]) == 1)


def test_a_training_row_loses_its_own_copy_and_no_other():
    X = table(30, 1)
    twice = np.concatenate([X, X[:7]])
    density = KDESampler(0.5)
    detector = DensityOutlierDetector(density).fit(twice)
    for i in (3, 15):
        others = np.delete(twice, i, axis=0)
        expected = clone(density).fit(others).score_samples(twice[i : i + 1])
        assert detector.held_out_log_density_[i] == pytest.approx(expected[0], rel=ROUNDING)


def test_folds_spread_the_copies_of_a_row():
    # Five copies of each of ten rows in five folds: all but one copy of each remain.
    X = table(10, 1)
    detector = DensityOutlierDetector(KDE, cv=5).fit(np.tile(X, (5, 1)))
    expected = clone(KDE).fit(X).score_samples(X)
    assert_allclose(detector.score_samples(X), expected, rtol=ROUNDING)


def test_folds_keep_the_shares_of_values_and_the_rate_on_new_rows():
    rates = []
    for seed in range(10):
        rng = np.random.RandomState(seed)
        X, new = (
            np.where(rng.uniform(size=(n, 1)) < 0.7, 0.0, rng.normal(8, 1, size=(n, 2)))
            for n in (200, 1000)
        )
        detector = DensityOutlierDetector(GaussianMixture(2, random_state=0)).fit(X)
        rates.append(np.mean(detector.predict(new) == -1))
    # A quantile of 200 rows has a standard error of 0.02, the mean of ten one of 0.007.
    assert abs(np.mean(rates) - 0.1) < 0.025


def test_weights_that_are_no_counts_are_left_out_whole():
    X, weight = table(20), np.linspace(0.5, 9.7, 20)
    detector = DensityOutlierDetector(KDE, cv=20).fit(X, sample_weight=weight)
    for i in (0, 19):
        others = np.arange(20) != i
        density = clone(KDE).fit(X[others], sample_weight=weight[others])
        expected = density.score_samples(X[i : i + 1])[0]
        assert detector.held_out_log_density_[i] == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("name", HELD_OUT)
def test_scores_are_continuous(name):
    X = table(60)
    detector = clone(HELD_OUT[name]).fit(X)
    near = detector.score_samples(X + [1e-9, -1e-9])
    # The smallest distance is 0.01, of which a twentieth has the slope; scores are some tens of nats.
    assert_allclose(near, detector.held_out_log_density_, atol=1e-4)
    # Through a training row, in steps that are small beside that: no step is a jump.
    along = X[:1] + np.linspace(-1, 1, 4001)[:, None] * [0.1, 0.1]
    scores = detector.score_samples(along)
    assert np.abs(np.diff(scores)).max() < 0.05
    assert scores[2000] == detector.held_out_log_density_[0]


def test_rows_that_no_fold_tests_do_not_count_in_the_threshold():
    X = table(40, 1)
    splitter = TimeSeriesSplit(4)
    detector = DensityOutlierDetector(KDE, cv=splitter, contamination=0.25).fit(X)
    tested = np.concatenate([test for _, test in splitter.split(X)])
    assert 0 < 40 - len(tested) < 40
    untested = np.setdiff1d(np.arange(40), tested)
    expected = clone(KDE).fit(X).score_samples(X[untested])
    assert_allclose(detector.held_out_log_density_[untested], expected, rtol=ROUNDING)
    assert flagged(detector.predict(X[tested])) == len(tested) // 4


def test_groups_are_held_out_together():
    X, groups = table(40), np.repeat(np.arange(10), 4)
    expected = np.empty(40)
    for train, test in GroupKFold(5).split(X, groups=groups):
        expected[test] = clone(KDE).fit(X[train]).score_samples(X[test])
    detector = DensityOutlierDetector(KDE, cv=GroupKFold(5)).fit(X, groups=groups)
    assert_allclose(detector.held_out_log_density_, expected, rtol=ROUNDING)
    for cv in (None, 10):
        detector = DensityOutlierDetector(KDE, cv=cv).fit(X, groups=groups)
        alone = clone(KDE).fit(X[4:]).score_samples(X[:4])
        is_alone = np.allclose(detector.held_out_log_density_[:4], alone)
        assert is_alone == (cv == 10)
    with pytest.raises(ValueError, match="groups has shape"):
        DensityOutlierDetector(KDE).fit(X, groups=groups[1:])


# ------------------------------------------------------------------------------ the threshold


@given(st.integers(5, 60), st.floats(0.01, 0.5), st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_the_fraction_of_flagged_training_rows_is_at_most_the_contamination(n, contamination, seed):
    detector = DensityOutlierDetector(KDE, contamination=contamination)
    found = flagged(detector.fit_predict(table(n, seed=seed)))
    assert n * contamination - 1 < found <= n * contamination + 1e-9


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


@pytest.mark.parametrize("cv", [None, 3])
@pytest.mark.parametrize("density", [KDE, SMOOTHED])
def test_a_row_of_weight_k_is_k_rows(density, cv):
    X = table(60)
    times = np.random.RandomState(1).randint(0, 5, size=len(X))
    order = np.random.RandomState(2).permutation(times.sum())
    weighted = DensityOutlierDetector(density, cv=cv).fit(X, sample_weight=times)
    repeated = DensityOutlierDetector(density, cv=cv).fit(np.repeat(X, times, axis=0)[order])
    assert_allclose(weighted.offset_, repeated.offset_, rtol=ROUNDING)
    assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=ROUNDING)


def test_the_automatic_threshold_cuts_an_exponential_tail_at_one_percent():
    # Quantiles of an exponential distribution, whose tail is exact.
    scores = np.log1p(-(np.arange(10_000) + 0.5) / 10_000)
    offset = _outliers._threshold(scores, np.ones(10_000), None)
    assert np.mean(scores < offset) == pytest.approx(0.01, abs=2e-4)
    assert _outliers._threshold(3 * scores - 7, np.ones(10_000), None) == pytest.approx(
        3 * offset - 7
    )


@pytest.mark.parametrize("density", [KDESampler(), GaussianMixture(1)])
@pytest.mark.parametrize("d", [1, 2, 6])
def test_the_automatic_threshold_flags_what_its_notes_say(density, d):
    rates, found = [], []
    for seed in range(6):
        rng = np.random.RandomState(seed)
        X, new = rng.normal(size=(300, d)), rng.normal(size=(1000, d))
        outliers = rng.uniform(8, 30, size=(15, d))
        detector = DensityOutlierDetector(density, contamination="auto")
        rates.append(np.mean(detector.fit(X).predict(new) == -1))
        found.append(np.mean(detector.fit(np.vstack([X, outliers])).predict(outliers) == -1))
    # From 0.7 to 1.3 percent; the quantiles of 300 rows make it half as much again.
    assert 0.002 < np.mean(rates) < 0.025
    assert np.mean(found) > 0.5


def test_the_threshold_weighs_rows():
    X = table(100)
    plain = DensityOutlierDetector(KDE, contamination=0.1).fit(X)
    lowest = np.argmin(plain.score_samples(X))
    # A tenth of all weight on the outlier alone: it is the fraction that is flagged.
    weight = np.full(100, 0.5)
    weight[lowest] = 5.4
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
    X = table() * [1.0, 100.0]
    inside = DensityOutlierDetector(make_pipeline(StandardScaler(), KDE)).fit(X)
    assert flagged(inside.predict(X)) == 6
    assert inside.predict([[0.0, 1000.0]]) == [-1]


def test_folds_of_a_pipeline_have_one_unit():
    # The scaler of the fold without the far row divides by one, those of the other folds by 129: in
    # scaled columns rows of the first would be log(129) = 4.9 nats less likely.
    X = table(60)
    X[0, 1] = 1000.0
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0))
    detector = DensityOutlierDetector(pipeline)
    detector.fit(X, sample_weight=np.ones(60), groups=np.repeat(np.arange(5), 12))
    scores = detector.held_out_log_density_
    assert abs(np.median(scores[1:12]) - np.median(scores[12:])) < 1


def test_a_pipeline_without_jacobian_is_refused():
    pipeline = make_pipeline(PolynomialFeatures(), GaussianMixture())
    with pytest.raises(TypeError, match="the Jacobian of PolynomialFeatures"):
        DensityOutlierDetector(pipeline).fit(table())


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
    with pytest.warns(UserWarning, match="cv=5 folds need as many distinct rows .* got 3"):
        few = DensityOutlierDetector(KDE, cv=5).fit(X)
    assert_array_equal(
        DensityOutlierDetector(KDE).fit(X).held_out_log_density_, few.held_out_log_density_
    )


def test_two_rows_are_enough():
    X = table(2)
    # Single rows can be left out of a diffusion with its scales; a mixture needs two rows.
    DensityOutlierDetector().fit(X).predict(X)
    with pytest.warns(UserWarning, match=r"2 distinct rows are too few .* Pass more rows"):
        detector = DensityOutlierDetector(GaussianMixture(1)).fit(X)
    assert_array_equal(detector.predict(X), [1, 1])


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
        ({"contamination": "none"}, ValueError, "contamination='none' is not known"),
        ({"cv": 1}, ValueError, "cv=1 is too small"),
        ({"cv": []}, ValueError, r"cv=\[\] tests no row, or a row twice"),
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


@pytest.mark.parametrize(
    ("n_ones", "lowest", "estimator"),
    [
        (1, -200, None),
        *(
            (*ones, KDESampler(metric=metric))
            for ones in [(3, -20), (1, -200)]
            for metric in ("euclidean", "scaled")
        ),
    ],
)
def test_folds_share_the_width_of_a_column_that_is_constant_in_some(estimator, n_ones, lowest):
    # All rows with a one are held out together, so that the column is constant in the other rows. By
    # themselves these would take it for a relation, 25 nats higher.
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.normal(size=(60, 2)), np.arange(60) < n_ones])
    detector = DensityOutlierDetector(estimator, cv=5).fit(X, groups=np.repeat(np.arange(5), 12))
    scores = detector.held_out_log_density_
    assert abs(np.median(scores[n_ones:12]) - np.median(scores[12:])) < 1.5
    assert np.all(scores[:n_ones] > lowest)
