"""What scikit-learn and numpy expect of every estimator.

scikit-learn's own checks come first. They test neither `sample` nor the energy and its gradient, so
the rest of the file does. Each test runs over some of the models listed below, which between them
take every branch of the estimators; a new estimator gets its lines there.
"""

import copy
import functools
import pickle
import random
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    estimator_checks_generator,
    parametrize_with_checks,
)

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    LocalScoreDiffusion,
    ManifoldAdaptedDiffusion,
    NeuralScoreDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.compose import (
    DensityClassifier,
    DensityOutlierDetector,
    DensityStacking,
    TransformedDensity,
)
from skdiffsmooth.manifolds import AffineSubspace
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

CLASSES = [KDESampler, SmoothedScoreDiffusion, ManifoldAdaptedDiffusion]

# Few of everything: what is tested here holds at any resolution.
COARSE = {"n_nodes": 8, "n_levels": 3, "n_steps": 3}

# Each public estimator once, for scikit-learn's checks; they refit it hundreds of times. Estimators made
# of densities hold the cheapest one. The neural one is hardly trained; it has no energy and keeps no
# points, so the rest of this file is not for it (see tests/neural). `python benchmarks/conventions.py`
# runs all checks with default parameters, for some minutes.
CHECKED = [
    KDESampler(),
    SmoothedScoreDiffusion(0.5, 0.5, **COARSE),
    ManifoldAdaptedDiffusion(0.5, 0.5, **COARSE),
    CoarseScoreDiffusion(0.5, 0, bandwidth=0.2),
    LocalScoreDiffusion(0.5, n_levels=4, n_steps=4),
    NeuralScoreDiffusion(hidden_layer_sizes=(8,), max_iter=2, batch_size=16, n_levels=2, n_steps=2),
    DensityStacking([("narrow", KDESampler(0.5)), ("wide", KDESampler(1.0))], cv=2),
    DensityClassifier(KDESampler(0.5)),
    DensityOutlierDetector(KDESampler()),
    TransformedDensity(KDESampler(0.5), StandardScaler()),
    SmoothedScoreDiffusionCV(
        SmoothedScoreDiffusion(n_nodes=4, n_levels=1, n_steps=2),
        bandwidth_factors=[0.85],
        sigma_factors=[1.5],
        metrics=["scaled"],
        n_refinements=0,
        cv=2,
    ),
]

# The others with default parameters, but for the training and steps of two that take long, for the
# checks on few, equal, weighted and constant rows: these are what a default has to cope with.
WITH_DEFAULTS = [
    SmoothedScoreDiffusion(),
    ManifoldAdaptedDiffusion(),
    CoarseScoreDiffusion(),
    LocalScoreDiffusion(n_levels=4, n_steps=4),
    NeuralScoreDiffusion(max_iter=30),
    DensityClassifier(),
    DensityOutlierDetector(),
    TransformedDensity(),
    SmoothedScoreDiffusionCV(),
]
EDGE_CHECKS = (
    "check_fit2d_1sample",
    "check_fit2d_1feature",
    "check_sample_weight_equivalence_on_dense_data",
)
OF_QUERIES = (
    "check_methods_subset_invariance",
    "check_methods_sample_order_invariance",
    "check_estimators_pickle",
    "check_fit_idempotent",
    "check_sample_weight_equivalence_on_dense_data",
)

# Models with fixed scales. The bandwidths leave some rows out of reach of the compact kernels.
FIXED = {
    "kde-gaussian": KDESampler(0.6),
    "kde-tophat": KDESampler(1.2, "tophat"),
    "kde-epanechnikov": KDESampler(1.2, "epanechnikov"),
    "kde-exponential": KDESampler(0.4, "exponential"),
    "kde-linear": KDESampler(1.2, "linear"),
    "kde-cosine": KDESampler(1.2, "cosine"),
    "kde-bandwidth-per-feature": KDESampler([0.9, 0.6, 0.3]),
    "smoothed": SmoothedScoreDiffusion(0.3, 0.5, **COARSE),
    "smoothed-adaptive": SmoothedScoreDiffusion(0.3, 0.5, solver="adaptive", **COARSE),
    "smoothed-gaussian-terminal": SmoothedScoreDiffusion(0.3, 0.5, terminal="gaussian", **COARSE),
    "smoothed-not-at-all": SmoothedScoreDiffusion(0.3, 0.0, **COARSE),
    "adapted-components": ManifoldAdaptedDiffusion(
        0.3, 0.5, manifold="pca", n_components=1, **COARSE
    ),
    "adapted-local": ManifoldAdaptedDiffusion(0.3, 0.5, n_components=1, **COARSE),
    "adapted-manifold": ManifoldAdaptedDiffusion(
        0.3, 0.5, manifold=AffineSubspace([[1.0, 2.0, 3.0]], [0.5]), **COARSE
    ),
}
# Models that need more rows than they have neighbours.
BASED = {
    "smoothed-windows": SmoothedScoreDiffusion(0.3, 0.5, base=ManifoldParzen(5, 1), **COARSE),
    "adapted-windows": ManifoldAdaptedDiffusion(
        0.3, 0.5, base=ManifoldParzen(5, 1), n_components=1, **COARSE
    ),
}
# Models that look for their scales themselves.
AUTO = {
    "kde-loo": KDESampler("loo"),
    "kde-tophat-loo": KDESampler("loo", "tophat"),
    "kde-scott": KDESampler("scott"),
    "kde-silverman": KDESampler("silverman"),
    "smoothed-auto": SmoothedScoreDiffusion(**COARSE),
    "smoothed-loo": SmoothedScoreDiffusion("loo", 0.5, **COARSE),
    "adapted-auto": ManifoldAdaptedDiffusion(**COARSE),
}
# Models whose samples have no computable density.
WITHOUT_DENSITY = {
    "smoothed-euler": SmoothedScoreDiffusion(0.3, 0.5, solver="euler", **COARSE),
    "smoothed-euler-maruyama": SmoothedScoreDiffusion(0.3, 0.5, solver="euler-maruyama", **COARSE),
    "adapted-euler-maruyama": ManifoldAdaptedDiffusion(
        0.3, 0.5, manifold="pca", n_components=0.9, solver="euler-maruyama", **COARSE
    ),
    "smoothed-predictor-corrector": SmoothedScoreDiffusion(
        0.3, 0.5, solver="predictor-corrector", **COARSE
    ),
}
# The smallest set in which each class, and each way to compute in KDESampler, occurs.
ONE_OF_EACH = ["kde-gaussian", "kde-tophat", "smoothed", "adapted-components"]
# Gaussian in every direction in which the data have no extent.
GAUSSIAN = [
    "kde-gaussian",
    "smoothed",
    "smoothed-gaussian-terminal",
    "smoothed-not-at-all",
    "adapted-components",
]
QUERIES = ["score_samples", "score", "grad_log_density", "energy"]

