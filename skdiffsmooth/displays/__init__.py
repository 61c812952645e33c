"""Pictures of densities, searches, score fields, flows, samples and chains, as scikit-learn's displays.

The class method `from_estimator` of a display computes, `plot(ax=None)` draws, and `frame()` returns
the numbers that are drawn as a pandas DataFrame. matplotlib is loaded by `plot` only, pandas by `frame`
only; where one of them is not installed an ImportError says how to install it.

The parameter `ax` of `plot` is a matplotlib Axes or an array of them; None makes a figure. For a
display with several panels a single Axes is divided, and any other number of Axes than panels raises a
ValueError. `plot` returns the display, whose attributes ``figure_`` and ``ax_`` are the last figure and
its axes.
"""

from ._chains import ChainDisplay
from ._comparison import ComparisonDisplay
from ._density import DensityDisplay
from ._fields import ScoreFieldDisplay, TrajectoryDisplay
from ._figures import STYLES, Style
from ._samples import SampleComparisonDisplay
from ._selection import SelectionCurveDisplay

__all__ = [
    "STYLES",
    "ChainDisplay",
    "ComparisonDisplay",
    "DensityDisplay",
    "SampleComparisonDisplay",
    "ScoreFieldDisplay",
    "SelectionCurveDisplay",
    "Style",
    "TrajectoryDisplay",
]
