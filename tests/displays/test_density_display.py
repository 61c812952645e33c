import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_models import COARSE, frame
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.displays import DensityDisplay


def test_curve_and_image_are_the_log_density_of_the_estimator(models):
    curve = DensityDisplay.from_estimator(models[1])
    rows = frame(1).iloc[:0].reindex(range(len(curve.grid[0])))
    rows["column 0"] = curve.grid[0]
    np.testing.assert_array_equal(curve.log_density[0,], models[1].score_samples(rows))
    image = DensityDisplay.from_estimator(models[2], grid=[[0.0, 1.0], [-1.0, 0.0, 2.0]])
    assert image.log_density[0, 1].shape == (2, 3)
    shown = image.frame()
    expected = models[2].score_samples(shown[["column 0", "column 1"]])
    np.testing.assert_array_equal(shown["log_density"], expected)


def test_the_curve_of_a_column_has_mass_one(models):
    # Of one column, of one of two by quadrature, of one of three from draws; the trapezoids of 200
    # values, and half a per cent of draws outside, are less than 2 % away from one.
    for d in (1, 2, 3):
        display = DensityDisplay.from_estimator(models[d], columns=[0])
        assert display.is_exact == (d < 3)
        mass = np.trapezoid(np.exp(display.log_density[0,]), display.grid[0])
        assert abs(mass - 1) < 0.02


def test_a_slice_is_the_conditional_density(models):
    display = DensityDisplay.from_estimator(models[2], given={"column 1": 0.5})
    assert display.columns == ["column 0"]
    assert display.given == {"column 1": 0.5}
    # A normalised density of the free column; nothing is outside of the grid but 1 %.
    assert abs(np.trapezoid(np.exp(display.log_density[0,]), display.grid[0]) - 1) < 0.02
    rows = frame(2).iloc[:0].reindex(range(len(display.grid[0])))
    rows["column 0"], rows["column 1"] = display.grid[0], 0.5
    expected = models[2].score_samples(rows, given=["column 1"])
    np.testing.assert_allclose(display.log_density[0,], expected, atol=1e-12)


def test_pairs_have_a_panel_for_each_column_and_pair(models):
    display = DensityDisplay.from_estimator(models[3], grid_resolution=10).plot()
    assert set(display.log_density) == {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)}
    assert display.ax_.shape == (3, 3)
    assert display.ax_[2, 0].get_xlabel() == "column 0"
    assert display.ax_[2, 0].get_ylabel() == "column 2"
    assert len(display.frame()) == 3 * 10 + 3 * 100


def test_the_order_of_columns_is_that_of_the_user(models):
    display = DensityDisplay.from_estimator(models[2], columns=["column 1", 0], grid_resolution=5)
    assert display.columns == ["column 1", "column 0"]
    shown = display.frame()
    expected = models[2].score_samples(shown[["column 0", "column 1"]])
    np.testing.assert_array_equal(shown["log_density"], expected)


def test_what_other_estimators_have(models):
    X = frame(2)
    search = GridSearchCV(KDESampler(), {"bandwidth": [0.3, 0.5]}).fit(X)
    for model in (search, make_pipeline(StandardScaler(), KDESampler()).fit(X)):
        DensityDisplay.from_estimator(model, X, grid_resolution=5).plot()
    mixture = GaussianMixture(random_state=0).fit(X)
    assert DensityDisplay.from_estimator(mixture, grid_resolution=5).is_exact
    # It has no marginals: from draws.
    assert not DensityDisplay.from_estimator(mixture, columns=[0], grid_resolution=5).is_exact


def test_a_density_that_is_zero_somewhere():
    X = np.linspace(0, 1, 10)[:, None] * [1, 1]
    model = KDESampler(0.05, kernel="tophat").fit(X)
    DensityDisplay.from_estimator(model, grid_resolution=20).plot()
    far = DensityDisplay.from_estimator(model, grid=[[5.0, 6.0], [5.0, 6.0]])
    with pytest.raises(ValueError, match="zero on the whole grid"):
        far.plot()


def test_axes_of_the_user(models):
    display = DensityDisplay.from_estimator(models[1])
    _, ax = plt.subplots()
    assert display.plot(ax, label="a").ax_ is ax
    display.plot(ax, label="b")
    first, second = ax.get_lines()
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    pairs = DensityDisplay.from_estimator(models[3], grid_resolution=4)
    figure, ax = plt.subplots()
    assert pairs.plot(ax).figure_ is figure
    with pytest.raises(ValueError, match="ax holds 2 axes; expected 9"):
        pairs.plot(plt.subplots(1, 2)[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": []}, ValueError, "columns is empty"),
        ({"columns": ["nothing"]}, ValueError, "not known"),
        ({"columns": 0}, TypeError, "collection of columns"),
        ({"columns": [0], "given": {0: 1.0}}, ValueError, "share a column"),
        ({"given": {}}, ValueError, "given is empty"),
        ({"given": {0: np.nan}}, ValueError, "NaN or infinite"),
        ({"given": {0: 1.0, 1: 1.0}}, ValueError, "names all 2 columns"),
        ({"grid": [[0.0, np.nan], [0.0, 1.0]]}, ValueError, "not finite and increasing"),
        ({"grid": [[0.0, np.inf], [0.0, 1.0]]}, ValueError, "not finite and increasing"),
        ({"grid": [[0.0], [0.0, 1.0]]}, ValueError, "at least two"),
        ({"grid": [[0.0, 1.0]]}, ValueError, "grid has 1 arrays; expected one .* 2 columns"),
        ({"grid_resolution": 1}, ValueError, "grid_resolution"),
        ({"X": np.zeros((3, 5))}, ValueError, "X has 5 features; expected 2"),
        ({"X": [[np.nan, 0.0]]}, ValueError, "NaN"),
    ],
)
def test_bad_input(models, options, error, message):
    with pytest.raises(error, match=message):
        DensityDisplay.from_estimator(models[2], **options)


def test_unfitted_and_wide_models():
    with pytest.raises(NotFittedError):
        DensityDisplay.from_estimator(SmoothedScoreDiffusion())
    wide = KDESampler(1.0).fit(np.random.RandomState(0).normal(size=(20, 1000)))
    with pytest.raises(
        ValueError, match=r"1000 columns cannot be drawn .* at most 8\. Pass columns="
    ):
        DensityDisplay.from_estimator(wide)
    assert len(DensityDisplay.from_estimator(wide, columns=[0, 999], grid_resolution=4).grid) == 2


def test_a_constant_column_has_a_grid():
    X = np.column_stack([np.random.RandomState(0).normal(size=30), np.full(30, 7.0)])
    model = SmoothedScoreDiffusion(0.3, 0.3, metric="scaled", **COARSE).fit(X)
    DensityDisplay.from_estimator(model, X, grid_resolution=6).plot()
