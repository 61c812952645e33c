"""Bandwidth selection: rules of thumb scaled by the data, and leave-one-out likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from ._engine.hierarchy import PointHierarchy
from ._engine.periodic import make_posterior
from ._utils.backend import Backend
from ._utils.column_precision import has_extent
from ._utils.gaussian import gaussian_log_normalizer
from ._utils.kernel_weights import log_wrapped_kernel
from ._utils.periods import reduced, wrapped
from ._utils.progress import counted, tracked
from ._utils.rows import evenly
from ._utils.units import column_norms
from ._utils.validation import check_real_array
from ._utils.warnings import warn_user

# The leave-one-out likelihood takes time of order N^2. With more than _LARGEST_EXACT rows, _HELD_OUT
# rows are scored by the density of the others, of which close ones are merged (tolerance in nats).
# The likelihoods of two bandwidths then differ with a standard error of some thousandths of a nat.
_LARGEST_EXACT = 20_000
_HELD_OUT = 4000
_HELD_OUT_TOLERANCE = 0.05
# The search starts with the likelihood of `_FEW` rows, whose distances from all points are stored. With
# more rows it then fits up to `_MOST_STEPS` parabolas through three bandwidths, `_STEP` apart in log h.
_FEW = 256
_STEP, _MOST_STEPS = 0.05, 4
# Relative precision of a bandwidth that is only used to compare models (`is_screening`). Such an error
# changes their likelihoods by less than a ten-thousandth.
_PRECISION_OF_SCREENING = 1e-2
# A draw is a near-copy of its row if it is closer to it than _COPIES times the distance between that row
# and its nearest other row, as in `metrics.memorization`. At most _COMPARED rows are checked, against
# _ROWS_AT_ONCE at a time; fewer rows than _FEWEST_COMPARED are not. Figures: docs/evidence/trust.md.
_COPIES, _COMPARED, _ROWS_AT_ONCE, _FEWEST_COMPARED = 1 / 3, 64, 4096, 10
# Approximate number of likelihoods that a search computes, for reports of its progress.
_EVALUATIONS = 24

LogLikelihood = Callable[[float], float]

__all__ = [
    "Queries",
    "gaussian_leave_one_out",
    "maximize_leave_one_out",
    "maximize_near",
    "nearest_distances",
    "scott",
    "silverman",
    "stationary_bracket",
    "warn_of_copies",
    "weight_of_others",
    "zero_bandwidth",
]


class Queries(NamedTuple):
    """Queries of a leave-one-out likelihood: each is scored by the density of all points but one."""

    x: np.ndarray
    """Queries (n_queries, r), in the coordinates of the points."""
    exclude: np.ndarray
    """Index (n_queries,) of the point that each query excludes."""
    weights: np.ndarray
    """Weights (n_queries,) of the queries; they sum to one."""

    @classmethod
    def at_points(cls, points: np.ndarray, weights: np.ndarray) -> Queries:
        """Return the points themselves as queries."""
        return cls(points, np.arange(len(points)), weights)

    def evenly(self, most: int) -> Queries:
        """Return at most `most` queries, evenly spaced in the order of distance from the origin."""
        if len(self.x) <= most:
            return self
        order = np.argsort(np.sum(self.x**2, axis=1), kind="stable")
        taken = np.sort(order[evenly(len(order), most)])
        weights = self.weights[taken]
        return Queries(self.x[taken], self.exclude[taken], weights / weights.sum())

    def nearest_distances(
        self, points: np.ndarray, periods: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the distance (n_queries,) of each query from its nearest point that is not excluded."""
        distances, nearest = _nearest_two(points, self.x, periods)
        # Of points at the same distance any may come first.
        return np.where(nearest[:, 0] == self.exclude, distances[:, 1], distances[:, 0])


def weight_of_others(weights: np.ndarray) -> np.ndarray:
    """Return 1 - w_i for weights (n_points,) that sum to one, exactly also if w_i is near one."""
    others = 1 - weights
    heaviest = np.argmax(weights)
    others[heaviest] = np.delete(weights, heaviest).sum()
    return others


def _checked(points: np.ndarray) -> np.ndarray:
    """Return points (n_points, d) after checking that they are finite numbers."""
    points = check_real_array("points", points)
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise ValueError(
            f"points of shape {points.shape} are not a finite array of shape (n_points, d). Pass "
            "distinct rows, without NaN or infinity."
        )
    return points


