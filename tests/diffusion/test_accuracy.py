"""Tests of `tol`: errors fall with it, what is reached is reported; and of the solvers that follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from likelihood_problems import geometry_of, parsed
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import accuracy, settings
from skdiffsmooth._diffusion.fitting import make_model
from skdiffsmooth._diffusion.model import DiffusionModel
from skdiffsmooth.kernels._node_error import _evenly
from skdiffsmooth.manifolds import PointCloud
from skdiffsmooth.solvers import Adaptive, Heun, Multistep

SCALES = {"bandwidth": "0.85h", "sigma": "1.5h", "metric": "scaled", "background": 0.0}
MOONS = make_moons(80, noise=0.1, random_state=0)[0]
NEAR = make_moons(40, noise=0.1, random_state=1)[0]
FAR = np.stack(np.meshgrid(*[np.linspace(-4, 4, 9)] * 2), axis=-1).reshape(-1, 2)
BALL = np.random.RandomState(0).normal(size=(2, 60, 4))
WIDE = np.random.RandomState(0).normal(size=(2, 60, 12))

PARSED = parsed(n_nodes=8)
GEOMETRY = geometry_of(MOONS, settings=PARSED)
MOONS_IN_HULL = GEOMETRY.coordinates


def moons(**params):
    return SmoothedScoreDiffusion(**SCALES, **params).fit(MOONS)


# --------------------------------------------------------------------------------------------- tol


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("X", "Q"), [(MOONS, NEAR), BALL], ids=["moons", "ball"])
def test_errors_are_below_tol_and_fall_with_it(X, Q):
    """Traces of Sobol nodes in two dimensions, frames in four, against many other nodes.

    The estimate is from 16 rows, and has a relative standard error of about a fifth: a factor of 1.5
    above what was requested would be two and a half of them, and seen is 0.5.
    """
    reference = SmoothedScoreDiffusion(
        **SCALES, n_nodes=2048, n_levels=48, n_steps=48, random_state=5
    ).fit(X)
    expected, errors = reference.score_samples(Q), []
    for tol in (0.2, 0.05, 0.0125):
        model = SmoothedScoreDiffusion(**SCALES, tol=tol).fit(X)
        assert model.error_ <= tol
        errors.append(np.sqrt(np.mean((model.score_samples(Q) - expected) ** 2)))
        assert errors[-1] < 1.5 * tol
    assert errors[0] > errors[1] * 0.9
    assert errors[1] > 2 * errors[2]


def test_frames_in_many_dimensions_are_corrected_on_average():
    """At noised points that are left out, divergences are on average those of six times the nodes.

    Exact divergences are not corrected, nor those in ten dimensions.
    """
    model = SmoothedScoreDiffusion(**SCALES).fit(WIDE[0])
    source, resources = model.model_.data, model._resources()
    index, rng = _evenly(source.hierarchy.points, 64), np.random.default_rng(0)
    n_nodes = 6 * source.smoothing.n_nodes
    many = replace(source.smoothing.rule, n_nodes=n_nodes, seed=source.smoothing.rule.seed + 1)
    corrected, plain, fine = (
        replace(source, smoothing=replace(source.smoothing, **changed)).schedule(resources, index)
        for changed in ({}, {"shifts": None}, {"rule": many, "shifts": None})
    )
    for level in range(source.levels.n_levels):
        scale = source.levels.middle(level)
        noise = rng.standard_normal((len(index), 12))
        x = torch.from_numpy(source.hierarchy.points[index] + scale * noise)
        found, without, expected = (
            float(schedule.at(level).with_divergence(x, scale**2)[1].mean())
            for schedule in (corrected, plain, fine)
        )
        assert found == pytest.approx(expected, rel=1e-10)
        assert without != pytest.approx(expected, rel=1e-10)
        exact = [
            s.at(level).by_traces().with_divergence(x, scale**2)[1] for s in (corrected, plain)
        ]
        torch.testing.assert_close(*exact, rtol=0, atol=0)
    narrow = SmoothedScoreDiffusion(**SCALES).fit(WIDE[0][:, :10])
    assert narrow.model_.data.smoothing.shifts is None


def test_without_tol_the_error_is_that_of_the_nodes(recwarn):
    few, default = moons(n_nodes=2), moons()
    assert few.error_ == few.node_error_ > 0.2 > default.error_ == default.node_error_
    assert not [w for w in recwarn if "tol" in str(w.message)]


def test_the_adaptive_solver_takes_its_tolerance_from_tol():
    """By name; an object keeps its own. The error of each row is below its part of tol."""
    names = {tol: moons(solver="adaptive", tol=tol).model_.solver for tol in ("auto", 0.5)}
    assert names == {"auto": Adaptive(1e-3), 0.5: Adaptive(0.2)}
    assert moons(solver=Adaptive(1e-3), tol=0.5).model_.solver == Adaptive(1e-3)
    model = moons(solver="adaptive", tol=0.05)
    found = model.score_samples(FAR)
    exact = moons(solver=Adaptive(1e-5), n_nodes=model.n_nodes_).score_samples(FAR)
    assert np.abs(found - exact).max() < 0.4 * 0.05


def test_levels_and_steps_follow_tol():
    """The narrow bandwidth needs more steps than those by default, the numbers given are kept."""
    params = {**SCALES, "bandwidth": "0.3h"}
    default, finer = (
        SmoothedScoreDiffusion(**params, n_nodes=16, tol=tol, solver="heun")
        for tol in ("auto", 1e-4)
    )
    with pytest.warns(ConvergenceWarning, match="n_nodes=16"):
        finer.fit(MOONS)
    assert finer.n_steps_ > default.fit(MOONS).n_steps_
    assert finer.noise_levels_.n_levels == finer.n_steps_
    with pytest.warns(
        ConvergenceWarning, match="n_nodes=16 and n_levels=4 and n_steps=4 at 'auto'"
    ):
        fixed = finer.set_params(n_levels=4, n_steps=4).fit(MOONS)
    assert (fixed.n_nodes_, fixed.noise_levels_.n_levels, fixed.n_steps_) == (16, 4, 4)


def test_a_warning_says_what_is_reached():
    with pytest.warns(
        ConvergenceWarning,
        match=r"tol=0.001 is not reached: .* error of [\d.]+ nats, [\d.]+ from 64 nodes in 32 levels",
    ) as caught:
        model = moons(tol=1e-3, n_nodes=64)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert f"{model.error_:.2g} nats" in str(caught[0].message)
    # Requested alone, no number that was given stands in the way.
    with pytest.warns(ConvergenceWarning, match=r"4096 nodes .*steps\. Pass a larger tol"):
        SmoothedScoreDiffusion(0.2, 0.4, tol=1e-5).fit(MOONS[:8, :1])


@pytest.mark.parametrize(
    "model",
    [
        SmoothedScoreDiffusion(0.2, 0.4, solver="euler", tol=0.1),
        ManifoldAdaptedDiffusion(0.2, 0.4, manifold=PointCloud(MOONS), tol=0.1),
    ],
    ids=["sampler", "no divergence"],
)
def test_where_there_are_no_log_densities_tol_cannot_be_checked(model):
    with pytest.warns(ConvergenceWarning, match="tol=0.1 cannot be checked") as caught:
        model.fit(MOONS)
    # No arrays of a kernel.
    assert len(str(caught[0].message)) < 400
    assert np.isnan(model.error_)


def test_tol_decides_how_far_points_are_merged(monkeypatch):
    monkeypatch.setattr(settings, "_LARGEST_EXACT", 79)
    monkeypatch.setattr(accuracy, "_with_checked_merging", lambda model, resources: model)
    assert moons().hierarchy_.tolerance == pytest.approx(0.02)
    model = moons(tol=0.1)
    assert model.hierarchy_.tolerance == pytest.approx(0.01)
    assert 0.01 < model.error_ <= 0.1
    assert SmoothedScoreDiffusion(0.2, 0.0).fit(MOONS).hierarchy_.tolerance == 0


# ------------------------------------------------------------------------------------ merged points

SIGNS = np.resize([1.0, -1.0], 64)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        # Errors of log-densities for each unit of the tolerance. Their root mean square is at most one,
        # the absolute value of their mean at most an eighth.
        (0.5 * SIGNS, 2.0),
        (0.99 * SIGNS, 1 / 0.99),
        (1.25 * SIGNS, 0.8),
        (1.9 * SIGNS, 1 / 1.9),
        (2.1 * SIGNS, 0.5),
        (SIGNS / 7.9, 7.9),
        (SIGNS / 8.1, 8.0),
        (np.full(64, 0.0625), 2.0),
        (np.full(64, -0.0625), 2.0),
        (np.full(64, 0.2), 0.625),
        (np.full(64, -1.0), 0.5),
        (0.25 * SIGNS + 0.05, 2.5),
        (np.zeros(64), 1.0),
        (np.where(SIGNS > 0, 0.1, np.nan), 1.0),
    ],
)
def test_points_are_merged_as_far_as_log_densities_allow(errors, expected, monkeypatch):
    monkeypatch.setattr(settings, "_LARGEST_EXACT", 79)
    seen = []

    def log_density(model, rows, resources):
        tolerance = round(model.data.hierarchy.tolerance, 12)
        seen.append((tolerance, model.solver, model.n_steps, model.tol))
        assert all((row == MOONS_IN_HULL).all(axis=1).any() for row in rows)
        return 3.0 + model.data.hierarchy.tolerance * errors

    model, resources = make_model(GEOMETRY, PARSED, 0.3, 0.3).model, PARSED.resources
    monkeypatch.setattr(DiffusionModel, "log_density_in_hull", log_density)
    found = accuracy._with_checked_merging(model, resources)
    assert found.data.hierarchy.tolerance == pytest.approx(0.02 * expected)
    quick = (Multistep(), model.levels.n_levels, None)
    assert seen == [(0.02, *quick), (0.16, *quick)]
    # Nothing else changes.
    assert (found.solver, found.steps_of_levels, found.tol) == (
        model.solver,
        model.steps_of_levels,
        model.tol,
    )
    assert found.data.hierarchy.centroids is model.data.hierarchy.centroids


@pytest.mark.parametrize("factor", [0.5, 0.6, 1.0, 8.0])
def test_cells_hold_all_points_at_each_tolerance(factor, monkeypatch):
    """Weights sum to one and means are the same, at the bandwidth and above."""
    monkeypatch.setattr(settings, "_LARGEST_EXACT", 79)
    # So close that they are merged at the bandwidth.
    rows = np.vstack(
        [MOONS + 0.02 * shift for shift in np.random.RandomState(0).normal(size=(8, 80, 2))]
    )
    geometry = geometry_of(rows, settings=PARSED)
    model = make_model(geometry, PARSED, 0.3, 0.3).model
    errors = SIGNS / factor
    monkeypatch.setattr(
        DiffusionModel,
        "log_density_in_hull",
        lambda model, rows, resources: model.data.hierarchy.tolerance * errors[: len(rows)],
    )
    hierarchy = accuracy._with_checked_merging(model, PARSED.resources).data.hierarchy
    assert hierarchy.tolerance == pytest.approx(0.02 * factor)
    for scale in (0.3, 0.6, 2.0):
        points, weights = hierarchy.at(scale)
        assert len(points) < len(rows)
        assert weights.sum() == pytest.approx(1)
        expected = geometry.data.weights @ geometry.coordinates
        np.testing.assert_allclose(weights @ points, expected, rtol=0, atol=1e-12)


def test_models_without_merged_points_or_divergences_stay_the_same(monkeypatch):
    monkeypatch.setattr(DiffusionModel, "log_density_in_hull", None)
    model = make_model(GEOMETRY, PARSED, 0.3, 0.3).model
    assert accuracy._with_checked_merging(model, PARSED.resources) is model
    monkeypatch.setattr(settings, "_LARGEST_EXACT", 79)
    adapted = ManifoldAdaptedDiffusion(0.3, 0.3, manifold=PointCloud(MOONS)).fit(MOONS)
    assert adapted.hierarchy_.tolerance == pytest.approx(0.02)


def sheet(n, seed):
    """Return n rows on a curved surface in four dimensions."""
    a, b = np.random.RandomState(seed).uniform(0, 3, size=(2, n))
    return np.column_stack([np.cos(a), np.sin(a), np.cos(b), np.sin(b)])


def noisy_curve(n, seed):
    """Return n rows about a curve, in all directions as far from it as the bandwidth is wide."""
    rng = np.random.RandomState(seed)
    t = rng.uniform(0, 9, size=n)
    return np.column_stack([np.cos(t), np.sin(t), 0.3 * t]) + 0.1 * rng.normal(size=(n, 3))


@pytest.mark.parametrize(
    ("rows", "is_coarser"), [(sheet, True), (noisy_curve, False)], ids=["sheet", "curve"]
)
def test_cells_are_larger_unless_their_errors_have_one_sign(rows, is_coarser, monkeypatch):
    """Log-densities of new rows with merged points against those without merging.

    Around the curve cells make the data narrower, at all rows alike: with the largest tolerance the
    mean would be off by 0.03 nats.
    """
    X, queries = rows(4000, 0), rows(100, 1)
    model = SmoothedScoreDiffusion(0.1, 0.2, n_nodes=24)
    exact = model.fit(X).score_samples(queries)
    monkeypatch.setattr(settings, "_LARGEST_EXACT", 0)
    errors = model.fit(X).score_samples(queries) - exact
    tolerance = model.hierarchy_.tolerance
    assert tolerance > 0.05 if is_coarser else tolerance < 0.02
    assert 0 < np.sqrt(np.mean(errors**2)) < 0.03
    assert abs(errors.mean()) < 0.01


# ---------------------------------------------------------------------------------- solver="auto"


def test_ordinary_rows_take_one_evaluation_and_rough_ones_are_those_of_heun():
    """Near rows are as exact as under Heun; far ones are followed by it, not by single evaluations."""
    auto, exact = moons(), moons(solver=Adaptive(1e-4))
    heun = moons(solver="heun", n_steps=auto.n_steps_)
    assert isinstance(auto.solver_, Multistep)
    expected = exact.score_samples(NEAR)
    # Seen is 0.0005 and 0.0007; three times as much would be a larger error than that of the nodes.
    assert np.sqrt(np.mean((auto.score_samples(NEAR) - expected) ** 2)) < 2e-3
    found, by_heun = auto.score_samples(FAR), heun.score_samples(FAR)
    single = moons(solver="multistep", n_steps=auto.n_steps_).score_samples(FAR)
    again = np.abs(found - single) > 0
    assert 2 < again.sum() < len(FAR)
    close = np.abs(found - exact.score_samples(FAR)) < 0.03
    assert np.all(close | (found == by_heun))


def test_where_many_rows_are_rough_two_evaluations_are_taken():
    """With a fifteenth of the smoothing scale as bandwidth, single evaluations miss jumps."""
    X = np.random.RandomState(0).normal(size=(20, 1))
    assert isinstance(SmoothedScoreDiffusion(0.02, 0.3, n_nodes=16).fit(X).solver_, Heun)


def test_solvers_by_name_follow_rough_rows_again():
    """With 32 steps alone the two are off by nine nats and more at this row."""
    X = np.vstack([np.random.RandomState(3).standard_t(2, size=(60, 2)), [[40, 3], [-90, 20]]])
    models = {
        solver: SmoothedScoreDiffusion(0.2, 0.6, n_nodes=16, solver=solver).fit(X)
        for solver in (Adaptive(1e-2), "heun", "multistep")
    }
    assert isinstance(models["heun"].solver_, Heun)
    assert isinstance(models["multistep"].solver_, Multistep)
    exact, heun, single = (model.score_samples([[6.0, -6.0]]) for model in models.values())
    # Both end with `Adaptive`, with errors of at most 0.01 nats.
    assert heun == pytest.approx(exact, rel=0, abs=0.02)
    assert single == pytest.approx(exact, rel=0, abs=0.02)


def test_steps_that_are_given_are_those_of_heun():
    one, other = moons(n_steps=32), moons(n_steps=32, solver="heun")
    assert isinstance(one.solver_, Heun)
    np.testing.assert_array_equal(one.score_samples(FAR), other.score_samples(FAR))
    np.testing.assert_array_equal(one.sample(9, random_state=0), other.sample(9, random_state=0))


def test_draws_end_where_converged_steps_do():
    """In bandwidths: median and root mean square below 0.03."""
    auto, exact = moons(), moons(solver=Adaptive(1e-3))
    gap = auto.sample(200, random_state=0) - exact.sample(200, random_state=0)
    distances = np.linalg.norm(auto.coordinates_.steps_to_metric(gap), axis=1) / auto.bandwidth_
    assert np.median(distances) < 0.01
    assert np.sqrt(np.mean(distances**2)) < 0.03
