"""Estimators made of densities: mixtures of them, Bayes' rule over them, thresholds on them."""

from ._classifier import DensityClassifier
from ._outliers import DensityOutlierDetector
from ._stacking import DensityStacking

__all__ = ["DensityClassifier", "DensityOutlierDetector", "DensityStacking"]
