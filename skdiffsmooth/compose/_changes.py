"""Fitted transformers as changes of variables, with inverse and Jacobian determinant.

If Z = T(X) has density q, then X has density p(x) = q(T(x)) |det dT/dx|. A transformer that drops
directions (PCA) is completed by an independent Gaussian along them, whose density multiplies the
determinant. `ChangeOfVariables.forward` returns the logarithm of this whole *factor*,
p(x) = q(T(x)) factor(x).
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
from ._quantiles import QuantileSpline


class ChangeOfVariables:
    """Fitted transformer whose log|det dT/dx| is known.

    Register a transformer of another library once, and `TransformedDensity` can use it:

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

    Parameters
    ----------
    transformer : object
        Fitted; with `transform`, and with `inverse_transform` if rows are to be drawn.
    log_abs_det : callable or None, default=None
        Maps rows (n, d), in the transformer's input units, to log|det dT/dx|, shape (n,). Without
        it only `inverse` can be called.
    onto : bool, default=False
        Whether every point of R^d is the image of some row. If not, the mass of a density outside
        the range is cut off, and `inverse` checks by a round trip which rows are inside.
    log_slopes : callable or None, default=None
        For a transformer that changes each column on its own: maps rows (n, d) to log|dT_j/dx_j|, shape
        (n, d), in place of `log_abs_det`. Densities of some columns, and conditional ones, need it.
    """

    def __init__(
        self,
        transformer: Any,
        log_abs_det: Callable[[np.ndarray], Any] | None = None,
        *,
        onto: bool = False,
        log_slopes: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.transformer = transformer
        self.log_abs_det = log_abs_det
        self.log_slopes = log_slopes
        if log_slopes is not None:
            self.log_abs_det = lambda X: log_slopes(X).sum(axis=1)
        self.onto = onto

    def by_column(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return transformed rows Z, and log slopes of columns in nats, both (n, n_features).

        Column ``outputs(n_features)[j]`` of Z is the image of column j of X alone; Z is finite
        everywhere, and the slope is -inf for a value outside the domain, whose image has no
        meaning. Raises ValueError if the transformer mixes columns, or its slopes are not known.
        """
        if self.log_slopes is None:
            raise ValueError(
                "given and columns need a transformer that changes each column on its own, with a "
                f"known slope; {self.transformer!r} is none. Use a scaler, PowerTransformer or "
                "QuantileTransformer, or fit the density to the columns of X."
            )
        with np.errstate(all="ignore"):
            Z, log_slopes = self.image(X), self.log_slopes(X)
        inside = np.isfinite(Z) & np.isfinite(log_slopes)
        return np.where(inside, Z, 0.0), np.where(inside, log_slopes, -np.inf)

    def outputs(self, n_features: int) -> np.ndarray:
        """Return the index of each column's image, (n_features,), if none are mixed."""
        return np.arange(n_features)

    def image(self, X: np.ndarray) -> np.ndarray:
        """Return the transformed rows; NaN or infinite values mark rows outside the domain."""
        rows = with_names(X, getattr(self.transformer, "feature_names_in_", None))
        return np.asarray(self.transformer.transform(rows), dtype=np.float64)

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return transformed rows, and the log (n_samples,) of the absolute Jacobian determinant.

        Rows are finite everywhere; the log-determinant, in nats, is -inf for a row outside the
        domain, whose image has no meaning. Raises TypeError if the Jacobian is not known;
        ValueError if columns are added or dropped, or the log-determinant is NaN or +inf.
        """
        if self.log_abs_det is None:
            raise TypeError(_unknown(self.transformer))
        with np.errstate(all="ignore"):
            Z = self.image(X)
            if Z.shape != X.shape:
                raise ValueError(
                    f"{self.transformer!r} turns rows of {X.shape[1]} columns into rows of "
                    f"{Z.shape[1]}; expected the same number, without which X has no density. Use a "
                    "transformer that keeps the number of columns."
                )
            inside = np.isfinite(Z).all(axis=1)
            log_factor = np.full(len(X), -np.inf)
            if inside.any():
                log_factor[inside] = self._log_abs_det(X[inside])
        return np.where(inside[:, None], Z, 0.0), log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows whose images are Z (n, n_features_out), and which of them exist (n,).

        Rows are finite everywhere; those outside the transformer's range have no meaning.
        `generator`, a RandomState, draws the noise along directions that were dropped. Raises
        TypeError if the transformer has no inverse.
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
                # An inverse may return a finite row for Z outside the range: the square of a
                # negative root, say. A round trip detects that; rounding changes it by far less
                # than `slack`.
                again, expected = self.image(X[inside]), Z[inside]
                slack = 1e-6 * np.abs(expected) + 1e-9 * np.abs(expected).max(axis=0)
                inside[inside] = (np.abs(again - expected) <= slack).all(axis=1)
        return np.where(inside[:, None], X, 0.0), inside

    def _log_abs_det(self, X: np.ndarray) -> np.ndarray:
        assert self.log_abs_det is not None
        try:
            value = np.asarray(self.log_abs_det(X), dtype=np.float64)
        except TypeError as error:
            raise TypeError(
                f"log_abs_det={self.log_abs_det!r} failed ({error}); expected a function of rows that "
                "returns one number for each."
            ) from error
        if value.shape != (len(X),):
            raise ValueError(
                f"log_abs_det of {self.transformer!r} has shape {value.shape}; expected ({len(X)},), "
                "one number for each row. Sum over the features."
            )
        bad = np.isnan(value) | (value == np.inf)
        if bad.any():
            raise ValueError(
                f"log|det| of {self.transformer!r} is {value[bad][0]} at {X[bad][0]}; expected a "
                "number below infinity wherever the transformed row is finite. Check the derivative."
            )
        return value


def change_of_variables(transformer: Any) -> ChangeOfVariables:
    """Return a fitted transformer as a change of variables.

    A method ``log_abs_det_jacobian(X)`` of the transformer has precedence over the function
    registered for its class, ``change_of_variables.register(cls)(function)``: `function` takes the
    fitted transformer and returns a `ChangeOfVariables`, see there for an example.

    Parameters
    ----------
    transformer : object
        Fitted.

    Returns
    -------
    ChangeOfVariables
        One without `log_abs_det`, for `inverse` only, if the derivative is not known.

    Raises
    ------
    TypeError, ValueError
        If the transformer is known and has no inverse, such as a MinMaxScaler with ``clip=True``.
    """
    # Before the registry, in which a subclass would be found under the class that it extends.
    if hasattr(transformer, "log_abs_det_jacobian"):
        return ChangeOfVariables(transformer, transformer.log_abs_det_jacobian)
    return _registered(transformer)


@singledispatch
def _registered(transformer: Any) -> ChangeOfVariables:
    return ChangeOfVariables(transformer)


change_of_variables.register = _registered.register  # type: ignore[attr-defined]


def with_names(X: np.ndarray, names: Any) -> Any:
    """Return a copy of the rows (n, d), as a pandas DataFrame if column names are given."""
    # A copy, since some transformers work in place (copy=False).
    if names is not None:
        try:
            import pandas as pd
        except ImportError:
            # The names are those of another library's frame; an array has the same columns.
            return X.copy()
        return pd.DataFrame(X.copy(), columns=list(names))
    return X.copy()


# ------------------------------------------------------------------------- one for each transformer


def _scaling(transformer: Any, log_slopes: Any) -> ChangeOfVariables:
    """Return the change of variables of an affine transformer with constant slopes (d,), or one."""
    return ChangeOfVariables(
        transformer, onto=True, log_slopes=lambda X: np.broadcast_to(log_slopes, X.shape)
    )


@_registered.register(StandardScaler)
@_registered.register(RobustScaler)
def _(transformer: Any) -> ChangeOfVariables:
    # scale_ is None where scaling is switched off, and one for a constant column.
    scale = getattr(transformer, "scale_", None)
    return _scaling(transformer, 0.0 if scale is None else -np.log(scale))


@_registered.register(MaxAbsScaler)
def _(transformer: Any) -> ChangeOfVariables:
    return _scaling(_not_clipped(transformer), -np.log(transformer.scale_))


@_registered.register(MinMaxScaler)
def _(transformer: Any) -> ChangeOfVariables:
    # Unlike in the other scalers, scale_ multiplies here.
    return _scaling(_not_clipped(transformer), np.log(transformer.scale_))


def _not_clipped(transformer: Any) -> Any:
    if getattr(transformer, "clip", False):
        raise ValueError(
            f"{transformer!r} maps all rows outside the training range to its bounds, which has no "
            "inverse and no density; expected clip=False. Fit it again with clip=False."
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
            f"{transformer!r} has no inverse_func; expected the inverse of func, so that samples can be "
            "returned in the units of X. Pass inverse_func=<the inverse of func>."
        )
    known = _FUNCTIONS.get(function)
    if known is None or known[0] is not inverse or transformer.kw_args or transformer.inv_kw_args:
        return ChangeOfVariables(transformer)
    slope, onto = known[1:]
    return ChangeOfVariables(transformer, onto=onto, log_slopes=slope)


@_registered.register(FrozenEstimator)
def _(transformer: Any) -> ChangeOfVariables:
    return change_of_variables(transformer.estimator)


class _Power(ChangeOfVariables):
    """The Yeo-Johnson or Box-Cox transform of a PowerTransformer, with its derivative T'."""

    def __init__(self, transformer: Any) -> None:
        lambdas = transformer.lambdas_
        self.positive = transformer.method == "box-cox"
        self.scale, self.mean = 1.0, 0.0
        if transformer.standardize:
            # scikit-learn keeps the last step under a private name only.
            self.scale, self.mean = transformer._scaler.scale_, transformer._scaler.mean_
        onto = lambdas == 0 if self.positive else (lambdas >= 0) & (lambdas <= 2)
        super().__init__(transformer, onto=bool(np.all(onto)), log_slopes=self._log_slopes)

    def _log_slopes(self, X: np.ndarray) -> np.ndarray:
        logarithm = np.log(X) if self.positive else np.sign(X) * np.log1p(np.abs(X))
        return (self.transformer.lambdas_ - 1) * logarithm - np.log(self.scale)

    def image(self, X: np.ndarray) -> np.ndarray:
        if not self.positive:
            return super().image(X)
        # Box-Cox raises for values at or below zero; such a query has density zero.
        inside = X > 0
        return np.where(inside, super().image(np.where(inside, X, 1.0)), np.nan)

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        # The range is an interval: 1 + lambda z > 0 (Yeo-Johnson: 1 - (2 - lambda) z > 0 below
        # zero). A power of a negative base need not be NaN (1 / lambda an integer), so the range is
        # checked first, and Z = 0, which is inside, stands in for the other rows.
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
    """The piecewise linear map of a QuantileTransformer, continued beyond the outer quantiles.

    scikit-learn's own map is constant outside the training range and jumps at a value that fills several
    quantiles; both lose mass, up to a third of it. Here equal quantiles become one landmark, at the mean
    of their ranks (scikit-learn's value there); the uniform rank is linear between landmarks, where the
    map is scikit-learn's; and beyond the outermost landmarks it continues at its mean slope.
    """

    # scikit-learn clips ranks to this distance from 0 and 1 before the normal quantile function.
    edge = 1e-7

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, onto=True)
        self.normal = transformer.output_distribution == "normal"
        self.landmarks = [
            _landmarks(quantiles, transformer.references_)
            for quantiles in np.asarray(transformer.quantiles_).T
        ]

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_slopes = self.by_column(X)
        return Z, log_slopes.sum(axis=1)

    def by_column(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_slopes = np.empty_like(X), np.empty_like(X)
        for j, (x, ranks) in enumerate(self.landmarks):
            Z[:, j], log_slopes[:, j] = self._forward(X[:, j], x, ranks)
        return Z, log_slopes

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
        """Return the points (x, z) at which the two linear continuations start, and their slope."""
        first, last = (self.edge, 1 - self.edge) if self.normal else (0.0, 1.0)
        low, high = (float(v) for v in np.interp([first, last], ranks, x))
        z_low, z_high = (float(ndtri(first)), float(ndtri(last))) if self.normal else (0.0, 1.0)
        if len(x) == 1:
            # scikit-learn maps a constant column to the lowest rank.
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
        # At a landmark the slope to its right is taken. Clipping puts the right end, which rounding
        # may have moved beyond the last landmark, into the last interval.
        interval = np.clip(np.searchsorted(x, inner, side="right") - 1, 0, max(len(x) - 2, 0))
        if len(inner):
            rise = np.diff(ranks) / np.diff(x)
            z[between] = np.interp(inner, x, ranks)
            log_slope[between] = np.log(rise[interval])
        if self.normal:
            z[between] = ndtri(z[between])
            log_slope[between] += z[between] ** 2 / 2 + gaussian_log_normalizer(1)
        return z, log_slope

    def _inverse(self, z: np.ndarray, x: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        (low, z_low), (high, z_high), slope = self._ends(x, ranks)
        rank = ndtr(z) if self.normal else z
        value = np.where(z <= z_low, low + (z - z_low) / slope, np.interp(rank, ranks, x))
        return np.where(z >= z_high, high + (z - z_high) / slope, value)


@_registered.register(QuantileSpline)
def _(transformer: Any) -> ChangeOfVariables:
    return ChangeOfVariables(transformer, transformer.log_slopes, onto=True)


def _landmarks(quantiles: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct quantiles of a column, and their ranks from 0 to 1."""
    # Interpolated percentiles of equal values may differ by rounding, even decrease.
    tiny = 8 * np.finfo(np.float64).eps * np.abs(quantiles).max()
    starts = np.concatenate([[True], np.diff(quantiles) > tiny])
    group = np.cumsum(starts) - 1
    ranks = np.bincount(group, weights=references) / np.bincount(group)
    ranks[-1] = 1.0
    ranks[0] = 0.0
    return quantiles[starts], ranks


_registered.register(QuantileTransformer)(_Quantile)


class _PCA(ChangeOfVariables):
    """Principal components, with independent noise N(0, s^2) along the dropped directions.

    s^2 is the mean variance of those directions, its maximum-likelihood value in probabilistic PCA
    (Tipping and Bishop, J. R. Statist. Soc. B 61, 1999, eq. 8).
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, onto=True)
        k, d = transformer.components_.shape
        self.n_dropped = d - k
        # scikit-learn's noise_variance_ is a mean over those of the dropped directions, at most
        # n_samples - k, that can have variance; here the mean is over all of them.
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
                    f"{self.transformer!r} drops {self.n_dropped} directions in which the rows have no "
                    "variance, so they have no density in all columns; expected linearly independent "
                    "columns. Use fewer components, as many as columns, or drop dependent columns."
                )
            residual = self._dropped(X - self.transformer.mean_) / self.width
            log_factor -= np.sum(residual**2, axis=1) / 2
            log_factor -= gaussian_log_normalizer(self.n_dropped, self.width**2)
        if self.transformer.whiten:
            if np.any(np.sqrt(variances) <= negligible):
                raise ValueError(
                    f"{self.transformer!r} whitens a direction in which the rows have no variance; "
                    "expected none. Use fewer components, or whiten=False."
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
    """A sequence of changes; the factors between the densities are multiplied."""

    def __init__(self, transformer: Any, changes: list[ChangeOfVariables]) -> None:
        super().__init__(transformer, onto=all(change.onto for change in changes))
        self.changes = changes

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_factor = np.zeros(len(X))
        for change in self.changes:
            X, more = change.forward(X)
            log_factor += more
        return X, log_factor

    def by_column(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_slopes, outputs = np.zeros_like(X), np.arange(X.shape[1])
        for change in self.changes:
            X, more = change.by_column(X)
            log_slopes += more[:, outputs]
            outputs = change.outputs(X.shape[1])[outputs]
        return X, log_slopes

    def outputs(self, n_features: int) -> np.ndarray:
        outputs = np.arange(n_features)
        for change in self.changes:
            outputs = change.outputs(n_features)[outputs]
        return outputs

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        inside = np.ones(len(Z), dtype=bool)
        for change in reversed(self.changes):
            Z, is_inside = change.inverse(Z, generator)
            inside &= is_inside
        return Z, inside


def chain(pipeline: Any, steps: list[tuple[str, Any]]) -> ChangeOfVariables:
    """Return the steps of a fitted pipeline as one change of variables."""
    kept = [step for _, step in steps if step is not None and not isinstance(step, str)]
    return _Chain(pipeline, [change_of_variables(step) for step in kept])


@_registered.register(Pipeline)
def _(transformer: Any) -> ChangeOfVariables:
    return chain(transformer, transformer.steps)


class _Blocks(ChangeOfVariables):
    """A ColumnTransformer: its Jacobian is block-diagonal, with one block for each transformer."""

    def __init__(self, transformer: Any) -> None:
        self.blocks: list[tuple[list[int], slice, ChangeOfVariables]] = []
        for name, step, _ in transformer.transformers_:
            # Only a private attribute has the indices of columns given by name, mask or slice.
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
                f"ColumnTransformer uses a column twice, columns {used}, so its output has no density; "
                "expected every column in exactly one transformer. Remove the repeated columns."
            )
        super().__init__(transformer, onto=all(change.onto for _, _, change in self.blocks))
        self.n_out = max(part.stop for _, part, _ in self.blocks)

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_factor = np.empty((len(X), self.n_out)), np.zeros(len(X))
        for columns, part, change in self.blocks:
            Z[:, part], more = change.forward(X[:, columns])
            log_factor += more
        return Z, log_factor

    def by_column(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_slopes = np.empty_like(X), np.empty_like(X)
        for columns, part, change in self.blocks:
            Z[:, part], log_slopes[:, columns] = change.by_column(X[:, columns])
        return Z, log_slopes

    def outputs(self, n_features: int) -> np.ndarray:
        outputs = np.empty(n_features, dtype=np.intp)
        for columns, part, change in self.blocks:
            outputs[columns] = part.start + change.outputs(len(columns))
        return outputs

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        X, inside = np.empty((len(Z), self.n_in)), np.ones(len(Z), dtype=bool)
        for columns, part, change in self.blocks:
            X[:, columns], is_inside = change.inverse(Z[:, part], generator)
            inside &= is_inside
        return X, inside


_registered.register(ColumnTransformer)(_Blocks)


def _unknown(transformer: Any) -> str:
    """Return the message for a transformer whose Jacobian is not known."""
    return (
        f"the Jacobian of {transformer!r} is not known; expected StandardScaler, MinMaxScaler, "
        "MaxAbsScaler, RobustScaler, PowerTransformer, QuantileTransformer, PCA, a "
        "FunctionTransformer of (log, exp), (log1p, expm1), (arcsinh, sinh), (logit, expit) or an "
        "inverse of these, or a Pipeline or ColumnTransformer of them. For another, give it a method "
        "log_abs_det_jacobian(X) that returns log|det dT/dx| of each row, pass log_abs_det=<that "
        "function>, or register its class with compose.change_of_variables.register."
    )
