"""TableColumns: the kinds of the columns of a table, and the conversion of rows to levels and values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._utils.column_precision import copies_of
from .._utils.given import resolve_columns
from .._utils.rows import check_sample_weight
from .._utils.validation import check_choice, wrong_type
from .._utils.warnings import warn_of_table, warn_user
from ._column import (
    UNKNOWN,
    UNUSED,
    Column,
    EncodedTable,
    decode_column,
    encode_column,
    fit_column,
    given_cells,
    in_family,
    listed,
)
from ._distances import from_line, to_line
from ._frames import Cells, FrameType, as_objects, read_frame
from ._kinds import Kind, Periodic, WithLevels

# Exponentials of larger logarithms overflow in float64.
_LARGEST_LOG = 700.0


@dataclass(frozen=True)
class DiscreteCoordinate:
    """A coordinate with levels: those of a column of levels, or the atoms of a column of numbers."""

    name: Any  # the label of the column
    n_levels: int
    ordered: bool
    continuous: int | None
    """The index of the continuous coordinate that has a value only where the level is 0, or None."""


@dataclass(frozen=True)
class ContinuousCoordinate:
    """A coordinate that is a number."""

    name: Any  # the label of the column
    period: float | None  # in units of the values, or None
    unit: float
    """The width to which values were rounded, in units of the values; 0 where they are exact."""
    discrete: int | None
    """The index of the discrete coordinate that must be 0 where there is a value, or None."""


@dataclass(frozen=True, repr=False, eq=False)
class TableColumns:
    """The kinds of the columns of a table, and its rows as levels and values.

    `TableColumns.fit` makes it from a training frame; it does not change after that. Each row is encoded
    as levels (integers) and values (floats). A column of levels has one level, a column of numbers one
    value; a column of numbers with atoms (values that many rows hold exactly) has both, with level 0
    where the cell is at none of its atoms. A missing cell has level -1 and value NaN.

    >>> import pandas as pd
    >>> from skdiffsmooth.tables import Ordinal, TableColumns
    >>> frame = pd.DataFrame(
    ...     {
    ...         "grade": ["low", "high", "low", "mid"],
    ...         "height": [1.7123, 1.8251, 1.6418, None],
    ...         "smokes": [True, False, False, True],
    ...     }
    ... )
    >>> columns = TableColumns.fit(frame, {"grade": Ordinal(["low", "mid", "high"])})
    >>> columns
    TableColumns of a pandas table with 3 columns:
      'grade'   ordinal     3 levels: 'low', 'mid', 'high'; declared
      'height'  continuous  25.0% missing
      'smokes'  boolean     2 levels: False, True
    >>> rows = columns.encode(frame)
    >>> rows.levels.tolist()
    [[0, 1], [2, 0], [0, 0], [1, 1]]
    >>> columns.decode(rows).equals(frame)
    True

    Attributes
    ----------
    discrete : tuple of DiscreteCoordinate
        The coordinates with levels, in the order of the columns.
    continuous : tuple of ContinuousCoordinate
        The coordinates that are numbers, in the order of the columns.

    Notes
    -----
    What is detected, where `kinds` does not name a column (docs/guide/tables.md has the reasons):

    ============================================  ===================================================
    column                                        kind
    ============================================  ===================================================
    boolean dtype                                 `Boolean`
    text, categorical dtype                       `Categorical`; `Ordinal`, if the dtype is ordered
    text, ten rows or more, all different         an error: an identifier
    dates, with or without time zone              `Datetime`, with the coarsest unit that fits
    numbers, one value in all rows                `Categorical`, with a warning
    dates or durations, one value in all rows     as others, with this value as an atom; a warning
    numbers, two values, ten rows or more         `Boolean` if they are 0 and 1, else `Ordinal`
    numbers, each value in 5 rows or more and     `Ordinal`
    5 % of them; or at most 20 values, half in 5
    rows or more, 100 units apart on average
    other integers                                `Integer`; with the bound 0 if the lowest of ten or
                                                  more is >= 0 and at most half of the highest
    other floats and durations: multiples of a    `Integer` from 0 on, in this unit
    unit that begin at 0 or at one unit
    ... all above 0, though 20 were expected      `Positive`
    below it, or with a near-Gaussian logarithm
    ... the same, and below 1 or 100              `Interval`
    ... a value at an end in 2 % of the rows      `Positive` or `Interval` with this atom and bound
    ... all others                                `Continuous`
    ============================================  ===================================================

    An atom is a value in at least five rows, in 2 % of the rows and in four times as many rows as each
    of the ten nearest values on both sides. `Periodic` is never detected. Detection does not depend on
    the order of rows, nor, except for whole numbers and the bounds 1 and 100, on the units of columns.
    """

    frame: FrameType
    """How the training frame stores its columns."""
    columns: tuple[Column, ...]
    """The columns that are used."""
    ignored: tuple[Any, ...]
    """Labels of the columns that are left out."""
    discrete: tuple[DiscreteCoordinate, ...]
    continuous: tuple[ContinuousCoordinate, ...]
    new_levels: str = "error"
    """The default of the argument `new_levels` of `encode`."""
    new_weight: float = 0.0
    """The probability of all new levels of a column together: that of half a training row."""

    @classmethod
    def fit(cls, X: Any, kinds: Any = None, sample_weight: Any = None) -> TableColumns:
        """Return the columns of a training table.

        Parameters
        ----------
        X : DataFrame of pandas or polars, or array-like of shape (n_samples, n_columns)
            Training rows. Missing cells (None, NaN, NaT, pandas.NA, null) are allowed.
        kinds : mapping from column to Kind or None, default=None
            Kinds of columns that are not to be detected, by label (by index, where X has none); None
            leaves the column out.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows, one of weight zero as absent.

        Returns
        -------
        TableColumns
            The columns, by which `encode` and `decode` convert rows.

        Raises
        ------
        TypeError
            If X is no table, or `kinds` no mapping to kinds.
        ValueError
            If X is empty or has several columns of one name; if a column holds no value, values of
            several types, infinity, identifiers, or values that are not of its kind; or if `kinds` has
            an unknown column. The message names the column.

        Warns
        -----
        UserWarning
            If a column has one value in all rows, if rows have no value at all, or if a column of text
            has hardly fewer levels than rows.
        """
        frame, cells, _ = read_frame(X)
        weight = check_sample_weight(sample_weight, len(cells[0].values))
        if np.any(weight == 0):
            kept = weight > 0
            weight = weight[kept]
            cells = [Cells(c.family, c.values[kept], c.missing[kept]) for c in cells]
        copies = copies_of(weight)
        declared = _check_kinds(kinds, frame.names)
        ignored = tuple(name for name in frame.names if declared.get(name, 0) is None)
        if len(ignored) == len(frame.names):
            raise ValueError(
                f"kinds leaves out all {len(ignored)} columns; expected at least one that is used."
            )
        columns: list[Column] = []
        discrete: list[DiscreteCoordinate] = []
        continuous: list[ContinuousCoordinate] = []
        for name, stored, part in zip(frame.names, frame.types, cells, strict=True):
            if name in ignored:
                continue
            column = fit_column(name, declared.get(name), stored, part, copies)
            has_levels = isinstance(column.kind, WithLevels) or bool(column.atoms)
            has_values = not isinstance(column.kind, WithLevels)
            columns.append(
                replace(
                    column,
                    discrete=len(discrete) if has_levels else None,
                    continuous=len(continuous) if has_values else None,
                )
            )
            if has_levels:
                discrete.append(_discrete_coordinate(columns[-1]))
            if has_values:
                continuous.append(_continuous_coordinate(columns[-1]))
        used = [part for name, part in zip(frame.names, cells, strict=True) if name not in ignored]
        _warn_of_empty_rows(used)
        new_weight = 0.5 / (float(copies.sum()) + 0.5)
        coordinates = tuple(discrete), tuple(continuous)
        table = cls(frame, tuple(columns), ignored, *coordinates, new_weight=new_weight)
        rows = table._empty(len(weight))
        for column, part in zip(columns, used, strict=True):
            # Raises an error where values do not fit the declared kind.
            encode_column(column, part, rows)
        return table

    @property
    def names(self) -> tuple[Any, ...]:
        """The labels of the columns that are used, in the order of the training frame."""
        return tuple(column.name for column in self.columns)

    @property
    def labels(self) -> np.ndarray:
        """`names` as an array of objects."""
        return as_objects(self.names)

    @property
    def kinds(self) -> dict[Any, Kind | None]:
        """The kinds of all columns, with all that was detected; `fit` with these detects nothing."""
        resolved = {column.name: column.kind for column in self.columns}
        return {name: resolved.get(name) for name in self.frame.names}

    @property
    def base_measure(self) -> dict[Any, str]:
        """The measure with respect to which the log-density of each column is defined."""
        measures = {}
        for column in self.columns:
            measure = "counting measure of levels"
            if column.continuous is not None:
                unit = self.continuous[column.continuous].unit
                measure = (
                    f"counting measure of cells of width {unit:g}" if unit else "Lebesgue measure"
                )
                if column.atoms:
                    listed = ", ".join(f"{atom:g}" for atom in column.atoms)
                    measure += f", and counting measure of {listed}"
            measures[column.name] = measure
        return measures

    def encode(self, X: Any, *, new_levels: str | None = None) -> EncodedTable:
        """Return the rows of a table as levels and values.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_columns)
            Rows with the columns of the training table, in any order if they have names.
        new_levels : {"error", "missing"} or None, default=None
            Whether a level that the column does not have raises ValueError, or becomes a missing cell
            (marked in ``is_new``). None is the attribute `new_levels`, "error" by default. Categories of
            the dtype that no training row has become missing cells in both cases.

        Returns
        -------
        EncodedTable
            Levels, values, and the index of a pandas frame.

        Raises
        ------
        TypeError, ValueError
            If X is no such table: columns are missing, too many or of another type, or cells hold
            infinity, a value outside the bounds, or an unknown level. The message names the column.
        """
        new_levels = self.new_levels if new_levels is None else new_levels
        check_choice("new_levels", new_levels, ("error", "missing"))
        lowest = UNUSED if new_levels == "error" else UNKNOWN
        frame, cells, index = read_frame(X)
        cells = [cells[position] for position in self._positions(frame)]
        rows = self._empty(len(cells[0].values))
        for column, part in zip(self.columns, cells, strict=True):
            encode_column(column, part, rows, lowest)
        return replace(rows, index=index)

    def encode_given(self, given: Any, n_rows: int) -> EncodedTable:
        """Return rows in which only some columns have values, and all others are missing.

        Parameters
        ----------
        given : mapping from column to value
            For each column one value, or an array of shape (n_rows,).
        n_rows : int
            Number of rows.

        Returns
        -------
        EncodedTable
            Levels and values.

        Raises
        ------
        TypeError, ValueError
            If `given` is no mapping, or has an unknown column or a value that is not of its kind.
        """
        if not isinstance(given, Mapping):
            raise wrong_type(
                "given", given, "a mapping from columns to values, such as {'species': 'Adelie'}."
            )
        rows = self._empty(n_rows)
        labels = self.labels
        for name, value in given.items():
            (position,) = resolve_columns("given", [name], labels, len(labels))
            column = self.columns[position]
            part = given_cells(column, value, n_rows)
            if part.missing.any():
                raise ValueError(
                    f"given[{name!r}] has missing values; expected values. Leave the column out "
                    "of given where its value is not known."
                )
            encode_column(column, part, rows)
        return rows

    def decode(self, rows: EncodedTable) -> Any:
        """Return rows as a frame with the dtypes, categories and order of the training frame.

        Values are rounded to the unit of their column and moved into its bounds. Columns of integers and
        booleans that cannot hold missing cells become floats and objects if cells are missing.

        Parameters
        ----------
        rows : EncodedTable
            Levels and values. Without an index, rows are numbered; the index is named as in training.

        Returns
        -------
        DataFrame or ndarray
            Like the training table, without columns that are left out.
        """
        kept = [name not in self.ignored for name in self.frame.names]
        frame = replace(
            self.frame,
            names=self.names,
            types=tuple(
                kind for kind, is_kept in zip(self.frame.types, kept, strict=True) if is_kept
            ),
        )
        return frame.build([decode_column(column, rows) for column in self.columns], rows.index)

    def fill(self, X: Any, rows: EncodedTable) -> Any:
        """Return a table with its missing cells taken from rows; all other cells are those of X.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_columns)
            A table that `encode` takes; it is not changed.
        rows : EncodedTable
            The same number of rows, without missing cells.

        Returns
        -------
        DataFrame or ndarray
            A table of the library of X, with its columns. A column that had missing cells gets its dtype
            in the training table: X may hold integers as floats, say, only because some are missing.
        """
        frame, cells, index = read_frame(X)
        positions = self._positions(frame)
        kept = list(cells)
        types = list(frame.types)
        for column, position in zip(self.columns, positions, strict=True):
            observed = in_family(column, cells[position])
            if not observed.missing.any():
                continue
            drawn = decode_column(column, rows)
            values = np.where(observed.missing, drawn.values, observed.values)
            if values.dtype.kind in "Mm":
                values = values.astype(drawn.values.dtype)
            kept[position] = Cells(drawn.family, values, observed.missing & drawn.missing)
            if frame.library == self.frame.library:
                types[position] = column.stored
        if frame.library == self.frame.library:
            frame = replace(frame, types=tuple(types), dtype=self.frame.dtype)
        return frame.build(kept, index)

    def mean_of_draws(self, rows: EncodedTable, n_draws: int) -> EncodedTable:
        """Return the mean of numbers and the most frequent level of each row.

        Parameters
        ----------
        rows : EncodedTable
            The first draw of each of n rows, then the second, and so on: n_draws * n rows.
        n_draws : int
            Number of draws of each row.

        Returns
        -------
        EncodedTable
            n rows. A number at an atom enters the mean as the atom; periodic means are on the circle.
        """
        n = len(rows) // n_draws
        levels = rows.levels.reshape(n_draws, n, len(self.discrete))
        values = rows.values.reshape(n_draws, n, len(self.continuous))
        mean = self._empty(n)
        for j, discrete in enumerate(self.discrete):
            counts = [(levels[:, :, j] == level).sum(axis=0) for level in range(discrete.n_levels)]
            mean.levels[:, j] = np.argmax(counts, axis=0)
        for column in self.columns:
            if column.continuous is None:
                continue
            j = column.continuous
            held = values[:, :, j]
            if column.discrete is not None:
                level = levels[:, :, column.discrete]
                held = np.where(level > 0, np.array([0.0, *column.atoms])[level], held)
                # The mean is at an atom only if all draws are at that atom.
                is_mixed = np.any(level != level[0], axis=0)
                mean.levels[is_mixed, column.discrete] = 0
            mean.values[:, j] = _mean(held, self.continuous[j].period)
            if column.discrete is not None:
                mean.values[mean.levels[:, column.discrete] > 0, j] = np.nan
        return mean

    def label_of(self, index: int, level: int) -> Any:
        """Return what a level of a discrete coordinate means: a label, an atom, or "not" the atoms."""
        (column,) = (each for each in self.columns if each.discrete == index)
        if isinstance(column.kind, WithLevels):
            assert column.kind.levels is not None
            return column.kind.levels[level]
        return column.atoms[level - 1] if level else f"not {listed(column.atoms)}"

    def log_new(self, rows: EncodedTable) -> np.ndarray:
        """Return log-probabilities (n, n_columns) of a new level where it is new, else of a known level.

        They are 0 where a cell is missing, and in columns that allow no new levels.
        """
        assert rows.is_new is not None  # `encode` makes it
        result = np.zeros((len(rows), len(self.columns)))
        for j, column in enumerate(self.columns):
            if not isinstance(column.kind, WithLevels):
                continue
            is_open = bool(set(column.stored.categories or ()) - set(column.kind.levels or ()))
            if is_open or self.new_levels == "missing":
                is_new = rows.is_new[:, column.discrete]
                is_known = rows.levels[:, column.discrete] >= 0
                weights = np.where(is_new, self.new_weight, 1 - is_known * self.new_weight)
                result[:, j] = np.log(weights)
        return result

    def is_missing(self, X: Any) -> np.ndarray:
        """Return which cells (n, n_columns) of a table are missing; new levels are not."""
        rows = self.encode(X)
        assert rows.is_new is not None
        return np.column_stack(
            [
                np.isnan(rows.values[:, column.continuous])
                if column.discrete is None
                else (rows.levels[:, column.discrete] < 0) & ~rows.is_new[:, column.discrete]
                for column in self.columns
            ]
        )

    def points(self, X: Any) -> np.ndarray:
        """Return rows as numbers (n, k), equal for equal rows: levels, values, and missing flags."""
        rows = self.encode(X)
        is_missing = np.isnan(rows.values)
        assert rows.is_new is not None
        levels = np.where(rows.is_new, UNUSED, rows.levels)
        return np.column_stack([levels, np.where(is_missing, 0.0, rows.values), is_missing])

    def concat(self, frames: Sequence[Any], order: np.ndarray) -> Any:
        """Return one frame, like the training frame, of the rows `order` (n,) of the joined frames.

        Its index is 0, ..., n - 1.
        """
        rows = [self.encode(frame) for frame in frames]
        levels = np.concatenate([part.levels for part in rows])[order]
        return self.decode(
            EncodedTable(levels, np.concatenate([part.values for part in rows])[order])
        )

    def coordinates(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values mapped to the real line, and the logarithms of the derivatives of the maps.

        The density of the values is that of the coordinates times the exponential of the sum of these
        logarithms. Columns with one bound are mapped by the logarithm of the distance from it, which
        becomes linear at large distances, those with two by the logit. The range of an integer ends
        half a unit beyond its bound.

        Parameters
        ----------
        values : ndarray of shape (n, n_continuous)
            Values within the bounds of their columns, in units of the columns; NaN stays.

        Returns
        -------
        z : ndarray of shape (n, n_continuous)
            Coordinates.
        log_slopes : ndarray of shape (n, n_continuous)
            Logarithms of the derivatives dz/dx; 0 where a value is NaN.
        """
        z, log_slopes = values.copy(), np.zeros_like(values)
        for column in self._mapped():
            j = column.continuous
            x, (low, high) = values[:, j], column.edges
            if math.isinf(high):
                z[:, j], log_slopes[:, j] = to_line(x - low, column.knot)
            elif math.isinf(low):
                negative, log_slopes[:, j] = to_line(high - x, column.knot)
                z[:, j] = -negative
            else:
                below, above = np.log(x - low), np.log(high - x)
                z[:, j] = below - above
                log_slopes[:, j] = math.log(high - low) - below - above
        return z, np.where(np.isnan(values), 0.0, log_slopes)

    def values_at(self, z: np.ndarray) -> np.ndarray:
        """Return the values (n, n_continuous) of coordinates: the inverse of `coordinates`."""
        values = z.copy()
        for column in self._mapped():
            j = column.continuous
            low, high = column.edges
            power = np.exp(-np.minimum(np.abs(z[:, j]), _LARGEST_LOG))
            if math.isinf(high):
                x = low + from_line(z[:, j], column.knot)
            elif math.isinf(low):
                x = high - from_line(-z[:, j], column.knot)
            else:
                # From the nearer bound, so that small distances from it keep their digits.
                step = (high - low) * power / (1 + power)
                x = np.where(z[:, j] < 0, low + step, high - step)
            values[:, j] = np.clip(x, np.nextafter(low, math.inf), np.nextafter(high, -math.inf))
        return values

    def cells(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the cells of recorded values: of the intervals that are rounded to them.

        Parameters
        ----------
        values : ndarray of shape (n, n_continuous)
            Recorded values.

        Returns
        -------
        low, high : ndarray of shape (n, n_continuous)
            Half a unit below and above; the outermost cells extend to the bounds of the column. Equal to
            the values where a column is exact.
        """
        low, high = values.copy(), values.copy()
        for column in self.columns:
            if column.continuous is None or not column.lattice.unit:
                continue
            j, half = column.continuous, column.lattice.unit / 2
            (lowest, highest), (start, end) = column.extremes, column.edges
            low[:, j] = np.where(values[:, j] < lowest + half, start, values[:, j] - half)
            high[:, j] = np.where(values[:, j] > highest - half, end, values[:, j] + half)
        return low, high

    def __repr__(self) -> str:
        """Return one line for each column."""
        labels = [repr(column.name) for column in self.columns]
        width = max(map(len, labels))
        n = len(self.frame.names)
        lines = [f"TableColumns of a {self.frame.library} table with {n} column{'s' * (n != 1)}:"]
        lines += [
            f"  {label:<{width}}  {column.describe()}".rstrip()
            for label, column in zip(labels, self.columns, strict=True)
        ]
        lines += [f"  {name!r} is left out" for name in self.ignored]
        return "\n".join(lines)

    def _mapped(self) -> list[Column]:
        """Return the columns of numbers with one or two bounds, which are mapped to the line."""
        return [
            column
            for column in self.columns
            if column.continuous is not None and any(map(math.isfinite, column.edges))
        ]

    def _empty(self, n: int) -> EncodedTable:
        """Return n rows of missing cells."""
        levels = np.full((n, len(self.discrete)), -1, dtype=np.intp)
        is_new = np.zeros(levels.shape, dtype=bool)
        return EncodedTable(levels, np.full((n, len(self.continuous)), np.nan), is_new=is_new)

    def _positions(self, frame: FrameType) -> list[int]:
        """Return the positions, in a table, of the columns that are used."""
        has_names, had_names = frame.library != "numpy", self.frame.library != "numpy"
        if has_names and had_names:
            known = set(self.frame.names)
            absent = [name for name in self.names if name not in frame.names]
            unknown = [name for name in frame.names if name not in known]
            if absent or unknown:
                parts = [f"lacks {listed(absent)}"] * bool(absent)
                parts += [f"has {listed(unknown)}, which the training table lacks"] * bool(unknown)
                raise ValueError(
                    f"X {' and '.join(parts)}; expected the columns {listed(self.names)}. Pass "
                    "a column of missing cells where nothing is known, and drop the others."
                )
            return [frame.names.index(name) for name in self.names]
        n = len(frame.names)
        if n not in (len(self.names), len(self.frame.names)):
            raise ValueError(
                f"X has {n} features, but TableColumns is expecting {len(self.names)} features "
                f"as input: the columns {listed(self.names)}."
            )
        if has_names != had_names:
            which = "has column names, but TableColumns was fitted without"
            if had_names:
                which = (
                    "does not have valid feature names (columns), but TableColumns was fitted with"
                )
            warn_user(
                f"X {which} them; its columns are taken in the order {listed(self.names)}. "
                "Pass a table as in fit."
            )
        if n == len(self.names):
            return list(range(n))
        return [self.frame.names.index(name) for name in self.names]


def _mean(values: np.ndarray, period: float | None) -> np.ndarray:
    """Return means (n,) of values (n_draws, n), on the circle if they have a period."""
    if period is None:
        return values.mean(axis=0)
    angles = values * (2 * math.pi / period)
    mean = np.arctan2(np.sin(angles).mean(axis=0), np.cos(angles).mean(axis=0))
    return np.mod(mean * (period / (2 * math.pi)), period)


def _check_kinds(kinds: Any, names: Sequence[Any]) -> dict[Any, Kind | None]:
    """Return declared kinds, after checking their columns."""
    if kinds is None:
        return {}
    if not isinstance(kinds, Mapping):
        raise wrong_type(
            "kinds", kinds, "a mapping from columns to kinds, such as {'hour': Periodic(24)}."
        )
    for name, kind in kinds.items():
        if name not in names:
            raise ValueError(
                f"kinds has a column {name!r}, which X lacks; expected one of {listed(names)}."
            )
        if isinstance(kind, type) and issubclass(kind, Kind):
            raise TypeError(
                f"kinds[{name!r}]={kind.__name__} is a class; expected an object. Pass "
                f"{kind.__name__}()."
            )
        if kind is not None and not isinstance(kind, Kind):
            raise TypeError(
                f"kinds[{name!r}]={kind!r:.100} has type {type(kind).__name__}; expected a "
                "kind, such as Categorical() or Periodic(24), or None to leave the column out."
            )
    return dict(kinds)


def _warn_of_empty_rows(cells: list[Cells]) -> None:
    """Warn if rows have no value in any column."""
    empty = np.flatnonzero(np.all([part.missing for part in cells], axis=0))
    if len(empty):
        warn_of_table(
            f"{len(empty)} of {len(cells[0].missing)} rows of X have no value in any column "
            f"(first: row {empty[0]}); they have no effect on the density. Drop them."
        )


def _discrete_coordinate(column: Column) -> DiscreteCoordinate:
    """Return the discrete coordinate of a column."""
    kind = column.kind
    if isinstance(kind, WithLevels):
        return DiscreteCoordinate(column.name, len(kind.levels or ()), kind.is_ordered, None)
    return DiscreteCoordinate(column.name, 1 + len(column.atoms), False, column.continuous)


def _continuous_coordinate(column: Column) -> ContinuousCoordinate:
    """Return the continuous coordinate of a column."""
    period = column.kind.period if isinstance(column.kind, Periodic) else None
    return ContinuousCoordinate(column.name, period, column.lattice.unit, column.discrete)
