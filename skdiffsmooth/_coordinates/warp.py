"""Monotone maps of single columns, by which skewed and heavy-tailed columns become more Gaussian.

With center m, width s and u = (x - m) / s a column is mapped to

    z = arcsinh(u) + c u,

logarithmic on both sides of the center, linear near it and beyond the outer rows. So the map is onto R,
its slope is bounded from below, and densities keep the tails that they have in z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Quantiles that may be centers, and quantiles of the distance from the center that may be widths.
_CENTERS = (0.0, 0.5, 1.0)
_WIDTHS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
# Levels of quantiles are lowered by this, which is more than rounding, so that no sum of weights equals
# them by chance.
_BELOW = 1e-9
# Distances from the center, in units of that of the outermost row, beyond which a map is linear. The
# first decides whether a column is mapped, since smaller distances raise the likelihood of bounded
# columns, too. A smaller one is used if the likelihood then rises by `_LEAST_RISE` nats per row. With a
# distance of 4, log-normal rows gain 0.02 nats, but draws have up to four times the rows' std.
_LINEAR_FROM, _LEAST_RISE = (0.5, 0.25, 0.125), 0.005
# A column is mapped if this raises the log-likelihood of a Gaussian by more than all of these: nats per
# row, standard errors, and nats over all rows.
_LEAST_GAIN, _LEAST_ERRORS, _LEAST_TOTAL = 0.05, 3.0, 6.0
# With fewer rows no column is mapped, nor is one in which a single value has more weight.
_FEWEST_ROWS, _LARGEST_WEIGHT = 30, 0.05
# Least width of a map, in units of the rounding error of values at its center.
_LEAST_WIDTH = 8.0
_MOST_NEWTON_STEPS, _EPS = 60, float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False, repr=False)
class ColumnWarp:
    """Monotone maps of some columns; the others stay as they are."""

    columns: np.ndarray  # (k,): indices of the mapped columns
    # centers, widths (k,): the m and s of their maps
    centers: np.ndarray
    widths: np.ndarray
    linear: np.ndarray  # (k,): the c of their maps, positive

    def __repr__(self) -> str:
        """Return the maps in full, by the indices of their columns."""
        maps = (
            f"{column}: arcsinh(u) + {c:.3g} u, u = (x - {center:.6g}) / {width:.6g}"
            for column, center, width, c in zip(
                self.columns, self.centers, self.widths, self.linear, strict=True
            )
        )
        return f"{type(self).__name__}({'; '.join(maps)})"

    def only(self, columns: np.ndarray) -> ColumnWarp:
        """Return the maps of these columns."""
        kept = np.isin(self.columns, columns)
        arrays = (self.columns, self.centers, self.widths, self.linear)
        return ColumnWarp(*(array[kept] for array in arrays))

    def mapped(self, X: np.ndarray) -> np.ndarray:
        """Return rows X (n, d) with mapped columns."""
        u = self._relative(X)
        Z = X.copy()
        Z[:, self.columns] = np.arcsinh(u) + self.linear * u
        return Z

    def unmapped(self, Z: np.ndarray) -> np.ndarray:
        """Return the rows (n, d) whose mapped columns are those of Z (n, d)."""
        z = np.abs(Z[:, self.columns])
        # Newton's method for v + c sinh(v) = z, convex where v > 0, from above: v only decreases.
        v = np.minimum(z, np.arcsinh(z / self.linear))
        for _ in range(_MOST_NEWTON_STEPS):
            step = (v + self.linear * np.sinh(v) - z) / (1 + self.linear * np.cosh(v))
            v = v - step
            if np.all(np.abs(step) <= 4 * _EPS * v):
                break
        X = Z.copy()
        u = np.copysign(np.sinh(v), Z[:, self.columns])
        X[:, self.columns] = self.centers + self.widths * u
        return X

    def slopes(self, X: np.ndarray) -> np.ndarray:
        """Return the derivative (n, d) of each column's map at rows X (n, d)."""
        slopes = np.ones_like(X)
        slopes[:, self.columns] = (1 / np.hypot(1, self._relative(X)) + self.linear) / self.widths
        return slopes

    def log_slopes(self, X: np.ndarray) -> np.ndarray:
        """Return the log (n,) of the product of the derivatives at rows X (n, d), in nats."""
        return np.log(self.slopes(X)[:, self.columns]).sum(axis=1)

    def log_slope_gradient(self, X: np.ndarray) -> np.ndarray:
        """Return the gradient (n, d) of `log_slopes`."""
        u = self._relative(X)
        root = np.hypot(1, u)
        gradient = np.zeros_like(X)
        gradient[:, self.columns] = -(u / root) / (root * (1 + self.linear * root) * self.widths)
        return gradient

    @property
    def least_log_slope(self) -> float:
        """Lower bound of `log_slopes`, its limit far outside the rows."""
        return float(np.sum(np.log(self.linear / self.widths)))

    def _relative(self, X: np.ndarray) -> np.ndarray:
        """Return u (n, k) of the mapped columns of rows X (n, d)."""
        return (X[:, self.columns] - self.centers) / self.widths


