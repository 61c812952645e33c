"""Cells of recorded values: their points in coordinates, and averages of a density over them.

A value that was rounded to a unit represents the cell, the interval of that width about it. Its
probability is the mean of the density over the cell, times the width.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from ._columns import EncodedTable, TableColumns
from ._continuous import ContinuousPart

# Numbers of points of a cell at which a density is averaged. In one column they are the midpoints of
# equal parts (every third also of a part three times as wide); in several columns a lattice of a
# prime number of points, with a generator for each column. Points that need integrals are fewer.
_N_MIDPOINTS, _N_LATTICE, _N_LARGE_LATTICE, _N_FEW = 27, 17, 31, 5
# Errors in nats above which the number of points is tripled, and tripled again; where points need
# integrals the second number is used for both.
REFINED = 0.1, 0.2
# No generator is a multiple of three, so that a lattice of three times as many points repeats none.
_GENERATORS = {
    5: [1, 2],
    17: [1, 22, 41, 37, 2, 8, 23, 38],
    31: [1, 43, 67, 40, 7, 14, 34, 73, 2, 13, 68, 41, 4, 70, 77],
}
# A density is averaged over cells if log-densities at the recorded values have a mean error above this
# many nats, over this many rows; number of points of each cell at which scales are chosen.
_CELL_ERROR, _N_CELL_ROWS, N_CHOICE = 0.01, 64, 4


def mapped(
    table: TableColumns, values: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mapped values (n, k) of some coordinates, and the sum (n,) of their log slopes."""
    z, log_slopes = table.coordinates(values)
    return z[:, columns], log_slopes[:, columns].sum(axis=1)


