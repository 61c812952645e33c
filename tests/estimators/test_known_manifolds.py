"""Tests of ManifoldAdaptedDiffusion along curved manifolds, known ones and learned ones."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import make_swiss_roll

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.manifolds import (
    AffineSubspace,
    Circle,
    Curve,
    LocalPolynomialManifold,
    PointCloud,
    Sphere,
)

SMALL = {"n_nodes": 16, "n_levels": 8, "n_steps": 8}
UNIT = Circle([0.0, 0.0], 1.0)


def on_circle(n, seed=0):
    angle = np.random.RandomState(seed).uniform(0, 2 * np.pi, size=n)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def ellipse(t):
    return np.column_stack([1.5 * np.cos(t), np.sin(t)])


def frame(d, k, seed=0):
    """Orthonormal directions in R^d."""
    return np.linalg.qr(np.random.RandomState(seed).normal(size=(d, k)))[0]


MODELS = {
    "local": ManifoldAdaptedDiffusion(0.1, 0.25, n_components=1, n_cells=6),
    "translated": ManifoldAdaptedDiffusion(0.1, 0.25, manifold=UNIT),
    "level-set": ManifoldAdaptedDiffusion(0.1, 0.25, manifold=UNIT, push="level-set"),
}
every_model = pytest.mark.parametrize("name", MODELS)


# ------------------------------------------------------------------------------------------- the law


@every_model
def test_mass_is_one(name):
    """On a grid of 1.2 bandwidths, which is exact to 1e-5; 16 steps of Heun's method err by 2e-3."""
    axis = np.arange(-1.8, 1.8, 0.12)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    model = clone(MODELS[name]).set_params(n_nodes=16, n_levels=16, n_steps=16)
    found = np.exp(model.fit(on_circle(20)).score_samples(grid)).sum() * 0.12**2
    assert found == pytest.approx(1, abs=1e-2)


@every_model
@pytest.mark.slow
def test_samples_follow_the_density(name):
    """Chi-square of 1500 draws in boxes that expect ten or more; false alarm 1e-4 a model, seed 0.

    Samples moved by half a bandwidth must be found out, and are, below 1e-8.
    """
    model = clone(MODELS[name]).set_params(n_nodes=16, n_levels=16, n_steps=16).fit(on_circle(20))
    edges = np.linspace(-1.8, 1.8, 19)
    # Nine points in each box: their sum errs by 2 % of it at most, the counts by 10 % and more.
    middles = -1.8 + 0.2 / 3 * (np.arange(54) + 0.5)
    grid = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(model.score_samples(grid)) * (0.2 / 3) ** 2
    due = 1500 * density.reshape(18, 3, 18, 3).sum(axis=(1, 3))
    drawn = model.sample(1500, random_state=0)

    def p_value(rows):
        seen = np.histogram2d(*rows.T, bins=[edges, edges])[0]
        large = due > 10
        seen, expected = np.append(seen[large], 0.0), np.append(due[large], 0.0)
        seen[-1], expected[-1] = 1500 - seen.sum(), 1500 - expected.sum()
        return stats.chi2(len(expected) - 1).sf(np.sum((seen - expected) ** 2 / expected))

    assert p_value(drawn) > 1e-4
    assert p_value(drawn + 0.05) < 1e-8


@every_model
@pytest.mark.parametrize("sigma", [0.0, 1e-9])
def test_no_smoothing_is_the_kde(name, sigma):
    """With a sigma too small to matter the flow runs, and its 64 steps err by 2e-3."""
    X = on_circle(30)
    model = clone(MODELS[name]).set_params(sigma=sigma, n_levels=8, n_steps=64, n_nodes=2).fit(X)
    expected = KDESampler(0.1).fit(X).score_samples(X)
    atol = 5e-3 if sigma else 1e-12
    np.testing.assert_allclose(model.score_samples(X), expected, atol=atol)


