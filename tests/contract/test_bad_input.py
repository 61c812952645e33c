"""Bad input is refused where it enters, by an error that names the culprit and what was received.

A parameter of the wrong type is a TypeError, one out of range a ValueError. Both show it as
`name=value`. Data go through scikit-learn's checks, whose wording and choice of errors we keep.
"""

import datetime
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import clone

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityClassifier, DensityStacking
from skdiffsmooth.manifolds import AffineSubspace, intrinsic_dimension
from skdiffsmooth.solvers import Heun
from skdiffsmooth.tables import TableDensity

NAN, INF = float("nan"), float("inf")
BANDWIDTH, SIGMA = 0.3, 0.5
N, D = 12, 3

COARSE = {"n_nodes": 8, "n_levels": 2, "n_steps": 2}
KDE = KDESampler(BANDWIDTH)
SMOOTHED = SmoothedScoreDiffusion(BANDWIDTH, SIGMA, **COARSE)
ADAPTED = ManifoldAdaptedDiffusion(BANDWIDTH, SIGMA, manifold="pca", n_components=1, **COARSE)
ALL = {"kde": KDE, "kde-compact": KDESampler(BANDWIDTH, "linear"), "smoothed": SMOOTHED}
ALL["adapted"] = ADAPTED
DIFFUSIONS = {"smoothed": SMOOTHED, "adapted": ADAPTED}
QUERIES = ["score_samples", "score", "grad_log_density", "energy"]


def models(group):
    return pytest.mark.parametrize("estimator", group.values(), ids=group)


def table(n=N, d=D):
    return np.random.RandomState(0).normal(size=(n, d))


def fitted(estimator):
    return clone(estimator).fit(table())


def shown(name, value):
    """A pattern for `name=value` as a message shows it; an array may fill several lines."""
    return re.escape(f"{name}={value!r}")


def label(name, value):
    text = f"{name}={value!r}" if not hasattr(value, "shape") else f"{name}: {type(value).__name__}"
    return re.sub(r"\s+|0x[0-9a-f]+", " ", text)[:50]


# ----------------------------------------------------------------------------------- containers

CONTAINERS = {
    "dict": ({"a": [1.0, 2.0]}, r"X is a dict;.*pandas.DataFrame\(X\)"),
    "generator": ((row for row in [[1.0], [2.0]]), r"X is a generator;.*list\(X\)"),
    "structured": (np.zeros(3, dtype=[("a", float), ("b", float)]), r"with the fields a, b;"),
}


@pytest.mark.parametrize("estimator", [KDE, TableDensity(density=KDE)], ids=["array", "table"])
@pytest.mark.parametrize(("X", "message"), CONTAINERS.values(), ids=CONTAINERS)
def test_containers_that_are_no_tables(estimator, X, message):
    with pytest.raises(TypeError, match=message):
        clone(estimator).fit(X)


