"""Protocols of manifolds, and base classes that check X and convert arrays to tensors."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.backend import to_device
from .._utils.validation import check_finite, check_real_array

# Tolerance of `check_idempotent`, in units of the largest distance of a row from the mean row.
IDEMPOTENT = 1e-6


@runtime_checkable
class Manifold(Protocol):
    """Protocol of a manifold in R^d, with the properties and methods that estimators use.

    Methods take an array-like or a tensor of shape (n, d). For an array-like they return float64 arrays,
    for a tensor, tensors of its dtype on its device. `project` is idempotent.
    """

    @property
    def n_features(self) -> int:
        """Number d of columns of X."""
        ...

    @property
    def dimension(self) -> int:
        """Dimension k of the manifold."""
        ...

    @property
    def reach(self) -> float | None:
        """Distance up to which the nearest point is unique, in units of X; None if not known."""
        ...

    def project(self, X: Any) -> Any:
        """Return the nearest points of the manifold, shape (n, d)."""
        ...

    def distance(self, X: Any) -> Any:
        """Return the distances to the manifold, shape (n,)."""
        ...

    def tangent(self, X: Any) -> Any:
        """Return orthonormal bases of the tangent spaces at the projections, shape (n, d, k)."""
        ...


@runtime_checkable
class SmoothManifold(Manifold, Protocol):
    """Protocol of a manifold whose projection has a symmetric derivative."""

    def projection_derivative(self, X: Any) -> Any:
        """Return G with d project / dX = T G T^T, T = tangent(X); symmetric, shape (n, k, k)."""
        ...


class ManifoldBase(ABC):
    """Base class of manifolds: it checks X, and calls `_project` and `_tangent` with tensors (n, d)."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number d of columns of X."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Dimension k of the manifold."""

    @property
    @abstractmethod
    def reach(self) -> float | None:
        """Distance up to which the nearest point is unique, in units of X; None if not known."""

    @property
    def affine_hull(self) -> AffineHull | None:
        """An affine subspace that contains the manifold, or None if it is not known."""
        return None

    @abstractmethod
    def _project(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _tangent(self, x: torch.Tensor) -> torch.Tensor: ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of dimension {self.dimension} in R^{self.n_features}>"

    def project(self, X: Any) -> Any:
        """Return the nearest points of the manifold.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or torch.Tensor of shape (n, d)

        Raises
        ------
        ValueError
            If X does not have d columns, or is not numeric or not finite. Tensors on a device other
            than the CPU are not checked for NaN, since the host would have to wait for the device.
        """
        return across_border(self._project, X, self.n_features)

    def distance(self, X: Any) -> Any:
        """Return the distances (n,) to the manifold, in units of X; otherwise as `project`."""
        return across_border(self._distance, X, self.n_features)

    def tangent(self, X: Any) -> Any:
        """Return orthonormal bases (n, d, k) of the tangent spaces at the projections.

        The array is read-only if all tangent spaces are the same. X, types and errors are those of
        `project`.
        """
        return across_border(self._tangent, X, self.n_features)

    def _distance(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(x - self._project(x), dim=1)


class DifferentiableManifoldBase(ManifoldBase):
    """Base class of manifolds whose projection has a derivative, symmetric or not."""

    @abstractmethod
    def _projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]: ...

    def projection_factors(self, X: Any) -> tuple[Any, Any, Any]:
        """Return projections (n, d), and the factors A and T (n, d, k) of their derivatives A T^T.

        Log-densities along a manifold are computed from these. The columns of A span the directions
        in which projections move. T is `tangent`: if X moves orthogonally to the columns of T, its
        projection does not move. X, types and errors are those of `project`.
        """
        return across_border(self._projection_factors, X, self.n_features)


class SmoothManifoldBase(DifferentiableManifoldBase):
    """Base class of smooth manifolds: `_nearest` finds the nearest points of tensors (n, d).

    The result of `_nearest` is passed to `_point`, `_frame` and `_ratio`, which return projections
    (n, d), tangents (n, d, k) and the derivative (n, k, k) in the coordinates of the tangents. The
    constructor of a subclass calls `_set_hull`.
    """

    @abstractmethod
    def _nearest(self, x: torch.Tensor) -> Any: ...

    @abstractmethod
    def _point(self, nearest: Any) -> torch.Tensor: ...

    @abstractmethod
    def _frame(self, nearest: Any) -> torch.Tensor: ...

    @abstractmethod
    def _ratio(self, nearest: Any) -> torch.Tensor: ...

    def _set_hull(self, hull: AffineHull) -> None:
        self._hull, self._constants = hull, Constants(hull.center, hull.basis)

    @property
    def n_features(self) -> int:
        """Number d of columns of X."""
        return self._hull.n_features

    @property
    def affine_hull(self) -> AffineHull:
        """The smallest affine subspace that contains the manifold, up to rounding."""
        return self._hull

    def projection_derivative(self, X: Any) -> Any:
        """Return symmetric G (n, k, k) with d project / dX = T G T^T, T = tangent(X).

        G is the inverse of the identity minus the shape operator of the offset X - project(X): its
        eigenvalues are below one where the manifold curves away from X, and above one where it curves
        towards X. X, types and errors are those of `project`.
        """
        return across_border(self._projection_derivative, X, self.n_features)

    def project_with_derivative(self, X: Any) -> tuple[Any, Any, Any]:
        """Return `project` (n, d), `tangent` (n, d, k) and `projection_derivative` (n, k, k).

        The nearest points are computed once for all three. X, types and errors are those of `project`.
        """
        return across_border(self._project_with_derivative, X, self.n_features)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return self._point(self._nearest(x)).to(x.dtype)

    def _tangent(self, x: torch.Tensor) -> torch.Tensor:
        return self._frame(self._nearest(x)).to(x.dtype)

    def _projection_derivative(self, x: torch.Tensor) -> torch.Tensor:
        return self._ratio(self._nearest(x)).to(x.dtype)

    def _project_with_derivative(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        nearest = self._nearest(x)
        parts = self._point(nearest), self._frame(nearest), self._ratio(nearest)
        return tuple(part.to(x.dtype) for part in parts)

    def _projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        foot, tangent, derivative = self._project_with_derivative(x)
        return foot, tangent @ derivative, tangent


class ManifoldInHull(SmoothManifoldBase):
    """Base class of smooth manifolds that compute in float64, in coordinates of their affine hull."""

    def within(self, hull: AffineHull) -> Self:
        """Return the manifold in coordinates of an affine subspace that contains it.

        Parameters
        ----------
        hull : AffineHull
            The subspace.
        """
        other, own = copy.copy(self), self._hull
        center = (own.center - hull.center) @ hull.basis
        other._set_hull(AffineHull(center, hull.basis.T @ own.basis))
        return other

    def _coordinates(self, x: torch.Tensor) -> torch.Tensor:
        """Return hull coordinates (n, r) in float64."""
        x = x.double()
        center, basis = self._constants.like(x)
        return (x - center) @ basis

    def _lift(self, z: torch.Tensor) -> torch.Tensor:
        """Return points (n, d) from their hull coordinates."""
        center, basis = self._constants.like(z)
        return torch.addmm(center, z, basis.T)


def project_with_derivative(manifold: SmoothManifold, X: Any) -> tuple[Any, Any, Any]:
    """Return projections (n, d), tangents (n, d, k) and derivatives (n, k, k)."""
    at_once = getattr(manifold, "project_with_derivative", None)
    if at_once is not None:
        return at_once(X)
    return manifold.project(X), manifold.tangent(X), manifold.projection_derivative(X)


def has_derivative(manifold: Manifold) -> bool:
    """Return whether a manifold has `projection_factors`, or a derivative to compute them from."""
    return hasattr(manifold, "projection_factors") or hasattr(manifold, "projection_derivative")


def projection_factors(manifold: Manifold, X: Any) -> tuple[Any, Any, Any]:
    """Return projections (n, d) and the factors A, T (n, d, k) of their derivatives A T^T.

    The manifold must have a derivative (`has_derivative`). The columns of T are orthonormal.
    """
    own = getattr(manifold, "projection_factors", None)
    if own is not None:
        return own(X)
    foot, tangent, derivative = project_with_derivative(cast(SmoothManifold, manifold), X)
    return foot, tangent @ derivative, tangent


class Constants:
    """Tensor copies of arrays, made once for each device and dtype.

    A copy at every call would make the host wait for the device. Pickling leaves the copies out, since
    the file must load on a machine without that device. The arrays are never changed.
    """

    def __init__(self, *arrays: np.ndarray) -> None:
        self._arrays = arrays
        self._copies: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"arrays": self._arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(Constants(*state["arrays"])))

    def like(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the arrays as tensors on the device of `x`; floating-point ones in its dtype."""
        key = x.device, x.dtype
        if key not in self._copies:
            self._copies[key] = tuple(
                to_device(array, x.device, x.dtype if array.dtype.kind == "f" else None)
                for array in self._arrays
            )
        return self._copies[key]


