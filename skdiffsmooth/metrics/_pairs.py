"""Distances between rows: of all pairs, in tiles, or to the nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial.distance import cdist

from .._utils.memory import slices_within
from ..manifolds._neighbors import NearestPoints

MEMORY_LIMIT = 64.0  # MiB of temporaries.

# With more columns than this, products of matrices are faster than differences, 20 times with 2000
# columns (with 10 both take the same time). Products lose digits of close pairs, whose distances are
# then computed from differences; the relative error of other distances is at most 1e-16 / CLOSE.
PRODUCT_DIMENSION = 32
CLOSE = 1e-6


def distance_tiles(X: np.ndarray, Y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slices of the rows of X (n, d), with their distances (n_slice, m) to the rows of Y (m, d).

    Distances have a relative error of 1e-10; the caller may write to them.
    """
    if X.shape[1] <= PRODUCT_DIMENSION:
        for rows in slices_within(len(X), 24 * len(Y), MEMORY_LIMIT):
            yield rows, cdist(X[rows], Y)
        return
    center = Y.mean(axis=0)
    Y = Y - center
    y_squares = np.einsum("ij,ij->i", Y, Y)
    for rows in slices_within(len(X), 48 * len(Y) + 16 * X.shape[1], MEMORY_LIMIT):
        x = X[rows] - center
        sizes = np.einsum("ij,ij->i", x, x)[:, None] + y_squares
        squares = sizes - 2 * x @ Y.T
        first, second = np.nonzero(squares <= CLOSE * sizes)
        # In slices, since all pairs are close if all rows are equal.
        for some in slices_within(len(first), 24 * X.shape[1], MEMORY_LIMIT):
            differences = x[first[some]] - Y[second[some]]
            squares[first[some], second[some]] = np.einsum("ij,ij->i", differences, differences)
        yield rows, np.sqrt(squares, out=squares)


def nearest(X: np.ndarray, data: np.ndarray, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and indices (n, n_neighbors) of the rows of `data` nearest to each row of X."""
    search = NearestPoints(data, MEMORY_LIMIT)
    distances, indices = search.query(torch.from_numpy(X), n_neighbors)
    return distances.numpy(), indices.numpy()


def nearest_distances(X: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Return the distance (n,) of each row of X from the nearest row of `data`."""
    return nearest(X, data, 1)[0][:, 0]
