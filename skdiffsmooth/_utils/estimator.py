"""What the density estimators share: how data comes in, how results go out, the mean as the score."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .rows import check_sample_weight, merge_duplicates
from .validation import check_detached, check_draw, check_size

__all__ = ["DensityEstimatorMixin", "DistanceDensityMixin"]


class DensityEstimatorMixin(DensityMixin):
    """The half of a density estimator that does not depend on the density.

    Classes that use it define ``fit``, ``score_samples`` and ``sample``.
    """

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-density of the rows of X.

        The mean, not the sum: folds differ in size, and a search should not care.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Held-out rows.
        y : object, default=None
            Ignored; there for scikit-learn's calling convention.

        Returns
        -------
        float
            Mean of ``score_samples(X)``, in nats per row.
        """
        return float(np.mean(self.score_samples(X)))

    def _set_fitted(self, X: Any, **attributes: Any) -> None:
        """Store what was learned, all at once: a fit that fails must leave the old one whole."""
        validate_data(self, X, reset=True, skip_check_array=True)
        # What an earlier fit with other parameters learned is no part of this one.
        kept = ("n_features_in_", "feature_names_in_")
        for name in [name for name in vars(self) if name.endswith("_") and name not in kept]:
            delattr(self, name)
        for name, value in attributes.items():
            setattr(self, name, value)

    def _check_query(self, X: Any) -> np.ndarray:
        """Return the rows to be scored, as float64, after comparing them with the training rows."""
        check_is_fitted(self)
        check_detached("X", X)
        return validate_data(self, X, reset=False, dtype=np.float64)

    def _column_names(self) -> np.ndarray | None:
        """Return the names of the columns, where the training rows had them."""
        return getattr(self, "feature_names_in_", None)

    def _check_draw(self, n_samples: Any, random_state: Any) -> tuple[int, np.random.RandomState]:
        """Return the number of draws and their source of randomness."""
        check_is_fitted(self)
        return check_draw(n_samples, random_state)


class DistanceDensityMixin(DensityEstimatorMixin):
    """The same of a density that takes distances between rows: their squares must be numbers."""

    points_: np.ndarray

    def _check_training(self, X: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return distinct rows and their weights, leaving the estimator as it is."""
        check_detached("X", X)
        X = check_array(X, dtype=np.float64, estimator=self, input_name="X")
        check_size("X", X)
        return merge_duplicates(X, check_sample_weight(sample_weight, len(X)))

    def _check_others(self) -> None:
        """Raise if a point that is left out leaves none."""
        if len(self.points_) < 2:
            raise ValueError(
                "leave_one_out_log_density needs at least two distinct rows, and the model was fitted "
                "on one; fit it on more."
            )

    def _check_query(self, X: Any) -> np.ndarray:
        X = super()._check_query(X)
        check_size("X", X)
        return X
