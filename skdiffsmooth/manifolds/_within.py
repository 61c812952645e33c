"""Manifolds in coordinates of an affine subspace that contains them."""

from __future__ import annotations

import torch

from .._coordinates.hull import AffineHull
from ._base import Constants, Manifold, has_derivative, projection_factors


class Within:
    """A manifold in R^d, in coordinates of an affine subspace that contains it; for tensors only."""

    def __init__(self, manifold: Manifold, hull: AffineHull) -> None:
        self.manifold = manifold
        self.hull = hull
        self._constants = Constants(hull.center, hull.basis)

    @property
    def n_features(self) -> int:
        """Dimension of the subspace."""
        return self.hull.dimension

    @property
    def dimension(self) -> int:
        """Dimension k of the manifold."""
        return self.manifold.dimension

    @property
    def reach(self) -> float | None:
        """See `Manifold`."""
        return self.manifold.reach

    @property
    def affine_hull(self) -> AffineHull | None:
        """The affine hull of the manifold in coordinates of the subspace; None if not known."""
        own = getattr(self.manifold, "affine_hull", None)
        if own is None:
            return None
        center, _ = self.hull.split(own.center[None])
        return AffineHull(center[0], self.hull.basis.T @ own.basis)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """See `Manifold`."""
        center, basis = self._constants.like(x)
        return (self.manifold.project(self._lift(x)) - center) @ basis

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        """See `Manifold`."""
        return self.manifold.distance(self._lift(x))

    def tangent(self, x: torch.Tensor) -> torch.Tensor:
        """See `Manifold`."""
        return self._constants.like(x)[1].T @ self.manifold.tangent(self._lift(x))

    def _lift(self, x: torch.Tensor) -> torch.Tensor:
        center, basis = self._constants.like(x)
        return center + x @ basis.T


class DifferentiableWithin(Within):
    """`Within` for a manifold whose projection has a derivative."""

    def projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `DifferentiableManifoldBase`."""
        center, basis = self._constants.like(x)
        foot, image, tangent = projection_factors(self.manifold, self._lift(x))
        return (foot - center) @ basis, basis.T @ image, basis.T @ tangent


def within(manifold: Manifold, hull: AffineHull) -> Manifold:
    """Return the manifold in coordinates of a subspace, with a derivative if it has one in R^d."""
    own = getattr(manifold, "within", None)
    if own is not None:
        return own(hull)
    return (DifferentiableWithin if has_derivative(manifold) else Within)(manifold, hull)
