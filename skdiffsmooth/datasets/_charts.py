"""Charts: maps from the unit cube onto manifolds, with their volume elements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import betainc, betaincinv, gammaln, ndtr, ndtri

from ..manifolds import AffineSubspace, Curve, Sphere, Torus
from ..manifolds._cumulative import Cumulative
from ._distributions import Distribution

TURN = 2 * np.pi


class Chart(ABC):
    """A map from the unit cube of dimension k onto the part of a manifold that rows come from."""

    dimension: int  # Dimension k
    volume: float  # Length, area or volume of the part, in units of X to the k-th power
    closed = False

    @abstractmethod
    def points(self, u: np.ndarray) -> np.ndarray:
        """Return the points (n, d) at coordinates u (n, k) of the cube."""

    @abstractmethod
    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the coordinates (n, k) of points, and the log-volume element |d X / d u| there.

        Points outside the part that rows come from have coordinates outside the cube; the element is a
        number or of shape (n,).
        """

    def even_points(self, n: int, distribution: Distribution) -> np.ndarray:
        """Return n points (n, d) of a curve with equal mass of the distribution between them."""
        if self.dimension > 1:
            raise ValueError(
                f"spacing='even' is not defined for this shape of dimension {self.dimension}; expected "
                "a curve, where all rows can be equally far from the next. Pass 'random'."
            )
        p = (np.arange(n) + (0.0 if self.closed else 0.5)) / n
        return self.points(distribution.quantile(p)[:, None])


class CurveChart(Chart):
    """Chart of a curve: the fraction of its length ("uniform") or of its parameter ("parameter").

    `function` is the function of the `Curve`; its points are exact, unlike those of the curve's table.
    """

    dimension = 1

    def __init__(
        self, curve: Curve, function: Callable[[np.ndarray], np.ndarray], by: str = "uniform"
    ) -> None:
        self.curve, self.function, self.by = curve, function, by
        self.volume, self.closed = curve.length, curve.closed

    def points(self, u: np.ndarray) -> np.ndarray:
        """See `Chart`."""
        start, stop = self.curve.range
        if self.by == "parameter":
            return self.function(start + (stop - start) * u[:, 0])
        return self.function(self.curve.parameter_at(u[:, 0] * self.volume))

    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """See `Chart`."""
        start, stop = self.curve.range
        t = self.curve.parameter(X)
        if self.by == "parameter":
            speed = self.curve.speed(t)
            return (t - start)[:, None] / (stop - start), np.log((stop - start) * speed)
        return self.curve.arc_length(t)[:, None] / self.volume, np.log(self.volume)


class SphereChart(Chart):
    """Chart of a sphere of any dimension, whose coordinates are fractions of volume.

    The first coordinate is the fraction of the volume below the height of the point along the first
    axis. The next is the same on the smaller sphere of all points at that height, along the second
    axis, and so on; the last coordinate is an angle in turns.
    """

    def __init__(self, sphere: Sphere) -> None:
        self.sphere = sphere
        self.dimension = k = sphere.dimension
        self.closed = k == 1
        unit = np.log(2) + (k + 1) / 2 * np.log(np.pi) - gammaln((k + 1) / 2)
        self._log_volume = float(unit + k * np.log(sphere.radius))
        self.volume = float(np.exp(self._log_volume))

    def points(self, u: np.ndarray) -> np.ndarray:
        """See `Chart`."""
        k, rest, columns = self.dimension, np.ones(len(u)), []
        for j in range(k - 1):
            half = (k - j) / 2
            # (1 + height) / 2 has a beta distribution with two equal parameters.
            raised = betaincinv(half, half, u[:, j])
            columns.append(rest * (2 * raised - 1))
            rest = rest * 2 * np.sqrt(raised * (1 - raised))
        angle = TURN * u[:, -1]
        y = np.column_stack([*columns, rest * np.cos(angle), rest * np.sin(angle)])
        return self.sphere.center + self.sphere.radius * (y @ self.sphere.basis.T)

    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """See `Chart`."""
        k, y = self.dimension, (X - self.sphere.center) @ self.sphere.basis
        u = np.empty((len(X), k))
        for j in range(k - 1):
            rest = np.linalg.norm(y[:, j:], axis=1)
            height = y[:, j] / np.where(rest > 0, rest, 1.0)
            half = (k - j) / 2
            u[:, j] = betainc(half, half, np.clip((1 + height) / 2, 0, 1))
        u[:, -1] = np.mod(np.arctan2(y[:, -1], y[:, -2]) / TURN, 1.0)
        return u, self._log_volume


