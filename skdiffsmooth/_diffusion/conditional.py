"""The distribution of some columns given the others, by a flow of the free columns.

A Gaussian kernel with a bandwidth for each column is a product, so its mixture has the conditional

    p(a | b) = sum_i W_i(b) N(a; x_ia, h_a^2),    W_i(b) = softmax_i( log w_i - |b - x_ib|^2 / 2 h_b^2 ).

A smoothed score has none in closed form. Here the given columns keep the noise of the bandwidth h at all
levels, and the free ones go through the noise levels v as ever. Averaged over the kernel's joint offsets
(xi_a, xi_b),

    l(a; v, b) = E log sum_i w_i N(a + xi_a; x_ia, v I) N(b + xi_b; x_ib, h^2 I)

has a gradient in a that is the score of a diffusion in the free columns, one for every b. Its flow
down from the conditional of the noised data, sum_i W_i(b) N(x_ia, T I), defines a normalised p(a | b)
that can be sampled. Without smoothing it is the conditional of the KDE; where the density of the data is
Gaussian, or a product of one in a and one in b, it is that of the joint distribution; otherwise it is
close to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import logsumexp

from .._coordinates.frame import Frame
from .._engine.moments import Moments, Nodes
from .._engine.posterior import Posterior
from .._utils.backend import Backend
from .._utils.draws import draw_given
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.parallel import over_workers
from ..kernels import FrozenKernel
from ..noise import NoiseLevels, Step
from ..solvers import ODESolver, Solver, estimates_error, solve
from ..solvers._flow import flow_log_density
from .background import WIDTH, part_weights
from .model import DiffusionModel
from .settings import Resources
from .tails import ConditionalT

__all__ = ["Conditional", "ConditionalFlow", "conditional_of"]


@dataclass(frozen=True)
class _ConditionalScore:
    """The score of the free columns at one noise level; every query has its own given values.

    Given columns of points, queries and offsets are multiplied by the noise scale over the bandwidth:
    then both kinds of columns have noise of one scale, and the engine's factorised sums can be used.
    """

    flow: ConditionalFlow
    offsets: np.ndarray
    weights: np.ndarray
    values: np.ndarray

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        return (self._moments(x, v, trace=False).mean[:, : x.shape[1]] - x) / v

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        moments = self._moments(x, v, trace=True)
        assert moments.trace is not None
        score = (moments.mean[:, : x.shape[1]] - x) / v
        return score, (moments.trace / v - x.shape[1]) / v

    def _moments(self, x: torch.Tensor, v: float, *, trace: bool) -> Moments:
        flow, scale = self.flow, math.sqrt(v)
        offsets = flow.stretched(self.offsets, scale)
        nodes = Nodes.from_arrays(offsets, self.weights, flow.backend)
        values = flow.backend.tensor(self.values * (scale / flow.bandwidth))
        queries = torch.cat([x, values], dim=1)
        return flow.posterior(scale).moments(queries, v, nodes, trace=trace)


@dataclass(frozen=True)
class _ConditionalSchedule:
    """One score field for each noise level, for queries that have their own given values."""

    flow: ConditionalFlow
    values: np.ndarray

    def at(self, level: int) -> _ConditionalScore:
        return _ConditionalScore(self.flow, *self.flow.nodes(level), self.values)


@dataclass(frozen=True)
class ConditionalFlow:
    """The distribution of the free columns given the others, under the flow of a smoothed score.

    All arrays have the free columns first, and are centred: rounding grows with the distance from the
    origin.
    """

    points: np.ndarray
    """Shape (n_points, d)."""
    weights: np.ndarray
    """Of the points; they sum to one."""
    n_free: int
    """Number of columns that are not given."""
    bandwidth: float
    """Noise scale h of the given columns, and where the flow of the others ends."""
    levels: NoiseLevels
    steps: list[Step]
    """From the bandwidth up."""
    kernel: FrozenKernel
    axes: np.ndarray
    """Maps the kernel's offsets to columns, shape (d, r)."""
    is_empirical: bool
    """Whether the flow starts from the noised data; from a Gaussian about their mean otherwise."""
    solver: Solver
    backend: Backend
    memory_limit: float

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel's offsets (M, d) and their weights (M,) at a noise level."""
        offsets, weights = self.kernel.nodes(level)
        return offsets @ self.axes.T, weights

    def stretched(self, rows: np.ndarray, scale: float) -> np.ndarray:
        """Return rows whose given columns are multiplied by scale / bandwidth.

        Their noise, which is that of the bandwidth, becomes `scale`.
        """
        stretch = np.ones(rows.shape[1])
        stretch[self.n_free :] = scale / self.bandwidth
        return rows * stretch

    def posterior(self, scale: float) -> Posterior:
        """Return the posterior of stretched points at a noise scale; traces are of free columns."""
        points = self.stretched(self.points, scale)
        trace_weights = np.arange(points.shape[1]) < self.n_free
        return Posterior(
            self.backend.tensor(points),
            self.backend.tensor(np.log(self.weights)),
            memory_limit=self.memory_limit,
            radius=float(np.linalg.norm(points, axis=1).max()),
            trace_weights=self.backend.tensor(trace_weights),
        )

    def log_density(self, rows: np.ndarray) -> np.ndarray:
        """Return the log-density of each row's free columns given its others, in nats."""
        free, values = rows[:, : self.n_free], rows[:, self.n_free :]
        assert isinstance(self.solver, ODESolver)
        log_density = flow_log_density(
            self.solver,
            _ConditionalSchedule(self, values),
            self.backend.tensor(free),
            self.steps,
            lambda x: self._terminal_log_density(x, values),
        )
        return self.backend.array(log_density)

    def start(self, rng: np.random.RandomState, values: np.ndarray) -> np.ndarray:
        """Draw free columns (n, n_free) from the terminal distribution, one row for each value."""
        free = self.points[:, : self.n_free]
        noise = self.levels.terminal_scale * rng.standard_normal((len(values), self.n_free))
        if not self.is_empirical:
            return self.weights @ free + noise
        centers = draw_given(
            rng,
            self.points[:, self.n_free :] / self.bandwidth,
            np.log(self.weights),
            values / self.bandwidth,
            self.memory_limit,
        )
        return free[centers] + noise

    def follow(
        self, start: np.ndarray, values: np.ndarray, rows: np.ndarray, *, n: int, seed: int | None
    ) -> np.ndarray:
        """Move draws (m, n_free) along the flow from the terminal scale to the bandwidth.

        `rows` (m,) are their indices among all n draws, for which a stochastic solver draws noise.
        """
        rng = np.random.RandomState(seed)

        def draw() -> torch.Tensor:
            return self.backend.tensor(rng.standard_normal((n, self.n_free))[rows])

        end = solve(
            self.solver,
            _ConditionalSchedule(self, values),
            self.backend.tensor(start),
            [step.reversed() for step in reversed(self.steps)],
            draw,
        )
        return self.backend.array(end)

    def given_log_density(self, values: np.ndarray) -> np.ndarray:
        """Return the log-density of given columns, for data with the bandwidth's noise."""
        posterior = Posterior(
            self.backend.tensor(self.points[:, self.n_free :]),
            self.backend.tensor(np.log(self.weights)),
            memory_limit=self.memory_limit,
        )
        return self.backend.array(
            posterior.log_density(self.backend.tensor(values), self.bandwidth**2)
        )

    def _terminal_log_density(self, x: torch.Tensor, values: np.ndarray) -> torch.Tensor:
        scale = self.levels.terminal_scale
        if not self.is_empirical:
            mean = self.backend.tensor(self.weights @ self.points[:, : self.n_free])
            normalizer = gaussian_log_normalizer(self.n_free, scale**2)
            return -0.5 * ((x - mean) / scale).square().sum(1) - normalizer
        # p(x | b) = p(x, b) / p(b), both in stretched columns, whose Jacobians cancel.
        given = Posterior(
            self.backend.tensor(self.stretched(self.points, scale)[:, self.n_free :]),
            self.backend.tensor(np.log(self.weights)),
            memory_limit=self.memory_limit,
        )
        b = self.backend.tensor(values * (scale / self.bandwidth))
        joint = self.posterior(scale).log_density(torch.cat([x, b], dim=1), scale**2)
        return joint - given.log_density(b, scale**2)


