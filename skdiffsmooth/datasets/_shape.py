"""A shape: a manifold with a distribution on it, whose density is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.validation import (
    check_choice,
    check_draw,
    check_integer,
    check_real,
    check_real_array,
    check_seed,
)
from ..manifolds import SmoothManifold
from ._charts import Chart
from ._distributions import Distribution

# Largest distance from the manifold of a row that has a density, in units of its largest coordinate:
# the rounding of float32 rows is accepted, noise is not.
ON_MANIFOLD = 1e-6
EDGE = 1e-6


@dataclass(frozen=True)
class Shape:
    """A manifold with a distribution on it, from which rows are drawn and whose density is known.

    `circle`, `sphere` and the other functions of this module return shapes, and so do ``make_*`` with
    ``return_shape=True``. A shape has one distribution: for another distribution make another shape.

    Parameters
    ----------
    manifold : SmoothManifold
        The manifold of the rows without noise, with `project`, `distance`, `tangent` and `reach`.
    chart : Chart
        The map from the unit cube onto the manifold.
    distribution : Distribution
        Distribution of the first coordinate of the cube; the other coordinates are uniform.

    See Also
    --------
    circle : The simplest shape.
    skdiffsmooth.manifolds : The methods of manifolds.

    Examples
    --------
    >>> from skdiffsmooth import datasets
    >>> shape = datasets.circle(2.0)
    >>> shape.n_components, round(shape.volume, 4), shape.manifold.reach
    (1, 12.5664, 2.0)
    >>> X = shape.sample(30, noise=0.1, random_state=0)
    >>> shape.log_density(shape.manifold.project(X))[:2].round(4)  # -log(4 pi)
    array([-2.531, -2.531])
    """

    manifold: SmoothManifold
    chart: Chart
    distribution: Distribution

    def __repr__(self) -> str:
        return f"<Shape: {self.distribution!r} on {self.manifold!r}>"

    @property
    def n_components(self) -> int:
        """Dimension k of the manifold: the intrinsic dimension of rows without noise."""
        return self.chart.dimension

    @property
    def n_features(self) -> int:
        """Dimension d of the rows."""
        return self.manifold.n_features

    @property
    def volume(self) -> float:
        """Length, area or volume of the part of the manifold that rows come from."""
        return self.chart.volume

    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        spacing: str = "random",
        noise: float = 0.0,
    ) -> np.ndarray:
        """Return rows drawn from the distribution, with or without noise.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState or None, default=None
            Seed of draws and noise; None gives new draws at each call.
        spacing : {"random", "even"}, default="random"
            "random": independent draws. "even", on curves: rows between which the distribution has
            equal mass, so equidistant in arc length if it is uniform; the first row of a closed curve
            is its start, and the rows of an open curve begin and end half a gap from its ends. "even",
            for bump images with centers in a square: a triangular lattice of centers.
        noise : float, default=0.0
            Standard deviation of isotropic Gaussian noise in R^d, in units of X.

        Returns
        -------
        ndarray of shape (n_samples, d)

        Raises
        ------
        TypeError, ValueError
            If a parameter has the wrong type or is out of range, or `spacing` is "even" and the shape
            has no even spacing.
        """
        n, rng = check_draw(n_samples, random_state)
        noise = check_real("noise", noise, strict=False, hint="It is in units of X.")
        check_choice("spacing", spacing, ("random", "even"))
        if spacing == "even":
            X = self.chart.even_points(n, self.distribution)
        else:
            u = rng.uniform(size=(self.n_components, n)).T.copy()
            u[:, 0] = self.distribution.quantile(u[:, 0])
            X = self.chart.points(u)
        return X + noise * rng.normal(size=X.shape) if noise > 0 else X

    def log_density(self, X: Any) -> np.ndarray:
        """Return the log-density of rows without noise.

        It is a density with respect to length, area or volume on the manifold, not to the volume of R^d.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Points of the manifold.

        Returns
        -------
        ndarray of shape (n,)
            In nats; minus infinity where the density is zero.

        Raises
        ------
        ValueError
            If a row is farther from the manifold than 1e-6 of its largest coordinate, or X does not
            have d columns, or is not numeric or not finite.
        """
        X = check_real_array("X", X)
        distance = self.manifold.distance(X)
        far = distance > ON_MANIFOLD * np.abs(X).max(axis=1, initial=0.0)
        if far.any():
            raise ValueError(
                f"{far.sum()} rows of X are not on the manifold, the farthest at a distance of "
                f"{distance.max():.3g}; the distribution has no density there. Pass "
                "shape.manifold.project(X), or rows without noise."
            )
        u, log_element = self.chart.locate(X)
        # Points at the edge may be outside of the cube by rounding.
        inside = np.all((u >= -EDGE) & (u <= 1 + EDGE), axis=1)
        with np.errstate(divide="ignore"):
            log_relative = np.log(self.distribution.density(np.clip(u[:, 0], 0.0, 1.0)))
        return np.where(inside, log_relative - log_element, -np.inf)


def frame(n_columns: int, n_features: Any, frame_state: Any) -> np.ndarray:
    """Return random orthonormal directions (d, n_columns), or the axes if `n_features` is None."""
    seed = check_seed(frame_state, "frame_state")
    if n_features is None:
        return np.eye(n_columns)
    hint = f"The shape needs {n_columns} columns; None keeps these unrotated."
    d = check_integer("n_features", n_features, minimum=n_columns, hint=hint)
    basis, triangle = np.linalg.qr(np.random.RandomState(seed).normal(size=(d, n_columns)))
    return basis * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
