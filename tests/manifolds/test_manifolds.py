"""Tests of manifolds: the contract of all, for arrays and tensors, and the geometry of each.

The oracles are formulas (spheres, planes), dense tables (curves), loops over points (clouds) and the
definition of moving least squares with one `lstsq` for each position.
"""

import copy
import itertools
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.special import ellipe
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skdiffsmooth._coordinates.hull import AffineHull
from skdiffsmooth.manifolds import (
    AffineSubspace,
    Circle,
    Curve,
    LocalPolynomialManifold,
    Manifold,
    PointCloud,
    ProductManifold,
    SmoothManifold,
    Sphere,
    Torus,
    check_idempotent,
    intrinsic_dimension,
)
from skdiffsmooth.manifolds._within import DifferentiableWithin

IDENTITY = (1.0, None, None)


def moved(X, similarity):
    """Scale, rotate and shift rows."""
    scale, rotation, shift = similarity
    return X if rotation is None else scale * X @ rotation.T + shift


def similarity(d, seed=3):
    rng = np.random.RandomState(seed)
    return 2.5, np.linalg.qr(rng.normal(size=(d, d)))[0], rng.normal(size=d)


def sphere_points(n, seed, d=3):
    X = np.random.RandomState(seed).normal(size=(n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def ellipse(t):
    return np.stack([2 * np.cos(t), np.sin(t)], axis=1)


def helix(t):
    return np.stack([np.cos(t), np.sin(t), 0.3 * t], axis=1)


def knot(t):
    """A trefoil, whose branches pass over one another."""
    r = 2 + np.cos(3 * t)
    return np.stack([r * np.cos(2 * t), r * np.sin(2 * t), np.sin(3 * t)], axis=1)


FRAME = np.random.RandomState(0).normal(size=(20, 3))
TURN = 2 * np.pi


def frame(d, k, by):
    """Directions, transformed with the space."""
    directions = np.linalg.qr(np.random.RandomState(1).normal(size=(d, k)))[0]
    return directions if by[1] is None else by[1] @ directions


def at(point, by):
    return moved(np.array([point], dtype=float), by)[0]


def curve(function, start, stop, closed, by):
    return Curve(lambda t: moved(function(t), by), start, stop, closed)


def roll(by):
    """A spiral arc times a segment, in a subspace of R^4 that does not contain zero."""
    axes, middle = frame(4, 3, by), at([0.3, 0.1, 0, 0.2], by)

    def spiral(t):
        arc = by[0] * t[:, None] * np.stack([np.cos(3 * t), np.sin(3 * t)], axis=1)
        return middle + arc @ axes[:, :2].T

    return ProductManifold(
        Curve(spiral, 0.5, 2), Curve(lambda t: by[0] * t[:, None] * axes[:, 2], -0.4, 0.6)
    )


# Each builder takes a similarity and returns the manifold that it moves.
SMOOTH = {
    "plane": (3, lambda by: AffineSubspace.from_basis(at([1, 2, 3], by), frame(3, 2, by))),
    "point": (2, lambda by: AffineSubspace.from_basis(at([1, 2], by), np.zeros((2, 0)))),
    "circle": (2, lambda by: Circle(at([0.2, 0.1], by), 1.3 * by[0])),
    "circle in R^4": (4, lambda by: Circle(at([1, 0, 0, 1], by), 1.3 * by[0], frame(4, 2, by))),
    "sphere": (3, lambda by: Sphere(at([0, 0.1, 0.2], by), 1.2 * by[0])),
    "3-sphere in R^6": (6, lambda by: Sphere(at([0.1] * 6, by), 1.5 * by[0], frame(6, 4, by))),
    "torus": (
        3,
        lambda by: Torus(at([0, 0.1, 0.2], by), 1.1 * by[0], 0.4 * by[0], frame(3, 3, by)),
    ),
    "torus in R^5": (5, lambda by: Torus(at([0.1] * 5, by), by[0], 0.3 * by[0], frame(5, 3, by))),
    "roll in R^4": (4, roll),
    "ellipse": (2, lambda by: curve(ellipse, 0, TURN, True, by)),
    "open helix": (3, lambda by: curve(helix, -2, 2, False, by)),
    "knot in R^20": (20, lambda by: curve(lambda t: knot(t) @ FRAME.T, 0, TURN, True, by)),
}
SAMPLED = {
    "cloud": (3, lambda by: PointCloud(moved(sphere_points(300, 0), by), 2)),
    "cloud in R^12": (12, lambda by: PointCloud(moved(sphere_points(200, 0, 12), by), 3)),
}
LEARNED = {
    f"learned, degree {degree}": (
        3,
        lambda by, degree=degree: LocalPolynomialManifold(2, degree=degree).fit(
            moved(sphere_points(300, 0), by)
        ),
    )
    for degree in (1, 2, 3)
}
ALL = {**SMOOTH, **SAMPLED, **LEARNED}
PERPENDICULAR = {**SMOOTH, **LEARNED}
DIFFERENTIABLE = PERPENDICULAR


def queries(d, n=25, seed=2):
    """Rows around the manifolds above, most within their reach."""
    return np.random.RandomState(seed).uniform(-1, 1, size=(n, d)) + 0.05


_built = {}


def build(name):
    if name not in _built:
        _built[name] = ALL[name][1](IDENTITY)
    return _built[name], queries(ALL[name][0])


# ------------------------------------------------------------------------------ what all promise


@pytest.mark.parametrize("name", ALL)
def test_the_contract(name):
    """1e-10 is well above rounding; far inside, the error after thirty fits of planes is larger."""
    manifold, X = build(name)
    before = X.copy()
    d, k = manifold.n_features, manifold.dimension
    assert isinstance(manifold, Manifold)
    assert isinstance(manifold, SmoothManifold) == (name in SMOOTH)
    assert hasattr(manifold, "projection_factors") == (name in DIFFERENTIABLE)
    assert manifold.reach is None or manifold.reach > 0
    assert (name in SMOOTH) == (manifold.reach is not None)
    P, T = manifold.project(X), manifold.tangent(X)
    assert (P.shape, T.shape, manifold.distance(X).shape) == ((25, d), (25, d, k), (25,))
    assert P.dtype == T.dtype == np.float64
    atol = 1e-6 if name == "learned, degree 1" else 1e-10
    np.testing.assert_allclose(manifold.project(P), P, rtol=0, atol=atol)
    np.testing.assert_allclose(manifold.distance(P), 0, atol=atol)
    expected = np.linalg.norm(X - P, axis=1)
    np.testing.assert_allclose(manifold.distance(X), expected, rtol=1e-12, atol=1e-12)
    gram = np.einsum("ndk,ndl->nkl", T, T)
    np.testing.assert_allclose(gram, np.tile(np.eye(k), (25, 1, 1)), atol=1e-12)
    check_idempotent(manifold, X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("name", PERPENDICULAR)
def test_residuals_are_perpendicular(name):
    manifold, X = build(name)
    P = manifold.project(X)
    along = np.einsum("nd,ndk->nk", X - P, manifold.tangent(X))
    if name in {"open helix", "roll in R^4"}:
        # Beyond an edge the nearest point does not move with the query across the edge.
        moves = np.diagonal(manifold.projection_derivative(X), axis1=1, axis2=2) > 0
        assert 0 < moves.sum() < moves.size
        along = along[moves]
    np.testing.assert_allclose(along, 0, atol=1e-11)


@pytest.mark.parametrize("name", ALL)
def test_tensors_and_arrays_agree(name):
    """To the last bit in double; float32 to its rounding times the condition of the nearest point."""
    manifold, X = build(name)
    methods = ["project", "distance", "tangent"]
    methods += ["projection_derivative"] if name in SMOOTH else []
    for method in methods:
        expected = getattr(manifold, method)(X)
        answer = getattr(manifold, method)(torch.tensor(X))
        assert isinstance(answer, torch.Tensor)
        assert answer.dtype == torch.float64
        np.testing.assert_array_equal(answer.numpy(), expected)
        single = getattr(manifold, method)(torch.tensor(X).float())
        assert single.dtype == torch.float32
        # Tangents of samples are only as unique as the axes of their neighbours.
        if method != "tangent" or name in SMOOTH:
            np.testing.assert_allclose(single.numpy(), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(manifold.project(X.tolist()), manifold.project(X))


@pytest.mark.parametrize("name", ALL)
def test_no_rows(name):
    manifold, _ = build(name)
    d, k = manifold.n_features, manifold.dimension
    nothing = np.zeros((0, d))
    assert manifold.project(nothing).shape == (0, d)
    assert manifold.distance(nothing).shape == (0,)
    assert manifold.tangent(nothing).shape == (0, d, k)


@pytest.mark.parametrize("name", ALL)
def test_similarity_transformations(name):
    """Scaled, rotated and shifted with the queries, results are the same up to rounding."""
    manifold, X = build(name)
    by = similarity(manifold.n_features)
    other = ALL[name][1](by)
    Y = moved(X, by)
    np.testing.assert_allclose(other.project(Y), moved(manifold.project(X), by), rtol=0, atol=2e-8)
    expected = by[0] * manifold.distance(X)
    np.testing.assert_allclose(other.distance(Y), expected, rtol=0, atol=2e-8)
    spans = [T @ np.swapaxes(T, 1, 2) for T in (other.tangent(Y), by[1] @ manifold.tangent(X))]
    np.testing.assert_allclose(*spans, rtol=0, atol=1e-7)
    if name in DIFFERENTIABLE:
        expected = by[1] @ derivative_of(manifold, X) @ by[1].T
        gap = np.abs(derivative_of(other, Y) - expected).max(axis=(1, 2), initial=0)
        # Where it is large the foot is hardly told, and its errors of 1e-8 count by the square.
        size = 1 + np.abs(expected).max(axis=(1, 2), initial=0) ** 2
        assert np.all(gap < 1e-5 * size)
    if name in SMOOTH and manifold.reach < math.inf:
        assert other.reach == pytest.approx(by[0] * manifold.reach, rel=1e-6)


def central_differences(manifold, X, step=1e-5):
    axes = step * np.eye(manifold.n_features)[:, None]
    # One call for all of them is much faster than many of a few rows.
    moved = np.stack([X + axes, X - axes])
    feet = manifold.project(moved.reshape(-1, X.shape[1])).reshape(moved.shape)
    return np.moveaxis((feet[0] - feet[1]) / (2 * step), 0, 2)


def derivative_of(manifold, X):
    _, A, T = manifold.projection_factors(X)
    return A @ np.swapaxes(T, 1, 2)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivative_of_the_projection(name):
    """Against central differences, in all directions; symmetric where the foot is the nearest point.

    Their error is step^2 times the third derivative, and rounding over the step: 1e-5 in units of the
    square of the derivative allows for both up to derivatives of a hundred.
    """
    manifold, X = build(name)
    P, A, T = manifold.projection_factors(X)
    np.testing.assert_array_equal(P, manifold.project(X))
    np.testing.assert_array_equal(T, manifold.tangent(X))
    expected = A @ np.swapaxes(T, 1, 2)
    if name in SMOOTH:
        G = manifold.projection_derivative(X)
        np.testing.assert_array_equal(G, np.swapaxes(G, 1, 2))
        np.testing.assert_array_equal(A, T @ G)
    found = central_differences(manifold, X)
    error = np.abs(found - expected).max(axis=(1, 2), initial=0)
    size = 1 + np.abs(expected).max(axis=(1, 2), initial=0) ** 2
    right = error < 1e-5 * size
    # A few of these queries are so deep inside that thirty fits find no foot, only a place to stop.
    gap = np.linalg.norm(manifold.project(P) - P, axis=1)
    assert np.all(right | (gap > 1e-9))
    assert right.sum() >= (25 if name in SMOOTH else 23)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_factors_of_the_derivative(name):
    """Of tensors to the last bit and in their dtype; of no rows; and errors for bad rows."""
    manifold, X = build(name)
    d, k = manifold.n_features, manifold.dimension
    expected = manifold.projection_factors(X)
    for found, array in zip(manifold.projection_factors(torch.tensor(X)), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), array)
    single = manifold.projection_factors(torch.tensor(X).float())
    assert [part.dtype for part in single] == [torch.float32] * 3
    # Each factor alone is as unique as a frame; the product is the derivative.
    jacobian = (single[1] @ single[2].mT).numpy()
    inside = np.linalg.norm(X - expected[0], axis=1) < 0.5
    np.testing.assert_allclose(
        jacobian[inside], derivative_of(manifold, X)[inside], rtol=1e-3, atol=1e-3
    )
    shapes = [part.shape for part in manifold.projection_factors(X[:0])]
    assert shapes == [(0, d), (0, d, k), (0, d, k)]
    with pytest.raises(ValueError, match="X has shape"):
        manifold.projection_factors(X[:, 1:])


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivative_on_the_manifold_is_a_projection(name):
    """Projecting twice is projecting once: P(p)^2 = P(p), of rank k, by the chain rule."""
    manifold, X = build(name)
    P = manifold.project(X)
    if name in {"open helix", "roll in R^4"}:
        P = P[np.linalg.norm(derivative_of(manifold, P), axis=(1, 2)) > 0.5]
    J = derivative_of(manifold, P)
    settled = np.linalg.norm(manifold.project(P) - P, axis=1) < 1e-9
    assert settled.sum() >= len(P) - 2
    np.testing.assert_allclose((J @ J)[settled], J[settled], rtol=0, atol=1e-8)
    trace = np.trace(J, axis1=1, axis2=2)[settled]
    assert np.all(np.abs(trace - np.round(trace)) < 1e-8)
    if name not in {"open helix", "roll in R^4"}:
        np.testing.assert_allclose(trace, manifold.dimension, atol=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_all_at_once(name):
    """The same three results to the last bit, for arrays and tensors, other devices and no rows."""
    manifold, X = build(name)
    methods = ("project", "tangent", "projection_derivative")
    for rows in (X, torch.tensor(X), torch.tensor(X).float(), X[:0]):
        answers = manifold.project_with_derivative(rows)
        assert isinstance(answers, tuple)
        for answer, method in zip(answers, methods, strict=True):
            expected = getattr(manifold, method)(rows)
            assert (type(answer), answer.dtype) == (type(expected), expected.dtype)
            np.testing.assert_array_equal(answer, expected)
    away = manifold.project_with_derivative(torch.tensor(X, device="meta"))
    assert [answer.shape for answer in away] == [getattr(manifold, m)(X).shape for m in methods]
    with pytest.raises(ValueError, match="X has shape"):
        manifold.project_with_derivative(X[:, 1:])


@pytest.mark.parametrize("name", ALL)
def test_survives_pickle_and_copy(name):
    """Of curves defined by a lambda too; copies on devices are not pickled."""
    manifold, X = build(name)
    manifold.project(torch.tensor(X).float())
    for other in (pickle.loads(pickle.dumps(manifold)), copy.deepcopy(manifold)):
        np.testing.assert_array_equal(other.project(X), manifold.project(X))
        assert repr(other) == repr(manifold)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", ["project", "distance", "tangent"])
def test_bad_rows(name, method):
    manifold, X = build(name)
    call, d = getattr(manifold, method), manifold.n_features
    with pytest.raises(ValueError, match=rf"X has shape \(25, {d + 1}\); expected \(n, {d}\)"):
        call(np.zeros((25, d + 1)))
    with pytest.raises(ValueError, match="X has shape"):
        call(torch.zeros(d, dtype=torch.float64))
    X = X.copy()
    X[3, 0], X[5, 1] = np.nan, np.inf
    for rows in (X, torch.tensor(X), X.tolist()):
        with pytest.raises(ValueError, match="X holds 2 values that are NaN or infinite"):
            call(rows)
    with pytest.raises(ValueError, match=r"X is a tensor of torch\.int64"):
        call(torch.zeros((2, d), dtype=torch.int64))
    with pytest.raises(ValueError, match="X of type str is not numeric"):
        call("rows")


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("method", ["project", "distance", "tangent", "projection_derivative"])
def test_the_host_does_not_wait_for_the_device(name, method):
    """Tensors on torch's meta device have no values."""
    manifold, X = build(name)
    x = torch.tensor(X, device="meta", dtype=torch.float32)
    answer = getattr(manifold, method)(x)
    assert (answer.device.type, answer.dtype) == ("meta", torch.float32)
    assert answer.shape == getattr(manifold, method)(X).shape


# ------------------------------------------------------------------------------ check_idempotent


class Shrinking(Circle):
    """A circle whose projection goes half of the way."""

    def _project(self, x):
        return (x + super()._project(x)) / 2


def test_a_projection_that_is_not_idempotent_raises():
    X = queries(2)
    with pytest.raises(ValueError, match=r"not idempotent: projections move by up to 0\.\d+ when"):
        check_idempotent(Shrinking([0.0, 0.0], 1.0), X)


class Lost(Circle):
    def _project(self, x):
        return torch.full_like(x, torch.nan)

    def project(self, X):
        return np.full_like(X, np.nan)


def test_results_do_not_share_memory_with_the_subspace():
    plane = AffineSubspace.from_basis(np.zeros(3), np.eye(3)[:, :2])
    with pytest.raises(ValueError, match="read-only"):
        plane.tangent(np.zeros((2, 3)))[0, 0, 0] = 5
    plane.tangent(torch.zeros((1, 3), dtype=torch.float64))[0, 0, 0] = 5
    np.testing.assert_array_equal(plane.project(np.ones((1, 3))), [[1, 1, 0]])


def test_a_projection_to_nan_raises():
    with pytest.raises(ValueError, match="move by up to nan"):
        check_idempotent(Lost([0.0, 0.0], 1.0), queries(2))


def test_idempotence_is_relative_to_the_scale_of_the_data():
    """Far from zero, rounding is more than 1e-6 of the scale of the data, and is allowed."""
    for center, radius in [([1e8, -1e8], 1e-3), ([0.0, 0.0], 1e-200), ([0.0, 0.0], 1e200)]:
        X = np.array(center) + radius * queries(2)
        check_idempotent(Circle(center, radius), X)
        check_idempotent(Circle(center, radius), X[:1])
    check_idempotent(Circle([0.0, 0.0], 1.0), torch.tensor(queries(2)).float())
    check_idempotent(Circle([0.0, 0.0], 1.0), np.zeros((0, 2)))


# --------------------------------------------------------------------------------------- spheres


@st.composite
def spheres(draw):
    """Dimensions, scales over many decades, and a seed."""
    d = draw(st.integers(2, 6))
    m = draw(st.integers(2, d))
    rng = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    radius = 10.0 ** draw(st.floats(-100, 100))
    distance = radius * 10.0 ** draw(st.floats(-12, 3))
    basis = np.linalg.qr(rng.normal(size=(d, m)))[0]
    center = radius * rng.normal(size=d)
    direction = rng.normal(size=(5, m))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    across = rng.normal(size=(5, d))
    across -= across @ basis @ basis.T
    return Sphere(center, radius, basis), basis @ direction.T, distance, distance * across


@settings(max_examples=100, deadline=None)
@given(case=spheres())
def test_sphere(case):
    """Rows center + rho u + across go to center + radius u, however far and above they are.

    Their direction is known up to the rounding of the center over rho.
    """
    sphere, directions, rho, across = case
    u = directions.T
    assert sphere.reach == sphere.radius
    X = sphere.center + rho * u + across
    eps = 1e-14 * (1 + np.abs(X).max() / rho)
    atol = sphere.radius * eps
    np.testing.assert_allclose(sphere.project(X), sphere.center + sphere.radius * u, atol=atol)
    tangent = sphere.tangent(X)
    np.testing.assert_allclose(np.einsum("nd,ndk->nk", u, tangent), 0, atol=eps)
    # In the sphere's subspace, and turned alike everywhere.
    np.testing.assert_allclose(
        np.einsum("de,nek->ndk", sphere.basis @ sphere.basis.T, tangent), tangent, atol=1e-13
    )
    local = np.einsum("dm,ndk->nmk", sphere.basis, np.concatenate([u[:, :, None], tangent], axis=2))
    np.testing.assert_allclose(np.linalg.det(local), 1, atol=10 * eps)
    identity = np.tile(np.eye(sphere.dimension), (5, 1, 1))
    expected = sphere.radius / rho * identity
    np.testing.assert_allclose(sphere.projection_derivative(X), expected, rtol=10 * eps)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_center_of_a_sphere(d):
    """It is projected along the first direction, with finite results; so are points above it."""
    basis = np.random.RandomState(0).normal(size=(d, 2))
    circle = Circle(np.ones(d), 2.0, basis)
    above = np.linalg.svd(basis, full_matrices=True)[0][:, 2:].sum(axis=1)
    first = basis[:, 0] / np.linalg.norm(basis[:, 0])
    P = circle.project([np.ones(d)])
    np.testing.assert_allclose(P, [1 + 2 * first], atol=1e-14)
    np.testing.assert_allclose(circle.distance([np.ones(d)]), 2)
    assert np.all(np.isfinite(circle.tangent([np.ones(d), np.ones(d) + above])))
    derivative = circle.projection_derivative([np.ones(d)])
    assert np.isfinite(derivative).all()
    assert derivative.min() > 1e15
    # The smallest offset of all has a direction.
    tiny = Circle(np.zeros(2), 1.0).project([[0.0, -5e-324], [-5e-324, 0.0]])
    np.testing.assert_array_equal(tiny, [[0, -1], [-1, 0]])


def test_default_basis_is_the_whole_space():
    np.testing.assert_array_equal(Sphere(np.zeros(4), 1.0).basis, np.eye(4))
    np.testing.assert_array_equal(Circle(np.zeros(2), 1.0).tangent([[0.0, 3.0]])[0], [[-1], [0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0]], 1.0), "center=.* has shape"),
        (([0.0, np.nan], 1.0), "center=.* finite"),
        (([0.0, 0.0], 0.0), r"radius=0.0 is out of range"),
        (([0.0, 0.0], np.inf), r"radius=inf is out of range"),
        (([0.0], 1.0), r"basis has shape \(1, 1\)"),
        (([0.0, 0.0], 1.0, [[1.0], [0.0]]), r"basis has shape \(2, 1\)"),
        (([0.0, 0.0], 1.0, np.eye(3)), r"basis has shape \(3, 3\)"),
        (([0.0, 0.0], 1.0, np.ones((2, 2))), "columns of basis are linearly dependent"),
        (
            ([0.0, 0.0], 1.0, np.full((2, 2), np.inf)),
            "basis holds . values that are NaN or infinite",
        ),
    ],
)
@pytest.mark.parametrize("shape", [Sphere, Circle])
def test_bad_spheres(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        shape(*arguments)


def test_a_circle_needs_a_plane():
    with pytest.raises(ValueError, match=r"basis has shape \(3, 3\); expected \(d, 2\)"):
        Circle([0.0, 0.0, 0.0], 1.0)
    with pytest.raises(TypeError, match="radius='1' has type str"):
        Circle([0.0, 0.0], "1")


# ------------------------------------------------------------------------------ tori and products


def torus_points(radius, tube, theta, phi):
    out = radius + tube * np.cos(phi)
    return np.stack([out * np.cos(theta), out * np.sin(theta), tube * np.sin(phi)], axis=-1)


def test_no_point_of_a_torus_is_nearer():
    """Of a lattice of 400 x 400; it misses the foot by half a step of 2 pi / 400 at most."""
    X = np.random.RandomState(0).uniform(-2, 2, size=(200, 3))
    turn = np.arange(400) * TURN / 400
    lattice = torus_points(1.2, 0.5, *np.meshgrid(turn, turn)).reshape(-1, 3)
    nearest = cKDTree(lattice).query(X)[0]
    distances = Torus(np.zeros(3), 1.2, 0.5).distance(X)
    assert np.all(distances <= nearest + 1e-12)
    assert np.all(distances >= nearest - 1.7 * TURN / 400)
    # |sqrt(x^2 + y^2) - R|, z in the half plane of the query.
    expected = np.abs(np.hypot(np.hypot(X[:, 0], X[:, 1]) - 1.2, X[:, 2]) - 0.5)
    np.testing.assert_allclose(distances, expected, atol=1e-14)


@pytest.mark.parametrize(("radius", "tube"), [(1.0, 0.3), (1.0, 0.7)])
def test_reach_of_a_torus(radius, tube):
    """Queries below the reach go back to their foot, some beyond it do not."""
    torus = Torus(np.zeros(3), radius, tube)
    phi = np.linspace(0, TURN, 60, endpoint=False)
    feet = torus_points(radius, tube, 0.3 + 0 * phi, phi)
    core = torus_points(radius, 0, 0.3 + 0 * phi, phi)
    normals = (feet - core) / tube
    for sign in (-1, 1):
        for share, all_return in ((0.999, True), (1.001, False)):
            offset = sign * share * torus.reach * normals
            gap = np.linalg.norm(torus.project(feet + offset) - feet, axis=1)
            if all_return:
                assert gap.max() < 1e-12
            elif (sign < 0) == (tube < radius - tube):
                assert gap.max() > 0.1
    assert torus.reach == min(tube, radius - tube)


def test_where_a_torus_has_no_nearest_point():
    """On the axis and on the circle inside: one of the nearest points, and finite results."""
    torus = Torus(np.zeros(3), 1.0, 0.3)
    X = [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(torus.distance(X), [0.7, np.sqrt(2) - 0.3, 0.3], atol=1e-15)
    np.testing.assert_allclose(torus.project(X)[[0, 2]], [[0.7, 0, 0], [0, 1.3, 0]], atol=1e-15)
    assert np.all(np.isfinite(torus.projection_derivative(X)))
    gram = np.swapaxes(torus.tangent(X), 1, 2) @ torus.tangent(X)
    np.testing.assert_allclose(gram, np.tile(np.eye(2), (3, 1, 1)), atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((3, 1)), 1.0, 0.1), ValueError, "one finite point of shape"),
        (([0, 0, np.nan], 1.0, 0.1), ValueError, "finite"),
        ((np.zeros(3), 0.0, 0.1), ValueError, "radius=0.0 is out of range"),
        (
            (np.zeros(3), 1.0, 1.0),
            ValueError,
            "tube_radius=1.0 is out of range; expected a finite number > 0 and < 1",
        ),
        ((np.zeros(3), 1.0, "1"), TypeError, "tube_radius='1' has type str"),
        ((np.zeros(4), 1.0, 0.1), ValueError, r"basis has shape \(4, 4\)"),
        (
            (np.zeros(3), 1.0, 0.1, np.ones((3, 3))),
            ValueError,
            "columns of basis are linearly dependent",
        ),
        (
            (np.zeros(3), 1.0, 0.1, np.full((3, 3), np.inf)),
            ValueError,
            "basis holds . values that are NaN or infinite",
        ),
    ],
)
def test_bad_tori(arguments, error, message):
    with pytest.raises(error, match=message):
        Torus(*arguments)


