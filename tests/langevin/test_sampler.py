"""Tests of the Langevin chains, against closed forms and a slow version that moves one chain at a time.

Where a distribution is tested, one draw of each of many chains is taken: draws are independent, and a
p-value means what it says. Seeds are fixed; with a fresh one correct code would fail such a test with
probability 1e-4. Each of these tests fails on a variant that is broken on purpose.
"""

import math
import pickle
import sys
import warnings

import numpy as np
import oracles
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import (
    KDESampler,
    LangevinSampler,
    ManifoldAdaptedDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.langevin import _sampler
from skdiffsmooth.langevin._targets import as_target

FALSE_ALARM = 1e-4
VARIANCES = np.array([1.0, 0.25])


def gaussian_score(x):
    return -x / VARIANCES


def gaussian_log_density(x):
    return -0.5 * np.sum(x**2 / VARIANCES, axis=1)


GAUSSIAN = (gaussian_score, gaussian_log_density)


def table(n=40, d=2):
    return np.random.RandomState(1).normal(size=(n, d)) * np.geomspace(2.0, 0.5, d)


def wide_start(n, d=2, seed=5):
    return 3 * np.random.RandomState(seed).standard_normal((n, d))


def run(target, start=None, seed=0, **params):
    """Chains, with steps that need no choice unless a test makes one."""
    params = {"n_draws": 6, "n_warmup": 3, "step_size": 0.1, "n_chains": 8, **params}
    with warnings.catch_warnings():
        # Chains of a few steps have not mixed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LangevinSampler(**params).run(target, start, seed)


def last_draws(target, start, n_steps, seed=0, **params):
    """The last of so many steps, of as many chains as there are starting rows."""
    params = {"n_draws": 1, "n_chains": len(start), "n_warmup": n_steps - 1, **params}
    return LangevinSampler(**params).run(target, start, seed).samples


def variance_p_value(draws, variance):
    """Exact two-sided test of the variance of centred Gaussian draws."""
    chi2, total = stats.chi2(len(draws)), np.sum(draws**2) / variance
    return 2 * min(chi2.cdf(total), chi2.sf(total))


# --------------------------------------------------------------------------------------- the steps


def slow_chains(score, log_density, start, n_steps, h, seed):
    """One chain at a time, with the formulas written out and the same random draws."""
    rng = np.random.RandomState(seed)
    x = start.copy()
    path = []
    for _ in range(n_steps):
        noise = rng.standard_normal(x.shape)
        threshold = rng.standard_exponential(len(x)) if log_density else None
        for i in range(len(x)):
            here = x[i : i + 1]
            there = here + h * score(here) + math.sqrt(2 * h) * noise[i]

            def log_q(to, from_):
                return -np.sum((to - from_ - h * score(from_)) ** 2) / (4 * h)

            if log_density:
                ratio = log_density(there)[0] - log_density(here)[0]
                ratio += log_q(here, there) - log_q(there, here)
                if -threshold[i] >= ratio:
                    continue
            x[i] = there
        path.append(x.copy())
    return np.stack(path, axis=1)


@pytest.mark.parametrize("metropolis", [False, True])
def test_chains_against_a_slow_version(metropolis):
    start = wide_start(8)
    log_density = gaussian_log_density if metropolis else None
    expected = slow_chains(gaussian_score, log_density, start, 12, 0.3, 0)
    result = run(
        GAUSSIAN, start, n_draws=4, n_warmup=4, thin=2, step_size=0.3, metropolis=metropolis
    )
    assert_allclose(result.draws, expected[:, [5, 7, 9, 11]], rtol=1e-12)
    if metropolis:
        moved = np.diff(expected[:, 3:], axis=1).any(axis=2)
        assert 0 < moved.mean() < 1
        assert_array_equal(result.acceptance_rate, moved.mean(axis=1))
    else:
        assert result.acceptance_rate is None
    assert_array_equal(result.samples, result.draws.reshape(-1, 2))


def test_thinning_and_warmup_change_no_chain():
    start = wide_start(8)
    whole = run(GAUSSIAN, start, n_draws=12, n_warmup=0).draws
    assert_array_equal(run(GAUSSIAN, start, n_draws=4, n_warmup=0, thin=3).draws, whole[:, 2::3])
    assert_array_equal(run(GAUSSIAN, start, n_draws=5, n_warmup=7).draws, whole[:, 7:])


def test_chains_are_independent():
    start, other = wide_start(8), wide_start(8)
    other[4:] += 10
    params = {"metropolis": True, "step_size": 0.3}
    assert_array_equal(
        run(GAUSSIAN, start, **params).draws[:4], run(GAUSSIAN, other, **params).draws[:4]
    )


def test_the_start_is_not_changed():
    start = wide_start(8)
    kept = start.copy()
    run(GAUSSIAN, start)
    assert_array_equal(start, kept)


# ------------------------------------------------------------------ stationary distributions


@pytest.mark.parametrize("h", [0.05, 0.2])
def test_distribution_of_unadjusted_chains(h):
    """For a Gaussian of variance S the stationary variance is S / (1 - h / (2 S)).

    x' = (1 - h / S) x + sqrt(2 h) z, so V = (1 - h / S)^2 V + 2 h. 20 000 chains detect 4 % of a
    variance; the bias is 2.6 to 67 %, and the variance of the target is rejected.
    """
    n_steps = math.ceil(12 / h)  # e^-12 is left of the start, that of the wide column
    draws = last_draws(gaussian_score, wide_start(20_000), n_steps, step_size=h)
    for column, variance in zip(draws.T, VARIANCES, strict=True):
        assert variance_p_value(column, variance / (1 - h / (2 * variance))) > FALSE_ALARM
    assert variance_p_value(draws[:, 1], VARIANCES[1]) < FALSE_ALARM
    assert abs(np.corrcoef(draws.T)[0, 1]) < 4 / math.sqrt(20_000)


def test_auto_step_makes_the_narrowest_variance_five_percent_too_large():
    """Measured for functions, by power iteration; known for estimators: the same tenth."""
    chains = run(gaussian_score, wide_start(8), step_size="auto")
    assert_allclose(chains.step_size, 0.1 * VARIANCES.min(), rtol=1e-3)
    model = KDESampler(0.3).fit(table())
    assert_allclose(run(model, step_size="auto").step_size, 0.1 * 0.3**2)
    assert_allclose(
        run(model, step_size="auto", noise_variance=0.5, temper=1.0).step_size, 0.1 * 0.5**0.5
    )


@pytest.mark.parametrize("width", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("center", [0.0, 1e3, 1e6, -1e8])
@pytest.mark.parametrize("start_std", [0.0, 2.0])
def test_auto_step_scales_with_the_distribution(width, center, start_std):
    """Two modes of variance one at -3 and 3: the score changes fastest between them, by 8."""

    def score(x):
        z = x / width - center
        return (3 * np.tanh(3 * z) - z) / width

    start = width * (center + start_std * wide_start(32, 1) / 3)
    start[0] = width * center
    step = run(score, start, n_chains=32, step_size="auto").step_size
    # Rounding of coordinates 1e8 times the width, over distances of 1e-4 of it.
    assert_allclose(step, 0.1 * width**2 / 8, rtol=1e-2)


def logistic(scale):
    """The score and the log-density of the logistic distribution."""
    return (
        lambda x: -np.tanh(x / (2 * scale)) / scale,
        lambda x: (-x / scale - 2 * np.logaddexp(0, -x / scale))[:, 0],
    )


@pytest.mark.parametrize("is_adjusted", [True, False])
def test_distribution_of_adjusted_chains(is_adjusted):
    """20 000 chains with long steps have the logistic distribution only if they are adjusted."""
    params = {"step_size": 4.0, "metropolis": is_adjusted}
    draws = last_draws(logistic(1.0), wide_start(20_000, 1), 60, **params)[:, 0]
    assert (stats.kstest(draws, "logistic").pvalue > FALSE_ALARM) == is_adjusted


@pytest.mark.parametrize("broken", ["forward", "backward", "ratio"])
def test_wrong_acceptance_rules_are_detected(broken, monkeypatch):
    """The test above fails where a part of the rule is left out."""

    class Wrong(_sampler.ChainState):
        def _accept_or_reject(self, h, proposal, noise):
            if broken == "forward":
                return super()._accept_or_reject(h, proposal, 0 * noise)
            if broken == "ratio":
                self._log_density = self._field.log_density(proposal)
            if broken == "backward":
                # The noise that would lead back, had the score not changed.
                back = self.z - proposal - h * self._score
                return super()._accept_or_reject(h, proposal, back / math.sqrt(2 * h))
            return super()._accept_or_reject(h, proposal, noise)

    monkeypatch.setattr(_sampler, "ChainState", Wrong)
    params = {"step_size": 4.0, "metropolis": True}
    draws = last_draws(logistic(1.0), wide_start(20_000, 1), 60, **params)[:, 0]
    assert stats.kstest(draws, "logistic").pvalue < FALSE_ALARM


@pytest.mark.parametrize("d", [1, 10])
def test_adaptation_reaches_the_acceptance_rate(d):
    """0.574 within 0.03: 50 chains of 500 steps know their rate to 0.005, 200 of warm-up theirs to some
    0.01. Afterwards the step is frozen: the chains are those of that step size.
    """
    target = (lambda x: -x, lambda x: -0.5 * np.sum(x**2, axis=1))
    start = np.random.RandomState(0).standard_normal((50, d))
    params = {"n_chains": 50, "n_draws": 500, "metropolis": True}
    result = LangevinSampler(**params).run(target, start, 0)
    assert result.acceptance_rate.mean() == pytest.approx(0.574, abs=0.03)
    assert result.r_hat.max() < 1.01
    again = LangevinSampler(**{**params, "step_size": result.step_size})
    assert again.run(target, start, 1).acceptance_rate.mean() == pytest.approx(0.574, abs=0.03)


def test_adaptation_does_not_depend_on_the_order_of_the_chains(monkeypatch):
    """Starting rows and noise permuted alike: the steps are the same to the last bit."""
    order = np.random.RandomState(3).permutation(8)

    class Permuted(np.random.RandomState):
        def standard_normal(self, size=None):
            return super().standard_normal(size)[order]

        def standard_exponential(self, size=None):
            return super().standard_exponential(size)[order]

    start = wide_start(8)
    params = {"metropolis": True, "n_warmup": 60, "step_size": "auto"}
    scores = {"target": (lambda x: -x, lambda x: -0.5 * np.sum(x**2, axis=1))}
    expected = run(
        **scores, start=start, seed=np.random.RandomState(0), noise_variance=1.0, **params
    )
    result = run(**scores, start=start[order], seed=Permuted(0), noise_variance=1.0, **params)
    assert result.step_size == expected.step_size
    assert_array_equal(result.draws, expected.draws[order])


def test_effective_size_of_a_gaussian():
    """Draws are an autoregression of 1 - h / S: n (1 - rho) / (1 + rho), within 15 %."""
    start = last_draws(gaussian_score, wide_start(32), 50, step_size=0.2)
    chains = LangevinSampler(2000, n_warmup=0, step_size=0.2).run(gaussian_score, start, 0)
    rho = 1 - 0.2 / VARIANCES
    assert_allclose(chains.ess, 64_000 * (1 - rho) / (1 + rho), rtol=0.15)
    assert chains.r_hat.max() < 1.01


# --------------------------------------------------------------------------------- tempered

KAPPA = 1.0


def noised_circle(v):
    """Score and log-density of a von Mises distribution on the unit circle plus noise of variance v.

    The integral over the circle is I_0(|w|), w = kappa e_1 + x / v.
    """

    def length(x):
        w = x / v + [KAPPA, 0.0]
        return w, np.linalg.norm(w, axis=1, keepdims=True)

    def score(x):
        w, size = length(x)
        return (special.i1e(size) / special.i0e(size) * w / size - x) / v

    def log_density(x):
        size = length(x)[1][:, 0]
        return np.log(special.i0e(size)) + size - np.sum(x**2, axis=1) / (2 * v)

    return score, log_density


def angle_cdf(v, power):
    """The distribution function of the angle under p_v^(v^(power / 2)), by quadrature."""
    width = math.sqrt(v ** (1 - power / 2))
    radius = np.linspace(max(0.0, 1 - 8 * width), 1 + 8 * width, 801)
    angle = np.linspace(-math.pi, math.pi, 801)
    grid = np.stack(np.meshgrid(radius, angle, indexing="ij"))
    x = grid[0] * np.stack([np.cos(grid[1]), np.sin(grid[1])])
    logs = v ** (power / 2) * noised_circle(v)[1](x.reshape(2, -1).T).reshape(801, 801)
    density = np.sum(np.exp(logs - logs.max()) * grid[0], axis=0)
    cdf = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return lambda t: np.interp(t, angle, cdf / cdf[-1])


def uniform(t):
    return t / (2 * math.pi) + 0.5


def angles_of_chains(v, power, n_times=5.0):
    """3000 chains that start where the density is least, run for five relaxation times."""
    h = 0.1 * v ** (1 - power / 2)
    start = np.tile([-1.0, 0.0], (3000, 1))
    x = last_draws(
        noised_circle(v)[0], start, math.ceil(n_times / h), noise_variance=v, temper=power
    )
    return np.arctan2(x[:, 1], x[:, 0]), np.linalg.norm(x, axis=1)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5])
