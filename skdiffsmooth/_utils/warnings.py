"""Warnings that show the line of the user's code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

# With a separator at the end, since a user's directory may be called skdiffsmooth-scripts.
_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_IS_SILENT = ContextVar("_IS_SILENT", default=False)
_IS_PART = ContextVar("_IS_PART", default=False)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Within the block, this package does not warn in this thread; for candidates of a comparison."""
    token = _IS_SILENT.set(True)
    try:
        yield
    finally:
        _IS_SILENT.reset(token)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of `message` at the innermost line on the call stack that is outside this package."""
    if _IS_SILENT.get():
        return
    # skip_file_prefixes of warnings.warn does this from Python 3.12 on.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def part_of_a_fit() -> Iterator[None]:
    """Within the block, fits do not warn about their rows, which belong to a larger fit."""
    token = _IS_PART.set(True)
    try:
        yield
    finally:
        _IS_PART.reset(token)


def warn_of_table(message: str) -> None:
    """Warn of the training table, unless the estimator that was given the whole table does so."""
    if not _IS_PART.get():
        warn_user(message)
