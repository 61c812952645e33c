"""Empirical scores averaged over positions to which a query is moved along a known manifold.

See `_moved.py` for the field and its divergence. Where positions depend on x through projections on the
manifold, the columns of L and R in dy_m/dx = a I + L R^T are few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from .._engine.moments import Denoiser, Nodes
from .._utils.backend import Backend
from ..manifolds import Manifold
from ..manifolds._base import has_derivative, projection_factors
from ._moved import Derivative, MovedScore
from ._nodes import NodeRule, default_n_nodes
from ._shapes import FrozenKernel, LinearShape


class _Projection(NamedTuple):
    """The projections `foot` (..., r) of positions, and their derivatives `image` @ `tangent`.mT.

    `image` (A in formulas) and `tangent` (T) have shape (..., r, k), or (..., r, 0) where the
    derivative was not requested.
    """

    foot: torch.Tensor
    image: torch.Tensor
    tangent: torch.Tensor

    def outward(self, direction: torch.Tensor) -> torch.Tensor:
        """Return (I - A T^T)^T u, the gradient in x of (x - foot) . u for fixed u (..., r).

        For u parallel to x - foot the result is u if the foot is the nearest point, since nearest
        points move orthogonally to x - foot. Other projections may move in another direction.
        """
        along = self.tangent @ (self.image.mT @ direction[..., None])
        return direction - along[..., 0]


@dataclass(frozen=True)
class _PushedScore(MovedScore):
    """The empirical score averaged over positions to which a subclass moves the query."""

    posterior: Denoiser
    # In the coordinates of the data; divergences need one whose projection has a derivative
    manifold: Manifold
    nodes: Nodes  # Quadrature rule for the offsets
    exclude: torch.Tensor | None = None  # (n,): index of the point that is excluded for each query
    # Distance from the manifold, within its span, from which on offsets are zero; they begin to
    # decrease at half of it. None means that they do not decrease.
    fading: float | None = None
    # (r, h): orthonormal directions of an affine subspace that holds the manifold: moving a
    # position orthogonally to it does not move its nearest point. None is the whole space.
    span: torch.Tensor | None = None

    def rows(self, index: torch.Tensor) -> _PushedScore:
        """See `RowSelectable`."""
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])

    def _translate(
        self,
        x: torch.Tensor,
        projection: _Projection,
        offsets: torch.Tensor,
        *,
        with_derivative: bool,
    ) -> tuple[torch.Tensor, Derivative | None]:
        """Return positions on the copy of the manifold translated to each query, with derivatives."""
        moved = self._project(projection.foot[:, None] + offsets, with_derivative=with_derivative)
        shift = moved.foot - projection.foot[:, None]
        factor, slope = self._fading_factor(x - projection.foot)
        y = x[:, None] + factor[:, None, None] * shift
        if not with_derivative:
            return y, None
        image = projection.image[:, None]
        left = moved.image @ (moved.tangent.mT @ image) - image
        left = factor[:, None, None, None] * left
        right = projection.tangent[:, None].expand_as(left)
        if self.fading is not None:
            # The factor changes with the distance from the manifold.
            left = torch.cat([left, shift[..., None]], dim=-1)
            across = projection.outward(slope)[:, None, :, None].expand_as(shift[..., None])
            right = torch.cat([right, across], dim=-1)
        return y, Derivative(y.new_ones(1, 1), left, right)

    def _fading_factor(self, normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factor (n,) of the offsets of queries at foot + `normal`, and its gradient.

        It is 1 up to half of the distance `fading` and 0 beyond `fading`, with a cubic between. Where
        the foot is not unique, offsets would make the field jump.
        """
        if self.fading is None:
            return normal.new_ones(len(normal)), torch.zeros_like(normal)
        if self.span is not None:
            # Positions may be in float64 where the data are in float32.
            span = self.span.to(normal.dtype)
            normal = (normal @ span) @ span.T
        direction, distance = _unit(normal)
        progress = (2 * distance / self.fading - 1).clamp(0, 1)
        factor = 1 - progress.square() * (3 - 2 * progress)
        return factor, -12 * (progress * (1 - progress))[:, None] * direction / self.fading

    def _project(self, z: torch.Tensor, *, with_derivative: bool) -> _Projection:
        """Return the projections of positions (..., r), with derivatives if requested."""
        flat = z.flatten(0, -2)
        if not with_derivative:
            nothing = z.new_empty(*z.shape, 0)
            return _Projection(self.manifold.project(flat).view_as(z), nothing, nothing)
        foot, *factors = projection_factors(self.manifold, flat)
        shape = *z.shape, self.manifold.dimension
        return _Projection(foot.view_as(z), *(factor.reshape(shape) for factor in factors))

    def _values_per_node(self, rank: int) -> int:
        """See `MovedScore`: a dozen vectors, and as many tangent frames and directions."""
        return 12 * max(rank, 1) * (2 + 2 * self.manifold.dimension)


