"""Choice of the noise range, the denoisers of its levels, and the bandwidth of local scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .._coordinates.embedding import Embedding
from .._coordinates.hull import AffineHull
from .._coordinates.metric import fit_metric
from .._diffusion.model import DiffusionModel
from .._diffusion.settings import (
    Resources,
    check_terminal_scale,
    parse_resources,
    resolve_background,
    resolve_n_nodes,
    resolve_solver,
)
from .._utils.validation import (
    check_bandwidth,
    check_choice,
    check_count,
    check_ratio,
    check_real,
    fixed_seed,
)
from .._utils.warnings import warn_user
from ..kernels._nodes import NodeRule, default_n_nodes
from ..noise import NoiseLevels
from ..solvers import ODESolver, Solver
from .local_choice import WIDTHS, ExcludedQueries, choose_mixtures, covariances_by_fold
from .local_groups import GroupFamily, ShiftedImages
from .local_source import LocalScores

__all__ = ["LocalParameters", "columns_as_they_are", "fit_local_scores"]

# In units of the root mean square of the columns' standard deviations: bounds of the bandwidths that
# "auto" compares, and the terminal scale; then the least terminal scale over the widest standard
# deviation.
_LOWEST, _HIGHEST, _TERMINAL, _TERMINAL_WIDEST = 0.001, 0.7, 4.0, 2.0
# Number of noise levels for each unit of log(scale), and distance in levels of compared bandwidths.
_LEVELS_A_UNIT, _LEVELS_APART = 3.5, 2
# Standard deviation of the background, in units of the same root mean square.
_BACKGROUND_STD = 3.0
# `fit` warns if the lowest compared bandwidth gains more than this over the next one, in nats a column.
_STEEP = 0.02


class LocalParameters(NamedTuple):
    """Checked parameters; None stands for "auto"."""

    bandwidth: float | None
    sigma: float
    width: float | None
    background: float
    terminal: str
    terminal_scale: float | None
    n_levels: int | None
    n_steps: int | None
    n_nodes: int | None
    solver: Solver
    resources: Resources
    seed: int
    unit: float  # The scales above are divided by it

    @classmethod
    def of(cls, params: Mapping[str, Any], unit: float) -> LocalParameters:
        """Return the checked parameters from those of `get_params`; scales are divided by `unit`."""
        terminal_scale = check_terminal_scale(params["terminal_scale"])
        bandwidth = check_bandwidth(params["bandwidth"], "X", names=("auto",))
        width = params["width"]
        if isinstance(width, str):
            check_choice("width", width, ("auto",), hint="Or pass a number >= 0.")
        else:
            hint = "It is in units of the covariance of the data; 0 are the rows themselves."
            width = check_real("width", width, strict=False, hint=hint)
        if isinstance(params["background"], str):
            check_real("background", params["background"], strict=False, hint="0 is none.")
        return cls(
            None if isinstance(bandwidth, str) else bandwidth / unit,
            check_real("sigma", params["sigma"], strict=False, hint="It is in units of X.") / unit,
            None if isinstance(width, str) else width,
            resolve_background(params["background"]) or 0.0,
            check_choice("terminal", params["terminal"], ("gaussian", "empirical")),
            None if isinstance(terminal_scale, str) else terminal_scale / unit,
            check_count("n_levels", params["n_levels"]),
            check_count("n_steps", params["n_steps"]),
            resolve_n_nodes(params["n_nodes"], "sobol"),
            resolve_solver(params["solver"]),
            parse_resources(params, params["dtype"]),
            # Last: this draws from a RandomState, which must not happen if another check fails.
            fixed_seed(params["random_state"]),
            unit,
        )


def columns_as_they_are(
    points: np.ndarray, weights: np.ndarray, center: np.ndarray, unit: float = 1.0
) -> Embedding:
    """Return the coordinates (x - center) / unit of rows (N, d); the center (d,) is divided by unit."""
    metric = fit_metric("euclidean", points, weights, unit=unit)
    return Embedding(metric, AffineHull(center, np.eye(len(center))))


def fit_local_scores(
    points: np.ndarray,
    weights: np.ndarray,
    covariance: np.ndarray,
    widths: np.ndarray,
    family: GroupFamily,
    images: ShiftedImages | None,
    parsed: LocalParameters,
) -> tuple[LocalScores, np.ndarray]:
    """Return the source of scores after all "auto" choices, and the denoising error of each level.

    The mean of the rows (N, d) is subtracted; `widths` (d,) are `ColumnPrecision.width` in their unit.
    """
    n, d = points.shape
    std = math.sqrt(np.trace(covariance) / d)
    levels = _noise_range(n, covariance, std, parsed)
    background = (parsed.background if std > 0 else 0.0, (_BACKGROUND_STD * std) ** 2)
    n_optional = 0
    if parsed.bandwidth is None:
        n_optional = sum(levels.start(k + 1) <= _HIGHEST * std for k in range(levels.n_levels - 2))
    rows = ExcludedQueries.of(points, weights, widths)
    mixtures, errors = choose_mixtures(
        rows,
        levels,
        n_optional,
        family,
        WIDTHS if parsed.width is None else (parsed.width,),
        parsed.width is None,
        images,
        background,
        parsed.resources,
        parsed.seed,
    )
    first = levels.n_levels - len(mixtures)
    source = LocalScores(
        NoiseLevels(levels.start(first), levels.terminal_scale, len(mixtures)),
        points,
        weights,
        covariance,
        mixtures,
        images,
        background,
        parsed.sigma,
        NodeRule("sobol", parsed.n_nodes or default_n_nodes(d), parsed.seed),
        parsed.terminal,
    )
    if parsed.bandwidth is None and n > 1 and isinstance(parsed.solver, ODESolver):
        first = _first_level(source, rows, std, parsed)
        source, errors = source.from_level(first), errors[first:]
    return source, errors


def _noise_range(
    n: int, covariance: np.ndarray, std: float, parsed: LocalParameters
) -> NoiseLevels:
    """Return the noise range for n distinct rows, which starts at the lowest compared bandwidth."""
    lowest = parsed.bandwidth
    if lowest is None:
        if not std > 0:
            raise ValueError(
                f"bandwidth='auto' needs rows that differ, and X has n_samples={n} distinct row; "
                "expected more than 1 sample. Or pass a number, in units of X."
            )
        lowest = _LOWEST * std
    highest = parsed.terminal_scale
    if highest is None:
        widest = math.sqrt(max(float(np.linalg.eigvalsh(covariance)[-1]), 0.0))
        highest = max(_TERMINAL * std, _TERMINAL_WIDEST * widest, 2 * lowest)
    check_ratio("bandwidth", lowest, parsed.unit)
    if highest <= lowest:
        raise ValueError(
            f"terminal_scale={parsed.unit * highest:g} is not above the bandwidth "
            f"{parsed.unit * lowest:g}; the flow runs between the two. It is in units of X; 'auto' "
            "suits most data."
        )
    n_levels = parsed.n_levels or max(2, math.ceil(_LEVELS_A_UNIT * math.log(highest / lowest)))
    return NoiseLevels(lowest, highest, n_levels)


def _first_level(
    source: LocalScores, rows: ExcludedQueries, std: float, parsed: LocalParameters
) -> int:
    """Return the level whose lowest noise scale is the bandwidth of highest leave-one-out likelihood."""
    source = replace(source, points=rows.points, weights=rows.weights)
    queries, exclude, weights = (
        values[::2] for values in (rows.queries, rows.exclude, rows.query_weights)
    )
    folds = covariances_by_fold(rows.points, rows.weights, rows.folds, exclude)
    embedding = columns_as_they_are(rows.points, rows.weights, np.zeros(rows.points.shape[1]))
    starts = [
        level
        for level in range(0, max(1, source.levels.n_levels - 1), _LEVELS_APART)
        if level == 0 or source.levels.start(level) <= _HIGHEST * std
    ]
    n_constant = int(np.sum(np.ptp(rows.points, axis=0) == 0))

    @cache
    def likelihood(index: int) -> float:
        if index >= len(starts):
            return -math.inf
        part, total = source.from_level(starts[index]), 0.0
        steps = part.levels.equal_steps(1)
        for taken, covariance in folds:
            of_fold = replace(part, covariance=covariance)
            model = DiffusionModel(of_fold, embedding, parsed.solver, steps, "float64")
            total += weights[taken] @ model.excluded_log_density(
                queries[taken], exclude[taken], parsed.resources
            )
        # A constant column has a Gaussian of the bandwidth, whose likelihood must not affect the
        # choice.
        return float(total / weights.sum()) + n_constant * math.log(part.levels.bandwidth)

    # From the lowest bandwidth up, as long as the likelihood increases.
    best = 0
    while likelihood(best + 1) > likelihood(best):
        best += 1
    at_bound = source.levels.bandwidth < 1.001 * _LOWEST * std
    if best == 0 and at_bound and likelihood(0) > likelihood(1) + _STEEP * rows.points.shape[1]:
        warn_user(
            f"the bandwidth {parsed.unit * source.levels.bandwidth:.3g}, {_LOWEST} of the columns' "
            "standard deviation, has the highest leave-one-out likelihood of those compared; a lower "
            "one may be better. If columns have atoms, such as a background of zeros, add noise of one "
            "unit; if some have much smaller values than others, scale them; else pass a number."
        )
    return starts[best]
