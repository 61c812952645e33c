"""Modes of a density: found by brute force on a grid, and laws."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import maximum_filter

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import find_modes


def clusters(n=40, seed=0):
    rng = np.random.RandomState(seed)
    return np.concatenate([rng.normal(center, 1, size=(n, 2)) for center in (-3, 3)])


def smoothed(**parameters):
    return SmoothedScoreDiffusion(
        0.6, 0.8, metric="euclidean", n_nodes=16, n_steps=12, **parameters
    )


@pytest.mark.parametrize(
    "model", [KDESampler(0.7, metric="euclidean"), smoothed()], ids=["kde", "smoothed"]
)
def test_modes_are_the_maxima_on_a_grid(model):
    model.fit(clusters())
    ticks = np.linspace(-6, 6, 41)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=2)
    values = model.score_samples(grid.reshape(-1, 2)).reshape(41, 41)
    # Within 16 nats of the highest, since far from all rows rounding makes maxima.
    peaks = (values == maximum_filter(values, 3)) & (values > values.max() - 16)
    expected = grid[peaks][np.argsort(-values[peaks])]
    modes = find_modes(model)
    # Half a diagonal of a cell; near a flat top the highest node may be the next but one.
    assert_allclose(modes.points, expected, rtol=0, atol=0.3)
    assert np.all(modes.log_density >= np.sort(values[peaks])[::-1] - 1e-9)
    assert_allclose(modes.share.sum(), 1)


def test_the_gradient_of_the_density_vanishes_at_modes():
    model = smoothed(background=0.05).fit(clusters())
    modes = find_modes(model)
    assert modes.log_density[0] >= model.score_samples(model.points_).max()
    for axis in 1e-3 * np.eye(2):
        slope = model.score_samples(modes.points + axis) - model.score_samples(modes.points - axis)
        # A Newton step below a thousandth of the bandwidth.
        assert_allclose(slope / 2e-3, 0, rtol=0, atol=3e-3)
    # Modes of the averaged log-density are elsewhere, so the refinement is needed.
    assert np.linalg.norm(model.grad_log_density(modes.points), axis=1).max() > 0.02


def test_rows_far_apart_are_modes_of_unit_curvature():
    X = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 9]])
    modes = find_modes(KDESampler(0.5, metric="euclidean").fit(X, sample_weight=[3, 2, 1]))
    assert_allclose(modes.points, X, rtol=0, atol=1e-6)
    assert_allclose(modes.share, np.array([3, 2, 1]) / 6)
    # Differences of log-densities at a distance of 0.05 bandwidths.
    assert_allclose(modes.eigenvalues, -1, rtol=1e-6)


def test_modes_turn_with_the_data_and_scale_with_units():
    X = clusters()
    modes = find_modes(KDESampler(0.8, metric="euclidean").fit(X))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = find_modes(KDESampler(0.8, metric="euclidean").fit(X @ turn.T))
    assert_allclose(turned.points, modes.points @ turn.T, rtol=0, atol=1e-3)
    assert_allclose(turned.eigenvalues, modes.eigenvalues, rtol=0, atol=1e-3)
    unit = np.array([1e-6, 1e6])
    scaled, plain = (
        find_modes(KDESampler(0.5, metric="scaled").fit(rows)) for rows in (X * unit, X)
    )
    assert_allclose(scaled.points / unit, plain.points, rtol=0, atol=1e-3)


def test_a_mode_at_midnight_is_one():
    hours = np.random.RandomState(0).normal(0, 2, size=(40, 1)) % 24
    model = SmoothedScoreDiffusion(0.5, 0.4, periods={0: 24}, n_nodes=16, n_steps=8)
    modes = find_modes(model.fit(hours))
    assert len(modes.points) == 1
    assert min(modes.points[0, 0], 24 - modes.points[0, 0]) < 1.5


def test_modes_left_out_are_reported():
    model = KDESampler(0.01).fit(clusters())
    with pytest.warns(UserWarning, match=r"the averaged log-density has \d\d maxima, and the 3 of"):
        modes = find_modes(model, n_modes=3)
    assert len(modes.points) == 3
    assert modes.share.sum() < 0.1


@pytest.mark.filterwarnings("error")
def test_column_names_cause_no_warning():
    frame = pd.DataFrame(clusters(10), columns=["a", "b"])
    model = KDESampler(1.0).fit(frame)
    assert len(find_modes(model).points) == 2
    assert list(model.feature_names_in_) == ["a", "b"]


def test_a_model_without_an_energy_is_refused():
    with pytest.raises(TypeError, match="has no method energy"):
        find_modes(object())


def test_rows_on_a_plane_have_the_modes_of_the_plane():
    """A constant column, of any size, adds no direction; nor do columns beyond the rows of a table."""
    X = clusters()
    plain = find_modes(KDESampler(0.8).fit(X))
    for third in (1.0, 1e9):
        modes = find_modes(KDESampler(0.8).fit(np.column_stack([X, np.full(len(X), third)])))
        # Rounding, in coordinates of the principal axes.
        assert_allclose(modes.points[:, :2], plain.points, rtol=0, atol=1e-3)
        assert_allclose(modes.eigenvalues, plain.eigenvalues, rtol=0, atol=1e-3)
    # Shifted by 1e10 standard deviations: their rounding is 1e-6.
    shifted = find_modes(KDESampler(0.8).fit(X + 1e10))
    assert_allclose(shifted.points - 1e10, plain.points, rtol=0, atol=1e-3)
    assert_allclose(shifted.eigenvalues, plain.eigenvalues, rtol=0, atol=1e-3)
    wide = np.random.RandomState(0).normal(size=(4, 1500))
    modes = find_modes(KDESampler(1.0).fit(wide))
    assert modes.eigenvalues.shape == (4, 3)


def test_one_row_is_the_mode():
    modes = find_modes(KDESampler(1.0).fit([[1.0, 2.0]] * 3))
    assert_allclose(modes.points, [[1.0, 2.0]])
    assert_allclose(modes.log_density, -np.log(2 * np.pi))
    assert modes.eigenvalues.shape == (1, 0)
    assert modes.share == [1.0]


def test_a_density_with_kinks_is_refused():
    with pytest.raises(ValueError, match=r"kernel='tophat'.*kernel='gaussian'"):
        find_modes(KDESampler(1.0, kernel="tophat").fit(clusters()))
