"""The scores of a diffusion: of training rows or of a base, with noise added, and smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from .._engine.components import GaussianComponents
from .._engine.hierarchy import PointHierarchy
from .._utils.backend import Backend
from ..bandwidth import weight_of_others
from ..noise import NoiseLevels
from ..scores import Schedule, ScoreField, ScoreSchedule, Smoothing
from ..solvers._terminal import EmpiricalTerminal, GaussianTerminal, TerminalDistribution
from .settings import Resources


class DeviceSchedule(Schedule, Protocol):
    """Score fields of all noise levels on one device."""

    @property
    def backend(self) -> Backend:
        """Device and dtype of the tensors that the fields take and return."""
        ...

    def at_scale(self, scale: float) -> ScoreField:
        """Return the score field at a noise scale."""
        ...


class ScoreSource(Protocol):
    """Protocol of score fields for all noise levels, and of the terminal distribution.

    Noised data are one source, a trained network is another. `n_probes` is the number of random
    directions from which each row's divergence is estimated, 1 where it is exact.
    """

    @property
    def levels(self) -> NoiseLevels:
        """The noise range and its intervals."""
        ...

    @property
    def n_probes(self) -> int:
        """Number of flows over which a log-density is averaged."""
        ...

    @property
    def has_divergence(self) -> bool:
        """Whether the fields have a divergence, so that log-densities can be computed."""
        ...

    def schedule(
        self, resources: Resources, exclude: np.ndarray | None = None, n_queries: int | None = None
    ) -> DeviceSchedule:
        """Return the score fields on the device.

        `exclude` (n,) is the excluded point of each query. `n_queries` is the number of queries whose
        divergence is to be computed, once per probe; a network needs it to choose the probes.
        """
        ...

    def terminal(self, schedule: Any, exclude: np.ndarray | None = None) -> TerminalDistribution:
        """Return the distribution of the noised data at the largest noise scale of a schedule."""
        ...

    def rows_at_once(self, memory_limit: float) -> int | None:
        """Return how many rows fit into a limit in MiB, or None if fields split queries into tiles."""
        ...


@dataclass(frozen=True, eq=False)
class NoisedData:
    """Training rows or a base, with noise added; their score is smoothed in each noise level."""

    levels: NoiseLevels
    hierarchy: PointHierarchy
    smoothing: Smoothing
    base: GaussianComponents | None
    terminal_name: str  # "empirical" or "gaussian"
    points: np.ndarray
    """Distinct training rows (n_points, d), in units of X; with shards, those of this process."""
    shards: str | None  # The parameter `shards` as the user passed it
    periods: np.ndarray | None = None
    """Periods (r,) of the coordinates, 0 where one has none; None where no column has one."""
    n_probes: ClassVar[int] = 1

    @property
    def has_divergence(self) -> bool:
        """Whether the smoothed score has a divergence."""
        return self.smoothing.has_divergence

    def schedule(
        self,
        resources: Resources,
        exclude: np.ndarray | None = None,
        n_queries: int | None = None,
        *,
        merged: bool = True,
    ) -> ScoreSchedule:
        """Return the fields; points are merged at large noise if `merged` and none is excluded."""
        hierarchy, levels = self.hierarchy, self.levels
        # The dtype must represent the squares of data and noise scales.
        largest = max(np.abs(hierarchy.points).max(initial=0.0), levels.terminal_scale)
        backend = resources.backend.promote_to_float64(levels.bandwidth, largest)
        is_plain = exclude is None and merged
        key = backend, resources.memory_limit
        if is_plain and (kept := _KEPT.get(self)) is not None and kept[0] == key:
            return kept[1]
        if not is_plain:
            # A point that is merged with others cannot be excluded, and has no weight of its own.
            hierarchy = PointHierarchy.of(
                hierarchy.points, hierarchy.weights, 0.0, levels.bandwidth
            )
        schedule = ScoreSchedule(
            levels,
            hierarchy,
            self.smoothing,
            backend,
            resources.memory_limit,
            None if exclude is None else torch.from_numpy(exclude).to(backend.device),
            resources.shards,
            self.base,
            self.periods,
        )
        if is_plain and schedule.is_small:
            if len(_KEPT) >= _MOST_SCHEDULES:
                _KEPT.clear()
            _KEPT[self] = key, schedule
        return schedule

    def terminal(
        self, schedule: ScoreSchedule, exclude: np.ndarray | None = None
    ) -> TerminalDistribution:
        """Return the distribution of the noised data, or a Gaussian about their mean."""
        scale = self.levels.terminal_scale
        if self.terminal_name == "empirical":
            return EmpiricalTerminal(schedule, scale)
        points, weights = schedule.hierarchy.at(scale)
        mean = schedule.shards.total(weights @ points)
        if exclude is not None:
            others = weight_of_others(weights)
            heaviest = weights.argmax()
            rest = np.delete(weights, heaviest) @ np.delete(points, heaviest, axis=0)
            mean = (mean - weights[:, None] * points) / others[:, None]
            # Subtracting a point with nearly all of the weight would leave rounding errors only.
            mean[heaviest] = rest / others[heaviest]
            mean = mean[exclude]
        return GaussianTerminal(mean, scale)

    def rows_at_once(self, memory_limit: float) -> int | None:
        """Return None, since the engine splits queries into tiles."""
        return None


# Cache: schedules of small models, with backend and memory limit, for later queries. They are kept as
# long as the model, but outside of it, since queries must not change it. Each has at most 16 MiB of node
# tables.
_MOST_SCHEDULES = 16
_KEPT: WeakKeyDictionary[NoisedData, tuple[tuple[Backend, float], ScoreSchedule]] = (
    WeakKeyDictionary()
)
