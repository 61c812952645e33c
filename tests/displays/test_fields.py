import numpy as np
import pytest
from display_models import COARSE, frame
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.displays import ScoreFieldDisplay, TrajectoryDisplay


def test_arrows_are_the_score_at_each_noise_scale(models):
    display = ScoreFieldDisplay.from_estimator(models[2], t=[0.25, 1.0], grid_resolution=4)
    shown = display.frame()
    assert display.noise_scales == [0.5, 1.0]
    for t, scale in ((0.25, 0.5), (1.0, 1.0)):
        part = shown[shown["noise_scale"] == scale]
        expected = models[2].grad_log_density(part[["column 0", "column 1"]], t)
        np.testing.assert_array_equal(part[["score of column 0", "score of column 1"]], expected)
    display.plot()
    assert [ax.get_title() for ax in display.ax_[0]] == [
        "score at noise scale 0.5",
        "score at noise scale 1",
    ]


def test_a_slice_and_a_curve(models):
    display = ScoreFieldDisplay.from_estimator(
        models[3], columns=["column 2", "column 0"], given={"column 1": 0.5}, grid_resolution=3
    )
    rows = frame(3)[:9].copy()
    rows["column 2"], rows["column 0"] = display.points.T
    rows["column 1"] = 0.5
    expected = models[3].grad_log_density(rows)[:, [2, 0]]
    np.testing.assert_array_equal(display.score[0], expected)
    curve = ScoreFieldDisplay.from_estimator(models[1], frame(1), t=[0.1, 1.0]).plot()
    assert len({line.get_linestyle() for line in curve.ax_.get_lines()[:2]}) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": -1.0}, "t=-1.0"),
        ({"t": []}, "t has 0 noise variances"),
        ({"t": np.nan}, "t=nan"),
        ({"columns": [0]}, "Pass given"),
        ({"grid": [[0.0, np.nan], [0.0, 1.0]]}, "not finite and increasing"),
    ],
)
def test_bad_fields(models, options, message):
    with pytest.raises(ValueError, match=message):
        ScoreFieldDisplay.from_estimator(models[2], **options)


def test_models_without_a_field_or_a_flow(models):
    with pytest.raises(NotFittedError):
        ScoreFieldDisplay.from_estimator(SmoothedScoreDiffusion())
    with pytest.raises(NotFittedError):
        TrajectoryDisplay.from_estimator(SmoothedScoreDiffusion())
    with pytest.raises(TypeError, match="no grad_log_density"):
        ScoreFieldDisplay.from_estimator(GaussianMixture().fit(frame(2)))
    with pytest.raises(TypeError, match="no trajectories"):
        TrajectoryDisplay.from_estimator(KDESampler(0.5).fit(frame(2)))
    with pytest.raises(ValueError, match="3 columns cannot be drawn in a plane"):
        ScoreFieldDisplay.from_estimator(models[3])
    with pytest.raises(ValueError, match="3 columns cannot be drawn in a plane"):
        TrajectoryDisplay.from_estimator(models[3])


def test_paths_of_draws_and_of_rows(models):
    draws = TrajectoryDisplay.from_estimator(models[2], n_samples=5, random_state=0).plot()
    scales, rows = models[2].trajectories(n_samples=5, random_state=0)
    np.testing.assert_array_equal(draws.rows, rows)
    assert np.all(np.diff(scales) < 0)
    shown = draws.frame()
    np.testing.assert_array_equal(shown[shown["row"] == 2]["column 1"], rows[:, 2, 1])
    up = TrajectoryDisplay.from_estimator(models[3], frame(3)[:4], columns=["column 1"]).plot()
    assert up.rows.shape == (9, 4, 1)
    np.testing.assert_allclose(up.rows[0, :, 0], frame(3)["column 1"][:4], atol=1e-12)
    assert up.ax_.get_xscale() == "log"


@pytest.mark.parametrize("solver", ["heun", "adaptive", "euler"])
def test_trajectories_are_the_flow_of_sample(solver):
    model = SmoothedScoreDiffusion(0.4, 0.3, solver=solver, **COARSE).fit(frame(2))
    scales, rows = model.trajectories(n_samples=6, random_state=3)
    np.testing.assert_allclose(rows[-1], model.sample(6, random_state=3), atol=1e-12)
    np.testing.assert_allclose(scales[[0, -1]], [model.noise_levels_.terminal_scale, 0.4])


def test_the_flow_up_is_the_flow_down_reversed():
    # Up to the steps' error: with 32 of them some 1e-3 of the distances moved.
    model = SmoothedScoreDiffusion(0.4, 0.3, n_nodes=8, n_levels=8, n_steps=32).fit(frame(2))
    _, down = model.trajectories(n_samples=6, random_state=3)
    labelled = frame(2)[:6].copy()
    labelled.loc[:, :] = down[-1]
    _, up = model.trajectories(labelled)
    np.testing.assert_allclose(up[-1], down[0], atol=0.02)
    np.testing.assert_array_equal(up.shape, down.shape)


def test_trajectories_of_a_stochastic_solver_go_down_only():
    model = SmoothedScoreDiffusion(0.4, 0.3, solver="euler-maruyama", **COARSE).fit(frame(2))
    _, rows = model.trajectories(n_samples=3, random_state=0)
    np.testing.assert_allclose(rows[-1], model.sample(3, random_state=0), atol=1e-12)
    with pytest.raises(ValueError, match="stochastic and cannot follow rows X up"):
        model.trajectories(frame(2))
    for options in ({}, {"X": frame(2), "n_samples": 3}):
        with pytest.raises(ValueError, match="either rows X, to move to the terminal scale, or n"):
            model.trajectories(**options)
