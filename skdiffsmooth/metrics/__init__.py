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
from ._divergences import Grid, regular_grid, renyi_divergence
from ._estimate import Estimate
from ._fidelity import Fidelity, fidelity_and_diversity
from ._fields import fisher_divergence
from ._frechet import frechet_distance
from ._images import anisotropy
from ._novelty import Memorization, memorization
from ._spectrum import local_pca_spectrum, shrinkage
from ._two_sample import (
    TwoSampleTest,
    energy_distance,
    maximum_mean_discrepancy,
    two_sample_test,
)
from ._wasserstein import sliced_wasserstein_distance

__all__ = [
    "ClassifierTwoSampleTest",
    "Estimate",
    "Fidelity",
    "Grid",
    "Memorization",
    "TwoSampleTest",
    "anisotropy",
    "classifier_two_sample_test",
    "coverage_at_scale",
    "coverage_scale",
    "distance_to_data",
    "distance_to_manifold",
    "energy_distance",
    "fidelity_and_diversity",
    "fisher_divergence",
    "frechet_distance",
    "lateral_distance",
    "local_pca_spectrum",
    "maximum_mean_discrepancy",
    "memorization",
    "regular_grid",
    "renyi_divergence",
    "shrinkage",
    "sliced_wasserstein_distance",
    "two_sample_test",
]
