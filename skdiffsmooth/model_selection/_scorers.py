"""Scorers that compare score fields instead of likelihoods, for which no ODE is solved.

A model of bandwidth h says that the data have the score s(., h^2), h^2 being noise of its own, and
the data plus noise of variance t the score s(., h^2 + t); for a Gaussian KDE that is exact. With
x_t = x_0 + sqrt(t) z all models can thus be asked about one law, that of x_t:

    H(t) = -E[ div s(x_t, h^2 + t) + |s(x_t, h^2 + t)|^2 / 2 ]              (Hyvarinen 2005, thm. 1)
         = -E[ |s(x_t, h^2 + t) + z / sqrt(t)|^2 - |z|^2 / t ] / 2          (Vincent 2011, eq. 11)
         = const(t) - E|s(x_t, h^2 + t) - grad log p_t(x_t)|^2 / 2.

The integral of H over all t > 0 is the log-likelihood up to a constant for the KDE, by de Bruijn's
identity, and for any other field bounds that of its reverse SDE from below (Song et al. 2021, thm. 1).
Fields of one *total* noise must not be compared: s(., v) is the same for all bandwidths up to sqrt(v).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils.validation import check_array, check_is_fitted

from .._utils.validation import check_detached, check_integer, check_real, check_seed

__all__ = ["denoising_score", "hyvarinen_score", "make_denoising_scorer", "make_hyvarinen_scorer"]

# Times the variance of the columns. What is left out below is some 0.01 nats of differences between
# models, above it less: there all of them see the same Gaussian.
_LEAST, _MOST = 1e-3, 10.0


@dataclass(frozen=True)
class HyvarinenScorer:
    """What `make_hyvarinen_scorer` makes; the same numbers can be pickled and printed."""

    noise_variance: float
    n_pairs: int
    seed: int

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Return minus the score-matching loss of a fitted estimator on held-out rows."""
        rows = _rows(estimator, X)
        t = self.noise_variance
        if t:
            rows = rows + np.sqrt(t) * _mirrored(self.seed, self.n_pairs, rows.shape)
        named = _named_like(X, rows.reshape(-1, rows.shape[-1]))
        variance = estimator.bandwidth_**2 + t
        score = estimator.grad_log_density(named, t=variance)
        laplacian = estimator.laplacian_log_density(named, t=variance)
        return -float(np.mean(laplacian + 0.5 * np.sum(score**2, axis=1)))


