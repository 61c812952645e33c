"""Sums over points as products of query factors and node factors, against sums over pairs."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffsmooth._engine.factorised import Factoriser
from skdiffsmooth._engine.merge import Merger
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.points import Points
from skdiffsmooth._utils.backend import Backend

BACKEND = Backend.from_params("cpu", "float64")
R, N, M, B = 2, 6, 4, 3


def case(n_points=N, n_nodes=M, with_weights=False, scale=1.0, stein=True):
    rng = np.random.default_rng(0)
    positions, x = rng.normal(size=(n_points, R)), rng.normal(size=(B, R))
    log_weights = np.log(rng.dirichlet(np.ones(n_points)))
    trace_weights = np.array([2.0, 0.5]) if with_weights else np.ones(R)
    radius = float(np.linalg.norm(positions, axis=1).max())
    points = Points(
        *map(torch.from_numpy, (positions, log_weights)),
        radius,
        torch.from_numpy(trace_weights) if with_weights else None,
    )
    offsets, weights = scale * rng.normal(size=(n_nodes, R)), rng.dirichlet(np.ones(n_nodes))
    factors = rng.normal(size=n_nodes) if stein else None
    nodes = Nodes.from_arrays(offsets, weights, BACKEND, factors)
    return points, nodes, positions, log_weights, trace_weights, x


def of_pairs(positions, log_weights, trace_weights, x, offsets, v, exclude=None):
    """Return means (B, M, r), traces and log-sums (B, M), pair by pair."""
    means, traces, log_sums = [], [], []
    for b, query in enumerate(x):
        for xi in offsets:
            logits = log_weights - ((query + xi - positions) ** 2).sum(axis=1) / (2 * v)
            if exclude is not None:
                logits[exclude[b]] = -np.inf
            log_sums.append(np.logaddexp.reduce(logits))
            weights = np.exp(logits - log_sums[-1])
            means.append(weights @ positions)
            traces.append(weights @ (positions - means[-1]) ** 2 @ trace_weights)
    shape = len(x), len(offsets)
    return np.reshape(means, (*shape, -1)), np.reshape(traces, shape), np.reshape(log_sums, shape)


@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("n_queries", [B, 100])
@pytest.mark.parametrize("left", [None, [0, 5, 2]])
def test_pairs_and_averages(with_weights, n_queries, left):
    points, nodes, *arrays, x = case(with_weights=with_weights)
    v, offsets = 0.7, nodes.offsets.numpy()
    means, traces, log_sums = of_pairs(*arrays, x, offsets, v, left)
    exclude = None if left is None else torch.tensor(left)
    own, queries = Factoriser(points, 64.0), torch.from_numpy(x)
    # As many queries as nodes decide which factors are multiplied by the features.
    table = own.table(nodes, v, n_queries)
    assert table.n_queries == n_queries
    assert table.never_underflows
    products = own.products(queries, v, table, exclude, features=True)
    assert products.sums.shape == (B, R + 2, M)
    assert products.underflows is None
    assert_allclose(products.log_sums, log_sums, rtol=1e-12)
    pairs = own.pairs(products, None)
    assert_allclose(pairs.means.transpose(1, 2), means, rtol=1e-9)
    assert_allclose(pairs.traces, traces, rtol=1e-9)
    assert_allclose(pairs.log_sums, log_sums, rtol=1e-12)
    products = own.products(queries, v, table, exclude, features=False)
    assert products.sums.shape == (B, 1, M)
    found = own.average_means(products, None, Merger())
    weights, stein = nodes.weights.numpy(), nodes.stein.numpy()
    mean = np.einsum("bmr,m->br", means, weights)
    expected = np.column_stack([mean, log_sums @ (weights * stein), log_sums @ weights])
    assert_allclose(found, expected, rtol=1e-10)
    products = own.products(queries, v, table, exclude, features=False)
    found = own.average_means(products, None, Merger(), log_sums=False)
    assert_allclose(found, np.column_stack([mean, np.zeros((B, 2))]), rtol=1e-10)


def test_parts_of_the_nodes():
    points, nodes, *arrays, _ = case(n_nodes=12)
    x = np.random.default_rng(1).normal(size=(6, R))
    v, which, counts = 0.7, [0, 0, 0, 2, 2, 2], [3, 0, 3]
    exclude = [0, 1, 2, 3, 4, 5]
    own = Factoriser(points, 64.0)
    table = own.table(nodes, v, 6)
    for left in (None, exclude):
        products = own.products_by_part(
            torch.from_numpy(x),
            v,
            table,
            torch.tensor(which),
            counts,
            None if left is None else torch.tensor(left),
        )
        pairs = own.pairs(products, None)
        for b in range(6):
            offsets = nodes.offsets.numpy()[4 * which[b] : 4 * which[b] + 4]
            excluded = None if left is None else [left[b]]
            means, traces, log_sums = of_pairs(*arrays, x[[b]], offsets, v, excluded)
            assert_allclose(pairs.means[b].T, means[0], rtol=1e-9)
            assert_allclose(pairs.traces[b], traces[0], rtol=1e-9)
            assert_allclose(pairs.log_sums[b], log_sums[0], rtol=1e-12)
    part = table.part(slice(4, 8), 5)
    assert (len(part.nodes), part.factors.shape, part.top.shape) == (4, (4, N), (4,))
    assert part.n_queries == 5


def test_normalisers_that_underflow_are_marked():
    """Two points far apart, and nodes that lead from a query at one to the other."""
    positions = np.array([[-1.0, 0.0], [1.0, 0.0]])
    points = Points(torch.from_numpy(positions), torch.tensor([0.5, 0.5]).double().log(), 1.0)
    own, v = Factoriser(points, 64.0), 0.002
    offsets = np.array([[2.0, 0], [0.01, 0], [0, 0], [-0.02, 0]])
    nodes = Nodes.from_arrays(offsets, np.full(4, 0.25), BACKEND)
    table = own.table(nodes, v, 2)
    assert not table.never_underflows
    x = torch.from_numpy(positions)
    products = own.products(x, v, table, None, features=True)
    assert products.underflows.tolist() == [[True, False, False, False], [False] * 4]
    assert products.sums[0, 0, 0] == 1
    weights, trace_weights = np.log(np.full(2, 0.5)), np.ones(2)
    means, _, log_sums = of_pairs(positions, weights, trace_weights, positions, offsets, v)
    is_well = ~products.underflows.numpy()
    assert_allclose(products.log_sums.numpy()[is_well], log_sums[is_well], rtol=1e-9)
    # What is computed directly is put into its place.
    direct = torch.tensor([[7.0, 8.0, 9.0, -3.0]]).double()
    products.log_sums[products.underflows] = -3.0
    pairs = own.pairs(products, direct)
    assert pairs.means[0, :, 0].tolist() == [7.0, 8.0]
    assert pairs.traces[0, 0] == 9.0
    assert_allclose(pairs.means.transpose(1, 2).numpy()[is_well], means[is_well], atol=1e-9)
    products = own.products(x, v, table, None, features=False)
    products.log_sums[products.underflows] = -3.0
    found = own.average_means(products, direct, Merger())
    means[0, 0], log_sums[0, 0] = [7.0, 8.0], -3.0
    assert_allclose(found[:, :2], means.mean(axis=1), atol=1e-9)
    assert_allclose(found[:, 3], log_sums.mean(axis=1), rtol=1e-9)
    # If more than half of all pairs underflow, all are computed directly.
    for n_far, is_none in ((2, False), (3, True)):
        some = np.where(np.arange(4)[:, None] < n_far, [2.0, 0.0], [0.0, 0.0])
        table = own.table(Nodes.from_arrays(some, np.full(4, 0.25), BACKEND), v, 1)
        found = own.products(x[:1], v, table, None, features=False)
        assert (found is None) == is_none


def test_whether_normalisers_may_underflow():
    """Normalisers are at least exp(2 s - range of a node's exponents), and N / eps is enough."""
    points, _, positions, *_ = case()
    v, direction = 0.5, np.array([[1.0, 0.5]])
    along = positions @ direction[0]
    s = 0.42 * -math.log(torch.finfo(torch.float64).tiny)
    widest = 2 * s - math.log(N * 2.0**52)
    length = widest * v / (along.max() - along.min())
    for factor, never in ((0.999, True), (1.001, False)):
        offsets = np.concatenate([0 * direction, factor * length * direction])
        nodes = Nodes.from_arrays(offsets, np.full(2, 0.5), BACKEND)
        assert Factoriser(points, 64.0).table(nodes, v, 1).never_underflows == never
    # A device without the values at hand bounds the range by lengths.
    points.on_host = False
    own = Factoriser(points, 64.0)
    edge = widest * v / (2 * points.radius)
    for factor, is_worth in ((0.999, True), (1.001, False)):
        nodes = Nodes(torch.zeros(2, R).double(), torch.ones(2).double(), factor * edge)
        assert own.is_worth_trying(v, nodes) == is_worth
        assert own.table(nodes, v, 1).never_underflows
    points.on_host = True
    assert own.is_worth_trying(v, nodes)
    assert not own.is_worth_trying(v, Nodes.single(torch.zeros(1, R).double()))
    assert not own.is_worth_trying(1e-9, nodes)


def test_factors_are_exponentials_within_their_range():
    points, nodes, positions, log_weights, *_ = case(scale=0.5)
    own, v = Factoriser(points, 64.0), 0.6
    table = own.table(nodes, v, 3)
    exponents = nodes.offsets.numpy() @ positions.T / v
    assert_allclose(table.factors.log().numpy() + table.top.numpy()[:, None], exponents, rtol=1e-10)
    s = 0.42 * -math.log(torch.finfo(torch.float64).tiny)
    assert_allclose(table.factors.numpy().max(axis=1), math.exp(s), rtol=1e-10)
    assert_allclose(table.factors.numpy().min(), math.exp(s - np.ptp(exponents, axis=1).max()))
    matrix = np.vstack([positions.T / v, log_weights - (positions**2).sum(axis=1) / (2 * v)])
    assert_allclose(table.of_queries, matrix, rtol=1e-12)
    # Exponents far below the largest are raised to exp(-s).
    low = own.table(nodes, 1e-4, 3)
    assert_allclose(low.factors.min(), math.exp(-s), rtol=1e-10)


def test_small_tables_are_kept():
    points, nodes, *_ = case()
    # A sixteenth of the limit: of this table M N factors and (r + 1) N numbers of the queries.
    size = 8 * (M * N + (R + 1) * N)
    own = Factoriser(points, 16 * 2.5 * size / 2**20)
    first = own.table(nodes, 0.5, 3)
    assert own.table(nodes, 0.5, 7).factors is first.factors
    assert own.table(nodes, 0.5, 7).n_queries == 7
    second = own.table(nodes, 0.6, 3)
    assert own.table(nodes, 0.6, 3).factors is second.factors
    third = own.table(nodes, 0.7, 3)
    assert own.table(nodes, 0.7, 3).factors is not third.factors
    assert own.table(nodes, 0.5, 3).factors is first.factors
    # Other nodes at the same noise have other factors, and the first ones stay.
    others = nodes.to(torch.float64)
    assert others is not nodes
    assert own.table(others, 0.5, 3).factors is not first.factors
    assert own.table(nodes, 0.5, 3).factors is first.factors
    exact = Factoriser(points, 16 * 1.001 * size / 2**20)
    assert exact.table(nodes, 0.5, 3).factors is exact.table(nodes, 0.5, 3).factors
    few = Factoriser(points, 16 * 0.98 * size / 2**20)
    assert few.table(nodes, 0.5, 3).factors is not few.table(nodes, 0.5, 3).factors
    assert Factoriser(points, 2.0**20)._elements_left == 2**21
    # The matrix of the queries is taken from another table at this noise.
    assert few.table(nodes, 0.5, 3, first.of_queries).of_queries is first.of_queries
