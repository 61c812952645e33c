"""What a solver is, and the one loop that runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, TypeGuard, runtime_checkable

import torch

from ..noise import Step
from ..scores import Schedule, ScoreField

__all__ = ["ErrorEstimatingSolver", "ODESolver", "ODEState", "Solver", "estimates_error", "solve"]

Draw = Callable[[], torch.Tensor]


@runtime_checkable
class Solver(Protocol):
    """A scheme that moves samples from one noise scale to another.

    `order` is the power of the step with which its global error falls (weak order for a stochastic
    one); `is_stochastic` says whether it consumes noise.
    """

    order: ClassVar[int]
    is_stochastic: ClassVar[bool]

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """Move samples from noise scale `start` to noise scale `end`."""
        ...


@runtime_checkable
class ODESolver(Solver, Protocol):
    """A deterministic solver, which can carry the log-density along."""

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the moved samples and log p_start(x_start) - log p_end(x_end)."""
        ...


class ODEState(ODESolver, Protocol):
    """The solver of one flow, which adds up the errors of its rows from step to step."""

    @property
    def error(self) -> torch.Tensor:
        """Estimated error of each row so far in nats, shape (n,)."""
        ...


class ErrorEstimatingSolver(ODESolver, Protocol):
    """A deterministic solver that estimates its own error and chooses the steps of each row by it.

    It evaluates the field again for some of the rows (`RowSelectable`), and waits for the device to
    know for which.
    """

    estimates_error: ClassVar[bool]

    @property
    def tol(self) -> float:
        """Largest estimated error of a row over a whole flow that it aims at, in nats."""
        ...

    def initial_state(self, x: torch.Tensor, n_steps: int) -> ODEState:
        """Return the solver of one flow of rows x (n, r) in `n_steps` steps."""
        ...


def estimates_error(solver: Solver) -> TypeGuard[ErrorEstimatingSolver]:
    """Return whether a solver is an `ErrorEstimatingSolver`; one without the attribute is not."""
    return getattr(solver, "estimates_error", False)


def solve(
    solver: Solver, schedule: Schedule, x: torch.Tensor, steps: Iterable[Step], draw: Draw
) -> torch.Tensor:
    """Follow a schedule of score fields through a sequence of steps.

    Parameters
    ----------
    solver : Solver
        The scheme.
    schedule : Schedule
        The fields.
    x : torch.Tensor of shape (n, r)
        Samples at the first step's start.
    steps : iterable of Step
        Moves, each inside one level.
    draw : callable
        Returns standard normal noise of the shape of `x`; only a stochastic solver calls it.

    Returns
    -------
    torch.Tensor of shape (n, r)
        Samples at the last step's end.
    """
    for step in steps:
        x = solver.step(schedule.at(step.level), x, step.start, step.end, draw)
    return x
