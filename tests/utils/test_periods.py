"""Values within one period."""

import warnings

import numpy as np
import pandas as pd
import pytest

from skdiffsmooth import KDESampler
from skdiffsmooth._utils.periods import (
    column_labels,
    reduced,
    resolve_periods,
    warn_of_units,
    wrapped,
)


def test_values_are_from_zero_to_the_period():
    X = np.array([[-1e-20], [24.0], [-24.0], [23.5], [-0.5], [24 * 1000 + 3.25], [1e-20]])
    expected = [0.0, 0.0, 0.0, 23.5, 23.5, 3.25, 1e-20]
    np.testing.assert_array_equal(reduced(X, np.array([24.0]))[:, 0], expected)


def test_other_columns_and_the_array_are_not_changed():
    X = np.array([[25.0, 25.0]])
    np.testing.assert_array_equal(reduced(X, np.array([0.0, 24.0])), [[25.0, 1.0]])
    np.testing.assert_array_equal(X, [[25.0, 25.0]])


def test_values_below_a_period_by_rounding_are_zero():
    # 2000 turns of 0.1: float64 has 200.00000000000003 less 2e-14 or so.
    value = np.nextafter(2000 * 0.1, 0)
    assert reduced(np.array([[value]]), np.array([0.1]))[0, 0] == 0.0


@pytest.mark.parametrize(
    ("low", "high", "period", "match"),
    [
        (-180, 180, 2 * np.pi, "degrees, with a period of 6.28"),
        (165, 189, 6.2832, "degrees"),
        (0, 2 * np.pi, 360, "radians, with a period of 360"),
        (-np.pi, np.pi, 360.0, "radians"),
        (-3.142, 3.142, 360.0, "radians"),
        (0, 360, 360, None),
        (-5, 5, 360, None),
        (0, 4, 2 * np.pi, None),
        (0, 5000, 2 * np.pi, None),
        (0, 5000, 24, None),
    ],
)
def test_degrees_with_the_period_of_radians_and_the_reverse_warn(low, high, period, match):
    X = np.linspace(low, high, 20)[:, None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        KDESampler((high - low) / 20, periods={0: period}).fit(X)
    assert len(caught) == (match is not None)
    assert match is None or match in str(caught[0].message)


EPS = np.finfo(np.float64).eps


def test_values_whose_phase_is_lost_are_refused():
    """At 1e-6 / eps periods, 4.5e9, rounding is a millionth of the period."""
    limit = 1e-6 / EPS
    X = np.array([[1.0, 0.999 * limit * 24], [2.0, -1.001 * limit * 24]])
    assert reduced(X[:1], np.array([0.0, 24.0])).shape == (1, 2)
    with pytest.raises(
        ValueError, match=r"column 1 of X holds -1\.08.*e\+11, .* period of 24; .* 5e\+09"
    ):
        reduced(X, np.array([0.0, 24.0]))
    frame = pd.DataFrame(X, columns=["a", "b"])
    with pytest.raises(ValueError, match="column 'b' of X"):
        reduced(X, np.array([0.0, 24.0]), frame)
    assert reduced(np.empty((0, 1)), np.array([24.0])).shape == (0, 1)


@pytest.mark.parametrize(("n_roundings", "is_zero"), [(3.5, True), (4.5, False)])
@pytest.mark.parametrize("period", [1.0, 8.0])
def test_values_within_four_roundings_below_a_period_are_zero(n_roundings, is_zero, period):
    value = period * (1 - n_roundings * EPS)
    assert (reduced(np.array([[value]]), np.array([period]))[0, 0] == 0) == is_zero
    # Of a value many periods away the rounding is larger.
    far = 16 * period * (1 - n_roundings * EPS)
    assert (reduced(np.array([[far]]), np.array([period]))[0, 0] == 0) == is_zero


@pytest.mark.parametrize(
    ("periods", "labels", "expected"),
    [
        (None, None, None),
        ({}, None, None),
        ({1: 24}, None, [0, 24, 0]),
        ({2: 0.5, 0: 360}, None, [360, 0, 0.5]),
        ({"b": 7}, np.array(["a", "b", "c"], dtype=object), [0, 7, 0]),
    ],
)
def test_periods_of_columns(periods, labels, expected):
    found = resolve_periods(periods, labels, 3)
    assert (found is None) == (expected is None)
    if expected:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("periods", "error", "match"),
    [
        ([24], TypeError, r"periods=\[24\] has type list; expected a mapping .* or None"),
        ({0: 0}, ValueError, r"periods\[0\]=0 is out of range; .* 360 for degrees"),
        ({0: "24"}, TypeError, r"periods\[0\]='24' has type str"),
        ({3: 24}, ValueError, "periods column 3 is out of range"),
    ],
)
def test_periods_that_are_none(periods, error, match):
    with pytest.raises(error, match=match):
        resolve_periods(periods, None, 3)


def test_labels_that_are_the_indices_are_none():
    assert column_labels(np.zeros((2, 2))) is None
    assert column_labels(pd.DataFrame(np.zeros((2, 3)))) is None
    assert column_labels(pd.DataFrame(np.zeros((2, 2)), columns=[1, 0])).tolist() == [1, 0]
    assert column_labels(pd.DataFrame(np.zeros((2, 2)), columns=["a", 1])).tolist() == ["a", 1]


TURN = 2 * np.pi


@pytest.mark.parametrize(
    ("low", "high", "period", "unit"),
    [
        # Radians with values of more than two turns, and within 360.
        (0, 2.01 * TURN, TURN, "degrees"),
        (0, 1.99 * TURN, TURN, None),
        (-360, 360, TURN, "degrees"),
        (-360, 360.1, TURN, None),
        (-360.1, 360, TURN, None),
        (0, 90, 1.0009 * TURN, "degrees"),
        (0, 90, 0.9991 * TURN, "degrees"),
        (0, 90, 1.0011 * TURN, None),
        # Degrees with values that fill nine tenths of a turn of radians, from 0 or from -pi.
        (0, 0.91 * TURN, 360, "radians"),
        (0, 0.89 * TURN, 360, None),
        (0, 1.0009 * TURN, 360, "radians"),
        (0, 1.0011 * TURN, 360, None),
        (-0.0009 * TURN, 0.95 * TURN, 360, "radians"),
        (-0.0011 * TURN, 0.95 * TURN, 360, None),
        (-np.pi, np.pi, 360.3, "radians"),
        (-np.pi, np.pi, 360.4, None),
        (-np.pi - 0.0009 * TURN, 0.45 * TURN, 360, "radians"),
        (-np.pi - 0.0011 * TURN, 0.45 * TURN, 360, None),
        (-np.pi, np.pi + 0.0011 * TURN, 360, None),
        (0, 4, 24, None),
    ],
)
def test_units_that_look_wrong(low, high, period, unit):
    X = np.array([[0.0, low], [0.0, high], [0.0, (low + high) / 2]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_units(X, np.array([0.0, period]), X)
    assert [str(each.message).split(" with a")[0] for each in caught] == (
        [f"column 1 of X holds values from {low:.6g} to {high:.6g}, which look like {unit},"]
        if unit
        else []
    )


def test_differences_are_wrapped():
    differences = np.array([0.0, 1.9, 2.1, -2.1, 5.0, 8.0])
    np.testing.assert_allclose(wrapped(differences, 4.0), [0, 1.9, -1.9, 1.9, 1, 0])
