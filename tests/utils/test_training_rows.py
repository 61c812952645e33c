"""Tests of training rows: merging, weights, folds, orders; draws by weights; checks of tables."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.model_selection import KFold

from skdiffsmooth import KDESampler
from skdiffsmooth._utils.draws import (
    CommonRandomState,
    choose_in_rows,
    draw_given,
    draw_points,
    invert_cumulated,
)
from skdiffsmooth._utils.near_rows import representatives
from skdiffsmooth._utils.rows import (
    MergedRows,
    TrainingRows,
    WholeTable,
    _group_labels,
    _row_indices,
    as_given,
    check_sample_weight,
    evenly,
    merge_duplicates,
    merge_rows,
    order_from_center,
    parts_of_table,
    row_order,
    shared_relations,
    split_off_copies,
    sum_of_weights,
    take,
    weighted_rows,
    whole_table,
)
from skdiffsmooth._utils.table import check_table, column_label, column_names, n_dimensions
from skdiffsmooth._utils.validation import (
    check_extent,
    check_ratio,
    check_size,
    fixed_seed,
)
from skdiffsmooth._utils.warnings import part_of_a_fit


def table(n=7, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


# ------------------------------------------------------------------------------ rows and weights


@pytest.mark.parametrize(
    ("n_rows", "most", "expected"),
    [
        (0, 3, []),
        (3, 3, [0, 1, 2]),
        (4, 3, [0, 2, 3]),
        (10, 2, [2, 7]),
        (9, 3, [1, 4, 7]),
        (5, 1, [2]),
    ],
)
def test_evenly_spaced_rows(n_rows, most, expected):
    np.testing.assert_array_equal(evenly(n_rows, most), expected)


def test_rows_of_any_table():
    array = table()
    frame = pd.DataFrame(array, columns=["a", "b"], index=list("gfedcba"))
    mask, index = array[:, 0] > 0, np.array([3, 0])
    for which in (mask, index):
        np.testing.assert_array_equal(take(array, which), array[which])
        np.testing.assert_array_equal(take(frame, which).to_numpy(), array[which])
        np.testing.assert_array_equal(take(pl.DataFrame(array), which).to_numpy(), array[which])
    assert as_given(frame, array) is frame
    assert as_given([[1.0]], array) is array


def test_weights_of_rows():
    np.testing.assert_array_equal(check_sample_weight(None, 3), [1, 1, 1])
    np.testing.assert_array_equal(check_sample_weight([0, 2, True], 3), [0, 2, 1])
    assert sum_of_weights(None, 4) == 4
    assert sum_of_weights([1, 0.5], 2) == 1.5
    assert sum_of_weights([1e308, 1e308], 2) == np.inf
    for wrong, match in (
        ([1, 2], r"shape \(2,\); expected \(3,\)"),
        ([1, np.nan, np.inf], "2 values that are NaN or infinite"),
        ([1, -1e-300, 0], "negative values"),
        ([0, 0, 0], "zero for every row"),
    ):
        with pytest.raises(ValueError, match=match):
            check_sample_weight(wrong, 3)
    X = table(3)
    assert weighted_rows(X, None)[0] is X
    assert weighted_rows(X, None)[1] is None
    rows, weight = weighted_rows(X, [4, 2, 1])
    assert rows is X
    np.testing.assert_array_equal(weight, [1, 0.5, 0.25])
    rows, weight = weighted_rows(X, [0, 2, 1])
    np.testing.assert_array_equal(rows, X[1:])
    np.testing.assert_array_equal(weight, [1, 0.5])
    # Weights 300 decades below the largest are zero.
    np.testing.assert_array_equal(weighted_rows(X, [1e200, 1e-200, 1e200])[0], X[[0, 2]])


def test_merged_rows_against_a_loop():
    X = np.array([[2.0, 1.0], [0.0, 1.0], [2.0, 0.0], [-0.0, 1.0], [2.0, 1.0], [9.0, 9.0]])
    weight = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 0.0])
    sums = {}
    for row, w in zip(X.tolist(), weight, strict=True):
        if w > 0:
            key = tuple(value + 0.0 for value in row)
            sums[key] = sums.get(key, 0) + w
    merged = merge_rows(X, weight)
    np.testing.assert_array_equal(merged.points, sorted(sums))
    np.testing.assert_allclose(merged.weights, np.array([sums[k] for k in sorted(sums)]) / 15)
    np.testing.assert_array_equal(merged.points[merged.index[:5]], X[:5])
    assert merged.index[5] == -1
    assert merged.n_near == 0
    points, weights = merge_duplicates(X, weight)
    np.testing.assert_array_equal(points, merged.points)
    np.testing.assert_array_equal(weights, merged.weights)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_weights_of_any_size_sum_to_one(scale):
    X = table(5)[[0, 1, 1, 2, 2, 2]]
    points, weights = merge_duplicates(X, np.full(6, scale))
    assert len(points) == 3
    np.testing.assert_allclose(np.sort(weights), [1 / 6, 2 / 6, 3 / 6], rtol=1e-15)


def test_negligible_weights_leave_no_row():
    merged = merge_rows(table(3), np.array([1e300, 1e-300, 1e300]))
    assert len(merged.points) == 2
    assert merged.index[1] == -1
    np.testing.assert_array_equal(merged.weights, [0.5, 0.5])


def test_rows_that_remain_of_groups():
    single = float(np.float32(0.1))
    points = np.array([[0.1, 5.0], [single, 5.0], [0.3, 7.0], [0.5, 8.0], [0.5, 5.0]])
    # Of the first two the one that is not rounded remains, though sorted after the other or before it.
    np.testing.assert_array_equal(representatives(points, np.array([0, 0, 1, 2, 3])), [0, 2, 3, 4])
    swapped = points[[1, 0, 2, 3, 4]]
    np.testing.assert_array_equal(representatives(swapped, np.array([0, 0, 1, 2, 3])), [1, 2, 3, 4])
    # The row whose values are most frequent remains of the last three.
    np.testing.assert_array_equal(representatives(points, np.array([0, 1, 2, 2, 2])), [0, 1, 4])


def test_copies_are_split_off():
    points, weights = np.array([[1.0], [2.0], [3.0]]), np.array([0.5, 0.3, 0.2])
    own = np.array([0.25, 0.3, 0.05])
    all_points, all_weights = split_off_copies(points, weights, own)
    np.testing.assert_array_equal(all_points[:, 0], [1, 2, 3, 1, 3])
    np.testing.assert_allclose(all_weights, [0.25, 0.3, 0.05, 0.25, 0.15], rtol=1e-14)


# ------------------------------------------------------------------------------ parts of tables


def test_the_whole_table_is_known_within_a_block_only():
    whole = WholeTable(table(6, 3), np.full(6, 1 / 6), rounding=np.array([0.1, 0.2, 0.3]))
    assert whole_table() is None
    with parts_of_table(whole):
        assert whole_table() is whole
        assert shared_relations(None) is whole
        periods = np.array([0.0, 1.0, 0.0])
        np.testing.assert_array_equal(
            shared_relations(periods).points[:, 1], np.mod(whole.points[:, 1], 1.0)
        )
        with parts_of_table(WholeTable(whole.points, whole.weights, has_classes=True)):
            assert shared_relations(None) is None
        with parts_of_table(None):
            assert whole_table() is None
    assert whole_table() is None
    part = whole.only(np.array([True, False, True]))
    np.testing.assert_array_equal(part.points, whole.points[:, [0, 2]])
    np.testing.assert_array_equal(part.rounding, [0.1, 0.3])
    assert WholeTable(whole.points, whole.weights).only(
        np.array([True, False, True])
    ).rounding.shape == (2,)


def test_columns_that_are_constant_in_a_part_have_the_width_of_the_whole():
    counts = np.repeat(np.arange(10.0), 4)
    X = np.column_stack([counts, np.random.default_rng(0).normal(size=40), counts > 4])
    points, weights = merge_duplicates(X, np.ones(40))
    part = merge_rows(X[X[:, 0] == 3], np.ones(4))
    assert part.precision.unit[0] == 0
    with parts_of_table(WholeTable(points, weights)):
        unit = merge_rows(X[X[:, 0] == 3], np.ones(4)).precision.unit
        np.testing.assert_allclose(unit, [1.0, 0.0, 0.5])
    classes = WholeTable(points, weights, has_classes=True).precision
    np.testing.assert_allclose(classes.unit, [1.0, 0.0, 0.5])
    np.testing.assert_array_equal(classes.std, 0)


# ------------------------------------------------------------------------------ orders and folds


def test_the_order_of_rows_follows_their_distance_from_the_mean():
    rows = np.array([[3.0], [0.0], [1.0], [-2.5]])
    order = order_from_center(rows)
    np.testing.assert_array_equal(order, np.argsort(np.abs(rows[:, 0] - rows.mean())))
    # Rows as far from the mean as each other are ordered along the skewness, whichever comes first.
    tied = np.array([[-2.0], [-1.0], [-1.0], [4.0], [-2.0 + 4.0]])
    for permutation in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        ordered = tied[permutation][order_from_center(tied[permutation])]
        distances = np.abs(ordered - tied.mean())[:, 0]
        assert np.all(np.diff(distances) > -1e-9)
    plus = np.array([[-3.0], [1.0], [1.0 - 2.0], [3.0], [0.0]])
    a, b = (p[order_from_center(p)] for p in (plus, plus[::-1]))
    np.testing.assert_array_equal(np.abs(a), np.abs(b))
    assert list(order_from_center(np.zeros((3, 2)))) == [0, 1, 2]


@pytest.mark.parametrize("n", [3, 20])
def test_the_order_of_rows_is_the_same_for_linear_maps(n):
    X = table(n, 2)
    order = row_order(X)
    assert sorted(order) == list(range(n))
    for mapped in (X * [1e200, 1e-200], X[:, ::-1], np.column_stack([X, np.full(n, 7.0)])):
        np.testing.assert_array_equal(row_order(mapped), order)
    if n > 3:
        np.testing.assert_array_equal(row_order(np.column_stack([X, X.sum(axis=1)])), order)
        # Whitened rows, from the center outwards.
        whitened = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[0]
        np.testing.assert_array_equal(order, np.argsort(np.sum(whitened**2, axis=1)))


def folds_of(X, cv, weight=None, groups=None):
    return TrainingRows.of(np.asarray(X), weight, KDESampler()).folds(cv, groups)


def test_rows_of_small_weight_are_kept():
    rows = TrainingRows.of(table(4), np.array([1.0, 0.5, 1e-300, 0.0]), KDESampler())
    np.testing.assert_array_equal(rows.kept, [True, True, True, False])
    np.testing.assert_array_equal(rows.weight, [1.0, 0.5, 1e-300])
    assert not TrainingRows.of(table(2), np.array([1e300, 1e-300]), KDESampler()).kept[1]


def test_folds_of_splits_as_they_are():
    X, weight = table(5), np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    splits = [([0, 1, 2], [3, 4]), ([3, -1], np.array([True, True, False, False, False]))]
    folds = folds_of(X, splits, weight)
    # Indices are those among the rows of positive weight: 0, 2, 3 and 4.
    for (train, test), expected in zip(folds, [([0, 1], [2, 3]), ([2, 3], [0])], strict=True):
        np.testing.assert_array_equal(train, expected[0])
        np.testing.assert_array_equal(test, expected[1])
    # A fold whose test rows have no weight is left out.
    assert len(folds_of(X, [([0], [1]), ([0], [2])], weight)) == 1
    expected = list(KFold(2).split(X))
    for fold, split in zip(folds_of(X, KFold(2)), expected, strict=True):
        np.testing.assert_array_equal(fold[1], split[1])


@pytest.mark.parametrize(
    ("cv", "error", "match"),
    [
        ("5", TypeError, "cv='5' has type str"),
        (KFold, TypeError, "has type"),
        (None, TypeError, "NoneType"),
        (1, ValueError, "cv=1 is too small"),
        (2.0, TypeError, "cv=2.0 has type float"),
        ([[0, 1, 2]], ValueError, "fold 0 is"),
        ([([0], [1]), ([0],)], ValueError, "fold 1 is"),
        ([([0], [[1]])], ValueError, "fold 0 has shape"),
        ([([0], [1.0])], ValueError, "type float64"),
        ([([0], [5])], ValueError, "from 5 to 5; expected those of 5 rows, from 0 to 4"),
        ([([0], [-6])], ValueError, "from -6 to -6"),
        ([([0], [1]), ([0], [1])], ValueError, "tests no row, or a row twice"),
        ([([0], [])], ValueError, "tests no row"),
        ([], ValueError, "tests no row"),
    ],
)
def test_folds_that_cannot_be_used(cv, error, match):
    with pytest.raises(error, match=match):
        folds_of(table(5), cv)


def test_shuffled_folds_keep_equal_rows_together():
    X = table(6)[[0, 1, 2, 3, 4, 5, 0, 1, 2]]
    folds = folds_of(X, 3)
    assert len(folds) == 3
    tests = [set(test.tolist()) for _, test in folds]
    assert sorted(row for test in tests for row in test) == list(range(9))
    for (train, test), members in zip(folds, tests, strict=True):
        assert sorted([*train, *test]) == list(range(9))
        assert all((row in members) == (row + 6 in members) for row in range(3))
    with pytest.warns(UserWarning, match="cv=9 folds need as many distinct rows .* got 6; makes 6"):
        assert len(folds_of(X, 9)) == 6
    assert len(folds_of(X, 6)) == 6
    with pytest.raises(ValueError, match="got n_samples = 1"):
        folds_of(X[[0, 0, 0]], 2)


def test_shuffled_folds_of_groups():
    groups = np.array(["a", "b", "c", "a", "b", "c", "z"])
    weight = np.array([1.0, 1, 1, 1, 1, 1, 0])
    folds = folds_of(table(7), 3, weight, groups)
    assert sorted(tuple(test) for _, test in folds) == [(0, 3), (1, 4), (2, 5)]
    with pytest.warns(UserWarning, match="as many groups, got 3; makes 3 folds"):
        assert len(folds_of(table(7), 4, weight, groups)) == 3
    with pytest.raises(ValueError, match=r"groups has shape \(6,\); expected \(7,\)"):
        folds_of(table(7), 3, weight, groups[:6])
    with pytest.raises(ValueError, match="groups is no array"):
        folds_of(table(7), 3, weight, [[1], [1, 2], [1, 2, 3], 1, 1, 1, 1])


# ------------------------------------------------------------------------------ draws


def test_common_random_numbers():
    rng, own = CommonRandomState(3, 0), np.random.RandomState(0)
    np.testing.assert_array_equal(rng.uniform(size=6), np.repeat(own.uniform(size=3), 2))
    np.testing.assert_array_equal(
        rng.uniform(2, 5, (6, 2)), np.repeat(own.uniform(2, 5, (3, 2)), 2, axis=0)
    )
    np.testing.assert_array_equal(
        rng.standard_normal((2, 9)), np.repeat(own.standard_normal((2, 3)), 3, axis=1)
    )
    np.testing.assert_array_equal(rng.uniform(size=(2, 4)), own.uniform(size=(2, 4)))
    assert rng.uniform() == own.uniform()
    assert rng.uniform(1.0, 3.0) == own.uniform(1.0, 3.0)


def test_inverse_of_cumulated_weights():
    values = [0.0, 0.19, 0.2, 0.49, 0.5, 0.99, 1.0, 7.0]
    found = invert_cumulated(np.array([0.2, 0.2, 0.5, 1.0]), np.array(values))
    np.testing.assert_array_equal(found, [0, 0, 2, 2, 3, 3, 3, 3])
    masses = np.array([[0.0, 2.0, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]])
    rows, uniform = np.array([0, 0, 0, 1, 1, 0]), np.array([0.0, 0.49, 0.5, 0.0, 0.999, 0.999])
    np.testing.assert_array_equal(choose_in_rows(masses, rows, uniform), [1, 1, 3, 0, 0, 3])


def test_draws_of_points_have_their_weights():
    points, weights = np.arange(4.0)[:, None], np.array([0.1, 0.0, 0.6, 0.3])
    uniform = np.random.RandomState(5).uniform(size=200)
    expected = np.searchsorted([0.1, 0.1, 0.7], uniform, side="right")
    drawn = draw_points(np.random.RandomState(5), points, weights, 200)
    np.testing.assert_array_equal(drawn[:, 0], expected)


def peak_mib(call):
    """Return the MiB that a call allocates beyond what there was before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_conditional_draws_keep_to_the_memory_limit(limit):
    rng = np.random.default_rng(0)
    points, values = rng.normal(size=(2000, 1)), rng.normal(size=(300, 1))
    log_weights = np.zeros(2000)
    found = peak_mib(
        lambda: draw_given(np.random.RandomState(0), points, log_weights, values, limit)
    )
    assert 0.6 * limit < found < 1.2 * limit


