"""Training rows of positive weight: which are equal, and folds in which equal rows stay together."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, check_cv
from sklearn.utils.validation import check_array

from .validation import check_integer, check_sample_weight, merge_duplicates

__all__ = ["TrainingRows", "as_given", "take"]


def as_given(X: Any, checked: np.ndarray) -> Any:
    """Return X itself where it is a table with columns, whose names a member may ask for."""
    return X if hasattr(X, "iloc") else checked


def take(rows: Any, which: np.ndarray) -> Any:
    """Return some of the rows of an array or a table."""
    return rows.iloc[which] if hasattr(rows, "iloc") else rows[which]


@dataclass(frozen=True)
class TrainingRows:
    """Training rows of positive weight, and which of them are equal."""

    given: Any
    """The rows in the user's order, an array or a table."""
    weight: np.ndarray | None
    """Their weights, None where none were passed."""
    kept: np.ndarray
    """Of each row of X, whether its weight is positive."""
    points: np.ndarray
    """The distinct rows in lexicographic order, as the estimators of this package keep them."""
    shares: np.ndarray
    """The total weights of the distinct rows; they sum to one."""
    group: np.ndarray
    """Of each given row, which distinct row it is."""

    @classmethod
    def of(cls, X: Any, sample_weight: Any, owner: Any) -> TrainingRows:
        """Check rows and weights, and find which are equal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            What the user passed.
        sample_weight : array-like of shape (n_samples,) or None
            What the user passed.
        owner : object
            The estimator that messages name.

        Returns
        -------
        TrainingRows
        """
        checked = check_array(X, dtype=np.float64, estimator=owner, input_name="X")
        weight = check_sample_weight(sample_weight, len(checked))
        # A weight 300 decades below the largest is zero in every sum.
        kept = weight / weight.max() > 0
        points, shares = merge_duplicates(checked[kept], weight[kept])
        group = np.unique(checked[kept] + 0.0, axis=0, return_inverse=True)[1].ravel()
        return cls(
            take(as_given(X, checked), kept),
            None if sample_weight is None else weight[kept],
            kept,
            points,
            shares,
            group,
        )

    def folds(self, cv: Any, name: str = "cv") -> list[tuple[np.ndarray, np.ndarray]]:
        """Split the rows: training and test rows of each fold, as indices of the given ones.

        A number of folds splits the *distinct* rows, so that equal ones are never on both sides. A copy
        of a test row among the training rows would report the density at a training row, which a narrow
        enough kernel makes as high as it likes. And since the order of the distinct rows depends on
        neither their order in X nor their number of copies, k equal rows are split like one row of
        weight k.

        Parameters
        ----------
        cv : int, cross-validation splitter or iterable of (train, test)
            The number of shuffled folds; or whose splits of the rows of X are taken as they are.
        name : str, default="cv"
            What messages call it.

        Returns
        -------
        list of tuple of ndarray

        Raises
        ------
        TypeError, ValueError
            If `cv` is no such thing, or does not test each row once.
        """
        n = len(self.points)
        if isinstance(cv, numbers.Number):
            n_folds = check_integer(name, cv, minimum=2)
            if n < n_folds:
                raise ValueError(
                    f"{name}={cv!r} folds need as many distinct rows of positive weight, got "
                    f"n_samples = {n}. Pass more rows, or a smaller {name}."
                )
            splits = KFold(n_folds, shuffle=True, random_state=0).split(self.points)
            is_test = [np.isin(self.group, test) for _, test in splits]
            return [(np.flatnonzero(~held_out), np.flatnonzero(held_out)) for held_out in is_test]
        # The places of the kept rows; those of weight zero are in no fold.
        place = np.cumsum(self.kept) - 1
        folds = []
        for train, test in check_cv(cv).split(self.kept):
            if self.kept[test].any():
                folds.append((place[train][self.kept[train]], place[test][self.kept[test]]))
        tested = np.sort(np.concatenate([test for _, test in folds]))
        if not np.array_equal(tested, np.arange(len(self.group))):
            raise ValueError(
                f"{name}={cv!r} does not test each row once; pass a splitter whose test sets are a "
                "partition, such as KFold."
            )
        return folds
