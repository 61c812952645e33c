"""Tests of data sets: rows on their manifold, from the distribution whose density is given, and noise.

The judges are parametrisations written down here, with lengths and areas from difference quotients:
none of them knows how the package draws its rows.
"""

import functools
import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.special import betainc, zeta
from sklearn.datasets import make_swiss_roll as sklearn_roll

from skdiffsmooth import ManifoldAdaptedDiffusion, datasets
from skdiffsmooth.manifolds import Circle, Curve, Sphere, Torus, check_idempotent

TURN = 2 * np.pi
# Of each chi-square and Kolmogorov-Smirnov test. There are some fifty, all with fixed seeds.
FALSE_ALARM = 1e-4


def plane(r, t):
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=-1)


def circle(u):
    return 2 * plane(1, TURN * u[:, 0])


def ellipse(u):
    return plane(1, TURN * u[:, 0]) * [1.0, 0.5]


def wavy_circle(u):
    t = TURN * u[:, 0]
    return plane(1 + 0.13 * np.sin(8 * t), t)


def rough_circle(u):
    """The Fourier series: 1500 terms leave 2e-8 of a sum that falls like k^-3."""
    t = TURN * u[:, 0]
    k = np.arange(1, 1501)[:, None]
    r = np.concatenate(
        [
            np.sum(np.cos(4 * k * part - 1.5 * np.pi) / k**3.0, axis=0)
            for part in np.array_split(t, 50)
        ]
    )
    return plane(1 + 0.1 * r, t)


def lima_bean(u):
    t = np.pi * u[:, 0]
    return plane(np.sin(t) ** 3 + np.cos(t) ** 3, t)


def sphere(u):
    theta, phi = np.pi * u[:, 0], TURN * u[:, 1]
    around = plane(np.sin(theta), phi)
    return 1.5 * np.column_stack([np.cos(theta), around])


def sphere_3(u):
    chi = np.pi * u[:, 0]
    inner = sphere(u[:, 1:]) / 1.5
    return np.column_stack([np.cos(chi), np.sin(chi)[:, None] * inner])


def torus(u):
    theta, phi = TURN * u[:, 0], TURN * u[:, 1]
    return np.column_stack([plane(1 + 0.4 * np.cos(phi), theta), 0.4 * np.sin(phi)])


def swiss_roll(u):
    t = np.pi * (1.5 + 3 * u[:, 0])
    spiral = plane(t / (4.5 * np.pi), t)
    return np.column_stack([spiral[:, 0], 1.5 * u[:, 1], spiral[:, 1]])


def square_of_images(u):
    axis = np.linspace(-1, 1, 12)
    x, y = (np.exp(-((axis - (c - 0.5)[:, None]) ** 2) / (2 * 0.3**2)) for c in u.T)
    return np.einsum("ni,nj->nij", y, x).reshape(len(u), -1)


def circle_of_images(u):
    t = TURN * u[:, 0]
    return square_of_images(plane(0.5, t) + 0.5)


def make_images_of_circle(n=16, **given):
    given = {"spacing": "random", **given}
    return datasets.make_bump_images(n, size=12, width=0.3, **given)


def make_images_of_square(n=16, **given):
    given = {"spacing": "random", **given}
    return datasets.make_bump_images(n, size=12, width=0.3, centers="square", **given)


def make_circle(n=100, **given):
    return datasets.make_circle(n, radius=2.0, **given)


def make_sphere(n=100, **given):
    return datasets.make_sphere(n, radius=1.5, **given)


def make_sphere_3(n=100, **given):
    return datasets.make_sphere(n, n_components=3, **given)


def make_subspace(n=100, **given):
    return datasets.make_affine_subspace(n, scale=0.7, **given)


# Generator, parametrisation by the unit cube, cells a side for counts, distributions beside "uniform".
CURVE_DISTRIBUTIONS = ("parameter", "discontinuous", "von-mises")
SHAPES = {
    "circle": (make_circle, circle, 80, ("discontinuous", "von-mises")),
    "ellipse": (datasets.make_ellipse, ellipse, 80, CURVE_DISTRIBUTIONS),
    "wavy circle": (datasets.make_wavy_circle, wavy_circle, 80, CURVE_DISTRIBUTIONS),
    "rough circle": (datasets.make_rough_circle, rough_circle, 80, CURVE_DISTRIBUTIONS),
    "lima bean": (datasets.make_lima_bean, lima_bean, 80, CURVE_DISTRIBUTIONS),
    "sphere": (make_sphere, sphere, 6, ("discontinuous",)),
    "3-sphere": (make_sphere_3, sphere_3, 4, ("discontinuous",)),
    "torus": (datasets.make_torus, torus, 6, ("parameter", "discontinuous")),
    "swiss roll": (datasets.make_swiss_roll, swiss_roll, 6, ("parameter", "discontinuous")),
    "images, circle": (make_images_of_circle, circle_of_images, 80, CURVE_DISTRIBUTIONS),
    "images, square": (make_images_of_square, square_of_images, 6, ()),
}
CASES = [
    (name, distribution)
    for name, (*_, distributions) in SHAPES.items()
    for distribution in (
        ("parameter",) if name == "images, square" else ("uniform", *distributions)
    )
]
GENERATORS = [*(make for make, *_ in SHAPES.values()), make_subspace]


