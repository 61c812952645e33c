"""Tests of the search by held-out likelihood."""

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from oracles import rows_for_folds
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RepeatedKFold, TimeSeriesSplit
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.kernels import ProportionalScale
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

# Few nodes, for the tests' own time; the search's stages have fewer still.
QUICK = {"n_nodes": 16, "n_levels": 8, "n_steps": 8}
ONE = {"bandwidth_factors": [0.8], "sigma_factors": [1.2], "n_refinements": 0}


def ring(n=40, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * rng.normal(size=(n, 2))


def quick(**params):
    return SmoothedScoreDiffusion(**QUICK, **params)


def test_the_best_score_is_the_exact_leave_one_out_likelihood():
    X = ring()
    search = SmoothedScoreDiffusionCV(quick(), n_refinements=1).fit(X)
    best = search.best_estimator_
    # The same sums in the same order: only the scales were multiplied anew.
    assert_allclose(search.best_score_, best.weights_ @ best.leave_one_out_log_density(), rtol=1e-9)
    assert_allclose(search.best_score_, search.leave_one_out_log_density().mean(), rtol=1e-9)
    is_exact, scores = np.array(search.cv_results_["is_exact"]), search.cv_results_["score"]
    assert search.best_index_ == np.flatnonzero(is_exact)[np.argmax(np.array(scores)[is_exact])]
    assert search.best_params_["sigma"] == search.sigma_ > 0


def test_the_best_settings_are_fitted_with_the_nodes_they_were_scored_with():
    random_state = np.random.RandomState(1)
    search = SmoothedScoreDiffusionCV(quick(random_state=random_state), **ONE).fit(ring())
    best = search.best_estimator_
    assert_allclose(search.best_score_, best.weights_ @ best.leave_one_out_log_density(), rtol=1e-9)
    assert random_state.uniform() == np.random.RandomState(1).uniform()


@pytest.mark.parametrize("cv", [None, 3])
def test_results_have_the_keys_of_a_grid_search(cv):
    X = ring(24)
    search = SmoothedScoreDiffusionCV(
        quick(), bandwidth_factors=[0.7, 1.0], sigma_factors=[1.0], n_refinements=0, cv=cv
    ).fit(X)
    theirs = GridSearchCV(KDESampler(), {"bandwidth": [1.0]}, cv=cv or 5).fit(X).cv_results_
    expected = {name for name in theirs if not name.startswith(("param_", "split"))}
    results = pd.DataFrame(search.cv_results_)
    assert expected <= set(results)
    assert results["rank_test_score"][search.best_index_] == 1
    assert results["mean_test_score"][search.best_index_] == search.best_score_
    # With folds the model of the best settings is scored on the rows that each holds out.
    splits = results.filter(regex=r"split\d+_test_score").to_numpy()
    assert splits.shape[1] == (cv or 5)
    if cv is None:
        assert splits[search.best_index_, 0] == pytest.approx(search.best_score_, rel=1e-12)
    else:
        assert_allclose(splits.mean(axis=1), results["score"], rtol=1e-9)
        assert_allclose(splits.std(axis=1), results["std_test_score"], rtol=1e-9)
    # The settings, in the estimator's own parameters, are those that were fitted.
    again = quick(**search.cv_results_["params"][search.best_index_]).fit(X)
    assert_allclose(again.score_samples(X), search.score_samples(X), rtol=1e-9)


def test_groups_and_time_ordered_folds():
    X, groups = ring(24), np.repeat(np.arange(6), 4)
    estimator = quick(metric="scaled", background=0.0)
    by_splitter = SmoothedScoreDiffusionCV(estimator, cv=GroupKFold(3), **ONE).fit(X, groups=groups)
    splits = list(GroupKFold(3).split(X, groups=groups))
    expected = SmoothedScoreDiffusionCV(estimator, cv=splits, **ONE).fit(X)
    assert by_splitter.best_score_ == expected.best_score_
    six = SmoothedScoreDiffusionCV(estimator, cv=6, **ONE).fit(X, groups=groups)
    alone = SmoothedScoreDiffusionCV(estimator, cv=GroupKFold(6), **ONE).fit(X, groups=groups)
    assert_allclose(six.best_score_, alone.best_score_, rtol=1e-9)
    first = list(TimeSeriesSplit(3).split(X))
    ordered = SmoothedScoreDiffusionCV(estimator, cv=TimeSeriesSplit(3), **ONE).fit(X)
    later = SmoothedScoreDiffusionCV(estimator, cv=first, **ONE).fit(X)
    assert ordered.best_score_ == later.best_score_ != by_splitter.best_score_


@pytest.mark.parametrize("cv", [3, KFold(4, shuffle=True, random_state=1)])
@pytest.mark.parametrize("background", [0.0, 0.1])
def test_folds_score_as_a_loop_does(cv, background):
    X = ring()
    estimator = quick(metric="scaled", background=background)
    search = SmoothedScoreDiffusionCV(estimator, cv=cv, **ONE).fit(X)
    # The oracle: the public estimators in a loop, over the distinct rows in their order.
    rows = rows_for_folds(X)
    if cv == 3:
        cv = KFold(3, shuffle=True, random_state=0)
    else:
        # Splitters speak of the rows of X.
        rows = X
    held_out = []
    for train, test in cv.split(rows):
        h = quick(bandwidth="loo", sigma=0.0, metric="scaled").fit(rows[train]).bandwidth_
        model = quick(bandwidth=0.8 * h, sigma=1.2 * h, metric="scaled", background=background)
        held_out.append(model.fit(rows[train]).score_samples(rows[test]))
    # The search for h stops at a thousandth, where the likelihood is flat.
    assert_allclose(search.best_score_, np.concatenate(held_out).mean(), rtol=1e-6)


def test_it_is_never_below_the_tuned_kde_by_its_own_score():
    X = ring(30, seed=2)
    smoothed = SmoothedScoreDiffusionCV(quick(), n_refinements=0).fit(X)
    kde = SmoothedScoreDiffusionCV(quick(), sigma_factors=[0.0], n_refinements=0).fit(X)
    assert kde.sigma_ == 0
    assert smoothed.best_score_ >= kde.best_score_
    euclidean = SmoothedScoreDiffusionCV(
        quick(metric="euclidean", background=0.0), sigma_factors=[0.0]
    )
    euclidean.fit(X)
    twin = KDESampler(euclidean.bandwidth_).fit(X)
    assert_allclose(euclidean.score_samples(X), twin.score_samples(X), rtol=1e-10)


def test_refinements_can_leave_the_grid():
    # Rows on a grid of spacing one: their spread between rows asks for larger scales than 0.3 h.
    X = ring(40)
    coarse = {"bandwidth_factors": [0.5], "sigma_factors": [0.5], "metrics": ["euclidean"]}
    start = SmoothedScoreDiffusionCV(quick(), n_refinements=0, **coarse).fit(X)
    search = SmoothedScoreDiffusionCV(quick(), n_refinements=3, **coarse).fit(X)
    assert search.best_score_ > start.best_score_
    assert max(search.cv_results_["sigma_factor"]) > 0.5


def test_weights_count_as_equal_rows_and_equal_rows_are_left_out_together():
    X = ring(20)
    weights = 1 + np.arange(20) % 3
    by_weight = SmoothedScoreDiffusionCV(quick(), **ONE).fit(X, sample_weight=weights)
    by_rows = SmoothedScoreDiffusionCV(quick(), **ONE).fit(np.repeat(X, weights, axis=0))
    assert_allclose(by_rows.best_score_, by_weight.best_score_, rtol=1e-9)
    assert_allclose(by_rows.score_samples(X), by_weight.score_samples(X), rtol=1e-9)
    # Leaving out a copy would find the other one at distance zero: no bandwidth would be too small.
    assert by_rows.bandwidth_ > 0.01


def test_workers_do_not_change_the_result():
    X = ring(25)
    serial = SmoothedScoreDiffusionCV(quick(), n_refinements=0).fit(X)
    with joblib.parallel_config("threading"):
        parallel = SmoothedScoreDiffusionCV(quick(), n_refinements=0, n_jobs=2).fit(X)
    assert_allclose(parallel.cv_results_["score"], serial.cv_results_["score"], rtol=1e-12)
    assert parallel.best_params_ == serial.best_params_


def test_tangents_are_searched_too():
    X = ring(40)
    estimator = ManifoldAdaptedDiffusion(n_components=1, metric="euclidean", **QUICK)
    search = SmoothedScoreDiffusionCV(estimator, **ONE).fit(X)
    assert isinstance(search.best_estimator_, ManifoldAdaptedDiffusion)
    assert search.sample(3, random_state=0).shape == (3, 2)
    known = ManifoldAdaptedDiffusion(manifold=Circle([0.0, 0.0], 1.0), **QUICK)
    assert SmoothedScoreDiffusionCV(known, **ONE).fit(X).metric_ == "euclidean"


def test_a_scale_that_the_estimator_gives_is_kept():
    X = ring(30)
    few = {"bandwidth_factors": [0.6, 0.9], "n_refinements": 1}
    fixed = SmoothedScoreDiffusionCV(quick(sigma=0.3, metric="euclidean"), **few).fit(X)
    assert fixed.best_params_["sigma"] == 0.3
    assert len(set(fixed.cv_results_["bandwidth_factor"])) > 2
    assert np.isnan(fixed.cv_results_["sigma_factor"]).all()
    best = fixed.best_estimator_
    assert_allclose(fixed.best_score_, best.weights_ @ best.leave_one_out_log_density(), rtol=1e-9)
    relative = SmoothedScoreDiffusionCV(
        quick(bandwidth="0.8h"), sigma_factors=[1.2], n_refinements=0
    ).fit(X)
    free = SmoothedScoreDiffusionCV(quick(), **ONE).fit(X)
    assert relative.best_params_ == free.best_params_
    growing = quick(sigma=ProportionalScale(2.0), metric=0.5)
    search = SmoothedScoreDiffusionCV(growing, **few).fit(X)
    assert repr(search.best_params_["sigma"]) == repr(ProportionalScale(2.0))
    assert search.sigma_.shape == (8,)


def test_settings_of_a_search_suit_other_units():
    X = ring(30)
    search = SmoothedScoreDiffusionCV(quick(), **ONE).fit(X)
    settings = search.best_estimator_.settings_
    assert (settings["bandwidth"], settings["sigma"]) == ("0.8h", "1.2h")
    elsewhere = quick(**settings).fit(8 * X)
    # The search for h stops at a thousandth, where the likelihood is flat.
    expected = search.score_samples(X) - 2 * np.log(8)
    assert_allclose(elsewhere.score_samples(8 * X), expected, atol=1e-4)


def test_numbers_for_both_scales_leave_nothing_to_search():
    with pytest.warns(UserWarning, match="nothing is searched"):
        search = SmoothedScoreDiffusionCV(quick(bandwidth=0.2, sigma=0.3)).fit(ring(15))
    assert search.best_params_ == {
        "metric": "euclidean",
        "bandwidth": 0.2,
        "sigma": 0.3,
        "background": 0.0,
    }


def test_stages_and_candidates_are_logged_with_verbose(caplog):
    SmoothedScoreDiffusionCV(quick(), **ONE).fit(ring(15))
    assert caplog.text == ""
    SmoothedScoreDiffusionCV(quick(), verbose=2, **ONE).fit(ring(15))
    said = caplog.text
    # The first and the last, then the others.
    assert "[metrics, on other rows or exact] 2 candidates" in said
    assert "[metrics, on other rows or exact] 4 candidates" in said
    assert "[grid] " in said
    assert "[final, on other rows or exact]" in said
    assert "nats a row" in said


def test_samples_and_scores_are_those_of_the_best_estimator():
    X = ring(20)
    search = SmoothedScoreDiffusionCV(quick(), **ONE).fit(X)
    drawn = search.sample(5, random_state=3)
    np.testing.assert_array_equal(drawn, search.best_estimator_.sample(5, random_state=3))
    np.testing.assert_array_equal(search.score_samples(X), search.best_estimator_.score_samples(X))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"estimator": KDESampler()}, TypeError, "Use GridSearchCV for others"),
        (
            {"estimator": SmoothedScoreDiffusion},
            TypeError,
            "expected an instance, SmoothedScoreDiffusion\\(\\)",
        ),
        ({"estimator": quick(shards="distributed")}, ValueError, "cannot be left out"),
        ({"estimator": quick(solver="euler-maruyama")}, ValueError, "solver='euler-maruyama'"),
        ({"estimator": quick(base="parzen")}, ValueError, "use GridSearchCV over bandwidth"),
        ({"bandwidth_factors": [0.0]}, ValueError, "bandwidth_factors=0.0 is out of range"),
        ({"bandwidth_factors": []}, ValueError, "bandwidth_factors is empty"),
        ({"bandwidth_factors": True}, TypeError, "bandwidth_factors=True holds booleans"),
        ({"sigma_factors": [True]}, TypeError, "sigma_factors=.True. holds booleans"),
        ({"sigma_factors": [-1]}, ValueError, "sigma_factors=-1.0 is out of range"),
        ({"sigma_factors": "wide"}, ValueError, "sigma_factors of type str is not numeric"),
        ({"metrics": "scaled"}, ValueError, "metrics='scaled' is not a list of metrics"),
        ({"metrics": ["auto"]}, ValueError, "holds 'auto'"),
        ({"metrics": ["round"]}, ValueError, "metric='round' is not known"),
        (
            {"metrics": ["scaled"], "estimator": quick(metric="euclidean")},
            ValueError,
            "leave one of the two",
        ),
        (
            {"sigma_factors": [1.0], "estimator": quick(sigma=0.3)},
            ValueError,
            "the estimator has a sigma that is not 'auto'",
        ),
        ({"cv": 1}, ValueError, "cv=1 is too small"),
        ({"cv": RepeatedKFold(n_splits=2, n_repeats=2)}, ValueError, "a row twice"),
        ({"n_jobs": 0}, ValueError, "n_jobs=0 is not a number of workers"),
        ({"n_jobs": 10**30}, ValueError, "n_jobs=10+ is too large"),
        ({"n_refinements": -1}, ValueError, "n_refinements=-1 is too small"),
    ],
)
def test_bad_parameters_are_named(params, error, message):
    with pytest.raises(error, match=message):
        SmoothedScoreDiffusionCV(**params).fit(ring(12))


