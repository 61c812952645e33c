"""Parts of conditionals and of posteriors, by hand: rounds, resampling, Metropolis moves, annealing."""

import copy
import math
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal, norm

from skdiffsmooth import KDESampler, LinearObservation, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import conditional, posterior
from skdiffsmooth._diffusion.conditional import Conditional, log_density_of_columns, together
from skdiffsmooth._diffusion.joint_density import (
    JointDensity,
    _window,
    _with_images,
)
from skdiffsmooth._diffusion.posterior import _by_own_steps, _Draws, _Posterior
from skdiffsmooth.compose import DensityStacking

RNG = np.random.default_rng(0)
MEAN, ROOT = np.array([1.0, -2.0, 0.5]), RNG.normal(size=(3, 3))
NORMAL = multivariate_normal(MEAN, ROOT.T @ ROOT)


def normal_joint(d=3, n=6, **more):
    """The joint density of a normal distribution, with proposals at a few centers."""
    axes = ROOT[:d, :d]
    log_abs_det = float(np.linalg.slogdet(axes)[1])
    law = multivariate_normal(MEAN[:d], axes.T @ axes)
    return JointDensity(
        lambda X: law.logpdf(X).reshape(len(X)),
        lambda y: norm.logpdf(y).sum(axis=1) - log_abs_det,
        MEAN[:d],
        axes,
        log_abs_det,
        np.random.default_rng(1).normal(size=(n, d)),
        np.full(n, 1 / n),
        np.outer([0.7, 1.0, 1.5], np.ones(d)),
        **more,
    )


# -------------------------------------------------------------------------- joint densities


def test_windows_sum_to_one_over_whole_turns():
    turns = np.array([-1.5, -1.0, -0.6, -0.5, 0.0, 0.3, 0.5, 1.0, 2.0])
    expected = np.where(np.abs(turns) < 1, (1 + np.cos(np.pi * turns)) / 2, 0.0)
    assert_allclose(_window(turns), expected, atol=1e-15)
    u = RNG.uniform(-0.5, 0.5, 50)
    assert_allclose(sum(_window(u + k) for k in (-1, 0, 1)), 1.0)


def test_images_keep_the_weight_of_their_points():
    points = np.array([[0.0, 5.0, 1.0], [1.4, -3.0, -2.0], [-0.2, 0.0, 0.5]])
    weights, periods = np.array([0.5, 0.3, 0.2]), np.array([3.0, 0.0, 4.0])
    images, of_images = _with_images(points.copy(), weights, periods)
    expected = {}
    for point, weight in zip(points, weights, strict=True):
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                image = point + [3.0 * a, 0.0, 4.0 * b]
                share = _window(image[0] / 3.0) * _window(image[2] / 4.0)
                if share > 0:
                    expected[tuple(image.round(9))] = weight * share
    found = dict(zip(map(tuple, images.round(9)), of_images, strict=True))
    assert found.keys() == expected.keys()
    assert_allclose([found[k] for k in expected], list(expected.values()))
    assert of_images.sum() == pytest.approx(1.0)


def test_periodic_columns_are_windowed_where_they_are_free():
    joint = normal_joint(periods=np.array([0.0, 9.0, 4.0]))
    y = RNG.normal(size=(20, 3)) * 8
    turns = (y @ joint.axes)[:, 1:] / [9.0, 4.0]
    assert (np.abs(turns) > 1).any()
    with np.errstate(divide="ignore"):
        both = np.log(_window(turns).prod(axis=1))
        one = np.log(_window(turns[:, 1]))
    assert_allclose(joint.log_window(y, np.array([0])), both)
    assert_allclose(joint.log_window(y, np.array([1])), one)
    assert (joint.log_window(y, np.array([1, 2])) == 0).all()
    assert (normal_joint().log_window(y, np.array([0])) == 0).all()
    expected = np.where(both > -np.inf, both + joint.log_density(y), -np.inf)
    assert_allclose(joint.log_windowed(y, np.empty(0, dtype=int)), expected)
    outside = y[np.isneginf(both)]
    assert np.isneginf(joint.log_windowed(outside, np.empty(0, dtype=int))).all()


