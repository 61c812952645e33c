"""The influence of each point on averaged posterior means.

With posterior weights W_i and mean D at M positions y_m of weights q_m, the averaged mean changes
with the logarithm of a point's weight by

    u_i = sum_m q_m W_i(y_m) (x_i - D(y_m)).

For points drawn independently, sum_i u_i u_i^T is to first order the covariance of the averaged
mean (the delta method, or infinitesimal jackknife). It is not sum_i (sum_m q_m W_i(y_m))^2 (x_i -
D)(x_i - D)^T: the means at different positions differ, and the differences cancel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .._utils.memory import slices
from .points import Points, exp_


class Influence(NamedTuple):
    """The influence of each of N points on the averaged posterior means of B queries."""

    weights: torch.Tensor  # (B, N): averaged posterior weights, sum_m q_m W_i(y_m)
    # (B, N, r): derivatives of the averaged means in log w_i, sum_m q_m W_i(y_m) (x_i - D(y_m))
    derivatives: torch.Tensor


def influence_of_points(
    points: Points, y: torch.Tensor, v: float, node_weights: torch.Tensor, positions_at_once: int
) -> Influence:
    """Return the influence of all points, padding included, for positions y (B, M, r).

    `node_weights` (M,) sum to one. Posterior weights of at most `positions_at_once` positions, of
    all queries together, are held at once.
    """
    n_queries = len(y)
    weights = y.new_zeros(n_queries, len(points))
    mean_parts = y.new_zeros(n_queries, len(points), points.dimension)
    for part in slices(y.shape[1], positions_at_once // max(n_queries, 1)):
        squares = points.squared_distances(y[:, part].flatten(0, 1))
        logits = squares.mul_(-0.5 / v).add_(points.log_weights)
        logits -= logits.amax(1, keepdim=True)
        posterior = exp_(logits, points.negligible)
        posterior /= posterior.sum(1, keepdim=True)
        posterior = posterior.unflatten(0, (n_queries, -1))
        means = posterior @ points.positions
        weighted = posterior * node_weights[part, None]
        weights += weighted.sum(1)
        mean_parts += weighted.mT @ means
    return Influence(weights, weights[..., None] * points.positions - mean_parts)
