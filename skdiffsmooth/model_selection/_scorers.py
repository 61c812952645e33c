"""Scorers that compare score fields instead of likelihoods, without solving an ODE.

A model of bandwidth h estimates the score of the data by s(., h^2), and that of the data plus noise of
variance t by s(., h^2 + t); for a Gaussian KDE the second follows from the first exactly. Models of all
bandwidths can therefore be compared on one distribution, that of x_t = x_0 + sqrt(t) z:

    H(t) = -E[ div s(x_t, h^2 + t) + |s(x_t, h^2 + t)|^2 / 2 ]              (Hyvarinen 2005, thm. 1)
         = -E[ |s(x_t, h^2 + t) + z / sqrt(t)|^2 - |z|^2 / t ] / 2          (Vincent 2011, eq. 11)
         = const(t) - E|s(x_t, h^2 + t) - grad log p_t(x_t)|^2 / 2.

For the KDE, the integral of H over all t > 0 is the log-likelihood up to a constant, by de
Bruijn's identity; for any other field it is a lower bound of the log-likelihood of its reverse SDE
(Song et al. 2021, thm. 1). Fields at equal *total* noise v cannot be compared: s(., v) is the same
for all bandwidths up to sqrt(v).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils.metadata_routing import MetadataRequest
from sklearn.utils.validation import check_is_fitted

from .._utils.rows import weighted_rows
from .._utils.table import check_table
from .._utils.validation import check_integer, check_real, check_seed

# Default range of noise variances, relative to the largest variance of a column. Smaller variances
# would change differences between models by about 0.01 nats, larger ones by less, since all models are
# then close to the same Gaussian.
_MIN_FACTOR, _MAX_FACTOR = 1e-3, 10.0


class _Scorer:
    """A scorer with scikit-learn's metadata routing of `sample_weight`."""

    _request: Any = None

    def set_score_request(self, *, sample_weight: bool | str | None) -> Any:
        """Set whether a search passes `sample_weight` to the scorer, or under which other name."""
        request = MetadataRequest(owner=repr(self))
        request.score.add_request(param="sample_weight", alias=sample_weight)
        self._request = request
        return self

    def get_metadata_routing(self) -> Any:
        """Return the metadata request of the scorer; by default `sample_weight` is not set."""
        if self._request is None:
            request = MetadataRequest(owner=repr(self))
            request.score.add_request(param="sample_weight", alias=None)
            return request
        return self._request


