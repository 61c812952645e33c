"""Weighted draws of proposals, or, where one column is free, nodes of a quadrature rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, logsumexp, ndtri
from scipy.stats import qmc

from .._utils.draws import choose_in_rows
from .conditional_proposal import ConditionalKernels

# Independent scramblings of the quasi-random numbers, from which standard errors are computed. Drawing
# ends when the error is small, so an error that is small by chance would end it too early. Errors are
# therefore at least the fraction `_LEAST_RATIO` of the error of half as many draws. With 8 scramblings
# and no such bound true errors were 1.5 times the reported ones (rms), and up to 5.5 times.
_N_SCRAMBLINGS, _LEAST_RATIO = 16, 0.5
# With one free column, nodes are added beyond the lowest and the highest draw, at these multiples of the
# distance between the two.
TAIL_NODES = 4.0 ** np.arange(6)


@dataclass(frozen=True, eq=False)
class Pool:
    """Draws for n rows of given values, with importance weights; unused entries have weight zero.

    With one free column the draws of each row are in increasing order. Symbols: `conditional.py`.
    """

    kernels: list[ConditionalKernels]
    coordinates: np.ndarray  # Shape (n, m, d)
    log_target: np.ndarray  # Log p(a_j, b), (n, m)
    log_proposals: np.ndarray  # Log-densities (n, m, n_kernels) of the proposals
    cdfs: np.ndarray  # With one free column, distribution functions (n, m, n_kernels)
    log_ratio: np.ndarray  # Log w_j, (n, m)
    position: np.ndarray
    """With one free column, the distribution function (n, m) of the mixture of proposals."""
    cell_errors: np.ndarray
    """With one free column, relative errors (n, m - 1) of the rule between neighbouring nodes."""
    log_masses: np.ndarray  # Logarithms (n, m) of what each draw contributes to p(b)
    log_marginal: np.ndarray  # Log p(b), (n,)
    error: np.ndarray  # Standard error (n,) of log p(b), in nats
    effective: np.ndarray  # Effective numbers (n,) of draws

    @classmethod
    def empty(cls, n: int, m: int, d: int, kernels: list[ConditionalKernels]) -> Pool:
        """Return a pool without draws."""
        low = np.full((n, m), -np.inf)
        parts = np.full((n, m, len(kernels)), -np.inf)
        return cls(
            kernels,
            np.zeros((n, m, d)),
            low,
            parts,
            np.full_like(parts, np.inf),
            low.copy(),
            np.full((n, m), np.inf),
            np.zeros((n, m - 1)),
            low.copy(),
            np.full(n, -np.inf),
            np.full(n, np.inf),
            np.zeros(n),
        )

    def add(
        self,
        active: np.ndarray,
        stop: int,
        drawn: np.ndarray,
        log_target: np.ndarray,
        kernels: list[ConditionalKernels],
    ) -> None:
        """Add draws (k, m, d) of rows `active` (k,) before index `stop`."""
        part = slice(stop - drawn.shape[1], stop)
        self.coordinates[active, part] = drawn
        self.log_target[active, part] = log_target
        for k, each in enumerate(kernels):
            self.log_proposals[active, part, k] = each.log_density(drawn)
            if each.centers.shape[1] == 1:
                self.cdfs[active, part, k] = each.cdf(drawn)

    def midpoints(self, active: np.ndarray, stop: int, n: int) -> np.ndarray:
        """Return the midpoints (k, n, d) of the cells of largest errors among the first `stop` nodes."""
        worst = np.argsort(-self.cell_errors[active, : stop - 1], axis=1, kind="stable")[
            :, :n, None
        ]
        nodes = self.coordinates[active, :stop]
        middle = (nodes[:, 1:] + nodes[:, :-1]) / 2
        return np.take_along_axis(middle, worst, axis=1)

    def update(self, active: np.ndarray, stop: int, weights: np.ndarray) -> np.ndarray:
        """Return each kernel's share (k, n_kernels) of p(b), and update the results of rows `active`.

        The first `stop` draws are used; `weights` (k, n_kernels) are those of the kernels.
        """
        used = active, slice(stop)
        with np.errstate(divide="ignore"):
            log_parts = self.log_proposals[used] + np.log(weights)[:, None]
        log_mixture = logsumexp(log_parts, axis=2)
        log_ratio = self.log_target[used] - log_mixture
        if self.kernels[0].centers.shape[1] == 1:
            position = np.einsum("nmk,nk->nm", self.cdfs[used], weights)
            order = np.argsort(position, axis=1, kind="stable")
            position = np.take_along_axis(position, order, axis=1)
            log_ratio = np.take_along_axis(log_ratio, order, axis=1)
            with np.errstate(divide="ignore"):
                log_masses = log_ratio + np.log(_quadrature(position))
            log_marginal = logsumexp(log_masses, axis=1)
            self.position[used] = position
            for array in (self.log_target, self.log_proposals, self.cdfs, self.coordinates):
                indices = order if array.ndim == 2 else order[:, :, None]
                array[used] = np.take_along_axis(array[used], indices, axis=1)
            log_parts = np.take_along_axis(log_parts, order[:, :, None], axis=1)
            log_mixture = np.take_along_axis(log_mixture, order, axis=1)
            free = self.kernels[0].free(self.coordinates[used])[:, :, 0]
            ratio = np.exp(log_ratio - log_marginal[:, None])
            self.cell_errors[active, : stop - 1] = _cell_errors(position, free, ratio)
            error = self.cell_errors[active, : stop - 1].sum(axis=1)
        else:
            log_masses = log_ratio - math.log(stop)
            log_marginal = logsumexp(log_masses, axis=1)
            ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
            means = ratio.reshape(len(active), -1, _N_SCRAMBLINGS).mean(axis=1)
            error = means.std(axis=1, ddof=1) / math.sqrt(_N_SCRAMBLINGS) / means.mean(axis=1)
            before = self.error[active]
            error = np.maximum(error, np.where(np.isfinite(before), _LEAST_RATIO * before, 0.0))
            # The logarithm of a mean is biased.
            log_marginal += np.minimum(error, 0.5) ** 2 / 2
        self.log_ratio[used], self.log_masses[used] = log_ratio, log_masses
        self.log_marginal[active], self.error[active] = log_marginal, error
        masses = np.exp(log_masses - logsumexp(log_masses, axis=1, keepdims=True))
        self.effective[active] = 1 / np.sum(masses**2, axis=1)
        return np.einsum("nm,nmk->nk", masses, np.exp(log_parts - log_mixture[:, :, None]))


class BaseDraws:
    """Quasi-random numbers for n draws of each row; the first of them do not depend on n."""

    def __init__(self, n: int, n_free: int, degrees: float, seed: int | tuple[int, ...]) -> None:
        per_scrambling = n // _N_SCRAMBLINGS
        generators = np.random.default_rng(seed).spawn(_N_SCRAMBLINGS)
        engines = [qmc.Sobol(n_free + 2, scramble=True, rng=each) for each in generators]
        uniform = np.stack([engine.random(per_scrambling) for engine in engines], axis=1)
        uniform = uniform.reshape(n, n_free + 2).clip(1e-12, 1 - 1e-12)
        self.choice = uniform[:, 0]
        self.noise = ndtri(uniform[:, 1:-1])
        self.stretch = np.sqrt(degrees / chdtri(degrees, uniform[:, -1]))


def propose(
    kernels: list[ConditionalKernels], weights: np.ndarray, base: BaseDraws, part: slice
) -> np.ndarray:
    """Return draws (n, m, d) from mixtures of proposals with weights (n, n_kernels)."""
    upper = weights.cumsum(axis=1)
    upper[:, -1] = 1.0
    choice, noise, stretch = base.choice[part], base.noise[part], base.stretch[part]
    which = (choice[:, None] >= upper[:, None, :]).sum(axis=2)
    lower = upper - weights
    drawn = np.empty((len(weights), len(choice), len(kernels[0].scale)))
    for k, each in enumerate(kernels):
        row, j = np.nonzero(which == k)
        uniform = (choice[j] - lower[row, k]) / weights[row, k]
        drawn[row, j] = each.draw(row, uniform.clip(0, 1 - 1e-12), noise[j], stretch[j])
    return drawn


def _cell_errors(t: np.ndarray, free: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return the relative errors (n, m - 1) of the trapezoidal rule between nodes t (n, m) in [0, 1].

    `ratio` (n, m) is the integrand, of integral one. Errors are large where it is far from linear, where
    it changes much, and where nodes `free` (n, m), in units of the kernel's width, are far apart.
    """
    lengths = np.diff(t, axis=1)
    both = np.maximum(lengths[:, 1:] + lengths[:, :-1], np.finfo(np.float64).tiny)
    linear = (ratio[:, :-2] * lengths[:, 1:] + ratio[:, 2:] * lengths[:, :-1]) / both
    bent = np.pad(np.abs(ratio[:, 1:-1] - linear) * both / 2, ((0, 0), (1, 1)))
    masses = lengths * (ratio[:, 1:] + ratio[:, :-1]) / 2
    distant = masses * np.minimum(np.diff(free, axis=1) ** 2 / 24, 0.5)
    change = lengths * np.abs(np.diff(ratio, axis=1)) / 8
    return np.maximum(bent[:, 1:], bent[:, :-1]) / 4 + change + distant


