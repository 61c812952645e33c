"""Training rows of positive weight, with folds that keep equal rows together."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from .cached import cached_property
from .column_precision import ColumnPrecision, column_precision, far_columns, has_extent
from .near_rows import distinct_rows, near_rows, representatives
from .periods import column_labels, reduced, resolve_periods
from .table import check_table, column_names
from .validation import check_detached, check_finite, check_integer, check_real_array
from .warnings import warn_of_table, warn_user

# Directions in which standardised rows extend less than this, relative to the widest, are relations.
_RELATION = 1e-10


@dataclass(frozen=True, eq=False)
class WholeTable:
    """All rows of a table, of which the training rows of folds, members or classes are parts."""

    points: np.ndarray
    """Distinct rows (n_points, d)."""
    weights: np.ndarray
    """Their weights (n_points,), which sum to one."""
    has_classes: bool = False
    """Whether the parts are classes: relations between columns may then hold in one class only."""
    rounding: np.ndarray | float = 0.0
    """Rounding errors (d,) of the columns, where these are larger than those of their floats."""

    @cached_property
    def precision(self) -> ColumnPrecision:
        """How precisely the columns were recorded."""
        precision = column_precision(self.points, self.weights)
        if not self.has_classes:
            return precision
        # All classes have the same width for a column that is constant in some: half a step, or half
        # the difference of its two values.
        unit = np.maximum(precision.unit, precision.width)
        return replace(precision, unit=unit, std=np.zeros(len(unit)))

    def only(self, kept: np.ndarray) -> WholeTable:
        """Return the same rows with columns of a mask (d,)."""
        rounding = np.broadcast_to(self.rounding, len(kept))[kept]
        return replace(self, points=self.points[:, kept], rounding=rounding)


_WHOLE_TABLE: ContextVar[WholeTable | None] = ContextVar("_WHOLE_TABLE", default=None)
# Returns the table of which training rows are parts at present, or None.
whole_table = _WHOLE_TABLE.get


def shared_relations(periods: np.ndarray | None) -> WholeTable | None:
    """Return the table of which rows are a part with the same relations, or None; periods are (d,)."""
    table = whole_table()
    if table is None or table.has_classes:
        return None
    if periods is None:
        return table
    return replace(table, points=reduced(table.points, periods))


@contextmanager
def parts_of_table(table: WholeTable | None) -> Iterator[None]:
    """Within the block, treat training rows as parts of a table, or, with None, as whole tables."""
    token = _WHOLE_TABLE.set(table)
    try:
        yield
    finally:
        _WHOLE_TABLE.reset(token)


def as_given(X: Any, checked: np.ndarray) -> Any:
    """Return X if it is a table, whose column names an estimator may need, or else the array."""
    return X if hasattr(X, "iloc") else checked


def evenly(n_rows: int, most: int) -> np.ndarray:
    """Return at most `most` integers below `n_rows`, evenly spaced."""
    if n_rows <= most:
        return np.arange(n_rows)
    return ((np.arange(most) + 0.5) * (n_rows / most)).astype(np.intp)


def take(rows: Any, which: np.ndarray) -> Any:
    """Return some of the rows of an array or a table."""
    if hasattr(rows, "iloc"):
        return rows.iloc[which]
    if hasattr(rows, "column_names"):  # a Table of pyarrow
        return rows.take(np.arange(len(rows))[which])
    # A frame of polars takes indices only.
    return rows[np.flatnonzero(which) if which.dtype == bool else which]


def sum_of_weights(sample_weight: Any, n: int) -> float:
    """Return the sum of checked weights of n rows, or n without weights; inf if the sum overflows."""
    with np.errstate(over="ignore"):
        return float(np.sum(check_sample_weight(sample_weight, n)))


def weighted_rows(X: Any, sample_weight: Any) -> tuple[Any, np.ndarray | None]:
    """Return rows of positive weight and their relative weights, or X and None without weights."""
    if sample_weight is None:
        return X, None
    weight = check_sample_weight(sample_weight, _num_samples(X))
    weight = weight / weight.max()
    (kept,) = np.nonzero(weight)
    # If all rows are kept, X is returned as it is: a list, or a tensor that a later check refuses.
    rows = X if len(kept) == len(weight) else _safe_indexing(X, kept)
    return rows, weight[kept]


@dataclass(frozen=True)
class TrainingRows:
    """Training rows of positive weight, and which of them are equal, exactly or up to rounding."""

    given: Any
    """The rows of positive weight in the user's order, an array or a table."""
    weight: np.ndarray | None
    """Their weights, or None where none were passed."""
    kept: np.ndarray
    """Whether each row of X has a positive weight."""
    points: np.ndarray
    """The distinct rows in lexicographic order, as the estimators of this package keep them."""
    point_weights: np.ndarray
    """The total weights of the distinct rows; they sum to one."""
    group: np.ndarray
    """Index of the distinct row that each given row equals."""
    precision: ColumnPrecision
    """How precisely the columns were recorded."""
    whole: WholeTable
    """The distinct rows as a table, of which folds are parts."""
    periods: np.ndarray | None = None
    """Period (d,) of each column, 0 where it has none; None where no column has one."""

    @classmethod
    def of(cls, X: Any, sample_weight: Any, owner: Any, periods: Any = None) -> TrainingRows:
        """Return checked rows and weights, with equal rows found; messages name the estimator `owner`.

        `periods` maps columns to their periods, as users pass it; values are reduced to one period.
        """
        checked = check_table(X, owner)
        of_columns = resolve_periods(periods, column_labels(X), checked.shape[1])
        if of_columns is not None:
            checked = reduced(checked, of_columns, X)
        weight = check_sample_weight(sample_weight, len(checked))
        # A weight 300 orders of magnitude below the largest is zero in every sum.
        kept = weight / weight.max() > 0
        merged = merge_rows(checked[kept], weight[kept])
        merged.warn(column_names(X), sets_scales=True)
        return cls(
            take(as_given(X, checked), kept),
            None if sample_weight is None else weight[kept],
            kept,
            merged.points,
            merged.weights,
            merged.index,
            merged.precision,
            WholeTable(merged.points, merged.weights),
            of_columns,
        )

    def folds(self, cv: Any, groups: Any = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return training and test rows of each fold, as indices of the given rows.

        An integer splits the *distinct* rows into shuffled folds, so that equal rows are on the
        same side. With a copy of a test row among the training rows, the test would measure the
        density at a training row, which a narrow enough kernel makes arbitrarily high. And since
        the order of the distinct rows depends on neither their order in X, nor that of its columns, nor
        their number of copies, k equal rows are split like one row of weight k. With `groups`, one label
        for each row of X, an integer splits the groups instead. Splits of a splitter, which gets
        `groups`, or of an iterable of (train, test), are used as they are; some rows may be in no test
        set.

        Raises TypeError or ValueError if `cv` is none of these, or tests no row, or a row twice.

        Warns if there are fewer distinct rows, or groups, than folds; their number is then used.
        """
        if isinstance(cv, numbers.Number):
            return self._shuffled_folds(check_integer("cv", cv, minimum=2), groups)
        is_splitter = hasattr(cv, "split") and not hasattr(cv, "__array__")
        if isinstance(cv, str | bytes | type) or not (is_splitter or isinstance(cv, Iterable)):
            raise TypeError(
                f"cv={cv!r} has type {type(cv).__name__}; expected an integer >= 2, a splitter "
                "such as KFold(5), or an iterable of (train, test) row indices. "
                "Pass cv=5 for five shuffled folds."
            )
        splits = list(cv.split(self.kept, None, groups) if is_splitter else cv)
        # Indices among the kept rows; those of weight zero are in no fold.
        index = np.cumsum(self.kept) - 1
        folds = []
        for number, split in enumerate(splits):
            label = f"cv: fold {number}"
            if not isinstance(split, tuple | list) or len(split) != 2:
                raise ValueError(
                    f"{label} is {split!r:.100}; expected a pair (train, test) of arrays of row indices."
                )
            train, test = (_row_indices(part, len(self.kept), label) for part in split)
            if self.kept[test].any():
                folds.append((index[train][self.kept[train]], index[test][self.kept[test]]))
        tested = np.concatenate([test for _, test in folds]) if folds else np.empty(0)
        if not len(tested) or len(np.unique(tested)) < len(tested):
            raise ValueError(
                f"cv={cv!r:.100} tests no row, or a row twice ({len(splits)} folds); expected test "
                "sets without common rows. Pass an integer, or a splitter such as KFold or "
                "TimeSeriesSplit."
            )
        return folds

    def _shuffled_folds(self, n_folds: int, groups: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return shuffled folds of the distinct rows, or of groups of rows."""
        # Imported here, since it takes half as long to import as the whole of this package.
        from sklearn.model_selection import KFold

        label = self.group if groups is None else _group_labels(groups, self.kept)
        n = label.max() + 1
        if n < n_folds:
            what = "distinct rows of positive weight" if groups is None else "groups"
            if n < 2:
                raise ValueError(
                    f"cv={n_folds} folds need as many {what}, got n_samples = {n}. Pass more rows."
                )
            warn_user(f"cv={n_folds} folds need as many {what}, got {n}; makes {n} folds.")
        order = row_order(self.points) if groups is None else np.arange(n)
        splits = KFold(min(n, n_folds), shuffle=True, random_state=0).split(order)
        is_test = [np.isin(label, order[test]) for _, test in splits]
        return [(np.flatnonzero(~held_out), np.flatnonzero(held_out)) for held_out in is_test]


def row_order(points: np.ndarray) -> np.ndarray:
    """Return an order (n,) of distinct rows that is the same for all linear maps of their columns.

    So it depends on neither units nor order of the columns, and copies and totals do not change it.
    """
    columns = points[:, has_extent(points)]
    # Powers of two, so that squares are finite.
    columns = np.ldexp(columns, -np.frexp(np.abs(columns).max(axis=0, initial=0.0))[1])
    columns = columns - columns.mean(axis=0)
    columns /= np.sqrt(np.mean(columns**2, axis=0))
    whitened, lengths, _ = np.linalg.svd(columns, full_matrices=False)
    whitened = whitened[:, lengths > _RELATION * lengths.max(initial=0.0)]
    # So few rows, whitened, are the corners of a simplex, all equally far from the mean.
    return order_from_center(columns if whitened.shape[1] >= len(points) - 1 else whitened)


def order_from_center(rows: np.ndarray) -> np.ndarray:
    """Return the order (n,) of rows by their distances from the mean, which no rotation changes."""
    rows = rows - rows.mean(axis=0)
    squares = np.sum(rows**2, axis=1)
    # Rows as far from the mean as others, up to rounding, are ordered along the skewness.
    distances = np.round(squares / max(squares.max(initial=0.0), 1e-300), 9)
    return np.lexsort((rows @ (squares @ rows), distances))


def _group_labels(groups: Any, kept: np.ndarray) -> np.ndarray:
    """Return the groups of the kept rows as integers from 0 on, after checking their number."""
    check_detached("groups", groups)
    try:
        labels = np.asarray(groups)
    except ValueError as error:  # lists of unlike lengths
        raise ValueError(
            f"groups is no array ({error}); expected one label for each row."
        ) from error
    if labels.shape != kept.shape:
        raise ValueError(
            f"groups has shape {labels.shape}; expected {kept.shape}, one label for each row of X."
        )
    return np.unique(labels[kept], return_inverse=True)[1]


def _row_indices(part: Any, n: int, label: str) -> np.ndarray:
    """Return the training or test rows of one fold as checked indices into the n rows of X."""
    rows = np.asarray(part)
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.size and (rows.ndim != 1 or rows.dtype.kind not in "iu"):
        raise ValueError(
            f"{label} has shape {rows.shape} and type {rows.dtype}; expected row indices from 0 to "
            f"{n - 1}, or a mask of shape ({n},)."
        )
    if rows.size and not (-n <= rows.min() and rows.max() < n):
        raise ValueError(
            f"{label} holds indices from {rows.min()} to {rows.max()}; expected those of {n} rows, from "
            f"0 to {n - 1}."
        )
    return rows.astype(np.intp)


def check_sample_weight(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return weights (n_samples,), ones for None; ValueError unless they are >= 0, finite, not all 0."""
    if sample_weight is None:
        return np.ones(n_samples)
    weight = check_real_array("sample_weight", sample_weight)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}; expected ({n_samples},), one weight a row of X. "
            "Sample weights must be 1D array or scalar."
        )
    check_finite("sample_weight", weight, "Drop those rows or give them weight 0.")
    if np.any(weight < 0):
        raise ValueError(
            f"sample_weight has negative values (smallest {weight.min():g}); expected weights >= 0."
        )
    if not np.any(weight > 0):
        raise ValueError(
            "sample_weight is zero for every row; expected at least one positive weight. "
            "Pass sample_weight=None to weigh all rows equally."
        )
    return weight


@dataclass(frozen=True)
class MergedRows:
    """Distinct rows, with the sums of the weights of the rows that they stand for."""

    points: np.ndarray
    """Distinct rows (n_points, d), in lexicographic order."""
    weights: np.ndarray
    """Their weights (n_points,); they sum to one."""
    index: np.ndarray
    """Index (n_samples,) of the distinct row of each row; -1 for weight zero."""
    n_near: int
    """Number of rows that were merged into others from which they differ by rounding."""
    distance: float
    """The largest distance from a merged row to its nearest row, relative to that of distinct rows."""
    periods: np.ndarray | None = None
    """Period (d,) of each column, 0 where it has none; None where no column has one."""

    @cached_property
    def precision(self) -> ColumnPrecision:
        """How precisely the columns were recorded, in the whole table if the rows are a part of one."""
        table = whole_table()
        if table is None:
            return column_precision(self.points, self.weights)
        whole = table.precision
        return replace(
            whole, unit=np.where(has_extent(self.points), whole.unit, whole.width_of_part)
        )

    @property
    def whole(self) -> WholeTable | None:
        """The table of which these rows are a part with the same relations, or None."""
        return shared_relations(self.periods)

    def warn(self, names: np.ndarray | None = None, *, sets_scales: bool = False) -> None:
        """Warn, once per call of the user, of copies and of columns that are not continuous.

        With `sets_scales`, also of values far from all others, by which the chosen scales are affected.
        """
        self.warn_of_near_rows()
        if sets_scales and (described := far_columns(self.points, self.weights, names)):
            warn_of_table(
                f"values of X are far from all others: {'; '.join(described)}. A bandwidth that is "
                "chosen must suit them, too, so log-densities of the other rows are too low: by tenths "
                "of a nat where the column is mapped (see warp_), and by many nats elsewhere. Drop rows "
                "that are errors of recording, take the logarithm of the column, or pass numbers for "
                "bandwidth and sigma."
            )
        if described := self.precision.rounded_columns(self.points, names):
            warn_of_table(
                f"values of X are rounded by their storage as floats: {'; '.join(described)}. The lost "
                "digits would change the density. Subtract a constant near the values (for times, the "
                "first one) before they are converted to floats."
            )
        described = self.precision.discrete_columns(names)
        if described:
            warn_of_table(
                f"these columns of X are not continuous: {'; '.join(described)}. The density treats "
                "them as continuous, so that samples lie between the recorded values. Round the "
                "samples, fit each value of such a column as a class of DensityClassifier, or drop it."
            )

    def warn_of_near_rows(self) -> None:
        """Warn, once per call of the user, if rows were merged that are not exactly equal."""
        if self.n_near:
            warn_of_table(
                f"{self.n_near} rows of X equal another row up to rounding (at most "
                f"{self.distance:.1e} of the typical distance between neighbours) and were merged into "
                "it, with the sum of their weights: they look like copies, and would make the bandwidth "
                "collapse. Drop them, or pass sample_weight instead of copies."
            )


def merge_duplicates(X: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of positive weight (n_points, d), and their weights, which sum to one."""
    points, weights, _ = _merge_equal(X, weight)
    return points, weights


def merge_rows(X: np.ndarray, weight: np.ndarray, *, by_column: bool = True) -> MergedRows:
    """Return the distinct rows of positive weight; equal ones, exactly or up to rounding, are merged.

    A row of weight k and k equal rows are the same data. Merging makes results agree to the last bit,
    makes the fit independent of the order of the rows, and turns leave-one-out into leave-one-value-out,
    which stays finite on rounded data. Of nearly equal rows (see `near_rows`) the one remains that has
    the most frequent values.

    - `X` (n_samples, d): training rows.
    - `weight` (n_samples,): checked weights.
    - `by_column`: whether distances between rows are measured in standard deviations of the
      columns; if not, in the units of X.
    """
    points, weights, index = _merge_equal(X, weight)
    group, distance = near_rows(points, by_column=by_column)
    n_points = len(points)
    if len(group):
        chosen = points[representatives(points, group)]
        order = np.lexsort(chosen.T[::-1])
        points, weights = chosen[order], np.bincount(group, weights=weights)[order]
        index = np.where(index < 0, -1, np.argsort(order)[group[index]])
    return MergedRows(points, weights, index, n_points - len(points), distance)


def _merge_equal(X: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distinct rows, their weights, and the index of the distinct row of each row, or -1."""
    kept = weight > 0
    # Adding zero turns -0.0 into 0.0, which some versions of np.unique take for different values.
    points, inverse = distinct_rows((X if kept.all() else X[kept]) + 0.0)
    # Weights of 1e300 must not overflow in their sum; a power of two scales them without rounding.
    scaled = np.ldexp(weight[kept], -np.frexp(weight.max())[1])
    weights = np.bincount(inverse, weights=scaled, minlength=len(points))
    # A weight underflows if another is 300 orders of magnitude larger; it is negligible in every sum.
    positive = weights > 0
    if not positive.all():
        points, weights = points[positive], weights[positive]
        inverse = np.where(positive, np.cumsum(positive) - 1, -1)[inverse]
    index = np.full(len(X), -1)
    index[kept] = inverse
    return points, weights / weights.sum(), index


def split_off_copies(
    points: np.ndarray, weights: np.ndarray, own_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n_split, d) and weights, with each point split into two of the same values.

    The first n_points have `own_weights`, the others have the remaining weights if not zero. If
    point i is excluded, its rest (the other copies of the row) remains.
    """
    rest = weights - own_weights
    has_rest = rest > 0
    return np.concatenate([points, points[has_rest]]), np.concatenate([own_weights, rest[has_rest]])
