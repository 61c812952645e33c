"""Tests of the kernels of `SmoothedScoreDiffusion`: their offsets, models with them, and errors."""

import pickle

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp, softmax
from sklearn.base import clone

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.kernels import (
    AnisotropicGaussianKernel,
    GaussianKernel,
    OffsetsKernel,
    ProportionalScale,
    SamplerKernel,
    TemperatureKernel,
    UniformBallKernel,
    is_isotropic,
    works_over_base,
)
from skdiffsmooth.kernels._nodes import NODE_RULES, NodeRule, gaussian_nodes
from skdiffsmooth.noise import OrnsteinUhlenbeck

SMALL = {"n_nodes": 16, "n_levels": 4, "n_steps": 4}


def laplace(rng, n):
    """Draws in R^3 of an anisotropic distribution of mean zero."""
    return rng.laplace(size=(n, 3)) * [1.0, 0.5, 2.0]


def triangle():
    """Offsets in R^3 without mirror images, with unequal weights."""
    offsets = np.array([[1.0, 0.0, 0.5], [-1.0, 1.0, 0.0], [0.5, -2.0, 1.0], [0.0, 0.3, -0.6]])
    weights = np.array([1.0, 2.0, 1.0, 3.0])
    return offsets - weights @ offsets / weights.sum(), weights


KERNELS = {
    "gaussian": GaussianKernel(),
    "anisotropic": AnisotropicGaussianKernel([[2.0, 0.5, 0.0], [0.5, 1.0, 0.1], [0.0, 0.1, 0.3]]),
    "per feature": AnisotropicGaussianKernel([1.0, 0.2, 0.0]),
    "data": AnisotropicGaussianKernel("data"),
    "ball": UniformBallKernel(),
    "offsets": OffsetsKernel(*triangle()),
    "sampler": SamplerKernel(laplace),
    "temperature": TemperatureKernel(),
}
with_offsets = pytest.mark.parametrize("name", [name for name in KERNELS if name != "temperature"])
every_kernel = pytest.mark.parametrize("name", KERNELS)


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).normal(size=(40, 3)) @ np.diag([1.0, 0.7, 0.4])


def fitted(name, X, **params):
    return SmoothedScoreDiffusion(0.3, 0.4, kernel=KERNELS[name], **(SMALL | params)).fit(X)


# ------------------------------------------------------------------------------------------- offsets


@with_offsets
def test_offsets_have_mean_zero(name, X):
    model = fitted(name, X)
    for level in range(4):
        offsets, weights = model.kernel_.nodes(level)
        assert np.all(weights > 0)
        assert weights.sum() == pytest.approx(1, abs=1e-14)
        np.testing.assert_allclose(weights @ offsets, 0, atol=1e-14)


@pytest.mark.parametrize("name", ["anisotropic", "per feature", "data"])
def test_covariance_is_the_one_requested(name, X):
    """In the space of the data, times sigma squared; exact from twice as many nodes as directions."""
    model = fitted(name, X)
    expected = {
        "anisotropic": KERNELS["anisotropic"].covariance,
        "per feature": np.diag([1.0, 0.04, 0.0]),
        "data": np.cov(X.T, bias=True),
    }[name]
    offsets, weights = model.kernel_.nodes(2)
    offsets = offsets @ model.hull_.basis.T
    found = (weights[:, None] * offsets).T @ offsets
    np.testing.assert_allclose(found, 0.16 * np.array(expected), atol=1e-14)


