"""Levels, steps and nodes for a requested accuracy of log-densities, and the error that remains."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._utils.warnings import warn_user
from ..kernels._node_error import checked_rows
from ..solvers import Multistep, ODESolver
from .fitting import LEAST_MERGING, FittedModel, make_model
from .geometry import Geometry
from .model import DiffusionModel
from .settings import DEFAULT_TOL, PART_OF_STEPS, ParsedParameters, Resources, Sigma

# Most levels and steps, in multiples of those of tol="auto".
_MOST_REFINEMENT = 16.0
# The tolerance of merging is `LEAST_MERGING` to `_MOST_MERGING` times that of the bound of a level: so
# large that at `_N_MERGING` rows log-densities change by at most that bound (the root mean square), and
# their mean by at most `_MERGING_OF_MEAN` of it.
_MOST_MERGING, _N_MERGING, _MERGING_OF_MEAN = 8.0, 64, 0.125


def make_accurate_model(
    geometry: Geometry, parsed: ParsedParameters, bandwidth: float, sigma: Sigma, background: float
) -> FittedModel:
    """Return the model for given scales, refined until its estimated error is at most `tol`, if given.

    Numbers of nodes, levels and steps that were given are kept. A warning is issued if the error stays
    larger, with its value, or if it cannot be estimated. Many points are merged as far as log-densities
    allow.
    """
    model, attributes = _refined_model(geometry, parsed, bandwidth, sigma, background)
    return FittedModel(_with_checked_merging(model, parsed.resources), attributes)


def _refined_model(
    geometry: Geometry, parsed: ParsedParameters, bandwidth: float, sigma: Sigma, background: float
) -> FittedModel:
    """Return the model, with points merged as far as the bound of each level allows."""
    if parsed.tol is None:
        fitted = make_model(geometry, parsed, bandwidth, sigma, background)
        # Levels have different numbers of steps only where sigma is many bandwidths.
        if not parsed.rule.n_nodes and len(set(fitted.model.steps_of_levels)) > 1:
            _warn_of_small_bandwidth(fitted, parsed.resources)
        return fitted
    refinement, solver_error = _enough_refinement(geometry, parsed, bandwidth, sigma)
    fitted = make_model(geometry, parsed, bandwidth, sigma, background, refinement=refinement)
    node_error = fitted.attributes["node_error_"]
    merging_error = fitted.model.data.hierarchy.tolerance
    error = math.hypot(node_error, solver_error, merging_error)
    fitted.attributes["error_"] = error
    _warn_of_accuracy(parsed, fitted.model, error, node_error, solver_error)
    return fitted


def _enough_refinement(
    geometry: Geometry, parsed: ParsedParameters, bandwidth: float, sigma: Sigma
) -> tuple[float, float]:
    """Return a factor for the numbers of levels and steps, and the solver's error then, in nats."""
    assert parsed.tol is not None
    n_nodes = parsed.rule.n_nodes or geometry.kernel.n_nodes
    trial = replace(parsed, rule=replace(parsed.rule, n_nodes=n_nodes))
    refinement, largest = 1.0, PART_OF_STEPS * parsed.tol
    while True:
        model = make_model(geometry, trial, bandwidth, sigma, refinement=refinement).model
        error = _solver_error(model, parsed.resources)
        is_final = parsed.n_steps is not None or refinement >= _MOST_REFINEMENT
        # Written so that NaN ends the search.
        if is_final or not error > largest:
            return refinement, error
        # The factor for this error by the order of the solver, with a margin since it is an estimate.
        factor = 1.2 * (error / largest) ** (1 / model.solver.order)
        refinement = min(_MOST_REFINEMENT, refinement * max(1.25, factor))


