"""The Gaussian that a reverse process starts from, against scipy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import kstest, multivariate_normal

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
