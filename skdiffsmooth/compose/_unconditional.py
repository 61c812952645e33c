"""Draws rows, without conditions, from any fitted density, pipeline or search."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ._changes import ChangeOfVariables, chain
from ._members import unwrap

# Number of rounds before an error is raised. Each draws as many rows as are missing, so 10^4 rows take
# about a hundred rounds if a tenth of the mass is inside the range.
MAX_ROUNDS = 200


def draw(fitted: Any, n: int, generator: np.random.RandomState) -> np.ndarray:
    """Return n rows (n, n_features) drawn from a fitted density, pipeline or search; see `sample`."""
    return draw_labelled(fitted, n, generator)[0]


def draw_rows(fitted: Any, n: int, generator: np.random.RandomState) -> Any:
    """Return n rows as `draw` does, or a table from a density of tables."""
    model = unwrap(fitted)
    if getattr(model, "_table_", None) is not None:
        return model.sample(n, generator)
    return draw(fitted, n, generator)


def draw_labelled(
    fitted: Any, n: int, generator: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return n rows as `draw` does, and the class (n,) of each if `fitted` is a classifier."""
    check_is_fitted(fitted)
    if hasattr(fitted, "cv_results_") and not hasattr(fitted, "best_estimator_"):
        raise ValueError(
            f"{type(fitted).__name__} was run with refit=False, so it has no fitted estimator "
            "to draw from; expected refit=True. Fit it again with refit=True."
        )
    fitted = unwrap(fitted)
    if isinstance(fitted, Pipeline):
        return draw_through(chain(fitted, fitted.steps[:-1]), fitted.steps[-1][1], n, generator)
    method = getattr(fitted, "sample", None)
    if not callable(method):
        raise TypeError(
            f"{type(fitted).__name__} has no method sample; expected a density estimator such as "
            "KDESampler, GaussianMixture or SmoothedScoreDiffusion, or a Pipeline or a search that "
            "ends in one."
        )
    try:
        return _call(fitted, method, n, generator)
    except NotImplementedError as error:
        raise TypeError(
            f"{fitted!r} cannot be drawn from with this kernel. Use KDESampler, which draws from every "
            "kernel that KernelDensity has."
        ) from error


def draw_through(
    change: ChangeOfVariables, density: Any, n: int, generator: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return n rows in the input units of `change`, drawn from a density of its output."""
    parts: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    missing = n
    for _ in range(MAX_ROUNDS):
        # Exactly as many rows are drawn as are missing. Surplus rows would have to be discarded, which
        # would bias the draws if `draw` returns them sorted.
        rows, labels = draw_labelled(density, missing, generator)
        X, inside = change.inverse(rows, generator)
        parts.append(X[inside])
        if labels is not None:
            classes.append(labels[inside])
        missing -= len(parts[-1])
        if not missing:
            return np.concatenate(parts), np.concatenate(classes) if classes else None
    raise ValueError(
        f"{n - missing} of {n} rows were drawn inside the range of {change.transformer!r} in "
        f"{MAX_ROUNDS} rounds: nearly all mass of the density is outside that range. Use another "
        "transformer, or a narrower density."
    )


def _call(
    fitted: Any, method: Callable[..., Any], n: int, generator: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return n rows drawn by an estimator's method `sample`, in random order, and their classes."""
    if "random_state" in inspect.signature(method).parameters:
        rows = method(n, random_state=generator)
    elif hasattr(fitted, "random_state"):
        # scikit-learn's mixtures use their parameter as the seed; None means numpy's global state.
        seeded = copy.copy(fitted)
        seeded.random_state = generator
        rows = seeded.sample(n)
    else:
        raise TypeError(
            f"{type(fitted).__name__}.sample takes no random_state and the estimator has no such "
            "parameter; expected one of the two, so that draws can be repeated. Add it to sample."
        )
    labels = None
    if isinstance(rows, tuple):
        # Rows and labels, sorted by component: after shuffling, the first k are independent draws.
        order = generator.permutation(n)
        if is_classifier(fitted):
            labels = np.asarray(rows[1])[order]
        rows = np.asarray(rows[0])[order]
    return np.asarray(rows, dtype=np.float64), labels
