"""Makes a model from training rows and parsed parameters.

Nothing is trained. `make_geometry` brings the rows to the coordinates in which the flow runs and reduces
the kernel to them, `scales_in` turns scales that were not given into numbers, and `make_model` freezes
levels, nodes and the hierarchy of the points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .._coordinates.embedding import Embedding
from .._coordinates.hull import AffineHull
from .._coordinates.metric import LinearMetric, fit_metric
from .._engine.components import GaussianComponents
from .._engine.hierarchy import PointHierarchy
from .._utils.dequantize import ExcludedRows, excluded_rows
from .._utils.shards import Shards
from ..bandwidth import Queries, gaussian_leave_one_out
from ..bases import ManifoldParzen, base_components
from ..kernels import ReducedKernel
from ..kernels._node_error import enough_nodes
from ..kernels._nodes import NodeRule
from ..noise import NoiseLevels
from ..scores import ScoreSchedule
from .model import DiffusionModel
from .settings import (
    Metric,
    ParsedParameters,
    ScaleRule,
    Sigma,
    automatic_tolerance,
    resolve_noise,
    resolve_scales,
    resolve_terminal_scale,
    scales_of_levels,
)
from .source import NoisedData, backend_in_range

__all__ = [
    "DEFAULT_FACTORS",
    "Factors",
    "FittedModel",
    "Geometry",
    "TrainingData",
    "leave_one_out_bandwidth",
    "make_geometry",
    "make_model",
    "scales_in",
]

Factors = tuple[float, float]

# Bandwidth and smoothing scale in units of the leave-one-out bandwidth of the Gaussian KDE in the same
# metric, where nothing can be compared; docs/defaults.md has the evidence.
DEFAULT_FACTORS: Factors = (0.85, 1.5)
# Over a mixture both are in units of the narrowest standard deviation of its components, and over
# windows sigma is in units of their own bandwidth; docs/bases.md has the evidence.
_FACTORS_OF_MIXTURES: Factors = (0.3, 2.0)
_FACTORS_OF_WINDOWS: Factors = (1.0, 1.0)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Distinct training rows (n_points, d) and their weights (n_points,), which sum to one."""

    points: np.ndarray
    weights: np.ndarray
    shards: Shards
    n_samples: int
    """How many rows the user passed."""
    is_weighted: bool
    """Whether the user passed weights."""
    units: np.ndarray | None = None
    """The step (d,) in which each column was recorded, 0 where it is continuous; None is unknown."""
    widths: np.ndarray | None = None
    """How far apart (d,) values are that were recorded as one; None is 0."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Data and kernel in the coordinates in which the flow runs, before scales are chosen."""

    data: TrainingData
    metric: LinearMetric
    hull: AffineHull
    coordinates: np.ndarray
    kernel: ReducedKernel
    base: GaussianComponents | None
    learned: dict[str, Any]
    """Fitted attributes that were learned with the kernel."""

    @property
    def unit(self) -> float:
        """Standard deviation of the kernel along its widest direction, at sigma = 1."""
        return self.kernel.widest_std or 1.0

    def queries_for(self, excluded: ExcludedRows) -> Queries:
        """Return the queries that stand for left-out rows, in coordinates of the hull."""
        offsets = self.metric.to_metric(excluded.offsets) @ self.hull.basis
        x = self.coordinates[excluded.exclude] + offsets
        return Queries(x, excluded.exclude, excluded.query_weights)

    def with_rows_of(self, excluded: ExcludedRows) -> Geometry:
        """Return the same coordinates with the training rows that score left-out rows."""
        data = replace(self.data, points=self.data.points[excluded.point], weights=excluded.weights)
        return replace(self, data=data, coordinates=self.coordinates[excluded.point])


class FittedModel(NamedTuple):
    """A model, and the fitted attributes that describe how it was made."""

    model: DiffusionModel
    attributes: dict[str, Any]


def make_geometry(metric: Metric, data: TrainingData, parsed: ParsedParameters) -> Geometry:
    """Return data and kernel in the hull coordinates of a metric."""
    linear = fit_metric(metric, data.points, data.weights, data.shards)
    measured = linear.to_metric(data.points)
    hull = linear.hull_of(measured, data.shards)
    base = None
    if parsed.base is not None:
        if not data.shards.alone:
            raise ValueError(
                f"base={parsed.requested['base']!r} cannot be combined with shards="
                f"{parsed.requested['shards']!r}, whose sums are over rows; leave base at None."
            )
        base = base_components(
            parsed.base,
            measured,
            data.weights,
            data.n_samples,
            data.is_weighted,
            parsed.rule.seed,
        )
        # Windows keep to the hull of the rows; the components of a fitted mixture fill the space.
        hull = hull.joined(None) if base.floors.any() else hull
    kernel, hull, learned = parsed.kernel.reduce(measured, data.weights, hull, metric, data.shards)
    coordinates, _ = hull.split(measured)
    base = None if base is None else base.within(hull)
    return Geometry(data, linear, hull, coordinates, kernel, base, learned)


def leave_one_out_bandwidth(geometry: Geometry, parsed: ParsedParameters) -> float:
    """Return the bandwidth at which the Gaussian KDE has its highest leave-one-out likelihood."""
    data = geometry.data
    excluded = excluded_rows(data.points, data.weights, data.widths)
    queries = None
    if excluded is not None:
        queries, geometry = geometry.queries_for(excluded), geometry.with_rows_of(excluded)
    return gaussian_leave_one_out(
        geometry.coordinates,
        geometry.data.weights,
        geometry.hull.codimension,
        parsed.resources.backend,
        parsed.resources.memory_limit,
        queries,
    )


