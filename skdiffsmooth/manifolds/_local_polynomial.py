"""A manifold learned from a sample: local polynomials over local principal axes.

Around a place p, with weights theta(|x_i - p| / h), the nearest points have principal axes T, and
the surface through them is the polynomial f in s = T^T (x - p) / h that minimises sum_i w_i theta_i
|x_i - f(s_i)|^2. The learned manifold is the set of places that lie on their own surface, p in f_p:
moving least squares (Levin 2003). The projection of x is the place p on its own surface at which
that is perpendicular to x - p (Alexa & Adamson 2004), by iteration.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .._coordinates.hull import AffineHull
from .._utils.backend import to_float64
from .._utils.memory import slices_within
from .._utils.rows import check_sample_weight, merge_duplicates
from .._utils.validation import check_choice, check_integer, check_real
from .._utils.warnings import warn_user
from ._base import Constants, DifferentiableManifoldBase
from ._dimension import check_n_components
from ._monomials import derivatives, monomials
from ._neighbors import NearestPoints
from ._turning_surface import image_of_derivative

__all__ = ["LocalPolynomialManifold"]

DEGREES = (1, 2, 3)
# Steps of Newton's method to the nearest point of one surface.
NEWTON_STEPS = 4
# A neighbourhood determines its polynomial if no direction of it is smaller than this.
INDEPENDENT = 1e-6
# Curvature of the squared distance, in that of a flat surface, below which a step is shortened.
LEAST_CURVATURE = 0.1

# A step, in units of the neighbourhood, after which a place has arrived.
ARRIVED = 1e-13

# Bounds of the secant's share of a step.
RELAXATIONS = 0.2, 2.0


class _Place(NamedTuple):
    """Where projections are, the derivative of their surface, and its degree."""

    points: torch.Tensor
    jacobian: torch.Tensor
    degrees: torch.Tensor


class LocalPolynomialManifold(DifferentiableManifoldBase, BaseEstimator):
    """A manifold learned from rows near it, by moving least squares.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Dimension k of the manifold; "auto" rounds `intrinsic_dimension` of X.
    degree : {1, 2, 3}, default=2
        Of the local polynomials: 1 are tangent planes, 2 bend. The distance to a smooth manifold
        falls like the spacing of the rows to the power degree + 1; noise asks for more neighbours
        the higher the degree.
    n_neighbors : int or "auto", default="auto"
        Rows that a polynomial is fitted to, at least one more than it has coefficients. "auto" is
        the larger of four times these and 6 log(n_points), or all rows if there are fewer; that is
        enough for noise of half the rows' spacing.
    n_iterations : int, default=30
        Fits on the way of each projection, at most; it ends where it moves by rounding only, often
        after five.
    memory_limit : float, default=64
        MiB of temporaries; more is hardly faster.

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
    Weights are ``(1 - |x_i - p|^2 / h^2)^3``, h the distance to the last neighbour, so that neighbours
    come and go without a jump. Where neighbours do not determine the polynomial (on a line, or on a
    grid) one of lower degree is fitted, down to the plane of principal axes, which always exists; a
    warning tells how often. It extrapolates: queries should be nearer to the rows than the reach.

    `project` is idempotent up to what the iteration leaves: on 400 points of a unit sphere, with
    queries up to 0.3 from it, at most 1e-13 for each degree. Where noise is as large as the spacing
    of the rows some neighbourhoods have several fixed points, or none that is found;
    `check_idempotent` tells, and more neighbours help. The tangent is that of the last polynomial;
    x - project(x) is orthogonal to it.

    `projection_factors` is the exact derivative of that projection, by the implicit function theorem.
    It is not symmetric: feet move along the manifold, whose tangents are not those of the polynomials
    that make it. Where the last neighbour of a foot changes the derivative jumps, since the width
    follows another row; the projection does not, but for a weight of 1e-8. It jumps where a query
    changes from one of several feet to another, as at the medial axis.

    A projection costs n_iterations times O(K (K + P^2) r + tree), with K neighbours, P coefficients
    and r the dimension of the affine hull of X; its derivative O(K k^2 q^2) more, q the smaller of K
    and r, about as much as one iteration or two. It is computed in double precision where the device
    has that.

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

    # BaseEstimator's, which names the parameters: a fitted one is a manifold and an estimator.
    __repr__ = BaseEstimator.__repr__

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LocalPolynomialManifold:
        """Keep the rows, and what finds their neighbours.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows on the manifold or near it, in units of their own.
        y : None
            Ignored.
        sample_weight : array-like of shape (n,), optional
            Weights in the fits of polynomials; rows of weight 0 are left out.

        Returns
        -------
        LocalPolynomialManifold
            Itself.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If X is not finite and two-dimensional, a parameter is out of range, or there are fewer
            distinct rows or neighbours than a polynomial needs.
        """
        rows = check_array(X, dtype=np.float64, estimator=self, input_name="X")
        points, weights = merge_duplicates(rows, check_sample_weight(sample_weight, len(rows)))
        degree = check_integer("degree", self.degree)
        if degree not in DEGREES:
            raise ValueError(f"degree={degree} is not available; expected 1, 2 or 3.")
        n_iterations = check_integer("n_iterations", self.n_iterations)
        memory_limit = check_real("memory_limit", self.memory_limit, hint="It is in MiB.")
        hull = AffineHull.of(points)
        if hull.dimension == 0:
            raise ValueError(
                "X has 1 distinct row; expected several, for it to lie along a manifold."
            )
        n_components = check_n_components(self.n_components, points, hull.dimension)
        n_neighbors = self._check_neighbors(len(points), math.comb(n_components + degree, degree))
        coordinates, _ = hull.split(points)
        validate_data(self, X, reset=True, skip_check_array=True)
        self.n_components_, self.n_neighbors_ = n_components, n_neighbors
        self.points_, self.weights_ = points, weights
        # As fitted, whatever is set later.
        self._degree, self._n_iterations, self._memory_limit = degree, n_iterations, memory_limit
        self._nearest = NearestPoints(coordinates, memory_limit)
        self._hull = hull
        self._constants = Constants(hull.center, hull.basis, coordinates, weights)
        self._derivatives = Constants(derivatives(n_components, degree))
        return self

    def _check_neighbors(self, n_points: int, n_terms: int) -> int:
        """Return the number of neighbours, which must suffice for a polynomial of so many terms."""
        needed = n_terms + 1
        if isinstance(self.n_neighbors, str):
            check_choice("n_neighbors", self.n_neighbors, ("auto",), hint="Or pass an integer.")
            number = min(n_points, max(4 * n_terms, math.ceil(6 * math.log(n_points))))
        else:
            number = check_integer("n_neighbors", self.n_neighbors)
        if not needed <= number <= n_points:
            raise ValueError(
                f"n_neighbors={self.n_neighbors!r} does not fit {n_points} distinct rows and "
                f"polynomials of degree={self.degree} with {n_terms} coefficients; expected "
                f"{needed} to {n_points}. Pass more rows, a lower degree or fewer components."
            )
        return number

    @property
    def n_features(self) -> int:
        """Dimension d of the space around it."""
        check_is_fitted(self)
        return self.points_.shape[1]

    @property
    def dimension(self) -> int:
        """Dimension k of the manifold."""
        check_is_fitted(self)
        return self.n_components_

    @property
    def reach(self) -> None:
        """None: it cannot be told from a sample."""
        return None

    @property
    def affine_hull(self) -> AffineHull:
        """That of the rows."""
        check_is_fitted(self)
        return self._hull

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        z = self._coordinates(x)
        center, basis, *_ = self._constants.like(z)
        return torch.addmm(center, self._place(z).points, basis.T).to(x.dtype)

    def _tangent(self, x: torch.Tensor) -> torch.Tensor:
        z = self._coordinates(x)
        _, basis, *_ = self._constants.like(z)
        return (basis @ torch.linalg.qr(self._place(z).jacobian)[0]).to(x.dtype)

    def _projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = self._coordinates(x)
        center, basis, *_ = self._constants.like(z)
        place = self._place(z)
        r, k, n_neighbors = z.shape[1], self.n_components_, self.n_neighbors_
        tangent = torch.linalg.qr(place.jacobian)[0]
        image = torch.zeros_like(tangent)
        bytes_per_row = 8 * r * (k + 1) * (3 * n_neighbors * k + (3 * k + 1) * r)
        for degree in range(1, self._degree + 1):
            n_terms = math.comb(k + degree, degree)
            matrices = self._derivatives.like(z)[0][:, :n_terms, :n_terms]
            (fitted,) = torch.nonzero(place.degrees == degree, as_tuple=True)
            for tile in slices_within(len(fitted), bytes_per_row, self._memory_limit):
                at = fitted[tile]
                p = place.points[at]
                rows, root, width = self._neighborhood(p)
                left = (z[at] - p) / width
                image[at] = image_of_derivative(rows, root, left, tangent[at], degree, matrices)
        foot = torch.addmm(center, place.points, basis.T)
        return foot.to(x.dtype), (basis @ image).to(x.dtype), (basis @ tangent).to(x.dtype)

    def _coordinates(self, x: torch.Tensor) -> torch.Tensor:
        """Return hull coordinates, in double precision."""
        x = to_float64(x)
        center, basis, *_ = self._constants.like(x)
        return (x - center) @ basis

    def _place(self, z: torch.Tensor) -> _Place:
        """Find the places of queries, tile by tile, and warn where a degree was lowered."""
        coordinates = self._constants.like(z)[2]
        n_terms = math.comb(self.n_components_ + self._degree, self._degree)
        r, n_derivatives = coordinates.shape[1], self.n_components_ + 1
        bytes_per_row = 8 * (4 * self.n_neighbors_ * (r + n_terms) + n_derivatives * n_terms * r)
        places = [
            self._place_of_tile(z[tile])
            for tile in slices_within(len(z), bytes_per_row, self._memory_limit)
        ]
        place = _Place(*(torch.cat(parts) for parts in zip(*places, strict=True)))
        n_lowered = int((place.degrees < self._degree).sum())
        if n_lowered:
            warn_user(
                f"the neighbours of {n_lowered} of {len(z)} projections do not determine "
                f"polynomials of degree={self._degree}; ones of lower degree were used. Raise "
                "n_neighbors, or lower degree or n_components."
            )
        return place

    def _place_of_tile(self, z: torch.Tensor) -> _Place:
        """Iterate: fit a surface at p, move p to the point of the surface that is nearest to z."""
        coordinates = self._constants.like(z)[2]
        _, nearest = self._nearest.query(z, 1)
        p = coordinates[nearest[:, 0]]
        place = _Place(
            p.clone(),
            z.new_zeros(*z.shape, self.n_components_),
            torch.full((len(z),), self._degree, device=z.device),
        )
        moving = torch.arange(len(z), device=z.device)
        relaxation, before = z.new_ones(len(z), 1), torch.zeros_like(z)
        for _ in range(self._n_iterations):
            coefficients, width, place.degrees[moving] = self._surface(p)
            step, place.jacobian[moving] = self._nearest_on(coefficients, z[moving] - p)
            place.points[moving] = p + step
            # Irons & Tuck's secant of the last two steps: planes turn as they move, so that plain
            # steps may shrink slowly, or go to and fro for ever.
            change = step - before
            secant = -relaxation * (before * change).sum(1, keepdim=True)
            squared = (change**2).sum(1, keepdim=True)
            secant = (secant / torch.where(squared > 0, squared, 1.0)).clamp(*RELAXATIONS)
            relaxation = torch.where((before**2).sum(1, keepdim=True) > 0, secant, relaxation)
            left = torch.linalg.vector_norm(step, dim=1) > ARRIVED * width
            state = moving, p + relaxation * step, step, relaxation
            moving, p, before, relaxation = (part[left] for part in state)
            if len(moving) == 0:
                break
        return place

    def _surface(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fit the surfaces around places p.

        Returns
        -------
        coefficients : torch.Tensor of shape (n, P, r)
            Of x - p as a polynomial in s.
        width : torch.Tensor of shape (n,)
            The unit of s.
        degrees : torch.Tensor of shape (n,)
            That were fitted.
        """
        rows, root, width = self._neighborhood(p)
        root = root[:, :, None]
        mean = (root**2 * rows).sum(dim=1, keepdim=True)
        axes = torch.linalg.svd(root * (rows - mean), full_matrices=False)[2][
            :, : self.n_components_
        ]
        # The plane of principal axes: what least squares of degree 1 over them would find.
        plane = torch.cat([mean - mean @ axes.mT @ axes, axes], dim=1)
        coefficients, degrees = self._fit(root * rows, rows @ axes.mT, root, plane, self._degree)
        return width[:, :, None] * coefficients, width[:, 0], degrees

    def _neighborhood(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the rows around places p.

        Returns
        -------
        rows : torch.Tensor of shape (n, K, r)
            Their places less p, nearest first, in units of the width.
        root : torch.Tensor of shape (n, K)
            Roots of their weights, which sum to one.
        width : torch.Tensor of shape (n, 1)
            The unit.
        """
        _, _, coordinates, weights = self._constants.like(p)
        distances, neighbors = self._nearest.query(p, self.n_neighbors_)
        # A little wider than the neighbourhood: if all neighbours are equally far, all count.
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
        """Return coefficients of at most this degree, and the degrees that they are of."""
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
        """Return the points of the surfaces f that are nearest to targets, and the derivatives there."""
        (derivative,) = self._derivatives.like(target)
        first = torch.einsum("jab,nbr->njar", derivative, coefficients)
        second = torch.einsum("jab,lbc->jlac", derivative, derivative)
        s = target.new_zeros(len(target), self.n_components_)
        for _ in range(NEWTON_STEPS):
            powers = monomials(s, self._degree)
            left = target - torch.einsum("na,nar->nr", powers, coefficients)
            jacobian = torch.einsum("na,njar->nrj", powers, first)
            metric = jacobian.mT @ jacobian
            along = torch.einsum("nar,nr->na", coefficients, left)
            bend = torch.einsum("na,jlab,nb->njl", powers, second, along)
            curvatures, directions = torch.linalg.eigh(metric - bend)
            # Beyond a center of curvature the squared distance has a maximum: away from it.
            least = LEAST_CURVATURE * metric.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
            curvatures = torch.maximum(curvatures.abs(), least)[:, :, None]
            gradient = jacobian.mT @ left[:, :, None]
            s = s + (directions @ (directions.mT @ gradient / curvatures))[:, :, 0]
            # Not out of the neighbourhood, where the polynomial knows nothing.
            s = s / torch.linalg.vector_norm(s, dim=1, keepdim=True).clamp_min(1)
        powers = monomials(s, self._degree)
        return (
            torch.einsum("na,nar->nr", powers, coefficients),
            torch.einsum("na,njar->nrj", powers, first),
        )