@dataclass
class HyvarinenScorer(_Scorer):
    """Scorer made by `make_hyvarinen_scorer`; it can be pickled and printed."""

    noise_variance: float
    n_pairs: int
    seed: int

    def __call__(self, estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the score-matching loss of a fitted estimator on held-out rows."""
        rows, weight = _rows(estimator, X, sample_weight)
        t = self.noise_variance
        if t:
            rows = rows + np.sqrt(t) * _mirrored(self.seed, self.n_pairs, rows.shape)
        named = _named_like(X, rows.reshape(-1, rows.shape[-1]))
        variance = estimator.bandwidth_**2 + t
        score = estimator.grad_log_density(named, t=variance)
        laplacian = estimator.laplacian_log_density(named, t=variance)
        losses = laplacian + 0.5 * np.sum(score**2, axis=1)
        return -float(np.average(losses.reshape(-1, len(weight)).mean(axis=0), weights=weight))


@dataclass
class DenoisingScorer(_Scorer):
    """Scorer made by `make_denoising_scorer`; it can be pickled and printed."""

    t_min: float | None
    t_max: float | None
    n_levels: int
    n_pairs: int
    seed: int

    def __call__(self, estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the denoising loss of a fitted estimator on held-out rows, in nats."""
        rows, weight = _rows(estimator, X, sample_weight)
        variances = np.average((rows - weight @ rows) ** 2, axis=0, weights=weight)
        # Rows without variance give no scale; the bandwidth of the model is used instead.
        widest = float(variances.max()) or float(np.max(estimator.bandwidth_)) ** 2
        low = _MIN_FACTOR * widest if self.t_min is None else self.t_min
        high = _MAX_FACTOR * widest if self.t_max is None else self.t_max
        if high <= low:
            raise ValueError(_not_above(high, low))
        levels = np.geomspace(low, high, self.n_levels)
        noise = _mirrored(self.seed, self.n_pairs, rows.shape)
        losses = []
        for t in levels:
            noised = _named_like(X, (rows + np.sqrt(t) * noise).reshape(-1, rows.shape[1]))
            score = estimator.grad_log_density(noised, t=estimator.bandwidth_**2 + t)
            score = np.sqrt(t) * score.reshape(noise.shape)
            # t |s + z / sqrt(t)|^2 - |z|^2, expanded so that |z|^2 cancels exactly.
            losses.append(weight @ np.sum(score * (score + 2 * noise), axis=2).mean(axis=0))
        # The integral of H(t) dt, computed as that of t H(t) over log t; H(t) is constant below the
        # range.
        return -0.5 * float(trapezoid(losses, np.log(levels)) + losses[0])


def make_hyvarinen_scorer(
    noise_variance: float = 0.0, *, n_pairs: int = 1, random_state: int = 0
) -> HyvarinenScorer:
    """Make a scorer that returns minus the score-matching loss on rows with noise.

    It costs one evaluation of the score field for each row and noise draw (without noise, for each
    row).

    Parameters
    ----------
    noise_variance : float, default=0.0
        Variance t of the noise that is added to the rows, and to the model's own noise variance, in
        squared units of X. 0 compares scores without noise, in which the finest scales have the largest
        effect.
    n_pairs : int, default=1
        Number of pairs of noise draws z and -z for each row; not used without noise.
    random_state : int, default=0
        Seed of the noise. It is the same for all candidates, so that they are compared on the same rows.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None, sample_weight=None)``; see `hyvarinen_score`, which is the
        scorer without noise. ``set_score_request(sample_weight=True)`` has a search pass weights.

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
    """Make a scorer that returns minus the denoising loss over all noise levels, in nats.

    Parameters
    ----------
    t_min, t_max : float, default=None
        Range of noise variances, in squared units of X. None: 0.001 and 10 times the largest variance
        of a column of the held-out rows, the same for all candidates.
    n_levels : int, default=12
        Number of noise levels, at least 2; their variances have equal ratios.
    n_pairs : int, default=1
        Number of pairs of noise draws z and -z for each row and level. The cost is ``2 * n_pairs *
        n_levels`` field evaluations for each row, without divergences.
    random_state : int, default=0
        Seed of the noise. It is the same for all candidates, so that they are compared on the same rows.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None, sample_weight=None)``; see `denoising_score`, which is the
        scorer of the defaults. ``set_score_request(sample_weight=True)`` has a search pass weights.

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


