"""Tests of bandwidth selection: rules of thumb against scipy, leave-one-out against a dense scan."""

import math
import warnings

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    LocalScoreDiffusion,
    SmoothedScoreDiffusion,
    bandwidth,
)
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth._utils.rows import evenly, merge_duplicates
from skdiffsmooth.bandwidth import (
    Queries,
    gaussian_leave_one_out,
    maximize_leave_one_out,
    maximize_near,
    nearest_distances,
    scott,
    silverman,
    stationary_bracket,
)

DOUBLE = Backend.from_params("cpu", "float64")
RULES = {"scott": scott, "silverman": silverman}


def loo_bandwidth(points, weights, codimension=0, backend=DOUBLE):
    centered = points - points.mean(axis=0)
    return gaussian_leave_one_out(centered, weights, codimension, backend, 16.0)


def scan(points, weights, bandwidths, codimension=0):
    return np.array([oracles.leave_one_out(points, weights, h, codimension) for h in bandwidths])


@st.composite
def data(draw, min_points=3):
    """Rows without ties: blobs, or rows at distances of many sizes; equal or unequal weights."""
    rng = np.random.RandomState(draw(st.integers(0, 2**20)))
    n, d = draw(st.integers(min_points, 7)), draw(st.integers(1, 4))
    points = rng.standard_normal((n, d))
    if draw(st.booleans()):
        points *= 10.0 ** rng.uniform(-4, 0, (n, 1))
    if draw(st.booleans()):
        points[: n // 2] += 5
    weights = rng.dirichlet(np.ones(n)) if draw(st.booleans()) else np.full(n, 1 / n)
    return points, weights


# ------------------------------------------------------------------------------ rules of thumb


@settings(deadline=None, max_examples=50)
@given(data=data(), rule=st.sampled_from(list(RULES)), log_scale=st.integers(-6, 6))
def test_rule_of_thumb(data, rule, log_scale):
    """scipy's gaussian_kde has a matrix, factor^2 times the covariance; its diagonal is meant."""
    points, weights = data
    points = 10.0**log_scale * points[:, :1]  # one column, for scipy must invert the matrix
    kde = stats.gaussian_kde(points.T, bw_method=rule, weights=weights)
    np.testing.assert_allclose(
        RULES[rule](points, weights), np.sqrt(np.diag(kde.covariance)), rtol=1e-10
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("weighted", [False, True])
def test_rule_of_thumb_in_several_dimensions(rule, weighted):
    rng = np.random.RandomState(0)
    points = rng.standard_normal((40, 5)) * [1.0, 1e-3, 1e4, 2.0, 3.0]
    weights = rng.dirichlet(np.ones(40)) if weighted else np.full(40, 1 / 40)
    kde = stats.gaussian_kde(points.T, bw_method=rule, weights=weights)
    found = RULES[rule](points, weights)
    np.testing.assert_allclose(found, np.sqrt(np.diag(kde.covariance)), rtol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_rule_of_thumb_of_constant_columns(rule):
    with pytest.raises(ValueError, match="at least two distinct rows"):
        RULES[rule](np.zeros((1, 2)), np.ones(1))
    constant = np.array([[0.0, 1.0, 5.0], [0.0, 2.0, 5.0]])
    with pytest.raises(ValueError, match=r"constant columns \[0, 2\]"):
        RULES[rule](constant, np.full(2, 0.5))


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_rule_of_thumb_in_any_unit(unit):
    """Squares of deviations underflowed, and the error called such columns constant."""
    points, weights = np.random.RandomState(0).normal(size=(9, 2)), np.full(9, 1 / 9)
    np.testing.assert_allclose(scott(unit * points, weights), unit * scott(points, weights))


# ------------------------------------------------------------------------------------ bracket


@settings(deadline=None, max_examples=50)
@given(data=data(min_points=2))
def test_nearest_distances(data):
    points, _ = data
    for i, found in enumerate(nearest_distances(points)):
        expected = min(math.dist(points[i], other) for j, other in enumerate(points) if j != i)
        assert found == pytest.approx(expected, rel=1e-9)


def test_nearest_distances_of_close_points():
    """Distances of 1e-9 between points of norm 1 in R^20: |x|^2 - 2 x.y + |y|^2 would give 0 or 1e-8."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((20, 20))
    gaps = 1e-9 * rng.standard_normal((20, 20))
    points = np.concatenate([X, X + gaps])
    expected = np.linalg.norm(points[20:] - points[:20], axis=1)
    np.testing.assert_allclose(nearest_distances(points), np.tile(expected, 2), rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(data=data())
def test_bracket_contains_every_stationary_point(data):
    """Outside the bracket the likelihood increases towards it: on a dense scan, thirty times wider."""
    points, weights = data
    lower, upper = stationary_bracket(points, weights)
    assert 0 < lower <= upper
    # Away from the ends, where a difference is rounding and not a slope.
    below = scan(points, weights, np.geomspace(lower / 30, lower * (1 - 1e-9), 15))
    above = scan(points, weights, np.geomspace(upper * (1 + 1e-9), upper * 30, 15))
    assert np.all(np.diff(below) > 0)
    assert np.all(np.diff(above) < 0)


def test_bracket_by_hand():
    """Points 0, 1 and 3: nearest at 1, 1 and 2, the others at mean squares 5, 5/2 and 13/2."""
    points, weights = np.array([[0.0], [1.0], [3.0]]), np.full(3, 1 / 3)
    expected = math.sqrt((1 + 1 + 4) / 3), math.sqrt((5 + 2.5 + 6.5) / 3)
    assert stationary_bracket(points, weights) == pytest.approx(expected)
    # In the plane the same distances are shared by two dimensions.
    flat = np.column_stack([points, np.zeros(3)])
    in_plane = tuple(h / math.sqrt(2) for h in expected)
    assert stationary_bracket(flat, weights) == pytest.approx(in_plane)
    # Weights 1/2, 1/4, 1/4: the others of each point share what it leaves.
    weights = np.array([0.5, 0.25, 0.25])
    expected = (
        math.sqrt(0.5 * 1 + 0.25 * 1 + 0.25 * 4),
        math.sqrt(0.5 * (1 + 9) / 2 + 0.25 * (2 * 1 + 4) / 3 + 0.25 * (2 * 9 + 4) / 3),
    )
    assert stationary_bracket(points, weights) == pytest.approx(expected)


@pytest.mark.parametrize("periods", [None, np.array([3.0, 0.0])])
def test_bracket_of_queries_at_the_points(periods):
    rng = np.random.RandomState(0)
    points, weights = rng.normal(size=(7, 2)), rng.dirichlet(np.ones(7))
    queries = Queries.at_points(points, weights)
    found = stationary_bracket(points, weights, queries, periods)
    assert found == pytest.approx(stationary_bracket(points, weights, periods=periods))


def test_one_point_with_queries_is_not_enough():
    """A fold of a binary column may hold one value; the message was that of the optimizer."""
    queries = Queries(np.array([[0.2], [-0.2]]), np.zeros(2, dtype=int), np.full(2, 0.5))
    for periods in (None, np.array([3.0])):
        with pytest.raises(ValueError, match="needs at least two distinct rows"):
            stationary_bracket(np.zeros((1, 1)), np.ones(1), queries, periods)


def test_bracket_of_periods_by_hand():
    """With periods only, up to the longest; else a quarter of each squared period is allowed for."""
    points, weights = np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 1.0]]), np.full(3, 1 / 3)
    assert stationary_bracket(points, weights, periods=np.array([2.5, 40.0]))[1] == 40.0
    # The others are at mean squares 5, 13/2 and 5/2 along the second column.
    expected = math.sqrt((5 + 6.5 + 2.5) / 3 + 2.5**2 / 4)
    found = stationary_bracket(points, weights, periods=np.array([2.5, 0.0]))[1]
    assert found == pytest.approx(expected)
    queries = Queries.at_points(points, weights)
    found = stationary_bracket(points, weights, queries, np.array([2.5, 0.0]))[1]
    assert found == pytest.approx(expected)


def test_bracket_of_periods_beside_a_row_of_overwhelming_weight():
    """Its weight is 1 to rounding; the upper bound was a division by zero."""
    points = np.column_stack([np.linspace(0, 1, 5), np.linspace(0, 1, 5) ** 2])
    weights = np.array([1.0, 1e-100, 1e-100, 1e-200, 1e-200])
    periods = np.array([3.0, 0.0])
    lower, upper = stationary_bracket(points, weights, periods=periods)
    assert 0 < lower < upper < np.inf
    for k in range(5):
        queries = Queries(points[[k]], np.array([k]), np.ones(1))
        assert stationary_bracket(points, weights, queries, periods)[1] < np.inf


def test_one_point_is_not_enough():
    for function in (nearest_distances, lambda X: stationary_bracket(X, np.ones(1))):
        with pytest.raises(ValueError, match="at least two distinct rows"):
            function(np.zeros((1, 2)))


# ------------------------------------------------------------------------------- the maximiser


def flatness(dimension):
    """How much lower the likelihood is at 0.1 % from its top, in nats: it falls by d log(h)^2 a row,
    and by three times that where the points compete.
    """
    return 3e-6 * dimension + 1e-9


@settings(deadline=None, max_examples=30)
@given(data=data())
def test_leave_one_out_is_the_maximum_of_a_scan(data):
    points, weights = data
    lower, upper = stationary_bracket(points, weights)
    h = loo_bandwidth(points, weights)
    assert lower * (1 - 1e-9) <= h <= upper * (1 + 1e-9)
    top = scan(points, weights, np.geomspace(lower / 2, upper * 2, 60)).max()
    assert oracles.leave_one_out(points, weights, h) >= top - flatness(points.shape[1])


@settings(deadline=None, max_examples=15)
@given(data=data(), codimension=st.integers(1, 20))
def test_further_dimensions(data, codimension):
    """The same as adding columns of zeros, to the likelihood and to the data."""
    points, weights = data
    d = points.shape[1] + codimension
    h = loo_bandwidth(points, weights, codimension)
    padded = np.column_stack([points, np.zeros((len(points), codimension))])
    lower, upper = stationary_bracket(padded, weights)
    assert lower * (1 - 1e-9) <= h <= upper * (1 + 1e-9)
    top = scan(points, weights, np.geomspace(lower / 2, upper * 2, 40), codimension).max()
    assert oracles.leave_one_out(points, weights, h, codimension) >= top - flatness(d)
    # A bandwidth is found to 0.1 %, either way.
    assert loo_bandwidth(padded, weights) == pytest.approx(h, rel=3e-3)


def test_leave_one_out_of_many_points():
    """N = 60, where the twelve bandwidths of the first search are far apart in likelihood."""
    rng = np.random.RandomState(0)
    angle = rng.uniform(0, 2 * np.pi, 60)
    points = np.column_stack([np.cos(angle), np.sin(angle)])
    points = np.concatenate([points[:30], 0.05 * points[30:] + 3])
    weights = np.full(60, 1 / 60)
    h = loo_bandwidth(points, weights)
    lower, upper = stationary_bracket(points, weights)
    top = scan(points, weights, np.geomspace(lower, upper, 40)).max()
    assert oracles.leave_one_out(points, weights, h) >= top - flatness(2)


@pytest.mark.parametrize("n_points", [2, 3, 4])
def test_equidistant_points(n_points):
    """A simplex: every distance is the same, the bracket is a point, and h^2 d = distance^2."""
    rng = np.random.RandomState(0)
    for size in rng.uniform(0.1, 10, 20):
        if n_points == 2:
            points = size * rng.standard_normal((2, 3))
        else:
            points = size * np.eye(n_points)[:, : n_points + 1]
        distance = math.dist(points[0], points[1])
        h = loo_bandwidth(points, np.full(n_points, 1 / n_points))
        assert h == pytest.approx(distance / math.sqrt(points.shape[1]), rel=1e-3)


@pytest.mark.parametrize("share", [1e-3, 1e-12, 1e-20, 1e-200])
def test_one_point_outweighs_all_others(share):
    """The weight of the others is a sum of small weights, not one minus a rounded one.

    The likelihood is then that of the heavy point alone, from two others at distances 1 and 2.
    """
    points = np.array([[0.0], [1.0], [-2.0]])
    weights = np.array([1.0, share / 2, share / 2]) / (1 + share)
    h = loo_bandwidth(points, weights)
    lower, upper = 1.0, 2.0
    top = scan(points, weights, np.geomspace(lower / 2, upper * 2, 60)).max()
    assert oracles.leave_one_out(points, weights, h) >= top - flatness(1)


@settings(deadline=None, max_examples=15)
@given(data=data(), log_scale=st.integers(-6, 6))
def test_bandwidth_is_in_units_of_the_data(data, log_scale):
    points, weights = data
    scaled = loo_bandwidth(10.0**log_scale * points, weights)
    assert scaled == pytest.approx(10.0**log_scale * loo_bandwidth(points, weights), rel=3e-3)


def test_single_precision():
    """Likelihoods are good to 1e-3 nats and flat: h to 5 %, and no worse by more than 1e-3."""
    rng = np.random.RandomState(1)
    points, weights = rng.standard_normal((30, 2)), np.full(30, 1 / 30)
    single = loo_bandwidth(points, weights, backend=Backend.from_params("cpu", "float32"))
    double = loo_bandwidth(points, weights)
    assert single == pytest.approx(double, rel=0.05)
    loss = np.ptp(scan(points, weights, [single, double]))
    assert loss < 1e-3


# ---------------------------------------------------------------------------------- duplicates


def test_equal_rows_are_excluded_together():
    """If one of two equal rows is excluded, the likelihood grows without bound as h decreases.

    If all equal rows are, it is the likelihood of a value, and has a maximum.
    """
    X = (
        np.random.RandomState(0)
        .standard_normal((10, 1))
        .repeat([2, 3, 4, 2, 2, 2, 3, 5, 2, 5], axis=0)
    )
    points, weights = merge_duplicates(X, np.ones(30))
    assert len(points) == 10
    h = loo_bandwidth(points, weights)

    def of_values(h):
        total = 0.0
        for x in X:
            others = X[X[:, 0] != x[0]]
            equal = np.full(len(others), -math.log(len(others)))
            total += oracles.posterior(others, equal, x, h * h).log_density / len(X)
        return total

    def of_rows(h):
        return oracles.leave_one_out(X, np.full(30, 1 / 30), h)

    top = max(of_values(other) for other in np.geomspace(0.01, 2, 60))
    assert of_values(h) >= top - flatness(1)
    assert of_rows(1e-6) < of_rows(1e-9) > of_rows(h)


def test_repeating_every_row_changes_nothing():
    X = np.random.RandomState(0).standard_normal((20, 2))
    once = merge_duplicates(X, np.ones(20))
    twice = merge_duplicates(np.concatenate([X, X]), np.ones(40))
    assert loo_bandwidth(*once) == loo_bandwidth(*twice)


# ------------------------------------------------------------------ the search, on any function


def test_search_finds_the_higher_of_two_maxima():
    """Maxima in log h at 0.1 and 10, wider than the spacing of the grid; the left one is higher."""

    def two_maxima(h):
        x = math.log10(h)
        return math.exp(-8 * (x + 1) ** 2) + 0.9 * math.exp(-8 * (x - 1) ** 2)

    assert maximize_leave_one_out(two_maxima, 1e-2, 1e2) == pytest.approx(0.1, rel=2e-3)


@pytest.mark.parametrize("top", [0.01, 0.0137, 1.0, 80.0, 100.0])
def test_search_reaches_the_ends(top):
    found = maximize_leave_one_out(lambda h: -(math.log(h / top) ** 2), 0.01, 100.0)
    assert found == pytest.approx(top, rel=2e-3)


def test_search_on_a_likelihood_with_an_edge():
    """Zero likelihood below 1, as compact kernels have it, and falling above: the top is the edge.

    No better is known than the grid of twelve; the search must not do worse, or stop at -inf.
    """

    def edge(h):
        return -math.log(h) if h >= 1 else -math.inf

    found = maximize_leave_one_out(edge, 0.1, 10.0)
    grid = np.geomspace(0.1, 10.0, 12)
    assert 1 <= found <= grid[grid >= 1].min()


def test_search_returns_the_best_bandwidth_it_evaluated():
    """A peak one part in 10^6 wide on a point of the grid, which no refinement can climb again."""
    peak = np.geomspace(0.1, 10.0, 12)[4]

    def jump(h):
        return 10.0 if abs(h / peak - 1) < 1e-6 else -math.log(h)

    assert maximize_leave_one_out(jump, 0.1, 10.0) == pytest.approx(peak, rel=1e-6)


def test_search_in_an_empty_interval():
    """Lower and upper equal, or crossed by rounding."""
    for upper in (2.0, 2.0 * (1 - 1e-15)):
        assert maximize_leave_one_out(lambda h: -h, 2.0, upper) == pytest.approx(2.0)


def test_many_rows_are_scored_by_held_out_rows(monkeypatch):
    """The likelihood is flat to 1e-3 nats over a tenth of the bandwidth, which held-out rows find."""
    rng = np.random.RandomState(0)
    points = np.concatenate(
        [rng.standard_normal((900, 2)), 4 + 0.3 * rng.standard_normal((600, 2))]
    )
    points -= points.mean(axis=0)
    weights = np.full(1500, 1 / 1500)
    one_by_one = gaussian_leave_one_out(points, weights, 0, DOUBLE, 64.0)
    monkeypatch.setattr(bandwidth, "_LARGEST_EXACT", 1000)
    monkeypatch.setattr(bandwidth, "_HELD_OUT", 400)
    held_out = gaussian_leave_one_out(points, weights, 0, DOUBLE, 64.0)
    assert held_out != one_by_one
    assert abs(math.log(held_out / one_by_one)) < 0.15


def test_few_rows_lead_to_the_bandwidth_of_all():
    """Beyond 256 rows the search begins with these; it ends where a search over all rows does."""
    rng = np.random.RandomState(3)
    points = np.concatenate([rng.standard_t(3, (250, 3)), 6 + 0.2 * rng.standard_normal((150, 3))])
    points -= points.mean(axis=0)
    weights = np.full(400, 1 / 400)
    queries = Queries.at_points(points, weights)
    of_all = bandwidth._leave_one_out_log_likelihood(points, weights, DOUBLE, 64.0)(queries)
    expected = maximize_leave_one_out(of_all, *stationary_bracket(points, weights))
    found = loo_bandwidth(points, weights)
    # Parabolas through bandwidths at 5 % and Brent's method are good to some thousandths.
    assert found == pytest.approx(expected, rel=4e-3)
    assert of_all(found) >= of_all(expected) - flatness(3)
    few = gaussian_leave_one_out(points, weights, 0, DOUBLE, 64.0, is_screening=True)
    assert few != found
    assert few == pytest.approx(found, rel=0.1)
    # Where distances do not fit into the memory limit, the same is computed in tiles.
    in_tiles = gaussian_leave_one_out(points, weights, 0, DOUBLE, 1.0, is_screening=True)
    assert in_tiles == pytest.approx(few, rel=1e-9)


def test_a_unit_that_is_far_below_the_bandwidth_changes_nothing():
    """Where it is found, left-out rows have several queries each; of few rows all are scored."""
    rows = np.round(np.random.RandomState(0).uniform(size=(36, 4)) * 2**17) / 2**17
    noise = 1e-3 * 2**-17 * np.random.RandomState(1).normal(size=rows.shape)
    rounded, continuous = KDESampler().fit(rows), KDESampler().fit(rows + noise)
    assert rounded.rounding_.all()
    assert not continuous.rounding_.any()
    assert rounded.bandwidth_ == pytest.approx(continuous.bandwidth_, rel=1e-5)


# --------------------------------------------------------------------------------- near-copies

NORMAL = np.random.RandomState(0).normal(size=(150, 3))
CIRCLE = np.column_stack(
    [f(np.linspace(0, 2 * np.pi, 12, endpoint=False)) for f in (np.cos, np.sin)]
)
SHORT = {"n_nodes": 4, "n_levels": 2, "n_steps": 2}
PLAIN = {"metric": "euclidean", "background": 0.0, **SHORT}


def copies_of_a_fit(model, X, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, **options)
    return sum("near-copies" in str(each.message) for each in caught)


@pytest.mark.parametrize(
    "model",
    [
        KDESampler(0.02),
        KDESampler([0.02, 0.03, 0.01]),
        KDESampler(0.02, "exponential"),
        KDESampler(0.02, periods={0: 9.0}),
        KDESampler(0.02, metric="whitened"),
        SmoothedScoreDiffusion(0.02, 0.0, **PLAIN),
        SmoothedScoreDiffusion(0.02, 0.03, **PLAIN),
        SmoothedScoreDiffusion("0.05h", lambda scale: 0.1 * scale, **PLAIN),
        LocalScoreDiffusion(0.02, 0.01, size=3, width=0.0, **SHORT),
        CoarseScoreDiffusion(0.02, 0),
        CoarseScoreDiffusion(0.02, n_components=3, bandwidth=0.01),
    ],
)
def test_scales_that_copy_rows_warn_once(model):
    assert copies_of_a_fit(model, NORMAL) == 1
    repeated = np.repeat(np.arange(len(NORMAL)), 1 + np.arange(len(NORMAL)) % 4)
    assert copies_of_a_fit(model, NORMAL[repeated]) == 0


@pytest.mark.parametrize("unit", [2.0**-900, 2.0**900])
def test_copies_in_any_unit(unit):
    assert copies_of_a_fit(KDESampler(0.02 * unit), unit * NORMAL) == 1
    assert copies_of_a_fit(SmoothedScoreDiffusion(0.02 * unit, 0.0, **PLAIN), unit * NORMAL) == 1
    assert copies_of_a_fit(KDESampler(0.4 * unit), unit * NORMAL) == 0


@pytest.mark.parametrize(
    ("model", "X"),
    [
        (KDESampler("loo"), NORMAL),
        (KDESampler("scott"), NORMAL),
        (KDESampler(0.3), NORMAL),
        (SmoothedScoreDiffusion(0.02, 0.3, **PLAIN), NORMAL),
        (SmoothedScoreDiffusion(0.01, 0.3, **PLAIN), CIRCLE),
        (SmoothedScoreDiffusion("auto", 0.0, **PLAIN), NORMAL),
        (SmoothedScoreDiffusion("loo", 0.0, **PLAIN), CIRCLE),
        (LocalScoreDiffusion(0.02, size=1, width=0.0, **SHORT), NORMAL),
        (LocalScoreDiffusion(0.02, size=3, width=0.1, **SHORT), NORMAL),
        (LocalScoreDiffusion(0.02, 0.3, size=3, width=0.0, **SHORT), NORMAL),
        (CoarseScoreDiffusion(0.3, 0), NORMAL),
        (CoarseScoreDiffusion(0.02, 1, n_components=1), NORMAL),  # rows are far from the curve
        (KDESampler(0.01), NORMAL[:1]),
        (KDESampler(0.01), NORMAL[:9]),
    ],
)
def test_scales_of_the_spacing_of_the_rows_do_not(model, X):
    assert copies_of_a_fit(model, X) == 0


@pytest.mark.parametrize("start", [0.02, 0.5, 0.97, 1.0, 1.04, 2.0, 60.0])
def test_search_near_a_bandwidth_finds_the_maximum_wherever_it_starts(start):
    def log_likelihood(h):
        return -(math.log(h) ** 2) + 0.2 * math.log(h) ** 3 / (1 + math.log(h) ** 2)

    assert maximize_near(log_likelihood, start, 0.01, 100.0) == pytest.approx(1.0, rel=2e-3)


def test_search_near_a_bandwidth_takes_few_steps():
    """Parabolas in log h lead from 1.3 to the maximum at 1 in three steps of three values each."""
    asked = []

    def log_likelihood(h):
        asked.append(h)
        return -math.cosh(math.log(h))

    assert maximize_near(log_likelihood, 1.3, 0.01, 100.0) == pytest.approx(1.0, rel=2e-3)
    assert len(asked) <= 9


def test_rows_that_are_taken_evenly_do_not_favour_the_ends():
    assert evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(10, 5).tolist() == [1, 3, 5, 7, 9]
    assert np.mean(evenly(1001, 10)) == pytest.approx(500, abs=1)


# ------------------------------------------------------------------------------ parts, against loops


@pytest.mark.parametrize("share", [0.1, 0.999999999999, 1.0])
def test_the_weight_of_the_others_is_exact(share):
    small = np.array([1e-30, 3e-30, 5e-31])
    weights = np.r_[small[:2], share, (1 - share) + small[2]]
    found = bandwidth.weight_of_others(weights)
    expected = [math.fsum(np.delete(weights, i)) for i in range(4)]
    heaviest = int(np.argmax(weights))
    assert found[heaviest] == pytest.approx(expected[heaviest], rel=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("periods", [None, [0.0, 2.0], [3.0, 2.0]])
def test_distances_of_queries_from_other_points_against_loops(periods):
    rng = np.random.default_rng(0)
    points, x = rng.uniform(0, 2, (6, 2)), rng.uniform(0, 2, (4, 2))
    x[0], exclude = points[2], np.array([2, 0, 0, 5])
    x[3] = points[5] + 1e-3
    squares = np.zeros((4, 6))
    for i, j, k in np.ndindex(4, 6, 2):
        difference = abs(x[i, k] - points[j, k])
        period = 0 if periods is None else periods[k]
        squares[i, j] += min(difference, abs(period - difference) if period else np.inf) ** 2
    of_periods = None if periods is None else np.array(periods)
    found = bandwidth._squared_distances(x, points, of_periods)
    np.testing.assert_allclose(found, squares, atol=1e-15)
    squares[np.arange(4), exclude] = np.inf
    queries = Queries(x, exclude, np.full(4, 0.25))
    expected = np.sqrt(squares.min(axis=1))
    np.testing.assert_allclose(queries.nearest_distances(points, of_periods), expected, atol=1e-12)


def test_queries_that_are_taken_evenly():
    x, weights = (
        np.array([[3.0], [-1.0], [0.0], [2.0], [-4.0]]),
        np.array([0.1, 0.2, 0.3, 0.1, 0.3]),
    )
    queries = Queries(x, np.array([9, 8, 7, 6, 5]), weights)
    assert queries.evenly(5) is queries
    taken = queries.evenly(2)
    # In the order of distance 0, 1, 2, 3, 4 the second and the fourth, in the order of the queries.
    np.testing.assert_array_equal(taken.x, [[3.0], [-1.0]])
    np.testing.assert_array_equal(taken.exclude, [9, 8])
    np.testing.assert_allclose(taken.weights, [1 / 3, 2 / 3])


def log_likelihood_by_loops(points, weights, queries, periods, h):
    total = 0.0
    for x, exclude, weight in zip(*queries, strict=True):
        kernels = []
        for j in range(len(points)):
            if j == exclude:
                continue
            kernel = 1.0
            for k in range(points.shape[1]):
                images = x[k] - points[j, k] + periods[k] * np.arange(-40, 41)
                images = images if periods[k] else images[:1]
                kernel *= np.sum(np.exp(-(images**2) / (2 * h**2))) / (h * math.sqrt(2 * math.pi))
            kernels.append(weights[j] * kernel)
        total += weight * math.log(sum(kernels) / math.fsum(np.delete(weights, exclude)))
    return total


@pytest.mark.parametrize("periods", [[0.0, 0.0], [0.0, 2.0], [3.0, 2.0]])
@pytest.mark.parametrize("at_points", [True, False])
def test_likelihoods_of_left_out_queries_against_loops(periods, at_points):
    rng = np.random.default_rng(0)
    points, weights = rng.uniform(0, 2, (6, 2)), np.array([0.1, 0.2, 0.3, 0.1, 0.1, 0.2])
    queries = Queries.at_points(points, weights)
    if not at_points:
        queries = Queries(points[[0, 0, 3]] + 0.1, np.array([0, 0, 3]), np.array([0.2, 0.3, 0.5]))
    of_periods = np.array(periods) if any(periods) else None
    by_distances = bandwidth._log_likelihood_by_distances(points, weights, queries, of_periods)
    by_engine = bandwidth._leave_one_out_log_likelihood(points, weights, DOUBLE, 1.0, of_periods)
    for h in 0.2, 0.7, 1.9, 5.0:
        expected = log_likelihood_by_loops(points, weights, queries, periods, h)
        assert by_distances(h) == pytest.approx(expected, abs=1e-7)
        assert by_engine(queries)(h) == pytest.approx(expected, abs=1e-7)


def test_likelihoods_of_narrow_kernels_do_not_underflow():
    points, weights = np.array([[0.0], [1.0], [3.0]]), np.full(3, 1 / 3)
    likelihood = bandwidth._log_likelihood_by_distances(
        points, weights, Queries.at_points(points, weights), None
    )
    h = 1e-3
    expected = -(1 + 1 + 4) / (6 * h**2) - math.log(2 * h * math.sqrt(2 * math.pi))
    assert likelihood(h) == pytest.approx(expected, rel=1e-12)


def test_held_out_points_are_no_centers(monkeypatch):
    monkeypatch.setattr(bandwidth, "_HELD_OUT", 4)
    rng = np.random.default_rng(0)
    points, weights = np.sort(rng.normal(size=(12, 1)), axis=0), rng.dirichlet(np.ones(12))
    held = bandwidth._held_out(12)
    np.testing.assert_array_equal(held, [0, 3, 7, 11])
    likelihood = bandwidth._held_out_log_likelihood(points, weights, 1e-3, DOUBLE, 1.0, None)
    queries = Queries(points[held], held, np.array([0.1, 0.2, 0.3, 0.4]))
    others = np.delete(np.arange(12), held)
    for h in 0.1, 1.0:
        kernels = stats.norm.pdf(points[held], points[others, 0], h)
        expected = queries.weights @ np.log(kernels @ (weights[others] / weights[others].sum()))
        # Close points are merged, with an error of some hundredths of a nat.
        assert likelihood(queries)(h) == pytest.approx(expected, abs=0.05)


def counted_parabola(top, log):
    def likelihood(h):
        log.append(h)
        return -((math.log(h) - math.log(top)) ** 2)

    return likelihood


@pytest.mark.parametrize("factor", [1.0, 1.04, 1 / 1.04])
def test_a_parabola_takes_three_likelihoods(factor):
    log = []
    found = maximize_near(counted_parabola(2.0, log), 2.0 * factor, 0.1, 10.0)
    assert found == pytest.approx(2.0, rel=1e-6)
    np.testing.assert_allclose(log, 2.0 * factor * np.exp([-0.05, 0.0, 0.05]))


def test_steps_are_at_most_four_distances_long():
    log = []
    found = maximize_near(counted_parabola(2.0, log), 2.0 * math.exp(-0.05 * 10), 0.1, 10.0)
    assert found == pytest.approx(2.0, rel=1e-6)
    np.testing.assert_allclose(np.log(log[1::3]) - math.log(2), [-0.5, -0.3, -0.1, 0], atol=1e-9)


@pytest.mark.parametrize(("lower", "upper", "expected"), [(2.01, 10.0, 2.01), (0.1, 1.99, 1.99)])
def test_the_top_of_a_parabola_is_kept_within_the_bounds(lower, upper, expected):
    assert maximize_near(counted_parabola(2.0, []), 2.0, lower, upper) == expected


def test_grids_have_twelve_bandwidths_with_both_ends():
    log = []
    maximize_leave_one_out(counted_parabola(2.0, log), 0.5, 8.0)
    np.testing.assert_allclose(log[:12], np.geomspace(0.5, 8.0, 12))
    assert maximize_leave_one_out(counted_parabola(2.0, []), 1.0, 1.0009) == 1.0
    log.clear()
    maximize_leave_one_out(counted_parabola(2.0, log), 1.0, 1.002)
    assert len(log) > 12


@pytest.mark.parametrize(
    ("n_points", "distance", "warns"),
    [(9, 0.1, False), (10, 0.33, True), (10, 0.34, False), (70, 0.33, True), (70, 0.34, False)],
)
def test_draws_within_a_third_of_the_spacing_warn(n_points, distance, warns):
    points, weights = np.arange(float(n_points))[:, None], np.full(n_points, 1 / n_points)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        bandwidth.warn_of_copies("bandwidth=0.1", distance, points, weights)
    assert len(found) == warns
    if warns:
        assert f"median of {min(n_points, 64)} rows" in str(found[0].message)
        assert "at about 0.3 of the distance" in str(found[0].message)
        assert "multiply them by 3 or more" in str(found[0].message)


@pytest.mark.parametrize(("ratio", "warns"), [(1.49, True), (1.51, False)])
def test_rows_that_stand_for_several_do_not_warn(ratio, warns):
    points = np.arange(11.0)[:, None]
    weights = np.where(np.arange(11) == 0, 1.0, ratio)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        bandwidth.warn_of_copies("bandwidth=0.1", 0.1, points, weights / weights.sum())
    assert len(found) == warns


def test_copies_are_sought_among_all_parts_of_the_rows(monkeypatch):
    """Every second row has a near one, which only the second part of the rows contains."""
    monkeypatch.setattr(bandwidth, "_ROWS_AT_ONCE", 10)
    points = np.repeat(np.arange(0.0, 10), 2)[:, None] + np.tile([0.0, 0.2], 10)[:, None]
    weights = np.full(20, 0.05)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for distance in 0.06, 0.07, 0.3:
            bandwidth.warn_of_copies("bandwidth", distance, points, weights)
    assert len(found) == 1


@pytest.mark.parametrize("n_points", [256, 257])
@pytest.mark.parametrize("is_screening", [True, False])
def test_all_rows_are_scored_after_256_of_them(n_points, is_screening, monkeypatch):
    scored = []
    original = bandwidth._log_likelihood_by_distances

    def by_distances(points, weights, queries, periods):
        scored.append(len(queries.x))
        return original(points, weights, queries, periods)

    def of_all(points, weights, backend, memory_limit, periods=None):
        return lambda queries: lambda h: scored.append(0) or -abs(math.log(h))

    monkeypatch.setattr(bandwidth, "_log_likelihood_by_distances", by_distances)
    monkeypatch.setattr(bandwidth, "_leave_one_out_log_likelihood", of_all)
    points = np.random.default_rng(0).normal(size=(n_points, 1))
    weights = np.full(n_points, 1 / n_points)
    for memory_limit in (2.0, 16 * 256 * n_points / 2**20):
        scored.clear()
        gaussian_leave_one_out(points, weights, 0, DOUBLE, memory_limit, is_screening=is_screening)
        assert scored[0] == 256
        assert (0 in scored) == (n_points > 256 and not is_screening)
    scored.clear()
    # Distances of 256 rows do not fit.
    gaussian_leave_one_out(
        points, weights, 0, DOUBLE, 16 * 256 * n_points / 2**20 - 1e-6, is_screening=is_screening
    )
    assert scored[0] == 0


@pytest.mark.parametrize("rule", [scott, silverman])
def test_a_rule_of_thumb_refuses_one_nan(rule):
    with pytest.raises(ValueError, match=r"points of shape \(3, 2\) are not a finite array"):
        rule(np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 3.0]]), np.full(3, 1 / 3))


# ------------------------------------------------------------------------------ at thresholds


@pytest.mark.parametrize(
    "weights",
    [[0.5, 0.5], [[0.3, 0.3, 0.4]], [0.5, 0.6, -0.1], [0.5, 0.5, np.nan], [np.inf, 0.5, 0.5]],
)
@pytest.mark.parametrize("rule", [scott, silverman])
def test_a_rule_of_thumb_refuses_weights(rule, weights):
    with pytest.raises(ValueError, match=r"weights of shape .* are not 3 finite numbers >= 0"):
        rule(np.array([[0.0], [1.0], [3.0]]), np.array(weights))


@pytest.mark.parametrize("points", [[1.0, 2.0], [[]], [[np.inf], [1.0]]])
def test_a_rule_of_thumb_refuses_points(points):
    with pytest.raises(ValueError, match=r"points of shape .* are not a finite array"):
        scott(np.array(points), np.full(2, 0.5))


def test_rules_of_thumb_by_their_formulas():
    points, weights = np.array([[0.0, 5.0], [1.0, 4.0], [4.0, 9.0]]), np.array([0.2, 0.3, 0.5])
    mean = weights @ points
    std = np.sqrt(weights @ (points - mean) ** 2 / (1 - np.sum(weights**2)))
    n = 1 / np.sum(weights**2)
    np.testing.assert_allclose(scott(points, weights), std * n ** (-1 / 6), rtol=1e-13)
    np.testing.assert_allclose(silverman(points, weights), std * n ** (-1 / 6), rtol=1e-13)
    one, std = points[:, :1], std[:1]
    np.testing.assert_allclose(scott(one, weights), std * n ** (-1 / 5), rtol=1e-13)
    np.testing.assert_allclose(silverman(one, weights), std * (3 * n / 4) ** (-1 / 5), rtol=1e-13)
    with pytest.raises(ValueError, match="two distinct rows, got n_samples = 1"):
        scott(points[:1], np.ones(1))
    with pytest.raises(ValueError, match=r"is zero in the constant columns \[1\]"):
        scott(np.array([[0.0, 0.3], [1.0, 0.1 + 0.2]]), np.full(2, 0.5))


def test_rows_without_weight_have_no_part_in_a_rule_of_thumb():
    points = np.array([[0.0, 1.0], [1.0, 4.0], [9.0, 9.0]])
    found = scott(points, np.array([0.5, 0.5, 0.0]))
    np.testing.assert_allclose(found, scott(points[:2], np.full(2, 0.5)))
    points[1, 0] = 0.0
    with pytest.raises(ValueError, match=r"zero in the constant columns \[0\]"):
        scott(points, np.array([0.5, 0.5, 0.0]))


def test_queries_are_taken_by_their_distance():
    """The lengths are 0, sqrt 2, 1.3 and 2."""
    x = np.array([[1.0, 1.0], [0.0, 0.0], [1.3, 0.0], [0.0, -2.0]])
    taken = Queries(x, np.arange(4), np.full(4, 0.25)).evenly(2)
    np.testing.assert_array_equal(taken.exclude, [2, 3])


@pytest.mark.parametrize("periods", [None, [0.0, 7.0], [9.0, 7.0]])
@pytest.mark.parametrize("at_points", [True, False])
def test_brackets_against_loops(periods, at_points):
    rng = np.random.default_rng(3)
    points, weights = rng.uniform(0, 7, (6, 2)), rng.dirichlet(np.ones(6))
    queries = None
    if not at_points:
        queries = Queries(points[[0, 0, 4]] + 0.2, np.array([0, 0, 4]), np.array([0.2, 0.3, 0.5]))
    x, exclude, of_queries = Queries.at_points(points, weights) if at_points else queries
    lower = upper = 0.0
    is_linear = [not (periods and periods[k]) for k in range(2)]
    for i in range(len(x)):
        squares = []
        for j in range(6):
            gaps = np.abs(x[i] - points[j])
            turns = [
                gap if is_linear[k] else min(gap, periods[k] - gap) for k, gap in enumerate(gaps)
            ]
            squares.append(np.sum(np.square(turns)) if j != exclude[i] else np.inf)
        lower += of_queries[i] * min(squares) / 2
        others = [j for j in range(6) if periods or j != exclude[i]]
        to_others = sum(weights[j] * np.sum((x[i] - points[j])[is_linear] ** 2) for j in others)
        upper += of_queries[i] * to_others / (1 - weights[exclude[i]])
    if periods:
        upper = (upper + np.sum(np.square(periods)) / 4) / max(sum(is_linear), 1)
    else:
        upper /= 2
    of_columns = None if periods is None else np.array(periods)
    found = bandwidth.stationary_bracket(points, weights, queries, of_columns)
    expected = (math.sqrt(lower), math.sqrt(upper) if any(is_linear) else max(periods))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    distances, index = bandwidth._nearest_two(points, x, of_columns)
    assert distances.shape == index.shape == (len(x), 2)


def test_single_points_have_no_others():
    for call in (
        bandwidth.nearest_distances,
        lambda points: bandwidth.stationary_bracket(points, 1),
    ):
        with pytest.raises(ValueError, match="two distinct rows, got n_samples = 1"):
            call(np.zeros((1, 2)))


def test_draws_at_exactly_a_third_do_not_warn():
    points = 3.0 * np.arange(20)[:, None]
    weights = np.where(np.arange(20) < 9, 2.0**-5, 1.5 * 2.0**-5)  # the median is 1.5 of the least
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        bandwidth.warn_of_copies("bandwidth", 1.0, points, weights)
        assert not found
        bandwidth.warn_of_copies("bandwidth", np.nextafter(1.0, 0), points, weights)
    assert len(found) == 1


@pytest.mark.parametrize(("n_points", "sizes"), [(4096, [4096]), (4097, [2049, 2048])])
def test_copies_are_sought_among_4096_rows_at_once(n_points, sizes, monkeypatch):
    seen = []
    original = bandwidth._squared_distances

    def squared_distances(x, points, periods):
        seen.append((len(x), len(points)))
        return original(x, points, periods)

    monkeypatch.setattr(bandwidth, "_squared_distances", squared_distances)
    points, weights = np.arange(float(n_points))[:, None], np.full(n_points, 1 / n_points)
    with pytest.warns(UserWarning, match="near-copies"):
        bandwidth.warn_of_copies("bandwidth", 0.1, points, weights)
    assert seen == [(64, size) for size in sizes]


def test_brackets_too_narrow_to_search():
    def fail(h):
        raise AssertionError

    assert maximize_leave_one_out(fail, 1.0, 1.001) == 1.0
    assert maximize_leave_one_out(fail, 2.0, 1.0) == 2.0


@pytest.mark.parametrize(("top", "ends"), [(0, (0, 1)), (5, (4, 6)), (11, (10, 11))])
def test_the_search_is_between_the_neighbours_of_the_best_of_the_grid(top, ends, monkeypatch):
    asked = {}
    original = bandwidth.minimize_scalar

    def minimize_scalar(function, **options):
        asked.update(options)
        return original(function, **options)

    monkeypatch.setattr(bandwidth, "minimize_scalar", minimize_scalar)
    grid = np.geomspace(0.5, 8.0, 12)
    for options, precision in (({}, 1e-3), ({"precision": 0.3}, 0.3)):
        maximize_leave_one_out(counted_parabola(grid[top], []), 0.5, 8.0, **options)
        np.testing.assert_allclose(asked["bounds"], np.log(grid[list(ends)]), atol=1e-12)
        assert asked["options"]["xatol"] == precision
        assert asked["method"] == "bounded"


def test_flat_likelihoods_and_jumps():
    """The last bandwidth of the search counts where it is as good as the grid, and not where worse."""
    flat = maximize_leave_one_out(lambda h: 0.0, 0.5, 8.0)
    assert 0.5 < flat < np.geomspace(0.5, 8.0, 12)[1]
    assert maximize_near(lambda h: 0.0, 3.0, 0.5, 8.0) == flat
    top = float(np.geomspace(0.5, 8.0, 12)[4])
    assert maximize_leave_one_out(lambda h: float(abs(h - top) < 1e-12), 0.5, 8.0) == top


def searched(monkeypatch, points, weights, codimension=0, memory_limit=64.0, **options):
    """Return the steps of a search: which function, its likelihood at two bandwidths, its arguments."""
    steps, sizes = [], []

    def search(name):
        def of(log_likelihood, *args):
            steps.append((name, log_likelihood(1.0), log_likelihood(2.0), *args))
            return 0.75

        return of

    class Counted:
        def __init__(self, total, task=""):
            self.total, self.size = total, 1.0

        def __enter__(self):
            sizes.append(self.total)
            return self

        def __exit__(self, *error):
            pass

        def __call__(self):
            sizes.append(self.size)

        def __setattr__(self, name, value):
            self.__dict__[name] = value
            if name == "size" and value != 1.0:
                sizes.append(f"size {value}")

    monkeypatch.setattr(bandwidth, "maximize_leave_one_out", search("all"))
    monkeypatch.setattr(bandwidth, "maximize_near", search("near"))
    monkeypatch.setattr(bandwidth, "counted", Counted)
    found = gaussian_leave_one_out(points, weights, codimension, DOUBLE, memory_limit, **options)
    assert found == 0.75
    return steps, sizes


@pytest.mark.parametrize("codimension", [0, 3])
def test_dimensions_without_distances_lower_bounds_and_likelihoods(codimension, monkeypatch):
    points, weights = np.array([[0.0], [1.0], [3.0]]), np.array([0.2, 0.3, 0.5])
    lower, upper = bandwidth.stationary_bracket(points, weights)
    queries = Queries.at_points(points, weights)
    plain = bandwidth._log_likelihood_by_distances(points, weights, queries, None)
    steps, sizes = searched(monkeypatch, points, weights, codimension)
    ((name, at_one, at_two, *bounds, precision),) = steps
    assert (name, precision) == ("all", 1e-3)
    assert at_one == pytest.approx(plain(1.0))
    assert at_two == pytest.approx(plain(2.0) - codimension * math.log(2))
    np.testing.assert_allclose(bounds, np.array([lower, upper]) / math.sqrt(1 + codimension))
    assert sizes == [3, "size 3", 3]


def test_steps_of_a_search(monkeypatch):
    points = np.random.default_rng(0).normal(size=(300, 1))
    weights = np.full(300, 1 / 300)
    bounds = bandwidth.stationary_bracket(points, weights)
    steps, sizes = searched(monkeypatch, points, weights)
    assert [(step[0], step[3:]) for step in steps] == [
        ("all", (*bounds, 1e-3)),
        ("near", (0.75, *bounds)),
    ]
    assert sizes == [300, "size 256", 256, "size 44"]
    steps, _ = searched(monkeypatch, points, weights, near=0.5)
    assert [step[3:] for step in steps] == [(0.5, *bounds), (0.75, *bounds)]
    steps, _ = searched(monkeypatch, points, weights, is_screening=True)
    assert [step[3:] for step in steps] == [(*bounds, 1e-2)]


@pytest.mark.parametrize(("n_points", "n_steps"), [(256, 1), (257, 2)])
def test_all_queries_of_few_points_are_scored_at_once(n_points, n_steps, monkeypatch):
    points, weights = np.arange(float(n_points))[:, None], np.full(n_points, 1 / n_points)
    which = np.arange(300) % n_points
    queries = Queries(points[which] + 0.1, which, np.full(300, 1 / 300))
    assert len(searched(monkeypatch, points, weights, queries=queries)[0]) == n_steps


@pytest.mark.parametrize("periods", [[0.0, 9.0], [8.0, 9.0]])
def test_distances_on_circles_are_kept_where_they_fit(periods, monkeypatch):
    """Distances, differences on each circle, and five arrays of their size."""
    kept = []
    original = bandwidth._log_likelihood_by_distances
    monkeypatch.setattr(
        bandwidth, "_log_likelihood_by_distances", lambda *args: kept.append(1) or original(*args)
    )
    points = np.random.default_rng(0).uniform(0, 8, size=(40, 2))
    weights, of_columns = np.full(40, 1 / 40), np.array(periods)
    fits = 8 * (5 + np.count_nonzero(of_columns)) * 40 * 40 / 2**20
    for limit, is_kept in ((fits, True), (0.999 * fits, False)):
        kept.clear()
        searched(monkeypatch, points, weights, memory_limit=limit, periods=of_columns)
        assert bool(kept) == is_kept


@pytest.mark.parametrize(("n_points", "is_held_out"), [(20_000, False), (20_001, True)])
def test_many_points_are_held_out(n_points, is_held_out, monkeypatch):
    asked = []

    def held_out(points, weights, finest, *args):
        asked.append(finest)

        def of(queries):
            asked.append(queries)
            return lambda h: 0.0

        return of

    monkeypatch.setattr(bandwidth, "_held_out_log_likelihood", held_out)
    monkeypatch.setattr(
        bandwidth, "_leave_one_out_log_likelihood", lambda *args: lambda queries: lambda h: 0.0
    )
    points = np.sort(np.random.default_rng(0).normal(size=(n_points, 1)), axis=0)
    weights = np.random.default_rng(1).dirichlet(np.ones(n_points))
    steps, _ = searched(monkeypatch, points, weights)
    assert bool(asked) == is_held_out
    if is_held_out:
        finest, few, scored = asked
        assert finest == steps[0][3]
        assert (len(few.x), len(scored.x)) == (256, 4000)
        held = bandwidth._held_out(n_points)
        np.testing.assert_array_equal(scored.exclude, held)
        np.testing.assert_array_equal(scored.x, points[held])
        np.testing.assert_allclose(scored.weights, weights[held] / weights[held].sum())


def test_points_that_are_merged_for_held_out_ones(monkeypatch):
    made = []

    class Hierarchy:
        @staticmethod
        def of(*args):
            made.extend(args)

    monkeypatch.setattr(bandwidth, "PointHierarchy", Hierarchy)
    points, weights = np.arange(5000.0)[:, None], np.full(5000, 1 / 5000)
    bandwidth._held_out_log_likelihood(points, weights, 0.25, DOUBLE, 1.0, None)
    np.testing.assert_array_equal(made[0], np.delete(points, bandwidth._held_out(5000), axis=0))
    np.testing.assert_allclose(made[1], np.full(1000, 1e-3))
    assert made[2:] == [0.05, 0.25]


def test_narrow_kernels_on_circles_do_not_underflow():
    points, weights = np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]]), np.full(3, 1 / 3)
    likelihood = bandwidth._log_likelihood_by_distances(
        points[:, ::-1], weights, Queries.at_points(points[:, ::-1], weights), np.array([0.0, 10.0])
    )
    h = 1e-3
    expected = -(1 + 1 + 4) / (6 * h**2) - math.log(2 * h**2 * 2 * math.pi)
    assert likelihood(h) == pytest.approx(expected, rel=1e-12)
