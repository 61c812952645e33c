"""Tests of the quadrature nodes: properties that are exact to rounding, and approximations.

Node sets are deterministic, so correct code cannot fail by chance. Where a tolerance allows for
quadrature error, the error is stated in a comment.
"""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth._utils.validation import check_even
from skdiffsmooth.kernels import FrozenKernel, LinearShape
from skdiffsmooth.kernels._nodes import (
    NodeRule,
    default_n_nodes,
    gaussian_frames,
    gaussian_nodes,
)

# Sobol sequences want powers of two; users may want any even number, and need not hear of it.
pytestmark = pytest.mark.filterwarnings("error")

ROUNDING = 1e-12

dimensions = st.integers(1, 12)
levels = st.integers(0, 100)
seeds = st.integers(0, 2**31 - 1)


# ------------------------------------------------------------------------------ what is exact


@settings(deadline=None, max_examples=60)
@given(dimension=dimensions, pairs=st.integers(1, 40), level=levels, seed=seeds)
def test_nodes_come_in_mirrored_pairs(dimension, pairs, level, seed):
    """Odd moments are therefore exactly zero."""
    nodes = gaussian_nodes(dimension, 2 * pairs, level, seed)
    assert nodes.shape == (2 * pairs, dimension)
    np.testing.assert_array_equal(nodes[:pairs], -nodes[pairs:])
    assert np.all(np.isfinite(nodes))
    assert np.all(np.any(nodes != 0, axis=1))
    np.testing.assert_allclose(nodes.mean(axis=0), 0, atol=ROUNDING)


@settings(deadline=None, max_examples=60)
@given(dimension=dimensions, extra=st.integers(1, 30), level=levels, seed=seeds)
def test_covariance_is_the_identity(dimension, extra, level, seed):
    nodes = gaussian_nodes(dimension, 2 * (dimension + extra), level, seed)
    np.testing.assert_allclose(nodes.T @ nodes / len(nodes), np.eye(dimension), atol=ROUNDING)


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 8, 16, 32])
def test_covariance_is_the_identity_with_the_fewest_nodes(dimension):
    """At M = 2 k the raw points are as ill-conditioned as a random square matrix.

    Covariances that are squared and inverted lose what their condition number says; a whitening by
    singular vectors does not. Over 36 sets some matrix has a condition of thousands.
    """
    for level, seed in itertools.product(range(12), (0, 1, 7)):
        nodes = gaussian_nodes(dimension, 2 * dimension, level, seed)
        np.testing.assert_allclose(nodes.T @ nodes / len(nodes), np.eye(dimension), atol=ROUNDING)


@settings(deadline=None, max_examples=40)
@given(dimension=st.integers(1, 5), level=levels, seed=st.integers(0, 2**20))
def test_polynomials_of_degree_three(dimension, level, seed):
    """E p(z) for every monomial up to degree 3 is 0, or 1 for 1 and for squares."""
    nodes = gaussian_nodes(dimension, 32, level, seed)
    for degree in range(4):
        for powers in itertools.combinations_with_replacement(range(dimension), degree):
            monomial = np.prod(nodes[:, list(powers)], axis=1)
            is_square = degree == 0 or (degree == 2 and powers[0] == powers[1])
            assert monomial.mean() == pytest.approx(float(is_square), abs=ROUNDING)


def test_too_few_nodes_are_not_whitened():
    """Below M = 2 k no set has unit covariance, but points must still be normal."""
    nodes = np.concatenate([gaussian_nodes(40, 16, level, 0) for level in range(64)])
    # Variances of 512 independent pairs would scatter by 6 %; a net does better.
    np.testing.assert_allclose(np.mean(nodes**2, axis=0), 1, atol=0.06)


@settings(deadline=None, max_examples=30)
@given(dimension=dimensions, level=levels, seed=seeds)
def test_same_seed_and_level_same_nodes(dimension, level, seed):
    first = gaussian_nodes(dimension, 16, level, seed)
    np.testing.assert_array_equal(gaussian_nodes(dimension, 16, level, seed), first)
    # No node is shared with another level or seed.
    for other in (
        gaussian_nodes(dimension, 16, level + 1, seed),
        gaussian_nodes(dimension, 16, level, seed + 1),
    ):
        distances = np.linalg.norm(first[:, None] - other, axis=2)
        assert distances.min() > 0


