"""Tests of ManifoldAdaptedDiffusion and AffineSubspace: smoothing along a manifold only.

Prop. 3.1 of Farghly et al. 2025 says that on data in an affine subspace isotropic smoothing acts along
that subspace. Since the nodes have mean zero it holds for finite node sets too, and is tested to
rounding: below the estimators in all d coordinates, where no hull does the work, and through them.
Where data leave the subspace it must fail, and that is tested too.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.manifolds import AffineSubspace, Manifold
from skdiffsmooth.scores import SmoothedScore

FALSE_ALARM = 1e-4


def random_subspace(d, k, rng, center=0.0):
    """A k-dimensional affine subspace of R^d and an orthonormal frame of it."""
    frame = np.linalg.qr(rng.normal(size=(d, max(k, 1))))[0][:, :k]
    return AffineSubspace.from_basis(center + rng.normal(size=d), frame), frame


def data_in(subspace, n, rng):
    """Rows in a subspace, without symmetry."""
    Z = rng.gamma(2.0, size=(n, subspace.dimension)) * np.linspace(1, 0.5, subspace.dimension)
    return subspace.origin + Z @ subspace.basis.T


# ----------------------------------------------------------------------------------- Prop. 3.1


@st.composite
def affine_cases(draw):
    """Dimensions, sizes, scales over six decades, and a seed for the numbers."""
    d = draw(st.integers(1, 7))
    return {
        "d": d,
        "k": draw(st.integers(0, d)),
        "n": draw(st.integers(1, 12)),
        "n_nodes": draw(st.integers(1, 9)),
        "log_v": draw(st.floats(-6, 3)),
        "log_reach": draw(st.floats(-2, 1)),
        "rng": np.random.RandomState(draw(st.integers(0, 2**32 - 1))),
    }


def smoothed(points, weights, offsets, shares):
    posterior = Posterior(torch.tensor(points), torch.tensor(np.log(weights)), memory_limit=64)
    reach = float(np.linalg.norm(offsets, axis=1).max())
    return SmoothedScore(posterior, Nodes(torch.tensor(offsets), torch.tensor(shares), reach))


@settings(max_examples=150, deadline=None)
@given(case=affine_cases())
def test_prop_3_1_holds_for_finite_nodes(case):
    """Offsets xi and P xi give one score, and log-densities that differ by one constant.

    The constant is the mean of |xi - P xi|^2 / 2v: log p_v loses that much off the subspace, where it
    is quadratic, and the nodes have mean zero.

    Scores are compared times v, that is as posterior means, in units of the radius. Their weights are
    exponentials of numbers of size radius^2 / v. Rounding of the coordinates alone changes those by
    eps radius^2 / v, which is the tolerance where it exceeds 1e-10; seen is 6e-14.
    """
    rng, d, n, n_nodes = case["rng"], case["d"], case["n"], case["n_nodes"]
    v, reach = 10.0 ** case["log_v"], 10.0 ** case["log_reach"]
    subspace, frame = random_subspace(d, case["k"], rng)
    points = data_in(subspace, n, rng)
    weights = rng.dirichlet(np.ones(n)) + 1e-3
    weights /= weights.sum()
    shares = rng.dirichlet(np.ones(n_nodes))
    offsets = reach * rng.normal(size=(n_nodes, d))
    offsets -= shares @ offsets
    along = offsets @ frame @ frame.T
    x = torch.tensor(points[rng.randint(n, size=5)] + math.sqrt(v) * rng.normal(size=(5, d)))

    free, projected = (smoothed(points, weights, o, shares) for o in (offsets, along))
    radius = float(max(np.abs(points).max(), x.abs().max())) + reach
    tolerance = 1e-10 + 10 * np.finfo(float).eps * d * radius**2 / v
    (s, div), (s_along, div_along) = (field.with_divergence(x, v) for field in (free, projected))
    for score in (s_along, projected(x, v)):
        torch.testing.assert_close(v * score, v * s, rtol=0, atol=tolerance * radius)
    # As spreads, v^2 div + d v, in units of the radius squared.
    atol = tolerance * radius**2
    torch.testing.assert_close(v**2 * div_along, v**2 * div, rtol=0, atol=atol)

    shift = shares @ np.sum((offsets - along) ** 2, axis=1) / (2 * v)
    difference = projected.log_density(x, v) - free.log_density(x, v)
    expected = torch.full_like(difference, shift)
    torch.testing.assert_close(difference, expected, rtol=0, atol=tolerance)


def test_prop_3_1_fails_off_the_subspace():
    """The same comparison, of data that leave the subspace by a bandwidth: the scores differ."""
    rng = np.random.RandomState(0)
    subspace, frame = random_subspace(3, 1, rng)
    points = data_in(subspace, 10, rng) + 0.3 * rng.normal(size=(10, 3))
    offsets = rng.normal(size=(8, 3))
    offsets -= offsets.mean(axis=0)
    x = torch.tensor(points)
    free, projected = (
        smoothed(points, np.full(10, 0.1), o, np.full(8, 1 / 8))(x, 0.1)
        for o in (offsets, offsets @ frame @ frame.T)
    )
    assert (free - projected).abs().max() > 0.1 * free.abs().max()


# ---------------------------------------------------------------------------------- estimators


def assert_same_model(first, second, Q, bandwidth):
    """To rounding, in the units of each: nats times the dimension, nats a bandwidth, and X."""
    expected = first.score_samples(Q)
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(second.score_samples(Q), expected, rtol=0, atol=1e-10 * scale)
    for t in (None, 1.0):
        expected = first.grad_log_density(Q, t=t)
        scale = np.abs(Q).max() / (t or bandwidth**2)
        atol = 1e-10 * scale
        np.testing.assert_allclose(second.grad_log_density(Q, t=t), expected, rtol=0, atol=atol)
    expected = first.sample(30, random_state=0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(second.sample(30, random_state=0), expected, atol=1e-9 * scale)


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
@pytest.mark.parametrize(("n", "k", "d"), [(20, 1, 2), (20, 2, 3), (5, 4, 9), (30, 3, 20)])
def test_on_data_in_a_subspace_it_is_isotropic_smoothing(n, k, d, terminal):
    """A subspace given by equations, in whatever basis it finds; and found, by number or share."""
    rng = np.random.RandomState(0)
    subspace, _ = random_subspace(d, k, rng)
    X, weights = data_in(subspace, n, rng), rng.uniform(0.1, 1, n)
    Q = X[:4] + 0.3 * rng.normal(size=(4, d))
    normals = np.linalg.svd(subspace.basis, full_matrices=True)[0][:, k:].T
    equations = rng.normal(size=(d - k, d - k)) @ normals
    settings = {"bandwidth": 0.3, "sigma": 0.5, "terminal": terminal}
    isotropic = SmoothedScoreDiffusion(**settings).fit(X, sample_weight=weights)
    for manifold in (
        {"manifold": AffineSubspace(equations, equations @ subspace.origin)},
        {"manifold": "pca", "n_components": k},
        {"manifold": "pca", "n_components": 1 - 1e-9},
    ):
        adapted = ManifoldAdaptedDiffusion(**settings, **manifold).fit(X, sample_weight=weights)
        assert adapted.manifold_.dimension == k
        assert_same_model(isotropic, adapted, Q, 0.3)


@pytest.mark.parametrize("manifold", ["given", "found"])
def test_the_whole_space_is_a_manifold_too(manifold):
    rng = np.random.RandomState(0)
    X = rng.gamma(2.0, size=(20, 3)) * [1, 0.7, 0.5]
    space = AffineSubspace.from_basis(np.zeros(3), np.linalg.qr(rng.normal(size=(3, 3)))[0])
    adapted = ManifoldAdaptedDiffusion(
        *(0.3, 0.5), manifold=space if manifold == "given" else "pca", n_components=3
    )
    isotropic = SmoothedScoreDiffusion(0.3, 0.5).fit(X)
    assert_same_model(isotropic, adapted.fit(X), X[:5] + 0.1, 0.3)


def test_on_data_off_the_subspace_it_is_not_isotropic_smoothing():
    """The mutant, P = identity, passes all that is above and fails here, by much."""
    rng = np.random.RandomState(0)
    X = rng.gamma(2.0, size=(20, 3)) * [1, 0.7, 0.5]
    adapted = ManifoldAdaptedDiffusion(0.3, 0.5, manifold="pca", n_components=1).fit(X)
    isotropic = SmoothedScoreDiffusion(0.3, 0.5).fit(X)
    assert np.abs(adapted.score_samples(X) - isotropic.score_samples(X)).mean() > 0.1
    gradients = adapted.grad_log_density(X), isotropic.grad_log_density(X)
    assert np.abs(gradients[0] - gradients[1]).mean() > 0.1


@pytest.mark.parametrize("fit_in", [4, 3], ids=["cloud", "cloud in a hyperplane"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_score_of_data_off_the_subspace(k, fit_in):
    """By the definition, in all coordinates: offsets are in the subspace and have its covariance.

    With data in a hyperplane only what the hull sees of the offsets is left, and that must be all
    that matters: V^T P V sigma^2.
    """
    rng = np.random.RandomState(k)
    cloud, _ = random_subspace(4, fit_in, rng)
    X = data_in(cloud, 12, rng)
    subspace, frame = random_subspace(4, k, rng)
    model = ManifoldAdaptedDiffusion(0.4, 0.7, manifold=subspace, n_nodes=8, n_levels=1).fit(X)
    offsets, shares = model.kernel_.nodes(0)
    seen = model.hull_.basis @ model.hull_.basis.T @ frame
    offsets = offsets @ model.hull_.basis.T
    covariance = (offsets.T * shares) @ offsets
    np.testing.assert_allclose(covariance, 0.7**2 * seen @ seen.T, atol=1e-12)
    Q, v = X[:6] + 0.2 * rng.normal(size=(6, 4)), 0.16
    y = (Q[:, None] + offsets)[:, :, None]
    posterior = softmax(-np.sum((y - X) ** 2, axis=3) / (2 * v), axis=2)
    expected = (np.einsum("m,bmi,id->bd", shares, posterior, X) - Q) / v
    np.testing.assert_allclose(model.grad_log_density(Q), expected, rtol=0, atol=1e-10)


def test_across_the_subspace_nothing_is_smoothed():
    """Data that are a product of places along an axis and places across it.

    Their KDE is a product, so its smoothing along the axis is smoothing of the first factor: the
    model is a 1-d smoothed model times a 1-d unsmoothed one, to rounding. (sigma = 1e-9 runs the
    same steps.) In particular the variance across is that of sigma = 0.
    """
    rng = np.random.RandomState(0)
    along, across = np.sort(rng.gamma(2.0, size=9)), np.array([-0.25, -0.1, 0.4])
    X = np.array([[a, b] for a in along for b in across])
    scales = {"terminal_scale": 1.5}
    model = ManifoldAdaptedDiffusion(0.2, 0.6, manifold="pca", n_components=1, **scales).fit(X)
    np.testing.assert_allclose(np.abs(model.manifold_.basis), [[1], [0]], atol=1e-12)
    Q = rng.uniform([0, -1], [4, 1], size=(20, 2))
    first = SmoothedScoreDiffusion(0.2, 0.6, **scales).fit(along[:, None])
    second = SmoothedScoreDiffusion(0.2, 1e-9, **scales).fit(across[:, None])
    expected = first.score_samples(Q[:, :1]) + second.score_samples(Q[:, 1:])
    np.testing.assert_allclose(model.score_samples(Q), expected, rtol=0, atol=1e-9)
    # Not so for smoothing in every direction, which interpolates between the rows across.
    isotropic = SmoothedScoreDiffusion(0.2, 0.6, **scales).fit(X)
    assert np.abs(isotropic.score_samples(Q) - expected).mean() > 0.1


def test_samples_across_the_subspace_have_the_variance_of_the_kde():
    """A z-test with the KDE's own fourth moment; with another seed it fails once in 10 000.

    2000 draws see a change of 12 %. The mutant, isotropic smoothing, shrinks the variance by half.
    """
    rng = np.random.RandomState(0)
    across = np.array([-0.25, -0.1, 0.4])
    X = np.array([[a, b] for a in rng.gamma(2.0, size=9) for b in across])
    places, h, n = across - across.mean(), 0.1, 2000
    variance = np.mean(places**2) + h**2
    fourth = np.mean(places**4 + 6 * places**2 * h**2 + 3 * h**4)
    deviation = math.sqrt((fourth - variance**2) / n)

    def z(model):
        samples = model.fit(X).sample(n, random_state=0)[:, 1] - across.mean()
        return abs(np.mean(samples**2) - variance) / deviation

    threshold = stats.norm.isf(FALSE_ALARM / 2)
    assert z(ManifoldAdaptedDiffusion(h, 0.6, manifold="pca", n_components=1)) < threshold
    assert z(ManifoldAdaptedDiffusion(h, 0.0, manifold="pca", n_components=1)) < threshold
    assert z(SmoothedScoreDiffusion(h, 0.6)) > threshold


def test_a_smoothing_scale_of_zero_is_the_kde():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(20, 3))
    model = ManifoldAdaptedDiffusion(0.3, 0.0, manifold="pca", n_components=2).fit(X)
    expected = KDESampler(0.3).fit(X).score_samples(X + 0.2)
    np.testing.assert_allclose(model.score_samples(X + 0.2), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
def test_mass_is_one(terminal):
    """Off its subspace, too. 5e-3 allows for 32 steps of Heun's method; seen: 3e-4."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(20, 1)) * [1.0, 0.5] + 0.15 * rng.normal(size=(20, 2))
    model = ManifoldAdaptedDiffusion(
        0.15, 0.4, manifold="pca", n_components=1, terminal=terminal
    ).fit(X)
    # A grid of bandwidth / 2.6, on which a density no sharper than the bandwidth sums exactly.
    side = 0.15 / 2.6
    axes = [np.arange(x.min() - 1.05, x.max() + 1.05, side) for x in X.T]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(model.score_samples(points)).sum() * side**2
    assert mass == pytest.approx(1, abs=5e-3)


