"""Tests of the adaptive solver and of the errors that are reported beside log-densities.

The oracles are flows in closed form, scipy's `solve_ivp` with a field of two loops, and the exact
KDE, which the flow of an unsmoothed score must give for any terminal scale.
"""

import math
from dataclasses import dataclass

import joblib
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.manifolds import Sphere
from skdiffsmooth.noise import NoiseLevels
from skdiffsmooth.solvers import SOLVERS, Adaptive, _adaptive, estimates_error, solve
from skdiffsmooth.solvers._exponential import RightHandSide
from skdiffsmooth.solvers._exponential import phi as _phi

FIXED = Adaptive(tol=1e-3, max_halvings=0)
LOW, HIGH = 0.05, 2.0

both_ways = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


def no_noise():
    raise AssertionError("a deterministic solver draws no noise")


def steps_of(n, up=True, low=LOW, high=HIGH):
    steps = list(NoiseLevels(low, high, 1).steps(n))
    return steps if up else [step.reversed() for step in reversed(steps)]


def follow(solver, field, x, steps):
    """Positions, log-density and estimated error at the end of some steps of one field."""
    state = solver.initial_state(x, len(steps))
    change = x.new_zeros(len(x))
    for step in steps:
        x, by_step = state.step_with_log_density(field, x, step.start, step.end)
        change = change + by_step
    return x, change, state.error


# -------------------------------------------------------------------------------- fields to follow


@dataclass(frozen=True)
class Counted:
    """A field of plain functions, which counts its calls and their rows."""

    score: object
    divergence: object
    asked: list

    def __call__(self, x, v):
        self.asked.append(len(x))
        return self.score(x, v)

    def with_divergence(self, x, v):
        return self(x, v), self.divergence(x, v)

    def rows(self, index):
        return self


def two_points(m=1.0):
    """Data -m and m on a line: s = (m tanh(m x / v) - x) / v."""

    def score(x, v):
        return (m * torch.tanh(m * x / v) - x) / v

    def divergence(x, v):
        return ((m**2 * (1 - torch.tanh(m * x / v) ** 2) / v - 1) / v)[:, 0]

    return Counted(score, divergence, [])


def two_points_log_density(x, v, m=1.0):
    x = np.asarray(x)[:, 0]
    terms = [-((x - m) ** 2) / (2 * v), -((x + m) ** 2) / (2 * v)]
    return logsumexp(terms, axis=0) - math.log(2 * math.sqrt(2 * math.pi * v))


def polynomial(of_mean, of_rate):
    """Posterior mean and rate of the log-density are polynomials in log y: nothing depends on x."""

    def score(x, v):
        return (np.polynomial.Polynomial(of_mean)(0.5 * math.log(v)) - x) / v

    def divergence(x, v):
        rate = np.polynomial.Polynomial(of_rate)(0.5 * math.log(v))
        return torch.full((len(x),), -rate / v, dtype=x.dtype)

    return Counted(score, divergence, [])


QUERIES = tensor([[-2.0], [-0.9], [-0.2], [0.0], [0.05], [0.6], [1.3], [7.0]])


# --------------------------------------------------------------------------------------- the scheme


