"""Checks of single parameters: which values are taken, and as what."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from skdiffsmooth._utils.validation import (
    check_choice,
    check_even,
    check_flag,
    check_integer,
    check_real,
    check_real_array,
    check_seed,
)


@pytest.mark.parametrize("value", [1, np.int8(3), np.uint64(7), sys.maxsize])
def test_integers_are_taken(value):
    found = check_integer("n", value)
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize(
    "value", [True, np.True_, 1.0, np.float64(2.0), "1", None, [1], Fraction(1)]
)
def test_other_types_are_no_integers(value):
    with pytest.raises(TypeError, match=r"n=.* has type .*; expected an integer >= 1\. Hint\."):
        check_integer("n", value, hint="Hint.")


@pytest.mark.parametrize("value", [0, -1, sys.maxsize + 1, 10**400])
def test_integers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"n=.* is too (small|large); expected an integer"):
        check_integer("n", value)
    assert check_integer("n", 0, minimum=0) == 0


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(2), Fraction(1, 3), 5e-324])
def test_real_numbers_are_taken(value):
    found = check_real("h", value)
    assert type(found) is float
    assert found == float(value)


@pytest.mark.parametrize("value", [True, np.False_, "1", None, 1j, [1.0], np.ones(1)])
def test_other_types_are_no_real_numbers(value):
    with pytest.raises(TypeError, match=r"h=.* has type .*; expected a finite number > 0"):
        check_real("h", value)


@pytest.mark.parametrize("value", [0, -0.5, np.nan, np.inf, -np.inf, 10**400])
def test_real_numbers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"h=.* is out of range; expected a finite number > 0"):
        check_real("h", value)
    assert check_real("h", 0, strict=False) == 0
    assert check_real("h", 2.0, minimum=2.0, strict=False) == 2.0
    with pytest.raises(ValueError, match="expected a finite number > 2"):
        check_real("h", 2.0, minimum=2.0)


def test_other_checks():
    assert check_even("n", 4, "it is split") == 4
    with pytest.raises(ValueError, match=r"n=3 is odd; .* it is split\. Pass 4\."):
        check_even("n", 3, "it is split")
    assert check_choice("kind", "a", ("b", "a")) == "a"
    with pytest.raises(ValueError, match="kind='c' is not known; expected one of 'a', 'b'"):
        check_choice("kind", "c", ("b", "a"))
    with pytest.raises(TypeError, match="kind=1 has type int"):
        check_choice("kind", 1, ("b", "a"))
    assert check_flag("flag", np.True_) is True
    with pytest.raises(TypeError, match="flag=1 has type int; expected True or False"):
        check_flag("flag", 1)
    assert check_seed(0) == 0
    assert check_seed(2**32 - 1) == 2**32 - 1
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="random_state="):
            check_seed(seed)
    assert check_real_array("x", [True]) == [1.0]
    with pytest.raises(TypeError, match="holds booleans"):
        check_real_array("x", [True], allow_bool=False)
    with pytest.raises(ValueError, match="x of type list is not numeric"):
        check_real_array("x", [1j])
