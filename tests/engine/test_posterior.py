"""Tests of the engine: posterior moments and log-densities against two loops, on every path.

The engine has four ways to form an exponential: products of factors, single pairs taken out of
them, whole blocks taken out of them, and distances from coordinate differences. Which one a call
takes is decided by the noise, the nodes and the data; `test_every_path_is_taken` watches it decide.

A tolerance here is a bound and not a guess. With exponents that are off by `delta` nats at most,
posterior weights are off by factors within exp(+-2 delta), so

    |mean error|  <= (exp(2 delta) - 1) sqrt(tr Cov),    |trace error| <= 2 (exp(2 delta) - 1) tr Cov,

to which the rounding of the sums is added. Rounding a query y = x + xi alone makes exponents wrong
by about eps |y|^2 / v, whatever comes after: `delta` is a small multiple of that.
"""

import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from engine_problems import Problem, assert_matches_oracle, longest, problem, tensors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skdiffsmooth._engine import direct as _direct
from skdiffsmooth._engine import posterior as _posterior
from skdiffsmooth._engine import tiles as _tiles
from skdiffsmooth._engine.factorised import Factoriser, Products
from skdiffsmooth._engine.moments import Moments
from skdiffsmooth._engine.points import Points
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.scores import SmoothedScore

DTYPES = {torch.float64: np.float64, torch.float32: np.float32}


# ------------------------------------------------------------------------- against the two loops


@st.composite
def problems(draw, dtype=np.float64, most_coordinates=3):
    n_points = draw(st.integers(1, 7))
    decades = draw(st.sampled_from([0.0, 1.0, 100.0, 300.0]))
    if dtype == np.float32:
        decades /= 10
    v = 10 ** draw(st.floats(-12, 12))
    # Nodes in units of the data, or of the noise, or such that exponents max_norm some hundreds.
    scale = 10 ** draw(st.floats(-2, 1)) * draw(st.sampled_from([1.0, math.sqrt(v), v, 100 * v]))
    return problem(
        draw(st.integers(0, 2**20)),
        draw(st.integers(0, 3)),
        n_points,
        draw(st.integers(1, 5)),
        draw(st.integers(0, most_coordinates)),
        v=v,
        scale=min(scale, 1e6),
        query_scale=draw(st.sampled_from([1.0, 1e-3, 1e3])),
        decades=decades,
        # Leaving out a point that is all but 1e-100 of the mass has a test of its own, below.
        leave_out=n_points > 1 and decades <= 1 and draw(st.booleans()),
        ties=draw(st.booleans()),
        dtype=dtype,
    )


@settings(deadline=None, max_examples=300)
@given(problem=problems(), trace=st.booleans())
@example(problem=problem(0, dimension=0), trace=True)
@example(problem=problem(0, n_points=1, n_nodes=1, n_queries=1), trace=True)
@example(problem=problem(0, n_queries=0), trace=True)
@example(problem=problem(1, n_queries=0, v=1e-12), trace=False)
def test_moments(problem, trace):
    assert_matches_oracle(problem, trace=trace)


@settings(deadline=None, max_examples=100)
@given(problem=problems(np.float32), trace=st.booleans())
def test_moments_in_single_precision(problem, trace):
    """The same bounds with the other eps; the oracle gets the arrays after they were rounded."""
    assert_matches_oracle(problem, trace=trace, dtype=torch.float32)


def test_single_precision_is_good_to_four_digits_at_ordinary_noise():
    """At v = 0.1, delta is 1e-4 nats in single precision: R = 2.5, 16 eps 10 / v."""
    case = problem(0, 20, 30, 16, v=0.1, scale=0.3)
    single, double = case.moments(trace=True, dtype=torch.float32), case.moments(trace=True)
    for name in ("mean", "trace", "log_density"):
        torch.testing.assert_close(
            getattr(single, name).double(), getattr(double, name), rtol=1e-4, atol=1e-4
        )
        assert getattr(single, name).dtype == torch.float32


@settings(deadline=None, max_examples=100)
@given(problem=problems())
def test_log_density(problem):
    """The computation without nodes, which leave-one-out and terminal distributions use."""
    (queries,) = tensors(torch.float64, problem.queries)
    found = problem.posterior().log_density(queries, problem.v, exclude=problem.exclude_tensor)
    assert found.shape == (len(queries),)
    radius = longest(problem.points)
    for b, x in enumerate(problem.queries):
        excluded = None if problem.exclude is None else problem.exclude[b]
        expected = oracles.posterior(problem.points, problem.log_weights, x, problem.v, excluded)
        far = longest(problem.queries[[b]]) + radius
        delta = 4 * (problem.points.shape[1] + 2) * np.finfo(float).eps * far**2 / problem.v
        error = abs(found[b].item() - expected.log_density)
        assert error <= delta + 1e-13 + 1e-15 * abs(expected.log_density)


# ----------------------------------------------------------------------------------- which path


