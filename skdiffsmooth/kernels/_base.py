"""The protocols of a kernel: as the user passes it, and in coordinates of the hull of the data."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from .._coordinates.hull import AffineHull
from ..scores import Smoothing
from ._nodes import NodeRule


@runtime_checkable
class Kernel(Protocol):
    """Protocol of a kernel, a distribution of offsets in the space of the data.

    A class may have three more attributes, which are read by the functions of the same names:
    `is_isotropic` (default: False), `works_over_base` (default: True) and `depends_on_query`
    (default: False).
    """

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the kernel in coordinates of the affine hull of the data; estimators call this."""
        ...


class ReducedKernel(Protocol):
    """Protocol of a kernel in coordinates of the hull."""

    @property
    def rank(self) -> int:
        """Number k of coordinates in which nodes are chosen; 0 if nodes are given or not used."""
        ...

    @property
    def n_nodes(self) -> int:
        """Number of nodes with which ``n_nodes="auto"`` starts."""
        ...

    @property
    def widest_std(self) -> float:
        """Standard deviation of the offsets along their widest direction, at sigma = 1."""
        ...

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> Smoothing:
        """Return the smoothing, with one scale and one set of nodes for each noise level."""
        ...


def is_isotropic(kernel: Kernel) -> bool:
    """Return whether a kernel is isotropic, so that it can be used with any metric."""
    return getattr(kernel, "is_isotropic", False)


def works_over_base(kernel: Kernel) -> bool:
    """Return whether a kernel can also smooth the score of Gaussian components."""
    return getattr(kernel, "works_over_base", True)


def depends_on_query(kernel: Kernel) -> bool:
    """Return whether offsets differ between queries, so that log-densities take long."""
    return getattr(kernel, "depends_on_query", False)


def check_features(name: str, n_columns: int, hull: AffineHull) -> None:
    """Raise an error unless an array of offsets has as many columns as X has features."""
    if n_columns != hull.n_features:
        raise ValueError(
            f"{name} has {n_columns} columns, but X has {hull.n_features} features; expected the "
            "same number. Pass one column for each feature of X."
        )
