"""A map of distances from a bound to the line: the logarithm below a knot, and linear above it.

    z = log(w) + w / m,    w = m omega(z - log m)

with the Wright omega function, omega + log(omega) = z. Far above the knot m, z is about
w / m, so that the tail of a density of z has the same shape in w.
"""

from __future__ import annotations

import numpy as np
from scipy.special import wrightomega

# The knot, in units of the largest distance of a training row.
_KNOT = 0.5


def knot_of(distances: np.ndarray) -> float:
    """Return the knot m for distances (n,) of training rows from a bound; 1 where there are none."""
    return _KNOT * float(distances.max(initial=0.0)) or 1.0


def to_line(w: np.ndarray, knot: float) -> tuple[np.ndarray, np.ndarray]:
    """Return z (n,) of distances w (n,), and the logarithms (n,) of the slopes dz/dw."""
    log_w = np.log(w)
    return log_w + w / knot, np.log1p(w / knot) - log_w


def from_line(z: np.ndarray, knot: float | np.ndarray) -> np.ndarray:
    """Return the distances w of coordinates z: the inverse of `to_line`."""
    return knot * wrightomega(z - np.log(knot))
