"""Heun's method for the probability-flow ODE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..scores import ScoreField
from ._base import Draw


@dataclass(frozen=True)
class Heun:
    """Heun's method: the trapezoid rule with a predicted end, by two field evaluations a step.

    The position is integrated in y = sqrt(v), where the flow is nearly straight, and the log-density in
    log y, where -v div s hardly varies: in y the trapezoid would overestimate the contribution of every
    direction in which the data are thin. The rule for positions is that of Karras et al. 2022, alg. 1;
    the rule for log-densities is this library's, with errors in docs/evidence/accuracy.md.
    """

    order: ClassVar[int] = 2
    is_stochastic: ClassVar[bool] = False

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`."""
        slope = -start * field(x, start**2)
        predicted = x + (end - start) * slope
        return x + (end - start) / 2 * (slope - end * field(predicted, end**2))

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ODESolver`."""
        score, divergence = field.with_divergence(x, start**2)
        slope = -start * score
        predicted = x + (end - start) * slope
        end_score, end_divergence = field.with_divergence(predicted, end**2)
        change = -math.log(end / start) / 2 * (start**2 * divergence + end**2 * end_divergence)
        return x + (end - start) / 2 * (slope - end * end_score), change
