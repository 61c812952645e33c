"""The protocols of solvers, and the loop over the steps of a solver."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, TypeGuard, runtime_checkable

import torch

from .._utils.progress import tracked
from ..noise import Step
from ..scores import Schedule, ScoreField

Draw = Callable[[], torch.Tensor]


@runtime_checkable
class Solver(Protocol):
    """Protocol of a scheme that moves samples from one noise scale to another.

    `order` is the power of the step size with which its global error decreases (the weak order of a
    stochastic one); `is_stochastic` is whether its steps draw noise.
    """

    order: ClassVar[int]
    is_stochastic: ClassVar[bool]

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """Return samples moved from noise scale `start` to `end`.

        Parameters
        ----------
        field : ScoreField
            The score.
        x : torch.Tensor of shape (n, r)
            Samples.
        start, end : float
            Noise scales, in either order for a deterministic solver; `end` < `start` for a stochastic
            one.
        draw : callable
            Returns standard normal noise of the shape of `x`; only a stochastic solver calls it.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        ...


@runtime_checkable
class ODESolver(Solver, Protocol):
    """A deterministic solver that also integrates log-densities."""

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return moved samples, and by how much their log-density decreases.

        Parameters
        ----------
        field : ScoreField
            The score.
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
        ...


class ODEState(ODESolver, Protocol):
    """The solver of one flow, with the errors of its rows, summed over the steps so far."""

    @property
    def error(self) -> torch.Tensor:
        """Estimated error of each row so far in nats, shape (n,)."""
        ...


class ErrorEstimatingSolver(ODESolver, Protocol):
    """A deterministic solver that estimates its error and adapts the step size of each row to it.

    It evaluates the field again for some of the rows (`RowSelectable`). Which rows these are is
    computed on the device, and the host waits for the result.
    """

    estimates_error: ClassVar[bool]

    @property
    def tol(self) -> float:
        """Target of the step sizes: the largest estimated error of a row over a flow, in nats."""
        ...

    def initial_state(self, x: torch.Tensor, n_steps: int) -> ODEState:
        """Return the solver for one flow of rows x (n, r) in `n_steps` steps."""
        ...


def estimates_error(solver: Solver) -> TypeGuard[ErrorEstimatingSolver]:
    """Return whether a solver is an `ErrorEstimatingSolver`: by default it is not."""
    return getattr(solver, "estimates_error", False)


def solve(
    solver: Solver, schedule: Schedule, x: torch.Tensor, steps: Iterable[Step], draw: Draw
) -> torch.Tensor:
    """Return samples x (n, r) moved along a schedule of score fields, by steps within single levels.

    `draw` returns standard normal noise of the shape of `x`; only a stochastic solver calls it.
    """
    for step in tracked(list(steps)):
        x = solver.step(schedule.at(step.level), x, step.start, step.end, draw)
    return x
