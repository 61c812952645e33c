"""Metrics of samples and score fields: how well a model generalises.

The first argument `X` holds the rows to evaluate, usually generated ones. The second is named for
its role: `data` are the rows that the model was fitted on, `reference` held-out rows of the target
distribution, `Y` rows of another sample where the order of the two does not matter. All are array-likes
of shape (n, d) or data frames; the columns of two frames must have the same names in the same order.
Distances are Euclidean, in units of X: scale columns first if their units differ. Temporaries stay
below 64 MiB or one row of distances, unless a function states more. No function changes its arguments
or numpy's global random state.
"""

from ._classifier_test import ClassifierTwoSampleTest, classifier_two_sample_test
from ._coverage import coverage_at_scale, coverage_scale
from ._distances import distance_to_data, distance_to_manifold, lateral_distance
from ._estimate import Estimate
from ._fidelity import Fidelity, fidelity_and_diversity
from ._fields import fisher_divergence
from ._novelty import Memorization, MemorizationReport, memorization, memorization_report

__all__ = [
    "ClassifierTwoSampleTest",
    "Estimate",
    "Fidelity",
    "Memorization",
    "MemorizationReport",
    "classifier_two_sample_test",
    "coverage_at_scale",
    "coverage_scale",
    "distance_to_data",
    "distance_to_manifold",
    "fidelity_and_diversity",
    "fisher_divergence",
    "lateral_distance",
    "memorization",
    "memorization_report",
]
