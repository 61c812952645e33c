"""Left-out rows at values that they may have had before they were rounded.

Scales and metrics are chosen by the likelihood of left-out rows. For rounded values it has no bound: it
grows as kernels at repeated values get narrower. So a left-out row is scored at its recorded values
plus an offset that is uniform within one unit of each coarse column, while the training rows are not
changed. That estimates the likelihood of the values before rounding, and makes bandwidths at least about
half a unit. The values of a column that has two, such as a dummy variable, are labels and not rounded:
offsets are uniform within half their difference, since wider ones would smooth the other columns too
much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .column_precision import copies_of
from .near_rows import distinct_rows

# Approximate number of offsets of all rows together; rows of large weight have several.
_N_OFFSETS = 512
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class ExcludedRows:
    """Queries at which left-out rows are scored, and training rows, with copies as separate rows."""

    point: np.ndarray  # Index (n_rows,) of the distinct row of each training row
    weights: np.ndarray  # Weights (n_rows,) of the training rows; they sum to one
    exclude: np.ndarray
    """Index (n_queries,) of the row that a query excludes, the same in training and distinct rows."""
    offsets: np.ndarray
    """Differences (n_queries, d) of the queries from the distinct rows, in units of X."""
    query_weights: np.ndarray  # Weights (n_queries,) of the queries; they sum to one


def excluded_rows(
    points: np.ndarray, weights: np.ndarray, widths: np.ndarray | None
) -> ExcludedRows | None:
    """Return queries for distinct rows (n, d) of weights (n,), or None if all columns are continuous."""
    if widths is None or not np.any(widths):
        return None
    n_points = len(points)
    copies = _copies(points, weights, widths)
    repeated = np.flatnonzero(copies > 1)
    others = weights[repeated] * (1 - 1 / copies[repeated])
    n_draws = np.ceil(weights / weights.sum() * _N_OFFSETS).astype(np.intp)
    query = np.repeat(np.arange(n_points), n_draws)
    number = np.arange(len(query)) - np.repeat(np.cumsum(n_draws) - n_draws, n_draws)
    # Equal rows, which folds may hold, get different offsets.
    number += len(query) * _occurrence(points)[query]
    return ExcludedRows(
        np.append(np.arange(n_points), repeated),
        np.append(weights / copies, others),
        query,
        _random_offsets(points, widths, query, number),
        (weights / n_draws)[query],
    )


def dequantized(
    points: np.ndarray, weights: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (m, d) plus uniform noise of the columns' `widths` (d,), and their indices (m,).

    Indices are those of distinct rows (n, d), each of which is repeated if all columns are discrete.
    """
    if not widths.any():
        return points, np.arange(len(points))
    copies = _copies(points, weights, widths)
    row = np.repeat(np.arange(len(points)), copies)
    number = np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)
    return points[row] + _random_offsets(points, widths, row, number), row


def _copies(points: np.ndarray, weights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return how many rows, different before rounding, were recorded as each distinct row (n, d)."""
    if np.all((widths > 0) | (np.ptp(points, axis=0) == 0)):
        return copies_of(weights)
    return np.ones(len(points), dtype=np.intp)


def _occurrence(points: np.ndarray) -> np.ndarray:
    """Return how many equal rows come before each row (n,)."""
    _, group = distinct_rows(points)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(group.max() + 1))
    occurrence = np.empty(len(points), dtype=np.intp)
    occurrence[order] = np.arange(len(points)) - first[group[order]]
    return occurrence


def _random_offsets(
    points: np.ndarray, widths: np.ndarray, query: np.ndarray, number: np.ndarray
) -> np.ndarray:
    """Return offsets (n_queries, d) of rows `query` that are uniform within the width of each column.

    They are a hash of the ranks of the values and of the `number` (n_queries,) of the draw. So they
    depend on neither the order of rows or columns nor their units, and columns with the same ranks, up
    to their direction (a column in two units), get the same offsets in units of their widths.
    """
    ranks = np.column_stack([np.unique(column, return_inverse=True)[1] for column in points.T])
    ranks, signs = _oriented(ranks)
    hashed = _mixed(ranks.astype(np.uint64))
    column_key = _mixed(hashed.sum(axis=0, dtype=np.uint64))
    varied = np.unique(ranks[:, ranks.any(axis=0)], axis=1, return_index=True)[1]
    of_columns = _mixed(hashed + column_key)[:, ranks.any(axis=0)][:, varied]
    row_key = of_columns.sum(axis=1, dtype=np.uint64)
    offsets = np.zeros((len(query), points.shape[1]))
    draw_key = row_key[query] + number.astype(np.uint64) * _GOLDEN
    for column in np.flatnonzero(widths):
        bits = _mixed(_mixed(draw_key) + column_key[column] + hashed[query, column])
        offsets[:, column] = (bits / 2.0**64 - 0.5) * (signs[column] * widths[column])
    return offsets


def _oriented(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ranks (n, d), counted from the end of a column where its sign (d,) is negative."""
    opposite = ranks.max(axis=0) - ranks
    keys, opposite_keys = (
        _mixed(each.astype(np.uint64)).sum(axis=0, dtype=np.uint64) for each in (ranks, opposite)
    )
    is_opposite = opposite_keys < keys
    return np.where(is_opposite, opposite, ranks), np.where(is_opposite, -1.0, 1.0)


def _mixed(keys: np.ndarray) -> np.ndarray:
    """Return pseudo-random 64-bit integers, one for each key (SplitMix64 of Steele et al. 2014)."""
    z = keys + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
