"""SelectionCurveDisplay: held-out scores of a search against the smoothing scale or the bandwidth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._figures import BLACK, STYLES, frame_of, matplotlib_axes

_MULTIPLE = re.compile(r"([0-9.eE+-]+)h")
# At most this many lines are drawn; the other points are crosses.
_MOST_LINES = len(STYLES)


@dataclass
class SelectionCurveDisplay:
    """Held-out scores of a search over bandwidth and sigma; the best KDE and the choice are marked.

    `sklearn.model_selection.ValidationCurveDisplay` draws one parameter of any estimator; this display
    draws two, which are chosen together.

    Parameters
    ----------
    bandwidth, sigma : ndarray of shape (n_candidates,)
        Scales of the comparable candidates: those scored on the same rows, with the same metric and
        other parameters (but `background`) as the chosen one.
    score : ndarray of shape (n_candidates,)
        Mean held-out log-densities of these candidates, in nats a row.
    standard_error : ndarray of shape (n_candidates,) or None
        Standard errors over folds of the differences from the chosen candidate; None for a single
        split.
    chosen : int
        Index of the chosen candidate in these arrays.
    kde_score : float or None
        The best score with sigma = 0, a KDE; None if no candidate has it.
    unit : str
        "h" if scales are in units of the KDE's bandwidth of highest leave-one-out likelihood, "" if in
        units of the metric.

    See Also
    --------
    sklearn.model_selection.ValidationCurveDisplay : For one parameter of any estimator.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth.displays import SelectionCurveDisplay
    >>> from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV
    >>> X = np.random.RandomState(0).normal(size=(40, 2))
    >>> search = SmoothedScoreDiffusionCV(n_refinements=0, metrics=["scaled"]).fit(X)
    >>> display = SelectionCurveDisplay.from_estimator(search)
    >>> len(display.score), display.unit
    (16, 'h')
    """

    bandwidth: np.ndarray
    sigma: np.ndarray
    score: np.ndarray
    standard_error: np.ndarray | None
    chosen: int
    kde_score: float | None
    unit: str

    @classmethod
    def from_estimator(cls, estimator: Any) -> SelectionCurveDisplay:
        """Read the scores of a search.

        Parameters
        ----------
        estimator : SmoothedScoreDiffusionCV, GridSearchCV or another search
            A fitted search with ``cv_results_`` over `bandwidth`, `sigma` or both (of a pipeline, over
            parameters whose names end in ``__bandwidth`` or ``__sigma``), as numbers or as multiples of
            h such as "1.5h".

        Raises
        ------
        NotFittedError
            If the search is not fitted.
        TypeError
            If `estimator` is not a search.
        ValueError
            If the search is over neither scale, scales have different units, or fewer than two
            candidates are comparable.
        """
        check_is_fitted(estimator)
        results = getattr(estimator, "cv_results_", None)
        if results is None:
            raise TypeError(
                f"{type(estimator).__name__} has no cv_results_; expected a fitted search, such as "
                "SmoothedScoreDiffusionCV or GridSearchCV over bandwidth and sigma."
            )
        params, best = results["params"], int(estimator.best_index_)
        keys = {name: _key(params, name) for name in ("bandwidth", "sigma")}
        if not any(keys.values()):
            raise ValueError(
                f"the search compares {', '.join(sorted(params[0]))}; expected bandwidth or sigma among "
                "them. Use sklearn.model_selection.ValidationCurveDisplay for other parameters."
            )
        scores = np.asarray(results["mean_test_score"], dtype=np.float64)
        comparable = np.isfinite(scores) & _comparable(results, params, best, keys.values())
        scales = {name: [_scale(p.get(key, np.nan)) for p in params] for name, key in keys.items()}
        units = {
            unit
            for values in scales.values()
            for (value, unit), used in zip(values, comparable, strict=True)
            if used and value > 0
        }
        if len(units) > 1:
            raise ValueError(
                "the search has scales as numbers and as multiples of h, which have no common unit; "
                "search over one kind."
            )
        if comparable.sum() < 2:
            raise ValueError(
                f"the search has {comparable.sum()} comparable candidates with finite scores; expected "
                "at least two."
            )
        index = np.flatnonzero(comparable)
        bandwidth, sigma = (
            np.array([value for value, _ in scales[name]])[index] for name in ("bandwidth", "sigma")
        )
        of_choice = [_scale(params[best].get(key, np.nan))[0] for key in keys.values()]
        chosen = _position(np.column_stack([bandwidth, sigma]), of_choice)
        splits = [name for name in results if re.fullmatch(r"split\d+_test_score", name)]
        by_fold = np.array([results[name] for name in splits])[:, index]
        error = None
        if len(splits) > 1 and np.all(np.isfinite(by_fold)):
            differences = by_fold - by_fold[:, [chosen]]
            error = differences.std(axis=0, ddof=1) / np.sqrt(len(splits))
        unsmoothed = scores[index][sigma == 0]
        return cls(
            bandwidth,
            sigma,
            scores[index],
            error,
            chosen,
            float(unsmoothed.max()) if len(unsmoothed) else None,
            units.pop() if units else "",
        )

    def frame(self) -> Any:
        """Return a pandas DataFrame with one row for each candidate.

        Columns are "bandwidth", "sigma", "score" in nats a row, "standard_error" of the difference from
        the chosen candidate's score, and "chosen" (True for that candidate).
        """
        n = len(self.score)
        return frame_of(
            {
                "bandwidth": self.bandwidth,
                "sigma": self.sigma,
                "score": self.score,
                "standard_error": np.full(n, np.nan)
                if self.standard_error is None
                else self.standard_error,
                "chosen": np.arange(n) == self.chosen,
            }
        )

    def plot(self, ax: Any = None) -> SelectionCurveDisplay:
        """Draw the scores in one axes; `skdiffsmooth.displays` describes `ax`."""
        self.figure_, axes = matplotlib_axes(ax)
        ax = self.ax_ = axes[0, 0]
        along, across = ("sigma", "bandwidth")
        if len(np.unique(self.sigma[np.isfinite(self.sigma)])) < 2:
            along, across = across, along
        x, group = getattr(self, along), getattr(self, across)
        values = np.unique(group)
        sizes = [np.sum(_same(group, value)) for value in values]
        lines = [v for v, size in zip(values, sizes, strict=True) if size > 1][:_MOST_LINES]
        others = ~np.any([np.zeros(len(x), bool), *(_same(group, v) for v in lines)], axis=0)
        for value, style in zip(lines, STYLES, strict=False):
            (some,) = np.nonzero(_same(group, value))
            some = some[np.argsort(x[some])]
            ax.errorbar(
                x[some],
                self.score[some],
                None if self.standard_error is None else self.standard_error[some],
                color=style.color,
                linestyle=style.linestyle,
                marker=style.marker,
                ms=5,
                capsize=2,
                elinewidth=0.8,
                label=None if np.isnan(value) else f"{across} {value:.3g}{self._suffix}",
            )
        if others.any():
            ax.plot(x[others], self.score[others], "x", color="0.45", label=f"other {across}s")
        if self.kde_score is not None:
            ax.axhline(self.kde_score, color=BLACK, lw=1, ls=(0, (4, 3)), label="KDE (sigma = 0)")
        ax.plot(
            x[self.chosen],
            self.score[self.chosen],
            "*",
            ms=17,
            mfc="white",
            mec=BLACK,
            mew=1.2,
            zorder=5,
            label="chosen",
        )
        unit = "in units of the KDE's bandwidth h" if self.unit else "in units of the metric"
        ax.set(xlabel=f"{along}, {unit}", ylabel="held-out log-density (nats a row)")
        if self.standard_error is not None:
            ax.set_title(
                "bars: standard errors of the differences from the choice", fontsize="small"
            )
        ax.legend(fontsize="small")
        return self

    @property
    def _suffix(self) -> str:
        return f" {self.unit}" if self.unit else ""


def _key(params: list[dict[str, Any]], name: str) -> str | None:
    """Return the searched parameter `name`, or the one that ends in ``__name``, or None."""
    keys = [key for key in params[0] if key == name or key.endswith(f"__{name}")]
    return keys[0] if keys else None


def _scale(value: Any) -> tuple[float, str]:
    """Return the value of a scale, NaN if it is no number, and its unit, "h" or ""."""
    if isinstance(value, str):
        multiple = _MULTIPLE.fullmatch(value)
        if multiple:
            return float(multiple[1]), "h"
        return (1.0, "h") if value == "loo" else (np.nan, "")
    if callable(value) or np.ndim(value):
        return np.nan, ""
    return float(value), ""


def _comparable(
    results: dict[str, Any], params: list[dict[str, Any]], best: int, keys: Any
) -> np.ndarray:
    """Return which candidates (n,) differ from the best in scales and background only, not in rows."""
    free = {*keys, "background"}
    fixed = {key: value for key, value in params[best].items() if key not in free}
    same = np.array([all(_equal(p.get(k), v) for k, v in fixed.items()) for p in params])
    if "is_comparable" in results:
        same &= results["is_comparable"]
    return same


def _equal(first: Any, second: Any) -> bool:
    return first is second or bool(np.array_equal(first, second))


def _same(group: np.ndarray, value: float) -> np.ndarray:
    """Return which of the values (n,) are equal to `value`; NaN equals NaN."""
    return np.isnan(group) if np.isnan(value) else np.isclose(group, value, rtol=1e-9, atol=0)


def _position(scales: np.ndarray, chosen: list[float]) -> int:
    """Return the row of `scales` (n, 2) that is nearest to the chosen pair; NaN equals NaN."""
    return int(np.argmin(np.nansum(np.abs(scales - np.array(chosen)), axis=1)))
