"""What every manifold promises, and the one border through which arrays and tensors reach it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.backend import to_device
from .._utils.validation import check_real_array

__all__ = [
    "Constants",
    "DifferentiableManifoldBase",
    "Manifold",
    "ManifoldBase",
    "SmoothManifold",
    "SmoothManifoldBase",
    "across_border",
    "check_idempotent",
    "has_derivative",
    "orthonormal_columns",
    "polar",
    "project_with_derivative",
    "projection_factors",
]

IDEMPOTENT = 1e-6  # The gap that `check_idempotent` allows, in units of the spread of the rows.


@runtime_checkable
class Manifold(Protocol):
    """What a manifold promises; `project` is idempotent.

    Every method takes an array-like of shape (n, d), and then answers in float64 arrays, or a
    tensor, and then answers in tensors of its type on its device.
    """

    @property
    def n_features(self) -> int:
        """Dimension d of the space around it."""
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
    """A manifold whose projection has a symmetric derivative, as the nearest point's is."""

    def projection_derivative(self, X: Any) -> Any:
        """Return G with d project / dX = T G T^T, T = tangent(X); symmetric, shape (n, k, k)."""
        ...


class ManifoldBase(ABC):
    """The methods of a manifold, from what a subclass does to checked tensors of shape (n, d)."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Dimension d of the space around it."""

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
        """An affine subspace that holds the manifold, which saves work outside it; None if not known."""
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
            than the CPU are not searched for NaN: that would wait for the device.
        """
        return across_border(self._project, X, self.n_features)

    def distance(self, X: Any) -> Any:
        """Return the distances to the manifold.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or torch.Tensor of shape (n,)
            In units of X.

        Raises
        ------
        ValueError
            As `project`.
        """
        return across_border(self._distance, X, self.n_features)

    def tangent(self, X: Any) -> Any:
        """Return bases of the tangent spaces at the projections.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or torch.Tensor of shape (n, d, k)
            Orthonormal columns; read-only where all tangent spaces are one.

        Raises
        ------
        ValueError
            As `project`.
        """
        return across_border(self._tangent, X, self.n_features)

    def _distance(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(x - self._project(x), dim=1)


class DifferentiableManifoldBase(ManifoldBase):
    """The methods of a manifold whose projection has a derivative, symmetric or not."""

    @abstractmethod
    def _projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]: ...

    def projection_factors(self, X: Any) -> tuple[Any, Any, Any]:
        """Return `project` and its derivative, which is of rank k, as a product of two factors.

        This is what log-densities along a manifold need of it.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d)
            Points.

        Returns
        -------
        foot : ndarray or torch.Tensor of shape (n, d)
            The projections.
        image : ndarray or torch.Tensor of shape (n, d, k)
            Matrices A with d foot / dX = A T^T; along them projections move.
        tangent : ndarray or torch.Tensor of shape (n, d, k)
            T, orthonormal columns, those of `tangent`: where X moves orthogonally to them its projection
            stays. Read-only where all tangent spaces are one.

        Raises
        ------
        ValueError
            As `project`.
        """
        return across_border(self._projection_factors, X, self.n_features)


class SmoothManifoldBase(DifferentiableManifoldBase):
    """The methods of a smooth manifold, from what a subclass does to tensors."""

    @abstractmethod
    def _projection_derivative(self, x: torch.Tensor) -> torch.Tensor: ...

    def projection_derivative(self, X: Any) -> Any:
        """Return the derivative of `project` in the coordinates of `tangent`.

        It is the inverse of the identity minus the shape operator of the offset X - project(X):
        below one where the manifold curves away from X, above one where it curves around it.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or torch.Tensor of shape (n, k, k)
            Symmetric matrices G with d project / dX = T G T^T, T = tangent(X).

        Raises
        ------
        ValueError
            As `project`.
        """
        return across_border(self._projection_derivative, X, self.n_features)

    def project_with_derivative(self, X: Any) -> tuple[Any, Any, Any]:
        """Return `project`, `tangent` and `projection_derivative` at once.

        What the three have in common, such as the search along a curve, is done once.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d)
            Points.

        Returns
        -------
        foot : ndarray or torch.Tensor of shape (n, d)
            The nearest points.
        tangent : ndarray or torch.Tensor of shape (n, d, k)
            Orthonormal columns; read-only where all tangent spaces are one.
        derivative : ndarray or torch.Tensor of shape (n, k, k)
            Symmetric matrices G with d foot / dX = T G T^T, T = tangent.

        Raises
        ------
        ValueError
            As `project`.
        """
        return across_border(self._project_with_derivative, X, self.n_features)

    def _project_with_derivative(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._project(x), self._tangent(x), self._projection_derivative(x)

    def _projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        foot, tangent, derivative = self._project_with_derivative(x)
        return foot, tangent @ derivative, tangent


def project_with_derivative(manifold: SmoothManifold, X: Any) -> tuple[Any, Any, Any]:
    """Return projections, tangents and derivatives, at once where the manifold can.

    Parameters
    ----------
    manifold : SmoothManifold
        What projects; `project_with_derivative` is no part of that protocol, to keep it small.
    X : array-like or torch.Tensor of shape (n, d)
        Points.

    Returns
    -------
    foot : ndarray or torch.Tensor of shape (n, d)
    tangent : ndarray or torch.Tensor of shape (n, d, k)
    derivative : ndarray or torch.Tensor of shape (n, k, k)
    """
    at_once = getattr(manifold, "project_with_derivative", None)
    if at_once is not None:
        return at_once(X)
    return manifold.project(X), manifold.tangent(X), manifold.projection_derivative(X)


def has_derivative(manifold: Manifold) -> bool:
    """Tell whether a manifold answers `projection_factors`, by itself or by its derivative."""
    return hasattr(manifold, "projection_factors") or hasattr(manifold, "projection_derivative")


def projection_factors(manifold: Manifold, X: Any) -> tuple[Any, Any, Any]:
    """Return projections and the factors A, T of their derivatives A T^T.

    Parameters
    ----------
    manifold : Manifold
        One that `has_derivative`.
    X : array-like or torch.Tensor of shape (n, d)
        Points.

    Returns
    -------
    foot : ndarray or torch.Tensor of shape (n, d)
    image : ndarray or torch.Tensor of shape (n, d, k)
    tangent : ndarray or torch.Tensor of shape (n, d, k)
        Orthonormal columns.
    """
    own = getattr(manifold, "projection_factors", None)
    if own is not None:
        return own(X)
    foot, tangent, derivative = project_with_derivative(cast(SmoothManifold, manifold), X)
    return foot, tangent @ derivative, tangent


class Constants:
    """Arrays as tensors, copied once to each place and type in which they are asked for.

    A copy at every call would make the host wait for the device. The copies are no part of a
    pickle, which must load where the device is missing.

    Parameters
    ----------
    *arrays : ndarray
        Never changed. Floating-point ones follow the type of the queries, integers stay integers.
    """

    def __init__(self, *arrays: np.ndarray) -> None:
        self._arrays = arrays
        self._copies: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, ...]] = {}

    def __reduce__(self) -> tuple[type[Constants], tuple[np.ndarray, ...]]:
        return Constants, self._arrays

    def like(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the arrays as tensors on the device of `x`, in its type."""
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
    """Check X, and answer arrays by arrays and tensors by tensors; several in a tuple."""
    is_tensor = isinstance(X, torch.Tensor)
    x = X if is_tensor else torch.from_numpy(check_real_array("X", X))
    if x.ndim != 2 or x.shape[1] != n_features:
        raise ValueError(
            f"X has shape {tuple(x.shape)}; expected (n, {n_features}), as many columns as the "
            "space around the manifold has dimensions."
        )
    if not x.is_floating_point():
        raise ValueError(
            f"X is a tensor of {x.dtype}; expected a floating-point one. Pass X.double()."
        )
    # Elsewhere than on a CPU the answer would have to be waited for. A finite sum is a quick proof.
    if x.device.type == "cpu" and not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        raise ValueError(
            f"X holds {int((~torch.isfinite(x)).sum())} values that are NaN or infinite; expected "
            "finite numbers. Drop those rows or impute them."
        )
    answer = method(x)
    if is_tensor:
        return answer
    return tuple(map(_array, answer)) if isinstance(answer, tuple) else _array(answer)


