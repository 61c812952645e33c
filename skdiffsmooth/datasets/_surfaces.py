"""Surfaces and more: spheres of any dimension, tori, swiss rolls, affine subspaces."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.validation import check_integer, check_real
from ..manifolds import AffineSubspace, Curve, ProductManifold, Sphere, Torus
from ._charts import BoxChart, CurveChart, ProductChart, SphereChart, TorusChart
from ._laws import resolve_law
from ._shape import Shape, draw, frame

__all__ = ["make_affine_subspace", "make_sphere", "make_swiss_roll", "make_torus"]


def make_sphere(
    n_samples: int = 100,
    *,
    n_components: int = 2,
    radius: float = 1.0,
    law: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from a sphere of any dimension.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    n_components : int, default=2
        Dimension k >= 1 of the sphere.
    radius : float, default=1.0
        In units of X.
    law : {"uniform", "discontinuous"} or Law, default="uniform"
        Uniform; three times as dense below the equator of the first coordinate as above. Other laws
        of the share of volume below a height along the first coordinate can be passed; on a circle
        (k = 1) the share is the angle, and "von-mises" is known too.
    n_features : int, optional
        Dimension d > k of the rows, in which the shape is turned at random; None leaves it in
        R^(k + 1), unturned.
    frame_state : int, default=0
        Seed of that turn. It is not part of `random_state`, so that other rows lie on the same
        sphere.
    noise : float, default=0.0
        Standard deviation of isotropic Gaussian noise in R^d, in units of X.
    random_state : int, RandomState or None, default=None
        Seed of draws and noise.
    return_shape : bool, default=False
        Whether to return the `Shape` too.

    Returns
    -------
    X : ndarray of shape (n_samples, d)
        Rows.
    shape : Shape
        Only with ``return_shape=True``. The manifold is a `Sphere`, its reach the radius.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Notes
    -----
    Rows come from k uniform numbers through quantiles of beta laws, some microseconds each.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_sphere
    >>> X, shape = make_sphere(200, n_features=5, noise=0.01, return_shape=True, random_state=0)
    >>> X.shape, shape.n_components, round(shape.volume, 4)
    ((200, 5), 2, 12.5664)
    """
    k = check_integer("n_components", n_components)
    _, law = resolve_law(law, ("uniform",), closed=k == 1)
    basis = frame(k + 1, n_features, frame_state)
    sphere = Sphere(np.zeros(len(basis)), radius, basis)
    shape = Shape(sphere, SphereChart(sphere), law)
    return draw(shape, n_samples, noise, "random", random_state, return_shape)


