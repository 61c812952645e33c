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
