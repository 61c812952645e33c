"""Log-densities along manifolds that are learned, or that know how to project and nothing else."""

import functools
import pickle

import numpy as np
import pytest
import torch
from scipy import interpolate, stats

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion
from skdiffsmooth.manifolds import Circle, LocalPolynomialManifold, PointCloud, estimate_reach

SMALL = {"n_nodes": 4, "n_levels": 3, "n_steps": 3}
# Fields at a noise scale that is passed do not depend on the levels and steps.
ONE_LEVEL = {"n_levels": 1, "n_steps": 1}
LEARNED = LocalPolynomialManifold(1, n_neighbors=14)
every_push = pytest.mark.parametrize("push", ["translated", "level-set"])


def noisy_ellipse(n, seed=0, noise=0.03):
    rng = np.random.RandomState(seed)
    angle = rng.uniform(0, 2 * np.pi, size=n)
    return np.column_stack([1.2 * np.cos(angle), np.sin(angle)]) + noise * rng.normal(size=(n, 2))


def model(push="translated", manifold=LEARNED, **params):
    params = {"bandwidth": 0.15, "sigma": 0.2, **SMALL, **params}
    return ManifoldAdaptedDiffusion(manifold=manifold, push=push, **params)


X40, Q3 = noisy_ellipse(40), noisy_ellipse(3, 1)


@functools.cache
def log_densities(push="translated"):
    """Of three rows under the model of forty, which several tests compare with."""
    return model(push).fit(X40).score_samples(Q3)


# ---------------------------------------------------------------------------------- the divergence


def assert_divergence(fitted, Q, t):
    """Against central differences of the score, of steps of 1e-5 and 1e-6, of which one must agree.

    Third derivatives of the score are 1 / t^2, and its rounding is 1e-13 / t. Where the farthest
    neighbour of a foot changes within a step the derivative jumps, hardly ever in both.
    """
    errors = []
    for step in (1e-5, 1e-6):
        axes = step * np.eye(Q.shape[1])[:, None]
        # One call for all of them is much faster than many of a few rows.
        moved = np.stack([Q + axes, Q - axes])
        gradients = fitted.grad_log_density(moved.reshape(-1, Q.shape[1]), t).reshape(moved.shape)
        expected = np.einsum("jnj->n", gradients[0] - gradients[1]) / (2 * step)
        errors.append(np.abs(fitted.laplacian_log_density(Q, t) - expected))
    assert np.all(t**2 * np.minimum(*errors) < 2e-6)


@every_push
@pytest.mark.parametrize(("degree", "t"), [(1, 0.3), (2, 0.02), (3, 0.3)])
def test_divergence_is_that_of_the_field(degree, push, t):
    """With places where offsets fade."""
    X = noisy_ellipse(60)
    manifold = LocalPolynomialManifold(1, degree=degree, n_neighbors=16)
    fitted = model(push, manifold, **ONE_LEVEL).fit(X)
    Q = noisy_ellipse(20, 2) * np.random.RandomState(1).uniform(0.7, 1.3, (20, 1))
    distances = fitted.manifold_.distance(Q) / fitted.kernel_.fading
    assert np.sum((distances > 0.5) & (distances < 1)) > 3
    assert_divergence(fitted, Q, t)


