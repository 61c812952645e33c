"""What estimators made of densities do with their members: check, fit, score held-out rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import has_fit_parameter

from .._estimators.smoothed import SmoothedScoreDiffusion
from .._utils.estimator import DensityEstimatorMixin
from .._utils.rows import TrainingRows, take

__all__ = [
    "Folds",
    "check_fills_space",
    "check_member",
    "estimator_or_default",
    "fit_member",
    "log_density_of",
    "naming",
    "out_of_fold",
    "parameter_estimator",
    "unwrap",
]

Folds = list[tuple[np.ndarray, np.ndarray]]


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Say whose error it is."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{label}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def unwrap(fitted: Any) -> Any:
    """Return the fitted estimator inside searches and FrozenEstimator; any other one as it is."""
    while True:
        if hasattr(fitted, "best_estimator_"):
            fitted = fitted.best_estimator_
        elif isinstance(fitted, FrozenEstimator):
            fitted = fitted.estimator
        else:
            return fitted


def parameter_estimator(estimator: Any) -> Any:
    """Return the `estimator` of a search or FrozenEstimator, fitted or not; others as they are."""
    # The estimators of this package that have such a parameter check it themselves.
    while hasattr(estimator, "estimator") and not isinstance(estimator, DensityEstimatorMixin):
        estimator = estimator.estimator
    return estimator


def estimator_or_default(estimator: Any) -> Any:
    """Return a fresh copy of the density to be fitted: the default where None was passed."""
    return SmoothedScoreDiffusion() if estimator is None else clone(estimator)


def check_member(label: str, estimator: Any, *, compared: bool) -> None:
    """Raise unless an estimator reports log-densities.

    Parameters
    ----------
    label : str
        What messages call it.
    estimator : object
        The user's, fitted or not.
    compared : bool
        Whether its log-densities are compared with those of others, so that units matter.

    Raises
    ------
    TypeError
        If it is a class, or has no `fit` or no `score_samples`, or its scores are no log-densities.
    ValueError
        If it is a pipeline whose log-densities are those of transformed rows.
    """
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
            f"{label} of type {type(estimator).__name__} is an outlier detector, whose scores are no "
            "log-densities; pass a density estimator, such as SmoothedScoreDiffusion."
        )
    if not compared:
        return
    inner = parameter_estimator(estimator)
    if isinstance(inner, Pipeline) and any(
        step not in (None, "passthrough") for _, step in inner.steps[:-1]
    ):
        raise ValueError(
            f"{label} is a Pipeline with transformers, whose log-densities are those of the transformed "
            "rows, in other units than those of the others. Put the transformers before the whole, or "
            "make it a TransformedDensity, which adds the logarithm of the Jacobian."
        )


def check_fills_space(label: str, fitted: Any) -> None:
    """Raise if a fitted density, or one inside a pipeline or a search, lives on a learned manifold only.

    A density declares that by the fitted attribute ``fills_space_``; without it, it fills the space. Two
    fits learn two manifolds, so their log-densities have no common unit, and a row far from the manifold
    has the log-density of its projection.
    """
    model = unwrap(fitted)
    if isinstance(model, Pipeline):
        return check_fills_space(label, model.steps[-1][1])
    if not getattr(model, "fills_space_", True):
        raise ValueError(
            f"{label} holds a {type(model).__name__} whose log-densities are those of projections, with "
            "respect to the volume of a manifold (fills_space_ is False); expected a density of all "
            "columns. Pass CoarseScoreDiffusion(bandwidth=<number > 0, in units of X>), or another "
            "density."
        )


def fit_member(label: str, estimator: Any, rows: Any, weight: np.ndarray | None) -> Any:
    """Fit an estimator to rows, with weights where there are any.

    Parameters
    ----------
    label : str
        What messages call it.
    estimator : object
        It is fitted itself: pass a clone.
    rows : array or table of shape (n_samples, n_features)
        Training rows.
    weight : ndarray of shape (n_samples,) or None
        Their weights.

    Returns
    -------
    object
        The estimator.

    Raises
    ------
    TypeError
        If there are weights and the estimator takes none.
    ValueError
        What the estimator raises, with its name, or if its density does not fill the space.
    """
    if weight is not None and not has_fit_parameter(estimator, "sample_weight"):
        raise TypeError(
            f"{label} of type {type(estimator).__name__} takes no sample_weight. Leave it out, or "
            "repeat rows instead of weighing them."
        )
    with naming(label):
        fitted = estimator.fit(rows, **({} if weight is None else {"sample_weight": weight}))
    check_fills_space(label, fitted)
    return fitted


def log_density_of(label: str, estimator: Any, rows: Any) -> np.ndarray:
    """Return log-densities that may be compared and summed.

    Parameters
    ----------
    label : str
        What messages call the estimator.
    estimator : object
        A fitted one.
    rows : array or table of shape (n_samples, n_features)
        Queries.

    Returns
    -------
    ndarray of shape (n_samples,)
        In nats; -inf where the density is zero.

    Raises
    ------
    ValueError
        If one of them is NaN or +inf.
    """
    with naming(label):
        found = np.asarray(estimator.score_samples(rows), dtype=np.float64)
    wrong = np.flatnonzero(np.isnan(found) | (found == np.inf))
    if len(wrong):
        raise ValueError(
            f"{label}: {len(wrong)} log-densities are NaN or +inf (first: row {wrong[0]}); expected "
            "finite numbers or -inf. Rescale the columns, or use another estimator."
        )
    return found


def out_of_fold(
    members: list[tuple[str, Any]],
    rows: TrainingRows,
    folds: Folds,
    n_jobs: int | None = None,
) -> np.ndarray:
    """Return each row's log-density under models that have not seen it.

    Parameters
    ----------
    members : list of (str, estimator)
        Labels for messages, and estimators, which are cloned.
    rows : TrainingRows
        The data.
    folds : list of tuple of ndarray
        What ``rows.folds`` returns.
    n_jobs : int or None, default=None
        Over how many joblib workers members and folds are spread.

    Returns
    -------
    ndarray of shape (n_kept, n_members)
        In nats, in the order of ``rows.given``.
    """
    found = iter(
        Parallel(n_jobs=n_jobs)(
            delayed(_held_out)(label, estimator, rows, train, test)
            for label, estimator in members
            for train, test in folds
        )
    )
    log_density = np.empty((len(rows.group), len(members)))
    for column in range(len(members)):
        for _, test in folds:
            log_density[test, column] = next(found)
    return log_density


def _held_out(
    label: str, estimator: Any, rows: TrainingRows, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Return the log-densities of one fold's test rows."""
    weight = None if rows.weight is None else rows.weight[train]
    fitted = fit_member(label, clone(estimator), take(rows.given, train), weight)
    return log_density_of(label, fitted, take(rows.given, test))
