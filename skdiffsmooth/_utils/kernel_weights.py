"""Posterior weights of Gaussian kernels at given values, accurate at any distance; wrapped kernels."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

from .periods import wrapped

# Images of a kernel at whole periods are left out where they are below exp(-LOG_EPS) of the nearest.
LOG_EPS = math.log(1e10)
# Scale, in periods, above which a wrapped kernel is uniform, up to a fraction 2 exp(-2 pi^2) = 5e-9.
UNIFORM = 1.0


def log_wrapped_kernel(u: np.ndarray, period: float, scale: float) -> np.ndarray:
    """Return log sum_k exp(-(u + k period)^2 / (2 scale^2)) of wrapped differences u, of any shape."""
    ratio = scale / period
    if ratio > UNIFORM:
        return np.full_like(u, math.log(math.sqrt(2 * math.pi) * ratio))
    turns = np.abs(u) / period
    others = np.zeros_like(turns)
    for k in range(1, math.ceil(0.5 + math.sqrt(0.25 + 2 * ratio**2 * LOG_EPS)) + 1):
        # Images relative to the nearest one: |u| is at most half a period, so no exponent is positive.
        others += np.exp(-k * (k - 2 * turns) / (2 * ratio**2))
        others += np.exp(-k * (k + 2 * turns) / (2 * ratio**2))
    return np.log1p(others) - (turns / ratio) ** 2 / 2


def nearest_squares(
    values: np.ndarray, centers: np.ndarray, periods: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return |value - center|^2 minus its minimum over centers, (n, N), and that minimum, (n,).

    `values` are (n, k) and `centers` (N, k), in units of the kernel. Far from all centers the squares
    are large and nearly equal, so their differences are computed from differences of the centers. A
    column may have a period, of `periods` (k,) in the same units or 0: its square is then minus twice
    the logarithm of the wrapped kernel.
    """
    squares = np.zeros((len(values), len(centers)))
    rows = np.arange(len(values))
    on_circles = None
    if periods is not None and periods.any():
        on_circles = np.zeros_like(squares)
        for k in np.flatnonzero(periods):
            differences = wrapped(values[:, k, None] - centers[:, k], periods[k])
            on_circles -= 2 * log_wrapped_kernel(differences, periods[k], 1.0)
        values, centers = values[:, periods == 0], centers[:, periods == 0]
    for value, center in zip(values.T, centers.T, strict=True):
        squares += (value[:, None] - center) ** 2
    if on_circles is not None:
        squares += on_circles
    nearest = squares.argmin(axis=1)
    smallest = squares[rows, nearest]
    squares[...] = 0.0 if on_circles is None else on_circles - on_circles[rows, nearest, None]
    for value, center in zip(values.T, centers.T, strict=True):
        reference = center[nearest][:, None]
        squares += (reference - center) * ((value[:, None] - center) + (value[:, None] - reference))
    return squares, smallest


def log_kernel_weights(
    values: np.ndarray,
    centers: np.ndarray,
    log_weights: np.ndarray,
    periods: np.ndarray | None,
) -> np.ndarray:
    """Return log W_i(b) of W_i(b) ~ w_i exp(-|b - c_i|^2 / 2), shape (n, N); W sums to one."""
    logits = log_weights - 0.5 * nearest_squares(values, centers, periods)[0]
    return logits - logsumexp(logits, axis=1, keepdims=True)
