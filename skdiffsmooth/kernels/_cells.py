"""Cells of the data by deterministic k-means, with tangents by local principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Number of points of a cell, divided by the dimension k of the tangent; and number of points near its
# mean to which the tangent is fitted, divided by k + 1. Measured: of 3, 6 and 12 points the fewest were
# best, as long as there are enough for the tangent; of 2, 4 and 8 neighbours 4 were best.
_POINTS_PER_CELL = 4
_NEIGHBORS = 4
_MOST_CELLS = 32

# k-means computes distances as differences of squares: in a part whose inertia is below this fraction of
# that of all points, they would be rounding errors.
_ROUNDING = 1e-14


def default_n_cells(n_points: int, n_components: int) -> int:
    """Return the number of cells, one for every 4 k points if tangents have dimension k."""
    return min(max(n_points // (_POINTS_PER_CELL * max(n_components, 1)), 1), _MOST_CELLS)


@dataclass(frozen=True)
class Cells:
    """K cells of the data, with the tangent and the thickness of each."""

    masses: np.ndarray  # (K,): sums of the weights of their points; positive, summing to one
    means: np.ndarray  # (K, r): means of their points
    # Standard deviation s of the isotropic Gaussians that the gates are computed from, > 0
    width: float
    tangents: np.ndarray  # (K, r, k): orthonormal columns
    # (K,): standard deviation of the points about the tangent, in each direction across it
    thickness: np.ndarray

    def __len__(self) -> int:
        return len(self.masses)

    @classmethod
    def of(
        cls,
        points: np.ndarray,
        weights: np.ndarray,
        n_components: int,
        n_cells: int | None = None,
        n_neighbors: int | None = None,
    ) -> Cells:
        """Return cells of distinct points (N, r) by k-means, with tangents of dimension `n_components`.

        Nothing is random, and nothing depends on the order of the points. `n_cells` is an upper bound,
        by default `default_n_cells`. A tangent is fitted to the `n_neighbors` points nearest to the
        mean of its cell, by default ``4 * (n_components + 1)``. If tangents have all r dimensions there
        is one cell.
        """
        dimension = points.shape[1]
        if n_components >= dimension:
            mean = weights @ points
            return cls(np.ones(1), mean[None], 1.0, np.eye(dimension)[None], np.zeros(1))
        if n_cells is None:
            n_cells = default_n_cells(len(points), n_components)
        if n_neighbors is None:
            n_neighbors = _NEIGHBORS * (n_components + 1)
        # Imported here, since loading it takes as long as the whole package.
        from sklearn.cluster import KMeans

        start = _halving_means(points, weights, n_cells)
        k_means = KMeans(len(start), init=start, n_init=1).fit(points, sample_weight=weights)
        _, label = np.unique(k_means.labels_, return_inverse=True)
        masses = np.bincount(label, weights)
        sums = np.stack([np.bincount(label, weights * x) for x in points.T], axis=1)
        means = sums / masses[:, None]
        squares = np.sum((means[:, None] - means) ** 2, axis=2)
        to_nearest = np.sort(squares, axis=1)[:, 1:2].sum(1)
        n_neighbors = max(n_neighbors, n_components + 1)
        tangents, thickness = zip(
            *(_tangent(points, weights, mean, n_components, n_neighbors) for mean in means),
            strict=True,
        )
        # The standard deviation of a uniform distribution as wide as the distance between nearest cells.
        # With one cell it is not used.
        width = np.sqrt(masses @ to_nearest / 12) if len(means) > 1 else 1.0
        return cls(
            masses / masses.sum(), means, float(width), np.stack(tangents), np.array(thickness)
        )


class _Part(NamedTuple):
    """A part of the points, with its mean, inertia about the mean and first principal axis."""

    members: np.ndarray
    mean: np.ndarray
    inertia: float
    axis: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray, members: np.ndarray) -> _Part:
        mean, variances, axes = _principal_axes(points[members], weights[members])
        inertia = weights[members].sum() * variances.sum()
        return cls(members, mean, float(inertia), axes[:, 0])


def _halving_means(points: np.ndarray, weights: np.ndarray, n_cells: int) -> np.ndarray:
    """Return the means (n_cells, r) of parts: the part of largest inertia is repeatedly cut in two.

    It is cut at its mean, across its first principal axis: a deterministic start for k-means (Su and
    Dy, In search of deterministic methods for initializing k-means and Gaussian mixture clustering,
    2007). There are fewer parts if the points of each part coincide up to rounding.
    """
    parts = [_Part.of(points, weights, np.arange(len(points)))]
    smallest = _ROUNDING * parts[0].inertia
    while len(parts) < n_cells:
        widest = max(range(len(parts)), key=lambda i: parts[i].inertia)
        members, mean, inertia, axis = parts[widest]
        beyond = (points[members] - mean) @ axis > 0
        if inertia <= smallest or not beyond.any() or beyond.all():
            break
        parts[widest] = _Part.of(points, weights, members[~beyond])
        parts.append(_Part.of(points, weights, members[beyond]))
    return np.stack([part.mean for part in parts])


def _tangent(
    points: np.ndarray, weights: np.ndarray, mean: np.ndarray, n_components: int, n_neighbors: int
) -> tuple[np.ndarray, float]:
    """Return the first principal axes (r, k) of points near a mean, and the thickness across."""
    squares = np.sum((points - mean) ** 2, axis=1)
    near = np.argsort(squares, kind="stable")[:n_neighbors]
    _, variances, axes = _principal_axes(points[near], weights[near])
    across = variances[n_components:].mean().clip(0)
    return axes[:, :n_components], float(np.sqrt(across))


def _principal_axes(
    points: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, the decreasing variances along the principal axes, and the axes (r, r)."""
    weights = weights / weights.sum()
    mean = weights @ points
    centered = points - mean
    variances, axes = np.linalg.eigh(centered.T @ (weights[:, None] * centered))
    return mean, variances[::-1], axes[:, ::-1]
