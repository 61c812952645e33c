"""The affine hull of the data, in whose coordinates the expensive computations are done.

Log-domain smoothing acts along the affine hull only (Farghly et al. 2025, Prop. 3.1), so a model in
the r coordinates of the hull, times an exact Gaussian in the other d - r, is the model in R^d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.column_precision import has_extent
from .._utils.shards import ONE_PROCESS, Shards
from .._utils.table import column_label

# Rows farther from the median than this many times the usual distance would hide other directions.
_FAR = 2.0**20
# A direction whose part outside a hull is below this fraction of its length counts as inside.
_ROUNDING = 1e-10
# A column is lost if more than this share of its extent is outside the hull.
_LOST = 0.1


@dataclass(frozen=True)
class AffineHull:
    """The smallest affine subspace that holds every point, in its principal coordinates."""

    center: np.ndarray  # (d,): the mean of the points
    basis: np.ndarray  # (d, r): orthonormal columns, by decreasing singular value

    @classmethod
    def of(
        cls, points: np.ndarray, shards: Shards = ONE_PROCESS, axes: np.ndarray | None = None
    ) -> AffineHull:
        """Return the hull of points (n, d) of all shards; known `axes` (d, r) keep their order."""
        shape = shards.total(len(points)), points.shape[1]
        center = shards.total(points.sum(axis=0)) / shape[0]
        centered = points - center
        # The rounding error of a large mean is common to all rows and would look like a direction.
        centered -= shards.total(centered.sum(axis=0)) / shape[0]
        basis = axes
        if basis is None:
            basis = _spanned(centered, _largest_of_columns(points, shards), shape[0], shards)
            far = _with_far_rows_drawn_in(points) if shards.alone else None
            if far is not None:
                # With far rows moved inwards, other directions are found, but some may be lost.
                drawn_in = _spanned(*far, shape[0], shards)
                basis = max(drawn_in, basis, key=lambda axes: axes.shape[1])
        # Signs are set by third moments, which rotate with the data, so that a rotated data set gets
        # the same coordinates and, node by node, the same model. Scaling by a power of two changes no
        # sign, and keeps cubes of 1e120 and 1e-120 within the floating-point range.
        size = shards.largest(np.abs(centered).max(initial=0.0))
        scaled = np.ldexp(centered @ basis, -np.frexp(size)[1])
        skewness = shards.total(np.sum(scaled**3, axis=0))
        return cls(center, np.ascontiguousarray(basis * np.where(skewness < 0, -1.0, 1.0)))

    def joined(self, other: AffineHull | None) -> AffineHull:
        """Return the smallest affine subspace that contains this one and another.

        None stands for the whole space. The new coordinates follow those in this subspace, which do
        not change.
        """
        if other is None:
            directions = np.eye(self.n_features)
        else:
            offset = other.center - self.center
            length = float(np.linalg.norm(offset))
            # A small difference of large coordinates is rounding and no direction.
            largest = max(np.abs(self.center).max(), np.abs(other.center).max())
            directions = other.basis.T
            if length > _ROUNDING * largest:
                directions = np.vstack([directions, offset / length])
        # Projected twice: the first remainder is orthogonal up to rounding of the whole direction only.
        outside = self.project_out(self.project_out(directions))
        _, lengths, right = np.linalg.svd(outside, full_matrices=False)
        n_new = min(int(np.sum(lengths > _ROUNDING)), self.codimension)
        return AffineHull(self.center, np.column_stack([self.basis, right[:n_new].T]))

    @property
    def n_features(self) -> int:
        """Number d of columns of X."""
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
        """Return hull coordinates (n, r) and residuals (n, d), orthogonal to the hull, of X."""
        centered = X - self.center
        coordinates = centered @ self.basis
        if self.codimension == 0:
            return coordinates, np.zeros_like(centered)
        return coordinates, centered - coordinates @ self.basis.T

    def lift(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the points (n, d) of the hull with these coordinates (n, r)."""
        return self.center + coordinates @ self.basis.T

    def project_out(self, vectors: np.ndarray) -> np.ndarray:
        """Return directions (n, d) without their component along the hull."""
        if self.codimension == 0:
            return np.zeros_like(vectors)
        return vectors - (vectors @ self.basis) @ self.basis.T


