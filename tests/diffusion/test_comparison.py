"""Settings that `fit` chooses: what is "auto" is chosen given what is not, in units that suit."""

import threading
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import comparison
from skdiffsmooth._diffusion.geometry import leave_one_out_bandwidth
from skdiffsmooth._diffusion.training_data import TrainingData
from skdiffsmooth._utils.rows import TrainingRows
from skdiffsmooth._utils.shards import ONE_PROCESS
from skdiffsmooth._utils.warnings import warn_user, without_warnings
from skdiffsmooth.kernels import AnisotropicGaussianKernel, ProportionalScale
from skdiffsmooth.manifolds import Circle

QUICK = {"n_nodes": 16, "n_levels": 8, "n_steps": 8}
# Relative: scales are multiplied in another order.
ROUNDING = 1e-9


def table(n=40, seed=0):
    """Correlated columns of heavy tails, in units that differ by a thousand."""
    rng = np.random.default_rng(seed)
    mix = np.array([[1.0, 0.9, 0.3], [0.0, 0.4, 0.5], [0.0, 0.0, 0.8]])
    return rng.standard_t(4, size=(n, 3)) @ mix * [1.0, 30.0, 1000.0]


def quick(bandwidth="auto", sigma="auto", **params):
    return SmoothedScoreDiffusion(bandwidth, sigma, **QUICK | params)


@pytest.mark.parametrize("metric", ["euclidean", "scaled", 0.5])
def test_relative_scales_are_multiples_of_the_leave_one_out_bandwidth(metric):
    X = table()
    h = quick("loo", 0.0, metric=metric, background=0.0).fit(X).bandwidth_
    model = quick("0.85h", "1.5h", metric=metric, background=0.0).fit(X)
    assert_allclose([model.bandwidth_, model.sigma_], [0.85 * h, 1.5 * h], rtol=ROUNDING)
    assert quick("1h", "0h", metric=metric, background=0.0).fit(X).bandwidth_ == h
    numbers = quick(0.85 * h, 1.5 * h, metric=metric).fit(X)
    assert_allclose(model.score_samples(X), numbers.score_samples(X), rtol=ROUNDING)


def test_relative_scales_have_the_standard_deviation_of_the_kernel_along_its_widest_direction():
    X = table() / [1.0, 30.0, 1000.0]
    h = KDESampler("loo").fit(X).bandwidth_
    shaped = quick("0.5h", "2h", kernel=AnisotropicGaussianKernel([3.0, 1.0, 0.5]))
    # To 2e-3, as the search for h stops.
    assert_allclose(shaped.fit(X).sigma_, 2 * h / 3, rtol=2e-3)


@pytest.mark.parametrize("scales", [(), ("auto", 0.3), ("0.7h",), ("loo", 0.0)])
def test_settings_of_one_fit_give_the_same_model_again(scales):
    X = table()
    model = quick(*scales).fit(X)
    again = quick(**model.settings_).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    assert model.not_compared_ == again.not_compared_ == {}


@pytest.mark.parametrize(
    ("scales", "given"),
    [
        (("auto", "1.5h"), {"sigma": "1.5h"}),
        (("auto", 0.3), {"sigma": 0.3}),
        (("auto", ProportionalScale(2.0)), {}),
        (("loo", 0.0), {"bandwidth": "1.0h", "sigma": 0.0}),
    ],
)
def test_metric_and_background_are_chosen_given_a_scale(scales, given):
    X, test = np.split(table(80, seed=1), 2)
    model = quick(*scales).fit(X)
    assert given.items() <= model.settings_.items()
    assert model.metric_ != "euclidean"
    assert model.background_ >= 0.02
    # One scale for columns of units one to a thousand is several nats too wide or too narrow.
    plain = quick(*scales, metric="euclidean", background=0.0).fit(X)
    assert model.score(test) > plain.score(test) + 1


def test_the_free_scale_is_chosen_given_the_other():
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(2, 40))
    X, test = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    given = {"metric": "euclidean", "background": 0.05}
    # Wide smoothing along a circle is best with little noise; 0.85 h is the default.
    free, fixed = (quick(b, "3h", **given).fit(X) for b in ("auto", "0.85h"))
    assert free.settings_["bandwidth"] == "0.55h"
    assert free.score(test) > fixed.score(test) + 0.1


@pytest.mark.parametrize("given", [{"bandwidth": 3.0}, {"sigma": 3.0}])
def test_a_number_that_suits_the_units_of_X_keeps_them(given):
    rng = np.random.RandomState(0)
    centers = rng.uniform(-100, 100, size=(6, 2))
    X = centers[rng.randint(6, size=150)] + rng.normal(size=(150, 2)) * [15, 2]
    # In scaled columns either number is far too large.
    assert quick(**given).fit(X).metric_ == "euclidean"


