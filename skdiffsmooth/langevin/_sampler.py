"""Langevin sampling: Markov chains that follow a score field and noise, with convergence diagnostics.

With s a score, b an inverse temperature and h the step,

    x' = x + h b s(x) + sqrt(2 h) z,        z ~ N(0, I),

has the stationary distribution exp(b l) where s = grad l and h -> 0, or for any h if x' is accepted with
probability min(1, exp(b l(x') - b l(x)) q(x | x') / q(x' | x)) (Roberts & Tweedie 1996). *Tempered*
chains have b = v^(a/2), v the noise variance of the score: near a manifold with density mu

    b l = -dist^2 / (2 v^(1 - a/2)) + v^(a/2) log mu,

so that for 0 < a < 2 and v -> 0 mass stays at the manifold and mu has no influence: the limit is the
uniform distribution (Li et al. 2025, thm. 5.1). For *annealed* chains the noise variance falls from
level to level (Song & Ermon 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from .._utils.progress import counted, reporting
from .._utils.validation import (
    check_choice,
    check_draw,
    check_integer,
    check_real,
    check_real_array,
)
from .._utils.warnings import warn_user
from ..diagnostics import bulk_ess, split_r_hat
from ._targets import Target, as_target

# Step of unadjusted chains, in units of the smallest variance, which becomes 1 / (1 - 0.05) of it.
_UNADJUSTED_STEP = 0.1
# Initial step of adjusted chains, and the acceptance rate aimed at (Roberts & Rosenthal 1998).
_ADJUSTED_STEP = 0.5
_ACCEPTANCE = 0.574
_MIN_WARMUP = 50
# Chains have diverged where the drift is so many times the larger of the first drift and the noise.
_DIVERGENCE_FACTOR = 1e4
# R-hat above this warns: chains have not mixed by any published threshold.
_MAX_R_HAT = 1.1
_POWER_ITERATIONS = 10
# The finite-difference step is refined so often, by the width that the step before measured.
_REFINEMENTS = 3


@dataclass(frozen=True)
class LangevinChains:
    """The result of `LangevinSampler.run`.

    Attributes
    ----------
    draws : ndarray of shape (n_chains, n_draws, n_features)
        In units of X, in order.
    step_size : float
        The step h of the kept draws, in squared units of X (of the metric, where the model has one).
    acceptance_rate : ndarray of shape (n_chains,) or None
        Fraction of the proposals of the kept steps that were accepted; None for unadjusted chains,
        which accept all.
    r_hat : ndarray of shape (n_features,) or None
        Rank-normalised split R-hat, see `skdiffsmooth.diagnostics.split_r_hat`; None for fewer than
        four draws a chain, or where all draws of a column are equal.
    ess : ndarray of shape (n_features,) or None
        Bulk effective sample size of all chains, see `skdiffsmooth.diagnostics.bulk_ess`.
    """

    draws: np.ndarray = field(repr=False)
    step_size: float
    acceptance_rate: np.ndarray | None
    r_hat: np.ndarray | None
    ess: np.ndarray | None

    @property
    def samples(self) -> np.ndarray:
        """All draws as rows, chain after chain: shape (n_chains * n_draws, n_features)."""
        return self.draws.reshape(-1, self.draws.shape[2])

    def to_arviz(self, names: Any = None) -> Any:
        """Return the draws for ArviZ, which draws and diagnoses chains of any sampler.

        Parameters
        ----------
        names : sequence of str, default=None
            Names of the columns; each is a variable of the posterior. None is x0, x1, ...

        Returns
        -------
        arviz.InferenceData
            From ArviZ 1.0 on an xarray DataTree. Its group "posterior" has dimensions chain and draw.

        Raises
        ------
        ImportError
            If arviz is not installed.
        ValueError
            If there is another number of names, or two are equal.
        """
        d = self.draws.shape[2]
        labels = [f"x{j}" for j in range(d)] if names is None else [str(name) for name in names]
        if len(set(labels)) != d or len(labels) != d:
            raise ValueError(
                f"names={labels!r} has to hold {d} different names, one for each column."
            )
        try:
            import arviz
        except ImportError as error:
            raise ImportError(
                "to_arviz needs arviz, which is not installed; install it with pip install arviz."
            ) from error
        groups = {"posterior": dict(zip(labels, np.moveaxis(self.draws, 2, 0), strict=True))}
        if hasattr(arviz, "InferenceData"):
            return arviz.from_dict(**groups)
        return arviz.from_dict(groups)


class LangevinSampler(BaseEstimator):
    """Langevin chains for any score: unadjusted, Metropolis-adjusted, annealed or tempered.

    For distributions that are known by a score or an energy only. The estimators' own `sample` draws
    independent rows and needs no chains; use chains for their energies (whose distribution exp(-energy)
    is, with sigma > 0, not that of `sample`), for tempered distributions, and for scores of your own.

    Parameters
    ----------
    n_draws : int, default=1000
        Draws to keep of each chain.
    n_warmup : int, default=200
        Steps before them that are not kept, at each noise level.
    thin : int, default=1
        Steps from one kept draw to the next.
    n_chains : int, default=32
        Number of chains. All move as one array: up to some hundreds cost little more than one.
    step_size : float or "auto", default="auto"
        The step h, in squared units of X (of the metric, where the model has one); at the last noise
        level, and in proportion to the noise variance at the others. "auto" without `metropolis` is a
        tenth of the smallest variance of the distribution in any direction, which makes the variance in
        that direction 5 % too large. The smallest variance is the noise variance where it is known;
        otherwise it is measured at the starting rows, from how fast the score changes there. "auto" with
        `metropolis` adapts the step during the warm-up to an acceptance rate of 0.574 and then keeps it.
    metropolis : bool, default=False
        Whether to accept or reject each step, so that the stationary distribution is exact at any step
        size. Needs a log-density.
    temper : float, default=0.0
        The power a in [0, 2): scores are multiplied by ``noise_variance ** (a / 2)``. 0 samples the
        distribution itself. Above 0, and at a noise scale far below the size of the manifold near which
        data lie, the distribution is nearly uniform on the manifold, with a standard deviation of
        ``noise_variance ** (1/2 - a/4)`` across it: larger powers are nearer to uniform and farther from
        the manifold. Units matter: scale the data so that the manifold has a size of about one.
    noise_variance : float, default=None
        Noise variance v of the score, in squared units of X (of the metric). None is that of an
        estimator's bandwidth; for a function it is then unknown, and must be given to temper or anneal.
    anneal_from : float or "auto", default=None
        Noise scale, in units of X (of the metric), from which the noise falls to that of
        `noise_variance`, in geometric steps; "auto" is the largest standard deviation of a column of the
        training rows. None is no annealing. Use it for modes far apart, between which chains do not
        move, if the starting rows do not have the right weights of the modes.
    n_levels : int, default=10
        Number of noise levels, where annealed.
    verbose : int, default=0
        1 reports progress and the time that is left.

    See Also
    --------
    skdiffsmooth.solvers.PredictorCorrector : Langevin steps within the flow of a diffusion.
    skdiffsmooth.diagnostics : The diagnostics as functions of any chains.

    Notes
    -----
    A step is one evaluation of the score on n_chains rows, and with `metropolis` one of the
    log-density. An estimator's metric, or its bandwidths if there is one for each column, precondition
    the steps. All draws are kept in memory: ``8 * n_chains * n_draws * n_features`` bytes.

    References
    ----------
    Roberts and Tweedie, Exponential convergence of Langevin distributions and their discrete
    approximations, Bernoulli 2(4), 1996. Song and Ermon, Generative modeling by estimating gradients
    of the data distribution, NeurIPS 2019 (annealed). Li, Shen, Hsieh and He, When scores learn
    geometry, arXiv:2509.24912 (tempered).

    Examples
    --------
    The distribution of an energy, exactly:

    >>> import numpy as np
    >>> from skdiffsmooth import LangevinSampler, SmoothedScoreDiffusion
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> model = SmoothedScoreDiffusion(0.3, 0.4).fit(X)
    >>> sampler = LangevinSampler(n_draws=50, metropolis=True)
    >>> chains = sampler.run(model, random_state=0)
    >>> chains.draws.shape, float(chains.acceptance_rate.mean().round(1))
    ((32, 50, 2), 0.6)

    A function, from rows of your own:

    >>> chains = LangevinSampler().run(lambda x: -x, start=np.zeros((32, 1)), random_state=0)
    >>> chains.samples.shape, round(chains.step_size, 3)
    ((32000, 1), 0.1)
    """

    def __init__(
        self,
        n_draws: int = 1000,
        *,
        n_warmup: int = 200,
        thin: int = 1,
        n_chains: int = 32,
        step_size: float | str = "auto",
        metropolis: bool = False,
        temper: float = 0.0,
        noise_variance: float | None = None,
        anneal_from: float | str | None = None,
        n_levels: int = 10,
        verbose: int = 0,
    ) -> None:
        self.n_draws = n_draws
        self.n_warmup = n_warmup
        self.thin = thin
        self.n_chains = n_chains
        self.step_size = step_size
        self.metropolis = metropolis
        self.temper = temper
        self.noise_variance = noise_variance
        self.anneal_from = anneal_from
        self.n_levels = n_levels
        self.verbose = verbose

    def run(self, target: Any, start: Any = None, random_state: Any = None) -> LangevinChains:
        """Run the chains.

        Parameters
        ----------
        target : estimator, callable or tuple of two callables
            What to sample: a fitted `KDESampler`, `SmoothedScoreDiffusion` or
            `ManifoldAdaptedDiffusion`, whose distribution is exp(-energy) without the background; a
            score, from rows (n, d) to gradients (n, d) in nats per unit of X; or a tuple of a score and
            its log-density, rows to (n,) in nats up to a constant. Where annealed, functions
            are called with the noise variance as a second argument.
        start : array-like of shape (n_chains, n_features), default=None
            Starting rows, in units of X: rows close to the distribution need less warm-up; rows with a
            larger variance than the distribution make R-hat more reliable. None is draws of the
            estimator's `sample` (with noise up to that of the first level, where annealed). Functions
            need one.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None makes fresh ones, without using numpy's global state.

        Returns
        -------
        LangevinChains
            Draws and diagnostics.

        Raises
        ------
        NotFittedError
            If an estimator was not fitted.
        TypeError
            If the target or a parameter has the wrong type.
        ValueError
            If a parameter or `start` is out of range, if a log-density, a noise variance or a start is
            needed but missing, if functions return other shapes or NaN, or if chains diverge because the
            step is too large for the score.

        Warns
        -----
        ConvergenceWarning
            If R-hat is above 1.1.
        """
        with reporting(self, "run", math.inf):
            return self._run(target, start, random_state)

    def _run(self, target: Any, start: Any, random_state: Any) -> LangevinChains:
        """See `run`."""
        self._check_parameters()
        distribution = as_target(target, self.noise_variance)
        if self.metropolis and not distribution.has_log_density:
            raise ValueError(
                "metropolis=True needs a log-density, and target is a score alone; pass a tuple (score, "
                "log_density), or metropolis=False."
            )
        levels = self._levels(distribution)
        _, rng = check_draw(self.n_chains, random_state)
        with counted(len(levels) * self.n_warmup + self.n_draws * self.thin) as done:
            z = distribution.start(start, self.n_chains, levels[0].noise, rng)
            rule, h = self._step_size_rule(distribution, levels, z, rng), 0.0
            draws = np.empty((self.n_chains, self.n_draws, distribution.rows(z).shape[1]))
            accepted = np.zeros(self.n_chains)
            for level in levels:
                field = _Field(distribution, level, with_log_density=self.metropolis)
                chains = _ChainState(field, z, rng)
                for _ in range(self.n_warmup):
                    chains.step(rule.step_size(level))
                    rule.adapt(chains.acceptance)
                    done()
                rule.freeze()
                h, z = rule.step_size(level), chains.z
            for k in range(self.n_draws):
                for _ in range(self.thin):
                    accepted += chains.step(h)
                    done()
                draws[:, k] = distribution.rows(chains.z)
        rate = accepted / (self.n_draws * self.thin) if self.metropolis else None
        return _diagnosed(draws, h, rate)

    def _check_parameters(self) -> None:
        check_integer("n_draws", self.n_draws)
        check_integer("n_warmup", self.n_warmup, minimum=0)
        check_integer("thin", self.thin)
        check_integer("n_chains", self.n_chains)
        check_integer(
            "n_levels", self.n_levels, minimum=2, hint="anneal_from=None is a single one."
        )
        if not isinstance(self.metropolis, bool | np.bool_):
            raise TypeError(
                f"metropolis={self.metropolis!r} has type {type(self.metropolis).__name__}; expected "
                "True or False."
            )
        hint = "It is a power; 0 samples the distribution itself, 1 a nearly uniform one."
        if check_real("temper", self.temper, strict=False, hint=hint) >= 2:
            raise ValueError(
                f"temper={self.temper!r} is out of range; expected a number in [0, 2): from 2 on "
                f"chains do not stay near the data. {hint}"
            )
        if self.noise_variance is not None:
            check_real("noise_variance", self.noise_variance, hint="It is in squared units of X.")
        if isinstance(self.step_size, str):
            check_choice("step_size", self.step_size, ("auto",), hint="Or pass a number > 0.")
            if self.metropolis and self.n_warmup < _MIN_WARMUP:
                raise ValueError(
                    f"n_warmup={self.n_warmup} is too small for step_size='auto' to adapt to the "
                    f"acceptance rate; expected at least {_MIN_WARMUP}, or a number for step_size."
                )
        else:
            check_real("step_size", self.step_size, hint="It is in squared units of X.")
        if isinstance(self.anneal_from, str):
            check_choice(
                "anneal_from", self.anneal_from, ("auto",), hint="Or pass a noise scale > 0."
            )
        elif self.anneal_from is not None:
            check_real("anneal_from", self.anneal_from, hint="It is a noise scale in units of X.")

    def _levels(self, target: Target) -> list[_Level]:
        """Return the noise levels, in order of decreasing noise."""
        last = target.noise_variance if self.noise_variance is None else float(self.noise_variance)
        if last is None:
            for name, value in (("temper", self.temper), ("anneal_from", self.anneal_from)):
                if value:
                    raise ValueError(
                        f"{name}={value!r} needs the noise variance of the score, which is not known "
                        "for a function; pass noise_variance=<positive>, in squared units of X."
                    )
            return [_Level(None, 1.0, None)]
        # None is an estimator's own noise, for a compact kernel has no score at another noise variance.
        noises = [self.noise_variance if target.is_estimator else None]
        variances = [last]
        if self.anneal_from is not None:
            is_auto = isinstance(self.anneal_from, str)
            first = target.data_std() if is_auto else float(self.anneal_from)
            if first**2 <= last:
                raise ValueError(
                    f"anneal_from={self.anneal_from!r} is a noise scale of {first:g}, not above that of "
                    f"the last level, {math.sqrt(last):g}; expected a larger one, or None for no "
                    "annealing."
                )
            variances = np.geomspace(first**2, last, self.n_levels).tolist()
            noises = [*variances[:-1], noises[0] if target.is_estimator else last]
        powers = [v ** (self.temper / 2) for v in variances]
        return [_Level(*parts) for parts in zip(noises, powers, variances, strict=True)]

    def _step_size_rule(
        self, target: Target, levels: list[_Level], z: np.ndarray, rng: np.random.RandomState
    ) -> _StepSizeRule:
        """Return the rule for the step size: fixed, or adapted."""
        last, measured = levels[-1], 1.0
        is_auto = isinstance(self.step_size, str)
        if last.variance is None and is_auto:
            measured = _smallest_variance(_Field(target, last, with_log_density=False), z, rng)
        if is_auto:
            start = _ADJUSTED_STEP if self.metropolis else _UNADJUSTED_STEP
            return _StepSizeRule(start * measured, adapts=bool(self.metropolis))
        return _StepSizeRule(float(self.step_size) / last.tempered_variance, adapts=False)


class _Level(NamedTuple):
    """A noise level: the target's noise argument, the inverse temperature and the noise variance."""

    noise: float | None
    inverse_temperature: float
    variance: float | None

    @property
    def tempered_variance(self) -> float:
        """The variance of the tempered distribution across the manifold, or one if not known."""
        return 1.0 if self.variance is None else self.variance / self.inverse_temperature


