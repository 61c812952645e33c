"""Densities of mixed tables that TableDensity is compared with, integrated over cells as it is.

Each is a function of training rows (`Part`) that returns a function of test rows, whose value is the
logarithm of the probability of levels and cells and of the density of exact coordinates.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri
from scipy.stats import qmc
from sklearn.mixture import GaussianMixture
from statsmodels.nonparametric.kernel_density import KDEMultivariate

# Patterns and classes with fewer rows have no density of their own.
FEWEST = 12
# Points over which the probability of a box of several cells under a normal distribution is averaged.
N_POINTS = 64


@dataclass(frozen=True)
class Part:
    """Rows of one pattern: levels (n, q), coordinates z (n, p), and the ends of their cells.

    `low` and `high` are equal to z where a coordinate is exact.
    """

    levels: np.ndarray
    z: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_levels: list
    is_ordered: list

    def take(self, rows):
        """Return some rows."""
        arrays = (each[rows] for each in (self.levels, self.z, self.low, self.high))
        return Part(*arrays, self.n_levels, self.is_ordered)


class Rows:
    """Rows as levels and coordinates with the ends of cells, and the log slopes of exact coordinates."""

    def __init__(self, columns, frame):
        rows = columns.encode(frame)
        self.levels = rows.levels
        self.z, log_slopes = columns.coordinates(rows.values)
        with np.errstate(divide="ignore"):
            self.low, self.high = (
                columns.coordinates(ends)[0] for ends in columns.cells(rows.values)
            )
        is_exact = np.array([not each.unit for each in columns.continuous], dtype=bool)
        self.log_slope = log_slopes[:, is_exact].sum(axis=1)
        self.low[:, is_exact] = self.high[:, is_exact] = self.z[:, is_exact]
        self.pattern = ~np.isnan(self.z)

    def part(self, which, columns):
        """Return the levels and coordinates (those that are present) of some rows."""
        present = ~np.isnan(self.z[which]).any(axis=0)
        arrays = (each[which][:, present] for each in (self.z, self.low, self.high))
        discrete = columns.discrete
        return Part(
            self.levels[which],
            *arrays,
            [each.n_levels for each in discrete],
            [each.ordered for each in discrete],
        )


def by_pattern(fit, train, test, columns):
    """Return log-densities (n,) by one density for each set of coordinates that are present."""
    result = np.empty(len(test.levels))
    patterns, which = np.unique(test.pattern, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        queries = np.flatnonzero(which.ravel() == number)
        own = np.flatnonzero((train.pattern == pattern).all(axis=1))
        log_share = np.log((len(own) + 0.5) / (len(train.pattern) + 0.5 * len(patterns)))
        part = test.part(queries, columns)
        if len(own) >= FEWEST:
            # Coordinates that say whether others have a value are constant here.
            log_density = fit(train.part(own, columns))(part)
        else:
            # Columns on their own: normals of all rows that have a value, and frequencies.
            log_density = _frequencies(train.levels, part.levels, part.n_levels).sum(axis=1)
            values = train.z[:, pattern]
            for k, value in enumerate(values.T):
                std = np.nanstd(value) + 1e-3
                log_density += _log_kernel(part, k, np.array([np.nanmean(value)]), std)[:, 0]
        result[queries] = log_share + log_density + test.log_slope[queries]
    return result


def _log_normal_mass(a, b):
    """Return log(Phi(b) - Phi(a)), without cancellation in the tails."""
    a, b = np.where(a > 0, -b, a), np.where(a > 0, -a, b)
    log_b = log_ndtr(b)
    return log_b + np.log1p(-np.exp(np.minimum(log_ndtr(a) - log_b, -1e-15)))


def _log_kernel(part, k, centers, h):
    """Return Gaussian log-kernels (n, m) at coordinate k of rows, or their masses of cells."""
    low, high = part.low[:, k], part.high[:, k]
    if (low == high).all():
        return -0.5 * ((low[:, None] - centers) / h) ** 2 - np.log(h) - 0.5 * np.log(2 * np.pi)
    # Cells and centers repeat: each different pair is computed once.
    _, first, row = np.unique(low, return_index=True, return_inverse=True)
    different, column = np.unique(centers, return_inverse=True)
    ends = (np.subtract.outer(each[first], different) / h for each in (low, high))
    return _log_normal_mass(*ends)[row][:, column]


def _frequencies(levels, queries, n_levels):
    """Return log-frequencies (n, q) of the levels of queries; half a row is added to each level."""
    columns = []
    for k, n in enumerate(n_levels):
        counts = np.bincount(levels[:, k], minlength=n) + 0.5
        columns.append(np.log(counts / counts.sum())[queries[:, k]])
    return np.column_stack(columns) if columns else np.zeros((len(queries), 0))


def _varying(levels):
    """Return the indices of columns of levels that vary."""
    return [k for k in range(levels.shape[1]) if len(np.unique(levels[:, k])) > 1]


def _log_level_kernel(queries, levels, k, h, part):
    """Return statsmodels' log-kernels (n, m) of a column of levels, made to sum to one over levels."""
    n = part.n_levels[k]
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    if part.is_ordered[k]:
        kernel = np.where(distance, 0.5 * (1 - h) * h**distance, 1 - h)  # Wang and van Ryzin
    else:
        kernel = np.where(distance, h / (n - 1), 1 - h)  # Aitchison and Aitken
    with np.errstate(divide="ignore"):
        log_kernel = np.log(kernel / kernel.sum(axis=0))
    return log_kernel[queries[:, k]][:, levels[:, k]]


