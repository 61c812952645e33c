"""Langevin sampling: Markov chains that follow a score field and noise, with convergence diagnostics.

With s a score, b an inverse temperature and h the step,

    x' = x + h b s(x) + sqrt(2 h) z,        z ~ N(0, I),

has the stationary distribution exp(b l) where s = grad l and h -> 0, or for any h if x' is accepted with
probability min(1, exp(b l(x') - b l(x)) q(x | x') / q(x' | x)) (Roberts & Tweedie 1996). *Tempered*
chains have b = v^(a/2), v the noise variance of the score: near a manifold with density mu

    b l = -dist^2 / (2 v^(1 - a/2)) + v^(a/2) log mu,

so that for 0 < a < 2 and v -> 0 the distribution concentrates on the manifold and mu has no influence:
the limit is the uniform distribution (Li et al. 2025, thm. 5.1). For *annealed* chains the noise
variance decreases from level to level (Song & Ermon 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from .._utils.progress import counted, reporting
from .._utils.validation import check_choice, check_draw, check_flag, check_integer, check_real
from .._utils.warnings import warn_user
from ..diagnostics import bulk_ess, split_r_hat
from ._chain import ChainState, Field, Level, StepSizeRule, smallest_variance
from ._targets import Target, as_target

# Step of unadjusted chains, in units of the smallest variance, which the chains exceed by a factor of
# 1 / (1 - 0.05).
_UNADJUSTED_STEP = 0.1
# Initial step of adjusted chains, in the same units.
_ADJUSTED_STEP = 0.5
_MIN_WARMUP = 50
# A higher R-hat raises a warning: by every published threshold the chains have not mixed.
_MAX_R_HAT = 1.1


@dataclass(frozen=True)
class LangevinChains:
    """The result of `LangevinSampler.run`.

    Attributes
    ----------
    draws : ndarray of shape (n_chains, n_draws, n_features)
        The kept draws of each chain in order, in units of X.
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
        """Return the draws as an object of ArviZ, for its plots and diagnostics.

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
            If the number of names is not that of the columns, or two names are equal.
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

    They sample distributions of which only a score or an energy is known. The estimators' own `sample`
    draws independent rows and needs no chains; use chains for their energies (with sigma > 0 the
    distribution exp(-energy) is not that of `sample`), for tempered distributions, and for other scores.

    Parameters
    ----------
    n_draws : int, default=1000
        Number of draws to keep of each chain.
    n_warmup : int, default=200
        Number of steps at each noise level before draws are kept.
    thin : int, default=1
        Number of steps from one kept draw to the next.
    n_chains : int, default=32
        Number of chains. They are computed as one array: some hundreds cost little more than one.
    step_size : float or "auto", default="auto"
        The step h at the last noise level, in squared units of X (of the metric, where the model has
        one); at the other levels it is proportional to the noise variance. "auto" without `metropolis`
        is a tenth of the smallest variance of the distribution in any direction; the variance of the
        draws in that direction is then 5 % too large. The smallest variance is the noise variance if
        that is known; otherwise it is computed from the derivative of the score at the starting rows.
        "auto" with `metropolis` adapts the step during the warm-up to an acceptance rate of 0.574 and
        then keeps it.
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
        Noise variance v of the score, in squared units of X (of the metric). None is the squared
        bandwidth of an estimator. For a function None means unknown; tempering and annealing need it.
    anneal_from : float or "auto", default=None
        Noise scale, in units of X (of the metric), from which the noise falls to that of
        `noise_variance`, in geometric steps; "auto" is the largest standard deviation of a column of the
        training rows. None does not anneal. Use it for modes far apart, between which chains do not
        move, unless the starting rows have the right proportions of the modes.
    n_levels : int, default=10
        Number of noise levels of annealed chains.
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
    Draws of the exact distribution of an energy:

    >>> import numpy as np
    >>> from skdiffsmooth import LangevinSampler, SmoothedScoreDiffusion
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> model = SmoothedScoreDiffusion(0.3, 0.4).fit(X)
    >>> sampler = LangevinSampler(n_draws=50, metropolis=True)
    >>> chains = sampler.run(model, random_state=0)
    >>> chains.draws.shape, float(chains.acceptance_rate.mean().round(1))
    ((32, 50, 2), 0.6)

    A score function, with your own starting rows:

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
        """Return draws of the chains, with diagnostics.

        Parameters
        ----------
        target : estimator, callable or tuple of two callables
            The distribution to sample: a fitted `KDESampler`, `SmoothedScoreDiffusion` or
            `ManifoldAdaptedDiffusion`, for exp(-energy) without the background; a score function of
            rows (n, d), which returns gradients (n, d) in nats per unit of X; or a tuple of a score and
            its log-density, a function that returns (n,) in nats up to a constant. With annealing,
            functions are called with the noise variance as a second argument.
        start : array-like of shape (n_chains, n_features), default=None
            Starting rows, in units of X: rows close to the distribution need less warm-up; rows with a
            larger variance than the distribution make R-hat more reliable. None takes draws of the
            estimator's `sample` (with annealing, noised to the first level). Functions need starting
            rows.
        random_state : int, RandomState or None, default=None
            Seed of the draws; with None they differ between calls. numpy's global state is not used.

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
            If a parameter or `start` is out of range, if a log-density, a noise variance or `start` is
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
                field = Field(distribution, level, with_log_density=self.metropolis)
                chains = ChainState(field, z, rng)
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
            "n_levels", self.n_levels, minimum=2, hint="anneal_from=None has a single level."
        )
        check_flag("metropolis", self.metropolis)
        hint = (
            "It is a power; 0 samples the distribution itself, 1 a nearly uniform one, and from 2 on "
            "chains do not stay near the data."
        )
        check_real("temper", self.temper, strict=False, below=2, hint=hint)
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

    def _levels(self, target: Target) -> list[Level]:
        """Return the noise levels, in order of decreasing noise."""
        last = target.noise_variance if self.noise_variance is None else float(self.noise_variance)
        if last is None:
            for name, value in (("temper", self.temper), ("anneal_from", self.anneal_from)):
                if value:
                    raise ValueError(
                        f"{name}={value!r} needs the noise variance of the score, which is not known "
                        "for a function; pass noise_variance=<positive>, in squared units of X."
                    )
            return [Level(None, 1.0, None)]
        # None is the noise variance of an estimator: a compact kernel has no score at another one.
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
        return [Level(*parts) for parts in zip(noises, powers, variances, strict=True)]

    def _step_size_rule(
        self, target: Target, levels: list[Level], z: np.ndarray, rng: np.random.RandomState
    ) -> StepSizeRule:
        """Return the rule for the step size: fixed, or adapted."""
        last, measured = levels[-1], 1.0
        is_auto = isinstance(self.step_size, str)
        if last.variance is None and is_auto:
            measured = smallest_variance(Field(target, last, with_log_density=False), z, rng)
        if is_auto:
            start = _ADJUSTED_STEP if self.metropolis else _UNADJUSTED_STEP
            return StepSizeRule(start * measured, adapts=bool(self.metropolis))
        return StepSizeRule(float(self.step_size) / last.tempered_variance, adapts=False)


def _diagnosed(draws: np.ndarray, h: float, rate: np.ndarray | None) -> LangevinChains:
    """Return the chains with their diagnostics, and warn if they have not mixed."""
    if rate is not None and not rate.any():
        raise ValueError(
            f"no chain accepted a step of step_size={h:g}; pass a smaller one, or 'auto'."
        )
    # A few draws may all be equal, if all steps between them were rejected.
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
