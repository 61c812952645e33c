"""The learned kernel: smoothing along the tangent of each cell, blended by gates.

The data are divided into K cells of mass pi_k, mean m_k, tangent U_k and thickness t_k. The offsets of
a cell have scale sigma along its tangent and, across it, at most twice the thickness of the data there:
with z standard normal and D_k(x) the posterior mean averaged over the offsets xi of cell k,

    xi = [ c_k I + (sigma - c_k) U_k U_k^T ] z,    c_k = min(sigma, 2 t_k),
    s(x) = sum_k p_k(x) s_k(x),    s_k(x) = (D_k(x) - x) / v,
    div s = sum_k [ p_k (tr_k / v - r) / v + grad p_k . s_k ].

The gates p_k are responsibilities of isotropic Gaussians of one standard deviation s, from which a
constant e is subtracted,

    r_k = softmax_k( log pi_k - |x - m_k|^2 / 2 s^2 ),   p_k = (r_k - e)_+ / sum_j (r_j - e)_+.

All but a few gates are exactly zero, so that their cells can be omitted without error. The field is
continuous, and its divergence is exact. The gates do not depend on the noise, so that most are zero at
large noise too; likelihoods were the same with gates that depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch

from .._engine.influence import Influence
from .._engine.moments import Denoiser, Nodes, rows_of
from .._engine.posterior import Posterior
from .._utils.backend import Backend
from .._utils.memory import rows_within, slices
from ._cells import Cells
from ._nodes import NodeRule, default_n_nodes

# Scale of the offsets across the tangent, in units of the thickness. With 0 the model overfits the noise
# of the data in these directions: half a nat is lost on a noisy circle in ten dimensions. From 1 to 3
# that loss shrinks, and so does the gain on curved surfaces.
_ACROSS = 2.0

# The constant e, in units of 1 / K: below it a responsibility gives a gate of zero. The largest
# responsibility is 1 / K at least, so that some gate is always positive.
_CLOSED = 0.05


@dataclass(frozen=True)
class GatedShape:
    """A `ReducedKernel`: Gaussian offsets, larger along the tangent of a cell than across it."""

    cells: Cells

    @property
    def rank(self) -> int:
        """The dimension r of the space, since offsets across the tangents need nodes too."""
        return self.cells.means.shape[1]

    @property
    def n_nodes(self) -> int:
        """Half as many nodes as for a constant kernel, since gates average over two to four cells."""
        return default_n_nodes(self.rank) // 2

    @property
    def widest_std(self) -> float:
        """The value one: sigma is the standard deviation along the tangents."""
        return 1.0

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> GatedKernel:
        """See `ReducedKernel`."""
        return GatedKernel(self.cells, scales, rule)


@dataclass(frozen=True)
class GatedKernel:
    """The smoothing by cells, all with the same nodes, at `scales` (n_levels,) along tangents."""

    cells: Cells
    scales: np.ndarray
    rule: NodeRule
    has_divergence: ClassVar[bool] = True

    @property
    def n_nodes(self) -> int:
        """Number of nodes of each cell at a noise level."""
        # Levels of scale zero have one node.
        return len(self.nodes(int(np.argmax(self.scales)))[1])

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the offsets (K, M, r) of each cell in one noise level, and their weights (M,).

        Offsets have mean zero to rounding. Under "sobol" from M = 2 r on their covariance is exact.
        Weights are positive and sum to one.
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
        """See `Smoothing`."""
        offsets, weights = self.nodes(level)
        node_weights = backend.tensor(weights)
        max_norms = np.linalg.norm(offsets, axis=2).max(1).tolist()
        nodes = tuple(map(Nodes, backend.tensor(offsets), [node_weights] * len(offsets), max_norms))
        cells = self.cells
        log_masses, means = backend.tensor(np.log(cells.masses)), backend.tensor(cells.means)
        return GatedScore(posterior, log_masses, means, cells.width, nodes, exclude)


class _Gating(NamedTuple):
    """Gates p_k (n, K) at queries, and the terms of their gradients.

    grad p_k = a_k (m_k - m) - p_k sum_j a_j (m_j - m), with a_k in `slopes` (n, K) and m in `center`
    (n, r), the mean of the cells' means under the responsibilities.
    """

    gates: torch.Tensor
    slopes: torch.Tensor
    center: torch.Tensor


class _ActiveCells(NamedTuple):
    """Scores of the P (query, cell) pairs with a non-zero gate.

    `rows[p]` and `cells[p]` are the indices of the pair, `score[p]` is the cell's score (r,) at the
    query, `trace[p]` the trace of its averaged posterior covariance, if requested.
    """

    rows: torch.Tensor
    cells: torch.Tensor
    score: torch.Tensor
    trace: torch.Tensor | None


@dataclass(frozen=True)
class GatedScore:
    """The blended scores of the cells with non-zero gates.

    The field is not a gradient, so it has no `log_density`. Its divergence is exact, and the
    density of its flow is normalised. On a CPU the score of a cell is computed only for queries
    with a non-zero gate; on other devices, where their indices would have to be copied to the host
    first, for all queries. The results are the same to rounding.
    """

    posterior: Denoiser
    log_masses: torch.Tensor  # (K,): logarithms of the cells' masses
    means: torch.Tensor  # (K, r): their means
    width: float  # Standard deviation s of the isotropic Gaussians that the gates are computed from
    nodes: tuple[Nodes, ...]  # The quadrature rule of each cell
    # (n,): index of the point that is excluded for each query; the cells, learned with it, are not
    # changed.
    exclude: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """See `ScoreField`."""
        score = torch.empty_like(x)
        for tile, field in self._in_tiles(x):
            score[tile] = field._score(x[tile], v)
        return score

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ScoreField`."""
        score, divergence = torch.empty_like(x), x.new_empty(len(x))
        for tile, field in self._in_tiles(x):
            score[tile], divergence[tile] = field._score_and_divergence(x[tile], v)
        return score, divergence

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """See `Attributable`. The cells are taken as fixed, and no point may be excluded."""
        posterior, gating = cast(Posterior, self.posterior), self._gating(x)
        weights = x.new_zeros(len(x), len(posterior))
        derivatives = x.new_zeros(len(x), len(posterior), x.shape[1])
        rows, _, counts = self._active_pairs(gating)
        for k, own in enumerate(rows.split(counts)):
            if not len(own):
                continue
            positions = x[own, None] + self.nodes[k].offsets
            influence = posterior.influence(positions, v, self.nodes[k].weights)
            gate = gating.gates[own, k, None]
            weights[own] += gate * influence.weights
            derivatives[own] += gate[..., None] * influence.derivatives
        return Influence(weights, derivatives)

    def rows(self, index: torch.Tensor | slice) -> GatedScore:
        """See `RowSelectable`."""
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])

    def _in_tiles(self, x: torch.Tensor) -> Iterator[tuple[slice, GatedScore]]:
        """Yield slices so short that the scores of all cells fit into memory, and their fields."""
        # Of each pair: a position, a score, and the terms of the sums over cells.
        per_query = len(self.nodes) * (5 * x.shape[1] + 8) * x.element_size()
        for tile in slices(len(x), rows_within(per_query, self.posterior.memory_limit)):
            yield tile, self.rows(tile)

    def _score(self, x: torch.Tensor, v: float) -> torch.Tensor:
        gating = self._gating(x)
        active = self._active_cells(x, v, gating, trace=False)
        gates = gating.gates[active.rows, active.cells]
        return torch.zeros_like(x).index_add_(0, active.rows, gates[:, None] * active.score)

    def _score_and_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        gating = self._gating(x)
        active = self._active_cells(x, v, gating, trace=True)
        rows, cells, own = active.rows, active.cells, active.score
        gates = gating.gates[rows, cells]
        slope = gating.slopes[rows, cells, None] * (self.means[cells] - gating.center[rows])
        assert active.trace is not None
        inner = gates * (active.trace / v - x.shape[1]) / v + (slope * own).sum(1)
        # One call makes all sums over the cells of a query: the score; sum_j a_j (m_j - m), which all
        # gradients of the gates have; and the divergence without that term.
        parts = torch.cat([gates[:, None] * own, slope, inner[:, None]], dim=1)
        sums = x.new_zeros(len(x), parts.shape[1]).index_add_(0, rows, parts)
        score, common, divergence = sums.tensor_split([x.shape[1], 2 * x.shape[1]], dim=1)
        return score, divergence[:, 0] - (common * score).sum(1)

    def _gating(self, x: torch.Tensor) -> _Gating:
        precision = self.width**-2
        # With m the nearest mean, |x - m|^2 - |x - m_k|^2 from x - m: for queries far from all cells,
        # differences of squared distances would lose the digits that distinguish close cells.
        nearest = _distances(x, self.means).argmin(1)
        from_nearest = x - self.means[nearest]
        apart = 0.5 * _distances(self.means, self.means).square()[nearest]
        # Less (x - m) . m, which is the same for all cells.
        along = from_nearest @ self.means.T
        responsibilities = torch.softmax(self.log_masses + precision * (along - apart), dim=1)
        center = responsibilities @ self.means
        above = (responsibilities - _CLOSED / len(self.nodes)).clamp_min(0)
        total = above.sum(1, keepdim=True)
        slopes = precision * torch.where(above > 0, responsibilities, 0) / total
        return _Gating(above / total, slopes, center)

    def _active_cells(
        self, x: torch.Tensor, v: float, gating: _Gating, *, trace: bool
    ) -> _ActiveCells:
        rows, cells, counts = self._active_pairs(gating)
        moments = self.posterior.moments_by_part(
            x[rows], v, self.nodes, cells, counts, trace=trace, exclude=rows_of(self.exclude, rows)
        )
        return _ActiveCells(rows, cells, (moments.mean - x[rows]) / v, moments.trace)

    def _active_pairs(self, gating: _Gating) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Return the rows and cells to compute, sorted by cell, and the number of rows of each cell."""
        n, n_cells = gating.gates.shape
        if gating.gates.device.type == "cpu":
            cells, rows = gating.gates.T.nonzero(as_tuple=True)
            return rows, cells, torch.bincount(cells, minlength=n_cells).tolist()
        every = torch.arange(n * n_cells, device=gating.gates.device)
        return every % n, every // n, [n] * n_cells


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the distances |x_i - y_j| (n, m), from differences of coordinates."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