def test_tempered_distribution_on_the_circle(power):
    """The exact distribution of the angle at v = 0.04, from the point opposite to the mode.

    3000 draws detect 0.04 of the CDF. e^-5 of the start is left, 0.002. For power 0 it is that of the
    data, von Mises but for the noise, and the uniform distribution is rejected.
    """
    angles, radii = angles_of_chains(0.04, power)
    assert stats.kstest(angles, angle_cdf(0.04, power)).pvalue > FALSE_ALARM
    if power == 0:
        assert stats.kstest(angles, uniform).pvalue < FALSE_ALARM
    if power <= 0.5:
        # Across the data: v^(1 - a/2), 5 % more by the step; the circle's curvature adds some.
        width = 0.04 ** (1 - power / 2)
        assert np.var(radii) == pytest.approx(width / 0.95, rel=0.15)


def test_tempered_distribution_is_uniform_at_small_noise():
    """v = 0.0009 and power 1: a von Mises distribution of concentration 0.03, 0.005 from uniform.

    The distribution of the data is rejected. `test_tempered_distribution_on_the_circle` accepts it at
    power 0.
    """
    angles, radii = angles_of_chains(0.0009, 1.0)
    assert stats.kstest(angles, uniform).pvalue > FALSE_ALARM
    assert stats.kstest(angles, stats.vonmises(KAPPA).cdf).pvalue < FALSE_ALARM
    assert np.var(radii) == pytest.approx(0.03 / 0.95, rel=0.15)
    # A few plain steps go back to the circle, and not along it: 0.9^60 of the distance is left.
    tempered = np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])
    x = last_draws(noised_circle(0.0009)[0], tempered, 60, step_size=0.1 * 0.0009)
    assert np.var(np.linalg.norm(x, axis=1)) == pytest.approx(0.0009 / 0.95, rel=0.15)
    assert stats.kstest(np.arctan2(x[:, 1], x[:, 0]), uniform).pvalue > FALSE_ALARM


