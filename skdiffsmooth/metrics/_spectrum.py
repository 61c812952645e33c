"""Covariances of samples: locally, by direction, and in all."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.memory import slices_within
from .._utils.validation import check_integer
from ._checks import check_pair, check_rows
from ._pairs import MEMORY_LIMIT, nearest

__all__ = ["local_pca_spectrum", "shrinkage"]


def local_pca_spectrum(X: Any, queries: Any = None, *, n_neighbors: int = 20) -> np.ndarray:
    """Return the eigenvalues of the covariances of neighbours.

    Of the K rows of X nearest to a query, with mean m, the eigenvalues of
    sum_i (x_i - m)(x_i - m)^T / (K - 1), largest first. Near a manifold of dimension k the first k are
    of the size of the squared distance of the neighbours, and the others of the noise and the curvature:
    a sample that has left its manifold fills the gap between the two.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Rows whose local shape is asked for, generated ones as a rule.
    queries : array-like of shape (m, d), optional
        Where; the rows of X themselves if not given, each a neighbour of itself.
    n_neighbors : int, default=20
        K: more than the dimension that is looked for, from 2 to n. Few see a smaller scale, more
        average over noise.

    Returns
    -------
    ndarray of shape (m, min(K - 1, d))
        In squared units of X; further eigenvalues are zero.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, their columns differ, or `n_neighbors` does not fit.

    See Also
    --------
    skdiffsmooth.manifolds.intrinsic_dimension : One number, from distances alone.

    Notes
    -----
    Costs the neighbours, O(m log n) in up to ten columns and else O(n m d), and O(m K d min(K, d)).

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.metrics import local_pca_spectrum
    >>> line = np.column_stack([np.arange(9.0), np.arange(9.0)])
    >>> local_pca_spectrum(line, [[4.0, 4.0]], n_neighbors=3).round(12)
    array([[2., 0.]])
    """
    if queries is None:
        rows = places = check_rows("X", X)
    else:
        rows, places = check_pair(X, queries, "queries")
    n_neighbors = check_integer("n_neighbors", n_neighbors, minimum=2)
    if n_neighbors > len(rows):
        raise ValueError(
            f"n_neighbors={n_neighbors} is more than the {len(rows)} rows of X; expected 2 to "
            f"{len(rows)}."
        )
    n_values = min(n_neighbors - 1, rows.shape[1])
    spectra = np.empty((len(places), n_values))
    for tile in slices_within(len(places), 32 * n_neighbors * rows.shape[1], MEMORY_LIMIT):
        _, neighbors = nearest(places[tile], rows, n_neighbors)
        near = rows[neighbors]
        near -= near.mean(axis=1, keepdims=True)
        values = np.linalg.svd(near, compute_uv=False)[:, :n_values]
        spectra[tile] = values**2 / (n_neighbors - 1)
    return spectra


def shrinkage(X: Any, data: Any) -> float:
    """Return the total variance of samples over that of the data, tr Cov(X) / tr Cov(data).

    Smoothing a score contracts the cloud, because means of training rows lie inside their hull, while
    a kernel density estimate widens it: one is the target, and what a law of the same variance has.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows, at least two.
    data : array-like of shape (m, d)
        Training rows, at least two, not all equal.

    Returns
    -------
    float
        >= 0, without a unit. Covariances have the divisor n - 1.

    Raises
    ------
    ValueError
        If the rows are not numeric and finite, are too few, their columns differ, or the data are equal.

    Notes
    -----
    One number for all columns: those of large variance decide. Costs O((n + m) d).

    Examples
    --------
    >>> from skdiffsmooth.metrics import shrinkage
    >>> shrinkage([[-1.0, 0.0], [1.0, 0.0]], [[-2.0, 0.0], [2.0, 0.0]])
    0.25
    """
    rows, data_rows = check_pair(X, data, "data", minimum=(2, 2))
    widest = np.ptp(data_rows, axis=0).max()
    if widest == 0:
        raise ValueError(
            f"data has {len(data_rows)} equal rows; expected rows that vary, whose variance X is "
            "compared with."
        )
    # In units of the extent of the data, whose square may not be a number.
    return float(
        (rows / widest).var(axis=0, ddof=1).sum() / (data_rows / widest).var(axis=0, ddof=1).sum()
    )