@pytest.fixture
def watched(monkeypatch):
    """Names of the code paths that calls take, as a set that fills while they run."""
    taken = set()
    factorise, node_table = Factoriser.products, Factoriser.table
    over_all, over_members = _direct._over_all_points, _direct._over_members
    of_pairs, over_few = _posterior.moments_of_pairs, _posterior.average_over_few_points

    def watch_table(self, *args):
        table = node_table(self, *args)
        taken.add("safe table" if table.never_underflows else "table that may underflow")
        return table

    def watch_factorise(self, *args, **kwargs):
        found = factorise(self, *args, **kwargs)
        if found is None:
            taken.add("all pairs out")
        else:
            all_easy = found.underflows is None or not found.underflows.any()
            taken.add("all factorised" if all_easy else "mixed")
        return found

    def watch_over_all(points, y, v, max_norm, *others):
        if len(y):
            taken.add("all points")
            taken.add("products" if points.products_are_exact(v, max_norm) else "differences")
        return over_all(points, y, v, max_norm, *others)

    def watch_over_members(points, y, *others):
        if len(y):
            taken.add("some points")
        return over_members(points, y, *others)

    def watch_few_points(*args, **kwargs):
        taken.add("few points")
        return over_few(*args, **kwargs)

    def watch_of_pairs(*args):
        taken.add("pairs")
        return of_pairs(*args)

    monkeypatch.setattr(Factoriser, "table", watch_table)
    monkeypatch.setattr(Factoriser, "products", watch_factorise)
    monkeypatch.setattr(_direct, "_over_all_points", watch_over_all)
    monkeypatch.setattr(_direct, "_over_members", watch_over_members)
    monkeypatch.setattr(_posterior, "moments_of_pairs", watch_of_pairs)
    monkeypatch.setattr(_posterior, "average_over_few_points", watch_few_points)
    return taken


# What a call is made of, and the ways it must take. Exponents range over one nat in the first, over
# some hundreds in the next three, where factors of exp(+-300) still max_norm or no longer do; in the
# last products of coordinates are off by more than 1e-10 nats.
PATHS = {
    "safe": ({"v": 1.0}, {"safe table", "all factorised"}),
    "fine after all": (
        {"v": 3e-3, "query_scale": 0.1, "seed": 4},
        {"table that may underflow", "all factorised"},
    ),
    "mixed": ({"v": 2e-3}, {"table that may underflow", "mixed", "all points", "products"}),
    "all out": (
        {"v": 1e-4},
        {"table that may underflow", "all pairs out", "few points"},
    ),
    "all out of more": (
        {"v": 1e-4, "n_points": 12},
        {"table that may underflow", "all pairs out", "all points", "products"},
    ),
    "differences": ({"v": 1e-9}, {"all points", "differences"}),
}


@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_taken(path, trace, leave_out, watched):
    settings, ways = PATHS[path]
    case = problem(**{"seed": 1, "n_points": 7} | settings, n_nodes=6, leave_out=leave_out)
    assert_matches_oracle(case, trace=trace)
    assert watched == ways


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_means_need_no_logarithms(path, leave_out, dtype, monkeypatch):
    settings, _ = PATHS[path]
    case = problem(**{"seed": 1, "n_points": 7} | settings, n_nodes=6, leave_out=leave_out)
    expected = case.moments(trace=False, dtype=dtype).mean

    def fail(self):
        raise AssertionError("logarithms were taken")

    monkeypatch.setattr(Products, "log_sums", property(fail))
    (queries,) = tensors(dtype, case.queries)
    posterior, nodes = case.posterior(dtype), case.nodes(dtype)
    mean = posterior.mean(queries, case.v, nodes, exclude=case.exclude_tensor)
    assert torch.equal(mean, expected)


@pytest.mark.parametrize(
    ("n_points", "ways"), [(5, {"few points"}), (20, {"all points", "products"})]
)
def test_one_node_goes_directly(n_points, ways, watched):
    assert_matches_oracle(problem(0, n_points=n_points, n_nodes=1))
    assert watched == ways


@pytest.mark.parametrize("trace", [False, True])
def test_results_are_continuous_where_code_paths_change(trace, watched):
    """Two points and two nodes, the exponents of queries and nodes opposed, in small steps of v.

    Exponents of a factor run from 60 nats, through the 594 that a table takes, the 600 where a pair
    is taken out, the 708 to 745 where an exponential is subnormal, to beyond.
    """
    arrays = [[-1.0], [1.0]], np.log([0.5, 0.5]), [[0.999], [-1.0], [0.2]]
    for v in 2 / np.geomspace(60, 1500, 60):
        case = Problem(*map(np.array, arrays), v, np.array([[-1.0], [0.97]]), np.array([0.3, 0.7]))
        assert_matches_oracle(case, trace=trace)
    assert {"safe table", "all factorised", "mixed", "table that may underflow"} <= watched


# ------------------------------------------------------------------- queries with nodes of their own


def parts(case, counts):
    """Problems with the same points, each with nodes and as many queries as counts say of its own."""
    rng = np.random.RandomState(5)
    for n in counts:
        queries = rng.standard_normal((n, case.points.shape[1])).astype(case.queries.dtype)
        exclude = None if case.exclude is None else rng.randint(len(case.points), size=n)
        offsets = (case.offsets * rng.uniform(0.5, 2.0)).astype(case.offsets.dtype)
        yield replace(case, queries=queries, exclude=exclude, offsets=offsets)


def moments_by_part(cases, *, trace, dtype=torch.float64, memory_limit=16.0):
    """Compute all at once, and return the rows of each problem."""
    counts = [len(case.queries) for case in cases]
    (x,) = tensors(dtype, np.concatenate([case.queries for case in cases]))
    excluded = (
        None if cases[0].exclude is None else torch.cat([case.exclude_tensor for case in cases])
    )
    nodes = [case.nodes(dtype) for case in cases]
    found = cases[0].posterior(dtype, memory_limit)
    which = torch.repeat_interleave(torch.arange(len(cases)), torch.tensor(counts))
    found = found.moments_by_part(
        x, cases[0].v, nodes, which, counts, trace=trace, exclude=excluded
    )
    traces = [None] * len(cases) if found.trace is None else found.trace.split(counts)
    return map(Moments, found.mean.split(counts), traces, found.log_density.split(counts))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("v", [1.0, 2e-3, 1e-9])
