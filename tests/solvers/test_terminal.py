"""The Gaussian that a reverse process starts from, against scipy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import kstest, multivariate_normal, norm

from skdiffsmooth.solvers._terminal import GaussianTerminal


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
