"""Smoothing with one kernel at all queries, which the user passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._coordinates.hull import AffineHull
from .._coordinates.metric import candidate_metrics
from .._utils.shards import Shards
from ._base import Kernel, ReducedKernel, depends_on_query, is_isotropic, works_over_base


@dataclass(frozen=True)
class SameEverywhere:
    """Smoothing by one kernel at every query; see `KernelChoice` for the methods."""

    kernel: Kernel

    def reduce(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull, metric: Any, shards: Shards
    ) -> tuple[ReducedKernel, AffineHull, dict[str, Any]]:
        """Return the kernel in coordinates of the hull."""
        return self.kernel.reduce(hull, points, weights), hull, {}

    def candidate_metrics(self, rank: int) -> tuple[Any, ...]:
        """Return the metrics from which "auto" chooses.

        All for an isotropic kernel, none if offsets depend on the query, "euclidean" for the others.
        """
        if depends_on_query(self.kernel):
            return ()
        return candidate_metrics(rank) if is_isotropic(self.kernel) else ("euclidean",)

    def check_base(self, base: Any) -> None:
        """Raise an error if the kernel cannot smooth the score of a base."""
        if not works_over_base(self.kernel):
            raise ValueError(
                f"kernel={self.kernel!r} smooths by the posterior weights of training rows, so it "
                f"cannot be combined with base={base!r}; use a kernel with offsets, such as "
                "kernel='gaussian', or base=None."
            )

    def check_scales(
        self, kernel: ReducedKernel, coordinates: np.ndarray, bandwidth: float, scales: np.ndarray
    ) -> None:
        """Do nothing, since any scale is valid for a kernel that the user passes."""
