"""Cuts rows into slices, so that temporaries stay within a bound on memory."""

from __future__ import annotations

from collections.abc import Iterator


def rows_within(bytes_per_row: int, memory_limit: float) -> int:
    """Return how many rows, at least one, have temporaries that fit into `memory_limit` MiB."""
    return max(1, int(memory_limit * 2**20 / bytes_per_row))


def rows_that_fit(bytes_per_row: int, memory_limit: float) -> int:
    """Return how many rows have temporaries that fit into `memory_limit` MiB; ValueError if none."""
    check_fits(bytes_per_row, memory_limit, "one row")
    return int(memory_limit * 2**20 // bytes_per_row)


def check_fits(n_bytes: int, memory_limit: float, what: str) -> None:
    """Raise ValueError if n_bytes, the least that `what` needs, are more than `memory_limit` MiB."""
    if n_bytes > memory_limit * 2**20:
        raise ValueError(
            f"memory_limit={memory_limit:g} (MiB) is too small for {what}: at least "
            f"{n_bytes / 2**20:.2g} MiB are needed. Raise memory_limit."
        )


def slices(length: int, step: int) -> Iterator[slice]:
    """Yield consecutive slices of range(length), each of at least one and at most `step` indices."""
    step = max(1, step)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def slices_within(n_rows: int, bytes_per_row: int, memory_limit: float) -> Iterator[slice]:
    """Return slices of rows, at least one, whose temporaries fit into `memory_limit` MiB."""
    return slices(max(n_rows, 1), rows_within(bytes_per_row, memory_limit))
