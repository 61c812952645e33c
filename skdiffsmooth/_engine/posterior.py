"""The engine: posterior means, spreads and log-densities of noised data, averaged over kernel nodes.

Points x_1..x_N of weights w_i, seen at x through Gaussian noise of variance v, have the posterior
weights

    W_i(x) = softmax_i( log w_i - |x - x_i|^2 / 2v ),

the posterior mean D(x) = sum_i W_i x_i and the spread tr Cov(x) = sum_i W_i |x_i|^2 - |D|^2. Log-domain
smoothing averages them over shifted queries x_b + xi_m, one softmax for each pair (b, m). How a tile
of pairs is computed is decided here, by its noise and its sizes: by products of matrices where
exponentials factorise, directly where these underflow, densely where points are few. Nothing else in
the library knows how any of this is done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .._utils.gaussian import log_normalizer
from .._utils.memory import slices
from .._utils.shards import ONE_PROCESS, Shards
from .direct import average_over_few_points, direct_moments, moments_of_pairs
from .factorised import Factoriser, NodeTable
from .influence import Influence, influence_of_points
from .merge import Pairs, merger_of
from .moments import Moments, Nodes, SingleMoments, part_by_part
from .points import Points, exp_, log_weight_of_others
from .precision import FloatPromotion
from .tiles import Tiles

__all__ = ["Posterior"]

# Up to one pair in this many, pairs of a query and a node are looked at one by one.
_FEW_PAIRS = 8


class Posterior(FloatPromotion):
    """Weighted points, ready to be looked at through noise.

    Parameters
    ----------
    points : torch.Tensor of shape (N, r)
        Support of the data, centred: rounding grows with the distance from the origin.
    log_weights : torch.Tensor of shape (N,)
        Logarithms of positive weights that sum to one, over all shards.
    memory_limit : float
        Bound on the temporaries of one call, in MiB.
    shards : Shards, default=ONE_PROCESS
        Where the other points are, if these are not all: results are then those of all points, and
        all processes must make the same calls. Nothing can be left out.
    radius : float, optional
        Length of the longest point, if the host knows it; it is read from the device otherwise.
    shares : torch.Tensor of shape (r,), optional
        Makes every trace sum_j shares_j Cov_jj: of some coordinates, or in other units. Not with
        shards.

    Raises
    ------
    ValueError
        If `memory_limit` is below what a single query and a single node take.

    Notes
    -----
    In float32, noise too small for it is computed in float64, where the device has it, and rounded.
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
        shares: torch.Tensor | None = None,
    ) -> None:
        if shares is not None and not shards.alone:
            raise NotImplementedError("no trace of some coordinates where the data is in shards")
        super().__init__(points)
        if radius is None:
            radius = math.sqrt(float(points.square().sum(1).max()))
        self._shards = shards
        self._merger = merger_of(shards)
        self._points = Points(points, log_weights, shards.largest(radius), shares)
        self._factoriser = Factoriser(self._points)
        self.memory_limit = memory_limit
        self._tiles = Tiles(
            self._points,
            most_points=shards.largest(len(self._points)),
            may_shrink=shards.alone,
            memory_limit=memory_limit,
            widest=8 if self._can_promote else points.element_size(),
        )

    def __len__(self) -> int:
        return self._points.n_given

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return log p_v, the log-density of the points blurred by noise of variance v.

        Parameters
        ----------
        x : torch.Tensor of shape (B, r)
            Queries.
        v : float
            Noise variance.
        exclude : torch.Tensor of shape (B,), optional
            Index of the point to leave out for each query; the other weights are renormalised.

        Returns
        -------
        torch.Tensor of shape (B,)
            In nats.
        """
        if self._needs_float64(v, 0.0):
            return self._in_float64.log_density(x.double(), v, exclude=exclude).to(x.dtype)
        return self._tiles.fitting(lambda: self._log_density(x, v, exclude))

    def _log_density(self, x: torch.Tensor, v: float, exclude: torch.Tensor | None) -> torch.Tensor:
        self._check_exclude(exclude)
        points = self._points
        out = x.new_empty(len(x))
        for rows in slices(len(x), self._tiles.rows(1)):
            y = x[rows]
            if points.products_are_exact(v, 0.0):
                logits = points.products(y, v)
                shift: torch.Tensor | float = y.square().sum(1) / (-2 * v)
            else:
                logits = points.squared_distances(y).mul_(-0.5 / v).add_(points.log_weights)
                shift = 0.0
            if exclude is not None:
                logits.scatter_(1, exclude[rows, None], -math.inf)
            top = logits.amax(1)
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
        """Return posterior mean, spread and log-density averaged over the nodes.

        Parameters
        ----------
        x : torch.Tensor of shape (B, r)
            Queries.
        v : float
            Noise variance.
        nodes : Nodes
            The smoothing kernel's quadrature rule.
        trace : bool, default=False
            Whether to compute the spread too: about (r + 2) / 2 times the work of the mean.
        exclude : torch.Tensor of shape (B,), optional
            Index of the point to leave out for each query; the other weights are renormalised.

        Returns
        -------
        Moments
        """
        found = None
        if not self._needs_float64(v, nodes.reach):
            found = self._tiles.fitting(
                lambda: self._moments(x, v, nodes, trace=trace, exclude=exclude)
            )
        if found is None:
            nodes = nodes.to(torch.float64)
            found = self._in_float64.moments(x.double(), v, nodes, trace=trace, exclude=exclude)
        return found.to(x.dtype)

    def _moments(
        self, x: torch.Tensor, v: float, nodes: Nodes, *, trace: bool, exclude: torch.Tensor | None
    ) -> Moments | None:
        """Return the moments, or None where factors underflow in float32 that would not in float64."""
        self._check_exclude(exclude)
        factorise = self._factoriser.is_worth_trying(v, nodes)
        sums = x.new_zeros(len(x), self._points.dimension + 2)
        for tile in slices(len(nodes), self._tiles.nodes(trace=trace)):
            part = nodes[tile]
            table = self._factoriser.table(part, v, len(x)) if factorise else None
            # What one process computes in float64, all must.
            may_underflow = table is not None and not table.never_underflows
            if self._can_promote and self._merger.any(may_underflow):
                return None
            for rows in slices(len(x), self._tiles.rows(len(part))):
                left_out = None if exclude is None else exclude[rows]
                sums[rows] += self._tile_sums(x[rows], v, part, table, left_out, trace=trace)
        return self._normalised(self._merger.total(sums), v, trace, exclude)

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
        """Return moments of queries that do not all have the same nodes.

        Where there is little to do for each part, all parts are done at once: starting work would be
        most of it.

        Parameters
        ----------
        x : torch.Tensor of shape (P, r)
            Queries, sorted by part.
        v : float
            Noise variance.
        parts : sequence of Nodes
            As many nodes in each, of the same weights.
        which : torch.Tensor of shape (P,)
            Part of each query.
        counts : list of int
            How many queries each part has: the same on the host, which cuts by them.
        trace : bool, default=False
            Whether to compute the spread too.
        exclude : torch.Tensor of shape (P,), optional
            Index of the point to leave out for each query; the other weights are renormalised.

        Returns
        -------
        Moments
        """
        found = self._tiles.fitting(
            lambda: self._all_parts(x, v, parts, which, counts, trace, exclude)
        )
        if found is None:
            found = part_by_part(self, x, v, parts, counts, trace=trace, exclude=exclude)
        return found

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
        """Return the moments, or None where they are too many to hold, or factors may underflow."""
        n_nodes = len(parts[0])
        if not self._shards.alone or not self._tiles.holds_all(
            len(x), n_nodes, n_nodes * len(parts)
        ):
            return None
        offsets = torch.cat([nodes.offsets for nodes in parts])
        weights = torch.cat([nodes.weights for nodes in parts])
        nodes = Nodes(offsets, weights, max(nodes.reach for nodes in parts))
        if not self._factoriser.is_worth_trying(v, nodes):
            return None
        table = self._factoriser.table(nodes, v, len(x))
        if not table.never_underflows:
            return None
        products = self._factoriser.products_by_part(x, v, table, which, counts, exclude)
        pairs = self._factoriser.pairs(products, None)
        sums = self._merger.average(pairs, parts[0].weights, trace=True)
        return self._normalised(sums, v, trace, exclude)

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """Return the moments of single queries, and their covariances along given directions.

        Each query has a softmax of its own, N exponentials where those of shared nodes factorise:
        this is for queries that no quadrature rule shares.

        Parameters
        ----------
        y : torch.Tensor of shape (B, r)
            Queries, in the precision of the points or in that of `precision_at`.
        v : float
            Noise variance.
        directions : torch.Tensor of shape (B, r, j)
            What to multiply each query's posterior covariance with; j may be zero.
        exclude : torch.Tensor of shape (B,), optional
            Index of the point to leave out for each query; the other weights are renormalised.

        Returns
        -------
        SingleMoments
            In the precision of `y`.
        """
        if self._needs_float64(v, 0.0):
            found = self._in_float64.covariance_along(
                y.double(), v, directions.double(), exclude=exclude
            )
            return found.to(y.dtype)
        return self._tiles.fitting(lambda: self._covariance_along(y, v, directions, exclude))

    def _covariance_along(
        self, y: torch.Tensor, v: float, directions: torch.Tensor, exclude: torch.Tensor | None
    ) -> SingleMoments:
        self._check_exclude(exclude)
        rank, n_directions = self._points.dimension, directions.shape[2]
        # A direction takes what a query takes.
        rows = max(1, self._tiles.rows(1) // (1 + n_directions))
        found = y.new_empty(len(y), rank + 2 + rank * n_directions)
        for part in slices(len(y), self._tiles.pairs(rows)):
            unseen = None if exclude is None else exclude[part]
            found[part] = direct_moments(
                self._points, y[part], v, 0.0, unseen, rows, directions[part]
            )
        along = found[:, rank + 2 :].unflatten(1, (rank, n_directions))
        single = SingleMoments(*_columns(found[:, : rank + 2]), along)
        single = self._merger.single(single, directions)
        log_density = single.log_density - self._log_normalizer(v, exclude)
        return single._replace(log_density=log_density)

    def influence(self, y: torch.Tensor, v: float, shares: torch.Tensor) -> Influence:
        """Return how much each point counts in posterior means averaged over places.

        Results hold (r + 1) N numbers for each query, and as many again on the way: ask for few at
        once. In float64 where the device has it, since pulls are small differences.

        Parameters
        ----------
        y : torch.Tensor of shape (B, M, r)
            Places of each query.
        v : float
            Noise variance.
        shares : torch.Tensor of shape (M,)
            Their shares, summing to one.

        Returns
        -------
        Influence
            Of each point, in the precision of `y`.
        """
        if self._can_promote:
            found = self._in_float64.influence(y.double(), v, shares.double())
        else:
            found = self._tiles.fitting(
                lambda: influence_of_points(self._points, y, v, shares, self._tiles.rows(1))
            )
        return Influence(*(tensor[:, : len(self)].to(y.dtype) for tensor in found))

    def _tile_sums(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        table: NodeTable | None,
        left_out: torch.Tensor | None,
        *,
        trace: bool,
    ) -> torch.Tensor:
        """Return this process's part of mean, spread and log-sum, averaged over a tile's nodes.

        Whatever the points of a process have it do here, the exchanges with the others are the same.
        """
        products = None
        if table is not None:
            products = self._factoriser.products(x, v, table, left_out, features=trace)
        points = self._points
        if products is None and points.are_few and points.products_are_exact(v, nodes.reach):
            return average_over_few_points(points, self._merger, x, v, nodes, left_out, trace=trace)
        if products is None:
            everything = self._look_directly(x, v, nodes, None, left_out)
            means, spread, log_sums = _columns(everything.unflatten(0, (len(x), len(nodes))))
            pairs = Pairs(means.transpose(1, 2), spread, log_sums)
            return self._merger.average(pairs, nodes.weights, trace=trace)
        found = None
        if products.hard is not None:
            found = self._look_directly(x, v, nodes, products.hard, left_out)
            products.log_sums[products.hard] = found[:, -1]
        if not trace:
            return self._factoriser.mixed(products, found, self._merger)
        pairs = self._factoriser.pairs(products, found)
        return self._merger.average(pairs, nodes.weights, trace=True)

    def _look_directly(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        mask: torch.Tensor | None,
        left_out: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return moments of the (query, node) pairs of a mask, or of all, each its own softmax."""
        n_pairs = len(x) * len(nodes)
        # Asked last, and never of a device, which would have to be waited for.
        if (
            self._points.are_grouped
            and len(nodes) > 1
            and (mask is None or _FEW_PAIRS * int(mask.count_nonzero()) > n_pairs)
        ):
            everything = moments_of_pairs(
                self._points,
                x,
                nodes.offsets,
                v,
                nodes.reach,
                mask,
                left_out,
                self._tiles.elements,
            )
            return everything.flatten(0, 1) if mask is None else everything[mask]
        if mask is None:
            pairs = torch.arange(n_pairs, device=x.device)
            queries, offsets = pairs // len(nodes), pairs % len(nodes)
        else:
            queries, offsets = mask.nonzero(as_tuple=True)
        found = x.new_empty(len(queries), self._points.dimension + 2)
        rows = self._tiles.rows(1)
        for part in slices(len(queries), self._tiles.pairs(rows)):
            b, m = queries[part], offsets[part]
            unseen = None if left_out is None else left_out[b]
            y = x[b] + nodes.offsets[m]
            found[part] = direct_moments(self._points, y, v, nodes.reach, unseen, rows)
        return found

    def _check_exclude(self, exclude: torch.Tensor | None) -> None:
        if exclude is not None and not self._shards.alone:
            raise NotImplementedError("no point can be left out where the data is in shards")

    def _normalised(
        self, sums: torch.Tensor, v: float, trace: bool, exclude: torch.Tensor | None
    ) -> Moments:
        """Return averages of mean, spread and log-sum as moments."""
        return Moments(
            mean=sums[:, :-2],
            trace=sums[:, -2] if trace else None,
            log_density=sums[:, -1] - self._log_normalizer(v, exclude),
        )

    def _log_normalizer(self, v: float, exclude: torch.Tensor | None) -> torch.Tensor | float:
        """Log of the Gaussian's normaliser and of the weight that is left."""
        gaussian = log_normalizer(self._points.dimension, math.sqrt(v))
        if exclude is None:
            return gaussian
        return gaussian + log_weight_of_others(self._points.log_weights)[exclude]

    def _is_exact(self, v: float, max_norm: float) -> bool:
        return self._points.products_are_exact(v, max_norm)

    def _copied_to_float64(self) -> Posterior:
        points = self._points
        return Posterior(
            points.positions.double(),
            points.log_weights.double(),
            memory_limit=self.memory_limit,
            shards=self._shards,
            radius=points.radius,
            shares=None if points.shares is None else points.shares.double(),
        )


def _columns(found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split what is known of each pair into mean, spread and log-sum."""
    return found[..., :-2], found[..., -2], found[..., -1]
