"""`sample`: rows drawn from anything fitted, in the units of the rows that it was fitted on."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._utils.validation import check_choice, check_draw
from ._changes import ChangeOfVariables, chain
from ._members import unwrap

__all__ = ["draw", "draw_through", "sample"]

# Rounds of redrawing before giving up. Each draws as many rows as are missing, so that a range that
# holds a tenth of the mass still gives 10^4 rows in a hundred rounds.
ROUNDS = 200


def sample(
    fitted: Any, n_samples: int = 1, random_state: Any = None, *, output: str = "default"
) -> Any:
    """Draw rows from anything fitted that holds a density.

    For pipelines and searches, which have no method `sample`, and for one call that works for all.
    A density inside a pipeline is drawn from and its rows go back through the inverses of the steps
    before it, so that they come in the units of the data: the same law, directions dropped by PCA
    included, as `TransformedDensity` of these steps. Rows that are outside the range of a step are
    drawn again.

    Parameters
    ----------
    fitted : estimator
        A density estimator with a method `sample` (of this package, `KernelDensity`,
        `GaussianMixture`, your own), a `Pipeline` that ends in one, or a search over either with
        ``refit``; in any nesting. It is not changed.
    n_samples : int, default=1
        How many rows.
    random_state : int, RandomState or None, default=None
        Source of the draws; None draws anew at every call. No global state is used or moved, also
        where scikit-learn's own method would.
    output : {"default", "pandas", "polars"}, default="default"
        Container: an array, or a data frame with the columns of the training rows (x0, x1, ... if
        they had no names). A parameter of the call under the names of scikit-learn's `set_output`,
        not a setting: that one speaks of `transform`, and the estimators that hold densities, which
        transform nothing, do not have it.

    Returns
    -------
    ndarray of shape (n_samples, n_features) or DataFrame
        Independent draws, in any order.

    Raises
    ------
    NotFittedError
        If it was not fitted.
    TypeError
        If there is nothing to draw from, if a step of a pipeline has no inverse, or if `n_samples`
        or `random_state` has the wrong type.
    ValueError
        If `n_samples`, `random_state` or `output` is out of range, if a search was run with
        ``refit=False``, or if next to no draw is inside the range of the steps.
    ImportError
        If the library of the data frame is not installed.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skdiffsmooth import sample
    >>> flowers = load_iris(as_frame=True).data
    >>> model = make_pipeline(StandardScaler(), GaussianMixture(random_state=0))
    >>> search = GridSearchCV(model, {"gaussianmixture__n_components": [1, 2]}).fit(flowers)
    >>> sample(search, 2, random_state=0, output="pandas").round(1)
       sepal length (cm)  sepal width (cm)  petal length (cm)  petal width (cm)
    0                5.1               3.1                1.5               0.5
    1                7.4               2.8                5.9               1.7
    """
    check_choice("output", output, ("default", "pandas", "polars"))
    n, generator = check_draw(n_samples, random_state)
    rows = draw(fitted, n, generator)
    if output == "default":
        return rows
    names = _column_names(fitted, rows.shape[1])
    if output == "pandas":
        import pandas as pd

        return pd.DataFrame(rows, columns=names)
    import polars as pl

    return pl.DataFrame(rows, schema=names)


def draw(fitted: Any, n: int, generator: np.random.RandomState) -> np.ndarray:
    """Return rows drawn from anything fitted, in its own units.

    Parameters
    ----------
    fitted : estimator
        As in `sample`.
    n : int
        How many rows.
    generator : RandomState
        Source of the draws.

    Returns
    -------
    ndarray of shape (n, n_features)
    """
    check_is_fitted(fitted)
    if hasattr(fitted, "cv_results_") and not hasattr(fitted, "best_estimator_"):
        raise ValueError(
            f"{type(fitted).__name__} was run with refit=False, so no estimator was kept to draw "
            "from; expected refit=True."
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
            f"{fitted!r} cannot be drawn from. KDESampler draws from every kernel that "
            "KernelDensity has."
        ) from error


def draw_through(
    change: ChangeOfVariables, density: Any, n: int, generator: np.random.RandomState
) -> np.ndarray:
    """Return rows drawn from a density of transformed rows, in units before the transformation.

    Parameters
    ----------
    change : ChangeOfVariables
        From rows to those that `density` was fitted on.
    density : estimator
        Fitted.
    n : int
        How many rows.
    generator : RandomState
        Source of the draws.

    Returns
    -------
    ndarray of shape (n, n_features)
        From the density restricted to the range of the change.

    Raises
    ------
    ValueError
        If next to no draw is inside the range.
    """
    found: list[np.ndarray] = []
    missing = n
    for _ in range(ROUNDS):
        # All rows inside are taken, and no more are drawn than are missing: to cut off a
        # surplus would favour what comes first.
        X, inside = change.inverse(draw(density, missing, generator), generator)
        found.append(X[inside])
        missing -= len(found[-1])
        if not missing:
            return np.concatenate(found)
    raise ValueError(
        f"{n - missing} of {n} rows were drawn inside the range of {change.transformer!r} in "
        f"{ROUNDS} rounds: nearly all mass of the density is where no row is mapped to. Use another "
        "transformer, or a density with less spread."
    )


def _call(
    fitted: Any, method: Callable[..., Any], n: int, generator: np.random.RandomState
) -> np.ndarray:
    """Return what an estimator's own method draws."""
    if "random_state" in inspect.signature(method).parameters:
        rows = method(n, random_state=generator)
    elif hasattr(fitted, "random_state"):
        # Mixtures draw from their parameter, and from numpy's global state if that is None.
        seeded = copy.copy(fitted)
        seeded.random_state = generator
        rows = seeded.sample(n)
    else:
        raise TypeError(
            f"{type(fitted).__name__}.sample takes no random_state and the estimator has none; "
            "expected one of the two, so that draws can be repeated."
        )
    if isinstance(rows, tuple):
        # Rows with labels, component after component: shuffled, the first k are k fair draws.
        rows = generator.permutation(rows[0])
    return np.asarray(rows, dtype=np.float64)


def _column_names(fitted: Any, n_features: int) -> list[str]:
    """Return the names of the training columns, from the first estimator that was fitted on them."""
    while (names := getattr(fitted, "feature_names_in_", None)) is None:
        inner = unwrap(fitted)
        if isinstance(inner, Pipeline):
            inner = next(step for _, step in inner.steps if not isinstance(step, str | None))
        if inner is fitted:
            return [f"x{j}" for j in range(n_features)]
        fitted = inner
    return list(names)
