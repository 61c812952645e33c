"""Base classes of the density estimators: checks of input, replacing fitted state, saving."""

from __future__ import annotations

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.base import DensityMixin, clone
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from .given import resolve_given_values, resolve_scored_columns
from .periods import column_labels, reduced, resolve_periods, warn_of_units
from .progress import CallbackSupportMixin, number_of_rows, reporting
from .rows import MergedRows, check_sample_weight, merge_rows, weighted_rows
from .table import check_table, column_names
from .threads import threads_for
from .validation import LARGEST_VALUE, check_draw, check_real_array, check_size
from .version import FORMAT, __version__
from .warnings import warn_user

_VERSION_KEY = "_skdiffsmooth_version"

Method = TypeVar("Method", bound=Callable[..., Any])
Self = TypeVar("Self", bound="DensityEstimatorMixin")

# Fewest rows over which the density of some columns is integrated, for each row of a query.
_ROWS_A_CONDITIONAL = 64
# Attributes that hold the number and the names of columns.
_OF_COLUMNS = "n_features_in_", "feature_names_in_", "_column_labels_"


def on_one_fit(method: Method) -> Method:
    """Return a query method that uses the state of the estimator at the time of the call.

    `fit` replaces the whole state by one assignment, so a query in another thread uses the old
    model or the new one, never parts of both. Small queries run on one thread.
    """
    first = list(inspect.signature(method).parameters.values())[1]

    @wraps(method)
    def query(self: Any, *args: Any, **kwargs: Any) -> Any:
        estimator = self._snapshot()
        rows = args[0] if args else kwargs.get(first.name, first.default)
        is_conditional = kwargs.get("given") is not None or kwargs.get("columns") is not None
        n_rows = _number_of(rows, estimator)
        n_sums = n_rows * (_ROWS_A_CONDITIONAL if is_conditional else 1) * estimator._sums_per_row()
        with reporting(estimator, method.__name__, n_rows), threads_for(n_sums):
            return method(estimator, *args, **kwargs)

    return cast(Method, query)


def _number_of(rows: Any, estimator: Any) -> float:
    """Return the number of rows of a query; `rows` is a table, a number, or None for all points."""
    if rows is None:
        return len(getattr(estimator, "points_", ()))
    if isinstance(rows, numbers.Real):
        try:
            return float(rows)
        except OverflowError:  # an integer beyond the largest float, which the method refuses
            return float(sys.maxsize)
    return number_of_rows(rows)


class SavedWithVersion:
    """A mixin that saves the version of the library with a model, and checks it in files."""

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, _VERSION_KEY: (FORMAT, __version__)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved_format, version = state.pop(_VERSION_KEY, (0, "before 0.1.0"))
        if saved_format != FORMAT:
            raise ValueError(
                f"this {type(self).__name__} was saved by skdiffsmooth {version} (model format "
                f"{saved_format}), and this is skdiffsmooth {__version__} (model format {FORMAT}). Load "
                f"it with skdiffsmooth {version}, or fit it again and save it with this version."
            )
        super().__setstate__(state)  # type: ignore[misc]


