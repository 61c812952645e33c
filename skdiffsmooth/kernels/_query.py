"""A kernel whose offsets depend on the query, by a function of the user."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._engine.moments import Denoiser, Nodes
from .._utils.backend import Backend
from .._utils.memory import slices_within
from ..scores import ScoreField, SmoothedScore
from ._base import ReducedKernel
from ._moved import Derivative, MovedScore
from ._nodes import NodeRule, default_n_nodes
from ._shapes import FrozenKernel, LinearShape

Offsets = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Rows at which the derivative is compared with difference quotients, and the relative error allowed:
# quotients have errors of 1e-9, derivatives that lack a term of 0.1.
_N_CHECKED = 16
_TOLERANCE = 1e-4
# MiB for the offsets of the rows at which a function is checked.
_MEMORY = 64


class QueryKernel:
    """Offsets that depend on the query, for which the user passes a function.

    The score is averaged over the moved queries. The field is not a gradient, so there is no energy; the
    likelihood integrates the field's exact divergence, for which torch's forward mode differentiates
    the offsets in the query. If the function does not allow this, the model has no densities.

    Parameters
    ----------
    offsets : callable
        ``offsets(x, z)`` takes queries x, a tensor (n, d) in units of X, and Gaussian offsets z, a
        tensor (M, d) of scale `sigma` in all directions, and returns the offsets of each query, a
        tensor (n, M, d). Those of a query must not depend on other queries. An offset of zero must stay
        zero, and the mean over z should be zero, as it is for offsets linear in z: otherwise the score
        at small noise moves queries by minus the mean.

    Raises
    ------
    TypeError
        If `offsets` cannot be called; at `fit`, if it does not return a tensor.
    ValueError
        At `fit`, if the tensor has another shape, or is not finite at the training rows.

    See Also
    --------
    skdiffsmooth.ManifoldAdaptedDiffusion : Offsets along a manifold that is known or learned.
    OffsetsKernel : The same offsets at every query.

    Notes
    -----
    A Gaussian kernel of covariance ``sigma^2 F(x) F(x)^T`` is ``lambda x, z: torch.einsum("nij,mj->nmi",
    F(x), z)``; F must be a differentiable function of x.

    Write the function in torch, and define it in a module if the model is to be saved. `fit` compares
    its derivative with difference quotients at up to 16 training rows; if they differ by more than a
    relative 1e-4, `score_samples` raises an error. A jump between these rows is not found: the density
    then does not integrate to one (but to 0.988 with offsets that are zero on one side of a line through
    a circle). Queries are projected to the affine hull of the data, and are in the coordinates of the
    metric, by default those of X. Parameters are not compared by likelihood: `bandwidth` and `sigma` at
    "auto" are 0.85 and 1.5 times the leave-one-out bandwidth of the KDE.

    The cost is one softmax over the rows for each pair of query and node and, for log-densities, r
    derivatives of the function and products with r columns of posterior covariances, with r the
    dimension of the hull.

    Examples
    --------
    Smoothing that fades out away from the origin; the density is normalised:

    >>> import numpy as np
    >>> import torch
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.kernels import QueryKernel
    >>> def fading(x, z):
    ...     return torch.exp(-x.square().sum(1))[:, None, None] * z
    >>> X = np.random.RandomState(0).normal(size=(20, 1))
    >>> model = SmoothedScoreDiffusion(0.3, 0.5, kernel=QueryKernel(fading)).fit(X)
    >>> grid = np.linspace(-5, 5, 200)[:, None]
    >>> bool(abs(np.exp(model.score_samples(grid)).sum() * 10 / 199 - 1) < 0.01)
    True
    """

    is_isotropic: ClassVar[bool] = False
    works_over_base: ClassVar[bool] = True
    depends_on_query: ClassVar[bool] = True

    def __init__(self, offsets: Offsets) -> None:
        if not callable(offsets):
            raise TypeError(
                f"offsets={offsets!r} has type {type(offsets).__name__}; expected a function "
                "offsets(x, z) of tensors that returns a tensor (n, M, d)."
            )
        self.offsets = offsets

    def __repr__(self) -> str:
        return f"QueryKernel({self.offsets!r})"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """See `Kernel`; estimators call this."""
        size = float(np.abs(points - points.mean(axis=0)).max()) or 1.0
        directions = torch.eye(points.shape[1], dtype=torch.float64)
        z = 0.1 * size * torch.cat([directions, -directions])
        widest = 0.0
        x = torch.from_numpy(points)
        for rows in slices_within(len(x), 8 * z.numel() * 4, _MEMORY):
            moved = _checked(self.offsets(x[rows], z), x[rows], z)
            widest = max(widest, float(torch.linalg.matrix_norm(moved, 2).max()))
        widest_std = widest / float(torch.linalg.matrix_norm(z, 2))
        few = x[np.linspace(0, len(x) - 1, min(_N_CHECKED, len(x))).astype(int)]
        return _QueryShape(self.offsets, hull, widest_std, _is_differentiable(self.offsets, few, z))


@dataclass(frozen=True)
class _QueryShape:
    """A `ReducedKernel`: the user's function, and the hull in whose coordinates the flow is computed."""

    offsets: Offsets
    hull: AffineHull
    widest_std: float
    has_divergence: bool

    @property
    def rank(self) -> int:
        """The number d of columns, since the function takes offsets in all directions."""
        return self.hull.n_features

    @property
    def n_nodes(self) -> int:
        """See `ReducedKernel`."""
        return default_n_nodes(self.rank)

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> _FrozenQueryKernel:
        """See `ReducedKernel`."""
        gaussian = FrozenKernel(LinearShape(np.eye(self.rank)), scales, rule)
        return _FrozenQueryKernel(self.offsets, self.hull, gaussian, self.has_divergence)


