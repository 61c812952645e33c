"""Quadrature nodes for the standard normal law, from which every kernel makes its offsets."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, roots_hermitenorm
from scipy.stats import qmc

__all__ = ["NODE_RULES", "NodeRule", "default_n_nodes", "gaussian_nodes"]

Rule = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]


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


@functools.lru_cache(maxsize=8)
def _scrambled(dimension: int, seed: int) -> qmc.Sobol:
    """Return a sequence at its start, to be copied: scrambling takes longer than a level's block."""
    return qmc.Sobol(dimension, scramble=True, rng=np.random.default_rng(seed))


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
    sequence = copy.deepcopy(_scrambled(dimension, seed))
    if level:
        sequence.fast_forward(level * block)
    # Half a unit of the sequence's resolution keeps the quantile of zero out.
    normal = ndtri(sequence.random(block)[:half] + 2.0**-31)
    if half >= dimension:
        # The polar factor: of all sets with unit covariance, the one nearest to these nodes.
        left, _, right = np.linalg.svd(normal, full_matrices=False)
        normal = np.sqrt(half) * left @ right
    return np.concatenate([normal, -normal])


def _sobol(dimension: int, n_nodes: int, level: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return gaussian_nodes(dimension, n_nodes, level, seed), np.full(n_nodes, 1 / n_nodes)


def _gauss_hermite(
    dimension: int, n_nodes: int, level: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest grid of at most so many nodes, or of two an axis; the same for all levels."""
    if dimension > 3:
        raise ValueError(
            "node_rule='gauss-hermite' is a grid for 1 to 3 directions, and the kernel acts along "
            f"{dimension}; use node_rule='sobol'."
        )
    # Half a node too many is no node: cube roots round.
    per_axis = max(2, math.floor(n_nodes ** (1 / max(dimension, 1)) + 1e-9))
    # numpy's hermegauss divides by zero from some 380 nodes on.
    places, shares = roots_hermitenorm(per_axis)
    grid = np.meshgrid(*[places] * dimension, indexing="ij")
    nodes = np.stack([axis.ravel() for axis in grid], axis=1) if dimension else np.zeros((1, 0))
    weights = np.ones(1)
    for _ in range(dimension):
        weights = np.multiply.outer(weights, shares).ravel()
    weights /= weights.sum()
    # Far nodes whose weight is below rounding would only widen the range of the exponents.
    kept = weights > np.finfo(np.float64).eps * weights.max()
    return nodes[kept], weights[kept] / weights[kept].sum()


NODE_RULES: dict[str, Rule] = {
    "sobol": _sobol,
    "gauss-hermite": _gauss_hermite,
}


@dataclass(frozen=True)
class NodeRule:
    """A way to choose nodes, how many, and a seed.

    Parameters
    ----------
    name : {"sobol", "gauss-hermite"}
        See the parameter `node_rule` of the estimators.
    n_nodes : int
        Number M of nodes; even for "sobol", a bound for "gauss-hermite".
    seed : int
        Seed of the node sets.
    """

    name: str
    n_nodes: int
    seed: int

    def normal(self, dimension: int, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return nodes for the standard normal law in so many dimensions, at one noise level.

        Parameters
        ----------
        dimension : int
            Dimension k.
        level : int
            Which noise level.

        Returns
        -------
        nodes : ndarray of shape (M, k)
        weights : ndarray of shape (M,)
            Positive, summing to one.

        Raises
        ------
        ValueError
            If the rule has no nodes in so many dimensions.
        """
        return NODE_RULES[self.name](dimension, self.n_nodes, level, self.seed)
