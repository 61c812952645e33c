"""The background for outliers: a wide kernel density estimate and a t distribution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from .._coordinates.embedding import Embedding
from .._utils.memory import slices
from .tails import StudentT

# Width of the kernel density estimate, in bandwidths; docs/evidence/defaults.md has the evidence.
WIDTH = 4.0
# Degrees of freedom of the t distributions that are compared.
DEGREES: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
# Bounds on the fraction of the background that is the t distribution. The lower one is not zero, so that
# the log-density at distance R decreases like log R; it lowers other log-densities by 0.001 nats.
LEAST_TAIL, _MOST_TAIL = 0.05, 0.95
# Weight, in the t distribution, of rows that break relations between columns. It lowers their
# log-density by 21 nats, instead of to minus infinity; practically no draw is such a row.
BREAKS_RELATIONS = 1e-9

# Bounds on the weight of the background. New rows may be farther out than all training rows; the lower
# bound lowers log-densities by 0.02 nats.
_LEAST_BACKGROUND = 0.02
_MOST_BACKGROUND = 0.9
# Number of grids on which the weight of highest likelihood is searched for, each around the best value
# of the previous grid; number of values on a grid; number of rows that are processed at once.
_N_GRIDS, _N_ON_GRID, _ROWS_AT_ONCE = 4, 13, 4096

# Most iterations of the EM algorithm; it ends when the weights change by less than `_CHANGE` in total.
_N_ITERATIONS, _CHANGE = 200, 1e-6
# A heavier tail must raise the log-likelihood of all rows together by this many nats: where few rows are
# far out, all tails are about equally likely.
_LEAST_GAIN = 4.0
# A t distribution with at most this many degrees of freedom has no variance. With several columns it
# would give draws without a variance in all of them, indicators too, so it is for single columns only.
# Nor must it be chosen for its sharper peak: Hill's estimate of the tail index (one over the degrees),
# from the distances of the 15 % of the rows that are farthest out, must be above one half.
WITHOUT_VARIANCE = 2.0
_LEAST_TAIL_INDEX = 1 / WITHOUT_VARIANCE
_FAR = 0.15


@dataclass(frozen=True, eq=False)
class Tail:
    """The t distribution of a background."""

    student: StudentT
    weight: float  # Its fraction of the background, before the bounds of `part_weights`


def tail_log_density(
    student: StudentT,
    embedding: Embedding,
    coordinates: np.ndarray,
    residual: np.ndarray,
    excluded: np.ndarray | None,
) -> np.ndarray:
    """Return log-densities (n,) under a background's t distribution, per unit of the (mapped) columns.

    Rows have hull coordinates (n, p) and residuals (n, d). For training rows, `excluded` (n,) are their
    leave-one-out log-densities under `student` in hull coordinates.
    """
    columns = embedding.metric.columns
    outside = columns.outside(residual)
    log_density = excluded
    if log_density is None:
        log_density = student.log_density(coordinates, residual - outside)
    if columns.n_relations:
        within = log_density + columns.relation_log_density(outside)
        everywhere = replace(student, codimension=embedding.codimension)
        breaking = everywhere.log_density(coordinates, residual)
        weights = [1 - BREAKS_RELATIONS, BREAKS_RELATIONS]
        log_density = logsumexp(np.column_stack([within, breaking]), b=weights, axis=1)
    return log_density + embedding.metric.log_abs_det


def part_weights(
    background: float | np.ndarray, tail: float | np.ndarray
) -> list[float | np.ndarray]:
    """Return the mixture weights of the model, the KDE and the t distribution, in this order.

    The t distribution has the fraction `tail` of the background, but at least 0.05 of it, and leaves
    the KDE a weight of at least 0.019, or 0.95 of a background that is smaller than 0.02.
    """
    least = LEAST_TAIL * background
    most = np.maximum(least, background - (1 - LEAST_TAIL) * _LEAST_BACKGROUND)
    heavy = np.clip(tail * background, least, most)
    return [1 - background, background - heavy, heavy]


def mixed(parts: np.ndarray, background: float, tail: float | np.ndarray) -> np.ndarray:
    """Return mixture log-densities (n,) from `parts` (n, 3): those of model, KDE and t distribution."""
    if not background:
        return parts[:, 0]
    weights = np.column_stack(np.broadcast_arrays(*part_weights(background, tail)))
    return logsumexp(parts, b=weights, axis=1)


def background_weight(parts: np.ndarray, tail: float | np.ndarray, weights: np.ndarray) -> float:
    """Return the background's weight, 0.02 to 0.9, of highest likelihood at held-out rows.

    `parts` (n, 3) are their log-densities under the three parts of the mixture, in nats. The weight is
    the best of a geometric grid, which is refined around it until its steps are about 0.15 %.
    """
    largest = parts.max(axis=1)
    densities = np.exp(parts - largest[:, None])
    tail = np.broadcast_to(tail, len(parts))

    def log_likelihoods(backgrounds: np.ndarray) -> np.ndarray:
        total = np.full(len(backgrounds), float(weights @ largest))
        for rows in slices(len(parts), _ROWS_AT_ONCE):
            of_parts = zip(
                part_weights(backgrounds[:, None], tail[rows]), densities[rows].T, strict=True
            )
            with np.errstate(divide="ignore"):
                total += np.log(sum(w * part for w, part in of_parts)) @ weights[rows]
        return total

    low, high = _LEAST_BACKGROUND, _MOST_BACKGROUND
    for _ in range(_N_GRIDS):
        grid = np.geomspace(low, high, _N_ON_GRID)
        best = int(np.argmax(log_likelihoods(grid)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _N_ON_GRID - 1)]
    return float(grid[best])


def choose_tail(
    students: list[StudentT],
    log_densities: np.ndarray,
    kdes: np.ndarray,
    distances: np.ndarray,
    weights: np.ndarray,
) -> Tail:
    """Return the t distribution of highest likelihood, with its weight in the background.

    `students` begin with the heaviest tail; lighter ones are preferred. For n held-out rows,
    `log_densities` (n, n_students) are those under `students`, and `kdes` (n, 2) those under KDEs of
    the model's bandwidth, in place of the model, and of the background's bandwidth; `distances`
    (n, n_students) are the distances from the centers. Each t distribution is scored by its mixture with
    the two KDEs, whose weights the EM algorithm fits.
    """
    best, chosen = -np.inf, None
    least_gain = _LEAST_GAIN * float(weights @ weights)
    for k, student in reversed(list(enumerate(students))):
        if chosen is not None and student.degrees <= WITHOUT_VARIANCE:
            is_single = len(student.center) + student.codimension == 1
            if not is_single or _tail_index(distances[:, k], weights) <= _LEAST_TAIL_INDEX:
                continue
        parts = np.column_stack([kdes, log_densities[:, k]])
        largest = parts.max(axis=1)
        densities = np.exp(parts - largest[:, None])
        mixture = np.full(3, 1 / 3)
        for _ in range(_N_ITERATIONS):
            ratios = (weights / (densities @ mixture)) @ densities
            mixture *= ratios
            if np.abs(ratios - 1) @ mixture < _CHANGE:
                break
        score = weights @ (largest + np.log(densities @ mixture))
        if chosen is None or score > best + least_gain:
            share = mixture[2] / max(mixture[1] + mixture[2], np.finfo(np.float64).tiny)
            best, chosen = score, Tail(student, float(np.clip(share, LEAST_TAIL, _MOST_TAIL)))
    assert chosen is not None
    return chosen


def _tail_index(distances: np.ndarray, weights: np.ndarray) -> float:
    """Return Hill's (1975) estimate of the tail index, or zero; distances (n,) have weights (n,)."""
    order = np.argsort(-distances, kind="stable")
    n_far = int(np.searchsorted(np.cumsum(weights[order]), _FAR, side="right"))
    if not n_far:
        return 0.0
    far, next_one = order[:n_far], max(distances[order[n_far]], np.finfo(np.float64).tiny)
    # The ratio of the distances may overflow.
    ratios = np.log(distances[far]) - np.log(next_one)
    return float(np.average(ratios, weights=weights[far]))
