"""Checks the parameters of the diffusion estimators and converts them to values."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from .._coordinates.hull import AffineHull
from .._coordinates.metric import check_metric
from .._coordinates.periodic import check_metric_of_periods
from .._utils.backend import Backend
from .._utils.shards import Shards, resolve_shards
from .._utils.validation import (
    check_bandwidth,
    check_choice,
    check_count,
    check_even,
    check_integer,
    check_memory_limit,
    check_real,
    fixed_seed,
    wrong_type,
)
from ..bases import resolve_base
from ..kernels import KERNELS, Kernel, ReducedKernel
from ..kernels._nodes import NODE_RULES, NodeRule
from ..noise import NoiseLevels, NoiseProcess, OrnsteinUhlenbeck, VarianceExploding
from ..solvers import SOLVERS, Adaptive, Solver

Metric = str | float | np.ndarray
Sigma = float | Callable[[float], float]

# Why numbers of nodes must be even, for messages.
MIRRORED = "nodes come in mirrored pairs whose mean is zero"
# The accuracy, in nats a row, of tol="auto".
DEFAULT_TOL = 0.2
# The fraction of a requested accuracy that the error of the steps may have. Errors are added in squares,
# so most is left for the error of the nodes, which take the most time.
PART_OF_STEPS = 0.4
# With at most `_LARGEST_EXACT` points every sum is over all points. More are merged, so that times
# hardly grow: first where the bound of each level is the fraction `_MERGING` of the accuracy (by
# default points closer than 0.2 noise scales), then as far as that is the error of log-densities
# (`accuracy.py`).
_LARGEST_EXACT = 10_000
_MERGING = 0.1
# A number followed by h, such as "1.5h".
_RELATIVE = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)h")


@dataclass(frozen=True)
class Relative:
    """A scale as a multiple of the bandwidth h of highest leave-one-out likelihood."""

    factor: float

    def __str__(self) -> str:
        """Return the string that the parameters `bandwidth` and `sigma` take."""
        return f"{self.factor!r}h"


# Largest noise scale, in units of the smoothing scale: larger ones change held-out log-likelihoods of
# tables by less than 0.001 nats (docs/evidence/accuracy.md).
_ENOUGH_NOISE = 8.0


class Resources(NamedTuple):
    """Device, memory limit and workers of one call; they change results by rounding only."""

    backend: Backend
    memory_limit: float  # Bound on temporaries, in MiB
    n_jobs: int | None
    shards: Shards


class KernelChoice(Protocol):
    """Protocol of an estimator's choice of the directions along which it smooths."""

    def reduce(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        hull: AffineHull,
        metric: Metric,
        shards: Shards,
    ) -> tuple[ReducedKernel, AffineHull, dict[str, Any]]:
        """Return the kernel, the hull in whose coordinates it acts, and attributes set by `fit`.

        The hull is `hull`, that of the data, or a larger one. `points` are coordinates in `metric`.
        """
        ...

    def candidate_metrics(self, rank: int) -> tuple[Metric, ...]:
        """Return the metrics that "auto" compares if the hull has dimension `rank`; may be empty."""
        ...

    def check_base(self, base: Any) -> None:
        """Raise an error if the kernel cannot smooth the score of a base."""
        ...

    def check_scales(
        self, kernel: ReducedKernel, coordinates: np.ndarray, bandwidth: float, scales: np.ndarray
    ) -> None:
        """Raise an error or warn if the kernel does not suit the smoothing scales of the levels."""
        ...


