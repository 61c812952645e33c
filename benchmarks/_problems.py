"""The data that several benchmarks use."""

import math

import numpy as np
import torch

from skdiffsmooth._posterior import Nodes, Posterior


def engine_case(dtype=torch.float64, n_points=2000, n_queries=500, n_nodes=128, dimension=8):
    """Return a posterior of standard normal points, queries and nodes of scale 0.3."""
    rng = np.random.RandomState(0)
    points = rng.normal(size=(n_points, dimension))
    points -= points.mean(0)
    queries = rng.normal(size=(n_queries, dimension))
    offsets = 0.3 * rng.normal(size=(n_nodes // 2, dimension))
    offsets = np.concatenate([offsets, -offsets])
    posterior = Posterior(
        torch.tensor(points, dtype=dtype),
        torch.full((n_points,), -math.log(n_points), dtype=dtype),
        memory_limit=1024,
    )
    nodes = Nodes(
        torch.tensor(offsets, dtype=dtype), torch.full((n_nodes,), 1 / n_nodes, dtype=dtype)
    )
    return posterior, torch.tensor(queries, dtype=dtype), nodes


def circle(n):
    """Return n points spread evenly over the unit circle."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def bump_images(n=16, size=64, width=0.2, radius=0.5):
    """Return images of a Gaussian bump at n places on a circle, as rows of size**2 pixels."""
    axis = np.linspace(-1, 1, size)
    pixels = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    squares = ((pixels - radius * circle(n)[:, None]) ** 2).sum(-1)
    return np.exp(-squares / (2 * width**2))


def surface(n, seed=0, noise=0.02):
    """Return n rows about a curved two-dimensional surface in R^8."""
    rng = np.random.RandomState(seed)
    a, b = rng.uniform(0, 3, size=(2, n))
    angles = np.column_stack([a, b, a + b, a - b])
    return np.hstack([np.cos(angles), np.sin(angles)]) + noise * rng.normal(size=(n, 8))
