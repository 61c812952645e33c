"""Estimators built from densities: transformed, mixed, classifiers and outlier detectors."""

from . import _transformers  # noqa: F401 (registers scikit-learn's transformers)
from ._changes import ChangeOfVariables, change_of_variables
from ._classifier import DensityClassifier
from ._compare import ModelComparison, compare
from ._modes import Modes, find_modes
from ._outliers import DensityOutlierDetector
from ._sample import sample
from ._stacking import DensityStacking
from ._transformed import TransformedDensity

__all__ = [
    "ChangeOfVariables",
    "DensityClassifier",
    "DensityOutlierDetector",
    "DensityStacking",
    "ModelComparison",
    "Modes",
    "TransformedDensity",
    "change_of_variables",
    "compare",
    "find_modes",
    "sample",
]
