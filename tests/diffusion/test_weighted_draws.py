"""Rules and draws of pools of weighted draws, against sums by hand and exact integrals."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid

from skdiffsmooth._coordinates.frame import Frame
from skdiffsmooth._diffusion.conditional_proposal import KernelMixture
from skdiffsmooth._diffusion.weighted_draws import (
    TAIL_NODES,
    BaseDraws,
    Pool,
    _cell_errors,
    _quadrature,
    interpolated,
    propose,
    tail_nodes,
)

RNG = np.random.default_rng(0)


def kernels(d=2, n_given=1, degrees=None, n_rows=3, scale=2.0):
    """Conditional kernels of four centers, given the first columns of each of some rows."""
    axes = np.linalg.qr(np.random.default_rng(d).normal(size=(d, d)))[0]
    scale = np.full(d, scale)
    frame = Frame.of(np.zeros(d), scale[:, None] * axes, d * np.log(scale[0]), np.arange(n_given))
    centers = RNG.normal(size=(4, d))
    mixture = KernelMixture(frame, scale, centers, np.log([0.1, 0.2, 0.3, 0.4]), degrees)
    return mixture.given(RNG.normal(size=(n_rows, n_given)))


def test_trapezoidal_weights_integrate_linear_functions():
    t = np.sort(RNG.uniform(size=(3, 9)), axis=1)
    weights = _quadrature(t)
    assert weights.shape == t.shape
    assert_allclose(weights.sum(axis=1), 1.0)
    # The first and last nodes stand for what is beyond them.
    whole = np.pad(t, ((0, 0), (1, 1)), constant_values=(0.0, 1.0))
    values = np.pad(3 * t - 1, ((0, 0), (1, 1)), mode="edge")
    assert_allclose((weights * (3 * t - 1)).sum(axis=1), trapezoid(values, whole, axis=1))
    unused = np.column_stack([t, np.full((3, 2), np.inf)])
    assert_allclose(_quadrature(unused)[:, :9], weights)
    assert (_quadrature(unused)[:, 9:] == 0).all()


def slow_cell_errors(t, free, ratio):
    errors = np.zeros(len(t) - 1)
    bent = np.zeros(len(t))
    for j in range(1, len(t) - 1):
        linear = np.interp(t[j], [t[j - 1], t[j + 1]], [ratio[j - 1], ratio[j + 1]])
        bent[j] = abs(ratio[j] - linear) * (t[j + 1] - t[j - 1]) / 2
    for j in range(len(t) - 1):
        length = t[j + 1] - t[j]
        mass = length * (ratio[j] + ratio[j + 1]) / 2
        errors[j] = max(bent[j], bent[j + 1]) / 4
        errors[j] += length * abs(ratio[j + 1] - ratio[j]) / 8
        errors[j] += mass * min((free[j + 1] - free[j]) ** 2 / 24, 0.5)
    return errors


def test_errors_of_cells():
    t = np.sort(RNG.uniform(size=(3, 7)), axis=1)
    free, ratio = np.cumsum(RNG.exponential(3.0, (3, 7)), axis=1), RNG.exponential(size=(3, 7))
    expected = [slow_cell_errors(*each) for each in zip(t, free, ratio, strict=True)]
    assert_allclose(_cell_errors(t, free, ratio), expected)
    # A constant ratio at close nodes is integrated exactly.
    assert_allclose(_cell_errors(t, 0 * free, np.ones((3, 7))), 0.0, atol=1e-15)
    # Nodes may coincide.
    assert np.isfinite(_cell_errors(np.zeros((1, 4)), free[:1, :4], ratio[:1, :4])).all()


def test_nodes_beyond_the_draws_are_at_powers_of_four():
    each = kernels(n_rows=2)
    drawn = each.at(np.repeat(each.given, 3, axis=0), RNG.normal(size=(6, 1))).reshape(2, 3, 2)
    free = each.free(drawn)[:, :, 0]
    nodes = tail_nodes(each, drawn)
    assert nodes.shape == (2, 12, 2)
    assert_allclose(TAIL_NODES, [1, 4, 16, 64, 256, 1024])
    for row, of_row in zip(free, each.free(nodes)[:, :, 0], strict=True):
        width = row.max() - row.min()
        assert_allclose(np.sort(of_row)[:6], row.min() - width * TAIL_NODES[::-1])
        assert_allclose(np.sort(of_row)[6:], row.max() + width * TAIL_NODES)
    # They keep the given values of their row.
    expected = np.repeat(each.given[:, None], 12, axis=1)
    assert_allclose(nodes / each.scale @ each.frame.given_axes, expected, atol=1e-9)


def test_base_draws_are_even_and_do_not_depend_on_their_number():
    base, more = (BaseDraws(n, 3, 2.0, 5) for n in (64, 256))
    for name in ("choice", "noise", "stretch"):
        assert_allclose(getattr(more, name)[:64], getattr(base, name))
    assert base.noise.shape == (64, 3)
    assert base.choice.shape == base.stretch.shape == (64,)
    # One number of each scrambling in each of as many equal intervals as it has numbers.
    by_scrambling = np.sort(base.choice.reshape(4, 16), axis=0)
    assert (np.floor(4 * by_scrambling) == np.arange(4)[:, None]).all()
    assert not np.allclose(BaseDraws(64, 3, 2.0, 6).choice, base.choice)
    assert abs(more.noise.mean()) < 0.05
    assert abs(more.noise.std() - 1) < 0.05
    # 2 / stretch^2 has a chi-squared distribution of two degrees of freedom: mean and variance 2, 4.
    squares = 2 / more.stretch**2
    assert squares.mean() == pytest.approx(2.0, abs=0.1)
    assert squares.var() == pytest.approx(4.0, abs=0.8)


def test_proposals_take_each_kernel_by_its_weight():
    both = [kernels(3, 1), kernels(3, 1, degrees=1.0)]
    base = BaseDraws(128, 2, 2.0, 0)
    weights = np.array([[1.0, 1e-12], [0.25, 0.75], [1e-12, 1.0]])
    drawn = propose(both, weights, base, slice(0, 128))
    assert drawn.shape == (3, 128, 3)
    for k, rows in ((0, [0, 1]), (1, [2, 1])):
        for row in rows:
            low = (0.0, 0.25)[k] if row == 1 else 0.0
            high = (0.25, 1.0)[k] if row == 1 else 1.0
            own = np.flatnonzero((base.choice >= low) & (base.choice < high))
            uniform = (base.choice[own] - low) / (high - low)
            which = np.full(len(own), row)
            expected = both[k].draw(which, uniform, base.noise[own], base.stretch[own])
            assert_allclose(drawn[row, own], expected, rtol=1e-9)
    half = propose(both, weights, base, slice(64, 128))
    assert_allclose(half, drawn[:, 64:])


def joint(kernel, y):
    """A log-density of all columns: that of the kernels times 3, given each row's values."""
    return kernel.log_density(y) + math.log(3.0)