@pytest.mark.parametrize("n_features", [2, 5, 40])
def test_ball_projected_to_a_hull(n_features):
    """In two of d coordinates the radius of a ball of unit variance has a known distribution."""
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.normal(size=(n_features, 2)))[0]
    X = rng.normal(size=(30, 2)) @ basis.T
    model = SmoothedScoreDiffusion(0.1, 1.0, kernel="uniform-ball", n_levels=8, n_nodes=512).fit(X)
    offsets = np.concatenate([model.kernel_.nodes(level)[0] for level in range(8)])
    radius = np.linalg.norm(offsets, axis=1)
    assert radius.max() <= np.sqrt(n_features + 2) * (1 + 1e-12)
    shares = stats.beta(1.0, (n_features - 2) / 2 + 1)
    # Deterministic nodes: 0.002 measured; 4096 independent draws would have 0.014 on average.
    assert stats.kstest(radius**2 / (n_features + 2), shares.cdf).statistic < 0.01
    np.testing.assert_allclose(np.mean(offsets**2, axis=0), 1, atol=0.02)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("n_nodes", [9, 64, 100, 512])
def test_gauss_hermite_integrates_polynomials(dimension, n_nodes):
    nodes, weights = NodeRule("gauss-hermite", n_nodes, 0).normal(dimension, 3)
    assert len(nodes) <= n_nodes
    assert np.all(weights > 0)
    # With n nodes an axis all polynomials up to degree 2 n - 1 are exact; E z^2 = 1, E z^2 z^2 = 1.
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose((weights[:, None] * nodes).T @ nodes, np.eye(dimension), atol=1e-12)
    if n_nodes ** (1 / dimension) >= 3:
        np.testing.assert_allclose(weights @ nodes**4, 3, atol=1e-11)


def test_gauss_hermite_without_directions_is_one_node():
    nodes, weights = NodeRule("gauss-hermite", 8, 0).normal(0, 0)
    assert nodes.shape == (1, 0)
    assert weights.tolist() == [1]


def test_number_of_nodes_where_fine_levels_are_not_smoothed(X):
    with np.errstate(all="raise"):
        model = SmoothedScoreDiffusion(0.3, lambda y: max(0.0, y - 0.5), **SMALL).fit(X)
        assert np.isfinite(model.score_samples(X)).all()
    assert model.kernel_.scales[0] == 0
    assert model.n_nodes_ == len(model.kernel_.nodes(3)[1]) == 18  # frames, of six nodes each
    assert SmoothedScoreDiffusion(0.3, 0.4, n_nodes=18, n_levels=1).fit(X).n_nodes_ == 18


def test_gauss_hermite_is_exact_where_the_logarithm_is_smooth():
    """At v large against sigma^2 ten nodes an axis give the average to 1e-9; Monte Carlo to 0.03."""
    rng = np.random.RandomState(0)
    X, Q = rng.normal(size=(20, 2)), rng.normal(size=(5, 2))
    grid, draws = "gaussian", SamplerKernel(lambda rng, n: rng.standard_normal((n, 2)))
    exact, coarse, drawn = (
        SmoothedScoreDiffusion(
            1.0, 0.4, kernel=kernel, node_rule="gauss-hermite", n_nodes=n, terminal_scale=2
        ).fit(X)
        for kernel, n in ((grid, 400), (grid, 100), (draws, 100))
    )
    np.testing.assert_allclose(coarse.energy(Q), exact.energy(Q), atol=1e-9)
    assert np.abs(drawn.energy(Q) - exact.energy(Q)).max() > 1e-6


@pytest.mark.parametrize("rule", sorted(NODE_RULES))
def test_densities_under_every_rule_integrate_to_one(rule, X):
    """Since nodes are fixed and the divergence is that of the field.

    On a grid of spacing 0.2; steps and grid err by 0.002.
    """
    axis = np.linspace(-4, 4, 41)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    model = SmoothedScoreDiffusion(0.3, 0.4, node_rule=rule, n_levels=8, n_steps=24)
    mass = np.exp(model.fit(X[:12, :2]).score_samples(grid)).sum() * 0.04
    assert mass == pytest.approx(1, abs=0.01)


def test_a_mean_that_is_rounding_is_subtracted(X):
    """The constructor allows it, but it would be divided by the noise variance."""
    offsets = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]) + 1e-11
    model = SmoothedScoreDiffusion(0.3, 0.4, kernel=OffsetsKernel(offsets), **SMALL).fit(X)
    offsets, weights = model.kernel_.nodes(0)
    np.testing.assert_allclose(weights @ offsets, 0, atol=1e-16)


