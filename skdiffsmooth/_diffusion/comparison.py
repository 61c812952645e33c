"""Comparison of metrics, scales and backgrounds by the likelihood of rows left out or held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._coordinates.columns import ColumnSpace
from .._coordinates.metric import is_scaled, is_warped, warped
from .._utils.dequantize import excluded_rows
from .._utils.rows import merge_duplicates
from .._utils.shards import ONE_PROCESS
from .._utils.warnings import without_warnings
from ..solvers import Heun
from .background import background_weight, mixed
from .fitting import (
    DEFAULT_FACTORS,
    MOST_ROWS,
    Geometry,
    Scales,
    TrainingData,
    given_or_default,
    leave_one_out_bandwidth,
    make_geometry,
    make_model,
    rounding_error,
    scales_in,
)
from .settings import Metric, ParsedParameters, Relative

__all__ = [
    "Comparison",
    "Settings",
    "choose_settings",
    "folds_for_metrics",
    "metrics_to_compare",
    "settings_for",
]

Folds = Sequence[tuple[np.ndarray, np.ndarray]]

# What the scales are chosen from, in units of the leave-one-out bandwidth: both, or one where the other
# is given. Metrics are compared at the first. The evidence is in docs/defaults.md.
_BOTH = (DEFAULT_FACTORS, (0.85, 1.0), (0.85, 2.0), (0.7, 1.5), (0.7, 3.0), (0.55, 3.0))
_BANDWIDTHS = (0.85, 1.0, 0.7, 0.55)
_SIGMAS = (1.5, 0.5, 1.0, 2.0, 3.0, 5.0)
# Nodes, levels and steps under which candidates are compared.
SCREENING_NODES, SCREENING_LEVELS = 32, 8
# Metrics depend on the number of rows even less than ratios to the leave-one-out bandwidth do.
_MOST_ROWS_FOR_METRICS = 1000
# Of the metrics so many are compared by the model: those in which the kernel density estimate, the model
# without smoothing, has the highest likelihoods.
_KDE: Scales = (Relative(1.0), 0.0)
_N_METRICS = 3

# Why "auto" is no choice where both scales are numbers.
_ABSOLUTE = "bandwidth and sigma are numbers, in units of X"

# A metric that was fitted with the row that is left out is too good for it, the more so the fewer rows
# there are for each column: up to so many, metrics are fitted without the rows that judge them.
# A covariance has one parameter for each pair of columns.
_FEW_ROWS_A_COLUMN, _FEW_ROWS_A_PAIR = 20, 2
_N_FOLDS = 5


class Settings(NamedTuple):
    """Metric, scales and weight of the background, which are chosen together."""

    metric: Metric
    scales: Scales
    """Bandwidth and smoothing scale."""
    background: float
    """Weight of the background."""

    def parameters(self, parsed: ParsedParameters) -> dict[str, Any]:
        """Return the parameters of an estimator that has these settings without comparing any."""
        scales = {
            # Over a base "auto" compares nothing, and multiples of the scale of a mixture have no name.
            name: str(scale)
            if isinstance(scale, Relative) and parsed.base is None
            else parsed.requested[name]
            for name, scale in zip(("bandwidth", "sigma"), self.scales, strict=True)
        }
        return {"metric": self.metric, **scales, "background": self.background}


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
    data : TrainingData
        All rows, whose columns all folds share.
    points : ndarray of shape (n_points, n_features)
        Rows; they must be distinct if they are left out one by one.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    metrics : sequence
        Metrics to compare.
    folds : sequence of pairs of index arrays, optional
        Training and test rows. None leaves each row out of all the others, exactly. Where columns are
        rounded, rows are scored at places where they may have been before.
    """

    def __init__(
        self,
        parsed: ParsedParameters,
        data: TrainingData,
        points: np.ndarray,
        weights: np.ndarray,
        metrics: Sequence[Metric],
        folds: Folds | None = None,
    ) -> None:
        self.parsed = parsed
        self.data = data
        self.excluded = excluded_rows(points, weights, data.widths)
        self.points, self.weights = points, weights
        self.metrics = metrics
        everything = np.arange(len(points))
        self.folds = [(everything, everything)] if folds is None else folds
        self.leaves_one_out = folds is None
        self._prepared: dict[int, list[tuple[Geometry, float]]] = {}

    def score(
        self, metric_index: int, scales: Scales, *, is_screening: bool
    ) -> tuple[float, Settings, list[float]]:
        """Return the mean held-out log-density, the settings with a background, and folds' means.

        Means are in nats a row. `is_screening` takes few nodes, levels and steps.
        """
        self.prepare(metric_index)
        metric, background = self.metrics[metric_index], self.parsed.background
        parsed = _for_screening(self.parsed) if is_screening else self.parsed
        parts, tails, weights = [], [], []
        for (_, test), (geometry, h) in zip(self.folds, self._prepared[metric_index], strict=True):
            bandwidth, sigma = scales_in(geometry, parsed, scales, h)
            if bandwidth < rounding_error(geometry):
                lowest = [-np.inf] * len(self.folds)
                return -np.inf, Settings(metric, scales, background or 0.0), lowest
            held_out, queries = geometry, None
            rows, test_weights = self.points[test], self.weights[test]
            if self.excluded is not None:
                used = np.isin(self.excluded.exclude, test)
                test_weights = self.excluded.query_weights[used]
                if self.leaves_one_out:
                    held_out, queries = geometry.with_copies_apart(), geometry.queries
                else:
                    offsets = self.excluded.offsets[used]
                    if is_scaled(metric):
                        offsets = self.data.columns.along(offsets)
                    rows = self.points[self.excluded.exclude[used]] + offsets
            with without_warnings():
                model, _ = make_model(held_out, parsed, bandwidth, sigma, is_candidate=True)
                parts.append(
                    model.leave_one_out_parts(parsed.resources, queries)
                    if self.leaves_one_out
                    else model.parts(rows, parsed.resources)
                )
            tails.append(np.full(len(test_weights), model.tail.weight if model.tail else 0.0))
            weights.append(test_weights)
        log_densities, tail = np.concatenate(parts), np.concatenate(tails)
        row_weights = np.concatenate(weights)
        row_weights = row_weights / row_weights.sum()
        if background is None:
            background = background_weight(log_densities, tail, row_weights)
        by_row = mixed(log_densities, background, tail)
        by_fold = np.split(by_row, np.cumsum([len(part) for part in weights])[:-1])
        means = [
            float(np.average(part, weights=weight))
            for part, weight in zip(by_fold, weights, strict=True)
        ]
        return float(row_weights @ by_row), Settings(metric, scales, background), means

    def prepare(self, metric_index: int) -> None:
        """Transform the rows of each fold to a metric, and compute the KDE's bandwidth, once."""
        if metric_index not in self._prepared:
            metric = self.metrics[metric_index]
            with without_warnings():
                self._prepared[metric_index] = [
                    _prepared(
                        metric,
                        self.points[train],
                        self.weights[train],
                        self.parsed,
                        self.data.columns_for(metric),
                        self.data.widths,
                    )
                    for train, _ in self.folds
                ]