def test_a_product_projects_each_factor():
    """A flat torus in R^4: each pair of coordinates separately; the smaller radius is the reach."""
    eye = np.eye(4)
    first, second = Circle(np.zeros(4), 1.0, eye[:, :2]), Circle(np.zeros(4), 0.4, eye[:, 2:])
    product, X = ProductManifold(first, second), queries(4)
    halves = Circle(np.zeros(2), 1.0), Circle(np.zeros(2), 0.4)
    expected = np.hstack([halves[0].project(X[:, :2]), halves[1].project(X[:, 2:])])
    np.testing.assert_allclose(product.project(X), expected, atol=1e-15)
    squares = halves[0].distance(X[:, :2]) ** 2 + halves[1].distance(X[:, 2:]) ** 2
    np.testing.assert_allclose(product.distance(X), np.sqrt(squares), atol=1e-14)
    assert (product.dimension, product.reach) == (2, 0.4)
    assert product.affine_hull.dimension == 4


@pytest.mark.parametrize(
    ("factors", "error", "message"),
    [
        ((), ValueError, "factors is empty"),
        (("circle",), TypeError, "factor 'circle' has type str"),
        ((PointCloud(np.eye(4), 1),), TypeError, "expected a smooth manifold"),
        ((Circle([0, 0], 1), Sphere([0, 0, 0], 1)), ValueError, r"spaces of \[2, 3\] dimensions"),
        ((Circle([0, 0], 1), Circle([0, 0], 1)), ValueError, "not orthogonal: cosines reach 1"),
    ],
)
def test_bad_products(factors, error, message):
    with pytest.raises(error, match=message):
        ProductManifold(*factors)


