"""The local scores of all noise levels, as a `ScoreSource` of a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from .._diffusion.settings import Resources
from .._diffusion.source import NoisedData
from .._engine.hierarchy import PointHierarchy
from .._engine.local import ColumnGroups, LocalPosterior
from .._utils.backend import Backend
from .._utils.cached import cached_property
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.shards import ONE_PROCESS
from ..kernels._nodes import NodeRule
from ..kernels._shapes import FrozenKernel, LinearShape
from ..noise import NoiseLevels
from ..solvers._terminal import TerminalDistribution
from .local_groups import ShiftedImages

# Weight of each moved copy of a row, relative to that of the row.
_COPY_WEIGHT = 0.3


class LocalPart(NamedTuple):
    """A local denoiser: the posterior mean under a mixture of Gaussians at the rows, in each group."""

    groups: ColumnGroups
    width: float  # Covariance of the Gaussians over that of the data
    shifts: int  # Gaussians are also at copies of the rows moved by up to this many pixels


@dataclass(frozen=True, eq=False)
class PointTables:
    """Rows (N, d), weights (N,) and moved copies of the rows on a device, shared by all denoisers."""

    points: np.ndarray
    weights: np.ndarray
    images: ShiftedImages | None
    background: tuple[float, float]
    backend: Backend
    memory_limit: float
    _tables: dict[int, tuple[torch.Tensor, torch.Tensor, int]] = field(default_factory=dict)

    def posterior(self, part: LocalPart, covariance: np.ndarray) -> LocalPosterior:
        """Return the posterior of a denoiser, given the covariance (d, d) of the data."""
        if part.shifts not in self._tables:
            images = self.images if part.shifts else None
            points = images.copies(self.points) if images else self.points
            copies = len(points) // len(self.points)
            of_copies = np.append(1.0, np.full(copies - 1, _COPY_WEIGHT))
            log_weights = np.log(np.outer(of_copies / of_copies.sum(), self.weights)).ravel()
            # Transposed, as posteriors use them, so that all of them share this memory.
            transposed = self.backend.tensor(points.T).T
            self._tables[part.shifts] = transposed, self.backend.tensor(log_weights), copies
        rows, log_weights_of_rows, copies = self._tables[part.shifts]
        own = part.width * covariance if part.width else None
        settings = self.memory_limit, self.background, copies
        return LocalPosterior(rows, log_weights_of_rows, part.groups, own, *settings)


@dataclass(frozen=True, eq=False)
class LevelMixture:
    """The denoisers of one noise level and their weights, which sum to one."""

    parts: tuple[LocalPart, ...]  # Local denoisers
    weights: np.ndarray  # (n_parts,): their weights
    # Weight of the Wiener filter, the denoiser of a Gaussian with the data's covariance
    gaussian_weight: float

    def described(self) -> list[dict[str, Any]]:
        """Return the denoisers in the form of the attribute `parts_`."""
        rows: list[tuple[Any, ...]] = [
            (part.groups.size, part.width, part.shifts, float(weight))
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        if self.gaussian_weight:
            rows.append((None, None, None, self.gaussian_weight))
        return [dict(zip(("size", "width", "shifts", "weight"), row, strict=True)) for row in rows]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The Gaussian N(0, A diag(variances) A^T + v I); a terminal distribution and a denoiser."""

    axes: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, covariance: np.ndarray) -> Gaussian:
        """Return the Gaussian N(0, covariance) without noise, from a covariance (d, d)."""
        variances, axes = np.linalg.eigh(covariance)
        return cls(axes, np.maximum(variances, 0.0))

    def score(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, float]:
        """Return the score (n, d) with noise of variance v, and its divergence."""
        axes = x.new_tensor(self.axes)
        precision = 1 / (self.variances + v)
        return -((x @ axes) * x.new_tensor(precision)) @ axes.T, -float(precision.sum())

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """See `TerminalDistribution`."""
        scaled = (x @ x.new_tensor(self.axes)) / x.new_tensor(np.sqrt(self.variances))
        normalizer = gaussian_log_normalizer(x.shape[1])
        return -0.5 * scaled.square().sum(1) - normalizer - 0.5 * np.log(self.variances).sum()

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """See `TerminalDistribution`."""
        standard = rng.standard_normal((n, len(self.variances)))
        return (standard * np.sqrt(self.variances)) @ self.axes.T


