"""`sample`: one call draws from anything fitted, in the user's units."""

import pickle
import random
import sys
import types

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, norm
from sklearn.base import BaseEstimator, DensityMixin, clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.utils import check_random_state

import skdiffsmooth
from skdiffsmooth import KDESampler, SmoothedScoreDiffusion, sample
from skdiffsmooth.compose import DensityClassifier, TransformedDensity
from skdiffsmooth.tables import TableDensity

COARSE = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}
GRID = {"bandwidth": [0.1, 0.5]}


def table(n=60, seed=0):
    """Rows in units far apart: column 0 is near 1000, column 1 near 0.01."""
    return np.random.RandomState(seed).lognormal(size=(n, 2)) * [1.0, 1e-3] + [1000.0, 0.01]


FITTED = {
    "kde": KDESampler(0.3),
    "smoothed": SmoothedScoreDiffusion(0.3, 0.5, **COARSE),
    "their kde": KernelDensity(bandwidth=0.3),
    "mixture": GaussianMixture(2, random_state=0),
    "mixture, no seed": GaussianMixture(1),
    "bayesian mixture": BayesianGaussianMixture(n_components=2, random_state=0),
    "transformed": TransformedDensity(
        KDESampler(), make_pipeline(StandardScaler(), PowerTransformer())
    ),
    "pipeline": make_pipeline(StandardScaler(), KDESampler(0.3)),
    "long pipeline": make_pipeline(
        StandardScaler(), "passthrough", None, PowerTransformer(), PCA(1), GaussianMixture()
    ),
    "pipeline of a pipeline": make_pipeline(
        make_pipeline(StandardScaler(), PCA()), make_pipeline(StandardScaler(), KDESampler(0.3))
    ),
    "pipeline of nothing else": make_pipeline(KDESampler(0.3)),
    "search": GridSearchCV(KDESampler(), GRID, cv=3),
    "random search": RandomizedSearchCV(KDESampler(), GRID, cv=3, n_iter=2, random_state=0),
    "halving search": HalvingGridSearchCV(KDESampler(), GRID, cv=3, random_state=0),
    "search over a pipeline": GridSearchCV(
        make_pipeline(StandardScaler(), KDESampler()), {"kdesampler__bandwidth": [0.1, 0.5]}, cv=3
    ),
    "search in a pipeline": make_pipeline(StandardScaler(), GridSearchCV(KDESampler(), GRID, cv=3)),
    "search over transformers": GridSearchCV(
        TransformedDensity(KDESampler()), {"transformer": [None, StandardScaler()]}, cv=3
    ),
}


def models(names=FITTED):
    return pytest.mark.parametrize("name", names)


@pytest.fixture(scope="module")
def fitted():
    found = {}

    def of(name):
        if name not in found:
            found[name] = FITTED[name].fit(table())
        return found[name]

    return of


def global_state():
    return pickle.dumps((random.getstate(), check_random_state(None).get_state()))


def test_it_is_exported():
    assert skdiffsmooth.sample is skdiffsmooth.compose.sample is sample


@models()
def test_shape_seed_and_units(fitted, name):
    model = fitted(name)
    before, untouched = global_state(), pickle.dumps(model)
    draws = sample(model, 40, random_state=3)
    assert draws.shape == (40, 2)
    assert type(draws) is np.ndarray
    assert draws.dtype == np.float64
    assert sample(model).shape == (1, 2)
    assert_array_equal(sample(model, 40, random_state=3), draws)
    assert_array_equal(sample(model, 40, random_state=np.random.RandomState(3)), draws)
    assert not np.any(sample(model, 40) == sample(model, 40))
    generator = np.random.RandomState(3)
    sample(model, 40, random_state=generator)
    assert not np.any(sample(model, 40, random_state=generator) == draws)
    assert global_state() == before
    assert pickle.dumps(model) == untouched
    # In the user's units: bandwidths are below one in them, or in standard deviations.
    assert np.all(np.abs(np.median(draws, axis=0) - [1001, 0.011]) < [2.0, 2.0])


@models(["pipeline", "long pipeline", "pipeline of a pipeline", "search over a pipeline"])
def test_column_scales_come_back(fitted, name):
    draws = sample(fitted(name), 500, random_state=0)
    # Medians of 500 draws, beside those of 60 rows: within a factor of two in spread.
    spread = np.subtract(*np.percentile(draws, [75, 25], axis=0))
    expected = np.subtract(*np.percentile(table(), [75, 25], axis=0))
    assert np.all((spread / expected > 0.4) & (spread / expected < 2.5))