@pytest.mark.parametrize("n_free", [1, 2])
def test_the_marginal_of_a_density_that_is_proposed_exactly(n_free):
    each = kernels(1 + n_free, 1, n_rows=2)
    base = BaseDraws(64, n_free, 2.0, 0)
    pool = Pool.empty(2, 64, 1 + n_free, [each])
    assert np.isneginf(pool.log_marginal).all()
    assert np.isinf(pool.error).all()
    weights = np.ones((2, 1))
    drawn = propose([each], weights, base, slice(0, 64))
    active = np.arange(2)
    pool.add(active, 64, drawn, joint(each, drawn), [each])
    share = pool.update(active, 64, weights)
    assert_allclose(share, 1.0)
    assert_allclose(pool.log_marginal, math.log(3.0))
    if n_free == 1:
        assert (np.diff(pool.position, axis=1) >= 0).all()
        assert_allclose(np.exp(pool.log_masses).sum(axis=1), 3.0)
        errors = pool.cell_errors
        # Equal ratios are linear: only the distance between nodes counts.
        distant = np.diff(pool.position, axis=1) * np.minimum(
            np.diff(each.free(pool.coordinates)[:, :, 0], axis=1) ** 2 / 24, 0.5
        )
        assert_allclose(errors, distant, atol=1e-12)
        assert_allclose(pool.error, errors.sum(axis=1))
        middle = pool.midpoints(active, 64, 3)
        for row in range(2):
            for k, cell in enumerate(np.argsort(-errors[row], kind="stable")[:3]):
                pair = pool.coordinates[row, cell : cell + 2]
                assert_allclose(middle[row, k], pair.mean(axis=0))
    else:
        assert_allclose(pool.error, 0.0, atol=1e-12)
        assert_allclose(pool.effective, 64.0)
        assert_allclose(pool.log_masses, math.log(3 / 64))


