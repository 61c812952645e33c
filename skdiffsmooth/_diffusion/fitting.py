"""How a diffusion is fitted: parameters become numbers, and data, levels and nodes are frozen."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.base import BaseEstimator

from .._coordinates.hull import AffineHull
from .._coordinates.metric import LinearMetric, check_metric, fit_metric
from .._engine.components import GaussianComponents
from .._engine.hierarchy import PointHierarchy
from .._utils.backend import Backend
from .._utils.estimator import DistanceDensityMixin
from .._utils.rows import merge_duplicates
from .._utils.shards import ONE_PROCESS, Shards, resolve_shards
from .._utils.validation import check_choice, check_integer, check_real, fixed_seed
from ..bandwidth import gaussian_leave_one_out
from ..bases import base_components, base_reference, resolve_base
from ..kernels import ReducedKernel
from ..kernels._node_error import enough_nodes
from ..kernels._nodes import NodeRule
from ..noise import NoiseLevels, NoiseProcess
from ..scores import ScoreSchedule
from ..solvers import Adaptive, Solver
from .comparison import choose_settings
from .selection import DEFAULT_FACTORS, Factors, Metric, Settings
from .settings import (
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

__all__ = ["FittedDiffusion", "roomy_backend"]


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
        return self.kernel.widest_std or 1.0


class FittedDiffusion(DistanceDensityMixin, BaseEstimator, ABC):
    """Data and a kernel in the coordinates of a metric, at scales that were given or chosen.

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
        radius = shards.largest(float(np.abs(geometry.coordinates).max(initial=0.0)))
        if geometry.base is None and bandwidth < np.finfo(np.float64).eps * radius:
            raise ValueError(
                f"bandwidth={bandwidth:g} is lost in the rounding of rows up to {radius:.3g} from their "
                "middle; expected more. Pass a larger bandwidth, drop rows far from all others, or "
                "scale the columns."
            )
        frozen = self._frozen(geometry, numbers, bandwidth, sigma)
        self._set_fitted(X, metric_=chosen.metric, background_=chosen.background, **frozen)
        return self

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
        seed = fixed_seed(self.random_state)
        return _Numbers(
            Backend.from_params(self.device, self.dtype),
            check_real("memory_limit", self.memory_limit, hint="It is in MiB."),
            n_levels,
            math.ceil(n_steps / n_levels),
            NodeRule(node_rule, resolve_n_nodes(self.n_nodes, node_rule) or 0, seed),
            check_choice("terminal", self.terminal, ("empirical", "gaussian")),
        )

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
        given, spread = (self.bandwidth, self.sigma), geometry.kernel.widest_std
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
            self.terminal_scale, math.sqrt(widest), bandwidth, finest * kernel.widest_std
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
        backend = roomy_backend(numbers.backend, hierarchy, levels)

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


def roomy_backend(backend: Backend, hierarchy: PointHierarchy, levels: NoiseLevels) -> Backend:
    """Return a backend that has numbers for the squares of all lengths that there are."""
    largest = max(np.abs(hierarchy.points).max(initial=0.0), levels.terminal_scale)
    return backend.promote_to_float64(levels.bandwidth, largest)


def _largest_variance(coordinates: np.ndarray, weights: np.ndarray, shards: Shards) -> float:
    """Return the variance of the data along the widest of their principal axes."""
    mean = shards.total(weights @ coordinates)
    variances = shards.total(weights @ (coordinates - mean) ** 2)
    return float(variances.max(initial=0.0))