def in_cells(
    table: TableColumns, values: np.ndarray, columns: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mapped values (m, n, k) at points (m, k) of the cells, and their log slopes (m, n)."""
    low, high = table.cells(values)
    middle, width = (low + high) / 2, high - low
    moved = np.repeat(values[None], len(offsets), axis=0)
    moved[:, :, columns] = middle[:, columns] + offsets[:, None] * width[:, columns]
    z, log_slopes = mapped(table, moved.reshape(-1, values.shape[1]), columns)
    shape = len(offsets), len(values)
    return z.reshape(*shape, len(columns)), log_slopes.reshape(shape)


def log_widths(table: TableColumns, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the logarithm (n,) of the product of the widths of cells of some coordinates."""
    low, high = table.cells(values)
    widths = (high - low)[:, columns]
    return np.log(np.where(widths > 0, widths, 1.0)).sum(axis=1)


def mapped_ends(
    table: TableColumns, values: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mapped ends (n, k) of the cells of some coordinates, equal for exact ones."""
    with np.errstate(divide="ignore"):
        low, high = (mapped(table, each, columns)[0] for each in table.cells(values))
    return low, high


def lattice_of(
    table: TableColumns, part: ContinuousPart, units: np.ndarray, rows: EncodedTable
) -> np.ndarray:
    """Return the points (m, p) of a cell at which `part` is averaged; 0 in columns without averages."""
    tested = np.zeros(len(units), dtype=bool)
    few = rows.take(np.random.RandomState(0).permutation(len(rows.levels))[:_N_CELL_ROWS])
    z, log_slopes = mapped(table, few.values, part.columns)
    for k in np.flatnonzero(units > 0):
        nodes, node_weights = np.polynomial.legendre.leggauss(3)
        offsets = np.zeros((len(nodes), len(units)))
        offsets[:, k] = nodes / 2
        moved, slopes = in_cells(table, few.values, part.columns, offsets)
        queries = np.concatenate([z[None], moved])
        log_density = part.of_all(queries.reshape(-1, len(units))).reshape(len(queries), -1)
        log_density += np.concatenate([log_slopes[None], slopes])
        mean = logsumexp(log_density[1:], b=node_weights[:, None] / 2, axis=0)
        tested[k] = np.abs(mean - log_density[0]).mean() > _CELL_ERROR
    return lattice(tested)


def points_of(
    part: ContinuousPart, observed: np.ndarray, *, are_few: bool, n_refined: int = 0
) -> np.ndarray:
    """Return the points (m, p) of a cell at which the density `part` is averaged.

    If marginals are integrals, there are fewer points where coordinates are missing, or with `are_few`.
    Each of `n_refined` refinements triples their number.
    """
    if not (part.offsets * observed).any():
        return np.zeros((1, len(observed)))
    offsets = part.offsets
    if part.is_integrated and (are_few or not observed.all()):
        offsets = lattice(observed & offsets.any(axis=0), n_midpoints=3, n_lattice=_N_FEW)
    for _ in range(n_refined):
        offsets = _refined(offsets)
    return offsets


def lattice(
    has_cells: np.ndarray, n_midpoints: int = _N_MIDPOINTS, n_lattice: int | None = None
) -> np.ndarray:
    """Return points (m, p) of a cell, from -1/2 to 1/2 in columns that have cells (p,), and else zero.

    The points of all cells together form one lattice, so that sums over all cells are accurate
    integrals if the density is smooth on the scale of the distance between points.
    """
    (columns,) = np.nonzero(has_cells)
    if not len(columns):
        return np.zeros((1, len(has_cells)))
    if len(columns) == 1:
        points = (np.arange(n_midpoints)[:, None] + 0.5) / n_midpoints - 0.5
    else:
        n = n_lattice or (_N_LATTICE if len(columns) <= _N_LATTICE // 2 else _N_LARGE_LATTICE)
        generator = np.resize(_GENERATORS[n], len(columns))
        steps = np.outer(np.arange(n), generator)
        points = (steps / n + 0.5) % 1 - 0.5
    everywhere = np.zeros((len(points), len(has_cells)))
    everywhere[:, columns] = points
    return everywhere


def _refined(offsets: np.ndarray) -> np.ndarray:
    """Return a lattice (3m, p) of points of a cell that contains the given ones (m, p)."""
    (columns,) = np.nonzero(offsets.any(axis=0))
    steps = np.zeros((3, 1, offsets.shape[1]))
    n = len(offsets)
    while n % 3 == 0:
        n //= 3
    generator = np.resize(_GENERATORS.get(n, [1]), len(columns))
    steps[:, 0, columns] = np.outer([0, 1, -1], generator / (3 * len(offsets)))
    return ((steps + offsets + 0.5) % 1 - 0.5).reshape(-1, offsets.shape[1])


def averaged(
    log_terms: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the logarithms (n,) of means over points of cells, their errors, and those of averaging.

    `log_terms` and their standard `errors` are (m, n). The errors (n,) include those of averaging (n,).
    """
    log_mean = logsumexp(log_terms, axis=0) - np.log(len(log_terms))
    ratio = np.exp(log_terms - log_mean)
    of_cells = _error_of_mean(ratio) if len(log_terms) > 1 else np.zeros_like(log_mean)
    # Integrals at all points of a cell use the same random numbers: their errors add.
    return log_mean, np.hypot((ratio * errors).mean(axis=0), of_cells), of_cells


def _error_of_mean(values: np.ndarray) -> np.ndarray:
    """Return the error (n,) of the mean over a cell's points, from values (m, n) whose mean is one.

    For midpoints it is an eighth of the difference from the mean over every third one. For a lattice it
    is the standard error of the means of pairs of opposite points, as if these were independent (several
    times too large if the density varies mostly with one column); for three lattices, that of
    their three means.
    """
    if len(values) in (3, _N_MIDPOINTS):
        return np.abs(values[1::3].mean(axis=0) - 1) / 8
    if len(values) % 3 == 0:
        means = values.reshape(3, -1, values.shape[1]).mean(axis=1)
        return means.std(axis=0, ddof=1) / np.sqrt(3)
    half = len(values) // 2
    pairs = (values[1 : half + 1] + values[:half:-1]) / 2
    return pairs.std(axis=0, ddof=1) / np.sqrt(half)
