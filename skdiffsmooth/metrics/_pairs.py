"""Distances of pairs of rows: of all pairs, a tile of rows at a time, and to the nearest few."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial.distance import cdist

from .._utils.memory import slices_within
from ..manifolds._neighbors import NearestPoints

__all__ = ["MEMORY_LIMIT", "distance_tiles", "nearest"]

MEMORY_LIMIT = 64.0  # MiB of temporaries.

# With more columns products of matrices are faster than differences, 20 times with 2000 (at 10 both
# take the same time). They lose digits of close pairs, which are then measured again: what remains has a
# relative error of 1e-16 / CLOSE.
PRODUCT_DIMENSION = 32
CLOSE = 1e-6


def distance_tiles(X: np.ndarray, Y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Measure all pairs, a tile of rows of X at a time.

    Parameters
    ----------
    X, Y : ndarray of shape (n, d) and (m, d)
        Checked rows.

    Yields
    ------
    rows : slice
        Which rows of X.
    distances : ndarray of shape (rows, m)
        To all rows of Y, to a relative error of 1e-10; the caller may write to it.
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
        # As many pairs at a time as fit: of equal rows all pairs are close.
        for some in slices_within(len(first), 24 * X.shape[1], MEMORY_LIMIT):
            differences = x[first[some]] - Y[second[some]]
            squares[first[some], second[some]] = np.einsum("ij,ij->i", differences, differences)
        yield rows, np.sqrt(squares, out=squares)


def nearest(X: np.ndarray, data: np.ndarray, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of `data` that are nearest to each row of X, nearest first.

    Parameters
    ----------
    X, data : ndarray of shape (n, d) and (m, d)
        Checked rows.
    n_neighbors : int
        How many, at most m.

    Returns
    -------
    distances : ndarray of shape (n, n_neighbors)
    indices : ndarray of shape (n, n_neighbors)
    """
    found = NearestPoints(data, MEMORY_LIMIT).query(torch.from_numpy(X), n_neighbors)
    return found[0].numpy(), found[1].numpy()
