"""TransformedDensity: a density fitted to transformed rows, reported in the units of X."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler
from sklearn.utils.validation import check_is_fitted

from .._diffusion.posterior import PosteriorMixin
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.given import resolve_given_values, resolve_scored_columns
from .._utils.progress import reports_fit
from .._utils.rows import check_sample_weight
from .._utils.table import check_table
from .._utils.validation import LARGEST
from .._utils.warnings import warn_user
from ._changes import ChangeOfVariables, change_of_variables, with_names
from ._conditionals import draw_given_through, score_columns
from ._draw import draw, draw_through
from ._members import (
    check_fills_space,
    check_member,
    estimator_or_default,
    parameter_estimator,
    takes_weights,
)

__all__ = ["TransformedDensity"]

# Draws that estimate how much mass of the density is inside the range of a transformer that does
# not reach all of R^d. The standard error is sqrt(m * (1 - m) / 4096) for mass m: 0.004 nats where
# a twentieth is outside. If the first 512 draws are all inside, the rest are not drawn: an outside
# mass of 0.4 % is missed one time in eight, and draws of a diffusion cost more than its fit. The
# seed is fixed, so that a search compares candidates on the same draws.
FIRST_DRAWS, MORE_DRAWS, MASS_SEED = 512, 3584, 0
# What these learn does not depend on how often a row occurs.
UNWEIGHTED = (MinMaxScaler, MaxAbsScaler, FunctionTransformer, FrozenEstimator)
# `fit` warns if a column comes back from the transformer with an error above this fraction of its
# standard deviation: at a bandwidth of a hundredth of that deviation, log-densities are then off by
# about 1e-4 nats.
MAX_INVERSE_ERROR = 1e-6
# Rows are repeated by their weights up to this total; a larger sum is taken for a mistake.
MAX_ROWS = 10_000_000


class TransformedDensity(PosteriorMixin, DensityEstimatorMixin, BaseEstimator):
    """Density fitted to transformed rows that reports log-densities and samples in the units of X.

    ``score_samples(x) = estimator_.score_samples(T(x)) + log|det dT/dx|``: the log-density of X. A
    Pipeline reports that of T(X) instead, which changes with the units of T. So a search over
    transformers compares equal quantities here, and samples come back through the inverse. Choose
    it wherever a scaler, a power transform or PCA stands before a density.

    Set `estimator` and `transformer`; pass `log_abs_det` for a transformer that is not known:

    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.preprocessing import PowerTransformer, StandardScaler
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.compose import TransformedDensity
    >>> incomes = np.random.RandomState(0).lognormal(10, 0.8, size=(300, 2))
    >>> search = GridSearchCV(
    ...     TransformedDensity(KDESampler(), None),
    ...     {"transformer": [None, StandardScaler(), PowerTransformer()]},
    ... ).fit(incomes)
    >>> search.cv_results_["mean_test_score"].round(2)
    array([-22.65, -22.65, -22.35])
    >>> search.best_estimator_.sample(2, random_state=0).round()
    array([[29229., 24247.],
           [60375., 14221.]])

    Parameters
    ----------
    estimator : estimator, default=None
        The density, with `fit`, `score_samples` and, to draw, `sample`. None is
        `SmoothedScoreDiffusion()`.
    transformer : transformer, "passthrough" or None, default=None
        Applied to the rows first. Known are `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`,
        `RobustScaler`, `PowerTransformer`, `QuantileTransformer`, `PCA`, `FunctionTransformer` of
        the common functions with their inverses, and `Pipeline` or `ColumnTransformer` of known
        ones. Any other needs a method ``log_abs_det_jacobian(X)``, the parameter `log_abs_det`, or
        registration with `change_of_variables`. None and "passthrough" leave the rows unchanged.
    log_abs_det : callable, default=None
        Maps rows (n, d), in units of X, to log|det dT/dx| of the whole transformer, shape (n,). It
        replaces what is known about the transformer.

    Attributes
    ----------
    estimator_ : estimator
        The density, fitted to the transformed rows.
    transformer_ : transformer
        The transformer, fitted to the rows.
    log_abs_det_ : callable or None
        The parameter `log_abs_det` at `fit`.
    log_mass_ : float
        Log of the mass of `estimator_` inside the transformer's range, in nats: zero where the
        range is all of R^d. It is subtracted from log-densities.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, where X had them.

    See Also
    --------
    sample : Draws from pipelines and searches too, as data frames on request.
    change_of_variables : The registry of transformers.
    sklearn.compose.TransformedTargetRegressor : The same idea for regression.

    Notes
    -----
    *PCA* with fewer components than columns is completed by independent Gaussian noise along the
    dropped directions, of their mean variance, as in probabilistic PCA; with all components it is
    a rotation.

    *QuantileTransformer* is continued linearly at its mean slope beyond the training range, where
    scikit-learn's is constant, and joins tied quantiles, where scikit-learn's jumps; so it has an
    inverse, and a query beyond the largest training row has a finite log-density. Its slope
    between two quantiles is large where they are close: use ten rows or more for each quantile.

    *PowerTransformer* reaches all of R only for exponents between 0 and 2 (Yeo-Johnson) or at 0
    (Box-Cox). Elsewhere, and for any transformer that is not known to reach all of R^d, the
    density of the transformed rows is restricted to the range: samples outside are drawn again,
    and `log_mass_` is estimated from 4096 seeded draws (512 if all of these are inside), to 0.004
    nats where a twentieth of the mass is outside.

    Rows outside the domain of the transformer (not positive under Box-Cox or a logarithm) have
    log-density -inf.

    A row of weight k counts as k equal rows. Where the transformer or the density takes no
    weights, rows are repeated, which needs whole numbers.

    Cost: that of the density and of the transformer, and in `fit` the 512 or 4096 draws where the
    range is not all of R^d.

    References
    ----------
    M. E. Tipping and C. M. Bishop, Probabilistic principal component analysis, J. R. Statist. Soc.
    B 61 (1999), 611-622.
    """

    def __init__(self, estimator: Any = None, transformer: Any = None, *, log_abs_det: Any = None):
        self.estimator = estimator
        self.transformer = transformer
        self.log_abs_det = log_abs_det

    @reports_fit
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> TransformedDensity:
        """Fit the transformer to the rows, and the density to the transformed rows.

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
        self : TransformedDensity
            The fitted estimator.

        Raises
        ------
        TypeError
            If the Jacobian of the transformer is not known, or `estimator` is not a density.
        ValueError
            If X or the weights are out of range, if the transformer has no inverse, if rows are
            outside its domain, if weights are fractions and it takes none, or if the density is
            one with respect to the volume of a manifold.

        Warns
        -----
        UserWarning
            If rows come back from the transformer and its inverse changed by more than a millionth
            of their column's standard deviation, as from a power transform far from zero.
        """
        rows = check_table(X, self)
        weight = None
        if sample_weight is not None:
            weight = check_sample_weight(sample_weight, len(rows))
            # Rows of weight zero must not affect the transformer: its maxima, its number of rows.
            rows, weight = rows[weight > 0], weight[weight > 0]
        density = self._check_density()
        transformer = _fit(self._check_transformer(), rows, weight, _frame_columns(X))
        change = _change(transformer, self.log_abs_det)
        Z, log_factor = change.forward(rows)
        outside = np.flatnonzero(log_factor == -np.inf)
        if len(outside):
            raise ValueError(
                f"{len(outside)} rows of X (first: {rows[outside[0]]}) are outside the domain of "
                f"{transformer!r}; expected rows that it maps to finite numbers, with a derivative "
                "above zero."
            )
        _warn_of_lost_digits(change, rows, Z)
        density = _fit(density, Z, weight, None)
        check_fills_space("estimator", density)
        log_mass = 0.0 if change.onto else _log_mass(change, density)
        self._set_fitted(
            X,
            transformer_=transformer,
            estimator_=density,
            log_abs_det_=self.log_abs_det,
            log_mass_=log_mass,
        )
        return self

    @on_one_fit
    def score_samples(self, X: Any, *, given: Any = None, columns: Any = None) -> np.ndarray:
        """Return the log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        given : collection of int or str, default=None
            Columns, by label or index, on whose values in X the density of the others is conditional.
        columns : collection of int or str, default=None
            Columns whose density is returned. The rest is integrated out, and its values in X, which may
            be missing (NaN), have no effect. None is all columns that are not in `given`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log-densities in nats, per unit of X; -inf outside the domain of the transformer, and
            where transformed values exceed 1e150.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X is not finite or has another number of features; with `given` or `columns` also if the
            transformer mixes columns, or some mass is outside its range.
        """
        check_is_fitted(self)
        d = self.n_features_in_
        scored, given_columns = resolve_scored_columns(columns, given, self._column_labels(), d)
        ignored = np.setdiff1d(np.arange(d), np.union1d(scored, given_columns))
        X = self._check_query(X, ignored)
        if len(scored) < d:
            return self._log_density_of_columns(X, scored, given_columns)
        Z, log_factor = self._fitted_change().forward(X)
        # Squares of such values overflow, so the density is zero there; many densities refuse them.
        beyond = np.abs(Z).max(axis=1) > LARGEST
        log_density = np.asarray(self.estimator_.score_samples(np.where(beyond[:, None], 0.0, Z)))
        return np.where(beyond, -np.inf, log_density) + log_factor - self.log_mass_

    @on_one_fit
    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        given: Any = None,
        likelihood: Any = None,
    ) -> np.ndarray:
        """Draw new rows, in units of X.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None draws anew at every call, without using numpy's global state.
        given : mapping from column to value, default=None
            Condition the draws on these columns: labels or indices; each value one number in units of X,
            or an array of shape (n_samples,).
        likelihood : LinearObservation or callable, default=None
            Draw from the posterior, whose density is in proportion to that of the model times this
            likelihood (`log_evidence` says what it may be). Not together with `given`.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Draws from the density that `score_samples` reports. For a data frame see
            `skdiffsmooth.sample`.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If `n_samples` is not a positive integer, `random_state` is not a seed, or the density
            cannot sample or the transformer has no inverse; with `given` also if that does not fit the
            columns, or if the transformer mixes columns.
        """
        n, generator = self._check_draw(n_samples, random_state)
        if likelihood is not None:
            return self._draw_posterior(n, generator, likelihood, given)
        if given is not None:
            d = self.n_features_in_
            given_columns, values = resolve_given_values(given, n, self._column_labels(), d)
            if len(given_columns):
                change = self._fitted_change()
                return draw_given_through(
                    change, self.estimator_, given_columns, values, generator, d
                )[0]
        return draw_through(self._fitted_change(), self.estimator_, n, generator)[0]

    def _log_density_of_columns(
        self, X: np.ndarray, scored: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        """Return the log-density (n,) of some columns of rows X given others."""
        if self.log_mass_:
            raise ValueError(
                f"given and columns need a transformer that reaches all of R^d; of the density of the "
                f"transformed rows a part {-np.expm1(self.log_mass_):.2g} is outside the range of "
                f"{self.transformer_!r}. Use another transformer."
            )
        change = self._fitted_change()
        Z, log_slopes = change.by_column(X)
        outputs = change.outputs(X.shape[1])
        outside = np.isinf(log_slopes[:, np.union1d(scored, given)]).any(axis=1)
        log_density = np.full(len(X), -np.inf)
        if not outside.all():
            log_density[~outside] = score_columns(
                "estimator", self.estimator_, Z[~outside], outputs[scored], outputs[given]
            )
            log_density[~outside] += log_slopes[~outside][:, scored].sum(axis=1)
        return log_density

    def _check_density(self) -> Any:
        if self.estimator is not None:
            check_member("estimator", self.estimator, compared=False)
        density = estimator_or_default(self.estimator)
        held = parameter_estimator(density)
        if isinstance(held, Pipeline) and len(held.steps) > 1:
            raise TypeError(
                "estimator is or contains a Pipeline, whose log-densities leave out the Jacobian of its "
                "steps; expected its last step as estimator and the others in "
                "transformer=make_pipeline(...)."
            )
        return density

    def _check_transformer(self) -> Any:
        if self.transformer is None or (
            isinstance(self.transformer, str) and self.transformer == "passthrough"
        ):
            return FunctionTransformer()
        if isinstance(self.transformer, type) or not hasattr(self.transformer, "transform"):
            raise TypeError(
                f"transformer={self.transformer!r} is a class or has no method transform; expected an "
                "instance such as StandardScaler(), 'passthrough' or None."
            )
        return clone(self.transformer)

    def _fitted_change(self) -> ChangeOfVariables:
        return _change(self.transformer_, self.log_abs_det_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")


def _change(transformer: Any, log_abs_det: Any) -> ChangeOfVariables:
    """Return the `ChangeOfVariables` of a transformer; `log_abs_det` replaces its Jacobian."""
    if log_abs_det is None:
        return change_of_variables(transformer)
    if not callable(log_abs_det):
        raise TypeError(
            f"log_abs_det={log_abs_det!r} is not callable; expected a function of rows that returns "
            "log|det dT/dx| of each, or None."
        )
    return ChangeOfVariables(transformer, log_abs_det)


def _frame_columns(X: Any) -> list[str] | None:
    """Return the column names of a pandas DataFrame, or None."""
    if not hasattr(X, "iloc") or not all(isinstance(name, str) for name in X.columns):
        return None
    return list(X.columns)


def _fit(estimator: Any, X: np.ndarray, weight: np.ndarray | None, names: Any) -> Any:
    """Fit an estimator to rows with weights (n,), or to repeated rows if it takes no weights."""
    if weight is None or isinstance(estimator, UNWEIGHTED):
        return estimator.fit(with_names(X, names), None)
    if takes_weights(estimator):
        return estimator.fit(with_names(X, names), None, sample_weight=weight)
    counts = np.round(weight)
    if np.any(counts != weight) or counts.sum() > MAX_ROWS:
        raise ValueError(
            f"sample_weight holds fractions or sums to more than {MAX_ROWS} (sum {weight.sum():g}), "
            f"and {type(estimator).__name__}.fit takes no weights; expected whole numbers, by which "
            "rows are repeated, or estimators that take weights, such as StandardScaler and "
            "KDESampler."
        )
    return estimator.fit(with_names(np.repeat(X, counts.astype(np.intp), axis=0), names), None)


def _warn_of_lost_digits(change: ChangeOfVariables, X: np.ndarray, Z: np.ndarray) -> None:
    """Warn if the inverse does not return the rows X from their images Z, up to rounding."""
    try:
        back, again = (change.inverse(Z, np.random.RandomState(seed))[0] for seed in (0, 1))
    except TypeError:
        return  # no inverse: log-densities need none, and `sample` raises
    # Columns with noise along dropped directions differ between two seeds; they are not checked.
    drawn = np.any(back != again, axis=0)
    error = np.where(drawn, 0.0, np.abs(back - X).max(axis=0))
    deviation = X.std(axis=0)
    # Far from zero the columns themselves are rounded; that much is no loss.
    allowed = MAX_INVERSE_ERROR * deviation + 4 * np.finfo(np.float64).eps * np.abs(X).max(axis=0)
    column = int(np.argmax(error - allowed))
    if error[column] > allowed[column]:
        warn_user(
            f"{change.transformer!r} loses digits: column {column} of X comes back from its inverse "
            f"with an error of {error[column]:.2g}, at a standard deviation of {deviation[column]:.2g}. "
            "Log-densities and samples have errors of that size. Center or scale the columns first, as "
            "in make_pipeline(StandardScaler(), ...)."
        )


def _log_mass(change: ChangeOfVariables, density: Any) -> float:
    """Return the log of the density's mass inside the range of `change`, by seeded draws."""
    generator = np.random.RandomState(MASS_SEED)
    _, inside = change.inverse(draw(density, FIRST_DRAWS, generator), generator)
    if not inside.all():
        _, more = change.inverse(draw(density, MORE_DRAWS, generator), generator)
        inside = np.concatenate([inside, more])
    if not inside.any():
        raise ValueError(
            f"none of {len(inside)} draws of the density is inside the range of "
            f"{change.transformer!r}; expected a narrower density, or another transformer."
        )
    return float(np.log(np.mean(inside)))
