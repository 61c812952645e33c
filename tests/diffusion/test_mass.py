"""The density of the default model has mass one, however wide the range of noise is."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._diffusion import model as model_module
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.kernels._nodes import default_n_nodes
from skdiffsmooth.solvers import Adaptive, Heun, Multistep

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
    """Steps are shorter from five noise scales on; errors of steps and of the grid are below 1e-3."""
    model = SmoothedScoreDiffusion(0.02, 0.45, n_nodes=16).fit(CLUSTER)
    assert model.n_steps_ > model.noise_levels_.n_levels
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
    # With 16 nodes a density has features narrower than its bandwidth: with two nodes of the grid in
    # one, the error of the grid alone is .006 at the smallest.
    n = int((12 if bandwidth < 0.1 else 4) * width / bandwidth) + 1
    assert mass(model, width=width, n=n) == pytest.approx(1, abs=2e-3)


def test_levels_follow_the_range():
    """Eight levels for each factor e of noise, and at least 32; numbers are used unchanged.

    Levels have sigma / (5 noise scales) steps each, at least one and at most 32, and 256 in all.
    """
    narrow = SmoothedScoreDiffusion(0.3, 0.4, n_nodes=8).fit(CLUSTER)
    wide = SmoothedScoreDiffusion(1e-4, 0.4, n_nodes=8).fit(CLUSTER)
    levels = wide.noise_levels_
    expected = np.ceil(8 * np.log(levels.terminal_scale / levels.bandwidth))
    assert (narrow.n_steps_, narrow.noise_levels_.n_levels) == (32, 32)
    assert levels.n_levels == expected > 64
    noise = [levels.start(level) for level in range(levels.n_levels)]
    counts = np.ceil(np.clip(0.4 / (5 * np.array(noise)), 1, 32))
    # 1e-4 is a 4000th of sigma: the largest numbers are cut until 256 steps are left.
    most = max(m for m in range(1, 33) if np.minimum(counts, m).sum() <= 256)
    assert wide.model_.steps_of_levels == tuple(np.minimum(counts, most))
    assert 200 < wide.n_steps_ <= 256
    fixed = SmoothedScoreDiffusion(1e-4, 0.4, n_nodes=8, n_levels=5, n_steps=10).fit(CLUSTER)
    assert (fixed.n_steps_, fixed.noise_levels_.n_levels) == (10, 5)


def test_steps_are_short_where_the_noise_is_small():
    """Against eight times as many, errors at sigma = 40 bandwidths are below half of equal steps'."""
    model = SmoothedScoreDiffusion(0.01, 0.4, n_nodes=128).fit(CLUSTER[:8])
    steps, Q = np.array(model.model_.steps_of_levels), OTHER

    def log_density(counts):
        own = replace(model.model_, tol=None, steps_of_levels=tuple(counts.tolist()))
        return own.log_density(Q, model._resources())[0]

    expected = log_density(8 * steps)
    equal = np.full(len(steps), np.ceil(steps.sum() / len(steps)).astype(int))
    errors = [np.sqrt(np.mean((log_density(n) - expected) ** 2)) for n in (steps, equal)]
    assert errors[0] < 0.5 * errors[1], errors


