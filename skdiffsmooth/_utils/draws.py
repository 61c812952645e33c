"""Random draws of points with probabilities equal to their weights, by the inverse-CDF method.

For the same seed, a point of weight k is drawn as often as k equal points that follow one another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .kernel_weights import log_kernel_weights
from .memory import rows_within, slices
from .near_rows import distinct_rows
from .shards import ONE_PROCESS, Shards


class CommonRandomState(np.random.RandomState):
    """Random numbers for m draws of each of several rows, the same ones for every row.

    The first axis whose length is a multiple of m has the first draws of all rows, then the second, etc.
    """

    def __init__(self, m: int, seed: Any) -> None:
        super().__init__(seed)
        self._m = m

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """See `RandomState`."""
        return self._for_all_rows(partial(super().uniform, low, high), size)

    def standard_normal(self, size: Any = None) -> Any:
        """See `RandomState`."""
        return self._for_all_rows(super().standard_normal, size)

    def _for_all_rows(self, draw: Callable[..., Any], size: Any) -> Any:
        shape = [] if size is None else list(np.atleast_1d(size))
        for axis, length in enumerate(shape):
            if length % self._m == 0:
                shape[axis] = self._m
                return np.repeat(draw(size=shape), length // self._m, axis=axis)
        return draw(size=size)


def invert_cumulated(cumulated: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the first index whose cumulated weight is above each value, or else the last index."""
    return np.searchsorted(cumulated[:-1], values, side="right")


def draw_points(
    rng: np.random.RandomState,
    points: np.ndarray,
    weights: np.ndarray,
    n: int,
    shards: Shards = ONE_PROCESS,
) -> np.ndarray:
    """Return n points (n, d), the same on all shards, drawn by weights of sum one over all shards."""
    cumulated = np.cumsum(weights)
    ends = np.cumsum(shards.gather(cumulated[-1]))
    uniform = rng.uniform(size=n) * ends[-1]
    (own,) = np.nonzero(invert_cumulated(ends, uniform) == shards.rank)
    start = ends[shards.rank - 1] if shards.rank else 0.0
    rows = invert_cumulated(cumulated, uniform[own] - start)
    drawn = np.empty((n, points.shape[1]))
    for index, values in shards.gather((own, points[rows])):
        drawn[index] = values
    return drawn


def choose_in_rows(masses: np.ndarray, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return column indices (m,), drawn by masses (n, k) of `rows` (m,), from `uniform` (m,) < 1."""
    cumulated = masses.cumsum(axis=1)
    cumulated /= cumulated[:, -1:]
    k = cumulated.shape[1]
    # One sorted sequence for all rows: row i is shifted into [i, i + 1].
    cumulated += np.arange(len(cumulated))[:, None]
    index = np.searchsorted(cumulated.ravel(), rows + uniform, side="right") - rows * k
    return np.clip(index, 0, k - 1)


def draw_given(
    rng: np.random.RandomState,
    points: np.ndarray,
    log_weights: np.ndarray,
    values: np.ndarray,
    memory_limit: float,
    periods: np.ndarray | None = None,
) -> np.ndarray:
    """Return a point's index for each row of values (n, k), drawn by w_i exp(-|value - point_i|^2 / 2).

    Points (n_points, k) have the given coordinates only; these, the values and the `periods` (k,) of
    coordinates, 0 where one has none, are in units of the noise. `memory_limit` is in MiB.
    """
    uniform = rng.uniform(size=len(values))
    distinct, which = distinct_rows(values)
    order = np.argsort(which, kind="stable")
    ends = np.searchsorted(which[order], np.arange(len(distinct) + 1))
    drawn = np.empty(len(values), dtype=np.intp)
    # Seven arrays of this size exist at once.
    for part in slices(len(distinct), rows_within(56 * len(points), memory_limit)):
        masses = np.exp(log_kernel_weights(distinct[part], points, log_weights, periods))
        rows = order[ends[part.start] : ends[part.stop]]
        drawn[rows] = choose_in_rows(masses, which[rows] - part.start, uniform[rows])
    return drawn
