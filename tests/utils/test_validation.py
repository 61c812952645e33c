"""Checks of single parameters: which values are taken, and as what."""

import re
import sys
from fractions import Fraction

import numpy as np
import pytest

from skdiffsmooth._utils.validation import (
    check_bandwidth,
    check_choice,
    check_count,
    check_detached,
    check_draw,
    check_even,
    check_finite,
    check_flag,
    check_generator,
    check_integer,
    check_memory_limit,
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


@pytest.mark.parametrize(
    ("options", "inside", "outside", "expected"),
    [
        ({"below": 2.0}, [1.0, 1.999], [2.0, 3.0, 0.0], "a finite number > 0 and < 2. "),
        ({"maximum": 2.0}, [1.0, 2.0], [2.001], "a finite number > 0 and <= 2. "),
        (
            {"minimum": -1, "strict": False, "below": 1, "maximum": 0.5},
            [-1, 0.5],
            [-1.001, 0.75, 1],
            "a finite number >= -1 and < 1 and <= 0.5. ",
        ),
    ],
)
def test_ranges_of_real_numbers(options, inside, outside, expected):
    for value in inside:
        assert check_real("h", value, **options) == value
    for value in outside:
        with pytest.raises(ValueError, match=re.escape(f"out of range; expected {expected}Hint.")):
            check_real("h", value, hint="Hint.", **options)
    with pytest.raises(TypeError, match=re.escape(f"expected {expected}Hint.")):
        check_real("h", "1", hint="Hint.", **options)


def test_counts_and_memory():
    assert check_count("n", "auto") is None
    assert check_count("n", 1) == 1
    with pytest.raises(ValueError, match=r"n='all' .*expected one of 'auto'\. Or pass an integer"):
        check_count("n", "all")
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="is too small"):
            check_count("n", wrong)
    assert check_memory_limit(1e-9) == 1e-9
    with pytest.raises(ValueError, match=r"memory_limit=0 .*> 0\. It is in MiB"):
        check_memory_limit(0)
    assert check_even("n", 2, "of halves") == 2
    with pytest.raises(ValueError, match="n=1 is too small; expected an integer >= 2"):
        check_even("n", 1, "of halves")


def test_bandwidths():
    assert check_bandwidth("loo", "X", names=("loo", "scott")) == "loo"
    assert check_bandwidth(2, "X", names=("loo",)) == 2.0
    assert check_bandwidth(0, "X", strict=False) == 0
    with pytest.raises(
        ValueError, match=r"one of 'loo', 'scott'\. Or pass a number > 0, in units of X"
    ):
        check_bandwidth("lo", "X", names=("scott", "loo"))
    with pytest.raises(
        TypeError, match=r"bandwidth='loo' has type str.* > 0\. It is in units of X"
    ):
        check_bandwidth("loo", "X")
    for value, strict in ((0, True), (-1, False)):
        with pytest.raises(ValueError, match=r"bandwidth=.* out of range"):
            check_bandwidth(value, "X", strict=strict)


def test_generators_and_draws():
    rng = np.random.RandomState(0)
    assert check_generator(rng) is rng
    assert check_generator(3).randint(2**31) == np.random.RandomState(3).randint(2**31)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (the state that must not change)
    assert len({check_generator(None).randint(2**31) for _ in range(3)}) == 3
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    n, found = check_draw(2, rng)
    assert (n, found) == (2, rng)
    with pytest.raises(ValueError, match="n_samples=0 is too small"):
        check_draw(0, rng)
    with pytest.raises(
        TypeError, match=r"Pass an integer from 0 to 2\*\*32 - 1, a numpy RandomState"
    ):
        check_generator("seed")


def test_arrays_are_checked():
    class Tensor:
        requires_grad = True

    with pytest.raises(TypeError, match=r"y is a tensor that requires gradients.*y\.detach\(\)"):
        check_detached("y", Tensor())
    Tensor.requires_grad = "yes"  # no tensor of torch
    check_detached("y", Tensor())
    check_detached("y", [1.0])
    check_finite("y", np.array([1.0]), "")
    with pytest.raises(ValueError, match=r"y holds 2 values that are NaN or infinite.* Drop them"):
        check_finite("y", np.array([[1.0, np.nan], [np.inf, 2.0]]), "Drop them.")
    given = np.array([1.0])
    assert check_real_array("y", given) is not given
    for wrong in (["a"], [[1], [1, 2]], [{}]):
        with pytest.raises((TypeError, ValueError), match="y"):
            check_real_array("y", wrong)
