"""TableDensity as an estimator of scikit-learn, and the frames it returns."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityStacking
from skdiffsmooth.tables import Continuous, Periodic, Positive, TableDensity


def _frame(n=80):
    """Return rows of a category, an hour, rounded and exact numbers, a count and missing cells."""
    rng = np.random.RandomState(0)
    day = rng.uniform(size=n) < 0.5
    frame = pd.DataFrame(
        {
            "shift": pd.Categorical(
                np.where(day, "day", "night"), categories=["night", "day", "none"]
            ),
            "hour": rng.normal(np.where(day, 12, 0), 1.5) % 24,
            "height": rng.normal(170, 9, size=n).round(1),
            "children": rng.poisson(1.2, size=n),
        },
        index=pd.RangeIndex(n, name="row"),
    )
    frame.loc[:4, "height"] = np.nan
    frame.loc[5:7, "shift"] = None
    return frame


KINDS = {"hour": Periodic(24)}


@pytest.fixture(scope="module")
def model():
    """Return a fitted density of the frame, whose continuous part costs little."""
    return TableDensity(KINDS, density=KDESampler()).fit(_frame())


def test_draws_are_a_frame_like_the_training_frame(model):
    frame, drawn = _frame(), model.sample(50, random_state=0)
    assert drawn["shift"].cat.categories.tolist() == ["night", "day", "none"]
    assert drawn["children"].dtype == frame["children"].dtype
    np.testing.assert_allclose(drawn["height"], drawn["height"].round(1), atol=1e-12)
    assert drawn["hour"].between(0, 24).all()
    assert drawn["children"].min() >= 0
    assert not drawn.isna().any(axis=None)
    again = model.sample(50, random_state=0)
    pd.testing.assert_frame_equal(drawn, again)


def test_imputed_frames_keep_what_is_known(model):
    frame = _frame()
    before = frame.copy()
    filled = model.impute(frame, random_state=0)
    pd.testing.assert_frame_equal(frame, before)
    assert not filled.isna().any(axis=None)
    assert (
        (filled[before.notna()] == before[before.notna()])
        .where(before.notna(), True)
        .all(axis=None)
    )


def test_a_period_more_changes_nothing(model):
    frame = _frame()
    later = model.score_samples(frame.assign(hour=frame["hour"] + 24))
    np.testing.assert_allclose(model.score_samples(frame), later, atol=1e-9)


def test_the_end_of_a_period_is_its_beginning():
    hours = np.random.RandomState(0).normal(0, 1, size=(150, 1)) % 24
    ends = TableDensity({0: Periodic(24)}).fit(hours).score_samples([[23.99], [0.01]])
    density = TableDensity({0: Periodic(24)}, density=KDESampler()).fit(hours)
    # The truth, a normal distribution of width one, within 0.3 nats.
    np.testing.assert_allclose(ends, -0.919, atol=0.3)
    drawn = density.sample(500, random_state=0)
    assert drawn.min() >= 0
    assert drawn.max() < 24
    grid = (np.arange(240) + 0.5)[:, None] / 10
    assert np.exp(density.score_samples(grid)).sum() / 10 == pytest.approx(1, abs=0.002)


def test_positive_numbers_with_zeros_have_no_mass_below():
    rng = np.random.RandomState(0)
    x = rng.exponential(size=(120, 1))
    x[:15] = 0
    density = TableDensity({0: Positive(atoms=(0,))}).fit(x)
    drawn = density.sample(1000, random_state=0)
    assert drawn.min() == 0
    # Four standard errors.
    assert (drawn == 0).mean() == pytest.approx(15 / 120, abs=4 * np.sqrt(0.125 * 0.875 / 1000))
    assert np.exp(density.score_samples([[0.0]]))[0] == pytest.approx(15 / 120, abs=0.01)


def test_saving_keeps_every_answer(model):
    sio = pytest.importorskip("skops.io")
    frame, data = _frame(), sio.dumps(model)
    types = sio.get_untrusted_types(data=data)
    assert all(name.startswith(("skdiffsmooth.", "sklearn.")) for name in types)
    for twin in (sio.loads(data, trusted=types), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.score_samples(frame), model.score_samples(frame))
        drawn = model.sample(3, random_state=0)
        pd.testing.assert_frame_equal(twin.sample(3, random_state=0), drawn)


def test_parameters_are_cloned_and_searched(model):
    assert clone(model).get_params()["kinds"] == KINDS
    search = GridSearchCV(model, {"density__bandwidth": [0.05, 1.0, 100.0]}, cv=2).fit(_frame())
    assert search.best_params_ != {"density__bandwidth": 100.0}


def test_attributes_name_columns(model):
    assert model.feature_names_in_.tolist() == ["shift", "hour", "height", "children"]
    assert set(model.lambdas_) == {"shift"}
    (part,) = model.parts_
    assert part["columns"] == ["hour", "height", "children"]
    assert part["rows"] == 75
    assert model.base_measure_["hour"] == "Lebesgue measure"
    assert model.base_measure_["height"] == "counting measure of cells of width 0.1"


def test_an_estimator_that_is_not_fitted_says_so():
    for method in ("score_samples", "impute", "score"):
        with pytest.raises(NotFittedError):
            getattr(TableDensity(), method)(_frame())
    with pytest.raises(NotFittedError):
        TableDensity().sample()


@pytest.mark.parametrize("density", ["kde", KDESampler])
def test_what_is_no_density_is_refused_by_name(density):
    with pytest.raises(TypeError, match="density"):
        TableDensity(density=density).fit(_frame())


def test_densities_that_cannot_be_weighted_anew_are_fitted_again():
    rng = np.random.RandomState(0)
    kind = rng.choice(["a", "b"], size=60)
    x, y = rng.normal(np.where(kind == "a", 0, 4)), rng.normal(size=60)
    frame = pd.DataFrame({"kind": kind, "x": x, "y": y})
    density = SmoothedScoreDiffusion(0.2, 0.3, base="parzen", n_nodes=8, n_steps=8)
    fitted = TableDensity(density=density).fit(frame)
    with_base = fitted.score_samples(frame, given=["kind"])
    # The two kinds are apart: to know which it is gains nearly the entropy of a coin, log 2.
    without = fitted.score_samples(frame, columns=["kind"])
    joint = fitted.score_samples(frame)
    np.testing.assert_allclose(with_base, joint - without, atol=1e-10)
    assert fitted.parts_[0]["lambdas"]["kind"] < 0.2


def test_models_of_unlike_declarations_are_not_mixed():
    frame = _frame()[["height"]].dropna()
    exact = TableDensity({"height": Continuous(unit=None)}, density=KDESampler())
    members = [("cells", TableDensity(density=KDESampler())), ("numbers", exact)]
    with pytest.raises(ValueError, match=r"numbers.*different measures.*cells of width 0\.1"):
        DensityStacking(members).fit(frame)
