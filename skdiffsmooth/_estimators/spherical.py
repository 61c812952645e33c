"""SphericalScoreDiffusion: score-smoothed diffusion of directions in space and of rotations.

Noise is that of the heat kernel, p_v the mixture of heat kernels at the rows. The score is the gradient
of log p_v averaged over small rotations exp(sigma W) of the query, W antisymmetric with standard normal
entries, so that it is averaged along geodesics. Along the flow dx/dy = -y s(x, y^2), y = sqrt(v),

    log p_h(x) = log p_T(x_T) - int_h^T y^2 div s(x_y, y^2) d log y.

Everything is computed in coordinates of the principal axes of the rows, in which the rotations are
fixed: if the data are rotated, so are the model and its samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import expm
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._engine.sphere import SpherePosterior
from .._utils.draws import draw_points
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.progress import reports_fit
from .._utils.rows import check_sample_weight, evenly, merge_rows
from .._utils.table import check_table
from .._utils.validation import check_choice, check_even, check_integer, check_real
from .._utils.warnings import warn_user
from ..kernels._nodes import gaussian_nodes

__all__ = ["SphericalScoreDiffusion"]

# Rows this far from the sphere, or from a rotation, are taken for rounded ones.
_TOLERANCE = 1e-3
# Factors of the kernel estimate's bandwidth that are compared: of the bandwidth, and of sigma.
_CANDIDATES = ((1.0, 0.0), (0.85, 1.0), (0.85, 2.0), (0.7, 1.5), (0.7, 3.0))
# The same where the other scale is given.
_FACTORS, _SIGMA_FACTORS = (1.0, 0.85, 0.7), (0.0, 1.0, 2.0, 3.0)
# Rows that these are compared on, at most.
_MAX_ROWS, _MAX_ROWS_OF_KERNELS = 300, 2000
# Rotations and steps of the candidates.
_SCREENING = 16, 12
# Bandwidths of the kernel estimate that are compared, in radians.
_BANDWIDTHS, _N_BANDWIDTHS = (1e-6, 1.5), 28
_MAX_BACKGROUND = 0.5
# The smallest and the largest value of a parameter, and what to pass. Cosines resolve no smaller angles.
_RADIANS = "Pass a number in radians, or 'auto'; np.radians converts degrees."
_LIMITS = {
    "bandwidth": (_BANDWIDTHS[0], 2 * math.pi, _RADIANS),
    "sigma": (0.0, 2 * math.pi, _RADIANS),
    "background": (
        0.0,
        _MAX_BACKGROUND,
        "Pass the weight of the uniform distribution beside that of the model, or 'auto'.",
    ),
}


@dataclass(frozen=True)
class _Space:
    """A space: what its rows may be, and its volume in radians."""

    name: str
    n_columns: tuple[int, ...]
    dimension: int
    volume: float
    angle: float
    """Angle of the space in radians, for one radian of the sphere that it is computed on."""
    expected: str


_SPACES = {
    "sphere": _Space(
        "sphere",
        (3,),
        2,
        4 * math.pi,
        1.0,
        "unit vectors of 3 columns. Of longitudes and latitudes in radians these are "
        "np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]); "
        "convert degrees by np.radians first, and declare an angle in the plane in the periods of "
        "SmoothedScoreDiffusion",
    ),
    "rotations": _Space(
        "rotations",
        (4, 9),
        3,
        8 * math.pi**2,
        2.0,
        "unit quaternions of 4 columns, or the 9 entries of rotation matrices, row by row. Of Euler "
        "angles these are scipy.spatial.transform.Rotation.from_euler('zyx', X, degrees=True)"
        ".as_quat(), with degrees=False for radians",
    ),
}


def _unit_rows(X: np.ndarray, space: _Space) -> np.ndarray:
    """Return rows (n, 3) or (n, 4) of length one, of checked rows (n, k) of a space."""
    if X.shape[1] not in space.n_columns:
        raise ValueError(
            f"X has {X.shape[1]} columns with space={space.name!r}; expected {space.expected}. Pass "
            "space='sphere' with vectors, space='rotations' with quaternions or matrices."
        )
    if X.shape[1] == 9:
        matrices = X.reshape(-1, 3, 3)
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        _check_near("rotation matrices, but R R^T differs from the identity", errors, space)
        mirrors = np.flatnonzero(np.linalg.det(matrices) < 0)
        if len(mirrors):
            raise ValueError(
                f"row {mirrors[0]} of X is a reflection: its determinant is -1, as in {len(mirrors)} of "
                f"{len(X)} rows; expected rotation matrices of determinant 1. Change the sign of one "
                "axis of the frame in which they were recorded."
            )
        return Rotation.from_matrix(matrices).as_quat()
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(X, axis=1)
    zeros = np.flatnonzero(norms == 0)
    if len(zeros):
        raise ValueError(
            f"row {zeros[0]} of X is zero, which has no direction, as {len(zeros)} of {len(X)} rows; "
            f"expected {space.expected}. Drop these rows."
        )
    _check_near("unit vectors, but their length differs from 1", np.abs(norms - 1), space)
    return X / norms[:, None]


def _check_near(what: str, errors: np.ndarray, space: _Space) -> None:
    """Raise an error if rows differ from what is expected by more than rounding; errors are (n,)."""
    wrong = np.flatnonzero(~(errors <= _TOLERANCE))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"rows of X are no {what} by {errors[row]:.3g} in row {row}, and by more than "
            f"{_TOLERANCE:g} in {len(wrong)} of {len(errors)} rows; expected {space.expected}. If the "
            "lengths of vectors do not matter, divide by them: X / np.linalg.norm(X, axis=1, "
            "keepdims=True)."
        )


def _given(name: str, value: Any) -> float | None:
    """Return one of the parameters with limits as a checked number, or None if it is "auto"."""
    smallest, largest, hint = _LIMITS[name]
    if isinstance(value, str):
        check_choice(name, value, ("auto",), hint=hint)
        return None
    number = check_real(name, value, minimum=smallest, strict=False, hint=hint)
    if number > largest:
        raise ValueError(f"{name}={number:g} is above {largest:.3g}, the largest value. {hint}")
    return number


def _principal_axes(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return axes (d, d) as columns that turn with the points (N, d) and ignore their signs."""
    moment = (points * weights[:, None]).T @ points
    axes = np.linalg.eigh(moment)[1][:, ::-1]
    z = points @ axes
    signs = np.where((weights * z[:, 0] ** 3) @ z < 0, -1.0, 1.0)
    signs[0] = 1.0
    return axes * signs