@pytest.mark.parametrize(
    "steps",
    [
        (StandardScaler(),),
        (StandardScaler(), PCA(1)),
        (PowerTransformer(),),
        (QuantileTransformer(n_quantiles=10, output_distribution="normal"),),
        (FunctionTransformer(np.log, np.exp), "passthrough", StandardScaler()),
    ],
    ids=str,
)
def test_a_pipeline_is_drawn_from_as_the_transformed_density(steps):
    X = np.abs(table())
    piped = make_pipeline(*steps, StandardScaler(), KDESampler(0.3)).fit(X)
    transformed = TransformedDensity(KDESampler(0.3), make_pipeline(*steps, StandardScaler()))
    expected = transformed.fit(X).sample(30, random_state=0)
    if not isinstance(steps[0], QuantileTransformer):
        # A pipeline hands its density what scikit-learn's quantiles make of the largest row.
        assert_allclose(sample(piped, 30, random_state=0), expected, rtol=1e-10)
    assert np.isfinite(sample(piped, 30, random_state=0)).all()


def test_a_pipeline_with_an_inverse_needs_no_jacobian():
    cube_root = FunctionTransformer(np.cbrt, lambda Z: Z**3)
    piped = make_pipeline(cube_root, KDESampler(0.3)).fit(table())
    draws = sample(piped, 20, random_state=0)
    assert_allclose(draws, piped[-1].sample(20, random_state=0) ** 3)


def test_directions_without_variance_stay_without():
    # Five rows span four directions of R^10: no density there, but there are draws.
    X = np.random.RandomState(0).normal(size=(5, 10))
    piped = make_pipeline(PCA(), KDESampler(0.3)).fit(X)
    centered, components = sample(piped, 20, random_state=0) - X.mean(axis=0), piped[0].components_
    assert_allclose(centered - centered @ components.T @ components, 0, atol=1e-12)


def test_rows_outside_the_range_of_a_step_are_drawn_again():
    # Squares undo negative numbers too, wrongly: scikit-learn's inverse would fold them.
    X = np.random.RandomState(0).uniform(0, 1, size=(200, 1)) ** 2
    piped = make_pipeline(FunctionTransformer(np.sqrt, np.square), KDESampler(0.4)).fit(X)
    draws = np.sqrt(sample(piped, 4000, random_state=0)[:, 0])
    points = piped[-1].points_[:, 0]

    def distribution(z):
        low = norm.cdf(-points / 0.4)
        return ((norm.cdf((z[:, None] - points) / 0.4) - low).sum(axis=1)) / (1 - low).sum()

    # Correct code fails for one seed in 10^4; this one is fixed.
    assert kstest(draws, distribution).pvalue > 1e-4


def test_next_to_nothing_inside_the_range_is_an_error():
    class Elsewhere(KDESampler):
        def sample(self, n_samples=1, random_state=None):
            return super().sample(n_samples, random_state) - 1e6

    piped = make_pipeline(FunctionTransformer(np.exp, np.log), Elsewhere(0.1)).fit(
        np.linspace(0, 1, 20)[:, None]
    )
    with pytest.raises(ValueError, match=r"0 of 3 rows were drawn inside the range"):
        sample(piped, 3)


def test_the_first_rows_of_a_mixture_are_fair_draws():
    X = np.concatenate([np.random.RandomState(0).normal(size=(100, 1)) + m for m in (-50, 50)])
    mixture = GaussianMixture(2, random_state=0).fit(X)
    # scikit-learn's own come component after component.
    share = np.mean(sample(mixture, 2000, random_state=0)[:1000] > 0)
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 1000)  # four standard errors, seeded


def test_draws_of_a_mixture_follow_it():
    mixture = GaussianMixture(1).fit(np.random.RandomState(0).normal(size=(100, 1)))
    draws = sample(mixture, 3000, random_state=0)[:, 0]
    law = norm(mixture.means_[0, 0], np.sqrt(mixture.covariances_[0, 0, 0]))
    # Correct code fails for one seed in 10^4; this one is fixed.
    assert kstest(draws, law.cdf).pvalue > 1e-4


def test_own_methods_give_the_same_draws(fitted):
    for name in ("kde", "smoothed", "transformed", "their kde"):
        model = fitted(name)
        assert_array_equal(
            sample(model, 7, random_state=5), model.sample(7, random_state=np.random.RandomState(5))
        )


@models(["kde", "mixture, no seed", "long pipeline", "search over a pipeline"])
def test_a_frozen_estimator_is_drawn_from_as_what_it_freezes(fitted, name):
    before = global_state()
    frozen = FrozenEstimator(fitted(name))
    assert_array_equal(sample(frozen, 9, random_state=3), sample(fitted(name), 9, random_state=3))
    piped = make_pipeline(FrozenEstimator(StandardScaler().fit(table())), frozen)
    assert np.isfinite(sample(piped, 9, random_state=3)).all()
    assert global_state() == before


# ------------------------------------------------------------------------------------ data frames


@models()
def test_data_frames(name):
    frame = pd.DataFrame(table(), columns=["mass", "width"])
    model = FITTED[name].fit(frame)
    found = sample(model, 5, random_state=0, output="pandas")
    assert isinstance(found, pd.DataFrame)
    assert_array_equal(found.to_numpy(), sample(model, 5, random_state=0))
    named = not isinstance(model, KernelDensity | GaussianMixture | BayesianGaussianMixture)
    assert list(found) == ["mass", "width"] or not named