# Matrix products and sums round differently with the shape, the layout and even the alignment of
# arrays in memory. That is some 1e-15 of exponents of up to a few hundred nats.
ROUNDING = 1e-12
# The search for a bandwidth amplifies rounding: it compares likelihoods that are flat at the top.
SEARCH = 1e-9


def models(*groups):
    """Parametrise a test over the models of some of the groups above."""
    return pytest.mark.parametrize(
        "estimator",
        [pytest.param(estimator, id=name) for group in groups for name, estimator in group.items()],
    )


def pick(names):
    return {name: FIXED[name] for name in names}


every_class = pytest.mark.parametrize("cls", CLASSES)
every_model = models(FIXED, BASED, AUTO, WITHOUT_DENSITY)
# Without those whose fits, of the same search as others, take longest: for what a second fit decides.
refitted_model = models(
    FIXED,
    BASED,
    {name: model for name, model in AUTO.items() if name not in ("smoothed-loo", "adapted-auto")},
    WITHOUT_DENSITY,
)
# For what holds for a model as a whole, whatever its details.
typical_model = models(
    pick([*ONE_OF_EACH, "adapted-local"]),
    {name: AUTO[name] for name in ("kde-loo", "kde-tophat-loo", "smoothed-auto")},
    {name: WITHOUT_DENSITY[name] for name in ("adapted-euler-maruyama",)},
)


def table(n=30, d=3, seed=0):
    """Rows with a wide, a middle and a narrow column."""
    return np.random.RandomState(seed).normal(size=(n, d)) * np.geomspace(2.0, 0.5, d)


def near(X):
    """Queries that every kernel reaches, not the training rows themselves."""
    return X + 0.05


def fit(estimator, X, **kwargs):
    return clone(estimator).fit(X, **kwargs)


@functools.cache
def _fitted(estimator):
    return fit(estimator, table())


def fitted(estimator):
    """Return a copy of one of the models above, fitted to `table()` once for all tests."""
    return copy.deepcopy(_fitted(estimator))


def has_density(model):
    return getattr(model, "solver", None) not in (
        "euler",
        "euler-maruyama",
        "predictor-corrector",
    )


def has_energy(model):
    """Tell whether the smoothed score is a gradient: not where cells smooth along their own tangents."""
    return not hasattr(model, "cells_") or model.n_components_ == model.hull_.dimension


def answers(model, Q, random_state=0):
    """Everything that a model can be asked, by name."""
    found = {
        "grad_log_density": model.grad_log_density(Q),
        "sample": model.sample(12, random_state=random_state),
    }
    if has_energy(model):
        found["energy"] = model.energy(Q)
    if has_density(model):
        found["score_samples"] = model.score_samples(Q)
        found["score"] = model.score(Q)
    return found


def assert_same_answers(found, expected, tolerance=ROUNDING):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def tolerance_of(estimator):
    """What the answers of two fits may differ by, when the weights differ by rounding."""
    return SEARCH if isinstance(estimator.bandwidth, str) else ROUNDING


def contents(model):
    """The whole state of an estimator, parameters and what it learned, as bytes."""
    return {name: pickle.dumps(value) for name, value in vars(model).items()}


def global_random_state():
    of_numpy = check_random_state(None).get_state()
    return pickle.dumps((random.getstate(), of_numpy, torch.get_rng_state().numpy()))


# ------------------------------------------------------------------------------ scikit-learn's


@parametrize_with_checks(CHECKED)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def checks_of(estimator):
    return {
        getattr(check, "func", check).__name__: check
        for _, check in estimator_checks_generator(estimator)
    }


@pytest.mark.parametrize("name", OF_QUERIES)
def test_scikit_learn_check_of_a_learned_manifold(name):
    """Above there is none, whose fits take ten times as long: those checks that queries decide."""
    estimator = CoarseScoreDiffusion(0.5, 1, n_components=1, n_neighbors=4, n_nodes=4)
    checks_of(estimator)[name](estimator)


