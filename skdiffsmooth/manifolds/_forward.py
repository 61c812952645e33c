"""Derivatives of projections that are written in torch, by forward mode."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.memory import slices_within
from ._base import Manifold, has_derivative

__all__ = ["ForwardMode", "differentiable"]

# Temporaries of the projections that are differentiated, in MiB, when each holds a dozen vectors.
_MEMORY = 64

# Rows at which a derivative is checked, and the share of them that must agree to such an error: that of
# difference quotients is 1e-9 of the derivative, that of a derivative that lacks a term a tenth of it.
_N_CHECKED = 16
_AGREE = 0.75
_TOLERANCE = 1e-4


class ForwardMode:
    """A manifold with the derivative of what its `project` computes, in all coordinates at once.

    It costs as many projections as there are coordinates.

    Parameters
    ----------
    manifold : Manifold
        One that answers tensors by operations of torch that forward mode can follow.
    """

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    @property
    def n_features(self) -> int:
        """Dimension of the space around it."""
        return self.manifold.n_features

    @property
    def dimension(self) -> int:
        """Dimension k of the manifold."""
        return self.manifold.dimension

    @property
    def reach(self) -> float | None:
        """That of the manifold."""
        return self.manifold.reach

    @property
    def affine_hull(self) -> AffineHull | None:
        """That of the manifold; None if not known."""
        return getattr(self.manifold, "affine_hull", None)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Return the projections of x, shape (n, r)."""
        return self.manifold.project(x)

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        """Return the distances of x to the manifold, shape (n,)."""
        return self.manifold.distance(x)

    def tangent(self, x: torch.Tensor) -> torch.Tensor:
        """Return bases of the tangent spaces at the projections of x, shape (n, r, k)."""
        return self.manifold.tangent(x)

    def projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return projections and the factors A, T of their derivatives A T^T.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Coordinates.

        Returns
        -------
        foot : torch.Tensor of shape (n, r)
        image : torch.Tensor of shape (n, r, k)
        tangent : torch.Tensor of shape (n, r, k)
        """
        r = x.shape[1]
        found = [
            self._factors_of_tile(x[tile])
            for tile in slices_within(len(x), 12 * x.element_size() * r * max(r, 1), _MEMORY)
        ]
        foot, image, tangent = zip(*found, strict=True)
        return torch.cat(foot), torch.cat(image), torch.cat(tangent)

    def _factors_of_tile(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n, r = x.shape
        # Rows are independent: one pass over r copies, each moved along an axis of its own.
        axes = torch.eye(r, dtype=x.dtype, device=x.device).repeat(n, 1)
        found = torch.func.jvp(self.project, (x.repeat_interleave(r, 0),), (axes,))
        feet, moved = found[0], found[1]
        jacobian = moved.view(n, r, r).mT
        # Of rank k: any k combinations of its rows that are independent span them.
        tangent = torch.linalg.qr(jacobian.mT @ self.tangent(x))[0]
        return feet.view(n, r, r)[:, 0], jacobian @ tangent, tangent


def differentiable(manifold: Manifold, x: np.ndarray) -> Manifold:
    """Return a manifold with a derivative, by forward mode where it has none of its own.

    Parameters
    ----------
    manifold : Manifold
        In coordinates of the data.
    x : ndarray of shape (n, r)
        The data, at some of which the derivative is checked.

    Returns
    -------
    Manifold
        The one that was given if forward mode does not find its derivative: where it leaves torch on the
        way, or is constant but for jumps.
    """
    if has_derivative(manifold) or not len(x):
        return manifold
    forward = ForwardMode(manifold)
    rows = torch.from_numpy(x[np.linspace(0, len(x) - 1, min(_N_CHECKED, len(x))).astype(int)])
    try:
        with warnings.catch_warnings():
            # Torch's own, when forward mode is first used.
            warnings.filterwarnings(
                "ignore", message=".*torch.jit.script", category=DeprecationWarning
            )
            is_right = _is_derivative(forward, rows, _size(manifold, x))
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return manifold
    return forward if is_right else manifold


def _size(manifold: Manifold, x: np.ndarray) -> float:
    """Return the largest distance of a coordinate from its mean; a single row has the manifold's."""
    reach = manifold.reach
    own = 1.0 if reach is None or not math.isfinite(reach) else float(reach)
    return float(np.abs(x - x.mean(axis=0)).max()) or own


def _is_derivative(forward: ForwardMode, x: torch.Tensor, size: float) -> bool:
    """Check laws of a projection on its manifold, and difference quotients beside it."""
    noise = torch.from_numpy(np.random.RandomState(0).standard_normal((2, *x.shape)))
    away, direction = 0.1 * size * noise[0] / x.shape[1] ** 0.5, noise[1]
    _, image, tangent = forward.projection_factors(forward.project(x))
    # Places of the manifold that move along it are followed: P^2 = P, of rank k.
    square = tangent.mT @ image
    identity = torch.eye(square.shape[1], dtype=x.dtype)
    on_it = (square - identity).abs().flatten(1).amax(1) < _TOLERANCE
    _, image, tangent = forward.projection_factors(x + away)
    found = (image @ (tangent.mT @ direction[:, :, None]))[..., 0]
    step = 1e-5 * size * direction
    quotient = (forward.project(x + away + step) - forward.project(x + away - step)) / (2e-5 * size)
    error = torch.linalg.vector_norm(found - quotient, dim=1)
    beside = error < _TOLERANCE * (1 + torch.linalg.vector_norm(quotient, dim=1)) ** 2
    return all(float(part.double().mean()) >= _AGREE for part in (on_it, beside))
