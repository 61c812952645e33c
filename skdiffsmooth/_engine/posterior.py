"""Posterior means, traces and log-densities of noised points, averaged over kernel nodes.

Points x_1..x_N of weights w_i, under Gaussian noise of variance v, have at x the posterior weights

    W_i(x) = softmax_i( log w_i - |x - x_i|^2 / 2v ),

the posterior mean D(x) = sum_i W_i x_i and the trace tr Cov(x) = sum_i W_i |x_i|^2 - |D|^2.
Log-domain smoothing averages them over shifted queries x_b + xi_m, with one softmax for each pair
(b, m). This module chooses how a tile of pairs is computed, by its noise and its sizes: by products
of matrices where exponentials factorise, directly where these underflow, densely where points are
few. No module outside the engine depends on the choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch

from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import slices
from .._utils.progress import tracked
from .._utils.shards import ONE_PROCESS, Shards
from .direct import average_over_few_points, direct_moments, moments_of_pairs
from .factorised import Factoriser, NodeTable
from .influence import Influence, influence_of_points
from .merge import Pairs, merger_of
from .moments import Denoiser, Moments, Nodes, SingleMoments, rows_of
from .points import Points, exclude_, exp_
from .precision import FloatPromotion
from .tiles import Tiles

# If at most one in this many pairs of a query and a node is requested, each is computed as one query.
_FEW_PAIRS = 8


class Posterior(FloatPromotion, Denoiser):
    """The posterior of weighted points under Gaussian noise; a `Denoiser`.

    - `points` (N, r): the data, centred: rounding grows with the distance from the origin.
    - `log_weights` (N,): logarithms of positive weights that sum to one, over all shards.
    - `memory_limit`: bound on the temporaries of one call, in MiB.
    - `shards`: the processes over which the points are distributed. Results are those of all points.
      All processes must make the same calls, and with several of them no point can be excluded.
    - `radius`: length of the longest point, if the host knows it; otherwise it is read from the
      device.
    - `trace_weights` (r,): if given, traces are sum_j trace_weights_j Cov_jj, for example over some
      coordinates only, or in other units. Not with shards.

    Raises ValueError if `memory_limit` is below what a single query and a single node take.

    With float32, moments at noise too small for it are computed in float64, if the device has it, and
    rounded.
    When the device runs out of memory the tiles are halved until they fit, unless there are shards:
    all processes must have the same tiles.
    """

    def __init__(
        self,
        points: torch.Tensor,
        log_weights: torch.Tensor,
        *,
        memory_limit: float,
        shards: Shards = ONE_PROCESS,
        radius: float | None = None,
        trace_weights: torch.Tensor | None = None,
    ) -> None:
        if trace_weights is not None and not shards.alone:
            raise NotImplementedError("trace_weights is not supported where the data is in shards")
        super().__init__(points)
        if radius is None:
            radius = math.sqrt(float(points.square().sum(1).max()))
        self._shards = shards
        self._merger = merger_of(shards)
        self._points = Points(points, log_weights, shards.largest(radius), trace_weights)
        self._factoriser = Factoriser(self._points, memory_limit)
        self.memory_limit = memory_limit
        self._tiles = Tiles(
            self._points,
            most_points=shards.largest(len(self._points)),
            may_shrink=shards.alone,
            memory_limit=memory_limit,
            widest=8 if self._can_promote else points.element_size(),
        )

    def __len__(self) -> int:
        return self._points.n_unpadded

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Denoiser`."""
        if self._needs_float64(v, 0.0):
            return self._in_float64.log_density(x.double(), v, exclude=exclude).to(x.dtype)
        return self._tiles.retry_in_smaller_tiles(lambda: self._log_density(x, v, exclude))

    def _log_density(self, x: torch.Tensor, v: float, exclude: torch.Tensor | None) -> torch.Tensor:
        self._check_exclude(exclude)
        points = self._points
        out = x.new_empty(len(x))
        for rows in tracked(list(slices(len(x), self._tiles.rows(1)))):
            y = x[rows]
            if points.products_are_exact(v, 0.0):
                logits = points.products(y, v)
                shift: torch.Tensor | float = y.square().sum(1) / (-2 * v)
            else:
                logits = points.squared_distances(y).mul_(-0.5 / v).add_(points.log_weights)
                shift = 0.0
            top = exclude_(logits, rows_of(exclude, rows)).amax(1)
            total = exp_(logits.sub_(top[:, None]), points.negligible).sum(1)
            out[rows] = total.log() + top + shift
        return self._merger.log_sums(out) - self._log_normalizer(v, exclude)

    def moments(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """See `Denoiser`."""
        return self._promoted(x, v, nodes, exclude, trace=trace)

    def mean(
        self, x: torch.Tensor, v: float, nodes: Nodes, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Denoiser`. Logarithms are taken only where shards need them for their weights."""
        return self._promoted(x, v, nodes, exclude, log_sums=not self._shards.alone).mean

    def _promoted(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        exclude: torch.Tensor | None,
        *,
        trace: bool = False,
        log_sums: bool = True,
    ) -> Moments:
        """Return the moments, computed in float64 where float32 is not exact enough."""
        moments = None
        if not self._needs_float64(v, nodes.max_norm):
            moments = self._tiles.retry_in_smaller_tiles(
                lambda: self._moments(x, v, nodes, exclude, trace=trace, log_sums=log_sums)
            )
        if moments is None:
            nodes = nodes.to(torch.float64)
            moments = self._in_float64._promoted(
                x.double(), v, nodes, exclude, trace=trace, log_sums=log_sums
            )
        return moments.to(x.dtype)

    def _moments(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        exclude: torch.Tensor | None,
        *,
        trace: bool,
        log_sums: bool,
    ) -> Moments | None:
        """Return the moments, or None if factors underflow in float32 but not in float64.

        Without `trace` and `log_sums` only the mean is certain to be computed.
        """
        self._check_exclude(exclude)
        by_stein = trace and nodes.suits_stein(v)
        at_pairs = trace and not by_stein
        factorise = self._factoriser.is_worth_trying(v, nodes)
        sums = x.new_zeros(len(x), self._points.dimension + 2)
        of_queries = None
        for tile in tracked(list(slices(len(nodes), self._tiles.nodes(trace=at_pairs)))):
            part = nodes[tile]
            table = None  # The last tile's is freed before the next is made.
            if factorise:
                table = self._factoriser.table(part, v, len(x), of_queries)
                of_queries = table.of_queries
            # All processes must go over to float64 together.
            may_underflow = table is not None and not table.never_underflows
            if self._can_promote and self._merger.any(may_underflow):
                return None
            for rows in tracked(list(slices(len(x), self._tiles.rows(len(part))))):
                of_tile = self._tile_sums(
                    x[rows],
                    v,
                    part,
                    table,
                    rows_of(exclude, rows),
                    trace=at_pairs,
                    log_sums=log_sums,
                )
                sums[rows].add_(of_tile)
        sums = self._merger.total(sums)
        if by_stein:
            # tr Cov = v (r + v times the Laplacian of the log-density).
            sums[:, -2] = v * (self._points.dimension + v * sums[:, -2])
        return self._normalised(sums, v, trace, exclude)

    def moments_by_part(
        self,
        x: torch.Tensor,
        v: float,
        parts: Sequence[Nodes],
        which: torch.Tensor,
        counts: list[int],
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """See `Denoiser`."""
        moments = self._tiles.retry_in_smaller_tiles(
            lambda: self._all_parts(x, v, parts, which, counts, trace, exclude)
        )
        if moments is None:
            moments = super().moments_by_part(
                x, v, parts, which, counts, trace=trace, exclude=exclude
            )
        return moments

    def _all_parts(
        self,
        x: torch.Tensor,
        v: float,
        parts: Sequence[Nodes],
        which: torch.Tensor,
        counts: list[int],
        trace: bool,
        exclude: torch.Tensor | None,
    ) -> Moments | None:
        """Return the moments, or None if they do not fit into memory or factors may underflow."""
        n_nodes = len(parts[0])
        if not self._shards.alone or not self._tiles.holds_all(
            len(x), n_nodes, n_nodes * len(parts)
        ):
            return None
        offsets = torch.cat([nodes.offsets for nodes in parts])
        weights = torch.cat([nodes.weights for nodes in parts])
        nodes = Nodes(offsets, weights, max(nodes.max_norm for nodes in parts))
        if not self._factoriser.is_worth_trying(v, nodes):
            return None
        table = self._factoriser.table(nodes, v, len(x))
        if not table.never_underflows:
            return None
        products = self._factoriser.products_by_part(x, v, table, which, counts, exclude)
        pairs = self._factoriser.pairs(products, None)
        sums = self._merger.average(pairs, parts[0].weights)
        return self._normalised(sums, v, trace, exclude)

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """See `Denoiser`."""
        if self._needs_float64(v, 0.0):
            moments = self._in_float64.covariance_along(
                y.double(), v, directions.double(), exclude=exclude
            )
            return moments.to(y.dtype)
        return self._tiles.retry_in_smaller_tiles(
            lambda: self._covariance_along(y, v, directions, exclude)
        )

    def _covariance_along(
        self, y: torch.Tensor, v: float, directions: torch.Tensor, exclude: torch.Tensor | None
    ) -> SingleMoments:
        self._check_exclude(exclude)
        rank, n_directions = self._points.dimension, directions.shape[2]
        # A direction takes as much memory as a query.
        rows = max(1, self._tiles.rows(1) // (1 + n_directions))
        columns = y.new_empty(len(y), rank + 2 + rank * n_directions)
        for part in slices(len(y), self._tiles.pairs(rows)):
            columns[part] = direct_moments(
                self._points, y[part], v, 0.0, rows_of(exclude, part), rows, directions[part]
            )
        along = columns[:, rank + 2 :].unflatten(1, (rank, n_directions))
        single = SingleMoments(*_split(columns[:, : rank + 2]), along)
        single = self._merger.single(single, directions)
        log_density = single.log_density - self._log_normalizer(v, exclude)
        return single._replace(log_density=log_density)

    def influence(self, y: torch.Tensor, v: float, node_weights: torch.Tensor) -> Influence:
        """Return the influence of each point on posterior means averaged over y (B, M, r).

        `node_weights` (M,) sum to one. Results and temporaries hold (r + 1) N numbers a query.
        Computed in float64 where the device has it, since derivatives are small differences.
        """
        if self._can_promote:
            influence = self._in_float64.influence(y.double(), v, node_weights.double())
        else:
            influence = self._tiles.retry_in_smaller_tiles(
                lambda: influence_of_points(self._points, y, v, node_weights, self._tiles.rows(1))
            )
        return Influence(*(tensor[:, : len(self)].to(y.dtype) for tensor in influence))

    def _tile_sums(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        table: NodeTable | None,
        exclude: torch.Tensor | None,
        *,
        trace: bool,
        log_sums: bool,
    ) -> torch.Tensor:
        """Return this process's part of mean, trace and log-sum, averaged over a tile's nodes.

        Without `trace`, the Laplacian of `Nodes.averages` replaces the trace; without both, either
        column may be zero. Whichever way a process
        computes, it exchanges the same values with the others.
        """
        products = None
        if table is not None:
            products = self._factoriser.products(x, v, table, exclude, features=trace)
        points = self._points
        if products is None and points.are_few and points.products_are_exact(v, nodes.max_norm):
            return average_over_few_points(points, self._merger, x, v, nodes, exclude, trace=trace)
        if products is None:
            columns = self._pairs_directly(x, v, nodes, None, exclude)
            means, traces, of_pairs = _split(columns.unflatten(0, (len(x), len(nodes))))
            if trace:
                pairs = Pairs(means.transpose(1, 2), traces, of_pairs)
                return self._merger.average(pairs, nodes.weights)
            weights, of_pairs = self._merger.pair_weights(of_pairs, nodes.weights)
            mean = (weights[:, None] @ means)[:, 0]
            return torch.cat([mean, nodes.averages(weights, of_pairs)], dim=1)
        direct = None
        if products.underflows is not None:
            direct = self._pairs_directly(x, v, nodes, products.underflows, exclude)
            if trace or log_sums:
                products.log_sums[products.underflows] = direct[:, -1]
        if not trace:
            return self._factoriser.average_means(products, direct, self._merger, log_sums=log_sums)
        pairs = self._factoriser.pairs(products, direct)
        return self._merger.average(pairs, nodes.weights)

    def _pairs_directly(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        mask: torch.Tensor | None,
        exclude: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return moments (P, r + 2) of the (query, node) pairs of a mask, or of all pairs."""
        n_pairs = len(x) * len(nodes)
        # Pairs are counted last, and only on a CPU: the host would have to wait for another device.
        if (
            self._points.are_grouped
            and len(nodes) > 1
            and (mask is None or _FEW_PAIRS * int(mask.count_nonzero()) > n_pairs)
        ):
            of_pairs = moments_of_pairs(
                self._points,
                x,
                nodes.offsets,
                v,
                nodes.max_norm,
                mask,
                exclude,
                self._tiles.elements,
            )
            return of_pairs.flatten(0, 1) if mask is None else of_pairs[mask]
        if mask is None:
            pairs = torch.arange(n_pairs, device=x.device)
            queries, offsets = pairs // len(nodes), pairs % len(nodes)
        else:
            queries, offsets = mask.nonzero(as_tuple=True)
        columns = x.new_empty(len(queries), self._points.dimension + 2)
        rows = self._tiles.rows(1)
        for part in slices(len(queries), self._tiles.pairs(rows)):
            b, m = queries[part], offsets[part]
            y = x[b] + nodes.offsets[m]
            columns[part] = direct_moments(
                self._points, y, v, nodes.max_norm, rows_of(exclude, b), rows
            )
        return columns

    def _check_exclude(self, exclude: torch.Tensor | None) -> None:
        if exclude is not None and not self._shards.alone:
            raise NotImplementedError("exclude is not supported where the data is in shards")

    def _normalised(
        self, sums: torch.Tensor, v: float, trace: bool, exclude: torch.Tensor | None
    ) -> Moments:
        """Return the moments in `sums` (B, r + 2): columns of mean, then trace, then log-sum."""
        return Moments(
            mean=sums[:, :-2],
            trace=sums[:, -2] if trace else None,
            log_density=sums[:, -1] - self._log_normalizer(v, exclude),
        )

    def _log_normalizer(self, v: float, exclude: torch.Tensor | None) -> torch.Tensor | float:
        """Return log(Gaussian normaliser * weight of the points that are not excluded)."""
        gaussian = gaussian_log_normalizer(self._points.dimension, v)
        if exclude is None:
            return gaussian
        return gaussian + self._points.log_weights_of_others[exclude]

    def _is_exact(self, v: float, max_norm: float) -> bool:
        return self._points.products_are_exact(v, max_norm)

    def _copied_to_float64(self) -> Self:
        points = self._points
        return type(self)(
            points.positions.double(),
            points.log_weights.double(),
            memory_limit=self.memory_limit,
            shards=self._shards,
            radius=points.radius,
            trace_weights=None if points.trace_weights is None else points.trace_weights.double(),
        )


def _split(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split columns (..., r + 2) into mean, trace and log-sum."""
    return columns[..., :-2], columns[..., -2], columns[..., -1]
