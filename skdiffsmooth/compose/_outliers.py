"""DensityOutlierDetector: a threshold on log-densities of rows that the density has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin

from .._diffusion.comparison import folds_for_metrics
from .._utils.estimator import DensityEstimatorMixin
from .._utils.rows import TrainingRows, as_given, take
from .._utils.validation import check_integer, check_real
from ._members import (
    check_member,
    fit_member,
    log_density_of,
    one_density,
    out_of_fold,
)

__all__ = ["DensityOutlierDetector"]


class DensityOutlierDetector(OutlierMixin, DensityEstimatorMixin, BaseEstimator):
    """Rows of low density are outliers: scikit-learn's outlier detection with any density.

    A density is higher at its own training rows than at new ones, the more so the more closely it
    follows them. So a threshold from log-densities of training rows would flag far more than its share
    of new rows. Here every row is judged by the others: **the score of a row that was trained on is
    its log-density under a density that has not seen it**, that of any other row is its log-density
    under the density of all training rows. The two are comparable, and one threshold serves both: it
    flags a share `contamination` of the training rows, and about as many of new rows of their law.

    Parameters
    ----------
    density : estimator, default=None
        What is fitted: anything with `fit` and `score_samples` in nats, from here or elsewhere,
        pipelines too. None is ``SmoothedScoreDiffusion()``.
    contamination : float, default=0.1
        Share of the training rows to flag, above 0 and at most 0.5. Where they are known to be clean
        (novelty detection), the rate of false alarms that is accepted.
    n_folds : int or None, default=None
        How training rows are scored by the others. None leaves out one at a time where `density` has a
        ``leave_one_out_log_density`` (as the KDE and the diffusions have) and there are more than
        twenty rows a column: with fewer, what such a density learns of all rows, its metric, knows the
        one that is left out. Otherwise it makes five folds. A number of shuffled folds costs that
        many fits, and is cheaper than leaving one out from some 10^4 rows on.

    Attributes
    ----------
    density_ : estimator
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
    sklearn.ensemble.IsolationForest : Faster, and indifferent to units.
    sklearn.neighbors.LocalOutlierFactor : Density relative to that of the neighbours.

    Notes
    -----
    Equal rows are held out together: to be there twice does not make a row an inlier. A query equal to
    a training row has that row's score.

    Folds are fitted to fewer rows than the density of all, so their log-densities are a little low and
    so is the rate of false alarms.

    References
    ----------
    C. M. Bishop, Novelty detection and neural network validation, IEE Proceedings - Vision, Image and
    Signal Processing 141, 1994.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.compose import DensityOutlierDetector
    >>> X = np.random.RandomState(0).normal(size=(200, 2))
    >>> detector = DensityOutlierDetector(contamination=0.05).fit(X)
    >>> detector.predict([[0.0, 0.0], [4.0, 4.0]])
    array([ 1, -1])
    >>> int(np.sum(detector.predict(X) == -1))
    10
    """

    def __init__(
        self, density: Any = None, *, contamination: float = 0.1, n_folds: int | None = None
    ) -> None:
        self.density = density
        self.contamination = contamination
        self.n_folds = n_folds

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DensityOutlierDetector:
        """Fit the density, score each row by the others, and set the threshold.

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
            If `density` is no density estimator, or takes no weights where there are some.
        ValueError
            If X, the weights or a parameter is out of range, or if more than the share `contamination`
            of the rows have density zero under the others; the estimator is then left as it was.
        """
        contamination = check_real("contamination", self.contamination, hint="It is at most 0.5.")
        if contamination > 0.5:
            raise ValueError(
                f"contamination={self.contamination!r} is out of range; expected a number > 0 and "
                "<= 0.5: outliers are the fewer."
            )
        n_folds = self.n_folds
        if n_folds is not None:
            n_folds = check_integer("n_folds", n_folds, minimum=2)
        if self.density is not None:
            check_member("density", self.density, compared=False)
        rows = TrainingRows.of(X, sample_weight, self)
        density = fit_member("density", one_density(self.density), rows.given, rows.weight)
        held_out = self._held_out(density, rows, n_folds)
        order = np.argsort(held_out, kind="stable")
        # A row is below the threshold if the middle of its share is: n rows are flagged of n / c, and
        # no rounding of the sums decides it.
        middle = np.cumsum(rows.point_weights[order]) - rows.point_weights[order] / 2
        offset = held_out[order[np.searchsorted(middle, contamination)]]
        if offset == -np.inf:
            raise ValueError(
                f"contamination={self.contamination!r}, but {np.sum(held_out == -np.inf)} of "
                f"{len(held_out)} distinct rows have density zero under the others, which leaves no "
                "threshold. Pass a density of unbounded support, or of a larger bandwidth."
            )
        self._set_fitted(
            X,
            density_=density,
            offset_=float(offset),
            points_=rows.points,
            held_out_log_density_=held_out,
        )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-density of each row, of a training row under the others.

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
        place = _places(self.points_, checked)
        is_new = place < 0
        scores = self.held_out_log_density_[place]
        if is_new.any():
            queries = take(as_given(X, checked), is_new)
            scores[is_new] = log_density_of("density", self.density_, queries)
        return scores

    def decision_function(self, X: Any) -> np.ndarray:
        """Return how far above the threshold each row is.

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

    def predict(self, X: Any) -> np.ndarray:
        """Tell outliers from inliers.

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

    def _held_out(self, density: Any, rows: TrainingRows, n_folds: int | None) -> np.ndarray:
        """Return the log-density of each distinct row under the others."""
        if (
            n_folds is None
            and folds_for_metrics(rows.points) is None
            and hasattr(density, "leave_one_out_log_density")
            # It answers in the order of its points, which need not be rows of X.
            and np.array_equal(getattr(density, "points_", ()), rows.points)
        ):
            return density.leave_one_out_log_density()
        n_folds = min(5, len(rows.points)) if n_folds is None else n_folds
        members = [("density", one_density(self.density))]
        found = np.empty(len(rows.points))
        found[rows.group] = out_of_fold(members, rows, rows.folds(n_folds, "n_folds"))[:, 0]
        return found


def _places(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return where in `points`, which are distinct, each query is; -1 where it is not."""
    _, label = np.unique(np.concatenate([points, queries + 0.0]), axis=0, return_inverse=True)
    label = label.ravel()
    place = np.full(label.max() + 1, -1)
    place[label[: len(points)]] = np.arange(len(points))
    return place[label[len(points) :]]
