"""DensityStacking: a mixture of densities with weights that maximise the held-out likelihood."""

from __future__ import annotations

import copy
import math
import numbers
import time
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from .._diffusion.posterior import PosteriorMixin
from .._diffusion.settings import resolve_n_jobs
from .._estimators.smoothed import SmoothedScoreDiffusion
from .._utils.estimator import DensityEstimatorMixin, DensityOfColumnsMixin
from .._utils.progress import counted, reports_fit
from .._utils.rows import TrainingRows, as_given, evenly
from .._utils.validation import check_choice, check_real
from ._conditionals import draw_from_mixture, draw_from_tables, score_mixture
from ._family import density_family
from ._member_trials import MemberTrials, with_settings
from ._member_weights import best_only, optimal_weights
from ._members import (
    Folds,
    check_fills_space,
    check_member,
    check_same_measure,
    fit_member,
    log_density_of,
    naming,
    training_rows,
    unwrap,
    with_shared_columns,
)
from ._unconditional import draw

__all__ = ["DensityStacking"]

# Approximate cost, in fits, of choosing the default members; for progress reports.
_FITS_OF_FAMILY = 40
# Bounds of the number of held-out rows. k weights fitted to n rows lose about k / 2n nats a row, so few
# rows suffice. The time to score a row grows with the square of the number of columns; above 64 columns
# the number of rows is reduced by the same factor (docs/evidence/local.md).
_MOST_HELD_OUT, _LEAST_HELD_OUT, _COLUMNS_OF_ALL = 2000, 200, 64


