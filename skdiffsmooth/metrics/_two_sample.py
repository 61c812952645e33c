"""Whether two samples come from one law: energy distance, kernel discrepancy, and tests by permutation.

Both statistics are sums of a function k of distances over pairs within X, within Y, and across,

    a = sum_{i, i' in X} k,    b = sum_{j, j' in Y} k,    c = sum_{i in X, j in Y} k,

each row with itself left out. With s_i = 1 for rows of X and 0 for rows of Y, K the matrix of all pairs
and r its row sums, a = s^T K s, c = s^T r - a and b = sum r - a - 2 c: other labels need no other
distances, and all permutations are one product K [s_1 s_2 ...].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist

from .._utils.validation import check_choice, check_generator, check_integer, check_real
from ._checks import check_pair
from ._pairs import distance_tiles

__all__ = ["TwoSampleTest", "energy_distance", "maximum_mean_discrepancy", "two_sample_test"]

# The median distance is that of as many rows at most: of two million pairs.
MEDIAN_ROWS = 2000
KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gaussian": lambda u: np.exp(-(u**2) / 2),
    "laplace": lambda u: np.exp(-u),
}


@dataclass(frozen=True)
class TwoSampleTest:
    """What `two_sample_test` found.

    Parameters
    ----------
    statistic : float
        Of X and Y, as `energy_distance` or `maximum_mean_discrepancy` returns it.
    p_value : float
        (1 + number of permutations with a statistic as large) / (1 + number of permutations).
    permuted : ndarray of shape (n_permutations,)
        The statistics under permuted labels.
    """

    statistic: float
    p_value: float
    permuted: np.ndarray


def energy_distance(X: Any, Y: Any) -> float:
    """Return the energy distance of two samples.

    ``sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|)``, of the empirical laws: a metric on them, zero if and
    only if they are equal. No parameter to choose.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    Y : array-like of shape (m, d)
        Rows of the law that is compared.

    Returns
    -------
    float
        In units of X to the power 1/2; below 1e-7 of the root of the extent it is rounding.

    Raises
    ------
    ValueError
        If the rows are not numeric and finite, or their columns differ.

    See Also
    --------
    two_sample_test : Whether it is more than chance.
    maximum_mean_discrepancy : Looks at one scale.

    Notes
    -----
    That of two samples of one law is not zero but about ``sqrt((1/n + 1/m) E|X - X'|)``. Differences
    of means and scales dominate; fine structure below the spacing of the rows hardly counts.

    Costs O((n + m)^2 d).

    References
    ----------
    G. J. Szekely, M. L. Rizzo, Energy Statistics: A Class of Statistics Based on Distances, Journal of
    Statistical Planning and Inference 143, 2013.

    Examples
    --------
    >>> from skdiffsmooth.metrics import energy_distance
    >>> energy_distance([[0.0]], [[2.0]]), energy_distance([[1.0], [2.0]], [[2.0], [1.0]])
    (2.0, 0.0)
    """
    rows, others = check_pair(X, Y, "Y")
    return _Energy()(rows, others, _own_labels(rows, others))[0]


def maximum_mean_discrepancy(
    X: Any, Y: Any, *, kernel: str = "gaussian", bandwidth: float | str = "median"
) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy of two laws.

    E k(X, X') + E k(Y, Y') - 2 E k(X, Y), without the pairs of a row with itself.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows, at least two.
    Y : array-like of shape (m, d)
        Rows of the law that is compared, at least two.
    kernel : {"gaussian", "laplace"}, default="gaussian"
        exp(-u^2 / 2) or exp(-u) of u = distance / bandwidth. The second sees finer structure too.
    bandwidth : float or "median", default="median"
        In units of X: the scale at which the laws are compared. "median" is the median distance of all
        rows together (of 2000 of them, evenly taken in lexicographic order, where there are more), good
        for shifts; for fine structure pass its scale.

    Returns
    -------
    float
        Without a unit, zero on average if the laws are equal, so that it may be negative.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, are too few, their columns differ, a parameter is out of
        range, or the median distance is zero.

    See Also
    --------
    two_sample_test : Whether it is more than chance.
    energy_distance : Looks at all scales, large ones most.

    Notes
    -----
    Costs O((n + m)^2 d).

    References
    ----------
    A. Gretton, K. M. Borgwardt, M. J. Rasch, B. Scholkopf, A. Smola, A Kernel Two-Sample Test, JMLR 13,
    2012, lemma 6.

    Examples
    --------
    >>> from skdiffsmooth.metrics import maximum_mean_discrepancy
    >>> maximum_mean_discrepancy([[0.0], [0.0]], [[9e9], [9e9]], bandwidth=1.0)
    2.0
    """
    rows, others = check_pair(X, Y, "Y", minimum=(2, 2))
    statistic = _Discrepancy.of(kernel, bandwidth, rows, others)
    return statistic(rows, others, _own_labels(rows, others))[0]


def two_sample_test(
    X: Any,
    Y: Any,
    statistic: str = "energy",
    *,
    n_permutations: int = 999,
    random_state: Any = None,
    kernel: str = "gaussian",
    bandwidth: float | str = "median",
) -> TwoSampleTest:
    """Test whether two samples come from one law, by permuting which sample a row belongs to.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows; at least two for "mmd".
    Y : array-like of shape (m, d)
        Rows of the law that is compared; at least two for "mmd".
    statistic : {"energy", "mmd"}, default="energy"
        `energy_distance`, good for shifts and scales, or `maximum_mean_discrepancy`.
    n_permutations : int, default=999
        The smallest p-value is 1 / (1 + n_permutations).
    random_state : int, RandomState or None, default=None
        Source of the permutations; None draws anew.
    kernel, bandwidth
        Of "mmd", as in `maximum_mean_discrepancy`; "energy" has none.

    Returns
    -------
    TwoSampleTest
        The p-value is exact: if all rows are independent draws of one law it is at most t with a
        probability of at most t, at any n and m.

    Raises
    ------
    TypeError, ValueError
        As the statistic; or if a parameter is out of range.

    See Also
    --------
    classifier_two_sample_test : Learns where the samples differ.

    Notes
    -----
    Rows that depend on one another (a chain, copies, X fitted on Y) void the p-value: compare with rows
    that the model has not seen. With many rows any model is rejected; the statistic says by how much.

    Costs O((n + m)^2 (d + n_permutations)), distances being computed once; memory 8 (n + m)
    n_permutations bytes.

    References
    ----------
    G. J. Szekely, M. L. Rizzo, Testing for Equal Distributions in High Dimension, InterStat 5, 2004.
    A. Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.metrics import two_sample_test
    >>> rng = np.random.RandomState(0)
    >>> X, Y = rng.normal(size=(50, 2)), rng.normal(1.0, size=(60, 2))
    >>> two_sample_test(X, Y, random_state=0).p_value
    0.001
    """
    check_choice("statistic", statistic, ("energy", "mmd"))
    least = 1 if statistic == "energy" else 2
    rows, others = check_pair(X, Y, "Y", minimum=(least, least))
    n_permutations = check_integer("n_permutations", n_permutations)
    generator = check_generator(random_state)
    rule = _Energy() if statistic == "energy" else _Discrepancy.of(kernel, bandwidth, rows, others)
    permuted = _permuted_labels(len(rows), len(others), n_permutations, generator)
    found, *rest = rule(rows, others, np.hstack([_own_labels(rows, others), permuted]))
    # Labels that exchange equal rows give the same statistic, but for rounding.
    margin = 1e-9 * np.max(np.abs([found, *rest]))
    n_as_large = int(np.sum(np.array(rest) >= found - margin))
    return TwoSampleTest(found, (1 + n_as_large) / (1 + n_permutations), np.array(rest))


@dataclass(frozen=True)
class _Energy:
    """The energy distance for each of several labellings."""

    def __call__(self, X: np.ndarray, Y: np.ndarray, labels: np.ndarray) -> list[float]:
        n, m = len(X), len(Y)
        within_x, within_y, across = _pair_sums(np.concatenate([X, Y]), labels, lambda u: u)
        squares = 2 * across / (n * m) - within_x / n**2 - within_y / m**2
        # Never negative in exact arithmetic.
        return np.sqrt(np.maximum(squares, 0.0)).tolist()


@dataclass(frozen=True)
class _Discrepancy:
    """The unbiased squared discrepancy for each of several labellings."""

    kernel: str
    bandwidth: float

    @classmethod
    def of(cls, kernel: Any, bandwidth: Any, X: np.ndarray, Y: np.ndarray) -> _Discrepancy:
        check_choice("kernel", kernel, KERNELS)
        if isinstance(bandwidth, str):
            check_choice("bandwidth", bandwidth, ("median",), hint="Or pass a number.")
            return cls(kernel, _median_distance(np.concatenate([X, Y])))
        return cls(kernel, check_real("bandwidth", bandwidth, hint='Or pass "median".'))

    def __call__(self, X: np.ndarray, Y: np.ndarray, labels: np.ndarray) -> list[float]:
        n, m = len(X), len(Y)
        profile = KERNELS[self.kernel]
        within_x, within_y, across = _pair_sums(
            np.concatenate([X, Y]), labels, lambda u: profile(u / self.bandwidth)
        )
        values = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)
        return values.tolist()


