"""Functions of the background by hand: its weight, its parts, and the choice of its tail."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import norm

from skdiffsmooth._coordinates.columns import ColumnSpace
from skdiffsmooth._coordinates.embedding import Embedding
from skdiffsmooth._coordinates.metric import fit_metric
from skdiffsmooth._diffusion.background import (
    BREAKS_RELATIONS,
    background_weight,
    choose_tail,
    mixed,
    part_weights,
    tail_log_density,
)
from skdiffsmooth._diffusion.background import _tail_index as tail_index
from skdiffsmooth._diffusion.tails import StudentT
from skdiffsmooth._utils.shards import ONE_PROCESS

PARTS = np.log([[0.5, 0.25, 0.01], [0.001, 0.2, 0.3], [1e-8, 1e-6, 0.1], [0.4, 0.3, 0.2]])


@pytest.mark.parametrize(
    ("background", "tail", "heavy"),
    [
        (0.1, 0.5, 0.05),  # the fraction itself
        (0.1, 0.0, 0.005),  # at least 0.05 of the background
        (0.1, 1.0, 0.081),  # the KDE keeps 0.95 * 0.02
        (0.02, 1.0, 0.001),  # of the least background both bounds are the same
        (0.01, 1.0, 0.0005),
        (0.9, 0.95, 0.855),
    ],
)
def test_weights_of_the_parts(background, tail, heavy):
    weights = part_weights(background, tail)
    assert_allclose(weights, [1 - background, background - heavy, heavy], rtol=1e-12)


def test_mixtures_are_sums_of_densities():
    expected = np.log(np.exp(PARTS) @ [0.7, 0.3 - 0.06, 0.06])
    assert_allclose(mixed(PARTS, 0.3, 0.2), expected)
    assert_allclose(mixed(PARTS, 0.3, np.full(4, 0.2)), expected)
    assert (mixed(PARTS, 0.0, 0.2) == PARTS[:, 0]).all()


@pytest.mark.parametrize("tail", [0.3, np.array([0.1, 0.2, 0.3, 0.9])])
@pytest.mark.parametrize("rows_at_once", [3, 4096])
def test_the_weight_of_the_background_has_the_highest_likelihood(monkeypatch, tail, rows_at_once):
    monkeypatch.setattr("skdiffsmooth._diffusion.background._ROWS_AT_ONCE", rows_at_once)
    weights = np.array([0.6, 0.2, 0.1, 0.1])
    grid = np.geomspace(0.02, 0.9, 401)
    best = grid[np.argmax([weights @ mixed(PARTS - 500, b, tail) for b in grid])]
    assert 0.05 < best < 0.8
    assert background_weight(PARTS - 500, tail, weights) == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize(("likely", "expected"), [(0, 0.02), (1, 0.9), (2, 0.9)])
def test_the_weight_of_the_background_is_bounded(likely, expected):
    parts = np.full((5, 3), -np.inf)
    parts[:, likely] = -1.0
    tail = 0.95 if likely == 2 else 0.05
    assert background_weight(parts, tail, np.full(5, 0.2)) == pytest.approx(expected, rel=1e-9)


def hills_estimate(distances, weights):
    """The mean of log(distance / next distance), by a loop over the rows that are farthest out."""
    rows = sorted(zip(distances, weights, strict=True), key=lambda row: -row[0])
    far, total = [], 0.0
    for distance, weight in rows:
        total += weight
        if total > 0.15:
            return sum(w * np.log(d / distance) for d, w in far) / sum(w for _, w in far)
        far.append((distance, weight))
    raise AssertionError


def test_tail_index_is_hills_estimate():
    rng = np.random.default_rng(0)
    distances, weights = rng.pareto(2.0, 40), rng.dirichlet(np.ones(40))
    assert tail_index(distances, weights) == pytest.approx(hills_estimate(distances, weights))
    equal = np.full(40, 1 / 40)
    assert tail_index(distances, equal) == pytest.approx(hills_estimate(distances, equal))


def test_tail_index_of_few_or_extreme_rows():
    assert tail_index(np.array([1.0, 2.0]), np.array([0.5, 0.5])) == 0.0  # no row is within 15 %
    weights = np.array([0.15, 0.85])  # exactly 15 % are far out
    assert tail_index(np.array([2.0, 1.0]), weights) == pytest.approx(np.log(2))
    weights = np.full(10, 0.1)
    huge = np.append(1e300, np.full(9, 1e-300))
    assert tail_index(huge, weights) == pytest.approx(600 * np.log(10))
    on_the_center = np.append(1.0, np.zeros(9))
    assert tail_index(on_the_center, weights) == pytest.approx(-np.log(np.finfo(float).tiny))


def students(*degrees, p=1):
    return [StudentT(np.zeros(p), np.eye(p), nu) for nu in degrees]


def em(densities, weights):
    """Weights of highest likelihood of a mixture, by 200 steps of EM at most, row by row."""
    mixture = np.full(3, 1 / 3)
    for _ in range(200):
        new = np.zeros(3)
        for row, weight in zip(densities, weights, strict=True):
            new += weight * mixture * row / (mixture @ row)
        change, mixture = np.abs(new - mixture).sum(), new
        if change < 1e-6:
            break
    return mixture, float(weights @ np.log(densities @ mixture))


def far_rows(n_far, n=60):
    """Rows of a normal distribution, some four times as wide, and some far out; two KDEs of them."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=n - n_far), 60.0 + np.arange(n_far)])
    x[:10] *= 4
    kdes = np.column_stack([norm.logpdf(x), norm.logpdf(x, scale=4.0)])
    return x, kdes, np.full(n, 1 / n)


