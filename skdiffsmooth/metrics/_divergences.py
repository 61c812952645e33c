"""Renyi divergences, and Kullback and Leibler's among them, from log-densities at points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from .._utils.validation import check_integer, check_real, check_real_array
from .._utils.warnings import warn_user
from ._estimate import Estimate

__all__ = ["Grid", "regular_grid", "renyi_divergence"]

# How far the mass that a grid sees may be from one before it is said.
MASS_TOLERANCE = 0.01


def renyi_divergence(
    log_p: Any, log_q: Any, order: float = 1.0, *, volume: Any = None, log_proposal: Any = None
) -> Estimate:
    """Return the Renyi divergence of a density q from a density p, from their logarithms at points.

    D_a(p||q) = log( integral of p^a q^(1 - a) ) / (a - 1), and at order a = 1 its limit, the
    Kullback-Leibler divergence, the integral of p log(p / q). The integral is a sum over the points:

    - draws of p (neither `volume` nor `log_proposal`): the mean of (p / q)^(a - 1);
    - draws of another density g (`log_proposal`): the mean of p^a q^(1 - a) / g, importance sampling;
    - cells of a grid (`volume`): the sum of p^a q^(1 - a) times the volume of the cells.

    Parameters
    ----------
    log_p, log_q : array-like of shape (n,)
        Log-densities in nats at the points, normalised; minus infinity where a density is zero.
    order : float, default=1.0
        a > 0. Orders above one weigh places where q misses mass of p, most of all large ones; below
        one differences in the bulk count.
    volume : float or array-like of shape (n,), optional
        Volumes of the cells of a grid, as `regular_grid` makes one; not with `log_proposal`.
    log_proposal : array-like of shape (n,), optional
        Log-density, in nats, of the law that the points were drawn from. The best one is near
        p^a q^(1 - a); one with lighter tails than that gives a wrong answer and a small standard error.

    Returns
    -------
    Estimate
        In nats. Infinite where p has mass and q has none, at orders >= 1.

    Raises
    ------
    TypeError, ValueError
        If the arrays differ in length, hold NaN or plus infinity, or a parameter is out of range; if a
        point is said to be drawn where its density is zero.

    Warns
    -----
    UserWarning
        If p has not mass one on the grid, or q more than one, up to one percent.

    See Also
    --------
    fisher_divergence : From score fields, without normalised densities.

    Notes
    -----
    The logarithm of a mean is biased low by half its variance, less than the standard error. At an order
    within 1e-8 of one, but not one, rounding is divided by the difference.

    Costs O(n), after the log-densities.

    References
    ----------
    T. van Erven, P. Harremoes, Renyi Divergence and Kullback-Leibler Divergence, IEEE Transactions on
    Information Theory 60, 2014, arXiv:1206.2459.

    Examples
    --------
    Of N(0, 1) and N(m, 1) the divergence of order a is a m^2 / 2.

    >>> from scipy.stats import norm
    >>> from skdiffsmooth.metrics import regular_grid, renyi_divergence
    >>> grid = regular_grid(-12, 12, 500)
    >>> p, q = norm(0, 1).logpdf(grid.points[:, 0]), norm(1, 1).logpdf(grid.points[:, 0])
    >>> round(renyi_divergence(p, q, 2.0, volume=grid.volume).value, 6)
    1.0
    >>> x = norm(0, 1).rvs(10_000, random_state=0)
    >>> found = renyi_divergence(norm(0, 1).logpdf(x), norm(1, 1).logpdf(x))
    >>> round(found.value, 2), round(found.standard_error, 2)
    (0.52, 0.01)
    """
    order = check_real("order", order)
    log_p, log_q = _log_densities("log_p", log_p), _log_densities("log_q", log_q)
    n = len(log_p)
    _check_length("log_q", log_q, n)
    if volume is not None and log_proposal is not None:
        raise ValueError(
            "volume and log_proposal were both passed; expected one of them: the points are cells of a "
            "grid or draws of a density."
        )
    is_drawn = volume is None
    if is_drawn:
        log_weight = _log_weight_of_draws(log_p, log_proposal)
    else:
        log_weight = _log_volume(volume, n)
        _warn_of_mass(log_p, log_q, log_weight)

    has_mass = log_p > -np.inf
    if order >= 1 and np.any(has_mass & (log_q == -np.inf)):
        return Estimate(math.inf, math.inf, 0.0)
    both = has_mass & (log_q > -np.inf)
    if not both.any():
        return Estimate(math.inf, math.inf, 0.0)
    ratio = log_p[both] - log_q[both]
    # Terms of the sum; those that are not in `both` are zero.
    log_terms = log_weight[both] + log_p[both] + (order - 1) * ratio
    log_total, log_squares = logsumexp(log_terms), logsumexp(2 * log_terms)
    size = math.exp(2 * log_total - log_squares)
    if order == 1:
        terms = np.exp(log_terms) * ratio
        value = float(terms.sum())
        variance = max(float(n * np.sum(terms**2) - value**2), 0.0) / (n - 1) if is_drawn else 0.0
        return Estimate(value, math.sqrt(variance), size)
    value = float(log_total) / (order - 1)
    # The relative error of the mean is the error of its logarithm.
    variance = max(n / size - 1, 0.0) / (n - 1) if is_drawn else 0.0
    return Estimate(value, math.sqrt(variance) / abs(order - 1), size)


@dataclass(frozen=True)
class Grid:
    """The midpoints of equal cells, and the volume of each.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        Midpoints; the last coordinate runs fastest.
    volume : float
        Of a cell, in units of X to the power d.
    """

    points: np.ndarray
    volume: float


def regular_grid(low: Any, high: Any, n_cells: int = 100) -> Grid:
    """Return the midpoints of a grid of equal cells over a box.

    Parameters
    ----------
    low, high : float or array-like of shape (d,)
        Corners of the box.
    n_cells : int, default=100
        Cells along each direction. A cell should be at most half the scale of the narrowest density.

    Returns
    -------
    Grid
        With n_cells ** d points: up to three dimensions are practical.

    Raises
    ------
    TypeError, ValueError
        If the corners differ in length or are not finite, if `high` is not above `low`, or `n_cells` is
        no positive integer.

    Examples
    --------
    >>> from skdiffsmooth.metrics import regular_grid
    >>> grid = regular_grid([0, 0], [1, 2], 2)
    >>> grid.points.tolist(), grid.volume
    ([[0.25, 0.5], [0.25, 1.5], [0.75, 0.5], [0.75, 1.5]], 0.5)
    """
    corners = [np.atleast_1d(check_real_array(n, v)) for n, v in (("low", low), ("high", high))]
    n_cells = check_integer("n_cells", n_cells)
    if corners[0].ndim != 1 or corners[0].shape != corners[1].shape:
        raise ValueError(
            f"low has shape {corners[0].shape} and high {corners[1].shape}; expected (d,) for both."
        )
    width = (corners[1] - corners[0]) / n_cells
    if not np.all((width > 0) & np.isfinite(width)):
        raise ValueError(f"low={low!r} and high={high!r} are no box; expected finite low < high.")
    middles = np.arange(n_cells) + 0.5
    axes = [start + step * middles for start, step in zip(corners[0], width, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return Grid(points, float(width.prod()))


def _log_densities(name: str, values: Any) -> np.ndarray:
    array = check_real_array(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected (n,) with n >= 1.")
    if not np.all(array < np.inf):
        raise ValueError(
            f"{name} holds {int(np.sum(~(array < np.inf)))} values that are NaN or +infinity; expected "
            "log-densities, finite or -infinity."
        )
    return array


def _check_length(name: str, array: np.ndarray, n: int) -> None:
    if len(array) != n:
        raise ValueError(f"{name} has {len(array)} values; expected {n}, as many as log_p.")


def _log_weight_of_draws(log_p: np.ndarray, log_proposal: Any) -> np.ndarray:
    """Return minus the log-density of the law that was drawn from, and minus log n."""
    name = "log_p" if log_proposal is None else "log_proposal"
    drawn_from = log_p if log_proposal is None else _log_densities(name, log_proposal)
    n = len(log_p)
    _check_length(name, drawn_from, n)
    if n < 2:
        raise ValueError("log_p has one value; expected two draws or more, for a standard error.")
    if not np.all(drawn_from > -np.inf):
        raise ValueError(
            f"{name} is -infinity at {int(np.sum(drawn_from == -np.inf))} points, where nothing can "
            "have been drawn. Pass draws of p, or the density that they were drawn from as "
            "log_proposal, or the volume of the cells of a grid."
        )
    return -drawn_from - math.log(n)


def _log_volume(volume: Any, n: int) -> np.ndarray:
    volumes = check_real_array("volume", volume)
    if volumes.shape not in ((), (n,)) or not np.all((volumes > 0) & np.isfinite(volumes)):
        raise ValueError(
            f"volume of shape {volumes.shape} is no number > 0 or array of shape ({n},) of such."
        )
    return np.broadcast_to(np.log(volumes), (n,))


def _warn_of_mass(log_p: np.ndarray, log_q: np.ndarray, log_volume: np.ndarray) -> None:
    p, q = (math.exp(min(logsumexp(log + log_volume), 700.0)) for log in (log_p, log_q))
    if abs(p - 1) > MASS_TOLERANCE or q > 1 + MASS_TOLERANCE:
        warn_user(
            f"on the grid p has mass {p:.4g} and q has {q:.4g}; expected 1, and at most 1 for q. Use a "
            "wider or a finer grid, or normalise the densities on it."
        )