def test_no_dimension():
    assert gaussian_nodes(0, 8, 3, 0).shape == (8, 0)


# --------------------------------------------------------------------------- what is approximate


@pytest.mark.parametrize(
    ("dimension", "n_nodes", "tolerance"), [(1, 64, 0.01), (3, 64, 0.02), (10, 256, 0.02)]
)
def test_marginals_are_normal(dimension, n_nodes, tolerance):
    """64 sets together: Kolmogorov's distance to the normal distribution.

    Whitening each set moves it to 0.005, 0.014 and 0.013; without it it would be 0.001.
    The standardised uniform, Laplace and logistic distributions are at 0.057, 0.062 and 0.023.
    """
    nodes = np.concatenate([gaussian_nodes(dimension, n_nodes, level, 0) for level in range(64)])
    for column in nodes.T:
        assert stats.kstest(column, "norm").statistic < tolerance
    logistic = stats.logistic.ppf((np.arange(4096) + 0.5) / 4096) * math.sqrt(3) / math.pi
    assert stats.kstest(logistic, "norm").statistic > 0.02


def combined_errors(nodes_of, integrand, truth, n_levels=32, n_seeds=20):
    """Root mean square errors over seeds of single levels and of the mean over levels."""
    errors = np.array(
        [
            [integrand(nodes_of(level, seed)).mean() - truth for level in range(n_levels)]
            for seed in range(n_seeds)
        ]
    )
    return np.sqrt(np.mean(errors**2)), np.sqrt(np.mean(errors.mean(axis=1) ** 2))


@pytest.mark.parametrize("dimension", [1, 2])
def test_errors_of_levels_average_out(dimension):
    """Blocks of one sequence: 32 sets together err by less than 1/10 of what one set errs by.

    32 independent sets would err by 1 / sqrt(32) = 1 / 5.7 of it and one set repeated by all of it;
    the same function must tell. (Measured: 1/24 and 1/12, the rest is the bias of the whitening.)
    """

    def integrand(z):
        return np.cos(2 * z[:, 0])

    def ratio(nodes_of):
        one, together = combined_errors(nodes_of, integrand, math.exp(-2))
        return together / one

    assert ratio(lambda level, seed: gaussian_nodes(dimension, 64, level, seed)) < 1 / 10
    assert ratio(lambda level, seed: gaussian_nodes(dimension, 64, 0, 1000 * seed + level)) > 1 / 10
    assert ratio(lambda level, seed: gaussian_nodes(dimension, 64, 0, seed)) > 1 / 10


@pytest.mark.parametrize(("dimension", "tolerance"), [(1, 0.06), (2, 0.06), (5, 0.08)])
def test_fourth_moment_over_levels(dimension, tolerance):
    """E |z|^4 = k (k + 2). One set of 64 errs by 16 %, 10 % and 7 %, 32 together by 3, 4 and 5 %:
    the bias of making each set's second moment exact.
    """
    truth = dimension * (dimension + 2)
    _, together = combined_errors(
        lambda level, seed: gaussian_nodes(dimension, 64, level, seed),
        lambda z: np.sum(z**2, axis=1) ** 2,
        truth,
        n_seeds=5,
    )
    assert together < tolerance * truth


def test_default_number_of_nodes():
    for dimension in range(200):
        n = default_n_nodes(dimension)
        assert n == 2 ** round(math.log2(n))
        assert n >= 64
        assert n >= 4 * dimension
        assert n == 64 or n // 2 < 4 * dimension


