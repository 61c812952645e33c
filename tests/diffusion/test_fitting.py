"""Numbers of steps, levels and merged points of a model that is made for given scales."""

import math
from dataclasses import replace

import numpy as np
import pytest
from likelihood_problems import geometry_of, parsed
from numpy.testing import assert_allclose

from skdiffsmooth._diffusion import fitting
from skdiffsmooth._diffusion.fitting import make_model, nodes_of_whole
from skdiffsmooth.kernels import AnisotropicGaussianKernel
from skdiffsmooth.noise import NoiseLevels, VarianceExploding
from skdiffsmooth.solvers import Adaptive, Euler, Heun, Multistep

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(5, 2)) * [1.0, 3.0]


def model_of(
    rows=ROWS, bandwidth=0.5, sigma=0.5, background=0.0, kernel=None, weights=None, **params
):
    params = {"n_nodes": 8} | params
    settings = parsed(rows.shape[1], kernel, **params)
    geometry = geometry_of(rows, settings=settings, weights=weights)
    return make_model(geometry, settings, bandwidth, sigma, background)


@pytest.mark.parametrize(
    ("widths", "steps", "expected"),
    [
        # Levels start at 1, 2, 4 and 8; below five noise scales nothing changes.
        ([5.0, 10.0, 20.0, 40.0], (2, 2, 2, 2), (2, 2, 2, 2)),
        ([5.5, 0.0, 0.0, 0.0], (2, 2, 2, 2), (3, 2, 2, 2)),
        ([15.0, 15.0, 15.0, 15.0], (2, 2, 2, 2), (6, 3, 2, 2)),
        ([160.0, 0.0, 0.0, 0.0], (1, 1, 1, 1), (32, 1, 1, 1)),
        ([1e9, 0.0, 0.0, 0.0], (1, 1, 1, 1), (32, 1, 1, 1)),  # at most 32 times as many
        ([1e9] * 4, (2, 2, 2, 2), (64, 64, 64, 64)),  # at most 256 together
        ([1e9] * 4, (3, 3, 3, 3), (64, 64, 64, 64)),
        ([1e9, 1e9, 1e9, 0.0], (4, 4, 4, 4), (84, 84, 84, 4)),
        ([1e9, 0.0, 0.0, 0.0], (100, 100, 100, 100), (100, 100, 100, 100)),
    ],
)
def test_steps_are_shorter_where_the_kernel_is_wide(widths, steps, expected):
    levels = NoiseLevels(1.0, 16.0, 4)
    found = fitting._with_shorter_steps(steps, levels, np.array(widths))
    assert found == expected


def test_the_variance_along_the_widest_axis():
    weights = RNG.dirichlet(np.ones(5))
    points = geometry_of(ROWS, weights=weights).coordinates
    expected = (weights @ (points - weights @ points) ** 2).max()
    assert fitting._largest_variance(geometry_of(ROWS, weights=weights)) == pytest.approx(expected)
    # Of a circle it is that of the angles: a third of a period here, across its end.
    angles = np.column_stack([np.zeros(2), [0.5, 5.5]])
    circle = geometry_of(angles, periods=np.array([0.0, 6.0]))
    resultant = abs(np.mean(np.exp(2j * np.pi * angles[:, 1] / 6)))
    circular = -2 * math.log(resultant) * (6 / (2 * math.pi)) ** 2
    assert fitting._largest_variance(circle) == pytest.approx(circular)
    assert circular < 0.3
    assert fitting._largest_variance(geometry_of(ROWS[:1])) == 0.0


