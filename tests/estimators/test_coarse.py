"""CoarseScoreDiffusion: its distribution against slow references, its geometry, and errors."""

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import chi2, ortho_group
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import CoarseScoreDiffusion, KDESampler
from skdiffsmooth.compose import (
    DensityClassifier,
    DensityOutlierDetector,
    DensityStacking,
    TransformedDensity,
)
from skdiffsmooth.manifolds import (
    AffineSubspace,
    Circle,
    Curve,
    LocalPolynomialManifold,
    PointCloud,
    Sphere,
    estimate_reach,
)

ANGLES = np.linspace(0, 2 * np.pi, 200, endpoint=False)
RING = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])
CIRCLE, SPHERE = Circle([0.0, 0.0], 1.0), Sphere([0.0, 0.0, 0.0], 1.0)
# Of a random test, how often correct code fails it.
FALSE_ALARM = 1e-3


def unit_rows(n, d, seed=0):
    """Points spread evenly over the unit sphere of R^d."""
    rows = np.random.RandomState(seed).normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def uneven_ring(n, seed=0, noise=0.0):
    """Points of the unit circle, more of them to the right, and noise."""
    rng = np.random.RandomState(seed)
    t = rng.vonmises(0.0, 0.5, size=n)
    return np.column_stack([np.cos(t), np.sin(t)]) + noise * rng.normal(size=(n, 2))


def spread_over_sphere(n):
    """Points of the unit sphere that each have the same fraction of its area (a Fibonacci lattice)."""
    i = np.arange(n) + 0.5
    height, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    across = np.sqrt(1 - height**2)
    return np.column_stack([np.cos(turn) * across, np.sin(turn) * across, height])


def torus(n, seed=0):
    """Points spread evenly over a torus of radii 2 and 0.7."""
    rng = np.random.RandomState(seed)
    t = rng.uniform(0, 2 * np.pi, 4 * n)
    t = t[rng.uniform(size=4 * n) < (2 + 0.7 * np.cos(t)) / 2.7][:n]
    p = rng.uniform(0, 2 * np.pi, n)
    outward = 2 + 0.7 * np.cos(t)
    return np.column_stack([outward * np.cos(p), outward * np.sin(p), 0.7 * np.sin(t)])


def kde(X, x, scale, weights=None):
    """The log-density of a Gaussian kernel density estimate, row by row."""
    weights = np.full(len(X), 1 / len(X)) if weights is None else weights
    exponents = [-np.sum((X - row) ** 2, axis=1) / (2 * scale**2) + np.log(weights) for row in x]
    constant = X.shape[1] * (np.log(scale) + np.log(2 * np.pi) / 2)
    return np.array([logsumexp(row) - constant for row in exponents])


def grid(limit, n, shift=0.0):
    """Midpoints of n x n cells of a square, and the area of a cell."""
    step = 2 * limit / n
    axis = -limit + step * (np.arange(n) + 0.5) + shift
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), step**2


# ------------------------------------------------------------------------------ the density, known cases


def test_on_a_plane_the_density_is_the_kde_of_the_projected_rows():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(60, 3)) * [1.0, 2.0, 0.2]
    normal = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
    plane = AffineSubspace([normal], [0.3])
    Q = rng.normal(size=(20, 3))
    expected = kde(X @ plane.basis, Q @ plane.basis, 0.5)
    # Rows spread over the fibre by less than the noise: what so many Gauss-Hermite nodes leave.
    for n_nodes, error in (("auto", 1e-4), (64, 1e-8)):
        model = CoarseScoreDiffusion(0.5, manifold=plane, n_nodes=n_nodes).fit(X)
        assert_allclose(model.score_samples(Q), expected, atol=error)


@pytest.mark.parametrize("n_normal", [1, 2, 5])
def test_rows_on_an_affine_subspace_leave_nothing_to_integrate(n_normal):
    rng = np.random.RandomState(0)
    d = 2 + n_normal
    frame = ortho_group.rvs(d, random_state=0)[:, :2]
    rows = rng.normal(size=(40, 2))
    # A subspace of R^d that the rows span only with one more row, which is far and light.
    X, weights = (
        np.vstack([rows @ frame.T, 3 + rng.normal(size=(n_normal, d))]),
        np.ones(40 + n_normal),
    )
    weights[40:] = 1e-12
    model = CoarseScoreDiffusion(0.5, manifold=AffineSubspace.from_basis(np.zeros(d), frame))
    model.fit(X, sample_weight=weights)
    Q = rng.normal(size=(10, 2))
    # What the light rows weigh, and rounding.
    assert_allclose(model.score_samples(Q @ frame.T), kde(rows, Q, 0.5), atol=1e-8)


def test_with_a_bandwidth_the_density_near_a_plane_is_a_mixture_of_flat_gaussians():
    rng = np.random.RandomState(0)
    X, Q = rng.normal(size=(60, 3)), rng.normal(size=(20, 3))
    plane = AffineSubspace([[0.0, 0.0, 1.0]], [0.0])
    model = CoarseScoreDiffusion(0.5, bandwidth=0.2, manifold=plane).fit(X)
    # The third coordinate is multiplied by 0.2 / 0.5, noise and rows alike.
    squeeze = np.array([1.0, 1.0, 0.4])
    expected = kde(X, Q / squeeze, 0.5) - np.log(0.4)
    assert_allclose(model.score_samples(Q), expected, atol=1e-10)


@pytest.mark.parametrize(("scale", "error"), [(0.2, 1e-6), (0.3, 1e-3)])
def test_on_a_circle_the_density_is_an_integral_along_rays(scale, error):
    X = uneven_ring(50)
    model = CoarseScoreDiffusion(scale, manifold=CIRCLE).fit(X)
    found = np.exp(model.score_samples(1.2 * RING[::20]))
    expected = [
        quad(lambda r, u=u: r * np.exp(kde(X, [r * u], scale)[0]), 0, 3, points=[1], epsabs=1e-10)[
            0
        ]
        for u in RING[::20]
    ]
    # The integrand ends with a kink at the centre, 1 / scale standard deviations away.
    assert_allclose(found, expected, rtol=error)