@pytest.mark.parametrize(
    ("manifold", "metrics"),
    [(Circle([0.0, 0.0], 1.0), ["euclidean", "scaled"]), ("pca", ["euclidean", "whitened"])],
    ids=["circle", "pca"],
)
def test_metrics_that_do_not_suit_a_manifold_are_no_candidates(manifold, metrics):
    estimator = ManifoldAdaptedDiffusion(manifold=manifold, n_components=1, **QUICK)
    with pytest.raises(ValueError, match=f"metric='{metrics[1]}'"):
        SmoothedScoreDiffusionCV(estimator, metrics=metrics, **ONE).fit(ring())


def test_column_names_reach_the_best_estimator():
    check_dataframe_column_names_consistency(
        "SmoothedScoreDiffusionCV", SmoothedScoreDiffusionCV(quick(), **ONE)
    )


@pytest.mark.slow
def test_few_rows_do_not_buy_a_metric():
    """Whitened, eleven rows are a simplex: rows left out of it, but not of the metric, look likely."""
    rng = np.random.RandomState(0)
    X, fresh = rng.normal(size=(11, 10)), rng.normal(size=(300, 10))
    kde = KDESampler().fit(X).score(fresh)
    assert SmoothedScoreDiffusion().fit(X).score(fresh) > kde
    assert SmoothedScoreDiffusionCV(quick(), n_refinements=0).fit(X).score(fresh) > kde - 0.5


def test_one_distinct_row_cannot_be_left_out():
    with pytest.raises(ValueError, match="at least two distinct rows"):
        SmoothedScoreDiffusionCV(quick()).fit(np.ones((5, 2)))
