"""Sums of a radial kernel over many points in one to three dimensions, to a requested relative error.

Points are sorted along a Z-curve and cut into boxes of 64 near neighbours. With L a lower bound on the
sum at a query and K the kernel, boxes on which K <= rtol L / 4 are skipped: weights sum to one, so that
all their points together add at most rtol / 4 of the sum. Other boxes are summed point by point.

The Gaussian kernel is smooth and a product over the coordinates. So the points of a cube, whose side s
is two bandwidths, may be replaced by weights on a grid of q Chebyshev nodes in each coordinate, which
give the same sum of every polynomial of degree q - 1. Interpolation at these nodes has an error of at
most 2 (s/4)^q / q! times the largest q-th derivative, which at distance u is at most
1.09 sqrt(q!) exp(-u^2 / 4) (Cramer's inequality for Hermite functions). The error of a product of d
factors is below 1.01 d times that of one factor, if the latter is below 1 %. So a cube of weight W at
distance u adds an error of at most

    2.2 d W (s/4)^q / sqrt(q!) exp(-u^2 / 4).

Where these bounds add up to more than rtol / 2 of the sum, as they do far from all points, the points of
the cubes are summed too. Cubes that hold fewer points than nodes are never replaced.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from .._utils.memory import rows_that_fit, slices
from .._utils.progress import tracked
from .._utils.units import column_range
from .points import log_weight_of_others
from .radial_kernels import RADIAL_KERNELS, RadialKernel

LARGEST_DIMENSION = 3

# Number of points in a box, and of boxes in a group: fastest at 1e5 to 1e6 points.
_BOX = 64
_GROUP = 32

# Side of a cube in bandwidths, and number of finer levels of the Z-curve within a cube.
_SIDE = 2.0
_FINER_LEVELS = 4
# Most levels of cubes: with these, the rounding of positions is at most 2^-20 of a side.
_MOST_LEVELS = 32

# q is chosen as if the error bounds of all cubes added up to this multiple of the sum, times the bound
# of a cube with W = 1 at distance zero.
_MARGIN = 16.0

# Elements of the largest temporary arrays for bounds, and for sums, which should stay in the cache.
_BOUNDS_TILE = 2**19
_SUMS_TILE = 2**17

# Exponents below this are raised to it, since subnormal numbers are slow.
_LOWEST_EXPONENT = -700.0


class _Bounds(NamedTuple):
    """Axis-parallel boxes around sets of points."""

    low: torch.Tensor  # Their lower corners, (n, d)
    high: torch.Tensor  # Their upper corners, (n, d)
    log_weights: torch.Tensor  # Logarithms of the weights in them, (n,)

    def squares(
        self, x: torch.Tensor, boxes: torch.Tensor | slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return squared distances (B, n) from queries to nearest and farthest parts of `boxes`."""
        low, high = self.low[boxes], self.high[boxes]
        nearest = farthest = x.new_zeros(())
        for j in range(x.shape[1]):
            below, above = low[..., j] - x[:, j, None], x[:, j, None] - high[..., j]
            nearest = nearest + torch.maximum(below, above).clamp_min_(0).square_()
            farthest = farthest + torch.minimum(below, above).square_()
        # Lowered, so that the rounded distance of no point in a box is smaller.
        return nearest * (1 - 1e-14), farthest


class _Excluded(NamedTuple):
    """The excluded point of each of B queries."""

    log_weight: torch.Tensor  # Logarithm of its weight, (B,)
    slot: torch.Tensor  # Its position in the padded boxes, (B,)
    box: torch.Tensor  # The box that holds it, (B,)

    def at(self, queries: slice | torch.Tensor) -> _Excluded:
        """Return the excluded points of some of the queries."""
        return _Excluded(self.log_weight[queries], self.slot[queries], self.box[queries])