@dataclass(frozen=True)
class TranslatedScore(_PushedScore):
    """Smoothing along the copy of the manifold that is translated to the query.

    y_m = x + Pi(p + xi_m) - p with p = Pi(x) (Farghly et al. 2025, the form of the experiments):
    the copy of the manifold goes through x, whatever the distance of x.

    dy/dx = I + (A_m T_m^T - I) A T^T, with A_m, T_m taken at p + xi_m: the identity plus a matrix of
    rank k. Where offsets fade by a factor c, y = x + c (Pi(p + xi_m) - p): that matrix is multiplied by
    c, and (Pi(p + xi_m) - p) (dc/dx)^T is added.

    Without fading the field jumps where the projection does (the medial axis: the centre of a circle),
    and its divergence grows as one over the distance from there: log-densities of rows near the medial
    axis are wrong at any number of steps, though their mass is small.
    """

    def _push(
        self, x: torch.Tensor, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, Derivative | None]:
        projection = self._project(x, with_derivative=with_derivative)
        return self._translate(x, projection, offsets, with_derivative=with_derivative)


@dataclass(frozen=True)
class LevelSetScore(_PushedScore):
    """Smoothing along the set of points that are as far from the manifold as the query.

    y_m = Pi(z_m) + r n_m, where z_m is the position of `TranslatedScore`, n_m the unit vector from
    Pi(z_m) to z_m and r the distance of x: the normal turns with the manifold, and the kernel stays on
    a level set of the distance as in Farghly et al. 2025, eq. 10.

    The paper moves x + xi_m, not z_m. At a distance r below the kernel's scale x + xi_m is on all sides
    of the manifold alike. That is right for log-densities, but scores of opposite sides cancel and no
    longer point to the manifold, and where x + xi_m crosses a hypersurface, n_m flips: with
    fixed nodes the field jumps there, and its flow is not invertible (on a circle of 12 points 0.4 of
    the mass was lost). At z_m, at a distance of about r, the normal is that of x, moved along the
    manifold. Near the medial axis z_m may be near the manifold again: keep the offsets well below the
    reach (on the unit circle a scale of 0.3 kept the mass to 1e-3, 0.45 to 1e-2, 0.6 not at all).

    With rho = |z_m - Pi(z_m)|, a = r / rho, P the derivative of Pi at x, P_m that at z_m, and n the unit
    vector from Pi(x) to x, dy/dx = (P_m + a (I - n_m n_m^T) (I - P_m)) dz_m/dx + n_m n^T (I - P). Where
    projections are nearest points n^T P = 0. On the manifold n is one of its normals, the directions
    with P n = 0; n_m is N_m n / |N_m n| and a is 1 / |N_m n|, with N_m = I - P_m: the limits of the
    above along n. A hypersurface has one normal up to its sign, which cancels. For other manifolds the
    limit depends on the direction of approach, and this is that along n.
    """

    def _push(
        self, x: torch.Tensor, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, Derivative | None]:
        projection = self._project(x, with_derivative=with_derivative)
        z, derivative = self._translate(x, projection, offsets, with_derivative=with_derivative)
        target = self._project(z, with_derivative=with_derivative)
        normal_at_z, distance_of_z = _unit(z - target.foot)
        normal, distance = _unit(x - projection.foot)
        y = target.foot + distance[:, None, None] * normal_at_z
        if derivative is None:
            return y, None
        # The direction of x - foot has a rounding error of eps / r. Its limit for r = 0, which replaces
        # it at small r, has an error of about r.
        close = distance <= math.sqrt(torch.finfo(x.dtype).eps) * x.abs().amax(1)
        normal = torch.where(close[:, None], _some_normal(projection.tangent), normal)
        moves = target.image @ (target.tangent.mT @ normal[:, None, :, None])
        limit, length = _unit(normal[:, None] - moves[..., 0])
        normal_at_z = torch.where(close[:, None, None], limit, normal_at_z)
        ratio = _divide(distance[:, None], distance_of_z)
        ratio = torch.where(close[:, None], _divide(torch.ones_like(length), length), ratio)
        return y, _on_level_set(derivative, projection.outward(normal), normal_at_z, ratio, target)


