"""A finite set of points as a manifold, with projection to the nearest point."""

from __future__ import annotations

import copy
from typing import Any

import torch

from .._coordinates.hull import AffineHull
from .._utils.cached import cached_property
from .._utils.memory import slices_within
from .._utils.validation import check_count, check_finite, check_memory_limit, check_real_array
from ._base import Constants, ManifoldBase
from ._dimension import check_n_components
from ._neighbors import NearestPoints


class PointCloud(ManifoldBase):
    """A finite set of points: projections are nearest points, and tangents are local PCA axes.

    Use it if only a dense sample of a manifold is known. Each projection is one of the points;
    `LocalPolynomialManifold` interpolates between them.

    Parameters
    ----------
    points : array-like of shape (n_points, d)
        Points, all finite; duplicates are allowed.
    n_components : int or "auto", default="auto"
        Dimension of the tangent spaces; "auto" rounds `intrinsic_dimension`.
    n_neighbors : int or "auto", default="auto"
        Number of points, more than n_components, whose principal axes are the tangents: the nearest
        point and its neighbours. "auto" is 4 (n_components + 1), or all points if there are fewer.
    memory_limit : float, default=64
        Bound on temporaries in MiB; a higher one is hardly faster.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If the points are not finite or not of shape (n_points, d); if there are too few for the
        components or neighbours; or, with "auto", if `intrinsic_dimension` raises an error, as it does
        for evenly spaced points: pass a number for these.

    Notes
    -----
    It is not a `SmoothManifold`: the projection is piecewise constant, so that its derivative is zero
    and contains nothing about the manifold. Of several points at the same distance always the same one
    is returned. If the neighbours span fewer than n_components directions, as duplicates do, arbitrary
    orthogonal directions are added to the tangents.

    n projections cost O(n log n_points) in up to ten dimensions on a CPU, by a tree, else O(n n_points
    d). The nearest point is exact to rounding. n tangents cost O(n K^2 d) more, K = n_neighbors.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.manifolds import PointCloud
    >>> cloud = PointCloud([[0.0, 0.0], [1.0, 0.1], [2.0, 0.0]], n_components=1, n_neighbors=3)
    >>> cloud.project([[0.8, 1.0], [5.0, 0.0]])
    array([[1. , 0.1],
           [2. , 0. ]])
    >>> np.abs(cloud.tangent([[0.8, 1.0]])).round(3)
    array([[[1.],
            [0.]]])
    """

    def __init__(
        self,
        points: Any,
        n_components: int | str = "auto",
        n_neighbors: int | str = "auto",
        memory_limit: float = 64,
    ) -> None:
        points = check_real_array("points", points)
        if points.ndim != 2 or points.size == 0:
            raise ValueError(
                f"points has shape {points.shape}; expected (n_points, d) with n_points, d >= 1. Pass "
                "one row for each point."
            )
        check_finite("points", points, "Drop those rows or impute them.")
        self.points = points
        self.memory_limit = check_memory_limit(memory_limit)
        self._dimension = check_n_components(n_components, points, points.shape[1])
        self.n_neighbors = self._check_neighbors(n_neighbors)
        self._nearest = NearestPoints(points, self.memory_limit)
        self._constants = Constants(points)

    def _check_neighbors(self, n_neighbors: Any) -> int:
        """Return the number of neighbours after checking that it fits the points and the tangents."""
        fewest, most = self.dimension + 1, len(self.points)
        number = check_count("n_neighbors", n_neighbors)
        if number is None:
            number = min(4 * fewest, most)
        if not fewest <= number <= most:
            raise ValueError(
                f"n_neighbors={n_neighbors!r} does not fit {most} points and tangents of "
                f"dimension {self.dimension}; expected {fewest} to {most}. Pass more points, or "
                "fewer components."
            )
        return number

    @property
    def n_features(self) -> int:
        """Number d of columns of X."""
        return self.points.shape[1]

    @property
    def dimension(self) -> int:
        """Dimension k of the tangent spaces."""
        return self._dimension

    @property
    def reach(self) -> None:
        """Always None, since the manifold from which the points were drawn is not known."""
        return None

    @cached_property
    def affine_hull(self) -> AffineHull:
        """The affine hull of the points."""
        return AffineHull.of(self.points)

    def within(self, hull: AffineHull) -> PointCloud:
        """Return the points in coordinates of an affine subspace that contains them.

        Parameters
        ----------
        hull : AffineHull
            The subspace.
        """
        other = copy.copy(self)
        other.points, _ = hull.split(self.points)
        other._nearest = NearestPoints(other.points, self.memory_limit)
        other._constants = Constants(other.points)
        vars(other).pop("affine_hull", None)
        return other

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        (points,) = self._constants.like(x)
        _, nearest = self._nearest.query(x, 1)
        return points[nearest[:, 0]]

    def _tangent(self, x: torch.Tensor) -> torch.Tensor:
        (points,) = self._constants.like(x)
        _, neighbors = self._nearest.query(self._project(x), self.n_neighbors)
        bytes_per_row = 4 * x.element_size() * self.n_neighbors * self.n_features
        tangents = []
        for tile in slices_within(len(x), bytes_per_row, self.memory_limit):
            rows = points[neighbors[tile]]
            centered = rows - rows.mean(dim=1, keepdim=True)
            axes = torch.linalg.svd(centered, full_matrices=False)[2]
            tangents.append(axes[:, : self.dimension].mT)
        return torch.cat(tangents)
