"""The distributions that a reverse process starts from, against scipy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import kstest, multivariate_normal, norm

from skdiffsmooth._utils.shards import ONE_PROCESS
from skdiffsmooth.solvers._terminal import EmpiricalTerminal, GaussianTerminal


@pytest.mark.parametrize("scale", [3.0, np.array([3.0, 0.5])])
def test_draws_have_the_density(scale):
    terminal = GaussianTerminal(np.array([1.0, -2.0]), scale)
    x = terminal.sample(np.random.RandomState(0), 500)
    exact = multivariate_normal(terminal.mean, np.diag(np.broadcast_to(scale, 2) ** 2))
    assert_allclose(terminal.log_density(torch.from_numpy(x)), exact.logpdf(x), rtol=1e-12)
    # Correct draws fail once in a million seeds.
    for column in ((x - terminal.mean) / scale).T:
        assert kstest(column, "norm").pvalue > 1e-6


def test_a_gaussian_terminal_has_its_means_and_scales():
    rng = np.random.default_rng(0)
    x, means = rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    for mean, scale in ((means[0], 0.7), (means, 0.7), (means[0], np.array([0.5, 2.0]))):
        own = GaussianTerminal(mean, scale)
        expected = norm.logpdf(x, mean, scale).sum(axis=1)
        assert_allclose(own.log_density(torch.from_numpy(x)), expected)
    drawn = GaussianTerminal(means[0], np.array([0.5, 2.0])).sample(
        np.random.RandomState(0), 20_000
    )
    assert_allclose(drawn.mean(axis=0), means[0], atol=0.05)
    assert_allclose(drawn.std(axis=0), [0.5, 2.0], rtol=0.03)


def test_the_noised_data_are_drawn_with_their_weights():
    """At the scale of the terminal, from the points that are merged there or from the base."""
    points, weights = np.array([[0.0, 100.0], [-50.0, 300.0]]), np.array([0.25, 0.75])
    scales = []

    def at(scale):
        scales.append(scale)
        return points, weights

    schedule = SimpleNamespace(base=None, hierarchy=SimpleNamespace(at=at), shards=ONE_PROCESS)
    drawn = EmpiricalTerminal(schedule, 3.0).sample(np.random.RandomState(0), 4000)
    assert scales == [3.0]
    nearest = (drawn[:, 1] > 200).astype(int)
    assert nearest.mean() == pytest.approx(0.75, abs=0.04)
    assert kstest((drawn - points[nearest]).ravel() / 3.0, "norm").pvalue > 1e-6
    base = SimpleNamespace(sample=lambda rng, n: np.full((n, 2), 7.0))
    schedule = SimpleNamespace(base=base)
    drawn = EmpiricalTerminal(schedule, 3.0).sample(np.random.RandomState(0), 4000)
    assert kstest((drawn - 7.0).ravel() / 3.0, "norm").pvalue > 1e-6


def test_the_log_density_of_the_noised_data_is_that_of_their_posterior():
    calls = []

    class Posterior:
        def log_density(self, x, v, *, exclude):
            calls.append((v, exclude))
            return -x[:, 0]

    schedule = SimpleNamespace(
        exclude="rows", posterior_at=lambda scale: calls.append(scale) or Posterior()
    )
    found = EmpiricalTerminal(schedule, 3.0).log_density(torch.tensor([[1.0], [2.0]]))
    assert found.tolist() == [-1.0, -2.0]
    assert calls == [3.0, (9.0, "rows")]
