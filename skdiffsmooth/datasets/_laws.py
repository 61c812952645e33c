"""Laws on the unit interval, from which the laws on shapes are made: densities and quantiles."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .._utils.validation import check_choice, check_real, check_real_array
from ..manifolds._cumulative import Cumulative

__all__ = ["Law", "PiecewiseConstant", "Uniform", "VonMises", "resolve_law"]


@runtime_checkable
class Law(Protocol):
    """What a law promises: a share of the shape's volume goes in, a density comes out.

    A law acts along the first coordinate of a shape, measured by the share of the length, area or
    volume that lies before a point, from 0 to 1; the other coordinates are uniform.
    """

    def density(self, share: np.ndarray) -> np.ndarray:
        """Return the density relative to the uniform law, shape (n,); its mean is 1."""
        ...

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Return the share below which a part p of the rows lies, shape (n,)."""
        ...


@dataclass(frozen=True)
class Uniform:
    """The same density everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.datasets import Uniform
    >>> Uniform().quantile(np.array([0.25]))
    array([0.25])
    """

    def density(self, share: np.ndarray) -> np.ndarray:
        """Return ones.

        Parameters
        ----------
        share : ndarray of shape (n,)
            From 0 to 1.

        Returns
        -------
        ndarray of shape (n,)
        """
        return np.ones_like(share)

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Return the share below which a part p of the rows lies.

        Parameters
        ----------
        p : ndarray of shape (n,)
            From 0 to 1.

        Returns
        -------
        ndarray of shape (n,)
        """
        return p


@dataclass(frozen=True)
class PiecewiseConstant:
    """A density that jumps: one value on each of several pieces of equal length, area or volume.

    Parameters
    ----------
    densities : sequence of float, default=(3.0, 1.0)
        Values >= 0, in any unit: only ratios matter. By default three quarters of the rows are in the
        first half of the shape.

    Raises
    ------
    ValueError
        If they are not a sequence of finite numbers >= 0, or all of them are zero.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.datasets import PiecewiseConstant
    >>> law = PiecewiseConstant((3, 1))
    >>> law.density(np.array([0.2, 0.7]))
    array([1.5, 0.5])
    >>> law.quantile(np.array([0.75, 0.875]))
    array([0.5 , 0.75])
    """

    densities: tuple[float, ...] = (3.0, 1.0)

    def __post_init__(self) -> None:
        values = check_real_array("densities", self.densities)
        if values.ndim != 1 or not np.all(np.isfinite(values) & (values >= 0)) or not values.sum():
            raise ValueError(
                f"densities={self.densities!r} is no law; expected a sequence of finite numbers >= 0, "
                "not all zero, one for each piece. Pass (3, 1), for example."
            )
        object.__setattr__(self, "densities", tuple(values.tolist()))

    @property
    def _values(self) -> np.ndarray:
        return np.array(self.densities) / np.mean(self.densities)

    def density(self, share: np.ndarray) -> np.ndarray:
        """Return the density relative to the uniform law.

        Parameters
        ----------
        share : ndarray of shape (n,)
            From 0 to 1; at a jump the value behind it counts.

        Returns
        -------
        ndarray of shape (n,)
        """
        values = self._values
        return values[np.clip((share * len(values)).astype(int), 0, len(values) - 1)]

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Return the share below which a part p of the rows lies.

        Parameters
        ----------
        p : ndarray of shape (n,)
            From 0 to 1.

        Returns
        -------
        ndarray of shape (n,)
        """
        values = self._values
        before = np.concatenate([[0.0], np.cumsum(values)]) / len(values)
        # Pieces without mass hold no row, not even at their ends.
        kept = np.flatnonzero(values)
        piece = kept[np.clip(np.searchsorted(before[kept], p, side="right") - 1, 0, None)]
        share = (piece + (p - before[piece]) * len(values) / values[piece]) / len(values)
        return np.clip(share, piece / len(values), (piece + 1) / len(values))


@dataclass(frozen=True)
class VonMises:
    """The von Mises law on a closed curve: density proportional to exp(c cos(2 pi s / L)).

    s is the arc length from the start of the curve, where the density is largest, and L the length of
    the whole curve; on a circle s / radius is the angle.

    Parameters
    ----------
    concentration : float, default=2.0
        c >= 0; 0 is the uniform law, and for large c the standard deviation of 2 pi s / L is
        c^(-1/2).

    Raises
    ------
    TypeError
        If the concentration is not a number.
    ValueError
        If it is negative, or above 1e8, where the law is a point to all purposes.

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
        value = check_real("concentration", self.concentration, strict=False)
        if value > 1e8:
            raise ValueError(
                f"concentration={self.concentration!r} is too large; expected at most 1e8. Its "
                "inverse root is the spread in radians."
            )

    @cached_property
    def _mass(self) -> Cumulative:
        # About zero, where numbers are finest and the mass is, in cells that see it however narrow.
        near = 2.0 ** -np.arange(1, 16)
        return Cumulative(self._unnormalised, np.concatenate([-near, [0.0], near[::-1]]))

    def _unnormalised(self, share: np.ndarray) -> np.ndarray:
        # cos - 1 as a square does not cancel where the law is narrow.
        return np.exp(-2 * self.concentration * np.sin(np.pi * share) ** 2)

    def density(self, share: np.ndarray) -> np.ndarray:
        """Return the density relative to the uniform law.

        Parameters
        ----------
        share : ndarray of shape (n,)
            From 0 to 1.

        Returns
        -------
        ndarray of shape (n,)
        """
        return self._unnormalised(share) / self._mass.total

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Return the share below which a part p of the rows lies.

        Parameters
        ----------
        p : ndarray of shape (n,)
            From 0 to 1.

        Returns
        -------
        ndarray of shape (n,)
        """
        total = self._mass.total
        behind = p >= 0.5
        return self._mass.inverse((p + np.where(behind, -0.5, 0.5)) * total) + behind


NAMED = {"uniform": Uniform, "discontinuous": PiecewiseConstant, "von-mises": VonMises}


def resolve_law(law: Any, charts: Collection[str], closed: bool) -> tuple[str, Law]:
    """Return the chart that a law needs, and the law on the unit interval.

    Parameters
    ----------
    law : str or Law
        What the user passed.
    charts : collection of str
        Names of the charts of the shape; "uniform" is the one that preserves volume.
    closed : bool
        Whether the shape is a closed curve.

    Returns
    -------
    chart : str
    law : Law

    Raises
    ------
    TypeError
        If it is neither a name nor a law.
    ValueError
        If it is not known, or needs a closed curve.
    """
    names = {*charts, "uniform", "discontinuous"} | ({"von-mises"} if closed else set())
    hint = "Or pass a law, such as skdiffsmooth.datasets.PiecewiseConstant((3, 1))."
    if isinstance(law, str):
        check_choice("law", law, names, hint=hint)
        return (law, Uniform()) if law in charts else ("uniform", NAMED[law]())
    if not isinstance(law, Law) or isinstance(law, type):
        raise TypeError(
            f"law={law!r} has type {type(law).__name__}; expected one of "
            f"{', '.join(map(repr, sorted(names)))}. {hint}"
        )
    if isinstance(law, VonMises) and not closed:
        raise ValueError(
            f"law={law!r} needs a closed curve, which this shape is not; expected one of "
            f"{', '.join(map(repr, sorted(names)))}."
        )
    return "uniform", law
