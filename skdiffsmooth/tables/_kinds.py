"""Kinds of columns: what the values of a column mean, as a user declares it or `fit` detects it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar

from .._utils.validation import check_choice, check_real, wrong_type

# Seconds of the units in which dates may have been recorded.
SECONDS = {"D": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Kind:
    """The base class of all kinds of columns."""

    name: ClassVar[str]
    """The name of the kind in messages and in the `repr` of `TableColumns`."""

    def __repr__(self) -> str:
        """Return the call that makes this kind, without default arguments."""
        shown, needs_label = [], False
        parameters = fields(self)  # type: ignore[arg-type]
        # Positional parameters come first.
        for parameter in sorted(parameters, key=lambda parameter: bool(parameter.kw_only)):
            value = getattr(self, parameter.name)
            if not parameter.init or (value is parameter.default or value == parameter.default):
                needs_label = True
                continue
            label = f"{parameter.name}=" if needs_label or parameter.kw_only else ""
            shown.append(f"{label}{list(value) if parameter.name == 'levels' else value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class WithLevels(Kind):
    """The base class of kinds whose values are levels, from a list."""

    levels: tuple[Any, ...] | None = None

    is_ordered: ClassVar[bool]

    def __post_init__(self) -> None:
        if self.levels is not None:
            object.__setattr__(self, "levels", _levels(type(self).__name__, self.levels))


@dataclass(frozen=True, repr=False)
class Categorical(WithLevels):
    """Levels without an order, such as species or countries.

    Parameters
    ----------
    levels : sequence, default=None
        All levels that may occur: text, numbers or other hashable values. None takes the values of the
        training rows; of a categorical dtype, in the order of its categories.

    Raises
    ------
    TypeError, ValueError
        If `levels` is no sequence of different hashable values.
    """

    name = "categorical"
    is_ordered = False


@dataclass(frozen=True, repr=False)
class Ordinal(WithLevels):
    """Levels with an order and without distances, such as grades.

    Parameters
    ----------
    levels : sequence, default=None
        All levels that may occur, from the lowest to the highest. None takes the categories of an
        ordered categorical dtype, or the values of the training rows in increasing order if they are
        numbers.

    Raises
    ------
    TypeError, ValueError
        If `levels` is no sequence of different hashable values.
    """

    name = "ordinal"
    is_ordered = True


@dataclass(frozen=True, repr=False)
class Boolean(WithLevels):
    """True and false, or the numbers 1 and 0."""

    levels: tuple[Any, ...] | None = field(default=(False, True), init=False)

    name = "boolean"
    is_ordered = False


@dataclass(frozen=True, repr=False)
class Numerical(Kind):
    """The base class of kinds whose values are numbers; `Continuous` documents `atoms` and `unit`."""

    _: KW_ONLY
    atoms: Any = "auto"
    unit: Any = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", _atoms(self.atoms))
        if isinstance(self.unit, str):
            check_choice("unit", self.unit, ("auto",), hint="Or pass a number > 0, or None.")
        elif self.unit is not None:
            unit = check_real("unit", self.unit, hint="Pass None for exact values.")
            object.__setattr__(self, "unit", unit)
        low, high = self.bounds
        if self.atoms != "auto" and not all(low <= atom <= high for atom in self.atoms):
            raise ValueError(
                f"atoms={self.atoms!r} of a column of kind {self.name} has values outside its bounds, "
                f"{low:g} and {high:g}; expected atoms within them. Widen the bounds, or leave out the "
                "atom."
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value that the column may hold."""
        return -math.inf, math.inf

    # Whether values that are no atoms are strictly between the bounds.
    is_open: ClassVar[bool] = False