@functools.cache
def cells(function, n_cells, fine):
    """Midpoints of a fine grid of the unit cube, their cells, points, and their share of volume."""
    k = next(k for k in (1, 2, 3) if _takes(function, k))
    m = n_cells * fine
    axes = np.meshgrid(*[(np.arange(m) + 0.5) / m] * k, indexing="ij")
    u = np.column_stack([axis.ravel() for axis in axes])
    step = 1e-6
    slopes = np.stack(
        [(function(u + step * e) - function(u - step * e)) / (2 * step) for e in np.eye(k)], axis=2
    )
    gram = np.swapaxes(slopes, 1, 2) @ slopes
    volume = np.sqrt(np.linalg.det(gram)) / m**k
    index = np.ravel_multi_index(tuple((u * n_cells).astype(int).T), [n_cells] * k)
    return index, function(u), volume


def _takes(function, k):
    try:
        function(np.full((2, k), 0.3))
    except (IndexError, ValueError):
        return False
    return True


def expected_shares(name, shape, n_cells, fine):
    """The probability of each cell by the density that the shape reports."""
    index, points, volume = cells(SHAPES[name][1], n_cells, fine)
    return np.bincount(index, np.exp(shape.log_density(points)) * volume)


def places(name, X):
    """The place in the unit cube of rows, from the formulas of the parametrisations."""
    t = np.arctan2(X[:, 1], X[:, 0])
    if name == "ellipse":
        t = np.arctan2(X[:, 1] / 0.5, X[:, 0])
    if name == "lima bean":
        return (np.mod(t, np.pi) / np.pi)[:, None]
    if name in {"circle", "ellipse", "wavy circle", "rough circle"}:
        return np.mod(t, TURN)[:, None] / TURN
    if name == "sphere":
        return np.column_stack(
            [np.arccos(X[:, 0] / 1.5) / np.pi, np.mod(np.arctan2(X[:, 2], X[:, 1]), TURN) / TURN]
        )
    if name == "3-sphere":
        inner = X[:, 1:] / np.linalg.norm(X[:, 1:], axis=1, keepdims=True)
        return np.column_stack([np.arccos(X[:, 0]) / np.pi, places("sphere", 1.5 * inner)])
    if name == "torus":
        phi = np.arctan2(X[:, 2], np.hypot(X[:, 0], X[:, 1]) - 1)
        return np.mod(np.column_stack([t, phi]), TURN) / TURN
    if name == "swiss roll":
        t = 4.5 * np.pi * np.hypot(X[:, 0], X[:, 2])
        return np.column_stack([(t / np.pi - 1.5) / 3, X[:, 1] / 1.5])
    # The center of a bump by logarithms: a linear function of the pixels' coordinates.
    images = np.log(X.reshape(-1, 12, 12)) * 0.3**2
    axis = np.linspace(-1, 1, 12)
    x = np.polyfit(axis, (images[:, 0] + axis**2 / 2).T, 1)[0]
    y = np.polyfit(axis, (images[:, :, 0] + axis**2 / 2).T, 1)[0]
    if name == "images, circle":
        return np.mod(np.arctan2(y, x), TURN)[:, None] / TURN
    return np.column_stack([x, y]) + 0.5


def p_value(name, X, shape):
    """Of the counts of rows in cells, by Pearson's test; cells of few rows together."""
    *_, n_cells, _ = SHAPES[name]
    k = shape.n_components
    expected = len(X) * expected_shares(name, shape, n_cells, {1: 25, 2: 20, 3: 8}[k])
    place = np.minimum((places(name, X) * n_cells).astype(int), n_cells - 1)
    index = np.ravel_multi_index(tuple(place.T), [n_cells] * k)
    counts = np.bincount(index, minlength=n_cells**k)
    order = np.argsort(expected)
    group = np.cumsum(expected[order]) // 10
    group = np.unique(np.minimum(group, group[-1] - 1), return_inverse=True)[1]
    observed, expected = (np.bincount(group, part[order]) for part in (counts, expected))
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue


# ---------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize(("name", "distribution"), CASES)
def test_rows_are_on_the_manifold(name, distribution):
    """To rounding; that of a curve's table is 1e-13 of its size."""
    make, function, *_ = SHAPES[name]
    X, shape = make(300, distribution=distribution, random_state=0, return_shape=True)
    assert X.shape == (300, shape.n_features)
    assert X.dtype == np.float64
    assert shape.manifold.distance(X).max() < 1e-11
    # And the manifold is the one of the formula; 1e-7 is what the Fourier series leaves.
    k = shape.n_components
    truth = function(np.random.RandomState(0).uniform(size=(200, k)))
    assert shape.manifold.distance(truth).max() < 1e-7
    assert (shape.manifold.dimension, shape.manifold.n_features) == (k, truth.shape[1])


