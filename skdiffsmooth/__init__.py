"""Score-smoothed diffusion: density estimation and sampling without training.

Classes and submodules are imported on first use (PEP 562), so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._utils.version import __version__ as __version__

if TYPE_CHECKING:
    from ._diffusion.observation import LinearObservation
    from ._estimators.coarse import CoarseScoreDiffusion
    from ._estimators.kde import KDESampler
    from ._estimators.local import LocalScoreDiffusion
    from ._estimators.manifold_adapted import ManifoldAdaptedDiffusion
    from ._estimators.smoothed import SmoothedScoreDiffusion
    from ._estimators.spherical import SphericalScoreDiffusion
    from ._neural.estimator import NeuralScoreDiffusion
    from .compose import compare, sample
    from .langevin import LangevinSampler

__all__ = [
    "CoarseScoreDiffusion",
    "KDESampler",
    "LangevinSampler",
    "LinearObservation",
    "LocalScoreDiffusion",
    "ManifoldAdaptedDiffusion",
    "NeuralScoreDiffusion",
    "SmoothedScoreDiffusion",
    "SphericalScoreDiffusion",
    "compare",
    "sample",
]

_HOMES = {
    "CoarseScoreDiffusion": "_estimators.coarse",
    "KDESampler": "_estimators.kde",
    "LangevinSampler": "langevin",
    "LinearObservation": "_diffusion.observation",
    "LocalScoreDiffusion": "_estimators.local",
    "ManifoldAdaptedDiffusion": "_estimators.manifold_adapted",
    "NeuralScoreDiffusion": "_neural.estimator",
    "SmoothedScoreDiffusion": "_estimators.smoothed",
    "SphericalScoreDiffusion": "_estimators.spherical",
    "compare": "compose",
    "sample": "compose",
}
_MODULES = (
    "bandwidth",
    "bases",
    "compose",
    "datasets",
    "diagnostics",
    "displays",
    "kernels",
    "langevin",
    "manifolds",
    "metrics",
    "model_selection",
    "noise",
    "scores",
    "solvers",
    "tables",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        # Stored as a global, so that later accesses do not call this function.
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_MODULES])
