"""What score fields ask of a law seen through noise: its moments, averaged over a kernel's nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from .._utils.backend import Backend

__all__ = ["Denoiser", "Moments", "Nodes", "SingleMoments", "part_by_part"]


@dataclass(frozen=True)
class Nodes:
    """A quadrature rule for the smoothing kernel.

    Parameters
    ----------
    offsets : torch.Tensor of shape (M, r)
        Shifts xi_m of the query, with sum_m weights[m] xi_m = 0.
    weights : torch.Tensor of shape (M,)
        Positive, summing to one.
    reach : float
        Length of the longest offset, on the host, where decisions are made.
    """

    offsets: torch.Tensor
    weights: torch.Tensor
    reach: float

    @classmethod
    def single(cls, x: torch.Tensor) -> Nodes:
        """Return one node at zero, which shifts no query, for queries (B, r)."""
        return cls(x.new_zeros(1, x.shape[1]), x.new_ones(1), 0.0)

    @classmethod
    def from_arrays(cls, offsets: np.ndarray, weights: np.ndarray, backend: Backend) -> Nodes:
        """Copy offsets (M, r) and weights (M,) to the device."""
        longest = float(np.linalg.norm(offsets, axis=1).max())
        return cls(backend.tensor(offsets), backend.tensor(weights), longest)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, part: slice) -> Nodes:
        return Nodes(self.offsets[part], self.weights[part], self.reach)

    def to(self, dtype: torch.dtype) -> Nodes:
        """Return the nodes in another dtype."""
        return Nodes(self.offsets.to(dtype), self.weights.to(dtype), self.reach)

    def half_squares(self, x: torch.Tensor) -> torch.Tensor:
        """Return |x_b + xi_m|^2 / 2 of queries (B, r), shape (B, M)."""
        squares = x.square().sum(1, keepdim=True) + self.offsets.square().sum(1)
        return 0.5 * squares + x @ self.offsets.T


@dataclass(frozen=True)
class Moments:
    """What the points say about a batch of queries, averaged over the nodes.

    Parameters
    ----------
    mean : torch.Tensor of shape (B, r)
        sum_m q_m D(x_b + xi_m).
    trace : torch.Tensor of shape (B,) or None
        sum_m q_m tr Cov(x_b + xi_m), where it was asked for.
    log_density : torch.Tensor of shape (B,)
        sum_m q_m log p_v(x_b + xi_m) in nats.
    """

    mean: torch.Tensor
    trace: torch.Tensor | None
    log_density: torch.Tensor

    def to(self, dtype: torch.dtype) -> Moments:
        """Return the moments in another dtype."""
        trace = None if self.trace is None else self.trace.to(dtype)
        return Moments(self.mean.to(dtype), trace, self.log_density.to(dtype))


class SingleMoments(NamedTuple):
    """What the points say about single queries, each with directions of its own.

    Parameters
    ----------
    mean : torch.Tensor of shape (B, r)
        D(y_b).
    trace : torch.Tensor of shape (B,)
        tr Cov(y_b).
    log_density : torch.Tensor of shape (B,)
        log p_v(y_b) in nats.
    along : torch.Tensor of shape (B, r, j)
        Cov(y_b) @ directions_b.
    """

    mean: torch.Tensor
    trace: torch.Tensor
    log_density: torch.Tensor
    along: torch.Tensor

    def to(self, dtype: torch.dtype) -> SingleMoments:
        """Return the moments in another dtype."""
        return SingleMoments(*(tensor.to(dtype) for tensor in self))


class Denoiser(Protocol):
    """What score fields ask of a law seen through noise, be it points or a mixture of Gaussians.

    With y a place, D(y) and Cov(y) are mean and covariance of the law's own draws given that noise of
    variance v brought them there; p_v is the law of the places. Where the law is made of parts,
    `exclude` names the one that each query does not see.
    """

    memory_limit: float

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return log p_v in nats, shape (B,)."""
        ...

    def moments(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """Return D, tr Cov and log p_v, averaged over shifts of the queries."""
        ...

    def moments_by_part(
        self,
        x: torch.Tensor,
        v: float,
        parts: Sequence[Nodes],
        which: torch.Tensor,
        counts: list[int],
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """Return the same where query b has nodes parts[which[b]], sorted, counts[k] of each."""
        ...

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """Return D, tr Cov, log p_v and Cov times directions (B, r, j) of single queries."""
        ...

    def precision_at(self, v: float) -> torch.dtype:
        """Return the precision in which queries at this noise are worth having."""
        ...


def part_by_part(
    law: Denoiser,
    x: torch.Tensor,
    v: float,
    parts: Sequence[Nodes],
    counts: list[int],
    *,
    trace: bool,
    exclude: torch.Tensor | None,
) -> Moments:
    """Answer `Denoiser.moments_by_part` by a call for each part that has queries."""
    left_out = [None] * len(counts) if exclude is None else exclude.split(counts)
    found = [
        law.moments(own, v, nodes, trace=trace, exclude=unseen)
        for own, nodes, unseen in zip(x.split(counts), parts, left_out, strict=True)
        if len(own)
    ]
    traces = [moments.trace for moments in found if moments.trace is not None]
    return Moments(
        mean=torch.cat([moments.mean for moments in found]),
        trace=torch.cat(traces) if trace else None,
        log_density=torch.cat([moments.log_density for moments in found]),
    )
