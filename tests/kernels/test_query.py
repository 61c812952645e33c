"""Tests of kernels whose offsets depend on the query, against kernels that are known and autograd."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._coordinates.hull import AffineHull
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.kernels import AnisotropicGaussianKernel, QueryKernel, _query
from skdiffsmooth.kernels._nodes import NodeRule, default_n_nodes
from skdiffsmooth.kernels._query import (
    _FrozenQueryKernel,
    _is_differentiable,
    _jacobian,
    _QueryScore,
)
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.scores import SmoothedScore

RNG = np.random.RandomState(0)
SMALL = {"n_nodes": 32, "n_levels": 8, "n_steps": 16}


def turning(x, z):
    """Offsets along a direction that turns with the query, and shorter ones across it."""
    angle = x[:, 0] + 0.5 * x[:, 1]
    along = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    across = torch.stack([-torch.sin(angle), torch.cos(angle)], dim=1)
    return z[:, 0, None] * along[:, None] + 0.3 * z[:, 1, None] * across[:, None]


def fading(x, z):
    """Offsets that are the shorter the farther the query is from the origin."""
    return torch.exp(-x.square().sum(1))[:, None, None] * z


def around_circle(x, z):
    """The copy of the unit circle that is translated to the query."""

    def project(y):
        return y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)

    foot = project(x)
    return project(foot[:, None] + z) - foot[:, None]


def in_numpy(x, z):
    return torch.from_numpy(turning(x, z).numpy().copy())


def detached(x, z):
    return turning(x.detach(), z)


@pytest.fixture(scope="module")
def X():
    angle = np.arange(12) * np.pi / 6
    return np.column_stack([np.cos(angle), np.sin(angle)])


def test_offsets_that_do_not_depend_on_the_query_are_those_of_a_constant_kernel(X):
    factor = torch.tensor([[1.0, 0.2], [0.2, 0.5]], dtype=torch.float64)
    kernel = QueryKernel(lambda x, z: (z @ factor).expand(len(x), -1, -1))
    found = SmoothedScoreDiffusion(0.2, 0.3, kernel=kernel, **SMALL).fit(X)
    constant = AnisotropicGaussianKernel((factor @ factor).numpy())
    expected = SmoothedScoreDiffusion(0.2, 0.3, kernel=constant, **SMALL).fit(X)
    queries = X + np.random.RandomState(0).normal(size=X.shape) / 5
    # The nodes are the same but for the axes of the hull, which a circle's rounding decides on: scores
    # at a noise scale at which 32 nodes are converged.
    np.testing.assert_allclose(
        found.grad_log_density(queries, t=4.0), expected.grad_log_density(queries, t=4.0), rtol=2e-3
    )


def test_offsets_along_a_circle_are_those_of_the_known_manifold(X):
    """Where these do not fade, up to half of the reach from the circle."""
    found = SmoothedScoreDiffusion(0.1, 0.3, kernel=QueryKernel(around_circle), **SMALL).fit(X)
    circle = Circle([0.0, 0.0], 1.0)
    expected = ManifoldAdaptedDiffusion(0.1, 0.3, manifold=circle, **SMALL).fit(X)
    queries = X * np.linspace(0.7, 1.3, len(X))[:, None]
    for method in ("grad_log_density", "laplacian_log_density"):
        # Both take the same nodes in the plane, in other coordinates of the hull.
        one = getattr(found, method)(queries, t=0.5)
        other = getattr(expected, method)(queries, t=0.5)
        np.testing.assert_allclose(one, other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("v", [1.0, 0.05])
def test_divergence_is_that_of_automatic_differentiation(X, v):
    points = torch.from_numpy(X)
    posterior = Posterior(
        points, torch.full((12,), -np.log(12.0), dtype=torch.float64), memory_limit=64
    )
    z = 0.4 * torch.from_numpy(np.random.RandomState(1).normal(size=(6, 2)))
    nodes = Nodes(torch.cat([z, -z]), torch.full((12,), 1 / 12, dtype=torch.float64), 2.0)
    turn = torch.from_numpy(np.linalg.qr(np.random.RandomState(2).normal(size=(2, 2)))[0])
    center = torch.tensor([0.1, -0.2], dtype=torch.float64)
    field = _QueryScore(posterior, nodes, None, turning, center, turn)
    queries = torch.from_numpy(np.random.RandomState(3).normal(size=(5, 2)))
    score, divergence = field.with_divergence(queries, v)
    for query, s, found in zip(queries, score, divergence, strict=True):

        def twin(x):
            y = x + turning(center[None] + x[None] @ turn.T, nodes.offsets)[0] @ turn
            squares = (y[:, None] - points).square().sum(2)
            return ((torch.softmax(-squares / (2 * v), 1) @ points - y) / v).mean(0)

        np.testing.assert_allclose(s, twin(query), rtol=1e-10, atol=1e-10)
        expected = torch.autograd.functional.jacobian(twin, query).trace()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_density_is_normalised(X):
    model = SmoothedScoreDiffusion(0.2, 0.3, kernel=QueryKernel(fading), n_nodes=16).fit(X)
    side = np.linspace(-2.2, 2.2, 45)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    mass = np.exp(model.score_samples(grid)).sum() * (side[1] - side[0]) ** 2
    # The steps of the solver; without the derivative of the offsets the mass is 1.055.
    assert mass == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize("offsets", [in_numpy, detached])
def test_without_a_derivative_it_samples_and_refuses_a_density(offsets, X):
    model = SmoothedScoreDiffusion(0.1, 0.3, kernel=QueryKernel(offsets), **SMALL).fit(X)
    with_it = SmoothedScoreDiffusion(0.1, 0.3, kernel=QueryKernel(turning), **SMALL).fit(X)
    drawn = model.sample(20, random_state=0)
    np.testing.assert_allclose(drawn, with_it.sample(20, random_state=0), atol=1e-12)
    assert np.isnan(model.node_error_)
    for call in (model.score_samples, model.laplacian_log_density):
        with pytest.raises(ValueError, match=r"QueryKernel write offsets\(x, z\) in torch"):
            call(X)


def test_default_scales_are_not_compared(X):
    for offsets in (turning, in_numpy):
        model = SmoothedScoreDiffusion(kernel=QueryKernel(offsets), **SMALL).fit(X)
        assert model.metric_ == "euclidean"
        assert "offsets depend on the query" in model.not_compared_["bandwidth"]


def test_rows_in_a_plane_of_space(X):
    """The flow runs in the plane, and the function gets rows of R^3."""
    turn = np.linalg.qr(np.random.RandomState(0).normal(size=(3, 3)))[0]
    raised = X @ turn[:2] + 5.0

    def lifted(x, z):
        axes = torch.from_numpy(turn[:2].copy())
        return turning((x - 5.0) @ axes.T, z @ axes.T) @ axes

    nodes = {"n_nodes": 256, "n_levels": 6, "n_steps": 6}
    flat = SmoothedScoreDiffusion(0.2, 0.2, kernel=QueryKernel(turning), **nodes).fit(X)
    in_space = SmoothedScoreDiffusion(0.2, 0.2, kernel=QueryKernel(lifted), **nodes).fit(raised)
    assert in_space.hull_.dimension == 2
    across = -0.5 * np.log(2 * np.pi * 0.2**2)
    # Nodes in three dimensions in place of two: their error with 256 nodes.
    found = in_space.score_samples(raised[:4]) - across
    np.testing.assert_allclose(found, flat.score_samples(X[:4]), atol=0.15)


def test_rows_do_not_depend_on_each_other(X):
    few = {"n_nodes": 32, "n_levels": 4, "n_steps": 4}
    model = SmoothedScoreDiffusion(0.3, 0.2, kernel=QueryKernel(turning), **few).fit(X)
    order = np.random.RandomState(0).permutation(12)
    np.testing.assert_allclose(model.score_samples(X)[order], model.score_samples(X[order]))
    small = SmoothedScoreDiffusion(
        0.3, 0.2, kernel=QueryKernel(turning), memory_limit=1, **few
    ).fit(X)
    queries = np.tile(X, (8, 1))
    np.testing.assert_allclose(
        small.score_samples(queries), model.score_samples(queries), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        (
            lambda x, z: np.zeros((len(x), *z.shape)),
            TypeError,
            "returned an object of type ndarray",
        ),
        (lambda x, z: z, ValueError, r"returned the shape \(4, 2\).*expected \(12, 4, 2\)"),
        (lambda x, z: x[:, None] + z + torch.nan, ValueError, "returned NaN or infinity"),
        (
            lambda x, z: torch.where(x[:, None] > 0.9, torch.inf, z),
            ValueError,
            "returned NaN or infinity",
        ),
    ],
)
def test_bad_functions_are_refused(offsets, error, message, X):
    with pytest.raises(error, match=message):
        SmoothedScoreDiffusion(0.1, 0.3, kernel=QueryKernel(offsets)).fit(X)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match=r"offsets=1\.0 has type float; expected a function"):
        QueryKernel(1.0)


# ------------------------------------------------------------------------------ parts


def in_whole_space(d):
    return AffineHull(np.zeros(d), np.eye(d))


def scaled_by_row(x, z):
    """Offsets that are longer by the first coordinate of the query."""
    return x[:, :1, None] * z


def test_derivatives_of_offsets_are_those_of_each_row():
    x, z = torch.from_numpy(RNG.normal(size=(3, 2))), torch.from_numpy(RNG.normal(size=(4, 2)))
    # d(x_0 z) / dx_0 = z, and nothing depends on x_1.
    found = _jacobian(lambda rows: scaled_by_row(rows, z), x)
    expected = torch.stack([z, torch.zeros_like(z)], dim=-1).expand(3, -1, -1, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert _jacobian(lambda rows: rows[:, None].expand(-1, 4, -1), x[:, :0]).shape == (3, 4, 0, 0)


@pytest.mark.parametrize(
    ("slope", "missing", "expected"),
    [
        (0.0, 4e-5, True),
        (0.0, 7e-5, False),
        (1.0, 1.3e-4, True),
        (1.0, -1.7e-4, False),
        (1e3, 0.09, True),
        (1e3, -0.11, False),
    ],
)
def test_the_allowed_error_of_a_derivative(slope, missing, expected):
    """A part of the slope that torch does not see, times u, may be 1e-4 (1 + slope u).

    The rows are moved by normal numbers u, the largest of which is 2.24.
    """
    x, z = torch.from_numpy(RNG.normal(size=(5, 1))), torch.tensor([[1.0], [0.0]]).double()

    def offsets(x, z):
        return z * (slope * x + missing * x.detach())[:, None]

    assert _is_differentiable(offsets, x, z) == expected


def test_a_derivative_is_compared_at_each_row():
    """At the other rows the two agree, and the largest derivative is that of another row."""
    x, z = torch.arange(1.0, 6.0).double()[:, None], torch.ones(1, 1).double()

    def offsets(x, z):
        part = torch.where((x - 2).abs() < 0.5, 0.01 * (x - x.detach()), 0.0)
        return z * (x + 1e-2 * x**4 - 3 * part)[:, None]

    assert not _is_differentiable(offsets, x, z)
    assert _is_differentiable(lambda x, z: z * (x + 1e-2 * x**4)[:, None], x, z)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_step_of_the_quotients_is_in_the_unit_of_offsets(unit):
    """A step that is too long or too short finds another derivative."""
    x = unit * torch.from_numpy(RNG.normal(size=(6, 2)))
    z = 0.1 * unit * torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    assert _is_differentiable(lambda x, z: torch.sin(x / unit).sum(1)[:, None, None] * z, x, z)


@pytest.mark.parametrize("unit", [1e-3, 1.0])
def test_the_widest_offsets_of_all_rows(unit):
    """In units of sigma: the largest singular value of the offsets of unit vectors, at any row."""
    points = np.array([[0.5, 0.0], [2.0, 1.0], [-3.0, 0.0], [0.5, -1.0]]) * unit
    shape = QueryKernel(scaled_by_row).reduce(in_whole_space(2), points, np.full(4, 0.25))
    assert shape.widest_std == pytest.approx(3.0 * unit)
    assert (shape.rank, shape.n_nodes) == (2, default_n_nodes(2))
    assert shape.has_divergence
    stretched = QueryKernel(lambda x, z: (z * torch.tensor([2.0, 5.0])).expand(len(x), -1, -1))
    shape = stretched.reduce(in_whole_space(2), points, np.full(4, 0.25))
    assert shape.widest_std == pytest.approx(5.0)


@pytest.mark.parametrize("last", [0.0, 3.0])
def test_the_derivative_is_compared_at_the_first_and_the_last_row(last):
    def offsets(x, z):
        return z * torch.where((x - last).abs() < 0.5, x.detach(), x)[:, None]

    points = np.arange(4.0)[:, None]
    assert not QueryKernel(offsets).reduce(in_whole_space(1), points, np.ones(4) / 4).has_divergence


@pytest.mark.parametrize(("points", "size"), [([[1.0], [5.0]], 2.0), ([[7.0]], 1.0)])
def test_a_function_is_tried_at_a_tenth_of_the_extent(points, size):
    """The largest distance of a coordinate from its mean; one where all rows are equal."""
    seen = []

    def offsets(x, z):
        seen.append(z.clone())
        return z.expand(len(x), -1, -1)

    QueryKernel(offsets).reduce(in_whole_space(1), np.array(points), np.full(len(points), 1.0))
    np.testing.assert_allclose(seen[0], [[size / 10], [-size / 10]])


def test_a_function_is_tried_in_parts_of_the_memory(monkeypatch):
    sizes = []

    def offsets(x, z):
        sizes.append(len(x))
        return z.expand(len(x), -1, -1)

    points = RNG.normal(size=(100, 2))
    monkeypatch.setattr(_query, "_MEMORY", 0.01)  # MiB
    QueryKernel(offsets).reduce(in_whole_space(2), points, np.full(100, 0.01))
    # Four copies of the eight numbers of a row, in 10 485 bytes; sixteen rows are differentiated.
    assert sizes[:3] == [40, 40, 20]
    assert set(sizes[3:]) == {16}


def frozen(kernel=scaled_by_row, hull=None, scales=(0.0, 0.5)):
    hull = in_whole_space(2) if hull is None else hull
    shape = QueryKernel(kernel).reduce(hull, np.array([[1.0, 0.0], [0.0, 2.0]]), np.ones(2) / 2)
    return shape.freeze(np.array(scales), NodeRule("sobol", 6, 0))


def test_nodes_of_a_level_are_gaussian_with_its_scale():
    smoothing = frozen()
    assert smoothing.n_nodes == 6
    offsets, weights = smoothing.nodes(1)
    standard, expected = NodeRule("sobol", 6, 0).normal(2, 1)
    np.testing.assert_array_equal(offsets, 0.5 * standard)
    np.testing.assert_array_equal(weights, expected)


def test_a_level_without_offsets_has_the_score_of_the_data():
    backend = Backend.from_params("cpu", "float64")
    hull = AffineHull(np.array([3.0, -4.0]), np.array([[0.6], [0.8]]))
    plain = frozen(hull=hull).field(0, None, backend, torch.arange(3))
    assert isinstance(plain, SmoothedScore)
    np.testing.assert_array_equal(plain.nodes.offsets, [[0.0]])
    np.testing.assert_array_equal(plain.exclude, [0, 1, 2])
    moved = frozen(hull=hull).field(1, None, backend, torch.arange(3))
    assert isinstance(moved, _QueryScore)
    np.testing.assert_array_equal(moved.center, hull.center)
    np.testing.assert_array_equal(moved.basis, hull.basis)
    np.testing.assert_array_equal(moved.nodes.offsets, frozen().nodes(1)[0])
    np.testing.assert_array_equal(moved.rows(torch.tensor([2, 0])).exclude, [2, 0])
    everything = frozen(hull=hull).field(1, None, backend, None)
    assert everything.rows(torch.tensor([0])) is everything


def test_some_offsets_of_zero_are_not_all():
    nodes = np.array([[0.0, 1.0], [0.0, -1.0]]), np.ones(2) / 2
    gaussian = SimpleNamespace(nodes=lambda level: nodes)
    smoothing = _FrozenQueryKernel(scaled_by_row, in_whole_space(2), gaussian, True)
    field = smoothing.field(0, None, Backend.from_params("cpu", "float64"), None)
    assert isinstance(field, _QueryScore)


@pytest.mark.parametrize(("d", "r"), [(50, 1), (4, 4)])
def test_the_memory_of_a_node_holds_its_position_and_derivative(d, r):
    hull = AffineHull(np.zeros(d), np.eye(d)[:, :r])
    kernel = _FrozenQueryKernel(scaled_by_row, hull, frozen().gaussian, True)
    field = kernel.field(1, None, Backend.from_params("cpu", "float64"), None)
    least = d + r + 2 * r**2
    assert least <= field._values_per_node(r) <= 8 * least


def test_positions_are_projected_to_the_hull():
    """y = x + B^T o(c + B x, z), and its derivative is the identity plus that of the offsets."""
    hull = AffineHull(np.array([3.0, -4.0]), np.array([[0.6], [0.8]]))
    field = frozen(hull=hull).field(1, None, Backend.from_params("cpu", "float64"), None)
    x, z = torch.tensor([[1.0], [-2.0]]).double(), torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    for with_derivative in (False, True):
        y, derivative = field._push(x, z, with_derivative=with_derivative)
        # The first coordinate of the rows is 3 + 0.6 x; along the basis z has 0.6 and 1.6.
        expected = x + (3 + 0.6 * x) * torch.tensor([0.6, 1.6]).double()
        np.testing.assert_allclose(y[..., 0], expected)
        if with_derivative:
            assert derivative.stretch.item() == 1
            np.testing.assert_allclose(derivative.left[..., 0, 0], [[0.36, 0.96]] * 2)
            np.testing.assert_array_equal(derivative.right, np.ones((2, 2, 1, 1)))
        else:
            assert derivative is None


def test_a_kernel_describes_itself():
    assert repr(QueryKernel(scaled_by_row)) == f"QueryKernel({scaled_by_row!r})"
    kernel = QueryKernel(scaled_by_row)
    assert (kernel.is_isotropic, kernel.works_over_base, kernel.depends_on_query) == (
        False,
        True,
        True,
    )