@every_model
def test_leaving_a_point_out_is_never_having_had_it(name):
    """The posterior's point; cells keep what they learned of it, so only known manifolds qualify."""
    X = on_circle(12)
    model = clone(MODELS[name]).set_params(terminal_scale=1.0, **SMALL).fit(X)
    found = model.leave_one_out_log_density()
    assert np.all(np.isfinite(found))
    if name == "local":
        return
    for j in (0, 5):
        others = np.delete(model.points_, j, axis=0)
        without = clone(model).fit(others).score_samples(model.points_[j : j + 1])
        # Hull coordinates of fewer points are turned, and with them the nodes: their error remains.
        np.testing.assert_allclose(found[j], without[0], atol=0.15)


# ------------------------------------------------------------------------------------------- motions


@pytest.mark.parametrize("d", [2, 6])
@pytest.mark.parametrize("push", ["translated", "level-set"])
def test_a_circle_in_any_space_is_a_circle(d, push):
    """Rotated and moved into R^d: the same model in its plane, times a Gaussian across it."""
    basis, center = frame(d, 2), np.arange(d) / 3.0
    flat, lifted = on_circle(15), on_circle(15) @ basis.T + center
    Q = flat[:5] * 1.1
    here = ManifoldAdaptedDiffusion(0.1, 0.25, manifold=UNIT, push=push, **SMALL).fit(flat)
    there = ManifoldAdaptedDiffusion(
        *(0.1, 0.25), manifold=Circle(center, 1.0, basis), push=push, **SMALL
    ).fit(lifted)
    expected = here.score_samples(Q) - (d - 2) * np.log(0.1 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(there.score_samples(Q @ basis.T + center), expected, atol=1e-7)
    drawn = there.sample(20, random_state=0)
    assert drawn.shape == (20, d)
    assert there.hull_.dimension == 2


def test_data_that_leave_the_space_of_the_manifold():
    """Rows with noise in all of R^5 about a circle in a plane; the kernel acts along the circle."""
    basis, rng = frame(5, 2), np.random.RandomState(1)
    X = on_circle(40) @ basis.T + 0.01 * rng.normal(size=(40, 5))
    circle = Circle(np.zeros(5), 1.0, basis)
    model = ManifoldAdaptedDiffusion(0.02, 0.25, manifold=circle, **SMALL).fit(X)
    assert model.hull_.dimension == 5
    isotropic = SmoothedScoreDiffusion(0.02, 0.25, **SMALL).fit(X)
    distances = [circle.distance(m.sample(200, random_state=0)).mean() for m in (model, isotropic)]
    # Noise of scale 0.02 in five dimensions is at 0.04; smoothing across the circle adds to it.
    assert distances[0] < 0.8 * distances[1]
    assert np.all(np.isfinite(model.score_samples(X)))


@pytest.mark.parametrize("name", ["local", "translated"])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units(name, scale):
    X = on_circle(20)
    model = clone(MODELS[name]).set_params(**SMALL)
    other = clone(model).set_params(bandwidth=0.1 * scale, sigma=0.25 * scale)
    if name == "translated":
        other.set_params(manifold=Circle([0.0, 0.0], scale))
    expected = model.fit(X).score_samples(X[:6] * 1.05) - 2 * np.log(scale)
    found = other.fit(X * scale).score_samples(X[:6] * 1.05 * scale)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_learned_tangents_turn_with_the_data():
    X, turn = on_circle(40) * [1.0, 0.6], frame(2, 2)
    model = clone(MODELS["local"]).set_params(**SMALL)
    expected = model.fit(X).score_samples(X[:8] * 1.05)
    found = clone(model).fit(X @ turn + 3.0).score_samples(X[:8] * 1.05 @ turn + 3.0)
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("n_components", [1, 2])
def test_tangents_that_are_everything_are_isotropic_smoothing(n_components):
    """Data that span no more than their tangents, in R^4: node by node the isotropic kernel."""
    rng = np.random.RandomState(0)
    X = rng.gamma(2.0, size=(40, n_components)) @ frame(4, n_components).T
    learned = ManifoldAdaptedDiffusion(0.2, 0.4, n_components=n_components, **SMALL).fit(X)
    isotropic = SmoothedScoreDiffusion(0.2, 0.4, **SMALL).fit(X)
    np.testing.assert_allclose(
        learned.score_samples(X + 0.05), isotropic.score_samples(X + 0.05), atol=1e-9
    )


def test_on_a_thin_strip_learned_tangents_smooth_along_it():
    """Cells that agree: the kernel along the strip, to 1e-2 nats of its nodes and cells."""
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.uniform(-2, 2, size=200), 1e-4 * rng.normal(size=200)])
    many = {"n_nodes": 256, "n_levels": 16, "n_steps": 16}
    learned = ManifoldAdaptedDiffusion(0.1, 0.2, n_components=1, n_cells=5, **many).fit(X)
    along = ManifoldAdaptedDiffusion(0.1, 0.2, manifold="pca", n_components=1, **many).fit(X)
    assert len(learned.cells_) == 5
    Q = X[:20] + [0.0, 0.05]
    np.testing.assert_allclose(learned.score_samples(Q), along.score_samples(Q), atol=1e-2)