def _rule_of_thumb(points: np.ndarray, weights: np.ndarray, constant: float) -> np.ndarray:
    """Return std_j * (constant * n_eff)^(-1 / (d + 4)) of each feature; `points` are checked."""
    weights = check_real_array("weights", weights)
    if weights.shape != (len(points),) or not (np.all(weights >= 0) and np.isfinite(weights).all()):
        raise ValueError(
            f"weights of shape {weights.shape} are not {len(points)} finite numbers >= 0, one for "
            "each row of points. Pass np.full(len(points), 1 / len(points)) for equal weights."
        )
    check_several(points, "a rule-of-thumb bandwidth")
    center = weights @ points
    concentration = np.sum(weights**2)
    # Divided by 1 - sum w^2 the weighted variance is unbiased; N - 1 for equal weights.
    unbiased = weights @ weight_of_others(weights)
    data_std = column_norms(np.sqrt(weights)[:, None] * (points - center)) / np.sqrt(unbiased)
    # The mean of a constant column is rounded, so that deviations from it are not exactly zero.
    varies = has_extent(points) & (data_std > 0)
    if not np.all(varies):
        raise zero_bandwidth(np.flatnonzero(~varies).tolist())
    d = points.shape[1]
    return data_std * (constant / concentration) ** (-1 / (d + 4))


def zero_bandwidth(columns: list[Any]) -> ValueError:
    """Return the error that a rule of thumb is zero in constant columns, given by name or index."""
    return ValueError(
        f"a rule-of-thumb bandwidth is zero in the constant columns {columns}; drop them or use 'loo'"
    )


