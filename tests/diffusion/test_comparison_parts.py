"""Parts of the comparison of settings: scores of folds, backgrounds, reasons, and refusals."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from likelihood_problems import parsed, rows_of
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from skdiffsmooth._diffusion import comparison
from skdiffsmooth._diffusion.background import WIDTH, background_weight, mixed
from skdiffsmooth._diffusion.comparison import Comparison, Settings, settings_for
from skdiffsmooth._diffusion.settings import Relative
from skdiffsmooth._utils.validation import LARGEST
from skdiffsmooth.solvers import Heun, Multistep

RNG = np.random.default_rng(0)


class Fold:
    """A fold of three or two held-out rows, whose log-densities are given."""

    def __init__(self, n, seed, weight=0.0):
        rng = np.random.default_rng(seed)
        self.geometry = SimpleNamespace(kernel=SimpleNamespace(rank=2), number=seed)
        self.h = 0.1 * (seed + 1)
        self.held_out = SimpleNamespace(weights=rng.dirichlet(np.ones(n)) * n)
        self.densities, self.weight = rng.normal(size=(n, 3)) - 3, weight
        self.calls = []

    def kde(self, bandwidth):
        self.calls.append(bandwidth)
        return self.densities[:, 1] - bandwidth

    def parts(self, bandwidth, sigma, settings):
        self.calls.append((bandwidth, sigma, settings))
        tail = SimpleNamespace(weight=self.weight) if settings.background != 0 else None
        return self.densities - bandwidth - sigma, tail


def compared(settings, folds, monkeypatch, least=1e-9):
    """Return a comparison whose folds are given; scales are multiples of each fold's h."""
    own = Comparison(settings, rows_of(RNG.normal(size=(5, 2))), ("euclidean", "scaled"))
    monkeypatch.setattr(own, "prepare", lambda metric_index, *, is_screening: folds)
    monkeypatch.setattr(
        comparison,
        "scales_in",
        lambda geometry, settings, scales, h: (scales[0] * h, scales[1] * h),
    )
    monkeypatch.setattr(comparison, "rounding_error", lambda geometry: least)
    return own


def test_scores_are_weighted_means_over_the_rows_of_all_folds(monkeypatch):
    folds = [Fold(3, 0, 0.2), Fold(2, 1, 0.7)]
    for background in (0.0, 0.3, None):
        own = compared(
            parsed(background="auto" if background is None else background), folds, monkeypatch
        )
        score, settings, means = own.score(1, (2.0, 3.0), is_screening=False)
        weights = np.concatenate([fold.held_out.weights for fold in folds])
        parts = np.concatenate([fold.densities - 5 * fold.h for fold in folds])
        tails = np.array([0.2] * 3 + [0.7] * 2) if background != 0 else np.zeros(5)
        chosen = background
        if background is None:
            chosen = background_weight(parts, tails, weights / weights.sum())
        by_row = mixed(parts, chosen, tails)
        assert score == pytest.approx(np.average(by_row, weights=weights))
        assert settings == Settings("scaled", (2.0, 3.0), chosen)
        expected = [
            np.average(by_row[:3], weights=weights[:3]),
            np.average(by_row[3:], weights=weights[3:]),
        ]
        assert_allclose(means, expected)


def test_screening_mixes_the_tail_chosen_before(monkeypatch):
    folds = [Fold(3, 0), Fold(2, 1)]
    of_tail = [RNG.normal(size=3), RNG.normal(size=2)]
    for background in (0.0, 0.3):
        own = compared(parsed(background=background), folds, monkeypatch)
        requested = []

        def tail(metric_index, scale, bandwidths, requested=requested):
            requested.append((metric_index, scale, bandwidths))
            return of_tail, 0.4

        monkeypatch.setattr(own, "_tail", tail)
        monkeypatch.setattr(
            own, "_screened", lambda fold, h, sigma: fold.densities[:, 0] - h - sigma
        )
        score, settings, _ = own.score(0, (2.0, 3.0), is_screening=True)
        first = np.concatenate([fold.densities[:, 0] - 5 * fold.h for fold in folds])
        expected = first
        if background:
            ((metric_index, scale, bandwidths),) = requested
            assert (metric_index, scale) == (0, 2.0)
            assert_allclose(bandwidths, [2 * fold.h for fold in folds])
            kernels = np.concatenate([fold.densities[:, 1] - WIDTH * 2 * fold.h for fold in folds])
            parts = np.column_stack([first, kernels, np.concatenate(of_tail)])
            expected = mixed(parts, 0.3, 0.4)
        else:
            assert requested == []
        weights = np.concatenate([fold.held_out.weights for fold in folds])
        assert score == pytest.approx(np.average(expected, weights=weights))
        assert settings.background == background


