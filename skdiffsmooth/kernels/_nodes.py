"""Quadrature nodes for the standard normal distribution, from which kernels compute their offsets."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, roots_genlaguerre, roots_hermitenorm
from scipy.stats import qmc

Rule = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]


def default_n_nodes(dimension: int) -> int:
    """Return the default number of nodes in k dimensions: the least power of two >= max(64, 4 k).

    Sobol points are most evenly distributed if their number is a power of two, and 2 k nodes are enough
    for exact covariances.
    """
    return 2 ** math.ceil(math.log2(max(64, 4 * dimension)))


# Tables of nodes are kept for later calls: together at most 256 of 128 KiB. Larger ones take longer to
# use than to make.
_MOST_TABLES, _LARGEST_TABLE = 256, 2**14


@functools.lru_cache(maxsize=8)
def _scrambled(dimension: int, seed: int) -> qmc.Sobol:
    """Return a scrambled Sobol sequence, kept for later calls, since scrambling is slow."""
    return qmc.Sobol(dimension, scramble=True, rng=np.random.default_rng(seed))


def gaussian_nodes(dimension: int, n_nodes: int, level: int, seed: int) -> np.ndarray:
    """Return equally weighted nodes (n_nodes, dimension) for the standard normal distribution.

    Level k has the k-th block of one scrambled Sobol sequence (A. B. Owen, Randomly permuted
    (t,m,s)-nets and (t,s)-sequences, 1995), mapped by the normal quantile function. Mirror images are
    added, so that the mean and all odd moments are zero. From ``n_nodes = 2 * dimension`` on the nodes
    are transformed to unit covariance, and the rule integrates polynomials of degree three exactly.
    `n_nodes` is even, and `seed` is that of the scrambling.
    """
    if n_nodes * dimension <= _LARGEST_TABLE:
        return _kept_nodes(dimension, n_nodes, level, seed)
    return _mirrored_nodes(dimension, n_nodes, level, seed)


def _mirrored_nodes(dimension: int, n_nodes: int, level: int, seed: int) -> np.ndarray:
    """Return the nodes (n_nodes, dimension) that `gaussian_nodes` describes."""
    half = n_nodes // 2
    if dimension == 0:
        return np.zeros((n_nodes, 0))
    # Only blocks of a power of two are nets; for other numbers the first points of a block are used.
    block = 2 ** math.ceil(math.log2(half))
    sequence = copy.deepcopy(_scrambled(dimension, seed))
    if level:
        sequence.fast_forward(level * block)
    # Half a unit of the sequence's resolution is added, since the quantile of zero is infinite.
    normal = ndtri(sequence.random(block)[:half] + 2.0**-31)
    if half >= dimension:
        # Of all sets of nodes with unit covariance, the polar factor is the nearest to these nodes.
        left, _, right = np.linalg.svd(normal, full_matrices=False)
        normal = np.sqrt(half) * left @ right
    return np.concatenate([normal, -normal])


@functools.lru_cache(maxsize=_MOST_TABLES)
def _kept_nodes(dimension: int, n_nodes: int, level: int, seed: int) -> np.ndarray:
    """Return nodes (n_nodes, dimension) that all callers share, so they cannot be written to."""
    nodes = _mirrored_nodes(dimension, n_nodes, level, seed)
    nodes.flags.writeable = False
    return nodes


def gaussian_frames(
    dimension: int, n_nodes: int, level: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (M, r) for the standard normal distribution of dimension r, and weights (M,).

    A frame is +-rho e_j, j = 1..r, turned by a random rotation (the QR decomposition of normal numbers,
    signs fixed by R), which differs between levels. rho^2 / 2 are abscissae of generalised
    Gauss-Laguerre quadrature of order r / 2 - 1. Weights sum to one, odd moments are zero,

        E xi xi^T = I,    E xi xi^T |xi|^2 = (r + 2) I,

    and other moments of order four are those of the normal distribution on average over rotations. All
    radii have the same rotations, since their errors then largely cancel. M is `n_nodes`, rounded up to
    whole frames.
    """
    # In many dimensions lengths vary little, and rotations matter more than radii.
    fewest_radii, fewest_rotations = (3, 1) if dimension <= 10 else (2, 2)
    # More radii where there are more frames, so that the rule converges.
    frames = n_nodes / (2 * dimension)
    n_radii = fewest_radii + max(0, math.floor(math.log(frames / 4, 4) + 1e-9))
    n_rotations = max(fewest_rotations, math.ceil(n_nodes / (2 * dimension * n_radii)))
    if 2 * dimension**2 * n_radii * n_rotations <= _LARGEST_TABLE:
        return _kept_frames(dimension, n_radii, n_rotations, level, seed)
    return _rotated_frames(dimension, n_radii, n_rotations, level, seed)


