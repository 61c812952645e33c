"""TransformedDensity: a density fitted to transformed rows, reported in the units of X."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler

from .._coordinates.columns import ColumnSpace
from .._diffusion.posterior import PosteriorMixin
from .._utils.column_precision import copies_of
from .._utils.estimator import DensityEstimatorMixin, DensityOfColumnsMixin
from .._utils.progress import reports_fit
from .._utils.rows import (
    WholeTable,
    check_sample_weight,
    merge_duplicates,
    parts_of_table,
    whole_table,
)
from .._utils.table import check_table
from .._utils.validation import LARGEST, check_size
from .._utils.warnings import warn_user
from ._changes import ChangeOfVariables, change_of_variables, with_names
from ._conditionals import draw_given_through, score_columns
from ._members import (
    check_fills_space,
    check_member,
    estimator_or_default,
    parameter_estimator,
    takes_weights,
)
from ._unconditional import draw, draw_through

# Numbers of draws that estimate the mass of the density inside the range of a transformer that is not
# onto R^d, and their seed. The standard error is sqrt(m * (1 - m) / 4096) for mass m: 0.004 nats where
# a twentieth is outside. If the first 512 draws are all inside, the rest are not drawn: an outside mass
# of 0.4 % is missed one time in eight, and draws of a diffusion cost more than its fit. The seed is
# fixed, so that a search compares candidates on the same draws.
FIRST_DRAWS, MORE_DRAWS, MASS_SEED = 512, 3584, 0
# Fits of these classes do not depend on how often a row occurs.
UNWEIGHTED = (MinMaxScaler, MaxAbsScaler, FunctionTransformer, FrozenEstimator)
# `fit` warns if transformer and inverse change a column by more than this fraction of its standard
# deviation: at a bandwidth of a hundredth of that deviation, log-densities are then off by about 1e-4
# nats.
MAX_INVERSE_ERROR = 1e-6
# Rows are repeated by their weights up to this total number; a larger sum raises an error.
MAX_ROWS = 10_000_000


class TransformedDensity(PosteriorMixin, DensityOfColumnsMixin, BaseEstimator):
    """Density fitted to transformed rows that reports log-densities and samples in the units of X.

    ``score_samples(x) = estimator_.score_samples(T(x)) + log|det dT/dx|``: the log-density of X. A
    Pipeline returns that of T(X) instead, which depends on the units of T(X). With this estimator a
    search over transformers compares log-densities of the same X, and samples are mapped back to X by
    the inverse. Use it for any density after a scaler, a power transform or PCA.

    Set `estimator` and `transformer`; pass `log_abs_det` for a transformer that is not in the list
    below:

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
        The density, with `fit` and `score_samples`; drawing rows also needs `sample`. None is
        `SmoothedScoreDiffusion()`.
    transformer : transformer, "passthrough" or None, default=None
        Applied to the rows first. Known are `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`,
        `RobustScaler`, `PowerTransformer`, `QuantileTransformer`, `PCA`, `FunctionTransformer` of
        the common functions with their inverses, and `Pipeline` or `ColumnTransformer` of known
        ones. Any other needs a method ``log_abs_det_jacobian(X)``, the parameter `log_abs_det`, or
        registration with `change_of_variables`. None and "passthrough" leave the rows unchanged.
    log_abs_det : callable, default=None
        Maps rows (n, d), in units of X, to log|det dT/dx| of the whole transformer, shape (n,). It
        takes precedence over a registered function.

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
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    sample : Draws from pipelines and searches, too, as arrays or data frames.
    change_of_variables : The registry of transformers.
    sklearn.compose.TransformedTargetRegressor : The same idea for regression.

    Notes
    -----
    *PCA* with fewer components than columns is completed by independent Gaussian noise along the
    dropped directions, with their mean variance, as in probabilistic PCA; with all components it is a
    rotation.

    *QuantileTransformer* is continued linearly at its mean slope beyond the training range, where
    scikit-learn's is constant, and equal quantiles are merged, where scikit-learn's jumps. So it has an
    inverse, and a query above the largest training value has a finite log-density. The slope between
    two close quantiles is large: use ten rows or more for each quantile.

    *PowerTransformer* has the range R only for exponents between 0 and 2 (Yeo-Johnson) or at 0
    (Box-Cox). Elsewhere, and for any transformer that is not known to be onto R^d, the density of the
    transformed rows is restricted to the range: samples outside are drawn again, and `log_mass_` is
    estimated from 4096 seeded draws (512 if all of these are inside), to 0.004 nats where a twentieth
    of the mass is outside.

    Rows outside the domain of the transformer (not positive under Box-Cox or a logarithm) have
    log-density -inf, and so have rows whose transformed values exceed 1e150. `given` and `columns` need
    a transformer that does not mix columns and is onto R^d; `sample` needs its inverse.

    A row of weight k counts as k equal rows. Where the transformer or the density takes no
    weights, rows are repeated, which needs whole numbers.

    Besides fitting both, `fit` draws 512 or 4096 rows if the range is not all of R^d.

    References
    ----------
    M. E. Tipping and C. M. Bishop, Probabilistic principal component analysis, J. R. Statist. Soc.
    B 61 (1999), 611-622.
    """

    _has_precision_of_table = True

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
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Raises
        ------
        TypeError
            If the Jacobian of the transformer is not known, or `estimator` is not a density.
        ValueError
            If X or the weights are out of range, if the transformer has no inverse, if rows are outside
            its domain, if weights are fractions and transformer or density takes none, or if the
            density is with respect to volume on a manifold.

        Warns
        -----
        UserWarning
            If transformer and inverse change values by more than a millionth of their column's standard
            deviation, such as a power transform far from zero.
        """
        rows = check_table(X, self)
        weight = None
        if sample_weight is not None:
            weight = check_sample_weight(sample_weight, len(rows))
            # Rows of weight zero must not affect the transformer: its maxima, its number of rows.
            rows, weight = rows[weight > 0], weight[weight > 0]
        density = self._check_density()
        transformer = _fit(self._check_transformer(), *_spanning(rows, weight), _frame_columns(X))
        change = _change(transformer, self.log_abs_det)
        Z, log_factor = change.forward(rows)
        outside = np.flatnonzero(log_factor == -np.inf)
        if len(outside):
            raise ValueError(
                f"{len(outside)} rows of X (first: {rows[outside[0]]}) are outside the domain of "
                f"{transformer!r}; expected rows that it maps to finite numbers, with a derivative "
                "above zero."
            )
        check_size("X, transformed,", Z)
        _warn_of_lost_digits(change, rows, Z)
        with parts_of_table(_image_of_table(change, rows, weight)):
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

    def _log_density_of_rows(self, X: np.ndarray, passed: Any) -> np.ndarray:
        Z, log_factor = self._fitted_change().forward(X)
        # Squares of such values overflow, and many densities raise an error, so the density is set to
        # zero.
        beyond = np.abs(Z).max(axis=1) > LARGEST
        log_density = np.asarray(self.estimator_.score_samples(np.where(beyond[:, None], 0.0, Z)))
        return np.where(beyond, -np.inf, log_density) + log_factor - self.log_mass_

    def _breaks_relations(self, X: Any) -> np.ndarray:
        if not isinstance(self.estimator_, DensityEstimatorMixin):
            return super()._breaks_relations(X)
        return self.estimator_._breaks_relations(
            self._fitted_change().forward(self._check_query(X))[0]
        )

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        return draw_through(self._fitted_change(), self.estimator_, n, rng)[0]

    def _draw_given(
        self, columns: np.ndarray, values: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        change, d = self._fitted_change(), self.n_features_in_
        return draw_given_through(change, self.estimator_, columns, values, rng, d)[0]

    def _log_density_of_columns(
        self, X: np.ndarray, scored: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
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


def _spanning(rows: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows (n, d) and weights to fit a transformer to: those of the fold, or of its table.

    If a fold spans fewer directions than its table, PCA would drop directions or whiten rounding errors,
    and log-densities of held-out rows would be wrong by up to 1e31 nats; then the table is used.
    """
    table = whole_table()
    if table is None or table.has_classes:
        return rows, weight
    counts = np.full(len(rows), 1 / len(rows))
    n_directions = ColumnSpace.of(rows, counts).n_directions
    if min(n_directions, len(rows) - 1) == ColumnSpace.of(table.points, table.weights).n_directions:
        return rows, weight
    return table.points, copies_of(table.weights)


def _image_of_table(
    change: ChangeOfVariables, rows: np.ndarray, weight: np.ndarray | None
) -> WholeTable:
    """Return the transformed whole table, of which the weighted rows (n, d) are all rows or a fold."""
    table = whole_table()
    if table is None:
        table = WholeTable(*merge_duplicates(rows, check_sample_weight(weight, len(rows))))
    # The rounding errors of rows, which the transformer may magnify, are mapped as well.
    signs = np.where(np.random.RandomState(0).uniform(size=table.points.shape) < 0.5, -1.0, 1.0)
    errors = np.maximum(table.rounding, np.finfo(np.float64).eps * np.abs(table.points))
    moved, moved_factor = change.forward(table.points + signs * errors)
    image, log_factor = change.forward(table.points)
    # Rows that the errors move out of the domain are left out.
    rounding = np.abs(moved - image)[np.isfinite(moved_factor + log_factor)].max(
        axis=0, initial=0.0
    )
    # Floats are up to twice as far apart as eps times their size.
    rounding[rounding <= 2 * np.finfo(np.float64).eps * np.abs(image).max(axis=0)] = 0.0
    inside = log_factor > -np.inf
    weights = table.weights[inside] / table.weights[inside].sum()
    return WholeTable(image[inside], weights, table.has_classes, rounding)


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
    """Warn if the inverse maps images Z to other rows than X, beyond rounding errors."""
    try:
        back, again = (change.inverse(Z, np.random.RandomState(seed))[0] for seed in (0, 1))
    except TypeError:
        return  # no inverse: log-densities need none, and `sample` raises
    # Columns with noise along dropped directions differ between two seeds; they are not checked, and
    # neither are constants.
    deviation = X.std(axis=0)
    skipped = np.any(back != again, axis=0) | (np.ptp(X, axis=0) == 0)
    error = np.where(skipped, 0.0, np.abs(back - X).max(axis=0))
    # Far from zero the columns themselves have rounding errors, which are allowed here.
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
