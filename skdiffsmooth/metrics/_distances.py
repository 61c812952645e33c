"""Distances of rows from the data, and from the manifold that the data lie on."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import check_pair, check_rows
from ._pairs import nearest_distances

# A row may be nearer to data on the manifold than to the manifold by these errors of distances, from
# rounding and the search for the nearest point: relative to the distance, and to the extent of the data.
RELATIVE, ABSOLUTE = 1e-6, 1e-8


def distance_to_manifold(X: Any, manifold: Any) -> np.ndarray:
    """Return the distance of each row to a manifold, min over m in M of ``|x - m|``.

    Rows far from the manifold are unlike the data: small distances are good, but copies of the data have
    distance zero, so compute `distance_to_data` too.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    manifold : object with a method ``distance``
        A known or learned manifold of `skdiffsmooth.manifolds`, or an object of your own whose method
        takes an array of shape (n, d) and returns one of shape (n,).

    Returns
    -------
    ndarray of shape (n,)
        In units of X.

    Raises
    ------
    TypeError
        If the manifold has no method ``distance``.
    ValueError
        If X is not numeric, finite and of the manifold's number of columns, or the manifold does not
        return n finite distances >= 0.

    See Also
    --------
    lateral_distance : The distance from the data along the manifold.

    Notes
    -----
    Costs one call of ``manifold.distance``; docs/evidence/manifolds.md has the times.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import Circle
    >>> from skdiffsmooth.metrics import distance_to_manifold
    >>> distance_to_manifold([[2.0, 0.0], [0.0, 0.5]], Circle([0.0, 0.0], 1.0))
    array([1. , 0.5])
    """
    rows = check_rows("X", X)
    if not callable(getattr(manifold, "distance", None)):
        raise TypeError(
            f"manifold={manifold!r} has no method distance; expected one of skdiffsmooth.manifolds. "
            "If you have rows on a manifold, pass skdiffsmooth.manifolds.PointCloud(rows)."
        )
    distances = np.asarray(manifold.distance(rows), dtype=np.float64)
    if distances.shape != (len(rows),) or not np.all((distances >= 0) & (distances < np.inf)):
        n_valid = int(np.sum((distances >= 0) & (distances < np.inf)))
        raise ValueError(
            f"manifold={manifold!r} returned distances of shape {distances.shape} for {len(rows)} rows, "
            f"of which {n_valid} are finite and >= 0; expected shape ({len(rows)},) and all finite and "
            ">= 0. Correct its method distance."
        )
    return distances


def distance_to_data(X: Any, data: Any) -> np.ndarray:
    """Return the distance of each row to the nearest training row, min over i of ``|x - x_i|``.

    It is known as the novelty of samples. Rows near the data are memorised; rows far from the data may
    be new or wrong: `distance_to_manifold` distinguishes the two.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    data : array-like of shape (m, d)
        Training rows.

    Returns
    -------
    ndarray of shape (n,)
        In units of X.

    Raises
    ------
    ValueError
        If the rows are not numeric and finite, or their columns differ.

    See Also
    --------
    memorization : The distance in units of that to the second nearest training row.
    coverage_at_scale : The fraction of reference rows that have a generated row nearby.

    Notes
    -----
    Costs O(n log m) in up to ten columns, by a tree, else O(n m d) by products of matrices.

    Examples
    --------
    >>> from skdiffsmooth.metrics import distance_to_data
    >>> distance_to_data([[0.0, 3.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]])
    array([2.23606798, 0.        ])
    """
    return nearest_distances(*check_pair(X, data, "data"))


def lateral_distance(X: Any, data: Any, manifold: Any) -> np.ndarray:
    """Return the distance of each row from the data along the manifold, sqrt(d(x, data)^2 - d(x, M)^2).

    It is the part of the novelty that is not an error. If the manifold M is flat, it is the distance
    from the projection of the row to the nearest training row.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    data : array-like of shape (m, d)
        Training rows, which lie on the manifold.
    manifold : object with a method ``distance``
        As for `distance_to_manifold`.

    Returns
    -------
    ndarray of shape (n,)
        In units of X. For copies of data the error is about the square root of the rounding error.

    Raises
    ------
    TypeError
        If the manifold has no method ``distance``.
    ValueError
        As `distance_to_data` and `distance_to_manifold`; or if a row is nearer to the data than to the
        manifold, by more than rounding errors: then the data are not on the manifold.

    Notes
    -----
    Costs one call of `distance_to_data` and one of `distance_to_manifold`. Where the manifold curves
    towards the row, as inside a circle, the result is smaller than the distance along the manifold.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import AffineSubspace
    >>> from skdiffsmooth.metrics import lateral_distance
    >>> line = AffineSubspace([[0.0, 1.0]], [0.0])
    >>> lateral_distance([[3.0, 4.0], [2.0, 0.0]], [[0.0, 0.0]], line)
    array([3., 2.])
    """
    _, data_rows = check_pair(X, data, "data")
    to_data, to_manifold = distance_to_data(X, data), distance_to_manifold(X, manifold)
    extent = np.linalg.norm(data_rows - data_rows.mean(axis=0), axis=1).max()
    excess = to_manifold - to_data
    if np.any(excess > RELATIVE * to_data + ABSOLUTE * extent):
        worst = int(excess.argmax())
        raise ValueError(
            f"row {worst} of X is {to_data[worst]:.6g} from the data but {to_manifold[worst]:.6g} from "
            f"manifold={manifold!r}: the data do not lie on it. Expected data on the manifold; pass "
            "manifold.project(data), or the manifold that they lie on."
        )
    return np.sqrt(np.maximum(-excess, 0) * (to_data + to_manifold))