def test_columns_without_names_are_numbered():
    model = KDESampler(0.3).fit(table())
    assert list(sample(model, output="pandas")) == ["x0", "x1"]


def test_names_survive_a_first_step_that_does_nothing():
    frame = pd.DataFrame(table(), columns=["mass", "width"])
    model = make_pipeline("passthrough", KDESampler(0.3)).fit(frame)
    assert list(sample(model, output="pandas")) == ["mass", "width"]


def test_names_survive_freezing():
    frame = pd.DataFrame(table(), columns=["mass", "width"])
    model = FrozenEstimator(make_pipeline("passthrough", KDESampler(0.3)).fit(frame))
    assert list(sample(model, output="pandas")) == ["mass", "width"]


def test_labels_of_classes_are_kept():
    X = np.concatenate([table(), table() + [50.0, 0.0]])
    frame, y = pd.DataFrame(X, columns=["u", "v"]), np.repeat(["near", "far"], 60)
    model = make_pipeline(StandardScaler(), DensityClassifier(KDESampler(0.3))).fit(frame, y)
    for fitted in (model, FrozenEstimator(model)):
        drawn = sample(fitted, 40, random_state=0, output="pandas")
        assert list(drawn.columns) == ["u", "v", "target"]
        assert_array_equal(drawn["target"], np.where(drawn["u"] > 1030, "far", "near"))
        rows, labels = sample(fitted, 40, random_state=0)
        assert_array_equal(rows, drawn[["u", "v"]])
        assert_array_equal(labels, drawn["target"])
    renamed = frame.set_axis(["target", "v"], axis=1)
    drawn = sample(DensityClassifier(KDESampler(0.3)).fit(renamed, y), 2, output="pandas")
    assert list(drawn.columns) == ["target", "v", "target_"]


def test_polars(monkeypatch):
    # A stand-in: polars is no dependency, not even of the tests.
    class Frame:
        def __init__(self, rows, schema):
            self.rows, self.schema = rows, schema

    model = KDESampler(0.3).fit(table())
    stub = types.ModuleType("polars")
    stub.DataFrame = Frame
    monkeypatch.setitem(sys.modules, "polars", stub)
    found = sample(model, 3, random_state=0, output="polars")
    assert found.rows.shape == (3, 2)
    assert found.schema == ["x0", "x1"]


@pytest.mark.parametrize("output", ["frame", None, 1])
def test_an_unknown_container(output):
    with pytest.raises((TypeError, ValueError), match="output="):
        sample(KDESampler(0.3).fit(table()), output=output)


# ----------------------------------------------------------------------------------------- errors


@models()
def test_not_fitted(name):
    with pytest.raises(NotFittedError):
        sample(clone(FITTED[name]))


def test_a_step_without_an_inverse():
    piped = make_pipeline(Normalizer(), KDESampler(0.3)).fit(table())
    with pytest.raises(TypeError, match=r"Normalizer\(\) has no method inverse_transform"):
        sample(piped)


def test_nothing_to_draw_from():
    with pytest.raises(TypeError, match="LinearRegression has no method sample"):
        sample(LinearRegression().fit(table(), table()))
    with pytest.raises(TypeError, match="StandardScaler has no method sample"):
        sample(make_pipeline(StandardScaler(), StandardScaler()).fit(table()))
    with pytest.raises(TypeError, match="cannot be drawn from"):
        sample(KernelDensity(kernel="linear").fit(table()))


def test_a_search_that_kept_nothing():
    search = GridSearchCV(KDESampler(), GRID, cv=3, refit=False).fit(table())
    with pytest.raises(ValueError, match="refit=False"):
        sample(search)


def test_a_method_that_cannot_be_seeded():
    class Dice(DensityMixin, BaseEstimator):
        def fit(self, X, y=None):
            self.fitted_ = True
            return self

        def sample(self, n_samples=1):
            return np.zeros((n_samples, 1))

    with pytest.raises(TypeError, match=r"Dice\.sample takes no random_state"):
        sample(Dice().fit(table()))


@pytest.mark.parametrize(
    ("n_samples", "random_state", "message"),
    [(0, None, "n_samples=0"), (2.5, None, r"n_samples=2\.5"), (2, -1, "random_state=-1")],
)
def test_bad_numbers(n_samples, random_state, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sample(KDESampler(0.3).fit(table()), n_samples, random_state)


def test_labels_that_are_no_text_are_kept():
    X = pd.DataFrame(table(), columns=[10, 20])
    assert list(sample(KDESampler("scott").fit(X), 3, output="pandas")) == [10, 20]
    model = TableDensity(density=KDESampler("scott")).fit(X)
    assert list(sample(model, 3, output="pandas")) == [10, 20]
