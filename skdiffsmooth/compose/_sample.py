"""`sample`: draw rows from any fitted density, pipeline or search, in the units of its training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._utils.estimator import DensityEstimatorMixin
from .._utils.validation import check_choice, check_draw, wrong_type
from ._conditionals import draw_with_given
from ._members import unwrap
from ._unconditional import draw_labelled


def sample(
    fitted: Any,
    n_samples: int = 1,
    random_state: Any = None,
    *,
    output: str = "default",
    given: Any = None,
) -> Any:
    """Draw rows from any fitted density, pipeline or search.

    Pipelines and searches have no method `sample`; this function draws from them, too. Rows drawn from
    the last step of a pipeline are mapped to the units of the data by the inverses of the steps before
    it. Their distribution is that of `TransformedDensity` with the same steps, also along directions
    dropped by PCA. Rows outside the range of a step are drawn again.

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
        A density estimator with a method `sample` (of this package, `KernelDensity`, `GaussianMixture`,
        your own), a `Pipeline` that ends in one, a search over either with ``refit``, or a
        `FrozenEstimator` around one of these, in any nesting. It is not changed.
    n_samples : int, default=1
        Number of rows.
    random_state : int, RandomState or None, default=None
        Seed of the draws; None draws anew at every call, also from an estimator with a `random_state`
        of its own. numpy's global state is neither used nor changed, even if scikit-learn's own method
        would use it.
    output : {"default", "pandas", "polars"}, default="default"
        Type of the result. "default" is an array; from a `TableDensity`, or a classifier of such
        densities, a table of the same type as the training table. The others are data frames with the
        column names of the training rows (x0, x1, ... if they had none); from a classifier, with the
        classes in a last column, ``"target"`` (or ``"target_"``, where that is a name of X). The names
        are those of scikit-learn's `set_output`, which itself applies to `transform` only.
    given : mapping from column to value, default=None
        Draw rows conditional on these values of columns, which are given by label or index; each value
        is a number in units of X, or an array of shape (n_samples,). For a `TableDensity` they are
        values of its columns, such as categories. The steps of a pipeline must change each column on
        its own.

    Returns
    -------
    ndarray of shape (n_samples, n_features) or DataFrame
        Independent draws, in random order. In a frame of another library than the training frame's,
        categories of a `TableDensity` are text. From a classifier, such as `DensityClassifier`, arrays
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
    if isinstance(fitted, type) or not hasattr(fitted, "fit"):
        raise wrong_type("fitted", fitted, "a fitted density, pipeline or search.")
    density = _density_of_tables(fitted)
    if density is not None:
        drawn = density.sample(n, random_state=generator, given=given)
        rows, labels = drawn if isinstance(drawn, tuple) else (drawn, None)
    elif given is None:
        rows, labels = draw_labelled(fitted, n, generator)
    else:
        rows, labels = draw_with_given(fitted, given, n, generator)
    if output == "default":
        return rows if labels is None else (rows, labels)
    rows = _as_frame(rows, output, names_of_columns(fitted, rows.shape[1]))
    if labels is None:
        return rows
    target = "target"
    while target in rows.columns:
        target += "_"
    if output == "pandas":
        return rows.assign(**{target: labels})
    import polars as pl

    return rows.with_columns(pl.Series(target, labels))


def names_of_columns(fitted: Any, n_features: int) -> list[Any]:
    """Return the labels of the training columns, from the outermost estimator that has them.

    Columns that a density of tables leaves out are omitted. Columns of arrays are called x0, x1, ...
    """
    density = _density_of_tables(fitted)
    if density is not None:
        labels = density._column_labels().tolist()
        has_names = density._table_.frame.library != "numpy"
        return labels if has_names else [f"x{j}" for j in labels]
    while (names := _own_labels(fitted)) is None:
        inner = unwrap(fitted)
        if isinstance(inner, Pipeline):
            inner = next(step for _, step in inner.steps if not isinstance(step, str | None))
        if inner is fitted:
            return [f"x{j}" for j in range(n_features)]
        fitted = inner
    return list(names)


def _own_labels(fitted: Any) -> np.ndarray | None:
    """Return the labels of the columns that an estimator was fitted on, or None if it has none."""
    if isinstance(fitted, DensityEstimatorMixin):
        return fitted._column_labels()
    return getattr(fitted, "feature_names_in_", None)


def _density_of_tables(fitted: Any) -> Any:
    """Return the fitted density or classifier of tables in `fitted` (or `fitted` itself), or None."""
    check_is_fitted(fitted)
    inner = unwrap(fitted)
    while isinstance(inner, Pipeline) and all(
        s in (None, "passthrough") for _, s in inner.steps[:-1]
    ):
        inner = unwrap(inner.steps[-1][1])
    draws_tables = getattr(inner, "_table_", None) is not None and hasattr(inner, "sample")
    return inner if draws_tables else None


def _as_frame(rows: Any, output: str, names: Any) -> Any:
    """Return drawn rows, an array (n, d) or a frame, as a frame of the library `output`."""
    library = type(rows).__module__.split(".")[0]
    if library == output:
        return rows
    if library in ("pandas", "polars"):
        # Lists of plain Python values: categories become text.
        rows = {str(name): list(rows[name]) for name in names}
    if output == "pandas":
        import pandas as pd

        return pd.DataFrame(rows, columns=None if isinstance(rows, dict) else names)
    import polars as pl

    return pl.DataFrame(
        rows, schema=None if isinstance(rows, dict) else [str(name) for name in names]
    )
