"""Posterior moments of single queries, one softmax over the points for each.

What the engine falls back on where exponentials do not factorise, and the only place where a sum
over points may skip some of them: at low noise few points matter to a query, and a look at all of
them in low precision finds the groups that hold those.
"""

from __future__ import annotations

import math

import torch

from .._utils.memory import slices
from .groups import GROUP, PairScores
from .merge import Merger, Pairs
from .moments import Nodes
from .points import Points, exp_

__all__ = ["average_over_few_points", "direct_moments", "moments_of_pairs"]

# Gathering a member of a group costs about this many times a term of a dense sum.
_COST_OF_GATHERING = 4

# Up to this many coordinates all r^2 second moments together cost no more than one direction.
_FEW_COORDINATES = 8


def direct_moments(
    points: Points,
    y: torch.Tensor,
    v: float,
    reach: float,
    left_out: torch.Tensor | None,
    rows_at_once: int,
    directions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return posterior mean, spread and log-sum of each query, and its covariance along directions.

    Parameters
    ----------
    points : Points
        The data.
    y : torch.Tensor of shape (P, r)
        Queries.
    v : float
        Noise variance.
    reach : float
        Length of the longest shift that queries have had.
    left_out : torch.Tensor of shape (P,) or None
        Index of the point that a query does not see.
    rows_at_once : int
        Queries for which to make a matrix of all logits, and one more for each direction; gathered
        groups take as much.
    directions : torch.Tensor of shape (P, r, j), optional
        What to multiply each query's posterior covariance with.

    Returns
    -------
    torch.Tensor of shape (P, r + 2) or (P, r + 2 + r * j)
        D(y), tr Cov(y), log sum_i w_i exp(-|y - x_i|^2 / 2v) and the rows of Cov(y) @ directions.
    """
    n_directions = 0 if directions is None else directions.shape[2]
    found = y.new_empty(len(y), points.dimension + 2 + points.dimension * n_directions)
    kept = None
    # To skip points is to let data decide on shapes, for which a device would have to be waited.
    if points.are_grouped:
        kept = points.groups.kept_for(y, v, left_out, rows_at_once)
        n_kept = int(kept.count_nonzero())
        if _COST_OF_GATHERING * n_kept > kept.numel():
            kept = None
        else:
            # As many queries as have groups that take what matrices of all logits would.
            gathered = n_kept * GROUP * (points.dimension + 4 + 2 * n_directions)
            most = rows_at_once * len(points) * (1 + n_directions)
            rows_at_once = max(1, len(y) * most // max(gathered, 1))
    for rows in slices(len(y), rows_at_once):
        unseen = None if left_out is None else left_out[rows]
        along = None if directions is None else directions[rows]
        if kept is None:
            found[rows] = _over_all_points(points, y[rows], v, reach, unseen, along)
            continue
        group, query = kept[:, rows].nonzero(as_tuple=True)
        scaled = y[rows] / points.unit
        scores = (points.groups.scaled[group] @ scaled[query, :, None])[:, :, 0]
        scores -= points.groups.half_squares[group]
        scores += points.groups.log_weights[group] * (v / points.unit**2)
        members = _members(points, group, query, scores, scaled.norm(dim=1), v, unseen)
        found[rows] = _over_members(points, y[rows], v, *members, along)
    return found


def moments_of_pairs(
    points: Points,
    x: torch.Tensor,
    offsets: torch.Tensor,
    v: float,
    reach: float,
    mask: torch.Tensor | None,
    left_out: torch.Tensor | None,
    elements: int,
) -> torch.Tensor:
    """Return posterior mean, spread and log-sum of queries x_b + xi_m, of all pairs or of many.

    As `direct_moments` of each pair, but what tells which points matter is shared between the pairs of
    a query and those of a node.

    Parameters
    ----------
    points : Points
        The data, grouped.
    x : torch.Tensor of shape (B, r)
        Queries.
    offsets : torch.Tensor of shape (M, r)
        Nodes.
    v : float
        Noise variance.
    reach : float
        Length of the longest node.
    mask : torch.Tensor of shape (B, M) or None
        Which pairs are wanted; None is all of them.
    left_out : torch.Tensor of shape (B,) or None
        Index of the point that a query does not see.
    elements : int
        How many numbers there may be on the way.

    Returns
    -------
    torch.Tensor of shape (B, M, r + 2)
        Anything where the mask is not set.
    """
    found = x.new_empty(len(x), len(offsets), points.dimension + 2)
    n_groups = len(points.groups)
    nodes_at_once = max(1, elements // (4 * len(points)))
    for nodes in slices(len(offsets), nodes_at_once):
        width = min(nodes_at_once, len(offsets))
        for rows in slices(len(x), elements // (2 * (2 * len(points) + n_groups * width))):
            unseen = None if left_out is None else left_out[rows]
            y = x[rows, None] + offsets[nodes]
            pairs = points.groups.kept_for_pairs(x[rows], offsets[nodes], v, unseen)
            wanted = None if mask is None else mask[rows, nodes]
            found[rows, nodes] = _over_pairs(points, y, v, reach, pairs, wanted, unseen, elements)
    return found


def average_over_few_points(
    points: Points,
    merger: Merger,
    x: torch.Tensor,
    v: float,
    nodes: Nodes,
    left_out: torch.Tensor | None,
    *,
    trace: bool,
) -> torch.Tensor:
    """Return moments of queries, averaged over the nodes, from exponentials of all pairs and points.

    For points so few that these are no more numbers than the sums of all pairs would be.

    Parameters
    ----------
    points : Points
        The data.
    merger : Merger
        Merges what is computed here with what the other shards compute.
    x : torch.Tensor of shape (B, r)
        Queries.
    v : float
        Noise variance, at which exponents may be formed from products.
    nodes : Nodes
        Shifts of the queries.
    left_out : torch.Tensor of shape (B,) or None
        Index of the point that a query does not see.
    trace : bool
        Whether to compute the spread.

    Returns
    -------
    torch.Tensor of shape (B, r + 2)
        This process's part of mean, spread (zero where not asked for) and log-sum.
    """
    of_queries = points.products(x, v)
    if left_out is not None:
        of_queries.scatter_(1, left_out[:, None], -math.inf)
    logits = of_queries[:, None] + (nodes.offsets / v) @ points.positions.T
    top = logits.amax(2, keepdim=True)
    factors = exp_(logits.sub_(top), points.negligible)
    normalizer = factors.sum(2)
    factors /= normalizer[..., None]
    log_sums = normalizer.log() + top[..., 0] - nodes.half_squares(x) / v
    if trace:
        means = factors @ points.positions
        squares = points.counted(points.positions).square().sum(1)
        spread = factors @ squares - points.counted(means).square().sum(2)
        pairs = Pairs(means.transpose(1, 2), spread, log_sums)
        return merger.average(pairs, nodes.weights, trace=True)
    weights, log_sums = merger.pair_weights(log_sums, nodes.weights)
    mean = (weights[:, None] @ factors)[:, 0] @ points.positions
    log_density = (weights * log_sums).sum(1, keepdim=True)
    return torch.cat([mean, torch.zeros_like(log_density), log_density], dim=1)


def _over_pairs(
    points: Points,
    y: torch.Tensor,
    v: float,
    reach: float,
    pairs: PairScores,
    wanted: torch.Tensor | None,
    left_out: torch.Tensor | None,
    elements: int,
) -> torch.Tensor:
    """Return the moments of queries (B, M, r), given which groups matter to which."""
    n_queries, n_nodes = y.shape[:2]
    found = y.new_empty(n_queries, n_nodes, points.dimension + 2)
    kept = pairs.kept if wanted is None else pairs.kept & wanted
    n_pairs = n_queries * n_nodes if wanted is None else int(wanted.count_nonzero())
    n_kept = int(kept.count_nonzero())
    if _COST_OF_GATHERING * n_kept > len(kept) * n_pairs:
        flat, everyone = y.flatten(0, 1), torch.arange(n_queries * n_nodes)
        if wanted is not None:
            everyone = everyone[wanted.flatten()]
        for part in slices(len(everyone), elements // (4 * len(points))):
            pair = everyone[part]
            unseen = None if left_out is None else left_out[pair // n_nodes]
            moments = _over_all_points(points, flat[pair], v, reach, unseen)
            found.view(-1, moments.shape[1])[pair] = moments
        return found
    numbers = n_kept * GROUP * (3 * points.dimension + 8) // max(n_queries, 1) + 1
    for rows in slices(n_queries, elements // numbers):
        group, b, m = _places(kept[:, rows])
        scores = pairs.of_queries[:, rows][group, b] + pairs.of_nodes[group, m]
        distance = (y[rows].norm(dim=2) / points.unit).flatten()
        unseen = None
        if left_out is not None:
            unseen = left_out[rows].repeat_interleave(n_nodes)
        query = b * n_nodes + m
        members = _members(points, group, query, scores, distance, v, unseen)
        moments = _over_members(points, y[rows].flatten(0, 1), v, *members)
        found[rows] = moments.unflatten(0, (-1, n_nodes))
    return found


def _over_all_points(
    points: Points,
    y: torch.Tensor,
    v: float,
    reach: float,
    left_out: torch.Tensor | None,
    directions: torch.Tensor | None = None,
) -> torch.Tensor:
    squares = None
    if points.products_are_exact(v, reach):
        logits = points.products(y, v)
        shift: torch.Tensor | float = y.square().sum(1) / (-2 * v)
    else:
        squares = points.squared_distances(y)
        logits = torch.add(points.log_weights, squares, alpha=-0.5 / v)
        shift = 0.0
    if left_out is not None:
        logits.scatter_(1, left_out[:, None], -torch.inf)
    top, best = logits.max(1)
    factors = exp_(logits.sub_(top[:, None]), points.negligible)
    averages = factors @ points.features.T
    normalizer = averages[:, 0]
    moments = points.unit * averages[:, 1:] / normalizer[:, None]
    if squares is None:
        moments[:, -1] *= points.unit
        moments[:, -1] -= points.counted(moments[:, :-1]).square().sum(1)
    else:
        # At such small noise that is rounding; the spread is measured from the point that counts most.
        origin = points.positions[best]
        moments[:, -1] = (factors * points.counted_squared_distances(origin)).sum(1) / normalizer
        moments[:, -1] -= points.counted(moments[:, :-1] - origin).square().sum(1)
    found = torch.column_stack([moments, normalizer.log() + top + shift])
    if directions is None:
        return found
    mean = moments[:, :-1]
    if squares is None and points.dimension <= _FEW_COORDINATES:
        second = points.unit**2 * (factors @ points.outer) / normalizer[:, None]
        covariance = second.view(len(y), *2 * mean.shape[1:])
        covariance = (covariance - mean[:, :, None] * mean[:, None, :]) @ directions
    else:
        covariance = _covariance_along(points, factors, normalizer, mean, directions)
    return torch.cat([found, covariance.flatten(1)], dim=1)


def _covariance_along(
    points: Points,
    factors: torch.Tensor,
    normalizer: torch.Tensor,
    mean: torch.Tensor,
    directions: torch.Tensor,
) -> torch.Tensor:
    """Return Cov @ directions, (P, r, j), as posterior averages of (x_i - D).L (x_i - D).

    Centred first: at the smallest noise a difference of second moments would be rounding.
    """
    rows = directions.transpose(1, 2)
    offset = rows @ mean[:, :, None]
    along = torch.addmm(offset.flatten(0, 1), rows.flatten(0, 1), points.positions.T, beta=-1)
    along = along.unflatten(0, rows.shape[:2]).mul_(factors[:, None, :])
    sums = (along @ points.features[:-1].T) / normalizer[:, None, None]
    # The first column is no more than the rounding of the mean; so is what it takes away.
    covariance = points.unit * sums[..., 1:] - sums[..., :1] * mean[:, None, :]
    return covariance.transpose(1, 2)


def _places(mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return where a mask of three axes, hardly any of it set, is set: eight of its bytes at a time."""
    if mask.shape[2] % 8:
        return mask.nonzero(as_tuple=True)
    mask = mask.contiguous()
    i, j, word = mask.view(torch.int64).nonzero(as_tuple=True)
    found, byte = mask.unflatten(2, (-1, 8))[i, j, word].nonzero(as_tuple=True)
    return i[found], j[found], 8 * word[found] + byte


def _members(
    points: Points,
    group: torch.Tensor,
    query: torch.Tensor,
    scores: torch.Tensor,
    distance: torch.Tensor,
    v: float,
    left_out: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which points count for which queries, given the scores (K, GROUP) of their groups."""
    index = points.groups.index[group]
    if left_out is not None:
        scores.masked_fill_(index == left_out[query, None], -torch.inf)
    best = scores.new_full((len(distance),), -torch.inf)
    best.scatter_reduce_(0, query, scores.amax(1), "amax")
    threshold = best - points.groups.slack(distance, v, scores.dtype)
    entry, member = (scores >= threshold[query, None]).nonzero(as_tuple=True)
    return query[entry], index[entry, member]


def _over_members(
    points: Points,
    y: torch.Tensor,
    v: float,
    query: torch.Tensor,
    member: torch.Tensor,
    directions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over listed points of listed queries.

    Everything is measured from the point that counts most for a query: offsets from it are exact where
    points are close, and the spread is no difference of large numbers.
    """
    positions, log_weights = points.positions[member], points.log_weights[member]
    # Measured twice: from the query to find that point, and from there.
    scores = (positions - y[query]).square_().sum(1).mul_(-0.5).add_(log_weights, alpha=v)
    best = scores.new_full((len(y),), -torch.inf).scatter_reduce_(0, query, scores, "amax")
    leads = (scores == best[query]).nonzero()[:, 0]
    leader = torch.zeros(len(y), dtype=torch.long).index_copy_(0, query[leads], member[leads])
    origin = points.positions[leader]
    members = positions - origin[query]
    squares = members.square().sum(1)
    along = (members * (y - origin)[query]).sum(1)
    logits = along.sub_(squares, alpha=0.5).div_(v)
    logits += log_weights
    top = logits.new_full((len(y),), -torch.inf).scatter_reduce_(0, query, logits, "amax")
    factors = exp_(logits.sub_(top[query]), points.negligible)
    counted = squares if points.shares is None else points.counted(members).square().sum(1)
    parts = torch.column_stack([factors, factors[:, None] * members, factors * counted])
    sums = parts.new_zeros(len(y), parts.shape[1]).index_add_(0, query, parts)
    normalizer = sums[:, 0]
    shift = sums[:, 1:-1] / normalizer[:, None]
    spread = sums[:, -1] / normalizer - points.counted(shift).square().sum(1)
    log_sum = normalizer.log() + top - (y - origin).square().sum(1) / (2 * v)
    found = torch.column_stack([origin + shift, spread, log_sum])
    if directions is None:
        return found
    centred = members - shift[query]
    weighted = (centred[:, None, :] @ directions[query]) * factors[:, None, None]
    parts = (centred[:, :, None] * weighted).flatten(1)
    covariance = parts.new_zeros(len(y), parts.shape[1]).index_add_(0, query, parts)
    return torch.cat([found, covariance / normalizer[:, None]], dim=1)
