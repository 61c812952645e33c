"""Conversion of numpy arrays to torch tensors, and of tensors to float64 arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .validation import check_choice, wrong_type

_DTYPES = {"float64": torch.float64, "float32": torch.float32}
# Rounding of the largest length, in units of the smallest, that lowers log-densities by under 0.01 nats.
_MOST_ROUNDING = 0.02


def to_device(array: np.ndarray, device: torch.device, dtype: torch.dtype | None) -> torch.Tensor:
    """Return a copy of an array on a device, without waiting; None keeps the array's own `dtype`."""
    # Copied, since torch takes no read-only, negatively strided or big-endian arrays.
    native = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    if device.type == "cuda":
        # A copy is asynchronous only from pinned memory.
        native = native.pin_memory()
    return native.to(device=device, dtype=dtype, non_blocking=True)


@dataclass(frozen=True)
class Backend:
    """A device and a floating-point type."""

    device: torch.device  # Where tensors are
    dtype: torch.dtype  # What they are computed in

    @classmethod
    def from_params(cls, device: Any, dtype: Any) -> Backend:
        """Return the backend of the estimator parameters `device` and `dtype`.

        Raises TypeError if either is not a string; ValueError if the name is unknown, or the device
        is not present or has no float64.
        """
        resolved_dtype = _DTYPES[check_choice("dtype", dtype, _DTYPES)]
        if not isinstance(device, str):
            raise wrong_type("device", device, "a string such as 'cpu' or 'cuda'.")
        if re.fullmatch("cpu:0*[1-9][0-9]*", device):
            raise ValueError(
                f"device={device!r} does not exist, since torch counts all CPUs as one device. Use "
                "device='cpu', and n_jobs for several workers."
            )
        if device.split(":")[0] == "mps":
            raise ValueError(
                f"device={device!r} is not supported: Apple's GPUs cannot compute in float64, which is "
                "needed wherever float32 loses digits. Use device='cpu'."
            )
        try:
            resolved = torch.device(device)
            # Computing one number is the only test that covers every kind of device.
            torch.zeros(1, device=resolved, dtype=resolved_dtype).item()
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device={device!r} with dtype={dtype!r} cannot be used here ({reason}). "
                "Expected a device that torch can use; device='cpu' always works."
            ) from error
        return cls(resolved, resolved_dtype)

    @property
    def is_exact_on_host(self) -> bool:
        """Return whether this is a CPU in float64."""
        return self.device.type == "cpu" and self.dtype == torch.float64

    def promote_to_float64(self, smallest: float, largest: float) -> Backend:
        """Return a backend whose dtype represents squares of lengths from `smallest` to `largest`.

        The dtype also represents quotients of the squares, and its rounding of lengths is small compared
        with the smallest one. This backend is returned, or one in float64 if its dtype does not suffice.
        """
        limits = torch.finfo(self.dtype)
        fits = smallest**2 > limits.tiny**0.5 and largest**2 < limits.max**0.5
        is_precise = limits.eps * largest <= _MOST_ROUNDING * smallest
        return self if fits and is_precise else replace(self, dtype=torch.float64)

    def tensor(self, array: Any) -> torch.Tensor:
        """Return a copy of an array on the device, in the dtype."""
        return to_device(np.asarray(array, dtype=np.float64), self.device, self.dtype)

    @staticmethod
    def array(tensor: torch.Tensor) -> np.ndarray:
        """Return a tensor as a float64 array."""
        return tensor.detach().cpu().numpy().astype(np.float64)