class BoxSums:
    """A mixture of equal radial kernels at weighted points: its densities to a relative error, on a CPU.

    - `points` (N, d): centres; d is at most `LARGEST_DIMENSION`.
    - `weights` (N,): positive weights that sum to one.
    - `bandwidth`: scale of the kernels, in units of the points.
    - `rtol`: largest relative error of a density, in addition to rounding.
    """

    def __init__(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        kernel: RadialKernel,
        bandwidth: float,
        rtol: float,
    ) -> None:
        self.kernel, self.bandwidth = kernel, bandwidth
        # Smaller errors than those of rounding cannot be reached.
        self.rtol = rtol = max(rtol, 1e-15)
        d = points.shape[1]
        self._is_gaussian = kernel is RADIAL_KERNELS["gaussian"]
        self._n_nodes, self._log_error = _nodes_for(rtol, d)
        fewest = max(_BOX, self._n_nodes**d) if self._is_gaussian else math.inf
        order, counts, middles = _split(points, _SIDE * bandwidth, fewest)
        self._n_cubes = len(middles)
        # Points outside cubes, and those of each cube, are padded to whole boxes with weights of zero.
        padded = -(-counts // _BOX) * _BOX
        gaps = np.cumsum(padded - counts) - (padded - counts)
        slots = np.arange(len(points)) + np.repeat(gaps, counts)
        source = np.repeat(order[np.cumsum(counts) - 1], padded)
        source[slots] = order
        log_weights = np.full(len(source), -np.inf)
        log_weights[slots] = np.log(weights[order])
        self._slot = torch.empty(len(points), dtype=torch.long)
        self._slot[torch.from_numpy(order)] = torch.from_numpy(slots)
        self._log_point_weights = torch.from_numpy(np.log(weights))
        self._x = torch.from_numpy(points[source].reshape(-1, _BOX, d).transpose(0, 2, 1).copy())
        self._log_weights = torch.from_numpy(log_weights).unflatten(0, (-1, _BOX))
        log_box_weights = torch.logsumexp(self._log_weights, dim=1)
        self._boxes = _Bounds(self._x.amin(2), self._x.amax(2), log_box_weights)

        n_boxes = padded // _BOX
        starts = np.concatenate(
            [np.arange(0, n_boxes[0], _GROUP), np.arange(n_boxes[0], n_boxes.sum(), _GROUP)]
        )
        self._n_outside = -(-n_boxes[0] // _GROUP)
        self._starts = torch.from_numpy(np.append(starts, n_boxes.sum()))
        self._group = torch.repeat_interleave(self._starts.diff())
        low, high, log_group_weights = (
            torch.from_numpy(reduce.reduceat(bounds.numpy(), starts))
            for reduce, bounds in zip(
                (np.minimum, np.maximum, np.logaddexp), self._boxes, strict=True
            )
        )
        self._groups = _Bounds(low, high, log_group_weights)

        half = 0.5 * _SIDE * bandwidth
        self._middles = torch.from_numpy(middles)
        self._cube = torch.repeat_interleave(torch.from_numpy(n_boxes)) - 1
        self._nodes = _chebyshev_nodes(self._n_nodes)
        self._cubes = _Bounds(
            self._middles - half,
            self._middles + half,
            self._sums_of_cubes(log_box_weights.exp()).log(),
        )
        self._grid_weights = self._replaced_points(half)
        self._nodes = self._nodes * half

    def log_density(
        self, x: torch.Tensor, memory_limit: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the log-density (B,) of queries, in nats.

        `exclude` (B,) is the index of the point that each query is at, and must not use.
        """
        out = x.new_empty(len(x))
        n_bounds = len(self._x) + self._n_cubes
        n_rows = min(rows_that_fit(256 * n_bounds, memory_limit), max(1, _BOUNDS_TILE // n_bounds))
        excluded = None
        if exclude is not None:
            slot = self._slot[exclude]
            excluded = _Excluded(self._log_point_weights[exclude], slot, slot // _BOX)
        for rows in tracked(list(slices(len(x), n_rows))):
            out[rows] = self._log_sums(x[rows], None if excluded is None else excluded.at(rows))
        if exclude is not None:
            out -= log_weight_of_others(self._log_point_weights)[exclude]
        d = x.shape[1]
        return out - self.kernel.log_normalizer(d) - d * math.log(self.bandwidth)

    def _log_sums(self, x: torch.Tensor, excluded: _Excluded | None) -> torch.Tensor:
        """Return log sum_i w_i K(x - x_i) (B,)."""
        if not self._n_cubes:
            return self._log_sums_of_points(x, excluded, len(self._groups.low))[0]
        nearest, farthest = self._cubes.squares(x, slice(None))
        cubes = torch.arange(self._n_cubes).expand(len(x), -1)
        own = None if excluded is None else self._cube[excluded.box]
        log_weights = _without(self._cubes.log_weights, cubes, own, excluded)
        lower = torch.logsumexp(log_weights + self._log_kernel(farthest), dim=1)
        log_sums, lower = self._log_sums_of_points(x, excluded, self._n_outside, lower)
        is_relevant = self._log_kernel(nearest) > (lower + math.log(self.rtol / 4))[:, None]
        query, cube = is_relevant.nonzero(as_tuple=True)
        sums = x.new_zeros(len(x)).index_add_(0, query, self._sums_of_grids(x, query, cube))
        if excluded is not None and own is not None:
            sums -= torch.where(own >= 0, excluded.log_weight.exp(), 0.0)
        log_sums = torch.logaddexp(log_sums, sums.clamp_min(0).log())
        bounds = self._cubes.log_weights - nearest / (4 * self.bandwidth**2)
        log_errors = (
            torch.logsumexp(bounds.masked_fill(~is_relevant, -math.inf), 1) + self._log_error
        )
        is_wrong = ~(log_errors <= log_sums + math.log(self.rtol / 2))
        if is_wrong.any():
            others = None if excluded is None else excluded.at(is_wrong)
            n_groups = len(self._groups.low)
            log_sums[is_wrong] = self._log_sums_of_points(x[is_wrong], others, n_groups)[0]
        return log_sums

    def _log_sums_of_points(
        self,
        x: torch.Tensor,
        excluded: _Excluded | None,
        n_groups: int,
        lower: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log sum_i w_i K(x - x_i) (B,) over the first groups of boxes, and a lower bound (B,).

        `lower` is a lower bound of the log-sum over the points outside these groups (None: there are
        none). The returned bound is that of the log-sum over all points.
        """
        others = x.new_full((len(x),), -math.inf) if lower is None else lower
        if not n_groups:
            return torch.full_like(others, -math.inf), others
        groups = torch.arange(n_groups).expand(len(x), -1)
        own = None if excluded is None else self._group[excluded.box]
        log_weights = _without(self._groups.log_weights, groups, own, excluded)
        nearest, farthest = self._groups.squares(x, slice(n_groups))
        within = torch.logsumexp(log_weights + self._log_kernel(farthest), dim=1)
        lower = torch.logaddexp(within, others)
        query, group = self._relevant(nearest, lower)
        box = self._starts[group][:, None] + torch.arange(_GROUP)
        exists = box < self._starts[group + 1][:, None]
        box.clamp_max_(len(self._x) - 1)
        nearest, farthest = self._boxes.squares(x[query], box)
        nearest.masked_fill_(~exists, math.inf)
        farthest.masked_fill_(~exists, math.inf)
        of_pairs = None if excluded is None else excluded.at(query)
        own = None if of_pairs is None else of_pairs.box
        log_weights = _without(self._boxes.log_weights, box, own, of_pairs)
        within = torch.logsumexp(log_weights + self._log_kernel(farthest), dim=1)
        lower = torch.maximum(lower, torch.logaddexp(_log_add(within, query, len(x)), others))
        pair, member = self._relevant(nearest, lower[query])
        query, box = query[pair], box[pair, member]
        log_sums = self._log_sums_of_boxes(x, query, box, excluded)
        return _log_add(log_sums, query, len(x)), lower

    def _relevant(
        self, nearest: torch.Tensor, lower: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return indices of the (query, box) pairs that matter to log-sums of at least `lower`."""
        threshold = lower + math.log(self.rtol / 4)
        of, boxes = (self._log_kernel(nearest) > threshold[:, None]).nonzero(as_tuple=True)
        return of, boxes

    def _log_sums_of_boxes(
        self, x: torch.Tensor, query: torch.Tensor, box: torch.Tensor, excluded: _Excluded | None
    ) -> torch.Tensor:
        """Return the logarithms (P,) of the sums over the points of boxes (P,) at queries (P,)."""
        out = x.new_empty(len(query))
        for part in slices(len(query), _SUMS_TILE // _BOX):
            q, b = query[part], box[part]
            squares = self._x.index_select(0, b).sub_(x[q][:, :, None]).square_().sum(1)
            terms = self._log_kernel(squares).add_(self._log_weights.index_select(0, b))
            if excluded is not None:
                slots = b[:, None] * _BOX + torch.arange(_BOX)
                terms.masked_fill_(slots == excluded.slot[q][:, None], -math.inf)
            top = terms.amax(1)
            shift = top.masked_fill(top == -math.inf, 0.0)
            total = terms.sub_(shift[:, None]).clamp_min_(_LOWEST_EXPONENT).exp_().sum(1)
            out[part] = total.log_().add_(top)
        return out

    def _sums_of_grids(
        self, x: torch.Tensor, query: torch.Tensor, cube: torch.Tensor
    ) -> torch.Tensor:
        """Return the sums (P,) over the nodes that replace the points of cubes (P,) at queries (P,)."""
        out = x.new_empty(len(query))
        n, d = self._n_nodes, x.shape[1]
        for part in slices(len(query), max(1, _SUMS_TILE // n**d)):
            q, c = query[part], cube[part]
            sums = self._grid_weights[c]
            offsets = x[q] - self._middles[c]
            for j in reversed(range(d)):
                squares = (offsets[:, j, None] - self._nodes).square_()
                factor = squares.mul_(-0.5 / self.bandwidth**2).exp_()
                sums = torch.bmm(sums.view(len(q), -1, n), factor[:, :, None])
            out[part] = sums.flatten()
        return out

    def _replaced_points(self, half: float) -> torch.Tensor:
        """Return weights (n_cubes, q^d) at the Chebyshev nodes that replace points of a cube."""
        n, d = self._n_nodes, self._x.shape[1]
        moments = self._x.new_zeros(self._n_cubes, n**d)
        in_cubes = (self._cube >= 0).nonzero()[:, 0]
        for part in slices(len(in_cubes), max(1, 8 * _SUMS_TILE // (_BOX * n ** max(1, d - 1)))):
            boxes = in_cubes[part]
            cube = self._cube[boxes]
            t = (self._x[boxes] - self._middles[cube][:, :, None]) / half
            polynomials = _chebyshev_polynomials(t, n)
            product = polynomials[:, 0] * self._log_weights[boxes].exp()[:, None]
            if d == 3:
                others = polynomials[:, 1, :, None] * polynomials[:, 2, None, :]
                product = torch.bmm(product, others.flatten(1, 2).mT)
            elif d == 2:
                product = torch.bmm(product, polynomials[:, 1].mT)
            else:
                product = product.sum(2)
            moments.index_add_(0, cube, product.flatten(1))
        interpolation = _chebyshev_polynomials(self._nodes, n).T * (2 / n)
        interpolation[:, 0] /= 2
        for _ in range(d):
            # Each turn transforms the last coordinate and moves it to the front.
            last = moments.view(self._n_cubes, n ** (d - 1), n) @ interpolation.T
            moments = last.mT.flatten(1)
        return moments

    def _sums_of_cubes(self, of_boxes: torch.Tensor) -> torch.Tensor:
        """Return the sums (n_cubes,) of the values (n_boxes,) of the boxes in each cube."""
        # The boxes outside cubes have the index -1.
        sums = of_boxes.new_zeros(self._n_cubes + 1)
        return sums.index_add_(0, self._cube + 1, of_boxes)[1:]

    def _log_kernel(self, squares: torch.Tensor) -> torch.Tensor:
        """Return log K at squared distances."""
        if self._is_gaussian:
            return squares * (-0.5 / self.bandwidth**2)
        # Divided last: rounding must not move a point across the edge of a compact kernel.
        return self.kernel.log_profile(squares.sqrt().div_(self.bandwidth))


def _without(
    log_weights: torch.Tensor,
    boxes: torch.Tensor,
    own: torch.Tensor | None,
    excluded: _Excluded | None,
) -> torch.Tensor:
    """Return the logarithms (B, n) of the weights in boxes (B, n) without that of the excluded points.

    `own` (B,) are the boxes that hold these points. Weights of which less than 1e-6 is left are zero.
    """
    of_boxes = log_weights[boxes]
    if excluded is None or own is None:
        return of_boxes
    share = (excluded.log_weight - log_weights[own]).exp()
    rest = log_weights[own] + torch.log1p(-share)
    rest.masked_fill_(share > 1 - 1e-6, -math.inf)
    return torch.where(boxes == own[:, None], rest[:, None], of_boxes)


def _log_add(values: torch.Tensor, index: torch.Tensor, n: int) -> torch.Tensor:
    """Return the logarithms (n,) of sums of exp(values (P,)) over equal indices (P,)."""
    top = values.new_full((n,), -math.inf).scatter_reduce_(0, index, values, "amax")
    shift = top.masked_fill(top == -math.inf, 0.0)
    terms = (values - shift[index]).clamp_min_(_LOWEST_EXPONENT).exp_()
    return values.new_zeros(n).index_add_(0, index, terms).log_() + top


def _nodes_for(rtol: float, d: int) -> tuple[int, float]:
    """Return the number of nodes in each coordinate, and log of the error bound at distance zero."""
    n = 3
    while True:
        n += 1
        log_error = math.log(2.2 * d) + n * math.log(_SIDE / 4) - 0.5 * math.lgamma(n + 1)
        if log_error <= math.log(rtol / 2 / _MARGIN):
            return n, log_error


def _chebyshev_nodes(n: int) -> torch.Tensor:
    """Return the n zeros in (-1, 1) of the Chebyshev polynomial of degree n."""
    return torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def _chebyshev_polynomials(t: torch.Tensor, n: int) -> torch.Tensor:
    """Return T_0(t), ..., T_{n-1}(t), of the shape (..., n, k) for t (..., k)."""
    values = [torch.ones_like(t), t]
    for _ in range(n - 2):
        values.append(2 * t * values[-1] - values[-2])
    return torch.stack(values[:n], dim=-2)


def _split(
    points: np.ndarray, side: float, fewest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an order of the points (N, d) along a Z-curve, counts of points, and the middles of cubes.

    The points in cubes of the side that hold at least `fewest` points come last. The counts
    (1 + n_cubes,) are of the points outside cubes, and of those in each cube; middles are (n_cubes, d).
    """
    n, d = points.shape
    low, high = column_range(points)
    extent = float((high - low).max())
    n_bits = 62 // d
    n_levels = max(0, math.ceil(math.log2(extent / side))) + 1 if extent else 1
    finer = min(_FINER_LEVELS, n_bits - n_levels)
    # Where the indices of cubes would overflow, or cubes are as small as the rounding of positions, the
    # Z-curve has larger cells, and no cubes are returned.
    is_fine = finer < 0 or n_levels > _MOST_LEVELS
    unit = extent / (2**n_bits - 1) if is_fine else side / 2**finer
    index = ((points - low) / unit).astype(np.int64)
    curve = np.zeros(n, dtype=np.int64)
    for bit in range(n_bits if is_fine else n_levels + finer):
        for j in range(d):
            curve |= ((index[:, j] >> bit) & 1) << (bit * d + j)
    order = np.argsort(curve, kind="stable")
    if is_fine or fewest > n:
        return order, np.array([n]), np.empty((0, d))
    curve = curve[order] >> (finer * d)
    starts = np.flatnonzero(np.diff(curve, prepend=-1))
    counts = np.diff(starts, append=n)
    is_cube = counts >= fewest
    in_cube = np.repeat(is_cube, counts)
    middles = low + ((index[order[starts[is_cube]]] >> finer) + 0.5) * side
    order = np.concatenate([order[~in_cube], order[in_cube]])
    return order, np.concatenate([[n - in_cube.sum()], counts[is_cube]]), middles