def test_kernels_describe_themselves():
    assert {name for name in KERNELS if is_isotropic(KERNELS[name])} == {
        "gaussian",
        "ball",
        "temperature",
    }
    assert {name for name in KERNELS if not works_over_base(KERNELS[name])} == {"temperature"}


def test_a_kernel_that_does_not_describe_itself():
    class Own:
        def reduce(self, hull, points, weights):
            return GaussianKernel().reduce(hull, points, weights)

    assert not is_isotropic(Own())
    assert works_over_base(Own())


# ------------------------------------------------------------------------------------- what it smooths


@every_kernel
def test_field_is_the_gradient_of_minus_the_energy(name, X):
    model, step = fitted(name, X), 1e-5
    Q = X[:6] + 0.1
    moved = [Q + sign * step * axis for axis in np.eye(3) for sign in (1, -1)]
    energies = np.array([model.energy(q) for q in moved])
    numeric = -(energies[::2] - energies[1::2]).T / (2 * step)
    np.testing.assert_allclose(model.grad_log_density(Q), numeric, rtol=1e-6, atol=1e-6)


@with_offsets
def test_energy_is_that_of_the_slow_twin(name, X):
    model, Q = fitted(name, X), X[:5] + 0.2
    offsets, weights = model.kernel_.nodes(0)
    offsets = torch.tensor(offsets @ model.hull_.basis.T)
    points, log_weights = torch.tensor(model.points_), torch.tensor(np.log(model.weights_))
    for q, found in zip(Q, model.energy(Q), strict=True):
        slow = oracles.averaged_log_density(
            torch.tensor(q), points, log_weights, 0.09, offsets, torch.tensor(weights)
        )
        assert -found == pytest.approx(float(slow), abs=1e-10)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**20), dimension=st.integers(1, 4), name=st.sampled_from(sorted(KERNELS))
)
def test_smoothing_acts_along_the_affine_hull_only(seed, dimension, name):
    """Prop. 3.1 for every zero-mean kernel: the part of an offset across the hull changes no score.

    The same offsets, in the space and projected on the hull of data in a random subspace of R^5.
    """
    rng = np.random.RandomState(seed)
    basis = np.linalg.qr(rng.normal(size=(5, dimension)))[0]
    X = rng.normal(size=(12, dimension)) @ basis.T + rng.normal(size=5)
    offsets = rng.normal(size=(7, 5)) * rng.gamma(1.0, size=(7, 1))
    offsets -= offsets.mean(axis=0)
    Q = X[:4] + 0.3 * rng.normal(size=(4, 5))
    whole, projected = (
        SmoothedScoreDiffusion(0.4, 0.7, kernel=OffsetsKernel(moved), n_levels=2, n_steps=4).fit(X)
        for moved in (offsets, offsets @ basis @ basis.T)
    )
    np.testing.assert_allclose(whole.grad_log_density(Q), projected.grad_log_density(Q), atol=1e-8)
    np.testing.assert_allclose(whole.score_samples(Q), projected.score_samples(Q), atol=1e-8)
    # And the field is that of a sum in R^5 over the offsets as they are.
    for q, found in zip(Q, whole.grad_log_density(Q), strict=True):
        slow = np.mean([empirical_score(X, q + 0.7 * xi, 0.16) for xi in offsets], axis=0)
        np.testing.assert_allclose(found, slow, atol=1e-8)


def empirical_score(X, x, v):
    logits = -np.sum((x - X) ** 2, axis=1) / (2 * v)
    weights = np.exp(logits - logits.max())
    return (weights @ X / weights.sum() - x) / v