def across_border(
    method: Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]],
    X: Any,
    n_features: int,
) -> Any:
    """Return the result of a method at X, after checks: as arrays if X is an array, else as tensors.

    If the method returns several tensors, the result is a tuple.
    """
    is_tensor = isinstance(X, torch.Tensor)
    x = X if is_tensor else torch.from_numpy(check_real_array("X", X))
    if x.ndim != 2 or x.shape[1] != n_features:
        raise ValueError(
            f"X has shape {tuple(x.shape)}; expected (n, {n_features}), one column for each dimension "
            "of the space around the manifold."
        )
    if not x.is_floating_point():
        raise ValueError(
            f"X is a tensor of {x.dtype}; expected a floating-point dtype. Pass X.double()."
        )
    # On another device the host would have to wait for the result. If the sum is finite, so are all
    # values; the slower check of each value is made only if it is not.
    if x.device.type == "cpu" and not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        raise ValueError(
            f"X holds {int((~torch.isfinite(x)).sum())} values that are NaN or infinite; expected "
            "finite values. Drop those rows or impute them."
        )
    result = method(x)
    if is_tensor:
        return result
    return tuple(map(_array, result)) if isinstance(result, tuple) else _array(result)


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor on the CPU as an array, read-only if rows share memory."""
    array = tensor.numpy()
    if array.size and 0 in array.strides:
        # Writing to one row would change the others.
        array.flags.writeable = False
    return array


def checked_center(center: Any) -> np.ndarray:
    """Return the parameter `center` as a finite point (d,)."""
    center = check_real_array("center", center)
    if center.ndim != 1 or not np.all(np.isfinite(center)):
        raise ValueError(
            f"center={center!r} has shape {center.shape}; expected one finite point of shape (d,)."
        )
    return center


def orthonormal(directions: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (d, k) of the span of the parameter `basis` (d, k), k <= d.

    The first column keeps its direction. Raises ValueError if columns are dependent or not finite.
    """
    check_finite("basis", directions, "Check how it is computed.")
    n_columns = directions.shape[1]
    if np.linalg.matrix_rank(directions) < n_columns:
        raise ValueError(
            f"the {n_columns} columns of basis are linearly dependent; expected independent ones. Drop "
            "the redundant directions."
        )
    basis, triangle = np.linalg.qr(directions)
    return basis * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)


