"""The contract of a kernel: a shape, its form in the hull of the data, what `fit` freezes of it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from .._coordinates.hull import AffineHull
from ..scores import Smoothing
from ._nodes import NodeRule

__all__ = ["Kernel", "ReducedKernel", "check_features", "is_isotropic", "works_over_base"]


@runtime_checkable
class Kernel(Protocol):
    """A shape of smoothing in the space of the data.

    A class may have two more attributes, which are read by the functions of the same names:
    `is_isotropic`, False where there is none, and `works_over_base`, True where there is none.
    """

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the shape as the affine hull of the data sees it."""
        ...


class ReducedKernel(Protocol):
    """A shape of smoothing in coordinates of the hull."""

    @property
    def rank(self) -> int:
        """Number k of coordinates that nodes are chosen in; 0 where there is nothing to choose."""
        ...

    @property
    def n_nodes(self) -> int:
        """Number of nodes that are enough for most data."""
        ...

    @property
    def spread(self) -> float:
        """Standard deviation of the offsets along their widest direction, at sigma = 1."""
        ...

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> Smoothing:
        """Return the smoothing that has one scale and one set of nodes in each noise level."""
        ...


def is_isotropic(kernel: Kernel) -> bool:
    """Return whether a kernel has no directions of its own, so that it suits any metric."""
    return getattr(kernel, "is_isotropic", False)


def works_over_base(kernel: Kernel) -> bool:
    """Return whether a kernel can smooth the score of Gaussian components, and not of rows only."""
    return getattr(kernel, "works_over_base", True)


def check_features(name: str, found: int, hull: AffineHull) -> None:
    if found != hull.n_features:
        raise ValueError(
            f"{name} has {found} columns, but X has {hull.n_features} features; expected the same "
            "number."
        )
