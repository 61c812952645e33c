"""Splits rows over joblib workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils.parallel import Parallel, delayed

__all__ = ["over_workers"]


def over_workers(
    n_jobs: int | None, work: Callable[..., np.ndarray], *arrays: np.ndarray, **shared: Any
) -> np.ndarray:
    """Apply `work` to parts of the rows of `arrays`, one part a worker, and join the results."""
    n_parts = min(effective_n_jobs(n_jobs), len(arrays[0]))
    if n_parts == 1:
        return work(*arrays, **shared)
    parts = zip(*(np.array_split(array, n_parts) for array in arrays), strict=True)
    return np.concatenate(Parallel(n_jobs=n_jobs)(delayed(work)(*part, **shared) for part in parts))