def test_variances_add():
    """Smoothing twice is smoothing once with the sum of two independent offsets."""
    first, second = gaussian_nodes(2, 8, 0, 0) * 0.3, gaussian_nodes(2, 8, 1, 0) * 0.4
    both = (first[:, None] + second).reshape(-1, 2)
    X = np.random.RandomState(0).normal(size=(15, 2))
    twice = SmoothedScoreDiffusion(0.3, 1.0, kernel=OffsetsKernel(both), n_levels=2).fit(X)
    once = SmoothedScoreDiffusion(0.3, 1.0, kernel=OffsetsKernel(first), n_levels=2).fit(X)
    Q = X[:4]
    inner = np.mean([once.grad_log_density(Q + xi) for xi in second], axis=0)
    np.testing.assert_allclose(twice.grad_log_density(Q), inner, atol=1e-10)
    np.testing.assert_allclose(both.T @ both / len(both), np.eye(2) * 0.25, atol=1e-12)


@every_kernel
@pytest.mark.parametrize("sigma", [0.0, 1e-9])
def test_no_smoothing_is_the_kde(name, sigma, X):
    """With a sigma too small to matter the flow runs, and its 64 steps err by 2e-3."""
    model = SmoothedScoreDiffusion(0.5, sigma, kernel=KERNELS[name], n_levels=4, n_steps=64).fit(X)
    expected = KDESampler(0.5).fit(X).score_samples(X[:9])
    tolerance = 1e-12 if sigma == 0 else 5e-3
    np.testing.assert_allclose(model.score_samples(X[:9]), expected, atol=tolerance)


@pytest.mark.parametrize("name", ["gaussian", "ball", "data"])
def test_rotation(name, X):
    """These kernels rotate with the data, and so does the model, node by node."""
    turn = stats.ortho_group.rvs(3, random_state=1)
    here = fitted(name, X)
    there = fitted(name, X @ turn)
    np.testing.assert_allclose(there.score_samples(X @ turn), here.score_samples(X), atol=1e-7)


def test_an_isotropic_covariance_is_the_isotropic_kernel(X):
    other = SmoothedScoreDiffusion(0.3, 0.4, kernel=AnisotropicGaussianKernel(np.eye(3)), **SMALL)
    np.testing.assert_allclose(
        other.fit(X).score_samples(X), fitted("gaussian", X).score_samples(X), atol=1e-10
    )


def test_temperature_has_the_posterior_means_of_the_larger_noise(X):
    """Below sigma the posterior means are those of noise scale sigma."""
    model, Q = fitted("temperature", X), X[:5] + 0.1
    raised = KDESampler(0.4).fit(X).grad_log_density(Q)
    np.testing.assert_allclose(model.grad_log_density(Q), raised * 0.4**2 / 0.3**2, rtol=1e-9)
    above = model.grad_log_density(Q, t=0.5**2)
    np.testing.assert_allclose(above, KDESampler(0.5).fit(X).grad_log_density(Q), rtol=1e-9)


# ----------------------------------------------------------------------------- scales by noise level


def test_a_scale_that_grows_with_the_noise(X):
    model = SmoothedScoreDiffusion(0.3, ProportionalScale(0.5), **SMALL).fit(X)
    middles = [model.noise_levels_.middle(level) for level in range(4)]
    np.testing.assert_allclose(model.sigma_, 0.5 * np.array(middles), rtol=1e-15)
    for level in range(4):
        offsets, weights = model.kernel_.nodes(level)
        np.testing.assert_allclose(weights @ offsets**2, model.sigma_[level] ** 2, rtol=1e-10)


def test_a_constant_function_is_a_number(X):
    called = SmoothedScoreDiffusion(0.3, lambda scale: 0.4, **SMALL).fit(X)
    np.testing.assert_allclose(called.sigma_, 0.4)
    np.testing.assert_array_equal(called.score_samples(X), fitted("gaussian", X).score_samples(X))


