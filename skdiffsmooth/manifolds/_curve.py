"""A parametric curve, tabulated once, with projections to rounding.

The curve is cut into panels, on each of which it is a Chebyshev series of degree 24: unlike those
of a spline, its derivatives are nearly as accurate as its values, and the foot of a perpendicular,
(x - c(t)) . c'(t) = 0, is found from derivatives. A panel is halved until the series through half
of its nodes predicts the other half.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev

from .._hull import AffineHull
from .._validation import check_real, check_real_array
from ._base import Constants, SmoothManifoldBase, across_border, in_double, tiles

__all__ = ["Curve"]

DEGREE = 24
FIRST_PANELS = 8
MOST_PANELS = 1024
MOST_HALVINGS = 12
# Points of the table on each panel: several for each turn that half the degree can resolve.
CELLS = 32
# Local minima of the table that are followed to the end. Where four branches of the curve are
# equally near up to a squared cell, the nearest may be missed by as little.
CANDIDATES = 3
# Newton's method doubles the digits: on a dozen random curves six steps left nothing but rounding.
# Bisection, its safeguard, acts in the first.
ITERATIONS = 8
# Speeds are compared up to this, relative to the largest.
JUMP = 1e-6
STANDSTILL = 1e-8
# Points between which the reach is estimated.
REACH_POINTS = 2048

# Chebyshev-Lobatto nodes, upwards, and the matrix that takes values there to coefficients. Every
# second node is a node of half the degree.
NODES = -np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)
TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(NODES, DEGREE))
PREDICTION = chebyshev.chebvander(NODES[1::2], DEGREE // 2) @ np.linalg.inv(
    chebyshev.chebvander(NODES[::2], DEGREE // 2)
)


def _derivative(degree: int) -> np.ndarray:
    """Return the matrix that takes Chebyshev coefficients to those of the derivative."""
    matrix = np.zeros((degree + 1, degree + 1))
    matrix[:-1] = chebyshev.chebder(np.eye(degree + 1))
    return matrix


class _Foot(NamedTuple):
    """Where on the curve the nearest points are: hull coordinates, panel, place on it, at an end."""

    points: torch.Tensor
    panel: torch.Tensor
    place: torch.Tensor
    at_end: torch.Tensor


class Curve(SmoothManifoldBase):
    """A smooth curve, open or closed, given by a function of one parameter.

    Parameters
    ----------
    function : callable
        Takes parameters, an ndarray of shape (n,), and returns points, (n, d), in units of X. It is
        called at construction only. Smooth, with a speed that does not vanish.
    start, stop : float
        The range of the parameter.
    closed : bool, default=False
        Whether the end joins the start, smoothly. The end points of an open curve are points of it.
    tolerance : float, default=1e-10
        Error of the half-degree series at which a panel is accepted, in units of the curve's
        largest distance from its mean. The error of the full series is far smaller, commonly
        rounding.
    memory_limit : float, default=64
        MiB of temporaries; more is hardly faster.

    Attributes
    ----------
    error : float
        The largest error of a half-degree series that was measured, in the same units: a bound with
        room to spare.
    n_panels : int
        How many there are.
    range : tuple of float
        start and stop.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a parameter is out of range, the function does not return finite points, the curve has a
        corner, a jump or a standstill that is found, or the tolerance is not reached with 1024
        panels or 12 halvings of one; the message gives the error that was.

    Notes
    -----
    A query is compared with a table of 32 points a panel; the three lowest of the local minima are
    followed by eight steps of Newton's method for the Chebyshev series of the squared distance,
    kept within their cells by bisection; the nearest of the three wins. Projections are exact to
    some 1e-13 of the size of the curve, away from centers of curvature, where they are as
    ill-conditioned as the problem. At points with several nearest ones, one of them is the answer.
    The projection to an end point does not move with the query: its derivative is 0.

    Everything happens in the affine hull of the curve, of dimension r, to rounding. n projections
    cost O(n d r) for the way there and back, and O(n r n_panels) for the table. Tensors of lower
    precision are computed in double, where the device has that.

    References
    ----------
    Trefethen, Approximation Theory and Approximation Practice, 2013. Federer, Curvature measures,
    1959, Theorem 4.18, for the reach.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.manifolds import Curve
    >>> ellipse = Curve(
    ...     lambda t: np.stack([2 * np.cos(t), np.sin(t)], axis=1), 0, 2 * np.pi, closed=True
    ... )
    >>> ellipse
    <Curve of dimension 1 in R^2>
    >>> ellipse.project([[3.0, 0.0], [0.0, -2.0]]).round(12) + 0.0
    array([[ 2.,  0.],
           [ 0., -1.]])
    >>> ellipse.distance([[3.0, 0.0], [0.0, -2.0]]).round(12)
    array([1., 1.])
    >>> round(ellipse.reach, 6)
    0.5
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        start: float,
        stop: float,
        closed: bool = False,
        tolerance: float = 1e-10,
        memory_limit: float = 64,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"function={function!r} is not callable; expected t (n,) -> points (n, d)."
            )
        if not isinstance(closed, bool | np.bool_):
            raise TypeError(f"closed={closed!r} has type {type(closed).__name__}; expected a bool.")
        self.range = (
            check_real("start", start, minimum=-np.inf),
            check_real("stop", stop, minimum=-np.inf),
        )
        if not start < stop:
            raise ValueError(
                f"start={start!r} and stop={stop!r}; expected start < stop. Swap them."
            )
        self.closed = bool(closed)
        self.tolerance = check_real("tolerance", tolerance)
        self.memory_limit = check_real("memory_limit", memory_limit, hint="It is in MiB.")
        edges, values, self.error = self._tabulate(function)
        self.n_panels = len(edges)
        self._hull = AffineHull.of(values.reshape(-1, values.shape[2]))
        coordinates = (values - self._hull.center) @ self._hull.basis
        coefficients = np.einsum("kj,pjr->pkr", TO_COEFFICIENTS, coordinates)
        self._check_speed(edges, coefficients)
        self._build_table(edges, coefficients)

    # ------------------------------------------------------------------------------ construction

    def _tabulate(
        self, function: Callable[[np.ndarray], Any]
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the ends of panels, (p, 2), values at their nodes, (p, 25, d), and the error."""
        marks = np.linspace(*self.range, FIRST_PANELS + 1)
        waiting = np.stack([marks[:-1], marks[1:]], axis=1)
        accepted: list[tuple[np.ndarray, np.ndarray]] = []
        n_accepted, worst, scale = 0, 0.0, 0.0
        for halvings in range(MOST_HALVINGS + 1):
            middle, half = waiting.mean(axis=1), np.diff(waiting, axis=1) / 2
            t = np.clip(middle[:, None] + half * NODES, *self.range)
            values = _evaluate(function, t.ravel()).reshape(*t.shape, -1)
            if halvings == 0:
                center = values.mean(axis=(0, 1))
                scale = float(np.linalg.norm(values - center, axis=2).max()) or 1.0
            missed = PREDICTION @ values[:, ::2] - values[:, 1::2]
            error = np.linalg.norm(missed, axis=2).max(axis=1) / scale
            fine = error <= self.tolerance
            accepted.append((waiting[fine], values[fine]))
            n_accepted += int(fine.sum())
            worst = max(worst, float(error[fine].max(initial=0.0)))
            if fine.all():
                break
            rough, middle = waiting[~fine], middle[~fine, None]
            waiting = np.concatenate(
                [np.hstack([rough[:, :1], middle]), np.hstack([middle, rough[:, 1:]])]
            )
            if halvings == MOST_HALVINGS or n_accepted + len(waiting) > MOST_PANELS:
                where = rough[error[~fine].argmax()].mean()
                raise ValueError(
                    f"the curve is not smooth enough near t={where:.6g}: the interpolation error "
                    f"there is {error.max():.3g} of the curve's size after {halvings} halvings; "
                    f"expected at most tolerance={self.tolerance:g}. Cut it into smooth pieces, "
                    "or raise tolerance."
                )
        edges, values = (np.concatenate(parts) for parts in zip(*accepted, strict=True))
        order = np.argsort(edges[:, 0])
        return edges[order], values[order], worst

    def _check_speed(self, edges: np.ndarray, coefficients: np.ndarray) -> None:
        """Raise where the curve stands still, or where it or its velocity jumps between panels."""
        velocity = np.einsum("lk,pkr->plr", _derivative(DEGREE), coefficients)
        velocity *= 2 / np.diff(edges, axis=1)[:, :, None]
        places = chebyshev.chebvander(np.linspace(-1, 1, CELLS + 1), DEGREE)
        points, velocities = (np.einsum("ck,pkr->pcr", places, c) for c in (coefficients, velocity))
        speed = np.linalg.norm(velocities, axis=2)
        fastest = speed.max()
        if speed.min() <= STANDSTILL * fastest:
            panel, cell = np.unravel_index(speed.argmin(), speed.shape)
            t = edges[panel] @ [1 - cell / CELLS, cell / CELLS]
            raise ValueError(
                f"the curve stands still at t={t:.6g}, where it has no tangent; expected a speed "
                "above 0. Pass another parametrisation, or another range."
            )
        joints = (points[:, 0], points[:, -1]), (velocities[:, 0], velocities[:, -1])
        sizes = np.linalg.norm(points, axis=2).max(), fastest
        for what, (first, last), size in zip(("position", "velocity"), joints, sizes, strict=True):
            # The end of each panel against the start of the next: cyclic where the curve is closed.
            jumps = np.linalg.norm(np.roll(first, -1, axis=0) - last, axis=1)
            jumps = jumps if self.closed else jumps[:-1]
            if jumps.max(initial=0.0) > JUMP * size:
                t = edges[jumps.argmax(), 1]
                raise ValueError(
                    f"the {what} of the curve jumps by {jumps.max() / size:.3g} of its size at "
                    f"t={t:.6g}; expected a smooth curve. Cut it there, or pass closed=False if "
                    "its ends do not meet."
                )

    def _build_table(self, edges: np.ndarray, coefficients: np.ndarray) -> None:
        """Store all that projections need, in hull coordinates."""
        n_panels = len(edges)
        origins, series = coefficients[:, 0], coefficients[:, 1:]
        # Half the squared distance from the origin of each panel, a series of twice the degree.
        fine = -np.cos(np.pi * np.arange(2 * DEGREE + 1) / (2 * DEGREE))
        relative = np.einsum("jk,pkr->pjr", chebyshev.chebvander(fine, DEGREE)[:, 1:], series)
        half_squares = np.sum(relative**2, axis=2) / 2
        half_squares = half_squares @ np.linalg.inv(chebyshev.chebvander(fine, 2 * DEGREE)).T
        # Cells, in order; the far end of an open curve is one more point, at the end of the last
        # cell.
        place = np.tile(np.linspace(-1, 1, CELLS, endpoint=False), n_panels)
        panel = np.repeat(np.arange(n_panels), CELLS)
        if not self.closed:
            place, panel = np.append(place, 1.0), np.append(panel, n_panels - 1)
        basis = chebyshev.chebvander(place, DEGREE)
        points = np.einsum("mk,mkr->mr", basis, coefficients[panel])
        velocities = np.einsum("mk,mkr->mr", basis @ _derivative(DEGREE), coefficients[panel])
        self._constants = Constants(
            *(self._hull.center, self._hull.basis, edges, origins, series, half_squares),
            *(place, panel, points, velocities, np.sum(points**2, axis=1)),
        )
        self._derivatives = Constants(_derivative(DEGREE), _derivative(2 * DEGREE))

    # ---------------------------------------------------------------------------------- promises

    @property
    def n_features(self) -> int:
        """Dimension d of the space around it."""
        return self._hull.n_features

    @property
    def affine_hull(self) -> AffineHull:
        """The smallest affine subspace that holds the curve, to rounding."""
        return self._hull

    @property
    def dimension(self) -> int:
        """One."""
        return 1

    @cached_property
    def reach(self) -> float:
        """An estimate of the reach, not below the true one but for rounding.

        The smaller of the least radius of curvature, and of |q - p|^2 / (2 dist(q - p, T_p)) over
        pairs of points (Federer), T_p the tangent line at p, or half of it at an end point; over
        the table, or 2048 of its points.
        """
        *_, place, panel, points, velocities, _ = self._constants.like(
            torch.empty(0, dtype=torch.float64)
        )
        acceleration = self._at(panel, place, 2)
        tangents = velocities / torch.linalg.vector_norm(velocities, dim=1, keepdim=True)
        bend = acceleration - (acceleration * tangents).sum(1, keepdim=True) * tangents
        radii = (velocities**2).sum(1) / torch.linalg.vector_norm(bend, dim=1)
        chosen = torch.linspace(0, len(points) - 1, min(len(points), REACH_POINTS)).round().long()
        p, tangents, smallest = points[chosen], tangents[chosen], float(radii.min())
        for i in range(len(p)):
            chord = p - p[i]
            along = chord @ tangents[i]
            if not self.closed and i in (0, len(p) - 1):
                along = along.clamp(min=0) if i == 0 else along.clamp(max=0)
            across = torch.linalg.vector_norm(chord - along[:, None] * tangents[i], dim=1)
            # Chords of neighbours are straight up to rounding; the curvature has seen to those.
            bent = across > 1e-6 * torch.linalg.vector_norm(chord, dim=1)
            ratios = (chord[bent] ** 2).sum(1) / (2 * across[bent])
            smallest = min(smallest, float(ratios.min())) if len(ratios) else smallest
        return smallest

    def points(self, t: Any) -> np.ndarray:
        """Return the points at parameters.

        Parameters
        ----------
        t : array-like of shape (n,)
            Parameters in the range of the curve; for a closed curve any, modulo the range.

        Returns
        -------
        ndarray of shape (n, d)
            As the table has them.

        Raises
        ------
        ValueError
            If t is not one-dimensional and finite, or is out of the range of an open curve.
        """
        t = check_real_array("t", t)
        start, stop = self.range
        if t.ndim != 1 or not np.all(np.isfinite(t)):
            raise ValueError(
                f"t of shape {t.shape} is no finite array of shape (n,); pass t.ravel()."
            )
        if self.closed:
            t = start + np.mod(t - start, stop - start)
        elif np.any((t < start) | (t > stop)):
            raise ValueError(
                f"t ranges from {t.min():g} to {t.max():g}; expected {start:g} to {stop:g}, for "
                "the curve is open. Clip it."
            )
        like = torch.empty(0, dtype=torch.float64)
        center, basis, edges, *_ = self._constants.like(like)
        tensor = torch.from_numpy(t)
        panel = torch.searchsorted(edges[:, 0].contiguous(), tensor, right=True) - 1
        left, right = edges[panel].T
        place = (2 * tensor - left - right) / (right - left)
        return (center + self._at(panel, place, 0) @ basis.T).numpy()

    def parameter(self, X: Any) -> Any:
        """Return the parameters of the nearest points.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or torch.Tensor of shape (n,)

        Raises
        ------
        ValueError
            As `project`.
        """
        return across_border(self._parameter, X, self.n_features)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        center, basis, *_ = self._constants.like(in_double(x))
        return torch.addmm(center, self._foot(x).points, basis.T).to(x.dtype)

    def _tangent(self, x: torch.Tensor) -> torch.Tensor:
        _, basis, *_ = self._constants.like(in_double(x))
        foot = self._foot(x)
        velocity = self._at(foot.panel, foot.place, 1)
        direction = velocity / torch.linalg.vector_norm(velocity, dim=1, keepdim=True)
        return (direction @ basis.T)[:, :, None].to(x.dtype)

    def _projection_derivative(self, x: torch.Tensor) -> torch.Tensor:
        center, basis, *_ = self._constants.like(in_double(x))
        foot = self._foot(x)
        velocity, acceleration = (self._at(foot.panel, foot.place, order) for order in (1, 2))
        squared = (velocity**2).sum(dim=1)
        bend = (((in_double(x) - center) @ basis - foot.points) * acceleration).sum(dim=1)
        # Zero at a center of curvature, where the derivative is infinite; it stays a number.
        remaining = torch.maximum(squared - bend, torch.finfo(x.dtype).eps * squared)
        ratio = torch.where(foot.at_end, 0.0, squared / remaining)
        return ratio[:, None, None].to(x.dtype)

    def _parameter(self, x: torch.Tensor) -> torch.Tensor:
        edges = self._constants.like(in_double(x))[2]
        foot = self._foot(x)
        left, right = edges[foot.panel].unbind(dim=1)
        return ((left + right) / 2 + foot.place * (right - left) / 2).to(x.dtype)

    # -------------------------------------------------------------------------------- projection

    def _at(self, panel: torch.Tensor, place: torch.Tensor, order: int) -> torch.Tensor:
        """Return points or derivatives with respect to the place on a panel, in hull coordinates."""
        origins, series = self._constants.like(place)[3:5]
        weights = _chebyshev(place, DEGREE)
        for _ in range(order):
            weights = weights @ self._derivatives.like(place)[0]
        bytes_per_row = 8 * DEGREE * series.shape[2] * math.prod(panel.shape[1:])
        values = [
            torch.einsum("...k,...kr->...r", weights[tile][..., 1:], series[panel[tile]])
            for tile in tiles(len(panel), bytes_per_row, self.memory_limit)
        ]
        return torch.cat(values) + origins[panel] if order == 0 else torch.cat(values)

    def _foot(self, x: torch.Tensor) -> _Foot:
        """Find the nearest points, tile by tile."""
        x = in_double(x)
        center, basis, *_, points, _, _ = self._constants.like(x)
        n_table, r = points.shape
        bytes_per_row = x.element_size() * (5 * n_table + CANDIDATES * DEGREE * (2 * r + 12))
        z = (x - center) @ basis
        feet = [
            self._foot_of_tile(z[tile]) for tile in tiles(len(z), bytes_per_row, self.memory_limit)
        ]
        return _Foot(*(torch.cat(parts) for parts in zip(*feet, strict=True)))

    def _foot_of_tile(self, z: torch.Tensor) -> _Foot:
        """Find the nearest points to hull coordinates."""
        panel, low, high, place, at_end = self._cells(z)
        _, _, _, origins, series, half_squares, *_ = self._constants.like(z)
        _, derivative = self._derivatives.like(z)
        offset = z[:, None] - origins[panel]
        # d/du of |z - c(u)|^2 / 2 and its derivative, as series of degree 48 in the place u.
        half_distance = half_squares[panel]
        half_distance[..., 1 : DEGREE + 1] -= torch.einsum("bckr,bcr->bck", series[panel], offset)
        slope = half_distance @ derivative.T
        bend = slope @ derivative.T
        for _ in range(ITERATIONS):
            basis = _chebyshev(place, 2 * DEGREE)
            f, g = (basis * slope).sum(-1), (basis * bend).sum(-1)
            low, high = torch.where(f < 0, place, low), torch.where(f > 0, place, high)
            newton = place - f / torch.where(g > 0, g, 1.0)
            inside = (g > 0) & (newton >= low) & (newton <= high)
            place = torch.where(inside, newton, (low + high) / 2)
        points = self._at(panel, place, 0)
        best = ((z[:, None] - points) ** 2).sum(-1).argmin(dim=1, keepdim=True)
        chosen = (part.gather(1, best)[:, 0] for part in (panel, place, at_end))
        return _Foot(points.gather(1, best[:, :, None].expand(-1, 1, z.shape[1]))[:, 0], *chosen)

    def _cells(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return panels, bounds, first guesses and ends for the cells of the nearest minima."""
        *_, place, panel, points, velocities, squares = self._constants.like(z)
        distances = torch.addmm(squares, z, points.T, alpha=-2)
        if self.closed:
            before, after = distances.roll(1, dims=1), distances.roll(-1, dims=1)
        else:
            beyond = torch.full_like(distances[:, :1], torch.inf)
            before = torch.cat([beyond, distances[:, :-1]], dim=1)
            after = torch.cat([distances[:, 1:], beyond], dim=1)
        minima = torch.where((distances <= before) & (distances <= after), distances, torch.inf)
        index = minima.topk(CANDIDATES, dim=1, largest=False).indices
        # Downhill from the lowest point of the table: the cell after it or the one before it.
        slopes = ((points[index] - z[:, None]) * velocities[index]).sum(-1)
        backward = slopes > 0
        cell = index - backward.long()
        if self.closed:
            cell = cell % len(points)
            at_end = torch.zeros_like(backward)
        else:
            last = len(points) - 1
            at_end = ((index == 0) & backward) | ((index == last) & ~backward)
            cell = cell.clamp(0, last - 1)
        low = place[cell]
        high = low + 2 / CELLS
        guess = torch.where(backward ^ at_end, high, low)
        low, high = torch.where(at_end, guess, low), torch.where(at_end, guess, high)
        return panel[cell], low, high, guess, at_end


def _evaluate(function: Callable[[np.ndarray], Any], t: np.ndarray) -> np.ndarray:
    """Call the user's function and check what it returns."""
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
            "Leave that parameter out of the range."
        )
    return values


def _chebyshev(u: torch.Tensor, degree: int) -> torch.Tensor:
    """Return T_0(u) to T_degree(u) along a new last dimension, for u in [-1, 1]."""
    order = torch.arange(degree + 1, dtype=u.dtype, device=u.device)
    return torch.cos(torch.arccos(u.clamp(-1, 1))[..., None] * order)
