"""DensityClassifier: Bayes' rule with one density for each class."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_X_y

from .._coordinates.columns import ColumnSpace
from .._estimators.kde import KDESampler
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.given import resolve_given_values, resolve_scored_columns
from .._utils.progress import reports_fit, tracked
from .._utils.rows import (
    WholeTable,
    as_given,
    check_sample_weight,
    merge_rows,
    parts_of_table,
    take,
)
from .._utils.table import check_table, column_names
from .._utils.validation import check_real_array
from .._utils.warnings import warn_user
from ._conditionals import draw_from_mixture, draw_from_tables, marginals, score_mixture
from ._members import (
    check_member,
    check_same_measure,
    estimator_or_default,
    fit_member,
    log_density_of,
    naming,
    shared_table,
    with_shared_columns,
)
from ._unconditional import draw


class DensityClassifier(ClassifierMixin, DensityEstimatorMixin, BaseEstimator):
    """Classifier that fits one density to the rows of each class and applies Bayes' rule.

    ``P(class c | x) = prior_c p_c(x) / sum_k prior_k p_k(x)``. With one Gaussian for each class this is
    quadratic discriminant analysis; other densities follow curved or separate groups of rows. The model
    also draws rows with their classes (`sample`) and returns the log-density of the mixture of all
    classes (`score_samples`), which is low for rows unlike those of any class.

    Set `estimator` to choose the density, and `priors` if the classes of the queries have other
    frequencies than those of the training rows:

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from skdiffsmooth.compose import DensityClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> bool(cross_val_score(DensityClassifier(), X, y, cv=2).mean() > 0.93)
    True

    Parameters
    ----------
    estimator : estimator, default=None
        Density that is fitted to the rows of each class: any estimator with `fit` and with
        log-densities in nats as `score_samples`, of this package or another. None is
        ``SmoothedScoreDiffusion()``, which chooses its scales for each class. A `FrozenEstimator` is
        not fitted to any class: all rows get the priors, with a warning.
    priors : array-like of shape (n_classes,), default=None
        Probabilities of the classes, in the order of ``classes_``. None: their weighted fractions of
        the training rows.
    verbose : int, default=0
        1 reports the progress of calls, and the time that is left.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    class_prior_ : ndarray of shape (n_classes,)
        Probabilities of the classes.
    estimators_ : list of estimators
        The fitted density of each class, in the order of ``classes_``.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis : One Gaussian for each class.
    sklearn.naive_bayes.GaussianNB : One Gaussian for each class, columns independent.

    Notes
    -----
    A density is fitted for each class, and each query is scored by all of them; with the default
    density this solves one flow for each class.

    The densities of the classes are compared, so all must be densities of the same X: put a scaler
    before the classifier, not into `estimator`. Columns that do not depend on the class affect a
    density as much as the others do; a discriminative classifier learns to ignore them.

    References
    ----------
    T. Hastie, R. Tibshirani, J. Friedman, The Elements of Statistical Learning, 2009, section
    6.6.2.
    """

    def __init__(self, estimator: Any = None, *, priors: Any = None, verbose: int = 0) -> None:
        self.estimator = estimator
        self.priors = priors
        self.verbose = verbose

    @reports_fit
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DensityClassifier:
        """Fit one density to the rows of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, used in the priors and in the densities; a row of weight k counts
            as k equal rows.

        Raises
        ------
        TypeError
            If `estimator` is not a density estimator, or takes no weights and `sample_weight` is passed.
        ValueError
            If X, y, the weights or `priors` are not valid, if a class has no row of positive
            weight, or if the density cannot be fitted to a class, which the message names. The
            estimator is then left as it was.

        Warns
        -----
        UserWarning
            If a class has one distinct row, to which the density cannot be fitted (the default cannot):
            it is replaced by a Gaussian about the row, with the standard deviations of the columns
            within the other classes.
        """
        if self.estimator is not None:
            check_member("estimator", self.estimator, compared=True)
        estimator, table = with_shared_columns(self.estimator, X, sample_weight)
        as_floats = check_table(X, self) if table is None else table.points(X)
        checked, y = check_X_y(as_floats, y, dtype=np.float64, estimator=self)
        check_classification_targets(y)
        weight = check_sample_weight(sample_weight, len(checked))
        merged = merge_rows(checked, weight)
        if table is None:
            merged.warn(column_names(X))
        classes, codes = np.unique(y, return_inverse=True)
        # Divided by the largest weight first: the sum of weights of 1e300 would overflow.
        counts = np.bincount(codes, weights=weight / weight.max())
        for label in classes[counts == 0]:
            raise ValueError(
                f"class {label} has no row of positive sample_weight, so it has no density; drop its "
                "rows, or raise their weights."
            )
        prior = self._resolve_priors(counts)
        rows = as_given(X, checked) if table is None else X
        whole = WholeTable(merged.points, merged.weights, has_classes=True)
        fitted: list[Any] = []
        refusals: list[int] = []
        for code, label in tracked(list(enumerate(classes)), "class"):
            kept = (codes == code) & (weight > 0)
            density = estimator_or_default(estimator)
            name = f"density of class {label} (n_samples = {kept.sum()})"
            weight_of_class = None if sample_weight is None else weight[kept]
            try:
                with parts_of_table(shared_table(density, whole)):
                    fitted.append(fit_member(name, density, take(rows, kept), weight_of_class))
            except ValueError:
                if table is not None or len(np.unique(checked[kept], axis=0)) > 1:
                    raise
                fitted.append(None)
                refusals.append(code)
        has_rows = ~np.isin(codes, refusals) & (weight > 0)
        if len(refusals) == len(classes):
            # Raises an error if the density cannot be fitted to all rows either.
            density = estimator_or_default(estimator)
            fit_member("density of all rows", density, rows, sample_weight)
            has_rows = weight > 0
        for code in refusals:
            warn_user(
                f"class {classes[code]} has one distinct row, to which the density cannot be fitted. A "
                "Gaussian about that row takes its place, with the standard deviations of the columns "
                "within the other classes. Pass more rows of the class, or drop it."
            )
            scale = _within_classes(checked[has_rows], codes[has_rows], weight[has_rows])
            columns = ColumnSpace.of(merged.points, merged.weights, whole.precision.unit)
            # A column that is constant in all classes gets the width that densities of several rows
            # give it.
            scale = np.maximum(scale, columns.widths * columns.scales)
            (first, *_) = np.flatnonzero((codes == code) & (weight > 0))
            fitted[code] = KDESampler(scale).fit(take(rows, np.array([first])))
        if isinstance(self.estimator, FrozenEstimator):
            warn_user(
                "estimator is a FrozenEstimator, which is not fitted again: all classes have the same "
                "density, so probabilities are the priors for every row. Pass the density without "
                "FrozenEstimator."
            )
        labels = [f"density of class {label}" for label in classes]
        check_same_measure(list(zip(labels, fitted, strict=True)))
        self._set_fitted(X, classes_=classes, class_prior_=prior, estimators_=fitted, _table_=table)
        return self

    @on_one_fit
    def predict(self, X: Any, *, columns: Any = None) -> np.ndarray:
        """Return the most probable class (n_samples,) of each row, a label from ``classes_``.

        `X`, `columns` and the errors are those of `predict_log_proba`.
        """
        log_proba = self.predict_log_proba(X, columns=columns)
        return self.classes_[log_proba.argmax(axis=1)]

    @on_one_fit
    def predict_proba(self, X: Any, *, columns: Any = None) -> np.ndarray:
        """Return the probabilities (n_samples, n_classes) of the classes, in the order of ``classes_``.

        `X`, `columns` and the errors are those of `predict_log_proba`.
        """
        return np.exp(self.predict_log_proba(X, columns=columns))

    @on_one_fit
    def predict_log_proba(self, X: Any, *, columns: Any = None) -> np.ndarray:
        """Return the logarithms of the probabilities of the classes.

        They are computed from log-densities, so that they are accurate also far from all rows, where
        densities underflow. Where all densities are exactly zero (compact kernels) the priors are
        returned.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        columns : collection of int or str, default=None
            Columns, by label or index, that are used; the others, which may be missing (NaN), are
            integrated out. None is all.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In nats, columns in the order of ``classes_``; -inf where a class is impossible.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X is not finite or has another number of features, or if a log-density is NaN or +inf.
        """
        check_is_fitted(self)
        d = self._n_columns()
        used, _ = resolve_scored_columns(columns, None, self._column_labels(), d)
        if len(used) < d:
            rows = self._rows(X, np.setdiff1d(np.arange(d), used))
            log_density = marginals(self._members(), rows, used)
        else:
            log_density = self._log_densities(X)
        # Relative to the likeliest class first: a log-prior added to -1e20 would be lost to rounding.
        highest = log_density.max(axis=1, keepdims=True)
        joint = log_density - np.where(highest > -np.inf, highest, 0.0) + self._log_prior()
        # A class of prior zero stays impossible.
        joint[(joint == -np.inf).all(axis=1)] = self._log_prior()
        return joint - logsumexp(joint, axis=1, keepdims=True)

    @on_one_fit
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds of the second class, or with more classes `predict_log_proba`.

        The shape is (n_samples,) or (n_samples, n_classes), as in scikit-learn's discriminant analyses.
        The log-odds still rank rows whose probabilities are rounded to 0 or 1. `X` and the errors are
        those of `predict_log_proba`.
        """
        log_proba = self.predict_log_proba(X)
        return log_proba[:, 1] - log_proba[:, 0] if len(self.classes_) == 2 else log_proba

    @on_one_fit
    def score_samples(self, X: Any, *, given: Any = None, columns: Any = None) -> np.ndarray:
        """Return the log-density (n_samples,) of rows under the mixture of all classes, in nats.

        Low values mark rows unlike those of any class. `given` and `columns` are as in
        `SmoothedScoreDiffusion.score_samples`. Raises as `predict_log_proba` does.
        """
        check_is_fitted(self)
        d = self._n_columns()
        scored, given_columns = resolve_scored_columns(columns, given, self._column_labels(), d)
        if len(scored) < d:
            ignored = np.setdiff1d(np.arange(d), np.union1d(scored, given_columns))
            rows = self._rows(X, ignored)
            return score_mixture(self._members(), self._log_prior(), rows, scored, given_columns)
        return logsumexp(self._log_densities(X) + self._log_prior(), axis=1)

    @on_one_fit
    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, given: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw new rows with their classes, as scikit-learn's mixtures do.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None draws anew at every call, without using numpy's global state.
        given : mapping from column to value, default=None
            As in `SmoothedScoreDiffusion.sample`; classes are drawn by their probabilities at these
            values.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows, in random order.
        y : ndarray of shape (n_samples,)
            The class of each row, drawn by the probabilities ``class_prior_`` if `given` is None. For
            rows of one class, call `sample` of its member of ``estimators_``.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If `n_samples` is not a positive integer, `random_state` is not a seed, or the density
            of a class cannot sample.
        """
        n, rng = self._check_draw(n_samples, random_state)
        if self._table_ is not None:
            rows, codes = draw_from_tables(
                self._table_, self._members(), self._log_prior(), n, rng, given
            )
            return rows, self.classes_[codes]
        if given is not None:
            d = self.n_features_in_
            columns, values = resolve_given_values(given, n, self._column_labels(), d)
            if len(columns):
                log_prior = self._log_prior()
                rows, which = draw_from_mixture(self._members(), log_prior, columns, values, rng, d)
                return rows, self.classes_[which]
        counts = rng.multinomial(n, self.class_prior_)
        drawn = []
        for label, density, count in zip(self.classes_, self.estimators_, counts, strict=True):
            if count:
                with naming(f"density of class {label} cannot sample"):
                    drawn.append(draw(density, int(count), rng))
        order = rng.permutation(n)
        return np.concatenate(drawn)[order], np.repeat(self.classes_, counts)[order]

    def _rows(self, X: Any, ignored: Any = ()) -> Any:
        """Return queries in the form that the densities take; columns `ignored` may be missing."""
        if self._table_ is not None:
            return X
        checked = self._check_query(X, ignored)
        return checked if len(ignored) else as_given(X, checked)

    def _members(self) -> list[tuple[str, Any]]:
        """Return the densities of the classes with their labels."""
        labels = [f"density of class {label}" for label in self.classes_]
        return list(zip(labels, self.estimators_, strict=True))

    def _log_densities(self, X: Any) -> np.ndarray:
        """Return log p(x | class) (n_samples, n_classes)."""
        rows = self._rows(X)
        return np.column_stack([log_density_of(*member, rows) for member in self._members()])

    def _log_prior(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(self.class_prior_)

    def _resolve_priors(self, counts: np.ndarray) -> np.ndarray:
        if self.priors is None:
            return counts / counts.sum()
        priors = check_real_array("priors", self.priors, allow_bool=False)
        if priors.shape != counts.shape:
            raise ValueError(
                f"priors has shape {priors.shape}; expected {counts.shape}, one probability for each "
                "class."
            )
        # The tolerance allows for rounded thirds.
        if not (np.all(priors >= 0) and np.isclose(priors.sum(), 1.0, rtol=0, atol=1e-6)):
            raise ValueError(
                f"priors={self.priors!r} are not probabilities; expected numbers >= 0 that sum to "
                "one. Divide them by their sum, or pass None for the fractions of training rows."
            )
        return priors / priors.sum()


def _within_classes(X: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the standard deviation (d,) of columns within classes, or of all rows where it is zero."""
    weight = weight / weight.max()

    def deviation(labels: np.ndarray) -> np.ndarray:
        total = np.bincount(labels, weights=weight)[labels]
        means = np.column_stack(
            [np.bincount(labels, weights=weight * column)[labels] / total for column in X.T]
        )
        return np.sqrt(np.average((X - means) ** 2, axis=0, weights=weight))

    within, overall = deviation(codes), deviation(np.zeros_like(codes))
    # The mean of equal values may be rounded.
    rounding = 8 * np.finfo(np.float64).eps * np.abs(X).max(axis=0)
    return np.where(within > rounding, within, overall)