# ---------------------------------------------------------------------------------------- curves


def wave(t):
    """A circle with seven waves: the nearest of many local minima."""
    r = 1 + 0.25 * np.cos(7 * t)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)


def brute_force(function, start, stop, X, n=20_001):
    """Squared distances to the nearest of many points, minimised twice more between neighbours."""
    t = np.linspace(start, stop, n)
    points = function(t)
    best = t[[np.sum((points - x) ** 2, axis=1).argmin() for x in X]]
    for _ in range(2):
        width = (stop - start) / (n - 1)
        local = np.clip(best[:, None] + np.linspace(-width, width, 401), start, stop)
        far = np.sum((function(local.ravel()).reshape(*local.shape, -1) - X[:, None]) ** 2, axis=2)
        best = local[np.arange(len(X)), far.argmin(axis=1)]
        n = 200 * (n - 1) + 1
    return np.sqrt(np.sum((function(best) - X) ** 2, axis=1))


@pytest.mark.parametrize(
    ("function", "start", "stop", "closed"),
    [
        (ellipse, 0, TURN, True),
        (wave, 1, 1 + TURN, True),
        (knot, 0, TURN, True),
        (helix, -4, 5, False),
        (wave, 0, 4, False),
    ],
)
def test_no_point_of_a_curve_is_nearer(function, start, stop, closed):
    """Rows everywhere, in and beyond the reach. The search stops at distances of 1e-12."""
    tabulated = Curve(function, start, stop, closed)
    d = tabulated.n_features
    X = np.random.RandomState(0).uniform(-3, 3, size=(150, d))
    X[100:] = function(np.linspace(start, stop, 50)) + 0.1 * X[100:]
    expected = brute_force(function, start, stop, X)
    distances = tabulated.distance(X)
    np.testing.assert_allclose(distances, expected, rtol=0, atol=1e-10)
    # And they are points of the true curve, at the parameters that are given.
    t = tabulated.parameter(X)
    np.testing.assert_allclose(function(t), tabulated.project(X), rtol=0, atol=1e-11)
    np.testing.assert_allclose(tabulated.points(t), function(t), rtol=0, atol=1e-11)


