"""`find_modes`: the local maxima of a fitted density, with eigenvalues of its Hessian."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.utils.validation import check_is_fitted

from .._coordinates.hull import AffineHull
from .._utils.memory import slices_within
from .._utils.periods import reduced, wrapped
from .._utils.rows import evenly
from .._utils.validation import check_integer
from .._utils.warnings import warn_user

# In bandwidths: an ascent ends at a step shorter than the first number; ends of ascents closer than the
# second, and modes closer than the third, are treated as one.
_ARRIVED, _ONE_END, _ONE_MODE = 1e-3, 0.5, 0.1
_MAX_STARTS, _MAX_STEPS, _MAX_NEWTON, _MAX_HALVINGS = 500, 500, 30, 8
# Step of finite differences: their error is proportional to its square, that of rounding to one over
# its square.
_STEP = 0.05
_MEMORY_LIMIT = 64.0

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Modes:
    """The result of `find_modes`, highest log-density first.

    Attributes
    ----------
    points : ndarray of shape (n_modes, n_features)
        The modes, in units of X.
    log_density : ndarray of shape (n_modes,)
        Log-densities at the modes by ``score_samples``, in nats.
    eigenvalues : ndarray of shape (n_modes, r)
        Eigenvalues of the Hessian of the log-density in coordinates of the metric divided by the
        bandwidth, lowest first. They are -1 in all r directions at a row far from all others, and near
        0 along a ridge. r is the dimension of the affine hull of the training rows: 0 for one row.
    share : ndarray of shape (n_modes,)
        Fraction of the training rows, by weight, whose ascent ends at the mode.
    """

    points: np.ndarray
    log_density: np.ndarray
    eigenvalues: np.ndarray
    share: np.ndarray


def find_modes(model: Any, *, n_modes: int = 20) -> Modes:
    """Return the local maxima of the density of a fitted model.

    Mean-shift steps lead from each training row to a maximum of the averaged log-density at the
    bandwidth, which has a closed form (``-model.energy``). From there, Newton's method maximises
    ``score_samples``, which is another function if sigma > 0 or there is a background. So the result
    are modes of the model's own density; a mode near which the averaged log-density has no maximum is
    missed.

    Parameters
    ----------
    model : KDESampler or SmoothedScoreDiffusion
        A fitted density with a Gaussian kernel and the methods ``energy``, ``grad_log_density`` and
        ``score_samples``.
    n_modes : int, default=20
        Largest number of maxima that are refined; those at which most rows end are taken.

    Returns
    -------
    Modes
        Modes, log-densities, eigenvalues of Hessians and fractions of rows, which sum to less than
        one if maxima were left out.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError
        If the model lacks one of these methods, or `n_modes` is no integer.
    ValueError
        If `n_modes` is below one, the model has no energy, or its kernel is not Gaussian.

    Warns
    -----
    UserWarning
        If more than `n_modes` maxima were found, or Newton's method did not end at a maximum.

    Notes
    -----
    Each mean-shift step takes one gradient and one energy for each of at most 500 rows, each Newton
    step ``r**2 + r`` log-densities for each mode. Derivatives of ``score_samples`` are central
    differences, with a relative error of about 1e-3. Mean shift was proposed by K. Fukunaga and L.
    Hostetler (1975); D. Comaniciu and P. Meer (2002) showed that it ends at modes.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.compose import find_modes
    >>> X = np.concatenate([np.random.RandomState(0).normal(m, 1, (50, 2)) for m in (-3, 3)])
    >>> modes = find_modes(KDESampler(1.0).fit(X))
    >>> modes.points.round(0) + 0.0
    array([[ 3.,  3.],
           [-3., -3.]])
    >>> modes.share
    array([0.5, 0.5])
    """
    check_integer("n_modes", n_modes)
    for method in ("energy", "grad_log_density", "score_samples"):
        if not callable(getattr(model, method, None)):
            raise TypeError(
                f"model={type(model).__name__} has no method {method}; expected a density with one. "
                "Pass a KDESampler or a SmoothedScoreDiffusion."
            )
    check_is_fitted(model)
    kernel = getattr(model, "kernel_", None)
    if isinstance(kernel, str) and kernel != "gaussian":
        raise ValueError(
            f"model has kernel={kernel!r}, whose density has kinks or flat parts; expected a "
            "smooth density. Fit it with kernel='gaussian'."
        )
    # Rows are passed as arrays, which have no column names.
    model = copy.copy(model)
    vars(model).pop("feature_names_in_", None)
    rows = evenly(len(model.points_), _MAX_STARTS)
    x, weights = model.points_[rows], model.weights_[rows] / model.weights_[rows].sum()
    space = _Bandwidths(model)
    ends = _ascend(model, x, space)
    group = space.groups(ends, _ONE_END)
    share = np.bincount(group, weights=weights)
    height = -model.energy(ends)
    best = np.array(
        [np.flatnonzero(group == k)[height[group == k].argmax()] for k in range(len(share))]
    )
    order = np.argsort(-share, kind="stable")[:n_modes]
    if len(share) > n_modes:
        warn_user(
            f"the averaged log-density has {len(share)} maxima, and the {n_modes} of them where most "
            f"rows end are refined ({share[order].sum():.2f} of the rows). Raise n_modes, or the "
            "bandwidth: at low noise nearly every row is a mode."
        )
    peaks, values, eigenvalues = _newton(model.score_samples, ends[best[order]], space)
    share = share[order]
    is_mode = eigenvalues.max(axis=1, initial=-1.0) < 0
    if not is_mode.all():
        warn_user(
            f"{np.sum(~is_mode)} of {len(peaks)} ascents did not end at a maximum of score_samples "
            f"within {_MAX_NEWTON} Newton steps, and are left out, with {share[~is_mode].sum():.2f} of "
            "all rows. Raise n_nodes or n_steps of the model, if it has them."
        )
    peaks, values, eigenvalues, share = (
        each[is_mode] for each in (peaks, values, eigenvalues, share)
    )
    # Several maxima of the averaged log-density may lead to one mode.
    group = space.groups(peaks, _ONE_MODE)
    first = np.unique(group, return_index=True)[1]
    total = np.bincount(group, weights=share)
    order = np.argsort(-values[first], kind="stable")
    first = first[order]
    if getattr(model, "periods_", None) is not None:
        peaks = reduced(peaks, model.periods_)
    return Modes(peaks[first], values[first], eigenvalues[first], total[order])


class _Bandwidths:
    """Distances in bandwidths; `directions` (r, d) are steps of one bandwidth along the rows' hull."""

    def __init__(self, model: Any) -> None:
        metric = model.coordinates_
        self._bandwidth = model.bandwidth_ / metric.unit
        z = metric.to_metric(model.points_)
        steps = AffineHull.of(z / self._bandwidth).basis.T * self._bandwidth
        center = np.median(z, axis=0)
        # The map back to X is linear, except for warped columns, where this is its mean slope.
        self.directions = (
            metric.from_metric(center + steps) - metric.from_metric(center - steps)
        ) / 2
        self._metric = metric

    def groups(self, x: np.ndarray, distance: float) -> np.ndarray:
        """Return the group (n,) of each row; rows closer than a distance in bandwidths are linked."""
        if len(x) < 2:
            return np.zeros(len(x), dtype=np.intp)
        z = self._metric.to_metric(x)
        periods = np.zeros(z.shape[1]) if self._metric.periods is None else self._metric.periods
        i, j = np.triu_indices(len(x), 1)
        squares, widths = np.zeros(len(i)), np.broadcast_to(self._bandwidth, z.shape[1])
        for own, period, width in zip(z.T, periods, widths, strict=True):
            difference = own[i] - own[j]
            squares += ((wrapped(difference, period) if period else difference) / width) ** 2
        return fcluster(linkage(np.sqrt(squares), "single"), distance, "distance") - 1