@pytest.mark.parametrize("shift", [0.0, -2000.0])
@pytest.mark.parametrize(("n_far", "index"), [(0, 1), (1, 0), (6, 0)])
def test_a_heavier_tail_must_gain_four_nats(n_far, index, shift):
    x, kdes, weights = far_rows(n_far)
    candidates = students(4.0, 8.0)
    log_densities = np.column_stack([each.log_density(x[:, None]) for each in candidates])
    fits = [em(np.exp(np.column_stack([kdes, each])), weights) for each in log_densities.T]
    assert (len(weights) * (fits[0][1] - fits[1][1]) > 4.0) == (index == 0)
    tail = choose_tail(candidates, log_densities + shift, kdes + shift, np.abs(x[:, None]), weights)
    assert tail.student is candidates[index]
    mixture = fits[index][0]
    share = mixture[2] / (mixture[1] + mixture[2])
    assert tail.weight == pytest.approx(np.clip(share, 0.05, 0.95), rel=1e-3)


def test_a_gain_counts_all_rows_together():
    n = 60
    kdes = np.full((n, 2), -1e3)
    for gain, index in ((3.9, 1), (4.1, 0)):
        # With few likelihoods under the KDEs the score is that of the t distribution.
        log_densities = np.column_stack([np.full(n, gain / n), np.zeros(n)])
        candidates, weights = students(4.0, 8.0), np.full(n, 1 / n)
        tail = choose_tail(candidates, log_densities, kdes, np.ones((n, 2)), weights)
        assert tail.student is candidates[index]


def test_tails_without_a_variance_are_for_single_columns_with_far_rows():
    x, kdes, weights = far_rows(15)
    log_densities = np.column_stack([np.zeros(len(x)), np.full(len(x), -50.0)])
    steep = np.column_stack([np.exp(np.arange(len(x)) / 5)] * 2)
    for degrees, p, index in ((1.0, 1, 0), (2.0, 1, 0), (3.0, 1, 0), (2.0, 2, 1), (3.0, 2, 0)):
        candidates = students(degrees, 4.0, p=p)
        tail = choose_tail(candidates, log_densities, kdes, steep, weights)
        assert candidates.index(tail.student) == index
    outside = [StudentT(np.zeros(2), np.eye(2), nu, codimension=1) for nu in (2.0, 4.0)]
    assert choose_tail(outside, log_densities, kdes, steep, weights).student is outside[1]
    # Rows at one distance have no heavy tail, whatever their likelihood.
    candidates = students(1.0, 4.0)
    same = np.ones((len(x), 2))
    assert choose_tail(candidates, log_densities, kdes, same, weights).student is candidates[1]
    # Neither have rows whose tail index is one half or less.
    less = np.sqrt(steep ** (0.4 / tail_index(steep[:, 0], weights)))
    assert tail_index(less[:, 0], weights) == pytest.approx(0.2)
    assert choose_tail(candidates, log_densities, kdes, less, weights).student is candidates[1]


def test_a_single_candidate_is_taken_whatever_its_degrees():
    (only,) = students(1.0)
    x, kdes, weights = far_rows(0)
    distances = np.abs(x)[:, None]
    tail = choose_tail([only], np.full((len(x), 1), -1e4), kdes, distances, weights)
    assert tail.student is only
    assert tail.weight == 0.05  # the least
    unlikely = np.full_like(kdes, -1e4)
    tail = choose_tail([only], np.zeros((len(x), 1)), unlikely, distances, weights)
    assert tail.weight == 0.95  # the most


def test_the_tail_of_related_columns_has_a_small_part_that_breaks_the_relation():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 2))
    points = np.column_stack([points, points.sum(axis=1)])
    weights = np.full(30, 1 / 30)
    columns = ColumnSpace.of_part(points, weights, None, None, ONE_PROCESS)
    assert columns.n_relations == 1
    metric = fit_metric("scaled", points, weights, ONE_PROCESS, columns, 1.0)
    embedding = Embedding(metric, metric.hull_of(metric.to_metric(points), ONE_PROCESS))
    student = StudentT(np.zeros(2), np.eye(2), 4.0)
    rows = points[:3] + [[0.0, 0.0, 0.0], [0.0, 0.0, 1e-3], [0.0, 0.0, 2.0]]
    coordinates, residual = embedding.split(rows)
    outside = columns.outside(residual)
    within = student.log_density(coordinates) + columns.relation_log_density(outside)
    in_all = StudentT(np.zeros(2), np.eye(2), 4.0, 1.0, 1).log_density(coordinates, residual)
    expected = logsumexp(
        [within + np.log1p(-BREAKS_RELATIONS), in_all + np.log(BREAKS_RELATIONS)], axis=0
    )
    found = tail_log_density(student, embedding, coordinates, residual, None)
    assert_allclose(found, expected + metric.log_abs_det)
    # The leave-one-out log-densities that are given replace those of the t distribution.
    given = tail_log_density(
        student, embedding, coordinates, residual, student.log_density(coordinates)
    )
    assert_allclose(given, found)
