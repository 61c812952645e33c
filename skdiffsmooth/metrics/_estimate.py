"""An average over rows, with its sampling error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """An average over rows, with its sampling error.

    Parameters
    ----------
    value : float
        The estimate.
    standard_error : float
        Standard deviation of the value over draws of the rows.
    effective_sample_size : float
        (sum t)^2 / sum t^2 of the terms t >= 0 that are averaged: a mean of so many equal terms has
        the same variance. Where it is some tens or less, few rows decide, other such rows may not
        have been drawn at all, and the standard error is too small.
    """

    value: float
    standard_error: float
    effective_sample_size: float

    def __float__(self) -> float:
        return self.value
