"""Fits `MixedDensity`: which coordinates have a joint density, and the rows to which it is fitted.

Coordinates of columns without atoms have one joint density (if all columns have atoms, one for each set
that is at no atom together). Columns with atoms have a density given these, for each set of them that is
at no atom together. Sets with few rows have no density of their own: their columns are independent given
the levels (or given all other columns), with a warning.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from .._estimators.kde import KDESampler
from .._utils.progress import counted, tracked
from .._utils.warnings import warn_user
from ._amounts import Rows, fit_amounts
from ._cells import N_CHOICE, in_cells, lattice, lattice_of, mapped, mapped_ends
from ._columns import EncodedTable, TableColumns
from ._continuous import RowsInCells, fit_part
from ._density import MixedDensity
from ._discrete import LevelDensity, LevelKernel
from ._relations import warn_of_relations

# Fewest rows with which a set of coordinates has a density of its own.
_FEWEST_ROWS = 10
# `fit` warns if more of the rows than this fraction are in sets of columns that have no density.
_SHARE_OF_FEW = 0.02
# Fractions of the fit time, for progress, of columns with atoms, and of the choice of points of cells.
_SHARE_OF_AMOUNTS, _SHARE_OF_POINTS = 0.15, 0.15


class _Training(NamedTuple):
    """Training rows, their mapped values (n, p), weights (n,), and kernels of levels to begin with."""

    rows: EncodedTable
    z: np.ndarray
    weights: np.ndarray
    kernels: list[LevelKernel]


def fit_mixed(
    table: TableColumns, rows: EncodedTable, weights: np.ndarray, density: Any
) -> MixedDensity:
    """Return the density of n rows of positive weights (n,); `density` is the estimator for numbers."""
    n_levels = [each.n_levels for each in table.discrete]
    is_ordered = [each.ordered for each in table.discrete]
    has_values = [each.continuous is not None for each in table.discrete]
    level_density = LevelDensity.fit(rows.levels, weights, n_levels, is_ordered, has_values)
    # Masses are equal: the fewer rows a level has, the larger the part of its weight from other levels.
    kernels = [
        LevelKernel(np.full(n, 1 / n), ordered)
        for n, ordered in zip(n_levels, is_ordered, strict=True)
    ]
    fitted = MixedDensity(table, level_density, [], [])
    training = _Training(rows, table.coordinates(rows.values)[0], weights, kernels)
    present = fitted.present(rows.levels)
    of_atoms = np.unique(present[:, fitted.conditional], axis=0)
    present[:, fitted.conditional] = False
    patterns, counts = np.unique(present, axis=0, return_counts=True)
    wanted = [tuple(np.flatnonzero(pattern).tolist()) for pattern in patterns]
    with counted(1) as done:
        done.size = 1 - _SHARE_OF_AMOUNTS
        for key in tracked(wanted, "set of columns"):
            _fit_part(fitted, key, training, density, is_alone=len(key) == 1)
        lacking = [
            (key, int(count))
            for key, count in zip(wanted, counts, strict=True)
            if key and fitted.part(key) is None
        ]
        n_with_atoms = len(
            {each.continuous for each in table.discrete if each.continuous is not None}
        )
        if lacking or (n_with_atoms > 1 and not len(fitted.conditional)):
            for index in fitted.common.tolist():
                if fitted.part((index,)) is None:
                    _fit_part(fitted, (index,), training, density, is_alone=True)
        for key, count in lacking:
            names = [table.continuous[k].name for k in key]
            warn_user(
                f"fewer than {_FEWEST_ROWS} different rows have values in all of the columns {names} "
                f"({count} rows if missing cells are counted). There the columns are independent given "
                "the levels. Pass more complete rows, or drop columns with many missing values."
            )
        done()
        done.size = _SHARE_OF_AMOUNTS
        alone = np.eye(len(fitted.conditional), dtype=bool)
        chosen_sets = np.unique(np.concatenate([of_atoms, alone]), axis=0)
        few = {}
        for chosen in tracked(list(chosen_sets), "set of columns with atoms"):
            columns = fitted.conditional[chosen]
            n_used = _fit_amounts(fitted, columns, training)
            if len(columns) > 1 and 0 < n_used < _FEWEST_ROWS:
                few[tuple(table.continuous[k].name for k in columns)] = n_used
        if sum(few.values()) > _SHARE_OF_FEW * len(rows):
            sets = ", ".join(f"{list(names)} ({n})" for names, n in few.items())
            warn_user(
                f"fewer than {_FEWEST_ROWS} rows hold values that are no atoms in all columns of these "
                f"sets: {sets}. There the columns of a set are independent given the others. Pass more "
                "rows, or leave out one of the columns by kinds={column: None}."
            )
        done()
    return fitted


def _fit_amounts(fitted: MixedDensity, columns: np.ndarray, training: _Training) -> int:
    """Return the number of rows in which columns are at no atom, after adding their density.

    No density is added if this number is 0, or below ten with several columns.
    """
    rows, z, weights, kernels = training
    table = fitted.table
    if not len(columns):
        return 0
    base = fitted.common
    for given in (base, base[:0]):
        known = ~np.isnan(z[:, np.concatenate([given, columns])]).any(axis=1)
        if known.sum() >= _FEWEST_ROWS:
            break
    (used,) = np.nonzero(known)
    names = [table.continuous[k].name for k in columns]
    if not len(used) or (len(columns) > 1 and len(used) < _FEWEST_ROWS):
        return len(used)
    if len(given) < len(base):
        warn_user(
            f"fewer than {_FEWEST_ROWS} rows have values that are no atoms in {names} and values in "
            f"all of the columns {[table.continuous[k].name for k in base]}. There the columns {names} "
            "depend on levels only. Pass more complete rows, or drop columns with many missing values."
        )
    own = z[np.ix_(used, columns)]
    if len(columns) == 1 and (own == own[0]).all():
        warn_user(
            f"column {names[0]!r} has one value in rows where it is "
            "not at an atom: its density there is broad, since one value has no scale. Pass more "
            "rows, or declare the value as an atom, too."
        )
    low, high = mapped_ends(table, rows.values[used], columns)
    knots = {
        each.continuous: each.knot
        for each in table.columns
        if np.isfinite(each.edges[0]) and np.isfinite(each.knot)
    }
    own_knots = np.array([knots.get(k, np.nan) for k in columns.tolist()])
    periods = np.array([table.continuous[k].period or 0.0 for k in given])
    used_rows = Rows(z[np.ix_(used, given)], low, high, rows.levels[used], weights[used])
    fitted.amounts.append(fit_amounts(columns, given, used_rows, own, kernels, periods, own_knots))
    return len(used)


def _fit_part(
    fitted: MixedDensity,
    key: tuple[int, ...],
    training: _Training,
    density: Any,
    *,
    is_alone: bool,
) -> None:
    """Add the density of the coordinates with indices `key`, fitted to rows with values in all."""
    rows, z, weights, kernels = training
    table, columns = fitted.table, np.array(key, dtype=np.intp)
    (used,) = np.nonzero(~np.isnan(z[:, columns]).any(axis=1))
    own = z[used][:, columns]
    n_different = len(np.unique(own, axis=0))
    if not len(columns) or not (is_alone or n_different >= _FEWEST_ROWS):
        return
    if n_different == 1:
        name, value = table.continuous[key[0]].name, own[0, 0]
        density = KDESampler(bandwidth=abs(value) or 1.0)
        warn_user(
            f"column {name!r} has one value in rows where it is not at an atom: its density "
            f"there is a Gaussian about it, of width {density.bandwidth:.3g}, since one value has "
            "no scale. Pass more rows, or declare the value as an atom, too."
        )
    units = np.array([table.continuous[k].unit for k in key])

    def moved(index: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at_points, slopes = in_cells(table, rows.values[used[index]], columns, offsets)
        _, center = mapped(table, rows.values[used[index]], columns)
        return at_points, slopes - center

    has_cells = units > 0
    points = lattice(has_cells, N_CHOICE)
    training_cells = RowsInCells(rows.levels[used], own, weights[used], moved, points, has_cells)
    names = [table.continuous[k].name for k in key]
    label = f"density of the columns {names}"
    with counted(1) as done:
        done.size = 1 - _SHARE_OF_POINTS
        own_density = _with_periods(table, density, key)
        part = fit_part(label, columns, own_density, training_cells, kernels)
        warn_of_relations(names, rows.values[used][:, columns], units)
        done()
        done.size = _SHARE_OF_POINTS
        offsets = lattice_of(table, part, units, rows.take(used))
        done()
    fitted.parts.append(replace(part, offsets=offsets))


def _with_periods(table: TableColumns, density: Any, key: tuple[int, ...]) -> Any:
    """Return the density with the parameter `periods` of the coordinates with indices `key`."""
    periods = {
        i: table.continuous[k].period
        for i, k in enumerate(key)
        if table.continuous[k].period is not None
    }
    if not periods:
        return density
    return clone(density).set_params(periods=periods)