def test_levels_and_steps():
    model, attributes = model_of()
    levels = model.levels
    data_std = math.sqrt(fitting._largest_variance(geometry_of(ROWS)))
    assert levels.bandwidth == 0.5
    assert levels.terminal_scale == pytest.approx(data_std)
    assert data_std < 8 * 0.5
    assert levels.n_levels == model.n_steps == 32
    assert attributes["sigma_"] == 0.5
    assert attributes["noise_"] == VarianceExploding()
    assert model_of(n_levels=5).model.levels.n_levels == 5
    assert model_of(n_levels=5).model.steps_of_levels == (7,) * 5
    assert model_of(n_steps=5).model.steps_of_levels == (1,) * 32
    assert model_of(n_levels=2, n_steps=5).model.steps_of_levels == (3, 3)
    assert model_of(terminal_scale=7.0).model.levels.terminal_scale == 7.0
    assert model_of(sigma=5.0).model.levels.terminal_scale == 15.0
    # Without smoothing there is no flow, except from a Gaussian.
    assert model_of(sigma=0.0).model.levels.terminal_scale == 0.5
    assert model_of(sigma=0.0, terminal="gaussian").model.levels.terminal_scale > 0.5
    # A smoothing scale that depends on the noise, or a process that shrinks, has no least range.
    wide = model_of(ROWS * 100, sigma=0.5)
    assert wide.model.levels.terminal_scale == 4.0
    assert model_of(ROWS * 100, sigma=lambda y: 0.5).model.levels.terminal_scale > 100
    assert model_of(ROWS * 100, sigma=0.5, noise="ou").model.levels.terminal_scale > 100
    # The function of the noise is evaluated in the middle of each level.
    model, attributes = model_of(sigma=lambda y: 0.2 * y, n_levels=3)
    assert_allclose(attributes["sigma_"], [0.2 * model.levels.middle(k) for k in range(3)])
    assert_allclose(model.source.smoothing.scales, attributes["sigma_"])


def test_solvers_and_the_accuracy_to_which_rows_are_followed():
    assert model_of(solver="heun").model.solver == Heun()
    assert model_of(solver="heun").model.tol == 0.2
    assert model_of(solver="heun", tol=0.05).model.tol == 0.05
    assert model_of(solver="heun", n_steps=16).model.tol is None
    assert model_of(solver="adaptive").model.tol is None
    assert model_of(solver="euler").model.solver == Euler()
    assert model_of().model.solver == Multistep()


@pytest.mark.parametrize(("n_rough", "is_fewer"), [(1, True), (2, False)])
def test_steps_of_one_evaluation_are_for_models_without_rough_rows(monkeypatch, n_rough, is_fewer):
    rows = RNG.normal(size=(12, 2))
    monkeypatch.setattr(fitting.DiffusionModel, "n_rough", lambda *_: n_rough)
    assert (model_of(rows).model.solver == Multistep()) == is_fewer
    # Where sigma is more than four bandwidths, such steps would miss jumps.
    assert (model_of(rows, 0.1, 0.4).model.solver == Multistep()) == is_fewer
    assert model_of(rows, 0.1, 0.41).model.solver == Heun()
    assert model_of(rows, 0.1, 0.0).model.solver == Heun()
    assert model_of(rows, solver="heun").model.solver == Heun()


def test_rough_rows_are_those_above_the_accuracy():
    model = replace(model_of().model, solver=Heun(), tol=0.2)
    roughness = np.array([0.0, 0.25, 0.2500001, np.nan, np.inf])
    assert model._rough(Heun(), roughness).tolist() == [2, 3, 4]
    assert model._rough(Adaptive(), roughness).tolist() == []
    assert replace(model, tol=None)._rough(Heun(), roughness).tolist() == []
    small = replace(model, tol=1e-9)
    assert small._rough(Multistep(), np.array([0.00125, 0.00126])).tolist() == [1]
    assert model._last_solver == Adaptive(tol=0.01, max_halvings=8)
    assert small._last_solver == Adaptive(tol=5e-5, max_halvings=8)
    assert replace(model, tol=None)._last_solver == Heun()


@pytest.mark.parametrize("d", [10, 11])
def test_nodes_of_the_kernel(d):
    rows = np.random.default_rng(d).normal(size=(d + 3, d))
    model, attributes = model_of(rows, n_nodes="auto", n_levels=2, n_steps=2)
    assert (model.levels.n_levels, model.n_steps) == (2, 2)
    many, _ = model_of(rows, n_nodes="auto")
    assert many.levels.n_levels == 16  # nodes are frames, which take fewer steps
    # Above ten dimensions the mean error of the divergence is corrected.
    assert (model.source.smoothing.shifts is not None) == (d > 10)
    assert attributes["node_error_"] > 0
    assert attributes["error_"] == attributes["node_error_"]
    assert model_of(rows, sigma=0.0).attributes["error_"] == 0.0
    assert model_of(rows, sigma=0.0).model.source.smoothing.shifts is None


def test_kernels_with_a_shape_are_as_wide_as_their_widest_direction():
    model, _ = model_of(kernel=AnisotropicGaussianKernel("data"), sigma=2.0)
    unit = geometry_of(ROWS, settings=parsed(kernel=AnisotropicGaussianKernel("data"))).unit
    assert model.levels.terminal_scale == pytest.approx(3 * 2.0 * unit)


