"""DensityImputer: cells that are there stay, missing ones follow their distribution given them."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skdiffsmooth import KDESampler
from skdiffsmooth.tables import DensityImputer, Periodic, TableColumns, TableDensity


def frame(n=150, seed=0):
    rng = np.random.RandomState(seed)
    kind = rng.choice(["cat", "dog", "fox"], n)
    shift = (kind == "dog") * 2.0 - (kind == "fox") * 2.0
    return pd.DataFrame(
        {
            "kind": pd.Categorical(kind, categories=["fox", "dog", "cat"]),
            "mass": np.exp(shift + rng.normal(0, 0.3, n)).round(3),
            "legs": rng.poisson(3, n),
            "spend": np.where(rng.uniform(size=n) < 0.4, 0.0, rng.lognormal(3, 0.5, n)),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.randint(0, 400, n), unit="D"),
        },
        index=pd.RangeIndex(5, n + 5, name="id"),
    )


def gaps(X, seed=1, share=0.15):
    """Return the frame with missing cells, in the dtypes that these need."""
    made = X.astype({"legs": float})
    for j in range(X.shape[1]):
        made.iloc[np.random.RandomState(seed + j).uniform(size=len(X)) < share, j] = None
    return made


def fast(**options):
    return DensityImputer(TableDensity(density=KDESampler(bandwidth="loo")), **options)


def test_observed_cells_stay_and_no_cell_is_missing():
    X = frame(60)
    missing = gaps(X)
    before = missing.copy(deep=True)
    imputer = fast(random_state=0).fit(X)
    filled = imputer.transform(missing)
    pd.testing.assert_frame_equal(missing, before)
    assert not filled.isna().any(axis=None)
    assert filled.dtypes.equals(X.dtypes)
    assert filled.index.equals(X.index)
    for name in X:
        seen = missing[name].notna()
        assert filled.loc[seen, name].equals(X.loc[seen, name])
    assert set(filled["kind"]) <= {"cat", "dog", "fox"}
    assert (filled["spend"] >= 0).all()


def test_a_query_that_the_training_table_would_round_stays():
    X = pd.DataFrame(
        {"a": np.random.RandomState(0).normal(size=60).round(1), "b": np.arange(60.0) ** 1.5}
    )
    query = pd.DataFrame({"a": [0.123456, None], "b": [None, 3.0]})
    filled = fast(random_state=0).fit(X).transform(query)
    assert filled.loc[0, "a"] == 0.123456
    assert filled.loc[1, "a"] == pytest.approx(round(filled.loc[1, "a"], 1), abs=1e-12)


def test_draws_depend_on_the_seed_only():
    X, missing = frame(60), gaps(frame(60))
    imputer = fast(random_state=3).fit(X)
    first = imputer.transform(missing)
    pd.testing.assert_frame_equal(first, imputer.transform(missing))
    pd.testing.assert_frame_equal(first, pickle.loads(pickle.dumps(imputer)).transform(missing))
    other = imputer.set_params(random_state=4).transform(missing)
    assert not first.equals(other)


def test_levels_follow_what_is_known():
    """The mass determines the kind up to some percent of the rows."""
    X = frame(200)[["kind", "mass"]]
    missing = X.copy()
    missing.loc[:60, "kind"] = None
    filled = fast(random_state=0, strategy="mean", n_draws=20).fit(X).transform(missing)
    assert np.mean(filled["kind"] == X["kind"]) > 0.97


def test_means_are_better_than_draws_for_single_cells():
    rng = np.random.RandomState(0)
    kind = rng.choice(["cat", "dog"], 300)
    X = pd.DataFrame({"kind": kind, "size": (kind == "dog") * 5 + rng.normal(size=300)})
    missing = X.copy()
    missing.loc[:150, "size"] = None
    own = missing["size"].isna()

    def error(**options):
        filled = fast(random_state=0, **options).fit(X[~own]).transform(missing)
        return np.mean((filled["size"] - X["size"])[own] ** 2)

    # Draws have twice the squared error of the mean.
    assert error(strategy="mean", n_draws=30) < 0.75 * error()


def test_means_on_the_circle():
    hours = np.random.RandomState(0).normal(0, 1, 200) % 24
    X = pd.DataFrame({"hour": hours, "x": np.random.RandomState(1).normal(size=200)})
    model = TableDensity({"hour": Periodic(24)}, density=KDESampler(bandwidth="loo"))
    imputer = DensityImputer(model, strategy="mean", n_draws=100, random_state=0).fit(X)
    filled = imputer.transform(pd.DataFrame({"hour": [None], "x": [0.0]}))
    # The standard error of a mean of 100 draws is 0.1.
    assert min(filled["hour"][0], 24 - filled["hour"][0]) < 0.6


def test_zeros_are_drawn_as_often_as_they_are():
    X = frame(400)[["kind", "spend"]]
    missing = X.copy()
    missing["spend"] = np.nan
    filled = fast(random_state=0).fit(X).transform(missing)
    # Two standard errors of 400 Bernoulli draws with probability 0.4: 0.05.
    assert np.mean(filled["spend"] == 0) == pytest.approx(np.mean(X["spend"] == 0), abs=0.07)


def test_left_out_columns_are_returned():
    X = frame(60).assign(name=[f"n{i}" for i in range(60)])
    missing = X.copy()
    missing.loc[:10, "mass"] = None
    missing.loc[:3, "name"] = None
    model = TableDensity({"name": None}, density=KDESampler(bandwidth="loo"))
    filled = DensityImputer(model, random_state=0).fit(X).transform(missing)
    assert list(filled) == list(X)
    pd.testing.assert_series_equal(filled["name"], missing["name"])
    assert not filled["mass"].isna().any()


def test_containers():
    X = frame(60)[["mass", "legs"]]
    missing = gaps(frame(60))[["mass", "legs"]]
    imputer = fast(random_state=0).fit(X)
    expected = imputer.transform(missing)
    array = fast(random_state=0).fit(X.to_numpy(float)).transform(missing.to_numpy())
    assert isinstance(array, np.ndarray)
    assert not np.isnan(array).any()
    polars = fast(random_state=0).fit(pl.from_pandas(X)).transform(pl.from_pandas(missing))
    assert isinstance(polars, pl.DataFrame)
    assert polars.null_count().sum_horizontal()[0] == 0
    imputer.set_output(transform="polars")
    assert imputer.transform(missing).equals(pl.from_pandas(expected))
    assert imputer.get_feature_names_out().tolist() == ["mass", "legs"]


def test_in_pipelines_and_searches():
    X, y = gaps(frame(60))[["mass", "legs"]], np.arange(60) % 2
    from sklearn.tree import DecisionTreeClassifier

    pipeline = make_pipeline(fast(random_state=0), DecisionTreeClassifier(random_state=0))
    grid = {"densityimputer__strategy": ["draw", "mean"], "densityimputer__n_draws": [5]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.predict(X).shape == (60,)
    assert clone(search.best_estimator_[0]).get_params()["n_draws"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "median"}, "strategy='median' is not known"),
        ({"n_draws": 0}, "n_draws=0 is too small"),
        ({"random_state": "one"}, "random_state='one' has type str"),
        ({"estimator": KDESampler()}, "estimator of type KDESampler is no density of tables"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DensityImputer(**options).fit(frame(20))


def test_a_column_of_polars_without_a_value_is_missing_cells():
    """Such a column has the dtype Null, whatever the training column has."""
    X = pd.DataFrame({"mass": [1.5, 2.5, 3.25] * 5, "kind": ["cat", "dog", "cat"] * 5})
    nothing = pl.DataFrame({"mass": [None, None], "kind": ["cat", "dog"]})
    for training in (X, pl.from_pandas(X)):
        filled = fast(random_state=0).fit(training).transform(nothing)
        assert filled.schema == pl.from_pandas(X).schema
        assert filled["mass"].null_count() == 0
    with pytest.raises(ValueError, match="column 'mass' of X has no value"):
        fast().fit(nothing)


def test_means_of_draws_count_atoms_with_their_value():
    """Against a loop over rows: means of numbers, zeros included, and the most frequent level."""
    X = frame(60)[["kind", "mass", "spend"]]
    table = TableColumns.fit(X)
    assert table.columns[2].atoms == (0.0,)
    X.iloc[[3, 23, 43], 2] = 0.0  # all draws of row 3
    mean = table.decode(table.mean_of_draws(table.encode(X), 3))
    for row in range(20):
        draws = X.iloc[[row, row + 20, row + 40]]
        for name in ("mass", "spend"):
            # Values of "mass" are recorded to 0.001.
            assert mean[name].iloc[row] == pytest.approx(draws[name].mean(), abs=5.1e-4)
        counts = draws["kind"].value_counts()
        assert counts[mean["kind"].iloc[row]] == counts.max()
    assert mean["spend"].iloc[3] == 0
