"""A manifold learned from a sample by fitting local polynomials over local principal axes.

Around a position p, with weights theta(|x_i - p| / h), the nearest points have principal axes T, and
the surface through them is the polynomial f in s = T^T (x - p) / h that minimises sum_i w_i theta_i
|x_i - f(s_i)|^2. The learned manifold is the set of positions that are on their own surface, p in f_p:
moving least squares (Levin 2003). The projection of x is the position p on its own surface at which
x - p is perpendicular to that surface (Alexa & Adamson 2004); it is computed by iteration.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from .._coordinates.hull import AffineHull, hull_in_one_unit
from .._utils.memory import slices_within
from .._utils.rows import check_sample_weight, merge_rows
from .._utils.table import check_table, column_names
from .._utils.validation import check_count, check_integer, check_memory_limit
from .._utils.warnings import warn_user
from ._base import Constants, DifferentiableManifoldBase
from ._dimension import check_n_components
from ._monomials import derivatives, monomials
from ._neighbors import NearestPoints
from ._surface_derivative import image_of_derivative

DEGREES = (1, 2, 3)
# Steps of Newton's method to the nearest point of one surface.
NEWTON_STEPS = 4
# A neighbourhood determines its polynomial if the ratio of the smallest to the largest diagonal entry of
# the triangular factor is at least this.
INDEPENDENT = 1e-6
# Lower bound on the curvature of the squared distance, in units of that for a flat surface, for steps of
# Newton's method.
LEAST_CURVATURE = 0.1

# With fewer distinct rows no dimension can be estimated.
_FEWEST_ROWS = 8

# The iteration of a projection ends at a step below this, in units of the width of the neighbourhood.
CONVERGED = 1e-13

# Bounds of the relaxation factor of the secant method.
RELAXATIONS = 0.2, 2.0


class _Projections(NamedTuple):
    """Projections (n, r), with derivatives (n, r, k) and degrees (n,) of the local polynomials."""

    points: torch.Tensor
    jacobian: torch.Tensor
    degrees: torch.Tensor


class LocalPolynomialManifold(DifferentiableManifoldBase, BaseEstimator):
    """A manifold learned from rows on it or near it, by moving least squares.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Dimension k of the manifold; "auto" rounds `intrinsic_dimension` of X.
    degree : {1, 2, 3}, default=2
        Degree of the local polynomials: 1 fits planes, 2 and 3 curved surfaces. The distance to a smooth
        manifold decreases like the spacing of the rows to the power degree + 1; with noise a higher
        degree needs more neighbours. With ``n_neighbors="auto"`` the degree is lowered, with a warning,
        if there are too few rows.
    n_neighbors : int or "auto", default="auto"
        Number of rows that a polynomial is fitted to, at least one more than it has coefficients. "auto"
        is the larger of four times the number of coefficients and 6 log(n_points), or all rows if there
        are fewer; that is enough for noise of half the spacing of the rows.
    n_iterations : int, default=30
        Largest number of fits for one projection; the iteration ends earlier, often after five, when
        steps are as small as rounding errors.
    memory_limit : float, default=64
        Bound on temporaries in MiB; a higher one is hardly faster.

    Attributes
    ----------
    n_components_ : int
        The dimension k.
    n_neighbors_ : int
        The number of neighbours.
    points_ : ndarray of shape (n_points, d)
        The distinct rows of positive weight.
    weights_ : ndarray of shape (n_points,)
        Their weights, which sum to one.
    n_features_in_ : int
        The number of columns d.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is used before `fit`.

    Notes
    -----
    Weights are ``(1 - |x_i - p|^2 / h^2)^3``, h the distance to the last neighbour, so that they are
    continuous where the neighbours change. If the neighbours do not determine the polynomial (on a
    line, or on a grid) one of lower degree is fitted, down to the plane of principal axes, which always
    exists; a warning states for how many projections. Polynomials extrapolate: the distance of queries
    from the rows should be smaller than the reach.

    `project` is idempotent up to the error of the iteration: on 400 points of a unit sphere, with
    queries up to 0.3 from it, at most 1e-13 for each degree. Where noise is as large as the spacing of
    the rows, some neighbourhoods have several fixed points, or the iteration does not converge;
    `check_idempotent` detects this, and more neighbours help. The tangent is that of the last
    polynomial; x - project(x) is orthogonal to it.

    `projection_factors` is the exact derivative of that projection, by the implicit function theorem.
    It is not symmetric: projections move along the manifold, whose tangents are not those of its
    polynomials. Where the last neighbour of a projection changes, the derivative jumps, since the width
    h depends on another row; the projection itself is continuous there up to a weight of 1e-8. It jumps
    where another of several nearest points becomes the projection, as at the medial axis.

    A projection costs n_iterations times O(K (K + P^2) r) and the search for neighbours, with K
    neighbours, P coefficients and r the dimension of the affine hull of X; its derivative O(K k^2 q^2)
    more, q the smaller of K and r, about as much as one or two iterations. Computations are in float64.

    References
    ----------
    Levin, Mesh-independent surface interpolation, 2003. Alexa & Adamson, On normals and projection
    operators for surfaces defined by point sets, 2004. Sober & Levin, Manifold approximation by
    moving least-squares projection, Constructive Approximation 52, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.manifolds import LocalPolynomialManifold
    >>> X = np.random.default_rng(0).normal(size=(1000, 3))
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> manifold = LocalPolynomialManifold().fit(X)
    >>> manifold.dimension
    2
    >>> manifold.project([[0.0, 0.0, 1.2]]).round(2) + 0.0
    array([[0., 0., 1.]])
    """

    def __init__(
        self,
        n_components: int | str = "auto",
        degree: int = 2,
        n_neighbors: int | str = "auto",
        n_iterations: int = 30,
        memory_limit: float = 64,
    ) -> None:
        self.n_components = n_components
        self.degree = degree
        self.n_neighbors = n_neighbors
        self.n_iterations = n_iterations
        self.memory_limit = memory_limit

    # The representation of BaseEstimator, which shows the parameters.
    __repr__ = BaseEstimator.__repr__

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LocalPolynomialManifold:
        """Fit the manifold: store the rows and a search structure for their neighbours.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows on the manifold or near it, in any units.
        y : None
            Ignored.
        sample_weight : array-like of shape (n,), optional
            Weights in the fits of polynomials; rows of weight 0 are dropped.

        Returns
        -------
        LocalPolynomialManifold
            The fitted manifold.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If X is not finite and two-dimensional, a parameter is out of range, or there are fewer
            distinct rows or neighbours than a polynomial needs.

        Warns
        -----
        UserWarning
            If there are too few rows for an estimate of the dimension, or, with ``n_neighbors="auto"``,
            for polynomials of this degree: a lower one is fitted.
        """
        rows = check_table(X, self)
        weight = check_sample_weight(sample_weight, len(rows))
        merged = merge_rows(rows, weight, by_column=False)
        merged.warn_of_near_rows()
        points, weights = merged.points, merged.weights
        degree = check_integer("degree", self.degree)
        if degree not in DEGREES:
            raise ValueError(f"degree={degree} is not available; expected 1, 2 or 3.")
        n_iterations = check_integer("n_iterations", self.n_iterations)
        memory_limit = check_memory_limit(self.memory_limit)
        hull = hull_in_one_unit(points, column_names(X))
        if hull.dimension == 0:
            raise ValueError(
                f"X has 1 distinct row (n_samples = {len(rows)}); expected two or more. Pass more rows, "
                "which are not all equal."
            )
        n_components, degree = self._for_few_rows(points, hull.dimension, degree)
        n_neighbors = self._check_neighbors(len(points), math.comb(n_components + degree, degree))
        coordinates, _ = hull.split(points)
        fitted = copy.copy(self)
        validate_data(fitted, X, reset=True, skip_check_array=True)
        fitted.n_components_, fitted.n_neighbors_ = n_components, n_neighbors
        fitted.points_, fitted.weights_ = points, weights
        # Copies, so that set_params does not change a fitted manifold.
        fitted._degree, fitted._n_iterations, fitted._memory_limit = (
            degree,
            n_iterations,
            memory_limit,
        )
        fitted._nearest = NearestPoints(coordinates, memory_limit)
        fitted._hull = hull
        fitted._constants = Constants(hull.center, hull.basis, coordinates, weights)
        fitted._derivatives = Constants(derivatives(n_components, degree))
        # In one assignment, so that an interrupt leaves either the old manifold or the new one.
        self.__dict__ = fitted.__dict__
        return self

    def _for_few_rows(self, points: np.ndarray, rank: int, degree: int) -> tuple[int, int]:
        """Return the number of components and the degree, lowered for few rows if "auto" allows it."""
        n_points, few = len(points), False
        if self.n_components == "auto" and n_points < _FEWEST_ROWS:
            n_components, few = 1, True
        else:
            n_components = check_n_components(self.n_components, points, rank)
        fitted = degree
        if self.n_neighbors == "auto":
            if self.n_components == "auto" and n_components > n_points - 2:
                n_components, few = max(1, n_points - 2), True
            while fitted > 1 and math.comb(n_components + fitted, fitted) >= n_points:
                fitted -= 1
        if few or fitted < degree:
            warn_user(
                f"X has {n_points} distinct rows, too few for polynomials of degree={degree} or for an "
                f"estimate of the dimension: the manifold has n_components={n_components}, and "
                f"polynomials of degree {fitted}. Pass more rows, or n_components and a lower degree."
            )
        return n_components, fitted

    def _check_neighbors(self, n_points: int, n_terms: int) -> int:
        """Return the number of neighbours after checking that a polynomial of n_terms can be fitted."""
        needed = n_terms + 1
        number = check_count("n_neighbors", self.n_neighbors)
        if number is None:
            number = min(n_points, max(4 * n_terms, math.ceil(6 * math.log(n_points))))
        if not needed <= number <= n_points:
            raise ValueError(
                f"n_neighbors={self.n_neighbors!r} does not fit {n_points} distinct rows and "
                f"polynomials of degree={self.degree} with {n_terms} coefficients; expected "
                f"{needed} to {n_points}. Pass more rows, a lower degree or fewer components."
            )
        return number

    @property
    def n_features(self) -> int:
        """Number d of columns of X."""
        check_is_fitted(self)
        return self.points_.shape[1]

    @property
    def dimension(self) -> int:
        """Dimension k of the manifold."""
        check_is_fitted(self)
        return self.n_components_

    @property
    def reach(self) -> None:
        """Always None, since the reach of a learned manifold is not known; see `estimate_reach`."""
        return None

    @property
    def affine_hull(self) -> AffineHull:
        """The affine hull of the rows."""
        check_is_fitted(self)
        return self._hull

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        z = self._coordinates(x)
        center, basis, *_ = self._constants.like(z)
        return torch.addmm(center, self._solve(z).points, basis.T).to(x.dtype)

    def _tangent(self, x: torch.Tensor) -> torch.Tensor:
        z = self._coordinates(x)
        _, basis, *_ = self._constants.like(z)
        return (basis @ torch.linalg.qr(self._solve(z).jacobian)[0]).to(x.dtype)

    def _projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = self._coordinates(x)
        center, basis, *_ = self._constants.like(z)
        projections = self._solve(z)
        r, k, n_neighbors = z.shape[1], self.n_components_, self.n_neighbors_
        tangent = torch.linalg.qr(projections.jacobian)[0]
        image = torch.zeros_like(tangent)
        largest = math.comb(k + self._degree, k)
        of_neighbors = n_neighbors * (8 * r * (k + 1) * k + 6 * (r + largest))
        bytes_per_row = 8 * (of_neighbors + r * (k + 1) * (3 * k + 1) * r)
        for degree in range(1, self._degree + 1):
            n_terms = math.comb(k + degree, degree)
            matrices = self._derivatives.like(z)[0][:, :n_terms, :n_terms]
            (fitted,) = torch.nonzero(projections.degrees == degree, as_tuple=True)
            for tile in slices_within(len(fitted), bytes_per_row, self._memory_limit):
                at = fitted[tile]
                p = projections.points[at]
                rows, root, width = self._neighborhood(p)
                residual = (z[at] - p) / width
                image[at] = image_of_derivative(rows, root, residual, tangent[at], degree, matrices)
        foot = torch.addmm(center, projections.points, basis.T)
        return foot.to(x.dtype), (basis @ image).to(x.dtype), (basis @ tangent).to(x.dtype)

    def _coordinates(self, x: torch.Tensor) -> torch.Tensor:
        """Return hull coordinates (n, r) in float64."""
        x = x.double()
        center, basis, *_ = self._constants.like(x)
        return (x - center) @ basis

    def _solve(self, z: torch.Tensor) -> _Projections:
        """Return the projections of z (n, r), with a warning where a degree was lowered."""
        coordinates = self._constants.like(z)[2]
        n_terms = math.comb(self.n_components_ + self._degree, self._degree)
        r, n_derivatives = coordinates.shape[1], self.n_components_ + 1
        bytes_per_row = 8 * (12 * self.n_neighbors_ * (r + n_terms) + n_derivatives * n_terms * r)
        tiles = [
            self._solve_tile(z[tile])
            for tile in slices_within(len(z), bytes_per_row, self._memory_limit)
        ]
        projections = _Projections(*(torch.cat(parts) for parts in zip(*tiles, strict=True)))
        n_lowered = int((projections.degrees < self._degree).sum())
        if n_lowered:
            warn_user(
                f"the neighbours of {n_lowered} of {len(z)} projections do not determine "
                f"polynomials of degree={self._degree}; ones of lower degree were used. Raise "
                "n_neighbors, or lower degree or n_components."
            )
        return projections

    def _solve_tile(self, z: torch.Tensor) -> _Projections:
        """Return projections of z: fit a surface at p, move p to its point nearest to z, and repeat."""
        coordinates = self._constants.like(z)[2]
        _, nearest = self._nearest.query(z, 1)
        p = coordinates[nearest[:, 0]]
        projections = _Projections(
            p.clone(),
            z.new_zeros(*z.shape, self.n_components_),
            torch.full((len(z),), self._degree, device=z.device),
        )
        moving = torch.arange(len(z), device=z.device)
        relaxation, before = z.new_ones(len(z), 1), torch.zeros_like(z)
        for _ in range(self._n_iterations):
            coefficients, width, projections.degrees[moving] = self._surface(p)
            step, projections.jacobian[moving] = self._nearest_on(coefficients, z[moving] - p)
            projections.points[moving] = p + step
            # Irons & Tuck's secant method with the last two steps. The plane of principal axes rotates
            # as p moves, so that steps without relaxation may converge slowly, or oscillate for ever.
            change = step - before
            secant = -relaxation * (before * change).sum(1, keepdim=True)
            squared = (change**2).sum(1, keepdim=True)
            secant = (secant / torch.where(squared > 0, squared, 1.0)).clamp(*RELAXATIONS)
            relaxation = torch.where((before**2).sum(1, keepdim=True) > 0, secant, relaxation)
            goes_on = torch.linalg.vector_norm(step, dim=1) > CONVERGED * width
            state = moving, p + relaxation * step, step, relaxation
            moving, p, before, relaxation = (part[goes_on] for part in state)
            if len(moving) == 0:
                break
        return projections

    def _surface(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fit one polynomial surface around each position p (n, r).

        Return the coefficients (n, P, r) of x - p as a polynomial in s, the width (n,) that is the unit
        of s, and the degrees (n,) of the polynomials.
        """
        rows, root, width = self._neighborhood(p)
        root = root[:, :, None]
        mean = (root**2 * rows).sum(dim=1, keepdim=True)
        axes = torch.linalg.svd(root * (rows - mean), full_matrices=False)[2][
            :, : self.n_components_
        ]
        # The plane of principal axes, which is the least-squares polynomial of degree 1 over them.
        plane = torch.cat([mean - mean @ axes.mT @ axes, axes], dim=1)
        coefficients, degrees = self._fit(root * rows, rows @ axes.mT, root, plane, self._degree)
        return width[:, :, None] * coefficients, width[:, 0], degrees

    def _neighborhood(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the neighbours of positions p (n, r), and the roots of their weights.

        Neighbours less p, `rows` (n, K, r), are nearest first and in units of `width` (n, 1). The
        weights sum to one; their roots are (n, K).
        """
        _, _, coordinates, weights = self._constants.like(p)
        distances, neighbors = self._nearest.query(p, self.n_neighbors_)
        # A little more than the last distance: if all neighbours are equally far, no weight is zero.
        width = distances[:, -1:] * (1 + 1e-3)
        theta = weights[neighbors] * (1 - (distances / width) ** 2) ** 3
        root = (theta / theta.sum(dim=1, keepdim=True)).sqrt()
        return (coordinates[neighbors] - p[:, None]) / width[:, :, None], root, width

    def _fit(
        self,
        targets: torch.Tensor,
        s: torch.Tensor,
        root: torch.Tensor,
        plane: torch.Tensor,
        degree: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coefficients (n, P, r) of polynomials of at most this degree, and degrees (n,)."""
        degrees = torch.full((len(s),), degree, device=s.device)
        if degree == 1:
            return plane, degrees
        orthogonal, triangle = torch.linalg.qr(root * monomials(s, degree))
        coefficients = torch.linalg.solve_triangular(triangle, orthogonal.mT @ targets, upper=True)
        sizes = torch.diagonal(triangle, dim1=1, dim2=2).abs()
        dependent = sizes.amin(dim=1) < INDEPENDENT * sizes.amax(dim=1)
        if dependent.any():
            targets, s, root, plane = (part[dependent] for part in (targets, s, root, plane))
            lower, degrees[dependent] = self._fit(targets, s, root, plane, degree - 1)
            coefficients[dependent] = 0
            coefficients[dependent, : lower.shape[1]] = lower
        return coefficients, degrees

    def _nearest_on(
        self, coefficients: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the points (n, r) nearest to targets (n, r), one on each surface.

        Also return the derivatives (n, r, k) of the surfaces there.
        """
        (derivative,) = self._derivatives.like(target)
        first = torch.einsum("jab,nbr->njar", derivative, coefficients)
        second = torch.einsum("jab,lbc->jlac", derivative, derivative)
        s = target.new_zeros(len(target), self.n_components_)
        for _ in range(NEWTON_STEPS):
            powers = monomials(s, self._degree)
            residual = target - torch.einsum("na,nar->nr", powers, coefficients)
            jacobian = torch.einsum("na,njar->nrj", powers, first)
            metric = jacobian.mT @ jacobian
            along = torch.einsum("nar,nr->na", coefficients, residual)
            curvature = torch.einsum("na,jlab,nb->njl", powers, second, along)
            curvatures, directions = torch.linalg.eigh(metric - curvature)
            # Absolute values, since beyond a center of curvature the squared distance has a maximum,
            # from which steps must go away.
            least = LEAST_CURVATURE * metric.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
            curvatures = torch.maximum(curvatures.abs(), least)[:, :, None]
            gradient = jacobian.mT @ residual[:, :, None]
            s = s + (directions @ (directions.mT @ gradient / curvatures))[:, :, 0]
            # Stay in the neighbourhood, outside of which the polynomial is not fitted.
            s = s / torch.linalg.vector_norm(s, dim=1, keepdim=True).clamp_min(1)
        powers = monomials(s, self._degree)
        return (
            torch.einsum("na,nar->nr", powers, coefficients),
            torch.einsum("na,njar->nrj", powers, first),
        )