@dataclass(frozen=True)
class Conditional:
    """The distribution of free columns given the others: a mixture of flow and background.

    A part of weight c and density p(b) has, given b, a weight proportional to c p(b). The flow's own
    marginal has no closed form; that of the data under the bandwidth's noise is used in its place.
    """

    frame: Frame
    flow: ConditionalFlow
    part_weights: np.ndarray
    """Of flow, kernel density estimate and t distribution, shape (3,)."""
    background_scale: float
    tail: ConditionalT | None
    """The t distribution of the background in the frame; None without a background."""

    @property
    def background_flow(self) -> ConditionalFlow:
        """The background, a KDE, as a flow without steps."""
        levels = NoiseLevels(self.background_scale, self.background_scale, 1)
        still = FrozenKernel(self.flow.kernel.shape, np.zeros(1), self.flow.kernel.rule)
        return replace(
            self.flow,
            bandwidth=self.background_scale,
            levels=levels,
            steps=[],
            kernel=still,
            is_empirical=True,
        )

    def log_weights(self, given: np.ndarray) -> np.ndarray:
        """Return the log-weights (n, 3) of flow, kernel estimate and tail for rows of given values."""
        assert self.tail is not None
        parts = [flow.given_log_density(given) for flow in (self.flow, self.background_flow)]
        parts.append(self.tail.given.log_density(given))
        joint = np.column_stack(parts) + np.log(self.part_weights)
        return joint - logsumexp(joint, axis=1, keepdims=True)

    def log_density(self, X: np.ndarray, n_jobs: int | None) -> np.ndarray:
        """Return the log-density of each row's free columns given its others, in nats."""
        return over_workers(n_jobs, self._log_density, X)

    def _log_density(self, X: np.ndarray) -> np.ndarray:
        rows = self.frame.coordinates(X)
        log_density = self.flow.log_density(rows)
        if self.tail is not None:
            parts = [
                log_density,
                self.background_flow.log_density(rows),
                self.tail.log_density(rows),
            ]
            weights = self.log_weights(rows[:, self.flow.n_free :])
            log_density = logsumexp(np.column_stack(parts) + weights, axis=1)
        return log_density + self.frame.log_volume

    def draw(
        self, rng: np.random.RandomState, values: np.ndarray, n_jobs: int | None
    ) -> np.ndarray:
        """Return rows (n, d) in units of X, one for each row of given values (n, n_given)."""
        given, n = self.frame.given(values), len(values)
        start = self.flow.start(rng, given)
        seed = rng.randint(2**31) if self.flow.solver.is_stochastic else None
        free = over_workers(n_jobs, self.flow.follow, start, given, np.arange(n), n=n, seed=seed)
        if self.tail is not None:
            cumulative = np.exp(self.log_weights(given)).cumsum(axis=1)
            chosen = rng.uniform(size=(n, 1))
            kernel, tail = self.background_flow.start(rng, given), self.tail.draw(rng, given)
            free = np.where(chosen < cumulative[:, :1], free, kernel)
            free = np.where(chosen < cumulative[:, 1:2], free, tail)
        return self.frame.rows(free, given)