@pytest.mark.parametrize("bandwidth", [0.02, 0.1])
def test_with_a_bandwidth_radii_are_squeezed_towards_the_circle(bandwidth):
    X, scale = uneven_ring(50), 0.3
    model = CoarseScoreDiffusion(scale, bandwidth=bandwidth, manifold=CIRCLE).fit(X)
    rng = np.random.RandomState(0)
    r = rng.uniform(0.5, 1.5, size=40)
    u = RING[rng.randint(200, size=40)]
    arrived = 1 + bandwidth / scale * (r - 1)
    expected = kde(X, r[:, None] * u, scale) + np.log(r / arrived * scale / bandwidth)
    assert_allclose(model.score_samples(arrived[:, None] * u), expected, atol=1e-9)
    # Beyond the centre there is no sample.
    beyond = 1 - 1.01 * bandwidth / scale
    assert np.all(model.score_samples(beyond * u) == -np.inf)


def test_rows_in_a_subspace_give_the_density_in_its_coordinates():
    X = uneven_ring(40, noise=0.02)
    frame = ortho_group.rvs(5, random_state=0)[:, :2]
    Q = 1.05 * RING[::10]
    settings = {"switch_scale": 0.2, "n_components": 1, "n_neighbors": 12}
    flat = CoarseScoreDiffusion(**settings).fit(X).score_samples(Q)
    raised = CoarseScoreDiffusion(**settings).fit(1 + X @ frame.T)
    # Differences of projections are quotients of rounding errors by 1e-4 of the switch scale.
    assert_allclose(raised.score_samples(1 + Q @ frame.T), flat, atol=1e-7)
    flat = CoarseScoreDiffusion(bandwidth=0.1, **settings).fit(X).score_samples(Q)
    raised = CoarseScoreDiffusion(bandwidth=0.1, **settings).fit(X @ frame.T)
    outside = ortho_group.rvs(5, random_state=0)[:, 2]
    found = raised.score_samples(Q @ frame.T + 0.07 * outside)
    gauss = -(0.7**2) / 2 - 3 * np.log(0.1 * np.sqrt(2 * np.pi))
    assert_allclose(found, flat + gauss, atol=1e-7)
    pull = raised.coarse_score(Q @ frame.T + 0.07 * outside, t=0.5) @ outside
    assert_allclose(pull, -0.14, atol=1e-12)
    noise = raised.sample(2000, random_state=0) @ outside
    # The standard error of a standard deviation is 1.6 %; four of them fail once in 16 000 seeds.
    assert_allclose(noise.std(), 0.1, rtol=0.063)


# ---------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize("manifold", [CIRCLE, None], ids=["known", "learned"])
@pytest.mark.parametrize("scale", [0.2, 0.3])
def test_mass_on_a_circle_is_one(manifold, scale):
    model = CoarseScoreDiffusion(scale, manifold=manifold, n_components=1).fit(uneven_ring(200))
    places = model.manifold_.project(RING)
    chords = np.linalg.norm(places - np.roll(places, 1, axis=0), axis=1)
    # Chords of 2 degrees are short by 4e-5, the nodes lose 1e-4; learned ones bend by 1e-3.
    mass = np.exp(model.score_samples(places)) @ (chords + np.roll(chords, -1)) / 2
    assert abs(mass - 1) < (5e-4 if manifold else 3e-3)


@pytest.mark.parametrize("manifold", [SPHERE, None], ids=["known", "learned"])
def test_mass_on_a_sphere_is_one(manifold):
    model = CoarseScoreDiffusion(0.25, manifold=manifold, n_components=2).fit(unit_rows(400, 3))
    places = spread_over_sphere(300)
    mass = 4 * np.pi * np.exp(model.score_samples(places)).mean()
    # The learned surface is 1e-3 inside the sphere on average, and its area twice that smaller.
    assert abs(mass - 1) < (2e-4 if manifold else 5e-3)


def test_mass_on_a_circle_in_space_is_one():
    # Two normal directions, one of them with noise only.
    rng = np.random.RandomState(0)
    X = np.column_stack([uneven_ring(100), np.zeros(100)]) + 0.05 * rng.normal(size=(100, 3))
    circle = Circle(np.zeros(3), 1.0, np.eye(3)[:, :2])
    ring = np.column_stack([RING, np.zeros(200)])
    for n_nodes, error in (("auto", 1e-4), (64, 1e-3)):
        model = CoarseScoreDiffusion(0.25, manifold=circle, n_nodes=n_nodes).fit(X)
        assert abs(2 * np.pi * np.exp(model.score_samples(ring)).mean() - 1) < error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "n_cells", "error"),
    [
        ({"manifold": CIRCLE}, 100, 1e-3),
        ({"n_components": 1}, 60, 2e-3),
        ({"degree": 0}, 50, 1e-6),
        # Images of the cells of a cloud do not touch, and what midpoints see of their edges is luck.
        ({"manifold": PointCloud(RING[::20], 1)}, 400, 1e-2),
    ],
    ids=["circle", "learned", "posterior mean", "point cloud"],
)
def test_mass_in_the_plane_is_one(settings, n_cells, error):
    model = CoarseScoreDiffusion(0.3, bandwidth=0.15, **settings).fit(uneven_ring(200))
    Q, area = grid(1.9, n_cells)
    assert abs(np.exp(model.score_samples(Q)).sum() * area - 1) < error


