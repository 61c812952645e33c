"""What the diffusion estimators share: fit, sample, score_samples, grad_log_density and energy."""

from __future__ import annotations

import math
import numbers
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple, overload

import joblib
import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from ._backend import Backend
from ._base import DensityEstimatorMixin, check_seed
from ._comparison import choose_settings
from ._components import GaussianComponents
from ._conditional import (
    Conditional,
    ConditionalFlow,
    Frame,
    resolve_given_columns,
    resolve_given_values,
)
from ._hierarchy import PointHierarchy
from ._hull import AffineHull
from ._metric import LinearMetric, check_metric, fit_metric
from ._node_error import enough_nodes
from ._nodes import NodeRule
from ._selection import DEFAULT_FACTORS, Factors, Metric, Settings, mixed
from ._settings import (
    Sigma,
    resolve_background,
    resolve_base_scales,
    resolve_n_jobs,
    resolve_n_nodes,
    resolve_node_rule,
    resolve_noise,
    resolve_scales,
    resolve_solver,
    resolve_terminal_scale,
    resolve_tolerance,
    scales_of_levels,
)
from ._shards import ONE_PROCESS, Shards, resolve_shards
from ._terminal import EmpiricalTerminal, GaussianTerminal, TerminalLaw
from ._validation import check_choice, check_integer, check_real, merge_duplicates
from .bandwidth import gaussian_leave_one_out, weight_of_others
from .bases import base_components, base_reference, resolve_base
from .kernels import FrozenKernel, ReducedKernel
from .likelihood import flow_log_density, step_error
from .noise import NoiseLevels, NoiseProcess, Step
from .scores import Potential, ScoreSchedule
from .solvers import Adaptive, ODESolver, Solver, solve

__all__ = ["BaseScoreDiffusion"]

_NO_DERIVATIVE = (
    "the projection on this manifold has no derivative, so the law that is sampled has no "
    "density that could be computed. Use a manifold with projection_derivative, such as "
    "skdiffsmooth.manifolds.Curve, or sample only."
)

# Width of the background, in bandwidths; docs/defaults.md has the evidence.
_WIDE = 4.0


class _Numbers(NamedTuple):
    """Parameters that were checked, and what was made of them."""

    backend: Backend
    memory_limit: float
    n_levels: int
    steps_per_level: int
    rule: NodeRule  # of no nodes where their number is to be found out
    terminal: str

    @property
    def seed(self) -> int:
        """Seed of the nodes."""
        return self.rule.seed


class Geometry(NamedTuple):
    """Data in the coordinates in which the flow runs, and the kernel there: all but the scales."""

    points: np.ndarray
    weights: np.ndarray
    shards: Shards
    metric: LinearMetric
    hull: AffineHull
    coordinates: np.ndarray
    kernel: ReducedKernel
    base: GaussianComponents | None
    learned: dict[str, Any]

    @property
    def unit(self) -> float:
        """Standard deviation of the kernel along its widest direction, at sigma = 1."""
        return self.kernel.spread or 1.0


