"""Empirical scores averaged over positions to which a kernel moves the query.

The kernel moves a query x to the positions y_m, one for each node, and the field averages the score
there:

    s(x) = sum_m q_m (D(y_m) - y_m) / v,        div s = sum_m q_m tr[ J(y_m) dy_m/dx ],

with J(y) = (Cov(y) / v - I) / v. With dy_m/dx = a I + L R^T, L and R of j columns,

    tr[ J (a I + L R^T) ] = ( (a tr Cov + tr R^T Cov L) / v - a r - tr R^T L ) / v.

The field is not a gradient. The likelihood integrates this divergence, which is exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, cast

import torch

from .._engine.influence import Influence
from .._engine.moments import Denoiser, Nodes
from .._engine.posterior import Posterior
from .._utils.memory import rows_within, slices


class Derivative(NamedTuple):
    """The derivative dy_m/dx = stretch I + left right^T, for B queries and M nodes.

    `stretch` broadcasts to (B, M), `left` and `right` to (B, M, r, j).
    """

    stretch: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor


class MovedScore(ABC):
    """The empirical score averaged over positions to which a subclass moves the query."""

    posterior: Denoiser  # The data
    nodes: Nodes  # Quadrature rule for the offsets
    exclude: torch.Tensor | None  # Index of the point that is excluded for each query

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """See `ScoreField`."""
        return self._averages(x, v, with_divergence=False)[:, :-1]

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ScoreField`. The divergence includes the derivatives of the positions."""
        averages = self._averages(x, v, with_divergence=True)
        return averages[:, :-1], averages[:, -1]

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """See `Attributable`. No point may be excluded."""
        positions, _ = self._push(x, self.nodes.offsets, with_derivative=False)
        return cast(Posterior, self.posterior).influence(positions, v, self.nodes.weights)

    @abstractmethod
    def _values_per_node(self, rank: int) -> int:
        """Return how many numbers a position takes, with its derivative, in `rank` dimensions."""

    @abstractmethod
    def _push(
        self, x: torch.Tensor, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, Derivative | None]:
        """Return the positions y_m (B, M, r) of queries (B, r), and their derivatives if requested."""

    def _averages(self, x: torch.Tensor, v: float, *, with_divergence: bool) -> torch.Tensor:
        """Return the score and, in the last column, the divergence, or zero if not requested."""
        # Where the engine computes in float64, positions rounded to float32 would be too coarse.
        precision = self.posterior.precision_at(v)
        offsets, weights = self.nodes.offsets.to(precision), self.nodes.weights.to(precision)
        out = x.new_empty(len(x), x.shape[1] + 1)
        for rows in slices(len(x), self._queries_at_once(x.shape[1])):
            y, derivative = self._push(
                x[rows].to(precision), offsets, with_derivative=with_divergence
            )
            exclude = None
            if self.exclude is not None:
                exclude = self.exclude[rows, None].expand(-1, len(weights)).flatten()
            scores = _scores(self.posterior, y, v, derivative, exclude)
            out[rows] = torch.einsum("m,bmc->bc", weights, scores).to(x.dtype)
        return out

    def _queries_at_once(self, rank: int) -> int:
        """Return how many queries fit into half of the memory; the engine's tiles use the rest."""
        n_values = len(self.nodes) * self._values_per_node(rank)
        return rows_within(8 * n_values, self.posterior.memory_limit / 2)


def _scores(
    posterior: Denoiser,
    y: torch.Tensor,
    v: float,
    derivative: Derivative | None,
    exclude: torch.Tensor | None,
) -> torch.Tensor:
    """Return scores at y (B, M, r) and, in one more column, their divergences in x, or zero."""
    rank = y.shape[-1]
    left = y.new_empty(*y.shape, 0) if derivative is None else derivative.left
    moments = posterior.covariance_along(y.flatten(0, 1), v, left.flatten(0, 1), exclude=exclude)
    scores = (moments.mean.view_as(y) - y) / v
    if derivative is None:
        return torch.nn.functional.pad(scores, (0, 1))
    stretch, right = derivative.stretch, derivative.right
    trace = stretch * moments.trace.view(y.shape[:2])
    trace = trace + (right * moments.along.view_as(left)).sum((-1, -2))
    trace_of_derivative = stretch * rank + (right * left).sum((-1, -2))
    divergence = (trace / v - trace_of_derivative) / v
    return torch.cat([scores, divergence[..., None]], dim=-1)
