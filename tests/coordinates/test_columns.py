"""Tests of tables whose columns depend on one another: constants, copies, totals, and few rows.

Scales and relations are found by column, and the metric is chosen inside the hull of scaled columns: so
units, orders and offsets of columns change nothing, and neither does a column without information.
"""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth._coordinates.columns import ColumnSpace
from skdiffsmooth._utils.rows import WholeTable

SMALL = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}
# Sums over rows are in another order, which the comparison of candidates and the flow magnify.
ROUNDING = 1e-7


def table(seed, n, d, rank):
    """Rows of correlated columns whose hull has at most this rank."""
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, rank))
    extra = np.column_stack([np.full(n, 0.3), -3 * X[:, 0] + 0.1, X @ rng.normal(size=(rank, d))])
    return np.column_stack([X, extra])[:, :d]


def space(X):
    return ColumnSpace.of(X, np.full(len(X), 1 / len(X)))


def log_density_of_the_first(model, X, k):
    """The log-density of all but the last k columns, which the others determine, of rows on the hull."""
    columns = model.coordinates_.columns
    at_zero = columns.relation_log_density(np.zeros((1, X.shape[1])))[0]
    volume = np.linalg.slogdet(columns.axes[:-k])[1] - np.log(columns.scales[-k:]).sum()
    return model.score_samples(X) - at_zero - volume


# (rows, columns, rank of the table): full rank, a constant and copies, relations, and few rows.
SHAPES = [(12, 3, 3), (12, 5, 3), (12, 6, 3), (8, 9, 9), (7, 12, 9)]


@settings(max_examples=2, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from(SHAPES),
    exponents=st.lists(st.integers(-900, 480), min_size=12, max_size=12),
)
@example(seed=0, shape=(12, 6, 3), exponents=[-900, 480] * 6)
@example(seed=1, shape=(8, 9, 9), exponents=[480, -480, 0] * 4)
def test_units_and_order_of_columns_change_nothing(seed, shape, exponents):
    n, d, rank = shape
    X, order = table(seed, n, d, rank), np.random.RandomState(seed).permutation(d)
    exponents = np.array(exponents[:d])
    plain, changed = (
        SmoothedScoreDiffusion(**SMALL).fit(rows) for rows in (X, np.ldexp(X, exponents)[:, order])
    )
    assert plain.metric_ == changed.metric_
    assert plain.hull_.dimension == min(rank, n - 1)
    assert_allclose(changed.bandwidth_, plain.bandwidth_, rtol=ROUNDING)
    Q = table(seed, n, d, rank) if d > rank else table(seed + 1, n, d, rank)
    found = changed.score_samples(np.ldexp(Q, exponents)[:, order])
    expected = plain.score_samples(Q) - exponents.sum() * np.log(2)
    assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("shape", SHAPES)
def test_offsets_change_nothing_that_the_digits_still_hold(shape):
    X = np.round(table(0, *shape) * 2**28) / 2**28
    # Exact sums: 9 * 2^12 and 28 binary places are within 53 digits, and float32 does not hold them.
    offsets = np.ldexp(np.arange(1.0, shape[1] + 1), 12)
    # Widths of relations follow the size of the values, so the hull's coordinates are compared.
    plain, moved = (
        SmoothedScoreDiffusion(0.3, 0.4, metric="scaled", **SMALL).fit(rows)
        for rows in (X, X + offsets)
    )
    assert plain.hull_.dimension == moved.hull_.dimension
    coordinates = (
        model.model_.embedding.split(rows)[0] for model, rows in ((plain, X), (moved, X + offsets))
    )
    assert_allclose(*map(np.abs, coordinates), atol=1e-9)


ADDED = {
    "constant": lambda X: np.full((len(X), 1), 0.1 + 0.2),
    "zeros": lambda X: np.zeros((len(X), 2)),
    "copy": lambda X: -300 * X[:, [0]] + 7,
    "mixed": lambda X: np.column_stack([np.full(len(X), 1e12), X[:, 1] / 3, 1 - X[:, 1]]),
}


