"""The intrinsic dimension of data, from distances to nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._utils.dequantize import dequantized
from .._utils.rows import merge_rows
from .._utils.table import check_table, column_names
from .._utils.validation import check_choice, check_integer
from .._utils.warnings import part_of_a_fit
from ._neighbors import NearestPoints

__all__ = ["check_n_components", "intrinsic_dimension"]

# The largest ratios are disturbed most by noise and borders; Facco et al. omit a tenth of all.
KEPT = 0.9
MEMORY_LIMIT = 64.0


def intrinsic_dimension(X: Any, method: str = "two-nn", n_neighbors: int = 10) -> float:
    """Estimate the dimension of the manifold near which the data lie.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Rows; copies of rows, also up to rounding, are removed first. Columns that were rounded get
        uniform noise of one unit, since the neighbours of rows on a lattice are equally far.
    method : {"two-nn", "mle"}, default="two-nn"
        The ratio of the distances to the two nearest neighbours, which measures the smallest scale and
        has little bias from curvature and density; or maximum likelihood from more neighbours, which
        varies less and is less disturbed by noise smaller than their distances.
    n_neighbors : int, default=10
        Number of neighbours for "mle", at least 2; "two-nn" always uses two.

    Returns
    -------
    float
        Not rounded; it may exceed d.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If X is not two-dimensional and finite or has fewer than three distinct rows, if there are
        no more distinct rows than neighbours, or if all neighbours are equally far, as in a
        lattice.

    Notes
    -----
    "two-nn": with mu = r_2/r_1 sorted, and F = i/n, the slope through zero of -log(1 - F) over log
    mu, without the largest tenth. "mle": the inverse of the mean over all rows and j < n_neighbors
    of log(T_k/T_j), T_j the distance to neighbour j; averaging inverses, not estimates, removes
    most of the bias for few neighbours. Both underestimate dimensions above about ten unless n is
    very large.

    Costs the nearest neighbours: O(n log n) up to ten features, else O(n^2 d).

    References
    ----------
    Facco, d'Errico, Rodriguez & Laio, Scientific Reports 7, 2017. Levina & Bickel, NIPS 2004.
    MacKay & Ghahramani, Comments on "Maximum likelihood estimation of intrinsic dimension", 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.manifolds import intrinsic_dimension
    >>> X = np.random.default_rng(0).normal(size=(2000, 3))
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> round(intrinsic_dimension(X), 1), round(intrinsic_dimension(X, "mle"), 1)
    (2.0, 2.0)
    """
    check_choice("method", method, ("two-nn", "mle"))
    n_neighbors = check_integer("n_neighbors", n_neighbors, minimum=2)
    rows = check_table(X, "intrinsic_dimension")
    merged = merge_rows(rows, np.ones(len(rows)), by_column=False)
    merged.warn(column_names(X))
    points = dequantized(merged.points, merged.weights, merged.precision.width)
    k = 2 if method == "two-nn" else n_neighbors
    if len(points) <= k:
        raise ValueError(
            f"X has {len(points)} distinct rows; expected more than {k}, the neighbours that "
            f"method={method!r} compares. Pass more rows."
        )
    nearest = NearestPoints(points, MEMORY_LIMIT).query(torch.from_numpy(points), k + 1)[0]
    # The nearest point of each is itself.
    distances = nearest.numpy()[:, 1:]
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    if not logs.any():
        raise ValueError(
            f"the {k} nearest neighbours of every row of X are equally far, as in a lattice; expected "
            "different distances, from which the dimension is estimated. Pass the number of "
            "components as an integer."
        )
    if method == "mle":
        return float(1 / logs.mean())
    ratios = np.sort(logs[:, 0])[: max(1, int(KEPT * len(logs)))]
    tails = -np.log1p(-np.arange(1, len(ratios) + 1) / len(logs))
    return float(ratios @ tails / (ratios @ ratios))


def check_n_components(value: Any, points: np.ndarray, largest: int) -> int:
    """Return a number of components after checking it, or an estimate from points for "auto".

    A value of another type raises TypeError, one that is not between 1 and `largest` ValueError.
    """
    hint = "Pass an integer, or 'auto' for an estimate."
    if isinstance(value, str):
        check_choice("n_components", value, ("auto",), hint=hint)
        with part_of_a_fit():
            return int(np.clip(round(intrinsic_dimension(points)), 1, largest))
    n_components = check_integer("n_components", value, minimum=1, hint=hint)
    if n_components > largest:
        raise ValueError(
            f"n_components={n_components} is too large; expected at most {largest}, the dimension of "
            f"the span of the data. {hint}"
        )
    return n_components
