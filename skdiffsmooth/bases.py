"""Bases: Gaussian mixtures that a diffusion smooths in place of the plain training rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator

from ._engine.component_posterior import ComponentPosterior
from ._engine.components import GaussianComponents
from ._utils.backend import Backend
from ._utils.gaussian import gaussian_log_normalizer
from ._utils.memory import slices_within
from ._utils.validation import check_integer, check_real
from .bandwidth import maximize_leave_one_out, stationary_bracket, weight_of_others
from .manifolds._neighbors import NearestPoints

__all__ = ["ManifoldParzen", "base_components", "base_reference", "resolve_base"]

# Of neighbours and of directions, as many as did best on most of docs/bases.md's data.
_NEIGHBORS = 20
_MEMORY_LIMIT = 256.0  # MiB, for the search of neighbours and their offsets

# Of more rows than these, so many are left out; the standard error is then some hundredths of a nat.
_MOST_LEFT_OUT = 2000
# Windows leave the bandwidth less to do than a KDE does: where to look, in units of the least of that.
_NARROWEST = 0.02

_Weighted = list[tuple[float, Any]]


class ManifoldParzen(BaseEstimator):
    """Manifold Parzen windows: a Gaussian at each row, as wide as its neighbours lie.

    The law of a row x_i is N(x_i, scale * C_i + bandwidth^2 I), where C_i holds the leading principal
    components of the offsets x_j - x_i to its nearest rows, and the bandwidth is the estimator's.

    Parameters
    ----------
    n_neighbors : int, default=20
        Neighbours of a row that say how wide its window is; at most one less than the distinct rows.
    n_components : int or None, default=None
        Directions in which a window is wider than the bandwidth, the widest ones. None keeps all that
        the neighbours span.
    scale : float, default=1.0
        Factor on the covariances, without unit; 0 leaves the plain rows.

    Notes
    -----
    Costs a search of neighbours and N small singular value decompositions. A window of k directions
    in r dimensions takes of the order of r k numbers.

    References
    ----------
    P. Vincent, Y. Bengio, Manifold Parzen Windows, NIPS 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.bases import ManifoldParzen
    >>> angle = np.random.RandomState(0).uniform(0, 2 * np.pi, size=120)
    >>> X, held_out = np.split(np.column_stack([np.cos(angle), np.sin(angle)]), 2)
    >>> base = ManifoldParzen(n_neighbors=4, n_components=1)
    >>> windows = SmoothedScoreDiffusion("loo", 0.0, base=base).fit(X)
    >>> rows = SmoothedScoreDiffusion("loo", 0.0).fit(X)
    >>> bool(windows.score(held_out) > rows.score(held_out))
    True
    """

    def __init__(
        self, n_neighbors: int = _NEIGHBORS, n_components: int | None = None, scale: float = 1.0
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_components = n_components
        self.scale = scale

    def components(self, points: np.ndarray, weights: np.ndarray) -> GaussianComponents:
        """Return the windows without their isotropic part; estimators call this.

        Parameters
        ----------
        points : ndarray of shape (n_points, d)
            Distinct rows.
        weights : ndarray of shape (n_points,)
            Positive, summing to one.

        Returns
        -------
        GaussianComponents

        Raises
        ------
        TypeError, ValueError
            If a parameter is out of range, or there are no more rows than neighbours.
        """
        near = self._neighbors(points, 1)
        axes, variances = self._windows(points, weights, near)
        return GaussianComponents(weights, points, np.zeros(len(points)), axes, variances)

    def leave_one_out(self, points: np.ndarray, weights: np.ndarray, codimension: int = 0) -> float:
        """Return the bandwidth of highest leave-one-out likelihood; estimators call this.

        A row that is left out is no neighbour either: windows that saw it are fitted anew without it.
        Given windows that saw it the likelihood would be nats too high, and the bandwidth too small.

        Parameters
        ----------
        points : ndarray of shape (n_points, r)
            Distinct rows, centred, in coordinates of their affine hull.
        weights : ndarray of shape (n_points,)
            Positive, summing to one.
        codimension : int, default=0
            Number of further dimensions, in which all rows coincide.

        Returns
        -------
        float
            In units of X.

        Raises
        ------
        TypeError, ValueError
            As `components`, and if there are fewer than two rows beside the neighbours.

        Notes
        -----
        Costs N * n_neighbors small singular value decompositions and some twenty sums over all pairs
        of rows; of more than 2000 rows, those are left out that are 2000 taken evenly.
        """
        near = self._neighbors(points, 2)
        backend = Backend.from_params("cpu", "float64")
        posterior = ComponentPosterior(
            self.components(points, weights), backend, memory_limit=_MEMORY_LIMIT
        )
        # For each window and each of its neighbours, the window without it, seen from there.
        unseen = []
        for place in range(near.shape[1] - 1):
            window = self._windows(points, weights, np.delete(near, place, axis=1))
            unseen.append(_Gap.of(points[near[:, place]] - points, *window))
        left_out = np.unique(np.linspace(0, len(points) - 1, _MOST_LEFT_OUT).astype(np.intp))
        x = torch.from_numpy(points)
        shares = weights[left_out] / weights[left_out].sum()
        others = np.log(weight_of_others(weights))

        def log_likelihood(h: float) -> float:
            found = np.empty(len(left_out))
            anew = [np.log(weights) + gap.log_density(h) for gap in unseen]
            for part in slices_within(len(left_out), 64 * points.size, _MEMORY_LIMIT):
                rows = left_out[part]
                parts = posterior.log_parts(x[rows], h**2).numpy()
                parts[np.arange(len(rows)), rows] = -np.inf
                where = np.full(len(points), -1)
                where[rows] = np.arange(len(rows))
                for place, values in enumerate(anew):
                    query = where[near[:, place]]
                    seen = query >= 0
                    parts[query[seen], np.flatnonzero(seen)] = values[seen]
                found[part] = logsumexp(parts, axis=1) - others[rows]
            return float(shares @ found) - codimension * math.log(h)

        lower, upper = stationary_bracket(points, weights)
        return maximize_leave_one_out(log_likelihood, _NARROWEST * lower, upper)

    def _neighbors(self, points: np.ndarray, n_spare: int) -> np.ndarray:
        """Return the nearest others of each row, after checking that there are some to spare."""
        n_neighbors = check_integer("n_neighbors", self.n_neighbors)
        if n_neighbors + n_spare > len(points):
            raise ValueError(
                f"n_neighbors={n_neighbors} is too many for {len(points)} distinct rows; expected at "
                f"most {len(points) - n_spare}. Lower n_neighbors, or fit more rows."
            )
        n_found = n_neighbors + n_spare
        nearest = NearestPoints(points, _MEMORY_LIMIT)
        found = nearest.query(torch.from_numpy(points), n_found)[1].numpy()
        # Rows are distinct, so each is the nearest to itself.
        return found[:, 1:]

    def _windows(
        self, points: np.ndarray, weights: np.ndarray, near: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return axes (N, d, k) and variances (N, k) of offsets to neighbours (N, n)."""
        scale = check_real("scale", self.scale, strict=False, hint="It multiplies covariances.")
        n_components = min(near.shape[1], points.shape[1])
        if self.n_components is not None:
            n_components = min(check_integer("n_components", self.n_components), n_components)
        axes = np.empty((len(points), points.shape[1], n_components))
        variances = np.empty((len(points), n_components))
        bytes_per_row = 64 * near.shape[1] * max(points.shape[1], 1)
        for rows in slices_within(len(points), bytes_per_row, _MEMORY_LIMIT):
            shares = weights[near[rows]]
            shares = shares / shares.sum(1, keepdims=True)
            offsets = np.sqrt(shares)[:, :, None] * (points[near[rows]] - points[rows, None])
            _, spread, directions = np.linalg.svd(offsets, full_matrices=False)
            axes[rows] = directions[:, :n_components].transpose(0, 2, 1)
            variances[rows] = scale * spread[:, :n_components] ** 2
        return axes, variances


