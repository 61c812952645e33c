"""The stages of the search of `SmoothedScoreDiffusionCV`, and the scores of their candidates."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.parallel import delayed

from .._diffusion.comparison import KDE, Comparison, Settings, likely_metrics
from .._diffusion.geometry import DEFAULT_FACTORS, Factors, Scales, given_or_default
from .._diffusion.settings import Relative
from .._utils.parallel import results_of
from .._utils.progress import Loop, log_line

# Bounds of the scales that are searched, in units of the KDE's leave-one-out bandwidth.
_BANDWIDTHS, _SIGMAS = (0.2, 2.0), (0.3, 12.0)
# The best candidate is scored again with the estimator's own nodes, levels and steps, and so is the
# second if it is within `_CLOSE` nats, about the error due to few nodes.
N_FINALISTS, _CLOSE = 2, 0.02
# Approximate time per row with the estimator's own nodes and steps, relative to few nodes and steps.
_EXACT = 12.0


class Entry(NamedTuple):
    """A candidate and its score."""

    stage: str
    is_exact: bool
    is_comparable: bool
    metric_index: int
    settings: Settings
    score: float
    seconds: float
    by_fold: list[float]
    """Mean of each fold, or the score itself where rows were left out one by one."""


class Search:
    """Runs the stages of the search, and stores the scores of their candidates."""

    def __init__(self, comparison: Comparison, n_jobs: int | None, verbose: int) -> None:
        self.comparison = comparison
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.entries: list[Entry] = []
        self.done = Loop(1.0)
        # Time of a candidate that is scored exactly, relative to others; used to predict the time left.
        self.exact_cost = _EXACT * len(comparison.data.points) / len(comparison.judges)

    def run(
        self,
        first: Comparison,
        bandwidths: Sequence[float],
        sigmas: Sequence[float],
        n_refinements: int,
    ) -> None:
        """Run the stages in turn; the stage that chooses the metric uses the comparison `first`."""
        metric_index, tried = 0, []
        if len(first.metrics) > 1:
            likely = likely_metrics(
                first.metrics,
                lambda some: [
                    entry.score for entry in self._stage("metrics", [(k, KDE) for k in some], first)
                ],
            )
            metric_index = likely[0]
            if len(likely) > 1:
                # Metrics are compared by a smoothed model, or by a KDE if all sigmas are 0.
                scales = self._scales(DEFAULT_FACTORS if any(sigmas) else (1.0, 0.0))
                of_model = self._stage("metrics", [(k, scales) for k in likely], first)
                metric_index = _best(of_model, 1)[0].metric_index
                # Scores on other rows choose the metric, but are not comparable with those of later
                # stages.
                tried = of_model if first is self.comparison else []
        pairs = [self._scales(pair) for pair in itertools.product(bandwidths, sigmas)]
        grid = [(metric_index, pair) for pair in pairs]
        tried += self._stage("grid", grid, scored_before=tried)
        ratio = 2**0.5
        for _ in range(n_refinements):
            (best,) = _best(tried, 1)
            around = self._around(best, ratio, is_smoothed=any(sigmas))
            tried += self._stage("refinement", around, scored_before=tried)
            ratio **= 0.5
        best, *others = _best(tried, N_FINALISTS)
        close = [entry for entry in others if entry.score > best.score - _CLOSE]
        finalists = [(entry.metric_index, entry.settings.scales) for entry in (best, *close)]
        self._stage("final", finalists, is_screening=False)

    @property
    def best_index(self) -> int:
        """Index of the best candidate among those that were scored exactly."""
        exact = [k for k, entry in enumerate(self.entries) if entry.is_exact]
        return max(exact, key=lambda k: self.entries[k].score)

    @property
    def results(self) -> dict[str, list[Any]]:
        """A table as a dictionary of columns, with one entry for each candidate."""
        ours = {
            "stage": [entry.stage for entry in self.entries],
            "is_exact": [entry.is_exact for entry in self.entries],
            "is_comparable": [entry.is_comparable for entry in self.entries],
            "metric": [entry.settings.metric for entry in self.entries],
            "bandwidth_factor": [_factor(entry.settings.scales[0]) for entry in self.entries],
            "sigma_factor": [_factor(entry.settings.scales[1]) for entry in self.entries],
            "background": [entry.settings.background for entry in self.entries],
            "score": [entry.score for entry in self.entries],
            "time": [entry.seconds for entry in self.entries],
        }
        return {**ours, **self._results_of_scikit_learn()}

    def _results_of_scikit_learn(self) -> dict[str, Any]:
        """Return the results under the names that scikit-learn's searches give them."""
        params = [entry.settings.parameters(self.comparison.parsed) for entry in self.entries]
        n_folds = [len(entry.by_fold) for entry in self.entries]
        columns: dict[str, Any] = {"params": params}
        for name in params[0]:
            # Filled one by one, since a metric may be a matrix.
            column = np.ma.empty(len(params), dtype=object)
            for k, chosen in enumerate(params):
                column[k] = chosen[name]
            columns[f"param_{name}"] = column
        by_fold = np.full((max(n_folds), len(params)), np.nan)
        for k, entry in enumerate(self.entries):
            by_fold[: n_folds[k], k] = entry.by_fold
        columns |= {f"split{k}_test_score": scores for k, scores in enumerate(by_fold)}
        # Scores with few nodes cannot be compared with exact scores, which are ranked first.
        order = sorted((not entry.is_exact, -entry.score) for entry in self.entries)
        ranks = [order.index((not entry.is_exact, -entry.score)) + 1 for entry in self.entries]
        zeros = np.zeros(len(params))
        seconds = np.array([entry.seconds for entry in self.entries]) / n_folds
        return columns | {
            "mean_test_score": np.array([entry.score for entry in self.entries]),
            "std_test_score": np.array([np.std(entry.by_fold) for entry in self.entries]),
            "rank_test_score": np.array(ranks, dtype=np.int32),
            "mean_fit_time": zeros,
            "std_fit_time": zeros.copy(),
            "mean_score_time": seconds,
            "std_score_time": zeros.copy(),
        }

    def _stage(
        self,
        name: str,
        candidates: list[tuple[int, Scales]],
        comparison: Comparison | None = None,
        *,
        scored_before: Sequence[Entry] = (),
        is_screening: bool = True,
    ) -> list[Entry]:
        """Score the candidates that are not in `scored_before`, and return their entries."""
        comparison = self.comparison if comparison is None else comparison
        known = {(entry.metric_index, entry.settings.scales) for entry in scored_before}
        # At a bound of the search, clipping makes some neighbours equal.
        candidates = [new for new in dict.fromkeys(candidates) if new not in known]
        if not candidates:
            return []
        began = time.perf_counter()
        # Prepared here once; otherwise each worker would repeat it on its copy.
        for metric_index in dict.fromkeys(metric_index for metric_index, _ in candidates):
            comparison.prepare(metric_index, is_screening=is_screening)
        calls = [
            delayed(_timed)(comparison, metric_index, scales, is_screening)
            for metric_index, scales in candidates
        ]
        self.done.size = len(calls) * (1.0 if is_screening else self.exact_cost)
        scored = results_of(calls, self.n_jobs, "candidate")
        self.done()
        entries = [
            Entry(
                name,
                not is_screening,
                is_screening and comparison is self.comparison,
                metric_index,
                settings,
                score,
                seconds,
                by_fold,
            )
            for (metric_index, _), ((score, settings, by_fold), seconds) in zip(
                candidates, scored, strict=True
            )
        ]
        self.entries += entries
        if self.verbose > 1:
            for entry in entries:
                log_line(f"  {_formatted(entry)}")
        if self.verbose:
            spent = time.perf_counter() - began
            (best,) = _best(entries, 1)
            others = "" if best.is_comparable else ", on other rows or exact"
            log_line(
                f"[{name}{others}] {len(entries)} candidates in {spent:.1f} s, best {_formatted(best)}"
            )
        return entries

    def _scales(self, factors: Factors) -> Scales:
        """Return scales: multiples of h by `factors`, or numbers where the user fixed them."""
        return given_or_default(self.comparison.parsed, factors)

    def _around(self, best: Entry, ratio: float, *, is_smoothed: bool) -> list[tuple[int, Scales]]:
        """Return the four neighbours of a candidate, with one scale multiplied or divided by a ratio."""
        bandwidth, sigma = (_factor(scale) for scale in best.settings.scales)
        steps = ratio ** np.array([-1.0, 0.0, 1.0])
        bandwidths = np.clip(bandwidth * steps, *_BANDWIDTHS)
        # Multiples of zero are zero, so sigma = 0 is compared with the smallest non-zero scale instead.
        sigmas = np.minimum(sigma * steps, _SIGMAS[1]) if sigma else np.array([0.0, _SIGMAS[0]])
        pairs = [(h, sigma) for h in bandwidths.tolist()]
        pairs += [(bandwidth, each) for each in sigmas.tolist() if is_smoothed]
        return [(best.metric_index, self._scales(pair)) for pair in pairs]


def _factor(scale: Any) -> float:
    """Return the factor of a relative scale, 0 for the scale 0, and NaN for other numbers."""
    if isinstance(scale, Relative):
        return scale.factor
    return math.nan if callable(scale) or scale else 0.0


def _best(entries: list[Entry], n: int) -> list[Entry]:
    """Return the candidates with the highest scores, in decreasing order."""
    return sorted(entries, key=lambda entry: -entry.score)[:n]


def _timed(
    comparison: Comparison, metric_index: int, scales: Scales, is_screening: bool
) -> tuple[tuple[float, Settings, list[float]], float]:
    began = time.perf_counter()
    scored = comparison.score(metric_index, scales, is_screening=is_screening)
    return scored, time.perf_counter() - began


def _formatted(entry: Entry) -> str:
    metric = entry.settings.metric
    named = metric if isinstance(metric, str | float) else "matrix"
    bandwidth, sigma = (
        f"{scale.factor:.4g}h" if isinstance(scale, Relative) else scale
        for scale in entry.settings.scales
    )
    return f"metric {named}, bandwidth {bandwidth}, sigma {sigma}: {entry.score:.4f} nats a row"