def test_parts_against_the_two_loops(v, trace, leave_out, dtype):
    case = problem(0, n_points=9, n_nodes=6, leave_out=leave_out, v=v, dtype=DTYPES[dtype])
    cases = list(parts(case, [3, 0, 1, 8]))
    for own, moments in zip(cases, moments_by_part(cases, trace=trace, dtype=dtype), strict=True):
        if len(own.queries):
            assert_matches_oracle(own, trace=trace, dtype=dtype, moments=moments)


@pytest.mark.parametrize(
    ("settings", "at_once"),
    [
        ({}, True),
        ({"n_points": 60, "v": 1e-3}, False),  # factors may underflow
        ({"v": 1e-9}, False),  # products of coordinates are no exponents
        ({"n_points": 2000, "n_nodes": 40}, False),  # too many to hold at once
    ],
)
def test_small_parts_are_computed_at_once(settings, at_once, monkeypatch):
    calls = []
    for name in ("products", "products_by_part"):
        monkeypatch.setattr(Factoriser, name, counted(getattr(Factoriser, name), calls))
    cases = list(parts(problem(1, **settings), [3, 2, 4]))
    apart = [case.moments(trace=True, memory_limit=2.0) for case in cases]
    assert calls.count("products_by_part") == 0
    for one, other in zip(moments_by_part(cases, trace=True, memory_limit=2.0), apart, strict=True):
        for name in ("mean", "trace", "log_density"):
            # The same sums in other products.
            torch.testing.assert_close(
                getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-10
            )
    assert calls.count("products_by_part") == at_once


# --------------------------------------------------------------------- few of many points matter


@st.composite
def many_points(draw, dtype=np.float64, most_coordinates=3):
    """Points so many that they are grouped, at noise where few of them are relevant."""
    v = 10 ** draw(st.floats(-14, -1))
    return problem(
        draw(st.integers(0, 2**20)),
        draw(st.integers(0, 2)),
        draw(st.integers(129, 170)),
        draw(st.integers(1, 3)),
        draw(st.integers(0, most_coordinates)),
        v=v,
        scale=10 ** draw(st.floats(-2, 0.5)),
        query_scale=draw(st.sampled_from([1.0, 1e-3, 1e3])),
        decades=draw(st.sampled_from([0.0, 30.0])) if dtype == np.float64 else 0.0,
        leave_out=draw(st.booleans()),
        ties=draw(st.booleans()),
        dtype=dtype,
    )


@settings(deadline=None, max_examples=100)
@given(problem=many_points(), trace=st.booleans())
def test_moments_of_many_points(problem, trace):
    assert_matches_oracle(problem, trace=trace)


@settings(deadline=None, max_examples=50)
@given(problem=many_points(np.float32), trace=st.booleans())
def test_moments_of_many_points_in_single_precision(problem, trace):
    assert_matches_oracle(problem, trace=trace, dtype=torch.float32)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize(
    ("v", "ways"),
    [
        (1e-4, {"some points"}),
        (1e-9, {"some points"}),
        (1.0, {"all points", "products"}),
    ],
)
def test_irrelevant_points_are_skipped(v, ways, leave_out, trace, watched):
    case = problem(3, n_points=200, n_nodes=1, v=v, scale=0.5, leave_out=leave_out)
    assert_matches_oracle(case, trace=trace)
    assert watched == ways


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize(
    ("v", "ways"),
    [
        (4e-3, {"table that may underflow", "mixed", "pairs", "some points"}),
        (1e-4, {"table that may underflow", "all pairs out", "pairs", "some points"}),
        (1e-9, {"pairs", "some points"}),
    ],
)
def test_pairs_share_the_search_for_relevant_points(v, ways, leave_out, trace, watched):
    size = {"n_queries": 2, "n_points": 400, "n_nodes": 7, "dimension": 4}
    case = problem(3, **size, v=v, scale=0.3, leave_out=leave_out)
    assert_matches_oracle(case, trace=trace)
    assert watched == ways


def test_pairs_with_half_of_the_points_relevant_use_all_points(watched):
    """Two clusters far apart, each of almost equal points, at noise too small for products."""
    case = problem(3, n_points=200, n_nodes=7, v=1e-9, scale=0.1)
    sides = np.outer(np.arange(200) % 2 * 2.0 - 1, [1.0, 0.0])
    assert_matches_oracle(replace(case, points=sides + 1e-9 * case.points))
    assert watched == {"pairs", "all points", "differences"}


