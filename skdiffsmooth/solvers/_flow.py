"""Log-densities and samples along the flow, with the estimated error of the solver."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from .._utils.progress import tracked
from .._utils.warnings import warn_user
from ..noise import Step
from ..scores import Schedule
from ._base import ODESolver, Solver, estimates_error, solve


class FlowResult(NamedTuple):
    """Log-densities (n,), their estimated errors (n,), and the roughness (n,) of their flows, in nats.

    Errors are NaN where they are not estimated. The roughness is the largest difference between the
    contributions of two consecutive steps to a log-density, or the solver's own `roughness` if larger.
    """

    log_density: torch.Tensor
    error: torch.Tensor
    roughness: torch.Tensor


def log_density_with_error(
    solver: ODESolver,
    schedule: Schedule,
    x: torch.Tensor,
    steps: Sequence[Step],
    terminal_log_density: Callable[[torch.Tensor], torch.Tensor],
    finer: Sequence[Step] | None = None,
) -> FlowResult:
    """Return the log-densities of queries x (n, r), and their estimated errors.

    `steps` go up to the terminal scale, `terminal_log_density` returns the log-densities there,
    and `finer` are steps of half the size. A solver that does not estimate its error is also run with
    these, and the error is estimated from the difference; without `finer` it is NaN.
    """
    log_density, roughness, error = _follow(solver, schedule, x, steps, terminal_log_density)
    if estimates_error(solver):
        return FlowResult(log_density, error, roughness)
    if finer is None:
        return FlowResult(log_density, x.new_full((len(x),), math.nan), roughness)
    check = flow_log_density(solver, schedule, x, finer, terminal_log_density)
    return FlowResult(log_density, step_error(solver.order, log_density, check), roughness)


def solve_with_error(
    solver: Solver,
    schedule: Schedule,
    x: torch.Tensor,
    steps: Sequence[Step],
    draw: Callable[[], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the samples (n, r) after the last step, with errors and roughness (n,) in nats.

    `draw` returns standard normal noise of the shape of `x`; only a stochastic solver calls it. The
    error is NaN and the roughness zero where the solver does not estimate them.
    """
    state = initial_state(solver, x, len(steps))
    end = solve(state, schedule, x, steps, draw)
    return end, _per_row(state, "error", x, math.nan), _per_row(state, "roughness", x, 0.0)


def warn_of_error(solver: Solver, error: np.ndarray) -> None:
    """Warn if errors (n,) in nats exceed the tolerance of a solver that estimates them."""
    if not estimates_error(solver):
        return
    missed = error > solver.tol
    if missed.any():
        warn_user(
            f"solver={solver!r} missed its tolerance of {solver.tol:g} nats in {missed.sum()} of "
            f"{len(error)} rows, with estimated errors of up to {np.nanmax(error):.2g}. Pass a "
            "solver with a larger tol or more max_halvings, or dtype='float64'; where the score field "
            "jumps, none of these helps.",
            ConvergenceWarning,
        )


def flow_log_density(
    solver: ODESolver,
    schedule: Schedule,
    x: torch.Tensor,
    steps: Sequence[Step],
    terminal_log_density: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return the log-densities (n,) of queries x (n, r), by the flow to a terminal distribution.

    log p_eps(x) = log p_T(x_T) - integral of v div s over log sqrt(v), with x_T the end of the flow
    that starts in x (Song et al. 2021, eq. 39, for the variance-exploding process).
    """
    return _follow(solver, schedule, x, steps, terminal_log_density)[0]


def _follow(
    solver: ODESolver,
    schedule: Schedule,
    x: torch.Tensor,
    steps: Sequence[Step],
    terminal_log_density: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log-densities as `flow_log_density`, with roughness and errors of `FlowResult`."""
    change = roughness = x.new_zeros(len(x))
    last: torch.Tensor | None = None
    state = initial_state(solver, x, len(steps))
    assert isinstance(state, ODESolver)
    for step in tracked(list(steps)):
        field = schedule.at(step.level)
        x, step_change = state.step_with_log_density(field, x, step.start, step.end)
        change = change + step_change
        if last is not None:
            roughness = torch.maximum(roughness, (step_change - last).abs())
        last = step_change
    roughness = torch.maximum(roughness, _per_row(state, "roughness", x, 0.0))
    return terminal_log_density(x) + change, roughness, _per_row(state, "error", x, math.nan)


def initial_state(solver: Solver, x: torch.Tensor, n_steps: int) -> Solver:
    """Return a solver for one flow of rows x (n, r): a new one if it stores values of each row."""
    start = getattr(solver, "initial_state", None)
    return solver if start is None else start(x, n_steps)


def _per_row(state: Solver, name: str, x: torch.Tensor, default: float) -> torch.Tensor:
    """Return an attribute (n,) of the solver of one flow, or the default for all rows."""
    values: torch.Tensor | None = getattr(state, name, None)
    return x.new_full((len(x),), default) if values is None else values


def step_error(order: int, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Return Richardson's estimate of the absolute error of `coarse`, log-densities (n,) in nats.

    `fine` are log-densities by steps of half the size, and `order` is the order of the solver.
    """
    return (coarse - fine).abs() / (1 - 2.0**-order)