class DensityEstimatorMixin(CallbackSupportMixin, SavedWithVersion, DensityMixin):
    """The methods of a density estimator that are the same for all densities.

    Classes that use it define ``fit``, ``score_samples`` and ``sample``.
    """

    # How rows of tables are read (`tables.TableColumns`); None for rows of numbers.
    _table_: Any = None

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log-density of the rows of X.

        It is the mean and not the sum, so that folds of different sizes can be compared.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Held-out rows.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows, one of weight zero as absent.

        Returns
        -------
        float
            Weighted mean of ``score_samples(X)``, in nats per row.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X or the weights are not valid.

        Warns
        -----
        UserWarning
            If rows break relations between columns (constants, copies, totals) that all training rows
            satisfy: their log-densities then dominate the mean.
        """
        check_is_fitted(self)
        rows, weight = weighted_rows(X, sample_weight)
        log_density = self.score_samples(rows)
        if np.any(broken := self._breaks_relations(rows)):
            warn_user(
                f"{broken.sum()} of {len(broken)} rows break relations between columns that all "
                "training rows satisfy (constants, copies, totals), along which the density is as wide "
                f"as rounding: their log-densities are as low as {log_density[broken].min():.3g}, and "
                "those of other rows some 20 nats higher for each relation. In cross-validation, whose "
                "folds may lack rare values, compare models by DensityStacking(members, combine='best') "
                "or DensityOutlierDetector(model).fit(X).held_out_log_density_, whose folds have the "
                "relations of all rows; or drop the column."
            )
        return float(np.average(log_density, weights=weight))

    def _breaks_relations(self, X: Any) -> np.ndarray:
        """Return which rows (n,) of a table break relations that all training rows satisfy."""
        return np.zeros(_num_samples(X), dtype=bool)

    def _set_fitted(self, X: Any, **attributes: Any) -> None:
        """Replace fitted attributes and number and names of columns by one assignment."""
        parameters = {name: value for name, value in vars(self).items() if not name.endswith("_")}
        columns = object.__new__(type(self))
        columns.__dict__ = dict(parameters)
        validate_data(columns, X, reset=True, skip_check_array=True)
        labels = column_labels(X)
        if not hasattr(columns, "feature_names_in_") and labels is not None:
            # scikit-learn stores names only if all are strings.
            columns._column_labels_ = labels
        self.__dict__ = {**vars(columns), **attributes}

    def _sums_per_row(self) -> float:
        """Return the multiply-adds of one evaluation per row; inf if other models are evaluated."""
        return math.inf

    def _snapshot(self: Self) -> Self:
        """Return a copy that a later `fit` does not change; until then `set_params` changes both."""
        snapshot = object.__new__(type(self))
        snapshot.__dict__ = self.__dict__
        return snapshot

    def _check_query(self, X: Any, ignored: Sequence[int] | np.ndarray = ()) -> np.ndarray:
        """Return checked queries (n, d); columns `ignored` may be missing and are zero."""
        check_is_fitted(self)
        return check_table(X, self, is_query=True, ignored=ignored)

    def _column_labels(self) -> np.ndarray | None:
        """Return the labels of the columns that are used, or None if the training rows had none."""
        if self._table_ is not None:
            return self._table_.labels
        return getattr(self, "feature_names_in_", getattr(self, "_column_labels_", None))

    def _n_columns(self) -> int:
        """Return the number of columns that are used."""
        return self.n_features_in_ if self._table_ is None else len(self._table_.names)

    def _check_draw(self, n_samples: Any, random_state: Any) -> tuple[int, np.random.RandomState]:
        """Return the number of draws, and a generator, by default of the estimator's `random_state`."""
        check_is_fitted(self)
        own = getattr(self, "random_state", None)
        return check_draw(n_samples, own if random_state is None else random_state)


