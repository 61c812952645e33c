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
from collections.abc import Iterator
from dataclasses import dataclass

import torch

__all__ = ["Moments", "Nodes", "Posterior", "log_weight_of_others"]

# Exponents are differences of products of size R^2 / v. Where their rounding could exceed this many
# nats, squared distances are summed from coordinate differences instead: slower, right at any v.
_EXPONENT_ERROR = {torch.float64: 1e-10, torch.float32: 1e-3}

# Elements of a tile's widest matrix: enough work to pay for starting threads, small enough that what
# one operation makes is still in the cache for the next (of 2^15 to 2^20, the largest was fastest).
_TILE = 2**20


@dataclass(frozen=True)
class Nodes:
    """A quadrature rule for the smoothing kernel.

    Parameters
    ----------
    offsets : torch.Tensor of shape (M, r)
        Shifts xi_m of the query, with sum_m weights[m] xi_m = 0.
    weights : torch.Tensor of shape (M,)
        Positive, summing to one.
    """

    offsets: torch.Tensor
    weights: torch.Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, part: slice) -> Nodes:
        return Nodes(self.offsets[part], self.weights[part])


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


@dataclass(frozen=True)
class _NodeTable:
    """The node half of the factorised exponentials, shared by all queries.

    `factors` (M, N) holds exp(xi_m . x_i / v - top_m); `by_feature` ((r + 2) M, N) the same times 1,
    x_i and |x_i|^2 in units of the radius, or None where only the mean is wanted.
    """

    nodes: Nodes
    factors: torch.Tensor
    by_feature: torch.Tensor | None
    top: torch.Tensor
    never_underflows: bool