def test_ends_of_a_curve_are_atoms():
    half = Curve(lambda t: np.column_stack([np.cos(t), np.sin(t)]), 0, np.pi)
    X = RING[5:95:5]
    model = CoarseScoreDiffusion(0.3, manifold=half).fit(X)
    inner = np.linspace(0, np.pi, 201)[1:-1]
    found = model.score_samples(np.column_stack([np.cos(inner), np.sin(inner)]))
    continuous = np.exp(found).sum() * np.pi / 200
    rows = model.sample(20_000, random_state=0)
    at_ends = np.mean(np.abs(rows[:, 1]) < 1e-9)
    # Four standard errors of the fraction, 0.003 each at most, and the missing ends of the trapezoid.
    assert abs(continuous + at_ends - 1) < 0.02
    assert at_ends > 0.02
    with pytest.warns(UserWarning, match=r"2 of 3 rows have log-density \+inf.*end of a curve"):
        at_ends = model.score_samples([[1.0, 0.0], [0.0, 1.0], [-1.0, -0.2]])
    assert_array_equal(np.isinf(at_ends), [True, False, True])


# ------------------------------------------------------------------------- samples and log-densities


def assert_one_distribution(counts, probabilities):
    """A chi-squared test of counts in cells, whose last one is the rest."""
    expected = counts.sum() * np.append(probabilities, 1 - probabilities.sum())
    # Cells of few expected draws go to the rest.
    few = expected[:-1] < 10
    found = np.append(counts[:-1][~few], counts[-1] + counts[:-1][few].sum())
    expected = np.append(expected[:-1][~few], expected[-1] + expected[:-1][few].sum())
    statistic = np.sum((found - expected) ** 2 / expected)
    assert statistic < chi2.isf(FALSE_ALARM, len(found) - 1), statistic


@pytest.mark.parametrize("manifold", [CIRCLE, None], ids=["known", "learned"])
def test_samples_on_the_circle_follow_the_density(manifold):
    model = CoarseScoreDiffusion(0.3, manifold=manifold, n_components=1).fit(uneven_ring(200))
    rows = model.sample(20_000, random_state=0)
    turns = np.arctan2(rows[:, 1], rows[:, 0]) % (2 * np.pi)
    counts = np.histogram(turns, 25, (0, 2 * np.pi))[0]
    # Along the learned curve, not the circle: midpoints of chords between points of equal steps.
    places = model.manifold_.project(RING)
    chords = np.roll(places, -1, axis=0) - places
    density = np.exp(model.score_samples(places + chords / 2))
    shares = (density * np.linalg.norm(chords, axis=1)).reshape(25, 8).sum(axis=1)
    assert_one_distribution(np.append(counts, 0), shares)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"degree": 2, "n_components": 1}, {"degree": 0}, {"manifold": CIRCLE}],
    ids=["learned", "posterior mean", "known"],
)
def test_samples_in_the_plane_follow_the_density(settings):
    model = CoarseScoreDiffusion(0.4, bandwidth=0.2, **settings).fit(uneven_ring(200))
    rows = model.sample(10_000, random_state=0)
    # Cells of 0.24 with 4 x 4 midpoints each.
    Q, area = grid(1.8, 60)
    density = np.exp(model.score_samples(Q)).reshape(15, 4, 15, 4)
    edges = np.linspace(-1.8, 1.8, 16)
    counts = np.histogram2d(*rows.T, bins=(edges, edges))[0].ravel()
    outside = len(rows) - counts.sum()
    assert_one_distribution(np.append(counts, outside), density.sum(axis=(1, 3)).ravel() * area)


def test_samples_on_the_sphere_follow_the_density():
    # More rows to the north, and what is compared is the height, uniform on a sphere (Archimedes).
    X = unit_rows(600, 3)
    X = X[X[:, 2] > np.random.RandomState(1).uniform(-1, 0.5, size=600)]
    model = CoarseScoreDiffusion(0.3, manifold=SPHERE).fit(X)
    heights = model.sample(20_000, random_state=0)[:, 2]
    counts = np.histogram(heights, 20, (-1, 1))[0]
    places = spread_over_sphere(4000)
    density = np.exp(model.score_samples(places)).reshape(20, 200)
    # Heights of the lattice fall; its error within a belt is a thousandth.
    assert_one_distribution(np.append(counts, 0), density.mean(axis=1)[::-1] * 4 * np.pi / 20)


# -------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_samples_lie_on_the_fitted_manifold(degree):
    model = CoarseScoreDiffusion(degree=degree).fit(unit_rows(300, 3))
    rows = model.sample(300, random_state=0)
    # What the iteration of the projection leaves.
    assert model.manifold_.distance(rows).max() < 1e-9


@pytest.mark.parametrize("d", [2, 3])
def test_samples_are_nearer_to_the_manifold_than_to_the_rows(d):
    X = unit_rows(1000, d, seed=1)
    rows = CoarseScoreDiffusion().fit(X).sample(1000, random_state=2)
    off_manifold = np.abs(np.linalg.norm(rows, axis=1) - 1)
    off_rows = cKDTree(X).query(rows)[0]
    # Some 200 times on the sphere, more on the circle.
    assert off_rows.mean() > 20 * off_manifold.mean()
    # As far from the rows as other points of the manifold are: no copies.
    fresh = cKDTree(X).query(unit_rows(1000, d, seed=3))[0]
    assert_allclose(off_rows.mean(), fresh.mean(), rtol=0.15)


def test_higher_degrees_and_more_rows_are_nearer():
    distances = {}
    for degree in (0, 1, 2):
        for n in (200, 800):
            model = CoarseScoreDiffusion(0.3, degree, n_components=2).fit(unit_rows(n, 3))
            rows = model.sample(500, random_state=0)
            distances[degree, n] = np.abs(np.linalg.norm(rows, axis=1) - 1).mean()
    for n in (200, 800):
        assert distances[0, n] > distances[1, n] > 4 * distances[2, n]
    # Means fall like N^-1 and N^-1.7 or so; at a fixed scale the posterior mean's bias stays.
    assert distances[1, 200] > 2 * distances[1, 800]
    assert distances[2, 200] > 5 * distances[2, 800]
    assert_allclose(distances[0, 800], distances[0, 200], rtol=0.2)


