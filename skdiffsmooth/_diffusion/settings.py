"""Parameters of the diffusion estimators: names become objects and numbers here, or errors that help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .._utils.validation import check_choice, check_integer, check_real
from ..kernels import KERNELS, Kernel
from ..kernels._nodes import NODE_RULES
from ..noise import NoiseLevels, NoiseProcess, OrnsteinUhlenbeck, VarianceExploding
from ..solvers import SOLVERS, Solver
from .selection import DEFAULT_FACTORS

__all__ = [
    "resolve_background",
    "resolve_base_scales",
    "resolve_kernel",
    "resolve_n_jobs",
    "resolve_n_nodes",
    "resolve_node_rule",
    "resolve_noise",
    "resolve_scales",
    "resolve_sigma",
    "resolve_solver",
    "resolve_terminal_scale",
    "resolve_tolerance",
    "scales_of_levels",
]

# Over a mixture both are in units of the narrowest standard deviation of its components, and over
# windows sigma is in units of their own bandwidth; docs/bases.md has the evidence.
_BANDWIDTH_OF_NARROWEST = 0.3
_SIGMA_OF_NARROWEST = 2.0
_SIGMA_OF_WINDOWS = 1.0

# Up to this many points every sum is over all of them; beyond, points closer than 0.2 noise scales
# are merged, for time that hardly grows (docs/scaling.md has the errors).
_LARGEST_EXACT = 10_000
_TOLERANCE = 0.02

Sigma = float | Callable[[float], float]


def resolve_solver(solver: Any) -> Solver:
    """Return the solver that a name stands for, or the object itself."""
    if isinstance(solver, str):
        return SOLVERS[check_choice("solver", solver, SOLVERS)]()
    if isinstance(solver, type) or not isinstance(solver, Solver):
        raise TypeError(_expected("solver", solver, SOLVERS, "skdiffsmooth.solvers"))
    return solver


def resolve_kernel(kernel: Any) -> Kernel:
    """Return the kernel that a name stands for, or the object itself."""
    if isinstance(kernel, str):
        return KERNELS[check_choice("kernel", kernel, KERNELS)]()
    if isinstance(kernel, type) or not isinstance(kernel, Kernel):
        raise TypeError(_expected("kernel", kernel, KERNELS, "skdiffsmooth.kernels"))
    return kernel


def resolve_background(background: Any) -> float | None:
    """Return the weight of the background; None is "auto"."""
    hint = "It is a share of the mass; 0 is none, 0.05 suits most data with outliers."
    if isinstance(background, str):
        check_choice("background", background, ("auto",), hint="Or pass a number in [0, 1).")
        return None
    weight = check_real("background", background, strict=False, hint=hint)
    if weight >= 1:
        raise ValueError(
            f"background={background!r} is out of range; expected a number in [0, 1). {hint}"
        )
    return weight


def resolve_noise(noise: Any, variance: float) -> NoiseProcess:
    """Return the forward process that a name stands for, or the object itself.

    Parameters
    ----------
    noise : object
        What the user passed.
    variance : float
        Largest variance of the data along a direction: "ou" is the process that would keep it.

    Returns
    -------
    NoiseProcess
    """
    if isinstance(noise, str):
        name = check_choice("noise", noise, ("ou", "ve"))
        # A rate has units, one over those of a variance; data without extent have nothing to forget.
        return (
            OrnsteinUhlenbeck(0.5 / variance) if name == "ou" and variance else VarianceExploding()
        )
    if isinstance(noise, type) or not isinstance(noise, NoiseProcess):
        raise TypeError(_expected("noise", noise, ("ou", "ve"), "skdiffsmooth.noise"))
    return noise


def _expected(name: str, value: Any, names: Any, module: str) -> str:
    return (
        f"{name}={value!r} has type {type(value).__name__}; expected one of "
        f"{', '.join(map(repr, sorted(names)))} or an object of {module}."
    )


def resolve_node_rule(node_rule: Any) -> str:
    """Return the name of a rule for nodes after checking it."""
    return check_choice("node_rule", node_rule, NODE_RULES)


def resolve_n_nodes(n_nodes: Any, rule: str) -> int | None:
    """Return the number of nodes, or None where it is to be found out."""
    if isinstance(n_nodes, str):
        check_choice("n_nodes", n_nodes, ("auto",), hint="Or pass an even number >= 2.")
        return None
    n_nodes = check_integer("n_nodes", n_nodes, minimum=2)
    if n_nodes % 2 and rule == "sobol":
        raise ValueError(
            f"n_nodes={n_nodes} is odd; expected an even number, since nodes come in mirrored "
            "pairs whose mean is zero."
        )
    return n_nodes


def resolve_n_jobs(n_jobs: Any) -> int | None:
    """Return the number of workers, as joblib counts them."""
    if n_jobs is None:
        return None
    n_jobs = check_integer("n_jobs", n_jobs, minimum=-sys.maxsize)
    if n_jobs == 0:
        raise ValueError(
            "n_jobs=0 is no number of workers; expected None, 1 or more, or -1 for all."
        )
    return n_jobs


def resolve_tolerance(tolerance: Any, n_points: int, is_smoothed: bool) -> float:
    """Return the tolerance of merging points, in nats."""
    if isinstance(tolerance, str):
        check_choice("tolerance", tolerance, ("auto",), hint="Or pass a number >= 0.")
        # Without smoothing there is no flow, and the one sum there is shall be the KDE's.
        return _TOLERANCE if n_points > _LARGEST_EXACT and is_smoothed else 0.0
    hint = "It is in nats; 0 merges no points."
    return check_real("tolerance", tolerance, strict=False, hint=hint)


def resolve_sigma(sigma: Any) -> Sigma | None:
    """Return the smoothing scale, a number or a function of the noise scale; None is "auto"."""
    if isinstance(sigma, str):
        check_choice("sigma", sigma, ("auto",), hint="Or pass a number >= 0.")
        return None
    if callable(sigma):

        def checked(scale: float) -> float:
            hint = f"That is what sigma({scale:g}) returned."
            return check_real("sigma", sigma(scale), strict=False, hint=hint)

        return checked
    hint = "It is in units of X; sigma=0 gives the Gaussian KDE."
    return check_real("sigma", sigma, strict=False, hint=hint)


def resolve_scales(
    bandwidth: Any,
    sigma: Any,
    spread: float,
    leave_one_out: Callable[[], float],
    factors: tuple[float, float] = DEFAULT_FACTORS,
) -> tuple[float, Sigma]:
    """Turn `bandwidth` and `sigma` into numbers, or a function of the noise scale.

    Parameters
    ----------
    bandwidth, sigma : object
        What the user passed.
    spread : float
        Standard deviation of the kernel along its widest direction, at sigma = 1.
    leave_one_out : callable
        Returns the Gaussian KDE's bandwidth of highest leave-one-out likelihood; called where a
        name asks for it.
    factors : tuple of two floats, default=(0.85, 1.5)
        What "auto" makes of that bandwidth for `bandwidth` and `sigma`.

    Returns
    -------
    bandwidth : float
    sigma : float or callable
    """
    scale = resolve_sigma(sigma)
    if isinstance(bandwidth, str):
        check_choice("bandwidth", bandwidth, ("auto", "loo"), hint="Or pass a number > 0.")
    else:
        bandwidth = check_real("bandwidth", bandwidth, hint="It is in units of X.")
        if scale is not None:
            return bandwidth, scale
    try:
        reference = leave_one_out()
    except ValueError as error:
        raise ValueError(
            f"bandwidth={bandwidth!r} with sigma={sigma!r}: {error}; pass numbers, "
            "bandwidth=<positive> and sigma=<zero or positive>, in units of X."
        ) from error
    if scale is None:
        scale = factors[1] * reference / (spread or 1.0)
    if isinstance(bandwidth, str):
        # Without smoothing the leave-one-out bandwidth is the KDE's own best.
        smoothed = bandwidth == "auto" and scale != 0 and spread != 0
        bandwidth = (factors[0] if smoothed else 1.0) * reference
    return bandwidth, scale


def resolve_base_scales(
    bandwidth: Any, sigma: Any, spread: float, own: Callable[[], float] | float
) -> tuple[float, Sigma]:
    """Turn `bandwidth` and `sigma` into numbers where a base lies under the smoothing.

    Parameters
    ----------
    bandwidth, sigma : object
        What the user passed.
    spread : float
        Standard deviation of the kernel along its widest direction, at sigma = 1.
    own : callable or float
        Returns the bandwidth of highest leave-one-out likelihood of the base alone, where its
        components are rows; or the narrowest standard deviation of a mixture.

    Returns
    -------
    bandwidth : float
    sigma : float or callable
    """
    scale = resolve_sigma(sigma)
    if isinstance(bandwidth, str):
        check_choice("bandwidth", bandwidth, ("auto", "loo"), hint="Or pass a number > 0.")
    else:
        bandwidth = check_real("bandwidth", bandwidth, hint="It is in units of X.")
        if scale is not None:
            return bandwidth, scale
    try:
        if not callable(own) and bandwidth == "loo":
            raise ValueError("the components of a mixture are not rows that could be left out")
        reference = own() if callable(own) else own
        if not reference > 0:
            raise ValueError("the base has no width to measure them by")
    except ValueError as error:
        raise ValueError(
            f"bandwidth={bandwidth!r} with sigma={sigma!r}: {error}; pass numbers, "
            "bandwidth=<positive> and sigma=<zero or positive>, in units of X."
        ) from error
    if isinstance(bandwidth, str):
        bandwidth = reference if callable(own) else _BANDWIDTH_OF_NARROWEST * reference
    if scale is None:
        factor = _SIGMA_OF_WINDOWS if callable(own) else _SIGMA_OF_NARROWEST
        scale = factor * reference / (spread or 1.0)
    return bandwidth, scale


def resolve_terminal_scale(
    terminal_scale: Any, widest: float, bandwidth: float, smoothing_scale: float
) -> float:
    """Return the noise scale at which the reverse process starts, in units of X."""
    if isinstance(terminal_scale, str):
        check_choice("terminal_scale", terminal_scale, ("auto",), hint="Or pass a number.")
        # The smoothing must have acted at the scale of the data, and sampling must start where the
        # kernel no longer matters.
        return max(widest, 3 * smoothing_scale, 2 * bandwidth)
    hint = "It is in units of X; 'auto' suits most data."
    scale = check_real("terminal_scale", terminal_scale, hint=hint)
    if scale <= bandwidth:
        raise ValueError(
            f"terminal_scale={scale:g} is not above the bandwidth {bandwidth:g}; the flow runs "
            f"between the two. {hint}"
        )
    return scale


def scales_of_levels(
    sigma: Sigma, noise: NoiseProcess, levels: NoiseLevels
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothing scale of each level.

    Parameters
    ----------
    sigma : float or callable
        In units of X_t, the noised data.
    noise : NoiseProcess
        The forward process, which may have shrunk the data.
    levels : NoiseLevels
        The noise levels.

    Returns
    -------
    asked : ndarray of shape (n_levels,)
        In units of X_t.
    scales : ndarray of shape (n_levels,)
        In units of X_t / alpha(t), in which the flow runs.
    """
    middles = [levels.middle(level) for level in range(levels.n_levels)]
    asked = np.array([sigma(y) if callable(sigma) else sigma for y in middles])
    with np.errstate(divide="ignore"):
        scales = asked / np.array([noise.alpha(noise.time(y)) for y in middles])
    if not np.all(np.isfinite(scales) & (scales >= 0)):
        raise ValueError(
            f"noise={noise!r} leaves nothing of the data at noise scale {middles[-1]:g}, where sigma / "
            f"alpha is {scales[-1]:g}; expected finite scales. Lower its rate, or terminal_scale."
        )
    return asked, scales
