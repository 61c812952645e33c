"""Smoothing by temperature: at low noise, posterior weights are those of a larger noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._engine.influence import Influence
from .._engine.moments import Denoiser, Moments, Nodes
from .._engine.posterior import Posterior
from .._utils.backend import Backend
from ..scores import ScoreField
from ._base import ReducedKernel
from ._nodes import NodeRule


class TemperatureKernel:
    """Smoothing by temperature, a deterministic alternative to averaging over offsets.

    Below noise scale `sigma` the posterior weights of the points are those of noise scale `sigma`:
    their logits are divided by ``max(sigma^2 / v, 1)``. One evaluation costs as much as a single node.

    Notes
    -----
    Unlike averages over offsets, this does not adapt to the geometry by itself: every sample ends near a
    weighted mean of the points around it. The score is the gradient of
    ``max(sigma^2 / v, 1)`` times the log-density at the larger noise; `energy` is minus that.

    References
    ----------
    arXiv:2601.19285.

    Examples
    --------
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> model = SmoothedScoreDiffusion(0.1, 0.2, kernel="temperature")
    """

    is_isotropic: ClassVar[bool] = True
    works_over_base: ClassVar[bool] = False

    def __repr__(self) -> str:
        return "TemperatureKernel()"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """See `Kernel`; estimators call this."""
        return _TemperedShape()


@dataclass(frozen=True)
class _TemperedShape:
    """A `ReducedKernel` without nodes."""

    rank: int = 0
    n_nodes: int = 1
    widest_std: float = 1.0

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


@dataclass(frozen=True)
class TemperedScore:
    """The empirical score with the posterior weights of a noise variance of at least `variance`.

    s(x, v) = (D(x) - x) / v, and its divergence is (tr Cov / max(v, variance) - r) / v, with D and Cov
    the posterior mean and covariance at the larger of v and `variance` (arXiv:2601.19285).
    """

    posterior: Denoiser
    variance: float
    exclude: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """See `ScoreField`."""
        return (self._moments(x, v).mean - x) / v

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ScoreField`."""
        moments = self._moments(x, v, trace=True)
        assert moments.trace is not None
        divergence = (moments.trace / max(v, self.variance) - x.shape[1]) / v
        return (moments.mean - x) / v, divergence

    def log_density(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return max(variance / v, 1) times the log-density at the larger noise, in nats."""
        return max(self.variance / v, 1.0) * self._moments(x, v).log_density

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """See `Attributable`. No point may be excluded."""
        larger = max(v, self.variance)
        return cast(Posterior, self.posterior).influence(x[:, None], larger, x.new_ones(1))

    def rows(self, index: torch.Tensor) -> TemperedScore:
        """See `RowSelectable`."""
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])

    def _moments(self, x: torch.Tensor, v: float, *, trace: bool = False) -> Moments:
        larger = max(v, self.variance)
        single = Nodes.single(x)
        return self.posterior.moments(x, larger, single, trace=trace, exclude=self.exclude)
