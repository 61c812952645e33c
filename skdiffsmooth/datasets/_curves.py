"""Closed curves: circles, ellipses, wavy circles, rough circles and the lima bean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.special import bernoulli, comb, factorial

from .._utils.validation import check_integer, check_real, check_real_array
from ..manifolds import Circle, Curve
from ._charts import CurveChart, SphereChart
from ._distributions import resolve_distribution
from ._shape import Shape, frame

TURN = 2 * np.pi


def circle(
    radius: float = 1.0,
    *,
    distribution: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
) -> Shape:
    """Return a circle, in the plane or in a plane of R^d.

    Parameters
    ----------
    radius : float, default=1.0
        In units of X. It is the reach of the circle.
    distribution : str or Distribution, default="uniform"
        "uniform" in arc length; "von-mises", `VonMises` about the angle 0 with concentration 2;
        "discontinuous", three times as dense on the upper half of the circle as on the lower. Or an
        object, such as `VonMises(concentration)` or `PiecewiseConstant(densities)`.
    n_features : int, optional
        Dimension d >= 2 of the rows, in which the shape is rotated at random; None leaves it in the
        plane, not rotated.
    frame_state : int, default=0
        Seed of that rotation. It is separate from the seed of the draws, so that rows drawn with
        different seeds lie on the same circle.

    Returns
    -------
    Shape
        Its manifold is a `Circle`.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    See Also
    --------
    sphere : A sphere of any dimension.
    wavy_circle : A circle with waves, with a smaller reach.

    Examples
    --------
    >>> from skdiffsmooth.datasets import circle
    >>> shape = circle(2.0, distribution="von-mises", n_features=10)
    >>> shape.sample(100, noise=0.01, random_state=0).shape
    (100, 10)
    """
    _, distribution = resolve_distribution(distribution, ("uniform",), closed=True)
    basis = frame(2, n_features, frame_state)
    manifold = Circle(np.zeros(len(basis)), radius, basis)
    return Shape(manifold, SphereChart(manifold), distribution)


def ellipse(
    semi_axes: Any = (1.0, 0.5),
    *,
    distribution: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
) -> Shape:
    """Return an ellipse (a cos t, b sin t).

    Parameters
    ----------
    semi_axes : sequence of two floats, default=(1.0, 0.5)
        a and b, along the first and the second coordinate, in units of X.
    distribution : str or Distribution, default="uniform"
        "uniform" in arc length; "parameter", uniform in t, which is denser where the curve bends
        more; "von-mises", about t = 0 in arc length; "discontinuous", three times as dense on the
        first half of the length (t < pi) as on the second.
    n_features, frame_state
        As for `circle`.

    Returns
    -------
    Shape
        Its manifold is a `Curve`, with the reach b^2 / a if a >= b.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import ellipse
    >>> shape = ellipse()
    >>> round(shape.manifold.reach, 6), round(shape.volume, 6)
    (0.25, 4.844224)
    """
    axes = check_real_array("semi_axes", semi_axes)
    if axes.shape != (2,) or not np.all(np.isfinite(axes) & (axes > 0)):
        raise ValueError(
            f"semi_axes={semi_axes!r} is not a pair of lengths; expected two finite numbers > 0, in "
            "units of X. Pass (1.0, 0.5), for example."
        )
    return _closed_curve(partial(_axes, axes[:, None]), TURN, distribution, n_features, frame_state)


def wavy_circle(
    amplitude: float = 0.13,
    waves: int = 8,
    *,
    distribution: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
) -> Shape:
    """Return the unit circle with waves: the radius is 1 + amplitude sin(waves t) at the angle t.

    The default is the curve of Farghly et al. (NeurIPS 2025, arXiv:2510.02305), Fig. 5: a small
    smoothing scale keeps the waves, a larger one removes them.

    Parameters
    ----------
    amplitude : float, default=0.13
        From 0 to below 1, in units of X.
    waves : int, default=8
        Number of waves.
    distribution : str or Distribution, default="uniform"
        "uniform" in arc length; "parameter", uniform in the angle, which is sparser on the flanks of
        the waves; "von-mises", about the angle 0 in arc length; "discontinuous", three times as dense
        on the first half of the length (angles below pi if `waves` is even) as on the second.
    n_features, frame_state
        As for `circle`.

    Returns
    -------
    Shape
        Its manifold is a `Curve`, with a reach of 0.1016 by default.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import wavy_circle
    >>> shape = wavy_circle()
    >>> bool(shape.manifold.distance(shape.sample(30, random_state=0)).max() < 1e-12)
    True
    >>> round(shape.manifold.reach, 4), round(shape.volume, 4)
    (0.1016, 7.7414)
    """
    waves = check_integer("waves", waves)
    radius = partial(_wave, _check_amplitude(amplitude), waves)
    return _closed_curve(radius, TURN, distribution, n_features, frame_state)


def rough_circle(
    smoothness: int = 2,
    amplitude: float = 0.1,
    waves: int = 4,
    *,
    distribution: Any = "uniform",
    n_features: int | None = None,
    frame_state: int = 0,
) -> Shape:
    r"""Return a circle with waves of limited smoothness.

    The unit circle with the radius, for smoothness b and w waves,

    .. math:: r(t) = 1 + a \sum_{k \ge 1} k^{-(b + 1)} \cos(k w t - (b + 1) \pi / 2)

    at angle t: a periodic spline of degree b + 1 with w knots, at t = 2 pi j / w. There, and only
    there, the derivative of order b jumps, by pi a w^b; that of order b - 1 is Lipschitz. So the curve
    has Hölder smoothness b and no more (class C^{b-1,1}), and for large b it is a wavy circle. Rates of
    manifold estimators depend on that number (Aamari and Levrard, Nonasymptotic rates for manifold,
    tangent space and curvature estimation, Annals of Statistics 47, 2019).

    Parameters
    ----------
    smoothness : int, default=2
        b, from 2, the smallest value with a positive reach, to 10.
    amplitude : float, default=0.1
        a, the amplitude of the first term of the sum, from 0 to below 1/2, in units of X.
    waves : int, default=4
        w, a power of two up to 64.
    distribution : str or Distribution, default="uniform"
        As for `wavy_circle`.
    n_features, frame_state
        As for `circle`.

    Returns
    -------
    Shape
        Its manifold is a `Curve`, with a reach of 0.385 by default.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import rough_circle
    >>> round(rough_circle(smoothness=2).manifold.reach, 3)
    0.385
    """
    smoothness = check_integer("smoothness", smoothness, minimum=2)
    if smoothness > 10:
        raise ValueError(
            f"smoothness={smoothness!r} is too large; expected at most 10. A smoother curve differs "
            "from a wavy circle by less than 0.1 % of the amplitude: use wavy_circle."
        )
    waves = check_integer("waves", waves)
    if waves > 64 or waves & (waves - 1):
        raise ValueError(
            f"waves={waves!r} is not a power of two from 1 to 64; expected one, so that the knots are "
            "exact in floating point. Pass 4 or 8."
        )
    # The sum of all terms is at most zeta(3) = 1.2 times the first, so that the radius stays positive.
    radius = _Spline(_check_amplitude(amplitude, 0.5), waves, smoothness)
    return _closed_curve(radius, TURN, distribution, n_features, frame_state)


def lima_bean(
    *, distribution: Any = "uniform", n_features: int | None = None, frame_state: int = 0
) -> Shape:
    """Return the lima bean r(t) = sin(t)^3 + cos(t)^3, with angles t from 0 to pi.

    The curve of Farghly et al. (NeurIPS 2025, arXiv:2510.02305), Figs. 1 and 2. It is closed after half
    a turn, since r(t + pi) = -r(t), and passes through the origin.

    Parameters
    ----------
    distribution : str or Distribution, default="uniform"
        "uniform" in arc length; "parameter", uniform in the angle; "von-mises", about the point
        (1, 0) in arc length; "discontinuous", three times as dense on the first half of the length as
        on the second.
    n_features, frame_state
        As for `circle`.

    Returns
    -------
    Shape
        Its manifold is a `Curve`, with the reach 0.2378.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import lima_bean
    >>> shape = lima_bean()
    >>> shape.sample(30, spacing="even").shape, round(shape.volume, 4)
    ((30, 2), 3.9317)
    """
    return _closed_curve(_lima_bean, np.pi, distribution, n_features, frame_state)


def _closed_curve(
    radius: Callable[[np.ndarray], np.ndarray],
    stop: float,
    distribution: Any,
    n_features: Any,
    frame_state: Any,
) -> Shape:
    """Return the shape of a closed curve with a radius at each angle from 0 to `stop`."""
    by, distribution = resolve_distribution(distribution, ("uniform", "parameter"), closed=True)
    function = partial(_plane_curve, radius, frame(2, n_features, frame_state))
    curve = Curve(function, 0.0, stop, closed=True)
    return Shape(curve, CurveChart(curve, function, by), distribution)


def _check_amplitude(amplitude: Any, limit: float = 1.0) -> float:
    hint = "The radius of the curve must stay positive."
    return check_real("amplitude", amplitude, strict=False, below=limit, hint=hint)


# Functions are partial ones or classes, not closures, so that shapes can be pickled.


def _plane_curve(
    radius: Callable[[np.ndarray], np.ndarray], basis: np.ndarray, t: np.ndarray
) -> np.ndarray:
    """Return points (n, d) of a plane at angles t, from radii (n,), or (2, n) along its axes."""
    return (radius(t) * np.stack([np.cos(t), np.sin(t)])).T @ basis.T


def _axes(lengths: np.ndarray, t: np.ndarray) -> np.ndarray:
    return lengths


def _wave(amplitude: float, waves: int, t: np.ndarray) -> np.ndarray:
    return 1 + amplitude * np.sin(waves * t)


class _Spline:
    """The periodic Bernoulli polynomial of degree b + 1: the series of `rough_circle` in closed form."""

    def __init__(self, amplitude: float, waves: int, smoothness: int) -> None:
        degree = smoothness + 1
        powers = np.arange(degree + 1)
        polynomial = comb(degree, powers) * bernoulli(degree)[degree - powers]
        unit = -(TURN**degree) / (2 * factorial(degree))
        self.coefficients, self.waves = amplitude * unit * polynomial, waves

    def __call__(self, t: np.ndarray) -> np.ndarray:
        phase = np.mod(t * (self.waves / TURN), 1.0)
        return 1 + np.polynomial.polynomial.polyval(phase, self.coefficients)


def _lima_bean(t: np.ndarray) -> np.ndarray:
    return np.sin(t) ** 3 + np.cos(t) ** 3
