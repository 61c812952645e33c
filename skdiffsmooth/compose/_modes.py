"""`find_modes`: the local maxima of a fitted density, with their Hessians and basins."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.utils.validation import check_is_fitted

from .._utils.periods import reduced, wrapped
from .._utils.rows import evenly
from .._utils.validation import check_integer
from .._utils.warnings import warn_user

__all__ = ["Modes", "find_modes"]

# Lengths are in bandwidths. Rows have arrived where a step is shorter than the first; ends of ascents
# within the second of each other, and modes within the third, are one.
_ARRIVED, _ONE_END, _ONE_MODE = 1e-3, 0.5, 0.1
_MAX_STARTS, _MAX_STEPS, _MAX_NEWTON, _MAX_HALVINGS = 500, 500, 30, 8
# Step of finite differences: their error is of second order in it, that of rounding one over its square.
_STEP = 0.05

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Modes:
    """The result of `find_modes`, highest log-density first.

    Attributes
    ----------
    points : ndarray of shape (n_modes, n_features)
        The modes, in units of X.
    log_density : ndarray of shape (n_modes,)
        What ``score_samples`` returns there, in nats.
    eigenvalues : ndarray of shape (n_modes, r)
        Of the Hessian of the log-density in coordinates of the metric divided by the bandwidth, lowest
        first: -1 in all r directions at a row that is far from all others, near 0 along a ridge.
    share : ndarray of shape (n_modes,)
        Share of the training rows, by weight, whose ascent ends at the mode.
    """

    points: np.ndarray
    log_density: np.ndarray
    eigenvalues: np.ndarray
    share: np.ndarray


def find_modes(model: Any, *, n_modes: int = 20) -> Modes:
    """Return the local maxima of the density of a fitted model.

    Each training row ascends the closed-form averaged log-density at the bandwidth, minus
    ``model.energy``, by mean-shift steps. From its maxima, Newton's method ascends ``score_samples``,
    which differs from it if sigma > 0 or there is a background: what is returned are modes of the
    model's own density. A mode of which the averaged log-density has no trace is missed.

    Parameters
    ----------
    model : KDESampler or SmoothedScoreDiffusion
        A fitted density with methods ``energy``, ``grad_log_density`` and ``score_samples``.
    n_modes : int, default=20
        The most modes that are refined, those of most rows.

    Returns
    -------
    Modes
        Modes, log-densities, eigenvalues of Hessians and shares of rows. The shares sum to less than one
        where maxima were left out.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError
        If it has no such methods, or `n_modes` is no integer.
    ValueError
        If `n_modes` is below one, or the model has no energy.

    Warns
    -----
    UserWarning
        If more than `n_modes` maxima were found, or Newton's method did not end at a maximum.

    Notes
    -----
    An ascent takes one gradient and one energy of at most 500 rows a step, a Newton step
    ``n_features**2 + n_features`` log-densities a mode. Derivatives of ``score_samples`` are central
    differences, with a relative error of about 1e-3. Mean shift is of K. Fukunaga and L. Hostetler
    (1975); that it ends at modes, of D. Comaniciu and P. Meer (2002).

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
            f"the averaged log-density has {len(share)} maxima, and the {n_modes} of most rows are "
            f"refined, with {share[order].sum():.2f} of all rows. Raise n_modes, or the bandwidth: at "
            "low noise nearly every row is a mode."
        )
    peaks, values, eigenvalues = _newton(model.score_samples, ends[best[order]], space)
    share = share[order]
    is_mode = eigenvalues[:, -1] < 0
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
    """Coordinates of a model's metric in bandwidths: directions in X, and distances.

    `directions` (r, d) are one bandwidth long each.
    """

    def __init__(self, model: Any) -> None:
        metric, bandwidth = model.coordinates_, model.bandwidth_
        center = np.median(model.points_, axis=0)
        widths = np.maximum(model.points_.std(axis=0), 1e-300)
        step = 1e-6 * np.diag(widths)
        difference = metric.to_metric(center + step) - metric.to_metric(center - step)
        # Of one standard deviation in each column, so that units of columns do not matter.
        jacobian = difference / 2e-6 / bandwidth
        self.directions = np.linalg.pinv(jacobian, rcond=1e-9) * widths
        self._metric, self._bandwidth = metric, bandwidth

    def groups(self, x: np.ndarray, distance: float) -> np.ndarray:
        """Return for each row (n,) the index of its group: rows linked by a distance in bandwidths."""
        if len(x) < 2:
            return np.zeros(len(x), dtype=np.intp)
        z = self._metric.to_metric(x)
        difference = z[:, None] - z
        if self._metric.periods is not None:
            for k in np.flatnonzero(self._metric.periods):
                difference[:, :, k] = wrapped(difference[:, :, k], self._metric.periods[k])
        lengths = np.linalg.norm(difference / self._bandwidth, axis=2)
        tree = linkage(squareform(lengths, checks=False), "single")
        return fcluster(tree, distance, "distance") - 1


def _ascend(model: Any, x: np.ndarray, space: _Bandwidths) -> np.ndarray:
    """Return where mean-shift steps lead from x (n, d), each halved until the energy falls."""
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
    """Return x (n, d) after steps that are halved until a loss does not rise, and the loss (n,)."""
    step = step.copy()
    ahead = x + step
    after = loss(ahead)
    for _ in range(_MAX_HALVINGS):
        worse = np.flatnonzero(~(after <= value + 1e-12 * (1 + np.abs(value))))
        if not len(worse):
            break
        step[worse] /= 2
        ahead[worse] = x[worse] + step[worse]
        after[worse] = loss(ahead[worse])
    worse = ~(after <= value + 1e-12 * (1 + np.abs(value)))
    return np.where(worse[:, None], x, ahead), np.where(worse, value, after)


def _newton(
    log_density: Function, x: np.ndarray, space: _Bandwidths
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return maxima (n, d) near x, their log-densities (n,) and eigenvalues (n, r) of Hessians."""
    x, moving = x.copy(), np.arange(len(x))
    value, eigenvalues = log_density(x), np.zeros((len(x), len(space.directions)))
    for _ in range(_MAX_NEWTON):
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
    i, j = np.triu_indices(r, 1)
    single = np.concatenate([directions, -directions])
    pairs = directions[i] + directions[j]
    offsets = _STEP * np.concatenate([single, pairs, -pairs])
    values = function((x[:, None] + offsets).reshape(-1, x.shape[1])).reshape(len(x), -1)
    above, below = values[:, :r], values[:, r : 2 * r]
    ahead, behind = values[:, 2 * r : 2 * r + len(i)], values[:, 2 * r + len(i) :]
    gradient = (above - below) / (2 * _STEP)
    hessian = np.zeros((len(x), r, r))
    second = above + below - 2 * value[:, None]
    mixed = (ahead + behind - 2 * value[:, None] - second[:, i] - second[:, j]) / 2
    hessian[:, i, j] = hessian[:, j, i] = mixed / _STEP**2
    hessian[:, range(r), range(r)] = second / _STEP**2
    return gradient, hessian