@dataclass(frozen=True)
class LocalField:
    """The score field of one noise level, averaged over offsets; see `ScoreField`.

    The field is the weighted sum of the local scores and the score of the Gaussian. `offsets` (M, d)
    have mean zero and weights `node_weights` (M,).
    """

    parts: tuple[tuple[float, LocalPosterior], ...]
    gaussian: Gaussian
    gaussian_weight: float
    offsets: torch.Tensor
    node_weights: tuple[float, ...]
    exclude: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """See `ScoreField`."""
        return self.with_divergence(x, v)[0]

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ScoreField`."""
        score, divergence = torch.zeros_like(x), x.new_zeros(len(x))
        for offset, node_weight in zip(self.offsets, self.node_weights, strict=True):
            for weight, posterior in self.parts:
                of_part, slopes = posterior.score(x + offset, v, self.exclude)
                score += node_weight * weight * of_part
                divergence += node_weight * weight * slopes.sum(1)
        if self.gaussian_weight:
            # This score is linear in x, so that averaging over offsets does not change it.
            of_gaussian, trace = self.gaussian.score(x, v)
            score += self.gaussian_weight * of_gaussian
            divergence += self.gaussian_weight * trace
        return score, divergence

    def rows(self, index: torch.Tensor) -> LocalField:
        """See `RowSelectable`."""
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])


class _LocalSchedule:
    """The fields of all levels on a device; the field of a level is made when it is first used."""

    def __init__(
        self, source: LocalScores, resources: Resources, exclude: np.ndarray | None
    ) -> None:
        self.source, self.memory_limit = source, resources.memory_limit
        points = source.points
        largest = max(np.abs(points).max(initial=0.0), source.levels.terminal_scale)
        self.backend: Backend = resources.backend.promote_to_float64(
            source.levels.bandwidth, largest
        )
        settings = source.images, source.background, self.backend, self.memory_limit
        self.tables = PointTables(points, source.weights, *settings)
        device = self.backend.device
        self.exclude = None if exclude is None else torch.from_numpy(exclude).to(device)
        self._last: tuple[int, LocalField] | None = None

    def at(self, level: int) -> LocalField:
        """See `Schedule`."""
        if self._last is None or self._last[0] != level:
            self._last = level, self._field(level)
        return self._last[1]

    def at_scale(self, scale: float) -> LocalField:
        """Return the field of the level that contains a noise scale."""
        return self.at(self.source.levels.level_of(scale))

    def _field(self, level: int) -> LocalField:
        source = self.source
        mixture = source.mixtures[level]
        parts = tuple(
            (float(weight), self.tables.posterior(part, source.covariance))
            for part, weight in zip(mixture.parts, mixture.weights, strict=True)
        )
        offsets, node_weights = np.zeros((1, source.points.shape[1])), np.ones(1)
        if source.sigma:
            offsets, node_weights = source.kernel.nodes(level)
        return LocalField(
            parts,
            source.gaussian,
            mixture.gaussian_weight,
            self.backend.tensor(offsets),
            tuple(node_weights.tolist()),
            self.exclude,
        )


@dataclass(frozen=True, eq=False)
class LocalScores:
    """Training rows less their mean, and the denoisers of each noise level; a `ScoreSource`."""

    levels: NoiseLevels
    points: np.ndarray  # (N, d): distinct rows less their mean
    weights: np.ndarray  # (N,), which sum to one
    covariance: np.ndarray  # (d, d)
    mixtures: tuple[LevelMixture, ...]  # One for each level
    images: ShiftedImages | None  # Makes moved copies of rows
    background: tuple[float, float]  # Weight and variance of the background in each group
    sigma: float
    rule: NodeRule
    terminal_name: str  # "gaussian" or "empirical"
    n_probes: ClassVar[int] = 1
    has_divergence: ClassVar[bool] = True

    @property
    def kernel(self) -> FrozenKernel:
        """The Gaussian kernel that the scores are averaged over, the same at all levels."""
        shape = LinearShape(np.eye(self.points.shape[1]))
        return FrozenKernel(shape, np.full(self.levels.n_levels, self.sigma), self.rule)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian with the mean (zero) and covariance of the rows, without noise."""
        return Gaussian.of(self.covariance)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to save, without the cached Gaussian, so that queries do not change it."""
        return {name: value for name, value in vars(self).items() if name != "gaussian"}

    def from_level(self, first: int) -> LocalScores:
        """Return the source without the levels below `first`."""
        levels, mixtures = self.levels, self.mixtures[first:]
        levels = NoiseLevels(levels.start(first), levels.terminal_scale, len(mixtures))
        return replace(self, levels=levels, mixtures=mixtures)

    def schedule(
        self, resources: Resources, exclude: np.ndarray | None = None, n_queries: int | None = None
    ) -> _LocalSchedule:
        """See `ScoreSource`."""
        return _LocalSchedule(self, resources, exclude)

    def terminal(
        self, schedule: _LocalSchedule, exclude: np.ndarray | None = None
    ) -> TerminalDistribution:
        """See `ScoreSource`."""
        scale = self.levels.terminal_scale
        if self.terminal_name == "gaussian":
            return replace(self.gaussian, variances=self.gaussian.variances + scale**2)
        hierarchy = PointHierarchy.of(self.points, self.weights, 0.0, self.levels.bandwidth)
        data = NoisedData(self.levels, hierarchy, self.kernel, None, "empirical", self.points, None)
        resources = Resources(schedule.backend, schedule.memory_limit, 1, ONE_PROCESS)
        return data.terminal(data.schedule(resources, exclude), exclude)

    def rows_at_once(self, memory_limit: float) -> int | None:
        """See `ScoreSource`."""
        return None