class TorusChart(Chart):
    """Chart of a torus: fractions of the angle about its axis, and of the area or angle of its tube."""

    dimension = 2

    def __init__(self, torus: Torus, by: str = "uniform") -> None:
        self.torus, self.by = torus, by
        self.volume = TURN**2 * torus.radius * torus.tube_radius
        self._area = Cumulative(self._distance_to_axis, np.linspace(0, TURN, 9))

    def _distance_to_axis(self, phi: np.ndarray) -> np.ndarray:
        return self.torus.radius + self.torus.tube_radius * np.cos(phi)

    def points(self, u: np.ndarray) -> np.ndarray:
        """See `Chart`."""
        theta = TURN * u[:, 0]
        if self.by == "parameter":
            phi = TURN * u[:, 1]
        else:
            phi = self._area.inverse(u[:, 1] * self._area.total)
        out = self._distance_to_axis(phi)
        y = np.stack(
            [out * np.cos(theta), out * np.sin(theta), self.torus.tube_radius * np.sin(phi)]
        )
        return self.torus.center + y.T @ self.torus.basis.T

    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """See `Chart`."""
        x, y, z = ((X - self.torus.center) @ self.torus.basis).T
        theta = np.mod(np.arctan2(y, x), TURN)
        phi = np.mod(np.arctan2(z, np.hypot(x, y) - self.torus.radius), TURN)
        if self.by == "parameter":
            log_element = np.log(TURN**2 * self.torus.tube_radius * self._distance_to_axis(phi))
            return np.column_stack([theta, phi]) / TURN, log_element
        fraction = self._area(phi) / self._area.total
        return np.column_stack([theta / TURN, fraction]), np.log(self.volume)


class BoxChart(Chart):
    """Chart of a cube in an affine subspace, of half side `scale`, or of a Gaussian of that std."""

    def __init__(self, subspace: AffineSubspace, scale: float, by: str = "uniform") -> None:
        self.subspace, self.scale, self.by = subspace, scale, by
        self.dimension = subspace.dimension
        self._log_volume = self.dimension * np.log(2 * scale)
        self.volume = np.inf if by == "gaussian" else float(np.exp(self._log_volume))

    def points(self, u: np.ndarray) -> np.ndarray:
        """See `Chart`."""
        # A uniform draw may be zero, whose normal quantile is infinite.
        y = ndtri(np.maximum(u, 1e-300)) if self.by == "gaussian" else 2 * u - 1
        return self.subspace.origin + self.scale * (y @ self.subspace.basis.T)

    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """See `Chart`."""
        y = (X - self.subspace.origin) @ self.subspace.basis / self.scale
        if self.by == "gaussian":
            log_normal = -(y**2).sum(axis=1) / 2 - self.dimension * np.log(TURN) / 2
            return ndtr(y), self.dimension * np.log(self.scale) - log_normal
        return (1 + y) / 2, self._log_volume


class ProductChart(Chart):
    """Chart of a product of manifolds in orthogonal subspaces: the sum of the points of its parts."""

    def __init__(self, parts: Sequence[Chart]) -> None:
        self.parts = parts
        self.dimension = sum(part.dimension for part in parts)
        self.volume = float(np.prod([part.volume for part in parts]))
        self._cuts = np.cumsum([part.dimension for part in parts])[:-1]

    def points(self, u: np.ndarray) -> np.ndarray:
        """See `Chart`."""
        columns = np.split(u, self._cuts, axis=1)
        return np.sum([p.points(c) for p, c in zip(self.parts, columns, strict=True)], axis=0)

    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """See `Chart`."""
        coordinates, logs = zip(*(part.locate(X) for part in self.parts), strict=True)
        return np.concatenate(coordinates, axis=1), sum(logs)
