"""Splits rows, and lists of calls, over joblib workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed

from .progress import tracked


def results_of(calls: Sequence[Any], n_jobs: int | None, task: str) -> list[Any]:
    """Return the results of delayed calls in their order, and report each as a `task`."""
    # Backends of other packages may return all results at once only.
    backend, _ = get_active_backend()
    is_lazy = getattr(backend, "supports_return_generator", False)
    parallel = Parallel(n_jobs=n_jobs, return_as="generator" if is_lazy else "list")
    results = iter(parallel(calls))
    return [next(results) for _ in tracked(calls, task)]


def over_workers(
    n_jobs: int | None, work: Callable[..., np.ndarray], *arrays: np.ndarray, **shared: Any
) -> np.ndarray:
    """Return the joined results of `work` on parts of the rows of `arrays`, one part per worker."""
    n_parts = min(effective_n_jobs(n_jobs), len(arrays[0]))
    if n_parts == 1:
        return work(*arrays, **shared)
    parts = zip(*(np.array_split(array, n_parts) for array in arrays), strict=True)
    return np.concatenate(Parallel(n_jobs=n_jobs)(delayed(work)(*part, **shared) for part in parts))
