"""Tests of the solvers and of the likelihood along the flow, against flows in closed form.

`GaussianField` is the score of Gaussian data and its flow is a stretch along the axes. `ChenField`
is piecewise linear and its flow piecewise linear in sqrt(v). `PullField` is the score of one point, and
its flow is a straight line. None of them comes from the library.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffsmooth.noise import NoiseLevels, Step
from skdiffsmooth.solvers import (
    SOLVERS,
    Euler,
    EulerMaruyama,
    Heun,
    Multistep,
    ODESolver,
    PredictorCorrector,
    Solver,
    solve,
)
from skdiffsmooth.solvers._exponential import RightHandSide
from skdiffsmooth.solvers._flow import flow_log_density

DETERMINISTIC = [Euler(), Heun(), Multistep()]
every_deterministic_solver = pytest.mark.parametrize(
    "solver", DETERMINISTIC, ids=lambda solver: type(solver).__name__
)
both_ways = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


@dataclass(frozen=True)
class GaussianField:
    """Score of N(mean, diag(variances) + v I)."""

    mean: torch.Tensor
    variances: torch.Tensor

    def __call__(self, x, v):
        return -(x - self.mean) / (self.variances + v)

    def with_divergence(self, x, v):
        return self(x, v), (-1 / (self.variances + v)).sum().expand(len(x))

    def rows(self, index):
        return self

    def flow(self, x, start, end):
        """Deviations keep their ratio to the standard deviation of the noised data."""
        stretch = ((self.variances + end**2) / (self.variances + start**2)).sqrt()
        return self.mean + (x - self.mean) * stretch

    def log_change(self, start, end):
        """log p_start(x_start) - log p_end(x_end): the volume's growth."""
        return 0.5 * float(((self.variances + end**2) / (self.variances + start**2)).log().sum())

    def log_density(self, x, v):
        spread = (self.variances + v).sqrt()
        return torch.distributions.Normal(self.mean, spread).log_prob(x).sum(1)


@dataclass(frozen=True)
class PullField:
    """One data point: the posterior mean is constant."""

    target: torch.Tensor

    def __call__(self, x, v):
        return (self.target - x) / v

    def with_divergence(self, x, v):
        return self(x, v), torch.full((len(x),), -x.shape[1] / v, dtype=x.dtype)


@dataclass(frozen=True)
class ChenField:
    """Chen, arXiv:2502.19499: data {-1, 1}, with an interpolated score between them.

    With delta = kappa sqrt(t): -(x + 1)/t left of delta - 1, -(x - 1)/t right of 1 - delta, and
    between them delta / (1 - delta) x / t.
    """

    kappa: float

    def __call__(self, x, v):
        delta = self.kappa * math.sqrt(v)
        between = delta / (1 - delta) * x / v
        return torch.where(x.abs() <= 1 - delta, between, (torch.sign(x) - x) / v)

    def with_divergence(self, x, v):
        delta = self.kappa * math.sqrt(v)
        between = torch.full_like(x, delta / (1 - delta) / v)
        return self(x, v), torch.where(x.abs() <= 1 - delta, between, -1 / v)[:, 0]

    def flow_to_data(self, x, start):
        """Where x at noise scale `start` ends as the noise vanishes."""
        width = 1 - self.kappa * start
        return torch.where(x.abs() <= width, x / width, torch.sign(x))

    def flow(self, x, start, end):
        """Straight lines, in sqrt(t), through the point that `flow_to_data` says."""
        goal = self.flow_to_data(x, start)
        return goal + (x - goal) * end / start

    def log_change(self, x, start, end):
        width = [1 - self.kappa * scale for scale in (start, end)]
        between = math.log(width[1] / width[0])
        outside = math.log(end / start)
        return torch.where(x.abs() <= width[0], x.new_tensor(between), outside)[:, 0]


@dataclass(frozen=True)
class Schedule:
    """A field for each level, and a record of the levels used."""

    fields: list
    asked: list

    @classmethod
    def of(cls, *fields):
        return cls(list(fields), [])

    def at(self, level):
        self.asked.append(level)
        return self.fields[level]


