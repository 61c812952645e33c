"""Tables of every kind: categories, counts, bounded, periodic and missing values."""

from typing import TYPE_CHECKING, Any

from ._columns import ContinuousCoordinate, DiscreteCoordinate, EncodedTable, TableColumns
from ._draws import Estimate
from ._estimator import TableDensity
from ._imputer import DensityImputer
from ._kinds import (
    Boolean,
    Categorical,
    Continuous,
    Datetime,
    Integer,
    Interval,
    Ordinal,
    Periodic,
    Positive,
)
from ._mutual_information import mutual_information
from ._summaries import Marginal, cdf, marginal, probability, quantile

if TYPE_CHECKING:
    from ._oversampler import DensityOverSampler as DensityOverSampler

# DensityOverSampler is not among them, since it needs imbalanced-learn.
__all__ = [
    "Boolean",
    "Categorical",
    "Continuous",
    "ContinuousCoordinate",
    "Datetime",
    "DensityImputer",
    "DiscreteCoordinate",
    "EncodedTable",
    "Estimate",
    "Integer",
    "Interval",
    "Marginal",
    "Ordinal",
    "Periodic",
    "Positive",
    "TableColumns",
    "TableDensity",
    "cdf",
    "marginal",
    "mutual_information",
    "probability",
    "quantile",
]


def __getattr__(name: str) -> Any:
    if name == "DensityOverSampler":
        try:
            from ._oversampler import DensityOverSampler
        except ImportError as error:
            raise ImportError(
                f"DensityOverSampler needs imbalanced-learn ({error}). Install it by `pip install "
                "imbalanced-learn`."
            ) from error
        return DensityOverSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "DensityOverSampler"])