@dataclass(frozen=True, eq=False)
class ParsedParameters:
    """Checked parameters of a diffusion estimator."""

    requested: Mapping[str, Any]  # What the user passed, for messages
    kernel: KernelChoice
    bandwidth: float | Relative | None  # None is "auto"
    sigma: Sigma | Relative | None  # None is "auto"
    metric: Metric  # May be "auto"
    background: float | None  # None is "auto"
    base: Any  # As `resolve_base` returns it; None is the training rows
    noise: str | NoiseProcess
    rule: NodeRule  # Its n_nodes is 0 where their number is to be chosen
    n_levels: int | None  # None is "auto"
    n_steps: int | None  # None is "auto"
    solver: Solver | None  # None is "auto"
    terminal: str
    terminal_scale: float | str
    tol: float | None  # None is "auto"
    dtype: str
    resources: Resources

    @property
    def is_metric_free(self) -> bool:
        """Whether the metric is to be chosen."""
        return isinstance(self.metric, str) and self.metric == "auto"

    @property
    def are_scales_absolute(self) -> bool:
        """Whether bandwidth and sigma both have units (sigma may be a function)."""
        return isinstance(self.bandwidth, float) and not isinstance(self.sigma, Relative | None)

    @property
    def has_absolute_scale(self) -> bool:
        """Whether bandwidth or sigma has units; sigma = 0 has none."""
        has_sigma = self.sigma != 0 and not isinstance(self.sigma, Relative | None)
        return isinstance(self.bandwidth, float) or has_sigma


def parse_parameters(
    params: Mapping[str, Any], kernel: KernelChoice, n_features: int
) -> ParsedParameters:
    """Return the parameters of a diffusion estimator, from the dict of `get_params`, after checks."""
    tol = _resolve_tol(params["tol"])
    base = resolve_base(params["base"])
    if base is not None:
        kernel.check_base(params["base"])
    node_rule = check_choice("node_rule", params["node_rule"], NODE_RULES)
    n_nodes = resolve_n_nodes(params["n_nodes"], node_rule)
    return ParsedParameters(
        requested=params,
        kernel=kernel,
        bandwidth=_resolve_bandwidth(params["bandwidth"]),
        sigma=_resolve_sigma(params["sigma"]),
        metric=check_metric(params["metric"], n_features),
        background=resolve_background(params["background"]),
        base=base,
        noise=_check_noise(params["noise"]),
        n_levels=check_count("n_levels", params["n_levels"]),
        n_steps=check_count("n_steps", params["n_steps"]),
        solver=resolve_flow_solver(params["solver"], tol),
        terminal=check_choice("terminal", params["terminal"], ("empirical", "gaussian")),
        terminal_scale=check_terminal_scale(params["terminal_scale"]),
        tol=tol,
        dtype=params["dtype"],
        resources=parse_resources(params, params["dtype"]),
        # Last, since it draws from a RandomState, which a fit that fails must not do.
        rule=NodeRule(node_rule, n_nodes or 0, fixed_seed(params["random_state"])),
    )


def check_suits_periods(parsed: ParsedParameters, periods: np.ndarray) -> None:
    """Raise an error unless the parameters suit columns of which some have periods (d,)."""
    requested = parsed.requested
    reasons = {
        "kernel": "its offsets depend on where a query is, or mix columns",
        "base": "its components are not wrapped",
        "terminal": "a Gaussian is not periodic",
        "shards": "circular scales need all rows",
    }
    is_wrong = {
        "kernel": len(parsed.kernel.candidate_metrics(2)) < 2,
        "base": parsed.base is not None,
        "terminal": parsed.terminal != "empirical",
        "shards": requested["shards"] is not None,
    }
    for name, reason in reasons.items():
        if is_wrong[name]:
            raise ValueError(
                f"{name}={requested[name]!r} cannot be combined with periods={requested['periods']!r}: "
                f"{reason}. Leave {name} at its default, or drop the periods."
            )
    check_metric_of_periods(parsed.metric, periods)


def parse_resources(params: Mapping[str, Any], dtype: str) -> Resources:
    """Return device, dtype, memory limit and workers, from the dict of `get_params`, after checks."""
    return Resources(
        Backend.from_params(params["device"], dtype),
        check_memory_limit(params["memory_limit"]),
        resolve_n_jobs(params.get("n_jobs", 1)),
        resolve_shards(params.get("shards")),
    )


def resolve_solver(solver: Any) -> Solver:
    """Return the solver of a given name; a solver object is returned as it is."""
    if isinstance(solver, str):
        return SOLVERS[check_choice("solver", solver, SOLVERS)]()
    return _instance("solver", solver, Solver, SOLVERS, "skdiffsmooth.solvers")


def resolve_flow_solver(solver: Any, tol: float | None = None) -> Solver | None:
    """Return the solver of a given name, "adaptive" with accuracy `tol` in nats; None for "auto"."""
    if not isinstance(solver, str):
        return resolve_solver(solver)
    if check_choice("solver", solver, ("auto", *SOLVERS)) == "auto":
        return None
    if solver == "adaptive" and tol is not None:
        return Adaptive(tol=PART_OF_STEPS * tol)
    return resolve_solver(solver)


