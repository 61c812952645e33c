"""The engine for data with covariances of their own: posterior moments under a mixture of Gaussians.

Where the data are a mixture sum_i w_i N(mu_i, S_i) and not points, noise of variance v makes them

    p_v(y) = sum_i w_i N(y; mu_i, S_i + v I),    A_i = (S_i + v I)^-1,    g_i(y) = -A_i (y - mu_i),

whose score is g = sum_i W_i g_i, W the posterior weights of the components. The posterior of the data
has mean D = y + v g (Tweedie) and spread

    tr Cov(y) = sum_i W_i tr(v S_i A_i) + v^2 ( sum_i W_i |g_i|^2 - |g|^2 ),

so that (tr Cov / v - r) / v is the divergence of g, as it is for points. With xi a node,

    g_i(x + xi) = g_i(x) - A_i xi,
    (x + xi - mu_i)^T A_i (x + xi - mu_i) = -(x - mu_i) . g_i(x) - 2 g_i(x) . xi + xi . A_i xi :

queries and nodes meet in matrix products only, as in `_posterior`, but exponentials do not factorise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from .._utils.backend import Backend
from .._utils.gaussian import log_normalizer
from .._utils.memory import slices
from .components import GaussianComponents
from .moments import Moments, Nodes, SingleMoments, part_by_part
from .points import exp_, log_weight_of_others
from .precision import FloatPromotion

__all__ = ["ComponentPosterior"]

# Elements of a tile's widest arrays, on a CPU and elsewhere; see `_posterior`.
_TILE = 2**18
_TILE_ON_GPU = 2**26

# Where rounding could change exponents by more nats than these, single precision is left.
_EXPONENT_ERROR = 1e-3


class _Seen(NamedTuple):
    """Components through noise of one variance: what does not depend on the query.

    `floor` (K, 1, 1) and `along` (K, 1, k) hold the eigenvalues of A_i, `log_peaks` (K,) the log of
    each weighted density at its mean, `spreads` (K,) the traces of v S_i A_i.
    """

    floor: torch.Tensor
    along: torch.Tensor
    log_peaks: torch.Tensor
    spreads: torch.Tensor


class ComponentPosterior(FloatPromotion):
    """A mixture of Gaussians, ready to be looked at through noise: a `Denoiser`, as `Posterior` is.

    Parameters
    ----------
    components : GaussianComponents
        The mixture.
    backend : Backend
        Where to compute and in which precision.
    memory_limit : float
        Bound on the temporaries of one call, in MiB.

    Raises
    ------
    ValueError
        If `memory_limit` is below what a single query and a single node take.

    Notes
    -----
    One look of B queries at M nodes takes about ``2 B M K r`` multiply-adds and ``B M K`` exponentials
    for K components, and four times the multiply-adds with the spread. In float32, noise too small
    for it is computed in float64, where the device has it, and rounded.
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
        # The tile must fit in the precision that is gone to at low noise, too.
        width = 8 if self._can_promote else self._means.element_size()
        if memory_limit * 2**20 < smallest * width:
            raise ValueError(
                f"memory_limit={memory_limit:g} (MiB) is too small for one tile: {len(components)} "
                f"components in {self._means.shape[1]} dimensions need at least "
                f"{smallest * width / 2**20:.2g} MiB. Raise memory_limit."
            )

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return log p_v, the log-density of the mixture blurred by noise of variance v.

        Parameters
        ----------
        x : torch.Tensor of shape (B, r)
            Queries.
        v : float
            Noise variance.
        exclude : torch.Tensor of shape (B,), optional
            Index of the component to leave out for each query; the other weights are renormalised.

        Returns
        -------
        torch.Tensor of shape (B,)
            In nats.
        """
        return self.moments(x, v, Nodes.single(x), exclude=exclude).log_density

    def log_parts(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return log w_i N(x; mu_i, S_i + v I) of each component, whose sum is the density.

        All at once: the caller passes as many queries as memory is for.

        Parameters
        ----------
        x : torch.Tensor of shape (B, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (B, K)
            In nats.
        """
        return self._scores(x, self._seen(v), None)[1] - log_normalizer(x.shape[1])

    def moments(
        self,
        x: torch.Tensor,
        v: float,
        nodes: Nodes,
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """Return posterior mean, spread and log-density averaged over the nodes.

        Parameters
        ----------
        x : torch.Tensor of shape (B, r)
            Queries.
        v : float
            Noise variance.
        nodes : Nodes
            The smoothing kernel's quadrature rule.
        trace : bool, default=False
            Whether to compute the spread too.
        exclude : torch.Tensor of shape (B,), optional
            Index of the component to leave out for each query; the other weights are renormalised.

        Returns
        -------
        Moments
        """
        if self._needs_float64(v, nodes.reach):
            double = nodes.to(torch.float64)
            found = self._in_float64.moments(x.double(), v, double, trace=trace, exclude=exclude)
            return found.to(x.dtype)
        seen = self._seen(v)
        mean = x + nodes.weights @ nodes.offsets
        spread, log_density = x.new_zeros(len(x)), x.new_zeros(len(x))
        for tile in slices(len(nodes), self._budget // 2 // self._elements_per_node):
            part = nodes[tile]
            # A_i xi of each node, and xi . A_i xi.
            pulls, squares = self._apply(seen, part.offsets.expand(len(self._means), -1, -1))
            for rows in slices(len(x), self._rows_per_tile(len(part))):
                left_out = None if exclude is None else exclude[rows]
                score, own, log_sums = self._look(
                    x[rows], v, seen, part, pulls, squares, left_out, trace=trace
                )
                mean[rows] += v * score
                spread[rows] += own
                log_density[rows] += log_sums
        log_density -= log_normalizer(x.shape[1])
        if exclude is not None:
            log_density -= log_weight_of_others(self._log_weights)[exclude]
        return Moments(mean, spread if trace else None, log_density)

    def moments_by_part(
        self,
        x: torch.Tensor,
        v: float,
        parts: Sequence[Nodes],
        which: torch.Tensor,
        counts: list[int],
        *,
        trace: bool = False,
        exclude: torch.Tensor | None = None,
    ) -> Moments:
        """Return the same where query b has nodes parts[which[b]], sorted, counts[k] of each."""
        return part_by_part(self, x, v, parts, counts, trace=trace, exclude=exclude)

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """Return the moments of single queries, and their covariances along given directions.

        Parameters
        ----------
        y : torch.Tensor of shape (B, r)
            Queries, in the precision of the mixture or in that of `precision_at`.
        v : float
            Noise variance.
        directions : torch.Tensor of shape (B, r, j)
            What to multiply each query's posterior covariance with; j may be zero.
        exclude : torch.Tensor of shape (B,), optional
            Index of the component to leave out for each query; the other weights are renormalised.

        Returns
        -------
        SingleMoments
            In the precision of `y`.
        """
        if self._needs_float64(v, 0.0):
            found = self._in_float64.covariance_along(
                y.double(), v, directions.double(), exclude=exclude
            )
            return found.to(y.dtype)
        seen = self._seen(v)
        moments = self.moments(y, v, Nodes.single(y), trace=True, exclude=exclude)
        assert moments.trace is not None
        along = torch.empty_like(directions)
        # A direction takes what a query takes.
        for rows in slices(len(y), self._rows_per_tile(1) // (1 + directions.shape[2])):
            left_out = None if exclude is None else exclude[rows]
            scores, logits = self._scores(y[rows], seen, left_out)
            shares = torch.softmax(logits, dim=1)
            mean = (shares[:, :, None] * scores).sum(1, keepdim=True)
            here_along = directions[rows]
            centred = scores - mean
            between = (centred @ here_along) * shares[:, :, None]
            # v I - v^2 A_i = v S_i A_i, axis by axis: without a difference of large numbers.
            each = here_along.transpose(1, 2).flatten(0, 1).expand(len(self._means), -1, -1)
            on_axes, across = self._split(each)
            kept = self._joined(
                v * self._variances[:, None] * seen.along * on_axes,
                v * self._floors[:, None, None] * seen.floor * across,
            ).unflatten(1, (len(here_along), -1))
            within = torch.einsum("bk,kbjr->brj", shares, kept)
            along[rows] = within + v**2 * (centred.transpose(1, 2) @ between)
        return SingleMoments(moments.mean, moments.trace, moments.log_density, along)

    def _look(
        self,
        x: torch.Tensor,
        v: float,
        seen: _Seen,
        nodes: Nodes,
        pulls: torch.Tensor,
        squares: torch.Tensor,
        left_out: torch.Tensor | None,
        *,
        trace: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | float, torch.Tensor]:
        """Return a tile's part of score, spread and log-sum: sums over its nodes, weighted."""
        scores, bare = self._scores(x, seen, left_out)
        logits = (scores.flatten(0, 1) @ nodes.offsets.T).unflatten(0, scores.shape[:2])
        logits.sub_(squares, alpha=0.5).add_(bare[:, :, None])
        top = logits.amax(1, keepdim=True)
        shares = exp_(logits.sub_(top), self._negligible)
        totals = shares.sum(1, keepdim=True)
        log_sums = (totals.log() + top)[:, 0] @ nodes.weights
        shares.mul_(nodes.weights / totals)
        # sum_m q_m W and sum_m q_m W xi_m: A_i is applied once to their sum, and not for each node.
        sides = torch.cat([nodes.offsets, nodes.offsets.new_ones(len(nodes), 1)], dim=1)
        carried = (shares.flatten(0, 1) @ sides).unflatten(0, shares.shape[:2])
        mixed = carried[:, :, -1]
        turned, _ = self._apply(seen, carried[:, :, :-1].transpose(0, 1))
        score = (mixed[:, None] @ scores)[:, 0] - turned.sum(0)
        if not trace:
            return score, 0.0, log_sums
        lengths = (mixed * scores.square().sum(2)).sum(1)
        lengths -= 2 * (scores.transpose(0, 1) * turned).sum((0, 2))
        lengths += shares.flatten(1) @ pulls.square().sum(2).flatten()
        # The mean over components of g_i at each node: |g|^2 is not to be had from averages.
        at_nodes = shares.transpose(1, 2) @ scores
        at_nodes -= (shares.permute(2, 0, 1) @ pulls.transpose(0, 1)).transpose(0, 1)
        lengths -= at_nodes.square().sum(2) @ (1 / nodes.weights)
        return score, mixed @ seen.spreads + v**2 * lengths, log_sums

    def _scores(
        self, x: torch.Tensor, seen: _Seen, left_out: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return g_i, shape (B, K, r), and the logits of the components, shape (B, K)."""
        # From differences of coordinates: a narrow component's exponent has no rounding of products.
        pulled, squares = self._apply(seen, x - self._means[:, None])
        logits = torch.sub(seen.log_peaks[:, None], squares, alpha=0.5).T.contiguous()
        if left_out is not None:
            logits.scatter_(1, left_out[:, None], -math.inf)
        return pulled.transpose(0, 1).neg(), logits

    def _apply(self, seen: _Seen, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A_i z and z . A_i z, a sum of squares, for vectors (K, B, r)."""
        along, across = self._split(z)
        squares = seen.floor[:, :, 0] * across.square().sum(2)
        squares += (seen.along * along.square()).sum(2)
        return self._joined(seen.along * along, seen.floor * across), squares

    def _split(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coordinates (K, B, k) of vectors along each component's axes, and the rest."""
        along = z @ self._axes
        return along, z - along @ self._axes.mT

    def _joined(self, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(across, along, self._axes.mT)

    def _seen(self, v: float) -> _Seen:
        floor, along = self._floors + v, self._variances + v
        n_across = self._means.shape[1] - self._axes.shape[2]
        log_volume = n_across * floor.log() + along.log().sum(1)
        spreads = n_across * v * self._floors / floor + (v * self._variances / along).sum(1)
        return _Seen(
            1 / floor[:, None, None],
            1 / along[:, None],
            self._log_weights - 0.5 * log_volume,
            spreads,
        )

    def _is_exact(self, v: float, max_norm: float) -> bool:
        # Queries are rounded where they are, and the components that matter to one are at most this
        # far from it.
        length = self._widest + math.sqrt(v) + max_norm
        rounding = torch.finfo(self._dtype).eps * (self._radius + length)
        return rounding * length / (self._narrowest + v) <= _EXPONENT_ERROR

    def _copied_to_float64(self) -> ComponentPosterior:
        backend = replace(self._backend, dtype=torch.float64)
        return ComponentPosterior(self._components, backend, memory_limit=self.memory_limit)

    @property
    def _elements_per_node(self) -> int:
        """Numbers held for each node: what each component makes of it, and a copy on the way."""
        return 4 * self._means.numel() + 2 * len(self._means)

    def _elements_per_row(self, n_nodes: int) -> int:
        """Numbers held for each query of a tile: shares, vectors of components and of nodes."""
        n_components, rank = self._means.shape
        return n_nodes * (3 * n_components + 3 * rank + 3) + 8 * n_components * (rank + 1)

    def _rows_per_tile(self, n_nodes: int) -> int:
        within_budget = self._budget // 2 // self._elements_per_row(n_nodes)
        widest = len(self._means) * max(n_nodes, self._means.shape[1], 1)
        return max(1, min(within_budget, self._tile // widest))
