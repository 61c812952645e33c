"""Kernels on circles and squares of distances, at the ends of what is summed."""

import math

import numpy as np
import pytest

from skdiffsmooth._utils import kernel_weights
from skdiffsmooth._utils.kernel_weights import (
    log_kernel_weights,
    log_wrapped_kernel,
    nearest_squares,
)


def test_scales_above_a_period_are_uniform():
    """At one period the images are summed; beyond, the kernel is its mean over a turn."""
    u = np.array([-1.5, 0.0, 1.0])
    beyond = log_wrapped_kernel(u, 3.0, np.nextafter(3.0, 4))
    np.testing.assert_allclose(beyond, 0.5 * math.log(2 * math.pi), rtol=1e-12)
    assert np.ptp(beyond) == 0
    # Summed, 1 + 2 exp(-2 pi^2) cos(2 pi u / period) times that.
    ripple = 2 * math.exp(-2 * math.pi**2) * np.cos(2 * math.pi * u / 3)
    found = log_wrapped_kernel(u, 3.0, 3.0)
    np.testing.assert_allclose(found - beyond, ripple, atol=1e-9)
    assert np.ptp(found) > 3e-9
    np.testing.assert_allclose(
        log_wrapped_kernel(u, 3.0, 12.0), math.log(4 * math.sqrt(2 * math.pi)), rtol=1e-12
    )


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.2, 0.33, 0.5, 0.9])
def test_images_down_to_a_ten_billionth_of_the_nearest_are_summed(ratio):
    """Half way round two images are equally near, and k further ones have -k (k - 1) in the exponent."""
    u = 0.5
    images = u + np.arange(-200, 201)
    terms = np.exp(-(images**2 - u**2) / (2 * ratio**2))
    expected = math.log(math.fsum(terms)) - u**2 / (2 * ratio**2)
    found = float(log_wrapped_kernel(np.array([u]), 1.0, ratio)[0])
    assert abs(found - expected) < 3e-10
    kept = math.fsum(terms[terms >= 1e-10])
    assert found >= math.log(kept) - u**2 / (2 * ratio**2) - 1e-12


def test_few_images_are_computed_for_narrow_kernels(monkeypatch):
    counted = []
    exp = np.exp
    monkeypatch.setattr(np, "exp", lambda values: counted.append(1) or exp(values))
    # 0.5 + sqrt(0.25 + 2 ratio^2 log 1e10), rounded up, on each side.
    for ratio, n_images in ((1e-3, 2), (0.2, 2), (0.21, 3), (0.36, 3), (0.37, 4), (1.0, 8)):
        counted.clear()
        log_wrapped_kernel(np.zeros(1), 1.0, ratio)
        assert len(counted) == 2 * n_images
    assert math.exp(kernel_weights.LOG_EPS) == pytest.approx(1e10)


def test_excess_squares_of_circles_far_from_all_centers():
    """A linear column at 1e9 keeps the digits of differences beside a circle."""
    values = np.array([[1e9, 0.4]])
    centers = np.array([[0.0, 0.0], [0.0, 1.0], [-1e-9, 2.6]])
    periods = np.array([0.0, 3.0])
    excess, smallest = nearest_squares(values, centers, periods)
    turns = [0.4, 0.6, 0.8]
    on_circle = np.array(
        [
            -2 * math.log(sum(math.exp(-((t + 3 * k) ** 2) / 2) for k in range(-30, 31)))
            for t in turns
        ]
    )
    expected = on_circle - on_circle[0] + np.array([0.0, 0.0, 2.0])
    np.testing.assert_allclose(excess[0], expected, atol=1e-8)
    assert smallest[0] == pytest.approx(1e18)
    weights = log_kernel_weights(values, centers, np.log([0.2, 0.3, 0.5]), periods)[0]
    posterior = np.array([0.2, 0.3, 0.5]) * np.exp(-expected / 2)
    np.testing.assert_allclose(np.exp(weights), posterior / posterior.sum(), rtol=1e-8)


def test_columns_on_circles_only():
    values, centers, periods = np.array([[0.1, 2.0]]), np.array([[2.9, 0.0]]), np.array([3.0, 5.0])
    excess, smallest = nearest_squares(values, centers, periods)
    assert excess[0, 0] == 0
    expected = 0.0
    for difference, period in ((0.2, 3.0), (2.0, 5.0)):
        images = difference + period * np.arange(-30, 31)
        expected -= 2 * math.log(np.sum(np.exp(-(images**2) / 2)))
    assert smallest[0] == pytest.approx(expected, abs=1e-8)
