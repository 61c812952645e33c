"""DensityOutlierDetector: an outlier threshold on held-out log-densities."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.pipeline import Pipeline

from .._coordinates.columns import ColumnSpace
from .._diffusion.comparison import folds_for_metrics
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.progress import counted, reports_fit
from .._utils.rows import TrainingRows, as_given, take
from .._utils.units import column_norms
from .._utils.validation import check_choice, check_real
from .._utils.warnings import warn_user
from ..bandwidth import nearest_distances
from ._conditionals import score_columns
from ._members import (
    Folds,
    check_member,
    estimator_or_default,
    fit_member,
    log_density_of,
    out_of_fold,
    training_rows,
    unwrap,
    with_shared_columns,
)
from ._transformed import TransformedDensity
from ._unconditional import draw_rows

_N_FOLDS = 5
# Within this fraction of the distance from a training row to the nearest other one, scores are
# interpolated to the row's held-out score: far above rounding errors, but so little that few new rows
# are that close.
_NEAR = 0.05
# Number of rows drawn from the density, over which a column's conditional log-density is averaged.
_N_DRAWN = 32
# "auto": the two quantiles of held-out log-densities that determine an exponential tail, and the
# false-alarm rate of the threshold. Up to an eighth of the rows may be outliers.
_UPPER, _LOWER, _RATE = 0.25, 0.125, 0.01
# Weights that are whole numbers up to this are taken for numbers of copies.
_MOST_COPIES = 1e9


class DensityOutlierDetector(OutlierMixin, DensityEstimatorMixin, BaseEstimator):
    """Outlier detector for any density estimator: outliers are rows of low held-out log-density.

    A density is higher at its own training rows than at new rows, in particular if its bandwidth is
    small. A threshold at a quantile of the training rows' log-densities would therefore flag far too
    many new rows. Here **a training row is scored by a density that was fitted without it**, any other
    row by the density of all training rows. The same threshold is used for both: it flags at most the
    fraction `contamination` of the training rows, and about the same fraction of new rows from their
    distribution.

    Set `contamination` to the false-alarm rate that you accept, and `estimator` to choose the density:

    >>> import numpy as np
    >>> from skdiffsmooth.compose import DensityOutlierDetector
    >>> X = np.random.RandomState(0).normal(size=(200, 2))
    >>> detector = DensityOutlierDetector(contamination=0.05).fit(X)
    >>> detector.predict([[0.0, 0.0], [4.0, 4.0]])
    array([ 1, -1])
    >>> int(np.sum(detector.predict(X) == -1))
    10

    Parameters
    ----------
    estimator : estimator, default=None
        Density that is fitted: any estimator with `fit` and with log-densities in nats as
        `score_samples`, of this package or another. None is ``SmoothedScoreDiffusion()``. A Pipeline of
        transformers and a density becomes a `TransformedDensity`, so that log-densities of folds with
        different scales can be compared; put other transformers before the detector. A
        `FrozenEstimator` is not fitted again, so fit it to other rows than X, or more new rows than
        `contamination` are flagged.
    contamination : float or "auto", default=0.1
        Fraction of the training rows to flag, above 0 and at most 0.5; rows of equal score are flagged
        together or not at all. If the training rows are known to be clean (novelty detection), pass the
        false-alarm rate that you accept. "auto" is for an unknown number of outliers, up to an eighth
        of the rows: see Notes.
    cv : int, cross-validation splitter, iterable of (train, test) or None, default=None
        How training rows are held out. None leaves out one row at a time where `estimator` has a method
        ``leave_one_out_log_density`` (as the KDE and the diffusions have) and there are more than
        twenty rows for each column: with fewer rows, the metric, which is fitted to all rows, depends
        too much on the excluded row. Otherwise None makes five folds. An integer makes that many
        shuffled folds; it costs as many fits, and is faster than leaving out single rows from about
        10^4 rows on. A splitter, or its splits, is used unchanged. Rows in no test set, such as the
        first of a TimeSeriesSplit, do not affect the threshold.
    verbose : int, default=0
        1 reports the progress of calls, and the time that is left.

    Attributes
    ----------
    estimator_ : estimator
        The density, fitted to all rows.
    offset_ : float
        The threshold: rows with ``score_samples`` below it are outliers.
    held_out_log_density_ : ndarray of shape (n_kept,)
        Scores of the training rows of positive weight, in the order of X, in nats.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Faster, and independent of the units of the columns.
    sklearn.neighbors.LocalOutlierFactor : Compares the density at a row with that at its neighbours.

    Notes
    -----
    For the score of a training row only **that row's own weight** is removed: of m equal rows m - 1
    remain, so that frequent values are not outliers. If all weights are whole numbers, a row of weight
    k is k copies; otherwise each row is one copy with its whole weight. With folds, the copies of a row
    are distributed over them (unless `cv` is a splitter), and the lowest of their log-densities is
    used. If most rows were duplicated by mistake, held-out scores, and the false-alarm rate, are too
    high: drop the copies first.

    Scores are continuous: within a twentieth of the distance from a training row to its nearest other
    row, in standard deviations of the columns, the score is interpolated linearly to the held-out score
    of that row.

    ``contamination="auto"`` assumes that log-densities below their lower quartile q have an exponential
    tail, which is exact for a normal distribution in two dimensions. The quartile and the octile o of
    the held-out log-densities determine the tail, and the threshold is where one percent of all rows
    would be lower: ``offset_ = q - 4.64 * (q - o)``. Of normally distributed rows it flags 1.3 % in one
    dimension, 1 % in two and 0.6 % in ten; docs/evidence/compose.md has measured rates.

    Densities of folds are fitted to fewer rows than the final density, so held-out log-densities, and
    the false-alarm rate, are slightly too low.

    References
    ----------
    C. M. Bishop, Novelty detection and neural network validation, IEE Proceedings - Vision, Image
    and Signal Processing 141, 1994.
    """

    def __init__(
        self, estimator: Any = None, *, contamination: Any = 0.1, cv: Any = None, verbose: int = 0
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.cv = cv
        self.verbose = verbose

    @reports_fit
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> DensityOutlierDetector:
        """Fit the density, score each row by a density of the others, and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row; rows of a group are held out together. The labels are passed to a
            splitter; an integer `cv` makes that many folds of groups, None five.

        Raises
        ------
        TypeError
            If `estimator` is not a density estimator, or takes no weights and `sample_weight` is passed.
        ValueError
            If X, the weights or a parameter is out of range, if there is a single distinct row, or
            if more than the fraction `contamination` of the rows have held-out density zero; the
            estimator is then left as it was.

        Warns
        -----
        UserWarning
            If there are too few rows to fit the density without some of them: the threshold is then a
            quantile of log-densities under the density of all rows.
        """
        contamination = _check_contamination(self.contamination)
        if self.estimator is not None:
            check_member("estimator", self.estimator, compared=False)
        estimator, table = with_shared_columns(_density_of_x(self.estimator), X, sample_weight)
        rows = training_rows(table, X, sample_weight, self)
        if len(rows.points) < 2:
            raise ValueError(
                f"X has {len(rows.points)} distinct row of positive weight, n_samples = 1 after "
                "merging equal rows; expected at least two, since each row is scored by a density "
                "fitted to the other rows. Pass more rows."
            )
        splits = self._splits(rows, groups)
        # The held-out scores take about as long as a fit for each fold.
        n_folds = _N_FOLDS if splits is None else len(splits[1])
        with counted(1 + n_folds) as done:
            fitted = fit_member(
                "estimator", estimator_or_default(estimator), rows.given, rows.weight
            )
            done()
            done.size = n_folds
            held_out = self._held_out(estimator, fitted, rows, splits)
            done()
        tested = ~np.isnan(held_out)
        offset = _threshold(held_out[tested], rows.point_weights[tested], contamination)
        if offset == -np.inf:
            raise ValueError(
                f"contamination={self.contamination!r}, but {np.sum(held_out == -np.inf)} of "
                f"{len(held_out)} distinct rows have density zero under the density fitted to the "
                "other rows, so there is no finite threshold. Pass a density with unbounded "
                "support, or with a larger bandwidth."
            )
        if not tested.all():
            held_out[~tested] = _in_sample(fitted, rows)[~tested]
        self._set_fitted(
            X,
            estimator_=fitted,
            offset_=offset,
            held_out_log_density_=held_out[rows.group],
            _near_rows_=_NearRows.of(rows.points, held_out),
            _table_=table,
        )
        return self

    @on_one_fit
    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-density of each row; for a training row, the held-out log-density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats; low values are outliers.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X is not finite or has another number of features, or if a log-density is NaN or +inf.
        """
        checked = self._check_query(X)
        scores, share = self._near_rows_.at(checked)
        (new,) = np.nonzero(share < 1)
        if len(new):
            queries = take(as_given(X, checked) if self._table_ is None else X, new)
            log_density = log_density_of("estimator", self.estimator_, queries)
            share = share[new]
            # Zero times -inf would be NaN.
            near = share * np.where(share > 0, scores[new], 0.0)
            scores[new] = (1 - share) * log_density + near
        return scores

    @on_one_fit
    def decision_function(self, X: Any) -> np.ndarray:
        """Return ``score_samples(X) - offset_`` (n_samples,) in nats, negative for outliers.

        `X` and the errors are those of `score_samples`.
        """
        return self.score_samples(X) - self.offset_

    @on_one_fit
    def predict(self, X: Any) -> np.ndarray:
        """Return -1 for outliers and 1 for inliers, (n_samples,).

        `X` and the errors are those of `score_samples`.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    @on_one_fit
    def attribute(self, X: Any) -> np.ndarray:
        """Return how unusual each column of a row is: its log-density given the others, minus a mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In nats: ``log p(x_j | all other columns)`` minus its mean over 32 rows drawn from the
            density, so that columns of any unit and kind can be compared. The column of the lowest
            value makes the row unusual. If two columns contradict each other, both are low. Missing
            cells get 0.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`.

        Warns
        -----
        UserWarning
            If rows of X are training rows: the density has a kernel at each of them, so that none of
            their columns seems unusual. Fit the detector without these rows first.

        Notes
        -----
        X and the drawn rows are scored once for each column, and once jointly; a density of tables does
        this in one call, with errors of a quarter of a nat. Integrals over numbers take most of the
        time. The mean over the drawn rows is computed in the first call only.
        """
        checked = self._check_query(X)
        n_known = int(np.sum(self._near_rows_.at(checked)[1] > 0))
        if n_known:
            warn_user(
                f"{n_known} of {len(checked)} rows of X are training rows, at which the density has "
                "a kernel each: their columns seem less unusual than they are. Fit the detector on the "
                "other rows to attribute these."
            )
        given_others = getattr(unwrap(self.estimator_), "_given_others", self._given_others)
        rows = checked if self._table_ is None else X
        if not hasattr(self, "_mean_given_others_"):
            drawn = draw_rows(self.estimator_, _N_DRAWN, np.random.RandomState(0))
            self._mean_given_others_ = given_others(drawn).mean(axis=0)
        nats = given_others(rows) - self._mean_given_others_
        return nats if self._table_ is None else np.where(self._table_.is_missing(X), 0.0, nats)

    def _given_others(self, rows: Any) -> np.ndarray:
        """Return the log-density (n, d) of each column of rows given the others."""
        d = self._n_columns()
        every = np.arange(d)
        none = np.array([], dtype=np.intp)
        joint = score_columns("estimator", self.estimator_, rows, every, none)
        if d == 1:
            return joint[:, None]
        return np.column_stack(
            [
                joint - score_columns("estimator", self.estimator_, rows, np.delete(every, j), none)
                for j in range(d)
            ]
        )

    def _check_query(self, X: Any, ignored: Any = ()) -> np.ndarray:
        """See `DensityEstimatorMixin`; rows of tables are returned as numbers."""
        table = self._table_
        return super()._check_query(X, ignored) if table is None else table.points(X)

    def _splits(self, rows: TrainingRows, groups: Any) -> tuple[TrainingRows, Folds] | None:
        """Return the rows to split, and the folds; None where neither `cv` nor `groups` is set."""
        if self.cv is None and groups is None:
            return None
        folds = rows.folds(_N_FOLDS if self.cv is None else self.cv, groups)
        is_shuffled = groups is None and isinstance(self.cv, numbers.Number)
        return _copies_apart(rows, folds) if is_shuffled else (rows, folds)

    def _held_out(
        self,
        estimator: Any,
        fitted: Any,
        rows: TrainingRows,
        splits: tuple[TrainingRows, Folds] | None,
    ) -> np.ndarray:
        """Return the held-out log-density (n_points,) of distinct rows; NaN where not tested."""
        can_leave_out = (
            hasattr(fitted, "leave_one_out_log_density")
            # A `base` was fitted to all rows, also to the row that would be left out.
            and getattr(fitted, "base_", None) is None
            # Leave-one-out values are in the order of `points_`, which must be the distinct rows of X.
            and np.array_equal(getattr(fitted, "points_", ()), rows.points)
        )
        columns = ColumnSpace.of(rows.points, rows.point_weights)
        if splits is None and can_leave_out and folds_for_metrics(rows.points, columns) is None:
            return _leave_one_out(fitted, rows)
        if splits is None:
            splits = _copies_apart(rows, rows.folds(min(_N_FOLDS, len(rows.points))))
        apart, folds = splits
        try:
            by_row = out_of_fold("estimator", estimator_or_default(estimator), apart, folds)
        except ValueError as error:
            if self.cv is not None or len(rows.points) > _N_FOLDS:
                raise
            if can_leave_out:
                return _leave_one_out(fitted, rows)
            warn_user(
                f"{len(rows.points)} distinct rows are too few to fit the density without one of them "
                f"({error}); the threshold is set on the density of all rows, and too high for new "
                "ones. Pass more rows."
            )
            return _in_sample(fitted, rows)
        log_density = np.full(len(rows.points), np.nan)
        # Of copies of a row in several folds the lowest value is used; NaN: the row is in no test set.
        np.fmin.at(log_density, apart.group, by_row)
        return log_density


@dataclass(frozen=True, eq=False)
class _NearRows:
    """Distinct training rows, their held-out log-densities, and the radius in which these are used."""

    scale: np.ndarray  # Standard deviations of the columns (d,), in which distances are measured
    points: np.ndarray  # The rows (n_points, d), in these units
    held_out: np.ndarray
    radius: np.ndarray  # Distance (n_points,) from the row within which its value is used

    @classmethod
    def of(cls, points: np.ndarray, held_out: np.ndarray) -> _NearRows:
        deviation = column_norms(points - points.mean(axis=0)) / math.sqrt(len(points))
        scale = np.where(deviation > 0, deviation, 1.0)
        scaled = points / scale
        radius = np.maximum(_NEAR * nearest_distances(scaled), np.finfo(np.float64).tiny)
        return cls(scale, scaled, held_out, radius)

    def at(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the held-out log-density (n,) of the nearest row, and its weight (n,) in the score.

        The weight falls linearly from 1 at the row to 0 at its radius.
        """
        distance, index = cKDTree(self.points).query(queries / self.scale)
        return self.held_out[index], np.maximum(1 - distance / self.radius[index], 0.0)


def _density_of_x(estimator: Any) -> Any:
    """Return a TransformedDensity for a Pipeline of transformers and a density, others unchanged.

    Transformers are fitted in each fold, so that only log-densities in units of X can be compared.
    """
    if not isinstance(estimator, Pipeline) or len(estimator.steps) == 1:
        return estimator
    inner = _density_of_x(estimator.steps[-1][1])
    return TransformedDensity(inner, Pipeline(estimator.steps[:-1]))


def _check_contamination(contamination: Any) -> float | None:
    """Return the fraction of rows to flag, or None for "auto", after checking it."""
    if isinstance(contamination, str):
        hint = "Or pass a number > 0 and <= 0.5."
        check_choice("contamination", contamination, ("auto",), hint=hint)
        return None
    hint = "It is the fraction of training rows to flag; or pass 'auto'."
    return check_real("contamination", contamination, maximum=0.5, hint=hint)


def _threshold(scores: np.ndarray, weights: np.ndarray, contamination: float | None) -> float:
    """Return the threshold, below which at most `contamination` of the weight is; None is "auto"."""
    values, index = np.unique(scores, return_inverse=True)
    up_to = np.cumsum(np.bincount(index.ravel(), weights=weights))
    # Sums of weights are rounded.
    up_to = up_to / (up_to[-1] * (1 + 1e-12))
    if contamination is not None:
        # The smallest value such that flagging its rows as well would exceed the fraction.
        return float(values[np.searchsorted(up_to[:-1], contamination, "right")])
    upper, lower = (values[np.searchsorted(up_to, share)] for share in (_UPPER, _LOWER))
    if lower == -np.inf:
        return -np.inf
    return float(upper - (upper - lower) * math.log(_UPPER / _RATE) / math.log(_UPPER / _LOWER))


def _copies(rows: TrainingRows) -> np.ndarray:
    """Return the number of copies (n_points,) of each distinct row; see the notes of the class."""
    weight = rows.weight
    if weight is None or weight.max() > _MOST_COPIES or np.any(weight != np.round(weight)):
        return np.bincount(rows.group)
    return np.bincount(rows.group, weights=weight)


def _leave_one_out(fitted: Any, rows: TrainingRows) -> np.ndarray:
    """Return the log-density of each distinct row under the model without one copy of it."""
    copies = _copies(rows)
    if np.all(copies == 1):
        return fitted.leave_one_out_log_density()
    return fitted.leave_one_out_log_density(fitted.weights_ / copies)


def _copies_apart(rows: TrainingRows, folds: Folds) -> tuple[TrainingRows, Folds]:
    """Return rows and folds in which the copies of each row are distributed evenly over the folds."""
    copies, n_folds = _copies(rows), len(folds)
    if np.all(copies == 1):
        return rows, folds
    own = np.empty(len(copies), dtype=np.intp)
    for k, (_, test) in enumerate(folds):
        own[rows.group[test]] = k
    if rows.weight is None:
        order = np.argsort(rows.group, kind="stable")
        nth_copy = np.empty_like(order)
        nth_copy[order] = np.arange(len(order)) - (np.cumsum(copies) - copies)[rows.group[order]]
        apart, fold = rows, (own[rows.group] + nth_copy) % n_folds
    else:
        # One row for all copies in a fold, with the sum of their weights.
        turn = (np.arange(n_folds) - own[:, None]) % n_folds
        counts = copies[:, None] // n_folds + (turn < copies[:, None] % n_folds)
        group, fold = np.nonzero(counts)
        weight = (rows.point_weights / copies)[group] * counts[group, fold]
        first = np.unique(rows.group, return_index=True)[1]
        apart = replace(rows, given=take(rows.given, first[group]), weight=weight, group=group)
    return apart, [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]


def _in_sample(fitted: Any, rows: TrainingRows) -> np.ndarray:
    """Return the log-density (n_points,) of each distinct row under the density of all rows."""
    first = np.unique(rows.group, return_index=True)[1]
    return log_density_of("estimator", fitted, take(rows.given, first))