def statsmodels_kde(by_likelihood):
    """Return statsmodels' mixed kernel density estimate, with a bandwidth for each column.

    Its kernels are evaluated here, since it does not integrate over cells; where there are none the
    value is statsmodels' own. Bandwidths are those of its rule of thumb, or those of highest
    leave-one-out likelihood of the cells, found one column after another.
    """

    def fit(train):
        used, p = _varying(train.levels), train.z.shape[1]
        kinds = "".join("o" if train.is_ordered[k] else "u" for k in used) + "c" * p
        if not kinds:
            return lambda test: _frequencies(train.levels, test.levels, train.n_levels).sum(axis=1)
        rest = np.setdiff1d(np.arange(train.levels.shape[1]), used)

        def log_kernel(test, k, h):
            if k < len(used):
                return _log_level_kernel(test.levels, train.levels, used[k], h, train)
            return _log_kernel(test, k - len(used), train.z[:, k - len(used)], h)

        if by_likelihood:
            bandwidth = _likeliest_bandwidths(train, log_kernel, kinds)
        else:
            rows = np.column_stack([train.levels[:, used], train.z])
            rule = KDEMultivariate(rows, kinds, bw="normal_reference").bw
            # Of levels it is no probability where they vary much.
            bandwidth = [
                h if kind == "c" else min(h, 0.5) for h, kind in zip(rule, kinds, strict=True)
            ]

        def log_density(test):
            total = sum(log_kernel(test, k, h) for k, h in enumerate(bandwidth))
            outside = _frequencies(train.levels, test.levels, train.n_levels)[:, rest]
            return logsumexp(total, axis=1) - np.log(len(train.z)) + outside.sum(axis=1)

        return log_density

    return fit


def _likeliest_bandwidths(train, log_kernel, kinds):
    """Return the bandwidths at which left-out rows are likeliest."""
    stds = np.append(np.ones(len(kinds) - train.z.shape[1]), train.z.std(axis=0))
    scale = np.where(stds > 0, stds, 1.0)
    bandwidth = [0.3 * s if kind == "c" else 0.1 for s, kind in zip(scale, kinds, strict=True)]
    total = sum(log_kernel(train, k, h) for k, h in enumerate(bandwidth))
    np.fill_diagonal(total, -np.inf)
    for _ in range(4):
        for k, kind in enumerate(kinds):
            others = total - log_kernel(train, k, bandwidth[k])
            np.fill_diagonal(others, -np.inf)

            def loss(log_h, k=k, others=others):
                return -_log_sums(others + log_kernel(train, k, np.exp(log_h))).mean()

            least, most = (0.01 * scale[k], 3 * scale[k]) if kind == "c" else (1e-4, 0.95)
            bounds = np.log(least), np.log(most)
            bandwidth[k] = np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)
            total = others + log_kernel(train, k, bandwidth[k])
    return bandwidth


def _log_sums(log_terms):
    """Return the logarithms (n,) of sums over rows of terms (n, m)."""
    highest = log_terms.max(axis=1)
    return np.log(np.exp(log_terms - highest[:, None]).sum(axis=1)) + highest


def one_hot_kde(train):
    """Return a Gaussian kernel density estimate of scaled columns and indicators, one bandwidth for all.

    The kernel of indicators is normalised over the levels, so that it is the mass of a level.
    """
    scale = np.where(train.z.std(axis=0) > 0, train.z.std(axis=0), 1.0)

    def log_kernels(test, h):
        total = np.zeros((len(test.levels), len(train.levels)))
        for k, s in enumerate(scale):
            total += _log_kernel(test, k, train.z[:, k], h * s)
        for k, n in enumerate(train.n_levels):
            differs = test.levels[:, k][:, None] != train.levels[:, k]
            # Indicators of different levels are sqrt(2) apart.
            total -= np.where(differs, 1 / h**2, 0.0) + np.log1p((n - 1) * np.exp(-1 / h**2))
        return total

    def loss(log_h):
        total = log_kernels(train, np.exp(log_h))
        np.fill_diagonal(total, -np.inf)
        return -_log_sums(total).mean()

    h = np.exp(minimize_scalar(loss, bounds=(-4, 2), method="bounded").x)
    return lambda test: _log_sums(log_kernels(test, h)) - np.log(len(train.levels))