def resolve_kernel(kernel: Any) -> Kernel:
    """Return the kernel of a given name; a kernel object is returned as it is."""
    if isinstance(kernel, str):
        return KERNELS[check_choice("kernel", kernel, KERNELS)]()
    return _instance("kernel", kernel, Kernel, KERNELS, "skdiffsmooth.kernels")


def resolve_background(background: Any) -> float | None:
    """Return the weight of the background, or None for "auto"."""
    hint = "It is a share of the probability; 0 is none, 0.05 suits most data with outliers."
    if isinstance(background, str):
        check_choice("background", background, ("auto",), hint="Or pass a number in [0, 1).")
        return None
    return check_real("background", background, strict=False, below=1, hint=hint)


def _check_noise(noise: Any) -> str | NoiseProcess:
    if isinstance(noise, str):
        return check_choice("noise", noise, ("ou", "ve"))
    return _instance("noise", noise, NoiseProcess, ("ou", "ve"), "skdiffsmooth.noise")


def noise_for(noise: str | NoiseProcess, variance: float) -> NoiseProcess:
    """Return the noise process of a checked name; "ou" keeps the variance of data at `variance`."""
    if not isinstance(noise, str):
        return noise
    # The rate has the unit of one over a variance, so it is not defined for data of variance zero.
    return OrnsteinUhlenbeck(0.5 / variance) if noise == "ou" and variance else VarianceExploding()


def _instance(name: str, value: Any, protocol: Any, names: Any, module: str) -> Any:
    """Return `value` after checking its protocol; the error lists the `names` that are also valid."""
    if isinstance(value, type) or not isinstance(value, protocol):
        raise wrong_type(
            name, value, f"one of {', '.join(map(repr, sorted(names)))} or an object of {module}."
        )
    return value


def resolve_n_nodes(n_nodes: Any, rule: str) -> int | None:
    """Return the number of nodes, or None for "auto"."""
    if isinstance(n_nodes, str):
        check_choice("n_nodes", n_nodes, ("auto",), hint="Or pass an even number >= 2.")
        return None
    if rule == "gauss-hermite":
        return check_integer("n_nodes", n_nodes, minimum=2)
    return check_even("n_nodes", n_nodes, MIRRORED)


def resolve_n_jobs(n_jobs: Any) -> int | None:
    """Return the number of workers; as in joblib, -1 means one for each CPU."""
    if n_jobs is None:
        return None
    n_jobs = check_integer("n_jobs", n_jobs, minimum=-sys.maxsize)
    if n_jobs == 0:
        raise ValueError(
            "n_jobs=0 is not a number of workers; expected None, 1 or more, or -1 for all."
        )
    return n_jobs


def _resolve_tol(tol: Any) -> float | None:
    """Return the accuracy of log-densities in nats, or None for "auto"."""
    if isinstance(tol, str):
        check_choice("tol", tol, ("auto",), hint="Or pass a number > 0, in nats.")
        return None
    return check_real("tol", tol, hint="It is the accuracy of log-densities, in nats.")


def merging_tolerance(tol: float | None, n_points: int, *, is_smoothed: bool) -> float:
    """Return the error of log-densities, in nats, that merging of points may cause."""
    if n_points <= _LARGEST_EXACT:
        return 0.0
    if tol is not None:
        return _MERGING * tol
    # Without smoothing there is no flow: the only sum is that of the KDE, which is kept exact.
    return _MERGING * DEFAULT_TOL if is_smoothed else 0.0


@dataclass(frozen=True)
class _CheckedSigma:
    """A smoothing scale as a function of the noise scale, whose values are checked."""

    function: Callable[[float], Any]

    def __call__(self, scale: float) -> float:
        try:
            value = self.function(scale)
        except TypeError as error:
            raise TypeError(
                f"sigma={self.function!r} failed at the noise scale {scale:g} ({error}); expected a "
                "function of one number, the noise scale, that returns a number >= 0."
            ) from error
        hint = f"That is what sigma({scale:g}) returned."
        return check_real("sigma", value, strict=False, hint=hint)


