"""Heat kernels of the sphere and of rotations, and scores smoothed by rotations."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import expm
from scipy.special import gamma

from skdiffsmooth._engine.sphere import SpherePosterior, heat_kernel


def series(v, theta, is_antipodal):
    """Return the kernel by its series, with 60 digits."""
    with mpmath.workdps(60):
        v, theta = mpmath.mpf(v), mpmath.mpf(theta)
        total = mpmath.mpf(0)
        for k in range(int(16 / mpmath.sqrt(v)) + 8):
            if is_antipodal:
                order = 2 * k + 1
                wave = mpmath.sin(order * theta) / mpmath.sin(theta)
                total += order * wave * mpmath.exp((1 - order**2) * v / 2) / mpmath.pi**2
            else:
                wave = mpmath.legendre(k, mpmath.cos(theta))
                total += (2 * k + 1) * wave * mpmath.exp(-k * (k + 1) * v / 2) / (4 * mpmath.pi)
        return float(mpmath.log(total))


@pytest.mark.parametrize("is_antipodal", [False, True])
@pytest.mark.parametrize("v", [0.02, 0.45, 0.6, 4.0])
def test_the_heat_kernel_equals_its_series(v, is_antipodal):
    theta = np.array([0.01, 0.5, 1.2, 1.5])
    expected = [series(v, each, is_antipodal) for each in theta]
    # The spline's error between its knots.
    actual = heat_kernel(v, is_antipodal=is_antipodal).values(theta).log
    assert_allclose(actual, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dimension", [3, 4, 5])
@pytest.mark.parametrize("v", [0.05, 0.45, 0.6])
def test_heat_kernels_of_higher_spheres_equal_their_series(v, dimension):
    order, exact = mpmath.mpf(dimension - 1) / 2, mpmath.mpf(v)
    theta = np.array([1e-3, 0.5, 1.2, 2.9])
    expected = []
    with mpmath.workdps(60):
        area = 2 * mpmath.pi ** (order + 1) / mpmath.gamma(order + 1)
        for angle in theta:
            before, wave, total = mpmath.mpf(0), mpmath.mpf(1), mpmath.mpf(0)
            cosine = mpmath.cos(angle)
            for k in range(int(16 / np.sqrt(v)) + 8):
                total += (k / order + 1) * wave * mpmath.exp(-k * (k + dimension - 1) * exact / 2)
                following = 2 * (k + order) * cosine * wave - (k + 2 * order - 1) * before
                before, wave = wave, following / (k + 1)
            expected.append(float(mpmath.log(total / area)))
    # Slopes of the spline that a kernel is made of, two dimensions below.
    actual = heat_kernel(v, dimension).values(theta).log
    assert_allclose(actual, expected, rtol=0, atol=1e-7)
    # The area of the sphere, and a kernel near the spacing of the spline's knots.
    sphere = 2 * np.pi ** (dimension / 2) / gamma(dimension / 2)
    theta = np.linspace(0, np.pi, 4001)
    for noise in (1e-4, v):
        kernel = np.exp(heat_kernel(noise, dimension).values(theta).log)
        mass = np.trapezoid(sphere * np.sin(theta) ** (dimension - 1) * kernel, theta)
        assert_allclose(mass, 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_antipodal", [False, True])
@pytest.mark.parametrize("v", [1e-8, 1e-4, 0.1, 30.0])
def test_the_heat_kernel_has_mass_one(v, is_antipodal):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    kernel = heat_kernel(v, is_antipodal=is_antipodal)
    # Twelve standard deviations, or all angles.
    last = min(kernel.last, 12 * np.sqrt(v))
    theta = last * (nodes + 1) / 2
    area = 2 * np.pi * np.sin(theta) if not is_antipodal else 4 * np.pi * np.sin(theta) ** 2
    mass = weights @ (area * np.exp(kernel.values(theta).log)) * last / 2
    # Cosines of angles as small as 1e-4 are rounded.
    assert_allclose(mass, 1, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("d", "is_antipodal"), [(3, False), (4, True), (6, False)])
@pytest.mark.parametrize("v", [0.01, 0.8])
def test_score_and_divergence_are_derivatives_of_the_averaged_log_density(v, d, is_antipodal):
    rng = np.random.RandomState(0)
    points, x = (rng.normal(size=(n, d)) for n in (12, 5))
    points, x = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (points, x))
    generators = 0.3 * rng.normal(size=(6, d, d))
    rotations = expm(generators - generators.transpose(0, 2, 1))
    posterior = SpherePosterior(
        points, np.log(np.full(12, 1 / 12)), is_antipodal=is_antipodal, memory_limit=100
    )
    field = posterior.field(x, v, rotations)
    step = 1e-4
    for k in range(len(x)):
        basis = np.linalg.svd(x[k : k + 1])[2][1:]
        ends = np.concatenate([np.cos(step) * x[k] + s * np.sin(step) * basis for s in (1, -1)])
        values = posterior.field(ends, v, rotations).log_density.reshape(2, d - 1)
        # Central differences, of second order in the step.
        gradient = (values[0] - values[1]) / (2 * step)
        laplacian = np.sum(values - field.log_density[k]) / step**2
        assert_allclose(basis @ field.score[k], gradient, rtol=1e-4, atol=1e-4)
        assert_allclose(field.divergence[k], laplacian, rtol=1e-3, atol=1e-2)
        assert abs(field.score[k] @ x[k]) < 1e-9 / v
