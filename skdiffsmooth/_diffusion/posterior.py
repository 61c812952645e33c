"""Draws and evidence of a posterior, p(x) L(x) / Z with Z = E_p L, by importance weights.

Draws x_j of a proposal q have weights w_j = p(x_j) L(x_j) / q(x_j); Z is their mean, and draws of the
posterior are the x_j, resampled. The proposal is a mixture of Gaussian kernels at the training rows; for
y = A x + e, e Gaussian, it is the posterior of that mixture (`posterior_proposal.py`). Where few draws
are effective, kernels at draws of the posterior of that mixture are the next proposal. The draws are
found by weights, resampling and Metropolis steps along q L^b, b from 0 to 1 (sequential Monte Carlo),
which need no density of the model.

Log-densities are those of the model's own steps, without the adaptive solver for single rows. The
change of log Z with steps of half the length is estimated at some draws of the posterior.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import logsumexp, softmax
from sklearn.utils.validation import check_is_fitted

from .._utils.estimator import on_one_fit
from .._utils.warnings import warn_user, without_warnings
from .joint_density import N_CENTERS, JointDensity
from .model import DiffusionModel
from .observation import LinearObservation, checked_likelihood
from .posterior_proposal import WIDTHS, PosteriorProposal
from .weighted_draws import BaseDraws

__all__ = ["PosteriorMixin"]

# If less than this share of the first draws is effective, kernels at annealed draws are tried.
_LEAST_SHARE = 0.3
_FIRST, _MOST = 512, 4096
# Error of log Z, in nats, at which no more draws are made; error above which a warning is issued.
_TOLERANCE, _LARGE_ERROR = 0.01, 0.05
# Groups of draws, from which standard errors are computed.
_N_GROUPS = 16
# Fewest effective draws without a warning.
_LEAST_EFFECTIVE = 24.0
# Annealing: number of draws, the share of them that is effective in each step, Metropolis moves after a
# step, and most steps; then the acceptance rate of moves.
_N_ANNEALED, _STEP_SHARE, _N_MOVES, _MOST_STEPS = 512, 0.5, 4, 25
_ACCEPTED = 0.25
# Number of draws at which the error of the solver is estimated.
_N_CHECKED = 32
# A posterior of d columns is an extrapolation if the median distance of draws from the nearest center
# is more than `_FAR` + sqrt(d) kernel widths, and more than `_FAR_FACTOR` times the largest distance
# between neighbouring centers. Distances are computed for some `_N_COMPARED` draws and centers.
_FAR, _FAR_FACTOR, _N_COMPARED = 6.0, 3.0, 512
# Memory limit, in MiB, for densities without a parameter `memory_limit`.
_MEMORY_LIMIT = 1024.0


class _Draws(NamedTuple):
    """Weighted draws of a posterior; draw j belongs to group j % 16."""

    z: np.ndarray  # Coordinates (n, d)
    log_target: np.ndarray  # Log p L, (n,)
    log_weights: np.ndarray  # Log w; the logarithm of their mean is log Z

    def joined(self, other: _Draws) -> _Draws:
        """Return these draws followed by others of the same proposal."""
        return _Draws(*map(np.concatenate, zip(self, other, strict=True)))

    @property
    def weights(self) -> np.ndarray:
        """The weights (n,), which sum to one."""
        return softmax(self.log_weights)

    @property
    def effective(self) -> float:
        """The effective number of draws."""
        return _effective(self.log_weights)

    def at_quantiles(self, n: int) -> np.ndarray:
        """Return the indices (n,) of n of these draws, at even steps of the cumulated weights."""
        return np.searchsorted(self.weights.cumsum()[:-1], (np.arange(n) + 0.5) / n)

    @property
    def log_evidence(self) -> tuple[float, float]:
        """Log Z and its standard error, in nats."""
        means = self.weights.reshape(-1, _N_GROUPS).sum(axis=0)
        error = float(means.std(ddof=1) / math.sqrt(_N_GROUPS) / means.mean())
        # The logarithm of a mean is biased.
        bias = min(error, 0.5) ** 2 / 2
        return float(logsumexp(self.log_weights)) - math.log(len(self.z)) + bias, error


class _Posterior:
    """The posterior of a joint density and a likelihood."""

    def __init__(
        self,
        joint: JointDensity,
        memory_limit: float,
        likelihood: Any,
        log_likelihood: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._joint = joint
        self._log_likelihood = log_likelihood
        self._memory_limit = memory_limit
        observation = None
        if isinstance(likelihood, LinearObservation):
            _check_periods(joint, likelihood)
            is_mapped = joint.warp is not None and likelihood.A[:, joint.warp.columns].any()
            observation = None if is_mapped else likelihood
        self._proposal = PosteriorProposal.of(joint, observation, memory_limit)

    def draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return n draws (n, d), in units of X."""
        size = 2 ** math.ceil(math.log2(max(n, _FIRST, min(4 * n, _MOST))))
        with without_warnings():
            draws = self._weighted(rng.randint(2**31), size, size)
            z = self._resampled(draws, n, rng)
        self._warn(draws)
        return self._rows(z)

    def log_evidence(self, finer: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float, float]:
        """Return log Z, its standard error in nats, and the effective number of draws.

        `finer` returns the log-densities (n,) of rows (n, d) by steps of half the length.
        """
        with without_warnings():
            draws = self._weighted(0, _FIRST, _MOST)
            checked = self._rows(draws.z[draws.at_quantiles(_N_CHECKED)])
            change = finer(checked) - self._joint.log_density_of_rows(checked)
        value, error = draws.log_evidence
        solver_error = abs(float(logsumexp(change)) - math.log(len(change)))
        total = math.hypot(error, solver_error)
        self._warn(draws)
        if total > _LARGE_ERROR and draws.effective >= _LEAST_EFFECTIVE:
            warn_user(
                f"log_evidence has an error of {total:.2g} nats: {error:.2g} of {len(draws.z)} draws, "
                f"{draws.effective:.0f} of them effective, and {solver_error:.2g} of the solver; "
                f"expected {_TOLERANCE:g}. Widen the likelihood, use fewer columns, or fit with more "
                "n_steps."
            )
        return value, total, draws.effective

    def _weighted(self, seed: int, least: int, most: int) -> _Draws:
        """Return `least` weighted draws, or more, up to `most`, until their error is small."""
        proposal = self._proposal
        base = BaseDraws(most, len(self._joint.origin), 1.0, seed)
        draws = self._proposed(proposal, base, slice(0, _FIRST))
        if not np.isfinite(draws.log_weights).any():
            raise ValueError(
                f"the posterior has density zero at all of {_FIRST} proposed rows, where likelihood(X) "
                "or the density is -inf; expected a likelihood above zero at some rows near those of "
                "training. Check its units, or widen it."
            )
        if draws.effective < _LEAST_SHARE * _FIRST:
            centers = self._annealed(seed)
            if len(centers) > 2 * centers.shape[1]:
                nearer = self._kernels_at(centers)
                others = self._proposed(nearer, base, slice(0, _FIRST))
                if others.effective > draws.effective:
                    proposal, draws = nearer, others
        while len(draws.z) < least or (len(draws.z) < most and draws.log_evidence[1] > _TOLERANCE):
            part = slice(len(draws.z), min(2 * len(draws.z), most))
            draws = draws.joined(self._proposed(proposal, base, part))
        return draws

    def _kernels_at(self, z: np.ndarray) -> PosteriorProposal:
        """Return a proposal with kernels at draws z (n, d), scaled along their principal axes."""
        kernels = JointDensity.of_draws(self._joint.log_density, z)
        proposal = PosteriorProposal.of(kernels, None, self._memory_limit)
        return proposal.mapped(kernels.origin, kernels.axes, self._joint.log_abs_det)

    def _resampled(self, draws: _Draws, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return n coordinates (n, d), resampled by weights; if any are equal, all are then moved."""
        index = rng.choice(len(draws.z), size=n, p=draws.weights)
        z, log_target = draws.z[index], draws.log_target[index]
        if len(np.unique(index)) == n:
            return z
        return _moved(self.log_target, z, log_target, self._steps(draws.z, draws.weights), rng)

    def _proposed(self, proposal: PosteriorProposal, base: BaseDraws, part: slice) -> _Draws:
        """Return weighted draws of a proposal."""
        z = proposal.draw(base, part)
        log_target = self.log_target(z)
        return _Draws(z, log_target, log_target - proposal.log_density(z))

    def _annealed(self, seed: int) -> np.ndarray:
        """Return distinct draws (n, d) near the posterior of the kernels, by sequential Monte Carlo."""
        kernels = PosteriorProposal.of(self._joint, None, self._memory_limit, WIDTHS[1:2])
        base = BaseDraws(_N_ANNEALED, len(self._joint.origin), 1.0, (seed, 1))
        rng, z, power = np.random.RandomState(seed), kernels.draw(base, slice(None)), 0.0
        for _ in range(_MOST_STEPS):
            log_likelihood = self._log_likelihood(self._rows(z))
            if power == 1.0 or not np.isfinite(log_likelihood).any():
                break
            following = _next_power(log_likelihood, power)
            weights = np.exp((following - power) * (log_likelihood - log_likelihood.max()))
            uniform = (np.arange(len(z)) + rng.uniform()) / len(z)
            z = z[np.searchsorted(weights.cumsum()[:-1], uniform * weights.sum(), side="right")]
            power = following

            def log_target(z: np.ndarray, power: float = power) -> np.ndarray:
                return kernels.log_density(z) + power * self._log_likelihood(self._rows(z))

            z = _moved(log_target, z, log_target(z), self._steps(z, None), rng)
        return np.unique(z, axis=0)

    def _steps(self, z: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return roots (2, d, d) of two covariances: of a kernel, and of weighted draws z (n, d)."""
        variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(z.T, aweights=weights, ddof=0)))
        overall = axes * np.sqrt(np.maximum(variances, 0.0))
        return np.stack([self._proposal.roots[0], overall])

    def log_target(self, z: np.ndarray) -> np.ndarray:
        """Return log p + log L at coordinates z (n, d), -inf where the density is zero."""
        log_target = self._joint.log_windowed(z, np.empty(0, dtype=np.intp))
        inside = np.flatnonzero(log_target > -np.inf)
        if len(inside):
            log_target[inside] += self._log_likelihood(self._rows(z[inside]))
        return log_target

    def _rows(self, z: np.ndarray) -> np.ndarray:
        return self._joint.unmapped(self._joint.origin + z @ self._joint.axes)

    def _warn(self, draws: _Draws) -> None:
        """Warn if few draws are effective, or if no training row is near the posterior."""
        if draws.effective < _LEAST_EFFECTIVE:
            warn_user(
                f"the posterior rests on an effective {draws.effective:.1f} draws; expected "
                f"{_LEAST_EFFECTIVE:g} or more, so draws are near-copies and log_evidence is uncertain. "
                "The likelihood is low at nearly all rows: check its units, or widen it."
            )
        scale, centers = self._joint.scales[2], self._joint.centers
        tree = cKDTree(centers / scale)
        distance = float(np.median(tree.query(draws.z[draws.at_quantiles(_N_COMPARED)] / scale)[0]))
        few = centers[:: 1 + len(centers) // _N_COMPARED] / scale
        own = tree.query(few, k=2)[0][:, 1].max() if len(centers) > 1 else 0.0
        if distance > max(_FAR + math.sqrt(len(scale)), _FAR_FACTOR * own):
            warn_user(
                f"the posterior is far from all training rows: half of its draws are more than "
                f"{distance:.3g} bandwidths from the nearest, and training rows are at most {own:.3g} "
                "from their neighbours. No row supports the likelihood: the result is an extrapolation. "
                "Check the units of A and y, or of the function."
            )


def _check_periods(joint: JointDensity, observation: LinearObservation) -> None:
    """Raise an error if the observation depends on a periodic column."""
    if joint.periods is None:
        return
    columns = np.flatnonzero(joint.periods * np.abs(observation.A).sum(axis=0))
    if len(columns):
        raise ValueError(
            f"A of the likelihood is not zero for column {columns[0]}, which has the period "
            f"{joint.periods[columns[0]]:g}: A x is not periodic. Pass a function of rows with "
            "that period, such as the log-density of a wrapped normal distribution."
        )


def _moved(
    log_target: Callable[[np.ndarray], np.ndarray],
    z: np.ndarray,
    log_values: np.ndarray,
    roots: np.ndarray,
    rng: np.random.RandomState,
) -> np.ndarray:
    """Return draws z (n, d) after Metropolis steps with covariance roots (2, d, d), used in turn.

    `log_values` (n,) are the values of `log_target` at z.
    """
    z, log_values = z.copy(), log_values.copy()
    sizes = np.full(len(roots), 2.38 / math.sqrt(z.shape[1]))
    for move in range(_N_MOVES):
        which = move % len(roots)
        proposed = z + sizes[which] * rng.standard_normal(z.shape) @ roots[which].T
        values = log_target(proposed)
        accepted = np.log(rng.uniform(size=len(z))) < values - log_values
        z[accepted], log_values[accepted] = proposed[accepted], values[accepted]
        sizes[which] *= math.exp(2 * (accepted.mean() - _ACCEPTED))
    return z


def _effective(log_weights: np.ndarray) -> float:
    """Return the effective number of draws, from the logarithms (n,) of their weights."""
    return float(1 / np.sum(softmax(log_weights) ** 2))


def _next_power(log_likelihood: np.ndarray, power: float) -> float:
    """Return the next power of the likelihood, at which half of the draws are effective.

    Draws with `log_likelihood` (n,) of -inf are ignored.
    """
    finite = log_likelihood[np.isfinite(log_likelihood)]
    step = 1 - power
    while _effective(step * finite) < _STEP_SHARE * len(finite) and step > 1e-13:
        step /= math.sqrt(2)
    return 1.0 if step == 1 - power else power + step


class PosteriorMixin:
    """Mixin for densities whose `sample` accepts a likelihood: the log-evidence and the posterior."""

    @on_one_fit
    def log_evidence(self, likelihood: Any) -> Any:
        """Return the log-evidence, log of the integral of density times likelihood.

        Use it to compare models or hypotheses by what was observed: with a `LinearObservation` it is the
        log-density of y. It normalises the posterior that ``sample(likelihood=...)`` draws from ::

            p(x | y) = p(x) L(x) / exp(log_evidence)

        Parameters
        ----------
        likelihood : LinearObservation or callable
            A linear observation of a row with Gaussian noise, or a function that maps rows (n,
            n_features), in units of X and without column names, to log-likelihoods (n,) or -inf.

        Returns
        -------
        skdiffsmooth.metrics.Estimate
            `value` in nats, its `standard_error`, and the `effective_sample_size` of the weighted
            draws. The draws are quasi-random with a fixed seed: two calls return the same.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError
            If `likelihood` is neither.
        ValueError
            If the likelihood returns NaN, a value above 1e12 or another shape, `A` does not fit the
            columns, the likelihood is zero at all proposed rows, or the density cannot be computed.

        Warns
        -----
        UserWarning
            If fewer than 24 draws are effective, the error is above .05 nats, or the posterior is far
            from all training rows.

        Notes
        -----
        Computes 512 to 4096 log-densities, until the standard error is .01 nats, with the steps of
        `sample`. The change of the result with steps of half the length is estimated from 32 rows and
        added to the standard error, in squares. If less than 30 % of the first 512 draws are effective,
        512 draws from kernels that are centered at draws of a simpler posterior are tried.
        docs/evidence/posterior.md has errors and times.

        Examples
        --------
        >>> from skdiffsmooth import KDESampler, LinearObservation
        >>> kde = KDESampler(1.0).fit([[0.0, 0.0]])
        >>> noisy_sum = LinearObservation([[1.0, 1.0]], [0.0], noise=1.0)
        >>> evidence = kde.log_evidence(noisy_sum)  # y has the variance 1 + 1 + 1
        >>> round(evidence.value, 2), evidence.standard_error < 0.01
        (-1.47, True)
        """
        from ..metrics import Estimate

        check_is_fitted(self)
        posterior = self._posterior_under("log_evidence", likelihood)
        return Estimate(*posterior.log_evidence(_by_own_steps(self, finer=2).score_samples))

    def _draw_posterior(
        self, n: int, rng: np.random.RandomState, likelihood: Any, given: Any
    ) -> np.ndarray:
        """Return n draws (n, d) of the posterior."""
        if given is not None:
            raise ValueError(
                f"given={given!r:.100} cannot be combined with likelihood; expected one of them. Put "
                "the given values into the likelihood, with a small noise."
            )
        return self._posterior_under("likelihood", likelihood).draw(n, rng)

    def _posterior_under(self, what: str, likelihood: Any) -> _Posterior:
        """Return the posterior of `_prior` and a likelihood, without the adaptive solver."""
        if isinstance(likelihood, LinearObservation):
            likelihood.check_names(getattr(self, "feature_names_in_", None))
        density: Any = self
        # Checked before rows are drawn, which may take long.
        log_likelihood = checked_likelihood(likelihood, density.n_features_in_)
        with without_warnings():
            joint, memory_limit = _by_own_steps(density)._prior(what)
        return _Posterior(joint, memory_limit, likelihood, log_likelihood)

    def _prior(self, what: str) -> tuple[JointDensity, float]:
        """Return the joint density of all columns, and its memory limit in MiB.

        Kernels of proposals are centered at draws. `what` is the name of an argument, for messages.
        """
        if _is_periodic(self):
            raise ValueError(
                f"{what} is not available for {type(self).__name__} with periodic columns; fit a "
                "SmoothedScoreDiffusion with periods."
            )
        if not getattr(self, "fills_space_", True):
            raise ValueError(
                f"{what} needs a density of all columns, and samples of this model are on a manifold; "
                "expected a bandwidth > 0. Fit with CoarseScoreDiffusion(bandwidth=<number in units of "
                "X>), or use SmoothedScoreDiffusion."
            )
        density: Any = self
        rows = density.sample(N_CENTERS, random_state=np.random.RandomState(0))
        memory_limit = getattr(self, "memory_limit", _MEMORY_LIMIT)
        return JointDensity.of_draws(density.score_samples, rows), memory_limit


def _is_periodic(fitted: Any) -> bool:
    """Return whether columns of a fitted density, or of one that it contains, are periodic."""
    held = [*getattr(fitted, "estimators_", ()), getattr(fitted, "estimator_", None)]
    return getattr(fitted, "periods_", None) is not None or any(
        _is_periodic(each) for each in held if each is not None
    )


def _by_own_steps(fitted: Any, finer: int = 1) -> Any:
    """Return a copy of a fitted density without the adaptive solver and column names.

    Densities that it contains are copied likewise. `finer` multiplies the number of steps.
    """
    result = copy.copy(fitted)
    state = vars(result)
    # Rows are arrays here, so the estimator must not expect column names.
    state.pop("feature_names_in_", None)
    model = state.get("model_")
    if isinstance(model, DiffusionModel):
        state["model_"] = replace(
            model, tol=None, steps_of_levels=tuple(finer * k for k in model.steps_of_levels)
        )
    if "estimators_" in state:
        state["estimators_"] = [_by_own_steps(each, finer) for each in state["estimators_"]]
    if "estimator_" in state:
        state["estimator_"] = _by_own_steps(state["estimator_"], finer)
    return result
