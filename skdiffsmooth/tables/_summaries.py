"""Probabilities, distribution functions, quantiles and marginals of columns, from draws of a density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .._utils.validation import check_integer, check_real, check_real_array
from ._draws import Draws, Estimate

_MOST_DRAWS = 10_000_000
# Fewest draws on each side of a quantile.
_FEWEST_IN_TAIL = 100


class Marginal(NamedTuple):
    """The probabilities of the values or intervals (parts) into which one or two columns are divided.

    `parts` holds a list for each column, whose items `probability` takes as conditions: a level or other
    value, or an interval ``(low, high)`` with None for no bound. `probability` and its standard `error`
    have one axis for each column.
    """

    parts: tuple[list[Any], ...]
    probability: np.ndarray
    error: np.ndarray


def probability(
    model: Any, event: Any, *, given: Any = None, error: float = 0.005, random_state: Any = None
) -> Estimate:
    """Return the probability that columns have some values, or are in some intervals, together.

    Parameters
    ----------
    model : estimator
        A fitted `TableDensity`, or anything else from which `skdiffsmooth.sample` draws: a density of
        arrays, such as `KDESampler`, a classifier, a pipeline or a search.
    event : mapping from column to condition
        All conditions hold together. A tuple ``(low, high)`` is an interval with both of its ends, None
        being no bound; any other object is a single value, and a list or set means any of its values.
        Intervals of a `Periodic` column may contain the end of the period: ``(22, 2)``. Dates without
        a time zone are in UTC where those of the column have one.
    given : mapping from column to value, default=None
        Condition on these columns, as ``model.sample(given=...)`` does.
    error : float, default=0.005
        Largest standard error: ``0.25 / error ** 2`` rows are drawn, 10 000 by default.
    random_state : int, RandomState or None, default=None
        Source of the draws. None is the `random_state` of the model.

    Returns
    -------
    Estimate
        The fraction of the draws, and its standard error, which is above zero also where no draw or
        every draw is in the event.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError, ValueError
        If a column or level is unknown, an interval is empty, or a column of exact numbers is compared
        to a single value, which has probability zero.

    Notes
    -----
    The error is that of finitely many draws; it does not include the difference between the model and
    the distribution of the data. Cost: that of `sample`. If numbers are given, rows of a `TableDensity`
    are resampled from proposals and may be equal; the effective sample size of the proposals is the
    number of draws, which takes some three evaluations of the density for each draw.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.tables import TableDensity, probability
    >>> rng = np.random.RandomState(0)
    >>> sex = rng.choice(["female", "male"], size=300)
    >>> frame = pd.DataFrame({"sex": sex, "income": rng.lognormal(7 + 0.2 * (sex == "male"), 1)})
    >>> model = TableDensity(density=KDESampler()).fit(frame)
    >>> value, error = probability(model, {"income": (None, 1000), "sex": "female"}, random_state=0)
    >>> frequency = ((frame["income"] <= 1000) & (frame["sex"] == "female")).mean()
    >>> bool(abs(value - frequency) < 0.05), bool(error < 0.005)
    (True, True)
    """
    if not isinstance(event, Mapping):
        raise TypeError(
            f"event={event!r:.100} has type {type(event).__name__}; expected a mapping from columns to "
            "conditions, such as {'income': (0, 1000), 'sex': 'female'}."
        )
    if not event:
        raise ValueError("event is empty; expected a condition on at least one column.")
    draws = Draws.of(model, _number_of_draws(error), given, random_state, "event", event)
    inside = np.ones(draws.n, dtype=bool)
    for name, condition in event.items():
        inside &= draws.column(name).holds(condition)
    return _fraction(np.count_nonzero(inside), draws.n)


def cdf(
    model: Any,
    column: Any,
    values: Any,
    *,
    given: Any = None,
    error: float = 0.005,
    random_state: Any = None,
) -> Estimate:
    """Return the probability that a column is at most some values.

    Parameters
    ----------
    model : estimator
        See `probability`.
    column : label or int
        A column of numbers, dates or ordered levels. Periodic columns are ordered from their origin.
    values : array-like
        Numbers, dates or levels of the column.
    given, error, random_state
        See `probability`; `error` is that of each probability.

    Returns
    -------
    Estimate
        Probabilities in the shape of `values`, and their standard errors.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As `probability`; also if the column has no order.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.tables import cdf
    >>> model = KDESampler().fit(np.random.RandomState(0).normal(size=(500, 2)))
    >>> cdf(model, 0, [-1, 0, 1], random_state=0).value.round(1).tolist()
    [0.2, 0.5, 0.9]
    """
    draws = Draws.of(model, _number_of_draws(error), given, random_state, "column", [column])
    drawn = draws.column(column)
    drawn.check_order()
    positions = drawn.positions(values)
    counts = np.searchsorted(np.sort(drawn.values), positions + drawn.tolerance, side="right")
    return _fraction(counts, draws.n)


def quantile(
    model: Any,
    column: Any,
    q: Any,
    *,
    given: Any = None,
    error: float = 0.005,
    random_state: Any = None,
) -> Estimate:
    """Return quantiles of a column: the least value that it does not exceed with probability `q`.

    Parameters
    ----------
    model : estimator
        See `probability`.
    column : label or int
        A column of numbers or dates. Periodic columns are ordered from their origin.
    q : array-like of float
        Probabilities above 0 and below 1.
    given, error, random_state
        See `probability`; `error` is that of the probability, not of the quantile. At least so many rows
        are drawn that about a hundred are on each side of each quantile.

    Returns
    -------
    Estimate
        Quantiles in the shape of `q`, dates as datetime64 in UTC, and their standard errors in units of
        the column: half of the distance between the quantiles at q plus and minus its standard error.
        The error is zero where both are the same value.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As `probability`; also if the column has levels, or `q` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.tables import quantile
    >>> model = KDESampler().fit(np.random.RandomState(0).normal(size=(500, 2)))
    >>> value, error = quantile(model, 0, 0.5, random_state=0)
    >>> bool(abs(value) < 0.2), bool(error < 0.02)
    (True, True)
    """
    q = check_real_array("q", q, allow_bool=False)
    if not (q.size and np.all((q > 0) & (q < 1))):
        raise ValueError(
            f"q={q.tolist()!r:.100} is out of range; expected probabilities in (0, 1)."
        )
    n = max(_number_of_draws(error), math.ceil(_FEWEST_IN_TAIL / min(q.min(), 1 - q.max())))
    draws = Draws.of(model, _checked_number(n, "q"), given, random_state, "column", [column])
    drawn = draws.column(column)
    if drawn.levels is not None:
        raise ValueError(
            f"column {drawn.name!r} has levels; expected a column of numbers or dates. "
            "Use marginal, or cdf where levels have an order."
        )
    ordered = np.sort(drawn.values)

    def at(probabilities: np.ndarray) -> Any:
        index = np.ceil(draws.n * probabilities - 1e-9).astype(np.intp) - 1
        return ordered[np.clip(index, 0, draws.n - 1)]

    step = np.sqrt(q * (1 - q) / draws.n)
    return Estimate(at(q), (at(q + step) - at(q - step)) / 2)


def marginal(
    model: Any,
    columns: Any,
    *,
    n_bins: int = 10,
    given: Any = None,
    error: float = 0.005,
    random_state: Any = None,
) -> Marginal:
    """Return the distribution of one column, or of two: probabilities of values or intervals.

    The density of the marginal is ``model.score_samples(X, columns=...)``.

    Parameters
    ----------
    model : estimator
        See `probability`.
    columns : list of one or two columns
        Labels or indices.
    n_bins : int, default=10
        Number of intervals of a column of numbers or dates: of equal width from its 1 % to its 99 %
        quantile, and one below and one above. Levels and atoms are separate parts, and so is each value
        if no more than `n_bins` different ones were drawn.
    given, error, random_state
        See `probability`; `error` is that of each probability.

    Returns
    -------
    Marginal
        Parts, probabilities and standard errors.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As `probability`; also if there are more than two columns.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skdiffsmooth.tables import TableDensity, marginal
    >>> rng = np.random.RandomState(0)
    >>> kind = rng.choice(["cat", "dog"], size=200, p=[0.3, 0.7])
    >>> frame = pd.DataFrame({"kind": kind, "chipped": rng.uniform(size=200) < 0.5})
    >>> parts, probabilities, error = marginal(TableDensity().fit(frame), ["kind"], random_state=0)
    >>> parts, probabilities.round(1).tolist()
    ((['cat', 'dog'],), [0.3, 0.7])
    """
    check_integer("n_bins", n_bins, minimum=2)
    draws = Draws.of(model, _number_of_draws(error), given, random_state, "columns", columns)
    if len(columns) not in (1, 2):
        raise ValueError(
            f"columns={columns!r:.100} has {len(columns)} columns; expected one or two. Use probability "
            "for the values of more columns."
        )
    # In the order of the call.
    parts, labels = zip(*(draws.column(name).parts(n_bins) for name in columns), strict=True)
    shape = tuple(map(len, parts))
    counts = np.bincount(np.ravel_multi_index(labels, shape), minlength=math.prod(shape))
    return Marginal(tuple(parts), *_fraction(counts.reshape(shape), draws.n))


def _number_of_draws(error: Any) -> int:
    """Return how many draws make the standard error of every probability at most `error`."""
    return _checked_number(
        math.ceil(0.25 / check_real("error", error, minimum=1e-100) ** 2), "error"
    )


def _checked_number(n: int, name: str) -> int:
    """Return a number of draws, after checking that it is not too large."""
    if n > _MOST_DRAWS:
        raise ValueError(
            f"{name} needs {n:.3g} draws, more than {_MOST_DRAWS}; expected at most that many. Pass a "
            "larger error, or probabilities further from 0 and 1."
        )
    return max(n, 100)


def _fraction(counts: Any, n: int) -> Estimate:
    """Return fractions of n draws, and standard errors that are above zero (Agresti and Coull 1998)."""
    value = counts / n
    smoothed = (counts + 1) / (n + 2)
    return Estimate(value, np.sqrt(smoothed * (1 - smoothed) / n))
