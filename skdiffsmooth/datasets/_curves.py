"""Closed curves: circles, ellipses, wavy and rough circles, the lima bean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import bernoulli, comb, factorial

from .._utils.validation import check_integer, check_real, check_real_array
from ..manifolds import Circle, Curve
from ._charts import CurveChart, SphereChart
from ._laws import resolve_law
from ._shape import Shape, draw, frame

__all__ = [
    "make_circle",
    "make_ellipse",
    "make_lima_bean",
    "make_rough_circle",
    "make_wavy_circle",
]

TURN = 2 * np.pi


class PlaneCurve:
    """Points of a curve of the plane, given by a radius at each angle, in a frame of R^d.

    Parameters
    ----------
    radius : callable
        Takes angles (n,), returns distances from the center, (n,) or with one for each axis, (2, n).
    basis : ndarray of shape (d, 2)
        Orthonormal directions of the plane.
    """

    def __init__(self, radius: Callable[[np.ndarray], np.ndarray], basis: np.ndarray) -> None:
        self.radius, self.basis = radius, basis

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Return the points at angles, shape (n, d)."""
        return (self.radius(t) * np.stack([np.cos(t), np.sin(t)])).T @ self.basis.T


def closed_curve(
    radius: Callable[[np.ndarray], np.ndarray],
    stop: float,
    law: Any,
    n_features: Any,
    frame_state: Any,
) -> Shape:
    """Return the shape of a closed curve that a radius describes."""
    by, law = resolve_law(law, ("uniform", "parameter"), closed=True)
    function = PlaneCurve(radius, frame(2, n_features, frame_state))
    curve = Curve(function, 0.0, stop, closed=True)
    return Shape(curve, CurveChart(curve, function, by), law)


