"""Fits of several mixtures at once, against expectation maximisation by loops."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skdiffsmooth._engine import mixture_fit
from skdiffsmooth._engine.mixture_fit import fit_restarts, is_restart


def rows(n=60, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 3 * rng.integers(0, 3, size=(n, 1))


def mixture(seed=0, **settings):
    return GaussianMixture(
        **({"n_components": 3, "init_params": "k-means++"} | settings)
    ).set_params(random_state=seed)


def by_loops(X, responsibilities, floor):
    """Return weights, means and covariances of highest likelihood, for one mixture (K, n)."""
    weights, means, covariances = [], [], []
    for own in responsibilities:
        mean = np.sum([p * x for p, x in zip(own, X, strict=True)], axis=0) / own.sum()
        each = [p * np.outer(x - mean, x - mean) for p, x in zip(own, X, strict=True)]
        weights.append(own.sum())
        means.append(mean)
        covariances.append(np.sum(each, axis=0) / own.sum() + floor * np.eye(X.shape[1]))
    return np.array(weights) / np.sum(weights), np.array(means), np.array(covariances)


def test_features_are_one_the_columns_and_their_products():
    x, y, z = 2.0, 3.0, 5.0
    found = mixture_fit._features(torch.tensor([[x, y, z]], dtype=torch.float64))
    assert found.tolist() == [[1, x, y, z, x * x, x * y, x * z, y * y, y * z, z * z]]


def test_maximisation_is_that_of_each_component():
    X = rows(20, 3)
    responsibilities = np.random.default_rng(1).uniform(size=(2, 4, 20))
    features = mixture_fit._features(torch.from_numpy(X))
    found = mixture_fit._maximized(torch.from_numpy(responsibilities), features, 3, 0.3)
    for k in range(2):
        for each, expected in zip(found, by_loops(X, responsibilities[k], 0.3), strict=True):
            assert_allclose(each[k], expected, rtol=1e-12)
    # A component without rows gets the floor as its covariance, and no NaN.
    responsibilities[:, 1] = 0
    empty = mixture_fit._maximized(torch.from_numpy(responsibilities), features, 3, 0.3)
    assert_allclose(empty.weights[:, 1], 0.0, atol=1e-14)
    assert_allclose(empty.means[:, 1], 0.0, atol=1e-12)
    assert_allclose(empty.covariances[:, 1], [0.3 * np.eye(3)] * 2, atol=1e-12)


def test_densities_are_those_of_the_components():
    rng, X = np.random.default_rng(2), rows(7, 3)
    roots = rng.normal(size=(2, 4, 3, 3))
    own = mixture_fit._Mixtures(
        rng.dirichlet(np.ones(4), size=2), rng.normal(size=(2, 4, 3)), roots @ roots.swapaxes(2, 3)
    )
    features = mixture_fit._features(torch.from_numpy(X))
    found = mixture_fit._log_joint(mixture_fit._Mixtures(*map(torch.from_numpy, own)), features)
    assert found.shape == (2, 4, 7)
    for r in range(2):
        for k in range(4):
            normal = multivariate_normal(own.means[r, k], own.covariances[r, k])
            assert_allclose(found[r, k], normal.logpdf(X) + np.log(own.weights[r, k]), rtol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"n_components": 1}, {"tol": 0.1}, {"reg_covar": 0.2}])
def test_fits_are_those_of_each_mixture(settings):
    together = [mixture(seed, **settings) for seed in range(3)]
    X = rows()
    fit_restarts(together, X, 16.0)
    for seed, each in enumerate(together):
        alone = mixture(seed, **settings).fit(X)
        assert_allclose(each.weights_, alone.weights_, rtol=1e-7)
        assert_allclose(each.means_, alone.means_, rtol=1e-7, atol=1e-9)
        assert_allclose(each.covariances_, alone.covariances_, rtol=1e-7, atol=1e-9)


def test_fits_end_after_the_iterations():
    X, together = rows(), [mixture(seed, max_iter=2, tol=1e-9) for seed in range(3)]
    with pytest.warns(
        ConvergenceWarning, match=r"(?s)3 of 3 fits .* in 2 iterations; raise max_iter"
    ):
        fit_restarts(together, X, 16.0)
    for seed, each in enumerate(together):
        with pytest.warns(ConvergenceWarning):
            alone = mixture(seed, max_iter=2, tol=1e-9).fit(X)
        assert_allclose(each.means_, alone.means_, rtol=1e-9)


def test_as_many_mixtures_at_once_as_fit_into_memory(monkeypatch):
    sizes = []
    monkeypatch.setattr(mixture_fit, "_fit_together", lambda own, *_: sizes.append(len(own)))
    monkeypatch.setattr(GaussianMixture, "fit", lambda own, _: sizes.append("alone"))
    X = rows(50)
    # Of each mixture three numbers of 8 bytes for a row and a component; of all, six for a row.
    one, features = 24 * 150, 8 * 50 * 6
    expected = {2 * one: [2, 2, 1], 2 * one - 1: [1] * 5, features: [1] * 5}
    expected[features - 1] = ["alone"] * 5
    for limit, found in expected.items():
        sizes.clear()
        fit_restarts([mixture(seed) for seed in range(5)], X, limit / 2**20)
        assert sizes == found


def test_mixtures_are_fitted_alone_where_squares_would_lose_digits(monkeypatch):
    calls = []
    monkeypatch.setattr(mixture_fit, "_fit_together", lambda *_: calls.append("together"))
    monkeypatch.setattr(GaussianMixture, "fit", lambda own, _: calls.append("alone"))
    X = np.array([[3.0, 4.0], [-3.0, -4.0], [0.0, 0.0]])  # at most 5 from the mean
    least = np.finfo(float).eps * 25 / 1e-6
    for reg_covar, expected in ((least, "together"), (least * (1 - 1e-9), "alone")):
        calls.clear()
        fit_restarts([mixture(0, reg_covar=reg_covar)], X + 1e6, 16.0)
        assert calls == [expected]


def test_as_few_rows_as_components():
    X = np.array([[0.0, 1.0], [4.0, 1.0], [9.0, 3.0]])
    own = [mixture(0), mixture(1)]
    fit_restarts(own, X, 16.0)
    for each in own:
        assert_allclose(np.sort(each.means_, axis=0), X, atol=1e-12)
        assert_allclose(each.weights_, np.full(3, 1 / 3))
    with pytest.raises(ValueError, match="n_samples >= n_components"):
        fit_restarts([mixture(0), mixture(1)], X[:2], 16.0)


def test_which_settings_are_those_of_restarts():
    first = mixture(0)
    assert is_restart(mixture(1), first)
    for name, value in (("n_components", 0), ("max_iter", 0), ("reg_covar", -1e-9)):
        assert not is_restart(mixture(0, **{name: value}), mixture(1, **{name: value}))
    for name, value in (("n_components", 1), ("max_iter", 1), ("reg_covar", 0.0), ("tol", 0.5)):
        assert is_restart(mixture(0, **{name: value}), mixture(1, **{name: value}))
        assert not is_restart(mixture(0, **{name: value}), first)
    for name, value in (("n_init", 2), ("warm_start", True), ("init_params", "random")):
        assert not is_restart(mixture(0, **{name: value}), mixture(1, **{name: value}))
    fitted = mixture(0).fit(rows())
    assert not is_restart(fitted, first)
    assert not is_restart(first, fitted)

    class Other(GaussianMixture):
        pass

    assert not is_restart(Other(3, init_params="k-means++"), first)
    assert not is_restart(first, Other(3, init_params="k-means++"))