@pytest.mark.parametrize(
    "settings",
    [{}, {"bandwidth": 0.05}, {"degree": 0, "bandwidth": 0.05}, {"degree": 1}],
    ids=["volume", "ambient", "posterior mean", "planes"],
)
def test_moving_turning_and_scaling_the_rows_does_the_same_to_the_model(settings):
    X = unit_rows(150, 3) * [1.0, 1.2, 0.8]
    turn, shift, factor = ortho_group.rvs(3, random_state=0), np.array([3.0, -1.0, 2.0]), 2.5
    move = lambda rows: factor * rows @ turn.T + shift  # noqa: E731
    model = CoarseScoreDiffusion(n_components=2, **settings).fit(X)
    if "bandwidth" in settings:
        settings = settings | {"bandwidth": factor * settings["bandwidth"]}
    moved = CoarseScoreDiffusion(n_components=2, **settings).fit(move(X))
    assert_allclose(moved.switch_scale_, factor * model.switch_scale_, rtol=1e-9)
    Q = unit_rows(20, 3, seed=5)
    volume = 3 if model.bandwidth_ else 2
    # Quotients of differences, of rounding 1e-13, by 1e-4 of the scale; and kinks of the surface.
    assert_allclose(
        moved.score_samples(move(Q)) + volume * np.log(factor), model.score_samples(Q), atol=1e-6
    )
    assert_allclose(moved.coarse_score(move(Q)), model.coarse_score(Q) @ turn.T / factor, atol=1e-8)


def test_shifting_and_scaling_the_rows_does_the_same_to_each_sample():
    X = unit_rows(150, 3) * [1.0, 1.2, 0.8]
    rows = CoarseScoreDiffusion().fit(X).sample(50, random_state=0)
    moved = CoarseScoreDiffusion().fit(2 * X + 1).sample(50, random_state=0)
    assert_allclose(moved, 2 * rows + 1, atol=1e-9)


# ------------------------------------------------------------------------------ metrics of the columns

# Powers of two, by which columns are multiplied without rounding.
UNITS = np.array([2.0**40, 2.0**-30])


@pytest.mark.parametrize("bandwidth", [0.0, 0.05])
@pytest.mark.parametrize("metric", ["scaled", 0.5, "whitened", "local"])
def test_units_and_order_of_columns_change_nothing(metric, bandwidth):
    X, Q = uneven_ring(100, noise=0.05), 1.1 * RING[::20]
    model = CoarseScoreDiffusion(metric=metric, bandwidth=bandwidth, n_components=1)
    plain, scaled = clone(model).fit(X), clone(model).fit(X * UNITS)
    # Densities of all columns are per unit of X, others per unit of length in the metric.
    volume = np.log(UNITS).sum() if bandwidth else 0.0
    assert_allclose(scaled.score_samples(Q * UNITS) + volume, plain.score_samples(Q), atol=1e-9)
    assert_array_equal(scaled.sample(20, random_state=0), plain.sample(20, random_state=0) * UNITS)
    assert_array_equal(scaled.coarse_score(Q * UNITS), plain.coarse_score(Q) / UNITS)
    assert scaled.switch_scale_ == plain.switch_scale_
    assert scaled.residual_scale_ == plain.residual_scale_
    swapped = clone(model).fit(X[:, ::-1] + 100.0)
    assert_allclose(swapped.score_samples(Q[:, ::-1] + 100.0), plain.score_samples(Q), atol=1e-5)


@pytest.mark.parametrize("bandwidth", [0.0, 0.05])
def test_the_scaled_metric_is_that_of_standardised_columns(bandwidth):
    X, Q = uneven_ring(100, noise=0.05) * [3.0, 0.2] + 7.0, 1.1 * RING[::20] * [3.0, 0.2] + 7.0
    settings = {"bandwidth": bandwidth, "n_components": 1}
    scaled = CoarseScoreDiffusion(metric="scaled", **settings).fit(X)
    scaler = StandardScaler().fit(X)
    plain = CoarseScoreDiffusion(**settings).fit(scaler.transform(X))
    expected = (
        plain.score_samples(scaler.transform(Q)) - bool(bandwidth) * np.log(scaler.scale_).sum()
    )
    assert_allclose(scaled.score_samples(Q), expected, atol=1e-6)
    assert_allclose(scaled.switch_scale_, plain.switch_scale_, rtol=1e-9)
    found = plain.coarse_score(scaler.transform(Q)) / scaler.scale_
    assert_allclose(scaled.coarse_score(Q), found, rtol=1e-6)
    distances = plain.manifold_.distance(scaler.transform(Q))
    assert_allclose(
        scaled.manifold_.distance(scaled.coordinates_.to_metric(Q)), distances, atol=1e-9
    )


@pytest.mark.parametrize("bandwidth", [0.0, 0.05])
@pytest.mark.parametrize("metric", ["scaled", "whitened"])
def test_constants_copies_and_totals_change_nothing_else(metric, bandwidth):
    def with_relations(rows):
        total = rows @ [1.0, 2.0]
        return np.column_stack([rows, np.full(len(rows), 7.3), 1 - 3 * rows[:, 0], total])

    X, Q = uneven_ring(100, noise=0.05) * [1.0, 1000.0], RING[::20] * [1.0, 1000.0]
    model = CoarseScoreDiffusion(metric=metric, bandwidth=bandwidth, n_components=1)
    plain, more = clone(model).fit(X), clone(model).fit(with_relations(X))
    difference = more.score_samples(with_relations(Q)) - plain.score_samples(Q)
    # A total changes the scales of columns a little; relations add a constant.
    assert np.ptp(difference) < 0.1
    if not bandwidth:
        assert abs(difference.mean()) < 0.1
    rows = more.sample(200, random_state=0)
    assert_allclose(with_relations(rows[:, :2]), rows, rtol=1e-9, atol=1e-6)
    assert_allclose(
        rows[:, :2].std(axis=0), plain.sample(200, random_state=0).std(axis=0), rtol=0.1
    )
    broken = with_relations(Q)
    broken[:, 2] += 1.0
    if bandwidth:
        assert np.all(more.score_samples(broken) < -1e6)
        with pytest.warns(UserWarning, match="10 of 10 rows break relations"):
            more.score(broken)


