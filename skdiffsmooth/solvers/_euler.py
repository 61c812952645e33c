"""Euler's method for the probability-flow ODE."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from ..scores import ScoreField
from ._base import Draw

__all__ = ["Euler"]


class Euler:
    """One field evaluation a step: the flow in y = sqrt(v), dx/dy = -y s(x, y^2), held constant.

    Exact while the posterior mean does not move, since the flow is then a straight line in y (this
    is DDIM's step). The log-density changes by -v div s per unit of log y.
    """

    order: ClassVar[int] = 1
    is_stochastic: ClassVar[bool] = False

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """Move samples from noise scale `start` to `end`.

        Parameters
        ----------
        field : ScoreField
            The score.
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
        return x - (end - start) * start * field(x, start**2)

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move samples and say by how much their log-density falls.

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
        score, divergence = field.with_divergence(x, start**2)
        change = -math.log(end / start) * start**2 * divergence
        return x - (end - start) * start * score, change