# ------------------------------------------------------------------------------ tables


def test_names_and_labels_of_columns():
    assert column_names(table()) is None
    assert column_names(pd.DataFrame([[1.0, 2.0]], columns=["a", 3])) is None
    np.testing.assert_array_equal(
        column_names(pd.DataFrame([[1.0, 2.0]], columns=["a", "b"])), ["a", "b"]
    )
    assert column_label(None, 2) == "2"
    assert column_label(["a", "b"], 1) == "'b'"
    assert [n_dimensions(X) for X in (3.0, [1.0], [[1.0]])] == [0, 1, 2]
    with pytest.raises(ValueError, match="X of type list has rows of unequal lengths"):
        n_dimensions([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), ValueError, "column 'b' of X holds text"),
        (
            pd.DataFrame({"a": [1.0], "b": pd.to_datetime(["2020-01-01"])}),
            ValueError,
            "column 'b' of X holds dates",
        ),
        (
            pd.DataFrame({"a": pd.Categorical(["x"])}),
            ValueError,
            "column 'a' of X holds categories",
        ),
        (pl.DataFrame({"a": [1.0], "b": ["x"]}), ValueError, "column 'b' of X holds text"),
        ([[1.0, "2"]], ValueError, "column 1 of X holds text"),
        ([[1.0, 2.0], [3.0]], ValueError, "rows of unequal lengths"),
        (np.array([[1 + 2j]]), ValueError, "Complex data not supported: column 0"),
        (np.array([[1.0, {}]], dtype=object), TypeError, "column 1 of X is not numeric"),
        ([[1.0, 10**400]], ValueError, "column 1 of X holds an integer beyond the range"),
        (
            np.ma.array([[1.0, 2.0]], mask=[[False, True]]),
            ValueError,
            r"1 masked cells, in columns \[1\]",
        ),
        (
            [[1.0, np.nan], [np.nan, np.nan]],
            ValueError,
            r"NaN in column 0 \(1 of 2 rows\), 1 \(2 of 2 rows\);",
        ),
        ([[1.0, np.inf]], ValueError, r"infinity in column 1 \(1 of 1 rows\)"),
        ([[np.nan] * 5], ValueError, r"4 \(1 of 1 rows\);"),
        ([[np.nan] * 7], ValueError, r"4 \(1 of 1 rows\) and 2 more;"),
    ],
)
def test_cells_that_are_no_numbers(X, error, match):
    with pytest.raises(error, match=match):
        check_table(X, KDESampler())


