"""The engine for a mixture of Gaussians: posterior moments under noise.

If the data have the density sum_i w_i N(mu_i, S_i), their density under noise of variance v is

    p_v(y) = sum_i w_i N(y; mu_i, S_i + v I),    A_i = (S_i + v I)^-1,    g_i(y) = -A_i (y - mu_i),

whose score is g = sum_i W_i g_i, W the posterior weights of the components. The posterior of the
data has mean D = y + v g (Tweedie) and trace

    tr Cov(y) = sum_i W_i tr(v S_i A_i) + v^2 ( sum_i W_i |g_i|^2 - |g|^2 ),

so that (tr Cov / v - r) / v is the divergence of g, as it is for points. With xi a node,

    g_i(x + xi) = g_i(x) - A_i xi,
    (x + xi - mu_i)^T A_i (x + xi - mu_i) = -(x - mu_i) . g_i(x) - 2 g_i(x) . xi + xi . A_i xi :

queries and nodes are combined in matrix products only, as in `Posterior`, but exponentials do not
factorise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from .._utils.backend import Backend
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.memory import check_fits, slices
from .components import GaussianComponents
from .moments import Denoiser, Moments, Nodes, SingleMoments, rows_of
from .points import exclude_, exp_, log_weight_of_others
from .precision import FloatPromotion

# Elements of a tile's widest arrays, on a CPU and on other devices; see `Tiles`.
_TILE = 2**18
_TILE_ON_GPU = 2**26

# Where rounding could change exponents by more nats than this, single precision is not used.
_EXPONENT_ERROR = 1e-3


class _NoisedComponents(NamedTuple):
    """Quantities of the components at one noise variance that do not depend on the query.

    `floor` (K, 1, 1) and `along` (K, 1, k) hold the eigenvalues of A_i, `log_peaks` (K,) the log of
    each weighted density at its mean, `traces` (K,) the traces of v S_i A_i.
    """

    floor: torch.Tensor
    along: torch.Tensor
    log_peaks: torch.Tensor
    traces: torch.Tensor


class ComponentPosterior(FloatPromotion, Denoiser):
    """The posterior of a mixture of Gaussians under Gaussian noise; a `Denoiser`.

    - `backend`: device and dtype of the computation.
    - `memory_limit`: bound on the temporaries of one call, in MiB.

    Raises ValueError if `memory_limit` is below what a single query and a single node take.

    Moments of B queries at M nodes take about ``2 B M K r`` multiply-adds and ``B M K`` exponentials
    for K components, and four times the multiply-adds with the trace. With float32, moments at noise
    too small for it are computed in float64, if the device has it, and rounded.
    """

    def __init__(
        self, components: GaussianComponents, backend: Backend, *, memory_limit: float
    ) -> None:
        self.memory_limit = memory_limit
        self._components = components
        self._backend = backend
        self._log_weights = backend.tensor(np.log(components.weights))
        self._means = backend.tensor(components.means)
        super().__init__(self._means)
        self._floors = backend.tensor(components.floors)
        self._axes = backend.tensor(components.axes)
        self._variances = backend.tensor(components.variances)
        self._narrowest = components.narrowest**2
        self._widest = components.widest
        self._radius = float(np.linalg.norm(components.means, axis=1).max())
        eps = torch.finfo(backend.dtype).eps
        self._negligible = math.log(eps**2 / len(components))
        self._budget = int(memory_limit * 2**20 / self._means.element_size())
        self._tile = _TILE if backend.device.type == "cpu" else _TILE_ON_GPU
        smallest = 2 * max(self._elements_per_node, self._elements_per_row(1))
        # A tile must also fit in float64, which low noise may require.
        width = 8 if self._can_promote else self._means.element_size()
        what = f"one tile of {len(components)} components in {self._means.shape[1]} dimensions"
        check_fits(smallest * width, memory_limit, what)

    def moments(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """See `Denoiser`."""
        if self._needs_float64(v, nodes.max_norm):
            double = nodes.to(torch.float64)
            moments = self._in_float64.moments(x.double(), v, double, trace=trace, exclude=exclude)
            return moments.to(x.dtype)
        noised = self._noised(v)
        by_stein = trace and nodes.suits_stein(v)
        if not by_stein:
            nodes = nodes.without_stein()
        mean = x + nodes.weights @ nodes.offsets
        total_trace, log_density = x.new_zeros(len(x)), x.new_zeros(len(x))
        for tile in slices(len(nodes), self._budget // 2 // self._elements_per_node):
            part = nodes[tile]
            # A_i xi of each node, and xi . A_i xi.
            node_scores, squares = self._apply(
                noised, part.offsets.expand(len(self._means), -1, -1)
            )
            for rows in slices(len(x), self._rows_per_tile(len(part))):
                score, trace_part, log_sums = self._tile_sums(
                    x[rows],
                    v,
                    noised,
                    part,
                    node_scores,
                    squares,
                    rows_of(exclude, rows),
                    trace=trace and not by_stein,
                )
                mean[rows] += v * score
                total_trace[rows] += trace_part
                log_density[rows] += log_sums
        log_density -= gaussian_log_normalizer(x.shape[1])
        if exclude is not None:
            log_density -= log_weight_of_others(self._log_weights)[exclude]
        if by_stein:
            # tr Cov = v (r + v times the Laplacian of the log-density).
            total_trace = v * (x.shape[1] + v * total_trace)
        return Moments(mean, total_trace if trace else None, log_density)

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """See `Denoiser`."""
        if self._needs_float64(v, 0.0):
            moments = self._in_float64.covariance_along(
                y.double(), v, directions.double(), exclude=exclude
            )
            return moments.to(y.dtype)
        noised = self._noised(v)
        averages = self.moments(y, v, Nodes.single(y), trace=True, exclude=exclude)
        assert averages.trace is not None
        along = torch.empty_like(directions)
        # A direction takes as much memory as a query.
        for rows in slices(len(y), self._rows_per_tile(1) // (1 + directions.shape[2])):
            scores, logits = self._scores_and_logits(y[rows], noised, rows_of(exclude, rows))
            weights = torch.softmax(logits, dim=1)
            centred = scores - (weights[:, :, None] * scores).sum(1, keepdim=True)
            between = (centred @ directions[rows]) * weights[:, :, None]
            # v I - v^2 A_i = v S_i A_i, axis by axis: without a difference of large numbers.
            n_rows = len(centred)
            each = directions[rows].transpose(1, 2).flatten(0, 1).expand(len(self._means), -1, -1)
            on_axes, across = self._split(each)
            covariances = self._join(
                v * (self._variances[:, None] * noised.along) * on_axes,
                v * (self._floors[:, None, None] * noised.floor) * across,
            ).unflatten(1, (n_rows, -1))
            within = torch.einsum("bk,kbjr->brj", weights, covariances)
            along[rows] = within + v * (v * (centred.transpose(1, 2) @ between))
        return SingleMoments(averages.mean, averages.trace, averages.log_density, along)

    def _tile_sums(
        self,
        x: torch.Tensor,
        v: float,
        noised: _NoisedComponents,
        nodes: Nodes,
        node_scores: torch.Tensor,
        squares: torch.Tensor,
        exclude: torch.Tensor | None,
        *,
        trace: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a tile's part of score (B, r), trace (B,) and log-sum (B,), summed over its nodes.

        Without `trace`, the second result is the Laplacian of `Nodes.averages`.
        `node_scores` (K, M, r) and `squares` (K, M) are A_i xi and xi . A_i xi.
        """
        scores, query_logits = self._scores_and_logits(x, noised, exclude)
        logits = (scores.flatten(0, 1) @ nodes.offsets.T).unflatten(0, scores.shape[:2])
        logits.sub_(squares, alpha=0.5).add_(query_logits[:, :, None])
        top = logits.amax(1, keepdim=True)
        weights = exp_(logits.sub_(top), self._negligible)
        normalizer = weights.sum(1, keepdim=True)
        log_densities = (normalizer.log() + top)[:, 0]
        laplacian, log_sums = nodes.averages(nodes.weights, log_densities).T
        weights.mul_(nodes.weights / normalizer)
        # sum_m q_m W xi_m and sum_m q_m W: A_i is applied once to the sum, and not for each node.
        features = torch.cat([nodes.offsets, nodes.offsets.new_ones(len(nodes), 1)], dim=1)
        averages = (weights.flatten(0, 1) @ features).unflatten(0, weights.shape[:2])
        mean_weights = averages[:, :, -1]
        shift, _ = self._apply(noised, averages[:, :, :-1].transpose(0, 1))
        score = (mean_weights[:, None] @ scores)[:, 0] - shift.sum(0)
        if not trace:
            return score, laplacian, log_sums
        # sum_m q_m ( sum_i W_i |g_i|^2 - |g|^2 ) at the nodes.
        squared = (mean_weights * scores.square().sum(2)).sum(1)
        squared -= 2 * (scores.transpose(0, 1) * shift).sum((0, 2))
        squared += weights.flatten(1) @ node_scores.square().sum(2).flatten()
        # The mean g over components at each node: averages over the nodes do not give |g|^2.
        at_nodes = weights.transpose(1, 2) @ scores
        at_nodes -= (weights.permute(2, 0, 1) @ node_scores.transpose(0, 1)).transpose(0, 1)
        squared -= at_nodes.square().sum(2) @ (1 / nodes.weights)
        return score, mean_weights @ noised.traces + v * (v * squared), log_sums

    def _scores_and_logits(
        self, x: torch.Tensor, noised: _NoisedComponents, exclude: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores g_i (B, K, r) and logits (B, K) of the components."""
        # From differences of coordinates: for narrow components, products would round too much.
        negative_scores, squares = self._apply(noised, x - self._means[:, None])
        logits = torch.sub(noised.log_peaks[:, None], squares, alpha=0.5).T.contiguous()
        return negative_scores.transpose(0, 1).neg(), exclude_(logits, exclude)

    def _apply(
        self, noised: _NoisedComponents, z: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A_i z (K, B, r) and z . A_i z (K, B) for vectors z (K, B, r)."""
        along, across = self._split(z)
        squares = noised.floor[:, :, 0] * across.square().sum(2)
        squares += (noised.along * along.square()).sum(2)
        return self._join(noised.along * along, noised.floor * across), squares

    def _split(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coordinates (K, B, k) of vectors along each component's axes, and remainders."""
        along = z @ self._axes
        return along, z - along @ self._axes.mT

    def _join(self, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        """Return vectors (K, B, r) from the coordinates and remainders that `_split` returns."""
        return torch.baddbmm(across, along, self._axes.mT)

    def _noised(self, v: float) -> _NoisedComponents:
        """Return the quantities that depend on the noise only."""
        floor, along = self._floors + v, self._variances + v
        n_across = self._means.shape[1] - self._axes.shape[2]
        log_volume = n_across * floor.log() + along.log().sum(1)
        traces = v * (n_across * self._floors / floor + (self._variances / along).sum(1))
        return _NoisedComponents(
            1 / floor[:, None, None],
            1 / along[:, None],
            self._log_weights - 0.5 * log_volume,
            traces,
        )

    def _is_exact(self, v: float, max_norm: float) -> bool:
        # The components that matter to a query are at most this far from it, and the rounding of
        # positions is relative to their distance from the origin.
        length = self._widest + math.sqrt(v) + max_norm
        rounding = torch.finfo(self._dtype).eps * (self._radius + length)
        return rounding * length / (self._narrowest + v) <= _EXPONENT_ERROR

    def _copied_to_float64(self) -> ComponentPosterior:
        backend = replace(self._backend, dtype=torch.float64)
        return ComponentPosterior(self._components, backend, memory_limit=self.memory_limit)

    @property
    def _elements_per_node(self) -> int:
        """How many numbers are stored for each node: a vector for each component, and copies."""
        return 4 * self._means.numel() + 2 * len(self._means)

    def _elements_per_row(self, n_nodes: int) -> int:
        """How many numbers a tile stores for each query, as weights and as vectors."""
        n_components, rank = self._means.shape
        return n_nodes * (3 * n_components + 3 * rank + 3) + 8 * n_components * (rank + 1)

    def _rows_per_tile(self, n_nodes: int) -> int:
        within_budget = self._budget // 2 // self._elements_per_row(n_nodes)
        widest = len(self._means) * max(n_nodes, self._means.shape[1], 1)
        return max(1, min(within_budget, self._tile // widest))