# -------------------------------------------------------------------------- principal subspace


@pytest.mark.parametrize(
    ("n_components", "dimension"),
    [(1, 1), (3, 3), (4, 4), (1e-9, 1), (0.5, 1), (0.75, 2), (0.85, 3), (0.95, 4)],
)
def test_number_and_share_of_components(n_components, dimension):
    """Variances 8, 4, 2, 1 times 1/15: shares 0.533, 0.8, 0.933 and 1 are reached."""
    scales = np.sqrt([1.0, 8.0, 2.0, 4.0])
    X = np.concatenate([np.diag(scales), -np.diag(scales)]) + [1.0, 2.0, 3.0, 4.0]
    model = ManifoldAdaptedDiffusion(0.3, 0.5, manifold="pca", n_components=n_components).fit(X)
    assert model.manifold_.dimension == dimension
    # The axes of most variance, about the mean.
    order = [1, 3, 2, 0][:dimension]
    projector = np.zeros((4, 4))
    projector[order, order] = 1
    basis = model.manifold_.basis
    np.testing.assert_allclose(basis @ basis.T, projector, atol=1e-12)
    np.testing.assert_allclose(model.manifold_.distance([[1.0, 2.0, 3.0, 4.0]]), 0, atol=1e-12)


def test_principal_subspace_uses_the_weights():
    """Weight turns the widest direction, and moves the mean that the subspace passes through."""
    X = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    for weights, axis in [([1, 1, 1, 1], 0), ([1, 1, 90, 90], 1), ([1, 1, 5, 1], 0)]:
        model = ManifoldAdaptedDiffusion(0.3, 0.5, manifold="pca", n_components=1)
        model.fit(X, sample_weight=weights)
        np.testing.assert_allclose(np.abs(model.manifold_.basis[:, 0]), np.eye(2)[axis], atol=1e-12)
        center = np.average(X, axis=0, weights=weights)
        np.testing.assert_allclose(model.manifold_.distance([center]), 0, atol=1e-12)


