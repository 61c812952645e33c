"""The search for groups of points that matter: none is missed, and few others are returned."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffsmooth._engine import groups
from skdiffsmooth._engine.groups import Groups
from skdiffsmooth._engine.influence import influence_of_points
from skdiffsmooth._engine.points import Points

N, GROUP = 256, 32
NEGLIGIBLE = math.log(1e-3 * 2.0**-52 / N)


def case(seed=0, r=2, n=N):
    """Points in clusters of unit distance, with weights over some decades."""
    rng = np.random.default_rng(seed)
    positions = 0.1 * rng.normal(size=(n, r)) + rng.integers(-3, 4, size=(n, r))
    log_weights = rng.uniform(-7, 0, size=n)
    log_weights -= np.logaddexp.reduce(log_weights)
    unit = float(np.linalg.norm(positions, axis=1).max())
    own = Groups(torch.from_numpy(positions), torch.from_numpy(log_weights), unit)
    return own, positions, log_weights, unit, rng


def logits_of(own, positions, log_weights, y, v, exclude=None):
    """Return logits (n_groups, P, 32) of the members of groups at queries y (P, r)."""
    squares = ((y[:, None] - positions) ** 2).sum(axis=2)
    logits = log_weights - squares / (2 * v)
    if exclude is not None:
        for row, left in enumerate(exclude):
            logits[row, left] = -np.inf
    return logits[:, own.index.numpy()].transpose(1, 0, 2)


def test_members_of_groups():
    own, positions, log_weights, unit, _ = case()
    assert len(own) == N // GROUP
    index = own.index.numpy()
    assert sorted(index.ravel()) == list(range(N))
    assert_allclose(own.scaled, positions[index] / unit)
    assert_allclose(own.log_weights, log_weights[index])
    assert_allclose(own.half_squares, (positions[index] ** 2).sum(axis=2) / (2 * unit**2))
    for row, point in enumerate(own.index.T.flatten().tolist()):
        assert own._row_of_point[point] == row
        assert_allclose(own._blocks[row], positions[point] / unit, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("v", [1e-8, 1e-3, 0.02, 1.0])
@pytest.mark.parametrize("left", [None, "one", "two"])
def test_groups_that_matter_to_queries(v, left):
    own, positions, log_weights, unit, rng = case()
    y = positions[rng.integers(N, size=12)] + 0.05 * rng.normal(size=(12, 2))
    exclude = None
    if left is not None:
        # The nearest points themselves.
        order = ((y[:, None] - positions) ** 2).sum(axis=2).argsort(axis=1)
        exclude = order[:, 0] if left == "one" else order[:, :2]
    logits = logits_of(own, positions, log_weights, y, v, exclude)
    best = logits.max(axis=2)
    behind = best.max(axis=0) - best
    index = None if exclude is None else torch.from_numpy(exclude)
    found = own.relevant_to(torch.from_numpy(y), v, index, 5).numpy()
    assert (found == own.relevant_to(torch.from_numpy(y), v, index, 100).numpy()).all()
    # All whose best member is not negligible beside the best of all.
    assert found[behind <= -NEGLIGIBLE].all()
    # And no others, up to twice the error of scores in single precision.
    slack = own.slack(torch.from_numpy(y / unit).norm(dim=1), v, torch.float32).numpy()
    assert not found[behind > 1.5 * slack * unit**2 / v].any()
    if v < 0.1:
        assert found.mean() < 0.6


def test_queries_beyond_single_precision_have_all_groups():
    own, _, _, unit, _ = case()
    y = torch.tensor([[0.0, 0.0], [1e39 * unit, 0.0]]).double()
    assert own.relevant_to(y, 1e-8, None, 10).all()
    assert not own.relevant_to(y[:1], 1e-8, None, 10).all()


@pytest.mark.parametrize("v", [1e-8, 1e-3, 0.02, 1.0])
@pytest.mark.parametrize("left", [None, "one", "two"])
def test_groups_that_matter_to_pairs(v, left):
    own, positions, log_weights, unit, rng = case()
    x = positions[rng.integers(N, size=6)] + 0.05 * rng.normal(size=(6, 2))
    offsets = math.sqrt(v) * rng.normal(size=(4, 2))
    y = (x[:, None] + offsets).reshape(-1, 2)
    exclude = None
    if left is not None:
        order = ((x[:, None] - positions) ** 2).sum(axis=2).argsort(axis=1)
        exclude = order[:, 0] if left == "one" else order[:, :2]
    repeated = None if exclude is None else np.repeat(exclude, 4, axis=0)
    logits = logits_of(own, positions, log_weights, y, v, repeated)
    found = own.relevant_to_pairs(
        torch.from_numpy(x),
        torch.from_numpy(offsets),
        v,
        None if exclude is None else torch.from_numpy(exclude),
    )
    # The two terms are the scores, without the term of the query's and the node's own lengths.
    scores = found.of_queries[:, :, None] + found.of_nodes[:, None]
    plain = logits_of(own, positions, log_weights, y, v)
    lengths = ((y**2).sum(axis=1) / (2 * v))[:, None]
    expected = (plain + lengths) * v / unit**2
    assert_allclose(scores.flatten(1, 2), expected, atol=1e-12)
    best = logits.max(axis=2)
    behind = best.max(axis=0) - best
    relevant = found.relevant.flatten(1).numpy()
    assert relevant[behind <= -NEGLIGIBLE].all()
    # Bounds of groups are not exact, but far ones are found irrelevant.
    assert not relevant[behind > 4 * -NEGLIGIBLE + 10 / v].any()
    if v < 0.01:
        assert relevant.mean() < 0.5


def test_values_are_rounded_up():
    values = torch.tensor([0.1, -0.1, 3e8 + 1, 0.0, -5.5e-30]).double()
    found = groups._rounded_up(values)
    assert found.dtype == torch.float32
    assert (found.double() >= values).all()
    assert (found.double() <= values + 2e-6 * values.abs()).all()


@pytest.mark.parametrize("n", [32, 64, 96, 320])
def test_groups_of_an_order_are_compact(n):
    """Each cut halves the widest side, so that groups are far smaller than the whole."""
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(n, 2)) * [1.0, 8.0]
    order = groups._local_order(points)
    assert sorted(order) == list(range(n))
    if n == 64:
        # The lower and the upper half of the longer side.
        halves = points[order][:, 1].reshape(2, 32)
        assert halves[0].max() <= halves[1].min()
    if n == 96:
        # A third and two thirds, which are cut again.
        first = points[order][:32, 1]
        assert first.max() <= points[order][32:, 1].min()
    if n == 320:
        sides = np.ptp(points[order].reshape(10, 32, 2), axis=1)
        assert sides[:, 1].max() < 2.5
        assert sides.max(axis=1).mean() < 1.5


@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_influence_is_that_of_each_position(at_once):
    rng = np.random.default_rng(0)
    positions, log_weights = rng.normal(size=(6, 2)), np.log(rng.dirichlet(np.ones(6)))
    y, node_weights, v = rng.normal(size=(3, 4, 2)), rng.dirichlet(np.ones(4)), 0.3
    points = Points(*map(torch.from_numpy, (positions, log_weights)), 3.0)
    found = influence_of_points(
        points, torch.from_numpy(y), v, torch.from_numpy(node_weights), at_once
    )
    for b in range(3):
        weights, derivatives = np.zeros(6), np.zeros((6, 2))
        for query, q in zip(y[b], node_weights, strict=True):
            logits = log_weights - ((query - positions) ** 2).sum(axis=1) / (2 * v)
            posterior = np.exp(logits - np.logaddexp.reduce(logits))
            weights += q * posterior
            derivatives += q * posterior[:, None] * (positions - posterior @ positions)
        assert_allclose(found.weights[b], weights, rtol=1e-10)
        assert_allclose(found.derivatives[b], derivatives, rtol=1e-9, atol=1e-14)


def test_positions_at_once(monkeypatch):
    sizes, own = [], Points.squared_distances

    def counted(points, y):
        sizes.append(len(y))
        return own(points, y)

    monkeypatch.setattr(Points, "squared_distances", counted)
    points = Points(torch.ones(4, 2).double(), torch.full((4,), -math.log(4)).double(), 2.0)
    y, weights = torch.zeros(3, 7, 2).double(), torch.full((7,), 1 / 7).double()
    for at_once, expected in ((6, [6, 6, 6, 3]), (2, [3] * 7), (100, [21])):
        sizes.clear()
        influence_of_points(points, y, 1.0, weights, at_once)
        assert sizes == expected
