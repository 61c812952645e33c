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
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch

from .._engine.influence import Influence
from .._engine.moments import Denoiser, Nodes
from .._engine.posterior import Posterior
from .._utils.backend import Backend
from .._utils.memory import rows_within, slices
from ._cells import Cells
from ._nodes import NodeRule, default_n_nodes

__all__ = ["GatedKernel", "GatedScore", "GatedShape"]

# Offsets across the tangent, in units of the thickness. Without any, the noise that the data have there
# is learnt by heart: half a nat is lost on a noisy circle in ten dimensions. From 1 to 3 that loss
# shrinks, and so does the gain on curved surfaces.
_ACROSS = 2.0

# The share e of a responsibility below which a gate is closed, in units of 1 / K: never all of them.
_CLOSED = 0.05


@dataclass(frozen=True)
class GatedShape:
    """Gaussian offsets along the tangent of each cell and, as far as the data are thick, across it.

    Parameters
    ----------
    cells : Cells
        Where which tangent counts.
    """

    cells: Cells

    @property
    def rank(self) -> int:
        """Dimension r of the space: offsets across the tangents need nodes, too."""
        return self.cells.means.shape[1]

    @property
    def n_nodes(self) -> int:
        """Half of what one kernel for all would take: gates average over two to four cells."""
        return default_n_nodes(self.rank) // 2

    @property
    def spread(self) -> float:
        """One: sigma is the standard deviation along the tangents."""
        return 1.0

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> GatedKernel:
        """Return the smoothing that has one scale and one set of nodes in each noise level."""
        return GatedKernel(self.cells, scales, rule)


