"""Posterior moments of single queries, by one softmax over the points for each query.

The engine uses this where exponentials do not factorise. Only this module may skip points in a sum:
at low noise few points matter to a query, and scores of all points in low precision find the groups
that hold them.
"""

from __future__ import annotations

import torch

from .._utils.memory import slices
from .groups import GROUP, PairScores
from .merge import Merger, Pairs
from .moments import Nodes, is_excluded, rows_of
from .points import Points, exclude_, exp_

# Gathering a member of a group takes about this many times as long as a term of a dense sum.
_COST_OF_GATHERING = 4

# Up to this many coordinates all r^2 second moments together take no longer than one direction.
_FEW_COORDINATES = 8


def direct_moments(
    points: Points,
    y: torch.Tensor,
    v: float,
    max_norm: float,
    exclude: torch.Tensor | None,
    rows_at_once: int,
    directions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the moments of each query, and its covariance along directions.

    - `y` (P, r): queries.
    - `max_norm`: length of the longest node that was added to a query.
    - `exclude` (P,): index of the point that is excluded for each query.
    - `rows_at_once`: number of queries computed at once. Each takes a row of logits of all points, and
      one more for each direction.
    - `directions` (P, r, j): vectors by which each query's posterior covariance is multiplied.

    The result (P, r + 2) or (P, r + 2 + r * j) is D(y), tr Cov(y), log sum_i w_i exp(-|y - x_i|^2 /
    2v) and the rows of Cov(y) @ directions.
    """
    n_directions = 0 if directions is None else directions.shape[2]
    moments = y.new_empty(len(y), points.dimension + 2 + points.dimension * n_directions)
    relevant = None
    # Where points are skipped, shapes depend on the data, so the host would have to wait for a GPU.
    if points.are_grouped:
        relevant = points.groups.relevant_to(y, v, exclude, rows_at_once)
        n_relevant = int(relevant.count_nonzero())
        if _COST_OF_GATHERING * n_relevant > relevant.numel():
            relevant = None
        else:
            # So many queries that their relevant groups take as much memory as the logits of all points.
            gathered = n_relevant * GROUP * (points.dimension + 4 + 2 * n_directions)
            most = rows_at_once * len(points) * (1 + n_directions)
            rows_at_once = max(1, len(y) * most // max(gathered, 1))
    for rows in slices(len(y), rows_at_once):
        excluded = rows_of(exclude, rows)
        along = None if directions is None else directions[rows]
        if relevant is None:
            moments[rows] = _over_all_points(points, y[rows], v, max_norm, excluded, along)
            continue
        group, query = relevant[:, rows].nonzero(as_tuple=True)
        scaled = y[rows] / points.unit
        scores = (points.groups.scaled[group] @ scaled[query, :, None])[:, :, 0]
        scores -= points.groups.half_squares[group]
        scores += points.groups.log_weights[group] * (v / points.unit**2)
        members = _members(points, group, query, scores, scaled.norm(dim=1), v, excluded)
        moments[rows] = _over_members(points, y[rows], v, *members, along)
    return moments


def moments_of_pairs(
    points: Points,
    x: torch.Tensor,
    offsets: torch.Tensor,
    v: float,
    max_norm: float,
    mask: torch.Tensor | None,
    exclude: torch.Tensor | None,
    elements: int,
) -> torch.Tensor:
    """Return mean, trace and log-sum (B, M, r + 2) of queries x_b + xi_m.

    As `direct_moments` of each pair, but the search for relevant points is shared between the pairs
    of a query and those of a node. Only pairs in the mask (B, M) are computed, or all of them if it
    is None; other entries are undefined. At most about `elements` numbers are held at once.
    """
    moments = x.new_empty(len(x), len(offsets), points.dimension + 2)
    n_groups = len(points.groups)
    nodes_at_once = max(1, elements // (4 * len(points)))
    for nodes in slices(len(offsets), nodes_at_once):
        width = min(nodes_at_once, len(offsets))
        for rows in slices(len(x), elements // (2 * (2 * len(points) + n_groups * width))):
            excluded = rows_of(exclude, rows)
            y = x[rows, None] + offsets[nodes]
            pairs = points.groups.relevant_to_pairs(x[rows], offsets[nodes], v, excluded)
            own_mask = None if mask is None else mask[rows, nodes]
            moments[rows, nodes] = _over_pairs(
                points, y, v, max_norm, pairs, own_mask, excluded, elements
            )
    return moments


def average_over_few_points(
    points: Points,
    merger: Merger,
    x: torch.Tensor,
    v: float,
    nodes: Nodes,
    exclude: torch.Tensor | None,
    *,
    trace: bool,
) -> torch.Tensor:
    """Return moments of queries averaged over the nodes, from exponentials for all points.

    There must be so few points that the exponentials take no more memory than the sums of all pairs.
    Exponents are formed from products of coordinates. The result (B, r + 2) is this process's part of
    mean, trace (if not requested, the Laplacian of `Nodes.averages`) and log-sum.
    """
    of_queries = exclude_(points.products(x, v), exclude)
    logits = of_queries[:, None] + (nodes.offsets / v) @ points.positions.T
    top = logits.amax(2, keepdim=True)
    factors = exp_(logits.sub_(top), points.negligible)
    normalizer = factors.sum(2)
    factors /= normalizer[..., None]
    log_sums = normalizer.log() + top[..., 0] - nodes.half_squares(x) / v
    if trace:
        means = factors @ points.positions
        squares = points.scaled_for_trace(points.positions).square().sum(1)
        traces = factors @ squares - points.scaled_for_trace(means).square().sum(2)
        pairs = Pairs(means.transpose(1, 2), traces, log_sums)
        return merger.average(pairs, nodes.weights)
    weights, log_sums = merger.pair_weights(log_sums, nodes.weights)
    mean = (weights[:, None] @ factors)[:, 0] @ points.positions
    return torch.cat([mean, nodes.averages(weights, log_sums)], dim=1)


def _over_pairs(
    points: Points,
    y: torch.Tensor,
    v: float,
    max_norm: float,
    pairs: PairScores,
    mask: torch.Tensor | None,
    exclude: torch.Tensor | None,
    elements: int,
) -> torch.Tensor:
    """Return the moments (B, M, r + 2) of queries (B, M, r), from their relevant groups."""
    n_queries, n_nodes = y.shape[:2]
    moments = y.new_empty(n_queries, n_nodes, points.dimension + 2)
    relevant = pairs.relevant if mask is None else pairs.relevant & mask
    n_pairs = n_queries * n_nodes if mask is None else int(mask.count_nonzero())
    n_relevant = int(relevant.count_nonzero())
    if _COST_OF_GATHERING * n_relevant > len(relevant) * n_pairs:
        flat, requested = y.flatten(0, 1), torch.arange(n_queries * n_nodes)
        if mask is not None:
            requested = requested[mask.flatten()]
        for part in slices(len(requested), elements // (4 * len(points))):
            pair = requested[part]
            excluded = rows_of(exclude, pair // n_nodes)
            of_pairs = _over_all_points(points, flat[pair], v, max_norm, excluded)
            moments.view(-1, of_pairs.shape[1])[pair] = of_pairs
        return moments
    elements_per_query = n_relevant * GROUP * (3 * points.dimension + 8) // max(n_queries, 1) + 1
    for rows in slices(n_queries, elements // elements_per_query):
        group, b, m = _indices(relevant[:, rows])
        scores = pairs.of_queries[:, rows][group, b] + pairs.of_nodes[group, m]
        distance = (y[rows].norm(dim=2) / points.unit).flatten()
        excluded = None
        if exclude is not None:
            excluded = exclude[rows].repeat_interleave(n_nodes, dim=0)
        query = b * n_nodes + m
        members = _members(points, group, query, scores, distance, v, excluded)
        of_pairs = _over_members(points, y[rows].flatten(0, 1), v, *members)
        moments[rows] = of_pairs.unflatten(0, (-1, n_nodes))
    return moments


def _over_all_points(
    points: Points,
    y: torch.Tensor,
    v: float,
    max_norm: float,
    exclude: torch.Tensor | None,
    directions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `direct_moments`, computed from the logits of all points."""
    squares = None
    if points.products_are_exact(v, max_norm):
        logits = points.products(y, v)
        shift: torch.Tensor | float = y.square().sum(1) / (-2 * v)
    else:
        squares = points.squared_distances(y)
        logits = torch.add(points.log_weights, squares, alpha=-0.5 / v)
        shift = 0.0
    top, best = exclude_(logits, exclude).max(1)
    factors = exp_(logits.sub_(top[:, None]), points.negligible)
    averages = factors @ points.features.T
    normalizer = averages[:, 0]
    moments = points.unit * averages[:, 1:] / normalizer[:, None]
    if squares is None:
        moments[:, -1] *= points.unit
        moments[:, -1] -= points.scaled_for_trace(moments[:, :-1]).square().sum(1)
    else:
        # At such small noise the above difference is rounding: measure from the point of largest weight.
        origin = points.positions[best]
        moments[:, -1] = (factors * points.squared_distances_for_trace(origin)).sum(1) / normalizer
        moments[:, -1] -= points.scaled_for_trace(moments[:, :-1] - origin).square().sum(1)
    single = torch.column_stack([moments, normalizer.log() + top + shift])
    if directions is None:
        return single
    mean = moments[:, :-1]
    if squares is None and points.dimension <= _FEW_COORDINATES:
        second = points.unit**2 * (factors @ points.outer_products) / normalizer[:, None]
        covariance = second.view(len(y), *2 * mean.shape[1:])
        covariance = (covariance - mean[:, :, None] * mean[:, None, :]) @ directions
    else:
        covariance = _covariance_along(points, factors, normalizer, mean, directions)
    return torch.cat([single, covariance.flatten(1)], dim=1)


def _covariance_along(
    points: Points,
    factors: torch.Tensor,
    normalizer: torch.Tensor,
    mean: torch.Tensor,
    directions: torch.Tensor,
) -> torch.Tensor:
    """Return Cov @ directions (P, r, j), from centred points: second moments would cancel."""
    rows = directions.transpose(1, 2)
    offset = rows @ mean[:, :, None]
    along = torch.addmm(offset.flatten(0, 1), rows.flatten(0, 1), points.positions.T, beta=-1)
    along = along.unflatten(0, rows.shape[:2]).mul_(factors[:, None, :])
    sums = (along @ points.features[:-1].T) / normalizer[:, None, None]
    # The first column, the rounding error of the mean along the directions, corrects the others.
    covariance = points.unit * sums[..., 1:] - sums[..., :1] * mean[:, None, :]
    return covariance.transpose(1, 2)


def _indices(mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the indices of the True entries, which are few, of a mask with three axes."""
    if mask.shape[2] % 8:
        return mask.nonzero(as_tuple=True)
    mask = mask.contiguous()
    i, j, block = mask.view(torch.int64).nonzero(as_tuple=True)
    entry, byte = mask.unflatten(2, (-1, 8))[i, j, block].nonzero(as_tuple=True)
    return i[entry], j[entry], 8 * block[entry] + byte


def _members(
    points: Points,
    group: torch.Tensor,
    query: torch.Tensor,
    scores: torch.Tensor,
    distance: torch.Tensor,
    v: float,
    exclude: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the relevant pairs of queries and points, given the scores (K, GROUP) of groups."""
    index = points.groups.index[group]
    if exclude is not None:
        scores.masked_fill_(is_excluded(index, exclude[query]), -torch.inf)
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
    """Return `direct_moments` as sums over given pairs of a query and a point.

    Everything is measured from the point of largest weight for a query: offsets from it are exact
    where points are close, and the trace is not a difference of large numbers.
    """
    positions, log_weights = points.positions[member], points.log_weights[member]
    # Distances from the query find the point of largest weight; then those from that point are used.
    scores = (positions - y[query]).square_().sum(1).mul_(-0.5).add_(log_weights, alpha=v)
    best = scores.new_full((len(y),), -torch.inf).scatter_reduce_(0, query, scores, "amax")
    pair = (scores == best[query]).nonzero()[:, 0]
    heaviest = torch.zeros(len(y), dtype=torch.long).index_copy_(0, query[pair], member[pair])
    origin = points.positions[heaviest]
    members = positions - origin[query]
    squares = members.square().sum(1)
    along = (members * (y - origin)[query]).sum(1)
    logits = along.sub_(squares, alpha=0.5).div_(v)
    logits += log_weights
    top = logits.new_full((len(y),), -torch.inf).scatter_reduce_(0, query, logits, "amax")
    factors = exp_(logits.sub_(top[query]), points.negligible)
    if points.trace_weights is not None:
        squares = points.scaled_for_trace(members).square().sum(1)
    parts = torch.column_stack([factors, factors[:, None] * members, factors * squares])
    sums = parts.new_zeros(len(y), parts.shape[1]).index_add_(0, query, parts)
    normalizer = sums[:, 0]
    shift = sums[:, 1:-1] / normalizer[:, None]
    trace = sums[:, -1] / normalizer - points.scaled_for_trace(shift).square().sum(1)
    log_sum = normalizer.log() + top - (y - origin).square().sum(1) / (2 * v)
    moments = torch.column_stack([origin + shift, trace, log_sum])
    if directions is None:
        return moments
    centred = members - shift[query]
    weighted = (centred[:, None, :] @ directions[query]) * factors[:, None, None]
    parts = (centred[:, :, None] * weighted).flatten(1)
    covariance = parts.new_zeros(len(y), parts.shape[1]).index_add_(0, query, parts)
    return torch.cat([moments, covariance / normalizer[:, None]], dim=1)
