"""Nearest points: a tree in few dimensions on a CPU, tiles of matrix products elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from .._utils.memory import slices_within
from ._base import Constants

__all__ = ["NearestPoints"]

# Where a tree has to look at most of its leaves, products are faster.
TREE_DIMENSION = 10
# Products find distances up to rounding of squares, so some more are found and measured exactly.
SPARE = 4


class NearestPoints:
    """A set of points that answers which of them are nearest to a query.

    Parameters
    ----------
    points : ndarray of shape (n_points, d)
        At least one.
    memory_limit : float
        MiB of temporaries.
    """

    def __init__(self, points: np.ndarray, memory_limit: float) -> None:
        self._tree = cKDTree(points) if points.shape[1] <= TREE_DIMENSION else None
        # Centred, so that squares lose as little as they can.
        center = points.mean(axis=0)
        centered = points - center
        self._constants = Constants(center, centered, np.sum(centered**2, axis=1))
        self._memory_limit = memory_limit

    def query(self, x: torch.Tensor, n_neighbors: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the nearest points, nearest first.

        Parameters
        ----------
        x : torch.Tensor of shape (n, d)
            Queries.
        n_neighbors : int
            How many, at most the number of points.

        Returns
        -------
        distances : torch.Tensor of shape (n, n_neighbors)
            From differences of coordinates.
        indices : torch.Tensor of shape (n, n_neighbors)
            Of the points.
        """
        if self._tree is not None and x.device.type == "cpu":
            found = self._tree.query(x.detach().double().numpy(), list(range(1, n_neighbors + 1)))
            return torch.from_numpy(found[0]).to(x.dtype), torch.from_numpy(found[1])
        center, points, squares = self._constants.like(x)
        n_found = min(n_neighbors + SPARE, len(points))
        bytes_per_row = x.element_size() * (3 * len(points) + 3 * n_found * x.shape[1])
        found_tiles = []
        for tile in slices_within(len(x), bytes_per_row, self._memory_limit):
            y = x[tile] - center
            products = torch.addmm(squares, y, points.T, alpha=-2)
            candidates = products.topk(n_found, dim=1, largest=False).indices
            exact = torch.linalg.vector_norm(points[candidates] - y[:, None], dim=2)
            distances, order = exact.topk(n_neighbors, dim=1, largest=False)
            found_tiles.append((distances, candidates.gather(1, order)))
        distances, indices = (torch.cat(parts) for parts in zip(*found_tiles, strict=True))
        return distances, indices
