"""Noise levels: the range from the bandwidth to the terminal scale, its intervals and its steps.

The forward process is variance exploding, X_t = X_0 + sqrt(v) Z: a noise *variance* is written v (or
t, its time), a noise *scale* y = sqrt(v), in units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["NoiseLevels", "Step"]


class Step(NamedTuple):
    """One move of a solver inside one noise level."""

    level: int
    start: float
    end: float

    def reversed(self) -> Step:
        """Return the same move the other way."""
        return Step(self.level, self.end, self.start)


@dataclass(frozen=True)
class NoiseLevels:
    """Intervals of equal ratio between two noise scales; one set of nodes is frozen in each.

    The levels belong to the *model* (they say which nodes smooth the score where), the steps to the
    solver: refining the steps never changes the model.

    Parameters
    ----------
    bandwidth : float
        Smallest noise scale, sqrt(v_eps), in units of X.
    terminal_scale : float
        Largest noise scale, sqrt(v_T), in units of X. If it equals `bandwidth` there are no levels
        and the flow is the identity.
    n_levels : int
        Number of intervals, equal in log(scale).
    """

    bandwidth: float
    terminal_scale: float
    n_levels: int

    def level_of(self, scale: float) -> int:
        """Return the level that holds a noise scale; the first or last one for scales outside.

        Parameters
        ----------
        scale : float
            Noise scale in units of X.

        Returns
        -------
        int
        """
        if self.terminal_scale == self.bandwidth:
            return 0
        share = math.log(scale / self.bandwidth) / math.log(self.terminal_scale / self.bandwidth)
        return min(max(math.floor(share * self.n_levels), 0), self.n_levels - 1)

    def start(self, level: int) -> float:
        """Return the smallest noise scale of a level.

        Parameters
        ----------
        level : int
            Index of the level.

        Returns
        -------
        float
            In units of X.
        """
        share = level / self.n_levels
        return self.bandwidth * (self.terminal_scale / self.bandwidth) ** share

    def steps(self, steps_per_level: int) -> Sequence[Step]:
        """Return the steps of a solver from the bandwidth up to the terminal scale.

        Parameters
        ----------
        steps_per_level : int
            Steps of equal ratio inside each level, so that none straddles a boundary.

        Returns
        -------
        sequence of Step
        """
        if self.terminal_scale == self.bandwidth:
            return []
        scales = np.geomspace(
            self.bandwidth, self.terminal_scale, self.n_levels * steps_per_level + 1
        ).tolist()
        return [
            Step(k // steps_per_level, scales[k], scales[k + 1]) for k in range(len(scales) - 1)
        ]
