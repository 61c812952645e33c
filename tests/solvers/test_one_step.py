"""One step of each solver against its formula, in plain floats, for a field that is not linear."""

import itertools
import math

import numpy as np
import pytest
import torch

from skdiffsmooth.solvers import (
    SOLVERS,
    Adaptive,
    Euler,
    EulerMaruyama,
    Heun,
    Multistep,
    PredictorCorrector,
    estimates_error,
)
from skdiffsmooth.solvers._adaptive import AdaptiveState
from skdiffsmooth.solvers._multistep import MultistepState

X = [[1.5], [-0.4]]
both_ways = pytest.mark.parametrize(("start", "end"), [(2.0, 0.7), (0.7, 2.0)])


def tensor(array):
    return torch.tensor(array, dtype=torch.float64)


def score(x, v):
    return -(x**3) / (1 + v) + v


def divergence(x, v):
    return -3 * x**2 / (1 + v)


class Field:
    def __call__(self, x, v):
        return score(x, v)

    def with_divergence(self, x, v):
        return score(x, v), divergence(x, v)[:, 0]


def each(formula):
    """Values of a formula at the rows of X, shape (n, 1)."""
    return [[formula(x)] for (x,) in X]


def heun(x, start, end):
    """Position and change of the log-density by Heun's rule for dx/dy = -y s and dl/dlog(y) = v div."""
    first = -start * score(x, start**2)
    predicted = x + (end - start) * first
    second = -end * score(predicted, end**2)
    rates = start**2 * divergence(x, start**2) + end**2 * divergence(predicted, end**2)
    return x + (end - start) * (first + second) / 2, -math.log(end / start) * rates / 2


def test_classes_have_their_orders():
    orders = {name: (solver.order, solver.is_stochastic) for name, solver in SOLVERS.items()}
    assert orders == {
        "euler": (1, False),
        "heun": (2, False),
        "multistep": (2, False),
        "adaptive": (3, False),
        "euler-maruyama": (1, True),
        "predictor-corrector": (1, True),
    }
    assert (AdaptiveState.order, AdaptiveState.is_stochastic) == (3, False)
    assert (MultistepState.order, MultistepState.is_stochastic) == (2, False)
    assert [name for name, solver in SOLVERS.items() if estimates_error(solver)] == ["adaptive"]
    assert not estimates_error(object())


def test_default_parameters():
    assert (Adaptive().tol, Adaptive().max_halvings) == (1e-3, 10)
    assert (PredictorCorrector().snr, PredictorCorrector().n_corrections) == (0.16, 1)
    assert PredictorCorrector(0.999, 0).n_corrections == 0
    assert type(Adaptive(tol=1).tol) is float


@both_ways
def test_euler(start, end):
    found = Euler().step(Field(), tensor(X), start, end, None)
    np.testing.assert_allclose(
        found, each(lambda x: x - (end - start) * start * score(x, start**2)), rtol=1e-13
    )


def test_euler_maruyama():
    draws = iter([tensor([[0.3], [-2.0]])])
    found = EulerMaruyama().step(Field(), tensor(X), 2.0, 0.7, lambda: next(draws))
    elapsed = 2.0**2 - 0.7**2
    drift = np.array(each(lambda x: x + elapsed * score(x, 4.0)))
    np.testing.assert_allclose(found, drift + elapsed**0.5 * np.array([[0.3], [-2.0]]), rtol=1e-13)
    assert not list(draws)


@both_ways
def test_heun(start, end):
    x, change = Heun().step_with_log_density(Field(), tensor(X), start, end)
    np.testing.assert_allclose(x, each(lambda x: heun(x, start, end)[0]), rtol=1e-13)
    np.testing.assert_allclose(change[:, None], each(lambda x: heun(x, start, end)[1]), rtol=1e-13)
    torch.testing.assert_close(Heun().step(Field(), tensor(X), start, end, None), x)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_predictor_corrector(n):
    noise = [0.3, -2.0][:n]
    draws = iter(noise)
    solver = PredictorCorrector(snr=0.4, n_corrections=n)
    found = solver.step(Field(), tensor(X), 2.0, 0.7, lambda: tensor(next(draws)))

    def by_hand(x):
        x, h = heun(x, 2.0, 0.7)[0], 2 * 0.4**2 * 0.7**2
        for z in noise:
            x = x + h * score(x, 0.7**2) + (2 * h) ** 0.5 * z
        return x

    np.testing.assert_allclose(found, each(by_hand), rtol=1e-13)
    assert not list(draws)


def multistep(x, scales):
    """Position, change and roughness of one row, with the flow in closed form where D is a line.

    For D(s) = m + c s in s = log y the flow x' = x - D has the solution D(s) + c + e^s times a constant.
    """

    def along_line(x, mean, slope, h):
        return mean + slope * h + slope + (x - mean - slope) * math.exp(h)

    change, roughness, middles = 0.0, 0.0, []
    for start, end in itertools.pairwise(scales):
        y = math.sqrt(start * end)
        s, h = math.log(y), math.log(y / start)
        mean, slope = x + start**2 * score(x, start**2), 0.0
        if middles:
            mean = middles[-1][1]
        if len(middles) > 1:
            (s_1, m_1), (s_2, m_2) = middles[-2:]
            slope = (m_2 - m_1) / (s_2 - s_1)
            mean = m_2 + slope * (s - h - s_2)
        predicted = along_line(x, mean, slope, h)
        m = predicted + y**2 * score(predicted, y**2)
        if middles:
            gap = abs(along_line(x, m, 0.0, h) - predicted)
            roughness = max(roughness, gap * max(abs(m - predicted) / y**2, 1 / y))
        change -= 2 * h * y**2 * divergence(predicted, y**2)
        x = along_line(x, m, 0.0, 2 * h)
        middles.append((s, m))
    return x, change, roughness


@pytest.mark.parametrize(
    "scales",
    [
        [0.3, 0.35],
        [0.3, 0.35, 0.45],
        [0.3, 0.35, 0.45, 0.5, 0.6],
        [0.6, 0.5, 0.45, 0.35, 0.3],
        [0.3, 0.9, 1.0, 1.05, 1.1],
    ],
)
def test_multistep(scales):
    state = Multistep().initial_state(tensor(X), len(scales) - 1)
    samples = Multistep().initial_state(tensor(X), len(scales) - 1)
    x = y = tensor(X)
    change = 0.0
    for start, end in itertools.pairwise(scales):
        x, by_step = state.step_with_log_density(Field(), x, start, end)
        y = samples.step(Field(), y, start, end, None)
        change = change + by_step
    expected = [multistep(row, scales) for (row,) in X]
    found = zip(x[:, 0].tolist(), change.tolist(), state.roughness.tolist(), strict=True)
    np.testing.assert_allclose(list(found), expected, rtol=1e-10)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(samples.roughness, state.roughness)
    if len(scales) == 2:
        once, by_step = Multistep().step_with_log_density(Field(), tensor(X), *scales)
        torch.testing.assert_close((once, by_step), (x, change))
        torch.testing.assert_close(Multistep().step(Field(), tensor(X), *scales, None), x)