def conditional_of(model: DiffusionModel, columns: np.ndarray, resources: Resources) -> Conditional:
    """Return the distribution of the other columns given the columns of some indices."""
    data = model.data
    if data.shards is not None:
        raise ValueError(
            f"given cannot be combined with shards={data.shards!r}; fit a subsample with shards=None "
            "and pass metric_, bandwidth_, sigma_ and background_ of this model as its parameters."
        )
    if estimates_error(model.solver):
        raise ValueError(
            f"given cannot be combined with solver={model.solver!r}; use solver='heun', with more "
            "n_steps where that is not accurate enough."
        )
    if data.base is not None:
        raise ValueError("given cannot be combined with a base; leave base at None.")
    if not isinstance(data.smoothing, FrozenKernel):
        raise ValueError(
            "given needs a kernel whose offsets are the same for all queries; this kernel has "
            "offsets that differ between queries, or none. Use SmoothedScoreDiffusion with "
            "kernel='gaussian' or 'uniform-ball'."
        )
    hull, levels = model.embedding.hull, model.levels
    frame = Frame.of(model.embedding.metric, hull.center, columns)
    points, weights = data.hierarchy.at(levels.bandwidth)
    centered = (hull.lift(points) - hull.center) @ frame.axes
    # At the last level the given columns are stretched by the terminal scale over the bandwidth.
    largest = np.abs(centered).max() * levels.terminal_scale / levels.bandwidth
    largest = max(largest, levels.terminal_scale)
    flow = ConditionalFlow(
        centered,
        weights,
        len(frame.axes) - len(columns),
        levels.bandwidth,
        levels,
        model.steps(),
        data.smoothing,
        frame.axes.T @ hull.basis,
        data.terminal_name == "empirical",
        model.solver,
        resources.backend.promote_to_float64(levels.bandwidth, largest),
        resources.memory_limit,
    )
    tail, weights = None, np.array([1.0, 0.0, 0.0])
    if model.tail is not None:
        student = model.tail.student
        weights = np.array(part_weights(model.background, model.tail.weight), dtype=np.float64)
        inside = flow.axes @ student.factor
        outside = np.eye(len(frame.axes)) - flow.axes @ flow.axes.T
        scatter = inside @ inside.T + student.residual_scale**2 * outside
        tail = ConditionalT.of(flow.axes @ student.center, scatter, student.degrees, flow.n_free)
    return Conditional(frame, flow, weights, WIDTH * levels.bandwidth, tail)
