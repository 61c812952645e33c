"""Tiles: numbers of queries, nodes and pairs that are computed at once within a memory limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from .._utils.memory import check_fits
from .groups import GROUP
from .points import Points

# Elements of a tile's widest matrix: large enough to pay for starting threads, small enough that the
# result of one operation is still in the cache for the next (of 2^15 to 2^20, the largest was fastest).
_TILE = 2**20

# A tile may be larger to have this many queries: products with matrices of a few rows are limited by
# reading memory. Beyond 32 MiB memory is taken from the system, and cleared, for every matrix.
_ENOUGH_ROWS = 64
_LARGEST_TILE = 2**22

# A GPU needs enough work to be busy and has no such cache: on an H100 tiles of 2^26 are 8 to 18 times
# as fast as those above.
_TILE_ON_GPU = 2**26

Result = TypeVar("Result")


class Tiles:
    """Sizes of the tiles into which a computation over points is split.

    - `points`: the points of this process.
    - `most_points`: number of points of the largest shard: all processes must exchange tiles of the
      same size.
    - `may_shrink`: whether tiles may be halved; not where other processes must have the same ones.
    - `memory_limit`: bound on the temporaries of one call, in MiB.
    - `widest`: bytes of a number in the widest dtype that points may be copied to; a tile must fit
      then, too.

    Raises ValueError if `memory_limit` is below what a single query and a single node take.
    """

    def __init__(
        self,
        points: Points,
        *,
        most_points: int,
        may_shrink: bool,
        memory_limit: float,
        widest: int,
    ) -> None:
        self._points = points
        self._most_points = most_points
        self._may_shrink = may_shrink
        self._tile, self._largest_tile = _TILE, _LARGEST_TILE
        if not points.on_host:
            self._tile = self._largest_tile = _TILE_ON_GPU
        self._budget = int(memory_limit * 2**20 / points.positions.element_size())
        what = f"one tile of {points.n_unpadded} points in {points.dimension} dimensions"
        check_fits(self._smallest * widest, memory_limit, what)

    def nodes(self, *, trace: bool) -> int:
        """Return the number of nodes of one table of factors."""
        return self._budget // 2 // self._elements_per_node(trace)

    def rows(self, n_nodes: int) -> int:
        """Return the number of queries whose averages over this many nodes are computed at once."""
        within_budget = self._budget // 2 // self._elements_per_row(n_nodes)
        widest = max(self._most_points, (self._points.dimension + 2) * n_nodes)
        enough = min(_ENOUGH_ROWS, self._largest_tile // widest)
        return max(1, min(within_budget, max(enough, self._tile // widest)))

    def pairs(self, rows: int) -> int:
        """Return the number of single queries whose groups are searched at once."""
        # For each query: a flag for each group of points, and the result.
        per_pair = max(1, len(self._points) // GROUP) + 2 * (self._points.dimension + 2)
        return min(self._budget // 8 // per_pair, max(rows, self._tile // per_pair))

    @property
    def elements(self) -> int:
        """Number of array elements that a direct computation of many pairs may hold."""
        return max(1, min(self._budget // 8, 4 * self._tile))

    def holds_all(self, n_queries: int, n_nodes: int, n_shared: int) -> bool:
        """Return whether queries with `n_nodes` each, out of `n_shared` in a table, fit into memory."""
        n_features = self._points.dimension + 2
        factors = (n_shared + n_queries + n_nodes * n_features) * self._most_points
        pairs = 3 * n_queries * n_nodes * n_features
        return factors + pairs < min(self._budget // 2, self._largest_tile)

    def retry_in_smaller_tiles(self, compute: Callable[[], Result]) -> Result:
        """Return compute(), repeated with smaller tiles each time the device runs out of memory.

        `compute` reads the sizes anew in each run. Where other processes must have the same tiles,
        the device's error is raised. MemoryError is raised if not even the smallest tile fits.
        """
        while True:
            try:
                return compute()
            except RuntimeError as error:
                if not _is_out_of_memory(error) or not self._may_shrink:
                    raise
                smaller = self._budget // 2
                if smaller < self._smallest:
                    raise MemoryError(
                        f"device {self._points.positions.device} has no memory left, even for the "
                        f"smallest tile over {len(self._points)} points in {self._points.dimension} "
                        "dimensions. Free memory there, use another device, or dtype='float32'."
                    ) from error
            self._budget = smaller
            self._tile, self._largest_tile = max(1, self._tile // 2), self._largest_tile // 2

    def _elements_per_node(self, trace: bool) -> int:
        """Return the number of array elements that a table holds for each node."""
        return (self._points.dimension + 4 if trace else 2) * self._most_points

    def _elements_per_row(self, n_nodes: int) -> int:
        """Return the number of elements that a tile holds for each query: logits and averages."""
        return 4 * self._most_points + 4 * (self._points.dimension + 2) * n_nodes

    @property
    def _smallest(self) -> int:
        """Number of array elements that a single query and a single node take."""
        return 2 * max(self._elements_per_node(True), self._elements_per_row(1))


def _is_out_of_memory(error: BaseException) -> bool:
    # On a CPU, on MPS and inside cuBLAS torch raises a plain RuntimeError that says so.
    signs = "allocate memory", "out of memory", "ALLOC_FAILED"
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        sign in str(error) for sign in signs
    )
