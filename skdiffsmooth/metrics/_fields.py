"""Distances between score fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._checks import check_returned, check_rows
from ._estimate import Estimate


def fisher_divergence(X: Any, score_p: Any, score_q: Any) -> Estimate:
    """Return the Fisher divergence, the mean over rows of p of the squared difference of two scores.

    ``F(p||q) = E_p | grad log p - grad log q |^2``.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Draws of p, at least two. With draws of another distribution the mean is over that distribution.
    score_p, score_q : callable or fitted estimator
        ``score(X)`` of shape (n, d), or an estimator with `grad_log_density`, in nats per unit of X.
        To compare estimators at another noise variance: ``lambda X: model.grad_log_density(X, t=t)``.
        An estimator receives X as it is, with its column names; a function receives a float64 array.

    Returns
    -------
    Estimate
        In nats squared per squared unit of X. The terms of its effective sample size are the squared
        differences.

    Raises
    ------
    NotFittedError
        If an estimator was not fitted.
    TypeError
        If a score is neither callable nor an estimator with `grad_log_density`.
    ValueError
        If X is not numeric and finite, has one row, or a score has another shape or is not finite.

    See Also
    --------
    skdiffsmooth.model_selection.hyvarinen_score : Up to a constant the same, without the score of p.

    Notes
    -----
    Scores hardly depend on the weights of modes far apart: two mixtures that differ only in these have
    a divergence near zero. Directions of small variance, in which scores are large, contribute most.

    Costs one evaluation of each field.

    References
    ----------
    A. Hyvarinen, Estimation of Non-Normalized Statistical Models by Score Matching, JMLR 6, 2005.

    Examples
    --------
    For N(0, I) and N(m, I) the divergence is the squared length of m.

    >>> import numpy as np
    >>> from skdiffsmooth.metrics import fisher_divergence
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> fisher_divergence(X, lambda x: -x, lambda x: [3.0, 4.0] - x).value
    25.0
    """
    rows = check_rows("X", X, minimum=2)
    first, second = (
        _field(name, score, X, rows) for name, score in (("score_p", score_p), ("score_q", score_q))
    )
    terms = np.sum((first - second) ** 2, axis=1)
    mean = float(terms.mean())
    largest = terms.max()
    # If all differences are zero, all terms are equal.
    size = (
        float(np.sum(terms / largest) ** 2 / np.sum((terms / largest) ** 2))
        if largest
        else len(terms)
    )
    return Estimate(mean, float(terms.std(ddof=1)) / math.sqrt(len(terms)), float(size))


def _field(name: str, score: Any, X: Any, rows: np.ndarray) -> np.ndarray:
    """Return the scores (n, d) at the rows, from a function or an estimator."""
    if hasattr(score, "grad_log_density"):
        values = score.grad_log_density(X)
    elif callable(score):
        values = score(rows.copy())
    else:
        raise TypeError(
            f"{name}={score!r} is not a score field; expected a function of rows, or a fitted estimator "
            "with grad_log_density such as SmoothedScoreDiffusion."
        )
    return check_returned(name, values, rows.shape, "")
