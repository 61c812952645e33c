"""Columns in any unit: samples and log-densities follow it exactly, or an error names the reason."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    LocalScoreDiffusion,
    ManifoldAdaptedDiffusion,
    NeuralScoreDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.compose import DensityOutlierDetector
from skdiffsmooth.kernels import QueryKernel
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.noise import OrnsteinUhlenbeck
from skdiffsmooth.tables import TableDensity

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
    "exponential in float32": lambda s: KDESampler("loo", "exponential", dtype="float32"),
    "cosine in float32": lambda s: KDESampler(0.9 * s, "cosine", dtype="float32"),
    "float32": lambda s: KDESampler(0.5 * s, dtype="float32"),
    "smoothed": lambda s: SmoothedScoreDiffusion(**COARSE),
    "numbers": lambda s: SmoothedScoreDiffusion(0.3 * s, 0.4 * s, **COARSE),
    "numbers in float32": lambda s: SmoothedScoreDiffusion(
        0.3 * s, 0.4 * s, dtype="float32", **COARSE
    ),
    "ball": lambda s: SmoothedScoreDiffusion(0.3 * s, 0.4 * s, kernel="uniform-ball", **COARSE),
    "windows": lambda s: SmoothedScoreDiffusion(0.3 * s, 0.4 * s, base="parzen", **COARSE),
    "adapted": lambda s: ManifoldAdaptedDiffusion(0.3 * s, 0.4 * s, n_components=1, **COARSE),
    "a function of the noise": lambda s: SmoothedScoreDiffusion(0.3 * s, lambda y: y / 2, **COARSE),
    "background": lambda s: SmoothedScoreDiffusion(0.3 * s, 0.4 * s, background=0.1, **COARSE),
    "bandwidth only": lambda s: SmoothedScoreDiffusion(0.3 * s, **COARSE),
    "terminal": lambda s: SmoothedScoreDiffusion(
        0.3 * s, 0.4 * s, terminal="gaussian", terminal_scale=3 * s, noise="ou", **COARSE
    ),
    "local": lambda s: LocalScoreDiffusion(0.3 * s, sigma=0.2 * s, terminal_scale=6 * s, n_nodes=8),
    "neural": lambda s: NeuralScoreDiffusion(max_iter=2, random_state=0),
}


def check_unit(make, exponent):
    unit = 2.0**exponent
    plain, scaled = make(1.0).fit(X), make(unit).fit(unit * X)
    # Positions to 1e-6 and log-densities to 1e-5: the rounding of float32 and of the search for scales.
    found = scaled.score_samples(unit * Q) + 2 * exponent * np.log(2)
    assert_allclose(found, plain.score_samples(Q), rtol=0, atol=1e-5)
    draws = scaled.sample(5, random_state=0) / unit
    assert_allclose(draws, plain.sample(5, random_state=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("exponent", [-990, 990])
@pytest.mark.parametrize("name", ANY_UNIT)
def test_any_unit(name, exponent):
    check_unit(ANY_UNIT[name], exponent)


def fitted_mixture(s, **parameters):
    """Return a mixture in units of data times s, as if fitted to them without a floor of variances."""
    mixture = GaussianMixture(2, random_state=0, **parameters).fit(X)
    mixture.means_ = s * mixture.means_
    mixture.covariances_ = s * mixture.covariances_ * s
    return mixture


@pytest.mark.parametrize("exponent", [-990, 990])
def test_outliers_in_any_unit(exponent):
    """Queries near a training row have its held-out log-density; all of them were near at 2^-990."""
    unit = 2.0**exponent
    plain, scaled = (DensityOutlierDetector(KDESampler()).fit(s * X) for s in (1.0, unit))
    rows = np.vstack([X[:3], Q])
    found = scaled.score_samples(unit * rows) + 2 * exponent * np.log(2)
    assert_allclose(found, plain.score_samples(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("exponent", [-990, 990])
def test_mixed_tables_in_any_unit(exponent):
    """It raised IndexError, since no row was the point that it became."""
    unit = 2.0**exponent
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": np.where(X[:, 0] > 0, "yes", "no")})
    frames = [frame.assign(a=s * frame["a"], b=s * frame["b"]) for s in (1.0, unit)]
    plain, scaled = (TableDensity(density=KDESampler()).fit(rows) for rows in frames)
    found = scaled.score_samples(frames[1][:5]) + 2 * exponent * np.log(2)
    assert_allclose(found, plain.score_samples(frame[:5]), rtol=0, atol=1e-5)


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


@pytest.mark.parametrize(("exponent", "bandwidth", "dimension"), [(-990, 0.1, 2), (990, 0.0, 1)])
def test_coarse_scores_in_any_unit(exponent, bandwidth, dimension):
    """Log-densities are per length along the manifold, or per area with a bandwidth."""
    unit = 2.0**exponent
    plain, scaled = (
        CoarseScoreDiffusion(0.3 * s, 1, n_components=1, bandwidth=bandwidth * s).fit(s * X)
        for s in (1.0, unit)
    )
    rows = plain.sample(5, random_state=0)
    assert_allclose(scaled.sample(5, random_state=0) / unit, rows, rtol=1e-12)
    expected = plain.score_samples(rows) - dimension * exponent * np.log(2)
    assert_allclose(scaled.score_samples(unit * rows), expected, rtol=0, atol=1e-9)
    found = unit * scaled.coarse_score(unit * Q)
    assert_allclose(found, plain.coarse_score(Q), rtol=1e-9, atol=1e-9)
    assert scaled.switch_scale_ == 0.3 * unit


@pytest.mark.parametrize(
    ("exponent", "scale"), [(-990, lambda s: (0.3 * s, 0.4 * s)), (990, lambda s: ())]
)
def test_all_queries_in_any_unit(exponent, scale):
    unit = 2.0**exponent
    plain = SmoothedScoreDiffusion(*scale(1.0), **COARSE).fit(X)
    scaled = SmoothedScoreDiffusion(*scale(unit), **COARSE).fit(unit * X)
    constant = exponent * np.log(2)
    found = scaled.score_samples(unit * Q, given=[0]) + constant
    assert_allclose(found, plain.score_samples(Q, given=[0]), rtol=0, atol=1e-5)
    found = scaled.score_samples(unit * Q, columns=[1]) + constant
    assert_allclose(found, plain.score_samples(Q, columns=[1]), rtol=0, atol=1e-5)
    found = scaled.sample(3, random_state=0, given={0: 0.2 * unit}) / unit
    assert_allclose(found, plain.sample(3, random_state=0, given={0: 0.2}), rtol=0, atol=1e-5)
    found = unit * scaled.grad_log_density(unit * Q)
    assert_allclose(found, plain.grad_log_density(Q), rtol=1e-5, atol=1e-5)
    assert_allclose(scaled.energy(unit * Q) - 2 * constant, plain.energy(Q), rtol=0, atol=1e-5)
    found = scaled.trajectories(n_samples=2, random_state=0)[1] / unit
    assert_allclose(found, plain.trajectories(n_samples=2, random_state=0)[1], rtol=0, atol=1e-5)
    found = scaled.leave_one_out_log_density() + 2 * constant
    assert_allclose(found, plain.leave_one_out_log_density(), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="score_variance leaves the finite range"):
        scaled.score_variance(unit * Q)


@pytest.mark.parametrize("exponent", [-990, 990])
def test_discrete_columns_are_named_in_any_unit(exponent):
    with pytest.warns(UserWarning, match="values are multiples of"):
        KDESampler("scott").fit(2.0**exponent * np.random.RandomState(0).poisson(2, (60, 1)))


def test_scales_as_fitted_attributes_are_in_units_of_X():
    unit = 2.0**990
    model = SmoothedScoreDiffusion(0.3 * unit, 0.4 * unit, **COARSE).fit(unit * X)
    assert (model.bandwidth_, model.sigma_) == (0.3 * unit, 0.4 * unit)
    assert model.noise_levels_.bandwidth == 0.3 * unit
    again = SmoothedScoreDiffusion(**model.settings_, **COARSE).fit(unit * X)
    assert_allclose(again.score_samples(unit * Q), model.score_samples(unit * Q), rtol=1e-12)


@pytest.mark.parametrize("exponent", [-990, 990])
@pytest.mark.parametrize(
    "parameters",
    [
        {"kernel": QueryKernel(lambda x, z: z + 0 * x[:, None])},
        {"noise": OrnsteinUhlenbeck(0.5)},
        {"metric": np.eye(2)},
    ],
    ids=["kernel", "noise", "metric"],
)
def test_parameters_in_units_of_X_need_finite_squares(parameters, exponent):
    unit = 2.0**exponent
    model = SmoothedScoreDiffusion(0.3 * unit, 0.4 * unit, **parameters, **COARSE)
    with pytest.raises(ValueError, match=r"(?s)X has a range of .* squares of other values"):
        model.fit(unit * X)


def test_a_known_manifold_needs_finite_squares():
    unit = 2.0**900
    circle = Circle(np.zeros(2), unit)
    with pytest.raises(ValueError, match="X has a range of"):
        ManifoldAdaptedDiffusion(0.3 * unit, 0.4 * unit, manifold=circle).fit(unit * X)
    with pytest.raises(ValueError, match="X has a range of"):
        NeuralScoreDiffusion(0.3 * unit, metric="euclidean").fit(unit * X)
    with pytest.raises(ValueError, match=r"manifold=.* is in units of X"):
        CoarseScoreDiffusion(0.3 * unit, manifold=circle).fit(unit * X)


def test_scales_that_are_far_from_the_range_of_X_are_refused():
    """No float64 holds the square of their ratio."""
    for model in (SmoothedScoreDiffusion(1e-160, 0.4), LocalScoreDiffusion(1e-160)):
        with pytest.raises(ValueError, match="bandwidth=1e-160 is"):
            model.fit(X)
    for name in ("sigma", "terminal_scale"):
        with pytest.raises(ValueError, match=rf"{name}=1e\+200 is out of range; expected a number"):
            SmoothedScoreDiffusion(0.3, **{"sigma": 0.4, name: 1e200}).fit(X)
    with pytest.raises(ValueError, match="X holds values up to"):
        SmoothedScoreDiffusion(0.3, 0.4, **COARSE).fit(X).score_samples(1e160 * X)


def test_a_laplacian_that_leaves_the_finite_range_is_refused():
    """It is in units of X to the power -2; it was +inf at 1e-155 and 0 at 1e170."""
    for unit in (1e-160, 1e170):
        for model in (KDESampler(unit), SmoothedScoreDiffusion(unit, unit, **COARSE)):
            model.fit(unit * X)
            with pytest.raises(ValueError, match="laplacian_log_density leaves the finite range"):
                model.laplacian_log_density(unit * Q)


@pytest.mark.parametrize("distance", [1e7, 1e9])
def test_single_precision_beside_a_far_row(distance):
    """It is replaced where it rounds positions; log-densities were wrong by 0.6 nats at 1e8."""
    rows = np.vstack([X, [[distance, 0.0]]])
    double, single = (
        SmoothedScoreDiffusion(0.6, 0.4, dtype=dtype, **COARSE).fit(rows)
        for dtype in ("float64", "float32")
    )
    assert_allclose(single.score_samples(Q), double.score_samples(Q), rtol=0, atol=1e-5)
    draws = [model.sample(20, random_state=0) for model in (single, double)]
    assert_allclose(*draws, rtol=0, atol=1e-5)


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
