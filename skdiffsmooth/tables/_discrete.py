"""Kernels of levels, and the distribution of the discrete coordinates of a table.

The kernel K(a | b) is the fraction of the weight of a training row with level b that level a gets:

    K(a | b) = (1 - lambda) [a = b] + lambda m_a            unordered levels,
    K(a | b) = m_a lambda^|a - b| / sum_c m_c lambda^|c - b|   ordered levels.

With equal masses m_a = 1 / L of L levels the first is the kernel of Aitchison and Aitken (1976), with
lambda scaled. Sums over a are one for each b. At lambda = 0 all weight stays at level b; at lambda = 1
level a gets the fraction m_a from every row, and the coordinate does not matter. The bandwidths lambda
maximise the leave-one-out likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar

from .._utils.draws import choose_in_rows
from .._utils.memory import slices

# Bounds of the search for lambda. Above the upper one only 1 is tried: the coordinate does not matter.
_LEAST, _MOST = 1e-4, 0.98
# Most passes over all coordinates; they end once no lambda changes by more than the second number.
_N_SWEEPS, _CHANGE = 8, 0.01
# Pairs of rows whose kernels are in memory at once.
_MOST_PAIRS = 4_000_000


@dataclass(frozen=True, eq=False)
class LevelKernel:
    """The kernel of one discrete coordinate.

    `masses` (L,) are the m_a above, probabilities of the levels that sum to one; `lam` is lambda.
    """

    masses: np.ndarray
    is_ordered: bool
    lam: float = 0.1

    @property
    def table(self) -> np.ndarray:
        """K(a | b) as table[a, b], (L + 1, L + 1); the last index, also -1, is a missing level.

        A missing level of a query is summed over; a row without a level has each level with its mass.
        """
        n = len(self.masses)
        table = np.ones((n + 1, n + 1))
        table[:n, n] = self.masses
        if not self.is_ordered:
            table[:n, :n] = self.lam * self.masses[:, None] + (1 - self.lam) * np.eye(n)
            return table
        steps = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        kernel = self.masses[:, None] * self.lam**steps
        table[:n, :n] = kernel / kernel.sum(axis=0)
        return table


def frequencies(levels: np.ndarray, weights: np.ndarray, n_levels: int) -> np.ndarray:
    """Return the frequency (n_levels,) of each level in `levels` (n,), with half a row added to each."""
    known = levels >= 0
    counts = np.bincount(levels[known], weights=weights[known], minlength=n_levels)
    a_row = weights @ one_row(weights) / weights.sum()
    counts += 0.5 * a_row
    return counts / counts.sum()


def products(
    tables: Sequence[np.ndarray], queries: np.ndarray, levels: np.ndarray, skip: int = -1
) -> np.ndarray:
    """Return the products (m, n) of the kernels of all coordinates but `skip`.

    `queries` (m, q) and `levels` (n, q) may hold -1, a missing level.
    """
    product = np.ones((len(queries), len(levels)))
    for k, table in enumerate(tables):
        if k != skip:
            product *= table[queries[:, k]][:, levels[:, k]]
    return product


def choose_lambdas(
    kernels: Sequence[LevelKernel],
    levels: np.ndarray,
    weights: np.ndarray,
    judges: np.ndarray,
    kept: np.ndarray,
    closeness: np.ndarray | None = None,
) -> list[LevelKernel]:
    """Return the kernels with the bandwidths at which left-out rows, the judges, are likeliest.

    Rows have `levels` (n, q) and `weights` (n,); `judges` (m,) are indices of rows, and `kept` (m, n)
    is the fraction of each row's weight that remains where a judge is left out. The likelihood is that
    of the levels, a sum over rows j of ``w_j K(c_i, c_j)``; with `closeness` (m, n), kernels of the
    continuous coordinates, it is that of these coordinates given the levels. The search begins at the
    bandwidths of `kernels`.
    """
    n_levels = [len(kernel.masses) for kernel in kernels]
    kernels = list(kernels)
    extended = [np.where(levels[:, k] < 0, n, levels[:, k]) for k, n in enumerate(n_levels)]
    row_weights = weights[judges] / weights[judges].sum()
    others = kept * weights
    pairs = others if closeness is None else others * closeness
    for _ in range(_N_SWEEPS):
        change = 0.0
        for k, kernel in enumerate(kernels):
            if len(np.unique(extended[k])) == 1:
                # All rows have the same level, so that the bandwidth has no effect.
                kernels[k] = replace(kernel, lam=1.0)
                continue
            tables = [each.table for each in kernels]
            product = products(tables, levels[judges], levels, skip=k)
            members = np.eye(n_levels[k] + 1)[extended[k]]
            sums = (product * pairs) @ members
            rest = None if closeness is None else (product * others) @ members
            loss = _Loss(kernel, extended[k][judges], row_weights, sums, rest)
            kernels[k] = replace(kernel, lam=_best(loss))
            change = max(change, abs(kernels[k].lam - kernel.lam))
        if change < _CHANGE:
            break
    return kernels


@dataclass(frozen=True, eq=False)
class _Loss:
    """Minus the mean log-likelihood, in nats, as a function of one bandwidth.

    Judges have levels `own` (m,) and `row_weights` (m,). `sums` (m, L + 1) are the sums of all other
    factors over the rows of each level; `rest` are these sums for the denominator of a conditional
    likelihood, or None.
    """

    kernel: LevelKernel
    own: np.ndarray
    row_weights: np.ndarray
    sums: np.ndarray
    rest: np.ndarray | None

    def __call__(self, lam: float) -> float:
        table = replace(self.kernel, lam=lam).table[self.own]
        tiny = np.finfo(np.float64).tiny
        value = np.log(np.maximum((self.sums * table).sum(axis=1), tiny))
        if self.rest is not None:
            value -= np.log(np.maximum((self.rest * table).sum(axis=1), tiny))
        return -float(self.row_weights @ value)


def _best(loss: Callable[[float], float]) -> float:
    """Return the bandwidth of least loss: 1, or the best of a grid refined once."""
    grid = np.array([_LEAST, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, _MOST, 1.0])
    losses = [loss(lam) for lam in grid]
    best = int(np.argmin(losses))
    if best in (0, len(grid) - 1):
        return float(grid[best])
    low, high = grid[best - 1], min(grid[best + 1], _MOST)
    refined = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-3})
    return float(refined.x if refined.fun <= losses[best] else grid[best])


@dataclass(frozen=True, eq=False)
class LevelDensity:
    """The distribution of the discrete coordinates, a sum of kernels over m distinct training rows."""

    levels: np.ndarray  # (m, q); -1 is a missing level
    weights: np.ndarray  # (m,), which sum to one
    kernels: list[LevelKernel]  # one for each coordinate

    @classmethod
    def fit(
        cls,
        levels: np.ndarray,
        weights: np.ndarray,
        n_levels: Sequence[int],
        is_ordered: Sequence[bool],
        has_values: Sequence[bool],
    ) -> LevelDensity:
        """Return the distribution of training levels (n, q) with weights (n,), with fitted bandwidths.

        In coordinates with `has_values`, level 0 means a value that is no atom; it has probability zero
        if no row has it.
        """
        kernels = []
        for k, (n, ordered) in enumerate(zip(n_levels, is_ordered, strict=True)):
            masses = frequencies(levels[:, k], weights, n)
            if has_values[k] and not np.any(levels[:, k] == 0):
                masses[0] = 0.0
            kernels.append(LevelKernel(masses / masses.sum(), bool(ordered)))
        distinct, index = np.unique(levels, axis=0, return_inverse=True)
        counts = np.bincount(index.ravel(), weights=weights)
        one = np.bincount(index.ravel(), weights=weights * one_row(weights)) / counts
        if kernels and len(distinct) > 1:
            judges = some_rows(len(distinct), max(1, _MOST_PAIRS // len(distinct)))
            kept = np.ones((len(judges), len(distinct)))
            kept[np.arange(len(judges)), judges] = 1 - one[judges] / counts[judges]
            kernels = choose_lambdas(kernels, distinct, counts, judges, kept)
        return cls(distinct, counts / counts.sum(), kernels)

    def log_density(self, levels: np.ndarray) -> np.ndarray:
        """Return the log-probability (n,) of levels (n, q); missing ones, -1, are summed over."""
        if not len(self.kernels):
            return np.zeros(len(levels))
        distinct, index = np.unique(levels, axis=0, return_inverse=True)
        tables = [kernel.table for kernel in self.kernels]
        result = np.empty(len(distinct))
        for part in slices(len(distinct), _MOST_PAIRS // len(self.levels)):
            result[part] = products(tables, distinct[part], self.levels) @ self.weights
        with np.errstate(divide="ignore"):
            return np.log(result)[index.ravel()]

    def has_row(self, levels: np.ndarray) -> bool:
        """Return whether a training row has the levels (q,) that are not missing."""
        known = levels >= 0
        return bool((self.levels[:, known] == levels[known]).all(axis=1).any())

    def draw(self, given: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Return rows `given` (n, q) whose missing levels, -1, are drawn."""
        n = len(given)
        if not len(self.kernels):
            return given.copy()
        tables = [kernel.table for kernel in self.kernels]
        uniform = rng.uniform(size=(n, 1 + len(tables)))
        distinct, index = np.unique(given, axis=0, return_inverse=True)
        index, source = index.ravel(), np.empty(n, dtype=np.intp)
        for part in slices(len(distinct), _MOST_PAIRS // len(self.levels)):
            masses = products(tables, distinct[part], self.levels) * self.weights
            used = np.flatnonzero((index >= part.start) & (index < part.stop))
            source[used] = choose_in_rows(masses, index[used] - part.start, uniform[used, 0])
        drawn = given.copy()
        for k, table in enumerate(tables):
            free = np.flatnonzero(given[:, k] < 0)
            origin = self.levels[source[free], k] % len(table)
            drawn[free, k] = choose_in_rows(table[:-1].T, origin, uniform[free, 1 + k])
        return drawn


def one_row(weights: np.ndarray) -> np.ndarray:
    """Return the weight (n,) of one copy of each row: at most 1 for whole weights, else the weight."""
    is_count = np.all(weights == np.round(weights))
    return np.minimum(weights, 1.0) if is_count else weights


def some_rows(n: int, most: int) -> np.ndarray:
    """Return at most `most` of n indices, the same in every run."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.RandomState(0).permutation(n)[:most])
