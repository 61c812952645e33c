"""Moments of single queries and of pairs, against sums over all points."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffsmooth._engine import direct
from skdiffsmooth._engine.merge import Merger
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.points import Points
from skdiffsmooth._utils.backend import Backend

BACKEND = Backend.from_params("cpu", "float64")


def posterior(positions, log_weights, y, v, exclude=None, trace_weights=1.0):
    """Return means, traces, log-sums and covariances of queries y (P, r)."""
    logits = log_weights - ((y[:, None] - positions) ** 2).sum(axis=2) / (2 * v)
    if exclude is not None:
        for row, left in enumerate(exclude):
            logits[row, left] = -np.inf
    log_sum = np.logaddexp.reduce(logits, axis=1)
    weights = np.exp(logits - log_sum[:, None])
    mean = weights @ positions
    offsets = positions - mean[:, None]
    covariance = np.einsum("pn,pni,pnj->pij", weights, offsets, offsets)
    trace = (np.diagonal(covariance, axis1=1, axis2=2) * trace_weights).sum(axis=1)
    return mean, trace, log_sum, covariance


def case(n, r, seed=0, with_weights=False):
    """Points in clusters, so that at low noise few of them matter; queries near some of them."""
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(n, r)) + 6 * rng.integers(-1, 2, size=(n, r))
    log_weights = np.log(rng.dirichlet(np.ones(n)))
    trace_weights = rng.uniform(0.5, 3.0, size=r) if with_weights else None
    radius = np.linalg.norm(positions, axis=1).max()
    tensors = map(torch.from_numpy, (positions, log_weights))
    weights = None if trace_weights is None else torch.from_numpy(trace_weights)
    points = Points(*tensors, float(radius), weights)
    y = positions[rng.integers(n, size=5)] + 0.1 * rng.normal(size=(5, r))
    return points, positions, log_weights, y, 1.0 if trace_weights is None else trace_weights, rng


@pytest.mark.parametrize(("n", "r"), [(7, 2), (200, 2), (150, 8), (129, 9)])
@pytest.mark.parametrize("v", [1e-9, 0.01, 2.0])
@pytest.mark.parametrize("with_weights", [False, True])
def test_moments_of_queries(n, r, v, with_weights):
    points, positions, log_weights, y, trace_weights, rng = case(n, r, with_weights=with_weights)
    assert points.are_grouped == (n > 128)
    directions = rng.normal(size=(5, r, 2))
    one, two = rng.integers(n, size=5), rng.integers(n, size=(5, 2))
    for exclude in (None, one, two):
        expected = posterior(positions, log_weights, y, v, exclude, trace_weights)
        index = None if exclude is None else torch.from_numpy(exclude)
        for rows_at_once in (2, 100):
            for j in (0, 2):
                along = torch.from_numpy(directions[:, :, :j]) if j else None
                found = direct.direct_moments(
                    points, torch.from_numpy(y), v, 0.0, index, rows_at_once, along
                )
                assert found.shape == (5, r + 2 + r * j)
                scale = points.radius
                assert_allclose(found[:, :r], expected[0], atol=1e-9 * scale)
                assert_allclose(found[:, r], expected[1], rtol=1e-7, atol=1e-10 * scale**2)
                assert_allclose(found[:, r + 1], expected[2], rtol=1e-9, atol=1e-9)
                if j:
                    own = (expected[3] @ directions).reshape(5, -1)
                    assert_allclose(found[:, r + 2 :], own, rtol=1e-6, atol=1e-9 * scale**2)


@pytest.mark.parametrize("v", [1e-6, 0.01, 5.0])
@pytest.mark.parametrize("elements", [1, 10**7])
def test_moments_of_pairs(v, elements):
    points, positions, log_weights, x, _, rng = case(200, 2)
    offsets = math.sqrt(v) * rng.normal(size=(3, 2))
    mask = rng.uniform(size=(5, 3)) < 0.7
    exclude = rng.integers(200, size=5)
    y = x[:, None] + offsets
    longest = float(np.linalg.norm(offsets, axis=1).max())
    for left in (None, exclude):
        all_left = None if left is None else np.repeat(left, 3)
        mean, trace, log_sum, _ = posterior(positions, log_weights, y.reshape(-1, 2), v, all_left)
        expected = np.column_stack([mean, trace, log_sum]).reshape(5, 3, 4)
        for own in (None, mask):
            found = direct.moments_of_pairs(
                points,
                torch.from_numpy(x),
                torch.from_numpy(offsets),
                v,
                longest,
                None if own is None else torch.from_numpy(own),
                None if left is None else torch.from_numpy(left),
                elements,
            ).numpy()
            used = np.ones((5, 3), bool) if own is None else own
            assert_allclose(found[used][:, :2], expected[used][:, :2], atol=1e-8)
            assert_allclose(found[used][:, 2], expected[used][:, 2], rtol=1e-6, atol=1e-10)
            assert_allclose(found[used][:, 3], expected[used][:, 3], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_weights", [False, True])
def test_averages_over_few_points(with_weights):
    points, positions, log_weights, x, trace_weights, rng = case(6, 2, with_weights=with_weights)
    v, offsets, node_weights = 0.8, rng.normal(size=(4, 2)), rng.dirichlet(np.ones(4))
    nodes = Nodes.from_arrays(offsets, node_weights, BACKEND, np.array([1.0, -2, 3, 0.5]))
    exclude = np.array([0, 5, 2, 2, 1])
    for left in (None, exclude):
        all_left = None if left is None else np.repeat(left, 4)
        y = (x[:, None] + offsets).reshape(-1, 2)
        mean, trace, log_sum, _ = posterior(positions, log_weights, y, v, all_left, trace_weights)
        each = [a.reshape(5, 4, -1) for a in (mean, trace, log_sum)]
        mean, trace, log_sum = (np.einsum("bmk,m->bk", a, node_weights) for a in each)
        laplacian = (each[2][:, :, 0] * node_weights) @ nodes.stein.numpy()
        index = None if left is None else torch.from_numpy(left)
        queries = torch.from_numpy(x)
        found = direct.average_over_few_points(
            points, Merger(), queries, v, nodes, index, trace=True
        )
        assert_allclose(found, np.column_stack([mean, trace, log_sum]), rtol=1e-8, atol=1e-12)
        found = direct.average_over_few_points(
            points, Merger(), queries, v, nodes, index, trace=False
        )
        assert_allclose(found, np.column_stack([mean, laplacian, log_sum]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("last", [1, 7, 8, 16, 20, 24])
def test_indices_of_masks(last):
    mask = np.random.default_rng(0).uniform(size=(3, 4, last)) < 0.2
    for own in (mask, mask.transpose(1, 0, 2), np.zeros_like(mask), np.ones_like(mask)):
        found = direct._indices(torch.from_numpy(own))
        assert [each.tolist() for each in found] == [each.tolist() for each in own.nonzero()]


def test_queries_at_once(monkeypatch):
    """Where points are gathered, as many queries as take the memory of the logits of all points."""
    points, _, _, y, _, _ = case(320, 2)
    y = torch.from_numpy(np.tile(y, (20, 1)))
    of_all, of_members = [], []
    over_all, over_members = direct._over_all_points, direct._over_members

    def all_points(points, y, *rest):
        of_all.append(len(y))
        return over_all(points, y, *rest)

    def members(points, y, *rest):
        of_members.append(len(y))
        return over_members(points, y, *rest)

    monkeypatch.setattr(direct, "_over_all_points", all_points)
    monkeypatch.setattr(direct, "_over_members", members)
    direct.direct_moments(points, y, 100.0, 0.0, None, 7)
    assert of_all == [7] * 14 + [2]
    assert of_members == []
    for j in (0, 2):
        of_all.clear()
        of_members.clear()
        directions = torch.ones(100, 2, j).double() if j else None
        direct.direct_moments(points, y, 1e-6, 0.0, None, 7, directions)
        assert of_all == []
        relevant = points.groups.relevant_to(y, 1e-6, None, 100)
        gathered = int(relevant.sum()) * 32 * (2 + 4 + 2 * j)
        at_once = max(1, 100 * 7 * 320 * (1 + j) // gathered)
        assert of_members == [at_once] * (100 // at_once) + [100 % at_once] * (100 % at_once > 0)


def test_points_are_gathered_where_a_quarter_of_their_groups_matter(monkeypatch):
    points, _, _, y, _, _ = case(320, 2)
    ways = []
    for name in ("_over_all_points", "_over_members"):
        own = getattr(direct, name)

        def watched(*args, name=name, own=own):
            ways.append(name)
            return own(*args)

        monkeypatch.setattr(direct, name, watched)
    queries = torch.from_numpy(y[:4])
    # Ten groups and four queries: ten pairs of forty are a quarter.
    for n, way in ((10, "_over_members"), (11, "_over_all_points")):
        # Each query needs a group.
        flat = torch.zeros(40, dtype=torch.bool)
        flat[:n] = True
        monkeypatch.setattr(points.groups, "relevant_to", lambda *_, flat=flat: flat.view(10, 4))
        ways.clear()
        direct.direct_moments(points, queries, 1.0, 0.0, None, 100)
        assert ways == [way]
