"""Smoothing by temperature: posterior weights that stay those of a larger noise."""

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

__all__ = ["TemperatureKernel", "TemperedScore"]


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

    is_isotropic: ClassVar[bool] = True
    works_over_base: ClassVar[bool] = False

    def __repr__(self) -> str:
        return "TemperatureKernel()"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """Return the shape as the affine hull of the data sees it; estimators call this."""
        return _TemperedShape()


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


@dataclass(frozen=True)
class TemperedScore:
    """The empirical score with posterior weights that do not sharpen below one noise variance.

    s(x, v) = (D(x) - x) / v with D the posterior mean at the larger of v and `variance`
    (arXiv:2601.19285): logits are divided by a temperature.

    Parameters
    ----------
    posterior : Denoiser
        The data.
    variance : float
        Noise variance below which weights stay as they are.
    exclude : torch.Tensor of shape (n,), optional
        Index of the point that each query does not see.
    """

    posterior: Denoiser
    variance: float
    exclude: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the tempered score, shape (n, r).

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        return (self._moments(x, v).mean - x) / v

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tempered score and its divergence, (tr Cov / max(v, variance) - r) / v.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        score : torch.Tensor of shape (n, r)
        divergence : torch.Tensor of shape (n,)
        """
        moments = self._moments(x, v, trace=True)
        assert moments.trace is not None
        divergence = (moments.trace / max(v, self.variance) - x.shape[1]) / v
        return (moments.mean - x) / v, divergence

    def log_density(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the log-density at the raised noise times the temperature, in nats.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n,)
        """
        return max(self.variance / v, 1.0) * self._moments(x, v).log_density

    def influence(self, x: torch.Tensor, v: float) -> Influence:
        """Return the weights and pulls of the points, none of which may be left out.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        Influence
        """
        raised = max(v, self.variance)
        return cast(Posterior, self.posterior).influence(x[:, None], raised, x.new_ones(1))

    def rows(self, index: torch.Tensor) -> TemperedScore:
        """Return the field of some of the queries.

        Parameters
        ----------
        index : torch.Tensor of shape (m,)
            Which.

        Returns
        -------
        TemperedScore
        """
        return self if self.exclude is None else replace(self, exclude=self.exclude[index])

    def _moments(self, x: torch.Tensor, v: float, *, trace: bool = False) -> Moments:
        raised = max(v, self.variance)
        single = Nodes.single(x)
        return self.posterior.moments(x, raised, single, trace=trace, exclude=self.exclude)
