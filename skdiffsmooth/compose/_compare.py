"""`compare`: held-out log-densities of fitted models on the same rows, with paired standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _num_samples, check_is_fitted

from ._members import check_fills_space, check_member, log_density_of, unwrap

# Value of the attribute `base_measure_` of models of tables, for continuous columns.
_LEBESGUE = "Lebesgue measure"


@dataclass(frozen=True)
class ModelComparison:
    """The result of `compare`; printed, it is a table.

    Attributes
    ----------
    names : list of str
        Names of the models, in the given order; arrays have the same order.
    log_density : ndarray of shape (n_rows, n_models)
        Held-out log-density of each row, in nats.
    mean : ndarray of shape (n_models,)
        Their means, in nats a row.
    best : str
        Name of the model of highest mean.
    difference : ndarray of shape (n_models,)
        Mean minus that of the best model, in nats a row; at most 0.
    standard_error : ndarray of shape (n_models,)
        Standard error of the difference, computed from the differences row by row; 0 for the best
        model, NaN if there is a single row or a log-density is -inf.
    """

    names: list[str]
    log_density: np.ndarray = field(repr=False)
    mean: np.ndarray
    best: str
    difference: np.ndarray
    standard_error: np.ndarray

    def frame(self) -> Any:
        """Return the table as a pandas DataFrame, the best model first.

        Returns
        -------
        DataFrame
            Indexed by model: "mean", "difference" and "standard_error", in nats a row, and "n_zero", the
            number of rows where the density is zero.
        """
        import pandas as pd

        order = self._order
        table = {
            "mean": self.mean,
            "difference": self.difference,
            "standard_error": self.standard_error,
            "n_zero": np.isneginf(self.log_density).sum(axis=0),
        }
        index = pd.Index([self.names[k] for k in order], name="model")
        return pd.DataFrame({name: values[order] for name, values in table.items()}, index=index)

    @property
    def _order(self) -> np.ndarray:
        """Indices of the models in decreasing order of their means."""
        return np.argsort(-self.mean, kind="stable")

    def __str__(self) -> str:
        width = max(5, *map(len, self.names))
        lines = [f"{'model':{width}s} {'nats a row':>11s}  compared with the best"]
        for k in self._order:
            gap = f"{self.difference[k]:+.3f} +- {self.standard_error[k]:.3f}"
            shown = "the best" if self.names[k] == self.best else gap
            lines.append(f"{self.names[k]:{width}s} {self.mean[k]:11.3f}  {shown}")
        return "\n".join(lines)


def compare(models: Any, X: Any) -> ModelComparison:
    """Compare fitted densities by their log-densities of the same held-out rows.

    Differences between models have far smaller standard errors than the means themselves, since
    some rows are less likely than others under all models.

    Parameters
    ----------
    models : mapping from name to estimator
        Fitted densities with `score_samples`: of this package, of scikit-learn, your own, or searches
        over them.
    X : array-like of shape (n_rows, n_features)
        Rows that no model was fitted on.

    Returns
    -------
    ModelComparison
        Means, differences from the best model and their standard errors; `print` it, or take its
        `frame()`.

    Raises
    ------
    NotFittedError
        If a model is not fitted.
    TypeError
        If `models` is not a mapping, or holds something that is no density.
    ValueError
        If there are no models, or their log-densities have different units: those of a pipeline are per
        unit of its transformed columns (use `skdiffsmooth.compose.TransformedDensity`), and those of
        levels and cells are probabilities (``base_measure_`` of `skdiffsmooth.tables.TableDensity`).

    See Also
    --------
    skdiffsmooth.displays.ComparisonDisplay : The comparison as a picture.

    Notes
    -----
    Each model scores X once. Standard errors assume independent rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skdiffsmooth import KDESampler, compare
    >>> X = np.random.RandomState(0).normal(size=(200, 2))
    >>> models = {"KDE": KDESampler(), "mixture": GaussianMixture(random_state=0)}
    >>> for model in models.values():
    ...     model = model.fit(X[:100])
    >>> print(compare(models, X[100:]))
    model    nats a row  compared with the best
    mixture      -2.773  the best
    KDE          -2.836  -0.064 +- 0.030
    """
    if not isinstance(models, Mapping):
        raise TypeError(
            f"models has type {type(models).__name__}; expected a mapping from names to fitted "
            "densities, such as {'KDE': kde, 'smoothed': model}."
        )
    if not models:
        raise ValueError("models is empty; expected at least one fitted density.")
    names = [str(name) for name in models]
    measures = {}
    for name, model in zip(names, models.values(), strict=True):
        label = f"models[{name!r}]"
        check_member(label, model, compared=True)
        check_is_fitted(model)
        check_fills_space(label, model)
        measures[name] = base_measure(model)
    first = names[0]
    for name, measure in measures.items():
        if measure != measures[first]:
            raise ValueError(
                f"models[{name!r}] has log-densities with respect to {_described(measure)}, and "
                f"models[{first!r}] with respect to {_described(measures[first])}; numbers of different "
                "units cannot be compared. Fit both on the same columns with the same kinds."
            )
    log_density = np.column_stack(
        [
            log_density_of(f"models[{name!r}]", model, X)
            for name, model in zip(names, models.values(), strict=True)
        ]
    )
    n = _num_samples(X)
    mean = log_density.mean(axis=0)
    best = int(np.argmax(mean))
    with np.errstate(invalid="ignore"):
        by_row = log_density - log_density[:, [best]]
        difference = mean - mean[best]
        error = by_row.std(axis=0, ddof=1) / math.sqrt(n) if n > 1 else np.full(len(names), np.nan)
    error[best] = 0.0
    return ModelComparison(names, log_density, mean, names[best], difference, error)


def base_measure(model: Any) -> dict[Any, str] | None:
    """Return the measure of log-densities by column, or None if all are per unit of X."""
    model = unwrap(model)
    if isinstance(model, Pipeline):
        return base_measure(model.steps[-1][1])
    measures = getattr(model, "base_measure_", None)
    if measures is None or set(measures.values()) == {_LEBESGUE}:
        return None
    return dict(measures)


def _described(measure: Any) -> str:
    return "the units of X in all columns" if measure is None else repr(measure)
