"""Parts of the flow on a sphere: rotations, geodesics, steps, the choice of scales and background."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from skdiffsmooth._diffusion import spherical
from skdiffsmooth._diffusion.spherical import SphericalFlow, chosen_flow, mixed_with_uniform
from skdiffsmooth._engine.sphere import SphereField, SpherePosterior, heat_kernel

LOG_AREA = math.log(4 * math.pi)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def directions(n, spread=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return unit(np.array([1.0, 0, 0]) + spread * rng.normal(size=(n, 3)))


def posterior_of(points, weights=None):
    weights = np.full(len(points), 1 / len(points)) if weights is None else weights
    return SpherePosterior(points, np.log(weights), is_antipodal=False, memory_limit=16)


def tangents(x, size, seed=1):
    rows = size * np.random.default_rng(seed).normal(size=x.shape)
    return rows - np.sum(rows * x, axis=1, keepdims=True) * x


@pytest.mark.parametrize("d", [3, 4])
def test_rotations_of_a_level(d):
    found = spherical._rotation_nodes(d, 0.3, 8, 5)
    assert found.shape == (8, d, d)
    for R in found:
        assert_allclose(R @ R.T, np.eye(d), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1.0)
        # Its inverse is another one of them.
        assert min(np.abs(R.T - other).max() for other in found) < 1e-12
    angles = np.linalg.norm(found - np.eye(d), axis=(1, 2))
    small = spherical._rotation_nodes(d, 0.003, 8, 5)
    assert_allclose(np.linalg.norm(small - np.eye(d), axis=(1, 2)) * 100, angles, rtol=0.1)
    assert np.abs(spherical._rotation_nodes(d, 0.3, 8, 6) - found).max() > 0.01
    # Entries of the generators have variance one: the nodes are standard normal.
    many = spherical._rotation_nodes(d, 1e-4, 256, 0)
    entries = many[:, 0, 1] / 1e-4
    assert np.mean(entries**2) == pytest.approx(1.0, rel=0.1)
    assert_allclose(many + many.swapaxes(1, 2), np.tile(2 * np.eye(d), (256, 1, 1)), atol=1e-6)


def test_moves_along_geodesics():
    x = directions(5)
    step = tangents(x, 0.7)
    step[0] = 0
    found = spherical._moved(x, step)
    length = np.linalg.norm(step, axis=1)
    assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-15)
    assert_allclose(np.sum(found * x, axis=1), np.cos(length), rtol=1e-12)
    assert_allclose(np.sum(found * step, axis=1), length * np.sin(length), atol=1e-12)
    assert_allclose(found[0], x[0])


def test_transport_keeps_lengths_and_angles_to_the_geodesic():
    x = directions(4)
    step, other = tangents(x, 0.8), tangents(x, 1.0, seed=2)
    end = spherical._moved(x, step)
    found = spherical._transported(other, x, end)
    assert_allclose(np.sum(found * end, axis=1), 0.0, atol=1e-12)
    assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(other, axis=1), rtol=1e-12)
    along = spherical._transported(step, x, end)
    length = np.linalg.norm(step, axis=1, keepdims=True)
    # The geodesic's direction at its end.
    expected = -length * np.sin(length) * x + np.cos(length) * step
    assert_allclose(along, expected, atol=1e-12)
    angles = np.sum(found * along, axis=1)
    assert_allclose(angles, np.sum(other * step, axis=1), atol=1e-12)
    # Nearly opposite ends are finite.
    far = spherical._transported(other[:1], x[:1], -x[:1])
    assert np.isfinite(far).all()


def test_scales_end_at_the_largest_of_three():
    points = directions(6)
    weights = np.random.default_rng(3).dirichlet(np.ones(6))
    posterior = posterior_of(points, weights)
    std = math.sqrt(weights @ (points[:, 1] ** 2 + points[:, 2] ** 2) / 2)
    for h, sigma, last in (
        (0.01, 0.01, std),
        (0.01, 0.9, 2.7),
        (0.9, 0.01, 1.8),
        (1e-4, std / 3.1, std),
        (std / 2.1, 0.0, std),
    ):
        flow = SphericalFlow.of(posterior, h, sigma, 8, 5)
        assert_allclose(flow.scales, np.geomspace(h, last, 6))
        assert (flow.sigma, flow.n_nodes) == (sigma, 8)
        assert flow.posterior is posterior


class Field:
    """A posterior with a score that is given, and records its queries."""

    def __init__(self, points, score, divergence):
        self.points, self.log_weights = points, np.full(len(points), -math.log(len(points)))
        self.score, self.own_divergence = score, divergence
        self.calls = []

    def field(self, x, v, rotations, exclude):
        self.calls.append((x, v, rotations, exclude))
        return SphereField(self.score(x, v), self.own_divergence(x, v), np.zeros(len(x)))

    def log_density(self, x, v, exclude):
        return 100 * v + x[:, 0]

    def kernel(self, v):
        return heat_kernel(v, self.points.shape[1] - 1)


def test_steps_are_those_of_heun_along_geodesics():
    x, axis = directions(3), np.array([0.0, 0.6, 0.8])

    def score(x, v):
        return (axis - (x @ axis)[:, None] * x) / (1 + v)

    def divergence(x, v):
        return -2 * (x @ axis) / (1 + v)

    field = Field(x, score, divergence)
    scales = np.array([0.3, 0.5, 1.0])
    flow = SphericalFlow(field, scales, 0.4, 8)
    exclude = np.arange(3)
    found, change = flow._followed(x, scales, exclude)
    at, total = x, np.zeros(3)
    for a, b in ((0.3, 0.5), (0.5, 1.0)):
        log = math.log(b / a)
        first = -log * a**2 * score(at, a**2)
        ahead = spherical._moved(at, first)
        second = -log * b**2 * spherical._transported(score(ahead, b**2), ahead, at)
        total += log * (a**2 * divergence(at, a**2) + b**2 * divergence(ahead, b**2)) / 2
        at = spherical._moved(at, (first + second) / 2)
    assert_allclose(found, at, rtol=1e-12)
    assert_allclose(change, total, rtol=1e-12)
    assert_allclose(flow.log_density(x, exclude), 100 * 1.0 + at[:, 0] - total, rtol=1e-12)
    assert [call[1] for call in field.calls[:4]] == pytest.approx([0.09, 0.25, 0.25, 1.0])
    for k, call in enumerate(field.calls[:4]):
        assert_allclose(call[2], spherical._rotation_nodes(3, 0.4, 8, k // 2))
        assert call[3] is exclude
    # Downwards each interval has the same rotations, and the change has the other sign.
    field.calls.clear()
    back, undone = flow._followed(found, scales[::-1], None)
    for k, call in enumerate(field.calls):
        assert_allclose(call[2], spherical._rotation_nodes(3, 0.4, 8, 1 - k // 2))
    assert np.abs(back - x).max() < 0.03
    assert_allclose(undone, -change, atol=0.05)


def test_without_smoothing_the_flow_is_a_kernel_density():
    points = directions(6)
    flow = SphericalFlow.of(posterior_of(points), 0.3, 0.0, 8, 5)
    x = directions(4, seed=2)
    log_kernel = heat_kernel(0.09, 2).values(np.arccos(x @ points.T)).log
    expected = logsumexp(log_kernel, axis=1) - math.log(6)
    assert_allclose(flow.log_density(x), expected, rtol=1e-10)
    left = np.array([0, 1, 5, 2])
    log_kernel[np.arange(4), left] = -np.inf
    expected = logsumexp(log_kernel, axis=1) - math.log(5)
    assert_allclose(flow.log_density(x, left), expected, rtol=1e-10)


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_draws_begin_at_noised_points_of_the_first_scale(sigma, monkeypatch):
    points = np.eye(3)
    weights = np.array([0.2, 0.5, 0.3])
    flow = SphericalFlow(posterior_of(points, weights), np.array([0.05, 0.1]), sigma, 8)
    calls = []

    def followed(self, x, scales, exclude):
        calls.append((scales, exclude))
        return x, np.zeros(len(x))

    monkeypatch.setattr(SphericalFlow, "_followed", followed)
    n = 3000
    x = flow.draw(np.random.RandomState(0), n)
    ((scales, exclude),) = calls
    assert scales.tolist() == ([0.05] if sigma == 0 else [0.1, 0.05])
    assert exclude is None
    assert_allclose(np.linalg.norm(x, axis=1), 1.0)
    angles = np.arccos(np.minimum(x @ points.T, 1))
    nearest = angles.argmin(axis=1)
    assert_allclose(np.bincount(nearest) / n, weights, atol=0.03)
    v = scales[0] ** 2
    # The mean cosine to the point is exp(-v) on S^2; directions about it are uniform.
    assert np.mean(np.cos(angles.min(axis=1))) == pytest.approx(math.exp(-v), abs=0.07 * v)
    offsets = x - np.cos(angles.min(axis=1))[:, None] * points[nearest]
    assert_allclose(offsets.mean(axis=0), 0.0, atol=5 * scales[0] / math.sqrt(n))


def test_mixtures_with_the_uniform_distribution():
    log_density = np.array([-800.0, 0.3])
    assert mixed_with_uniform(log_density, 0, 2.0) is log_density
    found = mixed_with_uniform(log_density, 0.25, 2.0)
    assert_allclose(found, np.logaddexp(np.log(0.75) + log_density, np.log(0.25) - 2.0))
    assert_allclose(found[0], math.log(0.25) - 2)


def test_the_background_of_highest_likelihood():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(20))
    for log_density in (rng.normal(size=20), np.where(np.arange(20) < 5, -30.0, 3.0)):

        def loss(b, log_density=log_density):
            return -weights @ np.log((1 - b) * np.exp(log_density) + b * math.exp(-1.0))

        best = minimize_scalar(loss, bounds=(1 / 21, 0.5), method="bounded").x
        found = spherical._best_background(log_density, weights, 1.0)
        assert found == pytest.approx(best, abs=1e-3)
    # Where the background explains nothing, its weight is the least, exactly.
    assert spherical._best_background(np.full(20, 9.0), weights, 1.0) == 1 / 21
    assert spherical._best_background(np.full(20, -9.0), weights, 1.0) == pytest.approx(
        0.5, abs=1e-3
    )


def test_the_bandwidth_of_highest_likelihood():
    calls = []

    def likelihood(h, most):
        calls.append((h, most))
        return -((math.log(h) - math.log(0.02)) ** 2)

    assert spherical._best_bandwidth(likelihood) == pytest.approx(0.02, rel=0.02)
    grid = np.geomspace(1e-6, 1.5, 28)
    assert_allclose([h for h, most in calls if most == 300], grid)
    refined = [h for h, most in calls if most == 1000]
    nearest = int(np.abs(np.log(grid / 0.02)).argmin())
    assert min(refined) > grid[nearest - 1]
    assert max(refined) < grid[nearest + 1]
    assert len(calls) == 28 + len(refined)
    # At the ends there is one neighbour.
    assert spherical._best_bandwidth(lambda h, most: h) == pytest.approx(1.5, rel=0.03)
    with pytest.warns(UserWarning, match=r"smallest that is compared, 1e-06 radians.*copies"):
        least = spherical._best_bandwidth(lambda h, most: -h)
    assert grid[0] <= least < 1.1 * grid[0]


@pytest.mark.parametrize(
    ("bandwidth", "sigma", "pairs"),
    [
        (None, None, [(1, 0), (0.85, 1), (0.85, 2), (0.7, 1.5), (0.7, 3)]),
        (None, 0.07, [(1, 0.7), (0.85, 0.7), (0.7, 0.7)]),
        (0.1, None, [(1, 0), (1, 1), (1, 2), (1, 3)]),
        (0.1, 0.07, [(1, 0.7)]),
    ],
)
@pytest.mark.parametrize("given", [None, 0.01])
@pytest.mark.parametrize("n", [40, 700])
def test_candidates_of_the_scales(bandwidth, sigma, pairs, given, n, monkeypatch):
    """The best of them, at rows whose number is bounded; a bandwidth of .1 is the best of kernels."""
    weights = np.random.default_rng(4).dirichlet(np.ones(n))
    posterior = posterior_of(directions(n), weights)
    calls = []

    def log_density(self, x, exclude=None):
        calls.append((self.scales[0], self.sigma, len(self.scales), self.n_nodes, exclude))
        assert_allclose(x, posterior.points[exclude])
        h, s = self.scales[0] / 0.1, self.sigma / 0.1
        return np.full(len(x), 5.0 - (h - 0.85) ** 2 - (s - 1.9) ** 2) + np.arange(len(x)) / 1e4

    monkeypatch.setattr(SphericalFlow, "log_density", log_density)
    monkeypatch.setattr(spherical, "_best_bandwidth", lambda likelihood: 0.1)
    flow, background = chosen_flow(posterior, LOG_AREA, bandwidth, sigma, given, 32, 7)
    expected = min(pairs, key=lambda p: (p[0] - 0.85) ** 2 + (p[1] - 1.9) ** 2)
    assert (flow.scales[0], flow.sigma) == pytest.approx((expected[0] * 0.1, expected[1] * 0.1))
    assert (len(flow.scales), flow.n_nodes) == (8, 32)
    if given is not None and len(pairs) == 1:
        assert calls == []
    else:
        assert_allclose([[c[0], c[1]] for c in calls], 0.1 * np.array(pairs, dtype=float))
    for call in calls:
        assert call[2:4] == (13, 16)
        assert len(call[4]) == min(n, 300)
    if given is not None:
        assert background == 0.01
    else:
        assert 0 < background < 0.5


def test_rows_of_candidates_are_fewer_with_many_points(monkeypatch):
    sizes = []

    def log_density(self, x, exclude=None):
        sizes.append(len(x))
        return np.zeros(len(x))

    monkeypatch.setattr(SphericalFlow, "log_density", log_density)
    for n, expected in ((1000, 300), (1500, 200), (4000, 100)):
        sizes.clear()
        posterior = posterior_of(np.tile(directions(10), (n // 10, 1)))
        chosen_flow(posterior, LOG_AREA, 0.1, None, 0.1, 8, 5)
        assert sizes == [expected] * 4


def test_scores_of_candidates_are_weighted_and_mixed(monkeypatch):
    """Rows of high weight decide, and the background is that of the best candidate."""
    weights = np.array([0.7, 0.1, 0.1, 0.1])
    posterior = posterior_of(directions(4), weights)

    def log_density(self, x, exclude=None):
        # The heavy row prefers sigma = 0.2, all others 0.
        return np.where(exclude == 0, 10 * self.sigma, -10 * self.sigma) - 6

    monkeypatch.setattr(SphericalFlow, "log_density", log_density)
    flow, background = chosen_flow(posterior, LOG_AREA, 0.1, None, None, 8, 5)
    assert flow.sigma == pytest.approx(0.3)
    expected = spherical._best_background(np.array([-3.0, -9, -9, -9]), weights, LOG_AREA)
    assert background == pytest.approx(expected)
