"""Changes of variables for scikit-learn's transformers of columns and for PCA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import boxcox, boxcox1p, expit, logit, ndtr, ndtri
from sklearn.decomposition import PCA
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
from ._changes import ChangeOfVariables, registered
from ._quantiles import QuantileSpline


def _scaling(transformer: Any, log_slopes: Any) -> ChangeOfVariables:
    """Return the change of variables of an affine transformer with log slopes (d,), or one for all."""
    return ChangeOfVariables(
        transformer, onto=True, log_slopes=lambda X: np.broadcast_to(log_slopes, X.shape)
    )


@registered.register(StandardScaler)
@registered.register(RobustScaler)
def _(transformer: Any) -> ChangeOfVariables:
    # scale_ is None where scaling is switched off, and one for a constant column.
    scale = getattr(transformer, "scale_", None)
    return _scaling(transformer, 0.0 if scale is None else -np.log(scale))


@registered.register(MaxAbsScaler)
def _(transformer: Any) -> ChangeOfVariables:
    return _scaling(_not_clipped(transformer), -np.log(transformer.scale_))


@registered.register(MinMaxScaler)
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


@registered.register(FunctionTransformer)
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
        # Not by scikit-learn, which raises where a power overflows, or a value is at or below zero under
        # Box-Cox. The density of such a query is zero.
        lambdas = self.transformer.lambdas_
        if self.positive:
            return (np.where(X > 0, boxcox(X, lambdas), np.nan) - self.mean) / self.scale
        powers = boxcox1p(np.abs(X), np.where(X < 0, 2 - lambdas, lambdas))
        return (np.copysign(powers, X) - self.mean) / self.scale

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        # The range is an interval: 1 + lambda z > 0 (Yeo-Johnson: 1 - (2 - lambda) z > 0 below zero). A
        # power of a negative base need not be NaN (1 / lambda an integer), so the range is checked
        # first, and rows outside it are replaced by Z = 0, which is inside.
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


registered.register(PowerTransformer)(_Power)


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


@registered.register(QuantileSpline)
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


registered.register(QuantileTransformer)(_Quantile)


# The smallest standard deviation, relative to the size of the rows, that is above rounding in a
# covariance matrix, from which scikit-learn computes the PCA of many rows.
_LEAST_STD = 1e-7


class _PCA(ChangeOfVariables):
    """Principal components, with independent noise N(0, s^2) along the dropped directions.

    s^2 is the mean variance of those directions, its maximum-likelihood value in probabilistic PCA
    (Tipping and Bishop, J. R. Statist. Soc. B 61, 1999, eq. 8).
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, onto=True)
        k, d = transformer.components_.shape
        self.n_dropped = d - k
        stds = np.sqrt(transformer.explained_variance_)
        largest, offsets = stds.max(initial=0.0), np.abs(transformer.mean_)
        size = largest + np.abs(transformer.components_) @ offsets
        # scikit-learn's noise_variance_ is a mean over those of the dropped directions, at most
        # n_samples - k, that can have variance; here the mean is over all of them.
        n_mean = min(transformer.n_samples_, d) - k
        self.width = 0.0
        if n_mean > 0:
            variance = transformer.noise_variance_ * n_mean / (d - k)
            of_dropped = largest + np.linalg.norm(self._dropped(np.diag(offsets)))
            self.width = max(float(np.sqrt(variance)), _LEAST_STD * of_dropped)
        self.scales = self.factors = np.ones(k)
        if transformer.whiten:
            # This keeps rounding errors of components without variance small.
            self.scales = np.maximum(stds, _LEAST_STD * np.where(size > 0, size, 1.0))
            # scikit-learn divides by the standard deviation, but at least by eps.
            self.factors = np.maximum(stds, np.finfo(np.float64).eps) / self.scales

    def image(self, X: np.ndarray) -> np.ndarray:
        return super().image(X) * self.factors

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_factor = np.full(len(X), -np.log(self.scales).sum())
        if self.n_dropped:
            if not self.width:
                raise ValueError(
                    f"{self.transformer!r} drops {self.n_dropped} directions in which the rows have no "
                    f"variance, since {self.transformer.n_samples_} rows span no others; expected more "
                    "rows than columns. Use fewer components, or drop columns."
                )
            residual = self._dropped(X - self.transformer.mean_) / self.width
            log_factor -= np.sum(residual**2, axis=1) / 2
            log_factor -= gaussian_log_normalizer(self.n_dropped, self.width**2)
        return self.image(X), log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        components = self.transformer.components_
        X = self.transformer.mean_ + (Z * self.scales) @ components
        if self.n_dropped:
            X = X + self._dropped(self.width * generator.normal(size=X.shape))
        return X, np.ones(len(Z), dtype=bool)

    def _dropped(self, centered: np.ndarray) -> np.ndarray:
        components = self.transformer.components_
        return centered - (centered @ components.T) @ components


registered.register(PCA)(_PCA)