def test_ornstein_uhlenbeck_widens_the_kernel_as_the_data_shrink(X):
    """sigma / alpha, with alpha^2 = 1 / (1 + 2 a y^2) at the noise scale y relative to the signal."""
    model = fitted("gaussian", X, noise=OrnsteinUhlenbeck(0.8))
    assert model.sigma_ == 0.4
    for level in range(4):
        offsets, weights = model.kernel_.nodes(level)
        y = model.noise_levels_.middle(level)
        np.testing.assert_allclose(weights @ offsets**2, 0.16 * (1 + 2 * 0.8 * y**2), rtol=1e-10)


def test_an_ornstein_uhlenbeck_process_smoothed_in_its_own_coordinates(X):
    """The score of X_t averaged over offsets of scale sigma, in coordinates x / alpha."""
    process = OrnsteinUhlenbeck(0.8)
    model = fitted("gaussian", X, noise=process)
    level = 2
    y = model.noise_levels_.middle(level)
    t = process.time(y)
    alpha, v = process.alpha(t), process.variance(t)
    assert np.sqrt(v) / alpha == pytest.approx(y)
    offsets, weights = model.kernel_.nodes(level)
    offsets = alpha * offsets @ model.hull_.basis.T
    np.testing.assert_allclose(
        (weights[:, None] * offsets).T @ offsets, 0.16 * np.eye(3), atol=1e-10
    )
    for x in alpha * (X[:4] + 0.2):
        theirs = sum(
            w * empirical_score(alpha * X, x + xi, v)
            for w, xi in zip(weights, offsets, strict=True)
        )
        ours = model.grad_log_density(x[None] / alpha, t=y**2)[0]
        np.testing.assert_allclose(ours, alpha * theirs, rtol=1e-9, atol=1e-9)


def test_a_slow_process_is_brownian_motion(X):
    slow = fitted("gaussian", X, noise=OrnsteinUhlenbeck(1e-12))
    np.testing.assert_allclose(
        slow.score_samples(X), fitted("gaussian", X).score_samples(X), atol=1e-8
    )


# ------------------------------------------------------------------------------- how many nodes it takes


def test_node_error_is_near_the_true_one():
    """Within a factor of three of the rms difference to many more nodes, on rows near the data."""
    X = np.random.RandomState(0).normal(size=(100, 6))
    Q = X + 0.3 * np.random.RandomState(1).normal(size=X.shape)
    model = SmoothedScoreDiffusion(0.5, 0.9, n_nodes=16).fit(X)
    finer = SmoothedScoreDiffusion(0.5, 0.9, n_nodes=512, random_state=7).fit(X)
    true = np.sqrt(np.mean((model.score_samples(Q) - finer.score_samples(Q)) ** 2))
    assert true / 3 < model.node_error_ < 3 * true
    assert finer.node_error_ < model.node_error_ / 2


def scores_and_divergences(points, x, v, variance, offsets, weights):
    """Scores of queries (n, r), averaged over nodes, and divergences by Stein's identity."""
    score, divergence = np.zeros(x.shape), np.zeros(len(x))
    for offset, weight in zip(offsets, weights, strict=True):
        logits = ((x[:, None] + offset - points) ** 2).sum(axis=2) / (-2 * v)
        score += weight * (softmax(logits, axis=1) @ points - x - offset) / v
        factor = (offset @ offset / variance - x.shape[1]) / variance
        divergence += weight * factor * logsumexp(logits, axis=1)
    return score, divergence


