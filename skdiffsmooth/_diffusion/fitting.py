"""Functions that make a model for given scales: levels, nodes and hierarchy of the points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._coordinates.embedding import Embedding
from .._coordinates.periodic import circular_std
from .._engine.hierarchy import PointHierarchy
from .._utils.validation import check_ratio
from ..bandwidth import Queries
from ..bases import ManifoldParzen
from ..kernels._node_error import checked_rows, divergence_shifts, enough_nodes
from ..kernels._nodes import NodeRule
from ..kernels._shapes import ConstantShape, FrozenKernel
from ..noise import NoiseLevels, NoiseProcess, VarianceExploding, enough_steps
from ..scores import ScoreSchedule
from ..solvers import Heun, Multistep
from .background import LEAST_TAIL, WIDTH, Tail, choose_tail, tail_log_density
from .geometry import Geometry
from .model import DiffusionModel
from .settings import (
    DEFAULT_TOL,
    ParsedParameters,
    Resources,
    Sigma,
    merging_tolerance,
    noise_for,
    scales_of_levels,
    terminal_scale_for,
)
from .source import NoisedData

# Steps take one evaluation if sigma is at most `_MOST_BANDWIDTHS` bandwidths and such steps are too long
# for at most a fraction `_MOST_ROUGH` of checked rows; else they would miss jumps of posterior means.
_MOST_BANDWIDTHS, _MOST_ROUGH = 4.0, 1 / 12
# Smoothing scale, in noise scales, above which a level has several steps; the most steps of one level
# and of all levels together by that rule.
_MANY_NOISE_SCALES, _MOST_STEPS_A_LEVEL, _MOST_STEPS = 5.0, 32, 256
# With a fitted mixture as base: factors of the numbers of levels and steps, and of nodes above
# `_MOST_DIMENSIONS` dimensions. Held-out rows are outside thin components, and all errors have one sign.
_REFINEMENT_OVER_MIXTURES, _MORE_NODES, _MOST_DIMENSIONS = 2, 8, 10
# Most dimensions in which nodes are `gaussian_frames`, without a base; above ten dimensions, the mean
# error of the divergences over rows is then corrected.
_MOST_FRAMES = 64
# Cells are made for this part of the tolerance of merging, which may be lowered afterwards.
LEAST_MERGING = 0.5
# Most rows with which candidates are compared and tails chosen.
MOST_ROWS = 2000


class NodeChoice(NamedTuple):
    """Nodes chosen for a model, their estimated error in nats, and corrections (n_levels,) or None.

    `rank` is the number of dimensions of the kernel.
    """

    rank: int
    rule: NodeRule
    error: float
    shifts: np.ndarray | None

    def suits(self, rank: int, rule: NodeRule) -> bool:
        """Return whether a model would choose among the same nodes, of a number not below `rule`'s."""
        is_same = self.rank == rank and replace(self.rule, n_nodes=rule.n_nodes) == rule
        return is_same and self.rule.n_nodes >= rule.n_nodes


_NODES_OF_WHOLE: ContextVar[NodeChoice | None] = ContextVar("_NODES_OF_WHOLE", default=None)


@contextmanager
def nodes_of_whole(nodes: NodeChoice | None) -> Iterator[None]:
    """Within the block, fits to some rows of a table use the nodes of the fit to all, if they suit.

    To estimate errors of nodes and corrections of divergences takes most of a fit with given settings.
    """
    token = _NODES_OF_WHOLE.set(nodes)
    try:
        yield
    finally:
        _NODES_OF_WHOLE.reset(token)