def ellipse(n, a=2.0, b=1.0):
    """Points of an ellipse at equal distances along it, and the length up to each."""
    t = np.linspace(-np.pi, np.pi, 100_001)
    steps = np.hypot(np.diff(a * np.cos(t)), np.diff(b * np.sin(t)))
    length = np.concatenate([[0], np.cumsum(steps)])
    t = np.interp(np.arange(n) / n * length[-1], length, t)
    return np.column_stack([a * np.cos(t), b * np.sin(t)]), np.arange(n) / n


@pytest.mark.slow
def test_tempered_distribution_on_an_ellipse():
    """A fitted KDE of a von Mises distribution over the length; 400 of its own draws as a start.

    400 draws detect 0.11 of the CDF, and the data are 0.16 from uniform. 350 steps are three
    relaxation times; v^(1/2) = 0.06 of the density is left.
    """
    points, place = ellipse(100)  # 1.6 bandwidths apart: the estimate varies by 1 % between two
    weight = np.exp(np.cos(2 * np.pi * place - np.pi))
    model = KDESampler(0.06).fit(points, sample_weight=weight)
    cumulated = np.cumsum(weight) / weight.sum()
    fine, where = ellipse(1000)  # a hundredth of what the draws detect

    def places(rows):
        distance = np.sum((rows[:, None] - fine) ** 2, axis=2)
        return where[distance.argmin(axis=1)]

    start = model.sample(400, random_state=0)
    assert stats.kstest(places(start), "uniform").pvalue < FALSE_ALARM
    tempered = places(last_draws(model, start, 350, temper=1.0))
    assert stats.kstest(tempered, "uniform").pvalue > FALSE_ALARM
    plain = places(last_draws(model, start, 75, seed=1))
    assert stats.kstest(plain, "uniform").pvalue < FALSE_ALARM
    data_test = stats.kstest(plain, lambda u: np.interp(u, place, cumulated))
    assert data_test.pvalue > FALSE_ALARM


