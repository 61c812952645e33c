"""Posterior moments of data under noise, averaged over a kernel's nodes: the interface of the engine.

A latent point X has noise of variance v added, y = X + sqrt(v) Z. Given y, X has the posterior mean
D(y) and covariance Cov(y); p_v is the density of y. The score of p_v is (D(y) - y) / v, and its
divergence (tr Cov(y) / v - r) / v in r dimensions (Tweedie's formula).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch

from .._utils.backend import Backend
from .._utils.cached import cached_property

# Up to this product of noise variance and `Nodes.stein_norm`, the rounding of log-densities, magnified
# by Stein factors, changes a log-density of the flow by less than some thousandths of a nat.
_LARGEST_FACTOR = {torch.float64: 1e7, torch.float32: 1e3}


@dataclass(frozen=True)
class Nodes:
    """A quadrature rule of the smoothing kernel: shifts of the queries, and their weights."""

    offsets: torch.Tensor  # (M, r): shifts xi_m, with sum_m weights[m] xi_m = 0
    weights: torch.Tensor  # (M,): positive, summing to one
    # Length of the longest offset: known to the host, which chooses the computation by it without
    # waiting for the device
    max_norm: float
    # (M,): factors h_m for which sum_m weights[m] h_m f(xi_m) is the Laplacian of f, averaged over
    # the nodes, exactly for quadratic f (Stein's identity). Traces then follow from log-densities.
    stein: torch.Tensor | None = None
    stein_norm: float = 0.0  # sum_m weights[m] |h_m|: factors magnify rounding errors by it

    @classmethod
    def single(cls, x: torch.Tensor) -> Nodes:
        """Return a rule with one node at zero, which does not shift the queries (B, r)."""
        return cls(x.new_zeros(1, x.shape[1]), x.new_ones(1), 0.0)

    @classmethod
    def from_arrays(
        cls,
        offsets: np.ndarray,
        weights: np.ndarray,
        backend: Backend,
        stein: np.ndarray | None = None,
    ) -> Nodes:
        """Return nodes on the device, given offsets (M, r), weights (M,) and Stein factors (M,)."""
        longest = float(np.linalg.norm(offsets, axis=1).max())
        nodes = cls(backend.tensor(offsets), backend.tensor(weights), longest)
        if stein is None:
            return nodes
        norm = float(weights @ np.abs(stein))
        return replace(nodes, stein=backend.tensor(stein), stein_norm=norm)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, part: slice) -> Nodes:
        if part == slice(0, len(self)):
            return self
        stein = None if self.stein is None else self.stein[part]
        return replace(self, offsets=self.offsets[part], weights=self.weights[part], stein=stein)

    def to(self, dtype: torch.dtype) -> Nodes:
        """Return the nodes in another dtype."""
        stein = None if self.stein is None else self.stein.to(dtype)
        return replace(
            self, offsets=self.offsets.to(dtype), weights=self.weights.to(dtype), stein=stein
        )

    def without_stein(self) -> Nodes:
        """Return the nodes without the factors of Stein's identity."""
        return self if self.stein is None else replace(self, stein=None)

    def suits_stein(self, v: float) -> bool:
        """Return whether Stein factors hardly magnify rounding errors at noise of variance v."""
        largest = _LARGEST_FACTOR[self.offsets.dtype]
        return self.stein is not None and v * self.stein_norm < largest

    def averages(self, weights: torch.Tensor, log_densities: torch.Tensor) -> torch.Tensor:
        """Return averages (B, 2) over the nodes, of the Laplacian of log-densities and of log-densities.

        `weights` and `log_densities` (B, M) are those of (query, node) pairs. Without `stein` the first
        column is zero.
        """
        return (weights * log_densities) @ self._factors_of_averages

    @cached_property
    def _factors_of_averages(self) -> torch.Tensor:
        """Factors (M, 2) by which `averages` multiplies weighted log-densities."""
        ones = torch.ones_like(self.weights)
        return torch.stack([0 * ones if self.stein is None else self.stein, ones], dim=1)

    def half_squares(self, x: torch.Tensor) -> torch.Tensor:
        """Return |x_b + xi_m|^2 / 2 of queries (B, r), shape (B, M)."""
        squares = 0.5 * x.square().sum(1, keepdim=True) + self._half_squares
        return torch.addmm(squares, x, self.offsets.T)

    @cached_property
    def _half_squares(self) -> torch.Tensor:
        """|xi_m|^2 / 2, shape (M,)."""
        return 0.5 * self.offsets.square().sum(1)


