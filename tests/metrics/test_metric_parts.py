"""Parts of metrics against loops, at ties and ends: checks, splits, balls, areas, tiles."""

import itertools
import math
import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import LeaveOneOut, StratifiedKFold

from skdiffsmooth.metrics import (
    Estimate,
    classifier_two_sample_test,
    coverage_at_scale,
    coverage_scale,
    distance_to_manifold,
    fidelity_and_diversity,
    fisher_divergence,
    lateral_distance,
    memorization,
    memorization_report,
)
from skdiffsmooth.metrics import _coverage as coverage_module
from skdiffsmooth.metrics import _pairs as pairs_module
from skdiffsmooth.metrics._checks import check_fraction, check_pair, check_returned, check_rows
from skdiffsmooth.metrics._classifier_test import _neighbors, _pairs, _Split
from skdiffsmooth.metrics._coverage import _scales
from skdiffsmooth.metrics._fidelity import _radii
from skdiffsmooth.metrics._novelty import _area_under_curve


def rows(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


# ------------------------------------------------------------------------------ checks


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        ({}, [1e-300, 0.5, 1 - 1e-16], [0, 1, -0.1, 1.1]),
        ({"zero": True}, [0, 0.5], [1, -1e-9]),
        ({"one": True}, [1, 0.5], [0, 1 + 1e-15]),
        ({"zero": True, "one": True}, [0, 1], [1.5, -0.5]),
    ],
)
def test_fractions_and_their_ends(options, inside, outside):
    ends = f"{'[' if options.get('zero') else '('}0, 1{']' if options.get('one') else ')'}"
    for value in inside:
        assert check_fraction("alpha", value, **options) == value
    for value in outside:
        with pytest.raises(ValueError, match=rf"alpha={value} is out of range.*{re.escape(ends)}"):
            check_fraction("alpha", value, **options)


@pytest.mark.parametrize(
    ("X", "minimum", "match"),
    [
        ([1.0, 2.0], 1, r"X has shape \(2,\); expected \(n, d\)"),
        (np.empty((0, 2)), 1, r"shape \(0, 2\); expected at least 1 row and one column"),
        (np.empty((3, 0)), 1, r"shape \(3, 0\)"),
        ([[1.0], [2.0]], 3, "at least 3 rows and"),
        ([[1.0, np.nan], [np.inf, 2.0]], 1, "X holds 2 values that are NaN or infinite"),
        ([[1e151]], 1, "squares would overflow"),
    ],
)
def test_rows_that_cannot_be_compared(X, minimum, match):
    with pytest.raises(ValueError, match=match):
        check_rows("X", X, minimum=minimum)


def test_rows_are_copied():
    X = rows(2, 1)
    checked = check_rows("X", X, minimum=2)
    np.testing.assert_array_equal(checked, X)
    assert checked is not X
    assert not np.shares_memory(checked, X)


def test_pairs_have_the_same_columns():
    frame = pd.DataFrame([[1.0, 2.0]], columns=["a", "b"])
    for first, second in ((frame, frame.to_numpy()), (frame.to_numpy(), frame), (frame, frame)):
        found = check_pair(first, second, "data")
        np.testing.assert_array_equal(found[0], found[1])
    with pytest.raises(ValueError, match=r"\['a', 'b'\] and data has \['b', 'a'\]"):
        check_pair(frame, frame[["b", "a"]], "data")
    with pytest.raises(ValueError, match="X has 2 columns and data has 1"):
        check_pair(frame, frame[["a"]], "data")
    one, two = [[1.0]], [[1.0], [2.0]]
    check_pair(one, two, "data", minimum=(1, 2))
    with pytest.raises(ValueError, match=r"data has shape .* at least 2 rows"):
        check_pair(two, one, "data", minimum=(1, 2))
    with pytest.raises(ValueError, match=r"X has shape .* at least 2 rows"):
        check_pair(one, two, "data", minimum=(2, 1))


# ------------------------------------------------------------------------------ classifier


