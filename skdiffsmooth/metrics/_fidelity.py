"""Precision, recall, density and coverage of generated rows, from balls around rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.validation import check_integer
from ._checks import check_pair
from ._pairs import distance_tiles

# Balls are larger by this factor, so that the row at their border is inside in spite of rounding.
MARGIN = 1 + 1e-9


@dataclass(frozen=True)
class Fidelity:
    """The result of `fidelity_and_diversity`.

    Parameters
    ----------
    precision : float
        Fraction of generated rows within a ball of the reference: fidelity, in [0, 1].
    recall : float
        Fraction of reference rows within a ball of the generated rows: diversity, in [0, 1].
    density : float
        Mean number of reference balls that contain a generated row, divided by n_neighbors: fidelity, on
        which an outlier of the reference has little effect. About one for samples of one distribution.
    coverage : float
        Fraction of reference balls that contain a generated row: diversity, which outliers among the
        generated rows do not raise. In [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


def fidelity_and_diversity(X: Any, reference: Any, *, n_neighbors: int = 5) -> Fidelity:
    """Return improved precision and recall, density and coverage.

    With B(y_j) the closed ball about a row up to the K-th nearest other row of the same sample,

        precision = mean_i [ x_i in some B(y_j) ],      recall   = mean_j [ y_j in some B(x_i) ],
        density   = mean_i #{ j : x_i in B(y_j) } / K,  coverage = mean_j [ some x_i in B(y_j) ].

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows, more than n_neighbors.
    reference : array-like of shape (m, d)
        Rows of the target distribution, more than n_neighbors; for images, usually features of them.
    n_neighbors : int, default=5
        K. Precision and recall were proposed with 3, density and coverage with 5; all but the density
        grow with K.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, are too few, their columns differ, or `n_neighbors` is no
        positive integer.

    See Also
    --------
    coverage_at_scale : Coverage with one radius for all rows, in units of X.

    Notes
    -----
    All four depend on n and m: compare models at the same sizes. A single outlier has a huge ball, which
    raises precision (if it is in the reference) or recall (if it is generated). Copies of the reference
    have perfect scores; `memorization` detects them. Two samples of one distribution and of equal size
    have a coverage of 1 - 2^-K in expectation, in any number of columns.

    Costs O((n + m)^2 d).

    References
    ----------
    T. Kynkaanniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila, Improved Precision and Recall Metric for
    Assessing Generative Models, NeurIPS 2019, arXiv:1904.06991. M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi,
    J. Yoo, Reliable Fidelity and Diversity Metrics for Generative Models, ICML 2020, arXiv:2002.09797.

    Examples
    --------
    >>> from skdiffsmooth.metrics import fidelity_and_diversity
    >>> reference = [[0.0], [1.0], [2.0], [10.0]]
    >>> fidelity_and_diversity([[0.5], [0.6], [1.5]], reference, n_neighbors=1)
    Fidelity(precision=1.0, recall=0.5, density=2.0, coverage=0.75)
    """
    n_neighbors = check_integer("n_neighbors", n_neighbors)
    least = n_neighbors + 1
    rows, reference_rows = check_pair(X, reference, "reference", minimum=(least, least))
    generated_radii = _radii(rows, n_neighbors)
    reference_radii = _radii(reference_rows, n_neighbors)
    n_balls = np.zeros(len(rows))
    is_recalled = np.zeros(len(reference_rows), dtype=bool)
    is_covered = np.zeros(len(reference_rows), dtype=bool)
    for tile, distances in distance_tiles(rows, reference_rows):
        inside = distances <= reference_radii
        n_balls[tile] = inside.sum(axis=1)
        is_covered |= inside.any(axis=0)
        is_recalled |= (distances <= generated_radii[tile, None]).any(axis=0)
    return Fidelity(
        precision=float(np.mean(n_balls > 0)),
        recall=float(is_recalled.mean()),
        density=float(n_balls.mean() / n_neighbors),
        coverage=float(is_covered.mean()),
    )


def _radii(rows: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Return the distance (n,) of each row to its K-th nearest other row."""
    radii = np.empty(len(rows))
    for tile, distances in distance_tiles(rows, rows):
        # The row itself, at distance zero, is the first.
        radii[tile] = np.partition(distances, n_neighbors, axis=1)[:, n_neighbors]
    return MARGIN * radii