@dataclass(frozen=True)
class _FrozenQueryKernel:
    """Smoothing by the user's function of Gaussian offsets, which are fixed at each level."""

    offsets: Offsets
    hull: AffineHull
    gaussian: FrozenKernel
    has_divergence: bool

    @property
    def n_nodes(self) -> int:
        """See `Smoothing`."""
        return self.gaussian.n_nodes

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the Gaussian offsets z (M, d) of one noise level, and weights (M,)."""
        return self.gaussian.nodes(level)

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> ScoreField:
        """See `Smoothing`."""
        z, weights = self.nodes(level)
        center, basis = backend.tensor(self.hull.center), backend.tensor(self.hull.basis)
        if not z.any():
            return SmoothedScore(posterior, Nodes.single(center[None] @ basis), exclude)
        nodes = Nodes.from_arrays(z, weights, backend)
        return _QueryScore(posterior, nodes, exclude, self.offsets, center, basis)


@dataclass(frozen=True)
class _QueryScore(MovedScore):
    """The empirical score averaged over x + o_m(x), with o_m the user's function of z_m.

    Queries x (n, r) and offsets o_m (n, M, r) are in the coordinates of the hull with `center` (d,) and
    `basis` (d, r); `nodes` are z_m (M, d). The derivative is dy_m/dx = I + do_m/dx.
    """

    posterior: Denoiser
    nodes: Nodes
    exclude: torch.Tensor | None
    offsets: Offsets
    center: torch.Tensor
    basis: torch.Tensor

    def rows(self, index: torch.Tensor) -> _QueryScore:
        """See `RowSelectable`."""
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])

    def _values_per_node(self, rank: int) -> int:
        """See `MovedScore`: offsets in d dimensions, and a Jacobian with its products."""
        return 6 * len(self.center) + 4 * rank * (rank + 2)

    def _push(
        self, x: torch.Tensor, offsets: torch.Tensor, *, with_derivative: bool
    ) -> tuple[torch.Tensor, Derivative | None]:
        center, basis = self.center.to(x.dtype), self.basis.to(x.dtype)

        def moved(x: torch.Tensor) -> torch.Tensor:
            return self.offsets(center + x @ basis.T, offsets) @ basis

        y = x[:, None] + moved(x)
        if not with_derivative:
            return y, None
        jacobian = _jacobian(moved, x)
        identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return y, Derivative(y.new_ones(1, 1), jacobian, identity.expand_as(jacobian))


def _jacobian(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return derivatives do_m/dx (n, M, r, r) of offsets, which depend on their own row x only."""
    axes = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    with warnings.catch_warnings():
        # Torch warns when forward mode is first used.
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        columns = [torch.func.jvp(function, (x,), (axis.expand_as(x),))[1] for axis in axes]
    if not columns:
        return x.new_empty(*function(x).shape, 0)
    return torch.stack(columns, dim=-1)


def _checked(offsets: object, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return the result of the user's function, or raise an error if it is no tensor (n, M, d)."""
    if not isinstance(offsets, torch.Tensor):
        raise TypeError(
            f"offsets(x, z) returned an object of type {type(offsets).__name__}; expected a tensor "
            "(n, M, d). Write the function in torch; torch.from_numpy(...) suffices for samples."
        )
    expected = len(x), *z.shape
    if tuple(offsets.shape) != expected:
        raise ValueError(
            f"offsets(x, z) returned the shape {tuple(offsets.shape)} for x of shape "
            f"{tuple(x.shape)} and z of shape {tuple(z.shape)}; expected {expected}, one offset for "
            "each query and node."
        )
    if not torch.isfinite(offsets).all():
        raise ValueError(
            "offsets(x, z) returned NaN or infinity at a training row; expected finite offsets."
        )
    return offsets


def _is_differentiable(offsets: Offsets, x: torch.Tensor, z: torch.Tensor) -> bool:
    """Return whether forward mode agrees with difference quotients at rows x (n, d)."""
    try:
        jacobian = _jacobian(lambda rows: offsets(rows, z), x)
    except (RuntimeError, TypeError, NotImplementedError):
        # The function uses another library than torch, or an operation without derivative.
        return False
    size = float(z.abs().max())
    direction = torch.from_numpy(np.random.RandomState(0).standard_normal(x.shape))
    step = 1e-5 * size * direction
    quotient = (offsets(x + step, z) - offsets(x - step, z)) / (2e-5 * size)
    along = torch.einsum("nmij,nj->nmi", jacobian, direction)
    allowed = _TOLERANCE * (1 + quotient.abs().amax((1, 2)))
    return bool(((along - quotient).abs().amax((1, 2)) <= allowed).all())
