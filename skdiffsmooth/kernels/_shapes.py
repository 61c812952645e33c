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
from .._utils.cached import cached_property
from ..scores import ScoreField, SmoothedScore
from ._nodes import NodeRule, default_n_nodes

# Fewest dimensions in which divergences are computed from log-densities at rotated frames: in two, exact
# traces take no longer, and the density then integrates to one.
_FEWEST_DIMENSIONS = 3


class ConstantShape(ABC):
    """A `ReducedKernel` whose offsets are the same at every query."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """See `ReducedKernel`."""

    @property
    @abstractmethod
    def widest_std(self) -> float:
        """See `ReducedKernel`."""

    @property
    def n_nodes(self) -> int:
        """See `ReducedKernel`."""
        return default_n_nodes(self.rank)

    @abstractmethod
    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets (M, r) at sigma = 1, of weighted mean zero, and their weights (M,)."""

    def frame_std(self, rule: NodeRule) -> float | None:
        """Return the standard deviation at sigma = 1 if nodes are `gaussian_frames`, or None."""
        return None

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> FrozenKernel:
        """See `ReducedKernel`."""
        return FrozenKernel(self, scales, rule)


@dataclass(frozen=True)
class LinearShape(ConstantShape):
    """Gaussian offsets F z, where z is standard normal.

    The factor F has shape (r, k); k may be less than r, where offsets have k directions only.
    """

    factor: np.ndarray

    def __post_init__(self) -> None:
        # Computed here and stored, so that queries do not change a fitted model.
        _ = self.is_isotropic

    @property
    def rank(self) -> int:
        """The number k of columns of F."""
        return self.factor.shape[1]

    @cached_property
    def widest_std(self) -> float:
        """The largest singular value of the factor."""
        return float(np.linalg.norm(self.factor, 2)) if self.factor.size else 0.0

    @cached_property
    def is_isotropic(self) -> bool:
        """Whether the factor is a multiple of the identity matrix, up to rounding."""
        r, k = self.factor.shape
        identity = self.widest_std * np.eye(r, k)
        return r == k and bool(
            np.allclose(self.factor, identity, rtol=0, atol=1e-13 * self.widest_std)
        )

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets and weights; their covariance is exact if that of the rule is."""
        choose = rule.normal if self.frame_std(rule) is None else rule.frames
        standard, weights = choose(self.rank, level)
        return standard @ self.factor.T, weights

    def frame_std(self, rule: NodeRule) -> float | None:
        """See `ConstantShape`."""
        suits = _FEWEST_DIMENSIONS <= self.rank <= rule.most_frames and self.is_isotropic
        return self.widest_std if rule.name == "sobol" and suits else None


@dataclass(frozen=True)
class BallShape(ConstantShape):
    """The uniform distribution on a ball in R^d, projected to a hull of r dimensions."""

    dimension: int
    n_features: int

    @property
    def rank(self) -> int:
        return self.dimension

    @property
    def widest_std(self) -> float:
        return 1.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        standard, weights = rule.normal(self.dimension, level)
        squares = np.sum(standard**2, axis=1)
        # The squared norm of r of d coordinates, in squared radii, is Beta(r / 2, (d - r) / 2 + 1).
        others = (self.n_features - self.dimension) / 2 + 1
        ratios = betaincinv(self.dimension / 2, others, chdtr(self.dimension, squares))
        stretch = np.sqrt((self.n_features + 2) * ratios / np.where(squares > 0, squares, 1))
        return standard * stretch[:, None], weights


@dataclass(frozen=True)
class FixedShape(ConstantShape):
    """Offsets (M, r) and weights (M,) that the user gave."""

    offsets: np.ndarray
    weights: np.ndarray

    @property
    def rank(self) -> int:
        return 0

    @property
    def widest_std(self) -> float:
        if not self.offsets.size:
            return 0.0
        return float(np.linalg.norm(np.sqrt(self.weights)[:, None] * self.offsets, 2))

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        return self.offsets, self.weights


@dataclass(frozen=True)
class SampledShape(ConstantShape):
    """Draws of the user's sampler, projected to the hull with basis (d, r)."""

    draw: Callable[[np.random.Generator, int, int], np.ndarray]
    basis: np.ndarray

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def widest_std(self) -> float:
        draws = self.draw(np.random.default_rng(0), 1024, len(self.basis)) @ self.basis
        centered = draws - draws.mean(axis=0)
        return float(np.linalg.norm(centered, 2)) / np.sqrt(1024) if draws.size else 0.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([rule.seed, level])
        draws = self.draw(rng, rule.n_nodes, len(self.basis)) @ self.basis
        return draws - draws.mean(axis=0), np.full(len(draws), 1 / len(draws))


@dataclass(frozen=True)
class FrozenKernel:
    """Smoothing by a kernel in hull coordinates, with the scale `scales[k]` at level k."""

    shape: ConstantShape
    scales: np.ndarray
    rule: NodeRule
    # (n_levels,): what is added to v times the divergences of each level, to correct the error that
    # all rows have in common, or None
    shifts: np.ndarray | None = None
    has_divergence: ClassVar[bool] = True

    @property
    def n_nodes(self) -> int:
        """See `Smoothing`."""
        # Levels of scale zero have one node.
        return len(self.nodes(int(np.argmax(self.scales)))[1])

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the offsets (M, r) and weights (M,) of one noise level, the same at every call.

        The mean of the offsets is zero to rounding; weights are positive and sum to one.
        """
        offsets, weights = self.shape.nodes(self.rule, level)
        scale = self.scales[level]
        if scale == 0 or not np.any(offsets):
            return np.zeros((1, offsets.shape[1])), np.ones(1)
        return scale * offsets, weights

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> ScoreField:
        """See `Smoothing`."""
        offsets, weights = self.nodes(level)
        std, stein = self.shape.frame_std(self.rule), None
        if std is not None and self.scales[level] > 0:
            # Stein's identity: E[Laplacian of f] = E[f (|xi|^2 / s^2 - r)] / s^2 for xi ~ N(0, s^2 I).
            variance = (std * self.scales[level]) ** 2
            stein = (np.sum(offsets**2, axis=1) / variance - offsets.shape[1]) / variance
        nodes = Nodes.from_arrays(offsets, weights, backend, stein)
        shift = 0.0 if self.shifts is None else float(self.shifts[level])
        return SmoothedScore(posterior, nodes, exclude, shift)
