"""ScoreFieldDisplay and TrajectoryDisplay: the score at noise scales, and paths of rows in the flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.validation import check_integer, check_real
from .._utils.warnings import without_warnings
from ..compose._members import unwrap
from ._density import checked_given, checked_rows, queries_at
from ._figures import (
    BLACK,
    BLUE,
    ORANGE,
    STYLES,
    column_names_of,
    columns_in_order,
    draws_of,
    frame_of,
    grid_of,
    matplotlib_axes,
    mesh,
)

_N_DRAWS = 500
_RESOLUTION_OF_ONE, _RESOLUTION_OF_TWO = 200, 21
_MOST_SCALES = 6


@dataclass
class ScoreFieldDisplay:
    """The score, the gradient of the log-density, at one or more noise scales.

    It is drawn as curves for one column, and as arrows for two.

    Parameters
    ----------
    columns : list of str
        Names of the one or two columns.
    points : ndarray of shape (n_points, n_columns)
        Points at which the score was computed.
    score : ndarray of shape (n_scales, n_points, n_columns)
        The score, in nats per unit of each column.
    noise_scales : list of float
        Square roots of the noise variances `t`, in units of the metric.
    rows : ndarray of shape (n_rows, n_columns) or None
        Rows to draw below the arrows.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.displays import ScoreFieldDisplay
    >>> X = np.random.RandomState(0).normal(size=(50, 2))
    >>> model = SmoothedScoreDiffusion(0.3, 0.4).fit(X)
    >>> ScoreFieldDisplay.from_estimator(model, X, t=[0.1, 1.0]).score.shape
    (2, 441, 2)
    """

    columns: list[str]
    points: np.ndarray
    score: np.ndarray
    noise_scales: list[float]
    rows: np.ndarray | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        t: Any = None,
        columns: Any = None,
        given: Any = None,
        grid: Any = None,
        grid_resolution: int | None = None,
    ) -> ScoreFieldDisplay:
        """Compute the score on a grid.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `grad_log_density`, or a search whose best estimator has it.
        X : array-like of shape (n_samples, n_features), default=None
            Rows to draw below the arrows; the grid covers them.
        t : float or sequence of float, default=None
            Noise variances, at most six, in squared units of the metric. None is the squared bandwidth.
        columns : collection of int or str, default=None
            One or two columns, by label or index. None: all that are not in `given`.
        given : mapping from column to value, default=None
            Values of all other columns; only the components of the score along `columns` are drawn.
        grid : array-like or list of array-likes, default=None
            Increasing values of each column; None spaces them evenly.
        grid_resolution : int, default=None
            Number of values of each column; None is 200 for one column, and 21 for two.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError, ValueError
            If the estimator has no score, or columns, given values, `t` or grid do not fit it.
        """
        model = unwrap(estimator)
        if not hasattr(model, "grad_log_density"):
            raise TypeError(
                f"{type(model).__name__} has no grad_log_density; expected an estimator with a score, "
                "such as SmoothedScoreDiffusion or KDESampler(kernel='gaussian')."
            )
        names = column_names_of(model)
        is_given, values = checked_given(given, names)
        shown = columns_in_order(columns, names, is_given)
        _check_plane(shown, len(names) - len(is_given), "given={column: value} for all others")
        rows = None if X is None else checked_rows(X, len(names))
        drawn = None
        if rows is None and grid is None:
            with without_warnings():
                drawn = draws_of(model, _N_DRAWS, 0)
        if grid_resolution is None:
            grid_resolution = _RESOLUTION_OF_ONE if len(shown) == 1 else _RESOLUTION_OF_TWO
        points = mesh(grid_of(grid, rows, drawn, shown, grid_resolution))
        queries = queries_at(model, points, shown, is_given, values)
        variances = [t] if t is None or np.ndim(t) == 0 else list(t)
        if not 1 <= len(variances) <= _MOST_SCALES:
            raise ValueError(
                f"t has {len(variances)} noise variances; expected 1 to {_MOST_SCALES}, one for each "
                "panel."
            )
        own = float(np.max(model.bandwidth_))
        scales = [own if v is None else float(np.sqrt(check_real("t", v))) for v in variances]
        score = [model.grad_log_density(queries, v)[:, shown] for v in variances]
        return cls(
            [names[c] for c in shown],
            points,
            np.array(score),
            scales,
            None if rows is None else rows[:, shown],
        )

    def frame(self) -> Any:
        """Return a pandas DataFrame of "noise_scale", the columns, and each "score of <column>"."""
        n, k = len(self.points), len(self.noise_scales)
        frame = {"noise_scale": np.repeat(self.noise_scales, n)}
        frame |= {name: np.tile(x, k) for name, x in zip(self.columns, self.points.T, strict=True)}
        for j, name in enumerate(self.columns):
            frame[f"score of {name}"] = self.score[:, :, j].ravel()
        return frame_of(frame)

    def plot(self, ax: Any = None) -> ScoreFieldDisplay:
        """Draw a panel for each noise scale; `skdiffsmooth.displays` describes `ax`."""
        is_curve = len(self.columns) == 1
        n = 1 if is_curve else len(self.noise_scales)
        self.figure_, axes = matplotlib_axes(ax, 1, n, size=3.6)
        self.ax_ = axes[0, 0] if n == 1 else axes
        if is_curve:
            for style, scale, score in zip(STYLES, self.noise_scales, self.score, strict=False):
                axes[0, 0].plot(
                    self.points[:, 0],
                    score[:, 0],
                    color=style.color,
                    linestyle=style.linestyle,
                    label=f"noise scale {scale:.3g}",
                )
            name = self.columns[0]
            axes[0, 0].axhline(0, color=BLACK, lw=0.6)
            axes[0, 0].set(xlabel=name, ylabel=f"score (nats / unit of {name})")
            axes[0, 0].legend()
            return self
        units = self.points.std(axis=0)
        for part, scale, score in zip(axes[0], self.noise_scales, self.score, strict=True):
            if self.rows is not None:
                part.plot(*self.rows.T, ".", color="0.65", ms=3, label="rows")
            # Arrows have the direction of the score in the picture; long ones are shortened.
            length = np.linalg.norm(score * units, axis=1, keepdims=True)
            arrows = score * units**2 / np.maximum(length, 1e-300) * np.tanh(length / 3)
            part.quiver(
                *self.points.T,
                *(arrows / units).T,
                length[:, 0],
                cmap="viridis",
                angles="uv",
                scale_units="width",
                scale=24,
                width=0.004,
                norm="log",
            )
            part.set(title=f"score at noise scale {scale:.3g}", xlabel=self.columns[0])
        axes[0, 0].set_ylabel(self.columns[1])
        if ax is None:
            self.figure_.supxlabel(
                "colour: size of the score, light where it is large; long arrows are shortened",
                fontsize="small",
                color="0.35",
            )
        if self.rows is not None:
            axes[0, 0].legend(loc="upper left", fontsize="small")
        return self


@dataclass
class TrajectoryDisplay:
    """Paths of rows, or of draws, in the flow between the terminal noise scale and the bandwidth.

    Parameters
    ----------
    columns : list of str
        Names of the one or two columns.
    noise_scales : ndarray of shape (n_scales,)
        Noise scales along the paths in units of the metric, from the start to the end.
    rows : ndarray of shape (n_scales, n_rows, n_columns)
        The rows at each noise scale.

    See Also
    --------
    skdiffsmooth.SmoothedScoreDiffusion.trajectories : The paths as arrays, with all columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.displays import TrajectoryDisplay
    >>> X = np.random.RandomState(0).normal(size=(50, 2))
    >>> model = SmoothedScoreDiffusion(0.3, 0.4).fit(X)
    >>> TrajectoryDisplay.from_estimator(model, n_samples=5, random_state=0).rows.shape
    (33, 5, 2)
    """

    columns: list[str]
    noise_scales: np.ndarray
    rows: np.ndarray

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        n_samples: int = 30,
        random_state: Any = None,
        columns: Any = None,
    ) -> TrajectoryDisplay:
        """Compute paths of draws down to the bandwidth, or of rows up to the terminal scale.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `trajectories`, or a search whose best estimator has it.
        X : array-like of shape (n_samples, n_features), default=None
            Rows whose paths start at the bandwidth. None: paths of draws, which end there.
        n_samples : int, default=30
            Number of draws, used if `X` is None.
        random_state : int, RandomState or None, default=None
            Source of the draws.
        columns : collection of int or str, default=None
            One or two columns to draw, by label or index. None is all.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError, ValueError
            If the estimator has no flow, or more than two columns are to be drawn.
        """
        model = unwrap(estimator)
        if not hasattr(model, "trajectories"):
            raise TypeError(
                f"{type(model).__name__} has no trajectories; expected a diffusion, such as "
                "SmoothedScoreDiffusion or ManifoldAdaptedDiffusion."
            )
        names = column_names_of(model)
        shown = columns_in_order(columns, names)
        _check_plane(shown, len(shown), "columns=[first, second]")
        if X is not None:
            scales, rows = model.trajectories(X)
        else:
            n = check_integer("n_samples", n_samples)
            scales, rows = model.trajectories(n_samples=n, random_state=random_state)
        return cls([names[c] for c in shown], scales, rows[:, :, shown])

    def frame(self) -> Any:
        """Return the paths as a pandas DataFrame with "row", "noise_scale" and the columns."""
        n_scales, n_rows, _ = self.rows.shape
        frame = {
            "row": np.repeat(np.arange(n_rows), n_scales),
            "noise_scale": np.tile(self.noise_scales, n_rows),
        }
        by_row = np.swapaxes(self.rows, 0, 1)
        return frame_of(
            frame | {name: by_row[:, :, j].ravel() for j, name in enumerate(self.columns)}
        )

    def plot(self, ax: Any = None) -> TrajectoryDisplay:
        """Draw paths in two columns, or in one over the noise scale; see `displays` for `ax`."""
        self.figure_, axes = matplotlib_axes(ax)
        ax = self.ax_ = axes[0, 0]
        if len(self.columns) == 1:
            y = self.rows[..., 0]
            x = np.broadcast_to(self.noise_scales[:, None], y.shape)
            ax.set(xscale="log", xlabel="noise scale (units of the metric)", ylabel=self.columns[0])
        else:
            x, y = self.rows[..., 0], self.rows[..., 1]
            ax.set(xlabel=self.columns[0], ylabel=self.columns[1])
        ax.plot(x, y, color="0.6", lw=0.8)
        shape = {"ms": 4.5, "mec": "white", "mew": 0.5}
        for name, end, marker, color in (("start", 0, "o", ORANGE), ("end", -1, "s", BLUE)):
            label = f"{name}, noise scale {self.noise_scales[end]:.3g}"
            ax.plot(x[end], y[end], marker, color=color, label=label, **shape)
        ax.legend()
        return self


def _check_plane(shown: list[int], n_free: int, advice: str) -> None:
    """Raise an error unless one or two columns are drawn, and all others are fixed."""
    if len(shown) > 2 or n_free > len(shown):
        raise ValueError(
            f"columns: {max(n_free, len(shown))} columns cannot be drawn in a plane; expected one or "
            f"two. Pass {advice}."
        )