def _rotation_nodes(dimension: int, sigma: float, n_nodes: int, level: int) -> np.ndarray:
    """Return rotations exp(sigma W) (M, d, d), with their inverses, for the noise level of an index."""
    i, j = np.triu_indices(dimension, 1)
    generators = np.zeros((n_nodes, dimension, dimension))
    generators[:, i, j] = sigma * gaussian_nodes(len(i), n_nodes, level, 0)
    generators -= generators.transpose(0, 2, 1)
    return expm(generators)


def _moved(x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Return unit vectors x (n, d) moved along geodesics by tangent vectors (n, d)."""
    angle = np.linalg.norm(tangent, axis=1, keepdims=True)
    y = np.cos(angle) * x + np.sinc(angle / math.pi) * tangent
    return y / np.linalg.norm(y, axis=1, keepdims=True)


def _transported(tangent: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return tangent vectors (n, d) at `start` (n, d), transported along geodesics to `end` (n, d)."""
    cosine = np.sum(start * end, axis=1, keepdims=True)
    along = np.sum(tangent * end, axis=1, keepdims=True) / np.maximum(1 + cosine, 1e-12)
    return tangent - along * (start + end)


@dataclass(frozen=True, eq=False)
class _Flow:
    """The flow of a smoothed score between noise scales, in principal axes and radians of the sphere.

    `scales` (n_steps + 1,) increase from the bandwidth to the terminal scale; `sigma` is the smoothing.
    """

    posterior: SpherePosterior
    scales: np.ndarray
    sigma: float
    n_nodes: int

    @classmethod
    def of(
        cls, posterior: SpherePosterior, bandwidth: float, sigma: float, n_nodes: int, n_steps: int
    ) -> _Flow:
        """Return the flow from a bandwidth up to the scale of the data or three times sigma."""
        # Points from their main axis: the sine of their angle to it, for each dimension.
        off_axis = posterior.points[:, 1:] ** 2
        std = math.sqrt(float(np.exp(posterior.log_weights) @ off_axis.mean(axis=1)))
        terminal = max(3 * sigma, std, 2 * bandwidth)
        return cls(posterior, np.geomspace(bandwidth, terminal, n_steps + 1), sigma, n_nodes)

    def log_density(self, x: np.ndarray, exclude: np.ndarray | None = None) -> np.ndarray:
        """Return log-densities (n,) at x (n, d), without the points of indices `exclude` (n,)."""
        if self.sigma == 0:
            return self.posterior.log_density(x, self.scales[0] ** 2, exclude)
        x, change = self._followed(x, self.scales, exclude)
        return self.posterior.log_density(x, self.scales[-1] ** 2, exclude) - change

    def draw(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Draw n unit vectors (n, d)."""
        scales = self.scales[:1] if self.sigma == 0 else self.scales[::-1]
        points = self.posterior.points
        x = draw_points(rng, points, np.exp(self.posterior.log_weights), n)
        theta = self.posterior.kernel(scales[0] ** 2).draw_angles(rng, n, points.shape[1] - 1)
        tangent = rng.standard_normal(x.shape)
        tangent -= np.sum(tangent * x, axis=1, keepdims=True) * x
        tangent *= (theta / np.linalg.norm(tangent, axis=1))[:, None]
        return self._followed(_moved(x, tangent), scales, None)[0]

    def _followed(
        self, x: np.ndarray, scales: np.ndarray, exclude: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x (n, d) after Heun steps along scales, and the integral (n,) of y^2 div s d log y."""
        change = np.zeros(len(x))
        for start, end in pairwise(scales):
            # An interval has the same rotations at both ends, upwards and downwards.
            level = int(np.searchsorted(self.scales, min(start, end)))
            rotations = _rotation_nodes(x.shape[1], self.sigma, self.n_nodes, level)
            length = math.log(end / start)
            here = self.posterior.field(x, start**2, rotations, exclude)
            first = -length * start**2 * here.score
            ahead = _moved(x, first)
            there = self.posterior.field(ahead, end**2, rotations, exclude)
            second = -length * end**2 * _transported(there.score, ahead, x)
            x = _moved(x, (first + second) / 2)
            change += length / 2 * (start**2 * here.divergence + end**2 * there.divergence)
        return x, change


def _mixed(log_density: np.ndarray, background: float, space: _Space) -> np.ndarray:
    """Return log-densities (n,) mixed with the uniform distribution, in radians of the sphere."""
    if background == 0:
        return log_density
    log_uniform = space.dimension * math.log(space.angle) - math.log(space.volume)
    return np.logaddexp(log_density + math.log1p(-background), log_uniform + math.log(background))


def _best_background(log_density: np.ndarray, weights: np.ndarray, space: _Space) -> float:
    """Return the weight of the uniform distribution of highest likelihood, given left-out rows (n,).

    It is at least 1 / (n + 1), since the next row may be unlike all others.
    """
    least = 1 / (len(weights) + 1)

    def loss(b: float) -> float:
        return -float(weights @ _mixed(log_density, b, space))

    best = minimize_scalar(loss, bounds=(least, _MAX_BACKGROUND), options={"xatol": 1e-4}).x
    return min((least, float(best)), key=loss)


def _best_bandwidth(likelihood: Callable[[float], float]) -> float:
    """Return the bandwidth of highest likelihood, in radians of the sphere."""
    grid = np.geomspace(*_BANDWIDTHS, _N_BANDWIDTHS)
    best = int(np.argmax([likelihood(h) for h in grid]))
    if best == 0:
        warn_user(
            "the bandwidth of highest leave-one-out likelihood is the smallest that is compared, "
            f"{grid[0]:g} radians: rows are about as close as float64 resolves angles. If they are "
            "copies, pass sample_weight instead; if not, fit their positions in the tangent plane by "
            "SmoothedScoreDiffusion."
        )
    ends = np.log(grid[[max(best - 1, 0), min(best + 1, len(grid) - 1)]])
    refined = minimize_scalar(
        lambda log_h: -likelihood(math.exp(log_h)), bounds=tuple(ends), options={"xatol": 0.02}
    )
    return math.exp(refined.x)


def _chosen_flow(
    posterior: SpherePosterior,
    space: _Space,
    bandwidth: float | None,
    sigma: float | None,
    given: float | None,
    n_nodes: int,
    n_steps: int,
) -> tuple[_Flow, float]:
    """Return the flow of highest leave-one-out likelihood, and the weight of the background.

    None is what is chosen: a scale in radians of the sphere, or the given weight of the background.
    """
    n_points = len(posterior.points)
    weights = np.exp(posterior.log_weights)

    def screened(h: float, smoothing: float, most: int) -> tuple[float, float]:
        """Return the mean of left-out log-densities of some rows, and the background's weight."""
        rows = evenly(n_points, most)
        own = weights[rows] / weights[rows].sum()
        flow = _Flow.of(posterior, h, smoothing, *_SCREENING)
        log_density = flow.log_density(posterior.points[rows], rows)
        b = _best_background(log_density, own, space) if given is None else given
        return float(own @ _mixed(log_density, b, space)), b

    if bandwidth is None:
        bandwidth = _best_bandwidth(lambda h: screened(h, 0.0, _MAX_ROWS_OF_KERNELS)[0])
        factors = _CANDIDATES if sigma is None else [(f, 0.0) for f in _FACTORS]
    else:
        factors = [(1.0, f) for f in _SIGMA_FACTORS] if sigma is None else [(1.0, 0.0)]
    pairs = [(a * bandwidth, b * bandwidth if sigma is None else sigma) for a, b in factors]
    best, background = 0, given
    if len(pairs) > 1 or background is None:
        assessed = [screened(h, smoothing, _MAX_ROWS) for h, smoothing in pairs]
        best = int(np.argmax([value for value, _ in assessed]))
        background = assessed[best][1]
    return _Flow.of(posterior, *pairs[best], n_nodes, n_steps), background


class SphericalScoreDiffusion(DensityEstimatorMixin, BaseEstimator):
    """Score-smoothed diffusion of directions in space (the sphere S^2), or of rotations (SO(3)).

    Choose it where rows are unit vectors or rotations: places on the globe, directions of motion, axes,
    orientations of bodies. Distances, noise and smoothing are along the sphere, so that there is no edge
    and no pole, and densities are with respect to area. For angles in the plane, also together with
    other columns, use ``SmoothedScoreDiffusion(periods=...)``.

    >>> import numpy as np
    >>> from skdiffsmooth import SphericalScoreDiffusion
    >>> X = np.random.RandomState(0).normal(size=(100, 3)) + [2.0, 0.0, 0.0]
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> model = SphericalScoreDiffusion().fit(X)
    >>> model.sample(2, random_state=0).shape
    (2, 3)
    >>> uniform = -np.log(4 * np.pi)
    >>> bool(model.score(X) > uniform)
    True

    Parameters
    ----------
    bandwidth : float or "auto", default="auto"
        Noise left in the samples, a standard deviation in radians for each dimension of the space, from
        1e-6 to 2 pi.
        "auto" is that of the kernel density estimate of highest leave-one-out likelihood, times 0.7 to
        1, which is chosen together with `sigma`.
    sigma : float or "auto", default="auto"
        Scale of the smoothing of the score, in radians. 0 is the kernel density estimate with the heat
        kernel. "auto" compares 0 and multiples of the bandwidth, by the leave-one-out likelihood of at
        most 300 rows.
    space : {"sphere", "rotations"}, default="sphere"
        "sphere": rows are unit vectors with 3 columns. "rotations": rows are unit quaternions with 4
        columns in any order, q and -q being one rotation, or rotation matrices with 9 columns, row by
        row; an angle is that of the rotation from one to the other.
    background : float or "auto", default="auto"
        Weight of the uniform distribution that is mixed to the model, from 0 to 0.5, for rows far from
        all others. "auto" is that of highest leave-one-out likelihood, and at least 1 / (n + 1).
    n_nodes : int, default=32
        Rotations that the score is averaged over at each noise scale, an even number. More of them
        lower the error of the average.
    n_steps : int, default=24
        Steps of Heun's method in the logarithm of the noise scale. More of them lower the error.
    memory_limit : float, default=1024
        Bound on temporaries, in MiB.

    Attributes
    ----------
    bandwidth_, sigma_ : float
        The scales used, in radians.
    background_ : float
        The weight of the uniform distribution.
    terminal_scale_ : float
        The noise scale in radians at which samples start, from the mixture of kernels at the rows.
    points_ : ndarray of shape (n_points, 3) or (n_points, 4)
        Distinct training rows of positive weight, as unit vectors or quaternions.
    weights_ : ndarray of shape (n_points,)
        Their weights; they sum to one.
    fills_space_ : bool
        False: log-densities are not those of all columns, so estimators of `skdiffsmooth.compose`
        refuse them.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : Columns on a line, and periodic ones.
    CoarseScoreDiffusion : Rows near a surface that is learned.

    Notes
    -----
    Log-densities are with respect to area on the unit sphere, where the uniform distribution has
    -log(4 pi) = -2.531 nats, and for rotations to the volume sin(b) da db dc of Euler angles, where it
    has -log(8 pi^2) = -4.369. The flow is exact up to the solver's steps for any number of rotations:
    these are isometries, so the divergence of the averaged score is the average of Laplacians. If the
    data are rotated or mirrored, or multiplied by a rotation on either side, so are densities and
    samples, up to rounding; only where the second moments of the rows coincide exactly, up to the
    error of the average.

    A row costs ``2 * n_steps * n_nodes * n_points`` kernels, some 30 ns each; "auto" scores at most 300
    rows four times.

    References
    ----------
    H. P. McKean, An upper bound to the spectrum of the Laplacian on a manifold of negative curvature,
    1970 (the kernel's integral, there on the hyperbolic plane). V. De Bortoli et al., Riemannian
    score-based generative modelling, 2022 (diffusion on manifolds, with a trained score). T. Farghly et
    al., Diffusion models and the manifold hypothesis, arXiv:2510.02305 (smoothing, in R^d).
    """

    def __init__(
        self,
        bandwidth: float | str = "auto",
        sigma: float | str = "auto",
        *,
        space: str = "sphere",
        background: float | str = "auto",
        n_nodes: int = 32,
        n_steps: int = 24,
        memory_limit: float = 1024,
    ) -> None:
        self.bandwidth = bandwidth
        self.sigma = sigma
        self.space = space
        self.background = background
        self.n_nodes = n_nodes
        self.n_steps = n_steps
        self.memory_limit = memory_limit

    @reports_fit
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SphericalScoreDiffusion:
        """Choose the scales and store the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, 3), (n_samples, 4) or (n_samples, 9)
            Unit vectors, unit quaternions or rotation matrices, within 0.001. Equal rows are merged.
        y : object, default=None
            Ignored; there for scikit-learn's calling convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Returns
        -------
        self : SphericalScoreDiffusion
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If a parameter is out of range, or rows are no unit vectors or rotations; the message names
            the first such row and by how much. If a scale is "auto" and all rows are equal.

        Warns
        -----
        UserWarning
            If rows are merged that are equal up to rounding, or are as close as float64 resolves angles.
        """
        check_choice("space", self.space, _SPACES)
        space = _SPACES[self.space]
        n_nodes = check_even("n_nodes", self.n_nodes, "rotations come with their inverses")
        n_steps = check_integer("n_steps", self.n_steps)
        limit = check_real("memory_limit", self.memory_limit, hint="It is in MiB.")
        bandwidth, sigma, given = (_given(name, getattr(self, name)) for name in _LIMITS)
        checked = _unit_rows(check_table(X, self), space)
        if self.space == "rotations":
            # q and -q are one rotation: the largest component is positive.
            largest = np.take_along_axis(checked, np.abs(checked).argmax(axis=1)[:, None], axis=1)
            checked = checked * np.sign(largest)
        rows = merge_rows(
            checked, check_sample_weight(sample_weight, len(checked)), by_column=False
        )
        rows.warn_of_near_rows()
        if len(rows.points) < 2 and None in (bandwidth, sigma, given):
            raise ValueError(
                "X has 1 distinct row, of which nothing can be left out to choose bandwidth, sigma and "
                "background; expected several. Pass numbers, such as bandwidth=0.1, sigma=0.0 and "
                "background=0.0, or more rows."
            )
        axes = _principal_axes(rows.points, rows.weights)
        posterior = SpherePosterior(
            rows.points @ axes,
            np.log(rows.weights),
            is_antipodal=self.space == "rotations",
            memory_limit=limit,
        )
        # The sphere on which rotations are computed has half their angles.
        bandwidth, sigma = (
            None if scale is None else scale / space.angle for scale in (bandwidth, sigma)
        )
        flow, background = _chosen_flow(posterior, space, bandwidth, sigma, given, n_nodes, n_steps)
        self._set_fitted(
            X,
            points_=rows.points,
            weights_=rows.weights,
            bandwidth_=float(flow.scales[0]) * space.angle,
            sigma_=flow.sigma * space.angle,
            terminal_scale_=float(flow.scales[-1]) * space.angle,
            background_=background,
            fills_space_=False,
            _axes_=axes,
            _flow_=flow,
            _space_=space,
        )
        return self

    @on_one_fit
    def score_samples(self, X: Any) -> np.ndarray:
        """Return log-densities with respect to area, or to the volume of rotations.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Unit vectors, or rotations, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X has other columns than in `fit`, or rows are no unit vectors or rotations.
        """
        rows = _unit_rows(self._check_query(X), self._space_)
        return self._in_radians(self._flow_.log_density(rows @ self._axes_))

    def leave_one_out_log_density(self) -> np.ndarray:
        """Return the log-density of each training point under the model of all other points.

        Returns
        -------
        ndarray of shape (n_points,)
            In nats, in the order of `points_`, at the scales and the background of the fit.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If there is one distinct row.
        """
        check_is_fitted(self)
        fitted = self._snapshot()
        points = fitted._flow_.posterior.points
        if len(points) < 2:
            raise ValueError("the model has 1 distinct row; expected several. Fit it on more rows.")
        rows = np.arange(len(points))
        return fitted._in_radians(fitted._flow_.log_density(points, rows))

    @on_one_fit
    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draw new unit vectors or rotations.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None draws anew at every call, without using numpy's global state.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In the form of the rows of `fit`; of quaternions, either sign.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            If `n_samples` is not a positive integer or `random_state` is not a seed.
        """
        n, rng = self._check_draw(n_samples, random_state)
        x = self._flow_.draw(rng, n)
        uniform = rng.standard_normal(x.shape)
        uniform /= np.linalg.norm(uniform, axis=1, keepdims=True)
        x = np.where(rng.uniform(size=(n, 1)) < self.background_, uniform, x) @ self._axes_.T
        if self.n_features_in_ == 9:
            return Rotation.from_quat(x).as_matrix().reshape(n, 9)
        return x

    def _in_radians(self, log_density: np.ndarray) -> np.ndarray:
        """Return the log-densities (n,) of the flow with the background, in radians of the space."""
        space = self._space_
        mixed = _mixed(log_density, self.background_, space)
        return mixed - space.dimension * math.log(space.angle)

    def _sums_per_row(self) -> float:
        """See `DensityEstimatorMixin`."""
        if "_flow_" not in vars(self):
            return 0.0
        return 2.0 * len(self._flow_.scales) * self._flow_.n_nodes * self.points_.size
