"""ComparisonDisplay: held-out log-densities of several models, as differences from the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compose import ModelComparison, compare
from ._figures import BLACK, BLUE, matplotlib_axes


@dataclass
class ComparisonDisplay:
    """Mean held-out log-densities of models, as differences from the best, with paired standard errors.

    Parameters
    ----------
    comparison : ModelComparison
        The result of `skdiffsmooth.compare`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler
    >>> from skdiffsmooth.displays import ComparisonDisplay
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> models = {f"h = {h}": KDESampler(h).fit(X[:50]) for h in (0.1, 0.5)}
    >>> ComparisonDisplay.from_estimators(models, X[50:]).comparison.best
    'h = 0.5'
    """

    comparison: ModelComparison

    @classmethod
    def from_estimators(cls, models: Any, X: Any) -> ComparisonDisplay:
        """Compare fitted models on held-out rows.

        Parameters
        ----------
        models : mapping from name to estimator
            Fitted densities, as `skdiffsmooth.compare` takes them.
        X : array-like of shape (n_rows, n_features)
            Held-out rows.
        """
        return cls(compare(models, X))

    def frame(self) -> Any:
        """Return `ModelComparison.frame`, a pandas DataFrame."""
        return self.comparison.frame()

    def plot(self, ax: Any = None) -> ComparisonDisplay:
        """Draw the differences, the best on top; `skdiffsmooth.displays` describes `ax`."""
        shown = self.comparison
        self.figure_, axes = matplotlib_axes(ax)
        ax = self.ax_ = axes[0, 0]
        order = np.argsort(-shown.mean, kind="stable")[::-1]
        at = np.arange(len(order))
        difference, error = shown.difference[order], shown.standard_error[order]
        finite = np.isfinite(difference)
        ax.errorbar(
            difference[finite],
            at[finite],
            xerr=2 * np.nan_to_num(error[finite]),
            fmt="o",
            color=BLUE,
            capsize=3,
        )
        for position in at[~finite]:
            ax.annotate(
                "density is zero at some rows",
                (0, position),
                xycoords=("axes fraction", "data"),
                xytext=(4, -3),
                textcoords="offset points",
            )
        ax.axvline(0, color=BLACK, lw=0.8)
        labels = [f"{shown.names[k]}\n{shown.mean[k]:.2f} nats" for k in order]
        ax.set_yticks(at, labels)
        ax.set(
            xlabel="nats a row, compared with the best (bars: two paired standard errors)",
            ylim=(-0.5, len(order) - 0.5),
        )
        return self
