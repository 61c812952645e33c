"""Merging of posterior moments over processes, where the points are in shards.

Process s has log-sum L_s, posterior mean D_s and covariance C_s over its own points. Over all points

    L = log sum_s exp L_s,    f_s = exp(L_s - L),
    D = sum_s f_s D_s,        C = sum_s f_s (C_s + (D_s - D)(D_s - D)^T).

Averages over nodes are linear in D and L, so that each process returns its part of an average and
one sum over the processes ends the computation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .._utils.shards import Shards
from .moments import SingleMoments


class Pairs(NamedTuple):
    """Posterior moments of B queries at M nodes, over the points of this process.

    `means` (B, r, M) are posterior means, `traces` (B, M) the traces of posterior covariances and
    `log_sums` (B, M) the logarithms of the posterior's normalisers.
    """

    means: torch.Tensor
    traces: torch.Tensor
    log_sums: torch.Tensor


class Merger:
    """The merger of one process that holds all points: it returns moments unchanged."""

    def log_sums(self, log_sums: torch.Tensor) -> torch.Tensor:
        """Return log-sums over all points from those over the points of this process."""
        return log_sums

    def pair_weights(
        self, log_sums: torch.Tensor, node_weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights (B, M) for averages over the nodes, and log-sums over all processes."""
        return node_weights.expand_as(log_sums), log_sums

    def average(self, pairs: Pairs, node_weights: torch.Tensor) -> torch.Tensor:
        """Return this process's part of mean, trace and log-sum, (B, r + 2), averaged over the nodes."""
        means, traces, log_sums = pairs
        return torch.column_stack(
            [means @ node_weights, traces @ node_weights, log_sums @ node_weights]
        )

    def total(self, parts: torch.Tensor) -> torch.Tensor:
        """Return the sum over processes of their parts of averages, which may be overwritten."""
        return parts

    def single(self, moments: SingleMoments, directions: torch.Tensor) -> SingleMoments:
        """Return moments merged over all processes; `along` was computed for `directions` (B, r, j)."""
        return moments

    def any(self, condition: bool) -> bool:
        """Return whether a condition holds on any process, so that all act in the same way."""
        return condition


class _ShardMerger(Merger):
    """The merger of points that are distributed over processes; all make the same calls."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def log_sums(self, log_sums: torch.Tensor) -> torch.Tensor:
        return self._fractions(log_sums)[1]

    def pair_weights(
        self, log_sums: torch.Tensor, node_weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        fractions, log_sums = self._fractions(log_sums)
        return node_weights * fractions, log_sums

    def average(self, pairs: Pairs, node_weights: torch.Tensor) -> torch.Tensor:
        means, traces, log_sums = pairs
        fractions, log_sums = self._fractions(log_sums)
        # Two passes, mean first: a difference of second moments and squared means would cancel.
        mean = self.total(means * fractions[:, None])
        traces = traces + (means - mean).square_().sum(1)
        weights = node_weights * fractions
        return torch.column_stack(
            [
                torch.einsum("brm,bm->br", means, weights),
                (traces * weights).sum(1),
                (log_sums * weights).sum(1),
            ]
        )

    def total(self, parts: torch.Tensor) -> torch.Tensor:
        return self._shards.reduce_(parts, "sum")

    def single(self, moments: SingleMoments, directions: torch.Tensor) -> SingleMoments:
        fractions, log_sums = self._fractions(moments.log_density)
        # Two passes, as in `average`.
        mean = self.total(moments.mean * fractions[:, None])
        gap = moments.mean - mean
        trace = self.total((moments.trace + gap.square().sum(1)) * fractions)
        along = moments.along + gap[:, :, None] * (gap[:, None, :] @ directions)
        along = self.total(along * fractions[:, None, None])
        return SingleMoments(mean, trace, log_sums, along)

    def any(self, condition: bool) -> bool:
        return bool(self._shards.largest(condition))

    def _fractions(self, log_sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return this process's fraction of each sum, and the log-sums over all processes."""
        top = self._shards.reduce_(log_sums.clone(), "max")
        # Divided by their sum: an exponential of a log-sum less another would be off by the rounding
        # of large numbers, and fractions would not add up to one.
        parts = (log_sums - top).exp_()
        total = self.total(parts.clone())
        return parts / total, top + total.log()


def merger_of(shards: Shards) -> Merger:
    """Return the merger of moments over the shards."""
    return Merger() if shards.alone else _ShardMerger(shards)