class Posterior:
    """Weighted points, ready to be looked at through noise.

    Parameters
    ----------
    points : torch.Tensor of shape (N, r)
        Support of the data, centred: rounding grows with the distance from the origin.
    log_weights : torch.Tensor of shape (N,)
        Logarithms of positive weights that sum to one.
    memory_limit : float
        Bound on the temporaries of one call, in MiB.

    Raises
    ------
    ValueError
        If `memory_limit` is below what a single query and a single node take.
    """

    def __init__(
        self, points: torch.Tensor, log_weights: torch.Tensor, *, memory_limit: float
    ) -> None:
        self.points = points
        self.log_weights = log_weights
        self._half_norms = 0.5 * points.square().sum(1)
        # One transfer at construction; the decisions below compare numbers that are on the host.
        self._radius = math.sqrt(2 * float(self._half_norms.max()))
        # Columns whose posterior averages are the normaliser, the mean and the second moment; in
        # units of the radius, so that their products with large factors do not overflow.
        self._unit = self._radius or 1.0
        scaled = points / self._unit
        self._features = torch.column_stack(
            [torch.ones_like(self._half_norms), scaled, scaled.square().sum(1)]
        )
        # Factors are kept between exp(-s) and exp(s), so that no product of two of them overflows or
        # is subnormal. What that changes in a sum is at most 1 a term, so N of them are rounding in
        # a normaliser of at least N / eps.
        limits = torch.finfo(points.dtype)
        self._log_scale = -0.42 * math.log(limits.tiny)
        self._smallest_normalizer = self.n_points / limits.eps
        # Relative to the largest term of a sum, N terms of this size are below its rounding.
        self._negligible = math.log(limits.eps**2 / self.n_points)
        self._budget = int(memory_limit * 2**20 / points.element_size())
        smallest = 2 * max(self._elements_per_node, self._elements_per_row(1))
        if self._budget < smallest:
            raise ValueError(
                f"memory_limit={memory_limit:g} (MiB) is too small for one tile: {self.n_points} "
                f"points in {self.dimension} dimensions need at least "
                f"{smallest * points.element_size() / 2**20:.2g} MiB. Raise memory_limit."
            )

    @property
    def n_points(self) -> int:
        """Number N of points."""
        return self.points.shape[0]

    @property
    def dimension(self) -> int:
        """Number r of coordinates."""
        return self.points.shape[1]

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
        out = x.new_empty(len(x))
        for rows in _slices(len(x), self._rows_per_tile(1)):
            logits, shift = self._log_kernel(x[rows], v, reach=0.0)
            if exclude is not None:
                logits.scatter_(1, exclude[rows, None], -math.inf)
            top = logits.amax(1)
            total = _exp_(logits.sub_(top[:, None]), self._negligible).sum(1)
            out[rows] = total.log() + top + shift
        return out - self._log_normalizer(v, exclude)

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
        reach = float(nodes.offsets.norm(dim=1).max())
        factorise = len(nodes) > 1 and self._products_are_exact(v, reach)
        sums = x.new_zeros(len(x), self.dimension + 2)
        for tile in _slices(len(nodes), self._budget // 2 // self._elements_per_node):
            part = nodes[tile]
            table = self._node_table(part, v, with_features=trace) if factorise else None
            for rows in _slices(len(x), self._rows_per_tile(len(part))):
                left_out = None if exclude is None else exclude[rows]
                if table is None:
                    every = x.new_ones(len(x[rows]), len(part))
                    self._add_directly(sums[rows], x[rows], v, part, every, left_out, reach)
                    continue
                hard = self._add_factorised(sums[rows], x[rows], v, table, left_out)
                if hard is not None:
                    self._add_directly(sums[rows], x[rows], v, part, hard, left_out, reach)
        return Moments(
            mean=sums[:, :-2],
            trace=sums[:, -2] if trace else None,
            log_density=sums[:, -1] - self._log_normalizer(v, exclude),
        )

    def _node_table(self, nodes: Nodes, v: float, *, with_features: bool) -> _NodeTable:
        """Exponentiate the node half of the logits, once for all queries."""
        exponents = (nodes.offsets / v) @ self.points.T
        top = exponents.amax(1, keepdim=True)
        # Whatever the query, a normaliser is at least exp(2s - range of its node's exponents).
        widest = float((top - exponents.amin(1, keepdim=True)).max())
        top -= self._log_scale
        factors = _exp_(exponents.sub_(top), -self._log_scale)
        by_feature = None
        if with_features:
            by_feature = (self._features.T[:, None, :] * factors).flatten(0, 1)
        return _NodeTable(
            nodes=nodes,
            factors=factors,
            by_feature=by_feature,
            top=top[:, 0],
            never_underflows=widest < 2 * self._log_scale - math.log(self._smallest_normalizer),
        )

    def _add_factorised(
        self,
        sums: torch.Tensor,
        x: torch.Tensor,
        v: float,
        table: _NodeTable,
        left_out: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Add the pairs that the factorised form can represent; return a mask of those it cannot."""
        logits = torch.addmm(self.log_weights - self._half_norms / v, x, self.points.T, alpha=1 / v)
        if left_out is not None:
            logits.scatter_(1, left_out[:, None], -math.inf)
        top = logits.amax(1, keepdim=True) - self._log_scale
        factors = _exp_(logits.sub_(top), -self._log_scale)
        hard = None
        if not table.never_underflows:
            hard = factors @ table.factors.T < self._smallest_normalizer
            if 2 * int(hard.sum()) > hard.numel():
                return torch.ones_like(hard)

        # Sums over the points: of the weights alone or, where each node's own mean and second moment
        # are needed (sum_m q_m |D_m|^2 does not follow from averaged weights), of all features.
        if table.by_feature is None:
            normalizer = factors @ table.factors.T
        else:
            averages = (factors @ table.by_feature.T).unflatten(1, (-1, len(table.nodes)))
            normalizer = averages[:, 0]
        weights = table.nodes.weights.expand(len(x), -1)
        if hard is not None:
            weights = weights.masked_fill(hard, 0)
            normalizer = normalizer.masked_fill(hard, 1)
        if table.by_feature is None:
            # The scale is put back at the end, for the products on the way to stay in range too.
            scale = math.exp(self._log_scale)
            mixed = factors.mul_((weights * scale / normalizer) @ table.factors)
            mixed.masked_fill_(mixed < 1 / scale, 0)
            sums[:, :-2] += (mixed @ self.points) / scale
        else:
            means = averages[:, 1:-1] / normalizer[:, None]
            spread = averages[:, -1] / normalizer - means.square().sum(1)
            sums[:, :-2] += self._unit * torch.einsum("bkm,bm->bk", means, weights)
            sums[:, -2] += self._unit**2 * (weights * spread).sum(1)
        offsets = table.nodes.offsets
        half_squares = 0.5 * (x.square().sum(1, keepdim=True) + offsets.square().sum(1))
        log_sums = normalizer.log() + top + table.top - (half_squares + x @ offsets.T) / v
        sums[:, -1] += (weights * log_sums).sum(1)
        return hard

    def _add_directly(
        self,
        sums: torch.Tensor,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        mask: torch.Tensor,
        left_out: torch.Tensor | None,
        reach: float,
    ) -> None:
        """Add the (query, node) pairs of a mask, one softmax over the points for each."""
        queries, offsets = mask.nonzero(as_tuple=True)
        for part in _slices(len(queries), self._rows_per_tile(1)):
            b, m = queries[part], offsets[part]
            y = x[b] + nodes.offsets[m]
            logits, shift = self._log_kernel(y, v, reach)
            squares = None
            if not self._products_are_exact(v, reach):
                squares = (self.log_weights - logits) * (2 * v)
            if left_out is not None:
                logits.scatter_(1, left_out[b, None], -math.inf)
            top = logits.amax(1)
            factors = _exp_(logits.sub_(top[:, None]), self._negligible)
            averages = factors @ self._features
            normalizer = averages[:, 0]
            moments = self._unit * averages[:, 1:] / normalizer[:, None]
            moments[:, -1] *= self._unit
            from_origin = moments[:, :-1].square().sum(1)
            moments[:, -1] -= from_origin
            if squares is not None:
                # At such small noise the spread may be rounding beside |D|^2; it is measured from
                # the shifted query instead where that is nearer to the mean.
                from_y = (moments[:, :-1] - y).square().sum(1)
                seen_from_y = (factors * squares).sum(1) / normalizer - from_y
                moments[:, -1] = torch.where(from_y < from_origin, seen_from_y, moments[:, -1])
            log_sum = normalizer.log() + top + shift
            share = nodes.weights[m, None]
            sums.index_add_(0, b, share * torch.column_stack([moments, log_sum]))

    def _log_kernel(
        self, y: torch.Tensor, v: float, reach: float
    ) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Return log w_i - |y - x_i|^2 / 2v as a matrix and a term to add to each of its rows."""
        if self._products_are_exact(v, reach):
            bias = self.log_weights - self._half_norms / v
            shift = y.square().sum(1) / (-2 * v)
            return torch.addmm(bias, y, self.points.T, alpha=1 / v), shift
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(y, self.points, compute_mode=mode)
        return distances.square_().mul_(-0.5 / v).add_(self.log_weights), 0.0

    def _log_normalizer(self, v: float, exclude: torch.Tensor | None) -> torch.Tensor | float:
        """Log of the Gaussian's normaliser and of the weight that is left."""
        gaussian = 0.5 * self.dimension * math.log(2 * math.pi * v)
        if exclude is None:
            return gaussian
        return gaussian + log_weight_of_others(self.log_weights)[exclude]

    def _products_are_exact(self, v: float, reach: float) -> bool:
        """Tell whether exponents may be formed from products of coordinates at this noise."""
        eps = torch.finfo(self.points.dtype).eps
        return eps * self._radius * (self._radius + reach) / v < _EXPONENT_ERROR[self.points.dtype]

    @property
    def _elements_per_node(self) -> int:
        """Numbers held for each node of a table."""
        return (self.dimension + 4) * self.n_points

    def _elements_per_row(self, n_nodes: int) -> int:
        """Numbers held for each query of a tile: four rows of logits, four of node averages."""
        return 4 * self.n_points + 4 * (self.dimension + 2) * n_nodes

    def _rows_per_tile(self, n_nodes: int) -> int:
        within_budget = self._budget // 2 // self._elements_per_row(n_nodes)
        widest = max(self.n_points, (self.dimension + 2) * n_nodes)
        return max(1, min(within_budget, _TILE // widest))


def log_weight_of_others(log_weights: torch.Tensor) -> torch.Tensor:
    """Return log(1 - w_i) for each of a set of weights that sum to one.

    Parameters
    ----------
    log_weights : torch.Tensor of shape (N,)
        Their logarithms.

    Returns
    -------
    torch.Tensor of shape (N,)
    """
    others = torch.log1p(-log_weights.exp())
    # One minus a weight near one is all rounding; the others are then summed themselves.
    heaviest = log_weights.argmax()
    rest = log_weights.clone()
    rest[heaviest] = -math.inf
    others[heaviest] = torch.logsumexp(rest, dim=0)
    return others


def _exp_(exponents: torch.Tensor, floor: float) -> torch.Tensor:
    """Exponentiate in place, after raising exponents to a floor whose exponential does not matter.

    Subnormal results cost fifty times a normal one, and so do the products they enter.
    """
    return exponents.clamp_(min=floor).exp_()


def _slices(length: int, step: int) -> Iterator[slice]:
    """Cut range(length) into consecutive slices of at most `step`."""
    step = max(1, step)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