@pytest.mark.parametrize(("name", "distribution"), CASES)
def test_densities_integrate_to_one(name, distribution):
    """Midpoint rule: on periodic smooth functions exact, elsewhere to its squared step; the density
    of the discontinuous distribution jumps within a cell of 1/2000 or 1/120 of the shape."""
    *_, n_cells, _ = SHAPES[name]
    shape = SHAPES[name][0](1, distribution=distribution, return_shape=True)[1]
    k = shape.n_components
    mass = expected_shares(name, shape, n_cells, {1: 25, 2: 20, 3: 8}[k]).sum()
    assert mass == pytest.approx(1, abs={1: 1e-3, 2: 2e-3, 3: 5e-3}[k])


@pytest.mark.parametrize(("name", "distribution"), CASES)
def test_rows_follow_the_density(name, distribution):
    """Chi-square of 4000 rows in at least 36 cells of the parametrisation."""
    X, shape = SHAPES[name][0](4000, distribution=distribution, random_state=1, return_shape=True)
    assert p_value(name, X, shape) > FALSE_ALARM


@pytest.mark.parametrize("name", ["ellipse", "wavy circle", "lima bean", "torus", "swiss roll"])
def test_that_test_detects_rows_of_another_distribution(name):
    """Uniform in the parameter is not uniform in length or area, and 20 000 rows show it."""
    make = SHAPES[name][0]
    X = make(20_000, distribution="parameter", random_state=1)
    shape = make(1, distribution="uniform", return_shape=True)[1]
    assert p_value(name, X, shape) < 1e-8


def test_uniform_is_one_over_the_volume():
    """Known lengths, areas and volumes."""
    known = {
        "circle": 2 * TURN,
        "ellipse": 4.844224110273838,  # 4 E(3/4), Abramowitz and Stegun 17.3
        "sphere": 4 * np.pi * 1.5**2,
        "3-sphere": 2 * np.pi**2,
        "torus": TURN**2 * 0.4,
    }
    for name, volume in known.items():
        X, shape = SHAPES[name][0](5, return_shape=True)
        assert shape.volume == pytest.approx(volume, rel=1e-12)
        np.testing.assert_allclose(shape.log_density(X), -np.log(volume), rtol=1e-12)


@pytest.mark.parametrize("make", [datasets.make_ellipse, datasets.make_torus, make_sphere])
def test_a_distribution_that_jumps(make):
    """Of 3 to 1: the density has two values, and three quarters of the rows are in one half."""
    X, shape = make(4000, distribution="discontinuous", random_state=0, return_shape=True)
    density = np.exp(shape.log_density(X)) * shape.volume
    assert set(density.round(12)) == {0.5, 1.5}
    # Binomial, standard deviation 27: six of them.
    assert abs((density > 1).sum() - 3000) < 165
    other = datasets.PiecewiseConstant((0, 1, 1, 0))
    X, shape = make(500, distribution=other, random_state=0, return_shape=True)
    np.testing.assert_allclose(np.exp(shape.log_density(X)) * shape.volume, 2)
    uniform = make(500, random_state=0)
    np.testing.assert_allclose(
        np.mean(np.isneginf(shape.log_density(uniform))), 0.5, atol=6 * np.sqrt(0.25 / 500)
    )


@pytest.mark.parametrize("concentration", [0.0, 0.3, 5.0, 400.0, 1e7])
def test_von_mises(concentration):
    """On a circle the angles and the density are scipy's; scipy's own density is exact to 1e-10."""
    distribution = datasets.VonMises(concentration)
    X, shape = make_circle(4000, distribution=distribution, random_state=0, return_shape=True)
    angle = np.arctan2(X[:, 1], X[:, 0])
    truth = stats.vonmises(max(concentration, 1e-12), scale=1.0)
    assert stats.kstest(angle, truth.cdf).pvalue > FALSE_ALARM
    # A circle of radius two: half of the density in the angle.
    near = np.linspace(-2, 2, 41) / np.sqrt(max(concentration, 1))
    result = shape.log_density(2 * plane(1, near))
    np.testing.assert_allclose(result, truth.logpdf(near) - np.log(2), rtol=0, atol=1e-9)
    assert stats.kstest(angle, stats.uniform(-np.pi, TURN).cdf).pvalue < 1e-8 or concentration == 0
    p = np.linspace(0, 1, 101)
    share = distribution.quantile(p)
    assert np.all(np.diff(share) >= 0)
    np.testing.assert_allclose(share[[0, -1]], [0, 1], atol=1e-15)


