"""Models of mapped columns: changes of variables, the default's choice, and what refuses maps."""

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, lognorm

from skdiffsmooth import (
    KDESampler,
    ManifoldAdaptedDiffusion,
    NeuralScoreDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.langevin._targets import as_target
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

# Relative: a position is rounded to 1e-16 of its size, and log-densities differ by that over the
# bandwidth, times the field evaluations of a flow.
ROUNDING = 1e-8
SMALL = {"n_nodes": 8, "n_levels": 8, "n_steps": 8}


def skewed(n=80, seed=0):
    """Return a log-normal column and one that grows with its logarithm."""
    rng = np.random.RandomState(seed)
    z = rng.normal(size=(n, 2))
    return np.column_stack([np.exp(1.5 * z[:, 0]), z[:, 0] + 0.5 * z[:, 1]])


@pytest.fixture(scope="module")
def default():
    return SmoothedScoreDiffusion().fit(skewed())


@pytest.fixture(scope="module")
def on_a_line():
    return SmoothedScoreDiffusion().fit(skewed()[:, :1])


@pytest.mark.parametrize("power", ["0.5", "local"])
def test_it_is_the_model_of_mapped_rows_times_the_slopes(power):
    X, Q = skewed(60), skewed(6, seed=1)
    parameters = {"bandwidth": "1h", "sigma": "1h", "background": 0.1, **SMALL}
    here = SmoothedScoreDiffusion(metric=f"warped {power}", **parameters).fit(X)
    warp = here.warp_
    assert_array_equal(warp.columns, [0])
    there = SmoothedScoreDiffusion(metric=0.5 if power == "0.5" else power, **parameters)
    there.fit(warp.mapped(X))
    Z, slopes, log_slopes = warp.mapped(Q), warp.slopes(Q), warp.log_slopes(Q)

    def same(of_here, of_there):
        assert_allclose(of_here, of_there, rtol=ROUNDING, atol=ROUNDING)

    same(here.score_samples(Q), there.score_samples(Z) + log_slopes)
    same(
        here.leave_one_out_log_density(),
        there.leave_one_out_log_density() + warp.log_slopes(here.points_),
    )
    same(warp.mapped(here.sample(20, random_state=0)), there.sample(20, random_state=0))
    same(here.energy(Q), there.energy(Z) - log_slopes)
    expected = there.grad_log_density(Z) * slopes + warp.log_slope_gradient(Q)
    same(here.grad_log_density(Q), expected)
    same(here.score_variance(Q), there.score_variance(Z) * slopes**2)
    same(here.effective_sample_size(Q), there.effective_sample_size(Z))
    for given, factor in (([0], 0.0), ([1], log_slopes)):
        same(here.score_samples(Q, given=given), there.score_samples(Z, given=given) + factor)
        same(
            here.score_samples(Q, columns=given),
            there.score_samples(Z, columns=given) + log_slopes - factor,
        )
        drawn, values = Q[:, given[0]], Z[:, given[0]]
        rows = here.sample(6, random_state=0, given={given[0]: drawn})
        same(rows[:, given[0]], drawn)
        same(warp.mapped(rows), there.sample(6, random_state=0, given={given[0]: values}))


def test_the_score_is_the_gradient_of_minus_the_energy(default):
    Q = skewed(10, seed=2)
    step = 1e-5 * np.abs(Q)
    for column in range(2):
        h = step * (np.arange(2) == column)
        slope = (default.energy(Q - h) - default.energy(Q + h)) / (2 * step[:, column])
        # Second-order differences with relative steps of 1e-5.
        assert_allclose(default.grad_log_density(Q)[:, column], slope, rtol=1e-5, atol=1e-6)


def test_chains_move_in_the_mapped_columns(default):
    z = np.random.RandomState(0).normal(size=(6, 2))
    oracles.assert_score_is_the_gradient(as_target(default, None), z)


def test_the_density_has_mass_one(default, on_a_line):
    # The nodes are even in mapped columns; the first sum is over lengths in units of X.
    warp = on_a_line.warp_
    z = np.linspace(-20, 30, 600)
    x = warp.unmapped(z[:, None])
    density = np.exp(on_a_line.score_samples(x))
    # Trapezoids, and a flow of steps whose errors are below a thousandth.
    assert np.trapezoid(density, x[:, 0]) == pytest.approx(1, abs=2e-3)
    warp = default.warp_
    z, y = np.linspace(-6, 14, 60), np.linspace(-9, 9, 60)
    Z = np.stack(np.meshgrid(z, y, indexing="ij"), axis=2).reshape(-1, 2)
    X = warp.unmapped(Z)
    density = np.exp(default.score_samples(X) - warp.log_slopes(X)).reshape(60, 60)
    inner = np.trapezoid(density, y, axis=1)
    assert np.trapezoid(inner, z) == pytest.approx(1, abs=2e-3)


def test_draws_follow_the_density(on_a_line):
    z = np.linspace(-20, 30, 600)
    x = on_a_line.warp_.unmapped(z[:, None])
    density = np.exp(on_a_line.score_samples(x))
    cdf = np.append(0, np.cumsum(np.diff(x[:, 0]) * (density[1:] + density[:-1]) / 2))
    draws = on_a_line.sample(2000, random_state=0)[:, 0]
    # Of 2000 correct draws one set in a thousand fails.
    assert kstest(draws, lambda t: np.interp(t, x[:, 0], cdf)).pvalue > 1e-3


def test_far_rows_are_above_the_bound(default):
    bound = default.tail_bound_
    directions = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    rows = np.vstack([R * directions for R in 10.0 ** np.arange(1, 13)])
    lowest = -bound.constant - (bound.degrees + 2) * np.log1p(bound.distances(rows))
    log_density = default.score_samples(rows)
    assert np.all(log_density >= lowest - 1e-9)
    # It is no constant either: far out the density falls like a power, and the bound is near it.
    assert log_density[-4] < -20
    assert np.all(log_density[-4:] < lowest[-4:] + 25)


def test_log_normal_columns_have_nearly_their_own_density():
    """Held out -2.65 nats on average without maps; the truth is -2.09."""
    rng = np.random.RandomState(0)
    train, test = rng.lognormal(0, 2, (150, 1)), rng.lognormal(0, 2, (400, 1))
    model = SmoothedScoreDiffusion().fit(train)
    assert model.metric_ == "warped scaled"
    assert model.score(test) > lognorm.logpdf(test, 2).mean() - 0.15
    assert np.mean(model.sample(1000, random_state=0) < 0) < 0.1


def test_the_exponential_of_a_column_has_nearly_the_density_of_the_column():
    rng = np.random.RandomState(3)
    x, q = 2 * rng.normal(size=(150, 2)), 2 * rng.normal(size=(300, 2))
    plain = SmoothedScoreDiffusion().fit(x).score(q)
    of_exp = SmoothedScoreDiffusion().fit(np.exp(x)).score_samples(np.exp(q)) + q.sum(axis=1)
    # arcsinh has the spacing of a logarithm except near the smallest rows: for each column a tenth.
    assert of_exp.mean() > plain - 0.2


def test_clusters_are_not_mapped():
    """The map that makes this column most like a Gaussian lowers its likelihood by 0.1 nats."""
    rng = np.random.RandomState(0)
    cluster = rng.choice(2, size=200, p=(0.7, 0.3))[:, None]
    X = np.where(cluster, 5 + 0.5 * rng.normal(size=(200, 2)), rng.normal(size=(200, 2)))
    assert SmoothedScoreDiffusion(metric="warped scaled").fit(X).warp_ is not None
    assert SmoothedScoreDiffusion().fit(X).warp_ is None


def test_the_choice_moves_with_the_columns(default):
    X, Q = skewed(), skewed(20, seed=1)
    powers = 2.0 ** np.array([20, -9])
    moved = SmoothedScoreDiffusion().fit((X * powers)[:, ::-1])
    for name in ("metric", "bandwidth", "sigma"):
        assert moved.settings_[name] == default.settings_[name]
    expected = default.score_samples(Q) - np.log(powers).sum()
    assert_allclose(moved.score_samples((Q * powers)[:, ::-1]), expected, rtol=ROUNDING)


def test_the_settings_give_the_same_model(default):
    assert default.metric_.startswith("warped ")
    again = SmoothedScoreDiffusion(**default.settings_).fit(skewed())
    assert_array_equal(again.score_samples(skewed(5)), default.score_samples(skewed(5)))


def test_a_search_compares_maps_too():
    search = SmoothedScoreDiffusionCV(
        bandwidth_factors=[0.85], sigma_factors=[1.5], n_refinements=0
    ).fit(skewed())
    assert search.metric_.startswith("warped ")


def test_maps_of_no_column_change_nothing():
    X = np.random.RandomState(0).normal(size=(40, 2))
    plain, warped = (
        SmoothedScoreDiffusion("1h", "1h", metric=metric, **SMALL).fit(X)
        for metric in ("scaled", "warped scaled")
    )
    assert warped.warp_ is None
    assert_array_equal(warped.score_samples(X), plain.score_samples(X))


@pytest.mark.parametrize("metric", ["warped", "warped ", "warped euclidean", "warped 1.5"])
def test_unknown_names_are_errors(metric):
    with pytest.raises(ValueError, match=f"metric='{metric}' is not known"):
        SmoothedScoreDiffusion(metric=metric).fit(skewed(30))


def test_what_takes_no_maps_says_so(default):
    X = skewed(40)
    for estimator in (KDESampler(metric="warped local"), NeuralScoreDiffusion(metric="warped 0.5")):
        with pytest.raises(ValueError, match="is a choice of SmoothedScoreDiffusion"):
            estimator.fit(X)
    for manifold in ("pca", Circle([0.0, 0.0], 1.0)):
        with pytest.raises(ValueError, match="metric='warped scaled'"):
            ManifoldAdaptedDiffusion(manifold=manifold, metric="warped scaled").fit(X)
    with pytest.raises(ValueError, match="has no Laplacian in closed form"):
        default.laplacian_log_density(X)


@pytest.mark.parametrize("distance", [1e12, 1e16, 1e100])
def test_one_far_row_hardly_moves_the_density_of_the_others(distance):
    """Held-out rows lose .8 to 1.3 nats, with a warning; 25 at 1e12 and 34 at 1e16 without a map."""
    rng = np.random.RandomState(0)
    X, Q = rng.normal(size=(60, 2)), rng.normal(size=(40, 2))
    alone = SmoothedScoreDiffusion().fit(X)
    with pytest.warns(
        UserWarning, match=r"column 0: 1 of 61 values .* 95% of the rows within 1\.86"
    ):
        beside = SmoothedScoreDiffusion().fit(np.vstack([X, [[distance, 0.3]]]))
    assert beside.score(Q) > alone.score(Q) - 1.4
