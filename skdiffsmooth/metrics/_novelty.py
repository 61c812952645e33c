"""Memorization: whether rows are copies of training rows, and how much they reveal of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ._checks import check_fraction, check_pair
from ._pairs import nearest, nearest_distances


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
    """Return the ratios of the distances to the nearest and to the second nearest training row.

    A copy has ratio zero; a row between two training rows, or far from all, has a ratio near one. The
    ratio has no unit and adapts to the spacing of the data, unlike a threshold on `distance_to_data`.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    data : array-like of shape (m, d)
        Training rows, at least two of them distinct. Equal training rows are used once: otherwise the
        ratio of rows near them would be one.
    threshold : float, default=1/3
        Rows with a ratio below it count as copies; in (0, 1]. The literature uses a third.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, their columns differ, `data` has fewer than two distinct
        rows, or the threshold is not a number in (0, 1].

    Notes
    -----
    Compare `share` with that of held-out rows, which is not zero: for rows of a k-dimensional
    distribution the ratio is below t with a probability of about t^k; for t = 1/3 that is a third on a
    line and 1e-5 in ten dimensions. Copies with noise as large as the spacing of the training rows, and
    copied parts of an image, are not detected.

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
    # Squared distances between distinct rows may underflow to zero.
    second = distances[:, 1]
    ratio = np.divide(distances[:, 0], second, out=np.ones(len(rows)), where=second > 0)
    return Memorization(ratio, first[indices[:, 0]], float(np.mean(ratio < threshold)), threshold)


@dataclass(frozen=True)
class MemorizationReport:
    """The result of `memorization_report`.

    Parameters
    ----------
    copies : float
        Fraction of the drawn rows that are equal to a training row.
    near : float
        Fraction of the drawn rows whose distance to the nearest training row is below the `level`
        quantile of these distances of held-out rows. It is about `level` if drawn and held-out rows have
        the same distribution.
    near_error : float
        Standard error of `near` if drawn and held-out rows have the same distribution.
    level : float
        The parameter `level`.
    ratio : float
        Fraction of the drawn rows that `memorization` counts as copies.
    held_out_ratio : float
        The same fraction for the held-out rows.
    attack : float
        Membership inference: the probability that a training row is nearer to a drawn row than
        a held-out row is (area under the ROC curve). It is 1/2 if the drawn rows do not reveal which
        rows are training rows.
    attack_error : float
        Standard error of `attack`.
    """

    copies: float
    near: float
    near_error: float
    level: float
    ratio: float
    held_out_ratio: float
    attack: float
    attack_error: float


def memorization_report(
    X: Any, data: Any, reference: Any, *, level: float = 0.05
) -> MemorizationReport:
    """Return how close drawn rows are to the training rows, compared with held-out rows.

    The report measures what the drawn rows alone reveal of the training rows. A fitted model may contain
    all training rows, whatever the report says.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Drawn rows.
    data : array-like of shape (m, d)
        Training rows, at least two of them distinct.
    reference : array-like of shape (k, d)
        Held-out rows of the distribution of `data`, at least two: rows on which neither the model nor
        its scales were fitted.
    level : float, default=0.05
        In (0, 1): a drawn row is near if it is closer to `data` than all but this fraction of
        `reference`.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, their columns differ, `data` has fewer than two distinct
        rows, `reference` has fewer than two rows, or `level` is not a number in (0, 1).

    Notes
    -----
    Distances are Euclidean in the units of the columns: scale the columns of all three arrays first.
    Draw about as many rows as there are training rows, since `attack` grows with the number of draws.
    Small values do not prove privacy: rare rows may be copied while most are not, and stronger attacks
    exist.

    The error of `near` is sqrt(level (1 - level) (1 / n + 1 / k)), that of `attack` is DeLong's.

    Costs O((n + m + k) log(n + m)) in up to ten columns, by a tree, else O((n + k) m d + (m + k) n d).

    References
    ----------
    T. Stadler, B. Oprisanu, C. Troncoso, Synthetic Data: Anonymisation Groundhog Day, USENIX Security,
    2022.
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44, 837-845, 1988.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.metrics import memorization_report
    >>> rows = np.random.RandomState(0).normal(size=(400, 2))
    >>> data, reference = rows[:200], rows[200:]
    >>> for bandwidth in 1e-3, 0.4:
    ...     draws = KDESampler(bandwidth).fit(data).sample(200, random_state=0)
    ...     report = memorization_report(draws, data, reference)
    ...     print(round(report.near, 2), round(report.attack, 2))
    1.0 0.85
    0.03 0.52
    """
    rows, data_rows = check_pair(X, data, "data")
    _, held_out = check_pair(X, reference, "reference", minimum=(1, 2))
    level = check_fraction("level", level)
    copied = memorization(rows, data_rows)
    usual = memorization(held_out, data_rows)
    to_data = nearest_distances(rows, data_rows)
    threshold = np.quantile(nearest_distances(held_out, data_rows), level)
    attack, attack_error = _area_under_curve(
        nearest_distances(data_rows, rows), nearest_distances(held_out, rows)
    )
    return MemorizationReport(
        copies=float(np.mean(to_data == 0)),
        near=float(np.mean(to_data < threshold)),
        near_error=float(np.sqrt(level * (1 - level) * (1 / len(rows) + 1 / len(held_out)))),
        level=level,
        ratio=copied.share,
        held_out_ratio=usual.share,
        attack=attack,
        attack_error=attack_error,
    )


def _area_under_curve(small: np.ndarray, large: np.ndarray) -> tuple[float, float]:
    """Return P(a < b) + P(a = b) / 2 for a of `small` (m,), b of `large` (k,), and DeLong's error."""
    m, k = len(small), len(large)
    ranks = rankdata(np.concatenate([small, large]))
    # For each b the fraction of smaller a, and for each a that of smaller b; ties count half.
    below = (ranks[m:] - rankdata(large)) / m
    smaller = (ranks[:m] - rankdata(small)) / k
    return float(below.mean()), float(np.sqrt(smaller.var(ddof=1) / m + below.var(ddof=1) / k))