def no_noise():
    raise AssertionError("a deterministic solver draws no noise")


GAUSSIAN = GaussianField(tensor([0.5, -1.0, 0.0]), tensor([2.0, 0.3, 0.01]))
QUERIES = tensor([[0.3, -0.2, 0.05], [-1.0, 2.0, -0.1], [0.5, -1.0, 0.0]])
LOW, HIGH = 0.05, 2.0


def steps_of(n, up=True, bandwidth=LOW, terminal_scale=HIGH):
    steps = list(NoiseLevels(bandwidth, terminal_scale, 1).steps(n))
    return steps if up else [step.reversed() for step in reversed(steps)]


def started(solver, x, steps):
    """The solver of one flow: itself, unless it keeps earlier evaluations."""
    return solver.initial_state(x, len(steps)) if hasattr(solver, "initial_state") else solver


def walk(solver, field, x, steps):
    """Positions and log-density, by one method and by the other; None for a solver without density."""
    alone = solve(started(solver, x, steps), Schedule.of(field), x, steps, no_noise)
    if not isinstance(solver, ODESolver):
        return alone, None
    change, solver = x.new_zeros(len(x)), started(solver, x, steps)
    for step in steps:
        x, by_step = solver.step_with_log_density(field, x, step.start, step.end)
        change = change + by_step
    torch.testing.assert_close(x, alone, rtol=1e-14, atol=1e-14)
    return x, change


# ----------------------------------------------------------------------------- orders and limits


def slope(steps, errors):
    """Power with which errors fall, by least squares on logarithms."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@both_ways
@every_deterministic_solver
def test_order(solver, up):
    """Four halvings. Slopes come within 0.1 of the order: terms of the next order are a tenth of the
    error at the first of the step sizes and shrink from there: of `Multistep`, whose first middle is
    predicted at a lower order, at a quarter of them.
    """
    counts = 2 ** np.arange(5, 10) * (4 if isinstance(solver, Multistep) else 1)
    start, end = (LOW, HIGH) if up else (HIGH, LOW)
    x, log_change = GAUSSIAN.flow(QUERIES, start, end), GAUSSIAN.log_change(start, end)
    errors = []
    for n in counts:
        found, change = walk(solver, GAUSSIAN, QUERIES, steps_of(n, up))
        errors.append([float((found - x).abs().max())])
        if change is not None:
            errors[-1].append(float((change - log_change).abs().max()))
    for error in np.transpose(errors):
        assert slope(counts, error) == pytest.approx(solver.order, abs=0.1)
        # The limit is the right one: a scheme may converge, at its order, to something else.
        assert error[-1] < {1: 0.03, 2: 1e-4}[solver.order]


def test_a_slope_distinguishes_orders():
    """Heun's method with its second slope taken at the start has order one."""

    class Lazy(Heun):
        def step(self, field, x, start, end, draw):
            slope = -start * field(x, start**2)
            return x + (end - start) / 2 * (slope - end * field(x, end**2))

    counts = 2 ** np.arange(5, 10)
    x = GAUSSIAN.flow(QUERIES, LOW, HIGH)
    errors = [
        float(
            (solve(Lazy(), Schedule.of(GAUSSIAN), QUERIES, steps_of(n), no_noise) - x).abs().max()
        )
        for n in counts
    ]
    assert abs(slope(counts, errors) - 2) > 0.5


@both_ways
@every_deterministic_solver
@pytest.mark.parametrize("n_steps", [1, 5])
def test_exact_for_a_constant_posterior_mean(solver, n_steps, up):
    """Straight lines in y, and volumes that grow with y^d: solvers are exact for any step.

    The latter catches the rule that integrates the divergence in y instead of log y.
    """
    start, end = (1e-3, 10.0) if up else (10.0, 1e-3)
    pull = PullField(tensor([1.0, -2.0, 0.5]))
    x, change = walk(solver, pull, QUERIES, steps_of(n_steps, up, 1e-3, 10.0))
    # Rounding of x, carried up by a factor of 10^4.
    expected = pull.target + (QUERIES - pull.target) * end / start
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)
    if change is not None:
        np.testing.assert_allclose(change, 3 * math.log(end / start), rtol=1e-13)


