"""Fitted transformers as changes of variables: rows there and back, and the factor between densities.

If Z = T(X) has density q, then X has density q(T(x)) |det dT/dx|. A transformer that drops directions
(PCA) is completed by an independent Gaussian along them, whose density joins the determinant: what
a change of variables hands on is the logarithm of the whole *factor*, p(x) = q(T(x)) factor(x).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from .._utils.gaussian import gaussian_log_normalizer

__all__ = ["ChangeOfVariables", "chain", "change_of_variables", "with_names"]


class ChangeOfVariables:
    """A fitted transformer whose log|det dT/dx| is known.

    Parameters
    ----------
    transformer : object
        Fitted; with `transform`, and with `inverse_transform` if rows are to be drawn.
    log_abs_det : callable or None, default=None
        Maps rows (n, d), in the transformer's input units, to log|det dT/dx|, shape (n,). Without
        it the change can only be undone.
    onto : bool, default=False
        Whether every point of R^d is the image of some row. If not, what a density of the
        transformed rows has outside the range is lost, and a round trip tells which rows are
        inside.

    Examples
    --------
    A transformer of another library is registered once:

    >>> import numpy as np
    >>> from skdiffsmooth.compose import ChangeOfVariables, change_of_variables
    >>> class Cube:
    ...     def fit(self, X, y=None):
    ...         return self
    ...
    ...     def transform(self, X):
    ...         return X**3
    ...
    ...     def inverse_transform(self, Z):
    ...         return np.cbrt(Z)
    >>> @change_of_variables.register(Cube)
    ... def _(transformer):
    ...     return ChangeOfVariables(transformer, lambda X: np.log(3 * X**2).sum(axis=1), onto=True)
    >>> change_of_variables(Cube()).forward(np.array([[2.0]]))
    (array([[8.]]), array([2.48490665]))
    """

    def __init__(
        self,
        transformer: Any,
        log_abs_det: Callable[[np.ndarray], Any] | None = None,
        *,
        onto: bool = False,
    ) -> None:
        self.transformer = transformer
        self.log_abs_det = log_abs_det
        self.onto = onto

    def image(self, X: np.ndarray) -> np.ndarray:
        """Return the transformed rows; a row outside the domain may come out as NaN or infinite.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
        """
        rows = with_names(X, getattr(self.transformer, "feature_names_in_", None))
        return np.asarray(self.transformer.transform(rows), dtype=np.float64)

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the transformed rows and the log of the factor between the two densities.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features_out)
            Finite everywhere.
        log_factor : ndarray of shape (n_samples,)
            In nats; -inf for a row outside the transformer's domain, whose Z says nothing.

        Raises
        ------
        TypeError
            If the Jacobian is not known.
        ValueError
            If the transformer adds or drops columns, or the log-determinant is no number.
        """
        if self.log_abs_det is None:
            raise TypeError(_unknown(self.transformer))
        with np.errstate(all="ignore"):
            Z = self.image(X)
            if Z.shape != X.shape:
                raise ValueError(
                    f"{self.transformer!r} makes rows of shape {Z.shape[1:]} of rows of shape "
                    f"{X.shape[1:]}; expected as many columns as before, or there is no density."
                )
            inside = np.isfinite(Z).all(axis=1)
            log_factor = np.full(len(X), -np.inf)
            if inside.any():
                log_factor[inside] = self._log_abs_det(X[inside])
        return np.where(inside[:, None], Z, 0.0), log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows whose images are Z, and which of them exist.

        Parameters
        ----------
        Z : ndarray of shape (n_samples, n_features_out)
            Transformed rows.
        generator : RandomState
            Draws what the transformer dropped.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Finite everywhere.
        inside : ndarray of bool of shape (n_samples,)
            False for a row outside the transformer's range, whose X says nothing.

        Raises
        ------
        TypeError
            If the transformer has no inverse.
        """
        if not hasattr(self.transformer, "inverse_transform"):
            raise TypeError(
                f"{self.transformer!r} has no method inverse_transform, so rows cannot be brought "
                "back to the units of X. Add one, or use another transformer."
            )
        with np.errstate(all="ignore"):
            X = np.asarray(self.transformer.inverse_transform(Z.copy()), dtype=np.float64)
            inside = np.all(np.isfinite(X), axis=1)
            if not self.onto and inside.any():
                # An inverse outside its domain need not say so: squares undo negative roots too.
                # Rounding moves a round trip by far less than this, folding by far more.
                again, at = self.image(X[inside]), Z[inside]
                slack = 1e-6 * np.abs(at) + 1e-9 * np.abs(at).max(axis=0)
                inside[inside] = (np.abs(again - at) <= slack).all(axis=1)
        return np.where(inside[:, None], X, 0.0), inside

    def _log_abs_det(self, X: np.ndarray) -> np.ndarray:
        assert self.log_abs_det is not None
        value = np.asarray(self.log_abs_det(X), dtype=np.float64)
        if value.shape != (len(X),):
            raise ValueError(
                f"log|det| of {self.transformer!r} has shape {value.shape}; expected ({len(X)},), one "
                "number a row. Sum over the features."
            )
        bad = np.isnan(value) | (value == np.inf)
        if bad.any():
            raise ValueError(
                f"log|det| of {self.transformer!r} is {value[bad][0]} at {X[bad][0]}; expected a "
                "finite number wherever the transformed row is finite."
            )
        return value


def change_of_variables(transformer: Any) -> ChangeOfVariables:
    """Return a fitted transformer as a change of variables.

    A method ``log_abs_det_jacobian(X)`` of the transformer comes first, then what is registered for
    its class: ``change_of_variables.register(cls)(function)``, where the function takes the fitted
    transformer and returns a `ChangeOfVariables`.

    Parameters
    ----------
    transformer : object
        Fitted.

    Returns
    -------
    ChangeOfVariables
        One that can only be undone, if nothing is known about the derivative.

    Raises
    ------
    TypeError, ValueError
        If the transformer is known and has no inverse.
    """
    # Before the registry: a subclass that says more than its parent is to be heard.
    if hasattr(transformer, "log_abs_det_jacobian"):
        return ChangeOfVariables(transformer, transformer.log_abs_det_jacobian)
    return _registered(transformer)


@singledispatch
def _registered(transformer: Any) -> ChangeOfVariables:
    return ChangeOfVariables(transformer)


change_of_variables.register = _registered.register  # type: ignore[attr-defined]


def with_names(X: np.ndarray, names: Any) -> Any:
    """Return a copy of the rows, as the data frame that a transformer was fitted on if it was.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows.
    names : sequence of str or None
        Column names.

    Returns
    -------
    ndarray or DataFrame
        A copy, for some transformers work in place (copy=False).
    """
    if names is not None:
        try:
            import pandas as pd
        except ImportError:
            # Names that came from elsewhere than pandas: the columns are the same without.
            return X.copy()
        return pd.DataFrame(X.copy(), columns=list(names))
    return X.copy()


# ------------------------------------------------------------------------------------- one by one


def _scaling(transformer: Any, log_abs_det: float) -> ChangeOfVariables:
    """Return a map x -> a x + b of R^d onto itself."""
    return ChangeOfVariables(transformer, lambda X: np.full(len(X), float(log_abs_det)), onto=True)


@_registered.register(StandardScaler)
@_registered.register(RobustScaler)
def _(transformer: Any) -> ChangeOfVariables:
    # scale_ is None where the user switched scaling off, and one for a constant column.
    scale = getattr(transformer, "scale_", None)
    return _scaling(transformer, 0.0 if scale is None else -np.log(scale).sum())


@_registered.register(MaxAbsScaler)
def _(transformer: Any) -> ChangeOfVariables:
    return _scaling(_not_clipped(transformer), -np.log(transformer.scale_).sum())


@_registered.register(MinMaxScaler)
def _(transformer: Any) -> ChangeOfVariables:
    # Here scale_ multiplies, unlike in the other scalers.
    return _scaling(_not_clipped(transformer), np.log(transformer.scale_).sum())


def _not_clipped(transformer: Any) -> Any:
    if getattr(transformer, "clip", False):
        raise ValueError(
            f"{transformer!r} maps all rows beyond the training range to its border, which has no "
            "inverse and no density; expected clip=False."
        )
    return transformer


# func: (inverse_func, log of the derivative, whether all of R is reached)
_FUNCTIONS: dict[Any, tuple[Any, Callable[[np.ndarray], np.ndarray], bool]] = {
    np.log: (np.exp, lambda x: -np.log(x), True),
    np.log1p: (np.expm1, lambda x: -np.log1p(x), True),
    np.arcsinh: (np.sinh, lambda x: -np.log(np.hypot(1.0, x)), True),
    logit: (expit, lambda x: -np.log(x) - np.log1p(-x), True),
    np.exp: (np.log, lambda x: x, False),
    np.expm1: (np.log1p, lambda x: x, False),
    # log cosh, and log sigmoid', in forms that do not overflow.
    np.sinh: (np.arcsinh, lambda x: np.logaddexp(x, -x) - np.log(2.0), True),
    expit: (logit, lambda x: -np.abs(x) - 2 * np.log1p(np.exp(-np.abs(x))), False),
}


@_registered.register(FunctionTransformer)
def _(transformer: Any) -> ChangeOfVariables:
    function, inverse = transformer.func, transformer.inverse_func
    if function is None and inverse is None:
        return _scaling(transformer, 0.0)
    if function is not None and inverse is None:
        # scikit-learn would take the identity for the inverse.
        raise TypeError(
            f"{transformer!r} has no inverse_func; expected the inverse of func, so that rows can be "
            "brought back to the units of X."
        )
    known = _FUNCTIONS.get(function)
    if known is None or known[0] is not inverse or transformer.kw_args or transformer.inv_kw_args:
        return ChangeOfVariables(transformer)
    slope, onto = known[1:]
    return ChangeOfVariables(transformer, lambda X: slope(X).sum(axis=1), onto=onto)


@_registered.register(FrozenEstimator)
def _(transformer: Any) -> ChangeOfVariables:
    return change_of_variables(transformer.estimator)


class _Power(ChangeOfVariables):
    """Yeo-Johnson: T' = (1 + |x|)^(sign(x) (lambda - 1)). Box-Cox: T' = x^(lambda - 1), for x > 0."""

    def __init__(self, transformer: Any) -> None:
        lambdas = transformer.lambdas_
        self.positive = transformer.method == "box-cox"
        self.scale, self.mean = 1.0, 0.0
        if transformer.standardize:
            # scikit-learn keeps the last step under a private name only.
            self.scale, self.mean = transformer._scaler.scale_, transformer._scaler.mean_
        onto = lambdas == 0 if self.positive else (lambdas >= 0) & (lambdas <= 2)
        super().__init__(transformer, self._log_slope, onto=bool(np.all(onto)))

    def _log_slope(self, X: np.ndarray) -> np.ndarray:
        logarithm = np.log(X) if self.positive else np.sign(X) * np.log1p(np.abs(X))
        return np.sum((self.transformer.lambdas_ - 1) * logarithm - np.log(self.scale), axis=1)

    def image(self, X: np.ndarray) -> np.ndarray:
        if not self.positive:
            return super().image(X)
        # Box-Cox raises for one bad row; a query at zero or below has density zero.
        inside = np.all(X > 0, axis=1, keepdims=True)
        return np.where(inside, super().image(np.where(inside, X, 1.0)), np.nan)

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        # The range is an interval: 1 + lambda z > 0 (Yeo-Johnson: 1 - (2 - lambda) z > 0 below
        # zero). Powers of negative bases are NaN at best: with 1 / lambda an integer they are
        # numbers. The mean of the training rows stands in, for it is inside.
        raw, lambdas = Z * self.scale + self.mean, self.transformer.lambdas_
        base = 1 + lambdas * raw
        if not self.positive:
            base = np.where(raw >= 0, base, 1 - (2 - lambdas) * raw)
        inside = (base > 0).all(axis=1)
        with np.errstate(all="ignore"):
            X = self.transformer.inverse_transform(np.where(inside[:, None], Z, 0.0))
            X = np.asarray(X, dtype=np.float64)
            inside &= np.isfinite(X).all(axis=1)
            if self.positive:
                inside &= (X > 0).all(axis=1)
        return np.where(inside[:, None], X, 0.0), inside


_registered.register(PowerTransformer)(_Power)


class _Quantile(ChangeOfVariables):
    """The increasing map through the landmarks of a QuantileTransformer, continued beyond them.

    scikit-learn's own map is constant outside the training range and jumps at a value that fills
    several quantiles: mass would be lost there, a third of it at times. So equal quantiles become one
    landmark, at the mean of their ranks (scikit-learn's value there), straight lines of the uniform
    rank connect landmarks, and beyond the outermost the map goes on at its mean slope. Between
    landmarks that are not tied it is scikit-learn's map.
    """

    # scikit-learn's: ranks closer than this to 0 or 1 have no normal score.
    edge = 1e-7

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, onto=True)
        self.normal = transformer.output_distribution == "normal"
        self.landmarks = [
            _landmarks(quantiles, transformer.references_)
            for quantiles in np.asarray(transformer.quantiles_).T
        ]

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_factor = np.empty_like(X), np.zeros(len(X))
        for j, (x, ranks) in enumerate(self.landmarks):
            Z[:, j], log_slope = self._forward(X[:, j], x, ranks)
            log_factor += log_slope
        return Z, log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        X = np.empty_like(Z)
        for j, (x, ranks) in enumerate(self.landmarks):
            X[:, j] = self._inverse(Z[:, j], x, ranks)
        return X, np.ones(len(Z), dtype=bool)

    def _ends(
        self, x: np.ndarray, ranks: np.ndarray
    ) -> tuple[tuple[float, float], tuple[float, float], float]:
        """Return where the straight continuation starts, at both ends of (x, z), and its slope."""
        first, last = (self.edge, 1 - self.edge) if self.normal else (0.0, 1.0)
        low, high = (float(v) for v in np.interp([first, last], ranks, x))
        z_low, z_high = (float(ndtri(first)), float(ndtri(last))) if self.normal else (0.0, 1.0)
        if len(x) == 1:
            # A constant column has nothing but its place, which scikit-learn puts at the bottom.
            return (low, z_low), (low, z_low), 1.0
        return (low, z_low), (high, z_high), (z_high - z_low) / (x[-1] - x[0])

    def _forward(
        self, value: np.ndarray, x: np.ndarray, ranks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        (low, z_low), (high, z_high), slope = self._ends(x, ranks)
        below, above = value <= low, value >= high
        z = np.where(below, z_low + slope * (value - low), z_high + slope * (value - high))
        log_slope = np.full(len(value), np.log(slope))
        between = ~(below | above)
        inner = value[between]
        # At a landmark, where the slope jumps, that to its right counts. The last cell includes its
        # right end, should rounding have put `high` beyond it.
        cell = np.clip(np.searchsorted(x, inner, side="right") - 1, 0, max(len(x) - 2, 0))
        if len(inner):
            rise = np.diff(ranks) / np.diff(x)
            z[between] = np.interp(inner, x, ranks)
            log_slope[between] = np.log(rise[cell])
        if self.normal:
            z[between] = ndtri(z[between])
            log_slope[between] += z[between] ** 2 / 2 + gaussian_log_normalizer(1)
        return z, log_slope

    def _inverse(self, z: np.ndarray, x: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        (low, z_low), (high, z_high), slope = self._ends(x, ranks)
        rank = ndtr(z) if self.normal else z
        value = np.where(z <= z_low, low + (z - z_low) / slope, np.interp(rank, ranks, x))
        return np.where(z >= z_high, high + (z - z_high) / slope, value)


def _landmarks(quantiles: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct quantiles of a column, and their ranks from 0 to 1."""
    # Interpolated percentiles of equal values may differ, and even fall, by a rounding.
    tiny = 8 * np.finfo(np.float64).eps * np.abs(quantiles).max()
    starts = np.concatenate([[True], np.diff(quantiles) > tiny])
    group = np.cumsum(starts) - 1
    ranks = np.bincount(group, weights=references) / np.bincount(group)
    ranks[-1] = 1.0
    ranks[0] = 0.0
    return quantiles[starts], ranks


_registered.register(QuantileTransformer)(_Quantile)


class _PCA(ChangeOfVariables):
    """Principal components, and beside them N(0, s^2 I) along the directions that were dropped.

    s^2 is the mean variance of those directions, its maximum-likelihood value in probabilistic PCA
    (Tipping and Bishop, J. R. Statist. Soc. B 61, 1999, eq. 8).
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, onto=True)
        k, d = transformer.components_.shape
        self.n_dropped = d - k
        # Of the dropped directions at most n_samples - k have variance, and scikit-learn's mean is
        # over those; the others count too.
        n_mean = min(transformer.n_samples_, d) - k
        variance = transformer.noise_variance_ * n_mean / (d - k) if k < d else 0.0
        self.width = float(np.sqrt(variance))

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        variances = self.transformer.explained_variance_
        # A standard deviation within rounding of zero, beside the largest.
        negligible = 1e4 * np.finfo(np.float64).eps * np.sqrt(variances.max(initial=0.0))
        log_factor = np.zeros(len(X))
        if self.n_dropped:
            if self.width <= negligible:
                raise ValueError(
                    f"{self.transformer!r} leaves no variance in the {self.n_dropped} directions that "
                    "it drops, so the rows have no density in all their columns; expected fewer "
                    "components, as many as columns, or columns that are not dependent."
                )
            residual = self._dropped(X - self.transformer.mean_) / self.width
            log_factor -= np.sum(residual**2, axis=1) / 2
            log_factor -= gaussian_log_normalizer(self.n_dropped, self.width**2)
        if self.transformer.whiten:
            if np.any(np.sqrt(variances) <= negligible):
                raise ValueError(
                    f"{self.transformer!r} whitens a direction without variance; expected fewer "
                    "components, or whiten=False."
                )
            log_factor -= np.log(variances).sum() / 2
        return self.image(X), log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        X = np.asarray(self.transformer.inverse_transform(Z), dtype=np.float64)
        if self.n_dropped:
            X = X + self._dropped(self.width * generator.normal(size=X.shape))
        return X, np.ones(len(Z), dtype=bool)

    def _dropped(self, centered: np.ndarray) -> np.ndarray:
        components = self.transformer.components_
        return centered - (centered @ components.T) @ components


_registered.register(PCA)(_PCA)


class _Chain(ChangeOfVariables):
    """One change after another: factors multiply."""

    def __init__(self, transformer: Any, changes: list[ChangeOfVariables]) -> None:
        super().__init__(transformer, onto=all(change.onto for change in changes))
        self.changes = changes

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_factor = np.zeros(len(X))
        for change in self.changes:
            X, more = change.forward(X)
            log_factor += more
        return X, log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        inside = np.ones(len(Z), dtype=bool)
        for change in reversed(self.changes):
            Z, found = change.inverse(Z, generator)
            inside &= found
        return Z, inside


def chain(pipeline: Any, steps: list[tuple[str, Any]]) -> ChangeOfVariables:
    """Return some steps of a fitted pipeline as one change of variables.

    Parameters
    ----------
    pipeline : Pipeline
        For messages.
    steps : list of (str, transformer)
        The steps, in the order in which rows go through them.

    Returns
    -------
    ChangeOfVariables
    """
    kept = [step for _, step in steps if step is not None and not isinstance(step, str)]
    return _Chain(pipeline, [change_of_variables(step) for step in kept])


@_registered.register(Pipeline)
def _(transformer: Any) -> ChangeOfVariables:
    return chain(transformer, transformer.steps)


class _Blocks(ChangeOfVariables):
    """Columns that go different ways: the determinant of a block-diagonal matrix."""

    def __init__(self, transformer: Any) -> None:
        self.blocks: list[tuple[list[int], slice, ChangeOfVariables]] = []
        for name, step, _ in transformer.transformers_:
            # The positions of columns given by name, mask or slice have a private name only.
            columns = list(transformer._transformer_to_input_indices[name])
            if not columns:
                continue
            if isinstance(step, str) and step == "drop":
                raise TypeError(
                    f"ColumnTransformer drops {len(columns)} columns ({name}), which then have no "
                    "density; expected every column in one transformer. Use "
                    "remainder='passthrough'."
                )
            fitted = FunctionTransformer() if isinstance(step, str) else step
            self.blocks.append(
                (columns, transformer.output_indices_[name], change_of_variables(fitted))
            )
        used = sorted(column for columns, _, _ in self.blocks for column in columns)
        self.n_in = transformer.n_features_in_
        if used != list(range(self.n_in)):
            raise TypeError(
                "ColumnTransformer uses a column twice, so its rows fill no space; expected every "
                f"column in one transformer, got columns {used}."
            )
        super().__init__(transformer, onto=all(change.onto for _, _, change in self.blocks))
        self.n_out = max(place.stop for _, place, _ in self.blocks)

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_factor = np.empty((len(X), self.n_out)), np.zeros(len(X))
        for columns, place, change in self.blocks:
            Z[:, place], more = change.forward(X[:, columns])
            log_factor += more
        return Z, log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        X, inside = np.empty((len(Z), self.n_in)), np.ones(len(Z), dtype=bool)
        for columns, place, change in self.blocks:
            X[:, columns], found = change.inverse(Z[:, place], generator)
            inside &= found
        return X, inside


_registered.register(ColumnTransformer)(_Blocks)


def _unknown(transformer: Any) -> str:
    return (
        f"the Jacobian of {transformer!r} is not known; expected StandardScaler, MinMaxScaler, "
        "MaxAbsScaler, RobustScaler, PowerTransformer, QuantileTransformer, PCA, a "
        "FunctionTransformer of (log, exp), (log1p, expm1), (arcsinh, sinh), (logit, expit) or an "
        "inverse of these, or a Pipeline or ColumnTransformer of them. For another, give it a method "
        "log_abs_det_jacobian(X) that returns log|det dT/dx| of each row, pass log_abs_det=<that "
        "function>, or register its class with compose.change_of_variables.register."
    )
