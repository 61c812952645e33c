"""DensityOutlierDetector: an outlier threshold on held-out log-densities."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin

from .._coordinates.columns import ColumnSpace
from .._diffusion.comparison import folds_for_metrics
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.rows import TrainingRows, as_given, take
from .._utils.validation import check_real
from ._members import (
    Folds,
    check_member,
    estimator_or_default,
    fit_member,
    log_density_of,
    out_of_fold,
)

__all__ = ["DensityOutlierDetector"]


class DensityOutlierDetector(OutlierMixin, DensityEstimatorMixin, BaseEstimator):
    """Outlier detector for any density estimator: outliers are rows of low held-out log-density.

    A density is higher at its own training rows than at new rows, the more so the more closely it
    follows them. A quantile of the log-densities of the training rows, taken as the threshold,
    would therefore flag far too many new rows. Here **a training row is scored by a density that
    was fitted without it**, any other row by the density of all training rows, and one threshold
    serves both: it flags the fraction `contamination` of the training rows, and about the same
    fraction of new rows of their distribution.

    Set `contamination` to the false-alarm rate that you accept, and `estimator` to choose the
    density:

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
        `score_samples`, of this package or another, pipelines included. None is
        ``SmoothedScoreDiffusion()``.
    contamination : float, default=0.1
        Fraction of the training rows to flag, above 0 and at most 0.5. Where the training rows are
        known to be clean (novelty detection), the false-alarm rate that is accepted.
    cv : int, cross-validation splitter, iterable of (train, test) or None, default=None
        How training rows are held out. None leaves out one row at a time where `estimator` has a
        method ``leave_one_out_log_density`` (as the KDE and the diffusions have) and there are
        more than twenty rows for each column: with fewer rows, what such a density learns from all
        rows together, its metric, depends too much on the excluded row. Otherwise None makes five
        folds. An integer makes that many shuffled folds, in which equal rows stay together; it
        costs as many fits, and is faster than leaving out single rows from about 10^4 rows on. A
        splitter, or its splits, is used unchanged; its test sets must be a partition of the rows.

    Attributes
    ----------
    estimator_ : estimator
        The density, fitted to all rows.
    offset_ : float
        The threshold: rows with ``score_samples`` below it are outliers.
    points_ : ndarray of shape (n_points, n_features)
        Distinct training rows of positive weight.
    held_out_log_density_ : ndarray of shape (n_points,)
        Their scores, in nats.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, where X had them.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Faster, and independent of the units of the columns.
    sklearn.neighbors.LocalOutlierFactor : Density relative to that of the neighbours.

    Notes
    -----
    Equal rows are held out together: a row that occurs twice does not become an inlier by its
    copy. (A splitter may separate the copies; then the lowest of their log-densities counts.) A
    query equal to a training row has the score of that row.

    Folds are fitted to fewer rows than the final density, so held-out log-densities are a little
    too low, and so is the false-alarm rate.

    References
    ----------
    C. M. Bishop, Novelty detection and neural network validation, IEE Proceedings - Vision, Image
    and Signal Processing 141, 1994.
    """

    def __init__(
        self, estimator: Any = None, *, contamination: float = 0.1, cv: Any = None
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.cv = cv

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DensityOutlierDetector:
        """Fit the density, score each row by a density of the others, and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : object, default=None
            Ignored; there for scikit-learn's calling convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Returns
        -------
        self : DensityOutlierDetector
            The fitted estimator.

        Raises
        ------
        TypeError
            If `estimator` is not a density estimator, or takes no weights and `sample_weight` is
            passed.
        ValueError
            If X, the weights or a parameter is out of range, if there is a single distinct row, or
            if more than the fraction `contamination` of the rows have held-out density zero; the
            estimator is then left as it was.
        """
        contamination = check_real("contamination", self.contamination, hint="It is at most 0.5.")
        if contamination > 0.5:
            raise ValueError(
                f"contamination={self.contamination!r} is out of range; expected a number > 0 and "
                "<= 0.5, the fraction of training rows to flag."
            )
        if self.estimator is not None:
            check_member("estimator", self.estimator, compared=False)
        rows = TrainingRows.of(X, sample_weight, self)
        if len(rows.points) < 2:
            raise ValueError(
                f"X has {len(rows.points)} distinct row of positive weight, n_samples = 1 after "
                "merging equal rows; expected at least two, since each row is scored by a density "
                "fitted to the other rows. Pass more rows."
            )
        folds = None if self.cv is None else rows.folds(self.cv)
        fitted = fit_member(
            "estimator", estimator_or_default(self.estimator), rows.given, rows.weight
        )
        held_out = self._held_out(fitted, rows, folds)
        order = np.argsort(held_out, kind="stable")
        # A row is flagged if the middle of its weight is below the quantile: of N rows this flags
        # N * contamination rounded to the nearest integer, whatever the rounding of the sums.
        weights = rows.point_weights[order]
        middle = np.cumsum(weights) - weights / 2
        offset = held_out[order[np.searchsorted(middle, contamination)]]
        if offset == -np.inf:
            raise ValueError(
                f"contamination={self.contamination!r}, but {np.sum(held_out == -np.inf)} of "
                f"{len(held_out)} distinct rows have density zero under the density fitted to the "
                "other rows, so there is no finite threshold. Pass a density with unbounded "
                "support, or with a larger bandwidth."
            )
        self._set_fitted(
            X,
            estimator_=fitted,
            offset_=float(offset),
            points_=rows.points,
            held_out_log_density_=held_out,
        )
        return self

    @on_one_fit
    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-density of each row, held-out for training rows.

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
            If X is not finite or has another number of features, or if a log-density is NaN or
            +inf.
        """
        checked = self._check_query(X)
        index = _point_index(self.points_, checked)
        is_new = index < 0
        scores = self.held_out_log_density_[index]
        if is_new.any():
            queries = take(as_given(X, checked), is_new)
            scores[is_new] = log_density_of("estimator", self.estimator_, queries)
        return scores

    @on_one_fit
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-density of each row minus the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``, in nats; negative for outliers.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`.
        """
        return self.score_samples(X) - self.offset_

    @on_one_fit
    def predict(self, X: Any) -> np.ndarray:
        """Return -1 for outliers and 1 for inliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.

        Returns
        -------
        ndarray of shape (n_samples,)
            -1 for outliers, 1 for the others.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _held_out(self, fitted: Any, rows: TrainingRows, folds: Folds | None) -> np.ndarray:
        """Return the log-density of each distinct row under densities that were fitted without it."""
        columns = ColumnSpace.of(rows.points, rows.point_weights)
        if (
            folds is None
            and folds_for_metrics(rows.points, columns) is None
            and hasattr(fitted, "leave_one_out_log_density")
            # Its answers are in the order of its points_, which must be those of X.
            and np.array_equal(getattr(fitted, "points_", ()), rows.points)
        ):
            return fitted.leave_one_out_log_density()
        if folds is None:
            folds = rows.folds(min(5, len(rows.points)))
        members = [("estimator", estimator_or_default(self.estimator))]
        log_density = np.full(len(rows.points), np.inf)
        # The folds of a splitter may separate equal rows; a copy in training must not help.
        np.minimum.at(log_density, rows.group, out_of_fold(members, rows, folds)[:, 0])
        return log_density


def _point_index(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the index of each query in `points`, which are distinct; -1 for other rows."""
    _, label = np.unique(np.concatenate([points, queries + 0.0]), axis=0, return_inverse=True)
    label = label.ravel()
    index = np.full(label.max() + 1, -1)
    index[label[: len(points)]] = np.arange(len(points))
    return index[label[len(points) :]]