@pytest.mark.parametrize("h", [-3.0, -0.5, -0.4999, -1e-3, 1e-9, 1e-3, 0.4999, 0.5, 3.0])
def test_phi(h):
    """Against integrals: phi_k(h) = int_0^1 exp(h (1 - t)) t^(k - 1) / (k - 1)! dt.

    Gauss-Legendre with 40 nodes is exact to rounding; the closed form of phi_3 loses 1e-16 / h^3.
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, weights = (nodes + 1) / 2, weights / 2
    for k, found in enumerate(_phi(h), start=1):
        expected = weights @ (np.exp(h * (1 - t)) * t ** (k - 1)) / math.factorial(k - 1)
        assert found == pytest.approx(expected, rel=1e-14)


@both_ways
def test_exact_for_quadratics(up):
    """In one step of any size: D a quadratic in s = log y, the rate of the log-density a cubic.

    dx/ds = x - D(s) has the solution P + D_0 e^s with P = D + D' + D'', the derivatives stopping there.
    """
    mean, rate = [0.3, -1.0, 0.7], [1.0, 0.2, -0.4, 0.3]
    field, (start, end) = polynomial(mean, rate), (LOW, HIGH) if up else (HIGH, LOW)
    d = np.polynomial.Polynomial(mean)
    particular = d + d.deriv() + d.deriv(2)
    a, b = math.log(start), math.log(end)
    expected = (QUERIES - particular(a)) * math.exp(b - a) + particular(b)
    integral = np.polynomial.Polynomial(rate).integ()
    x, change = FIXED.step_with_log_density(field, QUERIES, start, end)
    torch.testing.assert_close(x, expected, rtol=1e-13, atol=1e-13)
    assert change.numpy() == pytest.approx(integral(b) - integral(a), rel=1e-12)
    torch.testing.assert_close(FIXED.step(field, QUERIES, start, end, no_noise), x)
    assert field.asked == [len(QUERIES)] * 6


@both_ways
def test_order(up):
    """Slopes over three halvings are within 0.3 of three, the effect of the next order.

    Against 1024 steps, whose own error is 1/500 of the smallest here.
    """
    field = two_points()
    x = QUERIES if up else QUERIES[[0, 1, 2, 4, 5, 6]]
    exact = follow(FIXED, field, x, steps_of(1024, up, 0.5, HIGH))
    counts, errors = 2 ** np.arange(5, 9), []
    for n in counts:
        found = follow(FIXED, field, x, steps_of(int(n), up, 0.5, HIGH))
        errors.append([float((found[k] - exact[k]).abs().max()) for k in (0, 1)])
    for error in np.transpose(errors):
        assert -np.polyfit(np.log(counts), np.log(error), 1)[0] == pytest.approx(3, abs=0.3)


def test_a_constant_denoiser_takes_three_evaluations():
    """The step is exact then, however long it is."""
    field = polynomial([2.0], [1.0])
    x, _, error = follow(Adaptive(1e-12), field, QUERIES, steps_of(1, True, 1e-3, 1e3))
    # Rounding of positions of a million.
    torch.testing.assert_close(x, 2.0 + (QUERIES - 2.0) * 1e6, rtol=1e-14, atol=0)
    assert len(field.asked) == 3
    assert error.max() < 1e-12


# ------------------------------------------------------------------------------- tolerance and error


@pytest.mark.parametrize("n_steps", [1, 16])
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
def test_the_tolerance_is_kept(tol, n_steps):
    """For any grid: the density of two points with noise is known at both ends.

    The only error is that of the solver; queries are at, between and far from the points.
    """
    field = two_points()
    solver = Adaptive(tol, max_halvings=14)
    x, change, error = follow(solver, field, QUERIES, steps_of(n_steps, True, 0.2, HIGH))
    found = two_points_log_density(x, HIGH**2) + change.numpy()
    wrong = np.abs(found - two_points_log_density(QUERIES, 0.04))
    assert error.max() <= tol * (1 + 1e-9)
    # Rounding is 1e-13 of some hundreds of nats.
    assert np.all(wrong <= error.numpy() + 1e-11)


def test_errors_fall_with_the_tolerance():
    """The number of evaluations grows as expected of a method of third order."""
    tols, wrong, asked = 10.0 ** -np.arange(2, 8), [], []
    for tol in tols:
        field = two_points()
        x, change, _ = follow(Adaptive(tol), field, QUERIES, steps_of(8, True, 0.3, HIGH))
        found = two_points_log_density(x, HIGH**2) + change.numpy()
        wrong.append(np.abs(found - two_points_log_density(QUERIES, 0.09)).max())
        asked.append(sum(field.asked))
    assert np.all(np.diff(asked) > 0)
    assert wrong[-1] < 1e-3 * wrong[0]
    # Five powers of ten: 46 times as many steps at order three, were all of them halved at the start.
    assert asked[-1] / asked[0] < 46


def by_recursion(x, steps, tol, max_halvings):
    """Position, change, error and number of evaluations of one row of `two_points`, in plain floats.

    What the class says: ETD3RK as it is printed there, the error 4 g_2 min(1, g_2 / g_1), an eighth of
    the tolerance that is left for a step, half of a step's for its first half and what that leaves for
    the second.
    """

    def mean_and_rate(x, y):
        t = math.tanh(x / y**2)
        return t, 1 - (1 - t**2) / y**2

    def move(x, first, start, end, budget, halvings):
        h, middle = math.log(end / start), math.sqrt(start * end)
        phi_1 = math.expm1(h) / h
        phi_2 = (phi_1 - 1) / h
        phi_3 = (phi_2 - 1 / 2) / h
        d_1, r_1 = first
        d_2, r_2 = mean_and_rate(d_1 + (x - d_1) * middle / start, middle)
        ahead = 2 * d_2 - d_1
        ahead += (x - ahead) * end / start
        d_3, r_3 = mean_and_rate(ahead, end)
        of_first = x * end / start - h * phi_1 * d_1
        of_second = of_first - 2 * h * phi_2 * (d_2 - d_1)
        moved = of_first - h * (
            phi_2 * (4 * d_2 - 3 * d_1 - d_3) + 4 * phi_3 * (d_1 - 2 * d_2 + d_3)
        )
        change = h / 6 * (r_1 + 4 * r_2 + r_3)
        slope = max(abs(d_3 - ahead) / end**2, 1 / end)
        g_1 = abs(h * (r_2 - r_1)) + slope * abs(of_second - of_first)
        g_2 = abs(change - h * r_2) + slope * abs(moved - of_second)
        error = 4 * g_2 * min(1, g_2 / max(g_1, 1e-300))
        if halvings == 0 or error <= max(budget, 8 * 2**-52 * slope * abs(moved)):
            return moved, change, error, 2
        half = move(x, first, start, middle, budget / 2, halvings - 1)
        budget = max(budget - half[2], budget / 2)
        whole = move(half[0], mean_and_rate(half[0], middle), middle, end, budget, halvings - 1)
        return whole[0], half[1] + whole[1], half[2] + whole[2], 2 + half[3] + 1 + whole[3]

    error, change, n_evaluations = 0.0, 0.0, 0
    for k, step in enumerate(steps):
        budget = max(1 / 8, 1 / (len(steps) - k)) * (tol - error)
        budget = max(budget, max(error, tol) / 8 / len(steps))
        first = mean_and_rate(x, step.start)
        x, by_step, more, asked = move(x, first, step.start, step.end, budget, max_halvings)
        change, error, n_evaluations = change + by_step, error + more, n_evaluations + 1 + asked
    return x, change, error, n_evaluations


@both_ways
@pytest.mark.parametrize("max_halvings", [2, 12])
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
def test_positions_errors_and_numbers_of_evaluations_are_those_of_a_recursion(
    tol, max_halvings, up
):
    steps = steps_of(8, up, 0.2, HIGH)
    for row in QUERIES:
        field = two_points()
        found = follow(Adaptive(tol, max_halvings), field, row[None], steps)
        expected = by_recursion(float(row), steps, tol, max_halvings)
        # Rounding, which the flow down enlarges, and differences of nearly equal numbers in the errors.
        assert [float(each) for each in found] == pytest.approx(expected[:3], rel=1e-7, abs=1e-10)
        assert sum(field.asked) == expected[3]


def test_steps_of_a_row_do_not_depend_on_other_rows():
    """The row between the two points needs many steps; the others make few."""
    steps = steps_of(8, True, 0.1, HIGH)
    easy, hard = QUERIES[[0, 1, 6]], QUERIES[[3]]
    field = two_points()
    x, change, error = follow(Adaptive(1e-6), field, easy, steps)
    alone = sum(field.asked)
    together = two_points()
    found = follow(Adaptive(1e-6), together, torch.cat([easy, hard]), steps)
    for one, other in zip(found, (x, change, error), strict=True):
        torch.testing.assert_close(one[:3], other, rtol=1e-13, atol=1e-14)
    only = two_points()
    follow(Adaptive(1e-6), only, hard, steps)
    assert sum(together.asked) == alone + sum(only.asked)
    assert sum(only.asked) > alone


def test_too_few_halvings_are_reported_as_an_error():
    """The remaining error is estimated."""
    steps = steps_of(8, True, 0.2, HIGH)
    asked = {}
    for max_halvings in (0, 2, 12):
        field = two_points()
        _, _, error = follow(Adaptive(1e-6, max_halvings), field, QUERIES[[3, 4]], steps)
        asked[max_halvings] = sum(field.asked)
        assert bool(error.max() > 1e-6) == (max_halvings < 12)
    assert asked[0] == 2 * 3 * 8
    assert asked[2] <= 2 * 8 * (3 + 5 + 10)
    assert asked[2] < asked[12]


def test_after_a_missed_tolerance_steps_are_not_small():
    """More accuracy would not help then: 1248 evaluations if all steps were small."""
    field = two_points()
    follow(Adaptive(1e-6, 4), field, QUERIES[[3, 4]], steps_of(8, True, 0.1, HIGH))
    assert sum(field.asked) < 900


def test_a_field_that_jumps():
    """Only steps with the jump are halved, and the error is that of the smallest step."""

    def score(x, v):
        return ((1.0 if v < 0.17 else -1.0) - x) / v

    def divergence(x, v):
        return torch.full((len(x),), (2.0 if v < 0.17 else 1.0) / v, dtype=x.dtype)

    field = Counted(score, divergence, [])
    _, change, error = follow(Adaptive(1e-3, 20), field, QUERIES[:1], steps_of(1))
    jump = 0.5 * math.log(0.17)
    expected = -2.0 * (jump - math.log(LOW)) - (math.log(HIGH) - jump)
    assert abs(float(change) - expected) <= float(error) <= 1e-3
    assert len(field.asked) < 3 + 2 * 3 * 20


def test_steps_are_not_halved_for_rounding():
    """A tolerance of 1e-9 in float32: with all halvings it would take 2500 evaluations."""
    field = two_points()
    x = torch.tensor([[1.01], [0.6]], dtype=torch.float32)
    _, _, error = follow(Adaptive(1e-9, 8), field, x, steps_of(1, True, 0.5, 1.0))
    assert sum(field.asked) < 500
    assert torch.all(error < 1e-4)


def test_a_field_without_rows():
    """An error is raised where a step of some rows must be repeated."""

    class Plain:
        def __call__(self, x, v):
            return two_points()(x, v)

        def with_divergence(self, x, v):
            return two_points().with_divergence(x, v)

    follow(FIXED, Plain(), QUERIES, steps_of(4))
    with pytest.raises(TypeError, match=r"Plain has no\s+method rows\(index\).*solver='heun'"):
        follow(Adaptive(1e-6), Plain(), QUERIES, steps_of(4))


@pytest.mark.parametrize("tol", [0, -1.0, math.nan, "1e-3", None])
def test_bad_tolerances(tol):
    with pytest.raises((TypeError, ValueError), match=r"tol=.*in nats"):
        Adaptive(tol)


@pytest.mark.parametrize("max_halvings", [-1, 1.5, None])
def test_bad_numbers_of_halvings(max_halvings):
    with pytest.raises((TypeError, ValueError), match="max_halvings="):
        Adaptive(1e-3, max_halvings)


# -------------------------------------------------------------------------------------- the model


def ring(n, d=2, seed=0, noise=0.05):
    rng = np.random.RandomState(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    X = noise * rng.standard_normal((n, d))
    X[:, 0] += np.cos(angle)
    X[:, 1] += np.sin(angle)
    return X


def flow_by_scipy(model, X):
    """Log-densities by `solve_ivp`, level by level, over a field of two loops in numpy."""
    levels, points = model.noise_levels_, model.hierarchy_.points
    log_weights = np.log(model.hierarchy_.weights)
    found = []
    for query in model.hull_.split(X)[0]:
        state = np.append(query, 0.0)
        for level in range(levels.n_levels):
            offsets, shares = model.kernel_.nodes(level)

            def speed(y, state, offsets=offsets, shares=shares):
                x, change = state[:-1], 0.0
                mean, trace = np.zeros_like(x), 0.0
                for offset, share in zip(offsets, shares, strict=True):
                    logits = log_weights - ((x + offset - points) ** 2).sum(1) / (2 * y**2)
                    weights = np.exp(logits - logsumexp(logits))
                    here = weights @ points
                    mean = mean + share * here
                    trace += share * weights @ ((points - here) ** 2).sum(1)
                change = (len(x) - trace / y**2) / y
                return np.append((x - mean) / y, change)

            span = levels.start(level), levels.start(level + 1)
            state = solve_ivp(speed, span, state, "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
        terminal = logsumexp(
            log_weights - ((state[:-1] - points) ** 2).sum(1) / (2 * levels.terminal_scale**2)
        ) - len(query) / 2 * math.log(2 * math.pi * levels.terminal_scale**2)
        found.append(terminal + state[-1])
    return np.array(found)


@pytest.mark.parametrize("n_levels", [1, 3])
def test_against_scipy(n_levels):
    """The same nodes with two solvers; scipy's tolerance leaves about 1e-9."""
    X = ring(7)
    model = SmoothedScoreDiffusion(0.15, 0.3, n_nodes=4, n_levels=n_levels, n_steps=n_levels).fit(X)
    queries = np.vstack([X[:2], (X[2:4] + X[4:6]) / 2, [[2.5, 0.0]]])
    expected = flow_by_scipy(model, queries)
    for tol in (1e-2, 1e-4):
        model.set_params(solver=Adaptive(tol)).fit(X)
        found, error = model.score_samples(queries, return_error=True)
        assert np.all(error <= tol)
        # An estimate, no bound: single rows may err by more, though not by more than the tolerance.
        wrong = np.abs(found - expected)
        assert np.all(wrong <= np.minimum(2 * error, tol) + 1e-8)


