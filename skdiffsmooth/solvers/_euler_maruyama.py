"""The Euler-Maruyama method for the reverse-time SDE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..scores import ScoreField
from ._base import Draw


@dataclass(frozen=True)
class EulerMaruyama:
    """The Euler-Maruyama method for dX = s(X, v) d(-v) + dB, with one field evaluation a step.

    With a smoothed score these samples do *not* have the distribution of the probability flow.
    """

    order: ClassVar[int] = 1
    is_stochastic: ClassVar[bool] = True

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`."""
        elapsed = start**2 - end**2
        return x + elapsed * field(x, start**2) + math.sqrt(elapsed) * draw()