def mixture_per_class(train):
    """Return Gaussian mixtures of each class, whose other levels are independent given the class.

    The class is the column of levels, or none, at which a fifth of the training rows is likeliest;
    mixtures have as many components, from one to four, as make it likeliest.
    """
    held = np.arange(len(train.levels)) % 5 == 0
    best = (-np.inf, None, 1)
    for column in [None, *_varying(train.levels)]:
        for n_components in (1, 2, 3, 4):
            value = _classes(train.take(~held), column, n_components)(train.take(held)).mean()
            best = max(best, (value, column, n_components), key=lambda b: b[0])
    return _classes(train, *best[1:])


def _classes(train, column, n_components):
    def mixture(rows):
        z = train.z[rows]
        if not z.shape[1]:
            return lambda test: 0.0
        scale = np.where(z.std(axis=0) > 0, z.std(axis=0), 1.0)
        k = max(1, min(n_components, len(z) // (2 * z.shape[1])))
        fitted = GaussianMixture(k, reg_covar=1e-3, n_init=2, random_state=0).fit(z / scale)

        def log_density(test):
            terms = [
                np.log(weight) + _log_box(mean * scale, covariance * np.outer(scale, scale), test)
                for weight, mean, covariance in zip(
                    fitted.weights_, fitted.means_, fitted.covariances_, strict=True
                )
            ]
            return logsumexp(terms, axis=0)

        return log_density

    everything = np.ones(len(train.levels), dtype=bool)
    own = [everything]
    if column is not None:
        own = [train.levels[:, column] == value for value in range(train.n_levels[column])]
    overall = mixture(everything)
    mixtures = [mixture(rows) if rows.sum() >= FEWEST else overall for rows in own]

    def log_density(test):
        result = np.empty(len(test.levels))
        for value, (rows, fitted) in enumerate(zip(own, mixtures, strict=True)):
            used = np.flatnonzero(
                test.levels[:, column] == value if column is not None else np.ones(len(result))
            )
            if not len(used):
                continue
            queries = test.take(used)
            counted = train.levels[rows] if rows.any() else train.levels
            others = _frequencies(counted, queries.levels, train.n_levels)
            if column is not None:
                overall_frequencies = _frequencies(train.levels, queries.levels, train.n_levels)
                others[:, column] = overall_frequencies[:, column]
            result[used] = others.sum(axis=1) + fitted(queries)
        return result

    return log_density


def _log_box(mean, covariance, test):
    """Return the log-probabilities (n,) of cells under a normal distribution, times densities.

    Exact coordinates come first, then the cells one after another along the Cholesky factor: each is a
    difference of distribution functions given the ones before, drawn at fixed points of their cells
    (Geweke, Hajivassiliou and Keane).
    """
    is_cell = ~(test.low == test.high).all(axis=0)
    order = np.argsort(is_cell, kind="stable")
    n_exact, n_cells = int((~is_cell).sum()), int(is_cell.sum())
    factor = np.linalg.cholesky(covariance[np.ix_(order, order)])
    low, high = (each[:, order] - mean[order] for each in (test.low, test.high))
    known = solve_triangular(factor[:n_exact, :n_exact], low[:, :n_exact].T, lower=True).T
    log_exact = -0.5 * (known**2 + np.log(2 * np.pi)).sum(axis=1)
    log_exact -= np.log(np.diag(factor)[:n_exact]).sum()
    if not n_cells:
        return log_exact
    u = qmc.Sobol(n_cells, seed=0).random(N_POINTS if n_cells > 1 else 1)
    e = np.empty((len(u), len(low), n_exact + n_cells))
    e[:, :, :n_exact] = known
    log_mass = np.zeros((len(u), len(low)))
    for k in range(n_exact, n_exact + n_cells):
        center = e[:, :, :k] @ factor[k, :k]
        a, b = ((each[:, k] - center) / factor[k, k] for each in (low, high))
        log_mass += _log_normal_mass(a, b)
        is_right = a > 0
        a, b = np.where(is_right, -b, a), np.where(is_right, -a, b)
        below = ndtr(a)
        drawn = ndtri(below + u[:, None, k - n_exact] * (ndtr(b) - below))
        drawn = np.clip(drawn, np.maximum(a, -1e9), np.minimum(b, 1e9))
        e[:, :, k] = np.where(is_right, -drawn, drawn)
    return log_exact + logsumexp(log_mass, axis=0) - np.log(len(u))


METHODS = {
    "statsmodels, rule of thumb": statsmodels_kde(by_likelihood=False),
    "statsmodels, likelihood": statsmodels_kde(by_likelihood=True),
    "one-hot + KDE": one_hot_kde,
    "mixture per class": mixture_per_class,
}
