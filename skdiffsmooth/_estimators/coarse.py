"""CoarseScoreDiffusion: a reverse process whose score, at low noise, points to a learned manifold.

Noise of variance v near a manifold M has the score (Pi(x) - x) / v + O(1): geometry at the order
1 / v, the density of the data at the order 1 (Li et al. 2025, theorem 3.1). The coarse score is the
first term with an estimate P of the projection Pi. Below the switch time t0 = switch_scale^2 it
drives the probability-flow ODE dx/dy = (x - P(x)) / y, y = sqrt(v). P is constant along the
segment from P(x) to x, so the flow from s = switch_scale to b = bandwidth is, in closed form,

    F(x) = P(x) + (b / s) (x - P(x)).

Above t0 the score is that of the data, whose reverse SDE has at t0 exactly the distribution p of a
Gaussian kernel density estimate of bandwidth s. Samples are F(x), x ~ p.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._coordinates.embedding import Embedding
from .._coordinates.hull import AffineHull, hull_in_one_unit
from .._coordinates.metric import LinearMetric, check_linear_metric
from .._coordinates.periodic import fit_metric_of_rows
from .._diffusion.conditional import draw_given_columns, log_density_of_columns
from .._diffusion.joint_density import N_CENTERS, JointDensity
from .._diffusion.posterior import PosteriorMixin
from .._diffusion.settings import resolve_n_nodes
from .._utils.backend import Backend
from .._utils.draws import draw_points
from .._utils.estimator import DistanceDensityMixin, on_one_fit
from .._utils.progress import reports_fit
from .._utils.shards import ONE_PROCESS
from .._utils.table import column_names
from .._utils.threads import threads_for
from .._utils.units import common_unit, per_unit
from .._utils.validation import (
    check_bandwidth,
    check_choice,
    check_count,
    check_integer,
    check_memory_limit,
    check_real,
    check_size,
)
from .._utils.warnings import warn_user
from ..bandwidth import warn_of_copies
from ..manifolds import AffineSubspace, LocalPolynomialManifold, Manifold, estimate_reach
from ..manifolds._dimension import check_n_components
from .coarse_flow import SAME_FOOT, CoarseFlow, default_nodes

__all__ = ["CoarseScoreDiffusion"]

DEGREES = (0, 1, 2, 3)
# switch_scale="auto" is at most this fraction of the reach.
FRACTION_OF_REACH = 0.3
# Largest number of rows from which reach and residuals are estimated; the reach compares pairs of rows.
MAX_ROWS = 1000
# Rows between 2^-ORDINARY and 2^ORDINARY in size are not rescaled.
ORDINARY = 400
# `fit` draws this many samples, and warns if more than this fraction is not on the manifold.
N_DRAWS, MAX_DROPPED = 256, 0.01


class CoarseScoreDiffusion(PosteriorMixin, DistanceDensityMixin, BaseEstimator):
    """Samples on a manifold learned from the data, by a score that depends on that manifold only.

    Noise of one scale is added to training rows, which are then projected to the manifold. The distance
    of samples from the true manifold falls with the number of rows N much faster than that of a kernel
    density estimate, however rough the density along the manifold is. In return, the density along the
    manifold is smoothed by noise of `switch_scale`, which does not shrink with N. Choose it where rows
    lie near a smooth curve or surface of a few dimensions and samples on the manifold matter more than
    the density; choose `SmoothedScoreDiffusion` where the held-out likelihood matters.

    Set `switch_scale` (the noise before the projection), `n_components` (the dimension of the
    manifold) and `bandwidth` (noise left in the samples; zero puts them on the manifold):

    >>> import numpy as np
    >>> from skdiffsmooth import CoarseScoreDiffusion
    >>> X = np.random.default_rng(0).normal(size=(1000, 3))
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> model = CoarseScoreDiffusion().fit(X)
    >>> rows = model.sample(500, random_state=0)

    Samples are far nearer to the sphere than to the training rows, and log-densities near those of
    the uniform distribution, 1 / (4 pi):

    >>> off_sphere = np.abs(np.linalg.norm(rows, axis=1) - 1)
    >>> off_rows = np.linalg.norm(rows[:, None] - X, axis=2).min(axis=1)
    >>> bool(off_rows.mean() > 100 * off_sphere.mean())
    True
    >>> round(float(np.exp(model.score_samples(X[:100])).mean() * 4 * np.pi), 1)
    1.0

    Parameters
    ----------
    switch_scale : float or "auto", default="auto"
        Standard deviation of the noise at which the coarse score replaces that of the data, in
        units of the metric (of X by default): the square root of the paper's time t0. It must be below
        the reach of the manifold, within which projections are unique. "auto" is 0.3 times the smaller
        of the reach and the standard deviation of the rows in each dimension of the manifold; with
        ``degree=0`` it is that standard deviation times n_points^(-1 / (k + 4)).
    degree : {0, 1, 2, 3}, default=2
        Degree of the local polynomials that make up the manifold, see `LocalPolynomialManifold`. 0
        takes the posterior mean in place of a projection: a sample is then a draw from a kernel density
        estimate after one full step of denoising (the one-step inertial sampler).
    n_components : int or "auto", default="auto"
        Dimension k of the manifold; "auto" rounds `intrinsic_dimension`.
    bandwidth : float, default=0.0
        Standard deviation of the noise left in the samples, in the units of `switch_scale` and below
        it. At zero, samples lie on the manifold and their density is with respect to its volume; above
        zero it is a density on R^d. At ``residual_scale_``, samples are about as far from the manifold
        as the rows are.
    n_neighbors : int or "auto", default="auto"
        Number of rows that each polynomial is fitted to, see `LocalPolynomialManifold`. Noisy rows
        need more.
    metric : {"euclidean", "scaled", "whitened", "local"}, float or array-like of shape \
            (n_features, n_features), default="euclidean"
        Linear coordinates in which distances, the noise and the manifold are; see
        SmoothedScoreDiffusion. Under all but "euclidean" and matrices, results do not depend on the
        units of columns, and samples keep constant columns, copies and totals up to rounding. Lengths
        are then in units of the metric, which in "scaled" are the standard deviations of the columns.
    manifold : manifold, transformer or None, default=None
        Replaces the local polynomials: an object of `skdiffsmooth.manifolds`, or any object with a
        method ``project(X)`` that returns rows of shape (n, d). Without a method `tangent` there are
        samples but no log-densities, and `switch_scale` must be a number. An estimator that is not
        fitted is cloned and fitted. `degree`, `n_components` and `n_neighbors` then have no effect. The
        manifold must be in units of X, and `metric` "euclidean".
    n_nodes : int or "auto", default="auto"
        Quadrature nodes along the normal space of each query at ``bandwidth=0``, an even number.
        "auto" is a Gauss-Hermite grid, 12 in one normal direction and 12 x 12 in two, and at
        least 64 Sobol points in more.
    device : str, default="cpu"
        Where sums over the rows are computed, as torch names it. Projections are computed on the
        CPU.
    dtype : {"float64", "float32"}, default="float64"
        Precision of these sums; results are float64 arrays either way.
    memory_limit : float, default=1024
        Largest size of temporary arrays, in MiB.

    Attributes
    ----------
    switch_scale_ : float
        The scale used, in units of the metric.
    bandwidth_ : float
        Standard deviation of the noise that samples keep, in units of the metric.
    metric_ : str, float or ndarray
        The metric used.
    coordinates_ : LinearMetric
        Map from X to the coordinates of the metric, with its ``log_abs_det``.
    fills_space_ : bool
        Whether log-densities are those of all columns. False if ``bandwidth=0`` and the manifold
        has fewer dimensions than X has columns: they are then with respect to the volume of the
        manifold, in units of the metric.
    reach_ : float or None
        Reach of the manifold, or an estimate where it is not known; None if the manifold has no
        tangents.
    residual_scale_ : float or None
        Root mean square distance of the rows from the manifold in each normal direction, in units of
        the metric; None for ``degree=0`` or where the dimension is not known.
    n_nodes_ : int
        Quadrature nodes along the normal space of each query; used if ``bandwidth=0``.
    manifold_ : object
        The manifold that points are projected to, in the coordinates of the metric (rows
        ``coordinates_.to_metric(X)``); None for ``degree=0``.
    n_components_ : int or None
        Dimension k of the manifold; None if `manifold` has no attribute for it.
    points_ : ndarray of shape (n_points, n_features)
        Distinct training rows of positive weight.
    weights_ : ndarray of shape (n_points,)
        Their weights; they sum to one.
    hull_ : AffineHull
        An affine subspace that contains rows and manifold, in the coordinates of the metric. With
        "euclidean" these coordinates are X or, for rows above 2^400 or below 2^-400 in size, X divided
        by a power of two.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : Keeps the density along the manifold; samples are near the manifold.
    ManifoldAdaptedDiffusion : Smoothing along learned tangents.
    skdiffsmooth.manifolds.LocalPolynomialManifold : The manifold that is learned.

    Notes
    -----
    **The distribution.** With p the kernel density estimate of bandwidth s = `switch_scale_`,
    samples are distributed as F(x) = P(x) + (b / s)(x - P(x)), x ~ p, and `score_samples` gives
    their density:

    - b > 0: with respect to Lebesgue measure, ``p(x) / |det dF/dx|`` at the x with F(x) equal to
      the query. It is -inf where no such x exists: on the inner side of a bend, farther from the
      manifold than b / s times the distance up to which projections are unique there.
    - b = 0: with respect to k-dimensional volume, **at the projection of the query**: the integral over
      the normal space of p times the Jacobian of normal coordinates (the tube formula), over
      points that project there. The distance of the query from the manifold has no effect; use
      ``manifold_.distance(X)``, or fit with a bandwidth. Such log-densities compare models on one
      manifold only, and the estimators of `skdiffsmooth.compose` refuse them. +inf marks atoms,
      such as the ends of an open `Curve`, and -inf marks rows that project to points off
      a learned manifold, which has gaps there.

    **Units.** By default distances, the reach and `switch_scale` are in the one unit of all columns, so
    results depend on the units of columns. Pass ``metric="scaled"`` for columns of different kinds.
    Unlike SmoothedScoreDiffusion, the metric is not chosen by likelihood: densities along different
    manifolds cannot be compared.

    **What is reconstructed.** Only the abstract of the paper on the hybrid sampler was used: a reverse
    SDE down to a fixed time and a deterministic flow from there. That the flow is one projection, and
    the distribution above, were derived for this package.

    **Degree 0.** The posterior mean changes along the flow, so here F is defined as one step of the
    exponential Euler method, not as the exact end of the flow. For b > 0 F is one to one, by convexity,
    and is inverted by Newton's method.

    With ``degree=0`` and ``bandwidth=0`` there are no log-densities: samples fill the convex hull of
    the rows, which contains no new row of a curved manifold. There are none either if `manifold` has no
    tangents. `given` and `columns` need a bandwidth > 0.

    A sample costs one projection. A log-density costs 2k + 2 projections and a sum over all rows; at b
    = 0, this is the cost of each node that is not negligible. If the manifold has a known derivative,
    2k projections are saved.

    References
    ----------
    Z. Shen, Y.-P. Hsieh, N. He, Manifold Generalization Provably Proceeds Memorization in
    Diffusion Models, arXiv:2603.23792. X. Li, Z. Shen, Y.-P. Hsieh, N. He, When Scores Learn
    Geometry, arXiv:2509.24912, theorem 3.1. Y. Lyu et al., Resolving memorization in empirical
    diffusion model for manifold data in high-dimensional spaces, arXiv:2505.02508 (``degree=0``).
    """

    @property
    def _measures_by_column(self) -> bool:  # type: ignore[override]
        """Whether rows are compared for near equality in units of each column (not in one unit)."""
        return isinstance(self.metric, numbers.Real | str) and self.metric != "euclidean"

    def __init__(
        self,
        switch_scale: float | str = "auto",
        degree: int = 2,
        *,
        n_components: int | str = "auto",
        bandwidth: float = 0.0,
        n_neighbors: int | str = "auto",
        metric: Any = "euclidean",
        manifold: Any = None,
        n_nodes: int | str = "auto",
        device: str = "cpu",
        dtype: str = "float64",
        memory_limit: float = 1024,
    ) -> None:
        self.switch_scale = switch_scale
        self.degree = degree
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.manifold = manifold
        self.n_nodes = n_nodes
        self.device = device
        self.dtype = dtype
        self.memory_limit = memory_limit

    @reports_fit
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> CoarseScoreDiffusion:
        """Fit the manifold and compute the switch scale.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. Rows that are equal, exactly or up to rounding, are merged.
        y : object, default=None
            Ignored; there for scikit-learn's calling convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Returns
        -------
        self : CoarseScoreDiffusion
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter has the wrong type, or the manifold has no method `project`.
        ValueError
            If X, the weights or a parameter is out of range, the range of a column is below the
            rounding errors of another, or there are too few rows for the manifold; the estimator is
            then left as it was.

        Warns
        -----
        UserWarning
            If a given `switch_scale` exceeds the reach of the manifold, or is so small that samples are
            near-copies of training rows; or if more than one sample in a hundred is not on the
            manifold, since a learned manifold has gaps where rows are far apart.
        """
        rows = self._check_training(X, sample_weight)
        points, weights = rows.points, rows.weights
        metric = check_linear_metric(self.metric, points.shape[1])
        # Squares of rows in extreme units would leave the finite range.
        coordinates = fit_metric_of_rows(metric, rows, common_unit(points, ORDINARY))
        unit = coordinates.unit
        self._check_manifold_unit(coordinates)
        measured = coordinates.to_metric(points)
        self._check_polynomials()
        bandwidth = check_bandwidth(self.bandwidth, "the metric", strict=False) / unit
        n_nodes = resolve_n_nodes(self.n_nodes, "sobol")
        backend = Backend.from_params(self.device, self.dtype)
        memory_limit = check_memory_limit(self.memory_limit)
        hull = _hull_of(measured, coordinates, column_names(X))
        manifold, n_components = self.manifold, None
        # Raises here, and not after the manifold was learned, if memory_limit is too small.
        _ = CoarseFlow(
            measured, weights, hull, None, 1.0, 0.0, None, 0, backend, memory_limit
        ).posterior
        with threads_for(len(measured) ** 2 * (hull.dimension + 2)):
            if manifold is None:
                n_components = self._resolve_n_components(measured, hull)
                if self.degree:
                    manifold = self._local_polynomials(measured, weights, hull, n_components)
            else:
                manifold = _resolve_manifold(manifold, measured, weights)
                hull = hull.joined(getattr(manifold, "affine_hull", None))
                n_components = manifold.dimension if isinstance(manifold, Manifold) else None
            reach, residual_scale = _measure(manifold, measured, weights, hull.dimension)
        variance = float(weights @ np.sum((measured - weights @ measured) ** 2, axis=1))
        data_std = math.sqrt(variance / (n_components or 1))
        switch_scale = self._resolve_switch_scale(reach, data_std, weights, n_components, unit)
        if bandwidth >= switch_scale:
            raise ValueError(
                f"bandwidth={self.bandwidth!r} is not below the switch scale "
                f"{unit * switch_scale:.3g}, where the flow begins; expected a smaller number. Lower "
                "bandwidth or raise switch_scale."
            )
        if not isinstance(self.switch_scale, str):
            k = n_components if manifold is not None else None
            distance = _distance_of_draws(
                switch_scale, bandwidth, residual_scale, k, hull.dimension
            )
            warn_of_copies(f"switch_scale={self.switch_scale!r}", distance, measured, weights)
        if manifold is not None:
            _warn_of_drops(manifold, measured, hull, switch_scale)
        self._set_fitted(
            X,
            points_=points,
            weights_=weights,
            hull_=hull,
            manifold_=manifold,
            n_components_=n_components,
            metric_=metric,
            coordinates_=coordinates,
            reach_=None if reach is None else unit * reach,
            residual_scale_=None if residual_scale is None else unit * residual_scale,
            switch_scale_=unit * switch_scale,
            bandwidth_=unit * bandwidth,
            n_nodes_=n_nodes or default_nodes(max(hull.dimension - (n_components or 0), 1)),
            fills_space_=bandwidth > 0 or n_components == points.shape[1],
        )
        return self

    def _check_polynomials(self) -> None:
        """Raise an error if a parameter of the local polynomials is not valid."""
        if (degree := check_integer("degree", self.degree, minimum=0)) not in DEGREES:
            raise ValueError(f"degree={degree} is out of range; expected 0, 1, 2 or 3.")
        check_count("n_neighbors", self.n_neighbors)

    def _check_manifold_unit(self, coordinates: LinearMetric) -> None:
        """Raise ValueError if a manifold is given, in units of X, and the metric has other units."""
        if self.manifold is None:
            return
        if not coordinates.is_euclidean:
            raise ValueError(
                f"manifold={self.manifold!r} is in units of X, and metric={self.metric!r} has others; "
                "expected metric='euclidean'. Leave metric at its default, or manifold at None."
            )
        if coordinates.unit != 1:
            raise ValueError(
                f"manifold={self.manifold!r} is in units of X, whose squares overflow or underflow; "
                "expected X of ordinary size. Multiply X, manifold and scales by "
                f"1 / {coordinates.unit:.3g}."
            )

    @property
    def _embedding(self) -> Embedding:
        """The hull of rows and manifold in the coordinates of the metric."""
        return Embedding(self.coordinates_, self.hull_)

    def _check_range(self, name: str, rows: np.ndarray) -> None:
        """See `DistanceDensityMixin`."""
        with np.errstate(over="ignore"):
            check_size(name, self.coordinates_.to_metric(rows))

    def _sums_per_row(self) -> float:
        """See `DensityEstimatorMixin`."""
        if "hull_" not in vars(self):
            return 0.0
        return len(self.points_) * self.n_nodes_ * (self.hull_.dimension + 2)

    def _resolve_n_components(self, points: np.ndarray, hull: AffineHull) -> int:
        """Return the dimension of the manifold, or of the hull if it cannot be estimated."""
        try:
            return check_n_components(self.n_components, points, hull.dimension)
        except ValueError as error:
            if self.n_components != "auto":
                raise
            # "auto" fails where rows are too few.
            if hull.dimension > 1:
                warn_user(
                    f"n_components='auto': {error} The rows are taken to fill the {hull.dimension} "
                    "dimensions that they span, and no row is projected. Pass n_components=<integer>."
                )
            return hull.dimension

    def _local_polynomials(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull, n_components: int
    ) -> Manifold:
        """Return a learned manifold, or the hull of the rows if it has the same dimension."""
        if n_components == hull.dimension:
            return AffineSubspace.from_basis(hull.center, hull.basis)
        memory_limit = check_memory_limit(self.memory_limit)
        manifold = LocalPolynomialManifold(n_components, self.degree, self.n_neighbors)
        # Half of the limit, since arrays of this estimator use memory, too.
        manifold.set_params(memory_limit=min(memory_limit / 2, manifold.memory_limit))
        return manifold.fit(points, sample_weight=weights)

    def _resolve_switch_scale(
        self,
        reach: float | None,
        data_std: float,
        weights: np.ndarray,
        n_components: int | None,
        unit: float,
    ) -> float:
        """Return the switch scale, divided by `unit` like `reach` and `data_std`."""
        hint = "Pass a number in units of the metric, or 'auto'."
        if not isinstance(self.switch_scale, str):
            scale = check_real("switch_scale", self.switch_scale, hint=hint) / unit
            if reach is not None and scale > reach:
                warn_user(
                    f"switch_scale={unit * scale:.3g} exceeds the reach of the manifold, "
                    f"{unit * reach:.3g}: noise of this scale moves rows beyond centres of curvature, "
                    "and they project elsewhere. Lower it to "
                    f"{unit * FRACTION_OF_REACH * reach:.3g}, or raise n_neighbors if the rows are "
                    "noisy."
                )
            return scale
        check_choice("switch_scale", self.switch_scale, ("auto",), hint=hint)
        if self.manifold is None and self.degree == 0:
            assert n_components is not None
            concentration = float(np.sum(weights**2))  # 1 / n for n equal weights
            return data_std * concentration ** (1 / (n_components + 4))
        if reach is None:
            raise ValueError(
                f"switch_scale='auto' needs the reach of manifold={self.manifold!r}, which has no "
                "method tangent to estimate it with; expected a number. Pass switch_scale=<positive "
                "number, in units of X>."
            )
        return FRACTION_OF_REACH * min(reach, data_std)

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        embedding, unit = self._embedding, self.coordinates_.unit
        scale, bandwidth = self.switch_scale_ / unit, self.bandwidth_ / unit
        # Noise is drawn in coordinates of the hull, which rotate with the data, and so do samples.
        rows, _ = embedding.split(draw_points(rng, self.points_, self.weights_, n))
        rows += scale * rng.standard_normal(rows.shape)
        feet = self._flow().project(rows)
        rows = feet + bandwidth / scale * (rows - feet)
        if not bandwidth:
            return embedding.rows_within(rows)
        return embedding.rows(rows, np.full((n, 1), bandwidth), rng)

    def _joint_density(self) -> JointDensity:
        """Return the density of all columns, for marginals and conditionals."""
        if self.bandwidth_ == 0:
            raise ValueError(
                "given and columns need a density of all columns, and with bandwidth=0.0 samples are on "
                "a manifold; expected a bandwidth > 0. Fit with CoarseScoreDiffusion(bandwidth=<number "
                "in units of the metric>), or use SmoothedScoreDiffusion."
            )
        n_relations = self.coordinates_.columns.n_relations
        if n_relations:
            raise ValueError(
                f"given and columns need independent columns, and {n_relations} of X follow from others "
                "(constants, copies, totals); expected none. Drop these columns, or use "
                "SmoothedScoreDiffusion."
            )
        rows = self.sample(N_CENTERS, random_state=0)
        return JointDensity.of_draws(self.score_samples, rows)

    def _draw_given(
        self, columns: np.ndarray, values: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        return draw_given_columns(self._joint_density(), columns, values, rng, self.memory_limit)

    def _log_density_of_columns(
        self, X: np.ndarray, scored: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        joint = self._joint_density()
        return log_density_of_columns(joint, X, scored, given, self.memory_limit)[0]

    def _log_density_of_rows(self, X: np.ndarray, passed: Any) -> np.ndarray:
        embedding, unit = self._embedding, self.coordinates_.unit
        coordinates, residual = embedding.split(X)
        if self.manifold_ is None and self.bandwidth_ == 0:
            raise ValueError(
                "bandwidth=0.0 and degree=0: samples fill the convex hull of the rows, outside which "
                "every log-density is -inf; expected a bandwidth > 0. Fit with a small one, or with "
                "degree=2."
            )
        if self.manifold_ is not None and not isinstance(self.manifold_, Manifold):
            raise ValueError(
                f"manifold={self.manifold_!r} has no methods tangent and dimension, which the density "
                "of the projections needs; expected those of skdiffsmooth.manifolds.Manifold. Add these "
                "methods, or use sample only."
            )
        log_density = self._flow().log_density(coordinates)
        if self.bandwidth_ == 0:
            n_dropped = int(np.sum(log_density == -np.inf))
            if n_dropped:
                warn_user(
                    f"{n_dropped} of {len(X)} rows have log-density -inf: they project to points off "
                    "the learned manifold, which has gaps there. Raise n_neighbors, lower degree, or "
                    "fit with a bandwidth and more n_components."
                )
            n_atoms = int(np.sum(log_density == np.inf))
            if n_atoms:
                warn_user(
                    f"{n_atoms} of {len(X)} rows have log-density +inf: their projection is a point "
                    "that has positive probability, such as the end of a curve, or a place where the "
                    "learned manifold has no extent. Raise n_neighbors, lower degree, or fit with a "
                    "bandwidth."
                )
            if not self.fills_space_:
                return log_density - self.n_components_ * math.log(unit)
            return log_density + self.coordinates_.log_abs_det
        return log_density + embedding.log_density_outside_hull(residual, self.bandwidth_ / unit)

    @on_one_fit
    def coarse_score(self, X: Any, t: Any = None) -> np.ndarray:
        """Return the coarse score (P(x) - x) / t.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``switch_scale_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In nats per unit of X. For an orthogonal projection it is the gradient of -distance^2 / (2
            t), with the distance in units of the metric; it is not the gradient of `score_samples`.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X or `t` is not valid.

        Examples
        --------
        >>> from skdiffsmooth import CoarseScoreDiffusion
        >>> from skdiffsmooth.manifolds import Circle
        >>> model = CoarseScoreDiffusion(manifold=Circle([0, 0], 1)).fit([[1, 0], [0, 1], [-1, 0]])
        >>> model.coarse_score([[1.5, 0.0]], t=0.25).round(6) + 0.0
        array([[-2.,  0.]])
        """
        X = self._check_query(X)
        if t is not None:
            t = check_real("t", t, hint="It is in squared units of the metric.")
        embedding, unit = self._embedding, self.coordinates_.unit
        variance = self.switch_scale_ / unit * (self.switch_scale_ / unit)
        if t is not None:
            variance = t / unit / unit
        coordinates, residual = embedding.split(X)
        towards = (self._flow().project(coordinates) - coordinates) / variance
        if unit == 1:
            return embedding.gradient(towards, residual, variance)
        score = towards @ self.hull_.basis.T - residual / variance
        return per_unit("coarse_score", score, unit)

    def _flow(self) -> CoarseFlow:
        """Return the map from noisy rows to samples, with the parameters `device` and `dtype`."""
        unit, residual_scale = self.coordinates_.unit, self.residual_scale_
        return CoarseFlow(
            self.coordinates_.to_metric(self.points_),
            self.weights_,
            self.hull_,
            self.manifold_,
            self.switch_scale_ / unit,
            self.bandwidth_ / unit,
            None if residual_scale is None else residual_scale / unit,
            self.n_nodes_,
            Backend.from_params(self.device, self.dtype),
            check_memory_limit(self.memory_limit),
        )


def _hull_of(
    measured: np.ndarray, coordinates: LinearMetric, names: np.ndarray | None
) -> AffineHull:
    """Return the affine hull of rows (n, d) in a metric; `names` (d,) label columns in messages."""
    if coordinates.is_euclidean:
        hull = hull_in_one_unit(measured, names)
    else:
        hull = coordinates.hull_of(measured, ONE_PROCESS)
    if hull.dimension == 0:
        raise ValueError(
            "X has 1 distinct row, n_samples = 1 after merging equal rows; expected several, to fit "
            "a manifold to them. Pass more rows."
        )
    return hull


def _resolve_manifold(manifold: Any, points: np.ndarray, weights: np.ndarray) -> Any:
    """Check the user's manifold and return it, or a fitted clone if it is an unfitted estimator."""
    if isinstance(manifold, type) or not callable(getattr(manifold, "project", None)):
        raise TypeError(
            f"manifold={manifold!r} has type {type(manifold).__name__}; expected an object with a "
            "method project(X), such as those of skdiffsmooth.manifolds, or None for local "
            "polynomials."
        )
    if hasattr(manifold, "fit"):
        try:
            check_is_fitted(manifold)
        except NotFittedError:
            weighted = (
                {"sample_weight": weights} if has_fit_parameter(manifold, "sample_weight") else {}
            )
            manifold = clone(manifold).fit(points, **weighted)
    n_features = getattr(manifold, "n_features", getattr(manifold, "n_features_in_", None))
    if n_features is not None and n_features != points.shape[1]:
        raise ValueError(
            f"manifold lies in R^{n_features} but X has {points.shape[1]} features; expected the "
            "same number. Fit the manifold to rows with the columns of X."
        )
    return manifold


