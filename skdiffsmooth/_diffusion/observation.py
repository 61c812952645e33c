"""`LinearObservation`, y = A x + noise as a likelihood, and the check of any likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._utils.gaussian import gaussian_log_normalizer
from .._utils.table import column_names
from .._utils.triangular import divide_by_triangle
from .._utils.validation import check_finite, check_real_array

__all__ = ["LinearObservation", "checked_likelihood"]

_LARGEST = 1e12


class LinearObservation:
    """The likelihood of a row x from which y = A x + Gaussian noise was measured.

    Pass it as `likelihood` to `sample` or `log_evidence` of a density. Called with rows, it returns
    their log-likelihoods.

    Parameters
    ----------
    A : array-like of shape (m, n_features)
        Coefficients of the columns in each of the m measurements: ``np.eye(d)`` for noisy values of all
        columns, some of its rows for some columns, a matrix of averages for a blurred image. If it is a
        frame, its column names must be those of the rows, in the same order.
    y : array-like of shape (m,)
        The measured values.
    noise : float or array-like of shape (m,) or (m, m)
        Standard deviation of the noise of all measurements, or of each, in units of `y`; a matrix is
        its covariance. To condition on exact values, use the parameter `given` of `sample`.

    Raises
    ------
    TypeError, ValueError
        If `A`, `y` or `noise` is not finite, or `A` or `y` divided by `noise`; if their shapes do not
        fit, a standard deviation is not above zero, or a covariance is not symmetric and positive
        definite.

    See Also
    --------
    SmoothedScoreDiffusion.log_evidence : The log-density of y under a model and a likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler, LinearObservation
    >>> sum_of_columns = LinearObservation([[1.0, 1.0]], [1.0], noise=0.1)
    >>> sum_of_columns([[0.5, 0.5], [0.5, 0.7]]).round(2)
    array([ 1.38, -0.62])
    >>> kde = KDESampler(0.5).fit([[0.0, 0.0]])
    >>> kde.sample(2000, random_state=0, likelihood=sum_of_columns).mean(axis=0).round(1)
    array([0.5, 0.5])
    """

    def __init__(self, A: Any, y: Any, noise: Any) -> None:
        self._names = column_names(A)
        self.A = check_real_array("A", A, allow_bool=False)
        self.y = check_real_array("y", y, allow_bool=False)
        self.noise = check_real_array("noise", noise, allow_bool=False)
        if self.A.ndim != 2 or 0 in self.A.shape:
            raise ValueError(
                f"A has shape {self.A.shape}; expected (m, n_features), one row for each measurement."
            )
        m = len(self.A)
        if self.y.shape != (m,):
            raise ValueError(
                f"y has shape {self.y.shape}, but A has {m} rows; expected shape ({m},), one value for "
                "each row of A. Observe one y at a time."
            )
        if self.noise.shape not in ((), (m,), (m, m)):
            raise ValueError(
                f"noise has shape {self.noise.shape}; expected a number, {m} standard deviations, or a "
                f"covariance of shape ({m}, {m})."
            )
        for name, values in (("A", self.A), ("y", self.y), ("noise", self.noise)):
            check_finite(name, values, "Leave missing measurements out of A, y and noise.")
        self._factor = self._cholesky(m)
        # Transformed so that the noise is independent and has variance one.
        with np.errstate(over="ignore", invalid="ignore"):
            self.whitened_A = divide_by_triangle(self.A.T, self._factor).T
            self.whitened_y = divide_by_triangle(self.y[None], self._factor)[0]
        if not (np.isfinite(self.whitened_A).all() and np.isfinite(self.whitened_y).all()):
            raise ValueError(
                "A or y divided by noise is not finite; expected values within the floating-point "
                "range. Check the units of A, y and noise."
            )

    def _cholesky(self, m: int) -> np.ndarray:
        """Return the lower triangular factor (m, m) of the covariance of the noise."""
        if self.noise.ndim < 2:
            if not (self.noise > 0).all():
                raise ValueError(
                    f"noise={self.noise.min():g} is out of range; expected standard deviations > 0. For "
                    "exact values pass given={column: value} to sample."
                )
            return np.diag(np.broadcast_to(self.noise, m))
        try:
            if not np.allclose(self.noise, self.noise.T, rtol=1e-8, atol=0.0):
                raise np.linalg.LinAlgError("it is not symmetric")
            return np.linalg.cholesky(self.noise)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"noise of shape ({m}, {m}) is not a covariance: {error}; expected a symmetric positive "
                "definite matrix. Pass standard deviations for independent noise."
            ) from error

    def __call__(self, X: Any) -> np.ndarray:
        """Return the log-likelihood (n,) of rows (n, n_features), in nats."""
        X = check_real_array("X", X)
        self.check_columns(X.shape[-1])
        residual = self.whitened_y - X @ self.whitened_A.T
        log_scale = np.log(np.diag(self._factor)).sum()
        return -0.5 * np.sum(residual**2, axis=1) - gaussian_log_normalizer(len(self.y)) - log_scale

    def check_columns(self, d: int) -> None:
        """Raise an error unless A has d columns."""
        if self.A.shape[1] != d:
            raise ValueError(
                f"A of the likelihood has shape {self.A.shape}, but rows have {d} columns; expected "
                f"shape ({len(self.A)}, {d}), a column of A for each column of X."
            )

    def check_names(self, names: np.ndarray | None) -> None:
        """Raise an error if A is a frame whose columns have other names than those of a density."""
        if self._names is not None and names is not None and list(self._names) != list(names):
            raise ValueError(
                f"A of the likelihood has the columns {list(self._names)!r:.200}, but the density was "
                f"fitted to {list(names)!r:.200}; expected the same names in the same order. Reorder "
                "them, or pass an array."
            )


def checked_likelihood(likelihood: Any, d: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a log-likelihood of rows (n, d) whose values are checked at each call."""
    if not callable(likelihood) or isinstance(likelihood, type):
        raise TypeError(
            f"likelihood={likelihood!r:.100} has type {type(likelihood).__name__}; expected a "
            "LinearObservation, or a function that maps rows (n, n_features) to log-likelihoods (n,)."
        )
    if isinstance(likelihood, LinearObservation):
        likelihood.check_columns(d)

    def log_likelihood(X: np.ndarray) -> np.ndarray:
        values = check_real_array("the value of likelihood(X)", likelihood(X), allow_bool=False)
        if values.shape != (len(X),):
            raise ValueError(
                f"likelihood(X) has shape {values.shape} for X of shape {X.shape}; expected shape "
                f"({len(X)},), one log-likelihood for each row."
            )
        wrong = np.flatnonzero(~(values < _LARGEST))
        if len(wrong):
            raise ValueError(
                f"likelihood(X) is {values[wrong[0]]} for {len(wrong)} of {len(X)} rows (first: "
                f"{np.array2string(X[wrong[0]], threshold=8)}); expected log-likelihoods below "
                f"{_LARGEST:g}, since larger ones would round the density away. Return -inf for rows "
                "that are impossible, and subtract a constant where all values are large."
            )
        return values

    return log_likelihood
