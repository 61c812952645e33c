"""Directions and rotations as points on a sphere: checks of rows, and axes that turn with the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import gammaln

from .._utils.table import n_dimensions

# Rows at most this far from the sphere, or from a rotation, are accepted as rounded.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Space:
    """A space of directions or rotations: the columns of its rows, and the sphere of its points."""

    name: str
    n_columns: tuple[int, ...]
    is_antipodal: bool  # Whether x and -x are one point, as the quaternions of rotations are
    expected: str  # What rows may be, for messages

    @property
    def angle(self) -> float:
        """Return the angle in the space, in radians, of one radian on its sphere."""
        return 2.0 if self.is_antipodal else 1.0

    def log_volume(self, dimension: int) -> float:
        """Return the logarithm of the space's volume in radians of its sphere S^m, m = `dimension`."""
        return log_area(dimension) - (math.log(2) if self.is_antipodal else 0.0)


SPACES = {
    "sphere": Space(
        "sphere",
        (3, 4, 5, 6),
        False,
        "unit vectors of 3 to 6 columns. Of longitudes and latitudes in radians these are "
        "np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]); "
        "convert degrees by np.radians first, and declare an angle in the plane in the periods of "
        "SmoothedScoreDiffusion",
    ),
    "rotations": Space(
        "rotations",
        (4, 9),
        True,
        "unit quaternions of 4 columns, or the 9 entries of rotation matrices, row by row. Of Euler "
        "angles these are scipy.spatial.transform.Rotation.from_euler('zyx', X, degrees=True)"
        ".as_quat(), with degrees=False for radians",
    ),
}


def log_area(dimension: int) -> float:
    """Return the logarithm of the area of the unit sphere S^m, m = `dimension`."""
    half = (dimension + 1) / 2
    return math.log(2) + half * math.log(math.pi) - float(gammaln(half))


def check_form(X: Any) -> None:
    """Raise an error for objects and stacks of matrices, which are no tables of rotations."""
    if isinstance(X, Rotation):
        raise TypeError(
            "X is a Rotation of scipy; expected a table with a row for each. Pass X.as_quat()."
        )
    if n_dimensions(X) == 3:
        raise ValueError(
            f"X has the shape {np.shape(X)}; expected a row for each rotation matrix. Pass "
            "X.reshape(len(X), 9)."
        )


def unit_rows(X: np.ndarray, space: Space) -> np.ndarray:
    """Return unit vectors (n, d), quaternions for rotations, from rows (n, k) after checking them."""
    if X.shape[1] not in space.n_columns:
        raise ValueError(
            f"X has {X.shape[1]} columns with space={space.name!r}; expected {space.expected}. Pass "
            "space='sphere' with vectors, space='rotations' with quaternions or matrices."
        )
    if X.shape[1] == 9:
        matrices = X.reshape(-1, 3, 3)
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        what = "rotation matrices, but R R^T differs from the identity"
        hint = (
            "Of rounded ones Rotation.from_matrix(X.reshape(-1, 3, 3)).as_quat() takes the nearest."
        )
        _check_near(what, errors, space, hint)
        mirrors = np.flatnonzero(np.linalg.det(matrices) < 0)
        if len(mirrors):
            raise ValueError(
                f"row {mirrors[0]} of X is a reflection: its determinant is -1, as in {len(mirrors)} of "
                f"{len(X)} rows; expected rotation matrices of determinant 1. Change the sign of one "
                "axis of the frame in which they were recorded."
            )
        return Rotation.from_matrix(matrices).as_quat()
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(X, axis=1)
    zeros = np.flatnonzero(norms == 0)
    if len(zeros):
        raise ValueError(
            f"row {zeros[0]} of X is zero, which has no direction, as {len(zeros)} of {len(X)} rows; "
            f"expected {space.expected}. Drop these rows."
        )
    hint = "If lengths do not matter, divide by them: X / np.linalg.norm(X, axis=1, keepdims=True)."
    _check_near("unit vectors, but their length differs from 1", np.abs(norms - 1), space, hint)
    return X / norms[:, None]


def _check_near(what: str, errors: np.ndarray, space: Space, hint: str) -> None:
    """Raise an error if rows differ from what is expected by more than rounding; errors are (n,)."""
    wrong = np.flatnonzero(~(errors <= _TOLERANCE))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"rows of X are no {what} by {errors[row]:.3g} in row {row}, and by more than "
            f"{_TOLERANCE:g} in {len(wrong)} of {len(errors)} rows; expected {space.expected}. {hint}"
        )


def principal_axes(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return principal axes (d, d), as columns, that rotate with points (N, d); x and -x are equal."""
    moment = (points * weights[:, None]).T @ points
    axes = np.linalg.eigh(moment)[1][:, ::-1]
    z = points @ axes
    signs = np.where((weights * z[:, 0] ** 3) @ z < 0, -1.0, 1.0)
    signs[0] = 1.0
    return axes * signs