@pytest.mark.parametrize(
    ("scales", "least", "is_refused"),
    [
        ((1.0, 1.0), 0.1, False),  # the smaller bandwidth is 0.1
        ((1.0, 1.0), 0.1 * (1 + 1e-12), True),
        ((LARGEST / 0.2, 1.0), 1e-9, False),
        ((LARGEST / 0.19, 1.0), 1e-9, True),
        ((1.0, LARGEST / 0.2), 1e-9, False),
        ((1.0, LARGEST / 0.19), 1e-9, True),
        ((math.nan, 1.0), 1e-9, True),
    ],
)
def test_scales_out_of_range_are_the_worst(scales, least, is_refused, monkeypatch):
    folds = [Fold(3, 0), Fold(2, 1)]
    for background in (0.25, "auto"):
        own = compared(parsed(background=background), folds, monkeypatch, least)
        monkeypatch.setattr(own, "_screened", lambda fold, h, sigma: np.zeros(len(fold.densities)))
        monkeypatch.setattr(own, "_tail", lambda *_: ([np.zeros(3), np.zeros(2)], 0.5))
        score, settings, means = own.score(0, scales, is_screening=True)
        assert (score == -math.inf) == is_refused
        if is_refused:
            assert means == [-math.inf] * 2
            assert settings.background == (0.25 if background == 0.25 else 0.0)


@pytest.mark.parametrize(
    ("sigma", "terminal", "is_kde"),
    [
        (0.0, "empirical", True),
        (0.1, "empirical", False),
        (0.0, "gaussian", False),
        (lambda x: x, "empirical", False),
    ],
)
def test_without_smoothing_candidates_are_kernel_density_estimates(
    sigma, terminal, is_kde, monkeypatch
):
    fold = Fold(3, 0)
    fold.parts = lambda h, s, settings: (np.full((3, 1), 7.0), None)
    own = compared(parsed(terminal=terminal), [fold], monkeypatch)
    found = own._screened(fold, 0.5, sigma)
    assert_allclose(found, fold.kde(0.5) if is_kde else np.full(3, 7.0))


def test_settings_of_screening():
    settings = parsed(background=0.3, n_steps=40, n_nodes=256, tol=0.01)
    for dimension, n_levels, solver in ((10, 6, Multistep), (11, 5, Heun)):
        found = comparison._for_screening(settings, dimension)
        assert (found.background, found.tol) == (0.0, None)
        assert found.n_levels == found.n_steps == n_levels
        assert type(found.solver) is solver
        assert found.rule.n_nodes == 32
        assert found.bandwidth == settings.bandwidth


@pytest.mark.parametrize("params", [{}, {"sigma": 0.0}])
def test_settings_as_parameters(params):
    settings = parsed(**params)
    scales = Relative(0.85), (0.0 if "sigma" in params else Relative(2.0))
    found = Settings("scaled", scales, 0.1).parameters(settings)
    assert (found["metric"], found["background"]) == ("scaled", 0.1)
    assert found["sigma"] == (0.0 if "sigma" in params else str(Relative(2.0)))
    assert found["bandwidth"] == str(Relative(0.85))
    # Numbers stay as they were passed.
    own = parsed(bandwidth=0.25, sigma=0.5)
    assert Settings("scaled", (0.25, 0.5), 0.1).parameters(own)["bandwidth"] == 0.25
    assert Settings("scaled", (0.25, 0.0), 0.1).parameters(own)["sigma"] == 0.0