def test_rows_near_the_medial_axis_go_to_the_nearer_foot():
    """The difference of the distances is far below the spacing of the table."""
    offsets = 1e-9 * np.random.RandomState(0).choice([-1, 1], 40)
    X = np.stack([np.linspace(-1.4, 1.4, 40), offsets], axis=1)
    P = Curve(ellipse, 0.01, 0.01 + TURN, True).project(X)
    np.testing.assert_array_equal(np.sign(P[:, 1]), np.sign(offsets))


def test_feet_are_exact():
    """Of rows at known normals of the knot, where the nearest point is known: 1e-11, not 1e-8."""
    t = np.linspace(0.1, 6, 200)
    step = 1e-5
    velocity = (knot(t + step) - knot(t - step)) / (2 * step)
    normal = np.cross(velocity, [0.3, 0.5, 0.8])
    X = knot(t) + 0.2 * normal / np.linalg.norm(normal, axis=1, keepdims=True)
    tabulated = Curve(knot, 0, TURN, True)
    assert tabulated.reach > 0.2
    # 1e-9 allows for the rounding of the difference quotient.
    np.testing.assert_allclose(tabulated.project(X), knot(t), rtol=0, atol=1e-9)


def test_lengths_of_curves():
    """Known ones: an ellipse's by the elliptic integral, a helix's by its speed, both to rounding."""
    tabulated = Curve(ellipse, 0, TURN, True)
    assert tabulated.length == pytest.approx(8 * ellipe(0.75), rel=1e-13)
    t = np.linspace(-2, 2, 101)
    open_curve = Curve(helix, -2, 2)
    speed = np.sqrt(1 + 0.3**2)
    np.testing.assert_allclose(open_curve.speed(t), speed, rtol=1e-12)
    np.testing.assert_allclose(open_curve.arc_length(t), speed * (t + 2), atol=1e-13)
    lengths = np.minimum(speed * (t + 2), open_curve.length)
    np.testing.assert_allclose(open_curve.parameter_at(lengths), t, atol=1e-13)


@pytest.mark.parametrize("flatness", [1.0, 1e-2, 1e-4])
def test_arc_length_and_its_inverse(flatness):
    """Of flat ellipses, whose speed is nearly zero at the tips."""
    tabulated = Curve(lambda t: np.stack([np.cos(t), flatness * np.sin(t)], 1), 0, TURN, True)
    assert tabulated.length == pytest.approx(4 * ellipe(1 - flatness**2), rel=1e-13)
    lengths = np.linspace(0, tabulated.length, 1001)
    t = tabulated.parameter_at(lengths)
    assert np.all(np.diff(t) > 0)
    # A rounding of the length is more where the speed is small.
    np.testing.assert_allclose(t[[0, -1]], [0, TURN], atol=1e-15 / flatness + 1e-15)
    np.testing.assert_allclose(tabulated.arc_length(t), lengths, atol=1e-14 * tabulated.length)
    # Against sums of chords, whose error is a 24th of their squared length times the curvature's.
    fine = np.linspace(0, 1, 200_001)
    chords = np.stack([np.cos(fine), flatness * np.sin(fine)], axis=1)
    chords = np.linalg.norm(np.diff(chords, axis=0), axis=1).sum()
    assert tabulated.arc_length([1.0])[0] == pytest.approx(chords, rel=1e-9)
    # Turned once more, a closed curve is where it was.
    np.testing.assert_allclose(
        tabulated.parameter_at([0.5 + tabulated.length]), tabulated.parameter_at([0.5]), rtol=1e-12
    )


def test_bad_lengths():
    segment = Curve(lambda t: np.stack([t, 0 * t], axis=1), -1, 2)
    with pytest.raises(ValueError, match="length ranges from -1 to 0; expected 0 to 3"):
        segment.parameter_at([-1.0, 0.0])
    with pytest.raises(ValueError, match=r"length of shape \(1, 1\) is not a finite array"):
        segment.parameter_at([[1.0]])
    with pytest.raises(ValueError, match="t of shape"):
        segment.arc_length([np.nan])


def test_ends():
    """Beyond an end the nearest point is the end, with derivative zero."""
    segment = Curve(lambda t: np.stack([t, 0 * t], axis=1), -1, 2)
    X = np.array([[3.0, 1.0], [-5.0, 0.0], [0.5, 2.0], [2.0, 1.0], [-1.0, -1.0]])
    expected = [[2, 0], [-1, 0], [0.5, 0], [2, 0], [-1, 0]]
    np.testing.assert_allclose(segment.project(X), expected, atol=1e-14)
    np.testing.assert_array_equal(segment.parameter(X[:2]), [2, -1])
    derivatives = segment.projection_derivative(X[:3])[:, 0, 0]
    np.testing.assert_allclose(derivatives, [0, 0, 1], atol=1e-12)
    assert segment.reach > 1e6  # Infinite, but for rounding.