def _rotated_frames(
    dimension: int, n_radii: int, n_rotations: int, level: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames that `gaussian_frames` describes, all radii of a rotation together."""
    rng = np.random.default_rng([seed, level])
    rotations, upper = np.linalg.qr(rng.standard_normal((n_rotations, dimension, dimension)))
    rotations *= np.sign(np.diagonal(upper, axis1=1, axis2=2))[:, None, :]
    half_squares, masses = roots_genlaguerre(n_radii, dimension / 2 - 1)
    radii = np.sqrt(2 * half_squares)
    half = (radii[:, None, None] * rotations.transpose(0, 2, 1)[:, None]).reshape(-1, dimension)
    weights = np.tile(np.repeat(masses / masses.sum(), dimension), n_rotations)
    weights /= 2 * dimension * n_rotations
    return np.concatenate([half, -half]), np.concatenate([weights, weights])


@functools.lru_cache(maxsize=_MOST_TABLES)
def _kept_frames(
    dimension: int, n_radii: int, n_rotations: int, level: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames and weights that all callers share, so they cannot be written to."""
    nodes, weights = _rotated_frames(dimension, n_radii, n_rotations, level, seed)
    nodes.flags.writeable = weights.flags.writeable = False
    return nodes, weights


def _sobol(dimension: int, n_nodes: int, level: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return gaussian_nodes(dimension, n_nodes, level, seed), np.full(n_nodes, 1 / n_nodes)


def _gauss_hermite(
    dimension: int, n_nodes: int, level: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest grid of at most `n_nodes` nodes, at least two on each axis, with weights."""
    if dimension > 3:
        raise ValueError(
            "node_rule='gauss-hermite' is a grid for 1 to 3 directions, and the kernel acts along "
            f"{dimension}; use node_rule='sobol'."
        )
    # The root of an exact power may be rounded down.
    per_axis = max(2, math.floor(n_nodes ** (1 / max(dimension, 1)) + 1e-9))
    # numpy's hermegauss divides by zero from some 380 nodes on.
    positions, axis_weights = roots_hermitenorm(per_axis)
    grid = np.meshgrid(*[positions] * dimension, indexing="ij")
    nodes = np.stack([axis.ravel() for axis in grid], axis=1) if dimension else np.zeros((1, 0))
    weights = np.ones(1)
    for _ in range(dimension):
        weights = np.multiply.outer(weights, axis_weights).ravel()
    weights /= weights.sum()
    # Nodes whose weight is below rounding are dropped: they are the farthest ones, and would widen the
    # range of the engine's exponents.
    kept = weights > np.finfo(np.float64).eps * weights.max()
    return nodes[kept], weights[kept] / weights[kept].sum()


NODE_RULES: dict[str, Rule] = {"sobol": _sobol, "gauss-hermite": _gauss_hermite}


@dataclass(frozen=True)
class NodeRule:
    """A rule for nodes; `n_nodes` is even for "sobol" and an upper bound for "gauss-hermite"."""

    name: str
    n_nodes: int
    seed: int
    most_frames: int = 10
    """Largest dimension in which the nodes of "sobol" may be frames (`gaussian_frames`)."""

    def normal(self, dimension: int, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return nodes (M, k) for N(0, I_k) at one noise level, and weights; grids need k <= 3."""
        return NODE_RULES[self.name](dimension, self.n_nodes, level, self.seed)

    def frames(self, dimension: int, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return frames (M, k) for the standard normal distribution of dimension k, and weights."""
        return gaussian_frames(dimension, self.n_nodes, level, self.seed)