class FittedModel(NamedTuple):
    """A model, and the fitted attributes that describe how it was made."""

    model: DiffusionModel
    attributes: dict[str, Any]


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
    # A sigma whose square underflows is not an error: it does not smooth.
    check_ratio("sigma", max(finest, 1.0), unit)
    is_mixture = geometry.base is not None and not isinstance(parsed.base, ManifoldParzen)
    rule, by_frames = _node_rule(geometry, parsed, is_mixture=is_mixture, is_smoothed=finest != 0)
    refinement *= _REFINEMENT_OVER_MIXTURES if is_mixture else 1
    levels, scales, steps_of_levels, requested = _smoothed_levels(
        geometry,
        parsed,
        bandwidth,
        sigma,
        noise,
        widest,
        by_frames=by_frames,
        refinement=refinement,
    )
    is_smoothed = bool(scales.any())
    # Points for candidates, which are few, are not merged.
    tolerance = 0.0 if is_candidate else _tolerance(geometry, parsed, is_smoothed=is_smoothed)
    hierarchy = PointHierarchy.of(
        geometry.coordinates, data.weights, LEAST_MERGING * tolerance, bandwidth
    )
    hierarchy = replace(hierarchy, tolerance=tolerance)

    def source_of(rule: NodeRule) -> NoisedData:
        return NoisedData(
            levels,
            hierarchy,
            kernel.freeze(scales, rule),
            geometry.base,
            parsed.terminal,
            data.points,
            parsed.requested["shards"],
            geometry.periods,
        )

    def schedule(rule: NodeRule) -> ScoreSchedule:
        return source_of(rule).schedule(parsed.resources)

    # If a tile does not fit into memory_limit, this raises an error now, not at the first query.
    schedule(rule).posterior_at(bandwidth)
    error, shifts = 0.0, None
    is_fixed = parsed.rule.n_nodes > 0
    whole = None if is_candidate else _NODES_OF_WHOLE.get()
    if whole is not None and whole.suits(kernel.rank, rule):
        _, rule, error, shifts = whole
    elif is_smoothed and kernel.rank and not (is_candidate and is_fixed):
        rule, error = enough_nodes(schedule, rule, parsed.tol, is_fixed=is_fixed)
    source = source_of(rule)
    has_many = by_frames and kernel.rank > _MOST_DIMENSIONS and is_smoothed
    if has_many and data.shards.alone and not is_candidate:
        source, shifts = _corrected(source, shifts, parsed.resources)
    model = _with_solver(
        source, geometry, parsed, steps_of_levels, background, is_candidate=is_candidate
    )
    is_far = finest * kernel.widest_std > _MOST_BANDWIDTHS * bandwidth
    may_choose = model.tol is not None and parsed.solver is None
    if may_choose and is_smoothed and not is_far and source.has_divergence:
        model = _with_fewer_evaluations(model, schedule(rule), parsed.resources)
    if background or (is_candidate and parsed.background != 0):
        model = replace(model, tail=_tail(model, geometry, parsed.resources))
    fitted_sigma = unit * (requested if callable(sigma) else sigma)
    attributes: dict[str, Any] = {"sigma_": fitted_sigma, "noise_": noise, "node_error_": error}
    attributes |= {"error_": error, "_nodes_": NodeChoice(kernel.rank, rule, error, shifts)}
    return FittedModel(model, attributes | geometry.learned)


def _node_rule(
    geometry: Geometry, parsed: ParsedParameters, *, is_mixture: bool, is_smoothed: bool
) -> tuple[NodeRule, bool]:
    """Return the first rule of the nodes, and whether the model is smoothed by `gaussian_frames`."""
    kernel, rule, has_frames = geometry.kernel, parsed.rule, False
    if isinstance(kernel, ConstantShape):
        if geometry.base is None:
            rule = replace(rule, most_frames=_MOST_FRAMES)
        has_frames = kernel.frame_std(rule) is not None
    by_frames = is_smoothed and has_frames
    if not rule.n_nodes:
        has_more = is_mixture and not by_frames and kernel.rank > _MOST_DIMENSIONS
        rule = replace(rule, n_nodes=_MORE_NODES * kernel.n_nodes if has_more else kernel.n_nodes)
    return rule, by_frames


class _SmoothedLevels(NamedTuple):
    """Noise levels, with the scale of smoothing (n_levels,) and the number of steps of each."""

    levels: NoiseLevels
    scales: np.ndarray
    steps: tuple[int, ...]
    requested: np.ndarray  # The same scales, in units of the noised rows


def _smoothed_levels(
    geometry: Geometry,
    parsed: ParsedParameters,
    bandwidth: float,
    sigma: Sigma,
    noise: NoiseProcess,
    widest: float,
    *,
    by_frames: bool,
    refinement: float,
) -> _SmoothedLevels:
    """Return the levels for given scales; `widest` is the variance along the widest axis of the rows."""
    kernel = geometry.kernel
    finest = sigma(bandwidth) if callable(sigma) else sigma
    is_exact = parsed.terminal == "empirical" and isinstance(noise, VarianceExploding)
    terminal_scale = terminal_scale_for(
        _in_metric(parsed.terminal_scale, geometry.metric.unit),
        math.sqrt(widest),
        bandwidth,
        finest * kernel.widest_std,
        is_exact=is_exact and not callable(sigma),
    )
    has_base = geometry.base is not None
    enough = enough_steps(bandwidth, terminal_scale, has_base=has_base, by_frames=by_frames)
    enough = math.ceil(refinement * enough)
    levels = NoiseLevels(bandwidth, terminal_scale, parsed.n_levels or enough)
    requested, scales = scales_of_levels(sigma, noise, levels)
    steps = levels.equal_steps(parsed.n_steps or enough)
    if parsed.n_steps is None:
        steps = _with_shorter_steps(steps, levels, scales * kernel.widest_std)
    parsed.kernel.check_scales(kernel, geometry.coordinates, bandwidth, scales)
    if not scales.any() and parsed.terminal == "empirical":
        # Without smoothing the terminal scale has no effect; at the bandwidth, no flow is needed.
        levels = NoiseLevels(bandwidth, bandwidth, levels.n_levels)
    return _SmoothedLevels(levels, scales, steps, requested)