class BaseScoreDiffusion(DensityEstimatorMixin, BaseEstimator, ABC):
    """Data seen through noise, a score smoothed by a kernel, a solver that follows it.

    A subclass says how the kernel acts, in `_reduced_kernel`.
    """

    def __init__(
        self,
        bandwidth: float | str,
        sigma: float | str | Callable[[float], float],
        *,
        metric: Any,
        background: float | str,
        base: Any,
        noise: str | NoiseProcess,
        node_rule: str,
        n_nodes: int | str,
        n_levels: int,
        n_steps: int,
        solver: str | Solver,
        terminal: str,
        terminal_scale: float | str,
        device: str,
        dtype: str,
        random_state: Any,
        tolerance: float | str,
        memory_limit: float,
        n_jobs: int | None,
        shards: str | None,
    ) -> None:
        self.bandwidth = bandwidth
        self.sigma = sigma
        self.metric = metric
        self.background = background
        self.base = base
        self.noise = noise
        self.node_rule = node_rule
        self.n_nodes = n_nodes
        self.n_levels = n_levels
        self.n_steps = n_steps
        self.solver = solver
        self.terminal = terminal
        self.terminal_scale = terminal_scale
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.tolerance = tolerance
        self.memory_limit = memory_limit
        self.n_jobs = n_jobs
        self.shards = shards

    def _candidate_metrics(self, points: np.ndarray) -> tuple[Metric, ...]:
        """Return the metrics that "auto" chooses from; none where no choice can be made."""
        return ("euclidean",)

    def _check_scales(
        self,
        kernel: ReducedKernel,
        coordinates: np.ndarray,
        bandwidth: float,
        scales: np.ndarray,
    ) -> None:
        """Raise an error or warn where a kernel cannot act at these scales."""
        return

    @abstractmethod
    def _reduced_kernel(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull
    ) -> tuple[ReducedKernel, AffineHull, dict[str, Any]]:
        """Return the kernel, and the attributes that were learned with it.

        The kernel is in coordinates of the hull in the middle: that of the data, which is given, or a
        larger one that holds it.
        """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Take in the data and resolve the scales; nothing is trained.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. Equal rows are merged. Columns should have comparable units where the metric
            is Euclidean.
        y : object, default=None
            Ignored; there for scikit-learn's calling convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If X, the weights or a parameter is out of range; the estimator is then left as it was.

        Notes
        -----
        Costs one singular value decomposition and, for "loo" scales, some twenty leave-one-out sums over
        all pairs of distinct rows; of more than 20 000 rows, some twenty sums of 4000 held-out rows
        over the others, merged. Where both scales are "auto" eleven candidates are compared on at most
        2000 rows.
        """
        shards = self._resolve_shards()
        points, weights = shards.together(self._check_training, X, sample_weight)
        weights = shards.normalize(weights, X, sample_weight)
        numbers = self._checked_numbers(points.shape[1])
        self._check_same(
            shards, "parameters, or numbers of features,", points.shape[1], numbers.seed
        )
        chosen = self._chosen_settings(points, weights)
        geometry = self._geometry(
            chosen.metric,
            points,
            weights,
            shards,
            numbers,
            len(np.asarray(X)),
            sample_weight is not None,
        )
        bandwidth, sigma = self._resolved_scales(geometry, numbers, chosen.factors)
        frozen = self._frozen(geometry, numbers, bandwidth, sigma)
        self._set_fitted(X, metric_=chosen.metric, background_=chosen.background, **frozen)
        return self

    @overload
    def score_samples(self, X: Any, *, given: Any = None) -> np.ndarray: ...

    @overload
    def score_samples(
        self, X: Any, *, given: Any = None, return_error: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def score_samples(
        self, X: Any, *, given: Any = None, return_error: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the log-density of each row under the law that `sample` draws from.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        return_error : bool, default=False
            Whether to return the solver's estimated error beside it. ``solver="adaptive"`` knows it;
            a solver of fixed steps is run once more with steps of half the size, for three
            times the cost.
        given : collection of int or str, default=None
            Columns, by index or name, on whose values in X the density of the others is conditional,
            in the law that `sample` draws from with `given`; see there.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log-densities in nats, normalised: exp of them integrates to one over R^n_features, up
            to the solver's error.
        error : ndarray of shape (n_samples,)
            Estimated absolute error of each in nats, if `return_error`. It is the solver's: that of
            the nodes is estimated by ``node_error_``.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError
            If `given` is no collection of columns.
        ValueError
            If X is not finite or has another number of features, if the solver is stochastic, if the
            smoothing follows a manifold whose projection has no derivative, or if `given` does not fit
            the columns or the kernel.

        Notes
        -----
        Each of the solver's field evaluations takes about ``(r + 2) * n_samples * n_nodes *
        n_points`` multiply-adds, r the dimension of the data's affine hull. Temporaries stay within
        `memory_limit`.
        """
        X = self._check_query(X)
        if given is not None:
            if return_error:
                raise ValueError(
                    "return_error=True cannot be combined with given; compare with more n_steps."
                )
            columns = resolve_given_columns(given, X.shape[1], self._column_names())
            if len(columns):
                self._check_density()
                conditional = self._conditional(columns)
                return self._in_parallel(conditional.log_density, X)
        split = self._split(X)
        log_density, error = self._flow_log_density(*split, with_error=return_error)
        if self.background_:
            flow, log_density = (
                log_density,
                mixed(log_density, self._wide_log_density(*split), self.background_),
            )
            # Only the flow has an error, and counts by its share of the density.
            error = error * (1 - self.background_) * np.exp(flow - log_density)
        return (log_density, error) if return_error else log_density

    def leave_one_out_log_density(self) -> np.ndarray:
        """Return the log-density of each training point under the model of the others.

        Exact for the fitted scales and at the cost of scoring the points once: no refit. What was
        learned of the data as a whole is kept (tangents of ``manifold="local"`` saw the point, which
        raises its log-density by some hundredths of a nat; a covariance "data" or principal components
        hardly; a `metric` other than "euclidean" the more, the fewer rows there are for a column).
        Equal rows are one point, so this leaves a value out, not a copy of it. Sums are over all the
        points, whatever `tolerance`.

        Returns
        -------
        ndarray of shape (n_points,)
            In nats, in the order of ``points_``; ``weights_ @`` it is the leave-one-out
            log-likelihood.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If there is a single distinct row, with `shards` or a `base`, or where `score_samples`
            raises.

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
        self._check_shards()
        if self.shards is not None:
            raise ValueError(
                f"leave_one_out_log_density cannot leave out rows with shards={self.shards!r}; score "
                "held-out rows with score_samples, or fit a subsample with shards=None."
            )
        if self.base_ is not None:
            raise ValueError(
                f"leave_one_out_log_density is not defined for base={self.base!r}, whose components "
                "have seen the row: to leave out the component at its place alone would overstate its "
                "log-density by nats. Score held-out rows with score_samples."
            )
        if len(self.points_) < 2:
            raise ValueError(
                "leave_one_out_log_density needs at least two distinct rows, and the model was fitted "
                "on one; fit it on more."
            )
        return mixed(*self._left_out(), self.background_)

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, given: Any = None
    ) -> np.ndarray:
        """Draw new rows.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        random_state : int, RandomState or None, default=None
            Source of the draws; None draws anew at every call, without touching numpy's global
            state. (The estimator's own `random_state` seeds the kernel's nodes, not the draws.)
        given : mapping from column to value, default=None
            Condition the draws on these columns: indices or, where X had them, names; each value one
            number in units of X, or an array of shape (n_samples,).

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In units of X; given columns hold what was given.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If `n_samples` is not a positive integer, `random_state` is not a seed, or `given` does not
            fit the columns or the kernel.

        Notes
        -----
        With `given`, the flow runs in the free columns, along the gradient of the averaged log-density
        of the data whose given columns carry the noise of the bandwidth at all levels. That law is
        normalised for all values that are given, exact for sigma = 0 and where the data are many and
        Gaussian, and an approximation to the conditional of the joint law otherwise
        (docs/conditional.md has the distances). It works in all columns and on points that are merged
        as far as the bandwidth allows, so ``n_features`` and all of ``points_`` count in its cost.
        """
        n, rng = self._check_draw(n_samples, random_state)
        if given is not None:
            names = self._column_names()
            columns, values = resolve_given_values(given, n, self.n_features_in_, names)
            if len(columns):
                return self._sample_given(rng, columns, values)
        schedule = self._schedule()
        start = self._terminal_law(schedule).sample(rng, n)
        seed = rng.randint(2**31) if resolve_solver(self.solver).is_stochastic else None
        followed = self._in_parallel(self._follow, start, np.arange(n), n=n, seed=seed)
        coordinates = followed[:, :-1]
        self._warn_of_error(followed[:, -1], stacklevel=3)
        scales = np.full((n, 1), self.bandwidth_)
        if self.background_:
            wide = EmpiricalTerminal(schedule, self._wide_scale).sample(rng, n)
            is_wide = rng.uniform(size=(n, 1)) < self.background_
            coordinates = np.where(is_wide, wide, coordinates)
            scales[is_wide] = self._wide_scale
        rows = self.hull_.lift(coordinates)
        if self.hull_.codimension:
            noise = rng.standard_normal(rows.shape)
            rows += scales * self.hull_.project_out(noise)
        return self.coordinates_.from_metric(rows)

    def grad_log_density(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the smoothed score, the gradient of the averaged log-density, at noise variance t.

        This is the field that the flow follows and, where there is an `energy`, minus its gradient at
        the default `t`. With sigma > 0 it is not the gradient of `score_samples`, whose density is
        where the flow through all noise levels ends.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In nats per unit of X.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit or `t` is not a positive number.
        """
        X = self._check_query(X)
        scale = self.bandwidth_ if t is None else math.sqrt(check_real("t", t))
        resolve_shards(self.shards).check_same("t", scale)
        queries, residual = self._split(X)
        schedule = self._schedule()
        found = schedule.at_scale(scale)(schedule.backend.tensor(queries), scale**2)
        within = schedule.backend.array(found)
        gradient = within @ self.hull_.basis.T - residual / scale**2
        return self.coordinates_.gradient_from_metric(gradient)

    def laplacian_log_density(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the divergence of `grad_log_density`: where that is a gradient, the Laplacian.

        In closed form, from the spread of the posterior; no ODE is solved. With `grad_log_density` it
        makes the score-matching loss of `skdiffsmooth.model_selection.hyvarinen_score`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats per squared unit of X, over all columns: each direction in which the data have no
            extent counts -1 / t.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, the metric is not Euclidean, or the
            smoothing follows a manifold whose projection has no derivative.

        Examples
        --------
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> model = SmoothedScoreDiffusion(0.5, 0.1).fit([[0.0, 0.0]])
        >>> model.laplacian_log_density([[3.0, 4.0]])
        array([-8.])
        """
        X = self._check_query(X)
        if not self.kernel_.has_divergence:
            raise ValueError(_NO_DERIVATIVE)
        if not self.coordinates_.is_euclidean:
            raise ValueError(
                f"metric={self.metric_!r} has no Laplacian in closed form along the columns of X; fit "
                "with metric='euclidean', or use score_samples, which is comparable between metrics."
            )
        scale = self.bandwidth_ if t is None else math.sqrt(check_real("t", t))
        resolve_shards(self.shards).check_same("t", scale)
        queries, _ = self._split(X)
        schedule = self._schedule()
        x = schedule.backend.tensor(queries)
        _, divergence = schedule.at_scale(scale).with_divergence(x, scale**2)
        return schedule.backend.array(divergence) - self.hull_.codimension / scale**2

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
            If X does not fit, `t` is not a positive number, or the smoothing depends on where it acts
            (learned tangents, known curved manifolds): its field is then no gradient.
        """
        X = self._check_query(X)
        scale = self.bandwidth_ if t is None else math.sqrt(check_real("t", t))
        resolve_shards(self.shards).check_same("t", scale)
        queries, residual = self._split(X)
        schedule = self._schedule()
        x = schedule.backend.tensor(queries)
        field = schedule.at_scale(scale)
        if not isinstance(field, Potential):
            raise ValueError(
                "energy is not defined for a kernel that depends on where it acts: its field is no "
                "gradient. Use score_samples for log-densities, grad_log_density for the field."
            )
        within = field.log_density(x, scale**2)
        return -schedule.backend.array(within) - self._beside_flow(residual, scale)

    def _checked_numbers(self, n_features: int) -> _Numbers:
        """Check the parameters that do not depend on the data, but for their number of features."""
        resolve_solver(self.solver)
        resolve_n_jobs(self.n_jobs)
        resolve_tolerance(self.tolerance, 1, False)
        resolve_noise(self.noise, 1.0)
        resolve_background(self.background)
        check_metric(self.metric, n_features)
        node_rule = resolve_node_rule(self.node_rule)
        n_levels = check_integer("n_levels", self.n_levels)
        n_steps = check_integer("n_steps", self.n_steps)
        if node_rule == "fresh":
            # Every step is a level of its own, with its own draws.
            n_levels = max(n_levels, n_steps)
        random_state = self.random_state
        if isinstance(random_state, np.random.RandomState):
            seed = int(random_state.randint(2**31))
        else:
            seed = 0 if random_state is None else check_seed(random_state)
        return _Numbers(
            Backend.from_params(self.device, self.dtype),
            check_real("memory_limit", self.memory_limit, hint="It is in MiB."),
            n_levels,
            math.ceil(n_steps / n_levels),
            NodeRule(node_rule, resolve_n_nodes(self.n_nodes, node_rule) or 0, seed),
            check_choice("terminal", self.terminal, ("empirical", "gaussian")),
        )

    def _geometry(
        self,
        metric: Metric,
        points: np.ndarray,
        weights: np.ndarray,
        shards: Shards,
        numbers: _Numbers,
        n_samples: int,
        is_weighted: bool,
    ) -> Geometry:
        """Return the data in the coordinates in which the flow runs, and the kernel there."""
        linear = fit_metric(metric, points, weights, shards)
        measured = linear.to_metric(points)
        hull = linear.hull_of(measured, shards)
        base = resolve_base(self.base)
        law = None
        if base is not None:
            if self.shards is not None:
                raise ValueError(
                    f"base={self.base!r} cannot be combined with shards={self.shards!r}, whose sums "
                    "are over rows; leave base at None."
                )
            law = base_components(base, measured, weights, n_samples, is_weighted, numbers.seed)
            # Windows keep to the hull of the rows; the components of a fitted mixture fill the space.
            hull = hull.joined(None) if law.floors.any() else hull
        kernel, hull, learned = self._reduced_kernel(measured, weights, hull)
        coordinates, _ = hull.split(measured)
        law = None if law is None else law.within(hull)
        return Geometry(points, weights, shards, linear, hull, coordinates, kernel, law, learned)

    def _resolved_scales(
        self, geometry: Geometry, numbers: _Numbers, factors: Factors
    ) -> tuple[float, Sigma]:
        """Return bandwidth and smoothing scale, in units of the metric."""
        given, spread = (self.bandwidth, self.sigma), geometry.kernel.spread
        if geometry.base is None:
            return resolve_scales(
                *given, spread, lambda: self._leave_one_out_bandwidth(geometry, numbers), factors
            )
        own = base_reference(
            self.base,
            geometry.base,
            geometry.coordinates,
            geometry.weights,
            geometry.hull.codimension,
        )
        return resolve_base_scales(*given, spread, own)

    def _leave_one_out_bandwidth(self, geometry: Geometry, numbers: _Numbers) -> float:
        """Return the bandwidth at which the Gaussian KDE has its highest leave-one-out likelihood."""
        return gaussian_leave_one_out(
            geometry.coordinates,
            geometry.weights,
            geometry.hull.codimension,
            numbers.backend,
            numbers.memory_limit,
        )

    def _geometry_and_bandwidth(
        self, metric: Metric, points: np.ndarray, weights: np.ndarray
    ) -> tuple[Geometry, float]:
        """Return rows in a metric, and the KDE's leave-one-out bandwidth there, for a search."""
        weights = weights / weights.sum()
        points, weights = merge_duplicates(points, weights)
        numbers = self._checked_numbers(points.shape[1])
        geometry = self._geometry(metric, points, weights, ONE_PROCESS, numbers, len(points), True)
        return geometry, self._leave_one_out_bandwidth(geometry, numbers)

    def _take_in(self, geometry: Geometry, bandwidth: float, sigma: float) -> None:
        """Become the model at some scales, without a background: a candidate in a search."""
        numbers = self._checked_numbers(geometry.points.shape[1])
        frozen = self._frozen(geometry, numbers, bandwidth, sigma, is_candidate=True)
        for name, value in {**frozen, "background_": 0.0}.items():
            setattr(self, name, value)

    def _frozen(
        self,
        geometry: Geometry,
        numbers: _Numbers,
        bandwidth: float,
        sigma: Sigma,
        *,
        is_candidate: bool = False,
    ) -> dict[str, Any]:
        """Return the fitted attributes at some scales: nodes, levels and hierarchy are frozen here.

        Of a candidate in a search the error of its nodes is estimated only where it decides on them.
        """
        kernel, shards = geometry.kernel, geometry.shards
        widest = _largest_variance(geometry.coordinates, geometry.weights, shards)
        noise = resolve_noise(self.noise, widest)
        finest = sigma(bandwidth) if callable(sigma) else sigma
        terminal_scale = resolve_terminal_scale(
            self.terminal_scale, math.sqrt(widest), bandwidth, finest * kernel.spread
        )
        levels = NoiseLevels(bandwidth, terminal_scale, numbers.n_levels)
        asked, scales = scales_of_levels(sigma, noise, levels)
        is_smoothed = bool(scales.any())
        self._check_scales(kernel, geometry.coordinates, bandwidth, scales)
        if not is_smoothed and numbers.terminal == "empirical":
            # The unsmoothed flow leads from p_T to p_eps whatever T is: the identity, from p_eps.
            levels = NoiseLevels(bandwidth, bandwidth, numbers.n_levels)
        # Components are not merged.
        tolerance = 0.0
        if geometry.base is None:
            n_points = shards.total(len(geometry.points))
            tolerance = resolve_tolerance(self.tolerance, n_points, is_smoothed)
        hierarchy = PointHierarchy.of(geometry.coordinates, geometry.weights, tolerance, bandwidth)
        backend = _roomy(numbers.backend, hierarchy, levels)

        def schedule(rule: NodeRule) -> ScoreSchedule:
            return ScoreSchedule(
                levels,
                hierarchy,
                kernel.freeze(scales, rule),
                backend,
                numbers.memory_limit,
                shards=shards,
                base=geometry.base,
            )

        rule, is_fixed = numbers.rule, numbers.rule.n_nodes > 0
        rule = rule if is_fixed else replace(rule, n_nodes=kernel.n_nodes)
        # Finds out now, and not at the first query, whether a tile fits.
        schedule(rule).posterior_at(bandwidth)
        error = 0.0
        if is_smoothed and kernel.rank and not (is_candidate and is_fixed):
            rule, error = enough_nodes(schedule, rule, is_fixed=is_fixed)
        smoothing = kernel.freeze(scales, rule)
        return {
            "points_": geometry.points,
            "weights_": geometry.weights,
            "coordinates_": geometry.metric,
            "hull_": geometry.hull,
            "base_": geometry.base,
            "bandwidth_": bandwidth,
            "sigma_": asked if callable(sigma) else sigma,
            "kernel_": smoothing,
            "n_nodes_": smoothing.n_nodes,
            "node_error_": error,
            "noise_": noise,
            "terminal_": numbers.terminal,
            "noise_levels_": levels,
            "hierarchy_": hierarchy,
            "shards_": self.shards,
            "n_steps_": numbers.n_levels * numbers.steps_per_level,
            **geometry.learned,
        }

    def _check_density(self) -> None:
        """Raise unless the law that is sampled has a density that can be computed."""
        if not isinstance(resolve_solver(self.solver), ODESolver):
            raise ValueError(
                f"solver={self.solver!r} is stochastic, or does not carry log-densities along; "
                "score_samples needs one that does, such as solver='heun'. With a smoothed score the "
                "law of a stochastic solver's samples is another one, without a computable density."
            )
        if not self.kernel_.has_divergence:
            raise ValueError(_NO_DERIVATIVE)

    def _in_parallel(self, work: Any, *arrays: np.ndarray, **shared: Any) -> np.ndarray:
        """Split rows over `n_jobs` workers; every result is of one row, whoever computes it."""
        if self.shards is not None:
            # Each process is a worker already, and all must make the same exchanges.
            return work(*arrays, **shared)
        n_parts = min(effective_n_jobs(resolve_n_jobs(self.n_jobs)), len(arrays[0]))
        parts = zip(*(np.array_split(array, n_parts) for array in arrays), strict=True)
        done = Parallel(n_jobs=self.n_jobs)(delayed(work)(*part, **shared) for part in parts)
        return np.concatenate(done)

    def _warn_of_error(self, error: np.ndarray, stacklevel: int) -> None:
        """Warn whoever is so many calls up where the adaptive solver did not keep to its tolerance."""
        solver = resolve_solver(self.solver)
        if not isinstance(solver, Adaptive):
            return
        missed = ~(error <= solver.tol)
        if missed.any():
            warnings.warn(
                f"the adaptive solver missed tol={solver.tol:g} (nats) in {missed.sum()} of "
                f"{len(error)} rows, with estimated errors of up to {error.max():.2g}. Pass "
                f"solver=Adaptive(tol, max_halvings) with more than {solver.max_halvings} halvings or "
                "a larger tol, or dtype='float64'; where a field jumps neither helps.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )

    def _sample_given(
        self, rng: np.random.RandomState, columns: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        conditional = self._conditional(columns)
        given = conditional.frame.given(values)
        start = conditional.flow.start(rng, given)
        seed = rng.randint(2**31) if resolve_solver(self.solver).is_stochastic else None
        n = len(values)
        free = self._in_parallel(
            conditional.flow.follow, start, given, np.arange(n), n=n, seed=seed
        )
        if conditional.background:
            is_wide = rng.uniform(size=n) < conditional.share_of_background(given)
            free = np.where(is_wide[:, None], conditional.wide.start(rng, given), free)
        rows = conditional.frame.rows(free, given)
        rows[:, columns] = values
        return rows

    def _conditional(self, columns: np.ndarray) -> Conditional:
        """Return the law of the other columns given some."""
        if self.shards is not None:
            raise ValueError(
                f"given cannot be combined with shards={self.shards!r}; fit a subsample with "
                "background_."
            )
        if isinstance(resolve_solver(self.solver), Adaptive):
            raise ValueError(
                f"given cannot be combined with solver={self.solver!r}; use solver='heun', with more "
                "n_steps where that is not accurate enough."
            )
        if self.base_ is not None:
            raise ValueError(
                f"given cannot be combined with base={self.base!r}; leave base at None."
            )
        if not isinstance(self.kernel_, FrozenKernel):
            raise ValueError(
                "given needs a kernel whose offsets are the same everywhere; this one depends on where "
                "it acts, or has no offsets. Use SmoothedScoreDiffusion with kernel='gaussian'."
            )
        frame = Frame.of(self.coordinates_, self.hull_.center, columns)
        points, weights = self.hierarchy_.at(self.bandwidth_)
        levels, center = self.noise_levels_, self.hull_.center
        centered = (self.hull_.lift(points) - center) @ frame.axes
        # At the last level the given columns are stretched by the terminal scale over the bandwidth.
        largest = np.abs(centered).max() * levels.terminal_scale / levels.bandwidth
        backend = Backend.from_params(self.device, self.dtype)
        flow = ConditionalFlow(
            centered,
            weights,
            len(frame.axes) - len(columns),
            self.bandwidth_,
            levels,
            self._steps(),
            self.kernel_,
            frame.axes.T @ self.hull_.basis,
            self.terminal_ == "empirical",
            resolve_solver(self.solver),
            backend.with_room_for(levels.bandwidth, max(largest, levels.terminal_scale)),
            check_real("memory_limit", self.memory_limit, hint="It is in MiB."),
        )
        return Conditional(frame, flow, self.background_, self._wide_scale)

    def _log_density_within(
        self,
        queries: np.ndarray,
        left_out: np.ndarray | None = None,
        *,
        with_error: bool,
    ) -> np.ndarray:
        """Return log-densities in hull coordinates, and their errors in a second column.

        One point may be left out of each row's data.
        """
        schedule = self._schedule(left_out)
        backend, terminal = schedule.backend, self._terminal_law(schedule, left_out)
        solver = resolve_solver(self.solver)
        assert isinstance(solver, ODESolver)
        x = backend.tensor(queries)

        def found(solver: ODESolver, steps: list[Step]) -> torch.Tensor:
            return flow_log_density(solver, schedule, x, steps, terminal.log_density)

        steps = self._steps()
        if isinstance(solver, Adaptive):
            walk = solver.walk(x, len(steps))
            log_density, error = found(walk, steps), walk.error
        else:
            log_density, error = found(solver, steps), x.new_full((len(x),), math.nan)
            if with_error:
                error = step_error(solver.order, log_density, found(solver, self._steps(2)))
        return np.column_stack([backend.array(log_density), backend.array(error)])

    def _follow(
        self, start: np.ndarray, rows: np.ndarray, *, n: int, seed: int | None
    ) -> np.ndarray:
        """Bring some rows of n draws from the terminal scale down to the bandwidth.

        The last column is the solver's error in nats, where it is adaptive, and NaN elsewhere.
        """
        schedule = self._schedule()
        rng = np.random.RandomState(seed)

        def draw() -> torch.Tensor:
            # Every worker draws for all rows, so that a row's noise is the same on any of them.
            return schedule.backend.tensor(rng.standard_normal((n, start.shape[1]))[rows])

        solver, x = resolve_solver(self.solver), schedule.backend.tensor(start)
        steps = [step.reversed() for step in reversed(self._steps())]
        error = x.new_full((len(x),), math.nan)
        if isinstance(solver, Adaptive):
            walk = solver.walk(x, len(steps))
            end = solve(walk, schedule, x, steps, draw)
            error = walk.error
        else:
            end = solve(solver, schedule, x, steps, draw)
        return np.column_stack([schedule.backend.array(end), schedule.backend.array(error)])

    def _schedule(self, left_out: np.ndarray | None = None) -> ScoreSchedule:
        """Bring the fitted arrays to the device. Nothing is kept there between calls."""
        backend = _roomy(
            Backend.from_params(self.device, self.dtype), self.hierarchy_, self.noise_levels_
        )
        hierarchy, exclude = self.hierarchy_, None
        if left_out is not None:
            # Merged points cannot be left out one by one.
            hierarchy = PointHierarchy.of(hierarchy.points, hierarchy.weights, 0.0, self.bandwidth_)
            exclude = torch.from_numpy(left_out).to(backend.device)
        return ScoreSchedule(
            self.noise_levels_,
            hierarchy,
            self.kernel_,
            backend,
            check_real("memory_limit", self.memory_limit, hint="It is in MiB."),
            exclude,
            resolve_shards(self.shards),
            self.base_,
        )

    def _check_query(self, X: Any) -> np.ndarray:
        shards = resolve_shards(self.shards)
        X = shards.together(super()._check_query, X)
        self._check_shards()
        self._check_same(shards, "rows of X, or parameters,", X)
        return X

    def _check_draw(self, n_samples: Any, random_state: Any) -> tuple[int, np.random.RandomState]:
        shards = resolve_shards(self.shards)
        if not shards.alone and not isinstance(random_state, numbers.Integral):
            raise ValueError(
                f"random_state={random_state!r}, but with shards={self.shards!r} all processes must "
                "draw the same numbers; pass an integer, the same to all."
            )
        drawn = super()._check_draw(n_samples, random_state)
        self._check_shards()
        name = "n_samples, random_state or parameters"
        self._check_same(shards, name, n_samples, random_state)
        return drawn

    def _check_shards(self) -> None:
        if self.shards != self.shards_:
            raise ValueError(
                f"shards={self.shards!r}, but the model was fitted with shards={self.shards_!r}, which "
                "says where its rows are; set it back, or fit again."
            )
        if self.shards is not None:
            self._check_solver_of_shards()

    def _resolve_shards(self) -> Shards:
        shards = resolve_shards(self.shards)
        if not shards.alone and (isinstance(self.bandwidth, str) or isinstance(self.sigma, str)):
            raise ValueError(
                f"bandwidth={self.bandwidth!r} with sigma={self.sigma!r} cannot be resolved with "
                f"shards={self.shards!r}, since leave-one-out sums would need all pairs of rows; pass "
                "numbers: those that a fit to a subsample with shards=None found (metric_, bandwidth_, "
                "sigma_ and background_)."
            )
        if not shards.alone and self.n_jobs not in (None, 1):
            raise ValueError(
                f"n_jobs={self.n_jobs!r} cannot be combined with shards={self.shards!r}, whose "
                "processes are the workers; leave n_jobs at None and start more processes."
            )
        if not shards.alone:
            self._check_solver_of_shards()
        return shards

    def _check_solver_of_shards(self) -> None:
        if isinstance(resolve_solver(self.solver), Adaptive):
            raise ValueError(
                f"solver={self.solver!r} cannot be combined with shards={self.shards!r}: processes that "
                "round differently would halve other steps, and wait for one another for ever. Use "
                "solver='heun', with more n_steps where its error is too large."
            )

    def _check_same(self, shards: Shards, name: str, *values: Any) -> None:
        """Raise an error on all processes unless values and parameters are the same on each."""
        if shards.alone:
            return
        params = self.get_params(deep=False)
        for free in ("device", "n_jobs", "random_state"):
            del params[free]
        # The same number in another type is the same parameter.
        plain = {
            key: float(value) if isinstance(value, numbers.Real) else value
            for key, value in params.items()
        }
        shards.check_same(name, *values, joblib.hash(plain))

    def _steps(self, finer: int = 1) -> list[Step]:
        levels = self.noise_levels_
        return list(levels.steps(finer * (self.n_steps_ // levels.n_levels)))

    def _terminal_law(
        self, schedule: ScoreSchedule, left_out: np.ndarray | None = None
    ) -> TerminalLaw:
        scale = self.noise_levels_.terminal_scale
        if self.terminal_ == "empirical":
            return EmpiricalTerminal(schedule, scale)
        points, weights = schedule.hierarchy.at(scale)
        mean = schedule.shards.total(weights @ points)
        if left_out is not None:
            others = weight_of_others(weights)
            heaviest = weights.argmax()
            rest = np.delete(weights, heaviest) @ np.delete(points, heaviest, axis=0)
            mean = (mean - weights[:, None] * points) / others[:, None]
            # The mean less a point that is nearly all of it would be rounding.
            mean[heaviest] = rest / others[heaviest]
            mean = mean[left_out]
        return GaussianTerminal(mean, scale)

    def _chosen_settings(self, points: np.ndarray, weights: np.ndarray) -> Settings:
        """Return what "auto" means for these data, and what was asked for elsewhere."""
        metric = check_metric(self.metric, points.shape[1])
        background = resolve_background(self.background)
        is_free = isinstance(metric, str) and metric == "auto"
        if resolve_base(self.base) is not None:
            is_plain = is_free or (isinstance(metric, str) and metric == "euclidean")
            if not is_plain or background:
                raise ValueError(
                    f"base={self.base!r} has covariances of its own and takes neither "
                    f"metric={self.metric!r} nor background={self.background!r}; leave both at 'auto', "
                    "and use skdiffsmooth.compose.TransformedDensity or DensityStacking around it."
                )
            return Settings("euclidean", DEFAULT_FACTORS, 0.0)
        plain = Settings("euclidean" if is_free else metric, DEFAULT_FACTORS, background or 0.0)
        scales = (self.bandwidth, self.sigma)
        if len(points) < 2 or not all(isinstance(s, str) and s == "auto" for s in scales):
            return plain
        metrics = self._candidate_metrics(points)
        if not metrics:
            return plain
        if not isinstance(self.terminal_scale, str):
            # A number has the unit of one metric only.
            metrics = ("euclidean",)
        chosen = choose_settings(self, points, weights, metrics if is_free else (metric,))
        return chosen if background is None else chosen._replace(background=background)

    def _parts(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities under the flow and under the background."""
        split = self._split(X)
        return self._flow_log_density(*split)[0], self._wide_log_density(*split)

    def _left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the same of each point, under the model of the others."""
        points = self.hierarchy_.points
        given = points, np.zeros_like(self.points_), np.arange(len(points))
        flow, _ = self._flow_log_density(*given, stacklevel=5)
        return flow, self._wide_log_density(*given)

    def _flow_log_density(
        self,
        queries: np.ndarray,
        residual: np.ndarray,
        *rows: np.ndarray,
        with_error: bool = False,
        stacklevel: int = 4,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities without the background, and their errors, NaN where not known.

        A point is left out of each row's data where its index is given.
        """
        self._check_density()
        found = self._in_parallel(self._log_density_within, queries, *rows, with_error=with_error)
        self._warn_of_error(found[:, 1], stacklevel=stacklevel)
        return found[:, 0] + self._beside_flow(residual, self.bandwidth_), found[:, 1]

    @property
    def _wide_scale(self) -> float:
        return _WIDE * self.bandwidth_

    def _wide_log_density(
        self, queries: np.ndarray, residual: np.ndarray, left_out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return log-densities of the background, a KDE wide enough for rows that are far out."""
        schedule = self._schedule(left_out)
        law = EmpiricalTerminal(schedule, self._wide_scale)
        within = schedule.backend.array(law.log_density(schedule.backend.tensor(queries)))
        return within + self._beside_flow(residual, self._wide_scale)

    def _split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the hull coordinates of rows in the metric, and what sticks out of the hull there."""
        return self.hull_.split(self.coordinates_.to_metric(X))

    def _beside_flow(self, residual: np.ndarray, scale: float) -> np.ndarray:
        """Return what log-densities have beside the flow: the residual's, and the metric's volume.

        What sticks out of the hull is exactly Gaussian at every noise level.
        """
        normalizer = self.hull_.codimension * math.log(math.sqrt(2 * math.pi) * scale)
        volume = self.coordinates_.log_abs_det
        return volume - 0.5 * np.sum((residual / scale) ** 2, axis=1) - normalizer


def _roomy(backend: Backend, hierarchy: PointHierarchy, levels: NoiseLevels) -> Backend:
    """Return a backend that has numbers for the squares of all lengths that there are."""
    largest = max(np.abs(hierarchy.points).max(initial=0.0), levels.terminal_scale)
    return backend.with_room_for(levels.bandwidth, largest)


def _largest_variance(coordinates: np.ndarray, weights: np.ndarray, shards: Shards) -> float:
    """Return the variance of the data along the widest of their principal axes."""
    mean = shards.total(weights @ coordinates)
    variances = shards.total(weights @ (coordinates - mean) ** 2)
    return float(variances.max(initial=0.0))
