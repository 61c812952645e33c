"""Tests of merging: cells that partition the points, and the bound on the change of a density."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import accuracy
from skdiffsmooth._diffusion import settings as diffusion_settings
from skdiffsmooth._engine.hierarchy import PointHierarchy


@st.composite
def weighted_points(draw):
    """Clusters of clusters, on a grid or not, in one to three dimensions, of very unequal weight."""
    rng = np.random.RandomState(draw(st.integers(0, 2**20)))
    n, r = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    points = sum(
        scale * rng.standard_normal((k, r))[rng.randint(k, size=n)]
        for scale, k in [(1.0, 3), (0.1, 7), (draw(st.sampled_from([0.0, 1e-2, 1e-9])), n)]
    )
    if draw(st.booleans()):
        points = np.round(points * 4) / 4
    points = np.unique(points, axis=0)
    weights = 10 ** rng.uniform(-draw(st.sampled_from([0.0, 20.0])), 0, len(points))
    return points, weights / weights.sum()


scales = st.floats(-3, 1).map(lambda log_scale: 10**log_scale)
factors = st.floats(0, 3).map(lambda log_factor: 10**log_factor)


@settings(deadline=None, max_examples=200)
@given(data=weighted_points(), tolerance=st.floats(1e-4, 3.0), finest=scales, factor=factors)
@example(
    data=(np.array([[0.0], [1.0]]), np.array([1e-20, 1.0])), tolerance=0.02, finest=0.01, factor=1.0
)
@example(
    data=(np.array([[0.0], [10.51], [10.52], [10.53]]), np.array([1.0] + 3 * [1e-322])),
    tolerance=0.02,
    finest=1e-3,
    factor=1.0,
)
def test_the_density_is_within_the_bound(data, tolerance, finest, factor):
    """-tolerance <= log p - log p~ <= log sum_c W~_c exp(tolerance |y - c|^2 / v), at any query."""
    points, weights = data
    hierarchy = PointHierarchy.of(points, weights, tolerance, finest)
    scale = finest * factor
    centroids, masses = hierarchy.at(scale)
    v = scale**2
    queries = np.concatenate([points[:3], points[:3] + scale, points[:2] - 4 * scale])
    for y in queries:
        exact = oracles.posterior(points, np.log(weights), y, v).log_density
        merged = oracles.posterior(centroids, np.log(masses), y, v)
        squares = np.sum((centroids - y) ** 2, axis=1) / v
        logs = np.log(np.maximum(merged.weights, np.finfo(np.longdouble).tiny))
        upper = oracles.log_sum_exp(logs + tolerance * squares)
        # Rounding of a centroid, eps |c|, moves a log-density by eps |c| |y - c| / v, of those that
        # count.
        counts = merged.weights > 1e-30
        lengths = np.linalg.norm(centroids[counts], axis=1) * np.sqrt(squares[counts]) / scale
        slack = 1e-9 + 1e-14 * float(lengths.max())
        assert -tolerance - slack <= exact - merged.log_density <= upper + slack


@settings(deadline=None, max_examples=100)
@given(data=weighted_points(), tolerance=st.floats(1e-4, 3.0), finest=scales, factor=factors)
def test_merging_keeps_weight_and_mean(data, tolerance, finest, factor):
    points, weights = data
    hierarchy = PointHierarchy.of(points, weights, tolerance, finest)
    centroids, masses = hierarchy.at(finest * factor)
    assert len(centroids) <= len(points)
    np.testing.assert_allclose(masses.sum(), 1, rtol=1e-13)
    np.testing.assert_allclose(masses @ centroids, weights @ points, rtol=0, atol=1e-13)


def test_points_around_one_center_merge_and_others_do_not():
    rng = np.random.RandomState(0)
    centers = np.array([[0.0], [10.0], [23.0], [31.0], [50.0]])
    points = np.concatenate([center + 1e-3 * rng.standard_normal((20, 1)) for center in centers])
    hierarchy = PointHierarchy.of(points, np.full(100, 0.01), 0.01, 0.1)
    centroids, masses = hierarchy.at(0.1)
    np.testing.assert_allclose(np.sort(centroids[:, 0]), centers[:, 0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(masses, 0.2)
    # All five within 0.14 noise scales of their mean.
    centroids, masses = hierarchy.at(30 / math.sqrt(0.02))
    assert len(centroids) == 1


def test_no_merging_without_a_tolerance_or_below_the_finest_scale():
    points = np.random.RandomState(0).standard_normal((50, 2))
    weights = np.full(50, 0.02)
    assert PointHierarchy.of(points, weights, 0.0, 1.0).at(100.0)[0] is points
    merging = PointHierarchy.of(points, weights, 0.1, 1.0)
    assert merging.at(0.99)[0] is points
    assert len(merging.at(1.0)[0]) < 50


def test_coarser_noise_merges_more():
    points = np.random.RandomState(0).standard_normal((400, 2))
    hierarchy = PointHierarchy.of(points, np.full(400, 1 / 400), 0.05, 0.1)
    sizes = [len(hierarchy.at(scale)[0]) for scale in np.geomspace(0.1, 10, 20)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 10


@pytest.mark.parametrize("estimator", [SmoothedScoreDiffusion, ManifoldAdaptedDiffusion])
def test_estimators_within_their_tolerance(estimator, monkeypatch):
    """2000 rows on a spiral, merged: samples, fields and log-densities against those without merging.

    They are merged as far as the bound allows, not as far as log-densities would: each level changes the
    log-density by at most the bound, 0.02 times the squared distance. The average must be below 0.002,
    which cells of twice the radius would miss.
    """
    rng = np.random.RandomState(0)
    turn = rng.uniform(1, 7, 2000)
    X = np.column_stack([turn * np.cos(turn), turn * np.sin(turn)])
    X += 0.02 * rng.standard_normal(X.shape)
    # Few nodes, the same in both: the error of merging does not depend on them.
    scales = {"bandwidth": 0.3, "sigma": 0.5, "n_levels": 12, "n_steps": 12, "n_nodes": 8}
    exact = estimator(**scales).fit(X)
    monkeypatch.setattr(diffusion_settings, "_LARGEST_EXACT", 0)
    monkeypatch.setattr(accuracy, "_with_checked_merging", lambda model, resources: model)
    merged = estimator(**scales).fit(X)
    assert merged.hierarchy_.tolerance == pytest.approx(0.02)
    assert len(merged.hierarchy_.at(0.3)[0]) < 1000
    queries = X[:200] + 0.2 * rng.standard_normal((200, 2))
    gap = merged.score_samples(queries) - exact.score_samples(queries)
    assert 0 < np.abs(gap).max() < 0.05
    assert abs(gap.mean()) < 2e-3
    fields = [m.grad_log_density(queries) for m in (merged, exact)]
    # In units of the noise scale, over the bandwidth.
    assert np.abs(fields[0] - fields[1]).max() * 0.3 < 0.05
    # Draws start from cells and not from points, so their distributions are compared: the mean of their
    # log-densities, whose difference is within four standard errors but once in 15 000 seeds.
    log_densities = [exact.score_samples(m.sample(400, random_state=0)) for m in (merged, exact)]
    error = math.sqrt(sum(np.var(log_density) for log_density in log_densities) / 400)
    assert abs(log_densities[0].mean() - log_densities[1].mean()) < 4 * error


def test_merging_begins_beyond_ten_thousand_rows():
    rng = np.random.RandomState(0)
    few, many = rng.uniform(size=(10_000, 1)), rng.uniform(size=(10_001, 1))
    model = SmoothedScoreDiffusion(0.1, 0.1)
    assert model.fit(few).hierarchy_.tolerance == 0
    assert model.fit(many).hierarchy_.tolerance > 0
    assert len(model.hierarchy_.at(0.1)[0]) < 1000


def test_a_single_row_is_not_merged(monkeypatch):
    """One distinct row: its hull is a point."""
    scores = []
    for largest in (10_000, 0):
        monkeypatch.setattr(diffusion_settings, "_LARGEST_EXACT", largest)
        model = SmoothedScoreDiffusion(0.5, 0.3).fit([[1.0, 2.0]])
        scores.append(model.score_samples([[1.5, 2.0]]))
    np.testing.assert_array_equal(*scores)


def test_without_smoothing_nothing_is_merged():
    """sigma = 0 is the KDE at any size, far tails included."""
    X = np.random.RandomState(0).uniform(size=(10_001, 2))
    queries = [[0.5, 0.5], [2.0, 2.0]]
    found = SmoothedScoreDiffusion(0.1, 0.0).fit(X).score_samples(queries)
    np.testing.assert_allclose(found, KDESampler(0.1).fit(X).score_samples(queries), rtol=1e-10)