def test_tails_are_those_of_all_rows_where_single_rows_were_left_out():
    """Log-densities under the t distribution, of each fold's rows; with folds, those of the lightest."""
    own = Comparison(parsed(), rows_of(RNG.normal(size=(6, 2))), ("euclidean", "scaled"))
    folds = [
        SimpleNamespace(
            tails=np.arange(6.0).reshape(2, 3),
            distances=np.ones((2, 3)),
            geometry=SimpleNamespace(students=["a", "b", "c"]),
        ),
        SimpleNamespace(tails=np.full((3, 2), 9.0), distances=np.zeros((3, 2)), geometry=None),
    ]
    own.prepare = lambda metric_index, *, is_screening: folds if metric_index == 0 else None
    students, tails, distances = own._students(0)
    assert students == ["b", "c"]
    assert_allclose(tails[0], [[1.0, 2.0], [4.0, 5.0]])
    assert [each.shape for each in (*tails, *distances)] == [(2, 2), (3, 2), (2, 2), (3, 2)]
    # Of all rows, each left out, the rows of each fold.
    all_rows = SimpleNamespace(held_out=SimpleNamespace(exclude=np.array([0, 2, 2, 5])))
    alone = SimpleNamespace(
        _students=lambda first: (["d"], [np.arange(4.0)[:, None]], [-np.arange(4.0)[:, None]]),
        prepare=lambda metric_index, *, is_screening: (all_rows,) if is_screening else None,
    )
    own.one_by_one, own.folds = alone, [(None, np.array([0, 5])), (None, np.array([2]))]
    students, tails, distances = own._students(0)
    assert students == ["d"]
    assert [each.ravel().tolist() for each in tails] == [[0.0, 3.0], [1.0, 2.0]]
    assert [each.ravel().tolist() for each in distances] == [[0.0, -3.0], [-1.0, -2.0]]


def test_the_tail_is_chosen_once_for_a_bandwidth(monkeypatch):
    own = Comparison(parsed(), rows_of(RNG.normal(size=(6, 2))), ("euclidean",))
    folds, calls = [Fold(3, 0), Fold(2, 1)], []
    tails = [RNG.normal(size=(3, 2)), RNG.normal(size=(2, 2))]
    distances = [RNG.uniform(size=(3, 2)), RNG.uniform(size=(2, 2))]
    own.prepare = lambda metric_index, *, is_screening: folds
    own._students = lambda metric_index: (["a", "b"], tails, distances)

    def choose(students, log_densities, kdes, far, weights):
        calls.append((students, log_densities, kdes, far, weights))
        return SimpleNamespace(student="b", weight=0.3)

    monkeypatch.setattr(comparison, "choose_tail", choose)
    found, weight = own._tail(0, 0.85, [0.1, 0.2])
    assert own._tail(0, 0.85, [9.0, 9.0])[0] is found
    assert len(calls) == 1
    own._tail(0, 0.7, [0.1, 0.2])
    assert len(calls) == 2
    assert weight == 0.3
    for of_fold, own_tails in zip(found, tails, strict=True):
        assert_allclose(of_fold, own_tails[:, 1])
    _, log_densities, kdes, far, weights = calls[0]
    assert_allclose(log_densities, np.concatenate(tails))
    assert_allclose(far, np.concatenate(distances))
    expected = [
        np.column_stack([f.densities[:, 1] - h, f.densities[:, 1] - WIDTH * h])
        for f, h in zip(folds, (0.1, 0.2), strict=True)
    ]
    assert_allclose(kdes, np.concatenate(expected))
    all_weights = np.concatenate([fold.held_out.weights for fold in folds])
    assert_allclose(weights, all_weights / all_weights.sum())


