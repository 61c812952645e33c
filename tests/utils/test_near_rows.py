"""Copies of rows up to rounding are merged, rows of smooth data are not."""

import warnings

import numpy as np
import pytest

from skdiffsmooth import CoarseScoreDiffusion, KDESampler, SmoothedScoreDiffusion
from skdiffsmooth._utils import near_rows
from skdiffsmooth._utils.near_rows import distinct_rows
from skdiffsmooth._utils.rows import merge_rows
from skdiffsmooth.compose import DensityClassifier, DensityOutlierDetector
from skdiffsmooth.manifolds import LocalPolynomialManifold, intrinsic_dimension
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

MESSAGE = "rows of X equal another row up to rounding"


def table(seed=0, n=60, d=2):
    return np.random.RandomState(seed).normal(size=(n, d))


def merged(X, weights=None, **options):
    return merge_rows(X, np.ones(len(X)) if weights is None else weights, **options)


def jittered(X, size, copies=2, seed=1):
    noise = np.random.RandomState(seed).normal(size=(copies - 1, *X.shape))
    return np.concatenate([X, *(X + size * noise)])


@pytest.mark.parametrize(
    ("X", "n_groups"),
    [
        (np.concatenate([table(), table().astype(np.float32)]), 60),
        # Columns in units that differ by eighteen decades.
        (np.concatenate([Y := table() * [1e9, 1e-9], Y.astype(np.float32)]), 60),
        (np.concatenate([Y := table(n=3000, d=1), Y.astype(np.float32)]), 3000),
        (np.concatenate([table(), table().round(6)]), 60),
        (jittered(table(), 1e-8, copies=10), 60),
        (jittered(table(d=12), 1e-7), 60),
        # A class of 15 rows, oversampled, beside 100 others.
        (np.concatenate([table(1, 100), jittered(3 + table(2, 15), 1e-8, copies=13)]), 115),
        # Rows that differ in a column that is constant up to rounding.
        (np.column_stack([np.tile(np.arange(6.0), 2), np.repeat([0.3, 0.1 + 0.2], 6)]), 6),
    ],
)
def test_copies_up_to_rounding_are_merged(X, n_groups):
    rows = merged(X)
    assert len(rows.points) == n_groups
    assert rows.n_near == len(X) - n_groups
    # The index leads to a row that is equal up to the jitter.
    assert np.abs(rows.points[rows.index] - X).max() < 1e-6 * np.abs(X).max()
    np.testing.assert_allclose(
        rows.weights, np.bincount(rows.index) / len(X), rtol=1e-12
    )  # sums of up to 13 equal numbers


@pytest.mark.parametrize("far", [1e16, 1e100])
def test_a_far_row_makes_no_copies(far):
    """Beside 1e16 thirteen of sixty rows were merged, since a mean was subtracted."""
    assert merged(np.append(table(d=1), far)[:, None]).n_near == 0


@pytest.mark.parametrize(
    "rows",
    [
        table(d=3),
        np.sort(table(d=1), axis=0),
        np.sort(table(), axis=0),
        np.concatenate([table(), table()]),
        table().round(1),
        np.column_stack([np.zeros(60), table().round()]),
        np.empty((4, 0)),
        np.empty((0, 2)),
        table(n=1),
    ],
)
def test_distinct_rows_are_those_of_numpy(rows):
    """The first column alone decides where its values are all different."""
    distinct, index = distinct_rows(rows)
    expected, inverse = np.unique(rows, axis=0, return_inverse=True)
    np.testing.assert_array_equal(distinct, expected)
    np.testing.assert_array_equal(index, inverse.ravel())