def test_many_points_are_merged_unless_candidates_are_compared(monkeypatch):
    monkeypatch.setattr("skdiffsmooth._diffusion.settings._LARGEST_EXACT", 4)
    settings = parsed(n_nodes=8)
    geometry = geometry_of(ROWS, settings=settings)
    model, _ = make_model(geometry, settings, 0.5, 0.5)
    assert model.data.hierarchy.tolerance == pytest.approx(0.02)
    assert model.data.hierarchy.finest == 0.5
    candidate, _ = make_model(geometry, settings, 0.5, 0.5, is_candidate=True)
    assert candidate.data.hierarchy.tolerance == 0.0
    assert make_model(geometry, settings, 0.5, 0.0).model.data.hierarchy.tolerance == 0.0


def test_tails_of_backgrounds():
    assert model_of().model.tail is None
    single = model_of(ROWS[:1], background=0.1).model
    assert single.tail.student.residual_scale == 2.0  # four bandwidths
    assert single.tail.weight == 0.05
    tail = model_of(background=0.1).model.tail
    assert tail.student.degrees in (4.0, 8.0)
    settings = parsed(n_nodes=8)
    geometry = geometry_of(ROWS, settings=settings)
    assert make_model(geometry, settings, 0.5, 0.5, is_candidate=True).model.tail is not None
    none = parsed(n_nodes=8, background=0.0)
    assert make_model(geometry, none, 0.5, 0.5, is_candidate=True).model.tail is None


def test_terminal_scales_are_in_units_of_X():
    rows = ROWS * 2.0**400
    settings = parsed(n_nodes=8, terminal_scale=30 * 2.0**400)
    geometry = geometry_of(rows, settings=settings)
    unit = geometry.metric.unit
    model, attributes = make_model(geometry, settings, 0.5, 0.25)
    assert model.levels.terminal_scale == 30 * 2.0**400 / unit
    assert attributes["sigma_"] == 0.25 * unit
    function = make_model(geometry, settings, 0.5, lambda y: y / 2).attributes["sigma_"]
    assert_allclose(function[:1], model.levels.middle(0) / 2 * unit)


def test_nodes_of_all_rows_are_used_where_they_suit():
    rows = RNG.normal(size=(30, 12))
    own = model_of(rows, n_nodes="auto")
    chosen = own.attributes["_nodes_"]
    assert (chosen.rank, chosen.error) == (12, own.attributes["node_error_"])
    assert chosen.rule == own.model.data.smoothing.rule
    more = replace(chosen.rule, n_nodes=2 * chosen.rule.n_nodes)
    marked = chosen._replace(rule=more, error=7.0, shifts=np.full(len(chosen.shifts), 0.3))
    with nodes_of_whole(marked):
        used = model_of(rows, n_nodes="auto")
        settings = parsed(12)
        geometry = geometry_of(rows, settings=settings)
        candidate = make_model(geometry, settings, 0.5, 0.5, is_candidate=True)
    assert used.attributes["node_error_"] == used.attributes["error_"] == 7.0
    assert used.attributes["_nodes_"] == marked
    assert used.model.data.smoothing.rule == more
    np.testing.assert_array_equal(used.model.data.smoothing.shifts, marked.shifts)
    assert candidate.attributes["node_error_"] != 7.0
    assert model_of(rows, n_nodes="auto").attributes["node_error_"] == chosen.error

    for unlike in (
        marked._replace(rank=11),
        marked._replace(rule=replace(more, seed=more.seed + 1)),
        marked._replace(rule=replace(more, n_nodes=chosen.rule.n_nodes // 2)),
        None,
    ):
        with nodes_of_whole(unlike):
            other = model_of(rows, n_nodes="auto")
        assert other.attributes["node_error_"] == chosen.error
        np.testing.assert_array_equal(other.model.data.smoothing.shifts, chosen.shifts)


def test_corrections_are_computed_again_if_the_number_of_levels_differs():
    rows = RNG.normal(size=(30, 12))
    own = model_of(rows, n_nodes="auto")
    chosen = own.attributes["_nodes_"]
    with nodes_of_whole(chosen._replace(error=7.0, shifts=chosen.shifts[:-1] + 9.0)):
        other = model_of(rows, n_nodes="auto")
    assert other.attributes["node_error_"] == 7.0
    np.testing.assert_array_equal(other.model.data.smoothing.shifts, chosen.shifts)
