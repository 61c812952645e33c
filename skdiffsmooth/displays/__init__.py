"""Pictures of densities, searches, score fields, flows, samples and chains, as scikit-learn's displays.

Each display computes in `from_estimator`, draws in `plot(ax=None)`, and returns the numbers that it
draws as a pandas DataFrame by `frame()`. matplotlib is loaded by `plot` only, pandas by `frame` only;
where one of them is not installed an ImportError says how to install it.

The parameter `ax` of `plot` is a matplotlib Axes or an array of them; None makes a figure. Where there
are several panels, one axes is divided; another number of axes than panels raises a ValueError. `plot`
returns the display, whose attributes ``figure_`` and ``ax_`` are the last figure and its axes.
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
