import numpy as np
from display_models import frame

from skdiffsmooth import KDESampler, compare
from skdiffsmooth.displays import ComparisonDisplay


def test_the_best_model_is_at_the_top():
    models = {f"h = {h}": KDESampler(h).fit(frame(2)) for h in (0.05, 0.5, 1.0)}
    models["compact"] = KDESampler(0.1, kernel="tophat").fit(frame(2))
    X = frame(2, seed=1)
    display = ComparisonDisplay.from_estimators(models, X).plot()
    result = compare(models, X)
    labels = [text.get_text().split("\n")[0] for text in display.ax_.get_yticklabels()]
    assert labels[-1] == result.best == "h = 0.5"
    assert labels[0] == "compact"
    assert [text.get_text() for text in display.ax_.texts] == ["density is zero at some rows"]
    assert list(display.frame().index) == labels[::-1]
    assert np.isneginf(display.frame()["mean"].iloc[-1])
