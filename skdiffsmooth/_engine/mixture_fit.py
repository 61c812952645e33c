"""Several fits of a Gaussian mixture at once, from different seeds, by expectation maximisation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import slices_within
from .._utils.warnings import warn_user

_INIT = "k-means++"
# Largest error of log-densities, in nats, by which components may be computed from squares of columns.
_LARGEST_ERROR = 1e-6


class _Mixtures(NamedTuple):
    """Weights (R, K), means (R, K, d) and covariances (R, K, d, d) of R mixtures of K Gaussians."""

    weights: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor


# Parameters that `fit_restarts` supports in addition to the seed; others must be at their defaults.
_KNOWN = ("n_components", "tol", "reg_covar", "max_iter", "init_params")


def is_restart(mixture: Any, first: Any) -> bool:
    """Return whether two unfitted mixtures differ in seeds only and `fit_restarts` can fit them."""
    # Imported here, since loading it takes as long as the whole package.
    from sklearn.mixture import GaussianMixture

    if type(mixture) is not GaussianMixture or type(first) is not GaussianMixture:
        return False
    # Parameters are compared as strings, since a comparison of arrays has no truth value.
    own, other, default = (
        {name: repr(value) for name, value in each.get_params().items() if name != "random_state"}
        for each in (mixture, first, GaussianMixture())
    )
    is_known = all(own[name] == default[name] or name in _KNOWN for name in own)
    is_valid = mixture.n_components >= 1 and mixture.max_iter >= 1 and mixture.reg_covar >= 0
    is_fitted = hasattr(mixture, "means_") or hasattr(first, "means_")
    return own == other and is_known and is_valid and mixture.init_params == _INIT and not is_fitted


def fit_restarts(mixtures: list[Any], X: np.ndarray, memory_limit: float) -> None:
    """Fit mixtures that differ in their seeds only to rows X (n, d), in place.

    They get the weights, means and covariances of ``GaussianMixture.fit``, up to rounding: all
    components of all mixtures are computed by one product with the squares and products of the columns.
    If these would lose the digits of narrow components, or do not fit into `memory_limit` MiB, the
    mixtures are fitted one by one.
    """
    first, (n, d) = mixtures[0], X.shape
    rows = X - X.mean(axis=0)
    rounding = np.finfo(np.float64).eps * np.square(rows).sum(axis=1).max()
    is_exact = rounding <= _LARGEST_ERROR * first.reg_covar
    fits = 8 * n * (1 + d + d * (d + 1) // 2) <= memory_limit * 2**20
    if not (is_exact and fits) or n < first.n_components:
        for mixture in mixtures:
            mixture.fit(X)
        return
    features = _features(torch.from_numpy(rows))
    for part in slices_within(len(mixtures), 24 * n * first.n_components, memory_limit):
        _fit_together(mixtures[part], X, features)


def _fit_together(mixtures: list[Any], X: np.ndarray, features: torch.Tensor) -> None:
    """Fit mixtures that differ in their seeds only to rows X (n, d), in place and all at once.

    `features` (n, p) are those of the rows minus their mean.
    """
    # Imported here, since loading it takes as long as the whole package.
    from sklearn.cluster import kmeans_plusplus

    first, (n, d), n_restarts = mixtures[0], X.shape, len(mixtures)
    n_components = first.n_components
    responsibilities = torch.zeros((n_restarts, n_components, n), dtype=torch.float64)
    # Checks of rows and parameters would take a quarter of the time of these starts.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for own, mixture in zip(responsibilities, mixtures, strict=True):
            seed = check_random_state(mixture.random_state)
            first_rows = kmeans_plusplus(X, n_components, random_state=seed)[1]
            own[torch.arange(n_components), first_rows] = 1
    fits = _maximized(responsibilities, features, d, first.reg_covar)
    # At first each component is computed from one of the n rows.
    fits.weights[:] = 1 / n
    active = torch.arange(n_restarts)
    before = torch.full((n_restarts,), -math.inf, dtype=torch.float64)
    for _ in range(first.max_iter):
        log_joint = _log_joint(_Mixtures(*(each[active] for each in fits)), features)
        top = log_joint.amax(dim=1, keepdim=True)
        responsibilities = log_joint.sub_(top).exp_()
        total = responsibilities.sum(dim=1, keepdim=True)
        responsibilities.div_(total)
        for whole, part in zip(
            fits, _maximized(responsibilities, features, d, first.reg_covar), strict=True
        ):
            whole[active] = part
        bound = (total.log() + top).mean(dim=(1, 2))
        is_unfinished = ~((bound - before).abs() < first.tol)
        active, before = active[is_unfinished], bound[is_unfinished]
        if not len(active):
            break
    else:
        warn_user(
            f"{len(active)} of {n_restarts} fits of {first!r} did not converge in {first.max_iter} "
            "iterations; raise max_iter or tol.",
            ConvergenceWarning,
        )
    center = X.mean(axis=0)
    for mixture, *parameters in zip(mixtures, *fits, strict=True):
        weights, means, covariances = (each.numpy() for each in parameters)
        mixture.weights_, mixture.means_, mixture.covariances_ = (
            weights,
            means + center,
            covariances,
        )


def _features(rows: torch.Tensor) -> torch.Tensor:
    """Return one, the columns, and their squares and products (n, 1 + d + d (d + 1) / 2) of rows."""
    first, second = torch.triu_indices(rows.shape[1], rows.shape[1])
    products = rows[:, first] * rows[:, second]
    return torch.cat([torch.ones_like(rows[:, :1]), rows, products], dim=1)


def _maximized(
    responsibilities: torch.Tensor, features: torch.Tensor, d: int, floor: float
) -> _Mixtures:
    """Return the mixtures of highest likelihood for responsibilities (R, K, n) (the M step).

    `features` (n, p) are those of rows (n, d); `floor` is added to all variances.
    """
    shape = responsibilities.shape[:2]
    sums = responsibilities.flatten(0, 1) @ features
    counts = sums[:, :1] + 10 * torch.finfo(torch.float64).eps
    averages = sums / counts
    means = averages[:, 1 : d + 1]
    covariances = sums.new_empty((len(sums), d, d))
    first, second = torch.triu_indices(d, d)
    covariances[:, first, second] = averages[:, d + 1 :]
    covariances[:, second, first] = averages[:, d + 1 :]
    covariances -= means[:, :, None] * means[:, None]
    covariances.diagonal(dim1=1, dim2=2).add_(floor)
    counts = counts.reshape(shape)
    weights = counts / counts.sum(dim=1, keepdim=True)
    return _Mixtures(weights, means.unflatten(0, shape), covariances.unflatten(0, shape))


def _log_joint(mixtures: _Mixtures, features: torch.Tensor) -> torch.Tensor:
    """Return the logarithms (R, K, n) of the weights times the densities of components at rows.

    They are polynomials of degree two in the columns, whose `features` are (n, p).
    """
    means, weights = mixtures.means.flatten(0, 1), mixtures.weights.flatten()
    d = means.shape[1]
    roots = torch.linalg.cholesky(mixtures.covariances.flatten(0, 1))
    identity = torch.eye(d, dtype=torch.float64)
    # Each row of the inverse is a direction in which a component has variance one.
    directions = torch.linalg.solve_triangular(roots, identity, upper=False)
    precisions = directions.mT @ directions
    linear = (precisions @ means[:, :, None])[:, :, 0]
    constants = weights.log() - gaussian_log_normalizer(d) - 0.5 * (means * linear).sum(dim=1)
    constants -= roots.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    first, second = torch.triu_indices(d, d)
    # Products of two different columns occur twice in the square.
    squares = torch.where(first == second, -0.5, -1.0) * precisions[:, first, second]
    coefficients = torch.cat([constants[:, None], linear, squares], dim=1)
    return (coefficients @ features.T).unflatten(0, mixtures.weights.shape)
