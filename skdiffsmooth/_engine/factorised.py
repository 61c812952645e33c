"""Sums over points for all pairs of queries and nodes, as products of matrices.

With the logits of a pair (b, m)

    -|x_b + xi_m - x_i|^2 / 2v = [ (x_b . x_i - |x_i|^2 / 2) / v ] + [ xi_m . x_i / v ] + const(b, m),

the exponentials factorise into A[b, i] C[m, i] and the sums over i are matrix products: (B + M) N
exponentials where the direct way takes B M N. Pairs whose factors underflow, as they do when v is
small against the kernel's scale, are marked for who can do them directly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from .merge import Merger, Pairs
from .moments import Nodes
from .points import Points, exp_

__all__ = ["Factoriser", "NodeTable", "Products"]


@dataclass(frozen=True)
class NodeTable:
    """The node half of the factorised exponentials, shared by all queries.

    Parameters
    ----------
    nodes : Nodes
        Whose half it is.
    factors : torch.Tensor of shape (M, N)
        exp(xi_m . x_i / v - top_m).
    top : torch.Tensor of shape (M,)
        What was taken off.
    never_underflows : bool
        Whether no query's normaliser can be lost, whatever the query.
    features : torch.Tensor of shape (r + 2, N)
        1, x_i and |x_i|^2 in units of the radius.
    n_queries : int
        How many queries will ask.
    """

    nodes: Nodes
    factors: torch.Tensor
    top: torch.Tensor
    never_underflows: bool
    features: torch.Tensor
    n_queries: int

    def part(self, part: slice, n_queries: int) -> NodeTable:
        """Return the table of some of the nodes, for some of the queries."""
        return replace(
            self,
            nodes=self.nodes[part],
            factors=self.factors[part],
            top=self.top[part],
            n_queries=n_queries,
        )

    def sums(self, query_factors: torch.Tensor, *, features: bool) -> torch.Tensor:
        """Sum products of both halves over the points, times each feature or times one alone.

        Parameters
        ----------
        query_factors : torch.Tensor of shape (B, N)
            The other half, for some of the queries.
        features : bool
            Whether to sum each feature.

        Returns
        -------
        torch.Tensor of shape (B, r + 2, M) or (B, 1, M)
        """
        if not features:
            return (query_factors @ self.factors.T)[:, None]
        if self.n_queries < len(self.nodes):
            # The features go to the side of the product that is smaller.
            left = (query_factors[:, None, :] * self.features).flatten(0, 1)
            return (left @ self.factors.T).unflatten(0, (len(query_factors), -1))
        return (query_factors @ self._by_feature.T).unflatten(1, (-1, len(self.nodes)))

    @cached_property
    def _by_feature(self) -> torch.Tensor:
        """The factors times each feature: ((r + 2) M, N)."""
        return (self.features[:, None, :] * self.factors).flatten(0, 1)


@dataclass(frozen=True)
class Products:
    """Sums over the points for some queries and the nodes of a table.

    Parameters
    ----------
    table : NodeTable
        The nodes.
    factors : torch.Tensor of shape (B, N)
        The query half of the exponentials.
    sums : torch.Tensor of shape (B, 1, M) or (B, r + 2, M)
        The normalisers, with the other features below them where they were asked for.
    log_sums : torch.Tensor of shape (B, M)
        log sum_i w_i exp(-|x_b + xi_m - x_i|^2 / 2v).
    hard : torch.Tensor of bool of shape (B, M), or None
        Pairs whose own normaliser underflows; theirs is one here, and `log_sums` is to be filled in.
    """

    table: NodeTable
    factors: torch.Tensor
    sums: torch.Tensor
    log_sums: torch.Tensor
    hard: torch.Tensor | None


class Factoriser:
    """Points, with the range in which factors of their exponentials are kept.

    Parameters
    ----------
    points : Points
        What is summed over.
    """

    def __init__(self, points: Points) -> None:
        self._points = points
        # Factors are kept between exp(-s) and exp(s), so that no product of two of them overflows or
        # is subnormal. What that changes in a sum is at most 1 a term, so N of them are rounding in
        # a normaliser of at least N / eps.
        limits = torch.finfo(points.positions.dtype)
        self._log_scale = -0.42 * math.log(limits.tiny)
        self._smallest_normalizer = len(points) / limits.eps
        self._widest_range = 2 * self._log_scale - math.log(self._smallest_normalizer)

    def is_worth_trying(self, v: float, nodes: Nodes) -> bool:
        """Tell whether there is something to share, and exponents may be formed from products."""
        if len(nodes) == 1 or not self._points.products_are_exact(v, nodes.reach):
            return False
        # Where the host does not look at numbers, no pair may turn out to be hard.
        return self._points.on_host or (
            2 * nodes.reach * self._points.radius / v < self._widest_range
        )

    def table(self, nodes: Nodes, v: float, n_queries: int) -> NodeTable:
        """Exponentiate the node half of the logits, once for all queries.

        Parameters
        ----------
        nodes : Nodes
            Shifts of the queries.
        v : float
            Noise variance.
        n_queries : int
            How many queries will ask.

        Returns
        -------
        NodeTable
        """
        exponents = (nodes.offsets / v) @ self._points.positions.T
        top = exponents.amax(1, keepdim=True)
        # Whatever the query, a normaliser is at least exp(2s - range of its node's exponents).
        never_underflows = True
        if self._points.on_host:
            widest = float((top - exponents.amin(1, keepdim=True)).max())
            never_underflows = widest < self._widest_range
        top -= self._log_scale
        factors = exp_(exponents.sub_(top), -self._log_scale)
        features = self._points.features
        return NodeTable(nodes, factors, top[:, 0], never_underflows, features, n_queries)

    def products(
        self,
        x: torch.Tensor,
        v: float,
        table: NodeTable,
        left_out: torch.Tensor | None,
        *,
        features: bool,
    ) -> Products | None:
        """Sum over the points by products of matrices.

        Parameters
        ----------
        x : torch.Tensor of shape (B, r)
            Queries.
        v : float
            Noise variance.
        table : NodeTable
            The nodes' half.
        left_out : torch.Tensor of shape (B,) or None
            Index of the point that a query does not see.
        features : bool
            Whether to sum each feature, beside the weights alone.

        Returns
        -------
        Products or None
            None if most pairs would underflow.
        """
        top, factors = self._query_factors(x, v, left_out)
        hard = sums = None
        if not table.never_underflows:
            sums = table.sums(factors, features=False)
            hard = sums[:, 0] < self._smallest_normalizer
            if 2 * int(hard.count_nonzero()) > hard.numel():
                return None
        if features or sums is None:
            sums = table.sums(factors, features=features)
        if hard is not None:
            sums[:, 0].masked_fill_(hard, 1)
        log_sums = sums[:, 0].log() + top + table.top - table.nodes.half_squares(x) / v
        return Products(table, factors, sums, log_sums, hard)

    def products_by_part(
        self,
        x: torch.Tensor,
        v: float,
        table: NodeTable,
        which: torch.Tensor,
        counts: list[int],
        left_out: torch.Tensor | None,
    ) -> Products:
        """Sum each feature for queries that each see their own part of a table.

        Parameters
        ----------
        x : torch.Tensor of shape (P, r)
            Queries, sorted by part.
        v : float
            Noise variance.
        table : NodeTable
            The nodes of all parts, M for each, none of which underflows.
        which : torch.Tensor of shape (P,)
            Part of each query.
        counts : list of int
            How many queries each part has.
        left_out : torch.Tensor of shape (P,) or None
            Index of the point that a query does not see.

        Returns
        -------
        Products
            Of P queries and M nodes.
        """
        top, factors = self._query_factors(x, v, left_out)
        n_nodes = len(table.nodes) // len(counts)
        total = torch.cat(
            [
                table.part(slice(k * n_nodes, (k + 1) * n_nodes), len(own)).sums(own, features=True)
                for k, own in enumerate(factors.split(counts))
                if len(own)
            ]
        )
        places = x[:, None] + table.nodes.offsets.unflatten(0, (-1, n_nodes))[which]
        constant = top + table.top.unflatten(0, (-1, n_nodes))[which]
        log_sums = total[:, 0].log() + constant - places.square().sum(2) / (2 * v)
        return Products(table, factors, total, log_sums, None)

    def _query_factors(
        self, x: torch.Tensor, v: float, left_out: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Exponentiate the query half of the logits, less what is taken off: (B, 1) and (B, N)."""
        logits = self._points.products(x, v)
        if left_out is not None:
            logits.scatter_(1, left_out[:, None], -math.inf)
        top = logits.amax(1, keepdim=True) - self._log_scale
        return top, exp_(logits.sub_(top), -self._log_scale)

    def mixed(self, products: Products, found: torch.Tensor | None, merger: Merger) -> torch.Tensor:
        """Average the points once for each query, under weights that the nodes have mixed before.

        Parameters
        ----------
        products : Products
            Of the weights alone; its factors are used up.
        found : torch.Tensor of shape (P, r + 2) or None
            Mean, spread and log-sum of each hard pair, where there are any.
        merger : Merger
            Merges what is computed here with what the other shards compute.

        Returns
        -------
        torch.Tensor of shape (B, r + 2)
            This process's part of the mean, zeros, and the average of log-sums.
        """
        table, hard = products.table, products.hard
        weights, log_sums = merger.pair_weights(products.log_sums, table.nodes.weights)
        sums = log_sums.new_zeros(len(log_sums), self._points.dimension + 2)
        sums[:, -1] = (weights * log_sums).sum(1)
        if hard is not None and found is not None:
            directly = weights[hard][:, None] * found[:, :-2]
            sums[:, :-2].index_add_(0, hard.nonzero()[:, 0], directly)
            weights = weights.masked_fill(hard, 0)
        # The scale is put back at the end, for the products on the way to stay in range too.
        scale = math.exp(self._log_scale)
        mixed = products.factors.mul_((weights * scale / products.sums[:, 0]) @ table.factors)
        mixed.masked_fill_(mixed < 1 / scale, 0)
        sums[:, :-2] += (mixed @ self._points.positions) / scale
        return sums

    def pairs(self, products: Products, found: torch.Tensor | None) -> Pairs:
        """Return the moments of each pair, those that were found directly put in their places.

        Parameters
        ----------
        products : Products
            Of each feature: sum_m q_m |D_m|^2 does not follow from averaged weights. Its sums are
            used up.
        found : torch.Tensor of shape (P, r + 2) or None
            Mean, spread and log-sum of each hard pair, where there are any.

        Returns
        -------
        Pairs
        """
        sums, hard = products.sums, products.hard
        unit = self._points.unit
        # Divided first and brought to units of the data last, for no factor to leave its range.
        means = sums[:, 1:-1].div_(sums[:, :1])
        squares = self._points.counted(means.transpose(1, 2)).square().sum(2)
        spread = sums[:, -1].div_(sums[:, 0]).sub_(squares).mul_(unit**2)
        means.mul_(unit)
        if hard is not None and found is not None:
            means.transpose(1, 2)[hard], spread[hard] = found[:, :-2], found[:, -2]
        return Pairs(means, spread, products.log_sums)
