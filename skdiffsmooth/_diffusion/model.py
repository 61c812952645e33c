"""`DiffusionModel`: the arrays of a fitted diffusion, and its log-densities, samples and scores.

The model is a score field for each noise level (`source`), a solver for the flow along the scores, and
the map from rows of X to the coordinates in which the flow runs (`embedding`). With x(y) the flow

    dx / d log y = -y^2 score(x, y^2)

through the noise scales y, the log-density of a row is that of the noised data where the flow ends, less
the integral of y^2 div score over log y (Song et al. 2021, eq. 39). In directions in which rows have no
extent the model is exactly N(0, bandwidth^2), and along relations between columns it has the width of
rounding (`ColumnSpace`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .._coordinates.embedding import Embedding
from .._engine.hierarchy import PointHierarchy
from .._utils.memory import rows_within, slices
from .._utils.parallel import over_workers
from .._utils.progress import tracked
from .._utils.rows import split_off_copies
from .._utils.units import per_unit
from ..bandwidth import Queries
from ..noise import NoiseLevels, Step
from ..scores import Attributable, Potential, SmoothedScore
from ..solvers import Adaptive, Heun, Multistep, ODESolver, Solver
from ..solvers._base import solve
from ..solvers._flow import initial_state, log_density_with_error, solve_with_error, warn_of_error
from ..solvers._terminal import EmpiricalTerminal
from .background import BREAKS_RELATIONS, WIDTH, Tail, mixed, part_weights, tail_log_density
from .settings import Resources
from .source import NoisedData, ScoreSource
from .tails import StudentT, TailBound

NO_DERIVATIVE = (
    "the smoothing at a query has no derivative that can be computed, so neither can the density of "
    "the distribution that is sampled. Along a manifold (a PointCloud, for example, has a piecewise "
    "constant projection) use one with projection_derivative or projection_factors, such as Curve or "
    "LocalPolynomialManifold of skdiffsmooth.manifolds, or write its project in torch. For a "
    "QueryKernel write offsets(x, z) in torch, differentiable in x, without numpy and detach(). Or "
    "sample only."
)

# Rows are followed again by the next solver where the roughness of their flow is more than
# `_MOST_ROUGHNESS` times the accuracy: for ordinary tables that is where errors begin to exceed some
# hundredths of a nat (docs/evidence/accuracy.md). The last solver's tolerance is the accuracy divided
# by `_LAST_ERRORS`.
_MOST_ROUGHNESS = 1.25
_LAST_ERRORS = 20
# A smaller accuracy, in nats, is replaced by this to follow rows again: errors of nodes are larger.
_LEAST_TOL = 1e-3


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A fitted diffusion: numpy arrays and small values, none of which depends on a device."""

    source: ScoreSource
    embedding: Embedding
    solver: Solver
    steps_of_levels: tuple[int, ...]  # Number of steps of the solver in each level
    dtype: str
    background: float = 0.0
    """Weight of the background: a kernel density estimate four bandwidths wide, and the tail."""
    tail: Tail | None = None
    """The t distribution of the background; None where no background is mixed."""
    tol: float | None = None
    """Accuracy, in nats, for which rows are followed again where the steps of the solver are too long;
    None where no row is."""

    @property
    def levels(self) -> NoiseLevels:
        """The noise range and its intervals."""
        return self.source.levels

    @property
    def n_steps(self) -> int:
        """Number of steps of the solver."""
        return sum(self.steps_of_levels)

    @property
    def bandwidth(self) -> float:
        """Noise scale at which the flow ends, in units of the coordinates."""
        return self.levels.bandwidth

    @property
    def unit(self) -> float:
        """The unit of the coordinates, in units of the metric; 1 unless X has extreme values."""
        return self.embedding.metric.unit

    @property
    def tail_bound(self) -> TailBound | None:
        """The lower bound of log-densities, if a background is mixed."""
        if self.tail is None:
            return None
        _, _, heavy = part_weights(self.background, self.tail.weight)
        weight = float(heavy) * (BREAKS_RELATIONS if self._has_relations else 1.0)
        return TailBound(self._breaking_student, self.embedding, weight)

    @property
    def _has_relations(self) -> bool:
        """Whether columns satisfy exact relations."""
        return self.embedding.metric.columns.n_relations > 0

    @property
    def _breaking_student(self) -> StudentT:
        """The t distribution of the background in all directions, relations included."""
        assert self.tail is not None
        return replace(self.tail.student, codimension=self.embedding.codimension)

    @property
    def data(self) -> NoisedData:
        """The training data or base of the model, whose score has a closed form."""
        assert isinstance(self.source, NoisedData)
        return self.source

    @property
    def _last_solver(self) -> Solver:
        """The solver for rows for which other solvers' steps are too long; `solver` if `tol` is None."""
        if self.tol is None:
            return self.solver
        return Adaptive(tol=max(self.tol, _LEAST_TOL) / _LAST_ERRORS, max_halvings=8)

    def _rough(self, solver: Solver, roughness: np.ndarray) -> np.ndarray:
        """Return the indices of rows to follow again, by the roughness (n,) of their flows."""
        if self._is_last(solver):
            return np.empty(0, dtype=int)
        assert self.tol is not None
        # Written so that NaN is followed again, too.
        return np.flatnonzero(~(roughness <= _MOST_ROUGHNESS * max(self.tol, _LEAST_TOL)))

    def _is_last(self, solver: Solver) -> bool:
        """Return whether no other solver follows rows again."""
        return self.tol is None or not isinstance(solver, Heun | Multistep)

    def n_rough(self, queries: np.ndarray, resources: Resources) -> int:
        """Return the number of queries (n, r) in the hull for which the solver's steps are too long."""
        assert isinstance(self.solver, ODESolver)
        schedule = self.source.schedule(resources)
        terminal, backend = self.source.terminal(schedule), schedule.backend
        x = backend.tensor(queries)
        result = log_density_with_error(
            self.solver, schedule, x, self.steps(), terminal.log_density
        )
        return len(self._rough(self.solver, backend.array(result.roughness)))

    def steps(self, finer: int = 1) -> list[Step]:
        """Return the steps of the solver from the bandwidth up; `finer` multiplies their number."""
        return list(self.levels.steps([finer * count for count in self.steps_of_levels]))

    def check_density(self) -> None:
        """Raise an error if the density of the distribution that is sampled cannot be computed."""
        if not isinstance(self.solver, ODESolver):
            raise ValueError(
                f"solver={self.solver!r} cannot compute log-densities; expected a deterministic "
                "solver that integrates them, such as solver='heun'. The density of what a stochastic "
                "solver, or Euler's method with its few steps, samples is not known."
            )
        if not self.source.has_divergence:
            raise ValueError(NO_DERIVATIVE)

    # ------------------------------------------------------------------------------ log-densities

    def log_density(
        self, X: np.ndarray, resources: Resources, *, with_error: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities (n,) of rows, and their estimated errors (n,), or NaN if unknown."""
        queries, residual = self.embedding.split(X)
        log_density, error = self.log_density_within(
            queries, residual, resources, with_error=with_error
        )
        return log_density + self.embedding.log_slopes(queries, residual), error

    def log_density_within(
        self,
        queries: np.ndarray,
        residual: np.ndarray,
        resources: Resources,
        *,
        with_error: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities of (mapped) rows, from hull coordinates (n, r) and residuals (n, d)."""
        flow, error = self._flow_log_density(queries, residual, resources, with_error=with_error)
        if not self.background:
            return flow, error
        log_density = self._mixed(self._parts(flow, queries, residual, resources))
        # Only the flow has an error; it is multiplied by the flow's share of the density.
        return log_density, error * (1 - self.background) * np.exp(flow - log_density)

    def leave_one_out_log_density(
        self, resources: Resources, own_weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the log-density (n_points,) at each point if its weight is reduced by `own_weights`.

        None removes all of the weight.
        """
        model = self if own_weights is None else self._with_copies_apart(own_weights)
        points, residual, exclude = model._excluded_points()
        flow, _ = model._flow_log_density(points, residual, resources, exclude)
        log_density = model._mixed(model._parts(flow, points, residual, resources, exclude))
        return log_density + self.embedding.log_slopes(points, residual)

    def excluded_log_density(
        self, X: np.ndarray, exclude: np.ndarray, resources: Resources
    ) -> np.ndarray:
        """Return log-densities (n,) of rows under the flow alone, without the points `exclude` (n,)."""
        queries, residual = self.embedding.split(X)
        log_density, _ = self._flow_log_density(queries, residual, resources, exclude)
        return self._per_unit_of_columns(log_density, queries, residual)

    def _with_copies_apart(self, own_weights: np.ndarray) -> DiffusionModel:
        """Return the model with points split in two: one of `own_weights` (n_points,) and the rest."""
        all_points = self.data.hierarchy
        points, weights = split_off_copies(all_points.points, all_points.weights, own_weights)
        hierarchy = PointHierarchy.of(points, weights, 0.0, self.bandwidth)
        return replace(self, source=replace(self.data, hierarchy=hierarchy))

    def reweighted(self, weights: np.ndarray) -> DiffusionModel:
        """Return the model with other weights (n_points,); points of weight 0 are dropped."""
        kept, all_points = weights > 0, self.data.hierarchy
        hierarchy = PointHierarchy.of(
            all_points.points[kept],
            weights[kept] / weights[kept].sum(),
            all_points.tolerance,
            all_points.finest,
        )
        points = self.data.points[kept]
        return replace(self, source=replace(self.data, hierarchy=hierarchy, points=points))

    def parts(self, X: np.ndarray, resources: Resources) -> np.ndarray:
        """Return log-densities (n, 3) of rows under the flow and the parts of the background."""
        queries, residual = self.embedding.split(X)
        flow, _ = self._flow_log_density(queries, residual, resources)
        parts = self._parts(flow, queries, residual, resources)
        return self._per_unit_of_columns(parts, queries, residual)

    def leave_one_out_parts(
        self, resources: Resources, queries: Queries | None = None
    ) -> np.ndarray:
        """Return log-densities (n, 3) of points, or at `queries` in the hull, under all other points."""
        points, residual, exclude = self._excluded_points()
        if queries is not None:
            points, exclude, _ = queries
            residual = np.zeros((len(points), residual.shape[1]))
        flow, _ = self._flow_log_density(points, residual, resources, exclude)
        parts = self._parts(flow, points, residual, resources, exclude)
        return self._per_unit_of_columns(parts, points, residual)

    def _per_unit_of_columns(
        self, parts: np.ndarray, queries: np.ndarray, residual: np.ndarray
    ) -> np.ndarray:
        """Return log-densities (n, k) per unit of X, from those per unit of the mapped columns."""
        log_slopes = self.embedding.log_slopes(queries, residual)
        return parts + (np.reshape(log_slopes, (-1, 1)) if parts.ndim == 2 else log_slopes)

    def _excluded_points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the training points, their residuals, which are zero, and their indices."""
        points = self.data.hierarchy.points[: len(self.data.points)]
        return points, np.zeros_like(self.data.points), np.arange(len(points))

    def _flow_log_density(
        self,
        queries: np.ndarray,
        residual: np.ndarray,
        resources: Resources,
        exclude: np.ndarray | None = None,
        *,
        with_error: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities under the flow alone, and their errors."""
        self.check_density()
        arrays = (queries,) if exclude is None else (queries, exclude)
        log_density, error, solver_error = self._over_workers(
            self._follow_up, *arrays, resources=resources, with_error=with_error
        ).T
        warn_of_error(self._last_solver, solver_error)
        return log_density + self.embedding.log_density_outside_hull(
            residual, self.bandwidth
        ), error

    def log_density_in_hull(self, queries: np.ndarray, resources: Resources) -> np.ndarray:
        """Return log-densities (n,) of rows (n, r) in the hull under the flow alone."""
        return self._follow_up(queries, resources=resources, with_error=False)[:, 0]

    def solver_errors(self, queries: np.ndarray, resources: Resources) -> np.ndarray:
        """Return the estimated errors (n,) of the solver, in nats, for rows (n, r) in the hull."""
        return self._follow_up(queries, resources=resources, with_error=True)[:, 1]

    def _follow_up(
        self,
        queries: np.ndarray,
        exclude: np.ndarray | None = None,
        *,
        resources: Resources,
        with_error: bool,
    ) -> np.ndarray:
        """Return log-density in the hull, its error, and the last solver's error, as columns (n, 3)."""
        k = self.source.n_probes
        result = np.empty((len(queries), 3))
        for part in tracked(list(self._parts_in_memory(len(queries), resources))):
            # Each row is followed once for every probe, whose log-densities are averaged.
            repeated = np.repeat(queries[part], k, axis=0)
            excluded = None if exclude is None else exclude[part]
            log_density, error, last_error = self._followed_by(
                self.solver, repeated, excluded, resources, with_error=with_error
            )
            by_probe = log_density.reshape(-1, k)
            solver_error = error.reshape(-1, k).max(axis=1)
            probe_error = by_probe.std(axis=1, ddof=1) / math.sqrt(k) if k > 1 else 0.0
            result[part, 0] = by_probe.mean(axis=1)
            result[part, 1] = np.hypot(solver_error, probe_error)
            result[part, 2] = last_error.reshape(-1, k).max(axis=1)
        return result

    def _followed_by(
        self,
        solver: Solver,
        queries: np.ndarray,
        exclude: np.ndarray | None,
        resources: Resources,
        *,
        with_error: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return log-densities (n,) by a solver, errors (n,), and errors (n,) of the last solver.

        Rows for which steps of `solver` are too long are followed by the next solver. Errors are NaN
        where they are not estimated, errors of the last solver also where it was not needed.
        """
        assert isinstance(solver, ODESolver)
        schedule = self.source.schedule(resources, exclude, len(queries))
        terminal, backend = self.source.terminal(schedule, exclude), schedule.backend
        result = log_density_with_error(
            solver,
            schedule,
            backend.tensor(queries),
            self.steps(),
            terminal.log_density,
            self.steps(2) if with_error else None,
        )
        log_density, error, roughness = map(backend.array, result)
        last_error = error if self._is_last(solver) else np.full_like(error, np.nan)
        rough = self._rough(solver, roughness)
        if len(rough):
            following = Heun() if isinstance(solver, Multistep) else self._last_solver
            excluded = None if exclude is None else exclude[rough]
            log_density[rough], error[rough], last_error[rough] = self._followed_by(
                following, queries[rough], excluded, resources, with_error=with_error
            )
        return log_density, error, last_error

    def _mixed(self, parts: np.ndarray) -> np.ndarray:
        """Return log-densities (n,) of the mixture from those of its parts (n, 3), or (n, 1)."""
        if self.tail is None:
            return parts[:, 0]
        return mixed(parts, self.background, self.tail.weight)

    def _parts(
        self,
        flow: np.ndarray,
        queries: np.ndarray,
        residual: np.ndarray,
        resources: Resources,
        exclude: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return log-densities (n, 3) under flow, KDE and t distribution; (n, 1) without background."""
        if self.tail is None:
            return flow[:, None]
        kernel = self.kde_log_density(queries, residual, WIDTH * self.bandwidth, resources, exclude)
        student, excluded = self.tail.student, None
        if exclude is not None:
            hierarchy = self.data.hierarchy
            excluded = student.leave_one_out_log_density(hierarchy.points, hierarchy.weights)
            excluded = excluded[exclude]
        tail = tail_log_density(student, self.embedding, queries, residual, excluded)
        return np.column_stack([flow, kernel, tail])

    def kde_log_density(
        self,
        queries: np.ndarray,
        residual: np.ndarray,
        scale: float,
        resources: Resources,
        exclude: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return log-densities (n,) under the Gaussian kernel density estimate of a bandwidth."""
        schedule = self.data.schedule(resources, exclude)
        terminal = EmpiricalTerminal(schedule, scale)
        within = schedule.backend.array(terminal.log_density(schedule.backend.tensor(queries)))
        return within + self.embedding.log_density_outside_hull(residual, scale)

    # ------------------------------------------------------------------------------------ samples

    def draw(self, n: int, rng: np.random.RandomState, resources: Resources) -> np.ndarray:
        """Return n draws (n, d), in units of X."""
        start = self.source.terminal(self.source.schedule(resources)).sample(rng, n)
        seed = rng.randint(2**31) if self.solver.is_stochastic else None
        followed = self._over_workers(
            self._follow_down, start, np.arange(n), n=n, seed=seed, resources=resources
        )
        coordinates = followed[:, :-1]
        warn_of_error(self.solver, followed[:, -1])
        scales, breaks_relations = np.full((n, 1), self.bandwidth), None
        if self.tail is not None:
            scale = WIDTH * self.bandwidth
            of_kernel = EmpiricalTerminal(self.data.schedule(resources), scale).sample(rng, n)
            of_tail, scales_of_tail = self.tail.student.draw(n, rng)
            _, _, heavy = part_weights(self.background, self.tail.weight)
            chosen = rng.uniform(size=(n, 1))
            coordinates = np.where(chosen < self.background, of_kernel, coordinates)
            is_tail = chosen < heavy
            coordinates = np.where(is_tail, of_tail, coordinates)
            scales[chosen < self.background] = scale
            scales = np.where(is_tail, scales_of_tail, scales)
            if self._has_relations:
                rare = rng.uniform(size=(n, 1)) < BREAKS_RELATIONS
                breaks_relations = is_tail & rare
        return self.embedding.rows(coordinates, scales, rng, breaks_relations)

    def _follow_down(
        self,
        start: np.ndarray,
        index: np.ndarray,
        *,
        n: int,
        seed: int | None,
        resources: Resources,
    ) -> np.ndarray:
        """Return k draws at the end of the flow, and the solver's errors as last column, (k, r + 1).

        `start` (k, r) are their starting points, `index` (k,) their indices among n. Errors may be NaN.
        """
        schedule = self.source.schedule(resources)
        backend = schedule.backend
        steps = [step.reversed() for step in reversed(self.steps())]
        result = np.empty((len(start), start.shape[1] + 1))
        for part in tracked(list(self._parts_in_memory(len(start), resources))):
            noise = np.random.RandomState(seed)

            def draw(noise: np.random.RandomState = noise, part: slice = part) -> torch.Tensor:
                # Noise is drawn for all n rows, so that it does not depend on how they are split.
                return backend.tensor(noise.standard_normal((n, start.shape[1]))[index[part]])

            x = backend.tensor(start[part])
            moved = solve_with_error(self.solver, schedule, x, steps, draw)
            end, error, roughness = map(backend.array, moved)
            rough = self._rough(self.solver, roughness)
            if len(rough):
                x = backend.tensor(start[part][rough])
                end[rough] = backend.array(solve_with_error(Heun(), schedule, x, steps, draw)[0])
            result[part] = np.column_stack([end, error])
        return result

    def trajectories(
        self, X: np.ndarray | None, n: int, rng: np.random.RandomState, resources: Resources
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return noise scales (m,) and the positions (m, n, d) of rows at each, in units of X.

        Rows X (n, d) are moved up to the terminal scale. If X is None, n draws are moved down from
        there. All positions are within the hull.
        """
        schedule = self.source.schedule(resources)
        backend, steps = schedule.backend, self.steps()
        if X is not None:
            start, _ = self.embedding.split(X)
        else:
            start = self.source.terminal(schedule).sample(rng, n)
            steps = [step.reversed() for step in reversed(steps)]
        noise = np.random.RandomState(rng.randint(2**31)) if self.solver.is_stochastic else rng

        def draw() -> torch.Tensor:
            return backend.tensor(noise.standard_normal(start.shape))

        x = backend.tensor(start)
        solver = initial_state(self.solver, x, len(steps))
        scales, rows = [steps[0].start], [self.embedding.rows_within(start)]
        for step in steps:
            x = solve(solver, schedule, x, [step], draw)
            scales.append(step.end)
            rows.append(self.embedding.rows_within(backend.array(x)))
        return self.unit * np.array(scales), np.array(rows)

    # --------------------------------------------------------------------------- one noise scale

    def score_at(self, X: np.ndarray, scale: float, resources: Resources) -> np.ndarray:
        """Return the score (n, d) at a noise scale, along the columns of X."""
        queries, residual = self.embedding.split(X)
        schedule = self.source.schedule(resources)
        field, backend = schedule.at_scale(scale), schedule.backend
        within = np.empty_like(queries)
        for part in tracked(list(self._parts_in_memory(len(X), resources))):
            within[part] = backend.array(field(backend.tensor(queries[part]), scale**2))
        gradient = self.embedding.gradient(within, residual, scale**2)
        warp = self.embedding.metric.columns.warp
        if warp is None:
            return gradient
        return gradient * warp.slopes(X) + warp.log_slope_gradient(X)

    def laplacian_at(self, X: np.ndarray, scale: float, resources: Resources) -> np.ndarray:
        """Return the divergence (n,) of the score at a noise scale, in a Euclidean metric."""
        if not self.source.has_divergence:
            raise ValueError(NO_DERIVATIVE)
        queries, _ = self.embedding.split(X)
        k = self.source.n_probes
        within = np.empty(len(X))
        for part in tracked(list(self._parts_in_memory(len(X), resources))):
            repeated = np.repeat(queries[part], k, axis=0)
            schedule = self.source.schedule(resources, None, len(repeated))
            backend, field = schedule.backend, schedule.at_scale(scale)
            if isinstance(field, SmoothedScore):
                # At one scale errors of a quadrature do not average out as they do along the flow.
                field = field.by_traces()
            _, divergence = field.with_divergence(backend.tensor(repeated), scale**2)
            within[part] = backend.array(divergence).reshape(-1, k).mean(axis=1)
        laplacian = within - self.embedding.hull.codimension / scale**2
        return per_unit("laplacian_log_density", laplacian, self.unit, self.unit)

    def energy_at(self, X: np.ndarray, scale: float, resources: Resources) -> np.ndarray:
        """Return minus the averaged log-density (n,) at a noise scale, in nats."""
        queries, residual = self.embedding.split(X)
        schedule = self.source.schedule(resources)
        field, backend = schedule.at_scale(scale), schedule.backend
        if not isinstance(field, Potential):
            raise ValueError(
                "energy is not defined for a kernel that differs between queries, since its score "
                "field is not a gradient. Use score_samples for log-densities, grad_log_density "
                "for the field."
            )
        within = field.log_density(backend.tensor(queries), scale**2)
        outside = self.embedding.log_density_outside_hull(residual, scale)
        return -backend.array(within) - outside - self.embedding.log_slopes(queries, residual)

    def influence_at(
        self, X: np.ndarray, scale: float, resources: Resources
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return effective sample sizes (n,) and variances (n, d) of the score in scaled columns."""
        queries, _ = self.embedding.split(X)
        result = self._over_workers(
            self._influence_within, queries, resources=resources, scale=scale
        )
        warp = self.embedding.metric.columns.warp
        slopes = 1.0 if warp is None else warp.slopes(X)
        return result[:, 0], result[:, 1:] * slopes**2

    def _influence_within(
        self, queries: np.ndarray, *, resources: Resources, scale: float
    ) -> np.ndarray:
        schedule = self.data.schedule(resources, merged=False)
        backend, field = schedule.backend, schedule.at_scale(scale)
        assert isinstance(field, Attributable)
        # Maps derivatives of the posterior mean to the (mapped) columns of X.
        axes = backend.tensor(self.embedding.axes * self.embedding.metric.columns.scales)
        result = np.empty((len(queries), 1 + axes.shape[1]))
        bytes_per_query = 32 * len(self.data.points) * (1 + len(axes) + axes.shape[1])
        at_once = rows_within(bytes_per_query, resources.memory_limit)
        for part in slices(len(queries), at_once):
            weights, derivatives = field.influence(backend.tensor(queries[part]), scale**2)
            variance = (derivatives @ axes).square().sum(1) / scale**4
            sizes = 1 / weights.square().sum(1, keepdim=True)
            result[part] = backend.array(torch.cat([sizes, variance], dim=1))
        return result

    def _over_workers(
        self,
        work: Callable[..., np.ndarray],
        *arrays: np.ndarray,
        resources: Resources,
        **shared: Any,
    ) -> np.ndarray:
        """Return the results of `work` on rows that are split over workers; the split has no effect."""
        # With shards each process is a worker already, and all must make the same exchanges.
        n_jobs = resources.n_jobs if resources.shards.alone else 1
        return over_workers(n_jobs, work, *arrays, resources=resources, **shared)

    def _parts_in_memory(self, n: int, resources: Resources) -> Iterator[slice]:
        return slices(n, self.source.rows_at_once(resources.memory_limit) or n)
