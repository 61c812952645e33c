"""What the diffusion estimators answer by following the flow: samples, log-densities, conditionals."""

from __future__ import annotations

import numbers
from typing import Any, Literal, overload

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from .._coordinates.frame import Frame
from .._utils.backend import Backend
from .._utils.given import resolve_given_columns, resolve_given_values
from .._utils.shards import resolve_shards
from .._utils.validation import check_real
from ..bandwidth import weight_of_others
from ..kernels import FrozenKernel
from ..noise import Step
from ..scores import ScoreSchedule
from ..solvers import Adaptive, ODESolver
from ..solvers._flow import log_density_with_error, solve_with_error, warn_of_error
from ..solvers._terminal import EmpiricalTerminal, GaussianTerminal, TerminalDistribution
from .conditional import Conditional, ConditionalFlow
from .noised import NO_DERIVATIVE, NoisedData
from .selection import mixed
from .settings import resolve_solver

__all__ = ["BaseScoreDiffusion"]

# Width of the background, in bandwidths; docs/defaults.md has the evidence.
_WIDE = 4.0


class BaseScoreDiffusion(NoisedData):
    """Data seen through noise, a score smoothed by a kernel, a solver that follows it."""

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
        self._check_others()
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
        self._warn_of_error(followed[:, -1])
        scales = np.full((n, 1), self.bandwidth_)
        if self.background_:
            wide = EmpiricalTerminal(schedule, self._wide_scale).sample(rng, n)
            is_wide = rng.uniform(size=(n, 1)) < self.background_
            coordinates = np.where(is_wide, wide, coordinates)
            scales[is_wide] = self._wide_scale
        return self._embedding.rows(coordinates, scales, rng)

    def _check_density(self) -> None:
        """Raise unless the law that is sampled has a density that can be computed."""
        if not isinstance(resolve_solver(self.solver), ODESolver):
            raise ValueError(
                f"solver={self.solver!r} is stochastic, or does not carry log-densities along; "
                "score_samples needs one that does, such as solver='heun'. With a smoothed score the "
                "law of a stochastic solver's samples is another one, without a computable density."
            )
        if not self.kernel_.has_divergence:
            raise ValueError(NO_DERIVATIVE)

    def _warn_of_error(self, error: np.ndarray) -> None:
        """Warn where the adaptive solver did not keep to its tolerance."""
        warn_of_error(resolve_solver(self.solver), error)

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
                "it acts, or has no offsets. Use SmoothedScoreDiffusion with kernel='gaussian' or "
                "'uniform-ball'."
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
            backend.promote_to_float64(levels.bandwidth, max(largest, levels.terminal_scale)),
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
        log_density, error = log_density_with_error(
            solver,
            schedule,
            backend.tensor(queries),
            self._steps(),
            terminal.log_density,
            finer=self._steps(2) if with_error else None,
        )
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

        steps = [step.reversed() for step in reversed(self._steps())]
        x = schedule.backend.tensor(start)
        end, error = solve_with_error(resolve_solver(self.solver), schedule, x, steps, draw)
        return np.column_stack([schedule.backend.array(end), schedule.backend.array(error)])

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

    def _steps(self, finer: int = 1) -> list[Step]:
        levels = self.noise_levels_
        return list(levels.steps(finer * (self.n_steps_ // levels.n_levels)))

    def _terminal_law(
        self, schedule: ScoreSchedule, left_out: np.ndarray | None = None
    ) -> TerminalDistribution:
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

    def _parts(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities under the flow and under the background."""
        split = self._split(X)
        return self._flow_log_density(*split)[0], self._wide_log_density(*split)

    def _left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the same of each point, under the model of the others."""
        points = self.hierarchy_.points
        given = points, np.zeros_like(self.points_), np.arange(len(points))
        flow, _ = self._flow_log_density(*given)
        return flow, self._wide_log_density(*given)

    def _flow_log_density(
        self,
        queries: np.ndarray,
        residual: np.ndarray,
        *rows: np.ndarray,
        with_error: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities without the background, and their errors, NaN where not known.

        A point is left out of each row's data where its index is given.
        """
        self._check_density()
        found = self._in_parallel(self._log_density_within, queries, *rows, with_error=with_error)
        self._warn_of_error(found[:, 1])
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
