"""Error control for the probability-flow ODE: the number of steps of a row depends on its error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from .._utils.validation import check_integer, check_real
from ..scores import ScoreField
from ._base import Draw
from ._exponential import RightHandSide, Values, length, phi

# Factor of safety on the estimated error, which assumes that the errors of the orders are a geometric
# series.
_SAFETY = 4.0

# The fraction of the remaining tolerance that one step may use. Most of the error is made in a few steps
# at low noise; with equal parts for all steps those are halved more often (by a third at 1e-4 nats).
_FRACTION = 1 / 8

# In units of the rounding error of a position: steps whose error is below this are not halved.
_ROUNDING = 8.0


@dataclass(frozen=True)
class Adaptive:
    """A third-order scheme whose steps keep the estimated error of each row below a tolerance.

    Steps are those of Kutta's rule in exponential form (Cox & Matthews 2002, ETD3RK). With h the step in
    log y, y = sqrt(v), and D_1, D_2, D_3 the posterior mean at the start, half way and at the end,

        x' = e^h x - h [ phi_1 D_1 + phi_2 (4 D_2 - 3 D_1 - D_3) + 4 phi_3 (D_1 - 2 D_2 + D_3) ],

    exact while D is a quadratic in log y; log-densities are integrated by Simpson's rule over -v div s.
    Where the estimated error of a row is above its part of the tolerance, the step is made again in two
    halves, and so on. Step sizes differ by powers of two, so that rows have noise scales in common, for
    which the engine computes its tables once.

    The same evaluations give rules of order one and two. With g_1 the difference between these two and
    g_2 that between orders two and three, both in nats, the error of the third-order rule is estimated
    by 4 g_2 min(1, g_2 / g_1). An error of position is multiplied by the norm of the score, which
    gives its effect on a log-density, or by one over the noise scale if that is larger.

    Parameters
    ----------
    tol : float, default=1e-3
        Largest estimated error of a row over the whole flow, in nats: of its log-density or, in
        sampling, of its position, converted to nats as above and summed over the steps.
    max_halvings : int, default=10
        How often a step may be halved. A row that needs more keeps its error, and estimators warn if
        that exceeds `tol`. With 0 this is a scheme of fixed steps that estimates its error and does not
        wait for the device.

    Raises
    ------
    TypeError, ValueError
        If `tol` is not a positive number, or `max_halvings` is not an integer >= 0.

    Notes
    -----
    A step takes three field evaluations, and five more if it is halved. The steps of the estimator
    (`n_steps`) are the longest. After each of them the host waits for the device, to find the rows whose
    step is halved. Steps are not halved if their error is due to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.solvers import Adaptive
    >>> X = np.random.RandomState(0).normal(size=(50, 2))
    >>> model = SmoothedScoreDiffusion(0.3, 0.4, solver=Adaptive(tol=1e-4)).fit(X)
    >>> log_density, error = model.score_samples(X, return_error=True)
    >>> bool(error.max() < 1e-4)
    True
    """

    tol: float = 1e-3
    max_halvings: int = 10
    order: ClassVar[int] = 3
    is_stochastic: ClassVar[bool] = False
    estimates_error: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "tol", check_real("tol", self.tol, hint="It is in nats."))
        check_integer("max_halvings", self.max_halvings, minimum=0)

    def initial_state(self, x: torch.Tensor, n_steps: int) -> AdaptiveState:
        """Return the solver for one flow, which divides the tolerance among its steps.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            The samples that it will move.
        n_steps : int
            Number of steps that will be made.
        """
        return AdaptiveState(self, n_steps, x.new_zeros(len(x)))

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`. The step may use the whole tolerance. Halving it requires `field.rows`."""
        return self.initial_state(x, 1).step(field, x, start, end, draw)

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ODESolver`. The step may use the whole tolerance."""
        return self.initial_state(x, 1).step_with_log_density(field, x, start, end)


class AdaptiveState:
    """The `ODEState` of an `Adaptive` solver, with the errors of its rows and the remaining steps.

    `n_steps` is the number of all steps. `error` (n,), in nats, starts at zero, and the errors of the
    steps are added to it. All steps must move the same rows.
    """

    order: ClassVar[int] = Adaptive.order
    is_stochastic: ClassVar[bool] = False

    def __init__(self, solver: Adaptive, n_steps: int, error: torch.Tensor) -> None:
        self.solver = solver
        self.n_steps = n_steps
        self.n_left = n_steps
        self.error = error

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`."""
        return self._step(RightHandSide(field, with_rate=False), x, start, end).x

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ODESolver`."""
        moved = self._step(RightHandSide(field, with_rate=True), x, start, end)
        return moved.x, moved.change

    def _step(self, ode: RightHandSide, x: torch.Tensor, start: float, end: float) -> _Moved:
        tol = self.solver.tol
        fraction = max(_FRACTION, 1 / max(self.n_left, 1))
        # Steps of a row that has missed the tolerance may use a fraction of its own error, since more
        # accuracy would no longer help.
        least = _FRACTION / max(self.n_steps, 1) * self.error.clamp_min(tol)
        budget = torch.maximum(fraction * (tol - self.error), least)
        moved = _move(ode, x, ode(x, start), start, end, budget, self.solver.max_halvings)
        self.error = self.error + moved.error
        self.n_left -= 1
        return moved


