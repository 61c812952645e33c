"""Axes of the metric that separate given columns from free ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metric import LinearMetric

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """Orthonormal axes of the metric, the last of which determine the given columns of X.

    Parameters
    ----------
    metric : LinearMetric
        Maps rows to coordinates in which noise is isotropic, and back.
    center : ndarray of shape (d,)
        The origin, in those coordinates.
    axes : ndarray of shape (d, d)
        Orthonormal columns: coordinates u have free ones u @ axes[:, :n_free], and the given columns
        of X are a function of the others.
    triangle : ndarray of shape (n_given, n_given)
        Maps those others to the given columns of X.
    columns : ndarray of shape (n_given,)
        Indices of the given columns.
    """

    metric: LinearMetric
    center: np.ndarray
    axes: np.ndarray
    triangle: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, metric: LinearMetric, center: np.ndarray, columns: np.ndarray) -> Frame:
        """Rotate the metric's coordinates so that the given columns depend on the last ones only."""
        # x_b = u M_b; with M_b = Q R, x_b depends on the first axes of Q only.
        to_given = metric.steps_from_metric(np.eye(len(center)))[:, columns]
        axes, triangle = np.linalg.qr(to_given, mode="complete")
        n_given = len(columns)
        axes = np.hstack([axes[:, n_given:], axes[:, :n_given]])
        return cls(metric, center, axes, triangle[:n_given], columns)

    def coordinates(self, X: np.ndarray) -> np.ndarray:
        """Return the centred coordinates of rows of X in the frame."""
        return (self.metric.to_metric(X) - self.center) @ self.axes

    def given(self, values: np.ndarray) -> np.ndarray:
        """Return the centred coordinates of given values (n, n_given) in the frame."""
        n_given = len(self.triangle)
        values = values - self.metric.columns.origin[self.columns]
        inside = np.linalg.solve(self.triangle.T, values.T).T
        return inside - self.center @ self.axes[:, len(self.axes) - n_given :]

    def rows(self, free: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return rows of X from their coordinates in the frame."""
        return self.metric.from_metric(np.hstack([free, given]) @ self.axes.T + self.center)

    @property
    def log_volume(self) -> float:
        """The constant to add to a log-density of free coordinates for that of free columns."""
        return self.metric.log_abs_det + float(np.log(np.abs(np.diag(self.triangle))).sum())
