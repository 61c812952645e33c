"""Values within one period."""

import warnings

import numpy as np
import pytest

from skdiffsmooth import KDESampler
from skdiffsmooth._utils.periods import reduced


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
