"""Euler's method for the probability-flow ODE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..scores import ScoreField
from ._base import Draw

__all__ = ["Euler"]


@dataclass(frozen=True)
class Euler:
    """Euler's method in y = sqrt(v), with one field evaluation a step of dx/dy = -y s(x, y^2).

    Exact while the posterior mean is constant, since the flow is then a straight line in y (this is
    DDIM's step). The log-density changes by -v div s per unit of log y.
    """

    order: ClassVar[int] = 1
    is_stochastic: ClassVar[bool] = False

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`."""
        return x - (end - start) * start * field(x, start**2)

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ODESolver`."""
        score, divergence = field.with_divergence(x, start**2)
        change = -math.log(end / start) * start**2 * divergence
        return x - (end - start) * start * score, change