def bumps(t, side=24):
    """Images of a bump that moves on a circle; (Farghly et al. 2025) has them with side 64."""
    axis = np.linspace(-1, 1, side)
    x, y = (c.ravel() for c in np.meshgrid(axis, axis, indexing="ij"))
    squares = (x - 0.5 * np.cos(t)[:, None]) ** 2 + (y - 0.5 * np.sin(t)[:, None]) ** 2
    return np.exp(-squares / (2 * 0.2**2))


def test_curve_of_images():
    """In 576 dimensions, with a hull of about fifty."""
    images = Curve(bumps, 0, TURN, closed=True)
    rng = np.random.RandomState(0)
    X = bumps(rng.uniform(0, TURN, 30)) + 0.1 * rng.normal(size=(30, 576))
    P = images.project(X)
    np.testing.assert_allclose(images.project(P), P, rtol=0, atol=1e-11)
    np.testing.assert_allclose(bumps(images.parameter(X)), P, rtol=0, atol=1e-10)
    expected = brute_force(bumps, 0, TURN, X, n=2001)
    np.testing.assert_allclose(images.distance(X), expected, rtol=0, atol=1e-9)
    across = np.einsum("nd,ndk->nk", X - P, images.tangent(X))
    np.testing.assert_allclose(across, 0, atol=1e-10)


def test_memory_limit_of_a_curve_changes_nothing():
    X = queries(3, n=300)
    tiles, whole = (Curve(knot, 0, TURN, True, memory_limit=limit) for limit in (0.02, 64))
    for method in ("project", "tangent", "projection_derivative"):
        expected = getattr(whole, method)(X)
        np.testing.assert_allclose(getattr(tiles, method)(X), expected, rtol=1e-9, atol=1e-12)


def test_a_curve_within_a_subspace():
    """In coordinates of a hull of four dimensions, as through the space around it."""
    curve = Curve(lambda t: knot(t) @ FRAME.T + 1, 0, TURN, closed=True)
    rng = np.random.RandomState(0)
    hull = AffineHull.of(
        np.concatenate([curve.points(np.linspace(0, 6, 9)), rng.normal(size=(1, 20))])
    )
    assert hull.dimension == 4
    coordinates = torch.tensor(rng.normal(size=(40, 4)))
    inside, through = curve.within(hull), DifferentiableWithin(curve, hull)
    assert inside.n_features == 4
    for method in ("project", "distance", "tangent"):
        found, expected = (getattr(m, method)(coordinates) for m in (inside, through))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    for found, expected in zip(
        *(m.projection_factors(coordinates) for m in (inside, through)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_all_branches_that_are_equally_near_are_searched():
    """From the middle of a wave with twelve minima of the distance, one a little below the others."""

    def valleys(t):
        r = 1 + 0.25 * np.cos(12 * t) - 1e-9 * np.cos(t - 5 * np.pi / 12)
        return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)

    tabulated = Curve(valleys, 0.1, 0.1 + TURN, True)
    assert tabulated.parameter([[0.0, 0.0]])[0] == pytest.approx(5 * np.pi / 12, abs=1e-6)


@pytest.mark.parametrize("distance", [1e8, 1e16, 1e200])
def test_rows_far_away(distance):
    """Also where squares lose the size of the curve to rounding, or overflow."""
    tabulated = Curve(ellipse, 0, TURN, True)
    X = distance * np.array([[1.0, 0.0], [0.0, -1.0], [-0.5, 0.0]])
    expected = [[2, 0], [0, -1], [-2, 0]]
    np.testing.assert_allclose(tabulated.project(X), expected, rtol=0, atol=1e-6)


def test_the_search_of_other_devices_gives_the_same_feet(monkeypatch):
    """A fixed number of minima and steps gives the projections of a CPU, to rounding."""
    X = queries(3, n=300)
    for function, start, stop, closed in ((knot, 0, TURN, True), (helix, -2, 2, False)):
        tabulated = Curve(function, start, stop, closed)
        expected = tabulated.project(X)
        with monkeypatch.context() as patch:
            patch.setattr(Curve, "_near_minima", Curve._lowest_minima)
            patch.setattr("skdiffsmooth.manifolds._curve.CONVERGED", -1)
            found = tabulated.project(X)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_results_at_a_center_of_curvature_are_finite():
    """All points of a circle are nearest to its center: one of them, and a finite derivative."""
    circle = Curve(lambda t: np.stack([np.cos(t), np.sin(t)], axis=1), 0, TURN, True)
    assert circle.distance([[0.0, 0.0]]) == pytest.approx(1, abs=1e-14)
    assert np.isfinite(circle.projection_derivative([[0.0, 0.0]])).all()
    X = queries(2)
    exact = Circle([0.0, 0.0], 1.0)
    np.testing.assert_allclose(circle.project(X), exact.project(X), rtol=0, atol=1e-12)
    np.testing.assert_allclose(circle.tangent(X), exact.tangent(X), rtol=0, atol=1e-11)
    expected = exact.projection_derivative(X)
    np.testing.assert_allclose(circle.projection_derivative(X), expected, rtol=1e-9)


def test_reach():
    """Radius of curvature, half a gap between branches, and half a gap between ends.

    Gaps are between points of a table: 1e-4 allows for its spacing.
    """
    assert Curve(ellipse, 0, TURN, True).reach == pytest.approx(0.5, rel=1e-6)

    def waist(t):
        """Cassini's oval, 0.2 across at its waist, where it is flat enough."""
        r = np.sqrt(np.cos(2 * t) + np.sqrt(1.02**4 - np.sin(2 * t) ** 2))
        return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)

    half = float(waist(np.array([np.pi / 2]))[0, 1])
    assert Curve(waist, 0, TURN, True).reach == pytest.approx(half, rel=1e-4)
    almost = Curve(lambda t: np.stack([np.cos(t), np.sin(t)], axis=1), 0.1, TURN - 0.1)
    assert almost.reach == pytest.approx(math.sin(0.1), rel=1e-4)


def test_points_of_a_closed_curve_are_periodic():
    closed = Curve(ellipse, 0, TURN, True)
    t = np.array([-1.0, 0.0, 3.0, TURN, 100.0])
    np.testing.assert_allclose(closed.points(t), ellipse(t), rtol=0, atol=1e-12)
    open_curve = Curve(helix, -4, 5)
    np.testing.assert_allclose(open_curve.points([-4, 5]), helix(np.array([-4, 5])), atol=1e-12)
    with pytest.raises(ValueError, match=r"t ranges from -5 to 5; expected -4 to 5"):
        open_curve.points([-5, 5])
    for t in (np.zeros((2, 2)), [np.nan]):
        with pytest.raises(ValueError, match="t of shape"):
            open_curve.points(t)


def square(t):
    """Corners at halves of the range, where panels meet, and at a third, where they do not."""
    return np.stack([t, np.abs(t)], axis=1)


