"""Every constructor parameter of every public class, with every kind of wrong value.

The classes and their parameters are discovered, so that a new one is tested without being listed. A
value is either accepted, or refused by a TypeError or ValueError whose message names the parameter;
nothing else may be raised, and a fit that fails leaves the estimator unfitted.
"""

import ast
import copy
import functools
import importlib
import importlib.util
import inspect
import pickle
import re
import warnings
from fractions import Fraction
from functools import partial
from pathlib import Path

import joblib
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import skdiffsmooth.displays
from skdiffsmooth import (
    KDESampler,
    LangevinSampler,
    SmoothedScoreDiffusion,
    SphericalScoreDiffusion,
)
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.manifolds import Torus
from skdiffsmooth.tables import TableColumns, TableDensity

MODULES = (
    "",
    ".compose",
    ".model_selection",
    ".bases",
    ".manifolds",
    ".kernels",
    ".solvers",
    ".noise",
    ".tables",
)
REPOSITORY = Path(__file__).parents[2]
COARSE = {"n_nodes": 4, "n_levels": 2, "n_steps": 2}
SMOOTHED = SmoothedScoreDiffusion(0.5, 0.5, **COARSE)
# What makes a fit of a class cheap, and the arguments that a class needs.
CHEAP = {
    "SmoothedScoreDiffusion": {"bandwidth": 0.5, "sigma": 0.5, **COARSE},
    "ManifoldAdaptedDiffusion": {"bandwidth": 0.5, "sigma": 0.5, "n_components": 1, **COARSE},
    "NeuralScoreDiffusion": {
        "max_iter": 1,
        "hidden_layer_sizes": (4,),
        "n_levels": 2,
        "n_steps": 2,
    },
    "LocalScoreDiffusion": {
        "bandwidth": 0.5,
        "size": 1,
        "width": 0.0,
        "n_levels": 2,
        "n_steps": 2,
    },
    "CoarseScoreDiffusion": {"bandwidth": 0.05, "n_components": 1, "n_nodes": 4},
    "SmoothedScoreDiffusionCV": {"estimator": SMOOTHED, "n_refinements": 0},
    "DensityStacking": {"estimators": [("a", KDESampler(0.5)), ("b", KDESampler(0.7))]},
    "DensityClassifier": {"estimator": KDESampler(0.5)},
    "DensityOutlierDetector": {"estimator": KDESampler(0.5)},
    "TransformedDensity": {"estimator": KDESampler(0.5)},
    "TableDensity": {"density": KDESampler(0.5)},
    "DensityImputer": {"estimator": TableDensity(density=KDESampler(0.5))},
    "DensityOverSampler": {"estimator": TableDensity(density=KDESampler(0.5))},
    "ManifoldParzen": {"n_neighbors": 5},
    "SphericalScoreDiffusion": {"bandwidth": 0.5, "sigma": 0.5, "n_nodes": 4, "n_steps": 2},
    "LangevinSampler": {"n_warmup": 4, "n_draws": 4, "n_chains": 2, "step_size": 0.1},
}


class Thing:
    def __repr__(self):
        return "Thing()"


NAN, INF = float("nan"), float("inf")
WRONG = {
    "none": None,
    "true": True,
    "name": "no-such-name",
    "empty name": "",
    "bytes": b"x",
    "negative": -1,
    "zero": 0,
    "half": 0.5,
    "odd": 3,
    "negative float": -0.5,
    "nan": NAN,
    "inf": INF,
    "huge": 10**30,
    "beyond floats": 10**400,
    "complex": 1j,
    "empty list": [],
    "empty dict": {},
    "nested list": [[1.0], [2.0, 3.0]],
    "text list": ["a"],
    "nan list": [NAN],
    "class": int,
    "object": Thing(),
    "function": len,
    "generator": np.random.default_rng(0),
    "gradient": torch.ones(2, requires_grad=True),
    "device": "cpu:7",
}
# Numbers of workers that are right, and would start some.
WORKERS = {"odd", "negative"}
X = np.random.RandomState(0).normal(size=(12, 2))
KDE = KDESampler(0.5).fit(X)
Y = np.arange(12) % 2
DIRECTIONS = np.column_stack([X, np.ones(12)]) / np.sqrt(1 + np.sum(X**2, axis=1))[:, None]


