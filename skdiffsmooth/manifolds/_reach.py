"""The reach of a manifold, from points on it and their tangent spaces."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.memory import slices_within
from .._utils.validation import check_integer, check_real_array
from ._base import Manifold, check_manifold

# The fraction of points at which the reach may be smaller than the estimate. A learned manifold has some
# wrong tangents, the worst of which would determine the infimum that defines the reach.
QUANTILE = 0.05
# Squared distances from a tangent space below this, in units of the squared size of the manifold, are
# rounding.
ROUNDING = 1e-12
MEMORY_LIMIT = 16.0  # MiB of temporaries.


def estimate_reach(manifold: Manifold, X: Any, n_neighbors: int = 20) -> float:
    """Estimate the reach of a manifold near some rows.

    The reach is the distance up to which nearest points are unique: at most the smallest radius of
    curvature, and half the width of the narrowest gap between parts of the manifold.

    Parameters
    ----------
    manifold : Manifold
        The manifold.
    X : array-like of shape (n, d)
        Rows near the manifold, n >= 3; their projections are compared in pairs.
    n_neighbors : int, default=20
        Number of nearest points, at most half of all, that a point is not compared with: over such
        distances the effect of curvature is smaller than errors of a learned tangent.

    Returns
    -------
    float
        In units of X; infinite for a flat manifold.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If X does not fit the manifold or has fewer than three rows.

    Notes
    -----
    With p, q projections of rows and T_p the tangent space, the reach is the infimum of
    ``|q - p|^2 / (2 dist(q - p, T_p))`` over all p and q. Over finitely many points it is larger; if it
    is a radius of curvature, by a term of second order in their spacing. The estimate is the 5 %
    quantile over p of the minimum over q, so that a few wrong tangents do not determine it. A manifold
    learned from noisy rows with few neighbours follows the noise, so that its reach is small.

    Costs O(n^2 (d + k)) time, and temporaries of about 16 MiB, or what projections to `manifold` take.

    References
    ----------
    Federer, Curvature measures, 1959, theorem 4.18. Aamari, Kim, Chazal, Michel, Rinaldo &
    Wasserman, Estimating the reach of a manifold, Electronic Journal of Statistics 13, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.manifolds import LocalPolynomialManifold, estimate_reach
    >>> t = np.random.default_rng(0).uniform(0, 2 * np.pi, 500)
    >>> ellipse = np.column_stack([2 * np.cos(t), np.sin(t)])
    >>> manifold = LocalPolynomialManifold(1).fit(ellipse)
    >>> round(estimate_reach(manifold, ellipse), 2)  # of the ellipse: 0.5
    0.51
    """
    n_neighbors = check_integer("n_neighbors", n_neighbors)
    check_manifold(manifold, "project", "tangent")
    X = check_real_array("X", X)
    if X.ndim != 2 or len(X) < 3:
        raise ValueError(
            f"X has shape {X.shape}; expected (n, d) with n >= 3, one column for each dimension of the "
            "space. Pass more rows."
        )
    feet = np.asarray(manifold.project(X))
    tangents = np.asarray(manifold.tangent(X))
    # Centred: squares of large coordinates would cancel.
    feet = feet - feet.mean(axis=0)
    norms = np.sum(feet**2, axis=1)
    own = np.einsum("pd,pdk->pk", feet, tangents)
    rank = min(n_neighbors, len(X) // 2)
    smallest = np.empty(len(X))
    for p in slices_within(len(X), 8 * len(X) * (10 + 2 * tangents.shape[2]), MEMORY_LIMIT):
        squares = np.maximum(norms[p, None] + norms - 2 * feet[p] @ feet.T, 0.0)
        along = np.einsum("qd,pdk->pqk", feet, tangents[p])
        along -= own[p, None]
        across = squares - np.einsum("pqk,pqk->pq", along, along)
        width = np.partition(squares, rank, axis=1)[:, rank, None]
        compared = (squares >= width) & (across > ROUNDING * norms.max())
        radii = np.full_like(squares, np.inf)
        radii[compared] = squares[compared] / (2 * np.sqrt(across[compared]))
        smallest[p] = radii.min(axis=1)
    return float(np.quantile(smallest, QUANTILE, method="lower"))
