"""The data that several benchmarks use."""

from dataclasses import dataclass

import numpy as np
import torch

from skdiffsmooth._engine.hierarchy import PointHierarchy
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.kernels import FrozenKernel, LinearShape
from skdiffsmooth.kernels._nodes import NodeRule
from skdiffsmooth.noise import NoiseLevels
from skdiffsmooth.scores import ScoreSchedule, SmoothedScore


@dataclass
class EngineCase:
    """Points and queries, and the field that calls the engine for them."""

    points: torch.Tensor
    queries: torch.Tensor
    field: SmoothedScore

    @property
    def offsets(self):
        return self.field.nodes.offsets

    def moments(self, v, trace=True):
        return self.field.posterior.moments(self.queries, v, self.field.nodes, trace=trace)


def engine_case(
    dtype="float64", n_points=2000, n_queries=500, n_nodes=128, dimension=8, device="cpu"
):
    """Return standard normal points and queries, with the kernel's nodes of scale 0.3."""
    rng = np.random.RandomState(0)
    points = rng.normal(size=(n_points, dimension))
    points -= points.mean(0)
    backend = Backend.from_params(device, dtype)
    hierarchy = PointHierarchy.of(points, np.full(n_points, 1 / n_points), 0.0, 1.0)
    # No frames, whose weights differ and whose divergences are no traces of the direct method.
    rule = NodeRule("sobol", n_nodes, seed=0, most_frames=0)
    kernel = FrozenKernel(LinearShape(np.eye(dimension)), np.full(1, 0.3), rule)
    return EngineCase(
        backend.tensor(points),
        backend.tensor(rng.normal(size=(n_queries, dimension))),
        ScoreSchedule(NoiseLevels(1.0, 2.0, 1), hierarchy, kernel, backend, 1024.0).at(0),
    )


def surface(n, seed=0, noise=0.02):
    """Return n rows about a curved two-dimensional surface in R^8."""
    rng = np.random.RandomState(seed)
    a, b = rng.uniform(0, 3, size=(2, n))
    angles = np.column_stack([a, b, a + b, a - b])
    return np.hstack([np.cos(angles), np.sin(angles)]) + noise * rng.normal(size=(n, 8))
