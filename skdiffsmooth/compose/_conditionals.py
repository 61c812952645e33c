"""Marginals and conditionals of any fitted density, and of mixtures of several."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._diffusion.conditional import draw_given_columns, log_density_of_columns
from .._diffusion.joint_density import N_CENTERS, JointDensity
from .._utils.draws import choose_in_rows
from .._utils.given import resolve_given_values
from .._utils.rows import take
from ._changes import ChangeOfVariables, chain, with_names
from ._members import check_fills_space, log_density_of, naming, unwrap
from ._unconditional import MAX_ROUNDS, draw, draw_labelled

# Rows, and their classes if the density is a classifier.
Drawn = tuple[np.ndarray, np.ndarray | None]

# Memory limit of densities that have none of their own, in MiB.
_MEMORY_LIMIT = 1024.0


def score_columns(
    label: str, fitted: Any, X: np.ndarray, scored: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Return the log-density (n,) of some columns of rows X (n, d) given others.

    `scored` and `given` are indices of columns. If `score_samples` has no parameter `columns`, the
    joint density is integrated (`_diffusion/conditional.py`). `label` names the density in messages.
    """
    fitted = unwrap(fitted)
    with naming(label):
        if _has_columns(fitted):
            names, X = _names(fitted), _with_names(fitted, X)
            return fitted.score_samples(
                X, columns=[names[j] for j in scored], given=[names[j] for j in given]
            )
        return log_density_of_columns(
            _joint_density(label, fitted), X, scored, given, _MEMORY_LIMIT
        )[0]


def draw_given(
    label: str,
    fitted: Any,
    columns: np.ndarray,
    values: np.ndarray,
    generator: np.random.RandomState,
) -> Drawn:
    """Return rows (n, d) drawn given values (n, k) of `columns`, and classes (n,) or None."""
    fitted = unwrap(fitted)
    with naming(label):
        if _has_columns(fitted):
            names = _names(fitted)
            given = {names[j]: value for j, value in zip(columns, values.T, strict=True)}
            drawn = fitted.sample(len(values), generator, given=given)
            return drawn if isinstance(drawn, tuple) else (drawn, None)
        joint = _joint_density(label, fitted)
        return draw_given_columns(joint, columns, values, generator, _MEMORY_LIMIT), None


def draw_with_given(fitted: Any, given: Any, n: int, generator: np.random.RandomState) -> Drawn:
    """Return n rows drawn given the user's `given`, and classes (n,) of a classifier or None."""
    check_is_fitted(fitted)
    fitted = unwrap(fitted)
    d = getattr(fitted, "n_features_in_", None)
    if d is None:
        raise TypeError(
            f"{type(fitted).__name__} has no n_features_in_, so given={given!r:.100} cannot be checked; "
            "expected a density that was fitted to rows of columns."
        )
    labels = getattr(fitted, "feature_names_in_", getattr(fitted, "_column_labels_", None))
    columns, values = resolve_given_values(given, n, labels, d)
    if not len(columns):
        return draw_labelled(fitted, n, generator)
    if isinstance(fitted, Pipeline):
        change = chain(fitted, fitted.steps[:-1])
        return draw_given_through(change, fitted.steps[-1][1], columns, values, generator, d)
    return draw_given("density", fitted, columns, values, generator)


def score_mixture(
    members: list[tuple[str, Any]],
    log_weights: np.ndarray,
    X: np.ndarray,
    scored: np.ndarray,
    given: np.ndarray,
) -> np.ndarray:
    """Return the log-density (n,) of some columns given others, under a mixture of densities.

    The members are first weighted by their densities at the given values: a difference of two joint
    log-densities would be inaccurate far from all rows.
    """
    if not len(given):
        return logsumexp(marginals(members, X, scored) + log_weights, axis=1)
    responsibilities = _responsibilities_given(members, log_weights, X, given)
    log_densities = np.full(responsibilities.shape, -np.inf)
    for k, (label, fitted) in enumerate(members):
        own = np.flatnonzero(responsibilities[:, k])
        if len(own):
            rows = take(X, own)
            log_densities[own, k] = score_columns(label, fitted, rows, scored, given)
    return logsumexp(log_densities, axis=1, b=responsibilities)