@dataclass(frozen=True)
class DenoisingScorer:
    """What `make_denoising_scorer` makes."""

    t_min: float | None
    t_max: float | None
    n_levels: int
    n_pairs: int
    seed: int

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Return minus the denoising loss of a fitted estimator on held-out rows, in nats."""
        rows = _rows(estimator, X)
        # Rows without extent have no scale of their own; the model's will do.
        widest = float(rows.var(axis=0).max()) or float(np.max(estimator.bandwidth_)) ** 2
        low = _LEAST * widest if self.t_min is None else self.t_min
        high = _MOST * widest if self.t_max is None else self.t_max
        if high <= low:
            raise ValueError(_not_above(high, low))
        levels = np.geomspace(low, high, self.n_levels)
        noise = _mirrored(self.seed, self.n_pairs, rows.shape)
        losses = []
        for t in levels:
            noised = _named_like(X, (rows + np.sqrt(t) * noise).reshape(-1, rows.shape[1]))
            score = estimator.grad_log_density(noised, t=estimator.bandwidth_**2 + t)
            score = np.sqrt(t) * score.reshape(noise.shape)
            # t |s + z / sqrt(t)|^2 - |z|^2, without the large constant.
            losses.append(np.mean(np.sum(score * (score + 2 * noise), axis=2)))
        # The integral of H(t) dt, as one of t H(t) over log t; below the range H is what it is there.
        return -0.5 * float(trapezoid(losses, np.log(levels)) + losses[0])


def make_hyvarinen_scorer(
    noise_variance: float = 0.0, *, n_pairs: int = 1, random_state: int = 0
) -> HyvarinenScorer:
    """Make a scorer of minus the score-matching loss, one field evaluation a row.

    Parameters
    ----------
    noise_variance : float, default=0.0
        Variance t of noise that is added to the rows and, on top of its own, to the model's, in squared
        units of X. 0 compares scores of the data themselves, which weighs the finest scales most.
    n_pairs : int, default=1
        Mirrored pairs of noise for each row, where there is noise.
    random_state : int, default=0
        Seed of the noise: the same for all candidates, so that they are compared on the same numbers.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None)``; see `hyvarinen_score`, which is the scorer without noise.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.model_selection import make_hyvarinen_scorer
    >>> X = np.random.RandomState(0).normal(size=(200, 2))
    >>> scorer = make_hyvarinen_scorer(0.1)
    >>> search = GridSearchCV(KDESampler(), {"bandwidth": [0.05, 0.4, 3.0]}, scoring=scorer)
    >>> search.fit(X).best_params_
    {'bandwidth': 0.4}
    """
    t = check_real("noise_variance", noise_variance, strict=False, hint="0 adds no noise.")
    n_pairs = check_integer("n_pairs", n_pairs)
    seed = check_seed(random_state)
    return HyvarinenScorer(t, n_pairs, seed)


def make_denoising_scorer(
    t_min: float | None = None,
    t_max: float | None = None,
    n_levels: int = 12,
    *,
    n_pairs: int = 1,
    random_state: int = 0,
) -> DenoisingScorer:
    """Make a scorer of minus the denoising loss over all noise levels, in nats.

    Parameters
    ----------
    t_min, t_max : float, default=None
        Range of noise variances, in squared units of X. None is 0.001 and 10 times the largest variance
        of a held-out column: the same for all candidates, as it must be.
    n_levels : int, default=12
        Noise levels, of equal ratio; two at least.
    n_pairs : int, default=1
        Mirrored pairs of noise for each row and level. Scores cost ``2 * n_pairs * n_levels`` field
        evaluations a row, without divergences.
    random_state : int, default=0
        Seed of the noise: the same for all candidates, so that they are compared on the same numbers.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None)``; see `denoising_score`, which is the scorer of the defaults.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of range, or `t_max` not above `t_min`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.model_selection import make_denoising_scorer
    >>> X = np.random.RandomState(0).normal(size=(200, 2))
    >>> scorer = make_denoising_scorer(n_pairs=4)
    >>> search = GridSearchCV(KDESampler(), {"bandwidth": [0.05, 0.4, 3.0]}, scoring=scorer)
    >>> search.fit(X).best_params_
    {'bandwidth': 0.4}
    """
    least = None if t_min is None else check_real("t_min", t_min)
    most = None if t_max is None else check_real("t_max", t_max)
    n_levels = check_integer("n_levels", n_levels, minimum=2)
    n_pairs = check_integer("n_pairs", n_pairs)
    seed = check_seed(random_state)
    if least is not None and most is not None and most <= least:
        raise ValueError(_not_above(most, least))
    return DenoisingScorer(least, most, n_levels, n_pairs, seed)


def hyvarinen_score(estimator: Any, X: Any, y: Any = None) -> float:
    """Return minus the score-matching loss on held-out rows; higher is better.

    That is ``-E[ div s + |s|^2 / 2 ]`` at the rows, s the model's score at its own bandwidth: up to a
    constant of the data, minus half the squared distance between the model's score and that of the
    data. One field evaluation with its divergence, where a likelihood takes ``2 * n_steps_``.

    Parameters
    ----------
    estimator : estimator
        A fitted one of this package.
    X : array-like of shape (n_samples, n_features)
        Held-out rows.
    y : object, default=None
        Ignored; there for scikit-learn's calling convention.

    Returns
    -------
    float
        In inverse squared units of X: no nats, and comparable between models of the same columns only.

    Raises
    ------
    TypeError
        If the estimator has no score field, as a Pipeline: there the field is that of the transformed
        columns, whose units change with the transformer. Put the search inside the pipeline.
    ValueError
        If X does not fit, the kernel is none that has a Laplacian, or the metric not Euclidean.

    See Also
    --------
    make_hyvarinen_scorer : The same on noised rows.
    denoising_score : Weighs all scales as the likelihood does.

    Notes
    -----
    A `background` is no part of the field, and does not count. A density may be far from the data's
    where scores are not: the weights of modes far apart are not seen at all, and thin directions, where
    scores are large, count most. docs/criteria.md compares what it chooses with what likelihoods choose.

    References
    ----------
    A. Hyvarinen, Estimation of Non-Normalized Statistical Models by Score Matching, JMLR 6, 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.model_selection import hyvarinen_score
    >>> X = np.random.RandomState(0).normal(size=(200, 2))
    >>> grid = {"bandwidth": [0.05, 0.5, 3.0]}
    >>> GridSearchCV(KDESampler(), grid, scoring=hyvarinen_score).fit(X).best_params_
    {'bandwidth': 0.5}
    """
    return _hyvarinen(estimator, X)


def denoising_score(estimator: Any, X: Any, y: Any = None) -> float:
    """Return minus the denoising loss on held-out rows, over all noise levels; higher is better.

    Rows are noised at twelve levels, and the model's score is compared with where the noise came from.
    Weighted as here, differences between two KDEs are differences of their log-likelihoods, up to the
    noise; for a smoothed score, what is bounded from below is the log-likelihood of its reverse *SDE*,
    which is below that of the flow that `score_samples` describes where sigma is large.

    Parameters
    ----------
    estimator : estimator
        A fitted one of this package.
    X : array-like of shape (n_samples, n_features)
        Held-out rows.
    y : object, default=None
        Ignored; there for scikit-learn's calling convention.

    Returns
    -------
    float
        In nats a row, up to a constant that depends on the rows but not on the model.

    Raises
    ------
    TypeError
        If the estimator has no score field, as a Pipeline: there the field is that of the transformed
        columns. Put the search inside the pipeline.
    ValueError
        If X does not fit, or the metric is not Euclidean.

    See Also
    --------
    make_denoising_scorer : The same with other levels and more draws.
    hyvarinen_score : Faster, and blind to all scales but the finest.

    Notes
    -----
    24 field evaluations a row without divergences, each some ``(r + 2) / 2`` times cheaper than one of
    those that a likelihood takes ``2 * n_steps_`` of.

    References
    ----------
    P. Vincent, A Connection Between Score Matching and Denoising Autoencoders, Neural Computation 23,
    2011.

    Y. Song, C. Durkan, I. Murray, S. Ermon, Maximum Likelihood Training of Score-Based Diffusion Models,
    NeurIPS 2021, arXiv:2101.09258.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.model_selection import denoising_score
    >>> angle = np.random.RandomState(0).uniform(0, 6.28, size=60)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> search = GridSearchCV(
    ...     SmoothedScoreDiffusion(bandwidth=0.05),
    ...     {"sigma": [0.0, 0.15, 1.0]},
    ...     scoring=denoising_score,
    ... )
    >>> search.fit(X).best_params_
    {'sigma': 0.15}
    """
    return _denoising(estimator, X)


def _rows(estimator: Any, X: Any) -> np.ndarray:
    """Return the rows as an array, after checking that the estimator has a score field."""
    if not hasattr(estimator, "grad_log_density"):
        raise TypeError(
            f"a {type(estimator).__name__} has no grad_log_density, which this scorer compares; "
            "expected an estimator of skdiffsmooth. With a pipeline, search inside it: "
            "make_pipeline(StandardScaler(), GridSearchCV(SmoothedScoreDiffusion(), grid, "
            "scoring=...)), since a loss of scores changes with the units of the columns."
        )
    check_is_fitted(estimator)
    check_detached("X", X)
    coordinates = getattr(estimator, "coordinates_", None)
    if coordinates is not None and not coordinates.is_euclidean:
        raise ValueError(
            f"metric={estimator.metric_!r} gives each direction noise of its own, and losses of scores "
            "under different noise cannot be compared; search over metrics by likelihood, or set "
            "metric='euclidean'."
        )
    return check_array(X, dtype=np.float64, input_name="X")


def _named_like(X: Any, rows: np.ndarray) -> Any:
    """Return rows under the column names of X, which an estimator may expect."""
    return type(X)(rows, columns=X.columns) if hasattr(X, "iloc") else rows


def _not_above(high: float, low: float) -> str:
    return (
        f"t_max={high:g} is not above t_min={low:g}; expected a range of noise variances, in squared "
        "units of X. Pass both, or neither."
    )


def _mirrored(seed: int, n_pairs: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return standard normal noise for all rows, (2 * n_pairs, n, d), each with its mirror image."""
    noise = np.random.RandomState(seed).standard_normal((n_pairs, *shape))
    return np.concatenate([noise, -noise])


_hyvarinen = make_hyvarinen_scorer()
_denoising = make_denoising_scorer()
