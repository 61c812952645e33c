"""Scores averaged over positions of the query, and their divergences, for positions in closed form."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.special import softmax

from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.kernels._moved import Derivative, MovedScore

R = 3
POINTS = np.random.default_rng(0).normal(size=(7, R))
WEIGHTS = np.random.default_rng(1).dirichlet(np.ones(7))
X = np.random.default_rng(2).normal(size=(5, R))
OFFSETS = np.array([[0.3, -0.2, 0.1], [-0.6, 0.1, 0.4], [0.1, 0.2, -0.9], [0.0, 0.5, 0.2]])
NODE_WEIGHTS = np.array([0.4, 0.3, 0.2, 0.1])
LEFT = np.random.default_rng(3).normal(size=(R, 2))
RIGHT = np.random.default_rng(4).normal(size=(R, 2))


@dataclass(frozen=True)
class Linear(MovedScore):
    """Positions a_m x + L R^T x + xi_m with a_m = 1 + first coordinate of the offset."""

    posterior: Posterior
    nodes: Nodes
    exclude: torch.Tensor | None = None

    def _values_per_node(self, rank):
        return 5 * rank

    def _push(self, x, offsets, *, with_derivative):
        left, right = (torch.tensor(each, dtype=x.dtype) for each in (LEFT, RIGHT))
        stretch = 1 + offsets[:, 0]
        y = stretch[:, None] * x[:, None] + (x @ right @ left.T)[:, None] + offsets
        if not with_derivative:
            return y, None
        frames = (each.expand(len(x), len(offsets), R, 2) for each in (left, right))
        return y, Derivative(stretch[None], *frames)


def field(exclude=None, dtype=torch.float64, memory_limit=64.0):
    posterior = Posterior(
        torch.tensor(POINTS, dtype=dtype),
        torch.tensor(np.log(WEIGHTS), dtype=dtype),
        memory_limit=memory_limit,
    )
    nodes = Nodes(torch.tensor(OFFSETS, dtype=dtype), torch.tensor(NODE_WEIGHTS, dtype=dtype), 1.0)
    return Linear(posterior, nodes, exclude)


def by_loops(x, v, weights):
    """Score and divergence of one query; the derivative of each node's score is J dy/dx."""
    score, divergence = np.zeros(R), 0.0
    for offset, q in zip(OFFSETS, NODE_WEIGHTS, strict=True):
        derivative = (1 + offset[0]) * np.eye(R) + LEFT @ RIGHT.T
        y = derivative @ x + offset
        w = softmax(np.log(weights) - ((y - POINTS) ** 2).sum(axis=1) / (2 * v))
        mean = w @ POINTS
        covariance = (POINTS - mean).T @ np.diag(w) @ (POINTS - mean)
        score += q * (mean - y) / v
        divergence += q * np.trace((covariance / v - np.eye(R)) / v @ derivative)
    return score, divergence


@pytest.mark.parametrize("v", [0.3, 2.0])
@pytest.mark.parametrize("excluded", [None, [0, 6, 2, 2, 4]])
def test_score_and_divergence(v, excluded):
    x = torch.tensor(X)
    own = field(None if excluded is None else torch.tensor(excluded))
    score, divergence = own.with_divergence(x, v)
    torch.testing.assert_close(own(x, v), score)
    for i, row in enumerate(X):
        left_out = -1 if excluded is None else excluded[i]
        weights = np.where(np.arange(7) == left_out, 1e-300, WEIGHTS)
        expected = by_loops(row, v, weights)
        np.testing.assert_allclose(score[i], expected[0], rtol=1e-9)
        assert float(divergence[i]) == pytest.approx(expected[1])


def test_influence_is_averaged_over_the_positions():
    x, v = torch.tensor(X), 0.5
    found = field().influence(x, v)
    expected = np.zeros((5, 7))
    for offset, q in zip(OFFSETS, NODE_WEIGHTS, strict=True):
        y = X * (1 + offset[0]) + X @ RIGHT @ LEFT.T + offset
        logits = np.log(WEIGHTS) - ((y[:, None] - POINTS) ** 2).sum(axis=2) / (2 * v)
        expected += q * softmax(logits, axis=1)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-9)


@pytest.mark.parametrize("memory_limit", [1.0, 64.0])
def test_queries_fill_half_of_the_memory(memory_limit):
    """Each position takes 5 r numbers of eight bytes here, and a query has four positions."""
    n = field(memory_limit=memory_limit)._queries_at_once(R)
    used = n * 4 * 5 * R * 8 / 2**20
    assert memory_limit / 2 - 4 * 5 * R * 8 / 2**20 < used <= memory_limit / 2


def test_parts_of_the_queries_have_the_same_scores(monkeypatch):
    x, exclude = torch.tensor(X), torch.tensor([0, 6, 2, 2, 4])
    expected = field(exclude).with_divergence(x, 0.5)
    monkeypatch.setattr(Linear, "_queries_at_once", lambda self, rank: 2)
    torch.testing.assert_close(field(exclude).with_divergence(x, 0.5), expected)


def test_positions_are_computed_as_precisely_as_the_engine_needs():
    """At noise too small for float32 the posterior, and so the positions, are in float64."""
    own = field(dtype=torch.float32)
    dtypes, derivatives = [], []

    class Recording(Linear):
        def _push(self, x, offsets, *, with_derivative):
            dtypes.append((x.dtype, offsets.dtype))
            derivatives.append(with_derivative)
            return super()._push(x, offsets, with_derivative=with_derivative)

    recording = Recording(own.posterior, own.nodes)
    x = torch.tensor(X, dtype=torch.float32)
    assert recording(x, 1e-8).dtype == torch.float32
    assert recording(x, 1.0).dtype == torch.float32
    double, single = torch.float64, torch.float32
    assert dtypes == [(double, double), (single, single)]
    recording.influence(x, 1.0)
    recording.with_divergence(x, 1.0)
    # Derivatives are computed for divergences only.
    assert derivatives == [False, False, False, True]
