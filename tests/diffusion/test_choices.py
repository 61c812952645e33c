"""Choices among candidates, by hand: which are compared, which is best, and in what order."""

from dataclasses import replace

import numpy as np
import pytest
from likelihood_problems import parsed, rows_of
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from skdiffsmooth._coordinates.columns import ColumnSpace
from skdiffsmooth._coordinates.metric import candidate_metrics, is_warped, warped
from skdiffsmooth._diffusion import comparison
from skdiffsmooth._diffusion.comparison import (
    Comparison,
    Settings,
    choose_settings,
    folds_for_metrics,
    likely_metrics,
    metrics_to_compare,
    settings_for,
)
from skdiffsmooth._diffusion.settings import Relative
from skdiffsmooth.kernels import AnisotropicGaussianKernel
from skdiffsmooth.solvers import Heun, Multistep

ROWS = np.random.default_rng(0).normal(size=(20, 2)) * [1.0, 3.0]
DATA = rows_of(ROWS)


@pytest.mark.parametrize(
    ("params", "n_always", "n_wider", "n_narrower"),
    [
        ({}, 2, 3, 1),
        ({"bandwidth": 0.5}, 1, 3, 2),
        ({"bandwidth": "1h"}, 1, 3, 2),
        ({"sigma": 0.5}, 1, 1, 2),
        ({"sigma": "1h"}, 1, 1, 2),
        ({"sigma": 0.0}, 1, 0, 0),
        ({"bandwidth": 0.5, "sigma": 0.5}, 1, 0, 0),
    ],
)
def test_numbers_of_candidates(params, n_always, n_wider, n_narrower):
    always, wider, narrower = comparison._candidates(parsed(**params))
    assert (len(always), len(wider), len(narrower)) == (n_always, n_wider, n_narrower)
    # They are in the order in which the factor of the free scales grows, and falls.
    free = 1 if "sigma" not in params else 0
    ordered = [each[free] for each in wider]
    assert ordered == sorted(ordered)
    assert [each[free] for each in narrower] == sorted(each[free] for each in narrower)[::-1]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({}, ["metric", "bandwidth", "sigma", "background"]),
        ({"metric": "scaled", "sigma": 0.0}, ["bandwidth", "background"]),
        ({"bandwidth": 0.5, "sigma": "1h", "background": 0.0}, ["metric"]),
        ({"bandwidth": 0.5, "sigma": 0.5, "background": 0.1, "metric": "scaled"}, []),
    ],
)
def test_parameters_that_are_left_at_auto(params, names):
    assert comparison._left_at_auto(parsed(**params)) == names


def test_of_equal_scores_the_first_is_best():
    assert comparison._likeliest([1.0, 2.0, 3.0]) == 2
    assert comparison._likeliest([3.0, 3.0 + 1e-9, 1.0]) == 0
    assert comparison._likeliest([3.0, 3.0 + 1e-8, 1.0]) == 1
    assert comparison._likeliest([-3.0 - 1e-9, -3.0]) == 0
    assert comparison._likeliest([-3.0 - 1e-8, -3.0]) == 1
    assert comparison._likeliest([-np.inf, -2.0]) == 1
    assert comparison._likeliest([0.0, 0.0]) == 0


PLAIN = ("scaled", 0.25, 0.5, "local")
BOTH = (*PLAIN, *map(warped, PLAIN))


@pytest.mark.parametrize(
    ("scores", "likely", "n_scored"),
    [
        ([1.0, 0.0, 0.9, 0.8, -9.0, -9.0, -9.0, -9.0], [0, 2, 3], 6),
        ([1.0, 0.95, 0.9, 0.8, -9.0, 9.0, 9.0, -9.0], [0, 1, 2], 6),  # others are not scored
        ([0.0, 9.0, 9.0, 0.0, 1.0, 0.7, 0.6, 0.5], [4, 5], 6),  # within 0.3 of the best
        ([0.0, 9.0, 9.0, 0.0, -1.0, 0.7, 0.69, 0.9], [5, 6, 7], 6),
        ([0.0, 9.0, 9.0, 0.0, -1.0, 0.599, 0.69, 0.9], [6, 7], 6),
    ],
)
def test_kinds_of_metrics_are_compared_by_their_ends(scores, likely, n_scored):
    asked = []

    def score(indices):
        asked.extend(indices)
        return [scores[k] for k in indices]

    assert likely_metrics(BOTH, score) == likely
    assert len(asked) == len(set(asked)) == n_scored
    assert set(asked[:4]) == {0, 3, 4, 7}


