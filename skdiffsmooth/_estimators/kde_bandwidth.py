"""The bandwidth of a kernel density estimate: a number, a rule of thumb, or leave-one-out likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .._coordinates.columns import typical_row
from .._coordinates.hull import AffineHull
from .._coordinates.metric import LinearMetric
from .._coordinates.periodic import circular_std
from .._engine.radial_kernels import RADIAL_KERNELS
from .._engine.radial_mixture import RadialMixture
from .._utils.backend import Backend
from .._utils.column_precision import has_extent
from .._utils.dequantize import excluded_rows
from .._utils.rows import MergedRows
from .._utils.units import unit_for
from .._utils.validation import check_bandwidth, check_real_array
from ..bandwidth import (
    Queries,
    gaussian_leave_one_out,
    maximize_leave_one_out,
    scott,
    silverman,
    stationary_bracket,
    zero_bandwidth,
)
from .kde_model import kernel_model, origin_of, units_of

_RULES = {"scott": scott, "silverman": silverman}


def _with_circular_stds(
    points: np.ndarray, weights: np.ndarray, periods: np.ndarray | None
) -> np.ndarray:
    """Return points (n, d) with periodic columns rescaled to their circular standard deviations."""
    points = points.copy()
    for column in np.flatnonzero(np.zeros(0) if periods is None else periods):
        values, period = points[:, column], float(np.asarray(periods)[column])
        std = math.sqrt(weights @ (values - weights @ values) ** 2)
        if std > 0:
            points[:, column] *= circular_std(values, weights, period) / std
    return points


def resolve_bandwidth(
    bandwidth: Any,
    rows: MergedRows,
    coordinates: LinearMetric,
    kernel: str,
    backend: Backend,
    memory_limit: float,
    names: np.ndarray | None,
) -> float | np.ndarray:
    """Return the checked bandwidth: one number, or one for each feature (d,).

    `names` (d,) are those of the columns for messages, None where they have none.
    """
    points = coordinates.to_metric(rows.points)
    if isinstance(bandwidth, str):
        check_bandwidth(bandwidth, "X", names=(*_RULES, "loo"))
        origin = origin_of(points, coordinates.periods)
        # A power of two, so that a search in float32 rounds in the same way in all units of X.
        unit = unit_for(float(np.abs(points - origin).max(initial=0.0)), ordinary=0)
        try:
            if bandwidth in _RULES:
                constant = np.flatnonzero(~has_extent(rows.points))
                if (
                    names is not None
                    and coordinates.is_euclidean
                    and len(constant)
                    and len(points) > 1
                ):
                    raise zero_bandwidth(names[constant].tolist())
                stretched = _with_circular_stds(points, rows.weights, coordinates.periods)
                return unit * _RULES[bandwidth](stretched / unit, rows.weights)
            return unit * _leave_one_out(rows, coordinates, kernel, backend, memory_limit, unit)
        except ValueError as error:
            raise ValueError(
                f"bandwidth={bandwidth!r}: {error}; pass bandwidth=<positive number, in units of X>."
            ) from error
    if not isinstance(bandwidth, Sequence) and np.ndim(bandwidth) == 0:
        return check_bandwidth(bandwidth, "X")
    scales = check_real_array("bandwidth", bandwidth, allow_bool=False)
    d = points.shape[1]
    if scales.shape != (d,):
        raise ValueError(
            f"bandwidth has shape {scales.shape}; expected a number or shape ({d},), one number "
            "for each feature. Pass one number to use it for all features."
        )
    if not np.all(np.isfinite(scales) & (scales > 0)):
        raise ValueError(
            f"bandwidth={bandwidth!r} is out of range; expected finite numbers > 0, in the units of "
            "the features. Pass 'loo' to estimate one number."
        )
    return scales.copy()


def _leave_one_out(
    rows: MergedRows,
    coordinates: LinearMetric,
    kernel: str,
    backend: Backend,
    memory_limit: float,
    unit: float,
) -> float:
    """Return the bandwidth of highest leave-one-out likelihood, divided by `unit`."""
    points, weights = coordinates.to_metric(rows.points), rows.weights
    points = (points - origin_of(points, coordinates.periods)) / unit
    periods = None if coordinates.periods is None else coordinates.periods / unit
    # Rows of a fold that lie in a plane are no evidence for a narrow bandwidth across that plane.
    columns, n_flat = coordinates.columns, 0
    if columns.covariance is not None:
        n_flat = AffineHull.of(columns.inside(columns.scaled(rows.points))).codimension
    queries = None
    excluded = excluded_rows(rows.points, weights, rows.precision.width)
    if excluded is not None:
        x = points[excluded.exclude] + coordinates.steps_to_metric(excluded.offsets) / unit
        queries = Queries(x, excluded.exclude, excluded.query_weights)
        points, weights = points[excluded.point], excluded.weights
    if kernel == "gaussian":
        return gaussian_leave_one_out(
            points, weights, -n_flat, backend, memory_limit, queries, periods
        )
    lower, upper = stationary_bracket(points, weights, queries)
    scored = Queries.at_points(points, weights) if queries is None else queries
    # The optimum of other profiles differs from the Gaussian's by a factor of at most sqrt(d +
    # 4), the ratio of bandwidths at equal variance.
    factor = np.sqrt(points.shape[1] + 4)
    lower, upper = lower / factor, upper * factor
    if RADIAL_KERNELS[kernel].is_compact:
        # Below this the likelihood is zero: some point is outside the kernels of all others.
        margin = 1 + 64 * torch.finfo(backend.dtype).eps
        lower = margin * float(scored.nearest_distances(points).max())
        upper = max(upper, 2 * lower)
    query_weights = backend.tensor(scored.weights)
    exclude = torch.as_tensor(scored.exclude, device=query_weights.device)
    origin = typical_row(points)
    x, points = scored.x - origin, points - origin

    def log_likelihood(h: float) -> float:
        model = kernel_model(backend, points, weights, kernel, h, None, memory_limit)
        assert isinstance(model, RadialMixture)
        queries = backend.tensor(x / units_of(kernel, h))
        return float(query_weights @ model.log_density(queries, exclude=exclude))

    return maximize_leave_one_out(log_likelihood, lower, upper)
