"""DensityClassifier: Bayes' rule against closed forms, invariances, and rows of density zero."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityClassifier

COARSE = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}
KDE = KDESampler(0.5)
ROUNDING = 1e-12


def blobs(n=60, seed=0, classes=("a", "b", "c")):
    """Rows of several classes of unequal size, which overlap."""
    rng = np.random.RandomState(seed)
    share = np.arange(1, len(classes) + 1) / sum(range(1, len(classes) + 1))
    y = rng.choice(len(classes), size=n, p=share)
    X = rng.normal(size=(n, 2)) + np.column_stack([1.5 * y, -y])
    return X, np.asarray(classes)[y]


def assert_same_classifier(one, two, Q, tolerance=ROUNDING):
    assert_array_equal(one.classes_, two.classes_)
    assert_allclose(one.predict_log_proba(Q), two.predict_log_proba(Q), tolerance, tolerance)
    assert_allclose(one.score_samples(Q), two.score_samples(Q), tolerance, tolerance)


# --------------------------------------------------------------------------------- Bayes' rule


@pytest.mark.parametrize("priors", [None, [0.2, 0.5, 0.3]])
def test_with_diagonal_gaussians_it_is_naive_bayes(priors):
    X, y = blobs()
    density = GaussianMixture(1, covariance_type="diag", reg_covar=0.0)
    found = DensityClassifier(density, priors=priors).fit(X, y)
    expected = GaussianNB(priors=priors, var_smoothing=0.0).fit(X, y)
    Q = 3 * X
    assert_allclose(found.predict_log_proba(Q), expected.predict_log_proba(Q), rtol=1e-8, atol=1e-8)
    assert_array_equal(found.predict(Q), expected.predict(Q))
    assert_allclose(found.class_prior_, expected.class_prior_)
    assert found.score(X, y) == expected.score(X, y)


def test_probabilities_are_those_of_bayes_rule():
    X, y = blobs()
    model = DensityClassifier(KDE).fit(X, y)
    joint = np.column_stack(
        [
            np.mean(y == label) * np.exp(clone(KDE).fit(X[y == label]).score_samples(X))
            for label in "abc"
        ]
    )
    assert_allclose(model.predict_proba(X), joint / joint.sum(axis=1, keepdims=True), rtol=1e-10)
    assert_allclose(model.score_samples(X), np.log(joint.sum(axis=1)), rtol=1e-10)
    assert_array_equal(model.predict(X), np.array(list("abc"))[joint.argmax(axis=1)])


def test_equal_classes_have_their_priors():
    X, _ = blobs()
    twice, y = np.vstack([X, X]), np.repeat([0, 1], len(X))
    model = DensityClassifier(KDE, priors=[0.3, 0.7]).fit(twice, y)
    assert_allclose(model.predict_proba(X), np.tile([0.3, 0.7], (len(X), 1)), rtol=ROUNDING)


def test_one_class_is_always_the_answer():
    X, _ = blobs()
    model = DensityClassifier(KDE).fit(X, np.full(len(X), "only"))
    assert set(model.predict(100 * X)) == {"only"}
    assert_array_equal(model.predict_proba(X), np.ones((len(X), 1)))
    assert_allclose(model.score_samples(X), clone(KDE).fit(X).score_samples(X), rtol=ROUNDING)


def test_a_class_of_prior_zero_is_never_the_answer():
    X, y = blobs()
    model = DensityClassifier(KDE, priors=[0.5, 0.5, 0.0]).fit(X, y)
    assert_array_equal(model.predict_proba(X)[:, 2], 0.0)
    assert set(model.predict(X)) <= {"a", "b"}
    assert set(model.sample(50, random_state=0)[1]) == {"a", "b"}


def test_the_default_density_is_the_smoothed_score():
    X, y = load_iris(return_X_y=True)
    model = DensityClassifier().fit(X[::5], y[::5])
    assert all(type(density) is SmoothedScoreDiffusion for density in model.estimators_)
    # 0.947 over five folds, 0.96 on this half; chance is a third.
    density = SmoothedScoreDiffusion(**COARSE)
    assert DensityClassifier(density).fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.93


# ---------------------------------------------------------------------------------- invariances


def test_labels_are_only_names():
    X, y = blobs()
    one = DensityClassifier(KDE).fit(X, y)
    renamed = np.array([{"a": 7, "b": -2, "c": 5}[label] for label in y])
    two = DensityClassifier(KDE).fit(X, renamed)
    order = [2, 0, 1]  # a, b, c are 7, -2, 5: the last, the first, the middle one
    assert_array_equal(two.classes_, [-2, 5, 7])
    assert_allclose(two.predict_proba(X)[:, order], one.predict_proba(X), rtol=1e-10, atol=1e-300)


def test_a_common_scale_does_not_matter():
    X, y = blobs()
    Q = X + 0.1
    one = DensityClassifier().set_params(estimator=KDESampler()).fit(X, y)
    two = DensityClassifier().set_params(estimator=KDESampler()).fit(10 * X, y)
    # The search for a bandwidth stops within 0.1 %; exponents of some nats follow.
    assert_allclose(two.predict_proba(10 * Q), one.predict_proba(Q), atol=5e-3)
    # The density is per unit of X, of which there are now ten times ten.
    assert_allclose(two.score_samples(10 * Q), one.score_samples(Q) - 2 * np.log(10), atol=2e-2)


@pytest.mark.parametrize(
    "density", [KDE, SmoothedScoreDiffusion(0.3, 0.5, **COARSE)], ids=["kde", "smoothed"]
)
def test_a_row_of_weight_k_is_k_rows(density):
    X, y = blobs()
    times = np.random.RandomState(1).randint(0, 4, size=len(X))
    order = np.random.RandomState(2).permutation(times.sum())
    weighted = DensityClassifier(density).fit(X, y, sample_weight=times)
    again = np.repeat(X, times, axis=0)[order], np.repeat(y, times)[order]
    repeated = DensityClassifier(density).fit(*again)
    assert_same_classifier(weighted, repeated, X)
    assert_allclose(weighted.class_prior_, repeated.class_prior_, rtol=ROUNDING)
    for one, two in zip(weighted.sample(9, 0), repeated.sample(9, 0), strict=True):
        assert_array_equal(one, two)


def test_priors_are_fractions_of_the_weights_however_large():
    X, y = blobs()
    weight = np.where(y == "a", 3.0, 1.0)
    expected = np.array([3 * np.sum(y == "a"), np.sum(y == "b"), np.sum(y == "c")])
    for factor in (1.0, 1e307):
        model = DensityClassifier(KDE).fit(X, y, sample_weight=factor * weight)
        assert_allclose(model.class_prior_, expected / expected.sum(), rtol=ROUNDING)


def test_the_marginal_density_is_normalised():
    X, y = blobs(30)
    model = DensityClassifier(KDE).fit(X[:, :1], y)
    grid = np.linspace(-12, 14, 2601)[:, None]
    # The trapezoid rule is exact for Gaussians that it resolves: 50 nodes a bandwidth.
    assert_allclose(np.exp(model.score_samples(grid)).sum() * 0.01, 1, rtol=1e-9)


# -------------------------------------------------------------------------------- far from data


@pytest.mark.parametrize("density", [KDE, SmoothedScoreDiffusion(0.3, 0.5, **COARSE)])
@pytest.mark.parametrize("scale", [1e2, 1e6, 1e120])
def test_probabilities_far_from_all_data_are_probabilities(density, scale):
    X, y = blobs()
    model = DensityClassifier(density).fit(X, y)
    Q = scale * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    proba = model.predict_proba(Q)
    assert np.all(np.isfinite(proba))
    assert_allclose(proba.sum(axis=1), 1, rtol=ROUNDING)
    assert set(model.predict(Q)) <= set("abc")


def test_where_no_class_reaches_the_priors_are_left():
    X, y = blobs()
    model = DensityClassifier(KDESampler(1.0, "tophat"), priors=[0.2, 0.0, 0.8]).fit(X, y)
    far = np.array([[1e3, 1e3]])
    assert_allclose(model.predict_proba(far), [[0.2, 0.0, 0.8]], rtol=ROUNDING)
    assert model.predict(far) == ["c"]
    assert model.score_samples(far) == [-np.inf]


def test_log_odds_order_rows_where_probabilities_have_rounded():
    X, y = blobs(classes=("a", "b"))
    model = DensityClassifier(KDE).fit(X, y)
    Q = np.array([[30.0, -20.0], [40.0, -25.0], [50.0, -30.0]])
    assert_array_equal(model.predict_proba(Q)[:, 1], 1.0)
    odds = model.decision_function(Q)
    assert odds.shape == (3,)
    assert np.all(np.diff(odds) > 1)
    assert_allclose(odds, np.diff(model.predict_log_proba(Q))[:, 0], rtol=ROUNDING)
    # With more than two classes there is a column for each, as in predict_log_proba.
    model = DensityClassifier(KDE).fit(*blobs())
    assert_array_equal(model.decision_function(Q), model.predict_log_proba(Q))


# ------------------------------------------------------------------------------------- samples


def test_samples_come_with_their_classes():
    rng = np.random.RandomState(0)
    y = np.repeat(["left", "right"], [20, 60])
    X = rng.normal(size=(80, 1)) + np.where(y == "left", -20, 20)[:, None]
    model = DensityClassifier(KDE).fit(X, y)
    rows, labels = model.sample(4000, random_state=0)
    assert rows.shape == (4000, 1)
    assert_array_equal(labels, np.where(rows[:, 0] < 0, "left", "right"))
    # 4 standard errors of binomial fractions: one false alarm in 16 000 each.
    is_left = labels == "left"
    assert abs(is_left.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    same = np.mean(is_left[1:] == is_left[:-1])
    assert abs(same - (0.25**2 + 0.75**2)) < 4 * np.sqrt(0.25 / 4000)
    again = model.sample(4000, random_state=0)
    assert_array_equal(again[0], rows)
    assert_array_equal(again[1], labels)


# ---------------------------------------------------------------------------- scikit-learn's use


@pytest.mark.filterwarnings("ignore:these columns")
def test_a_column_that_is_constant_in_one_class_costs_no_accuracy():
    """The right answer knows that the column is one with probability a half in the second class."""
    ours, right = [], []
    for seed in range(2):
        rng = np.random.RandomState(seed)
        (X, y), (Q, z) = (
            (
                np.column_stack([rng.normal(size=2 * n) + 2 * c, rng.binomial(1, c / 2)]),
                c,
            )
            for n in (60, 200)
            for c in [np.repeat([0, 1], n)]
        )
        ours.append(DensityClassifier().fit(X, y).score(Q, z))
        ratio = norm.pdf(Q[:, 0] - 2) / 2 - norm.pdf(Q[:, 0]) * (Q[:, 1] == 0)
        right.append(np.mean((ratio > 0) == z))
    # All zeros as the first class have an accuracy of 0.75, the right answer 0.89.
    assert np.mean(ours) > np.mean(right) - 0.04


@pytest.mark.parametrize(
    "density",
    [SmoothedScoreDiffusion("loo", 0.5, **COARSE), KDESampler(), GaussianMixture(1)],
)
def test_a_class_of_one_row_gets_the_widths_of_the_others(density):
    X, y = blobs()
    X, y = np.vstack([X, [[0.0, 40.0]]]), np.append(y, "one")
    with pytest.warns(UserWarning, match="class one has one distinct row"):
        model = DensityClassifier(density).fit(X, y)
    assert list(model.predict([[0.0, 41.0], *X[:1]])) == ["one", y[0]]
    # The variance within the other two classes.
    others = [X[y == label] for label in np.unique(y) if label != "one"]
    deviations = np.concatenate([rows - rows.mean(axis=0) for rows in others])
    alone = model.estimators_[list(model.classes_).index("one")]
    assert_allclose(alone.bandwidth_, deviations.std(axis=0), rtol=ROUNDING)
    # A density that can be fitted to one row is fitted.
    kept = DensityClassifier(KDE).fit(X, y).estimators_[list(model.classes_).index("one")]
    assert kept.bandwidth_ == 0.5
    # Copies of the row, and rows of weight zero, are no rows more.
    again, weight = np.vstack([X, X[-1:], X[:1]]), np.append(np.ones(len(X) + 1), 0.0)
    if not isinstance(density, GaussianMixture):
        with pytest.warns(UserWarning, match="class one has one distinct row"):
            same = DensityClassifier(density).fit(again, np.append(y, ["one", "one"]), weight)
        index = list(same.classes_).index("one")
        assert_allclose(same.estimators_[index].bandwidth_, alone.bandwidth_, rtol=ROUNDING)


def test_one_row_of_each_class_is_enough():
    with pytest.warns(UserWarning, match="has one distinct row"):
        model = DensityClassifier().fit([[0.0, 0.0], [1.0, 5.0]], ["a", "b"])
    assert list(model.predict([[0.2, 1.0], [0.8, 4.0]])) == ["a", "b"]


def test_a_column_that_is_constant_for_all_classes_changes_no_prediction():
    X, y = blobs()
    X, y = np.vstack([X, [[0.0, 40.0]]]), np.append(y, "one")
    with pytest.warns(UserWarning, match="class one has one distinct row"):
        models = [
            DensityClassifier(KDESampler()).fit(rows, y)
            for rows in (X, np.column_stack([X, np.full(61, 7.0)]))
        ]
    Q = np.array([[0.0, 39.0], [1.0, 0.0]])
    for model, queries in zip(models, (Q, np.column_stack([Q, [7.0, 7.0]])), strict=True):
        assert list(model.predict(queries) == "one") == [True, False]


@pytest.mark.filterwarnings("ignore:class one has one distinct row")
@pytest.mark.parametrize("value", [0.1, 3.7, -7.3, 1e6 / 3])
def test_rounding_of_a_constant_is_no_width_beside_a_class_of_one_row(value):
    # The mean of 61 values of 3.7 is not 3.7.
    X, y = blobs()
    X, y = np.vstack([X, [[0.0, 40.0]]]), np.append(y, "one")
    Q = np.vstack([X[::6], [[0.0, 30.0], [0.0, 10.0]]])
    model = DensityClassifier(KDESampler(metric="scaled"))
    plain = clone(model).fit(X, y).predict_log_proba(Q)
    model.fit(np.column_stack([X, np.full(len(X), value)]), y)
    found = model.predict_log_proba(np.column_stack([Q, np.full(len(Q), value)]))
    assert_allclose(found, plain, atol=1e-6)


def test_a_wrong_density_is_refused_for_classes_of_one_row_too():
    with pytest.raises(ValueError, match="bandwidth=-1"):
        DensityClassifier(KDESampler(-1.0)).fit(np.eye(2), ["a", "b"])


def test_tags_are_those_of_a_classifier():
    assert get_tags(DensityClassifier()).estimator_type == "classifier"


def test_a_search_tunes_the_density_by_accuracy():
    X, y = blobs(120)
    grid = {"estimator__bandwidth": [1e-3, 0.5]}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), DensityClassifier(KDESampler())),
        {f"densityclassifier__{name}": values for name, values in grid.items()},
        scoring="neg_log_loss",
    ).fit(X, y)
    assert search.best_params_ == {"densityclassifier__estimator__bandwidth": 0.5}


def test_densities_see_column_names():
    X, y = blobs()
    frame = pd.DataFrame(X, columns=["u", "v"])
    model = DensityClassifier(KDE).fit(frame, y)
    assert list(model.estimators_[0].feature_names_in_) == ["u", "v"]
    assert_same_classifier(model, DensityClassifier(KDE).fit(frame, pd.Series(y)), frame)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["v", "u"]])


def test_parameters_set_after_fit_change_no_answer():
    X, y = blobs()
    model = DensityClassifier(KDESampler(0.5)).fit(X, y)
    expected = model.predict_log_proba(X)
    model.set_params(estimator__bandwidth=9.0, priors=[1.0, 0.0, 0.0])
    assert_array_equal(model.predict_log_proba(X), expected)


def test_the_density_passed_is_not_fitted():
    density = KDESampler(0.5)
    model = DensityClassifier(density).fit(*blobs())
    assert not hasattr(density, "points_")
    assert len({id(found) for found in model.estimators_}) == 3


@pytest.mark.parametrize(
    "method",
    [
        "predict",
        "predict_proba",
        "predict_log_proba",
        "decision_function",
        "score_samples",
        "sample",
    ],
)
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="DensityClassifier"):
        getattr(DensityClassifier(), method)(*(() if method == "sample" else (blobs()[0],)))


# -------------------------------------------------------------------------------------- errors


def test_a_class_without_weight_is_named():
    X, y = blobs()
    with pytest.raises(ValueError, match="class b has no row of positive sample_weight"):
        DensityClassifier(KDE).fit(X, y, sample_weight=(y != "b").astype(float))


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ([0.5, 0.5], r"priors has shape \(2,\); expected \(3,\)"),
        ([0.5, 0.2, 0.2], "are not probabilities"),
        ([0.7, -0.2, 0.5], "are not probabilities"),
        ([np.nan, 0.5, 0.5], "are not probabilities"),
        ("uniform", "priors of type str is not numeric"),
    ],
)
def test_bad_priors(priors, message):
    with pytest.raises(ValueError, match=message):
        DensityClassifier(KDE, priors=priors).fit(*blobs())


def test_booleans_are_no_priors():
    with pytest.raises(TypeError, match=r"priors=\[True, False, False\] holds booleans"):
        DensityClassifier(KDE, priors=[True, False, False]).fit(*blobs())


def test_tensors_with_gradients_are_refused():
    X, y = blobs()
    with pytest.raises(TypeError, match=r"X is a tensor that requires gradients.*X\.detach\(\)"):
        DensityClassifier(KDE).fit(torch.tensor(X, requires_grad=True), y)


def test_bad_densities():
    X, y = blobs()
    scaled = make_pipeline(StandardScaler(), KDE)
    with pytest.raises(
        ValueError, match=r"estimator is a Pipeline with transformers.*TransformedDensity"
    ):
        DensityClassifier(scaled).fit(X, y)
    with pytest.raises(TypeError, match="estimator of type StandardScaler has no fit"):
        DensityClassifier(StandardScaler()).fit(X, y)
    with pytest.raises(TypeError, match=r"density of class a.* takes no sample_weight"):
        DensityClassifier(GaussianMixture(1)).fit(X, y, sample_weight=np.ones(len(X)))


def test_a_fit_that_fails_leaves_the_old_one_whole():
    X, y = blobs()
    model = DensityClassifier(KDE).fit(X, y)
    expected = logsumexp(model.predict_log_proba(X), axis=1), model.score_samples(X)
    with pytest.raises(ValueError, match="priors"):
        model.set_params(priors=[1.0]).fit(X[:, :1], y)
    assert_array_equal(model.score_samples(X), expected[1])