@pytest.mark.parametrize("metropolis", [False, True])
def test_tempering_multiplies_by_a_power_of_the_variance(metropolis):
    v, start = 0.3, wide_start(8)
    score, log_density = noised_circle(v)
    by_hand = (lambda x: v**0.35 * score(x), lambda x: v**0.35 * log_density(x))
    expected = run(by_hand, start, metropolis=metropolis)
    result = run((score, log_density), start, noise_variance=v, temper=0.7, metropolis=metropolis)
    assert_allclose(result.draws, expected.draws, rtol=1e-10)


# --------------------------------------------------------------------------------- annealed

FAR, SHARE = 4.0, 0.2


def two_modes(x, t):
    """Score of N(-4, t) with weight 0.2 and N(4, t) with 0.8."""
    logit = math.log((1 - SHARE) / SHARE) + 2 * FAR * x / t
    return (FAR * np.tanh(logit / 2) - x) / t


def test_annealing_finds_the_weights_of_far_modes():
    """All 2000 chains start in the light mode. Annealed, its share is 0.2 up to what the last jumps
    leave (0.01) and three standard errors (0.03); plain chains stay where they are.
    """
    start = np.full((2000, 1), -FAR)
    common = {"noise_variance": 0.09, "n_draws": 1, "n_chains": 2000}
    plain = LangevinSampler(n_warmup=500, **common)
    assert np.all(plain.run(lambda x: two_modes(x, 0.09), start, 0).samples < 0)
    annealed = LangevinSampler(n_warmup=100, anneal_from=6.0, n_levels=20, **common)
    samples = annealed.run(two_modes, start, 0).samples
    assert np.mean(samples < 0) == pytest.approx(SHARE, abs=0.04)
    # Within the modes it is the distribution of the last level.
    inside = samples - FAR * np.sign(samples)
    assert variance_p_value(inside[:, 0], 0.09 / 0.95) > FALSE_ALARM


