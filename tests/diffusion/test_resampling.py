"""Rounds, resampling and moves of conditional draws and of posteriors, by loops and by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal, norm

from skdiffsmooth import LinearObservation
from skdiffsmooth._diffusion import conditional, posterior
from skdiffsmooth._diffusion.conditional import Conditional, draw_given_columns, together
from skdiffsmooth._diffusion.joint_density import JointDensity
from skdiffsmooth._diffusion.posterior import PosteriorMixin, _Draws, _Posterior
from skdiffsmooth._diffusion.weighted_draws import Pool

RNG = np.random.default_rng(0)


def normal_joint(d=3, n=5, **more):
    """The joint density of independent normal columns, with proposals at a few centers."""
    mean, axes = np.linspace(1.0, 2.0, d), np.diag(np.linspace(0.5, 2.0, d))
    log_abs_det = float(np.linalg.slogdet(axes)[1])
    return JointDensity(
        lambda X: norm.logpdf((X - mean) / np.diag(axes)).sum(axis=1) - log_abs_det,
        lambda y: -0.5 * np.sum(y**2, axis=1) - d / 2 * math.log(2 * math.pi) - log_abs_det,
        mean,
        axes,
        log_abs_det,
        np.random.default_rng(1).normal(size=(n, d)),
        np.full(n, 1 / n),
        np.outer([0.8, 1.1, 1.5], np.ones(d)),
        **more,
    )


# ------------------------------------------------------------------------------ conditional draws


def test_draws_that_repeat_others_are_moved_and_others_are_not():
    joint = normal_joint()
    own = Conditional(joint, np.array([1]), 64.0)
    kernels = own._kernels(np.array([[1.0], [1.6]]))
    pool = Pool.empty(2, 4, 3, kernels)
    pool.coordinates[:] = RNG.normal(size=(2, 4, 3))
    pool.coordinates[:, :, 1] = kernels[0].at(kernels[0].given, np.zeros((2, 2)))[:, None, 1]
    pool.log_target[:] = joint.log_density(pool.coordinates.reshape(-1, 3)).reshape(2, 4)
    pool.log_masses[:] = np.log([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]) - 900
    rows = np.array([0, 0, 0, 1, 1, 0])
    uniform = np.array([0.05, 0.2, 0.95, 0.1, 0.6, 0.4])
    index = [0, 1, 3, 0, 0, 2]
    accept, noise = RNG.uniform(size=(5, 6)), RNG.normal(size=(5, 6, 2))
    found = own._resampled(pool, rows, uniform, accept, noise)
    # The first row's draws are distinct; of the second, two are equal.
    for j in (0, 1, 2, 5):
        assert (found[j] == pool.coordinates[0, index[j]]).all()
    step = kernels[0].scale[:, None] * kernels[0].frame.free_axes / math.sqrt(2)
    n_accepted = 0
    for j in (3, 4):
        z = pool.coordinates[1, 0]
        log_target = joint.log_density(z[None])[0]
        for probability, normal in zip(accept[:, j], noise[:, j], strict=True):
            proposed = z + step @ normal
            target = joint.log_density(proposed[None])[0]
            if math.log(probability) < target - log_target:
                z, log_target, n_accepted = proposed, target, n_accepted + 1
        assert_allclose(found[j], z)
    assert 0 < n_accepted < 10
    # The given column does not move.
    assert_allclose(found[:, 1], pool.coordinates[rows, index, 1], rtol=1e-12)
    # Without moves draws stay equal.
    still = own._resampled(pool, rows, uniform, accept[:0], noise[:0])
    assert (still[3] == still[4]).all()


def watched_pools(monkeypatch, are_made=True):
    """Record the sizes of pools: conditions, base draws, least draws, enough effective ones."""
    calls, original = [], Conditional._pool

    def pool(self, values, base, least, enough=None):
        calls.append((len(values), len(base.choice), least, enough))
        if are_made:
            return (yield from original(self, values, base, least, enough))
        own = Pool.empty(len(values), 2, len(self.joint.origin), self._kernels(values))
        own.log_masses[:] = own.log_target[:] = own.position[:] = own.log_ratio[:] = 0.0
        own.position[:, 1] = 1.0
        return own

    monkeypatch.setattr(Conditional, "_pool", pool)
    return calls


def test_sizes_of_pools_grow_with_the_draws_of_a_condition(monkeypatch):
    calls = watched_pools(monkeypatch, are_made=False)
    counts = [1, 16, 40, 100, 1100]
    given = np.repeat(np.linspace(0.5, 2.5, 5), counts)[:, None]
    own = Conditional(normal_joint(), np.array([1]), 64.0)
    with pytest.warns(UserWarning, match="draws for 5 of 5 conditions"):
        own.draw(given, np.random.RandomState(0))
    assert calls == [
        (2, 4096, 64, 24.0),
        (1, 4096, 256, 24.0),
        (1, 4096, 512, 24.0),
        (1, 4096, 4096, 24.0),
    ]
    calls.clear()
    with pytest.warns(UserWarning, match="draws for 5 of 5 conditions"):
        own.draw(given, np.random.RandomState(0), for_means=True)
    assert calls == [(3, 4096, 64, 40.0), (1, 4096, 128, 100.0), (1, 8192, 2048, 1100.0)]
    calls.clear()
    # With one free column 64 nodes for any number of draws.
    one = Conditional(normal_joint(2), np.array([1]), 64.0)
    one.draw(given, np.random.RandomState(0))
    assert calls == [(5, 512, 64, 24.0)]


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("for_means", [False, True])
def test_draws_do_not_depend_on_how_conditions_are_cut(d, for_means, monkeypatch):
    calls = watched_pools(monkeypatch)
    given = np.repeat([0.7, 1.5, 2.0], [3, 40, 2])[:, None]
    roomy, few = (
        Conditional(normal_joint(d), np.array([1]), limit).draw(
            given, np.random.RandomState(3), for_means=for_means
        )
        for limit in (64.0, 1e-3)
    )
    assert (roomy == few).all()
    assert (roomy[:, [1]] == given).all()
    assert max(n for n, *_ in calls[:1]) > 1
    assert calls[-1][0] == 1
    assert np.isfinite(roomy).all()


def test_draws_for_means_are_stratified(monkeypatch):
    uniform = []

    def resampled(self, pool, rows, own, accept, noise):
        uniform.append(own)
        assert (accept.shape, noise.shape) == ((0, len(rows)), (0, len(rows), 2))
        return pool.coordinates[rows, 0]

    monkeypatch.setattr(Conditional, "_resampled", resampled)
    which = np.array([0, 1, 1, 0, 0, 1, 1])
    given = np.array([0.7, 1.5])[which][:, None]
    own = Conditional(normal_joint(), np.array([1]), 64.0)
    own.draw(given, np.random.RandomState(0), for_means=True)
    for k, count in ((0, 3), (1, 4)):
        # Each interval has one, in the order of the draws.
        assert (np.floor(uniform[0][which == k] * count) == np.arange(count)).all()
        assert len(np.unique(uniform[0][which == k] * count % 1)) == count

    def independent(self, pool, rows, own, accept, noise):
        assert (accept.shape, noise.shape) == ((5, len(rows)), (5, len(rows), 2))
        uniform.append(own)
        return pool.coordinates[rows, 0]

    monkeypatch.setattr(Conditional, "_resampled", independent)
    own.draw(given, np.random.RandomState(0))
    assert (np.floor(uniform[1][which == 1] * 4) != np.arange(4)).any()


@pytest.mark.parametrize(
    ("d", "tolerance", "sizes"),
    [
        (2, None, [76] + 9 * [48] + [16]),
        (2, -1.0, [44] + 15 * [32]),
        (3, None, [64, 64, 128, 256, 512, 1024, 2048]),
        (3, -1.0, [64, 64, 128, 256, 512, 1024, 2048]),
    ],
)
def test_rounds_until_the_most_draws(d, tolerance, sizes, monkeypatch):
    monkeypatch.setattr(conditional, "_TOLERANCES", (-1.0, -1.0, -1.0))
    joint, found = normal_joint(d), []
    counted = replace(joint, log_density=lambda y: found.append(len(y)) or joint.log_density(y))
    own = Conditional(counted, np.array([1]), 64.0, tolerance)
    ((log_density, error),) = together(counted, [own.log_marginal(np.array([[1.3]]))])
    assert found == sizes
    at, scale = joint.origin[1], joint.axes[1, 1]
    assert log_density[0] == pytest.approx(norm.logpdf(1.3, at, scale), abs=5 * max(error[0], 1e-4))


def test_rounds_end_where_enough_draws_are_effective(monkeypatch):
    joint, found = normal_joint(), []
    counted = replace(joint, log_density=lambda y: found.append(len(y)) or joint.log_density(y))
    own, value = Conditional(counted, np.array([1]), 64.0), np.array([[1.4]])
    base = own._base(4096, 0)
    for least, enough, first in (
        (64, 24.0, 64),
        (64, 25.0, 64),
        (2048, 500.0, 1024),
        (512, 24.0, 64),
    ):
        found.clear()
        (pool,) = together(counted, [own._pool(value, base, least, enough)])
        n = sum(found)
        assert found[0] == first
        assert found[1:] == [first * 2**k for k in range(len(found) - 1)]
        assert n >= least
        assert pool.effective[0] >= enough
        assert np.isfinite(pool.log_masses).sum() == n
    # Without `enough` the error decides.
    found.clear()
    (pool,) = together(counted, [own._pool(value, base, 0)])
    assert pool.error[0] <= 0.008
    few = sum(found) // 2
    (before,) = together(counted, [own._pool(value, own._base(few, 0), 0)])
    assert before.error[0] > 0.008


def test_tolerances_follow_the_number_of_free_columns(monkeypatch):
    monkeypatch.setattr(conditional, "_TOLERANCES", (0.1, 0.2, 0.3))
    update = Pool.update

    def fixed(pool, active, stop, weights):
        shares = update(pool, active, stop, weights)
        pool.error[active] = error
        return shares

    monkeypatch.setattr(Pool, "update", fixed)
    for d, tolerance in ((2, 0.1), (3, 0.2), (4, 0.3), (6, 0.3)):
        joint, found = normal_joint(d), []
        counted = replace(
            joint, log_density=lambda y, j=joint, f=found: f.append(len(y)) or j.log_density(y)
        )
        own = Conditional(counted, np.array([1]), 64.0)
        for error, is_done in ((tolerance, True), (1.001 * tolerance, False)):  # noqa: B007
            found.clear()
            together(counted, [own._pool(np.array([[1.4]]), own._base(128, 0), 0)])
            assert (len(found) == 1) == is_done


def test_weights_of_proposals_are_adapted_and_bounded(monkeypatch):
    """After each round the shares of the kernels, but at least a twentieth each."""
    weights, shares = [], []
    propose, update = conditional.propose, Pool.update

    def proposed(kernels, own, base, part):
        weights.append(own.copy())
        return propose(kernels, own, base, part)

    def updated(pool, active, stop, own):
        # Those of the mixture of all rounds, by their numbers of draws.
        sizes = np.array([64, 64, 128, 256])[: len(weights)]
        expected = np.average(np.stack(weights), axis=0, weights=sizes)
        assert_allclose(own, expected, rtol=1e-12)
        shares.append(update(pool, active, stop, own))
        return shares[-1]

    monkeypatch.setattr(conditional, "propose", proposed)
    monkeypatch.setattr(Pool, "update", updated)
    joint = normal_joint()
    own = Conditional(joint, np.array([1]), 64.0)
    together(joint, [own._pool(np.array([[1.4], [5.0]]), own._base(512, 0), 512)])
    assert_allclose(weights[0], [[0.3, 0.6, 0.1]] * 2)
    for before, after in zip(shares, weights[1:], strict=False):
        assert_allclose(after, 0.05 + 0.85 * before, rtol=1e-12)
        assert_allclose(after.sum(axis=1), 1.0)


def test_errors_that_are_tolerated_give_no_warning(monkeypatch):
    limits, joint = [], normal_joint()
    monkeypatch.setattr(
        conditional, "_warn_of_errors", lambda error, largest: limits.append(largest)
    )
    for tolerance in (None, 0.1, 3.0):
        own = Conditional(joint, np.array([1]), 64.0, tolerance)
        together(joint, [own.log_marginal(np.array([[2.0]]))])
    assert limits == [0.25, 0.25, 3.0]


def test_means_are_drawn_in_parts(monkeypatch):
    calls = []

    def draw(self, values, rng, *, for_means):
        calls.append((len(values), for_means))
        return np.repeat(values, 3, axis=1)

    monkeypatch.setattr(Conditional, "draw", draw)
    joint, values = normal_joint(), np.full((100, 1), 1.5)
    a_row = 4 * (12 * 5 + 32 * 3 + 128)
    for for_means, expected in ((True, [40, 40, 20]), (False, [100])):
        calls.clear()
        found = draw_given_columns(
            joint,
            np.array([1]),
            values,
            np.random.RandomState(0),
            40.5 * a_row / 2**20,
            for_means=for_means,
        )
        assert calls == [(n, for_means) for n in expected]
        assert found.shape == (100, 3)


# ------------------------------------------------------------------------------------- posteriors


def draws_of(log_weights, d=3):
    n = len(log_weights)
    z = np.random.default_rng(0).normal(size=(n, d))
    return _Draws(z, np.zeros(n), log_weights)


def posterior_of(log_likelihood, joint=None, likelihood=None):
    joint = normal_joint() if joint is None else joint
    return _Posterior(joint, 64.0, likelihood, log_likelihood)


def flat(X):
    return np.zeros(len(X))


@pytest.mark.parametrize(
    ("n", "size"), [(1, 512), (128, 512), (129, 1024), (1100, 4096), (5000, 8192)]
)
def test_numbers_of_proposed_draws(n, size, monkeypatch):
    calls = []

    def weighted(self, seed, least, most):
        calls.append((least, most))
        return draws_of(np.zeros(64))

    monkeypatch.setattr(_Posterior, "_weighted", weighted)
    drawn = posterior_of(flat).draw(n, np.random.RandomState(0))
    assert calls == [(size, size)]
    assert drawn.shape == (n, 3)


def test_more_draws_until_the_error_is_small(monkeypatch):
    """Each round doubles them; the error is that of the joined draws."""
    law = posterior_of(lambda X: -0.5 * (X[:, 0] - 1.2) ** 2)
    for least, most in ((512, 512), (600, 2048), (512, 4096)):
        draws = law._weighted(7, least, most)
        n = len(draws.z)
        assert min(least, most) <= n <= most
        assert n == most or draws.log_evidence[1] <= 0.01
        assert n in (512, 1024, 2048, 4096)
    monkeypatch.setattr(posterior, "_TOLERANCE", 10.0)
    assert len(law._weighted(7, 512, 4096).z) == 512
    assert len(law._weighted(7, 513, 4096).z) == 1024
    monkeypatch.setattr(posterior, "_TOLERANCE", 0.0)
    many = law._weighted(7, 512, 2048).z
    assert len(many) == 2048
    # The first draws do not depend on how many follow.
    assert (law._weighted(7, 512, 512).z == many[:512]).all()


def test_likelihoods_that_are_zero_everywhere_are_refused():
    law = posterior_of(lambda X: np.full(len(X), -np.inf))
    with pytest.raises(ValueError, match="density zero at all of 512 proposed rows"):
        law._weighted(0, 512, 512)


def narrow(X):
    return -0.5 * np.sum(((X - [1.0, 1.5, 1.9]) / 0.02) ** 2, axis=1)


def test_kernels_are_moved_where_few_draws_are_effective(monkeypatch):
    law = posterior_of(narrow)
    draws = law._weighted(0, 512, 512)
    assert draws.effective > 100
    joint = normal_joint()
    # Row by row the product of two normal densities of standard deviations s and 0.02.
    stds = np.diag(joint.axes)
    total = np.hypot(stds, 0.02)
    exact = norm.logpdf([1.0, 1.5, 1.9], joint.origin, total).sum()
    exact += 3 * math.log(0.02 * math.sqrt(2 * math.pi))
    value, error = draws.log_evidence
    assert value == pytest.approx(exact, abs=4 * error)
    monkeypatch.setattr(posterior, "_LEAST_SHARE", 0.0)
    assert law._weighted(0, 512, 512).effective < 20


def test_annealed_draws_are_of_kernels_times_likelihood():
    """One kernel N(0, 1.1^2) at the origin, times a normal likelihood of the first coordinate."""
    joint = normal_joint(2, n=1)
    joint = replace(joint, centers=np.zeros((1, 2)))
    std = joint.axes[0, 0]

    def log_likelihood(X):
        return -0.5 * ((X[:, 0] - joint.origin[0] - 2 * std) / (0.1 * std)) ** 2

    law = posterior_of(log_likelihood, joint)
    z = law._annealed(0)
    assert 300 < len(z) <= 512
    precision = 1 / 1.1**2 + 100
    assert z[:, 0].mean() == pytest.approx(200 / precision, abs=0.03)
    assert z[:, 0].std() == pytest.approx(precision**-0.5, rel=0.25)
    assert z[:, 1].mean() == pytest.approx(0.0, abs=0.3)
    assert z[:, 1].std() == pytest.approx(1.1, rel=0.25)
    assert (z == np.unique(z, axis=0)).all()
    assert (law._annealed(0) == z).all()
    assert not np.array_equal(law._annealed(1), z)
    # Nowhere likely: the draws of the kernel itself.
    impossible = posterior_of(lambda X: np.full(len(X), -np.inf), joint)
    unmoved = impossible._annealed(0)
    assert len(unmoved) == 512
    assert unmoved.std(axis=0) == pytest.approx(1.1, rel=0.1)


def test_annealing_ends_at_the_whole_likelihood(monkeypatch):
    powers, next_power = [], posterior._next_power

    def recorded(log_likelihood, power):
        powers.append(next_power(log_likelihood, power))
        return powers[-1]

    monkeypatch.setattr(posterior, "_next_power", recorded)
    posterior_of(narrow)._annealed(0)
    assert powers == sorted(powers)
    assert powers[-1] == 1.0
    assert powers.count(1.0) == 1
    assert 5 < len(powers) < 25
    # At most 25 steps.
    powers.clear()
    posterior_of(lambda X: 1e60 * narrow(X))._annealed(0)
    assert len(powers) == 25


def test_kernels_at_draws_have_their_density_in_rows():
    law = posterior_of(flat)
    z = np.random.default_rng(5).normal(size=(30, 3)) * [0.1, 2.0, 0.5] + [1.0, 0, 0]
    proposal = law._kernels_at(z)
    kernels = JointDensity.of_draws(lambda z: z[:, 0], z)
    at = np.random.default_rng(6).normal(size=(4, 3)) * [0.1, 2.0, 0.5] + [1.0, 0, 0]
    expected = np.zeros(4)
    for k, factor, weight in posterior.WIDTHS:
        root = factor * kernels.scales[k][:, None] * kernels.axes
        for center in kernels.centers:
            law_of_kernel = multivariate_normal(
                kernels.origin + center @ kernels.axes, root.T @ root
            )
            expected += weight / 30 * law_of_kernel.pdf(at)
    # Per unit of rows, whose columns are the coordinates times the axes of the joint density.
    assert_allclose(proposal.log_density(at), np.log(expected) - law._joint.log_abs_det, rtol=1e-9)


def test_resampled_draws_are_moved_only_if_some_are_equal(monkeypatch):
    law = posterior_of(flat)
    moved = []
    monkeypatch.setattr(
        posterior,
        "_moved",
        lambda target, z, values, steps, rng: moved.append((values, steps)) or z + 1,
    )
    draws = draws_of(np.zeros(64))._replace(log_target=np.arange(64.0))
    one = law._resampled(draws, 1, np.random.RandomState(0))
    assert moved == []
    assert (one == draws.z).all(axis=1).any()
    many = law._resampled(draws, 200, np.random.RandomState(0))
    ((values, steps),) = moved
    index = values.astype(int)
    assert (many == draws.z[index] + 1).all()
    assert_allclose(steps, law._steps(draws.z, draws.weights))
    # Draws have the frequencies of their weights.
    heavy = draws_of(np.append(np.full(63, -math.inf), 0.0))._replace(log_target=np.arange(64.0))
    law._resampled(heavy, 5, np.random.RandomState(0))
    assert moved[1][0].tolist() == [63.0] * 5


def test_linear_observations_of_mapped_columns_are_functions():
    """The likelihood is part of the kernels in closed form unless it depends on mapped columns."""
    observation = LinearObservation([[1.0, 0.0, 0.0]], [1.2], 0.1)
    warp = SimpleNamespace(columns=np.array([1]), unmapped=lambda X: X)
    plain = normal_joint()
    for joint, is_closed in (
        (plain, True),
        (replace(plain, warp=warp), True),
        (replace(plain, warp=SimpleNamespace(columns=np.array([0]), unmapped=lambda X: X)), False),
    ):
        own = _Posterior(joint, 64.0, observation, observation)._proposal
        alone = posterior.PosteriorProposal.of(joint, observation if is_closed else None, 64.0)
        assert_allclose(own.log_weights, alone.log_weights)
        assert_allclose(own.roots, alone.roots)


class Fitted(PosteriorMixin):
    """A density with closed form: two independent standard normal columns."""

    n_features_in_ = 2

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def sample(self, n, random_state):
        return random_state.normal(size=(n, 2))

    def score_samples(self, X):
        return norm.logpdf(X).sum(axis=1)


def test_priors_of_any_density(monkeypatch):
    monkeypatch.setattr(posterior, "N_CENTERS", 50)
    joint, memory_limit = Fitted()._prior("likelihood")
    assert memory_limit == 1024.0
    assert len(joint.centers) == 50
    rows = np.random.RandomState(0).normal(size=(50, 2))
    assert_allclose(joint.origin, rows.mean(axis=0))
    assert Fitted(memory_limit=7.0)._prior("likelihood")[1] == 7.0
    assert_allclose(joint.log_density_of_rows(rows[:3]), norm.logpdf(rows[:3]).sum(axis=1))
    with pytest.raises(ValueError, match="likelihood needs a density of all columns"):
        Fitted(fills_space_=False)._prior("likelihood")
    periodic = SimpleNamespace(periods_=np.ones(2))
    for held in (
        {"periods_": np.ones(2)},
        {"estimators_": [SimpleNamespace(), periodic]},
        {"estimator_": periodic},
        {"estimator_": SimpleNamespace(estimators_=[periodic])},
    ):
        with pytest.raises(
            ValueError, match="log_evidence is not available for Fitted with periodic"
        ):
            Fitted(**held)._prior("log_evidence")
    for held in ({"periods_": None}, {"estimator_": None}, {"estimators_": [SimpleNamespace()]}):
        assert Fitted(**held)._prior("likelihood")[1] == 1024.0


def test_given_values_and_likelihoods_exclude_each_other(monkeypatch):
    monkeypatch.setattr(posterior, "N_CENTERS", 50)
    with pytest.raises(ValueError, match=r"given=\{0: 1\.0\} cannot be combined with likelihood"):
        Fitted()._draw_posterior(3, np.random.RandomState(0), flat, {0: 1.0})
    drawn = Fitted()._draw_posterior(
        2000, np.random.RandomState(0), lambda X: -0.5 * X[:, 0] ** 2, None
    )
    assert_allclose(drawn.std(axis=0), [math.sqrt(0.5), 1.0], rtol=0.1)