def check_manifold(manifold: Any, *used: str) -> None:
    """Raise TypeError if a manifold that a user passed lacks one of the attributes named in `used`."""
    missing = [name for name in used if isinstance(manifold, type) or not hasattr(manifold, name)]
    if missing:
        raise TypeError(
            f"manifold={manifold!r} has type {type(manifold).__name__}, without "
            f"{' and '.join(missing)}; expected an object of skdiffsmooth.manifolds."
        )


def check_idempotent(manifold: Manifold, X: Any) -> None:
    """Raise an error if `project` is not idempotent: if it moves the projections of rows.

    Parameters
    ----------
    manifold : Manifold
        The manifold to check.
    X : array-like or torch.Tensor of shape (n, d)
        Rows near which the manifold will be used.

    Raises
    ------
    TypeError
        If `manifold` has no `project`.
    ValueError
        If a projection is not finite, or moves, when it is projected once more, by more than 1e-6 of
        the largest distance between a row and the mean row.

    Notes
    -----
    Costs two projections of X.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import Circle, check_idempotent
    >>> check_idempotent(Circle([0.0, 0.0], 1.0), [[1.0, 2.0], [3.0, 1.0]])
    """
    check_manifold(manifold, "project")
    once = manifold.project(X)
    twice = manifold.project(once)
    precision = torch.finfo(once.dtype if isinstance(once, torch.Tensor) else torch.float64).eps
    X, once, twice = (
        np.asarray(rows.detach().cpu() if isinstance(rows, torch.Tensor) else rows, dtype=float)
        for rows in (X, once, twice)
    )
    if len(X) == 0:
        return
    # Divided by the largest coordinate, since squares may overflow.
    size = float(np.abs(X).max()) or 1.0
    gap = np.linalg.norm((twice - once) / size, axis=1).max()
    # If all rows are equal, the unit is their largest coordinate.
    scale = np.linalg.norm((X - X.mean(axis=0)) / size, axis=1).max() or 1.0
    # Differences below the rounding errors of large coordinates are not an error of the manifold.
    if not gap <= IDEMPOTENT * scale + 16 * precision:
        raise ValueError(
            f"manifold={manifold!r} is not idempotent: projections move by up to {gap * size:.3g} when "
            f"they are projected again, {gap / scale:.1e} of the data's scale {scale * size:.3g}; "
            f"expected at most {IDEMPOTENT:.0e} of it. Use more neighbours, or correct `project`."
        )


def polar(offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions (n, m) and lengths (n, 1) of offsets (n, m).

    An offset of length zero has the direction of the first axis. Offsets are scaled first, since squares
    of small ones would underflow.
    """
    size = offset.abs().amax(dim=1, keepdim=True)
    first = torch.zeros_like(offset)
    first[:, 0] = 1
    direction = torch.where(size > 0, offset, first) / torch.where(size > 0, size, 1.0)
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    return direction / length, size * length
