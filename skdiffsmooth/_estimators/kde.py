"""KDESampler: kernel density estimation, exact or to a requested error, and sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._coordinates.columns import typical_row
from .._coordinates.metric import check_linear_metric
from .._coordinates.periodic import check_metric_of_periods, fit_metric_of_rows
from .._diffusion.joint_density import JointDensity
from .._diffusion.posterior import PosteriorMixin
from .._engine.box_sums import LARGEST_DIMENSION
from .._engine.moments import Nodes
from .._engine.periodic import PeriodicPosterior
from .._engine.posterior import Posterior
from .._engine.radial_kernels import RADIAL_KERNELS, sample_offsets
from .._engine.radial_mixture import RadialMixture
from .._utils.backend import Backend
from .._utils.draws import draw_points
from .._utils.estimator import DistanceDensityMixin, on_one_fit
from .._utils.progress import reports_fit
from .._utils.rows import split_off_copies, sum_of_weights
from .._utils.table import column_names
from .._utils.threads import threads_for
from .._utils.units import column_range, per_unit
from .._utils.validation import (
    LARGEST,
    check_bandwidth,
    check_choice,
    check_memory_limit,
    check_real,
    check_real_array,
    check_size,
)
from ..bandwidth import warn_of_copies
from ..scores import SmoothedScore
from .kde_bandwidth import resolve_bandwidth
from .kde_columns import ColumnKernels
from .kde_model import curvatures, kernel_model, origin_of, sort_into_boxes, units_of

# With fewer points, sums over all of them are as fast as those over boxes.
_MANY_POINTS = 20_000
_LARGEST_RTOL = 0.5
# Number of draws of the kernel from which the distance of samples from their rows is estimated.
_RADII = 100


def _check_suits_periods(kernel: Any, metric: Any, periods: np.ndarray) -> None:
    """Raise an error unless kernel and metric can be used with columns of periods (d,)."""
    if kernel != "gaussian":
        raise ValueError(
            f"kernel={kernel!r} cannot be combined with periods, since only the Gaussian kernel is "
            "wrapped; use kernel='gaussian', or drop the periods."
        )
    check_metric_of_periods(metric, periods)


def _check_extent(points: np.ndarray, bandwidth: Any) -> None:
    """Raise an error if squared distances between points (n, d), in bandwidths, would overflow."""
    low, high = column_range(points)
    extent = high - low
    with np.errstate(over="ignore"):
        if np.any(extent / bandwidth > LARGEST):
            raise ValueError(
                f"bandwidth={np.min(bandwidth):.3g} is too small for rows that extend over "
                f"{extent.max():.3g}: squares of distances in bandwidths overflow; expected at "
                f"least {extent.max() / LARGEST:.1g}. Raise it, or drop rows far from all others."
            )


class KDESampler(PosteriorMixin, DistanceDensityMixin, BaseEstimator):
    """Kernel density estimation, exact or to a relative error, and samples from every kernel.

    Choose it as the baseline: it has a closed form and needs no ODE. Set `bandwidth`, the scale of
    the kernel in units of X (by default that of highest leave-one-out likelihood), or `kernel`:

    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> X = np.array([[0.0], [1.0]])
    >>> kde = KDESampler(bandwidth=1.0, kernel="tophat").fit(X)
    >>> np.exp(kde.score_samples([[0.5], [1.5], [2.5]]))
    array([0.5 , 0.25, 0.  ])
    >>> kde.sample(3, random_state=0).shape
    (3, 1)

    A sample is a training row plus an offset whose density is the kernel. If values of some columns are
    given, rows are drawn by their posterior weights:

    >>> kde = KDESampler(0.1).fit([[0.0, 0.0], [1.0, 1.0]])
    >>> kde.sample(3, random_state=0, given={0: 0.0})[:, 1].round(1)
    array([ 0.1,  0.2, -0.1])

    Parameters
    ----------
    bandwidth : float, array-like of shape (n_features,) or {"loo", "scott", "silverman"}, \
            default="loo"
        Scale of the kernel, in units of the metric (of X by default). "loo" is one number for
        all features, that of highest leave-one-out likelihood; "scott" and "silverman" are rules of
        thumb in proportion to the standard deviation of each feature, one number for each.
    kernel : {"gaussian", "tophat", "epanechnikov", "exponential", "linear", "cosine"}, \
            default="gaussian"
        Kernel profile, defined as in scikit-learn's KernelDensity. All but gaussian and exponential are
        zero beyond one bandwidth, where log-densities are -inf.
    metric : {"euclidean", "scaled", "whitened", "local"}, float or array-like of shape \
            (n_features, n_features), default="euclidean"
        Linear coordinates in which the kernel has one bandwidth; see SmoothedScoreDiffusion. Under all
        but "euclidean" and matrices, results do not depend on the units of columns, and samples keep
        constant columns, copies and totals up to rounding. (A column that is zero in all rows has no
        scale of its own: the density of rows that are not zero there, nearly zero itself, depends on
        the unit of X.)
    periods : mapping from column to float, or None, default=None
        Columns that are periodic, by label or index, with their periods in units of the column:
        ``{"hour": 24, "wind_direction": 360}``. The kernel wraps there, densities integrate to one over
        one period, and draws are from 0 to the period. With ``kernel="gaussian"`` only.
    device : str, default="cpu"
        Where to compute, as torch names it ("cuda", "cuda:1"); Apple's "mps" is refused.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation; results are float64 arrays either way.
    memory_limit : float, default=1024
        Largest size of temporary arrays, in MiB.
    rtol : float, default=1e-12
        Largest relative error of a density, at most 0.5, in `score_samples`, `energy` and
        `leave_one_out_log_density`, beside rounding. It has an effect from 20 000 distinct rows on, in
        one to three dimensions, in float64 on a CPU, at the fitted bandwidth; otherwise sums are exact.
        The default is as exact as rounding allows; 1e-6 and 1e-3 are faster. 0 always sums over all
        rows.
    verbose : int, default=0
        1 reports the progress of calls, and the time that is left; see SmoothedScoreDiffusion.

    Attributes
    ----------
    bandwidth_ : float or ndarray of shape (n_features,)
        The bandwidth used, in units of the metric.
    metric_ : str, float or ndarray
        The metric used.
    coordinates_ : LinearMetric
        Map from X to the coordinates of the metric, with its ``log_abs_det``.
    kernel_ : str
        The kernel used.
    periods_ : ndarray of shape (n_features,) or None
        Period of each column in units of X, 0 where it has none; None where no column has one.
    rounding_ : ndarray of shape (n_features,)
        Width of the interval of values that each column records as one value, in units of X: the unit
        of rounded columns and counts, half the difference of the values of a binary column, 0 for a
        continuous one. "loo" scores left-out rows at random places within these intervals.
    points_ : ndarray of shape (n_points, n_features)
        Distinct training rows of positive weight.
    weights_ : ndarray of shape (n_points,)
        Their weights; they sum to one.
    weight_sum_ : float
        Sum of the weights of all training rows; their number where no weights were passed.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : Smoothing of the score; equals this estimator at ``sigma=0``.
    sklearn.neighbors.KernelDensity : Sums over trees, which are wrong at small bandwidths.

    Notes
    -----
    Every query is compared with every point, by log-sum-exp: ``n_queries * n_points * n_features``
    operations, accurate at any bandwidth. From 20 000 points on, in one to three dimensions, `fit`
    sorts them into boxes, and a query sums over the boxes with non-negligible kernels; for Gaussian
    kernels the points of small cubes are replaced by weights on a grid. Both errors have proved bounds,
    which add up to `rtol`. "loo" takes three to six times ``n_points**2 * n_features``. Equal rows are
    left out together, so that rounded data do not lead to a bandwidth of zero.

    Marginals and conditionals of the Gaussian kernel have a closed form, also far from all rows; those
    of the other kernels are computed by quadrature, to about 1e-6 nats. All need
    ``metric="euclidean"``.

    After `fit` only `device`, `dtype`, `memory_limit` and `verbose` have an effect.

    References
    ----------
    B. W. Silverman, Density Estimation for Statistics and Data Analysis, 1986.
    """

    def __init__(
        self,
        bandwidth: Any = "loo",
        kernel: str = "gaussian",
        *,
        metric: Any = "euclidean",
        periods: Mapping[Any, float] | None = None,
        device: str = "cpu",
        dtype: str = "float64",
        memory_limit: float = 1024,
        rtol: float = 1e-12,
        verbose: int = 0,
    ) -> None:
        self.bandwidth = bandwidth
        self.kernel = kernel
        self.metric = metric
        self.periods = periods
        self.device = device
        self.dtype = dtype
        self.memory_limit = memory_limit
        self.rtol = rtol
        self.verbose = verbose

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to save: boxes are replaced by their tolerance and made again on load."""
        state = super().__getstate__()
        if state.get("_boxes_") is not None:
            state["_boxes_"] = state["_boxes_"].rtol
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        rtol = state.get("_boxes_")
        if rtol is not None:
            points = self.coordinates_.to_metric(self.points_) - self._origin_
            self._boxes_ = sort_into_boxes(
                points, self.weights_, self.kernel_, self.bandwidth_, rtol
            )

    @reports_fit
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KDESampler:
        """Store the distinct rows and compute the bandwidth.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. Rows that are equal, exactly or up to rounding, are merged.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If X, the weights or a parameter is out of range, or several bandwidths are combined with a
            metric other than "euclidean"; the estimator is then left as it was.

        Warns
        -----
        UserWarning
            If rows were merged that are not exactly equal; if columns are rounded, discrete or have one
            value far more frequent than all others, or seem to be in degrees but have the period of
            radians, or the reverse: the message names them. Also if scales that were passed are so
            narrow that most draws are near-copies of rows.
        """
        rows = self._check_training(X, sample_weight)
        points, weights, periods = rows.points, rows.weights, rows.periods
        kernel = check_choice("kernel", self.kernel, RADIAL_KERNELS)
        backend = Backend.from_params(self.device, self.dtype)
        metric = check_linear_metric(self.metric, points.shape[1])
        if periods is not None:
            _check_suits_periods(kernel, metric, periods)
        coordinates = fit_metric_of_rows(metric, rows)
        measured = coordinates.to_metric(points)
        n_points, d = measured.shape
        with threads_for(n_points**2 * (d + 2)):
            bandwidth = resolve_bandwidth(
                self.bandwidth,
                rows,
                coordinates,
                kernel,
                backend,
                self._memory_limit(),
                column_names(X),
            )
        if not coordinates.is_euclidean and not isinstance(self.bandwidth, str):
            bandwidth = check_bandwidth(self.bandwidth, "the metric")
        hint = "It is a relative error, such as 1e-6."
        rtol = check_real("rtol", self.rtol, strict=False, maximum=_LARGEST_RTOL, hint=hint)
        _check_extent(measured, bandwidth)
        periods_of_metric, memory_limit = coordinates.periods, self._memory_limit()
        origin = origin_of(measured, periods_of_metric)
        measured = measured - origin
        # Raises here, and not at the first query, if memory_limit is too small.
        kernel_model(backend, measured, weights, kernel, bandwidth, periods_of_metric, memory_limit)
        if not isinstance(self.bandwidth, str):
            radii = RADIAL_KERNELS[kernel].sample_radius(np.random.RandomState(0), _RADII, d)
            warn_of_copies(
                f"bandwidth={self.bandwidth!r}",
                float(np.median(radii)),
                measured / bandwidth,
                weights,
                None if periods_of_metric is None else periods_of_metric / bandwidth,
            )
        boxes = None
        is_large = measured.shape[1] <= LARGEST_DIMENSION and len(measured) >= _MANY_POINTS
        if rtol > 0 and is_large and periods is None:
            boxes = sort_into_boxes(measured, weights, kernel, bandwidth, rtol)
        self._set_fitted(
            X,
            points_=points,
            weights_=weights,
            weight_sum_=sum_of_weights(sample_weight, _num_samples(X)),
            kernel_=kernel,
            bandwidth_=bandwidth,
            periods_=periods,
            rounding_=rows.precision.width,
            metric_=metric,
            coordinates_=coordinates,
            _origin_=origin,
            _boxes_=boxes,
        )
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KDESampler:
        """Add rows to a fitted estimate and keep its bandwidth.

        The result is that of `fit` on all rows with ``bandwidth_`` and ``metric_`` as parameters. The
        best bandwidth falls slowly as rows are added: call `fit` on all rows when their number has
        doubled. If the estimator is not fitted, this calls `fit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to add.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, in the units of those passed to `fit`; rows fitted without weights
            have weight 1.

        Raises
        ------
        TypeError, ValueError
            As `fit`; also if X has other columns than the estimate.
        """
        if not hasattr(self, "points_"):
            return self.fit(X, sample_weight=sample_weight)
        self._fit_with_more_rows(X, sample_weight, bandwidth=self.bandwidth_, metric=self.metric_)
        return self

    @on_one_fit
    def leave_one_out_log_density(self, own_weights: Any = None) -> np.ndarray:
        """Return the log-density of each training point under the estimate from all other points.

        The bandwidth is `bandwidth_`; ``bandwidth="loo"`` maximises the weighted mean of these values.
        The call takes as long as scoring the points once.

        Parameters
        ----------
        own_weights : array-like of shape (n_points,), default=None
            The part of each point's weight that is removed when the point is left out, in the units of
            ``weights_``, for example ``weights_ / n_copies`` for one of n_copies equal rows. None
            removes all of the weight.

        Returns
        -------
        ndarray of shape (n_points,)
            In nats, in the order of ``points_``; the dot product with ``weights_`` is the
            leave-one-out log-likelihood. -inf where no other point is within a compact kernel.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If there is a single distinct row, or `own_weights` is out of range.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import KDESampler
        >>> X = np.random.RandomState(0).normal(size=(50, 2))
        >>> for bandwidth in (0.1, 0.4, 1.6):
        ...     print(KDESampler(bandwidth).fit(X).leave_one_out_log_density().mean().round(2))
        -9.33
        -3.1
        -3.41
        """
        check_is_fitted(self)
        own = self._check_others(own_weights)
        weighted = self.points_, self.weights_
        if own is not None:
            weighted = split_off_copies(*weighted, own)
        return self._log_density(self.points_, self.bandwidth_, exclude_from=weighted)

    def _log_density(
        self,
        X: np.ndarray,
        bandwidth: Any,
        *,
        exclude_from: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return the log-density of rows (n, d).

        `exclude_from` are the points and their weights; row i then excludes point i.
        """
        points, weights = exclude_from or (self.points_, self.weights_)
        metric, kernel, limit = self.coordinates_, self.kernel_, self._memory_limit()
        outside = metric.columns.outside(metric.columns.scaled(X))
        backend, units = self._backend(points, bandwidth), units_of(kernel, bandwidth)
        queries = backend.tensor((metric.to_metric(X) - self._origin_) / units)
        exclude = None
        if exclude_from is not None:
            exclude = torch.arange(len(X), device=queries.device)
        boxes = self._boxes_ if bandwidth is self.bandwidth_ and backend.is_exact_on_host else None
        if boxes is None or exclude_from is not None:
            points = metric.to_metric(points) - self._origin_
        if boxes is not None and len(points) != len(self.points_):
            boxes = sort_into_boxes(points, weights, kernel, bandwidth, boxes.rtol)
        if boxes is not None:
            log_density = boxes.log_density(queries, limit, exclude=exclude)
        else:
            model = kernel_model(backend, points, weights, kernel, bandwidth, metric.periods, limit)
            if isinstance(model, RadialMixture):
                log_density = model.log_density(queries, exclude=exclude)
            else:
                log_density = model.log_density(queries, 1.0, exclude=exclude)
        volume = np.sum(np.log(np.broadcast_to(units, queries.shape[1]))) - metric.log_abs_det
        return backend.array(log_density) - volume + metric.columns.relation_log_density(outside)

    def _log_density_of_rows(self, X: np.ndarray, passed: Any) -> np.ndarray:
        return self._log_density(X, self.bandwidth_)

    def _log_density_of_columns(
        self, X: np.ndarray, scored: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        return self._by_columns("given or columns").log_density(X, scored, given)

    def _by_columns(self, what: str) -> ColumnKernels:
        """Return the `ColumnKernels`; an error names `what`, the parameters of the query."""
        self._check_euclidean(what)
        return ColumnKernels(
            self.points_,
            self.weights_,
            self.kernel_,
            np.broadcast_to(self.bandwidth_, self.points_.shape[1]),
            self.periods_,
            self._memory_limit(),
        )

    def _memory_limit(self) -> float:
        return check_memory_limit(self.memory_limit)

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        metric = self.coordinates_
        centers = metric.to_metric(draw_points(rng, self.points_, self.weights_, n))
        offsets = sample_offsets(RADIAL_KERNELS[self.kernel_], rng, n, centers.shape[1])
        scaled = metric.scaled_from_metric(centers + self.bandwidth_ * offsets)
        if metric.columns.n_relations:
            scaled = scaled + metric.columns.relation_noise(scaled.shape, rng)
        return metric.columns.unscaled(scaled)

    def _prior(self, what: str) -> tuple[JointDensity, float]:
        """See `PosteriorMixin`; a Gaussian KDE in the Euclidean metric has its kernels as proposals."""
        is_gaussian = self.kernel_ == "gaussian" and self.periods_ is None
        if not (is_gaussian and self.coordinates_.is_euclidean):
            return super()._prior(what)
        d = self.points_.shape[1]
        bandwidth, origin = np.broadcast_to(self.bandwidth_, d), typical_row(self.points_)
        log_volume = float(np.log(bandwidth).sum())

        def log_density(rows: np.ndarray) -> np.ndarray:
            return self._log_density(rows, self.bandwidth_)

        joint = JointDensity(
            log_density,
            lambda z: log_density(origin + z * bandwidth),
            origin,
            np.diag(bandwidth),
            log_volume,
            (self.points_ - origin) / bandwidth,
            self.weights_,
            np.ones((3, d)),
        )
        return joint, self._memory_limit()

    def _draw_given(
        self, columns: np.ndarray, values: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        return self._by_columns("given").draw(columns, values, rng)

    @on_one_fit
    def grad_log_density(self, X: Any, t: Any = None) -> np.ndarray:
        """Return the gradient of the log-density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float or array-like of shape (n_features,), default=None
            Noise variance, in squared units of X: the gradient is that of the training rows plus
            Gaussian noise of this variance. None means ``bandwidth_ ** 2``; any other variance requires
            the Gaussian kernel.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In nats per unit of X.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X or `t` is not valid, or if the density is zero at a row (compact kernels).
        """
        X = self._check_query(X)
        bandwidth = self._noise_scale(t)
        metric, columns = self.coordinates_, self.coordinates_.columns
        model, queries, backend = self._model_and_queries(X, bandwidth)
        if not isinstance(model, RadialMixture):
            gradient = backend.array(SmoothedScore(model, Nodes.single(queries))(queries, 1.0))
        else:
            gradient = backend.array(model.gradient(queries))
            undefined = np.flatnonzero(np.isnan(gradient).any(axis=1))
            if len(undefined):
                raise ValueError(
                    f"{len(undefined)} rows of X (first: row {undefined[0]}) have density zero under "
                    f"the compact kernel={self.kernel_!r}, so their log-density has no gradient. Use "
                    "kernel='gaussian', a larger bandwidth, or drop those rows."
                )
        along = columns.relation_gradient(columns.outside(columns.scaled(X))) / columns.scales
        return metric.gradient_from_metric(gradient / units_of(self.kernel_, bandwidth)) + along

    @on_one_fit
    def laplacian_log_density(self, X: Any, t: Any = None) -> np.ndarray:
        """Return the Laplacian of the log-density, the divergence of `grad_log_density`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float or array-like of shape (n_features,), default=None
            Noise variance, as in `grad_log_density`.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats per squared unit of X, summed over the columns.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X or `t` is not valid, or if the kernel is not Gaussian: other kernels have kinks or
            edges, where there is no Laplacian.

        Examples
        --------
        >>> from skdiffsmooth import KDESampler
        >>> KDESampler(0.5).fit([[0.0, 0.0]]).laplacian_log_density([[3.0, 4.0]])
        array([-8.])
        """
        X = self._check_query(X)
        self._check_gaussian("laplacian_log_density")
        self._check_euclidean("laplacian_log_density")
        scale = self._noise_scale(t)
        model, queries, backend = self._model_and_queries(X, scale)
        assert not isinstance(model, RadialMixture)
        trace = model.moments(queries, 1.0, Nodes.single(queries), trace=True).trace
        assert trace is not None
        laplacian = backend.array(trace) - np.broadcast_to(curvatures(scale), X.shape[1]).sum()
        return per_unit("laplacian_log_density", laplacian, np.min(scale), np.min(scale))

    @on_one_fit
    def energy(self, X: Any, t: Any = None) -> np.ndarray:
        """Return minus the log-density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float or array-like of shape (n_features,), default=None
            Noise variance, as in `grad_log_density`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Energies in nats; inf where the density is zero (compact kernels).

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X or `t` is not valid.
        """
        X = self._check_query(X)
        return -self._log_density(X, self._noise_scale(t))

    _can_reweight = True

    def _reweighted(self, weights: np.ndarray) -> KDESampler:
        """Return the same estimate with other weights (n_points,) of its points."""
        kept, estimator = weights > 0, self._snapshot()
        state = {"points_": self.points_[kept], "weights_": weights[kept] / weights[kept].sum()}
        # Sorting the points again would take longer than a few queries do.
        estimator.__dict__ = {**vars(self), **state, "_boxes_": None}
        return estimator

    def _check_euclidean(self, what: str) -> None:
        """Raise an error, which names `what`, if the metric is not "euclidean"."""
        if not self.coordinates_.is_euclidean:
            raise ValueError(
                f"{what} needs metric='euclidean'; got metric={self.metric_!r}. Fit a KDESampler with "
                "metric='euclidean' and one bandwidth for each feature, or use SmoothedScoreDiffusion."
            )

    def _check_gaussian(self, what: str) -> None:
        """Raise an error, which names `what`, if the kernel is not Gaussian."""
        if self.kernel_ != "gaussian":
            raise ValueError(
                f"{what} needs kernel='gaussian', the one whose derivatives and conditionals have a "
                f"closed form; got kernel={self.kernel_!r}. Fit a KDESampler with kernel='gaussian'."
            )

    def _noise_scale(self, t: Any) -> Any:
        """Return the noise scale sqrt(t) after checking `t`; `bandwidth_` if `t` is None."""
        if t is None:
            return self.bandwidth_
        self._check_gaussian("t")
        if not isinstance(t, Sequence) and np.ndim(t) == 0:
            return float(np.sqrt(check_real("t", t, hint="It is in squared units of X.")))
        variances = check_real_array("t", t, allow_bool=False)
        self._check_euclidean("t with a number for each feature")
        d = self.points_.shape[1]
        if variances.shape != (d,) or not np.all(np.isfinite(variances) & (variances > 0)):
            raise ValueError(
                f"t={t!r} is not a noise variance; expected a finite number > 0, or {d} of them, "
                "one for each feature. It is in squared units of X."
            )
        return np.sqrt(variances)

    def _backend(self, points: np.ndarray, bandwidth: Any) -> Backend:
        """Return the device and the dtype, float64 where the points are too far apart for float32."""
        backend = Backend.from_params(self.device, self.dtype)
        if backend.dtype == torch.float64:
            return backend
        measured = self.coordinates_.to_metric(points)
        distances = np.abs(measured - typical_row(measured)) / bandwidth
        return backend.promote_to_float64(1.0, float(distances.max(initial=1.0)))

    def _model_and_queries(
        self, X: np.ndarray, bandwidth: Any
    ) -> tuple[Posterior | PeriodicPosterior | RadialMixture, torch.Tensor, Backend]:
        """Return the density of the points, rows X (n, d) in its coordinates, and the backend."""
        metric, kernel, limit = self.coordinates_, self.kernel_, self._memory_limit()
        points = metric.to_metric(self.points_) - self._origin_
        backend = self._backend(self.points_, bandwidth)
        model = kernel_model(
            backend, points, self.weights_, kernel, bandwidth, metric.periods, limit
        )
        queries = (metric.to_metric(X) - self._origin_) / units_of(kernel, bandwidth)
        return model, backend.tensor(queries), backend

    def _check_range(self, name: str, rows: np.ndarray) -> None:
        """See `DistanceDensityMixin`."""
        metric = self.coordinates_
        with np.errstate(over="ignore"):
            distances = metric.to_metric(rows) - metric.to_metric(self.points_[:1])
            check_size(name, distances / self.bandwidth_, " bandwidths")

    def _sums_per_row(self) -> float:
        """See `DensityEstimatorMixin`."""
        n_points, d = getattr(self, "points_", np.empty((0, 0))).shape
        return n_points * (d + 2)
