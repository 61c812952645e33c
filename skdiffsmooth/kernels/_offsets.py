"""Smoothing kernels: the offsets over which the score is averaged, frozen for each noise level.

A kernel here is a shape. An estimator's `sigma` scales it: offsets are sigma * xi, with xi drawn from
the shape. `reduce` turns a shape into one of the data's affine hull, which is all that matters (Farghly
et al. 2025, Prop. 3.1), and `freeze` gives it scales and nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.special import betaincinv, chdtr

from .._coordinates.hull import AffineHull
from .._engine.moments import Denoiser, Nodes
from .._utils.backend import Backend
from .._utils.validation import check_choice, check_real, check_real_array
from ..scores import ScoreField, SmoothedScore, Smoothing, TemperedScore
from ._nodes import NodeRule, default_n_nodes

__all__ = [
    "KERNELS",
    "AnisotropicGaussianKernel",
    "FrozenKernel",
    "GaussianKernel",
    "Kernel",
    "LinearShape",
    "OffsetsKernel",
    "ProportionalScale",
    "ReducedKernel",
    "SamplerKernel",
    "TemperatureKernel",
    "UniformBallKernel",
]


@runtime_checkable
class Kernel(Protocol):
    """A shape of smoothing in the space of the data."""

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the shape as the affine hull of the data sees it."""
        ...


class ReducedKernel(Protocol):
    """A shape of smoothing in coordinates of the hull."""

    @property
    def rank(self) -> int:
        """Number k of coordinates that nodes are chosen in; 0 where there is nothing to choose."""
        ...

    @property
    def n_nodes(self) -> int:
        """Number of nodes that are enough for most data."""
        ...

    @property
    def spread(self) -> float:
        """Standard deviation of the offsets along their widest direction, at sigma = 1."""
        ...

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> Smoothing:
        """Return the smoothing that has one scale and one set of nodes in each noise level."""
        ...


# ----------------------------------------------------------------------- shapes seen from the hull


class _Shape(ABC):
    """A shape whose offsets do not depend on where it acts."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of coordinates that nodes are chosen in."""

    @property
    @abstractmethod
    def spread(self) -> float:
        """Standard deviation along the widest direction."""

    @property
    def n_nodes(self) -> int:
        """Number of nodes that are enough for most data."""
        return default_n_nodes(self.rank)

    @abstractmethod
    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets (M, r) at sigma = 1 and their weights (M,)."""

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> FrozenKernel:
        """Return the smoothing that has one scale and one set of nodes in each noise level."""
        return FrozenKernel(self, scales, rule)


@dataclass(frozen=True)
class LinearShape(_Shape):
    """Gaussian offsets F z.

    Parameters
    ----------
    factor : ndarray of shape (r, k)
        The factor F: the identity smooths in every direction, k columns along k directions.
    """

    factor: np.ndarray

    @property
    def rank(self) -> int:
        """Number k of columns."""
        return self.factor.shape[1]

    @property
    def spread(self) -> float:
        """Largest singular value of the factor."""
        return float(np.linalg.norm(self.factor, 2)) if self.factor.size else 0.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets and weights, the covariance exact where the rule's is."""
        standard, weights = rule.normal(self.rank, level)
        return standard @ self.factor.T, weights


@dataclass(frozen=True)
class _BallShape(_Shape):
    """What a hull of r dimensions sees of the uniform law on a ball in R^d."""

    dimension: int
    n_features: int

    @property
    def rank(self) -> int:
        return self.dimension

    @property
    def spread(self) -> float:
        return 1.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        standard, weights = rule.normal(self.dimension, level)
        squares = np.sum(standard**2, axis=1)
        # In r of d coordinates the squared share of the radius is Beta(r / 2, (d - r) / 2 + 1).
        others = (self.n_features - self.dimension) / 2 + 1
        shares = betaincinv(self.dimension / 2, others, chdtr(self.dimension, squares))
        stretch = np.sqrt((self.n_features + 2) * shares / np.where(squares > 0, squares, 1))
        return standard * stretch[:, None], weights