def fit_warp(
    points: np.ndarray, weights: np.ndarray, is_free: np.ndarray, units: np.ndarray | None
) -> ColumnWarp | None:
    """Return maps of the columns that become much more Gaussian by them, or None if there is none.

    `points` (n, d) are distinct rows, and weights sum to one. Only columns of the mask `is_free` (d,)
    are mapped, and none in which one value is frequent, or if rows are few. `units` (d,) are the steps
    in which columns were recorded, 0 where they are not known.
    """
    n_points, d = points.shape
    if n_points < max(_FEWEST_ROWS, d + 2):
        return None
    fitted = [
        (column, *best)
        for column in np.flatnonzero(is_free)
        if (best := _best_map(points[:, column], weights, 0.0 if units is None else units[column]))
        is not None
    ]
    return ColumnWarp(*map(np.array, zip(*fitted, strict=True))) if fitted else None


def _best_map(x: np.ndarray, weights: np.ndarray, unit: float) -> tuple[float, float, float] | None:
    """Return center, width and c of the likeliest map of one column (n,), or None."""
    order = np.argsort(x, kind="stable")
    # A power of two scales without rounding, and keeps squares within range.
    exponent = int(np.frexp(np.abs(x).max())[1])
    x, weights = np.ldexp(x[order], -exponent), weights[order]
    half_step = float(np.ldexp(unit, -exponent)) / 2
    values = np.append(True, np.diff(x) > 0)
    if np.bincount(np.cumsum(values), weights).max() > _LARGEST_WEIGHT:
        return None
    plain = _gaussian_log_density(x, weights)
    candidates: list[tuple[float, float]] = []
    for center in _quantiles(x, weights, _CENTERS):
        distances = np.abs(x - center)
        by_distance = np.argsort(distances, kind="stable")
        widths = _quantiles(distances[by_distance], weights[by_distance], _WIDTHS)
        # Rows near the center have its rounding error, however far away others are.
        least_width = _LEAST_WIDTH * max(half_step, _EPS * abs(center))
        candidates += [(center, width) for width in widths if width > least_width]
    best, chosen = -np.inf, None
    for share in _LINEAR_FROM:
        least = best + _LEAST_RISE
        for center, width in candidates:
            u = (x - center) / width
            linear = float(1 / (share * np.abs(u).max()))
            z = np.arcsinh(u) + linear * u
            log_slopes = np.log((1 / np.hypot(1, u) + linear) / width)
            gain = _gaussian_log_density(z, weights) + log_slopes - plain
            mean = float(weights @ gain)
            if mean > max(best, least):
                best, of_best = mean, gain
                chosen = float(np.ldexp(center, exponent)), float(np.ldexp(width, exponent)), linear
        if chosen is None or (share == _LINEAR_FROM[0] and not _is_large(of_best, weights)):
            return None
    return chosen


def _is_large(gain: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether gains (n,) of rows in log-likelihood are large enough to map their column."""
    mean = float(weights @ gain)
    variance = weights**2 @ (gain - mean) ** 2
    least = _LEAST_TOTAL * (weights @ weights)
    return mean > max(_LEAST_GAIN, _LEAST_ERRORS * np.sqrt(variance), least)


def _quantiles(x: np.ndarray, weights: np.ndarray, levels: tuple[float, ...]) -> list[float]:
    """Return weighted quantiles of increasing values x (n,)."""
    ranks = np.cumsum(weights)
    indices = np.searchsorted(ranks, (np.array(levels) - _BELOW) * ranks[-1])
    return x[np.minimum(indices, len(x) - 1)].tolist()


def _gaussian_log_density(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return log-densities (n,) of values under their own Gaussian, without its constant."""
    centered = x - weights @ x
    variance = weights @ centered**2
    return -0.5 * (np.log(variance) + centered**2 / variance)
