"""Metrics: what one measures about samples, densities and score fields to see how a model generalises.

The first argument `X` holds what is judged, generated rows as a rule; the second what it is judged by:
`data` are the rows that the model was fitted on, `reference` other rows of the law that it should have,
`Y` rows of a second law where the two play the same part. All are array-likes of shape (n, d) or data
frames; the columns of two frames must have the same names in the same order. Distances are Euclidean,
in units of X: scale columns first if their units differ. Temporaries stay below 64 MiB or one row of
distances, unless a function says what else it holds. Nothing fits, stores or draws from a global seed.
"""

from ._classifier_test import ClassifierTwoSampleTest, classifier_two_sample_test
from ._coverage import coverage_at_scale, coverage_scale
from ._distances import distance_to_data, distance_to_manifold, lateral_distance
from ._estimate import Estimate
from ._fidelity import Fidelity, fidelity_and_diversity
from ._fields import fisher_divergence
from ._novelty import Memorization, memorization

__all__ = [
    "ClassifierTwoSampleTest",
    "Estimate",
    "Fidelity",
    "Memorization",
    "classifier_two_sample_test",
    "coverage_at_scale",
    "coverage_scale",
    "distance_to_data",
    "distance_to_manifold",
    "fidelity_and_diversity",
    "fisher_divergence",
    "lateral_distance",
    "memorization",
]