def _resolve_bandwidth(bandwidth: Any) -> float | Relative | None:
    """Return the bandwidth, a number or a multiple of h, or None for "auto"."""
    if not isinstance(bandwidth, str):
        return float(check_bandwidth(bandwidth, "the metric"))
    if bandwidth == "loo":
        return Relative(1.0)
    factor = _resolve_factor("bandwidth", bandwidth, ("auto", "loo"), strict=True)
    return None if factor is None else Relative(factor)


def _resolve_sigma(sigma: Any) -> Sigma | Relative | None:
    """Return the smoothing scale, a number, a function or a multiple of h, or None for "auto"."""
    if isinstance(sigma, str):
        factor = _resolve_factor("sigma", sigma, ("auto",), strict=False)
        # Zero has no unit.
        return Relative(factor) if factor else factor
    if callable(sigma) and not isinstance(sigma, type):
        return _CheckedSigma(sigma)
    hint = "It is in units of the metric; sigma=0 gives the Gaussian KDE."
    return check_real("sigma", sigma, strict=False, hint=hint)


def _resolve_factor(name: str, scale: str, names: tuple[str, ...], *, strict: bool) -> float | None:
    """Return the factor of a multiple of h such as "1.5h", or None for "auto"."""
    relative = _RELATIVE.fullmatch(scale)
    if relative is None:
        hint = (
            f"Or pass a number {'>' if strict else '>='} 0, in units of the metric, or a multiple of "
            "the leave-one-out bandwidth h, such as '1.5h'."
        )
        check_choice(name, scale, names, hint=hint)
        return None
    hint = f"It is the factor of {name}={scale!r}."
    return check_real(name, float(relative[1]), strict=strict, hint=hint)


def check_terminal_scale(terminal_scale: Any) -> float | str:
    """Return the parameter `terminal_scale`, a number or "auto", after checking it."""
    if isinstance(terminal_scale, str):
        return check_choice(
            "terminal_scale", terminal_scale, ("auto",), hint="Or pass a number > 0."
        )
    hint = "It is in units of the metric; 'auto' suits most data."
    return check_real("terminal_scale", terminal_scale, hint=hint)


def terminal_scale_for(
    scale: float | str, data_std: float, bandwidth: float, smoothing_scale: float, *, is_exact: bool
) -> float:
    """Return the noise scale at which the reverse process starts, in units of the metric.

    `scale` was checked; `data_std` is the data's standard deviation along its widest direction.
    `is_exact` is whether the process starts from the noised data, with a smoothing scale that is the
    same at all noise levels.
    """
    if isinstance(scale, str):
        # The flow covers noise scales up to the standard deviation of the data, or to `enough`, where
        # smoothing changes scores little (by the square of smoothing over noise scale). Sampling must
        # start where the kernel has little effect, at three smoothing scales or more.
        enough = _ENOUGH_NOISE * smoothing_scale if is_exact else math.inf
        return max(min(data_std, enough), 3 * smoothing_scale, 2 * bandwidth)
    if scale <= bandwidth:
        raise ValueError(
            f"terminal_scale={scale:g} is not above the bandwidth {bandwidth:g}; the flow runs "
            "between the two. It is in units of the metric; 'auto' suits most data."
        )
    return scale


def scales_of_levels(
    sigma: Sigma, noise: NoiseProcess, levels: NoiseLevels
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothing scale of each level, shape (n_levels,), in units of X_t and of X_t / alpha.

    X_t is the noised data, shrunk by the process by a factor alpha(t); the flow runs in X_t / alpha(t).
    """
    middles = [levels.middle(level) for level in range(levels.n_levels)]
    requested = np.array([sigma(y) if callable(sigma) else sigma for y in middles])
    with np.errstate(divide="ignore"):
        scales = requested / np.array([noise.alpha(noise.time(y)) for y in middles])
    if not np.all(np.isfinite(scales) & (scales >= 0)):
        raise ValueError(
            f"noise={noise!r} shrinks the data to zero at noise scale {middles[-1]:g}, where sigma "
            f"/ alpha is {scales[-1]:g}; expected finite scales. Lower its rate, or terminal_scale."
        )
    return requested, scales
