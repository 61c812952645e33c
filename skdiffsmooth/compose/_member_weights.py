"""Weights of the members of a mixture, from log-densities of held-out rows."""

from __future__ import annotations

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._utils.warnings import warn_user

# Stopping rule: the held-out log-likelihood is within this many nats a row of its maximum.
_MAX_GAP = 1e-8
# After n iterations EM is at most log(n_members) / n nats from the maximum (Cover's bound summed
# over the iterations): 1e-5 at this limit, which members that are nearly equal may reach.
_MAX_ITERATIONS = 100_000


def best_only(log_density: np.ndarray, row_weight: np.ndarray | None) -> np.ndarray:
    """Return weights (k,): one for the member of highest held-out log-likelihood, else zero."""
    # Rows of density zero under every member cannot rank the members and are left out.
    reached = log_density.max(axis=1) > -np.inf
    weights = None if row_weight is None else row_weight[reached] / row_weight.max()
    likelihood = np.average(log_density[reached], axis=0, weights=weights)
    return (np.arange(log_density.shape[1]) == likelihood.argmax()).astype(float)


def optimal_weights(log_density: np.ndarray, row_weight: np.ndarray | None) -> np.ndarray:
    """Return the weights that maximise ``row_weight @ log(exp(log_density) @ weights)``, by EM.

    log_density: (n, k); row_weight: (n,) or None; the weights (k,) are >= 0 and sum to one.
    """
    highest = log_density.max(axis=1)
    reached = highest > -np.inf
    if not reached.all():
        message = f"{np.sum(~reached)} of {len(reached)} held-out rows have density zero under"
        hint = "Add a member with unbounded support, such as a GaussianMixture of one component."
        if not reached.any():
            raise ValueError(f"{message} every member, so no weights can be chosen. {hint}")
        warn_user(f"{message} every member and are not used to choose the weights. {hint}")
    rows = np.ones(reached.sum()) if row_weight is None else row_weight[reached]
    rows = rows / rows.max()  # the sum of weights of 1e300 would overflow
    rows /= rows.sum()
    # Relative to the best member of each row: only ratios within a row matter.
    density = np.exp(log_density[reached] - highest[reached, None])

    def gradient(weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (rows / (density @ weights)) @ density

    weights = np.full(density.shape[1], 1 / density.shape[1])
    for _ in range(_MAX_ITERATIONS):
        slope = gradient(weights)
        if slope.max() - 1 <= _MAX_GAP:
            # EM never reaches zero, and a tiny weight would determine far tails: set it to zero where
            # the log-likelihood remains within the limit.
            kept = np.where(slope < 1 - np.sqrt(_MAX_GAP), 0.0, weights)
            kept /= kept.sum()
            if gradient(kept).max() - 1 <= _MAX_GAP:
                return kept
        weights = weights * slope
        weights /= weights.sum()
    warn_user(
        f"the held-out log-likelihood may be {slope.max() - 1:.1e} nats a row below its maximum after "
        f"{_MAX_ITERATIONS} iterations: some members are nearly equal. Drop one of them, or take the "
        "weights as they are.",
        ConvergenceWarning,
    )
    return weights
