"""Rows that are copies of others up to rounding or a tiny jitter.

Three kinds of copies are recognised:

1. rows that differ only in columns that are constant up to rounding;
2. a row that is exactly the float32 rounding of another row;
3. a row that is at least 1e4 times nearer to its c nearest rows, for some c, than to all others. Where a
   density is smooth, the distance to one row is less than q times that to the next with probability q or
   less, so that this is true of s of n rows by chance with probability at most (e n q / s)^s. Copies are
   accepted where this is below 1e-6.

Few tight clusters far apart are not copies: a row has at most 31 copies, and five groups must remain.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .column_precision import has_extent
from .units import column_sizes

# Distances of copies are below this fraction of the distance to the next row.
_LARGEST_SHARE = 1e-4
# Gaps are taken for those of copies if smooth data would have them with a probability below this.
_FALSE_ALARM = 1e-6
_MOST_NEIGHBORS = 32
_FEWEST_GROUPS = 5
# A gap below this fraction also marks copies, if their distance is at most that of certain copies.
_LARGEST_SHARE_OF_LENGTH = 1e-2
# Fewest and most rows that are searched for copies first; all rows are searched if some have copies.
_ROWS = 100, 2000
_MOST_DISTANCES = 2e8
# Neighbours of a row are sought among so many rows before and after it in the order of the first column.
_WINDOWS = 64, 512
_LARGEST_ARRAY = 2**20


def near_rows(points: np.ndarray, *, by_column: bool) -> tuple[np.ndarray, float]:
    """Return the group (n,) of each of n distinct rows (n, d), and the largest distance of copies.

    Groups are numbered in the order of their first rows; without copies the array is empty. The distance
    is relative to the typical distance from a group to the nearest other group. With `by_column`
    distances are in standard deviations of the columns; if not, in one unit.
    """
    nothing = np.empty(0, dtype=np.intp), 0.0
    if len(points) <= _FEWEST_GROUPS:
        return nothing
    z, index = distinct_rows(_scaled(points, by_column=by_column))
    if len(z) < _FEWEST_GROUPS:
        return nothing
    pairs = np.concatenate([index[_float32_pairs(points)], _near_pairs(z)])
    if len(z) == len(points) and not len(pairs):
        return nothing
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(z), len(z)))
    n_groups, label = connected_components(graph, directed=False)
    if n_groups < _FEWEST_GROUPS:
        return nothing
    first, group = np.unique(label[index], return_index=True, return_inverse=True)[1:]
    # Groups are numbered in the order of their first rows.
    rank = np.empty(n_groups, dtype=np.intp)
    rank[np.argsort(first)] = np.arange(n_groups)
    lengths = np.linalg.norm(z[pairs[:, 0]] - z[pairs[:, 1]], axis=1)
    typical = float(np.median(cKDTree(z[index[first]]).query(z[index[first]], k=2)[0][:, 1]))
    return rank[group.ravel()], float(lengths.max(initial=0.0)) / typical


def representatives(points: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the index (n_groups,) of the row that remains of each group of distinct rows (n, d).

    It is the one whose values are most frequent in the columns, so that a column of few values keeps
    these; among equals, one that is not rounded to float32; then the first.
    """
    common = np.zeros(len(points), dtype=np.intp)
    for column in points.T:
        _, value, counts = np.unique(column, return_inverse=True, return_counts=True)
        common += counts[value.ravel()]
    order = np.lexsort((_is_single(points), -common))
    return order[np.unique(group[order], return_index=True)[1]]


def _rounded_to_single(points: np.ndarray) -> np.ndarray:
    """Return points (n, d) with the mantissas of float32, and exponents of any size."""
    mantissas, exponents = np.frexp(points)
    return np.ldexp(np.round(mantissas * 2.0**24), exponents - 24)


def _is_single(points: np.ndarray) -> np.ndarray:
    """Return which of the points (n, d) are float32 numbers, up to their exponents."""
    rows = np.arange(len(points))
    for column in points.T:
        # Most rows are out of the question after the first column.
        values = column[rows]
        rows = rows[_rounded_to_single(values) == values]
    is_single = np.zeros(len(points), dtype=bool)
    is_single[rows] = True
    return is_single


def distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct ones of rows (n, d), sorted by column, and the index (n,) of each in them."""
    if rows.shape[1]:
        first = rows[:, 0]
        if np.all(first[1:] > first[:-1]):
            return rows, np.arange(len(rows))
        # No other column is needed where the values of the first one are all different.
        order = np.argsort(first)
        first = first[order]
        if np.all(first[1:] > first[:-1]):
            index = np.empty(len(rows), dtype=np.intp)
            index[order] = np.arange(len(rows))
            return rows[order], index
    distinct, index = np.unique(rows, axis=0, return_inverse=True)
    return distinct, index.ravel()


def _scaled(points: np.ndarray, *, by_column: bool) -> np.ndarray:
    """Return rows (n, d) in standard deviations of the columns, or in one unit for all of them."""
    # Powers of two, so that squares of 1e150 do not overflow, and columns keep all their digits.
    exponents = np.frexp(column_sizes(points))[1]
    z = np.ldexp(points, -exponents)
    # The median is subtracted, not the mean, so that other rows lose no digits by a far row.
    z -= np.partition(z, len(z) // 2, axis=0)[len(z) // 2]
    z[:, ~has_extent(points)] = 0.0
    if not by_column:
        return np.ldexp(z, exponents - exponents.max())
    std = z.std(axis=0)
    return z / np.where(std > 0, std, 1.0)


def _float32_pairs(points: np.ndarray) -> np.ndarray:
    """Return pairs (k, 2) of a row and another that is its rounding to float32."""
    is_single = _is_single(points)
    if is_single.all() or not is_single.any():
        return np.empty((0, 2), dtype=np.intp)
    _, label = distinct_rows(_rounded_to_single(points) + 0.0)
    # At most one float32 row has each label, since rows are distinct.
    single = np.full(len(points), -1)
    single[label[is_single]] = np.flatnonzero(is_single)
    others = np.flatnonzero(~is_single)
    partners = single[label[others]]
    return np.column_stack([partners, others])[partners >= 0]


def _near_pairs(z: np.ndarray) -> np.ndarray:
    """Return pairs (k, 2) of rows of z (n, d) that are copies, found by gaps in the distances."""
    nothing = np.empty((0, 2), dtype=np.intp)
    n_rows = int(np.clip(_MOST_DISTANCES / z.size, *_ROWS))
    rows = np.linspace(0, len(z) - 1, min(len(z), n_rows)).round().astype(np.intp)
    if _have_no_copies(z, rows):
        return nothing
    tree = cKDTree(z)
    gaps = _gaps(tree, z[rows])
    longest = _longest_copy(gaps)
    if not longest:
        return nothing
    if len(rows) < len(z):
        rows = np.arange(len(z))
        gaps = _gaps(tree, z)
    is_accepted = (gaps.share <= _LARGEST_SHARE_OF_LENGTH) & (gaps.length <= longest)
    copies = np.where(is_accepted, gaps.n_copies, 0)
    is_copy = np.arange(gaps.neighbors.shape[1]) < copies[:, None]
    return np.column_stack([np.repeat(rows, copies), gaps.neighbors[is_copy]])


class _Gaps(NamedTuple):
    """The widest gap among the distances of each of n rows to its nearest neighbours."""

    share: np.ndarray  # Ratio (n,) of the distance before the gap to the one after it
    length: np.ndarray  # The distance (n,) before the gap
    n_copies: np.ndarray  # Number (n,) of neighbours before the gap
    neighbors: np.ndarray  # Indices (n, k) of the neighbours, by distance

    @classmethod
    def of(cls, distances: np.ndarray, neighbors: np.ndarray) -> _Gaps:
        """Return the gaps among increasing distances (n, k + 1), the first of a row from itself."""
        ratios = distances[:, 1:-1] / distances[:, 2:]
        widest = np.argmin(ratios, axis=1)
        each = np.arange(len(distances))
        return cls(ratios[each, widest], distances[each, widest + 1], widest + 1, neighbors[:, 1:])


def _gaps(tree: cKDTree, queries: np.ndarray) -> _Gaps:
    return _Gaps.of(*tree.query(queries, k=min(_MOST_NEIGHBORS + 1, tree.n)))


def _have_no_copies(z: np.ndarray, rows: np.ndarray) -> bool:
    """Return whether the sorted rows z (n, d) certainly hold no copies of those with indices `rows`.

    No tree is needed: the neighbours of a row in the order of the first column bound the distance r to
    the last neighbour that counts, and a copy would be within `_LARGEST_SHARE` of r.
    """
    n, d = z.shape
    k = min(_MOST_NEIGHBORS, n - 1)
    # Distances of rows that have no other row near are left at one: these have no gaps.
    lengths = np.ones((len(rows), k + 1))
    left = np.arange(len(rows))
    for half in _WINDOWS:
        size = min(2 * half + 1, n)
        unknown = [left[:0]]
        for part in np.array_split(left, max(1, len(left) * size * d // _LARGEST_ARRAY)):
            start = np.clip(rows[part] - half, 0, n - size)
            offsets = z[start[:, None] + np.arange(size)] - z[rows[part], None]
            distances = np.sqrt(np.einsum("ijk,ijk->ij", offsets, offsets))
            distances = np.sort(np.partition(distances, k, axis=1)[:, : k + 1], axis=1)
            # Rows outside the window are farther away than its ends in the first column.
            before = np.where(start > 0, -offsets[:, 0, 0], np.inf)
            after = np.where(start < n - size, offsets[:, -1, 0], np.inf)
            nearest_outside = np.minimum(before, after)
            # One percent more than the share, for rounding.
            closest = 1.01 * _LARGEST_SHARE * distances[:, k]
            is_alone = (closest < distances[:, 1]) & (closest < nearest_outside)
            is_exact = ~is_alone & (distances[:, k] <= nearest_outside)
            lengths[part[is_exact]] = distances[is_exact]
            unknown.append(part[~is_alone & ~is_exact])
        left = np.concatenate(unknown)
    return not len(left) and not _longest_copy(_Gaps.of(lengths, lengths))


def _longest_copy(gaps: _Gaps) -> float:
    """Return the largest distance between rows that certainly are copies, or 0."""
    order = np.argsort(gaps.share, kind="stable")
    share = gaps.share[order]
    # Each of a group of copies has the same gap.
    independent = np.cumsum(1 / (1 + gaps.n_copies[order]))
    log_chance = independent * np.log(np.e * len(share) * share / independent)
    accepted = np.flatnonzero((share < _LARGEST_SHARE) & (log_chance < np.log(_FALSE_ALARM)))
    return float(gaps.length[order[: accepted[-1] + 1]].max()) if len(accepted) else 0.0
