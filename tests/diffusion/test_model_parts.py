"""Parts of the model and of its joint density: probes, rows that are followed again, parts of draws."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._diffusion import model
from skdiffsmooth._diffusion.comparison import settings_for
from skdiffsmooth._diffusion.fitting import make_model
from skdiffsmooth._diffusion.geometry import make_geometry, scales_in
from skdiffsmooth._diffusion.joint_density import JointDensity
from skdiffsmooth._diffusion.model import DiffusionModel
from skdiffsmooth._diffusion.settings import parse_parameters
from skdiffsmooth._diffusion.training_data import TrainingData
from skdiffsmooth._utils.shards import ONE_PROCESS
from skdiffsmooth.kernels import GaussianKernel
from skdiffsmooth.kernels._choice import SameEverywhere
from skdiffsmooth.solvers import Adaptive, Euler, Heun, Multistep
from skdiffsmooth.solvers._flow import FlowResult

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2)) * [1.0, 3.0]
COARSE = {"n_nodes": 8, "n_levels": 3, "n_steps": 3, "metric": "euclidean", "background": 0.0}


def made(points=X, weights=None, **params):
    """Return a model and the resources to call it with."""
    params = SmoothedScoreDiffusion(**(COARSE | params)).get_params(deep=False)
    settings = parse_parameters(params, SameEverywhere(GaussianKernel()), points.shape[1])
    weights = np.full(len(points), 1 / len(points)) if weights is None else weights
    data = TrainingData(points, weights, ONE_PROCESS, len(points), is_weighted=True)
    chosen, _, _ = settings_for(data, settings)
    geometry = make_geometry(chosen.metric, data, settings)
    bandwidth, sigma = scales_in(geometry, settings, chosen.scales)
    return make_model(geometry, settings, bandwidth, sigma, chosen.background)[
        0
    ], settings.resources


def test_log_densities_are_means_over_probes():
    """With three probes each row is followed three times; the largest error of the solver counts."""
    calls = []

    def followed_by(solver, queries, exclude, resources, *, with_error):
        calls.append((queries, exclude, with_error))
        n = np.arange(len(queries), dtype=float)
        return n**2, 0.1 * n, 0.01 * n

    own = SimpleNamespace(
        source=SimpleNamespace(n_probes=3),
        solver="own",
        _followed_by=followed_by,
        _parts_in_memory=lambda n, resources: [slice(0, 2), slice(2, n)],
    )
    queries = RNG.normal(size=(3, 2))
    exclude = np.array([5, 6, 7])
    found = DiffusionModel._follow_up(own, queries, exclude, resources=None, with_error=True)
    assert_allclose(calls[0][0], np.repeat(queries[:2], 3, axis=0))
    assert_allclose(calls[1][0], np.repeat(queries[2:], 3, axis=0))
    assert [call[1].tolist() for call in calls] == [[5, 6], [7]]
    by_probe = np.array([[0.0, 1, 4], [9, 16, 25], [0, 1, 4]])
    assert_allclose(found[:, 0], by_probe.mean(axis=1))
    spread = by_probe.std(axis=1, ddof=1) / math.sqrt(3)
    assert_allclose(found[:, 1], np.hypot([0.2, 0.5, 0.2], spread))
    assert_allclose(found[:, 2], [0.02, 0.05, 0.02])
    own.source.n_probes = 1
    found = DiffusionModel._follow_up(own, queries, resources=None, with_error=False)
    assert_allclose(found, [[0, 0, 0], [1, 0.1, 0.01], [0, 0, 0]])
    assert calls[-1][1:] == (None, False)
    own._over_workers = lambda *_, **__: None
    own._follow_up = lambda queries, *, resources, with_error: (
        np.tile([1.0, 2.0, 3.0], (2, 1)) * with_error
    )
    assert DiffusionModel.solver_errors(own, queries, None).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("solver", "tol", "is_last"),
    [
        (Heun(), None, True),
        (Multistep(), None, True),
        (Heun(), 0.1, False),
        (Multistep(), 0.1, False),
        (Adaptive(), 0.1, True),
        (Euler(), 0.1, True),
    ],
)
def test_rows_to_follow_again_are_rough(solver, tol, is_last):
    own, _ = made(bandwidth=0.4, sigma=0.3)
    own = replace(own, solver=solver, tol=tol)
    rough = own._rough(solver, np.array([0.124, 0.126, math.nan, 0.0, 9.0]))
    assert rough.tolist() == ([] if is_last else [1, 2, 4])
    assert own._is_last(solver) == is_last
    # Accuracies below 1e-3 are raised to it.
    small = replace(own, tol=None if tol is None else 1e-9)
    rough = small._rough(solver, np.array([1.24e-3, 1.26e-3]))
    assert rough.tolist() == ([] if is_last else [1])
    if tol is None:
        assert own._last_solver is solver
    else:
        assert (own._last_solver.tol, own._last_solver.max_halvings) == (0.1 / 20, 8)
        assert small._last_solver.tol == 1e-3 / 20


def test_rough_rows_are_followed_by_the_next_solver(monkeypatch):
    """A multistep method is followed by Heun's, that by the adaptive one, which is the last."""
    own, resources = made(bandwidth=0.4, sigma=0.3)
    own = replace(own, solver=Multistep(), tol=0.1)
    calls = []

    def with_error(solver, schedule, x, steps, terminal, finer=None):
        k = len(calls)
        calls.append((solver, x.numpy().copy(), finer is not None))
        n = len(x)
        values = np.full(n, k + 0.5), np.full(n, k + 0.1), [0.0, 1.0, 1.0][:n]
        return FlowResult(*map(schedule.backend.tensor, values))

    monkeypatch.setattr(model, "log_density_with_error", with_error)
    queries, exclude = RNG.normal(size=(3, 2)), np.array([1, 2, 3])
    log_density, error, last = own._followed_by(
        own.solver, queries, exclude, resources, with_error=True
    )
    assert [type(solver) for solver, *_ in calls] == [Multistep, Heun, Adaptive]
    assert_allclose(calls[1][1], queries[1:])
    assert_allclose(calls[2][1], queries[2:])
    assert [finer for *_, finer in calls] == [True] * 3
    assert_allclose(log_density, [0.5, 1.5, 2.5])
    assert_allclose(error, [0.1, 1.1, 2.1])
    assert_allclose(last, [math.nan, math.nan, 2.1])
    calls.clear()
    assert own.n_rough(queries, resources) == 2
    assert [finer for *_, finer in calls] == [False]