def test_ignored_columns_may_hold_anything_numeric():
    X = np.array([[1.0, np.nan], [2.0, np.inf]])
    np.testing.assert_array_equal(check_table(X, KDESampler(), ignored=[1]), [[1, 0], [2, 0]])
    assert np.isnan(X[0, 1])
    # The sum of finite numbers may overflow.
    large = np.full((4, 1), 1e308)
    np.testing.assert_array_equal(check_table(large, KDESampler()), large)
    unmasked = np.ma.array([[1.0]], mask=[[False]])
    np.testing.assert_array_equal(check_table(unmasked, KDESampler()), [[1.0]])


# ------------------------------------------------------------------------------ ranges


def test_sizes_and_ranges():
    check_size("X", np.array([1e150, -1e150]))
    check_size("X", np.empty((0, 2)))
    for value in (1.01e150, -1.01e150):
        with pytest.raises(
            ValueError, match=r"X holds values up to 1.01e\+150 m in size.* squares"
        ):
            check_size("X", np.array([0.0, value]), " m")
    with pytest.raises(
        ValueError, match="up to 3 in size; expected none above 2, since their diff"
    ):
        check_size("X", np.array([3.0]), largest=2.0)
    for extent in (0.0, 1.01e-150, 0.99e150):
        check_extent(np.array([[0.0], [extent]]), "m")
    for extent in (0.99e-150, 1.01e150):
        with pytest.raises(ValueError, match=r"X has a range of .* in units of m"):
            check_extent(np.array([[0.0], [extent]]), "m")
    for scale in (1.01e-150, 0.99e150):
        check_ratio("sigma", scale, 2.0)
    with pytest.raises(ValueError, match=r"sigma=2e\+151 .* from 2e-150 to 2e\+150"):
        check_ratio("sigma", 1e151, 2.0)
    with pytest.raises(ValueError, match="sigma=2e-151"):
        check_ratio("sigma", 1e-151, 2.0)


