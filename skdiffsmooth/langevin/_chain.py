"""Langevin chains at one noise level: their tempered score, their steps and step sizes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._utils.validation import check_real_array
from ._targets import Target

# The acceptance rate that step sizes are adapted to (Roberts & Rosenthal 1998).
_ACCEPTANCE = 0.574
# Chains have diverged if a step's drift exceeds this multiple of the larger of first drift and noise.
_DIVERGENCE_FACTOR = 1e4
_POWER_ITERATIONS = 10
# Largest number of finite-difference steps tried; each after the first is set from the last result.
_REFINEMENTS = 3


class Level(NamedTuple):
    """A noise level: the target's noise argument, the inverse temperature and the noise variance."""

    noise: float | None
    inverse_temperature: float
    variance: float | None

    @property
    def tempered_variance(self) -> float:
        """The tempered variance normal to the manifold of the data, or one if not known."""
        return 1.0 if self.variance is None else self.variance / self.inverse_temperature


class StepSizeRule:
    """A step size in units of the tempered variance, fixed or adapted (Robbins & Monro 1951)."""

    def __init__(self, relative: float, *, adapts: bool) -> None:
        self._log = math.log(relative)
        self._adapts = adapts
        self._history: list[float] = []

    def step_size(self, level: Level) -> float:
        return math.exp(self._log) * level.tempered_variance

    def adapt(self, acceptance: np.ndarray) -> None:
        if not self._adapts:
            return
        # The exact sum does not depend on the order of the chains.
        mean = math.fsum(acceptance.tolist()) / len(acceptance)
        self._log += (len(self._history) + 1) ** -0.6 * (mean - _ACCEPTANCE)
        self._history.append(self._log)

    def freeze(self) -> None:
        """Set the step size to its mean over the later half of the steps, which varies less."""
        if self._history:
            self._log = float(np.mean(self._history[len(self._history) // 2 :]))
            self._history.clear()


class Field:
    """The tempered score (n, d) and log-density (n,) of one level, after checks of their values."""

    def __init__(self, target: Target, level: Level, *, with_log_density: bool) -> None:
        self._target = target
        self._level = level
        self.with_log_density = with_log_density

    def score(self, z: np.ndarray) -> np.ndarray:
        score = self._checked("score", self._target.score(z, self._level.noise), z.shape)
        return self._level.inverse_temperature * score

    def log_density(self, z: np.ndarray) -> np.ndarray:
        values = self._target.log_density(z, self._level.noise)
        values = self._checked("log_density", values, z.shape[:1])
        if np.any(np.isnan(values) | (values == math.inf)):
            raise ValueError(
                "log_density returned NaN or inf; expected finite numbers in nats, and -inf where the "
                "density is zero."
            )
        return self._level.inverse_temperature * values

    @staticmethod
    def _checked(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
        values = check_real_array(f"what {name} returned", values)
        if values.shape != shape:
            raise ValueError(
                f"{name} returned an array of shape {values.shape} for rows of shape "
                f"{shape if len(shape) == 2 else (shape[0], 'n_features')}; expected {shape}."
            )
        return values


class ChainState:
    """All chains at one noise level: rows z (n_chains, d), their scores and log-densities."""

    def __init__(self, field: Field, z: np.ndarray, rng: np.random.RandomState) -> None:
        self.z = z
        self.acceptance = np.ones(len(z))
        self._field = field
        self._rng = rng
        self._n_steps = 0
        self._max_drift = 0.0
        if field.with_log_density:
            self._log_density = field.log_density(z)
            outside = np.flatnonzero(np.isneginf(self._log_density))
            if len(outside):
                raise ValueError(
                    f"{len(outside)} chains (first: chain {outside[0]}) start where log_density is "
                    "-inf; expected a start where the density is positive."
                )
        self._score = field.score(z)
        bad = np.flatnonzero(~np.isfinite(self._score).all(axis=1))
        if len(bad):
            raise ValueError(
                f"score is NaN or infinite where {len(bad)} chains (first: chain {bad[0]}) start; "
                "expected finite numbers, in nats per unit of X."
            )

    def step(self, h: float) -> np.ndarray:
        """Move all chains by one step, and return which chains (n_chains,) accepted it."""
        self._n_steps += 1
        noise = self._rng.standard_normal(self.z.shape)
        # Overflow is reported below.
        with np.errstate(over="ignore", invalid="ignore"):
            proposal = self.z + h * self._score + math.sqrt(2 * h) * noise
            drift = h * np.linalg.norm(self._score, axis=1)
        if self._field.with_log_density:
            return self._accept_or_reject(h, proposal, noise)
        if self._n_steps == 1:
            noise_length = math.sqrt(2 * h * self.z.shape[1])
            self._max_drift = _DIVERGENCE_FACTOR * max(float(drift.max()), noise_length)
        finite = np.isfinite(proposal).all(axis=1) & (drift <= self._max_drift)
        score = self._field.score(proposal) if finite.all() else self._score
        lost = np.flatnonzero(~(finite & np.isfinite(score).all(axis=1)))
        if len(lost):
            shown = ", ".join(map(str, lost[:10])) + (", ..." if len(lost) > 10 else "")
            raise ValueError(
                f"{len(lost)} of {len(self.z)} chains diverged (chains {shown}; step {self._n_steps}): "
                f"step_size={h:g} is too large for this score, or the score is not finite there. Pass "
                f"a smaller step_size, such as {h / 10:.1g}, or metropolis=True with a log-density, "
                "which cannot diverge."
            )
        self.z, self._score = proposal, score
        return self.acceptance

    def _accept_or_reject(self, h: float, proposal: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return which proposals (n_chains,) are accepted, so that exp(log-density) is stationary."""
        z, score = self.z, self._score
        log_density = np.full(len(z), -math.inf)
        inside = np.flatnonzero(np.isfinite(proposal).all(axis=1))
        if len(inside):
            log_density[inside] = self._field.log_density(proposal[inside])
        # The score is computed where the density is positive: it may not be defined elsewhere.
        inside = np.flatnonzero(np.isfinite(log_density))
        new_score = np.zeros_like(z)
        if len(inside):
            new_score[inside] = self._field.score(proposal[inside])
        back = z - proposal - h * new_score
        log_ratio = np.full(len(z), -math.inf)
        log_ratio[inside] = (
            log_density[inside]
            - self._log_density[inside]
            - np.sum(back[inside] ** 2, axis=1) / (4 * h)
            + np.sum(noise[inside] ** 2, axis=1) / 2
        )
        if np.any(np.isnan(log_ratio)):
            raise ValueError(
                "score returned NaN where log_density is finite; expected finite numbers, in nats per "
                "unit of X."
            )
        self.acceptance = np.exp(np.minimum(log_ratio, 0.0))
        accepted = -self._rng.standard_exponential(len(z)) < log_ratio
        self.z = np.where(accepted[:, None], proposal, z)
        self._score = np.where(accepted[:, None], new_score, score)
        self._log_density = np.where(accepted, log_density, self._log_density)
        return accepted


def smallest_variance(field: Field, z: np.ndarray, rng: np.random.RandomState) -> float:
    """Return the smallest variance, the inverse of the largest derivative of the score at z (n, d)."""
    score, direction = field.score(z), rng.standard_normal(z.shape)
    largest = float(np.abs(z).max())
    # The first finite-difference step is relative to the coordinates. They may be much larger or smaller
    # than the width of the distribution, so the next step is relative to the width, from the derivative.
    step = 1e-5 * (largest or 1.0)
    for _ in range(_REFINEMENTS):
        derivative = _largest_derivative(field, z, score, direction, step)
        if not (math.isfinite(derivative) and derivative > 0):
            raise ValueError(
                f"step_size='auto' cannot be set: the score changes by {derivative:g} per unit of X at "
                "the starting rows; expected a finite number > 0. Pass a number for step_size, or "
                "noise_variance."
            )
        width = derivative**-0.5
        if step <= 1e-2 * width:
            break
        # The lower bound keeps the rounding errors of the coordinates small against the step.
        step = max(1e-5 * width, 1e-12 * largest)
    return 1 / derivative


def _largest_derivative(
    field: Field, z: np.ndarray, score: np.ndarray, direction: np.ndarray, step: float
) -> float:
    """Return the largest derivative of a score at rows z by finite differences and power iteration."""
    for _ in range(_POWER_ITERATIONS):
        direction = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-300)
        direction = (field.score(z + step * direction) - score) / step
    return float(np.linalg.norm(direction, axis=1).max())