@pytest.mark.parametrize(
    ("function", "start", "stop", "closed", "message"),
    [
        (square, -1, 1, False, "the velocity of the curve jumps by .* at t=0"),
        (square, -1, 2, False, r"not smooth enough near t=.*: the interpolation error there is \d"),
        (helix, 0, 1, True, "the position of the curve jumps .* closed=False"),
        (lambda t: ellipse(t) + np.floor(t)[:, None], 0, 2, False, "not smooth enough near t=0.99"),
        (
            lambda t: np.stack([t**2, t**3], 1),
            -1,
            1,
            False,
            "derivative of the curve is zero at t=0",
        ),
        (lambda t: np.ones((len(t), 2)), 0, 1, False, "derivative of the curve is zero"),
        (lambda t: np.stack([t, np.sqrt(t)], 1), 0, 1, False, "not smooth enough near t=1.5"),
        (lambda t: np.sin(1e6 * np.stack([t, 2 * t], 1)), 0, 1, False, "not smooth enough"),
        (lambda t: np.stack([t, 1 / t], 1), 0, 1, False, "NaN or infinity at t=0"),
        (lambda t: t, 0, 1, False, r"function returned shape \(200,\) for 200 parameters"),
        (lambda t: np.ones((3, 2)), 0, 1, False, r"function returned shape \(3, 2\)"),
        (ellipse, 1, 1, False, "start=1 and stop=1; expected start < stop"),
        (ellipse, 0, np.inf, False, "stop=inf is out of range"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_curves(function, start, stop, closed, message):
    with pytest.raises(ValueError, match=message):
        Curve(function, start, stop, closed)


def test_bad_parameters_of_a_curve():
    with pytest.raises(TypeError, match="function=3 is not callable"):
        Curve(3, 0, 1)
    with pytest.raises(TypeError, match="closed=1 has type int"):
        Curve(ellipse, 0, 1, closed=1)
    with pytest.raises(ValueError, match="memory_limit=0 is out of range"):
        Curve(ellipse, 0, 1, memory_limit=0)
    with pytest.raises(ValueError, match="tol=-1 is out of range"):
        Curve(ellipse, 0, 1, tol=-1)


# ---------------------------------------------------------------------------------- point clouds


@pytest.mark.parametrize("d", [1, 3, 11, 30])
@pytest.mark.parametrize("memory_limit", [0.01, 64])
def test_nearest_of_the_points(d, memory_limit):
    """Against a loop, with the points far from zero, where squares of distances lose digits."""
    rng = np.random.RandomState(0)
    points = 1e4 + rng.normal(size=(200, d))
    X = 1e4 + rng.normal(size=(50, d))
    cloud = PointCloud(points, 1, memory_limit=memory_limit)
    expected = [points[np.sum((points - x) ** 2, axis=1).argmin()] for x in X]
    np.testing.assert_array_equal(cloud.project(X), expected)
    np.testing.assert_array_equal(cloud.project(points), points)


def test_nearest_in_clusters_far_apart():
    """Squares of 1e6 hide which point of a cluster is nearest; more candidates are compared."""
    rng = np.random.RandomState(0)
    centers = np.array([[1e6], [-1e6]])
    points, X = ((centers[:, :, None] + 0.1 * rng.normal(size=(2, 100, 12))) for _ in range(2))
    points, X = points.reshape(-1, 12), X.reshape(-1, 12)
    expected = [points[np.sum((points - x) ** 2, axis=1).argmin()] for x in X]
    np.testing.assert_array_equal(PointCloud(points, 1).project(X), expected)


@pytest.mark.parametrize("d", [2, 11])
def test_tree_and_products_agree(d):
    """Also in the order of neighbours: the tangents are the same."""
    points = np.zeros((100, 11))
    points[:, :d] = np.random.RandomState(0).normal(size=(100, d))
    X = np.random.RandomState(1).normal(size=(20, 11))
    wide, narrow = PointCloud(points, 2), PointCloud(points[:, :d], 2)
    np.testing.assert_array_equal(wide.project(X)[:, :d], narrow.project(X[:, :d]))
    spans = [T @ np.swapaxes(T, 1, 2) for T in (wide.tangent(X), narrow.tangent(X[:, :d]))]
    np.testing.assert_allclose(spans[0][:, :d, :d], spans[1], atol=1e-9)


@pytest.mark.parametrize("d", [2, 11])
def test_ties_and_duplicates(d):
    """One of the nearest points; tangents are finite even where all neighbours are equal."""
    points = np.zeros((9, d))
    points[5:, 0] = 2.0
    cloud = PointCloud(points, 1, n_neighbors=3)
    X = np.zeros((2, d))
    X[:, 0] = 1.0
    np.testing.assert_allclose(cloud.distance(X), 1)
    assert np.isin(cloud.project(X)[:, 0], [0, 2]).all()
    np.testing.assert_allclose(np.linalg.norm(cloud.tangent(X), axis=1), 1)


def test_tangents_of_a_cloud():
    """Of 500 points on a circle, with 8 neighbours: the error is the asymmetry of their spacing."""
    t = np.sort(np.random.RandomState(0).uniform(0, TURN, 500))
    cloud = PointCloud(np.stack([np.cos(t), np.sin(t)], axis=1))
    assert cloud.dimension == 1
    assert cloud.n_neighbors == 8
    P = cloud.project(queries(2))
    exact = np.stack([-P[:, 1], P[:, 0]], axis=1)
    cosines = np.abs(np.einsum("nd,nd->n", exact, cloud.tangent(queries(2))[:, :, 0]))
    assert np.all(cosines > 0.999)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"points": np.zeros(3)}, ValueError, r"points has shape \(3,\)"),
        ({"points": [[np.nan, 0.0]]}, ValueError, "points holds 1 values that are NaN or infinite"),
        ({"n_components": 3}, ValueError, "n_components=3 is too large"),
        ({"n_components": 0}, ValueError, "n_components=0 is too small"),
        ({"n_components": "all"}, ValueError, "n_components='all' is not known"),
        ({"n_components": 1.0}, TypeError, "n_components=1.0 has type float"),
        ({"n_neighbors": 2, "n_components": 2}, ValueError, "expected 3 to 20"),
        ({"n_neighbors": 21}, ValueError, "n_neighbors=21 does not fit 20 points"),
        ({"n_neighbors": "all"}, ValueError, "n_neighbors='all' is not known"),
        ({"memory_limit": 0}, ValueError, "memory_limit=0 is out of range"),
    ],
)
def test_bad_clouds(parameters, error, message):
    points = np.random.RandomState(0).normal(size=(20, 2))
    with pytest.raises(error, match=message):
        PointCloud(**{"points": points, "n_components": 1, **parameters})


# ------------------------------------------------------------------------------ learned manifolds


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize(("d", "k"), [(2, 1), (4, 2), (15, 3)])
def test_rows_in_a_subspace_give_the_subspace(d, k, degree):
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.normal(size=(d, k)))[0]
    origin = rng.normal(size=d)
    rows = origin + rng.uniform(-1, 1, size=(300, k)) @ basis.T
    learned = LocalPolynomialManifold(k, degree=degree).fit(rows)
    exact = AffineSubspace.from_basis(origin, basis)
    X = origin + rng.uniform(-0.5, 0.5, size=(20, k)) @ basis.T + 0.1 * rng.normal(size=(20, d))
    np.testing.assert_allclose(learned.project(X), exact.project(X), rtol=0, atol=1e-10)
    spans = [T @ np.swapaxes(T, 1, 2) for T in (learned.tangent(X), exact.tangent(X))]
    np.testing.assert_allclose(*spans, rtol=0, atol=1e-9)


def slow_surface(p, rows, weights, n_neighbors, k, degree):
    """The local polynomial of the definition: a function of local coordinates, and the axes."""
    distances = np.linalg.norm(rows - p, axis=1)
    near = np.argsort(distances)[:n_neighbors]
    width = distances[near[-1]] * (1 + 1e-3)
    theta = weights[near] * (1 - (distances[near] / width) ** 2) ** 3
    Y = rows[near] - p
    mean = theta @ Y / theta.sum()
    axes = np.linalg.svd(np.sqrt(theta)[:, None] * (Y - mean))[2][:k]

    def monomials(s):
        s = s / width
        powers = itertools.product(range(degree + 1), repeat=k)
        return np.stack([np.prod(s**a, axis=1) for a in powers if sum(a) <= degree], axis=1)

    root = np.sqrt(theta)[:, None]
    solution = np.linalg.lstsq(root * monomials(Y @ axes.T), root * Y, rcond=None)[0]
    return lambda s: p + monomials(s) @ solution


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_projections_are_on_their_own_surface_and_perpendicular_to_it(degree):
    """The definition, on rows with noise and weights: the local polynomial is at p for s = 0 there.

    1e-6 allows for the difference quotient.
    """
    rng = np.random.RandomState(0)
    rows = sphere_points(400, 0) * [1.3, 1.0, 0.8] + 0.01 * rng.normal(size=(400, 3))
    weights = rng.uniform(0.5, 2, 400)
    learned = LocalPolynomialManifold(2, degree=degree, n_neighbors=40)
    learned.fit(rows, sample_weight=weights)
    X = sphere_points(12, 1) * [1.3, 1.0, 0.8] + 0.1 * rng.normal(size=(12, 3))
    P = learned.project(X)
    step = 1e-4
    for x, p, tangent in zip(X, P, learned.tangent(X), strict=True):
        surface = slow_surface(p, rows, weights, 40, 2, degree)
        np.testing.assert_allclose(surface(np.zeros((1, 2)))[0], p, rtol=0, atol=1e-11)
        derivative = (surface(step * np.eye(2)) - surface(-step * np.eye(2))) / (2 * step)
        np.testing.assert_allclose(derivative @ (x - p), 0, atol=1e-6)
        along = derivative @ tangent @ tangent.T
        np.testing.assert_allclose(along, derivative, rtol=0, atol=1e-6)


