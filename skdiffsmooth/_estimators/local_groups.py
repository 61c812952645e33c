"""Groups of columns: patches of images, windows of series, correlated columns, or the user's groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .._engine.local import ColumnGroups
from .._utils.validation import check_choice, check_count, check_integer, wrong_type

# Sizes that "auto" compares: sides of patches, widths of windows, numbers of correlated columns.
_SIDES = (1, 3, 5, 7)
_WIDTHS = (1, 3, 5, 9, 17, 33)
_COUNTS = (1, 5, 9, 16, 25, 49)
_NAMES = ("auto", "patches", "windows", "covariance")


@dataclass(frozen=True, eq=False)
class GroupFamily:
    """The groups of columns of one kind, in several sizes.

    `make(size, scale)` returns the groups of a size at a noise scale. `sizes` are the sizes to choose
    from; the last has all columns in each group, except for the user's groups, which have one size.
    """

    name: str
    sizes: tuple[int, ...]
    make: Callable[[int, float], ColumnGroups]


class ShiftedImages(NamedTuple):
    """Makes copies of training images, moved by up to `shifts` pixels, to compare patches with."""

    shape: tuple[int, ...]
    center: np.ndarray  # (d,): mean of the images
    shifts: int

    @property
    def steps(self) -> tuple[int, int]:
        """Largest moves in pixels, (down, right): `shifts`, and less than the side of the images."""
        return min(self.shifts, self.shape[0] - 1), min(self.shifts, self.shape[1] - 1)

    @property
    def n_copies(self) -> int:
        """Number of copies of an image, including the image itself."""
        return (2 * self.steps[0] + 1) * (2 * self.steps[1] + 1)

    def copies(self, images: np.ndarray) -> np.ndarray:
        """Return images (n, d) less the center, followed by their moved copies, shape (n_copies n, d).

        The pixels of an edge are repeated beyond it.
        """
        (height, width), (down, right) = self.shape[:2], self.steps
        blocks = (images + self.center).reshape(len(images), height, width, -1)
        padded = np.pad(blocks, ((0, 0), (down, down), (right, right), (0, 0)), mode="edge")
        corners = product(range(2 * down + 1), range(2 * right + 1))
        starts = sorted(corners, key=lambda start: start != self.steps)
        moved = [padded[:, i : i + height, j : j + width].reshape(images.shape) for i, j in starts]
        return np.concatenate(moved) - self.center


def resolve_shifts(shifts: Any, image_shape: Any, center: np.ndarray) -> ShiftedImages | None:
    """Return the shifted images of the parameter `shifts`, None for 0; `image_shape` was checked."""
    hint = "Pass 0 to compare patches at the same position, 1 for those one pixel away too."
    shifts = check_integer("shifts", shifts, minimum=0, hint=hint)
    if not shifts:
        return None
    if image_shape is None:
        raise ValueError(
            f"shifts={shifts} needs image_shape, such as image_shape=(8, 8), or (1, {len(center)}) for "
            f"series, with groups='auto' or 'patches'. {hint}"
        )
    if shifts >= max(image_shape[:2]):
        raise ValueError(
            f"shifts={shifts} is out of range; images of {image_shape[0]} x {image_shape[1]} pixels "
            f"have no places so far apart. {hint}"
        )
    return ShiftedImages(tuple(image_shape), center, shifts)


def resolve_groups(
    groups: Any, image_shape: Any, size: Any, n_features: int, covariance: np.ndarray
) -> GroupFamily:
    """Return the groups of the parameters `groups`, `image_shape` and `size` after checking them."""
    shape = _checked_shape(image_shape, n_features)
    name = "given"
    if isinstance(groups, str):
        name = check_choice("groups", groups, _NAMES, hint="Or pass a list of groups of columns.")
    if shape is not None and name not in ("auto", "patches"):
        raise ValueError(
            f"image_shape={image_shape!r} has no effect with groups of the kind {name!r}; pass "
            "groups='patches', or leave out image_shape."
        )
    if name == "given":
        if not isinstance(size, str) or size != "auto":
            raise ValueError(f"size={size!r} has no effect with a list of groups; leave it out.")
        return _given(groups, n_features)
    if name == "auto":
        name = "covariance" if shape is None else "patches"
    if name == "patches":
        if shape is None:
            raise ValueError(
                "groups='patches' needs image_shape, such as image_shape=(8, 8); it is None. For series "
                "pass groups='windows'."
            )
        rows, columns = np.divmod(np.arange(n_features) // math.prod(shape[2:]), shape[1])
        return _by_distance(name, np.stack([rows, columns]), _SIDES, size)
    if name == "windows":
        return _by_distance(name, np.arange(n_features)[None], _WIDTHS, size)
    variances, axes = np.linalg.eigh(covariance)

    def make(size: int, scale: float) -> ColumnGroups:
        # The Wiener filter C (C + v I)^-1; each column comes first in its own group.
        filtered = np.abs((axes * (variances / (variances + scale**2))) @ axes.T)
        np.fill_diagonal(filtered, np.inf)
        order = np.argsort(-np.round(filtered, 12), axis=1, kind="stable")
        return ColumnGroups.of(list(order[:, :size]))

    return GroupFamily(name, _sizes(_COUNTS, size, n_features), make)


def _by_distance(
    name: str, positions: np.ndarray, sizes: tuple[int, ...], size: Any
) -> GroupFamily:
    """Return windows around the positions (k, d) of columns: close in each of the k coordinates."""
    extent = int(positions.max()) + 1
    distances = positions[:, None, :] - positions[:, :, None]

    def make(size: int, scale: float) -> ColumnGroups:
        # A window of even size extends further to the left and up by one. At the border windows are cut.
        near = np.all((distances >= -(size // 2)) & (distances <= (size - 1) // 2), axis=0)
        return ColumnGroups.of([np.flatnonzero(row) for row in near])

    return GroupFamily(name, _sizes(sizes, size, 2 * extent - 1, extent), make)


def _sizes(
    sizes: tuple[int, ...], size: Any, whole: int, below: int | None = None
) -> tuple[int, ...]:
    """Return (size,) or, for "auto", all `sizes` below `below` (default `whole`), then `whole`."""
    number = check_count("size", size)
    return (*(s for s in sizes if s < (below or whole)), whole) if number is None else (number,)


def _checked_shape(image_shape: Any, n_features: int) -> tuple[int, ...] | None:
    """Return the shape of images, (height, width) or (height, width, channels), or None."""
    if image_shape is None:
        return None
    hint = "Pass (height, width), or (height, width, channels) for colour images, channels last."
    if isinstance(image_shape, str | bytes) or not hasattr(image_shape, "__len__"):
        raise wrong_type("image_shape", image_shape, f"a tuple. {hint}")
    if isinstance(image_shape, dict) or len(image_shape) not in (2, 3):
        raise ValueError(f"image_shape={image_shape!r} does not have two or three numbers. {hint}")
    shape = tuple(check_integer("image_shape", number, hint=hint) for number in image_shape)
    if math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} has {math.prod(shape)} pixels, and X has {n_features} "
            f"columns. {hint}"
        )
    return shape


def _given(groups: Any, n_features: int) -> GroupFamily:
    """Return the user's groups; the group of a column is the union of those that contain it."""
    hint = (
        "Pass 'patches', 'windows', 'covariance', or a list of groups, each a list of column indices, "
        "which together contain every column."
    )
    if not isinstance(groups, list | tuple | np.ndarray):
        raise wrong_type("groups", groups, f"a list. {hint}")
    members = np.zeros((len(groups), n_features), dtype=bool)
    for number, group in enumerate(groups):
        if not isinstance(group, list | tuple | range | np.ndarray) or not len(group):
            raise ValueError(
                f"groups[{number}]={group!r} is no list of column indices, or empty. {hint}"
            )
        for column in group:
            index = check_integer(f"groups[{number}]", column, minimum=0, hint=hint)
            if index >= n_features:
                raise ValueError(
                    f"groups[{number}] has the column {index}, and X has {n_features} columns. {hint}"
                )
            members[number, index] = True
    missing = np.flatnonzero(~members.any(axis=0))
    if len(missing):
        raise ValueError(f"groups miss the columns {missing.tolist()[:10]} of X. {hint}")
    united = ColumnGroups.of(
        [np.flatnonzero(members[members[:, p]].any(axis=0)) for p in range(n_features)]
    )
    return GroupFamily("given", (united.size,), lambda size, scale: united)
