"""SampleComparisonDisplay: real and drawn rows in each column and each pair of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .._utils.validation import check_detached, check_finite
from ._figures import (
    BLUE,
    ORANGE,
    check_number_of_columns,
    column_names_of,
    columns_in_order,
    draws_of,
    frame_of,
    matplotlib_axes,
    used_columns,
)

_MOST_DRAWS = 2000
_N_BINS = 25


@dataclass
class SampleComparisonDisplay:
    """Real rows and rows drawn from a model: histograms of columns, scatter plots of pairs of columns.

    Histograms are on the diagonal; real rows are below it and drawn rows above it, with the same limits.
    `skdiffsmooth.metrics.classifier_two_sample_test` measures how well they can be distinguished.

    Parameters
    ----------
    columns : list of str
        Names of the columns.
    real, drawn : ndarray of shape (n_rows, n_columns)
        The rows; in columns of text or categories, indices of their levels.
    levels : list
        The levels of each column, or None for a column of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.displays import SampleComparisonDisplay
    >>> X = np.random.RandomState(0).normal(size=(50, 2))
    >>> model = SmoothedScoreDiffusion().fit(X)
    >>> display = SampleComparisonDisplay.from_estimator(model, X, random_state=0)
    >>> display.drawn.shape
    (50, 2)
    """

    columns: list[str]
    real: np.ndarray
    drawn: np.ndarray
    levels: list[Any]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_samples: int | None = None,
        random_state: Any = None,
        columns: Any = None,
    ) -> SampleComparisonDisplay:
        """Draw rows from an estimator to compare with real rows.

        Parameters
        ----------
        estimator : estimator
            A fitted density, classifier, pipeline or search, from which `skdiffsmooth.sample` draws.
        X : array-like of shape (n_rows, n_features)
            Real rows; use held-out rows, since a model that merely repeats its training rows would look
            perfect on those.
        n_samples : int, default=None
            Number of draws. None: the number of real rows, but at most 2000.
        random_state : int, RandomState or None, default=None
            Source of the draws.
        columns : collection of int or str, default=None
            Columns to show, by label or index, at most eight. None is all.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError, ValueError
            If X has other columns than the estimator, or there are more than eight columns.
        """
        names = column_names_of(estimator)
        shown = columns_in_order(columns, names)
        check_number_of_columns(shown)
        n = min(len(_columns_of("X", X)[1][0]), _MOST_DRAWS) if n_samples is None else n_samples
        drawn = draws_of(estimator, n, random_state)
        return cls._of(*_both_columns(used_columns(X, names), drawn), shown)

    @classmethod
    def from_samples(cls, X: Any, drawn: Any, *, columns: Any = None) -> Self:
        """Return the display of real rows and of rows drawn from any source.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Real rows; a frame may have columns of text or categories.
        drawn : array-like of shape (n_drawn, n_features)
            Drawn rows, with the same columns in the same order.
        columns : collection of int or str, default=None
            Columns to show, by label or index, at most eight. None is all.

        Raises
        ------
        TypeError, ValueError
            If the two have different numbers of columns, no rows or values that are not finite, or
            there are more than eight columns.
        """
        names, real, new = _both_columns(X, drawn)
        return cls._of(names, real, new, columns_in_order(columns, names))

    @classmethod
    def _of(cls, names: list[Any], real: list[Any], new: list[Any], shown: list[int]) -> Self:
        """Return the display of the columns with indices `shown`, given all real and drawn columns."""
        check_number_of_columns(shown)
        coded = [_coded(names[c], real[c], new[c]) for c in shown]
        return cls(
            [str(names[c]) for c in shown],
            np.column_stack([of_real for of_real, _, _ in coded]),
            np.column_stack([of_drawn for _, of_drawn, _ in coded]),
            [levels for _, _, levels in coded],
        )

    def frame(self) -> Any:
        """Return a pandas DataFrame with "source" ("real" or "drawn") and the columns."""
        source = np.repeat(["real", "drawn"], [len(self.real), len(self.drawn)])
        rows = np.vstack([self.real, self.drawn])
        frame: dict[str, Any] = {"source": source}
        for name, values, levels in zip(self.columns, rows.T, self.levels, strict=True):
            frame[name] = values if levels is None else np.array(levels)[values.astype(int)]
        return frame_of(frame)

    def plot(self, ax: Any = None) -> SampleComparisonDisplay:
        """Draw a panel for each pair of columns; `skdiffsmooth.displays` describes `ax`."""
        k = len(self.columns)
        self.figure_, axes = matplotlib_axes(ax, k, k, size=2.2)
        self.ax_ = axes[0, 0] if k == 1 else axes
        # Levels get a small random offset, the same at every call, so that points do not coincide.
        jitter = np.random.RandomState(0)
        real, drawn = (self._jittered(rows, jitter) for rows in (self.real, self.drawn))
        both = np.vstack([real, drawn])
        low, high = both.min(axis=0), both.max(axis=0)
        margin = 0.04 * np.where(high > low, high - low, 1.0)
        limits = list(zip(low - margin, high + margin, strict=True))
        for i in range(k):
            for j in range(k):
                part = axes[i, j]
                if i == j:
                    self._draw_marginal(part, i, limits[i])
                else:
                    rows, color, marker = (real, BLUE, "o") if i > j else (drawn, ORANGE, "x")
                    size = {"ms": 2.6, "mew": 0.8} if i > j else {"ms": 3.2, "mew": 0.8}
                    part.plot(
                        rows[:, j], rows[:, i], marker, color=color, mfc="none", alpha=0.7, **size
                    )
                    part.set(xlim=limits[j], ylim=limits[i])
                self._label(part, i, j)
        handles = [axes[0, 0].lines[0], axes[0, 0].lines[1]]
        labels = ["real", "drawn"] if k == 1 else ["real, below", "drawn, above"]
        if ax is None and k > 1:
            self.figure_.legend(handles, labels, loc="outside upper right", ncols=2)
        else:
            axes[0, 0].legend(handles, labels, fontsize="small")
        return self

    def _jittered(self, rows: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Return rows with random offsets of at most 0.3 in columns of levels."""
        has_levels = np.array([levels is not None for levels in self.levels])
        return rows + has_levels * rng.uniform(-0.3, 0.3, size=rows.shape)

    def _draw_marginal(self, ax: Any, column: int, limits: tuple[float, float]) -> None:
        """Draw the histograms of a column."""
        levels = self.levels[column]
        edges = (
            np.linspace(*limits, _N_BINS + 1)
            if levels is None
            else np.arange(len(levels) + 1) - 0.5
        )
        for rows, color, line in ((self.real, BLUE, "-"), (self.drawn, ORANGE, "--")):
            heights, _ = np.histogram(rows[:, column], edges)
            heights = heights / (len(rows) * np.diff(edges))
            outline = np.r_[0, np.repeat(heights, 2), 0]
            ax.plot(np.repeat(edges, 2), outline, color=color, linestyle=line, lw=1.6)
        ax.set(xlim=limits, ylim=(0, None))

    def _label(self, ax: Any, i: int, j: int) -> None:
        """Label the panel of row i and column j, at the left and lower borders only."""
        k = len(self.columns)
        if i == k - 1:
            ax.set_xlabel(self.columns[j])
        ax.tick_params(labelbottom=i == k - 1, labelleft=j == 0 and i > 0)
        if k == 1:
            ax.tick_params(labelleft=True)
            ax.set_ylabel(f"density (1 / unit of {self.columns[0]})")
        elif j == 0:
            ax.set_ylabel(self.columns[i])
        for column, axis in ((j, ax.xaxis), *(() if i == j else ((i, ax.yaxis),))):
            if self.levels[column] is not None:
                levels = self.levels[column]
                axis.set_ticks(range(len(levels)), levels, fontsize="small")


