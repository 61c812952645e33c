"""Maps from rows of X to hull coordinates in the metric, in which the flow runs, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.gaussian import gaussian_log_normalizer
from .hull import AffineHull
from .metric import LinearMetric


@dataclass(frozen=True)
class Embedding:
    """The affine hull of the data in the coordinates of a metric.

    Rows X (n, d) are in the user's units; hull coordinates are (n, r); residuals (n, d) are the
    part of a row outside the hull, in scaled columns (in metric coordinates for a matrix). Residuals
    have two orthogonal parts: along relations between columns the density is Gaussian with the width of
    rounding, and in the other directions outside the hull it is Gaussian with the noise scale.
    """

    metric: LinearMetric  # The coordinates in which noise is isotropic
    hull: AffineHull  # The affine hull of the data in them

    def split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return hull coordinates (n, r) and residuals (n, d) of rows."""
        columns = self.metric.columns
        scaled = columns.scaled(X)
        coordinates, residual = self.hull.split(self.metric.of_inside(columns.inside(scaled)))
        if columns.n_relations:
            residual = columns.lift(residual) + columns.outside(scaled)
        return coordinates, residual

    def rows(
        self,
        coordinates: np.ndarray,
        scales: np.ndarray,
        rng: np.random.RandomState,
        breaks_relations: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return rows in the user's units from hull coordinates, plus noise outside the hull.

        The noise has the scales (n, 1), but along relations it is as wide as rounding, except in rows
        with `breaks_relations` (n, 1).
        """
        rows = self.hull.lift(coordinates)
        if self.hull.codimension:
            rows += scales * self.hull.project_out(rng.standard_normal(rows.shape))
        columns = self.metric.columns
        scaled = self.metric.scaled_from_metric(rows)
        if columns.n_relations:
            noise = columns.relation_noise(scaled.shape, rng)
            if breaks_relations is not None and breaks_relations.any():
                breaking = columns.outside(scales * rng.standard_normal(scaled.shape))
                noise = np.where(breaks_relations, breaking, noise)
            scaled = scaled + noise
        return columns.unscaled(scaled)

    def rows_within(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the rows (n, d) in the hull, in the user's units, that have hull coordinates (n, r)."""
        scaled = self.metric.scaled_from_metric(self.hull.lift(coordinates))
        return self.metric.columns.unscaled(scaled)

    def gradient(self, score: np.ndarray, residual: np.ndarray, v: float) -> np.ndarray:
        """Return a score in the (mapped) columns of X, from one in hull coordinates and residuals."""
        columns = self.metric.columns
        if not columns.n_relations:
            return self.metric.gradient_from_metric(score @ self.hull.basis.T - residual / v)
        within = score @ self.hull.basis.T - columns.inside(residual) / v
        return (
            self.metric.gradient_from_metric(within)
            + columns.relation_gradient(columns.outside(residual)) / columns.scales
        )

    @property
    def axes(self) -> np.ndarray:
        """The linear map (r, d) from scores in hull coordinates to scores in the columns of X."""
        return self.metric.gradient_from_metric(self.hull.basis.T)

    @property
    def codimension(self) -> int:
        """Number of directions of X outside the hull, relations included."""
        return self.hull.codimension + self.metric.columns.n_relations

    def check_laplacian(self, name: Any) -> None:
        """Raise ValueError if a divergence in the metric is not that in X; `name` is the metric."""
        if not self.metric.is_euclidean:
            raise ValueError(
                f"metric={name!r} has no Laplacian in closed form along the columns of X; fit "
                "with metric='euclidean', or use score_samples, which is comparable between metrics."
            )

    def residual_scale(self, widest: float) -> float:
        """Return the scale of residuals (n, d): 1 if columns are scaled, `widest` if in units of X."""
        return widest if np.all(self.metric.columns.scales == self.metric.unit) else 1.0

    def log_slopes(self, coordinates: np.ndarray, residual: np.ndarray) -> np.ndarray | float:
        """Return the log |det| (n,) of the maps of columns at rows, in nats; 0 where none is mapped."""
        columns = self.metric.columns
        if columns.warp is None:
            return 0.0
        scaled = self.metric.scaled_from_metric(self.hull.lift(coordinates))
        return columns.log_slopes(scaled + residual)

    def log_density_outside_hull(self, residual: np.ndarray, scale: float) -> np.ndarray:
        """Return the log-density (n,) of residuals at `scale`, plus the metric's log |det|, in nats."""
        columns = self.metric.columns
        if not columns.n_relations:
            return self.isotropic_log_density(residual, scale)
        normalizer = gaussian_log_normalizer(self.hull.codimension, scale**2)
        quadratic = 0.5 * np.sum((columns.inside(residual) / scale) ** 2, axis=1)
        relations = columns.relation_log_density(columns.outside(residual))
        return relations + self.metric.log_abs_det - quadratic - normalizer

    def isotropic_log_density(self, residual: np.ndarray, width: float) -> np.ndarray:
        """Return the same as `log_density_outside_hull`, for one width in all directions."""
        normalizer = gaussian_log_normalizer(self.codimension, width**2)
        quadratic = 0.5 * np.sum((residual / width) ** 2, axis=1)
        return self.metric.log_abs_det - quadratic - normalizer
