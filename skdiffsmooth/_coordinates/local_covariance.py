"""The local covariance: how far rows are from their neighbours, along each direction."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from .._utils.periods import wrapped

# Most rows that are used: the shape of the local covariance hardly depends on their number.
_MOST_ROWS = 1000
_N_STEPS = 25
# Smallest width, in units of the standard deviation along a direction.
_THINNEST = 1e-2
# Columns in which at most this share of the values are distinct are recorded in steps.
_TIED = 0.9
# Columns whose correlation differs from one by less than this are copies.
_SAME = 1e-9


def local_scales(
    rows: np.ndarray, angles: np.ndarray, periods: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the widths of Gaussian kernels that have the highest leave-one-out likelihood.

    The first is the width in all columns of `rows` (n, r), 1 if r = 0. The others (p,) are those in the
    columns of `angles` (n, p), which have `periods` (p,) and standard deviations of one.
    """
    taken = _taken(np.sum(angles**2, axis=1) + np.sum(rows**2, axis=1))
    rows, angles, weights = rows[taken], angles[taken], weights[taken]
    weights = weights / weights.sum()
    (n, r), p = rows.shape, angles.shape[1]
    squares = np.empty((1 + p, n, n))
    squares[0] = cdist(rows, rows, "sqeuclidean") / max(r, 1) if r else 0.0
    for k in range(p):
        squares[1 + k] = wrapped(angles[:, k, None] - angles[:, k], periods[k]) ** 2
    floor = np.full(1 + p, _THINNEST**2)
    floor[1:] += [_half_step(column) ** 2 for column in angles.T]
    dimensions = np.array([r, *[1] * p])
    variances = np.full(1 + p, (4 / (n * (r + p + 2))) ** (2 / (r + p + 4))) + floor
    log_weights = _log(weights)
    for _ in range(_N_STEPS):
        logits = log_weights - 0.5 * np.tensordot(dimensions / variances, squares, axes=1)
        ratios, factors = _ratios_of_others(logits, weights)
        variances = np.tensordot(squares, factors[:, None] * ratios, axes=2) + floor
    widths = np.sqrt(variances)
    return float(widths[0]) if r else 1.0, widths[1:]


def _half_step(values: np.ndarray) -> float:
    """Return half the median step between different values (n,), 0 where nearly all are different."""
    distinct = np.unique(values)
    if len(distinct) > _TIED * len(values) or len(distinct) < 2:
        return 0.0
    return float(np.median(np.diff(distinct))) / 2


def local_covariance(rows: np.ndarray, weights: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Return the covariance S (r, r) of Gaussian kernels with the highest leave-one-out likelihood.

    It is computed by expectation maximisation: S is the mean of (x_i - x_j)(x_i - x_j)^T under the
    posterior weights of all other rows x_j at x_i, which depend on S. Any linear map of the rows maps S
    likewise.

    - `rows` (n, r): distinct rows, two or more, whose covariance is the identity.
    - `weights` (n,): their weights.
    - `scaled` (n, d): the same rows in scaled columns. Kernels are not thinner than half a step
      between equal values.
    """
    taken = _taken(np.sum(rows**2, axis=1))
    rows, weights, scaled = rows[taken], weights[taken], scaled[taken]
    weights = weights / weights.sum()
    dimension = rows.shape[1]
    floor = _THINNEST**2 * np.eye(dimension) + _step_covariance(rows, scaled)
    # Silverman's rule of thumb for the identity.
    covariance = (4 / (len(rows) * (dimension + 2))) ** (2 / (dimension + 4)) * np.eye(dimension)
    log_weights, ones = _log(weights), np.ones((len(rows), 1))
    logits = np.empty((len(rows), len(rows)))
    for _ in range(_N_STEPS):
        z = np.linalg.solve(np.linalg.cholesky(covariance), rows.T).T
        bias = log_weights - np.sum(z**2, axis=1) / 2
        np.matmul(np.hstack([z, ones]), np.column_stack([z, bias]).T, out=logits)
        ratios, factors = _ratios_of_others(logits, weights)
        cross = (rows * factors[:, None]).T @ (ratios @ rows)
        both = weights + factors @ ratios
        updated = (rows.T * both) @ rows - cross - cross.T + floor
        smallest, largest = np.linalg.eigvalsh(updated)[[0, -1]]
        if not smallest > dimension * np.finfo(np.float64).eps * largest:
            break  # singular by rounding: rows of negligible weight are far from the mean
        covariance = updated
    return covariance


def _taken(squares: np.ndarray) -> np.ndarray | slice:
    """Return the rows to use, evenly by squared distances (n,) from the mean; all if they are few."""
    if len(squares) <= _MOST_ROWS:
        return slice(None)
    evenly = np.linspace(0, len(squares) - 1, _MOST_ROWS).round().astype(np.intp)
    return np.argsort(squares, kind="stable")[evenly]


def _log(weights: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(weights)


def _ratios_of_others(logits: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ratios (n, n), which overwrite `logits`, and factors (n,).

    Row i of the ratios times factor i are the posterior weights of the other rows at row i, which sum to
    ``weights[i]``.
    """
    np.fill_diagonal(logits, -np.inf)
    logits -= logits.max(axis=1, keepdims=True)
    ratios = np.exp(logits, out=logits)
    return ratios, weights / ratios.sum(axis=1)


def _step_covariance(rows: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Return the covariance (r, r) of half a step in each column whose values repeat."""
    halves = np.zeros(scaled.shape[1])
    for column, values in enumerate(scaled.T):
        distinct = np.unique(values)
        if 1 < len(distinct) <= _TIED * len(values):
            # Two values are labels and no roundings, as in `ColumnPrecision`.
            halves[column] = np.diff(distinct).min() / (4 if len(distinct) == 2 else 2)
    # The map of the columns to the coordinates of the rows, by least squares.
    centered = scaled - scaled.mean(axis=0)
    to_rows = np.linalg.lstsq(centered, rows - rows.mean(axis=0), rcond=1e-9)[0]
    return (to_rows.T * (halves**2 * _n_copies(centered, halves > 0))) @ to_rows


def _n_copies(centered: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return how many of the columns (n, d) of a mask (d,) are each of them, up to a factor.

    Least squares give each of k copies one k-th of a coordinate, as if their steps were independent.
    """
    number = np.ones(len(among))
    directions = centered[:, among] / np.linalg.norm(centered[:, among], axis=0)
    number[among] = np.sum(np.abs(directions.T @ directions) > 1 - _SAME, axis=0)
    return number
