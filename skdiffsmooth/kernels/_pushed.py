"""Score fields smoothed along a known manifold: the empirical score, averaged where a kernel pushes x.

The kernel moves a query x to y_m, one place for each node, and the field averages the score there:

    s(x) = sum_m q_m (D(y_m) - y_m) / v,        div s = sum_m q_m tr[ J(y_m) dy_m/dx ],

with J(y) = (Cov(y) / v - I) / v. Where y_m depends on x through projections on the manifold,
dy_m/dx = a I + L R^T with L and R of few columns, and

    tr[ J (a I + L R^T) ] = ( (a tr Cov + tr R^T Cov L) / v - a r - tr R^T L ) / v.

The field is no gradient, and this is its own divergence: what the likelihood needs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import torch

from .._engine.influence import Influence
from .._engine.moments import Denoiser, Nodes
from .._engine.posterior import Posterior
from .._utils.backend import Backend
from .._utils.memory import rows_within, slices
from ..manifolds import Manifold
from ..manifolds._base import has_derivative, projection_factors
from ._nodes import NodeRule, default_n_nodes
from ._shapes import FrozenKernel, LinearShape

__all__ = [
    "PUSHES",
    "FrozenPush",
    "LevelSetScore",
    "ManifoldShape",
    "TranslatedScore",
    "distance_in_span",
    "fading_out",
]


class _Derivative(NamedTuple):
    """dy_m/dx = stretch I + left right^T, for B queries and M nodes.

    `stretch` broadcasts to (B, M), `left` and `right` to (B, M, r, j).
    """

    stretch: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor


class _Place(NamedTuple):
    """The projections of places (..., r), with A and T of their derivatives A T^T.

    `image` and `tangent` have shape (..., r, k), or (..., r, 0) where they were not asked for.
    """

    foot: torch.Tensor
    image: torch.Tensor
    tangent: torch.Tensor

    def outward(self, direction: torch.Tensor) -> torch.Tensor:
        """Return (I - A T^T)^T u: how the part of x - foot along u (..., r) changes with x.

        Nearest points move orthogonally to x - foot, so for them it is u; others need not.
        """
        along = self.tangent @ (self.image.mT @ direction[..., None])
        return direction - along[..., 0]


@dataclass(frozen=True)
class _PushedScore(ABC):
    """The empirical score averaged over the places that a subclass pushes a query to.

    Parameters
    ----------
    posterior : Denoiser
        The data.
    manifold : Manifold
        In the coordinates of the data; one with a derivative, if divergences are asked for.
    nodes : Nodes
        Quadrature rule for the offsets, of mean zero.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query does not see.
    reach : float, optional
        Distance from the manifold, within its span, between half of which and all of which offsets
        fade out, in units of the data. None: they do not fade.
    span : torch.Tensor of shape (r, h), optional
        Orthonormal directions of an affine subspace that holds the manifold, outside of which nothing
        moves nearest points; None is the whole space.
    """

    posterior: Denoiser
    manifold: Manifold
    nodes: Nodes
    exclude: torch.Tensor | None = None
    reach: float | None = None
    span: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the smoothed score.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        return self._averages(x, v, with_divergence=False)[:, :-1]

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smoothed score and its divergence.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        score : torch.Tensor of shape (n, r)
        divergence : torch.Tensor of shape (n,)
            Of the field as it is, derivatives of the pushed places included.
        """
        averages = self._averages(x, v, with_divergence=True)
        return averages[:, :-1], averages[:, -1]

    def rows(self, index: torch.Tensor) -> _PushedScore:
        """Return the field of some of the queries.

        Parameters
        ----------
        index : torch.Tensor of shape (m,)
            Which.

        Returns
        -------
        _PushedScore
        """
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """Return the weights and pulls of the points.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        Influence
        """
        places, _ = self._push(x, self.nodes.offsets, with_derivative=False)
        return cast(Posterior, self.posterior).influence(places, v, self.nodes.weights)

    @abstractmethod
    def _push(
        self, x: torch.Tensor, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, _Derivative | None]:
        """Return y_m, shape (B, M, r), and its derivative if that is asked for."""

    def _averages(self, x: torch.Tensor, v: float, *, with_divergence: bool) -> torch.Tensor:
        """Return the score and, in the last column, the divergence or nothing of meaning."""
        # Where the engine goes to double precision, places rounded to single would be too coarse.
        precision = self.posterior.precision_at(v)
        offsets, weights = self.nodes.offsets.to(precision), self.nodes.weights.to(precision)
        out = x.new_empty(len(x), x.shape[1] + 1)
        for rows in slices(len(x), self._queries_at_once(x.shape[1])):
            y, derivative = self._push(
                x[rows].to(precision), offsets, with_derivative=with_divergence
            )
            unseen = None
            if self.exclude is not None:
                unseen = self.exclude[rows, None].expand(-1, len(weights)).flatten()
            found = _scores(self.posterior, y, v, derivative, unseen)
            out[rows] = torch.einsum("m,bmc->bc", weights, found).to(x.dtype)
        return out

    def _translate(
        self, x: torch.Tensor, here: _Place, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, _Derivative | None]:
        """Move x along the manifold that is translated to it."""
        there = self._look(here.foot[:, None] + offsets, with_derivative=with_derivative)
        shift = there.foot - here.foot[:, None]
        share, slope = self._share_within_reach(x - here.foot)
        y = x[:, None] + share[:, None, None] * shift
        if not with_derivative:
            return y, None
        image = here.image[:, None]
        left = there.image @ (there.tangent.mT @ image) - image
        left = share[:, None, None, None] * left
        right = here.tangent[:, None].expand_as(left)
        if self.reach is not None:
            # The share changes with the distance from the manifold.
            left = torch.cat([left, shift[..., None]], dim=-1)
            across = here.outward(slope)[:, None, :, None].expand_as(shift[..., None])
            right = torch.cat([right, across], dim=-1)
        return y, _Derivative(y.new_ones(1, 1), left, right)

    def _share_within_reach(self, normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the share of the offsets at queries this far from their feet, and its slope.

        It is one up to half of the reach and zero beyond it, by a cubic between, with a slope in
        x - foot. Where the foot is not unique the offsets would jump.
        """
        if self.reach is None:
            return normal.new_ones(len(normal)), torch.zeros_like(normal)
        if self.span is not None:
            # Places may be in double where the data are in single precision.
            span = self.span.to(normal.dtype)
            normal = (normal @ span) @ span.T
        direction, distance = _unit(normal)
        place = (2 * distance / self.reach - 1).clamp(0, 1)
        share = 1 - place.square() * (3 - 2 * place)
        return share, -12 * (place * (1 - place))[:, None] * direction / self.reach

    def _look(self, z: torch.Tensor, *, with_derivative: bool) -> _Place:
        """Project places (..., r): once for all that is asked for, since a search may be dear."""
        flat = z.flatten(0, -2)
        if not with_derivative:
            nothing = z.new_empty(*z.shape, 0)
            return _Place(self.manifold.project(flat).view_as(z), nothing, nothing)
        foot, *factors = projection_factors(self.manifold, flat)
        shape = *z.shape, self.manifold.dimension
        return _Place(foot.view_as(z), *(factor.reshape(shape) for factor in factors))

    def _queries_at_once(self, rank: int) -> int:
        """Count queries whose places and derivatives take half of the memory; tiles take the other."""
        # A dozen vectors for each place, and as many frames and directions.
        numbers = 12 * len(self.nodes) * max(rank, 1) * (2 + 2 * self.manifold.dimension)
        return rows_within(8 * numbers, self.posterior.memory_limit / 2)


@dataclass(frozen=True)
class TranslatedScore(_PushedScore):
    """Smoothing along the copy of the manifold that is translated to the query.

    y_m = x + Pi(p + xi_m) - p with p = Pi(x) (Farghly et al. 2025, the form of the experiments):
    the manifold goes through x, whatever its distance.

    Parameters
    ----------
    posterior : Denoiser
        The data.
    manifold : Manifold
        In the coordinates of the data; one with a derivative, if divergences are asked for.
    nodes : Nodes
        Quadrature rule for the offsets, of mean zero.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query does not see.
    reach : float, optional
        Distance within which offsets fade out; None: they do not.
    span : torch.Tensor of shape (r, h), optional
        Where that distance is measured.

    Notes
    -----
    dy/dx = I + (A_m T_m^T - I) A T^T, with A_m, T_m those of p + xi_m: of rank k beside the
    identity. Where a share c of the offsets is left, y = x + c (Pi(p + xi_m) - p), that term is c
    times as large and (Pi(p + xi_m) - p) (dc/dx)^T is added.

    Without fading the field jumps where the projection does (the medial axis: a circle's centre), and
    its divergence grows as one over the distance from there: single log-densities that start beside
    it are wrong at any number of steps, though their mass is small.
    """

    def _push(
        self, x: torch.Tensor, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, _Derivative | None]:
        here = self._look(x, with_derivative=with_derivative)
        return self._translate(x, here, offsets, with_derivative=with_derivative)


@dataclass(frozen=True)
class LevelSetScore(_PushedScore):
    """Smoothing along the set of points that are as far from the manifold as the query.

    y_m = Pi(z_m) + r n_m, where z_m is the place of `TranslatedScore`, n_m the unit vector from
    Pi(z_m) to z_m and r the distance of x: the normal is turned with the manifold, and the kernel
    stays on a level set of the distance as in Farghly et al. 2025, eq. 10.

    Parameters
    ----------
    posterior : Denoiser
        The data.
    manifold : Manifold
        In the coordinates of the data; one with a derivative, if divergences are asked for.
    nodes : Nodes
        Quadrature rule for the offsets, of mean zero.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query does not see.
    reach : float, optional
        Distance within which offsets fade out; None: they do not.
    span : torch.Tensor of shape (r, h), optional
        Where that distance is measured.

    Notes
    -----
    The paper pushes x + xi_m, which at a distance r below the kernel's scale lands on all sides of
    the manifold alike. That does for log-densities; scores of opposite sides cancel and leave
    no pull to the manifold, and where x + xi_m crosses a hypersurface its normal flips: with frozen
    nodes the field jumps there, and its flow is not invertible (on a circle of 12 points 0.4 of the
    mass was lost). From z_m, at a distance of about r, the normal is that of x, carried along.
    Towards the medial axis z_m may come to the manifold again: keep the offsets well below the reach
    (on the unit circle a scale of 0.3 kept the mass to 1e-3, 0.45 to 1e-2, 0.6 not at all).

    With rho = |z_m - Pi(z_m)|, a = r / rho, P the derivative of Pi at x, P_m that at z_m, and n the
    unit vector from Pi(x) to x,
    dy/dx = (P_m + a (I - n_m n_m^T) (I - P_m)) dz_m/dx + n_m n^T (I - P).
    Where projections are nearest points n^T P = 0. On the manifold n is one of the directions with
    P n = 0, its normals, n_m is N_m n / |N_m n| and a is 1 / |N_m n|, with N_m = I - P_m: the limits of
    the above along n. A hypersurface has one normal but for its sign, which cancels. Otherwise the
    derivative depends on the side from which one comes, and this is one side's.
    """

    def _push(
        self, x: torch.Tensor, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, _Derivative | None]:
        place = self._look(x, with_derivative=with_derivative)
        moved, derivative = self._translate(x, place, offsets, with_derivative=with_derivative)
        target = self._look(moved, with_derivative=with_derivative)
        there, distance_there = _unit(moved - target.foot)
        here, distance = _unit(x - place.foot)
        y = target.foot + distance[:, None, None] * there
        if derivative is None:
            return y, None
        # A direction is lost in rounding, of eps / r; its limit is wrong by about r.
        close = distance <= math.sqrt(torch.finfo(x.dtype).eps) * x.abs().amax(1)
        here = torch.where(close[:, None], _some_normal(place.tangent), here)
        moves = target.image @ (target.tangent.mT @ here[:, None, :, None])
        carried, share = _unit(here[:, None] - moves[..., 0])
        there = torch.where(close[:, None, None], carried, there)
        ratio = _divide(distance[:, None], distance_there)
        ratio = torch.where(close[:, None], _divide(torch.ones_like(share), share), ratio)
        return y, _on_level_set(derivative, place.outward(here), there, ratio, target)


def _on_level_set(
    moved: _Derivative,
    farther: torch.Tensor,
    there: torch.Tensor,
    ratio: torch.Tensor,
    target: _Place,
) -> _Derivative:
    """Return the derivative of Pi(z) + r n_m from those of z, which has a stretch of one, and of r."""
    spread, normal = ratio[..., None, None], there[..., None]
    image = (1 - spread) * target.image + spread * normal @ (normal.mT @ target.image)
    carried = spread * (moved.left - normal @ (normal.mT @ moved.left))
    carried = carried + image @ (target.tangent.mT @ moved.left)
    turned = farther[:, None] - ratio[..., None] * there
    left = torch.cat([image, normal, carried], dim=-1)
    right = torch.cat([target.tangent, turned[..., None], moved.right], dim=-1)
    return _Derivative(ratio, left, right)


def _some_normal(tangent: torch.Tensor) -> torch.Tensor:
    """Return a unit vector normal to each frame (n, r, k), or zero if the frame spans the space."""
    # Of all axes the one that sticks out most.
    axis = tangent.square().sum(2).argmin(1)
    normal = torch.nn.functional.one_hot(axis, tangent.shape[1]).to(tangent.dtype)
    return _unit(normal - (tangent @ (tangent.mT @ normal[..., None]))[..., 0])[0]


def _unit(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions and lengths; a vector of length zero has itself for a direction."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    return _divide(vectors, lengths[..., None]), lengths


def _divide(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Divide, by one in place of zero."""
    return numerator / denominator.masked_fill(denominator == 0, 1.0)


def _scores(
    posterior: Denoiser,
    y: torch.Tensor,
    v: float,
    derivative: _Derivative | None,
    exclude: torch.Tensor | None,
) -> torch.Tensor:
    """Return the empirical scores at y and their divergences in x, zero without a derivative."""
    rank = y.shape[-1]
    left = y.new_empty(*y.shape, 0) if derivative is None else derivative.left
    found = posterior.covariance_along(y.flatten(0, 1), v, left.flatten(0, 1), exclude=exclude)
    scores = (found.mean.view_as(y) - y) / v
    if derivative is None:
        return torch.nn.functional.pad(scores, (0, 1))
    stretch, right = derivative.stretch, derivative.right
    spread = stretch * found.trace.view(y.shape[:2])
    spread = spread + (right * found.along.view_as(left)).sum((-1, -2))
    bare = stretch * rank + (right * left).sum((-1, -2))
    return torch.cat([scores, ((spread / v - bare) / v)[..., None]], dim=-1)


PUSHES: dict[str, type[_PushedScore]] = {"translated": TranslatedScore, "level-set": LevelSetScore}


@dataclass(frozen=True)
class ManifoldShape:
    """Isotropic Gaussian offsets, pushed along a known manifold.

    Parameters
    ----------
    manifold : Manifold
        In the coordinates of the data.
    push : {"translated", "level-set"}
        What along the manifold means.
    reach : float or None
        Distance from which `fading_out` follows; None: offsets do not fade.
    """

    manifold: Manifold
    push: str
    reach: float | None

    @property
    def rank(self) -> int:
        """Dimension of the manifold, along which the offsets matter."""
        return self.manifold.dimension

    @property
    def n_nodes(self) -> int:
        """Number of nodes that are enough for most data."""
        return default_n_nodes(self.rank)

    @property
    def spread(self) -> float:
        """One: sigma is the standard deviation along each direction of the manifold."""
        return 1.0

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> FrozenPush:
        """Return the smoothing that has one scale and one set of nodes in each noise level."""
        offsets = FrozenKernel(LinearShape(np.eye(self.manifold.n_features)), scales, rule)
        return FrozenPush(self.manifold, self.push, offsets, fading_out(self.manifold, self.reach))


@dataclass(frozen=True)
class FrozenPush:
    """A manifold and how to go along it, with offsets for each noise level.

    Parameters
    ----------
    manifold : Manifold
        In the coordinates of the data.
    push : {"translated", "level-set"}
        What along the manifold means.
    offsets : FrozenKernel
        Before they are pushed.
    fading : float or None
        Where they have faded out, see `fading_out`.
    """

    manifold: Manifold
    push: str
    offsets: FrozenKernel
    fading: float | None

    @property
    def has_divergence(self) -> bool:
        """Tell whether the projection has a derivative, and the law therefore a density."""
        return has_derivative(self.manifold) or not self.offsets.scales.any()

    @property
    def n_nodes(self) -> int:
        """Number of nodes in a noise level."""
        return self.offsets.n_nodes

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the offsets of one noise level before they are pushed, and their weights.

        Parameters
        ----------
        level : int
            Which noise level.

        Returns
        -------
        offsets : ndarray of shape (M, r)
        weights : ndarray of shape (M,)
        """
        return self.offsets.nodes(level)

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> _PushedScore:
        """Return the smoothed score of one noise level; see `Smoothing`."""
        offsets, weights = self.nodes(level)
        nodes = Nodes.from_arrays(offsets, weights, backend)
        hull = getattr(self.manifold, "affine_hull", None)
        span = None if hull is None else backend.tensor(hull.basis)
        return PUSHES[self.push](posterior, self.manifold, nodes, exclude, self.fading, span)


def fading_out(manifold: Manifold, reach: float | None) -> float | None:
    """Return the distance at which offsets have faded out, in the manifold's own span.

    Noise in c normal directions has a share of one in root c of its length along the one towards
    the centre of curvature, where alone the reach is that short.

    Parameters
    ----------
    manifold : Manifold
        In the coordinates of the data.
    reach : float or None
        Distance up to which projections are unique, in units of the data.

    Returns
    -------
    float or None
        In units of the data; None where nothing fades.
    """
    if reach is None:
        return None
    hull = getattr(manifold, "affine_hull", None)
    dimension = manifold.n_features if hull is None else hull.dimension
    return reach * math.sqrt(max(dimension - manifold.dimension, 1))


def distance_in_span(manifold: Manifold, x: torch.Tensor) -> torch.Tensor:
    """Return the distances by which offsets fade: those of the part of x in the manifold's span.

    Parameters
    ----------
    manifold : Manifold
        In the coordinates of the data.
    x : torch.Tensor of shape (n, r)
        Places.

    Returns
    -------
    torch.Tensor of shape (n,)
    """
    normal = x - manifold.project(x)
    hull = getattr(manifold, "affine_hull", None)
    if hull is not None:
        normal = normal @ torch.from_numpy(hull.basis).to(x)
    return torch.linalg.vector_norm(normal, dim=1)