def test_affine_subspaces():
    """Uniform: coordinates in the cube. Normal: their distribution and density, far out too."""
    X, shape = make_subspace(3000, n_components=3, n_features=7, random_state=0, return_shape=True)
    assert shape.manifold.distance(X).max() < 1e-13
    np.testing.assert_allclose(shape.manifold.distance(np.zeros((1, 7))), 1, rtol=1e-14)
    y = (X - shape.manifold.origin) @ shape.manifold.basis / 0.7
    for column in y.T:
        assert stats.kstest(column, stats.uniform(-1, 2).cdf).pvalue > FALSE_ALARM
    np.testing.assert_allclose(shape.log_density(X), -3 * np.log(1.4), rtol=1e-12)
    outside = shape.manifold.origin + 0.8 * shape.manifold.basis[:, 0]
    assert shape.log_density([outside]) == -np.inf
    X, shape = make_subspace(3000, distribution="gaussian", random_state=0, return_shape=True)
    y = (X - shape.manifold.origin) @ shape.manifold.basis
    for column in y.T:
        assert stats.kstest(column, stats.norm(0, 0.7).cdf).pvalue > FALSE_ALARM
    far = np.vstack([y, [[0, 0], [9.0, -30.0]]])
    expected = stats.norm(0, 0.7).logpdf(far).sum(axis=1)
    result = shape.log_density(shape.manifold.origin + far @ shape.manifold.basis.T)
    np.testing.assert_allclose(result, expected, rtol=1e-11)
    X = make_subspace(500, distribution="discontinuous", random_state=0)
    y = (X - shape.manifold.origin) @ shape.manifold.basis
    assert abs((y[:, 0] < 0).sum() - 375) < 6 * np.sqrt(500 * 3 / 16)
    whole = datasets.make_affine_subspace(10, n_components=2, n_features=2, random_state=0)
    assert np.linalg.matrix_rank(whole) == 2


def test_densities_are_for_points_of_the_manifold():
    X, shape = datasets.make_wavy_circle(20, noise=0.01, random_state=0, return_shape=True)
    with pytest.raises(ValueError, match="20 rows of X are not on the manifold, the farthest"):
        shape.log_density(X)
    assert np.isfinite(shape.log_density(shape.manifold.project(X))).all()
    # Rows that were stored in single precision are still on it.
    assert np.isfinite(shape.log_density(shape.sample(20).astype(np.float32))).all()
    with pytest.raises(ValueError, match=r"X has shape \(2, 3\)"):
        shape.log_density(np.zeros((2, 3)))
    assert shape.log_density(np.zeros((0, 2))).shape == (0,)


# ----------------------------------------------------------------------------- what all have


@pytest.mark.parametrize("make", GENERATORS)
def test_noise_is_isotropic_and_of_the_given_size(make):
    """The same seed draws the same rows first: the difference is the noise, a normal distribution."""
    X = make(400, random_state=0)
    difference = make(400, noise=0.05, random_state=0) - X
    assert stats.kstest(difference.ravel() / 0.05, stats.norm.cdf).pvalue > FALSE_ALARM
    # Each column alone: the relative standard error is 1 / sqrt(800).
    assert np.abs(difference.std(axis=0) / 0.05 - 1).max() < 5 / np.sqrt(800)


