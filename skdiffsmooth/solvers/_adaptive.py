"""Error control for the probability-flow ODE: each row is moved in as many steps as it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from .._utils.validation import check_integer, check_real
from ..scores import RowSelectable, ScoreField
from ._base import Draw

__all__ = ["Adaptive", "AdaptiveState"]

# What an estimate is multiplied with: that errors fall like a geometric series is a model.
_SAFETY = 4.0

# The share of what is left of a tolerance that any step may use up. Most of the error is made in a few
# steps at low noise; with equal shares those are halved more often (by a third at 1e-4 nats).
_SHARE = 1 / 8

# In roundings of a position: errors below this are not made smaller by halving.
_ROUNDING = 8.0


@dataclass(frozen=True)
class Adaptive:
    """Third order, with a step size per row that keeps the estimated error below a tolerance.

    Steps are those of Kutta's rule in exponential form (Cox & Matthews 2002, ETD3RK). With h the step in
    log y, y = sqrt(v), and D_1, D_2, D_3 the posterior mean at the start, half way and at the end,

        x' = e^h x - h [ phi_1 D_1 + phi_2 (4 D_2 - 3 D_1 - D_3) + 4 phi_3 (D_1 - 2 D_2 + D_3) ],

    exact while D is a quadratic in log y, and log-densities fall by Simpson's rule over -v div s. Rows
    whose estimated error is above their share of the tolerance make the step again in two halves, and
    so on. Step sizes are therefore powers of two, and rows share noise scales and the engine's tables.

    The rules of order one and two for the same evaluations come for nothing. With g_1 the difference
    between them and g_2 that between orders two and three, both in nats, the error of the third is taken
    to be 4 g_2 min(1, g_2 / g_1). A displacement counts times the size of the score, which is what
    it does to a log-density, and times one over the noise scale at least.

    Parameters
    ----------
    tol : float, default=1e-3
        Largest estimated error of a row over the whole flow, in nats: of its log-density, or in
        sampling of the sum of its displacements in those units.
    max_halvings : int, default=10
        How often a step may be halved. Rows that need more keep the error that they have, and
        estimators warn. With 0 this is a scheme of fixed steps that knows its error and does not wait
        for the device.

    Raises
    ------
    TypeError, ValueError
        If `tol` is not a positive number or `max_halvings` not an integer >= 0.

    Notes
    -----
    Three field evaluations for each step and five more for each that is halved. The steps that an
    estimator asks for (`n_steps`) are the coarsest. After each of them the host waits for the device,
    to know which rows are to be moved again. Where the error is rounding, steps are not halved.

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
        check_real("tol", self.tol, hint="It is in nats.")
        check_integer("max_halvings", self.max_halvings, minimum=0)

    def initial_state(self, x: torch.Tensor, n_steps: int) -> AdaptiveState:
        """Return the solver of one flow, among whose steps the tolerance is divided.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            The samples that it will move.
        n_steps : int
            How many steps they are going to make.

        Returns
        -------
        AdaptiveState
        """
        return AdaptiveState(self, n_steps, x.new_zeros(len(x)))

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """Move samples from noise scale `start` to `end`, with the whole tolerance.

        Parameters
        ----------
        field : ScoreField
            The score; one with `rows`, if steps are to be halved.
        x : torch.Tensor of shape (n, r)
            Samples.
        start, end : float
            Noise scales, in either order.
        draw : callable
            Not used.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        return self.initial_state(x, 1).step(field, x, start, end, draw)

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move samples and say by how much their log-density falls, with the whole tolerance.

        Parameters
        ----------
        field : ScoreField
            The score; one with `rows`, if steps are to be halved.
        x : torch.Tensor of shape (n, r)
            Samples.
        start, end : float
            Noise scales, in either order.

        Returns
        -------
        x : torch.Tensor of shape (n, r)
        change : torch.Tensor of shape (n,)
            log p_start(x_start) - log p_end(x_end), in nats.
        """
        return self.initial_state(x, 1).step_with_log_density(field, x, start, end)