def test_annealed_levels_are_geometric_and_steps_in_proportion():
    """Noise arguments of the score, and lengths sqrt(2 h) of steps, h in proportion to the variance."""
    calls = []

    def score(x, t):
        calls.append((t, x.copy()))
        return np.zeros_like(x)

    start = np.zeros((4000, 1))
    sampler = LangevinSampler(
        2,
        n_warmup=1,
        n_chains=4000,
        step_size=0.03,
        noise_variance=0.25,
        anneal_from=2.0,
        n_levels=3,
    )
    chains = sampler.run(score, start, 0)
    levels = list(dict.fromkeys(t for t, _ in calls))
    assert_allclose(levels, [4.0, 1.0, 0.25], rtol=1e-12)
    assert chains.step_size == pytest.approx(0.03)
    # Levels of one step with 16, 4 and 1 times the last step, and two steps that are kept.
    variances = [np.var(x) for _, x in calls]
    expected = 2 * 0.03 * np.array([0, 16, 16, 20, 20, 21, 22, 23])
    assert_allclose(variances, expected, rtol=0.1)


def test_annealing_of_an_estimator_starts_from_noised_draws():
    """KDE(h) plus noise is KDE(sqrt(t)): the distribution of the first level, before any step."""
    X = np.array([[-4.0], [4.0]])
    model = KDESampler(1.0).fit(X, sample_weight=[1, 4])
    sampler = LangevinSampler(
        1, n_warmup=0, n_chains=5000, anneal_from=2.0, n_levels=2, step_size=1e-12
    )
    samples = sampler.run(model, random_state=0).samples[:, 0]
    wide = KDESampler(2.0).fit(X, sample_weight=[1, 4])

    def cdf(x):
        return (stats.norm.cdf((x[:, None] - X[:, 0]) / 2.0) * wide.weights_).sum(axis=1)

    assert stats.kstest(samples, cdf).pvalue > FALSE_ALARM
    # Of one row, the noise of the bandwidth and what is missing to that of the level.
    alone = sampler.run(KDESampler(1.0).fit([[0.0]]), random_state=0).samples
    assert variance_p_value(alone, 4.0) > FALSE_ALARM
    with pytest.raises(ValueError, match=r"anneal_from=1e-09 is a noise scale"):
        run(model, anneal_from=1e-9)
    # "auto" is the standard deviation of the data: 2 * 4 * sqrt(0.2 * 0.8).
    steps = LangevinSampler(1, n_warmup=0, anneal_from="auto")._levels(as_target(model, None))
    assert steps[0].variance == pytest.approx(3.2**2)


# -------------------------------------------------------------------------------- estimators

FAST = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}


