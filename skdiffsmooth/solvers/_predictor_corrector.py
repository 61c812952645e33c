"""Predictor-corrector sampling: the probability-flow ODE, and Langevin steps at each noise scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from .._utils.validation import check_integer, check_real
from ..scores import ScoreField
from ._base import Draw
from ._heun import Heun


@dataclass(frozen=True)
class PredictorCorrector:
    """A step of Heun's method to the next noise scale, followed by Langevin steps there.

    The corrector's step is x + h s + sqrt(2 h) z with h = 2 snr^2 v (Song et al. 2021, alg. 4). This is
    their signal-to-noise rule with sqrt(d / v), the typical norm of the score at noise variance v, in
    place of the mean norm of a batch, so that a row does not depend on the other rows.

    Langevin steps move samples towards the distribution of density exp(l), with l the averaged
    log-density at their noise level. With sigma = 0 that is the distribution of the flow. With a
    smoothed score each correction moves samples further from the distribution of the flow, and their
    density cannot be computed: `score_samples` raises an error.

    Parameters
    ----------
    snr : float, default=0.16
        Signal-to-noise ratio of the corrector, below 1. In directions normal to the data, the variance
        of its stationary distribution is too large by a factor of 1 + snr^2, 2.6 % by default.
    n_corrections : int, default=1
        Langevin steps after each step of the predictor. With 0 samples are those of `Heun`, but there
        are no log-densities.

    Raises
    ------
    TypeError, ValueError
        If `snr` is not a number between 0 and 1, or `n_corrections` is not an integer >= 0.

    Notes
    -----
    A step takes ``2 + n_corrections`` field evaluations. The error decreases with the first power of the
    step size if snr^2 is decreased with it; at a fixed `snr` the error of the variance remains.

    References
    ----------
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, Score-Based Generative Modeling through
    Stochastic Differential Equations, ICLR 2021.

    See Also
    --------
    skdiffsmooth.LangevinSampler : Long chains at one noise level, with diagnostics.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.solvers import PredictorCorrector
    >>> X = np.random.RandomState(0).normal(size=(50, 2))
    >>> model = SmoothedScoreDiffusion(0.3, 0.4, solver=PredictorCorrector(n_corrections=2)).fit(X)
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    """

    snr: float = 0.16
    n_corrections: int = 1
    order: ClassVar[int] = 1
    is_stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        hint = "It is a signal-to-noise ratio; 0.16 suits most data."
        # From 1 on, steps diverge in directions normal to the data: |1 - 2 snr^2| >= 1.
        check_real("snr", self.snr, below=1, hint=hint)
        check_integer("n_corrections", self.n_corrections, minimum=0)

    def step(
        self, field: ScoreField, x: torch.Tensor, start: float, end: float, draw: Draw
    ) -> torch.Tensor:
        """See `Solver`."""
        x = Heun().step(field, x, start, end, draw)
        h = 2 * (self.snr * end) ** 2
        for _ in range(self.n_corrections):
            x = x + h * field(x, end**2) + math.sqrt(2 * h) * draw()
        return x
