"""Comparison of metrics, scales and backgrounds by the likelihood of rows left out or held out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .._coordinates.columns import ColumnSpace
from .._coordinates.metric import is_scaled
from .._utils.rows import merge_duplicates
from .._utils.shards import ONE_PROCESS
from ..solvers import Heun
from .background import background_weight, mixed
from .fitting import (
    DEFAULT_FACTORS,
    Factors,
    Geometry,
    TrainingData,
    leave_one_out_bandwidth,
    make_geometry,
    make_model,
)
from .settings import Metric, ParsedParameters

__all__ = ["Comparison", "Settings", "choose_settings", "folds_for_metrics", "settings_for"]

Folds = Sequence[tuple[np.ndarray, np.ndarray]]

# What the factors are chosen from; metrics are compared at the first pair. The evidence is in
# docs/defaults.md.
FACTORS = (DEFAULT_FACTORS, (0.85, 1.0), (0.85, 2.0), (0.7, 1.5), (0.7, 3.0), (0.55, 3.0))
# Nodes, levels and steps under which candidates are compared.
SCREENING_NODES, SCREENING_LEVELS = 16, 8
# Ratios to the leave-one-out bandwidth hardly depend on the number of rows; so many are enough.
_MOST_ROWS = 2000

# A metric that was fitted with the row that is left out is too good for it, the more so the fewer rows
# there are for each column: up to so many, metrics are fitted without the rows that judge them.
# A covariance has one parameter for each pair of columns.
_FEW_ROWS_A_COLUMN, _FEW_ROWS_A_PAIR = 20, 2
_N_FOLDS = 5


class Settings(NamedTuple):
    """Metric, scale factors and weight of the background, which are chosen together."""

    metric: Metric
    factors: Factors
    """Bandwidth and smoothing scale in units of the KDE's leave-one-out bandwidth."""
    background: float
    """Weight of the background."""


def folds_for_metrics(points: np.ndarray, columns: ColumnSpace) -> Folds | None:
    """Return the folds on which metrics are compared, or None to leave out single rows."""
    n_points, d = len(points), columns.n_directions
    if n_points > max(_FEW_ROWS_A_COLUMN * d, _FEW_ROWS_A_PAIR * d**2):
        return None
    n_folds = min(_N_FOLDS, n_points)
    # Here and not above: loading it takes half as long as the whole of this package.
    from sklearn.model_selection import KFold

    # Folds of neighbours would leave whole regions out.
    order = columns.order(points)
    splits = KFold(n_folds, shuffle=True, random_state=0).split(points)
    return [(np.sort(order[train]), np.sort(order[test])) for train, test in splits]


class Comparison:
    """Mean held-out log-densities of models under several settings, on the same rows.

    Parameters
    ----------
    parsed : ParsedParameters
        All that is not compared.
    points : ndarray of shape (n_points, n_features)
        Rows; they must be distinct if they are left out one by one.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    metrics : sequence
        Metrics to compare.
    columns : ColumnSpace or None
        Relations between the columns, which all folds share; None for metrics without.
    folds : sequence of pairs of index arrays, optional
        Training and test rows. None leaves each row out of all the others, exactly.
    """

    def __init__(
        self,
        parsed: ParsedParameters,
        points: np.ndarray,
        weights: np.ndarray,
        metrics: Sequence[Metric],
        columns: ColumnSpace | None,
        folds: Folds | None = None,
    ) -> None:
        self.parsed = parsed
        self.points, self.weights = points, weights
        self.metrics = metrics
        everything = np.arange(len(points))
        self.folds = [(everything, everything)] if folds is None else folds
        self.leaves_one_out = folds is None
        self.columns = columns
        self._prepared: dict[int, list[tuple[Geometry, float]]] = {}

    def score(
        self, metric_index: int, factors: Factors, *, is_screening: bool
    ) -> tuple[float, Settings]:
        """Return the mean held-out log-density, in nats a row, and the settings with a background.

        `is_screening` takes few nodes, levels and steps.
        """
        self.prepare(metric_index)
        parsed = _for_screening(self.parsed) if is_screening else self.parsed
        parts = []
        for (_, test), (geometry, h) in zip(self.folds, self._prepared[metric_index], strict=True):
            bandwidth, sigma = factors[0] * h, factors[1] * h / geometry.unit
            model, _ = make_model(geometry, parsed, bandwidth, sigma, is_candidate=True)
            resources = parsed.resources
            parts_of_fold = (
                model.leave_one_out_parts(resources)
                if self.leaves_one_out
                else model.parts(self.points[test], resources)
            )
            parts.append((*parts_of_fold, self.weights[test]))
        flow, background, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        weights = weights / weights.sum()
        weight = self.parsed.background
        if weight is None:
            weight = background_weight(flow, background, weights)
        score = float(weights @ mixed(flow, background, weight))
        return score, Settings(self.metrics[metric_index], factors, weight)

    def prepare(self, metric_index: int) -> None:
        """Transform the rows of each fold to a metric, and compute the KDE's bandwidth, once."""
        if metric_index not in self._prepared:
            self._prepared[metric_index] = [
                geometry_and_bandwidth(
                    self.metrics[metric_index],
                    self.points[train],
                    self.weights[train],
                    self.parsed,
                    self.columns,
                )
                for train, _ in self.folds
            ]