def make_torus(
    n_samples: int = 100,
    *,
    radius: float = 1.0,
    tube_radius: float = 0.4,
    law: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from a torus of revolution.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    radius : float, default=1.0
        Of the circle in the middle of the tube, in units of X.
    tube_radius : float, default=0.4
        Below `radius`, in units of X.
    law : {"uniform", "parameter", "discontinuous"} or Law, default="uniform"
        Uniform in area; in both angles, which is denser inside; three times as dense on the first
        half turn about the axis as on the second. Other laws of that turn can be passed.
    n_features : int, optional
        Dimension d >= 3 of the rows; as for `make_sphere`.
    frame_state : int, default=0
        As for `make_sphere`.
    noise : float, default=0.0
        Standard deviation of isotropic Gaussian noise, in units of X.
    random_state : int, RandomState or None, default=None
        Seed of draws and noise.
    return_shape : bool, default=False
        Whether to return the `Shape` too.

    Returns
    -------
    X : ndarray of shape (n_samples, d)
        Rows.
    shape : Shape
        Only with ``return_shape=True``. The manifold is a `Torus`, its reach the smaller of the
        tube's radius and of the difference of the radii.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_torus
    >>> X, shape = make_torus(200, return_shape=True, random_state=0)
    >>> X.shape, shape.manifold.reach
    ((200, 3), 0.4)
    """
    by, law = resolve_law(law, ("uniform", "parameter"), closed=False)
    basis = frame(3, n_features, frame_state)
    torus = Torus(np.zeros(len(basis)), radius, tube_radius, basis)
    shape = Shape(torus, TorusChart(torus, by), law)
    return draw(shape, n_samples, noise, "random", random_state, return_shape)


def make_swiss_roll(
    n_samples: int = 100,
    *,
    radius: float = 1.0,
    height: float = 1.5,
    law: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from a swiss roll: a flat rectangle, rolled up along the spiral r = c t.

    The angle t runs from 1.5 pi to 4.5 pi as in scikit-learn's roll, whose size is ``radius=4.5 *
    numpy.pi, height=21`` and whose law is ``law="parameter"``: uniform in the angle, and so sparser
    outside. The default law is uniform in area.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    radius : float, default=1.0
        Of the outer end of the spiral, in units of X; turns are 4/9 of it apart.
    height : float, default=1.5
        Of the roll, in units of X.
    law : {"uniform", "parameter", "discontinuous"} or Law, default="uniform"
        Uniform in area; in the angle t and the height; three times as dense on the inner half of the
        length of the spiral as on the outer. Other laws of the length can be passed.
    n_features : int, optional
        Dimension d >= 3 of the rows; as for `make_sphere`.
    frame_state : int, default=0
        As for `make_sphere`.
    noise : float, default=0.0
        Standard deviation of isotropic Gaussian noise, in units of X.
    random_state : int, RandomState or None, default=None
        Seed of draws and noise.
    return_shape : bool, default=False
        Whether to return the `Shape` too.

    Returns
    -------
    X : ndarray of shape (n_samples, d)
        Rows; unturned, the spiral is in the first and the last of three columns and the height in
        the middle one, from 0 on.
    shape : Shape
        Only with ``return_shape=True``. The manifold is the `ProductManifold` of a spiral and a
        segment, each a `Curve`; its edges belong to it.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    See Also
    --------
    sklearn.datasets.make_swiss_roll : The same roll without its density and projection.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_swiss_roll
    >>> X, shape = make_swiss_roll(400, n_features=10, return_shape=True, random_state=0)
    >>> X.shape, shape.n_components
    ((400, 10), 2)
    >>> round(shape.manifold.reach, 4), round(shape.volume, 4)
    (0.2201, 9.4828)
    """
    by, law = resolve_law(law, ("uniform", "parameter"), closed=False)
    axes = frame(3, n_features, frame_state)
    spiral = _Spiral(check_real("radius", radius, hint="It is in units of X."), axes[:, [0, 2]])
    line = _Segment(axes[:, 1])
    height = check_real("height", height, hint="It is in units of X.")
    curve, edge = Curve(spiral, 1.5 * np.pi, 4.5 * np.pi), Curve(line, 0.0, height)
    manifold = ProductManifold(curve, edge)
    chart = ProductChart([CurveChart(curve, spiral, by), CurveChart(edge, line)])
    shape = Shape(manifold, chart, law)
    return draw(shape, n_samples, noise, "random", random_state, return_shape)


def make_affine_subspace(
    n_samples: int = 100,
    *,
    n_components: int = 2,
    n_features: int = 3,
    scale: float = 1.0,
    offset: float = 1.0,
    law: Any = "uniform",
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from an affine subspace in a random position.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    n_components : int, default=2
        Dimension k >= 1 of the subspace.
    n_features : int, default=3
        Dimension d >= k of the rows.
    scale : float, default=1.0
        Half a side of the cube that rows fill, or their standard deviation, in units of X.
    offset : float, default=1.0
        Distance of the subspace from zero, in units of X; without effect if k = d.
    law : {"uniform", "gaussian", "discontinuous"} or Law, default="uniform"
        Uniform in the cube; normal; three times as dense in the first half of the cube, along its
        first direction, as in the second. Other laws along that direction can be passed.
    frame_state : int, default=0
        Seed of the position. It is not part of `random_state`, so that other rows lie in the same
        subspace.
    noise : float, default=0.0
        Standard deviation of isotropic Gaussian noise, in units of X.
    random_state : int, RandomState or None, default=None
        Seed of draws and noise.
    return_shape : bool, default=False
        Whether to return the `Shape` too.

    Returns
    -------
    X : ndarray of shape (n_samples, d)
        Rows.
    shape : Shape
        Only with ``return_shape=True``. The manifold is an `AffineSubspace`, its reach infinite; the
        volume of the normal law is.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_affine_subspace
    >>> X, shape = make_affine_subspace(50, n_features=8, return_shape=True, random_state=0)
    >>> X.shape, shape.n_components, round(shape.volume, 12)
    ((50, 8), 2, 4.0)
    """
    k = check_integer("n_components", n_components)
    hint = "It is at least n_components."
    d = check_integer("n_features", n_features, minimum=k, hint=hint)
    scale = check_real("scale", scale, hint="It is in units of X.")
    offset = check_real("offset", offset, strict=False, hint="It is in units of X.")
    by, law = resolve_law(law, ("uniform", "gaussian"), closed=False)
    axes = frame(min(k + 1, d), d, frame_state)
    origin = offset * axes[:, k] if k < d else np.zeros(d)
    subspace = AffineSubspace.from_basis(origin, axes[:, :k])
    shape = Shape(subspace, BoxChart(subspace, scale, by), law)
    return draw(shape, n_samples, noise, "random", random_state, return_shape)


class _Spiral:
    def __init__(self, radius: float, basis: np.ndarray) -> None:
        self.pitch, self.basis = radius / (4.5 * np.pi), basis

    def __call__(self, t: np.ndarray) -> np.ndarray:
        return (self.pitch * t * np.stack([np.cos(t), np.sin(t)])).T @ self.basis.T


class _Segment:
    def __init__(self, direction: np.ndarray) -> None:
        self.direction = direction

    def __call__(self, t: np.ndarray) -> np.ndarray:
        return t[:, None] * self.direction
