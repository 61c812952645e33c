"""Proposals of conditionals and posteriors against sums over their kernels, one by one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal, multivariate_t, norm, t

from skdiffsmooth._coordinates.frame import Frame
from skdiffsmooth._diffusion.conditional_proposal import KernelMixture
from skdiffsmooth._diffusion.joint_density import JointDensity
from skdiffsmooth._diffusion.observation import LinearObservation
from skdiffsmooth._diffusion.posterior_proposal import PosteriorProposal
from skdiffsmooth._diffusion.weighted_draws import BaseDraws

RNG = np.random.default_rng(0)
D, CENTERS = 3, RNG.normal(size=(5, 3))
WEIGHTS = RNG.dirichlet(np.ones(5))
SCALE = np.array([0.5, 1.0, 2.0])
AXES = RNG.normal(size=(3, 3)) * [[3.0], [1.0], [0.2]]
ORIGIN = RNG.normal(size=3)


def mixture(columns, degrees):
    log_abs_det = np.linalg.slogdet(SCALE[:, None] * AXES)[1]
    frame = Frame.of(ORIGIN, SCALE[:, None] * AXES, log_abs_det, np.array(columns))
    return KernelMixture(frame, SCALE, CENTERS, np.log(WEIGHTS), degrees)


def kernels_of_rows(degrees):
    """The distributions of rows of the kernels: z / SCALE is isotropic, and rows are ORIGIN + z AXES."""
    root = SCALE[:, None] * AXES
    covariance = root.T @ root
    means = ORIGIN + CENTERS @ AXES
    if degrees is None:
        return [multivariate_normal(mean, covariance) for mean in means]
    return [multivariate_t(mean, covariance, degrees) for mean in means]


def marginals_of_given(columns, degrees):
    root = (SCALE[:, None] * AXES)[:, columns]
    covariance = root.T @ root
    means = (ORIGIN + CENTERS @ AXES)[:, columns]
    if degrees is None:
        return [multivariate_normal(mean, covariance) for mean in means]
    return [multivariate_t(mean, covariance, degrees) for mean in means]


def sum_of(parts, rows):
    return logsumexp([np.log(w) + p.logpdf(rows) for w, p in zip(WEIGHTS, parts, strict=True)], 0)


@pytest.mark.parametrize("degrees", [None, 1.0, 3.0])
@pytest.mark.parametrize("columns", [[0], [2, 0]])
def test_conditionals_are_ratios_of_joint_and_marginal(columns, degrees):
    values = RNG.normal(size=(4, len(columns)))
    each = mixture(columns, degrees).given(values)
    n_free = D - len(columns)
    y = each.at(each.given, RNG.normal(size=(4, n_free)))
    rows = ORIGIN + y @ AXES
    assert_allclose(rows[:, columns], values)
    of_given = sum_of(marginals_of_given(columns, degrees), values)
    expected = sum_of(kernels_of_rows(degrees), rows) - of_given
    assert_allclose(np.diag(each.log_density(y[None].repeat(4, 0))), expected)
    assert_allclose(each.at(each.given, each.free(y)), y)
    distances = np.sum((each.given[:, None] - CENTERS / SCALE @ each.frame.given_axes) ** 2, 2)
    assert_allclose(each.nearest, np.sqrt(distances.min(axis=1)))


@pytest.mark.parametrize("degrees", [None, 2.0])
def test_the_distribution_function_of_one_free_column(degrees):
    each = mixture([0, 1], degrees).given(RNG.normal(size=(2, 2)))
    y = each.at(np.repeat(each.given, 3, 0), RNG.normal(size=(6, 1))).reshape(2, 3, 3)
    found = each.cdf(y)
    for row in range(2):
        widths = np.broadcast_to(each.widths[0 if degrees is None else row], 5)
        for j, free in enumerate(each.free(y)[row, :, 0]):
            below = [
                np.exp(log_weight)
                * (norm if degrees is None else t(each.degrees)).cdf((free - center) / width)
                for log_weight, center, width in zip(
                    each.log_weights[row], each.centers[:, 0], widths, strict=True
                )
            ]
            assert found[row, j] == pytest.approx(sum(below))


@pytest.mark.parametrize("degrees", [None, 2.0])
def test_draws_of_conditional_kernels_follow_their_distribution_function(degrees):
    each = mixture([0, 1], degrees).given(RNG.normal(size=(2, 2)))
    n = 1024
    base = BaseDraws(n, 1, degrees + 2 if degrees else 1.0, 0)
    drawn = each.draw(np.full(n, 1), base.choice, base.noise, base.stretch)
    levels = each.rows(np.array([1])).cdf(drawn[None])[0]
    # Quasi-random numbers are more even than random ones, whose statistic is 0.05 once in 80 seeds.
    assert kstest(levels, "uniform").statistic < 0.03


def joint(d=2, n=4):
    rng = np.random.default_rng(1)
    axes = rng.normal(size=(d, d))
    scales = np.array([0.4, 0.9, 1.7])[:, None] * rng.uniform(0.5, 2.0, d)
    return JointDensity(
        lambda X: np.zeros(len(X)),
        lambda y: np.zeros(len(y)),
        rng.normal(size=d),
        axes,
        np.linalg.slogdet(axes)[1],
        rng.normal(size=(n, d)),
        rng.dirichlet(np.ones(n)),
        scales,
    )


def test_proposals_without_an_observation_are_the_kernels():
    prior = joint()
    proposal = PosteriorProposal.of(prior, None, 64.0, ((0, 1.0, 0.25), (2, 4.0, 0.75)))
    z = RNG.normal(size=(6, 2))
    parts = []
    for scale, weight in ((prior.scales[0], 0.25), (4 * prior.scales[2], 0.75)):
        for center, own in zip(prior.centers, prior.weights, strict=True):
            parts.append(np.log(weight * own) + norm.logpdf((z - center) / scale).sum(1))
            parts[-1] -= np.log(scale).sum()
    assert_allclose(proposal.log_density(z), logsumexp(parts, 0) - prior.log_abs_det)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_kernels_times_a_likelihood_with_fewer_or_more_measurements_than_columns(m):
    prior = joint()
    observation = LinearObservation(RNG.normal(size=(m, 2)), RNG.normal(size=m), 0.7)
    proposal = PosteriorProposal.of(prior, observation, 64.0, ((1, 1.0, 1.0),))
    z = RNG.normal(size=(6, 2))
    rows = prior.origin + z @ prior.axes
    parts = [
        np.log(weight) + norm.logpdf(z, center, prior.scales[1]).sum(1)
        for center, weight in zip(prior.centers, prior.weights, strict=True)
    ]
    log_product = logsumexp(parts, 0) - prior.log_abs_det + observation(rows)
    difference = proposal.log_density(z) - log_product
    # The same function up to the evidence, a constant.
    assert_allclose(difference, difference[0])
    A = observation.A @ prior.axes.T
    evidence = [
        np.log(weight)
        + multivariate_normal.logpdf(
            observation.y - observation.A @ prior.origin,
            A @ center,
            (A * prior.scales[1] ** 2) @ A.T + 0.49 * np.eye(m),
        )
        for center, weight in zip(prior.centers, prior.weights, strict=True)
    ]
    assert_allclose(-difference[0], logsumexp(evidence))


def test_draws_have_the_mean_and_covariance_of_the_mixture():
    prior = joint()
    observation = LinearObservation([[1.0, -0.5]], [0.3], 0.7)
    proposal = PosteriorProposal.of(prior, observation, 64.0, ((0, 1.0, 0.5), (1, 1.0, 0.5)))
    base = BaseDraws(4096, 2, 1.0, 0)
    drawn = proposal.draw(base, slice(None))
    weights = np.exp(proposal.log_weights)
    means = np.einsum("kde,kne->knd", proposal.roots, proposal.centers)
    mean = np.einsum("kn,knd->d", weights, means)
    second = np.einsum("kn,knd,kne->de", weights, means, means)
    second += np.einsum("kn,kdf,kef->de", weights, proposal.roots, proposal.roots)
    assert_allclose(drawn.mean(axis=0), mean, atol=0.02)
    assert_allclose(np.cov(drawn.T), second - np.outer(mean, mean), atol=0.05)
    assert_allclose(proposal.draw(base, slice(16, 64)), drawn[16:64])


def test_inverses_and_volumes_are_those_of_the_roots_and_maps_keep_the_distribution():
    prior = joint()
    proposal = PosteriorProposal.of(prior, LinearObservation([[1.0, 2.0]], [0.3], 0.7), 64.0)
    products = np.einsum("kde,kfe->kdf", proposal.roots, proposal.inverses)
    assert_allclose(products, np.broadcast_to(np.eye(2), (5, 2, 2)), atol=1e-9)
    volumes = np.linalg.slogdet(proposal.roots)[1] + prior.log_abs_det
    assert_allclose(proposal.log_volumes, volumes)
    assert_allclose(np.exp(proposal.log_weights).sum(axis=1), [0.3, 0.45, 0.15, 0.05, 0.05])
    origin, axes = RNG.normal(size=2), RNG.normal(size=(2, 2))
    mapped = proposal.mapped(origin, axes, np.linalg.slogdet(axes)[1])
    z = RNG.normal(size=(7, 2))
    expected = proposal.log_density(z) - np.linalg.slogdet(axes)[1]
    assert_allclose(mapped.log_density(origin + z @ axes), expected)


def test_rows_are_computed_in_parts_that_fit_into_memory(monkeypatch):
    proposal = PosteriorProposal.of(joint(), None, 64.0)
    z = RNG.normal(size=(9, 2))
    whole = proposal.log_density(z)
    one_row = 24 * proposal.log_weights.size / 2**20
    sizes = []
    original = np.stack
    monkeypatch.setattr(np, "stack", lambda each: sizes.append(len(each[0])) or original(each))
    few = PosteriorProposal(*(getattr(proposal, name) for name in vars(proposal)))
    object.__setattr__(few, "memory_limit", 2.5 * one_row)
    assert_allclose(few.log_density(z), whole)
    assert sizes == [2, 2, 2, 2, 1]
