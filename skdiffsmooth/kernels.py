"""Smoothing kernels: where the score is averaged, as quadrature nodes frozen for each noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

__all__ = ["GaussianKernel", "default_n_nodes", "gaussian_nodes"]


def default_n_nodes(dimension: int) -> int:
    """Return the number of nodes that keeps the quadrature error of a log-density small.

    Parameters
    ----------
    dimension : int
        Dimension k of the offsets.

    Returns
    -------
    int
        The power of two from max(64, 4 k) up: blocks of a Sobol sequence are nets at powers of two,
        and the second moments can only be matched from 2 k nodes on.
    """
    return 2 ** math.ceil(math.log2(max(64, 4 * dimension)))


def gaussian_nodes(dimension: int, n_nodes: int, level: int, seed: int) -> np.ndarray:
    """Return equally weighted nodes for the standard normal law, one set for each noise level.

    Blocks of one scrambled Sobol sequence, one block a level, through the normal quantile function,
    with their mirror images (so that the mean is zero and every odd moment vanishes) and, from
    ``n_nodes = 2 * dimension`` on, turned and stretched to have unit covariance exactly: the rule
    then integrates every polynomial of degree three exactly.

    Parameters
    ----------
    dimension : int
        Dimension k; may be zero.
    n_nodes : int
        Number M of nodes, even.
    level : int
        Which noise level the set is for.
    seed : int
        Seed of the scrambling.

    Returns
    -------
    ndarray of shape (n_nodes, dimension)

    References
    ----------
    A. B. Owen, Randomly permuted (t,m,s)-nets and (t,s)-sequences, 1995.
    """
    half = n_nodes // 2
    if dimension == 0:
        return np.zeros((n_nodes, 0))
    # Only blocks of a power of two are nets; the first points of one are the next best thing.
    block = 2 ** math.ceil(math.log2(half))
    sequence = qmc.Sobol(dimension, scramble=True, rng=np.random.default_rng(seed))
    if level:
        sequence.fast_forward(level * block)
    # Half a unit of the sequence's resolution keeps the quantile of zero out.
    normal = ndtri(sequence.random(block)[:half] + 2.0**-31)
    if half >= dimension:
        # The polar factor: of all sets with unit covariance, the one nearest to these nodes.
        left, _, right = np.linalg.svd(normal, full_matrices=False)
        normal = np.sqrt(half) * left @ right
    return np.concatenate([normal, -normal])


@dataclass(frozen=True)
class GaussianKernel:
    """Gaussian offsets xi = sigma F z, with z standard normal in k dimensions.

    Parameters
    ----------
    sigma : float
        Smoothing scale, in units of X. Zero: the score is not smoothed at all.
    factor : ndarray of shape (r, k)
        The factor F: the identity smooths in every direction, k columns along k directions.
    n_nodes : int
        Number of nodes M, even.
    seed : int
        Seed of the node sets.
    """

    sigma: float
    factor: np.ndarray
    n_nodes: int
    seed: int

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the quadrature rule of one noise level.

        Parameters
        ----------
        level : int
            Which noise level.

        Returns
        -------
        offsets : ndarray of shape (M, r)
            With mean zero to rounding and, from M = 2 k on, covariance sigma^2 F F^T to rounding.
        weights : ndarray of shape (M,)
            Positive, summing to one.
        """
        dimension, rank = self.factor.shape
        if self.sigma == 0 or rank == 0:
            return np.zeros((1, dimension)), np.ones(1)
        standard = gaussian_nodes(rank, self.n_nodes, level, self.seed)
        offsets = self.sigma * standard @ self.factor.T
        return offsets, np.full(self.n_nodes, 1 / self.n_nodes)