def _array(answer: torch.Tensor) -> np.ndarray:
    """Return a tensor of the CPU as an array."""
    array = answer.numpy()
    if array.size and 0 in array.strides:
        # Rows that share their memory must not be written to.
        array.flags.writeable = False
    return array


def orthonormal_columns(name: str, directions: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of what finite columns span; the first keeps its direction.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    directions : ndarray of shape (d, k)
        Finite, with k <= d.

    Returns
    -------
    ndarray of shape (d, k)

    Raises
    ------
    ValueError
        If the columns are dependent.
    """
    n_columns = directions.shape[1]
    if np.linalg.matrix_rank(directions) < n_columns:
        raise ValueError(
            f"the {n_columns} columns of {name} are dependent; expected independent ones. Drop the "
            "redundant directions."
        )
    basis, triangle = np.linalg.qr(directions)
    return basis * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)


def check_idempotent(manifold: Manifold, X: Any) -> None:
    """Raise unless projections of projections stay where they are.

    Parameters
    ----------
    manifold : Manifold
        What projects.
    X : array-like or torch.Tensor of shape (n, d)
        Rows near which the manifold will be used.

    Raises
    ------
    ValueError
        If a projection moves by more than 1e-6 of the largest distance between a row and the mean
        row, when it is projected once more, or is not finite.

    Notes
    -----
    Costs two projections of X.

    Examples
    --------
    >>> from skdiffsmooth.manifolds import Circle, check_idempotent
    >>> check_idempotent(Circle([0.0, 0.0], 1.0), [[1.0, 2.0], [3.0, 1.0]])
    """
    once = manifold.project(X)
    twice = manifold.project(once)
    precision = torch.finfo(once.dtype if isinstance(once, torch.Tensor) else torch.float64).eps
    X, once, twice = (
        np.asarray(rows.detach().cpu() if isinstance(rows, torch.Tensor) else rows, dtype=float)
        for rows in (X, once, twice)
    )
    if len(X) == 0:
        return
    # In units of the largest coordinate, whose square may not be a number.
    size = float(np.abs(X).max()) or 1.0
    gap = np.linalg.norm((twice - once) / size, axis=1).max()
    # Equal rows have no spread, so their own size stands in.
    scale = np.linalg.norm((X - X.mean(axis=0)) / size, axis=1).max() or 1.0
    # What far-away coordinates cannot resolve is no fault of the manifold.
    if not gap <= IDEMPOTENT * scale + 16 * precision:
        raise ValueError(
            f"manifold={manifold!r} is not idempotent: projections move by up to {gap * size:.3g} when "
            f"they are projected again, {gap / scale:.1e} of the data's scale {scale * size:.3g}; "
            f"expected at most {IDEMPOTENT:.0e} of it. Use more neighbours, or mend its `project`."
        )


def polar(offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions and lengths of offsets; those of length zero have the first direction.

    Parameters
    ----------
    offset : torch.Tensor of shape (n, m)
        Of any size: squares of small ones would underflow, so they are scaled before.

    Returns
    -------
    direction : torch.Tensor of shape (n, m)
    length : torch.Tensor of shape (n, 1)
    """
    size = offset.abs().amax(dim=1, keepdim=True)
    first = torch.zeros_like(offset)
    first[:, 0] = 1
    direction = torch.where(size > 0, offset, first) / torch.where(size > 0, size, 1.0)
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    return direction / length, size * length