@pytest.mark.parametrize(
    ("metric", "n", "name"),
    [
        *(("auto", 24, name) for name in ADDED),
        *(("whitened", 40, name) for name in ("zeros", "mixed")),
        *(("local", 4, name) for name in ("constant", "mixed")),
    ],
)
def test_a_constant_or_a_copy_changes_nothing_else(metric, n, name):
    add, rng = ADDED[name], np.random.RandomState(0)
    X, Q = (rng.normal(size=(m, 3)) @ [[1, 0, 0], [0.9, 0.3, 0], [0, 0, 1e3]] for m in (n, 10))
    plain = SmoothedScoreDiffusion(metric=metric, **SMALL).fit(X)
    added = SmoothedScoreDiffusion(metric=metric, **SMALL).fit(np.hstack([add(X), X]))
    assert added.metric_ == plain.metric_
    assert_allclose(added.bandwidth_, plain.bandwidth_, rtol=1e-9)
    assert_allclose(added.sigma_, plain.sigma_, rtol=1e-9)
    difference = added.score_samples(np.hstack([add(Q), Q])) - plain.score_samples(Q)
    # Held-out rows satisfy the relation to rounding, which costs a millionth of a millionth.
    assert np.ptp(difference) < 1e-6
    # Draws satisfy it too, to rounding.
    drawn = added.sample(50, random_state=0)
    k = drawn.shape[1] - 3
    size = np.abs(add(X)).max(axis=0)
    assert np.all(np.abs(drawn[:, :k] - add(drawn[:, k:])) <= 1e-9 * size + 1e-10)
    assert np.all(drawn[:, k:].std(axis=0) < 2.5 * X.std(axis=0))


def discrete(kind, seed, n):
    """Rows of a normal column and one of counts, labels, or rounded values that depend on it."""
    rng = np.random.RandomState(seed)
    x = rng.normal(size=n)
    columns = {
        "counts": rng.poisson(2, n),
        "dummy": rng.binomial(1, 0.3, n),
        "normal": rng.normal(size=n),
    }
    return np.column_stack([x, columns.get(kind, (x + rng.normal(size=n)).round(1))])


def single(values):
    return values.astype(np.float32).astype(float)


AFFINE = {
    "units": lambda c: [2 * c + 3, 0.1 * c - 7],
    "mirrored": lambda c: [5 - c, -c / 7, np.pi * c + 1e4],
    "integers": lambda c: [np.round(10 * c) * 3 - 5],
    "float32": lambda c: [single(0.1 * c - 7)],
    "float32 and units": lambda c: [2 * c + 3, single(c / 3)],
}


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(60, 120),
    kind=st.sampled_from(["counts", "dummy", "rounded"]),
    name=st.sampled_from([*AFFINE]),
)
@example(seed=0, n=60, kind="dummy", name="units")
@example(seed=1, n=100, kind="rounded", name="mirrored")
@example(seed=0, n=60, kind="counts", name="float32")
def test_affine_copies_of_a_discrete_column_change_nothing_else(seed, n, kind, name):
    X = discrete(kind, seed, n)
    order = np.random.RandomState(seed).permutation(2 + len(AFFINE[name](X[:, 1])))
    wider = np.column_stack([X, *AFFINE[name](X[:, 1])])[:, order]
    # The errors of float32 are 1e-6 of the standard deviations of some of these columns.
    rtol, atol = (1e-5, 1e-3) if "float32" in name else (1e-9, 1e-6)
    for model in (
        KDESampler(metric="scaled"),
        KDESampler(metric="whitened"),
        SmoothedScoreDiffusion(metric="local", **SMALL),
    ):
        plain, widened = clone(model).fit(X), clone(model).fit(wider)
        assert_allclose(widened.bandwidth_, plain.bandwidth_, rtol=rtol)
        # The width of the relations is one constant for all rows.
        assert np.ptp(widened.score_samples(wider) - plain.score_samples(X)) < atol


@pytest.mark.parametrize("name", ["units", "float32"])
@pytest.mark.parametrize("kind", ["dummy", "rounded", "normal"])
@pytest.mark.filterwarnings("ignore")
def test_the_default_chooses_the_same_with_a_copy(kind, name):
    X = discrete(kind, 0, 60)
    plain, widened = (
        SmoothedScoreDiffusion(**SMALL).fit(rows)
        for rows in (X, np.column_stack([X, *AFFINE[name](X[:, 1])]))
    )
    assert widened.metric_ == plain.metric_
    assert_allclose(widened.bandwidth_, plain.bandwidth_, rtol=1e-5)


