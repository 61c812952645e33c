"""Fitted transformers as changes of variables, with inverse and Jacobian determinant.

If Z = T(X) has density q, then X has density p(x) = q(T(x)) |det dT/dx|. A transformer that drops
directions (PCA) is completed by an independent Gaussian along them, whose density multiplies the
determinant. `ChangeOfVariables.forward` returns the logarithm of this whole *factor*,
p(x) = q(T(x)) factor(x).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer


class ChangeOfVariables:
    """Fitted transformer with its inverse and the function log|det dT/dx|.

    `TransformedDensity` can use a transformer of another library once it is registered:

    >>> import numpy as np
    >>> from skdiffsmooth.compose import ChangeOfVariables, change_of_variables
    >>> class Cube:
    ...     def fit(self, X, y=None):
    ...         return self
    ...
    ...     def transform(self, X):
    ...         return X**3
    ...
    ...     def inverse_transform(self, Z):
    ...         return np.cbrt(Z)
    >>> @change_of_variables.register(Cube)
    ... def _(transformer):
    ...     return ChangeOfVariables(transformer, lambda X: np.log(3 * X**2).sum(axis=1), onto=True)
    >>> change_of_variables(Cube()).forward(np.array([[2.0]]))
    (array([[8.]]), array([2.48490665]))

    Parameters
    ----------
    transformer : object
        Fitted transformer with `transform`; drawing rows also needs `inverse_transform`.
    log_abs_det : callable or None, default=None
        Maps rows (n, d), in the transformer's input units, to log|det dT/dx|, shape (n,). If None, only
        `inverse` can be called.
    onto : bool, default=False
        Whether every point of R^d is the image of some row. If not, densities are restricted to the
        range of the transformer, and `inverse` checks by a round trip which rows are in it.
    log_slopes : callable or None, default=None
        For a transformer that changes each column on its own: maps rows (n, d) to log|dT_j/dx_j|, shape
        (n, d), in place of `log_abs_det`. Marginal and conditional densities need it.
    """

    def __init__(
        self,
        transformer: Any,
        log_abs_det: Callable[[np.ndarray], Any] | None = None,
        *,
        onto: bool = False,
        log_slopes: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.transformer = transformer
        self.log_abs_det = log_abs_det
        self.log_slopes = log_slopes
        if log_slopes is not None:
            self.log_abs_det = lambda X: log_slopes(X).sum(axis=1)
        self.onto = onto

    def by_column(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return transformed rows Z, and log slopes of columns in nats, both (n, n_features).

        Column ``outputs(n_features)[j]`` of Z is the image of column j of X alone. For a value outside
        the domain the slope is -inf, and Z is finite but arbitrary. Raises ValueError if the
        transformer mixes columns, or its slopes are not known.
        """
        if self.log_slopes is None:
            raise ValueError(
                "given and columns need a transformer that changes each column on its own, with a "
                f"known slope; {self.transformer!r} is none. Use a scaler, PowerTransformer or "
                "QuantileTransformer, or fit the density to the columns of X."
            )
        with np.errstate(all="ignore"):
            Z, log_slopes = self.image(X), self.log_slopes(X)
        inside = np.isfinite(Z) & np.isfinite(log_slopes)
        return np.where(inside, Z, 0.0), np.where(inside, log_slopes, -np.inf)

    def outputs(self, n_features: int) -> np.ndarray:
        """Return the output column (n_features,) of each input column, if no columns are mixed."""
        return np.arange(n_features)

    def image(self, X: np.ndarray) -> np.ndarray:
        """Return the transformed rows; NaN or infinite values mark rows outside the domain."""
        rows = with_names(X, getattr(self.transformer, "feature_names_in_", None))
        return np.asarray(self.transformer.transform(rows), dtype=np.float64)

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return transformed rows, and the log *factor* (n_samples,): log|det dT/dx| if T is one-to-one.

        For a row outside the domain the log-factor, in nats, is -inf, and the image is finite but
        arbitrary. Raises TypeError if the Jacobian is not known; ValueError if columns are added or
        dropped, or the log-determinant is NaN or +inf.
        """
        if self.log_abs_det is None:
            raise TypeError(_unknown(self.transformer))
        with np.errstate(all="ignore"):
            Z = self.image(X)
            if Z.shape != X.shape:
                raise ValueError(
                    f"{self.transformer!r} turns rows of {X.shape[1]} columns into rows of "
                    f"{Z.shape[1]}; expected the same number, without which X has no density. Use a "
                    "transformer that keeps the number of columns."
                )
            inside = np.isfinite(Z).all(axis=1)
            log_factor = np.full(len(X), -np.inf)
            if inside.any():
                log_factor[inside] = self._log_abs_det(X[inside])
        return np.where(inside[:, None], Z, 0.0), log_factor

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows with images Z (n, n_features_out), and whether each of them exists (n,).

        Rows that do not exist, because Z is outside the transformer's range, are finite but arbitrary.
        `generator`, a RandomState, draws the noise along directions that were dropped. Raises TypeError
        if the transformer has no inverse.
        """
        if not hasattr(self.transformer, "inverse_transform"):
            raise TypeError(
                f"{self.transformer!r} has no method inverse_transform, so rows cannot be brought "
                "back to the units of X. Add one, or use another transformer."
            )
        with np.errstate(all="ignore"):
            X = np.asarray(self.transformer.inverse_transform(Z.copy()), dtype=np.float64)
            inside = np.all(np.isfinite(X), axis=1)
            if not self.onto and inside.any():
                # An inverse may return a finite row for Z outside the range: the square of a
                # negative root, say. A round trip detects that; rounding changes it by far less
                # than `slack`.
                again, expected = self.image(X[inside]), Z[inside]
                slack = 1e-6 * np.abs(expected) + 1e-9 * np.abs(expected).max(axis=0)
                inside[inside] = (np.abs(again - expected) <= slack).all(axis=1)
        return np.where(inside[:, None], X, 0.0), inside

    def _log_abs_det(self, X: np.ndarray) -> np.ndarray:
        assert self.log_abs_det is not None
        try:
            value = np.asarray(self.log_abs_det(X), dtype=np.float64)
        except TypeError as error:
            raise TypeError(
                f"log_abs_det={self.log_abs_det!r} failed ({error}); expected a function of rows that "
                "returns one number for each."
            ) from error
        if value.shape != (len(X),):
            raise ValueError(
                f"log_abs_det of {self.transformer!r} has shape {value.shape}; expected ({len(X)},), "
                "one number for each row. Sum over the features."
            )
        bad = np.isnan(value) | (value == np.inf)
        if bad.any():
            raise ValueError(
                f"log|det| of {self.transformer!r} is {value[bad][0]} at {X[bad][0]}; expected a "
                "number below infinity wherever the transformed row is finite. Check the derivative."
            )
        return value


