"""Groups of neighbouring points, and the search for the groups that matter to a query at low noise.

At low noise few points matter to a query. Scores of all points in single precision find the groups
that hold them and never miss one: bounds are compared, and the error of single precision is added.
All scores here are logits times v in squared units of the radius, without the term -|y|^2 / 2 of the
query, so that they do not overflow at any noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from .._utils.memory import slices
from .moments import each_excluded, is_excluded

# Points in a group: so many that finding the relevant groups is much faster than exponentiating all
# their members, and so few that little time is wasted on irrelevant members.
GROUP = 32

# Exponents below minus this are raised to it: products of two of them are normal in single precision.
_LOWEST_EXPONENT = 40.0

# For queries near the data, scores minus the best of their group are above this; lower ones are raised
# to it, so that a few queries far away do not loosen the bounds of all.
_WIDEST_RANGE = -4.0

# Error in single precision of the logarithm of a sum of GROUP products of exponentials; and relative
# error of a number rounded to single precision.
_LOG_ERROR = 3e-5
_ROUNDING = 1e-6


class PairScores(NamedTuple):
    """Scores of all (query, node) pairs, as two terms to be added, and the groups relevant to each.

    `of_queries` (n_groups, B, GROUP) and `of_nodes` (n_groups, M, GROUP) are the terms; `relevant`
    (n_groups, B, M) is true for groups that have points which matter to a pair.
    """

    of_queries: torch.Tensor
    of_nodes: torch.Tensor
    relevant: torch.Tensor


class Groups:
    """Points split into groups of equal size, each of points that are near each other.

    - `positions` (N, r): on a CPU, N a multiple of `GROUP`.
    - `log_weights` (N,): logarithms of their weights, minus infinity for padding.
    - `unit`: the length by which positions are divided, the radius of the points.
    """

    def __init__(self, positions: torch.Tensor, log_weights: torch.Tensor, unit: float) -> None:
        order = torch.from_numpy(_local_order(positions.numpy()))
        self.index = order.unflatten(0, (-1, GROUP))
        self.log_weights = log_weights[self.index]
        self.unit = unit
        self.scaled = positions[self.index] / unit
        self.half_squares = 0.5 * self.scaled.square().sum(2)
        # For single queries, member j of all groups is one block of rows, so that the best of each
        # group is a maximum over blocks.
        self._blocks = self.scaled.transpose(0, 1).flatten(0, 1).float()
        self._block_half_squares = self.half_squares.T.flatten().float()
        self._block_log_weights = self.log_weights.T.flatten()
        self._row_of_point = torch.empty_like(order)
        self._row_of_point[self.index.T.flatten()] = torch.arange(len(order))
        eps = torch.finfo(positions.dtype).eps
        # N terms that are smaller than the largest by this exponent are together below the rounding of
        # their sum, even times the large squared distances to which so small weights belong.
        self._negligible = math.log(1e-3 * eps / len(order))

    def __len__(self) -> int:
        return len(self.index)

    def relevant_to(
        self, y: torch.Tensor, v: float, exclude: torch.Tensor | None, queries_at_once: int
    ) -> torch.Tensor:
        """Return which groups hold points relevant to queries y (P, r): bool, (n_groups, P).

        A group is irrelevant if the score of its best member is so far below the best of all that
        rounding loses its terms. Scores of at most `queries_at_once` queries are held at once.
        """
        bias = (self._block_log_weights * (v / self.unit**2)).float() - self._block_half_squares
        left = torch.cat([self._blocks, bias[:, None]], dim=1)
        scaled = y / self.unit
        right = torch.cat([scaled.T, scaled.new_ones(1, len(y))]).float()
        slack = self.slack(scaled.norm(dim=1), v, torch.float32)
        relevant = y.new_ones(len(self), len(y), dtype=torch.bool)
        if not bool(right.isfinite().all()):
            # A query is so far away that single precision overflows, so all groups are returned.
            return relevant
        excluded_rows = None if exclude is None else each_excluded(self._row_of_point[exclude]).T
        for part in slices(len(y), queries_at_once):
            scores = left @ right[:, part]
            if excluded_rows is not None:
                scores.scatter_(0, excluded_rows[:, part], -torch.inf)
            best = scores.unflatten(0, (GROUP, -1)).amax(0)
            torch.ge(best, best.amax(0) - slack[part], out=relevant[:, part])
        return relevant

    def relevant_to_pairs(
        self, x: torch.Tensor, offsets: torch.Tensor, v: float, exclude: torch.Tensor | None
    ) -> PairScores:
        """Return which groups hold points relevant to queries x_b + xi_m.

        A score is the sum of a query's part a_i and a node's part c_i. With a sharpness beta,

            max_i (a_i + c_i)  <=  log( sum_i exp(beta a_i) exp(beta c_i) ) / beta

        over the members of a group: a product of matrices, with an entry for each group and none
        for single points. Scores of the members of the group with the largest bound are computed
        exactly, and groups whose bounds are below the best of these scores are irrelevant.
        """
        scaled, nodes = x / self.unit, offsets / self.unit
        members = self.scaled.flatten(0, 1).T
        bias = self.log_weights * (v / self.unit**2) - self.half_squares
        of_queries = (scaled @ members).view(len(x), *bias.shape).transpose(0, 1) + bias[:, None]
        of_nodes = (nodes @ members).view(len(nodes), *bias.shape).transpose(0, 1).contiguous()

        best_a, best_c = of_queries.amax(2), of_nodes.amax(2)
        below_a = of_queries - best_a[..., None]
        below_c = of_nodes - best_c[..., None]
        # As sharp as most exponents allow; the lowest are raised: the bound is looser, but still valid.
        range_of_groups = -float(below_a.clamp_min(_WIDEST_RANGE).mean() + below_c.mean())
        sharpness = self.unit**2 / v
        if range_of_groups > 0:
            sharpness = min(sharpness, _LOWEST_EXPONENT / range_of_groups)
        factors = [
            (below * sharpness).clamp_min_(-_LOWEST_EXPONENT).float().exp_()
            for below in (below_a, below_c)
        ]
        bounds = torch.bmm(factors[0], factors[1].mT).log_().div_(sharpness)
        top_a, top_c = best_a.amax(0), best_c.amax(0)
        bounds += _rounded_up(best_a - top_a)[:, :, None]
        bounds += _rounded_up(best_c - top_c)[:, None, :]

        leading = bounds.max(0).indices.flatten()
        b = torch.arange(len(x)).repeat_interleave(len(nodes))
        m = torch.arange(len(nodes)).repeat(len(x))
        scores = of_queries[leading, b] + of_nodes[leading, m]
        if exclude is not None:
            scores.masked_fill_(is_excluded(self.index[leading], exclude[b]), -torch.inf)
        best = scores.amax(1).view(len(x), len(nodes)) - top_a[:, None] - top_c
        far = scaled.norm(dim=1)[:, None] + nodes.norm(dim=1)
        slack = self.slack(far, v, x.dtype) + _LOG_ERROR / sharpness
        threshold = best - _ROUNDING * best.abs() - slack
        return PairScores(of_queries, of_nodes, bounds >= threshold.float())

    def slack(self, distance: torch.Tensor, v: float, dtype: torch.dtype) -> torch.Tensor:
        """Return how far a negligible score is below the best, at queries of norm `distance` (radii)."""
        wrong = 2 * (self.scaled.shape[2] + 4) * torch.finfo(dtype).eps * (distance + 1)
        return 2 * wrong - self._negligible * (v / self.unit**2)


def _rounded_up(values: torch.Tensor) -> torch.Tensor:
    """Return upper bounds of the values in single precision."""
    return (values + _ROUNDING * values.abs()).float()


def _local_order(points: np.ndarray) -> np.ndarray:
    """Return an order in which consecutive groups of points (N, r) are near neighbours."""
    n = len(points)
    order, sizes = np.arange(n), np.array([n // GROUP])
    while sizes.max() > 1:
        starts = np.concatenate([[0], np.cumsum(sizes[:-1])]) * GROUP
        cell = np.repeat(np.arange(len(sizes)), sizes * GROUP)
        rows = points[order]
        low, high = np.minimum.reduceat(rows, starts), np.maximum.reduceat(rows, starts)
        side = (high - low).argmax(1)
        cells = np.arange(len(sizes))
        bottom, extent = low[cells, side], (high - low)[cells, side]
        along = (rows[np.arange(n), side[cell]] - bottom[cell]) / np.where(extent, extent, 1)[cell]
        # One sort for all cells: the cell's number, plus the position within it as a fraction below one.
        order = order[np.argsort(cell + 0.999 * along, kind="stable")]
        halves = np.column_stack([sizes // 2, sizes - sizes // 2]).ravel()
        sizes = halves[halves > 0]
    return order