# Names of the page of the API, which all public parts are on (`test_docs.py`).
DOCUMENTED = set(
    re.findall(
        r"^   (?:\w+\.)?(\w+)$", (REPOSITORY / "docs/api/index.md").read_text(), re.MULTILINE
    )
)
# Parts of optional dependencies, which are in no `__all__`.
OPTIONAL = {"skdiffsmooth.tables": ["DensityOverSampler"]}


def public(module):
    """Return the names of the public parts of a module; optional ones where they are installed."""
    optional = OPTIONAL.get(module.__name__, []) if importlib.util.find_spec("imblearn") else []
    return [*module.__all__, *optional]


def estimators():
    """Return the public estimator classes by name."""
    classes = {}
    for module in MODULES:
        loaded = importlib.import_module(f"skdiffsmooth{module}")
        for name in public(loaded):
            value = getattr(loaded, name)
            if inspect.isclass(value) and issubclass(value, BaseEstimator):
                classes[name] = value
    return classes


def parameters():
    return [
        pytest.param(cls, name, id=f"{cls.__name__}-{name}")
        for cls in estimators().values()
        for name in inspect.signature(cls).parameters
    ]


def cheap(cls):
    return cls(**CHEAP.get(cls.__name__, {}))


def run(estimator):
    """Fit and draw, so that parameters which matter to draws only are checked too."""
    if isinstance(estimator, LangevinSampler):
        return estimator.run(KDESampler(0.5).fit(X))
    if isinstance(estimator, skdiffsmooth.bases.ManifoldParzen):
        return SmoothedScoreDiffusion(0.5, 0.5, base=estimator, **COARSE).fit(X)
    if isinstance(estimator, SphericalScoreDiffusion):
        return estimator.fit(DIRECTIONS)
    if hasattr(estimator, "fit_resample"):
        estimator.fit_resample(X, np.arange(12) < 4)
        return estimator
    fitted = estimator.fit(X, Y) if "y" in inspect.signature(estimator.fit).parameters else None
    return fitted if fitted is not None else estimator.fit(X)


def test_the_public_estimators_are_discovered():
    assert set(CHEAP) <= set(estimators())
    assert len(parameters()) > 100
    for cls in estimators().values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(cheap(cls))


