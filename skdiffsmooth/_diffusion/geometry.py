"""Training rows, kernel, bandwidth and sigma in the coordinates in which the flow runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._coordinates.embedding import Embedding
from .._coordinates.hull import AffineHull
from .._coordinates.metric import LinearMetric, fit_metric, is_scaled
from .._engine.components import GaussianComponents
from .._utils.cached import cached_property
from .._utils.dequantize import ExcludedRows
from .._utils.units import common_unit, unit_for
from .._utils.validation import LARGEST_VALUE, check_extent
from ..bandwidth import Queries, gaussian_leave_one_out, warn_of_copies
from ..bases import ManifoldParzen, base_components
from ..kernels import ReducedKernel
from ..noise import VarianceExploding
from .background import DEGREES, WITHOUT_VARIANCE
from .settings import Metric, ParsedParameters, Relative, Sigma
from .tails import StudentT, fit_student_t
from .training_data import TrainingData

Factors = tuple[float, float]
Scales = tuple[float | Relative, Sigma | Relative]

# Bandwidth and smoothing scale in units of the leave-one-out bandwidth of the Gaussian KDE in the same
# metric, where candidates are not compared; docs/evidence/defaults.md has the evidence.
DEFAULT_FACTORS: Factors = (0.85, 1.5)
# With a mixture as base both are in units of the narrowest standard deviation of its components, with
# `ManifoldParzen` windows in units of their leave-one-out bandwidth; docs/evidence/bases.md has figures.
_FACTORS_OF_MIXTURES: Factors = (0.3, 2.0)
_FACTORS_OF_WINDOWS: Factors = (1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Data and kernel in the coordinates in which the flow runs, before scales are chosen."""

    data: TrainingData
    metric: LinearMetric
    hull: AffineHull
    coordinates: np.ndarray
    kernel: ReducedKernel
    base: GaussianComponents | None
    learned: dict[str, Any]  # Fitted attributes that were learned with the kernel

    @property
    def periods(self) -> np.ndarray | None:
        """Periods (r,) of the hull coordinates, 0 for one without; None if no column has a period."""
        periods = self.metric.periods
        return None if periods is None else np.abs(self.hull.basis.T) @ periods

    @property
    def unit(self) -> float:
        """Standard deviation of the kernel along its widest direction, at sigma = 1."""
        return self.kernel.widest_std or 1.0

    @property
    def excluded(self) -> ExcludedRows | None:
        """Values at which left-out rows are scored if columns are rounded; None: their own values."""
        return self.data.excluded

    @cached_property
    def queries(self) -> Queries | None:
        """Queries at which left-out rows are scored, in hull coordinates; None: the points."""
        if self.excluded is None:
            return None
        x = self.moved(self.excluded.exclude, self.excluded.offsets)
        return Queries(x, self.excluded.exclude, self.excluded.query_weights)

    def moved(self, index: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return coordinates (n, r) of points by index (n,), moved by offsets (n, d) in units of X."""
        if self.metric.columns.warp is None:
            # Exact for offsets of zero.
            return self.coordinates[index] + self.metric.steps_to_metric(offsets) @ self.hull.basis
        return self.hull.split(self.metric.to_metric(self.data.points[index] + offsets))[0]

    @cached_property
    def students(self) -> list[StudentT]:
        """The t distributions that a background may have."""
        embedding = Embedding(self.metric, self.hull)
        x, weights = self.coordinates, self.data.weights
        if self.queries is not None:
            # At a value that many rows have, the peak of a t distribution would have width zero.
            x, _, weights = self.queries
        periods = () if self.periods is None else tuple(self.periods[self.periods > 0].tolist())
        degrees, dimension = DEGREES, x.shape[1] - len(periods) + self.hull.codimension
        if dimension > 1 and len(x) > 1 and self.data.shards.alone:
            # t distributions without a variance are only for single columns (`choose_tail`).
            degrees = tuple(nu for nu in DEGREES if nu > WITHOUT_VARIANCE)
        return fit_student_t(x, weights, embedding, degrees, self.data.shards, periods)

    def with_copies_apart(self) -> Geometry:
        """Return the geometry with each copy of discrete rows as a point, so that it can be left out."""
        if self.excluded is None:
            return self
        point, weights = self.excluded.point, self.excluded.weights
        data = replace(self.data, points=self.data.points[point], weights=weights)
        apart = replace(self, data=data, coordinates=self.coordinates[point])
        # Indices of left-out rows stay valid, since the copies come after the distinct rows.
        vars(data).update(excluded=self.excluded)
        vars(apart).update(queries=self.queries)
        return apart


def make_geometry(metric: Metric, data: TrainingData, parsed: ParsedParameters) -> Geometry:
    """Return data and kernel in the hull coordinates of a metric."""
    # A known manifold, a kernel that depends on the query and a noise process are in units of X.
    has_unit = not parsed.kernel.candidate_metrics(2) or not isinstance(
        parsed.noise, str | VarianceExploding
    )
    unit = 1.0 if has_unit else data.shards.largest(common_unit(data.points))
    if (
        not has_unit
        and isinstance(parsed.bandwidth, float)
        and data.shards.total(len(data.points)) == 1
    ):
        # A single row has no range. Values divided by the unit must be finite, for the check below.
        largest = data.shards.largest(float(np.abs(data.points).max(initial=0.0)))
        unit = unit_for(max(parsed.bandwidth, largest / LARGEST_VALUE))
    linear, hull = _metric_and_hull(metric, data, unit)
    measured = linear.to_metric(data.points)
    data.shards.together(check_extent, measured, f"metric={metric!r}")
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
            parsed.resources.memory_limit,
            linear.unit,
        )
        # Windows are within the hull of the rows; the components of a fitted mixture fill the space.
        hull = hull.joined(None) if base.floors.any() else hull
    kernel, hull, learned = parsed.kernel.reduce(measured, data.weights, hull, metric, data.shards)
    coordinates, _ = hull.split(measured)
    base = None if base is None else base.within(hull)
    return Geometry(data, linear, hull, coordinates, kernel, base, learned)


def _metric_and_hull(
    metric: Metric, data: TrainingData, unit: float
) -> tuple[LinearMetric, AffineHull]:
    """Return the coordinates of a metric, divided by `unit` if Euclidean, and the hull of the rows."""
    periodic = data.periodic_for(metric)
    if periodic is not None:
        others = data.linear if is_scaled(metric) else data.only(~periodic.is_periodic)
        linear, hull = _metric_and_hull(periodic.of_others(metric), others, 1.0)
        factors = periodic.factors(metric, linear, data.points, data.weights)
        joined = periodic.join_metric(linear, factors, is_scaled=is_scaled(metric))
        return joined, periodic.join_hull(hull, linear)
    columns = data.columns_for(metric)
    linear = fit_metric(metric, data.points, data.weights, data.shards, columns, unit)
    return linear, linear.hull_of(linear.to_metric(data.points), data.shards)


def leave_one_out_bandwidth(
    geometry: Geometry,
    parsed: ParsedParameters,
    *,
    is_screening: bool = False,
    near: float | None = None,
) -> float:
    """Return the bandwidth of highest leave-one-out likelihood of the KDE.

    The search starts at `near`, the bandwidth for other rows. Screening scores 256 rows at most.
    """
    queries, geometry = geometry.queries, geometry.with_copies_apart()
    return gaussian_leave_one_out(
        geometry.coordinates,
        geometry.data.weights,
        # Rows of a part of a table may lie in a plane only by chance, which would make h too narrow.
        0 if geometry.metric.columns.covariance is not None else geometry.hull.codimension,
        parsed.resources.backend,
        parsed.resources.memory_limit,
        queries,
        geometry.periods,
        is_screening=is_screening,
        near=near,
    )


def given_or_default(parsed: ParsedParameters, factors: Factors | None = None) -> Scales:
    """Return bandwidth and sigma; "auto" becomes a multiple of the scale of the rows or of the base."""
    if factors is None:
        factors = DEFAULT_FACTORS
        if isinstance(parsed.base, ManifoldParzen):
            factors = _FACTORS_OF_WINDOWS
        elif parsed.base is not None:
            factors = _FACTORS_OF_MIXTURES
    bandwidth, sigma = parsed.bandwidth, parsed.sigma
    if sigma is None:
        sigma = Relative(factors[1])
    if bandwidth is None:
        # Without smoothing the model is a KDE, for which the leave-one-out bandwidth is best.
        is_kde = parsed.base is None and not callable(sigma) and sigma == 0
        bandwidth = Relative(1.0 if is_kde else factors[0])
    return bandwidth, sigma


def scales_in(
    geometry: Geometry, parsed: ParsedParameters, scales: Scales, h: float | None = None
) -> tuple[float, Sigma]:
    """Return bandwidth and sigma in units of the coordinates; relative scales are multiples of `h`."""
    bandwidth, sigma = scales
    unit = geometry.metric.unit
    if h is None and (isinstance(bandwidth, Relative) or isinstance(sigma, Relative)):
        try:
            h = _reference_scale(geometry, parsed)
        except ValueError as error:
            requested = parsed.requested
            raise ValueError(
                f"bandwidth={requested['bandwidth']!r} with sigma={requested['sigma']!r}: {error}; "
                "pass numbers, bandwidth=<positive> and sigma=<zero or positive>, in units of the "
                "metric."
            ) from error
    if isinstance(sigma, Relative):
        assert h is not None
        sigma = sigma.factor * h / geometry.unit
    elif callable(sigma):
        sigma = _in_unit(sigma, unit)
    else:
        sigma /= unit
    if isinstance(bandwidth, Relative):
        assert h is not None
        return bandwidth.factor * h, sigma
    return bandwidth / unit, sigma


def _in_unit(sigma: Callable[[float], float], unit: float) -> Callable[[float], float]:
    """Return a smoothing scale as a function of the noise scale, both divided by `unit`."""
    return lambda scale: sigma(unit * scale) / unit


def rounding_error(geometry: Geometry) -> float:
    """Return a bound on rounding errors of the rows' coordinates; bandwidths must be larger."""
    radius = geometry.data.shards.largest(float(np.abs(geometry.coordinates).max(initial=0.0)))
    return float(np.finfo(np.float64).eps) * radius


def check_above_rounding(geometry: Geometry, bandwidth: float) -> None:
    """Raise an error if a bandwidth is below the rounding errors of the rows."""
    if geometry.base is None and bandwidth < rounding_error(geometry):
        unit = geometry.metric.unit
        radius = unit * rounding_error(geometry) / np.finfo(np.float64).eps
        raise ValueError(
            f"bandwidth={unit * bandwidth:g} is below the rounding error of rows up to {radius:.3g} "
            "from their center; expected a larger number. Pass a larger bandwidth, drop rows far from "
            "all others, or scale the columns."
        )


def check_no_copies(
    geometry: Geometry, parsed: ParsedParameters, bandwidth: float, sigma: Sigma
) -> None:
    """Warn if a bandwidth that is not "auto" makes draws near-copies of training rows."""
    if parsed.bandwidth is None or geometry.base is not None or not geometry.data.shards.alone:
        return
    narrowest = sigma(bandwidth) if callable(sigma) else sigma
    # An upper bound: the kernel may have its largest width along one direction only.
    distance = math.hypot(bandwidth, narrowest * geometry.unit) * math.sqrt(
        geometry.hull.n_features
    )
    requested = parsed.requested
    warn_of_copies(
        f"bandwidth={requested['bandwidth']!r} with sigma={requested['sigma']!r}",
        distance,
        geometry.coordinates,
        geometry.data.weights,
        geometry.periods,
    )


def _reference_scale(geometry: Geometry, parsed: ParsedParameters) -> float:
    """Return the scale of the rows, or of the base, of which relative scales are multiples."""
    base, data = geometry.base, geometry.data
    if base is None:
        return leave_one_out_bandwidth(geometry, parsed)
    windows = parsed.base
    if isinstance(windows, ManifoldParzen):
        reference = windows.leave_one_out(
            geometry.coordinates,
            data.weights,
            geometry.hull.codimension,
            parsed.resources.memory_limit,
        )
    elif isinstance(parsed.bandwidth, Relative) or isinstance(parsed.sigma, Relative):
        raise ValueError("a mixture has components and not rows, so no row can be left out")
    else:
        reference = base.narrowest
    if not reference > 0:
        raise ValueError("the base has a component of variance zero, so it sets no scale")
    return reference