@pytest.mark.filterwarnings("ignore:.*not continuous|.*project to points")
def test_classes_share_the_width_of_a_column_that_is_constant_in_one():
    rng = np.random.RandomState(0)
    X = np.vstack([uneven_ring(80, noise=0.05), uneven_ring(80, seed=1, noise=0.05)])
    y = np.repeat([0, 1], 80)
    extra = np.where(y == 0, 0.0, rng.binomial(1, 0.5, size=160)) * 1000
    model = DensityClassifier(CoarseScoreDiffusion(metric="scaled", bandwidth=0.1, n_components=1))
    fitted = model.fit(np.column_stack([X, extra]), y)
    probability = fitted.predict_proba(np.column_stack([X, extra]))[:, 1]
    assert np.all(np.isfinite(probability))
    # A row with the extra column is of the second class, one without it probably of the first. (With
    # a width of its own in the first class, where it is constant, the column would decide alone.)
    assert np.mean(probability[extra > 0] > 0.99) > 0.9
    assert np.mean(probability[(extra == 0) & (y == 0)]) < 0.45


def test_a_metric_needs_a_learned_manifold_and_independent_columns():
    X = uneven_ring(50, noise=0.05)
    with pytest.raises(ValueError, match="is in units of X, and metric='scaled' has others"):
        CoarseScoreDiffusion(0.3, metric="scaled", manifold=CIRCLE).fit(X)
    with pytest.raises(ValueError, match="metric='auto' is a choice of SmoothedScoreDiffusion"):
        CoarseScoreDiffusion(0.3, metric="auto").fit(X)
    total = np.column_stack([X, X.sum(axis=1)])
    model = CoarseScoreDiffusion(0.3, metric="scaled", bandwidth=0.1, n_components=1).fit(total)
    with pytest.raises(ValueError, match="1 of X follow from others"):
        model.sample(5, random_state=0, given={0: 0.5})
    # Without relations given and columns are those of the density.
    model = clone(model).fit(X * UNITS)
    marginal = model.score_samples((X * UNITS)[:3], columns=[0])
    plain = CoarseScoreDiffusion(0.3, metric="scaled", bandwidth=0.1, n_components=1).fit(X)
    assert_allclose(marginal + np.log(UNITS[0]), plain.score_samples(X[:3], columns=[0]), atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"degree": 0, "bandwidth": 0.05}])
def test_order_of_rows_does_not_matter_and_weights_are_repeats(settings):
    X = unit_rows(120, 3)
    repeats = 1 + np.arange(120) % 3
    order = np.random.RandomState(0).permutation(repeats.sum())
    Q = unit_rows(10, 3, seed=1)
    weighted = CoarseScoreDiffusion(**settings).fit(X, sample_weight=repeats)
    repeated = CoarseScoreDiffusion(**settings).fit(np.repeat(X, repeats, axis=0)[order])
    plain = CoarseScoreDiffusion(**settings).fit(X)
    assert_allclose(weighted.switch_scale_, repeated.switch_scale_, rtol=1e-12)
    assert_allclose(weighted.sample(20, 0), repeated.sample(20, 0), atol=1e-12)
    assert_allclose(weighted.score_samples(Q), repeated.score_samples(Q), atol=1e-7)
    assert np.abs(plain.score_samples(Q) - weighted.score_samples(Q)).max() > 1e-3


def test_weights_count_in_the_manifold():
    X = uneven_ring(60, noise=0.05)
    weights = 1.0 + 20 * (np.linalg.norm(X, axis=1) > 1)  # the outer rows
    plain, weighted = (
        CoarseScoreDiffusion(0.2, n_components=1, n_neighbors=30).fit(X, sample_weight=w)
        for w in (None, weights)
    )
    radius = [
        np.linalg.norm(m.sample(300, random_state=0), axis=1).mean() for m in (plain, weighted)
    ]
    assert radius[1] > radius[0] + 0.02
    expected = LocalPolynomialManifold(1, n_neighbors=30).fit(X, sample_weight=weights)
    assert_allclose(weighted.manifold_.project(RING), expected.project(RING), atol=1e-9)


def test_the_coarse_score_is_the_gradient_of_the_squared_distance():
    model = CoarseScoreDiffusion(0.3, manifold=CIRCLE).fit(RING[::10])
    Q, step = 0.8 * RING[::20] + 0.1, 1e-6
    for t in (None, 0.5):
        found = model.coarse_score(Q, t)
        for j, shift in enumerate(step * np.eye(2)):
            rise = CIRCLE.distance(Q + shift) ** 2 - CIRCLE.distance(Q - shift) ** 2
            slope = -rise / (2 * step) / (2 * (0.09 if t is None else t))
            assert_allclose(found[:, j], slope, atol=1e-7)


# -------------------------------------------------------------------------------- one-step sampler


def test_degree_zero_is_a_draw_from_a_kde_and_one_full_step_of_denoising():
    X = uneven_ring(80)
    model = CoarseScoreDiffusion(degree=0).fit(X)
    # Per dimension of the circle the rows spread by their whole standard deviation.
    spread = np.sqrt(X.var(axis=0).sum())
    assert_allclose(model.switch_scale_, spread * 80 ** (-1 / 5), rtol=1e-12)
    rows = model.sample(30, random_state=0)
    # Every sample is the posterior mean of some place: a mean of rows, inside the circle.
    assert np.linalg.norm(rows, axis=1).max() < 1
    density = KDESampler(model.switch_scale_).fit(X)
    Q = 1.1 * RING[::10]
    full = Q + model.switch_scale_**2 * density.grad_log_density(Q)
    assert_allclose(Q + model.switch_scale_**2 * model.coarse_score(Q), full, atol=1e-12)
    assert model.manifold_ is None
    weights = np.arange(1.0, 81.0) / 3240
    model.fit(X, sample_weight=weights)
    spread = np.sqrt(weights @ np.sum((X - weights @ X) ** 2, axis=1))
    assert_allclose(model.switch_scale_, spread * np.sum(weights**2) ** (1 / 5), rtol=1e-12)


