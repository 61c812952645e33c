"""Settings by leave-one-out likelihood: metric, scales and background, chosen together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.base import clone

__all__ = [
    "DEFAULT_FACTORS",
    "Comparison",
    "Factors",
    "Metric",
    "Settings",
    "background_weight",
    "choose_settings",
    "mixed",
]

Metric = str | float | np.ndarray
Factors = tuple[float, float]

# Bandwidth and smoothing scale, both in units of the leave-one-out bandwidth of the Gaussian KDE in the
# same metric. The first pair is the one that metrics are compared at, and the one used where
# nothing can be compared; docs/defaults.md has the evidence.
DEFAULT_FACTORS = (0.85, 1.5)
_FACTORS = (DEFAULT_FACTORS, (0.85, 1.0), (0.85, 2.0), (0.7, 1.5), (0.7, 3.0), (0.55, 3.0))

# Nodes, levels and steps that tell candidates apart: their errors are much alike for all of them.
_CHEAP = {"n_nodes": 16, "n_levels": 8, "n_steps": 8}
# Ratios to the leave-one-out bandwidth hardly depend on the number of rows; so many tell.
_MOST_ROWS = 2000

# Rows to come may be farther out than any left-out one was: this much costs 0.02 nats.
_LEAST_BACKGROUND = 0.02
_MOST_BACKGROUND = 0.5


class Settings(NamedTuple):
    """What is chosen together.

    Parameters
    ----------
    metric : str, float or ndarray
        The metric.
    factors : tuple of two floats
        Bandwidth and smoothing scale in units of the KDE's leave-one-out bandwidth.
    background : float
        Weight of the background.
    """

    metric: Metric
    factors: Factors
    background: float


def mixed(flow: np.ndarray, wide: np.ndarray, weight: float) -> np.ndarray:
    """Return the log-density of a mixture of model and background.

    Parameters
    ----------
    flow, wide : ndarray of shape (n,)
        Log-densities of the model and of the background, in nats.
    weight : float
        Weight of the background.

    Returns
    -------
    ndarray of shape (n,)
    """
    if not weight:
        return flow
    return np.logaddexp(np.log1p(-weight) + flow, np.log(weight) + wide)


def background_weight(flow: np.ndarray, wide: np.ndarray, weights: np.ndarray) -> float:
    """Return the weight of a background that held-out log-densities ask for.

    Parameters
    ----------
    flow, wide : ndarray of shape (n,)
        Held-out log-densities under the model and under the background, in nats.
    weights : ndarray of shape (n,)
        Weights of the rows, summing to one.

    Returns
    -------
    float
        Between 0.02 and 0.5.
    """
    # Concave in the weight, so that the search ends at the only top.
    found = minimize_scalar(
        lambda weight: -(weights @ mixed(flow, wide, weight)),
        bounds=(_LEAST_BACKGROUND, _MOST_BACKGROUND),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(found.x)


class Comparison:
    """Held-out log-likelihoods of one estimator under several settings, on the same rows.

    Parameters
    ----------
    estimator : BaseScoreDiffusion
        Its parameters other than those compared are kept; a number for its `background` too.
    points : ndarray of shape (n_points, n_features)
        Distinct rows.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    metrics : tuple
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
        folds: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        background = estimator.background
        self.fixed_background = None if isinstance(background, str) else background
        self.estimator = clone(estimator).set_params(background=0.0)
        self.points, self.weights = points, weights
        self.metrics = metrics
        everything = np.arange(len(points))
        self.folds = [(everything, everything)] if folds is None else folds
        self.is_left_out = folds is None
        self._scales: dict[tuple[int, int], tuple[float, float]] = {}

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
        cheap = clone(self.estimator).set_params(metric=self.metrics[place])
        if is_cheap:
            cheap.set_params(**_CHEAP, solver="heun", tolerance=0.0)
        self.find_scales(place)
        found = []
        for k, (train, test) in enumerate(self.folds):
            h, unit = self._scales[place, k]
            candidate = clone(cheap).set_params(bandwidth=factors[0] * h, sigma=factors[1] * unit)
            candidate.fit(self.points[train], sample_weight=self.weights[train])
            if self.is_left_out:
                parts = candidate._left_out()
            else:
                parts = candidate._parts(self.points[test])
            found.append((*parts, self.weights[test]))
        flow, wide, weights = (np.concatenate(part) for part in zip(*found, strict=True))
        weights = weights / weights.sum()
        weight = self.fixed_background
        if weight is None:
            weight = background_weight(flow, wide, weights)
        score = float(weights @ mixed(flow, wide, weight))
        return score, Settings(self.metrics[place], factors, weight)

    def find_scales(self, place: int) -> None:
        """Find the KDE's bandwidth on the rows of each fold, and the unit of `sigma`, once.

        Parameters
        ----------
        place : int
            Index of the metric.
        """
        for k, (train, _) in enumerate(self.folds):
            if (place, k) in self._scales:
                continue
            reference = clone(self.estimator).set_params(
                **_CHEAP, metric=self.metrics[place], bandwidth="loo", sigma="auto"
            )
            reference.fit(self.points[train], sample_weight=self.weights[train])
            unit = reference.sigma_ / DEFAULT_FACTORS[1]
            self._scales[place, k] = reference.bandwidth_, unit


def choose_settings(
    estimator: Any, points: np.ndarray, weights: np.ndarray, metrics: tuple[Metric, ...]
) -> Settings:
    """Choose the metric at default factors, then the factors in that metric.

    Candidates are scored by the leave-one-out log-likelihood of the estimator itself, on at most 2000
    rows taken evenly, with few nodes, levels and steps.

    Parameters
    ----------
    estimator : BaseScoreDiffusion
        Its parameters other than those to be chosen are kept.
    points : ndarray of shape (n_points, n_features)
        Distinct rows, two at least.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    metrics : tuple
        Candidates, one at least.

    Returns
    -------
    Settings
    """
    taken = np.linspace(0, len(points) - 1, min(len(points), _MOST_ROWS)).round().astype(np.intp)
    one_worker = clone(estimator).set_params(n_jobs=None)
    compared = Comparison(one_worker, points[taken], weights[taken], metrics)
    with warnings.catch_warnings():
        # What is worth a warning is so for the model that is chosen, whose fit repeats it.
        warnings.simplefilter("ignore")
        by_metric = [
            compared.score(place, DEFAULT_FACTORS, is_cheap=True) for place in range(len(metrics))
        ]
        # Of equal scores the first stands: the simpler metric, the default factors.
        best = int(np.argmax([score for score, _ in by_metric]))
        by_factors = [
            by_metric[best],
            *(compared.score(best, factors, is_cheap=True) for factors in _FACTORS[1:]),
        ]
    return max(by_factors, key=lambda scored: scored[0])[1]
