"""Derivatives of projections that are written in torch, by forward-mode automatic differentiation."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.memory import slices_within
from ._base import Manifold, has_derivative

# Bound in MiB on temporaries of the differentiated projections, at a dozen vectors for each.
_MEMORY = 64

# Number of rows at which a derivative is checked, the fraction of them at which it must be right, and
# its largest relative error there. Difference quotients have errors of 1e-9; a derivative that lacks a
# term has errors of about 0.1.
_N_CHECKED = 16
_AGREE = 0.75
_TOLERANCE = 1e-4


class ForwardMode:
    """A manifold to which automatic differentiation of `project` adds the derivative.

    It costs one projection for each coordinate. `project` must take tensors and consist of operations
    of torch that forward mode supports.
    """

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    @property
    def n_features(self) -> int:
        """See `Manifold`."""
        return self.manifold.n_features

    @property
    def dimension(self) -> int:
        """See `Manifold`."""
        return self.manifold.dimension

    @property
    def reach(self) -> float | None:
        """See `Manifold`."""
        return self.manifold.reach

    @property
    def affine_hull(self) -> AffineHull | None:
        """The affine hull of the manifold; None if not known."""
        return getattr(self.manifold, "affine_hull", None)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """See `Manifold`."""
        return self.manifold.project(x)

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        """See `Manifold`."""
        return self.manifold.distance(x)

    def tangent(self, x: torch.Tensor) -> torch.Tensor:
        """See `Manifold`."""
        return self.manifold.tangent(x)

    def projection_factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `DifferentiableManifoldBase`."""
        r = x.shape[1]
        factors = [
            self._factors_of_tile(x[tile])
            for tile in slices_within(len(x), 12 * x.element_size() * r * max(r, 1), _MEMORY)
        ]
        foot, image, tangent = zip(*factors, strict=True)
        return torch.cat(foot), torch.cat(image), torch.cat(tangent)

    def _factors_of_tile(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n, r = x.shape
        # Rows are independent: one pass over r copies of each row gives its derivatives along all axes.
        axes = torch.eye(r, dtype=x.dtype, device=x.device).repeat(n, 1)
        values = torch.func.jvp(self.project, (x.repeat_interleave(r, 0),), (axes,))
        feet, columns = values[0], values[1]
        jacobian = columns.view(n, r, r).mT
        # The Jacobian has rank k, so that k independent combinations of its rows span all of them.
        tangent = torch.linalg.qr(jacobian.mT @ self.tangent(x))[0]
        return feet.view(n, r, r)[:, 0], jacobian @ tangent, tangent


def differentiable(manifold: Manifold, x: np.ndarray) -> Manifold:
    """Return a manifold with a derivative, computed by forward mode if it has none of its own.

    The derivative is checked at some of the data x (n, r). If it is wrong, the manifold is returned
    unchanged. That happens if `project` computes outside torch, or is piecewise constant.
    """
    if has_derivative(manifold) or not len(x):
        return manifold
    forward = ForwardMode(manifold)
    rows = torch.from_numpy(x[np.linspace(0, len(x) - 1, min(_N_CHECKED, len(x))).astype(int)])
    try:
        with warnings.catch_warnings():
            # Torch warns when forward mode is first used.
            warnings.filterwarnings(
                "ignore", message=".*torch.jit.script", category=DeprecationWarning
            )
            is_right = _is_derivative(forward, rows, _size(manifold, x))
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return manifold
    return forward if is_right else manifold


def _size(manifold: Manifold, x: np.ndarray) -> float:
    """Return the largest distance of a coordinate from its mean, or the reach if that is zero."""
    reach = manifold.reach
    own = 1.0 if reach is None or not math.isfinite(reach) else float(reach)
    return float(np.abs(x - x.mean(axis=0)).max()) or own


def _is_derivative(forward: ForwardMode, x: torch.Tensor, size: float) -> bool:
    """Return whether derivatives P equal difference quotients, and P^2 = P on the manifold."""
    noise = torch.from_numpy(np.random.RandomState(0).standard_normal((2, *x.shape)))
    away, direction = 0.1 * size * noise[0] / x.shape[1] ** 0.5, noise[1]
    _, image, tangent = forward.projection_factors(forward.project(x))
    # On the manifold the derivative P is a projection: P^2 = P, of rank k.
    square = tangent.mT @ image
    identity = torch.eye(square.shape[1], dtype=x.dtype)
    on_it = (square - identity).abs().flatten(1).amax(1) < _TOLERANCE
    _, image, tangent = forward.projection_factors(x + away)
    derivative = (image @ (tangent.mT @ direction[:, :, None]))[..., 0]
    step = 1e-5 * size * direction
    quotient = (forward.project(x + away + step) - forward.project(x + away - step)) / (2e-5 * size)
    error = torch.linalg.vector_norm(derivative - quotient, dim=1)
    off_it = error < _TOLERANCE * (1 + torch.linalg.vector_norm(quotient, dim=1)) ** 2
    return all(float(part.double().mean()) >= _AGREE for part in (on_it, off_it))
