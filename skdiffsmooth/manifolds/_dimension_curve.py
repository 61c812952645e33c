"""The local intrinsic dimension (LID) of rows at increasing noise variances, from their distances.

The module `_dimension` has its definition, and its values for Gaussian clouds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .._utils.memory import slices_within
from ._neighbors import NearestPoints

MEMORY_LIMIT = 64.0
# Number of noise variances for each factor of two, and bound on the factors of two below the cloud's
# variance.
_PER_OCTAVE, _MOST_OCTAVES = 2, 40


@dataclass(frozen=True)
class DimensionCurve:
    """LID at increasing noise variances (L,): of Q queries (Q, L), and its mean over them (L,).

    `crowding` (L,) is the mean over queries of (sum_j W_j^2)^2, one where each has one neighbour.
    `influence` (L, N) is the derivative of the mean in the logarithm of the weight of each row.
    """

    variances: np.ndarray
    lid: np.ndarray
    mean: np.ndarray
    crowding: np.ndarray
    influence: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray, queries: np.ndarray) -> DimensionCurve:
        """Return the curve of points (N, d) of a cloud of size one; `queries` (Q,) are row indices."""
        k = min(3, len(points))
        nearest = NearestPoints(points, MEMORY_LIMIT).query(torch.from_numpy(points), k)[0].numpy()
        if k == 3 and np.all(np.ptp(nearest[:, 1:], axis=1) < 1e-9 * nearest[:, -1]):
            raise ValueError(
                "the two nearest neighbours of every row of X are equally far, as in a lattice; "
                "expected different distances, from which the dimension is estimated. Pass the number "
                "of components as an integer."
            )
        # Below this noise most rows have one neighbour at most.
        smallest = np.median(nearest[:, 1]) ** 2 / 16
        octaves = np.clip(np.ceil(np.log2(1 / smallest)), 1, _MOST_OCTAVES)
        variances = 2.0 ** (np.arange(-int(octaves) * _PER_OCTAVE, 1) / _PER_OCTAVE)
        shape = len(queries), len(variances)
        lid, crowding = np.empty(shape), np.empty(shape)
        slopes = np.zeros((len(variances), len(points)))
        squares = np.sum(points**2, axis=1)
        powers = np.column_stack([weights, weights**2])
        for part in slices_within(len(queries), 5 * 8 * len(points), MEMORY_LIMIT):
            rows = queries[part]
            own = np.arange(len(rows)), rows
            distances = squares[rows, None] + squares - 2 * points[rows] @ points.T
            np.maximum(distances, 0, out=distances)
            distances[own] = np.inf
            # Kernels are relative to that of the nearest point, so that no sum is zero.
            shifted = distances - distances.min(axis=1, keepdims=True)
            # Rows so far away that rounding errors of their distances exceed the smallest noise variance
            # get one neighbour, and LID zero.
            far = np.flatnonzero(8 * np.finfo(np.float64).eps * squares[rows] > variances[0])
            shifted[far] = np.inf
            shifted[far, distances[far].argmin(axis=1)] = 0.0
            distances[far] = 0.0
            distances[own] = 0.0
            for last in range(len(variances) - _PER_OCTAVE, len(variances)):
                # Halving the variance squares the kernels, so that their sums serve at both variances.
                kernels = np.exp(-shifted / (2 * variances[last]))
                sums, moments = kernels @ powers, (products := kernels * distances) @ powers
                for level in range(last, -1, -_PER_OCTAVE):
                    v, total = variances[level], sums[:, 0]
                    mean = moments[:, 0] / total
                    row_weights = weights[rows] / total
                    slopes[level] += row_weights / v @ products - (row_weights * mean / v) @ kernels
                    np.square(kernels, out=kernels)
                    np.multiply(kernels, distances, out=products)
                    sums, moments = kernels @ powers, products @ powers
                    crowded = sums[:, 1] / total**2
                    crowding[part, level] = crowded
                    # The logarithm of a sum over few neighbours is on average too small by half of
                    # sum_j W_j^2; LID, its derivative, is corrected for that.
                    lid[part, level] = (mean + moments[:, 1] / total**2 - crowded * mean) / v
        # Rows with one neighbour only have almost no weight in the mean.
        average_weights = weights[queries, None] * np.maximum(
            1 - crowding, np.finfo(np.float64).tiny
        )
        total = average_weights.sum(axis=0)
        average = (average_weights * lid).sum(axis=0) / total
        influence = slopes * weights / weights[queries].sum()
        influence[:, queries] += (average_weights * (lid - average) / total).T
        crowded = weights[queries] @ crowding**2 / weights[queries].sum()
        return cls(variances, lid, average, crowded, influence)