@dataclass(frozen=True)
class GatedKernel:
    """Cells and their offsets for each noise level.

    The cells share the rule's nodes: some of their own for each cell gave the same likelihoods.

    Parameters
    ----------
    cells : Cells
        Where which tangent counts.
    scales : ndarray of shape (n_levels,)
        Smoothing scale of each level along the tangents, and at most across, in units of X.
    rule : NodeRule
        How nodes are chosen.
    """

    cells: Cells
    scales: np.ndarray
    rule: NodeRule
    has_divergence: ClassVar[bool] = True

    @property
    def n_nodes(self) -> int:
        """Number of nodes of each cell in a noise level."""
        return len(self.nodes(0)[1])

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the quadrature rules of one noise level.

        Parameters
        ----------
        level : int
            Which noise level.

        Returns
        -------
        offsets : ndarray of shape (K, M, r)
            With mean zero to rounding and, under "sobol" from M = 2 r on, covariance sigma^2 along
            the tangent and, across it, the square of twice the thickness, or of sigma if that is less.
        weights : ndarray of shape (M,)
            Positive, summing to one.
        """
        cells, scale = self.cells, self.scales[level]
        n_cells, dimension = cells.means.shape
        if scale == 0 or dimension == 0:
            return np.zeros((n_cells, 1, dimension)), np.ones(1)
        standard, weights = self.rule.normal(dimension, level)
        across = np.minimum(scale, _ACROSS * cells.thickness)[:, None, None]
        along = standard @ cells.tangents @ cells.tangents.transpose(0, 2, 1)
        return across * standard + (scale - across) * along, weights

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> GatedScore:
        """Return the smoothed score of one noise level; see `Smoothing`."""
        offsets, weights = self.nodes(level)
        shares = backend.tensor(weights)
        reaches = np.linalg.norm(offsets, axis=2).max(1).tolist()
        nodes = tuple(map(Nodes, backend.tensor(offsets), [shares] * len(offsets), reaches))
        cells = self.cells
        log_masses, means = backend.tensor(np.log(cells.masses)), backend.tensor(cells.means)
        return GatedScore(posterior, log_masses, means, cells.width, nodes, exclude)


class _Gates(NamedTuple):
    """Gates p_k at a batch of queries, and a_k with grad p_k = a_k (m_k - m) - p_k sum_j a_j (m_j - m).

    m is `center`, the mean of the means under the responsibilities.
    """

    shares: torch.Tensor
    slopes: torch.Tensor
    center: torch.Tensor


class _Asked(NamedTuple):
    """What P cells say about queries whose gates to them are open: their own scores, and spreads."""

    rows: torch.Tensor
    cells: torch.Tensor
    score: torch.Tensor
    trace: torch.Tensor | None


@dataclass(frozen=True)
class GatedScore:
    """The empirical score, averaged along the tangents of the cells whose gates are open.

    It is no gradient, so there is no `log_density` beside it; its divergence is exact and the law
    that its flow leads to is normalised.

    Parameters
    ----------
    posterior : Denoiser
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

    posterior: Denoiser
    log_masses: torch.Tensor
    means: torch.Tensor
    width: float
    nodes: tuple[Nodes, ...]
    exclude: torch.Tensor | None = None

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
        score = torch.empty_like(x)
        for tile, field in self._in_tiles(x):
            score[tile] = field._score(x[tile], v)
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
        score, divergence = torch.empty_like(x), x.new_empty(len(x))
        for tile, field in self._in_tiles(x):
            score[tile], divergence[tile] = field._score_and_divergence(x[tile], v)
        return score, divergence

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """Return the weights and pulls of the points, under cells that stay as they are.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        Influence
        """
        posterior, gates = cast(Posterior, self.posterior), self._gates(x)
        weights = x.new_zeros(len(x), len(posterior))
        derivatives = x.new_zeros(len(x), len(posterior), x.shape[1])
        rows, _, counts = self._open(gates)
        for k, own in enumerate(rows.split(counts)):
            if not len(own):
                continue
            places = x[own, None] + self.nodes[k].offsets
            found = posterior.influence(places, v, self.nodes[k].weights)
            share = gates.shares[own, k, None]
            weights[own] += share * found.weights
            derivatives[own] += share[..., None] * found.derivatives
        return Influence(weights, derivatives)

    def rows(self, index: torch.Tensor | slice) -> GatedScore:
        """Return the field of some of the queries.

        Parameters
        ----------
        index : torch.Tensor of shape (m,) or slice
            Which.

        Returns
        -------
        GatedScore
        """
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])

    def _in_tiles(self, x: torch.Tensor) -> Iterator[tuple[slice, GatedScore]]:
        """Cut queries, and the field with them, so that what all cells say of them can be held."""
        # A place, a score, and what is summed of it; where all gates are open.
        per_query = len(self.nodes) * (5 * x.shape[1] + 8) * x.element_size()
        for tile in slices(len(x), rows_within(per_query, self.posterior.memory_limit)):
            yield tile, self.rows(tile)

    def _score(self, x: torch.Tensor, v: float) -> torch.Tensor:
        gates = self._gates(x)
        asked = self._ask(x, v, gates, trace=False)
        share = gates.shares[asked.rows, asked.cells]
        return torch.zeros_like(x).index_add_(0, asked.rows, share[:, None] * asked.score)

    def _score_and_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        gates = self._gates(x)
        asked = self._ask(x, v, gates, trace=True)
        rows, cells, own = asked.rows, asked.cells, asked.score
        share = gates.shares[rows, cells]
        slope = gates.slopes[rows, cells, None] * (self.means[cells] - gates.center[rows])
        assert asked.trace is not None
        inner = share * (asked.trace / v - x.shape[1]) / v + (slope * own).sum(1)
        # All sums over a query's cells at once: the score, how gates drift, and its divergence but
        # for what these two make.
        parts = torch.cat([share[:, None] * own, slope, inner[:, None]], dim=1)
        sums = x.new_zeros(len(x), parts.shape[1]).index_add_(0, rows, parts)
        score, drift, divergence = sums.tensor_split([x.shape[1], 2 * x.shape[1]], dim=1)
        return score, divergence[:, 0] - (drift * score).sum(1)

    def _gates(self, x: torch.Tensor) -> _Gates:
        precision = self.width**-2
        # With m the nearest mean, |x - m|^2 - |x - m_k|^2 from x - m: squares of far cells would leave
        # nothing of what tells close ones apart.
        nearest = _distances(x, self.means).argmin(1)
        beside = x - self.means[nearest]
        apart = 0.5 * _distances(self.means, self.means).square()[nearest]
        along = beside @ self.means.T - (beside * self.means[nearest]).sum(1, keepdim=True)
        shares = torch.softmax(self.log_masses + precision * (along - apart), dim=1)
        center = shares @ self.means
        above = (shares - _CLOSED / len(self.nodes)).clamp_min(0)
        total = above.sum(1, keepdim=True)
        slopes = precision * torch.where(above > 0, shares, 0) / total
        return _Gates(above / total, slopes, center)

    def _ask(self, x: torch.Tensor, v: float, gates: _Gates, *, trace: bool) -> _Asked:
        """Ask each cell about the queries for which its gate is open."""
        rows, cells, counts = self._open(gates)
        left_out = None if self.exclude is None else self.exclude[rows]
        moments = self.posterior.moments_by_part(
            x[rows], v, self.nodes, cells, counts, trace=trace, exclude=left_out
        )
        return _Asked(rows, cells, (moments.mean - x[rows]) / v, moments.trace)

    def _open(self, gates: _Gates) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Return pairs of a row and a cell to be asked, cell by cell, and how many each cell has."""
        n, n_cells = gates.shares.shape
        if gates.shares.device.type == "cpu":
            cells, rows = gates.shares.T.nonzero(as_tuple=True)
            return rows, cells, torch.bincount(cells, minlength=n_cells).tolist()
        every = torch.arange(n * n_cells, device=gates.shares.device)
        return every % n, every // n, [n] * n_cells


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return |x_i - y_j| from differences of coordinates, shape (n, m)."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
