"""`sample`: draw rows from any fitted density, pipeline or search, in the units of its training rows."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._utils.validation import check_choice, check_draw
from ._changes import ChangeOfVariables, chain
from ._members import unwrap

__all__ = ["draw", "draw_through", "sample"]

# Rounds of redrawing before giving up. Each draws as many rows as are missing, so 10^4 rows take
# about a hundred rounds where a tenth of the mass is inside the range.
MAX_ROUNDS = 200


def sample(
    fitted: Any,
    n_samples: int = 1,
    random_state: Any = None,
    *,
    output: str = "default",
    given: Any = None,
) -> Any:
    """Draw rows from any fitted density, pipeline or search.

    Pipelines and searches have no method `sample`; this function draws from them as from the
    densities themselves. Rows drawn from a density inside a pipeline go back through the inverses
    of the steps before it, so they have the units of the data. Their distribution, directions
    dropped by PCA included, is that of `TransformedDensity` with the same steps. Rows outside the
    range of a step are drawn again.

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

    Parameters
    ----------
    fitted : estimator
        A density estimator with a method `sample` (of this package, `KernelDensity`,
        `GaussianMixture`, your own), a `Pipeline` that ends in one, a search over either with
        ``refit``, or a `FrozenEstimator` around one of these; nested as you like. It is not
        changed.
    n_samples : int, default=1
        Number of rows.
    random_state : int, RandomState or None, default=None
        Seed of the draws; None draws anew at every call, also from an estimator with a
        `random_state` of its own. No global state is used or changed, also where scikit-learn's
        own method would.
    output : {"default", "pandas", "polars"}, default="default"
        Container: an array, or a data frame with the column names of the training rows (x0, x1,
        ... if they had none); from a classifier, with the classes in a last column, "target" (or
        "target_", where that is a name of X). The names of containers are those of scikit-learn's
        `set_output`, which itself applies to `transform` only, and densities have no `transform`.
    given : mapping from column to value, default=None
        Condition the draws on these columns: labels or indices; each value one number in units of X,
        or an array of shape (n_samples,).
        The steps of a pipeline must change each column on its own.

    Returns
    -------
    ndarray of shape (n_samples, n_features) or DataFrame
        Independent draws, in random order. From a classifier, such as `DensityClassifier`, arrays
        are a pair (X, y), as its own `sample` returns them.

    Raises
    ------
    NotFittedError
        If `fitted` is not fitted.
    TypeError
        If `fitted` has no method to draw, if a step of a pipeline has no inverse, or if
        `n_samples` or `random_state` has the wrong type.
    ValueError
        If `n_samples`, `random_state` or `output` is out of range, if a search was run with
        ``refit=False``, or if almost no draw is inside the range of the steps.
    ImportError
        If the library of the data frame is not installed.
    """
    check_choice("output", output, ("default", "pandas", "polars"))
    n, generator = check_draw(n_samples, random_state)
    if given is None:
        rows, labels = draw_labelled(fitted, n, generator)
    else:
        # Here, since that module draws from densities by this one.
        from ._conditionals import draw_with_given

        rows, labels = draw_with_given(fitted, given, n, generator)
    if output == "default":
        return rows if labels is None else (rows, labels)
    names = _column_names(fitted, rows.shape[1])
    target = "target"
    while target in names:
        target += "_"
    if output == "pandas":
        import pandas as pd

        frame = pd.DataFrame(rows, columns=names)
        return frame if labels is None else frame.assign(**{target: labels})
    import polars as pl

    table = pl.DataFrame(rows, schema=names)
    return table if labels is None else table.with_columns(pl.Series(target, labels))


def draw(fitted: Any, n: int, generator: np.random.RandomState) -> np.ndarray:
    """Return n rows (n, n_features) drawn from a fitted density, pipeline or search; see `sample`."""
    return draw_labelled(fitted, n, generator)[0]


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
    """Return n rows in the input units of `change`, drawn from a density of its output.

    The density is restricted to the range of the change: rows outside are drawn again. Classes are
    those of `draw_labelled`.
    """
    parts: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    missing = n
    for _ in range(MAX_ROUNDS):
        # As many rows are drawn as are missing, so that none has to be discarded: `draw` may return
        # rows in an order, and discarding the last ones would then bias the draws.
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
