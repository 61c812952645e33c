"""Functions of all displays: figures and axes, colours and lines, choice of columns, grids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._utils.given import resolve_columns
from .._utils.validation import check_detached, check_integer, check_real_array
from ..compose._sample import names_of_columns, sample

# Okabe and Ito (2008): distinct for colour-blind readers; in grey, lines and markers differ.
BLACK, BLUE, ORANGE, GREEN = "#000000", "#0072B2", "#E69F00", "#009E73"
_VERMILION, _PURPLE, _SKY = "#D55E00", "#CC79A7", "#56B4E9"
_MOST_COLUMNS = 8
# Fraction of the draws outside the grid on each side; margin, as a fraction of the grid's width.
_OUTSIDE, _MARGIN = 0.005, 0.1


class Style(NamedTuple):
    """Colour, line and marker of one curve."""

    color: str
    linestyle: Any
    marker: str


STYLES = (
    Style(BLUE, "-", "o"),
    Style(_VERMILION, "--", "s"),
    Style(GREEN, "-.", "^"),
    Style(ORANGE, ":", "D"),
    Style(_PURPLE, (0, (5, 1, 1, 1, 1, 1)), "v"),
    Style(_SKY, (0, (7, 2)), "P"),
    Style(BLACK, (0, (1, 1)), "X"),
)


def next_style(ax: Any) -> Style:
    """Return the style for the next curve of an axes, another one than those of its labelled curves."""
    labelled = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    return STYLES[len(labelled) % len(STYLES)]


def matplotlib_axes(
    ax: Any, n_rows: int = 1, n_columns: int = 1, size: float = 2.4
) -> tuple[Any, np.ndarray]:
    """Return a figure, and an array of axes (n_rows, n_columns) in it.

    `ax` is None for a new figure, a single Axes, which is divided if several are needed, or an array of
    as many Axes as are needed. If there are several, `size` is the side of a panel in inches.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib, which is not installed; install it with "
            "pip install 'skdiffsmooth[plot]'. frame() returns what would be drawn."
        ) from error
    if ax is None:
        single = n_rows == n_columns == 1
        shape = (6.4, 4.8) if single else (size * n_columns + 1.2, size * n_rows + 0.6)
        figure, axes = plt.subplots(
            n_rows, n_columns, figsize=shape, layout="constrained", squeeze=False
        )
        return figure, axes
    check_detached("ax", ax)
    given = np.asarray(ax, dtype=object)
    wrong = [each for each in given.flat if not hasattr(each, "get_subplotspec")]
    if wrong:
        raise TypeError(
            f"ax holds {wrong[0]!r:.100} of type {type(wrong[0]).__name__}; expected Axes of "
            "matplotlib, an array of them, or None for a new figure."
        )
    if given.size == n_rows * n_columns:
        axes = given.reshape(n_rows, n_columns)
        return axes[0, 0].figure, axes
    if given.size != 1 or given.item().get_subplotspec() is None:
        raise ValueError(
            f"ax holds {given.size} axes; expected {n_rows * n_columns}, in {n_rows} rows, or one axes "
            "of plt.subplots, which is divided. Pass None for a new figure."
        )
    whole = given.item()
    whole.set_axis_off()
    grid = whole.get_subplotspec().subgridspec(n_rows, n_columns)
    return whole.figure, np.array(
        [[whole.figure.add_subplot(grid[i, j]) for j in range(n_columns)] for i in range(n_rows)],
        dtype=object,
    )


