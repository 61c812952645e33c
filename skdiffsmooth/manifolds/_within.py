"""Manifolds in coordinates of an affine subspace that holds them."""

from __future__ import annotations

import torch

from .._coordinates.hull import AffineHull
from ._base import Constants, Manifold, has_derivative, projection_factors

__all__ = ["DifferentiableWithin", "Within", "within"]


class Within:
    """A manifold seen from a subspace: coordinates in, coordinates out, tensors only.

    Parameters
    ----------
    manifold : Manifold
        In R^d.
    hull : AffineHull
        Holds the manifold.
    """

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
        """That of the manifold."""
        return self.manifold.reach

    @property
    def affine_hull(self) -> AffineHull | None:
        """That of the manifold, in coordinates of the subspace; None if not known."""
        own = getattr(self.manifold, "affine_hull", None)
        if own is None:
            return None
        center, _ = self.hull.split(own.center[None])
        return AffineHull(center[0], self.hull.basis.T @ own.basis)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest points, shape (n, r).

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Coordinates.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        center, basis = self._constants.like(x)
        return (self.manifold.project(self._lift(x)) - center) @ basis

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        """Return the distances to the manifold, shape (n,).

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Coordinates.

        Returns
        -------
        torch.Tensor of shape (n,)
        """
        return self.manifold.distance(self._lift(x))

    def tangent(self, x: torch.Tensor) -> torch.Tensor:
        """Return bases of the tangent spaces at the projections, shape (n, r, k).

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Coordinates.

        Returns
        -------
        torch.Tensor of shape (n, r, k)
        """
        return self._constants.like(x)[1].T @ self.manifold.tangent(self._lift(x))

    def _lift(self, x: torch.Tensor) -> torch.Tensor:
        center, basis = self._constants.like(x)
        return center + x @ basis.T


class DifferentiableWithin(Within):
    """The same of a manifold whose projection has a derivative."""

    def projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return projections and the factors A, T of their derivatives A T^T.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Coordinates.

        Returns
        -------
        foot : torch.Tensor of shape (n, r)
        image : torch.Tensor of shape (n, r, k)
        tangent : torch.Tensor of shape (n, r, k)
        """
        center, basis = self._constants.like(x)
        foot, image, tangent = projection_factors(self.manifold, self._lift(x))
        return (foot - center) @ basis, basis.T @ image, basis.T @ tangent


def within(manifold: Manifold, hull: AffineHull) -> Manifold:
    """Return a manifold in coordinates of a subspace that holds it.

    Parameters
    ----------
    manifold : Manifold
        In R^d.
    hull : AffineHull
        An affine subspace that holds the manifold.

    Returns
    -------
    Manifold
        With a derivative, if it had one.
    """
    own = getattr(manifold, "within", None)
    if own is not None:
        return own(hull)
    return (DifferentiableWithin if has_derivative(manifold) else Within)(manifold, hull)
