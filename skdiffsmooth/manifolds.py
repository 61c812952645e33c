"""Manifolds: where data live or are thought to live, with projection, distance and tangents."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from ._validation import check_real_array

__all__ = ["AffineSubspace", "Manifold"]


@runtime_checkable
class Manifold(Protocol):
    """What a manifold promises; `project` is idempotent."""

    @property
    def n_features(self) -> int:
        """Dimension d of the space around it."""
        ...

    @property
    def dimension(self) -> int:
        """Dimension k of the manifold."""
        ...

    def project(self, X: np.ndarray) -> np.ndarray:
        """Return the nearest points of the manifold, shape (n, d)."""
        ...

    def distance(self, X: np.ndarray) -> np.ndarray:
        """Return the distances to the manifold, shape (n,)."""
        ...

    def tangent(self, X: np.ndarray) -> np.ndarray:
        """Return orthonormal bases of the tangent spaces at the projections, shape (n, d, k)."""
        ...


class AffineSubspace:
    """The solutions of A x = b.

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
        If the shapes do not agree, a number is not finite, or the rows are dependent.

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
                "c, d >= 1."
            )
        if not (np.all(np.isfinite(A)) and np.all(np.isfinite(b))):
            raise ValueError("A and b must be finite; got NaN or infinity.")
        left, lengths, right = np.linalg.svd(A, full_matrices=True)
        rank = int(np.sum(lengths > max(A.shape) * np.finfo(np.float64).eps * lengths.max()))
        if rank < len(A):
            raise ValueError(
                f"the {len(A)} rows of A have rank {rank}; expected independent rows. Drop the "
                "redundant equations."
            )
        self.origin = right[:rank].T @ ((left.T @ b) / lengths)
        self.basis = np.ascontiguousarray(right[rank:].T)

    @classmethod
    def from_basis(cls, origin: Any, basis: Any) -> AffineSubspace:
        """Build a subspace from one of its points and the directions along it.

        Parameters
        ----------
        origin : array-like of shape (d,)
            A point of the subspace.
        basis : array-like of shape (d, k)
            Linearly independent directions, k <= d.

        Returns
        -------
        AffineSubspace

        Raises
        ------
        ValueError
            If the shapes do not agree, a number is not finite, or the directions are dependent.
        """
        origin = check_real_array("origin", origin)
        basis = check_real_array("basis", basis)
        if basis.ndim != 2 or origin.shape != basis.shape[:1]:
            raise ValueError(
                f"origin has shape {origin.shape} and basis has shape {basis.shape}; expected (d,) "
                "and (d, k)."
            )
        if not (np.all(np.isfinite(origin)) and np.all(np.isfinite(basis))):
            raise ValueError("origin and basis must be finite; got NaN or infinity.")
        if np.linalg.matrix_rank(basis) < basis.shape[1]:
            raise ValueError(
                f"the {basis.shape[1]} columns of basis are dependent; expected independent ones."
            )
        subspace = cls.__new__(cls)
        subspace.basis = np.linalg.qr(basis)[0]
        subspace.origin = origin - subspace.basis @ (subspace.basis.T @ origin)
        return subspace

    def __repr__(self) -> str:
        return f"<AffineSubspace of dimension {self.dimension} in R^{self.n_features}>"

    @property
    def n_features(self) -> int:
        """Dimension d of the space around it."""
        return self.basis.shape[0]

    @property
    def dimension(self) -> int:
        """Dimension k of the subspace."""
        return self.basis.shape[1]

    def project(self, X: Any) -> np.ndarray:
        """Return the nearest points of the subspace.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Points.

        Returns
        -------
        ndarray of shape (n, d)

        Raises
        ------
        ValueError
            If X does not have d columns.
        """
        X = self._check(X)
        return self.origin + (X - self.origin) @ self.basis @ self.basis.T

    def distance(self, X: Any) -> np.ndarray:
        """Return the distances to the subspace.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Points.

        Returns
        -------
        ndarray of shape (n,)
            In units of X.

        Raises
        ------
        ValueError
            If X does not have d columns.
        """
        return np.linalg.norm(self._check(X) - self.project(X), axis=1)

    def tangent(self, X: Any) -> np.ndarray:
        """Return a basis of the tangent space at each projection: the same one everywhere.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Points.

        Returns
        -------
        ndarray of shape (n, d, k)
            A read-only view with orthonormal columns.

        Raises
        ------
        ValueError
            If X does not have d columns.
        """
        return np.broadcast_to(self.basis, (len(self._check(X)), *self.basis.shape))

    def _check(self, X: Any) -> np.ndarray:
        X = check_real_array("X", X)
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"X has shape {X.shape}; expected (n, {self.n_features}).")
        return X