@dataclass(frozen=True, repr=False)
class Continuous(Numerical):
    """Real numbers without bounds.

    Parameters
    ----------
    atoms : tuple of float or "auto", default="auto"
        Values that many rows hold exactly, while the other values are continuous: zero incomes, the
        limit of an instrument. "auto" detects them; ``()`` means no atoms.
    unit : float, None or "auto", default="auto"
        Width to which the values were rounded, such as 0.1 for one decimal: all values that are no atom
        differ by multiples of it. "auto" detects it; None means that values were not rounded.

    Raises
    ------
    TypeError, ValueError
        If `atoms` are no finite numbers, or `unit` is no number above zero.
    """

    name = "continuous"


@dataclass(frozen=True, repr=False)
class Positive(Numerical):
    """Numbers above zero, such as incomes or masses; exact zeros are an atom.

    The density is estimated in a coordinate that is the logarithm at small values and linear at large
    ones, so that neither probability nor draws are below zero.

    Parameters
    ----------
    atoms : tuple of float or "auto", default="auto"
        See `Continuous`. Training rows with the value zero make it an atom, however few they are.
    unit : float, None or "auto", default="auto"
        See `Continuous`.

    Raises
    ------
    TypeError, ValueError
        If `atoms` are no finite numbers >= 0, or `unit` is no number above zero.
    """

    name = "positive"
    is_open = True

    @property
    def bounds(self) -> tuple[float, float]:
        """See `Numerical`."""
        return 0.0, math.inf


@dataclass(frozen=True, repr=False)
class Interval(Numerical):
    """Numbers between bounds, such as shares and percentages; values on a bound are atoms.

    Values are mapped by the logit, or with one bound by a logarithm, so that neither probability nor
    draws are outside the bounds.

    Parameters
    ----------
    low, high : float
        The bounds, in the units of the column; one of them may be infinite.
    atoms : tuple of float or "auto", default="auto"
        See `Continuous`. Training rows on a bound make it an atom, however few they are.
    unit : float, None or "auto", default="auto"
        See `Continuous`.

    Raises
    ------
    TypeError, ValueError
        If `low` is not below `high`, if `atoms` are not between them, or `unit` is no number above zero.
    """

    low: float
    high: float

    name = "interval"
    is_open = True

    def __post_init__(self) -> None:
        for name, no_bound in (("low", -math.inf), ("high", math.inf)):
            bound = getattr(self, name)
            if not (isinstance(bound, float) and bound == no_bound):
                hint = f"Pass {no_bound} for none."
                value = check_real(name, bound, minimum=-math.inf, hint=hint)
                object.__setattr__(self, name, value)
        if not self.low < self.high:
            raise ValueError(
                f"low={self.low!r} and high={self.high!r} bound no interval; expected low < high."
            )
        if math.isinf(self.low) and math.isinf(self.high):
            raise ValueError(
                "low=-inf and high=inf are no bounds; expected one or two. Pass Continuous()."
            )
        super().__post_init__()

    @property
    def bounds(self) -> tuple[float, float]:
        """See `Numerical`."""
        return self.low, self.high


@dataclass(frozen=True, repr=False)
class Periodic(Numerical):
    """Numbers on a circle, such as hours, months or angles; this kind is never detected.

    Values in X may be outside one period; draws are in ``[origin, origin + period)``.

    Parameters
    ----------
    period : float
        The length of the circle in the units of the column: 24 for hours.
    origin : float, default=0
        Lower end of the range of draws: -180 for longitudes.
    atoms : tuple of float or "auto", default="auto"
        See `Continuous`.
    unit : float, None or "auto", default="auto"
        See `Continuous`.

    Raises
    ------
    TypeError, ValueError
        If `period` or `unit` is no number above zero, or `origin` or `atoms` are no finite numbers.
    """

    period: float
    origin: float = 0.0

    name = "periodic"

    def __post_init__(self) -> None:
        super().__post_init__()
        hint = "It is in the units of the column, such as 24 for hours."
        object.__setattr__(self, "period", check_real("period", self.period, hint=hint))
        origin = check_real("origin", self.origin, minimum=-math.inf)
        object.__setattr__(self, "origin", origin)


