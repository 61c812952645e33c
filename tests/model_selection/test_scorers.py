"""Laplacians of log-densities, and the scorers that are made of them."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.manifolds import PointCloud, Sphere
from skdiffsmooth.model_selection import (
    denoising_score,
    hyvarinen_score,
    make_denoising_scorer,
    make_hyvarinen_scorer,
)

COARSE = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}
SCORERS = [
    hyvarinen_score,
    denoising_score,
    make_hyvarinen_scorer(0.3),
    make_denoising_scorer(0.1, 1),
]


def table(n=30, d=3, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d)) * np.geomspace(2.0, 0.5, d)


def flat(n=30):
    """Rows in a plane of R^3."""
    X = table(n)
    X[:, 2] = X[:, 0] - X[:, 1]
    return X


def numeric_divergence(gradient, X, step=1e-5):
    total = np.zeros(len(X))
    for j in range(X.shape[1]):
        shift = step * np.eye(X.shape[1])[j]
        total += (gradient(X + shift) - gradient(X - shift))[:, j] / (2 * step)
    return total


@pytest.mark.parametrize(
    ("model", "X"),
    [
        (KDESampler(0.5), table()),
        (KDESampler([0.9, 0.5, 0.3]), table()),
        (SmoothedScoreDiffusion(0.3, 0.5, **COARSE), table()),
        (SmoothedScoreDiffusion(0.3, 0.5, **COARSE), flat()),
        (SmoothedScoreDiffusion(0.3, 0.5, kernel="temperature", **COARSE), table()),
        (ManifoldAdaptedDiffusion(0.3, 0.5, n_components=1, **COARSE), table()),
        (ManifoldAdaptedDiffusion(0.3, 0.2, manifold=Sphere(np.zeros(3), 3.0), **COARSE), table()),
    ],
    ids=["kde", "kde-per-feature", "smoothed", "flat", "temperature", "local", "sphere"],
)
@pytest.mark.parametrize("t", [None, 0.5])
def test_the_laplacian_is_the_divergence_of_the_gradient(model, X, t):
    model.fit(X)
    Q = X[:6] + 0.1
    numeric = numeric_divergence(lambda x: model.grad_log_density(x, t=t), Q)
    # A central difference with a step of 1e-5: its rounding is 1e-16 of a gradient of some tens.
    assert_allclose(model.laplacian_log_density(Q, t=t), numeric, rtol=1e-6, atol=1e-5)


def test_noise_of_a_kde_is_bandwidth():
    X, Q = table(), table(seed=1)
    kde = KDESampler([0.9, 0.5, 0.3]).fit(X)
    wider = KDESampler(np.sqrt(np.array([0.9, 0.5, 0.3]) ** 2 + 0.2)).fit(X)
    for name in ("grad_log_density", "laplacian_log_density"):
        found = getattr(kde, name)(Q, t=kde.bandwidth_**2 + 0.2)
        assert_allclose(found, getattr(wider, name)(Q), atol=1e-10)
    single = KDESampler(0.7).fit(X)
    assert_allclose(kde.grad_log_density(Q, t=0.49), single.grad_log_density(Q), atol=1e-10)


@pytest.mark.parametrize("t", [0, -1.0, np.nan, [1.0, 2.0], [1.0, 2.0, 0.0]])
def test_noise_variances_of_a_kde_that_do_not_fit(t):
    kde = KDESampler(0.5).fit(table())
    for call in (kde.grad_log_density, kde.laplacian_log_density):
        with pytest.raises(ValueError, match="t="):
            call(table(), t=t)


def test_what_has_no_laplacian_says_so():
    X = table()
    kde = KDESampler(2.0, "epanechnikov").fit(X)
    with pytest.raises(ValueError, match="kernel='gaussian'"):
        kde.laplacian_log_density(X)
    with pytest.raises(ValueError, match="kernel='gaussian'"):
        kde.grad_log_density(X, t=1.0)
    manifold = PointCloud(np.random.RandomState(0).normal(size=(20, 3)))
    model = ManifoldAdaptedDiffusion(0.3, 0.2, manifold=manifold, **COARSE).fit(X)
    with pytest.raises(ValueError, match="no derivative"):
        model.laplacian_log_density(X)
    with pytest.raises(NotFittedError):
        SmoothedScoreDiffusion().laplacian_log_density(X)


@pytest.mark.parametrize("t", [0.0, 0.3])
def test_the_score_matching_loss_row_by_row(t):
    X, Q = table(), table(5, seed=1)
    model = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    noise = np.random.RandomState(7).standard_normal((2, *Q.shape))
    total, n = 0.0, 0
    for z in noise:
        for sign in (1, -1):
            for q, shift in zip(Q, z, strict=True):
                row = (q + sign * np.sqrt(t) * shift)[None]
                score = model.grad_log_density(row, t=0.3**2 + t)[0]
                total += model.laplacian_log_density(row, t=0.3**2 + t)[0] + score @ score / 2
                n += 1
    scorer = make_hyvarinen_scorer(t, n_pairs=2, random_state=7)
    assert scorer(model, Q) == pytest.approx(-total / n, abs=1e-9)


def test_the_denoising_loss_level_by_level():
    X, Q = table(), table(5, seed=1)
    model = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    noise = np.random.RandomState(7).standard_normal((2, *Q.shape))
    levels = 0.01 * 10.0 ** np.arange(4)
    losses = []
    for t in levels:
        rows = []
        for z in [*noise, *-noise]:
            score = model.grad_log_density(Q + np.sqrt(t) * z, t=0.3**2 + t)
            rows.append(t * np.sum((score + z / np.sqrt(t)) ** 2, axis=1) - np.sum(z**2, axis=1))
        losses.append(np.mean(rows))
    # The trapezoid rule in log t, and below the first level a constant rate in t.
    expected = losses[0] + np.log(10) * (losses[0] / 2 + losses[1] + losses[2] + losses[3] / 2)
    scorer = make_denoising_scorer(0.01, 10.0, 4, n_pairs=2, random_state=7)
    assert scorer(model, Q) == pytest.approx(-expected / 2, abs=1e-9)


def test_denoising_differences_of_kdes_are_likelihood_differences():
    # De Bruijn's identity. One point, where all is closed form but the noise.
    rng = np.random.RandomState(0)
    Q = rng.normal(size=(400, 2))
    models = [KDESampler(h).fit([[0.0, 0.0]]) for h in (0.8, 1.0, 1.5)]
    scorer = make_denoising_scorer(1e-4, 1e4, 60, n_pairs=20)
    found = np.array([scorer(model, Q) for model in models])
    expected = np.array([model.score(Q) for model in models])
    # 16 000 pairs of noise: a standard error of 0.005 nats; steps of log t are 0.3, tails 1e-4.
    assert_allclose(np.diff(found), np.diff(expected), atol=0.02)


def test_both_losses_measure_one_distance():
    X, Q = table(100), table(300, seed=1)
    t, pairs = 0.3, 60
    found = []
    for sigma in (0.0, 0.5):
        model = SmoothedScoreDiffusion(0.3, sigma, **COARSE).fit(X)
        hyvarinen = make_hyvarinen_scorer(t, n_pairs=pairs)(model, Q)
        # Two levels, so close to one another that the integral is t H(t), twice: t H(t) + 0.
        denoising = make_denoising_scorer(t, t * (1 + 1e-9), 2, n_pairs=pairs)(model, Q)
        found.append((t * hyvarinen, denoising))
    # Equal in expectation by partial integration; 36 000 rows leave 0.01.
    for one, other in found:
        assert one == pytest.approx(other, abs=0.03)


def test_bandwidths_below_a_noise_level_have_different_losses():
    X, Q = table(), table(20, seed=1)
    for scorer in (make_hyvarinen_scorer(4.0), make_denoising_scorer(4.0, 9.0)):
        near, far = (scorer(KDESampler(h).fit(X), Q) for h in (0.3, 1.5))
        assert abs(near - far) > 1e-3


def test_directions_without_extent_count():
    X = table()
    Q = table(20, seed=1)
    none = np.zeros((len(X), 2))
    high = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(np.hstack([X, none]))
    low = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    # In each of two more directions: divergence -1 / h^2 and no score.
    found = hyvarinen_score(high, np.hstack([Q, none[:20]]))
    assert found == pytest.approx(hyvarinen_score(low, Q) + 2 / 0.09, abs=1e-8)


@pytest.mark.parametrize("scorer", SCORERS)
class TestEveryScorer:
    def test_searches_and_repeats_itself(self, scorer):
        X = table(60)
        grid = {"bandwidth": [0.03, 0.5, 6.0]}
        search = GridSearchCV(KDESampler(), grid, scoring=scorer, cv=3).fit(X)
        assert search.best_params_ == {"bandwidth": 0.5}
        again = GridSearchCV(KDESampler(), grid, scoring=scorer, cv=3).fit(X)
        for name in ("mean_test_score", "split0_test_score"):
            assert_allclose(search.cv_results_[name], again.cv_results_[name], rtol=1e-12)
        pickle.loads(pickle.dumps(scorer))

    def test_takes_data_frames_without_a_warning(self, scorer):
        X = table()
        frame = pd.DataFrame(X, columns=["a", "b", "c"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = scorer(SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(frame), frame)
        plain = scorer(SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X), X)
        assert found == pytest.approx(plain, rel=1e-12)

    def test_needs_no_likelihood(self, scorer):
        X = table()
        model = SmoothedScoreDiffusion(0.3, 0.5, solver="euler-maruyama", **COARSE).fit(X)
        assert np.isfinite(scorer(model, X))

    def test_bandwidths_of_each_feature(self, scorer):
        assert np.isfinite(scorer(KDESampler("scott").fit(table()), table(seed=1)))

    def test_one_row(self, scorer):
        assert np.isfinite(scorer(KDESampler(0.5).fit(table()), table(1)))

    def test_says_what_does_not_fit(self, scorer):
        X = table()
        pipeline = make_pipeline(StandardScaler(), KDESampler(0.5)).fit(X)
        with pytest.raises(TypeError, match="Make the search a step of the pipeline"):
            scorer(pipeline, X)
        with pytest.raises(NotFittedError):
            scorer(KDESampler(), X)
        with pytest.raises(ValueError, match="2 features"):
            scorer(KDESampler(0.5).fit(X), X[:, :2])
        with pytest.raises(ValueError, match="kernel='gaussian'"):
            scorer(KDESampler(9.0, "linear").fit(X), X)
        with pytest.raises(TypeError, match=r"X is a tensor that requires gradients.*detach"):
            scorer(KDESampler(0.5).fit(X), torch.tensor(X, requires_grad=True))


def test_a_larger_noise_draw_moves_scores_a_little():
    X, Q = table(), table(40, seed=1)
    model = KDESampler(0.5).fit(X)
    seeds = [make_denoising_scorer(random_state=seed)(model, Q) for seed in (0, 1)]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize(
    ("make", "arguments", "error"),
    [
        (make_hyvarinen_scorer, {"noise_variance": -1.0}, ValueError),
        (make_hyvarinen_scorer, {"noise_variance": "h"}, TypeError),
        (make_hyvarinen_scorer, {"n_pairs": 0}, ValueError),
        (make_hyvarinen_scorer, {"n_pairs": 10**30}, ValueError),
        (make_denoising_scorer, {"t_min": 0.0}, ValueError),
        (make_denoising_scorer, {"t_min": 10**400}, ValueError),
        (make_denoising_scorer, {"t_min": 1.0, "t_max": 0.5}, ValueError),
        (make_denoising_scorer, {"n_levels": 1}, ValueError),
        (make_denoising_scorer, {"n_pairs": 1.5}, TypeError),
        (make_denoising_scorer, {"random_state": None}, TypeError),
        (make_denoising_scorer, {"random_state": -1}, ValueError),
    ],
)
def test_parameters_out_of_range(make, arguments, error):
    (name,) = {"t_min": "t_max"} if len(arguments) == 2 else arguments
    with pytest.raises(error, match=name.replace("t_min", "t_m")):
        make(**arguments)


@pytest.mark.parametrize("make", [make_hyvarinen_scorer, make_denoising_scorer])
@pytest.mark.parametrize("seed", [None, np.random.RandomState(0)], ids=["None", "RandomState"])
def test_the_message_offers_no_seed_that_is_refused(make, seed):
    """Candidates are compared on the same noise, so only an integer will do."""
    with pytest.raises(TypeError, match=r"Pass an integer from 0 to 2\*\*32 - 1\.$"):
        make(random_state=seed)


def test_metrics_are_not_compared():
    X = table()
    model = SmoothedScoreDiffusion(0.3, 0.5, metric=0.5, **COARSE).fit(X)
    for scorer in SCORERS:
        with pytest.raises(ValueError, match=r"metric=0\.5"):
            scorer(model, X)
    with pytest.raises(ValueError, match=r"metric=0\.5"):
        model.laplacian_log_density(X)


def test_a_range_that_the_rows_turn_round():
    with pytest.raises(ValueError, match="t_max"):
        make_denoising_scorer(t_min=1e6)(KDESampler(0.5).fit(table()), table())