def test_rates():
    """Of the mean distance to a sphere, from queries off it, over 400 to 6400 rows.

    The spacing falls by 4, so a surface of degree 1 should improve by 16 and one of degree 2 by 64 (by
    256 where the error of odd order cancels); measured are 11 and 127. Neighbourhoods grow with log N.
    """
    X = sphere_points(200, 1) * np.random.RandomState(2).uniform(0.8, 1.2, (200, 1))
    gains = {}
    for degree in (1, 2):
        errors = []
        for n in (400, 6400):
            learned = LocalPolynomialManifold(2, degree=degree).fit(sphere_points(n, 0))
            errors.append(np.abs(np.linalg.norm(learned.project(X), axis=1) - 1).mean())
        gains[degree] = errors[0] / errors[1]
    assert gains[1] > 6
    assert gains[2] > 40
    assert gains[2] > 4 * gains[1]


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize(
    ("d", "k", "noise"), [(2, 1, 0.02), (3, 2, 0.02), (10, 1, 0.0), (10, 1, 0.02), (10, 2, 0.02)]
)
def test_derivative_of_a_learned_projection(d, k, degree, noise):
    """Against central differences of step 1e-6: feet exact to 1e-13 make an error of 1e-7.

    Rows with weights on an ellipse or an ellipsoid, turned into R^d, and more directions than neighbours
    span in one case; queries within a third of the reach.
    """
    rng = np.random.RandomState(0)
    rows = sphere_points(120 if k == 1 else 300, 0, k + 1) * [1.3, 1.0, 0.8][: k + 1]
    rows = rows @ np.linalg.qr(rng.normal(size=(d, d)))[0][: k + 1]
    rows = rows + noise * rng.normal(size=rows.shape)
    n_neighbors = 9 if (d, k, degree) == (10, 1, 1) else 25
    learned = LocalPolynomialManifold(k, degree=degree, n_neighbors=n_neighbors)
    learned.fit(rows, sample_weight=rng.uniform(0.5, 2, len(rows)))
    X = rows[:8] + 0.15 / np.sqrt(d) * rng.normal(size=(8, d))
    J = derivative_of(learned, X)
    assert np.linalg.matrix_rank(J, tol=1e-9).tolist() == [k] * 8
    np.testing.assert_allclose(central_differences(learned, X, 1e-6), J, rtol=0, atol=1e-6)
    # The manifold's tangents are not those of its polynomials, so it is not symmetric.
    assert np.abs(J - np.swapaxes(J, 1, 2)).max() > 1e-4


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_tiles_do_not_change_a_learned_derivative(degree):
    X = sphere_points(20, 1) * 1.1
    rows = sphere_points(300, 0)
    tiled, whole = (
        LocalPolynomialManifold(2, degree=degree, memory_limit=limit).fit(rows)
        for limit in (0.02, 64)
    )
    np.testing.assert_allclose(derivative_of(tiled, X), derivative_of(whole, X), atol=1e-11)


@pytest.mark.filterwarnings("ignore:the neighbours of")
def test_derivative_of_polynomials_of_lower_degree():
    """On 3 x 3 rows cubic terms are not determined, and polynomials of degree two are fitted."""
    rng = np.random.RandomState(0)
    rows = np.array([[i, j, 0.1 * i * i - 0.05 * i * j] for i in range(3) for j in range(9)])
    learned = LocalPolynomialManifold(2, degree=3, n_neighbors=12).fit(rows)
    X = rows[9:18] + 0.1 * rng.normal(size=(9, 3))
    lower = learned._solve(learned._coordinates(torch.tensor(X))).degrees < 3
    assert lower.any()
    found, expected = derivative_of(learned, X), central_differences(learned, X, 1e-6)
    np.testing.assert_allclose(found[lower], expected[lower], rtol=0, atol=1e-6)


def test_a_learned_derivative_is_finite_where_there_is_none():
    """At the middle of a circle, and for rows on a lattice of no direction."""
    t = np.linspace(0, TURN, 40, endpoint=False)
    learned = LocalPolynomialManifold(1).fit(np.stack([np.cos(t), np.sin(t)], axis=1))
    assert np.isfinite(derivative_of(learned, np.zeros((1, 2)))).all()
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    learned = LocalPolynomialManifold(1, degree=1, n_neighbors=4).fit(square)
    assert np.isfinite(derivative_of(learned, [[0.5, 0.5], [0.5, 0.6]])).all()


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_gap_of_idempotence(degree):
    """The bounds of the docstring, with the default iterations."""
    X = sphere_points(300, 1) * np.random.RandomState(2).uniform(0.7, 1.3, (300, 1))
    learned = LocalPolynomialManifold(2, degree=degree).fit(sphere_points(400, 0))
    P = learned.project(X)
    assert np.linalg.norm(learned.project(P) - P, axis=1).max() < 1e-13


def test_noise_is_averaged():
    """With enough neighbours, projections of noisy rows are nearer to the manifold than the rows."""
    noise = 0.05 * np.random.RandomState(1).normal(size=(2000, 3))
    rows = sphere_points(2000, 0) + noise
    learned = LocalPolynomialManifold(2, n_neighbors=100).fit(rows)
    left = np.abs(np.linalg.norm(learned.project(rows[:300]), axis=1) - 1)
    before = np.abs(np.linalg.norm(rows[:300], axis=1) - 1)
    assert left.mean() < 0.3 * before.mean()


def test_weights_are_repetitions():
    """A row of weight two is two rows; one of weight zero is none."""
    rows, X = sphere_points(200, 0), queries(3)
    weights = np.random.RandomState(0).randint(0, 3, size=200)
    settings = {"n_components": 2, "n_neighbors": 20}
    weighted = LocalPolynomialManifold(**settings).fit(rows, sample_weight=weights)
    repeated = LocalPolynomialManifold(**settings).fit(np.repeat(rows, weights, axis=0))
    np.testing.assert_allclose(weighted.project(X), repeated.project(X), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(weighted.points_, np.unique(rows[weights > 0], axis=0))
    assert weighted.weights_.sum() == pytest.approx(1)
    unweighted = LocalPolynomialManifold(**settings).fit(rows)
    assert np.abs(weighted.project(X) - unweighted.project(X)).max() > 1e-4


@pytest.mark.parametrize("rows", ["on two lines", "on a grid"])
@pytest.mark.parametrize("degree", [2, 3])
def test_degenerate_neighbourhoods(rows, degree):
    """Lines do not determine a polynomial of two variables, and 3 x 3 grids none of degree 3."""
    if rows == "on two lines":
        t = np.linspace(0, 1, 40)
        rows = np.concatenate([np.stack([t, 0 * t, 0 * t], 1), np.stack([0 * t, t, 5 + 0 * t], 1)])
    else:
        rows = np.array([[i, j, k] for i in range(3) for j in range(4) for k in (0, 50)]) * 1.0
        degree = 3
    learned = LocalPolynomialManifold(2, degree=degree, n_neighbors=12).fit(rows)
    X = rows[::5] + 0.1
    with pytest.warns(UserWarning, match=rf"\d+ of {len(X)} projections .* degree={degree};"):
        P = learned.project(X)
    assert np.all(np.isfinite(P))
    with pytest.warns(UserWarning, match=r"lower degree"):
        assert np.all(np.isfinite(learned.tangent(X)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LocalPolynomialManifold(2, degree=1, n_neighbors=12).fit(rows).project(X)


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("radius", [0.3, 3, 30])
def test_queries_beyond_the_reach(degree, radius):
    """Feet are perpendicular and on the right side of the sphere, but less accurate."""
    directions = sphere_points(100, 1)
    learned = LocalPolynomialManifold(2, degree=degree).fit(sphere_points(400, 0))
    P = learned.project(radius * directions)
    np.testing.assert_allclose(P, directions, rtol=0, atol=0.1)
    along = np.einsum("nd,ndk->nk", radius * directions - P, learned.tangent(radius * directions))
    np.testing.assert_allclose(along, 0, atol=1e-10 * radius)
    assert np.all(np.isfinite(learned.project(np.zeros((1, 3)))))


def test_it_is_an_estimator():
    learned = LocalPolynomialManifold(2, degree=3).fit(sphere_points(100, 0))
    assert learned.n_features_in_ == 3
    fresh = clone(learned)
    assert fresh.get_params() == learned.get_params()
    assert "degree=3" in repr(fresh)
    for call in (fresh.project, fresh.distance, fresh.tangent):
        with pytest.raises(NotFittedError):
            call(queries(3))


def test_a_failed_fit_leaves_the_old_one():
    learned = LocalPolynomialManifold(2).fit(sphere_points(100, 0))
    expected = learned.project(queries(3))
    with pytest.raises(ValueError, match="NaN"):
        learned.fit([[np.nan, 0.0]])
    with pytest.raises(ValueError, match="n_neighbors"):
        learned.set_params(n_neighbors=3).fit(sphere_points(100, 1))
    np.testing.assert_array_equal(learned.project(queries(3)), expected)
    learned.set_params(degree=3, n_iterations=1)
    np.testing.assert_array_equal(learned.project(queries(3)), expected)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_number_of_components_is_estimated(k):
    """Rows extend equally far in k directions: one in which they are narrow may count as noise."""
    rng = np.random.RandomState(0)
    rows = rng.normal(size=(500, k)) @ np.linalg.qr(rng.normal(size=(6, k)))[0].T
    assert LocalPolynomialManifold(degree=1).fit(rows).n_components_ == k
    assert PointCloud(rows).dimension == k


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"degree": 4}, ValueError, "degree=4 is not available"),
        ({"degree": 2.0}, TypeError, "degree=2.0 has type float"),
        ({"n_neighbors": 6}, ValueError, "with 6 coefficients; expected 7 to 30"),
        ({"n_neighbors": 31}, ValueError, "n_neighbors=31 does not fit 30 distinct rows"),
        ({"n_components": 4}, ValueError, "n_components=4 is too large; expected at most 3"),
        ({"n_iterations": 0}, ValueError, "n_iterations=0 is too small"),
        ({"memory_limit": -1}, ValueError, "memory_limit=-1 is out of range"),
    ],
)
def test_bad_parameters_of_a_learned_manifold(parameters, error, message):
    rows = sphere_points(30, 0)
    learned = LocalPolynomialManifold(**{"n_components": 2, **parameters})
    with pytest.raises(error, match=message):
        learned.fit(rows)
    with pytest.raises(ValueError, match="X has 1 distinct row"):
        LocalPolynomialManifold(1).fit(np.ones((5, 2)))