def test_given_values_are_taken_near_the_origin():
    joint = normal_joint(periods=np.array([0.0, 9.0, 4.0]))
    values = np.array([[100.0, -7.0], [-100.0, 30.0]])
    found, slopes = joint.mapped(values, np.array([0, 1]))
    assert slopes == 0.0
    assert (found[:, 0] == values[:, 0]).all()
    assert (np.abs(found[:, 1] - MEAN[1]) <= 4.5).all()
    turns = (found[:, 1] - values[:, 1]) / 9.0
    assert_allclose(turns, np.round(turns), atol=1e-12)
    assert (values == [[100.0, -7.0], [-100.0, 30.0]]).all()  # unchanged
    rows = np.array([[100.0, -7.0, -1.0]])
    assert_allclose(joint.unmapped(rows), [[100.0, 2.0, 3.0]])
    assert_allclose(normal_joint().unmapped(rows), rows)


def test_proposals_at_draws_have_their_mean_and_principal_axes():
    rows = NORMAL.rvs(60, random_state=0) * [1.0, 1e3, 1.0]
    joint = JointDensity.of_draws(lambda X: -X.sum(axis=1), rows)
    assert_allclose(joint.origin, rows.mean(axis=0))
    assert_allclose(joint.centers @ joint.axes + joint.origin, rows)
    # In these coordinates the draws are uncorrelated, of variance one.
    assert_allclose(joint.centers.T @ joint.centers / 60, np.eye(3), atol=1e-9)
    assert joint.log_abs_det == pytest.approx(np.linalg.slogdet(joint.axes)[1])
    assert_allclose(joint.scales[1:] / joint.scales[0], [[1.3] * 3, [2.0] * 3])
    assert (joint.weights == 1 / 60).all()
    assert_allclose(joint.log_density(joint.centers), -rows.sum(axis=1))
    # The principal axes are those of the standardised columns, wherever these are.
    far = JointDensity.of_draws(lambda X: -X.sum(axis=1), rows + 1e4)
    assert_allclose(np.abs(far.axes), np.abs(joint.axes), rtol=1e-5)
    standardised = joint.axes / rows.std(axis=0)
    products = standardised @ standardised.T
    assert_allclose(products, np.diag(np.diag(products)), atol=1e-9)
    assert np.trace(products) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="2 draws do not span 3 columns"):
        JointDensity.of_draws(lambda X: X[:, 0], rows[:2])
    constant = np.column_stack([rows[:, 0], np.full(60, 7.0)])
    with pytest.raises(ValueError, match="do not span"):
        JointDensity.of_draws(lambda X: X[:, 0], constant[:1])


# ------------------------------------------------------------------------------ conditionals


def test_jobs_are_evaluated_together():
    batches = []

    def log_density(y):
        batches.append(len(y))
        return y.sum(axis=1)

    def job(*sizes):
        total = 0.0
        for size in sizes:
            values = yield np.full((size, 2), float(size))
            assert values.shape == (size,)
            total += values.sum()
        return total

    joint = SimpleNamespace(log_density=log_density)
    found = together(joint, [job(1, 2), job(), job(3), job(4, 5, 6)])
    assert found == [2.0 * (1 + 4), 0.0, 18.0, 2.0 * (16 + 25 + 36)]
    assert batches == [1 + 3 + 4, 2 + 5, 6]


@pytest.mark.parametrize("given", [[0], [2, 1], [0, 1, 2]])
def test_marginals_of_a_normal_distribution(given):
    joint, columns = normal_joint(), np.array(given)
    values = RNG.normal(size=(4, len(given)))
    (log_density, error), *_ = together(
        joint, [Conditional(joint, columns, 64.0).log_marginal(values)]
    )
    law = multivariate_normal(MEAN[columns], (ROOT.T @ ROOT)[np.ix_(columns, columns)])
    expected = law.logpdf(values)
    tolerance = 0.01 if len(given) == 2 else 0.1
    assert_allclose(log_density, expected, atol=tolerance)
    assert (error <= 0.05).all()
    assert (error == 0).all() == (len(given) == 3)


def test_equal_given_values_are_computed_once():
    sizes = []
    joint = normal_joint(2)
    counted = replace(joint, log_density=lambda y: sizes.append(len(y)) or joint.log_density(y))
    given = np.array([[0.3], [0.1], [0.3], [0.3]])
    job = Conditional(counted, np.array([0]), 64.0).log_marginal(given)
    ((log_density, _),) = together(counted, [job])
    assert log_density[0] == log_density[2] == log_density[3] != log_density[1]
    assert sizes[0] == 2 * (64 + 12)  # two rows, with six nodes beyond each end


