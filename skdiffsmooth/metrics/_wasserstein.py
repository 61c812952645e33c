"""Transport distances of projections."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.memory import slices_within
from .._utils.validation import check_generator, check_integer, check_real
from ._checks import check_pair
from ._pairs import MEMORY_LIMIT

__all__ = ["sliced_wasserstein_distance"]


def sliced_wasserstein_distance(
    X: Any, Y: Any, *, p: float = 2.0, n_projections: int = 128, random_state: Any = None
) -> float:
    """Return the sliced Wasserstein distance of two samples.

    (mean over directions u of W_p(X u, Y u)^p)^(1/p), W_p the Wasserstein distance of the empirical laws
    of the projections, which sorting gives exactly: W_p^p is the integral over levels of the p-th power
    of the difference of the quantile functions.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    Y : array-like of shape (m, d)
        Rows of the law that is compared; m may differ from n.
    p : float, default=2.0
        At least one; larger ones weigh the farthest displacement more.
    n_projections : int, default=128
        Directions. They come in orthonormal bases, as many as fit, so that a multiple of d has no error
        for a shift; in one column one direction is all there is.
    random_state : int, RandomState or None, default=None
        Source of the directions; None draws anew. Compare models under one seed.

    Returns
    -------
    float
        In units of X.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, their columns differ, or a parameter is out of range.

    Notes
    -----
    A shift by t has distance ``|t| / sqrt(d)`` at p = 2: values of different d are not comparable, and a
    difference in one of many directions is diluted. Samples of one law have a distance of the order
    n^(-1/2) of their extent, in any number of columns.

    Costs O((n + m) (d + log(n + m)) n_projections).

    References
    ----------
    N. Bonneel, J. Rabin, G. Peyre, H. Pfister, Sliced and Radon Wasserstein Barycenters of Measures,
    Journal of Mathematical Imaging and Vision 51, 2015. M. Rowland et al., Orthogonal Estimation of
    Wasserstein Distances, AISTATS 2019, arXiv:1903.03784.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.metrics import sliced_wasserstein_distance
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> round(sliced_wasserstein_distance(X, X + [3.0, 4.0], random_state=0), 6)
    3.535534
    """
    rows, others = check_pair(X, Y, "Y")
    p = check_real("p", p, minimum=1.0, strict=False)
    n_projections = check_integer("n_projections", n_projections)
    generator = check_generator(random_state)
    n, m, d = len(rows), len(others), rows.shape[1]
    # A large common shift would cost digits in the projections.
    center = others.mean(axis=0)
    rows, others = rows - center, others - center
    first, second, mass = _common_levels(n, m)
    directions = _directions(d, 1 if d == 1 else n_projections, generator)
    costs = np.empty(len(directions))
    for some in slices_within(len(directions), 48 * (n + m), MEMORY_LIMIT):
        gaps = np.sort(directions[some] @ rows.T, axis=1)[:, first]
        gaps -= np.sort(directions[some] @ others.T, axis=1)[:, second]
        costs[some] = _power_mean(np.abs(gaps), mass, p)
    return float(_power_mean(costs[None], np.full(len(costs), 1 / len(costs)), p)[0])


def _directions(d: int, n: int, generator: np.random.RandomState) -> np.ndarray:
    """Return unit vectors (n, d), each uniformly distributed, in orthonormal bases."""
    n_bases = -(-n // d)
    # Of a tall matrix as many columns as are wanted are enough.
    columns = generator.standard_normal((n_bases, d, min(n, d)))
    return np.linalg.qr(columns)[0].transpose(0, 2, 1).reshape(-1, d)[:n]


def _common_levels(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pieces on which the quantile functions of n and of m values are constant.

    Returns
    -------
    first, second : ndarray of shape (n_pieces,)
        Which of the sorted values each has there.
    mass : ndarray of shape (n_pieces,)
        Lengths, which sum to one.
    """
    # In units of 1 / (n m) all ends are integers.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    return starts // m, starts // n, (ends - starts) / (n * m)


def _power_mean(values: np.ndarray, mass: np.ndarray, p: float) -> np.ndarray:
    """Return (sum mass values^p)^(1/p) over the last axis, in units in which no power overflows."""
    top = values.max(axis=1, keepdims=True)
    shares = np.divide(values, top, out=np.zeros_like(values), where=top > 0)
    return top[:, 0] * (shares**p @ mass) ** (1 / p)
