"""Kernels whose offsets are the same at every query, in coordinates of the hull."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.special import betaincinv, chdtr

from .._engine.moments import Denoiser, Nodes
from .._utils.backend import Backend
from ..scores import ScoreField, SmoothedScore
from ._nodes import NodeRule, default_n_nodes

__all__ = [
    "BallShape",
    "ConstantShape",
    "FixedShape",
    "FrozenKernel",
    "LinearShape",
    "SampledShape",
]


class ConstantShape(ABC):
    """A shape whose offsets do not depend on where it acts."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of coordinates that nodes are chosen in."""

    @property
    @abstractmethod
    def spread(self) -> float:
        """Standard deviation along the widest direction."""

    @property
    def n_nodes(self) -> int:
        """Number of nodes that are enough for most data."""
        return default_n_nodes(self.rank)

    @abstractmethod
    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets (M, r) at sigma = 1, of weighted mean zero, and their weights (M,)."""

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> FrozenKernel:
        """Return the smoothing that has one scale and one set of nodes in each noise level."""
        return FrozenKernel(self, scales, rule)


@dataclass(frozen=True)
class LinearShape(ConstantShape):
    """Gaussian offsets F z.

    Parameters
    ----------
    factor : ndarray of shape (r, k)
        The factor F: the identity smooths in every direction, k columns along k directions.
    """

    factor: np.ndarray

    @property
    def rank(self) -> int:
        """Number k of columns."""
        return self.factor.shape[1]

    @property
    def spread(self) -> float:
        """Largest singular value of the factor."""
        return float(np.linalg.norm(self.factor, 2)) if self.factor.size else 0.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets and weights, the covariance exact where the rule's is."""
        standard, weights = rule.normal(self.rank, level)
        return standard @ self.factor.T, weights


@dataclass(frozen=True)
class BallShape(ConstantShape):
    """What a hull of r dimensions sees of the uniform law on a ball in R^d."""

    dimension: int
    n_features: int

    @property
    def rank(self) -> int:
        return self.dimension

    @property
    def spread(self) -> float:
        return 1.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        standard, weights = rule.normal(self.dimension, level)
        squares = np.sum(standard**2, axis=1)
        # In r of d coordinates the squared share of the radius is Beta(r / 2, (d - r) / 2 + 1).
        others = (self.n_features - self.dimension) / 2 + 1
        shares = betaincinv(self.dimension / 2, others, chdtr(self.dimension, squares))
        stretch = np.sqrt((self.n_features + 2) * shares / np.where(squares > 0, squares, 1))
        return standard * stretch[:, None], weights


@dataclass(frozen=True)
class FixedShape(ConstantShape):
    """A user's own offsets and weights."""

    offsets: np.ndarray
    weights: np.ndarray

    @property
    def rank(self) -> int:
        return 0

    @property
    def spread(self) -> float:
        if not self.offsets.size:
            return 0.0
        return float(np.linalg.norm(np.sqrt(self.weights)[:, None] * self.offsets, 2))

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        return self.offsets, self.weights


@dataclass(frozen=True)
class SampledShape(ConstantShape):
    """Draws of a user's own sampler, seen from the hull."""

    draw: Callable[[np.random.Generator, int, int], np.ndarray]
    basis: np.ndarray

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def spread(self) -> float:
        draws = self.draw(np.random.default_rng(0), 1024, len(self.basis)) @ self.basis
        centered = draws - draws.mean(axis=0)
        return float(np.linalg.norm(centered, 2)) / np.sqrt(1024) if draws.size else 0.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([rule.seed, level])
        draws = self.draw(rng, rule.n_nodes, len(self.basis)) @ self.basis
        return draws - draws.mean(axis=0), np.full(len(draws), 1 / len(draws))


@dataclass(frozen=True)
class FrozenKernel:
    """A shape with one scale and one set of nodes for each noise level.

    Parameters
    ----------
    shape : LinearShape or another shape
        The offsets at sigma = 1, in coordinates of the hull.
    scales : ndarray of shape (n_levels,)
        Smoothing scale of each level.
    rule : NodeRule
        How nodes are chosen.
    """

    shape: ConstantShape
    scales: np.ndarray
    rule: NodeRule
    has_divergence: ClassVar[bool] = True

    @property
    def n_nodes(self) -> int:
        """Number of nodes in a noise level."""
        return len(self.nodes(0)[1])

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the quadrature rule of one noise level, the same at every call.

        Parameters
        ----------
        level : int
            Which noise level.

        Returns
        -------
        offsets : ndarray of shape (M, r)
            With mean zero to rounding.
        weights : ndarray of shape (M,)
            Positive, summing to one.
        """
        offsets, weights = self.shape.nodes(self.rule, level)
        scale = self.scales[level]
        if scale == 0 or not np.any(offsets):
            return np.zeros((1, offsets.shape[1])), np.ones(1)
        return scale * offsets, weights

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> ScoreField:
        """Return the smoothed score of one noise level; see `Smoothing`."""
        offsets, weights = self.nodes(level)
        nodes = Nodes.from_arrays(offsets, weights, backend)
        return SmoothedScore(posterior, nodes, exclude)