# ----------------------------------------------------------- the closed-form flow of Chen (2025)


def test_chen_flow_solves_chen_field():
    """The oracle's flow against the oracle's field, by central differences in y = sqrt(t)."""
    chen, y = ChenField(0.7), 0.6
    # Not on the kinks, at |x| = 1 - 0.42.
    x = tensor([[-1.5], [-0.8], [-0.5], [-0.1], [0.0], [0.3], [0.7], [1.2]])
    h = 1e-6
    slope = (chen.flow(x, y, y + h) - chen.flow(x, y, y - h)) / (2 * h)
    # Cancellation: 1e-16 / h.
    torch.testing.assert_close(slope, -y * chen(x, y * y), rtol=0, atol=1e-9)
    growth = (chen.log_change(x, y, y + h) - chen.log_change(x, y, y - h)) / (2 * h)
    _, divergence = chen.with_divergence(x, y * y)
    torch.testing.assert_close(growth, -y * divergence, rtol=0, atol=1e-9)


@both_ways
@pytest.mark.parametrize("kappa", [0.3, 0.9])
@every_deterministic_solver
def test_chen_flow(solver, kappa, up):
    """Positions to rounding at any step, log-densities to the solver's error between the points.

    Between, d log p / d log y = -delta / (1 - delta): 0 at small noise, a curve in log y. Over 200
    steps of 3 %, the second order leaves h^2 / 12 times the slope delta / (1 - delta)^2 at most.
    """
    chen, (start, end) = ChenField(kappa), (1e-3, 1.0) if up else (1.0, 1e-3)
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    x = x[(x.abs() - (1 - kappa * start)).abs()[:, 0] > 1e-6]  # the kinks belong to neither side
    found, change = walk(solver, chen, x, steps_of(200, up, 1e-3, 1.0))
    torch.testing.assert_close(found, chen.flow(x, start, end), rtol=1e-10, atol=1e-10)
    if change is None:
        return
    h = math.log(1e3) / 200
    error = (change - chen.log_change(x, start, end)).abs()
    assert error.max() < 1.1 * h**2 * kappa / (1 - kappa) ** 2 / 12 + 1e-12
    outside = x[:, 0].abs() > 1 - kappa * start
    assert error[outside].max() < 1e-10


@every_deterministic_solver
def test_chen_flow_to_the_data(solver):
    """Chen's map itself: interpolation between the points, and the points."""
    chen = ChenField(0.5)
    x = tensor([[-2.0], [-0.6], [-0.4], [0.0], [0.2], [0.49], [0.51], [3.0]])
    found, _ = walk(solver, chen, x, steps_of(50, False, 1e-9, 1.0))
    # What is left of |x - goal|, 2 at most, at a noise scale of 1e-9.
    torch.testing.assert_close(found, chen.flow_to_data(x, 1.0), rtol=0, atol=4e-9)


# ------------------------------------------------------------------------------ Euler-Maruyama


def gaussian_moments_by_steps(solver, field, mean, variance, steps):
    """Mean and variance of the scheme's samples in one dimension, exactly, without sampling.

    Steps are linear in x and noise: two points for x and two for the noise have all the moments.
    """
    for step in steps:
        x = mean + math.sqrt(variance) * tensor([[-1.0], [-1.0], [1.0], [1.0]])
        noise = tensor([[-1.0], [1.0], [-1.0], [1.0]])
        x = solver.step(field, x, step.start, step.end, lambda noise=noise: noise)
        mean, variance = float(x.mean()), float(x.var(correction=0))
    return mean, variance


# Data N(1, 0.5) seen through noise, and a start with another mean and another variance.
TARGET = GaussianField(tensor([1.0]), tensor([0.5]))
START_MEAN, START_VARIANCE = -1.0, 2.0


