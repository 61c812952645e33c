"""Tests of the chains' diagnostics, against chains whose correlations are known."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.signal import lfilter

from skdiffsmooth.diagnostics import bulk_ess, split_r_hat


def autoregressive(rho, n_chains=8, n_draws=4000, seed=0):
    """Stationary Gaussian chains, each draw correlated by rho with the draw before."""
    noise = np.random.RandomState(seed).normal(size=(n_chains, n_draws))
    noise[:, 0] /= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=1)[..., None]


def slow_split(column):
    half = column.shape[1] // 2
    return [chain[:half] for chain in column] + [chain[-half:] for chain in column]


def slow_scores(chains):
    """Normal scores by counting, one draw at a time."""
    values = np.concatenate(chains)

    def score(x):
        rank = np.sum(values < x) + (np.sum(values == x) + 1) / 2
        return stats.norm.ppf((rank - 3 / 8) / (len(values) + 1 / 4))

    return [np.array([score(x) for x in chain]) for chain in chains]


def slow_r_hat(chains):
    n = len(chains[0])
    within = np.mean([np.var(chain, ddof=1) for chain in chains])
    between = np.var([np.mean(chain) for chain in chains], ddof=1)
    return math.sqrt(((n - 1) / n * within + between) / within)


def slow_ess(chains):
    """Vehtari et al. (2021), eq. 10-13, with sums for the autocovariances."""
    n = len(chains[0])
    within = np.mean([np.var(chain, ddof=1) for chain in chains])
    between = np.var([np.mean(chain) for chain in chains], ddof=1)
    overall = (n - 1) / n * within + between

    def covariance(chain, lag):
        centered = chain - chain.mean()
        return np.sum(centered[: n - lag] * centered[lag:]) / (n - 1)

    def rho(lag):
        return 1 - (within - np.mean([covariance(chain, lag) for chain in chains])) / overall

    time, least = -1.0, math.inf
    for k in range(n // 2):
        pair = rho(2 * k) + rho(2 * k + 1)
        if pair <= 0:
            break
        least = min(least, pair)
        time += 2 * least
    total = n * len(chains)
    return total / max(time, 1 / math.log10(total))


@pytest.mark.parametrize("n_draws", [4, 5, 40, 61])
@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_diagnostics_against_slow_versions(rho, n_draws):
    draws = autoregressive(rho, n_chains=3, n_draws=n_draws)
    draws[0, 1] = draws[1, 2]  # equal values share a rank
    halves = slow_split(draws[..., 0])
    # Rounded, so that the two draws beside the median are equally far from it.
    folded = [np.round(np.abs(half - np.median(halves)), 12) for half in halves]
    expected = max(slow_r_hat(slow_scores(halves)), slow_r_hat(slow_scores(folded)))
    assert_allclose(split_r_hat(draws), [expected], rtol=1e-12)
    assert_allclose(bulk_ess(draws), [slow_ess(slow_scores(halves))], rtol=1e-9)


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9])
def test_ess_of_an_autoregressive_chain(rho):
    """n (1 - rho) / (1 + rho): 32 000 draws, seed 0. Over 20 seeds the standard deviation is 6 % at
    rho = 0.9, where it is largest: this is three of them.
    """
    draws = autoregressive(rho)
    assert_allclose(bulk_ess(draws), draws.size * (1 - rho) / (1 + rho), rtol=0.18)


def test_r_hat_of_independent_draws_is_one():
    """Seed 0. Over 200 seeds the largest of four columns was 1.0014."""
    draws = np.random.RandomState(0).standard_normal((8, 1000, 4))
    assert split_r_hat(draws).max() < 1.005
    assert_allclose(bulk_ess(draws), 8000, rtol=0.1)


def test_r_hat_detects_means_widths_and_drifts_without_variances():
    draws = np.random.RandomState(0).standard_cauchy((4, 1000, 1))
    assert split_r_hat(draws) < 1.01
    moved, wide, drifting = draws.copy(), draws.copy(), draws.copy()
    moved[0] += 3
    wide[0] *= 10
    drifting += np.linspace(0, 8, 1000)[:, None]
    for broken in (moved, wide, drifting):
        assert split_r_hat(broken) > 1.05
    # A mean that differs lowers the effective sample size too.
    assert bulk_ess(moved) < 0.05 * bulk_ess(draws)


def test_invariances():
    """Neither the order of the chains nor a monotone map nor the columns beside one matter."""
    draws = autoregressive(0.5, n_chains=4, n_draws=100)
    both = np.concatenate([draws, np.exp(draws), -draws], axis=2)
    for diagnose in (bulk_ess, split_r_hat):
        expected = diagnose(draws)[0]
        assert_allclose(diagnose(both)[[0, 2]], expected, rtol=1e-10)
        assert_allclose(diagnose(draws[[2, 0, 3, 1]]), expected, rtol=1e-10)
    # The distance from the median is not invariant to monotone maps; the rest is.
    assert_allclose(bulk_ess(both)[1], bulk_ess(draws)[0], rtol=1e-10)


def test_rounding_does_not_rank_the_two_draws_beside_the_median():
    """Both are equally far from it, and draws that are moved and scaled have the same ranks."""
    for seed in range(20):
        draws = np.random.RandomState(seed).normal(size=(4, 12, 1))
        assert_allclose(split_r_hat(draws / 3 + 0.1), split_r_hat(draws), rtol=1e-12)


def test_constant_chains():
    draws = np.repeat([[0.0], [1.0], [5.0]], 10, axis=1)[..., None]
    assert split_r_hat(draws) == math.inf
    assert 0 < bulk_ess(draws) < 10


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("position", [0.0, 1.0])
def test_a_chain_that_stands_still_is_one_draw(position, noise):
    """A mean over M chains, one of them a single draw, has the variance of at most M^2 draws."""
    draws = np.random.RandomState(0).normal(size=(4, 500, 1))
    moving = bulk_ess(draws)[0]
    draws[2] = position + noise * draws[2]
    # Estimated from half chains; in the middle of the others their means agree, which adds a little.
    assert bulk_ess(draws)[0] < 1.3 * 4**2 < 0.1 * moving
    assert split_r_hat(draws)[0] > 1.1
    # Chains of a rare event may hold one value: without a range to compare, none stands still.
    rare = np.random.RandomState(0).uniform(size=(4, 500, 1)) < 2e-3
    assert bulk_ess(1.0 * rare)[0] > 1000


def test_ess_of_alternating_chains_is_above_the_number_of_draws_and_finite():
    draws = autoregressive(-0.99, n_chains=4, n_draws=1000)
    assert 4000 < bulk_ess(draws) <= 4000 * math.log10(4000)


@pytest.mark.parametrize("diagnose", [split_r_hat, bulk_ess])
@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (np.zeros((3, 10)), r"draws has shape \(3, 10\).*draws\[..., None\]"),
        (np.zeros((3, 3, 1)), r"draws has shape \(3, 3, 1\).*at least 4"),
        (np.zeros((0, 10, 1)), r"draws has shape \(0, 10, 1\)"),
        (np.full((3, 10, 1), np.nan), "draws holds 30 values that are NaN"),
        (np.ones((3, 10, 1)), "draws holds a single value in column 0"),
        ([[["a"]]], "draws .* is not numeric"),
    ],
)
def test_bad_draws(diagnose, draws, message):
    with pytest.raises(ValueError, match=message):
        diagnose(draws)
