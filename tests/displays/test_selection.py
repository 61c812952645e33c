import numpy as np
import pytest
from display_models import COARSE, frame
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.displays import SelectionCurveDisplay
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

SMOOTHED = SmoothedScoreDiffusion(**COARSE)


@pytest.fixture(scope="module")
def search():
    return SmoothedScoreDiffusionCV(SMOOTHED, n_refinements=1).fit(frame(2))


def test_all_comparable_candidates_and_no_others(search):
    results, display = search.cv_results_, SelectionCurveDisplay.from_estimator(search)
    chosen = results["metric"][search.best_index_]
    comparable = np.array(results["is_comparable"]) & [m == chosen for m in results["metric"]]
    np.testing.assert_array_equal(display.score, np.array(results["score"])[comparable])
    assert "final" not in np.array(results["stage"])[comparable]
    # The choice is drawn at its score among these.
    best = search.best_index_
    assert display.bandwidth[display.chosen] == results["bandwidth_factor"][best]
    assert display.sigma[display.chosen] == results["sigma_factor"][best]
    assert display.kde_score == display.score[display.sigma == 0].max()
    assert display.unit == "h"


def test_lines_are_distinguished_by_more_than_colour(search):
    display = SelectionCurveDisplay.from_estimator(search).plot()
    lines = [container[0] for container in display.ax_.containers]
    for name in ("color", "linestyle", "marker"):
        values = [getattr(line, f"get_{name}")() for line in lines]
        assert len(set(values)) == len(values) >= 3
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert {"KDE (sigma = 0)", "chosen"} <= set(labels)
    assert "nats" in display.ax_.get_ylabel()


def test_a_grid_search_in_a_pipeline():
    # A metric that is given, so that fits compare none.
    model = make_pipeline(StandardScaler(), SmoothedScoreDiffusion(metric="scaled", **COARSE))
    scales = {"sigma": ["0h", "1h"], "bandwidth": ["0.7h", "1h"]}
    grid = {f"smoothedscorediffusion__{name}": values for name, values in scales.items()}
    search = GridSearchCV(model, grid, cv=3).fit(frame(2))
    display = SelectionCurveDisplay.from_estimator(search).plot()
    assert display.score[display.chosen] == search.best_score_
    # Paired: the choice does not differ from itself.
    assert display.standard_error[display.chosen] == 0
    assert np.all(np.delete(display.standard_error, display.chosen) > 0)
    shown = display.frame()
    assert shown["chosen"].sum() == 1
    assert sorted(shown["sigma"]) == [0, 0, 1, 1]


def test_candidates_of_other_metrics_are_left_out():
    grid = {"bandwidth": [0.3, 0.6], "metric": ["scaled", "whitened"]}
    search = GridSearchCV(KDESampler(), grid, cv=3).fit(frame(2))
    display = SelectionCurveDisplay.from_estimator(search).plot()
    assert len(display.score) == 2
    assert display.kde_score is None
    assert display.ax_.get_xlabel() == "bandwidth, in units of the metric"


def test_bad_input():
    with pytest.raises(NotFittedError):
        SelectionCurveDisplay.from_estimator(SmoothedScoreDiffusionCV())
    with pytest.raises(TypeError, match="no cv_results_"):
        SelectionCurveDisplay.from_estimator(KDESampler(0.5).fit(frame(2)))
    other = GridSearchCV(KDESampler(0.5), {"kernel": ["gaussian", "exponential"]}, cv=2)
    with pytest.raises(ValueError, match="compares kernel; expected bandwidth or sigma"):
        SelectionCurveDisplay.from_estimator(other.fit(frame(2)))
    single = GridSearchCV(KDESampler(), {"bandwidth": [0.5]}, cv=2).fit(frame(2))
    with pytest.raises(ValueError, match="1 comparable candidates"):
        SelectionCurveDisplay.from_estimator(single)
    smoothed = SmoothedScoreDiffusion(0.5, **COARSE)
    mixed = GridSearchCV(smoothed, {"sigma": [0.3, "1h"]}, cv=2).fit(frame(2))
    with pytest.raises(ValueError, match="no common unit"):
        SelectionCurveDisplay.from_estimator(mixed)