class DensityStacking(PosteriorMixin, DensityOfColumnsMixin, BaseEstimator):
    """Mixture of densities whose weights maximise the log-likelihood of held-out rows.

    The density is ``sum_k weights_[k] * p_k(x)``. Every member is fitted to parts of the rows and
    scored on the others, so that a member which merely reproduces its training rows gets no weight. The
    log-likelihood of the held-out rows is concave in the weights; at its maximum the mixture is at
    least as good on these rows as its best member.

    Without `estimators`, one call mixes the densities of this package. Pass `estimators` to choose the
    members, `cv` to choose how rows are held out, and ``combine="best"`` to keep a single member:

    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.compose import DensityStacking
    >>> X = np.random.RandomState(0).standard_t(2, size=(200, 1))
    >>> members = [("smoothed", SmoothedScoreDiffusion(0.3, 0.4)), ("broad", GaussianMixture(1))]
    >>> model = DensityStacking(members).fit(X)
    >>> model.weights_.round(1)
    array([0.6, 0.4])
    >>> model.sample(3, random_state=0).shape
    (3, 1)

    Parameters
    ----------
    estimators : list of (str, estimator), default=None
        The members with their names: estimators with `fit` and with log-densities in nats as
        `score_samples`, of this package or another (KernelDensity, GaussianMixture). "drop" in the
        place of an estimator leaves it out. A `FrozenEstimator` is not fitted again, so fit it to other
        rows than X, or its weight is too large. A broad member, such as a GaussianMixture of one
        component, gives rows far from all others a higher density. None takes the densities of this
        package: SmoothedScoreDiffusion of the rows and of rows mapped by splines through the
        quantiles of each column, manifold Parzen windows, and Gaussian mixtures of 1 to 32 components
        (the mean of eight restarts each; not with sample weights). Members that cannot be fitted to X
        are left out with a warning. Add a ManifoldAdaptedDiffusion where rows lie on a curved sheet.
    cv : int, cross-validation splitter, iterable of (train, test) or "prefit", default=5
        How rows are held out. An integer makes that many shuffled folds, the same at every fit, in
        which equal rows are in the same fold, so that no held-out row has a copy among the training
        rows. At most 2000 distinct rows are scored; with d > 64 columns 2000 (64 / d)^2, but at least
        200. A splitter, or its splits, is used unchanged; rows in no test set, such as the first of a
        TimeSeriesSplit, do not affect the weights. "prefit" copies members that are already fitted, and
        chooses the weights by the rows passed to `fit`, on which the members must not have been fitted.
        None is 5.
    combine : {"mixture", "best"}, default="mixture"
        Whether to mix the members, or to keep the one of highest held-out log-likelihood.
    settings : {"once", "fold"}, default="once"
        Rows by which members choose their settings. "once": by all rows. In every fold a member then
        has the metric, the scales (as multiples of the fold's own bandwidth h; Parzen windows keep
        their bandwidth), the background, the nodes and the solver of its fit to all rows, and a search
        its best estimator. Default members that smooth mapped rows use the settings of the one that
        smooths unmapped rows. "fold": settings are chosen again in each fold, so that nothing is learned
        from a held-out row; fits of SmoothedScoreDiffusion in folds then take about ten times as long.
        Choose it for searches over many candidates, and where folds are separated by groups or time.
    time_limit : float or None, default=None
        Seconds after which no further member is fitted; at least one is. Members are fitted in the
        order of `estimators`. How many are fitted depends on the machine; a warning names the others.
    n_jobs : int or None, default=None
        Number of joblib workers for members and folds. None is one, or what a
        ``joblib.parallel_config`` sets; -1 is all cores.
    verbose : int, default=0
        1 reports the progress of calls, and the time that is left.

    Attributes
    ----------
    weights_ : ndarray of shape (n_members,)
        Weights of the members that are not dropped; they sum to one. They are exactly zero for members
        that would lower the likelihood.
    estimators_ : list of estimators
        The members that are not dropped, fitted to all rows.
    named_estimators_ : Bunch
        The fitted members by name.
    oof_log_density_ : ndarray of shape (n_kept, n_members)
        Out-of-fold log-density, in nats, of each row of positive weight (in the order of X) under each
        member fitted without it; NaN for rows that are not scored. With "prefit", log-densities under
        the members unchanged.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    sklearn.ensemble.StackingRegressor : The same for regression.

    Notes
    -----
    Each member is fitted ``cv + 1`` times. The weights take a few hundred iterations of EM, of
    ``n_points * n_members`` operations each, until the log-likelihood is within 1e-8 nats a row of its
    maximum: by concavity the maximum is at most ``max_k sum_i w_i p_k(x_i) / p(x_i) - 1`` higher, with
    row weights w_i that sum to one [2]_.

    Tables with categories, dates or missing cells are accepted if all members are `TableDensity` (or
    searches over one). The kinds of their columns are determined from all rows and kept in every fold;
    everything else is fitted in each fold. Samples are then tables, and the posterior methods raise an
    error:

    >>> import pandas as pd
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.tables import TableDensity
    >>> kind = np.repeat(["cat", "dog"], 100)
    >>> frame = pd.DataFrame({"kind": kind, "mass": X[:, 0] + 20 * (kind == "dog")})
    >>> narrow, wide = (TableDensity(density=KDESampler(width)) for width in (0.3, 2.0))
    >>> members = [("narrow", narrow), ("wide", wide)]
    >>> model = DensityStacking(members, cv=3).fit(frame)
    >>> model.sample(3, random_state=0, given={"kind": "dog"})["kind"].tolist()
    ['dog', 'dog', 'dog']

    Members must be densities of the same X. A Pipeline with a scaler reports the density of scaled
    rows and is refused: put the scaler before the stacking, or use TransformedDensity.

    `sample` draws each row from a member, chosen with a probability equal to its weight; with `given`,
    in proportion to weight times density at the given values. A member of positive weight whose
    log-density is NaN or +inf raises an error that names it.

    A row at which all log-densities are -inf (compact kernels) is left out when the weights are
    chosen, with a warning, since no weights give it a positive density.

    References
    ----------
    .. [1] P. Smyth, D. Wolpert, Linearly combining density estimators via stacking, Machine Learning
       36, 1999.
    .. [2] T. M. Cover, An algorithm for maximizing expected log investment return, IEEE Transactions
       on Information Theory 30, 1984.
    """

    def __init__(
        self,
        estimators: Any = None,
        *,
        cv: Any = 5,
        combine: str = "mixture",
        settings: str = "once",
        time_limit: float | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimators = estimators
        self.cv = cv
        self.combine = combine
        self.settings = settings
        self.time_limit = time_limit
        self.n_jobs = n_jobs
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep` also members and their ``name__parameter``."""
        params = super().get_params(deep=False)
        for name, estimator in _pairs(self.estimators) if deep else []:
            params[name] = estimator
            if hasattr(estimator, "get_params") and not isinstance(estimator, type):
                inner = estimator.get_params(deep=True)
                params.update({f"{name}__{key}": value for key, value in inner.items()})
        return params

    def set_params(self, **params: Any) -> DensityStacking:
        """Set parameters, replace members by name, or set parameters of members.

        ``name=estimator`` replaces a member, ``name="drop"`` leaves it out, and ``name__parameter``
        sets a parameter of it.
        """
        # The list first, then its members, then their parameters: a grid may set all three at once.
        if "estimators" in params:
            self.estimators = params.pop("estimators")
        pairs = _pairs(self.estimators)
        if any(name in params for name, _ in pairs):
            self.estimators = [(name, params.pop(name, old)) for name, old in pairs]
        super().set_params(**params)
        return self

    @reports_fit
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> DensityStacking:
        """Fit all members to all rows, and choose the weights by their held-out log-densities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row; rows of a group are held out together. The labels are passed to a
            splitter; an integer `cv` makes that many folds of groups.

        Raises
        ------
        TypeError
            If a member is not a density estimator, or if `sample_weight` is passed and a member takes
            no weights.
        ValueError
            If X, the weights or a parameter is out of range, if a member fails (its name is in the
            message), or if all held-out rows have density zero under every member; the estimator
            is then left as it was.

        Warns
        -----
        UserWarning
            If some held-out rows have density zero under every member.
        ConvergenceWarning
            If the log-likelihood is not within 1e-8 nats a row of its maximum.
        """
        n_jobs = resolve_n_jobs(self.n_jobs)
        check_choice("combine", self.combine, ("best", "mixture"))
        check_choice("settings", self.settings, ("fold", "once"))
        if self.time_limit is not None:
            check_real("time_limit", self.time_limit, hint="It is in seconds; None is no limit.")
        end = time.monotonic() + (math.inf if self.time_limit is None else self.time_limit)
        shared, table = self._with_columns_of(X, sample_weight)
        rows = training_rows(table, X, sample_weight, self)
        folds: Folds = []
        if not isinstance(self.cv, str):
            folds = rows.folds(5 if self.cv is None else self.cv, groups)
            if self.cv is None or isinstance(self.cv, numbers.Number):
                size = len(folds), rows.points.shape[1]
                folds = [(train, _some(test, rows.group, *size)) for train, test in folds]
        fits: dict[int, Any] = {}
        if self.estimators is None and folds:
            with counted(_FITS_OF_FAMILY):
                members, fits = self._family(rows, folds)
        else:
            members = shared._check_members()
        if isinstance(self.cv, str):
            names, fitted, log_density = self._prefit(members, rows)
        else:
            # A default member that cannot be fitted to X is left out; for a member of the user's the
            # error is raised.
            optional = [self.estimators is None and k > 0 for k in range(len(members))]
            trials = MemberTrials(members, rows, folds, optional, self.settings, n_jobs, fits)
            trials.run(end, self.time_limit)
            names, fitted, log_density = trials.results()
        tested = ~np.isnan(log_density[:, 0])
        combine = best_only if self.combine == "best" else optimal_weights
        row_weight = None if rows.weight is None else rows.weight[tested]
        weights = combine(log_density[tested], row_weight)
        check_same_measure(
            [(f"member {name!r}", each) for name, each in zip(names, fitted, strict=True)]
        )
        self._set_fitted(
            X,
            weights_=weights,
            estimators_=fitted,
            named_estimators_=Bunch(**dict(zip(names, fitted, strict=True))),
            oof_log_density_=log_density,
            _table_=table,
        )
        return self

    def _prefit(
        self, members: list[tuple[str, Any]], rows: TrainingRows
    ) -> tuple[list[str], list[Any], np.ndarray]:
        """Return names and copies of fitted members, and their log-densities (n_kept, n_members)."""
        if self.cv != "prefit":
            raise ValueError(
                f"cv={self.cv!r} is not known; expected an integer >= 2, a splitter, an iterable of "
                "(train, test) row indices, or 'prefit'. Pass cv=5 for five shuffled folds."
            )
        labelled = [(f"member {name!r}", estimator) for name, estimator in members]
        for label, estimator in labelled:
            check_is_fitted(estimator)
            check_fills_space(label, estimator)
        log_density = [log_density_of(label, each, rows.given) for label, each in labelled]
        # Copies: a later fit of the user's objects must not change this mixture.
        copies = [copy.deepcopy(estimator) for _, estimator in members]
        return [name for name, _ in members], copies, np.column_stack(log_density)

    def _with_columns_of(self, X: Any, sample_weight: Any) -> tuple[DensityStacking, Any]:
        """See `with_shared_columns`: all members share the kinds of the columns of all rows."""
        if self.estimators is None:
            return self, None
        members = self._check_members()
        if self.cv == "prefit":
            shared = [(each, getattr(unwrap(each), "_table_", None)) for _, each in members]
        else:
            shared = [with_shared_columns(each, X, sample_weight) for _, each in members]
        tables = [table for _, table in shared if table is not None]
        if not tables:
            return self, None
        for (name, each), (_, table) in zip(members, shared, strict=True):
            if table is None:
                raise TypeError(
                    f"member {name!r} of type {type(each).__name__} is no density of tables, and others "
                    f"are; expected a TableDensity. Pass TableDensity(density={type(each).__name__}())."
                )
        named = [(name, each) for (name, _), (each, _) in zip(members, shared, strict=True)]
        return clone(self, safe=False).set_params(estimators=named), tables[0]

    def _check_query(self, X: Any, ignored: Any = ()) -> Any:
        """See `DensityEstimatorMixin`; tables stay as they are."""
        if self._table_ is None:
            return super()._check_query(X, ignored)
        self._table_.encode(X)
        return X if hasattr(X, "shape") else np.asarray(X, dtype=object)

    def _draw_table(self, n: int, rng: np.random.RandomState, given: Any) -> Any:
        return draw_from_tables(self._table_, *self._used_members(), n, rng, given)[0]

    def _prior(self, what: str) -> Any:
        if self._table_ is not None:
            raise TypeError(
                f"{what} needs a density of numbers, and the members are densities of tables. Use given "
                "in sample and score_samples."
            )
        return super()._prior(what)

    @property
    def base_measure_(self) -> dict[Any, str]:
        """The measure of log-densities by column, if members are densities of tables."""
        if self._table_ is None:
            raise AttributeError(
                "base_measure_ exists only if the members are densities of tables."
            )
        return self._table_.base_measure

    def _log_density_of_rows(self, X: np.ndarray, passed: Any) -> np.ndarray:
        members, log_weights = self._used_members()
        rows = as_given(passed, X)
        columns = [log_density_of(label, member, rows) for label, member in members]
        return logsumexp(np.column_stack(columns) + log_weights, axis=1)

    def _breaks_relations(self, X: Any) -> np.ndarray:
        members = [m for m in self.estimators_ if isinstance(m, DensityEstimatorMixin)]
        # Members were fitted to the array of a frame that is not of pandas.
        rows = X if self._table_ is not None else as_given(X, self._check_query(X))
        return np.any([member._breaks_relations(rows) for member in members], axis=0)

    def _log_density_of_columns(
        self, X: np.ndarray, scored: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        return score_mixture(*self._used_members(), X, scored, given)

    def _draw_given(
        self, columns: np.ndarray, values: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        members = self._used_members()
        return draw_from_mixture(*members, columns, values, rng, self.n_features_in_)[0]

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        counts = rng.multinomial(n, self.weights_)
        drawn = []
        for (name, estimator), count in zip(self.named_estimators_.items(), counts, strict=True):
            if count:
                with naming(f"member {name!r} cannot sample"):
                    drawn.append(draw(estimator, int(count), rng))
        return np.concatenate(drawn)[rng.permutation(n)]

    def _used_members(self) -> tuple[list[tuple[str, Any]], np.ndarray]:
        """Return the members of positive weight with their labels, and the logarithms of the weights."""
        used = np.flatnonzero(self.weights_)
        names = list(self.named_estimators_)
        members = [(f"member {names[k]!r}", self.estimators_[k]) for k in used]
        return members, np.log(self.weights_[used])

    def _family(
        self, rows: TrainingRows, folds: Folds
    ) -> tuple[list[tuple[str, Any]], dict[int, Any]]:
        """Return the default members, and fits to all rows by the index of the member.

        With settings="once" the settings are from one fit to all rows: that of the first member.
        """
        smoothed: Any = SmoothedScoreDiffusion()
        fits = {}
        if self.settings == "once":
            fitted = fit_member("member 'smoothed'", smoothed, rows.given, rows.weight)
            smoothed = with_settings(fitted)
            # A fit with these parameters has the same result.
            fits[0] = fitted.set_params(**smoothed.get_params(deep=False))
        n_rows = min(len(np.unique(rows.group[train])) for train, _ in folds)
        n_features = rows.points.shape[1]
        members = density_family(smoothed, n_rows, n_features, weighted=rows.weight is not None)
        return members, fits

    def _check_members(self) -> list[tuple[str, Any]]:
        """Return the members that are not 'drop', after checking all."""
        pairs = _pairs(self.estimators)
        if not pairs:
            raise ValueError(
                f"estimators={self.estimators!r} is not a list of members; expected a non-empty list of "
                "(name, estimator) pairs."
            )
        names, own = [name for name, _ in pairs], self.get_params(deep=False)
        if len(set(names)) < len(names):
            raise ValueError(f"the names of the estimators, {names}, are not unique; rename some.")
        taken = sorted({name for name in names if name in own or "__" in name})
        if taken:
            raise ValueError(
                f"estimators have the names {taken}; a name must differ from those of the parameters "
                "and hold no double underscore. Rename them."
            )
        members = [pair for pair in pairs if not isinstance(pair[1], str) or pair[1] != "drop"]
        if not members:
            raise ValueError("all estimators are 'drop'; at least one must be left.")
        for name, estimator in members:
            check_member(f"member {name!r}", estimator, compared=True)
        return members


def _some(test: np.ndarray, group: np.ndarray, n_folds: int, n_columns: int) -> np.ndarray:
    """Return the test rows to score, evenly spaced among the distinct rows numbered by `group`."""
    fewer = _MOST_HELD_OUT * _COLUMNS_OF_ALL**2 // n_columns**2
    n = min(_MOST_HELD_OUT, max(_LEAST_HELD_OUT, fewer))
    distinct = np.unique(group[test])
    kept = distinct[evenly(len(distinct), -(-n // n_folds))]
    return test[np.isin(group[test], kept)]


def _pairs(estimators: Any) -> list[tuple[str, Any]]:
    """Return `estimators` as a list of (name, estimator), or an empty list if it is no such list."""
    if not isinstance(estimators, list | tuple):
        return []
    pairs = [tuple(pair) for pair in estimators if isinstance(pair, list | tuple)]
    is_named = [len(pair) == 2 and isinstance(pair[0], str) for pair in pairs]
    return pairs if len(pairs) == len(estimators) and all(is_named) else []
