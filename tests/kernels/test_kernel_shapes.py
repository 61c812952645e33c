"""Kernels with the same offsets at every query: their sizes, nodes, and factors of Stein's identity."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from scipy.special import ndtri, roots_genlaguerre
from scipy.stats import qmc

from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.kernels._nodes import (
    NODE_RULES,
    NodeRule,
    default_n_nodes,
    gaussian_frames,
    gaussian_nodes,
)
from skdiffsmooth.kernels._shapes import (
    BallShape,
    FixedShape,
    FrozenKernel,
    LinearShape,
    SampledShape,
)

RULE = NodeRule("sobol", 16, 3)
BACKEND = Backend.from_params("cpu", "float64")

# ------------------------------------------------------------------------------------------ nodes


@pytest.mark.parametrize(
    ("dimension", "n"), [(0, 64), (16, 64), (17, 128), (32, 128), (33, 256), (100, 512)]
)
def test_default_numbers_of_nodes(dimension, n):
    assert default_n_nodes(dimension) == n


@pytest.mark.parametrize(("n_nodes", "block"), [(8, 4), (10, 8), (6, 4)])
@pytest.mark.parametrize("level", [0, 1, 3])
def test_each_level_has_a_block_of_one_sobol_sequence(n_nodes, block, level):
    sequence = qmc.Sobol(3, scramble=True, rng=np.random.default_rng(5)).random(8 * block)
    half = n_nodes // 2
    normal = ndtri(sequence[level * block :][:half] + 2.0**-31)
    if half >= 3:
        normal = np.sqrt(half) * linalg.polar(normal)[0]
    found = gaussian_nodes(3, n_nodes, level, 5)
    np.testing.assert_allclose(found, np.concatenate([normal, -normal]), rtol=1e-9, atol=1e-12)


def test_few_nodes_are_quantiles():
    """With fewer pairs than directions the covariance cannot be that of the distribution."""
    first = qmc.Sobol(3, scramble=True, rng=np.random.default_rng(5)).random(2)
    normal = ndtri(first + 2.0**-31)
    np.testing.assert_allclose(gaussian_nodes(3, 4, 0, 5), np.concatenate([normal, -normal]))
    # Three pairs are enough for three directions.
    nodes = gaussian_nodes(3, 6, 0, 5)
    np.testing.assert_allclose(nodes.T @ nodes / 6, np.eye(3), atol=1e-12)
    assert gaussian_nodes(0, 4, 0, 5).shape == (4, 0)


@pytest.mark.parametrize(("dimension", "n_radii"), [(3, 3), (11, 2)])
def test_frames_are_rotated_axes_at_radii_of_a_quadrature(dimension, n_radii):
    nodes, weights = gaussian_frames(dimension, 12, 2, 7)
    half, masses = roots_genlaguerre(n_radii, dimension / 2 - 1)
    n = len(nodes) // 2
    np.testing.assert_array_equal(nodes[:n], -nodes[n:])
    np.testing.assert_array_equal(weights[:n], weights[n:])
    frames = nodes[:n].reshape(-1, n_radii, dimension, dimension)
    of_radii = weights[:n].reshape(-1, n_radii, dimension)
    n_rotations = len(frames)
    expected = masses / masses.sum() / (2 * dimension * n_rotations)
    np.testing.assert_allclose(
        of_radii, np.broadcast_to(expected[:, None], of_radii.shape), rtol=1e-10
    )
    rng = np.random.default_rng([7, 2])
    for rotation in frames:
        # All radii have the same directions, and R of the decomposition is positive.
        directions = rotation / np.sqrt(2 * half)[:, None, None]
        np.testing.assert_allclose(directions, np.broadcast_to(directions[0], directions.shape))
        np.testing.assert_allclose(directions[0] @ directions[0].T, np.eye(dimension), atol=1e-12)
        upper = directions[0] @ rng.standard_normal((dimension, dimension))
        np.testing.assert_allclose(upper, np.triu(upper), atol=1e-10)
        assert (np.diagonal(upper) > 0).all()


@pytest.mark.parametrize(
    ("dimension", "n_nodes", "per_axis"), [(1, 5, 5), (2, 26, 5), (3, 124, 4), (3, 125, 5)]
)
def test_grids_are_products_of_gauss_hermite_rules(dimension, n_nodes, per_axis):
    nodes, weights = NODE_RULES["gauss-hermite"](dimension, n_nodes, 4, 5)
    x, w = np.polynomial.hermite_e.hermegauss(per_axis)
    axes = np.meshgrid(*[np.arange(per_axis)] * dimension, indexing="ij")
    index = np.stack([axis.ravel() for axis in axes], axis=1)
    np.testing.assert_allclose(nodes, x[index], atol=1e-12)
    expected = w[index].prod(axis=1)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-10)


def test_nodes_of_no_weight_are_dropped():
    nodes, weights = NODE_RULES["gauss-hermite"](1, 64, 0, 0)
    x, w = np.polynomial.hermite_e.hermegauss(64)
    kept = w > 2.0**-52 * w.max()
    assert 2 < kept.sum() < 64
    np.testing.assert_allclose(nodes[:, 0], x[kept], atol=1e-12)
    assert weights.sum() == pytest.approx(1.0, abs=1e-15)
    nodes, weights = NODE_RULES["gauss-hermite"](0, 64, 0, 0)
    assert nodes.shape == (1, 0)
    assert weights.tolist() == [1.0]
    with pytest.raises(ValueError, match="a grid for 1 to 3 directions, and the kernel acts al"):
        NODE_RULES["gauss-hermite"](4, 64, 0, 0)


def test_a_rule_calls_its_function():
    nodes, weights = RULE.normal(2, 1)
    np.testing.assert_array_equal(nodes, gaussian_nodes(2, 16, 1, 3))
    np.testing.assert_array_equal(weights, np.full(16, 1 / 16))
    np.testing.assert_array_equal(RULE.frames(3, 1)[0], gaussian_frames(3, 16, 1, 3)[0])
    grid = NodeRule("gauss-hermite", 16, 3).normal(2, 1)[0]
    assert len(np.unique(grid[:, 0].round(9))) == 4


# ----------------------------------------------------------------------------------------- shapes


def test_a_linear_shape_is_its_factor():
    factor = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, -1.0]])
    shape = LinearShape(factor)
    assert (shape.rank, shape.n_nodes) == (2, 64)
    assert shape.widest_std == pytest.approx(np.sqrt(np.linalg.eigvalsh(factor.T @ factor)[-1]))
    assert not shape.is_isotropic
    offsets, weights = shape.nodes(RULE, 1)
    np.testing.assert_allclose(offsets, gaussian_nodes(2, 16, 1, 3) @ factor.T)
    np.testing.assert_allclose(
        (weights[:, None] * offsets).T @ offsets, factor @ factor.T, atol=1e-12
    )
    assert LinearShape(np.zeros((3, 0))).widest_std == 0.0


@pytest.mark.parametrize(
    ("factor", "isotropic"),
    [
        (2 * np.eye(3), True),
        (2 * np.eye(3) + 1e-13, True),
        (2 * np.eye(3) + np.diag([0, 0, -3e-13]), False),
        (np.eye(3)[:, :2], False),
        (np.diag([1.0, 2.0]), False),
        (-np.eye(2), False),
        (np.zeros((0, 0)), True),
    ],
)
def test_isotropic_factors(factor, isotropic):
    assert LinearShape(factor).is_isotropic is isotropic


def test_frames_are_for_isotropic_factors_in_three_to_ten_dimensions():
    def std(r, rule=RULE, factor=None):
        return LinearShape(2.5 * np.eye(r) if factor is None else factor).frame_std(rule)

    assert [std(r) for r in (1, 2, 3, 10, 11)] == [None, None, 2.5, 2.5, None]
    assert std(11, NodeRule("sobol", 16, 3, 11)) == 2.5
    assert std(3, NodeRule("gauss-hermite", 16, 3)) is None
    assert std(3, factor=np.diag([1.0, 1.0, 2.0])) is None
    nodes, weights = LinearShape(2.5 * np.eye(3)).nodes(RULE, 1)
    expected = gaussian_frames(3, 16, 1, 3)
    np.testing.assert_allclose(nodes, 2.5 * expected[0])
    np.testing.assert_array_equal(weights, expected[1])
    assert BallShape(3, 3).frame_std(RULE) is None


@pytest.mark.parametrize(("r", "d"), [(1, 1), (2, 2), (2, 5)])
def test_a_ball_has_the_directions_of_normal_nodes_and_radii_of_the_same_quantiles(r, d):
    shape = BallShape(r, d)
    assert (shape.rank, shape.widest_std) == (r, 1.0)
    offsets, weights = shape.nodes(RULE, 1)
    normal = gaussian_nodes(r, 16, 1, 3)
    lengths, radii = np.linalg.norm(normal, axis=1), np.linalg.norm(offsets, axis=1)
    np.testing.assert_allclose(offsets / radii[:, None], normal / lengths[:, None])
    share = stats.beta(r / 2, (d - r) / 2 + 1).cdf(radii**2 / (d + 2))
    np.testing.assert_allclose(share, stats.chi(r).cdf(lengths), rtol=1e-9)
    np.testing.assert_array_equal(weights, np.full(16, 1 / 16))
    # A node in the centre stays there.
    rule = SimpleNamespace(normal=lambda dimension, level: (np.zeros((1, r)), np.ones(1)))
    np.testing.assert_array_equal(shape.nodes(rule, 0)[0], np.zeros((1, r)))


def test_fixed_offsets():
    offsets = np.array([[3.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    weights = np.array([0.25, 0.375, 0.375])
    shape = FixedShape(offsets, weights)
    assert shape.rank == 0
    covariance = (weights[:, None] * offsets).T @ offsets
    assert shape.widest_std == pytest.approx(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))
    assert FixedShape(np.empty((2, 0)), np.ones(2) / 2).widest_std == 0.0
    assert shape.nodes(RULE, 5)[0] is offsets
    assert shape.nodes(RULE, 5)[1] is weights


def test_draws_of_a_sampler_are_those_of_seed_and_level():
    def draw(rng, n, d):
        return rng.normal(size=(n, d)) * [1.0, 3.0] + 100.0

    basis = np.array([[0.6, -0.8], [0.8, 0.6]])
    shape = SampledShape(draw, basis)
    offsets, weights = shape.nodes(RULE, 2)
    drawn = draw(np.random.default_rng([3, 2]), 16, 2) @ basis
    np.testing.assert_allclose(offsets, drawn - drawn.mean(axis=0))
    np.testing.assert_array_equal(weights, np.full(16, 1 / 16))
    assert shape.rank == 2
    covariance = np.cov((draw(np.random.default_rng(0), 1024, 2) @ basis).T, bias=True)
    assert shape.widest_std == pytest.approx(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))
    assert SampledShape(draw, np.empty((2, 0))).widest_std == 0.0


# --------------------------------------------------------------------------------- smoothing


def test_levels_are_scaled_and_a_scale_of_zero_has_one_node():
    offsets, weights = np.array([[3.0, 0.0], [-1.0, 2.0]]), np.array([0.25, 0.75])
    frozen = FixedShape(offsets, weights).freeze(np.array([0.0, 0.5, 2.0]), RULE)
    assert frozen.n_nodes == 2
    assert frozen.shifts is None
    assert frozen.has_divergence
    np.testing.assert_array_equal(frozen.nodes(0)[0], [[0.0, 0.0]])
    np.testing.assert_array_equal(frozen.nodes(0)[1], [1.0])
    np.testing.assert_array_equal(frozen.nodes(1)[0], 0.5 * offsets)
    np.testing.assert_array_equal(frozen.nodes(2)[0], 2 * offsets)
    assert frozen.nodes(2)[1] is weights
    zeros = FixedShape(np.zeros((2, 3)), weights).freeze(np.ones(1), RULE)
    np.testing.assert_array_equal(zeros.nodes(0)[0], [[0.0, 0.0, 0.0]])
    assert zeros.n_nodes == 1
    # The level of the widest scale has the number of nodes, wherever it is.
    assert FrozenKernel(FixedShape(offsets, weights), np.array([2.0, 0.0]), RULE).n_nodes == 2


def test_factors_of_steins_identity_give_the_laplacian_of_quadratics():
    shape, scale = LinearShape(2.0 * np.eye(4)), 0.3
    frozen = shape.freeze(np.array([0.0, scale]), NodeRule("sobol", 48, 3))
    exclude = torch.tensor([1])
    field = frozen.field(1, "posterior", BACKEND, exclude)
    assert (field.posterior, field.shift) == ("posterior", 0.0)
    assert field.exclude is exclude
    nodes = field.nodes
    matrix = np.random.default_rng(0).normal(size=(4, 4))
    values = np.einsum("mi,ij,mj->m", nodes.offsets, matrix, nodes.offsets) + 5.0
    assert float(nodes.weights @ (nodes.stein * torch.tensor(values))) == pytest.approx(
        2 * np.trace(matrix)
    )
    squares = nodes.offsets.square().sum(1)
    variance = (2 * scale) ** 2
    np.testing.assert_allclose(nodes.stein, (squares / variance - 4) / variance)
    assert frozen.field(0, "posterior", BACKEND, None).nodes.stein is None
    assert (
        LinearShape(np.eye(2)).freeze(np.ones(1), RULE).field(0, "", BACKEND, None).nodes.stein
        is None
    )


def test_each_level_has_its_shift():
    shape = LinearShape(np.eye(1))
    frozen = FrozenKernel(shape, np.array([1.0, 2.0]), RULE, np.array([0.25, -0.5]))
    shifts = [frozen.field(level, None, BACKEND, None).shift for level in (0, 1)]
    assert shifts == [0.25, -0.5]