# ---------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("dimension", range(2, 31))
def test_moments_of_frames(dimension):
    """To rounding: what Stein's identity needs for every quadratic, and odd moments by mirroring."""
    for n_nodes, level in ((2, 0), (64, 3), (256, 1)):
        nodes, weights = gaussian_frames(dimension, n_nodes, level, 5)
        assert len(nodes) >= n_nodes
        assert len(nodes) % (2 * dimension) == 0
        assert np.all(weights > 0)
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_array_equal(nodes[len(nodes) // 2 :], -nodes[: len(nodes) // 2])
        squares = np.sum(nodes**2, axis=1)
        second = (nodes.T * weights) @ nodes
        fourth = (nodes.T * weights * squares) @ nodes
        np.testing.assert_allclose(second, np.eye(dimension), atol=1e-10)
        np.testing.assert_allclose(fourth, (dimension + 2) * np.eye(dimension), atol=1e-10)
        # Radii are a Gauss rule: the sixth moment of the length is exact, too.
        sixth = dimension * (dimension + 2) * (dimension + 4)
        assert weights @ squares**3 == pytest.approx(sixth, rel=1e-10)


def test_frames_differ_between_levels_and_converge():
    """Fourth moments of a coordinate are 3 on average over rotations.

    Over 400 levels the standard error is 0.03 at most; a rotation that is the same in all levels, or an
    orthogonal matrix with signs that QR prefers, gives another value.
    """
    for dimension in (2, 3, 8):
        fourths = []
        for level in range(400):
            nodes, weights = gaussian_frames(dimension, 2, level, 0)
            fourths.append(weights @ nodes**4)
        np.testing.assert_allclose(np.mean(fourths, axis=0), 3, atol=0.2)
        assert np.std(fourths) > 0.1
    first, again = gaussian_frames(3, 64, 2, 1), gaussian_frames(3, 64, 2, 1)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.allclose(gaussian_frames(3, 64, 2, 2)[0], first[0])
    # More nodes have more radii, so that functions of the length alone converge.
    n_radii = [len({*gaussian_frames(3, n, 0, 0)[1].round(12)}) for n in (64, 256, 1024)]
    assert n_radii == sorted(set(n_radii))


# ------------------------------------------------------------------------------ Gaussian kernels


def frozen(sigma, factor, n_nodes, seed, n_levels=64):
    """A Gaussian kernel sigma F z of one scale for all levels."""
    rule = NodeRule("sobol", n_nodes, seed)
    return FrozenKernel(LinearShape(factor), np.full(n_levels, sigma), rule)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    log_sigma=st.floats(-6, 6),
    seed=st.integers(0, 2**20),
)
def test_kernel_covariance(shape, log_sigma, seed):
    sigma, factor = 10**log_sigma, np.random.RandomState(seed).standard_normal(shape)
    kernel = frozen(sigma, factor, 16, seed)
    offsets, weights = kernel.nodes(3)
    assert offsets.shape == (16, shape[0])
    np.testing.assert_allclose(weights, 1 / 16, rtol=1e-15)
    assert weights.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose((weights @ offsets) / sigma, 0, atol=ROUNDING)
    covariance = (offsets.T * weights) @ offsets
    np.testing.assert_allclose(covariance / sigma**2, factor @ factor.T, atol=10 * ROUNDING)


def test_kernel_nodes_follow_level_and_seed():
    for rank, nodes in ((2, gaussian_nodes), (3, lambda *args: gaussian_frames(*args)[0])):
        kernel = frozen(0.5, np.eye(rank), 16, 5)
        for level in (0, 7):
            offsets, _ = kernel.nodes(level)
            np.testing.assert_array_equal(offsets, kernel.nodes(level)[0])
            np.testing.assert_allclose(offsets, 0.5 * nodes(rank, 16, level, 5), rtol=1e-15)
    stretched = frozen(0.5, np.diag([1.0, 2.0]), 16, 5)
    expected = gaussian_nodes(2, 16, 7, 5) * [0.5, 1.0]
    np.testing.assert_allclose(stretched.nodes(7)[0], expected, rtol=1e-15)


@pytest.mark.parametrize(
    "kernel",
    [
        frozen(0.0, np.eye(3), 16, 0),
        frozen(0.7, np.zeros((3, 0)), 16, 0),  # no direction to smooth along
    ],
)
def test_no_smoothing_is_one_zero_node(kernel):
    for level in (0, 9):
        offsets, weights = kernel.nodes(level)
        np.testing.assert_array_equal(offsets, np.zeros((1, 3)))
        np.testing.assert_array_equal(weights, [1.0])


# Smoothing with scales 0.3 and then 0.4 is smoothing with 0.5.
FIRST, SECOND, BOTH = 0.3, 0.4, 0.5


def nodes_of_nodes(first, second):
    """All sums of a node of one set and a node of the other, with products of weights."""
    (x, p), (y, q) = first, second
    return (x[:, None] + y).reshape(-1, x.shape[1]), np.outer(p, q).ravel()


def kernel_nodes(sigma, n_nodes, level):
    return sigma * gaussian_nodes(2, n_nodes, level, 0), np.full(n_nodes, 1 / n_nodes)


def test_variances_add_exactly_on_quadratics():
    rng = np.random.RandomState(0)
    matrix, slope = rng.standard_normal((2, 2)), rng.standard_normal(2)
    x = rng.standard_normal((10, 2))

    def smoothed(offsets, weights):
        y = x[:, None] + offsets
        return (np.einsum("bmi,ij,bmj->bm", y, matrix, y) + y @ slope) @ weights

    twice = smoothed(*nodes_of_nodes(kernel_nodes(FIRST, 8, 0), kernel_nodes(SECOND, 16, 1)))
    np.testing.assert_allclose(twice, smoothed(*kernel_nodes(BOTH, 32, 2)), rtol=1e-12, atol=1e-12)


def test_variances_add_on_log_densities():
    """Twenty points in the plane, noise scale 0.3: log-density, mean and spread of 64 x 64 sums of
    nodes against one set of 4096. What differs is quadrature error: 0.034 nats at most, of a
    log-density that the first smoothing changes by up to 0.55 and the second by more; a tenth of that
    in means and spreads.
    """
    rng = np.random.RandomState(0)
    points = torch.tensor(rng.standard_normal((20, 2)))
    queries = torch.tensor(rng.standard_normal((10, 2)))
    log_weights = torch.full((20,), -math.log(20), dtype=torch.float64)
    posterior = Posterior(points, log_weights, memory_limit=64.0)

    def smoothed(sigma_nodes):
        nodes = Nodes(*(torch.tensor(array) for array in sigma_nodes), max_norm=1.0)
        moments = posterior.moments(queries, 0.09, nodes, trace=True)
        return moments.log_density, torch.column_stack([moments.mean, moments.trace])

    twice = smoothed(nodes_of_nodes(kernel_nodes(FIRST, 64, 0), kernel_nodes(SECOND, 64, 1)))
    once = smoothed(kernel_nodes(BOTH, 4096, 2))
    torch.testing.assert_close(twice[0], once[0], rtol=0, atol=0.05)
    torch.testing.assert_close(twice[1], once[1], rtol=0, atol=0.01)
    # Without the first smoothing either comparison fails.
    wrong = smoothed(kernel_nodes(SECOND, 4096, 2))
    assert (twice[0] - wrong[0]).abs().max() > 0.3
    assert (twice[1] - wrong[1]).abs().max() > 0.06


def test_smoothing_a_quadratic_log_density_by_hand():
    """One point: E log N(x + sigma z; 0, v I) = log N(x; 0, v I) - k sigma^2 / 2v, exactly."""
    offsets, weights = frozen(0.8, np.eye(3), 16, 0).nodes(4)
    x, v = np.array([[0.3, -1.0, 2.0]]), 0.4
    (seen,) = oracles.moments(np.zeros((1, 3)), [0.0], x, v, offsets, weights)
    expected = stats.multivariate_normal(cov=v).logpdf
    by_hand = expected(x[0, :1]) + expected(x[0, 1:2]) + expected(x[0, 2:]) - 3 * 0.64 / (2 * v)
    assert float(seen.log_density) == pytest.approx(by_hand, abs=ROUNDING)


def test_every_even_number_is_taken():
    assert [check_even("n_nodes", n, "of their signs") for n in (2, 4, 6)] == [2, 4, 6]
    for n in (1, 3, 0):
        with pytest.raises(ValueError, match=f"n_nodes={n} is"):
            check_even("n_nodes", n, "of their signs")
