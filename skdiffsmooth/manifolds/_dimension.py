"""The intrinsic dimension of data, from the score of the noised rows over all noise scales.

With p_v the density of all other rows with Gaussian noise of variance v, a row has

    LID(v) = d + v (div s + |s|^2) = sum_j W_j |x_j - x|^2 / v,       W_j its posterior weights,

which is twice the derivative of log sum_j exp(-|x_j - x|^2 / 2v) in log v. For a Gaussian cloud of
variance L along each of k directions, and noise of variance t^2 in all d, the mean over rows is

    k [1 - (v / (v + L))^2] + (d - k) [1 - (v / (v + t^2))^2];

curvature and borders change it by a term that is linear in small v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist

from .._coordinates.hull import AffineHull
from .._utils.dequantize import dequantized
from .._utils.rows import merge_rows
from .._utils.table import check_table, column_names
from .._utils.validation import check_choice, check_extent, check_integer, check_size
from .._utils.warnings import part_of_a_fit
from ._dimension_curve import DimensionCurve
from ._dimension_fit import DimensionFit

__all__ = ["IntrinsicDimension", "check_n_components", "intrinsic_dimension"]

# Largest number of pairs of rows for "auto": more take long and rarely change the rounded estimate.
_MOST_PAIRS = 2e7
# Number of rows whose distances bound the variance of the cloud: by the lower quartile of their squares
# times a factor, which exceeds the variance of uniform and Gaussian clouds of any dimension.
_SOME_ROWS, _WIDEST_CLOUD = 1000, 5.0


@dataclass(frozen=True)
class IntrinsicDimension:
    """The result of `intrinsic_dimension`; ``float(result)`` is its dimension.

    Parameters
    ----------
    dimension : float
        Dimension k at the smallest scale that the rows resolve, without the noise; not rounded. It is
        between zero and the dimension of the affine hull of the rows.
    dimension_error : float
        Standard error from the sampling of the rows (an infinitesimal jackknife) and from the model (at
        least 4 % of the dimension). It does not include the effect of borders.
    noise_variance : float
        Variance t^2 of the noise normal to the manifold, in each direction, in units of X squared.
    noise_variance_error : float
        Its standard error; infinite if the manifold has the dimension of the hull, so that no direction
        is normal to it.
    curvature : float
        Mean slope of LID in v without the part of the noise, from v = 0 to the geometric middle of the
        noise variances, in units of X to the power of -2: -k (k - 2) / 4R^2 on a sphere of radius R;
        borders add to it.
    curvature_error : float
        Its standard error.
    row_dimensions : ndarray of shape (n,)
        LID of each row of X minus the part of the noise, at the smallest noise scale at which most rows
        have several neighbours: k plus the effects of curvature, borders and few neighbours.
    noise_scales : ndarray of shape (n_levels,)
        Standard deviations of the added noise, sqrt(v), increasing, in units of X.
    curve : ndarray of shape (n_levels,)
        Mean LID over the rows at these scales, minus the excess from few neighbours.
    curve_error : ndarray of shape (n_levels,)
        Standard errors of `curve` from the sampling of the rows.
    fitted_curve : ndarray of shape (n_levels,)
        Values of the fitted model at these scales.
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
        Rows; rows that are equal, exactly or up to rounding, are merged and their weights added.
        Columns of rounded values get uniform noise as wide as the rounding unit, since the neighbours
        of a row on a lattice are all at the same distance.

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
    variance. LID is constant in no range of scales, so dimension, noise variance and a linear term are
    fitted to the whole curve: generalised least squares with the covariance of the curve and with the
    errors of the model, up to 10 % of LID at large noise and half of the excess from few neighbours. The
    noise variance is bounded by the smallest variances of the rows along principal axes.

    The estimate is unreliable where few rows must fill many dimensions: borders make it too small (8.9
    to 9.1 for 2000 rows uniform in a cube of ten dimensions). A direction along the manifold in which
    the rows extend less than a fifth as far as in others may be taken for noise. If the noise is not
    the same in all normal directions, those of the largest noise may be taken for dimensions. If parts
    of the data have different dimensions, the estimate is between these, and its error does not include
    that: see `row_dimensions`.

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

    Raises TypeError if it is not an integer or a string, and ValueError for another string or an integer
    that is not between 1 and `largest`.
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
    """Return the estimate from LID of a part of the rows, so that about `most_pairs` pairs are used.

    These rows, whose `row_dimensions` are returned, are evenly spaced in the order of their distances
    from the mean, so that the result depends neither on the order of the rows nor on rotations.
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
    # About the median: a far row would shift the mean, and the distances of all others lose digits.
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
    curve = DimensionCurve.of(coordinates, weights, queries)
    fit = DimensionFit.of(curve, np.linalg.eigvalsh((centered.T * weights) @ centered)[::-1])
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