@pytest.mark.parametrize("estimator", WITH_DEFAULTS, ids=lambda model: type(model).__name__)
@pytest.mark.filterwarnings(
    "ignore:.*distinct row", "ignore:.*rows equal another", "ignore:training"
)
def test_scikit_learn_check_with_default_parameters(estimator):
    checks = checks_of(estimator)
    for name in EDGE_CHECKS:
        checks[name](clone(estimator))


@pytest.mark.parametrize("model", CHECKED, ids=lambda model: type(model).__name__)
def test_column_names_follow_scikit_learn(model):
    check_dataframe_column_names_consistency(type(model).__name__, model)


@models(pick(ONE_OF_EACH))
@pytest.mark.parametrize("method", QUERIES)
def test_every_query_compares_column_names(estimator, method):
    frame = pd.DataFrame(table(), columns=["a", "b", "c"])
    model = fit(estimator, frame)
    getattr(model, method)(frame)
    for columns in (["a", "b", "z"], ["a", "c", "b"]):
        with pytest.raises(ValueError, match="feature names should match"):
            getattr(model, method)(frame.set_axis(columns, axis=1))


@every_class
def test_is_known_as_a_density_estimator(cls):
    assert get_tags(cls()).estimator_type == "density_estimator"


# ---------------------------------------------------------------------------------- parameters


@every_class
def test_constructor_stores_what_it_is_given(cls):
    # Objects of no use: a constructor that converts or checks them cannot return the same ones.
    given = {name: object() for name in cls().get_params()}
    stored = cls(**given).get_params()
    assert stored.keys() == given.keys()
    assert all(stored[name] is value for name, value in given.items())
    stored = cls().set_params(**given).get_params()
    assert all(stored[name] is value for name, value in given.items())


@typical_model
def test_fit_leaves_the_parameters(estimator):
    model = clone(estimator)
    before = pickle.dumps(model.get_params())
    model.fit(table())
    assert pickle.dumps(model.get_params()) == before


@every_class
def test_repr_names_the_class_and_what_differs_from_the_defaults(cls):
    assert repr(cls()) == f"{cls.__name__}()"
    model = cls(bandwidth=0.5).fit(table())
    assert repr(model) == f"{cls.__name__}(bandwidth=0.5)"


# ------------------------------------------------------------------------------------- queries


@models(pick(ONE_OF_EACH), WITHOUT_DENSITY)
@pytest.mark.parametrize("method", [*QUERIES, "sample"])
def test_not_fitted(estimator, method):
    arguments = () if method == "sample" else (table(),)
    with pytest.raises(NotFittedError, match=type(estimator).__name__):
        getattr(clone(estimator), method)(*arguments)


@models(FIXED, AUTO)
def test_score_is_the_mean_log_density(estimator):
    model = fitted(estimator)
    Q = near(table())
    score = model.score(Q)
    assert type(score) is float
    assert_allclose(score, sum(model.score_samples(Q)) / len(Q), rtol=ROUNDING)
    assert model.score(Q, y=np.ones(len(Q))) == score


@every_model
@pytest.mark.filterwarnings("error")
def test_answers_are_float64_arrays_of_the_right_shape(estimator):
    model = fitted(estimator)
    shapes = {"score_samples": (7,), "energy": (7,), "grad_log_density": (7, 3), "sample": (12, 3)}
    for dtype in ("float64", "float32"):
        found = answers(model.set_params(dtype=dtype), near(table())[:7])
        for name, shape in shapes.items():
            if name in found:
                assert type(found[name]) is np.ndarray
                assert found[name].shape == shape
                assert found[name].dtype == np.float64
                assert np.all(np.isfinite(found[name]))


@every_model
def test_queries_change_neither_the_model_nor_their_argument(estimator):
    model = fitted(estimator)
    if "random_state" in model.get_params():
        # A generator would show whether a query draws from it.
        model.set_params(random_state=np.random.RandomState(0))
    Q = near(table())
    before, given = contents(model), Q.copy()
    answers(model, Q)
    assert contents(model) == before
    assert_array_equal(Q, given)


@models(FIXED, AUTO)
def test_a_row_scores_the_same_alone_and_in_a_batch(estimator):
    model = fitted(estimator)
    Q = near(table())[:10]
    far = np.concatenate([Q, 3 * table(5, seed=1)])  # some out of reach of the compact kernels
    alone = np.concatenate([model.score_samples(row[None]) for row in far])
    assert_allclose(model.score_samples(far), alone, rtol=ROUNDING, atol=ROUNDING)
    alone = np.concatenate([model.grad_log_density(row[None]) for row in Q])
    assert_allclose(model.grad_log_density(Q), alone, rtol=ROUNDING, atol=ROUNDING)


