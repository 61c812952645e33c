"""Checks of parameters and data; messages give the parameter, its value and what is expected.

A wrong type, such as a boolean for a number, raises TypeError, and a value out of range, or NaN,
ValueError. The text `hint` is appended to messages.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Collection
from typing import Any

import numpy as np

# Sums over columns and rows of squares of larger values may overflow.
LARGEST = 1e150
# Differences and sums of larger values may overflow.
LARGEST_VALUE = 2.0**1000
# Values that most parameters random_state accept besides integers, for messages.
_OTHER_SOURCES = ", a numpy RandomState, or None"


def wrong_type(name: str, value: Any, expected: str) -> TypeError:
    """Return the error about a parameter of a wrong type; `expected` ends the message."""
    return TypeError(f"{name}={value!r:.100} has type {type(value).__name__}; expected {expected}")


def check_real(
    name: str,
    value: Any,
    *,
    minimum: float = 0.0,
    strict: bool = True,
    below: float = math.inf,
    maximum: float = math.inf,
    hint: str = "",
) -> float:
    """Return `value` as a finite float, at most `maximum`, below `below`, and above `minimum`.

    It may be at `minimum` unless `strict`.
    """
    expected = f"a finite number {'>' if strict else '>='} {minimum:g}"
    if below < math.inf:
        expected += f" and < {below:g}"
    if maximum < math.inf:
        expected += f" and <= {maximum:.3g}"
    hint = f" {hint}" if hint else ""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise wrong_type(name, value, f"{expected}.{hint}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        number = np.inf
    is_low = number < minimum or (strict and number == minimum)
    if not np.isfinite(number) or is_low or number >= below or number > maximum:
        raise ValueError(f"{name}={value!r} is out of range; expected {expected}.{hint}")
    return number


def check_memory_limit(value: Any) -> float:
    """Return the parameter `memory_limit`, in MiB, as a float above zero."""
    return check_real("memory_limit", value, hint="It is in MiB.")


def check_even(name: str, value: Any, reason: str) -> int:
    """Return `value` as an even int >= 2; `reason` says in the message why it must be even."""
    number = check_integer(name, value, minimum=2)
    if number % 2:
        raise ValueError(
            f"{name}={number} is odd; expected an even number, since {reason}. Pass {number + 1}."
        )
    return number


def check_integer(name: str, value: Any, *, minimum: int = 1, hint: str = "") -> int:
    """Return `value` as an int, from `minimum` to the largest index or size."""
    hint = f" {hint}" if hint else ""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise wrong_type(name, value, f"an integer >= {minimum}.{hint}")
    if value < minimum:
        raise ValueError(f"{name}={value!r} is too small; expected an integer >= {minimum}.{hint}")
    number = int(value)
    if number > sys.maxsize:
        raise ValueError(
            f"{name}={value!r} is too large; expected an integer <= {sys.maxsize}.{hint}"
        )
    return number


def check_count(name: str, value: Any) -> int | None:
    """Return `value` as an int >= 1, or None for "auto"."""
    if isinstance(value, str):
        check_choice(name, value, ("auto",), hint="Or pass an integer >= 1.")
        return None
    return check_integer(name, value)


def check_choice(name: str, value: Any, choices: Collection[str], *, hint: str = "") -> str:
    """Return `value`, one of the strings `choices`."""
    known = ", ".join(repr(choice) for choice in sorted(choices))
    hint = f" {hint}" if hint else ""
    if not isinstance(value, str):
        raise wrong_type(name, value, f"one of {known}.{hint}")
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not known; expected one of {known}.{hint}")
    return value


def check_detached(name: str, value: Any) -> None:
    """Raise an error if `value` is a tensor that requires gradients: numpy cannot convert it."""
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name} is a tensor that requires gradients, but gradients cannot be computed through "
            f"this call; expected an array, or a tensor without gradients. Pass {name}.detach()."
        )


def check_real_array(name: str, value: Any, *, allow_bool: bool = True) -> np.ndarray:
    """Return an array-like of any shape, finite or not, as float64; booleans only if `allow_bool`."""
    check_detached(name, value)
    try:
        array = np.asarray(value)
        if np.iscomplexobj(array):
            raise ValueError("complex numbers have no order")
        as_float = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} of type {type(value).__name__} is not numeric ({error}); expected an array of "
            "real numbers."
        ) from error
    if array.dtype == bool and not allow_bool:
        raise TypeError(
            f"{name}={value!r:.100} holds booleans; expected real numbers. Pass numbers such as 0.5."
        )
    return as_float


def check_finite(name: str, values: np.ndarray, hint: str) -> None:
    """Raise ValueError if a value of an array is NaN or infinite."""
    n_wrong = values.size - np.count_nonzero(np.isfinite(values))
    if n_wrong:
        raise ValueError(
            f"{name} holds {n_wrong} values that are NaN or infinite; expected finite ones. {hint}"
        )


def check_draw(n_samples: Any, random_state: Any) -> tuple[int, np.random.RandomState]:
    """Return the number of draws, after checking it, and the random generator."""
    return check_integer("n_samples", n_samples, minimum=1), check_generator(random_state)


def check_generator(random_state: Any) -> np.random.RandomState:
    """Return the generator for `random_state`, an int, RandomState or None; TypeError or ValueError."""
    if random_state is None:
        # Not numpy's global state, which scikit-learn would use: drawing must not change it.
        return np.random.RandomState()
    if isinstance(random_state, np.random.RandomState):
        return random_state
    return np.random.RandomState(check_seed(random_state, others=_OTHER_SOURCES))


def check_size(name: str, values: np.ndarray, unit: str = "", largest: float = LARGEST) -> None:
    """Raise ValueError if a value is above `largest`, since squares or differences may overflow.

    `unit` says in what values are measured, for the message.
    """
    size = max(values.max(initial=0.0), -values.min(initial=0.0))
    if size > largest:
        what = "squares would overflow" if largest == LARGEST else "differences would overflow"
        raise ValueError(
            f"{name} holds values up to {size:.3g}{unit} in size; expected none above {largest:.3g}, "
            f"since their {what}. Drop those rows, or use larger units."
        )


def check_extent(values: np.ndarray, unit: str) -> None:
    """Raise ValueError if squares of distances of rows (n, d) would overflow or underflow."""
    extent = float(np.ptp(values, axis=0).max(initial=0.0))
    if extent and not 1 / LARGEST <= extent <= LARGEST:
        raise ValueError(
            f"X has a range of {extent:.3g} in units of {unit}; expected one from {1 / LARGEST:g} to "
            f"{LARGEST:g}, since squares of other values underflow or overflow. Multiply X and all "
            "scales by a power of two, or leave metric, bandwidth and sigma at 'auto'."
        )


def check_ratio(name: str, scale: float, unit: float) -> None:
    """Raise ValueError if the square of a scale, in a unit of X, leaves the floating-point range."""
    if not 1 / LARGEST <= scale <= LARGEST:
        raise ValueError(
            f"{name}={unit * scale:g} is out of range; expected a number from {unit / LARGEST:g} to "
            f"{unit * LARGEST:g} in units of the metric, since the square of its ratio to the range of "
            "X leaves the floating-point range. Pass one nearer to that range, or scale the columns."
        )


def check_seed(random_state: Any, name: str = "random_state", *, others: str = "") -> int:
    """Return an integer seed of 32 bits; `others` are other allowed values, for the message."""
    hint = f"Pass an integer from 0 to 2**32 - 1{others}."
    seed = check_integer(name, random_state, minimum=0, hint=hint)
    if seed >= 2**32:
        raise ValueError(f"{name}={random_state!r} does not fit in 32 bits. {hint}")
    return seed


def fixed_seed(random_state: Any) -> int:
    """Return the integer kept as a seed: 0 for None, and a draw from a RandomState."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if random_state is None:
        return 0
    return check_seed(random_state, others=_OTHER_SOURCES)


def check_flag(name: str, value: Any) -> bool:
    """Return `value` as a bool, after checking that it is a boolean."""
    if not isinstance(value, bool | np.bool_):
        raise wrong_type(name, value, "True or False.")
    return bool(value)


def check_bandwidth(
    value: Any, units: str, *, names: Collection[str] = (), strict: bool = True
) -> Any:
    """Return a bandwidth as a float > 0 (>= 0 unless `strict`), in `units`, or one of `names`."""
    if isinstance(value, str) and names:
        hint = f"Or pass a number > 0, in units of {units}."
        return check_choice("bandwidth", value, names, hint=hint)
    return check_real("bandwidth", value, strict=strict, hint=f"It is in units of {units}.")