def scott(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Scott's bandwidth of each feature, std_j * n_eff^(-1 / (d + 4)).

    Parameters
    ----------
    points : ndarray of shape (n_points, d)
        Distinct rows.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one; n_eff is 1 / sum(weights**2).

    Returns
    -------
    ndarray of shape (d,)
        In units of each feature.

    Raises
    ------
    ValueError
        If points or weights are not finite numbers, or there is a single row or a constant column.

    References
    ----------
    D. W. Scott, Multivariate Density Estimation, 1992, eq. 6.42.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.bandwidth import scott
    >>> scott(np.array([[0.0, 0.0], [1.0, 10.0]]), np.array([0.5, 0.5])).round(3)
    array([0.63, 6.3 ])
    """
    return _rule_of_thumb(_checked(points), weights, 1.0)


def silverman(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Silverman's bandwidth of each feature, std_j * (n_eff (d + 2) / 4)^(-1 / (d + 4)).

    Parameters
    ----------
    points : ndarray of shape (n_points, d)
        Distinct rows.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one; n_eff is 1 / sum(weights**2).

    Returns
    -------
    ndarray of shape (d,)
        In units of each feature.

    Raises
    ------
    ValueError
        If points or weights are not finite numbers, or there is a single row or a constant column.

    References
    ----------
    B. W. Silverman, Density Estimation for Statistics and Data Analysis, 1986, eq. 4.14.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.bandwidth import silverman
    >>> silverman(np.array([[0.0, 0.0], [1.0, 10.0]]), np.array([0.5, 0.5])).round(3)
    array([0.63, 6.3 ])
    """
    points = _checked(points)
    return _rule_of_thumb(points, weights, (points.shape[1] + 2) / 4)


def check_several(points: np.ndarray, what: str = "a leave-one-out bandwidth") -> None:
    """Raise ValueError if there is a single point; `what` needs several."""
    if len(points) < 2:
        raise ValueError(
            f"{what} needs at least two distinct rows, got n_samples = 1 after merging equal rows"
        )


def nearest_distances(points: np.ndarray, periods: np.ndarray | None = None) -> np.ndarray:
    """Return the distances (n_points,) of distinct points (n_points, d) from the nearest other points.

    `periods` (d,) has the period of each coordinate, 0 for none. A single point raises ValueError.
    """
    check_several(points)
    # A tree uses coordinate differences; from products of coordinates, small distances are rounding.
    return _nearest_two(points, points, periods)[0][:, 1]


def warn_of_copies(
    scales: str,
    distance: float,
    points: np.ndarray,
    weights: np.ndarray,
    periods: np.ndarray | None = None,
) -> None:
    """Warn if draws are so close to their training rows that most of them are near-copies.

    `distance` is the distance of a typical draw from its row, points (n_points, d) are distinct, and
    `scales` names the parameters in the message. The bandwidth of highest leave-one-out likelihood is
    never that small: times sqrt(d) it is at least the root mean square distance of points from their
    nearest other points (`stationary_bracket`).
    """
    # Rows of higher weight mostly represent several equal rows; draws near these are no sign of copying.
    if len(points) < _FEWEST_COMPARED or np.median(weights) > 1.5 * weights.min():
        return
    taken = evenly(len(points), _COMPARED)
    squares = np.full(len(taken), np.inf)
    n_parts = -(-len(points) // _ROWS_AT_ONCE)
    for part in range(n_parts):
        others = np.arange(part, len(points), n_parts)
        distances = _squared_distances(points[taken], points[others], periods)
        distances[taken[:, None] == others] = np.inf
        np.minimum(squares, distances.min(axis=1), out=squares)
        nearest = float(np.sqrt(np.median(squares)))
        # More rows can only lower the nearest distances, so there is nothing to warn of.
        if distance >= _COPIES * nearest:
            return
    warn_user(
        f"{scales}: draws are at about {distance / nearest:.1g} of the distance of a training row from "
        f"its nearest other row (median of {len(taken)} rows), so that most draws are near-copies "
        "of training rows, and other rows have a low density. Leave the scales at their defaults, or "
        f"multiply them by {nearest / distance:.1g} or more."
    )


def _squared_distances(x: np.ndarray, points: np.ndarray, periods: np.ndarray | None) -> np.ndarray:
    """Return squared distances (n, n_points) of rows x (n, d) and points (n_points, d)."""
    periods = np.zeros(points.shape[1]) if periods is None else periods
    squares = cdist(x[:, periods == 0], points[:, periods == 0], "sqeuclidean")
    for column in np.flatnonzero(periods):
        squares += wrapped(x[:, column, None] - points[:, column], float(periods[column])) ** 2
    return squares


def _nearest_two(
    points: np.ndarray, x: np.ndarray, periods: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances (n, 2) of queries x (n, d) from the two nearest points, and their indices."""
    if periods is None:
        return cKDTree(points).query(x, k=2)
    # A periodic tree requires coordinates between zero and the period.
    points, x = reduced(points, periods), reduced(x, periods)
    return cKDTree(points, boxsize=periods).query(x, k=2)


def stationary_bracket(
    points: np.ndarray,
    weights: np.ndarray,
    queries: Queries | None = None,
    periods: np.ndarray | None = None,
) -> tuple[float, float]:
    """Return bounds on the bandwidths h at which the Gaussian leave-one-out likelihood is stationary.

    At a stationary point h^2 d is the mean squared distance to the other points under the posterior
    weights. These favour near points, so h^2 d is between the mean squared distance to the *nearest*
    other point and the mean squared distance to *all* others. Points (n_points, d) are distinct, weights
    sum to one; a single point raises ValueError. The likelihood is that of the points, or of `queries`.

    With `periods` (d,), 0 for a coordinate without one, each point is repeated at whole periods (its
    images). Under the kernel the mean squared distance to the images of a point is at most h^2 plus the
    squared distance to the nearest one, so h^2 is bounded if any coordinate has no period. If all have
    one, the upper bound is the longest period: from there on the kernel is uniform.
    """
    check_several(points)
    if queries is None:
        queries = Queries.at_points(points, weights)
    if periods is not None:
        return _stationary_bracket_of_periods(points, weights, queries, periods)
    d, mean, exclude = points.shape[1], weights @ points, queries.exclude
    # sum_j w_j |x_i - x_j|^2 = |x_i - mean|^2 + total variance; the mean is over the other points.
    to_all = np.sum((queries.x - mean) ** 2, axis=1) + weights @ np.sum(
        (points - mean) ** 2, axis=1
    )
    to_own = weights[exclude] * np.sum((queries.x - points[exclude]) ** 2, axis=1)
    to_others = (to_all - to_own) / weight_of_others(weights)[exclude]
    nearest = queries.nearest_distances(points)
    return (
        float(np.sqrt(queries.weights @ nearest**2 / d)),
        float(np.sqrt(queries.weights @ to_others / d)),
    )


def _stationary_bracket_of_periods(
    points: np.ndarray, weights: np.ndarray, queries: Queries, periods: np.ndarray
) -> tuple[float, float]:
    """Return `stationary_bracket` for coordinates with periods (d,), 0 where one has none."""
    nearest = queries.nearest_distances(points, periods)
    lower = math.sqrt(queries.weights @ nearest**2 / len(periods))
    is_linear = periods == 0
    if not is_linear.any():
        return lower, float(periods.max())
    linear = points[:, is_linear]
    mean = weights @ linear
    to_all = np.sum((queries.x[:, is_linear] - mean) ** 2, axis=1)
    to_all += weights @ np.sum((linear - mean) ** 2, axis=1)
    # Distances to the excluded point are included, which can only raise the bound.
    to_others = float(queries.weights @ (to_all / weight_of_others(weights)[queries.exclude]))
    to_others += float(np.sum(periods**2)) / 4
    return lower, math.sqrt(to_others / is_linear.sum())


def maximize_leave_one_out(
    log_likelihood: LogLikelihood, lower: float, upper: float, precision: float = 1e-3
) -> float:
    """Return the bandwidth between two bounds at which a leave-one-out log-likelihood is highest.

    The best of twelve bandwidths, equally spaced in log h, is refined by Brent's method to a relative
    `precision`; by default 0.1 %, within which the likelihood is constant to a millionth.
    `log_likelihood` is a mean in nats and may be -inf.
    """
    if upper <= 1.001 * lower:
        return lower
    grid = np.geomspace(lower, upper, 12)
    with counted(_EVALUATIONS) as done:

        def counting(h: float) -> float:
            value = log_likelihood(h)
            done()
            return value

        on_grid = [counting(h) for h in grid.tolist()]
        best = int(np.argmax(on_grid))
        result = minimize_scalar(
            lambda log_h: -counting(float(np.exp(log_h))),
            bounds=np.log([grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]]),
            method="bounded",
            options={"xatol": precision},
        )
    # Where the likelihood has jumps, the search may end below the best of the grid.
    refined = float(np.exp(result.x))
    return refined if -result.fun >= on_grid[best] else float(grid[best])


def gaussian_leave_one_out(
    points: np.ndarray,
    weights: np.ndarray,
    codimension: int,
    backend: Backend,
    memory_limit: float,
    queries: Queries | None = None,
    periods: np.ndarray | None = None,
    *,
    is_screening: bool = False,
    near: float | None = None,
) -> float:
    """Return the bandwidth of highest leave-one-out likelihood of the Gaussian kernel.

    Points (n_points, r) are distinct, centred and in coordinates of their affine hull; they coincide in
    `codimension` more dimensions. Weights sum to one, and `memory_limit` is in MiB. With more than 256
    points the search starts with the likelihood of 256 of them, evenly spaced in the order of distance
    from the origin, and near the bandwidth `near`, if given. Then, unless `is_screening`, it continues
    with the likelihood of all points. This is exact up to 20 000 points; with more, it is that of 4000
    points, evenly spaced in their order, under the others, which are merged where at most half remain.
    `queries`, if given, are scored instead of the points, two of which may then be equal. `periods` (r,)
    has the period of each coordinate, 0 for none. A single point raises ValueError.
    """
    lower, upper = stationary_bracket(points, weights, queries, periods)
    scored = Queries.at_points(points, weights) if queries is None else queries
    # The bounds are for r dimensions; in the others all distances are zero, which lowers both bounds.
    shrink = np.sqrt(points.shape[1] / (points.shape[1] + codimension))
    lower, upper = lower * shrink, upper * shrink

    def over_all_dimensions(log_likelihood: LogLikelihood) -> LogLikelihood:
        return lambda h: log_likelihood(h) - codimension * np.log(h)

    if len(points) > _LARGEST_EXACT:
        of = _held_out_log_likelihood(points, weights, lower, backend, memory_limit, periods)
        held = np.isin(scored.exclude, _held_out(len(points)))
        held_weights = scored.weights[held] / scored.weights[held].sum()
        scored = Queries(scored.x[held], scored.exclude[held], held_weights)
        few = scored.evenly(_FEW)
        of_few, of_all = of(few), of(scored)
    else:
        of = _leave_one_out_log_likelihood(points, weights, backend, memory_limit, periods)
        few = scored if len(points) <= _FEW else scored.evenly(_FEW)
        # Distances, and an array of their size for the terms of sums.
        bytes_per_pair = 16 if periods is None else 8 * (5 + np.count_nonzero(periods))
        is_kept = bytes_per_pair * len(few.x) * len(points) <= memory_limit * 2**20
        by_distances = _log_likelihood_by_distances
        of_few = by_distances(points, weights, few, periods) if is_kept else of(few)
        of_all = of(scored)
    with counted(len(scored.x)) as done:
        done.size = len(few.x)
        precision = _PRECISION_OF_SCREENING if is_screening else 1e-3
        start = over_all_dimensions(of_few)
        if near is None:
            h = maximize_leave_one_out(start, lower, upper, precision)
        else:
            h = maximize_near(start, near, lower, upper)
        done()
        if is_screening or few is scored:
            return h
        done.size = len(scored.x) - len(few.x)
        return maximize_near(over_all_dimensions(of_all), h, lower, upper)


def maximize_near(log_likelihood: LogLikelihood, h: float, lower: float, upper: float) -> float:
    """Return the bandwidth near h at which a smooth log-likelihood is highest, to about 0.1 %.

    If there is no maximum near h, the whole interval from `lower` to `upper` is searched.
    """
    for _ in tracked(range(_MOST_STEPS)):
        below, at, above = (
            log_likelihood(h * math.exp(step)) for step in tracked((-_STEP, 0.0, _STEP))
        )
        curvature = 2 * at - below - above
        if not curvature > 0:
            break
        shift = (above - below) / (2 * curvature)
        if abs(shift) <= 1:
            return min(max(h * math.exp(shift * _STEP), lower), upper)
        h *= math.exp(min(max(shift, -_MOST_STEPS), _MOST_STEPS) * _STEP)
    return maximize_leave_one_out(log_likelihood, lower, upper)


def _log_likelihood_by_distances(
    points: np.ndarray, weights: np.ndarray, queries: Queries, periods: np.ndarray | None
) -> LogLikelihood:
    """Return the leave-one-out log-likelihood of queries by bandwidth, from stored distances."""
    periods = np.zeros(points.shape[1]) if periods is None else periods
    is_linear = periods == 0
    squares = cdist(queries.x[:, is_linear], points[:, is_linear], "sqeuclidean")
    squares[np.arange(len(squares)), queries.exclude] = np.inf
    # Relative to the nearest point, so that at no bandwidth all terms of a sum underflow.
    nearest = squares.min(axis=1)
    squares -= nearest[:, None]
    on_circles = []
    for column in np.flatnonzero(~is_linear):
        period = float(periods[column])
        differences = queries.x[:, column, None] - points[:, column]
        on_circles.append((wrapped(differences, period), period))
    # The weight of the other points does not depend on the bandwidth.
    others = float(queries.weights @ np.log(weight_of_others(weights)[queries.exclude]))
    terms, distance = np.empty_like(squares), float(queries.weights @ nearest)

    def log_likelihood(h: float) -> float:
        np.multiply(squares, -0.5 / h**2, out=terms)
        top = 0.0
        for differences, period in on_circles:
            np.add(terms, log_wrapped_kernel(differences, period, h), out=terms)
        if on_circles:
            highest = terms.max(axis=1)
            np.subtract(terms, highest[:, None], out=terms)
            top = float(queries.weights @ highest)
        sums = np.exp(terms, out=terms) @ weights
        top += float(queries.weights @ np.log(sums)) - distance / (2 * h**2)
        return top - gaussian_log_normalizer(points.shape[1], h**2) - others

    return log_likelihood


def _leave_one_out_log_likelihood(
    points: np.ndarray,
    weights: np.ndarray,
    backend: Backend,
    memory_limit: float,
    periods: np.ndarray | None = None,
) -> Callable[[Queries], LogLikelihood]:
    """Return a function that maps queries to their leave-one-out log-likelihood by bandwidth."""
    posterior = make_posterior(points, weights, periods, backend, memory_limit=memory_limit)

    def of(queries: Queries) -> LogLikelihood:
        x, row_weights = backend.tensor(queries.x), backend.tensor(queries.weights)
        exclude = torch.as_tensor(queries.exclude, device=x.device)
        return lambda h: float(row_weights @ posterior.log_density(x, h**2, exclude=exclude))

    return of


def _held_out(n_points: int) -> np.ndarray:
    """Return the indices of the held-out points, evenly spaced in the order of all points."""
    return np.linspace(0, n_points - 1, _HELD_OUT).astype(np.intp)


def _held_out_log_likelihood(
    points: np.ndarray,
    weights: np.ndarray,
    finest: float,
    backend: Backend,
    memory_limit: float,
    periods: np.ndarray | None,
) -> Callable[[Queries], LogLikelihood]:
    """Return a function that maps queries to their log-likelihood under all points not held out.

    `finest` is the smallest bandwidth at which close points are merged.
    """
    others = np.ones(len(points), dtype=bool)
    others[_held_out(len(points))] = False
    other_weights = weights[others] / weights[others].sum()
    hierarchy = PointHierarchy.of(points[others], other_weights, _HELD_OUT_TOLERANCE, finest)

    def of(queries: Queries) -> LogLikelihood:
        x = backend.tensor(queries.x)

        def log_likelihood(h: float) -> float:
            posterior = make_posterior(
                *hierarchy.at(h), periods, backend, memory_limit=memory_limit
            )
            return float(queries.weights @ backend.array(posterior.log_density(x, h**2)))

        return log_likelihood

    return of