def hyvarinen_score(estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
    """Return minus the score-matching loss on held-out rows; higher is better.

    The value is ``-E[ div s + |s|^2 / 2 ]`` over the rows, with the model's score s at its bandwidth.
    Up to a constant that depends on the data only, it is minus half the mean squared distance between
    the scores of model and data. It costs one field evaluation with divergence; a likelihood takes up
    to ``2 * n_steps_``.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator of this package.
    X : array-like of shape (n_samples, n_features)
        Held-out rows.
    y : ignored
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; a row of weight k counts as k equal rows.

    Returns
    -------
    float
        In inverse squared units of X, not in nats: comparable between models of the same columns only.

    Raises
    ------
    TypeError
        If the estimator has no score field. A Pipeline has none: its field would be that of the
        transformed columns, whose units change with the transformer. Put the search inside the pipeline.
    ValueError
        If X is not valid, the kernel has no Laplacian, or the metric is not Euclidean.

    See Also
    --------
    make_hyvarinen_scorer : The same on rows with noise.
    denoising_score : Weights noise scales as the likelihood does.

    Notes
    -----
    A `background` is not part of the score field and does not affect the value. Densities may differ
    where scores agree: the relative weights of distant modes do not affect the value at all, and thin
    directions, in which scores are large, have the largest effect. docs/evidence/criteria.md compares
    the models that this score chooses with those that likelihoods choose.

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
    return _hyvarinen(estimator, X, sample_weight=sample_weight)


def denoising_score(estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
    """Return minus the denoising loss on held-out rows, over all noise levels; higher is better.

    Noise of twelve levels is added to the rows, and the model's score is compared with the direction
    back to the clean row. With the level weights used here, differences between two KDEs are
    differences of their log-likelihoods, up to Monte Carlo noise. For a smoothed score the value is a
    lower bound of the log-likelihood of its reverse *SDE*, which for large sigma is below the
    likelihood of the flow, which `score_samples` reports.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator of this package.
    X : array-like of shape (n_samples, n_features)
        Held-out rows.
    y : ignored
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; a row of weight k counts as k equal rows.

    Returns
    -------
    float
        In nats for each row, up to a constant that depends on the rows but not on the model.

    Raises
    ------
    TypeError
        If the estimator has no score field. A Pipeline has none: its field would be that of the
        transformed columns. Put the search inside the pipeline.
    ValueError
        If X is not valid, or the metric is not Euclidean.

    See Also
    --------
    make_denoising_scorer : The same with your own levels and number of draws.
    hyvarinen_score : Faster, but depends on the finest scales only.

    Notes
    -----
    Costs 24 field evaluations for each row, without divergences. A likelihood takes up to ``2 *
    n_steps_`` evaluations with divergences, each about ``(r + 2) / 2`` times slower in r dimensions.

    References
    ----------
    P. Vincent, A Connection Between Score Matching and Denoising Autoencoders, Neural Computation
    23, 2011.

    Y. Song, C. Durkan, I. Murray, S. Ermon, Maximum Likelihood Training of Score-Based Diffusion
    Models, NeurIPS 2021, arXiv:2101.09258.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.model_selection import denoising_score
    >>> angle = np.random.RandomState(0).uniform(0, 6.28, size=60)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> search = GridSearchCV(
    ...     SmoothedScoreDiffusion(bandwidth=0.05, n_nodes=16),
    ...     {"sigma": [0.0, 0.15, 1.0]},
    ...     scoring=denoising_score,
    ... )
    >>> search.fit(X).best_params_
    {'sigma': 0.15}
    """
    return _denoising(estimator, X, sample_weight=sample_weight)


def _rows(estimator: Any, X: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct rows (n, d) and their weights, after checking that there is a score field.

    Rows are in the order of their first occurrence, and weights sum to one. Copies of a row get the
    same noise, so that a row of weight k has the same effect as k copies.
    """
    if not hasattr(estimator, "grad_log_density"):
        raise TypeError(
            f"{type(estimator).__name__} has no method grad_log_density, which this scorer needs; "
            "expected an estimator of skdiffsmooth. Make the search a step of the pipeline: "
            "make_pipeline(StandardScaler(), GridSearchCV(SmoothedScoreDiffusion(), grid, "
            "scoring=...)), since errors of scores depend on the units of the columns."
        )
    check_is_fitted(estimator)
    coordinates = getattr(estimator, "coordinates_", None)
    if coordinates is not None and not coordinates.is_euclidean:
        raise ValueError(
            f"metric={estimator.metric_!r} gives each direction its own noise scale, and losses of "
            "scores under different noise cannot be compared; expected metric='euclidean'. Set it, or "
            "compare metrics by likelihood."
        )
    X, weight = weighted_rows(X, sample_weight)
    rows = check_table(X, estimator)
    _, first, group = np.unique(rows + 0.0, axis=0, return_index=True, return_inverse=True)
    weights = np.bincount(group.ravel(), weights=weight)
    order = np.argsort(first)
    return rows[first[order]], weights[order] / weights.sum()


def _named_like(X: Any, rows: np.ndarray) -> Any:
    """Return rows as a data frame with the columns of X, or as an array if X is no data frame."""
    return type(X)(rows, columns=X.columns) if hasattr(X, "iloc") else rows


def _not_above(high: float, low: float) -> str:
    """Return the error message for an empty range of noise variances."""
    return (
        f"t_max={high:g} is not above t_min={low:g}; expected a range of noise variances, in squared "
        "units of X. Pass both, or neither."
    )


def _mirrored(seed: int, n_pairs: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return standard normal noise (2 * n_pairs, *shape): n_pairs draws and their mirror images."""
    noise = np.random.RandomState(seed).standard_normal((n_pairs, *shape))
    return np.concatenate([noise, -noise])


_hyvarinen = make_hyvarinen_scorer()
_denoising = make_denoising_scorer()
