"""Parts of exponential schemes and of adaptive steps, against their formulas."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skdiffsmooth.solvers import Adaptive, Heun, Multistep
from skdiffsmooth.solvers._adaptive import _one_step
from skdiffsmooth.solvers._exponential import RightHandSide, displacement_in_nats
from skdiffsmooth.solvers._flow import step_error, warn_of_error


def tensor(array):
    return torch.tensor(array, dtype=torch.float64)


class Pull:
    """The score of one point, without a divergence."""

    target = tensor([3.0, -4.0])

    def __call__(self, x, v):
        return (self.target - x) / v


class Shrinking(Pull):
    """The score of N(0, I) and its divergence."""

    def __call__(self, x, v):
        return -x / (1 + v)

    def with_divergence(self, x, v):
        return self(x, v), x.new_full((len(x),), -x.shape[1] / (1 + v))


@pytest.mark.parametrize(
    ("mean", "slope"),
    # The score (mean - x) / y^2 at y = 0.7, or 1 / y where that is larger.
    [
        ([3.0, 4.0], 5.0 / 0.49),
        ([0.3, 0.4], 1 / 0.7),
        ([0.0, 0.0], 1 / 0.7),
        ([0.0, 0.8], 0.8 / 0.49),
    ],
)
def test_displacements_in_nats(mean, slope):
    found = displacement_in_nats(tensor([[0.06, -0.08]]), tensor([[0.0, 0.0]]), tensor([mean]), 0.7)
    assert found.item() == pytest.approx(0.1 * slope)


def test_the_right_hand_side_is_the_posterior_mean_and_the_rate():
    x = tensor([[1.0, 2.0], [0.0, -1.0]])
    mean, rate = RightHandSide(Shrinking(), with_rate=True)(x, 0.5)
    # Of N(0, I) and noise of variance 1/4: the mean is x / 1.25, and -v div s is 2 / 5.
    np.testing.assert_allclose(mean, x / 1.25)
    np.testing.assert_allclose(rate, [0.4, 0.4])
    mean, rate = RightHandSide(Pull(), with_rate=False)(x, 0.5)
    np.testing.assert_allclose(mean, [[3.0, -4.0]] * 2)
    np.testing.assert_array_equal(rate, [0.0, 0.0])
    with pytest.raises(TypeError, match=r"score field Pull has no method rows\(index\)"):
        RightHandSide(Pull(), with_rate=False).rows(torch.tensor([0]))


@pytest.mark.parametrize("solver", [Adaptive(max_halvings=0), Multistep()])
def test_samples_need_no_divergence(solver):
    x = tensor([[1.0, 2.0], [0.0, -1.0]])
    found = solver.step(Pull(), x, 2.0, 0.5, None)
    np.testing.assert_allclose(found, Pull.target + (x - Pull.target) / 4)


@pytest.mark.parametrize(("start", "end"), [(2.0, 0.5), (0.01, 0.02)])
def test_steps_may_have_the_error_of_rounding(start, end):
    """Eight times the rounding error of the position, times the norm of the score."""
    x = tensor([[1.0, 2.0], [300.0, -400.0]])
    ode = RightHandSide(Pull(), with_rate=False)
    moved, allowed = _one_step(ode, x, ode(x, start), start, end, tensor([0.0, 1.0]))
    expected = Pull.target + (x - Pull.target) * end / start
    np.testing.assert_allclose(moved.x, expected, rtol=1e-12)
    slope = ((expected - Pull.target).norm(dim=1) / end**2).clamp_min(1 / end)
    rounding = 8 * torch.finfo(x.dtype).eps * slope * expected.norm(dim=1)
    np.testing.assert_allclose(allowed, torch.maximum(rounding, tensor([0.0, 1.0])), rtol=1e-9)


def test_the_roughness_begins_with_the_second_step():
    x, state = (
        tensor([[1.0, 2.0], [3.0, -4.0]]),
        Multistep().initial_state(torch.zeros(2, 2).double(), 2),
    )
    x = state.step(Shrinking(), x, 4.0, 2.0, None)
    np.testing.assert_array_equal(state.roughness, [0.0, 0.0])
    before, start, middle = math.sqrt(8.0), 2.0, math.sqrt(2.0)
    state.step(Shrinking(), x, start, 1.0, None)
    # The only earlier mean, x / 9 at the middle of the first step, predicts the second middle.
    first = tensor([[1.0, 2.0], [3.0, -4.0]])
    at_first = first / 17 + (first - first / 17) * before / 4
    predicted = at_first / 9 + (x - at_first / 9) * middle / start
    mean = predicted / 3
    corrected = mean + (x - mean) * middle / start
    slope = ((mean - predicted).norm(dim=1) / middle**2).clamp_min(1 / middle)
    np.testing.assert_allclose(
        state.roughness, slope * (corrected - predicted).norm(dim=1), rtol=1e-9
    )


def test_a_warning_counts_the_rows_that_missed_the_tolerance():
    solver = Adaptive(tol=0.01)
    with pytest.warns(ConvergenceWarning, match=r"0\.01 nats in 1 of 3 rows, with .* up to 0\.5\."):
        warn_of_error(solver, np.array([0.001, 0.5, np.nan]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_error(solver, np.array([0.001, 0.01, np.nan]))
        warn_of_error(Heun(), np.array([1.0, 2.0]))


@pytest.mark.parametrize(("order", "factor"), [(1, 2.0), (2, 4 / 3), (3, 8 / 7)])
def test_errors_by_steps_of_half_the_size(order, factor):
    """An error c h^p differs from that of half the steps by c h^p (1 - 2^-p)."""
    found = step_error(order, tensor([1.0, -2.0]), tensor([0.5, -1.0]))
    np.testing.assert_allclose(found, [0.5 * factor, factor])
