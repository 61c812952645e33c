"""A transformer to scaled columns without exact relations, which some densities cannot handle."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from .._coordinates.columns import ColumnSpace
from .._utils.rows import check_sample_weight, merge_rows
from ._changes import ChangeOfVariables, registered


class IndependentColumns(TransformerMixin, BaseEstimator):
    """Divides columns by their scales, and drops the directions of exact relations between them.

    Without relations it is `StandardScaler`, up to a shift. In dropped directions the density is the
    narrow Gaussian that all densities of this package have along relations.
    """

    columns_: ColumnSpace

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> IndependentColumns:
        """Compute scales and relations of rows X (n, d); a row of weight k counts as k rows."""
        rows = np.asarray(X, dtype=np.float64)
        merged = merge_rows(rows, check_sample_weight(sample_weight, len(rows)))
        units = merged.precision.unit
        self.columns_ = ColumnSpace.of_part(merged.points, merged.weights, units, merged.whole)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return coordinates (n, d') of rows X (n, d)."""
        return self.columns_.inside(self.columns_.scaled(np.asarray(X, dtype=np.float64)))


class _Independent(ChangeOfVariables):
    """The change of variables of `IndependentColumns`, with the density along relations as a factor."""

    def __init__(self, transformer: IndependentColumns) -> None:
        self.columns = transformer.columns_
        slopes = None
        if self.columns.axes is None:
            log_slopes = -np.log(self.columns.scales)
            slopes = lambda X: np.broadcast_to(log_slopes, X.shape)  # noqa: E731
        super().__init__(transformer, onto=True, log_slopes=slopes)

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        columns = self.columns
        rows = columns.scaled(X)
        log_factor = columns.log_abs_det + columns.relation_log_density(columns.outside(rows))
        return columns.inside(rows), log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = self.columns.lift(Z) + self.columns.relation_noise(
            (len(Z), self.columns.n_features), generator
        )
        return self.columns.unscaled(rows), np.ones(len(Z), dtype=bool)


registered.register(IndependentColumns)(_Independent)