@pytest.mark.parametrize(
    "estimator",
    [KDE, DensityStacking([("kde", KDE)], cv=2), DensityClassifier(KDE), TableDensity(density=KDE)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_table_of_pyarrow_is_a_frame(estimator):
    pyarrow = pytest.importorskip("pyarrow")
    X, y = pd.DataFrame(table(30, 2), columns=["a", "b"]), np.arange(30) % 2
    expected = clone(estimator).fit(X, y)
    model = clone(estimator).fit(pyarrow.table(X), y)
    assert list(model.feature_names_in_) == ["a", "b"]
    np.testing.assert_array_equal(
        model.score_samples(pyarrow.table(X[:5])), expected.score_samples(X[:5])
    )
    with pytest.raises(ValueError, match=r"column 'b' of X holds (text|labels)"):
        model.score_samples(pyarrow.table(X.assign(b="x")))


# ----------------------------------------------------------------------------------- parameters

NOT_A_NUMBER = [None, True, "1.0", 1j, [1.0]]
# 10**400 is an integer beyond the largest float.
NOT_POSITIVE = [0, 0.0, -1, -0.5, NAN, INF, -INF, 10**400]
NOT_AN_INTEGER = [None, True, 4.0, "4", NAN, [4]]
NOT_A_NAME = [None, True, 1, ["auto"]]

# parameter: (values of the wrong type, values out of range)
COMMON = {
    "device": ([None, 0, torch.device("cpu")], ["", "none such", "cpu:none", "cpu:7"]),
    "dtype": ([None, np.float64, torch.float64, 64], ["float16", "double", ""]),
    "memory_limit": ([*NOT_A_NUMBER, "1 GiB"], [*NOT_POSITIVE, 1e-6]),
    "verbose": (NOT_AN_INTEGER, [-1]),
}
OF_KDE = {
    "bandwidth": ([None, True, 1j, {}], [*NOT_POSITIVE, "auto", "Scott", ""]),
    "kernel": (NOT_A_NAME, ["box", "Gaussian", ""]),
}
OF_DIFFUSIONS = {
    "bandwidth": ([None, True, 1j, [0.3] * D, np.full(D, 0.3)], [*NOT_POSITIVE, "scott", "1.0"]),
    "sigma": ([None, True, 1j, [0.5] * D], [-1, -0.5, NAN, INF, -INF, "loo", "1.0"]),
    "n_nodes": ([None, True, 8.0, [8]], [0, 1, -2, 7, "many", "8"]),
    "n_levels": ([None, True, 4.0, NAN, [4]], [0, -1, "many", "4"]),
    "n_steps": ([None, True, 4.0, NAN, [4]], [0, -1, "many", "4"]),
    "solver": (NOT_A_NAME, ["rk4", "Heun", ""]),
    "terminal": (NOT_A_NAME, ["normal", "Gaussian", ""]),
    # A flow from the bandwidth to itself has no length: the bound is excluded.
    "terminal_scale": (
        [None, True, 1j, [2.0]],
        [*NOT_POSITIVE, BANDWIDTH / 2, BANDWIDTH, "wide", "2.0"],
    ),
    "tol": ([None, True, 1j, [0.1]], [0, -1, -0.5, NAN, INF, "loo", "0.1"]),
    "n_jobs": ([True, 1.5, "2", [2]], [0]),
    "random_state": ([True, 0.5, "0", [0], np.random.default_rng(0)], [-1, 2**32]),
}
OF_ADAPTED = {
    # More than min(N, D), a share of the whole variance or more, and what is neither.
    "n_components": (
        [None, True, [1], 1j],
        [0, -1, D + 1, 0.0, -0.5, 1.0, 1.5, NAN, INF, "1"],
    ),
    "manifold": ([None, 1, np.eye(D), AffineSubspace], ["circle"]),
    "push": ([None, 1], ["pulled"]),
}


def bad_parameters():
    tables = {
        "kde": COMMON | OF_KDE,
        "smoothed": COMMON | OF_DIFFUSIONS,
        # It inherits the checks of the others, on any data.
        "adapted": {name: OF_DIFFUSIONS[name] for name in ("bandwidth", "sigma")} | OF_ADAPTED,
    }
    for model, parameters in tables.items():
        for name, (mistyped, out_of_range) in parameters.items():
            cases = [(value, TypeError) for value in mistyped]
            cases += [(value, ValueError) for value in out_of_range]
            for value, error in cases:
                # Without addresses: processes that share the tests must agree on their names.
                identity = re.sub(" at .*", "", f"{model}-{label(name, value)}")
                yield pytest.param(ALL[model], name, value, error, id=identity)


@pytest.mark.parametrize(("estimator", "name", "value", "error"), list(bad_parameters()))
def test_fit_refuses_a_bad_parameter(estimator, name, value, error):
    model = clone(estimator).set_params(**{name: value})
    with pytest.raises(error, match=shown(name, value)) as caught:
        model.fit(table())
    assert caught.type is error
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")]


@models(ALL)
def test_fit_refuses_bandwidths_whose_ratio_to_the_range_has_no_square(estimator):
    X = table()
    X[1] = 1e200
    with pytest.raises(ValueError, match=r"bandwidth=0\.3 is (below the rounding|too small)"):
        clone(estimator).fit(X)


@models(ALL)
def test_fit_refuses_values_whose_differences_overflow(estimator):
    X = table()
    X[1] = 1e305
    with pytest.raises(
        ValueError, match=r"X holds values up to 1e\+305.*1\.07e\+301.*larger units"
    ):
        clone(estimator).fit(X)


@models(ALL)
def test_queries_without_squares_are_refused(estimator):
    """Differences to the rows would be infinite, and their softmax NaN."""
    model = clone(estimator).fit(table())
    X = table()
    X[1] = 1e160
    with pytest.raises(
        ValueError, match=r"X holds values up to .*e\+16\d .*1e\+150.*Drop those rows"
    ):
        model.score_samples(X)


@pytest.mark.parametrize("estimator", [KDESampler(0.3), SmoothedScoreDiffusion(0.3, 0.2)])
def test_given_values_without_squares_are_refused(estimator):
    model = clone(estimator).fit(table())
    with pytest.raises(ValueError, match=r"given holds values up to .*e\+16\d .*1e\+150"):
        model.sample(3, given={1: -1e160})


@models(DIFFUSIONS)
@pytest.mark.parametrize("scale", [1e17, 1e100])
def test_fit_refuses_a_bandwidth_below_the_rounding_of_rows(estimator, scale):
    """A flow between such rows has no digits: log-densities were off by 1e11 nats, or NaN."""
    with pytest.raises(
        ValueError, match=r"bandwidth=0\.3 is below the rounding error.*larger bandwidth"
    ):
        clone(estimator).fit(scale * table())


@models(DIFFUSIONS)
def test_a_bandwidth_with_a_digit_left_is_enough(estimator):
    model = clone(estimator).set_params(n_levels=32, n_steps=32).fit(1e13 * table())
    # Rows without neighbours: each has its share of the kernel's own peak.
    peak = -np.log(N) - D / 2 * np.log(2 * np.pi * BANDWIDTH**2)
    found = model.score_samples(1e13 * table())
    np.testing.assert_allclose(found.mean(), peak, atol=0.5)  # 32 steps over 30 decades, 8 nodes


@models(ALL)
def test_fit_refuses_a_device_that_cannot_compute(estimator):
    # torch's "meta" device has shapes and no numbers.
    with pytest.raises(ValueError, match="device='meta'"):
        clone(estimator).set_params(device="meta").fit(table())
    with pytest.raises(ValueError, match=r"device='mps:0' is not supported.*Use device='cpu'"):
        clone(estimator).set_params(device="mps:0", dtype="float32").fit(table())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@models(ALL)
def test_a_gpu_that_is_not_there(estimator):
    message = r"device='cuda'.*device='cpu' always works"
    with pytest.raises(ValueError, match=message):
        clone(estimator).set_params(device="cuda").fit(table())
    # A model that comes from another machine says so at the first query.
    with pytest.raises(ValueError, match=message):
        fitted(estimator).set_params(device="cuda").score_samples(table())


BAD_BANDWIDTH_ARRAYS = {
    "too short": ([0.3] * (D - 1), rf"shape \({D - 1},\).*shape \({D},\)"),
    "too long": ([0.3] * (D + 1), rf"shape \({D + 1},\).*shape \({D},\)"),
    "empty": ([], r"shape \(0,\)"),
    "two-dimensional": (np.full((1, D), 0.3), rf"shape \(1, {D}\)"),
    "zero": ([0.3, 0.0, 0.3], r"0\.0"),
    "negative": (np.array([0.3, -0.25, 0.3]), r"-0\.25"),
    "NaN": ([0.3, NAN, 0.3], "nan"),
    "infinite": ((0.3, INF, 0.3), "inf"),
    "strings": (["a", "b", "c"], "'a'|list"),
    "complex": (np.array([0.3, 0.3 + 0.5j, 0.3]), r"0\.5j|complex|real"),
    "ragged": ([[0.3], [0.3, 0.3], [0.3]], r"0\.3|list"),
}


@pytest.mark.parametrize(
    ("bandwidth", "message"), BAD_BANDWIDTH_ARRAYS.values(), ids=BAD_BANDWIDTH_ARRAYS
)
@pytest.mark.filterwarnings("error")
def test_kde_refuses_a_bad_bandwidth_per_feature(bandwidth, message):
    with pytest.raises(ValueError, match=f"bandwidth.*{message}"):
        KDESampler(bandwidth).fit(table())


@pytest.mark.parametrize("bandwidth", [[True] * D, np.ones(D, dtype=bool)])
def test_kde_refuses_booleans_as_bandwidths(bandwidth):
    with pytest.raises(TypeError, match=r"bandwidth=.*True.*holds booleans; expected real numbers"):
        KDESampler(bandwidth).fit(table())
    with pytest.raises(TypeError, match=r"t=.*holds booleans"):
        KDESampler(0.3).fit(table()).grad_log_density(table(), t=bandwidth)


@models(DIFFUSIONS)
@pytest.mark.parametrize("value", [-1.0, 0.0, NAN, INF, BANDWIDTH, "wide"])
def test_terminal_scale_is_checked_when_nothing_is_smoothed(estimator, value):
    # The scale has no effect there, as long as it is one.
    with pytest.raises(ValueError, match=shown("terminal_scale", value)):
        clone(estimator).set_params(sigma=0, terminal_scale=value).fit(table())


@models(DIFFUSIONS)
def test_terminal_scale_must_exceed_a_bandwidth_that_was_found(estimator):
    model = clone(estimator).set_params(bandwidth="loo").fit(table())
    # The message has both numbers, for the user has not seen the bandwidth.
    found = re.escape(f"{model.bandwidth_:g}")
    with pytest.raises(ValueError, match=rf"terminal_scale=0\.01 .* bandwidth {found}\b"):
        model.set_params(terminal_scale=0.01).fit(table())


@models(DIFFUSIONS)
@pytest.mark.parametrize("solver", [Heun, object()], ids=["a class", "an object that cannot step"])
def test_a_solver_is_a_name_or_an_instance(estimator, solver):
    with pytest.raises(
        TypeError, match=f"{shown('solver', solver)} has type {type(solver).__name__}"
    ):
        clone(estimator).set_params(solver=solver).fit(table())


@pytest.mark.parametrize(
    ("n", "d", "n_components"), [(N, 2, 3), (2, D, 3), (1, D, 2)], ids=["d", "N > 1", "N = 1"]
)
def test_n_components_exceeds_neither_rows_nor_columns(n, d, n_components):
    message = rf"n_components={n_components} .*= {min(n, d)}\b"
    with pytest.raises(ValueError, match=message):
        clone(ADAPTED).set_params(n_components=n_components).fit(table(n, d))
    clone(ADAPTED).set_params(n_components=min(n, d)).fit(table(n, d))


@pytest.mark.parametrize("d", [D - 1, D + 1])
def test_manifold_and_data_live_in_the_same_space(d):
    manifold = AffineSubspace(np.ones((1, d)), [0.0])
    with pytest.raises(ValueError, match=rf"manifold.* R\^{d} .*X has {D} features"):
        clone(ADAPTED).set_params(manifold=manifold).fit(table())


@models(ALL)
@pytest.mark.parametrize(("name", "value"), [("device", "none such"), ("memory_limit", -1)])
def test_what_a_query_reads_it_checks(estimator, name, value):
    model = fitted(estimator).set_params(**{name: value})
    with pytest.raises(ValueError, match=shown(name, value)):
        model.score_samples(table())


# ------------------------------------------------------------------------------------------ data


def with_cell(value):
    X = table()
    X[3, 1] = value
    return X


BAD_TABLES = {
    "NaN": (with_cell(NAN), ValueError, "X contains NaN"),
    "infinity": (with_cell(INF), ValueError, "X contains infinity"),
    "minus infinity": (with_cell(-INF), ValueError, "X contains infinity"),
    "missing in a DataFrame": (
        pd.DataFrame(with_cell(NAN), columns=list("abc")),
        ValueError,
        r"X contains NaN in column 'b' \(1 of 12 rows\)",
    ),
    "two columns": (
        with_cell(NAN) + np.array([np.inf, 0.0, 0.0]),
        ValueError,
        r"NaN in column 1 \(1 of 12 rows\)",
    ),
    "complex": (table() * 1j, ValueError, "Complex data not supported"),
    "sparse matrix": (scipy.sparse.csr_matrix(table()), TypeError, "Sparse data was passed for X"),
    "sparse array": (scipy.sparse.coo_array(table()), TypeError, "Sparse data was passed for X"),
    "strings": ([["one", "two", "three"]], ValueError, "column 0 of X holds text"),
    "objects": (np.full((2, D), {}, dtype=object), TypeError, "dict"),
    "None": (None, ValueError, "2D array, got scalar"),
    "a number": (1.0, ValueError, "2D array, got scalar"),
    "one dimension": (table()[0], ValueError, "2D array, got 1D array"),
    "three dimensions": (table()[None], ValueError, "dim 3"),
    "no rows": (table()[:0], ValueError, rf"0 sample\(s\) \(shape=\(0, {D}\)\)"),
    "no columns": (table()[:, :0], ValueError, rf"0 feature\(s\) \(shape=\({N}, 0\)\)"),
    "ragged": (
        [[1.0, 2.0, 3.0], [4.0, 5.0]],
        ValueError,
        "X of type list has rows of unequal lengths.*inhomogeneous.*short rows",
    ),
    "text that looks like numbers": (table().astype(str), ValueError, "column 0 of X holds text"),
    "numbers and text": ([[1.0, "2", 3.0]], ValueError, "column 1 of X holds text"),
    "dates": (
        np.full((4, D), np.datetime64("2024-01-01")),
        ValueError,
        "column 0 of X holds dates",
    ),
    "time differences": (np.full((4, D), np.timedelta64(1, "s")), ValueError, "0 of X holds time"),
    "masked": (
        np.ma.masked_where(np.arange(N * D).reshape(N, D) == 4, table()),
        ValueError,
        r"masked array with 1 masked cells, in columns \[1\]",
    ),
    "bfloat16": (
        torch.zeros(3, D, dtype=torch.bfloat16),
        TypeError,
        r"bfloat16.*Pass X\.float\(\)",
    ),
    "tensor with gradients": (
        torch.tensor(table(), requires_grad=True),
        TypeError,
        r"X is a tensor that requires gradients.*Pass X\.detach\(\)",
    ),
}


WRONG_COLUMNS = {
    "when": (pd.date_range("2024", periods=N), "holds dates.*subtract a date"),
    "zone": (pd.date_range("2024", periods=N, tz="UTC"), "holds dates"),
    "took": (pd.to_timedelta(np.arange(N), unit="h"), "holds time differences"),
    "kind": (pd.Categorical(list("uv") * (N // 2)), "holds categories.*OneHotEncoder"),
    "code": (pd.Categorical([1, 2] * (N // 2)), "holds categories"),
    "text": (["x"] * N, "holds text"),
    "digits": (["1"] * N, "holds text"),
    "string": (pd.array(["x"] * N, dtype="string"), "holds text"),
    "any": ([None, {}] * (N // 2), "is not numeric"),
    "wave": (np.ones(N) * 1j, "holds complex numbers.*two columns"),
    "gaps": (pd.array([1, None] * (N // 2), dtype="Int64"), rf"NaN in column 'gaps' \({N // 2} of"),
}


@pytest.mark.parametrize("name", WRONG_COLUMNS)
@pytest.mark.parametrize("is_only_column", [True, False])
def test_messages_name_the_column(name, is_only_column):
    values, message = WRONG_COLUMNS[name]
    frame = pd.DataFrame({} if is_only_column else {"good": np.arange(N * 1.0)}).assign(
        **{name: values}
    )
    for fit in (KDE.fit, SMOOTHED.fit, intrinsic_dimension, DensityStacking([("a", KDE)]).fit):
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            fit(frame)
        assert f"column {name!r}" in str(caught.value)


def test_polars_columns_are_named():
    pl = pytest.importorskip("polars")
    good = np.arange(N * 1.0)
    wrong = {
        "when": (pl.Series([datetime.date(2024, 1, 1)] * N), "holds dates"),
        "text": (pl.Series(["x"] * N), "holds text"),
        "kind": (pl.Series(["x"] * N, dtype=pl.Categorical), "holds categories"),
        "gaps": (pl.Series([1.0, None] * (N // 2)), "NaN in column 'gaps'"),
    }
    for name, (values, message) in wrong.items():
        with pytest.raises(ValueError, match=message) as caught:
            KDE.fit(pl.DataFrame({"good": good, name: values}))
        assert f"column {name!r}" in str(caught.value)
    frame = pl.DataFrame({"a": good, "b": good.astype(int) % 2 == 0})
    assert np.isfinite(KDE.fit(frame).score(frame))


@pytest.mark.parametrize(
    "dtype", ["Int64", "Float64", "boolean", "int8", "float32", "int64[pyarrow]"]
)
def test_numeric_columns_of_any_type_are_numbers(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    plain = pd.DataFrame({"a": np.arange(N) % 2, "b": table()[:, 0]})
    expected = KDE.fit(plain).score_samples(plain)
    frame = plain.astype({"a": dtype})
    np.testing.assert_allclose(KDE.fit(frame).score_samples(frame), expected, rtol=1e-12)
    whole = np.ma.masked_array(plain.to_numpy(), mask=False)
    np.testing.assert_array_equal(KDE.fit(whole).score_samples(whole), expected)


def test_columns_of_queries_are_those_of_the_fit():
    frame = pd.DataFrame(table(), columns=list("abc"))
    for estimator in (KDE, SMOOTHED):
        model = clone(estimator).fit(frame)
        for wrong in (frame[["b", "a", "c"]], frame.rename(columns={"a": "z"}), frame[["a", "b"]]):
            with pytest.raises(ValueError, match="feature names should match"):
                model.score_samples(wrong)


@models(ALL)
@pytest.mark.parametrize(("X", "error", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_fit_refuses_a_bad_table(estimator, X, error, message):
    with pytest.raises(error, match=message):
        clone(estimator).fit(X)


@models(ALL)
@pytest.mark.parametrize("method", QUERIES)
def test_queries_refuse_a_bad_table(estimator, method):
    query = getattr(fitted(estimator), method)
    for X, error, message in BAD_TABLES.values():
        with pytest.raises(error, match=message):
            query(X)


@models(ALL)
@pytest.mark.parametrize("method", QUERIES)
def test_queries_refuse_another_number_of_features(estimator, method):
    model = fitted(estimator)
    name = type(model).__name__
    for d in (1, D - 1, D + 1):
        message = f"X has {d} features, but {name} is expecting {D} features"
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(table(d=d))


@models(ALL)
def test_fit_refuses_tables_that_hold_no_array(estimator):
    """They raised errors of pandas, numpy and narwhals that name no next step."""
    polars = pytest.importorskip("polars")
    frame = pd.DataFrame(np.random.RandomState(0).normal(size=(N, 2)), columns=["a", "b"])
    sparse = frame.astype(pd.SparseDtype(float))
    for table, error, message in (
        (frame["a"], ValueError, "Series"),
        (
            frame.set_axis(["a", "a"], axis=1),
            ValueError,
            "several columns with the name 'a'.*Rename",
        ),
        (sparse, TypeError, "sparse.*to_dense"),
        (polars.DataFrame(frame.to_dict("list")).lazy(), TypeError, "LazyFrame.*collect"),
    ):
        with pytest.raises(error, match=message):
            clone(estimator).fit(table)
    with pytest.raises(ValueError, match="several columns with the name 'a'"):
        clone(estimator).fit(frame).score_samples(frame.set_axis(["a", "a"], axis=1))


@models(ALL)
def test_fit_refuses_column_names_of_mixed_types(estimator):
    with pytest.raises(TypeError, match=r"int.*str"):
        clone(estimator).fit(pd.DataFrame(table(), columns=["a", "b", 0]))


def weights_with(value):
    weights = np.ones(N)
    weights[3] = value
    return weights


BAD_WEIGHTS = {
    "negative": (weights_with(-0.25), r"negative.*-0\.25"),
    "all zero": (np.zeros(N), "zero for every row"),
    "NaN": (weights_with(NAN), "1 values that are NaN or infinite"),
    "infinite": (weights_with(INF), "1 values that are NaN or infinite"),
    "missing": ([None] * N, f"{N} values that are NaN or infinite"),
    "too short": (np.ones(N - 1), rf"shape \({N - 1},\).*\({N},\)"),
    "too long": (np.ones(N + 1), rf"shape \({N + 1},\).*\({N},\)"),
    "empty": ([], rf"shape \(0,\).*\({N},\)"),
    "one number": (2.0, rf"shape \(\).*\({N},\)"),
    "one column": (np.ones((N, 1)), rf"shape \({N}, 1\).*\({N},\)"),
    "two dimensions": (np.ones((N, D)), rf"shape \({N}, {D}\).*\({N},\)"),
    "string": ("balanced", "type str"),
    "strings": (["heavy"] * N, "type list"),
    "objects": ([{}] * N, "type list"),
    "complex": (np.full(N, 1 + 1j), "complex|real"),
    "sparse": (scipy.sparse.csr_array(np.ones((1, N))), "type csr_array"),
    "ragged": ([[1.0], [1.0, 2.0]], "type list"),
}


@models(ALL)
def test_fit_refuses_weights_with_gradients(estimator):
    weights = torch.ones(N, requires_grad=True)
    with pytest.raises(TypeError, match=r"sample_weight is a tensor.*Pass sample_weight\.detach"):
        clone(estimator).fit(table(), sample_weight=weights)


@models(ALL)
@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
@pytest.mark.filterwarnings("error")
def test_fit_refuses_bad_weights(estimator, weights, message):
    with pytest.raises(ValueError, match=f"sample_weight.*{message}"):
        clone(estimator).fit(table(), sample_weight=weights)


# --------------------------------------------------------------------------------------- queries


@models(ALL)
@pytest.mark.parametrize(
    ("n_samples", "error"),
    [(value, TypeError) for value in [None, True, 1.0, 2.5, NAN, "3", (3,)]]
    + [(value, ValueError) for value in [0, -1, 10**30]],
)
def test_sample_refuses_a_bad_number_of_samples(estimator, n_samples, error):
    with pytest.raises(error, match=shown("n_samples", n_samples)):
        fitted(estimator).sample(n_samples)


@models(ALL)
@pytest.mark.parametrize(
    ("random_state", "error"),
    [(value, TypeError) for value in [True, 0.5, "0", [0], np.random.default_rng(0)]]
    + [(value, ValueError) for value in [-1, 2**32]],
    ids=str,
)
def test_sample_refuses_a_bad_seed(estimator, random_state, error):
    with pytest.raises(error, match=shown("random_state", random_state)):
        fitted(estimator).sample(2, random_state=random_state)


@models(DIFFUSIONS)
@pytest.mark.parametrize(
    ("t", "error"),
    [(value, TypeError) for value in [True, "1.0", 1j, [1.0], np.ones(N)]]
    + [(value, ValueError) for value in NOT_POSITIVE],
    ids=str,
)
def test_gradient_refuses_a_bad_noise_variance(estimator, t, error):
    with pytest.raises(error, match=r"\bt=" + re.escape(repr(t))):
        fitted(estimator).grad_log_density(table(), t=t)


@models(DIFFUSIONS)
@pytest.mark.parametrize("method", ["score_samples", "score"])
def test_samples_of_a_stochastic_solver_have_no_density(estimator, method):
    model = clone(estimator).set_params(solver="euler-maruyama").fit(table())
    with pytest.raises(ValueError, match=r"solver=EulerMaruyama\(\) cannot compute.*solver='heun'"):
        getattr(model, method)(table())


@pytest.mark.parametrize("kernel", ["tophat", "epanechnikov", "linear", "cosine"])
def test_no_gradient_where_a_compact_kernel_has_density_zero(kernel):
    model = KDESampler(BANDWIDTH, kernel).fit(table())
    X = table()
    X[[4, 7]] = 100.0
    assert np.array_equal(np.flatnonzero(model.energy(X) == INF), [4, 7])
    message = rf"2 rows of X \(first: row 4\).*density zero.*kernel='{kernel}'"
    with pytest.raises(ValueError, match=message):
        model.grad_log_density(X)


# ------------------------------------------------------------------------------------- manifolds

BAD_EQUATIONS = {
    "A of one dimension": ([1.0, 1.0], [0.0], r"A has shape \(2,\).*b has shape \(1,\)"),
    "A of three dimensions": (np.ones((1, 1, 2)), [0.0], r"A has shape \(1, 1, 2\)"),
    "no equations": (np.ones((0, 2)), [], r"A has shape \(0, 2\)"),
    "no columns": (np.ones((1, 0)), [0.0], r"A has shape \(1, 0\)"),
    "b too long": ([[1.0, 1.0]], [0.0, 0.0], r"A has shape \(1, 2\).*b has shape \(2,\)"),
    "b of two dimensions": ([[1.0, 1.0]], [[0.0]], r"b has shape \(1, 1\)"),
    "b a number": ([[1.0, 1.0]], 0.0, r"b has shape \(\)"),
    "equal rows": ([[1.0, 1.0], [1.0, 1.0]], [0.0, 0.0], "2 rows of A have rank 1"),
    "a row of zeros": ([[0.0, 0.0]], [0.0], "1 rows of A have rank 0"),
    "more rows than columns": (np.eye(3)[:, :2], np.zeros(3), "3 rows of A have rank 2"),
    "NaN in A": ([[1.0, NAN]], [0.0], "A.*NaN.*finite"),
    "infinity in A": ([[1.0, INF]], [0.0], "A holds.*infinite.*finite"),
    "NaN in b": ([[1.0, 1.0]], [NAN], "b holds.*NaN.*finite"),
    "strings in A": ([["one", "two"]], [0.0], r"\bA\b.*(number|numeric|real)"),
    "complex A": (np.array([[1.0, 1j]]), [0.0], r"\bA\b.*(complex|real)"),
}


@pytest.mark.parametrize(("A", "b", "message"), BAD_EQUATIONS.values(), ids=BAD_EQUATIONS)
@pytest.mark.filterwarnings("error")
def test_affine_subspace_refuses_bad_equations(A, b, message):
    with pytest.raises(ValueError, match=message):
        AffineSubspace(A, b)


BAD_BASES = {
    "origin of another length": ([0.0], np.eye(2), r"origin has shape \(1,\).*shape \(2, 2\)"),
    "basis of one dimension": ([0.0, 0.0], [1.0, 0.0], r"basis has shape \(2,\)"),
    "equal directions": ([0.0, 0.0], np.ones((2, 2)), "2 columns of basis are linearly dependent"),
    "too many directions": ([0.0, 0.0], np.eye(3)[:2], "3 columns of basis are linearly dependent"),
    "a direction of zeros": (
        [0.0, 0.0],
        np.zeros((2, 1)),
        "1 columns of basis are linearly dependent",
    ),
    "NaN in origin": ([NAN, 0.0], np.eye(2), "origin.*NaN.*finite"),
    "infinity in basis": ([0.0, 0.0], [[INF], [0.0]], "basis holds.*infinite.*finite"),
}


@pytest.mark.parametrize(("origin", "basis", "message"), BAD_BASES.values(), ids=BAD_BASES)
def test_affine_subspace_refuses_a_bad_basis(origin, basis, message):
    with pytest.raises(ValueError, match=message):
        AffineSubspace.from_basis(origin, basis)


@pytest.mark.parametrize("method", ["project", "distance", "tangent"])
@pytest.mark.parametrize("shape", [(3,), (4, 2), (1, 4, 3)], ids=str)
def test_affine_subspace_refuses_points_of_another_space(method, shape):
    plane = AffineSubspace([[1.0, 1.0, 1.0]], [0.0])
    with pytest.raises(
        ValueError, match=rf"X has shape {re.escape(str(shape))}; expected \(n, 3\)"
    ):
        getattr(plane, method)(np.zeros(shape))
