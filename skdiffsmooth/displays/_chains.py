"""ChainDisplay: traces and histograms of Langevin chains, with their diagnostics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..langevin import LangevinChains, LangevinSampler
from ._figures import (
    STYLES,
    check_number_of_columns,
    column_names_of,
    columns_in_order,
    frame_of,
    matplotlib_axes,
)

# Number of chains drawn in colour; the others are grey.
_N_COLOURED = 3


@dataclass
class ChainDisplay:
    """Langevin chains: the draws of each column in order, and the histogram of all chains.

    Traces of chains that have mixed are similar, and their R-hat is below 1.01.

    Parameters
    ----------
    columns : list of str
        Names of the columns.
    draws : ndarray of shape (n_chains, n_draws, n_columns)
        The draws.
    r_hat, ess : ndarray of shape (n_columns,) or None
        Diagnostics of each column, see `skdiffsmooth.langevin.LangevinChains`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import KDESampler, LangevinSampler
    >>> from skdiffsmooth.displays import ChainDisplay
    >>> model = KDESampler(0.5).fit(np.random.RandomState(0).normal(size=(50, 2)))
    >>> chains = LangevinSampler(100, step_size=0.1).run(model, random_state=0)
    >>> ChainDisplay.from_chains(chains).draws.shape
    (32, 100, 2)
    """

    columns: list[str]
    draws: np.ndarray
    r_hat: np.ndarray | None
    ess: np.ndarray | None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        sampler: LangevinSampler | None = None,
        *,
        start: Any = None,
        random_state: Any = None,
        columns: Any = None,
    ) -> ChainDisplay:
        """Run chains on a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            The model to sample, as for `LangevinSampler.run`.
        sampler : LangevinSampler, default=None
            The settings of the chains; None is ``LangevinSampler()``.
        start : array-like of shape (n_chains, n_features), default=None
            Starting rows; None draws them from the estimator.
        random_state : int, RandomState or None, default=None
            Source of the draws.
        columns : collection of int or str, default=None
            Columns to draw, by label or index, at most eight. None is all.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError, ValueError
            If the sampler cannot sample the estimator, or there are more than eight columns.
        """
        names = column_names_of(estimator)
        shown = columns_in_order(columns, names)
        check_number_of_columns(shown)
        sampler = LangevinSampler() if sampler is None else sampler
        if not isinstance(sampler, LangevinSampler):
            raise TypeError(
                f"sampler={type(sampler).__name__}; expected a LangevinSampler or None. Pass starting "
                "rows as start=."
            )
        chains = sampler.run(estimator, start, random_state)
        return cls.from_chains(chains, columns=shown, names=names)

    @classmethod
    def from_chains(cls, chains: LangevinChains, *, columns: Any = None, names: Any = None) -> Any:
        """Return the display of chains that were run already.

        Parameters
        ----------
        chains : LangevinChains
            The result of `LangevinSampler.run`.
        columns : collection of int or str, default=None
            Columns to draw, by name or index, at most eight. None is all.
        names : sequence of str, default=None
            Names of all columns; None is x0, x1, ...

        Returns
        -------
        ChainDisplay

        Raises
        ------
        TypeError, ValueError
            If `names` has not one name for each column, or there are more than eight columns to draw.
        """
        if not isinstance(chains, LangevinChains):
            raise TypeError(f"chains={chains!r:.100}; expected the result of LangevinSampler.run.")
        d = chains.draws.shape[2]
        if names is not None and not isinstance(names, Iterable):
            raise TypeError(f"names={names!r:.100}; expected {d} names, one for each column.")
        labels = [f"x{j}" for j in range(d)] if names is None else [str(name) for name in names]
        if len(labels) != d:
            raise ValueError(f"names has {len(labels)} names; expected {d}, one for each column.")
        shown = columns_in_order(columns, labels)
        check_number_of_columns(shown)
        r_hat, ess = (
            None if values is None else values[shown] for values in (chains.r_hat, chains.ess)
        )
        return cls([labels[c] for c in shown], chains.draws[:, :, shown], r_hat, ess)

    def frame(self) -> Any:
        """Return the draws as a pandas DataFrame with "chain", "draw" and the columns shown."""
        n_chains, n_draws, _ = self.draws.shape
        frame: dict[str, Any] = {
            "chain": np.repeat(np.arange(n_chains), n_draws),
            "draw": np.tile(np.arange(n_draws), n_chains),
        }
        flat = self.draws.reshape(-1, len(self.columns))
        return frame_of(frame | dict(zip(self.columns, flat.T, strict=True)))

    def plot(self, ax: Any = None) -> ChainDisplay:
        """Draw two panels for each column; `skdiffsmooth.displays` describes `ax`."""
        k = len(self.columns)
        self.figure_, self.ax_ = matplotlib_axes(ax, k, 2, size=3.4 if k == 1 else 2.6)
        for j, name in enumerate(self.columns):
            trace, histogram = self.ax_[j]
            draws = self.draws[:, :, j]
            trace.plot(draws[_N_COLOURED:].T, color="0.8", lw=0.5)
            edges = np.linspace(draws.min(), max(draws.max(), draws.min() + 1e-9), 31)
            for c, (chain, style) in enumerate(zip(draws[:_N_COLOURED], STYLES, strict=False)):
                line = {"color": style.color, "linestyle": style.linestyle}
                trace.plot(chain, **line, lw=0.9, label=f"chain {c}")
                heights, _ = np.histogram(chain, edges, density=True)
                histogram.stairs(heights, edges, orientation="horizontal", **line)
            pooled, _ = np.histogram(draws, edges, density=True)
            histogram.stairs(
                pooled, edges, orientation="horizontal", color="0.8", fill=True, zorder=0
            )
            histogram.set_ylim(trace.get_ylim())
            histogram.tick_params(labelleft=False)
            trace.set_ylabel(name)
            if self.r_hat is not None and self.ess is not None:
                trace.set_title(
                    f"R-hat {self.r_hat[j]:.3f}, {self.ess[j]:.0f} effective draws of {draws.size}",
                    fontsize="small",
                )
        self.ax_[0, 0].legend(fontsize="x-small", loc="upper right", ncols=_N_COLOURED)
        self.ax_[-1, 0].set_xlabel("draw")
        self.ax_[-1, 1].set_xlabel("density; grey: all chains")
        return self
