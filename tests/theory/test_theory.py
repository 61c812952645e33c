"""Theorems about log-domain smoothing, checked on a circle (Farghly et al. 2025, sec. 3).

Everything is deterministic: densities are normalised on a polar grid. The bounds in the tests differ
by a factor of about two from the measured values; a page of the gallery shows more
(``examples/plot_07_divergence_grows_with_curvature.py``).
"""

import numpy as np
import pytest
from scipy.special import logsumexp

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.kernels._nodes import gaussian_nodes
from skdiffsmooth.manifolds import Circle, smooth_along_level_sets

RADII, ANGLES = np.linspace(0.4, 1.6, 121), np.linspace(0, 2 * np.pi, 120, endpoint=False)
R, A = (grid.ravel() for grid in np.meshgrid(RADII, ANGLES, indexing="ij"))
PLACES = np.column_stack([R * np.cos(A), R * np.sin(A)])
LOG_AREA = np.log(R * 0.01 * 2 * np.pi / 120)


@pytest.fixture(scope="module")
def X():
    """Independent uniform draws from the unit circle, whose reach is one."""
    angle = np.random.RandomState(0).uniform(0, 2 * np.pi, size=100)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def normalised(log_density):
    return log_density - logsumexp(log_density + LOG_AREA)


def log_smoothed(X, bandwidth, sigma):
    """exp of the averaged log-density, whose score is the smoothed score."""
    model = SmoothedScoreDiffusion(bandwidth, sigma, n_nodes=64, n_levels=2).fit(X)
    return normalised(-model.energy(PLACES))


def manifold_adapted(X, bandwidth, sigma):
    """The same along the level sets of the circle."""
    kde, offsets = KDESampler(bandwidth).fit(X), sigma * gaussian_nodes(2, 64, 0, 0)
    circle = Circle([0.0, 0.0], 1.0)
    return normalised(smooth_along_level_sets(kde.score_samples, circle, PLACES, offsets))


def distance(log_density):
    return np.exp(log_density + LOG_AREA) @ np.abs(R - 1)


def test_divergence_grows_with_the_scale_over_the_reach(X):
    """Thm 3.6: the Renyi divergence from the adapted density; here like sigma^4, 1.9e-3 and 3.5e-2."""
    found = []
    for sigma in (0.1, 0.2):
        p, q = log_smoothed(X, 0.15, sigma), manifold_adapted(X, 0.15, sigma)
        found.append(logsumexp(2 * p - q + LOG_AREA))
    assert 0 < found[0] < 5e-3
    assert 8 < found[1] / found[0] < 32


def test_mass_concentrates_as_if_unsmoothed(X):
    """Cor. 3.7: half the bandwidth, half the distance; smoothing the data themselves keeps it."""
    smoothed = [distance(log_smoothed(X, h, 0.15)) for h in (0.1, 0.05)]
    plain, wide = (
        [distance(normalised(KDESampler(width).fit(X).score_samples(PLACES))) for width in widths]
        for widths in ((0.1, 0.05), (np.hypot(0.1, 0.15), np.hypot(0.05, 0.15)))
    )
    assert smoothed[0] / smoothed[1] == pytest.approx(2, rel=0.1)
    assert smoothed == pytest.approx(plain, rel=0.1)
    assert wide[0] / wide[1] < 1.3
    assert wide[1] > 2.5 * smoothed[1]


def test_mass_spreads_along_the_manifold(X):
    """Prop. 3.8: densities at two points of the circle approach each other as the kernel widens."""
    ratios = []
    for sigma in (0.01, 0.1, 0.3):
        on_circle = log_smoothed(X, 0.1, sigma)[np.isclose(R, 1)]
        ratios.append(np.ptp(on_circle))
    assert ratios[0] > 1.2 * ratios[1] > 1.2 * 1.2 * ratios[2]


def test_the_interpolating_score_of_chen_is_a_uniform_kernel():
    """Chen's score between the points -1 and 1 (arXiv:2502.19499) is an average over an interval.

    Of half-width 1 - kappa sqrt(v), which a schedule of the scale and a uniform kernel in one
    dimension are; exactly so up to exp(-1 / v), and to the error of a mean of 1024 nodes in place of
    an integral over a jump by two: two of them on the wrong side, and their mirror images.
    """
    kappa, v = 0.5, 0.01
    y = np.sqrt(v)
    model = SmoothedScoreDiffusion(
        y / 2,
        lambda scale: (1 - kappa * scale) / np.sqrt(3),
        kernel="uniform-ball",
        n_nodes=1024,
        n_levels=64,
        terminal_scale=1.0,
    ).fit([[-1.0], [1.0]])
    delta = kappa * y
    x = np.linspace(-1.2, 1.2, 13)
    expected = np.where(np.abs(x) <= 1 - delta, delta / (1 - delta) * x / v, (np.sign(x) - x) / v)
    found = model.grad_log_density(x[:, None], t=v)[:, 0]
    np.testing.assert_allclose(v * found, v * expected, atol=8 / 1024)
