"""TableDensity: the scikit-learn estimator of the density of a whole row of any table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from .._estimators.smoothed import SmoothedScoreDiffusion
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.given import resolve_scored_columns
from .._utils.progress import reports_fit
from .._utils.rows import check_sample_weight
from .._utils.validation import check_choice, check_flag
from .._utils.warnings import warn_user
from ..compose._members import check_member, check_takes_weights
from ._columns import EncodedTable, TableColumns
from ._density import MixedDensity
from ._fitting import fit_mixed

# Errors of log-densities, in nats, that are reported by a warning.
_LARGE_ERROR = 0.25
# Requested error, in nats, of log-densities of columns given the others, which are only compared.
_TOLERANCE_OF_OTHERS = 0.25


class TakesTables:
    """A mixin that sets the scikit-learn tags for tables: missing, text and categorical cells."""

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class TableDensity(TakesTables, DensityEstimatorMixin, BaseEstimator):
    """Joint density of all columns of a table, of any kind, which also draws and imputes rows.

    Columns may hold categories, booleans, counts, dates, or rounded or exact numbers, which may be
    bounded, periodic, or equal to one value (such as zero) in many rows. Cells may be missing in `fit`
    and in all other methods.

    >>> import pandas as pd
    >>> import numpy as np
    >>> from skdiffsmooth.tables import TableDensity
    >>> rng = np.random.RandomState(0)
    >>> kind = rng.choice(["cat", "dog"], size=200)
    >>> frame = pd.DataFrame({"kind": kind, "mass": rng.lognormal(1 + (kind == "dog"), 0.3)})
    >>> model = TableDensity().fit(frame)
    >>> model.columns_
    TableColumns of a pandas table with 2 columns:
      'kind'  categorical 2 levels: 'cat', 'dog'
      'mass'  positive    from 0
    >>> drawn = model.sample(3, random_state=0, given={"kind": "dog"})
    >>> drawn["kind"].tolist(), bool(drawn["mass"].between(3, 20).all())
    (['dog', 'dog', 'dog'], True)
    >>> log_odds = model.score_samples(frame, columns=["kind"], given=["mass"])
    >>> bool(np.exp(log_odds).mean() > 0.8)
    True

    Parameters
    ----------
    kinds : mapping from column to Kind or None, default=None
        Kinds of columns, by label (by index, where X has none), such as ``{"hour": Periodic(24)}``; None
        leaves a column out. All others are detected; see `TableColumns`, and ``columns_`` for the
        result.
    density : estimator, default=None
        The density of continuous columns: any density of this package that takes weights. None is
        ``SmoothedScoreDiffusion()``. This and `KDESampler` are fitted once for each set of columns with
        a density of its own; other densities are fitted again for each combination of levels on which
        the continuous columns depend, which can take long. ``KDESampler("scott")``, with one bandwidth
        for each column, is the fastest for columns of different units.
    random_state : int, RandomState or None, default=None
        Seed of `sample` and `impute` where a call passes none. With None every call draws other rows.
    new_levels : {"error", "missing"}, default="error"
        How a query with a new level, one that the column does not have, is treated. "error" raises
        ValueError. "missing" takes the cell as missing in the densities of the other columns, and gives
        all new levels of a column together the probability of half a training row; use it in searches
        over tables with rare levels. Categories of the dtype that no training row has are always treated
        as with "missing". New levels are never drawn.
    verbose : int, default=0
        1 reports the progress of calls, and the time that is left.

    Attributes
    ----------
    columns_ : TableColumns
        The kind of each column, with its atoms (values that many rows hold exactly), unit, bounds and
        missing cells. Print it to read them.
    lambdas_ : dict from column to float
        For each column with levels or atoms, the bandwidth, from 0 to 1, of its kernel in p(c), see
        Notes: at 0 a training row gives weight to its own level only, at 1 the column is independent.
    parts_ : list of dict
        For each set of continuous columns with a density of its own: its `columns`; `rows`, the number
        of training rows; the fitted `density`; and `lambdas`, the bandwidths of the kernels of levels
        that weight the rows: at 0 only rows of the same level have weight, at 1 the density does not
        depend on that column. Densities of columns with atoms given the others, with the number of
        different `rows`, come last.
    base_measure_ : dict from column to str
        The measure of each column's log-density; see Notes. Log-densities of two models can be compared
        only if these measures are equal.
    density_ : MixedDensity
        The fitted distribution of levels and values.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    TableColumns : The kinds of columns and how they are detected.
    skdiffsmooth.compose.DensityClassifier : Classifies rows by the density of each class.

    Notes
    -----
    A row has levels c (its categories, and which columns are at an atom) and numbers z, with density
    ``p(c, z) = p(c) p(z | c)``: p(c) is a sum of kernels of levels over the training rows, and p(z | c)
    the density of the training rows weighted by such kernels. The bandwidths of these kernels maximise
    the leave-one-out likelihood. Metric, scale and background of the default `density` are the same for
    all levels.

    Log-densities are in nats, with respect to the counting measure for levels, atoms and recorded
    values of columns with a unit (the probability of the cell, the interval of one unit about the
    value), and to Lebesgue measure in the units of the column for exact numbers. The density, summed
    over levels and cells and integrated over exact numbers, is one. Compare only models with the same
    `base_measure_`.

    The probability of a cell is its width times the mean density at 27 points of it, or at 17 or 31 if
    several columns have cells (up to nine times as many where errors exceed 0.2 nats). The density at
    the recorded value replaces the mean where this changes the logarithm by less than 0.01 nats on
    average. Missing levels are summed over, and missing values integrated out (at 44 to 4096 points for
    each row, until the error is 0.03 nats).

    Values of a column with atoms that are no atom have a kernel density given all other columns,
    centred on a regression; `density` models the columns without atoms, or all columns if all have
    atoms. So an atom that is independent of the other columns has its frequency as its probability,
    whatever their values are.

    Columns that have values together in fewer than ten different rows are modelled as independent given
    the levels, with a warning.

    Cost: `density` is fitted to the columns without atoms (if all have atoms, to each set of columns
    that are at no atom together), and again with the scale that is chosen given the levels;
    `score_samples` and `sample` evaluate one model for each combination, in the queried rows, of the
    levels on which the continuous columns depend (docs/evidence/mixed.md has times).

    References
    ----------
    J. Aitchison, C. G. G. Aitken, Multivariate binary discrimination by the kernel method, Biometrika
    63(3), 1976. Q. Li, J. S. Racine, Nonparametric Econometrics, 2007, chapters 3 to 5.
    """

    columns_: TableColumns
    density_: MixedDensity

    def __init__(
        self,
        kinds: Any = None,
        *,
        density: Any = None,
        random_state: Any = None,
        new_levels: str = "error",
        verbose: int = 0,
    ) -> None:
        self.kinds = kinds
        self.density = density
        self.random_state = random_state
        self.new_levels = new_levels
        self.verbose = verbose

    @reports_fit
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> TableDensity:
        """Detect the kinds of columns that are not declared, and fit the density.

        Parameters
        ----------
        X : DataFrame of pandas or polars, or array-like of shape (n_samples, n_features)
            Training rows; cells may be missing. The table is not changed.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Raises
        ------
        TypeError
            If `kinds`, `density` or `new_levels` has the wrong type.
        ValueError
            If X, the weights, `kinds` or `new_levels` are not valid; the message names the column. The
            estimator is then left as it was.

        Warns
        -----
        UserWarning
            If a column has one value, if columns satisfy linear relations, exact ones or up to their
            rounding, or if few rows have values in all columns that should have some.

        Notes
        -----
        A row with missing cells is used for the distribution of the levels that it has, and for the
        density of each set of columns in which it has all values.
        """
        density = SmoothedScoreDiffusion() if self.density is None else self.density
        check_member("density", density, compared=True)
        columns = self._columns_of(X, sample_weight)
        rows = columns.encode(X)
        weights = check_sample_weight(sample_weight, len(rows))
        if sample_weight is not None:
            check_takes_weights("density", density)
        has_cells = (rows.levels >= 0).any(axis=1) | ~np.isnan(rows.values).all(axis=1)
        kept = has_cells & (weights > 0)
        fitted = fit_mixed(columns, rows.take(kept), weights[kept], density)
        self._set_fitted(X, columns_=columns, density_=fitted)
        return self

    def _with_columns_of(self, X: Any, sample_weight: Any) -> tuple[TableDensity, TableColumns]:
        """Return an unfitted copy whose `kinds` are those detected in X, and the `TableColumns` of X."""
        columns = self._columns_of(X, sample_weight)
        return clone(self).set_params(kinds=columns.kinds), columns

    def _columns_of(self, X: Any, sample_weight: Any) -> TableColumns:
        """Return the `TableColumns` of X, with the parameter `new_levels`."""
        check_choice("new_levels", self.new_levels, ("error", "missing"))
        columns = TableColumns.fit(X, self.kinds, sample_weight)
        return replace(columns, new_levels=self.new_levels)

    @property
    def lambdas_(self) -> dict[Any, float]:
        """Bandwidths of the kernels of levels in p(c), the distribution of levels, by column."""
        check_is_fitted(self, "density_")
        return self._by_name(self.density_.level_density.kernels)

    @property
    def parts_(self) -> list[dict[str, Any]]:
        """The densities of sets of continuous columns."""
        check_is_fitted(self, "density_")
        names = [each.name for each in self.columns_.continuous]
        return [
            {
                "columns": [names[k] for k in part.columns],
                "rows": len(part.weights),
                "density": getattr(part, "fitted", part),
                "lambdas": self._by_name(part.kernels),
            }
            for part in self.density_.all_parts
        ]

    @property
    def base_measure_(self) -> dict[Any, str]:
        """The measure with respect to which the log-density of each column is defined."""
        check_is_fitted(self, "density_")
        return self.columns_.base_measure

    def _by_name(self, kernels: Any) -> dict[Any, float]:
        """Return the bandwidths of kernels by the names of their columns."""
        pairs = zip(self.columns_.discrete, kernels, strict=True)
        return {each.name: kernel.lam for each, kernel in pairs}

    @overload
    def score_samples(self, X: Any, *, given: Any = None, columns: Any = None) -> np.ndarray: ...

    @overload
    def score_samples(
        self, X: Any, *, given: Any = None, columns: Any = None, return_error: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...

    @on_one_fit
    def score_samples(
        self, X: Any, *, given: Any = None, columns: Any = None, return_error: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the log-density of each row under the distribution that `sample` draws from.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Rows. Missing cells are summed over or integrated out.
        given : collection of column labels, default=None
            Columns on which the density is conditional, at their values in X.
        columns : collection of column labels, default=None
            Columns whose density is returned; the rest is summed over and integrated out. None is all
            that are not in `given`.
        return_error : bool, default=False
            Whether to return also the standard error from averages over cells, and from sums and
            integrals over missing values.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, with respect to ``base_measure_``.
        error : ndarray of shape (n_samples,)
            Standard error of each log-density in nats, if `return_error`: about 0.03 for an integral
            over two or more missing numbers; for one missing number an upper bound, 0.1.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X, `given` or `columns` does not fit the columns of the training table.

        Warns
        -----
        UserWarning
            If an error exceeds a quarter of a nat, or if given levels are in no training row.

        Notes
        -----
        Of more than 64 combinations of missing levels the likeliest are summed. With p the probability
        of the others given the known levels, the error has the term -log(1 - p). The omitted fraction
        of a row's density has the mean p over rows drawn from the density, so that a log-density is
        too small by more than t nats with a probability of at most p / (1 - exp(-t)).
        """
        check_is_fitted(self)
        with_error = check_flag("return_error", return_error)
        rows, table = self.columns_.encode(X), self.columns_
        scored, conditions = resolve_scored_columns(
            columns, given, self._column_labels(), len(table.columns)
        )
        log_density, error = self.density_.log_density(
            self._only(rows, np.union1d(scored, conditions))
        )
        if len(conditions):
            others = self._only(rows, conditions)
            self.density_.warn_of_support(others)
            log_given, more = self.density_.log_density(others)
            log_density, error = log_density - log_given, np.hypot(error, more)
        log_density = log_density + table.log_new(rows)[:, scored].sum(axis=1)
        _warn_of_errors(error)
        return (log_density, error) if with_error else log_density

    def _given_others(self, X: Any) -> np.ndarray:
        """Return the log-density (n, d) of each column of rows X given the others.

        All are computed in one call, so that the model of each combination of levels is made once.
        """
        whole = self.columns_.encode(X)
        every = np.arange(len(self.columns_.columns))
        parts = [whole, *(self._only(whole, np.delete(every, j)) for j in every)]
        together = EncodedTable(
            np.concatenate([each.levels for each in parts]),
            np.concatenate([each.values for each in parts]),
        )
        log_density, error = self.density_.log_density(together, _TOLERANCE_OF_OTHERS)
        _warn_of_errors(error, 2 * _TOLERANCE_OF_OTHERS)
        joint, *others = log_density.reshape(len(parts), len(whole))
        return joint[:, None] - np.column_stack(others) + self.columns_.log_new(whole)

    @on_one_fit
    def sample(self, n_samples: int = 1, random_state: Any = None, *, given: Any = None) -> Any:
        """Return new rows drawn from the density, as a table like the training table.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState or None, default=None
            Source of the draws. None is the estimator's own `random_state`; where that is None too,
            every call draws anew.
        given : mapping from column to value, default=None
            Columns on which draws are conditional: for each, one value, or one value for each row.

        Returns
        -------
        DataFrame or ndarray
            Rows with the types, categories, rounding and bounds of the training table; no cell is
            missing.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If `n_samples` is not a positive integer, `random_state` is not a seed, or `given` does not
            fit the columns.

        Warns
        -----
        UserWarning
            If given levels are in no training row.
        """
        return self._draw(*self._check_draw(n_samples, random_state), given)

    def _draw(
        self,
        n: int,
        rng: np.random.RandomState,
        given: Any,
        *,
        only_levels: bool = False,
        for_means: bool = False,
    ) -> Any:
        """Return n rows as a table; with `only_levels` numbers that are not given are missing.

        With `for_means` some rows may be equal, which is good enough for averages over rows.
        """
        rows = self.columns_.encode_given({} if given is None else given, n)
        self.density_.warn_of_support(rows)
        if only_levels:
            return self.columns_.decode(replace(rows, levels=self.density_.draw_levels(rows, rng)))
        return self.columns_.decode(self.density_.draw_missing(rows, rng, for_means=for_means))

    @on_one_fit
    def impute(self, X: Any, random_state: Any = None) -> Any:
        """Return a table in which missing cells are drawn given the other cells of their row.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Rows; the table is not changed.
        random_state : int, RandomState or None, default=None
            Source of the draws, as in `sample`. Draws differ: impute several times for multiple
            imputation.

        Returns
        -------
        DataFrame or ndarray
            The rows with all cells, with the types of the training table.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit the columns of the training table, or `random_state` is not a seed.
        """
        _, rng = self._check_draw(1, random_state)
        rows = self.columns_.encode(X)
        return self.columns_.fill(X, self.density_.draw_missing(rows, rng))

    @property
    def _table_(self) -> TableColumns:
        """The `TableColumns` that reads queries; estimators composed of densities have it too."""
        return self.columns_

    def _only(self, rows: EncodedTable, kept: np.ndarray) -> EncodedTable:
        """Return rows in which all columns except those with indices `kept` are missing."""
        levels, values = np.full_like(rows.levels, -1), np.full_like(rows.values, np.nan)
        for index in kept:
            column = self.columns_.columns[index]
            if column.discrete is not None:
                levels[:, column.discrete] = rows.levels[:, column.discrete]
            if column.continuous is not None:
                values[:, column.continuous] = rows.values[:, column.continuous]
        return EncodedTable(levels, values, rows.index)


def _warn_of_errors(error: np.ndarray, largest: float = _LARGE_ERROR) -> None:
    """Warn if errors (n,) of log-densities exceed `largest` nats."""
    is_large = error > largest
    if is_large.any():
        warn_user(
            f"the estimated error of {is_large.sum()} of {len(error)} log-densities is large, up to "
            f"{error.max():.2g} nats: the density varies within the cells of integers and rounded "
            "columns, or more than 64 combinations of missing levels have large probabilities. Pass "
            "return_error=True for all errors."
        )
