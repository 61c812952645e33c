"""Smoothing along a manifold only, which is learned from the rows, known, or an affine subspace."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from .._coordinates.hull import AffineHull, principal_axes
from .._coordinates.metric import candidate_metrics, is_warped
from .._utils.shards import Shards
from .._utils.validation import check_choice, check_count, check_integer, check_real, wrong_type
from .._utils.warnings import warn_user
from ..manifolds import (
    AffineSubspace,
    LocalPolynomialManifold,
    Manifold,
    check_idempotent,
    estimate_reach,
)
from ..manifolds._base import has_derivative
from ..manifolds._dimension import check_n_components
from ..manifolds._forward import differentiable
from ..manifolds._within import within
from ._base import ReducedKernel
from ._cells import Cells
from ._gated import GatedShape
from ._pushed import PUSHES, ManifoldShape, distance_in_span, fading_distance
from ._shapes import LinearShape

# Share of the variance that principal components keep with n_components="auto".
_SHARE_OF_VARIANCE = 0.95

# Shortest distance, in bandwidths, over which offsets may fade: solvers step over a faster change (the
# error on a thin ellipse is half a nat for a reach of a tenth of the bandwidth, 0.01 for nine tenths).
_SHORTEST_REACH = 0.5
# Largest sigma, in units of the distance at which offsets have faded out: up to it, on circles and
# waves, the density integrates to one within 1e-2, and samples of the level-set kernel follow it.
_WIDEST_SCALE = {"translated": 0.6, "level-set": 0.3}

# Factor on an estimated reach, which is too large at the worst places. On noisy circles and waves no
# nearest point was missed up to half the estimate, and one in ten from three quarters to all of it.
_SHARE_OF_REACH = 0.5
# Most rows from which the reach is estimated, by comparing pairs of them.
_MOST_ROWS = 1000

# With fewer distinct rows than this the dimension is not estimated.
_FEWEST_ROWS = 10


@dataclass(frozen=True, eq=False)
class AlongManifold:
    """The `KernelChoice` of `ManifoldAdaptedDiffusion`; the attributes are parameters of that class."""

    manifold: Any
    n_components: Any
    n_cells: Any
    push: Any

    def reduce(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull, metric: Any, shards: Shards
    ) -> tuple[ReducedKernel, AffineHull, dict[str, Any]]:
        """Return the kernel, a hull that contains the manifold, and attributes set by `fit`."""
        push = check_choice("push", self.push, PUSHES)
        manifold = self._given_manifold(points, weights)
        is_plain = isinstance(metric, str) and metric == "euclidean"
        is_power = isinstance(metric, numbers.Real) or (
            isinstance(metric, str) and (metric in ("whitened", "local") or is_warped(metric))
        )
        if manifold is None and self.manifold == "pca" and is_power:
            raise ValueError(
                f"metric={metric!r} changes the variances by which manifold='pca' chooses "
                "components; use metric='scaled' or 'euclidean', or manifold='local'."
            )
        if manifold is not None and not is_plain:
            raise ValueError(
                f"metric={metric!r} cannot be combined with a given manifold, which lies in the "
                "coordinates of X; use metric='euclidean'."
            )
        if manifold is None and self.manifold == "local":
            kernel, learned = self._learned(points, weights, hull, shards)
            return kernel, hull, learned
        if manifold is None:
            manifold = self._principal_subspace(points, weights, shards)
        if isinstance(manifold, AffineSubspace):
            return _along_subspace(manifold, hull), hull, {"manifold_": manifold}
        check_idempotent(manifold, points)
        if not isinstance(manifold.project(torch.from_numpy(points[:1])), torch.Tensor):
            raise TypeError(
                f"manifold={manifold!r} does not return a tensor from project(X) if X is a tensor; "
                "expected tensors from all its methods in this case. Subclass a manifold of "
                "skdiffsmooth.manifolds, or write its methods in torch."
            )
        # A curved manifold also affects queries in the hull of the data where it is outside that hull.
        hull = hull.joined(getattr(manifold, "affine_hull", None))
        inside = differentiable(within(manifold, hull), hull.split(points)[0])
        shape = ManifoldShape(inside, push, _usable_reach(inside, manifold, points))
        return shape, hull, {"manifold_": manifold}

    def candidate_metrics(self, rank: int) -> tuple[Any, ...]:
        """Return the metrics from which "auto" chooses, none for a known manifold."""
        # Log-densities along a known manifold are slow or do not exist, so metrics are not compared.
        if not isinstance(self.manifold, str):
            return ()
        # PCA uses the variances of the columns as they are; those of whitened rows are all equal.
        return ("euclidean",) if self.manifold == "pca" else candidate_metrics(rank)

    def check_base(self, base: Any) -> None:
        """Do nothing, since every kernel along a manifold can smooth the score of a base."""

    def check_scales(
        self, kernel: ReducedKernel, coordinates: np.ndarray, bandwidth: float, scales: np.ndarray
    ) -> None:
        """Raise an error if the reach is too small for the bandwidth.

        Warn if it is too small for sigma, or if most rows are too far from the manifold.
        """
        if not isinstance(kernel, ManifoldShape) or not scales.any():
            return
        reach, fading = kernel.reach, fading_distance(kernel.manifold, kernel.reach)
        if fading is None:
            return
        if fading < _SHORTEST_REACH * bandwidth:
            raise ValueError(
                f"manifold={self.manifold!r} has the reach {reach:.3g}, too small for the "
                f"bandwidth {bandwidth:.3g}: with noise of that scale, nearest points are not "
                "unique. Lower the bandwidth, use a manifold with smaller curvature and wider "
                "gaps (for a learned manifold, raise n_neighbors), or use a PointCloud and draw "
                "samples only."
            )
        beyond = distance_in_span(kernel.manifold, torch.from_numpy(coordinates)) > fading / 2
        if 2 * int(beyond.sum()) > len(coordinates):
            warn_user(
                f"{int(beyond.sum())} of {len(coordinates)} distinct rows are farther from the manifold "
                f"than {fading / 2:.3g}, where smoothing along it fades. Check that manifold and rows "
                "are in the same units and have the same origin."
            )
        widest = _WIDEST_SCALE[self.push] * fading
        if scales.max() > widest:
            warn_user(
                f"sigma={scales.max():.3g} is large compared with the manifold's reach "
                f"{reach:.3g} for push={self.push!r}: some log-densities may have errors of several "
                f"nats, and samples may have another distribution. Lower sigma to {widest:.3g}."
            )

    def _given_manifold(self, points: np.ndarray, weights: np.ndarray) -> Manifold | None:
        """Return the manifold that the user passed, or None if it has to be learned."""
        manifold = self.manifold
        if isinstance(manifold, LocalPolynomialManifold) and not hasattr(manifold, "n_components_"):
            return clone(manifold).fit(points, sample_weight=weights)
        if isinstance(manifold, str):
            hint = "Or pass an object of skdiffsmooth.manifolds."
            check_choice("manifold", manifold, ("local", "pca"), hint=hint)
            return None
        if isinstance(manifold, type) or not isinstance(manifold, Manifold):
            raise wrong_type(
                "manifold", manifold, "'local', 'pca' or an object of skdiffsmooth.manifolds."
            )
        if manifold.n_features != points.shape[1]:
            raise ValueError(
                f"manifold lies in R^{manifold.n_features} but X has {points.shape[1]} features; "
                "expected the same number."
            )
        return manifold

    def _learned(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull, shards: Shards
    ) -> tuple[ReducedKernel, dict[str, Any]]:
        """Return a kernel along tangents of the data, learned by local principal components."""
        if not shards.alone:
            raise ValueError(
                "manifold='local' cannot be learned with shards='distributed'; pass "
                "manifold='pca', or a manifold that was fitted to a subsample."
            )
        n_cells = check_count("n_cells", self.n_cells)
        if n_cells is not None and n_cells > len(points):
            raise ValueError(
                f"n_cells={n_cells} exceeds the number of distinct rows, {len(points)}; expected at "
                "most as many."
            )
        if isinstance(self.n_components, numbers.Real) and not isinstance(
            self.n_components, numbers.Integral
        ):
            raise TypeError(
                f"n_components={self.n_components!r} is a share of the variance, which only "
                "manifold='pca' accepts; expected an integer or 'auto' for manifold='local'."
            )
        n_components = self._tangent_dimension(points, hull.dimension)
        coordinates, _ = hull.split(points)
        cells = Cells.of(coordinates, weights, n_components, n_cells)
        learned = {"cells_": cells, "n_components_": n_components}
        if n_components == hull.dimension:
            # Tangents that span the hull, in a single cell, give the isotropic kernel.
            return LinearShape(np.eye(hull.dimension)), learned
        return GatedShape(cells), learned

    def _tangent_dimension(self, points: np.ndarray, largest: int) -> int:
        """Return the dimension of the tangents to learn, at most that of the hull."""
        if not isinstance(self.n_components, str):
            # Data without extent have tangents of dimension zero, whatever was requested.
            return check_n_components(self.n_components, points, largest) if largest else 0
        check_choice("n_components", self.n_components, ("auto",), hint="Or pass an integer.")
        if len(points) < _FEWEST_ROWS or not largest:
            return largest
        try:
            return check_n_components("auto", points, largest)
        except ValueError as error:
            warn_user(
                f"n_components='auto': {error} The score is smoothed in all {largest} directions."
            )
            return largest

    def _principal_subspace(
        self, points: np.ndarray, weights: np.ndarray, shards: Shards
    ) -> AffineSubspace:
        """Return the affine span of the leading principal components."""
        center = shards.total(weights @ points)
        scaled = np.sqrt(weights)[:, None] * (points - center)
        singular_values, directions = principal_axes(scaled, shards)
        limit = len(singular_values)
        requested = self.n_components
        if isinstance(requested, str):
            hint = "Or pass an integer, or a share of the variance."
            check_choice("n_components", requested, ("auto",), hint=hint)
            requested = _SHARE_OF_VARIANCE
        if isinstance(requested, numbers.Real) and not isinstance(requested, numbers.Integral):
            hint = "It is a share of the variance; or pass an integer number of components."
            share = check_real("n_components", requested, below=1, hint=hint)
            reached = np.cumsum(singular_values**2)
            n_components = int(np.searchsorted(reached, share * reached[-1])) + 1
        else:
            n_components = check_integer("n_components", requested)
            if n_components > limit:
                raise ValueError(
                    f"n_components={n_components} exceeds min(number of distinct rows, number of "
                    f"features) = {limit}; expected an integer from 1 to {limit}."
                )
        return AffineSubspace.from_basis(center, directions[:n_components].T)


def _usable_reach(inside: Manifold, manifold: Manifold, points: np.ndarray) -> float | None:
    """Return the reach of a manifold; it is estimated if unknown and a density depends on it."""
    if manifold.reach is not None or not has_derivative(inside):
        return manifold.reach
    rows = points[:: math.ceil(len(points) / _MOST_ROWS)]
    return _SHARE_OF_REACH * estimate_reach(manifold, rows) if len(rows) >= 3 else math.inf


def _along_subspace(manifold: AffineSubspace, hull: AffineHull) -> LinearShape:
    """Return the kernel of offsets P xi along a subspace, with covariance S in hull coordinates."""
    in_hull = hull.basis.T @ manifold.basis
    variances, axes = np.linalg.eigh(in_hull @ in_hull.T)
    kept = variances > hull.n_features * np.finfo(np.float64).eps
    roots = axes[:, kept] * np.sqrt(variances[kept])
    # Of all factors of S, which differ by a rotation of the nodes, take the one whose upper block is
    # symmetric and positive. At full rank it is the symmetric root, hence the identity on data
    # that lie in the manifold: node by node the model is then that of the isotropic kernel.
    left, _, right = np.linalg.svd(roots[: roots.shape[1]].T)
    return LinearShape(roots @ left @ right)
