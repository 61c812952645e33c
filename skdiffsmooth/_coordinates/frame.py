"""Axes of linear coordinates that separate given columns from free ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr

from .._utils.triangular import divide_by_triangle
from .._utils.units import column_norms

# Squares of larger coordinates would overflow.
_LARGEST = 1e150


@dataclass(frozen=True, eq=False)
class Frame:
    """Orthonormal axes of coordinates z, the first of which determine the given columns of X.

    Rows are x = origin + z @ axes. With z @ given_axes fixed, the given columns are fixed, and
    z @ free_axes runs over all values of the free columns.
    """

    origin: np.ndarray  # (n_given,): the given columns of the row at z = 0
    given_axes: np.ndarray  # (d, n_given): orthonormal columns
    # (d, n_free): orthonormal columns, orthogonal to `given_axes`. A single free column
    # increases along its axis.
    free_axes: np.ndarray
    units: np.ndarray  # (n_given,): what the given columns are divided by
    order: np.ndarray  # (n_given,): the order of the given columns in `triangle`
    # (n_given, n_given): maps coordinates along `given_axes` to the given columns, in their units
    # and order
    triangle: np.ndarray
    # Added to a log-density of the free coordinates, it gives that of the free columns
    log_volume: float

    @classmethod
    def of(
        cls, origin: np.ndarray, axes: np.ndarray, log_abs_det: float, columns: np.ndarray
    ) -> Frame:
        """Return the frame of rows origin + z @ axes, (d,) and (d, d), with log |det axes|.

        Rows of `axes` may differ in size by many orders of magnitude, the largest first: Householder
        steps with pivoting keep the digits of the smallest (Cox and Higham 1998).
        """
        to_given = axes[:, columns]
        units = column_norms(to_given)
        rotation, triangle, order = qr(to_given / units, pivoting=True)
        n_given = len(columns)
        free_axes = rotation[:, n_given:]
        if free_axes.shape[1] == 1:
            free = np.setdiff1d(np.arange(len(axes)), columns)
            free_axes = free_axes * np.where(free_axes[:, 0] @ axes[:, free[0]] < 0, -1.0, 1.0)
        triangle = triangle[:n_given]
        log_given = np.log(np.abs(np.diag(triangle))).sum() + np.log(units).sum()
        return cls(
            origin[columns],
            rotation[:, :n_given],
            free_axes,
            units,
            order,
            triangle,
            float(log_given) - log_abs_det,
        )

    def given(self, values: np.ndarray) -> np.ndarray:
        """Return the coordinates (n, n_given) along `given_axes` of given values (n, n_given)."""
        shifted = ((values - self.origin) / self.units)[:, self.order]
        inside = divide_by_triangle(shifted, self.triangle.T)
        return np.clip(inside, -_LARGEST, _LARGEST)
