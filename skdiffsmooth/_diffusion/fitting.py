"""Makes a model from training rows and parsed parameters.

Nothing is trained. `make_geometry` brings the rows to the coordinates in which the flow runs and reduces
the kernel to them, `scales_in` turns scales that were not given into numbers, and `make_model` freezes
levels, nodes and the hierarchy of the points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .._coordinates.columns import ColumnSpace
from .._coordinates.embedding import Embedding
from .._coordinates.hull import AffineHull
from .._coordinates.metric import LinearMetric, fit_metric, is_scaled, is_warped
from .._coordinates.periodic import PeriodicColumns, circular_std
from .._engine.components import GaussianComponents
from .._engine.hierarchy import PointHierarchy
from .._utils.dequantize import ExcludedRows, excluded_rows
from .._utils.rows import evenly
from .._utils.shards import Shards
from .._utils.units import common_unit
from .._utils.validation import check_extent, check_ratio
from ..bandwidth import Queries, gaussian_leave_one_out
from ..bases import ManifoldParzen, base_components
from ..kernels import ReducedKernel
from ..kernels._node_error import checked_rows, enough_nodes
from ..kernels._nodes import NodeRule
from ..kernels._shapes import ConstantShape
from ..noise import NoiseLevels, VarianceExploding, enough_steps
from ..scores import ScoreSchedule
from ..solvers import Heun, Multistep
from .background import DEGREES, LEAST_TAIL, WIDTH, Tail, choose_tail, tail_log_density
from .model import DiffusionModel
from .settings import (
    DEFAULT_TOL,
    Metric,
    ParsedParameters,
    Relative,
    Resources,
    Sigma,
    merging_tolerance,
    noise_for,
    scales_of_levels,
    terminal_scale_for,
)
from .source import NoisedData, backend_in_range
from .tails import StudentT, fit_student_t

Factors = tuple[float, float]
Scales = tuple[float | Relative, Sigma | Relative]

# Bandwidth and smoothing scale in units of the leave-one-out bandwidth of the Gaussian KDE in the same
# metric, where nothing can be compared; docs/evidence/defaults.md has the evidence.
DEFAULT_FACTORS: Factors = (0.85, 1.5)
# Steps take one evaluation if sigma is at most `_MOST_BANDWIDTHS` bandwidths, and they are too long for
# at most the part `_MOST_ROUGH` of checked rows; else single evaluations miss jumps of posterior means.
_MOST_BANDWIDTHS, _MOST_ROUGH = 4.0, 1 / 12
# Noise scales above which, as sigma, levels have several steps; most steps of a level by that rule.
_MANY_NOISE_SCALES, _MOST_STEPS_A_LEVEL = 5.0, 32
# Most rows by whose likelihood candidates are compared and tails chosen.
MOST_ROWS = 2000
# Over a mixture both are in units of the narrowest standard deviation of its components, and over
# windows sigma is in units of their own bandwidth; docs/evidence/bases.md has the figures.
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
    """The step (d,) in which each column was recorded, 0 where it is not known; None is unknown."""
    widths: np.ndarray | None = None
    """How far apart (d,) values are that were recorded as one; None is 0."""
    table: TrainingData | None = None
    """The rows of which these are some; they share relations between columns, and maps of columns."""
    periods: np.ndarray | None = None
    """Period (d,) of each column, 0 where it has none; None where no column has one."""

    @cached_property
    def columns(self) -> ColumnSpace:
        """Scales of the columns and relations between them."""
        if self.periodic is not None:
            return self.periodic.join_columns(self.linear.columns)
        if not self.points.shape[1]:
            return ColumnSpace.plain(0)
        if self.table is not None:
            return self.table.columns.of_rows(self.points, self.weights)
        return ColumnSpace.of(self.points, self.weights, self.units, self.shards)

    def with_rows(self, points: np.ndarray, weights: np.ndarray) -> TrainingData:
        """Return other rows (n, d) of the same table, with weights (n,) of any sum."""
        weights = weights / weights.sum()
        return TrainingData(
            points,
            weights,
            self.shards,
            len(points),
            is_weighted=True,
            widths=self.widths,
            table=self.table or self,
            periods=self.periods,
        )

    @cached_property
    def periodic(self) -> PeriodicColumns | None:
        """The periodic columns that vary, in scaled columns; None where no column has a period."""
        if self.periods is None:
            return None
        own = PeriodicColumns.of(self.points, self.weights, self.periods, self._varies)
        if self.table is None or self.table.periodic is None:
            return own
        # Columns that are constant in these rows keep their scales.
        return own.with_scales(self.table.periodic.scales)

    def periodic_for(self, metric: Metric) -> PeriodicColumns | None:
        """Return the columns that are coordinates of their own in a metric, or None."""
        if self.periods is None or is_scaled(metric):
            return self.periodic
        return PeriodicColumns.of(self.points, self.weights, self.periods, self.periods > 0)

    @property
    def has_circles(self) -> bool:
        """Whether columns are periodic, and not the only one that varies."""
        return self.periodic is not None and len(self.periodic.scales) + self.rank > 1

    @property
    def _varies(self) -> np.ndarray:
        """Which columns (d,) are periodic and vary; in scaled columns constants are relations."""
        assert self.periods is not None
        points = self.points if self.table is None else self.table.points
        return (self.periods > 0) & ((len(points) == 1) | (np.ptp(points, axis=0) > 0))

    @cached_property
    def linear(self) -> TrainingData:
        """The same rows without the `periodic` columns."""
        return self.only(~self._varies, None if self.table is None else self.table.linear)

    def only(self, kept: np.ndarray, table: TrainingData | None = None) -> TrainingData:
        """Return the same rows, some of those of a table, with columns of a mask (d,) and no periods."""
        return replace(
            self,
            points=self.points[:, kept],
            units=None if self.units is None else self.units[kept],
            widths=None if self.widths is None else self.widths[kept],
            table=table,
            periods=None,
        )

    @cached_property
    def excluded(self) -> ExcludedRows | None:
        """How left-out rows are scored, or None where they are scored as they are."""
        return excluded_rows(self.points, self.weights, self.widths)

    def evenly(self, most: int) -> np.ndarray:
        """Return the indices of at most `most` rows, taken evenly by their distance from the center."""
        n_points = len(self.points)
        if n_points <= most:
            return np.arange(n_points)
        return np.sort(self.columns.order(self.points)[evenly(n_points, most)])

    @cached_property
    def warped_columns(self) -> ColumnSpace | None:
        """The same with maps of the columns that need one, or None if there is none."""
        if self.periodic is not None:
            linear = self.linear.warped_columns
            return None if linear is None else self.periodic.join_columns(linear)
        return self.columns.warped(self.points, self.weights, self.units)

    def columns_for(self, metric: Metric) -> ColumnSpace | None:
        """Return the columns of a metric; None where it takes them as they are."""
        if self.table is not None:
            columns = self.table.columns_for(metric)
            return None if columns is None else columns.of_rows(self.points, self.weights)
        if not is_warped(metric):
            return self.columns if is_scaled(metric) else None
        if not self.shards.alone:
            raise ValueError(
                f"metric={metric!r} cannot be computed with shards='distributed', since maps of columns "
                "are fitted to all rows; use another metric."
            )
        return self.warped_columns or self.columns

    @property
    def rank(self) -> int:
        """Dimension of the affine hull of the points, without periodic columns."""
        columns = self.columns if self.periods is None else self.linear.columns
        return min(columns.n_directions, self.shards.total(len(self.points)) - 1)


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
    def periods(self) -> np.ndarray | None:
        """Periods (r,) of the hull coordinates, 0 where one has none; None where no column has one."""
        periods = self.metric.periods
        return None if periods is None else np.abs(self.hull.basis.T) @ periods

    @property
    def unit(self) -> float:
        """Standard deviation of the kernel along its widest direction, at sigma = 1."""
        return self.kernel.widest_std or 1.0

    @property
    def excluded(self) -> ExcludedRows | None:
        """How left-out rows are scored, or None where they are scored as they are."""
        return self.data.excluded

    @cached_property
    def queries(self) -> Queries | None:
        """What stands for left-out rows in coordinates of the hull; None is the points themselves."""
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
            # The peak of a t distribution at a value that many rows have would have no width.
            x, _, weights = self.queries
        periods = () if self.periods is None else tuple(self.periods[self.periods > 0].tolist())
        return fit_student_t(x, weights, embedding, DEGREES, self.data.shards, periods)

    def with_copies_apart(self) -> Geometry:
        """Return the geometry with the training rows that score left-out rows."""
        if self.excluded is None:
            return self
        point, weights = self.excluded.point, self.excluded.weights
        data = replace(self.data, points=self.data.points[point], weights=weights)
        apart = replace(self, data=data, coordinates=self.coordinates[point])
        # The same left-out rows: their indices are those of the first training rows.
        vars(data).update(excluded=self.excluded)
        vars(apart).update(queries=self.queries)
        return apart


class FittedModel(NamedTuple):
    """A model, and the fitted attributes that describe how it was made."""

    model: DiffusionModel
    attributes: dict[str, Any]


def make_geometry(metric: Metric, data: TrainingData, parsed: ParsedParameters) -> Geometry:
    """Return data and kernel in the hull coordinates of a metric."""
    # A known manifold, a kernel that depends on the query and a noise process are in units of X.
    has_unit = not parsed.kernel.candidate_metrics(2) or not isinstance(
        parsed.noise, str | VarianceExploding
    )
    unit = 1.0 if has_unit else data.shards.largest(common_unit(data.points))
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
        # Windows keep to the hull of the rows; the components of a fitted mixture fill the space.
        hull = hull.joined(None) if base.floors.any() else hull
    kernel, hull, learned = parsed.kernel.reduce(measured, data.weights, hull, metric, data.shards)
    coordinates, _ = hull.split(measured)
    base = None if base is None else base.within(hull)
    return Geometry(data, linear, hull, coordinates, kernel, base, learned)


def _metric_and_hull(
    metric: Metric, data: TrainingData, unit: float
) -> tuple[LinearMetric, AffineHull]:
    """Return the coordinates of a metric, in a unit where it is Euclidean, and the hull of the rows."""
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
    geometry: Geometry, parsed: ParsedParameters, *, is_screening: bool = False
) -> float:
    """Return the likeliest leave-one-out bandwidth of the KDE; screening scores 256 rows at most."""
    queries, geometry = geometry.queries, geometry.with_copies_apart()
    return gaussian_leave_one_out(
        geometry.coordinates,
        geometry.data.weights,
        geometry.hull.codimension,
        parsed.resources.backend,
        parsed.resources.memory_limit,
        queries,
        geometry.periods,
        is_screening=is_screening,
    )


def given_or_default(parsed: ParsedParameters, factors: Factors | None = None) -> Scales:
    """Return bandwidth and sigma, where they are "auto" as multiples of the scale of rows or base."""
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
        # Without smoothing the leave-one-out bandwidth is the KDE's own best.
        is_kde = parsed.base is None and not callable(sigma) and sigma == 0
        bandwidth = Relative(1.0 if is_kde else factors[0])
    return bandwidth, sigma


def scales_in(
    geometry: Geometry, parsed: ParsedParameters, scales: Scales, h: float | None = None
) -> tuple[float, Sigma]:
    """Return bandwidth and smoothing scale as numbers, in units of the coordinates."""
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
    """Return a smoothing scale, as a function of the noise scale, with both in a unit."""
    return lambda scale: sigma(unit * scale) / unit


def rounding_error(geometry: Geometry) -> float:
    """Return a bound on the rounding errors of coordinates of the rows, which bandwidths exceed."""
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


def _reference_scale(geometry: Geometry, parsed: ParsedParameters) -> float:
    """Return the scale that relative scales multiply, that of the rows or of the base."""
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


def make_model(
    geometry: Geometry,
    parsed: ParsedParameters,
    bandwidth: float,
    sigma: Sigma,
    background: float = 0.0,
    *,
    is_candidate: bool = False,
    refinement: float = 1.0,
) -> FittedModel:
    """Return the model for given scales, with fixed nodes, levels and hierarchy."""
    unit = geometry.metric.unit
    check_ratio("bandwidth", bandwidth, unit)
    kernel, data = geometry.kernel, geometry.data
    widest = _largest_variance(geometry)
    noise = noise_for(parsed.noise, widest)
    finest = sigma(bandwidth) if callable(sigma) else sigma
    terminal_scale = terminal_scale_for(
        parsed.terminal_scale
        if isinstance(parsed.terminal_scale, str)
        else parsed.terminal_scale / unit,
        math.sqrt(widest),
        bandwidth,
        finest * kernel.widest_std,
        is_exact=parsed.terminal == "empirical"
        and isinstance(noise, VarianceExploding)
        and not callable(sigma),
    )
    by_frames = (
        finest != 0
        and isinstance(kernel, ConstantShape)
        and kernel.frame_std(parsed.rule) is not None
    )
    enough = enough_steps(
        bandwidth, terminal_scale, has_base=geometry.base is not None, by_frames=by_frames
    )
    enough = math.ceil(refinement * enough)
    n_levels = parsed.n_levels or enough
    levels = NoiseLevels(bandwidth, terminal_scale, n_levels)
    requested, scales = scales_of_levels(sigma, noise, levels)
    steps_of_levels = levels.equal_steps(parsed.n_steps or enough)
    if parsed.n_steps is None:
        steps_of_levels = _with_shorter_steps(steps_of_levels, levels, scales * kernel.widest_std)
    is_smoothed = bool(scales.any())
    parsed.kernel.check_scales(kernel, geometry.coordinates, bandwidth, scales)
    if not is_smoothed and parsed.terminal == "empirical":
        # The unsmoothed flow leads from p_T to p_eps whatever T is: the identity, from p_eps.
        levels = NoiseLevels(bandwidth, bandwidth, n_levels)
    # Components of a base are not merged, nor are points for candidates, which are few.
    tolerance = 0.0
    if geometry.base is None and not is_candidate:
        n_points = data.shards.total(len(data.points))
        tolerance = merging_tolerance(parsed.tol, n_points, is_smoothed=is_smoothed)
    hierarchy = PointHierarchy.of(geometry.coordinates, data.weights, tolerance, bandwidth)
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
            periods=geometry.periods,
        )

    rule, is_fixed = parsed.rule, parsed.rule.n_nodes > 0
    rule = rule if is_fixed else replace(rule, n_nodes=kernel.n_nodes)
    # Raises now, and not at the first query, where a tile does not fit into memory_limit.
    schedule(rule).posterior_at(bandwidth)
    error = 0.0
    if is_smoothed and kernel.rank and not (is_candidate and is_fixed):
        rule, error = enough_nodes(schedule, rule, parsed.tol, is_fixed=is_fixed)
    smoothing = kernel.freeze(scales, rule)
    solver = parsed.solver or Heun()
    is_followed_again = (
        parsed.n_steps is None
        and isinstance(solver, Heun | Multistep)
        and data.shards.alone
        and not is_candidate
    )
    model = DiffusionModel(
        NoisedData(
            levels,
            hierarchy,
            smoothing,
            geometry.base,
            parsed.terminal,
            data.points,
            parsed.requested["shards"],
            geometry.periods,
        ),
        Embedding(geometry.metric, geometry.hull),
        solver,
        steps_of_levels,
        parsed.dtype,
        background,
        tol=(parsed.tol or DEFAULT_TOL) if is_followed_again else None,
    )
    is_narrow = finest * kernel.widest_std > _MOST_BANDWIDTHS * bandwidth
    may_choose = is_followed_again and parsed.solver is None
    if may_choose and is_smoothed and not is_narrow and model.source.has_divergence:
        model = _with_fewer_evaluations(model, schedule(rule), parsed.resources)
    if background or (is_candidate and parsed.background != 0):
        model = replace(model, tail=_tail(model, geometry, parsed.resources))
    attributes = {
        "sigma_": unit * (requested if callable(sigma) else sigma),
        "noise_": noise,
        "node_error_": error,
        "error_": error,
        **geometry.learned,
    }
    return FittedModel(model, attributes)


def _with_shorter_steps(
    steps_of_levels: tuple[int, ...], levels: NoiseLevels, widths: np.ndarray
) -> tuple[int, ...]:
    """Return the number of steps of each level, more where the kernel is wide against the noise.

    `widths` (n_levels,) are standard deviations of the kernel. The posterior mean jumps at small noise,
    over steps that are shorter the smaller the noise is.
    """
    scales = np.array([levels.start(level) for level in range(levels.n_levels)])
    factors = np.clip(widths / (_MANY_NOISE_SCALES * scales), 1.0, _MOST_STEPS_A_LEVEL)
    return tuple(np.ceil(factors * steps_of_levels).astype(int).tolist())


def _with_fewer_evaluations(
    model: DiffusionModel, schedule: ScoreSchedule, resources: Resources
) -> DiffusionModel:
    """Return the model with steps of one evaluation, if they are short enough for nearly all rows."""
    fewer = replace(model, solver=Multistep())
    rows, noise = checked_rows(schedule)
    n_rough = fewer.n_rough(rows + model.bandwidth * noise, resources)
    return fewer if n_rough <= _MOST_ROUGH * len(rows) else model


def _tail(model: DiffusionModel, geometry: Geometry, resources: Resources) -> Tail:
    """Return the t distribution of the background of a model, with its weight.

    They are chosen by left-out likelihoods of at most 2000 rows, in a mixture with kernel density
    estimates. In several processes the weight is the least one, the distribution the likeliest.
    """
    students, queries = geometry.students, geometry.queries
    geometry = geometry.with_copies_apart()
    data, points, weights = geometry.data, geometry.coordinates, geometry.data.weights
    if len(points) == 1 and data.shards.alone:  # which has no scale
        return Tail(replace(students[0], residual_scale=WIDTH * model.bandwidth), LEAST_TAIL)
    excluded = [student.leave_one_out_log_density(points, weights) for student in students]
    if not data.shards.alone:
        likelihoods = [data.shards.total(weights @ column) for column in excluded]
        return Tail(students[int(np.argmax(likelihoods))], LEAST_TAIL)
    if queries is None:
        queries = Queries.at_points(points, weights)
    else:
        hierarchy = PointHierarchy.of(points, weights, 0.0, model.bandwidth)
        model = replace(model, source=replace(model.data, hierarchy=hierarchy))
    x, exclude, taken_weights = queries.evenly(MOST_ROWS)
    residual = np.zeros((len(x), data.points.shape[1]))
    kdes = [
        model.kde_log_density(x, residual, scale, resources, exclude)
        for scale in (model.bandwidth, WIDTH * model.bandwidth)
    ]
    tails = [
        tail_log_density(student, model.embedding, x, residual, column[exclude])
        for student, column in zip(students, excluded, strict=True)
    ]
    distances = np.column_stack([student.distances(x) for student in students])
    return choose_tail(
        students, np.column_stack(tails), np.column_stack(kdes), distances, taken_weights
    )


def _largest_variance(geometry: Geometry) -> float:
    """Return the variance of the data along the widest of their principal axes."""
    data, coordinates = geometry.data, geometry.coordinates
    mean = data.shards.total(data.weights @ coordinates)
    variances = data.shards.total(data.weights @ (coordinates - mean) ** 2)
    if geometry.periods is not None:
        for column in np.flatnonzero(geometry.periods):
            values, period = coordinates[:, column], geometry.periods[column]
            variances[column] = circular_std(values, data.weights, period) ** 2
    return float(variances.max(initial=0.0))
