"""Noise processes, and the levels and steps between the bandwidth and the terminal noise scale.

Everything is computed for the variance-exploding process X_t = X_0 + sqrt(v) Z: a noise *variance*
is written v (or t, its time), a noise *scale* y = sqrt(v), in units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from ._utils.validation import check_real

__all__ = [
    "NoiseLevels",
    "NoiseProcess",
    "OrnsteinUhlenbeck",
    "Step",
    "VarianceExploding",
    "enough_steps",
]

# Steps for each unit of log(noise scale), and the smallest number of steps: for training rows; for rows
# with frames as nodes, which have smaller errors; and for a base, whose components have widths over the
# whole range of noise scales. The errors are in docs/evidence/accuracy.md.
_STEPS = 8, 32
_STEPS_BY_FRAMES = 6, 16
_STEPS_OVER_BASE = 16, 32


class Step(NamedTuple):
    """One step of a solver inside one noise level, between two noise scales."""

    level: int
    start: float
    end: float

    def reversed(self) -> Step:
        """Return the same step in the other direction."""
        return Step(self.level, self.end, self.start)


def enough_steps(
    bandwidth: float, terminal_scale: float, *, has_base: bool, by_frames: bool
) -> int:
    """Return the default number of levels and steps between two noise scales.

    `by_frames` is whether nodes are frames (`gaussian_frames`), from whose log-densities divergences
    are computed.
    """
    # Not the logarithm of the ratio, which may overflow.
    width = math.log(terminal_scale) - math.log(bandwidth)
    a_unit, fewest = _STEPS
    if has_base:
        a_unit, fewest = _STEPS_OVER_BASE
    elif by_frames:
        a_unit, fewest = _STEPS_BY_FRAMES
    return max(fewest, math.ceil(a_unit * width))


@dataclass(frozen=True)
class NoiseLevels:
    """Intervals of equal ratio between two noise scales, each with one fixed set of nodes.

    The levels belong to the model: they define which nodes smooth the score at which noise. The
    steps belong to the solver: refining them does not change the model.

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

    def times(self, factor: float) -> NoiseLevels:
        """Return the same levels with scales that are multiplied by a factor."""
        return NoiseLevels(factor * self.bandwidth, factor * self.terminal_scale, self.n_levels)

    def level_of(self, scale: float) -> int:
        """Return the level that contains a noise scale, or the nearest level if none does."""
        if self.terminal_scale == self.bandwidth:
            return 0
        fraction = math.log(scale / self.bandwidth) / math.log(self.terminal_scale / self.bandwidth)
        return min(max(math.floor(fraction * self.n_levels), 0), self.n_levels - 1)

    def start(self, level: int) -> float:
        """Return the smallest noise scale of a level, in units of X."""
        fraction = level / self.n_levels
        return self.bandwidth * (self.terminal_scale / self.bandwidth) ** fraction

    def middle(self, level: int) -> float:
        """Return the noise scale in the middle of a level, in log(scale), in units of X."""
        return math.sqrt(self.start(level) * self.start(level + 1))

    def equal_steps(self, n_steps: int) -> tuple[int, ...]:
        """Return the number of steps of each level, the same for all, at least `n_steps` in total."""
        return (math.ceil(n_steps / self.n_levels),) * self.n_levels

    def steps(self, steps_per_level: int | Sequence[int]) -> Sequence[Step]:
        """Return the steps of a solver from the bandwidth up to the terminal scale.

        Each level has `steps_per_level` steps of equal ratio, so that no step crosses a boundary of
        levels; a sequence gives the number for each level.
        """
        if self.terminal_scale == self.bandwidth:
            return []
        counts = np.broadcast_to(steps_per_level, self.n_levels)
        level = np.repeat(np.arange(self.n_levels), counts)
        within = np.arange(len(level)) - np.repeat(np.cumsum(counts) - counts, counts)
        fractions = (level + within / counts[level]) / self.n_levels
        scales = self.bandwidth * (self.terminal_scale / self.bandwidth) ** fractions
        ends = [*scales[1:].tolist(), self.terminal_scale]
        return [Step(*step) for step in zip(level.tolist(), scales.tolist(), ends, strict=True)]


@runtime_checkable
class NoiseProcess(Protocol):
    """A forward process X_t = alpha(t) X_0 + sqrt(variance(t)) Z.

    Divided by alpha it is the variance-exploding process of noise scale sqrt(variance) / alpha, for
    which everything is computed. The process therefore changes one thing only: the smoothing scale,
    given in units of X_t, is divided by alpha(t) to be in units of the data.

    A process of your own is a class with the three methods below.
    """

    def alpha(self, t: float) -> float:
        """Return the factor of the data at time t."""
        ...

    def variance(self, t: float) -> float:
        """Return the variance of the noise at time t, in squared units of X."""
        ...

    def time(self, scale: float) -> float:
        """Return the time at which sqrt(variance) / alpha equals `scale`, in units of X."""
        ...


@dataclass(frozen=True)
class VarianceExploding:
    """Brownian motion, dX = dB: X_t = X_0 + sqrt(t) Z.

    Examples
    --------
    >>> from skdiffsmooth.noise import VarianceExploding
    >>> VarianceExploding().variance(4.0)
    4.0
    """

    def alpha(self, t: float) -> float:
        """Return 1, the factor of the data."""
        check_real("t", t, strict=False)
        return 1.0

    def variance(self, t: float) -> float:
        """Return t, the variance of the noise, in squared units of X."""
        return check_real("t", t, strict=False)

    def time(self, scale: float) -> float:
        """Return the time of a noise scale, its square."""
        scale = check_real("scale", scale, strict=False)
        return scale * scale


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """The Ornstein-Uhlenbeck process dX = -rate X dt + dB, which shrinks the data.

    alpha(t) = exp(-rate t) and variance(t) = (1 - exp(-2 rate t)) / (2 rate) (Song et al. 2021,
    their variance-preserving process with another time).

    Parameters
    ----------
    rate : float, default=0.5
        Rate of the decay, in units of one over squared units of X. With 0.5, data of variance one
        keep their variance.

    Raises
    ------
    TypeError, ValueError
        If `rate` is not a positive number.

    Examples
    --------
    >>> from skdiffsmooth.noise import OrnsteinUhlenbeck
    >>> process = OrnsteinUhlenbeck(0.5)
    >>> round(process.alpha(1.0) ** 2 + process.variance(1.0), 12)
    1.0
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        check_real("rate", self.rate)

    def alpha(self, t: float) -> float:
        """Return exp(-rate t), the factor of the data at time t."""
        return math.exp(-self.rate * _checked_time(t))

    def variance(self, t: float) -> float:
        """Return the variance of the noise at time t, in squared units of X."""
        return -math.expm1(-2 * self.rate * _checked_time(t)) / (2 * self.rate)

    def time(self, scale: float) -> float:
        """Return the time at which sqrt(variance) / alpha is `scale`, in units of X."""
        scale = check_real("scale", scale, strict=False)
        return math.log1p(2 * self.rate * scale * scale) / (2 * self.rate)


def _checked_time(t: float) -> float:
    """Return a time after checking that it is a number >= 0, or infinity."""
    is_infinite = isinstance(t, float) and t == math.inf
    return t if is_infinite else check_real("t", t, strict=False)
