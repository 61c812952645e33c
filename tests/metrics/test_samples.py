"""Metrics of two samples and of score fields: the classifier test, fidelity, Fisher divergence."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.metrics import _pairs as pairs_module
from skdiffsmooth.metrics import (
    classifier_two_sample_test,
    fidelity_and_diversity,
    fisher_divergence,
)


def rows(n, d, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


@pytest.fixture(params=["one tile", "many tiles"])
def tile_size(request, monkeypatch):
    if request.param == "many tiles":
        monkeypatch.setattr(pairs_module, "MEMORY_LIMIT", 2**-9)


# --- Tests ---


def rejections(test, shift, n_repeats, seed):
    rng = np.random.RandomState(seed)
    return [
        test(rng.normal(size=(20, 2)), rng.normal(size=(25, 2)) + shift, rng)
        for _ in range(n_repeats)
    ]


TESTS = {
    "classifier": lambda X, Y, rng: (
        classifier_two_sample_test(X, Y, KNeighborsClassifier(3), random_state=rng).p_value
    ),
    "classifier, 2 folds": lambda X, Y, rng: (
        classifier_two_sample_test(
            X, Y, GaussianNB(), cv=2, n_permutations=19, random_state=rng
        ).p_value
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_p_values_under_the_null(name):
    """P(p <= t) is at most t: 600 repeats, 60 where classifiers are fitted many times.

    Four standard errors at each of five levels: correct code fails in about one run of 6000.
    """
    n_repeats = 60 if "folds" in name else 600
    p = np.array(rejections(TESTS[name], 0.0, n_repeats, seed=0))
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        allowed = 4 * math.sqrt(level * (1 - level) / n_repeats)
        assert np.mean(p <= level) <= level + allowed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"),
    [("classifier", 0.5), ("classifier, 2 folds", 0.9)],
)
def test_power_against_a_shift(name, least):
    """A shift by 1.2 in both columns, at level 0.05; a t-test along the shift has a power above 0.99."""
    p = np.array(rejections(TESTS[name], 1.2, 20, seed=1))
    assert np.mean(p <= 0.05) >= least


def test_as_many_folds_as_the_smaller_sample_has_rows():
    X, Y = rows(3, 2), rows(9, 2, seed=1)
    assert 0 < classifier_two_sample_test(X, Y, cv=3, random_state=0).p_value <= 1
    with pytest.raises(ValueError, match="the smaller of which has 3"):
        classifier_two_sample_test(X, Y, cv=4)


def test_the_classifier_test_is_fishers():
    """One split: the table of names against samples, counted here again."""
    X, Y = rows(31, 2), rows(24, 2, seed=1) + 0.5
    pooled, is_x = np.concatenate([X, Y]), np.repeat([1, 0], [31, 24])
    cv = StratifiedKFold(2, shuffle=True, random_state=4)
    result = classifier_two_sample_test(X, Y, LogisticRegression(), cv=cv, n_permutations=1)
    one_split = [next(iter(cv.split(pooled, is_x)))]
    single = classifier_two_sample_test(X, Y, LogisticRegression(), cv=one_split)
    p_values = []
    for (train, test), accuracy in zip(cv.split(pooled, is_x), result.accuracies, strict=True):
        named = LogisticRegression().fit(pooled[train], is_x[train]).predict(pooled[test])
        truth = is_x[test]
        table = [[np.sum((named == a) & (truth == b)) for b in (1, 0)] for a in (1, 0)]
        p_values.append(stats.fisher_exact(table, alternative="greater").pvalue)
        rates = [table[0][0] / np.sum(truth == 1), table[1][1] / np.sum(truth == 0)]
        assert accuracy == pytest.approx(np.mean(rates))
    assert single.p_value == pytest.approx(p_values[0])
    assert single.accuracy == result.accuracies[0]
    assert result.accuracy == pytest.approx(result.accuracies.mean())


def test_what_a_classifier_detects():
    """Any difference where distributions do not overlap; no difference of scales, if it is linear."""
    X = rows(100, 2)
    apart = classifier_two_sample_test(X, X + 100, random_state=0)
    assert apart.accuracy == 1
    assert apart.p_value < 1e-28  # of C(100, 50) = 1e29 tables one
    linear, neighbors = (
        classifier_two_sample_test(X, 4 * rows(100, 2, seed=1), model, random_state=0)
        for model in (LogisticRegression(), None)
    )
    assert linear.p_value > 0.01 > 1e-4 > neighbors.p_value
    folds = classifier_two_sample_test(
        X, X + 100, GaussianNB(), cv=2, n_permutations=9, random_state=0
    )
    assert (folds.accuracy, folds.p_value) == (1, 1 / 10)
    # One split by default, in halves.
    assert len(neighbors.accuracies) == 1
    with pytest.raises(ValueError, match="holds out 34 rows of X and 0 of Y"):
        classifier_two_sample_test(X, X, cv=KFold(6))


# --- Fidelity ---


def slow_fidelity(X, Y, k):
    def radius(Z, i):
        return sorted(math.dist(Z[i], Z[j]) for j in range(len(Z)) if j != i)[k - 1]

    around_x = [radius(X, i) for i in range(len(X))]
    around_y = [radius(Y, j) for j in range(len(Y))]
    in_y = np.array([[math.dist(x, y) <= r for y, r in zip(Y, around_y, strict=True)] for x in X])
    in_x = np.array([[math.dist(x, y) <= r for y in Y] for x, r in zip(X, around_x, strict=True)])
    return [in_y.any(1).mean(), in_x.any(0).mean(), in_y.sum(1).mean() / k, in_y.any(0).mean()]


@pytest.mark.parametrize(("d", "k"), [(2, 1), (2, 5), (40, 3)])
def test_fidelity_against_loops(d, k, tile_size):
    X, Y = rows(25, d), rows(30, d, seed=1) + 0.5
    result = fidelity_and_diversity(X, Y, n_neighbors=k)
    expected = slow_fidelity(X.tolist(), Y.tolist(), k)
    assert_allclose(list(vars(result).values()), expected, rtol=1e-12)


@pytest.mark.parametrize("d", [2, 40])
def test_fidelity_of_copies(d):
    """All are perfect: each ball holds its centre and its K neighbours, the last on the border."""
    X = rows(50, d)
    result = fidelity_and_diversity(np.random.RandomState(0).permutation(X), X, n_neighbors=4)
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)
    assert result.density == pytest.approx(5 / 4)


def test_fidelity_of_two_samples_of_one_distribution():
    """Density one, and coverage 1 - 2^-K (Naeem et al., lemma 2): 400 rows, 20 pairs."""
    rng = np.random.RandomState(0)
    result = [
        fidelity_and_diversity(rng.normal(size=(400, 3)), rng.normal(size=(400, 3)), n_neighbors=3)
        for _ in range(20)
    ]
    # Standard errors from the pairs themselves; five of them.
    for name, expected in (("density", 1.0), ("coverage", 1 - 2**-3)):
        values = [getattr(one, name) for one in result]
        assert np.mean(values) == pytest.approx(expected, abs=5 * np.std(values) / math.sqrt(20))


def test_a_missing_mode_costs_recall_and_a_wrong_one_precision():
    one, two = rows(60, 2), np.concatenate([rows(60, 2, seed=1), 50 + rows(60, 2, seed=2)])
    missing = fidelity_and_diversity(one, two)
    assert missing.precision > 0.9
    assert missing.recall < 0.55
    assert missing.coverage < 0.55
    wrong = fidelity_and_diversity(two, one)
    assert wrong.precision < 0.55
    assert wrong.density < 0.7
    assert wrong.recall > 0.9


# --- Score fields ---


def test_fisher_divergence_of_gaussians():
    """E |x (1/b^2 - 1)|^2 over N(0, I) in the plane: 2 (1/b^2 - 1)^2. 500 estimates of 100 rows."""
    rng = np.random.RandomState(0)
    result = [
        fisher_divergence(rng.normal(size=(100, 2)), lambda x: -x, lambda x: -x / 4)
        for _ in range(500)
    ]
    values, errors = np.array([(one.value, one.standard_error) for one in result]).T
    expected = 2 * (1 / 4 - 1) ** 2
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / math.sqrt(500))
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_fisher_divergence_of_estimators():
    X = pd.DataFrame(rows(40, 2), columns=["a", "b"])
    narrow, wide = KDESampler(0.5).fit(X), KDESampler(0.6).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of columns that have lost their names
        result = fisher_divergence(X, narrow, wide)
    gap = narrow.grad_log_density(X) - wide.grad_log_density(X)
    assert result.value == pytest.approx(np.mean(np.sum(gap**2, axis=1)))
    terms = np.sum(gap**2, axis=1)
    assert result.effective_sample_size == pytest.approx(terms.sum() ** 2 / np.sum(terms**2))
    # A KDE is the smoothed score at sigma = 0, also at other noise.
    model = SmoothedScoreDiffusion(0.5, 0.0).fit(X)
    assert fisher_divergence(X, narrow, model).value < 1e-20
    at_noise = fisher_divergence(X, lambda x: model.grad_log_density(X, t=0.36), wide)
    assert at_noise.value < 1e-20


def test_equal_fields_have_zero_divergence():
    result = fisher_divergence(rows(10, 2), lambda x: -x, lambda x: -x)
    assert (result.value, result.standard_error, result.effective_sample_size) == (0, 0, 10)
    assert float(result) == 0
    # Where one row has no difference, the others have: nine equal terms and a zero.
    one = fisher_divergence(np.eye(10)[:, :1], lambda x: 0 * x, lambda x: 1 - x)
    assert one.effective_sample_size == pytest.approx(9)


@pytest.mark.parametrize(
    ("score", "error", "match"),
    [
        (lambda x: x[:, 0], ValueError, "score_q returned an array of shape"),
        (lambda x: x * np.nan, ValueError, "20 values that are not finite"),
        (lambda x: np.where(x == x.max(), np.inf, x), ValueError, "1 values that are not finite"),
        (3.0, TypeError, "score_q=3.0 is not a score field"),
        (lambda x: "a", ValueError, "score_q"),
    ],
)
def test_fields_that_do_not_fit(score, error, match):
    with pytest.raises(error, match=match):
        fisher_divergence(rows(10, 2), lambda x: -x, score)


def test_a_field_cannot_change_the_rows():
    def greedy(x):
        x *= 0
        return x

    X = rows(10, 2)
    expected = np.mean(np.sum(X**2, axis=1))
    assert fisher_divergence(X, greedy, lambda x: -x).value == pytest.approx(expected)


def test_two_rows_of_each_sample_are_enough_for_a_test():
    X = np.array([[0.0], [0.1]])
    result = classifier_two_sample_test(X, X + 9, n_permutations=3, random_state=0)
    assert 0 <= result.accuracy <= 1
    with pytest.raises(ValueError, match="at least 2"):
        classifier_two_sample_test(X[:1], X + 9)
