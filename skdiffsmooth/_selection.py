"""Settings by leave-one-out likelihood: metric, scales and background, chosen together."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.base import clone

__all__ = ["DEFAULT_FACTORS", "Metric", "Settings", "background_weight", "choose_settings"]

Metric = str | float | np.ndarray

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
    factors: tuple[float, float]
    background: float


def background_weight(
    flow: np.ndarray, wide: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Return the weight of a background that held-out log-densities ask for.

    Parameters
    ----------
    flow, wide : ndarray of shape (n,)
        Held-out log-densities under the model and under the background, in nats.
    weights : ndarray of shape (n,)
        Weights of the rows, summing to one.

    Returns
    -------
    weight : float
        Between 0.02 and 0.5.
    log_likelihood : float
        The mean log-density of the mixture, in nats a row.
    """

    def loss(weight: float) -> float:
        return -float(weights @ np.logaddexp(np.log1p(-weight) + flow, np.log(weight) + wide))

    # Concave in the weight, so that the search ends at the only top.
    found = minimize_scalar(
        loss,
        bounds=(_LEAST_BACKGROUND, _MOST_BACKGROUND),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(found.x), -float(found.fun)


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
    rows, shares = points[taken], weights[taken]
    cheap = clone(estimator).set_params(
        **_CHEAP, solver="heun", tolerance=0.0, n_jobs=None, background=0.0
    )
    with warnings.catch_warnings():
        # What is worth a warning is so for the model that is chosen, whose fit repeats it.
        warnings.simplefilter("ignore")
        references = {}
        for place, metric in enumerate(metrics):
            reference = clone(cheap).set_params(metric=metric, bandwidth="loo", sigma="auto")
            references[place] = reference.fit(rows, sample_weight=shares)

        def score(place: int, factors: tuple[float, float]) -> tuple[float, Settings]:
            reference = references[place]
            candidate = clone(reference).set_params(
                bandwidth=factors[0] * reference.bandwidth_,
                sigma=factors[1] / DEFAULT_FACTORS[1] * reference.sigma_,
            )
            candidate.fit(rows, sample_weight=shares)
            flow, wide = candidate._left_out()
            weight, found = background_weight(flow, wide, candidate.weights_)
            return found, Settings(metrics[place], factors, weight)

        # The number decides alone: settings of equal likelihood keep the order they came in.
        by_metric = [score(place, DEFAULT_FACTORS) for place in references]
        best = max(references, key=lambda place: by_metric[place][0])
        by_factors = [by_metric[best], *(score(best, factors) for factors in _FACTORS[1:])]
    return max(by_factors, key=lambda scored: scored[0])[1]