def _ascend(model: Any, x: np.ndarray, space: _Bandwidths) -> np.ndarray:
    """Return the ends (n, d) of mean-shift ascents from x; steps that raise the energy are halved."""
    x, moving = x.copy(), np.arange(len(x))
    energy = model.energy(x)
    for _ in range(_MAX_STEPS):
        step = model.grad_log_density(x[moving]) @ space.directions.T
        x[moving], energy[moving] = _halved(
            model.energy, x[moving], energy[moving], step @ space.directions
        )
        moving = moving[np.linalg.norm(step, axis=1) > _ARRIVED]
        if not len(moving):
            break
    return x


def _halved(
    loss: Function, x: np.ndarray, value: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return x (n, d) after a step, halved until the loss does not increase, and the loss (n,)."""
    step, largest = step.copy(), value + 1e-12 * (1 + np.abs(value))
    ahead = x + step
    after = loss(ahead)
    for _ in range(_MAX_HALVINGS):
        worse = np.flatnonzero(~(after <= largest))
        if not len(worse):
            break
        step[worse] /= 2
        ahead[worse] = x[worse] + step[worse]
        after[worse] = loss(ahead[worse])
    worse = ~(after <= largest)
    return np.where(worse[:, None], x, ahead), np.where(worse, value, after)


def _newton(
    log_density: Function, x: np.ndarray, space: _Bandwidths
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return maxima (n, d) near x, their log-densities (n,) and eigenvalues (n, r) of Hessians."""
    x, moving = x.copy(), np.arange(len(x))
    value, eigenvalues = log_density(x), np.zeros((len(x), len(space.directions)))
    for _ in range(_MAX_NEWTON if len(space.directions) else 0):
        gradient, hessian = _derivatives(log_density, x[moving], value[moving], space.directions)
        own, axes = np.linalg.eigh(hessian)
        eigenvalues[moving] = own
        along = np.einsum("nij,ni->nj", axes, gradient) / np.maximum(np.abs(own), 0.1)
        step = np.einsum("nij,nj->ni", axes, along)
        length = np.linalg.norm(step, axis=1)
        step /= np.maximum(length, 1)[:, None]
        x[moving], loss = _halved(
            lambda rows: -log_density(rows), x[moving], -value[moving], step @ space.directions
        )
        value[moving] = -loss
        moving = moving[length > _ARRIVED]
        if not len(moving):
            break
    return x, value, eigenvalues


def _derivatives(
    function: Function, x: np.ndarray, value: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return gradients (n, r) and Hessians (n, r, r) along directions (r, d), by central differences."""
    r = len(directions)
    i, j = np.triu_indices(r)
    is_single = i == j

    def at(step: float) -> np.ndarray:
        """Return values (n, r (r + 1) / 2) after a step along each direction and each sum of two."""
        steps = np.where(is_single, step / 2, step)
        values = []
        for part in slices_within(len(i), 3 * x.nbytes, _MEMORY_LIMIT):
            offsets = steps[part, None] * (directions[i[part]] + directions[j[part]])
            rows = (x[:, None] + offsets).reshape(-1, x.shape[1])
            values.append(function(rows).reshape(len(x), -1))
        return np.concatenate(values, axis=1)

    ahead, behind = at(_STEP), at(-_STEP)
    second = (ahead + behind - 2 * value[:, None]) / _STEP**2
    single = second[:, is_single]
    mixed = np.where(is_single, second, (second - single[:, i] - single[:, j]) / 2)
    hessian = np.empty((len(x), r, r))
    hessian[:, i, j] = hessian[:, j, i] = mixed
    return (ahead - behind)[:, is_single] / (2 * _STEP), hessian