def test_errors_are_those_of_the_means_of_sixteen_groups():
    each = kernels(3, 1, n_rows=2)
    pool = Pool.empty(2, 64, 3, [each])
    base, active, weights = BaseDraws(64, 2, 2.0, 0), np.arange(2), np.ones((2, 1))
    drawn = propose([each], weights, base, slice(0, 64))
    log_ratio = np.random.default_rng(1).normal(size=(2, 64))
    target = each.log_density(drawn) + log_ratio
    first = np.zeros(2)
    for stop in (32, 64):
        part = slice(stop - 32, stop)
        pool.add(active, stop, drawn[:, part], target[:, part], [each])
        pool.update(active, stop, weights)
        ratio = np.exp(log_ratio[:, :stop])
        groups = np.stack([ratio[:, k::16].mean(axis=1) for k in range(16)], axis=1)
        error = groups.std(axis=1, ddof=1) / 4 / groups.mean(axis=1)
        # At least half of the error of half as many draws.
        first = error = np.maximum(error, first / 2)
        assert_allclose(pool.error, error)
        biased = np.log(ratio.mean(axis=1)) + np.minimum(error, 0.5) ** 2 / 2
        assert_allclose(pool.log_marginal, biased)
        weights_of_draws = ratio / ratio.sum(axis=1, keepdims=True)
        assert_allclose(pool.effective, 1 / (weights_of_draws**2).sum(axis=1))


def test_shares_of_kernels_and_rows_that_are_done():
    narrow, wide = kernels(3, 1, n_rows=3), kernels(3, 1, degrees=1.0, n_rows=3)
    pool = Pool.empty(3, 64, 3, [narrow, wide])
    base, weights = BaseDraws(64, 2, 2.0, 0), np.tile([0.3, 0.7], (2, 1))
    active = np.array([0, 2])
    rounds = [each.rows(active) for each in (narrow, wide)]
    drawn = propose(rounds, weights, base, slice(0, 64))
    # The target is the first kernel alone.
    pool.add(active, 64, drawn, rounds[0].log_density(drawn), rounds)
    share = pool.update(active, 64, weights)
    parts = np.stack(
        [np.log(w) + each.log_density(drawn) for w, each in zip((0.3, 0.7), rounds, strict=True)], 2
    )
    mixture = np.log(np.exp(parts).sum(axis=2))
    ratio = np.exp(rounds[0].log_density(drawn) - mixture)
    masses = ratio / ratio.sum(axis=1, keepdims=True)
    responsibilities = np.exp(parts - mixture[:, :, None])
    assert_allclose(share, np.einsum("nm,nmk->nk", masses, responsibilities))
    # The row that is not active is as it was.
    assert np.isneginf(pool.log_marginal[1])
    assert np.isneginf(pool.log_ratio[1]).all()
    assert pool.effective[1] == 0


def test_draws_between_nodes_invert_the_distribution_function_of_a_piecewise_linear_density():
    """Cells by their masses in the distribution function, then a linear density within each."""
    each = kernels(1, 0, n_rows=2, scale=1.0)
    pool = Pool.empty(2, 6, 1, [each])
    rng = np.random.default_rng(0)
    n_used = (5, 3)
    for row, n in enumerate(n_used):
        pool.position[row, :n] = np.sort(rng.uniform(size=n))
        pool.coordinates[row, :n, 0] = np.sort(rng.normal(size=n))
        pool.log_ratio[row, :n] = rng.normal(size=n) - 800
        pool.log_target[row, :n] = rng.normal(size=n) - 800
    rows = np.array([0, 1, 0, 1, 1, 0, 0, 1])
    uniform = rng.uniform(size=(8, 2))
    found = interpolated(pool, rows, uniform)
    for row, (first, second), y in zip(rows, uniform, found[:, 0], strict=True):
        n = n_used[row]
        ratio = np.exp(pool.log_ratio[row, :n] + 800)
        masses = np.diff(pool.position[row, :n]) * (ratio[1:] + ratio[:-1])
        cell = np.searchsorted(np.cumsum(masses) / masses.sum(), first)
        start, end = pool.coordinates[row, cell : cell + 2, 0]
        assert start <= y <= end
        left, right = np.exp(pool.log_target[row, cell : cell + 2] + 800)
        at_y = left + (right - left) * (y - start) / (end - start)
        below = (y - start) * (left + at_y) / ((end - start) * (left + right))
        assert below == pytest.approx(second)


def test_shares_at_boundaries_of_kernels_belong_to_the_next():
    both = [kernels(3, 1), kernels(3, 1)]
    base = BaseDraws(64, 2, 2.0, 0)
    base.choice = np.full(64, 0.25)
    weights = np.tile([0.25, 0.75], (3, 1))
    drawn = propose(both, weights, base, slice(0, 4))
    zero = np.zeros(4)
    for row in range(3):
        expected = both[1].draw(np.full(4, row), zero, base.noise[:4], base.stretch[:4])
        assert_allclose(drawn[row], expected)
