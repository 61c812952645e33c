"""Checks of parameters and data that name the culprit, the value, what is expected and the next step."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Collection
from typing import Any

import numpy as np

__all__ = [
    "LARGEST",
    "check_bandwidth",
    "check_choice",
    "check_detached",
    "check_draw",
    "check_generator",
    "check_integer",
    "check_real",
    "check_real_array",
    "check_seed",
    "check_size",
    "fixed_seed",
]

# Squares of larger coordinates, summed over columns and rows, may not be numbers.
LARGEST = 1e150
# What most parameters of the name random_state take beside integers.
_OTHER_SOURCES = ", a numpy RandomState, or None"


def check_real(
    name: str, value: Any, *, minimum: float = 0.0, strict: bool = True, hint: str = ""
) -> float:
    """Return `value` as a float after checking that it is a finite number above `minimum`.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    value : object
        What the user passed.
    minimum : float, default=0.0
        The bound below.
    strict : bool, default=True
        Whether the bound itself is excluded.
    hint : str, default=""
        The next step, appended to the message.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If `value` is not a real number (booleans and strings are not).
    ValueError
        If `value` is NaN, infinite or below the bound.
    """
    expected = f"a finite number {'>' if strict else '>='} {minimum:g}"
    hint = f" {hint}" if hint else ""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name}={value!r} has type {type(value).__name__}; expected {expected}.{hint}"
        )
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        number = np.inf
    if not np.isfinite(number) or number < minimum or (strict and number == minimum):
        raise ValueError(f"{name}={value!r} is out of range; expected {expected}.{hint}")
    return number


def check_integer(
    name: str, value: Any, *, minimum: int = 1, maximum: int = sys.maxsize, hint: str = ""
) -> int:
    """Return `value` as an int after checking its type and its bounds.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    value : object
        What the user passed.
    minimum : int, default=1
        The smallest value allowed.
    maximum : int, default=sys.maxsize
        The largest value allowed; what is larger is no index, count or size on this machine.
    hint : str, default=""
        The next step, appended to the message.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If `value` is not an integer (booleans and floats are not).
    ValueError
        If `value` is below `minimum` or above `maximum`.
    """
    hint = f" {hint}" if hint else ""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"{name}={value!r} has type {type(value).__name__}; "
            f"expected an integer >= {minimum}.{hint}"
        )
    if value < minimum:
        raise ValueError(f"{name}={value!r} is too small; expected an integer >= {minimum}.{hint}")
    number = int(value)
    if number > maximum:
        raise ValueError(f"{name}={value!r} is too large; expected an integer <= {maximum}.{hint}")
    return number


def check_choice(name: str, value: Any, choices: Collection[str], *, hint: str = "") -> str:
    """Return `value` after checking that it is one of `choices`.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    value : object
        What the user passed.
    choices : collection of str
        The names that are known.
    hint : str, default=""
        The next step, appended to the message.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If `value` is not a string.
    ValueError
        If `value` is not among the choices.
    """
    known = ", ".join(repr(choice) for choice in sorted(choices))
    hint = f" {hint}" if hint else ""
    if not isinstance(value, str):
        raise TypeError(
            f"{name}={value!r} has type {type(value).__name__}; expected one of {known}.{hint}"
        )
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not known; expected one of {known}.{hint}")
    return value


def check_detached(name: str, value: Any) -> None:
    """Raise if `value` is a torch tensor that requires gradients, which numpy cannot convert."""
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name} is a tensor that requires gradients, which are lost here; expected an array, or "
            f"a tensor without. Pass {name}.detach()."
        )


def check_real_array(name: str, value: Any, *, allow_bool: bool = True) -> np.ndarray:
    """Return an array-like as a float64 array of any shape, finite or not.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    value : array-like
        What the user passed.
    allow_bool : bool, default=True
        Whether booleans are taken as 0 and 1.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If it is a tensor that requires gradients, or holds booleans where these are not allowed.
    ValueError
        If it does not hold real numbers, or rows of different lengths.
    """
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


def check_draw(n_samples: Any, random_state: Any) -> tuple[int, np.random.RandomState]:
    """Return the number of draws and their source of randomness.

    Parameters
    ----------
    n_samples : int
        How many rows are wanted.
    random_state : int, RandomState or None
        None makes a fresh source.

    Returns
    -------
    n_samples : int
    generator : RandomState

    Raises
    ------
    TypeError, ValueError
        If `n_samples` is not a positive integer or `random_state` is not a seed.
    """
    return check_integer("n_samples", n_samples, minimum=1), check_generator(random_state)


def check_generator(random_state: Any) -> np.random.RandomState:
    """Return a source of randomness.

    Parameters
    ----------
    random_state : int, RandomState or None
        None makes a fresh source.

    Returns
    -------
    RandomState

    Raises
    ------
    TypeError, ValueError
        If it is not a seed.
    """
    if random_state is None:
        # Not numpy's global state, which scikit-learn would take: drawing must not disturb it.
        return np.random.RandomState()
    if isinstance(random_state, np.random.RandomState):
        return random_state
    return np.random.RandomState(check_seed(random_state, others=_OTHER_SOURCES))


def check_size(name: str, values: np.ndarray) -> None:
    """Raise unless squares of the values, summed over columns and rows, are finite.

    Parameters
    ----------
    name : str
        What the user passed, for the message.
    values : ndarray
        Finite.

    Raises
    ------
    ValueError
        If a value is above 1e150 in size.
    """
    largest = max(values.max(initial=0.0), -values.min(initial=0.0))
    if largest > LARGEST:
        raise ValueError(
            f"{name} holds values up to {largest:.3g} in size; expected none above {LARGEST:g}, for "
            "their squares to be finite. Leave those out, or use larger units."
        )


def check_seed(random_state: Any, name: str = "random_state", *, others: str = "") -> int:
    """Return a seed that was given as an integer.

    Parameters
    ----------
    random_state : int
        The seed.
    name : str, default="random_state"
        The parameter's name, for the message.
    others : str, default=""
        What else the parameter takes, for the message.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is negative or does not fit in 32 bits.
    """
    hint = f"Pass an integer from 0 to 2**32 - 1{others}."
    seed = check_integer(name, random_state, minimum=0, hint=hint)
    if seed >= 2**32:
        raise ValueError(f"{name}={random_state!r} does not fit in 32 bits. {hint}")
    return seed


def fixed_seed(random_state: Any) -> int:
    """Return the integer that seeds an estimator for good, from what it was given.

    Parameters
    ----------
    random_state : int, RandomState or None
        None is 0, so that two fits are alike; a RandomState is drawn from.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        If it is not a seed.
    """
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if random_state is None:
        return 0
    return check_seed(random_state, others=_OTHER_SOURCES)


def check_bandwidth(value: Any, units: str, *, names: Collection[str] = ()) -> Any:
    """Return a bandwidth as a positive float, or the name that stands for one.

    `units` says in what it is measured ("X", or "the metric"); `names` are those that are known.
    """
    if isinstance(value, str) and names:
        return check_choice("bandwidth", value, names, hint="Or pass a number > 0.")
    return check_real("bandwidth", value, hint=f"It is in units of {units}.")