def test_classes_of_both_formats_have_one_width():
    """A class that holds float32 numbers, in a table that does not, has relations as wide as others."""
    x = np.random.RandomState(0).normal(size=(60, 1))
    x[:30] = single(x[:30])
    X = np.hstack([x, x])
    weights = np.full(60, 1 / 60)
    parts = [
        ColumnSpace.of_part(X[rows], weights[:30] * 2, None, WholeTable(X, weights))
        for rows in (slice(30), slice(30, 60))
    ]
    assert [part.n_relations for part in parts] == [1, 1]
    for part, rows in zip(parts, (X[:30], X[30:]), strict=True):
        width = part.widths * part.scales / np.abs(rows).max(axis=0)
        assert_allclose(width, 2**14 * np.finfo(float).eps)


@pytest.mark.parametrize("load", [load_iris, load_wine])
def test_a_total_or_a_combination_hardly_costs(load):
    rng = np.random.RandomState(0)
    X = np.unique(load().data, axis=0)
    X = X + 0.03 * X.std(axis=0) * rng.normal(size=X.shape)
    order = rng.permutation(len(X))
    X, Q = X[order[:60]], X[order[60:]]
    expected = SmoothedScoreDiffusion(**SMALL).fit(X).score(Q)
    stds = X.std(axis=0)
    weights = rng.normal(size=(X.shape[1], 1))
    for combine in (
        lambda rows: rows[:, :2].sum(axis=1, keepdims=True),
        lambda rows: rows / stds @ weights,
    ):
        model = SmoothedScoreDiffusion(**SMALL).fit(np.hstack([X, combine(X)]))
        found = log_density_of_the_first(model, np.hstack([Q, combine(Q)]), 1).mean()
        # Tenths of a nat would be bandwidths in the units of the widest column.
        assert found > expected - 0.1


@pytest.mark.parametrize("unit", [0.0, 0.5])
def test_draws_and_log_densities_are_one_distribution(unit):
    rng = np.random.RandomState(0)
    a = rng.normal(size=(40, 1))
    X = np.hstack([a, 100 - 2 * a])
    model = SmoothedScoreDiffusion(0.3, 0.5, metric="scaled", **SMALL).fit(X)
    embedding = model.model_.embedding
    units = np.array([unit, 2 * unit])
    columns = ColumnSpace.of(model.points_, model.weights_, units)
    metric = type(embedding.metric)(columns, embedding.metric.basis, embedding.metric.scales)
    embedding = type(embedding)(metric, embedding.hull)
    rows = embedding.rows(np.zeros((4000, 1)), np.ones((4000, 1)), np.random.RandomState(0))
    coordinates, residual = embedding.split(rows)
    scaled = columns.scaled(rows)
    assert_allclose(coordinates, 0, atol=1e-12)
    # The relation's normal n and its width, from the definition: n^T diag(rho^2) n.
    normal = np.array([columns.scales[0] * 2, columns.scales[1]])
    normal /= np.linalg.norm(normal)
    width = np.sqrt(normal**2 @ columns.widths**2)
    along = (scaled - scaled.mean(axis=0)) @ normal
    # Five standard errors of a standard deviation of 4000 draws.
    assert abs(along.std() / width - 1) < 5 / np.sqrt(8000)
    log_density = embedding.log_density_outside_hull(residual, 1.0)
    expected = -0.5 * (residual @ normal / width) ** 2 - np.log(width * np.sqrt(2 * np.pi))
    assert_allclose(log_density, expected - np.log(columns.scales).sum(), rtol=1e-9, atol=1e-6)
    # The gradient is that of this density.
    score = embedding.gradient(np.zeros((4000, 1)), residual, 1.0)
    assert_allclose(
        score, np.outer(-(residual @ normal) / width**2, normal) / columns.scales, rtol=1e-6
    )
    # The independent directions have the same covariance.
    axes = columns.relation_axes()
    assert_allclose(axes.T @ axes, width**2 * np.outer(normal, normal), rtol=1e-9)


def test_rounding_is_judged_by_column():
    rng = np.random.RandomState(0)
    stamps = 1.7e18 + np.round(1e13 * rng.normal(size=50))
    X = np.column_stack([stamps, 1e-3 * rng.normal(size=50), np.full(50, 1e6)])
    columns = space(X)
    assert columns.n_directions == 2
    assert_allclose(columns.scales[:2], X[:, :2].std(axis=0), rtol=1e-6)
    # A constant with noise of its own rounding is a constant; a small column is none.
    X[:, 2] += rng.choice([-1, 0, 1], 50) * np.spacing(1e6)
    assert space(X).n_directions == 2
    assert space(np.column_stack([X[:, 0], 1e-12 * X[:, 1]])).n_directions == 2