def test_folds_share_the_tail_of_left_out_rows():
    """Of a whole table, and where values were rounded; bandwidths of folds are what each has alone."""
    X = table(60)
    X[:, 2] = np.round(X[:, 2], -3)
    with pytest.warns(UserWarning, match="not continuous"):
        rows = TrainingRows.of(X, None, None)
    weights = np.full(len(rows.points), 1 / len(rows.points))
    data = TrainingData(
        rows.points, weights, ONE_PROCESS, len(X), is_weighted=True, widths=rows.precision.width
    )
    parsed, metrics = quick()._parsed(3), ("scaled", "whitened")
    one_by_one = comparison.Comparison(parsed, data, metrics)
    folds = comparison.folds_for_metrics(data.points, data.columns)
    by_fold = comparison.Comparison(parsed, data, metrics, folds, one_by_one=one_by_one)
    (all_rows,) = one_by_one.prepare(0, is_screening=True)
    students, tails, _ = by_fold._students(1)
    assert students == all_rows.geometry.students
    for own, fold, (_, test) in zip(
        tails, by_fold.prepare(1, is_screening=True), folds, strict=True
    ):
        exclude = all_rows.held_out.exclude
        np.testing.assert_array_equal(own, all_rows.tails[np.isin(exclude, test)])
        assert len(own) == len(fold.held_out.recorded)
        assert_allclose(
            fold.held_out.recorded, all_rows.held_out.recorded[np.isin(exclude, test)], rtol=0
        )
        alone = leave_one_out_bandwidth(fold.geometry, parsed, is_screening=True)
        assert fold.h == pytest.approx(alone, rel=0.02)


def test_two_numbers_are_used_in_units_of_X():
    model = quick(0.5, 0.5).fit(table())
    assert (model.metric_, model.background_) == ("euclidean", 0.0)
    reason = "bandwidth and sigma are numbers, in units of X"
    assert model.not_compared_ == {"metric": reason, "background": reason}


@pytest.mark.parametrize("columns", [2, 3])
def test_metrics_that_the_kernel_density_estimate_rules_out_would_not_be_chosen(
    monkeypatch, columns
):
    X = table(150)[:, :columns]
    X[:, 0] += np.sin(X[:, 1] / 10)
    chosen = quick().fit(X).settings_
    monkeypatch.setattr(comparison, "_CLOSE", np.inf)
    monkeypatch.setattr(comparison, "_N_METRICS", 6)
    assert quick().fit(X).settings_ == chosen


def parsed_and_data(X):
    model = quick()
    weights = np.full(len(X), 1 / len(X))
    data = TrainingData(np.unique(X, axis=0), weights, ONE_PROCESS, len(X), is_weighted=False)
    return model._parsed(X.shape[1]), data


@pytest.mark.parametrize("n", [40, 300])
def test_choices_depend_on_neither_the_order_nor_the_units_nor_copies_of_rows(n):
    # With 300 rows, 256 of them judge the candidates.
    X = table(n)
    chosen = quick().fit(X).settings_
    others = (X[::-1], X * [2.0, 0.5, 4.0], X[:, [2, 0, 1]], np.repeat(X, 2, axis=0))
    for other in others:
        settings = quick().fit(other).settings_
        background = settings.pop("background")
        assert settings == {key: chosen[key] for key in settings}
        # The likelihood is flat at its maximum, so that rounding moves the weight by its root.
        assert_allclose(background, chosen["background"], rtol=1e-6)


@pytest.mark.parametrize("metric", ["scaled", 0.5, "whitened", "local"])
def test_t_distributions_are_the_same_in_all_metrics(metric):
    parsed, data = parsed_and_data(table(60))
    by_metric = comparison.Comparison(parsed, data, ("scaled", metric))
    tails = [by_metric.prepare(k, is_screening=True)[0].tails for k in range(2)]
    # In the limit: the algorithm stops where no weight changes by 1e-7.
    assert_allclose(tails[1], tails[0], atol=1e-6)


def test_metrics_without_relations_lend_no_tails_to_those_with_them():
    X = table(60)
    parsed, data = parsed_and_data(np.column_stack([X, X.sum(axis=1)]))
    scales = (comparison.Relative(0.85), comparison.Relative(1.0))
    after, alone = (
        comparison.Comparison(parsed, data, metrics).score(
            len(metrics) - 1, scales, is_screening=True
        )
        for metrics in (("euclidean", "scaled"), ("scaled",))
    )
    assert after == alone


