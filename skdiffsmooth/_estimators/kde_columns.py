"""Marginals and conditionals of a kernel density estimate, in closed form or by quadrature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from .._engine.radial_kernels import RADIAL_KERNELS
from .._engine.radial_marginal import log_marginal_kernel, sample_free_offsets
from .._utils.draws import choose_in_rows, draw_given
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.kernel_weights import nearest_squares
from .._utils.memory import slices_within
from .._utils.periods import reduced
from .._utils.support import warn_of_far_values


@dataclass(frozen=True, eq=False)
class ColumnKernels:
    """Kernels at weighted points; some columns can be scored or drawn given values of others."""

    points: np.ndarray  # Shape (N, d)
    weights: np.ndarray  # Shape (N,)
    kernel: str
    bandwidth: np.ndarray
    """Bandwidth (d,) of each column, the same in all for kernels that are not Gaussian."""
    periods: np.ndarray | None
    """Periods (d,), 0 where a column has none; None where no column has one."""
    memory_limit: float

    def log_density(self, X: np.ndarray, scored: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return log-densities (n,) of columns `scored` of rows X (n, d), given columns `given`."""
        self._warn_of_support(X[:, given], given)
        log_density = np.empty(len(X))
        both = np.concatenate([given, scored])
        log_volume = np.sum(np.log(self.bandwidth[scored]))
        # Distances in single columns and distances from all points are in memory at the same time.
        bytes_per_row = 64 * len(self.points) * (1 if self.kernel == "gaussian" else 64)
        for part in slices_within(len(X), bytes_per_row, self.memory_limit):
            if self.kernel == "gaussian":
                logits = np.log(self.weights) - 0.5 * self._squares(X[part], given)[0]
                relative, nearest = self._squares(X[part], scored)
                log_joint = logsumexp(logits - 0.5 * relative, axis=1) - 0.5 * nearest
                log_joint -= gaussian_log_normalizer(len(scored))
                log_given = logsumexp(logits, axis=1)
            else:
                log_joint = logsumexp(self._log_marginals(X[part], both), axis=1)
                log_given = np.zeros(1)
                if len(given):
                    log_given = logsumexp(self._log_marginals(X[part], given), axis=1)
                    self._check_inside(log_given)
            log_density[part] = log_joint - log_given - log_volume
        return log_density

    def draw(
        self, columns: np.ndarray, values: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        """Return rows (n, d) drawn given values (n, k) of some columns."""
        self._warn_of_support(values, columns)
        n, d = len(values), self.points.shape[1]
        scale = self.bandwidth[columns]
        free = np.setdiff1d(np.arange(d), columns)
        if self.kernel == "gaussian":
            points = self.points[:, columns] / scale
            periods = self._periods_in_bandwidths(columns)
            centers = draw_given(
                rng, points, np.log(self.weights), values / scale, self.memory_limit, periods
            )
            offsets = rng.standard_normal((n, d))[:, free]
        else:
            X = np.zeros((n, d))
            X[:, columns] = values
            centers, uniform = np.empty(n, dtype=np.intp), rng.uniform(size=n)
            for part in slices_within(n, 4096 * len(self.points), self.memory_limit):
                log_masses = self._log_marginals(X[part], columns)
                self._check_inside(logsumexp(log_masses, axis=1))
                masses = np.exp(log_masses - log_masses.max(axis=1, keepdims=True))
                centers[part] = choose_in_rows(masses, np.arange(len(masses)), uniform[part])
            rho = np.linalg.norm((values - self.points[centers][:, columns]) / scale, axis=1)
            offsets = sample_free_offsets(RADIAL_KERNELS[self.kernel], rng, rho, len(free))
        rows = self.points[centers]
        rows[:, free] += self.bandwidth[free] * offsets
        if self.periods is not None:
            rows = reduced(rows, self.periods)
        rows[:, columns] = values
        return rows

    def _squares(self, X: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `nearest_squares` from rows X to the points in some columns, in bandwidths."""
        scale, periods = self.bandwidth[columns], self._periods_in_bandwidths(columns)
        return nearest_squares(X[:, columns] / scale, self.points[:, columns] / scale, periods)

    def _periods_in_bandwidths(self, columns: np.ndarray) -> np.ndarray | None:
        """Return the periods (k,) of some columns in bandwidths, 0 for columns without one, or None."""
        return None if self.periods is None else self.periods[columns] / self.bandwidth[columns]

    def _log_marginals(self, X: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return log w_i plus the log of the kernel's marginal density in some columns, shape (n, N)."""
        relative, nearest = self._squares(X, columns)
        rho, d = np.sqrt(relative + nearest[:, None]), self.points.shape[1]
        kernel = RADIAL_KERNELS[self.kernel]
        if len(columns) == d:
            profile = kernel.log_profile(torch.from_numpy(rho)).numpy() - kernel.log_normalizer(d)
        else:
            profile = log_marginal_kernel(kernel, rho, d, d - len(columns))
        return np.log(self.weights) + profile

    def _check_inside(self, log_given: np.ndarray) -> None:
        """Raise an error if the log-density (n,) of given values is -inf."""
        outside = np.flatnonzero(log_given == -np.inf)
        if len(outside):
            raise ValueError(
                f"given values of {len(outside)} rows (first: row {outside[0]}) have density zero under "
                f"the compact kernel={self.kernel!r}, so the other columns have no distribution. Use "
                "kernel='gaussian', a larger bandwidth, or drop those rows."
            )

    def _warn_of_support(self, values: np.ndarray, columns: np.ndarray) -> None:
        """Warn where values (n, k) of given columns are far from all points."""
        if len(columns):
            scale = self.bandwidth[columns]
            centers, values = self.points[:, columns] / scale, values / scale
            periods = self._periods_in_bandwidths(columns)
            if periods is not None:
                values = reduced(values, periods)
            distances = cKDTree(centers, boxsize=periods).query(values)[0]
            warn_of_far_values(distances, centers)
