"""Maps from rows of X to hull coordinates in the metric, in which the flow runs, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.gaussian import gaussian_log_normalizer
from .hull import AffineHull
from .metric import LinearMetric

__all__ = ["Embedding"]


@dataclass(frozen=True)
class Embedding:
    """The affine hull of the data in the coordinates of a metric.

    Rows X (n, d) are in the user's units; hull coordinates are (n, r); residuals (n, d) are the
    part of a row outside the hull, in the metric. Along residuals the density is Gaussian at every
    noise scale.

    Parameters
    ----------
    metric : LinearMetric
        The coordinates in which noise is isotropic.
    hull : AffineHull
        The affine hull of the data in them.
    """

    metric: LinearMetric
    hull: AffineHull

    def split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return hull coordinates and residuals of rows."""
        return self.hull.split(self.metric.to_metric(X))

    def rows(
        self, coordinates: np.ndarray, scales: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        """Return rows in the user's units from hull coordinates, plus noise outside the hull."""
        rows = self.hull.lift(coordinates)
        if self.hull.codimension:
            rows += scales * self.hull.project_out(rng.standard_normal(rows.shape))
        return self.metric.from_metric(rows)

    def gradient(self, score: np.ndarray, residual: np.ndarray, v: float) -> np.ndarray:
        """Return a score in the columns of X, from one in hull coordinates and residuals."""
        return self.metric.gradient_from_metric(score @ self.hull.basis.T - residual / v)

    @property
    def axes(self) -> np.ndarray:
        """The linear map (r, d) from scores in hull coordinates to scores in the columns of X."""
        return self.metric.gradient_from_metric(self.hull.basis.T)

    def check_laplacian(self, name: Any) -> None:
        """Raise ValueError if a divergence in these coordinates is not that in the columns of X.

        `name` is the user's parameter `metric`, for the message.
        """
        if not self.metric.is_euclidean:
            raise ValueError(
                f"metric={name!r} has no Laplacian in closed form along the columns of X; fit "
                "with metric='euclidean', or use score_samples, which is comparable between metrics."
            )

    def residual_scale(self, widest: float) -> float:
        """Return the scale of residuals (n, d) that is one in scaled columns.

        In the user's own columns it is `widest`, that of the data along their widest axis.
        """
        return widest if np.all(self.metric.columns == 1) else self.metric.rest

    def log_density_outside_hull(self, residual: np.ndarray, scale: float) -> np.ndarray:
        """Return the log-density (n,) of the residuals plus the metric's log |det|, in nats."""
        normalizer = gaussian_log_normalizer(self.hull.codimension, scale**2)
        quadratic = 0.5 * np.sum((residual / scale) ** 2, axis=1)
        return self.metric.log_abs_det - quadratic - normalizer
