"""The shape of what an image shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.validation import check_choice, check_integer, check_real, check_real_array

__all__ = ["anisotropy"]


def anisotropy(
    images: Any,
    *,
    image_shape: tuple[int, int] | None = None,
    background: float = 0.0,
    negative: str = "raise",
) -> np.ndarray:
    """Return how far from round the bright part of each image is.

    An image is read as a distribution of mass: pixel p at place r_p has mass w_p = value - background.
    With the centroid r = sum w_p r_p / sum w_p and the second-moment (inertia) tensor

        S = sum w_p (r_p - r)(r_p - r)^T / sum w_p,

    of eigenvalues l_1 >= l_2 >= 0, the anisotropy is 1 - l_2 / l_1: 0 for a round bump, 1 - b^2 / a^2
    for a Gaussian of axes a > b, 1 for a line.

    Parameters
    ----------
    images : array-like of shape (n, height, width), or (n, height * width) with `image_shape`
        Rows of pixels are read line by line. Pixels are square.
    image_shape : tuple of int, optional
        Height and width of images that come as rows.
    background : float, default=0.0
        The value of an empty pixel; it is subtracted.
    negative : {"raise", "clip"}, default="raise"
        What to do with pixels below the background, which are no mass: refuse them, or count them as
        empty. Samples of a density carry noise, so they need "clip" as a rule, and then a `background`
        above the noise: what is left of noise is mass all over the frame.

    Returns
    -------
    ndarray of shape (n,)
        In [0, 1]. Zero too where all mass is in one pixel.

    Raises
    ------
    TypeError, ValueError
        If the images have another shape or are not finite, if pixels are below the background (with
        "raise"), if an image has no mass, or if a parameter is out of range.

    Notes
    -----
    Two round bumps in one image are an elongated mass: look at images of high anisotropy. Invariant to
    brightness above the background and, away from the border, to place, and at any angle but for what
    the pixels resolve. Some authors plot l_1 / l_2 or sqrt(1 - l_2 / l_1) under this name; each is a
    function of the other.

    Costs O(n height width), and a copy of the images.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.metrics import anisotropy
    >>> y, x = np.mgrid[-20:21, -20:21]
    >>> round_bump = np.exp(-(x**2 + y**2) / 18)
    >>> long_bump = np.exp(-(x**2 / 36 + y**2 / 9) / 2)
    >>> anisotropy([round_bump, long_bump]).round(2)
    array([0.  , 0.75])
    """
    mass = _stack(images, image_shape) - check_real("background", background, minimum=-np.inf)
    check_choice("negative", negative, ("raise", "clip"))
    below = mass < 0
    if negative == "raise" and below.any():
        raise ValueError(
            f"images holds {int(below.sum())} pixels below background={background!r}, the least by "
            f"{-mass.min():.3g}; expected none, for mass is not negative. Pass a lower background, or "
            "negative='clip' to count them as empty."
        )
    mass[below] = 0.0
    total = mass.sum(axis=(1, 2))
    if not np.all(total > 0):
        empty = np.flatnonzero(~(total > 0))
        raise ValueError(
            f"{len(empty)} images have no mass above background={background!r}, the first is number "
            f"{empty[0]}; expected some in each. Drop them, or lower the background."
        )
    mass /= total[:, None, None]
    lines, columns = (np.arange(size) - (size - 1) / 2 for size in mass.shape[1:])
    by_line, by_column = mass.sum(axis=2), mass.sum(axis=1)
    y, x = by_line @ lines, by_column @ columns
    yy, xx = by_line @ lines**2 - y**2, by_column @ columns**2 - x**2
    xy = np.einsum("nij,i,j->n", mass, lines, columns, optimize=True) - x * y
    half_sum, half_gap = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    longest = half_sum + half_gap
    # What rounding leaves of the extent of a single pixel is no extent.
    has_extent = longest > 1e-12 * (lines[-1] ** 2 + columns[-1] ** 2)
    return np.minimum(np.divide(2 * half_gap, longest, out=np.zeros(len(x)), where=has_extent), 1.0)


def _stack(images: Any, image_shape: Any) -> np.ndarray:
    """Return the images as an array of shape (n, height, width) of its own."""
    array = check_real_array("images", images)
    if image_shape is not None:
        if not isinstance(image_shape, tuple | list) or len(image_shape) != 2:
            raise ValueError(f"image_shape={image_shape!r} is no pair; expected (height, width).")
        height, width = (check_integer("image_shape", size) for size in image_shape)
        if array.ndim != 2 or array.shape[1] != height * width:
            raise ValueError(
                f"images has shape {array.shape}; expected (n, {height * width}), rows of pixels, with "
                f"image_shape={image_shape!r}."
            )
        array = array.reshape(-1, height, width)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(
            f"images has shape {array.shape}; expected (n, height, width) with at least one pixel. Pass "
            "image_shape=(height, width) with rows of pixels."
        )
    if not np.all(np.isfinite(array)):
        raise ValueError(
            f"images holds {int(np.sum(~np.isfinite(array)))} values that are NaN or infinite; expected "
            "finite pixels."
        )
    return array
