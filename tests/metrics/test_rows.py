"""Metrics of rows one by one: distances, copies, coverage."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import special_ortho_group
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_random_state

from skdiffsmooth import metrics
from skdiffsmooth.manifolds import AffineSubspace, Circle, PointCloud, Sphere
from skdiffsmooth.metrics import _coverage as coverage_module
from skdiffsmooth.metrics import _novelty as novelty_module
from skdiffsmooth.metrics import _pairs as pairs_module
from skdiffsmooth.metrics import (
    coverage_at_scale,
    coverage_scale,
    distance_to_data,
    distance_to_manifold,
    lateral_distance,
    memorization,
    memorization_report,
)


def rows(n, d, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


@pytest.fixture(params=["one tile", "many tiles"])
def tile_size(request, monkeypatch):
    """The result must not depend on the tiles; 2 KiB hold some rows at most."""
    if request.param == "many tiles":
        for module in (pairs_module, coverage_module):
            monkeypatch.setattr(module, "MEMORY_LIMIT", 2**-9)


def all_distances(X, Y):
    return np.array([[np.sqrt(np.sum((x - y) ** 2)) for y in Y] for x in X])


# --- Distances ---


@pytest.mark.parametrize("d", [1, 3, 40])
def test_distances_against_a_loop(d, tile_size):
    X, data = rows(30, d), rows(25, d, seed=1)
    assert_allclose(distance_to_data(X, data), all_distances(X, data).min(axis=1), rtol=1e-12)


@pytest.mark.parametrize("d", [3, 40])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_tiles_of_distances_keep_close_pairs(d, shift, tile_size):
    """Pairs from coincident to far, also far from zero: to 1e-10, or to what X is rounded to."""
    X = rows(20, d) + shift
    Y = np.concatenate([X[:5], X[5:10] + 1e-7, rows(10, d, seed=1) + shift])
    result = np.empty((20, 20))
    for tile, distances in pairs_module.distance_tiles(X, Y):
        result[tile] = distances
    assert_allclose(result, all_distances(X, Y), rtol=1e-9, atol=1e-9 * (shift > 0))
    assert_array_equal(np.diagonal(result)[:5], 0)


def test_distances_to_a_circle():
    X = np.array([[2.0, 0.0], [0.0, 0.25], [-1.0, 0.0]])
    assert_allclose(distance_to_manifold(X, Circle([0.0, 0.0], 1.0)), [1, 0.75, 0], atol=1e-15)


@given(
    shift=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
    scale=st.floats(1e-3, 1e3),
)
@settings(max_examples=30, deadline=None)
def test_distances_are_equivariant(shift, seed, scale):
    """Rotated, shifted and scaled: distances scale, ratios stay. Rounding is that of the shift."""
    turn = special_ortho_group.rvs(3, random_state=seed)
    X, data = rows(8, 3, seed), rows(9, 3, seed + 1)

    def moved(Z):
        return scale * (Z @ turn) + shift

    rounding = 1e-9 * (scale + 1)
    assert_allclose(
        distance_to_data(moved(X), moved(data)), scale * distance_to_data(X, data), atol=rounding
    )
    first, second = memorization(X, data), memorization(moved(X), moved(data))
    assert_allclose(first.ratio, second.ratio, atol=rounding / scale * 100)
    assert_allclose(
        coverage_scale(moved(X), moved(data)), scale * coverage_scale(X, data), atol=rounding
    )


def test_lateral_distances_of_a_plane():
    """Pythagoras: beside the plane by z, along it by what is left."""
    plane = AffineSubspace([[0.0, 0.0, 1.0]], [0.0])
    X = rows(40, 3)
    data = rows(10, 3, seed=1) * [1, 1, 0]
    expected = all_distances(X * [1, 1, 0], data).min(axis=1)
    assert_allclose(lateral_distance(X, data, plane), expected, rtol=1e-10)
    assert_allclose(lateral_distance(X + [0, 0, 5], data, plane), expected, rtol=1e-10)


def test_lateral_distance_of_copies_is_zero():
    """Of rows whose foot is a training row, up to the root of rounding."""
    sphere = Sphere(np.zeros(3), 1.0)
    data = sphere.project(rows(50, 3))
    assert_allclose(lateral_distance(1.3 * data, data, sphere), 0, atol=1e-7)
    assert_array_equal(lateral_distance(data, data, PointCloud(data, 2)), 0)


def test_data_off_the_manifold_raise():
    with pytest.raises(ValueError, match=r"0\.4 from .*do not lie on it.*manifold\.project"):
        lateral_distance([[1.5, 0.0]], [[1.1, 0.0], [0.0, 1.0]], Circle([0.0, 0.0], 1.0))


@pytest.mark.parametrize("unit", [1e-9, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_what_off_the_manifold_means_has_no_unit_and_no_origin(unit, offset):
    """Of two points 2 units apart, one is off by 1e-4."""
    circle = Circle([offset * unit, 0.0], unit)
    data = np.array([[offset + 1.0, 0.0], [offset - 1.0, 0.0]]) * unit
    assert lateral_distance(data, data, circle) == pytest.approx([0, 0], abs=1e-9 * unit)
    off = data + [[1e-4 * unit, 0.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="do not lie on it"):
        lateral_distance(off, off, circle)


@pytest.mark.parametrize("distances", [np.zeros((2, 1)), [np.nan, 0.0], [-1.0, 0.0], [np.inf, 0.0]])
def test_a_manifold_with_invalid_distances(distances):
    class Broken:
        def distance(self, X):
            return distances

    with pytest.raises(ValueError, match="Correct its method distance"):
        distance_to_manifold(np.zeros((2, 2)), Broken())
    with pytest.raises(TypeError, match="no method distance"):
        distance_to_manifold(np.zeros((2, 2)), np.zeros((5, 2)))


# --- Copies ---


def test_memorization_on_a_line():
    result = memorization([[0.0], [1.0], [3.0], [12.0], [10.0]], [[0.0], [4.0], [10.0]])
    assert_allclose(result.ratio, [0, 1 / 3, 1 / 3, 2 / 8, 0])
    assert_array_equal(result.nearest, [0, 0, 1, 2, 2])
    # A third is not below a third.
    assert result.share == pytest.approx(3 / 5)
    assert memorization([[1.0]], [[0.0], [4.0]], threshold=0.4).share == 1


def test_equal_training_rows_count_once():
    once = memorization([[0.1]], [[0.0], [4.0]])
    twice = memorization([[0.1]], [[4.0], [0.0], [-0.0], [0.0]])
    assert twice.ratio == once.ratio
    assert twice.nearest == [1]
    with pytest.raises(ValueError, match="1 distinct row among 2"):
        memorization([[0.0]], [[1.0], [1.0]])


@pytest.mark.parametrize("k", [1, 2, 5])
def test_memorization_ratio_of_fresh_rows(k):
    """P(ratio < t) is t^k where the density is flat: 4000 rows, five standard errors of the share.

    The data fill a larger cube than the queries, so that the boundary has no influence.
    """
    rng = np.random.RandomState(0)
    side = (4000 if k < 5 else 20_000) ** (1 / k)
    data = rng.uniform(-0.2 * side, 1.2 * side, size=(int(side**k * 1.4**k), k))
    result = memorization(rng.uniform(0, side, size=(4000, k)), data, threshold=0.7)
    expected = 0.7**k
    assert result.share == pytest.approx(
        expected, abs=5 * np.sqrt(expected * (1 - expected) / 4000)
    )


def test_copies_are_reported():
    data, reference = rows(60, 3), rows(60, 3, seed=1)
    report = memorization_report(np.concatenate([data, reference[:20]]), data, reference)
    assert report.copies == 60 / 80
    assert report.ratio >= report.copies
    # Three held-out rows of 60 are nearer to the data than 5 %.
    assert 60 / 80 <= report.near <= 63 / 80
    # Copies in the draws are nearest to training rows; twenty held-out rows of 60 are draws, too.
    assert report.attack == pytest.approx(0.5 * (1 / 3) + 2 / 3)


def test_area_under_the_curve_against_a_loop_and_scikit_learn():
    rng = np.random.RandomState(0)
    small, large = rng.randint(0, 9, 30).astype(float), rng.randint(0, 12, 40).astype(float)
    won = (small[:, None] < large) + 0.5 * (small[:, None] == large)
    area, error = novelty_module._area_under_curve(small, large)
    truth = np.repeat([0, 1], [30, 40])
    assert area == pytest.approx(roc_auc_score(truth, np.concatenate([small, large])), rel=1e-12)
    expected = won.mean(axis=1).var(ddof=1) / 30 + won.mean(axis=0).var(ddof=1) / 40
    assert error == pytest.approx(np.sqrt(expected), rel=1e-12)


def test_reports_of_fresh_rows_have_the_stated_errors():
    """200 reports of rows of one distribution; their errors in units of the stated ones have size one.

    Five standard errors of a standard deviation of 200 values are 0.25, of a mean 0.35.
    """
    rng = np.random.RandomState(0)
    errors = []
    for _ in range(200):
        some = memorization_report(*rng.normal(size=(3, 80, 2)))
        near, attack = some.near - some.level, some.attack - 0.5
        errors.append((near / some.near_error, attack / some.attack_error))
    assert_allclose(np.std(errors, axis=0), 1, atol=0.25)
    assert_allclose(np.mean(errors, axis=0), 0, atol=0.35)


# --- Coverage ---


def test_coverage_at_scales(tile_size):
    X, reference = rows(20, 2), rows(30, 2, seed=1)
    nearest = all_distances(reference, X).min(axis=1)
    radii = np.array([[0.0, 0.1], [0.5, 10.0]])
    expected = (nearest[:, None, None] <= radii).mean(axis=0)
    assert_array_equal(coverage_at_scale(X, reference, radii), expected)
    value = coverage_at_scale(X, reference, 0.5)
    assert isinstance(value, float)
    assert value == expected[1, 0]
    # The ball is closed.
    assert coverage_at_scale([[0.0]], [[1.0]], 1.0) == 1


def slow_coverage_scale(X, reference, alpha, c):
    """The definition, at all radii where anything can change, from the largest down."""
    n, m = len(X), len(reference)
    to_x, to_reference = all_distances(reference, X), all_distances(reference, reference)
    scales = []
    for j in range(m):
        radii = np.unique(np.concatenate([[0.0], to_x[j], to_reference[j]]))
        good = [
            np.sum(to_x[j] <= r) / n >= c * np.sum(to_reference[j] <= r) / m - 1e-12 for r in radii
        ]
        # Balls change at these radii only: the scale is the one after the last that is too light.
        light = np.flatnonzero(~np.array(good))
        scales.append(radii[light[-1] + 1] if len(light) else 0.0)
    candidates = [s for s in scales if np.mean(np.array(scales) <= s) >= 1 - alpha - 1e-12]
    return min(candidates)


@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(1, 2),
    on_grid=st.booleans(),
    alpha=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]),
    c=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=300, deadline=None)
def test_coverage_scale_against_its_definition(n, m, d, on_grid, alpha, c, seed):
    """On a grid there are rows that coincide, and equal distances."""
    X, reference = rows(n, d, seed), rows(m, d, seed + 1)
    if on_grid:
        X, reference = np.round(X), np.round(reference)
    result = coverage_scale(X, reference, alpha=alpha, c=c)
    assert result == pytest.approx(slow_coverage_scale(X, reference, alpha, c), rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    # A uniform distribution with a hole of width w = 0.2 in its middle: balls about points near the
    # middle have half of their mass from the radius w / (2 (1 - c (1 - w))) = 1/6 on; about a point at a
    # distance e >= 1/15 from the middle from (1/2 - 5 e) on; outside of the hole from zero on.
    [(0.0, 1 / 6), (0.1, 1 / 6), (0.15, 0.125), (0.18, 0.05), (0.21, 0.0)],
)
def test_coverage_scale_of_a_hole(alpha, expected):
    """The spacing is 1/2000; the closed form is for continuous distributions, up to a few spacings."""
    reference = (np.arange(2000)[:, None] + 0.5) / 2000
    X = reference[np.abs(reference[:, 0] - 0.5) > 0.1]
    assert coverage_scale(X, reference, alpha=alpha) == pytest.approx(expected, abs=4e-3)


def test_coverage_scale_of_a_missing_mode():
    reference = np.repeat([[0.0], [7.0]], [30, 70], axis=0)
    X = np.zeros((10, 1))
    assert coverage_scale(X, reference, alpha=0.69) == 7
    # In floating point 100 (1 - 0.7) is above 30, but 30 rows are enough.
    assert coverage_scale(X, reference, alpha=0.7) == 0


def test_coverage_scale_of_the_reference_is_zero(tile_size):
    X = rows(50, 3)
    assert coverage_scale(X[::-1], X, alpha=0, c=1) == 0
    # All rows twice are the same distribution.
    assert coverage_scale(np.repeat(X, 2, axis=0), X, alpha=0, c=1) == 0


def test_coverage_scales_are_the_same_for_any_tiles(tile_size):
    X, reference = rows(40, 2), rows(50, 2, seed=1)
    expected = slow_coverage_scale(X, reference, 0.2, 0.7)
    assert coverage_scale(X, reference, alpha=0.2, c=0.7) == pytest.approx(expected, rel=1e-12)


# --- What all metrics of two sets of rows share ---

PAIRS = {
    "distance_to_data": distance_to_data,
    "memorization": memorization,
    "memorization_report": lambda X, Y: memorization_report(X, Y, X),
    "coverage_at_scale": lambda X, Y: coverage_at_scale(X, Y, 1.0),
    "coverage_scale": coverage_scale,
    "classifier_two_sample_test": lambda X, Y: metrics.classifier_two_sample_test(
        X, Y, random_state=0
    ),
    "fidelity_and_diversity": metrics.fidelity_and_diversity,
}
all_pairs = pytest.mark.parametrize("metric", PAIRS.values(), ids=PAIRS)


def values(result):
    """The numbers of a result, whatever it is."""
    return [
        np.asarray(v) for v in (vars(result).values() if hasattr(result, "__dict__") else [result])
    ]


@all_pairs
def test_data_frames_lists_and_readonly_arrays(metric):
    X, Y = rows(12, 2), rows(14, 2, seed=1)
    kept = X.copy(), Y.copy()
    X.flags.writeable = Y.flags.writeable = False
    expected = values(metric(X, Y))
    frames = [pd.DataFrame(Z, columns=["a", "b"]) for Z in (X, Y)]
    for pair in (frames, (X.tolist(), Y.tolist()), (np.asfortranarray(X), Y[::-1][::-1])):
        for value, same in zip(values(metric(*pair)), expected, strict=True):
            assert_allclose(value, same, rtol=1e-12)
    assert_array_equal(X, kept[0])
    assert_array_equal(Y, kept[1])
    with pytest.raises(ValueError, match="same names in the same order"):
        metric(frames[0], frames[1][["b", "a"]])


@all_pairs
@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (np.full((12, 2), np.nan), "24 values that are NaN"),
        (np.full((12, 2), 1e200), "above 1e\\+150"),
        (np.zeros(12), r"shape \(12,\); expected \(n, d\)"),
        (np.zeros((0, 2)), "at least"),
        (np.zeros((12, 3)), "columns"),
        ([["a", "b"]] * 12, "not numeric"),
        (np.zeros((12, 2), dtype=complex), "not numeric"),
    ],
)
def test_rows_that_do_not_fit(metric, broken, match):
    X = rows(12, 2)
    for pair in ((X, broken), (broken, X)):
        with pytest.raises(ValueError, match=match):
            metric(*pair)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.classifier_two_sample_test,
        lambda X, Y: metrics.classifier_two_sample_test(X, Y, cv=2, n_permutations=2),
    ],
)
def test_metrics_do_not_use_the_global_random_state(metric):
    of_numpy = check_random_state(None)
    _name, keys, *place = of_numpy.get_state()
    metric(rows(12, 2), rows(14, 2, seed=1))
    assert of_numpy.get_state()[2:] == tuple(place)
    assert_array_equal(of_numpy.get_state()[1], keys)


@all_pairs
def test_metrics_of_large_numbers_are_finite(metric):
    for scale in (1e-140, 1e140):
        for value in values(metric(scale * rows(12, 2), scale * rows(14, 2, seed=1))):
            assert np.all(np.isfinite(value))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda X: memorization(X, X, threshold=0.0), ValueError, "threshold=0.0"),
        (lambda X: memorization(X, X, threshold=2), ValueError, "threshold=2"),
        (lambda X: coverage_scale(X, X, alpha=1.0), ValueError, "alpha=1.0"),
        (lambda X: coverage_scale(X, X, c=0), ValueError, "c=0"),
        (lambda X: coverage_scale(X, X, c="a"), TypeError, "c='a'"),
        (lambda X: coverage_at_scale(X, X, -1.0), ValueError, "radius=-1.0"),
        (lambda X: coverage_at_scale(X, X, [1.0, np.inf]), ValueError, "radius="),
        (lambda X: metrics.fidelity_and_diversity(X, X, n_neighbors=12), ValueError, "at least 13"),
        (
            lambda X: metrics.classifier_two_sample_test(X, X, n_permutations=0),
            ValueError,
            "n_permutations=0",
        ),
        (
            lambda X: metrics.classifier_two_sample_test(X, X, random_state="x"),
            TypeError,
            "random_state='x'",
        ),
        (lambda X: metrics.classifier_two_sample_test(X, X, cv=1), ValueError, "cv=1"),
        (lambda X: metrics.classifier_two_sample_test(X, X, cv=20), ValueError, "cv=20 folds"),
    ],
)
def test_parameters_out_of_range(call, error, match):
    with pytest.raises(error, match=match):
        call(rows(12, 2))


@pytest.mark.parametrize(
    ("distances", "n_valid"), [([1.0, np.nan, -1.0], 1), ([np.inf, 0.0, 2.0], 2), ([1.0, 2.0], 2)]
)
def test_wrong_distances_of_a_manifold_are_counted(distances, n_valid):
    manifold = SimpleNamespace(distance=lambda X: np.array(distances))
    with pytest.raises(ValueError, match=f"of which {n_valid} are finite and >= 0"):
        distance_to_manifold(np.zeros((3, 2)), manifold)


def test_a_copy_of_the_only_row_is_on_the_manifold():
    """Where the extent of the data and all distances are zero, nothing is too far."""
    line = AffineSubspace([[0.0, 1.0]], [0.0])
    np.testing.assert_array_equal(lateral_distance([[3.0, 0.0]], [[3.0, 0.0]], line), [0.0])
