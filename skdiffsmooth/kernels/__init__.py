"""Smoothing kernels: the distributions of offsets over which the score is averaged.

A kernel defines the shape of the distribution. An estimator's `sigma` scales it: offsets are sigma * xi,
with xi drawn from the shape. `reduce` returns the shape in coordinates of the data's affine hull, since
only its part along the hull matters (Farghly et al. 2025, Prop. 3.1), and `freeze` returns a smoothing:
the shape with a scale and nodes for each noise level.
"""

from collections.abc import Callable

from ._ball import UniformBallKernel
from ._base import Kernel, ReducedKernel, is_isotropic, works_over_base
from ._gaussian import AnisotropicGaussianKernel, GaussianKernel
from ._offsets import OffsetsKernel, SamplerKernel
from ._query import QueryKernel
from ._scale import ProportionalScale
from ._shapes import FrozenKernel, LinearShape
from ._temperature import TemperatureKernel

__all__ = [
    "KERNELS",
    "AnisotropicGaussianKernel",
    "FrozenKernel",
    "GaussianKernel",
    "Kernel",
    "LinearShape",
    "OffsetsKernel",
    "ProportionalScale",
    "QueryKernel",
    "ReducedKernel",
    "SamplerKernel",
    "TemperatureKernel",
    "UniformBallKernel",
    "is_isotropic",
    "works_over_base",
]

KERNELS: dict[str, Callable[[], Kernel]] = {
    "gaussian": GaussianKernel,
    "uniform-ball": UniformBallKernel,
    "temperature": TemperatureKernel,
}