class AdaptiveState:
    """An `Adaptive` solver under way: it knows what error its rows have made, and what is left to make.

    Parameters
    ----------
    solver : Adaptive
        Whose settings to use.
    n_steps : int
        How many steps are going to be made.
    error : torch.Tensor of shape (n,)
        The estimated error of each row in nats: zeros, to which those of the steps are added.
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
        """Move samples from noise scale `start` to `end`.

        Parameters
        ----------
        field : ScoreField
            The score; one with `rows`, if steps are to be halved.
        x : torch.Tensor of shape (n, r)
            Samples: the same rows at every step.
        start, end : float
            Noise scales, in either order.
        draw : callable
            Not used.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        return self._step(_Pace(field, with_rate=False), x, start, end).x

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move samples and say by how much their log-density falls.

        Parameters
        ----------
        field : ScoreField
            The score; one with `rows`, if steps are to be halved.
        x : torch.Tensor of shape (n, r)
            Samples: the same rows at every step.
        start, end : float
            Noise scales, in either order.

        Returns
        -------
        x : torch.Tensor of shape (n, r)
        change : torch.Tensor of shape (n,)
            log p_start(x_start) - log p_end(x_end), in nats.
        """
        moved = self._step(_Pace(field, with_rate=True), x, start, end)
        return moved.x, moved.change

    def _step(self, pace: _Pace, x: torch.Tensor, start: float, end: float) -> _Moved:
        tol = self.solver.tol
        share = max(_SHARE, 1 / max(self.n_left, 1))
        # A row that has missed the tolerance need not be followed more closely than it missed it.
        least = _SHARE / max(self.n_steps, 1) * self.error.clamp_min(tol)
        budget = torch.maximum(share * (tol - self.error), least)
        moved = _move(pace, x, pace(x, start), start, end, budget, self.solver.max_halvings)
        self.error = self.error + moved.error
        self.n_left -= 1
        return moved


class _Speed(NamedTuple):
    """Posterior mean, and the fall of the log-density per unit of log y, of some rows."""

    mean: torch.Tensor
    rate: torch.Tensor


class _Moved(NamedTuple):
    """Where rows are, by how much their log-density fell, and the estimated error of both in nats."""

    x: torch.Tensor
    change: torch.Tensor
    error: torch.Tensor


@dataclass(frozen=True)
class _Pace:
    """What there is to be integrated: positions alone or with log-densities."""

    field: ScoreField
    with_rate: bool

    def __call__(self, x: torch.Tensor, y: float) -> _Speed:
        v = y**2
        if not self.with_rate:
            return _Speed(x + v * self.field(x, v), x.new_zeros(len(x)))
        score, divergence = self.field.with_divergence(x, v)
        return _Speed(x + v * score, -v * divergence)

    def rows(self, index: torch.Tensor) -> _Pace:
        if not isinstance(self.field, RowSelectable):
            raise TypeError(
                f"the adaptive solver moves some rows again, and {type(self.field).__name__} has no "
                "method rows(index) that returns the field of some queries; add one, or use "
                "solver='heun'."
            )
        return _Pace(self.field.rows(index), self.with_rate)


def _move(
    pace: _Pace,
    x: torch.Tensor,
    first: _Speed,
    start: float,
    end: float,
    budget: torch.Tensor,
    halvings: int,
) -> _Moved:
    """Move rows by one step or, where that errs by more than their budget, by two halves of it."""
    moved, enough = _one_step(pace, x, first, start, end, budget)
    if halvings == 0:
        return moved
    # Not "above the budget": an error that is no number shall be made again, too.
    (again,) = torch.nonzero(~(moved.error <= enough), as_tuple=True)
    if len(again) == 0:
        return moved
    pace, budget, middle = pace.rows(again), budget[again], math.sqrt(start * end)
    speed = _Speed(first.mean[again], first.rate[again])
    half = _move(pace, x[again], speed, start, middle, budget / 2, halvings - 1)
    # What the first half did not need is the second's.
    rest = torch.maximum(budget - half.error, budget / 2)
    speed = pace(half.x, middle)
    whole = _move(pace, half.x, speed, middle, end, rest, halvings - 1)
    moved.x[again] = whole.x
    moved.change[again] = half.change + whole.change
    moved.error[again] = half.error + whole.error
    return moved


def _one_step(
    pace: _Pace, x: torch.Tensor, first: _Speed, start: float, end: float, budget: torch.Tensor
) -> tuple[_Moved, torch.Tensor]:
    """Make one step, and say which error would be small enough: the budget, or rounding."""
    h = math.log(end / start)
    _, phi_2, phi_3 = _phi(h)
    middle = math.sqrt(start * end)
    # Euler's step is exact while the posterior mean D stands still: x - D grows as the noise scale.
    second = pace(first.mean + (x - first.mean) * (middle / start), middle)
    ahead = 2 * second.mean - first.mean
    predicted = ahead + (x - ahead) * (end / start)
    third = pace(predicted, end)

    # In differences of D, lest small steps cancel.
    to_second, to_third = second.mean - first.mean, third.mean - first.mean
    from_first = 2 * h * phi_2 * to_second
    from_second = h * ((2 * phi_2 - 8 * phi_3) * to_second + (4 * phi_3 - phi_2) * to_third)
    moved = first.mean + (x - first.mean) * (end / start) - from_first - from_second
    change = h / 6 * (first.rate + 4 * second.rate + third.rate)

    # The score at the end, in nats per unit of X.
    slope = _length(third.mean - predicted) / end**2
    slope = slope.clamp_min(1 / end)
    gap = abs(h) * (second.rate - first.rate).abs() + slope * _length(from_first)
    finer_gap = (change - h * second.rate).abs() + slope * _length(from_second)
    ratio = finer_gap / gap.clamp_min(torch.finfo(gap.dtype).tiny)
    error = _SAFETY * finer_gap * ratio.clamp_max(1)
    rounding = _ROUNDING * torch.finfo(x.dtype).eps * slope * _length(moved)
    return _Moved(moved, change, error), torch.maximum(budget, rounding)


def _length(vectors: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(vectors, dim=1)


def _phi(h: float) -> tuple[float, float, float]:
    """Return phi_k(h) = (exp(h) - sum of h^j / j! over j < k) / h^k for k = 1, 2, 3."""
    if abs(h) < 0.5:
        # The closed form cancels; of the series, 14 terms are all that is above rounding.
        phi_3 = sum(h**j / math.factorial(j + 3) for j in range(14))
    else:
        phi_3 = (math.exp(h) - 1 - h - h**2 / 2) / h**3
    phi_2 = 1 / 2 + h * phi_3
    return 1 + h * phi_2, phi_2, phi_3