def test_the_density_of_denoised_rows_is_that_of_a_change_of_variables():
    X, scale, left = uneven_ring(30), 0.4, 0.25
    model = CoarseScoreDiffusion(scale, 0, bandwidth=left * scale).fit(X)
    x = np.random.RandomState(0).normal(size=(30, 2))

    def move(x):
        W = np.exp(-np.sum((x[:, None] - X) ** 2, axis=2) / (2 * scale**2))
        mean = W @ X / W.sum(axis=1, keepdims=True)
        return mean + left * (x - mean)

    step = 1e-6
    jacobian = np.stack(
        [(move(x + shift) - move(x - shift)) / (2 * step) for shift in step * np.eye(2)], axis=1
    )
    expected = kde(X, x, scale) - np.log(np.abs(np.linalg.det(jacobian)))
    assert_allclose(model.score_samples(move(x)), expected, atol=1e-7)


def test_degree_zero_without_a_bandwidth_can_be_sampled_but_not_scored():
    model = CoarseScoreDiffusion(degree=0).fit(RING[::10])
    assert model.sample(3, random_state=0).shape == (3, 2)
    with pytest.raises(ValueError, match=r"bandwidth=0\.0 and degree=0.*convex hull.*degree=2"):
        model.score_samples(RING)


# --------------------------------------------------------------------------------------- the scale


def test_the_switch_is_a_fraction_of_the_reach_or_of_the_standard_deviation():
    ring = CoarseScoreDiffusion(manifold=CIRCLE).fit(RING)
    assert (ring.reach_, ring.switch_scale_) == (1.0, pytest.approx(0.3))
    flat = CoarseScoreDiffusion(manifold=AffineSubspace([[0.0, 1.0]], [0.0])).fit(2 * RING)
    assert flat.reach_ == np.inf
    assert_allclose(flat.switch_scale_, 0.6)  # sqrt(tr Cov / k) = 2
    learned = CoarseScoreDiffusion(n_components=1).fit(uneven_ring(300))
    assert_allclose(learned.reach_, 1.0, rtol=0.03)


def test_a_switch_beyond_the_reach_gives_a_warning_with_both_numbers():
    with pytest.warns(UserWarning, match=r"switch_scale=1\.5 exceeds the reach .* 1:") as caught:
        CoarseScoreDiffusion(1.5, manifold=CIRCLE).fit(RING)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CoarseScoreDiffusion(0.9, manifold=CIRCLE).fit(RING)
        CoarseScoreDiffusion().fit(unit_rows(200, 3))


def test_samples_off_the_manifold_give_a_warning():
    X = np.random.RandomState(0).normal(size=(40, 3))  # a curve through a cloud
    with pytest.warns(
        UserWarning, match=r"project to points off the learned manifold.* switch_scale"
    ):
        CoarseScoreDiffusion(0.3, n_components=1).fit(X)


def test_a_density_of_zero_on_the_manifold_is_not_silent():
    """A row whose projection moves when it is projected again has no density on the manifold."""
    X = np.random.RandomState(0).normal(size=(40, 3))
    with pytest.warns(UserWarning, match="project to points off the learned manifold"):
        model = CoarseScoreDiffusion(0.3, n_components=1).fit(X)
    with pytest.warns(UserWarning, match=r"^\d+ of 40 rows have log-density -inf") as caught:
        log_density = model.score_samples(X)
    n_dropped = np.sum(log_density == -np.inf)
    assert 0 < n_dropped < 40
    assert str(caught[0].message).startswith(f"{n_dropped} of 40")


@pytest.mark.parametrize(
    ("X", "k", "reach", "error"),
    [
        (RING, 1, 1.0, 0.02),
        (np.column_stack([2 * np.cos(ANGLES), np.sin(ANGLES)]), 1, 0.5, 0.05),
        (unit_rows(400, 3), 2, 1.0, 0.05),
        (torus(800), 2, 0.7, 0.08),
        # Two circles, whose gap is narrower than they are.
        (np.concatenate([RING, 0.6 * RING]), 1, 0.2, 0.1),
    ],
    ids=["circle", "ellipse", "sphere", "torus", "two circles"],
)
def test_the_reach_is_estimated(X, k, reach, error):
    manifold = LocalPolynomialManifold(k, n_neighbors=12).fit(X)
    found = estimate_reach(manifold, X)
    assert_allclose(found, reach, rtol=error)
    larger = LocalPolynomialManifold(k, n_neighbors=12).fit(3 * X + 5)
    assert_allclose(estimate_reach(larger, 3 * X + 5), 3 * found, rtol=1e-6)


def test_the_reach_of_a_plane_is_infinite():
    X = np.random.RandomState(0).normal(size=(100, 3))
    assert estimate_reach(AffineSubspace([[1.0, 2.0, 3.0]], [0.5]), X) == np.inf


@pytest.mark.parametrize(
    ("X", "n_neighbors", "error", "message"),
    [
        (RING[:2], 20, ValueError, r"X has shape \(2, 2\); expected \(n, d\) with n >= 3"),
        (RING[0], 20, ValueError, r"X has shape \(2,\)"),
        (RING, 0, ValueError, "n_neighbors=0"),
        (RING, 2.0, TypeError, r"n_neighbors=2\.0"),
        (RING[:, :1], 20, ValueError, r"expected \(n, 2\), one column for each dimension"),
    ],
)
def test_the_reach_refuses_bad_input(X, n_neighbors, error, message):
    with pytest.raises(error, match=message):
        estimate_reach(CIRCLE, X, n_neighbors)


# --------------------------------------------------------------------------- manifolds that are given


class Halved(BaseEstimator):
    """Projects to the line on which the second column is its mean: all that is needed to sample."""

    def fit(self, X, y=None, sample_weight=None):
        self.height_ = np.average(X[:, 1], weights=sample_weight)
        self.n_features_in_ = X.shape[1]
        return self

    def project(self, X):
        return np.column_stack([X[:, 0], np.full(len(X), self.height_)])


