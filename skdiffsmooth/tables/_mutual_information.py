"""Mutual information of two columns, from the distances of neighbouring draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma

from .._utils.validation import check_real
from .._utils.warnings import warn_user
from ._draws import Draws, Estimate, generator_of

# The fewest and the most draws, and the number of neighbours of each draw.
_FEWEST_PAIRS, _MOST_PAIRS, _N_NEIGHBORS = 1000, 81_000, 5
# Factors by which the number of draws grows until the error is the requested one.
_LEAST_GROWTH, _MOST_GROWTH = 1.5, 3.0


def mutual_information(
    model: Any, a: Any, b: Any, *, error: float = 0.02, random_state: Any = None
) -> Estimate:
    """Return the mutual information of two columns, in nats: 0 where they are independent.

    Parameters
    ----------
    model : estimator
        See `probability`.
    a, b : label or int
        Two columns of any kind.
    error : float, default=0.02
        Requested error in nats: draws, 1000 at first, are added until the estimated error is below it,
        up to 81 000.
    random_state : int, RandomState or None, default=None
        See `probability`.

    Returns
    -------
    Estimate
        The value in nats, at least zero, and its error: the root of the sum of the squares of the
        standard error, from ten parts of the draws, and of the estimated bias, the difference from the
        mean estimate from quarters of the draws.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As `probability`; also if both columns are the same.

    Warns
    -----
    UserWarning
        If the error stays above the requested one: one column may determine the other.

    Notes
    -----
    It is estimated from the distances between neighbouring draws, in which numbers are replaced by their
    normal scores, so that it does not depend on units. Columns with levels or atoms are allowed (Gao and
    others 2017); recorded values are moved at random within their cells, which does not change the
    information and leaves no ties. For correlations of 0, 0.5, 0.9 and 0.99 of two Gaussian columns the
    bias is below 0.025 nats at 2500 draws.

    Cost: that of the draws, and some microseconds for each.

    References
    ----------
    A. Kraskov, H. Stoegbauer, P. Grassberger, Estimating mutual information, Physical Review E 69, 2004.
    W. Gao, S. Kannan, S. Oh, P. Viswanath, Estimating mutual information for discrete-continuous
    mixtures, NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.tables import mutual_information
    >>> X = np.random.RandomState(0).multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=1000)
    >>> model = KDESampler(bandwidth=0.1).fit(X)
    >>> value, error = mutual_information(model, 0, 1, random_state=0)
    >>> bool(abs(value + 0.5 * np.log(1 - 0.8**2)) < 0.1), bool(error < 0.04)
    (True, True)
    """
    check_real("error", error)
    rng = generator_of(model, random_state)
    n, drawn = _FEWEST_PAIRS, Draws.of(model, _FEWEST_PAIRS, None, rng, "(a, b)", [a, b])
    columns = drawn.column(a), drawn.column(b)
    while True:
        first, second = (column.coordinates() for column in columns)
        value = float(_mixed_terms(first, second).mean())
        # Terms of near draws are correlated: an error from their standard deviation would be too small.
        of_parts = _means_of_parts(first, second, 10)
        standard_error = of_parts.std(ddof=1) / math.sqrt(len(of_parts))
        reached = math.hypot(standard_error, value - _means_of_parts(first, second, 4).mean())
        if reached <= error or n >= _MOST_PAIRS:
            break
        before, growth = n, (1.1 * reached / error) ** 2
        n = min(math.ceil(before * min(max(growth, _LEAST_GROWTH), _MOST_GROWTH)), _MOST_PAIRS)
        more = Draws.of(model, n - before, None, rng, "(a, b)", [a, b])
        columns = columns[0].followed_by(more.column(a)), columns[1].followed_by(more.column(b))
    if reached > error:
        warn_user(
            f"the estimated error of the mutual information of {a!r} and {b!r} is {reached:.2g} nats "
            f"after {n} draws, and {error:g} was requested: one column may determine the "
            "other, for which the mutual information is infinite. Take the value as a lower bound."
        )
    return Estimate(max(value, 0.0), reached)


def _means_of_parts(a: np.ndarray, b: np.ndarray, n_parts: int) -> np.ndarray:
    """Return the estimates (n_parts,) of the mutual information from parts of the pairs."""
    return np.array([_mixed_terms(a[k::n_parts], b[k::n_parts]).mean() for k in range(n_parts)])


def _mixed_terms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return one term (n,) for each pair, whose mean estimates the mutual information.

    The distance of two pairs is the larger of those in both coordinates. A term is psi(k) + psi(n) -
    psi(n_a) - psi(n_b), with the numbers n_a and n_b of values nearer than the k-th neighbour, the own
    value included. Where several pairs are at its distance, which may be zero, all of them count: k is
    then the number of pairs, and n_a and n_b those of values, within the distance.
    """
    points, n = np.column_stack([a, b]), len(a)
    tree = cKDTree(points)
    distances = tree.query(points, k=_N_NEIGHBORS + 2, p=np.inf)[0]
    radius = distances[:, -2]
    is_tied = distances[:, -1] - radius <= 1e-9 * radius
    radius = radius * np.where(is_tied, 1 + 1e-9, 1 - 1e-9)
    _, same, counts = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    k = np.where(is_tied, counts[same.ravel()], _N_NEIGHBORS)
    (near,) = np.nonzero(is_tied & (radius > 0))
    if len(near):
        k[near] = tree.query_ball_point(points[near], radius[near], p=np.inf, return_length=True)
    within = [_n_within(np.sort(x), x, radius) for x in (a, b)]
    return digamma(k) + digamma(n) - digamma(within[0]) - digamma(within[1])


def _n_within(ordered: np.ndarray, x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return how many of the ordered values are within a radius of each x (n,)."""
    low = np.searchsorted(ordered, x - radius, side="left")
    return np.searchsorted(ordered, x + radius, side="right") - low
