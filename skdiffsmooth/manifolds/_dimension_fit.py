"""The dimension, noise and curvature of a cloud, fitted to its local dimension at all noise scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._dimension_curve import DimensionCurve

# Levels at which `DimensionCurve.crowding` is larger are not used.
_MOST_CROWDING = 0.05
# Relative excess of LID in a Poisson process of rows, divided by the crowding: 1.1 to 1.6 in
# simulations with k = 1 to 8.
_EXCESS = 1.2
# Relative standard deviations of the errors of the model: at large noise, and, in units of the crowding,
# with few neighbours.
_MODEL_ERROR, _EXCESS_ERROR = 0.1, 0.6
# Relative standard deviation of k itself, which uneven curvature and density shift at all noise scales.
_SHAPE_ERROR = 0.04
# Difference of log noise variances over which the errors of the model are correlated.
_ALIKE = 0.7
# Prior standard deviation of the linear term, in units of k.
_LINEAR = 0.1
# Bound on the noise variance of the rows, in units of the cloud's variance along one direction.
_MOST_NOISE = 0.25
# Largest noise variance v that is used: the larger of this part of the cloud's variance, and of this
# multiple of the smallest v that is used.
_WIDEST, _RANGE = 0.25, 8.0
# Factor by which the noise variance may exceed the variances of the rows normal to the manifold.
_MARGIN = 1.3
# If the fitted dimension is smaller, the cloud may consist of separate groups of rows.
_LEAST = 0.9
# `row_dimensions` are those at the smallest noise variance with a crowding below this.
_ROW_CROWDING = 0.01


@dataclass(frozen=True)
class DimensionFit:
    """The model of the curve with the smallest error, at the levels (L,) that are used.

    `values` are k, the noise variance of the rows and the slope of LID without noise, `errors` their
    standard errors. `noise_part` is the part of the noise in LID at the level `row_level`.
    """

    variances: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    fitted: np.ndarray
    values: tuple[float, float, float]
    errors: np.ndarray
    row_level: int
    noise_part: float
    noise_is_largest: bool

    @classmethod
    def of(cls, curve: DimensionCurve, axis_variances: np.ndarray) -> DimensionFit:
        """Return the fit to a curve, with the cloud's variances (d,) along principal axes, decreasing.

        If the dimension is below `_LEAST`, or the noise near its bound, the cloud may be groups of rows:
        the largest v used, and with it the size of a group, is halved until neither is the case.
        """
        has_neighbors = curve.crowding <= _MOST_CROWDING
        smallest = curve.variances[has_neighbors][0] if has_neighbors.any() else 0.0
        widest = max(_WIDEST, _RANGE * smallest)
        while True:
            is_used = has_neighbors & (curve.variances <= widest)
            fit = cls._within(curve, axis_variances, is_used, widest / _WIDEST)
            widest /= 2
            is_cloud = fit.values[0] >= _LEAST and not fit.noise_is_largest
            if is_cloud or widest < _RANGE * smallest:
                return fit

    @classmethod
    def _within(
        cls, curve: DimensionCurve, axis_variances: np.ndarray, is_used: np.ndarray, size: float
    ) -> DimensionFit:
        """Return the fit to the levels `is_used` (L,), for a cloud of at most the variance `size`."""
        size = min(float(np.sum(axis_variances**2) / np.sum(axis_variances)), size, 1.0)
        if not is_used.any():
            raise ValueError(
                f"X has {curve.influence.shape[1]} distinct rows in {len(axis_variances)} dimensions: "
                "at no noise scale do they have neighbours; expected some eight rows or more, from "
                "which the dimension is estimated. Pass more rows, or an integer number of components."
            )
        model = _CloudModel.of(curve, is_used, size, axis_variances)
        noise, largest_noise = model.likeliest_noise()
        _, ((k, linear),), (design,) = model.solve(np.array([noise]))
        v, d = model.variances, len(axis_variances)
        noise_curve = _noise_curve(v, noise)
        # Derivative of the part of the noise with respect to the noise variance.
        in_noise = np.append(model.whiten @ ((d - k) * 2 * v**2 / (v + noise) ** 3), 0)
        inverse = np.linalg.pinv((jacobian := np.column_stack([design, in_noise])).T @ jacobian)
        middle = np.sqrt(v[0] * v[-1])
        share = middle / (middle + size)
        slope = np.array([-(share**2), share, 0]) / middle
        of_noise = inverse[2, 2] if k < d else np.inf
        errors = [inverse[0, 0] + (_SHAPE_ERROR * k) ** 2, of_noise, slope @ inverse @ slope]
        level = int(np.argmax(curve.crowding[is_used] <= _ROW_CROWDING))
        return cls(
            v,
            model.mean,
            model.covariance,
            k * model.of_cloud + (d - k) * noise_curve + linear * model.relative,
            (float(k), noise, float(slope[0] * k + slope[1] * linear)),
            np.sqrt(errors),
            int(np.flatnonzero(is_used)[level]),
            float((d - k) * noise_curve[level]),
            noise > 0.7 * largest_noise,
        )


@dataclass(frozen=True)
class _CloudModel:
    """A model of LID at noise variances (L,), linear in the dimension k and in a curvature term.

    Both coefficients are computed by least squares, for a given variance of the noise of the rows.
    """

    variances: np.ndarray
    mean: np.ndarray  # (L,): LID minus the excess from few neighbours
    covariance: np.ndarray  # (L, L): covariance of `mean` due to sampling
    whiten: np.ndarray  # (L, L): inverse Cholesky factor of the covariance with the model's errors
    size: float  # Variance of the cloud
    axis_variances: np.ndarray  # Shape (d,), decreasing

    @classmethod
    def of(
        cls, curve: DimensionCurve, is_used: np.ndarray, size: float, axis_variances: np.ndarray
    ) -> _CloudModel:
        """Return the model of the levels `is_used` (L,) of a curve."""
        v, crowding = curve.variances[is_used], curve.crowding[is_used]
        excess = 1 + _EXCESS * crowding
        mean, influence = curve.mean[is_used] / excess, curve.influence[is_used] / excess[:, None]
        covariance = influence @ influence.T
        alike = np.exp(-0.5 * (np.log(v[:, None] / v) / _ALIKE) ** 2)
        model_errors = (_MODEL_ERROR * v / (v + size) * mean, _EXCESS_ERROR * crowding * mean)
        total = covariance + sum(np.outer(error, error) for error in model_errors) * alike
        # The last term bounds the condition number.
        total += 1e-6 * np.diag(mean**2)
        whiten = np.linalg.inv(np.linalg.cholesky(total))
        return cls(v, mean, covariance, whiten, size, axis_variances)

    @property
    def relative(self) -> np.ndarray:
        """The curvature term v / (v + size) of the model, shape (L,)."""
        return self.variances / (self.variances + self.size)

    @property
    def of_cloud(self) -> np.ndarray:
        """The part of LID (L,) from one dimension of the cloud."""
        return 1 - self.relative**2

    def likeliest_noise(self) -> tuple[float, float]:
        """Return the noise variance at which the model's error is least, and the largest one tried."""
        v = self.variances
        largest = _MOST_NOISE * min(v[-1], self.size)
        noises = np.append(0.0, np.geomspace(1e-3 * v[0], largest, 80))
        for _ in range(2):
            best = int(np.argmin(self.solve(noises)[0]))
            noise = float(noises[best])
            noises = np.linspace(noises[max(best - 1, 0)], noises[min(best + 1, 80)], 81)
        if self.solve(np.array([noise]))[1][0, 0] == len(self.axis_variances):
            # No direction is normal to the manifold.
            noise = 0.0
        return noise, largest

    def solve(self, noises: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return squared errors (K,) at noise variances (K,), k and linear terms (K, 2), and designs.

        Errors are infinite where the noise exceeds its bound. The design matrices (K, L + 1, 2) are
        derivatives of the whitened model and of the prior.
        """
        v, whiten, d = self.variances, self.whiten, len(self.axis_variances)
        part = _noise_curve(v, noises[:, None])
        shape = len(noises), len(v) + 1
        designs, targets = np.zeros((*shape, 2)), np.zeros(shape)
        designs[:, :-1, 0] = (self.of_cloud - part) @ whiten.T
        targets[:, :-1] = (self.mean - d * part) @ whiten.T
        designs[:, :-1, 1] = whiten @ self.relative
        # The prior of the linear term.
        designs[:, -1, 1] = 1 / (_LINEAR * max(self.mean[0], 1.0))
        cutoff = np.finfo(np.float64).eps * (len(v) + 1)
        free, linear = np.einsum("kij,kj->ik", np.linalg.pinv(designs, cutoff), targets)
        k = np.clip(free, 0, d)
        rest, column = targets - k[:, None] * designs[..., 0], designs[0, :, 1]
        linear = np.where(k == free, linear, rest @ column / (column @ column))
        errors = np.sum((np.outer(linear, column) - rest) ** 2, axis=1)
        # Noise is bounded by _MARGIN times the median variance along the axes after the first k.
        medians = np.array([np.median(self.axis_variances[i:]) for i in range(d)])
        bounds = _MARGIN * medians[np.minimum(np.round(k).astype(int), d - 1)]
        return np.where(noises <= bounds, errors, np.inf), np.column_stack([k, linear]), designs


def _noise_curve(v: np.ndarray, noise: float | np.ndarray) -> np.ndarray:
    """Return the part of LID at v (L,) from one direction in which rows have this noise variance."""
    return 1 - (v / (v + noise)) ** 2
