"""Score fields: gradients of log-densities of noised data, with their divergences in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ._backend import Backend
from ._posterior import Nodes, Posterior

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
    """

    posterior: Posterior
    nodes: Nodes

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
        return (self.posterior.moments(x, v, self.nodes).mean - x) / v

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
        moments = self.posterior.moments(x, v, self.nodes, trace=True)
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
        return self.posterior.moments(x, v, self.nodes).log_density


@dataclass(frozen=True)
class ScoreSchedule:
    """One score field for each noise level: the whole model, as a solver sees it.

    Parameters
    ----------
    posterior : Posterior
        The data.
    kernel : Kernel
        Gives the nodes of a level.
    backend : Backend
        Where the nodes go.
    """

    posterior: Posterior
    kernel: Kernel
    backend: Backend

    def at(self, level: int) -> SmoothedScore:
        """Return the field whose nodes are frozen for one noise level.

        Parameters
        ----------
        level : int
            Index of the level.

        Returns
        -------
        SmoothedScore
        """
        offsets, weights = self.kernel.nodes(level)
        reach = float(np.linalg.norm(offsets, axis=1).max())
        nodes = Nodes(self.backend.tensor(offsets), self.backend.tensor(weights), reach)
        return SmoothedScore(self.posterior, nodes)
