"""Queries of the estimators that follow a flow: checked rows go to the `DiffusionModel`."""

from __future__ import annotations

import math
from abc import ABC
from typing import Any, Literal, overload

import numpy as np
from sklearn.base import BaseEstimator

from .._utils.estimator import DistanceDensityMixin, on_one_fit
from .._utils.validation import check_flag, check_real, check_size
from .conditional import draw_given_columns, log_density_of_columns
from .joint_density import JointDensity
from .model import DiffusionModel
from .posterior import PosteriorMixin
from .settings import Resources, parse_resources


class FlowDensity(PosteriorMixin, DistanceDensityMixin, BaseEstimator, ABC):
    """An estimator whose `fit` stores a `DiffusionModel` as ``model_``, which computes all queries."""

    model_: DiffusionModel
    metric_: Any

    @overload
    def score_samples(self, X: Any, *, given: Any = None, columns: Any = None) -> np.ndarray: ...

    @overload
    def score_samples(
        self, X: Any, *, given: Any = None, columns: Any = None, return_error: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...

    @on_one_fit
    def score_samples(
        self, X: Any, *, given: Any = None, columns: Any = None, return_error: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the log-density of each row under the distribution that `sample` draws from.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        given : collection of int or str, default=None
            Columns, by label or index: the density is conditional on their values in X.
        columns : collection of int or str, default=None
            Columns whose density is returned. The rest is integrated out, and its values in X, which may
            be missing (NaN), have no effect. None is all columns that are not in `given`.
        return_error : bool, default=False
            Whether to return the estimated error, too. With `given` or `columns` it is the
            standard error of the Monte-Carlo sums. Otherwise it is the error of the solver, which
            ``solver="adaptive"`` always computes; other solvers are run once more with steps of half the
            size, for three times the cost. Where a network's divergence is estimated from random probes,
            their standard error is added in squares; the probes are the same for all rows, so these
            errors do not average out in a mean.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log-densities in nats, normalised: the density integrates to one over its columns, up to the
            error.
        error : ndarray of shape (n_samples,)
            Estimated absolute error of each in nats, if `return_error`. The error of the nodes is not
            part of it: ``node_error_`` estimates that, and ``error_`` the total error at some rows,
            where the estimator has these attributes.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError
            If `given` or `columns` is not a collection of columns, or `return_error` is no boolean.
        ValueError
            If X is not finite or has another number of features, if the solver is stochastic, if the
            smoothing follows a manifold whose projection has no derivative, if the score of a network
            diverges along the flow, or if `given` or `columns` does not fit the columns of X, or is
            passed with `shards`.

        Warns
        -----
        UserWarning
            If given values are far from all training rows, or an error exceeds a quarter of a nat.

        Notes
        -----
        Each of the solver's field evaluations takes about ``(r + 2) * n_samples * n_nodes *
        n_points`` multiply-adds, r the dimension of the data's affine hull, and ``2 * n_samples *
        n_nodes * n_points`` with the isotropic Gaussian kernel in 3 to 64 dimensions, unless the
        notes of the class say otherwise. Temporaries stay within `memory_limit`.

        With `given` or `columns` the log-density of each distinct row of given values is an integral of
        the joint density over the other columns: over one column by quadrature, at some hundred rows,
        over more by importance weights of 64 to 4096 rows (errors: docs/evidence/conditional.md).

        `sample` with `given` draws from this conditional distribution. With one free column draws are
        those of the density interpolated between the nodes. With more they are resampled by importance
        weights from four times as many proposals, and at least 64; if any is chosen twice, all draws for
        these values are moved by Metropolis steps.
        """
        with_error = check_flag("return_error", return_error)
        X, scored, given_columns = self._check_columns(X, given, columns)
        resources = self._resources()
        if len(scored) == X.shape[1]:
            log_density, error = self.model_.log_density(X, resources, with_error=with_error)
        else:
            joint = self._joint_density(resources)
            log_density, error = log_density_of_columns(
                joint, X, scored, given_columns, resources.memory_limit
            )
        self._check_result("log-densities", log_density[:, None])
        return (log_density, error) if with_error else log_density

    @on_one_fit
    def grad_log_density(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the smoothed score, the gradient of the averaged log-density, at noise variance t.

        This is the field that the flow follows and, where `energy` is defined, minus its gradient at the
        same `t`. With sigma > 0 it is not the gradient of `score_samples`, which is the log-density at
        the end of the flow through all noise levels. The field of a network need not be a gradient.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In nats per unit of X.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, or a network was not trained at this noise.
        """
        X = self._check_query(X)
        return self.model_.score_at(X, self._noise_scale(t), self._resources())

    @on_one_fit
    def laplacian_log_density(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the divergence of `grad_log_density`, a Laplacian if the score is a gradient.

        It is computed in closed form, from the trace of the posterior covariance or from the derivative
        of a network; no ODE is solved. `skdiffsmooth.model_selection.hyvarinen_score` computes the
        score-matching loss from it and `grad_log_density`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats per squared unit of X, over all columns: each direction in which the data have no
            extent adds -1 / t.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X or `t` does not fit, as in `grad_log_density`, the metric is not Euclidean, or the
            smoothing follows a manifold whose projection has no derivative.

        Examples
        --------
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> model = SmoothedScoreDiffusion(0.5, 0.1).fit([[0.0, 0.0]])
        >>> model.laplacian_log_density([[3.0, 4.0]])
        array([-8.])
        """
        X = self._check_query(X)
        self.model_.embedding.check_laplacian(self.metric_)
        return self.model_.laplacian_at(X, self._noise_scale(t), self._resources())

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        rows = self.model_.draw(n, rng, self._resources())
        self._check_result("samples", rows)
        return rows

    def _draw_given(
        self, columns: np.ndarray, values: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        resources = self._resources()
        joint = self._joint_density(resources)
        return draw_given_columns(joint, columns, values, rng, resources.memory_limit)

    def _joint_density(self, resources: Resources) -> JointDensity:
        """Return the density of all columns, for marginals and conditionals."""
        return JointDensity.of_model(self.model_, resources)

    def _prior(self, what: str) -> tuple[JointDensity, float]:
        """See `PosteriorMixin`."""
        resources = self._resources()
        return self._joint_density(resources), resources.memory_limit

    def _breaks_relations(self, X: Any) -> np.ndarray:
        return self.model_.embedding.metric.columns.breaks_relations(self._check_query(X))

    def _check_range(self, name: str, rows: np.ndarray) -> None:
        """See `DistanceDensityMixin`."""
        with np.errstate(over="ignore"):
            scaled = self.model_.embedding.metric.columns.scaled(rows)
        check_size(name, scaled, " scales of the columns")

    def _resources(self) -> Resources:
        """Return the device, dtype and memory limit that the present parameters name."""
        return parse_resources(self.get_params(deep=False), self.model_.dtype)

    def _noise_scale(self, t: Any) -> float:
        """Return the noise scale sqrt(t) after checking `t`; the bandwidth if `t` is None."""
        if t is None:
            return self.model_.bandwidth
        return math.sqrt(check_real("t", t)) / self.model_.unit

    def _check_result(self, what: str, rows: np.ndarray) -> None:
        """Raise an error if results of some rows are not finite; scores in closed form always are."""
