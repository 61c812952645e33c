"""Posterior moments of noised points some of whose coordinates are periodic, by sums over images.

On a circle of length P the heat kernel of noise variance v is the wrapped Gaussian

    K_v(u) = sum_k N(u + k P; 0, v) = (1 + 2 sum_k exp(-2 pi^2 k^2 v / P^2) cos(2 pi k u / P)) / P,

so the posterior on the line, of the points and of their images at whole periods, is the one on the
circle. Queries are wrapped into one period, so few images suffice: those within D of any wrapped query,
with D^2 = P^2 / 4 + 2 v log(1 / eps). The kernels of all other images of a point add up to less than eps
times that of its nearest image. Where sqrt(v) is above P, the kernel is 1 / P up to a relative
error of 6e-9: the coordinate is then left out, with score and divergence zero. Where there are many
images, `TorusPosterior` computes the kernels as products over coordinates.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import torch

from .._utils.backend import Backend
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.kernel_weights import LOG_EPS, UNIFORM
from .._utils.shards import ONE_PROCESS, Shards
from .influence import Influence
from .moments import Denoiser, Moments, Nodes, SingleMoments
from .points import log_weight_of_others
from .posterior import Posterior
from .torus import TorusPosterior

# The range of images around a wrapped query is a multiple of 1 / _GRID of the period, so that
# neighbouring noise scales use the same images.
_GRID = 8
# Sets of images that are kept for later calls, and the most points in one.
_MOST_SETS, _MOST_IMAGES = 4, 2**22
# With more images of a point than this, times the number of coordinates, products are faster.
_IMAGES_A_PRODUCT = 64


def make_posterior(
    points: np.ndarray,
    weights: np.ndarray,
    periods: np.ndarray | None,
    backend: Backend,
    *,
    memory_limit: float,
    shards: Shards = ONE_PROCESS,
    radius: float | None = None,
    trace_weights: np.ndarray | None = None,
) -> Posterior | PeriodicPosterior:
    """Return the posterior of points (N, r) of weights (N,), with periods (r,) or without."""
    if periods is not None:
        return PeriodicPosterior(
            points,
            weights,
            periods,
            backend,
            memory_limit=memory_limit,
            trace_weights=trace_weights,
        )
    return Posterior(
        backend.tensor(points),
        backend.tensor(np.log(weights)),
        memory_limit=memory_limit,
        shards=shards,
        radius=radius,
        trace_weights=None if trace_weights is None else backend.tensor(trace_weights),
    )


class _ImagesPosterior(Posterior):
    """The posterior of images, whose weights are those of their points and do not sum to one."""

    def _log_normalizer(self, v: float, exclude: torch.Tensor | None) -> float:
        return gaussian_log_normalizer(self._points.dimension, v)


@dataclass(frozen=True, eq=False)
class _Images:
    """Moments, computed from the images of all points in the k coordinates that are not uniform."""

    posterior: _ImagesPosterior
    periods: np.ndarray
    kept: torch.Tensor  # Indices (k,) of these coordinates
    log_volume: float  # Log of the product of the periods of the uniform coordinates
    trace_weight: float  # Sum of the trace weights of the uniform coordinates
    of_point: torch.Tensor
    """Indices (N, m) of the images of each point; some are repeated where a point has fewer than m."""
    log_weights: torch.Tensor  # Logarithms (N,) of the weights of the points

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Denoiser`."""
        y = self._wrapped(x)[:, self.kept]
        excluded = None if exclude is None else self.of_point[exclude]
        log_density = self.posterior.log_density(y, v, exclude=excluded)
        return log_density - self._log_volume(exclude)

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
        y, offsets = self._wrapped(x), self._wrapped(nodes.offsets)
        within = self.posterior.moments(
            y[:, self.kept],
            v,
            replace(nodes, offsets=offsets[:, self.kept]),
            trace=trace,
            exclude=None if exclude is None else self.of_point[exclude],
        )
        turns = x - y + nodes.weights @ (nodes.offsets - offsets)
        mean = x.index_copy(1, self.kept, within.mean + turns[:, self.kept])
        return Moments(
            mean,
            None if within.trace is None else within.trace + v * self.trace_weight,
            within.log_density - self._log_volume(exclude),
        )

    def precision_at(self, v: float) -> torch.dtype:
        """See `Denoiser`."""
        return self.posterior.precision_at(v)

    def _wrapped(self, x: torch.Tensor) -> torch.Tensor:
        """Return queries or offsets (..., r), their periodic coordinates reduced by whole periods."""
        periods = x.new_tensor(self.periods)
        # Where there is no period nothing is subtracted.
        turns = (x / torch.where(periods > 0, periods, torch.inf)).round()
        return x - periods * turns

    def _log_volume(self, exclude: torch.Tensor | None) -> torch.Tensor | float:
        """Return the log-volume to subtract from log-densities: a number, or one for each query."""
        if exclude is None:
            return self.log_volume
        return self.log_volume + log_weight_of_others(self.log_weights)[exclude]


