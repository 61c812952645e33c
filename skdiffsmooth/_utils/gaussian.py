"""The normalising constant of the isotropic Gaussian density."""

from __future__ import annotations

import math


def gaussian_log_normalizer(dimension: int, variance: float = 1.0) -> float:
    """Return log of the integral of exp(-|x|^2 / (2 variance)) over R^dimension, in nats."""
    return 0.5 * dimension * math.log(2 * math.pi * variance)
