"""Log-density and gradient of a mixture with one radial kernel at each point."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from .._utils.memory import check_fits, slices
from .._utils.progress import tracked
from .moments import rows_of
from .points import exclude_, log_weight_of_others
from .radial_kernels import RadialKernel

# Number of matrices (rows, N) held at once in the gradient of the linear kernel, which needs most.
_TEMPORARIES = 12
# Most elements of one such matrix, on a CPU.
_TILE = 2**18


class RadialMixture:
    """A mixture of equal radial kernels, centred at weighted points.

    - `points` (N, d): centres.
    - `log_weights` (N,): logarithms of positive weights that sum to one.
    - `bandwidth`: scale of the kernels, in units of the points.
    - `memory_limit`: bound on the temporaries of one call, in MiB.

    Raises ValueError if `memory_limit` is below what a single query takes.
    """

    def __init__(
        self,
        points: torch.Tensor,
        log_weights: torch.Tensor,
        kernel: RadialKernel,
        bandwidth: float,
        *,
        memory_limit: float,
    ) -> None:
        self.points = points
        self.log_weights = log_weights
        self.kernel = kernel
        self.bandwidth = bandwidth
        bytes_per_row = _TEMPORARIES * len(points) * points.element_size()
        check_fits(bytes_per_row, memory_limit, f"one tile of {len(points)} points")
        n_rows = int(memory_limit * 2**20 // bytes_per_row)
        # Half of the limit, since the next tile cannot use all memory that a tile frees. Smaller tiles
        # stay in the cache of a CPU.
        largest = _TILE // len(points) if points.is_cpu else n_rows
        self._rows = max(1, min(n_rows // 2, largest))

    def log_density(self, x: torch.Tensor, *, exclude: torch.Tensor | None = None) -> torch.Tensor:
        """Return the log-density (B,) of queries, in nats or -inf; `exclude` is as in `Denoiser`."""
        out = x.new_empty(len(x))
        for rows, logits, _ in self._tiles(x):
            out[rows] = torch.logsumexp(exclude_(logits, rows_of(exclude, rows)), dim=1)
        if exclude is not None:
            out -= log_weight_of_others(self.log_weights)[exclude]
        d = x.shape[1]
        return out - self.kernel.log_normalizer(d) - d * math.log(self.bandwidth)

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gradient (B, d) of the log-density; NaN where the density is zero."""
        out = torch.empty_like(x)
        for rows, logits, distances in self._tiles(x):
            slopes = torch.softmax(logits, dim=1) * self.kernel.profile_slope(distances)
            out[rows] = x[rows] * slopes.sum(1, keepdim=True) - slopes @ self.points
        return out / self.bandwidth**2

    def _tiles(self, x: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yield slices of the queries, with logits and distances (rows, N) in units of the bandwidth."""
        for rows in tracked(list(slices(len(x), self._rows))):
            # From differences of coordinates, and divided last: rounding must not move a point across
            # the edge of a compact kernel.
            exact = "donot_use_mm_for_euclid_dist"
            distances = torch.cdist(x[rows], self.points, compute_mode=exact).div_(self.bandwidth)
            yield rows, self.kernel.log_profile(distances) + self.log_weights, distances
