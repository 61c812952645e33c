"""Solvers: how a score field is followed from one noise scale to the next."""

from ._base import ODESolver, Solver, solve
from ._euler import Euler
from ._euler_maruyama import EulerMaruyama
from ._heun import Heun

__all__ = ["SOLVERS", "Euler", "EulerMaruyama", "Heun", "ODESolver", "Solver", "solve"]

SOLVERS: dict[str, type[Solver]] = {"euler": Euler, "heun": Heun, "euler-maruyama": EulerMaruyama}
