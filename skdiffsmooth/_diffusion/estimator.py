"""The scikit-learn interface of the diffusions: parameters are parsed, queries go to the model."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._utils.estimator import on_one_fit
from .._utils.progress import counted, reports_fit
from .._utils.rows import sum_of_weights
from .._utils.shards import Shards, resolve_shards
from .._utils.threads import threads_for
from .._utils.units import per_unit
from .accuracy import make_accurate_model
from .comparison import settings_for
from .fitted_attribute import FromModel
from .geometry import check_above_rounding, check_no_copies, scales_in
from .joint_density import JointDensity
from .queries import FlowDensity
from .settings import (
    KernelChoice,
    ParsedParameters,
    Resources,
    check_suits_periods,
    parse_parameters,
    parse_resources,
)
from .sharded import check_same_parameters, check_suits_shards
from .source import NoisedData
from .training_data import TrainingData

# Assumed number of nodes of the models that `fit` compares; only the number of threads depends on it.
_NODES_OF_CANDIDATES = 64
# Approximate share of the time of a fit that the choice of settings takes, for reports of progress.
_SHARE_OF_CHOICE = 0.8


class BaseScoreDiffusion(FlowDensity):
    """A diffusion over the training rows, whose score is smoothed by a kernel.

    A subclass stores its parameters; its `_kernel_choice` returns the kernel that they define.
    """

    # Set by the constructors of the subclasses.
    bandwidth: Any
    sigma: Any
    solver: Any
    n_jobs: Any
    shards: Any
    random_state: Any

    # Set by fit.
    sigma_: Any

    @abstractmethod
    def _kernel_choice(self) -> KernelChoice:
        """Return the choice of the directions of smoothing, after checking its parameters."""

    # ------------------------------------------------------------------------------------ fitting

    @reports_fit
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Store the training rows and choose the scales that are not given, without training.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. Rows that are equal, exactly or up to rounding, are merged. Columns should
            have comparable units where the metric is Euclidean.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If X, the weights or a parameter is out of range; the estimator is then left as it was.

        Warns
        -----
        UserWarning
            If rows were merged that are not exactly equal, columns are rounded, discrete or have one
            very frequent value, or look like degrees with the period of radians, or the reverse: the
            message names them.
            Also if scales that were passed are so narrow that most draws are near-copies of rows.

        Notes
        -----
        `fit` computes one singular value decomposition and, for "loo" scales, some twenty leave-one-out
        sums for 256 rows over all others, and three to six for all rows (with more than 20 000 rows: for
        4000 held-out rows over the others, merged). Unless both scales are numbers, up to seven
        candidates are scored at 256 of at most 2000 rows.
        """
        shards = resolve_shards(self.shards)
        if not shards.alone:
            shards.together(check_suits_shards, self.get_params(deep=False))
        rows = shards.together(self._check_training, X, sample_weight)
        points = rows.points
        weights = shards.normalize(rows.weights, X, sample_weight)
        parsed = shards.together(self._parsed, points.shape[1])
        self._check_same(
            shards, "parameters, or numbers of features,", points.shape[1], parsed.rule.seed
        )
        data = TrainingData(
            points,
            weights,
            shards,
            len(np.asarray(X)),
            sample_weight is not None,
            rows.precision.unit if shards.alone else None,
            rows.precision.width if shards.alone else None,
            periods=rows.periods,
            whole=rows.whole if shards.alone else None,
        )
        if rows.periods is not None:
            check_suits_periods(parsed, rows.periods)
        n_points, d = points.shape
        rank = min(d, n_points - 1)  # at most, of the rows' hull
        with threads_for(n_points**2 * _NODES_OF_CANDIDATES * (rank + 2)), counted(1.0) as done:
            done.size = _SHARE_OF_CHOICE
            settings, geometry, not_compared = settings_for(data, parsed)
            done()
            done.size = 1 - _SHARE_OF_CHOICE
            bandwidth, sigma = scales_in(geometry, parsed, settings.scales)
            check_above_rounding(geometry, bandwidth)
            check_no_copies(geometry, parsed, bandwidth, sigma)
            model, attributes = make_accurate_model(
                geometry, parsed, bandwidth, sigma, settings.background
            )
        self._set_fitted(
            X,
            model_=model,
            metric_=settings.metric,
            settings_=settings.parameters(parsed),
            not_compared_=not_compared,
            weight_sum_=sum_of_weights(sample_weight, _num_samples(X)),
            periods_=rows.periods,
            rounding_=np.zeros(points.shape[1]) if data.widths is None else data.widths,
            **attributes,
        )
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Add rows to a fitted model and keep its scales.

        The result is that of `fit` on all rows with ``bandwidth_``, ``sigma_``, ``metric_`` and
        ``background_`` as parameters: nothing is chosen again or trained, so this takes little time.
        The best bandwidth decreases slowly as rows are added: call `fit` on all rows when their number
        has doubled. If the estimator is not fitted, `fit` is called.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to add.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, in the units of those of `fit`; each row has weight 1 by default.

        Raises
        ------
        TypeError, ValueError
            As `fit`; also if X has other columns than the model, or with `shards`.

        Notes
        -----
        A metric that has a name, learned tangents and a `base` are computed from all rows again.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> X = np.random.RandomState(0).normal(size=(100, 2))
        >>> model = SmoothedScoreDiffusion().fit(X[:60])
        >>> bandwidth = model.bandwidth_
        >>> model = model.partial_fit(X[60:])
        >>> len(model.points_), model.bandwidth_ == bandwidth
        (100, True)
        """
        if "model_" not in vars(self):
            return self.fit(X, sample_weight=sample_weight)
        if self.shards is not None:
            raise ValueError(
                f"partial_fit cannot be combined with shards={self.shards!r}; pass bandwidth_, sigma_, "
                "metric_ and background_ of this model as parameters, and fit all rows."
            )
        self._fit_with_more_rows(
            X,
            sample_weight,
            bandwidth=self.bandwidth_,
            sigma=self.sigma if callable(self.sigma) else self.sigma_,
            metric=self.metric_,
            background=self.background_,
        )
        return self

    def _parsed(self, n_features: int) -> ParsedParameters:
        """Return all parameters after checking them."""
        return parse_parameters(self.get_params(deep=False), self._kernel_choice(), n_features)

    def _check_same(self, shards: Shards, name: str, *values: Any) -> None:
        """Raise an error on all processes unless values and parameters are the same on each."""
        check_same_parameters(shards, self.get_params(deep=False), name, *values)

    # ---------------------------------------------------------------------------- fitted attributes

    bandwidth_ = FromModel(lambda model: model.unit * model.bandwidth)
    background_ = FromModel(lambda model: model.background)
    tail_bound_ = FromModel(lambda model: model.tail_bound)
    coordinates_ = FromModel(lambda model: model.embedding.metric)
    warp_ = FromModel(lambda model: model.embedding.metric.columns.warp)
    hull_ = FromModel(lambda model: model.embedding.hull)
    base_ = FromModel(lambda model: model.data.base)
    points_ = FromModel(lambda model: model.data.points)
    weights_ = FromModel(lambda model: model.data.hierarchy.weights)
    kernel_ = FromModel(lambda model: model.data.smoothing)
    n_nodes_ = FromModel(lambda model: model.data.smoothing.n_nodes)
    terminal_ = FromModel(lambda model: model.data.terminal_name)
    noise_levels_ = FromModel(lambda model: model.levels.times(model.unit))
    n_steps_ = FromModel(lambda model: model.n_steps)
    hierarchy_ = FromModel(lambda model: model.data.hierarchy)
    solver_ = FromModel(lambda model: model.solver)

    # ------------------------------------------------------------------------------------ queries

    @on_one_fit
    def leave_one_out_log_density(self, own_weights: Any = None) -> np.ndarray:
        """Return the log-density of each training point under the model fitted to all other points.

        It is exact for the fitted scales, without a refit, and takes as long as scoring the points once.
        What was learned from all rows, the point included, is kept: tangents of ``manifold="local"``
        raise its log-density by some hundredths of a nat, a covariance "data" or principal components by
        less, and a `metric` other than "euclidean" by more if there are few rows for each column. Equal
        rows are one point, so all copies are left out together, unless `own_weights` is passed. Points
        are not merged, whatever `tol`.

        Parameters
        ----------
        own_weights : array-like of shape (n_points,), default=None
            What is subtracted from the weight of each point when it is left out, in the units of
            ``weights_``, for example ``weights_ / n_copies`` for one of n_copies equal rows. None
            subtracts all of it.

        Returns
        -------
        ndarray of shape (n_points,)
            In nats, in the order of ``points_``. The mean weighted by ``weights_`` is the leave-one-out
            log-likelihood per row.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If there is a single distinct row, with `shards` or a `base`, if `own_weights` is out of
            range, or where `score_samples` raises.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> X = np.random.RandomState(0).normal(size=(50, 2))
        >>> model = SmoothedScoreDiffusion(0.3, 0.4).fit(X)
        >>> bool(model.leave_one_out_log_density().mean() < model.score(X))
        True
        """
        check_is_fitted(self)
        resources = self._resources()
        self._refuse_shards(
            "leave_one_out_log_density cannot leave out rows",
            "score held-out rows with score_samples",
        )
        if self.model_.data.base is not None:
            raise ValueError(
                "leave_one_out_log_density is not defined for a base, because the components of "
                "the base were fitted to all rows, including the one that should be left out. "
                "Score held-out rows with score_samples."
            )
        return self.model_.leave_one_out_log_density(resources, self._check_others(own_weights))

    @on_one_fit
    def trajectories(
        self, X: Any = None, n_samples: int | None = None, random_state: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of rows, or of draws, at each noise scale of the flow.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features), default=None
            Rows that the flow moves up to the terminal scale, as `score_samples` does.
        n_samples : int, default=None
            Number of draws of the terminal distribution that the solver moves down to the bandwidth, as
            `sample` does. Pass either `X` or `n_samples`.
        random_state : int, RandomState or None, default=None
            Source of the draws, as in `sample`.

        Returns
        -------
        noise_scales : ndarray of shape (n_steps + 1,)
            In units of the metric: increasing for `X`, decreasing for draws.
        rows : ndarray of shape (n_steps + 1, n_rows, n_features)
            In units of X, within the affine hull of the training rows. The last positions of draws are
            those of `sample` with the same seed, if the background is zero and the hull is all of R^d.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If both or none of `X` and `n_samples` are passed, if one of them is not valid, if `X` is
            passed and the solver is stochastic, or with `shards`.

        Notes
        -----
        Where steps of one evaluation are too long, `sample` follows draws again by another solver and
        `trajectories` does not: these draws differ by some hundredths of a bandwidth or more. The call
        takes as long as `sample` of as many rows, and ``8 * n_steps * n_rows * n_features`` bytes of
        memory. With ``solver="adaptive"`` no positions within the steps that it divides are returned.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> X = np.random.RandomState(0).normal(size=(50, 2))
        >>> model = SmoothedScoreDiffusion(0.3, 0.4).fit(X)
        >>> noise_scales, rows = model.trajectories(n_samples=5, random_state=0)
        >>> rows.shape, bool(np.allclose(rows[-1], model.sample(5, random_state=0)))
        ((33, 5, 2), True)
        """
        check_is_fitted(self)
        if (X is None) == (n_samples is None):
            raise ValueError(
                "trajectories needs either rows X, to move to the terminal scale, or n_samples, to draw;"
                f" got {'neither' if X is None else 'both'}."
            )
        self._refuse_shards("trajectories cannot be computed")
        if X is None:
            n, rng = self._check_draw(n_samples, random_state)
            return self.model_.trajectories(None, n, rng, self._resources())
        if self.model_.solver.is_stochastic:
            raise ValueError(
                f"solver={self.model_.solver!r} is stochastic and cannot follow rows X up; pass "
                "n_samples, or fit with solver='heun'."
            )
        X = self._check_query(X)
        return self.model_.trajectories(X, len(X), np.random.RandomState(0), self._resources())

    @on_one_fit
    def energy(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return minus the averaged log-density at noise variance t.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Energies in nats. exp(-energy) is not normalised unless sigma = 0.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, or the smoothing differs between
            queries (learned tangents, known curved manifolds): the field is then not a gradient.
        """
        X = self._check_query(X)
        return self.model_.energy_at(X, self._noise_scale(t), self._resources())

    @on_one_fit
    def effective_sample_size(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the effective number of training rows in the smoothed score at each query.

        It is one over the sum, over rows i, of (sum_m q_m W_i(x + xi_m))^2: W_i is the posterior weight
        of row i, xi_m are the nodes and q_m their weights. It is one where the score points to a single
        row, and the number of rows at large noise. Smoothing increases it; `score_variance` estimates
        by how much the variance of the score decreases.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Between one and the number of distinct rows.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, or the model has a `base` or `shards`.

        See Also
        --------
        skdiffsmooth.diagnostics.bulk_ess : That of Markov chains, which is defined differently.

        Notes
        -----
        Computes ``n_samples * n_nodes * n_points`` exponentials, in tiles within `memory_limit`. Points
        are not merged, whatever `tol`; equal rows are one row of larger weight.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> X = np.random.RandomState(0).normal(size=(100, 2))
        >>> for sigma in (0.0, 0.5):
        ...     model = SmoothedScoreDiffusion(0.1, sigma).fit(X)
        ...     print(model.effective_sample_size([[0.0, 0.0]]).round(1))
        [1.2]
        [29.4]
        """
        return self._influence(X, t)[0]

    @on_one_fit
    def score_variance(self, X: Any, t: float | None = None) -> np.ndarray:
        """Estimate the variance of `grad_log_density` over data sets with as many rows.

        The estimate uses the training rows and is of first order (the delta method): it is the sum
        of u_i^2 / t^2, where u_i is the derivative of the posterior mean, averaged over the nodes,
        in the logarithm of the weight of row i. Bandwidth, sigma, metric and learned tangents are
        held fixed. It is too small where single nodes depend on a handful of rows only
        (docs/evidence/kernels.md has figures).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Variance of each component, in squared nats per squared unit of X. Zero in directions in
            which the data have no extent.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, or the model has a `base` or `shards`.

        Notes
        -----
        Computes what `effective_sample_size` does, and ``n_samples * n_nodes * n_points`` multiply-adds
        for each dimension of the data's affine hull.

        References
        ----------
        B. Efron, Nonparametric standard errors and confidence intervals, Canadian Journal of Statistics
        9(2), 1981: the infinitesimal jackknife.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> X = np.random.RandomState(0).normal(size=(100, 2))
        >>> for sigma in (0.0, 0.5):
        ...     model = SmoothedScoreDiffusion(0.1, sigma).fit(X)
        ...     print(model.score_variance([[0.0, 0.0]]).round(2))
        [[ 3.5  16.15]]
        [[0.28 0.45]]
        """
        scales = self.coordinates_.columns.scales
        return per_unit("score_variance", self._influence(X, t)[1], scales, scales)

    def _refuse_shards(self, what: str, instead: str = "") -> None:
        """Raise ValueError if the training rows are in shards; `what` cannot be computed from them."""
        if self.model_.data.shards is not None:
            raise ValueError(
                f"{what} with shards={self.model_.data.shards!r}; {instead}{', or ' if instead else ''}"
                "fit a subsample with shards=None, and pass metric_, bandwidth_, sigma_ and "
                "background_ of this model as its parameters."
            )

    def _influence(self, X: Any, t: float | None) -> tuple[np.ndarray, np.ndarray]:
        X, scale = self._check_query(X), self._noise_scale(t)
        if self.model_.data.shards is not None or self.model_.data.base is not None:
            raise ValueError(
                "effective_sample_size and score_variance need the weights of all training rows in one "
                f"process; got a base or shards={self.model_.data.shards!r}. Fit with shards=None and "
                "base=None."
            )
        return self.model_.influence_at(X, scale, self._resources())

    @property
    def _can_reweight(self) -> bool:
        """Whether the model is a sum over its points, so that `_reweighted` can be called."""
        source = self.model_.source
        return isinstance(source, NoisedData) and source.base is None and source.shards is None

    def _reweighted(self, weights: np.ndarray) -> BaseScoreDiffusion:
        """Return the same model with other weights (n_points,) of its points."""
        estimator = self._snapshot()
        estimator.__dict__ = {**vars(self), "model_": self.model_.reweighted(weights)}
        return estimator

    def _joint_density(self, resources: Resources) -> JointDensity:
        """Return the density of all columns, for marginals and conditionals."""
        self._refuse_shards("given and columns cannot be computed")
        return super()._joint_density(resources)

    def _sums_per_row(self) -> float:
        """See `DensityEstimatorMixin`."""
        if "model_" not in vars(self):
            return 0.0
        data = self.model_.data
        n_points, r = data.hierarchy.points.shape
        if data.base is not None:
            n_points = len(data.base.weights) * r
        return n_points * data.smoothing.n_nodes * (r + 2)

    def _check_query(self, X: Any, ignored: Sequence[int] | np.ndarray = ()) -> np.ndarray:
        shards = resolve_shards(self.shards)
        X = shards.together(super()._check_query, X, ignored)
        if not shards.alone:
            # A wrong parameter of one process raises its own error before parameters are compared.
            self._resources()
            self._check_same(shards, "rows of X, or parameters,", X)
        return X

    def _resources(self) -> Resources:
        """Return the device, dtype and memory limit that the present parameters name."""
        if self.shards != self.model_.data.shards:
            raise ValueError(
                f"shards={self.shards!r}, but the model was fitted with "
                f"shards={self.model_.data.shards!r}; expected the same value. "
                "Set shards to that value, or fit again."
            )
        shards = resolve_shards(self.shards)
        return shards.together(parse_resources, self.get_params(deep=False), self.model_.dtype)

    def _noise_scale(self, t: Any) -> float:
        scale = super()._noise_scale(t)
        resolve_shards(self.shards).check_same("t", scale)
        return scale

    def _check_draw(self, n_samples: Any, random_state: Any) -> tuple[int, np.random.RandomState]:
        shards = resolve_shards(self.shards)
        if not shards.alone and not isinstance(random_state, numbers.Integral):
            raise ValueError(
                f"random_state={random_state!r}, but with shards={self.shards!r} all processes must "
                "draw the same numbers; pass an integer, the same to all."
            )
        draw = shards.together(super()._check_draw, n_samples, random_state)
        name = "n_samples, random_state or parameters"
        self._check_same(shards, name, n_samples, random_state)
        return draw
