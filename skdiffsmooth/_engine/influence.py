"""How much each point counts in averaged posterior means: weights, and derivatives in their logarithms.

With posterior weights W_i and mean D at each of M places y_m of shares q_m, the averaged mean changes
with the logarithm of a point's weight by

    u_i = sum_m q_m W_i(y_m) (x_i - D(y_m)).

Of points drawn independently sum_i u_i u_i^T is, to first order, the covariance of that mean (the delta
method, or infinitesimal jackknife). It is not sum_i (sum_m q_m W_i(y_m))^2 (x_i - D)(x_i - D)^T:
means at different places differ, and cancel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .._utils.memory import slices
from .points import Points, exp_

__all__ = ["Influence", "influence_of_points"]


class Influence(NamedTuple):
    """What each of N points does to the averages of B queries.

    Parameters
    ----------
    weights : torch.Tensor of shape (B, N)
        sum_m q_m W_i(y_m).
    pulls : torch.Tensor of shape (B, N, r)
        sum_m q_m W_i(y_m) (x_i - D(y_m)).
    """

    weights: torch.Tensor
    pulls: torch.Tensor


def influence_of_points(
    points: Points, y: torch.Tensor, v: float, shares: torch.Tensor, places_at_once: int
) -> Influence:
    """Return the weights and pulls of all points.

    Parameters
    ----------
    points : Points
        The data; padding is of no weight and no influence.
    y : torch.Tensor of shape (B, M, r)
        Places of each query.
    v : float
        Noise variance.
    shares : torch.Tensor of shape (M,)
        Their shares, summing to one.
    places_at_once : int
        For how many places of all queries there may be a matrix of all weights.

    Returns
    -------
    Influence
    """
    n_queries = len(y)
    weights = y.new_zeros(n_queries, len(points))
    of_means = y.new_zeros(n_queries, len(points), points.dimension)
    for part in slices(y.shape[1], places_at_once // max(n_queries, 1)):
        squares = points.squared_distances(y[:, part].flatten(0, 1))
        logits = squares.mul_(-0.5 / v).add_(points.log_weights)
        logits -= logits.amax(1, keepdim=True)
        posterior = exp_(logits, points.negligible)
        posterior /= posterior.sum(1, keepdim=True)
        posterior = posterior.unflatten(0, (n_queries, -1))
        means = posterior @ points.positions
        counted = posterior * shares[part, None]
        weights += counted.sum(1)
        of_means += counted.mT @ means
    return Influence(weights, weights[..., None] * points.positions - of_means)
