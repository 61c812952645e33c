"""Distributions on the unit interval, which shapes map to distributions on manifolds.

The variable u is the fraction of a shape's length, area or volume before a point, along the first
coordinate of the shape. Densities are relative to the uniform distribution, so their mean is one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .._utils.cached import cached_property
from .._utils.validation import check_choice, check_real, check_real_array, wrong_type
from ..manifolds._cumulative import Cumulative


@runtime_checkable
class Distribution(Protocol):
    """The methods that a distribution on a shape needs; any object with both is accepted.

    The distribution acts along the first coordinate of a shape, measured by the fraction u of the
    length, area or volume before a point; the shape is uniform in its other coordinates.
    """

    def density(self, u: np.ndarray) -> np.ndarray:
        """Return the density (n,), of mean 1 over [0, 1], at fractions u (n,) of the volume."""
        ...

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Return the fractions u (n,) of the volume before which there are fractions p (n,) of rows."""
        ...


@dataclass(frozen=True)
class Uniform:
    """The uniform distribution in length, area or volume.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.datasets import Uniform
    >>> Uniform().quantile(np.array([0.25]))
    array([0.25])
    """

    def density(self, u: np.ndarray) -> np.ndarray:
        """Return ones; see `Distribution`."""
        return np.ones_like(u)

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Return p itself; see `Distribution`."""
        return p


@dataclass(frozen=True)
class PiecewiseConstant:
    """A density that is constant on each of several pieces of equal length, area or volume.

    Parameters
    ----------
    densities : sequence of float, default=(3.0, 1.0)
        Values >= 0, in any unit: only ratios matter. By default three quarters of the rows are in the
        first half of the shape. At a jump the density is the later value.

    Raises
    ------
    ValueError
        If they are not a sequence of finite numbers >= 0, or all of them are zero.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.datasets import PiecewiseConstant
    >>> distribution = PiecewiseConstant((3, 1))
    >>> distribution.density(np.array([0.2, 0.7]))
    array([1.5, 0.5])
    >>> distribution.quantile(np.array([0.75, 0.875]))
    array([0.5 , 0.75])
    """

    densities: tuple[float, ...] = (3.0, 1.0)

    def __post_init__(self) -> None:
        values = check_real_array("densities", self.densities)
        if values.ndim != 1 or not np.all(np.isfinite(values) & (values >= 0)) or not values.sum():
            raise ValueError(
                f"densities={self.densities!r} is not a density; expected a sequence of finite numbers "
                ">= 0, not all zero, one for each piece. Pass (3, 1), for example."
            )
        object.__setattr__(self, "densities", tuple(values.tolist()))

    @property
    def _values(self) -> np.ndarray:
        return np.array(self.densities) / np.mean(self.densities)

    def density(self, u: np.ndarray) -> np.ndarray:
        """See `Distribution`."""
        values = self._values
        return values[np.clip((u * len(values)).astype(int), 0, len(values) - 1)]

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """See `Distribution`."""
        values = self._values
        before = np.concatenate([[0.0], np.cumsum(values)]) / len(values)
        # No row lies in a piece of zero density, not even at its ends.
        kept = np.flatnonzero(values)
        piece = kept[np.clip(np.searchsorted(before[kept], p, side="right") - 1, 0, None)]
        u = (piece + (p - before[piece]) * len(values) / values[piece]) / len(values)
        return np.clip(u, piece / len(values), (piece + 1) / len(values))


@dataclass(frozen=True)
class VonMises:
    """The von Mises distribution on a closed curve, with density ~ exp(c cos(2 pi s / L)).

    s is the arc length from the start of the curve, where the density is largest, and L the length of
    the whole curve; on a circle s / radius is the angle.

    Parameters
    ----------
    concentration : float, default=2.0
        c >= 0; 0 is the uniform distribution, and for large c the standard deviation of 2 pi s / L is
        c^(-1/2).

    Raises
    ------
    TypeError
        If the concentration is not a number.
    ValueError
        If it is negative, or above 1e8, where all rows are in one point up to 1e-4 radians.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.datasets import VonMises
    >>> VonMises(0.0).quantile(np.array([0.3])).round(12)
    array([0.3])
    >>> VonMises(1.0).density(np.array([0.0, 0.5])).round(4)
    array([2.147 , 0.2906])
    """

    concentration: float = 2.0

    def __post_init__(self) -> None:
        hint = "The standard deviation in radians is concentration**-0.5."
        check_real("concentration", self.concentration, strict=False, maximum=1e8, hint=hint)

    @cached_property
    def _mass(self) -> Cumulative:
        # Cells become smaller towards u = 0, where a narrow distribution has its mass and floating-point
        # numbers are dense.
        near = 2.0 ** -np.arange(1, 16)
        return Cumulative(self._unnormalised, np.concatenate([-near, [0.0], near[::-1]]))

    def _unnormalised(self, u: np.ndarray) -> np.ndarray:
        # cos - 1 is computed as a square, which does not lose digits where the distribution is narrow.
        return np.exp(-2 * self.concentration * np.sin(np.pi * u) ** 2)

    def density(self, u: np.ndarray) -> np.ndarray:
        """See `Distribution`."""
        return self._unnormalised(u) / self._mass.total

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """See `Distribution`."""
        total = self._mass.total
        is_in_second_half = p >= 0.5
        shift = np.where(is_in_second_half, -0.5, 0.5)
        return self._mass.inverse((p + shift) * total) + is_in_second_half


NAMED = {"uniform": Uniform, "discontinuous": PiecewiseConstant, "von-mises": VonMises}


def resolve_distribution(
    distribution: Any, charts: Collection[str], closed: bool
) -> tuple[str, Distribution]:
    """Return the name of the chart for a distribution, and the distribution of its coordinate u.

    `charts` are the names of the charts of the shape, of which "uniform" preserves volume; `closed` is
    whether the shape is a closed curve.
    """
    names = {*charts, "uniform", "discontinuous"} | ({"von-mises"} if closed else set())
    hint = "Or pass a distribution, such as skdiffsmooth.datasets.PiecewiseConstant((3, 1))."
    if isinstance(distribution, str):
        check_choice("distribution", distribution, names, hint=hint)
        if distribution in charts:
            return distribution, Uniform()
        return "uniform", NAMED[distribution]()
    if not isinstance(distribution, Distribution) or isinstance(distribution, type):
        raise wrong_type(
            "distribution", distribution, f"one of {', '.join(map(repr, sorted(names)))}. {hint}"
        )
    if isinstance(distribution, VonMises) and not closed:
        raise ValueError(
            f"distribution={distribution!r} needs a closed curve, which this shape is not; expected one "
            f"of {', '.join(map(repr, sorted(names)))}."
        )
    return "uniform", distribution