def refusal(call, name):
    """Return the exception of a call, or None, and what is wrong with it as an answer to a wrong
    value of the parameter ``name``, or None: a TypeError or ValueError must name the parameter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except (TypeError, ValueError) as error:
        if name in str(error):
            return error, None
        return error, f"{type(error).__name__} without the name: {error!s:.150}"
    except Exception as error:
        return error, f"{type(error).__name__}: {error!s:.150}"
    return None, None


@pytest.mark.parametrize(("cls", "name"), parameters())
def test_a_wrong_value_is_refused_by_name(cls, name):
    problems = []
    for kind, value in WRONG.items():
        # imbalanced-learn refuses these in its own words, and a function raises what it raises.
        if name == "sampling_strategy" and kind in ("half", "class", "function"):
            continue
        if name == "n_jobs" and kind in WORKERS:
            continue
        estimator = clone(cheap(cls))

        def call(estimator=estimator, value=value):
            estimator.set_params(**{name: value})
            run(estimator)

        error, problem = refusal(call, name)
        if problem:
            problems.append(f"{kind}: {problem}")
        if isinstance(error, TypeError | ValueError) and hasattr(estimator, "fit"):
            try:
                check_is_fitted(estimator)
            except (NotFittedError, TypeError):
                pass
            else:
                problems.append(f"{kind}: fitted all the same")
    assert not problems, "\n".join(problems)


# ----------------------------------------------------------------------------------------- methods

# Rows are refused in the words of scikit-learn, and functions of the user's own raise what they raise.
ROWS, FUNCTIONS = {"X", "start"}, {"likelihood", "target"}


def methods():
    """Return (class, method) of all public methods with parameters of the estimators."""
    return [
        pytest.param(cls, name, id=f"{cls.__name__}-{name}")
        for cls in estimators().values()
        if hasattr(cls, "fit") or hasattr(cls, "run")
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if method.__module__.startswith("skdiffsmooth")
        and not name.startswith(("_", "set_", "get_"))
        if len(inspect.signature(method).parameters) > 1
    ]


@functools.cache
def fitted(cls):
    """Return an estimator, fitted unless it is a sampler."""
    estimator = cheap(cls)
    if hasattr(cls, "fit"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(estimator)
    return estimator


@pytest.mark.parametrize(("cls", "method"), methods())
def test_a_wrong_argument_of_a_method_is_refused_by_name(cls, method):
    """Queries leave the estimator as it was; each call that fits has one of its own."""
    estimator = fitted(cls)
    names = list(inspect.signature(getattr(cls, method)).parameters)[1:]
    right = {"X": DIRECTIONS if cls is SphericalScoreDiffusion else X, "y": Y, "target": KDE}
    right = {name: right[name] for name in names if name in right}
    problems = []
    for name in names:
        for kind, value in WRONG.items():
            if name == "y" or (name in FUNCTIONS and kind in ("class", "function")):
                continue
            of = copy.deepcopy(estimator) if "fit" in method else estimator
            unchanged = joblib.hash(of)
            error, problem = refusal(partial(getattr(of, method), **right | {name: value}), name)
            if problem and not (name in ROWS and isinstance(error, TypeError | ValueError)):
                problems.append(f"{name}, {kind}: {problem}")
            if joblib.hash(of) != unchanged and (error or "fit" not in method):
                problems.append(f"{name}, {kind}: the estimator has changed")
    assert not problems, "\n".join(problems)


# ------------------------------------------------------------------------------------------- parts


def diffusion(**parameters):
    return SmoothedScoreDiffusion(**{"bandwidth": 0.5, "sigma": 0.5, **COARSE, **parameters}).fit(X)


def projected(manifold):
    return manifold.project(np.full((2, 3 if isinstance(manifold, Torus) else 2), 0.3))


def column(values):
    return lambda kind: TableColumns.fit(pd.DataFrame({"column": values}), {"column": kind})


def circle(t):
    return np.column_stack([np.cos(t), np.sin(t)])


NUMBERS = column(0.1 + 0.01 * X.ravel() ** 2)
CENTER = {"center": [0.0, 0.0], "radius": 1.0}
# The classes that are no estimators and have parameters: arguments, and what reads the part.
PARTS = {
    "AnisotropicGaussianKernel": ({}, lambda k: diffusion(kernel=k)),
    "OffsetsKernel": ({"offsets": [[1.0, 0.0], [-1.0, 0.0]]}, lambda k: diffusion(kernel=k)),
    "QueryKernel": (
        {"offsets": lambda x, z: z.expand(len(x), *z.shape)},
        lambda k: diffusion(kernel=k),
    ),
    "SamplerKernel": (
        {"sampler": lambda rng, n: rng.standard_normal((n, 2))},
        lambda k: diffusion(kernel=k),
    ),
    "ProportionalScale": ({"ratio": 0.5}, lambda s: diffusion(sigma=s)),
    "Adaptive": ({}, lambda s: diffusion(solver=s).sample(2, random_state=0)),
    "PredictorCorrector": ({}, lambda s: diffusion(solver=s).sample(2, random_state=0)),
    "OrnsteinUhlenbeck": ({}, lambda n: diffusion(noise=n)),
    "AffineSubspace": ({"A": [[1.0, 0.0]], "b": [0.5]}, projected),
    "Circle": (CENTER, projected),
    "Sphere": (CENTER, projected),
    "Torus": ({"center": [0.0, 0.0, 0.0], "radius": 2.0, "tube_radius": 0.5}, projected),
    "Curve": ({"function": circle, "start": 0.0, "stop": 6.0}, projected),
    "PointCloud": ({"points": X}, projected),
    "PiecewiseConstant": ({}, lambda d: make_circle(5, distribution=d, random_state=0)),
    "VonMises": ({}, lambda d: make_circle(5, distribution=d, random_state=0)),
    "Categorical": ({}, column(list("abab"))),
    "Ordinal": ({"levels": ("a", "b")}, column(list("abab"))),
    "Continuous": ({}, NUMBERS),
    "Integer": ({}, column(np.arange(12) % 4)),
    "Interval": ({"low": 0.0, "high": 10.0}, NUMBERS),
    "Periodic": ({"period": 24.0}, NUMBERS),
    "Positive": ({}, NUMBERS),
    "Datetime": ({}, column(pd.date_range("2020-01-01", periods=12))),
    "LinearObservation": (
        {"A": [[1.0, 0.0]], "y": [0.0], "noise": 1.0},
        KDESampler(0.5).fit(X).log_evidence,
    ),
}
# What methods and functions return or store, which nobody makes; `ProductManifold` has parts only.
RETURNED = {
    *("ContinuousCoordinate", "DiscreteCoordinate", "EncodedTable", "Estimate", "Marginal"),
    *("FrozenKernel", "LinearShape", "AdaptiveState", "NoiseLevels", "Step", "Shape"),
    *("IntrinsicDimension", "ProductManifold", "TableColumns"),
}
# A function of the user's own raises what it raises.
OF_USERS = {"function", "sampler", "offsets"}


def parts():
    """Return the public classes that are neither estimators nor protocols and have parameters."""
    classes = {}
    for module in ("", ".kernels", ".solvers", ".noise", ".manifolds", ".datasets", ".tables"):
        loaded = importlib.import_module(f"skdiffsmooth{module}")
        for name in loaded.__all__:
            value = getattr(loaded, name)
            is_part = inspect.isclass(value) and not issubclass(value, BaseEstimator)
            is_protocol = getattr(value, "_is_protocol", False)
            is_made = is_part and not is_protocol and name not in RETURNED
            if is_made and inspect.signature(value).parameters:
                classes[name] = value
    return classes


@pytest.mark.parametrize("name", parts())
def test_a_wrong_value_of_a_part_is_refused_by_name(name):
    cls = parts()[name]
    arguments, use = PARTS[name]
    problems = []
    for parameter in inspect.signature(cls).parameters:
        for kind, value in WRONG.items():
            if parameter in OF_USERS and kind in ("class", "function"):
                continue

            def call(parameter=parameter, value=value):
                use(cls(**(arguments | {parameter: value})))

            _, problem = refusal(call, parameter)
            # A bound that is right and excludes values is refused with the column.
            if problem and "column 'column' holds" not in problem:
                problems.append(f"{parameter}, {kind}: {problem}")
    assert not problems, "\n".join(problems)


# Objects that methods of parts are called on, and right arguments of these methods.
FRAME = pd.DataFrame({"column": 0.1 + 0.01 * X.ravel() ** 2})
TABLE = TableColumns.fit(FRAME)
OBJECTS = {
    **{name: cls(**PARTS[name][0]) for name, cls in parts().items()},
    "ProductManifold": skdiffsmooth.manifolds.ProductManifold(
        skdiffsmooth.manifolds.Circle([0.0, 0.0, 0.0], 1.0, np.eye(3)[:, :2]),
        skdiffsmooth.manifolds.Curve(lambda t: t[:, None] * [0.0, 0.0, 1.0], -1.0, 1.0),
    ),
    "VarianceExploding": skdiffsmooth.noise.VarianceExploding(),
    "Uniform": skdiffsmooth.datasets.Uniform(),
    "Shape": skdiffsmooth.datasets.circle(),
    "TableColumns": TABLE,
}
ON_CIRCLE = np.full((2, 2), 0.3)
RIGHT = {
    **dict.fromkeys(("X", "Z", "points"), ON_CIRCLE),
    "t": 0.3,
    "scale": 0.6,
    "origin": [0.0, 0.5],
    "basis": [[1.0], [0.0]],
    "n_samples": 3,
    "random_state": 0,
    "spacing": "even",
    "noise": 0.1,
    "kinds": None,
    "sample_weight": None,
}
SOME = {"t": [0.3], "length": [0.3], "u": [0.3], "p": [0.3]}
RIGHT_OF = {
    "Torus": {"X": np.full((2, 3), 0.3)},
    "ProductManifold": {"X": np.full((2, 3), 0.3)},
    **dict.fromkeys(("Curve", "Uniform", "VonMises", "PiecewiseConstant"), SOME),
    "Shape": {"X": [[0.0, 1.0]]},
    "TableColumns": {"X": FRAME, "new_levels": "error"},
}
# Called by the library, though their arguments are plain numbers.
EXEMPT = {"check_columns", "check_names", "outputs", "take", "encode_given", "label_of"}
# A method that takes one of these is called by the library, with what it has checked.
OF_LIBRARY = re.compile(r"Tensor|Hull|Field|EncodedTable|Generator|RandomState|ndarray|Sequence")


def all_methods_of_parts():
    """Return {(class, method): whether the library calls it} of the documented parts.

    Estimators and protocols are no parts; `to_arviz` needs arviz.
    """
    found = {}
    for module in (*MODULES, ".datasets", ".metrics", ".langevin"):
        loaded = importlib.import_module(f"skdiffsmooth{module}")
        for cls in (getattr(loaded, name) for name in loaded.__all__ if name in DOCUMENTED):
            if not inspect.isclass(cls) or issubclass(cls, BaseEstimator):
                continue
            if getattr(cls, "_is_protocol", False):
                continue
            for name, method in inspect.getmembers(cls):
                # Functions and bound class methods; those of tuples are of neither kind.
                if name.startswith("_") or not (
                    inspect.isfunction(method) or inspect.ismethod(method)
                ):
                    continue
                if not method.__module__.startswith("skdiffsmooth") or name == "to_arviz":
                    continue
                given = [
                    p for p in inspect.signature(method).parameters.values() if p.name != "self"
                ]
                if given:
                    is_of_library = any(OF_LIBRARY.search(str(p.annotation)) for p in given)
                    found[cls.__name__, name] = is_of_library or name in EXEMPT
    return found


def methods_of_parts():
    """Return (class, method) of the methods that users call."""
    return [each for each, is_of_library in all_methods_of_parts().items() if not is_of_library]


def library_methods():
    """Return (class, method) of the methods that the library calls, with what it has checked."""
    return [each for each, is_of_library in all_methods_of_parts().items() if is_of_library]


@pytest.mark.parametrize(("name", "method"), methods_of_parts())
def test_a_wrong_argument_of_a_method_of_a_part_is_refused_by_name(name, method):
    call = getattr(OBJECTS[name], method)
    names = list(inspect.signature(call).parameters)
    right = RIGHT | RIGHT_OF.get(name, {})
    right = {each: right[each] for each in names if each in right}
    call(**right)
    problems = []
    for parameter in names:
        for kind, value in WRONG.items():
            _, problem = refusal(partial(call, **right | {parameter: value}), parameter)
            if problem:
                problems.append(f"{parameter}, {kind}: {problem}")
    assert not problems, "\n".join(problems)


# --------------------------------------------------------------------------------------- functions

JOINT = TableDensity(density=KDESampler(0.5)).fit(pd.DataFrame(X, columns=["a", "b"]))
# Required arguments of the functions that have any; the others are called with their defaults.
ARGUMENTS = {
    "classifier_two_sample_test": (X, X + 0.1),
    "coverage_scale": (X, X + 0.1),
    "fidelity_and_diversity": (X, X + 0.1),
    "memorization": (X, X + 0.1),
    "memorization_report": (X, X + 0.1, X - 0.1),
    "estimate_reach": (skdiffsmooth.manifolds.Circle([0.0, 0.0], 1.0), X),
    "intrinsic_dimension": (np.random.RandomState(1).normal(size=(30, 2)),),
    "smooth_along_level_sets": (
        KDESampler(0.5).fit(X).score_samples,
        skdiffsmooth.manifolds.Circle([0.0, 0.0], 1.0),
        X,
        0.1 * X[:3],
    ),
    "sample": (KDESampler(0.5).fit(X),),
    "find_modes": (KDESampler(0.5).fit(X),),
    "compare": ({"KDE": KDESampler(0.5).fit(X)}, X),
    "hyvarinen_score": (KDESampler(0.5).fit(X), X),
    "denoising_score": (KDESampler(0.5).fit(X), X),
    "implied_smoothing": (lambda x, v: -x / (1 + v), X),
    "marginal": (JOINT, ["a"]),
    "probability": (JOINT, {"a": (0, 1)}),
    "quantile": (JOINT, "a", 0.5),
    "cdf": (JOINT, "a", 0.0),
    "mutual_information": (JOINT, "a", "b"),
}
SMALL = {
    "make_bump_images": {"size": 8, "width": 0.4},
    "bump_images": {"size": 8, "width": 0.4},
    "classifier_two_sample_test": {"n_permutations": 3, "random_state": 0},
    **{name: {"error": 0.1} for name in ("marginal", "probability", "quantile", "cdf")},
    "mutual_information": {"error": 0.3},
    "implied_smoothing": {"family": "size", "noise_scales": [0.5], "n_samples": 20},
}
# Options of all generators of rows. Those of the draws take one way for all; one generator of each kind
# tries them.
OF_SHAPES = ("distribution", "n_features", "frame_state")
OF_DRAWS = ("return_shape", "noise", "spacing", "random_state")
DRAWN = ("make_circle", "make_bump_images")


def functions():
    """Return (function, parameter) of all parameters with a default of the public functions."""
    pairs = []
    modules = ("datasets", "metrics", "manifolds", "compose", "model_selection", "tables")
    for module in (f".{name}" for name in modules):
        loaded = importlib.import_module(f"skdiffsmooth{module}")
        for function in (getattr(loaded, name) for name in loaded.__all__):
            if not inspect.isfunction(function):
                continue
            signature = inspect.signature(function).parameters.values()
            names = [p.name for p in signature if p.default is not p.empty and p.name != "y"]
            if any(p.kind is p.VAR_KEYWORD for p in signature):
                names += OF_SHAPES + (OF_DRAWS if function.__name__ in DRAWN else ())
            pairs += [pytest.param(function, n, id=f"{function.__name__}-{n}") for n in names]
    return pairs


@pytest.mark.parametrize(("function", "name"), functions())
def test_a_wrong_argument_is_refused_by_name(function, name):
    problems = []
    for kind, value in WRONG.items():
        options = SMALL.get(function.__name__, {}) | {name: value}
        call = partial(function, *ARGUMENTS.get(function.__name__, ()), **options)
        _, problem = refusal(call, name)
        if problem:
            problems.append(f"{kind}: {problem}")
    assert not problems, "\n".join(problems)


# What scikit-learn's check of rows refuses in its own words, as in all estimators.
OF_SCIKIT_LEARN = {("compare", "X"), ("denoising_score", "X"), ("hyvarinen_score", "X")}
OF_SCIKIT_LEARN |= {("implied_smoothing", "X"), ("intrinsic_dimension", "X"), ("cdf", "values")}
CHAINS = np.random.RandomState(0).normal(size=(2, 8, 2))
CIRCLE = skdiffsmooth.manifolds.Circle([0.0, 0.0], 1.0)
REQUIRED = ARGUMENTS | {
    **dict.fromkeys(("scott", "silverman"), (X, np.full(12, 1 / 12))),
    "bulk_ess": (CHAINS,),
    "split_r_hat": (CHAINS,),
    "check_idempotent": (CIRCLE, X),
    "coverage_at_scale": (X, X + 0.1, 0.5),
    "distance_to_data": (X, X + 0.1),
    "distance_to_manifold": (X, CIRCLE),
    "lateral_distance": (X, CIRCLE.project(X), CIRCLE),
    "fisher_divergence": (X, np.negative, np.sin),
    "change_of_variables": (StandardScaler().fit(X),),
}


def required():
    """Return (function, position, parameter) of all required arguments of the public functions."""
    found = {}
    modules = ("metrics", "diagnostics", "manifolds", "compose", "model_selection", "tables")
    for name in (*modules, "bandwidth"):
        loaded = importlib.import_module(f"skdiffsmooth.{name}")
        for function in (getattr(loaded, name) for name in loaded.__all__ if name in DOCUMENTED):
            if inspect.isfunction(function):
                for i, p in enumerate(inspect.signature(function).parameters.values()):
                    if p.default is p.empty and p.kind is not p.VAR_KEYWORD:
                        found[function.__name__, p.name] = (function, i)
    return [
        pytest.param(function, i, name, id=f"{of}-{name}")
        for (of, name), (function, i) in found.items()
        if (of, name) not in OF_SCIKIT_LEARN
    ]


@pytest.mark.parametrize(("function", "position", "name"), required())
def test_a_wrong_required_argument_is_refused_by_name(function, position, name):
    arguments = REQUIRED[function.__name__]
    copies = [np.array(a) if isinstance(a, np.ndarray) else None for a in arguments]
    options = SMALL.get(function.__name__, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(*arguments, **options)
    problems = []
    for kind, value in WRONG.items():
        # A function of the user's own raises what it raises.
        if name in ("score", "score_p", "score_q", "log_density") and kind in ("class", "function"):
            continue
        wrong = arguments[:position] + (value,) + arguments[position + 1 :]
        _, problem = refusal(partial(function, *wrong, **options), name)
        if problem:
            problems.append(f"{kind}: {problem}")
    for before, after in zip(copies, arguments, strict=True):
        assert before is None or np.array_equal(before, after)
    assert not problems, "\n".join(problems)


# ---------------------------------------------------------------------------------------- displays

SEARCH = GridSearchCV(KDE, {"bandwidth": [0.5, 0.6]}, cv=2)
CHEAP_SAMPLER = LangevinSampler(**CHEAP["LangevinSampler"])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # few draws
    CHAINS_OF_KDE = CHEAP_SAMPLER.run(KDE, random_state=0)
# Arguments of the methods that make displays.
DISPLAYED = {
    "ChainDisplay.from_estimator": {"estimator": KDE, "sampler": CHEAP_SAMPLER, "random_state": 0},
    "ChainDisplay.from_chains": {"chains": CHAINS_OF_KDE},
    "ComparisonDisplay.from_estimators": {"models": {"KDE": KDE}, "X": X},
    "DensityDisplay.from_estimator": {"estimator": KDE, "grid_resolution": 3},
    "SampleComparisonDisplay.from_estimator": {"estimator": KDE, "X": X, "random_state": 0},
    "SampleComparisonDisplay.from_samples": {"X": X, "drawn": X + 0.1},
    "ScoreFieldDisplay.from_estimator": {"estimator": diffusion(), "grid_resolution": 3},
    "SelectionCurveDisplay.from_estimator": {"estimator": SEARCH.fit(X)},
    "TrajectoryDisplay.from_estimator": {"estimator": diffusion(), "random_state": 0},
}
# Estimators that are not fitted, and rows X of an estimator, are refused in scikit-learn's words.
OF_SCIKIT_LEARN |= {(name, parameter) for name in DISPLAYED for parameter in ("estimator", "start")}
OF_SCIKIT_LEARN |= {
    (f"{name}Display.from_estimator", "X") for name in ("Density", "ScoreField", "Trajectory")
} | {("ComparisonDisplay.from_estimators", "X")}


def displayed():
    """Return (method, parameter) of all methods of the displays that make one."""
    loaded = importlib.import_module("skdiffsmooth.displays")
    return [
        pytest.param(method, parameter, id=f"{name}-{method.__name__}-{parameter}")
        for name in loaded.__all__
        for made, method in inspect.getmembers(getattr(loaded, name), inspect.ismethod)
        if made.startswith("from_")
        for parameter in inspect.signature(method).parameters
        if (method.__qualname__, parameter) not in OF_SCIKIT_LEARN
    ]


@pytest.mark.parametrize(("method", "name"), displayed())
def test_a_wrong_argument_of_a_display_is_refused_by_name(method, name):
    arguments = DISPLAYED[method.__qualname__]
    problems = []
    for kind, value in WRONG.items():
        _, problem = refusal(partial(method, **arguments | {name: value}), name)
        if problem:
            problems.append(f"{kind}: {problem}")
    assert not problems, "\n".join(problems)


def drawn():
    """Return (method that makes a display, parameter of a method that draws it)."""
    return [
        pytest.param(name, method, parameter, id=f"{name.split('.')[0]}-{method}-{parameter}")
        for name in {of.split(".")[0]: of for of in DISPLAYED}.values()
        for method, function in inspect.getmembers(
            getattr(skdiffsmooth.displays, name.split(".")[0]), inspect.isfunction
        )
        if not method.startswith("_")
        for parameter in list(inspect.signature(function).parameters)[1:]
    ]


@functools.cache
def display_of(name):
    of_class, _, method = name.partition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws
        return getattr(getattr(skdiffsmooth.displays, of_class), method)(**DISPLAYED[name])


@pytest.mark.parametrize(("name", "method", "parameter"), drawn())
def test_a_wrong_argument_of_a_plot_is_refused_by_name(name, method, parameter):
    mpl.use("Agg")
    problems = []
    for kind, value in WRONG.items():
        call = partial(getattr(display_of(name), method), **{parameter: value})
        _, problem = refusal(call, parameter)
        if problem:
            problems.append(f"{kind}: {problem}")
        plt.close("all")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", DISPLAYED)
def test_a_display_changes_neither_its_arguments_nor_matplotlib(name):
    mpl.use("Agg")
    plt.close("all")  # what other tests have left open
    of_class, _, method = name.partition(".")
    make = getattr(getattr(skdiffsmooth.displays, of_class), method)
    before, settings = pickle.dumps(DISPLAYED[name]), dict(mpl.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws
        display = make(**DISPLAYED[name])
    display.plot()
    assert pickle.dumps(DISPLAYED[name]) == before
    assert dict(mpl.rcParams) == settings
    assert plt.get_fignums() == [display.figure_.number]
    plt.close(display.figure_)


# ---------------------------------------------------------------------------------------- defaults


def public_parts():
    """Return the public classes and functions by name."""
    modules = (*MODULES, ".bandwidth", ".datasets", ".diagnostics", ".displays", ".metrics")
    found = {}
    for module in modules:
        loaded = importlib.import_module(f"skdiffsmooth{module}")
        found |= {name: getattr(loaded, name) for name in loaded.__all__}
    return {name: value for name, value in found.items() if inspect.getdoc(value)}


def value_of(text):
    """Return what a docstring gives as a default: a literal, or a fraction such as 1/3."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return float(Fraction(text))


def test_defaults_are_those_of_the_docstrings():
    n, wrong = 0, []
    for name, value in public_parts().items():
        if not inspect.isclass(value) and not inspect.isfunction(value):
            continue
        of_value = inspect.signature(value).parameters
        documented = re.findall(
            r"^([\w, ]+) : .*default=(.+)$", inspect.getdoc(value), re.MULTILINE
        )
        for names, text in documented:
            for parameter in set(names.split(", ")) & set(of_value):
                n += 1
                if of_value[parameter].default != value_of(text):
                    wrong.append(f"{name}: {parameter}={of_value[parameter].default!r}, not {text}")
    assert not wrong, "\n".join(wrong)
    assert n > 200
