"""Posterior weights of a larger noise, against loops over the points."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax

from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.kernels import TemperatureKernel
from skdiffsmooth.kernels._nodes import NodeRule
from skdiffsmooth.kernels._temperature import TemperedScore

POINTS = np.random.default_rng(0).normal(size=(6, 2))
WEIGHTS = np.array([0.1, 0.3, 0.15, 0.2, 0.05, 0.2])
X = np.random.default_rng(1).normal(size=(4, 2))
POSTERIOR = Posterior(torch.tensor(POINTS), torch.tensor(np.log(WEIGHTS)), memory_limit=64.0)


def tempered(x, v, variance, weights=WEIGHTS):
    """Score, divergence and log-density at one query; the score is a central difference too."""
    larger = max(v, variance)

    def log_density(x):
        logits = np.log(weights / weights.sum()) - ((x - POINTS) ** 2).sum(axis=1) / (2 * larger)
        return max(variance / v, 1.0) * (logsumexp(logits) - np.log(2 * np.pi * larger)), logits

    w = softmax(log_density(x)[1])
    mean = w @ POINTS
    trace = w @ ((POINTS - mean) ** 2).sum(axis=1)
    step = 1e-6 * np.eye(2)
    score = [(log_density(x + e)[0] - log_density(x - e)[0]) / 2e-6 for e in step]
    return (mean - x) / v, score, (trace / larger - 2) / v, log_density(x)[0]


@pytest.mark.parametrize(("v", "variance"), [(0.15, 0.4), (0.4, 0.4), (0.9, 0.4)])
def test_score_divergence_and_log_density(v, variance):
    field = TemperedScore(POSTERIOR, variance)
    x = torch.tensor(X)
    score, divergence = field.with_divergence(x, v)
    torch.testing.assert_close(field(x, v), score)
    expected = [tempered(row, v, variance) for row in X]
    np.testing.assert_allclose(score, [row[0] for row in expected], rtol=1e-10)
    np.testing.assert_allclose(score, [row[1] for row in expected], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(divergence, [row[2] for row in expected], rtol=1e-10)
    np.testing.assert_allclose(field.log_density(x, v), [row[3] for row in expected], rtol=1e-10)
    assert field.rows(torch.tensor([1])) is field
    influence = field.influence(x, v)
    logits = np.log(WEIGHTS) - ((X[:, None] - POINTS) ** 2).sum(axis=2) / 2 / max(v, variance)
    w = softmax(logits, axis=1)
    np.testing.assert_allclose(influence.weights, w, rtol=1e-10)
    np.testing.assert_allclose(
        influence.derivatives, w[..., None] * (POINTS - (w @ POINTS)[:, None]), rtol=1e-9
    )


@pytest.mark.parametrize("v", [0.1, 0.9])
def test_a_point_is_excluded_for_each_query(v):
    exclude = torch.tensor([3, 0, 5, 3])
    field = TemperedScore(POSTERIOR, 0.4, exclude)
    x = torch.tensor(X)
    score, divergence = field.with_divergence(x, v)
    for i, point in enumerate(exclude.tolist()):
        weights = np.where(np.arange(6) == point, 1e-300, WEIGHTS)
        own = tempered(X[i], v, 0.4, weights)
        np.testing.assert_allclose(score[i], own[0], rtol=1e-9)
        assert float(divergence[i]) == pytest.approx(own[2])
        assert float(field.log_density(x, v)[i]) == pytest.approx(own[3])
    some = field.rows(torch.tensor([2, 0]))
    assert some.exclude.tolist() == [5, 3]
    torch.testing.assert_close(some(x[[2, 0]], v), score[[2, 0]])


def test_each_level_has_its_own_scale():
    shape = TemperatureKernel().reduce(None, POINTS, WEIGHTS)
    assert (shape.rank, shape.n_nodes, shape.widest_std) == (0, 1, 1.0)
    smoothing = shape.freeze(np.array([0.5, 3.0]), NodeRule("sobol", 8, 0))
    assert smoothing.has_divergence
    assert smoothing.n_nodes == 1
    exclude = torch.tensor([1])
    fields = [smoothing.field(level, POSTERIOR, None, exclude) for level in (0, 1)]
    assert [field.variance for field in fields] == [0.25, 9.0]
    assert fields[0].posterior is POSTERIOR
    assert fields[1].exclude is exclude
    assert repr(TemperatureKernel()) == "TemperatureKernel()"
