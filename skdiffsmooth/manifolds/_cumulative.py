"""The integral of a positive function of one variable, and its inverse, exact to rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import chebyshev

DEGREE = 16
# A series is accepted if its last three coefficients are below this, in units of the largest value.
NEGLIGIBLE = 1e-15
# A cell that was halved 40 times has a negligible integral.
MOST_HALVINGS = 40
# Bound on the number of cells for noisy functions, all of whose cells would be halved without end; at a
# jump only one cell is halved at a time.
MOST_CELLS = 4096
# Number of steps to the inverse: as many as bisection, the safeguard of Newton's method, would need.
ITERATIONS = 60

# The nodes exclude the ends of a cell, at which the function may jump.
NODES = chebyshev.chebpts1(DEGREE + 1)
TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(NODES, DEGREE))


class Cumulative:
    """The integral F(t) of a function f >= 0 from a start to t, as a Chebyshev series on each cell.

    `function` takes an ndarray (n,) and returns one of the same shape; it is called at construction
    only. `edges` are the ends of the first cells, increasing from the start of the integral to its end;
    between them the function should be smooth. Cells are halved until their series are exact to
    rounding. `total` is the integral up to the last edge.
    """

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], edges: np.ndarray) -> None:
        waiting = np.stack([edges[:-1], edges[1:]], axis=1)
        cells: list[np.ndarray] = []
        densities: list[np.ndarray] = []
        largest, n_accepted = 0.0, 0
        for halvings in range(MOST_HALVINGS + 1):
            middle, half = waiting.mean(axis=1), np.diff(waiting, axis=1) / 2
            values = function((middle[:, None] + half * NODES).ravel()).reshape(-1, DEGREE + 1)
            largest = max(largest, float(values.max()))
            series = values @ TO_COEFFICIENTS.T
            fine = np.abs(series[:, -3:]).max(axis=1) <= NEGLIGIBLE * largest
            # In short cells the rounding errors of the values may be larger than NEGLIGIBLE allows.
            fine |= np.abs(series[:, -3:]).max(axis=1) <= 8 * np.finfo(float).eps * values.max(
                axis=1
            )
            fine |= halvings == MOST_HALVINGS or n_accepted + 2 * len(waiting) > MOST_CELLS
            n_accepted += int(fine.sum())
            cells.append(waiting[fine])
            densities.append(series[fine])
            if fine.all():
                break
            rough, middle = waiting[~fine], middle[~fine, None]
            waiting = np.hstack([rough[:, :1], middle, middle, rough[:, 1:]]).reshape(-1, 2)
        cell, density = np.concatenate(cells), np.concatenate(densities)
        order = np.argsort(cell[:, 0])
        self._cell, self._density = cell[order], density[order].T
        self._density = self._density * np.diff(self._cell, axis=1)[:, 0] / 2
        self._integral = chebyshev.chebint(self._density, lbnd=-1)
        # Every Chebyshev polynomial is one at the end of a cell.
        self._mass = self._integral.sum(axis=0)
        self._before = np.concatenate([[0.0], np.cumsum(self._mass)])
        self.total = float(self._before[-1])

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Return the integral up to each t (n,), which is between the first and the last edge."""
        cell = np.clip(np.searchsorted(self._cell[:, 0], t, side="right") - 1, 0, None)
        first, last = self._cell[cell].T
        s = 2 * (t - first) / (last - first) - 1
        return self._before[cell] + chebyshev.chebval(s, self._integral[:, cell], tensor=False)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        """Return the t (n,) at which the integral is y (n,), between zero and the total."""
        cell = np.searchsorted(self._before, y, side="right") - 1
        cell = np.clip(cell, 0, len(self._cell) - 1)
        goal = y - self._before[cell]
        density, integral = self._density[:, cell], self._integral[:, cell]
        low, high = -np.ones_like(goal), np.ones_like(goal)
        mass = self._mass[cell]
        s = np.clip(2 * goal / np.where(mass > 0, mass, 1.0) - 1, low, high)
        for _ in range(ITERATIONS):
            excess = chebyshev.chebval(s, integral, tensor=False) - goal
            slope = chebyshev.chebval(s, density, tensor=False)
            low, high = np.where(excess < 0, s, low), np.where(excess > 0, s, high)
            newton = s - excess / np.where(slope > 0, slope, 1.0)
            inside = (slope > 0) & (newton >= low) & (newton <= high)
            before, s = s, np.where(inside, newton, (low + high) / 2)
            if np.abs(s - before).max(initial=0.0) <= 4 * np.finfo(float).eps:
                break
        first, last = self._cell[cell].T
        return first + (last - first) * (s + 1) / 2