def test_anything_that_projects_can_be_sampled_from():
    X, weights = uneven_ring(50), np.arange(1.0, 51.0)
    given = Halved()
    model = CoarseScoreDiffusion(0.3, manifold=given).fit(X, sample_weight=weights)
    assert not hasattr(given, "height_")  # cloned and fitted, with the weights of its rows
    rows = model.sample(100, random_state=0)
    assert_allclose(rows[:, 1], np.average(X[:, 1], weights=weights), atol=1e-12)
    assert len(np.unique(rows[:, 0])) == 100
    with pytest.raises(ValueError, match=r"manifold=Halved\(\).*tangent.*use sample only"):
        model.score_samples(X)
    with pytest.raises(ValueError, match=r"switch_scale='auto' needs the reach.*Halved\(\)"):
        CoarseScoreDiffusion(manifold=given).fit(X)
    fitted = Halved().fit(X)
    assert CoarseScoreDiffusion(0.3, manifold=fitted).fit(X + 1).manifold_ is fitted
    learned = CoarseScoreDiffusion(0.3, manifold=LocalPolynomialManifold(1)).fit(X)
    assert learned.manifold_.dimension == 1


def test_rows_that_fill_their_span_are_blurred_and_not_projected():
    X = np.random.RandomState(0).normal(size=(80, 2))
    model = CoarseScoreDiffusion(0.3, n_components=2).fit(X)
    assert_allclose(model.score_samples(X), kde(X, X, 0.3), atol=1e-10)


def test_rows_on_a_lattice_fill_their_span():
    # Nine rows at equal distances have no dimension.
    X = np.stack(np.meshgrid(np.arange(3.0), np.arange(3.0)), axis=-1).reshape(-1, 2)
    with pytest.warns(
        UserWarning, match=r"n_components='auto'.*(lattice|noise scales).*no row is projected"
    ):
        model = CoarseScoreDiffusion().fit(X)
    assert model.n_components_ == 2


# -------------------------------------------------------------------------------------- bad input

NAN, INF = float("nan"), float("inf")
BAD = {
    "switch_scale": ([None, True, 1j, [0.3]], [0, -1, NAN, INF, "loo", "0.3"]),
    "degree": ([None, True, 2.0, "2"], [-1, 4]),
    "bandwidth": ([None, True, "auto", [0.1]], [10**400, -0.1, NAN, INF, 0.5, 0.7]),
    "manifold": (["circle", 1, Circle, object()], []),
    "n_components": ([None, True, 1.0, [1]], [0, -1, 4, "two"]),
    "n_neighbors": ([None, True, 9.0], [0, 3, 41, 10**30, "all"]),
    "n_nodes": ([None, True, 8.0], [10**30, 0, 1, -2, 7, "many"]),
    "device": ([None, 0], ["none such"]),
    "dtype": ([None, np.float64], ["float16"]),
    "memory_limit": ([None, "1"], [0, -1, NAN, 1e-6]),
}


def bad_parameters():
    for name, (mistyped, out_of_range) in BAD.items():
        for values, error in ((mistyped, TypeError), (out_of_range, ValueError)):
            for value in values:
                identity = re.sub(" at .*", "", f"{name}={value!r}")
                yield pytest.param(name, value, error, id=identity)


@pytest.mark.parametrize(("name", "value", "error"), list(bad_parameters()))
@pytest.mark.filterwarnings("ignore:.*project to points")
def test_fit_refuses_a_bad_parameter(name, value, error):
    X = np.random.RandomState(0).normal(size=(40, 3))
    settings = {"switch_scale": 0.5, "n_components": 1} | {name: value}
    model = CoarseScoreDiffusion(**settings)
    shown = f"{name}={value!r}" if name != "memory_limit" or value != 1e-6 else "memory_limit=1e-06"
    with pytest.raises(error, match=re.escape(shown)):
        model.fit(X)
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")]


def test_a_manifold_must_lie_in_the_space_of_the_rows():
    with pytest.raises(ValueError, match=r"R\^2 but X has 3 features"):
        CoarseScoreDiffusion(manifold=CIRCLE).fit(unit_rows(20, 3))
    with pytest.raises(ValueError, match=r"R\^2 but X has 3 features"):
        CoarseScoreDiffusion(0.3, manifold=Halved().fit(RING)).fit(unit_rows(20, 3))


def test_too_few_rows_say_what_to_do():
    with pytest.warns(UserWarning, match=r"6 distinct rows.*degree 1\. Pass more rows"):
        CoarseScoreDiffusion(n_components=2).fit(unit_rows(6, 3))
    with pytest.raises(ValueError, match=r"1 distinct row.*n_samples = 1.*Pass more rows"):
        CoarseScoreDiffusion().fit(np.ones((9, 3)))


def test_not_fitted():
    for ask in (
        lambda model: model.sample(),
        lambda model: model.score_samples(RING),
        lambda model: model.score(RING),
        lambda model: model.coarse_score(RING),
    ):
        with pytest.raises(NotFittedError, match="CoarseScoreDiffusion"):
            ask(CoarseScoreDiffusion())


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_queries_are_compared_with_the_training_rows():
    frame = pd.DataFrame(uneven_ring(40), columns=["a", "b"])
    model = CoarseScoreDiffusion(0.3, n_components=1).fit(frame)
    for ask in (model.score_samples, model.score, model.coarse_score):
        ask(frame)
        with pytest.raises(ValueError, match="feature names should match"):
            ask(frame[["b", "a"]])
        with pytest.raises(ValueError, match="X has 3 features, but CoarseScoreDiffusion"):
            ask(unit_rows(3, 3))
        with pytest.raises(ValueError, match="NaN"):
            ask(frame * NAN)
    for t in (0, -1.0, NAN):
        with pytest.raises(ValueError, match="t="):
            model.coarse_score(frame, t)