def reverse_moments(end):
    """Mean and variance that the reverse SDE carries START to; deviations fall with 0.5 + v."""
    share = (0.5 + end**2) / (0.5 + HIGH**2)
    return (
        1 + (START_MEAN - 1) * share,
        0.5 + end**2 + (START_VARIANCE - 0.5 - HIGH**2) * share**2,
    )


def test_weak_order_of_euler_maruyama():
    """The mean is exact, (0.5 + v) / (0.5 + v') being what a step leaves of it; the variance is not."""
    counts = 2 ** np.arange(6, 11)
    laws = [
        gaussian_moments_by_steps(
            EulerMaruyama(), TARGET, START_MEAN, START_VARIANCE, steps_of(n, up=False)
        )
        for n in counts
    ]
    errors = np.abs(np.array(laws) - reverse_moments(LOW))
    assert errors[:, 0].max() < 1e-12
    assert slope(counts, errors[:, 1]) == pytest.approx(EulerMaruyama.order, abs=0.1)
    assert errors[-1, 1] < 2e-3


FALSE_ALARM = 1e-4
N_DRAWS = 10_000


def gaussian_p_values(samples, mean, variance):
    """Exact tests of the mean, given the variance, and of the variance."""
    z = (samples.mean() - mean) / math.sqrt(variance / len(samples))
    chi2 = ((samples - mean) ** 2).sum() / variance
    law = stats.chi2(len(samples))
    return 2 * stats.norm.sf(abs(z)), 2 * min(law.cdf(chi2), law.sf(chi2))


class HalfDrift(EulerMaruyama):
    """Deliberately wrong: the drift of the probability flow with the noise of the SDE."""

    def step(self, field, x, start, end, draw):
        elapsed = start**2 - end**2
        return x + elapsed / 2 * field(x, start**2) + math.sqrt(elapsed) * draw()


class LargeNoise(EulerMaruyama):
    """Deliberately wrong: noise 5 % too large."""

    def step(self, field, x, start, end, draw):
        return super().step(field, x, start, end, lambda: 1.05 * draw())


def end_of_flow(solver, steps):
    """N_DRAWS samples of data N(1, 0.5) at the end of the steps."""
    rng = np.random.RandomState(0)
    start = 1 + math.sqrt(0.5 + HIGH**2) * rng.standard_normal((N_DRAWS, 1))
    noise = lambda: tensor(rng.standard_normal((N_DRAWS, 1)))  # noqa: E731
    return solve(solver, Schedule.of(TARGET), tensor(start), steps, noise)[:, 0].numpy()


@pytest.mark.parametrize("solver_class", [EulerMaruyama, HalfDrift, LargeNoise])
def test_distribution_of_euler_maruyama(solver_class):
    """10 000 samples of data N(1, 0.5) at noise scale 0.05, from seed 0.

    With a fresh seed correct code would fail each of the two tests with probability 1e-4, or 2e-4 if
    one counts what 1000 steps leave: no error of the mean and 0.3 % of the variance, 1/5 of its
    standard error.
    """
    end = end_of_flow(solver_class(), steps_of(1000, up=False))
    p_values = gaussian_p_values(end, 1.0, 0.5 + LOW**2)
    assert (min(p_values) > FALSE_ALARM) == (solver_class is EulerMaruyama)


# -------------------------------------------------------------------------- predictor-corrector


def test_weak_order_of_predictor_corrector():
    """With snr^2 in proportion to the step, the corrector's own width being the largest error."""
    counts = 2 ** np.arange(6, 11)
    errors = []
    for n in counts:
        solver = PredictorCorrector(snr=math.sqrt(1 / n))
        start = 1.0, 0.5 + HIGH**2
        mean, variance = gaussian_moments_by_steps(solver, TARGET, *start, steps_of(n, up=False))
        assert mean == pytest.approx(1, abs=1e-12)
        errors.append(abs(variance - (0.5 + LOW**2)))
    assert slope(counts, errors) == pytest.approx(PredictorCorrector.order, abs=0.1)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("snr", [0.16, 0.5])
