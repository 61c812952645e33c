"""Smoothing kernels: the distributions of offsets over which the score is averaged."""

from ._offsets import (
    KERNELS,
    AnisotropicGaussianKernel,
    FrozenKernel,
    GaussianKernel,
    Kernel,
    LinearShape,
    OffsetsKernel,
    ProportionalScale,
    ReducedKernel,
    SamplerKernel,
    TemperatureKernel,
    UniformBallKernel,
)

__all__ = [
    "KERNELS",
    "AnisotropicGaussianKernel",
    "FrozenKernel",
    "GaussianKernel",
    "Kernel",
    "LinearShape",
    "OffsetsKernel",
    "ProportionalScale",
    "ReducedKernel",
    "SamplerKernel",
    "TemperatureKernel",
    "UniformBallKernel",
]
