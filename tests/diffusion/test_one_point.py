"""Models of one row, a Gaussian whatever the smoothing, and of few rows against sums over them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from likelihood_problems import geometry_of, parsed
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from skdiffsmooth._diffusion import accuracy
from skdiffsmooth._diffusion.fitting import make_model
from skdiffsmooth._diffusion.joint_density import JointDensity
from skdiffsmooth._diffusion.source import NoisedData
from skdiffsmooth.kernels import QueryKernel
from skdiffsmooth.solvers import Euler, Heun

RNG = np.random.default_rng(0)
FEW = {"n_nodes": 8, "n_levels": 3, "n_steps": 6, "solver": "heun"}
ROWS, WEIGHTS = RNG.normal(size=(5, 2)) * [1.0, 3.0], RNG.dirichlet(np.ones(5))
X = RNG.normal(size=(4, 2)) * 2


def model_of(rows=ROWS, weights=WEIGHTS, metric="euclidean", sigma=0.4, background=0.0, **params):
    settings = parsed(rows.shape[1], **(FEW | params))
    geometry = geometry_of(
        rows, metric, settings, weights[: len(rows)] / weights[: len(rows)].sum()
    )
    return make_model(geometry, settings, 0.5, sigma, background).model, settings.resources


def kde_density(x, rows, weights, h):
    squares = ((x[:, None] - rows) ** 2).sum(axis=2) / (2 * h**2)
    return logsumexp(np.log(weights) - squares, axis=1) - x.shape[1] * np.log(
        np.sqrt(2 * np.pi) * h
    )


ONE = model_of(ROWS[:1])
KDE = model_of(sigma=0.0)


def test_one_row_is_a_gaussian_whatever_the_smoothing():
    model, resources = ONE
    law = multivariate_normal(ROWS[0], 0.25 * np.eye(2))
    found, error = model.log_density(X, resources)
    assert_allclose(found, law.logpdf(X))
    assert np.isnan(error).all()
    _, error = model.log_density(X, resources, with_error=True)
    assert_allclose(error, 0.0, atol=1e-9)
    for scale in (0.5, 0.9):
        assert_allclose(model.score_at(X, scale, resources), (ROWS[0] - X) / scale**2)
        assert_allclose(model.laplacian_at(X, scale, resources), -2 / scale**2)
        wide = multivariate_normal(ROWS[0], scale**2 * np.eye(2))
        assert_allclose(model.energy_at(X, scale, resources), -wide.logpdf(X))
    sizes, variances = model.influence_at(X, 0.5, resources)
    assert_allclose(sizes, 1.0)
    assert_allclose(variances, 0.0, atol=1e-20)
    assert (model.n_steps, model.bandwidth, model.unit) == (6, 0.5, 1.0)


def test_rows_off_the_hull_are_gaussian_across_it():
    plane = np.column_stack([ROWS, np.full(5, 7.0)])
    model, resources = model_of(plane)
    flat, _ = model_of()
    off = np.column_stack([X, [7.0, 7.5, 6.0, 8.0]])
    across = norm.logpdf(off[:, 2], 7.0, 0.5)
    expected = flat.log_density(X, resources)[0] + across
    assert_allclose(model.log_density(off, resources)[0], expected)
    laplacian = flat.laplacian_at(X, 0.8, resources) - 1 / 0.64
    assert_allclose(model.laplacian_at(off, 0.8, resources), laplacian)
    score = model.score_at(off, 0.8, resources)
    assert_allclose(score[:, 2], (7.0 - off[:, 2]) / 0.64)
    assert_allclose(score[:, :2], flat.score_at(X, 0.8, resources))
    energy = flat.energy_at(X, 0.8, resources) - norm.logpdf(off[:, 2], 7.0, 0.8)
    assert_allclose(model.energy_at(off, 0.8, resources), energy)


def test_few_rows_without_smoothing_are_sums_over_them():
    model, resources = KDE
    assert_allclose(model.log_density(X, resources)[0], kde_density(X, ROWS, WEIGHTS, 0.5))
    assert_allclose(model.energy_at(X, 0.9, resources), -kde_density(X, ROWS, WEIGHTS, 0.9))
    queries, residual = model.embedding.split(X)
    found = model.kde_log_density(queries, residual, 2.0, resources)
    assert_allclose(found, kde_density(X, ROWS, WEIGHTS, 2.0))
    excluded = model.excluded_log_density(X, np.array([0, 1, 4, 0]), resources)
    for x, i, value in zip(X, (0, 1, 4, 0), excluded, strict=True):
        rest = np.delete(WEIGHTS, i) / (1 - WEIGHTS[i])
        assert value == pytest.approx(kde_density(x[None], np.delete(ROWS, i, 0), rest, 0.5)[0])
    # The score and its divergence by differences.
    step = 1e-4
    gradient = np.column_stack(
        [
            kde_density(X + step * e, ROWS, WEIGHTS, 0.9)
            - kde_density(X - step * e, ROWS, WEIGHTS, 0.9)
            for e in np.eye(2)
        ]
    )
    assert_allclose(model.score_at(X, 0.9, resources), gradient / (2 * step), atol=1e-6)


def test_part_of_a_weight_is_left_out():
    model, resources = KDE
    own = 0.25 * WEIGHTS
    found = model.leave_one_out_log_density(resources, own)
    for i in range(5):
        weights = WEIGHTS - own * (np.arange(5) == i)
        expected = kde_density(ROWS[[i]], ROWS, weights / weights.sum(), 0.5)[0]
        assert found[i] == pytest.approx(expected)
    assert_allclose(
        model.leave_one_out_parts(resources)[:, 0], model.leave_one_out_log_density(resources)
    )


def test_other_weights_drop_rows_of_weight_zero():
    model, resources = KDE
    weights = np.array([0.0, 2.0, 1.0, 0.0, 3.0])
    other = model.reweighted(weights)
    kept = weights > 0
    expected = kde_density(X, ROWS[kept], weights[kept] / 6, 0.5)
    assert_allclose(other.log_density(X, resources)[0], expected)
    assert len(other.data.points) == 3


def test_influence_is_that_of_posterior_weights():
    model, resources = KDE
    sizes, variances = model.influence_at(X, 0.9, resources)
    squares = ((X[:, None] - ROWS) ** 2).sum(axis=2) / (2 * 0.81)
    posterior = WEIGHTS * np.exp(-squares)
    posterior /= posterior.sum(axis=1, keepdims=True)
    means = posterior @ ROWS
    assert_allclose(sizes, 1 / (posterior**2).sum(axis=1))
    derivatives = posterior[:, :, None] * (ROWS - means[:, None])
    assert_allclose(variances, (derivatives**2).sum(axis=1) / 0.9**4)
    few = resources._replace(memory_limit=1.5 * 32 * 5 * 5 / 2**20)  # one query at a time
    assert_allclose(model.influence_at(X, 0.9, few)[0], sizes)


@pytest.mark.parametrize("metric", ["euclidean", "scaled"])
def test_backgrounds_are_mixed_by_their_weights(metric):
    model, resources = model_of(metric=metric, sigma=0.0, background=0.3)
    parts = model.parts(X, resources)
    assert parts.shape == (4, 3)
    heavy = min(0.3 * model.tail.weight, 0.281)
    expected = logsumexp(parts, b=[0.7, 0.3 - heavy, heavy], axis=1)
    found, error = model.log_density(X, resources, with_error=True)
    assert_allclose(found, expected)
    assert_allclose(error, 0.0, atol=1e-12)
    assert model.tail_bound.weight == pytest.approx(heavy)
    left_out = model.leave_one_out_parts(resources)
    assert_allclose(
        logsumexp(left_out, b=[0.7, 0.3 - heavy, heavy], axis=1),
        model.leave_one_out_log_density(resources),
    )
    assert KDE[0].tail_bound is None
    if metric == "euclidean":
        assert_allclose(parts[:, 1], kde_density(X, ROWS, WEIGHTS, 2.0))


def test_errors_of_a_mixture_are_those_of_the_flow_by_its_share():
    model, resources = model_of(background=0.3)
    flow = replace(model, background=0.0, tail=None)
    of_flow, error = flow.log_density(X, resources, with_error=True)
    density, mixed = model.log_density(X, resources, with_error=True)
    assert (error > 1e-8).all()
    assert_allclose(mixed, 0.7 * error * np.exp(of_flow - density))


def test_draws_of_one_row_and_of_the_parts_of_a_background():
    model, resources = ONE
    drawn = model.draw(4000, np.random.RandomState(0), resources)
    assert_allclose(drawn.mean(axis=0), ROWS[0], atol=0.04)
    assert_allclose(np.cov(drawn.T), 0.25 * np.eye(2), atol=0.02)
    wide, _ = model_of(ROWS[:1], background=0.5)
    drawn = wide.draw(4000, np.random.RandomState(0), resources)
    squares = ((drawn - ROWS[0]) ** 2).sum(axis=1)
    near = np.mean(squares < (3 * 0.5) ** 2)
    # 98.9 % of the flow, 24.5 % of the kernel four times as wide, and of the t distribution.
    heavy = 0.05 * 0.5
    inside = 1 - math.exp(-((3 / 4) ** 2) / 2)
    assert near == pytest.approx(0.5 * 0.9889 + (0.5 - heavy) * inside + heavy * 0.2, abs=0.025)


def test_trajectories_start_and_end_at_the_ends_of_the_noise():
    model, resources = model_of()
    scales, rows = model.trajectories(X, 0, np.random.RandomState(0), resources)
    assert rows.shape == (7, 4, 2)
    assert_allclose(scales, np.geomspace(0.5, model.levels.terminal_scale, 7))
    assert_allclose(rows[0], X)
    # Each is a step of the solver from the one before.
    schedule = model.source.schedule(resources)
    for k, step in enumerate(model.steps()):
        start = torch.from_numpy(model.embedding.split(rows[k])[0])
        end = Heun().step(schedule.at(step.level), start, step.start, step.end, None)
        assert_allclose(rows[k + 1], model.embedding.rows_within(end.numpy()))
    down, drawn = model.trajectories(None, 3, np.random.RandomState(0), resources)
    assert_allclose(down, scales[::-1])
    assert drawn.shape == (7, 3, 2)
    # A single row has no direction in its hull.
    model, resources = ONE
    assert_allclose(model.trajectories(X, 0, None, resources)[1], np.tile(ROWS[0], (7, 4, 1)))


def test_what_has_no_density_says_so():
    model, resources = ONE
    with pytest.raises(ValueError, match="cannot compute log-densities; expected a deterministic"):
        replace(model, solver=Euler()).log_density(X, resources)
    no_torch = QueryKernel(lambda x, z: torch.from_numpy(0.1 * z.numpy()[None].repeat(len(x), 0)))
    settings = parsed(2, no_torch, **FEW)
    model, _ = make_model(geometry_of(ROWS, settings=settings), settings, 0.5, 0.4)
    if not model.source.has_divergence:
        with pytest.raises(ValueError, match="has no derivative that can be computed"):
            model.laplacian_at(X, 0.5, resources)


@pytest.mark.parametrize("excluded", [[0, 1], [3, 3]])
def test_the_mean_of_a_gaussian_terminal_is_without_excluded_rows(excluded):
    weights = np.array([1e-9, 1 - 1.3e-8, 3e-9, 4e-9, 5e-9])
    for own in (WEIGHTS, weights):
        model, resources = model_of(weights=own, terminal="gaussian", terminal_scale=50.0)
        assert isinstance(model.source, NoisedData)
        terminal = model.source.terminal(model.source.schedule(resources))
        points = model.embedding.split(ROWS)[0]
        assert_allclose(terminal.mean, own @ points)
        assert terminal.scale == 50.0
        index = np.array(excluded)
        schedule = model.source.schedule(resources, index)
        means = model.source.terminal(schedule, index).mean
        for i, mean in zip(excluded, means, strict=True):
            rest = np.delete(own, i)
            assert_allclose(mean, rest @ np.delete(points, i, 0) / rest.sum(), rtol=1e-6)


def test_joint_densities_of_models():
    plane = np.column_stack([ROWS, ROWS.sum(axis=1)])
    for rows, metric, n_relations in (
        (ROWS, "euclidean", 0),
        (plane, "euclidean", 0),
        (plane, "scaled", 1),
    ):
        model, resources = model_of(rows, metric=metric, background=0.1)
        joint = JointDensity.of_model(model, resources)
        d = rows.shape[1]
        assert joint.n_relations == n_relations
        y = RNG.normal(size=(3, d))
        at_y = joint.origin + y @ joint.axes
        expected = model.log_density(at_y, resources)[0]
        assert_allclose(joint.log_density(y), expected, atol=1e-3 if n_relations else 1e-9)
        assert joint.log_abs_det == pytest.approx(np.linalg.slogdet(joint.axes)[1])
        assert_allclose(joint.origin + joint.centers @ joint.axes, rows, atol=1e-9)
        widths = np.sqrt(0.25 + 0.16 * np.array([1 / 16, 1 / 4, 1]))
        assert_allclose(joint.scales[:, :2], np.repeat(widths[:, None], 2, axis=1))
        assert (joint.scales[:2, 2:] == 1).all()
        assert (joint.scales[2, 2:] >= 1).all()
        if d == 3 and not n_relations:
            outside = model.tail.student.residual_scale / 0.5
            assert_allclose(joint.scales[2, 2], max(1.0, outside))
        # Two columns determine the third; without relations no columns do.
        values = plane[:2, [0, 2]] if d == 3 else ROWS[:2, :1]
        columns = np.array([0, 2]) if d == 3 else np.array([0])
        exact = joint.log_density_without_relations(columns, values)
        assert (exact is None) == (n_relations == 0)


def test_columns_that_determine_the_others_have_the_density_of_the_hull():
    plane = np.column_stack([ROWS, ROWS.sum(axis=1)])
    model, resources = model_of(plane, metric="scaled", sigma=0.0)
    joint = JointDensity.of_model(model, resources)
    values = plane[:, [0, 2]] + RNG.normal(size=(5, 2))
    found = joint.log_density_without_relations(np.array([0, 2]), values)
    # A KDE in the hull, in coordinates of unit variance of the columns, with its change of volume.
    hull = plane @ np.zeros((3, 2))
    to_metric = model.embedding.metric.to_metric
    full = np.column_stack([values[:, 0], values[:, 1] - values[:, 0], values[:, 1]])
    hull, points = (model.embedding.hull.split(to_metric(each))[0] for each in (full, plane))
    step = np.array([[1.0, 0.0], [0.0, 1.0]])
    base = np.array([[0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [0.0, 1.0, 1.0]])
    moved = model.embedding.hull.split(to_metric(base))[0]
    jacobian = step @ (moved[1:] - moved[0])
    expected = kde_density(hull, points, WEIGHTS, 0.5) + np.linalg.slogdet(jacobian)[1]
    assert_allclose(found, expected)


# ------------------------------------------------------------------------------------ accuracy


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.01], 1.0),
        ([0.08], 1.0),
        ([0.16, 0.01], 1.2 * math.sqrt(2)),  # Heun is of order two
        ([0.0801, 0.01], 1.25),
        ([0.16, 0.16, 0.01], 1.2**2 * 2),
        ([80.0, 80.0], 16.0),  # at most sixteen times as many
        ([math.nan], 1.0),
    ],
)
def test_steps_are_refined_by_the_order_of_the_solver(monkeypatch, errors, expected):
    remaining = list(errors)
    monkeypatch.setattr(accuracy, "_solver_error", lambda model, resources: remaining.pop(0))
    settings = parsed(tol=0.2, **(FEW | {"n_steps": "auto"}))
    geometry = geometry_of(ROWS, settings=settings)
    refinement, error = accuracy._enough_refinement(geometry, settings, 0.5, 0.4)
    assert refinement == pytest.approx(expected)
    assert error == errors[-1] or math.isnan(error)
    assert not remaining


def test_given_steps_are_not_refined(monkeypatch):
    monkeypatch.setattr(accuracy, "_solver_error", lambda model, resources: 9.0)
    settings = parsed(tol=0.2, **FEW)
    geometry = geometry_of(ROWS, settings=settings)
    assert accuracy._enough_refinement(geometry, settings, 0.5, 0.4) == (1.0, 9.0)


def test_errors_of_steps_are_root_mean_squares(monkeypatch):
    model, resources = model_of()
    asked = []

    def errors(self, rows, resources):
        asked.append(rows)
        return np.arange(5.0)

    monkeypatch.setattr(type(model), "solver_errors", errors)
    assert accuracy._solver_error(model, resources) == pytest.approx(math.sqrt(6.0))
    rows, noise = accuracy.checked_rows(model.data.schedule(resources))
    assert_allclose(asked[0], rows + 0.5 * noise)
    assert math.isnan(accuracy._solver_error(replace(model, solver=Euler()), resources))


def test_warnings_of_accuracies_that_are_not_reached(recwarn):
    model, _ = model_of()
    requested = parsed(tol=0.2, n_nodes=8, n_steps=6)
    accuracy._warn_of_accuracy(parsed(), model, 9.0, 9.0, 0.0)
    accuracy._warn_of_accuracy(requested, model, 0.2, 0.2, 0.0)
    assert not recwarn
    accuracy._warn_of_accuracy(requested, model, 0.21, 0.2, 0.06)
    message = str(recwarn.pop().message)
    assert "0.21 nats, 0.2 from 8 nodes in 3 levels and 0.06 from 6 steps" in message
    assert "Leave n_nodes=8 and n_steps=6 at 'auto', or pass a larger tol" in message
    accuracy._warn_of_accuracy(parsed(tol=0.2), model, 0.21, 0.2, 0.06)
    assert ". Pass a larger tol" in str(recwarn.pop().message)
    accuracy._warn_of_accuracy(requested, model, math.nan, 0.2, math.nan)
    assert "cannot be checked" in str(recwarn.pop().message)


def test_the_accuracy_of_a_model_is_the_root_of_the_sum_of_squares(monkeypatch):
    monkeypatch.setattr(accuracy, "_solver_error", lambda model, resources: 0.03)
    settings = parsed(tol=0.2, **FEW)
    geometry = geometry_of(ROWS, settings=settings)
    fitted = accuracy.make_accurate_model(geometry, settings, 0.5, 0.1, 0.0)
    error = fitted.attributes["node_error_"]
    assert fitted.attributes["error_"] == pytest.approx(math.hypot(error, 0.03))
    plain = accuracy.make_accurate_model(geometry, parsed(**FEW), 0.5, 0.1, 0.0)
    assert plain.attributes["error_"] == error
    assert isinstance(fitted.model.solver, Heun)
