"""Score-smoothed diffusion: density estimation and sampling without training.

Names are imported on first use (PEP 562), so that nobody waits for what is not used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._coarse import CoarseScoreDiffusion
    from ._kde import KDESampler
    from ._manifold_adapted import ManifoldAdaptedDiffusion
    from ._neural import NeuralScoreDiffusion
    from ._smoothed import SmoothedScoreDiffusion
    from .compose import sample
    from .langevin import LangevinSampler

__all__ = [
    "CoarseScoreDiffusion",
    "KDESampler",
    "LangevinSampler",
    "ManifoldAdaptedDiffusion",
    "NeuralScoreDiffusion",
    "SmoothedScoreDiffusion",
    "sample",
]
__version__ = "0.1.0"

_HOMES = {
    "CoarseScoreDiffusion": "_coarse",
    "KDESampler": "_kde",
    "LangevinSampler": "langevin",
    "ManifoldAdaptedDiffusion": "_manifold_adapted",
    "NeuralScoreDiffusion": "_neural",
    "SmoothedScoreDiffusion": "_smoothed",
    "sample": "compose",
}
_MODULES = (
    "bandwidth",
    "bases",
    "compose",
    "datasets",
    "diagnostics",
    "kernels",
    "langevin",
    "likelihood",
    "manifolds",
    "metrics",
    "model_selection",
    "noise",
    "scores",
    "solvers",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        # Kept, so that this is asked once a name.
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_MODULES])
