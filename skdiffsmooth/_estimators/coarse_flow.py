"""The coarse score's flow: the map F from noisy rows to samples, and the density of the samples.

Everything is computed in coordinates of an affine hull of rows and manifold. F(x) = P(x) + (b / s) (x -
P(x)), where P is the projection to the manifold or, without a manifold, the posterior mean, and x has
the density p, the kernel density estimate of bandwidth s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .._coordinates.hull import AffineHull
from .._engine.moments import Nodes
from .._engine.posterior import Posterior
from .._utils.backend import Backend
from .._utils.cached import cached_property
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import slices_within
from ..kernels._nodes import NodeRule, default_n_nodes
from ..manifolds._base import has_derivative, projection_factors
from ..scores import SmoothedScore
from .denoised import denoised_log_density

# Step of finite differences of a projection, in units of the switch scale: about the third root of
# the rounding of projections, since the error of central differences is of second order.
STEP = 1e-4
# The foot of a point is its projection. Computed feet that differ by less than this, in units of the
# switch scale, are one foot; the distance to another foot is as large as the offset of the point.
SAME_FOOT = 1e-3
# Gauss-Hermite nodes along each of one or two normal directions.
HERMITE = {1: 12, 2: 12}
# Nodes whose term is this many nats below the largest one of a query are left out.
NEGLIGIBLE = 20.0
# Determinant of the derivative of a projection along the tangents, which is one on the manifold; below
# this value a point is treated as an end of the manifold.
MIN_DETERMINANT = 0.75


def default_nodes(codimension: int) -> int:
    """Return the number of nodes on a normal space of dimension `codimension`."""
    per_axis = HERMITE.get(codimension)
    return per_axis**codimension if per_axis else default_n_nodes(codimension)


class _Slope(NamedTuple):
    """Projections P(x) (n, r), their tangents T (n, r, k) and derivatives dP T (n, r, k)."""

    foot: np.ndarray
    tangent: np.ndarray
    slope: np.ndarray


@dataclass(frozen=True, eq=False)
class CoarseFlow:
    """The map F from noisy rows to samples, in coordinates of a hull of r dimensions."""

    points: np.ndarray  # Distinct rows (n_points, d)
    weights: np.ndarray  # Their weights (n_points,)
    hull: AffineHull
    manifold: Any  # Rows are projected to it; None: they move to posterior means
    switch_scale: float  # s, in the units of `points`
    bandwidth: float  # b, in the units of `points`
    residual_scale: float | None  # Distance of rows from the manifold in each normal direction
    n_nodes: int
    backend: Backend
    memory_limit: float

    @cached_property
    def posterior(self) -> Posterior:
        """The points on the device, in hull coordinates in units of the switch scale."""
        coordinates, _ = self.hull.split(self.points)
        return Posterior(
            self.backend.tensor(coordinates / self.switch_scale),
            self.backend.tensor(np.log(self.weights)),
            memory_limit=self.memory_limit,
        )

    def log_density(self, y: np.ndarray) -> np.ndarray:
        """Return the log-density (n,) of F(x) at y (n, r); see the notes of `CoarseScoreDiffusion`."""
        if self.bandwidth:
            return self._ambient_log_density(y)
        n, r = y.shape
        n_nodes = len(self._nodes(max(r - self.manifold.dimension, 1))[0])
        parts = slices_within(n, 8 * r * (4 * n_nodes + r), self.memory_limit)
        return np.concatenate([self._volume_log_density(y[part]) for part in parts])

    def _kde_log_density(self, x: np.ndarray) -> np.ndarray:
        """Return log p (n,) at x (n, r), in coordinates of the hull."""
        log_density = self.posterior.log_density(self.backend.tensor(x / self.switch_scale), 1.0)
        return self.backend.array(log_density) - x.shape[1] * math.log(self.switch_scale)

    def project(self, x: np.ndarray) -> np.ndarray:
        """Return P(x) (n, r), in coordinates of the hull."""
        if self.manifold is not None:
            feet, _ = self.hull.split(np.asarray(self.manifold.project(self.hull.lift(x))))
            return feet
        queries = self.backend.tensor(x / self.switch_scale)
        score = SmoothedScore(self.posterior, Nodes.single(queries))(queries, 1.0)
        return x + self.switch_scale * self.backend.array(score)

    def _slope(self, x: np.ndarray) -> _Slope:
        """Return projections of x (n, r), tangents and derivatives, in coordinates of the hull."""
        basis = self.hull.basis
        lifted = self.hull.lift(x)
        if has_derivative(self.manifold):
            foot, image, tangent = projection_factors(self.manifold, lifted)
            return _Slope(self.hull.split(foot)[0], basis.T @ tangent, basis.T @ image)
        tangent = basis.T @ self.manifold.tangent(lifted)
        return _Slope(self.project(x), tangent, self._difference_quotients(x, tangent))

    def _difference_quotients(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return dP T (n, r, k) by central differences of projections."""
        n, r, k = tangent.shape
        step = STEP * self.switch_scale
        shifts = step * np.stack([tangent, -tangent]).transpose(0, 1, 3, 2)
        moved = self.project((x[None, :, None] + shifts).reshape(-1, r)).reshape(2, n, k, r)
        return (moved[0] - moved[1]).transpose(0, 2, 1) / (2 * step)

    def _ambient_log_density(self, y: np.ndarray) -> np.ndarray:
        """Return the log-density (n,) of F(x) at y (n, r), log p(x) - log|det dF|, where F(x) = y."""
        scale = self.switch_scale
        contraction = self.bandwidth / scale
        if self.manifold is None:
            z = self.backend.tensor(y / scale)
            log_density = denoised_log_density(self.posterior, z, 1 - contraction)
            return self.backend.array(log_density) - y.shape[1] * math.log(scale)
        foot = self.project(y)
        x = foot + (y - foot) / contraction
        at = self._slope(x)
        k = at.tangent.shape[2]
        along = (1 - contraction) * at.tangent.transpose(0, 2, 1) @ at.slope
        jacobian = contraction * np.eye(k) + along
        _, log_det = np.linalg.slogdet(jacobian)
        log_det += (y.shape[1] - k) * math.log(contraction)
        log_density = self._kde_log_density(x) - log_det
        return np.where(self._is_same_foot(at.foot, foot), log_density, -np.inf)

    def _volume_log_density(self, y: np.ndarray) -> np.ndarray:
        """Return the log (n,) of the integral of p over all points projected to the foot of y (n, r)."""
        foot = self.project(y)
        tangent = self.hull.basis.T @ self.manifold.tangent(self.hull.lift(foot))
        n, r, k = tangent.shape
        if r == k:
            return self._kde_log_density(foot)
        nodes, weights = self._nodes(r - k)
        normals = np.linalg.qr(tangent, mode="complete")[0][:, :, k:]
        # The standard deviation of p in normal directions: that of the rows, plus the noise.
        assert self.residual_scale is not None
        width = math.hypot(self.switch_scale, self.residual_scale)
        x = foot[:, None] + width * nodes @ normals.transpose(0, 2, 1)
        # Terms are divided by the density of the nodes; its constants are added last.
        terms = self._kde_log_density(x.reshape(-1, r)).reshape(n, -1)
        terms += np.log(weights) + np.sum(nodes**2, axis=1) / 2
        matters = terms > terms.max(axis=1, keepdims=True) - NEGLIGIBLE
        feet = np.broadcast_to(foot[:, None], x.shape)[matters]
        matters[matters] = self._is_same_foot(self.project(x[matters]), feet)
        elements = self._log_volume_element(foot, tangent, normals, width * nodes)
        terms = np.where(matters, terms + elements, -np.inf)
        return logsumexp(terms, axis=1) + gaussian_log_normalizer(r - k, width**2)

    def _log_volume_element(
        self, foot: np.ndarray, tangent: np.ndarray, normals: np.ndarray, offsets: np.ndarray
    ) -> np.ndarray:
        """Return the log (n, M) of volume elements at x = foot + offset for M normal offsets (M, m).

        The element is dx / (d offset d foot); +inf marks atoms. Points with one foot are in an affine
        subspace, so the derivative of x along the manifold is affine in the offset: its values at the
        foot and at one point along each of the m normal directions determine it.
        """
        n, r, m = normals.shape
        here = self._difference_quotients(foot, tangent)
        # On the manifold the derivative of a projection along tangents is the identity; at an atom it
        # is half of that or less.
        is_atom = np.abs(np.linalg.det(tangent.transpose(0, 2, 1) @ here)) < MIN_DETERMINANT
        step = self.switch_scale / 4
        probes = foot[:, None] + step * normals.transpose(0, 2, 1)
        slope = self._slope(probes.reshape(-1, r)).slope.reshape(n, m, r, r - m)
        slope = np.concatenate([here[:, None], slope], axis=1)
        slope[is_atom] = tangent[is_atom][:, None]
        axes = np.linalg.qr(slope[:, 0])[0]
        inverse = np.linalg.inv(axes.transpose(0, 2, 1)[:, None] @ slope)
        change = np.tensordot(offsets / step, inverse[:, 1:] - inverse[:, :1], axes=(1, 1))
        _, log_element = np.linalg.slogdet(inverse[:, :1] + change.transpose(1, 0, 2, 3))
        return np.where(is_atom[:, None], np.inf, log_element)

    def _is_same_foot(self, projection: np.ndarray, foot: np.ndarray) -> np.ndarray:
        """Return whether projections (n, r) equal the points `foot` (n, r), up to rounding."""
        return np.linalg.norm(projection - foot, axis=1) < SAME_FOOT * self.switch_scale

    def _nodes(self, codimension: int) -> tuple[np.ndarray, np.ndarray]:
        """Return nodes and weights for the standard normal distribution on a normal space."""
        rule = "gauss-hermite" if codimension in HERMITE else "sobol"
        return NodeRule(rule, self.n_nodes, 0).normal(codimension, 0)