@pytest.mark.parametrize("n_levels", [8, 16])
def test_node_error_is_the_change_of_the_divergence_under_twice_as_many_nodes(n_levels):
    """Recomputed with all rows, all levels, other noise and other reference nodes.

    An error e of the score in a level of width w in log(scale) changes a log-density by
    w * v * (div e + e . score), and the squares of the levels add up.
    """
    reported = recomputed = 0.0
    for seed in range(4):
        rng = np.random.RandomState(seed)
        X = rng.normal(size=(60, 3))
        coarse, fine = (
            SmoothedScoreDiffusion(
                0.3, 0.6, n_nodes=n, n_levels=n_levels, random_state=random_state
            ).fit(X)
            for n, random_state in ((18, None), (36, 5))
        )
        rows, levels = coarse.hull_.split(X)[0], coarse.noise_levels_
        for level in range(n_levels):
            v = levels.middle(level) ** 2
            width = np.log(levels.start(level + 1) / levels.start(level))
            x = rows + np.sqrt(v) * rng.normal(size=rows.shape)
            here, there = (
                scores_and_divergences(rows, x, v, 0.6**2, *model.kernel_.nodes(level))
                for model in (coarse, fine)
            )
            change = here[1] - there[1] + ((here[0] - there[0]) * here[0]).sum(axis=1)
            recomputed += np.mean((width * v * change) ** 2)
        reported += coarse.node_error_**2
    assert 0.8 < np.sqrt(reported / recomputed) < 1.25


def test_auto_takes_more_nodes_where_the_estimate_is_large():
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    hard = np.column_stack([np.cos(angle), np.sin(angle)])
    model = SmoothedScoreDiffusion(0.01, 0.15).fit(hard)
    assert model.n_nodes_ > 64
    assert SmoothedScoreDiffusion(0.3, 0.1).fit(hard).n_nodes_ == 64
    few = SmoothedScoreDiffusion(0.01, 0.15, n_nodes=64).fit(hard)
    assert few.n_nodes_ == 64
    assert few.node_error_ > model.node_error_


# --------------------------------------------------------------------------------------------- errors


@every_kernel
def test_kernels_clone_pickle_and_print(name, X):
    model = SmoothedScoreDiffusion(0.3, 0.4, kernel=KERNELS[name], **SMALL)
    copy = pickle.loads(pickle.dumps(clone(model))).fit(X)
    np.testing.assert_array_equal(copy.score_samples(X), fitted(name, X).score_samples(X))
    assert "Kernel" in repr(KERNELS[name])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AnisotropicGaussianKernel("auto"), ValueError, r"covariance='auto' is not known"),
        (lambda: AnisotropicGaussianKernel([[1.0, 2.0], [2.0, 1.0]]), ValueError, "eigenvalue -1"),
        (lambda: AnisotropicGaussianKernel([[1.0, 2.0], [0.0, 1.0]]), ValueError, "not symmetric"),
        (
            lambda: AnisotropicGaussianKernel([1.0, -2.0]),
            ValueError,
            "negative standard deviation -2;",
        ),
        (lambda: AnisotropicGaussianKernel([[1.0, np.nan]] * 2), ValueError, "finite"),
        (lambda: AnisotropicGaussianKernel(np.ones((2, 3))), ValueError, r"shape \(2, 3\)"),
        (lambda: OffsetsKernel([[1.0], [2.0]]), ValueError, r"mean \[1\.5\]"),
        (lambda: OffsetsKernel([1.0, -1.0]), ValueError, r"shape \(2,\)"),
        (lambda: OffsetsKernel([[1.0], [-1.0]], [1.0, 0.0]), ValueError, "> 0"),
        (lambda: OffsetsKernel([[1.0], [-1.0]], [1.0]), ValueError, r"weights has shape \(1,\)"),
        (lambda: OffsetsKernel([[np.inf], [-1.0]]), ValueError, "finite"),
        (lambda: SamplerKernel("laplace"), TypeError, "has type str"),
        (lambda: ProportionalScale(-1), ValueError, r"ratio=-1"),
        (lambda: OrnsteinUhlenbeck(0), ValueError, r"rate=0"),
    ],
)
def test_kernels_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"kernel": "cauchy"}, ValueError, r"kernel='cauchy' is not known; expected one of 'gauss"),
        ({"kernel": GaussianKernel}, TypeError, "has type type"),
        ({"kernel": 3}, TypeError, r"kernel=3 has type int"),
        ({"kernel": AnisotropicGaussianKernel(np.eye(2))}, ValueError, "2 features, but X has 3"),
        ({"kernel": OffsetsKernel([[1.0], [-1.0]])}, ValueError, "1 columns, but X has 3"),
        (
            {"kernel": SamplerKernel(lambda rng, n: rng.normal(size=n))},
            ValueError,
            r"returned the shape \(\d+,\); expected \(\d+, 3\)",
        ),
        (
            {"kernel": SamplerKernel(lambda rng, n: np.full((n, 3), np.nan))},
            ValueError,
            "NaN or infinite",
        ),
        ({"noise": "vp"}, ValueError, r"noise='vp' is not known"),
        ({"noise": OrnsteinUhlenbeck}, TypeError, "has type type"),
        ({"node_rule": "halton"}, ValueError, r"node_rule='halton' is not known"),
        ({"sigma": lambda scale: -1.0}, ValueError, r"sigma=-1\.0 .*sigma\(.*returned"),
        ({"sigma": lambda scale: "wide"}, TypeError, "sigma='wide'"),
        ({"n_nodes": 7}, ValueError, "n_nodes=7 is odd"),
    ],
)
def test_estimators_refuse(params, error, message, X):
    model = SmoothedScoreDiffusion(0.3, **({"sigma": 0.4} | params))
    with pytest.raises(error, match=message):
        model.fit(X)