class _Moved(NamedTuple):
    """Moved rows (n, r), decreases (n,) of their log-density, and estimated errors (n,), in nats."""

    x: torch.Tensor
    change: torch.Tensor
    error: torch.Tensor


def _move(
    ode: RightHandSide,
    x: torch.Tensor,
    first: Values,
    start: float,
    end: float,
    budget: torch.Tensor,
    max_halvings: int,
) -> _Moved:
    """Return rows (n, r) moved by one step, or by two half steps if the error exceeds `budget` (n,).

    `first` are the values of the right-hand side at `x` and `start`.
    """
    moved, allowed = _one_step(ode, x, first, start, end, budget)
    if max_halvings == 0:
        return moved
    # In this form steps with an error of NaN are halved too.
    (again,) = torch.nonzero(~(moved.error <= allowed), as_tuple=True)
    if len(again) == 0:
        return moved
    ode, budget, middle = ode.rows(again), budget[again], math.sqrt(start * end)
    values = Values(first.mean[again], first.rate[again])
    half = _move(ode, x[again], values, start, middle, budget / 2, max_halvings - 1)
    # The second half may use the part of the budget that the first did not.
    rest = torch.maximum(budget - half.error, budget / 2)
    values = ode(half.x, middle)
    whole = _move(ode, half.x, values, middle, end, rest, max_halvings - 1)
    moved.x[again] = whole.x
    moved.change[again] = half.change + whole.change
    moved.error[again] = half.error + whole.error
    return moved


def _one_step(
    ode: RightHandSide,
    x: torch.Tensor,
    first: Values,
    start: float,
    end: float,
    budget: torch.Tensor,
) -> tuple[_Moved, torch.Tensor]:
    """Return rows moved by one step, and the allowed error (n,): the budget, or rounding if larger."""
    h = math.log(end / start)
    _, phi_2, phi_3 = phi(h)
    middle = math.sqrt(start * end)
    # Euler's step is exact for a constant posterior mean D: x - D is proportional to the noise scale.
    second = ode(first.mean + (x - first.mean) * (middle / start), middle)
    extrapolated = 2 * second.mean - first.mean
    predicted = extrapolated + (x - extrapolated) * (end / start)
    third = ode(predicted, end)

    # In differences of D, since the terms would cancel for small steps.
    to_second, to_third = second.mean - first.mean, third.mean - first.mean
    from_first = 2 * h * phi_2 * to_second
    from_second = h * ((2 * phi_2 - 8 * phi_3) * to_second + (4 * phi_3 - phi_2) * to_third)
    moved = first.mean + (x - first.mean) * (end / start) - from_first - from_second
    change = h / 6 * (first.rate + 4 * second.rate + third.rate)

    # The norm of the score at the end, in nats per unit of X.
    slope = length(third.mean - predicted) / end**2
    slope = slope.clamp_min(1 / end)
    gap = abs(h) * (second.rate - first.rate).abs() + slope * length(from_first)
    finer_gap = (change - h * second.rate).abs() + slope * length(from_second)
    ratio = finer_gap / gap.clamp_min(torch.finfo(gap.dtype).tiny)
    error = _SAFETY * finer_gap * ratio.clamp_max(1)
    rounding = _ROUNDING * torch.finfo(x.dtype).eps * slope * length(moved)
    return _Moved(moved, change, error), torch.maximum(budget, rounding)
