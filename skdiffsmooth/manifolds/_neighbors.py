"""A search for nearest points, by a tree or by matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from .._utils.memory import slices_within
from ._base import Constants

# In more dimensions a tree visits most of its leaves, and matrix products are faster.
TREE_DIMENSION = 10
# Distances from matrix products have the rounding errors of squares. So the exact distances of this many
# more candidates than neighbours are compared.
SPARE = 4


class NearestPoints:
    """A search structure for points (n_points, d); temporaries take up to `memory_limit` MiB."""

    def __init__(self, points: np.ndarray, memory_limit: float) -> None:
        self._tree = cKDTree(points) if points.shape[1] <= TREE_DIMENSION else None
        # Centred, for the smallest rounding errors of squares.
        center = points.mean(axis=0)
        centered = points - center
        self._constants = Constants(center, centered, np.sum(centered**2, axis=1))
        self._memory_limit = memory_limit
        self._points = points

    def __getstate__(self) -> dict[str, Any]:
        # Some file formats, such as that of skops, cannot store trees.
        return {"points": self._points, "memory_limit": self._memory_limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(NearestPoints(**state)))

    def query(self, x: torch.Tensor, n_neighbors: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return distances and indices (n, n_neighbors) of the points nearest to x (n, d).

        The nearest point is first. Distances are computed from differences of coordinates.
        """
        if self._tree is not None and x.device.type == "cpu":
            ranks = list(range(1, n_neighbors + 1))
            result = self._tree.query(x.detach().double().numpy(), ranks)
            return torch.from_numpy(result[0]).to(x.dtype), torch.from_numpy(result[1])
        center, points, squares = self._constants.like(x)
        n_candidates = min(n_neighbors + SPARE, len(points))
        bytes_per_row = x.element_size() * (6 * len(points) + 4 * n_candidates * x.shape[1])
        distances = x.new_empty(len(x), n_neighbors)
        indices = torch.empty(len(x), n_neighbors, dtype=torch.long, device=x.device)
        for tile in slices_within(len(x), bytes_per_row, self._memory_limit):
            y = x[tile] - center
            products = torch.addmm(squares, y, points.T, alpha=-2)
            candidates = products.topk(n_candidates, dim=1, largest=False).indices
            exact = torch.linalg.vector_norm(points[candidates] - y[:, None], dim=2)
            distances[tile], order = exact.topk(n_neighbors, dim=1, largest=False)
            indices[tile] = candidates.gather(1, order)
        return distances, indices