def test_a_grid_is_refused_in_four_dimensions():
    X = np.random.RandomState(0).normal(size=(20, 4))
    with pytest.raises(ValueError, match="acts along 4; use node_rule='sobol'"):
        SmoothedScoreDiffusion(0.3, 0.4, node_rule="gauss-hermite").fit(X)
    model = ManifoldAdaptedDiffusion(
        0.3, 0.4, manifold="pca", n_components=2, node_rule="gauss-hermite"
    ).fit(X)
    assert np.all(np.isfinite(model.score_samples(X)))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_named_process_has_no_units(scale, X):
    here = SmoothedScoreDiffusion(0.3, 0.4, noise="ou", **SMALL).fit(X)
    there = SmoothedScoreDiffusion(0.3 * scale, 0.4 * scale, noise="ou", **SMALL).fit(scale * X)
    expected = here.score_samples(X) - 3 * np.log(scale)
    np.testing.assert_allclose(there.score_samples(scale * X), expected, atol=1e-7)
    assert here.noise_.rate == pytest.approx(0.5 / np.linalg.eigvalsh(np.cov(X.T, bias=True))[-1])


def test_a_process_that_leaves_nothing_is_refused(X):
    with pytest.raises(ValueError, match=r"noise=OrnsteinUhlenbeck.* shrinks the data to zero"):
        fitted("gaussian", 1e6 * X, noise=OrnsteinUhlenbeck(1e300))


def test_the_number_of_nodes_is_the_one_used(X):
    used = {
        ("offsets", "sobol", 10): 4,
        ("gaussian", "gauss-hermite", 100): 64,
        ("gaussian", "gauss-hermite", 2): 8,
        ("temperature", "sobol", 10): 1,
        # A frame has 2 * 3 nodes, and there are three radii: nodes are rounded up.
        ("gaussian", "sobol", 10): 18,
        ("gaussian", "sobol", 64): 72,
        ("anisotropic", "sobol", 10): 10,
    }
    for (name, rule, n_nodes), expected in used.items():
        assert fitted(name, X, node_rule=rule, n_nodes=n_nodes).n_nodes_ == expected


def test_the_scale_of_a_sampler_is_that_about_its_mean(X):
    scales = [
        SmoothedScoreDiffusion(kernel=SamplerKernel(sampler), n_levels=2, n_steps=2).fit(X).sigma_
        for sampler in (
            lambda rng, n: rng.normal(size=(n, 3)),
            lambda rng, n: 5 + rng.normal(size=(n, 3)),
        )
    ]
    assert scales[0] == pytest.approx(scales[1], rel=1e-12)
