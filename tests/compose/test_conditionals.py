"""Marginals and conditionals through estimators made of estimators."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import cumulative_trapezoid, trapezoid
from scipy.stats import kstest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion, sample
from skdiffsmooth.compose import DensityClassifier, DensityStacking, TransformedDensity
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

rng = np.random.RandomState(0)
X = np.exp(0.3 * rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3)))
Y = (X[:, 0] > 1).astype(int)
GIVEN = {0: 1.1, 2: 0.9}
GRID = np.linspace(-3, 12, 1501)
ROWS = np.column_stack([np.full_like(GRID, 1.1), GRID, np.full_like(GRID, 0.9)])
# One seed in so many fails a test with correct code.
FAILS_ONCE_IN = 1e-3

ELEMENTWISE = [
    StandardScaler(),
    QuantileTransformer(n_quantiles=12, output_distribution="normal"),
    make_pipeline(FunctionTransformer(np.arcsinh, np.sinh), RobustScaler()),
    make_pipeline(
        ColumnTransformer([("a", StandardScaler(), [2, 0]), ("b", PowerTransformer(), [1])]),
        MinMaxScaler(),
    ),
]
COMPOSED = [
    *(TransformedDensity(KDESampler("scott"), transformer) for transformer in ELEMENTWISE),
    TransformedDensity(GaussianMixture(2, random_state=0), StandardScaler()),
    DensityStacking([("wide", KDESampler(0.5)), ("narrow", KDESampler(0.1))], cv=3),
    DensityClassifier(KDESampler(0.3)),
    SmoothedScoreDiffusionCV(
        SmoothedScoreDiffusion(n_nodes=16, n_levels=6, n_steps=6),
        bandwidth_factors=[1.0],
        sigma_factors=[1.0],
        metrics=["scaled"],
        n_refinements=0,
        cv=2,
    ),
]
NAMES = ["standard", "quantile", "arcsinh", "blocks", "mixture", "stacking", "classifier", "search"]


@pytest.fixture(scope="module", params=range(len(COMPOSED)), ids=NAMES)
def model(request):
    return COMPOSED[request.param].fit(X, Y)


def test_densities_of_some_columns_are_those_of_the_joint_density(model):
    joint = np.exp(model.score_samples(ROWS))
    marginal = trapezoid(joint, GRID)
    # The errors of the grid, and of the quadrature where there is no closed form.
    assert_allclose(model.score_samples(ROWS[:1], columns=[2, 0]), np.log(marginal), atol=0.01)
    density = np.exp(model.score_samples(ROWS, given=[0, 2]))
    assert trapezoid(abs(density - joint / marginal), GRID) < 0.01
    total = model.score_samples(ROWS[:1], columns=[2], given=[0])
    total = total + model.score_samples(ROWS[:1], columns=[0])
    assert_allclose(total, model.score_samples(ROWS[:1], columns=[0, 2]), atol=0.05)


def test_draws_are_those_of_the_conditional(model):
    drawn = model.sample(600, random_state=0, given=GIVEN)
    rows, labels = drawn if isinstance(drawn, tuple) else (drawn, None)
    assert_array_equal(rows[:, [0, 2]], np.tile([1.1, 0.9], (600, 1)))
    cumulated = cumulative_trapezoid(np.exp(model.score_samples(ROWS)), GRID, initial=0)
    test = kstest(rows[:, 1], lambda x: np.interp(x, GRID, cumulated / cumulated[-1]))
    assert test.pvalue > FAILS_ONCE_IN
    none, plain = (sample(model, 4, 0, output="pandas", given=given) for given in ({}, None))
    pd.testing.assert_frame_equal(none, plain)
    frame = sample(model, 4, 0, output="pandas", given=GIVEN)
    assert_array_equal(frame["x0"], 1.1)
    assert ("target" in frame) == (labels is not None)
    if labels is not None:
        shares = model.predict_proba(ROWS[:1], columns=[0, 2])[0]
        # Four standard deviations of a binomial share.
        assert np.mean(labels == 1) == pytest.approx(shares[1], abs=4 * 0.5 / np.sqrt(600))


def test_a_class_is_predicted_from_some_columns():
    classifier = DensityClassifier(KDESampler(0.3)).fit(pd.DataFrame(X, columns=list("abc")), Y)
    rows = pd.DataFrame(X[:5], columns=list("abc")).assign(b=np.nan)
    found = classifier.predict_log_proba(rows, columns=["a", "c"])
    parts = [kde.score_samples(rows, columns=["a", "c"]) for kde in classifier.estimators_]
    expected = np.column_stack(parts) + np.log(classifier.class_prior_)
    assert_allclose(found[:, 1] - found[:, 0], expected[:, 1] - expected[:, 0], atol=1e-12)
    assert_array_equal(classifier.predict(rows, columns=["a", "c"]), found.argmax(axis=1))


def test_pipelines_and_searches_draw_given_columns_in_the_units_of_x():
    frame = pd.DataFrame(X, columns=list("abc"))
    pipeline = make_pipeline(StandardScaler(), KDESampler(0.3)).fit(frame)
    rows = sample(pipeline, 200, random_state=0, given={"a": 1.1, "c": 0.9}, output="pandas")
    assert_array_equal(rows[["a", "c"]].to_numpy(), np.tile([1.1, 0.9], (200, 1)))
    transformed = TransformedDensity(KDESampler(0.3), StandardScaler()).fit(frame)
    assert_array_equal(rows, transformed.sample(200, 0, given={"a": 1.1, "c": 0.9}))
    search = GridSearchCV(KDESampler(), {"bandwidth": [0.2, 0.4]}, cv=2).fit(frame)
    expected = search.best_estimator_.sample(5, 0, given={"a": 1.0})
    assert_array_equal(sample(search, 5, 0, given={"a": 1.0}), expected)


def test_what_mixes_or_cuts_columns_says_so():
    mixing = TransformedDensity(KDESampler(0.3), PCA()).fit(X)
    with pytest.raises(ValueError, match="changes each column on its own"):
        mixing.sample(2, given={0: 1.0})
    with pytest.raises(ValueError, match="changes each column on its own"):
        mixing.score_samples(X, columns=[0])
    cut = TransformedDensity(KDESampler(1.0), FunctionTransformer(np.exp, np.log)).fit(X)
    with pytest.raises(ValueError, match="reaches all of"):
        cut.score_samples(X, columns=[0])
    logarithm = FunctionTransformer(np.log, np.exp)
    density = TransformedDensity(KDESampler(0.3), logarithm).fit(X)
    with pytest.raises(ValueError, match="outside the domain"):
        density.sample(2, given={0: -1.0})
    rows = np.array([[-1.0, np.nan, 1.0], [1.0, np.nan, 1.0]])
    found = density.score_samples(rows, columns=[0])
    assert found[0] == -np.inf
    assert np.isfinite(found[1])


def test_members_far_from_the_given_values_are_not_drawn():
    near, far = KDESampler(0.3).fit(X), KDESampler(0.3).fit(X + 100)
    mixture = DensityStacking([("near", near), ("far", far)], cv="prefit", combine="mixture")
    mixture.fit(np.vstack([X, X + 100]))
    assert mixture.sample(50, random_state=0, given={0: 1.0})[:, 1].max() < 50
    assert mixture.sample(50, random_state=0, given={0: 101.0})[:, 1].min() > 50


@pytest.mark.parametrize("distance", [1e4, 1e8, 1e12])
@pytest.mark.parametrize("composed", ["stacking", "classifier"])
def test_far_from_the_given_values_a_mixture_has_the_conditional_of_its_members(composed, distance):
    """Both logarithms are about -distance^2; their difference was -4 at 1e8 and 0 at 1e12."""
    kde = KDESampler(0.5).fit(X)
    mixture = DensityClassifier(KDESampler(0.5)).fit(X, Y)
    if composed == "stacking":
        members = [("wide", kde), ("compact", KDESampler(0.8, "tophat").fit(X))]
        # Some rows that only the first holds.
        mixture = DensityStacking(members, cv="prefit").fit(np.vstack([X, X[:20] + 1]))
        assert all(mixture.weights_ > 0)
    row = np.array([[distance, 0.2, 0.3]])
    with pytest.warns(UserWarning, match="given values of 1 of 1 conditions are far"):
        found = mixture.score_samples(row, given=[0])
    with pytest.warns(UserWarning, match="far from all training rows"):
        expected = kde.score_samples(row, given=[0])
    assert_allclose(found, expected, atol=1e-9)


def test_a_mixture_has_no_conditional_where_all_members_are_zero():
    """It was NaN."""
    kde = KDESampler(0.5, "tophat").fit(X)
    mixture = DensityStacking([("a", kde), ("b", kde)], cv="prefit").fit(X)
    for compute in (
        lambda: mixture.score_samples(X[:2] + 100, given=[0]),
        lambda: mixture.sample(2, given={0: 100.0}),
    ):
        with pytest.raises(ValueError, match=r"2 conditions .* density zero under every|1 cond"):
            compute()