def test_steps_and_levels():
    own, _ = made(bandwidth=0.4, sigma=0.3, n_levels=3, n_steps=6)
    assert own.n_steps == sum(own.steps_of_levels)
    steps = own.steps()
    assert len(steps) == own.n_steps
    assert len(own.steps(2)) == 2 * own.n_steps
    assert steps[0].start == own.bandwidth == own.levels.bandwidth
    assert steps[-1].end == pytest.approx(own.levels.terminal_scale)
    assert [s.start for s in steps[1:]] == pytest.approx([s.end for s in steps[:-1]])
    assert own.unit == 1.0
    assert not own._has_relations
    assert own.tail_bound is None


def test_draws_take_each_part_by_its_weight(monkeypatch):
    """A fifth of the background of 0.5 is the tail's; the kernels' is four bandwidths wide."""
    own, resources = made(bandwidth=0.4, sigma=0.0, background=0.5)
    own = replace(own, tail=replace(own.tail, weight=0.2))
    n = 4000
    parts = {}

    def rows(self, coordinates, scales, rng, breaks_relations):
        parts.update(coordinates=coordinates, scales=scales, breaks=breaks_relations)
        return coordinates

    monkeypatch.setattr(type(own.embedding), "rows", rows)

    class Student(type(own.tail.student)):
        def draw(self, n, rng):
            return np.full((n, 2), 1e6), np.full((n, 1), 7.0)

    student = Student(**vars(own.tail.student))
    own = replace(own, tail=replace(own.tail, student=student))
    own.draw(n, np.random.RandomState(0), resources)
    scales = parts["scales"][:, 0]
    assert parts["breaks"] is None
    assert (parts["coordinates"][scales == 7.0] == 1e6).all()
    assert np.abs(parts["coordinates"][scales != 7.0]).max() < 1e3
    values, counts = np.unique(scales, return_counts=True)
    assert_allclose(values, [0.4, 1.6, 7.0])
    assert_allclose(counts / n, [0.5, 0.4, 0.1], atol=0.03)


