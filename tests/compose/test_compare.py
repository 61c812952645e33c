import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import CoarseScoreDiffusion, KDESampler, compare
from skdiffsmooth.compose import TransformedDensity

X, HELD_OUT = np.random.RandomState(0).normal(size=(2, 40, 2))
KDE = KDESampler(0.5).fit(X)
MIXTURE = GaussianMixture(random_state=0).fit(X)


def test_means_and_paired_standard_errors():
    result = compare({"KDE": KDE, "mixture": MIXTURE}, HELD_OUT)
    by_row = KDE.score_samples(HELD_OUT) - MIXTURE.score_samples(HELD_OUT)
    np.testing.assert_allclose(result.mean, [KDE.score(HELD_OUT), MIXTURE.score(HELD_OUT)])
    assert result.best == "mixture"
    # The textbook formula of a paired difference.
    np.testing.assert_allclose(result.difference, [by_row.mean(), 0], atol=1e-14)
    expected = np.sqrt(np.sum((by_row - by_row.mean()) ** 2) / (len(by_row) - 1) / len(by_row))
    np.testing.assert_allclose(result.standard_error, [expected, 0])


def test_order_of_rows_and_models_does_not_matter():
    result = compare({"KDE": KDE, "mixture": MIXTURE}, HELD_OUT)
    other = compare({"mixture": MIXTURE, "KDE": KDE}, HELD_OUT[::-1])
    pd.testing.assert_frame_equal(result.frame(), other.frame())


def test_a_table_to_read():
    result = compare({"KDE": KDE, "mixture": MIXTURE}, HELD_OUT)
    first, best, other = str(result).splitlines()
    assert first.split() == ["model", "nats", "a", "row", "compared", "with", "the", "best"]
    assert best.startswith("mixture")
    assert other.split()[0] == "KDE"
    assert float(other.split()[1]) == pytest.approx(KDE.score(HELD_OUT), abs=1e-3)


def test_searches_frozen_models_and_one_model_of_one_row():
    search = GridSearchCV(KernelDensity(), {"bandwidth": [0.3, 0.6]}).fit(X)
    result = compare({"search": search, "frozen": FrozenEstimator(KDE)}, HELD_OUT[:1])
    assert np.isnan(result.standard_error).sum() == 1
    assert compare({"KDE": KDE}, HELD_OUT).difference == 0


def test_a_density_that_is_zero_at_a_row():
    compact = KDESampler(0.1, kernel="tophat").fit(X)
    result = compare({"compact": compact, "KDE": KDE}, HELD_OUT)
    assert result.frame()["n_zero"]["compact"] > 0
    assert result.best == "KDE"
    assert result.difference[0] == -np.inf
    assert np.isnan(result.standard_error[0])


def test_log_densities_of_different_units_are_refused():
    pipeline = make_pipeline(StandardScaler(), KDESampler(0.5)).fit(X)
    with pytest.raises(ValueError, match=r"models\['scaled'\] is a Pipeline with transformers"):
        compare({"KDE": KDE, "scaled": pipeline}, HELD_OUT)
    with pytest.raises(ValueError, match=r"models\['search'\] is a Pipeline with transformers"):
        compare({"search": GridSearchCV(pipeline, {}).fit(X)}, HELD_OUT)
    transformed = TransformedDensity(KDESampler(0.5), transformer=StandardScaler()).fit(X)
    assert len(compare({"KDE": KDE, "transformed": transformed}, HELD_OUT).names) == 2
    coarse = CoarseScoreDiffusion(n_components=1).fit(X)
    with pytest.raises(ValueError, match=r"models\['coarse'\] holds .*fills_space_ is False"):
        compare({"KDE": KDE, "coarse": coarse}, HELD_OUT)


def test_models_say_their_base_measure():
    def counting(*measure):
        model = KDESampler(0.5).fit(X)
        model.base_measure_ = dict(enumerate(measure))
        return model

    mixed = counting("counting", "Lebesgue measure")
    same = counting("counting", "Lebesgue measure")
    continuous = counting("Lebesgue measure", "Lebesgue measure")
    assert compare({"KDE": KDE, "continuous": continuous}, HELD_OUT).best == "KDE"
    assert len(compare({"mixed": mixed, "same": same}, HELD_OUT).names) == 2
    with pytest.raises(ValueError, match="numbers of different units cannot be compared"):
        compare({"KDE": KDE, "mixed": mixed}, HELD_OUT)
    with pytest.raises(ValueError, match=r"\{0: 'counting', 1: 'counting'\}"):
        compare({"mixed": mixed, "other": counting("counting", "counting")}, HELD_OUT)


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ([KDE], TypeError, "expected a mapping"),
        ({}, ValueError, "models is empty"),
        ({"a": KDESampler}, TypeError, r"models\['a'\] is the class"),
        ({"a": 3}, TypeError, "has no fit or no score_samples"),
        ({"a": KDESampler()}, NotFittedError, "not fitted"),
        ({"a": IsolationForest().fit(X)}, TypeError, "outlier detector"),
        ({"a": KDESampler(0.5).fit(X[:, :1])}, ValueError, r"models\['a'\]: .* 2 features"),
    ],
)
def test_bad_models(models, error, message):
    with pytest.raises(error, match=message):
        compare(models, HELD_OUT)