def _with_checked_merging(model: DiffusionModel, resources: Resources) -> DiffusionModel:
    """Return the model with points merged as far as the errors of log-densities allow.

    Errors of cells have both signs, so those of log-densities are mostly far below the bound of a
    level. But where noise is about as wide as the kernel, cells make the rows narrower at all queries
    alike. Errors are measured with the largest tolerance at training rows, which are as near to the
    others as held-out rows are, and taken to be proportional to the tolerance.
    """
    hierarchy = model.data.hierarchy
    if not hierarchy.tolerance or not model.source.has_divergence:
        return model

    def merged(model: DiffusionModel, factor: float) -> DiffusionModel:
        coarser = replace(hierarchy, tolerance=factor * hierarchy.tolerance)
        return replace(model, source=replace(model.data, hierarchy=coarser))

    rows, _ = checked_rows(model.data.schedule(resources), _N_MERGING)
    # One evaluation a level, with alike errors in both. Where these steps are far too long, paths part,
    # and the difference is too large.
    steps = (1,) * model.levels.n_levels
    quick = replace(model, solver=Multistep(), steps_of_levels=steps, tol=None)
    finer = quick.log_density_in_hull(rows, resources)
    coarser = merged(quick, _MOST_MERGING).log_density_in_hull(rows, resources)
    errors = (coarser - finer) / ((_MOST_MERGING - 1) * hierarchy.tolerance)
    largest = max(float(np.sqrt(np.mean(errors**2))), abs(float(errors.mean())) / _MERGING_OF_MEAN)
    if not largest > 0:  # NaN, or nothing is merged
        return model
    return merged(model, min(_MOST_MERGING, max(LEAST_MERGING, 1 / largest)))


def _solver_error(model: DiffusionModel, resources: Resources) -> float:
    """Return the root mean square error of log-densities, in nats, from the solver's steps, or NaN."""
    if not isinstance(model.solver, ODESolver) or not model.source.has_divergence:
        return math.nan
    rows, noise = checked_rows(model.data.schedule(resources))
    errors = model.solver_errors(rows + model.bandwidth * noise, resources)
    return float(np.sqrt(np.mean(errors**2)))


def _warn_of_small_bandwidth(fitted: FittedModel, resources: Resources) -> None:
    """Store the estimated error as `error_`, in nats, and warn if it exceeds the default accuracy."""
    model, node_error = fitted.model, fitted.attributes["node_error_"]
    # With tol=None no row is followed again by the adaptive solver, which would take too long here.
    solver_error = _solver_error(replace(model, tol=None), resources)
    error = math.hypot(node_error, solver_error)
    fitted.attributes["error_"] = error
    if error > DEFAULT_TOL:
        ratio = np.max(fitted.attributes["sigma_"]) / (model.unit * model.bandwidth)
        warn_user(
            f"sigma is {ratio:.3g} times the bandwidth: log-densities of single rows have an estimated "
            f"root mean square error of {error:.2g} nats, {node_error:.2g} from "
            f"{model.data.smoothing.n_nodes} nodes and {solver_error:.2g} from {model.n_steps} steps "
            f"(at up to 16 training rows). Pass a larger bandwidth or a smaller sigma, or "
            f"tol={DEFAULT_TOL:g} for more nodes and steps, in more time.",
            ConvergenceWarning,
        )


def _warn_of_accuracy(
    parsed: ParsedParameters,
    model: DiffusionModel,
    error: float,
    node_error: float,
    solver_error: float,
) -> None:
    """Warn unless the estimated error, in nats, is at most the requested one."""
    if parsed.tol is None or error <= parsed.tol:
        return
    if math.isnan(error):
        warn_user(
            f"tol={parsed.tol:g} cannot be checked, since the model has no log-densities with "
            f"solver={parsed.requested['solver']!r} and this kernel. Give n_nodes, n_levels and "
            "n_steps, and leave tol at 'auto'.",
            ConvergenceWarning,
        )
        return
    given = [
        f"{name}={parsed.requested[name]!r}"
        for name in ("n_nodes", "n_levels", "n_steps")
        if not isinstance(parsed.requested[name], str)
    ]
    advice = f"Leave {' and '.join(given)} at 'auto', or pass" if given else "Pass"
    warn_user(
        f"tol={parsed.tol:g} is not reached: log-densities have an estimated root mean square error of "
        f"{error:.2g} nats, {node_error:.2g} from {model.data.smoothing.n_nodes} nodes in "
        f"{model.levels.n_levels} levels and {solver_error:.2g} from {model.n_steps} steps. {advice} a "
        "larger tol.",
        ConvergenceWarning,
    )
