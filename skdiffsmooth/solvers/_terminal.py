"""Terminal laws: what the reverse process starts from, with a density and exact samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from .._utils.draws import draw_points
from .._utils.gaussian import gaussian_log_normalizer
from ..scores import ScoreSchedule

__all__ = ["EmpiricalTerminal", "GaussianTerminal", "TerminalLaw"]


class TerminalLaw(Protocol):
    """A law on R^r that can be sampled and whose density is known."""

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Return log-densities in nats, shape (n,)."""
        ...

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Return n draws, shape (n, r)."""
        ...


@dataclass(frozen=True)
class EmpiricalTerminal:
    """The noised data themselves: a mixture of N(x_i, T I), exact at any terminal scale.

    Over a base, whose components have covariances S_i, it is that of N(mu_i, S_i + T I).

    Parameters
    ----------
    schedule : ScoreSchedule
        The data, as they are merged at each noise level.
    scale : float
        sqrt(T), in units of X.
    """

    schedule: ScoreSchedule
    scale: float

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mixture's log-density.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.

        Returns
        -------
        torch.Tensor of shape (n,)
        """
        posterior = self.schedule.posterior_at(self.scale)
        return posterior.log_density(x, self.scale**2, exclude=self.schedule.exclude)

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Draw points and add noise.

        Parameters
        ----------
        rng : RandomState
            Source of randomness.
        n : int
            Number of draws.

        Returns
        -------
        ndarray of shape (n, r)
        """
        if self.schedule.base is not None:
            points = self.schedule.base.sample(rng, n)
        else:
            merged = self.schedule.hierarchy.at(self.scale)
            points = draw_points(rng, *merged, n, self.schedule.shards)
        return points + self.scale * rng.standard_normal(points.shape)


@dataclass(frozen=True)
class GaussianTerminal:
    """N(mean, T I): what research code starts from; close to the noised data only for large T.

    Parameters
    ----------
    mean : ndarray of shape (r,) or (n, r)
        Mean of the data, or one for each query of the density.
    scale : float or ndarray of shape (r,)
        sqrt(T), in units of X; one for each coordinate where the data's own variance is added.
    """

    mean: np.ndarray
    scale: float | np.ndarray

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Return the Gaussian's log-density.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.

        Returns
        -------
        torch.Tensor of shape (n,)
        """
        scale = np.broadcast_to(self.scale, x.shape[1])
        centered = (x - x.new_tensor(self.mean)) / x.new_tensor(scale)
        normalizer = gaussian_log_normalizer(x.shape[1]) + float(np.sum(np.log(scale)))
        return -0.5 * centered.square().sum(1) - normalizer

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Draw from the Gaussian.

        Parameters
        ----------
        rng : RandomState
            Source of randomness.
        n : int
            Number of draws.

        Returns
        -------
        ndarray of shape (n, r)
        """
        return self.mean + self.scale * rng.standard_normal((n, self.mean.shape[-1]))