@every_model
def test_the_gradient_is_minus_the_slope_of_the_energy(estimator):
    model = fitted(estimator)
    Q, step = near(table()), 1e-5
    if not has_energy(model):
        with pytest.raises(ValueError, match=r"energy is not defined .* not a gradient"):
            model.energy(Q)
        return
    found = model.grad_log_density(Q)
    for j, shift in enumerate(step * np.eye(Q.shape[1])):
        slope = (model.energy(Q - shift) - model.energy(Q + shift)) / (2 * step)
        # Central differences: rounding gives 1e-14 / step, and the third derivative step^2 times
        # the cube of the steepest slope, some 100 where a compact kernel ends.
        assert_allclose(found[:, j], slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_nodes", [2, 6, 64])
def test_no_even_number_of_nodes_gives_a_warning(n_nodes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SmoothedScoreDiffusion(0.3, 0.5, n_nodes=n_nodes, n_levels=2, n_steps=2)
        answers(model.fit(table()), near(table()))


# --------------------------------------------------------------------------------------- seeds


@every_model
def test_shape_of_samples(estimator):
    model = fitted(estimator)
    assert model.sample().shape == (1, 3)
    for n_samples in (1, 12, np.int64(5)):
        assert model.sample(n_samples).shape == (n_samples, 3)


@refitted_model
def test_a_seed_determines_the_samples(estimator):
    model = fitted(estimator)
    first = model.sample(12, random_state=3)
    same = {"rtol": ROUNDING, "atol": ROUNDING}
    assert_allclose(model.sample(12, random_state=3), first, **same)
    assert_allclose(fit(estimator, table()).sample(12, random_state=3), first, **same)
    assert_allclose(model.sample(12, random_state=np.int64(3)), first, **same)
    # scikit-learn's reading of a RandomState: an integer makes one, and every draw moves it on.
    generator = np.random.RandomState(3)
    assert_allclose(model.sample(12, random_state=generator), first, **same)
    for other in (model.sample(12, random_state=generator), model.sample(12, random_state=4)):
        assert not np.any(np.isclose(other, first, **same))


@refitted_model
def test_without_a_seed_draws_differ_and_no_global_state_moves(estimator):
    # Away from any state that seeding alone can reach: seeding again would go unseen there.
    random.random(), check_random_state(None).uniform(), torch.rand(1)
    before = global_random_state()
    model = fit(estimator, table())
    draws = model.sample(12)
    assert not np.any(np.isclose(draws, model.sample(12), rtol=ROUNDING))
    answers(model, near(table()), random_state=0)
    assert global_random_state() == before


@models(pick(ONE_OF_EACH[2:]))
def test_the_seed_of_the_nodes_is_fixed_unless_given(estimator):
    def score(random_state):
        model = clone(estimator).set_params(random_state=random_state).fit(table())
        return model.score(near(table()))

    assert_allclose(score(None), score(None), rtol=ROUNDING)
    assert_allclose(score(1), score(1), rtol=ROUNDING)
    generators = [score(np.random.RandomState(1)) for _ in range(2)]
    assert_allclose(*generators, rtol=ROUNDING)
    # Other nodes give another quadrature error, which 16 nodes do not push below rounding.
    distinct = {round(value, 9) for value in (score(None), score(1), score(2), generators[0])}
    assert len(distinct) == 4


# -------------------------------------------------------------------------------------- copies


@typical_model
def test_clone_is_unfitted_and_learns_the_same(estimator):
    model = fitted(estimator)
    twin = clone(model)
    assert not [name for name in vars(twin) if name.endswith("_")]
    assert_same_answers(answers(twin.fit(table()), near(table())), answers(model, near(table())))


@typical_model
def test_copies_of_a_fitted_model_give_the_same_answers(estimator, tmp_path):
    model = fitted(estimator)
    joblib.dump(model, tmp_path / "model")
    twins = [
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        joblib.load(tmp_path / "model"),
        # Memory-mapped arrays are read-only: a worker of joblib gets the model in this form.
        joblib.load(tmp_path / "model", mmap_mode="r"),
    ]
    expected = answers(model, near(table()))
    model.fit(-10 * table(seed=1))  # a copy that shares arrays would follow
    for twin in twins:
        assert_same_answers(answers(twin, near(table())), expected)


@every_model
def test_fitted_attributes_are_numpy(estimator):
    # Tensors would tie a stored model to a device.
    for name, value in vars(fitted(estimator)).items():
        parts = vars(value).values() if hasattr(value, "__dict__") else [value]
        assert not any(isinstance(part, torch.Tensor) for part in parts), name


# ------------------------------------------------------------------------------------- layouts


def memory_map(X, folder):
    X.tofile(folder / "table")
    return np.memmap(folder / "table", dtype=X.dtype, mode="r", shape=X.shape)


def read_only(X, _):
    X = X.copy()
    X.flags.writeable = False
    return X


# Each is the same table of small whole numbers, which every type holds exactly.
LAYOUTS = {
    "read-only": read_only,
    "memory-mapped": memory_map,
    "Fortran-ordered": lambda X, _: np.asfortranarray(X),
    "negative strides": lambda X, _: X[::-1, ::-1].copy()[::-1, ::-1],
    "every second column": lambda X, _: np.repeat(X, 2, axis=1)[:, ::2],
    "big-endian": lambda X, _: X.astype(">f8"),
    "float32": lambda X, _: X.astype(np.float32),
    "float16": lambda X, _: X.astype(np.float16),
    "int64": lambda X, _: X.astype(np.int64),
    "int8": lambda X, _: X.astype(np.int8),
    "big-endian int": lambda X, _: X.astype(">i4"),
    "object": lambda X, _: X.astype(object),
    "list": lambda X, _: X.tolist(),
    "list of arrays": lambda X, _: list(X),
    "DataFrame": lambda X, _: pd.DataFrame(X, columns=["a", "b", "c"]),
    "DataFrame of mixed types": lambda X, _: pd.DataFrame(X).astype({0: np.int32, 1: np.float32}),
    "torch tensor": lambda X, _: torch.from_numpy(X),
}


# All estimators convert X by the same function.
@models(pick(["kde-gaussian", "smoothed"]))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_and_type_of_X_do_not_matter(estimator, layout, tmp_path):
    X = np.random.RandomState(0).randint(-4, 5, size=(30, 3)).astype(np.float64)
    laid_out = LAYOUTS[layout](X, tmp_path)
    found = answers(fit(estimator, laid_out), laid_out)
    assert_same_answers(found, answers(fit(estimator, X), X))


@models(pick(["kde-gaussian", "smoothed"]))
@pytest.mark.parametrize(
    "form",
    [
        np.ndarray.tolist,
        lambda w: w.astype(np.float32),
        lambda w: w.astype(np.int8),
        lambda w: w.astype(">f8"),
        lambda w: w[::-1].copy()[::-1],
        pd.Series,
    ],
    ids=["list", "float32", "int8", "big-endian", "negative strides", "Series"],
)
def test_layout_and_type_of_the_weights_do_not_matter(estimator, form):
    X = table()
    weights = np.arange(30.0) % 4
    Q = near(X[weights > 0])
    expected = answers(fit(estimator, X, sample_weight=weights), Q)
    assert_same_answers(answers(fit(estimator, X, sample_weight=form(weights)), Q), expected)


def test_booleans_are_weights():
    X, chosen = table(), np.arange(30) % 4 > 0
    as_booleans, as_numbers = (
        KDESampler(1.0).fit(X, sample_weight=w) for w in (chosen, 1.0 * chosen)
    )
    assert_array_equal(as_booleans.score_samples(X), as_numbers.score_samples(X))


@models(FIXED, {name: AUTO[name] for name in ("kde-loo", "smoothed-auto")})
def test_the_model_owns_its_data(estimator):
    X, weights = table(), np.arange(1.0, 31.0)
    model = fit(estimator, X, sample_weight=weights)
    assert_array_equal(X, table())
    assert_array_equal(weights, np.arange(1.0, 31.0))
    before = answers(model, near(table()))
    X[:], weights[:] = 7.0, 0.0
    if isinstance(model.bandwidth, list):
        model.bandwidth[:] = [9.0] * len(model.bandwidth)
    assert_same_answers(answers(model, near(table())), before)


def test_a_bandwidth_array_is_copied():
    bandwidth = np.array([0.9, 0.6, 0.3])
    model = KDESampler(bandwidth).fit(table())
    before = answers(model, near(table()))
    bandwidth *= 3
    assert_same_answers(answers(model, near(table())), before)


# ----------------------------------------------------------------------------- degenerate data


@models(pick(GAUSSIAN))
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("copies", [1, 5])
def test_a_single_distinct_row_gives_a_gaussian(estimator, d, copies):
    # Nothing to smooth: log N(x, h^2 I) is a parabola, and the mean offset of the kernel is zero.
    row = table(1, d)
    model = fit(estimator, np.repeat(row, copies, axis=0))
    Q = row + table(20, d, seed=1)
    expected = multivariate_normal(row[0], model.bandwidth_**2 * np.eye(d)).logpdf(Q)
    assert_allclose(model.score_samples(Q), expected, rtol=ROUNDING, atol=ROUNDING)
    # 400 draws in d dimensions: the mean square has a standard deviation of sqrt(2 / 400 d), 7 %
    # at d = 1, so 40 % is more than 5 of them.
    offsets = (model.sample(400, random_state=0) - row) / model.bandwidth_
    assert_allclose(np.mean(offsets**2), 1, atol=0.4)


# Without a bandwidth for each of three columns; kernels with compact support share their code.
@models(
    pick(["kde-gaussian", "kde-tophat", "kde-exponential"]),
    {name: model for name, model in FIXED.items() if not name.startswith("kde")},
)
@pytest.mark.parametrize(
    "X",
    [
        pytest.param(table(1, 3), id="one row"),
        pytest.param(table(1, 1), id="one number"),
        pytest.param(table(20, 1), id="one column"),
        pytest.param(table(20, 3) * [1, 0, 1] + [0, 5, 0], id="a constant column"),
        pytest.param(np.full((6, 3), 2.0), id="equal rows"),
        pytest.param(np.repeat(table(6, 3), 3, axis=0), id="duplicates"),
        pytest.param(table(20, 1) * np.ones(3), id="rows on a line"),
        pytest.param(table(4, 9), id="more columns than rows"),
        pytest.param(table(20, 3) + 1e6, id="far from the origin"),
    ],
)
def test_degenerate_data_work_at_given_scales(estimator, X):
    d = X.shape[1]
    if isinstance(getattr(estimator, "manifold", None), AffineSubspace):
        # A hyperplane of as many dimensions as the data ask for.
        estimator = clone(estimator).set_params(manifold=AffineSubspace(np.ones((1, d)), [0.5]))
    model = fit(estimator, X)
    for name, answer in answers(model, X).items():
        assert np.all(np.isfinite(answer)), name
    # The radius of a kernel has mean square d h^2, for the exponential one d (d + 1) h^2; 20 root
    # mean squares, and as much smoothing, hold 12 draws with a probability of nearly one.
    spread = np.ptp(X, axis=0).max() + 20 * d * (model.bandwidth_ + getattr(model, "sigma_", 0))
    assert np.all(np.abs(model.sample(12, random_state=0) - X.mean(axis=0)) < spread)


@models(pick(GAUSSIAN))
def test_a_constant_column_is_an_independent_gaussian(estimator):
    X = table(20, 2)
    model = fit(estimator, X)
    with_constant = fit(estimator, np.insert(X, 1, 5.0, axis=1))
    Q, height = near(X), table(20, 1, seed=1)
    expected = model.score_samples(Q) + norm(5, model.bandwidth_).logpdf(height[:, 0])
    found = with_constant.score_samples(np.insert(Q, [1], height, axis=1))
    assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING)


@models(pick(GAUSSIAN))
def test_with_more_columns_than_rows_what_leaves_the_hull_is_gaussian(estimator):
    X = table(4, 9)
    model = fit(estimator, X)
    h = model.bandwidth_
    # An orthonormal basis of the 6 directions in which 4 rows have no extent.
    outside = np.linalg.svd(X - X.mean(axis=0))[2][3:]
    steps = table(4, 6, seed=1)
    lost = model.score_samples(X) - model.score_samples(X + steps @ outside)
    expected = 0.5 * np.sum(steps**2, axis=1) / h**2
    assert_allclose(lost, expected, rtol=ROUNDING * 100, atol=ROUNDING * 100)
    # 6 x 400 normal numbers: their mean square has a standard deviation of 3 %.
    drawn = (model.sample(400, random_state=0) - X.mean(axis=0)) @ outside.T / h
    assert_allclose(np.mean(drawn**2), 1, atol=0.2)


NO_SCALE = {
    # model: the parameters that the message must tell the user to set
    "kde-loo": (KDESampler("loo"), ["bandwidth"]),
    "kde-tophat-loo": (KDESampler("loo", "tophat"), ["bandwidth"]),
    "kde-scott": (KDESampler("scott"), ["bandwidth"]),
    "kde-silverman": (KDESampler("silverman"), ["bandwidth"]),
    "smoothed": (SmoothedScoreDiffusion("auto", "auto"), ["bandwidth", "sigma"]),
    "smoothed-bandwidth": (SmoothedScoreDiffusion("auto", 0.5), ["bandwidth"]),
    "smoothed-sigma": (SmoothedScoreDiffusion(0.5, "auto"), ["sigma"]),
    "adapted-loo": (ManifoldAdaptedDiffusion("loo", 0.5), ["bandwidth"]),
}


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize(("estimator", "missing"), NO_SCALE.values(), ids=NO_SCALE)
def test_a_scale_cannot_be_learned_from_one_row(estimator, missing, copies):
    with pytest.raises(ValueError, match=r"n_samples = 1\b.*; pass ") as caught:
        fit(estimator, np.ones((copies, 2)))
    next_step = str(caught.value).split("; pass ")[1]
    for name in missing:
        assert f"{name}=" in next_step


@pytest.mark.parametrize("rule", ["scott", "silverman"])
def test_rules_of_thumb_name_the_constant_columns(rule):
    with pytest.raises(ValueError, match=rf"bandwidth='{rule}'.*constant columns \[1\].*drop"):
        KDESampler(rule).fit(table() * [1, 0, 1])
    named = pd.DataFrame(table() * [1, 0, 1], columns=["a", "flat", "c"])
    with pytest.raises(ValueError, match=rf"bandwidth='{rule}'.*constant columns \['flat'\].*drop"):
        KDESampler(rule).fit(named)


# ---------------------------------------------------------------------------------- failed fits


def bad(**params):
    """A refit with a bad parameter, on other data."""
    return lambda model, X: model.set_params(**params).fit(2 * X[:7])


BAD_REFITS = {
    "NaN in X": lambda model, X: model.fit(X * np.nan),
    "NaN in X with other names": lambda model, X: model.fit(
        pd.DataFrame(X * np.nan).add_prefix("z")
    ),
    "no rows": lambda model, X: model.fit(X[:0]),
    "another width, negative weights": lambda model, X: model.fit(X[:, :2], None, -np.ones(len(X))),
    "weights of the wrong length": lambda model, X: model.fit(2 * X, sample_weight=[1.0]),
    "mixed column names": lambda model, X: model.fit(pd.DataFrame(2 * X, columns=["a", "b", 0])),
    "bandwidth": bad(bandwidth=-1.0),
    "bandwidth rule": bad(bandwidth="none such"),
    "one row": lambda model, X: model.set_params(bandwidth="loo").fit(X[:1]),
    "device": bad(device="none such"),
    "dtype": bad(dtype="float16"),
    "memory_limit too small": bad(memory_limit=1e-6),
}
BAD_DIFFUSION_REFITS = {
    "sigma": bad(sigma=-1.0),
    "solver": bad(solver="none such"),
    "terminal": bad(terminal="none such"),
    "terminal_scale": bad(terminal_scale=1e-3),
    "n_nodes": bad(n_nodes=7),
    "n_levels": bad(n_levels=0),
    "n_steps": bad(n_steps=0),
    "random_state": bad(random_state=-1),
}
BAD_ADAPTED_REFITS = {
    "n_components": bad(n_components=9),
    "manifold": bad(manifold=AffineSubspace([[1.0, 1.0]], [0.0])),
}


def bad_refits():
    for name, extra in {
        "kde-gaussian": {"kernel": bad(kernel="none such")},
        "kde-tophat": {},
        "smoothed": BAD_DIFFUSION_REFITS,
        "adapted-components": BAD_DIFFUSION_REFITS | BAD_ADAPTED_REFITS,
    }.items():
        for what, refit in (BAD_REFITS | extra).items():
            yield pytest.param(FIXED[name], refit, id=f"{name}-{what}")


@functools.cache
def _fitted_to_frame(estimator):
    frame = pd.DataFrame(table(), columns=["a", "b", "c"])
    model = fit(estimator, frame)
    return frame, model, answers(model, near(frame))


@pytest.mark.parametrize(("estimator", "refit"), list(bad_refits()))
def test_a_failed_refit_leaves_the_fitted_model_whole(estimator, refit):
    frame, shared, expected = _fitted_to_frame(estimator)
    X, model = frame.to_numpy(), copy.deepcopy(shared)
    params, before = model.get_params(), contents(model)
    with pytest.raises((ValueError, TypeError)):
        refit(model, X)
    model.set_params(**params)
    assert contents(model) == before
    assert_same_answers(answers(model, near(frame)), expected)


@models(pick(ONE_OF_EACH))
def test_a_refit_forgets_the_old_data(estimator):
    frame = pd.DataFrame(table(20, 2, seed=1), columns=["a", "b"])
    model = fit(estimator, frame, sample_weight=np.arange(20)).fit(table())
    fresh = fit(estimator, table())
    assert vars(model).keys() == vars(fresh).keys()
    assert_same_answers(answers(model, near(table())), answers(fresh, near(table())))


# -------------------------------------------------------------------------------------- weights


@every_model
def test_a_row_of_weight_k_is_k_equal_rows(estimator):
    X = table()
    counts = np.random.RandomState(0).randint(0, 4, size=len(X))
    weighted = fit(estimator, X, sample_weight=counts)
    repeated = fit(estimator, np.repeat(X, counts, axis=0))
    assert_array_equal(weighted.points_, repeated.points_)
    assert_allclose(weighted.bandwidth_, repeated.bandwidth_, rtol=SEARCH)
    Q = near(X[counts > 0])
    assert_same_answers(answers(weighted, Q), answers(repeated, Q), tolerance_of(estimator))


@pytest.mark.parametrize("seed", range(5))
def test_a_row_of_weight_k_is_k_equal_rows_to_the_last_bit(seed):
    # Sums of whole numbers are exact, so nothing here need round twice.
    X = table(seed=seed)
    counts = np.random.RandomState(seed).randint(0, 4, size=len(X))
    weighted = KDESampler(1.0).fit(X, sample_weight=counts)
    repeated = KDESampler(1.0).fit(np.repeat(X, counts, axis=0))
    assert_array_equal(weighted.weights_, repeated.weights_)


@typical_model
def test_a_row_of_weight_zero_is_absent(estimator):
    X = table()
    outlier = np.full((1, 3), 100.0)
    with_outlier = fit(estimator, np.concatenate([X, outlier]), sample_weight=[1] * len(X) + [0])
    assert_same_answers(answers(with_outlier, near(X)), answers(fitted(estimator), near(X)))


@typical_model
def test_only_ratios_of_weights_matter(estimator):
    X = table()
    weights = np.arange(1.0, 31.0)
    expected = answers(fit(estimator, X, sample_weight=weights), near(X))
    for factor in (1e306, 3.7e-307):  # the sum of the first overflows
        found = answers(fit(estimator, X, sample_weight=factor * weights), near(X))
        assert_same_answers(found, expected, tolerance_of(estimator))


@typical_model
def test_equal_weights_are_no_weights(estimator):
    X = table()
    expected = answers(fitted(estimator), near(X))
    assert_same_answers(answers(fit(estimator, X, sample_weight=np.full(30, 3)), near(X)), expected)


@models(FIXED, WITHOUT_DENSITY)
def test_weights_have_a_say(estimator):
    X = table()
    heavy = fit(estimator, X, sample_weight=np.where(X[:, 0] > 0, 1.0, 1e-3))
    assert heavy.sample(100, random_state=0)[:, 0].mean() > 0.5 + X[:, 0].mean()
    if has_energy(heavy):
        Q = X[X[:, 0] > 0]
        assert np.mean(heavy.energy(Q)) < np.mean(fitted(estimator).energy(Q))


@models(AUTO)
def test_a_scale_is_found_beside_a_row_of_overwhelming_weight(estimator):
    # One minus the largest share rounds to zero: what the others weigh must be summed, not
    # subtracted.
    model = fit(estimator, table(), sample_weight=[1e20] + [1.0] * 29)
    assert np.all(np.isfinite(model.bandwidth_))
    assert np.all(np.asarray(model.bandwidth_) > 0)


@pytest.mark.parametrize(
    ("estimator", "d"),
    # scikit-learn finds neighbours by products from d = 16 on, where searches take long.
    [
        pytest.param(AUTO[name], d, id=f"{name}-{d}")
        for name in AUTO
        for d in (3, 20)
        if d == 20 or not name.endswith("-auto")
    ],
)
def test_the_scale_found_does_not_depend_on_the_origin(estimator, d):
    far = table(d=d) + 1e4
    found = fit(estimator, far).bandwidth_
    # The subtraction is exact, so these are the same data. Brent's method stops within 0.1 %; the
    # edge of a compact kernel may need a margin for rounding, which is far below that.
    assert_allclose(found, fit(estimator, far - 1e4).bandwidth_, rtol=2e-3)


@typical_model
def test_the_order_of_the_rows_does_not_matter(estimator):
    X, weights = table(), np.arange(1.0, 31.0)
    order = np.random.RandomState(0).permutation(len(X))
    expected = answers(fit(estimator, X, sample_weight=weights), near(X))
    found = answers(fit(estimator, X[order], sample_weight=weights[order]), near(X))
    assert_same_answers(found, expected)


# --------------------------------------------------------------------------- memory, precision


def fitted_in_least_memory(estimator, X):
    """Fit with the smallest power of four, in MiB, that `fit` accepts: it cuts work into many tiles."""
    for exponent in reversed(range(40)):
        model = clone(estimator).set_params(memory_limit=0.25**exponent)
        try:
            model.fit(X)
        except ValueError:
            assert exponent > 0
        else:
            assert exponent < 39, "no limit is too small"
            return model


@models(
    pick(ONE_OF_EACH),
    {name: AUTO[name] for name in ("kde-loo", "kde-tophat-loo")},
    # Not "auto" for both scales: a search of eleven candidates in tiles of a row takes minutes. Other
    # diffusions search by the same sums.
    {"smoothed-loo": SmoothedScoreDiffusion("loo", 0.5, **COARSE)},
)
def test_memory_limit_does_not_change_the_answers(estimator):
    X = table(24)
    Q = near(X)
    model = fit(estimator, X)
    tight = fitted_in_least_memory(estimator, X)
    limit = tight.memory_limit
    assert limit < len(Q) * len(X) * 8 / 2**20  # not even the distances fit into one tile
    large = answers(model, Q)
    small = answers(model.set_params(memory_limit=limit), Q)
    # A solver carries the rounding of one step into the next.
    assert_allclose(small.pop("sample"), large.pop("sample"), rtol=1e-10, atol=1e-10)
    assert_same_answers(small, large)
    # The search for a bandwidth sums in tiles too.
    assert_allclose(tight.bandwidth_, model.bandwidth_, rtol=SEARCH)


@models(FIXED, WITHOUT_DENSITY)
def test_float32_is_near_float64(estimator):
    X = table() + 1e5  # which float32 holds to 0.008, no more
    model = fit(estimator, X)
    double = answers(model, near(X))
    single = answers(fit(clone(estimator).set_params(dtype="float32"), X), near(X))
    # An exponent of up to |x|^2 / 2h^2 = 200 nats, rounded to 6e-8 of itself, is off by 1e-5; ten
    # such errors may add up in a sum over points, nodes and steps. The gradient is exponents' worth
    # divided by h.
    assert_same_answers(single, double, tolerance=1e-4)
    field = "energy" if "energy" in single else "grad_log_density"
    assert not np.array_equal(single[field], double[field])  # it did compute in float32


@models(AUTO)
def test_scales_found_in_float32_are_near_those_found_in_float64(estimator):
    # Brent's method stops within 0.1 % on either side.
    double = fitted(estimator).bandwidth_
    single = fit(clone(estimator).set_params(dtype="float32"), table()).bandwidth_
    assert_allclose(single, double, rtol=2e-3)


# ------------------------------------------------------------------------ pipelines and searches


def fold_scores(estimator, X, cv):
    return [fit(estimator, X[train]).score(X[test]) for train, test in cv.split(X)]


@models(pick(["kde-gaussian", "kde-exponential", "smoothed", "adapted-components"]))
def test_cross_val_score_is_the_mean_log_density_of_each_fold(estimator):
    X = table(32)  # folds of 11, 11 and 10 rows: a sum would show
    cv = KFold(3)
    assert_allclose(cross_val_score(estimator, X, cv=cv), fold_scores(estimator, X, cv))


GRIDS = {
    KDESampler: {"bandwidth": [0.2, 0.4, 0.8], "kernel": ["gaussian", "exponential"]},
    SmoothedScoreDiffusion: {"bandwidth": [0.1, 0.4], "sigma": [0.0, 0.3, 0.9]},
    ManifoldAdaptedDiffusion: {"bandwidth": [0.1, 0.4], "sigma": [0.0, 0.3, 0.9]},
}


@every_class
def test_grid_search_in_a_pipeline_gives_the_same_on_two_workers(cls):
    X = table(32)
    pipeline = make_pipeline(StandardScaler(), cls(**({} if cls is KDESampler else COARSE)))
    grid = {f"{cls.__name__.lower()}__{name}": values for name, values in GRIDS[cls].items()}
    one, two = (GridSearchCV(pipeline, grid, cv=KFold(3), n_jobs=n).fit(X) for n in (1, 2))
    scores = one.cv_results_["mean_test_score"]
    assert len(np.unique(scores.round(6))) == len(scores) == 6  # every parameter has a say
    assert_allclose(two.cv_results_["mean_test_score"], scores, rtol=SEARCH)
    assert two.best_params_ == one.best_params_
    # The search scores what the chosen model scores on its own, and refits it on all rows.
    alone = clone(pipeline).set_params(**one.best_params_)
    assert_allclose(np.mean(fold_scores(alone, X, KFold(3))), one.best_score_)
    assert_allclose(one.score_samples(X), alone.fit(X).score_samples(X))


@every_class
def test_weights_pass_through_a_pipeline(cls):
    X, weights = table(), np.arange(1.0, 31.0)
    model = cls(0.5, **({} if cls is KDESampler else {"sigma": 0.5, **COARSE}))
    pipeline = make_pipeline(StandardScaler(), model)
    pipeline.fit(X, **{f"{cls.__name__.lower()}__sample_weight": weights})
    Z = StandardScaler().fit_transform(X)
    expected = fit(model, Z, sample_weight=weights).score_samples(Z)
    assert_allclose(pipeline.score_samples(X), expected, rtol=SEARCH)