def _on_level_set(
    of_z: Derivative,
    gradient_of_r: torch.Tensor,
    normal_at_z: torch.Tensor,
    ratio: torch.Tensor,
    target: _Projection,
) -> Derivative:
    """Return dy_m/dx of y_m = Pi(z_m) + r n_m from dz_m/dx, whose stretch is 1, and dr/dx."""
    a, normal = ratio[..., None, None], normal_at_z[..., None]
    image = (1 - a) * target.image + a * normal @ (normal.mT @ target.image)
    turned = a * (of_z.left - normal @ (normal.mT @ of_z.left))
    turned = turned + image @ (target.tangent.mT @ of_z.left)
    along_normal = gradient_of_r[:, None] - ratio[..., None] * normal_at_z
    left = torch.cat([image, normal, turned], dim=-1)
    right = torch.cat([target.tangent, along_normal[..., None], of_z.right], dim=-1)
    return Derivative(ratio, left, right)


def _some_normal(tangent: torch.Tensor) -> torch.Tensor:
    """Return a unit vector normal to each frame (n, r, k), or zero if a frame spans the space."""
    # Project the coordinate axis that has the longest projection.
    axis = tangent.square().sum(2).argmin(1)
    normal = torch.nn.functional.one_hot(axis, tangent.shape[1]).to(tangent.dtype)
    return _unit(normal - (tangent @ (tangent.mT @ normal[..., None]))[..., 0])[0]


def _unit(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions and lengths; the direction of the zero vector is zero."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    return _divide(vectors, lengths[..., None]), lengths


def _divide(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Return the quotient, with one as the denominator where it is zero."""
    return numerator / denominator.masked_fill(denominator == 0, 1.0)


PUSHES: dict[str, type[_PushedScore]] = {"translated": TranslatedScore, "level-set": LevelSetScore}


@dataclass(frozen=True)
class ManifoldShape:
    """A `ReducedKernel` with isotropic Gaussian offsets that are projected to a known manifold.

    The manifold is in the coordinates of the data, `push` names the field in `PUSHES`, and
    `fading_distance` follows from `reach`; offsets do not fade where `reach` is None.
    """

    manifold: Manifold
    push: str
    reach: float | None

    @property
    def rank(self) -> int:
        """The number of directions in which offsets have an effect: the manifold's dimension."""
        return self.manifold.dimension

    @property
    def n_nodes(self) -> int:
        """See `ReducedKernel`."""
        return default_n_nodes(self.rank)

    @property
    def widest_std(self) -> float:
        """Always one, since sigma is the standard deviation along the manifold."""
        return 1.0

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> FrozenPush:
        """See `ReducedKernel`."""
        offsets = FrozenKernel(LinearShape(np.eye(self.manifold.n_features)), scales, rule)
        return FrozenPush(
            self.manifold, self.push, offsets, fading_distance(self.manifold, self.reach)
        )


@dataclass(frozen=True)
class FrozenPush:
    """Smoothing along a manifold; `offsets` are isotropic, `fading` is that of `_PushedScore`."""

    manifold: Manifold
    push: str
    offsets: FrozenKernel
    fading: float | None

    @property
    def has_divergence(self) -> bool:
        """Return whether the projection has a derivative, so that densities can be computed."""
        return has_derivative(self.manifold) or not self.offsets.scales.any()

    @property
    def n_nodes(self) -> int:
        """See `Smoothing`."""
        return self.offsets.n_nodes

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the offsets (M, r) of one noise level, before projection, and weights (M,)."""
        return self.offsets.nodes(level)

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> _PushedScore:
        """See `Smoothing`."""
        offsets, weights = self.nodes(level)
        nodes = Nodes.from_arrays(offsets, weights, backend)
        hull = getattr(self.manifold, "affine_hull", None)
        span = None if hull is None else backend.tensor(hull.basis)
        return PUSHES[self.push](posterior, self.manifold, nodes, exclude, self.fading, span)


def fading_distance(manifold: Manifold, reach: float | None) -> float | None:
    """Return the distance from the manifold, within its span, at which offsets are zero, or None.

    It is reach * sqrt(c), c the codimension in that span. Nearest points are unique up to the reach
    only, but towards the centre of curvature, the one direction where the reach is that short, noise
    in c normal directions has only 1 / sqrt(c) of its length.
    """
    if reach is None:
        return None
    hull = getattr(manifold, "affine_hull", None)
    dimension = manifold.n_features if hull is None else hull.dimension
    return reach * math.sqrt(max(dimension - manifold.dimension, 1))


def distance_in_span(manifold: Manifold, x: torch.Tensor) -> torch.Tensor:
    """Return the distances (n,) from a manifold within its span; offsets decrease with them."""
    normal = x - manifold.project(x)
    hull = getattr(manifold, "affine_hull", None)
    if hull is not None:
        normal = normal @ torch.from_numpy(hull.basis).to(x)
    return torch.linalg.vector_norm(normal, dim=1)