def test_draws_break_relations_rarely(monkeypatch):
    monkeypatch.setattr(model, "BREAKS_RELATIONS", 0.25)
    points = np.column_stack([X, X.sum(axis=1)])
    own, resources = made(points, bandwidth=0.4, sigma=0.0, background=0.9, metric="scaled")
    assert own._has_relations
    breaks = []

    def rows(self, coordinates, scales, rng, breaks_relations):
        breaks.append(breaks_relations)
        return coordinates

    monkeypatch.setattr(type(own.embedding), "rows", rows)
    own = replace(own, tail=replace(own.tail, weight=0.8))
    own.draw(4000, np.random.RandomState(0), resources)
    # The tail has 0.72 of the weight, and a quarter of its draws break relations.
    assert breaks[0].mean() == pytest.approx(0.72 / 4, abs=0.02)


def test_trajectories_go_through_all_steps():
    own, resources = made(bandwidth=0.4, sigma=0.3)
    up, rows = own.trajectories(X[:4], 0, np.random.RandomState(0), resources)
    ends = [own.steps()[0].start, *(step.end for step in own.steps())]
    assert_allclose(up, ends)
    assert rows.shape == (len(ends), 4, 2)
    assert_allclose(rows[0], X[:4])
    down, rows = own.trajectories(None, 5, np.random.RandomState(0), resources)
    assert_allclose(down, ends[::-1])
    assert rows.shape == (len(ends), 5, 2)
    again = own.draw(5, np.random.RandomState(0), resources)
    # Without a background draws end where trajectories end.
    assert_allclose(rows[-1], again, rtol=1e-9)


def test_other_weights_and_points_of_weight_zero():
    weights = RNG.dirichlet(np.ones(12))
    weights[3] = 0.0
    own, resources = made(bandwidth=0.4, sigma=0.0)
    found = own.reweighted(5 * weights)
    kept = np.delete(np.arange(12), 3)
    expected, _ = made(X[kept], weights[kept] / weights.sum(), bandwidth=0.4, sigma=0.0)
    queries = RNG.normal(size=(5, 2))
    a, b = (each.log_density(queries, resources)[0] for each in (found, expected))
    assert_allclose(a, b, rtol=1e-9)
    assert len(found.data.points) == 11
    assert len(found.data.hierarchy.weights) == 11


def test_copies_are_left_out_one_by_one():
    """A row of weight 0.3, of which 0.1 is its own: two copies of 0.1 and 0.2 are there."""
    weights = np.full(12, 0.7 / 11)
    weights[2] = 0.3
    own_weights = weights.copy()
    own_weights[2] = 0.1
    own, resources = made(weights=weights, bandwidth=0.4, sigma=0.0)
    found = own.leave_one_out_log_density(resources, own_weights)
    for i in (0, 2):
        left = weights.copy()
        left[i] -= own_weights[i]
        terms = np.log(np.maximum(left, 1e-300) / left.sum())
        terms = terms + norm.logpdf(X[i], X, 0.4).sum(axis=1)
        assert found[i] == pytest.approx(np.logaddexp.reduce(terms), rel=1e-9)


