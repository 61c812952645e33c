"""Images of a Gaussian bump whose center moves on a circle or in a square."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss

from .._utils.validation import check_choice, check_draw, check_integer, check_real
from ..manifolds import Curve
from ._bump_sheet import BumpSheet, bump_profile
from ._charts import Chart, CurveChart
from ._laws import Uniform, resolve_law
from ._shape import Shape, draw, with_noise

__all__ = ["make_bump_images"]

# Places of a lattice in its cell, and angles by which it is turned, of which the best fit is taken.
PLACES = np.stack(np.meshgrid(*[np.arange(12) / 12] * 2), axis=-1).reshape(-1, 2)
ANGLES = np.arange(1, 6) * np.pi / 36


def make_bump_images(
    n_samples: int = 16,
    *,
    size: int = 64,
    width: float = 0.2,
    radius: float = 0.5,
    centers: str = "circle",
    law: Any = "parameter",
    spacing: str = "even",
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw images of a Gaussian bump that moves on a circle or in a square.

    Images of size x size pixels, spread evenly over [-1, 1]^2 with the outermost on its edge; the
    bump ``exp(-|pixel - center|^2 / (2 width^2))`` has the maximum 1. The defaults are the sixteen
    images of [1]_, Figs. 8 and 12 to 14; ``n_samples=116, centers="square", spacing="lattice"`` are
    those of Fig. 15.

    Parameters
    ----------
    n_samples : int, default=16
        How many images.
    size : int, default=64
        Pixels a side, at least 2.
    width : float, default=0.2
        Standard deviation of the bump, in units of the pixels' coordinates; not below the distance
        2 / (size - 1) of two pixels, where bumps would flicker as they move.
    radius : float, default=0.5
        Of the circle, or half a side of the square, of the centers; at most 1.
    centers : {"circle", "square"}, default="circle"
        Where centers are: a manifold of dimension one or two.
    law : {"parameter", "uniform", "discontinuous", "von-mises"} or Law, default="parameter"
        Uniform in the place of the center. The others are for a circle: uniform in arc length in
        the space of images (not quite the same, for pixels are few and bumps are cut off at the edge);
        three times as dense on the first half of that length; a `VonMises` law of it.
    spacing : {"even", "random", "lattice"}, default="even"
        On a circle even or random; in a square random, or a triangular lattice of centers, the
        widest found that has `n_samples` of them in the square.
    noise : float, default=0.0
        Standard deviation of Gaussian noise in every pixel.
    random_state : int, RandomState or None, default=None
        Seed of draws and noise.
    return_shape : bool, default=False
        Whether to return the `Shape` too.

    Returns
    -------
    X : ndarray of shape (n_samples, size**2)
        Images, line by line; ``X.reshape(-1, size, size)[:, i, j]`` is the pixel at y_i, x_j.
    shape : Shape
        Only with ``return_shape=True``. The manifold of the circle is a `Curve`; that of the square
        has images with centers on the edge of the square as its edge, and projects by Newton's method
        from the nearest of a lattice.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range, or a law or spacing does not go with
        the centers.

    Notes
    -----
    The first call with new parameters tabulates the manifold, half a second for 64 pixels a side. It
    is kept for later ones.

    References
    ----------
    .. [1] T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is
       Geometry Adaptive, NeurIPS 2025, arXiv 2510.02305, appendix G.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_bump_images
    >>> X, shape = make_bump_images(size=16, return_shape=True)
    >>> X.shape, shape.n_components
    ((16, 256), 1)
    >>> X, shape = make_bump_images(
    ...     116, size=16, centers="square", spacing="lattice", return_shape=True
    ... )
    >>> X.shape, shape.n_components, bool(shape.manifold.distance(X).max() < 1e-9)
    ((116, 256), 2, True)
    """
    size = check_integer("size", size, minimum=2)
    hint = "It is in units of the pixels' coordinates, from -1 to 1."
    if check_real("width", width, hint=hint) < 2 / (size - 1):
        raise ValueError(
            f"width={width!r} is below the distance {2 / (size - 1):.3g} of two pixels; expected at "
            "least that. Pass a larger width or size."
        )
    if check_real("radius", radius, hint=hint) > 1:
        raise ValueError(
            f"radius={radius!r} is out of range; expected at most 1, with centers in the image."
        )
    width, radius = float(width), float(radius)
    check_choice("centers", centers, ("circle", "square"))
    if centers == "circle":
        by, law = resolve_law(law, ("uniform", "parameter"), closed=True)
        curve, function = _circle(size, width, radius)
        shape = Shape(curve, CurveChart(curve, function, by), law)
        return draw(shape, n_samples, noise, spacing, random_state, return_shape)
    check_choice("law", law, ("parameter",), hint="Others are for centers='circle'.")
    check_choice("spacing", spacing, ("random", "lattice"), hint="'even' is for centers='circle'.")
    chart = _sheet(size, width, radius)
    shape = Shape(chart.sheet, chart, Uniform())
    if spacing == "random":
        return draw(shape, n_samples, noise, spacing, random_state, return_shape)
    n, rng = check_draw(n_samples, random_state)
    X = chart.sheet.images(radius * triangular_lattice(n))
    return with_noise(X, shape, noise, rng, return_shape)


