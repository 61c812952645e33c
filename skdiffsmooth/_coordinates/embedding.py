"""The flow's coordinates within the space of the user: rows there and back, and what sticks out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.gaussian import log_normalizer
from .hull import AffineHull
from .metric import LinearMetric

__all__ = ["Embedding"]


@dataclass(frozen=True)
class Embedding:
    """An affine hull in the coordinates of a metric.

    What sticks out of the hull is exactly Gaussian, at every noise scale.

    Parameters
    ----------
    metric : LinearMetric
        The coordinates in which noise is isotropic.
    hull : AffineHull
        The affine hull of the data there.
    """

    metric: LinearMetric
    hull: AffineHull

    def split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the hull coordinates of rows, and what sticks out of the hull, in the metric.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Rows in units of the user.

        Returns
        -------
        coordinates : ndarray of shape (n, r)
        residual : ndarray of shape (n, d)
        """
        return self.hull.split(self.metric.to_metric(X))

    def rows(
        self, coordinates: np.ndarray, scales: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        """Return rows in units of the user, with noise in the directions outside the hull.

        Parameters
        ----------
        coordinates : ndarray of shape (n, r)
            Hull coordinates.
        scales : ndarray of shape (n, 1)
            Noise scale of each row.
        rng : RandomState
            Source of that noise.

        Returns
        -------
        ndarray of shape (n, d)
        """
        rows = self.hull.lift(coordinates)
        if self.hull.codimension:
            rows += scales * self.hull.project_out(rng.standard_normal(rows.shape))
        return self.metric.from_metric(rows)

    def gradient(self, within: np.ndarray, residual: np.ndarray, v: float) -> np.ndarray:
        """Return a score along the columns of the user.

        Parameters
        ----------
        within : ndarray of shape (n, r)
            The score in hull coordinates.
        residual : ndarray of shape (n, d)
            What sticks out of the hull.
        v : float
            Noise variance.

        Returns
        -------
        ndarray of shape (n, d)
        """
        return self.metric.gradient_from_metric(within @ self.hull.basis.T - residual / v)

    @property
    def axes(self) -> np.ndarray:
        """The linear map of scores in hull coordinates to the columns of the user, (r, d)."""
        return self.metric.gradient_from_metric(self.hull.basis.T)

    def check_laplacian(self, name: Any) -> None:
        """Raise unless a divergence in these coordinates is one along the columns of the user.

        Parameters
        ----------
        name : object
            What the user calls the metric.

        Raises
        ------
        ValueError
            If the metric is not Euclidean.
        """
        if not self.metric.is_euclidean:
            raise ValueError(
                f"metric={name!r} has no Laplacian in closed form along the columns of X; fit "
                "with metric='euclidean', or use score_samples, which is comparable between metrics."
            )

    def log_density_beside(self, residual: np.ndarray, scale: float) -> np.ndarray:
        """Return what log-densities have beside the flow: the residual's, and the metric's volume.

        Parameters
        ----------
        residual : ndarray of shape (n, d)
            What sticks out of the hull.
        scale : float
            Noise scale.

        Returns
        -------
        ndarray of shape (n,)
        """
        quadratic = 0.5 * np.sum((residual / scale) ** 2, axis=1)
        return self.metric.log_abs_det - quadratic - log_normalizer(self.hull.codimension, scale)
