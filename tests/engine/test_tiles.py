"""Sizes of tiles: how many numbers they take, that they fit into memory, and bounds at their edges."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.overrides import TorchFunctionMode

from skdiffsmooth._engine import tiles
from skdiffsmooth._engine.component_posterior import ComponentPosterior
from skdiffsmooth._engine.components import GaussianComponents
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.points import Points
from skdiffsmooth._engine.radial_kernels import RADIAL_KERNELS
from skdiffsmooth._engine.radial_mixture import RadialMixture
from skdiffsmooth._engine.tiles import Tiles
from skdiffsmooth._utils.backend import Backend

MIB = 2**20


def points_of(n, r, dtype=torch.float64):
    rng = np.random.default_rng(0)
    positions = torch.from_numpy(rng.normal(size=(n, r))).to(dtype)
    return Points(positions, torch.full((n,), -np.log(n), dtype=dtype), 3.0)


def tiles_of(n=100, r=3, memory_limit=64.0, most_points=None, **more):
    points = points_of(n, r)
    most_points = len(points) if most_points is None else most_points
    settings = {"may_shrink": True, "widest": 8} | more
    return Tiles(points, most_points=most_points, memory_limit=memory_limit, **settings)


@pytest.mark.parametrize(("n", "r"), [(100, 3), (40, 6), (1, 1)])
def test_the_smallest_memory_limit(n, r):
    # Half of the budget for a node's table or for a query's tile, whichever is larger.
    smallest = 8 * 2 * max((r + 4) * n, 4 * n + 4 * (r + 2)) / MIB
    assert tiles_of(n, r, memory_limit=1.0001 * smallest).nodes(trace=True) >= 1
    message = f"too small for one tile of {n} points in {r} dimensions"
    with pytest.raises(ValueError, match=message):
        tiles_of(n, r, memory_limit=0.9999 * smallest)
    # A copy in double precision must fit, too.
    with pytest.raises(ValueError, match="too small"):
        tiles_of(n, r, memory_limit=1.9 * smallest, widest=16)


def test_numbers_of_nodes_and_queries_in_a_budget():
    budget = 40_000
    own = tiles_of(100, 3, memory_limit=8 * budget / MIB)
    assert own.nodes(trace=False) == budget // 2 // 200  # factors, and the exponents before
    assert own.nodes(trace=True) == budget // 2 // 700  # and their products with each feature
    for n_nodes in (1, 7):
        assert own.rows(n_nodes) == budget // 2 // (400 + 20 * n_nodes)
    assert own.rows(10_000) == 1
    assert own.elements == budget // 8
    # Of each query a flag for each group of 32 points, and twice a result.
    assert own.pairs(1) == budget // 8 // (3 + 10)
    few = tiles_of(10, 3, memory_limit=8 * budget / MIB)
    assert few.pairs(1) == budget // 8 // (1 + 10)
    # Shards of other processes may be larger.
    larger = tiles_of(100, 3, memory_limit=8 * budget / MIB, most_points=200)
    assert larger.nodes(trace=False) == budget // 2 // 400
    assert larger.rows(1) == budget // 2 // (800 + 20)


def test_tiles_that_memory_does_not_limit_stay_in_the_cache():
    own = tiles_of(100, 3, memory_limit=2.0**14)
    assert own.rows(1) == 2**20 // 100
    assert own.rows(1000) == 2**20 // 5000  # of five features at each node
    assert own.rows(10_000) == 64  # enough rows for products of matrices
    assert own.rows(100_000) == 2**22 // 500_000
    assert own.rows(10**7) == 1
    assert own.pairs(1) == 2**20 // 13
    assert own.pairs(10**6) == 10**6
    assert own.elements == 4 * 2**20


def test_all_queries_at_once_fit_or_not():
    budget = 2_000
    own = tiles_of(10, 3, memory_limit=8 * budget / MIB)

    def elements(n_queries, n_nodes, n_shared):
        return (n_shared + n_queries + 5 * n_nodes) * 10 + 3 * n_queries * n_nodes * 5

    assert elements(10, 5, 14) == 1240
    assert not own.holds_all(10, 5, 14)
    assert elements(8, 2, 57) == 990
    assert own.holds_all(8, 2, 57)
    assert not own.holds_all(8, 2, 58)  # exactly half of the budget
    roomy = tiles_of(10, 3, memory_limit=2.0**14)
    assert roomy.holds_all(8, 2, 400_000)
    assert not roomy.holds_all(8, 2, 420_000)  # beyond 2^22


def test_tiles_are_halved_until_they_fit():
    own, sizes = tiles_of(100, 3, memory_limit=1.0), []

    def compute():
        sizes.append((own.rows(1), own.elements, own.nodes(trace=False)))
        if len(sizes) < 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert own.retry_in_smaller_tiles(compute) == "done"
    assert len(sizes) == 4
    for larger, smaller in itertools.pairwise(sizes):
        assert all(b == a // 2 or b == (a - 1) // 2 for a, b in zip(larger, smaller, strict=True))
    # The next call has the smaller tiles.
    assert own.nodes(trace=False) == sizes[-1][2]


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory", True),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling", True),
        ("sizes do not match", False),
    ],
)
def test_which_errors_are_of_memory(message, is_memory):
    assert tiles._is_out_of_memory(RuntimeError(message)) == is_memory


def test_processes_with_shards_do_not_shrink_their_tiles():
    own = tiles_of(may_shrink=False)

    def compute():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        own.retry_in_smaller_tiles(compute)


def largest_allocation(compute):
    """Return the bytes of the largest tensor that functions of torch return while `compute` runs."""
    sizes = [0]

    class Record(TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), settings=None):
            result = function(*arguments, **(settings or {}))
            if isinstance(result, torch.Tensor) and result.numel():
                sizes.append(result.untyped_storage().nbytes())
            return result

    with Record():
        compute()
    return max(sizes)


def components_of(n, r, k):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(n, r, r)))[0][:, :, :k]
    return GaussianComponents(
        np.full(n, 1 / n), rng.normal(size=(n, r)), np.full(n, 0.1), axes, np.ones((n, k))
    )


def test_tiles_of_components_fit_into_their_memory():
    own = components_of(8, 3, 2)
    backend = Backend.from_params("cpu", "float64")
    # Of each node a vector of each component four times, and two numbers; of each query with a node
    # three weights, and eight vectors with a number.
    per_node, per_row = 4 * 24 + 16, (24 + 9 + 3) + 8 * 8 * 4
    smallest = 8 * 2 * max(per_node, per_row) / MIB
    ComponentPosterior(own, backend, memory_limit=1.0001 * smallest)
    with pytest.raises(ValueError, match="too small for one tile of 8 components in 3 dimensions"):
        ComponentPosterior(own, backend, memory_limit=0.9999 * smallest)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(20, 3)))
    offsets = rng.normal(size=(30, 3))
    nodes = Nodes.from_arrays(offsets - offsets.mean(0), np.full(30, 1 / 30), backend)
    for limit in (0.05,):
        few = ComponentPosterior(own, backend, memory_limit=limit)
        roomy = ComponentPosterior(own, backend, memory_limit=64.0)
        expected = roomy.moments(x, 0.3, nodes, trace=True)
        found = few.moments(x, 0.3, nodes, trace=True)
        assert_allclose(found.mean, expected.mean)
        assert_allclose(found.trace, expected.trace)
        assert_allclose(found.log_density, expected.log_density)


def test_rows_of_components_stay_in_the_cache():
    own = ComponentPosterior(
        components_of(8, 3, 2), Backend.from_params("cpu", "float64"), memory_limit=2.0**14
    )
    assert own._rows_per_tile(1) == 2**18 // (8 * 3)
    assert own._rows_per_tile(50) == 2**18 // (8 * 50)
    assert own._rows_per_tile(10**6) == 1
    few = ComponentPosterior(
        components_of(8, 3, 2), Backend.from_params("cpu", "float64"), memory_limit=0.1
    )
    budget = int(0.1 * MIB / 8)
    assert few._rows_per_tile(4) == budget // 2 // (4 * (24 + 9 + 3) + 8 * 8 * 4)


def test_rows_of_radial_mixtures():
    points, weights = torch.zeros(100, 2, dtype=torch.float64), torch.full((100,), -np.log(100))

    def rows(memory_limit, points=points):
        kernel = RADIAL_KERNELS["linear"]
        return RadialMixture(points, weights, kernel, 1.0, memory_limit=memory_limit)._rows

    one = 12 * 100 * 8 / MIB
    assert rows(1.001 * one) == 1
    assert rows(7.001 * one) == 3
    assert rows(2.0**14) == 2**18 // 100
    with pytest.raises(ValueError, match="too small for one tile of 100 points"):
        rows(0.999 * one)
    assert rows(7.001 * one / 2, points.float()) == 3


@pytest.mark.parametrize("by", ["log_density", "gradient"])
def test_temporaries_of_radial_mixtures_fit_into_the_memory(by):
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.normal(size=(100, 2)))
    weights = torch.full((100,), -np.log(100), dtype=torch.float64)
    x, limit = torch.from_numpy(rng.normal(size=(300, 2))), 0.1
    mixture = RadialMixture(points, weights, RADIAL_KERNELS["linear"], 3.0, memory_limit=limit)
    largest = largest_allocation(lambda: getattr(mixture, by)(x))
    assert largest <= limit * MIB / 12