@pytest.mark.parametrize("make", GENERATORS)
def test_seeds(make):
    """Same seed, same rows, from the generator and from the shape; numpy's own state is left alone."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    X, shape = make(30, random_state=3, return_shape=True)
    np.testing.assert_array_equal(X, make(30, random_state=3))
    np.testing.assert_array_equal(X, make(30, random_state=np.random.RandomState(3)))
    np.testing.assert_array_equal(X, shape.sample(30, random_state=3))
    assert np.abs(X - make(30, random_state=4)).max() > 0.1
    assert np.abs(make(30) - make(30)).max() > 0.01
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert shape.sample().shape == (1, shape.n_features)


@pytest.mark.parametrize("name", [name for name in datasets.__all__ if name.startswith("make_")])
def test_generators_draw_from_the_shape_of_their_name(name):
    """With the same defaults; images are evenly spaced, and the rows of other shapes random."""
    shape = getattr(datasets, name.removeprefix("make_"))()
    X, same = getattr(datasets, name)(5, noise=0.1, random_state=0, return_shape=True)
    spacing = "even" if name == "make_bump_images" else "random"
    np.testing.assert_array_equal(X, shape.sample(5, 0, spacing=spacing, noise=0.1))
    assert repr(same) == repr(shape)
    assert (same.volume, same.manifold.reach) == (shape.volume, shape.manifold.reach)


@pytest.mark.parametrize("make", GENERATORS)
def test_shapes_survive_pickle(make):
    X, shape = make(30, random_state=3, return_shape=True)
    other = pickle.loads(pickle.dumps(shape))
    np.testing.assert_array_equal(other.sample(30, random_state=3), X)
    np.testing.assert_array_equal(other.log_density(X), shape.log_density(X))
    assert repr(other) == repr(shape)
    assert "Shape: Uniform() on <" in repr(shape)


@pytest.mark.parametrize(
    "make",
    [
        datasets.make_circle,
        datasets.make_ellipse,
        datasets.make_wavy_circle,
        datasets.make_rough_circle,
        datasets.make_lima_bean,
        datasets.make_sphere,
        datasets.make_torus,
        datasets.make_swiss_roll,
    ],
)
def test_rotation_into_more_dimensions(make):
    """An isometry: distances between rows stay. The frame has a seed of its own."""
    X, flat = make(40, random_state=0, return_shape=True)
    Y, shape = make(40, n_features=9, random_state=0, return_shape=True)
    assert Y.shape == (40, 9)
    gaps = [np.linalg.norm(rows[:, None] - rows, axis=2) for rows in (X, Y)]
    np.testing.assert_allclose(*gaps, atol=1e-12)
    np.testing.assert_allclose(shape.log_density(Y), flat.log_density(X), atol=1e-9)
    assert shape.manifold.reach == pytest.approx(flat.manifold.reach, rel=1e-9)
    assert shape.manifold.distance(make(40, n_features=9, random_state=1)).max() < 1e-11
    other = make(40, n_features=9, frame_state=1, random_state=0)
    assert shape.manifold.distance(other).max() > 0.1
    turned = make(40, n_features=X.shape[1], random_state=0)
    assert np.abs(turned - X).max() > 0.1
    with pytest.raises(ValueError, match="n_features=1 is too small"):
        make(n_features=1)


@pytest.mark.parametrize("name", ["circle", "ellipse", "wavy circle", "rough circle", "lima bean"])
def test_evenly_spaced_rows(name):
    """Equal lengths of the curve between rows, measured along 200 000 chords."""
    make, function, *_ = SHAPES[name]
    X = make(7, spacing="even")
    np.testing.assert_array_equal(X, make(7, spacing="even", random_state=5))
    n = 200_000 if name != "rough circle" else 20_000
    line = function(np.arange(n + 1)[:, None] / n)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    nearest = [np.linalg.norm(line[:-1] - row, axis=1).argmin() for row in X]
    # A row is half a chord from the nearest point of the line, at most.
    np.testing.assert_allclose(
        length[nearest], np.arange(7) / 7 * length[-1], atol=1.5 * length[-1] / n * 3
    )
    np.testing.assert_allclose(X[0], line[0], atol=1e-7)
    # Of another distribution, equal shares of it.
    X = make(8, spacing="even", distribution="discontinuous")
    nearest = [np.linalg.norm(line[:-1] - row, axis=1).argmin() for row in X]
    assert np.sum(length[nearest] < 0.4999 * length[-1]) == 6


def test_even_spacing_of_other_shapes():
    shape = datasets.affine_subspace(n_components=1)
    y = (shape.sample(4, spacing="even") - shape.manifold.origin) @ shape.manifold.basis
    np.testing.assert_allclose(y[:, 0], [-0.75, -0.25, 0.25, 0.75], atol=1e-14)
    with pytest.raises(
        ValueError, match="spacing='even' is not defined for this shape of dimension 2"
    ):
        datasets.torus().sample(4, spacing="even")
    with pytest.raises(ValueError, match="spacing='lattice' is not known"):
        datasets.make_circle(4, spacing="lattice")


# ------------------------------------------------------------------------------------ each shape


def test_reaches():
    """Known ones: radii, the ellipse's b^2 / a, the least radius of curvature of the waves."""
    reach = {
        name: make(1, return_shape=True)[1].manifold.reach for name, (make, *_) in SHAPES.items()
    }
    assert (reach["circle"], reach["sphere"], reach["torus"]) == (2, 1.5, 0.4)
    assert reach["ellipse"] == pytest.approx(0.25, rel=1e-9)
    assert make_subspace(1, return_shape=True)[1].manifold.reach == np.inf
    t = np.linspace(0, TURN, 100_001)
    r, slope, bend = 1 + 0.13 * np.sin(8 * t), 8 * 0.13 * np.cos(8 * t), -64 * 0.13 * np.sin(8 * t)
    curvature = np.abs(r**2 + 2 * slope**2 - r * bend) / (r**2 + slope**2) ** 1.5
    assert reach["wavy circle"] == pytest.approx(1 / curvature.max(), rel=1e-4)
    # Of the spiral r = c t: half of the gap of 4/9 between turns, or a little less, for they are not
    # parallel.
    assert 0.21 < reach["swiss roll"] < 2 / 9