def test_a_wide_kernel_warns_where_the_default_is_not_accurate():
    """The warning has the numbers of fitted attributes; at 20 bandwidths there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near = SmoothedScoreDiffusion(0.02, 0.4).fit(CLUSTER[:8])
    assert near.node_error_ < near.error_ < 0.2
    with pytest.warns(ConvergenceWarning, match="sigma is 200 times the bandwidth") as caught:
        wide = SmoothedScoreDiffusion(0.002, 0.4).fit(CLUSTER[:8])
    assert len(caught) == 1
    assert f"{wide.error_:.2g} nats" in str(caught[0].message)
    assert f"{wide.n_nodes_} nodes" in str(caught[0].message)


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


def test_draws_of_rough_flows_are_those_of_heuns_method(monkeypatch):
    X = np.random.RandomState(0).normal(size=(20, 2))
    settings = {"bandwidth": 0.3, "sigma": 0.4, "metric": "euclidean", "background": 0.0}
    fitted = SmoothedScoreDiffusion(**settings, n_nodes=4, n_levels=4).fit(X)
    assert isinstance(fitted.solver_, Multistep)
    expected = SmoothedScoreDiffusion(**settings, n_nodes=4, n_levels=4, solver=Heun()).fit(X)
    expected = expected.sample(5, random_state=0)
    assert not np.allclose(fitted.sample(5, random_state=0), expected, rtol=0, atol=1e-12)
    # All flows are rough.
    monkeypatch.setattr(model_module, "_MOST_ROUGHNESS", -1.0)
    np.testing.assert_allclose(fitted.sample(5, random_state=0), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("separation", [4.0, 1e4])
def test_smoothed_mixtures_are_converged(separation):
    """The default is within 3e-4 nats of four times as many steps, on average over rows.

    It has 32 levels and steps for each factor e of noise; with 16 the error is 5e-4. Nodes are eight
    times as many in more than ten dimensions.
    """
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.normal(size=(40, 2)), separation + 0.05 * rng.normal(size=(40, 2))])
    mixture = GaussianMixture(4, random_state=0).fit(X)
    settings = {"base": mixture, "n_nodes": 16}
    default = SmoothedScoreDiffusion(**settings).fit(X)
    levels = default.noise_levels_
    finer = SmoothedScoreDiffusion(
        **settings, n_levels=levels.n_levels, n_steps=4 * levels.n_levels
    ).fit(X)
    assert default.score(X) == pytest.approx(finer.score(X), abs=3e-4)
    assert levels.terminal_scale == pytest.approx(8 * default.sigma_)


def test_mixtures_have_more_nodes_in_many_dimensions():
    """In 13 columns of wine means were 0.01 nats too high with as many as over rows."""
    X = np.random.RandomState(0).normal(size=(40, 12))
    mixture = GaussianMixture(1, random_state=0).fit(X)
    over = SmoothedScoreDiffusion(0.3, 0.3, base=mixture, n_levels=2, n_steps=2).fit(X)
    assert over.n_nodes_ == 8 * default_n_nodes(12)


def test_the_error_of_the_nodes_over_a_mixture_is_that_of_other_rows():
    """Thin components hold the training rows, at which the estimate was a tenth of the error of others.

    The difference of two seeds, at 40 rows, is the error times sqrt(2) to about 20 %; a factor of three
    allows for the 16 rows of the estimate.
    """
    X = np.random.RandomState(0).normal(size=(120, 10)) * np.geomspace(1, 0.1, 10)
    train, test = X[:80], X[80:]
    mixture = GaussianMixture(8, reg_covar=1e-4, random_state=0).fit(train)
    models = [
        SmoothedScoreDiffusion(base=mixture, n_nodes=60, random_state=seed).fit(train)
        for seed in (0, 1)
    ]
    first, second = (model.score_samples(test) for model in models)
    error = np.sqrt(np.mean((first - second) ** 2) / 2)
    assert error / 3 < models[0].node_error_ < 3 * error


@pytest.mark.parametrize("base", [None, ManifoldParzen(8), GaussianMixture(3, random_state=0)])
def test_draws_have_the_density_of_score_samples(base):
    """p_T(z) / |det F'(z)| for draws x = F(z), by central differences in all of twelve columns.

    The steps change single rows by up to 0.02 nats, and the mass by 0.003 (`docs/evidence/accuracy.md`).
    Over rows divergences follow from log-densities at the nodes, whose error is `node_error_`.
    """
    n, r = 8, 12
    X = np.random.RandomState(0).normal(size=(60, r)) @ np.diag(np.geomspace(1, 0.5, r))
    inner = SmoothedScoreDiffusion(0.5, 0.7, base=base, n_nodes=64).fit(X)
    model, resources = inner.model_, inner._resources()
    schedule = model.source.schedule(resources)
    terminal, backend = model.source.terminal(schedule), schedule.backend
    z, half = terminal.sample(np.random.RandomState(1), n), 1e-4 * np.eye(r)
    starts = np.concatenate([z[:, None], z[:, None] + half, z[:, None] - half], axis=1)
    starts = starts.reshape(-1, r)
    index = np.arange(len(starts))
    ends = model._follow_down(starts, index, n=len(starts), seed=None, resources=resources)
    x = ends[:, :r].reshape(n, -1, r)
    expected = backend.array(terminal.log_density(backend.tensor(z)))
    expected -= np.linalg.slogdet((x[:, 1 : r + 1] - x[:, r + 1 :]) / 2e-4)[1]
    found, _ = model.log_density_within(x[:, 0], np.zeros((n, r)), resources)
    error = 3 * inner.node_error_ if base is None else 0.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 + error)
    assert np.exp(found - expected).mean() == pytest.approx(1, abs=5e-3 + error / np.sqrt(n))
