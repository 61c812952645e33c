"""Draws and evidence of a posterior, p(x) L(x) / Z with Z = E_p L, by importance weights.

Draws x_j of a proposal q have weights w_j = p(x_j) L(x_j) / q(x_j); Z is their mean, and draws of the
posterior are the x_j, resampled. The proposal is a mixture of Gaussian kernels at the training rows, of
several widths. For y = A x + e, e Gaussian, it is the posterior of that mixture, which is a mixture of
Gaussians again:

    N(c_i, S^2) L  ~  W_i N(m_i, C),    C = (S^-2 + A' R^-1 A)^-1,    W_i ~ w_i N(y; A c_i, A S^2 A' + R)

The covariance C is the same for all rows, so there is one factorisation for each width. For other
likelihoods the weights W_i are learned from draws (population Monte Carlo). Where few draws are
effective, they are moved from q to the posterior along q^(1-b) (p L)^b, b from 0 to 1, by weights,
resampling and Metropolis steps (sequential Monte Carlo); kernels at them are the next proposal.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted

from .._utils.draws import choose_in_rows
from .._utils.estimator import on_one_fit
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import slices_within
from .._utils.warnings import warn_user
from .conditional import N_CENTERS, BaseDraws, JointDensity
from .observation import LinearObservation, checked_likelihood

__all__ = ["PosteriorMixin"]

# Factors of the kernels' three widths, the last for tails, and how much each is used at first.
_WIDTHS = ((0, 1.0), (1, 1.0), (2, 1.0), (2, 4.0), (2, 16.0))
_FIRST_WEIGHTS = np.array([0.3, 0.45, 0.15, 0.05, 0.05])
# Of the learned weights of kernels so much is that of the first ones.
_LEAST_WEIGHT = 0.1
# Draws of which more than this share is effective are used; below the second, they are annealed; for the
# evidence, where the most draws have an error of .01, below the third.
_GOOD_SHARE, _LEAST_SHARE, _PRECISE_SHARE = 0.5, 0.1, 0.35
_N_ADAPTATIONS = 3
_FIRST, _MOST = 512, 16_384
# Error of log Z, in nats, at which no more draws are made.
_TOLERANCE = 0.005
# Groups of draws, from which standard errors are computed.
_N_GROUPS = 16
# Fewest effective draws without a warning.
_LEAST_EFFECTIVE = 24.0
# Draws that are annealed, the share of them that is effective in each step, moves after it, most steps.
_N_ANNEALED, _STEP_SHARE, _N_MOVES, _MOST_STEPS = 2048, 0.5, 6, 200
_ACCEPTED = 0.25
# Widths of the kernel, beyond those of a draw of the model, at which a posterior is an extrapolation.
_FAR, _FAR_FACTOR, _N_COMPARED = 6.0, 3.0, 512
# Of densities that have no limit of their own, in MiB.
_MEMORY_LIMIT = 1024.0


@dataclass(frozen=True, eq=False)
class _Proposal:
    """A mixture of Gaussians at N centers for K widths, each width with one covariance root @ root'."""

    centers: np.ndarray
    """Shape (K, N, d), in units of `roots`."""
    roots: np.ndarray
    """Shape (K, d, d)."""
    inverses: np.ndarray
    log_weights: np.ndarray
    """Shape (K, N)."""
    log_volumes: np.ndarray
    """Logarithms (K,) of the roots' determinants, per unit of the rows of X."""
    memory_limit: float

    @classmethod
    def of(
        cls, joint: JointDensity, observation: LinearObservation | None, memory_limit: float
    ) -> _Proposal:
        """Return the kernels of a density, each times the likelihood of an observation."""
        d = len(joint.origin)
        A, y = np.zeros((1, d)), np.zeros(1)
        if observation is not None:
            A = observation.whitened_A @ joint.axes.T
            y = observation.whitened_y - observation.whitened_A @ joint.origin
        parts = []
        for (k, factor), width_weight in zip(_WIDTHS, _FIRST_WEIGHTS, strict=True):
            scale = factor * joint.scales[k]
            U, s, Vt = np.linalg.svd(A * scale, full_matrices=len(A) < d)
            s = np.pad(s, (0, d - len(s)))
            shrinkage = np.sqrt(1 + s**2)
            projected = np.pad(y @ U, (0, d))[:d]
            along = joint.centers / scale @ Vt.T
            log_weights = np.log(joint.weights) - 0.5 * np.sum(
                ((projected - s * along) / shrinkage) ** 2, axis=1
            )
            parts.append(
                (
                    (along + s * projected) / shrinkage,
                    scale[:, None] * Vt.T / shrinkage,
                    Vt.T / scale[:, None] * shrinkage,
                    log_weights - logsumexp(log_weights) + math.log(width_weight),
                    np.log(scale / shrinkage).sum() + joint.log_abs_det,
                )
            )
        centers, roots, inverses, log_weights, log_volumes = map(np.stack, zip(*parts, strict=True))
        return cls(centers, roots, inverses, log_weights, log_volumes, memory_limit)

    def draw(self, base: BaseDraws, part: slice) -> np.ndarray:
        """Return draws (n, d) that are made of some of the quasi-random numbers."""
        cumulated = np.exp(self.log_weights).ravel().cumsum()
        index = np.searchsorted(cumulated[:-1], base.choice[part] * cumulated[-1], side="right")
        width, center = np.divmod(index, self.log_weights.shape[1])
        white = self.centers[width, center] + base.noise[part]
        return np.einsum("nde,ne->nd", self.roots[width], white)

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Return log-densities (n,) of coordinates z (n, d), per unit of the rows of X."""
        return np.concatenate([logsumexp(self._parts(z[part]), (0, 2)) for part in self._slices(z)])

    def adapted(self, z: np.ndarray, weights: np.ndarray) -> _Proposal:
        """Return the proposal with kernels weighted by weighted draws z (n, d) of it."""
        adapted = _LEAST_WEIGHT * np.exp(self.log_weights)
        for part in self._slices(z):
            parts = self._parts(z[part])
            parts -= logsumexp(parts, (0, 2))[None, :, None]
            adapted += (1 - _LEAST_WEIGHT) * np.einsum("n,knc->kc", weights[part], np.exp(parts))
        return replace(self, log_weights=np.log(np.maximum(adapted, 1e-300)))

    def _parts(self, z: np.ndarray) -> np.ndarray:
        """Return log-densities (K, n, N) of the kernels, each times its weight."""
        squares = np.stack(
            [
                cdist(z @ i, c, "sqeuclidean")
                for i, c in zip(self.inverses, self.centers, strict=True)
            ]
        )
        constants = self.log_weights - self.log_volumes[:, None]
        return constants[:, None] - 0.5 * squares - gaussian_log_normalizer(z.shape[1])

    def _slices(self, z: np.ndarray) -> Any:
        return slices_within(len(z), 40 * self.log_weights.size, self.memory_limit)


@dataclass(frozen=True, eq=False)
class _Draws:
    """Weighted draws of a posterior; draw j is one of group j % 16."""

    z: np.ndarray
    """Coordinates (n, d)."""
    log_target: np.ndarray
    """Log p L, (n,)."""
    log_proposal: np.ndarray
    """Log q, (n,)."""
    log_weights: np.ndarray
    """Log w; the logarithm of their mean is log Z."""
    least_effective: float = math.inf
    """Fewest effective draws in any step of an annealing."""

    def joined(self, other: _Draws) -> _Draws:
        """Return these draws and others of the same proposal."""
        return _Draws(
            np.concatenate([self.z, other.z]),
            np.concatenate([self.log_target, other.log_target]),
            np.concatenate([self.log_proposal, other.log_proposal]),
            np.concatenate([self.log_weights, other.log_weights]),
        )

    @property
    def weights(self) -> np.ndarray:
        """The weights (n,), which sum to one."""
        return np.exp(self.log_weights - logsumexp(self.log_weights))

    @property
    def effective(self) -> float:
        """The effective number of draws."""
        return min(1 / float(np.sum(self.weights**2)), self.least_effective)

    @property
    def log_evidence(self) -> tuple[float, float]:
        """Log Z and its standard error, in nats."""
        means = self.weights.reshape(-1, _N_GROUPS).sum(axis=0)
        error = float(means.std(ddof=1) / math.sqrt(_N_GROUPS) / means.mean())
        # The logarithm of a mean is biased.
        bias = min(error, 0.5) ** 2 / 2
        return float(logsumexp(self.log_weights)) - math.log(len(self.z)) + bias, error


class _Posterior:
    """The posterior of a joint density and a likelihood.

    Its kernels are those of the density, or already those of the posterior.
    """

    def __init__(
        self,
        joint: JointDensity,
        memory_limit: float,
        likelihood: Any,
        *,
        kernels_are_posterior: bool = False,
    ) -> None:
        d = len(joint.origin)
        self._joint = joint
        self._likelihood = likelihood
        self._log_likelihood = checked_likelihood(likelihood, d)
        self._memory_limit = memory_limit
        observation = None
        if isinstance(likelihood, LinearObservation) and not kernels_are_posterior:
            self._check_periods(likelihood)
            is_mapped = joint.warp is not None and likelihood.A[:, joint.warp.columns].any()
            observation = None if is_mapped else likelihood
        self._proposal = _Proposal.of(joint, observation, memory_limit)

    def _check_periods(self, observation: LinearObservation) -> None:
        """Raise an error if the observation depends on a periodic column."""
        if self._joint.periods is None:
            return
        columns = np.flatnonzero(self._joint.periods * np.abs(observation.A).sum(axis=0))
        if len(columns):
            raise ValueError(
                f"A of the likelihood is not zero for column {columns[0]}, which has the period "
                f"{self._joint.periods[columns[0]]:g}: a sum of it is not defined. Pass a function of "
                "rows with that period, such as the log-density of a wrapped normal distribution."
            )

    def draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return n draws (n, d), in units of X."""
        size = 2 ** math.ceil(math.log2(max(n, _FIRST, min(4 * n, _MOST // 4))))
        draws = self._weighted(rng.randint(2**31), size, size)
        self._warn(draws)
        return self._rows(self._resampled(draws, n, rng))

    def log_evidence(self) -> tuple[float, float, float]:
        """Return log Z, its standard error in nats, and the effective number of draws."""
        draws = self._weighted(0, 2 * _FIRST, _MOST)
        self._warn(draws)
        return *draws.log_evidence, draws.effective

    def _weighted(self, seed: int, least: int, most: int) -> _Draws:
        """Return at least `least` weighted draws, and at most `most` where their error is large."""
        first = self._first_draws((seed,), most)
        if first[2].effective >= (_LEAST_SHARE if least == most else _PRECISE_SHARE) * _FIRST:
            return self._more_draws(*first, least)
        base = BaseDraws(max(least, _N_ANNEALED), len(self._joint.origin), 1.0, (seed, 0, 0))
        rng = np.random.RandomState(seed)
        annealed = self._annealed(first[0], self._proposed(first[0], base, slice(None)), rng)
        # In few dimensions, kernels at these draws are a good proposal.
        nearer, to_coordinates = self._with_kernels_at(self._resampled(annealed, N_CENTERS, rng))
        second = nearer._first_draws((seed, 1), most)
        if max(first[2].effective, second[2].effective) < _LEAST_SHARE * _FIRST:
            return annealed
        if first[2].effective > second[2].effective:
            return self._more_draws(*first, least)
        draws = nearer._more_draws(*second, least)
        return replace(draws, z=to_coordinates(draws.z))

    def _first_draws(self, seed: tuple[int, ...], most: int) -> tuple[_Proposal, BaseDraws, _Draws]:
        """Return an adapted proposal, the quasi-random numbers for up to `most` draws, and the first."""
        proposal = self._proposal
        for k in range(_N_ADAPTATIONS + 1):
            base = BaseDraws(most, len(self._joint.origin), 1.0, (*seed, k))
            draws = self._proposed(proposal, base, slice(0, _FIRST))
            if draws.effective > _GOOD_SHARE * _FIRST or k == _N_ADAPTATIONS:
                break
            proposal = proposal.adapted(draws.z, draws.weights)
        return proposal, base, draws

    def _more_draws(
        self, proposal: _Proposal, base: BaseDraws, draws: _Draws, least: int
    ) -> _Draws:
        """Return the first draws and others, at least `least`, until their error is small."""
        most = len(base.choice)
        while len(draws.z) < least or (len(draws.z) < most and draws.log_evidence[1] > _TOLERANCE):
            part = slice(len(draws.z), min(2 * len(draws.z), most))
            draws = draws.joined(self._proposed(proposal, base, part))
        return draws

    def _with_kernels_at(
        self, z: np.ndarray
    ) -> tuple[_Posterior, Callable[[np.ndarray], np.ndarray]]:
        """Return the same posterior with kernels at draws z (n, d), and a map of its coordinates."""
        joint = self._joint
        kernels = JointDensity.of_draws(joint.log_density, np.unique(z, axis=0))

        def to_coordinates(y: np.ndarray) -> np.ndarray:
            return kernels.origin + y @ kernels.axes

        nearer = replace(
            kernels,
            log_density=lambda y: joint.log_density(to_coordinates(y)),
            origin=joint.origin + kernels.origin @ joint.axes,
            axes=kernels.axes @ joint.axes,
            log_abs_det=kernels.log_abs_det + joint.log_abs_det,
            warp=joint.warp,
            periods=joint.periods,
        )
        posterior = _Posterior(
            nearer, self._memory_limit, self._likelihood, kernels_are_posterior=True
        )
        return posterior, to_coordinates

    def _resampled(self, draws: _Draws, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return n coordinates (n, d), resampled by weights; those that repeat others are moved."""
        index = rng.choice(len(draws.z), size=n, p=draws.weights)
        z, log_target = draws.z[index], draws.log_target[index]
        again = np.ones(n, dtype=bool)
        again[np.unique(index, return_index=True)[1]] = False
        moves = self._moves(draws.z, draws.weights)
        z[again] = moves.moved(z[again], log_target[again], np.zeros(again.sum()), 1.0, rng)[0]
        return z

    def _proposed(self, proposal: _Proposal, base: BaseDraws, part: slice) -> _Draws:
        """Return weighted draws of a proposal."""
        z = proposal.draw(base, part)
        log_target, log_proposal = self.log_target(z), proposal.log_density(z)
        log_weights = log_target - log_proposal
        if not np.isfinite(log_weights).any():
            raise ValueError(
                f"the posterior has density zero at all of {len(z)} proposed rows, where likelihood(X) "
                "or the density is -inf; expected a likelihood above zero at some rows near those of "
                "training. Check its units, or widen it."
            )
        return _Draws(z, log_target, log_proposal, log_weights)

    def _annealed(self, proposal: _Proposal, draws: _Draws, rng: np.random.RandomState) -> _Draws:
        """Return draws that were moved from the proposal to the posterior, by sequential Monte Carlo."""
        power, n = 0.0, len(draws.z)
        # Log Z of each group of draws.
        log_evidence = np.zeros(_N_GROUPS)
        least = math.inf
        for step in range(_MOST_STEPS):
            log_ratio = draws.log_target - draws.log_proposal
            following = _next_power(log_ratio, power) if step < _MOST_STEPS - 1 else 1.0
            log_weights = ((following - power) * log_ratio).reshape(-1, _N_GROUPS)
            least = min(least, _effective(log_weights.ravel()))
            if following == 1.0:
                log_weights = (log_weights + log_evidence).ravel()
                return replace(draws, log_weights=log_weights, least_effective=least)
            total = logsumexp(log_weights, axis=0)
            log_evidence += total - math.log(n / _N_GROUPS)
            # A group without any weight counts as nothing from here on.
            log_weights[:, total == -np.inf] = 0.0
            index = _resampled(np.exp(log_weights - log_weights.max(axis=0)), rng)
            kept = draws.z[index], draws.log_target[index], draws.log_proposal[index]
            moves = self._moves(kept[0], None, proposal)
            draws = _Draws(*moves.moved(*kept, following, rng), draws.log_weights)
            power = following
        raise AssertionError("the last step has the power one")

    def _moves(
        self, z: np.ndarray, weights: np.ndarray | None, proposal: _Proposal | None = None
    ) -> _Moves:
        """Return Metropolis moves with the covariance of weighted draws z (n, d), and of a kernel."""
        variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(z.T, aweights=weights)))
        overall = axes * np.sqrt(np.maximum(variances, 0.0))
        return _Moves(self.log_target, proposal, np.stack([self._proposal.roots[0], overall]))

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
                f"{_LEAST_EFFECTIVE:g} or more, so draws are alike and log_evidence is uncertain. "
                "Nearly no row of the density is likely: check the units of the likelihood, or widen it."
            )
        scale, centers = self._joint.scales[2], self._joint.centers
        position = (np.arange(_N_COMPARED) + 0.5) / _N_COMPARED
        index = np.searchsorted(draws.weights.cumsum()[:-1], position)
        tree = cKDTree(centers / scale)
        distance = float(np.median(tree.query(draws.z[index] / scale)[0]))
        few = centers[:: 1 + len(centers) // _N_COMPARED] / scale
        own = tree.query(few, k=2)[0][:, 1].max() if len(centers) > 1 else 0.0
        if distance > max(_FAR + math.sqrt(len(scale)), _FAR_FACTOR * own):
            warn_user(
                f"the posterior is far from all training rows: half of its draws are more than "
                f"{distance:.3g} bandwidths from the nearest, and training rows are at most {own:.3g} "
                "from the next. No row supports the likelihood, so the result is an extrapolation. "
                "Check the units of A and y, or of the function."
            )


@dataclass(frozen=True, eq=False)
class _Moves:
    """Metropolis steps for q^(1 - b) (p L)^b, along a kernel and along all draws in turn."""

    log_target: Callable[[np.ndarray], np.ndarray]
    proposal: _Proposal | None
    """Of q; None where b is one."""
    roots: np.ndarray
    """Shape (2, d, d); a step is root @ normal."""

    def moved(
        self,
        z: np.ndarray,
        log_target: np.ndarray,
        log_proposal: np.ndarray,
        power: float,
        rng: np.random.RandomState,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return moved draws (n, d), and their log p L and log q, both (n,)."""
        z, log_target, log_proposal = z.copy(), log_target.copy(), log_proposal.copy()
        sizes = np.full(len(self.roots), 2.38 / math.sqrt(z.shape[1]))
        for move in range(_N_MOVES if len(z) else 0):
            which = move % len(self.roots)
            proposed = z + sizes[which] * rng.standard_normal(z.shape) @ self.roots[which].T
            target, density = self.log_target(proposed), log_proposal
            if self.proposal is not None:
                density = self.proposal.log_density(proposed)
            with np.errstate(invalid="ignore"):
                change = power * (target - log_target) + (1 - power) * (density - log_proposal)
            accepted = np.log(rng.uniform(size=len(z))) < change
            z[accepted], log_target[accepted] = proposed[accepted], target[accepted]
            log_proposal[accepted] = density[accepted]
            sizes[which] *= math.exp(2 * (accepted.mean() - _ACCEPTED))
        return z, log_target, log_proposal


def _effective(log_weights: np.ndarray) -> float:
    """Return the effective number of draws with weights (n,)."""
    return math.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights))


def _next_power(log_ratio: np.ndarray, power: float) -> float:
    """Return the next power, at which half of the draws that have any weight (n,) are effective."""
    finite = log_ratio[np.isfinite(log_ratio)]

    def excess(log_step: float) -> float:
        return _effective(math.exp(log_step) * finite) / len(finite) - _STEP_SHARE

    most = math.log(1 - power)
    least = most - 30.0
    if excess(most) >= 0:
        return 1.0
    return power + math.exp(brentq(excess, least, most)) if excess(least) > 0 else math.exp(least)


def _resampled(weights: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return indices (m * n_groups,) of draws, resampled within groups by weights (m, n_groups)."""
    m, n_groups = weights.shape
    groups = np.tile(np.arange(n_groups), m)
    uniform = (np.arange(m)[:, None] + rng.uniform(size=n_groups)) / m
    return choose_in_rows(weights.T, groups, uniform.ravel()) * n_groups + groups


class PosteriorMixin:
    """The posterior of a density under a likelihood; `sample` of its classes takes one."""

    @on_one_fit
    def log_evidence(self, likelihood: Any) -> Any:
        """Return the log-evidence, log of the integral of density times likelihood.

        Choose it to compare models or hypotheses by what was observed: of a `LinearObservation` it is
        the log-density of y. It and the draws of ``sample(likelihood=...)`` belong to the posterior ::

            p(x | y) = p(x) L(x) / exp(log_evidence)

        Parameters
        ----------
        likelihood : LinearObservation or callable
            Of a row: a linear observation with Gaussian noise, or a function that maps rows (n,
            n_features), in units of X and without column names, to log-likelihoods (n,), finite or -inf.

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
            If the likelihood returns NaN, +inf or another shape, `A` does not fit the columns, the
            likelihood is zero at all proposed rows, or the density cannot be computed.

        Warns
        -----
        UserWarning
            If fewer than 24 draws are effective, or the posterior is far from all training rows.

        Notes
        -----
        From 1024 log-densities to 16 384, until the standard error is .005 nats; where fewer than a
        third of the draws are effective (a tenth, in `sample`) 2048 draws are annealed before, with six
        log-densities for each in each step.
        docs/guide/posterior.md has errors and times.

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
        return Estimate(*_Posterior(*self._prior("log_evidence"), likelihood).log_evidence())

    def _draw_posterior(
        self, n: int, rng: np.random.RandomState, likelihood: Any, given: Any
    ) -> np.ndarray:
        """Return n draws (n, d) of the posterior."""
        if given is not None:
            raise ValueError(
                f"given={given!r:.100} cannot be combined with likelihood; expected one of them. Put "
                "the given values into the likelihood, with a small noise."
            )
        return _Posterior(*self._prior("likelihood"), likelihood).draw(n, rng)

    def _prior(self, what: str) -> tuple[JointDensity, float]:
        """Return the joint density of all columns, and its limit of memory in MiB.

        Kernels are at draws of it. `what` is the argument that needs it, for messages.
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
        density: Any = copy.copy(self)
        # Rows are arrays here, so the estimator must not expect column names.
        vars(density).pop("feature_names_in_", None)
        rows = density.sample(N_CENTERS, random_state=np.random.RandomState(0))
        memory_limit = getattr(self, "memory_limit", _MEMORY_LIMIT)
        return JointDensity.of_draws(density.score_samples, rows), memory_limit


def _is_periodic(fitted: Any) -> bool:
    """Return whether columns of a fitted density, or of one that it holds, are periodic."""
    held = [*getattr(fitted, "estimators_", ()), getattr(fitted, "estimator_", None)]
    return getattr(fitted, "periods_", None) is not None or any(
        _is_periodic(each) for each in held if each is not None
    )
