"""Warns of linear relations between columns of numbers: a total and its parts, shares that sum to one.

A relation holds exactly, or up to the rounding of the columns: with the values in units of their cells
the rounding errors of a combination of norm one have variance 1/12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._coordinates.columns import ColumnSpace
from .._utils.warnings import warn_user

# A column is in a relation if its coefficient times its standard deviation exceeds this fraction of the
# largest product: in an exact relation, and in one up to rounding.
_UNRELATED, _UNRELATED_CELLS = 1e-6, 0.1
# Largest variance, in squared cells, that is taken as due to rounding alone: twice 1/12.
_VARIANCE = 1 / 6
# Relations up to rounding are sought among columns with more than this many cells in a standard
# deviation, and with at least this many rows for each column, so that few arise by chance.
_FEWEST_CELLS, _FEWEST_ROWS = 5, 5


def warn_of_relations(names: Sequence[Any], values: np.ndarray, units: np.ndarray) -> None:
    """Warn if columns (n, p) of rounding widths `units` (p,), 0 if exact, satisfy linear relations."""
    varies = (values != values[0]).any(axis=0)
    if not varies.any():
        # Columns of one value have a warning of their own.
        return
    distinct, counts = np.unique(values[:, varies], axis=0, return_counts=True)
    space, what = ColumnSpace.of(distinct, counts / counts.sum()), "exact relations"
    n_relations, related = space.n_relations, np.array([], dtype=np.intp)
    if n_relations:
        loadings = np.abs(space.relation_axes()) * space.deviations
        related = np.flatnonzero(varies)[(loadings > _UNRELATED * loadings.max()).any(axis=0)]
    else:
        what = "relations up to their rounding"
        n_relations, related = _within_cells(values, units)
    if n_relations:
        warn_user(
            f"the columns {[names[k] for k in related]} satisfy {n_relations} {what}, such as a total "
            "and its parts, shares that sum to one, a copy, or an age and two dates. Draws may break "
            "them, and log-densities of rows that satisfy them are too high by a constant, some 25 nats "
            "for each relation, or, in rounded columns, too low. Leave out columns that others "
            "determine, by kinds={column: None}."
        )


def _within_cells(values: np.ndarray, units: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of relations up to rounding, and the indices of the columns in them."""
    deviations = values.std(axis=0)
    (columns,) = np.nonzero((units > 0) & (deviations > _FEWEST_CELLS * units))
    if len(columns) < 2 or len(values) < _FEWEST_ROWS * len(columns):
        return 0, columns[:0]
    covariance = np.cov((values[:, columns] / units[columns]).T, bias=True)
    variances, axes = np.linalg.eigh(covariance)
    loadings = np.abs(axes[:, variances < _VARIANCE].T) * (deviations[columns] / units[columns])
    if not len(loadings):
        return 0, columns[:0]
    is_related = (loadings > _UNRELATED_CELLS * loadings.max(axis=1, keepdims=True)).any(axis=0)
    return len(loadings), columns[is_related]