def geometry_and_bandwidth(
    metric: Metric,
    points: np.ndarray,
    weights: np.ndarray,
    parsed: ParsedParameters,
    columns: ColumnSpace | None = None,
) -> tuple[Geometry, float]:
    """Return rows in coordinates of a metric, and the KDE's leave-one-out bandwidth there."""
    points, weights = merge_duplicates(points, weights / weights.sum())
    data = TrainingData(points, weights, ONE_PROCESS, len(points), is_weighted=True)
    columns = None if columns is None else columns.of_rows(points, weights)
    geometry = make_geometry(metric, data, parsed, columns)
    return geometry, leave_one_out_bandwidth(geometry, parsed)


def _for_screening(parsed: ParsedParameters) -> ParsedParameters:
    return replace(
        parsed,
        rule=replace(parsed.rule, n_nodes=SCREENING_NODES),
        n_levels=SCREENING_LEVELS,
        steps_per_level=1,
        solver=Heun(),
        tolerance=0.0,
    )


def settings_for(data: TrainingData, parsed: ParsedParameters) -> Settings:
    """Return metric, factors and background; those that are "auto" are chosen."""
    requested, metric = parsed.requested, parsed.metric
    if parsed.base is not None:
        is_plain = parsed.is_metric_free or (isinstance(metric, str) and metric == "euclidean")
        if not is_plain or parsed.background:
            raise ValueError(
                f"base={requested['base']!r} has covariances of its own and takes neither "
                f"metric={requested['metric']!r} nor background={requested['background']!r}; leave "
                "both at 'auto', and use skdiffsmooth.compose.TransformedDensity or DensityStacking "
                "around it."
            )
        return Settings("euclidean", DEFAULT_FACTORS, 0.0)
    plain = Settings(
        "euclidean" if parsed.is_metric_free else metric, DEFAULT_FACTORS, parsed.background or 0.0
    )
    if len(data.points) < 2 or not parsed.are_scales_free:
        return plain
    if not parsed.kernel.candidate_metrics(1):
        return plain
    metrics: tuple[Metric, ...] = (metric,)
    if parsed.is_metric_free and not isinstance(parsed.terminal_scale, str):
        # A number has the unit of one metric only.
        metrics = ("euclidean",)
    elif parsed.is_metric_free:
        metrics = parsed.kernel.candidate_metrics(data.rank)
    return choose_settings(data, parsed, metrics)


def choose_settings(
    data: TrainingData, parsed: ParsedParameters, metrics: Sequence[Metric]
) -> Settings:
    """Choose the metric at default factors, then the factors in that metric.

    Candidates are scored by the log-likelihood of the model itself on at most 2000 rows taken evenly,
    with few nodes, levels and steps: factors by leaving out each row, metrics so too or, with few rows,
    by folds.
    """
    rows, row_weights = data.points, data.weights
    columns = data.columns if any(map(is_scaled, metrics)) else None
    if len(rows) > _MOST_ROWS:
        taken = np.linspace(0, len(rows) - 1, _MOST_ROWS).round().astype(np.intp)
        taken = np.sort(data.columns.order(rows)[taken])
        rows, row_weights = rows[taken], row_weights[taken] / row_weights[taken].sum()
    # A terminal scale that does not fit is an error of the model that is chosen, not of a candidate.
    parsed = replace(parsed, terminal_scale="auto", resources=parsed.resources._replace(n_jobs=1))
    one_by_one = Comparison(parsed, rows, row_weights, metrics, columns)
    with warnings.catch_warnings():
        # What is worth a warning is so for the model that is chosen, whose fit repeats it.
        warnings.simplefilter("ignore")
        best, tried = 0, []
        if len(metrics) > 1:
            folds = folds_for_metrics(rows, data.columns)
            compared = (
                one_by_one
                if folds is None
                else Comparison(parsed, rows, row_weights, metrics, columns, folds)
            )
            by_metric = [
                compared.score(index, DEFAULT_FACTORS, is_screening=True)
                for index in range(len(metrics))
            ]
            # Of equal scores the first stands: the simpler metric.
            best = int(np.argmax([score for score, _ in by_metric]))
            if compared is one_by_one:
                tried.append(by_metric[best])
        # The default factors come first, and may have been scored with the metrics.
        tried += [one_by_one.score(best, pair, is_screening=True) for pair in FACTORS[len(tried) :]]
    return max(tried, key=lambda scored: scored[0])[1]
