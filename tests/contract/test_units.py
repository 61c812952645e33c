"""Columns in any unit: samples and log-densities follow it exactly, or an error says what to do."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    ManifoldAdaptedDiffusion,
    SmoothedScoreDiffusion,
)

X = np.random.RandomState(0).normal(size=(30, 2))
Q = X[:5] + 0.1
COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}

# Estimators for data times s.
ANY_UNIT = {
    "loo": lambda s: KDESampler(),
    "number": lambda s: KDESampler(0.5 * s),
    "scott": lambda s: KDESampler("scott"),
    "epanechnikov": lambda s: KDESampler("loo", "epanechnikov"),
    "exponential": lambda s: KDESampler("loo", "exponential"),
    "cosine in float32": lambda s: KDESampler(0.9 * s, "cosine", dtype="float32"),
    "float32": lambda s: KDESampler(0.5 * s, dtype="float32"),
    "smoothed": lambda s: SmoothedScoreDiffusion(**COARSE),
}
HALF_OF_THE_RANGE = {
    "numbers": lambda s: SmoothedScoreDiffusion(0.3 * s, 0.4 * s, **COARSE),
    "numbers in float32": lambda s: SmoothedScoreDiffusion(
        0.3 * s, 0.4 * s, dtype="float32", **COARSE
    ),
    "ball": lambda s: SmoothedScoreDiffusion(0.3 * s, 0.4 * s, kernel="uniform-ball", **COARSE),
    "windows": lambda s: SmoothedScoreDiffusion(0.3 * s, 0.4 * s, base="parzen", **COARSE),
    "adapted": lambda s: ManifoldAdaptedDiffusion(0.3 * s, 0.4 * s, n_components=1, **COARSE),
}


def check_unit(make, exponent):
    unit = 2.0**exponent
    plain, scaled = make(1.0).fit(X), make(unit).fit(unit * X)
    # Positions to 1e-6 and log-densities to 1e-5: the rounding of float32 and of the search for scales.
    found = scaled.score_samples(unit * Q) + 2 * exponent * np.log(2)
    assert_allclose(found, plain.score_samples(Q), rtol=0, atol=1e-5)
    draws = scaled.sample(5, random_state=0) / unit
    assert_allclose(draws, plain.sample(5, random_state=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("exponent", [-990, 480])
@pytest.mark.parametrize("name", ANY_UNIT)
def test_any_unit(name, exponent):
    check_unit(ANY_UNIT[name], exponent)


def fitted_mixture(s, **parameters):
    """Return a mixture in units of data times s, as if fitted to them without a floor of variances."""
    mixture = GaussianMixture(2, random_state=0, **parameters).fit(X)
    mixture.means_ = s * mixture.means_
    mixture.covariances_ = s * mixture.covariances_ * s
    return mixture


@pytest.mark.parametrize("exponent", [-480, 480])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_fitted_mixtures_in_any_unit(kind, exponent):
    """A base is given in units of X."""
    check_unit(
        lambda s: SmoothedScoreDiffusion(
            0.1 * s, 0.2 * s, base=fitted_mixture(s, covariance_type=kind), **COARSE
        ),
        exponent,
    )


@pytest.mark.parametrize("exponents", [(20, 0), (0, 20), (28, 0), (0, 28)])
def test_a_mixture_over_columns_of_different_units(exponents):
    """Beyond 26 powers of two, where variances differ by the precision of float64, it warns."""
    units = 2.0 ** np.array(exponents)
    mixture = GaussianMixture(2, random_state=0).fit(X)
    expected = mixture.score_samples(Q) - np.log(units).sum()
    mixture.means_ = units * mixture.means_
    mixture.covariances_ = units[:, None] * mixture.covariances_ * units
    model = SmoothedScoreDiffusion(1e-3, 0.0, base=mixture, **COARSE)
    if max(exponents) == 28:
        with pytest.warns(UserWarning, match="base: component 0 has the standard deviation"):
            model.fit(units * X)
    else:
        # The bandwidth adds 1e-6 to variances.
        assert_allclose(model.fit(units * X).score_samples(units * Q), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("exponent", [-480, 480])
@pytest.mark.parametrize("name", HALF_OF_THE_RANGE)
def test_units_whose_squares_are_finite(name, exponent):
    """With scales in the unit of X, squared lengths of X must be representable."""
    check_unit(HALF_OF_THE_RANGE[name], exponent)


@pytest.mark.parametrize(
    "make",
    [*HALF_OF_THE_RANGE.values(), lambda s: CoarseScoreDiffusion(0.1 * s, n_components=1)],
    ids=[*HALF_OF_THE_RANGE, "coarse"],
)
def test_smaller_units_are_refused(make):
    """They raised ZeroDivisionError, LinAlgError or "the base has a component of variance zero"."""
    with pytest.raises(ValueError, match=r"X has a range of .* squares .* underflow"):
        make(2.0**-990).fit(2.0**-990 * X)
    with pytest.raises(ValueError, match="squares would overflow"):
        make(2.0**900).fit(2.0**900 * X)


def test_a_laplacian_that_overflows_is_refused():
    """It is in units of X to the power -2, and was +inf at 1e-155."""
    with pytest.raises(ValueError, match="laplacian_log_density overflows"):
        KDESampler(1e-160).fit(1e-160 * X).laplacian_log_density(1e-160 * Q)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
@pytest.mark.parametrize("distance", [1e6, 1e17, 1e100])
def test_a_far_row_takes_its_weight_only(kernel, dtype, distance):
    """Rounding of positions is relative to the other rows; -0.57 became +0.16 beside 1e17."""
    plain = KDESampler(0.8, kernel, dtype=dtype).fit(X)
    joint = KDESampler(0.8, kernel, dtype=dtype).fit(np.vstack([X, [[distance, 0.0]]]))
    expected = plain.score_samples(Q) + np.log(len(X) / (len(X) + 1))
    atol = 1e-12 if dtype == "float64" else 1e-5
    assert_allclose(joint.score_samples(Q), expected, rtol=0, atol=atol)
