"""The midpoint rule in exponential form, with one field evaluation a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..scores import ScoreField
from ._base import Draw
from ._exponential import RightHandSide, displacement_in_nats, phi


@dataclass(frozen=True)
class Multistep:
    """The midpoint rule, whose middle is predicted from the middles of the steps before.

    With h the step in log y, y = sqrt(v), and D the posterior mean in the middle of the step,

        x' = e^h x - (e^h - 1) D,

    exact while D is constant. The middle is predicted by the line through the posterior means in the
    middles of the last two steps (exponential Adams-Bashforth), so a step takes one field evaluation,
    inside its noise level, where `Heun` takes two. Log-densities are integrated by the midpoint rule
    over -v div s, with half of the error of the trapezoid rule.

    The difference between the predicted middle and that computed from D detects rows for which the steps
    are too long. With ``n_steps="auto"`` estimators compute such rows again, by `Heun` or `Adaptive`;
    with a number they do not, and far outliers may have errors of nats.

    References
    ----------
    M. Hochbruck and A. Ostermann, Exponential integrators, Acta Numerica 19, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> X = np.random.RandomState(0).normal(size=(50, 2))
    >>> model = SmoothedScoreDiffusion(0.3, 0.4, solver="multistep", n_steps=16).fit(X)
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    """

    order: ClassVar[int] = 2
    is_stochastic: ClassVar[bool] = False

    def initial_state(self, x: torch.Tensor, n_steps: int) -> MultistepState:
        """Return the solver for one flow of rows x (n, r), which keeps its last evaluations."""
        return MultistepState(x.new_zeros(len(x)))

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`. Without an earlier step it takes two evaluations."""
        return self.initial_state(x, 1).step(field, x, start, end, draw)

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ODESolver`. Without an earlier step it takes two evaluations."""
        return self.initial_state(x, 1).step_with_log_density(field, x, start, end)


class MultistepState:
    """The solver of one flow, with its last two evaluations and the roughness of its rows."""

    order: ClassVar[int] = Multistep.order
    is_stochastic: ClassVar[bool] = False

    def __init__(self, roughness: torch.Tensor) -> None:
        self.roughness = roughness
        # Posterior means in the middles of the last two steps, the latest one last, and log y there.
        self._middles: list[tuple[float, torch.Tensor]] = []

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`."""
        return self._step(RightHandSide(field, with_rate=False), x, start, end)[0]

    def step_with_log_density(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ODESolver`."""
        return self._step(RightHandSide(field, with_rate=True), x, start, end)

    def _step(
        self, ode: RightHandSide, x: torch.Tensor, start: float, end: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        middle = math.sqrt(start * end)
        predicted = self._predicted(ode, x, start, middle)
        mean, rate = ode(predicted, middle)
        if self._middles:
            corrected = torch.lerp(mean, x, middle / start)
            gap = displacement_in_nats(corrected - predicted, predicted, mean, middle)
            self.roughness = torch.maximum(self.roughness, gap)
        self._middles = [*self._middles[-1:], (math.log(middle), mean)]
        # Exact for a constant posterior mean: x - mean is proportional to the noise scale.
        return torch.lerp(mean, x, end / start), math.log(end / start) * rate

    def _predicted(
        self, ode: RightHandSide, x: torch.Tensor, start: float, middle: float
    ) -> torch.Tensor:
        """Return rows x (n, r) moved from `start` to `middle`, by posterior means of earlier steps."""
        slope = None
        mean = self._middles[-1][1] if self._middles else ode(x, start).mean
        if len(self._middles) > 1:
            (before, earlier), (last, mean) = self._middles
            slope = (mean - earlier) / (last - before)
            mean = torch.add(mean, slope, alpha=math.log(start) - last)
        moved = torch.lerp(mean, x, middle / start)
        if slope is None:
            return moved
        h = math.log(middle / start)
        return torch.sub(moved, slope, alpha=h**2 * phi(h)[1])
