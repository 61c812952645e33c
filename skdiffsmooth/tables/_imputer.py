"""DensityImputer: a scikit-learn transformer that fills missing cells from a density of whole rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from .._utils.estimator import SavedWithVersion
from .._utils.validation import check_choice, check_generator, check_integer
from ._estimator import TableDensity, TakesTables


class DensityImputer(TakesTables, TransformerMixin, SavedWithVersion, BaseEstimator):
    """Imputer that fills missing cells given the other cells of their row, under one density of rows.

    All missing cells of a row are drawn together from their distribution given the observed cells, so
    that they are consistent; categories, bounds, rounding and dtypes are those of the training table.
    Observed cells stay as they are.

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skdiffsmooth.tables import DensityImputer
    >>> rng = np.random.RandomState(0)
    >>> kind = rng.choice(["cat", "dog"], size=200)
    >>> frame = pd.DataFrame({"kind": kind, "mass": rng.lognormal(1 + 2 * (kind == "dog"), 0.2)})
    >>> frame.loc[:19, "kind"] = None
    >>> filled = DensityImputer(random_state=0).fit_transform(frame)
    >>> bool((filled["kind"][:20] == kind[:20]).all())
    True

    Parameters
    ----------
    estimator : TableDensity, default=None
        The density that is fitted; declare kinds of columns in its `kinds`. None is ``TableDensity()``.
    strategy : {"draw", "mean"}, default="draw"
        What replaces missing cells. "draw" draws them; use it for estimates that depend on variances or
        relations between columns, and with several seeds for multiple imputation. "mean" is the mean of
        numbers and the most frequent level; use it to predict single cells.
    n_draws : int, default=50
        Number of draws for "mean"; the standard error of a mean is the standard deviation of the cell's
        distribution divided by the square root of `n_draws`.
    random_state : int, RandomState or None, default=None
        Seed of the draws. With an integer all calls of `transform` draw the same, with None they differ.

    Attributes
    ----------
    estimator_ : TableDensity
        The fitted density.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    TableDensity.impute : The same draws, without a transformer.
    sklearn.impute.IterativeImputer : One regression for each column, for numbers.
    sklearn.impute.KNNImputer : Means of near rows.

    Notes
    -----
    For multiple imputation fit once and transform with m seeds. The estimate is the mean over the m
    tables; its variance is the mean variance within tables plus (1 + 1/m) times the variance between
    tables (Rubin 1987):

    >>> imputer = DensityImputer().fit(frame)
    >>> tables = [imputer.set_params(random_state=seed).transform(frame) for seed in range(5)]

    No column needs to be complete. Cells are assumed to be missing at random: whether a cell is missing
    may depend on the observed cells of its row, but not on missing values.

    References
    ----------
    D. B. Rubin, Multiple Imputation for Nonresponse in Surveys, 1987.
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        strategy: str = "draw",
        n_draws: int = 50,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.strategy = strategy
        self.n_draws = n_draws
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DensityImputer:
        """Fit the density.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Training rows, with missing cells or without.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Raises
        ------
        TypeError, ValueError
            If a parameter is not valid, or as `TableDensity.fit`.
        """
        self._check_parameters()
        estimator = TableDensity() if self.estimator is None else clone(self.estimator)
        if not isinstance(estimator, TableDensity):
            raise TypeError(
                f"estimator of type {type(estimator).__name__} is no density of tables; expected a "
                "TableDensity. Pass another density as TableDensity(density=...)."
            )
        fitted = estimator.fit(X, sample_weight=sample_weight)
        state = {"estimator_": fitted, "n_features_in_": fitted.n_features_in_}
        names = getattr(fitted, "feature_names_in_", None)
        if names is not None:
            state["feature_names_in_"] = names
        parameters = {name: value for name, value in vars(self).items() if not name.endswith("_")}
        self.__dict__ = {**parameters, **state}
        return self

    def transform(self, X: Any) -> Any:
        """Return a table without missing cells.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Rows; the table is not changed.

        Returns
        -------
        DataFrame or ndarray
            A table of the library of X, with its columns and index, or as `set_output` requests.
            Columns that the density leaves out are returned unchanged.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit the columns of the training table, or a parameter is not valid.
        """
        check_is_fitted(self)
        rng = self._check_parameters()
        columns, density = self.estimator_.columns_, self.estimator_.density_
        rows = columns.encode(X)
        filled = rows.take(np.arange(len(rows)))
        (missing,) = np.nonzero(columns.is_missing(X).any(axis=1))
        if len(missing):
            n_draws = 1 if self.strategy == "draw" else self.n_draws
            copies = rows.take(np.tile(missing, n_draws))
            drawn = density.draw_missing(copies, rng, for_means=self.strategy == "mean")
            mean = drawn if n_draws == 1 else columns.mean_of_draws(drawn, n_draws)
            filled.levels[missing], filled.values[missing] = mean.levels, mean.values
        return columns.fill(X, filled)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns, which are those of X.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns of X; None is those of the training table.

        Returns
        -------
        ndarray of str
            The names.
        """
        check_is_fitted(self)
        return _check_feature_names_in(self, input_features)

    def _check_parameters(self) -> np.random.RandomState:
        """Check the parameters, and return the generator of the draws."""
        check_choice("strategy", self.strategy, ("draw", "mean"))
        check_integer("n_draws", self.n_draws, minimum=1)
        return check_generator(self.random_state)