# -------------------------------------------------------------------------------- what it is good for


def wavy(t):
    radius = 1 + 0.13 * np.sin(8 * t)
    return np.column_stack([radius * np.cos(t), radius * np.sin(t)])


@pytest.fixture(scope="module")
def wave():
    return Curve(wavy, 0, 2 * np.pi, closed=True)


@pytest.mark.filterwarnings("ignore:sigma=.* is large")  # it is sampled only
def test_kernels_choose_the_manifold(wave):
    """The same rows on a wavy circle: each kernel's samples are nearest to its own manifold."""
    X = wavy(np.random.RandomState(0).uniform(0, 2 * np.pi, size=60))
    models = {
        "along the waves": ManifoldAdaptedDiffusion(0.03, 0.15, manifold=wave, **SMALL),
        "every way": SmoothedScoreDiffusion(0.03, 0.15, **SMALL),
    }
    to_wave = {
        name: wave.distance(model.fit(X).sample(200, random_state=0)).mean()
        for name, model in models.items()
    }
    # 0.031 and 0.046 measured; the KDE's 0.023 is the bandwidth's own.
    assert to_wave["along the waves"] < 0.8 * to_wave["every way"]


def test_learned_tangents_beat_isotropic_smoothing_on_a_swiss_roll():
    """Where data bend: held-out log-likelihood at a large scale, for both, gains 0.3 nats here.

    300 rows in R^10 with noise of 0.02; deterministic, so nothing here has a false alarm.
    """

    def rows(n, seed):
        X = np.zeros((n, 10))
        X[:, :3] = make_swiss_roll(n, random_state=seed)[0] / 10
        return X + 0.02 * np.random.RandomState(seed).normal(size=X.shape)

    X, held_out = rows(300, 0), rows(60, 1)
    scales = {"bandwidth": 0.04, "sigma": 0.2, "n_levels": 16, "n_steps": 16}
    learned = ManifoldAdaptedDiffusion(n_components=2, **scales).fit(X).score(held_out)
    isotropic = SmoothedScoreDiffusion(**scales).fit(X).score(held_out)
    assert learned > isotropic + 0.1


# ----------------------------------------------------------------------------------------- interface


@pytest.mark.parametrize(
    "manifold",
    [
        UNIT,
        Curve(ellipse, 0, 2 * np.pi, closed=True),
        AffineSubspace([[1.0, 1.0]], [0.0]),
        PointCloud(on_circle(300), 1),
        LocalPolynomialManifold(1, n_neighbors=12).fit(on_circle(100)),
        Sphere([0.0, 0.0], 1.0),
    ],
    ids=["circle", "curve", "subspace", "cloud", "learned", "sphere"],
)
def test_every_manifold_can_be_given(manifold):
    X = on_circle(25)
    few = {"n_nodes": 4, "n_levels": 3, "n_steps": 3}
    model = ManifoldAdaptedDiffusion(0.1, 0.2, manifold=manifold, **few).fit(X)
    drawn = model.sample(5, random_state=0)
    assert np.all(np.isfinite(drawn))
    np.testing.assert_array_equal(model.sample(5, random_state=0), drawn)
    if not isinstance(manifold, PointCloud):
        expected = model.score_samples(X[:2])
        copy = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(copy.score_samples(X[:2]), expected)
        assert 0 <= model.node_error_ < 1
    else:
        assert np.isnan(model.node_error_)
        for call in (model.score_samples, model.score):
            with pytest.raises(ValueError, match="has no derivative"):
                call(X)
        with pytest.raises(ValueError, match="has no derivative"):
            model.leave_one_out_log_density()


