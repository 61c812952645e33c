"""Terminal laws: what the reverse process starts from, with a density and exact samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ._posterior import Posterior
from ._shards import Shards

__all__ = ["EmpiricalTerminal", "GaussianTerminal", "TerminalLaw", "draw_rows"]


class TerminalLaw(Protocol):
    """A law on R^r that can be sampled and whose density is known."""

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Return log-densities in nats, shape (n,)."""
        ...

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Return n draws, shape (n, r)."""
        ...


def draw_rows(rng: np.random.RandomState, weights: np.ndarray, n: int) -> np.ndarray:
    """Draw row indices by inverting the cumulated weights.

    A row of weight k then gets the same draws as k rows beside one another, for the same seed.

    Parameters
    ----------
    rng : RandomState
        Source of randomness.
    weights : ndarray of shape (n_points,)
        Positive, summing to one.
    n : int
        Number of draws.

    Returns
    -------
    ndarray of shape (n,)
        Indices.
    """
    cumulated = np.cumsum(weights)
    return _invert(cumulated, rng.uniform(size=n) * cumulated[-1])


def _draw_points(
    rng: np.random.RandomState, points: np.ndarray, weights: np.ndarray, n: int, shards: Shards
) -> np.ndarray:
    """Draw from the points of all shards, which follow one another in the order of the processes."""
    cumulated = np.cumsum(weights)
    ends = np.cumsum(shards.gather(cumulated[-1]))
    uniform = rng.uniform(size=n) * ends[-1]
    (mine,) = np.nonzero(_invert(ends, uniform) == shards.rank)
    start = ends[shards.rank - 1] if shards.rank else 0.0
    rows = _invert(cumulated, uniform[mine] - start)
    drawn = np.empty((n, points.shape[1]))
    for places, found in shards.gather((mine, points[rows])):
        drawn[places] = found
    return drawn


def _invert(cumulated: np.ndarray, values: np.ndarray) -> np.ndarray:
    # Rounding may leave the last sum below a value; that draw belongs to the last row.
    return np.searchsorted(cumulated[:-1], values, side="right")


@dataclass(frozen=True)
class EmpiricalTerminal:
    """The noised data themselves: a mixture of N(x_i, T I), exact at any terminal scale.

    Parameters
    ----------
    posterior : Posterior
        The data, on the device.
    points : ndarray of shape (n_points, r)
        The same points on the host.
    weights : ndarray of shape (n_points,)
        Their weights.
    scale : float
        sqrt(T), in units of X.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query of the density does not see.
    """

    posterior: Posterior
    points: np.ndarray
    weights: np.ndarray
    scale: float
    exclude: torch.Tensor | None = None

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
        return self.posterior.log_density(x, self.scale**2, exclude=self.exclude)

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
        points = _draw_points(rng, self.points, self.weights, n, self.posterior.shards)
        return points + self.scale * rng.standard_normal(points.shape)


@dataclass(frozen=True)
class GaussianTerminal:
    """N(mean, T I): what research code starts from; close to the noised data only for large T.

    Parameters
    ----------
    mean : ndarray of shape (r,) or (n, r)
        Mean of the data, or one for each query of the density.
    scale : float
        sqrt(T), in units of X.
    """

    mean: np.ndarray
    scale: float

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
        centered = (x - x.new_tensor(self.mean)) / self.scale
        normalizer = x.shape[1] * math.log(math.sqrt(2 * math.pi) * self.scale)
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
