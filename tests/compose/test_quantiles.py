"""Tests of the monotone map of columns through a few of their quantiles."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid
from scipy.stats import norm

from skdiffsmooth import KDESampler
from skdiffsmooth.compose import TransformedDensity, change_of_variables
from skdiffsmooth.compose._quantiles import QuantileSpline

RNG = np.random.RandomState(0)
COLUMNS = {
    "heavy tails": RNG.standard_cauchy(size=200),
    "a shift of 1e5": 1e5 + RNG.lognormal(0, 2, size=200),
    "rounded": RNG.randint(0, 4, size=200).astype(float),
    "mostly zero": RNG.uniform(size=200) * (RNG.uniform(size=200) < 0.3),
    "two values": RNG.randint(0, 2, size=50).astype(float),
    "constant": np.ones(20),
    "few rows": RNG.normal(size=3),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_inverse_and_the_slope_are_those_of_the_map(name):
    column = COLUMNS[name]
    spline = QuantileSpline(8).fit(column[:, None])
    extent = np.ptp(column) or 1.0
    x = np.concatenate([column, column + 3 * extent, column - 3 * extent, column + 1e-3 * extent])
    z = spline.transform(x[:, None])
    # Rounding of a value, and of a score of 1e3 at most.
    atol = 1e-12 * (extent + 1e3 * np.abs(column).max())
    assert_allclose(spline.inverse_transform(z)[:, 0], x, rtol=1e-9, atol=atol)
    order = np.argsort(x)
    assert np.all(np.diff(z[order, 0])[np.diff(x[order]) > 1e-6 * extent] > 0)
    # Central differences; the second derivative jumps at knots.
    step = 1e-7 * extent
    rise = spline.transform(x[:, None] + step) - spline.transform(x[:, None] - step)
    assert_allclose(rise[:, 0] / (2 * step), np.exp(spline.log_slopes(x[:, None])), rtol=0.02)


def test_normal_scores_are_those_of_the_ranks():
    column = np.sort(RNG.standard_cauchy(size=400))
    z = QuantileSpline(32).fit_transform(column[:, None])[:, 0]
    ranks = (np.arange(400) + 0.5) / 400
    # Between knots, a twelve-rows' noise of ranks.
    assert np.abs(norm.cdf(z) - ranks).max() < 0.02


def test_units_and_repeated_rows_do_not_matter():
    X = np.column_stack([RNG.lognormal(size=60), RNG.normal(size=60)])
    weights = RNG.randint(1, 4, size=60)
    by_weight = QuantileSpline(8).fit(X, sample_weight=weights)
    by_rows = QuantileSpline(8).fit(np.repeat(X, weights, axis=0) * [1e-3, 1e6])
    assert_allclose(by_weight.transform(X), by_rows.transform(X * [1e-3, 1e6]), atol=1e-9)


def test_a_density_behind_it_is_normalised():
    X = RNG.standard_cauchy(size=(100, 1))
    model = TransformedDensity(KDESampler(0.3), QuantileSpline(8)).fit(X)
    assert change_of_variables(model.transformer_).onto
    t = np.linspace(-20, 20, 20001)
    density = np.exp(model.score_samples(np.sinh(t)[:, None])) * np.cosh(t)
    assert trapezoid(density, t) == pytest.approx(1, abs=1e-4)  # of the grid


def test_columns_that_others_determine_are_only_scaled():
    rng = np.random.RandomState(0)
    parts = rng.lognormal(size=(60, 3)).round(1)
    X = np.column_stack([parts, 3 - 2 * parts[:, 0], parts[:, :2].sum(axis=1), np.full(60, 0.3)])
    spline = QuantileSpline(8).fit(X)
    inside = X[rng.randint(60, size=60)]
    image = spline.transform(inside)
    # Exactly the relations of X: a copy, a total and a constant.
    assert np.linalg.matrix_rank(image - image[0]) == 3
    free = QuantileSpline(8).fit(parts[:, 2:])
    np.testing.assert_array_equal(image[:, [2]], free.transform(inside[:, 2:3]))
    slopes = spline.log_slopes(inside) - free.log_slopes(inside[:, 2:3])
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-12)
    far = X[:5] + 100 * rng.normal(size=(5, 6))
    np.testing.assert_allclose(spline.inverse_transform(spline.transform(far)), far, rtol=1e-9)
