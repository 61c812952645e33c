"""Rows cut into parts, so that temporaries stay within a bound on memory."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["slices", "slices_within"]


def slices_within(n_rows: int, bytes_per_row: int, memory_limit: float) -> Iterator[slice]:
    """Cut rows into slices whose temporaries fit into a limit; at least one slice, of one row.

    Parameters
    ----------
    n_rows : int
        How many there are; of none, one empty slice is made.
    bytes_per_row : int
        What the temporaries of a row take.
    memory_limit : float
        In MiB.

    Yields
    ------
    slice
    """
    step = max(1, int(memory_limit * 2**20 / bytes_per_row))
    for first in range(0, max(n_rows, 1), step):
        yield slice(first, first + step)


def slices(length: int, step: int) -> Iterator[slice]:
    """Cut range(length) into consecutive slices of at most `step`."""
    step = max(1, step)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