def _both_columns(X: Any, drawn: Any) -> tuple[list[Any], list[np.ndarray], list[np.ndarray]]:
    """Return the labels of the columns, the columns of X and the columns of `drawn`."""
    names, real = _columns_of("X", X)
    others, new = _columns_of("drawn", drawn)
    if len(real) != len(new):
        raise ValueError(
            f"drawn has {len(new)} columns and X has {len(real)}; expected the same columns."
        )
    return names or others or [f"x{j}" for j in range(len(real))], real, new


def _columns_of(name: str, X: Any) -> tuple[list[Any] | None, list[np.ndarray]]:
    """Return the labels of a table, or None, and its columns."""
    labels = getattr(X, "columns", None)
    if labels is not None:
        columns = [np.asarray(X[label]) for label in labels]
    else:
        check_detached(name, X)
        try:
            array = np.asarray(X)
        except ValueError as error:
            raise ValueError(f"{name} is not a table: {error}") from error
        if array.ndim != 2:
            raise ValueError(
                f"{name} has {array.ndim} dimensions; expected rows, shape (n_rows, n_features)."
            )
        columns = list(array.T)
    if not columns or not len(columns[0]):
        raise ValueError(f"{name} holds no rows; expected at least one.")
    return None if labels is None else list(labels), columns


def _coded(name: Any, real: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return a real and a drawn column as numbers, and the levels of text (None for numbers)."""
    try:
        values = [np.asarray(column, dtype=np.float64) for column in (real, drawn)]
        is_number = real.dtype != bool
    except (TypeError, ValueError):
        is_number = False
    if is_number:
        for source, column in zip(("X", "drawn"), values, strict=True):
            check_finite(f"column {name!r} of {source}", column, "Drop or fill those rows first.")
        return values[0], values[1], None
    levels, codes = np.unique(np.concatenate([real, drawn]).astype(str), return_inverse=True)
    return codes[: len(real)].astype(float), codes[len(real) :].astype(float), levels.tolist()