class SheetChart(Chart):
    """A square of centers.

    Parameters
    ----------
    sheet : BumpSheet
        The manifold.
    """

    dimension = 2

    def __init__(self, sheet: BumpSheet) -> None:
        self.sheet = sheet
        # Areas vary on the scale of the width; as many nodes are far more than that needs.
        nodes, weights = leggauss(64)
        x, y = (sheet.half_side * part.ravel() for part in np.meshgrid(nodes, nodes))
        areas = np.exp(sheet.log_area(np.column_stack([x, y])))
        self.volume = float(sheet.half_side**2 * np.outer(weights, weights).ravel() @ areas)

    def points(self, u: np.ndarray) -> np.ndarray:
        """Return the images at places, shape (n, d)."""
        return self.sheet.images(self.sheet.half_side * (2 * u - 1))

    def locate(self, X: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return places and the logarithm of the area of a unit."""
        centers = self.sheet.centers(X)
        side = 2 * self.sheet.half_side
        return centers / side + 0.5, 2 * np.log(side) + self.sheet.log_area(centers)


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
    """Return the n points of a triangular lattice in [-1, 1]^2, the widest of some that fit.

    Rows along the first axis hold 116 points, for example, but not all numbers. Where they do not, or
    leave much of the square empty, the lattice is turned: its points then come one by one.

    Parameters
    ----------
    n : int
        How many.

    Returns
    -------
    ndarray of shape (n, 2)
        Row by row; the box around them is centered.
    """
    spacing, points = _widest(n, [0.0])
    # 0.9 of what the lattice has that holds as many points in the area of the square.
    if spacing < 0.9 * np.sqrt(8 / np.sqrt(3) / n):
        _, points = max((spacing, points), _widest(n, ANGLES), key=lambda found: found[0])
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    points /= max(np.abs(points).max(), 0.5)
    return points[np.lexsort(points.T.round(9))]


def _widest(n: int, angles: Iterable[float]) -> tuple[float, np.ndarray]:
    """Return the spacing in [-1, 1]^2 and points, of spacing one, of the widest lattice found; or 0."""
    reach = 2 * int(np.sqrt(n)) + 4
    i, j = (part.ravel() for part in np.meshgrid(*[np.arange(-reach, reach + 1)] * 2))
    unit = np.column_stack([i + (j % 2) / 2, j * np.sqrt(3) / 2])
    narrowest, best = np.inf, unit
    for angle in angles:
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for place in PLACES:
            points = (unit + place * [1.0, np.sqrt(3)]) @ turn
            sizes = np.abs(points).max(axis=1)
            order = np.argsort(sizes, kind="stable")[: n + 1]
            # Half a side of the square about zero that holds n points, and of one that holds more.
            half, beyond = sizes[order[-2:]]
            if half < min(narrowest, beyond - 1e-9):
                narrowest, best = half, points[order[:n]]
    return 1 / max(narrowest, 0.5), best
