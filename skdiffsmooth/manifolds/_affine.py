"""Affine subspaces, given by linear equations or by a point and directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.validation import check_finite, check_real_array
from ._base import SmoothManifoldBase, orthonormal


class AffineSubspace(SmoothManifoldBase):
    """The affine subspace of all solutions of A x = b.

    Parameters
    ----------
    A : array-like of shape (c, d)
        Rows are normals of the subspace, linearly independent, of any length.
    b : array-like of shape (c,)
        Right-hand side.

    Attributes
    ----------
    origin : ndarray of shape (d,)
        The solution nearest to zero.
    basis : ndarray of shape (d, k)
        Orthonormal directions along the subspace, k = d - c.

    Raises
    ------
    ValueError
        If the shapes do not agree, a value is not finite, or the rows are dependent.

    Notes
    -----
    Construction costs a singular value decomposition of A with all d right vectors, O(c d^2);
    projections cost O(n d k).

    Examples
    --------
    >>> from skdiffsmooth.manifolds import AffineSubspace
    >>> plane = AffineSubspace([[0.0, 0.0, 2.0]], [6.0])
    >>> plane.project([[1.0, 2.0, 0.0]])
    array([[1., 2., 3.]])
    >>> plane.distance([[1.0, 2.0, 0.0]])
    array([3.])
    """

    def __init__(self, A: Any, b: Any) -> None:
        A = check_real_array("A", A)
        b = check_real_array("b", b)
        if A.ndim != 2 or b.shape != A.shape[:1] or A.size == 0:
            raise ValueError(
                f"A has shape {A.shape} and b has shape {b.shape}; expected (c, d) and (c,) with "
                "c, d >= 1. Pass one row of A and one value of b for each equation."
            )
        check_finite("A", A, "Check how it is computed.")
        check_finite("b", b, "Check how it is computed.")
        left, lengths, right = np.linalg.svd(A, full_matrices=True)
        rank = int(np.sum(lengths > max(A.shape) * np.finfo(np.float64).eps * lengths.max()))
        if rank < len(A):
            raise ValueError(
                f"the {len(A)} rows of A have rank {rank}; expected independent rows. Drop the "
                "redundant equations."
            )
        self._set(right[:rank].T @ ((left.T @ b) / lengths), np.ascontiguousarray(right[rank:].T))

    @classmethod
    def from_basis(cls, origin: Any, basis: Any) -> AffineSubspace:
        """Return the subspace through `origin` (d,) along the columns of `basis` (d, k), k <= d.

        Raises ValueError if shapes do not agree, a value is not finite, or the directions are
        dependent.
        """
        origin = check_real_array("origin", origin)
        basis = check_real_array("basis", basis)
        if basis.ndim != 2 or origin.shape != basis.shape[:1]:
            raise ValueError(
                f"origin has shape {origin.shape} and basis has shape {basis.shape}; expected (d,) "
                "and (d, k), one column for each direction."
            )
        for name, values in (("origin", origin), ("basis", basis)):
            check_finite(name, values, "Drop the rows that they were computed from.")
        subspace = cls.__new__(cls)
        basis = orthonormal(basis)
        subspace._set(origin - basis @ (basis.T @ origin), basis)
        return subspace

    def _set(self, origin: np.ndarray, basis: np.ndarray) -> None:
        self.origin = origin
        self.basis = basis
        self._set_hull(AffineHull(origin, basis))

    @property
    def dimension(self) -> int:
        """Dimension k of the subspace."""
        return self.basis.shape[1]

    @property
    def reach(self) -> float:
        """The reach, which is infinite: every point has one nearest point."""
        return math.inf

    def _nearest(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _point(self, x: torch.Tensor) -> torch.Tensor:
        origin, basis = self._constants.like(x)
        return torch.addmm(origin, (x - origin) @ basis, basis.T)

    def _frame(self, x: torch.Tensor) -> torch.Tensor:
        _, basis = self._constants.like(x)
        # A copy, so that writing to the result does not change the subspace.
        return basis.clone().expand(len(x), *basis.shape)

    def _ratio(self, x: torch.Tensor) -> torch.Tensor:
        identity = torch.eye(self.dimension, dtype=x.dtype, device=x.device)
        return identity.expand(len(x), *identity.shape)