def test_the_stationary_variance_of_correctors(snr):
    """A thousand at one noise scale: S / (1 - h / (2 S)), h = 2 snr^2 v, whatever the start was."""
    narrow, scale = GaussianField(tensor([1.0]), tensor([0.01])), 0.3
    stand = [Step(0, scale, scale)] * 1000
    mean, variance = gaussian_moments_by_steps(PredictorCorrector(snr), narrow, 0.0, 7.0, stand)
    noised = 0.01 + scale**2
    assert mean == pytest.approx(1.0)
    assert variance == pytest.approx(noised / (1 - (snr * scale) ** 2 / noised))


@pytest.mark.parametrize("n_corrections", [0, 1, 3])
def test_corrections_are_made_at_the_end_of_a_step(n_corrections):
    asked, draws = [], []

    class Recording(PullField):
        def __call__(self, x, v):
            asked.append(v)
            return super().__call__(x, v)

    def draw():
        draws.append(1)
        return torch.zeros_like(QUERIES)

    field = Recording(QUERIES[0])
    found = PredictorCorrector(n_corrections=n_corrections).step(field, QUERIES, 1.0, 0.5, draw)
    assert len(draws) == n_corrections
    assert asked == [1.0, 0.25] + n_corrections * [0.25]
    if not n_corrections:
        assert torch.equal(found, Heun().step(field, QUERIES, 1.0, 0.5, no_noise))


class Uncorrected(PredictorCorrector):
    """Deliberately wrong: the noise of a corrector without its drift."""

    def step(self, field, x, start, end, draw):
        return Heun().step(field, x, start, end, draw) + 2 * self.snr * end * draw()


@pytest.mark.parametrize("solver_class", [PredictorCorrector, Uncorrected])
def test_distribution_of_predictor_corrector(solver_class):
    """10 000 samples of data N(1, 0.5) at noise scale 0.05, from seed 0. By the test's other half, the
    moments of the scheme, 100 steps leave 1 % of the variance, 0.7 of its standard error.
    """
    steps = steps_of(100, up=False)
    p_values = gaussian_p_values(end_of_flow(solver_class(), steps), 1.0, 0.5 + LOW**2)
    assert (min(p_values) > FALSE_ALARM) == (solver_class is PredictorCorrector)
    if solver_class is PredictorCorrector:
        law = gaussian_moments_by_steps(PredictorCorrector(), TARGET, 1.0, 0.5 + HIGH**2, steps)
        assert law == pytest.approx((1.0, 0.5 + LOW**2), rel=0.011)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"snr": 0.0}, ValueError, "snr=0.0"),
        ({"snr": 1.0}, ValueError, "snr=1.0 is out of range"),
        ({"snr": "0.1"}, TypeError, "snr='0.1'"),
        ({"n_corrections": -1}, ValueError, "n_corrections=-1"),
        ({"n_corrections": 1.0}, TypeError, "n_corrections=1.0"),
    ],
)
def test_bad_predictor_correctors(params, error, message):
    with pytest.raises(error, match=message):
        PredictorCorrector(**params)


@pytest.mark.parametrize("cls", SOLVERS.values(), ids=SOLVERS)
def test_messages_can_show_a_solver(cls):
    assert repr(cls()).startswith(f"{cls.__name__}(")
    assert cls() == cls()


class MovingMean:
    """A posterior mean that is the same at all rows, and linear in the logarithm of the noise scale."""

    def __call__(self, x, v):
        return (LINEAR[0] + LINEAR[1] * math.log(v) / 2 - x) / v


LINEAR = tensor([1.0, -2.0]), tensor([0.7, 3.0])


