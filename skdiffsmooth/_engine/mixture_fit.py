"""Several fits of a Gaussian mixture at once, from different seeds, by expectation maximisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import slices_within
from .._utils.warnings import warn_user

_INIT = "k-means++"
# Size of temporaries that stay in the cache, in MiB.
_CACHE = 4.0


class _Mixtures(NamedTuple):
    """Weights (R, K), means (R, K, d) and covariances (R, K, d, d) of R mixtures of K Gaussians."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


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

    They get the weights, means and covariances of ``GaussianMixture.fit``, up to rounding: many small
    components are computed in a few large products, of as many mixtures as `memory_limit` MiB allow.
    """
    n_components = mixtures[0].n_components
    if len(X) < n_components:
        mixtures[0].fit(X)  # which raises
    for part in slices_within(len(mixtures), 40 * len(X) * n_components, memory_limit):
        _fit_together(mixtures[part], X, memory_limit)


def _fit_together(mixtures: list[Any], X: np.ndarray, memory_limit: float) -> None:
    """Fit mixtures that differ in their seeds only to rows X (n, d), in place and all at once."""
    # Imported here, since loading it takes as long as the whole package.
    from sklearn.cluster import kmeans_plusplus

    first, n, n_restarts = mixtures[0], len(X), len(mixtures)
    n_components = first.n_components
    responsibilities = np.zeros((n_restarts, n_components, n))
    for own, mixture in zip(responsibilities, mixtures, strict=True):
        seed = check_random_state(mixture.random_state)
        own[np.arange(n_components), kmeans_plusplus(X, n_components, random_state=seed)[1]] = 1
    fits = _maximized(responsibilities, X, first.reg_covar, memory_limit)
    # At first each component is computed from one of the n rows.
    fits.weights[:] = 1 / n
    active, before = np.arange(n_restarts), np.full(n_restarts, -np.inf)
    for _ in range(first.max_iter):
        own = _Mixtures(*(each[active] for each in fits))
        log_joint = _log_joint(own, X, memory_limit)
        log_density = logsumexp(log_joint, axis=1)
        responsibilities = np.exp(log_joint - log_density[:, None])
        for whole, part in zip(
            fits, _maximized(responsibilities, X, first.reg_covar, memory_limit), strict=True
        ):
            whole[active] = part
        bound = log_density.mean(axis=1)
        is_unfinished = ~(np.abs(bound - before) < first.tol)
        active, before = active[is_unfinished], bound[is_unfinished]
        if not len(active):
            break
    else:
        warn_user(
            f"{len(active)} of {n_restarts} fits of {first!r} did not converge in {first.max_iter} "
            "iterations; raise max_iter or tol.",
            ConvergenceWarning,
        )
    for mixture, weights, means, covariances in zip(mixtures, *fits, strict=True):
        mixture.weights_, mixture.means_, mixture.covariances_ = weights, means, covariances


def _maximized(
    responsibilities: np.ndarray, X: np.ndarray, floor: float, memory_limit: float
) -> _Mixtures:
    """Return the mixtures of highest likelihood for responsibilities (R, K, n) (the M step).

    `floor` is added to all variances.
    """
    n, d = X.shape
    counts = responsibilities.sum(axis=2) + 10 * np.finfo(np.float64).eps
    means = (responsibilities @ X) / counts[..., None]
    flat, centers = responsibilities.reshape(-1, n), means.reshape(-1, d)
    covariances = np.empty((len(flat), d, d))
    for part in slices_within(len(flat), 24 * n * d, min(memory_limit, _CACHE)):
        offsets = X - centers[part, None]
        weighted = flat[part, :, None] * offsets
        covariances[part] = weighted.transpose(0, 2, 1) @ offsets
    covariances /= counts.reshape(-1, 1, 1)
    covariances[:, np.arange(d), np.arange(d)] += floor
    weights = counts / counts.sum(axis=1, keepdims=True)
    return _Mixtures(weights, means, covariances.reshape(*means.shape, d))


def _log_joint(mixtures: _Mixtures, X: np.ndarray, memory_limit: float) -> np.ndarray:
    """Return the logarithms (R, K, n) of the weights times the densities of components at rows."""
    d = X.shape[1]
    centers = mixtures.means.reshape(-1, d)
    try:
        roots = np.linalg.cholesky(mixtures.covariances.reshape(-1, d, d))
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "a component of a mixture has a covariance that is not positive definite, since its rows "
            "are too few or alike; lower n_components, raise reg_covar, or scale the columns."
        ) from error
    log_density = np.empty((len(centers), len(X)))
    for part in slices_within(len(centers), 24 * len(X) * d, min(memory_limit, _CACHE)):
        # Each row of the inverse is a direction in which a component has variance one.
        directions = np.linalg.inv(roots[part])
        along = (X @ directions.reshape(-1, d).T).reshape(len(X), -1, d)
        along -= np.einsum("kij,kj->ki", directions, centers[part])
        log_density[part] = -0.5 * np.einsum("nki,nki->kn", along, along)
    log_volumes = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
    log_density -= log_volumes[:, None] + gaussian_log_normalizer(d)
    return log_density.reshape(*mixtures.weights.shape, -1) + np.log(mixtures.weights)[..., None]
