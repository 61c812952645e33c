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
        (sum t)^2 / sum t^2 of the terms t >= 0 that are averaged: the number of equal terms whose mean
        has the same variance. If it is some tens or less, the value depends on few rows; other rows
        with large terms may be missing in the sample, and the standard error is too small.
    """

    value: float
    standard_error: float
    effective_sample_size: float

    def __float__(self) -> float:
        return self.value
