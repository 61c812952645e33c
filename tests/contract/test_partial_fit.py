"""`partial_fit` adds rows to a fitted model: the result is that of `fit` on all rows at its scales."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion

COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}
ESTIMATORS = {
    "smoothed": SmoothedScoreDiffusion(**COARSE),
    "scaled": SmoothedScoreDiffusion(sigma=lambda scale: scale / 2, metric="whitened", **COARSE),
    "windows": SmoothedScoreDiffusion(base="parzen", **COARSE),
    "local": ManifoldAdaptedDiffusion(n_components=1, n_cells=2, **COARSE),
    "kde": KDESampler(),
    "scott": KDESampler("scott"),
}
# Two columns of different widths, and ten copies among the rows that are added.
ROWS = np.random.RandomState(0).normal(size=(60, 2)) * [1.0, 5.0]
ROWS = np.vstack([ROWS, ROWS[:10]])
WEIGHTS = np.random.RandomState(1).uniform(0.1, 2.0, size=70)


def with_settings_of(fitted):
    """Return an unfitted copy whose parameters are the settings of a fitted estimator."""
    names = ["bandwidth", "metric"] if isinstance(fitted, KDESampler) else list(fitted.settings_)
    settings = {name: getattr(fitted, f"{name}_") for name in names}
    if callable(getattr(fitted, "sigma", None)):
        settings["sigma"] = fitted.sigma
    return clone(fitted).set_params(**settings)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_it_equals_a_fit_on_all_rows_at_the_same_scales(estimator, weights):
    first, rest = slice(None, 40), slice(40, None)
    of = (lambda part: None) if weights is None else (lambda part: weights[part])
    model = clone(estimator).fit(ROWS[first], sample_weight=of(first))
    expected = with_settings_of(model).fit(ROWS, sample_weight=weights)
    before = model.get_params()
    assert model.partial_fit(ROWS[rest], sample_weight=of(rest)) is model
    # Up to the rounding of sums of weights.
    np.testing.assert_allclose(
        model.score_samples(ROWS), expected.score_samples(ROWS), rtol=0, atol=1e-11
    )
    np.testing.assert_allclose(
        model.sample(5, random_state=0), expected.sample(5, random_state=0), atol=1e-11
    )
    assert model.weight_sum_ == pytest.approx(70 if weights is None else weights.sum())
    assert model.get_params() == before


def test_rows_one_by_one_equal_rows_at_once():
    start = KDESampler().fit(ROWS[:50])
    at_once = clone(start).fit(ROWS[:50]).partial_fit(ROWS[50:60])
    for row in ROWS[50:60]:
        start.partial_fit(row[None])
    np.testing.assert_allclose(start.score_samples(ROWS), at_once.score_samples(ROWS), atol=1e-12)


def test_the_first_call_is_fit_and_names_are_kept():
    frame = pd.DataFrame(ROWS, columns=["a", "b"])
    model = KDESampler().partial_fit(frame[:40])
    np.testing.assert_array_equal(model.points_, KDESampler().fit(frame[:40]).points_)
    model.partial_fit(frame[40:])
    assert list(model.feature_names_in_) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        model.partial_fit(frame.rename(columns={"b": "c"}))


@pytest.mark.parametrize("estimator", [ESTIMATORS["kde"], ESTIMATORS["smoothed"]])
def test_bad_rows_leave_the_model_as_it_was(estimator):
    model = clone(estimator).fit(ROWS[:40])
    before = model.score_samples(ROWS)
    for rows, message in (
        (ROWS[:, :1], "1 features"),
        ([[np.nan, 0.0]], "NaN"),
        (ROWS[:0], "0 sample"),
    ):
        with pytest.raises(ValueError, match=message):
            model.partial_fit(rows)
    with pytest.raises(ValueError, match="sample_weight"):
        model.partial_fit(ROWS[:2], sample_weight=[1.0, -1.0])
    np.testing.assert_array_equal(model.score_samples(ROWS), before)


def test_weights_whose_sum_overflows():
    model = KDESampler(0.5).fit(ROWS[:4], sample_weight=[1e308] * 4)
    with pytest.raises(ValueError, match="divided by their maximum"):
        model.partial_fit(ROWS[4:8])
