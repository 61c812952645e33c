"""Log-densities along the probability-flow ODE: position and log-density carried together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ..noise import Step
from ..scores import Schedule
from ..solvers import ODESolver

__all__ = ["flow_log_density", "step_error"]


def flow_log_density(
    solver: ODESolver,
    schedule: Schedule,
    x: torch.Tensor,
    steps: Iterable[Step],
    terminal_log_density: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return the log-density of the law that the flow carries down from a terminal law.

    log p_eps(x) = log p_T(x_T) - integral of v div s over log sqrt(v), with x_T the end of the flow
    that starts in x (Song et al. 2021, eq. 39, in the variance-exploding clock).

    Parameters
    ----------
    solver : ODESolver
        The scheme.
    schedule : Schedule
        The fields.
    x : torch.Tensor of shape (n, r)
        Queries, at the first step's start.
    steps : iterable of Step
        Moves up to the terminal scale, each inside one level.
    terminal_log_density : callable
        The log-density in nats of the terminal law.

    Returns
    -------
    torch.Tensor of shape (n,)
        Log-densities in nats.
    """
    change = x.new_zeros(len(x))
    for step in steps:
        field = schedule.at(step.level)
        x, by_step = solver.step_with_log_density(field, x, step.start, step.end)
        change = change + by_step
    return terminal_log_density(x) + change


def step_error(order: int, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Estimate the error of a solver of fixed steps from what it finds with half of their size.

    Parameters
    ----------
    order : int
        Power of the step with which the error falls.
    coarse, fine : torch.Tensor of shape (n,)
        Log-densities in nats, by steps as they are and by halved ones.

    Returns
    -------
    torch.Tensor of shape (n,)
        Absolute error of `coarse` in nats (Richardson's).
    """
    return (coarse - fine).abs() / (1 - 2.0**-order)