@pytest.mark.parametrize(
    ("n_x", "n_y", "n_hits", "n_predicted"),
    [(3, 4, 2, 3), (3, 4, 0, 0), (3, 4, 3, 7), (1, 1, 1, 1), (5, 5, 5, 5), (2, 6, 1, 4)],
)
def test_a_split_is_a_table_of_four_counts(n_x, n_y, n_hits, n_predicted):
    split = _Split(n_x, n_y, n_hits, n_predicted)
    wrong = n_predicted - n_hits
    assert split.accuracy == pytest.approx((n_hits / n_x + (n_y - wrong) / n_y) / 2)
    counts = [[n_hits, n_x - n_hits], [wrong, n_y - wrong]]
    assert split.p_value == pytest.approx(fisher_exact(counts, alternative="greater").pvalue)


def test_counts_of_a_split():
    X = np.array([[0.0], [1.0], [2.0], [3.0], [0.1], [0.9], [2.9], [3.1]])
    is_x = np.array([1, 1, 0, 0, 1, 0, 0, 1])
    split = _Split.of(None, X, is_x, np.arange(4), np.arange(4, 8))
    # The two nearest of four rows: X is predicted for the first two of the held-out rows.
    assert split == _Split(n_x=2, n_y=2, n_hits=1, n_predicted_x=2)
    constant = _Split.of(
        DummyClassifier(strategy="constant", constant=1), X, is_x, [0, 2], [4, 5, 6]
    )
    assert constant == _Split(n_x=1, n_y=2, n_hits=1, n_predicted_x=3)
    for test, counts in (([4, 7], "2 rows of X and 0 of Y"), ([5, 6], "0 rows of X and 2 of Y")):
        with pytest.raises(ValueError, match=counts):
            _Split.of(None, X, is_x, [0, 2], test)


@pytest.mark.parametrize(("n_train", "k"), [(1, 1), (3, 1), (4, 2), (99, 9), (100, 10)])
def test_the_classifier_asks_the_root_of_the_rows(n_train, k):
    assert _neighbors(n_train)[-1].n_neighbors == k


def test_splits_of_two_samples():
    is_x = np.repeat([1, 0], [6, 4])
    ((train, test),) = _pairs(None, is_x, np.random.RandomState(0))
    assert sorted([*train, *test]) == list(range(10))
    assert (len(train), is_x[train].sum(), is_x[test].sum()) == (5, 3, 3)
    for cv in (4, np.int64(4)):
        pairs = _pairs(cv, is_x, np.random.RandomState(0))
        expected = StratifiedKFold(4, shuffle=True, random_state=np.random.RandomState(0))
        for (train, test), (first, second) in zip(pairs, expected.split(is_x, is_x), strict=True):
            np.testing.assert_array_equal(train, first)
            np.testing.assert_array_equal(test, second)
    assert len(_pairs(LeaveOneOut(), is_x, None)) == 10
    given = [([0, 9], [1, 8])]
    assert _pairs(given, is_x, None) == given
    for labels in (is_x, 1 - is_x):
        with pytest.raises(ValueError, match=r"cv=5 folds .* the smaller of which has 4"):
            _pairs(5, labels, np.random.RandomState(0))
    for cv, error in ((1, ValueError), (2.0, TypeError), ("a", TypeError), (object(), TypeError)):
        with pytest.raises(error, match="cv="):
            _pairs(cv, is_x, np.random.RandomState(0))


def test_p_values_of_several_splits_count_permutations():
    """A classifier of constant accuracy ties with all permutations, one that is right with none."""
    X, Y = np.zeros((6, 1)), np.ones((6, 1))
    constant = DummyClassifier(strategy="constant", constant=1)
    test = classifier_two_sample_test(X, Y, constant, cv=2, n_permutations=4, random_state=0)
    assert (test.accuracy, test.p_value) == (0.5, 1.0)
    np.testing.assert_array_equal(test.accuracies, [0.5, 0.5])
    test = classifier_two_sample_test(X, Y, cv=2, n_permutations=4, random_state=0)
    assert (test.accuracy, test.p_value) == (1.0, 1 / 5)
    test = classifier_two_sample_test(X, Y, cv=[([0, 6], list(range(1, 6)) + list(range(7, 12)))])
    assert (test.accuracy, test.p_value) == (1.0, pytest.approx(1 / math.comb(10, 5)))
    for wrong in (object(), "svc", type("F", (), {"fit": None})()):
        with pytest.raises(TypeError, match="expected a classifier with"):
            classifier_two_sample_test(X, Y, wrong)


