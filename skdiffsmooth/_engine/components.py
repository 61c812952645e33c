"""Arrays of a mixture of Gaussians, each with its own covariance: the fitted form of a base."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .._coordinates.hull import AffineHull
from .._utils.draws import invert_cumulated


@dataclass(frozen=True)
class GaussianComponents:
    """The mixture sum_i w_i N(mu_i, S_i), with S_i = f_i (I - U_i U_i^T) + U_i diag(l_i) U_i^T.

    If S_i - f_i I has rank k, there are k axes. A covariance without such structure has r - 1
    axes, and f_i is its largest eigenvalue. Variances may be zero: without axes and with all f_i
    zero, this is a set of points.
    """

    weights: np.ndarray  # (K,): positive, summing to one
    means: np.ndarray  # (K, r): centres mu_i
    # (K,): variances f_i in the directions that are not among a component's axes
    floors: np.ndarray
    axes: np.ndarray  # (K, r, k): orthonormal columns U_i
    variances: np.ndarray  # (K, k): variances l_i along them

    @classmethod
    def of(
        cls, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
    ) -> GaussianComponents:
        """Return components with covariances (K, r, r); negative eigenvalues are set to zero."""
        variances, axes = np.linalg.eigh(covariances)
        variances = variances.clip(0)
        return cls(weights, means, variances[:, -1], axes[:, :, :-1], variances[:, :-1])

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def covariances(self) -> np.ndarray:
        """Covariances S_i, shape (K, r, r)."""
        beyond = (self.variances - self.floors[:, None])[:, None] * self.axes
        identity = np.eye(self.means.shape[1])
        return self.floors[:, None, None] * identity + beyond @ self.axes.transpose(0, 2, 1)

    @property
    def narrowest(self) -> float:
        """Smallest standard deviation of any component in any direction."""
        return math.sqrt(min(*self._extremes(np.min)))

    @property
    def widest(self) -> float:
        """Largest standard deviation of any component in any direction."""
        return math.sqrt(max(*self._extremes(np.max)))

    def within(self, hull: AffineHull) -> GaussianComponents:
        """Return the components in coordinates of a hull that contains their means and their axes."""
        means, _ = hull.split(self.means)
        axes = np.einsum("dr,kdj->krj", hull.basis, self.axes)
        return replace(self, means=means, axes=axes)

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Draw n rows (n, r) from the mixture."""
        which = invert_cumulated(np.cumsum(self.weights), rng.uniform(size=n))
        draws = rng.standard_normal((n, self.means.shape[1]))
        # The noise of a draw is scaled to the standard deviation sqrt(f_i), or sqrt(l_i) along the axes.
        stretch = np.sqrt(self.variances) - np.sqrt(self.floors)[:, None]
        rows = self.means[which] + np.sqrt(self.floors)[which, None] * draws
        for k in np.unique(which):
            own = which == k
            rows[own] += (draws[own] @ self.axes[k] * stretch[k]) @ self.axes[k].T
        return rows

    def _extremes(self, extreme: Callable[[np.ndarray], float]) -> tuple[float, float]:
        """Return the smallest or largest variance outside the axes, and that along the axes."""
        floors = float(extreme(self.floors))
        along = float(extreme(self.variances)) if self.variances.size else floors
        # Where the axes are a basis, no direction has the floor's variance.
        if self.axes.shape[2] >= max(self.means.shape[1], 1):
            return along, along
        return floors, along
