"""Posterior moments in float32, computed in float64 where rounding errors would be too large."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch


class FloatPromotion(ABC):
    """A denoiser in float32 with a copy in float64, used where noise is too small for float32."""

    def __init__(self, data: torch.Tensor) -> None:
        self._dtype = data.dtype
        self._can_promote = data.dtype == torch.float32
        self._copy: Self | None = None

    @abstractmethod
    def _is_exact(self, v: float, max_norm: float) -> bool:
        """Return whether exponents are accurate enough in this dtype, for nodes of this length."""

    @abstractmethod
    def _copied_to_float64(self) -> Self:
        """Return the denoiser with its data in float64."""

    @property
    def _in_float64(self) -> Self:
        # Not a cached_property: before Python 3.12 that holds a lock of the whole class, and making a
        # copy waits for the other shards, which may be threads.
        if self._copy is None:
            self._copy = self._copied_to_float64()
        return self._copy

    def _needs_float64(self, v: float, max_norm: float) -> bool:
        return self._can_promote and not self._is_exact(v, max_norm)

    def precision_at(self, v: float) -> torch.dtype:
        """See `Denoiser`."""
        return torch.float64 if self._needs_float64(v, 0.0) else self._dtype