def test_a_single_kind_of_metric_is_compared_in_full():
    assert likely_metrics(PLAIN[:1], lambda some: [0.0 for _ in some]) == [0]
    assert likely_metrics(PLAIN[:2], lambda some: [0.0 for _ in some]) == [0, 1]
    scores = dict(enumerate([0.0, 3.0, 2.9, -1.0]))
    assert likely_metrics(PLAIN, lambda some: [scores[k] for k in some]) == [1, 2]


@pytest.mark.parametrize(
    ("n", "n_features", "n_folds"),
    [
        (3, 1, 3),  # as many folds as rows, and five at most
        (20, 1, 5),
        (21, 1, 0),  # more than 20 rows a column
        (40, 2, 5),
        (41, 2, 0),
        (288, 12, 5),  # two rows a pair of columns
        (289, 12, 0),
    ],
)
def test_metrics_of_few_rows_are_compared_by_folds(n, n_features, n_folds):
    points = np.random.default_rng(0).normal(size=(n, n_features))
    columns = ColumnSpace.plain(n_features)
    folds = folds_for_metrics(points, columns)
    if not n_folds:
        assert folds is None
        return
    assert len(folds) == n_folds
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(n))
    for train, test in folds:
        assert (np.diff(train) > 0).all()
        assert (np.diff(test) > 0).all()
        assert sorted([*train, *test]) == list(range(n))


def test_folds_are_the_same_rows_in_any_order():
    points = np.random.default_rng(0).normal(size=(15, 2))
    columns = rows_of(points).columns
    order = np.random.default_rng(1).permutation(15)
    pairs = zip(
        folds_for_metrics(points, columns), folds_for_metrics(points[order], columns), strict=True
    )
    for (_, test), (_, other) in pairs:
        assert set(test.tolist()) == set(order[other].tolist())


def test_some_rows_are_taken_evenly():
    assert comparison._some_rows(DATA, 20) is DATA
    few = comparison._some_rows(DATA, 7)
    assert (few.points == ROWS[DATA.evenly(7)]).all()
    assert few.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("d", "n_levels", "solver"), [(10, 6, Multistep()), (11, 5, Heun())])
def test_screening_takes_few_nodes_and_levels(d, n_levels, solver):
    few = comparison._for_screening(parsed(tol=0.1, n_nodes=4, background=0.3), d)
    assert (few.rule.n_nodes, few.n_levels, few.n_steps) == (32, n_levels, n_levels)
    assert (few.solver, few.tol, few.background) == (solver, None, 0.0)


@pytest.mark.parametrize(
    ("params", "metrics", "reason"),
    [
        ({"metric": 0.5}, (0.5,), ""),
        ({}, candidate_metrics(2), ""),
        ({"bandwidth": 0.5, "sigma": 0.5}, ("euclidean",), "are numbers, in units of X"),
        ({"bandwidth": 0.5}, ("euclidean", *candidate_metrics(2)), ""),
        ({"terminal_scale": 9.0}, ("euclidean",), "terminal_scale is a number"),
    ],
)
def test_metrics_that_are_compared(params, metrics, reason):
    found, why = metrics_to_compare(parsed(**params), DATA)
    assert found == metrics
    assert reason in why
    assert bool(reason) == bool(why)


def test_metrics_of_mapped_columns_circles_and_shapes():
    skewed = rows_of(np.exp(2 * np.random.default_rng(0).normal(size=(60, 2))))
    found, _ = metrics_to_compare(parsed(), skewed)
    plain = [metric for metric in found if not is_warped(metric)]
    assert tuple(plain) == candidate_metrics(2)
    assert len(found) > len(plain)
    shaped = parsed(kernel=AnisotropicGaussianKernel("data"))
    assert metrics_to_compare(shaped, DATA) == (
        ("euclidean",),
        "kernel and rows allow 'euclidean' only",
    )
    circle = rows_of(
        np.column_stack([ROWS[:, 0], np.linspace(0, 5, 20)]), periods=np.array([0.0, 6.0])
    )
    assert metrics_to_compare(parsed(), circle)[0] == ("scaled", "local")
    angles = rows_of(np.linspace(0, 5, 20)[:, None], periods=np.array([6.0]))
    assert metrics_to_compare(parsed(1), angles)[0] == candidate_metrics(0)


