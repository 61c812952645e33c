"""Proposal distributions for draws of a posterior: mixtures of Gaussian kernels.

A mixture of kernels N(c_i, S^2) times the likelihood L of y = A x + e, e Gaussian with covariance R, is
a mixture of Gaussians again:

    N(c_i, S^2) L  ~  W_i N(m_i, C),    C = (S^-2 + A' R^-1 A)^-1,    W_i ~ w_i N(y; A c_i, A S^2 A' + R)

The covariance C is the same for all rows, so there is one factorisation for each width S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import slices_within
from .joint_density import JointDensity
from .observation import LinearObservation
from .weighted_draws import BaseDraws

__all__ = ["WIDTHS", "PosteriorProposal"]

# For each kernel: index of its width in `JointDensity.scales`, a factor of that width, and its weight.
# The last two kernels are for tails.
WIDTHS = ((0, 1.0, 0.3), (1, 1.0, 0.45), (2, 1.0, 0.15), (2, 4.0, 0.05), (2, 16.0, 0.05))
_LARGEST = 1e150


@dataclass(frozen=True, eq=False)
class PosteriorProposal:
    """A mixture of Gaussians at N centers for K widths, each width with one covariance root @ root'."""

    centers: np.ndarray  # Shape (K, N, d), in units of `roots`
    roots: np.ndarray  # Shape (K, d, d)
    inverses: np.ndarray
    log_weights: np.ndarray  # Shape (K, N)
    log_volumes: np.ndarray  # Logarithms (K,) of the roots' determinants, per unit of the rows of X
    memory_limit: float

    @classmethod
    def of(
        cls,
        joint: JointDensity,
        observation: LinearObservation | None,
        memory_limit: float,
        widths: tuple[tuple[int, float, float], ...] = WIDTHS,
    ) -> PosteriorProposal:
        """Return the kernels of a density, each times the likelihood of an observation, if any."""
        d = len(joint.origin)
        A, y = np.zeros((1, d)), np.zeros(1)
        if observation is not None:
            A = observation.whitened_A @ joint.axes.T
            y = observation.whitened_y - observation.whitened_A @ joint.origin
            largest = max(np.abs(A * joint.scales.max(axis=0)).max(), np.abs(y).max())
            if not largest < _LARGEST:
                raise ValueError(
                    f"A and y of the likelihood are too large beside noise: {largest:.3g} of its "
                    f"standard deviations; expected less than {_LARGEST:g}, so that squares are finite. "
                    "Check the units of A, y and noise."
                )
        parts = []
        for k, factor, width_weight in widths:
            scale = factor * joint.scales[k]
            U, s, Vt = np.linalg.svd(A * scale, full_matrices=len(A) < d)
            s = np.pad(s, (0, d - len(s)))
            shrinkage = np.sqrt(1 + s**2)
            projected = np.pad(y @ U, (0, d))[:d]
            along = joint.centers / scale @ Vt.T
            log_weights = np.log(joint.weights) - 0.5 * np.sum(
                ((projected - s * along) / shrinkage) ** 2, axis=1
            )
            parts.append(
                (
                    (along + s * projected) / shrinkage,
                    scale[:, None] * Vt.T / shrinkage,
                    Vt.T / scale[:, None] * shrinkage,
                    log_weights - logsumexp(log_weights) + math.log(width_weight),
                    np.log(scale / shrinkage).sum() + joint.log_abs_det,
                )
            )
        centers, roots, inverses, log_weights, log_volumes = map(np.stack, zip(*parts, strict=True))
        return cls(centers, roots, inverses, log_weights, log_volumes, memory_limit)

    def draw(self, base: BaseDraws, part: slice) -> np.ndarray:
        """Return draws (n, d) of the mixture, made from the slice `part` of the quasi-random numbers."""
        cumulated = np.exp(self.log_weights).ravel().cumsum()
        index = np.searchsorted(cumulated[:-1], base.choice[part] * cumulated[-1], side="right")
        width, center = np.divmod(index, self.log_weights.shape[1])
        white = self.centers[width, center] + base.noise[part]
        return np.einsum("nde,ne->nd", self.roots[width], white)

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Return log-densities (n,) of coordinates z (n, d), per unit of the rows of X."""
        result = np.empty(len(z))
        for part in slices_within(len(z), 24 * self.log_weights.size, self.memory_limit):
            terms = np.stack(
                [
                    cdist(z[part] @ inverse, centers, "sqeuclidean")
                    for inverse, centers in zip(self.inverses, self.centers, strict=True)
                ]
            )
            terms *= -0.5
            terms += (self.log_weights - self.log_volumes[:, None])[:, None]
            largest = terms.max(axis=(0, 2))
            terms -= largest[:, None]
            result[part] = largest + np.log(np.exp(terms, out=terms).sum(axis=(0, 2)))
        return result - gaussian_log_normalizer(z.shape[1])

    def mapped(self, origin: np.ndarray, axes: np.ndarray, log_abs_det: float) -> PosteriorProposal:
        """Return the mixture in the new coordinates origin + z @ axes.

        `log_abs_det` is the log |det| of the map from the new coordinates to rows of X.
        """
        roots = axes.T @ self.roots
        inverses = np.linalg.inv(roots).transpose(0, 2, 1)
        return replace(
            self,
            centers=self.centers + (origin @ inverses)[:, None],
            roots=roots,
            inverses=inverses,
            log_volumes=self.log_volumes + log_abs_det,
        )