@dataclass(frozen=True)
class _FixedShape(_Shape):
    """A user's own offsets and weights."""

    offsets: np.ndarray
    weights: np.ndarray

    @property
    def rank(self) -> int:
        return 0

    @property
    def spread(self) -> float:
        if not self.offsets.size:
            return 0.0
        return float(np.linalg.norm(np.sqrt(self.weights)[:, None] * self.offsets, 2))

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        return self.offsets, self.weights


@dataclass(frozen=True)
class _SampledShape(_Shape):
    """Draws of a user's own sampler, seen from the hull."""

    kernel: SamplerKernel
    basis: np.ndarray

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def spread(self) -> float:
        draws = self.kernel.draw(np.random.default_rng(0), 1024, len(self.basis)) @ self.basis
        centered = draws - draws.mean(axis=0)
        return float(np.linalg.norm(centered, 2)) / np.sqrt(1024) if draws.size else 0.0

    def nodes(self, rule: NodeRule, level: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([rule.seed, level])
        draws = self.kernel.draw(rng, rule.n_nodes, len(self.basis)) @ self.basis
        if rule.name != "fresh":
            draws = draws - draws.mean(axis=0)
        return draws, np.full(len(draws), 1 / len(draws))


@dataclass(frozen=True)
class FrozenKernel:
    """A shape with one scale and one set of nodes for each noise level.

    Parameters
    ----------
    shape : LinearShape or another shape
        The offsets at sigma = 1, in coordinates of the hull.
    scales : ndarray of shape (n_levels,)
        Smoothing scale of each level.
    rule : NodeRule
        How nodes are chosen.
    """

    shape: _Shape
    scales: np.ndarray
    rule: NodeRule
    has_divergence: ClassVar[bool] = True

    @property
    def n_nodes(self) -> int:
        """Number of nodes in a noise level."""
        return len(self.nodes(0)[1])

    def nodes(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the quadrature rule of one noise level, the same at every call.

        Parameters
        ----------
        level : int
            Which noise level.

        Returns
        -------
        offsets : ndarray of shape (M, r)
            With mean zero to rounding, except under the rule "fresh".
        weights : ndarray of shape (M,)
            Positive, summing to one.
        """
        offsets, weights = self.shape.nodes(self.rule, level)
        scale = self.scales[level]
        if scale == 0 or not np.any(offsets):
            return np.zeros((1, offsets.shape[1])), np.ones(1)
        return scale * offsets, weights

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> ScoreField:
        """Return the smoothed score of one noise level; see `Smoothing`."""
        offsets, weights = self.nodes(level)
        reach = float(np.linalg.norm(offsets, axis=1).max())
        mean = weights @ offsets
        # The mean of a centred rule is rounding, which division by a small noise would make much of.
        is_centered = np.linalg.norm(mean) <= 1e-12 * reach
        return SmoothedScore(
            posterior,
            Nodes(backend.tensor(offsets), backend.tensor(weights), reach),
            exclude,
            None if is_centered else backend.tensor(mean),
        )


@dataclass(frozen=True)
class _TemperedShape:
    """Smoothing by temperature, which has no offsets."""

    rank: int = 0
    n_nodes: int = 1
    spread: float = 1.0

    def freeze(self, scales: np.ndarray, rule: NodeRule) -> _FrozenTemperature:
        return _FrozenTemperature(scales)


@dataclass(frozen=True)
class _FrozenTemperature:
    scales: np.ndarray
    has_divergence: ClassVar[bool] = True
    n_nodes: ClassVar[int] = 1

    def field(
        self, level: int, posterior: Denoiser, backend: Backend, exclude: torch.Tensor | None
    ) -> ScoreField:
        return TemperedScore(posterior, float(self.scales[level]) ** 2, exclude)


# ----------------------------------------------------------------------------- what a user chooses


class GaussianKernel:
    """Isotropic Gaussian offsets: the kernel of the paper and the default.

    See Also
    --------
    AnisotropicGaussianKernel : Offsets of any covariance.

    Notes
    -----
    `sigma` is their standard deviation along each coordinate.

    References
    ----------
    T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is Geometry
    Adaptive, NeurIPS 2025, arXiv:2510.02305, eq. 5-7.

    Examples
    --------
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.kernels import GaussianKernel
    >>> model = SmoothedScoreDiffusion(0.1, 0.2, kernel=GaussianKernel())  # kernel="gaussian"
    """

    def __repr__(self) -> str:
        return "GaussianKernel()"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> LinearShape:
        """Return the shape as the affine hull of the data sees it; estimators call this."""
        return LinearShape(np.eye(hull.dimension))


class AnisotropicGaussianKernel:
    """Gaussian offsets of covariance sigma^2 S.

    Parameters
    ----------
    covariance : array-like of shape (d, d) or (d,), or "data"
        S, in squared units of X over those of `sigma`. A vector holds standard deviations, one a
        feature (a *scale*, not a variance). "data" is the weighted covariance of the training rows,
        for which `sigma` is a share of the data's own spread.

    Raises
    ------
    ValueError
        If it is not finite, square, symmetric and positive semi-definite, or a scale is negative.

    Notes
    -----
    Directions of zero variance are not smoothed at all. With ``sigma="auto"`` the widest direction has
    the scale that the isotropic kernel would have.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.kernels import AnisotropicGaussianKernel
    >>> X = np.random.RandomState(0).normal(size=(50, 2)) * [3.0, 0.1]
    >>> model = SmoothedScoreDiffusion(0.05, 0.3, kernel=AnisotropicGaussianKernel("data")).fit(X)
    >>> offsets, weights = model.kernel_.nodes(0)
    >>> np.round(np.sqrt(weights @ offsets**2) / 0.3, 1)  # in principal coordinates
    array([3.1, 0.1])
    """

    def __init__(self, covariance: Any = "data") -> None:
        if isinstance(covariance, str):
            check_choice("covariance", covariance, ("data",), hint="Or pass an array.")
        else:
            array = check_real_array("covariance", covariance)
            square = array.ndim == 2 and array.shape[0] == array.shape[1]
            if not (square or array.ndim == 1) or not array.size:
                raise ValueError(
                    f"covariance has shape {array.shape}; expected (d, d), or (d,) standard deviations."
                )
            if not np.all(np.isfinite(array)):
                raise ValueError("covariance must be finite; got NaN or infinity.")
            if array.ndim == 1 and np.any(array < 0):
                raise ValueError(
                    f"covariance holds a negative standard deviation ({array.min():g}); expected "
                    "scales >= 0, one a feature."
                )
            if array.ndim == 2:
                _check_semi_definite(array)
        self.covariance = covariance

    def __repr__(self) -> str:
        if isinstance(self.covariance, str):
            return f"AnisotropicGaussianKernel({self.covariance!r})"
        return f"<AnisotropicGaussianKernel in R^{len(self.covariance)}>"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> LinearShape:
        """Return the shape as the affine hull of the data sees it; estimators call this."""
        if isinstance(self.covariance, str):
            centered = points - weights @ points
            root = np.sqrt(weights)[:, None] * (centered @ hull.basis)
            covariance = root.T @ root
        else:
            array = np.asarray(self.covariance, dtype=np.float64)
            if len(array) != hull.n_features:
                raise ValueError(
                    f"covariance is for {len(array)} features, but X has {hull.n_features}; expected "
                    "the same number."
                )
            full = np.diag(array**2) if array.ndim == 1 else array
            covariance = hull.basis.T @ full @ hull.basis
        variances, axes = np.linalg.eigh(covariance)
        kept = variances > hull.n_features * np.finfo(np.float64).eps * variances.max(initial=0.0)
        roots = axes[:, kept] * np.sqrt(variances[kept])
        # The symmetric root where it has full rank: for S = I node by node the isotropic kernel.
        return LinearShape(roots @ axes[:, kept].T if kept.all() else roots)


class UniformBallKernel:
    """Offsets spread evenly over a ball: compact support.

    Notes
    -----
    `sigma` is the standard deviation along each coordinate, as for the Gaussian kernel, so the
    radius of the ball is ``sigma * sqrt(d + 2)`` in d features. Nodes are those of the Gaussian, moved
    along their rays; the covariance is then that of the ball up to the rule's error, and no node is
    outside.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.kernels import UniformBallKernel
    >>> X = np.random.RandomState(0).normal(size=(50, 2))
    >>> model = SmoothedScoreDiffusion(0.1, 0.5, kernel=UniformBallKernel()).fit(X)
    >>> offsets, _ = model.kernel_.nodes(0)
    >>> bool(np.linalg.norm(offsets, axis=1).max() <= 0.5 * 2.0)
    True
    """

    def __repr__(self) -> str:
        return "UniformBallKernel()"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the shape as the affine hull of the data sees it; estimators call this."""
        return _BallShape(hull.dimension, hull.n_features)


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
        _check_features("offsets", self.offsets.shape[1], hull)
        return _FixedShape(self.offsets @ hull.basis, self.weights)


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
        return _SampledShape(self, hull.basis)

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


class TemperatureKernel:
    """Smoothing by temperature: a deterministic alternative, without offsets.

    Below noise scale `sigma` the posterior weights of the points are those of noise scale `sigma`:
    their logits are divided by ``max(sigma^2 / v, 1)``. One evaluation costs as much as a single node.

    Notes
    -----
    Unlike averages over offsets this does not adapt to the geometry by itself: near the data every
    query ends in a weighted mean of the points around it. `energy` is minus ``max(sigma^2 / v, 1)``
    times the log-density at the raised noise, whose gradient the field is.

    References
    ----------
    arXiv:2601.19285.

    Examples
    --------
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> model = SmoothedScoreDiffusion(0.1, 0.2, kernel="temperature")
    """

    def __repr__(self) -> str:
        return "TemperatureKernel()"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the shape as the affine hull of the data sees it; estimators call this."""
        return _TemperedShape()


class ProportionalScale:
    """A smoothing scale that grows with the noise: sigma = ratio * sqrt(v).

    Parameters
    ----------
    ratio : float
        The number kappa of noise scales, > 0.

    Raises
    ------
    TypeError, ValueError
        If it is not a positive number.

    References
    ----------
    Z. Chen, On the Interpolation Effect of Score Smoothing, arXiv:2502.19499.

    Examples
    --------
    >>> from skdiffsmooth.kernels import ProportionalScale
    >>> ProportionalScale(0.5)(0.2)
    0.1
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = check_real("ratio", ratio)

    def __repr__(self) -> str:
        return f"ProportionalScale({self.ratio:g})"

    def __call__(self, scale: float) -> float:
        """Return the smoothing scale at a noise scale, both in units of X."""
        return self.ratio * scale


KERNELS: dict[str, Callable[[], Kernel]] = {
    "gaussian": GaussianKernel,
    "uniform-ball": UniformBallKernel,
    "temperature": TemperatureKernel,
}


def _check_semi_definite(matrix: np.ndarray) -> None:
    size = np.abs(matrix).max()
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 1e-8 * size:
        raise ValueError(
            f"covariance is not symmetric (entries differ by {asymmetry:g}); expected a symmetric "
            "matrix. Pass (S + S.T) / 2 if that is meant."
        )
    lowest = np.linalg.eigvalsh(matrix)[0]
    if lowest < -1e-10 * len(matrix) * size:
        raise ValueError(
            f"covariance has the negative eigenvalue {lowest:g}; expected a positive semi-definite "
            "matrix."
        )


def _check_features(name: str, found: int, hull: AffineHull) -> None:
    if found != hull.n_features:
        raise ValueError(
            f"{name} has {found} columns, but X has {hull.n_features} features; expected the same "
            "number."
        )
