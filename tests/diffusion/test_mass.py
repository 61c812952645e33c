"""The density of the default model has mass one, however wide the range of noise is."""

import warnings

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.solvers import Adaptive

CLUSTER, OTHER = np.random.RandomState(0).normal(size=(2, 20, 1))


def mass(model, centers=(0.0,), width=6.0, n=161):
    """Integrate the density of one column by the trapezoid rule around each centre."""
    grid = np.linspace(-width, width, n)
    return sum(
        np.trapezoid(np.exp(model.score_samples((center + grid)[:, None])), grid)
        for center in centers
    )


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9, 1e12])
def test_far_clusters_have_mass_one(distance):
    """The mass was 1.008, 1.12, 1.6 and 2.6 where 32 steps spanned the size of the data."""
    X = np.concatenate([CLUSTER, distance + OTHER])
    model = SmoothedScoreDiffusion(0.3, 0.4, n_nodes=16).fit(X)
    assert mass(model, (0.0, distance)) == pytest.approx(1, abs=2e-3)
    # Half of the draws in each, to five standard deviations of a share.
    n = 400
    share = np.mean(model.sample(n, random_state=0) < distance / 2)
    assert abs(share - 0.5) < 2.5 / np.sqrt(n)


def test_a_wide_kernel_over_a_small_bandwidth_has_mass_one():
    """Steps are shorter from ten bandwidths on; errors of steps and of the grid are below 1e-3."""
    model = SmoothedScoreDiffusion(0.02, 0.45, n_nodes=16).fit(CLUSTER)
    assert model.n_steps_ > 2 * model.noise_levels_.n_levels
    assert mass(model, width=4.5, n=2250) == pytest.approx(1, abs=1e-3)


def test_a_far_cluster_changes_a_density_by_its_weight_only():
    """Nothing of the other cluster arrives: log-densities are lower by log 2, to rounding of 1e3."""
    both = np.concatenate([CLUSTER, 1e3 + OTHER])
    alone, joint = (SmoothedScoreDiffusion(0.3, 0.1, n_nodes=16).fit(X) for X in (CLUSTER, both))
    Q = np.linspace(-3, 3, 13)[:, None]
    expected = alone.score_samples(Q) - np.log(2)
    np.testing.assert_allclose(joint.score_samples(Q), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("bandwidth", [0.02, 0.1, 3.0])
def test_any_bandwidth_has_mass_one(bandwidth):
    """From a tenth of the leave-one-out bandwidth to three times the data's size."""
    model = SmoothedScoreDiffusion(bandwidth, 0.3, n_nodes=16).fit(CLUSTER)
    width = 4 + 6 * bandwidth
    # Two nodes of the grid in a bandwidth suffice for Gaussians.
    assert mass(model, width=width, n=int(4 * width / bandwidth) + 1) == pytest.approx(1, abs=2e-3)


def test_levels_follow_the_range():
    """Eight levels for each factor e of noise, and at least 32; numbers are used unchanged.

    A level has four steps where sigma is more than forty bandwidths.
    """
    narrow = SmoothedScoreDiffusion(0.3, 0.4, n_nodes=8).fit(CLUSTER)
    wide = SmoothedScoreDiffusion(1e-4, 0.4, n_nodes=8).fit(CLUSTER)
    levels = wide.noise_levels_
    expected = np.ceil(8 * np.log(levels.terminal_scale / levels.bandwidth))
    assert (narrow.n_steps_, narrow.noise_levels_.n_levels) == (32, 32)
    assert levels.n_levels == expected > 64
    assert wide.n_steps_ == 4 * expected
    fixed = SmoothedScoreDiffusion(1e-4, 0.4, n_nodes=8, n_levels=5, n_steps=10).fit(CLUSTER)
    assert (fixed.n_steps_, fixed.noise_levels_.n_levels) == (10, 5)


def test_rows_of_rough_flows_are_followed_again():
    """Between rows, where steps of a fixed size are off by nats, errors are below .01 nats."""
    X = np.array([[-1.0], [1.0]])
    Q = np.linspace(-0.2, 0.2, 5)[:, None]
    settings = {"bandwidth": 0.1, "sigma": 0.02, "terminal_scale": 2.0, "n_nodes": 4}
    expected = SmoothedScoreDiffusion(**settings, solver=Adaptive(1e-3)).fit(X).score_samples(Q)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        default = SmoothedScoreDiffusion(**settings).fit(X)
        np.testing.assert_allclose(default.score_samples(Q), expected, rtol=0, atol=0.01)
    fixed = SmoothedScoreDiffusion(**settings, n_steps=default.n_steps_).fit(X)
    assert np.abs(fixed.score_samples(Q) - expected).max() > 0.5


@pytest.mark.parametrize("separation", [4.0, 1e4])
def test_smoothed_mixtures_are_converged(separation):
    """The default is within .005 nats of eight times as many steps, on average over rows."""
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.normal(size=(40, 2)), separation + 0.05 * rng.normal(size=(40, 2))])
    mixture = GaussianMixture(4, random_state=0).fit(X)
    settings = {"base": mixture, "n_nodes": 16}
    default = SmoothedScoreDiffusion(**settings).fit(X)
    levels = default.noise_levels_
    finer = SmoothedScoreDiffusion(
        **settings, n_levels=levels.n_levels, n_steps=8 * levels.n_levels
    ).fit(X)
    assert default.score(X) == pytest.approx(finer.score(X), abs=5e-3)
    assert levels.terminal_scale == pytest.approx(8 * default.sigma_)