def test_few_rows_leave_directions_open_and_many_do_not():
    rng = np.random.RandomState(0)
    few = SmoothedScoreDiffusion(**SMALL).fit(rng.normal(size=(5, 9)))
    assert (few.hull_.dimension, few.hull_.codimension) == (4, 5)
    flat = rng.normal(size=(20, 4)) @ rng.normal(size=(4, 9))
    many = SmoothedScoreDiffusion(**SMALL).fit(flat)
    assert (many.hull_.dimension, many.hull_.codimension) == (4, 0)
    assert many.coordinates_.columns.n_relations == 5
    # With few rows the residual has the bandwidth in scaled columns: the affine theorem.
    embedding = few.model_.embedding
    row = few.points_[:1]
    _, _, right = np.linalg.svd(embedding.hull.basis.T)
    step = right[-1] * few.bandwidth_ * embedding.metric.columns.scales
    fall = few.model_.embedding.log_density_outside_hull
    near, away = (fall(embedding.split(rows)[1], few.bandwidth_)[0] for rows in (row, row + step))
    assert abs(near - away - 0.5) < 1e-9


def test_folds_share_the_relations_of_all_rows():
    rng = np.random.RandomState(0)
    # A dummy that is one in a single row: folds without it would take it for a constant.
    X = np.column_stack([rng.normal(size=(60, 2)) * [1, 1e3], np.r_[1.0, np.zeros(59)]])
    columns = space(X)
    fold = columns.of_rows(X[1:], np.full(59, 1 / 59))
    assert (columns.n_relations, fold.n_relations) == (0, 0)
    assert_allclose(fold.scales[:2], X[1:, :2].std(axis=0))
    assert fold.scales[2] == columns.scales[2]
    assert SmoothedScoreDiffusion(**SMALL).fit(X).metric_ != "euclidean"


@pytest.mark.parametrize("metric", ["scaled", "whitened", "local"])
@pytest.mark.parametrize("kernel", ["gaussian", "tophat"])
def test_the_kde_in_a_metric_keeps_relations_and_units(kernel, metric):
    rng = np.random.RandomState(0)
    X, Q = (rng.normal(size=(n, 2)) @ [[1, 0], [0.9, 400.0]] for n in (60, 200))
    add = lambda rows: np.column_stack([np.full(len(rows), 7.0), rows, 100 - 2 * rows[:, 0]])  # noqa: E731
    plain = KDESampler(kernel=kernel, metric=metric).fit(X)
    added = KDESampler(kernel=kernel, metric=metric).fit(add(X))
    assert_allclose(added.bandwidth_, plain.bandwidth_, rtol=1e-6)
    expected, found = plain.score_samples(Q), added.score_samples(add(Q))
    inside = np.isfinite(expected)
    assert inside.sum() > 50
    difference = found[inside] - expected[inside]
    assert np.ptp(difference[np.isfinite(difference)]) < 1e-4
    drawn = added.sample(100, random_state=0)
    assert_allclose(drawn, add(drawn[:, 1:3]), rtol=1e-9, atol=1e-8)
    gradient = plain.grad_log_density(X[:3])
    step = 1e-5 * X.std(axis=0)
    numeric = [
        (plain.score_samples(X[:3] + row) - plain.score_samples(X[:3] - row)) / (2 * row.max())
        for row in np.diag(step)
    ]
    if kernel == "gaussian":
        assert_allclose(gradient, np.transpose(numeric), rtol=1e-5, atol=1e-8)


def test_a_kde_in_a_metric_is_that_of_transformed_rows():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(60, 2)) * [1.0, 50.0]
    scaled = KDESampler(0.4, metric="scaled").fit(X)
    vector = KDESampler(0.4 * X.std(axis=0)).fit(X)
    assert_allclose(scaled.score_samples(X), vector.score_samples(X), rtol=1e-9)
    assert_allclose(scaled.energy(X, t=0.09), vector.energy(X, t=0.09 * X.var(axis=0)), rtol=1e-9)
    for call in (scaled.laplacian_log_density, lambda X: scaled.score_samples(X, given=[0])):
        with pytest.raises(ValueError, match="needs metric='euclidean'; got metric='scaled'"):
            call(X)
    with pytest.raises(ValueError, match="metric='auto' is a choice of SmoothedScoreDiffusion"):
        KDESampler(metric="auto").fit(X)