# ------------------------------------------------------------------------------ coverage, fidelity


@pytest.mark.parametrize("c", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_scales_of_points_with_ties_against_their_definition(seed, c):
    """Whole distances: balls of radius r - 0 are open, and all radii up to the largest are tried."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 6, 2)
    distances = rng.integers(0, 5, (m, n + m)).astype(float)
    distances[np.arange(m), n + np.arange(m)] = 0.0
    expected = np.zeros(m)
    for point, end in itertools.product(range(m), range(6)):
        generated = (distances[point, :n] <= end - 0.5).sum() / n
        reference = (distances[point, n:] <= end - 0.5).sum() / m
        if generated < c * reference - 1e-12:
            # Too little mass just below `end`; the range ends at a generated row.
            later = distances[point, :n][distances[point, :n] >= end]
            expected[point] = max(expected[point], later.min() if len(later) else 0)
    np.testing.assert_array_equal(_scales(distances, n, c), expected)


def test_the_covered_fraction_counts_rows():
    X, reference = np.zeros((1, 1)), np.arange(10.0)[:, None]
    for n_left_out in range(10):
        found = coverage_scale(X, reference, alpha=n_left_out / 10, c=0.5)
        assert found == coverage_scale(X, reference, alpha=n_left_out / 10 + 1e-13, c=0.5)
        scales = np.sort(_scales(np.abs(reference - np.r_[X, reference].T), 1, 0.5))
        assert found == scales[9 - n_left_out]
    assert coverage_scale(X, reference, alpha=0.95) == scales[0]


def test_balls_are_closed():
    np.testing.assert_array_equal(
        coverage_at_scale([[0.0]], [[0.0], [1.0], [-1.0], [2.0]], [0, 0.5, 1, 2]),
        [0.25, 0.25, 0.75, 1],
    )
    for radius in (-1e-9, np.nan, np.inf, [0.1, -1]):
        with pytest.raises(ValueError, match="radius="):
            coverage_at_scale([[0.0]], [[0.0]], radius)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_radii_are_distances_of_other_rows(k):
    X = np.array([[0.0], [1.0], [1.0], [3.0], [7.0]])
    expected = [sorted(abs(x - y) for y in X[:, 0])[k] for x in X[:, 0]]
    np.testing.assert_allclose(_radii(X, k), expected, rtol=2e-9)
    assert np.all(_radii(X, k) >= expected)


def test_fidelity_at_the_border_of_balls():
    reference = np.array([[0.0], [1.0], [2.0], [3.0]])
    result = fidelity_and_diversity([[4.0], [4.0 + 1e-6], [-1.0]], reference, n_neighbors=1)
    assert (result.precision, result.density) == (2 / 3, 2 / 3)
    assert (result.recall, result.coverage) == (1.0, 0.5)
    for n_generated, n_reference in ((2, 3), (3, 2)):
        with pytest.raises(ValueError, match="at least 3 rows"):
            fidelity_and_diversity(rows(n_generated, 1), rows(n_reference, 1), n_neighbors=2)
    fidelity_and_diversity(rows(3, 1), rows(3, 1), n_neighbors=2)


# ------------------------------------------------------------------------------ memorization


@pytest.mark.parametrize("seed", range(4))
def test_areas_and_their_errors_against_loops(seed):
    rng = np.random.default_rng(seed)
    small, large = rng.integers(0, 6, 2 + seed), rng.integers(1, 7, 5)
    wins = np.array([[float(a < b) + (a == b) / 2 for b in large] for a in small])
    area, error = _area_under_curve(small, large)
    assert area == pytest.approx(wins.mean())
    variances = wins.mean(axis=1).var(ddof=1) / len(small), wins.mean(axis=0).var(ddof=1) / 5
    assert error == pytest.approx(math.sqrt(sum(variances)))


def test_ratios_at_the_threshold_and_of_near_rows():
    result = memorization([[1.0], [0.0], [3.0], [-4.0]], [[0.0], [4.0], [-0.0]], threshold=0.5)
    np.testing.assert_allclose(result.ratio, [1 / 3, 0, 1 / 3, 0.5])
    np.testing.assert_array_equal(result.nearest, [0, 0, 1, 0])
    assert (result.share, result.threshold) == (0.75, 0.5)
    # The squares of these distances underflow.
    assert memorization([[0.0]], [[1e-200], [2e-200]]).ratio[0] == 1.0
    with pytest.raises(ValueError, match="data has 1 distinct row among 3"):
        memorization([[1.0]], [[2.0]] * 3)


def test_reports_count_copies_and_near_rows():
    data, held_out = np.array([[0.0], [10.0], [20.0]]), np.array([[1.0], [12.0], [23.0], [34.0]])
    draws = np.array([[0.0], [10.5], [25.0], [12.5], [20.0]])
    report = memorization_report(draws, data, held_out, level=0.5)
    # Distances of held-out rows are 1, 2, 3 and 14, of which the median is 2.5.
    assert (report.copies, report.near, report.level) == (2 / 5, 3 / 5, 0.5)
    assert report.near_error == pytest.approx(math.sqrt(0.25 * (1 / 5 + 1 / 4)))
    assert report.ratio == memorization(draws, data).share
    assert report.held_out_ratio == memorization(held_out, data).share
    # From the draws training rows are 0, 1/2 and 0 away, held-out rows 1, 1/2, 2 and 9.
    assert report.attack == pytest.approx(11.5 / 12)
    with pytest.raises(ValueError, match=r"reference has shape .* at least 2 rows"):
        memorization_report(draws, data, held_out[:1])


# ------------------------------------------------------------------------------ fields, tiles


def test_effective_sample_sizes_of_squared_differences():
    X = np.zeros((4, 1))
    terms = np.array([1.0, 2.0, 3.0, 0.0])
    result = fisher_divergence(X, lambda x: x, lambda x: np.sqrt(terms)[:, None])
    assert result.value == pytest.approx(1.5)
    assert result.standard_error == pytest.approx(terms.std(ddof=1) / 2)
    assert result.effective_sample_size == pytest.approx(36 / 14)
    equal = fisher_divergence(X, lambda x: x, lambda x: x)
    assert (equal.value, equal.standard_error, equal.effective_sample_size) == (0.0, 0.0, 4.0)
    # Squares of these terms would overflow.
    with np.errstate(over="ignore"):
        large = fisher_divergence(X, lambda x: x, lambda x: 1e120 * np.sqrt(terms)[:, None])
    assert large.effective_sample_size == pytest.approx(36 / 14)
    assert float(Estimate(2.5, 0.1, 3.0)) == 2.5
    for values in (np.zeros(4), np.full((4, 1), np.nan), np.zeros((3, 1))):
        with pytest.raises(ValueError, match="score_q returned an array of shape"):
            fisher_divergence(X, lambda x: x, lambda x, values=values: values)


def test_tiles_use_products_above_thirty_two_columns(monkeypatch):
    def fail(*args):
        raise AssertionError("differences are used")

    monkeypatch.setattr(pairs_module, "cdist", fail)
    for d in (1, 32):
        with pytest.raises(AssertionError, match="differences"):
            next(pairs_module.distance_tiles(rows(3, d), rows(2, d)))
    assert next(pairs_module.distance_tiles(rows(3, 33), rows(2, 33)))[1].shape == (3, 2)


@pytest.mark.parametrize("case", ["differences", "products", "equal rows", "coverage"])
@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_tiles_keep_to_their_memory(case, limit, monkeypatch):
    """The peak is near the limit; near twice the limit where pairs are computed again, in slices."""
    monkeypatch.setattr(pairs_module, "MEMORY_LIMIT", limit)
    monkeypatch.setattr(coverage_module, "MEMORY_LIMIT", limit)
    d = 40 if case in ("products", "equal rows") else 2
    X, Y = rows(600, d), rows(500, d, seed=1)
    if case == "equal rows":
        X, Y = np.ones_like(X), np.ones_like(Y)
    tracemalloc.start()
    try:
        if case == "coverage":
            coverage_scale(X, Y)
        else:
            for _ in pairs_module.distance_tiles(X, Y):
                pass
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    n_arrays = 2 if case == "equal rows" else 1
    assert 0.55 * n_arrays * limit < peak < 1.25 * n_arrays * limit


@pytest.mark.parametrize(("ratio", "is_exact"), [(0.9e-6, True), (1.5e-6, False)])
def test_squares_below_a_millionth_of_the_lengths_are_computed_from_differences(ratio, is_exact):
    """The others keep about ten digits."""
    Y = rows(30, 40)
    Y -= Y.mean(axis=0)
    steps = rows(30, 40, seed=1)
    lengths = np.sqrt(2 * ratio * np.sum(Y**2, axis=1) / np.sum(steps**2, axis=1))
    X = Y + lengths[:, None] * steps
    ((_, distances),) = pairs_module.distance_tiles(X, Y)
    expected = [math.sqrt(math.fsum((x - y) ** 2)) for x, y in zip(X, Y, strict=True)]
    errors = np.abs(np.diagonal(distances) / expected - 1)
    assert errors.max() < (1e-14 if is_exact else 1e-9)
    assert is_exact or errors.max() > 1e-13


@pytest.mark.parametrize("d", [40, 4000])
def test_tiles_of_products_keep_rows_of_many_columns(d, monkeypatch):
    """Beside the distances of a tile its rows, less the mean, and twice these."""
    asked = []
    original = pairs_module.slices_within

    def slices_within(n, n_bytes, limit):
        asked.append(n_bytes)
        return original(n, n_bytes, limit)

    monkeypatch.setattr(pairs_module, "slices_within", slices_within)
    X, Y = rows(3, d), np.concatenate([rows(3, d)[:1], rows(1, d, seed=1)])
    list(pairs_module.distance_tiles(X, Y))
    of_rows, of_close_pairs = asked
    assert of_rows >= 2 * X[0].nbytes + 2 * 8 * len(Y)
    assert of_rows <= 2 * X[0].nbytes + 6 * 8 * len(Y)
    assert of_close_pairs == 3 * X[0].nbytes


def test_margins_of_coverage():
    """A billionth of a row, and a trillionth of the mass."""
    X, reference = np.zeros((1, 1)), np.arange(10.0)[:, None]
    exact, within, beyond = (
        coverage_scale(X, reference, alpha=0.5 - shift / 10, c=0.5) for shift in (0, 0.9e-9, 1.5e-9)
    )
    assert exact == within < beyond
    # Two generated rows at 1 and 3, the other reference row at 2: half of the mass up to 3.
    distances = np.array([[1.0, 3.0, 0.0, 2.0]])
    for c, expected in ((0.5, 1), (0.5 + 0.4e-12, 1), (0.5 + 0.75e-12, 3), (0.51, 3)):
        assert _scales(distances, 2, c) == expected


def test_rows_exactly_at_the_border_are_inside():
    border = -(1 + 1e-9)
    one, other = [[0.0], [1.0]], [[border], [border - 1]]
    assert fidelity_and_diversity(other, one, n_neighbors=1).precision == 0.5
    assert fidelity_and_diversity(one, other, n_neighbors=1).recall == 0.5
    beyond = [[np.nextafter(border, -2)], [border - 1]]
    assert fidelity_and_diversity(beyond, one, n_neighbors=1).precision == 0.0


def test_the_row_that_is_farthest_off_is_named():
    class Line:
        def distance(self, X):
            return np.abs(X[:, 1])

    data = [[0.0, 0.1], [1.0, 0.5], [2.0, 0.2]]
    with pytest.raises(ValueError, match=r"row 1 of X is 0 from the data but 0\.5 from manifold="):
        lateral_distance(data, data, Line())
    found = lateral_distance([[3.0, 4.0], [0.0, 5.0]], [[0.0, 0.0], [9.0, 0.0]], Line())
    np.testing.assert_allclose(found, [3, 0])


@pytest.mark.parametrize(
    ("to_manifold", "to_data", "extent", "is_refused"),
    [
        (1 + 0.9e-6, 1.0, 0.0, False),
        (1 + 1.1e-6, 1.0, 0.0, True),
        (0.9e-8, 0.0, 1.0, False),
        (1.1e-8, 0.0, 1.0, True),
        (4 * 0.9e-6 + 4, 4.0, 0.0, False),
        (2 * 1.1e-8, 0.0, 2.0, True),
        (2 * 0.9e-8, 0.0, 2.0, False),
    ],
)
def test_errors_of_distances_that_are_rounding(to_manifold, to_data, extent, is_refused):
    class Manifold:
        def distance(self, X):
            return np.array([to_manifold])

    X, data = [[to_data]], [[0.0], [-extent], [-2 * extent]]
    if is_refused:
        with pytest.raises(ValueError, match="do not lie on it"):
            lateral_distance(X, data, Manifold())
    else:
        assert lateral_distance(X, data, Manifold()) == [0.0]


@pytest.mark.parametrize("wrong", [[0.0], [0.0, np.nan], [[0.0, 0.0]], [0.0, -1e-300]])
def test_distances_that_a_manifold_may_not_return(wrong):
    class Manifold:
        def distance(self, X):
            return wrong

    n_valid = int(np.sum([value >= 0 for value in np.ravel(wrong)]))
    shape = re.escape(str(np.shape(wrong)))
    with pytest.raises(
        ValueError, match=rf"shape {shape} for 2 rows, of which {n_valid} are finite"
    ):
        distance_to_manifold(np.zeros((2, 1)), Manifold())


def test_returned_arrays_that_are_wrong_are_counted():
    for values, shape, n_wrong in (([1.0, np.nan, np.inf], (3,), 2), ([[1.0]], (1,), 0)):
        message = (
            rf"f returned an array of shape .* with {n_wrong} values .* at t=0; expected finite"
        )
        with pytest.raises(ValueError, match=message):
            check_returned("f", values, shape, " at t=0")
    np.testing.assert_array_equal(check_returned("f", [1, 2], (2,), ""), [1.0, 2.0])
    with pytest.raises(ValueError, match=r"X has the columns \['a'\] and data has \['b'\]"):
        check_pair(pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]}), "data")


def test_fields_are_estimators_or_functions_of_a_copy():
    X = rows(3, 2)

    class Model:
        def grad_log_density(self, passed):
            assert np.shares_memory(passed, X)
            return -passed

    def field(passed):
        passed *= 2
        return -passed / 2

    before = X.copy()
    assert fisher_divergence(X, Model(), field).value == 0.0
    np.testing.assert_array_equal(X, before)
    assert fisher_divergence(X[:2], Model(), field).value == 0.0
    with pytest.raises(TypeError, match="score_p=3 is not a score field"):
        fisher_divergence(X, 3, field)
    with pytest.raises(ValueError, match="at least 2 rows"):
        fisher_divergence(X[:1], Model(), field)


def test_shares_of_rows_that_count():
    """Exactly at the threshold, at the quantile, and at distance zero, whatever the number of rows."""
    result = memorization([[1.0], [1.9], [0.5]], [[0.0], [4.0]])
    assert result.threshold == 1 / 3
    assert memorization([[1.0], [2.0]], [[0.0], [4.0]], threshold=1).share == 0.5
    np.testing.assert_array_equal(result.nearest, [0, 0, 0])
    assert result.share == np.mean(result.ratio < 1 / 3)
    data, held_out = [[0.0], [10.0]], [[1.0], [12.0], [13.0]]
    # Distances 1, 2 and 3: a row at the median is not below it.
    report = memorization_report([[2.0], [1.5], [0.0], [-9.0]], data, held_out, level=0.5)
    assert (report.copies, report.near) == (0.25, 0.5)
    assert memorization_report(data, data, held_out).level == 0.05