def test_a_failed_fit_leaves_the_model():
    model = CoarseScoreDiffusion(0.3, n_components=1).fit(uneven_ring(40))
    before = pickle.dumps(model.sample(5, random_state=0))
    with pytest.raises(ValueError, match="n_components"):
        model.set_params(n_components=3).fit(uneven_ring(40))
    model.set_params(n_components=1)
    assert pickle.dumps(model.sample(5, random_state=0)) == before


@pytest.mark.parametrize("settings", [{}, {"degree": 0, "bandwidth": 0.05}, {"dtype": "float32"}])
def test_copies_seeds_and_precision(settings):
    X, Q = unit_rows(150, 3), 1.02 * unit_rows(10, 3, seed=1)
    model = CoarseScoreDiffusion(n_components=2, **settings).fit(X)
    found = model.score_samples(Q)
    copied = pickle.loads(pickle.dumps(model))
    assert_allclose(copied.score_samples(Q), found, rtol=1e-9)
    assert_array_equal(copied.sample(9, random_state=3), model.sample(9, random_state=3))
    assert not np.array_equal(model.sample(9, random_state=4), model.sample(9, random_state=3))
    assert not np.array_equal(model.sample(2), model.sample(2))
    again = clone(model).fit(X)
    assert_allclose(again.score_samples(Q), found, rtol=1e-9)
    # Float32 sums over rows at the noise of the switch scale; log-densities are of size one.
    double = clone(model).set_params(dtype="float64").fit(X)
    assert_allclose(found, double.score_samples(Q), atol=1e-4)
    assert found.dtype == model.sample(2).dtype == np.float64
    # What was fitted stays, whatever is set later; tiles change nothing.
    model.set_params(bandwidth=0.2, degree=3, n_nodes=4, switch_scale=9.0, memory_limit=1)
    assert_allclose(model.score_samples(Q), found, rtol=1e-9)


# ------------------------------------------------------------------------------- in compositions

COMPOSED = {
    "stacking": lambda density: DensityStacking([("a", density), ("b", KDESampler(0.3))]),
    "classifier": DensityClassifier,
    "detector": DensityOutlierDetector,
    "transformed": lambda density: TransformedDensity(density, StandardScaler()),
}
ROWS = np.random.RandomState(0).permutation(RING)[:80]
CLASS = (ROWS[:, 0] > 0).astype(int)


ON_MANIFOLD = CoarseScoreDiffusion(0.3, n_components=1)
SEARCH = GridSearchCV(ON_MANIFOLD, {"switch_scale": [0.3]}, cv=2)
WRAPPED = {
    "itself": ON_MANIFOLD,
    "search": SEARCH,
    "pipeline": make_pipeline(ON_MANIFOLD),
    "pipeline of a search": make_pipeline(SEARCH),
    "transformed": TransformedDensity(ON_MANIFOLD, StandardScaler()),
}
NOT_OF_ALL_COLUMNS = (
    r"CoarseScoreDiffusion whose log-densities are with respect to the volume of a manifold.*Pass.*"
    r"bandwidth=<"
)


@pytest.mark.parametrize(
    ("compose", "density"),
    # What a member is wrapped in is found in one place for all of them.
    [(name, "itself") for name in COMPOSED] + [("stacking", name) for name in list(WRAPPED)[1:]],
)
def test_densities_on_a_manifold_are_not_composed(compose, density):
    """They have no unit in common, and are the same however far from the manifold a row is."""
    with pytest.raises(ValueError, match=NOT_OF_ALL_COLUMNS):
        COMPOSED[compose](WRAPPED[density]).fit(ROWS, CLASS)


@pytest.mark.parametrize(
    "steps",
    [(ON_MANIFOLD,), (make_pipeline(StandardScaler(), ON_MANIFOLD),), (SEARCH,)],
    ids=["itself", "pipeline", "search"],
)
def test_a_detector_refuses_a_density_on_a_manifold_behind_a_scaler(steps):
    with pytest.raises(ValueError, match=NOT_OF_ALL_COLUMNS):
        DensityOutlierDetector(make_pipeline(StandardScaler(), *steps)).fit(ROWS)


@pytest.mark.parametrize("density", [ON_MANIFOLD, SEARCH, make_pipeline(SEARCH)])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_fitted_density_on_a_manifold_is_not_stacked(density, frozen):
    fitted = clone(density).fit(ROWS)
    members = [("a", FrozenEstimator(fitted) if frozen else fitted)]
    with pytest.raises(ValueError, match=f"member 'a' holds a {NOT_OF_ALL_COLUMNS}"):
        DensityStacking(members, cv="prefit").fit(ROWS)


def test_any_density_can_declare_that_it_does_not_fill_the_space():
    class OnALine(KDESampler):
        fills_space_ = False

    with pytest.raises(ValueError, match="holds a OnALine whose log-densities"):
        DensityOutlierDetector(make_pipeline(StandardScaler(), OnALine(0.3))).fit(ROWS)


@pytest.mark.parametrize(
    ("settings", "fills"),
    [
        ({"n_components": 1}, False),
        ({"n_components": 1, "bandwidth": 0.1}, True),
        ({"n_components": 2}, True),
        ({"manifold": CIRCLE}, False),
    ],
)
def test_fills_space_is_false_only_on_a_manifold_of_fewer_dimensions(settings, fills):
    assert CoarseScoreDiffusion(0.3, **settings).fit(ROWS).fills_space_ is fills


@pytest.mark.parametrize("compose", COMPOSED.values(), ids=COMPOSED)
@pytest.mark.parametrize(
    "density",
    [
        CoarseScoreDiffusion(0.3, n_components=1, bandwidth=0.1),
        CoarseScoreDiffusion(0.3, n_components=2),
    ],
    ids=["with noise", "of all dimensions"],
)
def test_densities_of_the_columns_are_composed(compose, density):
    model = compose(density).fit(ROWS, CLASS)
    assert np.isfinite(model.score_samples(ROWS)).all()