@pytest.mark.parametrize(
    ("parameters", "n_rows", "n_components", "degree"),
    [
        ({"n_components": 3, "degree": 3}, 15, 3, 2),
        ({"n_components": 2}, 6, 2, 1),
        ({}, 4, 1, 2),
        ({}, 3, 1, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:the neighbours of")
def test_few_rows_get_a_lower_degree_and_a_warning(parameters, n_rows, n_components, degree):
    rows = sphere_points(30, 0)[:n_rows]
    with pytest.warns(
        UserWarning, match=rf"X has {n_rows} distinct rows, too few .*degree {degree}\."
    ):
        learned = LocalPolynomialManifold(**parameters).fit(rows)
    assert learned.n_components_ == n_components
    assert np.all(np.isfinite(learned.project(rows)))


# --------------------------------------------------------------------------- intrinsic dimension


def slow_local_dimension(X, weights, i, v):
    """LID of row i at noise variance v, with half of sum_j W_j^2 added to its log-sum, row by row."""
    others = [j for j in range(len(X)) if j != i]

    def log_sum(v):
        kernels = [weights[j] * math.exp(-np.sum((X[j] - X[i]) ** 2) / (2 * v)) for j in others]
        return math.log(sum(kernels)) + sum(k * k for k in kernels) / (2 * sum(kernels) ** 2)

    return 2 * (log_sum(v * 1.001) - log_sum(v / 1.001)) / (2 * math.log(1.001))


def test_local_dimensions_by_the_formula():
    """Difference quotients; copies are one row with the sum of their weights."""
    X = np.random.RandomState(0).normal(size=(40, 3))
    result = intrinsic_dimension(np.concatenate([X, X[:10], X[:10]]))
    weights = np.where(np.arange(40) < 10, 3.0, 1.0)
    noise_part = set()
    for i in range(40):
        values = [slow_local_dimension(X, weights, i, y**2) for y in result.noise_scales]
        noise_part.add(tuple(np.round(np.array(values) - result.row_dimensions[i], 4)))
    # At one level, the same one for all rows, the difference is the noise's part: a constant.
    constant = [np.ptp(level) < 2e-4 for level in zip(*noise_part, strict=True)]
    assert constant.count(True) == 1
    np.testing.assert_array_equal(result.row_dimensions[:10], result.row_dimensions[40:50])


def test_dimension_of_moved_rows():
    """Of shape alone; variances and slopes in units of X squared and to the power of -2."""
    X = sphere_points(300, 0) @ np.eye(3, 5) + 0.05 * np.random.RandomState(1).normal(size=(300, 5))
    one = intrinsic_dimension(X)
    for scale in (1e-6, 1e6):
        other = intrinsic_dimension(scale * moved(X, similarity(5)) / similarity(5)[0])
        assert other.dimension == pytest.approx(one.dimension, rel=1e-9)
        assert other.noise_variance == pytest.approx(one.noise_variance * scale**2, rel=1e-9)
        assert other.curvature == pytest.approx(one.curvature / scale**2, rel=1e-7)
        np.testing.assert_allclose(other.row_dimensions, one.row_dimensions, rtol=1e-9)
    order = np.random.RandomState(2).permutation(300)
    assert intrinsic_dimension(X[order]).dimension == one.dimension
    # A constant column, and a copy of the table, are no dimensions.
    padded = intrinsic_dimension(np.column_stack([X, np.ones(300)]))
    assert padded.dimension == pytest.approx(one.dimension, rel=1e-9)
    assert float(intrinsic_dimension(np.concatenate([X, X]))) == pytest.approx(float(one))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("k", "std"), [(1, 0.05), (2, 0.05), (2, 0.1), (3, 0.05), (4, 0.0)])
def test_dimension_of_noisy_spheres(k, std, seed):
    """In R^8, 800 rows: the standard errors are .04 to .25, so .45 is beyond two of the largest."""
    X = sphere_points(800, seed, k + 1) @ np.eye(k + 1, 8)
    result = intrinsic_dimension(X + std * np.random.RandomState(seed).normal(size=X.shape))
    assert result.dimension == pytest.approx(k, abs=0.3 if k < 3 else 0.45)
    assert abs(result.dimension - k) < 3 * result.dimension_error
    assert abs(result.noise_variance - std**2) < 4 * result.noise_variance_error
    assert np.mean(result.row_dimensions) == pytest.approx(k, abs=0.5)


@pytest.mark.parametrize("k", [1, 3, 5, 10])
@pytest.mark.parametrize("std", [0.0, 0.05])
def test_dimension_of_flat_clouds(k, std):
    """Gaussian, in R^20; the errors of the model are 10 % at ten dimensions."""
    rng = np.random.RandomState(k)
    X = rng.normal(size=(700, k)) @ np.eye(k, 20) + std * rng.normal(size=(700, 20))
    assert float(intrinsic_dimension(X)) == pytest.approx(k, abs=0.3 if k < 5 else 0.06 * k)


def test_the_error_of_the_curve_is_its_spread_over_tables():
    """30 tables: the standard deviation of a standard deviation is 13 %; 40 % is three of them."""
    results = [intrinsic_dimension(sphere_points(150, seed)) for seed in range(30)]
    n_levels = min(len(result.curve) for result in results)
    curves = np.array([result.curve[-n_levels:] for result in results])
    errors = np.mean([result.curve_error[-n_levels:] for result in results], axis=0)
    np.testing.assert_allclose(errors, curves.std(axis=0, ddof=1), rtol=0.4)


def test_the_error_of_the_dimension_covers_uneven_curvature():
    """Klein bottles, in R^4 with noise .05: a bias of .14 beside standard errors of .1."""
    for seed in range(10, 14):
        rng = np.random.RandomState(seed)
        u, w = rng.uniform(0, 2 * np.pi, size=(2, 500))
        ring = (2 + np.cos(w)) * np.stack([np.cos(u), np.sin(u)])
        X = np.vstack([ring, np.sin(w) * np.stack([np.cos(u / 2), np.sin(u / 2)])]).T
        result = intrinsic_dimension(X + 0.05 * rng.normal(size=X.shape))
        assert abs(result.dimension - 2) < min(2 * result.dimension_error, 0.3)


def test_groups_and_far_rows_have_the_dimension_of_a_group():
    rng = np.random.RandomState(0)
    plane = rng.normal(size=(300, 2)) @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:2]
    for X in (
        np.concatenate([plane, rng.permutation(plane) + 1e4 * plane[:1]]),
        np.concatenate([plane, 1e6 * rng.normal(size=(2, 5))]),
    ):
        assert float(intrinsic_dimension(X)) == pytest.approx(2, abs=0.4)
    for far in (1e11, 1e13, 1e15):
        X = np.concatenate([plane, plane[:1] + far])
        assert float(intrinsic_dimension(X)) == pytest.approx(2, abs=0.4)
    line = 5 + rng.uniform(-1, 1, size=(300, 1)) * plane[:1]
    rows = intrinsic_dimension(np.concatenate([line, plane])).row_dimensions
    assert np.mean(rows[:300]) == pytest.approx(1, abs=0.3)
    assert np.mean(rows[300:]) == pytest.approx(2, abs=0.3)


def test_bad_rows_for_a_dimension():
    for X in (np.zeros(3), [[np.nan, 1.0]], np.zeros((0, 2))):
        with pytest.raises(ValueError, match=r"2D array|NaN in column 0|minimum of 1"):
            intrinsic_dimension(X)
    with pytest.raises(ValueError, match="X has 1 distinct row among 5; expected several"):
        intrinsic_dimension(np.ones((5, 2)))
    with pytest.raises(ValueError, match="X has 3 distinct rows in 2 dimensions: at no noise"):
        intrinsic_dimension([[0.0, 0.0], [1.0, 0.0], [0.0, 1.5], [1.0, 0.0]])
    with pytest.raises(ValueError, match="X has 2 distinct rows in 1 dimensions"):
        intrinsic_dimension([[0.0, 1.0], [1.0, 0.0]])
    for unit, message in ((1e160, "squares would overflow"), (1e-200, "squares of other values")):
        with pytest.raises(ValueError, match=message):
            intrinsic_dimension(unit * np.random.RandomState(0).normal(size=(30, 2)))
    with pytest.raises(ValueError, match="equally far, as in a lattice"):
        intrinsic_dimension(np.eye(20))
