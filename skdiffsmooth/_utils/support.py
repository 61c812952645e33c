"""Warns of given values that no training row supports."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .warnings import warn_user

# Given values have no support if their distance from all rows is more than `_FAR` bandwidths, and more
# than `_FAR_FACTOR` times the distance of any training row from its nearest neighbour.
_FAR = 8.0
_FAR_FACTOR = 3.0
_N_COMPARED = 2000


def warn_of_far_values(distances: np.ndarray, centers: np.ndarray) -> None:
    """Warn of values whose `distances` (n,) exceed those among `centers` (N, k), in bandwidths."""
    if len(distances) == 0 or distances.max() <= _FAR:
        return
    # The tree has all rows; if they are many, only some of them are queried.
    queried = centers[:: 1 + len(centers) // _N_COMPARED]
    own = cKDTree(centers).query(queried, k=2)[0][:, 1].max() if len(centers) > 1 else 0.0
    is_far = distances > max(_FAR, _FAR_FACTOR * own)
    if is_far.any():
        worst = distances.argmax()
        warn_user(
            f"given values of {is_far.sum()} of {len(distances)} conditions are far from all training "
            f"rows, by up to {distances[worst]:.3g} bandwidths (condition {worst}); training rows are "
            f"at most {own:.3g} from their neighbours. No row supports them, so the result is an "
            "extrapolation. Check the units of the given values, or drop these rows."
        )
