"""A relation between columns that holds in a part of a table only: a total that is wrong in few rows."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityOutlierDetector, DensityStacking, TransformedDensity

SCALED, WHITENED = (KDESampler(metric=metric) for metric in ("scaled", "whitened"))
GROUPS = np.repeat(np.arange(5), 12)


def table(n_odd=1, error=1.0):
    """Return two parts and their total, which is wrong in the first rows."""
    parts = np.random.RandomState(0).normal(size=(60, 2))
    total = parts.sum(axis=1) + error * (np.arange(60) < n_odd)
    return np.column_stack([parts, total])


def held_out(estimator, X):
    detector = DensityOutlierDetector(estimator, cv=5).fit(X, groups=GROUPS)
    return detector.held_out_log_density_


@pytest.mark.parametrize("n_odd", [1, 3])
@pytest.mark.parametrize("error", [0.01, 1.0])
@pytest.mark.parametrize(
    "estimator",
    [
        SCALED,
        WHITENED,
        TransformedDensity(SCALED, StandardScaler()),
        GridSearchCV(SCALED, {"bandwidth": ["loo", 0.3]}),
    ],
    ids=lambda estimator: type(estimator).__name__ + str(getattr(estimator, "metric", "")),
)
def test_folds_with_and_without_wrong_totals_can_be_compared(estimator, n_odd, error):
    # The fold of the first rows is fitted to exact totals. As a relation they were 23 nats likelier
    # there, and the first rows had -1e17 to -1e21. Medians of twelve rows differ by bandwidths,
    # and a first row is at most sqrt(60 / n_odd) standard deviations off, some 4 bandwidths each.
    scores = held_out(estimator, table(n_odd, error))
    assert abs(np.median(scores[n_odd:12]) - np.median(scores[12:])) < 4
    assert np.all(scores[:n_odd] > -1000 / n_odd)


@pytest.mark.parametrize(
    "transformer",
    [PCA(), PCA(whiten=True), PCA(2), make_pipeline(StandardScaler(), PCA(whiten=True))],
    ids=["all", "whitened", "two", "standardised"],
)
@pytest.mark.parametrize("column", ["total", "rare"])
def test_principal_components_of_a_flat_fold_are_those_of_the_table(transformer, column):
    # The fold of the first row spans two of three directions. Its own third component was rounding:
    # others were 32 nats likelier there, and the first row had -2e31, or whitening was refused. The
    # first row is 7.7 standard deviations off, two bandwidths each: a Gaussian kernel has some -130.
    X = table()
    if column == "rare":
        X[:, 2] = 0.3 * (np.arange(60) < 1)
    scores = held_out(TransformedDensity(SCALED, transformer), X)
    assert abs(np.median(scores[1:12]) - np.median(scores[12:])) < 2
    assert scores[0] > -200


def test_the_default_too():
    scores = held_out(SmoothedScoreDiffusion(n_nodes=8, n_steps=8), table())
    assert abs(np.median(scores[1:12]) - np.median(scores[12:])) < 2.5
    # The t distribution of the background bounds it.
    assert scores[0] > -30


@pytest.mark.parametrize("estimator", [SCALED, WHITENED], ids=["scaled", "whitened"])
def test_other_units_add_a_constant(estimator):
    units = np.array([1.0, 1024.0, 2.0**-10])
    X = table(error=0.01)
    assert_allclose(held_out(estimator, X * units), held_out(estimator, X), rtol=1e-7)


def test_a_relation_of_all_rows_remains_one_beside_that_of_a_part():
    # The copy of the first part is a relation in all folds, 24 nats.
    X = table()
    with_copy = held_out(SCALED, np.column_stack([X, X[:, 0]]))
    without = held_out(SCALED, X)
    assert np.ptp(with_copy[1:] - without[1:]) < 1.5
    assert np.all(with_copy[1:] - without[1:] > 20)


def test_a_constant_part_leaves_the_total_of_all_rows():
    # One column varies in one row, and the total of the three is exact in all: what the fold without
    # that row takes for a constant, it must not take for a second total.
    first, _, _ = table().T
    rare = 0.3 * (np.arange(60) < 1)
    scores = held_out(SCALED, np.column_stack([first, rare, 100 - first - rare]))
    assert abs(np.median(scores[1:12]) - np.median(scores[12:])) < 1.5
    assert scores[0] > -200


def test_members_of_a_stack_are_compared_on_comparable_folds():
    X = table()
    folds = [(np.flatnonzero(k != GROUPS), np.flatnonzero(k == GROUPS)) for k in range(5)]
    stack = DensityStacking([("scaled", SCALED), ("whitened", WHITENED)], cv=folds).fit(X)
    log_density = stack.oof_log_density_
    medians = np.median(log_density[1:12], axis=0) - np.median(log_density[12:], axis=0)
    assert np.all(np.abs(medians) < 1.5)
    assert np.all(log_density > -200)


@pytest.mark.parametrize(
    "estimator",
    [
        SCALED,
        SmoothedScoreDiffusion(0.3, 0.1, metric="scaled", n_nodes=4, n_steps=4),
        TransformedDensity(SCALED, PCA(whiten=True)),
        DensityStacking([("scaled", SCALED)], cv=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_score_warns_of_rows_that_break_relations_of_the_training_rows(estimator):
    # As in a fold of scikit-learn's, which has no relations of the table.
    X = table()
    model = clone(estimator).fit(X[20:])
    with pytest.warns(UserWarning, match=r"1 of 20 rows break relations .* as low as -"):
        model.score(X[:20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score(X[1:20])
        model.fit(X).score(X)
