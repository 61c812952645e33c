"""Log-densities and samples along a flow, with the errors and roughness of solvers that have them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdiffsmooth.noise import Step
from skdiffsmooth.solvers._flow import (
    flow_log_density,
    initial_state,
    log_density_with_error,
    solve_with_error,
)

STEPS = [Step(1, 1.0, 2.0), Step(0, 2.0, 3.0), Step(2, 3.0, 5.0)]
FINER = [Step(1, 1.0, 1.5), Step(1, 1.5, 2.0)]


def tensor(array):
    return torch.tensor(array, dtype=torch.float64)


class ByLevel:
    """A schedule whose fields are the factors of their levels."""

    def at(self, level):
        return [10.0, 100.0, -1000.0][level]


class Shift:
    """A solver that adds a step's length times the field; the log-density falls by that times x."""

    order, is_stochastic = 1, False

    def step(self, field, x, start, end, draw):
        return self.step_with_log_density(field, x, start, end)[0]

    def step_with_log_density(self, field, x, start, end):
        return x + (end - start) * field, (end - start) * field * x[:, 0]


class Rough(Shift):
    """The solver of one flow, with its own errors and roughness."""

    error = tensor([0.1, 0.2])

    def __init__(self, roughness):
        self.roughness = tensor(roughness)


class Starting(Shift):
    """A solver that makes a state for each flow."""

    order = 2

    def __init__(self, roughness=(0.0, 0.0), *, estimates_error=False):
        self.started = []
        self.estimates_error = estimates_error
        self._roughness = roughness

    def initial_state(self, x, n_steps):
        self.started.append((x.tolist(), n_steps))
        return Rough(self._roughness)


X = tensor([[1.0], [2.0]])
# After the steps x is 100 + 10 - 2000 farther. Changes: 100 x, 10 (x + 100), -2000 (x + 110).
CHANGES = np.array([[100.0, 1010.0, -222_000.0], [200.0, 1020.0, -224_000.0]])
END = np.array([[-1889.0], [-1888.0]])


def terminal(x):
    return 7 * x[:, 0]


def test_changes_are_added_to_the_terminal_log_density():
    found = flow_log_density(Shift(), ByLevel(), X, STEPS, terminal)
    np.testing.assert_allclose(found, 7 * END[:, 0] + CHANGES.sum(axis=1))
    np.testing.assert_allclose(flow_log_density(Shift(), ByLevel(), X, [], terminal), [7.0, 14.0])


def test_the_roughness_is_the_largest_difference_of_consecutive_changes():
    found = log_density_with_error(Shift(), ByLevel(), X, STEPS, terminal)
    np.testing.assert_allclose(found.roughness, [223_010.0, 225_020.0])
    assert found.error.isnan().all()
    found = log_density_with_error(Shift(), ByLevel(), X, STEPS[:2], terminal)
    np.testing.assert_allclose(found.roughness, [910.0, 820.0])
    # A single change has none to be compared with.
    found = log_density_with_error(Shift(), ByLevel(), X, STEPS[:1], terminal)
    np.testing.assert_array_equal(found.roughness, [0.0, 0.0])
    solver = Starting([5.0, 1000.0])
    found = log_density_with_error(solver, ByLevel(), X, STEPS[:2], terminal)
    np.testing.assert_allclose(found.roughness, [910.0, 1000.0])
    assert solver.started == [([[1.0], [2.0]], 2)]


@pytest.mark.parametrize(("solver", "factor"), [(Shift(), 2.0), (Starting(), 4 / 3)])
def test_the_error_is_that_by_finer_steps(solver, factor):
    found = log_density_with_error(solver, ByLevel(), X, STEPS[:1], terminal, FINER)
    # In halves: 50 x, then 50 (x + 50). The coarse step: 100 x.
    np.testing.assert_allclose(found.error, [2500 * factor] * 2)
    np.testing.assert_allclose(found.log_density, [707.0 + 100.0, 714.0 + 200.0])
    assert log_density_with_error(solver, ByLevel(), X, STEPS, terminal).error.isnan().all()


def test_a_solver_may_estimate_its_error():
    solver = Starting(estimates_error=True)
    found = log_density_with_error(solver, ByLevel(), X, STEPS[:1], terminal, FINER)
    np.testing.assert_allclose(found.error, [0.1, 0.2])
    assert len(solver.started) == 1


def test_samples_have_errors_and_roughness_of_the_solver_only():
    x, error, roughness = solve_with_error(Shift(), ByLevel(), X, STEPS, None)
    np.testing.assert_allclose(x, END)
    assert error.isnan().all()
    np.testing.assert_array_equal(roughness, [0.0, 0.0])
    solver = Starting([3.0, 4.0])
    x, error, roughness = solve_with_error(solver, ByLevel(), X, STEPS, None)
    np.testing.assert_allclose(x, END)
    np.testing.assert_allclose(error, [0.1, 0.2])
    np.testing.assert_allclose(roughness, [3.0, 4.0])
    assert solver.started == [([[1.0], [2.0]], 3)]


def test_a_solver_without_states_is_its_own():
    solver = SimpleNamespace()
    assert initial_state(solver, X, 3) is solver
    assert isinstance(initial_state(Starting(), X, 3), Rough)
    assert math.isnan(float(solve_with_error(Shift(), ByLevel(), X, [], None)[1][0]))
