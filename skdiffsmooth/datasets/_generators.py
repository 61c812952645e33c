"""Functions ``make_*`` that draw rows of a shape in one call, in the style of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

from .._utils.validation import check_flag
from ._curves import circle, ellipse, lima_bean, rough_circle, wavy_circle
from ._distributions import Distribution
from ._images import bump_images
from ._shape import Shape
from ._surfaces import affine_subspace, sphere, swiss_roll, torus


class Options(TypedDict, total=False):
    """The parameters that all generators share, documented in `make_circle`."""

    distribution: str | Distribution
    n_features: int | None
    frame_state: int
    spacing: str
    noise: float
    random_state: Any
    return_shape: bool


def make_circle(n_samples: int = 100, *, radius: float = 1.0, **options: Unpack[Options]) -> Any:
    """Draw rows from a `circle`.

    Parameters
    ----------
    n_samples : int, default=100
        Number of rows.
    radius : float, default=1.0
        In units of X.
    distribution, n_features, frame_state
        As for `circle`.
    spacing : {"random", "even"}, default="random"
        As for `Shape.sample`.
    noise : float, default=0.0
        Standard deviation of isotropic Gaussian noise in R^d, in units of X.
    random_state : int, RandomState or None, default=None
        Seed of draws and noise; None gives new draws at each call.
    return_shape : bool, default=False
        Whether to return the `Shape` too, for its manifold, its density and more rows.

    Returns
    -------
    X : ndarray of shape (n_samples, d)
        Rows.
    shape : Shape
        Only with ``return_shape=True``.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from skdiffsmooth.datasets import make_circle
    >>> make_circle(4, spacing="even").round(12) + 0.0
    array([[ 1.,  0.],
           [ 0.,  1.],
           [-1.,  0.],
           [ 0., -1.]])
    """
    return _draw(circle, n_samples, options, radius=radius)


def make_ellipse(
    n_samples: int = 100, *, semi_axes: Any = (1.0, 0.5), **options: Unpack[Options]
) -> Any:
    """Draw rows from an `ellipse`, with its parameters; the others are those of `make_circle`."""
    return _draw(ellipse, n_samples, options, semi_axes=semi_axes)


def make_wavy_circle(
    n_samples: int = 100, *, amplitude: float = 0.13, waves: int = 8, **options: Unpack[Options]
) -> Any:
    """Draw rows from a `wavy_circle`, with its parameters; the others are those of `make_circle`."""
    return _draw(wavy_circle, n_samples, options, amplitude=amplitude, waves=waves)


def make_rough_circle(
    n_samples: int = 100,
    *,
    smoothness: int = 2,
    amplitude: float = 0.1,
    waves: int = 4,
    **options: Unpack[Options],
) -> Any:
    """Draw rows from a `rough_circle`, with its parameters; the others are those of `make_circle`."""
    return _draw(
        rough_circle, n_samples, options, smoothness=smoothness, amplitude=amplitude, waves=waves
    )


def make_lima_bean(n_samples: int = 100, **options: Unpack[Options]) -> Any:
    """Draw rows from a `lima_bean`, with its parameters; the others are those of `make_circle`."""
    return _draw(lima_bean, n_samples, options)


def make_sphere(
    n_samples: int = 100, *, n_components: int = 2, radius: float = 1.0, **options: Unpack[Options]
) -> Any:
    """Draw rows from a `sphere`, with its parameters; the others are those of `make_circle`."""
    return _draw(sphere, n_samples, options, n_components=n_components, radius=radius)


def make_torus(
    n_samples: int = 100,
    *,
    radius: float = 1.0,
    tube_radius: float = 0.4,
    **options: Unpack[Options],
) -> Any:
    """Draw rows from a `torus`, with its parameters; the others are those of `make_circle`."""
    return _draw(torus, n_samples, options, radius=radius, tube_radius=tube_radius)


def make_swiss_roll(
    n_samples: int = 100, *, radius: float = 1.0, height: float = 1.5, **options: Unpack[Options]
) -> Any:
    """Draw rows from a `swiss_roll`, with its parameters; the others are those of `make_circle`."""
    return _draw(swiss_roll, n_samples, options, radius=radius, height=height)


def make_affine_subspace(
    n_samples: int = 100,
    *,
    n_components: int = 2,
    scale: float = 1.0,
    offset: float = 1.0,
    **options: Unpack[Options],
) -> Any:
    """Draw rows from an `affine_subspace`, with its parameters; others are those of `make_circle`."""
    return _draw(
        affine_subspace, n_samples, options, n_components=n_components, scale=scale, offset=offset
    )


def make_bump_images(
    n_samples: int = 16,
    *,
    size: int = 64,
    width: float = 0.2,
    radius: float = 0.5,
    centers: str = "circle",
    **options: Unpack[Options],
) -> Any:
    """Draw images of a bump, see `bump_images`; other parameters are those of `make_circle`.

    Centers are evenly spaced by default. `n_features` and `frame_state` are not accepted.

    Examples
    --------
    The images of Figs. 8 and 15 of Farghly et al., NeurIPS 2025, arXiv:2510.02305:

    >>> from skdiffsmooth.datasets import make_bump_images
    >>> make_bump_images().shape
    (16, 4096)
    >>> make_bump_images(116, centers="square").shape
    (116, 4096)
    """
    return _draw(
        bump_images,
        n_samples,
        {"spacing": "even", **options},
        size=size,
        width=width,
        radius=radius,
        centers=centers,
    )


def _draw(
    shape_of: Callable[..., Shape], n_samples: int, options: Options, **parameters: Any
) -> Any:
    """Return rows (n_samples, d) of a shape, and the shape where `return_shape` is true."""
    given: dict[str, Any] = {**options}
    return_shape = check_flag("return_shape", given.pop("return_shape", False))
    names = ("spacing", "noise", "random_state")
    of_sample = {name: given.pop(name) for name in names if name in given}
    shape = shape_of(**parameters, **given)
    X = shape.sample(n_samples, **of_sample)
    return (X, shape) if return_shape else X
