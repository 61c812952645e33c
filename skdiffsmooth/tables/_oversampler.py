"""DensityOverSampler: new rows of small classes, for imbalanced-learn (imported on use only)."""

from __future__ import annotations

from typing import Any

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_target_type
from sklearn.base import clone
from sklearn.utils.validation import validate_data

from .._utils.validation import check_generator
from ..compose._classifier import DensityClassifier
from ._estimator import TableDensity, TakesTables
from ._frames import check_shape


class DensityOverSampler(TakesTables, BaseOverSampler):
    """Over-sampler that draws rows of each small class from a density of its rows.

    Rows are drawn from the estimated distribution of the class, with the categories, bounds, rounding
    and dtypes of the table; they are not interpolated between two rows. The sampler has the interface of
    imbalanced-learn, which must be installed (``pip install skdiffsmooth[imblearn]``).

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skdiffsmooth.tables import DensityOverSampler
    >>> rng = np.random.RandomState(0)
    >>> y = np.array(["no"] * 80 + ["yes"] * 20)
    >>> frame = pd.DataFrame({"age": rng.poisson(30, 100), "sex": rng.choice(["f", "m"], 100)})
    >>> X_more, y_more = DensityOverSampler(random_state=0).fit_resample(frame, y)
    >>> X_more.shape, int((y_more == "yes").sum())
    ((160, 2), 80)

    Parameters
    ----------
    estimator : estimator, default=None
        The density that is fitted to the rows of each class; None is ``TableDensity()``, which takes
        columns of every kind. Declare kinds by ``TableDensity({"hour": Periodic(24)})``. Of a density
        of arrays, such as `KDESampler`, draws are rounded in columns of integers.
    sampling_strategy : float, str, dict or callable, default="auto"
        Which classes are drawn, and how many rows, as in imbalanced-learn: "auto" enlarges every other
        class to the size of the largest.
    random_state : int, RandomState or None, default=None
        Seed of the draws.

    Attributes
    ----------
    classifier_ : DensityClassifier
        The densities of the classes, ``classifier_.estimators_``, in the order of its ``classes_``.
    sampling_strategy_ : dict
        The number of rows to draw of each class.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    imblearn.over_sampling.SMOTENC : Interpolates near rows; takes their most frequent category.
    skdiffsmooth.compose.DensityClassifier : Classifies with these densities, without drawing.

    Notes
    -----
    Missing cells of X are allowed and kept; drawn rows have missing cells only in columns that the
    density leaves out. Sparse columns of a frame are made dense while the density is fitted.
    """

    def __init__(
        self, estimator: Any = None, *, sampling_strategy: Any = "auto", random_state: Any = None
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.estimator = estimator
        self.random_state = random_state

    def _check_X_y(self, X: Any, y: Any) -> tuple[Any, Any, bool]:  # noqa: N802 (imblearn's name)
        """Return X with dense columns, y, and whether y was one-vs-all, as imbalanced-learn expects."""
        y, is_binarized = check_target_type(y, indicate_one_vs_all=True)
        if type(X).__module__.startswith("polars"):
            raise TypeError(
                "X is a DataFrame of polars, which imbalanced-learn does not take; expected an array "
                "or a DataFrame of pandas. Pass X.to_pandas()."
            )
        if not hasattr(X, "iloc"):
            X = validate_data(self, X, reset=True, dtype=None, ensure_all_finite="allow-nan")
        else:
            check_shape(len(X), tuple(X.columns))
            validate_data(self, X, reset=True, skip_check_array=True)
            sparse = {
                name: dtype.subtype
                for name, dtype in X.dtypes.items()
                if str(dtype).startswith("Sparse")
            }
            X = X.astype(sparse)
        return X, y, is_binarized

    def _fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Return X and y with the drawn rows and their classes appended."""
        rng = check_generator(self.random_state)
        estimator = TableDensity() if self.estimator is None else clone(self.estimator)
        self.classifier_ = DensityClassifier(estimator).fit(X, y)
        drawn, labels = [], []
        for label, n_samples in self.sampling_strategy_.items():
            if n_samples:
                (code,) = np.flatnonzero(self.classifier_.classes_ == label)
                drawn.append(self.classifier_.estimators_[code].sample(n_samples, rng))
                labels.append(np.full(n_samples, label, dtype=np.asarray(y).dtype))
        return _stacked(X, drawn), np.concatenate([y, *labels])

    def __sklearn_is_fitted__(self) -> bool:
        # imbalanced-learn stores `sampling_strategy_` before the parameters are checked.
        return hasattr(self, "classifier_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags


def _stacked(X: Any, drawn: list[Any]) -> Any:
    """Return X with the drawn rows appended, of the type of X."""
    if not hasattr(X, "iloc"):
        return np.concatenate([X, *drawn]) if drawn else X
    import pandas as pd

    return pd.concat([X, *(_with_columns_of(X, rows) for rows in drawn)], ignore_index=True)


def _with_columns_of(X: Any, rows: Any) -> Any:
    """Return drawn rows as a frame; those of a density of arrays are rounded in columns of integers."""
    if hasattr(rows, "iloc"):
        return rows
    import pandas as pd

    frame = pd.DataFrame(rows, columns=X.columns)
    for name, dtype in X.dtypes.items():
        # imbalanced-learn converts to the dtype of X by truncation.
        kind = getattr(dtype, "kind", "O")
        if kind in "iub":
            low, high = (0 if kind in "ub" else None), (1 if kind == "b" else None)
            frame[name] = frame[name].round().clip(low, high)
    return frame
