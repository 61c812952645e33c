"""A table of a curve from which projections are computed exactly up to rounding.

The curve is divided into panels, on each of which it is a Chebyshev series of degree 24. The foot of a
perpendicular, (x - c(t)) . c'(t) = 0, is computed from derivatives, and those of such a series are
nearly as accurate as its values, unlike those of a spline. A panel is halved until the series through
half of its nodes predicts the other half. For searches panels are divided into cells, so short that
about ten terms of a Taylor series equal the curve up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev

from .._utils.validation import check_real_array
from ._base import Constants

DEGREE = 24
FIRST_PANELS = 8
MOST_PANELS = 1024
MOST_HALVINGS = 12
# Cells of each panel: several for each oscillation that half the degree can resolve.
CELLS = 32
# Terms of Taylor series below this are omitted, in units of the length of the longest cell. Four times
# as much, in units of the size of the curve, is enough for its points, but moved projections by 1e-13.
NEGLIGIBLE = np.finfo(float).eps
# Largest jump of positions and velocities between panels, relative to the largest of these, and lowest
# speed, relative to the highest.
JUMP = 1e-6
LOWEST_SPEED = 1e-8
# Chebyshev-Lobatto nodes in increasing order, and the matrix from values there to coefficients. Every
# second node is a node of half the degree; PREDICTION is the matrix from values there to the others.
NODES = -np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)
TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(NODES, DEGREE))
PREDICTION = chebyshev.chebvander(NODES[1::2], DEGREE // 2) @ np.linalg.inv(
    chebyshev.chebvander(NODES[::2], DEGREE // 2)
)


def _derivative(degree: int) -> np.ndarray:
    """Return the matrix that maps Chebyshev coefficients to those of the derivative."""
    matrix = np.zeros((degree + 1, degree + 1))
    matrix[:-1] = chebyshev.chebder(np.eye(degree + 1))
    return matrix


class Table(NamedTuple):
    """Cells of a curve in hull coordinates, each a Taylor series in the cell coordinate s from 0 to 1.

    `starts` and `ends` (n,) are parameters. `points` (n, r) are the curve at s = 0, the first terms of
    `series` (n, terms, r). `slopes` are series of (c(s) - c(0)) . c'(s). (z, 1) times `factors` are
    the squared distances of z from the points, minus |z|^2.
    """

    starts: torch.Tensor
    ends: torch.Tensor
    series: torch.Tensor
    slopes: torch.Tensor
    points: torch.Tensor
    factors: torch.Tensor


def tabulate(
    function: Callable[[np.ndarray], Any], limits: tuple[float, float], tol: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the ends of panels (p, 2), values at their nodes (p, 25, d), and the largest error."""
    marks = np.linspace(*limits, FIRST_PANELS + 1)
    waiting = np.stack([marks[:-1], marks[1:]], axis=1)
    accepted: list[tuple[np.ndarray, np.ndarray]] = []
    n_accepted, worst, scale = 0, 0.0, 0.0
    for halvings in range(MOST_HALVINGS + 1):
        middle, half = waiting.mean(axis=1), np.diff(waiting, axis=1) / 2
        t = np.clip(middle[:, None] + half * NODES, *limits)
        values = _evaluate(function, t.ravel()).reshape(*t.shape, -1)
        if halvings == 0:
            center = values.mean(axis=(0, 1))
            scale = float(np.linalg.norm(values - center, axis=2).max()) or 1.0
        missed = PREDICTION @ values[:, ::2] - values[:, 1::2]
        error = np.linalg.norm(missed, axis=2).max(axis=1) / scale
        fine = error <= tol
        accepted.append((waiting[fine], values[fine]))
        n_accepted += int(fine.sum())
        worst = max(worst, float(error[fine].max(initial=0.0)))
        if fine.all():
            break
        rough, middle = waiting[~fine], middle[~fine, None]
        waiting = np.hstack([rough[:, :1], middle, middle, rough[:, 1:]]).reshape(-1, 2)
        if halvings == MOST_HALVINGS or n_accepted + len(waiting) > MOST_PANELS:
            where = rough[error[~fine].argmax()].mean()
            raise ValueError(
                f"the curve is not smooth enough near t={where:.6g}: the interpolation error "
                f"there is {error.max():.3g} of the curve's size after {halvings} halvings; "
                f"expected at most tol={tol:g}. Cut it into smooth pieces, "
                "by start and stop, or raise tol."
            )
    edges, values = (np.concatenate(parts) for parts in zip(*accepted, strict=True))
    order = np.argsort(edges[:, 0])
    return edges[order], values[order], worst


