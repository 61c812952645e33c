"""A flow followed with what its solver knows of its own error, whichever kind of solver it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from .._utils.warnings import warn_user
from ..noise import Step
from ..scores import Schedule
from ._base import ODESolver, Solver, estimates_error, solve

__all__ = ["log_density_with_error", "solve_with_error", "warn_of_error"]


def log_density_with_error(
    solver: ODESolver,
    schedule: Schedule,
    x: torch.Tensor,
    steps: Sequence[Step],
    terminal_log_density: Callable[[torch.Tensor], torch.Tensor],
    finer: Iterable[Step] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-densities, and the estimated error of each in nats.

    Parameters
    ----------
    solver : ODESolver
        The scheme.
    schedule : Schedule
        The fields.
    x : torch.Tensor of shape (n, r)
        Queries, at the first step's start.
    steps : sequence of Step
        Moves up to the terminal scale.
    terminal_log_density : callable
        The log-density in nats of the terminal law.
    finer : iterable of Step, optional
        Moves of half the size, from which the error of a solver of fixed steps is estimated.

    Returns
    -------
    log_density : torch.Tensor of shape (n,)
    error : torch.Tensor of shape (n,)
        NaN for a solver of fixed steps where `finer` is not given.
    """
    if estimates_error(solver):
        state = solver.initial_state(x, len(steps))
        return flow_log_density(state, schedule, x, steps, terminal_log_density), state.error
    log_density = flow_log_density(solver, schedule, x, steps, terminal_log_density)
    if finer is None:
        return log_density, x.new_full((len(x),), math.nan)
    check = flow_log_density(solver, schedule, x, finer, terminal_log_density)
    return log_density, step_error(solver.order, log_density, check)


def solve_with_error(
    solver: Solver,
    schedule: Schedule,
    x: torch.Tensor,
    steps: Sequence[Step],
    draw: Callable[[], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where samples end, and the estimated error of each in nats.

    Parameters
    ----------
    solver : Solver
        The scheme.
    schedule : Schedule
        The fields.
    x : torch.Tensor of shape (n, r)
        Samples at the first step's start.
    steps : sequence of Step
        Moves.
    draw : callable
        Returns standard normal noise of the shape of `x`; only a stochastic solver calls it.

    Returns
    -------
    end : torch.Tensor of shape (n, r)
    error : torch.Tensor of shape (n,)
        NaN for a solver of fixed steps.
    """
    if estimates_error(solver):
        state = solver.initial_state(x, len(steps))
        return solve(state, schedule, x, steps, draw), state.error
    return solve(solver, schedule, x, steps, draw), x.new_full((len(x),), math.nan)


def warn_of_error(solver: Solver, error: np.ndarray) -> None:
    """Warn where a solver that estimates its error did not keep to its tolerance.

    Parameters
    ----------
    solver : Solver
        Any; only one that estimates its error has a tolerance.
    error : ndarray of shape (n,)
        Estimated errors in nats.
    """
    if not estimates_error(solver):
        return
    missed = ~(error <= solver.tol)
    if missed.any():
        warn_user(
            f"solver={solver!r} missed its tolerance of {solver.tol:g} nats in {missed.sum()} of "
            f"{len(error)} rows, with estimated errors of up to {error.max():.2g}. Pass one with a "
            "larger tol or more max_halvings, or dtype='float64'; where the score field jumps, none "
            "of these helps.",
            ConvergenceWarning,
        )


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