def tail_nodes(kernel: ConditionalKernels, drawn: np.ndarray) -> np.ndarray:
    """Return nodes (n, k, d) far below and far above draws (n, m, d) of the one free column."""
    free = kernel.free(drawn)[:, :, 0]
    lowest, highest = free.min(axis=1, keepdims=True), free.max(axis=1, keepdims=True)
    steps = (highest - lowest) * TAIL_NODES
    nodes = np.concatenate([lowest - steps, highest + steps], axis=1)
    given = np.repeat(kernel.given, nodes.shape[1], axis=0)
    return kernel.at(given, nodes.reshape(-1, 1)).reshape(*nodes.shape, -1)


def _quadrature(t: np.ndarray) -> np.ndarray:
    """Return trapezoidal weights on [0, 1] at increasing nodes t (n, m), zero at infinite ones."""
    edges = np.pad((t[:, 1:] + t[:, :-1]) / 2, ((0, 0), (1, 1)), constant_values=(0.0, np.inf))
    return np.diff(np.minimum(edges, 1.0), axis=1)


def interpolated(pool: Pool, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return coordinates (m, d) of draws for `rows` (m,) of a density that is linear between nodes."""
    ratio = np.exp(pool.log_ratio - pool.log_ratio.max(axis=1, keepdims=True))
    # Unused entries have infinite positions.
    ends = np.where(np.isfinite(pool.position), pool.position, pool.position[:, :1])
    lengths = np.maximum(np.diff(ends, axis=1), 0.0)
    cell = choose_in_rows(lengths * (ratio[:, 1:] + ratio[:, :-1]), rows, uniform[:, 0])
    left, right = pool.log_target[rows, cell], pool.log_target[rows, cell + 1]
    larger = np.maximum(left, right)
    left, right = np.exp(left - larger), np.exp(right - larger)
    root = np.sqrt(left**2 + uniform[:, 1] * (right**2 - left**2))
    fraction = uniform[:, 1] * (left + right) / (left + root)
    start, end = pool.coordinates[rows, cell], pool.coordinates[rows, cell + 1]
    return start + fraction[:, None] * (end - start)