@dataclass(frozen=True)
class Moments:
    """Posterior moments of B queries, averaged over the nodes."""

    mean: torch.Tensor  # (B, r): sum_m q_m D(x_b + xi_m)
    trace: torch.Tensor | None  # (B,): sum_m q_m tr Cov(x_b + xi_m), if it was requested
    log_density: torch.Tensor  # (B,): sum_m q_m log p_v(x_b + xi_m) in nats

    def to(self, dtype: torch.dtype) -> Moments:
        """Return the moments in another dtype."""
        trace = None if self.trace is None else self.trace.to(dtype)
        return Moments(self.mean.to(dtype), trace, self.log_density.to(dtype))


class SingleMoments(NamedTuple):
    """Posterior moments of B queries without nodes, and covariances times j directions of each."""

    mean: torch.Tensor  # (B, r): D(y_b)
    trace: torch.Tensor  # (B,): tr Cov(y_b)
    log_density: torch.Tensor  # (B,): log p_v(y_b) in nats
    along: torch.Tensor  # (B, r, j): Cov(y_b) @ directions_b

    def to(self, dtype: torch.dtype) -> SingleMoments:
        """Return the moments in another dtype."""
        return SingleMoments(*(tensor.to(dtype) for tensor in self))


class Denoiser(Protocol):
    """Protocol of posterior moments given noisy data: points, or a mixture of Gaussians.

    Queries x are (B, r) and v is the noise variance. `exclude` (B,) holds for each query the index of a
    point or component that it must not use; the other weights are renormalised.
    """

    memory_limit: float

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return log p_v in nats, shape (B,)."""
        return self.moments(x, v, Nodes.single(x), exclude=exclude).log_density

    def moments(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """Return D, tr Cov (if `trace`) and log p_v, each averaged over the nodes of a query."""
        ...

    def mean(
        self, x: torch.Tensor, v: float, nodes: Nodes, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return D (B, r), averaged over the nodes of a query, as in `moments`."""
        return self.moments(x, v, nodes, exclude=exclude).mean

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
        """Return `moments` of queries that do not all have the same nodes, one part after another.

        Query b has the nodes parts[which[b]]. All parts have the same number of nodes, with the same
        weights. Queries are sorted by part; part k has counts[k] of them.
        """
        excludes = [None] * len(counts) if exclude is None else exclude.split(counts)
        results = [
            self.moments(queries, v, nodes, trace=trace, exclude=excluded)
            for queries, nodes, excluded in zip(x.split(counts), parts, excludes, strict=True)
            if len(queries)
        ]
        traces = [moments.trace for moments in results if moments.trace is not None]
        return Moments(
            mean=torch.cat([moments.mean for moments in results]),
            trace=torch.cat(traces) if trace else None,
            log_density=torch.cat([moments.log_density for moments in results]),
        )

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """Return D, tr Cov, log p_v and Cov times directions (B, r, j), without nodes.

        Queries are in the dtype of the data or that of `precision_at`, and so is the result.
        """
        ...

    def precision_at(self, v: float) -> torch.dtype:
        """Return the dtype that computations and their queries need at noise variance v."""
        ...


def rows_of(exclude: torch.Tensor | None, rows: slice | torch.Tensor) -> torch.Tensor | None:
    """Return the entries of `exclude` for some rows, or None if `exclude` is None."""
    return None if exclude is None else exclude[rows]


def each_excluded(exclude: torch.Tensor) -> torch.Tensor:
    """Return the excluded indices (B, k) of each query, from one (B,) or several (B, k)."""
    return exclude if exclude.dim() == 2 else exclude[:, None]


def is_excluded(index: torch.Tensor, exclude: torch.Tensor) -> torch.Tensor:
    """Return which indices (K, m) are among those excluded, one (K,) or several (K, k) for each row."""
    if exclude.dim() == 1:
        return index == exclude[:, None]
    return (index[:, :, None] == exclude[:, None, :]).any(2)
