"""Tests of the score smoothed along a known manifold, against twins that autograd differentiates.

The manifolds here are stand-ins of a few lines, whose projection autograd can follow. The twin does
one query at a time with the formulas of the paper, and its divergence is the trace of a Jacobian by
automatic differentiation: nothing of the closed form is in it.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffsmooth._posterior import Nodes, Posterior
from skdiffsmooth._pushed import LevelSetScore, TranslatedScore
from skdiffsmooth.kernels import gaussian_nodes
from skdiffsmooth.likelihood import flow_log_density
from skdiffsmooth.noise import NoiseLevels
from skdiffsmooth.scores import SmoothedScore
from skdiffsmooth.solvers import Heun, solve

FIELDS = {"translated": TranslatedScore, "level-set": LevelSetScore}

# ------------------------------------------------------------------------------------- stand-ins


@dataclass(frozen=True)
class Sphere:
    """A sphere about the origin of R^r: a circle in two dimensions."""

    radius: float = 1.0
    dimension: int = 1

    def project(self, x):
        return self.radius * x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)

    def tangent(self, x):
        # The left singular vectors of a column beyond the first are orthogonal to it.
        return torch.linalg.svd(x[:, :, None])[0][:, :, 1:]

    def projection_derivative(self, x):
        lengths = torch.linalg.vector_norm(x, dim=-1)[:, None, None]
        return self.radius / lengths * torch.eye(x.shape[1] - 1, dtype=x.dtype, device=x.device)


@dataclass(frozen=True)
class Circle(Sphere):
    """The circle in R^2, its tangent without an SVD."""

    def tangent(self, x):
        unit = self.project(x) / self.radius
        return torch.stack([-unit[:, 1], unit[:, 0]], dim=1)[:, :, None]


@dataclass(frozen=True)
class Subspace:
    """The span of orthonormal columns, moved."""

    origin: torch.Tensor
    basis: torch.Tensor

    @property
    def dimension(self):
        return self.basis.shape[1]

    def project(self, x):
        return self.origin + (x - self.origin) @ self.basis @ self.basis.T

    def tangent(self, x):
        return self.basis.expand(len(x), -1, -1)

    def projection_derivative(self, x):
        return torch.eye(self.dimension, dtype=x.dtype).expand(len(x), -1, -1)


@dataclass(frozen=True)
class CircleInSpace:
    """The unit circle of the first two of three coordinates: of codimension two."""

    dimension: int = 1

    def project(self, x):
        return torch.cat([Circle().project(x[:, :2]), torch.zeros_like(x[:, 2:])], dim=1)

    def tangent(self, x):
        tangent = Circle().tangent(x[:, :2])
        return torch.cat([tangent, torch.zeros_like(tangent[:, :1])], dim=1)

    def projection_derivative(self, x):
        return Circle().projection_derivative(x[:, :2])


MANIFOLDS = {
    "circle": (2, Circle(0.8)),
    "sphere": (3, Sphere(0.9, 2)),
    "circle in space": (3, CircleInSpace()),
}


# -------------------------------------------------------------------------------------- problems


def tensor(array):
    return torch.tensor(np.asarray(array), dtype=torch.float64)


def nodes_of(offsets, weights=None):
    offsets = tensor(offsets)
    weights = torch.full((len(offsets),), 1 / len(offsets)) if weights is None else tensor(weights)
    reach = float(torch.linalg.vector_norm(offsets, dim=1).max())
    return Nodes(offsets, weights.to(offsets), reach)


def lopsided_nodes(rng, n_nodes, dimension, scale):
    """Nodes of mean zero with neither symmetry nor equal weights, which would hide mistakes."""
    weights = rng.dirichlet(np.ones(n_nodes))
    offsets = scale * rng.standard_normal((n_nodes, dimension))
    return nodes_of(offsets - weights @ offsets, weights)


def problem(dimension, *, n_points=7, n_queries=4, n_nodes=6, scale=0.4, seed=0, memory_limit=16.0):
    """A posterior, nodes, and queries near to where points are equally far.

    Elsewhere, at low noise, the Jacobian of the score would be -I / v and nothing else.
    """
    rng = np.random.RandomState(seed)
    points = rng.standard_normal((n_points, dimension))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    weights = rng.dirichlet(np.ones(n_points))
    posterior = Posterior(tensor(points), tensor(np.log(weights)), memory_limit=memory_limit)
    queries = tensor(points[:n_queries] + points[1 : n_queries + 1]) / 2
    return posterior, lopsided_nodes(rng, n_nodes, dimension, scale), queries


# ------------------------------------------------------------------------------------------ twin


def place(name, manifold, x, offset):
    """Where one node pushes one query (r,)."""

    def project(z):
        return manifold.project(z[None])[0]

    foot = project(x)
    moved = x + project(foot + offset) - foot
    if name == "translated":
        return moved
    gap = moved - project(moved)
    return project(moved) + (x - foot).norm() * gap / gap.norm()


def score_at(posterior, y, v, exclude=None):
    points, logits = posterior._points.positions, posterior._points.log_weights
    if exclude is not None:
        others = torch.arange(len(points)) != exclude
        points, logits = points[others], logits[others]
    weights = torch.softmax(logits - (y - points).square().sum(1) / (2 * v), dim=0)
    return (weights @ points - y) / v


def twin(name, posterior, manifold, nodes, x, v, exclude=None):
    """Score and divergence of one query (r,)."""

    def field(x):
        total = torch.zeros_like(x)
        for offset, weight in zip(nodes.offsets, nodes.weights, strict=True):
            y = place(name, manifold, x, offset)
            total = total + weight * score_at(posterior, y, v, exclude)
        return total

    return field(x), torch.autograd.functional.jacobian(field, x).trace()


def assert_matches_twin(name, posterior, manifold, nodes, queries, v, exclude=None, rounding=1e-15):
    field = FIELDS[name](posterior, manifold, nodes, exclude)
    score, divergence = field.with_divergence(queries, v)
    torch.testing.assert_close(field(queries, v), score, rtol=1e-12, atol=1e-12 / v)
    # Places are rounded in both: an error of eps in y changes v s by (1 + tr Cov / v) eps, and
    # v^2 div s by (tr Cov)^(3/2) / v eps.
    slack = 1e-9 + rounding / v**2
    for b, x in enumerate(queries):
        left_out = None if exclude is None else exclude[b]
        expected, trace = twin(name, posterior, manifold, nodes, x, v, left_out)
        torch.testing.assert_close(v * score[b], v * expected, rtol=slack, atol=slack)
        torch.testing.assert_close(v**2 * divergence[b], v**2 * trace, rtol=slack, atol=slack)


@pytest.mark.parametrize("v", [1.0, 0.1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("manifold", MANIFOLDS)
@pytest.mark.parametrize("name", FIELDS)
def test_against_autograd(name, manifold, v):
    dimension, manifold = MANIFOLDS[manifold]
    posterior, nodes, queries = problem(dimension)
    assert_matches_twin(name, posterior, manifold, nodes, queries, v)
