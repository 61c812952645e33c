"""SphericalScoreDiffusion: score-smoothed diffusion of directions in space and of rotations.

Everything is computed in coordinates of the principal axes of the rows, in which the rotations of the
smoothing are fixed: if the data are rotated, so are the model and its samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._coordinates.directions import SPACES, check_form, principal_axes, unit_rows
from .._diffusion.spherical import BANDWIDTHS, MAX_BACKGROUND, chosen_flow, mixed_with_uniform
from .._engine.sphere import SpherePosterior
from .._utils.estimator import DensityEstimatorMixin, on_one_fit
from .._utils.progress import reports_fit
from .._utils.rows import check_sample_weight, merge_rows
from .._utils.table import check_table
from .._utils.validation import (
    check_choice,
    check_even,
    check_integer,
    check_memory_limit,
    check_real,
)

__all__ = ["SphericalScoreDiffusion"]

# Smallest and largest value of each parameter, and a hint for messages. Smaller angles than the
# bandwidth's limit are lost in the rounding of cosines.
_RADIANS = "Pass a number in radians, or 'auto'; np.radians converts degrees."
_LIMITS = {
    "bandwidth": (BANDWIDTHS[0], 2 * math.pi, _RADIANS),
    "sigma": (0.0, 2 * math.pi, _RADIANS),
    "background": (
        0.0,
        MAX_BACKGROUND,
        "Pass the weight of the uniform distribution beside that of the model, or 'auto'.",
    ),
}


def _given(name: str, value: Any) -> float | None:
    """Return a parameter as a number within its limits, or None if it is "auto"."""
    smallest, largest, hint = _LIMITS[name]
    if isinstance(value, str):
        check_choice(name, value, ("auto",), hint=hint)
        return None
    return check_real(name, value, minimum=smallest, strict=False, maximum=largest, hint=hint)


class SphericalScoreDiffusion(DensityEstimatorMixin, BaseEstimator):
    """Score-smoothed diffusion of directions (the spheres S^2 to S^5), or of rotations (SO(3)).

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
        Standard deviation of the noise left in the samples, in radians for each dimension of the space,
        from 1e-6 to 2 pi. "auto" is the bandwidth at which the kernel density estimate has the highest
        leave-one-out likelihood, times a factor of 0.7 to 1 that is chosen together with `sigma`.
    sigma : float or "auto", default="auto"
        Scale of the smoothing of the score, in radians. 0 is the kernel density estimate with the heat
        kernel. "auto" compares 0 and multiples of the bandwidth, by the leave-one-out likelihood of at
        most 300 rows (100 if there are more than 3000 rows).
    space : {"sphere", "rotations"}, default="sphere"
        "sphere": rows are unit vectors with 3 to 6 columns. "rotations": rows are unit quaternions with
        4 columns in any order, q and -q being one rotation, or rotation matrices with 9 columns, row by
        row; the distance of two rotations is the angle of the rotation from one to the other.
    background : float or "auto", default="auto"
        Weight of the uniform distribution that is mixed into the model, from 0 to 0.5, for rows far
        from all others. "auto" is the weight of highest leave-one-out likelihood, and at least 1 / (n +
        1).
    n_nodes : int, default=32
        Number of rotations that the score is averaged over at each noise scale, even. More of them
        lower the error of the average.
    n_steps : int, default=24
        Number of steps of Heun's method in the logarithm of the noise scale. More of them lower the
        error.
    memory_limit : float, default=1024
        Largest size of temporary arrays, in MiB.

    Attributes
    ----------
    bandwidth_, sigma_ : float
        The scales used, in radians.
    background_ : float
        The weight of the uniform distribution.
    terminal_scale_ : float
        The noise scale in radians at which the reverse process starts, with draws of the kernel density
        estimate at that scale.
    points_ : ndarray of shape (n_points, d)
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
    SmoothedScoreDiffusion : For ordinary and for periodic columns.
    CoarseScoreDiffusion : For rows near a surface that is learned from them.

    Notes
    -----
    Log-densities are with respect to area on the unit sphere, where that of the uniform distribution is
    -log(4 pi) = -2.531 nats, and for rotations with respect to the volume sin(b) da db dc of Euler
    angles, where it is -log(8 pi^2) = -4.369. The flow is exact up to the solver's steps for any number
    of rotations: these are isometries, so the divergence of the averaged score is the average of
    Laplacians. If the data are rotated or mirrored, or multiplied by a rotation on either side, so are
    densities and samples, up to rounding (up to the error of the average if second moments of the rows
    along two axes are equal).

    Each row takes ``2 * n_steps * n_nodes * n_points`` evaluations of the kernel, some 30 ns each;
    "auto" scores 100 to 300 rows four times.

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
        X : array-like of shape (n_samples, n_features)
            Unit vectors, unit quaternions or rotation matrices, up to errors of 0.001. Equal rows are
            merged.
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
            If a parameter has the wrong type, or X is a Rotation of scipy.
        ValueError
            If a parameter is out of range, X is a stack of matrices, or rows are no unit vectors or
            rotations (the message names the first such row and its error), or if a scale is "auto" and
            all rows are equal.

        Warns
        -----
        UserWarning
            If rows are merged that are equal up to rounding, or closer than float64 resolves angles.
        """
        check_choice("space", self.space, SPACES)
        space = SPACES[self.space]
        n_nodes = check_even("n_nodes", self.n_nodes, "rotations come with their inverses")
        n_steps = check_integer("n_steps", self.n_steps)
        limit = check_memory_limit(self.memory_limit)
        bandwidth, sigma, given = (_given(name, getattr(self, name)) for name in _LIMITS)
        check_form(X)
        checked = unit_rows(check_table(X, self), space)
        if space.is_antipodal:
            # q and -q are one rotation: the sign is chosen so that the largest component is positive.
            largest = np.take_along_axis(checked, np.abs(checked).argmax(axis=1)[:, None], axis=1)
            checked = checked * np.sign(largest)
        rows = merge_rows(
            checked, check_sample_weight(sample_weight, len(checked)), by_column=False
        )
        rows.warn_of_near_rows()
        chosen = {"bandwidth=0.1": bandwidth, "sigma=0.0": sigma, "background=0.0": given}
        missing = [example for example, value in chosen.items() if value is None]
        if len(rows.points) < 2 and missing:
            raise ValueError(
                "X has 1 distinct row, so no row can be left out to choose scales or background; "
                f"expected several. Pass numbers, such as {', '.join(missing)}, or more rows."
            )
        axes = principal_axes(rows.points, rows.weights)
        posterior = SpherePosterior(
            rows.points @ axes,
            np.log(rows.weights),
            is_antipodal=space.is_antipodal,
            memory_limit=limit,
        )
        # Rotations are computed as quaternions on a sphere, where angles are half as large.
        bandwidth, sigma = (
            None if scale is None else scale / space.angle for scale in (bandwidth, sigma)
        )
        log_volume = space.log_volume(rows.points.shape[1] - 1)
        flow, background = chosen_flow(
            posterior, log_volume, bandwidth, sigma, given, n_nodes, n_steps
        )
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
        rows = unit_rows(self._check_query(X), self._space_)
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
            In the form of the rows passed to `fit`; quaternions have either sign.

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
        """Return log-densities (n,) with the background, converted from the flow's sphere to radians."""
        space = self._space_
        dimension = self.points_.shape[1] - 1
        mixed = mixed_with_uniform(log_density, self.background_, space.log_volume(dimension))
        return mixed - dimension * math.log(space.angle)

    def _sums_per_row(self) -> float:
        """See `DensityEstimatorMixin`."""
        if "_flow_" not in vars(self):
            return 0.0
        return 2.0 * len(self._flow_.scales) * self._flow_.n_nodes * self.points_.size