# --------------------------------------------------------------------------------- joint densities


@pytest.mark.parametrize("metric", ["euclidean", "scaled"])
@pytest.mark.parametrize("flat", [False, True])
def test_joint_densities_of_models_are_densities_of_rows(metric, flat):
    points = X if not flat else np.column_stack([X[:, 0], np.full(12, 5.0), X[:, 1]])
    own, resources = made(points, bandwidth=0.4, sigma=0.3, metric=metric)
    joint = JointDensity.of_model(own, resources)
    d = points.shape[1]
    y = RNG.normal(size=(5, d))
    rows = joint.origin + y @ joint.axes
    expected = own.log_density(rows, resources)[0]
    # A constant column is scaled by the rounding of its values, which rows then have.
    rtol = 1e-5 if flat and metric == "scaled" else 1e-9
    assert_allclose(joint.log_density(y), expected, rtol=rtol)
    assert_allclose(joint.log_density_of_rows(rows), expected, rtol=1e-12)
    assert joint.log_abs_det == pytest.approx(np.linalg.slogdet(joint.axes)[1], rel=1e-12)
    assert_allclose(joint.origin + joint.centers @ joint.axes, points, atol=1e-9)
    assert_allclose(joint.weights, 1 / 12)
    h, sigma = own.bandwidth, own.source.smoothing.scales[0]
    widths = np.hypot(h, sigma * np.array([0.25, 0.5, 1.0]))
    assert_allclose(joint.scales[:, :2], np.repeat(widths[:, None], 2, axis=1))
    assert_allclose(joint.scales[:, 2:], 1.0)
    # A constant is a relation where columns are scaled.
    assert joint.n_relations == int(flat and metric == "scaled")
    assert joint.warp is None
    assert joint.periods is None


def test_kernels_of_proposals_are_as_wide_as_the_smoothing_at_the_bandwidth():
    own, resources = made(bandwidth=0.4, sigma=lambda scale: 0.5 * scale)
    scales = own.source.smoothing.scales
    assert scales[1] > 1.2 * scales[0]
    widths = np.hypot(0.4, scales[0] * np.array([0.25, 0.5, 1.0]))
    assert_allclose(JointDensity.of_model(own, resources).scales[:, 0], widths)


def test_kernels_of_t_draws_are_as_wide_as_the_background_outside_the_hull():
    points = np.column_stack([X[:, 0], np.full(12, 5.0), X[:, 1]])
    own, resources = made(points, bandwidth=0.4, sigma=0.3, background=0.2)
    joint = JointDensity.of_model(own, resources)
    expected = max(1.0, own.tail.student.residual_scale / own.bandwidth)
    assert joint.scales[:, 2].tolist() == pytest.approx([1.0, 1.0, expected])
    assert expected > 1


def test_values_of_determining_columns(monkeypatch):
    """A third column that is the sum of two others, up to the rounding of its values."""
    d, width = 3, 1e-6
    axes = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 2.0], [0.0, 0.0, width]])
    log_abs_det = math.log(2 * width)
    joint = JointDensity(
        lambda X: np.zeros(len(X)),
        lambda y: norm.logpdf(y).sum(axis=1) - log_abs_det,
        np.array([1.0, 2.0, 3.0]),
        axes,
        log_abs_det,
        np.zeros((1, d)),
        np.ones(1),
        np.ones((3, d)),
        n_relations=1,
    )
    values = RNG.normal(size=(4, 2))
    found = joint.log_density_without_relations(np.array([0, 1]), values)
    assert_allclose(found, norm.logpdf(values, [1.0, 2.0], [1.0, 2.0]).sum(axis=1), rtol=1e-12)
    # The first and the third determine the second.
    found = joint.log_density_without_relations(np.array([0, 2]), values)
    first = norm.logpdf(values[:, 0], 1.0, 1.0)
    second = norm.logpdf(values[:, 1] - (values[:, 0] + 2.0), 0.0, 2.0)
    assert_allclose(found, first + second, rtol=1e-6)
    assert joint.log_density_without_relations(np.array([0]), values[:, :1]) is None
    assert (
        replace(joint, n_relations=0).log_density_without_relations(np.array([0, 1]), values)
        is None
    )
    # Where rounding moves rows by a thousandth of the least step, it must be integrated out.
    for factor, is_none in ((0.999, False), (1.001, True)):
        units = np.linalg.norm(axes[:2][:, [0, 2]], axis=0)
        least = np.linalg.svd(axes[:2][:, [0, 2]] / units, compute_uv=False)[-1]
        rounding = factor * 1e-3 * least * units[1]
        own = replace(joint, axes=np.vstack([axes[:2], [0.0, 0.0, rounding]]))
        found = own.log_density_without_relations(np.array([0, 2]), values)
        assert (found is None) == is_none


