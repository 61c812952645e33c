"""Conditionals and marginals of a joint density, by importance weights.

With the joint log-density log p(a, b) of a model and draws a_j of a wider proposal q(a | b),

    w_j = p(a_j, b) / q(a_j | b),    p(b) = E w,    p(a | b) = p(a, b) / p(b),

and draws of p(a | b) are the a_j, resampled by their weights. Proposals are the conditionals of
kernel density estimates (`conditional_proposal.py`) of three widths, mixed with weights that are adapted
to the w_j, row by row. The same quasi-random numbers are used for all rows. With one free column the a_j
are the nodes of a quadrature rule: E w = int_0^1 w dt in the distribution function t of q, by the
trapezoidal rule, and draws are those of the interpolated density.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from .._coordinates.frame import Frame
from .._utils.draws import choose_in_rows
from .._utils.memory import slices_within
from .._utils.progress import tracked
from .._utils.support import warn_of_far_values
from .._utils.warnings import warn_user
from .conditional_proposal import ConditionalKernels, KernelMixture
from .joint_density import JointDensity
from .weighted_draws import TAIL_NODES, BaseDraws, Pool, interpolated, propose, tail_nodes

# Draws of the first round for each row; each further round doubles their number. With one free column
# the first round has `_FEW` where a tolerance is passed.
_FIRST, _FEW = 64, 32
_MOST = 4096
# With one free column: nodes that each further round adds where errors are largest, and most nodes.
_REFINED = 48
_MOST_NODES = 512
# Errors of log p(b), in nats, at which no more draws are made: with one free column (where the estimate
# of the error is some ten times too large), with two, with more.
_TOLERANCES = 0.01, 0.008, 0.05
# Effective sample size at which draws are enough to be resampled; a smaller one gives a warning.
_LEAST_EFFECTIVE = 24.0
# Initial weights of the proposals, and the least weight of each. The last proposal keeps importance
# weights bounded, since its kernels have the tails of a Cauchy distribution.
_WEIGHTS = np.array([0.3, 0.6, 0.1])
_LEAST_WEIGHT = 0.05
_TAIL_DEGREES = 1.0
# Metropolis moves of draws, if any was resampled more than once.
_N_MOVES = 5
# Standard error, in nats, above which a warning is issued.
_LARGE_ERROR = 0.25
# Cached: tables use the same base draws for each combination of levels, and never change them in place.
_base_draws = lru_cache(maxsize=8)(BaseDraws)


_Result = TypeVar("_Result")
# Yields coordinates (m, d) of a joint density, is sent their log-densities (m,), and returns a result.
_Rounds = Generator[np.ndarray, np.ndarray, _Result]


@dataclass(frozen=True, eq=False)
class Conditional:
    """The distribution of the free columns of a joint density, given the columns `columns` (indices)."""

    joint: JointDensity
    columns: np.ndarray
    memory_limit: float
    tolerance: float | None = None
    """The error of log p(b), in nats, at which no more draws are made; None takes `_TOLERANCES`."""

    def log_marginal(self, values: np.ndarray) -> _Rounds[tuple[np.ndarray, np.ndarray]]:
        """Return log p(b) of given values (n, n_given) b, and its standard error, both (n,)."""
        if not self._n_free:
            return self.joint.log_density_of_rows(values), np.zeros(len(values))
        exact = self.joint.log_density_without_relations(self.columns, values)
        if exact is not None:
            return exact, np.zeros(len(values))
        values, log_slopes = self.joint.mapped(values, self.columns)
        distinct, which = np.unique(values, axis=0, return_inverse=True)
        base = self._base(self._most, 0)
        result = np.empty((len(distinct), 2))
        for part in tracked(list(self._parts(len(distinct), self._most))):
            pool = yield from self._pool(distinct[part], base, 0)
            result[part] = np.column_stack([pool.log_marginal, pool.error])
        _warn_of_errors(result[:, 1], max(_LARGE_ERROR, self.tolerance or 0.0))
        return result[which.ravel(), 0] + log_slopes, result[which.ravel(), 1]

    def draw(
        self, values: np.ndarray, rng: np.random.RandomState, *, for_means: bool = False
    ) -> np.ndarray:
        """Return rows (n, d) in units of X, one for each row of given values (n, n_given).

        With `for_means`, draws may be equal: they are not moved apart but resampled from as many
        effective proposals as draws, so that means over them are as exact as those of distinct draws.
        """
        given, (values, _) = values, self.joint.mapped(values, self.columns)
        distinct, which, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
        which = which.ravel()
        seed, n = rng.randint(2**31), len(values)
        uniform = rng.uniform(size=(n, 2))
        is_curve = self._n_free == 1
        least = np.full(len(distinct), _FIRST)
        if not is_curve:
            wanted = np.maximum(counts if for_means else np.minimum(4 * counts, _MOST), _FIRST)
            least = (2 ** np.ceil(np.log2(wanted))).astype(np.intp)
            n_moves = 0 if for_means else _N_MOVES
            moves = (
                rng.uniform(size=(n_moves, n)),
                rng.standard_normal((n_moves, n, self._n_free)),
            )
            if for_means:
                # Stratified: one number in each of as many equal intervals as the condition has draws.
                rank = (
                    np.argsort(np.argsort(which, kind="stable"))
                    - (np.cumsum(counts) - counts)[which]
                )
                uniform[:, 0] = (rank + uniform[:, 0]) / counts[which]
        coordinates = np.empty((n, len(self.joint.origin)))
        effective = np.empty(len(distinct))
        # Rows with pools of the same size are drawn together: few large pools do not slow down others.
        for size in np.unique(least):
            own = np.flatnonzero(least == size)
            most = max(self._most, 4 * int(size)) if for_means else self._most
            base = self._base(most, seed)
            enough = max(_LEAST_EFFECTIVE, float(counts[own].max()) if for_means else 0.0)
            for part in tracked(list(self._parts(len(own), most))):
                rounds = self._pool(distinct[own[part]], base, int(size), enough)
                (pool,) = together(self.joint, [rounds])
                effective[own[part]] = pool.effective
                position = np.full(len(distinct), -1)
                position[own[part]] = np.arange(len(pool.effective))
                drawn = np.flatnonzero(position[which] >= 0)
                rows = position[which[drawn]]
                if is_curve:
                    coordinates[drawn] = interpolated(pool, rows, uniform[drawn])
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
        """Return slices of n rows of given values, whose temporaries fit into memory."""
        return slices_within(n, n_draws * self._bytes_of_draw, self.memory_limit)

    @property
    def _bytes_of_draw(self) -> int:
        # Three arrays of distances between the draws of a round (half of all draws) and the centers.
        return 12 * len(self.joint.centers) + 32 * len(self.joint.origin) + 128

    def parts_for_means(self, n: int) -> Iterator[slice]:
        """Return slices of n rows, whose proposals fit into memory if all have the same condition."""
        return slices_within(n, 4 * self._bytes_of_draw, self.memory_limit)

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

    def _pool(
        self, values: np.ndarray, base: BaseDraws, least: int, enough: float | None = None
    ) -> _Rounds[Pool]:
        """Return at least `least` weighted draws, and more until `enough` of them are effective.

        With one free column, or if `enough` is None, draws are added until standard errors are small.
        """
        is_curve = self._n_free == 1
        n, most, first, more = len(values), len(base.choice), _FIRST, _REFINED
        if enough is not None and enough > _LEAST_EFFECTIVE:
            # Each round has an overhead of some hundred draws.
            first = max(_FIRST, least // 2)
        tolerance = _TOLERANCES[min(self._n_free, len(_TOLERANCES)) - 1]
        if self.tolerance is not None:
            tolerance = self.tolerance
            first, more = (_FEW, _FEW) if is_curve else (first, more)
        n_tail = 2 * len(TAIL_NODES) if is_curve else 0
        kernels = self._kernels(values)
        pool = Pool.empty(n, n_tail + most, len(self.joint.origin), kernels)
        weights = np.tile(_WEIGHTS, (n, 1))
        total = np.zeros_like(weights)
        active, start, stop = np.arange(n), 0, min(first, most)
        while True:
            rounds = [each.rows(active) for each in kernels]
            if is_curve and start:
                drawn = pool.midpoints(active, n_tail + start, stop - start)
            else:
                drawn = propose(rounds, weights[active], base, slice(start, stop))
            if is_curve and not start:
                drawn = np.concatenate([tail_nodes(rounds[0], drawn), drawn], axis=1)
            target = yield from self._windowed(drawn.reshape(-1, drawn.shape[2]))
            pool.add(active, n_tail + stop, drawn, target.reshape(drawn.shape[:2]), rounds)
            total[active] += (stop - start) * weights[active]
            used_weights = pool.update(active, n_tail + stop, total[active] / stop)
            if is_curve:
                is_done = pool.error[active] <= tolerance
            else:
                weights[active] = _LEAST_WEIGHT + (1 - _LEAST_WEIGHT * len(kernels)) * used_weights
                is_done = pool.error[active] <= tolerance
                if enough is not None:
                    is_done = pool.effective[active] >= enough
            active = active[~is_done | (stop < least)]
            if stop == most or not len(active):
                return pool
            start, stop = stop, min(stop + more if is_curve else 2 * stop, most)

    def _windowed(self, y: np.ndarray) -> _Rounds[np.ndarray]:
        """Return log-densities (m,) at coordinates y (m, d), times the windows of `JointDensity`."""
        result = self.joint.log_window(y, self.columns)
        inside = result > -np.inf
        if inside.any():
            result[inside] += yield y[inside]
        return result

    def _resampled(
        self,
        pool: Pool,
        rows: np.ndarray,
        uniform: np.ndarray,
        accept: np.ndarray,
        noise: np.ndarray,
    ) -> np.ndarray:
        """Return coordinates (m, d) of draws for `rows` (m,), resampled from the pool by `uniform` (m,).

        If any draw of a row repeats another, all draws of the row are moved by Metropolis steps, with
        uniform numbers `accept` (n_moves, m) and normal ones `noise` (n_moves, m, n_free).
        """
        log_masses = pool.log_masses - pool.log_masses.max(axis=1, keepdims=True)
        index = choose_in_rows(np.exp(log_masses), rows, uniform)
        coordinates, log_target = pool.coordinates[rows, index], pool.log_target[rows, index]
        first = np.unique(np.column_stack([rows, index]), axis=0, return_index=True)[1]
        # Which draws repeat others depends on the weights, so all draws of a row are moved, or none.
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
        """Warn if given values (n, n_given) are far from the values of all training rows."""
        kernels = self._kernels(self.joint.mapped(values, self.columns)[0])[0]
        centers = (self.joint.centers / kernels.scale) @ kernels.frame.given_axes
        warn_of_far_values(kernels.nearest, centers)


def log_density_of_columns(
    joint: JointDensity, X: np.ndarray, scored: np.ndarray, given: np.ndarray, memory_limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-density (n,) of some columns of rows X given others, and its standard error.

    `scored` and `given` are indices of columns; all other columns are integrated out.
    """
    columns = np.union1d(scored, given)
    if len(given):
        Conditional(joint, given, memory_limit).warn_of_support(X[:, given])
    sets = [columns, given] if len(given) else [columns]
    limit = memory_limit / len(sets)
    jobs = [Conditional(joint, each, limit).log_marginal(X[:, each]) for each in sets]
    (log_density, error), *others = together(joint, jobs)
    for log_given, more in others:
        log_density, error = log_density - log_given, np.hypot(error, more)
    return log_density, error


