"""Training rows distributed over processes, and the values that the processes exchange.

Every sum over points is a sum over processes of sums over their points. Posterior moments of
(query, node) pairs are exchanged (see `_engine/merge.py`), and a few small arrays during a fit;
training rows stay where they are. All processes must make the same calls in the same order with the
same arguments, since each exchange waits for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from sklearn.utils.validation import _num_samples

from .rows import check_sample_weight
from .validation import check_choice

Result = TypeVar("Result")


class Shards:
    """Exchange of values between processes; this class is for a single process with all rows."""

    alone = True
    rank = 0

    def reduce_(self, tensor: torch.Tensor, how: str) -> torch.Tensor:
        """Return the "sum" or "max" over processes of a tensor, which may be overwritten."""
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return a list of the values of all processes, which should be small."""
        return [value]

    def first(self, value: Result) -> Result:
        """Return the value of the first process, since others may differ by rounding."""
        return self.gather(value if self.rank == 0 else None)[0]

    def total(self, value: Any) -> Any:
        """Return the sum over processes of a number or small array, equal to the last bit on all."""
        return sum(self.gather(value))

    def largest(self, value: Any) -> Any:
        """Return the largest of the processes' numbers."""
        return max(self.gather(value))

    def together(self, check: Callable[..., Result], *args: Any) -> Result:
        """Return check(*args); an error on one process is raised on all, so that none waits for it."""
        failure: Exception | None = None
        try:
            result = check(*args)
        except (TypeError, ValueError) as error:
            failure = error
        messages = self.gather(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message is not None:
                raise ValueError(f"process {rank} failed: {message}")
        return result

    def check_same(self, name: str, *values: Any) -> None:
        """Raise ValueError on all processes if their values, compared by `repr`, differ."""
        if self.alone:
            return
        digests = self.gather([_digest(value) for value in values])
        others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if others:
            raise ValueError(
                f"{name} on process {others[0]} differ from those on process 0; with "
                "shards='distributed' all processes must pass the same."
            )

    def normalize(self, weights: np.ndarray, X: Any, sample_weight: Any) -> np.ndarray:
        """Return weights of the rows of X that sum to one over all processes, or raise ValueError.

        Weights of a process that are negligible compared with those of another are an error.
        """
        if self.alone:
            return weights
        raw = check_sample_weight(sample_weight, _num_samples(X))
        # Weights of 1e300 must not overflow in their sum.
        exponent = int(np.frexp(raw.max())[1])
        parts = self.gather((float(np.ldexp(raw, -exponent).sum()), exponent))
        highest = max(exponent for _, exponent in parts)
        totals = np.array([np.ldexp(part, exponent - highest) for part, exponent in parts])
        fractions = totals / totals.sum()
        if not np.all(fractions > 0):
            raise ValueError(
                f"sample_weight on process {int(fractions.argmin())} is too small, compared with "
                "those of the other processes; drop the rows of that process."
            )
        return weights * fractions[self.rank]


ONE_PROCESS = Shards()


class ProcessGroup(Shards):
    """The processes of torch.distributed's default group, each of which has its own rows."""

    alone = False

    def __init__(self) -> None:
        self.rank = dist.get_rank()

    def reduce_(self, tensor: torch.Tensor, how: str) -> torch.Tensor:
        """See `Shards`."""
        # One process may hold a transposed view where another does not; the order of bytes must match.
        tensor = tensor.contiguous()
        dist.all_reduce(tensor, dist.ReduceOp.MAX if how == "max" else dist.ReduceOp.SUM)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """See `Shards`."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values


def resolve_shards(shards: Any) -> Shards:
    """Return the exchange of values for the parameter `shards`, which is "distributed" or None."""
    if shards is None:
        return ONE_PROCESS
    hint = "Or pass None, if all training rows are in this process."
    check_choice("shards", shards, ("distributed",), hint=hint)
    if not dist.is_available() or not dist.is_initialized():
        raise ValueError(
            "shards='distributed' but torch.distributed is not initialised. Start the processes with "
            "torchrun and call torch.distributed.init_process_group('gloo'), or 'nccl' on GPUs, in "
            f"each before this. {hint}"
        )
    return ProcessGroup()


def _digest(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return repr(value)
    content = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16)
    return f"{value.shape} {content.hexdigest()}"
