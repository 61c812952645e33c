"""Spheres of any dimension, tori, swiss rolls and affine subspaces."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .._utils.validation import check_integer, check_real
from ..manifolds import AffineSubspace, Curve, ProductManifold, Sphere, Torus
from ._charts import BoxChart, CurveChart, ProductChart, SphereChart, TorusChart
from ._distributions import resolve_distribution
from ._shape import Shape, frame


def sphere(
    n_components: int = 2,
    radius: float = 1.0,
    *,
    distribution: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
) -> Shape:
    """Return a sphere of any dimension.

    Parameters
    ----------
    n_components : int, default=2
        Dimension k >= 1 of the sphere.
    radius : float, default=1.0
        In units of X. It is the reach of the sphere.
    distribution : str or Distribution, default="uniform"
        "uniform"; "discontinuous", three times as dense below the equator of the first coordinate as
        above. An object is a distribution of the fraction of the volume below a height along the first
        coordinate; on a circle (k = 1) the fraction is the angle in turns, and "von-mises" is allowed.
    n_features : int, optional
        Dimension d > k of the rows, in which the shape is rotated at random; None leaves it in
        R^(k + 1), not rotated.
    frame_state : int, default=0
        As for `circle`.

    Returns
    -------
    Shape
        Its manifold is a `Sphere`.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Notes
    -----
    A draw needs k quantiles of beta distributions, some microseconds each.

    Examples
    --------
    >>> from skdiffsmooth.datasets import sphere
    >>> shape = sphere(n_features=5)
    >>> shape.n_features, shape.n_components, round(shape.volume, 4)
    (5, 2, 12.5664)
    """
    k = check_integer("n_components", n_components)
    _, distribution = resolve_distribution(distribution, ("uniform",), closed=k == 1)
    basis = frame(k + 1, n_features, frame_state)
    manifold = Sphere(np.zeros(len(basis)), radius, basis)
    return Shape(manifold, SphereChart(manifold), distribution)


def torus(
    radius: float = 1.0,
    tube_radius: float = 0.4,
    *,
    distribution: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
) -> Shape:
    """Return a torus of revolution.

    Parameters
    ----------
    radius : float, default=1.0
        Radius of the circle in the middle of the tube, in units of X.
    tube_radius : float, default=0.4
        Radius of the tube, below `radius`, in units of X.
    distribution : str or Distribution, default="uniform"
        "uniform" in area; "parameter", uniform in both angles, which is denser on the inner side;
        "discontinuous", three times as dense on the first half turn about the axis as on the second.
        An object is a distribution of the position in that turn.
    n_features, frame_state
        As for `sphere`; d >= 3.

    Returns
    -------
    Shape
        Its manifold is a `Torus`; the reach is the smaller of `tube_radius` and
        ``radius - tube_radius``.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import torus
    >>> shape = torus()
    >>> shape.n_features, shape.manifold.reach
    (3, 0.4)
    """
    by, distribution = resolve_distribution(distribution, ("uniform", "parameter"), closed=False)
    basis = frame(3, n_features, frame_state)
    manifold = Torus(np.zeros(len(basis)), radius, tube_radius, basis)
    return Shape(manifold, TorusChart(manifold, by), distribution)


def swiss_roll(
    radius: float = 1.0,
    height: float = 1.5,
    *,
    distribution: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
) -> Shape:
    """Return a swiss roll: a flat rectangle, rolled up along the spiral r = c t.

    The angle t is from 1.5 pi to 4.5 pi, as in scikit-learn's roll, which has ``radius=4.5 * numpy.pi,
    height=21, distribution="parameter"``.

    Parameters
    ----------
    radius : float, default=1.0
        Radius of the outer end of the spiral, in units of X; neighbouring turns are 4/9 of it apart.
    height : float, default=1.5
        Height of the roll, in units of X.
    distribution : str or Distribution, default="uniform"
        "uniform" in area; "parameter", uniform in the angle t and the height, so sparser at the outer
        end; "discontinuous", three times as dense on the inner half of the length of the spiral as on
        the outer. An object is a distribution of the position along that length.
    n_features, frame_state
        As for `sphere`; d >= 3. Without rotation the spiral is in the first and the last of three
        columns, and the height, which starts at 0, in the middle one.

    Returns
    -------
    Shape
        Its manifold is the `ProductManifold` of a spiral and a segment, each a `Curve`; its edges
        belong to it.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    See Also
    --------
    sklearn.datasets.make_swiss_roll : The same roll without its density and projection.

    Examples
    --------
    >>> from skdiffsmooth.datasets import swiss_roll
    >>> shape = swiss_roll(n_features=10)
    >>> shape.n_features, shape.n_components
    (10, 2)
    >>> round(shape.manifold.reach, 4), round(shape.volume, 4)
    (0.2201, 9.4828)
    """
    by, distribution = resolve_distribution(distribution, ("uniform", "parameter"), closed=False)
    axes = frame(3, n_features, frame_state)
    pitch = check_real("radius", radius, hint="It is in units of X.") / (4.5 * np.pi)
    spiral, line = partial(_spiral, pitch, axes[:, [0, 2]]), partial(_segment, axes[:, 1])
    height = check_real("height", height, hint="It is in units of X.")
    curve, edge = Curve(spiral, 1.5 * np.pi, 4.5 * np.pi), Curve(line, 0.0, height)
    chart = ProductChart([CurveChart(curve, spiral, by), CurveChart(edge, line)])
    return Shape(ProductManifold(curve, edge), chart, distribution)


def affine_subspace(
    n_components: int = 2,
    *,
    n_features: int = 3,
    scale: float = 1.0,
    offset: float = 1.0,
    distribution: Any = "uniform",
    frame_state: int = 0,
) -> Shape:
    """Return an affine subspace in a random position.

    Parameters
    ----------
    n_components : int, default=2
        Dimension k >= 1 of the subspace.
    n_features : int, default=3
        Dimension d >= k of the rows.
    scale : float, default=1.0
        Half a side of the cube of the rows, or the standard deviation for "gaussian", in units of X.
    offset : float, default=1.0
        Distance of the subspace from zero, in units of X; without effect if k = d.
    distribution : str or Distribution, default="uniform"
        "uniform" in the cube; "gaussian"; "discontinuous", three times as dense in the first half of
        the cube, along its first direction, as in the second. An object is a distribution along that
        direction.
    frame_state : int, default=0
        Seed of the position, separate from the seed of the draws.

    Returns
    -------
    Shape
        Its manifold is an `AffineSubspace`, with an infinite reach; with "gaussian" the volume is
        infinite, too.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import affine_subspace
    >>> shape = affine_subspace(n_features=8)
    >>> shape.n_features, shape.n_components, round(shape.volume, 12)
    (8, 2, 4.0)
    """
    k = check_integer("n_components", n_components)
    hint = "It is at least n_components."
    d = check_integer("n_features", n_features, minimum=k, hint=hint)
    scale = check_real("scale", scale, hint="It is in units of X.")
    offset = check_real("offset", offset, strict=False, hint="It is in units of X.")
    by, distribution = resolve_distribution(distribution, ("uniform", "gaussian"), closed=False)
    axes = frame(min(k + 1, d), d, frame_state)
    origin = offset * axes[:, k] if k < d else np.zeros(d)
    subspace = AffineSubspace.from_basis(origin, axes[:, :k])
    return Shape(subspace, BoxChart(subspace, scale, by), distribution)


# Functions of this module, and not closures, so that shapes can be pickled.


def _spiral(pitch: float, basis: np.ndarray, t: np.ndarray) -> np.ndarray:
    return (pitch * t * np.stack([np.cos(t), np.sin(t)])).T @ basis.T


def _segment(direction: np.ndarray, t: np.ndarray) -> np.ndarray:
    return t[:, None] * direction
