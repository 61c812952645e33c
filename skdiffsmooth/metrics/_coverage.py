"""Coverage of a distribution by samples: the fraction near a sample, and the scale of coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from .._utils.memory import slices_within
from .._utils.validation import check_real_array
from ._checks import check_fraction, check_pair
from ._pairs import MEMORY_LIMIT, nearest_distances


def coverage_at_scale(X: Any, reference: Any, radius: Any) -> Any:
    """Return the fraction of reference rows that have a generated row within a radius.

    mean over j of [ min over i of ``|y_j - x_i|`` <= radius ].

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    reference : array-like of shape (m, d)
        Held-out rows of the target distribution, not those that the model was fitted on.
    radius : float or array-like of float
        In units of X, >= 0. Several radii cost no more than one.

    Returns
    -------
    float or ndarray
        In [0, 1], of the shape of `radius`.

    Raises
    ------
    ValueError
        If the rows are not numeric and finite, their columns differ, or a radius is not a finite number
        >= 0.

    See Also
    --------
    coverage_scale : The scale above which balls contain enough generated rows, not just one.

    Notes
    -----
    The fraction grows with the number of generated rows: compare models at the same n. One generated row
    near a reference row is enough, so that holes are detected, but not regions with too little mass.

    Costs O(m log n) in up to ten columns, by a tree, else O(n m d).

    Examples
    --------
    >>> from skdiffsmooth.metrics import coverage_at_scale
    >>> coverage_at_scale([[0.0], [1.0]], [[0.0], [0.5], [4.0]], [0.1, 1.0]).round(2)
    array([0.33, 0.67])
    """
    rows, reference_rows = check_pair(X, reference, "reference")
    radii = check_real_array("radius", radius)
    if not np.all((radii >= 0) & np.isfinite(radii)):
        raise ValueError(f"radius={radius!r} is out of range; expected finite numbers >= 0.")
    distances = np.sort(nearest_distances(reference_rows, rows))
    fractions = np.searchsorted(distances, radii, side="right") / len(distances)
    return float(fractions) if radii.ndim == 0 else fractions


def coverage_scale(X: Any, reference: Any, *, alpha: float = 0.1, c: float = 0.5) -> float:
    """Return the smallest scale at which the generated distribution covers the reference.

    A distribution nu covers mu at scale delta with (alpha, c) if for points x of probability at least
    1 - alpha under mu, and for every r >= delta,

        nu(B(x, r)) >= c mu(B(x, r)),        B(x, r) the closed ball.

    Here nu and mu are the empirical distributions of X and of the reference.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Generated rows.
    reference : array-like of shape (m, d)
        Held-out rows of the target distribution, not those that the model was fitted on. At most some
        10^5 times 10^5 rows are practical.
    alpha : float, default=0.1
        The fraction of the reference that need not be covered, in [0, 1).
    c : float, default=0.5
        The smallest ratio of the two masses of a ball, in (0, 1].

    Returns
    -------
    float
        In units of X. Zero if X consists of the reference rows.

    Raises
    ------
    TypeError, ValueError
        If the rows are not numeric and finite, their columns differ, or `alpha` or `c` is out of range.

    Notes
    -----
    A ball about a reference row contains that row, so a row is not covered at scales below its distance
    to the nearest generated row. Even two samples of one distribution have a scale of about their
    spacing: compare the scale with that of training rows, or of other held-out rows.

    Costs O(m (n + m) (d + log(n + m))).

    References
    ----------
    Y. Shen, Y.-P. Hsieh, N. He, Manifold Generalization Provably Proceeds Memorization in Diffusion
    Models, arXiv:2603.23792.

    Examples
    --------
    A hole of width 0.2 in a uniform distribution; balls about its middle have at least half of the mass
    of the reference for r >= 1/6.

    >>> import numpy as np
    >>> from skdiffsmooth.metrics import coverage_scale
    >>> reference = np.linspace(0, 1, 1001)[:, None]
    >>> X = reference[np.abs(reference[:, 0] - 0.5) > 0.1]
    >>> round(coverage_scale(X, reference), 2)
    0.17
    """
    rows, reference_rows = check_pair(X, reference, "reference")
    alpha = check_fraction("alpha", alpha, zero=True)
    c = check_fraction("c", c, one=True)
    n, m = len(rows), len(reference_rows)
    scales = np.empty(m)
    both = np.concatenate([rows, reference_rows])
    for tile in slices_within(m, 80 * (n + m), MEMORY_LIMIT):
        scales[tile] = _scales(cdist(reference_rows[tile], both), n, c)
    # The margin keeps rounding errors from raising the number.
    n_covered = math.ceil((1 - alpha) * m - 1e-9)
    return float(np.sort(scales)[max(n_covered, 1) - 1])


def _scales(distances: np.ndarray, n: int, c: float) -> np.ndarray:
    """Return for each point the largest radius up to which its ball has too little mass.

    `distances` (n_points, n + m) are those to the generated and the reference rows. A range of radii
    with too little mass ends at a generated row. For radii just below, the ball contains the generated
    rows that are earlier in the order of distances, and all reference rows that are strictly nearer.
    """
    m = distances.shape[1] - n
    order = np.argsort(distances, axis=1)
    ends = np.take_along_axis(distances, order, axis=1)
    is_generated = order < n
    n_generated: np.ndarray = np.cumsum(is_generated, axis=1) - is_generated
    n_reference = np.arange(n + m) - n_generated
    # Rows at equal distances all get the number of reference rows of the first.
    n_reference[:, 1:] *= ends[:, 1:] > ends[:, :-1]
    np.maximum.accumulate(n_reference, axis=1, out=n_reference)
    # The margin is for products that would be equal without rounding errors.
    is_short = is_generated & (c * n_reference * n > n_generated * m * (1 + 1e-12))
    return np.where(is_short, ends, 0.0).max(axis=1)
