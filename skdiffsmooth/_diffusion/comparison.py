"""Comparison of metrics, scales and backgrounds by the likelihood of rows left out or held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._coordinates.columns import ColumnSpace
from .._coordinates.metric import is_scaled, is_warped, warped
from .._utils.progress import Loop, counted
from .._utils.rows import merge_duplicates
from .._utils.validation import LARGEST
from .._utils.warnings import without_warnings
from ..solvers import Heun, Multistep
from .background import WIDTH, background_weight, choose_tail, mixed
from .fitting import MOST_ROWS
from .geometry import (
    DEFAULT_FACTORS,
    Factors,
    Geometry,
    Scales,
    given_or_default,
    make_geometry,
    rounding_error,
    scales_in,
)
from .held_out import Fold, HeldOutRows
from .settings import Metric, ParsedParameters, Relative, Sigma
from .tails import StudentT
from .training_data import TrainingData

Folds = Sequence[tuple[np.ndarray, np.ndarray]]


class _Candidates(NamedTuple):
    """Factors of bandwidth and smoothing scale, in the order in which they are compared."""

    always: tuple[Factors, ...]
    wider: tuple[Factors, ...]
    narrower: tuple[Factors, ...]


# Candidates for bandwidth and sigma, as multiples of the leave-one-out bandwidth: for both, or for one
# (0.0 for the other, which is given). The default comes first; metrics are compared with it, too. Wider
# smoothing is tried as long as the likelihood increases, and narrower if the first wider candidate is
# worse than the default. Evidence: docs/evidence/defaults.md.
_BOTH = _Candidates(
    (DEFAULT_FACTORS, (0.7, 1.5)), ((0.85, 2.0), (0.7, 3.0), (0.55, 3.0)), ((0.85, 1.0),)
)
_BANDWIDTHS = _Candidates(((0.85, 0.0),), ((1.0, 0.0),), ((0.7, 0.0), (0.55, 0.0)))
_SIGMAS = _Candidates(((0.0, 1.5),), ((0.0, 2.0), (0.0, 3.0), (0.0, 5.0)), ((0.0, 1.0), (0.0, 0.5)))
# Number of nodes with which candidates are compared; number of levels (of one step each) and solver in
# few and in many dimensions. A step takes one evaluation in up to ten dimensions, and two in more, where
# errors of single evaluations would lower the weight of the background.
_NODES, _MOST_DIMENSIONS = 32, 10
_FEW_DIMENSIONS, _MANY_DIMENSIONS = (6, Multistep()), (5, Heun())
# Most rows at which candidates are scored in screening.
MOST_JUDGES = 256
# Most training rows when metrics are compared: the best metric hardly depends on the number of rows.
_MOST_ROWS_FOR_METRICS = 1000
# Metrics are first compared by the likelihood of the kernel density estimate, which is the model without
# smoothing. The best `_N_METRICS` that are within `_CLOSE` nats are then compared by the smoothed model.
KDE: Scales = (Relative(1.0), 0.0)
_N_METRICS, _CLOSE = 3, 0.3
# Scores whose relative difference is smaller are equal up to rounding.
_ROUNDING = 1e-9

# Why "auto" compares nothing where both scales are numbers.
_ABSOLUTE = "bandwidth and sigma are numbers, in units of X"

# The likelihood of a left-out row is too high in a metric that was fitted to this row too, most of all
# with few rows per column. With at most this many rows per column, or per pair of columns (a covariance
# has one parameter for each), metrics are fitted without the rows at which they are scored.
_FEW_ROWS_A_COLUMN, _FEW_ROWS_A_PAIR = 20, 2
_N_FOLDS = 5


class Settings(NamedTuple):
    """Metric, scales and weight of the background, which are chosen together."""

    metric: Metric
    scales: Scales  # Bandwidth and smoothing scale
    background: float  # Weight of the background

    def parameters(self, parsed: ParsedParameters) -> dict[str, Any]:
        """Return parameters with which an estimator has these settings without a comparison."""
        scales = {
            name: _named(scale, parsed, name)
            for name, scale in zip(("bandwidth", "sigma"), self.scales, strict=True)
        }
        return {"metric": self.metric, **scales, "background": self.background}


def _named(scale: Sigma | Relative, parsed: ParsedParameters, name: str) -> Any:
    """Return the value of the parameter `name` that gives a chosen scale."""
    # With a base "auto" compares nothing, and no string can express a multiple of a mixture's scale.
    if isinstance(scale, Relative) and parsed.base is None:
        return str(scale)
    # sigma is 0 when metrics are compared, whatever the user passed.
    return 0.0 if scale == 0 else parsed.requested[name]


def folds_for_metrics(points: np.ndarray, columns: ColumnSpace) -> Folds | None:
    """Return the folds on which metrics are compared, or None to leave out single rows."""
    n_points, d = len(points), columns.n_directions
    if n_points > max(_FEW_ROWS_A_COLUMN * d, _FEW_ROWS_A_PAIR * d**2):
        return None
    n_folds = min(_N_FOLDS, n_points)
    # Imported here, since it takes half as long to import as the whole of this package.
    from sklearn.model_selection import KFold

    # Shuffled: folds of neighbours would leave whole regions out.
    order = columns.order(points)
    splits = KFold(n_folds, shuffle=True, random_state=0).split(points)
    return [(np.sort(order[train]), np.sort(order[test])) for train, test in splits]


class Comparison:
    """Comparison of settings by the mean held-out log-density of models, on the same rows.

    - `parsed`: parameters that are not compared.
    - `data`: rows; they must be distinct if they are left out one by one.
    - `folds`: indices of training and test rows; relations between columns are those of all rows. With
      None, each row is scored under the model of all other rows, exactly.
    - `most_judges`: most rows that screening scores, taken evenly.
    - `one_by_one`: a comparison that leaves out each of the same rows. If given, log-densities under
      the background's t distribution are taken from it.

    Where values were rounded, rows are scored at values that they may have had before rounding.
    """

    def __init__(
        self,
        parsed: ParsedParameters,
        data: TrainingData,
        metrics: Sequence[Metric],
        folds: Folds | None = None,
        most_judges: int = MOST_JUDGES,
        one_by_one: Comparison | None = None,
    ) -> None:
        self.parsed, self.data, self.metrics = parsed, data, metrics
        self.one_by_one = one_by_one
        everything = np.arange(len(data.points))
        self.folds = [(everything, everything)] if folds is None else folds
        self.leaves_one_out = folds is None
        self.judges = data.evenly(most_judges)
        self._training: dict[int, TrainingData] = {}
        self._folds: dict[tuple[int, bool], list[Fold]] = {}
        self._tails: dict[tuple[int, float | Relative], tuple[list[np.ndarray], float]] = {}

    def score(
        self, metric_index: int, scales: Scales, *, is_screening: bool
    ) -> tuple[float, Settings, list[float]]:
        """Return the mean held-out log-density, the settings with a background, and each fold's mean.

        Means are in nats per row. `is_screening` scores at most 256 rows, with few nodes, levels and
        steps, and chooses the background's t distribution with kernel density estimates.
        """
        metric, background = self.metrics[metric_index], self.parsed.background
        folds = self.prepare(metric_index, is_screening=is_screening)
        in_units = [scales_in(fold.geometry, self.parsed, scales, fold.h) for fold in folds]
        bandwidths = [bandwidth for bandwidth, _ in in_units]
        if any(
            not rounding_error(fold.geometry) <= h <= LARGEST
            or (not callable(sigma) and sigma > LARGEST)
            for (h, sigma), fold in zip(in_units, folds, strict=True)
        ):
            return -np.inf, Settings(metric, scales, background or 0.0), [-np.inf] * len(folds)
        tail = None
        if is_screening and background != 0:
            tail = self._tail(metric_index, scales[0], bandwidths)
        parts, tails = [], []
        for number, (fold, (bandwidth, sigma)) in enumerate(zip(folds, in_units, strict=True)):
            if is_screening:
                columns, weight = [self._screened(fold, bandwidth, sigma)], 0.0
                if tail is not None:
                    of_tail, weight = tail
                    columns += [fold.kde(WIDTH * bandwidth), of_tail[number]]
                parts.append(np.column_stack(columns))
            else:
                with without_warnings():
                    of_fold, of_model = fold.parts(bandwidth, sigma, self.parsed)
                parts.append(of_fold)
                weight = of_model.weight if of_model else 0.0
            tails.append(np.full(len(parts[-1]), weight))
        weights = [fold.held_out.weights for fold in folds]
        row_weights = np.concatenate(weights) / np.concatenate(weights).sum()
        log_densities, tail_weights = np.concatenate(parts), np.concatenate(tails)
        if background is None:
            background = background_weight(log_densities, tail_weights, row_weights)
        by_row = mixed(log_densities, background, tail_weights)
        by_fold = np.split(by_row, np.cumsum([len(part) for part in weights])[:-1])
        means = [
            float(np.average(part, weights=weight))
            for part, weight in zip(by_fold, weights, strict=True)
        ]
        return float(row_weights @ by_row), Settings(metric, scales, background), means

    def prepare(self, metric_index: int, *, is_screening: bool) -> list[Fold]:
        """Return the folds in the coordinates of a metric; they are computed once and stored."""
        key = metric_index, is_screening
        if key not in self._folds:
            before = self._folds.get((metric_index, not is_screening))
            has_relations = is_scaled(self.metrics[metric_index])
            folds: list[Fold] = []
            for number, (_, test) in enumerate(self.folds):
                scored = np.intersect1d(test, self.judges) if is_screening else test
                held_out = self._held_out(scored, has_relations=has_relations)
                with without_warnings():
                    geometry = (
                        self._geometry(metric_index, number)
                        if before is None
                        else before[number].geometry
                    )
                    fold = Fold(
                        geometry,
                        held_out,
                        self.parsed,
                        is_screening=is_screening,
                        first=folds[0] if folds and is_screening else None,
                    )
                folds.append(fold)
            self._folds[key] = folds
        return self._folds[key]

    def _geometry(self, metric_index: int, number: int) -> Geometry:
        """Return the training rows of fold `number` in the coordinates of a metric."""
        if number not in self._training:
            train, _ = self.folds[number]
            self._training[number] = self.data
            if not self.leaves_one_out:
                rows = merge_duplicates(self.data.points[train], self.data.weights[train])
                self._training[number] = self.data.with_rows(*rows)
        return make_geometry(self.metrics[metric_index], self._training[number], self.parsed)

    def _held_out(self, test: np.ndarray, *, has_relations: bool) -> HeldOutRows:
        """Return the rows to score, with offsets to values that they may have had before rounding.

        With `has_relations`, offsets of held-out folds satisfy the relations between columns.
        """
        points, excluded = self.data.points, self.data.excluded
        exclude, weights, offsets = (
            test,
            self.data.weights[test],
            np.zeros((len(test), points.shape[1])),
        )
        if excluded is not None:
            used = np.isin(excluded.exclude, test)
            exclude, weights = excluded.exclude[used], excluded.query_weights[used]
            offsets = excluded.offsets[used]
        if self.leaves_one_out:
            return HeldOutRows(points[exclude], offsets, weights, exclude)
        if excluded is not None and has_relations:
            offsets = self.data.columns.along(offsets)
        return HeldOutRows(points[exclude], offsets, weights, None)

    def _screened(self, fold: Fold, bandwidth: float, sigma: Sigma) -> np.ndarray:
        """Return held-out log-densities (n,) of a fold under a model without background."""
        if not callable(sigma) and sigma == 0 and self.parsed.terminal == "empirical":
            return fold.kde(bandwidth)
        with without_warnings():
            parsed = _for_screening(self.parsed, fold.geometry.kernel.rank)
            return fold.parts(bandwidth, sigma, parsed)[0][:, 0]

    def _students(
        self, metric_index: int
    ) -> tuple[list[StudentT], list[np.ndarray], list[np.ndarray]]:
        """Return t distributions, and their log-densities and distances (n, n_students) in each fold.

        They are fitted in the first metric of the same kind: both map columns or neither does, and both
        scale columns or neither does. In units of X these metrics have the same t distributions: fitted
        to linearly transformed rows, a t distribution is transformed likewise.
        """
        kinds = [(is_warped(metric), is_scaled(metric)) for metric in self.metrics]
        first = kinds.index(kinds[metric_index])
        if self.one_by_one is not None:
            students, (tails,), (distances,) = self.one_by_one._students(first)
            (all_rows,) = self.one_by_one.prepare(first, is_screening=True)
            exclude = all_rows.held_out.exclude
            assert exclude is not None
            rows = [np.isin(exclude, test) for _, test in self.folds]
            return students, [tails[own] for own in rows], [distances[own] for own in rows]
        folds = self.prepare(first, is_screening=True)
        # A fold has no heavy tails where few of its rows vary along some direction.
        n_students = min(fold.tails.shape[1] for fold in folds)
        return (
            folds[0].geometry.students[-n_students:],
            [fold.tails[:, -n_students:] for fold in folds],
            [fold.distances[:, -n_students:] for fold in folds],
        )

    def _tail(
        self, metric_index: int, requested: float | Relative, bandwidths: Sequence[float]
    ) -> tuple[list[np.ndarray], float]:
        """Return each fold's log-densities (n,) under the background's t distribution, and its weight.

        The t distribution is chosen with KDEs of given bandwidths; models would take longer.
        """
        key = metric_index, requested
        if key not in self._tails:
            students, tails, distances = self._students(metric_index)
            folds = self.prepare(metric_index, is_screening=True)
            kdes = [
                np.column_stack([fold.kde(h), fold.kde(WIDTH * h)])
                for fold, h in zip(folds, bandwidths, strict=True)
            ]
            weights = np.concatenate([fold.held_out.weights for fold in folds])
            tail = choose_tail(
                students,
                np.concatenate(tails),
                np.concatenate(kdes),
                np.concatenate(distances),
                weights / weights.sum(),
            )
            index = students.index(tail.student)
            self._tails[key] = [of_fold[:, index] for of_fold in tails], tail.weight
        return self._tails[key]


def _for_screening(parsed: ParsedParameters, dimension: int) -> ParsedParameters:
    """Return parameters of models without background, with few nodes, levels and steps."""
    n_levels, solver = _FEW_DIMENSIONS if dimension <= _MOST_DIMENSIONS else _MANY_DIMENSIONS
    return replace(
        parsed,
        background=0.0,
        rule=replace(parsed.rule, n_nodes=_NODES),
        n_levels=n_levels,
        n_steps=n_levels,
        solver=solver,
        tol=None,
    )


def settings_for(
    data: TrainingData, parsed: ParsedParameters
) -> tuple[Settings, Geometry, dict[str, str]]:
    """Return settings, all rows in their metric, and why parameters left at "auto" were not compared."""
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
        reasons = dict.fromkeys(_left_at_auto(parsed), reason)
        return plain, make_geometry(metric, data, parsed), reasons
    metrics, reason = metrics_to_compare(parsed, data)
    return *choose_settings(data, parsed, metrics), {"metric": reason} if reason else {}


def metrics_to_compare(
    parsed: ParsedParameters, data: TrainingData
) -> tuple[tuple[Metric, ...], str]:
    """Return the candidate metrics for training rows, and the reason if there is only one, else ""."""
    if not parsed.is_metric_free:
        return (parsed.metric,), ""
    if parsed.are_scales_absolute:
        return ("euclidean",), _ABSOLUTE
    if not isinstance(parsed.terminal_scale, str):
        return ("euclidean",), "terminal_scale is a number, in units of X"
    metrics = parsed.kernel.candidate_metrics(data.rank)
    if data.has_circles and data.rank <= 1 and "scaled" in metrics:
        # The metrics that are powers of the correlation matrix are the same for one column.
        metrics = "scaled", "local"
    if any(map(is_scaled, metrics)) and data.warped_columns is not None:
        metrics = (*metrics, *(warped(metric) for metric in metrics if is_scaled(metric)))
    if parsed.has_absolute_scale or not metrics:
        # A given scale may be meant in units of X, or of the standard deviations of the columns.
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


def _candidates(parsed: ParsedParameters) -> _Candidates:
    """Return the candidate factors for the scales that are "auto"; a single one if neither is."""
    if parsed.sigma is None:
        return _BOTH if parsed.bandwidth is None else _SIGMAS
    if parsed.bandwidth is None and parsed.sigma != 0:
        return _BANDWIDTHS
    return _Candidates((DEFAULT_FACTORS,), (), ())


def choose_settings(
    data: TrainingData, parsed: ParsedParameters, metrics: Sequence[Metric]
) -> tuple[Settings, Geometry]:
    """Return the chosen settings, first the metric, then the scales in it, and all rows in the metric.

    Metrics are compared by kernel density estimates of the given bandwidth, or of the one of highest
    likelihood; then up to three close ones by the model with default scales. Candidates are scored by
    the log-likelihood at up to 256 rows, taken evenly, under models of up to 2000 rows (metrics: 1000)
    with few nodes, levels and steps. Single rows are left out; to compare metrics on few rows, folds.
    """
    candidates, default = _candidates(parsed), given_or_default(parsed)
    is_given = not (candidates.wider or candidates.narrower)
    if is_given and len(metrics) == 1 and parsed.background is not None:
        settings = Settings(metrics[0], default, parsed.background)
        return settings, make_geometry(metrics[0], data, parsed)
    # An unsuitable terminal scale raises an error for the chosen model, not for a candidate.
    parsed = replace(parsed, terminal_scale="auto", resources=parsed.resources._replace(n_jobs=1))
    most = sum(map(len, candidates)) + (len(metrics) + _N_METRICS if len(metrics) > 1 else 0)
    with counted(most, "candidate") as done:
        return _choose(data, parsed, metrics, candidates, done)


def _choose(
    data: TrainingData,
    parsed: ParsedParameters,
    metrics: Sequence[Metric],
    candidates: _Candidates,
    done: Loop,
) -> tuple[Settings, Geometry]:
    """See `choose_settings`; `done` is called after each candidate."""
    default = given_or_default(parsed)

    def scored(
        comparison: Comparison, metric_index: int, scales: Scales
    ) -> tuple[float, Settings, list[float]]:
        result = comparison.score(metric_index, scales, is_screening=True)
        done()
        return result

    one_by_one = Comparison(parsed, _some_rows(data, MOST_ROWS), metrics)
    best, tried = 0, {}
    if len(metrics) > 1:
        rows = _some_rows(data, _MOST_ROWS_FOR_METRICS)
        folds = folds_for_metrics(rows.points, data.columns)
        compared = one_by_one if rows is one_by_one.data else Comparison(parsed, rows, metrics)
        if folds is not None:
            compared = Comparison(parsed, rows, metrics, folds, one_by_one=compared)
        kde = (parsed.bandwidth, 0.0) if isinstance(parsed.bandwidth, float) else KDE
        likely = likely_metrics(metrics, lambda some: [scored(compared, k, kde)[0] for k in some])
        if parsed.has_absolute_scale:
            # A given scale may be meant in units of X, so the Euclidean metric is compared too.
            likely = sorted({metrics.index("euclidean"), *likely})
        scores = {}
        if len(likely) > 1:
            scores = {k: scored(compared, k, default) for k in likely}
        best = likely[_likeliest([scores[k][0] for k in likely])] if scores else likely[0]
        if compared is one_by_one and scores:
            tried[default] = scores[best]

    def score(factors: Factors) -> float:
        scales = given_or_default(parsed, factors)
        if scales not in tried:
            tried[scales] = scored(one_by_one, best, scales)
        return tried[scales][0]

    for factors in candidates.always:
        score(factors)
    reference = score(candidates.always[0])
    for direction in (candidates.wider, candidates.narrower):
        highest = reference
        for factors in direction:
            last, highest = highest, score(factors)
            if highest <= last:
                break
        if len(direction) and score(direction[0]) > reference:
            break
    results = list(tried.values())
    settings = results[_likeliest([mean for mean, *_ in results])][1]
    if one_by_one.data is data:
        (fold,) = one_by_one.prepare(best, is_screening=True)
        return settings, fold.geometry
    return settings, make_geometry(settings.metric, data, parsed)


def _likeliest(scores: Sequence[float]) -> int:
    """Return the index of the highest score; among equals up to rounding, of the first (simplest)."""
    least = max(scores) - _ROUNDING * abs(max(scores))
    return next(k for k, score in enumerate(scores) if score >= least)


def likely_metrics(
    metrics: Sequence[Metric], score: Callable[[list[int]], list[float]]
) -> list[int]:
    """Return the indices of one to three metrics in which the kernel density estimate is likeliest.

    Either all of them map columns or none does: the first and last metric of both kinds are scored
    first, and the kind of the best is kept. `score(indices)` returns the likelihoods in these metrics.
    """
    both: dict[bool, list[int]] = {}
    for index, metric in enumerate(metrics):
        both.setdefault(is_warped(metric), []).append(index)
    ends = list(dict.fromkeys(k for kind in both.values() for k in (kind[0], kind[-1])))
    scores = dict(zip(ends, score(ends), strict=True))
    kind = both[is_warped(metrics[max(scores, key=lambda index: scores[index])])]
    scores.update(zip(kind[1:-1], score(kind[1:-1]), strict=True))
    likely = sorted(kind, key=lambda index: -scores[index])[:_N_METRICS]
    return sorted(index for index in likely if scores[index] >= scores[likely[0]] - _CLOSE)


def _some_rows(data: TrainingData, most: int) -> TrainingData:
    """Return at most `most` of the rows, taken evenly by their distance from the center."""
    if len(data.points) <= most:
        return data
    taken = data.evenly(most)
    return data.with_rows(data.points[taken], data.weights[taken])