def test_scores_of_a_screening_are_those_of_the_model_up_to_its_nodes_and_steps():
    parsed, data = parsed_and_data(table(60))
    compared = comparison.Comparison(parsed, data, ("scaled",))
    for sigma in (0.0, 1.0):
        scales = (comparison.Relative(0.85), comparison.Relative(sigma) if sigma else 0.0)
        few, settings, _ = compared.score(0, scales, is_screening=True)
        exact, of_exact, _ = compared.score(0, scales, is_screening=False)
        assert few == pytest.approx(exact, abs=0.05 if sigma else 1e-4)
        assert settings.background == pytest.approx(of_exact.background, abs=0.05)


@pytest.mark.parametrize(
    ("top", "n_scored"), [((0.85, 2.0), 4), ((0.85, 1.0), 4), ((0.55, 3.0), 5)]
)
def test_scales_are_compared_from_the_default_on_as_long_as_they_improve(
    monkeypatch, top, n_scored
):
    parsed, data = parsed_and_data(table(30))
    scored = []

    def score(self, metric_index, scales, *, is_screening):
        factors = [scale.factor for scale in scales]
        scored.append(factors)
        distance = abs(np.log(factors[1] / top[1])) + abs(np.log(factors[0] / top[0]))
        return -distance, comparison.Settings("scaled", scales, 0.02), []

    monkeypatch.setattr(comparison.Comparison, "score", score)
    settings, _ = comparison.choose_settings(data, parsed, ("scaled",))
    assert tuple(scale.factor for scale in settings.scales) == top
    assert len(scored) == n_scored


def test_reasons_are_given_where_auto_is_no_choice():
    X = table()
    ring = X[:, :2] / np.linalg.norm(X[:, :2], axis=1, keepdims=True)
    circle = Circle([0.0, 0.0], 1.0)
    known = ManifoldAdaptedDiffusion(0.1, 0.2, manifold=circle, **QUICK).fit(ring)
    assert set(known.not_compared_) == {"metric", "background"}
    known = ManifoldAdaptedDiffusion("0.5h", manifold=circle, **QUICK).fit(ring)
    assert set(known.not_compared_) == {"metric", "sigma", "background"}
    shaped = quick(kernel=AnisotropicGaussianKernel("data")).fit(X)
    assert set(shaped.not_compared_) == {"metric"}
    assert "terminal_scale" in quick(terminal_scale=1e4).fit(X).not_compared_["metric"]
    over_base = SmoothedScoreDiffusion(base="parzen", **QUICK).fit(X / [1, 30, 1000])
    assert set(over_base.not_compared_) == {"metric", "bandwidth", "sigma", "background"}
    assert over_base.settings_["bandwidth"] == "auto"


def test_learned_tangents_follow_the_same_rule():
    model = ManifoldAdaptedDiffusion("0.85h", "1.5h", n_components=1, **QUICK).fit(table(25))
    assert model.metric_ != "euclidean"
    assert model.background_ >= 0.02


def test_a_bandwidth_below_the_rounding_of_one_metric_is_no_candidate_in_it():
    # 1e-20 is a fair bandwidth in units of X, and below the rounding of columns of deviation one.
    X = 1e-20 * np.random.default_rng(0).normal(size=(30, 2))
    assert quick(0.5e-20).fit(X).metric_ == "euclidean"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sigma": "1.5"}, "sigma='1.5' is not known"),
        ({"sigma": "h"}, "sigma='h' is not known"),
        ({"sigma": "-1h"}, "sigma='-1h' is not known"),
        ({"sigma": "nanh"}, "sigma='nanh' is not known"),
        ({"sigma": "1e999h"}, "the factor of sigma='1e999h'"),
        ({"bandwidth": "0h"}, "the factor of bandwidth='0h'"),
        ({"bandwidth": "1 h"}, "bandwidth='1 h' is not known"),
    ],
)
def test_malformed_relative_scales_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        quick(**params).fit(table())


def test_candidates_do_not_silence_other_threads():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with without_warnings():
            warn_user("of a candidate")
            other = threading.Thread(target=warn_user, args=("of another thread",))
            other.start()
            other.join()
        warn_user("of the result")
    assert [str(w.message) for w in caught] == ["of another thread", "of the result"]


def test_attributes_of_an_unfitted_model_are_named():
    with pytest.raises(NotFittedError, match=r"has no bandwidth_.*call fit"):
        _ = quick().bandwidth_
    assert not hasattr(quick(), "background_")
    with pytest.raises(AttributeError, match="bandwidth_ is read-only"):
        quick(0.3, 0.4).fit(table()).bandwidth_ = 1.0
