"""Products of manifolds that lie in orthogonal subspaces, such as cylinders."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from ._base import Constants, SmoothManifold, SmoothManifoldBase, project_with_derivative

# Cosines below this between directions of two hulls are rounding errors.
ORTHOGONAL = 1e-10


class ProductManifold(SmoothManifoldBase):
    """The manifold of all sums x_1 + x_2 + ... of points x_i of factors in orthogonal subspaces.

    A cylinder is the product of a circle and a segment, a swiss roll that of a spiral and a segment.

    Parameters
    ----------
    *factors : SmoothManifold
        Manifolds in R^d with an `affine_hull`, such as all smooth ones of `skdiffsmooth.manifolds`.
        Their hulls must be orthogonal.

    Attributes
    ----------
    factors : tuple of SmoothManifold
        As given.

    Raises
    ------
    TypeError
        If a factor is not a smooth manifold.
    ValueError
        If there is no factor, factors are in different spaces, a factor has no affine hull, or the
        hulls are not orthogonal.

    Notes
    -----
    Each factor projects separately, so projections are as exact as theirs, and their costs are added.
    The reach is the smallest of the factors'.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import Circle, Curve, ProductManifold
    >>> circle = Circle([0.0, 0.0, 0.0], 1.0, [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> segment = Curve(lambda t: t[:, None] * [0.0, 0.0, 1.0], -1.0, 1.0)
    >>> cylinder = ProductManifold(circle, segment)
    >>> cylinder
    <ProductManifold of dimension 2 in R^3>
    >>> cylinder.project([[2.0, 0.0, 0.5], [0.0, 3.0, 4.0]]).round(12) + 0.0
    array([[1. , 0. , 0.5],
           [0. , 1. , 1. ]])
    """

    def __init__(self, *factors: SmoothManifold) -> None:
        if not factors:
            raise ValueError("factors is empty; expected one smooth manifold or more as arguments.")
        for factor in factors:
            if not isinstance(factor, SmoothManifold) or isinstance(factor, type):
                raise TypeError(
                    f"factor {factor!r} has type {type(factor).__name__}; expected a smooth manifold, "
                    "such as Circle or Curve of skdiffsmooth.manifolds."
                )
        spaces = {factor.n_features for factor in factors}
        if len(spaces) > 1:
            raise ValueError(
                f"factors are in spaces of {sorted(spaces)} dimensions; expected the same space. Give "
                "each a basis in R^d, or columns of zeros."
            )
        hulls: list[Any] = []
        for factor in factors:
            hulls.append(getattr(factor, "affine_hull", None))
            if hulls[-1] is None:
                raise ValueError(
                    f"factor {factor!r} has no affine hull; expected a manifold with the attribute "
                    "`affine_hull`. Add it, or use a manifold of skdiffsmooth.manifolds."
                )
        bases = [hull.basis for hull in hulls]
        basis = np.concatenate(bases, axis=1)
        gap = basis.T @ basis - np.eye(basis.shape[1])
        if np.abs(gap).max(initial=0.0) > ORTHOGONAL:
            raise ValueError(
                f"the affine hulls of the factors are not orthogonal: cosines reach "
                f"{np.abs(gap).max():.3g}; expected 0. Rotate the factors into orthogonal subspaces."
            )
        self.factors = factors
        center = np.sum([hull.center for hull in hulls], axis=0)
        self._set_hull(AffineHull(center, basis))
        # To project to a factor, only the centers of the other hulls are subtracted: the directions of
        # these hulls are orthogonal to its own.
        self._others = Constants(*(center - hull.center for hull in hulls))

    @property
    def dimension(self) -> int:
        """Dimension of the manifold, the sum of those of the factors."""
        return sum(factor.dimension for factor in self.factors)

    @property
    def reach(self) -> float | None:
        """The smallest reach of the factors; None if one is not known."""
        known = [factor.reach for factor in self.factors if factor.reach is not None]
        return min(known) if len(known) == len(self.factors) else None

    def _nearest(self, x: torch.Tensor) -> list[tuple[SmoothManifold, torch.Tensor]]:
        """Return each factor, with the points minus the centers of the other factors."""
        shifted = (x - other for other in self._others.like(x))
        return list(zip(self.factors, shifted, strict=True))

    def _point(self, nearest: list[tuple[SmoothManifold, torch.Tensor]]) -> torch.Tensor:
        return torch.stack([factor.project(y) for factor, y in nearest]).sum(0)

    def _frame(self, nearest: list[tuple[SmoothManifold, torch.Tensor]]) -> torch.Tensor:
        return torch.cat([factor.tangent(y) for factor, y in nearest], dim=2)

    def _ratio(self, nearest: list[tuple[SmoothManifold, torch.Tensor]]) -> torch.Tensor:
        return _blocks([factor.projection_derivative(y) for factor, y in nearest])

    def _project_with_derivative(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = [project_with_derivative(factor, y) for factor, y in self._nearest(x)]
        feet, tangents, derivatives = zip(*results, strict=True)
        return torch.stack(feet).sum(0), torch.cat(tangents, dim=2), _blocks(list(derivatives))


def _blocks(parts: list[torch.Tensor]) -> torch.Tensor:
    """Return block-diagonal matrices (n, K, K) with blocks (n, k, k), K the sum of the sizes k."""
    sizes = [part.shape[1] for part in parts]
    whole = parts[0].new_zeros(len(parts[0]), sum(sizes), sum(sizes))
    first = 0
    for part, size in zip(parts, sizes, strict=True):
        whole[:, first : first + size, first : first + size] = part
        first += size
    return whole