class _Gap(NamedTuple):
    """Vectors seen by windows of their own: squares along the axes (N, k) and across (N,)."""

    along: np.ndarray
    across: np.ndarray
    variances: np.ndarray
    n_across: int

    @classmethod
    def of(cls, gaps: np.ndarray, axes: np.ndarray, variances: np.ndarray) -> _Gap:
        along = np.einsum("nd,ndk->nk", gaps, axes)
        across = gaps - np.einsum("nk,ndk->nd", along, axes)
        return cls(along**2, np.sum(across**2, axis=1), variances, np.subtract(*axes.shape[1:]))

    def log_density(self, h: float) -> np.ndarray:
        widened = self.variances + h**2
        squares = np.sum(self.along / widened, axis=1) + self.across / h**2
        volume = np.sum(np.log(widened), axis=1) / 2 + gaussian_log_normalizer(self.n_across, h**2)
        return -0.5 * squares - volume - gaussian_log_normalizer(self.along.shape[1])


def resolve_base(base: Any) -> ManifoldParzen | _Weighted | None:
    """Return what a base stands for: nothing, windows, or weighted mixtures.

    Parameters
    ----------
    base : object
        What the user passed.

    Returns
    -------
    ManifoldParzen, list of (float, mixture) or None
        Weights sum to one; None are the plain rows.

    Raises
    ------
    TypeError, ValueError
        If it is none of what the parameter takes.
    """
    if base is None or (isinstance(base, str) and base == "points"):
        return None
    if isinstance(base, str) and base == "parzen":
        return ManifoldParzen()
    if isinstance(base, ManifoldParzen):
        return base
    several = list(base) if isinstance(base, list | tuple) else [base]
    if not several:
        raise ValueError(f"base={base!r} is empty; expected one mixture or more.")
    pairs = [
        each if isinstance(each, tuple) and len(each) == 2 else (1.0, each) for each in several
    ]
    weights = [check_real("the weight of a mixture in base", weight) for weight, _ in pairs]
    mixtures = [each.estimator if isinstance(each, FrozenEstimator) else each for _, each in pairs]
    # Here and not above: loading it takes as long as the whole of this package.
    from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

    for mixture in mixtures:
        if not isinstance(mixture, GaussianMixture | BayesianGaussianMixture):
            raise TypeError(
                f"base={base!r} holds {mixture!r} of type {type(mixture).__name__}; expected 'points', "
                "'parzen', a skdiffsmooth.bases.ManifoldParzen, a GaussianMixture or "
                "BayesianGaussianMixture of sklearn.mixture, or a list of those or of (weight, "
                "mixture)."
            )
    total = sum(weights)
    return [(weight / total, mixture) for weight, mixture in zip(weights, mixtures, strict=True)]


