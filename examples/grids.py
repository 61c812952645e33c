"""Sums over grids, for pages of the gallery that compare densities in one or two dimensions."""

import math
import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from skdiffsmooth.metrics import Estimate


class Grid(NamedTuple):
    """The midpoints (n, d) of equal cells, the last coordinate running fastest, and a cell's volume."""

    points: np.ndarray
    volume: float


def regular_grid(low, high, n_cells):
    """Return `n_cells` cells along each direction of the box with the corners `low` and `high`.

    A cell should be at most half as wide as the narrowest density.
    """
    low, high = np.atleast_1d(low).astype(float), np.atleast_1d(high).astype(float)
    width = (high - low) / n_cells
    middles = np.arange(n_cells) + 0.5
    axes = [start + step * middles for start, step in zip(low, width, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return Grid(points, float(width.prod()))


def renyi_divergence(log_p, log_q, order=1.0, volume=None):
    """Return the Renyi divergence of a density q from a density p, from their logarithms at points.

    D_a(p||q) = log( integral of p^a q^(1 - a) ) / (a - 1), and at order a = 1 its limit, the
    Kullback-Leibler divergence, the integral of p log(p / q) (van Erven and Harremoes 2014,
    arXiv:1206.2459). `volume` is that of a cell where the points are cells of a grid; without it they
    are draws of p, and the result has a standard error. Log-densities are normalised, in nats.
    """
    n = len(log_p)
    if volume is None:
        log_weight = -log_p - math.log(n)
    else:
        log_weight = np.full(n, math.log(volume))
        _warn_if_mass_is_missing(log_p, log_q, log_weight)
    has_mass = log_p > -np.inf
    both = has_mass & (log_q > -np.inf)
    if not both.any() or (order >= 1 and np.any(has_mass & ~both)):
        return Estimate(math.inf, math.inf, 0.0)
    ratio = log_p[both] - log_q[both]
    log_terms = log_weight[both] + log_p[both] + (order - 1) * ratio
    log_total = logsumexp(log_terms)
    size = math.exp(2 * log_total - logsumexp(2 * log_terms))
    if order == 1:
        terms = np.exp(log_terms) * ratio
        value = float(terms.sum())
        variance = max(float(n * np.sum(terms**2) - value**2), 0.0) / (n - 1)
        error = math.sqrt(variance)
    else:
        value = float(log_total) / (order - 1)
        # The relative error of the mean is the error of its logarithm.
        error = math.sqrt(max(n / size - 1, 0.0) / (n - 1)) / abs(order - 1)
    return Estimate(value, error if volume is None else 0.0, size)


def _warn_if_mass_is_missing(log_p, log_q, log_volume):
    p, q = (math.exp(min(logsumexp(log + log_volume), 700.0)) for log in (log_p, log_q))
    if abs(p - 1) > 0.01 or q > 1.01:
        warnings.warn(
            f"on the grid p has mass {p:.4g} and q has {q:.4g}; expected 1, and at most 1 for q. Use a "
            "wider or a finer grid, or normalise the densities on it.",
            stacklevel=3,
        )