class Drifting:
    """A projection that goes on moving what it has projected."""

    n_features, dimension, reach = 2, 1, None

    def project(self, X):
        return 0.9 * torch.as_tensor(X)

    def distance(self, X):
        return torch.zeros(len(X))

    def tangent(self, X):
        return torch.ones(len(X), 2, 1) / np.sqrt(2)


class Arrays(Drifting):
    """A manifold that knows numpy only."""

    def project(self, X):
        return UNIT.project(np.asarray(X))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"manifold": Drifting()}, ValueError, "is not idempotent: projections move by up to"),
        ({"manifold": Arrays()}, TypeError, "expected tensors"),
        ({"manifold": Circle(np.zeros(3), 1.0, np.eye(3)[:, :2])}, ValueError, r"R\^3 but X has 2"),
        ({"manifold": Circle}, TypeError, "has type ABCMeta"),
        ({"manifold": "circle"}, ValueError, r"manifold='circle' is not known"),
        ({"n_components": 3}, ValueError, "n_components=3 is too large; expected at most 2"),
        ({"n_components": 0}, ValueError, "n_components=0"),
        ({"n_components": 0.9}, TypeError, r"n_components=0\.9 is a share .*manifold='pca'"),
        ({"n_components": "mle"}, ValueError, "n_components='mle' is not known"),
        ({"n_cells": 0}, ValueError, "n_cells=0 is too small"),
        ({"n_cells": 40}, ValueError, "n_cells=40 exceeds .* 30"),
        ({"n_cells": "many"}, ValueError, "n_cells='many' is not known"),
        ({"n_cells": 2.0}, TypeError, r"n_cells=2\.0 has type float"),
        ({"push": "pulled"}, ValueError, "push='pulled' is not known"),
    ],
)
def test_what_is_refused(params, error, message):
    with pytest.raises(error, match=message):
        ManifoldAdaptedDiffusion(0.1, 0.2, **params).fit(on_circle(30))


def test_rows_at_equal_distances_have_no_dimension_to_estimate():
    X = np.eye(12)
    with pytest.warns(UserWarning, match="equally far.*smoothed in all 11 directions"):
        model = ManifoldAdaptedDiffusion(0.3, 0.5, **SMALL).fit(X)
    isotropic = SmoothedScoreDiffusion(0.3, 0.5, **SMALL).fit(X)
    np.testing.assert_array_equal(model.score_samples(X), isotropic.score_samples(X))


def test_noise_across_the_span_of_a_manifold_does_not_stop_the_smoothing():
    """A circle in R^12: its nearest points depend on the plane alone, whatever is far from the plane."""
    basis = frame(12, 2)
    circle = Circle(np.zeros(12), 1.0, basis)
    X = on_circle(20) @ basis.T + 0.3 * np.random.RandomState(0).normal(size=(20, 12))
    model = ManifoldAdaptedDiffusion(0.3, 0.3, manifold=circle, **SMALL).fit(X)
    inside, away = (X[:3] @ basis) @ basis.T, np.zeros((3, 12))
    away[:] = np.linalg.svd(basis.T)[2][5] * 3.0  # three times the reach from the plane
    free = ManifoldAdaptedDiffusion(0.3, 0.3, manifold=PointCloud(circle_points(basis), 1), **SMALL)
    found, expected = (m.fit(X).grad_log_density(inside + away) for m in (model, free))
    # The cloud has no reach, so nothing fades; its nearest points are 1e-3 apart.
    np.testing.assert_allclose(found, expected, atol=0.05)


def circle_points(basis):
    angle = np.linspace(0, 2 * np.pi, 6000, endpoint=False)
    return np.column_stack([np.cos(angle), np.sin(angle)]) @ basis.T