def test_kinds_of_manifolds():
    kinds = {"circle": Circle, "wavy circle": Curve, "sphere": Sphere, "torus": Torus}
    for name, kind in kinds.items():
        assert type(SHAPES[name][0](1, return_shape=True)[1].manifold) is kind


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_spheres_of_many_dimensions(k):
    """(1 + y) / 2 has a beta distribution for any coordinate y; one angle is tested too."""
    X, shape = datasets.make_sphere(3000, n_components=k, random_state=0, return_shape=True)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, rtol=1e-13)
    for j in {0, k // 2, k}:
        cdf = stats.kstest(X[:, j], lambda y: betainc(k / 2, k / 2, (1 + y) / 2))
        assert cdf.pvalue > FALSE_ALARM
    angles = np.arctan2(X[:, 1], X[:, 0])
    assert stats.kstest(angles, stats.uniform(-np.pi, TURN).cdf).pvalue > FALSE_ALARM
    # Draws and places are inverse to each other.
    u = np.random.RandomState(1).uniform(size=(100, k))
    np.testing.assert_allclose(shape.chart.locate(shape.chart.points(u))[0], u, atol=1e-9)


@pytest.mark.parametrize("smoothness", [2, 3, 4])
def test_a_rough_circle_has_as_many_derivatives(smoothness):
    """Between knots the radius is a polynomial of degree b + 1, so fits on both sides are exact.

    Of order below b derivatives agree at the knot, of order b they jump by pi a w^b, and the largest
    radius is that of the series.
    """
    shape = datasets.rough_circle(smoothness=smoothness)
    knot, wave = TURN / 4, TURN / 4
    sides = []
    for t in (np.linspace(knot - 0.9 * wave, knot, 50), np.linspace(knot, knot + 0.9 * wave, 50)):
        radius = np.linalg.norm(shape.manifold.points(t), axis=1)
        fit = np.polynomial.Polynomial.fit(t - knot, radius, smoothness + 1)
        sides.append([fit.deriv(order)(0.0) for order in range(smoothness + 1)])
    jumps = np.subtract(*sides)
    np.testing.assert_allclose(jumps[:-1], 0, atol=1e-8)
    assert abs(jumps[-1]) == pytest.approx(np.pi * 0.1 * 4.0**smoothness, rel=1e-8)
    t = np.linspace(0, TURN, 4001)
    radius = np.linalg.norm(shape.manifold.points(t), axis=1)
    assert np.abs(radius - 1).max() <= 0.1 * zeta(smoothness + 1)


def test_swiss_roll_of_scikit_learn():
    """Its rows are ours, draw by draw, in units of its size."""
    theirs = sklearn_roll(50, random_state=3)[0]
    given = {"radius": 4.5 * np.pi, "height": 21.0, "distribution": "parameter", "random_state": 3}
    np.testing.assert_allclose(datasets.make_swiss_roll(50, **given), theirs, atol=1e-12)


def test_a_swiss_roll_is_flat():
    """Distances along the roll are those of a rectangle: short chords have the length of steps."""
    shape = datasets.swiss_roll()
    u = np.random.RandomState(0).uniform(0.1, 0.9, size=(200, 2))
    step = 1e-6 * np.random.RandomState(1).normal(size=(200, 2))
    sides = [shape.volume / 1.5, 1.5]
    chords = shape.chart.points(u + step) - shape.chart.points(u)
    np.testing.assert_allclose(
        np.linalg.norm(chords, axis=1), np.linalg.norm(step * sides, axis=1), rtol=1e-4
    )


# ------------------------------------------------------------------------------------ bump images


def test_bumps_pixel_by_pixel():
    """The paper's sixteen images: centers at even angles, and two loops over pixels."""
    X = datasets.make_bump_images()
    assert X.shape == (16, 64 * 64)
    for row in (0, 3):
        angle = TURN * row / 16
        image = np.empty((64, 64))
        for i in range(64):
            for j in range(64):
                x, y = -1 + 2 * j / 63, -1 + 2 * i / 63
                square = (x - 0.5 * np.cos(angle)) ** 2 + (y - 0.5 * np.sin(angle)) ** 2
                image[i, j] = np.exp(-square / (2 * 0.2**2))
        np.testing.assert_allclose(X[row].reshape(64, 64), image, atol=1e-14)
    assert 0.99 < X.max() <= 1


def test_a_lattice_of_bumps():
    """116 centers, each at the same distance from its nearest ones, of which inner ones have six."""
    X, shape = datasets.make_bump_images(116, centers="square", spacing="even", return_shape=True)
    centers = shape.manifold.centers(X)
    np.testing.assert_allclose(np.abs(centers).max(), 0.5, atol=1e-12)
    gaps = np.linalg.norm(centers[:, None] - centers, axis=2) + 9 * np.eye(116)
    np.testing.assert_allclose(gaps.min(axis=1), 0.1, rtol=1e-12)
    assert (np.sum(gaps < 0.1 + 1e-9, axis=1) == 6).sum() > 70
    assert shape.manifold.distance(X).max() < 1e-11
    noisy = datasets.make_bump_images(
        116, centers="square", spacing="even", noise=0.1, random_state=0
    )
    # 116 x 4096 draws: a relative standard error of 1e-3.
    assert (noisy - X).std() == pytest.approx(0.1, rel=5e-3)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 113])
def test_a_lattice_of_any_number(n):
    X, shape = datasets.make_bump_images(
        n, size=16, centers="square", spacing="even", return_shape=True
    )
    centers = shape.manifold.centers(X)
    assert len(centers) == n
    if n > 1:
        gaps = np.linalg.norm(centers[:, None] - centers, axis=2) + 9 * np.eye(n)
        np.testing.assert_allclose(gaps.min(axis=1), gaps.min(), rtol=1e-9)
        # Of the lattice that has as many points on the area.
        assert gaps.min() > 0.85 * np.sqrt(2 / np.sqrt(3) / n)


@pytest.fixture(scope="module")
def sheet():
    shape = make_images_of_square(1, return_shape=True)[1]
    return shape.manifold


def images_far_and_near(n=60, seed=0):
    """On the manifold, near it, of two bumps, of a bump out of the square, negative, of noise, zero."""
    rng = np.random.RandomState(seed)
    bumps = square_of_images(rng.uniform(size=(n, 2)))
    outside = square_of_images(rng.uniform(-0.3, 1.3, size=(n, 2)))
    noise = rng.normal(size=bumps.shape)
    mixed = bumps + rng.uniform(0.5, 1.1, (n, 1)) * bumps[::-1]
    return np.vstack([bumps, bumps + 0.1 * noise, mixed, outside, -bumps, noise, 0 * noise[:1]])


