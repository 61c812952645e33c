"""The affine hull of the data: the few coordinates in which everything expensive happens.

Log-domain smoothing acts along the affine hull only (Farghly et al. 2025, Prop. 3.1), so a model in
the r coordinates of the hull, times an exact Gaussian in the other d - r, is the model in R^d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.shards import ONE_PROCESS, Shards

__all__ = ["AffineHull", "principal_axes"]

# What sticks out of a hull by less than this share of its own length is taken to lie in it.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class AffineHull:
    """The smallest affine subspace that holds every point, in its principal coordinates.

    Parameters
    ----------
    center : ndarray of shape (d,)
        The mean of the points.
    basis : ndarray of shape (d, r)
        Orthonormal columns, ordered by decreasing spread.
    """

    center: np.ndarray
    basis: np.ndarray

    @classmethod
    def of(
        cls, points: np.ndarray, shards: Shards = ONE_PROCESS, axes: np.ndarray | None = None
    ) -> AffineHull:
        """Find the hull of a set of points.

        Parameters
        ----------
        points : ndarray of shape (n_points, d)
            Distinct points; their weights have no say in what they span.
        shards : Shards, default=ONE_PROCESS
            Where the other points are, if these are not all.
        axes : ndarray of shape (d, r), optional
            Orthonormal columns that span the hull, where they are known, in the order to keep.

        Returns
        -------
        AffineHull
        """
        shape = shards.total(len(points)), points.shape[1]
        center = shards.total(points.sum(axis=0)) / shape[0]
        centered = points - center
        # The rounding of a large mean is shared by all rows and would pass for a direction.
        centered -= shards.total(centered.sum(axis=0)) / shape[0]
        basis = axes
        if basis is None:
            spread, directions = principal_axes(centered, shards)
            # Rounding leaves singular values of this size in directions the data does not have: the
            # first term is the SVD's own error, the second the norm of a matrix of rounding errors.
            eps = np.finfo(np.float64).eps
            rounding = eps * max(shape) * spread.max(initial=0.0)
            rounding += 2 * eps * sum(np.sqrt(shape)) * shards.largest(np.abs(points).max())
            basis = directions[spread > rounding].T
        # Signs by the third moment turn with the data, so a rotated data set gets the same
        # coordinates and, node by node, the same model.
        # A power of two changes no sign, and keeps cubes of 1e120 and 1e-120 within the numbers.
        size = shards.largest(np.abs(centered).max(initial=0.0))
        scaled = np.ldexp(centered @ basis, -np.frexp(size)[1])
        skewness = shards.total(np.sum(scaled**3, axis=0))
        return cls(center, np.ascontiguousarray(basis * np.where(skewness < 0, -1.0, 1.0)))

    def joined(self, other: AffineHull | None) -> AffineHull:
        """Return an affine subspace that holds this one and another.

        The coordinates of this one stay what they are, and others come behind them.

        Parameters
        ----------
        other : AffineHull or None
            None is the whole space.

        Returns
        -------
        AffineHull
        """
        if other is None:
            directions = np.eye(self.n_features)
        else:
            offset = other.center - self.center
            length = float(np.linalg.norm(offset))
            # A difference of large coordinates that is all rounding is no direction.
            largest = max(np.abs(self.center).max(), np.abs(other.center).max())
            directions = other.basis.T
            if length > _ROUNDING * largest:
                directions = np.vstack([directions, offset / length])
        # Twice: what the first pass leaves of a direction is orthogonal up to rounding of all of it.
        outside = self.project_out(self.project_out(directions))
        _, lengths, right = np.linalg.svd(outside, full_matrices=False)
        n_new = min(int(np.sum(lengths > _ROUNDING)), self.codimension)
        return AffineHull(self.center, np.column_stack([self.basis, right[:n_new].T]))

    @property
    def n_features(self) -> int:
        """Dimension d of the space."""
        return self.basis.shape[0]

    @property
    def dimension(self) -> int:
        """Dimension r of the hull."""
        return self.basis.shape[1]

    @property
    def codimension(self) -> int:
        """Number d - r of directions in which the data has no extent."""
        return self.n_features - self.dimension

    def split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split rows into hull coordinates and what sticks out of the hull.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Rows in the user's coordinates.

        Returns
        -------
        coordinates : ndarray of shape (n, r)
            Principal coordinates of the projection.
        residual : ndarray of shape (n, d)
            The part orthogonal to the hull; exactly zero where the hull is the whole space.
        """
        centered = X - self.center
        coordinates = centered @ self.basis
        if self.codimension == 0:
            return coordinates, np.zeros_like(centered)
        return coordinates, centered - coordinates @ self.basis.T

    def lift(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the points of the hull with these coordinates.

        Parameters
        ----------
        coordinates : ndarray of shape (n, r)
            Principal coordinates.

        Returns
        -------
        ndarray of shape (n, d)
        """
        return self.center + coordinates @ self.basis.T

    def project_out(self, vectors: np.ndarray) -> np.ndarray:
        """Remove from vectors their component along the hull.

        Parameters
        ----------
        vectors : ndarray of shape (n, d)
            Directions, not points.

        Returns
        -------
        ndarray of shape (n, d)
        """
        if self.codimension == 0:
            return np.zeros_like(vectors)
        return vectors - (vectors @ self.basis) @ self.basis.T


def principal_axes(rows: np.ndarray, shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    """Return singular values and right singular vectors of the rows of all shards.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        This process's rows.
    shards : Shards
        Where the others are.

    Returns
    -------
    spread : ndarray of shape (k,)
        In decreasing order, k the smaller of d and the number of all rows.
    directions : ndarray of shape (k, d)
        Orthonormal rows.
    """
    # R of a QR has the singular values of the tall matrix at a fraction of the memory, and the R of
    # all shards, one above the other, have those of all rows.
    tall = len(rows) > rows.shape[1]
    compact = np.linalg.qr(rows, mode="r") if tall else rows
    compact = np.concatenate(shards.gather(compact))
    _, spread, directions = np.linalg.svd(compact, full_matrices=False)
    # Machines may round differently, and the rank must be the same on all of them.
    return shards.first((spread, directions))