def hull_in_one_unit(points: np.ndarray, names: np.ndarray | None) -> AffineHull:
    """Return the hull of points (n, d) whose columns have one unit and, perhaps, names (d,).

    Raises ValueError if a column varies, but by less than the rounding of other columns.
    """
    hull, extents = AffineHull.of(points), np.ptp(points, axis=0)
    outside = np.abs(hull.split(points)[1]).max(axis=0)
    lost = np.flatnonzero(has_extent(points) & (outside > _LOST * extents))
    if len(lost) and hull.dimension:
        labels = ", ".join(column_label(names, column) for column in lost.tolist())
        raise ValueError(
            f"columns {labels} of X extend over at most {extents[lost].max():.1e}, which is rounding "
            f"beside {extents.max():.1e} of another column; expected columns of one unit, in which "
            "distances are measured. Divide each column by its standard deviation."
        )
    return hull


def _largest_of_columns(points: np.ndarray, shards: Shards) -> np.ndarray:
    """Return the largest absolute value (d,) of each column of points (n, d) of all shards."""
    return np.max(shards.gather(np.abs(points).max(axis=0, initial=0.0)), axis=0)


def _spanned(rows: np.ndarray, largest: np.ndarray, n_rows: int, shards: Shards) -> np.ndarray:
    """Return axes (d, r) along which centered rows (n, d) extend, by decreasing singular value.

    `largest` (d,) are the largest absolute values of the columns, which set their rounding errors.
    """
    singular_values, directions = principal_axes(rows, shards)
    # Rounding leaves singular values of this size in directions without extent: the first term is the
    # error of the SVD, the second the norm of a matrix of rounding errors. Each column has its own
    # rounding errors, so that a large constant column hides no direction.
    eps = np.finfo(np.float64).eps
    size = float(largest.max(initial=0.0)) or 1.0
    rounding = eps * max(n_rows, len(largest)) * singular_values.max(initial=0.0)
    of_columns = size * np.linalg.norm(directions * (largest / size), axis=1)
    rounding = rounding + 2 * eps * (np.sqrt(n_rows) + np.sqrt(len(largest))) * of_columns
    return directions[singular_values > rounding].T


def _with_far_rows_drawn_in(points: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return centered rows (n, d), far ones moved inwards, and largest absolute values (d,) of columns.

    One row at 1e15 has rounding errors as large as the other rows. So a far row is moved towards the
    median of the rows, to `_FAR` times the median distance. Without far rows, None is returned.
    """
    median = np.median(points, axis=0)
    offsets = points - median
    distances = np.abs(offsets).max(axis=1, initial=0.0)
    typical = float(np.median(distances))
    # The rounding of the median is the least distance, in case most rows differ by less than that.
    limit = _FAR * max(typical, float(np.finfo(np.float64).eps * np.abs(median).max(initial=0.0)))
    far = distances > limit
    if typical == 0 or not far.any():
        return None
    offsets[far] *= limit / distances[far, None]
    largest = np.maximum(np.abs(points[~far]).max(axis=0), limit)
    return offsets - offsets.mean(axis=0), largest


def principal_axes(rows: np.ndarray, shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    """Return decreasing singular values (k,) and right singular vectors (k, d) of all rows."""
    # R of a QR has the singular values of the tall matrix in a fraction of the memory, and the
    # stacked R of all shards have the singular values of all rows.
    tall = len(rows) > rows.shape[1]
    compact = np.linalg.qr(rows, mode="r") if tall else rows
    compact = np.concatenate(shards.gather(compact))
    _, singular_values, directions = np.linalg.svd(compact, full_matrices=False)
    # Machines may round differently, and the rank must be the same on all of them.
    return shards.first((singular_values, directions))
