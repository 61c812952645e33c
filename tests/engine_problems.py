"""Problems for the engine, and their comparison with the two loops of `oracles`."""

import math
from dataclasses import dataclass

import numpy as np
import oracles
import torch

from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior


@dataclass(frozen=True)
class Problem:
    """Arrays for one call of the engine, in the precision that the engine gets them in."""

    points: np.ndarray
    log_weights: np.ndarray
    queries: np.ndarray
    v: float
    offsets: np.ndarray
    node_weights: np.ndarray
    exclude: np.ndarray | None = None

    def posterior(self, dtype=torch.float64, memory_limit=16.0):
        points, log_weights = tensors(dtype, self.points, self.log_weights)
        return Posterior(points, log_weights, memory_limit=memory_limit)

    def nodes(self, dtype=torch.float64):
        offsets, weights = tensors(dtype, self.offsets, self.node_weights)
        return Nodes(offsets, weights, longest(self.offsets))

    def moments(self, *, trace, dtype=torch.float64, memory_limit=16.0):
        (queries,) = tensors(dtype, self.queries)
        return self.posterior(dtype, memory_limit).moments(
            queries, self.v, self.nodes(dtype), trace=trace, exclude=self.exclude_tensor
        )

    @property
    def exclude_tensor(self):
        return None if self.exclude is None else torch.tensor(self.exclude, dtype=torch.int64)

    def oracle(self):
        return oracles.moments(
            self.points,
            self.log_weights,
            self.queries,
            self.v,
            self.offsets,
            self.node_weights,
            self.exclude,
        )


def tensors(dtype, *arrays):
    return [torch.tensor(np.asarray(array), dtype=dtype) for array in arrays]


def problem(
    seed,
    n_queries=3,
    n_points=5,
    n_nodes=4,
    dimension=2,
    *,
    v=1.0,
    scale=1.0,
    query_scale=1.0,
    decades=0.5,
    leave_out=False,
    ties=False,
    dtype=np.float64,
):
    """Random points of size one, nodes of size `scale`, queries of size `query_scale`.

    Nodes are not symmetric and their weights unequal: the engine averages over any nodes, and a
    mirror-symmetric set would not reveal a wrong sign.
    """
    rng = np.random.RandomState(seed)
    points = rng.standard_normal((n_points, dimension))
    queries = query_scale * rng.standard_normal((n_queries, dimension))
    offsets = scale * rng.standard_normal((n_nodes, dimension))
    if ties:  # coordinates on a coarse grid: equal points, equal distances, queries on points
        points, queries = np.round(2 * points) / 2, np.round(2 * queries) / 2
        offsets = np.round(2 * offsets) / 2
    log_weights = rng.uniform(-decades * math.log(10), 0, n_points)
    log_weights -= np.float64(oracles.log_sum_exp(log_weights))
    node_weights = rng.dirichlet(np.ones(n_nodes))
    exclude = rng.randint(n_points, size=n_queries) if leave_out else None
    arrays = [a.astype(dtype) for a in (points, log_weights, queries, offsets, node_weights)]
    return Problem(*arrays[:3], v, *arrays[3:], exclude)


def longest(vectors):
    return float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())


def assert_matches_oracle(problem, *, trace=True, dtype=torch.float64, moments=None):
    moments = problem.moments(trace=trace, dtype=dtype) if moments is None else moments
    eps = torch.finfo(dtype).eps
    rank = problem.points.shape[1]
    radius, max_norm = longest(problem.points), longest(problem.offsets)
    assert moments.mean.shape == problem.queries.shape
    assert (moments.trace is not None) == trace
    for b, expected in enumerate(problem.oracle()):
        far = longest(problem.queries[[b]]) + max_norm + radius
        # Exponents of factors are shifted by up to 300 nats and log weights go down to -700, and these
        # are rounded too.
        delta = eps * (4 * (rank + 2) * far**2 / problem.v + 1000)
        slip = np.expm1(min(2 * delta, 700.0))
        mean_error = np.linalg.norm(moments.mean[b].numpy() - expected.mean)
        assert mean_error <= slip * np.sqrt(expected.trace) + 16 * eps * radius
        if trace:
            trace_error = abs(moments.trace[b].item() - expected.trace)
            # The second term: a second moment less a squared mean.
            assert trace_error <= 2 * slip * expected.trace + 16 * eps * radius**2
        log_error = abs(moments.log_density[b].item() - expected.log_density)
        assert log_error <= delta + 8 * eps * abs(expected.log_density)
