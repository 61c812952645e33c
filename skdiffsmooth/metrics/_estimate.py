"""A number with what is known about its error."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate"]


@dataclass(frozen=True)
class Estimate:
    """An average over rows, with its sampling error.

    Parameters
    ----------
    value : float
        The estimate.
    standard_error : float
        Of the value over draws of the rows; 0 on a grid, which is not drawn.
    effective_sample_size : float
        (sum t)^2 / sum t^2 of the terms t >= 0 that are summed: as many equal terms would vary as
        much. Where it is some tens or less, a few rows decide, more of the kind may not have been
        drawn at all, and the standard error is too small.
    """

    value: float
    standard_error: float
    effective_sample_size: float

    def __float__(self) -> float:
        return self.value