@settings(deadline=None, max_examples=200)
@given(problem=many_points(most_coordinates=6).filter(lambda case: case.points.shape[1] > 0))
def test_no_group_is_missed(problem):
    """Every point within 45 nats of a pair's best is in a group that is relevant to it."""
    points, log_weights, queries, offsets = tensors(
        torch.float64, problem.points, problem.log_weights, problem.queries, problem.offsets
    )
    engine = Points(points, log_weights, longest(problem.points))
    kept = engine.groups.relevant_to_pairs(
        queries, offsets, problem.v, problem.exclude_tensor
    ).relevant
    shown = torch.full((len(engine), *kept.shape[1:]), False)
    shown[engine.groups.index.flatten()] = kept.repeat_interleave(
        engine.groups.index.shape[1], dim=0
    )
    for b, m in np.ndindex(*kept.shape[1:]):
        y = problem.queries[b] + problem.offsets[m]
        logits = problem.log_weights - np.square(problem.points - y).sum(1) / (2 * problem.v)
        if problem.exclude is not None:
            logits[problem.exclude[b]] = -np.inf
        counts = logits >= logits.max() - 45
        assert shown[: len(points), b, m].numpy()[counts].all()


def test_queries_beyond_single_precision():
    """1e60 radii away, the posterior is the point farthest in that direction."""
    case = problem(0, 1, 200, 1, v=1e-4)
    far = Problem(
        case.points, case.log_weights, case.queries * 1e60, 1e-4, *[np.zeros((1, 2)), np.ones(1)]
    )
    found = far.moments(trace=True)
    assert found.mean.isfinite().all()
    assert found.log_density.isfinite().all()


@pytest.mark.parametrize("v", [1.0, 1e-4, 1e-9])
def test_tiles_do_not_change_the_moments_of_many_points(v, monkeypatch):
    case = problem(3, 20, 200, 5, v=v, scale=0.5, leave_out=True)
    whole = case.moments(trace=True)
    monkeypatch.setattr(_tiles, "_TILE", 300)
    monkeypatch.setattr(_tiles, "_LARGEST_TILE", 1)
    in_tiles = case.moments(trace=True)
    for name in ("mean", "trace", "log_density"):
        found, expected = getattr(in_tiles, name), getattr(whole, name)
        size = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * max(size, 1))