def _prepared(
    metric: Metric,
    points: np.ndarray,
    weights: np.ndarray,
    parsed: ParsedParameters,
    columns: ColumnSpace | None,
    widths: np.ndarray | None,
) -> tuple[Geometry, float]:
    """Return rows in coordinates of a metric, and the KDE's leave-one-out bandwidth there."""
    points, weights = merge_duplicates(points, weights / weights.sum())
    n_points = len(points)
    data = TrainingData(points, weights, ONE_PROCESS, n_points, is_weighted=True, widths=widths)
    columns = None if columns is None else columns.of_rows(points, weights)
    geometry = make_geometry(metric, data, parsed, columns)
    return geometry, leave_one_out_bandwidth(geometry, parsed)


def _for_screening(parsed: ParsedParameters) -> ParsedParameters:
    return replace(
        parsed,
        rule=replace(parsed.rule, n_nodes=SCREENING_NODES),
        n_levels=SCREENING_LEVELS,
        n_steps=SCREENING_LEVELS,
        solver=Heun(),
        tolerance=0.0,
    )


def settings_for(data: TrainingData, parsed: ParsedParameters) -> tuple[Settings, dict[str, str]]:
    """Return metric, scales and background, and for each that is "auto" why it was not chosen.

    What is "auto" is chosen given what is not.
    """
    requested, metric = parsed.requested, parsed.metric
    reason = ""
    if parsed.base is not None:
        is_plain = parsed.is_metric_free or (isinstance(metric, str) and metric == "euclidean")
        if not is_plain or parsed.background:
            raise ValueError(
                f"base={requested['base']!r} has covariances of its own and takes neither "
                f"metric={requested['metric']!r} nor background={requested['background']!r}; leave "
                "both at 'auto', and use skdiffsmooth.compose.TransformedDensity or DensityStacking "
                "around it."
            )
        reason = "a base has covariances of its own, and sets the scales"
    elif parsed.are_scales_absolute:
        reason = _ABSOLUTE
    elif len(data.points) < 2:
        reason = "there are fewer than two distinct rows"
    elif not parsed.kernel.candidate_metrics(data.rank):
        reason = "log-densities take long where offsets depend on the query"
    if reason:
        metric = "euclidean" if parsed.is_metric_free else metric
        plain = Settings(metric, given_or_default(parsed), parsed.background or 0.0)
        return plain, dict.fromkeys(_left_at_auto(parsed), reason)
    metrics, reason = metrics_to_compare(parsed, data)
    return choose_settings(data, parsed, metrics), {"metric": reason} if reason else {}