@pytest.mark.parametrize("tol", [1e-2, 1e-3])
@pytest.mark.parametrize("bandwidth", [0.3, 0.05])
def test_the_kde(bandwidth, tol):
    """With a tiny sigma, for which the flow runs, it is the KDE, between points too.

    There, at a twentieth of the circle's radius, the flow is stiff: half of the distance of two points
    is eight noise scales. A smoothing of 1e-9 changes log-densities by less than 1e-7.
    """
    X = ring(40, noise=0.02)
    model = SmoothedScoreDiffusion(
        bandwidth, 1e-9, n_nodes=2, n_levels=8, n_steps=8, terminal_scale=1.5, solver=Adaptive(tol)
    ).fit(X)
    queries = np.vstack([X[:3] + 0.5 * bandwidth, (X[:3] + X[6:9]) / 2, 0.3 * X[:3] + 0.7 * X[6:9]])
    found, error = model.score_samples(queries, return_error=True)
    wrong = np.abs(found - KDESampler(bandwidth).fit(X).score_samples(queries))
    assert np.all(error <= tol)
    assert np.all(wrong <= 2 * tol + 1e-7)
    # Where the flow is stiff the estimate may be too small by a factor, not often.
    assert np.mean(wrong <= error + 1e-7) >= 0.9


