"""Pictures of densities, searches, score fields, flows, samples and chains, as scikit-learn's displays.

Each display computes in `from_estimator`, draws in `plot(ax=None)`, and returns the numbers that it
draws as a pandas DataFrame by `frame()`. matplotlib is loaded by `plot` only, pandas by `frame` only.
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