class DensityOfColumnsMixin(DensityEstimatorMixin):
    """The mixin for densities that have marginals and conditionals of their columns.

    Classes that use it define the first four methods, or override the methods that call them.
    """

    def _log_density_of_rows(self, X: np.ndarray, passed: Any) -> np.ndarray:
        """Return the log-density (n,) of rows (n, d); `passed` is the table that they are from."""
        raise NotImplementedError

    def _log_density_of_columns(
        self, X: np.ndarray, scored: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        """Return the log-density (n,) of some columns of rows X (n, d) given others, both by index."""
        raise NotImplementedError

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return n draws (n, d)."""
        raise NotImplementedError

    def _draw_given(
        self, columns: np.ndarray, values: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        """Return one draw (n, d) for each row of values (n, k) of columns, by index."""
        raise NotImplementedError

    @on_one_fit
    def score_samples(self, X: Any, *, given: Any = None, columns: Any = None) -> np.ndarray:
        """Return the log-density of each row under the distribution that `sample` draws from.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        given : collection of int or str, default=None
            Columns, by label or index: the density is conditional on their values in X.
        columns : collection of int or str, default=None
            Columns whose density is returned. The rest is integrated out, and its values in X, which may
            be missing (NaN), have no effect. None is all columns that are not in `given`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log-densities in nats, per unit of X; -inf where the density is zero. The notes of the class
            say more.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError
            If `given` or `columns` is not a collection of columns.
        ValueError
            If X is not finite or has another number of features, if `given` or `columns` does not fit
            the columns of X, if given values have density zero, or in cases that the notes of the class
            list.

        Warns
        -----
        UserWarning
            If given values are far from all training rows.
        """
        checked, scored, given_columns = self._check_columns(X, given, columns)
        if len(scored) == checked.shape[1]:
            return self._log_density_of_rows(checked, X)
        return self._log_density_of_columns(checked, scored, given_columns)

    @on_one_fit
    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        given: Any = None,
        likelihood: Any = None,
    ) -> np.ndarray:
        """Draw new rows.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState or None, default=None
            Source of the draws. None is the estimator's own `random_state`, if it has one; where that is
            None too, every call returns other draws. numpy's global state is not changed.
        given : mapping from column to value, default=None
            Condition the draws on these columns: labels or indices; each value one number in units of X,
            or an array of shape (n_samples,).
        likelihood : LinearObservation or callable, default=None
            Draw from the posterior, whose density is proportional to that of the model times this
            likelihood (see `log_evidence` for what it may be). Not together with `given`.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In units of X, independent of one another; given columns have the given values.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If `n_samples` is not a positive integer, `random_state` is not a seed, `given` does not fit
            the columns or has values of density zero, or in cases that the notes of the class list.

        Warns
        -----
        UserWarning
            With `given` or `likelihood`, if that is far from all training rows, or if few proposals
            have nearly all of the weight.
        """
        n, rng = self._check_draw(n_samples, random_state)
        if likelihood is not None:
            return self._draw_posterior(n, rng, likelihood, given)
        if self._table_ is not None:
            return self._draw_table(n, rng, given)
        conditions = self._check_given(given, n)
        return self._draw(n, rng) if conditions is None else self._draw_given(*conditions, rng)

    def _draw_table(self, n: int, rng: np.random.RandomState, given: Any) -> Any:
        """Return n draws of densities of tables, as a table."""
        raise NotImplementedError

    def _draw_posterior(
        self, n: int, rng: np.random.RandomState, likelihood: Any, given: Any
    ) -> np.ndarray:
        """Return n draws (n, d) of the posterior; see `PosteriorMixin`."""
        raise NotImplementedError

    def _check_columns(
        self, X: Any, given: Any, columns: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return queries (n, d) and indices of scored and of given columns; other columns are zero."""
        check_is_fitted(self)
        d = self._n_columns()
        scored, given_columns = resolve_scored_columns(columns, given, self._column_labels(), d)
        ignored = np.setdiff1d(np.arange(d), np.union1d(scored, given_columns))
        return self._check_query(X, ignored), scored, given_columns

    def _check_given(self, given: Any, n: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the indices of given columns, and their values (n, n_given); None if there are none."""
        if given is None:
            return None
        columns, values = resolve_given_values(given, n, self._column_labels(), self.n_features_in_)
        return (columns, values) if len(columns) else None


class DistanceDensityMixin(DensityOfColumnsMixin):
    """The mixin for densities that compute distances between rows, whose squares must be finite."""

    points_: Any  # (n_points, n_features)
    weights_: Any  # (n_points,)
    weight_sum_: float
    coordinates_: Any  # a linear metric, with the relations of the columns
    # Period (n_features,) of each column, 0 where it has none; None where no column has one.
    periods_: Any
    # Whether nearly equal rows are recognised in units of the columns, or in the common unit of X.
    _measures_by_column = True
    # Whether a column that is constant in a fold or class gets its rounding width in the whole table.
    _has_precision_of_table = True

    def _check_training(self, X: Any, sample_weight: Any) -> MergedRows:
        """Return distinct rows and their weights, without changing the estimator."""
        checked = check_table(X, self)
        check_size("X", checked, largest=LARGEST_VALUE)
        declared = getattr(self, "periods", None)
        periods = resolve_periods(declared, column_labels(X), checked.shape[1])
        if periods is not None:
            warn_of_units(checked, periods, X)
            checked = reduced(checked, periods, X)
        merged = merge_rows(
            checked,
            check_sample_weight(sample_weight, len(checked)),
            by_column=self._measures_by_column,
        )
        merged = replace(merged, periods=periods)
        has_rule = isinstance(getattr(self, "bandwidth", None), str)
        merged.warn(column_names(X), sets_scales=has_rule)
        return merged

    def _fit_with_more_rows(self, X: Any, sample_weight: Any, **fixed: Any) -> None:
        """Fit to the stored points and the rows of X, with some parameters `fixed`."""
        # A fit in another thread replaces the state of `self`, not of this copy.
        old = self._snapshot()
        rows = old._check_query(X)
        weight = check_sample_weight(sample_weight, len(rows))
        if not math.isfinite(old.weight_sum_):
            raise ValueError(
                "partial_fit cannot add rows, since the sum of sample_weight in fit overflowed; fit all "
                "rows again, with weights divided by their maximum."
            )
        estimator: Any = clone(cast(Any, old)).set_params(**fixed)
        fitted = estimator.fit(
            np.vstack([old.points_, rows]),
            sample_weight=np.concatenate([old.weight_sum_ * old.weights_, weight]),
        )
        # Parameters and labels of columns are those of this estimator.
        self.__dict__ = {
            **{name: value for name, value in vars(fitted).items() if name.endswith("_")},
            **{name: value for name, value in vars(old).items() if not name.endswith("_")},
            **{name: vars(old)[name] for name in _OF_COLUMNS if name in vars(old)},
        }

    def _check_others(self, own_weights: Any) -> np.ndarray | None:
        """Return the checked weights (n_points,) that are removed with a left-out point; None is all."""
        if len(self.points_) < 2:
            raise ValueError(
                "leave_one_out_log_density needs at least two distinct rows, and the model was fitted "
                "on one; fit it on more."
            )
        if own_weights is None:
            return None
        own = check_real_array("own_weights", own_weights, allow_bool=False)
        if own.shape != self.weights_.shape or not np.all((own > 0) & (own <= self.weights_)):
            raise ValueError(
                f"own_weights of shape {own.shape} do not fit; expected {len(self.weights_)} numbers, "
                "each above zero and at most the point's weight in weights_. Pass weights_ / n_copies "
                "to leave out one copy of each row."
            )
        return own

    def _check_query(self, X: Any, ignored: Sequence[int] | np.ndarray = ()) -> np.ndarray:
        checked = super()._check_query(X, ignored)
        self._check_range("X", checked)
        periods = getattr(self, "periods_", None)
        return checked if periods is None else reduced(checked, periods, X)

    def _check_given(self, given: Any, n: int) -> tuple[np.ndarray, np.ndarray] | None:
        conditions = super()._check_given(given, n)
        if conditions is not None:
            rows = np.repeat(self.points_[:1], n, axis=0)
            rows[:, conditions[0]] = conditions[1]
            self._check_range("given", rows)
        return conditions

    def _breaks_relations(self, X: Any) -> np.ndarray:
        return self.coordinates_.columns.breaks_relations(self._check_query(X))

    def _check_range(self, name: str, rows: np.ndarray) -> None:
        """Raise ValueError if rows (n, d) are so far apart that squares of distances would overflow."""
        check_size(name, rows)
