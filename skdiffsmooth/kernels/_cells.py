"""Cells of the data: k-means without draws, and in each a tangent from local principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Cells", "default_n_cells"]

# Points in a cell for each dimension of the tangent, and neighbours of its mean that say where the
# tangent is, for each dimension and one more. Of three, six and twelve points the fewer, the better,
# as long as there are enough; of 2, 4 and 8 neighbours 4 were the best.
_POINTS_PER_CELL = 4
_NEIGHBORS = 4
_MOST_CELLS = 32

# k-means takes distances as differences of squares, and cannot tell points apart that are closer than
# the root of this, in units of the spread of all.
_ROUNDING = 1e-14


def default_n_cells(n_points: int, n_components: int) -> int:
    """Return a number of cells that follows a curved manifold, and has the points to see it.

    Parameters
    ----------
    n_points : int
        Number of distinct points.
    n_components : int
        Dimension of the tangents.

    Returns
    -------
    int
        One for every four points and dimension, from 1 to 32.
    """
    return min(max(n_points // (_POINTS_PER_CELL * max(n_components, 1)), 1), _MOST_CELLS)


@dataclass(frozen=True)
class Cells:
    """Coarse cells of the data, with the tangent and the thickness of each.

    Parameters
    ----------
    masses : ndarray of shape (K,)
        Weights of the points in each; positive, summing to one.
    means : ndarray of shape (K, r)
        Their means.
    width : float
        Standard deviation s of the spheres between which the gates decide, in units of the points;
        positive.
    tangents : ndarray of shape (K, r, k)
        Orthonormal columns.
    thickness : ndarray of shape (K,)
        Standard deviation of the points about the tangent, in each direction across it.
    """

    masses: np.ndarray
    means: np.ndarray
    width: float
    tangents: np.ndarray
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
        """Divide points by k-means and find tangents by local principal components.

        Nothing is random and nothing depends on the order of the points: k-means starts from halves
        of halves.

        Parameters
        ----------
        points : ndarray of shape (N, r)
            Distinct points, in coordinates that turn with the data.
        weights : ndarray of shape (N,)
            Positive, summing to one.
        n_components : int
            Dimension k of the tangents; from r on there is one cell, whose tangent is everything.
        n_cells : int, optional
            Number of cells at most; None takes `default_n_cells`.
        n_neighbors : int, optional
            Number of points nearest to a cell's mean that its tangent is fitted to, k + 1 at least;
            None takes 4 (k + 1).

        Returns
        -------
        Cells
        """
        dimension = points.shape[1]
        if n_components >= dimension:
            mean = weights @ points
            return cls(np.ones(1), mean[None], 1.0, np.eye(dimension)[None], np.zeros(1))
        if n_cells is None:
            n_cells = default_n_cells(len(points), n_components)
        if n_neighbors is None:
            n_neighbors = _NEIGHBORS * (n_components + 1)
        # Here and not above: loading it takes as long as the whole of this package.
        from sklearn.cluster import KMeans

        start = _halves(points, weights, n_cells)
        found = KMeans(len(start), init=start, n_init=1).fit(points, sample_weight=weights)
        _, label = np.unique(found.labels_, return_inverse=True)
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
        # The spread of a uniform law as wide as the cells are apart; with one cell it has no say.
        width = np.sqrt(masses @ to_nearest / 12) if len(means) > 1 else 1.0
        return cls(
            masses / masses.sum(), means, float(width), np.stack(tangents), np.array(thickness)
        )


class _Part(NamedTuple):
    """Some of the points, their mean, their inertia about it and their main axis."""

    members: np.ndarray
    mean: np.ndarray
    inertia: float
    axis: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray, members: np.ndarray) -> _Part:
        mean, variances, axes = _principal_axes(points[members], weights[members])
        inertia = weights[members].sum() * variances.sum()
        return cls(members, mean, float(inertia), axes[:, 0])


def _halves(points: np.ndarray, weights: np.ndarray, n_cells: int) -> np.ndarray:
    """Return the means of parts made by halving, again and again, the one of most inertia.

    Across its main axis, at its mean: a start for k-means that needs no draws (Su and Dy, In search
    of deterministic methods for initializing k-means and Gaussian mixture clustering, 2007).
    """
    parts = [_Part.of(points, weights, np.arange(len(points)))]
    smallest = _ROUNDING * parts[0].inertia
    while len(parts) < n_cells:
        widest = max(range(len(parts)), key=lambda i: parts[i].inertia)
        members, mean, inertia, axis = parts[widest]
        beyond = (points[members] - mean) @ axis > 0
        if inertia <= smallest or not beyond.any() or beyond.all():  # points, up to rounding
            break
        parts[widest] = _Part.of(points, weights, members[~beyond])
        parts.append(_Part.of(points, weights, members[beyond]))
    return np.stack([part.mean for part in parts])


def _tangent(
    points: np.ndarray, weights: np.ndarray, mean: np.ndarray, n_components: int, n_neighbors: int
) -> tuple[np.ndarray, float]:
    """Return the main directions of the points nearest to a cell's mean, and the spread across them."""
    squares = np.sum((points - mean) ** 2, axis=1)
    near = np.argsort(squares, kind="stable")[:n_neighbors]
    _, variances, axes = _principal_axes(points[near], weights[near])
    across = variances[n_components:].mean().clip(0)
    return axes[:, :n_components], float(np.sqrt(across))


def _principal_axes(
    points: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, and variances with their axes as columns, by decreasing variance."""
    shares = weights / weights.sum()
    mean = shares @ points
    centered = points - mean
    variances, axes = np.linalg.eigh(centered.T @ (shares[:, None] * centered))
    return mean, variances[::-1], axes[:, ::-1]
