"""A shape: a manifold and a law on it, from which rows are drawn and whose density is known."""

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
from ._laws import Law

__all__ = ["Shape", "draw", "frame", "with_noise"]

# How far from the manifold a row may be whose density is asked for, in units of its largest
# coordinate: rounding of float32 rows passes, noise does not.
ON_MANIFOLD = 1e-6
EDGE = 1e-6


@dataclass(frozen=True)
class Shape:
    """What rows were drawn from: a manifold, a law on it, its density and fresh rows.

    Made by the functions ``make_*`` with ``return_shape=True``.

    Parameters
    ----------
    manifold : SmoothManifold
        Where all rows are before noise is added: `project`, `distance`, `tangent`, `reach`.
    chart : Chart
        The map from the unit cube onto the manifold.
    law : Law
        The law of the first coordinate of the cube; the others are uniform.

    See Also
    --------
    make_circle : The simplest shape.
    skdiffsmooth.manifolds : What manifolds can do.

    Examples
    --------
    >>> from skdiffsmooth import datasets
    >>> X, shape = datasets.make_circle(30, radius=2.0, return_shape=True, random_state=0)
    >>> shape.n_components, round(shape.volume, 4), shape.manifold.reach
    (1, 12.5664, 2.0)
    >>> shape.log_density(X)[:2].round(4)  # -log(4 pi)
    array([-2.531, -2.531])
    >>> shape.sample(1000, random_state=1).shape
    (1000, 2)
    """

    manifold: SmoothManifold
    chart: Chart
    law: Law

    def __repr__(self) -> str:
        return f"<Shape: {self.law!r} on {self.manifold!r}>"

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
        self, n_samples: int = 1, random_state: Any = None, *, spacing: str = "random"
    ) -> np.ndarray:
        """Return fresh rows of the law, on the manifold.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None makes fresh ones.
        spacing : {"random", "even"}, default="random"
            Independent draws, or rows between which the law has equal shares: of the uniform law
            on a curve, equidistant in arc length. A closed curve begins with its start, on an open
            one half a share is before the first row and after the last. Curves only.

        Returns
        -------
        ndarray of shape (n_samples, d)

        Raises
        ------
        TypeError, ValueError
            If a parameter is out of range, or the spacing is even and the shape no curve.
        """
        n, rng = check_draw(n_samples, random_state)
        return self._rows(n, rng, spacing)

    def _rows(self, n: int, rng: np.random.RandomState, spacing: str) -> np.ndarray:
        check_choice("spacing", spacing, ("random", "even"))
        if spacing == "random":
            p = rng.uniform(size=(self.n_components, n)).T
        elif self.n_components == 1:
            p = (np.arange(n)[:, None] + (0.0 if self.chart.closed else 0.5)) / n
        else:
            raise ValueError(
                f"spacing='even' was asked of a shape of dimension {self.n_components}; expected a "
                "curve, for only on curves all rows can be equally far from the next. Pass 'random'."
            )
        u = p.copy()
        u[:, 0] = self.law.quantile(p[:, 0])
        return self.chart.points(u)

    def log_density(self, X: Any) -> np.ndarray:
        """Return the log-density of the law on the manifold.

        With respect to its length, area or volume, not to the volume of the space around it. The law
        is that of rows without noise.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Points of the manifold.

        Returns
        -------
        ndarray of shape (n,)
            In nats; minus infinity where the law has no rows.

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
                f"{distance.max():.3g}; the law has no density there. Pass "
                "shape.manifold.project(X), or rows without noise."
            )
        u, log_element = self.chart.locate(X)
        # Edge points may be out of the cube by their rounding.
        inside = np.all((u >= -EDGE) & (u <= 1 + EDGE), axis=1)
        with np.errstate(divide="ignore"):
            log_law = np.log(self.law.density(np.clip(u[:, 0], 0.0, 1.0)))
        return np.where(inside, log_law - log_element, -np.inf)


def draw(
    shape: Shape,
    n_samples: Any,
    noise: Any,
    spacing: str,
    random_state: Any,
    return_shape: bool,
) -> Any:
    """Return what the functions ``make_*`` return: rows with noise, and the shape if wanted.

    Parameters
    ----------
    shape : Shape
        What to draw from.
    n_samples : int
        How many rows.
    noise : float
        Standard deviation of Gaussian noise in every coordinate, in units of X.
    spacing : {"random", "even"}
        As `Shape.sample`.
    random_state : int, RandomState or None
        Seed of draws and noise.
    return_shape : bool
        Whether the shape is wanted too.

    Returns
    -------
    ndarray of shape (n_samples, d), or a pair of it and the shape
    """
    n, rng = check_draw(n_samples, random_state)
    return with_noise(shape._rows(n, rng, spacing), shape, noise, rng, return_shape)


def with_noise(
    X: np.ndarray, shape: Shape, noise: Any, rng: np.random.RandomState, return_shape: bool
) -> Any:
    """Return rows with noise, and their shape if wanted.

    Parameters
    ----------
    X : ndarray of shape (n_samples, d)
        Rows of the shape.
    shape : Shape
        What they were drawn from.
    noise : float
        Standard deviation in every coordinate, in units of X.
    rng : RandomState
        Source of the noise.
    return_shape : bool
        Whether the shape is wanted too.

    Returns
    -------
    ndarray of shape (n_samples, d), or a pair of it and the shape
    """
    noise = check_real("noise", noise, strict=False, hint="It is in units of X.")
    if noise > 0:
        X = X + noise * rng.normal(size=X.shape)
    return (X, shape) if return_shape else X


def frame(n_columns: int, n_features: Any, frame_state: Any) -> np.ndarray:
    """Return orthonormal directions for a shape: the first axes, or random ones.

    Parameters
    ----------
    n_columns : int
        How many dimensions the shape needs.
    n_features : int or None
        Dimension d of the space; None is `n_columns`, unturned.
    frame_state : int
        Seed of the directions, uniform over all frames; it has no say if `n_features` is None.

    Returns
    -------
    ndarray of shape (d, n_columns)

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of range.
    """
    seed = check_seed(frame_state, "frame_state")
    if n_features is None:
        return np.eye(n_columns)
    hint = f"The shape needs {n_columns}; None leaves it unturned in those."
    d = check_integer("n_features", n_features, minimum=n_columns, hint=hint)
    basis, triangle = np.linalg.qr(np.random.RandomState(seed).normal(size=(d, n_columns)))
    return basis * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