def make_circle(
    n_samples: int = 100,
    *,
    radius: float = 1.0,
    law: Any = "uniform",
    spacing: str = "random",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from a circle, in the plane or in a plane of R^d.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    radius : float, default=1.0
        In units of X.
    law : {"uniform", "von-mises", "discontinuous"} or Law, default="uniform"
        Uniform in arc length; a `VonMises` law about the angle 0 (concentration 2); three times as
        dense on the upper half of the circle as on the lower. For other numbers pass
        `VonMises(concentration)` or `PiecewiseConstant(densities)`.
    spacing : {"random", "even"}, default="random"
        Independent rows, or rows with equal shares of the law between them, from angle 0 on: of
        the uniform law, equidistant.
    n_features : int, optional
        Dimension d >= 2 of the rows, in which the shape is turned at random; None leaves it in the
        plane, unturned.
    frame_state : int, default=0
        Seed of that turn. It is not part of `random_state`, so that other rows lie on the same
        circle.
    noise : float, default=0.0
        Standard deviation of isotropic Gaussian noise in R^d, in units of X.
    random_state : int, RandomState or None, default=None
        Seed of draws and noise.
    return_shape : bool, default=False
        Whether to return the `Shape` too, with its manifold, density and fresh rows.

    Returns
    -------
    X : ndarray of shape (n_samples, d)
        Rows.
    shape : Shape
        Only with ``return_shape=True``. The manifold is a `Circle`, its reach the radius.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    See Also
    --------
    make_sphere : The same in more dimensions.
    make_wavy_circle : With a smaller reach.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_circle
    >>> make_circle(4, spacing="even").round(12) + 0.0
    array([[ 1.,  0.],
           [ 0.,  1.],
           [-1.,  0.],
           [ 0., -1.]])
    """
    _, law = resolve_law(law, ("uniform",), closed=True)
    basis = frame(2, n_features, frame_state)
    circle = Circle(np.zeros(len(basis)), radius, basis)
    shape = Shape(circle, SphereChart(circle), law)
    return draw(shape, n_samples, noise, spacing, random_state, return_shape)


def make_ellipse(
    n_samples: int = 100,
    *,
    semi_axes: Any = (1.0, 0.5),
    law: Any = "uniform",
    spacing: str = "random",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from an ellipse.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    semi_axes : sequence of two floats, default=(1.0, 0.5)
        Along the first and the second coordinate, in units of X.
    law : {"uniform", "parameter", "von-mises", "discontinuous"} or Law, default="uniform"
        Uniform in arc length; in the parameter t of (a cos t, b sin t), which is denser where the
        curve bends more; a `VonMises` law about t = 0, in arc length; three times as dense on the
        first half of the length (t < pi) as on the second.
    spacing : {"random", "even"}, default="random"
        Independent rows, or rows with equal shares of the law between them.
    n_features : int, optional
        As for `make_circle`.
    frame_state : int, default=0
        As for `make_circle`.
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
        Only with ``return_shape=True``. The manifold is a `Curve`, its reach b^2 / a for semi-axes
        a >= b.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_ellipse
    >>> X, shape = make_ellipse(50, return_shape=True, random_state=0)
    >>> round(shape.manifold.reach, 6), round(shape.volume, 6)
    (0.25, 4.844224)
    """
    axes = check_real_array("semi_axes", semi_axes)
    if axes.shape != (2,) or not np.all(np.isfinite(axes) & (axes > 0)):
        raise ValueError(
            f"semi_axes={semi_axes!r} is no pair of lengths; expected two finite numbers > 0, in units "
            "of X. Pass (1.0, 0.5), for example."
        )
    shape = closed_curve(_Axes(axes[:, None]), TURN, law, n_features, frame_state)
    return draw(shape, n_samples, noise, spacing, random_state, return_shape)


def make_wavy_circle(
    n_samples: int = 100,
    *,
    amplitude: float = 0.13,
    waves: int = 8,
    law: Any = "uniform",
    spacing: str = "random",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from the unit circle with waves: r(t) = 1 + amplitude sin(waves t), t the angle.

    By default the curve of [1]_, Fig. 5: a small smoothing scale keeps the waves, a larger one makes
    a circle of them.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    amplitude : float, default=0.13
        From 0 to below 1, in units of X.
    waves : int, default=8
        How many.
    law : {"uniform", "parameter", "von-mises", "discontinuous"} or Law, default="uniform"
        Uniform in arc length; in the angle, which is sparser on the flanks; a `VonMises` law in arc
        length about the angle 0; three times as dense on the first half of the length (angles below
        pi if waves are even) as on the second.
    spacing : {"random", "even"}, default="random"
        Independent rows, or rows with equal shares of the law between them.
    n_features : int, optional
        As for `make_circle`.
    frame_state : int, default=0
        As for `make_circle`.
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
        Only with ``return_shape=True``. The manifold is a `Curve`, its reach 0.1016 by default.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    References
    ----------
    .. [1] T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is
       Geometry Adaptive, NeurIPS 2025, arXiv 2510.02305.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_wavy_circle
    >>> X, shape = make_wavy_circle(30, return_shape=True, random_state=0)
    >>> bool(shape.manifold.distance(X).max() < 1e-12)
    True
    >>> round(shape.manifold.reach, 4), round(shape.volume, 4)
    (0.1016, 7.7414)
    """
    waves = check_integer("waves", waves)
    radius = _Wave(_check_amplitude(amplitude), waves)
    shape = closed_curve(radius, TURN, law, n_features, frame_state)
    return draw(shape, n_samples, noise, spacing, random_state, return_shape)


def make_rough_circle(
    n_samples: int = 100,
    *,
    smoothness: int = 2,
    amplitude: float = 0.1,
    waves: int = 4,
    law: Any = "uniform",
    spacing: str = "random",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    r"""Draw rows from a circle with waves of limited smoothness.

    The unit circle with the radius, for smoothness b and w waves,

    .. math:: r(t) = 1 + a \sum_{k \ge 1} k^{-(b + 1)} \cos(k w t - (b + 1) \pi / 2)

    at angle t: a periodic spline of degree b + 1 with w knots, at t = 2 pi j / w. There, and only
    there, the derivative of order b jumps, by pi a w^b; that of order b - 1 is Lipschitz. So the curve
    has Hölder smoothness b and no more (class C^{b-1,1}), and for large b it is a wavy circle. Rates of
    manifold estimators depend on that number [1]_.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    smoothness : int, default=2
        b, from 2, the least for which the reach is positive, to 10.
    amplitude : float, default=0.1
        a, that of the first term of the sum, from 0 to below 1/2, in units of X.
    waves : int, default=4
        w, a power of two up to 64.
    law : {"uniform", "parameter", "von-mises", "discontinuous"} or Law, default="uniform"
        As for `make_wavy_circle`.
    spacing : {"random", "even"}, default="random"
        Independent rows, or rows with equal shares of the law between them.
    n_features : int, optional
        As for `make_circle`.
    frame_state : int, default=0
        As for `make_circle`.
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
        Only with ``return_shape=True``. The manifold is a `Curve`, its reach 0.385 by default.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    References
    ----------
    .. [1] E. Aamari, C. Levrard, Nonasymptotic rates for manifold, tangent space and curvature
       estimation, Annals of Statistics 47, 2019.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_rough_circle
    >>> X, shape = make_rough_circle(30, smoothness=2, return_shape=True, random_state=0)
    >>> bool(shape.manifold.distance(X).max() < 1e-12)
    True
    """
    smoothness = check_integer("smoothness", smoothness, minimum=2)
    if smoothness > 10:
        raise ValueError(
            f"smoothness={smoothness!r} is too large; expected at most 10. From there on the curve is "
            "a wavy circle to all purposes: use make_wavy_circle."
        )
    waves = check_integer("waves", waves)
    if waves > 64 or waves & (waves - 1):
        raise ValueError(
            f"waves={waves!r} is no power of two from 1 to 64; expected one, so that the knots are "
            "known exactly. Pass 4 or 8."
        )
    # Sums of the terms reach zeta(3) = 1.2 times the first.
    radius = _Spline(_check_amplitude(amplitude, 0.5), waves, smoothness)
    shape = closed_curve(radius, TURN, law, n_features, frame_state)
    return draw(shape, n_samples, noise, spacing, random_state, return_shape)


def make_lima_bean(
    n_samples: int = 100,
    *,
    law: Any = "uniform",
    spacing: str = "random",
    n_features: int | None = None,
    frame_state: int = 0,
    noise: float = 0.0,
    random_state: Any = None,
    return_shape: bool = False,
) -> Any:
    """Draw rows from the lima bean r(t) = sin(t)^3 + cos(t)^3, t the angle over half a turn.

    The curve of [1]_, Figs. 1 and 2. It is closed after half a turn, for r(t + pi) = -r(t), and
    passes through zero.

    Parameters
    ----------
    n_samples : int, default=100
        How many rows.
    law : {"uniform", "parameter", "von-mises", "discontinuous"} or Law, default="uniform"
        Uniform in arc length; in the angle; a `VonMises` law in arc length about the point (1, 0);
        three times as dense on the first half of the length as on the second.
    spacing : {"random", "even"}, default="random"
        Independent rows, or rows with equal shares of the law between them.
    n_features : int, optional
        As for `make_circle`.
    frame_state : int, default=0
        As for `make_circle`.
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
        Only with ``return_shape=True``. The manifold is a `Curve`, its reach 0.2378.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    References
    ----------
    .. [1] T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is
       Geometry Adaptive, NeurIPS 2025, arXiv 2510.02305.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_lima_bean
    >>> X, shape = make_lima_bean(30, spacing="even", return_shape=True)
    >>> X.shape, round(shape.volume, 4)
    ((30, 2), 3.9317)
    """
    shape = closed_curve(_lima_bean, np.pi, law, n_features, frame_state)
    return draw(shape, n_samples, noise, spacing, random_state, return_shape)


def _check_amplitude(amplitude: Any, limit: float = 1.0) -> float:
    value = check_real("amplitude", amplitude, strict=False)
    if value >= limit:
        raise ValueError(
            f"amplitude={amplitude!r} is too large; expected a number below {limit:g}, with which the "
            "radius stays positive."
        )
    return value


# Radii as classes, not closures: shapes can be pickled.


class _Axes:
    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths

    def __call__(self, t: np.ndarray) -> np.ndarray:
        return self.lengths


class _Wave:
    def __init__(self, amplitude: float, waves: int) -> None:
        self.amplitude, self.waves = amplitude, waves

    def __call__(self, t: np.ndarray) -> np.ndarray:
        return 1 + self.amplitude * np.sin(self.waves * t)


class _Spline:
    """The periodic Bernoulli polynomial of degree b + 1, whose Fourier series is the sum above."""

    def __init__(self, amplitude: float, waves: int, smoothness: int) -> None:
        degree = smoothness + 1
        powers = np.arange(degree + 1)
        polynomial = comb(degree, powers) * bernoulli(degree)[degree - powers]
        unit = -(TURN**degree) / (2 * factorial(degree))
        self.coefficients, self.waves = amplitude * unit * polynomial, waves

    def __call__(self, t: np.ndarray) -> np.ndarray:
        place = np.mod(t * (self.waves / TURN), 1.0)
        return 1 + np.polynomial.polynomial.polyval(place, self.coefficients)


def _lima_bean(t: np.ndarray) -> np.ndarray:
    return np.sin(t) ** 3 + np.cos(t) ** 3