@every_push
def test_divergence_on_a_learned_surface(push):
    """Of dimension two in R^5, with noise that leaves the surface in every direction."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(150, 3))
    X = X / np.linalg.norm(X, axis=1, keepdims=True) @ np.linalg.qr(rng.normal(size=(5, 3)))[0].T
    X += 0.02 * rng.normal(size=X.shape)
    fitted = model(push, LocalPolynomialManifold(2), **ONE_LEVEL).fit(X)
    assert_divergence(fitted, X[:2] + 0.05 * rng.normal(size=(4, 5))[:2], 0.05)


# ------------------------------------------------------------------------------------------ the law


@every_push
@pytest.mark.slow
def test_mass_is_one_and_samples_follow_the_density(push):
    """The mass on a grid, and counts of 300 samples in 16 cells against the masses there, by chi-square.

    6 steps of Heun's method err by some 2e-3. The grid has a step of 1.3 bandwidths and is wider than
    the rows: sums over it are exact to 1e-4 for Gaussians of the bandwidth's width. Farther from all
    rows than its margin the density is not computed: it is below 1e-4 of that at them.
    The masses are sums of a spline through the density on the grid, exact to a tenth of the error of
    the counts. Correct code fails one seed in a thousand, this one does not. Samples moved by two
    thirds of a bandwidth are detected below 1e-6.
    """
    followed = model(push, n_nodes=4, n_levels=6, n_steps=6).fit(noisy_ellipse(60))
    axes = [np.arange(c.min() - 0.65, c.max() + 0.65, 0.2) for c in noisy_ellipse(60).T]
    rows = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    near = np.min(np.linalg.norm(rows[..., None, :] - noisy_ellipse(60), axis=-1), axis=-1) < 0.65
    density = np.zeros(near.shape)
    density[near] = np.exp(followed.score_samples(rows[near]))
    assert density.sum() * 0.2**2 == pytest.approx(1, abs=1e-2)
    fine = [np.linspace(axis[0], axis[-1], 8 * len(axis)) for axis in axes]
    masses = interpolate.RectBivariateSpline(*axes, density)(*fine).ravel()

    def cell(rows):
        around = np.arctan2(rows[:, 1], rows[:, 0]) / (2 * np.pi) + 0.5
        outside = np.linalg.norm(rows / [1.2, 1], axis=1) > 1
        return np.clip(np.floor(around * 7.5).astype(int), 0, 7) + 8 * outside

    rows = np.stack(np.meshgrid(*fine, indexing="ij"), axis=-1).reshape(-1, 2)
    masses = np.bincount(cell(rows), masses, minlength=16)
    expected = 300 * masses / masses.sum()

    def p_value(rows):
        return stats.chisquare(np.bincount(cell(rows), minlength=16), expected).pvalue

    drawn = followed.sample(300, random_state=0)
    assert p_value(drawn) > 1e-3
    assert p_value(drawn + 0.1) < 1e-6


@every_push
def test_everything_moves_with_a_similarity(push):
    """Rows turned, moved and stretched: log-densities less log of the volume, to the feet's 1e-8."""
    turn, shift, scale = np.array([[0.6, 0.8], [-0.8, 0.6]]), np.array([3.0, -1.0]), 20.0
    expected = log_densities(push) - 2 * np.log(scale)
    other = model(push, bandwidth=0.15 * scale, sigma=0.2 * scale).fit(scale * X40 @ turn + shift)
    found = other.score_samples(scale * Q3 @ turn + shift)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_rows_in_a_plane_of_a_larger_space():
    """Log-densities are those in the plane, and across it those of the bandwidth's noise."""
    basis = np.linalg.qr(np.random.RandomState(0).normal(size=(12, 2)))[0]
    expected = log_densities() - 10 * np.log(0.15 * np.sqrt(2 * np.pi))
    found = model().fit(X40 @ basis.T + 1).score_samples(Q3 @ basis.T + 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@every_push
def test_single_precision(push):
    """Places are rounded to 1e-7 of themselves, and the score is a difference of places over v."""
    found = model(push, dtype="float32").fit(X40).score_samples(Q3)
    np.testing.assert_allclose(found, log_densities(push), rtol=0, atol=1e-3)


# ----------------------------------------------------------------------------------- the estimator


def test_offsets_fade_within_half_of_the_estimated_reach():
    X = noisy_ellipse(60)
    fitted = model().fit(X)
    expected = estimate_reach(fitted.manifold_, X) / 2
    assert fitted.kernel_.fading == pytest.approx(expected)
    # The field is that of the points alone from there on, and another one before.
    plain = KDESampler(0.3).fit(X)
    Q = np.array([[1.2 + 1.1 * expected, 0.0], [1.2, 0.0]])
    gap = np.abs(fitted.grad_log_density(Q, 0.09) - plain.grad_log_density(Q)).max(axis=1)
    assert gap[0] < 1e-9 < 0.01 < gap[1]


def test_leaving_rows_out_and_pickles():
    """What a learned manifold knows of the row that is left out stays in it."""
    fitted = model(n_nodes=4, n_levels=2, n_steps=2).fit(noisy_ellipse(25))
    assert 0 <= fitted.node_error_ < 1
    assert fitted.leave_one_out_log_density().mean() < fitted.score(fitted.points_)
    copy = pickle.loads(pickle.dumps(fitted))
    Q = noisy_ellipse(3, 1)
    np.testing.assert_array_equal(copy.score_samples(Q), fitted.score_samples(Q))


# ------------------------------------------------------------------------------ manifolds of users


class Own:
    """A circle that projects, in torch, and is asked for no derivative."""

    n_features, dimension, reach = 2, 1, 1.0

    def project(self, X):
        X = torch.as_tensor(X)
        return X / torch.linalg.vector_norm(X, dim=1, keepdim=True)

    def distance(self, X):
        return torch.linalg.vector_norm(torch.as_tensor(X) - self.project(X), dim=1)

    def tangent(self, X):
        foot = self.project(X)
        return torch.stack([-foot[:, 1], foot[:, 0]], dim=1)[:, :, None]


class Slanted(Own):
    """An ellipse along rays from its centre: no nearest points, so no symmetric derivative."""

    axes = torch.tensor([1.2, 1.0], dtype=torch.float64)

    def project(self, X):
        X = torch.as_tensor(X)
        return X / torch.linalg.vector_norm(X / self.axes, dim=1, keepdim=True)

    def tangent(self, X):
        normal = self.project(X) / self.axes**2
        along = torch.stack([-normal[:, 1], normal[:, 0]], dim=1)
        return (along / torch.linalg.vector_norm(along, dim=1, keepdim=True))[:, :, None]


class Unknown(Own):
    """Its reach is not known."""

    reach = None


class OutOfTorch(Own):
    def project(self, X):
        return torch.from_numpy(super().project(X).numpy().copy())


class Constant(Own):
    """No derivative reaches the input."""

    def project(self, X):
        return super().project(torch.as_tensor(X).detach())


class Nearest(Own):
    """The nearest of many rows: constant but for jumps, and so are its difference quotients."""

    def __init__(self):
        self.rows = torch.from_numpy(torch_rows(2000))

    def project(self, X):
        gaps = torch.as_tensor(X)[:, None] - self.rows
        return self.rows[gaps.square().sum(2).argmin(1)]


class Linearised(Own):
    """The derivative is right on the circle only: one step along a tangent that is held."""

    def project(self, X):
        held = super().project(torch.as_tensor(X).detach())
        tangent = torch.stack([-held[:, 1], held[:, 0]], dim=1)
        return held + ((torch.as_tensor(X) - held) * tangent).sum(1, keepdim=True) * tangent


def torch_rows(n):
    return np.asarray(Own().project(torch.from_numpy(noisy_ellipse(n, noise=0.0))))


@every_push
def test_what_is_written_in_torch_is_differentiated(push):
    """Forward mode and the closed form of the same circle, to rounding; also in a larger space."""
    X, Q = torch_rows(20), noisy_ellipse(6, 1)
    expected = model(push, Circle([0.0, 0.0], 1.0)).fit(X)
    found = model(push, Own()).fit(X)
    assert isinstance(found.manifold_, Own)
    assert found.node_error_ == pytest.approx(expected.node_error_)
    np.testing.assert_allclose(
        found.score_samples(Q), expected.score_samples(Q), rtol=0, atol=1e-10
    )


@every_push
def test_what_is_written_in_torch_is_differentiated_at_a_single_row(push):
    """One row has no spread to measure steps by."""
    fitted = model(push, Own()).fit(torch_rows(1))
    assert_divergence(fitted, 0.9 * noisy_ellipse(10, 1), 0.1)
    assert np.all(np.isfinite(fitted.score_samples(torch_rows(3))))


@every_push
def test_a_projection_in_torch_need_not_be_to_the_nearest_point(push):
    X = noisy_ellipse(20)
    assert_divergence(model(push, Slanted(), **ONE_LEVEL).fit(X), 0.9 * noisy_ellipse(10, 1), 0.1)


def test_a_reach_that_is_not_known_is_estimated():
    fitted = model(manifold=Unknown()).fit(torch_rows(60))
    assert fitted.kernel_.fading == pytest.approx(0.5, abs=0.01)
    assert np.all(np.isfinite(fitted.score_samples(torch_rows(5))))


@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize(
    "manifold",
    [OutOfTorch(), Constant(), Nearest(), Linearised(), PointCloud(torch_rows(99), 1)],
    ids=["numpy", "constant", "nearest", "linearised", "cloud"],
)
def test_without_a_derivative_there_are_samples_only(manifold, n):
    fitted = model(manifold=manifold).fit(torch_rows(n))
    assert np.isnan(fitted.node_error_)
    assert np.all(np.isfinite(fitted.sample(5, random_state=0)))
    for call in (fitted.score_samples, fitted.score, fitted.laplacian_log_density):
        with pytest.raises(ValueError, match=r"no derivative.*LocalPolynomialManifold"):
            call(torch_rows(3))
