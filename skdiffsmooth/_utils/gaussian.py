"""The constant of the isotropic Gaussian density."""

from __future__ import annotations

import math

__all__ = ["log_normalizer"]


def log_normalizer(dimension: int, scale: float = 1.0) -> float:
    """Return log of the integral of exp(-|x|^2 / (2 scale^2)) over R^dimension, in nats."""
    return dimension * (math.log(scale) + 0.5 * math.log(2 * math.pi))
