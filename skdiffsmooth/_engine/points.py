"""Weighted points in one dtype on one device, with values that all sums over them use."""

from __future__ import annotations

import math

import torch

from .._utils.cached import cached_property
from .groups import GROUP, Groups
from .moments import each_excluded

# Exponents are differences of products of size R^2 / v. Where their rounding could exceed this many
# nats, squared distances are summed from coordinate differences instead: slower, but precise at any v.
_EXPONENT_ERROR = {torch.float64: 1e-10, torch.float32: 1e-3}


class Points:
    """Points x_1..x_N of weights w_i.

    More than a few points on a CPU are padded to a multiple of `GROUP` with points of weight zero,
    whose terms are below the rounding of every sum.

    - `positions` (N, r): centred: rounding grows with the distance from the origin.
    - `log_weights` (N,): logarithms of weights that sum to one, over all shards.
    - `radius`: length of the longest position over all shards, so that all of them make the same
      decisions.
    - `trace_weights` (r,): weight of each coordinate's variance in a trace; one each if not given.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        log_weights: torch.Tensor,
        radius: float,
        trace_weights: torch.Tensor | None = None,
    ) -> None:
        self.trace_weights = trace_weights
        self._root_trace_weights = None if trace_weights is None else trace_weights.sqrt()
        self.n_unpadded = len(positions)
        # Decisions by computed values are taken on a CPU only: reading them from another device would
        # wait for it.
        self.on_host = positions.device.type == "cpu"
        self.are_grouped = len(positions) > 4 * GROUP and positions.shape[1] > 0 and self.on_host
        missing = -len(positions) % GROUP if self.are_grouped else 0
        if missing:
            positions = torch.cat([positions, positions.new_zeros(missing, positions.shape[1])])
            log_weights = torch.cat([log_weights, log_weights.new_full((missing,), -math.inf)])
        self.positions = positions
        self.log_weights = log_weights
        self.half_norms = 0.5 * positions.square().sum(1)
        self.radius = radius
        # Rows whose weighted sums are the normaliser, the mean and the second moment; in units of the
        # radius, so that their products with large factors do not overflow.
        self.unit = self.radius or 1.0
        scaled = positions / self.unit
        self.features = torch.vstack(
            [
                torch.ones_like(self.half_norms),
                scaled.T,
                self.scaled_for_trace(scaled).square().sum(1),
            ]
        )
        eps = torch.finfo(positions.dtype).eps
        # N terms that are smaller than the largest by this exponent are together below the rounding of
        # their sum.
        self.negligible = math.log(eps**2 / len(self))
        self.eps = eps

    def __len__(self) -> int:
        return self.positions.shape[0]

    @property
    def dimension(self) -> int:
        """Number r of coordinates."""
        return self.positions.shape[1]

    @property
    def are_few(self) -> bool:
        """Return whether logits of all points take at most twice the memory of sums of features."""
        return len(self) <= 2 * (self.dimension + 2)

    @cached_property
    def log_weights_of_others(self) -> torch.Tensor:
        """Logarithms (N,) of total weights: entry i is that of all points but point i."""
        return log_weight_of_others(self.log_weights)

    @cached_property
    def groups(self) -> Groups:
        """The points in groups of near neighbours (CPU only); computed at the first use."""
        return Groups(self.positions, self.log_weights, self.unit)

    @cached_property
    def outer_products(self) -> torch.Tensor:
        """Products (N, r^2) of all pairs of coordinates, in squared units of the radius."""
        scaled = self.features[1:-1].T
        return (scaled[:, :, None] * scaled[:, None, :]).flatten(1)

    def scaled_for_trace(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors (..., r) scaled so that squared lengths are contributions to a trace."""
        return vectors if self._root_trace_weights is None else vectors * self._root_trace_weights

    def products_are_exact(self, v: float, max_norm: float) -> bool:
        """Return whether exponents from products of coordinates are accurate at noise v."""
        error = self.eps * self.radius * (self.radius + max_norm) / v
        return error < _EXPONENT_ERROR[self.positions.dtype]

    def products(self, y: torch.Tensor, v: float) -> torch.Tensor:
        """Return log w_i - |y - x_i|^2 / 2v + |y|^2 / 2v (B, N), from products of coordinates."""
        return products(y, self.product_matrix(v))

    def product_matrix(self, v: float) -> torch.Tensor:
        """Return the matrix (r + 1, N) by which `products` multiplies queries with a one added."""
        # The bias is one more coordinate, so that the product adds it without another pass.
        matrix = self.positions.new_empty(self.dimension + 1, len(self))
        torch.div(self.positions.T, v, out=matrix[:-1])
        torch.sub(self.log_weights, self.half_norms / v, out=matrix[-1])
        return matrix

    def squared_distances(self, y: torch.Tensor) -> torch.Tensor:
        """Return |y - x_i|^2 (B, N), from differences of coordinates."""
        return _squared_distances(y, self.positions)

    def squared_distances_for_trace(self, y: torch.Tensor) -> torch.Tensor:
        """Return the contributions (B, N) of the differences y - x_i to a trace."""
        return _squared_distances(self.scaled_for_trace(y), self.scaled_for_trace(self.positions))


def products(y: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return queries (B, r), with a one added to each, times a matrix (r + 1, N)."""
    return torch.cat([y, y.new_ones(len(y), 1)], dim=1) @ matrix


def _squared_distances(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist").square_()


def log_weight_of_others(log_weights: torch.Tensor) -> torch.Tensor:
    """Return log(1 - w_i) (N,) from the logarithms of N weights w_i that sum to one."""
    others = torch.log1p(-log_weights.exp())
    # One minus a weight near one is rounding, so for the heaviest point the other weights are summed.
    heaviest = log_weights.argmax()[None]
    rest = log_weights.index_fill(0, heaviest, -math.inf)
    return others.index_copy(0, heaviest, torch.logsumexp(rest, dim=0, keepdim=True))


def exclude_(logits: torch.Tensor, exclude: torch.Tensor | None) -> torch.Tensor:
    """Set the logits (B, N) of excluded indices, (B,) or (B, k), to -inf, in place; None is no index."""
    if exclude is not None:
        logits.scatter_(1, each_excluded(exclude), -math.inf)
    return logits


def exp_(exponents: torch.Tensor, floor: float) -> torch.Tensor:
    """Exponentiate in place; exponents are raised to a negligible `floor`, as subnormals are slow."""
    return exponents.clamp_(min=floor).exp_()
