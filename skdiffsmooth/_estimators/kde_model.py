"""The density of a kernel density estimate as an object of `_engine`, in units of the bandwidth."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._coordinates.columns import typical_row
from .._engine.box_sums import BoxSums
from .._engine.periodic import PeriodicPosterior, make_posterior
from .._engine.posterior import Posterior
from .._engine.radial_kernels import RADIAL_KERNELS
from .._engine.radial_mixture import RadialMixture
from .._utils.backend import Backend
from .._utils.units import unit_for


def curvatures(bandwidth: Any) -> np.ndarray:
    """Return the ratios of 1 / h_j^2 to the largest of them, for bandwidths h_j, without overflow."""
    return (np.min(bandwidth) / np.asarray(bandwidth)) ** 2


def units_of(kernel: str, bandwidth: Any) -> Any:
    """Return the divisor of the columns: the bandwidth, or `unit_for(bandwidth)` if not Gaussian."""
    return bandwidth if kernel == "gaussian" or np.ndim(bandwidth) else unit_for(bandwidth)


def sort_into_boxes(
    points: np.ndarray, weights: np.ndarray, kernel: str, bandwidth: Any, rtol: float
) -> BoxSums:
    """Return kernel sums over points (n, d) relative to their origin, scaled by `units_of`."""
    scaled = points / units_of(kernel, bandwidth)
    return BoxSums(scaled, weights, RADIAL_KERNELS[kernel], _scale(kernel, bandwidth), rtol)


def _scale(kernel: str, bandwidth: Any) -> float:
    """Return the bandwidth divided by `units_of`."""
    is_one = kernel == "gaussian" or np.ndim(bandwidth)
    return 1.0 if is_one else float(bandwidth / unit_for(bandwidth))


def origin_of(points: np.ndarray, periods: np.ndarray | None) -> np.ndarray:
    """Return the origin (d,) of the coordinates: a typical row, but 0 in periodic columns."""
    origin = typical_row(points)
    return origin if periods is None else np.where(periods > 0, 0.0, origin)


def kernel_model(
    backend: Backend,
    points: np.ndarray,
    weights: np.ndarray,
    kernel: str,
    bandwidth: Any,
    periods: np.ndarray | None,
    memory_limit: float,
) -> Posterior | PeriodicPosterior | RadialMixture:
    """Return the density of points (n, d) relative to their origin, scaled by `units_of`."""
    units = units_of(kernel, bandwidth)
    scaled = points / units
    if kernel == "gaussian":
        return make_posterior(
            scaled,
            weights,
            None if periods is None else periods / units,
            backend,
            memory_limit=memory_limit,
            trace_weights=curvatures(bandwidth) if np.ndim(bandwidth) else None,
        )
    profile, scale = RADIAL_KERNELS[kernel], _scale(kernel, bandwidth)
    log_weights = backend.tensor(np.log(weights))
    return RadialMixture(
        backend.tensor(scaled), log_weights, profile, scale, memory_limit=memory_limit
    )
