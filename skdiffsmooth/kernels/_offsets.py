"""Kernels that a user defines: offsets with weights, or a function that draws offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .._coordinates.hull import AffineHull
from .._utils.validation import check_finite, check_real_array, wrong_type
from ._base import ReducedKernel, check_features
from ._shapes import FixedShape, SampledShape


class OffsetsKernel:
    """A finite set of offsets that the user passes, over which the score is averaged exactly.

    Parameters
    ----------
    offsets : array-like of shape (M, d)
        Offsets at sigma = 1, of mean zero under the weights.
    weights : array-like of shape (M,), default=None
        Positive weights, of which only ratios matter. None gives all offsets the same weight.

    Raises
    ------
    ValueError
        If shapes do not agree, a value is not finite, a weight is not positive, or the mean is not zero.

    Notes
    -----
    Offsets with another mean would shift the estimated density.

    Examples
    --------
    >>> from skdiffsmooth.kernels import OffsetsKernel
    >>> OffsetsKernel([[1.0, 0.0], [-1.0, 0.0]])
    <OffsetsKernel of 2 offsets in R^2>
    """

    is_isotropic: ClassVar[bool] = False
    works_over_base: ClassVar[bool] = True

    def __init__(self, offsets: Any, weights: Any = None) -> None:
        offsets = check_real_array("offsets", offsets)
        if offsets.ndim != 2 or not offsets.size:
            raise ValueError(f"offsets has shape {offsets.shape}; expected (M, d) with M, d >= 1.")
        check_finite("offsets", offsets, "Drop them.")
        weights = np.ones(len(offsets)) if weights is None else check_real_array("weights", weights)
        if weights.shape != offsets.shape[:1]:
            raise ValueError(
                f"weights has shape {weights.shape}; expected ({len(offsets)},), one for each offset."
            )
        if not np.all(np.isfinite(weights) & (weights > 0)):
            raise ValueError(
                "weights holds a value that is zero, negative or not finite; expected weights > 0. "
                "Drop the offsets of no weight."
            )
        weights = weights / weights.sum()
        mean = weights @ offsets
        size = np.abs(offsets).max()
        if np.abs(mean).max() > 1e-10 * size:
            raise ValueError(
                f"offsets have the mean {mean} (largest offset {size:g}); expected mean zero. Subtract "
                "the mean."
            )
        self.offsets = offsets
        self.weights = weights

    def __repr__(self) -> str:
        n, d = self.offsets.shape
        return f"<OffsetsKernel of {n} offsets in R^{d}>"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """See `Kernel`; estimators call this."""
        check_features("offsets", self.offsets.shape[1], hull)
        # The constructor allows for rounding in the mean, which division by a small noise would magnify.
        centered = self.offsets - self.weights @ self.offsets
        return FixedShape(centered @ hull.basis, self.weights)


class SamplerKernel:
    """A distribution of offsets for which the user passes a function that draws from it.

    Parameters
    ----------
    sampler : callable
        ``sampler(rng, n)`` returns n offsets at sigma = 1, shape (n, d), drawn with the numpy
        Generator `rng`. The mean of the distribution should be zero; that of the draws is subtracted.

    Raises
    ------
    TypeError
        If `sampler` cannot be called.

    Notes
    -----
    Independent draws of the Gaussian kernel, in d features, are
    ``SamplerKernel(lambda rng, n: rng.standard_normal((n, d)))``. Each noise level has draws of its
    own, the same at every call; `random_state` of the estimator is their seed.

    Examples
    --------
    >>> from skdiffsmooth.kernels import SamplerKernel
    >>> laplace = SamplerKernel(lambda rng, n: rng.laplace(size=(n, 2)))
    """

    is_isotropic: ClassVar[bool] = False
    works_over_base: ClassVar[bool] = True

    def __init__(self, sampler: Callable[[np.random.Generator, int], np.ndarray]) -> None:
        if not callable(sampler):
            raise wrong_type(
                "sampler", sampler, "a function sampler(rng, n) that returns n offsets."
            )
        self.sampler = sampler

    def __repr__(self) -> str:
        return f"SamplerKernel({self.sampler!r})"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """See `Kernel`; estimators call this."""
        return SampledShape(self.draw, hull.basis)

    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Return n draws of the sampler (n, n_features) from a generator.

        Raises ValueError if the sampler returned another shape, or values that are not finite.
        """
        draws = check_real_array("sampler(rng, n)", self.sampler(rng, n))
        if draws.shape != (n, n_features):
            raise ValueError(
                f"sampler(rng, {n}) returned the shape {draws.shape}; expected ({n}, {n_features}), "
                "one row for each draw and one column for each feature of X."
            )
        check_finite("what sampler(rng, n) returned", draws, "Check the function.")
        return draws
