"""Averages of a log-density along the level sets of the distance to a manifold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._utils.memory import slices_within
from .._utils.validation import check_finite, check_real_array
from ._base import Manifold, check_manifold

# Bound in MiB on temporaries of one part of the rows, at six vectors for each moved row.
_MEMORY = 64


def smooth_along_level_sets(
    log_density: Callable[[np.ndarray], Any],
    manifold: Manifold,
    X: Any,
    offsets: Any,
    *,
    weights: Any = None,
    distances: Any = None,
) -> np.ndarray:
    """Return a log-density averaged along level sets of the distance to a manifold.

    Each row x is moved to x + xi for all offsets xi, and from there to the nearest point that is as far
    from the manifold as x. The result is the weighted mean of the log-density at these points; it is
    not normalised. Averaging over the same offsets without the second move gives nearly the same, up to
    a constant, and the difference is smaller for a larger reach (Theorem 3.6 of the paper).

    Parameters
    ----------
    log_density : callable
        Takes rows (m, d) and returns log-densities (m,) in nats, such as `score_samples` of a fitted
        `KDESampler`, which is the density of noised data. It is called with parts of the moved rows.
    manifold : Manifold
        A manifold in R^d, of any dimension; only `project` is used, and `tangent` where a moved row is
        on the manifold.
    X : array-like of shape (n, d)
        Rows.
    offsets : array-like of shape (M, d)
        Offsets in units of X, such as sigma times draws from a normal distribution. Pass the same to an
        `OffsetsKernel` to compare both kinds of smoothing node by node.
    weights : array-like of shape (M,), default=None
        Weights of the offsets, which are divided by their sum. None stands for equal weights.
    distances : array-like of shape (n,), default=None
        Distance r(x) from the manifold, for each row x, to which the rows x + xi are moved. None is the
        distance of x itself. The theorem corrects it for offsets normal to the manifold; see Notes.

    Returns
    -------
    ndarray of shape (n,)
        In nats.

    Raises
    ------
    TypeError
        If `log_density` cannot be called, or `manifold` is not a manifold.
    ValueError
        If a shape does not fit to the others, a value is not finite, a weight is not positive, a
        distance is negative, or `log_density` does not return one number for each row.

    Notes
    -----
    With p(z) = project(z) the moved row is p(x + xi) + r(x) u, r(x) of `distances` and u the unit vector
    from p(x + xi) to x + xi. Rows farther from the manifold than its reach may have several nearest
    points, and results jump there. Where x + xi is on the manifold, u is any unit normal.

    Offsets change distances: the mean of dist(x + xi)^2 is about the squared distance of x plus the
    variance of the offsets normal to the manifold. With r(x)^2 equal to that mean minus its smallest
    value over a grid of rows, the quadratic parts of the log-densities with and without the second move
    agree: on a circle the divergence of the two is up to 1500 times smaller than with None.

    Costs n M projections and evaluations of `log_density`, in parts of some 64 MiB; rows do not depend
    on each other.

    References
    ----------
    T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is Geometry
    Adaptive, NeurIPS 2025, arXiv:2510.02305, eq. 10 and Theorem 3.6.

    Examples
    --------
    Twelve points of a circle: the smoothed log-density varies less along it than that of the KDE.

    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.datasets import make_circle
    >>> from skdiffsmooth.manifolds import Circle, smooth_along_level_sets
    >>> kde = KDESampler(0.1).fit(make_circle(12, spacing="even"))
    >>> rows = make_circle(48, spacing="even")
    >>> offsets = 0.2 * np.random.RandomState(0).normal(size=(200, 2))
    >>> smoothed = smooth_along_level_sets(
    ...     kde.score_samples, Circle([0.0, 0.0], 1.0), rows, offsets
    ... )
    >>> bool(np.ptp(smoothed) < 0.3 * np.ptp(kde.score_samples(rows)))
    True
    """
    if not callable(log_density):
        raise TypeError(
            f"log_density={log_density!r} has type {type(log_density).__name__}; expected a function of "
            "rows, such as KDESampler(0.1).fit(X).score_samples."
        )
    check_manifold(manifold, "n_features", "project", "distance")
    X, offsets = _rows("X", X, manifold), _rows("offsets", offsets, manifold)
    if not len(offsets):
        raise ValueError("offsets has no rows; expected at least one offset.")
    weights = np.ones(len(offsets)) if weights is None else check_real_array("weights", weights)
    _check_length("weights", weights, len(offsets))
    if not np.all(weights > 0):
        raise ValueError(
            f"weights holds {weights.min():g}; expected weights > 0. Drop the offsets of no weight."
        )
    weights = weights / weights.sum()
    distances = (
        manifold.distance(X) if distances is None else check_real_array("distances", distances)
    )
    _check_length("distances", distances, len(X))
    if np.any(distances < 0):
        raise ValueError(f"distances holds {distances.min():g}; expected distances >= 0.")
    bytes_per_row = 8 * 6 * offsets.size
    parts = [
        _part(log_density, manifold, X[rows], offsets, weights, distances[rows])
        for rows in slices_within(len(X), bytes_per_row, _MEMORY)
    ]
    return np.concatenate(parts)


def _part(
    log_density: Callable[[np.ndarray], Any],
    manifold: Manifold,
    X: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray,
    distances: np.ndarray,
) -> np.ndarray:
    """Return `smooth_along_level_sets` (n,) for a part of the rows, X (n, d)."""
    if not len(X):
        return np.empty(0)
    moved = (X[:, None] + offsets).reshape(-1, X.shape[1])
    foot = manifold.project(moved)
    normal = moved - foot
    length = np.linalg.norm(normal, axis=1)
    on_it = length <= 16 * np.finfo(np.float64).eps * np.abs(moved).max(axis=1)
    normal /= np.where(on_it, 1.0, length)[:, None]
    if on_it.any():
        normal[on_it] = _some_normal(manifold.tangent(moved[on_it]))
    pushed = foot + np.repeat(distances, len(offsets))[:, None] * normal
    values = check_real_array("log_density(rows)", log_density(pushed))
    if values.shape != (len(pushed),):
        raise ValueError(
            f"log_density returned the shape {values.shape} for {len(pushed)} rows; expected "
            f"({len(pushed)},), one number for each row."
        )
    return np.sum(values.reshape(len(X), -1) * weights, axis=1)


def _some_normal(tangent: np.ndarray) -> np.ndarray:
    """Return a unit vector (n, d) orthogonal to each frame (n, d, k), or zero if it spans R^d."""
    # The coordinate axis that has the longest part orthogonal to the frame.
    axis = np.square(tangent).sum(axis=2).argmin(axis=1)
    normal = np.eye(tangent.shape[1])[axis]
    normal = normal - (tangent @ (tangent.transpose(0, 2, 1) @ normal[:, :, None]))[:, :, 0]
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return normal / np.where(length > 0, length, 1.0)


def _rows(name: str, value: Any, manifold: Manifold) -> np.ndarray:
    """Return rows (n, d) in the space of the manifold, all finite."""
    rows = check_real_array(name, value)
    if rows.ndim != 2 or rows.shape[1] != manifold.n_features:
        raise ValueError(
            f"{name} has shape {rows.shape}; expected (n, {manifold.n_features}), one column for each "
            "dimension of the space around the manifold."
        )
    check_finite(name, rows, "Drop those rows.")
    return rows


def _check_length(name: str, values: np.ndarray, length: int) -> None:
    """Raise an error unless values are finite and of shape (length,)."""
    if values.shape != (length,):
        raise ValueError(f"{name} has shape {values.shape}; expected ({length},).")
    check_finite(name, values, "Check how they are computed.")