def _corrected(
    source: NoisedData, shifts: np.ndarray | None, resources: Resources
) -> tuple[NoisedData, np.ndarray]:
    """Return data whose divergences are corrected, and the corrections (n_levels,).

    `shifts` are those of other data; None, or of other levels, they are computed (`divergence_shifts`).
    """
    smoothing = source.smoothing
    assert isinstance(smoothing, FrozenKernel)

    def schedule(rule: NodeRule, exclude: np.ndarray) -> ScoreSchedule:
        other = replace(source, smoothing=replace(smoothing, rule=rule))
        return other.schedule(resources, exclude)

    if shifts is None or len(shifts) != source.levels.n_levels:
        shifts = divergence_shifts(schedule, smoothing.rule, source.hierarchy.points)
    return replace(source, smoothing=replace(smoothing, shifts=shifts)), shifts


def _tolerance(geometry: Geometry, parsed: ParsedParameters, *, is_smoothed: bool) -> float:
    """Return the error, in nats, that merging of points may cause; zero with a base."""
    if geometry.base is not None:
        return 0.0
    n_points = geometry.data.shards.total(len(geometry.data.points))
    return merging_tolerance(parsed.tol, n_points, is_smoothed=is_smoothed)


def _in_metric(terminal_scale: float | str, unit: float) -> float | str:
    """Return a terminal scale in the unit of a metric, or the rule by which it is chosen."""
    if isinstance(terminal_scale, str):
        return terminal_scale
    check_ratio("terminal_scale", terminal_scale / unit, unit)
    return terminal_scale / unit


def _with_solver(
    source: NoisedData,
    geometry: Geometry,
    parsed: ParsedParameters,
    steps_of_levels: tuple[int, ...],
    background: float,
    *,
    is_candidate: bool,
) -> DiffusionModel:
    """Return the model; its `tol` is set if rows whose steps are too long are to be followed again."""
    solver = parsed.solver or Heun()
    is_followed_again = (
        parsed.n_steps is None
        and isinstance(solver, Heun | Multistep)
        and geometry.data.shards.alone
        and not is_candidate
    )
    return DiffusionModel(
        source,
        Embedding(geometry.metric, geometry.hull),
        solver,
        steps_of_levels,
        parsed.dtype,
        background,
        tol=(parsed.tol or DEFAULT_TOL) if is_followed_again else None,
    )


def _with_shorter_steps(
    steps_of_levels: tuple[int, ...], levels: NoiseLevels, widths: np.ndarray
) -> tuple[int, ...]:
    """Return the number of steps of each level, more where the kernel is wide against the noise.

    `widths` (n_levels,) are standard deviations of the kernel. At small noise the posterior mean jumps,
    within intervals that shrink with the noise. Numbers of steps are multiplied by at most 32, and the
    largest are cut until all levels together have 256. With a sigma above some 130 bandwidths, steps are
    therefore longer than this rule requires; `fit` estimates their error.
    """
    scales = np.array([levels.start(level) for level in range(levels.n_levels)])
    factors = np.clip(widths / (_MANY_NOISE_SCALES * scales), 1.0, _MOST_STEPS_A_LEVEL)
    steps = np.ceil(factors * steps_of_levels).astype(int)
    least = np.asarray(steps_of_levels)
    for most in range(int(steps.max()), 0, -1):
        if np.minimum(steps, most).sum() <= _MOST_STEPS:
            break
    return tuple(np.maximum(np.minimum(steps, most), least).tolist())


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

    They are chosen by leave-one-out likelihoods of at most 2000 rows, in a mixture with kernel density
    estimates. With several processes the weight is `LEAST_TAIL`, and the t distribution is the one of
    highest leave-one-out likelihood.
    """
    students, queries = geometry.students, geometry.queries
    geometry = geometry.with_copies_apart()
    data, points, weights = geometry.data, geometry.coordinates, geometry.data.weights
    if len(points) == 1 and data.shards.alone:  # a single row has no scale
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
