"""Numerical schemes that move samples along a score field between noise scales."""

from ._adaptive import Adaptive, AdaptiveState
from ._base import ErrorEstimatingSolver, ODESolver, ODEState, Solver, estimates_error, solve
from ._euler import Euler
from ._euler_maruyama import EulerMaruyama
from ._heun import Heun
from ._multistep import Multistep
from ._predictor_corrector import PredictorCorrector

__all__ = [
    "SOLVERS",
    "Adaptive",
    "AdaptiveState",
    "ErrorEstimatingSolver",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Multistep",
    "ODESolver",
    "ODEState",
    "PredictorCorrector",
    "Solver",
    "estimates_error",
    "solve",
]

SOLVERS: dict[str, type[Solver]] = {
    "euler": Euler,
    "heun": Heun,
    "multistep": Multistep,
    "adaptive": Adaptive,
    "euler-maruyama": EulerMaruyama,
    "predictor-corrector": PredictorCorrector,
}