def _pair_sums(
    rows: np.ndarray, labels: np.ndarray, profile: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b and c of the module's equation, one of each for every column of labels."""
    within = np.zeros(labels.shape[1])
    from_x = np.zeros(labels.shape[1])
    total = 0.0
    for tile, distances in distance_tiles(rows, rows):
        values = profile(distances)
        values[np.arange(len(values)), np.arange(len(rows))[tile]] = 0.0
        sums = values.sum(axis=1)
        within += np.einsum("ip,ip->p", labels[tile], values @ labels)
        from_x += sums @ labels[tile]
        total += sums.sum()
    across = from_x - within
    return within, total - within - 2 * across, across


def _own_labels(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return ones for the rows of X above zeros for those of Y, as a column."""
    return np.repeat([1.0, 0.0], [len(X), len(Y)])[:, None]


def _permuted_labels(
    n: int, m: int, n_permutations: int, generator: np.random.RandomState
) -> np.ndarray:
    """Return columns of labels with n ones each; the first are the same for any number of columns."""
    labels = np.zeros((n + m, n_permutations))
    for column in labels.T:
        column[generator.permutation(n + m)[:n]] = 1.0
    return labels


def _median_distance(rows: np.ndarray) -> float:
    """Return the median distance of rows, whatever their order: it must not know which are whose."""
    if len(rows) > MEDIAN_ROWS:
        order = np.lexsort(rows.T[::-1])
        rows = rows[order[np.linspace(0, len(rows) - 1, MEDIAN_ROWS).astype(int)]]
    median = float(np.median(pdist(rows)))
    if median == 0:
        raise ValueError(
            "bandwidth='median' is zero: more than half of the pairs of rows are equal. Pass a number, "
            "in units of X."
        )
    return median
