"""The engine: posterior means, spreads and log-densities of noised data, averaged over kernel nodes.

Points x_1..x_N of weights w_i, seen at x through Gaussian noise of variance v, have the posterior
weights

    W_i(x) = softmax_i( log w_i - |x - x_i|^2 / 2v ),

the posterior mean D(x) = sum_i W_i x_i and the spread tr Cov(x) = sum_i W_i |x_i|^2 - |D|^2. Log-domain
smoothing averages them over shifted queries x_b + xi_m, one softmax for each pair (b, m). Since

    -|x_b + xi_m - x_i|^2 / 2v = [ (x_b . x_i - |x_i|^2 / 2) / v ] + [ xi_m . x_i / v ] + const(b, m),

the exponentials factorise into A[b, i] C[m, i] and the sums over i are matrix products: (B + M) N
exponentials where the direct way takes B M N. Pairs whose factors underflow, as they do when v is
small against the kernel's scale, are computed directly. Nothing else in the library knows how any of
this is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

import torch

from ._direct import direct_moments, moments_of_pairs
from ._groups import GROUP
from ._influence import Influence, influence_of_points
from ._points import Points, exp_, log_weight_of_others, slices
from ._shards import ONE_PROCESS, Pairs, Shards

__all__ = ["Denoiser", "Moments", "Nodes", "Posterior", "SingleMoments"]

# Elements of a tile's widest matrix: enough work to pay for starting threads, small enough that what
# one operation makes is still in the cache for the next (of 2^15 to 2^20, the largest was fastest).
_TILE = 2**20

# But as many queries as this up to a larger size: products of matrices of a few rows are all reading
# and no arithmetic. Beyond 32 MiB memory is taken from the system, and cleared, for every matrix.
_ENOUGH_ROWS = 64
_LARGEST_TILE = 2**22

# Up to one pair in this many, pairs of a query and a node are looked at one by one.
_FEW_PAIRS = 8

# A GPU wants enough work to fill it and has no such cache: on an H100 tiles of 2^26 are 8 to 18 times
# as fast as those above.
_TILE_ON_GPU = 2**26

Result = TypeVar("Result")


@dataclass(frozen=True)
class Nodes:
    """A quadrature rule for the smoothing kernel.

    Parameters
    ----------
    offsets : torch.Tensor of shape (M, r)
        Shifts xi_m of the query, with sum_m weights[m] xi_m = 0.
    weights : torch.Tensor of shape (M,)
        Positive, summing to one.
    reach : float
        Length of the longest offset, on the host, where decisions are made.
    """

    offsets: torch.Tensor
    weights: torch.Tensor
    reach: float

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, part: slice) -> Nodes:
        return Nodes(self.offsets[part], self.weights[part], self.reach)


@dataclass(frozen=True)
class Moments:
    """What the points say about a batch of queries, averaged over the nodes.

    Parameters
    ----------
    mean : torch.Tensor of shape (B, r)
        sum_m q_m D(x_b + xi_m).
    trace : torch.Tensor of shape (B,) or None
        sum_m q_m tr Cov(x_b + xi_m), where it was asked for.
    log_density : torch.Tensor of shape (B,)
        sum_m q_m log p_v(x_b + xi_m) in nats.
    """

    mean: torch.Tensor
    trace: torch.Tensor | None
    log_density: torch.Tensor

    def to(self, dtype: torch.dtype) -> Moments:
        """Return the same numbers in another precision."""
        trace = None if self.trace is None else self.trace.to(dtype)
        return Moments(self.mean.to(dtype), trace, self.log_density.to(dtype))


class SingleMoments(NamedTuple):
    """What the points say about single queries, each with directions of its own.

    Parameters
    ----------
    mean : torch.Tensor of shape (B, r)
        D(y_b).
    trace : torch.Tensor of shape (B,)
        tr Cov(y_b).
    log_density : torch.Tensor of shape (B,)
        log p_v(y_b) in nats.
    along : torch.Tensor of shape (B, r, j)
        Cov(y_b) @ directions_b.
    """

    mean: torch.Tensor
    trace: torch.Tensor
    log_density: torch.Tensor
    along: torch.Tensor


class Denoiser(Protocol):
    """What score fields ask of a law seen through noise, be it points or a mixture of Gaussians.

    With y a place, D(y) and Cov(y) are mean and covariance of the law's own draws given that noise of
    variance v brought them there; p_v is the law of the places. Where the law is made of parts,
    `exclude` names the one that each query does not see.
    """

    memory_limit: float

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return log p_v in nats, shape (B,)."""
        ...

    def moments(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """Return D, tr Cov and log p_v, averaged over shifts of the queries."""
        ...

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """Return D, tr Cov, log p_v and Cov times directions (B, r, j) of single queries."""
        ...

    def precision_at(self, v: float) -> torch.dtype:
        """Return the precision in which queries at this noise are worth having."""
        ...


@dataclass(frozen=True)
class _NodeTable:
    """The node half of the factorised exponentials, shared by all queries.

    `factors` (M, N) holds exp(xi_m . x_i / v - top_m).
    """

    nodes: Nodes
    factors: torch.Tensor
    top: torch.Tensor
    never_underflows: bool
    features: torch.Tensor
    n_queries: int

    def sums(self, query_factors: torch.Tensor, *, features: bool) -> torch.Tensor:
        """Sum products of both halves over the points, times each feature or times one alone.

        Parameters
        ----------
        query_factors : torch.Tensor of shape (B, N)
            The other half, for some of the queries.
        features : bool
            Whether to sum each feature: 1, x_i and |x_i|^2 in units of the radius.

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
        return (query_factors @ self.by_feature.T).unflatten(1, (-1, len(self.nodes)))

    @cached_property
    def by_feature(self) -> torch.Tensor:
        """The factors times 1, x_i and |x_i|^2 in units of the radius: ((r + 2) M, N)."""
        return (self.features[:, None, :] * self.factors).flatten(0, 1)


@dataclass(frozen=True)
class _Factorised:
    """Sums over the points for a tile of queries and nodes, by matrix products.

    `factors` (B, N) is the query half of the exponentials; `sums` (B, 1 or r + 2, M) holds the
    normalisers, with the other features below them where they were asked for; `log_sums` is (B, M).
    Pairs that `hard` marks have a normaliser of one in place of their own, which underflows.
    """

    table: _NodeTable
    factors: torch.Tensor
    sums: torch.Tensor
    log_sums: torch.Tensor
    hard: torch.Tensor | None


class Posterior:
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
        self.shards = shards
        self._n_points = len(points)
        self._points = Points(points, log_weights, shards, radius, shares)
        # Tiles are cut for the largest shard, so that all processes exchange the same ones.
        self._most_points = shards.largest(len(self._points))
        self.memory_limit = memory_limit
        self._double: Posterior | None = None
        # Factors are kept between exp(-s) and exp(s), so that no product of two of them overflows or
        # is subnormal. What that changes in a sum is at most 1 a term, so N of them are rounding in
        # a normaliser of at least N / eps.
        limits = torch.finfo(points.dtype)
        self._log_scale = -0.42 * math.log(limits.tiny)
        self._smallest_normalizer = len(self._points) / limits.eps
        self._widest_range = 2 * self._log_scale - math.log(self._smallest_normalizer)
        self._tile, self._largest_tile = _TILE, _LARGEST_TILE
        if points.device.type != "cpu":
            self._tile = self._largest_tile = _TILE_ON_GPU
        self._budget = int(memory_limit * 2**20 / points.element_size())
        smallest = 2 * max(self._elements_per_node(True), self._elements_per_row(1))
        # The tile must fit in the precision that is gone to at low noise, too.
        width = 8 if self._has_double else points.element_size()
        if memory_limit * 2**20 < smallest * width:
            raise ValueError(
                f"memory_limit={memory_limit:g} (MiB) is too small for one tile: {len(points)} "
                f"points in {points.shape[1]} dimensions need at least "
                f"{smallest * width / 2**20:.2g} MiB. Raise memory_limit."
            )

    def __len__(self) -> int:
        return self._n_points

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
        if self._needs_double(v, 0.0):
            return self._in_double().log_density(x.double(), v, exclude=exclude).to(x.dtype)
        return self._in_smaller_tiles_if_needed(lambda: self._log_density(x, v, exclude))

    def _log_density(self, x: torch.Tensor, v: float, exclude: torch.Tensor | None) -> torch.Tensor:
        self._check_exclude(exclude)
        points = self._points
        out = x.new_empty(len(x))
        for rows in slices(len(x), self._rows_per_tile(1)):
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
        return self.shards.log_sum_exp(out) - self._log_normalizer(v, exclude)

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
        if not self._needs_double(v, nodes.reach):
            found = self._in_smaller_tiles_if_needed(
                lambda: self._moments(x, v, nodes, trace=trace, exclude=exclude)
            )
        if found is None:
            double = Nodes(nodes.offsets.double(), nodes.weights.double(), nodes.reach)
            found = self._in_double().moments(x.double(), v, double, trace=trace, exclude=exclude)
        return found.to(x.dtype)

    def _moments(
        self, x: torch.Tensor, v: float, nodes: Nodes, *, trace: bool, exclude: torch.Tensor | None
    ) -> Moments | None:
        """Return the moments, or None where factors underflow in float32 that would not in float64."""
        self._check_exclude(exclude)
        factorise = len(nodes) > 1 and self._points.products_are_exact(v, nodes.reach)
        if not self._decides_by_data:
            factorise &= 2 * nodes.reach * self._points.radius / v < self._widest_range
        sums = x.new_zeros(len(x), self._points.dimension + 2)
        for tile in slices(len(nodes), self._budget // 2 // self._elements_per_node(trace)):
            part = nodes[tile]
            table = self._node_table(part, v, len(x)) if factorise else None
            # What one process computes in float64, all must.
            may_underflow = table is not None and not table.never_underflows
            if self._has_double and self.shards.largest(may_underflow):
                return None
            for rows in slices(len(x), self._rows_per_tile(len(part))):
                left_out = None if exclude is None else exclude[rows]
                sums[rows] += self._tile_sums(x[rows], v, part, table, left_out, trace=trace)
        sums = self.shards.reduce_(sums, "sum")
        return Moments(
            mean=sums[:, :-2],
            trace=sums[:, -2] if trace else None,
            log_density=sums[:, -1] - self._log_normalizer(v, exclude),
        )

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
        if self._needs_double(v, 0.0):
            double = self._in_double()
            found = double.covariance_along(y.double(), v, directions.double(), exclude=exclude)
            return SingleMoments(*(tensor.to(y.dtype) for tensor in found))
        return self._in_smaller_tiles_if_needed(
            lambda: self._covariance_along(y, v, directions, exclude)
        )

    def _covariance_along(
        self, y: torch.Tensor, v: float, directions: torch.Tensor, exclude: torch.Tensor | None
    ) -> SingleMoments:
        self._check_exclude(exclude)
        rank, n_directions = self._points.dimension, directions.shape[2]
        # A direction takes what a query takes.
        rows = max(1, self._rows_per_tile(1) // (1 + n_directions))
        found = y.new_empty(len(y), rank + 2 + rank * n_directions)
        for part in slices(len(y), self._pairs_at_once(rows)):
            unseen = None if exclude is None else exclude[part]
            found[part] = direct_moments(
                self._points, y[part], v, 0.0, unseen, rows, directions[part]
            )
        single = SingleMoments(*_columns(found[:, : rank + 2]), found[:, rank + 2 :])
        along = single.along.unflatten(1, (rank, n_directions))
        single = SingleMoments(*self.shards.pool(*single[:3], along, directions))
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
        if self._has_double:
            found = self._in_double().influence(y.double(), v, shares.double())
        else:
            found = self._in_smaller_tiles_if_needed(
                lambda: influence_of_points(self._points, y, v, shares, self._rows_per_tile(1))
            )
        return Influence(*(tensor[:, : len(self)].to(y.dtype) for tensor in found))

    def precision_at(self, v: float) -> torch.dtype:
        """Return the precision in which queries at this noise are worth having.

        Parameters
        ----------
        v : float
            Noise variance.

        Returns
        -------
        torch.dtype
            That of the points, or float64 where exponents are beyond it.
        """
        return torch.float64 if self._needs_double(v, 0.0) else self._points.positions.dtype

    def _tile_sums(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        table: _NodeTable | None,
        left_out: torch.Tensor | None,
        *,
        trace: bool,
    ) -> torch.Tensor:
        """Return this process's part of mean, spread and log-sum, averaged over a tile's nodes.

        Whatever the points of a process have it do here, the exchanges with the others are the same.
        """
        factorised = None
        if table is not None:
            factorised = self._factorise(x, v, table, left_out, trace=trace)
        if factorised is None and self._are_few and self._points.products_are_exact(v, nodes.reach):
            return self._over_few_points(x, v, nodes, left_out, trace=trace)
        if factorised is None:
            everything = self._look_directly(x, v, nodes, None, left_out)
            means, spread, log_sums = _columns(everything.unflatten(0, (len(x), len(nodes))))
            pairs = Pairs(means.transpose(1, 2), spread, log_sums)
            return self.shards.average(pairs, nodes.weights, trace=trace)
        found = None
        if factorised.hard is not None:
            found = self._look_directly(x, v, nodes, factorised.hard, left_out)
            factorised.log_sums[factorised.hard] = found[:, -1]
        if not trace:
            return self._mix(factorised, found)
        pairs = self._pairs(factorised, found)
        return self.shards.average(pairs, nodes.weights, trace=True)

    def _node_table(self, nodes: Nodes, v: float, n_queries: int) -> _NodeTable:
        """Exponentiate the node half of the logits, once for all queries."""
        exponents = (nodes.offsets / v) @ self._points.positions.T
        top = exponents.amax(1, keepdim=True)
        # Whatever the query, a normaliser is at least exp(2s - range of its node's exponents).
        never_underflows = True
        if self._decides_by_data:
            widest = float((top - exponents.amin(1, keepdim=True)).max())
            never_underflows = widest < self._widest_range
        top -= self._log_scale
        factors = exp_(exponents.sub_(top), -self._log_scale)
        features = self._points.features
        return _NodeTable(nodes, factors, top[:, 0], never_underflows, features, n_queries)

    def _factorise(
        self,
        x: torch.Tensor,
        v: float,
        table: _NodeTable,
        left_out: torch.Tensor | None,
        *,
        trace: bool,
    ) -> _Factorised | None:
        """Sum over the points by matrix products, or return None if most pairs would underflow."""
        logits = self._points.products(x, v)
        if left_out is not None:
            logits.scatter_(1, left_out[:, None], -math.inf)
        top = logits.amax(1, keepdim=True) - self._log_scale
        factors = exp_(logits.sub_(top), -self._log_scale)
        hard = sums = None
        if not table.never_underflows:
            sums = table.sums(factors, features=False)
            hard = sums[:, 0] < self._smallest_normalizer
            if 2 * int(hard.count_nonzero()) > hard.numel():
                return None

        # Sums over the points: of the weights alone or, where each node's own mean and second moment
        # are needed (sum_m q_m |D_m|^2 does not follow from averaged weights), of all features.
        if trace or sums is None:
            sums = table.sums(factors, features=trace)
        if hard is not None:
            sums[:, 0].masked_fill_(hard, 1)
        log_sums = sums[:, 0].log() + top + table.top - self._half_squares(x, table.nodes) / v
        return _Factorised(table, factors, sums, log_sums, hard)

    @staticmethod
    def _half_squares(x: torch.Tensor, nodes: Nodes) -> torch.Tensor:
        """Return |x_b + xi_m|^2 / 2, (B, M)."""
        squares = x.square().sum(1, keepdim=True) + nodes.offsets.square().sum(1)
        return 0.5 * squares + x @ nodes.offsets.T

    def _mix(self, factorised: _Factorised, found: torch.Tensor | None) -> torch.Tensor:
        """Average the points once for each query, under weights that the nodes have mixed before."""
        table, hard = factorised.table, factorised.hard
        shares, log_sums = self.shards.merge(factorised.log_sums)
        weights = (table.nodes.weights * shares).expand_as(log_sums)
        sums = log_sums.new_zeros(len(log_sums), self._points.dimension + 2)
        sums[:, -1] = (weights * log_sums).sum(1)
        if hard is not None and found is not None:
            directly = weights[hard][:, None] * found[:, :-2]
            sums[:, :-2].index_add_(0, hard.nonzero()[:, 0], directly)
            weights = weights.masked_fill(hard, 0)
        # The scale is put back at the end, for the products on the way to stay in range too.
        scale = math.exp(self._log_scale)
        mixed = factorised.factors.mul_((weights * scale / factorised.sums[:, 0]) @ table.factors)
        mixed.masked_fill_(mixed < 1 / scale, 0)
        sums[:, :-2] += (mixed @ self._points.positions) / scale
        return sums

    def _pairs(self, factorised: _Factorised, found: torch.Tensor | None) -> Pairs:
        """Return the moments of each pair, those that were found directly put in their places."""
        sums, hard = factorised.sums, factorised.hard
        unit = self._points.unit
        # Divided first and brought to units of the data last, for no factor to leave its range.
        means = sums[:, 1:-1].div_(sums[:, :1])
        squares = self._points.counted(means.transpose(1, 2)).square().sum(2)
        spread = sums[:, -1].div_(sums[:, 0]).sub_(squares).mul_(unit**2)
        means.mul_(unit)
        if hard is not None and found is not None:
            direct_means, spread[hard], _ = _columns(found)
            means.transpose(1, 2)[hard] = direct_means
        return Pairs(means, spread, factorised.log_sums)

    def _over_few_points(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        left_out: torch.Tensor | None,
        *,
        trace: bool,
    ) -> torch.Tensor:
        """Return the same where exponentials of all pairs and points take no more than their sums."""
        points = self._points
        of_queries = points.products(x, v)
        if left_out is not None:
            of_queries.scatter_(1, left_out[:, None], -math.inf)
        logits = of_queries[:, None] + (nodes.offsets / v) @ points.positions.T
        top = logits.amax(2, keepdim=True)
        factors = exp_(logits.sub_(top), points.negligible)
        normalizer = factors.sum(2)
        factors /= normalizer[..., None]
        log_sums = normalizer.log() + top[..., 0] - self._half_squares(x, nodes) / v
        if trace:
            means = factors @ points.positions
            squares = points.counted(points.positions).square().sum(1)
            spread = factors @ squares - points.counted(means).square().sum(2)
            pairs = Pairs(means.transpose(1, 2), spread, log_sums)
            return self.shards.average(pairs, nodes.weights, trace=True)
        shares, log_sums = self.shards.merge(log_sums)
        weights = (nodes.weights * shares).expand_as(log_sums)
        mean = (weights[:, None] @ factors)[:, 0] @ points.positions
        log_density = (weights * log_sums).sum(1, keepdim=True)
        return torch.cat([mean, torch.zeros_like(log_density), log_density], dim=1)

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
                self._elements_at_once,
            )
            return everything.flatten(0, 1) if mask is None else everything[mask]
        if mask is None:
            pairs = torch.arange(n_pairs, device=x.device)
            queries, offsets = pairs // len(nodes), pairs % len(nodes)
        else:
            queries, offsets = mask.nonzero(as_tuple=True)
        found = x.new_empty(len(queries), self._points.dimension + 2)
        rows = self._rows_per_tile(1)
        for part in slices(len(queries), self._pairs_at_once(rows)):
            b, m = queries[part], offsets[part]
            unseen = None if left_out is None else left_out[b]
            y = x[b] + nodes.offsets[m]
            found[part] = direct_moments(self._points, y, v, nodes.reach, unseen, rows)
        return found

    def _check_exclude(self, exclude: torch.Tensor | None) -> None:
        if exclude is not None and not self.shards.alone:
            raise NotImplementedError("no point can be left out where the data is in shards")

    def _log_normalizer(self, v: float, exclude: torch.Tensor | None) -> torch.Tensor | float:
        """Log of the Gaussian's normaliser and of the weight that is left."""
        gaussian = 0.5 * self._points.dimension * math.log(2 * math.pi * v)
        if exclude is None:
            return gaussian
        return gaussian + log_weight_of_others(self._points.log_weights)[exclude]

    @property
    def _decides_by_data(self) -> bool:
        """Tell whether numbers may be looked at on the way: other devices would have to be awaited."""
        return self._points.positions.device.type == "cpu"

    @property
    def _has_double(self) -> bool:
        """Tell whether there is a higher precision to go to."""
        positions = self._points.positions
        return positions.dtype == torch.float32 and positions.device.type != "mps"

    def _needs_double(self, v: float, reach: float) -> bool:
        """Tell whether exponents of this noise are beyond float32 and float64 is at hand."""
        return self._has_double and not self._points.products_are_exact(v, reach)

    def _in_double(self) -> Posterior:
        if self._double is None:
            self._double = Posterior(
                self._points.positions.double(),
                self._points.log_weights.double(),
                memory_limit=self.memory_limit,
                shards=self.shards,
                radius=self._points.radius,
                shares=None if self._points.shares is None else self._points.shares.double(),
            )
        return self._double

    def _in_smaller_tiles_if_needed(self, compute: Callable[[], Result]) -> Result:
        """Run, and once more in smaller tiles each time the device has no memory left."""
        while True:
            try:
                return compute()
            except RuntimeError as error:
                if not _is_out_of_memory(error) or not self.shards.alone:
                    raise
                smaller = self._budget // 2
                if smaller < 2 * max(self._elements_per_node(True), self._elements_per_row(1)):
                    raise MemoryError(
                        f"device {self._points.positions.device} has no memory left, even for the "
                        f"smallest tile over {len(self._points)} points in {self._points.dimension} "
                        "dimensions. Free memory there, use another device, or dtype='float32'."
                    ) from error
            self._budget = smaller
            self._tile, self._largest_tile = max(1, self._tile // 2), self._largest_tile // 2

    @property
    def _are_few(self) -> bool:
        """Tell whether a number for each point is no more than one for each feature, about."""
        return len(self._points) <= 2 * (self._points.dimension + 2)

    def _elements_per_node(self, trace: bool) -> int:
        """Numbers held for each node of a table: one for a point, or one for each of its features."""
        return (self._points.dimension + 4 if trace else 2) * self._most_points

    @property
    def _elements_per_pair(self) -> int:
        """Numbers held for each pair that is computed directly: a word on each group of points."""
        return max(1, len(self._points) // GROUP) + 2 * (self._points.dimension + 2)

    def _elements_per_row(self, n_nodes: int) -> int:
        """Numbers held for each query of a tile: four rows of logits, four of node averages."""
        return 4 * self._most_points + 4 * (self._points.dimension + 2) * n_nodes

    @property
    def _elements_at_once(self) -> int:
        """Numbers held while many pairs are computed directly."""
        return max(1, min(self._budget // 8, 4 * self._tile))

    def _pairs_at_once(self, rows: int) -> int:
        """Count queries to find groups of points for at once; `rows` have a matrix of all logits."""
        within_budget = self._budget // 8 // self._elements_per_pair
        return min(within_budget, max(rows, self._tile // self._elements_per_pair))

    def _rows_per_tile(self, n_nodes: int) -> int:
        within_budget = self._budget // 2 // self._elements_per_row(n_nodes)
        widest = max(self._most_points, (self._points.dimension + 2) * n_nodes)
        enough = min(_ENOUGH_ROWS, self._largest_tile // widest)
        return max(1, min(within_budget, max(enough, self._tile // widest)))


def _columns(found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split what is known of each pair into mean, spread and log-sum."""
    return found[..., :-2], found[..., -2], found[..., -1]


def _is_out_of_memory(error: BaseException) -> bool:
    # On a CPU, on MPS and inside cuBLAS torch raises a plain RuntimeError that says so.
    signs = "allocate memory", "out of memory", "ALLOC_FAILED"
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        sign in str(error) for sign in signs
    )
