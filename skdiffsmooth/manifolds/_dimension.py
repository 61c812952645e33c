"""The intrinsic dimension of data, from the score of the noised rows over all noise scales.

With p_v the density of all other rows with Gaussian noise of variance v, a row has

    LID(v) = d + v (div s + |s|^2) = sum_j W_j |x_j - x|^2 / v,       W_j its posterior weights,

which is twice the derivative of log sum_j exp(-|x_j - x|^2 / 2v) in log v. The mean over rows of a
cloud of dimension k with noise of variance t^2 in all directions and variance L of its own along each is

    k [1 - (v / (v + L))^2] + (d - k) [1 - (v / (v + t^2))^2]

if the cloud is Gaussian; curvature and borders change it by a term that is linear in small v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import pdist

from .._coordinates.hull import AffineHull
from .._utils.dequantize import dequantized
from .._utils.memory import slices_within
from .._utils.rows import merge_rows
from .._utils.table import check_table, column_names
from .._utils.validation import check_choice, check_extent, check_integer, check_size
from .._utils.warnings import part_of_a_fit
from ._neighbors import NearestPoints

__all__ = ["IntrinsicDimension", "check_n_components", "intrinsic_dimension"]

MEMORY_LIMIT = 64.0
# Most pairs of rows for "auto": more take long and rarely change the rounded estimate.
_MOST_PAIRS = 2e7
# Rows whose distances give the size of the cloud: their lower quartile, squared, times a factor that is
# beyond the variance of uniform and of Gaussian clouds of any dimension.
_SOME_ROWS, _WIDEST_CLOUD = 1000, 5.0
# Noise variances for each factor of two, and the most factors of two below the cloud's variance.
_PER_OCTAVE, _MOST_OCTAVES = 2, 40
# Levels at which the mean square of the crowding (below) is larger are not used.
_MOST_CROWDING = 0.05
# What a Poisson process adds to LID, in units of k and of that mean square; simulated for k = 1 to 8,
# where it was 1.1 to 1.6.
_EXCESS = 1.2
# Relative standard deviations of what the model leaves out: at large noise, and of the excess.
_MODEL_ERROR, _EXCESS_ERROR = 0.1, 0.6
# Relative standard deviation of k itself, which uneven curvature and density shift at all noise scales.
_SHAPE_ERROR = 0.04
# Difference of log noise variances over which these errors are correlated.
_ALIKE = 0.7
# Prior standard deviation of the linear term, in units of k.
_LINEAR = 0.1
# The largest noise variance, in units of the cloud's along one direction.
_MOST_NOISE = 0.25
# The largest noise variance beside that of the rows: of the cloud, and of the smallest one used.
_WIDEST, _RANGE = 0.25, 8.0
# How far noise may exceed the rows' variances along the axes normal to the manifold, by chance.
_MARGIN = 1.3
# The smallest dimension of a cloud that is more than groups of rows.
_LEAST = 0.9
# Rows get their values at the smallest noise with a crowding below this.
_ROW_CROWDING = 0.01


@dataclass(frozen=True)
class IntrinsicDimension:
    """The result of `intrinsic_dimension`; ``float(result)`` is its dimension.

    Parameters
    ----------
    dimension : float
        Dimension k at the smallest scale that the rows resolve, without the noise; not rounded. It is
        between zero and the dimension of the affine hull of the rows.
    dimension_error : float
        Standard error: that of the rows' sampling (an infinitesimal jackknife), and the model's, which
        is at least 4 % of the dimension. It does not count borders.
    noise_variance : float
        Variance t^2 of the noise normal to the manifold, in each direction, in units of X squared.
    noise_variance_error : float
        Standard error; infinite where the manifold has the dimension of the hull, which no direction is
        normal to.
    curvature : float
        Slope of LID in v that is not due to noise, from zero to the middle of the noise variances, in
        units of X to the power of -2: -k (k - 2) / 4R^2 on a sphere of radius R; borders add to it.
    curvature_error : float
        Standard error.
    row_dimensions : ndarray of shape (n,)
        LID of each row of X less the noise's part, at the smallest noise at which most rows have
        several neighbours: k plus what curvature, borders and few neighbours make of it there.
    noise_scales : ndarray of shape (n_levels,)
        Standard deviations of the noise, increasing, in units of X.
    curve : ndarray of shape (n_levels,)
        Mean LID over the rows at these scales, less the excess from few neighbours.
    curve_error : ndarray of shape (n_levels,)
        Standard errors of the rows' sampling.
    fitted_curve : ndarray of shape (n_levels,)
        The model's values.
    """

    dimension: float
    dimension_error: float
    noise_variance: float
    noise_variance_error: float
    curvature: float
    curvature_error: float
    row_dimensions: np.ndarray
    noise_scales: np.ndarray
    curve: np.ndarray
    curve_error: np.ndarray
    fitted_curve: np.ndarray

    def __float__(self) -> float:
        """Return the dimension."""
        return self.dimension


def intrinsic_dimension(X: Any) -> IntrinsicDimension:
    """Estimate the dimension of the manifold near which the data lie, its noise and its curvature.

    Distances are Euclidean: bring columns of different units to comparable scales first.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Rows; copies of rows, also up to rounding, become one row with the sum of their weights.
        Columns that were rounded get uniform noise of one unit, since the neighbours of rows on a
        lattice are equally far.

    Returns
    -------
    IntrinsicDimension
        ``float(result)`` is the dimension.

    Raises
    ------
    TypeError
        If X is not numeric.
    ValueError
        If X is not two-dimensional and finite, or has too few distinct rows for a range of noise
        scales at which rows have neighbours: at least about eight, in many dimensions more; or if
        the two nearest neighbours of every row are equally far, as in a lattice or a regular polygon:
        at the scale of its steps LID is not a dimension (1.8 +- .4 for a polygon of 12 points).

    Notes
    -----
    The local dimension LID of the score, with each row left out, is averaged over the rows at noise
    scales from the cloud's size down to the spacing of its rows, two for each factor of two in the
    variance. It has no flat range, so dimension, noise variance and a linear term are fitted to the
    whole curve: generalised least squares with the covariance of the curve and with the errors of the
    model, 10 % at noise as large as the cloud and 60 % of what few neighbours add. The noise variance
    is bounded by the smallest variances of the rows along principal axes.

    It is unreliable where few rows must fill many dimensions: borders make it too small (8.9 to 9.1
    for 2000 rows uniform in a cube of ten dimensions). A direction along the manifold in which the rows
    extend less than a fifth as far as in others may count as noise. Where noise is not of one size in
    all normal directions, its largest directions count as dimensions. Where parts of the rows have
    several dimensions, it is between these, and the errors do not count that: see `row_dimensions`.

    Costs 20 to 30 passes over the n^2 distances, O(n^2 d) for these; temporaries take 64 MiB.

    References
    ----------
    LID from scores: Kamkari et al., NeurIPS 2024, and Stanczuk et al., ICML 2024. Dimension and noise
    from Gaussian kernels: Diks, Physical Review E 53, 1996.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.manifolds import intrinsic_dimension
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 3))
    >>> X = X / np.linalg.norm(X, axis=1, keepdims=True) @ np.eye(3, 10)
    >>> result = intrinsic_dimension(X + 0.05 * rng.normal(size=X.shape))
    >>> round(result.dimension, 1), round(result.noise_variance**0.5, 2)
    (1.9, 0.05)
    """
    return _estimate(X, np.inf)


def check_n_components(value: Any, points: np.ndarray, largest: int) -> int:
    """Return a number of components after checking it, or an estimate from points for "auto".

    A value of another type raises TypeError, one that is not between 1 and `largest` ValueError.
    """
    hint = "Pass an integer, or 'auto' for an estimate."
    if isinstance(value, str):
        check_choice("n_components", value, ("auto",), hint=hint)
        with part_of_a_fit():
            return int(np.clip(round(_estimate(points, _MOST_PAIRS).dimension), 1, largest))
    n_components = check_integer("n_components", value, minimum=1, hint=hint)
    if n_components > largest:
        raise ValueError(
            f"n_components={n_components} is too large; expected at most {largest}, the dimension of "
            f"the span of the data. {hint}"
        )
    return n_components


def _estimate(X: Any, most_pairs: float) -> IntrinsicDimension:
    """Estimate the dimension from LID of rows that have at most `most_pairs` distances to all rows.

    These rows, whose `row_dimensions` are returned, are evenly spaced in the order of their distances
    from the mean, which does not depend on the order of rows nor on rotations.
    """
    rows = check_table(X, "intrinsic_dimension")
    check_size("X", rows)
    check_extent(rows, "X")
    merged = merge_rows(rows, np.ones(len(rows)), by_column=False)
    merged.warn(column_names(X))
    points, distinct = dequantized(merged.points, merged.weights, merged.precision.width)
    copies = np.bincount(distinct)
    weights = (merged.weights / copies)[distinct]
    hull = AffineHull.of(points)
    if hull.dimension == 0:
        raise ValueError(
            f"X has 1 distinct row among {len(rows)}; expected several, from which the dimension is "
            "estimated. Pass more rows."
        )
    # A far row would shift the mean, and with it round the distances of all others.
    coordinates = (points - np.median(points, axis=0)) @ hull.basis
    centered = coordinates - weights @ coordinates
    squares = np.sum(centered**2, axis=1)
    order = np.argsort(squares, kind="stable")
    some = coordinates[order[:: -(-len(points) // _SOME_ROWS)]]
    # Far rows and far groups of rows must not set the size of the cloud.
    quartile = np.quantile(pdist(some, "sqeuclidean"), 0.25)
    variance = float(weights @ squares)
    unit = float(min(variance, _WIDEST_CLOUD * quartile)) or variance
    coordinates, centered = coordinates / np.sqrt(unit), centered / np.sqrt(unit)
    step = max(1, math.ceil(len(points) ** 2 / most_pairs))
    queries = np.sort(order[::step])
    curve = _Curve.of(coordinates, weights, queries)
    fit = _Fit.of(curve, np.linalg.eigvalsh((centered.T * weights) @ centered)[::-1])
    row_dimensions = curve.lid[:, fit.row_level] - fit.noise_part
    if step == 1:
        row_dimensions = (np.bincount(distinct, row_dimensions) / copies)[merged.index]
    k, noise, slope = fit.values
    return IntrinsicDimension(
        k,
        float(fit.errors[0]),
        noise * unit,
        float(fit.errors[1] * unit),
        slope / unit,
        float(fit.errors[2] / unit),
        row_dimensions,
        np.sqrt(fit.variances * unit),
        fit.mean,
        np.sqrt(np.diag(fit.covariance)),
        fit.fitted,
    )


@dataclass(frozen=True)
class _Curve:
    """LID at increasing noise variances (L,): of Q queries (Q, L), and its mean over them (L,).

    `crowding` (L,) is the mean over queries of (sum_j W_j^2)^2, one where each has one neighbour.
    `influence` (L, N) is the derivative of the mean in the logarithm of the weight of each row.
    """

    variances: np.ndarray
    lid: np.ndarray
    mean: np.ndarray
    crowding: np.ndarray
    influence: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray, queries: np.ndarray) -> _Curve:
        """Compute the curve of centred points (N, d) of a cloud of size one, at `queries` (Q,)."""
        k = min(3, len(points))
        nearest = NearestPoints(points, MEMORY_LIMIT).query(torch.from_numpy(points), k)[0].numpy()
        if k == 3 and np.all(np.ptp(nearest[:, 1:], axis=1) < 1e-9 * nearest[:, -1]):
            raise ValueError(
                "the two nearest neighbours of every row of X are equally far, as in a lattice; "
                "expected different distances, from which the dimension is estimated. Pass the number "
                "of components as an integer."
            )
        # Below this noise most rows have one neighbour at most.
        smallest = np.median(nearest[:, 1]) ** 2 / 16
        octaves = np.clip(np.ceil(np.log2(1 / smallest)), 1, _MOST_OCTAVES)
        variances = 2.0 ** (np.arange(-int(octaves) * _PER_OCTAVE, 1) / _PER_OCTAVE)
        shape = len(queries), len(variances)
        lid, crowding = np.empty(shape), np.empty(shape)
        slopes = np.zeros((len(variances), len(points)))
        squares = np.sum(points**2, axis=1)
        powers = np.column_stack([weights, weights**2])
        for part in slices_within(len(queries), 5 * 8 * len(points), MEMORY_LIMIT):
            rows = queries[part]
            own = np.arange(len(rows)), rows
            distances = squares[rows, None] + squares - 2 * points[rows] @ points.T
            np.maximum(distances, 0, out=distances)
            distances[own] = np.inf
            # Kernels are relative to that of the nearest point, so that no sum is zero.
            shifted = distances - distances.min(axis=1, keepdims=True)
            # Rows so far away that their distances are rounded by more have one neighbour, and LID zero.
            far = np.flatnonzero(8 * np.finfo(np.float64).eps * squares[rows] > variances[0])
            shifted[far] = np.inf
            shifted[far, distances[far].argmin(axis=1)] = 0.0
            distances[far] = 0.0
            distances[own] = 0.0
            for last in range(len(variances) - _PER_OCTAVE, len(variances)):
                # Half the variance squares the kernel, whose sums are those of squares one level up.
                kernels = np.exp(-shifted / (2 * variances[last]))
                sums, moments = kernels @ powers, (products := kernels * distances) @ powers
                for level in range(last, -1, -_PER_OCTAVE):
                    v, total = variances[level], sums[:, 0]
                    mean = moments[:, 0] / total
                    row_weights = weights[rows] / total
                    slopes[level] += row_weights / v @ products - (row_weights * mean / v) @ kernels
                    np.square(kernels, out=kernels)
                    np.multiply(kernels, distances, out=products)
                    sums, moments = kernels @ powers, products @ powers
                    crowded = sums[:, 1] / total**2
                    crowding[part, level] = crowded
                    # Log-sums of few neighbours lack half of sum_j W_j^2 on average.
                    lid[part, level] = (mean + moments[:, 1] / total**2 - crowded * mean) / v
        # A row without neighbours has no dimension.
        average_weights = weights[queries, None] * np.maximum(
            1 - crowding, np.finfo(np.float64).tiny
        )
        total = average_weights.sum(axis=0)
        average = (average_weights * lid).sum(axis=0) / total
        influence = slopes * weights / weights[queries].sum()
        influence[:, queries] += (average_weights * (lid - average) / total).T
        crowded = weights[queries] @ crowding**2 / weights[queries].sum()
        return cls(variances, lid, average, crowded, influence)


@dataclass(frozen=True)
class _Fit:
    """The model of the curve with the smallest error, at the levels (L,) that are used.

    `values` and `errors` are of k, of the noise variance and of the slope of LID without noise.
    """

    variances: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    fitted: np.ndarray
    values: tuple[float, float, float]
    errors: np.ndarray
    row_level: int
    noise_part: float
    noise_is_largest: bool

    @classmethod
    def of(cls, curve: _Curve, axis_variances: np.ndarray) -> _Fit:
        """Fit the curve of a cloud with the variances (d,) along its principal axes, decreasing.

        Where a wide range of noise gives no dimension, or noise as large as allowed, the cloud may be
        groups of rows: the range, and with it the size of a group, is halved until there is another.
        """
        has_neighbors = curve.crowding <= _MOST_CROWDING
        smallest = curve.variances[has_neighbors][0] if has_neighbors.any() else 0.0
        widest = max(_WIDEST, _RANGE * smallest)
        while True:
            is_used = has_neighbors & (curve.variances <= widest)
            fit = cls._within(curve, axis_variances, is_used, widest / _WIDEST)
            widest /= 2
            is_cloud = fit.values[0] >= _LEAST and not fit.noise_is_largest
            if is_cloud or widest < _RANGE * smallest:
                return fit

    @classmethod
    def _within(
        cls, curve: _Curve, axis_variances: np.ndarray, is_used: np.ndarray, size: float
    ) -> _Fit:
        """Fit the levels `is_used` (L,) of a cloud of at most a size, a variance."""
        d = len(axis_variances)
        size = min(float(np.sum(axis_variances**2) / np.sum(axis_variances)), size, 1.0)
        if not is_used.any():
            raise ValueError(
                f"X has {curve.influence.shape[1]} distinct rows in {d} dimensions: at no noise scale "
                "do they have neighbours; expected some eight rows or more, from which the dimension is "
                "estimated. Pass more rows, or the number of components as an integer."
            )
        v, crowding = curve.variances[is_used], curve.crowding[is_used]
        excess = 1 + _EXCESS * crowding
        mean, influence = curve.mean[is_used] / excess, curve.influence[is_used] / excess[:, None]
        covariance = influence @ influence.T
        relative = v / (v + size)
        alike = np.exp(-0.5 * (np.log(v[:, None] / v) / _ALIKE) ** 2)
        model_errors = (_MODEL_ERROR * relative * mean, _EXCESS_ERROR * crowding * mean)
        total = covariance + sum(np.outer(error, error) for error in model_errors) * alike
        # The last term bounds the condition number.
        total += 1e-6 * np.diag(mean**2)
        whiten = np.linalg.inv(np.linalg.cholesky(total))
        own, prior = 1 - relative**2, 1 / (_LINEAR * max(mean[0], 1.0))
        medians = np.array([np.median(axis_variances[k:]) for k in range(d)])

        def solve(noises: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Return errors at noise variances (K,), k and linear terms (K, 2), their derivatives."""
            part = _noise_curve(v, noises[:, None])
            shape = len(noises), len(v) + 1
            designs, targets = np.zeros((*shape, 2)), np.zeros(shape)
            designs[:, :-1, 0] = (own - part) @ whiten.T
            targets[:, :-1] = (mean - d * part) @ whiten.T
            designs[:, :-1, 1], designs[:, -1, 1] = whiten @ relative, prior
            cutoff = np.finfo(np.float64).eps * (len(v) + 1)
            free, linear = np.einsum("kij,kj->ik", np.linalg.pinv(designs, cutoff), targets)
            k = np.clip(free, 0, d)
            rest, column = targets - k[:, None] * designs[..., 0], designs[0, :, 1]
            linear = np.where(k == free, linear, rest @ column / (column @ column))
            errors = np.sum((np.outer(linear, column) - rest) ** 2, axis=1)
            # Noise is no larger than the median of the variances along the axes after the first k.
            bounds = _MARGIN * medians[np.minimum(np.round(k).astype(int), d - 1)]
            return np.where(noises <= bounds, errors, np.inf), np.column_stack([k, linear]), designs

        largest = _MOST_NOISE * min(v[-1], size)
        noises = np.append(0.0, np.geomspace(1e-3 * v[0], largest, 80))
        for _ in range(2):
            best = int(np.argmin(solve(noises)[0]))
            noise = float(noises[best])
            noises = np.linspace(noises[max(best - 1, 0)], noises[min(best + 1, 80)], 81)
        if solve(np.array([noise]))[1][0, 0] == d:
            # Nothing is normal to the manifold.
            noise = 0.0
        _, ((k, linear),), (design,) = solve(np.array([noise]))
        noise_curve = _noise_curve(v, noise)
        # Derivative of the noise's part in its variance.
        in_noise = np.append(whiten @ ((d - k) * 2 * v**2 / (v + noise) ** 3), 0)
        inverse = np.linalg.pinv((jacobian := np.column_stack([design, in_noise])).T @ jacobian)
        middle = np.sqrt(v[0] * v[-1])
        share = middle / (middle + size)
        slope = np.array([-(share**2), share, 0]) / middle
        of_noise = inverse[2, 2] if k < d else np.inf
        errors = [inverse[0, 0] + (_SHAPE_ERROR * k) ** 2, of_noise, slope @ inverse @ slope]
        level = int(np.argmax(crowding <= _ROW_CROWDING))
        return cls(
            v,
            mean,
            covariance,
            k * own + (d - k) * noise_curve + linear * relative,
            (float(k), noise, float(slope[0] * k + slope[1] * linear)),
            np.sqrt(errors),
            int(np.flatnonzero(is_used)[level]),
            float((d - k) * noise_curve[level]),
            noise > 0.7 * largest,
        )


def _noise_curve(v: np.ndarray, noise: float | np.ndarray) -> np.ndarray:
    """Return what one direction with noise of a variance adds to LID at noise variances v (L,)."""
    return 1 - (v / (v + noise)) ** 2