def test_seeds_that_are_kept():
    assert fixed_seed(None) == 0
    assert fixed_seed(7) == 7
    assert fixed_seed(np.random.RandomState(3)) == np.random.RandomState(3).randint(2**31)


# ------------------------------------------------------------------------------ warnings, labels


def merged_rows(**changes):
    rows = {"points": table(40), "weights": np.full(40, 1 / 40), "index": np.arange(40)}
    return MergedRows(**rows | {"n_near": 0, "distance": 0.0} | changes)


def warnings_of(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in found]


def test_what_training_rows_warn_of():
    assert warnings_of(merged_rows().warn) == []
    (text,) = warnings_of(merged_rows(n_near=3, distance=2.34e-7).warn)
    assert text.startswith("3 rows of X equal another row up to rounding (at most 2.3e-07 of")
    far = table(40)
    far[3, 1] = 1e9
    assert warnings_of(merged_rows(points=far).warn) == []
    (text,) = warnings_of(lambda: merged_rows(points=far).warn(sets_scales=True))
    assert "values of X are far from all others: column 1: 1 of 40" in text
    (text,) = warnings_of(merged_rows(points=table(40) + [0, 2.0**45]).warn)
    assert "rounded by their storage as floats: column 1: to" in text
    names = np.array(["a", "b"], dtype=object)
    counts = np.column_stack([np.arange(40) // 10, table(40)[:, 0]])
    (text,) = warnings_of(lambda: merged_rows(points=counts).warn(names))
    assert "these columns of X are not continuous: column 'a': values are multiples of 1" in text
    with part_of_a_fit():
        assert warnings_of(lambda: merged_rows(points=counts, n_near=1).warn(names)) == []
    assert warnings_of(merged_rows(points=counts, n_near=0).warn_of_near_rows) == []


def test_labels_of_groups():
    kept = np.array([True, False, True, True])
    np.testing.assert_array_equal(_group_labels(["b", "z", "a", "b"], kept), [1, 0, 1])
    with pytest.raises(ValueError, match=r"groups has shape \(4, 1\); expected \(4,\)"):
        _group_labels([[1], [2], [3], [4]], kept)


def test_indices_of_folds():
    for part, expected in (
        ([0, -3], [0, -3]),
        ([], []),
        (np.array([2], dtype=np.uint8), [2]),
        ([True, False, True], [0, 2]),
    ):
        found = _row_indices(part, 3, "fold")
        assert found.dtype == np.intp
        np.testing.assert_array_equal(found, expected)
    for part in ([True, False], [[0, 1]], ["a"]):
        with pytest.raises(
            ValueError, match=r"fold has shape .*from 0 to 2, or a mask of shape \(3,\)"
        ):
            _row_indices(part, 3, "fold")
    for part in ([3], [-4], [0, 3], [-4, 0]):
        with pytest.raises(ValueError, match=r"fold holds indices from .* from 0 to 2"):
            _row_indices(part, 3, "fold")


def test_rows_equal_up_to_rounding_take_the_sum_of_the_weights():
    X = table(12)
    both = np.concatenate([X, X[:3].astype(np.float32)])
    weight = np.arange(1.0, 16)
    merged = merge_rows(both, weight)
    order = np.lexsort(X.T[::-1])
    np.testing.assert_array_equal(merged.points, X[order])
    sums = weight[:12].copy()
    sums[:3] += weight[12:]
    np.testing.assert_allclose(merged.weights, sums[order] / 120, rtol=1e-14)
    np.testing.assert_array_equal(merged.points[merged.index], X[[*range(12), 0, 1, 2]])
    assert merged.n_near == 3
    weight[5] = 0.0
    without = merge_rows(both, weight)
    assert without.index[5] == -1
    np.testing.assert_array_equal(np.delete(without.points[without.index], 5, axis=0)[:5], X[:5])


def test_squares_are_rounded_to_nine_digits_for_the_order():
    """Rows whose squares differ by 1e-11 are ordered along the skewness, others by their squares."""
    for gap, first in ((1e-11, -1), (1e-7, 1)):
        # The mean is zero; the row at 3 makes the skewness positive.
        rows = np.array([[-1.0 - gap], [1.0], [3.0], [-3.0 + gap]])
        rows = rows[order_from_center(rows)]
        assert np.sign(rows[0, 0]) == first
