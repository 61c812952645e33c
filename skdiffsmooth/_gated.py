"""The learned kernel: each cell of the data smooths along its own tangent, and gates blend the cells.

The data are divided into K cells of mass pi_k, mean m_k, tangent U_k and thickness t_k. The offsets of
a cell have scale sigma along its tangent and, across it, twice the thickness of the data there: with
D_k(x) the posterior mean averaged over the nodes xi of cell k,

    xi = [ c_k I + (sigma - c_k) U_k U_k^T ] z,    c_k = min(sigma, 2 t_k),
    s(x) = sum_k p_k(x) s_k(x),    s_k(x) = (D_k(x) - x) / v,
    div s = sum_k [ p_k (tr_k / v - r) / v + grad p_k . s_k ].

The gates p_k are responsibilities of equal spheres, from which a small share is taken off,

    r_k = softmax_k( log pi_k - |x - m_k|^2 / 2 s^2 ),   p_k = (r_k - e)_+ / sum_j (r_j - e)_+,

so that all but a few are zero, and a cell whose gate is closed is left out exactly, not nearly: the
field is continuous and the divergence is its own. The gates do not depend on the noise, which makes
no difference to the likelihood and keeps them closed where the noise is large, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans

from ._backend import Backend
from ._posterior import Nodes, Posterior
from .kernels import gaussian_nodes

__all__ = ["Cells", "GatedKernel", "GatedScore", "default_n_cells"]

# Offsets across the tangent, in units of the thickness. Without any, the noise that the data have there
# is learnt by heart: half a nat is lost on a noisy circle in ten dimensions. From 1 to 3 that loss
# shrinks, and so does the gain on curved surfaces.
_ACROSS = 2.0

# The share e of a responsibility below which a gate is closed, in units of 1 / K: never all of them.
_CLOSED = 0.05

# Points in a cell for each dimension of the tangent, and neighbours of its mean that say where the
# tangent is, for each dimension and one more. Of three, six and twelve points the fewer, the better,
# as long as there are enough; of 2, 4 and 8 neighbours 4 were the best.
_POINTS_PER_CELL = 4
_NEIGHBORS = 4
_MOST_CELLS = 32

# k-means takes distances as differences of squares, and cannot tell points apart that are closer than
# the root of this, in units of the spread of all.
_ROUNDING = 1e-14


def default_n_cells(n_points: int, n_components: int) -> int:
    """Return a number of cells that follows a curved manifold, and has the points to see it.

    Parameters
    ----------
    n_points : int
        Number of distinct points.
    n_components : int
        Dimension of the tangents.

    Returns
    -------
    int
        One for every four points and dimension, from 1 to 32.
    """
    return min(max(n_points // (_POINTS_PER_CELL * max(n_components, 1)), 1), _MOST_CELLS)


@dataclass(frozen=True)
class Cells:
    """Coarse cells of the data, with the tangent and the thickness of each.

    Parameters
    ----------
    masses : ndarray of shape (K,)
        Weights of the points in each; positive, summing to one.
    means : ndarray of shape (K, r)
        Their means.
    width : float
        Standard deviation s of the spheres between which the gates decide, in units of the points;
        positive.
    tangents : ndarray of shape (K, r, k)
        Orthonormal columns.
    thickness : ndarray of shape (K,)
        Standard deviation of the points about the tangent, in each direction across it.
    """

    masses: np.ndarray
    means: np.ndarray
    width: float
    tangents: np.ndarray
    thickness: np.ndarray

    def __len__(self) -> int:
        return len(self.masses)

    @classmethod
    def of(
        cls,
        points: np.ndarray,
        weights: np.ndarray,
        n_components: int,
        n_cells: int | None = None,
        n_neighbors: int | None = None,
    ) -> Cells:
        """Divide points by k-means and find tangents by local principal components.

        Nothing is random and nothing depends on the order of the points: k-means starts from halves
        of halves.

        Parameters
        ----------
        points : ndarray of shape (N, r)
            Distinct points, in coordinates that turn with the data.
        weights : ndarray of shape (N,)
            Positive, summing to one.
        n_components : int
            Dimension k of the tangents; from r on there is one cell, whose tangent is everything.
        n_cells : int, optional
            Number of cells at most; None takes `default_n_cells`.
        n_neighbors : int, optional
            Number of points nearest to a cell's mean that its tangent is fitted to, k + 1 at least;
            None takes 4 (k + 1).

        Returns
        -------
        Cells
        """
        dimension = points.shape[1]
        if n_components >= dimension:
            mean = weights @ points
            return cls(np.ones(1), mean[None], 1.0, np.eye(dimension)[None], np.zeros(1))
        if n_cells is None:
            n_cells = default_n_cells(len(points), n_components)
        if n_neighbors is None:
            n_neighbors = _NEIGHBORS * (n_components + 1)
        start = _halves(points, weights, n_cells)
        found = KMeans(len(start), init=start, n_init=1).fit(points, sample_weight=weights)
        _, label = np.unique(found.labels_, return_inverse=True)
        masses = np.bincount(label, weights)
        sums = np.stack([np.bincount(label, weights * x) for x in points.T], axis=1)
        means = sums / masses[:, None]
        squares = np.sum((means[:, None] - means) ** 2, axis=2)
        to_nearest = np.sort(squares, axis=1)[:, 1:2].sum(1)
        n_neighbors = max(n_neighbors, n_components + 1)
        tangents, thickness = zip(
            *(_tangent(points, weights, mean, n_components, n_neighbors) for mean in means),
            strict=True,
        )
        # The spread of a uniform law as wide as the cells are apart; with one cell it has no say.
        width = np.sqrt(masses @ to_nearest / 12) if len(means) > 1 else 1.0
        return cls(
            masses / masses.sum(), means, float(width), np.stack(tangents), np.array(thickness)
        )


class _Part(NamedTuple):
    """Some of the points, their mean, their inertia about it and their main axis."""

    members: np.ndarray
    mean: np.ndarray
    inertia: float
    axis: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray, members: np.ndarray) -> _Part:
        mean, variances, axes = _principal_axes(points[members], weights[members])
        inertia = weights[members].sum() * variances.sum()
        return cls(members, mean, float(inertia), axes[:, 0])


def _halves(points: np.ndarray, weights: np.ndarray, n_cells: int) -> np.ndarray:
    """Return the means of parts made by halving, again and again, the one of most inertia.

    Across its main axis, at its mean: a start for k-means that needs no draws (Su and Dy, In search
    of deterministic methods for initializing k-means and Gaussian mixture clustering, 2007).
    """
    parts = [_Part.of(points, weights, np.arange(len(points)))]
    smallest = _ROUNDING * parts[0].inertia
    while len(parts) < n_cells:
        widest = max(range(len(parts)), key=lambda i: parts[i].inertia)
        members, mean, inertia, axis = parts[widest]
        beyond = (points[members] - mean) @ axis > 0
        if inertia <= smallest or not beyond.any() or beyond.all():  # points, up to rounding
            break
        parts[widest] = _Part.of(points, weights, members[~beyond])
        parts.append(_Part.of(points, weights, members[beyond]))
    return np.stack([part.mean for part in parts])


def _tangent(
    points: np.ndarray, weights: np.ndarray, mean: np.ndarray, n_components: int, n_neighbors: int
) -> tuple[np.ndarray, float]:
    """Return the main directions of the points nearest to a cell's mean, and the spread across them."""
    squares = np.sum((points - mean) ** 2, axis=1)
    near = np.argsort(squares, kind="stable")[:n_neighbors]
    _, variances, axes = _principal_axes(points[near], weights[near])
    across = variances[n_components:].mean().clip(0)
    return axes[:, :n_components], float(np.sqrt(across))