SMOOTHED = SmoothedScoreDiffusion(0.15, 0.3, n_nodes=16, n_levels=6, n_steps=6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_converged(dtype):
    """Against Heun's method with 1200 steps, of an error below 1e-5 nats: within the reported error.

    In single precision positions round to 1e-7 of their size, which is 1e-6 noise scales.
    """
    X = ring(80)
    exact = clone(SMOOTHED).set_params(n_steps=1200).fit(X)
    queries = np.vstack([ring(30, seed=1), ring(10, seed=2, noise=0.5)])
    model = clone(SMOOTHED).set_params(solver="adaptive", dtype=dtype).fit(X)
    found, error = model.score_samples(queries, return_error=True)
    wrong = np.abs(found - exact.score_samples(queries))
    assert np.all(error <= 1e-3)
    assert np.all(wrong <= error + (1e-5 if dtype == "float64" else 1e-4))
    np.testing.assert_array_equal(model.score_samples(queries), found)


def test_a_row_does_not_depend_on_the_others():
    """Up to rounding, which differs between products of matrices of different shapes."""
    X = ring(50)
    model = clone(SMOOTHED).set_params(solver=Adaptive(1e-4)).fit(X)
    queries = np.vstack([X[:5], ring(6, seed=3, noise=0.4)])
    together = np.stack(model.score_samples(queries, return_error=True))
    alone = [np.stack(model.score_samples(row[None], return_error=True))[:, 0] for row in queries]
    np.testing.assert_allclose(np.transpose(alone)[0], together[0], rtol=1e-10)
    np.testing.assert_allclose(np.transpose(alone)[1], together[1], rtol=1e-3)
    with joblib.parallel_config("threading"):
        parallel = model.set_params(n_jobs=3).score_samples(queries)
    np.testing.assert_allclose(parallel, together[0], rtol=1e-10)


MODELS = {
    "isotropic": clone(SMOOTHED),
    "temperature": clone(SMOOTHED).set_params(kernel="temperature"),
    "gaussian-terminal": clone(SMOOTHED).set_params(terminal="gaussian"),
    "local": ManifoldAdaptedDiffusion(0.15, 0.3, n_components=1, n_levels=6, n_steps=6),
    "sphere": ManifoldAdaptedDiffusion(
        0.15, 0.3, manifold=Sphere(np.zeros(2), 1.0), n_nodes=8, n_levels=6, n_steps=6
    ),
}


@pytest.mark.parametrize("estimator", MODELS.values(), ids=MODELS)
def test_every_field_has_rows(estimator):
    """With an excluded point for each: rows of the field have the same rows of the result."""
    X = ring(20)
    model = clone(estimator).fit(X)
    schedule = model.model_.source.schedule(model._resources(), np.arange(20))
    field, x = schedule.at(1), tensor(model.hierarchy_.points + 0.01)
    index = torch.tensor([3, 17, 4])
    whole = field.with_divergence(x, 0.04)
    part = field.rows(index).with_divergence(x[index], 0.04)
    for some, every in zip(part, whole, strict=True):
        torch.testing.assert_close(some, every[index], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("estimator", MODELS.values(), ids=MODELS)
def test_leave_one_out(estimator):
    """Rows whose steps are repeated still exclude their point, which changes about a nat."""
    X = ring(10)
    exact = clone(estimator).set_params(n_steps=96).fit(X).leave_one_out_log_density()
    model = clone(estimator).set_params(solver=Adaptive(1e-3)).fit(X)
    # The error of Heun's 96 steps.
    np.testing.assert_allclose(model.leave_one_out_log_density(), exact, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_the_flow_down_and_up_again_is_the_identity(tol):
    """Each way has an error of at most the tolerance, in noise scales.

    On the way up displacements grow no faster than the noise scale, so the sum of the two is the bound;
    on the way down they may grow relative to it, where the density is stretched: twice that.
    """
    model = clone(SMOOTHED).set_params(solver=Adaptive(tol)).fit(ring(60))
    schedule, up = model.model_.source.schedule(model._resources()), model.model_.steps()
    down = [step.reversed() for step in reversed(up)]
    scale = model.noise_levels_.terminal_scale
    start = tensor(model.model_.source.terminal(schedule).sample(np.random.RandomState(0), 50))
    falling, rising = (model.solver.initial_state(start, len(up)) for _ in range(2))
    end = solve(falling, schedule, start, down, no_noise)
    back = solve(rising, schedule, end, up, no_noise)
    assert max(falling.error.max(), rising.error.max()) <= tol
    assert torch.linalg.vector_norm(back - start, dim=1).max() < 4 * tol * scale
    follow = model.model_._follow_down
    torch.testing.assert_close(
        tensor(follow(start.numpy(), np.arange(50), n=50, seed=None, resources=model._resources())),
        torch.column_stack([end, falling.error]),
    )


def test_samples_converge():
    """Against 600 steps of Heun's method from the same draws: positions in units of the bandwidth."""
    X = ring(60)
    exact = clone(SMOOTHED).set_params(n_steps=600).fit(X).sample(200, random_state=0)
    for tol in (1e-2, 1e-4):
        found = clone(SMOOTHED).set_params(solver=Adaptive(tol)).fit(X).sample(200, random_state=0)
        gaps = np.linalg.norm(found - exact, axis=1) / 0.15
        # Displacements grow against the noise scale where noise separates draws: few rows, some times.
        assert np.median(gaps) < tol
        assert gaps.max() < 10 * tol


# ------------------------------------------------------------------------------- warnings and errors


@pytest.mark.parametrize("call", ["score_samples", "score", "sample", "leave_one_out_log_density"])
def test_a_missed_tolerance_warns(call):
    X = ring(30)
    model = clone(SMOOTHED).set_params(solver=Adaptive(1e-6, max_halvings=1)).fit(X)
    args = {"sample": (20, 0), "leave_one_out_log_density": ()}.get(call, (X,))
    with pytest.warns(
        ConvergenceWarning,
        match=r"max_halvings=1\) missed its tolerance of 1e-06 .* of (20|30) rows",
    ) as caught:
        getattr(model, call)(*args)
    assert len(caught) == 1
    if call != "score":
        assert caught[0].filename == __file__


def test_only_the_adaptive_solver_estimates_its_error():
    assert {name for name in SOLVERS if estimates_error(SOLVERS[name]())} == {"adaptive"}


def test_errors_of_a_solver_of_the_user():
    """It needs the attributes of an `ErrorEstimatingSolver`, not the class `Adaptive`."""

    class Own:
        order, is_stochastic, estimates_error, tol = 3, False, True, 1e-4

        def __getattr__(self, name):
            return getattr(Adaptive(self.tol), name)

    X, queries = ring(30), ring(10, seed=1)
    model = clone(SMOOTHED).set_params(solver=Adaptive(1e-4)).fit(X)
    expected = model.score_samples(queries, return_error=True)
    found = model.set_params(solver=Own()).fit(X).score_samples(queries, return_error=True)
    np.testing.assert_array_equal(found, expected)


def test_the_error_of_fixed_steps():
    """Richardson's estimate is right to its next order; log-densities are what they were."""
    X, queries = ring(60), ring(20, seed=1)
    exact = clone(SMOOTHED).set_params(solver=Adaptive(1e-7)).fit(X).score_samples(queries)
    model = clone(SMOOTHED).set_params(n_steps=48).fit(X)
    found, error = model.score_samples(queries, return_error=True)
    np.testing.assert_array_equal(found, model.score_samples(queries))
    assert np.abs(error - np.abs(found - exact)).mean() < 0.2 * error.mean()


@pytest.mark.parametrize("solver", ["heun", "adaptive"])
def test_without_a_flow_there_is_no_error(solver):
    X = ring(20)
    model = SmoothedScoreDiffusion(0.2, 0.0, solver=solver).fit(X)
    found, error = model.score_samples(X, return_error=True)
    np.testing.assert_array_equal(error, 0)
    np.testing.assert_allclose(found, KDESampler(0.2).fit(X).score_samples(X), rtol=1e-12)


# ------------------------------------------------------------------------------- budgets of steps


def test_the_budget_of_each_step(monkeypatch):
    """An eighth of what is left, or an equal part for few steps; or else part of the row's own error."""
    budgets = []

    def move(ode, x, first, start, end, budget, max_halvings):
        budgets.append((budget.tolist(), max_halvings))
        return _adaptive._Moved(x, budget, tensor([0.25, 3.0]))

    monkeypatch.setattr(_adaptive, "_move", move)
    state = Adaptive(tol=1.0, max_halvings=5).initial_state(tensor([[0.0], [0.0]]), 10)
    for _ in range(11):
        state.step(two_points(), tensor([[0.0], [0.0]]), 1.0, 2.0, None)
    expected, errors = [], np.zeros(2)
    for n_left in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        part = {7: 1 / 7, 6: 1 / 6, 5: 1 / 5, 4: 1 / 4, 3: 1 / 3, 2: 1 / 2, 1: 1, 0: 1}
        of_tol = part.get(n_left, 1 / 8) * (1.0 - errors)
        expected.append(np.maximum(of_tol, np.maximum(errors, 1.0) / 80))
        errors = errors + [0.25, 3.0]
    np.testing.assert_allclose([budget for budget, _ in budgets], expected)
    assert {halvings for _, halvings in budgets} == {5}
    np.testing.assert_allclose(state.error, errors)
    # Without an announced step the first may use the whole tolerance.
    Adaptive(tol=0.5).initial_state(tensor([[0.0]]), 0).step(
        two_points(), tensor([[0.0]]), 1, 2, None
    )
    assert budgets[-1] == ([0.5], 10)


def test_halves_share_the_budget(monkeypatch):
    """The second half of a step may use what the first left; a row whose error is NaN is halved too."""
    calls = []

    def one_step(ode, x, first, start, end, budget):
        calls.append((start, end, budget.tolist()))
        error = {(1.0, 16.0): [math.nan, 0.5, 8.0], (1.0, 4.0): [0.1, 0.5]}.get((start, end))
        error = tensor([0.3] * len(x) if error is None else error)
        return _adaptive._Moved(x + end, 10 * x[:, 0], error), budget

    monkeypatch.setattr(_adaptive, "_one_step", one_step)
    ode = RightHandSide(two_points(), with_rate=True)
    x, budget = tensor([[1.0], [2.0], [3.0]]), tensor([1.0, 0.5, 2.0])
    moved = _adaptive._move(ode, x, ode(x, 1.0), 1.0, 16.0, budget, 1)
    # The second row has exactly its budget, and is not halved.
    assert calls == [
        (1.0, 16.0, [1.0, 0.5, 2.0]),
        (1.0, 4.0, [0.5, 1.0]),
        (4.0, 16.0, [0.9, 1.5]),
    ]
    np.testing.assert_allclose(moved.x, [[1 + 20], [2 + 16], [3 + 20]])
    np.testing.assert_allclose(moved.change, [10 + 50, 20, 30 + 70])
    np.testing.assert_allclose(moved.error, [0.4, 0.5, 0.8])
    calls.clear()
    _adaptive._move(ode, x, ode(x, 1.0), 1.0, 16.0, budget, 0)
    assert len(calls) == 1