@dataclass(frozen=True, repr=False)
class Integer(Numerical):
    """Counts and other multiples of one unit: whole numbers, unless `unit` is another width.

    The probability of a value is the mass of the density within half a unit of it.

    Parameters
    ----------
    low, high : float or None, default=None
        The smallest and the largest value that may occur; None is no bound.
    atoms : tuple of float or "auto", default="auto"
        See `Continuous`; the density of the other values is estimated without rows at an atom.
    unit : float or "auto", default="auto"
        See `Continuous`. "auto" is one, or the greatest common divisor of the differences.

    Raises
    ------
    TypeError, ValueError
        If `low` is not below `high`, if `atoms` are not between them, or `unit` is no number above zero.
    """

    low: float | None = None
    high: float | None = None

    name = "integer"

    def __post_init__(self) -> None:
        if self.unit is None:
            raise ValueError(
                "unit=None of an Integer column; expected a number > 0 or 'auto'. Declare it as "
                "Continuous(unit=None)."
            )
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                value = check_real(name, getattr(self, name), minimum=-math.inf)
                object.__setattr__(self, name, value)
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(
                f"low={self.low!r} and high={self.high!r} leave no two values; expected low < high."
            )
        super().__post_init__()

    @property
    def bounds(self) -> tuple[float, float]:
        """See `Numerical`."""
        low = -math.inf if self.low is None else self.low
        return low, math.inf if self.high is None else self.high


@dataclass(frozen=True, repr=False)
class Datetime(Kind):
    """Points in time. Their density is per day; days are counted from the earliest training date.

    Parameters
    ----------
    unit : {"D", "h", "min", "s", "ms", "us", "ns"} or "auto", default="auto"
        Precision of the recorded times, to which draws are rounded. "auto" is the coarsest of these
        units in which all training times are whole numbers.

    Raises
    ------
    TypeError, ValueError
        If `unit` is not one of these.
    """

    unit: str = "auto"

    name = "datetime"

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, ("auto", *SECONDS))


def _levels(kind: str, levels: Any) -> tuple[Any, ...]:
    """Return levels as a tuple of Python scalars, after checking them."""
    if isinstance(levels, str | bytes) or not isinstance(levels, Iterable):
        raise TypeError(
            f"{kind}({levels!r}) has levels of type {type(levels).__name__}; expected a "
            "sequence, such as ['low', 'high']."
        )
    # A set has no order that is the same in every run.
    if isinstance(levels, set | frozenset):
        raise TypeError(
            f"{kind} has levels in a set, which has no order; expected a list or a tuple."
        )
    checked = tuple(level.item() if hasattr(level, "item") else level for level in levels)
    try:
        n_different = len(set(checked))
    except TypeError as error:
        raise TypeError(
            f"{kind}: one of levels is not hashable ({error}); expected text, numbers or other hashable "
            "values."
        ) from error
    if any(level is None or level != level for level in checked):
        raise ValueError(
            f"{kind}({list(checked)!r}) has a missing value as a level in levels; expected values only. "
            "Missing cells are no level: leave them out."
        )
    if not checked or n_different < len(checked):
        raise ValueError(
            f"{kind}({list(checked)!r}) has {len(checked)} levels, of which {n_different} are "
            "different; expected at least one level, and none twice."
        )
    return checked


def _atoms(atoms: Any) -> Any:
    """Return atoms as an increasing tuple of floats, or "auto"."""
    if isinstance(atoms, str):
        return check_choice("atoms", atoms, ("auto",), hint="Or pass a tuple of numbers: (0,).")
    if not isinstance(atoms, Iterable):
        raise wrong_type("atoms", atoms, "'auto' or a tuple of numbers, such as (0,).")
    return tuple(sorted({check_real("atoms", atom, minimum=-math.inf) for atom in atoms}))