def test_densities_of_columns_given_others_are_ratios():
    joint = normal_joint(2)
    X = RNG.normal(size=(3, 2)) * 0.5 + MEAN[:2]
    found, error = log_density_of_columns(joint, X, np.array([0]), np.array([1]), 64.0)
    S = joint.axes.T @ joint.axes
    mean = MEAN[0] + S[0, 1] / S[1, 1] * (X[:, 1] - MEAN[1])
    std = np.sqrt(S[0, 0] - S[0, 1] ** 2 / S[1, 1])
    assert_allclose(found, norm.logpdf(X[:, 0], mean, std), atol=0.01)
    assert (error <= 0.011).all()
    alone, _ = log_density_of_columns(joint, X, np.array([0]), np.array([], dtype=int), 64.0)
    assert_allclose(alone, norm.logpdf(X[:, 0], MEAN[0], np.sqrt(S[0, 0])), atol=0.01)


@pytest.mark.parametrize("for_means", [False, True])
def test_conditional_draws_keep_given_values_and_have_their_law(for_means):
    joint = normal_joint()
    given = np.repeat([[0.5], [2.0]], 400, axis=0)
    drawn = Conditional(joint, np.array([1]), 64.0).draw(
        given, np.random.RandomState(0), for_means=for_means
    )
    assert (drawn[:, [1]] == given).all()
    S = ROOT.T @ ROOT
    for value in (0.5, 2.0):
        own = drawn[given[:, 0] == value][:, [0, 2]]
        mean = MEAN[[0, 2]] + S[[0, 2], 1] / S[1, 1] * (value - MEAN[1])
        std = np.sqrt(np.diag(S)[[0, 2]] - S[[0, 2], 1] ** 2 / S[1, 1])
        assert (np.abs(own.mean(axis=0) - mean) < 4 * std / 20).all()
        assert_allclose(own.std(axis=0), std, rtol=0.15)
    if for_means:
        assert len(np.unique(drawn, axis=0)) < 800
    else:
        assert len(np.unique(drawn, axis=0)) > 700


