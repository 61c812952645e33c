"""Parts of the heat kernel of spheres and rotations, and of densities and scores, by definition."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import CubicSpline
from scipy.linalg import expm
from scipy.special import eval_gegenbauer, eval_legendre, gamma, logsumexp

from skdiffsmooth._engine import sphere
from skdiffsmooth._engine.sphere import HeatKernel, SpherePosterior, heat_kernel

THETA = np.linspace(0, math.pi, 33)


def excess(log_kernel, v, theta):
    return log_kernel + theta**2 / (2 * v)


@pytest.mark.parametrize("v", [0.01, 0.3, 0.7, 4.0])
def test_the_circle(v):
    images = THETA[:, None] + 2 * math.pi * np.arange(-9, 10)
    expected = logsumexp(-(images**2) / (2 * v), axis=1) - 0.5 * math.log(2 * math.pi * v)
    found = sphere._excess_on_sphere(v, THETA, 1)
    # Beyond two turns images are below the rounding where noise is below a radian.
    atol = 1e-12 if v < 1 else 1e-3
    assert_allclose(found, excess(expected, v, THETA), atol=atol)


@pytest.mark.parametrize("v", [0.3, 0.49, 0.5, 0.51, 3.0])
def test_the_sphere_and_its_series(v):
    k = np.arange(40)[:, None]
    terms = (2 * k + 1) * np.exp(-k * (k + 1) * v / 2) * eval_legendre(k, np.cos(THETA))
    # Near the far pole the series is a small difference of large terms.
    near = THETA < 2.4 if v < 0.5 else THETA < 4
    expected = np.log(terms.sum(axis=0)[near] / (4 * math.pi))
    found = sphere._excess_on_sphere(v, THETA, 2)[near]
    assert_allclose(found, excess(expected, v, THETA[near]), atol=1e-10)


@pytest.mark.parametrize("v", [1e-4, 0.001, 0.05, 0.4])
def test_the_sphere_at_low_noise(v):
    """The integral again, by many short rules, also at both poles."""
    theta = np.array([0.0, 0.7, 2.0, math.pi])
    nodes, weights = np.polynomial.legendre.leggauss(20)
    cuts = np.append(np.linspace(0, 0.1, 41), np.linspace(0.1, math.pi / 2, 61)[1:])
    half = np.diff(cuts)[:, None] / 2
    a, weights = (cuts[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()
    k = np.arange(-2, 3)[:, None]
    for angle, value in zip(theta, sphere._excess_on_s2(v, theta), strict=True):
        phi = 2 * (a if angle == 0 else np.arccos(math.cos(angle / 2) * np.cos(a)))
        turned = phi + 2 * math.pi * k
        terms = (-1.0) ** k * turned * np.exp((angle**2 - turned**2) / (2 * v))
        integral = weights @ (terms.sum(axis=0) / np.sin(phi / 2))
        expected = math.log(2 * integral) + v / 8 - 1.5 * math.log(2 * math.pi * v)
        assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("v", [0.02, 0.2, 0.45, 0.55, 2.0])
def test_the_sphere_of_three_dimensions(v):
    """Its kernel is a sum over images: exp(v / 2) (2 pi v)^(-3/2) sum x exp(-x^2 / 2 v) / sin."""
    # The slopes of the spline below need as many angles as the kernel has.
    theta = np.linspace(0, math.pi, 1025)
    inner = (theta > 0.05) & (theta < 3.1)
    images = theta[inner, None] + 2 * math.pi * np.arange(-4, 5)
    terms = images * np.exp((theta[inner, None] ** 2 - images**2) / (2 * v))
    expected = np.log(terms.sum(axis=1) / np.sin(theta[inner])) + v / 2
    expected -= 1.5 * math.log(2 * math.pi * v)
    found = sphere._excess_on_sphere(v, theta, 3)
    assert_allclose(found[inner], expected, atol=1e-6)
    # At the poles the limits, by the rule of de l'Hospital.
    # The curvature of the spline, which the far end is computed from, is less accurate than its slope.
    for end, sign, atol in ((0, 1, 1e-6), (-1, -1, 1e-3 if v > 0.1 else 0.1)):
        images = theta[end] + 2 * math.pi * np.arange(-4, 5)
        slopes = (1 - images**2 / v) * np.exp((theta[end] ** 2 - images**2) / (2 * v))
        limit = math.log(sign * slopes.sum()) + v / 2 - 1.5 * math.log(2 * math.pi * v)
        assert found[end] == pytest.approx(limit, abs=atol)


@pytest.mark.parametrize("dimension", [4, 5])
@pytest.mark.parametrize("v", [0.45, 0.6])
def test_higher_spheres(v, dimension):
    theta = np.linspace(0, math.pi, 1025)
    order, k = (dimension - 1) / 2, np.arange(40)[:, None]
    some = theta[1:800:100]
    terms = (k / order + 1) * np.exp(-k * (k + dimension - 1) * v / 2)
    total = np.sum(terms * eval_gegenbauer(k, order, np.cos(some)), axis=0)
    area = 2 * math.pi ** (order + 1) / gamma(order + 1)
    found = sphere._excess_on_sphere(v, theta, dimension)[1:800:100]
    assert_allclose(found, excess(np.log(total / area), v, some), atol=1e-6)


@pytest.mark.parametrize("v", [0.02, 0.3, 0.49, 0.5, 0.8, 5.0])
def test_rotations(v):
    """The kernel of pairs +-q is that of both points on the sphere of three dimensions."""
    theta = np.linspace(0, math.pi / 2, 17)
    images = theta[1:, None] + math.pi * np.arange(-8, 9)
    signs = (-1.0) ** np.arange(-8, 9)
    # Images of q and of -q, with the mirror image's sign of the sine.
    terms = signs * images * np.exp((theta[1:, None] ** 2 - images**2) / (2 * v))
    expected = np.log(terms.sum(axis=1) / np.sin(theta[1:])) + v / 2
    expected -= 1.5 * math.log(2 * math.pi * v)
    found = sphere._excess_of_rotations(v, theta)
    assert_allclose(found[1:], expected, atol=1e-8 if v < 1 else 1e-6)
    assert_allclose(found[0], found[1], atol=0.02 / v)
    # The pole is where the curve is flat.
    fine = sphere._excess_of_rotations(v, np.array([0.0, 1e-4, 2e-4]))
    assert_allclose(fine, fine[0], atol=1e-7 / v)


@pytest.mark.parametrize("v", [0.001, 0.5])
def test_values_are_those_of_the_spline(v):
    """Clamped at zero and, where angles are close enough, at the far end."""
    theta = np.linspace(0, math.pi, 65)
    own = np.cos(theta) + 0.1 * theta**2
    kernel = sphere._kernel_of(v, theta, own)
    is_clamped = v > 2 * theta[1]
    assert is_clamped == (v == 0.5)
    end = (1, math.pi / v) if is_clamped else (2, 0.0)
    spline = CubicSpline(theta, own, bc_type=((1, 0.0), end))
    at = np.array([[0.0, 0.01, 1.0], [2.0, 3.14, math.pi]])
    found = kernel.values(at)
    assert_allclose(found.log, spline(at) - at**2 / (2 * v), rtol=1e-9, atol=1e-12)
    assert_allclose(found.slope, spline(at, 1) - at / v, rtol=1e-9, atol=1e-10)
    assert_allclose(found.curvature, spline(at, 2) - 1 / v, rtol=1e-9, atol=1e-9)
    assert kernel.last == math.pi


def test_kernels_of_a_variance_are_made_once():
    kernel = heat_kernel(0.37, 2)
    assert heat_kernel(0.37, 2) is kernel
    assert kernel.coefficients.shape == (4, 1024)
    assert kernel.last == math.pi
    assert heat_kernel(0.37, 3, is_antipodal=True).last == math.pi / 2
    assert_allclose(heat_kernel(0.37).values(THETA).log, kernel.values(THETA).log)


class Given:
    """Random numbers that are given."""

    def __init__(self, values):
        self.values = values

    def uniform(self, size):
        assert size == len(self.values)
        return self.values


@pytest.mark.parametrize(("v", "dimension"), [(0.3, 2), (0.01, 3), (2.0, 3)])
def test_angles_are_quantiles(v, dimension):
    u = np.array([0.0, 0.1, 0.5, 0.9, 0.999])
    kernel = heat_kernel(v, dimension)
    drawn = kernel.draw_angles(Given(u), 5, dimension)
    theta = np.linspace(0, min(math.pi, 12 * math.sqrt(v)), 200_001)
    density = np.exp(kernel.values(theta).log) * np.sin(theta) ** (dimension - 1)
    cumulated = np.cumsum(density) / density.sum()
    assert_allclose(np.interp(drawn, theta, cumulated), u, atol=1e-4)
    last = HeatKernel(v, 0.5, kernel.coefficients)
    assert last.draw_angles(Given(np.ones(1)), 1, 2)[0] == min(0.5, 10 * math.sqrt(v))


# ------------------------------------------------------------------------------- densities, scores


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def log_density(points, weights, x, v, is_antipodal):
    kernel = heat_kernel(v, points.shape[1] - 1, is_antipodal=is_antipodal)
    cosine = points @ x
    if is_antipodal:
        cosine = np.abs(cosine)
    return logsumexp(np.log(weights) + kernel.values(np.arccos(cosine)).log)


@pytest.mark.parametrize(("d", "is_antipodal"), [(2, False), (3, False), (4, True)])
def test_fields_are_those_of_loops(d, is_antipodal):
    rng, v, n_rotations = np.random.default_rng(0), 0.4, 3
    points, x, weights = unit(rng, 5, d), unit(rng, 4, d), rng.dirichlet(np.ones(5))
    generators = rng.normal(size=(n_rotations, d, d))
    rotations = expm(generators - generators.swapaxes(1, 2))
    own = SpherePosterior(points, np.log(weights), is_antipodal=is_antipodal, memory_limit=9)
    for exclude in (None, np.array([4, 0, 1, 1])):
        found = own.field(x, v, rotations, exclude)
        alone = own.log_density(x, v, exclude)
        plain = own.field(x, v, rotations, exclude, derivatives=False)
        for b in range(4):
            left = weights.copy()
            if exclude is not None:
                left[exclude[b]] = 1e-300
                left /= left.sum()

            def averaged(y, left=left):
                each = [log_density(points, left, R @ y, v, is_antipodal) for R in rotations]
                return np.mean(each)

            assert found.log_density[b] == pytest.approx(averaged(x[b]), rel=1e-10)
            assert plain.log_density[b] == pytest.approx(averaged(x[b]), rel=1e-10)
            expected = log_density(points, left, x[b], v, is_antipodal)
            assert alone[b] == pytest.approx(expected, rel=1e-10)
            basis, step, laplacian = np.linalg.svd(x[b : b + 1])[2][1:], 1e-3, 0.0
            for direction in basis:
                ends = [
                    averaged(math.cos(step) * x[b] + math.sin(sign * step) * direction)
                    for sign in (1, -1)
                ]
                slope = (ends[0] - ends[1]) / (2 * step)
                assert found.score[b] @ direction == pytest.approx(slope, abs=1e-4)
                laplacian += (sum(ends) - 2 * averaged(x[b])) / step**2
            assert found.divergence[b] == pytest.approx(laplacian, abs=1e-3)
            assert found.score[b] @ x[b] == pytest.approx(0.0, abs=1e-12)
        assert (plain.score == 0).all()
        assert (plain.divergence == 0).all()


def test_queries_at_points_and_opposite_to_them():
    point = np.array([[0.6, 0.8, 0.0]])
    own = SpherePosterior(point, np.zeros(1), is_antipodal=False, memory_limit=9)
    x = np.concatenate([point, -point, point * (1 + 1e-16)])
    found = own.field(x, 0.5, np.eye(3)[None])
    kernel = heat_kernel(0.5, 2)
    ends = kernel.values(np.array([0.0, math.pi]))
    assert_allclose(found.log_density[:2], ends.log, atol=1e-9)
    assert_allclose(found.score, 0.0, atol=1e-6)
    # At the pole the Laplacian is twice the curvature.
    assert found.divergence[0] == pytest.approx(2 * ends.curvature[0], rel=1e-6)
    assert np.isfinite(found.divergence).all()


def test_cosines_beyond_one_are_rounding():
    x = unit(np.random.default_rng(0), 200, 3)
    cosine = np.einsum("ij,ij->i", x, x)
    assert cosine.max() > 1
    for sign in (1, -1):
        own = SpherePosterior(x, np.full(200, -math.log(200)), is_antipodal=False, memory_limit=9)
        assert np.isfinite(own.log_density(sign * x, 0.5)).all()


def test_weights_of_other_points():
    points = np.eye(3)
    for weights in ([0.5, 0.3, 0.2], [1 - 3e-17, 1e-17, 2e-17]):
        own = SpherePosterior(points, np.log(weights), is_antipodal=False, memory_limit=9)
        expected = [np.log(np.sum(np.delete(weights, i))) for i in range(3)]
        assert_allclose(own._log_others, expected, rtol=1e-12, atol=1e-16)
    one = SpherePosterior(points[:1], np.zeros(1), is_antipodal=False, memory_limit=9)
    assert one._log_others.tolist() == [0.0]


@pytest.mark.parametrize(("memory_limit", "rows"), [(9.0, 174), (1.0, 21), (1e-9, 1)])
def test_queries_at_once(memory_limit, rows, monkeypatch):
    """Of each query 160 bytes for each rotation and point, in at most 8 MiB."""
    rng = np.random.default_rng(0)
    own = SpherePosterior(
        unit(rng, 60, 3), np.log(np.full(60, 1 / 60)), is_antipodal=False, memory_limit=memory_limit
    )
    sizes = []

    def counted(x, v, rotations, exclude, derivatives):
        sizes.append(len(x))
        return sphere.SphereField(x, np.zeros(len(x)), np.zeros(len(x)))

    monkeypatch.setattr(own, "_field", counted)
    x = unit(rng, 400, 3)
    found = own.field(x, 0.1, np.tile(np.eye(3), (5, 1, 1)))
    assert int(min(memory_limit, 8) * 2**20 / (160 * 5 * 60)) in (rows, rows - 1)
    assert sizes[0] == rows
    assert (found.score == x).all()