@pytest.mark.parametrize("d", [1, 2, 3, 8])
@pytest.mark.parametrize("noise", [None, 1e-9, 1e-6, 1e-4], ids=str)
def test_rows_that_need_no_tree_have_no_copies_in_one(d, noise):
    """Tables of 5 to 5000 rows with tails and few copies; smooth tables mostly need no tree."""
    n_without = 0
    for seed in range(8):
        rng = np.random.RandomState(seed)
        n = [5, 40, 700, 5000][seed % 4]
        z = rng.normal(size=(n, d)) ** (1 + 2 * (seed // 4))
        if noise is not None:
            copied = rng.randint(n, size=1 + n // 10)
            z = np.concatenate([z, z[copied] + noise * rng.normal(size=(len(copied), d))])
        z = distinct_rows(z)[0]
        rows = np.arange(len(z))
        tree = near_rows.cKDTree(z)
        has_copies = near_rows._longest_copy(near_rows._gaps(tree, z)) > 0
        needs_no_tree = near_rows._have_no_copies(z, rows)
        assert not (needs_no_tree and has_copies)
        n_without += needs_no_tree
    assert n_without >= (6 if noise is None else 0)


@pytest.mark.parametrize("jitter", [0, 1e-9], ids=["equal", "jittered"])
def test_columns_of_few_values_are_searched_by_a_tree(jitter):
    """By the first column, a thousand rows are as near to each row as its copy is."""
    z = np.column_stack([np.arange(3000) % 3, table(n=3000, d=1)])
    z = distinct_rows(jittered(z, np.array([jitter, 1e-9])))[0]
    assert not near_rows._have_no_copies(z, np.arange(len(z)))
    assert merged(z).n_near > 2900


def test_smooth_data_are_left_alone():
    """No false alarm in 500 tables: heavy tails, densities with poles, one to three columns."""
    for seed in range(500):
        rng = np.random.RandomState(seed)
        draw = [
            rng.normal,
            rng.standard_cauchy,
            rng.exponential,
            lambda size, rng=rng: rng.normal(size=size) ** 3,
        ][seed % 4]
        X = draw(size=(rng.randint(2, 200), rng.randint(1, 4)))
        rows = merged(X, by_column=bool(seed % 3))
        assert rows.n_near == 0
        np.testing.assert_array_equal(rows.points, np.unique(X, axis=0))
    assert merged(np.random.RandomState(0).uniform(size=(20_000, 1))).n_near == 0


def test_tight_clusters_are_no_copies():
    for distance in (1e3, 1e6, 1e9):
        X = np.concatenate([table(0, 20), table(1, 20) + distance, table(2, 20) - distance])
        assert merged(X).n_near == 0


@pytest.mark.parametrize("seed", range(3))
def test_groups_do_not_depend_on_order_or_units(seed):
    rng = np.random.RandomState(seed)
    X, weights = jittered(table(seed), 1e-8, copies=3), rng.uniform(0.5, 2, size=180)
    rows = merged(X, weights)
    order = rng.permutation(len(X))
    moved = merged(X[order], weights[order])
    np.testing.assert_array_equal(moved.points, rows.points)
    np.testing.assert_array_equal(moved.index, rows.index[order])
    np.testing.assert_allclose(moved.weights, rows.weights, rtol=1e-12)
    factors = 2.0 ** rng.randint(-200, 200, size=2)
    np.testing.assert_array_equal(merged(X * factors, weights).points, rows.points * factors)


@pytest.mark.parametrize("estimator", [KDESampler(), SmoothedScoreDiffusion(n_levels=8, n_steps=8)])
def test_a_table_and_its_float32_copy_are_the_table(estimator):
    X = table()
    alone = estimator.fit(X).score_samples(table(5))
    with pytest.warns(UserWarning, match=f"60 {MESSAGE}.* sum of their weights"):
        both = estimator.fit(np.concatenate([X, X.astype(np.float32)])).score_samples(table(5))
    np.testing.assert_allclose(both, alone, atol=1e-5)  # a rounding of 1e-7 of each row


@pytest.mark.parametrize(
    "fit",
    [
        lambda X: SmoothedScoreDiffusionCV(
            SmoothedScoreDiffusion(n_nodes=4, n_levels=4, n_steps=4), n_refinements=0, cv=3
        ).fit(X),
        lambda X: DensityClassifier(KDESampler()).fit(X, np.arange(len(X)) % 2),
        lambda X: DensityOutlierDetector(KDESampler(), cv=3).fit(X),
        lambda X: CoarseScoreDiffusion(n_components=1).fit(X),
        lambda X: LocalPolynomialManifold(1).fit(X),
        intrinsic_dimension,
    ],
    ids=["search", "classifier", "outliers", "coarse", "manifold", "dimension"],
)
def test_one_warning_for_each_call(fit):
    angle = np.random.RandomState(0).uniform(0, 6, size=60)
    X = jittered(np.column_stack([np.cos(angle), np.sin(angle)]), 1e-9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(X)
    assert [MESSAGE in str(warning.message) for warning in caught].count(True) == 1


def test_dimension_of_copied_and_of_rounded_rows():
    """A square in ten dimensions; the standard error is some 3 %, its border's effect 10 %."""
    plane = np.zeros((400, 10))
    plane[:, :2] = np.random.RandomState(0).uniform(size=(400, 2))
    with pytest.warns(UserWarning, match=MESSAGE):
        copied = float(intrinsic_dimension(jittered(plane, 1e-9)))
    # The jitter adds directions to the hull, whose noise is fitted, too.
    assert copied == pytest.approx(float(intrinsic_dimension(plane)), abs=0.1)
    for parts in (20, 50):
        assert float(intrinsic_dimension(np.round(plane * parts) / parts)) == pytest.approx(
            2, abs=0.4
        )
    with pytest.warns(UserWarning, match=r"column 0: values are multiples of 0\.1"):
        assert float(intrinsic_dimension(np.round(plane * 10) / 10)) == pytest.approx(2, abs=0.4)


@pytest.mark.parametrize("share", [0.3, 1.0], ids=["of some rows", "of all rows"])
@pytest.mark.parametrize("copy", [np.float32, lambda rows: rows + 1e-9], ids=["float32", "moved"])
def test_a_column_of_few_values_keeps_them_in_any_order_of_the_columns(copy, share):
    rng = np.random.RandomState(0)
    # 0.01 is no float32, and is rounded down; 0.1 is rounded up.
    few = 0.01 * rng.binomial(1, 0.3, 60), 0.1 * rng.binomial(1, 0.3, 60), 0.1 * rng.poisson(3, 60)
    X = np.column_stack([*few, rng.normal(size=60)])
    X = np.concatenate([X, copy(X[: int(share * len(X))])])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]):
        rows = merged(X[:, order])
        # Beside one moved copy of each row nothing tells which of the two is right, but all are alike.
        assert len(np.unique(rows.points[:, order.index(0)])) == 2
        assert len(np.unique(rows.points[:, order.index(1)])) == 2
        assert len(np.unique(rows.points[:, order.index(2)])) < 12
        # Each row still belongs to the distinct row that it equals up to rounding.
        assert np.abs(rows.points[rows.index] - X[:, order]).max() < 1e-6
        assert np.array_equal(rows.points, np.unique(rows.points, axis=0))


# ------------------------------------------------------------------------------ parts, at thresholds


def gaps(share, length=None, n_copies=1):
    share = np.asarray(share, dtype=float)
    length = np.arange(1.0, len(share) + 1) if length is None else np.asarray(length)
    n_copies = np.broadcast_to(n_copies, len(share))
    return near_rows._Gaps(share, length, n_copies, np.zeros((len(share), 1), dtype=int))


def chance(share, s, n):
    """The probability that s of n rows have a gap of this share: (e n q / s)^s."""
    return (np.e * n * share / s) ** s


@pytest.mark.parametrize("n", [2, 50])
@pytest.mark.parametrize("n_copies", [1, 3])
@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_gaps_that_chance_makes_once_in_a_million_are_accepted(n, n_copies, factor):
    """Of two rows that are copies of each other each has the gap, so that each counts half."""
    s = 2 / (1 + n_copies)
    share = 1e-6 ** (1 / s) * s / (np.e * n)
    assert chance(share, s, n) == pytest.approx(1e-6)
    shares = np.append(np.full(2, factor * share), np.full(n - 2, 0.5))
    found = near_rows._longest_copy(gaps(shares, n_copies=n_copies))
    assert found == (2.0 if factor < 1 else 0.0)


@pytest.mark.parametrize(("share", "found"), [(0.99e-4, 40.0), (1.01e-4, 0.0)])
def test_gaps_above_a_ten_thousandth_are_none(share, found):
    assert near_rows._longest_copy(gaps(np.full(40, share))) == found


def test_the_longest_copy_is_that_of_all_accepted_gaps():
    shares = np.append(np.full(20, 1e-9), [1e-5, 0.5])
    lengths = np.append(np.arange(20.0), [3.0, 99.0])
    for order in (np.arange(22), np.arange(22)[::-1]):
        assert near_rows._longest_copy(gaps(shares[order], lengths[order])) == 19.0
    lengths[20] = 30.0
    assert near_rows._longest_copy(gaps(shares, lengths)) == 30.0
    assert near_rows._longest_copy(gaps([0.5])) == 0.0


def test_gaps_by_a_loop():
    distances = np.sort(np.random.default_rng(0).uniform(size=(6, 5)) ** 4, axis=1)
    distances[:, 0] = 0
    neighbors = np.arange(30).reshape(6, 5)
    found = near_rows._Gaps.of(distances, neighbors)
    for i, row in enumerate(distances):
        ratios = [row[j] / row[j + 1] for j in range(1, 4)]
        j = int(np.argmin(ratios))
        assert found.share[i] == ratios[j]
        assert (found.length[i], found.n_copies[i]) == (row[j + 1], j + 1)
    np.testing.assert_array_equal(found.neighbors, neighbors[:, 1:])


def test_neighbours_that_are_asked_for():
    z = np.arange(100.0)[:, None] ** 1.01
    for n, k in ((100, 32), (33, 32), (32, 31), (5, 4)):
        found = near_rows._gaps(near_rows.cKDTree(z[:n]), z[:3])
        assert found.neighbors.shape == (3, k)


def test_rows_that_are_float32_numbers():
    single = float(np.float32(0.1))
    points = np.array([[single, 1.0], [0.1, 1.0], [single, 0.1], [-single, 0.0], [1e300, 1.0]])
    np.testing.assert_array_equal(near_rows._is_single(points), [True, False, False, True, False])
    # Exponents beyond those of float32 do not matter.
    np.testing.assert_array_equal(near_rows._is_single(points * 2.0**-500)[:4], [1, 0, 0, 1])
    values = np.random.default_rng(0).normal(size=(50, 2)) * [1, 1e9]
    rounded = near_rows._rounded_to_single(values)
    np.testing.assert_array_equal(rounded, values.astype(np.float32))


def test_pairs_of_rows_and_their_roundings():
    values = np.array([[0.1, -0.3], [0.7, 0.0], [0.2, 5.0], [0.4, 0.4]])
    points = np.concatenate([values, values[[1, 0]].astype(np.float32), [[1.0, 2.0]]])
    pairs = near_rows._float32_pairs(points)
    assert sorted(map(tuple, pairs.tolist())) == [(4, 1), (5, 0)]
    for some in (values[[0, 2]], points[4:]):
        assert near_rows._float32_pairs(some).shape == (0, 2)
    np.testing.assert_array_equal(
        np.sort(near_rows._float32_pairs(2.0**-700 * points), axis=0), np.sort(pairs, axis=0)
    )


@pytest.mark.parametrize("unit", [2.0**-900, 1.0, 2.0**900])
def test_units_of_distances(unit):
    X = np.array([[0.0, 1.0, 7.0], [4.0, 1.0, 9.0], [2.0, 1.0 + 2e-16, 8.0], [-6.0, 1.0, 5.0]])
    by_column = near_rows._scaled(unit * X, by_column=True)
    np.testing.assert_allclose(by_column[:, [0, 2]].std(axis=0), 1)
    np.testing.assert_array_equal(by_column[:, 1], 0)
    for z in (by_column, near_rows._scaled(unit * X, by_column=False)):
        np.testing.assert_array_equal(np.sort(z, axis=0)[2], 0)  # the median, of four the upper one
    in_one = near_rows._scaled(unit * X, by_column=False)
    np.testing.assert_allclose(np.ptp(in_one, axis=0), np.array([10, 0, 4]) / 16, rtol=1e-14)


@pytest.mark.parametrize(
    ("n_rows", "d", "n_searched"),
    [(90, 2, 90), (3000, 1, 2000), (3000, 50, 1333), (3000, 1000, 100)],
)
def test_rows_that_are_searched_first(n_rows, d, n_searched, monkeypatch):
    """At most 2e8 numbers are compared, but of at least a hundred rows and at most two thousand."""
    seen = []
    monkeypatch.setattr(near_rows, "_have_no_copies", lambda z, rows: seen.append(rows) or True)
    z = np.broadcast_to(np.arange(float(n_rows))[:, None], (n_rows, d))
    assert near_rows._near_pairs(z).shape == (0, 2)
    expected = np.linspace(0, n_rows - 1, n_searched).round()
    np.testing.assert_array_equal(seen[0], expected)


@pytest.mark.parametrize(("n", "n_groups"), [(5, 0), (6, 5), (7, 6)])
def test_five_groups_must_remain(n, n_groups):
    """One row is the rounding of another one."""
    values = np.array([0.1, 3.0, 7.0, 20.0, 53.0, 90.0])[: n - 1]
    group, distance = near_rows.near_rows(
        np.append(values, np.float32(0.1))[:, None].astype(float), by_column=True
    )
    assert len(np.unique(group)) == n_groups
    if n_groups:
        np.testing.assert_array_equal(group, [*range(n_groups), 0])
        points = np.sort(values)
        nearest = [np.sort(np.abs(points - x))[1] for x in points]
        assert distance == pytest.approx(
            abs(0.1 - float(np.float32(0.1))) / np.median(nearest), rel=1e-6
        )


@pytest.mark.parametrize(
    ("apart", "share", "is_copy"),
    [(0.9e-5, 0.0099, True), (0.9e-5, 0.0101, False), (1.1e-5, 0.0099, False)],
)
def test_wider_gaps_mark_copies_that_are_as_near_as_others(apart, share, is_copy):
    """Forty rows have copies at 1e-5; one at 50 has another row at `apart`, and three more near it."""
    near = 50 + np.array([apart, apart / share, 0.02, 0.3])
    X = np.concatenate([np.arange(60.0), np.arange(40.0) + 1e-5, near])
    assert merged(X[:, None]).n_near == 40 + is_copy


@pytest.mark.parametrize(
    ("X", "n_rows", "is_certain"),
    [
        # Evenly spaced rows of one column: the window shows all that is near.
        (np.arange(3000.0), 3000, True),
        # Without other columns the next row is at 1, and the rows outside the window at 65.
        (np.repeat(np.arange(40.0), 2) + np.tile([0, 1e-9], 40), 80, False),
        (np.append(np.arange(40.0), 7 + 1e-3), 41, True),
    ],
)
def test_tables_that_certainly_hold_no_copies(X, n_rows, is_certain):
    z = np.sort(X)[:, None]
    assert len(z) == n_rows
    assert near_rows._have_no_copies(z, np.arange(n_rows)) == is_certain


def test_copies_that_are_outside_of_the_window_are_not_excluded():
    """By the first column rows are as near as their copies, which the windows do not hold."""
    first = np.arange(4000) * 1e-12
    second = np.random.RandomState(0).permutation(2000).astype(float)
    z = np.column_stack([first, np.append(second, second + 1e-9)])
    assert not near_rows._have_no_copies(z, np.arange(len(z)))
    # Rows at the ends have no rows outside of their windows on one side.
    line = np.column_stack([np.arange(4000.0), np.append(second, second)])
    for rows in (np.arange(40), np.arange(3960, 4000), np.arange(2000, 2040)):
        assert near_rows._have_no_copies(line, rows)
