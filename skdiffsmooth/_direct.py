"""Posterior moments of single queries, one softmax over the points for each.

What the engine falls back on where exponentials do not factorise, and the only place where a sum
over points may skip some of them: at low noise few points matter to a query, and a look at all of
them in low precision finds the groups that hold those.
"""

from __future__ import annotations

import torch

from ._points import GROUP, Points, exp_, slices

__all__ = ["direct_moments"]

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
    kept = None
    # To skip points is to let data decide on shapes, for which a device would have to be waited.
    if y.device.type == "cpu" and points.are_grouped:
        kept = _groups_that_matter(points, y, v, left_out, rows_at_once)
        n_kept = int(kept.count_nonzero())
        if _COST_OF_GATHERING * n_kept > kept.numel():
            kept = None
        else:
            gathered = n_kept * GROUP * (points.dimension + 4)
            if directions is not None:
                gathered += n_kept * GROUP * (points.dimension + 2 * n_directions)
            most = rows_at_once * len(points) * (1 + n_directions)
            rows_at_once = max(1, len(y) * most // max(gathered, 1))
    found = y.new_empty(len(y), points.dimension + 2 + points.dimension * n_directions)
    for rows in slices(len(y), rows_at_once):
        unseen = None if left_out is None else left_out[rows]
        along = None if directions is None else directions[rows]
        if kept is None:
            found[rows] = _over_all_points(points, y[rows], v, reach, unseen, along)
        else:
            found[rows] = _over_groups(points, y[rows], v, reach, kept[:, rows], unseen, along)
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
    top = logits.amax(1)
    factors = exp_(logits.sub_(top[:, None]), points.negligible)
    averages = factors @ points.features.T
    normalizer = averages[:, 0]
    moments = points.unit * averages[:, 1:] / normalizer[:, None]
    moments[:, -1] *= points.unit
    from_origin = points.counted(moments[:, :-1]).square().sum(1)
    moments[:, -1] -= from_origin
    if squares is not None:
        # At such small noise the spread may be rounding beside |D|^2; it is measured from the
        # query instead where that is nearer to the mean.
        from_y = points.counted(moments[:, :-1] - y).square().sum(1)
        counted = squares if points.shares is None else points.counted_squared_distances(y)
        seen_from_y = (factors * counted).sum(1) / normalizer - from_y
        moments[:, -1] = torch.where(from_y < from_origin, seen_from_y, moments[:, -1])
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


def _groups_that_matter(
    points: Points,
    y: torch.Tensor,
    v: float,
    left_out: torch.Tensor | None,
    rows_at_once: int,
) -> torch.Tensor:
    """Tell which groups (rows) hold points that count for a query (columns).

    A group is left out if its best member is below the best of all by more than what is lost in
    rounding when N such terms are summed, and by twice what single precision may be wrong. What is
    compared are logits times v, in units of the radius: they do not overflow at any noise.
    """
    unit_v = v / points.unit**2
    single = points.positions_in_single
    bias = (points.log_weights * unit_v).to(single.dtype) - points.half_norms_in_single
    left = torch.cat([single, bias[:, None]], dim=1)
    scaled = y / points.unit
    right = torch.cat([scaled.T, scaled.new_ones(1, len(y))]).to(single.dtype)
    wrong = 2 * (points.dimension + 4) * torch.finfo(single.dtype).eps * (scaled.norm(dim=1) + 1)
    slack = 2 * wrong - points.out_of_sight * unit_v
    kept = y.new_ones(len(points) // GROUP, len(y), dtype=torch.bool)
    if not bool(right.isfinite().all()):
        # So many radii away that single precision has no numbers for it.
        return kept
    for rows in slices(len(y), rows_at_once):
        scores = left @ right[:, rows]
        if left_out is not None:
            scores.scatter_(0, left_out[None, rows], -torch.inf)
        # Maxima over rows, for queries side by side, are the fastest there are.
        best = scores.unflatten(0, (GROUP, -1)).amax(0)
        torch.ge(best, best.amax(0) - slack[rows], out=kept[:, rows])
    return kept


def _over_groups(
    points: Points,
    y: torch.Tensor,
    v: float,
    reach: float,
    kept: torch.Tensor,
    left_out: torch.Tensor | None,
    directions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over the members of the groups that a mask (n_groups, P) names."""
    group, query = kept.nonzero(as_tuple=True)
    members = points.by_group[group]
    place = group[:, None] + len(kept) * torch.arange(GROUP)
    unseen = None if left_out is None else place == left_out[query, None]
    if points.products_are_exact(v, reach):
        origin, squares = torch.zeros_like(y), points.squares_by_group[group]
    else:
        # Everything is measured from a query's nearest point: offsets from it are exact where points
        # are close, and the spread is no difference of large numbers.
        distances = (members - y[query, None, :]).square().sum(2)
        if unseen is not None:
            distances.masked_fill_(unseen, torch.inf)
        closest, which = distances.min(1)
        least = distances.new_full((len(y),), torch.inf).scatter_reduce_(0, query, closest, "amin")
        first = (closest == least[query]).nonzero()[:, 0]
        origin = torch.empty_like(y)
        origin[query[first]] = members[first, which[first]]
        members = members - origin[query, None, :]
        squares = members.square().sum(2)
    along = (members @ (y - origin)[query, :, None])[:, :, 0]
    logits = along.sub_(squares, alpha=0.5).div_(v).add_(points.log_weights_by_group[group])
    if unseen is not None:
        logits.masked_fill_(unseen, -torch.inf)
    top = logits.new_full((len(y),), -torch.inf)
    top.scatter_reduce_(0, query, logits.amax(1), "amax")
    factors = exp_(logits.sub_(top[query, None]), points.negligible)
    counted = squares if points.shares is None else points.counted(members).square().sum(2)
    parts = torch.column_stack(
        [factors.sum(1), (factors[:, None, :] @ members)[:, 0], (factors * counted).sum(1)]
    )
    sums = parts.new_zeros(len(y), parts.shape[1]).index_add_(0, query, parts)
    normalizer = sums[:, 0]
    shift = sums[:, 1:-1] / normalizer[:, None]
    spread = sums[:, -1] / normalizer - points.counted(shift).square().sum(1)
    log_sum = normalizer.log() + top - (y - origin).square().sum(1) / (2 * v)
    found = torch.column_stack([origin + shift, spread, log_sum])
    if directions is None:
        return found
    centred = members - shift[query, None, :]
    weighted = (centred @ directions[query]).mul_(factors[:, :, None])
    parts = (centred.transpose(1, 2) @ weighted).flatten(1)
    covariance = parts.new_zeros(len(y), parts.shape[1]).index_add_(0, query, parts)
    return torch.cat([found, covariance / normalizer[:, None]], dim=1)
