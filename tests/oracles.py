"""Slow, obvious twins of what the library computes fast: a loop for every sum, and no tricks.

Everything is in extended precision where the platform has it (numpy's longdouble), so that the
errors seen in a test are the library's. Nothing here imports the library.

`look` is one query at one noise variance; `covariance_along` adds to one what it says of directions.
`moments` and `leave_one_out` loop over it.
`averaged_log_density` is the smoothed log-density once more, in torch, to be differentiated.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

EXTENDED = np.longdouble
LOG_TWO_PI = np.log(8 * np.arctan(EXTENDED(1)))


@dataclass(frozen=True)
class Look:
    """What weighted points say about one query, or the averages of that over nodes."""

    weights: np.ndarray  # posterior, of each point
    mean: np.ndarray
    trace: np.floating  # of the posterior covariance
    log_density: np.floating


def log_sum_exp(values):
    top = max(values)
    if top == -math.inf:
        return EXTENDED(-math.inf)
    total = EXTENDED(0)
    for value in values:
        total += np.exp(value - top)
    return top + np.log(total)


def look(points, log_weights, x, v, exclude=None):
    """Posterior of one query `x`, the point of index `exclude` left out and the others rescaled."""
    points, x, v = np.asarray(points, EXTENDED), np.asarray(x, EXTENDED), EXTENDED(v)
    others = [i for i in range(len(points)) if i != exclude]
    left = log_sum_exp([EXTENDED(log_weights[i]) for i in others]) if exclude is not None else 0
    logits = []
    for i in others:
        squared_distance = np.sum((x - points[i]) ** 2)
        logits.append(EXTENDED(log_weights[i]) - left - squared_distance / (2 * v))
    log_total = log_sum_exp(logits)

    weights = np.zeros(len(points), EXTENDED)
    for i, logit in zip(others, logits, strict=True):
        weights[i] = np.exp(logit - log_total)
    weights /= weights.sum()  # logits of millions leave the sum a few digits off one
    mean = np.zeros(len(x), EXTENDED)
    for i in others:
        mean += weights[i] * points[i]
    trace = EXTENDED(0)
    for i in others:
        trace += weights[i] * np.sum((points[i] - mean) ** 2)
    log_density = log_total - len(x) * (LOG_TWO_PI + np.log(v)) / 2
    return Look(weights, mean, trace, log_density)


def moments(points, log_weights, queries, v, offsets, node_weights, exclude=None):
    """For each query the averages over the nodes, as a list of `Look`."""
    averages = []
    for b, x in enumerate(np.asarray(queries, EXTENDED)):
        weights, mean = np.zeros(len(points), EXTENDED), np.zeros(len(x), EXTENDED)
        trace, log_density = EXTENDED(0), EXTENDED(0)
        for offset, share in zip(np.asarray(offsets, EXTENDED), node_weights, strict=True):
            left_out = None if exclude is None else exclude[b]
            seen = look(points, log_weights, x + offset, v, left_out)
            weights += EXTENDED(share) * seen.weights
            mean += EXTENDED(share) * seen.mean
            trace += EXTENDED(share) * seen.trace
            log_density += EXTENDED(share) * seen.log_density
        averages.append(Look(weights, mean, trace, log_density))
    return averages


def covariance_along(points, seen, directions):
    """Posterior covariance of a `Look`, times directions (r, j)."""
    along = np.zeros(np.shape(directions), EXTENDED)
    for weight, x in zip(seen.weights, np.asarray(points, EXTENDED), strict=True):
        gap = x - seen.mean
        along += weight * np.outer(gap, gap @ np.asarray(directions, EXTENDED))
    return along


def leave_one_out(points, weights, h, codimension=0):
    """Mean leave-one-out log-likelihood of a Gaussian KDE in R^(r + codimension).

    The further dimensions are really there, as columns of zeros.
    """
    points = np.column_stack([points, np.zeros((len(points), codimension))])
    log_weights = [np.log(EXTENDED(w)) for w in weights]
    total = EXTENDED(0)
    for i, x in enumerate(points):
        total += EXTENDED(weights[i]) * look(points, log_weights, x, h * h, i).log_density
    return total


def averaged_log_density(x, points, log_weights, v, offsets, node_weights):
    """sum_m q_m log p_v(x + xi_m) of one query, differentiable as often as wanted."""
    total = 0.0
    for offset, share in zip(offsets, node_weights, strict=True):
        squared_distances = (x + offset - points).square().sum(1)
        total = total + share * torch.logsumexp(log_weights - squared_distances / (2 * v), dim=0)
    return total - x.shape[0] * math.log(2 * math.pi * v) / 2
