"""Distributions that Langevin chains can sample, defined by an estimator or by functions.

Chains move in coordinates z in which the noise of the target is the same in all directions: those of an
estimator's metric, or x = z @ basis. The score in z is the score in x times dx/dz. With a metric, draws
satisfy the exact linear relations between the columns of the training rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from .._coordinates.metric import LinearMetric


class Target(Protocol):
    """Protocol of an unnormalised distribution at any noise variance v, or at a single one."""

    noise_variance: float | None
    has_log_density: bool
    is_estimator: bool

    def score(self, z: np.ndarray, v: float | None) -> Any:
        """Return the score (n, d) at rows z (n, d) and variance v, or `noise_variance` if None."""
        ...

    def log_density(self, z: np.ndarray, v: float | None) -> Any:
        """Return log-densities (n,) up to a constant, in nats."""
        ...

    def rows(self, z: np.ndarray) -> np.ndarray:
        """Return points z (n, d) as rows in the user's units."""
        ...

    def start(self, start: Any, n: int, v: float | None, rng: np.random.RandomState) -> np.ndarray:
        """Return n starting points for noise variance v: the given rows, or else random draws."""
        ...

    def data_std(self) -> float:
        """Return the largest standard deviation of a column of the data, in coordinates z."""
        ...


class EstimatorTarget:
    """A fitted density estimator with `grad_log_density(X, t)`."""

    def __init__(self, model: Any) -> None:
        check_is_fitted(model)
        self._model = model
        # Rows are arrays here, so the estimator must not expect column names.
        self._without_names = copy.copy(model)
        vars(self._without_names).pop("feature_names_in_", None)
        smallest = float(np.min(model.bandwidth_))
        self.noise_variance: float | None = smallest**2
        self.has_log_density = True
        self.is_estimator = True
        self._basis: np.ndarray | None = None
        self._units: Any = 1.0
        self._metric: LinearMetric | None = getattr(model, "coordinates_", None)
        if self._metric is not None and self._metric.is_euclidean:
            self._metric = None
        # Chains move in the mapped columns, and the density is per unit of these.
        self._warp = None if self._metric is None else self._metric.columns.warp
        if self._metric is None and np.ndim(model.bandwidth_):
            ratios = model.bandwidth_ / smallest
            self._basis, self._units = np.diag(ratios), ratios**2

    def _t(self, v: float | None) -> Any:
        return None if v is None else v * self._units

    def score(self, z: np.ndarray, v: float | None) -> np.ndarray:
        """See `Target`."""
        rows = self.rows(z)
        gradient = self._without_names.grad_log_density(rows, self._t(v))
        if self._metric is not None:
            if self._warp is not None:
                gradient = (gradient - self._warp.log_slope_gradient(rows)) / self._warp.slopes(
                    rows
                )
            return self._metric.gradient_to_metric(gradient)
        return gradient if self._basis is None else gradient @ self._basis.T

    def log_density(self, z: np.ndarray, v: float | None) -> np.ndarray:
        """Return minus the energy; see `Target`."""
        rows = self.rows(z)
        log_density = -self._without_names.energy(rows, self._t(v))
        return log_density if self._warp is None else log_density - self._warp.log_slopes(rows)

    def rows(self, z: np.ndarray) -> np.ndarray:
        """See `Target`."""
        if self._metric is not None:
            return self._metric.from_metric(z)
        return z if self._basis is None else z @ self._basis

    def start(self, start: Any, n: int, v: float | None, rng: np.random.RandomState) -> np.ndarray:
        """Return the given rows, or else draws of the model with a total noise variance of v."""
        if start is not None:
            return self._coordinates(_check_count(self._model._check_query(start), n))
        z = self._coordinates(self._model.sample(n, random_state=rng))
        assert self.noise_variance is not None
        added = 0.0 if v is None else max(v - self.noise_variance, 0.0)
        return z + math.sqrt(added) * rng.standard_normal(z.shape)

    def data_std(self) -> float:
        """See `Target`."""
        points = self._coordinates(self._model.points_)
        weights = self._model.weights_
        mean = weights @ points
        return math.sqrt(float((weights @ (points - mean) ** 2).max()))

    def _coordinates(self, X: np.ndarray) -> np.ndarray:
        if self._metric is not None:
            return self._metric.to_metric(X)
        return X if self._basis is None else np.linalg.solve(self._basis.T, X.T).T


class FunctionTarget:
    """A score, and optionally a log-density, as functions of rows and maybe a noise variance."""

    def __init__(
        self,
        score: Callable[..., Any],
        log_density: Callable[..., Any] | None,
        noise_variance: float | None,
    ) -> None:
        self._score = score
        self._log_density = log_density
        self.noise_variance = noise_variance
        self.has_log_density = log_density is not None
        self.is_estimator = False

    def score(self, z: np.ndarray, v: float | None) -> Any:
        """See `Target`."""
        return self._score(z) if v is None else self._score(z, v)

    def log_density(self, z: np.ndarray, v: float | None) -> Any:
        """See `Target`."""
        assert self._log_density is not None
        return self._log_density(z) if v is None else self._log_density(z, v)

    def rows(self, z: np.ndarray) -> np.ndarray:
        """Return the rows themselves."""
        return z

    def start(self, start: Any, n: int, v: float | None, rng: np.random.RandomState) -> np.ndarray:
        """Return the given rows."""
        if start is None:
            raise ValueError(
                "start=None, but a function has no method to draw starting rows; expected rows of shape "
                f"({n}, n_features), with about the variance of the distribution."
            )
        return _check_count(check_array(start, dtype=np.float64, input_name="start"), n)

    def data_std(self) -> float:
        """Raise an error, since functions have no data."""
        raise ValueError(
            "anneal_from='auto' needs an estimator with training rows; for a function pass the largest "
            "noise scale, a number as large as the distance between modes."
        )


def as_target(target: Any, noise_variance: float | None) -> Target:
    """Return the target for an estimator, a score, or a tuple of a score and a log-density."""
    if isinstance(target, tuple):
        if len(target) == 2 and all(map(callable, target)):
            return FunctionTarget(*target, noise_variance)
    elif hasattr(target, "grad_log_density") and not isinstance(target, type):
        if isinstance(target, BaseEstimator):
            return EstimatorTarget(target)
    elif callable(target) and not isinstance(target, type):
        return FunctionTarget(target, None, noise_variance)
    raise TypeError(
        f"target={target!r} has type {type(target).__name__}; expected a fitted estimator with "
        "grad_log_density, a function score(X), or a tuple (score, log_density). For a search pass "
        "its best_estimator_, for a pipeline its last step."
    )


def _check_count(rows: np.ndarray, n: int) -> np.ndarray:
    if len(rows) != n:
        raise ValueError(
            f"start has {len(rows)} rows, but n_chains={n}; expected one starting row a chain. Pass "
            f"n_chains={len(rows)} or other rows."
        )
    return rows
