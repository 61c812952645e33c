"""Proposal distributions for conditional draws: mixtures of Gaussian and of t kernels.

A mixture sum_i w_i K(z - c_i) of equal kernels has conditionals in closed form. With z split by
orthogonal axes into a given part b and a free part a,

    Gaussian:  q(a | b) = sum_i W_i(b) N(a; c_ia, I),
               W_i(b) ~ w_i exp(-|b - c_ib|^2 / 2)
    t:         q(a | b) = sum_i W_i(b) t_(m+k)(a; c_ia, s_i^2 I),
               W_i(b) ~ w_i (1 + |b - c_ib|^2 / m)^(-(m+k)/2)

with m degrees of freedom, k given columns and s_i^2 = (m + |b - c_ib|^2) / (m + k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import gammaln, logsumexp, ndtr, stdtr

from .._coordinates.frame import Frame
from .._utils.draws import choose_in_rows
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.kernel_weights import nearest_squares


@dataclass(frozen=True, eq=False)
class KernelMixture:
    """A mixture of kernels at centers (N, d), in coordinates that are divided by `scale` (d,)."""

    frame: Frame
    scale: np.ndarray
    centers: np.ndarray
    log_weights: np.ndarray
    degrees: float | None = None  # Degrees of freedom of t kernels; None for Gaussian ones

    def given(self, values: np.ndarray) -> ConditionalKernels:
        """Return the conditional mixtures for rows of given values (n, n_given)."""
        given = self.frame.given(values)
        centers = self.centers / self.scale
        relative, nearest = nearest_squares(given, centers @ self.frame.given_axes)
        widths, degrees = np.ones((1, 1)), None
        if self.degrees is None:
            logits = self.log_weights - 0.5 * relative
        else:
            degrees = self.degrees + given.shape[1]
            squares = self.degrees + nearest[:, None]
            logits = self.log_weights - 0.5 * degrees * np.log1p(relative / squares)
            widths = np.sqrt((squares + relative) / degrees)
        logits -= logsumexp(logits, axis=1, keepdims=True)
        free = centers @ self.frame.free_axes
        return ConditionalKernels(
            self.frame, self.scale, given, free, logits, widths, degrees, np.sqrt(nearest)
        )


@dataclass(frozen=True, eq=False)
class ConditionalKernels:
    """One mixture of kernels in the free coordinates for each of n rows of given values."""

    frame: Frame
    scale: np.ndarray
    given: np.ndarray  # Coordinates (n, n_given) of the given values
    centers: np.ndarray  # Shape (N, n_free)
    log_weights: np.ndarray  # Shape (n, N)
    widths: np.ndarray  # Widths of the kernels, (n, N) or (1, 1)
    degrees: float | None
    nearest: np.ndarray
    """Distance (n,) of the given values from the nearest center, in widths of the kernel."""

    def rows(self, index: np.ndarray) -> ConditionalKernels:
        """Return the mixtures of the rows of an index array."""
        widths = self.widths if self.degrees is None else self.widths[index]
        return replace(
            self,
            given=self.given[index],
            log_weights=self.log_weights[index],
            widths=widths,
            nearest=self.nearest[index],
        )

    def draw(
        self, rows: np.ndarray, uniform: np.ndarray, noise: np.ndarray, stretch: np.ndarray
    ) -> np.ndarray:
        """Return coordinates (m, d) of one draw for each entry of `rows` (m,), which may repeat.

        A center is chosen by `uniform` (m,); the noise (m, n_free) is standard normal, and multiplied by
        `stretch` (m,) it has a t distribution.
        """
        index = choose_in_rows(np.exp(self.log_weights), rows, uniform)
        if self.degrees is not None:
            noise = noise * (stretch * self.widths[rows, index])[:, None]
        return self.at(self.given[rows], self.centers[index] + noise)

    def at(self, given: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Return coordinates (m, d) from those of the given and of the free columns."""
        return (given @ self.frame.given_axes.T + free @ self.frame.free_axes.T) * self.scale

    def free(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the coordinates (..., n_free) of the free columns."""
        return coordinates / self.scale @ self.frame.free_axes

    def log_density(self, coordinates: np.ndarray) -> np.ndarray:
        """Return log-densities (n, m) of draws (n, m, d) of each row, per unit of the free columns."""
        free = self.free(coordinates)
        n, m, n_free = free.shape
        squares = cdist(free.reshape(-1, n_free), self.centers, "sqeuclidean").reshape(n, m, -1)
        squares /= self.widths[:, None] ** 2
        if self.degrees is None:
            log_kernel = -0.5 * squares - gaussian_log_normalizer(n_free)
        else:
            half = 0.5 * (self.degrees + n_free)
            constant = gammaln(half) - gammaln(0.5 * self.degrees)
            constant -= 0.5 * n_free * math.log(math.pi * self.degrees)
            log_kernel = constant - half * np.log1p(squares / self.degrees)
            log_kernel -= n_free * np.log(self.widths[:, None])
        log_kernel += self.log_weights[:, None]
        return logsumexp(log_kernel, axis=2) + self.frame.log_volume

    def cdf(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the distribution function (n, m) of the only free column at draws (n, m, d)."""
        free = self.free(coordinates)
        lengths = (free - self.centers[:, 0]) / self.widths[:, None]
        below = ndtr(lengths) if self.degrees is None else stdtr(self.degrees, lengths)
        return np.sum(np.exp(self.log_weights)[:, None] * below, axis=2)