class PeriodicPosterior(Denoiser):
    """The posterior of weighted points under Gaussian noise, with periodic coordinates; a `Denoiser`.

    Queries may be outside of one period: posterior means are near the queries, and are not wrapped.

    - `points` (N, r): the data; periodic coordinates are within half a period of zero, the others
      centred.
    - `weights` (N,): positive weights that sum to one.
    - `periods` (r,): periods, 0 where a coordinate has none.
    - `memory_limit`: bound on the temporaries of one call, in MiB.
    - `trace_weights` (r,): as in `Posterior`.
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
        self._points, self._log_weights = points, np.log(weights)
        self._periods, self._backend = periods, backend
        self._trace_weights = trace_weights
        self._sets: OrderedDict[tuple[int, ...], _Images] = OrderedDict()
        self._products = TorusPosterior(
            points,
            weights,
            periods,
            backend,
            memory_limit=memory_limit,
            trace_weights=trace_weights,
        )

    def __len__(self) -> int:
        return len(self._points)

    def log_density(
        self, x: torch.Tensor, v: float, *, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Denoiser`."""
        return self._at(v).log_density(x, v, exclude=exclude)

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
        return self._at(v, nodes.max_norm).moments(x, v, nodes, trace=trace, exclude=exclude)

    def covariance_along(
        self,
        y: torch.Tensor,
        v: float,
        directions: torch.Tensor,
        *,
        exclude: torch.Tensor | None = None,
    ) -> SingleMoments:
        """See `Denoiser`."""
        return self._products.covariance_along(y, v, directions, exclude=exclude)

    def influence(self, y: torch.Tensor, v: float, node_weights: torch.Tensor) -> Influence:
        """See `Posterior.influence`."""
        return self._products.influence(y, v, node_weights)

    def precision_at(self, v: float) -> torch.dtype:
        """See `Denoiser`."""
        return self._at(v).precision_at(v)

    def _at(self, v: float, max_norm: float = 0.0) -> _Images | TorusPosterior:
        """Return the posterior, by images or by products, to use at noise v with nodes of this norm."""
        scale = math.sqrt(v)
        margins = []
        for period in self._periods.tolist():
            if not period:
                margins.append(0)
            elif scale > UNIFORM * period:
                margins.append(-1)
            else:
                within = math.sqrt(0.25 + 2 * v / period**2 * LOG_EPS)
                margins.append(math.ceil(_GRID * (within + min(max_norm / period, 0.5))))
        n_images = math.prod(1 + 2 * max(margin, 0) / _GRID for margin in margins)
        most = min(_IMAGES_A_PRODUCT * len(margins), _MOST_IMAGES / len(self))
        if n_images > most or max(margins) < 0:
            return self._products
        key = tuple(margins)
        if key not in self._sets:
            self._sets[key] = self._make_images(margins)
            if len(self._sets) > _MOST_SETS:
                self._sets.popitem(last=False)
        self._sets.move_to_end(key)
        return self._sets[key]

    def _make_images(self, margins: list[int]) -> _Images:
        """Return images within margins (r,) of wrapped queries, in eighths of periods; -1 is uniform."""
        periods, turns = self._periods, np.array(margins) / _GRID
        kept = np.flatnonzero(turns >= 0)
        positions, point = self._points, np.arange(len(self._points))
        for column in kept[periods[kept] > 0]:
            n_turns = math.ceil(1 + turns[column])
            shifts = np.arange(-n_turns, n_turns + 1) * periods[column]
            images = positions[:, column, None] + shifts
            row, shift = np.nonzero(np.abs(images) <= (0.5 + turns[column]) * periods[column])
            positions = positions[row]
            positions[:, column] = images[row, shift]
            point = point[row]
        # Images of one point follow one another.
        counts = np.bincount(point, minlength=len(self._points))
        firsts = np.cumsum(counts) - counts
        of_point = firsts[:, None] + np.minimum(np.arange(counts.max()), counts[:, None] - 1)
        device = self._backend.device
        kept_positions = np.ascontiguousarray(positions[:, kept])
        weights = self._trace_weights
        uniform = np.flatnonzero(turns < 0)
        posterior = _ImagesPosterior(
            self._backend.tensor(kept_positions),
            self._backend.tensor(self._log_weights[point]),
            memory_limit=self.memory_limit,
            radius=float(np.linalg.norm(kept_positions, axis=1).max()),
            trace_weights=None if weights is None else self._backend.tensor(weights[kept]),
        )
        return _Images(
            posterior,
            periods,
            torch.from_numpy(kept).to(device),
            float(np.log(periods[uniform]).sum()),
            float(len(uniform) if weights is None else weights[uniform].sum()),
            torch.from_numpy(of_point).to(device),
            self._backend.tensor(self._log_weights),
        )
