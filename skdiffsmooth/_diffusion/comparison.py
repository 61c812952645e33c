"""Settings of a diffusion compared by the likelihood of rows that are left out or held out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone

from .selection import (
    DEFAULT_FACTORS,
    FACTORS,
    Factors,
    Metric,
    Settings,
    background_weight,
    mixed,
)

__all__ = ["Comparison", "choose_settings", "folds_for_metrics"]

Folds = Sequence[tuple[np.ndarray, np.ndarray]]

# Nodes, levels and steps that tell candidates apart: their errors are much alike for all of them.
_CHEAP = {"n_nodes": 16, "n_levels": 8, "n_steps": 8}
# Ratios to the leave-one-out bandwidth hardly depend on the number of rows; so many tell.
_MOST_ROWS = 2000

# A metric that has seen the row that is left out is too good for it, the more so the fewer rows there
# are for each column: up to so many, metrics are fitted without the rows that they are compared on.
_FEW_ROWS_A_COLUMN = 20
_N_FOLDS = 5


def folds_for_metrics(points: np.ndarray) -> Folds | None:
    """Return the folds on which metrics are compared; None where leaving out single rows will do.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_features)
        Distinct rows.

    Returns
    -------
    sequence of pairs of index arrays, or None
    """
    n_points, n_features = points.shape
    if n_points > _FEW_ROWS_A_COLUMN * n_features:
        return None
    n_folds = min(_N_FOLDS, n_points)
    # Here and not above: loading it takes half as long as the whole of this package.
    from sklearn.model_selection import KFold

    # Distinct rows are sorted: folds of neighbours would leave whole regions out.
    return list(KFold(n_folds, shuffle=True, random_state=0).split(points))


class Comparison:
    """Mean held-out log-densities of one diffusion under several settings, on the same rows.

    Parameters
    ----------
    estimator : BaseScoreDiffusion
        Its parameters other than those compared are kept; a number for its `background` too.
    points : ndarray of shape (n_points, n_features)
        Rows; distinct ones where they are left out one by one.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    metrics : sequence
        Metrics to compare.
    folds : sequence of pairs of index arrays, optional
        Training and test rows. None leaves each row out of all the others, exactly.
    """

    def __init__(
        self,
        estimator: Any,
        points: np.ndarray,
        weights: np.ndarray,
        metrics: Sequence[Metric],
        folds: Folds | None = None,
    ) -> None:
        background = estimator.background
        self.fixed_background = None if isinstance(background, str) else background
        self.estimator = clone(estimator)
        self.points, self.weights = points, weights
        self.metrics = metrics
        everything = np.arange(len(points))
        self.folds = [(everything, everything)] if folds is None else folds
        self.is_left_out = folds is None
        self._found: dict[int, list[tuple[Any, float]]] = {}

    def score(self, place: int, factors: Factors, *, is_cheap: bool) -> tuple[float, Settings]:
        """Return the mean held-out log-density under some settings.

        Parameters
        ----------
        place : int
            Index of the metric.
        factors : tuple of two floats
            Bandwidth and smoothing scale, in units of the KDE's leave-one-out bandwidth.
        is_cheap : bool
            Whether few nodes, levels and steps are enough.

        Returns
        -------
        score : float
            In nats a row.
        settings : Settings
            With the weight of the background that is best for these factors, or the one asked for.
        """
        self.prepare(place)
        parts = []
        for (_, test), (geometry, h) in zip(self.folds, self._found[place], strict=True):
            candidate = clone(self.estimator)
            if is_cheap:
                candidate.set_params(**_CHEAP, solver="heun", tolerance=0.0)
            candidate._take_in(geometry, factors[0] * h, factors[1] * h / geometry.unit)
            flow_and_wide = (
                candidate._left_out() if self.is_left_out else candidate._parts(self.points[test])
            )
            parts.append((*flow_and_wide, self.weights[test]))
        flow, wide, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        weights = weights / weights.sum()
        weight = self.fixed_background
        if weight is None:
            weight = background_weight(flow, wide, weights)
        score = float(weights @ mixed(flow, wide, weight))
        return score, Settings(self.metrics[place], factors, weight)

    def prepare(self, place: int) -> None:
        """Bring the rows of each fold into a metric, and find the KDE's bandwidth there, once.

        Parameters
        ----------
        place : int
            Index of the metric.
        """
        if place not in self._found:
            self._found[place] = [
                self.estimator._geometry_and_bandwidth(
                    self.metrics[place], self.points[train], self.weights[train]
                )
                for train, _ in self.folds
            ]


def choose_settings(
    estimator: Any, points: np.ndarray, weights: np.ndarray, metrics: Sequence[Metric]
) -> Settings:
    """Choose the metric at default factors, then the factors in that metric.

    Candidates are scored by the log-likelihood of the estimator itself on at most 2000 rows taken
    evenly, with few nodes, levels and steps: factors by leaving out each row, metrics so too or, with
    few rows, by folds.

    Parameters
    ----------
    estimator : BaseScoreDiffusion
        Its parameters other than those to be chosen are kept.
    points : ndarray of shape (n_points, n_features)
        Distinct rows, two at least.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    metrics : sequence
        Candidates, one at least.

    Returns
    -------
    Settings
    """
    taken = np.linspace(0, len(points) - 1, min(len(points), _MOST_ROWS)).round().astype(np.intp)
    rows, shares = points[taken], weights[taken] / weights[taken].sum()
    # A terminal scale that does not fit is an error of the model that is chosen, not of a candidate.
    one_worker = clone(estimator).set_params(n_jobs=None, terminal_scale="auto")
    left_out = Comparison(one_worker, rows, shares, metrics)
    with warnings.catch_warnings():
        # What is worth a warning is so for the model that is chosen, whose fit repeats it.
        warnings.simplefilter("ignore")
        best, tried = 0, []
        if len(metrics) > 1:
            folds = folds_for_metrics(rows)
            compared = (
                left_out if folds is None else Comparison(one_worker, rows, shares, metrics, folds)
            )
            by_metric = [
                compared.score(place, DEFAULT_FACTORS, is_cheap=True)
                for place in range(len(metrics))
            ]
            # Of equal scores the first stands: the simpler metric.
            best = int(np.argmax([score for score, _ in by_metric]))
            if compared is left_out:
                tried.append(by_metric[best])
        # The default factors come first, and may have been scored with the metrics.
        tried += [left_out.score(best, pair, is_cheap=True) for pair in FACTORS[len(tried) :]]
    return max(tried, key=lambda scored: scored[0])[1]
