"""Tests of columns by label or index, and of the values given for them."""

import numpy as np
import pytest

from skdiffsmooth._utils.given import (
    resolve_columns,
    resolve_given_values,
    resolve_scored_columns,
)

NAMES = np.array(["a", "b", "c"], dtype=object)
MIXED = np.array(["a", 7, True], dtype=object)


@pytest.mark.parametrize(
    ("columns", "labels", "expected"),
    [
        ([2, 0], None, [0, 2]),
        ([], None, []),
        ((np.int64(1),), None, [1]),
        (["c", "a"], NAMES, [0, 2]),
        (["c", 0], NAMES, [0, 2]),
        ({"b": 1.0}, NAMES, [1]),
        ([7, "a"], MIXED, [0, 1]),
        ([True], MIXED, [2]),
    ],
)
def test_columns_are_found_by_label_or_index(columns, labels, expected):
    found = resolve_columns("given", columns, labels, 3)
    assert found.dtype == np.intp
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("columns", "labels", "error", "match"),
    [
        (3, None, TypeError, "given=3 has type int"),
        ("ab", NAMES, TypeError, "given='ab' has type str"),
        (b"ab", NAMES, TypeError, "has type bytes"),
        ([0, 0], None, ValueError, "names a column twice"),
        (["a", 0], NAMES, ValueError, "names a column twice"),
        ([3], None, ValueError, "3 is out of range; expected an index from 0 to 2"),
        ([-1], None, ValueError, "-1 is out of range"),
        ([3], NAMES, ValueError, "3 is out of range"),
        ([True], None, TypeError, "True has type bool"),
        ([1.0], None, TypeError, "1.0 has type float"),
        (["a"], None, ValueError, "'a' is a name, but .* no column names"),
        (["d"], NAMES, ValueError, "'d' is not known; expected one of 'a', 'b', 'c'"),
        # An index could be mistaken for the label 7.
        ([0], MIXED, ValueError, "0 is not known"),
        ([1], MIXED, ValueError, "1 is not known"),
        (["a"], np.array(["a", "a", "b"], dtype=object), ValueError, "label of 2 columns"),
    ],
)
def test_columns_that_are_not_found(columns, labels, error, match):
    with pytest.raises(error, match=match):
        resolve_columns("given", columns, labels, 3)


def test_columns_to_score():
    for columns, given, scored, fixed in (
        (None, None, [0, 1, 2], []),
        (None, [1], [0, 2], [1]),
        ([2], None, [2], []),
        ([2], [0], [2], [0]),
        ([2, 1], [0], [1, 2], [0]),
    ):
        result = resolve_scored_columns(columns, given, None, 3)
        np.testing.assert_array_equal(result[0], scored)
        np.testing.assert_array_equal(result[1], fixed)
    for columns, given, match in (
        ([], None, "is empty"),
        ([0, 1], [1], "share column 1"),
        (None, [0, 1, 2], "given names all 3 columns"),
    ):
        with pytest.raises(ValueError, match=match):
            resolve_scored_columns(columns, given, None, 3)


def test_given_values_are_in_the_order_of_the_columns():
    columns, values = resolve_given_values({"c": [1.0, 2.0], "a": 5}, 2, NAMES, 3)
    np.testing.assert_array_equal(columns, [0, 2])
    np.testing.assert_array_equal(values, [[5, 1], [5, 2]])
    columns, values = resolve_given_values({}, 2, None, 3)
    assert len(columns) == 0
    assert values.shape == (2, 0)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ([0], TypeError, "expected a mapping"),
        ({0: 1, 1: 1, 2: 1}, ValueError, "names all 3 columns"),
        ({0: "1"}, ValueError, r"given\[0\]='1' holds strings"),
        ({0: [1.0, "1"]}, ValueError, "holds strings"),
        ({0: [1.0, 2.0, 3.0]}, ValueError, r"shape \(3,\); expected a number, or 2"),
        ({0: [[1.0, 2.0]]}, ValueError, r"shape \(1, 2\)"),
        ({1: [1.0, np.nan]}, ValueError, r"given\[1\] holds 1 values that are NaN"),
        ({1: np.inf}, ValueError, "NaN or infinite"),
        ({1: 1.1 * 2.0**1000}, ValueError, "differences would overflow"),
    ],
)
def test_values_that_cannot_be_given(given, error, match):
    with pytest.raises(error, match=match):
        resolve_given_values(given, 2, None, 3)


def test_labels_and_indices_of_one_kind():
    """True is neither the index nor the label 1; messages name the parameter."""
    labels = np.array([1, True, "a"], dtype=object)
    assert resolve_columns("given", [True], labels, 3).tolist() == [1]
    assert resolve_columns("given", [1], labels, 3).tolist() == [0]
    for name, where in (
        ("column", "^column"),
        ("columns", "^columns: column"),
        ("given", "^given column"),
    ):
        with pytest.raises(ValueError, match=f"{where} 5 is out of range"):
            resolve_columns(name, [5], None, 3)
    with pytest.raises(TypeError, match=r"2\.5 has type float; expected an index or a name"):
        resolve_columns("given", [2.5], None, 3)
    assert resolve_columns("given", [2], np.array(["a", "b", "c"], dtype=object), 3).tolist() == [2]
