"""Tests of kernels whose offsets depend on the query, against kernels that are known and autograd."""

import numpy as np
import pytest
import torch

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.kernels import AnisotropicGaussianKernel, QueryKernel
from skdiffsmooth.kernels._query import _QueryScore
from skdiffsmooth.manifolds import Circle

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
    ],
)
def test_bad_functions_are_refused(offsets, error, message, X):
    with pytest.raises(error, match=message):
        SmoothedScoreDiffusion(0.1, 0.3, kernel=QueryKernel(offsets)).fit(X)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match=r"offsets=1\.0 has type float; expected a function"):
        QueryKernel(1.0)