@pytest.mark.parametrize(
    "model",
    [
        KDESampler(0.5),
        KDESampler([0.5, 0.2]),
        SmoothedScoreDiffusion(0.4, 0.5, **FAST),
        SmoothedScoreDiffusion(0.4, 0.5, metric="whitened", **FAST),
        SmoothedScoreDiffusion(0.4, 0.5, metric="scaled", solver="euler-maruyama", **FAST),
        ManifoldAdaptedDiffusion(0.4, 0.5, manifold="pca", n_components=1, **FAST),
    ],
    ids=lambda model: type(model).__name__,
)
def test_adjusted_chains_have_the_distribution_of_the_energy(model):
    """One long run of 2000 chains against exp(-energy) on a grid, along each column: 2000 draws detect
    0.05 of the CDF.
    """
    model = clone(model).fit(table(12))
    axes = [np.linspace(-7, 7, 200), np.linspace(-4, 4, 200)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    energy = model.energy(grid.reshape(-1, 2)).reshape(200, 200)
    density = np.exp(energy.min() - energy)
    sampler = LangevinSampler(1, n_warmup=100, n_chains=2000, metropolis=True)
    samples = sampler.run(model, random_state=0).samples
    for j, axis in enumerate(axes):
        marginal = density.sum(axis=1 - j)
        cdf = np.cumsum(marginal) - marginal / 2
        p_value = stats.kstest(
            samples[:, j], lambda x, a=axis, c=cdf: np.interp(x, a, c / c[-1])
        ).pvalue
        assert p_value > FALSE_ALARM


@pytest.mark.parametrize(
    "model",
    [
        KDESampler([0.5, 0.2]),
        SmoothedScoreDiffusion(0.4, 0.5, metric="whitened", **FAST),
        SmoothedScoreDiffusion(0.4, 0.5, metric=[[3.0, 1.0], [1.0, 0.5]], **FAST),
    ],
    ids=["kde", "whitened", "matrix"],
)
def test_the_score_in_chain_coordinates_is_the_gradient_of_the_log_density(model):
    """And noise is the same in all of them: a lone row is a Gaussian of the noise variance."""
    X = table() @ [[1.0, 0.7], [0.0, 1.0]]
    target = as_target(clone(model).fit(X), None)
    z = wide_start(8)
    oracles.assert_score_is_the_gradient(target, z)
    assert_allclose(target.start(target.rows(z), 8, None, None), z, rtol=1e-12)


def units(X):
    return X / X.std(axis=0)


@pytest.mark.parametrize("metropolis", [False, True])
def test_chains_move_in_the_metric(metropolis):
    """Scaled columns by hand, or by the metric: the same chains in other units, to rounding."""
    X = table() * [1.0, 100.0]
    params = {"metropolis": metropolis, "step_size": 0.02}
    expected = run(SmoothedScoreDiffusion(0.4, 0.5, **FAST).fit(units(X)), units(X)[:8], **params)
    scaled = SmoothedScoreDiffusion(0.4, 0.5, metric="scaled", **FAST).fit(X)
    result = run(scaled, X[:8], **params)
    assert_allclose(result.draws, expected.draws * X.std(axis=0), rtol=1e-9, atol=1e-9)
    # Bandwidths of their own, relative to the smallest, are units too.
    plain = run(KDESampler(0.4).fit(units(X)), units(X)[:8], **params)
    bandwidths = 0.4 * X.std(axis=0)
    steps = params["step_size"] * X.std(axis=0).min() ** 2
    result = run(KDESampler(bandwidths).fit(X), X[:8], metropolis=metropolis, step_size=steps)
    assert_allclose(result.draws, plain.draws * X.std(axis=0), rtol=1e-9, atol=1e-9)


def test_noise_variance_is_that_of_a_wider_kde():
    X = table()
    expected = run(KDESampler(0.7).fit(X), X[:8], metropolis=True, step_size=0.3)
    narrow = KDESampler(0.3).fit(X)
    result = run(narrow, X[:8], metropolis=True, step_size=0.3, noise_variance=0.49)
    assert_allclose(result.draws, expected.draws, rtol=1e-9)
    assert_allclose(narrow.energy(X, t=0.49), KDESampler(0.7).fit(X).energy(X), rtol=1e-12)


@pytest.mark.parametrize("t", [0.01, 0.16, 2.0])
def test_the_energy_at_any_noise_has_the_field_as_its_slope(t):
    """In the plane of the data and, by the noise of that variance, away from it."""
    X = np.column_stack([table(), table().sum(axis=1)])
    model = SmoothedScoreDiffusion(0.4, 0.5, metric="scaled", **FAST).fit(X)
    Q, step = X + [0.05, 0.0, 0.1], 1e-5
    for j, shift in enumerate(step * np.eye(3)):
        slope = (model.energy(Q - shift, t=t) - model.energy(Q + shift, t=t)) / (2 * step)
        # Rounding of exponents of some hundred nats, over the step.
        assert_allclose(model.grad_log_density(Q, t=t)[:, j], slope, rtol=1e-6, atol=1e-6)


def test_a_field_without_an_energy_has_unadjusted_chains_only():
    model = ManifoldAdaptedDiffusion(0.4, 0.5, n_components=1, **FAST).fit(table(40, 3))
    assert run(model, step_size="auto").draws.shape == (8, 6, 3)
    with pytest.raises(ValueError, match="energy is not defined"):
        run(model, metropolis=True)


def test_chains_stay_in_the_support_of_a_compact_kernel():
    """Uniform on [-1, 1]: the score is zero, and what is proposed outside is rejected."""
    model = KDESampler(1.0, "tophat").fit([[0.0]])
    sampler = LangevinSampler(1, n_warmup=200, n_chains=2000, metropolis=True, step_size=0.3)
    samples = sampler.run(model, random_state=0).samples[:, 0]
    assert np.abs(samples).max() <= 1
    assert stats.kstest(samples, stats.uniform(-1, 2).cdf).pvalue > FALSE_ALARM


def test_tiles_change_no_chain():
    """Rows are worked on in tiles where memory is short: the same chains, to rounding."""
    model = SmoothedScoreDiffusion(0.4, 0.5, **FAST).fit(table(200))
    expected = run(model, step_size="auto").draws
    result = run(model.set_params(memory_limit=0.05), step_size="auto").draws
    assert_allclose(result, expected, rtol=1e-10)


def test_data_frames_and_their_columns():
    X = pd.DataFrame(table(), columns=["a", "b"])
    model = KDESampler(0.4).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(model, X[:8]).draws
    assert list(model.feature_names_in_) == ["a", "b"]
    assert_array_equal(result, run(KDESampler(0.4).fit(X.to_numpy()), X.to_numpy()[:8]).draws)
    with pytest.raises(ValueError, match="feature names"):
        run(model, X[:8][["b", "a"]])


# ----------------------------------------------------------------------------- conventions


def test_seeds():
    model = KDESampler(0.4).fit(table())
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = run(model, seed=3)
    assert_array_equal(run(model, seed=3).draws, first.draws)
    assert_array_equal(run(model, seed=np.random.RandomState(3)).draws, first.draws)
    assert not np.array_equal(run(model, seed=4).draws, first.draws)
    assert not np.array_equal(run(model, seed=None).draws, run(model, seed=None).draws)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_sampler_is_a_scikit_learn_object():
    sampler = LangevinSampler(50, temper=1.0, metropolis=True)
    assert clone(sampler).get_params() == sampler.get_params()
    assert repr(sampler) == "LangevinSampler(metropolis=True, n_draws=50, temper=1.0)"
    assert sampler.set_params(n_chains=3).n_chains == 3
    model = KDESampler(0.4).fit(table())
    state = pickle.dumps(vars(model))
    sampler.set_params(n_draws=2).run(model, random_state=0)
    assert vars(sampler).keys() == sampler.get_params().keys()
    assert pickle.dumps(vars(model)) == state


def test_short_chains_have_no_diagnostics():
    chains = run(gaussian_score, wide_start(8), n_draws=3)
    assert chains.r_hat is None
    assert chains.ess is None
    assert "draws" not in repr(chains)


def test_constant_chains_have_no_diagnostics():
    """A chain that accepted a step, and then none, is short and not wrong."""
    seeds = range(60)
    unmoved = 0
    for seed in seeds:
        params = {"n_draws": 4, "n_chains": 1, "metropolis": True, "step_size": 0.9}
        try:
            chains = run(GAUSSIAN, np.zeros((1, 2)), seed, **params)
        except ValueError as error:
            assert "no chain accepted" in str(error)  # noqa: PT017
            continue
        is_one = np.ptp(chains.draws) == 0 or np.any(np.ptp(chains.draws, axis=(0, 1)) == 0)
        assert (chains.r_hat is None) == is_one
        unmoved += is_one
    assert unmoved


def test_chains_that_have_not_mixed_warn():
    def score(x):
        return two_modes(x, 0.09)

    start = np.repeat([[-FAR], [FAR]], 4, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"R-hat is .* in column 0.*anneal_from") as caught:
        LangevinSampler(100, n_chains=8, step_size=0.01).run(score, start, 0)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LangevinSampler(500, n_chains=8, step_size=0.1).run(gaussian_score, wide_start(8), 0)


# ------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("h", [2.2, 50.0, 1e200])
def test_diverging_chains_are_named(h):
    """Steps beyond twice a variance: factors of 1.2, 49 and 1e200 a step. None of it is returned."""
    start = np.zeros((4, 1))
    start[2] = 1e-3
    message = r"of 4 chains diverged \(chains .*; step \d+\): step_size=.*Pass a smaller step_size"
    with pytest.raises(ValueError, match=message):
        run(lambda x: -x, start, n_chains=4, n_draws=2000, step_size=h)


def test_only_diverging_chains_are_named():
    def score(x):
        return np.where(x > 5, 100 * x, -x)

    start = np.array([[0.0], [0.0], [6.0], [0.0]])
    with pytest.raises(ValueError, match=r"1 of 4 chains diverged \(chains 2; step"):
        run(score, start, n_chains=4, n_draws=2000)


def test_adjusted_chains_cannot_diverge():
    target = (lambda x: -(x**3), lambda x: -0.25 * np.sum(x**4, axis=1))
    with pytest.raises(ValueError, match=r"no chain accepted .* step_size=1e\+06"):
        run(target, np.ones((8, 1)), metropolis=True, step_size=1e6)
    chains = run(target, 5 * np.ones((8, 1)), metropolis=True, step_size="auto", n_warmup=100)
    assert np.all(np.isfinite(chains.draws))
    with pytest.raises(ValueError, match="diverged"):
        run(target[0], 5 * np.ones((8, 1)), step_size=0.5, n_draws=100)


@pytest.mark.parametrize("metropolis", [False, True])
def test_nan_is_never_returned(metropolis):
    def score(x):
        return np.where(np.abs(x) > 1, np.nan, -x)

    target = (score, lambda x: -0.5 * np.sum(x**2, axis=1))
    with pytest.raises(ValueError, match=r"score is NaN or infinite where 8 chains"):
        run(target, np.full((8, 1), 2.0), metropolis=metropolis)
    with pytest.raises(ValueError, match=r"score returned NaN|diverged .*not finite there"):
        run(target, np.zeros((8, 1)), metropolis=metropolis, n_draws=100)
    nowhere = (lambda x: -x, lambda x: np.full(len(x), np.nan))
    with pytest.raises(ValueError, match="log_density returned NaN"):
        run(nowhere, np.zeros((8, 1)), metropolis=True)
    outside = (lambda x: -x, lambda x: np.full(len(x), -np.inf))
    with pytest.raises(ValueError, match=r"8 chains .* start where log_density is -inf"):
        run(outside, np.zeros((8, 1)), metropolis=True)


BAD = {
    "n_draws": ([1.0, None, True], [0]),
    "n_warmup": ([1.0, None], [-1]),
    "thin": ([1.0, None], [0]),
    "verbose": ([1.0, None], [-1]),
    "n_chains": ([8.0, None], [0]),
    "n_levels": ([2.0, None], [1]),
    "step_size": ([None, True, [0.1]], [0, -1.0, math.nan, math.inf, "small"]),
    "metropolis": ([1, None, "yes"], []),
    "temper": ([None, "1"], [-0.1, 2.0, math.nan]),
    "noise_variance": (["auto", True], [0.0, -1.0, math.inf]),
    "anneal_from": ([True, [1.0]], [0.0, -1.0, "terminal"]),
}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        (name, value, error)
        for name, groups in BAD.items()
        for values, error in zip(groups, (TypeError, ValueError), strict=True)
        for value in values
    ],
)
def test_bad_parameters(name, value, error):
    with pytest.raises(error, match=name):
        run(GAUSSIAN, wide_start(8), **{name: value})


