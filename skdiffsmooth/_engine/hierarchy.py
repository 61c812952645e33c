"""A tree of cells that merge close points: at large noise a cell replaces its points.

A cell of centroid c, weight w and radius rho replaces points x_i = c + d_i, |d_i| <= rho, of the same
weight and mean. At noise variance v, with p the density of the points and p~ that of the cells,

    -rho^2 / 2v  <=  log p(y) - log p~(y)  <=  log sum_c W~_c(y) exp( rho^2 |y - c|^2 / 2v^2 ),

W~ the posterior weights of the cells. The left side is Jensen's inequality and the right side
Hoeffding's lemma, both for sum_i w_i d_i = 0. With rho^2 = 2 v `tolerance` the left side is minus
the tolerance, and the right side about the tolerance times the squared distance to the relevant
points, in units of the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PointHierarchy:
    """A tree of cells over weighted points; each noise level uses the largest cells it allows."""

    points: np.ndarray  # (N, r): the points themselves
    weights: np.ndarray  # (N,): their weights, summing to one
    tolerance: float  # That of the module's bound, in nats; with 0 no points are merged
    finest: float  # Smallest noise scale that cells were made for; below it points are not merged
    centroids: np.ndarray  # (n_cells, r): centroids of all cells, large and small
    cell_weights: np.ndarray  # (n_cells,): sums of the weights in each
    # (n_cells,): bounds on the distance of a cell's points from its centroid, never below those of
    # the cells within it
    radii: np.ndarray
    # (n_cells,): the radius of the cell that contains each, infinite for the outermost
    outer_radii: np.ndarray

    @classmethod
    def of(
        cls, points: np.ndarray, weights: np.ndarray, tolerance: float, finest: float
    ) -> PointHierarchy:
        """Return a tree for distinct points, down to cells small enough for the smallest noise scale.

        Cells are cut in the middle of their longest side, all of one depth at once.
        """
        if not tolerance or not points.shape[1]:
            # In no dimensions there is one point at most, which cannot be merged.
            no_cells = weights[:0]
            return cls(points, weights, tolerance, finest, points[:0], no_cells, no_cells, no_cells)
        smallest = math.sqrt(2 * tolerance) * finest
        levels = []
        x, w = points, weights
        starts, parent = np.zeros(1, dtype=np.intp), np.full(1, -1)
        n_cells = 0
        while len(starts):
            sizes = np.diff(starts, append=len(x))
            cell = np.repeat(np.arange(len(starts)), sizes)
            mass = np.add.reduceat(w, starts)
            # Weights are divided by the largest of their cell, so that not all of them underflow.
            relative = (w / np.maximum.reduceat(w, starts)[cell])[:, None]
            centroid = np.add.reduceat(relative * x, starts) / np.add.reduceat(relative, starts)
            radius = np.sqrt(np.maximum.reduceat(np.sum((x - centroid[cell]) ** 2, axis=1), starts))
            low, high = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
            extent = high - low
            widest = extent.argmax(1)
            divided = (radius > smallest) & (extent.max(1) > 0)
            # Cells that are not divided here are small enough, or all their points are equal.
            radius[~divided & (radius > smallest)] = 0.0
            levels.append((centroid, mass, radius, parent))
            cells = np.arange(len(starts))
            along = x[np.arange(len(x)), widest[cell]]
            # In this form rounding cannot move the lowest and the highest point to the same side.
            is_upper = along - low[cells, widest][cell] > high[cells, widest][cell] - along
            n_upper = np.add.reduceat(is_upper.astype(np.intp), starts)

            to_divide = divided[cell]
            x, w = x[to_divide], w[to_divide]
            is_upper, cell = is_upper[to_divide], cell[to_divide]
            order = np.argsort(2 * cell + is_upper, kind="stable")
            x, w = x[order], w[order]
            halves = np.column_stack([sizes - n_upper, n_upper])[divided].ravel()
            starts = np.cumsum(halves) - halves
            parent = np.repeat(n_cells + np.flatnonzero(divided), 2)
            n_cells += len(centroid)

        centroids, masses, radii, parents = map(np.concatenate, zip(*levels, strict=True))
        ends = np.cumsum([len(level[0]) for level in levels])
        for start, end in zip(ends[-2::-1], ends[:0:-1], strict=True):
            np.maximum.at(radii, parents[start:end], radii[start:end])
        outer = np.where(parents < 0, np.inf, radii[parents])
        return cls(points, weights, tolerance, finest, centroids, masses, radii, outer)

    def at(self, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the points (n, r) that represent the data at a noise scale, and their weights."""
        if scale < self.finest or not len(self.centroids):
            return self.points, self.weights
        radius = math.sqrt(2 * self.tolerance) * scale
        cut = (self.radii <= radius) & (radius < self.outer_radii)
        # Merging fewer than half of the points costs accuracy and gains little time.
        if 2 * np.count_nonzero(cut) > len(self.points):
            return self.points, self.weights
        return self.centroids[cut], self.cell_weights[cut]