@pytest.mark.parametrize(
    ("params", "points", "reason"),
    [
        ({"base": GaussianMixture(1)}, ROWS, "a base has covariances of its own"),
        ({"bandwidth": 0.5, "sigma": 0.5}, ROWS, "are numbers, in units of X"),
        ({"bandwidth": 0.5}, ROWS[:1], "fewer than two distinct rows"),
    ],
)
def test_settings_that_are_not_compared(params, points, reason):
    chosen, geometry, reasons = settings_for(rows_of(points), parsed(**params))
    assert chosen.metric == "euclidean"
    assert chosen.background == 0.0
    assert (geometry.data.points == points).all()
    assert set(reasons) == set(comparison._left_at_auto(parsed(**params)))
    assert all(reason in why for why in reasons.values())
    given = params | {"background": 0.1, "metric": "scaled"}
    if "base" in params:
        with pytest.raises(ValueError, match=r"takes neither metric='scaled' nor background=0\.1"):
            settings_for(rows_of(points), parsed(**given))
        with pytest.raises(ValueError, match=r"background=0\.1"):
            settings_for(rows_of(points), parsed(**params, background=0.1))
        assert settings_for(rows_of(points), parsed(**params, metric="euclidean", background=0.0))
    else:
        chosen, _, reasons = settings_for(rows_of(points), parsed(**given))
        assert (chosen.metric, chosen.background) == ("scaled", 0.1)


def test_settings_as_parameters():
    auto, numbers = parsed(), parsed(bandwidth=0.5, sigma=0.7)
    chosen = Settings("scaled", (Relative(0.85), Relative(1.5)), 0.02)
    assert chosen.parameters(auto) == {
        "metric": "scaled",
        "bandwidth": "0.85h",
        "sigma": "1.5h",
        "background": 0.02,
    }
    chosen = Settings(0.5, (0.5, 0.7), 0.0)
    assert chosen.parameters(numbers)["bandwidth"] == 0.5
    assert chosen.parameters(numbers)["sigma"] == 0.7
    # While metrics are compared sigma is 0, whatever was passed.
    assert Settings(0.5, (0.5, 0.0), 0.0).parameters(numbers)["sigma"] == 0.0
    windows = parsed(base="parzen")
    chosen = Settings("euclidean", (Relative(1.0), Relative(1.0)), 0.0)
    assert chosen.parameters(windows)["bandwidth"] == "auto"


def test_what_is_given_is_not_compared(monkeypatch):
    monkeypatch.setattr(Comparison, "score", None)
    settings = parsed(bandwidth=0.5, sigma="1h", background=0.1, metric="scaled")
    chosen, geometry = choose_settings(DATA, settings, ("scaled",))
    assert chosen == Settings("scaled", (0.5, Relative(1.0)), 0.1)
    assert geometry.data is DATA


def scored_by(monkeypatch, value):
    """Let `value(metric, scales)` be the score of candidates; return those that are scored."""
    tried = []

    def score(self, index, scales, *, is_screening):
        assert is_screening
        metric = self.metrics[index]
        tried.append((metric, scales, len(self.data.points), self.leaves_one_out))
        return value(metric, scales), Settings(metric, scales, 0.02), []

    monkeypatch.setattr(Comparison, "score", score)
    return tried


def test_metrics_come_first_then_scales_in_the_best(monkeypatch):
    values = {"scaled": 0.0, 0.5: 0.2, "local": 0.1}
    tried = scored_by(monkeypatch, lambda metric, scales: values[metric])
    chosen, geometry = choose_settings(DATA, parsed(), ("scaled", 0.5, "local"))
    # Of equal candidates the first is chosen.
    assert chosen == Settings(0.5, (Relative(0.85), Relative(1.5)), 0.02)
    assert geometry.data is DATA
    kde = (Relative(1.0), 0.0)
    default = (Relative(0.85), Relative(1.5))
    assert [each[:2] for each in tried[:3]] == [("scaled", kde), ("local", kde), (0.5, kde)]
    assert [each[:2] for each in tried[3:6]] == [(k, default) for k in values]
    assert {metric for metric, *_ in tried[6:]} == {0.5}
    # 20 rows of two columns: metrics by folds, scales by leaving out single rows.
    assert [each[3] for each in tried[:6]] == [False] * 6
    assert all(each[3] for each in tried[6:])


def test_candidates_stop_where_the_likelihood_falls(monkeypatch):
    scored_by(monkeypatch, lambda metric, scales: -abs(scales[1].factor - 2.0))
    tried = scored_by(monkeypatch, lambda metric, scales: -abs(scales[1].factor - 2.0))
    chosen, _ = choose_settings(DATA, parsed(bandwidth="1h"), ("scaled",))
    assert chosen.scales == (Relative(1.0), Relative(2.0))
    # The default, wider ones until it falls, and no narrower ones since wider was better.
    assert [scales[1].factor for _, scales, *_ in tried] == [1.5, 2.0, 3.0]
    tried = scored_by(monkeypatch, lambda metric, scales: -abs(scales[1].factor - 1.0))
    chosen, _ = choose_settings(DATA, parsed(bandwidth="1h"), ("scaled",))
    assert chosen.scales == (Relative(1.0), Relative(1.0))
    assert [scales[1].factor for _, scales, *_ in tried] == [1.5, 2.0, 1.0, 0.5]


