"""Posterior moments of single queries, one softmax over the points for each.

What the engine falls back on where exponentials do not factorise, and the only place where a sum
over points may skip some of them: at low noise few points matter to a query, and one pass over the
logits finds the groups that hold them.
"""

from __future__ import annotations

import torch

from ._points import GROUP, Points, exp_

__all__ = ["direct_moments"]

# Gathering the members of a group costs about this many times a term of a dense sum.
_COST_OF_GATHERING = 4


def direct_moments(
    points: Points, y: torch.Tensor, v: float, reach: float, left_out: torch.Tensor | None
) -> torch.Tensor:
    """Return posterior mean, spread and log-sum of each query.

    Parameters
    ----------
    points : Points
        The data.
    y : torch.Tensor of shape (P, r)
        Queries.
    v : float
        Noise variance.
    reach : float
        How far queries may be from the ball that holds the data.
    left_out : torch.Tensor of shape (P,) or None
        Index of the point that a query does not see.

    Returns
    -------
    torch.Tensor of shape (P, r + 2)
        D(y), tr Cov(y) and log sum_i w_i exp(-|y - x_i|^2 / 2v).
    """
    # To skip points is to let data decide on shapes, for which a device would have to be waited.
    if y.device.type == "cpu" and len(points) > 4 * GROUP:
        found = _over_groups_that_matter(points, y, v, reach, left_out)
        if found is not None:
            return found
    return _over_all_points(points, y, v, reach, left_out)


def _over_all_points(
    points: Points, y: torch.Tensor, v: float, reach: float, left_out: torch.Tensor | None
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
    top = logits.amax(1)
    factors = exp_(logits.sub_(top[:, None]), points.negligible)
    averages = factors @ points.features
    normalizer = averages[:, 0]
    moments = points.unit * averages[:, 1:] / normalizer[:, None]
    moments[:, -1] *= points.unit
    from_origin = moments[:, :-1].square().sum(1)
    moments[:, -1] -= from_origin
    if squares is not None:
        # At such small noise the spread may be rounding beside |D|^2; it is measured from the
        # query instead where that is nearer to the mean.
        from_y = (moments[:, :-1] - y).square().sum(1)
        seen_from_y = (factors * squares).sum(1) / normalizer - from_y
        moments[:, -1] = torch.where(from_y < from_origin, seen_from_y, moments[:, -1])
    return torch.column_stack([moments, normalizer.log() + top + shift])


def _over_groups_that_matter(
    points: Points, y: torch.Tensor, v: float, reach: float, left_out: torch.Tensor | None
) -> torch.Tensor | None:
    """Return the moments from the few groups that hold all of the mass, or None if they are many.

    A group is skipped if its best member is below the heaviest point by more than what is lost in
    rounding when N such terms are summed, and by twice what the products may be wrong.
    """
    logits = points.products(y, v)
    if left_out is not None:
        logits.scatter_(1, left_out[:, None], -torch.inf)
    best = logits.unflatten(1, (GROUP, -1)).amax(1)
    top, heaviest_group = best.max(1)
    slack = 2 * points.products_error(y, v) - points.out_of_sight
    query, group = (best >= (top - slack)[:, None]).nonzero(as_tuple=True)
    if _COST_OF_GATHERING * len(query) > best.numel():
        return None
    if points.products_are_exact(v, reach):
        origin = y.new_zeros(1, y.shape[1]).expand_as(y)
    else:
        # Everything is measured from a point near the query's heaviest: offsets from it are exact
        # where points are close, and the spread is no difference of large numbers.
        members = points.by_group[heaviest_group]
        nearest = (members - y[:, None, :]).square().sum(2).argmin(1)
        origin = members[torch.arange(len(y)), nearest]
    members = points.by_group[group]
    if not points.products_are_exact(v, reach):
        members = members - origin[query, None, :]
    squares = members.square().sum(2)
    along = (members @ (y - origin)[query, :, None])[:, :, 0]
    logits = along.sub_(squares, alpha=0.5).div_(v).add_(points.log_weights_by_group[group])
    if left_out is not None:
        place = group[:, None] + best.shape[1] * torch.arange(GROUP)
        logits.masked_fill_(place == left_out[query, None], -torch.inf)
    top = logits.new_full((len(y),), -torch.inf)
    top.scatter_reduce_(0, query, logits.amax(1), "amax")
    factors = exp_(logits.sub_(top[query, None]), points.negligible)
    parts = torch.column_stack(
        [factors.sum(1), (factors[:, None, :] @ members)[:, 0], (factors * squares).sum(1)]
    )
    sums = parts.new_zeros(len(y), parts.shape[1]).index_add_(0, query, parts)
    normalizer = sums[:, 0]
    shift = sums[:, 1:-1] / normalizer[:, None]
    spread = sums[:, -1] / normalizer - shift.square().sum(1)
    log_sum = normalizer.log() + top - (y - origin).square().sum(1) / (2 * v)
    return torch.column_stack([origin + shift, spread, log_sum])