def together(joint: JointDensity, jobs: Sequence[_Rounds[_Result]]) -> list[_Result]:
    """Return the results of jobs whose queries are evaluated in one batch, which saves overhead."""
    results: dict[int, _Result] = {}
    answers: dict[int, np.ndarray | None] = dict.fromkeys(range(len(jobs)))
    while answers:
        queries: dict[int, np.ndarray] = {}
        for k, answer in answers.items():
            try:
                queries[k] = next(jobs[k]) if answer is None else jobs[k].send(answer)
            except StopIteration as end:
                results[k] = end.value
        if not queries:
            break
        values = joint.log_density(np.concatenate(list(queries.values())))
        ends = np.cumsum([len(each) for each in queries.values()])[:-1]
        answers = dict(zip(queries, np.split(values, ends), strict=True))
    return [results[k] for k in range(len(jobs))]


def draw_given_columns(
    joint: JointDensity,
    columns: np.ndarray,
    values: np.ndarray,
    rng: np.random.RandomState,
    memory_limit: float,
    *,
    for_means: bool = False,
) -> np.ndarray:
    """Return one row (n, d) of a joint density for each row of values (n, k) of some columns.

    Draws that are `for_means` may be equal; see `Conditional.draw`.
    """
    conditional = Conditional(joint, columns, memory_limit)
    conditional.warn_of_support(values)
    parts = conditional.parts_for_means(len(values)) if for_means else [slice(None)]
    return np.concatenate([conditional.draw(values[k], rng, for_means=for_means) for k in parts])


def _warn_of_errors(error: np.ndarray, largest: float) -> None:
    """Warn if standard errors (n,) of log p(b) are above `largest` nats."""
    is_large = error > largest
    if is_large.any():
        warn_user(
            f"the Monte-Carlo error of {is_large.sum()} of {len(error)} log-densities is large, up to "
            f"{error.max():.2g} nats with the maximum number of draws. Pass return_error=True for all "
            "errors, or leave fewer columns free."
        )


def _warn_of_few(effective: np.ndarray) -> None:
    """Warn if the effective number (n,) of proposals to resample from is small for some conditions."""
    is_few = effective < _LEAST_EFFECTIVE
    if is_few.any():
        warn_user(
            f"draws for {is_few.sum()} of {len(effective)} conditions are resampled from few "
            f"proposals: the least effective sample size is {effective.min():.1f}; expected "
            f"{_LEAST_EFFECTIVE:g} or more. Their draws are near-copies of one another. Give fewer "
            "columns, or more likely values."
        )