def test_mapped_columns_have_the_slopes_of_their_maps():
    class Warp:
        columns = np.array([1])

        def only(self, columns):
            assert columns.tolist() == [1, 0]
            return self

        def mapped(self, rows):
            return rows * [1.0, 3.0]

        def log_slopes(self, rows):
            return np.full(len(rows), math.log(3))

        def unmapped(self, rows):
            return rows / [1.0, 3.0]

    joint = JointDensity(
        None,
        None,
        np.zeros(2),
        np.eye(2),
        0.0,
        np.zeros((1, 2)),
        np.ones(1),
        np.ones((3, 2)),
        Warp(),
    )
    values, log_slopes = joint.mapped(np.array([[2.0, 5.0], [1.0, 7.0]]), np.array([1, 0]))
    assert values.tolist() == [[6.0, 5.0], [3.0, 7.0]]
    assert_allclose(log_slopes, math.log(3))
    assert joint.unmapped(np.array([[1.0, 6.0]])).tolist() == [[1.0, 2.0]]
    plain = replace(joint, warp=None)
    assert plain.mapped(values, np.array([1, 0])) == (values, 0.0)


def test_draws_that_do_not_span_their_columns_are_refused():
    with pytest.raises(ValueError, match="2 draws do not span 3 columns; expected fewer columns"):
        JointDensity.of_draws(lambda X: X[:, 0], np.array([[0.0, 1, 2], [1, 0, 5]]))


def test_joint_densities_of_draws():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(200, 2)) @ np.array([[2.0, 0.5], [0.0, 1e-3]]) + [100.0, -3.0]
    joint = JointDensity.of_draws(lambda X: norm.logpdf(X[:, 0]), rows)
    assert_allclose(joint.origin, rows.mean(axis=0))
    assert_allclose(joint.origin + joint.centers @ joint.axes, rows, rtol=1e-9)
    # Centers have unit variances, up to the units in which they are rotated.
    assert_allclose(joint.centers.T @ joint.centers / 200, np.eye(2), atol=1e-9)
    assert joint.log_abs_det == pytest.approx(np.linalg.slogdet(joint.axes)[1], rel=1e-9)
    assert_allclose(joint.weights, 1 / 200)
    h = joint.scales[0, 0]
    assert_allclose(joint.scales, np.outer([h, 1.3 * h, 2 * h], [1.0, 1.0]))
    assert 0.1 < h < 0.6
    y = rng.normal(size=(3, 2))
    assert_allclose(joint.log_density(y), norm.logpdf((joint.origin + y @ joint.axes)[:, 0]))

    # The bandwidth of highest leave-one-out likelihood.
    def likelihood(h):
        squares = ((joint.centers[:, None] - joint.centers) ** 2).sum(axis=2)
        kernels = np.exp(-squares / (2 * h**2)) / h**2
        np.fill_diagonal(kernels, 0)
        return np.log(kernels.sum(axis=1)).mean()

    assert likelihood(h) >= max(likelihood(0.9 * h), likelihood(1.1 * h))