def test_every_point_of_equal_distance_counts(watched):
    """Points on a sphere around the query, at a noise of 1e-3 of its radius, and many points beyond."""
    rng = np.random.RandomState(0)
    directions = rng.standard_normal((2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = np.concatenate([directions[:20], 2 * directions[20:]])[rng.permutation(2000)]
    log_weights = np.full(2000, -math.log(2000))
    case = Problem(points, log_weights, np.zeros((1, 3)), 1e-6, np.zeros((1, 3)), np.ones(1))
    assert_matches_oracle(case)
    assert "some points" in watched
    near = points[np.linalg.norm(points, axis=1) < 1.5]
    found = case.moments(trace=True)
    # Distances of one are rounded to 1e-16, exponents to 1e-10.
    np.testing.assert_allclose(found.mean[0], near.mean(0), rtol=0, atol=1e-9)


# ------------------------------------------------------------- single queries, and their covariance


def along(case, n_directions, *, dtype=torch.float64, memory_limit=16.0):
    """Return directions of a problem's queries, and what `covariance_along` returns for them."""
    rank = case.points.shape[1]
    rng = np.random.RandomState(n_directions)
    directions = rng.standard_normal((len(case.queries), rank, n_directions))
    (queries,) = tensors(dtype, case.queries)
    (rounded,) = tensors(dtype, directions)
    found = case.posterior(dtype, memory_limit).covariance_along(
        queries, case.v, rounded, exclude=case.exclude_tensor
    )
    return rounded.double().numpy(), found


def assert_along_matches_oracle(case, n_directions, *, dtype=torch.float64):
    directions, found = along(case, n_directions, dtype=dtype)
    eps, rank = torch.finfo(dtype).eps, case.points.shape[1]
    radius = longest(case.points)
    assert found.along.shape == directions.shape
    for b, x in enumerate(case.queries):
        excluded = None if case.exclude is None else case.exclude[b]
        single = oracles.posterior(case.points, case.log_weights, x, case.v, excluded)
        expected = oracles.covariance_along(case.points, single, directions[b])
        far = longest(case.queries[[b]]) + radius
        delta = eps * (4 * (rank + 2) * far**2 / case.v + 1000)
        slip = np.expm1(min(2 * delta, 700.0))
        size = np.linalg.norm(directions[b], axis=0)
        root_trace = np.sqrt(np.float64(single.trace))
        slack = 2 * slip * root_trace**2 + 16 * eps * radius**2
        error = np.linalg.norm(found.along[b].double().numpy() - expected, axis=0)
        assert np.all(error <= slack * size)
        mean_error = np.linalg.norm(found.mean[b].numpy() - single.mean)
        assert mean_error <= slip * root_trace + 16 * eps * radius
        trace_error = abs(found.trace[b].item() - single.trace)
        assert trace_error <= 2 * slip * single.trace + 16 * eps * radius**2
        log_error = abs(found.log_density[b].item() - single.log_density)
        assert log_error <= delta + 8 * eps * abs(single.log_density)


@settings(deadline=None, max_examples=100)
@given(
    problem=problems(np.float64, 10) | many_points(np.float64, 10), n_directions=st.integers(0, 3)
)
@example(problem=problem(0, dimension=0), n_directions=2)
@example(problem=problem(0, n_queries=0), n_directions=2)
def test_covariance_along(problem, n_directions):
    assert_along_matches_oracle(problem, n_directions)


@settings(deadline=None, max_examples=50)
@given(
    problem=problems(np.float32, 10) | many_points(np.float32, 10), n_directions=st.integers(0, 3)
)
def test_covariance_along_in_single_precision(problem, n_directions):
    assert_along_matches_oracle(problem, n_directions, dtype=torch.float32)


@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize(
    ("v", "ways"),
    [
        (1.0, {"all points", "products"}),
        (1e-4, {"some points"}),
        (1e-9, {"some points"}),
    ],
)
def test_covariance_along_takes_the_paths_of_single_queries(v, ways, leave_out, watched):
    case = problem(3, n_points=200, v=v, leave_out=leave_out)
    assert_along_matches_oracle(case, 2)
    assert watched == ways


@pytest.mark.parametrize("dimension", [2, 10])
@pytest.mark.parametrize("v", [1e-3, 1e-5, 1e-8, 1e-12])
def test_covariance_of_close_points_far_from_the_origin(v, dimension):
    """Points sqrt(v) apart, at a radius of one: along a direction the covariance is about v.

    Coordinates and their differences are exact here. Products of coordinates round exponents and
    second moments by eps R^2 / v, 2e-11 at the second noise; where that is too much, and in more
    dimensions at any noise, the covariance is right to eps R / sqrt(v) of itself.
    """
    step = 2.0 ** math.floor(math.log2(math.sqrt(v)))
    points, queries = np.zeros((4, dimension)), np.zeros((1, dimension))
    points[:, :2] = [[1.0, 0.0], [1.0, step], [1.0 - step, 0.0], [-1.0, 0.0]]
    queries[:, :2] = [1.0 - step / 2, step / 4]
    nodes = np.zeros((1, dimension)), np.ones(1)
    case = Problem(points, np.log(np.full(4, 0.25)), queries, v, *nodes)
    directions, found = along(case, 2)
    single = oracles.posterior(points, case.log_weights, queries[0], v)
    expected = oracles.covariance_along(points, single, directions[0]).astype(float)
    exact = v < 1e-6
    atol = 1e-15 / math.sqrt(v) if exact else 1e-15 / v
    np.testing.assert_allclose(found.along[0] / v, expected / v, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("v", [1.0, 1e-4, 1e-9])
def test_tiles_do_not_change_covariances(v, monkeypatch):
    case = problem(3, 40, 200, v=v, leave_out=True)
    _, whole = along(case, 2)
    monkeypatch.setattr(_tiles, "_TILE", 300)
    monkeypatch.setattr(_tiles, "_LARGEST_TILE", 1)
    over_all, sizes = _direct._over_all_points, []

    def watch(points, y, *others):
        sizes.append(len(y))
        return over_all(points, y, *others)

    monkeypatch.setattr(_direct, "_over_all_points", watch)
    _, in_tiles = along(case, 2, memory_limit=0.03)
    # 208 logits for a query, and as many for each of two directions.
    assert max(sizes, default=1) == 1
    for found, expected in zip(in_tiles, whole, strict=True):
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * size)


def test_covariances_when_the_device_is_out_of_memory(monkeypatch):
    case = problem(1, 50, 40, v=1.0)
    _, whole = along(case, 2)
    products, sizes = Points.products, []

    def little_memory(self, y, v):
        sizes.append(len(y))
        if len(y) > 10:
            raise torch.OutOfMemoryError("no")
        return products(self, y, v)

    monkeypatch.setattr(Points, "products", little_memory)
    _, found = along(case, 2)
    assert max(sizes) > 10 >= sizes[-1]
    torch.testing.assert_close(found.along, whole.along, rtol=0, atol=1e-13)


def test_covariance_along_is_the_jacobian_of_the_mean():
    """dD/dy = Cov / v, by autograd of log p: the Hessian is (Cov / v - I) / v."""
    case, v = problem(2, v=0.3), 0.3
    directions, found = along(case, 2)
    queries, points, log_weights = tensors(
        torch.float64, case.queries, case.points, case.log_weights
    )

    def log_density(y):
        node = y.new_zeros(1, len(y)), y.new_ones(1)
        return oracles.averaged_log_density(y, points, log_weights, v, *node)

    for b, y in enumerate(queries):
        hessian = torch.autograd.functional.hessian(log_density, y)
        covariance = v * (v * hessian + torch.eye(len(y), dtype=torch.float64))
        expected = covariance @ torch.tensor(directions[b])
        torch.testing.assert_close(found.along[b], expected, rtol=1e-11, atol=1e-12)


def test_precision_at():
    case = problem(0, dtype=np.float32)
    single = case.posterior(torch.float32)
    assert single.precision_at(1.0) == torch.float32
    assert single.precision_at(1e-7) == torch.float64
    assert case.posterior().precision_at(1e-7) == torch.float64


# --------------------------------------------------------------------- precision, memory, devices


def test_single_precision_is_promoted_to_double_at_small_noise():
    """At v = 1e-7 products in float32 are wrong by nats; the result is that of float64, rounded."""
    case = problem(5, 6, 100, 8, v=1e-7, scale=1e-3, dtype=np.float32)
    single, double = (case.moments(trace=True, dtype=d) for d in (torch.float32, torch.float64))
    for name in ("mean", "trace", "log_density"):
        assert getattr(single, name).dtype == torch.float32
        torch.testing.assert_close(getattr(single, name), getattr(double, name).float())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no"), RuntimeError("can't allocate memory")]
)
@pytest.mark.parametrize("v", [1.0, 1e-4])
def test_tiles_shrink_when_the_device_is_out_of_memory(v, error, monkeypatch):
    """Tiles fail until they hold at most ten rows."""
    case = problem(1, 50, 40, 6, v=v)
    whole = case.moments(trace=True)
    products = Points.products

    def little_memory(self, y, v):
        if len(y) > 10:
            raise error
        return products(self, y, v)

    monkeypatch.setattr(Points, "products", little_memory)
    found = case.moments(trace=True)
    for name in ("mean", "trace", "log_density"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=0, atol=1e-11)
    (queries,) = tensors(torch.float64, case.queries)
    assert case.posterior().log_density(queries, v).isfinite().all()


def test_memory_error_when_no_tile_fits(monkeypatch):
    def no_memory(self, v):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Points, "product_matrix", no_memory)
    with pytest.raises(MemoryError, match=r"cpu has no memory left.*40 points in 2 dim.*float32"):
        problem(1, 5, 40).moments(trace=True)


