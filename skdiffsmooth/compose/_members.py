"""Functions that check, fit and score the member densities of the estimators in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.parallel import delayed
from sklearn.utils.validation import has_fit_parameter

from .._diffusion.fitting import NodeChoice, nodes_of_whole
from .._estimators.smoothed import SmoothedScoreDiffusion
from .._utils.estimator import DensityEstimatorMixin
from .._utils.parallel import results_of
from .._utils.rows import TrainingRows, WholeTable, parts_of_table, take
from .._utils.warnings import part_of_a_fit, without_warnings

Folds = list[tuple[np.ndarray, np.ndarray]]


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Prepend `label` to the message of a TypeError or ValueError raised inside."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{label}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def unwrap(fitted: Any) -> Any:
    """Return the fitted estimator inside a search or FrozenEstimator, or the estimator itself."""
    while True:
        if hasattr(fitted, "best_estimator_"):
            fitted = fitted.best_estimator_
        elif isinstance(fitted, FrozenEstimator):
            fitted = fitted.estimator
        else:
            return fitted


def parameter_estimator(estimator: Any) -> Any:
    """Return the parameter `estimator` of a search or FrozenEstimator, or the estimator itself."""
    # The estimators of this package that have such a parameter check it themselves.
    while hasattr(estimator, "estimator") and not isinstance(estimator, DensityEstimatorMixin):
        estimator = estimator.estimator
    return estimator


def estimator_or_default(estimator: Any) -> Any:
    """Return a clone of an unfitted density, or SmoothedScoreDiffusion() for None."""
    return SmoothedScoreDiffusion() if estimator is None else clone(estimator)


def with_shared_columns(estimator: Any, X: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Return an unfitted density or search, and the `TableColumns` of all rows or None.

    A density of tables (`tables.TableDensity`) gets the column kinds of all rows, so that its fits to
    some of the rows use the same kinds. A density of numbers is returned unchanged, with None.
    """
    if isinstance(estimator, FrozenEstimator):
        return estimator, getattr(unwrap(estimator), "_table_", None)
    if hasattr(estimator, "estimator") and parameter_estimator(estimator) is not estimator:
        inner, table = with_shared_columns(estimator.estimator, X, sample_weight)
        return clone(estimator).set_params(estimator=inner) if table else estimator, table
    share = getattr(estimator, "_with_columns_of", None)
    return (estimator, None) if share is None else share(X, sample_weight)


def training_rows(table: Any, X: Any, sample_weight: Any, owner: Any) -> TrainingRows:
    """Return `TrainingRows.of` X; with a `table`, rows are equal if their levels and values are."""
    if table is None:
        return TrainingRows.of(X, sample_weight, owner)
    with part_of_a_fit():  # no warning of levels that are coded by numbers
        rows = TrainingRows.of(table.points(X), sample_weight, owner)
    return replace(rows, given=take(X, rows.kept))


def shared_table(estimator: Any, table: WholeTable) -> WholeTable | None:
    """Return `table` if fits to some of its rows use its column widths and relations, else None."""
    is_of_table = getattr(parameter_estimator(estimator), "_has_precision_of_table", False)
    return table if is_of_table else None


def check_member(label: str, estimator: Any, *, compared: bool) -> None:
    """Raise an error if an estimator has no log-densities or, if `compared`, ones in other units."""
    if isinstance(estimator, type):
        raise TypeError(
            f"{label} is the class {estimator.__name__}; pass an instance, {estimator.__name__}()."
        )
    if not (hasattr(estimator, "fit") and hasattr(estimator, "score_samples")):
        raise TypeError(
            f"{label} of type {type(estimator).__name__} has no fit or no score_samples; expected a "
            "density estimator, such as SmoothedScoreDiffusion, KernelDensity or GaussianMixture."
        )
    if get_tags(estimator).estimator_type == "outlier_detector":
        raise TypeError(
            f"{label} of type {type(estimator).__name__} is an outlier detector, whose scores are "
            "not log-densities; pass a density estimator, such as SmoothedScoreDiffusion."
        )
    if not compared:
        return
    inner = parameter_estimator(estimator)
    if isinstance(inner, Pipeline) and any(
        step not in (None, "passthrough") for _, step in inner.steps[:-1]
    ):
        raise ValueError(
            f"{label} is a Pipeline with transformers, whose log-densities are those of the transformed "
            "rows and have other units than those of the others. Put the transformers before this "
            "estimator, or use a TransformedDensity, which adds the logarithm of the Jacobian."
        )