# --------------------------------------------------------------------------- what is told to the user


def test_a_reach_below_the_bandwidth_is_refused():
    """A figure of eight crosses itself: its reach is zero, and nothing along it could be smoothed."""
    eight = Curve(
        lambda t: np.column_stack([np.sin(t), np.sin(t) * np.cos(t)]), 0, 2 * np.pi, closed=True
    )
    X = eight.points(np.linspace(0, 6, 30))
    with pytest.raises(ValueError, match=r"reach .*too small for the bandwidth 0\.1"):
        ManifoldAdaptedDiffusion(0.1, 0.2, manifold=eight, **SMALL).fit(X)


def test_rows_far_from_the_manifold_and_wide_kernels_give_warnings():
    X = on_circle(20)
    with pytest.warns(UserWarning, match=r"20 of 20 distinct rows are farther .* than 0\.5"):
        ManifoldAdaptedDiffusion(0.1, 0.2, manifold=Circle([9.0, 0.0], 1.0), **SMALL).fit(X)
    with pytest.warns(UserWarning, match=r"sigma=0\.8 is large .* reach 1 .* Lower sigma to 0\.6"):
        ManifoldAdaptedDiffusion(0.1, 0.8, manifold=UNIT, **SMALL).fit(X)
    with pytest.warns(UserWarning, match=r"sigma=0\.4 .* push='level-set': .* Lower sigma to 0\.3"):
        ManifoldAdaptedDiffusion(0.1, 0.4, manifold=UNIT, push="level-set", **SMALL).fit(X)


def test_a_learned_manifold_that_is_not_fitted_is_fitted_to_the_rows():
    X, few = on_circle(30), {"n_nodes": 4, "n_levels": 2, "n_steps": 2}
    model = ManifoldAdaptedDiffusion(
        0.1, 0.2, manifold=LocalPolynomialManifold(1, n_neighbors=12), **few
    )
    drawn = clone(model).fit(X).sample(5, random_state=0)
    fitted = LocalPolynomialManifold(1, n_neighbors=12).fit(X)
    given = clone(model).set_params(manifold=fitted).fit(X)
    np.testing.assert_array_equal(given.sample(5, random_state=0), drawn)
    np.testing.assert_array_equal(clone(given).fit(X).sample(5, random_state=0), drawn)
    assert not hasattr(model.manifold, "n_components_")


def test_a_cloud_on_a_line_keeps_its_tangents_of_two_dimensions():
    line = np.linspace(-1, 1, 30)[:, None] * np.ones(3)
    model = ManifoldAdaptedDiffusion(0.1, 0.2, manifold=PointCloud(line, 2, 5), **SMALL).fit(line)
    assert np.all(np.isfinite(model.sample(5, random_state=0)))


def test_a_fit_leaves_nothing_of_an_earlier_one():
    X = on_circle(30)
    model = ManifoldAdaptedDiffusion(0.1, 0.2, n_components=1, **SMALL).fit(X)
    assert hasattr(model, "cells_")
    model.set_params(manifold="pca").fit(X)
    assert not hasattr(model, "cells_")
    assert not hasattr(model, "n_components_")


def test_without_smoothing_any_manifold_has_a_density():
    X = on_circle(30)
    model = ManifoldAdaptedDiffusion(0.1, 0.0, manifold=PointCloud(on_circle(99), 1)).fit(X)
    np.testing.assert_allclose(model.score_samples(X), KDESampler(0.1).fit(X).score_samples(X))


@pytest.mark.parametrize("bandwidth", [0.1, 1e-3])
@every_model
def test_single_precision_is_near_double(name, bandwidth):
    """At the second bandwidth the engine goes to double precision, and so must all that it is given."""
    X = on_circle(20)
    model = clone(MODELS[name]).set_params(bandwidth=bandwidth, **SMALL).fit(X)
    expected = model.grad_log_density(X + 0.01)
    found = model.set_params(dtype="float32").fit(X).grad_log_density(X + 0.01)
    # Places are rounded to 1e-7 of themselves, and the score is a difference of places over v.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 / bandwidth**2)
