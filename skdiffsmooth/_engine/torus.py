"""Posterior moments of noised points on a torus times lines, by products of wrapped Gaussians.

The heat kernel of a torus is the product of those of circles (`periodic.py`). So the images of a point
are independent in each coordinate, and their posterior has in coordinate j the mean and the variance of
one wrapped Gaussian: the work is proportional to the number of coordinates, where sums over images
grow exponentially. At low noise two images on either side are summed, else the series; above a scale of
one period the coordinate is uniform. The relative error of a kernel is below 1e-10 (5e-9 where it is
uniform).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from .._utils.backend import Backend
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.kernel_weights import UNIFORM
from .._utils.memory import slices_within
from .._utils.periods import wrapped
from .._utils.progress import tracked
from .influence import Influence
from .moments import Denoiser, Moments, Nodes, SingleMoments, rows_of
from .points import exclude_, log_weight_of_others

# From this scale in periods on the series is summed, up to terms of this size.
_SERIES_FROM, _LEAST_TERM = 0.25, 1e-12
# Images on either side of the nearest one; the third is below 1e-20 at smaller scales.
_N_IMAGES = 2
# Size in MiB of tiles that stay in the cache.
_LARGEST_TILE = 8.0


class _Wrapped(NamedTuple):
    """Sums over images at positions k - t on a circle of length one; the tensors have one shape."""

    log_sum: torch.Tensor  # log sum_k exp(-(k - t)^2 / 2 ratio^2)
    mean: torch.Tensor  # Mean of k - t in this distribution
    variance: torch.Tensor


def _wrapped_gaussian(t: torch.Tensor, ratio: float) -> _Wrapped:
    """Return the sums for t within half a turn of zero, at the noise scale `ratio` in turns."""
    if ratio < _SERIES_FROM:
        others, first, second = (torch.zeros_like(t) for _ in range(3))
        for k in range(-_N_IMAGES, _N_IMAGES + 1):
            # Terms that are not computed are below the rounding of one.
            if k and abs(k) * (abs(k) - 1) < 80 * ratio**2:
                term = (k * t).sub_(k**2 / 2).div_(ratio**2).clamp_(min=-700.0).exp_()
                others += term
                first.add_(term, alpha=k)
                second.add_(term, alpha=k**2)
        mean = first.div_(1 + others)
        variance = second.div_(1 + others).sub_(mean.square())
        return _Wrapped(others.log1p_().sub_(t.square() / (2 * ratio**2)), mean.sub_(t), variance)
    angle = 2 * math.pi * t
    total, slope, curvature = (torch.zeros_like(t) for _ in range(3))
    n_terms = math.ceil(math.sqrt(-math.log(_LEAST_TERM) / 2) / (math.pi * ratio))
    for k in range(1, n_terms + 1):
        size, turn = 2 * math.exp(-2 * (math.pi * k * ratio) ** 2), 2 * math.pi * k
        cosine, sine = torch.cos(k * angle), torch.sin(k * angle)
        total.add_(cosine, alpha=size)
        slope.sub_(sine, alpha=size * turn)
        curvature.sub_(cosine, alpha=size * turn**2)
    total += 1
    # Derivatives of the logarithm, and Tweedie's formula.
    slope /= total
    curvature.div_(total).sub_(slope.square())
    log_sum = total.log_().add_(math.log(math.sqrt(2 * math.pi) * ratio))
    return _Wrapped(log_sum, ratio**2 * slope, ratio**2 + ratio**4 * curvature)


class _Pairs(NamedTuple):
    """Posterior weights of N points at B positions, and moments of the images of each point."""

    weights: torch.Tensor  # Weights (B, N) of the points
    log_density: torch.Tensor  # Logarithms (B,) of densities
    shifts: torch.Tensor  # Mean position of the image minus the query, (B, r, N)
    variances: torch.Tensor  # Variances (B, p, N) of the image in the periodic coordinates


class TorusPosterior(Denoiser):
    """The posterior of weighted points, some coordinates of which are periodic; a `Denoiser` in float64.

    Its parameters are those of `PeriodicPosterior`.
    """

    def __init__(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        periods: np.ndarray,
        backend: Backend,
        *,
        memory_limit: float,
        trace_weights: np.ndarray | None = None,
    ) -> None:
        self.memory_limit = memory_limit
        self._periods, self._circles = periods, np.flatnonzero(periods)
        exact = Backend(backend.device, torch.float64)
        self._points = exact.tensor(np.ascontiguousarray(points.T))
        self._log_weights = exact.tensor(np.log(weights))
        if trace_weights is None:
            trace_weights = np.ones(len(periods))
        self._trace_weights = exact.tensor(trace_weights)
        self._log_others = log_weight_of_others(self._log_weights)

    def __len__(self) -> int:
        return len(self._log_weights)

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
        columns = []
        stein = nodes.stein if trace and nodes.suits_stein(v) else None
        for part in tracked(self._parts(len(x), len(nodes))):
            y = (x[part, None].double() + nodes.offsets.double()).flatten(0, 1)
            excluded = rows_of(exclude, part)
            if excluded is not None:
                excluded = excluded.repeat_interleave(len(nodes), dim=0)
            pairs = self._pairs(y, v, excluded)
            shift = (pairs.shifts @ pairs.weights[:, :, None])[:, :, 0]
            if stein is None:
                trace_terms = self._trace(pairs, shift)
            else:
                trace_terms = pairs.log_density * stein.double().repeat(len(y) // len(nodes))
            means = torch.cat([y + shift, trace_terms[:, None], pairs.log_density[:, None]], dim=1)
            columns.append(nodes.weights.double() @ means.unflatten(0, (-1, len(nodes))))
        values = torch.cat(columns)
        if stein is not None:
            # As in `Posterior`.
            values[:, -2] = v * (len(self._periods) + v * values[:, -2])
        return Moments(values[:, :-2], values[:, -2] if trace else None, values[:, -1]).to(x.dtype)

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """See `Denoiser`."""
        parts = []
        for part in self._parts(len(y), 1):
            pairs = self._pairs(y[part].double(), v, rows_of(exclude, part))
            along = directions[part].double()
            shift = (pairs.shifts @ pairs.weights[:, :, None])[:, :, 0]
            covariance = (pairs.shifts * pairs.weights[:, None]) @ pairs.shifts.mT
            covariance -= shift[:, :, None] * shift[:, None]
            own = (pairs.variances @ pairs.weights[:, :, None])[:, :, 0]
            covariance[:, self._circles, self._circles] += own
            values = y[part] + shift, self._trace(pairs, shift), pairs.log_density
            parts.append((*values, covariance @ along))
        return SingleMoments(*(torch.cat(each) for each in zip(*parts, strict=True))).to(y.dtype)

    def influence(self, y: torch.Tensor, v: float, node_weights: torch.Tensor) -> Influence:
        """See `Posterior.influence`; the influence of a point is the sum over its images."""
        n_queries, n_nodes, r = y.shape
        weights = y.new_zeros(n_queries, len(self))
        derivatives = y.new_zeros(n_queries, len(self), r)
        for part in self._parts(n_queries, n_nodes):
            pairs = self._pairs(y[part].flatten(0, 1).double(), v, None)
            own = pairs.weights.unflatten(0, (-1, n_nodes)) * node_weights.double()[:, None]
            shift = pairs.shifts @ pairs.weights[:, :, None]
            apart = (pairs.shifts - shift).unflatten(0, (-1, n_nodes))
            weights[part] = own.sum(1).to(y.dtype)
            derivatives[part] = torch.einsum("bmn,bmrn->bnr", own, apart).to(y.dtype)
        return Influence(weights, derivatives)

    def precision_at(self, v: float) -> torch.dtype:
        """See `Denoiser`."""
        return torch.float64

    def _parts(self, n_queries: int, n_nodes: int) -> list[slice]:
        """Return slices of the queries whose pairs fit into the memory."""
        n_vectors = 4 + len(self._periods) + 6 * len(self._circles)
        limit = min(self.memory_limit, _LARGEST_TILE)
        return list(slices_within(n_queries, 8 * n_vectors * n_nodes * len(self), limit))

    def _trace(self, pairs: _Pairs, shift: torch.Tensor) -> torch.Tensor:
        """Return the traces (B,) of pairs with mean shifts (B, r)."""
        second = pairs.shifts.square() @ pairs.weights[:, :, None]
        variances = second[:, :, 0] - shift.square()
        variances[:, self._circles] += (pairs.variances @ pairs.weights[:, :, None])[:, :, 0]
        return variances @ self._trace_weights

    def _pairs(self, y: torch.Tensor, v: float, exclude: torch.Tensor | None) -> _Pairs:
        """Return the posteriors at positions y (B, r)."""
        shifts = self._points - y[:, :, None]
        variances = y.new_zeros(len(y), len(self._circles), len(self))
        logits = self._log_weights.expand(len(y), -1).clone()
        scale = math.sqrt(v)
        for j, period in enumerate(self._periods.tolist()):
            if not period:
                logits.sub_(shifts[:, j].square(), alpha=0.5 / v)
        for k, j in enumerate(self._circles.tolist()):
            period = float(self._periods[j])
            if scale > UNIFORM * period:
                shifts[:, j], variances[:, k] = 0.0, v
                logits += math.log(math.sqrt(2 * math.pi) * scale / period)
                continue
            own = _wrapped_gaussian(wrapped(shifts[:, j], period).div_(-period), scale / period)
            logits += own.log_sum
            torch.mul(own.mean, period, out=shifts[:, j])
            torch.mul(own.variance, period**2, out=variances[:, k])
        top = exclude_(logits, exclude).amax(1, keepdim=True)
        weights = logits.sub_(top).clamp_(min=-700.0).exp_()
        total = weights.sum(1, keepdim=True)
        log_density = (top + total.log())[:, 0] - gaussian_log_normalizer(len(self._periods), v)
        if exclude is not None:
            log_density -= self._log_others[exclude]
        return _Pairs(weights.div_(total), log_density, shifts, variances)
