"""`Curve`: a smooth parametric curve, its arc length and reach, and projections to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.cached import cached_property
from .._utils.memory import slices_within
from .._utils.validation import check_flag, check_memory_limit, check_real, check_real_array
from ._base import ManifoldInHull, across_border
from ._cumulative import Cumulative
from ._curve_table import CELLS, TO_COEFFICIENTS, Table, build_table, check_speed, tabulate

# Number of local minima of the table from which Newton's method starts, on devices other than a CPU. If
# four branches of the curve are equally near, up to the square of the length of a cell, the point found
# may be farther than the nearest one by that much.
CANDIDATES = 3
# Newton's method doubles the number of exact digits: on a dozen random curves six steps were exact to
# rounding. The first steps may be bisections, its safeguard.
ITERATIONS = 8
# On a CPU the method ends after steps below this, in units of the machine epsilon of the coordinate.
CONVERGED = 4
# Bound in MiB on distances to the table on a CPU: they are read four times, from the cache if they fit.
CACHE = 1.0
# Largest number of points whose pairs are used to estimate the reach.
REACH_POINTS = 2048


class _Foot(NamedTuple):
    """The nearest points (n, r) in hull coordinates, and their positions on the curve.

    `velocity` and `acceleration` (n, r) are derivatives in the cell coordinate s; `cell` and `s` (n,)
    are the cell and that coordinate; `at_end` (n,) is whether the point is an end of an open curve.
    """

    points: torch.Tensor
    velocity: torch.Tensor
    acceleration: torch.Tensor
    cell: torch.Tensor
    s: torch.Tensor
    at_end: torch.Tensor


class _Nearest(NamedTuple):
    """Queries (n, r) in hull coordinates, their nearest points, and the machine epsilon of X."""

    z: torch.Tensor
    foot: _Foot
    rounding: float


class _Pairs(NamedTuple):
    """Cells to search for nearest points, with the index of the query and a starting value of s.

    `at_end` is whether the distance decreases beyond an end of an open curve.
    """

    row: torch.Tensor
    cell: torch.Tensor
    s: torch.Tensor
    at_end: torch.Tensor


class Curve(ManifoldInHull):
    """A smooth curve, open or closed, given by a function of one parameter.

    Parameters
    ----------
    function : callable
        Takes parameters, an ndarray of shape (n,), and returns points, (n, d), in units of X. It must
        be smooth, and its derivative must not be zero. It is called at construction only.
    start, stop : float
        The range of the parameter.
    closed : bool, default=False
        Whether the end joins the start smoothly. The end points of an open curve belong to it.
    tol : float, default=1e-10
        Largest error of a series of half the degree with which a panel is accepted, in units of the
        curve's largest distance from its mean. The full series has far smaller errors, mostly rounding.
    memory_limit : float, default=64
        Bound on temporaries in MiB. On a CPU at most four are used, since more are not faster.

    Attributes
    ----------
    error : float
        The largest measured error of a series of half the degree, in the units of `tol`; the error of
        the curve is far smaller.
    n_panels : int
        Number of panels, the pieces of the curve with one series each.
    range : tuple of float
        start and stop.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a parameter is out of range, the function does not return finite points, the curve has a
        corner, a jump or a derivative of zero that is detected, or `tol` is not reached with 1024
        panels or 12 halvings of one; the message gives the error that was reached.

    Notes
    -----
    A query is compared with a table of 32 points for each panel, between which the curve is a polynomial
    of about ten terms. From local minima of the distance in this table Newton's method minimises the
    squared distance, with bisection as a safeguard, and the nearest of the points found is the
    projection. On a CPU it starts from all minima that exceed the lowest by at most half the length of
    a cell, and ends when steps are as small as rounding errors. On other devices it always starts from
    three minima and makes eight steps, since the host would have to wait for values that decide on the
    number. Projections are exact to about 1e-13 of the size of the curve, away from centers of
    curvature, where the problem is ill-conditioned. If several points are nearest, one of them is
    returned. The projection to an end point does not move with the query: its derivative is 0.

    Computations are in float64, in coordinates of the affine hull of the curve, of dimension r. n
    projections cost O(n d r) for the change of coordinates, and O(n r n_panels) for the table.

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
        tol: float = 1e-10,
        memory_limit: float = 64,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"function={function!r} is not callable; expected a function of parameters t (n,) that "
                "returns points (n, d)."
            )
        self.range = (
            check_real("start", start, minimum=-np.inf),
            check_real("stop", stop, minimum=-np.inf),
        )
        if not start < stop:
            raise ValueError(
                f"start={start!r} and stop={stop!r}; expected start < stop. Swap them."
            )
        self.closed = check_flag("closed", closed)
        self.tol = check_real("tol", tol)
        self.memory_limit = check_memory_limit(memory_limit)
        edges, values, self.error = tabulate(function, self.range, self.tol)
        self.n_panels = len(edges)
        self._set_hull(AffineHull.of(values.reshape(-1, values.shape[2])))
        coordinates = (values - self._hull.center) @ self._hull.basis
        coefficients = np.einsum("kj,pjr->pkr", TO_COEFFICIENTS, coordinates)
        check_speed(edges, coefficients, closed=self.closed)
        self._table, self._longest = build_table(edges, coefficients, closed=self.closed)

    def _table_like(self, x: torch.Tensor) -> Table:
        return Table(*self._table.like(x))

    # ---------------------------------------------------------------------------------- interface

    @property
    def dimension(self) -> int:
        """Dimension of the curve, which is one."""
        return 1

    @cached_property
    def reach(self) -> float:
        """An estimate of the reach, which is not below the true reach except by rounding.

        It is the minimum of the radii of curvature and of ``|q - p|^2 / (2 dist(q - p, T_p))`` over
        pairs of points (Federer), T_p the tangent line at p, or half of it at an end point. The points
        are those of the table, or 2048 of them.
        """
        table = self._table_like(torch.empty(0, dtype=torch.float64))
        points, velocities, acceleration = table.points, table.series[:, 1], 2 * table.series[:, 2]
        tangents = velocities / torch.linalg.vector_norm(velocities, dim=1, keepdim=True)
        normal = acceleration - (acceleration * tangents).sum(1, keepdim=True) * tangents
        radii = (velocities**2).sum(1) / torch.linalg.vector_norm(normal, dim=1)
        chosen = torch.linspace(0, len(points) - 1, min(len(points), REACH_POINTS)).round().long()
        p, tangents, smallest = points[chosen], tangents[chosen], float(radii.min())
        for i in range(len(p)):
            chord = p - p[i]
            along = chord @ tangents[i]
            if not self.closed and i in (0, len(p) - 1):
                along = along.clamp(min=0) if i == 0 else along.clamp(max=0)
            across = torch.linalg.vector_norm(chord - along[:, None] * tangents[i], dim=1)
            # Chords to neighbours are straight up to rounding; their limit is the radius of curvature.
            compared = across > 1e-6 * torch.linalg.vector_norm(chord, dim=1)
            ratios = (chord[compared] ** 2).sum(1) / (2 * across[compared])
            smallest = min(smallest, float(ratios.min())) if len(ratios) else smallest
        return smallest

    def points(self, t: Any) -> np.ndarray:
        """Return the points (n, d) of the curve at parameters t (n,), from the series.

        Parameters must be in the range of an open curve; for a closed curve they are taken modulo the
        range. Raises ValueError if t is not one-dimensional and finite, or is out of range.
        """
        t = torch.from_numpy(self._check_parameters(t))
        center, basis = self._constants.like(t)
        return (center + self._at(t, 0)[0] @ basis.T).numpy()

    @property
    def length(self) -> float:
        """Length of the whole curve, in units of X."""
        return self._lengths.total

    def speed(self, t: Any) -> np.ndarray:
        """Return the norms (n,) of the derivative at t (n,); t and errors are those of `points`."""
        return self._speed(self._check_parameters(t))

    def arc_length(self, t: Any) -> np.ndarray:
        """Return lengths (n,) from the start to t (n,), in units of X; t, errors as for `points`."""
        return self._lengths(self._check_parameters(t))

    def parameter_at(self, length: Any) -> np.ndarray:
        """Return the parameters at given lengths from the start, the inverse of `arc_length`.

        Parameters
        ----------
        length : array-like of shape (n,)
            Lengths in units of X, from 0 to that of the curve; for a closed curve taken modulo that.

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        ValueError
            If a length is not finite, or out of the range of an open curve.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth.manifolds import Curve
        >>> parabola = Curve(lambda t: np.stack([t, t**2], axis=1), 0, 1)
        >>> round(parabola.length, 6)
        1.478943
        >>> parabola.parameter_at([0.0, parabola.length / 2]).round(6)
        array([0.      , 0.610739])
        """
        return self._lengths.inverse(
            _check_range("length", length, (0.0, self.length), self.closed)
        )

    @cached_property
    def _lengths(self) -> Cumulative:
        """The arc length from the start as a function of the parameter."""
        starts = self._table_like(torch.empty(0, dtype=torch.float64)).starts.numpy()
        edges = np.append(starts[: self.n_panels * CELLS : CELLS], self.range[1])
        return Cumulative(self._speed, edges)

    def _speed(self, t: np.ndarray) -> np.ndarray:
        return torch.linalg.vector_norm(self._at(torch.from_numpy(t), 1)[1], dim=1).numpy()

    def _check_parameters(self, t: Any) -> np.ndarray:
        return _check_range("t", t, self.range, self.closed)

    def _at(self, t: torch.Tensor, order: int) -> list[torch.Tensor]:
        """Return points (n, r) in hull coordinates at parameters (n,), plus `order` derivatives."""
        table = self._table_like(t)
        # An open curve has one more point than cells.
        last = len(table.starts) - (1 if self.closed else 2)
        cell = (torch.searchsorted(table.starts, t, right=True) - 1).clamp(0, last)
        width = (table.ends - table.starts)[cell]
        s = (t - table.starts[cell]) / width
        values = _horner(table.series[cell].unbind(1), s[:, None], order)
        return values[:1] + [derivative / width[:, None] for derivative in values[1:]]

    def parameter(self, X: Any) -> Any:
        """Return the parameters (n,) of the nearest points; X, types and errors as for `project`."""
        return across_border(self._parameter, X, self.n_features)

    def _nearest(self, x: torch.Tensor) -> _Nearest:
        z = self._coordinates(x)
        return _Nearest(z, self._foot(z), torch.finfo(x.dtype).eps)

    def _point(self, nearest: _Nearest) -> torch.Tensor:
        return self._lift(nearest.foot.points)

    def _frame(self, nearest: _Nearest) -> torch.Tensor:
        velocity = nearest.foot.velocity
        _, basis = self._constants.like(velocity)
        unit = velocity / torch.linalg.vector_norm(velocity, dim=1, keepdim=True)
        return (unit @ basis.T)[:, :, None]

    def _ratio(self, nearest: _Nearest) -> torch.Tensor:
        z, foot, rounding = nearest
        squared = (foot.velocity**2).sum(dim=1)
        curvature = ((z - foot.points) * foot.acceleration).sum(dim=1)
        # Bounded below: at a center of curvature this is zero and the derivative infinite.
        remaining = torch.maximum(squared - curvature, rounding * squared)
        return torch.where(foot.at_end, 0.0, squared / remaining)[:, None, None]

    def _parameter(self, x: torch.Tensor) -> torch.Tensor:
        foot = self._nearest(x).foot
        table = self._table_like(foot.s)
        # This interpolation is exact at both ends.
        return torch.lerp(table.starts[foot.cell], table.ends[foot.cell], foot.s).to(x.dtype)

    # -------------------------------------------------------------------------------- projection

    def _foot(self, z: torch.Tensor) -> _Foot:
        """Return the nearest points to hull coordinates z (n, r)."""
        series = self._table_like(z).series
        n_values, limit = 2 * series[0].numel() + 8 * series.shape[2] + 32, self.memory_limit
        if z.is_cpu:
            limit = min(limit, 4 * CACHE)
        else:
            n_values = CANDIDATES * n_values + 5 * len(series)
        feet = [
            self._foot_of_tile(z[tile])
            for tile in slices_within(len(z), z.element_size() * n_values, limit)
        ]
        return _Foot(*(torch.cat(parts) for parts in zip(*feet, strict=True)))

    def _foot_of_tile(self, z: torch.Tensor) -> _Foot:
        """Return `_foot` for a tile of rows: the nearest of the minima in the cells searched."""
        pairs = self._pairs(z, *(self._near_minima(z) if z.is_cpu else self._lowest_minima(z)))
        series = self._table_like(z).series[pairs.cell]
        at = self._minimize(z, pairs, series)
        points, velocity, half_acceleration = _horner(series.unbind(1), at[:, None], 2)
        best = _smallest(((z[pairs.row] - points) ** 2).sum(1), pairs.row, len(z))
        feet = points, velocity, 2 * half_acceleration, pairs.cell, at, pairs.at_end
        return _Foot(*(part[best] for part in feet))

    def _distances(self, z: torch.Tensor) -> torch.Tensor:
        """Return squared distances of z (n, r) from the points of the table, minus |z|^2."""
        return torch.nn.functional.pad(z, (0, 1), value=1.0) @ self._table_like(z).factors

    def _near_minima(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the query and the table index of each local minimum that may be near a projection."""
        n_table = len(self._table_like(z).points)
        limit = min(self.memory_limit, CACHE)
        minima = []
        for tile in slices_within(len(z), z.element_size() * n_table, limit):
            row, index = self._near_minima_of_tile(z[tile])
            minima.append((row + tile.start, index))
        rows, indices = zip(*minima, strict=True)
        return torch.cat(rows), torch.cat(indices)

    def _near_minima_of_tile(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `_near_minima` for a tile of rows.

        In a cell of length l with ends at distances a <= b no point is nearer than (a + b - l) / 2.
        """
        distances = self._distances(z)
        squares = (z**2).sum(1)
        lowest = distances.amin(1)
        nearest = (lowest + squares).clamp(min=0).sqrt()
        # The lowest minimum is kept even if rounding or overflow makes the bound lower.
        bound = torch.fmax((nearest + self._longest / 2) ** 2 - squares, lowest)
        flat, width = distances.flatten(), distances.shape[1]
        position = torch.nonzero((distances <= bound[:, None]).flatten())[:, 0]
        row = position // width
        index = position - row * width
        before, after = index - 1, index + 1
        if self.closed:
            before, after = before % width, after % width
        else:
            before, after = before.clamp(min=0), after.clamp(max=width - 1)
        here, start = flat[position], row * width
        is_minimum = (here <= flat[start + before]) & (here <= flat[start + after])
        return row[is_minimum], index[is_minimum]

    def _lowest_minima(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the query and the table index of the three lowest local minima of each query."""
        distances = self._distances(z)
        if self.closed:
            before, after = distances.roll(1, dims=1), distances.roll(-1, dims=1)
        else:
            beyond = torch.full_like(distances[:, :1], torch.inf)
            before = torch.cat([beyond, distances[:, :-1]], dim=1)
            after = torch.cat([distances[:, 1:], beyond], dim=1)
        minima = torch.where((distances <= before) & (distances <= after), distances, torch.inf)
        index = minima.topk(CANDIDATES, dim=1, largest=False).indices
        row = torch.arange(len(distances), device=distances.device)[:, None].expand_as(index)
        return row.flatten(), index.flatten()

    def _pairs(self, z: torch.Tensor, row: torch.Tensor, index: torch.Tensor) -> _Pairs:
        """Return, for points of the table, the adjacent cells in which the distance decreases."""
        table = self._table_like(z)
        points = table.points
        backward = ((points[index] - z[row]) * table.series[index, 1]).sum(1) > 0
        if self.closed:
            at_end = torch.zeros_like(backward)
            cell = (index - backward.long()) % len(points)
        else:
            at_end = torch.where(backward, index == 0, index == len(points) - 1)
            cell = index - (backward & ~at_end).long()
        return _Pairs(row, cell, (backward & ~at_end).to(z.dtype), at_end)

    def _minimize(self, z: torch.Tensor, pairs: _Pairs, series: torch.Tensor) -> torch.Tensor:
        """Return the coordinates in cells at which the distance is smallest, by Newton's method."""
        table = self._table_like(z)
        order = torch.arange(1, series.shape[1], dtype=z.dtype, device=z.device)
        offset = z[pairs.row] - table.points[pairs.cell]
        # Half the slope of the squared distance, (c(s) - z) . c'(s), as a series in s.
        along = torch.einsum("pkr,pr->pk", series[:, 1:], offset)
        terms = (table.slopes[pairs.cell] - order * along).T.contiguous().unbind(0)
        s = pairs.s
        low = torch.zeros_like(s)
        high = (~pairs.at_end).to(s.dtype)
        smallest = CONVERGED * torch.finfo(s.dtype).eps
        for _ in range(ITERATIONS):
            slope, curvature = _horner(terms, s, 1)
            low, high = torch.where(slope < 0, s, low), torch.where(slope > 0, s, high)
            newton = s - slope / torch.where(curvature > 0, curvature, 1.0)
            inside = (curvature > 0) & (newton >= low) & (newton <= high)
            before, s = s, torch.where(inside, newton, (low + high) / 2)
            if s.is_cpu and not ((s - before).abs() > smallest).any():
                break
        return s


def _check_range(name: str, value: Any, limits: tuple[float, float], closed: bool) -> np.ndarray:
    """Check parameters or lengths and return them, for a closed curve modulo its range."""
    value = check_real_array(name, value)
    start, stop = limits
    if value.ndim != 1 or not np.all(np.isfinite(value)):
        raise ValueError(
            f"{name} of shape {value.shape} is not a finite array of shape (n,). Pass {name}.ravel(), "
            "without NaN or infinity."
        )
    if closed:
        inside = (value >= start) & (value <= stop)
        return np.where(inside, value, start + np.mod(value - start, stop - start))
    if np.any((value < start) | (value > stop)):
        raise ValueError(
            f"{name} ranges from {value.min():g} to {value.max():g}; expected {start:g} to "
            f"{stop:g}, since the curve is open. Clip it."
        )
    return value


def _horner(terms: Sequence[torch.Tensor], s: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Return the value of a series in s and its derivatives, the n-th divided by n!."""
    values = [terms[-1]] + [torch.zeros_like(terms[-1])] * order
    for term in reversed(terms[:-1]):
        for i in range(order, 0, -1):
            values[i] = torch.addcmul(values[i - 1], values[i], s)
        values[0] = torch.addcmul(term, values[0], s)
    return values


def _smallest(values: torch.Tensor, row: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Return for each row the index of its smallest value; every row must have a value."""
    least = values.new_full((n_rows,), torch.inf).scatter_reduce(0, row, values, "amin")
    # No boolean mask: the host would have to wait for its size.
    index = torch.arange(len(row), device=row.device).where(values <= least[row], 0)
    return index.new_zeros(n_rows).scatter_reduce(0, row, index, "amax")