# ------------------------------------------------------------------------------ AffineSubspace


@st.composite
def subspaces(draw):
    """A subspace as c equations A x = b, c from 1 to d, of unequal lengths."""
    d = draw(st.integers(1, 7))
    c = draw(st.integers(1, d))
    rng = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    normals = np.linalg.qr(rng.normal(size=(d, c)))[0].T
    # Well conditioned: equations that nearly depend on one another have no exact solutions.
    A = (np.eye(c) + 0.3 * rng.uniform(-1, 1, (c, c)) / c) @ normals
    A *= 10.0 ** rng.uniform(-3, 3)
    return A, A @ rng.uniform(-5, 5, d), 5 * rng.normal(size=(6, d))


@settings(max_examples=60, deadline=None)
@given(case=subspaces())
def test_subspace_of_equations(case):
    """Points of size ten: 1e-10 is rounding with room to spare."""
    A, b, X = case
    c, d = A.shape
    subspace = AffineSubspace(A, b)
    assert isinstance(subspace, Manifold)
    assert (subspace.n_features, subspace.dimension) == (d, d - c)
    projected = subspace.project(X)
    size = np.abs(A).max()
    np.testing.assert_allclose(projected @ A.T / size, np.tile(b / size, (6, 1)), atol=1e-10)
    np.testing.assert_allclose(subspace.project(projected), projected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(subspace.distance(projected), 0, atol=1e-10)
    # The nearest point: what is left is a combination of the normals. And its length.
    left = X - projected
    coefficients = np.linalg.lstsq(A.T, left.T, rcond=None)[0]
    np.testing.assert_allclose(A.T @ coefficients, left.T, atol=1e-10)
    np.testing.assert_allclose(subspace.distance(X), np.linalg.norm(left, axis=1), atol=1e-10)
    # `origin` is the projection of zero.
    zero = np.zeros((1, d))
    np.testing.assert_allclose(subspace.project(zero)[0], subspace.origin, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(case=subspaces())
def test_tangents(case):
    """Orthonormal, along the subspace, as many as its dimension; moving along them stays in it."""
    A, b, X = case
    subspace = AffineSubspace(A, b)
    tangent = subspace.tangent(X)
    k = subspace.dimension
    assert tangent.shape == (*X.shape, k)
    gram = np.einsum("ndk,ndl->nkl", tangent, tangent)
    np.testing.assert_allclose(gram, np.tile(np.eye(k), (6, 1, 1)), atol=1e-10)
    moved = subspace.project(X) + tangent.sum(axis=2)
    np.testing.assert_allclose(subspace.distance(moved), 0, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(case=subspaces())
def test_subspace_of_directions(case):
    """From any of its points and any directions along it: the same set, for all that it does."""
    A, b, X = case
    subspace = AffineSubspace(A, b)
    k = subspace.dimension
    directions = subspace.basis @ (np.eye(k) + 0.3 / max(k, 1)) * 7.0
    other = AffineSubspace.from_basis(subspace.project(X[:1])[0], directions)
    assert isinstance(other, Manifold)
    assert (other.n_features, other.dimension) == (subspace.n_features, k)
    np.testing.assert_allclose(other.project(X), subspace.project(X), atol=1e-10)
    np.testing.assert_allclose(other.distance(X), subspace.distance(X), atol=1e-10)
    spans = (basis @ basis.T for basis in (other.tangent(X)[0], subspace.tangent(X)[0]))
    np.testing.assert_allclose(*spans, atol=1e-10)


def test_origin_is_the_solution_nearest_to_zero():
    """However the subspace was given, as its attribute says."""
    subspace = AffineSubspace.from_basis([3.0, 0.0, 5.0], [[1.0], [0.0], [1.0]])
    np.testing.assert_allclose(subspace.origin, [-1.0, 0.0, 1.0], atol=1e-12)


def test_a_point_far_away_keeps_its_digits():
    """Relative to the offset 1e8, whose unit in the last place is 1.5e-8."""
    subspace = AffineSubspace.from_basis([1e8, 1e8], [[1.0], [1.0]])
    projected = subspace.project([[1e8 + 1, 1e8]])
    np.testing.assert_allclose(projected, [[1e8 + 0.5, 1e8 + 0.5]], rtol=0, atol=6e-8)
    np.testing.assert_allclose(subspace.distance([[1e8 + 1, 1e8]]), math.sqrt(0.5), atol=6e-8)


@pytest.mark.parametrize("manifold", ["local", "pca"])
def test_relative_scales_are_multiples_of_one_bandwidth(manifold):
    """The kernel of tangents has the standard deviation sigma along them, as the isotropic one has."""
    angle = np.random.RandomState(0).uniform(0, 6, 40)
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    options = {"manifold": manifold, "n_components": 1, "n_nodes": 4, "n_levels": 2, "n_steps": 2}
    model = ManifoldAdaptedDiffusion("0.8h", "1.6h", metric="euclidean", **options).fit(X)
    assert model.sigma_ == pytest.approx(2 * model.bandwidth_)
