"""Fits of the members of a mixture to all rows, and their log-densities at held-out rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.parallel import delayed

from .._diffusion.estimator import BaseScoreDiffusion
from .._diffusion.fitting import NodeChoice
from .._utils.parallel import results_of
from .._utils.progress import counted
from .._utils.rows import TrainingRows
from .._utils.warnings import warn_user
from ..bases import ManifoldParzen, resolve_base
from ._members import Folds, fit_member, held_out_log_density, unwrap
from ._transformed import TransformedDensity

_Result = TypeVar("_Result")


class MemberTrials:
    """Fits of named members to all rows, and to the training rows of each fold.

    `settings` is "once" or "fold", as in DensityStacking. If a member cannot be fitted, it is left out
    if it is `optional`; otherwise the error is raised. `fits` are fits to all rows that exist already,
    by the index of the member.
    """

    def __init__(
        self,
        members: list[tuple[str, Any]],
        rows: TrainingRows,
        folds: Folds,
        optional: list[bool],
        settings: str,
        n_jobs: int | None,
        fits: dict[int, Any],
    ) -> None:
        self.members = members
        self.rows = rows
        self.folds = folds
        self.optional = optional
        self.settings = settings
        self.n_jobs = n_jobs
        # Keys are indices of members. `log_densities` are those of held-out rows (n_kept,), NaN for
        # rows in no test set; `errors` are those of members that were left out.
        self.fits = dict(fits)
        self.log_densities: dict[int, np.ndarray] = {}
        self.errors: dict[int, ValueError] = {}

    def run(self, end: float, time_limit: float | None) -> None:
        """Fit and score members; all but the first are skipped after `end` (monotonic clock)."""
        indices = range(len(self.members))
        # With a limit each member is scored before the next is fitted.
        batches = [indices] if time_limit is None else [[k] for k in indices]
        with counted(len(indices) * (1 + len(self.folds))) as done:
            for batch in batches:
                if self.log_densities and time.monotonic() > end:
                    break
                done.size = len(batch)
                self._fit(batch)
                done()
                done.size = len(batch) * len(self.folds)
                self._score([k for k in batch if k not in self.errors])
                done()
        for k in sorted(self.errors):
            warn_user(f"left out: {self.errors[k]}")
        tried = self.log_densities.keys() | self.errors.keys()
        skipped = [name for k, (name, _) in enumerate(self.members) if k not in tried]
        if skipped:
            warn_user(
                f"time_limit={time_limit:g} s was reached after {len(self.log_densities)} of "
                f"{len(indices)} members; not tried: {', '.join(skipped)}. Raise time_limit, or put the "
                "most important members first."
            )

    def results(self) -> tuple[list[str], list[Any], np.ndarray]:
        """Return names and fits of scored members, and log-densities (n_kept, n_members)."""
        scored = list(self.log_densities)
        log_density = np.column_stack(list(self.log_densities.values()))
        return [self.members[k][0] for k in scored], [self.fits[k] for k in scored], log_density

    def _fit(self, batch: Sequence[int]) -> None:
        """Fit members to all rows, unless they are fitted."""
        rows, batch = self.rows, [k for k in batch if k not in self.fits]
        calls = [
            self._call(k, fit_member, clone(self.members[k][1]), rows.given, rows.weight)
            for k in batch
        ]
        for k, fit in zip(batch, results_of(calls, self.n_jobs, "member"), strict=True):
            if isinstance(fit, ValueError):
                self.errors[k] = fit
            else:
                self.fits[k] = fit

    def _score(self, batch: Sequence[int]) -> None:
        """Fit members to the training rows of each fold, and score its held-out rows."""
        is_once = self.settings == "once"
        unfitted = {
            k: with_settings(self.fits[k]) if is_once else self.members[k][1] for k in batch
        }
        nodes = {k: _nodes_of(self.fits[k]) if is_once else None for k in batch}
        calls = [
            self._call(k, held_out_log_density, unfitted[k], self.rows, train, test, nodes[k])
            for k in batch
            for train, test in self.folds
        ]
        parts = iter(results_of(calls, self.n_jobs, "fold"))
        for k in batch:
            log_density = np.full(len(self.rows.group), np.nan)
            for _, test in self.folds:
                part = next(parts)
                if isinstance(part, ValueError):
                    self.errors.setdefault(k, part)
                else:
                    log_density[test] = part
            if k not in self.errors:
                self.log_densities[k] = log_density

    def _call(self, k: int, work: Callable[..., Any], *arguments: Any) -> Any:
        """Return a call, for joblib, with the label of a member as first argument."""
        label = f"member {self.members[k][0]!r}"
        return delayed(_attempt)(self.optional[k], work, label, *arguments)


def with_settings(fitted: Any) -> Any:
    """Return an unfitted copy of a fitted estimator, with the settings that it chose as parameters."""
    if isinstance(fitted, FrozenEstimator):
        return fitted
    if hasattr(fitted, "best_estimator_"):
        return with_settings(fitted.best_estimator_)
    estimator = clone(fitted)
    if isinstance(fitted, TransformedDensity):
        return estimator.set_params(estimator=with_settings(fitted.estimator_))
    chosen = dict(getattr(fitted, "settings_", {}))
    if isinstance(fitted, BaseScoreDiffusion):
        if isinstance(resolve_base(fitted.base), ManifoldParzen):
            # To choose the bandwidth again would take most of a fit, and change it little.
            chosen["bandwidth"] = fitted.bandwidth_
            if not callable(fitted.sigma):
                chosen["sigma"] = fitted.sigma_
        # The solver is kept too: rows for which its steps are too long are computed again in any case.
        chosen["solver"] = fitted.model_.solver
    return estimator.set_params(**chosen)


def _nodes_of(fitted: Any) -> NodeChoice | None:
    """Return the nodes of a fitted diffusion, which a search or transformation may contain, or None."""
    model = unwrap(fitted)
    if isinstance(model, TransformedDensity):
        return _nodes_of(model.estimator_)
    return getattr(model, "_nodes_", None)


def _attempt(optional: bool, work: Callable[..., _Result], *arguments: Any) -> _Result | ValueError:
    """Return the result of `work`, or the ValueError that it raises if the member is optional."""
    try:
        return work(*arguments)
    except ValueError as error:
        if optional:
            return error
        raise
