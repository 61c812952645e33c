"""Spheres and circles in affine subspaces of any dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.validation import check_real, check_real_array
from ._base import SmoothManifoldBase, checked_center, orthonormal, polar


class Sphere(SmoothManifoldBase):
    """All points at a given distance from a center, in an affine subspace through it.

    Parameters
    ----------
    center : array-like of shape (d,)
        The center, in units of X.
    radius : float
        The distance, in units of X.
    basis : array-like of shape (d, k + 1), optional
        Independent directions of the subspace, k >= 1; all of R^d by default.

    Attributes
    ----------
    center : ndarray of shape (d,)
        As given.
    radius : float
        As given.
    basis : ndarray of shape (d, k + 1)
        Orthonormal basis of the subspace; its first column has the direction of the first one given.

    Raises
    ------
    ValueError
        If the shapes do not agree, a value is not finite, the directions are dependent or fewer
        than two, or the radius is not positive.
    TypeError
        If the radius is not a number.

    Notes
    -----
    With u the direction from the center to x in the subspace and rho the distance there, the
    projection is center + radius u, its derivative is radius / rho on the tangent space, and the reach
    is the radius. The tangents are the last columns of the Householder matrix whose first column is -u
    or u, oriented so that u and the tangents are a positive basis: on a circle they point
    counterclockwise.

    If the projection of x to the subspace is the center, all points of the sphere are equally near; the
    point along the first column of `basis` is returned. The derivative there is infinite; the value
    returned is 1 / eps, eps the machine epsilon of the dtype.

    n projections cost O(n d k), and are exact to rounding.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import Sphere
    >>> sphere = Sphere([0.0, 0.0, 1.0], 2.0)
    >>> sphere
    <Sphere of dimension 2 in R^3>
    >>> sphere.project([[0.0, 3.0, 5.0], [0.0, 0.0, 1.0]])
    array([[0. , 1.2, 2.6],
           [2. , 0. , 1. ]])
    >>> sphere.distance([[0.0, 3.0, 5.0]])
    array([3.])
    """

    def __init__(self, center: Any, radius: Any, basis: Any = None) -> None:
        center = checked_center(center)
        self.radius = check_real("radius", radius, hint="It is in units of X.")
        given = np.eye(len(center)) if basis is None else check_real_array("basis", basis)
        if given.ndim != 2 or len(given) != len(center) or not 2 <= given.shape[1] <= len(center):
            raise ValueError(
                f"basis has shape {given.shape} for a center of shape {center.shape}; expected "
                "(d, k + 1) with 1 <= k < d, the directions of the subspace that contains the "
                "sphere."
            )
        self.center = center
        self.basis = orthonormal(given)
        self._set_hull(AffineHull(self.center, self.basis))

    @property
    def dimension(self) -> int:
        """Dimension k of the sphere."""
        return self.basis.shape[1] - 1

    @property
    def reach(self) -> float:
        """The radius, since the center has no unique nearest point."""
        return self.radius

    def _nearest(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return directions (n, k + 1) and distances (n, 1) from the center."""
        center, basis = self._constants.like(x)
        return polar((x - center) @ basis)

    def _point(self, nearest: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        direction, _ = nearest
        center, basis = self._constants.like(direction)
        return center + self.radius * (direction @ basis.T)

    def _frame(self, nearest: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        direction, _ = nearest
        _, basis = self._constants.like(direction)
        first = direction[:, :1]
        sign = torch.where(first < 0, -torch.ones_like(first), torch.ones_like(first))
        # The reflection I - v v^T / (1 + |u_1|), v = u + sign(u_1) e_1, takes e_1 to -sign(u_1) u.
        v = torch.cat([first + sign, direction[:, 1:]], dim=1)
        identity = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        reflection = identity - v[:, :, None] * v[:, None] / (1 + first.abs())[:, :, None]
        frame = torch.cat([reflection[:, :, 1:-1], sign[:, :, None] * reflection[:, :, -1:]], dim=2)
        return basis @ frame

    def _ratio(self, nearest: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        _, distance = nearest
        smallest = self.radius * torch.finfo(distance.dtype).eps
        ratio = self.radius / distance.clamp_min(smallest)
        identity = torch.eye(self.dimension, dtype=ratio.dtype, device=ratio.device)
        return ratio[:, :, None] * identity


class Circle(Sphere):
    """All points of a plane at a given distance from a center.

    Parameters
    ----------
    center : array-like of shape (d,)
        The center, in units of X.
    radius : float
        The distance, in units of X.
    basis : array-like of shape (d, 2), optional
        Independent directions of the plane; optional in R^2 only.

    Raises
    ------
    ValueError
        If the basis does not span a plane, or as `Sphere`.
    TypeError
        If the radius is not a number.

    Notes
    -----
    It is a `Sphere` of dimension one; its tangents point counterclockwise, from the first direction to
    the second.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import Circle
    >>> circle = Circle([0.0, 0.0], 1.0)
    >>> circle.project([[3.0, 4.0]])
    array([[0.6, 0.8]])
    >>> circle.tangent([[3.0, 4.0]])
    array([[[-0.8],
            [ 0.6]]])
    >>> circle.projection_derivative([[3.0, 4.0]])
    array([[[0.2]]])
    """

    def __init__(self, center: Any, radius: Any, basis: Any = None) -> None:
        super().__init__(center, radius, basis)
        if self.dimension != 1:
            raise ValueError(
                f"basis has shape {self.basis.shape}; expected (d, 2), two directions of the "
                "circle's plane. Pass basis if center has more than two coordinates."
            )
