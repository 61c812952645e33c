"""A FrozenEstimator, fitted before, as the density of every estimator that is made of densities."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler
from skdiffsmooth.compose import (
    DensityClassifier,
    DensityOutlierDetector,
    DensityStacking,
    TransformedDensity,
)

X = np.random.RandomState(0).normal(size=(40, 2))
Y = np.arange(40) % 2
DENSITY = KDESampler(0.5).fit(X[:30])
FROZEN = FrozenEstimator(DENSITY)
WRAPPERS = [
    DensityStacking([("frozen", FROZEN)], cv=2),
    DensityClassifier(FROZEN),
    DensityOutlierDetector(FROZEN),
    TransformedDensity(FROZEN),
]


@pytest.mark.parametrize("weight", [None, np.arange(40) % 3], ids=["plain", "weighted"])
@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda wrapper: type(wrapper).__name__)
def test_a_frozen_density_stays_as_it_was_fitted(wrapper, weight):
    model = wrapper.fit(X, Y, sample_weight=weight)
    new = X + [0.31, 0.17]
    assert_allclose(model.score_samples(new), DENSITY.score_samples(new), rtol=1e-12)


def test_a_frozen_density_of_all_classes_gives_the_priors_with_a_warning():
    with pytest.warns(UserWarning, match=r"FrozenEstimator.*same density.*priors"):
        model = DensityClassifier(FROZEN).fit(X, np.arange(40) < 10)
    assert_allclose(model.predict_proba(X + 0.3), np.tile([0.75, 0.25], (40, 1)))


def test_a_frozen_scaler_and_density():
    scaler = StandardScaler().fit(X * 7)
    inner = FrozenEstimator(KDESampler(0.5).fit(scaler.transform(X)))
    model = TransformedDensity(inner, FrozenEstimator(scaler)).fit(X)
    expected = inner.score_samples(scaler.transform(X)) - np.log(scaler.scale_).sum()
    assert_allclose(model.score_samples(X), expected, rtol=1e-12)
