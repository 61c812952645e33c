import numpy as np
import pandas as pd
import pytest
from display_models import frame
from sklearn.exceptions import NotFittedError

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityClassifier
from skdiffsmooth.displays import DensityDisplay, SampleComparisonDisplay
from skdiffsmooth.tables import TableDensity


def test_real_rows_below_and_drawn_rows_above(models):
    X = frame(3)
    display = SampleComparisonDisplay.from_estimator(models[3], X, random_state=0).plot()
    np.testing.assert_array_equal(display.drawn, models[3].sample(40, random_state=0))
    (below,), (above,) = (display.ax_[i, j].get_lines() for i, j in ((2, 0), (0, 2)))
    np.testing.assert_array_equal(below.get_xydata(), X.to_numpy()[:, [0, 2]])
    np.testing.assert_array_equal(above.get_xydata(), display.drawn[:, [2, 0]])
    assert below.get_marker() != above.get_marker()
    assert display.ax_[2, 0].get_xlim() == display.ax_[0, 0].get_xlim()
    shown = display.frame()
    assert list(shown["source"].value_counts()[["real", "drawn"]]) == [40, 40]


def test_one_column_and_a_classifier(models):
    display = SampleComparisonDisplay.from_estimator(models[1], frame(1), n_samples=7).plot()
    assert display.drawn.shape == (7, 1)
    assert [line.get_linestyle() for line in display.ax_.get_lines()] == ["-", "--"]
    classes = DensityClassifier(KDESampler(0.5)).fit(frame(2), np.arange(40) % 2)
    assert SampleComparisonDisplay.from_estimator(classes, frame(2)).drawn.shape == (40, 2)


def test_columns_of_categories():
    X = frame(1).assign(kind=pd.Categorical(["a", "b"] * 20), flag=[True, False] * 20)
    display = SampleComparisonDisplay.from_samples(X, X[:10]).plot()
    assert display.levels == [None, ["a", "b"], ["False", "True"]]
    assert list(display.frame()["kind"][:2]) == ["a", "b"]
    assert [t.get_text() for t in display.ax_[2, 1].get_xticklabels()] == ["a", "b"]


def test_bad_input(models):
    with pytest.raises(NotFittedError):
        SampleComparisonDisplay.from_estimator(SmoothedScoreDiffusion(), frame(2))
    wide = KDESampler(1.0).fit(np.random.RandomState(0).normal(size=(20, 1000)))
    with pytest.raises(ValueError, match="1000 columns cannot be drawn"):
        SampleComparisonDisplay.from_estimator(wide, wide.points_)
    with pytest.raises(ValueError, match="drawn has 2 columns and X has 3"):
        SampleComparisonDisplay.from_samples(frame(3), frame(2))
    with pytest.raises(ValueError, match="X holds no rows"):
        SampleComparisonDisplay.from_samples(frame(2)[:0], frame(2))
    missing = frame(2)
    missing.loc[3, "column 1"] = np.nan
    with pytest.raises(ValueError, match="'column 1' of drawn holds 1 values that are NaN"):
        SampleComparisonDisplay.from_samples(frame(2), missing)
    with pytest.raises(ValueError, match="columns is empty"):
        SampleComparisonDisplay.from_estimator(models[2], frame(2), columns=[])
    with pytest.raises(ValueError, match="n_samples"):
        SampleComparisonDisplay.from_estimator(models[2], frame(2), n_samples=0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_a_table_with_levels():
    X = frame(1).assign(kind=["a", "b"] * 20)
    model = TableDensity().fit(X)
    display = SampleComparisonDisplay.from_estimator(model, X, random_state=0).plot()
    assert display.levels == [None, ["a", "b"]]
    expected = model.sample(40, random_state=0)
    assert list(display.frame()["kind"][40:]) == list(expected["kind"])
    density = DensityDisplay.from_estimator(model, X, columns=["column 0"], grid_resolution=5)
    assert not density.is_exact
    with pytest.raises(ValueError, match="'kind' holds levels"):
        DensityDisplay.from_estimator(model, grid_resolution=5)


@pytest.mark.parametrize("labels", [[5, 7], [1, 0]])
def test_labels_of_columns_may_be_integers(labels):
    X = pd.DataFrame(np.random.RandomState(0).normal(size=(30, 2)), columns=labels)
    display = SampleComparisonDisplay.from_samples(X, X)
    assert display.columns == [str(label) for label in labels]
    np.testing.assert_array_equal(display.real, X)
    model = KDESampler(0.5).fit(X.to_numpy())
    display = SampleComparisonDisplay.from_estimator(model, X, random_state=0)
    assert display.columns == [str(label) for label in labels]


def _table_with_names():
    rng = np.random.RandomState(0)
    names = [f"i{k}" for k in range(40)]
    X = pd.DataFrame({"x": rng.normal(size=40), "name": names, "kind": ["a", "b"] * 20})
    return X.assign(y=X["x"] + rng.normal(size=40))


def test_columns_that_a_density_of_tables_leaves_out_are_not_drawn():
    X = _table_with_names()
    model = TableDensity({"name": None}, density=KDESampler()).fit(X)
    display = SampleComparisonDisplay.from_estimator(model, X, random_state=0)
    assert display.columns == ["x", "kind", "y"]
    np.testing.assert_array_equal(display.real[:, 2], X["y"])
    density = DensityDisplay.from_estimator(model, X, columns=["y", "x"])
    np.testing.assert_array_equal(density.rows, X[["y", "x"]])


def test_labels_that_are_no_text_name_the_columns():
    X = pd.DataFrame(np.random.RandomState(0).normal(size=(40, 3)), columns=[10, 20, 30])
    for model in (KDESampler().fit(X), TableDensity(density=KDESampler()).fit(X)):
        display = SampleComparisonDisplay.from_estimator(model, X, random_state=0, columns=[30, 10])
        np.testing.assert_array_equal(display.real, X[[30, 10]])
    model = KDESampler().fit(X)
    display = DensityDisplay.from_estimator(model, columns=[20], given={10: 0.5, 30: -0.2})
    (values,), found = display.grid, display.log_density[(0,)]
    rows = np.column_stack([np.full_like(values, 0.5), values, np.full_like(values, -0.2)])
    np.testing.assert_allclose(found, model.score_samples(rows, given=[10, 30]))
