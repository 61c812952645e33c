"""Powers of two by which numbers are divided, without rounding, so that their squares are finite."""

from __future__ import annotations

import math

# Sizes up to a million either way are left as they are; in float32 their fourth powers are finite.
_ORDINARY = 20


def unit_for(size: float) -> float:
    """Return the largest power of two up to a size >= 0, or 1 for ordinary sizes and for 0."""
    exponent = math.frexp(size)[1] - 1
    return 1.0 if abs(exponent) <= _ORDINARY else math.ldexp(1.0, exponent)
