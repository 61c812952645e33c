"""Score-smoothed diffusion: density estimation and sampling without training."""

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
