"""The background: a wide kernel density estimate, mixed to the model for rows that are outliers."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

__all__ = ["WIDTH", "background_weight", "mixed"]

# Width of the background, in bandwidths; docs/defaults.md has the evidence.
WIDTH = 4.0

# New rows may be farther out than all training rows. This weight lowers log-densities by 0.02 nats.
_LEAST_BACKGROUND = 0.02
_MOST_BACKGROUND = 0.5


def mixed(model: np.ndarray, background: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
    """Return the log-density (n,) of a mixture of model and background.

    `model` and `background` (n,) are their log-densities in nats; `weight` is that of the background, a
    number or one for each row.
    """
    if not np.any(weight):
        return model
    # A weight that underflowed to zero, or is one, leaves the other part alone.
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log1p(-weight) + model, np.log(weight) + background)


def background_weight(model: np.ndarray, background: np.ndarray, weights: np.ndarray) -> float:
    """Return the weight of the background with the highest held-out likelihood, from 0.02 to 0.5.

    `model` and `background` (n,) are held-out log-densities in nats; `weights` (n,) are those of the
    rows and sum to one.
    """
    # Concave in the weight, so that the search ends at the only maximum.
    result = minimize_scalar(
        lambda weight: -(weights @ mixed(model, background, weight)),
        bounds=(_LEAST_BACKGROUND, _MOST_BACKGROUND),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(result.x)