@pytest.mark.parametrize(
    ("target", "params", "error", "message"),
    [
        (KDESampler(), {}, NotFittedError, "not fitted"),
        (KDESampler, {}, TypeError, "target=.*fitted estimator"),
        (None, {}, TypeError, "target=None"),
        ((gaussian_score,), {}, TypeError, "tuple"),
        ((gaussian_score, 1.0), {}, TypeError, "tuple"),
        (
            make_pipeline(StandardScaler(), KDESampler()),
            {},
            TypeError,
            "for a pipeline its last step",
        ),
        (gaussian_score, {"metropolis": True}, ValueError, "metropolis=True needs a log-density"),
        (gaussian_score, {"temper": 1.0}, ValueError, "temper=1.0 needs the noise variance"),
        (gaussian_score, {"anneal_from": 2.0}, ValueError, "anneal_from=2.0 needs the noise"),
        (
            gaussian_score,
            {"anneal_from": "auto", "noise_variance": 1.0},
            ValueError,
            "anneal_from='auto' needs an estimator",
        ),
        (
            GAUSSIAN,
            {"metropolis": True, "step_size": "auto", "n_warmup": 20},
            ValueError,
            "n_warmup=20 is too small",
        ),
        (np.zeros_like, {"step_size": "auto"}, ValueError, "score changes by 0 per unit"),
        (lambda x: x[:, :1], {}, ValueError, r"score returned an array of shape \(8, 1\)"),
        (
            (gaussian_score, gaussian_score),
            {"metropolis": True},
            ValueError,
            r"log_density returned an array of shape \(8, 2\)",
        ),
        (lambda x: ["a"] * len(x), {}, ValueError, "what score returned .* is not numeric"),
    ],
)
def test_bad_targets(target, params, error, message):
    with pytest.raises(error, match=message):
        run(target, wide_start(8), **params)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (None, "start=None"),
        (np.zeros((7, 2)), "start has 7 rows, but n_chains=8"),
        (np.zeros(8), "Expected 2D"),
        (np.full((8, 2), np.nan), "start contains NaN"),
    ],
)
def test_bad_starts(start, message):
    with pytest.raises(ValueError, match=message):
        run(gaussian_score, start)


def test_a_start_with_another_number_of_columns():
    with pytest.raises(ValueError, match="3 features"):
        run(KDESampler(0.4).fit(table()), np.zeros((8, 3)))


def test_chains_for_arviz():
    arviz = pytest.importorskip("arviz")
    sampler = LangevinSampler(20, n_warmup=2, n_chains=3, step_size=0.1)
    chains = sampler.run(lambda x: -x, start=np.zeros((3, 2)), random_state=0)
    posterior = chains.to_arviz(["a", "b"])["posterior"]
    assert posterior["a"].dims == ("chain", "draw")
    np.testing.assert_array_equal(posterior["b"], chains.draws[:, :, 1])
    assert arviz.summary(chains.to_arviz()).index.tolist() == ["x0", "x1"]


def test_chains_for_arviz_need_names_and_the_package(monkeypatch):
    sampler = LangevinSampler(3, n_warmup=2, n_chains=3, step_size=0.1)
    chains = sampler.run(lambda x: -x, start=np.zeros((3, 2)), random_state=0)
    for names in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="2 different names"):
            chains.to_arviz(names)
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match="pip install arviz"):
        chains.to_arviz()
