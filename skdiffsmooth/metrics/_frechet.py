"""The distance between the Gaussians of the same means and covariances."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import check_pair

__all__ = ["frechet_distance"]


def frechet_distance(X: Any, Y: Any) -> float:
    """Return the Frechet (2-Wasserstein) distance between Gaussian fits of two samples.

    ``F^2 = |m_X - m_Y|^2 + tr(C_X + C_Y - 2 (C_X C_Y)^(1/2))``.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows, at least two; of images, features as a rule.
    Y : array-like of shape (m, d)
        Rows of the law that is compared, at least two.

    Returns
    -------
    float
        F, in units of X. What is known as FID is its *square*, of the features of one particular
        network. Below 1e-7 of the extent it is rounding.

    Raises
    ------
    ValueError
        If the rows are not numeric and finite, are too few, or their columns differ.

    See Also
    --------
    fidelity_and_diversity : Tells what is missing from what is wrong.
    energy_distance : Sees more than two moments.

    Notes
    -----
    Sees means and covariances only: a Gaussian of the right moments is perfect. Biased up at small n:
    with variance v in each direction, F^2 by some v d (d + 5) (1/n + 1/m) / 4. Compare at equal n, and
    with held-out rows.

    With A and B the centred rows over sqrt(n - 1), C_X C_Y has the same non-zero eigenvalues as
    (A B^T)(A B^T)^T, so that the trace of its root is the sum of the singular values of A B^T: no root
    of a matrix that is not symmetric is taken, nothing is complex, and rows may be fewer than columns.

    Costs O((n + m) d min(n, m, d)) and the singular values of a matrix of min(n, d) by min(m, d); memory
    some copies of the rows.

    References
    ----------
    D. C. Dowson, B. V. Landau, The Frechet Distance between Multivariate Normal Distributions, Journal
    of Multivariate Analysis 12, 1982. M. Heusel et al., GANs Trained by a Two Time-Scale Update Rule
    Converge to a Local Nash Equilibrium, NeurIPS 2017, arXiv:1706.08500.

    Examples
    --------
    >>> from skdiffsmooth.metrics import frechet_distance
    >>> X = [[-1.0, 0.0], [1.0, 0.0]]
    >>> round(frechet_distance(X, [[2.0, 4.0], [4.0, 4.0]]), 6)
    5.0
    """
    rows, others = check_pair(X, Y, "Y", minimum=(2, 2))
    size = max(np.abs(rows).max(), np.abs(others).max()) or 1.0
    # In units in which no square overflows.
    shift = rows.mean(axis=0) / size - others.mean(axis=0) / size
    first, second = _root(rows / size), _root(others / size)
    overlap = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    square = shift @ shift + np.sum(first**2) + np.sum(second**2) - 2 * overlap
    return float(size * np.sqrt(max(square, 0.0)))


def _root(rows: np.ndarray) -> np.ndarray:
    """Return a matrix R of at most d rows with R^T R the covariance."""
    centered = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    if len(rows) <= rows.shape[1]:
        return centered
    return np.asarray(np.linalg.qr(centered, mode="r"))
