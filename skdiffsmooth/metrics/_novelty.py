"""Memorization: whether rows are copies of training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._checks import check_fraction, check_pair
from ._pairs import nearest

__all__ = ["Memorization", "memorization"]


@dataclass(frozen=True)
class Memorization:
    """The result of `memorization`.

    Parameters
    ----------
    ratio : ndarray of shape (n,)
        Distance to the nearest training row divided by that to the second nearest, in [0, 1].
    nearest : ndarray of shape (n,)
        Index of the nearest training row.
    share : float
        Fraction of rows whose ratio is below the threshold.
    threshold : float
        A row with a ratio below it counts as a copy.
    """

    ratio: np.ndarray
    nearest: np.ndarray
    share: float
    threshold: float


def memorization(X: Any, data: Any, *, threshold: float = 1 / 3) -> Memorization:
    """Compare the distances to the nearest and to the second nearest training row.

    A copy has ratio zero; a row between two training rows, or far from all, has a ratio near one. The
    ratio has no unit and adapts to the spacing of the data, which a threshold on `distance_to_data`
    does not.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    data : array-like of shape (m, d)
        Training rows, at least two of them distinct. Equal training rows count as one: otherwise the
        ratio of their copies would be one.
    threshold : float, default=1/3
        In (0, 1]; a third is what the literature uses.

    Returns
    -------
    Memorization

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, their columns differ, `data` has fewer than two distinct
        rows, or the threshold is not a number in (0, 1].

    Notes
    -----
    Compare the share with that of held-out rows, which is not zero: for rows of a k-dimensional
    distribution the ratio is below t with a probability of about t^k; for t = 1/3 that is a third on a
    line and 1e-5 in ten dimensions. A copy with noise of the size of the spacing, or a copied part of an
    image, is not detected.

    Costs O(n log m) in up to ten columns, by a tree, else O(n m d).

    References
    ----------
    T. Yoon, J. Y. Choi, S. Kwon, E. K. Ryu, Diffusion Probabilistic Models Generalize when They Fail to
    Memorize, ICML workshop on Structured Probabilistic Inference and Generative Modeling, 2023.

    Examples
    --------
    >>> from skdiffsmooth.metrics import memorization
    >>> result = memorization([[0.1], [0.9], [1.8]], [[0.0], [2.0]])
    >>> result.ratio.round(3), result.nearest, round(result.share, 3)
    (array([0.053, 0.818, 0.111]), array([0, 0, 1]), 0.667)
    """
    rows, data_rows = check_pair(X, data, "data")
    threshold = check_fraction("threshold", threshold, one=True)
    # Adding zero makes -0.0 and 0.0 equal in every version of numpy.
    distinct, first = np.unique(data_rows + 0.0, axis=0, return_index=True)
    if len(distinct) < 2:
        raise ValueError(
            f"data has {len(distinct)} distinct row among {len(data_rows)}; expected at least two, for "
            "a second nearest one. Use distance_to_data."
        )
    distances, indices = nearest(rows, distinct, 2)
    # The squared distance of distinct rows may underflow to zero.
    second = distances[:, 1]
    ratio = np.divide(distances[:, 0], second, out=np.ones(len(rows)), where=second > 0)
    return Memorization(ratio, first[indices[:, 0]], float(np.mean(ratio < threshold)), threshold)
