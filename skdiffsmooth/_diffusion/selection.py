"""What is chosen together: metric, scales and background, and how a background is mixed and weighed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

__all__ = [
    "DEFAULT_FACTORS",
    "FACTORS",
    "Factors",
    "Metric",
    "Settings",
    "background_weight",
    "mixed",
]

Metric = str | float | np.ndarray
Factors = tuple[float, float]

# Bandwidth and smoothing scale, both in units of the leave-one-out bandwidth of the Gaussian KDE in the
# same metric. The first pair is the one that metrics are compared at, and the one used where
# nothing can be compared; docs/defaults.md has the evidence.
DEFAULT_FACTORS = (0.85, 1.5)
FACTORS = (DEFAULT_FACTORS, (0.85, 1.0), (0.85, 2.0), (0.7, 1.5), (0.7, 3.0), (0.55, 3.0))

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


def mixed(flow: np.ndarray, wide: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
    """Return the log-density of a mixture of model and background.

    Parameters
    ----------
    flow, wide : ndarray of shape (n,)
        Log-densities of the model and of the background, in nats.
    weight : float or ndarray of shape (n,)
        Weight of the background, or that in each row.

    Returns
    -------
    ndarray of shape (n,)
    """
    if not np.any(weight):
        return flow
    # A weight that underflowed to zero, or is one, leaves the other part alone.
    with np.errstate(divide="ignore"):
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
