"""Which member of a family of scores a given score is closest to."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from skdiffsmooth import LocalScoreDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.model_selection import implied_smoothing


def wiener(X):
    covariance, mean = np.cov(X.T, bias=True), X.mean(axis=0)
    identity = np.eye(X.shape[1])
    return lambda x, v: -np.linalg.solve(covariance + v * identity, (x - mean).T).T


@pytest.mark.parametrize("sigma", [0.13, 0.3])
def test_a_planted_sigma_is_recovered(sigma):
    # Within 5 %: other nodes than those of the family, and errors of a tenth of the score.
    X = make_circle(12, spacing="even")
    rng = np.random.default_rng(3)
    model = SmoothedScoreDiffusion(0.1, sigma, n_nodes=300, random_state=5).fit(X)

    def score(x, v):
        planted = model.grad_log_density(x, v)
        return planted + 0.1 * planted.std() * rng.standard_normal(x.shape)

    result = implied_smoothing(score, X, noise_scales=[0.15, 0.4], n_samples=200)
    assert abs(result.overall / sigma - 1) < 0.05
    # Four standard errors, and the quadrature of 256 nodes.
    assert abs(result.overall - sigma) < 4 * result.overall_error + 0.02 * sigma


def test_a_planted_patch_size_is_recovered_in_nineteen_of_twenty_seeds():
    sizes = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = rng.uniform(size=(40, 16))
        model = LocalScoreDiffusion(
            0.1, image_shape=(4, 4), size=3, width=0, terminal_scale=0.2, n_levels=2
        ).fit(X)

        def score(x, v, model=model, rng=rng):
            # Errors of a fifth, and other levels and a background.
            planted = model.grad_log_density(x, v)
            return planted + 0.2 * planted.std() * rng.standard_normal(x.shape)

        network = SimpleNamespace(denoise=lambda x, v, score=score: x + v * score(x, v))
        result = implied_smoothing(
            network, X, "size", image_shape=(4, 4), noise_scales=[0.15], n_samples=60
        )
        sizes.append(result.overall)
    assert sizes.count(3) >= 19


def test_distances_are_fisher_divergences():
    X = np.random.default_rng(0).normal(size=(30, 3))
    family = {
        "Wiener": wiener(X),
        "rows": SmoothedScoreDiffusion(0.1, 0.0),
        "zero": lambda x, v: 0 * x,
    }
    result = implied_smoothing(wiener(X), X, family, noise_scales=[0.2, 1.0], n_samples=4000)
    assert list(result.closest) == ["Wiener", "Wiener"]
    assert result.overall == "Wiener"
    assert np.all(np.isnan(result.closest_errors))
    assert np.all(result.distances[:, 0] == 0)
    # v E|s|^2 a column of s = -(C + v I)^-1 x is v tr (C + v I)^-1 / d; four standard errors.
    for level, v in enumerate((0.04, 1.0)):
        exact = v * np.mean(1 / (np.linalg.eigvalsh(np.cov(X.T, bias=True)) + v))
        error = result.standard_errors[level, 2]
        assert abs(result.distances[level, 2] - exact) < 4 * error


def test_errors_are_those_of_repetitions():
    # Scores of Gaussians, with errors; the variance is 0.8 at the first noise scale, 1.2 at the second.
    X = np.random.default_rng(0).normal(size=(30, 3))
    family = {u: lambda x, v, u=u: -x / (u + v) for u in np.arange(2, 9) / 5}
    results = []
    for seed in range(50):
        rng = np.random.default_rng(1000 + seed)

        def score(x, v, rng=rng):
            return -x / (v + (0.8 if v < 1 else 1.2)) + 0.3 * rng.standard_normal(x.shape)

        results.append(
            implied_smoothing(
                score, X, family, noise_scales=[0.5, 1.1], n_samples=200, random_state=seed
            )
        )
    for name, error in (("closest", "closest_errors"), ("overall", "overall_error")):
        of_repetitions = np.std([getattr(result, name) for result in results], axis=0)
        returned = np.mean([getattr(result, error) for result in results], axis=0)
        # Standard deviations of 50 repetitions have errors of a tenth; three of them.
        np.testing.assert_allclose(returned / of_repetitions, 1, atol=0.3)
    # Distances are no parabolas: with labels 0.2 apart the closest is wrong by up to 0.04.
    low, high = np.mean([result.closest for result in results], axis=0)
    np.testing.assert_allclose([low, high], [0.8, 1.2], atol=0.04)
    overall = np.mean([result.overall for result in results])
    assert low + 0.1 < overall < high - 0.1


def test_units_do_not_matter():
    X = np.random.default_rng(0).normal(size=(30, 5))
    first, second = (implied_smoothing(wiener(c * X), c * X, "size") for c in (1.0, 1000.0))
    np.testing.assert_allclose(first.distances, second.distances, rtol=1e-8)
    np.testing.assert_allclose(1000 * first.noise_scales, second.noise_scales, rtol=1e-12)
    assert list(first.closest) == list(second.closest)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"family": "patches"}, ValueError, "family='patches'"),
        ({"family": ["sigma"]}, TypeError, "has type list"),
        ({"family": {}}, ValueError, "is empty"),
        ({"family": {2.0: wiener, 1.0: wiener}}, ValueError, "increasing"),
        ({"family": {"a": 3}}, TypeError, "has no score"),
        ({"noise_scales": [0.3, 0.1]}, ValueError, "increasing"),
        ({"n_samples": 3}, ValueError, "n_samples"),
        ({"family": {1.0: wiener, np.nan: wiener}}, ValueError, "increasing"),
        ({"image_shape": (1, 3)}, ValueError, "family='size' only"),
        ({"score": SmoothedScoreDiffusion}, TypeError, "is the class SmoothedScoreDiffusion"),
        ({"X": np.ones((4, 3)), "family": "sigma"}, ValueError, "1 distinct row among 4"),
        ({"X": [[0.0, np.nan], [0.0, 1.0]]}, ValueError, "NaN in column 1"),
        ({"score": lambda x, v: x[:1]}, ValueError, "score returned an array of shape"),
    ],
)
def test_wrong_input_is_named(settings, error, message):
    X = np.random.default_rng(0).normal(size=(30, 3))
    with pytest.raises(error, match=message):
        implied_smoothing(**{"score": wiener(X), "X": X, "family": {"a": wiener(X)}} | settings)


@pytest.mark.filterwarnings("error")
def test_estimators_of_the_user_stay_as_they_are():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    score, member = (SmoothedScoreDiffusion(0.1, 0.3).fit(frame[:n]) for n in (20, 5))
    implied_smoothing(score, frame, {"a": member}, noise_scales=[0.5], n_samples=20)
    assert len(member.points_) == 5
    assert list(score.feature_names_in_) == ["a", "b"]
