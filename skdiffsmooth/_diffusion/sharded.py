"""Checks of parameters where training rows are distributed over processes."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import joblib

from .._utils.shards import Shards
from ..solvers import estimates_error
from .settings import resolve_flow_solver


def check_suits_shards(params: Mapping[str, Any]) -> None:
    """Raise an error where parameters, as `get_params` returns them, do not allow distributed rows."""
    shards, bandwidth, sigma = params["shards"], params["bandwidth"], params["sigma"]
    if isinstance(bandwidth, str) or isinstance(sigma, str):
        raise ValueError(
            f"bandwidth={bandwidth!r} with sigma={sigma!r} cannot be resolved with "
            f"shards={shards!r}, since leave-one-out sums would need all pairs of rows; "
            "fit a subsample with shards=None, and pass its metric_, bandwidth_, sigma_ and "
            "background_."
        )
    if params["n_jobs"] not in (None, 1):
        raise ValueError(
            f"n_jobs={params['n_jobs']!r} cannot be combined with shards={shards!r}, whose "
            "processes are the workers; leave n_jobs at None and start more processes."
        )
    solver = resolve_flow_solver(params["solver"])
    if solver is not None and estimates_error(solver):
        raise ValueError(
            f"solver={params['solver']!r} cannot be combined with shards={shards!r}: rounding "
            "errors could lead the processes to different steps, and they never finish. Use "
            "solver='heun', with more n_steps where its error is too large."
        )


def check_same_parameters(
    shards: Shards, params: Mapping[str, Any], name: str, *values: Any
) -> None:
    """Raise an error on all processes unless values and parameters are the same on each."""
    if shards.alone:
        return
    # Equal numbers of different types are the same parameter.
    plain = {
        key: float(value) if isinstance(value, numbers.Real) else value
        for key, value in params.items()
        if key not in ("device", "n_jobs", "random_state", "verbose")
    }
    shards.check_same(name, *values, joblib.hash(plain))
