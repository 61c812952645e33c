"""Tables of every kind: categories, counts, bounded, periodic and missing values."""

from ._columns import ContinuousCoordinate, DiscreteCoordinate, EncodedTable, TableColumns
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

__all__ = [
    "Boolean",
    "Categorical",
    "Continuous",
    "ContinuousCoordinate",
    "Datetime",
    "DensityImputer",
    "DiscreteCoordinate",
    "EncodedTable",
    "Integer",
    "Interval",
    "Ordinal",
    "Periodic",
    "Positive",
    "TableColumns",
    "TableDensity",
]
