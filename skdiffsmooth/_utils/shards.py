"""Training data spread over processes: what each finds in its own rows, merged without loss.

Every sum over points is a sum over processes of sums over their points. What is exchanged are
log-sums, means and spreads of (query, node) pairs, and a few small arrays while fitting; training
rows stay where they are. All processes must make the same calls in the same order with the same
arguments: each call below waits for the others to make it too.
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

__all__ = ["ONE_PROCESS", "ProcessGroup", "Shards", "resolve_shards"]

Result = TypeVar("Result")


class Shards:
    """All data in this process: there is nobody to exchange anything with.

    The formulas for several processes are here too, written with the two exchanges `reduce_` and
    `gather` that a subclass replaces.
    """

    alone = True
    rank = 0

    def reduce_(self, tensor: torch.Tensor, how: str) -> torch.Tensor:
        """Return the sum or the maximum over processes of a tensor that may be overwritten.

        Parameters
        ----------
        tensor : torch.Tensor
            Of the same shape and type on all processes.
        how : {"sum", "max"}
            The reduction.

        Returns
        -------
        torch.Tensor
            The same on all processes.
        """
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order.

        Parameters
        ----------
        value : object
            Small: every process receives all of them.

        Returns
        -------
        list
        """
        return [value]

    def first(self, value: Result) -> Result:
        """Return the first process's value.

        Parameters
        ----------
        value : object
            What the processes computed alike, perhaps with different rounding.

        Returns
        -------
        object
        """
        return self.gather(value if self.rank == 0 else None)[0]

    def total(self, value: Any) -> Any:
        """Return the sum over processes of a number or a small array.

        Parameters
        ----------
        value : float or ndarray
            This process's part.

        Returns
        -------
        float or ndarray
            Summed in the same order, hence the same to the last bit, on all processes.
        """
        return sum(self.gather(value))

    def largest(self, value: Any) -> Any:
        """Return the largest of the processes' numbers.

        Parameters
        ----------
        value : float
            This process's number.

        Returns
        -------
        float
        """
        return max(self.gather(value))

    def together(self, check: Callable[..., Result], *args: Any) -> Result:
        """Run a check of this process's own data; if it fails on one process, fail on all.

        The others would otherwise wait for one that has gone.

        Parameters
        ----------
        check : callable
            Raises TypeError or ValueError.
        *args : object
            Its arguments.

        Returns
        -------
        object
            What the check returns.

        Raises
        ------
        TypeError
            This process's own.
        ValueError
            This process's own, or one that quotes the process that failed.
        """
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
        """Raise an error on all processes if they were not given the same.

        Parameters
        ----------
        name : str
            What the values are, for the message.
        *values : object
            Arrays, or objects that their `repr` tells apart.

        Raises
        ------
        ValueError
            If a process has other values than the first.
        """
        if self.alone:
            return
        digests = self.gather([_digest(value) for value in values])
        others = [rank for rank, found in enumerate(digests) if found != digests[0]]
        if others:
            raise ValueError(
                f"{name} on process {others[0]} differ from those on process 0; with "
                "shards='distributed' all processes must pass the same."
            )

    def normalize(self, weights: np.ndarray, X: Any, sample_weight: Any) -> np.ndarray:
        """Turn shares of this process's weight into shares of the whole.

        Parameters
        ----------
        weights : ndarray of shape (n_points,)
            Shares; they sum to one on each process.
        X : array-like of shape (n_samples, n_features)
            This process's rows.
        sample_weight : array-like of shape (n_samples,) or None
            Their weights, checked before.

        Returns
        -------
        ndarray of shape (n_points,)
            They sum to one over all processes.

        Raises
        ------
        ValueError
            If all weights of a process vanish beside those of another.
        """
        if self.alone:
            return weights
        raw = check_sample_weight(sample_weight, _num_samples(X))
        # Weights of 1e300 must not overflow in their sum.
        exponent = int(np.frexp(raw.max())[1])
        parts = self.gather((float(np.ldexp(raw, -exponent).sum()), exponent))
        highest = max(exponent for _, exponent in parts)
        totals = np.array([np.ldexp(part, exponent - highest) for part, exponent in parts])
        shares = totals / totals.sum()
        if not np.all(shares > 0):
            raise ValueError(
                f"sample_weight on process {int(shares.argmin())} vanishes beside that of the others; "
                "leave these rows out."
            )
        return weights * shares[self.rank]


ONE_PROCESS = Shards()


class ProcessGroup(Shards):
    """The processes of torch.distributed's default group, each with rows of its own."""

    alone = False

    def __init__(self) -> None:
        self.rank = dist.get_rank()

    def reduce_(self, tensor: torch.Tensor, how: str) -> torch.Tensor:
        """Return the sum or the maximum over processes of a tensor that may be overwritten.

        Parameters
        ----------
        tensor : torch.Tensor
            Of the same shape and type on all processes.
        how : {"sum", "max"}
            The reduction.

        Returns
        -------
        torch.Tensor
        """
        # One process may hold a transposed view where another does not; bytes must match in order.
        tensor = tensor.contiguous()
        dist.all_reduce(tensor, dist.ReduceOp.MAX if how == "max" else dist.ReduceOp.SUM)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order.

        Parameters
        ----------
        value : object
            Small, and can be pickled.

        Returns
        -------
        list
        """
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values


def resolve_shards(shards: Any) -> Shards:
    """Resolve the estimator parameter `shards`.

    Parameters
    ----------
    shards : {"distributed"} or None
        Where the training rows are.

    Returns
    -------
    Shards

    Raises
    ------
    TypeError
        If it is neither a string nor None.
    ValueError
        If it is not known, or torch.distributed is not initialised.
    """
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
