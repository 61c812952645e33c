"""Gaussian mixtures that a diffusion can smooth in place of the training rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator

from ._engine.components import GaussianComponents
from ._engine.mixture_fit import fit_restarts, is_restart
from ._utils.gaussian import gaussian_log_normalizer
from ._utils.memory import slices_within
from ._utils.rows import evenly, order_from_center
from ._utils.validation import check_integer, check_real
from ._utils.warnings import warn_user
from .bandwidth import maximize_leave_one_out, maximize_near, stationary_bracket, weight_of_others
from .manifolds._neighbors import NearestPoints

__all__ = ["ManifoldParzen", "base_components", "resolve_base"]

# The best number of neighbours on most tables of docs/evidence/bases.md, with n_components=None.
_NEIGHBORS = 20
_MEMORY_LIMIT = 1024.0  # MiB; estimators pass their own

# The leave-one-out likelihood is that of at most _MOST_SCORED rows, with a standard error of some
# hundredths of a nat. The search for its maximum starts with _FEW rows.
_MOST_SCORED, _FEW = 2000, 256
# The bandwidth of windows is smaller than that of a KDE, whose lower bound is multiplied by this.
_LOWEST_BANDWIDTH = 0.02

# Relative differences of distances below this are rounding errors.
_TIE = 1e-9

_Weighted = list[tuple[float, Any]]


class ManifoldParzen(BaseEstimator):
    """Manifold Parzen windows: a Gaussian at each row, with a covariance from its neighbours.

    The window of a row x_i is N(x_i, scale * C_i + bandwidth^2 I). C_i is the second moment of the
    offsets x_j - x_i to its nearest rows, restricted to its leading principal directions, and the
    bandwidth is that of the estimator.

    Parameters
    ----------
    n_neighbors : int, default=20
        Neighbours of a row that its covariance is computed from; less than the number of distinct rows.
    n_components : int or None, default=None
        Number of principal directions of C_i, those of largest variance. None keeps all that the
        neighbours span.
    scale : float, default=1.0
        Factor on C_i, without unit; with 0 the base is the training rows.

    Notes
    -----
    The cost is a search of neighbours and N small singular value decompositions. A window of k
    directions in r dimensions takes memory of the order of r k.

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

    def components(
        self, points: np.ndarray, weights: np.ndarray, memory_limit: float = _MEMORY_LIMIT
    ) -> GaussianComponents:
        """Return the Gaussian windows without their isotropic part; estimators call this.

        Points (n_points, d) are distinct, weights (n_points,) sum to one, and temporaries take
        `memory_limit` MiB. Raises TypeError or ValueError if a parameter is out of range, or if there
        are not more rows than neighbours.
        """
        near = self._neighbors(points, 1, memory_limit)
        axes, variances = self._windows(points, weights, near, memory_limit)
        return GaussianComponents(weights, points, np.zeros(len(points)), axes, variances)

    def leave_one_out(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        codimension: int = 0,
        memory_limit: float = _MEMORY_LIMIT,
    ) -> float:
        """Return the bandwidth of highest leave-one-out likelihood; estimators call this.

        A row is scored without its own window, and by windows of other rows that are computed without it
        as a neighbour. Otherwise the likelihood would be nats too high, and the bandwidth too small.

        Parameters
        ----------
        points : ndarray of shape (n_points, r)
            Distinct rows, centred, in coordinates of their affine hull.
        weights : ndarray of shape (n_points,)
            Positive, summing to one.
        codimension : int, default=0
            Number of further dimensions, in which all rows coincide.
        memory_limit : float, default=1024
            Bound on temporaries, in MiB, except ``n_neighbors * n_points * (n_components + 2)`` numbers.

        Returns
        -------
        float
            In units of X.

        Raises
        ------
        TypeError, ValueError
            As `components`, and if there are fewer than two rows more than neighbours.

        Notes
        -----
        The cost is 2 N small singular value decompositions (N * n_neighbors with fewer components than
        the neighbours span), some twenty likelihoods of 256 rows, and three to six of all rows. With
        more than 2000 rows, 2000 evenly spaced ones are scored.
        """
        near = self._neighbors(points, 2, memory_limit)
        windows = self._windows(points, weights, near[:, :-1], memory_limit)
        reduced = self._without_neighbors(points, weights, near, memory_limit)
        others = np.log(weight_of_others(weights))
        log_weights = np.log(weights)

        def log_likelihood_of(scored: np.ndarray) -> Callable[[float], float]:
            row_weights = weights[scored] / weights[scored].sum()
            # Half of the memory is for the offsets of one part, the other half for stored offsets.
            parts = list(slices_within(len(scored), 64 * points.size, memory_limit / 2))

            def offsets(part: slice) -> _Offsets:
                return _Offsets.of_all(points[scored[part]], points, *windows)

            # Offsets do not depend on the bandwidth: they are stored if all fit into that half.
            n_bytes = 8 * len(scored) * len(points) * (windows[1].shape[1] + 1)
            is_kept = n_bytes <= memory_limit / 2 * 2**20
            kept = [offsets(part) for part in parts] if is_kept else None

            def log_likelihood(h: float) -> float:
                log_densities = np.empty(len(scored))
                of_neighbors = log_weights + reduced(h)
                for number, part in enumerate(parts):
                    rows = scored[part]
                    each_window = kept[number] if kept else offsets(part)
                    log_parts = log_weights + each_window.log_density(h)
                    log_parts[np.arange(len(rows)), rows] = -np.inf
                    query_of = np.full(len(points), -1)
                    query_of[rows] = np.arange(len(rows))
                    for k, values in enumerate(of_neighbors):
                        query = query_of[near[:, k]]
                        is_scored = query >= 0
                        log_parts[query[is_scored], np.flatnonzero(is_scored)] = values[is_scored]
                    sums = torch.logsumexp(torch.from_numpy(log_parts), dim=1)
                    log_densities[part] = sums.numpy() - others[rows]
                return float(row_weights @ log_densities) - codimension * math.log(h)

            return log_likelihood

        lower, upper = stationary_bracket(points, weights)
        lower *= _LOWEST_BANDWIDTH
        few = evenly(len(points), _FEW)
        h = maximize_leave_one_out(log_likelihood_of(few), lower, upper)
        if len(few) == len(points):
            return h
        scored = log_likelihood_of(evenly(len(points), _MOST_SCORED))
        return maximize_near(scored, h, lower, upper)

    def _neighbors(self, points: np.ndarray, n_spare: int, memory_limit: float) -> np.ndarray:
        """Return the indices of the n_neighbors + n_spare - 1 nearest other rows of each row.

        Of rows that are equally near up to rounding, as on a lattice, those of lowest index are taken.
        """
        n_neighbors = check_integer("n_neighbors", self.n_neighbors)
        if n_neighbors + n_spare > len(points):
            raise ValueError(
                f"n_neighbors={n_neighbors} is too many for {len(points)} distinct rows; expected at "
                f"most {len(points) - n_spare}. Lower n_neighbors, or fit more rows."
            )
        nearest, n = NearestPoints(points, memory_limit), n_neighbors + n_spare
        near = np.empty((len(points), n - 1), dtype=np.intp)
        rows, n_candidates = np.arange(len(points)), n
        while len(rows):
            n_candidates = min(n_candidates + n, len(points))
            undecided = [rows[:0]]
            for part in slices_within(len(rows), 64 * n_candidates, memory_limit):
                x = torch.from_numpy(points[rows[part]])
                distances, indices = (t.numpy() for t in nearest.query(x, n_candidates))
                # Ranks by distance, equal for equal distances; the first column is the row itself.
                is_farther = distances[:, 1:] > distances[:, :-1] * (1 + _TIE)
                ranks = np.cumsum(is_farther, axis=1)
                order = np.lexsort((indices[:, 1:], ranks))[:, : n - 1]
                near[rows[part]] = np.take_along_axis(indices[:, 1:], order, axis=1)
                undecided.append(rows[part][ranks[:, -1] == ranks[:, n - 2]])
            rows = np.concatenate(undecided) if n_candidates < len(points) else rows[:0]
        return near

    def _without_neighbors(
        self, points: np.ndarray, weights: np.ndarray, near: np.ndarray, memory_limit: float
    ) -> Callable[[float], np.ndarray]:
        """Return a function that maps the bandwidth to log-densities (n - 1, N) of neighbours.

        Each is that of the neighbour under the window computed without it. `near` (N, n) are the
        neighbours; the last one takes the place of the one that is left out.
        """
        d = points.shape[1]
        if self.n_components is not None and self.n_components < min(near.shape[1], d):
            parts = []
            for k in range(near.shape[1] - 1):
                rest = np.delete(near, k, axis=1)
                window = self._windows(points, weights, rest, memory_limit)
                parts.append(_Offsets.of(points[near[:, k]] - points, *window))
            return lambda h: np.stack([part.log_density(h) for part in parts])
        axes, variances = self._windows(points, weights, near, memory_limit)
        total = weights[near].sum(axis=1)
        along, kept, taken = [], [], []
        for k in range(near.shape[1] - 1):
            along.append(_Offsets.of(points[near[:, k]] - points, axes, variances).along)
            kept.append(total / (total - weights[near[:, k]]))
            taken.append(self.scale * (kept[-1] - 1))
        return _Removed(np.stack(along), variances, np.stack(kept), np.stack(taken), d).log_density

    def _windows(
        self, points: np.ndarray, weights: np.ndarray, near: np.ndarray, memory_limit: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return principal axes (N, d, k) and variances (N, k) of offsets to neighbours (N, n)."""
        scale = check_real("scale", self.scale, strict=False, hint="It multiplies covariances.")
        n_components = min(near.shape[1], points.shape[1])
        if self.n_components is not None:
            n_components = min(check_integer("n_components", self.n_components), n_components)
        axes = np.empty((len(points), points.shape[1], n_components))
        variances = np.empty((len(points), n_components))
        bytes_per_row = 64 * near.shape[1] * max(points.shape[1], 1)
        for rows in slices_within(len(points), bytes_per_row, memory_limit):
            row_weights = weights[near[rows]]
            row_weights = row_weights / row_weights.sum(1, keepdims=True)
            offsets = np.sqrt(row_weights)[:, :, None] * (points[near[rows]] - points[rows, None])
            _, singular_values, directions = np.linalg.svd(offsets, full_matrices=False)
            axes[rows] = directions[:, :n_components].transpose(0, 2, 1)
            variances[rows] = scale * singular_values[:, :n_components] ** 2
        return axes, variances


class _Offsets(NamedTuple):
    """Squared coordinates of vectors along the axes of N windows, and squared lengths across the axes.

    `along` is (..., N, k), `across` (..., N), and `variances` (N, k) are those along the axes. There are
    `n_across` dimensions across.
    """

    along: np.ndarray
    across: np.ndarray
    variances: np.ndarray
    n_across: int

    @classmethod
    def of(cls, vectors: np.ndarray, axes: np.ndarray, variances: np.ndarray) -> _Offsets:
        """Return the offsets of one vector (N, d) for each window."""
        along = np.einsum("nd,ndk->nk", vectors, axes)
        across = vectors - np.einsum("nk,ndk->nd", along, axes)
        return cls(along**2, np.sum(across**2, axis=1), variances, np.subtract(*axes.shape[1:]))

    @classmethod
    def of_all(
        cls, x: np.ndarray, points: np.ndarray, axes: np.ndarray, variances: np.ndarray
    ) -> _Offsets:
        """Return the offsets of each row x (B, d) from the center (N, d) of each window."""
        n, d, k = axes.shape
        along = (x @ axes.transpose(1, 0, 2).reshape(d, n * k)).reshape(len(x), n, k)
        along = (along - np.einsum("nd,ndk->nk", points, axes)) ** 2
        # If the axes span the space, the difference is rounding, which a small bandwidth would enlarge.
        across = np.zeros((len(x), n))
        if k < d:
            across = np.maximum(cdist(x, points, "sqeuclidean") - along.sum(axis=2), 0)
        return cls(along, across, variances, d - k)

    def log_density(self, h: float) -> np.ndarray:
        """Return the log-density (..., N) of each offset in its window with variances plus h^2."""
        widened = self.variances + h**2
        squares = np.einsum("...nk,nk->...n", self.along, 1 / widened) + self.across / h**2
        volume = np.sum(np.log(widened), axis=1) / 2 + gaussian_log_normalizer(self.n_across, h**2)
        return -0.5 * squares - volume - gaussian_log_normalizer(self.along.shape[-1])


class _Removed(NamedTuple):
    """Offsets of the neighbours of N windows, and window covariances without one neighbour each.

    Without a neighbour at offset o, with a fraction w of the neighbours' weight, a window of covariance
    C has (C - w o o^T) / (1 - w): its inverse and determinant follow from those of C by the formula of
    Sherman and Morrison. Squares of offsets along the axes are `along` (n, N, k), `kept` (n, N) is
    1 / (1 - w), and `taken` (n, N) is w / (1 - w), times the scale of the windows.
    """

    along: np.ndarray
    variances: np.ndarray
    kept: np.ndarray
    taken: np.ndarray
    dimension: int

    def log_density(self, h: float) -> np.ndarray:
        """Return log-densities (n, N) of neighbours under windows without them, with h^2 added."""
        # With equal weights the factor 1 / (1 - w) is the same for all neighbours.
        kept = self.kept[:1] if np.ptp(self.kept) == 0 else self.kept
        widened = kept[:, :, None] * self.variances + h**2
        squares = np.einsum(
            "jnk,jnk->jn", self.along, np.broadcast_to(1 / widened, self.along.shape)
        )
        # Rounding would make the rest negative where only this neighbour spans a direction.
        rest = np.maximum(1 - self.taken * squares, np.finfo(np.float64).eps)
        volume = np.sum(np.log(widened), axis=2) + np.log(rest)
        n_across = self.dimension - self.variances.shape[1]
        volume = volume / 2 + gaussian_log_normalizer(n_across, h**2)
        return -0.5 * squares / rest - volume - gaussian_log_normalizer(self.variances.shape[1])


def resolve_base(base: Any) -> ManifoldParzen | _Weighted | None:
    """Return the windows or weighted mixtures of the parameter `base`, or None for the training rows.

    A wrong value raises TypeError or ValueError.
    """
    if base is None or (isinstance(base, str) and base == "points"):
        return None
    if isinstance(base, str) and base == "parzen":
        return ManifoldParzen()
    if isinstance(base, ManifoldParzen):
        return base
    several = list(base) if isinstance(base, list | tuple) else [base]
    if not several:
        raise ValueError(
            f"base={base!r} is empty; expected one mixture or more. Pass None for the plain rows."
        )
    pairs = [
        each if isinstance(each, tuple) and len(each) == 2 else (1.0, each) for each in several
    ]
    weights = [check_real("the weight of a mixture in base", weight) for weight, _ in pairs]
    mixtures = [each.estimator if isinstance(each, FrozenEstimator) else each for _, each in pairs]
    # Imported here, since it takes as long as the whole package.
    from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

    for mixture in mixtures:
        if not isinstance(mixture, GaussianMixture | BayesianGaussianMixture):
            raise TypeError(
                f"base={base!r} contains {mixture!r} of type {type(mixture).__name__}; expected "
                "'points', 'parzen', a skdiffsmooth.bases.ManifoldParzen, a GaussianMixture or "
                "BayesianGaussianMixture of sklearn.mixture, or a list of mixtures or of pairs "
                "(weight, mixture)."
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
    memory_limit: float,
    unit: float,
) -> GaussianComponents:
    """Return the Gaussian components of a base; mixtures that are not fitted yet are fitted here.

    Points (n_points, d) are the distinct rows divided by `unit`, a length in units of X, and so are the
    components. Weights sum to one, `n_samples` is the number of rows with repetitions, `is_weighted` is
    whether the user gave sample weights, `seed` is for mixtures without a `random_state`, and
    `memory_limit` bounds temporaries, in MiB. ValueError is raised if a mixture has to be fitted to
    weighted rows, or was fitted to another number of columns.
    """
    if isinstance(base, ManifoldParzen):
        return base.components(points, weights, memory_limit)
    parts = []
    for restarts in _alike(base):
        mixtures, rows_unit = [mixture for _, mixture in restarts], unit
        if not hasattr(mixtures[0], "means_"):
            if is_weighted:
                raise ValueError(
                    f"sample_weight cannot be used with base={mixtures[0]!r}, whose fit takes none. "
                    "Pass a mixture that is already fitted, or base='parzen', or repeat the rows of X."
                )
            mixtures = [clone(mixture) for mixture in mixtures]
            for mixture in mixtures:
                if mixture.random_state is None:
                    mixture.set_params(random_state=seed)
            # Equal rows are repeated. Random starts depend on the order of rows, so this one depends
            # neither on the order of the rows of X nor on that of its columns.
            order = order_from_center(points)
            counts = np.rint(weights[order] * n_samples).astype(np.intp)
            rows = np.repeat(points[order], counts, axis=0)
            if len(mixtures) > 1:
                fit_restarts(mixtures, rows, memory_limit)
            else:
                mixtures[0].fit(rows)
            rows_unit = 1.0
        for (mixture_weight, _), mixture in zip(restarts, mixtures, strict=True):
            if mixture.means_.shape[1] != points.shape[1]:
                raise ValueError(
                    f"base={mixture!r} was fitted to {mixture.means_.shape[1]} features, but X has "
                    f"{points.shape[1]}; expected the same columns. Fit it to the columns of X."
                )
            parts.append((mixture_weight * mixture.weights_, *_moments(mixture, rows_unit)))
    joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
    # BayesianGaussianMixture gives some components no weight.
    kept = joined[0] > 0
    component_weights = joined[0][kept] / joined[0][kept].sum()
    _warn_of_lost_columns(joined[2][kept])
    return GaussianComponents.of(component_weights, joined[1][kept], joined[2][kept])


def _alike(base: _Weighted) -> list[_Weighted]:
    """Return the weighted mixtures in groups: consecutive ones that differ in their seeds only."""
    groups: list[_Weighted] = []
    for pair in base:
        if groups and is_restart(pair[1], groups[-1][0][1]):
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return groups


def _warn_of_lost_columns(covariances: np.ndarray) -> None:
    """Warn if one of the covariances (K, d, d) has a variance below the rounding error of another."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    lost = variances < np.finfo(np.float64).eps * variances.max(axis=1, keepdims=True)
    if lost.any():
        component, column = np.argwhere(lost)[0]
        own, largest = np.sqrt(variances[component, column]), np.sqrt(variances[component].max())
        warn_user(
            f"base: component {component} has the standard deviation {own:.2g} in column {column} and "
            f"{largest:.2g} in another. In one unit for all columns the smaller one is lost to "
            "rounding, and log-densities are wrong. Scale the columns and fit the mixture to those."
        )


def _moments(mixture: Any, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the means (K, d) and covariances (K, d, d) of a fitted mixture, in units of `unit`."""
    means, covariances = mixture.means_ / unit, mixture.covariances_ / unit / unit
    n_components, d = means.shape
    kind = mixture.covariance_type
    if kind == "full":
        return means, covariances
    if kind == "tied":
        return means, np.broadcast_to(covariances, (n_components, d, d))
    diagonals = covariances if kind == "diag" else np.repeat(covariances[:, None], d, axis=1)
    return means, diagonals[:, :, None] * np.eye(d)
