"""SmoothedScoreDiffusionCV: a search for the diffusion with the highest held-out likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from .._coordinates.metric import check_metric
from .._diffusion.comparison import Comparison, folds_for_metrics, metrics_to_compare
from .._diffusion.estimator import BaseScoreDiffusion
from .._diffusion.settings import ParsedParameters, check_suits_periods, resolve_n_jobs
from .._diffusion.training_data import TrainingData
from .._estimators.smoothed import SmoothedScoreDiffusion
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.progress import counted, reports_fit
from .._utils.rows import TrainingRows, as_given, shared_relations
from .._utils.shards import ONE_PROCESS
from .._utils.validation import check_integer, check_real, check_real_array
from .._utils.warnings import part_of_a_fit, warn_user
from ..bandwidth import check_several
from ..solvers import ODESolver
from ._stages import N_FINALISTS, Search

# Default factors of the coarse grid, in units of the KDE's leave-one-out bandwidth.
_BANDWIDTH_FACTORS, _SIGMA_FACTORS = (0.55, 0.7, 0.85, 1.0), (0.0, 0.75, 1.5, 3.0)
# Number of folds where `groups` are passed without `cv`.
_N_FOLDS = 5


class SmoothedScoreDiffusionCV(DensityEstimatorMixin, BaseEstimator):
    """A diffusion with the metric, scales and background of highest held-out likelihood.

    Candidates are scored by leave-one-out likelihood without refits, or by cross-validation. The search
    compares metrics by the likelihood of the kernel density estimate, then up to three metrics of
    similar likelihood by the model's own, then a grid of scales, then steps of decreasing size around
    the best scales; all with few nodes, levels and steps of the solver. The best candidate, and the
    second if it is close, are scored again with the estimator's own nodes, levels and steps. The best
    settings are then fitted to all rows.

    Parameters
    ----------
    estimator : SmoothedScoreDiffusion or ManifoldAdaptedDiffusion, default=None
        The estimator to tune; None is ``SmoothedScoreDiffusion()``. Of its `bandwidth`, `sigma`,
        `metric` and `background`, those that are "auto" are searched, and the others are kept. If
        `bandwidth` and `sigma` are both numbers only `metrics` are searched.
    bandwidth_factors : array-like of shape (n_bandwidths,) or None, default=None
        Bandwidths of the coarse grid, in units of the bandwidth h of highest leave-one-out likelihood
        of the Gaussian KDE in the same metric; 0.85 is the estimator's ``bandwidth="0.85h"``. None is
        (0.55, 0.7, 0.85, 1.0).
    sigma_factors : array-like of shape (n_sigmas,) or None, default=None
        Smoothing scales of the coarse grid, in the same unit. None is (0.0, 0.75, 1.5, 3.0); ``(0.0,)``
        searches kernel density estimates.
    metrics : sequence or None, default=None
        Metrics to compare: values of the estimator's parameter `metric`. None: those that "auto"
        compares.
    cv : int, splitter, iterable or None, default=None
        None leaves out each distinct row, exactly. An integer is a number of shuffled folds of distinct
        rows: copies of a row are left out together, since otherwise the likelihood would grow without
        bound as the bandwidth decreases. A splitter, or its splits of the rows of X, is used unchanged;
        some rows may be in no test set, as with a TimeSeriesSplit.
    n_refinements : int, default=2
        Number of rounds of steps around the best scales. The first step is a factor of sqrt(2); each
        round halves its logarithm.
    n_jobs : int or None, default=None
        Number of joblib workers; each scores one candidate at a time.
    verbose : int, default=0
        1 reports progress, the time that is left and a line for each stage; 2 also a line for each
        candidate. Stages whose scores are of other rows, or with all nodes, are marked.

    Attributes
    ----------
    best_estimator_ : estimator
        The estimator with the best settings as numbers, fitted to all rows. Its ``settings_`` have them
        in units of h, for other data.
    best_params_ : dict
        `metric`, `bandwidth`, `sigma` and `background` of ``best_estimator_``.
    best_score_ : float
        Mean held-out log-density of the best settings, in nats a row.
    best_index_ : int
        Index of the best settings in `cv_results_`.
    bandwidth_, sigma_, background_ : float
        As in `best_params_`.
    metric_ : str, float or ndarray
        As in `best_params_`.
    cv_results_ : dict of lists and arrays
        One entry for each candidate in the order of the search: "stage", "is_exact" (whether it was
        scored with the estimator's own nodes, levels and steps), "is_comparable" (whether it was scored
        on the same rows, with the same few nodes, as the grid of scales), "metric", "bandwidth_factor",
        "sigma_factor" (NaN where the estimator gives the scale as a number), "background", "score" and
        "time" in seconds. The keys of scikit-learn's searches are there, too: "params" (for
        `set_params`; scales in units of h), "param_*", "split*_test_score" (one split where rows are
        left out one by one), "mean_test_score" (the same as "score"), "std_test_score",
        "rank_test_score" (candidates with "is_exact" first), and mean times of a fold (fit times are
        zero, since nothing is trained). ``pandas.DataFrame(cv_results_)`` makes a table of it.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : With "auto" scales, a shorter search of the same kind.
    sklearn.model_selection.GridSearchCV : For any other parameter.

    Notes
    -----
    There are about thirty candidates. For each, at most 256 rows are scored under the model of all
    other rows, with 32 nodes and 5 or 6 steps; one or two candidates are scored on all rows with all
    nodes and steps. With `cv` this is done for each fold, on all of its rows.

    The metric and learned tangents are computed from all rows, including the row that is left out. With
    up to twenty rows per column metrics are therefore compared on five folds, and only scales by
    leaving out single rows.

    Other methods, such as `grad_log_density`, are those of `best_estimator_`.

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

    # Whether a fit to some rows of a table uses the column widths and relations of the whole table.
    _has_precision_of_table = True

    def __init__(
        self,
        estimator: Any = None,
        *,
        bandwidth_factors: Any = None,
        sigma_factors: Any = None,
        metrics: Any = None,
        cv: Any = None,
        n_refinements: int = 2,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.bandwidth_factors = bandwidth_factors
        self.sigma_factors = sigma_factors
        self.metrics = metrics
        self.cv = cv
        self.n_refinements = n_refinements
        self.n_jobs = n_jobs
        self.verbose = verbose

    @reports_fit
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> SmoothedScoreDiffusionCV:
        """Search for the best settings, and fit a diffusion with these to all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows, in fits and scores.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row; rows of a group are held out together. The labels are passed to a
            splitter; an integer `cv` makes that many folds of groups, None five.

        Raises
        ------
        TypeError
            If `estimator` is not a diffusion estimator, or a parameter has the wrong type.
        ValueError
            If a parameter is out of range, there are fewer than two distinct rows or fewer than folds,
            factors or metrics are passed for a parameter that is not "auto" in the estimator, or the
            estimator has no log-density (stochastic solvers, manifolds without derivative).
        """
        rows = TrainingRows.of(X, sample_weight, self, getattr(self.estimator, "periods", None))
        points = rows.points
        estimator = self._checked_estimator()
        parsed = self._parsed(estimator, points.shape[1])
        bandwidths = self._checked_factors("bandwidth", _BANDWIDTH_FACTORS, parsed.bandwidth)
        sigmas = self._checked_factors("sigma", _SIGMA_FACTORS, parsed.sigma)
        n_refinements = check_integer("n_refinements", self.n_refinements, minimum=0)
        verbose = check_integer("verbose", self.verbose, minimum=0)
        check_several(points, "a search by held-out likelihood")
        if parsed.are_scales_absolute and parsed.background is None:
            parsed = replace(parsed, background=0.0)
        first, compared = self._comparisons(parsed, rows, groups)
        search = Search(compared, resolve_n_jobs(self.n_jobs), verbose)
        n_screened = len(bandwidths) * len(sigmas) + 4 * n_refinements
        if len(first.metrics) > 1:
            n_screened += len(first.metrics) + N_FINALISTS
        with counted(n_screened + 2 * search.exact_cost) as search.done:
            search.run(first, bandwidths, sigmas, n_refinements)
        best = search.entries[search.best_index]
        # Relative scales are multiples of the bandwidth h of all rows.
        fitted = clone(estimator).set_params(**best.settings.parameters(parsed))
        with part_of_a_fit():
            fitted.fit(X, sample_weight=sample_weight)
        fitted.set_params(bandwidth=fitted.bandwidth_)
        if not callable(fitted.sigma):
            fitted.set_params(sigma=fitted.sigma_)
        self._set_fitted(
            X,
            best_estimator_=fitted,
            best_params_={
                name: getattr(fitted, name)
                for name in ("metric", "bandwidth", "sigma", "background")
            },
            best_score_=best.score,
            best_index_=search.best_index,
            cv_results_=search.results,
            metric_=fitted.metric_,
            bandwidth_=fitted.bandwidth_,
            sigma_=fitted.sigma_,
            background_=fitted.background_,
        )
        return self

    def _comparisons(
        self, parsed: ParsedParameters, rows: TrainingRows, groups: Any
    ) -> tuple[Comparison, Comparison]:
        """Return two comparisons: that of the first stage, for metrics, and that of all other stages."""
        points, n_rows = rows.points, len(rows.group)
        data = TrainingData(
            points,
            rows.point_weights,
            ONE_PROCESS,
            n_rows,
            is_weighted=True,
            units=rows.precision.unit,
            widths=rows.precision.width,
            periods=rows.periods,
            whole=shared_relations(rows.periods),
        )
        if rows.periods is not None:
            check_suits_periods(parsed, rows.periods)
        metrics = self._checked_metrics(parsed, data)
        cv = _N_FOLDS if self.cv is None and groups is not None else self.cv
        if cv is not None:
            weight = np.ones(n_rows) if rows.weight is None else rows.weight
            given = data.with_rows(points[rows.group], weight / weight.max())
            # All rows are scored, since the means of the folds are results.
            compared = Comparison(parsed, given, metrics, rows.folds(cv, groups), n_rows)
            return compared, compared
        compared = Comparison(parsed, data, metrics)
        folds = folds_for_metrics(points, data.columns)
        if folds is None:
            return compared, compared
        return Comparison(parsed, data, metrics, folds, one_by_one=compared), compared

    @on_one_fit
    def score_samples(self, X: Any, *, given: Any = None, columns: Any = None) -> np.ndarray:
        """Return the log-density (n_samples,) of rows under the best settings, in nats.

        `X`, `given`, `columns` and the errors are those of `SmoothedScoreDiffusion.score_samples`.
        """
        if given is not None or columns is not None:
            return self._best().score_samples(X, given=given, columns=columns)
        return self._best().score_samples(as_given(X, self._check_query(X)))

    @on_one_fit
    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, given: Any = None
    ) -> np.ndarray:
        """Return draws (n_samples, n_features) under the best settings, in units of X.

        The parameters and the errors are those of `SmoothedScoreDiffusion.sample`.
        """
        return self._best().sample(n_samples, random_state, given=given)

    @on_one_fit
    def leave_one_out_log_density(self, own_weights: Any = None) -> np.ndarray:
        """Return the leave-one-out log-densities (n_points,) of ``best_estimator_``, in nats.

        `own_weights` and the errors are as in the method of `SmoothedScoreDiffusion`.
        """
        return self._best().leave_one_out_log_density(own_weights)

    def _breaks_relations(self, X: Any) -> np.ndarray:
        # The best model was fitted to the array of a frame that is not of pandas.
        return self._best()._breaks_relations(as_given(X, self._check_query(X)))

    def _best(self) -> BaseScoreDiffusion:
        check_is_fitted(self)
        return self.best_estimator_

    def _checked_estimator(self) -> BaseScoreDiffusion:
        estimator = SmoothedScoreDiffusion() if self.estimator is None else self.estimator
        if isinstance(estimator, type) or not isinstance(estimator, BaseScoreDiffusion):
            raise TypeError(
                f"estimator={estimator!r} has type {type(estimator).__name__}; expected an instance, "
                "SmoothedScoreDiffusion() or ManifoldAdaptedDiffusion(). Use GridSearchCV for others."
            )
        if estimator.shards is not None:
            raise ValueError(
                f"estimator has shards={estimator.shards!r}, whose rows cannot be left out; search on "
                "a subsample with shards=None, and fit the shards with its best_params_."
            )
        return clone(estimator)

    def _parsed(self, estimator: BaseScoreDiffusion, n_features: int) -> ParsedParameters:
        """Return the parameters that the search does not choose, after checking them."""
        # A clone: `_parsed` draws a seed from its RandomState, and the final fit must draw the same one.
        parsed = clone(estimator)._parsed(n_features)
        if parsed.base is not None:
            raise ValueError(
                f"estimator has base={parsed.requested['base']!r}, whose rows cannot be left out; use "
                "GridSearchCV over bandwidth and sigma."
            )
        if parsed.solver is not None and not isinstance(parsed.solver, ODESolver):
            raise ValueError(
                f"estimator has solver={parsed.requested['solver']!r}, with which no likelihood "
                "can be computed; search with solver='auto', then fit best_params_ with the other "
                "solver."
            )
        return parsed

    def _checked_factors(self, name: str, default: Sequence[float], given: Any) -> Sequence[float]:
        """Return the checked factors of a scale to compare; (0.0,) if the scale is `given`."""
        factors = getattr(self, f"{name}_factors")
        if factors is None:
            return default if given is None else (0.0,)
        checked = _check_factors(f"{name}_factors", factors, strict=name == "bandwidth")
        if given is not None:
            raise ValueError(
                f"{name}_factors={factors!r} are to be compared, but the estimator has a {name} that is "
                "not 'auto'; leave one of the two at its default."
            )
        return checked

    def _checked_metrics(self, parsed: ParsedParameters, data: TrainingData) -> tuple[Any, ...]:
        if self.metrics is None:
            if parsed.are_scales_absolute:
                warn_user(
                    "nothing is searched, since the estimator has numbers for bandwidth and sigma; "
                    "leave one of them at 'auto', or pass metrics."
                )
            return metrics_to_compare(parsed, data)[0]
        if not parsed.is_metric_free:
            raise ValueError(
                f"metrics={self.metrics!r} are to be compared, but the estimator has "
                f"metric={parsed.metric!r}; leave one of the two at its default."
            )
        if not isinstance(self.metrics, list | tuple) or len(self.metrics) == 0:
            raise ValueError(
                f"metrics={self.metrics!r} is not a list of metrics; pass a list of at least one, "
                "or None."
            )
        checked = tuple(
            _checked_metric(self.metrics, metric, data.points) for metric in self.metrics
        )
        if any(isinstance(metric, str) and metric == "auto" for metric in checked):
            raise ValueError(
                f"metrics={self.metrics!r} holds 'auto', which is not a metric; pass metrics=None."
            )
        return checked


def _checked_metric(metrics: Any, metric: Any, points: np.ndarray) -> Any:
    """Check one of the metrics to compare, and return it; errors name the parameter `metrics`."""
    try:
        return check_metric(metric, points.shape[1])
    except (TypeError, ValueError) as error:
        raise type(error)(f"metrics={metrics!r}: {error}") from error


def _check_factors(name: str, factors: Any, *, strict: bool) -> list[float]:
    """Return factors as a list of distinct numbers, after checking them."""
    array = np.unique(check_real_array(name, factors, allow_bool=False).ravel())
    if len(array) == 0:
        raise ValueError(f"{name} is empty; expected at least one number.")
    hint = "They are in units of the KDE's leave-one-out bandwidth."
    return [check_real(name, factor, strict=strict, hint=hint) for factor in array.tolist()]
