"""Checks the parameters of `NeuralScoreDiffusion` and converts them to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._coordinates.metric import check_linear_metric
from .._diffusion.settings import MIRRORED, check_terminal_scale, parse_resources, resolve_solver
from .._utils.backend import Backend
from .._utils.validation import (
    check_bandwidth,
    check_even,
    check_flag,
    check_integer,
    check_real,
    fixed_seed,
    wrong_type,
)
from ..solvers import Solver
from .training import TrainingSettings


class ParsedParameters(NamedTuple):
    """The parameters of `NeuralScoreDiffusion` after checks, converted to values."""

    backend: Backend
    dtype: str
    solver: Solver
    settings: TrainingSettings
    metric: str | float | np.ndarray
    bandwidth: float
    terminal_scale: float | str
    hidden: tuple[int, ...]
    n_frequencies: int
    held_out: float | None
    seed: int


def parse_parameters(params: Mapping[str, Any], n_features: int) -> ParsedParameters:
    """Return all parameters, given as the dict of `get_params`, checked and converted."""
    solver = resolve_solver(params["solver"])
    check_real("sigma", params["sigma"], strict=False, hint="0 leaves its score unsmoothed.")
    metric = check_linear_metric(params["metric"], n_features)
    check_even("n_nodes", params["n_nodes"], MIRRORED)
    check_integer("n_levels", params["n_levels"])
    check_integer("n_steps", params["n_steps"])
    check_integer("max_exact_dimension", params["max_exact_dimension"], minimum=0)
    check_integer("n_probes", params["n_probes"], minimum=2, hint="One has no standard error.")
    resources = parse_resources(params, params["dtype"])
    check_flag("warm_start", params["warm_start"])
    early_stopping = check_flag("early_stopping", params["early_stopping"])
    fraction = check_real("validation_fraction", params["validation_fraction"], below=1)
    return ParsedParameters(
        resources.backend,
        params["dtype"],
        solver,
        TrainingSettings(
            check_integer("max_iter", params["max_iter"]),
            check_integer("batch_size", params["batch_size"]),
            check_real("learning_rate_init", params["learning_rate_init"]),
            check_real("ema_decay", params["ema_decay"], strict=False, below=1),
            check_real("tol", params["tol"], strict=False),
            check_integer("n_iter_no_change", params["n_iter_no_change"]),
        ),
        metric,
        check_bandwidth(params["bandwidth"], "the metric"),
        check_terminal_scale(params["terminal_scale"]),
        _layer_sizes(params["hidden_layer_sizes"]),
        check_integer("n_frequencies", params["n_frequencies"], minimum=0),
        fraction if early_stopping else None,
        # Last, since it may draw from a RandomState, which a fit that fails must not change.
        fixed_seed(params["random_state"]),
    )


def _layer_sizes(sizes: Any) -> tuple[int, ...]:
    hint = "It takes a tuple of widths, such as (128, 128)."
    if isinstance(sizes, str | bytes) or not isinstance(sizes, Sequence | np.ndarray):
        raise wrong_type("hidden_layer_sizes", sizes, f"integers >= 1. {hint}")
    if not len(sizes):
        raise ValueError(
            f"hidden_layer_sizes={sizes!r} is empty; expected one layer at least. {hint}"
        )
    return tuple(check_integer("hidden_layer_sizes", size, hint=hint) for size in sizes)