def _principal_axes(
    points: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, and variances with their axes as columns, by decreasing variance."""
    shares = weights / weights.sum()
    mean = shares @ points
    centered = points - mean
    variances, axes = np.linalg.eigh(centered.T @ (shares[:, None] * centered))
    return mean, variances[::-1], axes[:, ::-1]


@dataclass(frozen=True)
class GatedKernel:
    """Gaussian offsets along the tangent of each cell and, as far as the data are thick, across it.

    The cells share z: nodes of their own for each cell gave the same likelihoods.

    Parameters
    ----------
    sigma : float
        Smoothing scale along the tangents, and at most across, in units of X. Zero: the score is
        not smoothed at all.
    cells : Cells
        Where which tangent counts.
    n_nodes : int
        Number of nodes M of each cell, even.
    seed : int
        Seed of the node sets.
    """

    sigma: float
    cells: Cells
    n_nodes: int
    seed: int

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the quadrature rules of one noise level.

        Parameters
        ----------
        level : int
            Which noise level.

        Returns
        -------
        offsets : ndarray of shape (K, M, r)
            With mean zero to rounding and, from M = 2 r on, covariance sigma^2 along the tangent
            and, across it, the square of twice the thickness, or of sigma if that is less.
        weights : ndarray of shape (M,)
            Positive, summing to one.
        """
        cells = self.cells
        n_cells, dimension = cells.means.shape
        if self.sigma == 0 or dimension == 0:
            return np.zeros((n_cells, 1, dimension)), np.ones(1)
        standard = gaussian_nodes(dimension, self.n_nodes, level, self.seed)
        across = np.minimum(self.sigma, _ACROSS * cells.thickness)[:, None, None]
        along = standard @ cells.tangents @ cells.tangents.transpose(0, 2, 1)
        offsets = across * standard + (self.sigma - across) * along
        return offsets, np.full(self.n_nodes, 1 / self.n_nodes)


class _Gates(NamedTuple):
    """Gates p_k at a batch of queries, and a_k with grad p_k = a_k (m_k - m) - p_k sum_j a_j (m_j - m).

    m is `center`, the mean of the means under the responsibilities.
    """

    shares: torch.Tensor
    slopes: torch.Tensor
    center: torch.Tensor


@dataclass(frozen=True)
class GatedScore:
    """The empirical score, averaged along the tangents of the cells whose gates are open.

    It is no gradient, so there is no `log_density` beside it; its divergence is exact and the law
    that its flow leads to is normalised.

    Parameters
    ----------
    posterior : Posterior
        The data.
    log_masses : torch.Tensor of shape (K,)
        Logarithms of the cells' masses.
    means : torch.Tensor of shape (K, r)
        Their means.
    width : float
        Standard deviation s of the spheres between which the gates decide.
    nodes : tuple of Nodes
        The quadrature rule of each cell.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query does not see. The cells still do.

    Notes
    -----
    On a CPU each cell looks at the queries for which its gate is open; other devices would have to
    be waited for to know which they are, and all cells look at all queries there. The results are
    the same to rounding.
    """

    posterior: Posterior
    log_masses: torch.Tensor
    means: torch.Tensor
    width: float
    nodes: tuple[Nodes, ...]
    exclude: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        posterior: Posterior,
        kernel: GatedKernel,
        level: int,
        backend: Backend,
        exclude: torch.Tensor | None = None,
    ) -> GatedScore:
        """Return the field of a noise level.

        Parameters
        ----------
        posterior : Posterior
            The data.
        kernel : GatedKernel
            Gives the nodes.
        level : int
            Which noise level they are for.
        backend : Backend
            Where cells and nodes go.
        exclude : torch.Tensor of shape (n,), optional
            Index of the point that each query does not see.

        Returns
        -------
        GatedScore
        """
        offsets, weights = kernel.nodes(level)
        shares = backend.tensor(weights)
        reaches = np.linalg.norm(offsets, axis=2).max(1).tolist()
        nodes = tuple(map(Nodes, backend.tensor(offsets), [shares] * len(offsets), reaches))
        cells = kernel.cells
        log_masses, means = backend.tensor(np.log(cells.masses)), backend.tensor(cells.means)
        return cls(posterior, log_masses, means, cells.width, nodes, exclude)

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the blended score.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        gates = self._gates(x)
        score = torch.zeros_like(x)
        for k, rows in self._open(gates):
            moments = self.posterior.moments(
                x[rows], v, self.nodes[k], exclude=self._left_out(rows)
            )
            score[rows] += gates.shares[rows, k, None] * (moments.mean - x[rows]) / v
        return score

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the blended score and its divergence.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        score : torch.Tensor of shape (n, r)
        divergence : torch.Tensor of shape (n,)
        """
        gates = self._gates(x)
        score, divergence = torch.zeros_like(x), x.new_zeros(len(x))
        drift = torch.zeros_like(x)
        for k, rows in self._open(gates):
            left_out = self._left_out(rows)
            moments = self.posterior.moments(
                x[rows], v, self.nodes[k], trace=True, exclude=left_out
            )
            assert moments.trace is not None
            share, own = gates.shares[rows, k], (moments.mean - x[rows]) / v
            towards = gates.slopes[rows, k, None] * (self.means[k] - gates.center[rows])
            score[rows] += share[:, None] * own
            drift[rows] += towards
            divergence[rows] += share * (moments.trace / v - x.shape[1]) / v
            divergence[rows] += (towards * own).sum(1)
        return score, divergence - (drift * score).sum(1)

    def _gates(self, x: torch.Tensor) -> _Gates:
        precision = self.width**-2
        affine = self.log_masses - 0.5 * precision * self.means.square().sum(1)
        shares = torch.softmax(torch.addmm(affine, x, self.means.T, alpha=precision), dim=1)
        center = shares @ self.means
        above = (shares - _CLOSED / len(self.nodes)).clamp_min(0)
        total = above.sum(1, keepdim=True)
        slopes = precision * torch.where(above > 0, shares, 0) / total
        return _Gates(above / total, slopes, center)

    def _open(self, gates: _Gates) -> Iterator[tuple[int, torch.Tensor | slice]]:
        """Go through the cells, with the rows for which each is to be asked."""
        for k in range(len(self.nodes)):
            if gates.shares.device.type != "cpu":
                yield k, slice(None)
                continue
            (rows,) = gates.shares[:, k].nonzero(as_tuple=True)
            if len(rows):
                yield k, rows

    def _left_out(self, rows: torch.Tensor | slice) -> torch.Tensor | None:
        return None if self.exclude is None else self.exclude[rows]
