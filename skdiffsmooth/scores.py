"""Score fields: gradients of log-densities of noised data, with their divergences in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ._backend import Backend
from ._hierarchy import PointHierarchy
from ._posterior import Nodes, Posterior
from ._shards import ONE_PROCESS, Shards
from .noise import NoiseLevels

__all__ = ["Kernel", "ScoreField", "ScoreSchedule", "SmoothedScore"]


class ScoreField(Protocol):
    """What a solver may ask: the score at noise variance v, alone or with its divergence."""

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the score, shape (n, r)."""
        ...

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score, shape (n, r), and its divergence, shape (n,)."""
        ...


class Kernel(Protocol):
    """What a smoothing kernel promises: offsets of mean zero and weights of sum one, by level."""

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets (M, r) and weights (M,), the same at every call."""
        ...


@dataclass(frozen=True)
class SmoothedScore:
    """The empirical score averaged over one frozen set of nodes.

    With D the posterior mean, s(x, v) = sum_m q_m (D(x + xi_m) - x - xi_m) / v, which is the
    gradient of l(x) = sum_m q_m log p_v(x + xi_m) (Farghly et al. 2025, eq. 5-7); the nodes' mean is
    zero, so their sum drops out.

    Parameters
    ----------
    posterior : Posterior
        The data.
    nodes : Nodes
        The kernel's quadrature rule; a single zero node gives the empirical score itself.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query does not see.
    """

    posterior: Posterior
    nodes: Nodes
    exclude: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the smoothed score.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        return (self.posterior.moments(x, v, self.nodes, exclude=self.exclude).mean - x) / v

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smoothed score and its divergence, (sum_m q_m tr Cov(x + xi_m) / v - r) / v.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        score : torch.Tensor of shape (n, r)
        divergence : torch.Tensor of shape (n,)
        """
        moments = self.posterior.moments(x, v, self.nodes, trace=True, exclude=self.exclude)
        assert moments.trace is not None
        return (moments.mean - x) / v, (moments.trace / v - x.shape[1]) / v

    def log_density(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return l, the averaged log-density in nats; exp(l) does not integrate to one.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n,)
        """
        return self.posterior.moments(x, v, self.nodes, exclude=self.exclude).log_density


class ScoreSchedule:
    """One score field for each noise level: the whole model, as a solver sees it.

    Parameters
    ----------
    levels : NoiseLevels
        The noise range and its intervals.
    hierarchy : PointHierarchy
        The data, merged as far as a level allows.
    kernel : Kernel
        Gives the nodes of a level.
    backend : Backend
        Where points and nodes go.
    memory_limit : float
        Bound on the temporaries of one call, in MiB.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query does not see.
    shards : Shards, default=ONE_PROCESS
        Where the other points are, if these are not all.
    """

    def __init__(
        self,
        levels: NoiseLevels,
        hierarchy: PointHierarchy,
        kernel: Kernel,
        backend: Backend,
        memory_limit: float,
        exclude: torch.Tensor | None = None,
        shards: Shards = ONE_PROCESS,
    ) -> None:
        self.levels = levels
        self.hierarchy = hierarchy
        self.kernel = kernel
        self.backend = backend
        self.memory_limit = memory_limit
        self.exclude = exclude
        self.shards = shards
        self._unmerged: Posterior | None = None
        self._last: tuple[int, SmoothedScore] | None = None

    def at(self, level: int) -> SmoothedScore:
        """Return the field whose points and nodes are frozen for one noise level.

        Parameters
        ----------
        level : int
            Index of the level.

        Returns
        -------
        SmoothedScore
        """
        # Steps go through the levels in order, some of them in several steps.
        if self._last is None or self._last[0] != level:
            posterior = self.posterior_at(self.levels.start(level))
            self._last = level, SmoothedScore(posterior, self._nodes(level), self.exclude)
        return self._last[1]

    def at_scale(self, scale: float) -> SmoothedScore:
        """Return the field of a noise scale that may be below all levels.

        Parameters
        ----------
        scale : float
            Noise scale in units of X.

        Returns
        -------
        SmoothedScore
        """
        level = self.levels.level_of(scale)
        if scale >= self.levels.start(level):
            return self.at(level)
        return SmoothedScore(self.posterior_at(scale), self._nodes(level), self.exclude)

    def posterior_at(self, scale: float) -> Posterior:
        """Return the data as they may be merged at a noise scale.

        Parameters
        ----------
        scale : float
            Noise scale in units of X.

        Returns
        -------
        Posterior
        """
        points, weights = self.hierarchy.at(scale)
        # All processes must make a posterior anew, which takes exchanges, or none.
        merged = self.shards.largest(points is not self.hierarchy.points)
        if not merged and self._unmerged is not None:
            return self._unmerged
        posterior = Posterior(
            self.backend.tensor(points),
            self.backend.tensor(np.log(weights)),
            memory_limit=self.memory_limit,
            shards=self.shards,
            radius=float(np.linalg.norm(points, axis=1).max()),
        )
        if not merged:
            self._unmerged = posterior
        return posterior

    def _nodes(self, level: int) -> Nodes:
        offsets, weights = self.kernel.nodes(level)
        reach = float(np.linalg.norm(offsets, axis=1).max())
        return Nodes(self.backend.tensor(offsets), self.backend.tensor(weights), reach)