def metrics_to_compare(
    parsed: ParsedParameters, data: TrainingData
) -> tuple[tuple[Metric, ...], str]:
    """Return the candidate metrics for training rows; why there is only one, or ""."""
    if not parsed.is_metric_free:
        return (parsed.metric,), ""
    if parsed.are_scales_absolute:
        return ("euclidean",), _ABSOLUTE
    if not isinstance(parsed.terminal_scale, str):
        return ("euclidean",), "terminal_scale is a number, in units of X"
    metrics = parsed.kernel.candidate_metrics(data.rank)
    if any(map(is_scaled, metrics)) and data.warped_columns is not None:
        metrics = (*metrics, *(warped(metric) for metric in metrics if is_scaled(metric)))
    if parsed.has_absolute_scale or not metrics:
        # The number may have been meant in units of X, or of the standard deviations of the columns.
        metrics = tuple(dict.fromkeys(("euclidean", *metrics)))
    return metrics, f"kernel and rows allow {metrics[0]!r} only" if len(metrics) == 1 else ""


def _left_at_auto(parsed: ParsedParameters) -> list[str]:
    """Return the names of the parameters that are to be chosen."""
    free = {
        "metric": parsed.is_metric_free,
        "bandwidth": parsed.bandwidth is None,
        "sigma": parsed.sigma is None,
        "background": parsed.background is None,
    }
    return [name for name, is_free in free.items() if is_free]


def _candidate_scales(parsed: ParsedParameters) -> list[Scales]:
    """Return the scales to compare; those that were given are the same in all."""
    factors: Sequence[tuple[float, float]] = _BOTH
    if parsed.sigma is not None:
        factors = [(bandwidth, 0.0) for bandwidth in _BANDWIDTHS]
    elif parsed.bandwidth is not None:
        factors = [(0.0, sigma) for sigma in _SIGMAS]
    return list(dict.fromkeys(given_or_default(parsed, pair) for pair in factors))


def choose_settings(
    data: TrainingData, parsed: ParsedParameters, metrics: Sequence[Metric]
) -> Settings:
    """Choose the metric at default scales, then the scales in that metric.

    Of more than three metrics those are compared in which the kernel density estimate is likeliest,
    after the choice whether columns are mapped. Candidates are scored by the log-likelihood of the model
    itself on at most 2000 rows taken evenly, metrics on 1000, with few nodes, levels and steps: scales
    by leaving out each row, metrics so too or, with few rows, by folds.
    """
    candidates = _candidate_scales(parsed)
    if len(metrics) == len(candidates) == 1 and parsed.background is not None:
        return Settings(metrics[0], candidates[0], parsed.background)
    # A terminal scale that does not fit is an error of the model that is chosen, not of a candidate.
    parsed = replace(parsed, terminal_scale="auto", resources=parsed.resources._replace(n_jobs=1))
    one_by_one = Comparison(parsed, data, *_evenly(data, MOST_ROWS), metrics)
    best, tried = 0, []
    if len(metrics) > 1:
        rows, row_weights = _evenly(data, _MOST_ROWS_FOR_METRICS)
        folds = folds_for_metrics(rows, data.columns)
        compared = one_by_one
        if folds is not None or len(rows) < len(one_by_one.points):
            compared = Comparison(parsed, data, rows, row_weights, metrics, folds)
        likely = list(range(len(metrics)))
        if len(metrics) > _N_METRICS:
            likely = _likely_metrics(compared)
        by_metric = {
            index: compared.score(index, candidates[0], is_screening=True) for index in likely
        }
        # Of equal scores the first stands: the simpler metric.
        best = max(by_metric, key=lambda index: by_metric[index][0])
        if compared is one_by_one:
            tried.append(by_metric[best])
    # The default scales come first, and may have been scored with the metrics.
    tried += [one_by_one.score(best, pair, is_screening=True) for pair in candidates[len(tried) :]]
    return max(tried, key=lambda scored: scored[0])[1]


def _likely_metrics(compared: Comparison) -> list[int]:
    """Return the indices of the three metrics in which the kernel density estimate is likeliest.

    Columns are mapped in all of them or in none, as in the likeliest of the first and last of both
    kinds.
    """
    both: dict[bool, list[int]] = {}
    for index, metric in enumerate(compared.metrics):
        both.setdefault(is_warped(metric), []).append(index)
    scores = {
        index: compared.score(index, _KDE, is_screening=True)[0]
        for indices in both.values()
        for index in (indices[0], indices[-1])
    }
    likely = both[is_warped(compared.metrics[max(scores, key=lambda index: scores[index])])]
    for index in likely[1:-1]:
        scores[index] = compared.score(index, _KDE, is_screening=True)[0]
    return sorted(sorted(likely, key=lambda index: -scores[index])[:_N_METRICS])


def _evenly(data: TrainingData, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most so many rows, taken evenly, and their weights, which sum to one."""
    if len(data.points) <= most:
        return data.points, data.weights
    taken = np.linspace(0, len(data.points) - 1, most).round().astype(np.intp)
    taken = np.sort(data.columns.order(data.points)[taken])
    return data.points[taken], data.weights[taken] / data.weights[taken].sum()
