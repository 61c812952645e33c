"""Sums over points for all pairs of queries and nodes, as products of matrices.

With the logits of a pair (b, m)

    -|x_b + xi_m - x_i|^2 / 2v = [ (x_b . x_i - |x_i|^2 / 2) / v ] + [ xi_m . x_i / v ] + const(b, m),

the exponentials factorise into A[b, i] C[m, i] and the sums over i are matrix products: (B + M) N
exponentials instead of B M N. Pairs whose factors underflow, as they do when v is small compared
with the kernel's scale, are marked, so that the caller computes them directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .._utils.cached import cached_property
from .merge import Merger, Pairs
from .moments import Nodes
from .points import Points, exclude_, exp_, products

# Elements of node tables that are kept, where a sixteenth of the memory limit has room for them.
_MOST_KEPT = 2**21


@dataclass(frozen=True)
class NodeTable:
    """The factors of the exponentials that depend on the nodes; all queries use the same ones."""

    nodes: Nodes
    factors: torch.Tensor  # (M, N): exp(xi_m . x_i / v - top_m)
    top: torch.Tensor  # (M,): the exponents that were subtracted
    never_underflows: bool  # Whether no normaliser can underflow, whatever the query
    features: torch.Tensor  # (r + 2, N): 1, x_i and |x_i|^2 in units of the radius
    of_queries: torch.Tensor  # (r + 1, N): the matrix of `Points.product_matrix`
    n_queries: int  # How many queries the table will be used for

    def part(self, part: slice, n_queries: int) -> NodeTable:
        """Return a table with the nodes of a slice only, to be used for `n_queries` queries."""
        return replace(
            self,
            nodes=self.nodes[part],
            factors=self.factors[part],
            top=self.top[part],
            n_queries=n_queries,
        )

    def sums(self, query_factors: torch.Tensor, *, features: bool) -> torch.Tensor:
        """Return sums over points of query factors times node factors, (B, 1, M).

        With `features` (B, r + 2, M): these sums, and those with x_i and |x_i|^2 as further factors.
        """
        if not features:
            return (query_factors @ self.factors.T)[:, None]
        if self.n_queries < len(self.nodes):
            # The features multiply the smaller of the two factors.
            left = (query_factors[:, None, :] * self.features).flatten(0, 1)
            return (left @ self.factors.T).unflatten(0, (len(query_factors), -1))
        return (query_factors @ self._by_feature.T).unflatten(1, (-1, len(self.nodes)))

    @cached_property
    def _by_feature(self) -> torch.Tensor:
        """The factors times each feature, shape ((r + 2) M, N)."""
        return (self.features[:, None, :] * self.factors).flatten(0, 1)


@dataclass(frozen=True)
class Products:
    """Sums over the points for each pair of a query and a node of the table."""

    table: NodeTable
    factors: torch.Tensor  # (B, N): the factors of the exponentials that depend on the queries
    # (B, 1, M) or (B, r + 2, M): the normalisers, followed by the sums of the other features if
    # they were requested
    sums: torch.Tensor
    # (B, M): pairs whose normaliser underflows: it is replaced by one, and the caller must set
    # `log_sums`
    underflows: torch.Tensor | None
    exponents: Callable[[], torch.Tensor]  # (B, M): the exponents that were subtracted

    @cached_property
    def log_sums(self) -> torch.Tensor:
        """Logarithms (B, M) of sum_i w_i exp(-|x_b + xi_m - x_i|^2 / 2v); means do not need them."""
        return self.sums[:, 0].log().add_(self.exponents())


class Factoriser:
    """Computes sums over points by products of query factors and node factors."""

    def __init__(self, points: Points, memory_limit: float) -> None:
        self._points = points
        # Tables that are kept, by noise variance, and how many more elements they may have.
        self._tables: dict[float, NodeTable] = {}
        self._elements_left = min(_MOST_KEPT, int(memory_limit * 2**20 / 128))
        # Factors are kept between exp(-s) and exp(s), so that no product of two of them overflows or
        # is subnormal. That changes a term of a sum by at most 1, and N terms by no more than rounding
        # in a normaliser of at least N / eps.
        limits = torch.finfo(points.positions.dtype)
        self._log_scale = -0.42 * math.log(limits.tiny)
        self._smallest_normalizer = len(points) / limits.eps
        self._widest_range = 2 * self._log_scale - math.log(self._smallest_normalizer)

    def is_worth_trying(self, v: float, nodes: Nodes) -> bool:
        """Return whether factorising saves time and is accurate at this noise."""
        if len(nodes) == 1 or not self._points.products_are_exact(v, nodes.max_norm):
            return False
        # On a GPU the host reads no computed values, so it could not find pairs that underflow.
        return self._points.on_host or (
            2 * nodes.max_norm * self._points.radius / v < self._widest_range
        )

    def table(
        self, nodes: Nodes, v: float, n_queries: int, of_queries: torch.Tensor | None = None
    ) -> NodeTable:
        """Return the table of node factors, for use with `n_queries` queries.

        Small tables are kept for later calls with the same nodes at the same noise. `of_queries` is that
        of another table at this noise, if there is one.
        """
        kept = self._tables.get(v)
        if kept is None or kept.nodes is not nodes:
            kept = self._new_table(nodes, v, of_queries)
            size = kept.factors.numel() + kept.of_queries.numel()
            if v not in self._tables and size <= self._elements_left:
                self._elements_left -= size
                self._tables[v] = kept
        return replace(kept, n_queries=n_queries)

    def _new_table(self, nodes: Nodes, v: float, of_queries: torch.Tensor | None) -> NodeTable:
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
        if of_queries is None:
            of_queries = self._points.product_matrix(v)
        return NodeTable(nodes, factors, top[:, 0], never_underflows, features, of_queries, 0)

    def products(
        self,
        x: torch.Tensor,
        v: float,
        table: NodeTable,
        exclude: torch.Tensor | None,
        *,
        features: bool,
    ) -> Products | None:
        """Return sums over the points for queries (B, r), or None if most pairs would underflow."""
        top, factors = self._query_factors(x, table, exclude)
        underflows = sums = None
        if not table.never_underflows:
            sums = table.sums(factors, features=False)
            underflows = sums[:, 0] < self._smallest_normalizer
            if 2 * int(underflows.count_nonzero()) > underflows.numel():
                return None
        if features or sums is None:
            sums = table.sums(factors, features=features)
        if underflows is not None:
            sums[:, 0].masked_fill_(underflows, 1)
        return Products(
            table,
            factors,
            sums,
            underflows,
            lambda: top + table.top - table.nodes.half_squares(x) / v,
        )

    def products_by_part(
        self,
        x: torch.Tensor,
        v: float,
        table: NodeTable,
        which: torch.Tensor,
        counts: list[int],
        exclude: torch.Tensor | None,
    ) -> Products:
        """Return sums of each feature over the points, where each query uses one part of the node table.

        - `x` (P, r): queries, sorted by part.
        - `table`: the nodes of all parts, M for each; with `never_underflows`.
        - `which` (P,): part of each query.
        - `counts`: how many queries each part has.
        - `exclude` (P,): index of the point that each query must not use.

        The result holds sums for P queries and M nodes.
        """
        top, factors = self._query_factors(x, table, exclude)
        n_nodes = len(table.nodes) // len(counts)
        total = torch.cat(
            [
                table.part(slice(k * n_nodes, (k + 1) * n_nodes), len(own)).sums(own, features=True)
                for k, own in enumerate(factors.split(counts))
                if len(own)
            ]
        )
        positions = x[:, None] + table.nodes.offsets.unflatten(0, (-1, n_nodes))[which]
        constant = top + table.top.unflatten(0, (-1, n_nodes))[which]
        exponents = constant - positions.square().sum(2) / (2 * v)
        return Products(table, factors, total, None, lambda: exponents)

    def _query_factors(
        self, x: torch.Tensor, table: NodeTable, exclude: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the subtracted maximum (B, 1) of each query's logits, and the factors (B, N)."""
        logits = exclude_(products(x, table.of_queries), exclude)
        top = logits.amax(1, keepdim=True) - self._log_scale
        return top, exp_(logits.sub_(top), -self._log_scale)

    def average_means(
        self,
        products: Products,
        direct: torch.Tensor | None,
        merger: Merger,
        *,
        log_sums: bool = True,
    ) -> torch.Tensor:
        """Return this process's part of mean, Laplacian (`Nodes.averages`) and log-sum.

        The nodes' weights are combined first, so that each query averages the points only once.
        Without `log_sums` (in one process only) no logarithms are taken, and the last two are zero.
        Of `products.sums` only normalisers are used; `products.factors` is overwritten. `direct`
        (P, r + 2) holds mean, trace and log-sum of the pairs that underflow, if there are any.
        """
        table, underflows = products.table, products.underflows
        weights = table.nodes.weights.expand_as(products.sums[:, 0])
        averages = weights.new_zeros(len(weights), 2)
        if log_sums:
            weights, of_pairs = merger.pair_weights(products.log_sums, table.nodes.weights)
            averages = table.nodes.averages(weights, of_pairs)
        kept = weights if underflows is None else weights.masked_fill(underflows, 0)
        # Scaled back at the end, so that the products before stay in range too.
        scale = math.exp(self._log_scale)
        mixed = products.factors.mul_((kept * scale / products.sums[:, 0]) @ table.factors)
        torch.threshold_(mixed, 1 / scale, 0)
        # Transposed: a product with few columns on the left is faster than one with few on the right.
        mean = (self._points.positions.T @ mixed.T).T.div_(scale)
        if underflows is not None and direct is not None:
            weighted = weights[underflows][:, None] * direct[:, :-2]
            mean.index_add_(0, underflows.nonzero()[:, 0], weighted)
        return torch.cat([mean, averages], dim=1)

    def pairs(self, products: Products, direct: torch.Tensor | None) -> Pairs:
        """Return the moments of each pair.

        `products` has sums of each feature, which are overwritten: averaged weights do not give
        sum_m q_m |D_m|^2. `direct` (P, r + 2) holds mean, trace and log-sum of pairs that underflow.
        """
        sums, underflows = products.sums, products.underflows
        unit = self._points.unit
        # Divided first and brought to units of the data last, so that no factor leaves its range.
        means = sums[:, 1:-1].div_(sums[:, :1])
        squares = self._points.scaled_for_trace(means.transpose(1, 2)).square().sum(2)
        traces = sums[:, -1].div_(sums[:, 0]).sub_(squares).mul_(unit**2)
        means.mul_(unit)
        if underflows is not None and direct is not None:
            means.transpose(1, 2)[underflows], traces[underflows] = direct[:, :-2], direct[:, -2]
        return Pairs(means, traces, products.log_sums)