def test_warnings_of_errors_and_of_few_draws():
    with pytest.warns(UserWarning, match=r"error of 2 of 3 log-densities is large, up to 0\.5"):
        conditional._warn_of_errors(np.array([0.3, 0.25, 0.5]), 0.25)
    with pytest.warns(UserWarning, match=r"draws for 1 of 2 conditions .* size is 23\.9"):
        conditional._warn_of_few(np.array([24.0, 23.9]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conditional._warn_of_errors(np.array([0.25, 0.0]), 0.25)
        conditional._warn_of_few(np.array([24.0]))


def test_rows_are_cut_by_the_memory_of_their_draws():
    one = Conditional(normal_joint(), np.array([0]), 64.0)
    a_draw = 12 * 6 + 32 * 3 + 128
    assert one._bytes_of_draw == a_draw
    limit = 2.5 * 4096 * a_draw / 2**20
    few = replace(one, memory_limit=limit)
    assert [s.stop - s.start for s in few._parts(5, 4096)] == [2, 2, 1]
    assert [s.stop - s.start for s in few.parts_for_means(5000)] == [2560, 2440]
    assert few._most == 4096
    assert replace(one, columns=np.array([0, 1]))._most == 512


# -------------------------------------------------------------------------------- posteriors


def test_effective_numbers_of_draws():
    assert posterior._effective(np.zeros(8)) == pytest.approx(8.0)
    assert posterior._effective(np.array([0.0, -np.inf])) == pytest.approx(1.0)
    weights = np.array([0.5, 0.3, 0.2])
    expected = 1 / np.sum(weights**2)
    assert posterior._effective(np.log(weights) - 900) == pytest.approx(expected)


def draws_of(log_weights):
    n = len(log_weights)
    return _Draws(np.arange(2.0 * n).reshape(n, 2), np.zeros(n), log_weights)


def test_the_evidence_of_draws_is_the_mean_of_weights_with_the_error_of_groups():
    log_weights = np.random.default_rng(0).normal(size=64) - 900
    draws = draws_of(log_weights)
    value, error = draws.log_evidence
    weights = np.exp(log_weights + 900)
    groups = [weights[k::16].mean() for k in range(16)]
    expected = np.std(groups, ddof=1) / 4 / np.mean(groups)
    assert error == pytest.approx(expected)
    assert value == pytest.approx(np.log(weights.mean()) - 900 + expected**2 / 2)
    assert draws.effective == pytest.approx(weights.sum() ** 2 / np.sum(weights**2))
    assert draws.weights.sum() == pytest.approx(1.0)
    # One draw of 32 has all the weight: the error is one, and the bias that of one half.
    rare = np.full(32, -np.inf)
    rare[5] = 0.0
    value, error = draws_of(rare).log_evidence
    assert error == pytest.approx(1.0)
    assert value == pytest.approx(-np.log(32) + 0.125)
    both = draws_of(rare).joined(draws_of(np.zeros(16)))
    assert len(both.z) == len(both.log_weights) == 48
    assert (both.z[32:] == draws_of(np.zeros(16)).z).all()


def test_quantiles_of_draws():
    weights = np.array([0.1, 0.4, 0.2, 0.3])
    draws = draws_of(np.log(weights))
    assert draws.at_quantiles(2).tolist() == [1, 3]  # 0.25 and 0.75
    assert draws.at_quantiles(5).tolist() == [0, 1, 1, 2, 3]  # 0.1 is the end of the first
    assert draws.at_quantiles(1).tolist() == [1]


@pytest.mark.parametrize("power", [0.0, 0.3])
def test_powers_of_the_likelihood_keep_half_of_the_draws(power):
    log_likelihood = np.append(10 * np.random.default_rng(0).normal(size=63), -np.inf)
    following = posterior._next_power(log_likelihood, power)
    finite, step = log_likelihood[:-1], following - power
    assert posterior._effective(step * finite) >= 31.5
    assert posterior._effective(step * math.sqrt(2) * finite) < 31.5
    assert math.log2((1 - power) / step) * 2 == pytest.approx(
        round(2 * math.log2((1 - power) / step))
    )
    # Likelihoods that are nearly equal allow the last step; impossible ones the smallest.
    assert posterior._next_power(log_likelihood / 1e3, power) == 1.0
    # A last draw that outweighs all others by any step: the step ends at rounding.
    step = posterior._next_power(np.append(np.full(63, -1e300), 0.0), power) - power
    assert 0 <= step < 1e-12


def test_metropolis_moves_keep_a_normal_distribution():
    rng = np.random.RandomState(0)
    z = rng.standard_normal((2000, 2)) * [1.0, 3.0]

    def log_target(z):
        return -0.5 * (z[:, 0] ** 2 + (z[:, 1] / 3) ** 2)

    roots = np.stack([np.diag([1.0, 1.0]), np.diag([1.0, 3.0])])
    values = log_target(z)
    before = z.copy(), values.copy()
    moved = posterior._moved(log_target, z, values, roots, rng)
    assert (z == before[0]).all()
    assert (values == before[1]).all()
    assert_allclose(moved.std(axis=0), [1.0, 3.0], rtol=0.06)
    assert_allclose(moved.mean(axis=0), [0.0, 0.0], atol=0.25)
    # Four moves, of which some forty per cent are accepted.
    assert 0.7 < np.mean((moved != z).any(axis=1)) < 0.99
    # Impossible proposals are never accepted, and improbable draws are left.
    stuck = posterior._moved(lambda z: np.full(len(z), -np.inf), z, values, roots, rng)
    assert (stuck == z).all()


def test_moves_are_made_in_turn_and_scaled_by_their_acceptance():
    steps = []

    class Noise(np.random.RandomState):
        def standard_normal(self, size):
            return np.ones(size)

        def uniform(self, size):
            return np.full(size, 0.5)

    def log_target(z):
        steps.append(z.copy())
        return np.zeros(len(z))  # all are accepted

    roots = np.array([[[1.0]], [[10.0]]])
    found = posterior._moved(log_target, np.zeros((3, 1)), np.zeros(3), roots, Noise())
    grown = math.exp(2 * 0.75)
    expected = 2.38 * np.cumsum([1.0, 10.0, grown, 10.0 * grown])
    assert_allclose([step[0, 0] for step in steps], expected)
    assert_allclose(found, expected[-1])


def posterior_of(observation, joint=None):
    joint = normal_joint() if joint is None else joint
    return _Posterior(joint, 64.0, observation, observation)


OBSERVATION = LinearObservation([[1.0, 0.5, 0.0]], [0.4], 0.5)


def test_targets_are_density_times_likelihood():
    law = posterior_of(OBSERVATION)
    z = RNG.normal(size=(5, 3))
    rows = MEAN + z @ ROOT
    assert_allclose(law.log_target(z), NORMAL.logpdf(rows) + OBSERVATION(rows))
    assert_allclose(law._rows(z), rows)


def test_evidence_and_draws_of_a_normal_distribution_are_exact():
    law = posterior_of(OBSERVATION)
    value, error, effective = law.log_evidence(NORMAL.logpdf)
    A = OBSERVATION.A
    S = ROOT.T @ ROOT
    marginal = (A @ S @ A.T).item() + 0.25
    expected = norm.logpdf(0.4, (A @ MEAN).item(), np.sqrt(marginal))
    assert value == pytest.approx(expected, abs=4 * error)
    assert error < 0.05
    assert effective > 100
    # Log-densities of half as long steps that are higher by 0.1 are an error of 0.1.
    with pytest.warns(UserWarning, match=r"error of 0\.1 nats: .* and 0\.1 of the solver"):
        _, larger, _ = law.log_evidence(lambda X: NORMAL.logpdf(X) + 0.1)
    assert larger == pytest.approx(math.hypot(error, 0.1), rel=1e-6)
    drawn = law.draw(1000, np.random.RandomState(0))
    gain = (S @ A.T)[:, 0] / marginal
    mean = MEAN + gain * (0.4 - A @ MEAN)
    std = np.sqrt(np.diag(S - np.outer(gain, A @ S)))
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * std / np.sqrt(1000)).all()
    assert_allclose(drawn.std(axis=0), std, rtol=0.12)
    assert drawn.shape == (1000, 3)


def test_steps_are_roots_of_covariances():
    law = posterior_of(OBSERVATION)
    z, weights = RNG.normal(size=(40, 3)), RNG.dirichlet(np.ones(40))
    kernel, overall = law._steps(z, weights)
    assert_allclose(kernel, law._proposal.roots[0])
    centered = z - weights @ z
    assert_allclose(overall @ overall.T, (weights[:, None] * centered).T @ centered)
    _, overall = law._steps(z, None)
    assert_allclose(overall @ overall.T, np.cov(z.T, ddof=0))
    single = posterior_of(LinearObservation([[1.0]], [0.4], 0.5), normal_joint(1))
    assert single._steps(z[:, :1], None).shape == (2, 1, 1)


def test_observations_of_periodic_columns_are_refused():
    periods = np.array([0.0, 0.0, 4.0])
    joint = normal_joint(periods=periods)
    assert posterior_of(OBSERVATION, joint) is not None
    with pytest.raises(ValueError, match="not zero for column 2, which has the period 4"):
        posterior_of(LinearObservation([[1.0, 0.5, -0.1]], [0.4], 0.5), joint)


def test_posteriors_far_from_all_rows_are_warned_of():
    law = posterior_of(OBSERVATION)
    near, far = draws_of(np.zeros(64)), draws_of(np.zeros(64))
    z = np.random.default_rng(0).normal(size=(64, 3))
    # In units of the third scale, 1.5, rows are far from 6 + sqrt(3) on.
    edge = 1.5 * (6 + math.sqrt(3))
    away = law._joint.centers[np.argmax(law._joint.centers[:, 0])]
    for draws, factor, is_far in ((near, 0.98, False), (far, 1.02, True)):
        own = draws._replace(z=0 * z + away + [factor * edge, 0.0, 0.0])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            law._warn(own)
        assert bool(caught) == is_far
    few = draws_of(np.append(np.zeros(23), np.full(41, -np.inf)))._replace(z=z)
    with pytest.warns(UserWarning, match=r"effective 23\.0 draws; expected 24"):
        law._warn(few)


def test_copies_without_the_adaptive_solver():
    X = RNG.normal(size=(12, 2))
    model = SmoothedScoreDiffusion(0.4, 0.3, n_nodes=8, n_levels=4).fit(X)
    stack = DensityStacking([("a", model), ("b", KDESampler(0.4))]).fit(X)
    plain = _by_own_steps(model, 3)
    assert plain.model_.tol is None
    assert plain.model_.n_steps == 3 * model.model_.n_steps
    assert model.model_.tol is not None
    of_stack = _by_own_steps(stack, 2)
    inner = [each.model_ for each in of_stack.estimators_ if hasattr(each, "model_")]
    assert all(each.tol is None for each in inner)
    named = copy.copy(model)
    named.feature_names_in_ = np.array(["a", "b"])
    assert not hasattr(_by_own_steps(named), "feature_names_in_")
    assert hasattr(named, "feature_names_in_")
    assert not posterior._is_periodic(model)
    ring = KDESampler(0.4, periods={0: 6.0}).fit(np.abs(X))
    assert posterior._is_periodic(ring)
    held = SimpleNamespace(estimators_=[model], estimator_=ring)
    assert posterior._is_periodic(held)
    held.estimator_ = None
    assert not posterior._is_periodic(held)
