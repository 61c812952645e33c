"""Kernels of a user's own: offsets with weights, or a function that draws offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .._coordinates.hull import AffineHull
from .._utils.validation import check_real_array
from ._base import ReducedKernel, check_features
from ._shapes import FixedShape, SampledShape

__all__ = ["OffsetsKernel", "SamplerKernel"]


class OffsetsKernel:
    """A user's own offsets: sums over them are exact, and nothing is drawn.

    Parameters
    ----------
    offsets : array-like of shape (M, d)
        Offsets at sigma = 1, of mean zero under the weights.
    weights : array-like of shape (M,), default=None
        Positive; only ratios matter. None weighs all offsets alike.

    Raises
    ------
    ValueError
        If shapes do not agree, a number is not finite, a weight is not positive, or the mean is not
        zero.

    Notes
    -----
    Any zero-mean kernel averages the log-density; another would move the data.

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
        if not np.all(np.isfinite(offsets)):
            raise ValueError("offsets must be finite; got NaN or infinity.")
        shares = np.ones(len(offsets)) if weights is None else check_real_array("weights", weights)
        if shares.shape != offsets.shape[:1]:
            raise ValueError(
                f"weights has shape {shares.shape}; expected ({len(offsets)},), one an offset."
            )
        if not np.all(np.isfinite(shares) & (shares > 0)):
            raise ValueError("weights must be finite and > 0; drop offsets that have no weight.")
        shares = shares / shares.sum()
        mean = shares @ offsets
        size = np.abs(offsets).max()
        if np.abs(mean).max() > 1e-10 * size:
            raise ValueError(
                f"offsets have the mean {mean} (largest offset {size:g}); expected mean zero. Subtract "
                "the mean."
            )
        self.offsets = offsets
        self.weights = shares

    def __repr__(self) -> str:
        n, d = self.offsets.shape
        return f"<OffsetsKernel of {n} offsets in R^{d}>"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the shape as the affine hull of the data sees it; estimators call this."""
        check_features("offsets", self.offsets.shape[1], hull)
        # The constructor allows for rounding in the mean, which division by a small noise would magnify.
        centered = self.offsets - self.weights @ self.offsets
        return FixedShape(centered @ hull.basis, self.weights)


class SamplerKernel:
    """A user's own law of offsets, known by draws from it.

    Parameters
    ----------
    sampler : callable
        ``sampler(rng, n)`` returns n offsets at sigma = 1, shape (n, d), drawn with the numpy
        Generator `rng`. Their mean should be zero; what is left of it in a finite set is subtracted.

    Raises
    ------
    TypeError
        If it cannot be called.

    Examples
    --------
    >>> from skdiffsmooth.kernels import SamplerKernel
    >>> laplace = SamplerKernel(lambda rng, n: rng.laplace(size=(n, 2)))
    """

    is_isotropic: ClassVar[bool] = False
    works_over_base: ClassVar[bool] = True

    def __init__(self, sampler: Callable[[np.random.Generator, int], np.ndarray]) -> None:
        if not callable(sampler):
            raise TypeError(
                f"sampler={sampler!r} has type {type(sampler).__name__}; expected a function of a "
                "generator and a number of draws."
            )
        self.sampler = sampler

    def __repr__(self) -> str:
        return f"SamplerKernel({self.sampler!r})"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the shape as the affine hull of the data sees it; estimators call this."""
        return SampledShape(self.draw, hull.basis)

    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Return checked draws.

        Parameters
        ----------
        rng : Generator
            Source of randomness.
        n : int
            How many.
        n_features : int
            Number d of features that they must have.

        Returns
        -------
        ndarray of shape (n, d)

        Raises
        ------
        ValueError
            If the sampler returned another shape, or numbers that are not finite.
        """
        draws = check_real_array("sampler(rng, n)", self.sampler(rng, n))
        if draws.shape != (n, n_features):
            raise ValueError(
                f"sampler(rng, {n}) returned the shape {draws.shape}; expected ({n}, {n_features})."
            )
        if not np.all(np.isfinite(draws)):
            raise ValueError("sampler returned NaN or infinity; expected finite offsets.")
        return draws
