"""Diffusion of directions and rotations: mass one, equivariance, the kernel estimate at sigma zero."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from scipy.special import logsumexp
from scipy.stats import chi2, kstest

from skdiffsmooth import SphericalScoreDiffusion
from skdiffsmooth._diffusion.spherical import _N_BANDWIDTHS, BANDWIDTHS, _best_bandwidth
from skdiffsmooth._engine.sphere import heat_kernel

SCALES = {"bandwidth": 0.3, "sigma": 0.4}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def curve(n, seed=0):
    """Return unit vectors near a closed curve."""
    rng = np.random.RandomState(seed)
    t = rng.uniform(0, 2 * np.pi, n)
    z = 0.5 * np.sin(2 * t) + 0.1 * rng.normal(size=n)
    return unit(np.column_stack([np.cos(t), np.sin(t), z]))


def rotations(n, seed=0):
    return Rotation.from_rotvec(np.random.RandomState(seed).normal(size=(n, 3)) * [0.6, 0.3, 0.1])


def grid(n):
    """Return unit vectors and weights that integrate polynomials of degree 2 n - 1."""
    z, weights = np.polynomial.legendre.leggauss(n)
    phi = np.arange(2 * n) * np.pi / n
    r = np.sqrt(1 - z**2)
    x, y = np.outer(r, np.cos(phi)), np.outer(r, np.sin(phi))
    rows = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=2).reshape(-1, 3)
    return rows, np.repeat(weights, 2 * n) * np.pi / n


def euler_grid(n):
    """Return quaternions, and weights with respect to sin(b) da db dc."""
    z, weights = np.polynomial.legendre.leggauss(n)
    a = np.arange(2 * n) * np.pi / n
    angles = np.stack(np.meshgrid(a, np.arccos(z), a, indexing="ij"), axis=-1).reshape(-1, 3)
    own = np.tile(np.repeat(weights, 2 * n), 2 * n) * (np.pi / n) ** 2
    return Rotation.from_euler("zyz", angles).as_quat(), own


def test_the_mass_on_the_sphere_is_one():
    model = SphericalScoreDiffusion(**SCALES, background=0.0, n_nodes=8).fit(curve(15))
    rows, weights = grid(20)
    # The error of 24 steps; a step of half the length has a quarter of it.
    assert_allclose(weights @ np.exp(model.score_samples(rows)), 1, rtol=0, atol=1e-3)


def test_the_mass_of_rotations_is_one():
    model = SphericalScoreDiffusion(0.9, 0.8, space="rotations", background=0.0, n_nodes=4)
    rows, weights = euler_grid(8)
    density = np.exp(model.fit(rotations(4).as_quat()).score_samples(rows))
    assert_allclose(weights @ density, 1, rtol=0, atol=1e-3)


def test_the_mass_of_directions_in_four_columns_is_one():
    X = unit(np.random.RandomState(0).normal(size=(4, 4)) + [2, 0, 0, 0])
    model = SphericalScoreDiffusion(0.5, 0.4, background=0.0, n_nodes=4).fit(X)
    rows, weights = euler_grid(8)
    density = np.exp(model.score_samples(rows)) + np.exp(model.score_samples(-rows))
    # A quaternion has half the angle of its rotation, so three dimensions have an eighth of the volume.
    assert_allclose(weights @ density / 8, 1, rtol=0, atol=1e-3)


def test_directions_in_six_columns_turn_with_the_data():
    rng = np.random.RandomState(0)
    X, Q = (unit(rng.normal(size=(20, 6)) * [3, 2, 1, 1, 0.5, 0.3]) for _ in range(2))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    model, turned = (SphericalScoreDiffusion(n_nodes=8).fit(rows) for rows in (X, X @ turn.T))
    assert_allclose(turned.score_samples(Q @ turn.T), model.score_samples(Q), rtol=0, atol=1e-9)
    assert_allclose(np.linalg.norm(model.sample(10, random_state=0), axis=1), 1)


def test_sigma_zero_is_the_kernel_estimate():
    X, Q = curve(20), grid(4)[0]
    weight = np.arange(1.0, 21)
    model = SphericalScoreDiffusion(0.2, 0.0, background=0.0).fit(X, sample_weight=weight)
    logits = heat_kernel(0.04, is_antipodal=False).values(np.arccos(Q @ X.T)).log
    expected = logsumexp(logits + np.log(weight / weight.sum()), axis=1)
    assert_allclose(model.score_samples(Q), expected, rtol=1e-10)


def test_a_tiny_sigma_is_nearly_the_kernel_estimate():
    X, Q = curve(20), curve(50, seed=1)
    flow, kernel = (
        SphericalScoreDiffusion(0.3, sigma, background=0.0, n_nodes=6, n_steps=48).fit(X)
        for sigma in (1e-6, 0.0)
    )
    # The error of 48 steps; that of 24 is four times as large.
    assert_allclose(flow.score_samples(Q), kernel.score_samples(Q), rtol=0, atol=5e-3)


@pytest.mark.parametrize("options", [SCALES, {}], ids=["given", "auto"])
def test_rotated_and_mirrored_data_have_rotated_densities(options):
    X, Q = curve(30), curve(10, seed=1)
    turn = np.linalg.qr(np.random.RandomState(3).normal(size=(3, 3)))[0]
    model, turned = (SphericalScoreDiffusion(**options).fit(rows) for rows in (X, X @ turn.T))
    # Rounding, which the flow and the choice of the bandwidth amplify.
    assert_allclose(turned.score_samples(Q @ turn.T), model.score_samples(Q), rtol=0, atol=1e-9)
    drawn, expected = (each.sample(20, random_state=0) for each in (turned, model))
    assert drawn.shape == expected.shape


def test_densities_of_rotations_do_not_depend_on_the_frames():
    X, Q = rotations(15), rotations(10, seed=1)
    left, right = Rotation.random(2, random_state=0)
    model = SphericalScoreDiffusion(**SCALES, space="rotations", n_nodes=12, n_steps=6)
    expected = model.fit(X.as_quat()).score_samples(Q.as_quat())
    assert_allclose(model.score_samples(-Q.as_quat()), expected, rtol=0, atol=1e-12)
    model.fit((left * X * right).as_quat() * np.where(np.arange(15) % 2, 1, -1)[:, None])
    assert_allclose(model.score_samples((left * Q * right).as_quat()), expected, rtol=0, atol=1e-9)
    matrices = X.as_matrix().reshape(-1, 9)
    model.fit(matrices)
    actual = model.score_samples(Q.as_matrix().reshape(-1, 9))
    assert_allclose(actual, expected, rtol=0, atol=1e-9)
    drawn = model.sample(5, random_state=0).reshape(-1, 3, 3)
    assert_allclose(np.linalg.det(drawn), 1, rtol=1e-12)


@pytest.mark.parametrize("space", ["sphere", "rotations"])
def test_samples_have_the_density_that_is_scored(space):
    """Bins of the angle to a pole; correct code fails once in 10 000 seeds (chi-squared test)."""
    X = curve(15) if space == "sphere" else rotations(4).as_quat()
    rows, weights = grid(20) if space == "sphere" else euler_grid(8)
    bandwidth = 0.3 if space == "sphere" else 0.9
    model = SphericalScoreDiffusion(
        bandwidth, 0.5, space=space, background=0.2, n_nodes=6, n_steps=16
    ).fit(X)

    def bins(Q):
        pole = X[0]
        return np.minimum((np.abs(Q @ pole) * 5).astype(int), 4)

    n = 1000
    observed = np.bincount(bins(model.sample(n, random_state=0)), minlength=5)
    density = weights * np.exp(model.score_samples(rows))
    expected = n * np.bincount(bins(rows), weights=density, minlength=5)
    # Edges of bins cut cells of the grid, so a statistic 10 above the quantile is allowed.
    statistic = np.sum((observed - expected) ** 2 / expected)
    assert statistic < chi2.ppf(1 - 1e-4, 4) + 10


def test_left_out_rows_have_the_density_of_the_others():
    X = curve(8)
    model = SphericalScoreDiffusion(**SCALES, background=0.1, n_nodes=6, n_steps=4).fit(X)
    left_out = model.leave_one_out_log_density()
    kernel = SphericalScoreDiffusion(0.3, 0.0, background=0.1).fit(X)
    for k in range(8):
        others = np.delete(kernel.points_, k, axis=0)
        refit = SphericalScoreDiffusion(0.3, 0.0, background=0.1).fit(others)
        expected = refit.score_samples(kernel.points_[k : k + 1])
        assert_allclose(kernel.leave_one_out_log_density()[k], expected[0], rtol=1e-9)
    assert np.all(np.isfinite(left_out))


def test_tile_and_order_of_rows_change_nothing():
    X, Q = curve(40), curve(20, seed=1)
    model = SphericalScoreDiffusion(**SCALES, n_nodes=6, n_steps=4)
    expected = model.fit(X).score_samples(Q)
    small = SphericalScoreDiffusion(**SCALES, n_nodes=6, n_steps=4, memory_limit=0.01)
    assert_allclose(small.fit(X[::-1]).score_samples(Q), expected, rtol=0, atol=1e-10)


def test_equal_rows_are_weights():
    X = curve(10)
    twice = SphericalScoreDiffusion(**SCALES).fit(np.vstack([X, X[:3]]))
    weighted = SphericalScoreDiffusion(**SCALES).fit(X, sample_weight=[2] * 3 + [1] * 7)
    assert_allclose(twice.score_samples(X), weighted.score_samples(X), rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-4, 0.02])
def test_concentrated_rows_get_a_bandwidth_of_their_size(scale):
    rng = np.random.RandomState(0)
    X = unit(np.array([[0.0, 0.0, 1.0]]) + scale * rng.normal(size=(60, 3)))
    model = SphericalScoreDiffusion().fit(X)
    assert 0.05 * scale < model.bandwidth_ < 2 * scale
    # Antipodes are as far away as can be.
    assert np.all(np.isfinite(model.score_samples(-X[:2])))


SPHERE, TURNS = {}, {"space": "rotations"}


@pytest.mark.parametrize(
    ("options", "rows", "match"),
    [
        (SPHERE, [[0.0, 0, 1], [0, 0, 1.2]], r"by 0.2 in row 1"),
        (SPHERE, [[0.0, 0, 1], [0, 0, 0]], r"row 1 of X is zero"),
        (SPHERE, [[10.0, 50], [20, 60]], r"2 columns.*np.radians"),
        (SPHERE, [[0.0, 0, 1], [np.nan, 0, 1]], "NaN"),
        (SPHERE, [[0.0, 0, 1]], r"1 distinct row.*Pass numbers"),
        (SPHERE, [[0.0, 0, 1]] * 5, r"1 distinct row"),
        ({"bandwidth": 0.3, "sigma": 0.0}, [[0.0, 0, 1]], r"such as background=0.0, or more rows"),
        (SPHERE, [[1e200, 0, 1]], r"in row 0"),
        (SPHERE, [[0.0, 0, 0, 0, 0, 0, 1]], r"7 columns.*expected unit vectors of 3 to 6"),
        (TURNS, [1e200 * np.eye(3).ravel()], r"in row 0"),
        (TURNS, [[10.0, 50, 20]], r"3 columns.*degrees=True"),
        (TURNS, [np.diag([1.0, 1, -1]).ravel()], r"row 0 of X is a reflection"),
        (TURNS, [np.diag([1.0, 1, 2]).ravel()], r"from the identity by 3.*takes the nearest"),
        (TURNS, [np.eye(3)] * 2, r"shape \(2, 3, 3\).*Pass X.reshape\(len\(X\), 9\)"),
        (TURNS, [[0.0, 0, 1, 1]], r"by 0.414 in row 0"),
    ],
)
def test_rows_off_the_space_are_refused_by_name(options, rows, match):
    with pytest.raises(ValueError, match=match):
        SphericalScoreDiffusion(**options).fit(np.array(rows))


def test_rows_of_unequal_lengths_are_refused_by_name():
    with pytest.raises(ValueError, match="X of type list has rows of unequal lengths"):
        SphericalScoreDiffusion().fit([[0.0, 0, 1], [0, 1]])


def test_rotations_as_objects_are_refused():
    with pytest.raises(TypeError, match=r"a Rotation of scipy.*Pass X.as_quat\(\)"):
        SphericalScoreDiffusion(space="rotations").fit(rotations(3))


def test_scales_in_degrees_are_refused():
    with pytest.raises(ValueError, match=r"bandwidth=10.0 is out of range.*<= 6.28.*np.radians"):
        SphericalScoreDiffusion(10.0).fit(curve(5))


def test_bandwidths_beyond_the_resolution_of_angles_are_refused():
    with pytest.raises(ValueError, match=r"bandwidth=1e-09 is out of range.*>= 1e-06"):
        SphericalScoreDiffusion(1e-9).fit(curve(5))
    close = unit(np.array([[0.0, 0.0, 1.0]]) + 1e-8 * curve(20))
    with pytest.warns(UserWarning, match="as close as float64 resolves angles"):
        SphericalScoreDiffusion(sigma=0.0, background=0.1).fit(close)


@pytest.mark.filterwarnings("error")
def test_a_row_of_nearly_all_weight_can_be_left_out():
    """The density of the others is not infinite where their weights round to zero beside it."""
    X = curve(6)
    options = {"bandwidth": 0.3, "sigma": 0.0, "background": 0.0}
    heavy = SphericalScoreDiffusion(**options).fit(X, sample_weight=[1e40, 1, 1, 1, 1, 1])
    k = int(heavy.weights_.argmax())
    others = SphericalScoreDiffusion(**options).fit(np.delete(heavy.points_, k, axis=0))
    expected = others.score_samples(heavy.points_[k : k + 1])[0]
    assert_allclose(heavy.leave_one_out_log_density()[k], expected, rtol=1e-9)


def test_one_row_is_a_kernel():
    model = SphericalScoreDiffusion(0.2, 0.0, background=0.0).fit([[0.0, 0.0, 1.0]])
    expected = heat_kernel(0.04, is_antipodal=False).values(np.array([0.5])).log
    assert_allclose(model.score_samples([[np.sin(0.5), 0, np.cos(0.5)]]), expected, rtol=1e-9)


def test_draws_about_one_row_have_the_angles_of_the_kernel():
    """Correct code fails once in 10 000 seeds (Kolmogorov-Smirnov test)."""
    model = SphericalScoreDiffusion(0.7, 0.0, background=0.0).fit([[0.0, 0.0, 1.0]])
    theta = np.linspace(0, np.pi, 2001)
    kernel = np.exp(heat_kernel(0.49, is_antipodal=False).values(theta).log)
    cumulated = np.cumsum(2 * np.pi * np.sin(theta) * kernel) * theta[1]
    angles = np.arccos(model.sample(4000, random_state=0)[:, 2])
    assert kstest(angles, lambda x: np.interp(x, theta, cumulated)).pvalue > 1e-4


def test_saved_models_and_column_names():
    X = pd.DataFrame(curve(10), columns=["x", "y", "z"])
    model = SphericalScoreDiffusion(**SCALES, n_nodes=6, n_steps=4).fit(X)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(X[["y", "x", "z"]])


@pytest.mark.parametrize("shift", [-0.4, 0.4])
def test_the_bandwidth_is_searched_for_on_both_sides_of_the_best_of_the_grid(shift):
    """A likelihood with its peak between two bandwidths that are compared; the search ends at 0.02."""
    grid = np.log(np.geomspace(*BANDWIDTHS, _N_BANDWIDTHS))
    peak = grid[5] + shift * (grid[6] - grid[5])
    found = np.log(_best_bandwidth(lambda h, n: -((np.log(h) - peak) ** 2)))
    assert abs(found - peak) < 0.02