def scales_in(
    geometry: Geometry, parsed: ParsedParameters, factors: Factors
) -> tuple[float, Sigma]:
    """Return bandwidth and smoothing scale, in units of the metric."""
    rule = _scale_rule(geometry, parsed, factors)
    bandwidth, sigma = resolve_scales(
        parsed.bandwidth, parsed.sigma, geometry.kernel.widest_std, rule
    )
    radius = geometry.data.shards.largest(float(np.abs(geometry.coordinates).max(initial=0.0)))
    if geometry.base is None and bandwidth < np.finfo(np.float64).eps * radius:
        raise ValueError(
            f"bandwidth={bandwidth:g} is below the rounding error of rows up to {radius:.3g} from "
            "their center; expected a larger number. Pass a larger bandwidth, drop rows far from "
            "all others, or scale the columns."
        )
    return bandwidth, sigma


def _scale_rule(geometry: Geometry, parsed: ParsedParameters, factors: Factors) -> ScaleRule:
    """Return the rule that computes scales that were not given from the data, or from the base."""
    base, data = geometry.base, geometry.data
    if base is None:
        return ScaleRule(lambda: leave_one_out_bandwidth(geometry, parsed), *factors)
    windows = parsed.base
    if isinstance(windows, ManifoldParzen):
        return ScaleRule(
            lambda: windows.leave_one_out(
                geometry.coordinates, data.weights, geometry.hull.codimension
            ),
            *_FACTORS_OF_WINDOWS,
        )
    return ScaleRule(lambda: base.narrowest, *_FACTORS_OF_MIXTURES, has_leave_one_out=False)


def make_model(
    geometry: Geometry,
    parsed: ParsedParameters,
    bandwidth: float,
    sigma: Sigma,
    background: float = 0.0,
    *,
    is_candidate: bool = False,
) -> FittedModel:
    """Return the model for given scales, with fixed nodes, levels and hierarchy.

    For a candidate in a search the error of the nodes is estimated only if it decides their number.
    """
    kernel, data = geometry.kernel, geometry.data
    widest = _largest_variance(geometry)
    noise = resolve_noise(parsed.noise, widest)
    finest = sigma(bandwidth) if callable(sigma) else sigma
    terminal_scale = resolve_terminal_scale(
        parsed.terminal_scale, math.sqrt(widest), bandwidth, finest * kernel.widest_std
    )
    levels = NoiseLevels(bandwidth, terminal_scale, parsed.n_levels)
    requested, scales = scales_of_levels(sigma, noise, levels)
    is_smoothed = bool(scales.any())
    parsed.kernel.check_scales(kernel, geometry.coordinates, bandwidth, scales)
    if not is_smoothed and parsed.terminal == "empirical":
        # The unsmoothed flow leads from p_T to p_eps whatever T is: the identity, from p_eps.
        levels = NoiseLevels(bandwidth, bandwidth, parsed.n_levels)
    hierarchy = PointHierarchy.of(
        geometry.coordinates, data.weights, _tolerance(geometry, parsed, is_smoothed), bandwidth
    )
    backend = backend_in_range(parsed.resources.backend, hierarchy, levels)

    def schedule(rule: NodeRule) -> ScoreSchedule:
        return ScoreSchedule(
            levels,
            hierarchy,
            kernel.freeze(scales, rule),
            backend,
            parsed.resources.memory_limit,
            shards=data.shards,
            base=geometry.base,
        )

    rule, is_fixed = parsed.rule, parsed.rule.n_nodes > 0
    rule = rule if is_fixed else replace(rule, n_nodes=kernel.n_nodes)
    # Raises now, and not at the first query, where a tile does not fit into memory_limit.
    schedule(rule).posterior_at(bandwidth)
    error = 0.0
    if is_smoothed and kernel.rank and not (is_candidate and is_fixed):
        rule, error = enough_nodes(schedule, rule, is_fixed=is_fixed)
    smoothing = kernel.freeze(scales, rule)
    model = DiffusionModel(
        NoisedData(
            levels,
            hierarchy,
            smoothing,
            geometry.base,
            parsed.terminal,
            data.points,
            parsed.requested["shards"],
        ),
        Embedding(geometry.metric, geometry.hull),
        parsed.solver,
        parsed.n_levels * parsed.steps_per_level,
        parsed.dtype,
        background,
    )
    attributes = {
        "sigma_": requested if callable(sigma) else sigma,
        "noise_": noise,
        "node_error_": error,
        **geometry.learned,
    }
    return FittedModel(model, attributes)


def _tolerance(geometry: Geometry, parsed: ParsedParameters, is_smoothed: bool) -> float:
    """Return the error of log-densities that merging points may cause, in nats."""
    if geometry.base is not None:
        return 0.0  # components are not merged
    if parsed.tolerance is not None:
        return parsed.tolerance
    data = geometry.data
    return automatic_tolerance(data.shards.total(len(data.points)), is_smoothed)


def _largest_variance(geometry: Geometry) -> float:
    """Return the variance of the data along the widest of their principal axes."""
    data, coordinates = geometry.data, geometry.coordinates
    mean = data.shards.total(data.weights @ coordinates)
    variances = data.shards.total(data.weights @ (coordinates - mean) ** 2)
    return float(variances.max(initial=0.0))
