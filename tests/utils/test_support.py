"""Which given values have no training row near."""

import warnings

import numpy as np
import pytest

from skdiffsmooth._utils import support
from skdiffsmooth._utils.support import warn_of_far_values


@pytest.mark.parametrize(("n_rows", "n_queried"), [(1999, 1999), (2000, 1000), (4001, 1334)])
def test_some_two_thousand_rows_are_compared(n_rows, n_queried, monkeypatch):
    """The last of them is far from the others, and the second nearest distance is its own."""
    seen = []

    class Tree:
        def __init__(self, centers):
            assert len(centers) == n_rows

        def query(self, queried, k):
            seen.append((len(queried), k))
            return np.array([[0.0, 1.0], [0.0, 4.0]]), None

    monkeypatch.setattr(support, "cKDTree", Tree)
    centers = np.zeros((n_rows, 1))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for distance in (7.9, 11.9, 12.0, 12.1):
            warn_of_far_values(np.array([0.0, distance]), centers)
    (text,) = (str(each.message) for each in found)
    assert "of 1 of 2 conditions" in text
    assert "12.1 bandwidths (condition 1); training rows are at most 4 from" in text
    assert seen == [(n_queried, 2)] * 3