def draw_from_mixture(
    members: list[tuple[str, Any]],
    log_weights: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    generator: np.random.RandomState,
    d: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (n, d) drawn given values (n, k) of columns, and the member (n,) of each row."""
    distinct, which = np.unique(values, axis=0, return_inverse=True)
    X = np.zeros((len(distinct), d))
    X[:, columns] = distinct
    responsibilities = _responsibilities_given(members, log_weights, X, columns)
    member = choose_in_rows(responsibilities, which.ravel(), generator.uniform(size=len(values)))
    rows = np.empty((len(values), d))
    for k in np.unique(member):
        label, fitted = members[k]
        own = member == k
        rows[own] = draw_given(label, fitted, columns, values[own], generator)[0]
    return rows, member


def _responsibilities_given(
    members: list[tuple[str, Any]], log_weights: np.ndarray, X: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Return the probability (n, n_members) of each member given the values of X in some columns."""
    log_masses = marginals(members, X, given) + log_weights
    outside = (log_masses == -np.inf).all(axis=1)
    if outside.any():
        raise ValueError(
            f"given values of {outside.sum()} conditions (first: row {outside.argmax()}) have density "
            "zero under every member. Check their units, or add a member with unbounded support."
        )
    return softmax(log_masses, axis=1)


def draw_from_tables(
    table: Any,
    members: list[tuple[str, Any]],
    log_weights: np.ndarray,
    n: int,
    generator: np.random.RandomState,
    given: Any,
) -> tuple[Any, np.ndarray]:
    """Return n rows of a mixture of densities of tables, and the index (n,) of the member of each.

    `table` is the `TableColumns` of the members; `given` maps columns to values, or is None.
    """
    log_masses, given = np.broadcast_to(log_weights, (n, len(members))), given or {}
    if len(given):
        conditions = table.decode(table.encode_given(given, n))
        log_masses = log_masses + np.column_stack(
            [log_density_of(label, fitted, conditions) for label, fitted in members]
        )
    masses = np.exp(log_masses - log_masses.max(axis=1, keepdims=True))
    which = choose_in_rows(masses, np.arange(n), generator.uniform(size=n))
    order, drawn = np.argsort(which, kind="stable"), []
    for k in np.unique(which):
        own = which == k
        values = {
            name: value if np.ndim(value) == 0 else np.asarray(value)[own]
            for name, value in given.items()
        }
        drawn.append(unwrap(members[k][1]).sample(int(own.sum()), generator, given=values))
    return table.concat(drawn, np.argsort(order)), which


def draw_given_through(
    change: ChangeOfVariables,
    fitted: Any,
    columns: np.ndarray,
    values: np.ndarray,
    generator: np.random.RandomState,
    d: int,
) -> Drawn:
    """Return rows (n, d) drawn given values (n, k), by inverting `change`, and classes (n,) or None."""
    X = np.zeros((len(values), d))
    X[:, columns] = values
    Z, log_slopes = change.by_column(X)
    outside = np.flatnonzero((log_slopes[:, columns] == -np.inf).any(axis=1))
    if len(outside):
        raise ValueError(
            f"given values of {len(outside)} rows (first: row {outside[0]}) are outside the domain of "
            f"{change.transformer!r}; expected values that it maps to finite numbers."
        )
    outputs = change.outputs(d)[columns]
    missing, classes = np.arange(len(values)), None
    for _ in range(MAX_ROUNDS):
        drawn, labels = draw_given("density", fitted, outputs, Z[missing][:, outputs], generator)
        rows, inside = change.inverse(drawn, generator)
        X[missing[inside]] = rows[inside]
        if labels is not None:
            classes = np.resize(labels, len(values)) if classes is None else classes
            classes[missing[inside]] = labels[inside]
        missing = missing[~inside]
        if not len(missing):
            X[:, columns] = values
            return X, classes
    raise ValueError(
        f"{len(missing)} of {len(values)} rows were not drawn inside the range of "
        f"{change.transformer!r} in {MAX_ROUNDS} rounds: given these values nearly all mass is "
        "outside. Use another transformer, or a narrower density."
    )


def marginals(members: list[tuple[str, Any]], X: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return log-densities (n, n_members) of some columns of rows X."""
    none = np.array([], dtype=np.intp)
    if len(columns) == np.shape(X)[1]:
        parts = [
            log_density_of(label, fitted, _with_names(unwrap(fitted), X))
            for label, fitted in members
        ]
    else:
        parts = [score_columns(*member, X, columns, none) for member in members]
    return np.column_stack(parts)


def _has_columns(fitted: Any) -> bool:
    return "columns" in inspect.signature(fitted.score_samples).parameters


def _names(fitted: Any) -> list[Any]:
    """Return the column labels of a density of this package, or indices if it has none."""
    labels = fitted._column_labels()
    return list(range(fitted.n_features_in_)) if labels is None else list(labels)


def _with_names(fitted: Any, X: Any) -> Any:
    if getattr(fitted, "_table_", None) is not None:
        return X
    return with_names(X, getattr(fitted, "feature_names_in_", None))


def _joint_density(label: str, fitted: Any) -> JointDensity:
    """Return a model's joint density for numerical integration, with proposals at draws of the model."""
    if isinstance(fitted, Pipeline):
        raise TypeError(
            "a Pipeline has no density of the columns of X; expected a TransformedDensity with the same "
            "steps."
        )
    check_fills_space(label, fitted)
    rows = draw(fitted, N_CENTERS, np.random.RandomState(0))
    return JointDensity.of_draws(
        lambda X: log_density_of(label, fitted, _with_names(fitted, X)), rows
    )