def check_speed(edges: np.ndarray, coefficients: np.ndarray, *, closed: bool) -> None:
    """Raise an error if the derivative of the curve is zero, or the derivative or the curve jumps."""
    velocity = np.einsum("lk,pkr->plr", _derivative(DEGREE), coefficients)
    velocity *= 2 / np.diff(edges, axis=1)[:, :, None]
    basis = chebyshev.chebvander(np.linspace(-1, 1, CELLS + 1), DEGREE)
    points, velocities = (np.einsum("ck,pkr->pcr", basis, c) for c in (coefficients, velocity))
    speed = np.linalg.norm(velocities, axis=2)
    fastest = speed.max()
    if speed.min() <= LOWEST_SPEED * fastest:
        panel, cell = np.unravel_index(speed.argmin(), speed.shape)
        t = edges[panel] @ [1 - cell / CELLS, cell / CELLS]
        raise ValueError(
            f"the derivative of the curve is zero at t={t:.6g}; expected a speed above 0, so that "
            "there is a tangent. Pass another parametrisation, or another range."
        )
    joints = (points[:, 0], points[:, -1]), (velocities[:, 0], velocities[:, -1])
    sizes = np.linalg.norm(points, axis=2).max(), fastest
    for what, (first, last), size in zip(("position", "velocity"), joints, sizes, strict=True):
        # From the end of each panel to the start of the next, cyclic where the curve is closed.
        jumps = np.linalg.norm(np.roll(first, -1, axis=0) - last, axis=1)
        jumps = jumps if closed else jumps[:-1]
        if jumps.max(initial=0.0) > JUMP * size:
            t = edges[jumps.argmax(), 1]
            raise ValueError(
                f"the {what} of the curve jumps by {jumps.max() / size:.3g} of its size at "
                f"t={t:.6g}; expected a smooth curve. Cut it there, or pass closed=False if "
                "its ends do not meet."
            )


def build_table(
    edges: np.ndarray, coefficients: np.ndarray, *, closed: bool
) -> tuple[Constants, float]:
    """Return the table that projections use, and a bound on the length of its cells."""
    origins = np.linspace(-1, 1, CELLS, endpoint=False)
    series = np.einsum("ckj,pjr->pckr", _taylor(origins), coefficients)
    series = series.reshape(-1, *series.shape[2:])
    starts = (edges[:, :1] + np.diff(edges) * (origins + 1) / 2).ravel()
    ends = np.append(starts[1:], edges[-1, 1])
    if not closed:
        # The end of the curve is one more point of the table, with a cell of length zero.
        series = np.concatenate([series, _taylor(np.ones(1)) @ coefficients[-1]])
        starts, ends = np.append(starts, ends[-1]), np.append(ends, ends[-1])
    sizes = np.linalg.norm(series, axis=2)
    # A bound on the length of cells, since speeds are bounded by sums of the norms of terms.
    longest = float((sizes @ np.arange(DEGREE + 1)).max())
    tails = np.cumsum(sizes[:, ::-1], axis=1)[:, ::-1].max(axis=0)
    n_terms = int(np.count_nonzero(tails > NEGLIGIBLE * longest))
    n_terms = min(max(n_terms, 3), DEGREE + 1)
    series = series[:, :n_terms]
    slopes = np.zeros((len(series), n_terms - 1))
    for i in range(1, n_terms):
        for j in range(1, n_terms - i):
            slopes[:, i + j - 1] += np.sum(series[:, i] * j * series[:, j], axis=1)
    points = np.ascontiguousarray(series[:, 0])
    factors = np.vstack([-2 * points.T, np.sum(points**2, axis=1)])
    table = Constants(starts, ends, np.ascontiguousarray(series), slopes, points, factors)
    return table, longest


def _evaluate(function: Callable[[np.ndarray], Any], t: np.ndarray) -> np.ndarray:
    """Return the points (n, d) that the user's function returns, after checking them."""
    values = check_real_array("function(t)", function(t))
    if values.ndim != 2 or len(values) != len(t) or values.shape[1] == 0:
        raise ValueError(
            f"function returned shape {values.shape} for {len(t)} parameters; expected ({len(t)}, "
            "d). Stack the coordinates with axis=1."
        )
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"function returned NaN or infinity at t={t[~finite][0]:.6g}; expected finite points. "
            "Choose start and stop so that this parameter is outside."
        )
    return values


def _taylor(origins: np.ndarray) -> np.ndarray:
    """Return the matrices (c, 25, 25) from Chebyshev coefficients to Taylor series about origins (c,).

    The unit of the series is the width of a cell.
    """
    rows, derivatives = [], np.eye(DEGREE + 1)
    for order in range(DEGREE + 1):
        rows.append(chebyshev.chebvander(origins, DEGREE) @ derivatives)
        derivatives = _derivative(DEGREE) @ derivatives * (2 / CELLS / (order + 1))
    return np.stack(rows, axis=1)