def change_of_variables(transformer: Any) -> ChangeOfVariables:
    """Return a fitted transformer as a change of variables.

    To add a class of transformers call ``change_of_variables.register(cls)(function)``, where
    `function` takes a fitted transformer and returns a `ChangeOfVariables`; see that class for an
    example. A method ``log_abs_det_jacobian(X)`` of the transformer takes precedence over `function`.

    Parameters
    ----------
    transformer : object
        Fitted.

    Returns
    -------
    ChangeOfVariables
        If the derivative is not known, it has no `log_abs_det` and only `inverse` works.

    Raises
    ------
    TypeError, ValueError
        If the class is registered but the transformer has no inverse, such as a MinMaxScaler with
        ``clip=True``.
    """
    # Checked first: the registry would return the function of a superclass.
    if hasattr(transformer, "log_abs_det_jacobian"):
        return ChangeOfVariables(transformer, transformer.log_abs_det_jacobian)
    return registered(transformer)


@singledispatch
def registered(transformer: Any) -> ChangeOfVariables:
    return ChangeOfVariables(transformer)


change_of_variables.register = registered.register  # type: ignore[attr-defined]


def with_names(X: np.ndarray, names: Any) -> Any:
    """Return a copy of the rows (n, d), as a pandas DataFrame if column names are given."""
    # A copy, since some transformers work in place (copy=False).
    if names is not None:
        try:
            import pandas as pd
        except ImportError:
            # Without pandas the names are from another library's data frame; an array works as well.
            return X.copy()
        return pd.DataFrame(X.copy(), columns=list(names))
    return X.copy()