class _StepSizeRule:
    """A step size in units of the tempered variance, fixed or adapted (Robbins & Monro 1951)."""

    def __init__(self, relative: float, *, adapts: bool) -> None:
        self._log = math.log(relative)
        self._adapts = adapts
        self._history: list[float] = []

    def step_size(self, level: _Level) -> float:
        return math.exp(self._log) * level.tempered_variance

    def adapt(self, acceptance: np.ndarray) -> None:
        if not self._adapts:
            return
        # An exact sum does not depend on the order of the chains.
        mean = math.fsum(acceptance.tolist()) / len(acceptance)
        self._log += (len(self._history) + 1) ** -0.6 * (mean - _ACCEPTANCE)
        self._history.append(self._log)

    def freeze(self) -> None:
        """Set the step size to its mean over the later half of the steps, which varies less."""
        if self._history:
            self._log = float(np.mean(self._history[len(self._history) // 2 :]))
            self._history.clear()


class _Field:
    """The tempered score (n, d) and log-density (n,) of one level, after checks of their values."""

    def __init__(self, target: Target, level: _Level, *, with_log_density: bool) -> None:
        self._target = target
        self._level = level
        self.with_log_density = with_log_density

    def score(self, z: np.ndarray) -> np.ndarray:
        score = self._checked("score", self._target.score(z, self._level.noise), z.shape)
        return self._level.inverse_temperature * score

    def log_density(self, z: np.ndarray) -> np.ndarray:
        values = self._target.log_density(z, self._level.noise)
        values = self._checked("log_density", values, z.shape[:1])
        if np.any(np.isnan(values) | (values == math.inf)):
            raise ValueError(
                "log_density returned NaN or inf; expected finite numbers in nats, and -inf where the "
                "density is zero."
            )
        return self._level.inverse_temperature * values

    @staticmethod
    def _checked(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
        values = check_real_array(f"what {name} returned", values)
        if values.shape != shape:
            raise ValueError(
                f"{name} returned an array of shape {values.shape} for rows of shape "
                f"{shape if len(shape) == 2 else (shape[0], 'n_features')}; expected {shape}."
            )
        return values


class _ChainState:
    """State of all chains at one noise level: rows z (n_chains, d), scores and log-densities."""

    def __init__(self, field: _Field, z: np.ndarray, rng: np.random.RandomState) -> None:
        self.z = z
        self.acceptance = np.ones(len(z))
        self._field = field
        self._rng = rng
        self._n_steps = 0
        self._max_drift = 0.0
        if field.with_log_density:
            self._log_density = field.log_density(z)
            outside = np.flatnonzero(np.isneginf(self._log_density))
            if len(outside):
                raise ValueError(
                    f"{len(outside)} chains (first: chain {outside[0]}) start where log_density is "
                    "-inf; expected a start where the density is positive."
                )
        self._score = field.score(z)
        bad = np.flatnonzero(~np.isfinite(self._score).all(axis=1))
        if len(bad):
            raise ValueError(
                f"score is NaN or infinite where {len(bad)} chains (first: chain {bad[0]}) start; "
                "expected finite numbers, in nats per unit of X."
            )

    def step(self, h: float) -> np.ndarray:
        """Move all chains by one step, and return which chains (n_chains,) accepted it."""
        self._n_steps += 1
        noise = self._rng.standard_normal(self.z.shape)
        # Overflow is reported below.
        with np.errstate(over="ignore", invalid="ignore"):
            proposal = self.z + h * self._score + math.sqrt(2 * h) * noise
            drift = h * np.linalg.norm(self._score, axis=1)
        if self._field.with_log_density:
            return self._accept_or_reject(h, proposal, noise)
        if self._n_steps == 1:
            noise_length = math.sqrt(2 * h * self.z.shape[1])
            self._max_drift = _DIVERGENCE_FACTOR * max(float(drift.max()), noise_length)
        finite = np.isfinite(proposal).all(axis=1) & (drift <= self._max_drift)
        score = self._field.score(proposal) if finite.all() else self._score
        lost = np.flatnonzero(~(finite & np.isfinite(score).all(axis=1)))
        if len(lost):
            shown = ", ".join(map(str, lost[:10])) + (", ..." if len(lost) > 10 else "")
            raise ValueError(
                f"{len(lost)} of {len(self.z)} chains diverged (chains {shown}; step {self._n_steps}): "
                f"step_size={h:g} is too large for this score, or the score is not finite there. Pass "
                f"a smaller step_size, such as {h / 10:.1g}, or metropolis=True with a log-density, "
                "which cannot diverge."
            )
        self.z, self._score = proposal, score
        return self.acceptance

    def _accept_or_reject(self, h: float, proposal: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Accept proposals with the probability for which exp(log-density) is stationary."""
        z, score = self.z, self._score
        log_density = np.full(len(z), -math.inf)
        inside = np.flatnonzero(np.isfinite(proposal).all(axis=1))
        if len(inside):
            log_density[inside] = self._field.log_density(proposal[inside])
        # Only where the density is positive, for elsewhere a score may not be defined.
        inside = np.flatnonzero(np.isfinite(log_density))
        new_score = np.zeros_like(z)
        if len(inside):
            new_score[inside] = self._field.score(proposal[inside])
        back = z - proposal - h * new_score
        log_ratio = np.full(len(z), -math.inf)
        log_ratio[inside] = (
            log_density[inside]
            - self._log_density[inside]
            - np.sum(back[inside] ** 2, axis=1) / (4 * h)
            + np.sum(noise[inside] ** 2, axis=1) / 2
        )
        if np.any(np.isnan(log_ratio)):
            raise ValueError(
                "score returned NaN where log_density is finite; expected finite numbers, in nats per "
                "unit of X."
            )
        self.acceptance = np.exp(np.minimum(log_ratio, 0.0))
        accepted = -self._rng.standard_exponential(len(z)) < log_ratio
        self.z = np.where(accepted[:, None], proposal, z)
        self._score = np.where(accepted[:, None], new_score, score)
        self._log_density = np.where(accepted, log_density, self._log_density)
        return accepted


def _smallest_variance(field: _Field, z: np.ndarray, rng: np.random.RandomState) -> float:
    """Return the inverse of the largest derivative of the score at rows z (n, d), by power iteration."""
    score, direction = field.score(z), rng.standard_normal(z.shape)
    largest = float(np.abs(z).max())
    # The first finite-difference step is relative to the coordinates, which do not tell how wide the
    # distribution is if it is far from the origin, or starts there. The measured derivative does.
    step = 1e-5 * (largest or 1.0)
    for _ in range(_REFINEMENTS):
        derivative = _largest_derivative(field, z, score, direction, step)
        if not (math.isfinite(derivative) and derivative > 0):
            raise ValueError(
                f"step_size='auto' cannot be set: the score changes by {derivative:g} a unit of X at "
                "the starting rows; expected a finite number > 0. Pass a number for step_size, or "
                "noise_variance."
            )
        width = derivative**-0.5
        if step <= 1e-2 * width:
            break
        # Not so small that the rounding of the coordinates matters.
        step = max(1e-5 * width, 1e-12 * largest)
    return 1 / derivative


def _largest_derivative(
    field: _Field, z: np.ndarray, score: np.ndarray, direction: np.ndarray, step: float
) -> float:
    """Return the largest derivative of a score at rows z by finite differences and power iteration."""
    for _ in range(_POWER_ITERATIONS):
        direction = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-300)
        direction = (field.score(z + step * direction) - score) / step
    return float(np.linalg.norm(direction, axis=1).max())


def _diagnosed(draws: np.ndarray, h: float, rate: np.ndarray | None) -> LangevinChains:
    """Return the chains with their diagnostics, and warn if they have not mixed."""
    if rate is not None and not rate.any():
        raise ValueError(
            f"no chain accepted a step of step_size={h:g}; pass a smaller one, or 'auto'."
        )
    # Few draws of a chain that rejected all steps between them are equal.
    if draws.shape[1] < 4 or np.any(np.ptp(draws, axis=(0, 1)) == 0):
        return LangevinChains(draws, h, rate, None, None)
    r_hat = split_r_hat(draws)
    if r_hat.max() > _MAX_R_HAT:
        warn_user(
            f"chains have not mixed: R-hat is {r_hat.max():.2f} in column {r_hat.argmax()}; expected "
            f"below 1.01. Run longer (n_warmup, n_draws, thin), with a larger step_size than {h:.2g} if "
            "the bias allows, with anneal_from='auto' where modes are far apart, or from another start.",
            ConvergenceWarning,
        )
    return LangevinChains(draws, h, rate, r_hat, bulk_ess(draws))
