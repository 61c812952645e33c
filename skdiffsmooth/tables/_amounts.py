"""The density of columns with atoms, where they are at no atom, given all other columns.

With the coordinates x of columns that always have a value, and y of columns with atoms that are at none,

    p(y | x, c) = sum_i v_i(x, c) prod_g N(y_g; y_ig + b_g(x, c) - b_g(x_i, c_i), h_g),

v_i proportional to ``w_i K(c, c_i) prod_j exp(-((x_j - x_ij) / s_j)^2 / 2)``: a kernel estimate of a
conditional density (Hall, Racine and Li 2004) with bandwidths s and h, shifted by a regression b. The
density of x is estimated from all rows, whether y is at an atom or not, so that an atom that is
independent of x has the same probability for all x. p(y | x, c) is normalised, and its marginals are in
closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtr

from .._utils.draws import choose_in_rows
from .._utils.memory import slices
from .._utils.periods import wrapped
from ._discrete import LevelKernel, choose_lambdas, one_row, products, some_rows
from ._distances import from_line

# Weight of a background of two logistic distributions, half of it each: one about the regression, and
# one about the mean of all rows, which bounds the loss where the regression is far off. It is also the
# weight of all rows, without kernels of x, among the row weights v_i.
_BACKGROUND = 0.02
_LOGISTIC = np.sqrt(3) / np.pi
# Bandwidths that are compared: of x in standard deviations, of y in those of the regression residuals.
_OF_X = (0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, np.inf)
_OF_Y = (0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)
# Most left-out rows whose likelihood chooses the bandwidths, and passes over all coordinates.
_MOST_JUDGES, _N_SWEEPS = 256, 4
# A mapped coordinate is linear in distances above a threshold, the geometric mean of all distances over
# one of these factors; the largest logarithm that is used.
_FACTORS, _LARGEST_LOG = (1.0, 4.0, 20.0), 600.0
# Lower bound on one minus a row's leverage, by which its residual is divided if the row is left out.
_LEAST_LEFT = 1e-6
# Ridge penalties that are compared, in variances of a column; least decrease of the log variance of the
# residuals for which indicators of a column are added.
_PENALTIES, _LEAST_GAIN = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0), 0.01
# Pairs of rows whose kernels are in memory at once.
_MOST_PAIRS = 4_000_000


@dataclass(frozen=True, eq=False)
class Regression:
    """A ridge regression on x, its squares and products if `is_quadratic`, and indicators of levels.

    It is constant outside the range of the training rows, `low` to `high` (p,), and clipped to `ends`
    (2, k), the least and largest values at training rows that were left out. `discrete` are the
    discrete coordinates whose levels, `n_levels` many, have indicators.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    periods: np.ndarray
    n_levels: list[int]
    is_quadratic: bool
    discrete: list[int]
    intercept: np.ndarray
    coefficients: np.ndarray
    ends: np.ndarray

    def at(self, x: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Return the regression values (m, k) at x (m, p) and levels (m, q)."""
        features = self.features(x, levels)
        return np.clip(self.intercept + features @ self.coefficients, *self.ends)

    def features(self, x: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Return the features (m, f)."""
        z = (np.clip(x, self.low, self.high) - self.mean) / self.scale
        plain, circular = z[:, self.periods == 0], np.flatnonzero(self.periods)
        first, second = np.triu_indices(plain.shape[1] if self.is_quadratic else 0)
        angles = 2 * np.pi * x[:, circular] / self.periods[circular]
        parts = [plain, plain[:, first] * plain[:, second], np.cos(angles), np.sin(angles)]
        for k in self.discrete:
            parts.append(np.eye(self.n_levels[k] + 1)[levels[:, k], :-1])
        return np.column_stack(parts)


class _Setting(NamedTuple):
    """Distinct training rows; one copy of a row has the fraction `one_share` (n,) of its weight."""

    levels: np.ndarray
    weights: np.ndarray
    one_share: np.ndarray
    n_levels: list[int]
    mean: np.ndarray
    scale: np.ndarray
    periods: np.ndarray


def _regress(x: np.ndarray, y: np.ndarray, setting: _Setting) -> tuple[Regression, np.ndarray]:
    """Return the regression of y (n, k) with the least left-out errors, and these errors (n, k)."""
    levels, weights, one_share, n_levels, mean, scale, periods = setting
    best, chosen, empty = np.inf, None, np.empty((2, y.shape[1]))
    ends = x.min(axis=0), x.max(axis=0)
    shape = Regression(*ends, mean, scale, periods, n_levels, False, [], empty[0], empty, empty)
    differ = [k for k in range(len(n_levels)) if len(np.unique(levels[:, k])) > 1]
    y_mean, root = weights @ y, np.sqrt(weights)[:, None]
    # Squares, products and indicators of each column are kept if left-out errors are less with them.
    for added in ("linear", "quadratic", *differ):
        tried = shape if chosen is None else chosen[0]
        if added == "quadratic":
            tried = replace(tried, is_quadratic=True)
        elif isinstance(added, int):
            tried = replace(tried, discrete=[*tried.discrete, added])
        features = tried.features(x, levels)
        center = weights @ features
        left, singular, right = np.linalg.svd((features - center) * root, full_matrices=False)
        projected = left.T @ ((y - y_mean) * root)
        for penalty in _PENALTIES:
            shrunk = singular**2 / (singular**2 + penalty)
            fitted = left @ (shrunk[:, None] * projected)
            leverage = ((left**2 @ shrunk)[:, None] + root**2) * one_share[:, None]
            errors = (y - y_mean - fitted / root) / np.maximum(1 - leverage, _LEAST_LEFT)
            variance = weights @ (errors - weights @ errors) ** 2
            loss = float(np.log(np.maximum(variance, 1e-300)).sum())
            if loss < best - (_LEAST_GAIN if isinstance(added, int) else 0):
                best, line = loss, y - errors
                solution = right.T @ ((shrunk / np.maximum(singular, 1e-12))[:, None] * projected)
                solved = replace(
                    tried,
                    intercept=y_mean - center @ solution,
                    coefficients=solution,
                    ends=np.array([line.min(axis=0), line.max(axis=0)]),
                )
                chosen = solved, errors
    assert chosen is not None
    return chosen


@dataclass(frozen=True, eq=False)
class AmountPart:
    """The density of some amounts given the other coordinates and levels, from n training rows."""

    columns: np.ndarray  # (k,) indices of the coordinates y
    base: np.ndarray  # (p,) indices of those x on which they are conditional
    x: np.ndarray  # (n, p)
    y: np.ndarray  # (n, k)
    levels: np.ndarray  # (n, q)
    weights: np.ndarray  # (n,)
    kernels: list[LevelKernel]  # which weight the rows, one for each discrete coordinate
    periods: np.ndarray  # (p,) of x; 0 is none
    of_x: np.ndarray  # (p,) bandwidths; a coordinate with an infinite one does not matter
    of_y: np.ndarray  # (k,) bandwidths
    shifts: np.ndarray  # (k,) of the maps of y, see `_mapped`
    knots: np.ndarray  # (k,) of the coordinates y
    regression: Regression  # its values are the b(x, c) of the formula
    residual: np.ndarray  # (n, k) deviations of y from the regression, fitted without that row
    deviation: np.ndarray  # (k,) standard deviations of the residuals

    @property
    def relevant(self) -> np.ndarray:
        """Indices of the discrete coordinates on which the density depends."""
        used = {k for k, kernel in enumerate(self.kernels) if kernel.lam < 1}
        return np.array(sorted(used | set(self.regression.discrete)), dtype=np.intp)

    def _row_weights(self, levels: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the weights (m, n) of the rows given levels (m, q) and x (m, p)."""
        log_near = np.zeros((len(x), len(self.x)))
        for j in np.flatnonzero(np.isfinite(self.of_x)):
            log_near += _log_kernel(x[:, j], self.x[:, j], self.periods[j], self.of_x[j])
        tables = [kernel.table for kernel in self.kernels]
        weights = self.weights * products(tables, levels, self.levels)
        weights /= weights.sum(axis=1, keepdims=True)
        near = np.exp(log_near - log_near.max(axis=1, keepdims=True)) * weights
        near /= near.sum(axis=1, keepdims=True)
        return (1 - _BACKGROUND) * near + _BACKGROUND * weights

    def _log_tails(
        self, line: np.ndarray, low: np.ndarray, high: np.ndarray, observed: np.ndarray
    ) -> np.ndarray:
        """Return log-densities (2, m) of the two background logistics, each times its weight 1/2.

        `line` (m, k) is the regression, `low` and `high` (m, k) are ends of cells, and `observed` the
        indices of the coordinates y that are not missing.
        """
        result = np.full((2, len(line)), np.log(0.5))
        for g in observed:
            for k, (centers, deviation) in enumerate(self._tails(line)):
                ends = low[:, g] - centers[:, g], high[:, g] - centers[:, g]
                result[k] += _log_logistic(*ends, deviation[g] * _LOGISTIC)
        return result

    def _tails(self, line: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return centers (m, k) and standard deviations (k,) of each of the two background logistics."""
        center = self.weights @ self.y
        of_all = np.sqrt(self.weights @ (self.y - center) ** 2)
        return [
            (line + self.weights @ self.residual, self.deviation),
            (np.broadcast_to(center, line.shape), np.maximum(of_all, self.deviation)),
        ]

    def log_density(
        self, levels: np.ndarray, x: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """Return log-densities (m,) of y given levels (m, q) and x (m, p).

        `low` and `high` (m, k) are the ends of the cells of y, which contribute their probability; where
        both are equal, y contributes its density. NaN is integrated out.
        """
        result = np.empty(len(x))
        low, high, log_slopes = self._mapped(low, high)
        observed = np.flatnonzero(~np.isnan(low[0]))
        for part in slices(len(x), _MOST_PAIRS // len(self.x)):
            line = self.regression.at(x[part], levels[part])
            weights = self._row_weights(levels[part], x[part])
            with np.errstate(divide="ignore"):
                log_terms = np.log(weights)
            for g in observed:
                ends = low[part, g] - line[:, g], high[part, g] - line[:, g]
                log_terms += _log_normal(*ends, self.residual[:, g], self.of_y[g])
            near = logsumexp(log_terms, axis=1) + np.log1p(-_BACKGROUND)
            log_tail = np.logaddexp(*self._log_tails(line, low[part], high[part], observed))
            result[part] = np.logaddexp(near, log_tail + np.log(_BACKGROUND))
        return result + log_slopes

    def _mapped(
        self, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ends (m, k) of cells in the coordinates of the kernels, and log slopes (m,)."""
        with np.errstate(divide="ignore", over="ignore"):
            mapped, log_slopes = _mapped(low, self.shifts, self.knots)
            upper, _ = _mapped(high, self.shifts, self.knots)
        return mapped, upper, np.where(low == high, log_slopes, 0.0).sum(axis=1)

    def draw(
        self,
        levels: np.ndarray,
        x: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        rng: np.random.RandomState,
    ) -> np.ndarray:
        """Return y (m, k) given levels (m, q), x (m, p), and cells (m, k) of y; NaN is missing."""
        m, k = low.shape
        low, high, _ = self._mapped(low, high)
        uniform, normal = rng.uniform(size=(m, 2 + k)), rng.normal(size=(m, k))
        drawn, line = np.empty((m, k)), self.regression.at(x, levels)
        observed = np.flatnonzero(~np.isnan(low[0]))
        for part in slices(m, _MOST_PAIRS // len(self.x)):
            with np.errstate(divide="ignore"):
                log_terms = np.log(self._row_weights(levels[part], x[part]))
            for g in observed:
                ends = low[part, g] - line[part, g], high[part, g] - line[part, g]
                log_terms += _log_normal(*ends, self.residual[:, g], self.of_y[g])
            near = logsumexp(log_terms, axis=1) + np.log1p(-_BACKGROUND)
            tails = self._log_tails(line[part], low[part], high[part], observed)
            log_weights = np.vstack([near, tails + np.log(_BACKGROUND)])
            row_weights = np.exp(log_weights - log_weights.max(axis=0)).T
            masses = np.exp(log_terms - log_terms.max(axis=1, keepdims=True))
            own = np.arange(len(masses))
            source = choose_in_rows(masses, own, uniform[part, 0])
            u = np.clip(uniform[part, 2:], 1e-12, 1 - 1e-12)
            values = [line[part] + self.residual[source] + self.of_y * normal[part]]
            for centers, deviation in self._tails(line[part]):
                values.append(centers + deviation * _LOGISTIC * np.log(u / (1 - u)))
            drawn[part] = np.array(values)[choose_in_rows(row_weights, own, uniform[part, 1]), own]
        return _unmapped(drawn, self.shifts, self.knots)


class Rows(NamedTuple):
    """Training rows: x (n, p), the ends (n, k) of the cells of y, levels (n, q) and weights (n,)."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    levels: np.ndarray
    weights: np.ndarray


def fit_amounts(
    columns: np.ndarray,
    base: np.ndarray,
    rows: Rows,
    y: np.ndarray,
    kernels: Sequence[LevelKernel],
    periods: np.ndarray,
    knots: np.ndarray,
) -> AmountPart:
    """Return the density of y (n, k) given x and levels, of highest leave-one-out likelihood.

    `knots` (k,) are those of the coordinates y that are distances from a bound (`_distances.py`), NaN
    for others. Equal rows are merged.
    """
    joined = np.column_stack([*rows[:4], y])
    _, first, which = np.unique(joined, axis=0, return_index=True, return_inverse=True)
    x, low, high, levels = (each[first] for each in rows[:4])
    y, weights = y[first], np.bincount(which.ravel(), weights=rows.weights)
    # The fraction of the weight of equal rows that leaving one of them out removes.
    one = np.bincount(which.ravel(), weights=rows.weights * one_row(rows.weights)) / weights
    left = one / weights
    mean, of_rows = np.average(x, axis=0, weights=weights), weights / weights.sum()
    scale = np.sqrt(of_rows @ (x - mean) ** 2)
    scale[scale == 0] = 1.0
    n_levels = [len(kernel.masses) for kernel in kernels]
    setting = _Setting(levels, of_rows, left, n_levels, mean, scale, periods)
    shifts = np.full(len(columns), np.nan)
    for g in np.flatnonzero(~np.isnan(knots)):
        # The regression may fit better to the logarithm of the distance, or to the distance.
        middle = y[:, [g]]
        log_distance = _log_distance(middle, knots[[g]])[0]
        tried = [np.nan, *(np.log(_FACTORS) - of_rows @ log_distance[:, 0])]
        losses = []
        for shift in tried:
            mapped, log_slopes = _mapped(middle, np.array([shift]), knots[[g]])
            errors = _regress(x, mapped, setting)[1]
            losses.append(np.log(of_rows @ errors**2 + 1e-300)[0] / 2 - (of_rows @ log_slopes)[0])
        shifts[g] = tried[int(np.argmin(losses))]
    y, _ = _mapped(y, shifts, knots)
    regression, residual = _regress(x, y, setting)
    deviation = np.sqrt(of_rows @ (residual - of_rows @ residual) ** 2)
    # By rounding, residuals of equal values may differ a little.
    is_flat = (y == y[0]).all(axis=0) | (deviation == 0)
    deviation = np.where(is_flat, np.maximum(np.abs(y[0]), 1.0), deviation)
    part = AmountPart(
        columns, base, x, y, levels, of_rows, list(kernels), periods,
        np.full(x.shape[1], np.inf), 0.35 * deviation, shifts, knots, regression, residual,
        deviation,
    )  # fmt: skip
    judges = some_rows(len(x), _MOST_JUDGES)
    kept = np.ones((len(judges), len(x)))
    kept[np.arange(len(judges)), judges] = 1 - left[judges]
    ends = part._mapped(low, high)[:2]
    return _Choice(part, judges, kept, ends).choose(scale)


class _Choice:
    """Chooses the bandwidths at which left-out rows, `judges` (m,), have the highest likelihood.

    `kept` (m, n) is the fraction of each row's weight that remains where a judge is left out.
    """

    def __init__(
        self,
        part: AmountPart,
        judges: np.ndarray,
        kept: np.ndarray,
        ends: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self.part, self.judges = part, judges
        self.others = kept * part.weights
        self.kept = kept
        self.low, self.high = ends[0][judges], ends[1][judges]
        self.residual = part.residual
        # The regression at a judge is the one that was fitted without it.
        self.line = part.y[judges] - part.residual[judges]
        tails = part._log_tails(self.line, self.low, self.high, np.arange(len(part.columns)))
        self.log_logistic = np.logaddexp(*tails)

    def of_x(self, j: int, width: float) -> np.ndarray | float:
        """Return log kernels (m, n) of coordinate j of x, between judges and rows."""
        if np.isinf(width):
            return 0.0
        x = self.part.x[:, j]
        return _log_kernel(x[self.judges], x, self.part.periods[j], width)

    def of_y(self, g: int, width: float) -> np.ndarray:
        """Return log kernels (m, n) of coordinate g of y, between judges and rows."""
        a, b = self.low[:, g] - self.line[:, g], self.high[:, g] - self.line[:, g]
        return _log_normal(a, b, self.residual[:, g], width)

    def choose(self, scale: np.ndarray) -> AmountPart:
        """Return the part with the chosen bandwidths, those of x in units of `scale` (p,)."""
        part = self.part
        widths, heights, kernels = part.of_x.copy(), part.of_y.copy(), part.kernels
        near = np.zeros((len(self.judges), len(part.x)))
        close = sum((self.of_y(g, h) for g, h in enumerate(heights)), start=np.zeros_like(near))
        for _ in range(_N_SWEEPS):
            before = np.r_[widths, heights]
            if kernels:
                shift = close.max(axis=1, keepdims=True)
                kernels = choose_lambdas(
                    kernels,
                    part.levels,
                    part.weights,
                    self.judges,
                    self.kept * np.exp(near - near.max(axis=1, keepdims=True)),
                    np.exp(close - shift),
                )
            tables = [kernel.table for kernel in kernels]
            others = self.others * products(tables, part.levels[self.judges], part.levels)
            for j in range(len(widths)):
                rest = near - self.of_x(j, widths[j])
                tried = [rest + self.of_x(j, w * scale[j]) for w in _OF_X]
                best = _last_best([self.likelihood(others, t, close) for t in tried])
                widths[j], near = _OF_X[best] * scale[j], tried[best]
            for g in range(len(heights)):
                rest = close - self.of_y(g, heights[g])
                tried = [rest + self.of_y(g, h * part.deviation[g]) for h in _OF_Y]
                best = _last_best([self.likelihood(others, near, t) for t in tried])
                heights[g], close = _OF_Y[best] * part.deviation[g], tried[best]
            if np.array_equal(before, np.r_[widths, heights]):
                break
        return replace(part, of_x=widths, of_y=heights, kernels=kernels)

    def likelihood(self, others: np.ndarray, near: np.ndarray, close: np.ndarray) -> float:
        """Return the mean log-likelihood of the judges for weights and log kernels, all (m, n)."""
        weights = others * np.exp(near - near.max(axis=1, keepdims=True))
        tiny = np.finfo(np.float64).tiny
        weights = (1 - _BACKGROUND) * weights / np.maximum(weights.sum(axis=1, keepdims=True), tiny)
        # The sum is zero if there is a single row.
        weights += _BACKGROUND * others / np.maximum(others.sum(axis=1, keepdims=True), tiny)
        shift = close.max(axis=1)
        kernel = shift + np.log(
            np.maximum((weights * np.exp(close - shift[:, None])).sum(axis=1), tiny)
        )
        value = np.logaddexp(
            kernel + np.log1p(-_BACKGROUND), self.log_logistic + np.log(_BACKGROUND)
        )
        own = self.part.weights[self.judges]
        return float(own @ value / own.sum())


def _last_best(likelihoods: list[float]) -> int:
    """Return the index of the highest likelihood, of equal ones the last: that of the widest kernel."""
    return len(likelihoods) - 1 - int(np.argmax(likelihoods[::-1]))


def _log_distance(y: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log w (m, k) of distances w at coordinates y (m, k), and the log of its slope in y."""
    ratio = from_line(y, knots) / knots
    return np.where(np.isfinite(y), y - ratio, y), -np.log1p(ratio)


def _mapped(y: np.ndarray, shifts: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mapped coordinates y (m, k), linear in the distance where it is large, and log slopes.

    With w = exp(shift) times the distance from the bound, y is mapped to log(exp(w) - 1); where the
    shift is NaN, y is not mapped. Log slopes (m, k) are those with respect to y.
    """
    used = ~np.isnan(shifts)
    mapped, log_slopes = y.copy(), np.zeros_like(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_distance, of_distance = _log_distance(y[:, used], knots[used])
        w = np.exp(np.minimum(log_distance + shifts[used], _LARGEST_LOG))
        share = -np.expm1(-w)
        mapped[:, used] = w + np.log(share)
        log_slopes[:, used] = np.log(w / share) + of_distance
    return mapped, np.where(np.isfinite(log_slopes), log_slopes, 0.0)


def _unmapped(mapped: np.ndarray, shifts: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the coordinates y (m, k): the inverse of `_mapped`."""
    used = ~np.isnan(shifts)
    y = mapped.copy()
    log_distance = np.where(
        mapped[:, used] < -30, mapped[:, used], np.log(np.logaddexp(0, mapped[:, used]))
    )
    log_distance -= shifts[used]
    y[:, used] = log_distance + np.exp(log_distance) / knots[used]
    return y


def _log_kernel(a: np.ndarray, b: np.ndarray, period: float, width: float) -> np.ndarray:
    """Return logarithms (m, n) of Gaussian kernels, one at distance 0, between a (m,) and b (n,)."""
    distance = np.subtract.outer(a, b)
    if period:
        distance = wrapped(distance, period)
    return -0.5 * (distance / width) ** 2


def _log_normal(low: np.ndarray, high: np.ndarray, centers: np.ndarray, width: float) -> np.ndarray:
    """Return log-probabilities (m, n) of intervals under Gaussians (n,); log-densities of points."""
    below = (low[:, None] - centers) / width
    result = -0.5 * below**2 - np.log(width * np.sqrt(2 * np.pi))
    cells = np.flatnonzero(high > low)
    if len(cells):
        a, b = below[cells], (high[cells, None] - centers) / width
        upper = a > 0
        mass = ndtr(np.where(upper, -a, b)) - ndtr(np.where(upper, -b, a))
        result[cells] = np.log(np.maximum(mass, np.finfo(np.float64).tiny))
    return result


def _log_logistic(low: np.ndarray, high: np.ndarray, scale: float) -> np.ndarray:
    """Return logistic log-probabilities (m,) of intervals (m,); log-densities of points."""
    a, b = low / scale, high / scale
    result = -np.abs(a) - 2 * np.log1p(np.exp(-np.abs(a))) - np.log(scale)
    cells = high > low
    # Intervals above zero are reflected, since differences are accurate in the lower tail.
    flipped = a[cells] > 0
    lower, upper = np.where(flipped, -b[cells], a[cells]), np.where(flipped, -a[cells], b[cells])
    with np.errstate(divide="ignore"):
        log_lower, log_upper = -np.logaddexp(0, -lower), -np.logaddexp(0, -upper)
        result[cells] = log_upper + np.log(-np.expm1(np.minimum(log_lower - log_upper, -1e-300)))
    return result