def test_other_errors_of_torch_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def broken(self, v):
        raise RuntimeError("something else")

    monkeypatch.setattr(Points, "product_matrix", broken)
    with pytest.raises(RuntimeError, match="something else"):
        problem(1, 5, 40).moments(trace=True)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_tiles_do_not_change_the_result(path, trace, monkeypatch):
    """Small tiles by either limit; sums in another order differ by rounding, 1e-12 of their size."""
    case = problem(1, 23, 40, 30, 3, **{"scale": 1.0} | {"v": PATHS[path][0]["v"]}, leave_out=True)
    whole = case.moments(trace=trace)
    smallest = 2.0**-20
    while True:
        try:
            case.posterior(memory_limit=smallest)
            break
        except ValueError:
            smallest *= 1.1
    calls = []
    for owner, name in ((Factoriser, "products"), (Posterior, "_pairs_directly")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name), calls))
    for memory_limit, tile in [(smallest, _tiles._TILE), (16.0, 100), (smallest, 1)]:
        calls.clear()
        monkeypatch.setattr(_tiles, "_TILE", tile)
        monkeypatch.setattr(_tiles, "_LARGEST_TILE", 1)
        in_tiles = case.moments(trace=trace, memory_limit=memory_limit)
        assert len(calls) > 5
        for name in ("mean", "log_density") + trace * ("trace",):
            found, expected = getattr(in_tiles, name), getattr(whole, name)
            size = float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * max(size, 1))


def counted(method, calls):
    def wrapper(*args, **kwargs):
        calls.append(method.__name__)
        return method(*args, **kwargs)

    return wrapper


def test_log_density_in_tiles(monkeypatch):
    case = problem(0, 50, 30, leave_out=True)
    (queries,) = tensors(torch.float64, case.queries)
    whole = case.posterior().log_density(queries, 0.1, exclude=case.exclude_tensor)
    monkeypatch.setattr(_tiles, "_TILE", 100)
    monkeypatch.setattr(_tiles, "_LARGEST_TILE", 1)
    in_tiles = case.posterior().log_density(queries, 0.1, exclude=case.exclude_tensor)
    torch.testing.assert_close(in_tiles, whole, rtol=1e-12, atol=0)


def test_memory_limit_too_small():
    case = problem(0, n_points=1000, dimension=20)
    with pytest.raises(ValueError, match=r"memory_limit=0\.01 .*1000 points in 20 dim.*Raise"):
        case.posterior(memory_limit=0.01)
    # The number that the message names is enough, to its two digits.
    with pytest.raises(ValueError, match=r"at least 0\.38 MiB are needed"):
        case.posterior(memory_limit=0.37)
    case.posterior(memory_limit=0.38)


# ---------------------------------------------------------------------------------- invariances


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**20), log_v=st.floats(-10, 4))
def test_excluding_a_point_equals_removing_it(seed, log_v):
    case = problem(seed, n_points=6, v=10**log_v, leave_out=True)
    found = case.moments(trace=True)
    for b, j in enumerate(case.exclude):
        others = np.arange(6) != j
        log_weights = case.log_weights[others]
        log_weights = log_weights - np.float64(oracles.log_sum_exp(log_weights))
        without = Problem(
            case.points[others],
            log_weights,
            case.queries[[b]],
            case.v,
            case.offsets,
            case.node_weights,
        ).moments(trace=True)
        # The two may go different ways, each off by 1e-10 nats; in differences by eps |y|^2 / v.
        slack = 1e-9 + 1e-13 / case.v
        for name in ("mean", "trace", "log_density"):
            torch.testing.assert_close(
                getattr(found, name)[b], getattr(without, name)[0], rtol=slack, atol=slack
            )


def test_excluding_nearly_all_of_the_mass():
    """A point with all but 1e-200 of the mass: the other points keep a small weight, not zero."""
    points, queries, log_weights = (
        [[-1.0], [1.0]],
        [[-1.0], [-1.0], [1.0]],
        [0.0, -200 * math.log(10)],
    )
    v, node = 0.5, [[0.0]]
    arrays = map(np.array, (points, log_weights, queries))
    case = Problem(*arrays, v, np.array(node), np.ones(1), np.array([0, 1, 1]))
    assert_matches_oracle(case)


@pytest.mark.parametrize("v", [1e-8, 1e-3, 1.0, 1e3])
def test_identical_points_are_one_point(v):
    case = problem(3, v=v)
    share = np.log([0.3, 0.5, 0.2])
    points = np.concatenate([case.points, case.points[[1, 1]]])
    log_weights = np.concatenate([case.log_weights, case.log_weights[[1, 1]] + share[1:]])
    log_weights[1] += share[0]
    arrays = case.queries, v, case.offsets, case.node_weights
    twice, once = (
        Problem(points, log_weights, *arrays).moments(trace=True),
        case.moments(trace=True),
    )
    # 1e-10 nats are allowed to products of coordinates; at v = 1e-8 |y|^2 eps / v is 1e-7.
    slack = 1e-9 if v > 1e-6 else 1e-7
    for name in ("mean", "trace", "log_density"):
        torch.testing.assert_close(
            getattr(twice, name), getattr(once, name), rtol=slack, atol=slack
        )


