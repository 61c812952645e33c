"""What a fitted diffusion answers at one noise scale: scores, energies, on how many rows they rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.utils.parallel import Parallel, delayed

from .._coordinates.embedding import Embedding
from .._engine.hierarchy import PointHierarchy
from .._utils.backend import Backend
from .._utils.memory import slices
from .._utils.shards import resolve_shards
from .._utils.validation import check_real
from ..scores import Attributable, Potential, ScoreSchedule
from .fitting import FittedDiffusion, roomy_backend
from .settings import resolve_n_jobs

__all__ = ["NO_DERIVATIVE", "NoisedData"]

NO_DERIVATIVE = (
    "the projection on this manifold has no derivative, or none that torch's forward mode can follow: a "
    "PointCloud's is constant but for jumps. The law that is sampled then has no density that could be "
    "computed. Use a manifold with projection_derivative or projection_factors, such as Curve or "
    "LocalPolynomialManifold of skdiffsmooth.manifolds, write its project in torch, or sample only."
)


class NoisedData(FittedDiffusion):
    """The data seen through noise, its score smoothed by a kernel."""

    def grad_log_density(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the smoothed score, the gradient of the averaged log-density, at noise variance t.

        This is the field that the flow follows and, where there is an `energy`, minus its gradient at
        the default `t`. With sigma > 0 it is not the gradient of `score_samples`, whose density is
        where the flow through all noise levels ends.

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
            If X does not fit or `t` is not a positive number.
        """
        X = self._check_query(X)
        scale = self._noise_scale(t)
        queries, residual = self._split(X)
        schedule = self._schedule()
        found = schedule.at_scale(scale)(schedule.backend.tensor(queries), scale**2)
        return self._embedding.gradient(schedule.backend.array(found), residual, scale**2)

    def laplacian_log_density(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the divergence of `grad_log_density`: where that is a gradient, the Laplacian.

        In closed form, from the spread of the posterior; no ODE is solved. With `grad_log_density` it
        makes the score-matching loss of `skdiffsmooth.model_selection.hyvarinen_score`.

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
            extent counts -1 / t.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, the metric is not Euclidean, or the
            smoothing follows a manifold whose projection has no derivative.

        Examples
        --------
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> model = SmoothedScoreDiffusion(0.5, 0.1).fit([[0.0, 0.0]])
        >>> model.laplacian_log_density([[3.0, 4.0]])
        array([-8.])
        """
        X = self._check_query(X)
        if not self.kernel_.has_divergence:
            raise ValueError(NO_DERIVATIVE)
        self._embedding.check_laplacian(self.metric_)
        scale = self._noise_scale(t)
        queries, _ = self._split(X)
        schedule = self._schedule()
        x = schedule.backend.tensor(queries)
        _, divergence = schedule.at_scale(scale).with_divergence(x, scale**2)
        return schedule.backend.array(divergence) - self.hull_.codimension / scale**2

    def energy(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return minus the averaged log-density at noise variance t.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Energies in nats. exp(-energy) is not normalised unless sigma = 0.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, or the smoothing depends on where it acts
            (learned tangents, known curved manifolds): its field is then no gradient.
        """
        X = self._check_query(X)
        scale = self._noise_scale(t)
        queries, residual = self._split(X)
        schedule = self._schedule()
        x = schedule.backend.tensor(queries)
        field = schedule.at_scale(scale)
        if not isinstance(field, Potential):
            raise ValueError(
                "energy is not defined for a kernel that depends on where it acts: its field is no "
                "gradient. Use score_samples for log-densities, grad_log_density for the field."
            )
        within = field.log_density(x, scale**2)
        return -schedule.backend.array(within) - self._beside_flow(residual, scale)

    def effective_sample_size(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return how many rows the smoothed score rests on at each query.

        One over the sum of the squared weights, sum_m q_m W_i(x + xi_m) of row i: one where a single
        row decides and the score draws back to it, the number of rows at large noise. Smoothing raises
        it; how much it steadies the score is for `score_variance` to say.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Between one and the number of distinct rows.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, or the model has a `base` or `shards`.

        See Also
        --------
        skdiffsmooth.diagnostics.bulk_ess : That of Markov chains, another quantity.

        Notes
        -----
        ``n_samples * n_nodes * n_points`` exponentials, in tiles within `memory_limit`. Points are not
        merged, whatever `tolerance`; equal rows are one of larger weight.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> X = np.random.RandomState(0).normal(size=(100, 2))
        >>> for sigma in (0.0, 0.5):
        ...     model = SmoothedScoreDiffusion(0.1, sigma).fit(X)
        ...     print(model.effective_sample_size([[0.0, 0.0]]).round(1))
        [1.2]
        [29.4]
        """
        return self._of_influence(X, t)[0]

    def score_variance(self, X: Any, t: float | None = None) -> np.ndarray:
        """Return the variance of `grad_log_density` over data sets of as many rows.

        An estimate from the rows at hand, to first order (the delta method): with u_i the derivative of
        the posterior mean, averaged over the nodes, in the logarithm of the weight of row i, the sum of
        the u_i^2 / t^2. Bandwidth, sigma, metric and learned tangents are held. It
        is too small where single nodes see a handful of rows only (docs/kernels.md has figures).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Queries.
        t : float, default=None
            Noise variance, in squared units of the metric; None means ``bandwidth_ ** 2``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Of each component, in squared nats per squared unit of X. Zero in directions in which the
            data have no extent.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If X does not fit, `t` is not a positive number, or the model has a `base` or `shards`.

        Notes
        -----
        The cost of `effective_sample_size`, and ``n_samples * n_nodes * n_points`` multiply-adds for
        each dimension of the data's affine hull.

        References
        ----------
        B. Efron, Nonparametric standard errors and confidence intervals, Canadian Journal of Statistics
        9(2), 1981: the infinitesimal jackknife.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiffsmooth import SmoothedScoreDiffusion
        >>> X = np.random.RandomState(0).normal(size=(100, 2))
        >>> for sigma in (0.0, 0.5):
        ...     model = SmoothedScoreDiffusion(0.1, sigma).fit(X)
        ...     print(model.score_variance([[0.0, 0.0]]).round(2))
        [[ 3.5  16.15]]
        [[0.28 0.45]]
        """
        return self._of_influence(X, t)[1]

    def _noise_scale(self, t: Any) -> float:
        """Return the square root of a noise variance, or of the default, the same to all processes."""
        scale = self.bandwidth_ if t is None else math.sqrt(check_real("t", t))
        resolve_shards(self.shards).check_same("t", scale)
        return scale

    def _of_influence(self, X: Any, t: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Return effective sample sizes (n,), and variances (n, d) of the score's components."""
        X = self._check_query(X)
        scale = self._noise_scale(t)
        if self.shards is not None or self.base_ is not None:
            raise ValueError(
                "effective_sample_size and score_variance count training rows, and need all of them in "
                f"one place, not shards={self.shards!r} or base={self.base!r}; fit with both None."
            )
        found = self._in_parallel(self._influence_within, self._split(X)[0], scale=scale)
        return found[:, 0], found[:, 1:]

    def _influence_within(self, queries: np.ndarray, *, scale: float) -> np.ndarray:
        schedule = self._schedule(merged=False)
        backend, field = schedule.backend, schedule.at_scale(scale)
        assert isinstance(field, Attributable)
        # Pulls along the columns of X, through the map that takes scores there.
        axes = backend.tensor(self._embedding.axes)
        found = np.empty((len(queries), 1 + axes.shape[1]))
        numbers_a_query = 4 * len(self.points_) * (1 + len(axes) + axes.shape[1])
        at_once = int(schedule.memory_limit * 2**20 / 8) // numbers_a_query
        for rows in slices(len(queries), at_once):
            weights, pulls = field.influence(backend.tensor(queries[rows]), scale**2)
            variance = (pulls @ axes).square().sum(1) / scale**4
            sizes = 1 / weights.square().sum(1, keepdim=True)
            found[rows] = backend.array(torch.cat([sizes, variance], dim=1))
        return found

    def _in_parallel(self, work: Any, *arrays: np.ndarray, **shared: Any) -> np.ndarray:
        """Split rows over `n_jobs` workers; every result is of one row, whoever computes it."""
        if self.shards is not None:
            # Each process is a worker already, and all must make the same exchanges.
            return work(*arrays, **shared)
        n_parts = min(effective_n_jobs(resolve_n_jobs(self.n_jobs)), len(arrays[0]))
        parts = zip(*(np.array_split(array, n_parts) for array in arrays), strict=True)
        done = Parallel(n_jobs=self.n_jobs)(delayed(work)(*part, **shared) for part in parts)
        return np.concatenate(done)

    def _schedule(
        self, left_out: np.ndarray | None = None, *, merged: bool = True
    ) -> ScoreSchedule:
        """Bring the fitted arrays to the device. Nothing is kept there between calls."""
        backend = roomy_backend(
            Backend.from_params(self.device, self.dtype), self.hierarchy_, self.noise_levels_
        )
        hierarchy, exclude = self.hierarchy_, None
        if left_out is not None or not merged:
            # Merged points cannot be left out, or counted, one by one.
            hierarchy = PointHierarchy.of(hierarchy.points, hierarchy.weights, 0.0, self.bandwidth_)
        if left_out is not None:
            exclude = torch.from_numpy(left_out).to(backend.device)
        return ScoreSchedule(
            self.noise_levels_,
            hierarchy,
            self.kernel_,
            backend,
            check_real("memory_limit", self.memory_limit, hint="It is in MiB."),
            exclude,
            resolve_shards(self.shards),
            self.base_,
        )

    def _check_query(self, X: Any) -> np.ndarray:
        shards = resolve_shards(self.shards)
        X = shards.together(super()._check_query, X)
        self._check_shards()
        self._check_same(shards, "rows of X, or parameters,", X)
        return X

    def _check_shards(self) -> None:
        if self.shards != self.shards_:
            raise ValueError(
                f"shards={self.shards!r}, but the model was fitted with shards={self.shards_!r}, which "
                "says where its rows are; set it back, or fit again."
            )
        if self.shards is not None:
            self._check_solver_of_shards()

    @property
    def _embedding(self) -> Embedding:
        return Embedding(self.coordinates_, self.hull_)

    def _split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the hull coordinates of rows in the metric, and what sticks out of the hull there."""
        return self._embedding.split(X)

    def _beside_flow(self, residual: np.ndarray, scale: float) -> np.ndarray:
        return self._embedding.log_density_outside_hull(residual, scale)
