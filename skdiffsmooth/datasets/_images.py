"""Images of a Gaussian bump whose center lies on a circle or in a square."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss

from .._utils.validation import check_choice, check_integer, check_real
from ..manifolds import Curve
from ._bump_sheet import BumpSheet, bump_profile
from ._charts import Chart, CurveChart
from ._distributions import Distribution, Uniform, resolve_distribution
from ._shape import Shape

# Shifts of a lattice within its cell, and rotations, among which the widest spacing is chosen.
SHIFTS = np.stack(np.meshgrid(*[np.arange(12) / 12] * 2), axis=-1).reshape(-1, 2)
ANGLES = np.arange(1, 6) * np.pi / 36
# Images of wider bumps differ by less than a millionth of their values.
_WIDEST = 1e3


def bump_images(
    size: int = 64,
    width: float = 0.2,
    radius: float = 0.5,
    *,
    centers: str = "circle",
    distribution: Any = "parameter",
) -> Shape:
    """Return images of a Gaussian bump with its center on a circle or in a square.

    Images of size x size pixels, whose coordinates are evenly spaced in [-1, 1]^2 with the outermost
    at the edge; the bump ``exp(-|pixel - center|^2 / (2 width^2))`` has the maximum 1. The defaults are
    those of Farghly et al. (NeurIPS 2025, arXiv:2510.02305, appendix G), Figs. 8 and 12 to 14; 116
    evenly spaced images with ``centers="square"`` are those of Fig. 15.

    Parameters
    ----------
    size : int, default=64
        Number of pixels on each side, at least 2.
    width : float, default=0.2
        Standard deviation of the bump, in units of the pixels' coordinates; not below the distance
        2 / (size - 1) of two pixels, where a bump changes its shape as it moves.
    radius : float, default=0.5
        Radius of the circle of centers, or half a side of the square of centers; at most 1.
    centers : {"circle", "square"}, default="circle"
        The set of centers; the images are a manifold of dimension one or two.
    distribution : str or Distribution, default="parameter"
        "parameter", uniform in the position of the center. The others are for a circle only: "uniform"
        in arc length in the space of images (slightly different, since pixels are few and bumps are cut
        off at the edge); "discontinuous", three times as dense on the first half of that length as on
        the second; "von-mises", in that length.

    Returns
    -------
    Shape
        Rows are images, line by line: ``X.reshape(-1, size, size)[:, i, j]`` is the pixel at y_i, x_j.
        The manifold of the circle is a `Curve`. The manifold of the square has an edge, the images
        with centers on the edge of the square; projections are computed by Newton's method from the
        nearest images of a lattice.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range, or the distribution is not available for
        the square.

    Notes
    -----
    The first call with new parameters tabulates the manifold, half a second for 64 pixels a side. The
    table is kept for later calls.

    Examples
    --------
    >>> from skdiffsmooth.datasets import bump_images
    >>> shape = bump_images(size=16)
    >>> shape.n_features, shape.n_components
    (256, 1)
    >>> shape = bump_images(size=16, centers="square")
    >>> X = shape.sample(116, spacing="even")
    >>> shape.n_components, bool(shape.manifold.distance(X).max() < 1e-9)
    (2, True)
    """
    size = check_integer("size", size, minimum=2)
    hint = "It is in units of the pixels' coordinates, from -1 to 1."
    # Images of larger widths are nearly equal.
    width = check_real("width", width, maximum=_WIDEST, hint=hint)
    if width < 2 / (size - 1):
        raise ValueError(
            f"width={width!r} is below the distance {2 / (size - 1):.3g} of two pixels; expected at "
            "least that. Pass a larger width or size."
        )
    radius = check_real("radius", radius, maximum=1, hint=hint)
    check_choice("centers", centers, ("circle", "square"))
    if centers == "circle":
        by, distribution = resolve_distribution(distribution, ("uniform", "parameter"), closed=True)
        curve, function = _circle(size, width, radius)
        return Shape(curve, CurveChart(curve, function, by), distribution)
    hint = "Others are for centers='circle'."
    check_choice("distribution", distribution, ("parameter",), hint=hint)
    chart = _sheet(size, width, radius)
    return Shape(chart.sheet, chart, Uniform())


class SheetChart(Chart):
    """A chart of bump images, whose centers are in a square."""

    dimension = 2

    def __init__(self, sheet: BumpSheet) -> None:
        self.sheet = sheet
        # The area element varies on the scale of the width: 64 nodes a side are far more than enough.
        nodes, weights = leggauss(64)
        x, y = (sheet.half_side * part.ravel() for part in np.meshgrid(nodes, nodes))
        areas = np.exp(sheet.log_area(np.column_stack([x, y])))
        self.volume = float(sheet.half_side**2 * np.outer(weights, weights).ravel() @ areas)

    def points(self, u: np.ndarray) -> np.ndarray:
        """See `Chart`."""
        return self.sheet.images(self.sheet.half_side * (2 * u - 1))

    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """See `Chart`."""
        centers = self.sheet.centers(X)
        side = 2 * self.sheet.half_side
        return centers / side + 0.5, 2 * np.log(side) + self.sheet.log_area(centers)

    def even_points(self, n: int, distribution: Distribution) -> np.ndarray:
        """Return n images with centers on a triangular lattice."""
        return self.sheet.images(self.sheet.half_side * triangular_lattice(n))


class _CircleOfImages:
    def __init__(self, size: int, width: float, radius: float) -> None:
        self.axis, self.width, self.radius = np.linspace(-1, 1, size), width, radius

    def __call__(self, t: np.ndarray) -> np.ndarray:
        x, y = (
            bump_profile(self.axis, self.radius * part, self.width)
            for part in (np.cos(t), np.sin(t))
        )
        return (y[:, :, None] * x[:, None, :]).reshape(len(t), -1)


@lru_cache(maxsize=4)
def _circle(size: int, width: float, radius: float) -> tuple[Curve, _CircleOfImages]:
    function = _CircleOfImages(size, width, radius)
    return Curve(function, 0.0, 2 * np.pi, closed=True), function


@lru_cache(maxsize=4)
def _sheet(size: int, width: float, half_side: float) -> SheetChart:
    return SheetChart(BumpSheet(size, width, half_side))


def triangular_lattice(n: int) -> np.ndarray:
    """Return n points (n, 2) of a triangular lattice in [-1, 1]^2, whose bounding box is centered.

    Among several lattices it is the one with the largest spacing. Rotated ones are tried too, since a
    lattice along the axes does not have every number of points.
    """
    spacing, points = _widest(n, [0.0])
    # Rotations are tried below 0.9 of the spacing of an infinite lattice of the same density.
    if spacing < 0.9 * np.sqrt(8 / np.sqrt(3) / n):
        _, points = max((spacing, points), _widest(n, ANGLES), key=lambda pair: pair[0])
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    points /= max(np.abs(points).max(), 0.5)
    return points[np.lexsort(points.T.round(9))]


def _widest(n: int, angles: Iterable[float]) -> tuple[float, np.ndarray]:
    """Return the largest spacing of n lattice points in [-1, 1]^2, and the points in units of it.

    The spacing is 0 if no lattice has n points in a square.
    """
    n_steps = 2 * int(np.sqrt(n)) + 4
    i, j = (part.ravel() for part in np.meshgrid(*[np.arange(-n_steps, n_steps + 1)] * 2))
    unit = np.column_stack([i + (j % 2) / 2, j * np.sqrt(3) / 2])
    narrowest, best = np.inf, unit
    for angle in angles:
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for shift in SHIFTS:
            points = (unit + shift * [1.0, np.sqrt(3)]) @ rotation
            sizes = np.abs(points).max(axis=1)
            order = np.argsort(sizes, kind="stable")[: n + 1]
            # Half a side of the square about zero that holds n points, and of one that holds more.
            half, beyond = sizes[order[-2:]]
            if half < min(narrowest, beyond - 1e-9):
                narrowest, best = half, points[order[:n]]
    return 1 / max(narrowest, 0.5), best
