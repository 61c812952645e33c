"""The uniform distribution on a ball as a kernel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .._coordinates.hull import AffineHull
from ._base import ReducedKernel
from ._shapes import BallShape


class UniformBallKernel:
    """Offsets that are distributed uniformly on a ball, so that their support is compact.

    Notes
    -----
    `sigma` is the standard deviation along each coordinate, as for the Gaussian kernel, so the
    radius of the ball is ``sigma * sqrt(d + 2)`` in d features. Nodes are Gaussian nodes with
    their lengths changed; their covariance is that of the ball up to the error of the node rule, and
    no node is outside the ball.

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

    is_isotropic: ClassVar[bool] = True
    works_over_base: ClassVar[bool] = True

    def __repr__(self) -> str:
        return "UniformBallKernel()"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> ReducedKernel:
        """See `Kernel`; estimators call this."""
        return BallShape(hull.dimension, hull.n_features)
