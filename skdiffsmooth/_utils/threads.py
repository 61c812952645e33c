"""How many threads torch may use: one for small problems, and one in forked processes.

Threads wait for one another at the end of every operation. Where other programs keep the cores busy,
these waits take many times as long as a small operation itself. The limits set here belong to the
calling thread: those of other threads stay as they are.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

# Multiply-adds of a step that take some milliseconds on one thread. With fewer, several threads save
# less time than is lost by waiting for them on a busy host.
_SMALL = 2**25


@contextmanager
def threads_for(size: float) -> Iterator[None]:
    """Within the block, use one thread if `size`, the multiply-adds of one step, is small."""
    # torch is called before limits are set, since its first call in a new thread sets the limit there.
    if torch.get_num_threads() == 1 or size > _SMALL:
        yield
        return
    setters = _setters()
    before = [limit(1) for limit in setters]
    try:
        yield
    finally:
        for limit, n_threads in zip(setters, before, strict=True):
            limit(n_threads)


@cache
def _setters() -> list[Callable[[int], int]]:
    """Return functions that limit the calling thread and return its former limit."""
    setters = [_openmp_setter(library) for library in _openmp_libraries()]
    # Torch sets a limit of MKL in addition to that of OpenMP, and MKL uses its own.
    mkl = getattr(ctypes.CDLL(torch._C.__file__), "MKL_Set_Num_Threads_Local", None)
    return setters if mkl is None else [*setters, mkl]


def _openmp_setter(library: ctypes.CDLL) -> Callable[[int], int]:
    """Return a function that limits the threads of an OpenMP library and returns the former limit."""

    def limit(n_threads: int) -> int:
        before = int(library.omp_get_max_threads())
        library.omp_set_num_threads(n_threads)
        return before

    return limit


def _openmp_libraries() -> list[ctypes.CDLL]:
    """Return the OpenMP libraries of this process; torch and scikit-learn may each have one."""
    controllers = ThreadpoolController().select(user_api="openmp").lib_controllers
    return [controller.dynlib for controller in controllers]


def _use_one_thread_after_fork() -> None:
    """Set one thread, since a forked child lacks the threads for which OpenMP would wait."""
    torch.set_num_threads(1)
    for library in _openmp_libraries():
        library.omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread_after_fork)
