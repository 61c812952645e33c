"""A smooth monotone map of each column to normal scores, through a few of its quantiles.

Between knots (x_k, z_k), with positive slopes d_k at them, the map is the rational quadratic spline of
Gregory and Delbourgo (1982): with s = (z_{k+1} - z_k) / (x_{k+1} - x_k) and the position in the interval
t = (x - x_k) / (x_{k+1} - x_k),

    z = z_k + (z_{k+1} - z_k) (s t^2 + d_k t (1 - t)) / (s + (d_k + d_{k+1} - 2 s) t (1 - t)).

It has a continuous derivative and an inverse in closed form. Beyond the outermost knots, which are the
extreme values, it grows like a square root: z = z_K + 2 sqrt(1 + d_K (x - x_K)) - 2. So heavy tails
become lighter, and draws of large z are mapped to finite values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin

from .._coordinates.columns import ColumnSpace


class _Spline(NamedTuple):
    """Knots of one column: values, normal scores, slopes; each of shape (n_knots,)."""

    x: np.ndarray
    z: np.ndarray
    slope: np.ndarray

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the normal scores of values x (n,), and the logarithms (n,) of the slope at them."""
        k, t, secant = self._cell(x, self.x)
        lower, upper = self.slope[k], self.slope[k + 1]
        mixed = t * (1 - t)
        denominator = secant + (lower + upper - 2 * secant) * mixed
        rise = secant * (self.x[k + 1] - self.x[k])
        z = self.z[k] + rise * (secant * t**2 + lower * mixed) / denominator
        numerator = upper * t**2 + 2 * secant * mixed + lower * (1 - t) ** 2
        log_slope = 2 * np.log(secant / denominator) + np.log(numerator)
        for end, sign in ((0, -1.0), (-1, 1.0)):
            beyond = sign * (x - self.x[end]) > 0
            root = np.sqrt(1 + self.slope[end] * np.abs(x - self.x[end]))
            z = np.where(beyond, self.z[end] + sign * 2 * (root - 1), z)
            log_slope = np.where(beyond, np.log(self.slope[end] / root), log_slope)
        return z, log_slope

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Return the values (n,) whose normal scores are z (n,)."""
        k, _, secant = self._cell(z, self.z)
        lower, upper = self.slope[k], self.slope[k + 1]
        rise = np.clip(z, self.z[0], self.z[-1]) - self.z[k]
        excess = rise * (lower + upper - 2 * secant)
        width, height = self.x[k + 1] - self.x[k], self.z[k + 1] - self.z[k]
        a, b, c = height * (secant - lower) + excess, height * lower - excess, -secant * rise
        # The root in [0, 1], in the form without cancellation.
        t = -2 * c / (b + np.sqrt(np.maximum(b**2 - 4 * a * c, 0.0)))
        x = self.x[k] + width * t
        for end, sign in ((0, -1.0), (-1, 1.0)):
            step = sign * (z - self.z[end])
            far = self.x[end] + sign * (step + step**2 / 4) / self.slope[end]
            x = np.where(step > 0, far, x)
        return x

    def _cell(self, at: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each value's interval, the position in the interval (0 to 1), and its mean slope."""
        k = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
        t = np.clip((at - knots[k]) / (knots[k + 1] - knots[k]), 0.0, 1.0)
        return k, t, (self.z[k + 1] - self.z[k]) / (self.x[k + 1] - self.x[k])


class QuantileSpline(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Maps each column to normal scores by a smooth monotone function through few quantiles.

    Unlike `sklearn.preprocessing.QuantileTransformer` it has a continuous derivative, is onto all of
    R, and grows like a square root beyond the training range. Columns that others determine are only
    scaled (up to twice the training range): the map of a total does not follow from the maps of its
    parts, and the relation to a copy would have another width at each row.

    - `n_knots`: number of quantiles; fewer where rows are few, or quantiles are equal.
    """

    def __init__(self, n_knots: int = 16) -> None:
        self.n_knots = n_knots

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> QuantileSpline:
        """Compute the knots of each column of X (n_samples, n_features)."""
        X = np.asarray(X, dtype=np.float64)
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, float)
        space = ColumnSpace.of(X, weight / weight.sum())
        self.splines_ = [
            _fit(column, weight, self.n_knots) if is_free else _affine(column, scale)
            for column, scale, is_free in zip(X.T, space.scales, space.is_free, strict=True)
        ]
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the normal scores of rows X (n_samples, n_features)."""
        return self._forward(X)[0]

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Return the rows whose normal scores are Z (n_samples, n_features)."""
        columns = zip(self.splines_, np.asarray(Z, dtype=np.float64).T, strict=True)
        return np.column_stack([spline.inverse(z) for spline, z in columns])

    def log_slopes(self, X: Any) -> np.ndarray:
        """Return the logarithm (n_samples,) of the product of all columns' slopes, in nats."""
        return self._forward(X)[1].sum(axis=1)

    def _forward(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        columns = zip(self.splines_, np.asarray(X, dtype=np.float64).T, strict=True)
        pairs = [spline.forward(x) for spline, x in columns]
        return np.column_stack([z for z, _ in pairs]), np.column_stack([s for _, s in pairs])


def _affine(values: np.ndarray, scale: float) -> _Spline:
    """Return a map of one column (n,) that divides by a scale."""
    margin = max(2 * float(np.ptp(values)), scale)
    x = np.array([values.min() - margin, values.max() + margin])
    return _Spline(x, (x - x.mean()) / scale, np.full(2, 1 / scale))


def _fit(values: np.ndarray, weight: np.ndarray, n_knots: int) -> _Spline:
    """Return the spline of one column (n,) under row weights (n,)."""
    distinct, index = np.unique(values, return_inverse=True)
    mass = np.bincount(index, weights=weight / weight.sum())
    # The rank of a value is in the middle of its mass.
    ranks = np.cumsum(mass) - mass / 2
    if len(distinct) < 3:
        return _Spline(np.array([-1.0, 1.0]) + distinct.mean(), np.array([-1.0, 1.0]), np.ones(2))
    # Ranks of the knots: evenly spaced, then halved repeatedly towards both ends.
    first = max(ranks[0], 1 - ranks[-1])
    even = (np.arange(n_knots) + 0.5) / n_knots
    tail = first * 2.0 ** np.arange(0, 64)
    tail = tail[tail < even[0] / 1.5]
    levels = np.concatenate([tail, even, 1 - tail[::-1]])
    x = np.interp(levels, ranks, distinct)
    kept = np.concatenate([[True], np.diff(x) > 1e-9 * np.ptp(distinct)])
    x, z = x[kept], ndtri(levels[kept])
    if len(x) < 2:
        x, z = distinct[[0, -1]], ndtri(ranks[[0, -1]])
    secant = np.diff(z) / np.diff(x)
    # Harmonic means, weighted by widths, keep each slope between those of the neighbouring secants.
    width = np.diff(x)
    inner = (width[:-1] + width[1:]) / (width[:-1] / secant[1:] + width[1:] / secant[:-1])
    return _Spline(x, z, np.concatenate([secant[:1], inner, secant[-1:]]))
