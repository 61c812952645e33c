"""Scores from groups of columns, against loops over groups and points with inverse matrices."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffsmooth._engine.local import ColumnGroups, LocalPosterior, _merged

RNG = np.random.default_rng(0)
D, N, V = 4, 7, 0.3
POINTS, LOG_WEIGHTS = RNG.normal(size=(N, D)), np.log(RNG.dirichlet(np.ones(N)))
QUERIES = RNG.normal(size=(5, D))
ROOT = RNG.normal(size=(D, D))
COVARIANCE = 0.2 * ROOT @ ROOT.T
GROUPS = [[0, 1], [0, 1, 3], [2], [3, 0]]


def slow(x, points, log_weights, groups, covariance, v, background=(0.0, 0.0), exclude=None):
    """Score and derivative of each column from the columns of its group, one query at a time."""
    score, derivative = np.zeros_like(x), np.zeros_like(x)
    for b, query in enumerate(x):
        for p, group in enumerate(groups):
            if group is None:
                continue
            c = sorted(group)
            S = np.zeros((len(c), len(c))) if covariance is None else covariance[np.ix_(c, c)]
            total = S + v * np.eye(len(c))
            P = np.linalg.inv(total)
            m = P[c.index(p)]
            gaps = query[c] - points[:, c]
            logits = log_weights - 0.5 * np.einsum("ni,ij,nj->n", gaps, P, gaps)
            if exclude is not None:
                logits[exclude[b]] = -np.inf
            log_sum = np.logaddexp.reduce(logits)
            weights = np.exp(logits - log_sum)
            s = -gaps @ m
            here = weights @ s
            slope = weights @ (s - here) ** 2 - P[c.index(p), c.index(p)]
            if background[0]:
                share, u = background
                wide = u + v
                log_wide = -0.5 * (query[c] @ query[c] / wide + len(c) * math.log(wide))
                log_own = log_sum - 0.5 * np.linalg.slogdet(total)[1]
                r = 1 / (1 + (1 - share) / share * math.exp(log_own - log_wide))
                of_wide = -query[p] / wide
                slope = (1 - r) * slope - r / wide + r * (1 - r) * (here - of_wide) ** 2
                here = (1 - r) * here + r * of_wide
            score[b, p], derivative[b, p] = here, slope
    return score, derivative


def posterior(groups=GROUPS, covariance=None, memory_limit=64.0, only=None, **more):
    columns = ColumnGroups.of([np.array(group) for group in groups])
    if only is not None:
        columns = columns.only(np.array(only))
    points, weights = more.pop("points", POINTS), more.pop("log_weights", LOG_WEIGHTS)
    return LocalPosterior(
        torch.from_numpy(points),
        torch.from_numpy(weights),
        columns,
        covariance,
        memory_limit,
        **more,
    )


@pytest.mark.parametrize("background", [(0.0, 0.0), (0.2, 4.0)])
@pytest.mark.parametrize("covariance", [None, COVARIANCE], ids=["points", "gaussians"])
@pytest.mark.parametrize("memory_limit", [64.0, 1e-6])
def test_scores_are_those_of_the_groups(covariance, background, memory_limit):
    own = posterior(GROUPS, covariance, memory_limit, background=background)
    found = own.score(torch.from_numpy(QUERIES), V)
    expected = slow(QUERIES, POINTS, LOG_WEIGHTS, GROUPS, covariance, V, background)
    assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-12)
    assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "groups", [[[0], [1], [2], [3]], [[0, 1, 2, 3]] * 4], ids=["single columns", "one group"]
)
@pytest.mark.parametrize("covariance", [None, COVARIANCE], ids=["points", "gaussians"])
def test_groups_of_one_and_of_all_columns(groups, covariance):
    own = posterior(groups, covariance)
    found = own.score(torch.from_numpy(QUERIES), V)
    expected = slow(QUERIES, POINTS, LOG_WEIGHTS, groups, covariance, V)
    assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-12)
    assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-10)
    # Twice: the points of a single group are kept.
    assert_allclose(
        own.score(torch.from_numpy(QUERIES), 4 * V)[0],
        slow(QUERIES, POINTS, LOG_WEIGHTS, groups, covariance, 4 * V)[0],
    )


def test_columns_without_a_group_are_zero():
    own = posterior(GROUPS, COVARIANCE, only=[1, 3])
    score, derivative = own.score(torch.from_numpy(QUERIES), V)
    groups = [None, GROUPS[1], None, GROUPS[3]]
    expected = slow(QUERIES, POINTS, LOG_WEIGHTS, groups, COVARIANCE, V)
    assert_allclose(score, expected[0], rtol=1e-9)
    assert_allclose(derivative, expected[1], rtol=1e-9, atol=1e-10)
    assert (score[:, [0, 2]] == 0).all()


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("memory_limit", [64.0, 1e-6])
def test_excluded_rows_and_their_copies(copies, memory_limit):
    """The points are blocks of copies of all rows: each query leaves out one row of every block."""
    points = np.concatenate([POINTS, POINTS + 0.5])[: copies * N]
    log_weights = np.tile(LOG_WEIGHTS, copies) - np.log(copies)
    own = posterior(
        GROUPS, None, memory_limit, points=points, log_weights=log_weights, copies=copies
    )
    exclude = np.array([0, 3, 3, 6, 1])
    found = own.score(torch.from_numpy(QUERIES), V, torch.from_numpy(exclude))
    left_out = np.stack([exclude + N * k for k in range(copies)], axis=1)
    expected = slow(QUERIES, points, log_weights, GROUPS, None, V, exclude=left_out)
    assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-12)
    assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-10)


def test_groups_are_distinct_sets_of_columns():
    groups = ColumnGroups.of([np.array(each) for each in ([1, 0], [0, 1, 1], [2], [3, 2])])
    assert groups.columns.tolist() == [[0, 1], [2, -1], [2, 3]]
    assert groups.owner.tolist() == [0, 0, 1, 2]
    assert groups.size == 2
    some = groups.only(np.array([1, 3]))
    assert some.columns.tolist() == [[0, 1], [2, 3]]
    assert some.owner.tolist() == [-1, 0, -1, 1]


def many(n, scale, d=1):
    rng = np.random.default_rng(3)
    return scale * rng.normal(size=(n, d)), np.log(rng.dirichlet(np.ones(n)))


@pytest.mark.parametrize(
    ("n", "size", "is_single"), [(255, 1.0, False), (256, 1.0, True), (256, 60.0, False)]
)
def test_many_points_near_the_noise_are_computed_in_single_precision(n, size, is_single):
    points, log_weights = many(n, 1.0)
    points *= size / np.abs(points).max()
    v = 1.0 if size == 1.0 else size**2 / 1600 * 0.999
    own = posterior([[0]], points=points, log_weights=log_weights)
    x = torch.from_numpy(np.linspace(-1, 1, 5)[:, None])
    score, derivative = own.score(x, v)
    expected = slow(x.numpy(), points, log_weights, [[0]], None, v)
    assert ("_single" in vars(own)) == is_single
    assert_allclose(score, expected[0], rtol=2e-3, atol=2e-3)
    assert_allclose(derivative, expected[1], rtol=2e-3, atol=2e-3)
    assert score.dtype == derivative.dtype == torch.float64
    if size == 60.0:
        own.score(x, size**2 / 1600 * 1.001)
        assert "_single" in vars(own)


def test_merged_points_have_the_moments_of_each_bin():
    """Of degree zero to three, in bins from the lowest point on."""
    rng = np.random.default_rng(0)
    points = np.stack([np.sort(rng.uniform(0, 4, 400)), rng.uniform(-8, 0, 400)])
    weights = rng.dirichlet(np.ones(400))
    width = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    nodes, log_weights = _merged(torch.from_numpy(points), torch.from_numpy(weights), width)
    nodes, masses = nodes[:, 0].numpy(), log_weights.exp().numpy()
    assert nodes.shape == masses.shape == (2, 16)
    for row in range(2):
        edges = points[row].min() + width[row].item() * np.arange(9)
        for k in range(8):
            inside = (points[row] >= edges[k]) & (points[row] < edges[k + 1])
            pair = nodes[row, [k, k + 8]]
            for degree in range(4):
                expected = weights[inside] @ points[row, inside] ** degree
                assert masses[row, [k, k + 8]] @ pair**degree == pytest.approx(expected, rel=1e-9)


def test_points_are_merged_only_where_that_makes_them_fewer():
    points = torch.linspace(0, 10, 100, dtype=torch.float64)[None]
    weights = torch.full((100,), 0.01, dtype=torch.float64)

    def merged(width):
        return _merged(points, weights, torch.full((1, 1), width, dtype=torch.float64))

    assert merged(0.01) is None  # more than four bins for each point
    assert merged(0.19) is None  # two points for each of 53 bins
    assert merged(0.204) is None  # 50 bins
    nodes, _ = merged(0.205)  # 49 bins
    assert nodes.shape == (1, 1, 98)
    nodes, log_weights = merged(0.5)
    assert log_weights.exp().sum().item() == pytest.approx(1.0)
    # Empty bins are left out.
    apart = torch.cat([points, points + 90], dim=1)
    both = torch.full((200,), 0.005, dtype=torch.float64)
    nodes, log_weights = _merged(apart, both, torch.full((1, 1), 1.0, dtype=torch.float64))
    assert nodes.shape == (1, 1, 44)
    assert log_weights.exp().sum().item() == pytest.approx(1.0)
