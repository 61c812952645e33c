"""DensityDisplay: a density of one column, two columns, pairs of columns, or a conditional slice."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._estimators.kde import KDESampler
from .._utils.given import resolve_given_values
from .._utils.table import check_table
from .._utils.warnings import without_warnings
from ..compose._changes import with_names
from ..compose._compare import base_measure
from ._figures import (
    BLACK,
    check_number_of_columns,
    column_names_of,
    columns_in_order,
    draws_of,
    frame_of,
    grid_of,
    matplotlib_axes,
    mesh,
    next_style,
    numeric_rows,
    used_columns,
)

# Number of draws from which grids and marginals are estimated.
_N_DRAWS = 2000
_RESOLUTIONS = {1: 200, 2: 60}
_RESOLUTION_OF_PAIRS = 40
# Depth of the colour scale in nats below the highest log-density; fractions of the mass inside the
# lines.
_DEPTH, _MASSES = 10.0, (0.5, 0.9)


@dataclass
class DensityDisplay:
    """The density of one column, of two, or of all pairs of several.

    `from_estimator` computes it, and `plot` draws it, any number of times.

    Parameters
    ----------
    columns : list of str
        Names of the columns that are drawn.
    grid : list of ndarray of shape (n_values,)
        Values of each column at which the density was computed.
    log_density : dict
        Log-densities in nats. The keys are column numbers: ``(i,)`` for an array of shape (n_values,),
        ``(i, j)`` for one of shape (n_values of i, n_values of j). With more than two columns there is
        one array for each column and one for each pair i < j.
    given : dict
        Columns on whose values the density is conditional, and these values; empty if there are none.
    is_exact : bool
        Whether log-densities are from `score_samples` of the estimator; otherwise they are estimated
        from draws.
    rows : ndarray of shape (n_rows, n_columns) or None
        Rows to draw above the density.

    See Also
    --------
    sklearn.inspection.DecisionBoundaryDisplay : With ``response_method="score_samples"``, the densities
        of models of two columns that are not of this package.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.displays import DensityDisplay
    >>> X = np.random.RandomState(0).normal(size=(50, 1))
    >>> display = DensityDisplay.from_estimator(SmoothedScoreDiffusion().fit(X))
    >>> mass = np.trapezoid(np.exp(display.log_density[0,]), display.grid[0])
    >>> float(round(mass, 1)), list(display.frame())
    (1.0, ['x0', 'log_density'])
    """

    columns: list[str]
    grid: list[np.ndarray]
    log_density: dict[tuple[int, ...], np.ndarray]
    given: dict[Any, float] = field(default_factory=dict)
    is_exact: bool = True
    rows: np.ndarray | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        columns: Any = None,
        given: Any = None,
        grid: Any = None,
        grid_resolution: int | None = None,
    ) -> DensityDisplay:
        """Compute the density of an estimator on a grid.

        Parameters
        ----------
        estimator : estimator
            A fitted density, pipeline or search.
        X : array-like of shape (n_samples, n_features), default=None
            Rows to draw above the density, such as the training rows; the grid covers them. If None, it
            covers draws of the estimator, without the outermost half per cent on each side.
        columns : collection of int or str, default=None
            Columns to draw, by label or index, at most eight. None: all that are not in `given`.
        given : mapping from column to value, default=None
            Values of columns, in units of X: the conditional density given these is drawn. The
            estimator's `score_samples` or `sample` must have a parameter `given`.
        grid : array-like or list of array-likes, default=None
            Increasing values of each column; None spaces them evenly.
        grid_resolution : int, default=None
            Number of values of each column. None is 200 for one column, 60 for two and 40 for more.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError, ValueError
            If columns, given values or grid do not fit, or there are more than eight columns.

        Notes
        -----
        If one or two `columns` and `given` are all columns, `score_samples` scores the grid; also if
        one of two columns that are not given is drawn and `score_samples` has a parameter `columns`.
        Other densities, and those of tables with levels or counts, are kernel density estimates from
        2000 draws, which are slightly wider than the density.
        """
        names = column_names_of(estimator)
        d = len(names)
        # Columns of arrays are passed by index, columns of frames by label.
        labels = [j if name == f"x{j}" else name for j, name in enumerate(names)]
        is_given, values = checked_given(given, names)
        shown = columns_in_order(columns, names, is_given)
        if set(shown) & set(is_given):
            raise ValueError(
                "columns and given share a column; expected each column in at most one of them."
            )
        check_number_of_columns(shown)
        # With levels or counts log-densities are not per unit of X, so the density is estimated from
        # draws.
        is_mixed = base_measure(estimator) is not None
        is_exact = not is_mixed and _has_exact_density(estimator, len(shown), len(is_given), d)
        drawn = None
        if not is_exact or (X is None and grid is None):
            with without_warnings():
                options = {"given": given} if is_given else {}
                drawn = numeric_rows(draws_of(estimator, _N_DRAWS, 0, **options))
        if X is not None:
            X = used_columns(X, names)
        rows = None if X is None else checked_rows(X, d, is_mixed=is_mixed)
        for c in shown:
            if is_mixed and drawn is not None and not np.all(np.isfinite(drawn[:, c])):
                raise ValueError(
                    f"columns: {names[c]!r} holds levels or missing values and has no density; expected "
                    "columns of numbers. Draw it with SampleComparisonDisplay."
                )
        if grid_resolution is None:
            grid_resolution = _RESOLUTIONS.get(len(shown), _RESOLUTION_OF_PAIRS)
        values_of = grid_of(grid, rows, drawn, shown, grid_resolution)
        log_density = {}
        for panel in _panels(len(shown)):
            points, at = mesh([values_of[i] for i in panel]), [shown[i] for i in panel]
            if is_exact:
                result = _exact_log_density(estimator, points, at, is_given, values, labels)
            else:
                assert drawn is not None
                with without_warnings():
                    kde = KDESampler(metric="scaled").fit(drawn[:, at])
                    result = kde.score_samples(points)
            log_density[panel] = np.reshape(result, [len(values_of[i]) for i in panel])
        return cls(
            [names[c] for c in shown],
            values_of,
            log_density,
            {names[c]: float(value) for c, value in zip(is_given, values, strict=True)},
            is_exact,
            None if rows is None else rows[:, shown],
        )

    def frame(self) -> Any:
        """Return log-densities in nats as a pandas DataFrame.

        For one or two columns it has their values and "log_density". For more columns it has "x_column"
        and "y_column", the names of a pair, their values "x" and "y", and "log_density"; rows of a
        single column have no y.
        """
        if len(self.columns) <= 2:
            points = mesh(self.grid)
            values = self.log_density[tuple(range(len(self.grid)))]
            columns = dict(zip(self.columns, points.T, strict=True))
            return frame_of(columns | {"log_density": values.ravel()})
        parts: dict[str, list[Any]] = {
            name: [] for name in ("x_column", "y_column", "x", "y", "log_density")
        }
        for panel, values in self.log_density.items():
            points = mesh([self.grid[i] for i in panel])
            n, is_pair = len(points), len(panel) == 2
            parts["x_column"] += [self.columns[panel[0]]] * n
            parts["y_column"] += [self.columns[panel[1]] if is_pair else None] * n
            parts["x"] += points[:, 0].tolist()
            parts["y"] += points[:, 1].tolist() if is_pair else [np.nan] * n
            parts["log_density"] += values.ravel().tolist()
        return frame_of(parts)

    def plot(self, ax: Any = None, *, label: str | None = None) -> DensityDisplay:
        """Draw the density; `skdiffsmooth.displays` describes `ax`.

        Several densities of one column can be drawn in the same Axes: colour and line differ, and
        `label` is in the legend.
        """
        k = len(self.columns)
        n = k if k > 2 else 1
        self.figure_, axes = matplotlib_axes(ax, n, n)
        images = []
        for panel, values in self.log_density.items():
            if n == 1:
                part = axes[0, 0]
            else:
                # The first column of a panel is its horizontal axis.
                part = axes[panel[-1], panel[0]]
            if len(panel) == 1:
                self._draw_curve(part, panel[0], values, label, is_panel=n > 1)
            else:
                images.append(self._draw_image(part, panel, values))
            if n > 1:
                _clear_inner_labels(part, panel, k)
        for i, j in zip(*np.triu_indices(n, 1), strict=True):
            axes[i, j].set_axis_off()
        if images:
            shown = axes[0, 0] if n == 1 else list(axes.ravel())
            bar = self.figure_.colorbar(images[0], ax=shown, shrink=1.0 if n == 1 else 0.7)
            bar.set_label("nats below the highest log-density")
        if ax is None and self.caption:
            self.figure_.supxlabel(textwrap.fill(self.caption, 75), fontsize="small", color="0.35")
        self.ax_ = axes[0, 0] if n == 1 else axes
        return self

    @property
    def caption(self) -> str:
        """Description of the figure in one line; empty where nothing has to be explained."""
        given = ", ".join(f"{name} = {value:g}" for name, value in self.given.items())
        parts = [f"given {given}"] if given else []
        if max(map(len, self.log_density)) == 2:
            parts.append("lines contain 50 % (solid) and 90 % (dashed) of the mass")
        if not self.is_exact:
            parts.append(f"estimated from {_N_DRAWS} draws")
        return "; ".join(parts)

    def _draw_curve(
        self, ax: Any, column: int, values: np.ndarray, label: str | None, *, is_panel: bool
    ) -> None:
        """Draw the density of one column, with a tick at each of the rows."""
        style = next_style(ax)
        ax.plot(
            self.grid[column],
            np.exp(values),
            color=style.color,
            linestyle=style.linestyle,
            label=label,
        )
        ax.set(xlabel=self.columns[column], ylim=(0, None))
        ax.set_ylabel("" if is_panel else f"density (1 / unit of {self.columns[column]})")
        if self.rows is not None:
            ax.plot(
                self.rows[:, column],
                np.zeros(len(self.rows)),
                "|",
                color=BLACK,
                alpha=0.4,
                transform=ax.get_xaxis_transform(),
                label="_rows",
            )
        if label is not None:
            ax.legend()

    def _draw_image(self, ax: Any, panel: tuple[int, ...], values: np.ndarray) -> Any:
        """Draw the log-density of two columns less its maximum, lines of equal mass, and the rows."""
        x, y = (self.grid[i] for i in panel)
        finite = values[np.isfinite(values)]
        if not len(finite):
            raise ValueError(
                "the density is zero on the whole grid; pass a grid that covers the training rows."
            )
        below = np.maximum(values - finite.max(), -_DEPTH)
        image = ax.pcolormesh(
            x, y, below.T, vmin=-_DEPTH, vmax=0, cmap="Blues", shading="nearest", rasterized=True
        )
        levels = _levels_of_mass(x, y, values - finite.max())
        if len(np.unique(levels)) == len(levels):
            ax.contour(
                x,
                y,
                values.T - finite.max(),
                levels=levels,
                colors=BLACK,
                linewidths=1.0,
                linestyles=["--", "-"],
            )
        if self.rows is not None:
            ax.plot(
                *self.rows[:, list(panel)].T,
                "o",
                ms=2.5,
                mfc="white",
                mec="0.25",
                mew=0.5,
                alpha=0.8,
            )
            ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        ax.set(xlabel=self.columns[panel[0]], ylabel=self.columns[panel[1]])
        return image


def _has_exact_density(estimator: Any, n_shown: int, n_given: int, d: int) -> bool:
    """Return whether `score_samples` computes the density of some columns given others quickly."""
    takes = inspect.signature(estimator.score_samples).parameters
    if n_shown + n_given == d:
        return n_shown <= 2 and ("given" in takes or not n_given)
    # With more than one other column each value would be an integral over hundreds of draws.
    return n_shown == 1 and n_given == d - 2 and "columns" in takes


def _exact_log_density(
    estimator: Any,
    points: np.ndarray,
    at: list[int],
    is_given: list[int],
    values: np.ndarray,
    labels: list[Any],
) -> np.ndarray:
    """Return log-densities (n,) of columns `at`, whose values are points (n, k), given others.

    `labels` are the column labels (or indices) of the estimator.
    """
    options = {"given": [labels[c] for c in is_given]} if is_given else {}
    if len(at) + len(is_given) < estimator.n_features_in_:
        options["columns"] = [labels[c] for c in at]
    queries = queries_at(estimator, points, at, is_given, values)
    return estimator.score_samples(queries, **options)


def _panels(n_columns: int) -> list[tuple[int, ...]]:
    """Return the column numbers of each panel."""
    if n_columns <= 2:
        return [tuple(range(n_columns))]
    return [
        *((i,) for i in range(n_columns)),
        *((i, j) for i in range(n_columns) for j in range(i + 1, n_columns)),
    ]


def _levels_of_mass(x: np.ndarray, y: np.ndarray, log_density: np.ndarray) -> list[float]:
    """Return the two log-densities above which a grid has 90 % and 50 % of its mass, in this order."""
    cells = np.outer(np.gradient(x), np.gradient(y)) * np.exp(log_density)
    order = np.argsort(log_density, axis=None)[::-1]
    mass = np.cumsum(cells.ravel()[order])
    at = np.minimum(np.searchsorted(mass, np.multiply(_MASSES, mass[-1])), len(mass) - 1)
    return sorted(float(log_density.ravel()[order[i]]) for i in at)


def _clear_inner_labels(ax: Any, panel: tuple[int, ...], k: int) -> None:
    """Remove the labels of a panel that is not at the left or lower border of the triangle."""
    if panel[-1] < k - 1:
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)
    if panel[0] > 0 or len(panel) == 1:
        ax.set_ylabel("")
        ax.tick_params(labelleft=False)


def checked_given(given: Any, names: list[str]) -> tuple[list[int], np.ndarray]:
    """Return the indices of given columns and their values."""
    if given is None:
        return [], np.empty(0)
    if isinstance(given, Mapping) and not given:
        raise ValueError("given is empty; expected at least one column with its value, or None.")
    labels = np.array(names, dtype=object)
    columns, values = resolve_given_values(given, 1, labels, len(names))
    return [int(column) for column in columns], values[0]


def queries_at(
    estimator: Any, points: np.ndarray, at: list[int], is_given: list[int], values: np.ndarray
) -> Any:
    """Return rows whose columns `at` are points (n, k) and whose given columns have `values`.

    Other columns are zero. Rows have the column names of the estimator, if it has any.
    """
    queries = np.zeros((len(points), estimator.n_features_in_))
    queries[:, at], queries[:, is_given] = points, values
    return with_names(queries, getattr(estimator, "feature_names_in_", None))


def checked_rows(X: Any, d: int, *, is_mixed: bool = False) -> np.ndarray:
    """Return the checked rows (n, d) to draw; if `is_mixed`, with NaN in columns of levels."""
    rows = numeric_rows(X) if is_mixed else check_table(X, "DensityDisplay")
    if rows.shape[1] != d:
        raise ValueError(f"X has {rows.shape[1]} features; expected {d}, as the estimator has.")
    return rows
