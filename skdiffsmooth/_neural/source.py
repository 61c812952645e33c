"""A trained network as the source of a diffusion's scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._diffusion.settings import Resources
from .._utils.memory import rows_within
from ..kernels._nodes import NodeRule
from ..noise import NoiseLevels
from ..scores import ScoreField
from ..solvers._terminal import GaussianTerminal
from .network import NetworkSchedule, NetworkShape, ScoreNetwork

# Number of temporaries of the width of a layer that exist at the same time.
_ALIVE = 4


@dataclass(frozen=True)
class _NetworkFields(NetworkSchedule):
    """The score fields of the network, by the index of a noise level or by a noise scale."""

    levels: NoiseLevels

    def at_scale(self, scale: float) -> ScoreField:
        """Return the score field of the level that contains a noise scale."""
        return self.at(self.levels.level_of(scale))


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A `ScoreSource` with the weights of a network and the noise levels of its training.

    `scales` (r,) are the standard deviations of the rows along their principal axes. `probes` (k, r) are
    the directions from which divergences are estimated; with None divergences are exact.
    """

    levels: NoiseLevels
    scales: np.ndarray
    n_frequencies: int
    coefs: list[np.ndarray]
    intercepts: list[np.ndarray]
    sigma: float
    rule: NodeRule
    probes: np.ndarray | None

    @property
    def n_probes(self) -> int:
        """Number of probes; 1 if divergences are exact."""
        return 1 if self.probes is None else len(self.probes)

    @property
    def has_divergence(self) -> bool:
        """Return True: the divergence of a network can be computed."""
        return True

    def schedule(
        self, resources: Resources, exclude: np.ndarray | None = None, n_queries: int | None = None
    ) -> _NetworkFields:
        """Return the network on the device, with the probe directions of the queries."""
        backend = resources.backend
        shape = NetworkShape(
            self.scales,
            self.levels.bandwidth,
            self.levels.terminal_scale,
            tuple(len(bias) for bias in self.intercepts[:-1]),
            self.n_frequencies,
        )
        directions = backend.tensor(np.eye(len(self.scales)))
        if self.probes is not None and n_queries is not None:
            directions = backend.tensor(self.probes).repeat(n_queries // len(self.probes), 1)
            directions = directions[:, None]
        layers = [
            (backend.tensor(weight), backend.tensor(bias))
            for weight, bias in zip(self.coefs, self.intercepts, strict=True)
        ]
        network = ScoreNetwork(shape, layers, directions)
        return _NetworkFields(network, self.sigma, self.rule, backend, self.levels)

    def terminal(
        self, schedule: _NetworkFields, exclude: np.ndarray | None = None
    ) -> GaussianTerminal:
        """Return the Gaussian with the mean and covariance of the noised rows."""
        std = np.hypot(self.scales, self.levels.terminal_scale)
        return GaussianTerminal(np.zeros(len(self.scales)), std)

    def rows_at_once(self, memory_limit: float) -> int | None:
        """Return how many queries, with their probes and nodes, fit into a limit in MiB."""
        widest = max(max(weight.shape) for weight in self.coefs)
        along = len(self.scales) if self.probes is None else 2 * len(self.probes)
        nodes = self.rule.n_nodes if self.sigma else 1
        bytes_per_row = 8 * _ALIVE * widest * (1 + along) * nodes
        return rows_within(bytes_per_row, memory_limit)
