"""Conditionals and marginals of a joint density, by importance weights.

With the joint log-density log p(a, b) of a model and draws a_j of a wider proposal q(a | b),

    w_j = p(a_j, b) / q(a_j | b),    p(b) = E w,    p(a | b) = p(a, b) / p(b),

and draws of p(a | b) are the a_j, resampled by their weights. Proposals are the conditionals of
kernel density estimates (`proposal.py`) of three widths; how much each is used is adapted to the
weights, row by row. The same quasi-random numbers are used for all rows. With one free column the
draws are the nodes of a quadrature rule: E w = int_0^1 w dt in the distribution function t of q, by
the trapezoidal rule, and draws are those of the interpolated density.

A periodic column is unrolled to the line. The density is multiplied by a window phi(a) that spans two
periods and whose shifts by whole periods sum to one, so that integrals over the line are those over one
period; kernels have images at whole periods, and draws are wrapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import chdtri, logsumexp, ndtri
from scipy.stats import qmc

from .._coordinates.frame import Frame
from .._coordinates.hull import principal_axes
from .._coordinates.warp import ColumnWarp
from .._utils.backend import Backend
from .._utils.draws import choose_in_rows
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import slices_within
from .._utils.periods import reduced, wrapped
from .._utils.progress import tracked
from .._utils.shards import ONE_PROCESS
from .._utils.support import warn_of_far_values
from .._utils.units import column_norms
from .._utils.warnings import warn_user
from ..bandwidth import gaussian_leave_one_out
from ..kernels import FrozenKernel
from .model import DiffusionModel
from .proposal import ConditionalKernels, KernelMixture
from .settings import Resources
from .source import NoisedData

# Draws of the first round for each row; each further round doubles their number. With one free column
# the first round has fewer where a tolerance is passed.
_FIRST, _FEW = 64, 32
_MOST = 4096
# With one free column: nodes that each further round adds where errors are largest, and most nodes.
_REFINED = 48
_MOST_NODES = 512
# Errors of log p(b), in nats, at which no more draws are made: with one free column (where the estimate
# of the error is some ten times too large), with two, with more.
_TOLERANCES = 0.01, 0.008, 0.05
# Effective draws at which no more are drawn before they are resampled; fewer give a warning.
_LEAST_EFFECTIVE = 24.0
# Independent scramblings of the quasi-random numbers, from which standard errors are computed. Draws end
# where an error is small, so one that is small by chance would end them too early: it is at least this
# share of the error of half as many draws. With 8 scramblings and no such bound true errors were 1.5
# times the reported ones (rms), and up to 5.5 times.
_N_SCRAMBLINGS, _LEAST_RATIO = 16, 0.5
# Initial weights of the proposals, and the least weight of each. Bounded importance weights need the
# last one, whose kernels have the tails of a Cauchy distribution.
_WEIGHTS = np.array([0.3, 0.6, 0.1])
_LEAST_WEIGHT = 0.05
_TAIL_DEGREES = 1.0
# With one free column, further nodes at the outermost draws plus these multiples of their distance.
_TAIL_NODES = 4.0 ** np.arange(6)
# Metropolis moves of draws, where one was resampled more than once.
_N_MOVES = 5
# Relations are narrow if rounding along them moves rows by less than this, in bandwidths: log-densities
# then change by the square of it.
_NARROW = 1e-3
# A standard error, in nats, that is reported by a warning.
_LARGE_ERROR = 0.25
# Centers of proposals for a density that is known by its draws.
N_CENTERS = 1024
# Memory limit, in MiB, of the leave-one-out sums that choose the bandwidth at these centers.
_MEMORY_LIMIT = 256.0


@dataclass(frozen=True, eq=False)
class JointDensity:
    """A joint density of rows origin + y @ axes, with the kernels of its proposals.

    These rows are those of X, or what the maps of some columns make of them.
    """

    # Maps rows (n, d) to log-densities (n,) in nats, per unit of X
    log_density_of_rows: Callable[[np.ndarray], np.ndarray]
    # The same for coordinates y (n, d), per unit of the rows origin + y @ axes
    log_density: Callable[[np.ndarray], np.ndarray]
    origin: np.ndarray  # (d,): the row at y = 0
    axes: np.ndarray  # (d, d): from coordinates to columns
    log_abs_det: float  # Log |det axes|
    centers: np.ndarray  # (N, d): coordinates of the centers of kernels
    weights: np.ndarray  # (N,): their weights
    scales: np.ndarray  # (3, d): widths of Gaussian kernels, of wider ones, and of t kernels
    warp: ColumnWarp | None = None  # The maps of columns
    # How many of the last coordinates are rounding errors along relations between the columns
    n_relations: int = 0
    # (d,): periods of the columns, 0 where one has none; None where no column has one
    periods: np.ndarray | None = None

    @classmethod
    def of_model(cls, model: DiffusionModel, resources: Resources) -> JointDensity:
        """Return the density of a model, with proposals at its training rows or at draws of it."""
        model.check_density()
        if not isinstance(model.source, NoisedData) or model.source.base is not None:
            rows = model.draw(N_CENTERS, np.random.RandomState(0), resources)
            return cls.of_draws(lambda X: model.log_density(X, resources)[0], rows)
        hull, metric, h = model.embedding.hull, model.embedding.metric, model.bandwidth
        columns, r, smoothing = metric.columns, hull.dimension, model.source.smoothing
        # Outside the hull, coordinates are in standard deviations of the noise.
        relations = columns.relation_axes()
        lengths = np.linalg.norm(relations, axis=1)
        complement = h * np.linalg.qr(hull.basis, mode="complete")[0][:, r:].T

        def log_density(y: np.ndarray) -> np.ndarray:
            residual = y[:, r : r + len(complement)] @ complement
            if columns.n_relations:
                residual = columns.lift(residual) + y[:, r + len(complement) :] @ relations
            return model.log_density_within(y[:, :r], residual, resources)[0]

        sigma = smoothing.scales[0] if isinstance(smoothing, FrozenKernel) else h
        widths = np.sqrt(h**2 + sigma**2 * np.array([1 / 16, 1 / 4, 1.0]))
        scales = np.ones((3, columns.n_features))
        scales[:, :r] = widths[:, None]
        if model.tail is not None:
            # The t distribution of the background has one width outside the hull, whatever the noise.
            stds = np.concatenate([np.full(len(complement), h), lengths])
            scales[2, r:] = np.maximum(1.0, model.tail.student.residual_scale / stds)
        points, weights = model.source.hierarchy.at(h)
        if model.source.periods is not None:
            points, weights = _with_images(points, weights, model.source.periods)
        steps = [metric.steps_from_metric(np.vstack([hull.basis.T, complement]))]
        log_lengths = len(complement) * math.log(h) + float(np.log(lengths).sum())
        return cls(
            lambda X: model.log_density(X, resources)[0],
            log_density,
            columns.origin + metric.scaled_from_metric(hull.center[None])[0] * columns.scales,
            np.vstack([*steps, relations * columns.scales]),
            log_lengths - metric.log_abs_det,
            np.pad(points, ((0, 0), (0, columns.n_features - r))),
            weights,
            scales,
            columns.warp,
            columns.n_relations,
            columns.periods,
        )

    @classmethod
    def of_draws(
        cls, log_density: Callable[[np.ndarray], np.ndarray], rows: np.ndarray
    ) -> JointDensity:
        """Return a density of rows (n, d), with proposals at draws (N, d) of it."""
        origin = rows.mean(axis=0)
        units = column_norms(rows - origin) / math.sqrt(len(rows))
        units[units == 0] = 1.0
        centered = (rows - origin) / units
        singular_values, directions = principal_axes(centered, ONE_PROCESS)
        if len(directions) < len(origin):
            raise ValueError(
                f"{len(rows)} draws do not span {len(origin)} columns; expected fewer columns."
            )
        stds = singular_values / math.sqrt(len(rows))
        stds = np.maximum(stds, 1e-12 * stds.max())
        axes = stds[:, None] * directions * units
        centers = centered @ (directions.T / stds)
        weights = np.full(len(rows), 1 / len(rows))
        h = gaussian_leave_one_out(
            centers, weights, 0, Backend.from_params("cpu", "float64"), _MEMORY_LIMIT
        )
        return cls(
            log_density,
            lambda y: log_density(origin + y @ axes),
            origin,
            axes,
            float(np.log(stds).sum() + np.log(units).sum()),
            centers,
            weights,
            np.outer([h, 1.3 * h, 2 * h], np.ones(len(origin))),
        )

    def mapped(
        self, values: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """Return mapped values (n, k) of some columns, and the log (n,) of the product of slopes."""
        if self.periods is not None:
            values = values.copy()
            for k, column in enumerate(columns):
                if self.periods[column]:
                    origin, period = self.origin[column], self.periods[column]
                    values[:, k] = origin + wrapped(values[:, k] - origin, period)
        if self.warp is None:
            return values, 0.0
        warp, rows = self.warp.only(columns), np.zeros((len(values), len(self.origin)))
        rows[:, columns] = values
        return warp.mapped(rows)[:, columns], warp.log_slopes(rows)

    def unmapped(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (n, d) of X from those of the mapped columns."""
        X = rows if self.warp is None else self.warp.unmapped(rows)
        return X if self.periods is None else reduced(X, self.periods)

    def log_windowed(self, y: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return log-densities (n,) of coordinates y (n, d), windowed in free periodic columns.

        The window cos^2(pi u / 2 P), |u| <= P, of differences u from the origin and its shifts by
        periods P sum to one. Columns of the indices `given` have none.
        """
        if self.periods is None:
            return self.log_density(y)
        free = np.setdiff1d(np.flatnonzero(self.periods), given)
        turns = (y @ self.axes[:, free]) / self.periods[free]
        window = np.prod(
            np.where(np.abs(turns) < 1, np.cos(0.5 * math.pi * turns) ** 2, 0.0), axis=1
        )
        log_density = np.full(len(y), -np.inf)
        inside = window > 0
        if inside.any():
            log_density[inside] = self.log_density(y[inside]) + np.log(window[inside])
        return log_density

    def log_density_without_relations(
        self, columns: np.ndarray, values: np.ndarray
    ) -> np.ndarray | None:
        """Return log-densities (n,) of values (n, k) of columns that determine all others.

        They do where relations are as many as other columns, and so narrow that the density is constant
        across them: then their Gaussian factor integrates to one. Otherwise None is returned.
        """
        d = len(self.origin)
        if not self.n_relations or d - len(columns) != self.n_relations:
            return None
        to_columns = self.axes[:, columns]
        units = column_norms(to_columns)
        axes, rounding = np.split(to_columns / units, [len(columns)])
        widths = self.scales[0, : len(columns), None]
        least_step = np.linalg.svd(widths * axes, compute_uv=False)[-1]
        if np.linalg.norm(rounding) > _NARROW * least_step:
            return None
        values, log_slopes = self.mapped(values, columns)
        y = np.linalg.solve(axes.T, ((values - self.origin[columns]) / units).T).T
        normalizer = gaussian_log_normalizer(self.n_relations)
        log_density = self.log_density(np.pad(y, ((0, 0), (0, self.n_relations))))
        log_volume = np.linalg.slogdet(axes)[1] + np.log(units).sum()
        return log_density + self.log_abs_det + normalizer - float(log_volume) + log_slopes


@dataclass(frozen=True, eq=False)
class _Pool:
    """Draws for n rows of given values, with importance weights; unused ones have weight zero.

    With one free column the draws of each row are in increasing order.
    """

    kernels: list[ConditionalKernels]
    coordinates: np.ndarray
    """Shape (n, m, d)."""
    log_target: np.ndarray
    """Log p(a_j, b), (n, m)."""
    log_proposals: np.ndarray
    """Log-densities (n, m, n_kernels) of the proposals."""
    cdfs: np.ndarray
    """With one free column, their distribution functions."""
    log_ratio: np.ndarray
    """Log w_j, (n, m)."""
    position: np.ndarray
    """With one free column, the distribution function (n, m) of the mixture of proposals."""
    cell_errors: np.ndarray
    """With one free column, relative errors (n, m - 1) of the rule between neighbouring nodes."""
    log_masses: np.ndarray
    """Logarithms (n, m) of the parts of p(b)."""
    log_marginal: np.ndarray
    """Log p(b), (n,)."""
    error: np.ndarray
    """Its standard error (n,), in nats."""
    effective: np.ndarray
    """Effective numbers (n,) of draws."""

    @classmethod
    def empty(cls, n: int, m: int, d: int, kernels: list[ConditionalKernels]) -> _Pool:
        """Return a pool without draws."""
        low = np.full((n, m), -np.inf)
        parts = np.full((n, m, len(kernels)), -np.inf)
        return cls(
            kernels,
            np.zeros((n, m, d)),
            low,
            parts,
            np.full_like(parts, np.inf),
            low.copy(),
            np.full((n, m), np.inf),
            np.zeros((n, m - 1)),
            low.copy(),
            np.full(n, -np.inf),
            np.full(n, np.inf),
            np.zeros(n),
        )

    def add(
        self,
        active: np.ndarray,
        stop: int,
        drawn: np.ndarray,
        log_target: np.ndarray,
        kernels: list[ConditionalKernels],
    ) -> None:
        """Add draws (k, m, d) of rows `active` (k,) before index `stop`."""
        part = slice(stop - drawn.shape[1], stop)
        self.coordinates[active, part] = drawn
        self.log_target[active, part] = log_target
        for k, each in enumerate(kernels):
            self.log_proposals[active, part, k] = each.log_density(drawn)
            if each.centers.shape[1] == 1:
                self.cdfs[active, part, k] = each.cdf(drawn)

    def midpoints(self, active: np.ndarray, stop: int, n: int) -> np.ndarray:
        """Return the midpoints (k, n, d) of the cells of largest errors among the first `stop` nodes."""
        worst = np.argsort(-self.cell_errors[active, : stop - 1], axis=1, kind="stable")[
            :, :n, None
        ]
        nodes = self.coordinates[active, :stop]
        middle = (nodes[:, 1:] + nodes[:, :-1]) / 2
        return np.take_along_axis(middle, worst, axis=1)

    def update(self, active: np.ndarray, stop: int, weights: np.ndarray) -> np.ndarray:
        """Compute results of rows `active` from `stop` draws; return the kernels' shares of p(b)."""
        used = active, slice(stop)
        with np.errstate(divide="ignore"):
            log_parts = self.log_proposals[used] + np.log(weights)[:, None]
        log_mixture = logsumexp(log_parts, axis=2)
        log_ratio = self.log_target[used] - log_mixture
        if self.kernels[0].centers.shape[1] == 1:
            position = np.einsum("nmk,nk->nm", self.cdfs[used], weights)
            order = np.argsort(position, axis=1, kind="stable")
            position = np.take_along_axis(position, order, axis=1)
            log_ratio = np.take_along_axis(log_ratio, order, axis=1)
            with np.errstate(divide="ignore"):
                log_masses = log_ratio + np.log(_quadrature(position))
            log_marginal = logsumexp(log_masses, axis=1)
            self.position[used] = position
            for array in (self.log_target, self.log_proposals, self.cdfs, self.coordinates):
                indices = order if array.ndim == 2 else order[:, :, None]
                array[used] = np.take_along_axis(array[used], indices, axis=1)
            log_parts = np.take_along_axis(log_parts, order[:, :, None], axis=1)
            log_mixture = np.take_along_axis(log_mixture, order, axis=1)
            free = self.kernels[0].free(self.coordinates[used])[:, :, 0]
            ratio = np.exp(log_ratio - log_marginal[:, None])
            self.cell_errors[active, : stop - 1] = _cell_errors(position, free, ratio)
            error = self.cell_errors[active, : stop - 1].sum(axis=1)
        else:
            log_masses = log_ratio - math.log(stop)
            log_marginal = logsumexp(log_masses, axis=1)
            ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
            means = ratio.reshape(len(active), -1, _N_SCRAMBLINGS).mean(axis=1)
            error = means.std(axis=1, ddof=1) / math.sqrt(_N_SCRAMBLINGS) / means.mean(axis=1)
            before = self.error[active]
            error = np.maximum(error, np.where(np.isfinite(before), _LEAST_RATIO * before, 0.0))
            # The logarithm of a mean is biased.
            log_marginal += np.minimum(error, 0.5) ** 2 / 2
        self.log_ratio[used], self.log_masses[used] = log_ratio, log_masses
        self.log_marginal[active], self.error[active] = log_marginal, error
        masses = np.exp(log_masses - logsumexp(log_masses, axis=1, keepdims=True))
        self.effective[active] = 1 / np.sum(masses**2, axis=1)
        return np.einsum("nm,nmk->nk", masses, np.exp(log_parts - log_mixture[:, :, None]))


class BaseDraws:
    """Quasi-random numbers for the draws of all rows; the first k are the same at every length."""

    def __init__(self, n: int, n_free: int, degrees: float, seed: int | tuple[int, ...]) -> None:
        per_scrambling = n // _N_SCRAMBLINGS
        generators = np.random.default_rng(seed).spawn(_N_SCRAMBLINGS)
        engines = [qmc.Sobol(n_free + 2, scramble=True, rng=each) for each in generators]
        uniform = np.stack([engine.random(per_scrambling) for engine in engines], axis=1)
        uniform = uniform.reshape(n, n_free + 2).clip(1e-12, 1 - 1e-12)
        self.choice = uniform[:, 0]
        self.noise = ndtri(uniform[:, 1:-1])
        self.stretch = np.sqrt(degrees / chdtri(degrees, uniform[:, -1]))


# Tables need the same ones for each combination of levels; they are never changed.
_base_draws = lru_cache(maxsize=8)(BaseDraws)


@dataclass(frozen=True, eq=False)
class Conditional:
    """The distribution of the free columns of a joint density given those of some indices, `columns`."""

    joint: JointDensity
    columns: np.ndarray
    memory_limit: float
    tolerance: float | None = None
    """The error of log p(b), in nats, at which no more draws are made; None is the smallest one."""

    def log_marginal(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log p(b) of given values (n, n_given), and its standard error, both (n,)."""
        values, log_slopes = self.joint.mapped(values, self.columns)
        distinct, which = np.unique(values, axis=0, return_inverse=True)
        base = self._base(self._most, 0)
        result = np.empty((len(distinct), 2))
        for part in tracked(list(self._parts(len(distinct), self._most))):
            pool = self._pool(distinct[part], base, 0, is_density=True)
            result[part] = np.column_stack([pool.log_marginal, pool.error])
        _warn_of_errors(result[:, 1], max(_LARGE_ERROR, self.tolerance or 0.0))
        return result[which.ravel(), 0] + log_slopes, result[which.ravel(), 1]

    def draw(self, values: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Return rows (n, d) in units of X, one for each row of given values (n, n_given)."""
        given, (values, _) = values, self.joint.mapped(values, self.columns)
        distinct, which, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
        which = which.ravel()
        seed, n = rng.randint(2**31), len(values)
        uniform = rng.uniform(size=(n, 2))
        is_curve = self._n_free == 1
        least = np.full(len(distinct), _FIRST)
        if not is_curve:
            wanted = np.clip(4 * counts, _FIRST, _MOST)
            least = (2 ** np.ceil(np.log2(wanted))).astype(np.intp)
            moves = (
                rng.uniform(size=(_N_MOVES, n)),
                rng.standard_normal((_N_MOVES, n, self._n_free)),
            )
        coordinates = np.empty((n, len(self.joint.origin)))
        effective = np.empty(len(distinct))
        # Rows with pools of one size together, so that few rows of many draws cost the others nothing.
        for size in np.unique(least):
            own = np.flatnonzero(least == size)
            base = self._base(self._most, seed)
            for part in tracked(list(self._parts(len(own), self._most))):
                pool = self._pool(distinct[own[part]], base, int(size), is_density=False)
                effective[own[part]] = pool.effective
                position = np.full(len(distinct), -1)
                position[own[part]] = np.arange(len(pool.effective))
                drawn = np.flatnonzero(position[which] >= 0)
                rows = position[which[drawn]]
                if is_curve:
                    coordinates[drawn] = _interpolated(pool, rows, uniform[drawn])
                else:
                    steps = moves[0][:, drawn], moves[1][:, drawn]
                    coordinates[drawn] = self._resampled(pool, rows, uniform[drawn, 0], *steps)
        if not is_curve:
            _warn_of_few(effective)
        result = self.joint.unmapped(self.joint.origin + coordinates @ self.joint.axes)
        result[:, self.columns] = given
        return result

    @property
    def _n_free(self) -> int:
        return len(self.joint.origin) - len(self.columns)

    @property
    def _most(self) -> int:
        """Most draws for each row of given values."""
        return _MOST_NODES if self._n_free == 1 else _MOST

    def _parts(self, n: int, n_draws: int) -> Iterator[slice]:
        """Cut n rows of given values into parts whose temporaries fit into memory."""
        joint = self.joint
        # The distances of a round, which has half of all draws, from the centers, thrice.
        per_row = n_draws * (12 * len(joint.centers) + 32 * len(joint.origin) + 128)
        return slices_within(n, per_row, self.memory_limit)

    def _base(self, n: int, seed: int) -> BaseDraws:
        return _base_draws(n, self._n_free, _TAIL_DEGREES + len(self.columns), seed)

    def _kernels(self, values: np.ndarray) -> list[ConditionalKernels]:
        """Return the three proposals for rows of given values."""
        joint = self.joint
        kernels = []
        for scale, degrees in zip(joint.scales, (None, None, _TAIL_DEGREES), strict=True):
            log_abs_det = joint.log_abs_det + float(np.log(scale).sum())
            frame = Frame.of(joint.origin, scale[:, None] * joint.axes, log_abs_det, self.columns)
            mixture = KernelMixture(frame, scale, joint.centers, np.log(joint.weights), degrees)
            kernels.append(mixture.given(values))
        return kernels

    def _pool(self, values: np.ndarray, base: BaseDraws, least: int, *, is_density: bool) -> _Pool:
        """Draw until standard errors are small, or enough draws are effective; return weighted draws."""
        is_curve = self._n_free == 1
        n, most, first, more = len(values), len(base.choice), _FIRST, _REFINED
        tolerance = _TOLERANCES[min(self._n_free, len(_TOLERANCES)) - 1]
        if self.tolerance is not None:
            tolerance = self.tolerance
            first, more = (_FEW, _FEW) if is_curve else (first, more)
        n_tail = 2 * len(_TAIL_NODES) if is_curve else 0
        kernels = self._kernels(values)
        pool = _Pool.empty(n, n_tail + most, len(self.joint.origin), kernels)
        weights = np.tile(_WEIGHTS, (n, 1))
        total = np.zeros_like(weights)
        active, start, stop = np.arange(n), 0, min(first, most)
        while True:
            rounds = [each.rows(active) for each in kernels]
            if is_curve and start:
                drawn = pool.midpoints(active, n_tail + start, stop - start)
            else:
                drawn = _propose(rounds, weights[active], base, slice(start, stop))
            if is_curve and not start:
                drawn = np.concatenate([_tail_nodes(rounds[0], drawn), drawn], axis=1)
            target = self.joint.log_windowed(drawn.reshape(-1, drawn.shape[2]), self.columns)
            pool.add(active, n_tail + stop, drawn, target.reshape(drawn.shape[:2]), rounds)
            total[active] += (stop - start) * weights[active]
            used_weights = pool.update(active, n_tail + stop, total[active] / stop)
            if is_curve:
                is_done = pool.error[active] <= tolerance
            else:
                weights[active] = _LEAST_WEIGHT + (1 - _LEAST_WEIGHT * len(kernels)) * used_weights
                is_done = pool.effective[active] >= _LEAST_EFFECTIVE
                if is_density:
                    is_done = pool.error[active] <= tolerance
            active = active[~is_done | (stop < least)]
            if stop == most or not len(active):
                return pool
            start, stop = stop, min(stop + more if is_curve else 2 * stop, most)

    def _resampled(
        self,
        pool: _Pool,
        rows: np.ndarray,
        uniform: np.ndarray,
        accept: np.ndarray,
        noise: np.ndarray,
    ) -> np.ndarray:
        """Return coordinates (m, d) of draws for `rows` (m,), resampled from the pool by `uniform` (m,).

        If any draw of a row repeats another, all are moved by steps of the Metropolis algorithm, for
        which `accept` is (n_moves, m) and `noise` (n_moves, m, n_free).
        """
        log_masses = pool.log_masses - pool.log_masses.max(axis=1, keepdims=True)
        index = choose_in_rows(np.exp(log_masses), rows, uniform)
        coordinates, log_target = pool.coordinates[rows, index], pool.log_target[rows, index]
        first = np.unique(np.column_stack([rows, index]), axis=0, return_index=True)[1]
        # Which draws repeat others depends on the weights: all of a row's draws are moved, or none.
        has_repeated = np.bincount(rows) > np.bincount(rows[first], minlength=rows.max() + 1)
        moved = np.flatnonzero(has_repeated[rows])
        if len(moved):
            kernel = pool.kernels[0]
            step = kernel.scale[:, None] * kernel.frame.free_axes / math.sqrt(self._n_free)
            for probability, normal in zip(accept[:, moved], noise[:, moved], strict=True):
                proposed = coordinates[moved] + normal @ step.T
                target = self.joint.log_windowed(proposed, self.columns)
                is_accepted = np.log(probability) < target - log_target[moved]
                coordinates[moved[is_accepted]] = proposed[is_accepted]
                log_target[moved[is_accepted]] = target[is_accepted]
        return coordinates

    def warn_of_support(self, values: np.ndarray) -> None:
        """Warn where given values (n, n_given) are far from those of all rows."""
        kernels = self._kernels(self.joint.mapped(values, self.columns)[0])[0]
        centers = (self.joint.centers / kernels.scale) @ kernels.frame.given_axes
        warn_of_far_values(kernels.nearest, centers)


def _with_images(
    points: np.ndarray, weights: np.ndarray, periods: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, r) with their images up to one period from zero, and weights that sum to one."""
    for column in np.flatnonzero(periods):
        images = points[:, column, None] + periods[column] * np.array([-1.0, 0.0, 1.0])
        row, turn = np.nonzero(np.abs(images) <= periods[column])
        points, weights = points[row], weights[row]
        points[:, column] = images[row, turn]
    return points, weights / weights.sum()


def log_density_of_columns(
    joint: JointDensity,
    X: np.ndarray,
    scored: np.ndarray,
    given: np.ndarray,
    memory_limit: float,
    tolerance: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-density (n,) of some columns of rows X given others, and its standard error.

    `scored` and `given` are indices of columns; the rest is integrated out, up to errors of about
    `tolerance` nats, None being the smallest.
    """
    columns = np.union1d(scored, given)
    if len(columns) == X.shape[1]:
        log_density, error = joint.log_density_of_rows(X), np.zeros(len(X))
    else:
        log_density, error = _log_marginal(joint, columns, X[:, columns], memory_limit, tolerance)
    if len(given):
        conditional = Conditional(joint, given, memory_limit)
        conditional.warn_of_support(X[:, given])
        log_marginal, more = _log_marginal(joint, given, X[:, given], memory_limit, tolerance)
        log_density, error = log_density - log_marginal, np.hypot(error, more)
    return log_density, error


def _log_marginal(
    joint: JointDensity,
    columns: np.ndarray,
    values: np.ndarray,
    memory_limit: float,
    tolerance: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-density (n,) of values (n, k) of some columns, and its standard error."""
    exact = joint.log_density_without_relations(columns, values)
    if exact is not None:
        return exact, np.zeros(len(values))
    return Conditional(joint, columns, memory_limit, tolerance).log_marginal(values)


def draw_given_columns(
    joint: JointDensity,
    columns: np.ndarray,
    values: np.ndarray,
    rng: np.random.RandomState,
    memory_limit: float,
) -> np.ndarray:
    """Return one row (n, d) of a joint density for each row of values (n, k) of some columns."""
    conditional = Conditional(joint, columns, memory_limit)
    conditional.warn_of_support(values)
    return conditional.draw(values, rng)


def _propose(
    kernels: list[ConditionalKernels], weights: np.ndarray, base: BaseDraws, part: slice
) -> np.ndarray:
    """Return draws (n, m, d) from mixtures of proposals with weights (n, n_kernels)."""
    upper = weights.cumsum(axis=1)
    upper[:, -1] = 1.0
    choice, noise, stretch = base.choice[part], base.noise[part], base.stretch[part]
    which = (choice[:, None] >= upper[:, None, :]).sum(axis=2)
    lower = upper - weights
    drawn = np.empty((len(weights), len(choice), len(kernels[0].scale)))
    for k, each in enumerate(kernels):
        row, j = np.nonzero(which == k)
        uniform = (choice[j] - lower[row, k]) / weights[row, k]
        drawn[row, j] = each.draw(row, uniform.clip(0, 1 - 1e-12), noise[j], stretch[j])
    return drawn


def _cell_errors(t: np.ndarray, free: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return the relative errors (n, m - 1) of the trapezoidal rule between nodes t (n, m) in [0, 1].

    The integral of `ratio` (n, m) is one. Errors are large where it is not linear, where it changes, and
    where nodes are far apart in widths of the kernel, in which they are `free` (n, m).
    """
    lengths = np.diff(t, axis=1)
    both = np.maximum(lengths[:, 1:] + lengths[:, :-1], np.finfo(np.float64).tiny)
    linear = (ratio[:, :-2] * lengths[:, 1:] + ratio[:, 2:] * lengths[:, :-1]) / both
    bent = np.pad(np.abs(ratio[:, 1:-1] - linear) * both / 2, ((0, 0), (1, 1)))
    masses = lengths * (ratio[:, 1:] + ratio[:, :-1]) / 2
    distant = masses * np.minimum(np.diff(free, axis=1) ** 2 / 24, 0.5)
    change = lengths * np.abs(np.diff(ratio, axis=1)) / 8
    return np.maximum(bent[:, 1:], bent[:, :-1]) / 4 + change + distant


def _tail_nodes(kernel: ConditionalKernels, drawn: np.ndarray) -> np.ndarray:
    """Return nodes (n, k, d) far below and far above draws (n, m, d) of the one free column."""
    free = kernel.free(drawn)[:, :, 0]
    lowest, highest = free.min(axis=1, keepdims=True), free.max(axis=1, keepdims=True)
    steps = (highest - lowest) * _TAIL_NODES
    nodes = np.concatenate([lowest - steps, highest + steps], axis=1)
    given = np.repeat(kernel.given, nodes.shape[1], axis=0)
    return kernel.at(given, nodes.reshape(-1, 1)).reshape(*nodes.shape, -1)


def _quadrature(t: np.ndarray) -> np.ndarray:
    """Return trapezoidal weights on [0, 1] at increasing nodes t (n, m), zero at infinite ones."""
    edges = np.pad((t[:, 1:] + t[:, :-1]) / 2, ((0, 0), (1, 1)), constant_values=(0.0, np.inf))
    return np.diff(np.minimum(edges, 1.0), axis=1)


def _interpolated(pool: _Pool, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return coordinates (m, d) of draws for `rows` (m,) of a density that is linear between nodes."""
    ratio = np.exp(pool.log_ratio - pool.log_ratio.max(axis=1, keepdims=True))
    # Behind the last node all positions are infinite.
    ends = np.where(np.isfinite(pool.position), pool.position, pool.position[:, :1])
    lengths = np.maximum(np.diff(ends, axis=1), 0.0)
    cell = choose_in_rows(lengths * (ratio[:, 1:] + ratio[:, :-1]), rows, uniform[:, 0])
    left, right = pool.log_target[rows, cell], pool.log_target[rows, cell + 1]
    larger = np.maximum(left, right)
    left, right = np.exp(left - larger), np.exp(right - larger)
    root = np.sqrt(left**2 + uniform[:, 1] * (right**2 - left**2))
    fraction = uniform[:, 1] * (left + right) / (left + root)
    start, end = pool.coordinates[rows, cell], pool.coordinates[rows, cell + 1]
    return start + fraction[:, None] * (end - start)


def _warn_of_errors(error: np.ndarray, largest: float) -> None:
    """Warn if standard errors (n,) of log p(b) are above `largest` nats."""
    is_large = error > largest
    if is_large.any():
        warn_user(
            f"the Monte-Carlo error of {is_large.sum()} of {len(error)} log-densities is large, up to "
            f"{error.max():.2g} nats after the most draws that are made. Pass return_error=True for all "
            "errors, or leave fewer columns free."
        )


def _warn_of_few(effective: np.ndarray) -> None:
    """Warn if draws were resampled from few effective ones (n,)."""
    is_few = effective < _LEAST_EFFECTIVE
    if is_few.any():
        warn_user(
            f"draws for {is_few.sum()} of {len(effective)} conditions are resampled from few "
            f"proposals, an effective {effective.min():.1f} at worst; expected {_LEAST_EFFECTIVE:g} or "
            "more. Draws of these rows are alike. Give fewer columns, or more likely values."
        )