@pytest.mark.parametrize("v", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("distance", [2.0**10, 2.0**20])
def test_translated_data(distance, v):
    """Coordinates are multiples of 1/64, so that translating them rounds nothing."""
    case = problem(5, v=v)
    points, queries, offsets = (
        np.round(a * 64) / 64 for a in (case.points, case.queries, case.offsets)
    )
    near = Problem(points, case.log_weights, queries, v, offsets, case.node_weights)
    far = Problem(
        points + distance, case.log_weights, queries + distance, v, offsets, case.node_weights
    )
    found, expected = far.moments(trace=True), near.moments(trace=True)
    eps = np.finfo(float).eps
    # Means carry the rounding of coordinates of size `distance`; exponents, from products that are
    # good to 1e-10 nats or from differences that are exact here, do not.
    torch.testing.assert_close(
        found.mean - distance, expected.mean, rtol=0, atol=1e-9 + 8 * eps * distance
    )
    torch.testing.assert_close(found.log_density, expected.log_density, rtol=1e-9, atol=1e-9)
    # Points "centred", says Posterior, and coordinates of 1000 times the extent are not: the bound is
    # the rounding of a second moment, and a million has a test of its own.
    if distance < 1e4:
        torch.testing.assert_close(
            found.trace, expected.trace, rtol=0, atol=1e-9 + 16 * eps * distance**2
        )


@pytest.mark.parametrize("n_nodes", [1, 4])
def test_trace_with_a_far_outlier(n_nodes):
    """Two points 1e-3 apart and one a million away, at a noise scale of 1e-3.

    Coordinates are exact and so are their differences: the trace, over v, decides the likelihood
    and must not be what cancellation leaves of a second moment of 1e12.
    """
    points = np.array([[0.0], [2.0**-10], [2.0**20]]) - 2.0**18
    queries = points[:2] + 2.0**-11
    offsets = np.array([[2.0**-12], [-(2.0**-12)], [0.0], [2.0**-11]])[:n_nodes]
    v, node_weights = 1e-6, np.full(n_nodes, 1 / n_nodes)
    case = Problem(points, np.log(np.full(3, 1 / 3)), queries, v, offsets, node_weights)
    found = case.moments(trace=True).trace / v
    expected = np.array([float(single.trace) for single in case.oracle()]) / v
    # One part in 1000 of what enters the log-density of one nat or so.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("n_points", [5, 200])
def test_trace_of_queries_far_from_all_points(n_points):
    """At a noise scale of 2e-7 only one point is relevant to a query ten away: the trace is zero.

    Measured from the query it would be a difference of 100 and 100, and four hundredths of v.
    """
    case = problem(5, dimension=3, n_points=n_points, v=5e-14)
    away = replace(case, queries=case.queries + 10.0)
    found = away.moments(trace=True).trace / away.v
    expected = np.array([float(single.trace) for single in away.oracle()]) / away.v
    # sqrt(v) is some 1e-7 of the radius: the rounding of a mean, in units of it, squared or times 1.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**20), s=st.sampled_from([1e-6, 1e6]), log_v=st.floats(-8, 4))
def test_results_do_not_depend_on_units(seed, s, log_v):
    """Data, nodes and queries times s, v times s^2."""
    case = problem(seed, v=10**log_v)
    scaled = Problem(
        s * case.points,
        case.log_weights,
        s * case.queries,
        s * s * case.v,
        s * case.offsets,
        case.node_weights,
    )
    found, expected = scaled.moments(trace=True), case.moments(trace=True)
    # s is no power of two: everything is rounded anew, exponents by eps |y|^2 / v and 1e-10 nats.
    slack = 1e-9 + 1e-13 / case.v
    shift = case.points.shape[1] * math.log(s)
    for a, b in [
        (found.mean / s, expected.mean),
        (found.trace / s**2, expected.trace),
        (found.log_density + shift, expected.log_density),
    ]:
        torch.testing.assert_close(a, b, rtol=slack, atol=slack)


def smoothed_score(case):
    return SmoothedScore(case.posterior(), case.nodes())


def centred(case):
    """The same with nodes of mean zero, which the score of a smoothed density needs."""
    offsets = case.offsets - case.node_weights @ case.offsets
    arrays = case.points, case.log_weights, case.queries, case.v
    return Problem(*arrays, offsets, case.node_weights, case.exclude)


# Noise and node scale: smooth, with some pairs taken out, and by differences. Each is checked to be.
FIELDS = {"smooth": (0.3, 0.5), "mixed": (2e-3, 1.0), "differences": (1e-7, 3e-4)}


@pytest.mark.parametrize("field", FIELDS)
def test_score_and_divergence_are_derivatives_of_the_averaged_log_density(field, watched):
    """Against autograd of the oracle: gradient, and trace of the Jacobian of the gradient."""
    v, scale = FIELDS[field]
    case = centred(problem(1, 4, 7, 6, v=v, scale=scale))
    # Near to where two points are equally far, or the Jacobian would be -I / v and nothing else.
    middles = (case.points[:4] + case.points[1:5]) / 2
    queries, points, log_weights, offsets, node_weights = tensors(
        torch.float64, middles, case.points, case.log_weights, case.offsets, case.node_weights
    )

    def log_density(x):
        return oracles.averaged_log_density(x, points, log_weights, v, offsets, node_weights)

    score, divergence = smoothed_score(case).with_divergence(queries, v)
    for b, x in enumerate(queries):
        gradient = torch.autograd.functional.jacobian(log_density, x)
        hessian = torch.autograd.functional.hessian(log_density, x)
        # Exponents are off by eps |y|^2 / v in either, the score by that times R / v.
        slack = 1e-9 + 1e-14 / v
        torch.testing.assert_close(score[b] * v, gradient * v, rtol=slack, atol=slack)
        torch.testing.assert_close(
            divergence[b] * v**2, hessian.trace() * v**2, rtol=slack, atol=slack
        )
    torch.testing.assert_close(smoothed_score(case)(queries, v), score, rtol=1e-9, atol=1e-9 / v)
    assert field == "smooth" or field in watched


@pytest.mark.parametrize("field", FIELDS)
def test_divergence_is_that_of_the_score(field):
    """Trace of the Jacobian of the field, by central differences of fourth order.

    (The engine works in place, which autograd cannot follow.) The step is a 1/100 of the scale on
    which the posterior changes, v over the distance of the points; what the rule leaves is (1/100)^4
    of the fifth derivative and the rounding of D, 1e-16, over the step: 1e-6 of D' = tr Cov / v.
    """
    v, scale = FIELDS[field]
    case = centred(problem(1, 4, 7, 6, v=v, scale=scale))
    (queries,) = tensors(torch.float64, (case.points[:4] + case.points[1:5]) / 2)
    score = smoothed_score(case)
    step = min(1.0, v) / 100
    trace = torch.zeros(len(queries), dtype=torch.float64)
    for k in range(queries.shape[1]):
        along = torch.zeros_like(queries)
        along[:, k] = step
        for times, weight in [(-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)]:
            trace += weight / step * score(queries + times * along, v)[:, k]
    _, divergence = score.with_divergence(queries, v)
    # In units of 1 / v^2, those of tr Cov of points at distance one.
    torch.testing.assert_close(trace * v**2, divergence * v**2, rtol=0, atol=1e-5)


def test_log_density_of_the_field_is_the_average():
    case = problem(2)
    (queries,) = tensors(torch.float64, case.queries)
    found = smoothed_score(case).log_density(queries, case.v)
    expected = [float(single.log_density) for single in case.oracle()]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("v", [1e-9, 1e-4, 0.1, 10.0])
def test_two_points_by_hand(v):
    """s = (m tanh(m x / v) - x) / v and tr Cov = m^2 / cosh^2 for points +-m of equal weight."""
    m, x = 0.75, np.linspace(-1, 1, 9) * min(v, 1.0)
    case = Problem(
        np.array([[m], [-m]]), np.log([0.5, 0.5]), x[:, None], v, np.zeros((1, 1)), np.ones(1)
    )
    score, divergence = smoothed_score(case).with_divergence(torch.tensor(x)[:, None], v)
    # Rounding of exponents: eps m^2 / v nats.
    slack = 1e-12 + 1e-16 / v
    np.testing.assert_allclose(v * score[:, 0], m * np.tanh(m * x / v) - x, rtol=0, atol=slack)
    np.testing.assert_allclose(
        v**2 * divergence, (m / np.cosh(m * x / v)) ** 2 - v, rtol=1e-15, atol=slack
    )


@pytest.mark.parametrize("v", [1e-10, 1e-3, 1.0, 1e6])
def test_smoothing_one_point_changes_nothing(v):
    case = centred(problem(0, n_points=1, scale=0.5, v=v))
    (queries,) = tensors(torch.float64, case.queries)
    score, divergence = smoothed_score(case).with_divergence(queries, v)
    torch.testing.assert_close(score, (torch.tensor(case.points) - queries) / v, rtol=1e-12, atol=0)
    # A trace of zero, to the rounding of a second moment of size R^2.
    np.testing.assert_allclose(v * divergence, -2, rtol=1e-14 + 1e-15 / v)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**20), log_v=st.floats(-3, 2), log_scale=st.floats(-1, 0.5))
def test_smoothing_acts_along_the_affine_hull_only(seed, log_v, log_scale):
    """Farghly et al. 2025, Prop. 3.1, node by node: offsets xi and P xi give the same score.

    Data lie in a plane of R^4, noise and queries do not.
    """
    v, scale = 10**log_v, 10**log_scale
    case = centred(problem(seed, 4, 6, 8, 4, v=v, scale=scale))
    basis = np.linalg.qr(np.random.RandomState(seed).standard_normal((4, 2)))[0]
    points = case.points @ basis @ basis.T
    arrays = points, case.log_weights, case.queries, v
    (queries,) = tensors(torch.float64, case.queries)
    scores, divergences = zip(
        *(
            smoothed_score(Problem(*arrays, offsets, case.node_weights)).with_divergence(queries, v)
            for offsets in (case.offsets, case.offsets @ basis @ basis.T)
        ),
        strict=True,
    )
    # Exponents are good to 1e-10 nats, and data have size one.
    torch.testing.assert_close(v * scores[0], v * scores[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(v**2 * divergences[0], v**2 * divergences[1], rtol=0, atol=1e-9)
