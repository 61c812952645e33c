"""The Euler-Maruyama method for the reverse-time SDE."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from ..scores import ScoreField
from ._base import Draw

__all__ = ["EulerMaruyama"]


class EulerMaruyama:
    """One field evaluation a step: dX = s(X, v) d(-v) + dB, with v running down.

    With a smoothed score the law of these samples is *not* that of the probability flow.
    """

    order: ClassVar[int] = 1
    is_stochastic: ClassVar[bool] = True

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """Move samples from noise scale `start` down to `end`.

        Parameters
        ----------
        field : ScoreField
            The score.
        x : torch.Tensor of shape (n, r)
            Samples.
        start, end : float
            Noise scales, `end` < `start`.
        draw : callable
            Returns standard normal noise of the shape of `x`.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        elapsed = start**2 - end**2
        return x + elapsed * field(x, start**2) + math.sqrt(elapsed) * draw()
