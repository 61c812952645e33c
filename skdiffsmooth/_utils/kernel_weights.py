"""Posterior weights of Gaussian kernels at given values, accurate at any distance."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

__all__ = ["log_kernel_weights", "nearest_squares"]


def nearest_squares(values: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return |value - center|^2 minus its minimum over centers, (n, N), and that minimum, (n,).

    `values` are (n, k) and `centers` (N, k), in units of the kernel. Far from all centers the squares
    are large and nearly equal, so their differences are computed from differences of the centers.
    """
    squares = np.zeros((len(values), len(centers)))
    for value, center in zip(values.T, centers.T, strict=True):
        squares += (value[:, None] - center) ** 2
    nearest = squares.argmin(axis=1)
    smallest = squares[np.arange(len(values)), nearest]
    squares[...] = 0.0
    for value, center in zip(values.T, centers.T, strict=True):
        reference = center[nearest][:, None]
        squares += (reference - center) * ((value[:, None] - center) + (value[:, None] - reference))
    return squares, smallest


def log_kernel_weights(
    values: np.ndarray, centers: np.ndarray, log_weights: np.ndarray
) -> np.ndarray:
    """Return log W_i(b) of W_i(b) ~ w_i exp(-|b - c_i|^2 / 2), shape (n, N); W sums to one."""
    logits = log_weights - 0.5 * nearest_squares(values, centers)[0]
    return logits - logsumexp(logits, axis=1, keepdims=True)
