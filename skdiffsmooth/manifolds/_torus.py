"""The torus of revolution: all points at a given distance from a circle, in three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.validation import check_real, check_real_array
from ._base import SmoothManifoldBase, checked_center, orthonormal, polar


class Torus(SmoothManifoldBase):
    """All points at a given distance from a circle, in a three-dimensional subspace that contains it.

    Parameters
    ----------
    center : array-like of shape (d,)
        The center of the circle, in units of X.
    radius : float
        The radius R of the circle, in units of X.
    tube_radius : float
        The distance r from the circle, in units of X; smaller than R.
    basis : array-like of shape (d, 3), optional
        Independent directions: two of the circle's plane, and the axis, which is made orthogonal
        to them. Optional in R^3 only.

    Attributes
    ----------
    center : ndarray of shape (d,)
        As given.
    radius, tube_radius : float
        As given.
    basis : ndarray of shape (d, 3)
        Orthonormal basis of the subspace; its first column has the direction of the first one given.

    Raises
    ------
    ValueError
        If the shapes do not agree, a value is not finite, the directions are dependent, or the
        radii are not 0 < tube_radius < radius.
    TypeError
        If a radius is not a number.

    Notes
    -----
    With u the direction from the axis to x, rho the distance of x from the axis and delta that from the
    circle, the projection is center + R u + r (x - center - R u) / delta, all in the subspace. The
    tangents point around the axis and around the tube. In their coordinates the derivative is diagonal,
    with (R + r cos phi) / rho and r / delta, phi the angle on the tube. The reach is the smaller of r
    and R - r, the distances of the torus from the circle, and of its inner equator from the axis.

    For points of the axis u is the first column of `basis`, and points of the circle are projected
    outwards. Derivatives there are infinite; the value returned is that at an offset of R times the
    machine epsilon.

    n projections cost O(n d), and are exact to rounding.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import Torus
    >>> torus = Torus([0.0, 0.0, 0.0], 2.0, 0.5)
    >>> torus
    <Torus of dimension 2 in R^3>
    >>> torus.project([[4.0, 0.0, 0.0], [0.0, 2.0, 3.0]])
    array([[2.5, 0. , 0. ],
           [0. , 2. , 0.5]])
    >>> torus.reach
    0.5
    """

    def __init__(self, center: Any, radius: Any, tube_radius: Any, basis: Any = None) -> None:
        center = checked_center(center)
        self.radius = check_real("radius", radius, hint="It is in units of X.")
        hint = "It is in units of X, and below radius, so that the tube does not intersect itself."
        self.tube_radius = check_real("tube_radius", tube_radius, below=self.radius, hint=hint)
        given = np.eye(len(center)) if basis is None else check_real_array("basis", basis)
        if given.shape != (len(center), 3):
            raise ValueError(
                f"basis has shape {given.shape} for a center of shape {center.shape}; expected (d, "
                "3), two directions of the circle's plane and the axis. Pass basis if center has "
                "more than three coordinates."
            )
        self.center = center
        self.basis = orthonormal(given)
        self._set_hull(AffineHull(self.center, self.basis))

    @property
    def dimension(self) -> int:
        """Dimension of the manifold, which is two."""
        return 2

    @property
    def reach(self) -> float:
        """The smaller of the radius of the tube and the distance of its inner equator from the axis."""
        return min(self.tube_radius, self.radius - self.tube_radius)

    def _nearest(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return directions (n, 2) and distances (n, 1) from the axis, then from the circle."""
        center, basis = self._constants.like(x)
        offset = (x - center) @ basis
        around, rho = polar(offset[:, :2])
        tube, delta = polar(torch.cat([rho - self.radius, offset[:, 2:]], dim=1))
        return around, rho, tube, delta

    def _point(self, nearest: tuple[torch.Tensor, ...]) -> torch.Tensor:
        around, _, tube, _ = nearest
        center, basis = self._constants.like(around)
        out = (self.radius + self.tube_radius * tube[:, :1]) * around
        return center + torch.cat([out, self.tube_radius * tube[:, 1:]], dim=1) @ basis.T

    def _frame(self, nearest: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return unit tangents (n, d, 2) around the axis and around the tube."""
        around, _, tube, _ = nearest
        _, basis = self._constants.like(around)
        (x, y), (out, up) = around.unbind(1), tube.unbind(1)
        rows = [
            torch.stack([-y, -up * x], dim=1),
            torch.stack([x, -up * y], dim=1),
            torch.stack([torch.zeros_like(out), out], dim=1),
        ]
        return basis @ torch.stack(rows, dim=1)

    def _ratio(self, nearest: tuple[torch.Tensor, ...]) -> torch.Tensor:
        _, rho, tube, delta = nearest
        smallest = self.radius * torch.finfo(rho.dtype).eps
        around = (self.radius + self.tube_radius * tube[:, :1]) / rho.clamp_min(smallest)
        along = self.tube_radius / delta.clamp_min(smallest)
        return torch.diag_embed(torch.cat([around, along], dim=1))
