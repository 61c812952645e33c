"""A two-sample test by the accuracy with which a classifier predicts the sample of a row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import hypergeom
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, check_cv
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .._utils.validation import check_generator, check_integer
from ._checks import check_pair


@dataclass(frozen=True)
class ClassifierTwoSampleTest:
    """The result of `classifier_two_sample_test`.

    Parameters
    ----------
    accuracy : float
        Fraction of held-out rows whose sample was predicted correctly, the mean over the two samples
        and the splits; 0.5 is chance, 1 means that the distributions do not overlap.
    p_value : float
        P-value of the hypothesis that both samples have the same distribution.
    accuracies : ndarray of shape (n_splits,)
        Accuracy of each split.
    """

    accuracy: float
    p_value: float
    accuracies: np.ndarray


def classifier_two_sample_test(
    X: Any,
    Y: Any,
    estimator: Any = None,
    *,
    cv: Any = None,
    n_permutations: int = 99,
    random_state: Any = None,
) -> ClassifierTwoSampleTest:
    """Test whether two samples have the same distribution, by the accuracy of a classifier.

    The classifier is fitted to half of the rows of both samples and predicts the sample of other rows.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows, at least two.
    Y : array-like of shape (m, d)
        Rows of the other sample, at least two, and about as many as of X: if sizes differ, a classifier
        may always predict the larger sample.
    estimator : classifier, optional
        A clone of it is fitted to targets 1 for X and 0 for Y. The default is a vote of the
        sqrt(n_train) nearest neighbours on standardised columns, which detects any difference but needs
        many rows if there are many columns. A linear classifier detects differences of means only.
    cv : int, cross-validation splitter or None, default=None
        None is one stratified split in halves. An integer is the number of shuffled, stratified folds,
        which test all rows but need permutations.
    n_permutations : int, default=99
        Number of permutations of the sample labels if there are several splits; each repeats all fits.
    random_state : int, RandomState or None, default=None
        Seed of splits and permutations; None gives new ones. It does not seed the classifier.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, are too few, their columns differ, `cv` is neither a
        number nor a splitter, or a split has no held-out row of X or of Y.

    Notes
    -----
    The p-value of one split is that of Fisher's exact test, one sided, of the table of predictions and
    samples of the held-out rows: given the predictions, under the hypothesis all ways to assign these
    rows to the samples are equally likely. It is exact for any classifier and any sizes; the normal
    approximation of Lopez-Paz & Oquab is its limit for equal sizes. Several splits share rows, so that
    their tables are not independent. Then the accuracy is compared with those of permuted labels: the
    p-value is (1 + number of permutations with at least this accuracy) / (1 + n_permutations), which is
    exact, too.

    Rows must be independent: rows that the model has not been fitted on.

    Costs one fit for each split, and n_permutations + 1 times that with several splits.

    References
    ----------
    D. Lopez-Paz, M. Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017, arXiv:1610.06545.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.metrics import classifier_two_sample_test
    >>> rng = np.random.RandomState(0)
    >>> X, Y = rng.normal(size=(200, 2)), rng.normal(2.0, size=(200, 2))
    >>> test = classifier_two_sample_test(X, Y, random_state=0)
    >>> round(test.accuracy, 2), test.p_value < 1e-20
    (0.9, True)
    """
    rows, others = check_pair(X, Y, "Y", minimum=(2, 2))
    if estimator is not None and not (hasattr(estimator, "fit") and hasattr(estimator, "predict")):
        raise TypeError(
            f"estimator={estimator!r} has type {type(estimator).__name__}; expected a classifier with "
            "fit and predict, such as LogisticRegression(), or None."
        )
    n_permutations = check_integer("n_permutations", n_permutations)
    generator = check_generator(random_state)
    pooled = np.concatenate([rows, others])
    is_x = np.repeat([1, 0], [len(rows), len(others)])
    splits = [_Split.of(estimator, pooled, is_x, *pair) for pair in _pairs(cv, is_x, generator)]
    accuracies = np.array([split.accuracy for split in splits])
    accuracy = float(accuracies.mean())
    if len(splits) == 1:
        return ClassifierTwoSampleTest(accuracy, splits[0].p_value, accuracies)
    n_as_high = 0
    for _ in range(n_permutations):
        labels = generator.permutation(is_x)
        pairs = _pairs(cv, labels, generator)
        permuted = np.mean([_Split.of(estimator, pooled, labels, *pair).accuracy for pair in pairs])
        n_as_high += int(permuted >= accuracy - 1e-12)
    p_value = (1 + n_as_high) / (1 + n_permutations)
    return ClassifierTwoSampleTest(accuracy, p_value, accuracies)


@dataclass(frozen=True)
class _Split:
    """Numbers of held-out rows: of each sample, of X predicted as X, and of all predicted as X."""

    n_x: int
    n_y: int
    n_hits: int
    n_predicted_x: int

    @classmethod
    def of(
        cls, estimator: Any, rows: np.ndarray, is_x: np.ndarray, train: np.ndarray, test: np.ndarray
    ) -> _Split:
        truth = is_x[test] == 1
        n_x, n_y = int(truth.sum()), int((~truth).sum())
        if not n_x or not n_y:
            raise ValueError(
                f"a split of cv holds out {n_x} rows of X and {n_y} of Y; expected some of both. Pass a "
                "number of folds, or a stratified splitter."
            )
        model = _neighbors(len(train)) if estimator is None else clone(estimator)
        predicted = np.asarray(model.fit(rows[train], is_x[train]).predict(rows[test])) == 1
        return cls(n_x, n_y, int(np.sum(predicted & truth)), int(predicted.sum()))

    @property
    def accuracy(self) -> float:
        """The fraction of rows that is predicted correctly, averaged over the two samples."""
        return (self.n_hits / self.n_x + 1 - (self.n_predicted_x - self.n_hits) / self.n_y) / 2

    @property
    def p_value(self) -> float:
        """The probability of `n_hits` or more if the rows predicted as X were drawn at random."""
        n = self.n_x + self.n_y
        return float(hypergeom.sf(self.n_hits - 1, n, self.n_x, self.n_predicted_x))


def _pairs(
    cv: Any, is_x: np.ndarray, generator: np.random.RandomState
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return indices of training rows and of held-out rows for each split."""
    if cv is None:
        cv = StratifiedShuffleSplit(1, test_size=0.5, random_state=generator)
    elif isinstance(cv, int | float | np.number):
        n_folds = check_integer("cv", cv, minimum=2)
        fewest = int(min(is_x.sum(), len(is_x) - is_x.sum()))
        if n_folds > fewest:
            raise ValueError(
                f"cv={cv!r} folds need at least as many rows in X and in Y, the smaller of which has "
                f"{fewest}. Pass fewer folds."
            )
        cv = StratifiedKFold(n_folds, shuffle=True, random_state=generator)
    try:
        return [(train, test) for train, test in check_cv(cv).split(is_x, is_x)]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"cv={cv!r:.100} of type {type(cv).__name__} cannot be used ({error}); expected a number of "
            "folds, a splitter such as StratifiedKFold(5), or an iterable of (train, test) indices."
        ) from error


def _neighbors(n_train: int) -> Any:
    """Return a nearest-neighbour classifier on standardised columns."""
    return make_pipeline(StandardScaler(), KNeighborsClassifier(max(1, math.isqrt(n_train))))