def frame_of(columns: dict[str, Any]) -> Any:
    """Return columns as a pandas DataFrame."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "frame needs pandas, which is not installed; install it with "
            "pip install 'skdiffsmooth[pandas]'."
        ) from error
    return pd.DataFrame(columns)


def column_names_of(estimator: Any) -> list[Any]:
    """Return the names of the columns of a fitted estimator, without those that a table leaves out."""
    check_is_fitted(estimator)
    n = getattr(estimator, "n_features_in_", None)
    if n is None:
        raise TypeError(
            f"{type(estimator).__name__} has no n_features_in_; expected a fitted density estimator, "
            "or a pipeline or search of one."
        )
    return names_of_columns(estimator, n)


def used_columns(X: Any, names: Sequence[Any]) -> Any:
    """Return a frame with the columns `names` only, if it has more; other tables are unchanged."""
    labels = getattr(X, "columns", ())
    return X[list(names)] if len(names) < len(labels) and set(names) <= set(labels) else X


def columns_in_order(columns: Any, names: Sequence[Any], given: Sequence[int] = ()) -> list[int]:
    """Return the indices of columns in the user's order: the first is horizontal.

    None is all columns but the given ones.
    """
    if columns is None:
        return [j for j in range(len(names)) if j not in given]
    labels = np.array(names, dtype=object)
    if not len(resolve_columns("columns", columns, labels, len(names))):
        raise ValueError("columns is empty; expected the labels or indices of columns to draw.")
    return [int(resolve_columns("columns", [c], labels, len(names))[0]) for c in columns]


def check_number_of_columns(columns: Sequence[int]) -> None:
    """Raise an error if there are more columns than panels can show."""
    if len(columns) > _MOST_COLUMNS:
        raise ValueError(
            f"columns: {len(columns)} columns cannot be drawn in one figure; expected at most "
            f"{_MOST_COLUMNS}. Pass columns=[...] with the labels or indices of those to draw."
        )


def draws_of(estimator: Any, n: Any, random_state: Any, given: Any = None) -> Any:
    """Return draws of any fitted model: rows (n, d), or a frame from a density of tables."""
    n = check_integer("n_samples", n)
    drawn = sample(estimator, n, random_state, given=given)
    # A classifier returns rows and labels.
    return drawn[0] if isinstance(drawn, tuple) else drawn


def numeric_rows(rows: Any) -> np.ndarray:
    """Return a table as numbers (n, d), with NaN in columns of text or categories."""
    if not hasattr(rows, "columns"):
        return np.asarray(rows, dtype=np.float64)
    columns = []
    for label in rows.columns:
        try:
            columns.append(np.asarray(rows[label], dtype=np.float64))
        except (TypeError, ValueError):
            columns.append(np.full(len(rows), np.nan))
    return np.column_stack(columns)


def grid_of(
    grid: Any, rows: Any, drawn: Any, columns: Sequence[int], resolution: Any
) -> list[np.ndarray]:
    """Return the grid values of each column: the user's `grid`, or even steps around rows (n, d).

    If `rows` is None, steps are around most of the draws (n_drawn, d).
    """
    if grid is not None:
        if not isinstance(grid, Iterable):
            raise TypeError(f"grid={grid!r}; expected one array of values for each column.")
        given = list(grid)
        is_one = len(columns) == 1 and all(np.ndim(value) == 0 for value in given)
        values = [given] if is_one else given
        arrays = [check_real_array("grid", value, allow_bool=False) for value in values]
        if len(arrays) != len(columns) or any(value.ndim != 1 for value in arrays):
            raise ValueError(
                f"grid has {len(arrays)} arrays; expected one array of values for each of the "
                f"{len(columns)} columns that are drawn."
            )
        for value in arrays:
            if not np.all(np.isfinite(value)) or len(value) < 2 or np.any(np.diff(value) <= 0):
                raise ValueError(
                    "grid holds values that are not finite and increasing; expected at least two of "
                    "them for each column, such as numpy.linspace(low, high, 100)."
                )
        return arrays
    resolution = check_integer("grid_resolution", resolution, minimum=2)
    if rows is None:
        low, high = np.quantile(drawn, [_OUTSIDE, 1 - _OUTSIDE], axis=0)
    else:
        low, high = np.quantile(rows, [0, 1], axis=0)
    # A constant column still needs a range of values.
    margin = np.where(high > low, _MARGIN * (high - low), np.maximum(1e-3 * np.abs(high), 1e-3))
    return [np.linspace((low - margin)[c], (high + margin)[c], resolution) for c in columns]


def mesh(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return all combinations (n, k) of the values of k columns, the last one varying fastest."""
    return np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(values))