def test_large_tables_are_compared_by_some_of_their_rows(monkeypatch):
    monkeypatch.setattr(comparison, "MOST_ROWS", 15)
    monkeypatch.setattr(comparison, "_MOST_ROWS_FOR_METRICS", 10)
    tried = scored_by(monkeypatch, lambda metric, scales: 0.0)
    _, geometry = choose_settings(DATA, parsed(), ("scaled", 0.5))
    sizes = [n for _, _, n, _ in tried]
    assert sizes[:4] == [10] * 4
    assert set(sizes[4:]) == {15}
    assert geometry.data is DATA


def test_the_euclidean_metric_is_compared_for_a_given_scale(monkeypatch):
    values = {"euclidean": -9.0, "scaled": 0.0, 0.5: -9.0, "local": -9.0}
    tried = scored_by(monkeypatch, lambda metric, scales: values[metric])
    choose_settings(DATA, parsed(bandwidth=0.5), ("euclidean", "scaled", 0.5, "local"))
    # The KDE of the given bandwidth first; then the likely metric, and the Euclidean one.
    assert tried[0][1] == (0.5, 0.0)
    after = [metric for metric, scales, *_ in tried if scales == (0.5, Relative(1.5))]
    assert after[:2] == ["euclidean", "scaled"]


@pytest.mark.parametrize(("bandwidth", "sigma"), [(1e-20, 0.1), (1e160, 0.1), (0.5, 1e160)])
def test_scales_beyond_rounding_or_range_are_no_candidates(bandwidth, sigma):
    compared = Comparison(parsed(background=0.0), DATA, ("euclidean",))
    value, settings, means = compared.score(0, (bandwidth, sigma), is_screening=True)
    assert value == -np.inf
    assert settings == Settings("euclidean", (bandwidth, sigma), 0.0)
    assert means == [-np.inf]


def test_scores_are_weighted_means_of_left_out_rows():
    weights = np.random.default_rng(0).dirichlet(np.ones(20))
    data = replace(DATA, weights=weights)
    compared = Comparison(parsed(background=0.0), data, ("euclidean",))
    value, _, means = compared.score(0, (0.7, 0.0), is_screening=True)
    squares = ((ROWS[:, None] - ROWS) ** 2).sum(axis=2) / (2 * 0.49)
    kernels = weights * np.exp(-squares) / (2 * np.pi * 0.49)
    left_out = (kernels.sum(axis=1) - np.diag(kernels)) / (1 - weights)
    assert value == pytest.approx(weights @ np.log(left_out))
    assert_allclose(means, [value])
    # By folds: each mean is that of its rows, under the others.
    folds = [(np.arange(5, 20), np.arange(5)), (np.arange(5), np.arange(5, 20))]
    compared = Comparison(parsed(background=0.0), data, ("euclidean",), folds)
    value, _, means = compared.score(0, (0.7, 0.0), is_screening=True)
    expected = []
    for train, test in folds:
        density = kernels[test][:, train].sum(axis=1) / weights[train].sum()
        expected.append(np.average(np.log(density), weights=weights[test]))
    assert_allclose(means, expected)
    shares = [weights[test].sum() for _, test in folds]
    assert value == pytest.approx(np.dot(shares, expected))


def test_screening_scores_some_rows_and_stores_folds():
    compared = Comparison(parsed(), DATA, ("euclidean", "scaled"), most_judges=7)
    (fold,) = compared.prepare(0, is_screening=True)
    assert (fold.held_out.recorded == ROWS[DATA.evenly(7)]).all()
    assert compared.prepare(0, is_screening=True)[0] is fold
    (full,) = compared.prepare(0, is_screening=False)
    assert full.held_out.recorded.shape == ROWS.shape
    assert full.geometry is fold.geometry
    (other,) = compared.prepare(1, is_screening=True)
    assert other.geometry.metric is not fold.geometry.metric


def test_bandwidths_of_later_folds_start_from_the_first(monkeypatch):
    starts = []

    def best(geometry, parsed, *, is_screening, near):
        starts.append(near)
        return 0.5 + len(starts)

    monkeypatch.setattr("skdiffsmooth._diffusion.held_out.leave_one_out_bandwidth", best)
    folds = [(np.arange(5, 20), np.arange(5)), (np.arange(15), np.arange(15, 20))]
    compared = Comparison(parsed(), DATA, ("euclidean",), folds)
    assert [fold.h for fold in compared.prepare(0, is_screening=True)] == [1.5, 2.5]
    assert starts == [None, 1.5]
    assert [fold.h for fold in compared.prepare(0, is_screening=False)] == [3.5, 4.5]
    assert starts[2:] == [None, None]
