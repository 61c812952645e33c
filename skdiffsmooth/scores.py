"""Score fields: gradients of log-densities of noised data, with their divergences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch

from ._engine.component_posterior import ComponentPosterior
from ._engine.components import GaussianComponents
from ._engine.hierarchy import PointHierarchy
from ._engine.influence import Influence
from ._engine.moments import Denoiser, Nodes
from ._engine.periodic import make_posterior
from ._engine.posterior import Posterior
from ._utils.backend import Backend
from ._utils.shards import ONE_PROCESS, Shards
from .noise import NoiseLevels

__all__ = [
    "Attributable",
    "Potential",
    "RowSelectable",
    "Schedule",
    "ScoreField",
    "ScoreSchedule",
    "SmoothedScore",
    "Smoothing",
]


# A schedule stores the fields of all its levels if their node tables have at most this many elements.
_MOST_KEPT = 2**21


class ScoreField(Protocol):
    """Protocol of the score at queries x (n, r) and noise variance v, and of its divergence."""

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the score, shape (n, r)."""
        ...

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score, shape (n, r), and its divergence, shape (n,)."""
        ...


@runtime_checkable
class Potential(ScoreField, Protocol):
    """A score field that is the gradient of a known function."""

    def log_density(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return l (n,) in nats, whose gradient is the score; exp(l) need not integrate to one."""
        ...


@runtime_checkable
class RowSelectable(ScoreField, Protocol):
    """A score field that can return the field of some of its queries, given by their indices."""

    def rows(self, index: torch.Tensor) -> ScoreField:
        """Return the field of the queries with these indices, shape (m,)."""
        ...


@runtime_checkable
class Attributable(ScoreField, Protocol):
    """Protocol of a score field that returns the influence of every training row.

    The influence of a row is its posterior weight, and the derivative of the posterior mean in the
    logarithm of its weight.
    """

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """Return the influence; its derivatives divided by v are derivatives of the score."""
        ...


class Schedule(Protocol):
    """Protocol of a sequence of score fields, one for each noise level, as solvers use it."""

    def at(self, level: int) -> ScoreField:
        """Return the field of one noise level, the same at every call."""
        ...


class Smoothing(Protocol):
    """Protocol of a fitted kernel, which smooths the score at each noise level.

    It holds arrays only, so that it can be pickled with the estimator and used on any device.
    """

    @property
    def has_divergence(self) -> bool:
        """Whether the fields have a divergence, so that log-densities can be computed."""
        ...

    @property
    def n_nodes(self) -> int:
        """Number of nodes at a noise level; of each cell, if the kernel has cells."""
        ...

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> ScoreField:
        """Return the field of one noise level, the same at every call; `exclude` as in `Denoiser`."""
        ...


