"""Terminal distributions, from which the reverse process starts, with densities and exact draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from .._utils.draws import draw_points
from .._utils.gaussian import gaussian_log_normalizer
from ..scores import ScoreSchedule


class TerminalDistribution(Protocol):
    """A distribution on R^r with known density and exact draws."""

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log-densities (n,) of queries x (n, r), in nats."""
        ...

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Return n draws, shape (n, r)."""
        ...


@dataclass(frozen=True)
class EmpiricalTerminal:
    """The distribution of the noised data, a mixture of N(x_i, T I), exact for any T = scale^2.

    Over a base, whose components have covariances S_i, it is the mixture of N(mu_i, S_i + T I).
    """

    schedule: ScoreSchedule
    scale: float

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """See `TerminalDistribution`."""
        posterior = self.schedule.posterior_at(self.scale)
        return posterior.log_density(x, self.scale**2, exclude=self.schedule.exclude)

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """See `TerminalDistribution`."""
        if self.schedule.base is not None:
            points = self.schedule.base.sample(rng, n)
        else:
            merged = self.schedule.hierarchy.at(self.scale)
            points = draw_points(rng, *merged, n, self.schedule.shards)
        return points + self.scale * rng.standard_normal(points.shape)


@dataclass(frozen=True)
class GaussianTerminal:
    """The Gaussian N(mean, T I), which approximates the noised data if T is large."""

    mean: np.ndarray  # (r,): mean of the data; or (n, r): one for each query of `log_density`
    # sqrt(T), in units of X; or (r,): a standard deviation for each coordinate, where the variance
    # of the data is added to T
    scale: float | np.ndarray

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """See `TerminalDistribution`."""
        scale = np.broadcast_to(self.scale, x.shape[1])
        centered = (x - x.new_tensor(self.mean)) / x.new_tensor(scale)
        normalizer = gaussian_log_normalizer(x.shape[1]) + float(np.sum(np.log(scale)))
        return -0.5 * centered.square().sum(1) - normalizer

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """See `TerminalDistribution`."""
        return self.mean + self.scale * rng.standard_normal((n, self.mean.shape[-1]))