def _measure(
    manifold: Any, points: np.ndarray, weights: np.ndarray, n_dimensions: int
) -> tuple[float | None, float | None]:
    """Return the reach, and the root mean square distance of rows in each normal direction."""
    if not isinstance(manifold, Manifold):
        return None, None
    subset = slice(None, None, math.ceil(len(points) / MAX_ROWS))
    rows = points[subset]
    codimension = n_dimensions - manifold.dimension
    squares = np.sum((rows - np.asarray(manifold.project(rows))) ** 2, axis=1)
    residual = float(np.average(squares, weights=weights[subset])) / max(codimension, 1)
    reach = manifold.reach
    if reach is None:
        reach = estimate_reach(manifold, rows) if len(rows) >= 3 else math.inf
    return float(reach), math.sqrt(residual)


def _distance_of_draws(
    switch_scale: float,
    bandwidth: float,
    residual_scale: float | None,
    n_components: int | None,
    n_dimensions: int,
) -> float:
    """Return the typical distance of draws from their training rows, in a hull of `n_dimensions`.

    It is an upper bound without a manifold (`n_components` None), where noise is averaged away.
    """
    # Noise moves rows along the manifold; the rest of their distance from it is lost.
    k = n_dimensions if n_components is None else n_components
    across = (n_dimensions - k) * (bandwidth**2 + (residual_scale or 0.0) ** 2)
    return math.sqrt(k * switch_scale**2 + across)


def _warn_of_drops(manifold: Any, points: np.ndarray, hull: AffineHull, scale: float) -> None:
    """Warn if noisy rows are projected to points off the manifold: these move when projected again."""
    rows, _ = hull.split(points)
    rng = np.random.RandomState(0)
    chosen = rows[rng.permutation(np.arange(max(N_DRAWS, len(rows))) % len(rows))[:N_DRAWS]]
    chosen += scale * rng.standard_normal(chosen.shape)
    once = np.asarray(manifold.project(hull.lift(chosen)))
    moved = np.linalg.norm(np.asarray(manifold.project(once)) - once, axis=1)
    n_dropped = int(np.sum(moved > SAME_FOOT * scale))
    if n_dropped > MAX_DROPPED * N_DRAWS:
        warn_user(
            f"{n_dropped} of {N_DRAWS} rows with noise of switch_scale={scale:.3g} project to points "
            "off the learned manifold, which has gaps there; such samples scatter around it. Lower "
            "switch_scale, raise n_neighbors, or lower degree."
        )
