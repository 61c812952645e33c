"""Cuts rows into slices, so that temporaries stay within a bound on memory."""

from __future__ import annotations

from collections.abc import Iterator


def rows_within(bytes_per_row: int, memory_limit: float) -> int:
    """Return how many rows, at least one, have temporaries that fit into `memory_limit` MiB."""
    return max(1, int(memory_limit * 2**20 / bytes_per_row))


def rows_that_fit(bytes_per_row: int, memory_limit: float) -> int:
    """Return how many rows have temporaries that fit into `memory_limit` MiB, if one row's do."""
    n_rows = int(memory_limit * 2**20 // bytes_per_row)
    if n_rows < 1:
        raise ValueError(
            f"memory_limit={memory_limit:g} (MiB) is too small for one row, which needs at least "
            f"{bytes_per_row / 2**20:.2g} MiB. Raise memory_limit."
        )
    return n_rows


def slices(length: int, step: int) -> Iterator[slice]:
    """Cut range(length) into consecutive slices of at most `step` indices, and of at least one."""
    step = max(1, step)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def slices_within(n_rows: int, bytes_per_row: int, memory_limit: float) -> Iterator[slice]:
    """Cut rows, or none, into slices (one at least) whose temporaries fit into `memory_limit` MiB."""
    return slices(max(n_rows, 1), rows_within(bytes_per_row, memory_limit))