@dataclass(frozen=True)
class SmoothedScore:
    """The empirical score averaged over one fixed set of nodes.

    With D the posterior mean, s(x, v) = sum_m q_m (D(x + xi_m) - x - xi_m) / v, which is the
    gradient of l(x) = sum_m q_m log p_v(x + xi_m) (Farghly et al. 2025, eq. 5-7). The divergence is
    (sum_m q_m tr Cov(x + xi_m) / v - r) / v or, where the nodes have factors of Stein's identity, an
    estimate from log p_v with the same limit for many nodes. The code omits sum_m q_m xi_m, which is 0.

    Parameters
    ----------
    posterior : Denoiser
        The posterior of the data under noise.
    nodes : Nodes
        The kernel's quadrature rule; a single zero node gives the empirical score itself.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that is excluded for each query.
    shift : float, default=0.0
        Correction that is added to v times the divergence, without unit.
    """

    posterior: Denoiser
    nodes: Nodes
    exclude: torch.Tensor | None = None
    shift: float = 0.0

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """See `ScoreField`."""
        return (self.posterior.mean(x, v, self.nodes, exclude=self.exclude) - x) / v

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ScoreField`."""
        moments = self.posterior.moments(x, v, self.nodes, trace=True, exclude=self.exclude)
        assert moments.trace is not None
        return (moments.mean - x) / v, (moments.trace / v + (self.shift - x.shape[1])) / v

    def by_traces(self) -> SmoothedScore:
        """Return the same field with its exact divergence, whatever factors the nodes have."""
        return replace(self, nodes=self.nodes.without_stein(), shift=0.0)

    def log_density(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """See `Potential`."""
        return self.posterior.moments(x, v, self.nodes, exclude=self.exclude).log_density

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """See `Attributable`. No point may be excluded."""
        positions = x[:, None] + self.nodes.offsets
        return cast(Posterior, self.posterior).influence(positions, v, self.nodes.weights)

    def rows(self, index: torch.Tensor) -> SmoothedScore:
        """See `RowSelectable`."""
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])


class ScoreSchedule:
    """The smoothed score fields of all noise levels, as a solver uses them.

    Parameters
    ----------
    levels : NoiseLevels
        The noise range and its intervals.
    hierarchy : PointHierarchy
        The training points; at large noise close ones are merged.
    smoothing : Smoothing
        The fitted kernel, which makes the field of a level.
    backend : Backend
        Device and dtype of points and nodes.
    memory_limit : float
        Bound on the temporaries of one call, in MiB.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that is excluded for each query.
    shards : Shards, default=ONE_PROCESS
        The processes over which the training points are distributed.
    base : GaussianComponents, optional
        The distribution whose score is smoothed, in place of the points.
    periods : ndarray of shape (r,), optional
        Periods of the coordinates, 0 for one without.
    """

    def __init__(
        self,
        levels: NoiseLevels,
        hierarchy: PointHierarchy,
        smoothing: Smoothing,
        backend: Backend,
        memory_limit: float,
        exclude: torch.Tensor | None = None,
        shards: Shards = ONE_PROCESS,
        base: GaussianComponents | None = None,
        periods: np.ndarray | None = None,
    ) -> None:
        self.levels = levels
        self.hierarchy = hierarchy
        self.smoothing = smoothing
        self.backend = backend
        self.memory_limit = memory_limit
        self.exclude = exclude
        self.shards = shards
        self.base = base
        self.periods = periods
        self._unmerged: Denoiser | None = None
        self._fields: dict[int, ScoreField] = {}
        n_points, dimension = hierarchy.points.shape
        most_columns = min(_MOST_KEPT, memory_limit * 2**13) / (levels.n_levels * n_points)
        self.is_small = (
            shards.alone
            and dimension < most_columns
            and dimension + smoothing.n_nodes < most_columns
        )

    def at(self, level: int) -> ScoreField:
        """Return the score field of a noise level; its points and its nodes are fixed."""
        field = self._fields.get(level)
        if field is None:
            field = self._field(level, self.levels.start(level))
            # Solvers make several steps in a level before the next one, so the latest is stored.
            self._fields = {**(self._fields if self.is_small else {}), level: field}
        return field

    def at_scale(self, scale: float) -> ScoreField:
        """Return the field of a noise scale, in units of X, which may be below all levels."""
        level = self.levels.level_of(scale)
        if scale >= self.levels.start(level):
            return self.at(level)
        return self._field(level, scale)

    def posterior_at(self, scale: float) -> Denoiser:
        """Return the posterior of the data, with points merged as far as a noise scale allows."""
        if self.base is not None:
            if self._unmerged is None:
                limit = self.memory_limit
                self._unmerged = ComponentPosterior(self.base, self.backend, memory_limit=limit)
            return self._unmerged
        points, weights = self.hierarchy.at(scale)
        # Either all processes make a new posterior, which exchanges values between them, or none does.
        merged = self.shards.largest(points is not self.hierarchy.points)
        if not merged and self._unmerged is not None:
            return self._unmerged
        posterior = make_posterior(
            points,
            weights,
            self.periods,
            self.backend,
            memory_limit=self.memory_limit,
            shards=self.shards,
            radius=float(np.linalg.norm(points, axis=1).max()),
        )
        if not merged:
            self._unmerged = posterior
        return posterior

    def _field(self, level: int, scale: float) -> ScoreField:
        posterior = self.posterior_at(scale)
        return self.smoothing.field(level, posterior, self.backend, self.exclude)
