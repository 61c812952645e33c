"""The background for outliers: a wide kernel density estimate and a t distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from ..bandwidth import maximize_leave_one_out
from .tails import StudentT

__all__ = [
    "BREAKS_RELATIONS",
    "DEGREES",
    "LEAST_TAIL",
    "WIDTH",
    "Tail",
    "background_weight",
    "choose_tail",
    "mixed",
    "part_weights",
]

# Width of the kernel density estimate, in bandwidths; docs/defaults.md has the evidence.
WIDTH = 4.0
# Degrees of freedom that are compared.
DEGREES = (1.0, 2.0, 4.0, 8.0)
# Bounds on the weight of the t distribution in the background. The first is not zero, so that the
# log-density of a row at distance R falls like log R; it lowers others by a thousandth of a nat.
LEAST_TAIL, _MOST_TAIL = 0.05, 0.95
# Weight, in the t distribution, of rows that break relations between columns: it bounds what such a row
# costs, to 21 nats more than others, and no draw is one.
BREAKS_RELATIONS = 1e-9

# New rows may be farther out than all training rows. This weight lowers log-densities by 0.02 nats.
_LEAST_BACKGROUND = 0.02
_MOST_BACKGROUND = 0.9

# The EM algorithm ends where no weight changes by more.
_N_ITERATIONS, _CHANGE = 200, 1e-6
# A heavier tail must gain as many nats over all rows, since where few rows are far out all tails are
# nearly as likely. Draws from tails of one or two degrees of freedom have no variance: such a tail must
# gain them over the tenth of the rows that is farthest out, and not by its sharper peak.
_LEAST_GAIN = 4.0
_MOST_WITHOUT_VARIANCE = 2.0
_FAR = 0.1


@dataclass(frozen=True, eq=False)
class Tail:
    """The t distribution of a background."""

    student: StudentT
    weight: float
    """Its weight in the background, if that is large; see `part_weights`."""


def part_weights(background: float, tail: float | np.ndarray) -> list[float | np.ndarray]:
    """Return the weights of model, kernel density estimate and t distribution in the mixture.

    `tail` is the weight of the t distribution in a large background, one number or one for each row: the
    kernel density estimate keeps 0.019 first.
    """
    least = LEAST_TAIL * background
    most = np.maximum(least, background - (1 - LEAST_TAIL) * _LEAST_BACKGROUND)
    heavy = np.clip(tail * background, least, most)
    return [1 - background, background - heavy, heavy]


def mixed(parts: np.ndarray, background: float, tail: float | np.ndarray) -> np.ndarray:
    """Return the log-density (n,) of a mixture from those of its parts (n, 3), in nats.

    The parts are model, kernel density estimate and t distribution; for the weights see `part_weights`.
    """
    if not background:
        return parts[:, 0]
    weights = np.column_stack(np.broadcast_arrays(*part_weights(background, tail)))
    return logsumexp(parts, b=weights, axis=1)


def background_weight(parts: np.ndarray, tail: float | np.ndarray, weights: np.ndarray) -> float:
    """Return the weight of the background with the highest held-out likelihood, from 0.02 to 0.9.

    `parts` (n, 3) are held-out log-densities in nats, see `mixed`; `weights` (n,) are those of the rows
    and sum to one.
    """
    largest = parts.max(axis=1)
    densities = np.exp(parts - largest[:, None])

    def log_likelihood(background: float) -> float:
        of_parts = zip(part_weights(background, tail), densities.T, strict=True)
        with np.errstate(divide="ignore"):
            return float(weights @ (largest + np.log(sum(w * part for w, part in of_parts))))

    return maximize_leave_one_out(log_likelihood, _LEAST_BACKGROUND, _MOST_BACKGROUND)


def choose_tail(
    students: list[StudentT], log_densities: np.ndarray, kdes: np.ndarray, weights: np.ndarray
) -> Tail:
    """Return the t distribution of highest likelihood, with its weight in the background.

    `students` begin with the heaviest tail; lighter ones are preferred, most of all to those without
    variance. `log_densities`
    (n, n_students) are left-out log-densities, `kdes` (n, 2) those of kernel density estimates of the
    model's bandwidth, in the place of the model, and of the background's. A mixture of the three has the
    weights of highest likelihood, by the EM algorithm.
    """
    least_gain = _LEAST_GAIN * float(weights @ weights)
    order = np.argsort(log_densities[:, -1], kind="stable")
    is_far = np.zeros(len(weights), dtype=bool)
    is_far[order] = np.cumsum(weights[order]) <= _FAR
    best, chosen = np.full(len(weights), -np.inf), None
    for student, column in zip(students[::-1], log_densities.T[::-1], strict=True):
        parts = np.column_stack([kdes, column])
        largest = parts.max(axis=1)
        densities = np.exp(parts - largest[:, None])
        mixture = np.full(3, 1 / 3)
        for _ in range(_N_ITERATIONS):
            ratios = (weights / (densities @ mixture)) @ densities
            mixture *= ratios
            if np.abs(ratios - 1) @ mixture < _CHANGE:
                break
        by_row = largest + np.log(densities @ mixture)
        gains = weights * (by_row - best)
        needed = [gains.sum()]
        if student.degrees <= _MOST_WITHOUT_VARIANCE:
            needed.append(gains[is_far].sum())
        if chosen is None or min(needed) > least_gain:
            share = mixture[2] / max(mixture[1] + mixture[2], np.finfo(np.float64).tiny)
            best, chosen = by_row, Tail(student, float(np.clip(share, LEAST_TAIL, _MOST_TAIL)))
    assert chosen is not None
    return chosen