def check_fills_space(label: str, fitted: Any) -> None:
    """Raise an error if a density is with respect to volume on a manifold (``fills_space_`` False)."""
    model = unwrap(fitted)
    if isinstance(model, Pipeline):
        return check_fills_space(label, model.steps[-1][1])
    if not getattr(model, "fills_space_", True):
        raise ValueError(
            f"{label} holds a {type(model).__name__} whose log-densities are with respect to the volume "
            "of a manifold (fills_space_ is False); expected a density of all columns. Pass another "
            "density, or CoarseScoreDiffusion(bandwidth=<number > 0, in units of X>)."
        )


def check_same_measure(members: list[tuple[str, Any]]) -> None:
    """Raise an error if fitted members differ in ``base_measure_``, the measure of their densities."""
    lebesgue = "Lebesgue measure"
    measures = [getattr(unwrap(fitted), "base_measure_", {}) for _, fitted in members]
    for (label, _), measure in zip(members[1:], measures[1:], strict=True):
        for name in {**measures[0], **measure}:
            first, other = measures[0].get(name, lebesgue), measure.get(name, lebesgue)
            if first != other:
                raise ValueError(
                    f"{label} and {members[0][0]} have log-densities with respect to different "
                    f"measures of column {name!r}: {other}, and {first}; expected the same, since they "
                    "are compared. Declare the columns alike: pass kinds=TableColumns.fit(X).kinds to "
                    "each TableDensity, and no density of plain numbers beside them."
                )


def takes_weights(estimator: Any) -> bool:
    """Return whether `fit` takes sample_weight, or is that of a search whose estimator takes it."""
    # A frozen estimator is fitted already, and its `fit` ignores all arguments.
    if isinstance(estimator, FrozenEstimator) or has_fit_parameter(estimator, "sample_weight"):
        return True
    is_search = hasattr(estimator, "estimator") and hasattr(estimator, "refit")
    return is_search and takes_weights(estimator.estimator)


def check_takes_weights(label: str, estimator: Any) -> None:
    """Raise TypeError if `fit` of an estimator takes no sample_weight."""
    if not takes_weights(estimator):
        raise TypeError(
            f"{label} of type {type(estimator).__name__} takes no sample_weight. Use a density that "
            "does, or repeat rows instead of weighting them."
        )


def fit_member(label: str, estimator: Any, rows: Any, weight: np.ndarray | None) -> Any:
    """Fit an estimator in place and return it; `label` is put in front of its errors."""
    if weight is not None:
        check_takes_weights(label, estimator)
    with naming(label), part_of_a_fit():
        fitted = estimator.fit(rows, None, **({} if weight is None else {"sample_weight": weight}))
    check_fills_space(label, fitted)
    return fitted


def log_density_of(label: str, estimator: Any, rows: Any) -> np.ndarray:
    """Return the log-density of each row, in nats; raise an error if one is NaN or +inf."""
    with naming(label):
        log_density = np.asarray(estimator.score_samples(rows), dtype=np.float64)
    wrong = np.flatnonzero(np.isnan(log_density) | (log_density == np.inf))
    if len(wrong):
        raise ValueError(
            f"{label}: {len(wrong)} log-densities are NaN or +inf (first: row {wrong[0]}); expected "
            "finite numbers or -inf. Rescale the columns, or use another estimator."
        )
    return log_density


def out_of_fold(label: str, estimator: Any, rows: TrainingRows, folds: Folds) -> np.ndarray:
    """Return held-out log-densities (n,), in nats, of ``rows.given``; NaN where no fold tests a row."""
    calls = [
        delayed(held_out_log_density)(label, estimator, rows, train, test) for train, test in folds
    ]
    log_density = np.full(len(rows.group), np.nan)
    for (_, test), part in zip(folds, results_of(calls, None, "fold"), strict=True):
        log_density[test] = part
    return log_density


def held_out_log_density(
    label: str,
    estimator: Any,
    rows: TrainingRows,
    train: np.ndarray,
    test: np.ndarray,
    nodes: NodeChoice | None = None,
) -> np.ndarray:
    """Return the log-densities of the test rows of one fold under a clone fitted to the others.

    `nodes` are those of the fit to all rows, or None if they are to be chosen.
    """
    weight = None if rows.weight is None else rows.weight[train]
    table = shared_table(estimator, rows.whole)
    # Warnings are given once, by the fit to all rows.
    with parts_of_table(table), nodes_of_whole(nodes), without_warnings():
        fitted = fit_member(label, clone(estimator), take(rows.given, train), weight)
    return log_density_of(label, fitted, take(rows.given, test))
