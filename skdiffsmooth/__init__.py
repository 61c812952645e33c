"""Score-smoothed diffusion: density estimation and sampling without training."""

from ._kde import KDESampler
from ._manifold_adapted import ManifoldAdaptedDiffusion
from ._neural import NeuralScoreDiffusion
from ._smoothed import SmoothedScoreDiffusion
from .compose import sample

__all__ = [
    "KDESampler",
    "ManifoldAdaptedDiffusion",
    "NeuralScoreDiffusion",
    "SmoothedScoreDiffusion",
    "sample",
]
__version__ = "0.1.0"