def test_no_image_of_the_square_is_nearer(sheet):
    """Of 201 x 201 centers: others are 0.0035 from one at most, and images 6.9 times as far."""
    X = images_far_and_near()
    axis = np.linspace(0, 1, 201)
    lattice = square_of_images(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    squares = (X**2).sum(1)[:, None] - 2 * X @ lattice.T + (lattice**2).sum(1)
    nearest = np.sqrt(np.maximum(squares.min(axis=1), 0))
    result = sheet.distance(X)
    assert np.all(result <= nearest + 1e-7)
    assert np.all(result >= nearest - 0.025)
    # And the answer is an image of the square.
    P, centers = sheet.project(X), sheet.centers(X)
    np.testing.assert_allclose(P, square_of_images(centers + 0.5), atol=1e-12)
    assert np.abs(centers).max() <= 0.5


def test_centers_are_found_to_rounding(sheet):
    """Near images within the reach: what is added along normals does not move the foot."""
    rng = np.random.RandomState(0)
    centers = rng.uniform(-0.5, 0.5, size=(200, 2))
    X = sheet.images(centers)
    T = sheet.tangent(X)
    noise = rng.normal(size=X.shape)
    noise -= (T @ (np.swapaxes(T, 1, 2) @ noise[:, :, None]))[:, :, 0]
    noise *= 0.3 * sheet.reach / np.linalg.norm(noise, axis=1, keepdims=True)
    np.testing.assert_allclose(sheet.centers(X + noise), centers, atol=1e-12)
    np.testing.assert_allclose(sheet.distance(X + noise), 0.3 * sheet.reach, rtol=1e-10)


def test_contract_of_the_sheet(sheet):
    X = images_far_and_near(20)
    check_idempotent(sheet, X)
    P, T, G = sheet.project_with_derivative(X)
    np.testing.assert_array_equal(P, sheet.project(X))
    np.testing.assert_array_equal(T, sheet.tangent(X))
    np.testing.assert_array_equal(G, sheet.projection_derivative(X))
    np.testing.assert_allclose(
        np.swapaxes(T, 1, 2) @ T, np.tile(np.eye(2), (len(X), 1, 1)), atol=1e-12
    )
    along = (np.swapaxes(T, 1, 2) @ (X - P)[:, :, None])[:, :, 0]
    inside = np.abs(sheet.centers(X)).max(axis=1) < 0.5
    assert 10 < inside.sum() < len(X) - 10
    np.testing.assert_allclose(along[inside], 0, atol=1e-11)
    single = sheet.project(X.astype(np.float32))
    assert single.shape == P.shape
    # The manifold in coordinates of its hull has the same distances.
    hull = sheet.affine_hull
    inner = sheet.within(hull)
    coordinates = (X - hull.center) @ hull.basis
    lifted = inner.project(coordinates) @ hull.basis.T + hull.center
    np.testing.assert_allclose(lifted, P, atol=1e-12)
    assert sheet.project(X[:0]).shape == (0, 144)


def test_derivative_of_the_sheet(sheet):
    """Central differences in random directions; their error is 1e-10 of the third derivative."""
    X = images_far_and_near(20)[:80]
    direction = np.random.RandomState(1).normal(size=X.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    moved = [sheet.project(X + sign * 1e-5 * direction) for sign in (1, -1)]
    T, G = sheet.tangent(X), sheet.projection_derivative(X)
    expected = (T @ (G @ (np.swapaxes(T, 1, 2) @ direction[:, :, None])))[:, :, 0]
    error = np.abs((moved[0] - moved[1]) / 2e-5 - expected).max(axis=1)
    assert np.quantile(error, 0.95) < 1e-7
    held = np.abs(sheet.centers(X)).max(axis=1) == 0.5
    assert held.sum() > 10
    np.testing.assert_allclose(np.linalg.det(G[held]), 0, atol=1e-12)


def test_derivative_where_bumps_are_cut_off():
    """Centers up to the corners of the image, where moving in x changes what a move in y does."""
    shape = datasets.bump_images(size=12, width=0.3, radius=1, centers="square")
    cut, rng = shape.manifold, np.random.RandomState(0)
    corners = rng.uniform(0.8, 0.99, size=(40, 2)) * rng.choice([-1, 1], size=(40, 2))
    X = cut.images(corners) + 0.01 * rng.normal(size=(40, 144))
    X = X[np.abs(cut.centers(X)).max(axis=1) < 0.999]
    assert len(X) > 20
    T, G = cut.tangent(X), cut.projection_derivative(X)
    for direction in np.moveaxis(T, 2, 0):
        moved = [cut.project(X + sign * 1e-5 * direction) for sign in (1, -1)]
        expected = (T @ (G @ (np.swapaxes(T, 1, 2) @ direction[:, :, None])))[:, :, 0]
        np.testing.assert_allclose((moved[0] - moved[1]) / 2e-5, expected, atol=1e-7)


def test_reach_of_the_sheet():
    """Of many pixels and a bump far from the edge: root of a third of its squared norm pi (w / step)^2.

    A shift of the bump by s is at the squared distance 2 A (1 - exp(-s^2 / 4 w^2)), whose curve has that
    radius of curvature, the least of all.
    """
    shape = datasets.bump_images(size=64, width=0.1, radius=0.3, centers="square")
    squared_norm = np.pi * (0.1 * 63 / 2) ** 2
    assert shape.manifold.reach == pytest.approx(np.sqrt(squared_norm / 3), rel=1e-3)


def test_images_can_be_smoothed_along_their_square():
    """The manifold is one for the estimator, and samples are near it."""
    X, shape = datasets.make_bump_images(
        30, size=12, width=0.3, centers="square", spacing="even", return_shape=True
    )
    model = ManifoldAdaptedDiffusion(
        0.02, 0.6, manifold=shape.manifold, n_nodes=8, n_levels=8, n_steps=16
    ).fit(X)
    assert shape.manifold.distance(model.sample(20, random_state=0)).mean() < 0.35


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: datasets.make_circle(0), ValueError, "n_samples=0 is too small"),
        (lambda: datasets.make_circle(2.5), TypeError, "n_samples=2.5 has type float"),
        (lambda: datasets.make_circle(noise=-1), ValueError, "noise=-1 is out of range"),
        (lambda: datasets.make_circle(radius=0), ValueError, "radius=0 is out of range"),
        (
            lambda: datasets.make_circle(random_state="a"),
            TypeError,
            "random_state='a' has type str",
        ),
        (lambda: datasets.make_circle(frame_state=None), TypeError, "frame_state=None has type"),
        (
            lambda: datasets.make_circle(distribution="parameter"),
            ValueError,
            "distribution='parameter' is not known",
        ),
        (lambda: datasets.make_circle(distribution=3), TypeError, "distribution=3 has type int"),
        (lambda: datasets.make_circle(distribution=datasets.Uniform), TypeError, "has type"),
        (
            lambda: datasets.make_torus(distribution="von-mises"),
            ValueError,
            "distribution='von-mises' is not known",
        ),
        (
            lambda: datasets.make_torus(distribution=datasets.VonMises()),
            ValueError,
            "needs a closed curve",
        ),
        (lambda: datasets.make_torus(tube_radius=2), ValueError, "tube_radius=2 is out of range"),
        (lambda: datasets.make_ellipse(semi_axes=(1, 0)), ValueError, r"semi_axes=\(1, 0\)"),
        (lambda: datasets.make_ellipse(semi_axes=3), ValueError, "semi_axes=3 is not a pair"),
        (lambda: datasets.make_wavy_circle(amplitude=1), ValueError, "amplitude=1 is out of range"),
        (lambda: datasets.make_wavy_circle(waves=0), ValueError, "waves=0 is too small"),
        (lambda: datasets.make_rough_circle(smoothness=1), ValueError, "smoothness=1 is too small"),
        (
            lambda: datasets.make_rough_circle(smoothness=11),
            ValueError,
            "is too large; expected at",
        ),
        (lambda: datasets.make_rough_circle(waves=3), ValueError, "waves=3 is not a power of two"),
        (
            lambda: datasets.make_rough_circle(amplitude=0.5),
            ValueError,
            "amplitude=0.5 is out of range",
        ),
        (lambda: datasets.make_sphere(n_components=0), ValueError, "n_components=0 is too small"),
        (lambda: datasets.make_swiss_roll(height=0), ValueError, "height=0 is out of range"),
        (lambda: datasets.make_swiss_roll(radius="1"), TypeError, "radius='1' has type str"),
        (lambda: make_subspace(n_components=4), ValueError, "n_features=3 is too small"),
        (lambda: make_subspace(offset=-1), ValueError, "offset=-1 is out of range"),
        (lambda: datasets.make_bump_images(width=0.01), ValueError, "below the distance 0.0317"),
        (lambda: datasets.make_bump_images(radius=2), ValueError, "radius=2 is out of range"),
        (lambda: datasets.make_bump_images(centers="disc"), ValueError, "centers='disc'"),
        (lambda: datasets.make_torus(spacing="even"), ValueError, "spacing='even' is not defined"),
        (
            lambda: datasets.make_circle(law="uniform"),
            TypeError,
            "unexpected keyword argument 'law'",
        ),
        (
            lambda: datasets.make_bump_images(centers="square", distribution="uniform"),
            ValueError,
            "distribution='uniform' is not known",
        ),
        (lambda: datasets.PiecewiseConstant((1, -1)), ValueError, "is not a density"),
        (lambda: datasets.PiecewiseConstant((0, 0)), ValueError, "is not a density"),
        (lambda: datasets.PiecewiseConstant(()), ValueError, "is not a density"),
        (lambda: datasets.VonMises(-1), ValueError, "concentration=-1 is out of range"),
        (lambda: datasets.VonMises(1e9), ValueError, "concentration=1000000000.0 is out of range"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