class _Chain(ChangeOfVariables):
    """Several changes of variables in sequence; their Jacobian factors are multiplied."""

    def __init__(self, transformer: Any, changes: list[ChangeOfVariables]) -> None:
        super().__init__(transformer, onto=all(change.onto for change in changes))
        self.changes = changes

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_factor = np.zeros(len(X))
        for change in self.changes:
            X, more = change.forward(X)
            log_factor += more
        return X, log_factor

    def by_column(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_slopes, outputs = np.zeros_like(X), np.arange(X.shape[1])
        for change in self.changes:
            X, more = change.by_column(X)
            log_slopes += more[:, outputs]
            outputs = change.outputs(X.shape[1])[outputs]
        return X, log_slopes

    def outputs(self, n_features: int) -> np.ndarray:
        outputs = np.arange(n_features)
        for change in self.changes:
            outputs = change.outputs(n_features)[outputs]
        return outputs

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        inside = np.ones(len(Z), dtype=bool)
        for change in reversed(self.changes):
            Z, is_inside = change.inverse(Z, generator)
            inside &= is_inside
        return Z, inside


def chain(pipeline: Any, steps: list[tuple[str, Any]]) -> ChangeOfVariables:
    """Return the steps of a fitted pipeline as one change of variables."""
    kept = [step for _, step in steps if step is not None and not isinstance(step, str)]
    return _Chain(pipeline, [change_of_variables(step) for step in kept])


@registered.register(Pipeline)
def _(transformer: Any) -> ChangeOfVariables:
    return chain(transformer, transformer.steps)


class _Blocks(ChangeOfVariables):
    """A ColumnTransformer, whose Jacobian is block-diagonal with one block for each transformer."""

    def __init__(self, transformer: Any) -> None:
        self.blocks: list[tuple[list[int], slice, ChangeOfVariables]] = []
        for name, step, _ in transformer.transformers_:
            # Only a private attribute holds the indices of columns that were given by name, mask or
            # slice.
            columns = list(transformer._transformer_to_input_indices[name])
            if not columns:
                continue
            if isinstance(step, str) and step == "drop":
                raise TypeError(
                    f"ColumnTransformer drops {len(columns)} columns ({name}), which then have no "
                    "density; expected every column in one transformer. Use "
                    "remainder='passthrough'."
                )
            fitted = FunctionTransformer() if isinstance(step, str) else step
            self.blocks.append(
                (columns, transformer.output_indices_[name], change_of_variables(fitted))
            )
        used = sorted(column for columns, _, _ in self.blocks for column in columns)
        self.n_in = transformer.n_features_in_
        if used != list(range(self.n_in)):
            raise TypeError(
                f"ColumnTransformer uses a column twice, columns {used}, so its output has no density; "
                "expected every column in exactly one transformer. Remove the repeated columns."
            )
        super().__init__(transformer, onto=all(change.onto for _, _, change in self.blocks))
        self.n_out = max(part.stop for _, part, _ in self.blocks)

    def forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_factor = np.empty((len(X), self.n_out)), np.zeros(len(X))
        for columns, part, change in self.blocks:
            Z[:, part], more = change.forward(X[:, columns])
            log_factor += more
        return Z, log_factor

    def by_column(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, log_slopes = np.empty_like(X), np.empty_like(X)
        for columns, part, change in self.blocks:
            Z[:, part], log_slopes[:, columns] = change.by_column(X[:, columns])
        return Z, log_slopes

    def outputs(self, n_features: int) -> np.ndarray:
        outputs = np.empty(n_features, dtype=np.intp)
        for columns, part, change in self.blocks:
            outputs[columns] = part.start + change.outputs(len(columns))
        return outputs

    def inverse(
        self, Z: np.ndarray, generator: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        X, inside = np.empty((len(Z), self.n_in)), np.ones(len(Z), dtype=bool)
        for columns, part, change in self.blocks:
            X[:, columns], is_inside = change.inverse(Z[:, part], generator)
            inside &= is_inside
        return X, inside


registered.register(ColumnTransformer)(_Blocks)


@registered.register(FrozenEstimator)
def _(transformer: Any) -> ChangeOfVariables:
    return change_of_variables(transformer.estimator)


def _unknown(transformer: Any) -> str:
    """Return the message for a transformer whose Jacobian is not known."""
    return (
        f"the Jacobian of {transformer!r} is not known; expected StandardScaler, MinMaxScaler, "
        "MaxAbsScaler, RobustScaler, PowerTransformer, QuantileTransformer, PCA, a "
        "FunctionTransformer of (log, exp), (log1p, expm1), (arcsinh, sinh), (logit, expit) or an "
        "inverse of these, or a Pipeline or ColumnTransformer of them. For another, give it a method "
        "log_abs_det_jacobian(X) that returns log|det dT/dx| of each row, pass log_abs_det=<that "
        "function>, or register its class with compose.change_of_variables.register."
    )