def base_components(
    base: ManifoldParzen | _Weighted,
    points: np.ndarray,
    weights: np.ndarray,
    n_samples: int,
    is_weighted: bool,
    seed: int,
) -> GaussianComponents:
    """Fit a base to the training rows, where it is not fitted yet, and return its components.

    Parameters
    ----------
    base : ManifoldParzen or list of (float, mixture)
        As `resolve_base` returns it.
    points : ndarray of shape (n_points, d)
        Distinct rows.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    n_samples : int
        Number of training rows, equal ones counted each.
    is_weighted : bool
        Whether the user weighed them.
    seed : int
        For mixtures without a `random_state`.

    Returns
    -------
    GaussianComponents
        In units of X.

    Raises
    ------
    ValueError
        If rows are weighted and a mixture is to be fitted, or if one was fitted to other columns.
    """
    if isinstance(base, ManifoldParzen):
        return base.components(points, weights)
    parts = []
    for share, given in base:
        mixture = given
        if not hasattr(mixture, "means_"):
            if is_weighted:
                raise ValueError(
                    f"sample_weight cannot be used with base={mixture!r}, whose fit takes none; pass "
                    "a mixture that is fitted already, base='parzen', or repeat the rows."
                )
            mixture = clone(given)
            if mixture.random_state is None:
                mixture.set_params(random_state=seed)
            # Equal rows count each, in an order that is not that of X.
            mixture.fit(np.repeat(points, np.rint(weights * n_samples).astype(np.intp), axis=0))
        if mixture.means_.shape[1] != points.shape[1]:
            raise ValueError(
                f"base={mixture!r} was fitted to {mixture.means_.shape[1]} features, and X has "
                f"{points.shape[1]}; fit it to the same columns."
            )
        parts.append((share * mixture.weights_, mixture.means_, _covariances(mixture)))
    joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
    # A component may have lost all of its weight (BayesianGaussianMixture switches some off).
    kept = joined[0] > 0
    shares = joined[0][kept]
    return GaussianComponents.of(shares / shares.sum(), joined[1][kept], joined[2][kept])


def base_reference(
    base: Any,
    components: GaussianComponents,
    coordinates: np.ndarray,
    weights: np.ndarray,
    codimension: int,
) -> Callable[[], float] | float:
    """Return what a bandwidth that is not given is measured by.

    Parameters
    ----------
    base : object
        What the user passed.
    components : GaussianComponents
        What has become of it.
    coordinates : ndarray of shape (n_points, r)
        Distinct rows, in coordinates of the hull.
    weights : ndarray of shape (n_points,)
        Their weights, summing to one.
    codimension : int
        Number of dimensions outside the hull.

    Returns
    -------
    callable or float
        Returns the bandwidth of highest leave-one-out likelihood, for windows; the narrowest standard
        deviation of a mixture.
    """
    resolved = resolve_base(base)
    if isinstance(resolved, ManifoldParzen):
        return lambda: resolved.leave_one_out(coordinates, weights, codimension)
    return components.narrowest


def _covariances(mixture: Any) -> np.ndarray:
    """Return the covariances of a mixture of any `covariance_type`, shape (K, d, d)."""
    found = mixture.covariances_
    n_components, d = mixture.means_.shape
    kind = mixture.covariance_type
    if kind == "full":
        return found
    if kind == "tied":
        return np.broadcast_to(found, (n_components, d, d))
    diagonals = found if kind == "diag" else np.repeat(found[:, None], d, axis=1)
    return diagonals[:, :, None] * np.eye(d)
