"""Weighted points in one precision on one device, with what every sum over them needs."""

from __future__ import annotations

import math
from functools import cached_property

import torch

from .groups import GROUP, Groups

__all__ = ["Points", "exp_", "log_weight_of_others"]

# Exponents are differences of products of size R^2 / v. Where their rounding could exceed this many
# nats, squared distances are summed from coordinate differences instead: slower, right at any v.
_EXPONENT_ERROR = {torch.float64: 1e-10, torch.float32: 1e-3}


class Points:
    """Points x_1..x_N of weights w_i.

    Parameters
    ----------
    positions : torch.Tensor of shape (N, r)
        Centred: rounding grows with the distance from the origin.
    log_weights : torch.Tensor of shape (N,)
        Logarithms of weights that sum to one, over all shards.
    radius : float
        Length of the longest position of all shards: decisions by it must be the same on all of them.
    shares : torch.Tensor of shape (r,), optional
        How much the variance of each coordinate counts in a trace; one each if not given.

    Notes
    -----
    More than a few points are padded to a multiple of the group with points of weight zero, which
    are below the rounding of every sum.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        log_weights: torch.Tensor,
        radius: float,
        shares: torch.Tensor | None = None,
    ) -> None:
        self.shares = shares
        self.root_shares = None if shares is None else shares.sqrt()
        self.n_given = len(positions)
        self.are_grouped = len(positions) > 4 * GROUP and positions.shape[1] > 0
        # Decisions by numbers are taken on a CPU only: other devices would have to be waited for.
        self.on_host = positions.device.type == "cpu"
        self.are_grouped &= self.on_host
        missing = -len(positions) % GROUP if self.are_grouped else 0
        if missing:
            positions = torch.cat([positions, positions.new_zeros(missing, positions.shape[1])])
            log_weights = torch.cat([log_weights, log_weights.new_full((missing,), -math.inf)])
        self.positions = positions
        self.log_weights = log_weights
        self.half_norms = 0.5 * positions.square().sum(1)
        self.radius = radius
        # Rows whose posterior averages are the normaliser, the mean and the second moment; in units
        # of the radius, so that their products with large factors do not overflow.
        self.unit = self.radius or 1.0
        scaled = positions / self.unit
        self.features = torch.vstack(
            [torch.ones_like(self.half_norms), scaled.T, self.counted(scaled).square().sum(1)]
        )
        eps = torch.finfo(positions.dtype).eps
        # Relative to the largest term of a sum, N terms of this size are below its rounding, wherever
        # they are.
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
        """Tell whether a number for each point is no more than one for each feature, about."""
        return len(self) <= 2 * (self.dimension + 2)

    @cached_property
    def groups(self) -> Groups:
        """The points in groups of near neighbours, on a CPU; made when noise is first low."""
        return Groups(self.positions, self.log_weights, self.unit)

    @cached_property
    def outer(self) -> torch.Tensor:
        """Products of all pairs of coordinates, in squared units of the radius: (N, r^2)."""
        scaled = self.features[1:-1].T
        return (scaled[:, :, None] * scaled[:, None, :]).flatten(1)

    def counted(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors (..., r) whose squared lengths are what they count in a trace."""
        return vectors if self.root_shares is None else vectors * self.root_shares

    def products_are_exact(self, v: float, reach: float) -> bool:
        """Tell whether exponents may be formed from products of coordinates at this noise."""
        error = self.eps * self.radius * (self.radius + reach) / v
        return error < _EXPONENT_ERROR[self.positions.dtype]

    def products(self, y: torch.Tensor, v: float) -> torch.Tensor:
        """Return log w_i - |y - x_i|^2 / 2v + |y|^2 / 2v, from products of coordinates."""
        # The bias as one more coordinate: the product itself adds it, without a pass of its own.
        bias = self.log_weights - self.half_norms / v
        left = torch.cat([y / v, y.new_ones(len(y), 1)], dim=1)
        return left @ torch.cat([self.positions.T, bias[None]])

    def squared_distances(self, y: torch.Tensor) -> torch.Tensor:
        """Return |y - x_i|^2 from differences of coordinates."""
        return _squared_distances(y, self.positions)

    def counted_squared_distances(self, y: torch.Tensor) -> torch.Tensor:
        """Return what the differences y - x_i count in a trace."""
        return _squared_distances(self.counted(y), self.counted(self.positions))


def _squared_distances(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist").square_()


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
    heaviest = log_weights.argmax()[None]
    rest = log_weights.index_fill(0, heaviest, -math.inf)
    return others.index_copy(0, heaviest, torch.logsumexp(rest, dim=0, keepdim=True))


def exp_(exponents: torch.Tensor, floor: float) -> torch.Tensor:
    """Exponentiate in place, after raising exponents to a floor whose exponential does not matter.

    Subnormal results cost fifty times a normal one, and so do the products they enter.
    """
    return exponents.clamp_(min=floor).exp_()
