"""Slow references for what the library computes fast: a loop for every sum, and no tricks.

Everything is in extended precision where the platform has it (numpy's longdouble), so that the
errors in a test are the library's. Nothing here imports the library.

`posterior` is that of one query at one noise variance; `covariance_along` multiplies its covariance by
directions. `moments` and `leave_one_out` loop over queries. `averaged_log_density` is the smoothed
log-density again, in torch, for differentiation.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.testing import assert_allclose
from scipy import stats

EXTENDED = np.longdouble
LOG_TWO_PI = np.log(8 * np.arctan(EXTENDED(1)))


@dataclass(frozen=True)
class Posterior:
    """The posterior of weighted points given one query, or averages over nodes."""

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


def posterior(points, log_weights, x, v, exclude=None):
    """Posterior given one query `x`, without the point of index `exclude`."""
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
    return Posterior(weights, mean, trace, log_density)


def moments(points, log_weights, queries, v, offsets, node_weights, exclude=None):
    """Return the averages over the nodes for each query, as a list of `Posterior`."""
    averages = []
    for b, x in enumerate(np.asarray(queries, EXTENDED)):
        weights, mean = np.zeros(len(points), EXTENDED), np.zeros(len(x), EXTENDED)
        trace, log_density = EXTENDED(0), EXTENDED(0)
        for offset, weight in zip(np.asarray(offsets, EXTENDED), node_weights, strict=True):
            excluded = None if exclude is None else exclude[b]
            single = posterior(points, log_weights, x + offset, v, excluded)
            weights += EXTENDED(weight) * single.weights
            mean += EXTENDED(weight) * single.mean
            trace += EXTENDED(weight) * single.trace
            log_density += EXTENDED(weight) * single.log_density
        averages.append(Posterior(weights, mean, trace, log_density))
    return averages


def covariance_along(points, single, directions):
    """Return the posterior covariance times directions (r, j)."""
    along = np.zeros(np.shape(directions), EXTENDED)
    for weight, x in zip(single.weights, np.asarray(points, EXTENDED), strict=True):
        gap = x - single.mean
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
        total += EXTENDED(weights[i]) * posterior(points, log_weights, x, h * h, i).log_density
    return total


def averaged_log_density(x, points, log_weights, v, offsets, node_weights):
    """sum_m q_m log p_v(x + xi_m) of one query, differentiable any number of times."""
    total = 0.0
    for offset, weight in zip(offsets, node_weights, strict=True):
        squared_distances = (x + offset - points).square().sum(1)
        total = total + weight * torch.logsumexp(log_weights - squared_distances / (2 * v), dim=0)
    return total - x.shape[0] * math.log(2 * math.pi * v) / 2


def rows_for_folds(X):
    """Return the distinct rows in the order in which folds split them: by Mahalanobis distance."""
    rows = np.unique(X, axis=0)
    centered = rows - rows.mean(axis=0)
    inverse = np.linalg.inv(np.atleast_2d(np.cov(centered.T)))
    return rows[np.argsort(np.einsum("ni,ij,nj->n", centered, inverse, centered))]


def log_profiles(library):
    """log K(u) of each radial kernel inside its support, by numpy or torch."""
    return {
        "gaussian": lambda u: -u * u / 2,
        "tophat": lambda u: 0 * u,
        "epanechnikov": lambda u: library.log(1 - u * u),
        "exponential": lambda u: -u,
        "linear": lambda u: library.log(1 - u),
        "cosine": lambda u: library.log(library.cos(np.pi * u / 2)),
    }


def pvalue_of_counts(samples, edges, points, probability):
    """Chi-square p-value of the counts of samples in cells of a plane, against probabilities at points.

    Cells that expect fewer than ten samples, and all the outside, are one.
    """
    expected = np.histogram2d(*points.T, bins=edges, weights=probability)[0] * len(samples)
    counts = np.histogram2d(*samples.T, bins=edges)[0]
    large = expected > 10
    expected = np.append(expected[large], len(samples) - expected[large].sum())
    counts = np.append(counts[large], len(samples) - counts[large].sum())
    return stats.chisquare(counts, expected).pvalue


def assert_score_is_the_gradient(target, z):
    """The score of chains is that of their log-density, in coordinates in which noise is isotropic."""
    step = 1e-5
    for j, shift in enumerate(step * np.eye(2)):
        slope = (target.log_density(z + shift, 0.3) - target.log_density(z - shift, 0.3)) / (
            2 * step
        )
        # Second-order differences.
        assert_allclose(target.score(z, 0.3)[:, j], slope, rtol=1e-6, atol=1e-6)
    # Far out the score is that of a lone Gaussian.
    far = 1e4 * np.eye(2)
    assert_allclose(target.score(far, 0.3), -far / 0.3, rtol=1e-2, atol=300)
