"""Convergence diagnostics of Markov chains: rank-normalised split R-hat and effective sample size.

With M chains of N draws (halves of the chains, all of one length), W the mean of their variances and
B / N the variance of their means, the variance is estimated by V = (N - 1) / N W + B / N, and

    R-hat = sqrt(V / W),        rho_t = 1 - (W - mean of the autocovariances at lag t) / V,
    ESS = M N / (-1 + 2 sum of P_k),        P_k = rho_2k + rho_2k+1,

where the P_k, positive and decreasing for a reversible chain, are summed while they are positive, each
replaced by the least so far (Geyer 1992, the initial monotone sequence; Vehtari et al. 2021, sec. 3-4).

A chain that does not move has no autocorrelation of its own. The ESS treats it as one repeated draw: its
variance and its autocovariances at all lags are set to the mean variance of the other chains.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import fft, special, stats

from ._utils.validation import check_finite, check_real_array

__all__ = ["bulk_ess", "split_r_hat"]

_MIN_DRAWS = 4
# A chain does not move if its range is below this fraction of the largest interquartile range of any.
_STILL = 1e-2


def split_r_hat(draws: Any) -> np.ndarray:
    """Return the rank-normalised split R-hat of each column.

    It is the larger of two values: that of the normal scores of the draws, which detects chains with
    different means, and that of the normal scores of their distances from the median, which detects
    chains with different variances. Each chain is cut in two halves, so that a drift is detected too.

    Parameters
    ----------
    draws : array-like of shape (n_chains, n_draws, n_features)
        Draws of each chain, in order; at least four each.

    Returns
    -------
    ndarray of shape (n_features,)
        1 for chains that agree; infinite for chains that are constant at different values. Vehtari et
        al. recommend less than 1.01.

    Raises
    ------
    ValueError
        If `draws` has another shape, too few draws, or values that are not finite, or if a column
        holds a single value.

    Notes
    -----
    The cost is a sort of each column; columns are processed one after another.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Bürkner, Rank-normalization, folding, and localization: an
    improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16(2), 2021.

    See Also
    --------
    bulk_ess : The number of independent draws with the same information.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.diagnostics import split_r_hat
    >>> draws = np.random.RandomState(0).normal(size=(4, 500, 1))
    >>> split_r_hat(draws).round(2), split_r_hat(draws + np.arange(4)[:, None, None]).round(1)
    (array([1.]), array([1.6]))
    """
    columns = _checked(draws)
    return np.array([max(_r_hat(_scores(c)), _r_hat(_scores(_folded(c)))) for c in columns])


def bulk_ess(draws: Any) -> np.ndarray:
    """Return the bulk effective sample size of each column.

    It is the number of independent draws that would estimate the mean of the normal scores with the same
    variance. Normal scores have finite moments for any distribution. Chains that disagree lower it, and
    so do chains that do not move: with one such chain of four it is about 16 for any number of draws.

    Parameters
    ----------
    draws : array-like of shape (n_chains, n_draws, n_features)
        Draws of each chain, in order; at least four each.

    Returns
    -------
    ndarray of shape (n_features,)
        Between zero and ``n log10(n)``, with n the number of all draws; above n if successive draws are
        negatively correlated. Vehtari et al. recommend 100 for each chain before R-hat is used.

    Raises
    ------
    ValueError
        As `split_r_hat`.

    Notes
    -----
    Autocovariances come from a Fourier transform, n log n operations a column.

    References
    ----------
    Vehtari et al., as in `split_r_hat`. C. J. Geyer, Practical Markov chain Monte Carlo, Statistical
    Science 7(4), 1992.

    See Also
    --------
    split_r_hat : Whether the chains agree.

    Examples
    --------
    Successive draws with correlation 0.5 reduce the size to (1 - 0.5) / (1 + 0.5) = 1/3 of the draws.

    >>> import numpy as np
    >>> from scipy.signal import lfilter
    >>> from skdiffsmooth.diagnostics import bulk_ess
    >>> noise = np.random.RandomState(0).normal(size=(4, 10_000, 1))
    >>> draws = lfilter([1.0], [1.0, -0.5], noise, axis=1)
    >>> (bulk_ess(draws) / 40_000).round(2)
    array([0.33])
    """
    return np.array([_ess(column) for column in _checked(draws)])


def _checked(draws: Any) -> list[np.ndarray]:
    """Return the halves of the chains, an array (2 n_chains, n_draws // 2) for each column."""
    draws = check_real_array("draws", draws)
    if draws.ndim != 3 or draws.shape[0] < 1 or draws.shape[1] < _MIN_DRAWS:
        raise ValueError(
            f"draws has shape {draws.shape}; expected (n_chains, n_draws, n_features) with at least "
            f"{_MIN_DRAWS} draws a chain. Run longer chains, or add an axis: draws[..., None]."
        )
    check_finite("draws", draws, "Drop the chains that diverged, or run again with smaller steps.")
    half = draws.shape[1] // 2
    # The middle one of an odd number of draws belongs to neither half.
    halves = np.concatenate([draws[:, :half], draws[:, -half:]])
    constant = np.flatnonzero(np.ptp(halves, axis=(0, 1)) == 0)
    if len(constant):
        raise ValueError(
            f"draws holds a single value in column {constant[0]}; expected columns that vary. Drop that "
            "column."
        )
    return list(np.moveaxis(halves, 2, 0))


def _folded(column: np.ndarray) -> np.ndarray:
    """Return twice the distances from the median, which are exactly equal for the two middle draws."""
    middle = np.sort(column, axis=None)[[(column.size - 1) // 2, column.size // 2]]
    return np.abs(column[..., None] - middle).sum(axis=-1)


def _scores(column: np.ndarray) -> np.ndarray:
    """Return Blom's normal scores of the ranks; equal values have equal scores."""
    ranks = stats.rankdata(column).reshape(column.shape)
    return special.ndtri((ranks - 0.375) / (column.size + 0.25))


def _variances(scores: np.ndarray) -> tuple[float, float]:
    """Return W and V of the module's equations."""
    n = scores.shape[1]
    within = float(scores.var(axis=1, ddof=1).mean())
    between = float(scores.mean(axis=1).var(ddof=1))
    return within, (n - 1) / n * within + between


def _r_hat(scores: np.ndarray) -> float:
    within, overall = _variances(scores)
    if within == 0:
        # Draws of two values have equal distances from the median: there is nothing to compare.
        return math.inf if overall > 0 else 1.0
    return math.sqrt(overall / within)


def _ess(column: np.ndarray) -> float:
    scores = _scores(column)
    n_chains, n = scores.shape
    quartiles = np.quantile(column, [0.25, 0.75], axis=1)
    is_still = np.ptp(column, axis=1) < _STILL * np.ptp(quartiles, axis=0).max()
    within = float(scores[~is_still].var(axis=1, ddof=1).mean())
    overall = (n - 1) / n * within + float(scores.mean(axis=1).var(ddof=1))
    centered = scores - scores.mean(axis=1, keepdims=True)
    # Padding to twice the length keeps the end of a chain from correlating with its start.
    size = fft.next_fast_len(2 * n, real=True)
    spectrum = np.abs(fft.rfft(centered, size, axis=1)) ** 2
    lagged = fft.irfft(spectrum[~is_still].mean(axis=0), size)[:n] / (n - 1)
    lagged += np.mean(is_still) * (within - lagged)
    rho = 1 - (within - lagged) / overall
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
    positive = np.logical_and.accumulate(pairs > 0)
    time = -1 + 2 * np.sum(np.minimum.accumulate(pairs) * positive)
    total = n_chains * n
    # For draws that alternate the sum may be zero or negative.
    return total / max(time, 1 / math.log10(total))
