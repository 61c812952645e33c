"""SmoothedScoreDiffusionCV: a diffusion whose settings are searched by held-out likelihood."""

from __future__ import annotations

import itertools
import time
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import KFold, check_cv
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from .._base import DensityEstimatorMixin
from .._diffusion import BaseScoreDiffusion
from .._metric import check_metric
from .._selection import DEFAULT_FACTORS, Comparison, Factors, Settings
from .._smoothed import SmoothedScoreDiffusion
from .._validation import check_integer, check_real, check_real_array
from ..bases import resolve_base

__all__ = ["SmoothedScoreDiffusionCV"]

# Where the search may go, in units of the KDE's leave-one-out bandwidth.
_BANDWIDTHS = (0.2, 2.0)
_SIGMAS = (0.3, 12.0)
# Candidates that are scored once more under the estimator's own nodes, levels and steps.
_N_FINALISTS = 3
# A share of equal rows that continuous data do not have.
_MANY_EQUAL = 0.05


class SmoothedScoreDiffusionCV(DensityEstimatorMixin, BaseEstimator):
    """A diffusion with metric, bandwidth, smoothing scale and background of highest held-out likelihood.

    Scored by exact leave-one-out likelihood without refits, or by folds. The search goes from coarse
    to fine: metrics at default scales, a grid of scales in the two best metrics, steps of decreasing
    size around the best; all of them with few nodes, levels and steps of the solver, and the last
    three once more with the estimator's own. The best settings are then fitted to all rows.

    Parameters
    ----------
    estimator : SmoothedScoreDiffusion or ManifoldAdaptedDiffusion, default=None
        What to tune; None is ``SmoothedScoreDiffusion()``. Its `metric` and `background` are searched
        where they are "auto", and kept otherwise.
    bandwidths : array-like of shape (n_bandwidths,), default=(0.55, 0.7, 0.85, 1.0)
        Bandwidths of the coarse grid, in units of the bandwidth of highest leave-one-out likelihood of
        the Gaussian KDE in the same metric.
    sigmas : array-like of shape (n_sigmas,), default=(0.0, 0.75, 1.5, 3.0)
        Smoothing scales of the coarse grid, in the same unit. ``(0.0,)`` searches kernel density
        estimates.
    metrics : sequence or None, default=None
        Metrics to compare, as the parameter `metric` of the estimator takes them. None are those that
        "auto" chooses from.
    cv : int, splitter, iterable or None, default=None
        None leaves out each distinct row, exactly. An integer is a number of shuffled folds. Folds are
        of distinct rows: copies of a row are left out together, or the likelihood of ever smaller
        bandwidths would grow without bound.
    n_refinements : int, default=2
        How often the steps around the best are halved, from a factor of sqrt(2) on.
    n_jobs : int or None, default=None
        Candidates at a time, as joblib workers.
    verbose : int, default=0
        1 prints a line for each stage, 2 one for each candidate.

    Attributes
    ----------
    best_estimator_ : estimator
        Fitted to all rows with the best settings, which are numbers in it.
    best_params_ : dict
        Its `metric`, `bandwidth`, `sigma` and `background`.
    best_score_ : float
        Mean held-out log-density of the best settings, in nats a row.
    best_index_ : int
        Their place in `cv_results_`.
    bandwidth_, sigma_, background_ : float
        As in `best_params_`.
    metric_ : str, float or ndarray
        As in `best_params_`.
    cv_results_ : dict of lists
        One entry for each candidate in the order of the search: "stage", "is_exact" (whether scored
        under the estimator's own nodes, levels and steps), "metric", "bandwidth_factor",
        "sigma_factor", "background", "score" and "time" in seconds. A pandas DataFrame can be made of
        it.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : With "auto" scales, a shorter search of the same kind.
    sklearn.model_selection.GridSearchCV : For any other parameter.

    Notes
    -----
    About fifty candidates, each of which costs what scoring all rows against all rows costs with 16
    nodes and 8 steps: a thirtieth of `score_samples`; three cost it in full. With folds, each once a
    fold.

    Leave-one-out keeps what was learned of the data as a whole: the metric, and learned tangents, saw
    the row that is left out. From many columns on, folds are the safer choice.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV
    >>> rng = np.random.RandomState(0)
    >>> angle = rng.uniform(0, 2 * np.pi, size=(2, 60, 1))
    >>> train, test = np.concatenate([np.cos(angle), np.sin(angle)], axis=2)
    >>> train, test = train + 0.05 * rng.normal(size=(2, 60, 2))
    >>> search = SmoothedScoreDiffusionCV(n_refinements=1).fit(train)
    >>> search.score(test) > KDESampler().fit(train).score(test)
    True
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        bandwidths: Any = (0.55, 0.7, 0.85, 1.0),
        sigmas: Any = (0.0, 0.75, 1.5, 3.0),
        metrics: Any = None,
        cv: Any = None,
        n_refinements: int = 2,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.bandwidths = bandwidths
        self.sigmas = sigmas
        self.metrics = metrics
        self.cv = cv
        self.n_refinements = n_refinements
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SmoothedScoreDiffusionCV:
        """Search, and fit the best settings to all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : object, default=None
            Ignored; there for scikit-learn's calling convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows, in fits and scores.

        Returns
        -------
        self : SmoothedScoreDiffusionCV
            The fitted search.

        Raises
        ------
        TypeError
            If `estimator` is no diffusion estimator, or a parameter has the wrong type.
        ValueError
            If a parameter is out of range, there are fewer than two distinct rows (than folds), or the
            estimator has no log-density (stochastic solvers, manifolds without derivative).
        """
        points, weights = self._check_training(X, sample_weight)
        estimator = self._checked_estimator()
        bandwidths = _check_factors("bandwidths", self.bandwidths, strict=True)
        sigmas = _check_factors("sigmas", self.sigmas, strict=False)
        n_refinements = check_integer("n_refinements", self.n_refinements, minimum=0)
        verbose = check_integer("verbose", self.verbose, minimum=0)
        if len(points) < 2:
            raise ValueError(
                "a search by held-out likelihood needs at least two distinct rows, got n_samples = 1 "
                "after merging equal rows."
            )
        metrics = self._checked_metrics(estimator, points)
        n_rows = len(X) if sample_weight is None else int(np.sum(np.asarray(sample_weight) > 0))
        if n_rows - len(points) > _MANY_EQUAL * n_rows:
            warnings.warn(
                f"{n_rows - len(points)} of {n_rows} rows equal another one: the data look rounded or "
                "discrete. Equal rows are left out together; without that the likelihood of ever "
                "smaller bandwidths would grow without bound.",
                UserWarning,
                stacklevel=2,
            )
        folds = self._folds(points)
        comparison = Comparison(estimator, points, weights, metrics, folds)
        search = _Search(comparison, self.n_jobs, verbose)
        search.run(bandwidths, sigmas, n_refinements, len(metrics))
        best = search.best
        fitted = self._refit(estimator, best, X, sample_weight)
        self._set_fitted(
            X,
            best_estimator_=fitted,
            best_params_={
                name: getattr(fitted, name)
                for name in ("metric", "bandwidth", "sigma", "background")
            },
            best_score_=search.results["score"][search.best_index],
            best_index_=search.best_index,
            cv_results_=search.results,
            metric_=fitted.metric_,
            bandwidth_=fitted.bandwidth_,
            sigma_=fitted.sigma_,
            background_=fitted.background_,
        )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-density of each row under the best settings.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log-densities in nats.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X is not finite or has another number of features.
        """
        X = self._check_query(X)
        return self._best().score_samples(X)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draw new rows under the best settings.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        random_state : int, RandomState or None, default=None
            Source of the draws.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In units of X.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If `n_samples` is not a positive integer or `random_state` is not a seed.
        """
        return self._best().sample(n_samples, random_state)

    def leave_one_out_log_density(self) -> np.ndarray:
        """Return the log-density of each training point under the best settings and the other points.

        Returns
        -------
        ndarray of shape (n_points,)
            In nats, in the order of ``best_estimator_.points_``.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        """
        return self._best().leave_one_out_log_density()

    def _best(self) -> BaseScoreDiffusion:
        check_is_fitted(self)
        return self.best_estimator_

    def _checked_estimator(self) -> BaseScoreDiffusion:
        estimator = SmoothedScoreDiffusion() if self.estimator is None else self.estimator
        if isinstance(estimator, type) or not isinstance(estimator, BaseScoreDiffusion):
            raise TypeError(
                f"estimator={estimator!r} has type {type(estimator).__name__}; expected a "
                "SmoothedScoreDiffusion or ManifoldAdaptedDiffusion. Use GridSearchCV for others."
            )
        if estimator.shards is not None:
            raise ValueError(
                f"estimator has shards={estimator.shards!r}, whose rows cannot be left out; search on "
                "a subsample with shards=None, and fit the shards with the numbers found."
            )
        if resolve_base(estimator.base) is not None:
            raise ValueError(
                f"estimator has base={estimator.base!r}, whose rows cannot be left out; use "
                "GridSearchCV over bandwidth and sigma."
            )
        return clone(estimator)

    def _checked_metrics(
        self, estimator: BaseScoreDiffusion, points: np.ndarray
    ) -> tuple[Any, ...]:
        asked = estimator.metric
        if not (isinstance(asked, str) and asked == "auto"):
            if self.metrics is not None:
                raise ValueError(
                    f"metrics={self.metrics!r} are to be compared, but the estimator has "
                    f"metric={asked!r}; leave one of the two at its default."
                )
            return (asked,)
        if self.metrics is None:
            return estimator._candidate_metrics(points) or ("euclidean",)
        if isinstance(self.metrics, str) or len(self.metrics) == 0:
            raise ValueError(
                f"metrics={self.metrics!r} is no sequence of metrics; pass [{self.metrics!r}], or None."
            )
        checked = tuple(check_metric(metric, points.shape[1]) for metric in self.metrics)
        if any(isinstance(metric, str) and metric == "auto" for metric in checked):
            raise ValueError(
                f"metrics={self.metrics!r} holds 'auto', which is no metric; pass metrics=None."
            )
        return checked

    def _folds(self, points: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]] | None:
        if self.cv is None:
            return None
        splitter = self.cv
        if isinstance(splitter, int | np.integer) and not isinstance(splitter, bool):
            n_folds = check_integer("cv", splitter, minimum=2)
            if n_folds > len(points):
                raise ValueError(
                    f"cv={n_folds} exceeds the number of distinct rows, {len(points)}; expected at "
                    "most as many, or None to leave out each row."
                )
            # Distinct rows are sorted, so that folds of neighbours would leave whole regions out.
            splitter = KFold(n_folds, shuffle=True, random_state=0)
        return list(check_cv(splitter).split(points))

    def _refit(
        self, estimator: BaseScoreDiffusion, best: Settings, X: Any, sample_weight: Any
    ) -> BaseScoreDiffusion:
        """Fit the best factors to all rows, in units of the bandwidth of all rows."""
        fitted = clone(estimator).set_params(metric=best.metric, bandwidth="loo", sigma="auto")
        reference = fitted.set_params(background=0.0).fit(X, sample_weight=sample_weight)
        unit = reference.sigma_ / DEFAULT_FACTORS[1]
        return fitted.set_params(
            bandwidth=best.factors[0] * reference.bandwidth_,
            sigma=best.factors[1] * unit,
            background=best.background,
        ).fit(X, sample_weight=sample_weight)


class _Search:
    """What was compared so far, and the stages of the search."""

    def __init__(self, comparison: Comparison, n_jobs: int | None, verbose: int) -> None:
        self.comparison = comparison
        self.n_jobs = n_jobs
        self.verbose = verbose
        names = ("stage", "is_exact", "metric", "bandwidth_factor", "sigma_factor")
        self.results: dict[str, list[Any]] = {
            name: [] for name in (*names, "background", "score", "time")
        }
        self._places: list[int] = []
        self._settings: list[Settings] = []

    def run(
        self, bandwidths: np.ndarray, sigmas: np.ndarray, n_refinements: int, n_metrics: int
    ) -> None:
        """Run the stages one after the other."""
        if n_metrics > 1:
            # A smoothed model where there will be one, a KDE where not.
            first = DEFAULT_FACTORS if sigmas.any() else (1.0, 0.0)
            self._stage("metrics", [(place, first) for place in range(n_metrics)])
        places = self._ranked()[:2] if n_metrics > 1 else [0]
        grid = list(itertools.product(bandwidths.tolist(), sigmas.tolist()))
        self._stage("grid", [(place, factors) for place in places for factors in grid])
        ratio = np.sqrt(2.0)
        for _ in range(n_refinements):
            self._stage("refinement", self._around(*self._leaders(1)[0], ratio, bool(sigmas.any())))
            ratio = np.sqrt(ratio)
        self._stage("final", self._leaders(_N_FINALISTS), is_cheap=False)

    @property
    def best_index(self) -> int:
        """Place of the best candidate among those scored exactly."""
        is_exact, score = self.results["is_exact"], self.results["score"]
        return max(np.flatnonzero(is_exact).tolist(), key=lambda k: score[k])

    @property
    def best(self) -> Settings:
        """Settings of the best candidate."""
        return self._settings[self.best_index]

    def _ranked(self) -> list[int]:
        """Return the metrics tried so far, best first."""
        order = np.argsort([-score for score in self.results["score"]], kind="stable")
        return list(dict.fromkeys(self._places[k] for k in order))

    def _leaders(self, n: int) -> list[tuple[int, Factors]]:
        """Return the best candidates so far."""
        order = np.argsort([-score for score in self.results["score"]], kind="stable")
        return [(self._places[k], self._settings[k].factors) for k in order[:n]]

    def _around(
        self, place: int, factors: Factors, ratio: float, is_smoothed: bool
    ) -> list[tuple[int, Factors]]:
        """Return the eight neighbours of a candidate, at some ratio."""
        bandwidth, sigma = factors
        bandwidths = np.clip(bandwidth * ratio ** np.array([-1, 0, 1]), *_BANDWIDTHS)
        # No ratio leads away from zero; the least scale that is worth a try does.
        sigmas = (
            np.array([0.0, _SIGMAS[0]]) if sigma == 0 else sigma * ratio ** np.array([-1, 0, 1])
        )
        sigmas = np.minimum(sigmas, _SIGMAS[1]) if is_smoothed else np.zeros(1)
        return [(place, both) for both in itertools.product(bandwidths.tolist(), sigmas.tolist())]

    def _stage(
        self, name: str, candidates: list[tuple[int, Factors]], *, is_cheap: bool = True
    ) -> None:
        if is_cheap:
            seen = {
                (place, settings.factors)
                for place, settings in zip(self._places, self._settings, strict=True)
            }
            candidates = [candidate for candidate in candidates if candidate not in seen]
        began = time.perf_counter()
        # Before workers get copies, each of which would find them again.
        for place, _ in candidates:
            self.comparison.find_scales(place)
        scored = Parallel(n_jobs=self.n_jobs)(
            delayed(_timed)(self.comparison, *candidate, is_cheap) for candidate in candidates
        )
        for (place, factors), (score, settings, seconds) in zip(candidates, scored, strict=True):
            self._places.append(place)
            self._settings.append(settings)
            row = (
                name,
                not is_cheap,
                settings.metric,
                *factors,
                settings.background,
                score,
                seconds,
            )
            for key, value in zip(self.results, row, strict=True):
                self.results[key].append(value)
            if self.verbose > 1:
                print(f"  {_said(settings)}: {score:.4f} nats a row")
        if self.verbose and candidates:
            score, settings, _ = max(scored, key=lambda found: found[0])
            print(
                f"[{name}] {len(candidates)} candidates in {time.perf_counter() - began:.1f} s, best "
                f"{_said(settings)}: {score:.4f} nats a row"
            )


def _timed(
    comparison: Comparison, place: int, factors: Factors, is_cheap: bool
) -> tuple[float, Settings, float]:
    began = time.perf_counter()
    score, settings = comparison.score(place, factors, is_cheap=is_cheap)
    return score, settings, time.perf_counter() - began


def _said(settings: Settings) -> str:
    metric = settings.metric if isinstance(settings.metric, str | float) else "matrix"
    bandwidth, sigma = settings.factors
    return f"metric {metric}, bandwidth {bandwidth:.3g} h, sigma {sigma:.3g} h"


def _check_factors(name: str, factors: Any, *, strict: bool) -> np.ndarray:
    """Return factors as a flat array of distinct numbers."""
    array = np.unique(check_real_array(name, factors).ravel())
    if len(array) == 0:
        raise ValueError(f"{name} is empty; expected at least one number.")
    hint = "They are in units of the KDE's leave-one-out bandwidth."
    for factor in array.tolist():
        check_real(name, factor, strict=strict, hint=hint)
    return array