def test_the_multistep_prediction_is_exact_for_means_that_are_linear():
    """x - mean = slope + (x_0 - mean_0 - slope) y / y_0; the middle of the third step is predicted."""
    state, ode = (
        Multistep().initial_state(tensor([[0.0, 0.0]]), 3),
        RightHandSide(MovingMean(), False),
    )
    x, levels = tensor([[4.0, -3.0]]), [2.0, 1.3, 0.9, 0.2]
    for start, end in itertools.pairwise(levels[:3]):
        x = state.step(MovingMean(), x, start, end, None)
    start, middle = levels[2], math.sqrt(levels[2] * levels[3])
    mean = LINEAR[0] + LINEAR[1] * math.log(start)
    moved = mean + LINEAR[1] * (math.log(middle / start) + 1)
    moved = moved + (x - mean - LINEAR[1]) * (middle / start)
    assert torch.allclose(state._predicted(ode, x, start, middle), moved, rtol=1e-12)


@pytest.mark.parametrize("solver", [cls() for cls in SOLVERS.values()], ids=list(SOLVERS))
def test_draws(solver):
    """One draw a step and no other, or none at all."""
    draws = []

    def draw():
        draws.append(1)
        return torch.zeros_like(QUERIES)

    solve(solver, Schedule.of(GAUSSIAN), QUERIES, steps_of(7, up=False), draw)
    assert len(draws) == (7 if solver.is_stochastic else 0)


def test_solvers_do_not_change_their_arguments():
    """Neither the samples nor the noise."""
    x, noise = QUERIES.clone(), torch.ones_like(QUERIES)
    for solver in (cls() for cls in SOLVERS.values()):
        assert isinstance(solver, Solver)
        solver.step(GAUSSIAN, x, 1.0, 0.5, lambda: noise)
        torch.testing.assert_close(x, QUERIES, rtol=0, atol=0)
        assert torch.all(noise == 1)


# ------------------------------------------------------------------------- levels and likelihood


@every_deterministic_solver
@pytest.mark.parametrize("steps_per_level", [1, 3])
def test_each_step_follows_the_field_of_its_level(solver, steps_per_level):
    """Three levels with the scores of three points: straight lines, so that the result is exact."""
    targets = [tensor([0.0, 1.0, 2.0]), tensor([5.0, 0.0, -3.0]), tensor([-1.0, -1.0, 4.0])]
    schedule = Schedule.of(*map(PullField, targets))
    bounds = 0.1 * 10.0 ** (np.arange(4) / 3)
    steps = list(NoiseLevels(0.1, 1.0, 3).steps(steps_per_level))
    expected = QUERIES
    for target, (start, end) in zip(targets, itertools.pairwise(bounds), strict=True):
        expected = target + (expected - target) * end / start
    found = solve(solver, schedule, QUERIES, steps, no_noise)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert schedule.asked == sorted(list(range(3)) * steps_per_level)

    schedule.asked.clear()
    back = solve(solver, schedule, found, [s.reversed() for s in reversed(steps)], no_noise)
    torch.testing.assert_close(back, QUERIES, rtol=1e-11, atol=1e-11)
    assert schedule.asked == sorted(list(range(3)) * steps_per_level, reverse=True)


def test_no_steps():
    assert solve(Heun(), Schedule.of(), QUERIES, [], no_noise) is QUERIES


def test_flow_log_density_of_one_point():
    """From N(x_1, T I) the flow to one data point carries N(x_1, v_eps I), exactly."""
    pull = PullField(tensor([1.0, 0.0, -1.0]))
    schedule = Schedule.of(pull, pull)
    wide = GaussianField(pull.target, torch.zeros(3, dtype=torch.float64))
    found = flow_log_density(
        Heun(),
        schedule,
        QUERIES,
        NoiseLevels(0.1, 5.0, 2).steps(2),
        lambda x: wide.log_density(x, 25.0),
    )
    torch.testing.assert_close(found, wide.log_density(QUERIES, 0.01), rtol=1e-12, atol=1e-12)
    assert schedule.asked == [0, 0, 1, 1]