def test_reasons_for_which_nothing_is_compared():
    X = RNG.normal(size=(20, 2))
    _, _, reasons = settings_for(rows_of(X), parsed(bandwidth=0.3, sigma=0.2))
    assert reasons == {
        "metric": "bandwidth and sigma are numbers, in units of X",
        "background": "bandwidth and sigma are numbers, in units of X",
    }
    settings, _, reasons = settings_for(rows_of(X[:1]), parsed())
    assert set(reasons) == {"metric", "bandwidth", "sigma", "background"}
    assert set(reasons.values()) == {"there are fewer than two distinct rows"}
    assert (settings.metric, settings.background) == ("euclidean", 0.0)
    mixture = GaussianMixture(1, random_state=0).fit(X)
    settings, _, reasons = settings_for(rows_of(X), parsed(base=mixture))
    assert set(reasons.values()) == {"a base has covariances of its own, and sets the scales"}
    for wrong in ({"metric": "scaled"}, {"background": 0.1}):
        with pytest.raises(ValueError, match="has covariances of its own and takes neither"):
            settings_for(rows_of(X), parsed(base=mixture, **wrong))
    for right in ({"metric": "euclidean"}, {"background": 0.0}):
        settings, _, _ = settings_for(rows_of(X), parsed(base=mixture, **right))
        assert (settings.metric, settings.background) == ("euclidean", 0.0)


def test_metrics_to_compare():
    data = rows_of(RNG.normal(size=(30, 2)))
    assert comparison.metrics_to_compare(parsed(metric="scaled"), data) == (("scaled",), "")
    found, reason = comparison.metrics_to_compare(parsed(terminal_scale=3.0), data)
    assert (found, reason) == (("euclidean",), "terminal_scale is a number, in units of X")
    found, reason = comparison.metrics_to_compare(parsed(bandwidth=0.3, sigma=0.3), data)
    assert (found, reason) == (("euclidean",), "bandwidth and sigma are numbers, in units of X")
    found, reason = comparison.metrics_to_compare(parsed(), data)
    assert len(found) > 1
    assert reason == ""
    assert "euclidean" not in found
    absolute, _ = comparison.metrics_to_compare(parsed(bandwidth=0.3), data)
    assert absolute == ("euclidean", *found)


def test_which_scores_are_the_highest():
    assert comparison._likeliest([1.0, 3.0, 2.0]) == 1
    # Equal up to a billionth: the first is the simplest.
    assert comparison._likeliest([3.0 - 2e-9, 3.0]) == 0
    assert comparison._likeliest([3.0 - 4e-9, 3.0]) == 1
    assert comparison._likeliest([-3.0 - 2e-9, -3.0]) == 0
    assert comparison._likeliest([-3.0 - 4e-9, -3.0]) == 1
    assert comparison._likeliest([-math.inf, 2.0]) == 1


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.9], [0, 3]),
        ([1.0, 0.9, 0.8, 0.75], [0, 1, 2]),  # three at most
        ([1.0, 0.6, 0.5, 0.2], [0]),
        ([1.0, 0.7, 0.69, 0.2], [0, 1]),
        ([0.1, 0.2, 0.3, 0.4], [1, 2, 3]),
    ],
)
def test_close_metrics_are_kept(scores, expected):
    requested = []

    def score(indices):
        requested.append(indices)
        return [scores[k] for k in indices]

    metrics = ("euclidean", "scaled", "whitened", "local")
    assert comparison.likely_metrics(metrics, score) == expected
    assert requested == [[0, 3], [1, 2]]


def test_some_rows_are_taken_evenly():
    data = rows_of(RNG.normal(size=(10, 2)))
    assert comparison._some_rows(data, 10) is data
    assert len(comparison._some_rows(data, 9).points) == 9
    folds = comparison.folds_for_metrics(data.points, data.columns)
    assert len(folds) == 5
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(10))
        assert (np.diff(train) > 0).all()
        assert (np.diff(test) > 0).all()
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(10))
    # At most twenty rows a column, or two a pair of columns.
    for n, d, is_few in ((40, 2, True), (41, 2, False), (288, 12, True), (289, 12, False)):
        rows = rows_of(RNG.normal(size=(n, d)))
        assert (comparison.folds_for_metrics(rows.points, rows.columns) is not None) == is_few
    three = rows_of(RNG.normal(size=(3, 2)))
    assert len(comparison.folds_for_metrics(three.points, three.columns)) == 3