def test_flow_log_density_of_gaussian_data():
    """N(mean, S + T) comes down as N(mean, S + v_eps); 400 steps of Heun's method leave 3e-4 nats,
    most of it in a query that is four standard deviations out.
    """
    found = flow_log_density(
        Heun(),
        Schedule.of(GAUSSIAN),
        QUERIES,
        steps_of(400),
        lambda x: GAUSSIAN.log_density(x, HIGH**2),
    )
    expected = GAUSSIAN.log_density(QUERIES, LOW**2)
    torch.testing.assert_close(found, expected, rtol=0, atol=6e-4)


def test_flow_log_density_with_a_field_for_each_level():
    """Two levels with two Gaussian fields: two stretches, and the volumes of both."""
    other = GaussianField(tensor([-0.5, 0.0, 1.0]), tensor([0.5, 0.1, 1.0]))
    levels = NoiseLevels(LOW, HIGH, 2)
    middle = math.sqrt(LOW * HIGH)
    x = other.flow(GAUSSIAN.flow(QUERIES, LOW, middle), middle, HIGH)
    change = GAUSSIAN.log_change(LOW, middle) + other.log_change(middle, HIGH)
    found = flow_log_density(
        Heun(), Schedule.of(GAUSSIAN, other), QUERIES, levels.steps(400), lambda x: x.sum(1)
    )
    # Steps of half a percent: squared, times 12 units of log y.
    torch.testing.assert_close(found, x.sum(1) + change, rtol=0, atol=2e-4)


def test_a_solver_describes_itself():
    step = Step(3, 0.1, 0.2)
    assert step.reversed() == Step(3, 0.2, 0.1)
    assert step.reversed().reversed() == step


# ----------------------------------------------------------------------------------- multistep


@both_ways
def test_multistep_takes_one_evaluation_a_step(up):
    """And one more at the start, from which the first middle is predicted."""
    scales = []

    class Recording(GaussianField):
        def __call__(self, x, v):
            scales.append(math.sqrt(v))
            return super().__call__(x, v)

    field = Recording(GAUSSIAN.mean, GAUSSIAN.variances)
    steps = steps_of(12, up)
    solve(Multistep().initial_state(QUERIES, 12), Schedule.of(field), QUERIES, steps, no_noise)
    middles = [math.sqrt(step.start * step.end) for step in steps]
    np.testing.assert_allclose(scales, [steps[0].start, *middles])


def test_multistep_follows_steps_of_other_sizes():
    """Its line through earlier means is one in log y: of second order for uneven steps too."""
    x, change = GAUSSIAN.flow(QUERIES, LOW, HIGH), GAUSSIAN.log_change(LOW, HIGH)
    errors = []
    for n in (64, 128, 256):
        scales = LOW * (HIGH / LOW) ** (np.linspace(0, 1, n + 1) ** 1.3)
        steps = [Step(0, *pair) for pair in itertools.pairwise(scales.tolist())]
        found, by_steps = walk(Multistep(), GAUSSIAN, QUERIES, steps)
        errors.append([float((found - x).abs().max()), float((by_steps - change).abs().max())])
    assert np.all(slope([64, 128, 256], np.array(errors)[:, 0]) == pytest.approx(2, abs=0.2))
    assert np.all(slope([64, 128, 256], np.array(errors)[:, 1]) == pytest.approx(2, abs=0.2))


def test_roughness_is_that_of_each_row():
    """Nothing at a constant posterior mean; where it jumps, what the jump moves."""
    jump = ChenField(0.01)  # Between the points the mean jumps at x = 0, but for a thin layer.
    x = tensor([[-1.01], [0.004], [1.02]])
    state = Multistep().initial_state(x, 20)
    for step in steps_of(20, True, 0.01, 1.0):
        x, _ = state.step_with_log_density(jump, x, step.start, step.end)
    assert state.roughness[0] < 1e-9
    assert state.roughness[2] < 1e-9
    alone = Multistep().initial_state(x[1:2], 20)
    x = tensor([[0.004]])
    for step in steps_of(20, True, 0.01, 1.0):
        x, _ = alone.step_with_log_density(jump, x, step.start, step.end)
    torch.testing.assert_close(alone.roughness, state.roughness[1:2])
