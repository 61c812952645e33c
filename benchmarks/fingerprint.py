"""Results of every public estimator and option, to show that a change of the code changed no number.

Save them before a change and compare after it:

    python benchmarks/fingerprint.py --save before.npz
    python benchmarks/fingerprint.py --compare before.npz

All data are small, all seeds fixed, and everything runs on one thread, so that two runs of the same
code agree bit for bit. Only the public interface is used. An entry that fails is reported by its name
and does not stop the others; --only runs the families of entries whose names contain a word.
"""

import argparse
import dataclasses
import importlib.metadata
import inspect
import os
import sys
import time
import warnings
from contextlib import contextmanager

import joblib
import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from threadpoolctl import threadpool_limits

import skdiffsmooth as sk

# -------------------------------------------------------------------------------------------- data


def rng(seed):
    return np.random.RandomState(seed)


def ring(n, noise, seed):
    angle = rng(seed).uniform(0, 2 * np.pi, size=n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + noise * rng(seed + 1).normal(
        size=(n, 2)
    )


def ball_surface(n, noise, seed):
    rows = rng(seed).normal(size=(n, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows + noise * rng(seed + 1).normal(size=(n, 3))


def correlated(n, d, seed):
    mixing = np.eye(d) + 0.6 * rng(seed).normal(size=(d, d))
    return rng(seed + 1).normal(size=(n, d)) @ mixing + rng(seed + 2).exponential(size=(n, d))


LINE = correlated(40, 1, 10)
PLANE = correlated(60, 2, 20)
SPACE = correlated(50, 3, 30)
FIVE = correlated(80, 5, 40)
RING = ring(60, 0.05, 50)
BALL = ball_surface(80, 0.03, 60)
TAILS = rng(70).standard_t(1.5, size=(60, 2))
ROUNDED = np.round(correlated(60, 2, 20))  # has equal rows
FLAT = correlated(40, 2, 80) @ rng(81).normal(size=(2, 3)) + 5.0  # a plane in R^3
FEW = correlated(4, 6, 90)  # fewer rows than columns
ONE = np.array([[0.3, -0.2]])
POSITIVE = np.exp(0.5 * correlated(80, 2, 100))
WEIGHT = rng(110).randint(0, 4, size=60).astype(float)
MANY = correlated(300, 3, 180)  # so many that near ones are grouped
LATTICE = np.stack(np.meshgrid(np.arange(5.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
THIRTEEN = correlated(50, 13, 190)  # more columns than trees are good for
FORTY = correlated(30, 40, 200)
FRAME = pd.DataFrame(SPACE, columns=["a", "b", "c"])

KDE_KERNELS = ("gaussian", "tophat", "epanechnikov", "exponential", "linear", "cosine")


def near(X):
    """Return rows beside the first few of X."""
    return X[:4] + 0.05 * X.std(axis=0) + 0.01


def at(X):
    """Return rows of X, between them and far away from them."""
    spread = X.std(axis=0) + 0.1
    return np.vstack([X[:3], near(X), X.mean(axis=0) + 6 * spread])


# ----------------------------------------------------------------------------------------- entries


FAMILIES = []


def family(function):
    """Register a function of an `entry`, by which it says what its results are called."""
    FAMILIES.append(function)
    return function


def as_array(value):
    """Return results of any kind as one array."""
    if isinstance(value, str):
        return np.array(value)
    if value is None:
        return np.array(np.nan)
    if dataclasses.is_dataclass(value):
        value = [getattr(value, each.name) for each in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        parts = [as_array(each).ravel() for each in value]
        return np.concatenate(parts) if parts else np.zeros(0)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.array(value)


class Results:
    """Arrays by name, and what went wrong."""

    def __init__(self):
        self.arrays, self.failures = {}, {}

    @contextmanager
    def guard(self, name):
        """Write down an error instead of raising it."""
        try:
            yield
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"

    def run(self, function):
        """Run one family."""
        title = function.__name__.replace("_", "-")

        @contextmanager
        def entry(name):
            with self.guard(f"{title}/{name}"):
                yield lambda **parts: self.put(f"{title}/{name}", parts)

        with self.guard(title):
            function(entry)

    def put(self, name, parts):
        for part, value in parts.items():
            key = f"{name}/{part}"
            if key in self.arrays:
                raise RuntimeError(f"{key} is there twice")
            self.arrays[key] = as_array(value)


def made(value):
    """Call what has to be made within its entry, lest an error in it stop the others."""
    return value() if inspect.isfunction(value) else value


def draws(model, n=5):
    return model.sample(n, random_state=7)


def numbers(model):
    """Return what a diffusion was fitted to."""
    return [
        model.bandwidth_,
        model.sigma_,
        model.background_,
        model.n_nodes_,
        model.n_steps_,
        model.node_error_,
        model.noise_levels_.terminal_scale,
    ]


def fields(model, X, t=None):
    """Return the score, the energy and, in the Euclidean metric, the score's divergence."""
    of = [model.grad_log_density, model.energy]
    if str(getattr(model, "metric_", "euclidean")) == "euclidean":
        of.append(model.laplacian_log_density)
    return [method(X, t) for method in of]


# --------------------------------------------------------------------------------------------- KDE


@family
def kde_kernel(entry):
    for kernel in KDE_KERNELS:
        with entry(kernel) as put:
            model = sk.KDESampler(0.9, kernel).fit(PLANE)
            put(
                density=model.score_samples(at(PLANE)),
                left_out=model.leave_one_out_log_density(),
                sample=draws(model),
                field=[model.grad_log_density(near(PLANE)), model.energy(at(PLANE))],
            )


@family
def kde_bandwidth(entry):
    for kernel in KDE_KERNELS:
        with entry(f"loo-{kernel}") as put:
            model = sk.KDESampler("loo", kernel).fit(SPACE)
            put(bandwidth=model.bandwidth_, density=model.score_samples(at(SPACE)))
    for rule in ("scott", "silverman"):
        with entry(rule) as put:
            model = sk.KDESampler(rule).fit(PLANE)
            put(
                bandwidth=model.bandwidth_,
                density=model.score_samples(at(PLANE)),
                left_out=model.leave_one_out_log_density(),
                sample=draws(model),
                field=fields(model, at(PLANE)),
            )
    for kernel in ("epanechnikov", "exponential"):
        with entry(f"columns-{kernel}") as put:
            model = sk.KDESampler([0.8, 1.6], kernel).fit(PLANE)
            put(
                density=model.score_samples(at(PLANE)),
                left_out=model.leave_one_out_log_density(),
                sample=draws(model),
                field=model.grad_log_density(near(PLANE)),
            )
    with entry("one-column") as put:
        model = sk.KDESampler().fit(LINE)
        put(bandwidth=model.bandwidth_, density=model.score_samples(at(LINE)), sample=draws(model))


@family
def kde_option(entry):
    options = {
        "weights": (sk.KDESampler(), PLANE, WEIGHT),
        "weights-tophat": (sk.KDESampler(kernel="tophat"), PLANE, WEIGHT),
        "equal-rows": (sk.KDESampler(), ROUNDED, None),
        "float32": (sk.KDESampler(dtype="float32"), PLANE, None),
        "float32-cosine": (sk.KDESampler(kernel="cosine", dtype="float32"), PLANE, None),
        "memory": (sk.KDESampler(memory_limit=0.01), PLANE, None),
        "single-row": (sk.KDESampler(0.5), ONE, None),
        "fewer-rows": (sk.KDESampler(), FEW, None),
        "many-rows": (sk.KDESampler(), correlated(20_500, 1, 210), None),
        "float32-narrow": (sk.KDESampler(1e-4, dtype="float32"), 100 + PLANE, None),
        "lattice": (sk.KDESampler(), LATTICE, None),
    }
    for name, (model, X, weight) in options.items():
        with entry(name) as put:
            model.fit(X, sample_weight=weight)
            put(
                numbers=[model.bandwidth_, model.weights_],
                density=model.score_samples(at(X)),
                sample=draws(model),
            )


@family
def kde_noise(entry):
    model = sk.KDESampler(0.5).fit(PLANE)
    with entry("number") as put:
        put(field=fields(model, at(PLANE), 1.3))
    with entry("own") as put:
        put(field=fields(model, at(PLANE)))
    with entry("columns") as put:
        put(field=fields(model, at(PLANE), [0.4, 2.0]))


@family
def kde_given(entry):
    for name, bandwidth in (("number", 0.5), ("columns", [0.5, 0.7, 0.9])):
        model = sk.KDESampler(bandwidth).fit(FRAME)
        with entry(name) as put:
            put(
                density=model.score_samples(FRAME[:5], given=["b"]),
                two=model.score_samples(FRAME[:5], given=[0, 2]),
                sample=model.sample(5, 7, given={"b": 0.5}),
                values=model.sample(3, 7, given={0: [0.1, 0.2, 0.3], 2: 1.0}),
            )


# ------------------------------------------------------------------------- smoothed score diffusion


def report(put, model, X, sample=True, loo=False, field=False):
    """Put down what most diffusions can say."""
    put(numbers=numbers(model), density=model.score_samples(at(X)))
    if sample:
        put(sample=draws(model))
    if loo:
        put(left_out=model.leave_one_out_log_density())
    if field:
        put(field=fields(model, at(X)))


@family
def smoothed_auto(entry):
    data = {
        "line": LINE,
        "plane": PLANE,
        "space": SPACE,
        "five": FIVE,
        "tails": TAILS,
        "equal-rows": ROUNDED,
        "flat": FLAT,
        "fewer-rows": FEW,
    }
    for name, X in data.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion().fit(X)
            report(put, model, X, loo=name in ("plane", "flat"), field=name in ("plane", "flat"))
            put(metric=str(model.metric_), coordinates=model.coordinates_.to_metric(near(X)))
    with entry("weights") as put:
        model = sk.SmoothedScoreDiffusion().fit(PLANE, sample_weight=WEIGHT)
        report(put, model, PLANE, loo=True)
    with entry("frame") as put:
        model = sk.SmoothedScoreDiffusion().fit(FRAME)
        put(density=model.score_samples(FRAME[:6]), mean=model.score(FRAME[:6]))


@family
def smoothed_scales(entry):
    scales = {
        "kde": (0.4, 0.0),
        "loo": ("loo", 0.5),
        "loo-kde": ("loo", 0.0),
        "auto-bandwidth": ("auto", 0.5),
        "auto-bandwidth-kde": ("auto", 0.0),
        "auto-sigma": (0.4, "auto"),
        "loo-auto": ("loo", "auto"),
        "proportional": (0.3, lambda: sk.kernels.ProportionalScale(1.2)),
        "function": (0.3, lambda: lambda scale: 0.2 + 0.1 * scale),
        "wide": (0.3, 2.0),
    }
    for name, (bandwidth, sigma) in scales.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(bandwidth, made(sigma)).fit(PLANE)
            report(put, model, PLANE, loo=True, field=True)


@family
def smoothed_kernel(entry):
    kernels = sk.kernels
    cross = [[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]
    chosen = {
        "gaussian": "gaussian",
        "uniform-ball": "uniform-ball",
        "temperature": "temperature",
        "data": lambda: kernels.AnisotropicGaussianKernel("data"),
        "matrix": lambda: kernels.AnisotropicGaussianKernel([[1.0, 0.3], [0.3, 0.5]]),
        "deviations": lambda: kernels.AnisotropicGaussianKernel([1.0, 0.0]),
        "offsets": lambda: kernels.OffsetsKernel(cross),
        "weighted-offsets": lambda: kernels.OffsetsKernel(cross, [1.0, 1.0, 3.0, 3.0]),
        "sampler": lambda: kernels.SamplerKernel(
            lambda generator, n: generator.laplace(size=(n, 2))
        ),
    }
    for name, kernel in chosen.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.3, 0.4, kernel=made(kernel)).fit(PLANE)
            report(put, model, PLANE, loo=True, field=True)
            if name != "temperature":
                put(nodes=model.kernel_.nodes(3))
    for name in ("gaussian", "uniform-ball", "temperature"):
        with entry(f"auto-{name}") as put:
            model = sk.SmoothedScoreDiffusion(kernel=name).fit(SPACE[:30])
            report(put, model, SPACE[:30], sample=False)
    with entry("flat-ball") as put:
        model = sk.SmoothedScoreDiffusion(0.3, 0.4, kernel="uniform-ball").fit(FLAT)
        report(put, model, FLAT)


@family
def smoothed_nodes(entry):
    for rule in ("sobol", "gauss-hermite"):
        for n_nodes in (16, "auto"):
            with entry(f"{rule}-{n_nodes}") as put:
                model = sk.SmoothedScoreDiffusion(
                    0.3, 0.4, node_rule=rule, n_nodes=n_nodes, random_state=5
                ).fit(PLANE)
                report(put, model, PLANE)
                put(nodes=model.kernel_.nodes(2))


@family
def smoothed_solver(entry):
    solvers = sk.solvers
    chosen = {
        "heun": "heun",
        "euler": "euler",
        "adaptive": "adaptive",
        "adaptive-coarse": lambda: solvers.Adaptive(0.05, 3),
        "euler-maruyama": "euler-maruyama",
        "predictor-corrector": "predictor-corrector",
        "two-corrections": lambda: solvers.PredictorCorrector(0.1, 2),
    }
    for name, solver in chosen.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.3, 0.4, solver=made(solver)).fit(PLANE)
            put(numbers=numbers(model), sample=draws(model))
            if name in ("heun", "adaptive", "adaptive-coarse"):
                put(
                    density=model.score_samples(at(PLANE), return_error=True),
                    left_out=model.leave_one_out_log_density(),
                )
    with entry("background") as put:
        model = sk.SmoothedScoreDiffusion(0.3, 0.4, solver="adaptive", background=0.1).fit(PLANE)
        put(density=model.score_samples(at(PLANE), return_error=True), sample=draws(model))
    with entry("temperature") as put:
        model = sk.SmoothedScoreDiffusion(0.3, 0.4, solver="adaptive", kernel="temperature")
        report(put, model.fit(PLANE), PLANE, loo=True)


@family
def smoothed_terminal(entry):
    options = {
        "gaussian": {"terminal": "gaussian"},
        "scale": {"terminal_scale": 5.0},
        "gaussian-scale": {"terminal": "gaussian", "terminal_scale": 8.0},
        "few-levels": {"n_levels": 6, "n_steps": 6},
        "many-steps": {"n_levels": 8, "n_steps": 40},
        "one-level": {"n_levels": 1, "n_steps": 10},
    }
    for name, option in options.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.3, 0.4, **option).fit(PLANE)
            report(put, model, PLANE, loo=True)


@family
def smoothed_process(entry):
    noise = sk.noise
    chosen = {
        "ou": "ou",
        "slow": lambda: noise.OrnsteinUhlenbeck(0.2),
        "ve": lambda: noise.VarianceExploding(),  # noqa: PLW0108
    }
    for name, process in chosen.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.3, 0.4, noise=made(process)).fit(PLANE)
            report(put, model, PLANE, loo=name == "ou", field=name == "ou")
    with entry("ou-proportional") as put:
        sigma = sk.kernels.ProportionalScale(1.0)
        report(put, sk.SmoothedScoreDiffusion(0.3, sigma, noise="ou").fit(PLANE), PLANE)
    with entry("ou-auto") as put:
        report(put, sk.SmoothedScoreDiffusion(noise="ou").fit(PLANE[:30]), PLANE, sample=False)


@family
def smoothed_metric(entry):
    matrix = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]])
    chosen = {
        "euclidean": "euclidean",
        "scaled": "scaled",
        "whitened": "whitened",
        "power": 0.5,
        "matrix": matrix,
    }
    for name, metric in chosen.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.3, 0.4, metric=metric).fit(SPACE)
            report(put, model, SPACE, loo=True, field=True)
            put(coordinates=model.coordinates_.to_metric(near(SPACE)))
        with entry(f"{name}-auto") as put:
            model = sk.SmoothedScoreDiffusion(metric=metric).fit(SPACE[:30])
            report(put, model, SPACE[:30], sample=False)
    for name in ("scaled", "whitened"):
        with entry(f"{name}-flat") as put:
            report(put, sk.SmoothedScoreDiffusion(0.3, 0.4, metric=name).fit(FLAT), FLAT)


@family
def smoothed_background(entry):
    with entry("number") as put:
        model = sk.SmoothedScoreDiffusion(0.3, 0.4, background=0.2).fit(TAILS)
        report(put, model, TAILS, loo=True, field=True)
        put(error=model.score_samples(at(TAILS), return_error=True))
    with entry("none-auto") as put:
        report(put, sk.SmoothedScoreDiffusion(background=0).fit(TAILS), TAILS, sample=False)
    with entry("flat") as put:
        report(put, sk.SmoothedScoreDiffusion(0.3, 0.4, background=0.2).fit(FLAT), FLAT)


@family
def smoothed_base(entry):
    def mixture(kind="full", n=3):
        return GaussianMixture(n, covariance_type=kind, random_state=0)

    def windows(*parameters):
        return sk.bases.ManifoldParzen(*parameters)

    chosen = {
        "points": "points",
        "parzen": "parzen",
        "thin-parzen": lambda: windows(5, 1, 0.5),
        "full": mixture(),
        "diag": mixture("diag").fit(PLANE),
        "tied": mixture("tied").fit(PLANE),
        "spherical": mixture("spherical").fit(PLANE),
        "bayesian": BayesianGaussianMixture(n_components=4, random_state=0),
        "frozen": FrozenEstimator(mixture().fit(PLANE)),
        "list": [mixture(), mixture("diag", 2)],
        "weighted": [(1.0, mixture()), (3.0, mixture("diag", 2))],
    }
    for name, base in chosen.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.2, 0.4, base=made(base)).fit(PLANE)
            report(put, model, PLANE, field=True)
        with entry(f"{name}-auto") as put:
            model = sk.SmoothedScoreDiffusion(base=made(base)).fit(PLANE)
            report(put, model, PLANE, sample=False)
    with entry("parzen-loo") as put:
        report(put, sk.SmoothedScoreDiffusion("loo", 0.0, base=windows(6)).fit(FIVE), FIVE)
    with entry("parzen-flat") as put:
        report(put, sk.SmoothedScoreDiffusion("loo", 0.3, base=windows(6)).fit(FLAT), FLAT)
    with entry("parzen-weights") as put:
        model = sk.SmoothedScoreDiffusion(base="parzen").fit(PLANE, sample_weight=WEIGHT)
        report(put, model, PLANE)
    with entry("parzen-float32") as put:
        model = sk.SmoothedScoreDiffusion(0.2, 0.4, base="parzen", dtype="float32").fit(PLANE)
        report(put, model, PLANE)
    with entry("parzen-float32-narrow") as put:
        base = windows(4, 1, 1e-4)
        model = sk.SmoothedScoreDiffusion(1e-3, 2e-3, base=base, dtype="float32").fit(100 + PLANE)
        report(put, model, 100 + PLANE)
    with entry("windows") as put:
        shares = np.full(len(PLANE), 1 / len(PLANE))
        put(bandwidth=windows(6).leave_one_out(PLANE - PLANE.mean(axis=0), shares))


@family
def smoothed_data(entry):
    data = {
        "line": (LINE, None),
        "five": (FIVE, None),
        "flat": (FLAT, None),
        "fewer-rows": (FEW, None),
        "single-row": (ONE, None),
        "equal-rows": (ROUNDED, None),
        "weights": (PLANE, WEIGHT),
    }
    for name, (X, weight) in data.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.3, 0.4).fit(X, sample_weight=weight)
            report(put, model, X, loo=name != "single-row", field=True)


@family
def smoothed_engine(entry):
    options = {
        "tolerance": {"tol": 0.5},
        "large-tolerance": {"tol": 5.0},
        "float32": {"dtype": "float32"},
        "memory": {"memory_limit": 0.05},
        "seed": {"random_state": 11},
        "workers": {"n_jobs": 2},
    }
    X = correlated(120, 3, 120)
    for name, option in options.items():
        with entry(name) as put, joblib.parallel_config(backend="threading"):
            model = sk.SmoothedScoreDiffusion(0.3, 0.4, **option).fit(X)
            report(put, model, X, loo=name in ("float32", "tolerance", "workers"), field=True)
    for name, option in (
        ("grouped", {}),
        ("grouped-float32", {"dtype": "float32"}),
        ("grouped-tolerance", {"tol": 1.0}),
        ("grouped-temperature", {"kernel": "temperature"}),
    ):
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(0.02, 0.1, n_nodes=16, **option).fit(MANY)
            report(put, model, MANY, field=True)
            put(left_out=model.leave_one_out_log_density())
    with entry("grouped-adaptive") as put:
        solver = sk.solvers.Adaptive(0.1, 2)
        model = sk.SmoothedScoreDiffusion(0.02, 0.1, n_nodes=16, solver=solver).fit(MANY)
        report(put, model, MANY, field=True)
    with entry("many-rows") as put:
        X = correlated(10_500, 2, 230)
        model = sk.SmoothedScoreDiffusion(0.1, 0.2, n_nodes=16).fit(X)
        report(put, model, X)
    with entry("float32-narrow") as put:
        model = sk.SmoothedScoreDiffusion(1e-3, 2e-3, dtype="float32").fit(100 + PLANE)
        report(put, model, 100 + PLANE, loo=True)
    with entry("lattice") as put:
        report(put, sk.SmoothedScoreDiffusion().fit(LATTICE), LATTICE, loo=True)
    with entry("thirteen") as put:
        model = sk.SmoothedScoreDiffusion(0.5, 0.8, n_nodes=32).fit(THIRTEEN)
        report(put, model, THIRTEEN, loo=True)
    with entry("tolerance-float32") as put:
        model = sk.SmoothedScoreDiffusion(0.3, 0.4, tol=1.0, dtype="float32").fit(X)
        report(put, model, X)
    with entry("float32-auto") as put:
        report(put, sk.SmoothedScoreDiffusion(dtype="float32").fit(PLANE), PLANE, loo=True)
    with entry("shards") as put, one_process():
        model = sk.SmoothedScoreDiffusion(0.3, 0.4, shards="distributed").fit(X)
        report(put, model, X)
    with entry("shards-circle") as put, one_process():
        model = sk.ManifoldAdaptedDiffusion(
            0.05, 0.15, manifold=circle(), n_nodes=8, shards="distributed"
        )
        report(put, model.fit(RING), RING)
    with entry("shards-pca") as put, one_process():
        model = sk.ManifoldAdaptedDiffusion(0.3, 0.4, manifold="pca", shards="distributed").fit(X)
        report(put, model, X)


@contextmanager
def one_process():
    """Make a group of processes that has a single member."""
    group = torch.distributed
    group.init_process_group("gloo", store=group.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        group.destroy_process_group()


@family
def smoothed_field(entry):
    options = {
        "plain": {},
        "kde": {"sigma": 0.0},
        "whitened": {"metric": "whitened"},
        "temperature": {"kernel": "temperature"},
        "float32": {"dtype": "float32"},
        "parzen": {"base": "parzen"},
        "mixture": {"base": GaussianMixture(3, random_state=0)},
    }
    for name, option in options.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(**{"bandwidth": 0.3, "sigma": 0.4} | option)
            model.fit(PLANE)
            put(noised=fields(model, at(PLANE), 1.5))
            if name not in ("parzen", "mixture"):
                put(
                    rows=[model.effective_sample_size(at(PLANE), t) for t in (None, 1.5)],
                    variance=[model.score_variance(at(PLANE), t) for t in (None, 1.5)],
                )
    with entry("flat") as put:
        model = sk.SmoothedScoreDiffusion(0.3, 0.4).fit(FLAT)
        put(
            noised=fields(model, at(FLAT), 1.5),
            rows=model.effective_sample_size(at(FLAT)),
            variance=model.score_variance(at(FLAT)),
        )


@family
def smoothed_given(entry):
    options = {
        "plain": {},
        "kde": {"sigma": 0.0},
        "ball": {"kernel": "uniform-ball"},
        "background": {"background": 0.2},
        "whitened": {"metric": "whitened"},
        "gaussian-terminal": {"terminal": "gaussian"},
        "float32": {"dtype": "float32"},
        "ou": {"noise": "ou"},
    }
    for name, option in options.items():
        with entry(name) as put:
            model = sk.SmoothedScoreDiffusion(**{"bandwidth": 0.3, "sigma": 0.4} | option)
            model.fit(FRAME)
            put(
                sample=model.sample(4, 7, given={"b": 0.5}),
                values=model.sample(3, 7, given={0: [0.1, 0.2, 0.3], 2: 1.0}),
                density=model.score_samples(FRAME[:4], given=["b"]),
                two=model.score_samples(FRAME[:4], given=[0, 2]),
                marginal=model.score_samples(FRAME[:4], columns=["b"]),
            )
    with entry("auto") as put:
        model = sk.SmoothedScoreDiffusion().fit(PLANE)
        put(
            sample=model.sample(4, 7, given={1: 0.5}),
            density=model.score_samples(PLANE[:4], given=[1]),
        )
    with entry("flat") as put:
        model = sk.SmoothedScoreDiffusion(0.3, 0.4).fit(FLAT)
        put(
            sample=model.sample(4, 7, given={1: 5.0}),
            density=model.score_samples(FLAT[:4], given=[1]),
        )


# ------------------------------------------------------------------------------- along manifolds


class OwnCircle:
    """A manifold of the user's own, in torch, whose projection forward mode differentiates."""

    n_features, dimension, reach = 2, 1, 1.0

    def project(self, X):
        x = torch.as_tensor(X)
        foot = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return foot if isinstance(X, torch.Tensor) else foot.numpy()

    def distance(self, X):
        x = torch.as_tensor(X)
        found = torch.abs(torch.linalg.vector_norm(x, dim=1) - 1)
        return found if isinstance(X, torch.Tensor) else found.numpy()

    def tangent(self, X):
        foot = torch.as_tensor(self.project(X))
        found = torch.stack([-foot[:, 1], foot[:, 0]], dim=1)[:, :, None]
        return found if isinstance(X, torch.Tensor) else found.numpy()


class OwnSmoothCircle(OwnCircle):
    """The same with a derivative, radius over distance from the center."""

    def projection_derivative(self, X):
        x = torch.as_tensor(X)
        found = 1 / torch.linalg.vector_norm(x, dim=1)[:, None, None]
        return found if isinstance(X, torch.Tensor) else found.numpy()


def subspace():
    return sk.manifolds.AffineSubspace([[1.0, -1.0, 0.5]], [0.2])


def circle():
    return sk.manifolds.Circle([0.0, 0.0], 1.0)


def torus():
    return sk.manifolds.Torus(np.zeros(3), 1.0, 0.4)


def ellipse():
    return sk.manifolds.Curve(
        lambda t: np.column_stack([1.2 * np.cos(t), 0.8 * np.sin(t)]), 0.0, 2 * np.pi, closed=True
    )


def arc():
    return sk.manifolds.Curve(lambda t: np.column_stack([t, t**2, np.sin(t)]), -1.0, 1.5)


def cylinder():
    circle = sk.manifolds.Circle(np.zeros(3), 1.0, np.eye(3)[:, :2])
    segment = sk.manifolds.Curve(lambda t: t[:, None] * [0.0, 0.0, 1.0], -1.0, 1.0)
    return sk.manifolds.ProductManifold(circle, segment)


@family
def adapted_local(entry):
    options = {
        "plain": {},
        "cells": {"n_cells": 5, "n_components": 1},
        "background": {"background": 0.1},
        "whitened": {"metric": "whitened"},
        "adaptive": {"solver": "adaptive"},
        "euler-maruyama": {"solver": "euler-maruyama"},
        "ou": {"noise": "ou"},
        "parzen": {"base": "parzen"},
        "float32": {"dtype": "float32"},
        "tolerance": {"tol": 0.5},
        "kde": {"sigma": 0.0},
        "hermite": {"node_rule": "gauss-hermite", "n_nodes": 8},
        "gaussian-terminal": {"terminal": "gaussian"},
    }
    for name, option in options.items():
        with entry(name) as put:
            scales = {"bandwidth": 0.08, "sigma": 0.25}
            model = sk.ManifoldAdaptedDiffusion(**scales | option).fit(RING)
            put(numbers=numbers(model), sample=draws(model))
            if name not in ("euler", "euler-maruyama"):
                put(density=model.score_samples(at(RING)))
            if name in ("plain", "background", "float32"):
                put(left_out=model.leave_one_out_log_density())
            if name not in ("parzen", "euler-maruyama"):
                put(gradient=model.grad_log_density(near(RING)))
            if name not in ("parzen", "euler-maruyama", "whitened"):
                put(laplacian=model.laplacian_log_density(near(RING)))
    with entry("influence") as put:
        model = sk.ManifoldAdaptedDiffusion(0.08, 0.25).fit(RING)
        put(
            error=model.score_samples(at(RING), return_error=True),
            rows=model.effective_sample_size(at(RING)),
            variance=model.score_variance(at(RING), 0.1),
        )
    with entry("auto") as put:
        model = sk.ManifoldAdaptedDiffusion().fit(RING)
        report(put, model, RING, loo=True)
        put(metric=str(model.metric_), dimension=model.n_components_)
    with entry("auto-surface") as put:
        model = sk.ManifoldAdaptedDiffusion(n_components=2).fit(BALL[:50])
        report(put, model, BALL[:50])
    with entry("weights") as put:
        model = sk.ManifoldAdaptedDiffusion(0.08, 0.25).fit(RING, sample_weight=WEIGHT)
        report(put, model, RING)
    with entry("flat") as put:
        report(put, sk.ManifoldAdaptedDiffusion(0.3, 0.5, n_components=1).fit(FLAT), FLAT)
    with entry("lattice") as put:
        report(put, sk.ManifoldAdaptedDiffusion(0.3, 0.5).fit(LATTICE), LATTICE)
    with entry("grouped") as put:
        X = ring(300, 0.02, 240)
        model = sk.ManifoldAdaptedDiffusion(0.01, 0.05, n_nodes=8, n_levels=8, n_steps=8).fit(X)
        report(put, model, X, loo=True)


@family
def adapted_affine(entry):
    options = {
        "share": {"manifold": "pca"},
        "components": {"manifold": "pca", "n_components": 2},
        "most": {"manifold": "pca", "n_components": 0.6},
        "scaled": {"manifold": "pca", "metric": "scaled"},
        "given": lambda: {"manifold": subspace()},
    }
    for name, option in options.items():
        with entry(name) as put:
            model = sk.ManifoldAdaptedDiffusion(0.3, 0.5, **made(option)).fit(SPACE)
            report(put, model, SPACE, loo=name == "share")
            put(gradient=model.grad_log_density(at(SPACE)))
        with entry(f"{name}-auto") as put:
            model = sk.ManifoldAdaptedDiffusion(**made(option)).fit(SPACE[:30])
            report(put, model, SPACE[:30], sample=False)


@family
def adapted_known(entry):
    manifolds = sk.manifolds
    few = {"n_nodes": 16, "n_levels": 8, "n_steps": 8}
    chosen = {
        "circle": lambda: (circle(), RING),
        "ellipse": lambda: (ellipse(), RING),
        "sphere": lambda: (manifolds.Sphere(np.zeros(3), 1.0), BALL[:40]),
        "torus": lambda: (torus(), torus().project(correlated(40, 3, 130))),
        "cylinder": lambda: (cylinder(), cylinder().project(SPACE[:30])),
        "own": lambda: (OwnCircle(), RING),
        "own-smooth": lambda: (OwnSmoothCircle(), RING),
        "learned": lambda: (manifolds.LocalPolynomialManifold(1, n_neighbors=12), RING),
    }
    for name, make in chosen.items():
        for push in ("translated", "level-set"):
            with entry(f"{name}-{push}") as put:
                manifold, X = make()
                sizes = {"n_nodes": 8, "n_levels": 4, "n_steps": 4} if name == "learned" else few
                model = sk.ManifoldAdaptedDiffusion(
                    0.05, 0.15, manifold=manifold, push=push, **sizes
                ).fit(X)
                put(
                    numbers=numbers(model),
                    density=model.score_samples(near(X)),
                    sample=draws(model, 3),
                    field=[model.grad_log_density(near(X)), model.laplacian_log_density(near(X))],
                )
    for name, base in (("parzen", "parzen"), ("mixture", GaussianMixture(3, random_state=0))):
        for push in ("translated", "level-set"):
            with entry(f"circle-{name}-{push}") as put:
                model = sk.ManifoldAdaptedDiffusion(
                    0.05, 0.15, manifold=circle(), base=base, push=push, **few
                ).fit(RING)
                put(density=model.score_samples(near(RING)), sample=draws(model))
    with entry("circle-grouped") as put:
        X = ring(300, 0.02, 240)
        model = sk.ManifoldAdaptedDiffusion(0.01, 0.05, manifold=circle(), **few).fit(X)
        report(put, model, X, loo=True)
    with entry("circle-full") as put:
        model = sk.ManifoldAdaptedDiffusion(0.05, 0.15, manifold=circle(), background=0.1, **few)
        report(put, model.fit(RING), RING, loo=True)
        put(rows=model.effective_sample_size(near(RING)), variance=model.score_variance(near(RING)))
    with entry("circle-auto") as put:
        model = sk.ManifoldAdaptedDiffusion(manifold=circle()).fit(RING[:30])
        report(put, model, RING[:30])
    with entry("circle-float32") as put:
        model = sk.ManifoldAdaptedDiffusion(0.05, 0.15, manifold=circle(), dtype="float32", **few)
        report(put, model.fit(RING), RING)
    with entry("circle-float32-narrow") as put:
        there = manifolds.Circle([100.0, 0.0], 1.0)
        model = sk.ManifoldAdaptedDiffusion(1e-3, 2e-3, manifold=there, dtype="float32", **few)
        report(put, model.fit(RING + [100.0, 0.0]), RING + [100.0, 0.0])
    with entry("cloud") as put:
        cloud = manifolds.PointCloud(ring(200, 0.0, 140), n_components=1)
        for push in ("translated", "level-set"):
            model = sk.ManifoldAdaptedDiffusion(0.05, 0.15, manifold=cloud, push=push, **few)
            model.fit(RING)
            put(
                **{
                    f"sample-{push}": draws(model),
                    f"score-{push}": model.grad_log_density(near(RING)),
                }
            )


# ------------------------------------------------------------------------------------ coarse score


@family
def coarse(entry):
    manifolds = sk.manifolds
    options = {
        "plain": (RING, {}),
        "degree-0": (RING, {"degree": 0}),
        "degree-1": (RING, {"degree": 1}),
        "degree-3": (RING, {"degree": 3, "n_components": 1}),
        "degree-0-blurred": (RING, {"degree": 0, "bandwidth": 0.05}),
        "blurred": (RING, {"bandwidth": 0.05}),
        "switch": (RING, {"switch_scale": 0.2, "n_components": 1}),
        "neighbors": (RING, {"n_neighbors": 16}),
        "nodes": (RING, {"n_nodes": 10}),
        "float32": (RING, {"dtype": "float32"}),
        "circle": (RING, lambda: {"manifold": circle()}),
        "circle-blurred": (RING, lambda: {"manifold": circle(), "bandwidth": 0.1}),
        "ellipse": (RING, lambda: {"manifold": ellipse()}),
        "unfitted": (RING, lambda: {"manifold": manifolds.LocalPolynomialManifold(1, 1)}),
        "surface": (BALL, {"n_components": 2}),
        "surface-blurred": (BALL, {"n_components": 2, "bandwidth": 0.05}),
        "flat": (FLAT, {"degree": 1, "n_components": 1}),
        "full": (PLANE, {"n_components": 2, "bandwidth": 0.1}),
        "lattice": (LATTICE, {"bandwidth": 0.1}),
        "own": (RING, {"manifold": OwnCircle(), "bandwidth": 0.05}),
    }
    for name, (X, option) in options.items():
        with entry(name) as put:
            model = sk.CoarseScoreDiffusion(**made(option)).fit(X)
            put(
                numbers=[
                    model.switch_scale_,
                    model.bandwidth_,
                    model.reach_,
                    model.residual_scale_,
                ],
                sample=draws(model, 8),
                score=[model.coarse_score(near(X)), model.coarse_score(near(X), 0.3)],
            )
            if name != "degree-0":
                put(density=model.score_samples(near(X)))
    with entry("weights") as put:
        model = sk.CoarseScoreDiffusion().fit(RING, sample_weight=WEIGHT)
        put(density=model.score_samples(near(RING)), sample=draws(model))
    with entry("cloud") as put:
        cloud = manifolds.PointCloud(RING, n_components=1)
        model = sk.CoarseScoreDiffusion(0.2, manifold=cloud).fit(RING)
        put(sample=draws(model), score=model.coarse_score(near(RING)))


# ---------------------------------------------------------------------------------- neural network


@family
def neural(entry):
    tiny = {
        "hidden_layer_sizes": (8,),
        "max_iter": 6,
        "batch_size": 64,
        "n_levels": 4,
        "n_steps": 8,
        "n_nodes": 8,
    }
    options = {
        "plain": {},
        "float64": {"dtype": "float64"},
        "smoothed": {"sigma": 0.3, "dtype": "float64"},
        "two-layers": {"hidden_layer_sizes": (8, 6), "ema_decay": 0.0},
        "frequencies": {"n_frequencies": 2},
        "euclidean": {"metric": "euclidean", "bandwidth": 0.1},
        "euclidean-smoothed": {"metric": "euclidean", "sigma": 0.3, "dtype": "float64"},
        "euclidean-probes": {"metric": "euclidean", "max_exact_dimension": 1, "n_probes": 4},
        "whitened": {"metric": "whitened"},
        "power": {"metric": 0.5},
        "no-stopping": {"early_stopping": False},
        "stopping": {"max_iter": 40, "n_iter_no_change": 3, "tol": 0.01},
        "held-out": {"validation_fraction": 0.3},
        "rate": {"learning_rate_init": 0.01},
        "terminal": {"terminal_scale": 4.0},
        "adaptive": {"solver": "adaptive"},
        "adaptive-smoothed": {"solver": "adaptive", "sigma": 0.3},
        "euler": {"solver": "euler"},
        "euler-maruyama": {"solver": "euler-maruyama"},
        "seed": {"random_state": 3},
        "memory": {"memory_limit": 0.05},
        "probes": {"max_exact_dimension": 1, "n_probes": 4},
        "probes-smoothed": {"max_exact_dimension": 1, "sigma": 0.3, "dtype": "float64"},
    }
    for name, option in options.items():
        with entry(name) as put:
            model = sk.NeuralScoreDiffusion(**tiny | option).fit(SPACE)
            put(
                weights=[*model.coefs_, *model.intercepts_],
                training=[model.n_iter_, model.loss_curve_, model.validation_scores_],
                sample=draws(model),
                gradient=model.grad_log_density(at(SPACE), 0.5),
            )
            if name not in ("euler", "euler-maruyama"):
                put(density=model.score_samples(at(SPACE)))
            if name in ("plain", "float64", "smoothed", "adaptive", "probes"):
                put(error=model.score_samples(at(SPACE), return_error=True))
            if name.startswith("euclidean"):
                put(laplacian=model.laplacian_log_density(at(SPACE)))
    for name, X in (("flat", FLAT), ("single-row", ONE), ("line", LINE)):
        with entry(name) as put:
            model = sk.NeuralScoreDiffusion(**tiny).fit(X)
            put(density=model.score_samples(at(X)), sample=draws(model))
    with entry("weights") as put:
        model = sk.NeuralScoreDiffusion(**tiny).fit(PLANE, sample_weight=WEIGHT)
        put(density=model.score_samples(at(PLANE)), sample=draws(model))
    with entry("partial-fit") as put:
        model = sk.NeuralScoreDiffusion(**tiny)
        for _ in range(3):
            model.partial_fit(PLANE)
        put(weights=model.coefs_, density=model.score_samples(at(PLANE)))
    with entry("warm-start") as put:
        model = sk.NeuralScoreDiffusion(warm_start=True, **tiny).fit(PLANE)
        model.fit(PLANE).partial_fit(PLANE[:30])
        put(weights=model.coefs_, loss=model.loss_curve_, density=model.score_samples(at(PLANE)))


# ------------------------------------------------------------------------------------------ chains


@family
def langevin(entry):
    def smoothed(**option):
        return sk.SmoothedScoreDiffusion(0.4, 0.5, n_nodes=16, **option).fit(PLANE)

    def whitened():
        return smoothed(metric="whitened")

    def kde():
        return sk.KDESampler(0.6).fit(PLANE)

    def columns():
        return sk.KDESampler([0.6, 1.2]).fit(PLANE)

    def compact():
        return sk.KDESampler(1.5, "exponential").fit(PLANE)

    def adapted():
        return sk.ManifoldAdaptedDiffusion(0.1, 0.2, n_nodes=8, n_components=1).fit(RING)

    short = {"n_draws": 12, "n_warmup": 5, "n_chains": 4}
    long = short | {"n_warmup": 60, "metropolis": True}
    options = {
        "kde": (kde, short),
        "columns": (columns, short),
        "smoothed": (smoothed, short),
        "whitened": (whitened, short),
        "adapted": (adapted, short),
        "compact": (compact, short),
        "metropolis": (kde, long),
        "metropolis-smoothed": (smoothed, long),
        "metropolis-whitened": (whitened, long),
        "metropolis-step": (kde, long | {"step_size": 0.2}),
        "step": (smoothed, short | {"step_size": 0.02, "thin": 3}),
        "tempered": (kde, short | {"temper": 1.0}),
        "tempered-metropolis": (kde, long | {"temper": 0.7}),
        "noise": (kde, short | {"noise_variance": 0.8}),
        "annealed": (kde, short | {"anneal_from": "auto"}),
        "annealed-number": (smoothed, short | {"anneal_from": 3.0, "n_levels": 4}),
        "annealed-tempered": (kde, short | {"anneal_from": 3.0, "temper": 1.0, "n_levels": 3}),
    }
    for name, (target, option) in options.items():
        with entry(name) as put:
            put(chains=sk.LangevinSampler(**option).run(target(), random_state=7))
    start = rng(150).normal(size=(4, 2))
    for name, target in (("start", kde), ("start-whitened", whitened)):
        with entry(name) as put:
            put(chains=sk.LangevinSampler(**short).run(target(), start, 7))
    with entry("function") as put:
        put(chains=sk.LangevinSampler(**short).run(lambda x: -x, start, 7))
    with entry("functions") as put:
        target = (lambda x: -x, lambda x: -0.5 * np.sum(x**2, axis=1))
        put(chains=sk.LangevinSampler(**long).run(target, start, 7))
    with entry("functions-annealed") as put:
        sampler = sk.LangevinSampler(noise_variance=0.1, anneal_from=2.0, n_levels=3, **short)
        put(chains=sampler.run(lambda x, v: -x / (1 + v), start, 7))


@family
def diagnostics(entry):
    chains = rng(160).normal(size=(4, 40, 3)) + 0.2 * np.arange(4)[:, None, None]
    with entry("chains") as put:
        put(r_hat=sk.diagnostics.split_r_hat(chains), ess=sk.diagnostics.bulk_ess(chains))


# ---------------------------------------------------------------------------------------- selection


def found(search):
    """Return what a search found."""
    return {
        "best": [search.best_score_, search.best_index_, search.bandwidth_, search.sigma_],
        "metric": str(search.metric_),
        "density": search.score_samples(at(PLANE)),
        "sample": draws(search),
    }


def path(search):
    told = search.cv_results_
    factors = [told[name] for name in ("bandwidth_factor", "sigma_factor", "background")]
    return {"path": [*factors, told["score"]], "metrics": " ".join(map(str, told["metric"]))}


@family
def search(entry):
    find = sk.model_selection.SmoothedScoreDiffusionCV
    X = PLANE[:40]
    adapted = sk.ManifoldAdaptedDiffusion(n_components=1)
    numeric = sk.SmoothedScoreDiffusion(metric="scaled", background=0.05, n_nodes=16)
    options = {
        "left-out": {},
        "folds": {"cv": 3},
        "splitter": {"cv": KFold(3, shuffle=True, random_state=0), "n_refinements": 1},
        "grid": {
            "bandwidth_factors": (0.5, 1.0),
            "sigma_factors": (0.0, 2.0),
            "metrics": ("scaled", 0.5),
        },
        "kde": {"sigma_factors": (0.0,), "n_refinements": 0},
        "adapted": {"estimator": adapted, "n_refinements": 1},
        "numeric": {"estimator": numeric, "n_refinements": 1},
    }
    for name, option in options.items():
        with entry(name) as put:
            model = find(**option).fit(X)
            put(**found(model))
            put(**path(model))
    with entry("weights") as put:
        model = find(n_refinements=0).fit(PLANE, sample_weight=WEIGHT)
        put(**found(model), left_out=model.leave_one_out_log_density())
        put(**path(model))


@family
def scorers(entry):
    selection = sk.model_selection
    models = {
        "kde": sk.KDESampler(0.6),
        "smoothed": sk.SmoothedScoreDiffusion(0.4, 0.5),
        "adapted": sk.ManifoldAdaptedDiffusion(0.4, 0.5, n_components=1),
        "neural": sk.NeuralScoreDiffusion(
            0.2, hidden_layer_sizes=(8,), max_iter=5, metric="euclidean"
        ),
    }
    for name, model in models.items():
        with entry(name) as put:
            model.fit(PLANE)
            put(
                hyvarinen=selection.hyvarinen_score(model, PLANE[:20]),
                noised=selection.make_hyvarinen_scorer(0.3, n_pairs=2)(model, PLANE[:20]),
                denoising=selection.denoising_score(model, PLANE[:20]),
                made=selection.make_denoising_scorer(0.1, 3.0, 4, n_pairs=2)(model, PLANE[:20]),
            )
    with entry("grid-search") as put:
        grid = {"bandwidth": [0.3, 0.6, 1.2]}
        for name in ("hyvarinen_score", "denoising_score"):
            scoring = getattr(selection, name)
            model = GridSearchCV(sk.KDESampler(), grid, scoring=scoring, cv=3).fit(PLANE)
            put(**{name: model.cv_results_["mean_test_score"]})
        model = GridSearchCV(sk.SmoothedScoreDiffusion(sigma=0.3), grid, cv=3).fit(PLANE)
        put(likelihood=model.cv_results_["mean_test_score"])


# ----------------------------------------------------------------------------- made of densities


@family
def stacking(entry):
    stack = sk.compose.DensityStacking
    members = [
        ("smoothed", sk.SmoothedScoreDiffusion(0.4, 0.5)),
        ("kde", sk.KDESampler("scott")),
        ("mixture", GaussianMixture(2, random_state=0)),
        ("other", KernelDensity(bandwidth=0.7)),
    ]
    options = {
        "members": (members, {}),
        "three-folds": (members, {"cv": 3}),
        "splitter": (members, {"cv": KFold(4)}),
        "best": (members, {"combine": "best"}),
        "compact": ([("box", sk.KDESampler(0.8, "tophat")), members[2]], {}),
        "dropped": ([members[0], ("kde", "drop"), members[2]], {}),
    }
    for name, (chosen, option) in options.items():
        with entry(name) as put:
            model = stack(chosen, **option).fit(PLANE)
            put(
                weights=model.weights_,
                held_out=model.oof_log_density_,
                density=model.score_samples(at(PLANE)),
                sample=draws(model, 8),
            )
    with entry("weighted") as put:
        model = stack(members[:2]).fit(PLANE, sample_weight=WEIGHT)
        put(weights=model.weights_, density=model.score_samples(at(PLANE)), sample=draws(model))
    with entry("parameters") as put:
        model = stack(members[:2]).set_params(kde__bandwidth=0.5, smoothed=members[2][1])
        put(names=" ".join(sorted(model.get_params())), weights=model.fit(PLANE).weights_)
    with entry("prefit") as put:
        fitted = [(name, member.fit(PLANE[:30])) for name, member in members[:3]]
        model = stack(fitted, cv="prefit").fit(PLANE[30:])
        put(weights=model.weights_, density=model.score_samples(at(PLANE)), sample=draws(model))
    with entry("family") as put:
        model = stack(cv=2).fit(PLANE[:24])
        put(
            members=" ".join(model.named_estimators_),
            weights=model.weights_,
            held_out=model.oof_log_density_,
            density=model.score_samples(at(PLANE)),
            sample=draws(model),
        )
    with entry("family-weighted") as put:
        model = stack(cv=2, combine="best").fit(PLANE[:24], sample_weight=WEIGHT[:24])
        put(weights=model.weights_, held_out=model.oof_log_density_)


@family
def classifier(entry):
    X = np.vstack([PLANE[:30], PLANE[30:] + [2.0, -1.0]])
    y = np.repeat(["one", "two"], 30)
    options = {
        "default": {},
        "kde": {"estimator": sk.KDESampler()},
        "priors": {"estimator": sk.KDESampler(0.7), "priors": [0.9, 0.1]},
        "mixture": {"estimator": GaussianMixture(2, random_state=0)},
        "adapted": {"estimator": sk.ManifoldAdaptedDiffusion(0.3, 0.4, n_components=1)},
    }
    for name, option in options.items():
        with entry(name) as put:
            model = sk.compose.DensityClassifier(**option).fit(X, y)
            rows, classes = draws(model)
            put(
                probability=model.predict_log_proba(at(X)),
                decision=model.decision_function(at(X)),
                density=model.score_samples(at(X)),
                predicted=" ".join(model.predict(at(X))),
                sample=rows,
                classes=" ".join(classes),
            )
    with entry("weights-three") as put:
        labels = np.arange(60) % 3
        model = sk.compose.DensityClassifier(sk.KDESampler()).fit(X, labels, WEIGHT)
        put(probability=model.predict_proba(at(X)), priors=model.class_prior_)


@family
def outliers(entry):
    options = {
        "default": (PLANE, {}),
        "folds": (PLANE, {"cv": 3, "estimator": sk.KDESampler()}),
        "kde": (PLANE, {"estimator": sk.KDESampler(), "contamination": 0.25}),
        "wide": (FIVE, {"estimator": sk.SmoothedScoreDiffusion(0.5, 0.5)}),
        "mixture": (PLANE, {"estimator": GaussianMixture(2, random_state=0)}),
        "pipeline": (PLANE, {"estimator": make_pipeline(StandardScaler(), sk.KDESampler())}),
        "equal-rows": (ROUNDED, {"estimator": sk.KDESampler(0.5)}),
    }
    for name, (X, option) in options.items():
        with entry(name) as put:
            model = sk.compose.DensityOutlierDetector(**option).fit(X)
            put(
                offset=model.offset_,
                held_out=model.held_out_log_density_,
                scores=model.score_samples(at(X)),
                decision=model.decision_function(at(X)),
                predicted=model.predict(at(X)),
            )
    with entry("weights") as put:
        model = sk.compose.DensityOutlierDetector(sk.KDESampler()).fit(PLANE, None, WEIGHT)
        put(offset=model.offset_, scores=model.score_samples(at(PLANE)))


class Cube:
    """A transformer of the user's own, which knows its derivative."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X**3 + X

    def inverse_transform(self, Z):
        root = np.sqrt(Z**2 / 4 + 1 / 27)
        return np.cbrt(Z / 2 + root) + np.cbrt(Z / 2 - root)

    def log_abs_det_jacobian(self, X):
        return np.log(3 * X**2 + 1).sum(axis=1)

    def get_params(self, deep=True):
        return {}

    def __sklearn_is_fitted__(self):
        return True


def transformers():
    """Return transformers that a density can be seen through."""
    few = {"n_quantiles": 8, "random_state": 0}
    logarithm = FunctionTransformer(np.log, np.exp)
    columns = ColumnTransformer([("log", logarithm, [1]), ("scaled", RobustScaler(), [0])])
    return {
        "none": None,
        "passthrough": "passthrough",
        "standard": StandardScaler(),
        "min-max": MinMaxScaler(),
        "max-abs": MaxAbsScaler(),
        "robust": RobustScaler(),
        "yeo-johnson": PowerTransformer(),
        "box-cox": PowerTransformer("box-cox", standardize=False),
        "quantile": QuantileTransformer(output_distribution="normal", **few),
        "uniform": QuantileTransformer(**few),
        "rotation": PCA(),
        "whitening": PCA(whiten=True),
        "one-component": PCA(1),
        "logarithm": logarithm,
        "log1p": FunctionTransformer(np.log1p, np.expm1),
        "exp": FunctionTransformer(np.exp, np.log),
        "expm1": FunctionTransformer(np.expm1, np.log1p),
        "arcsinh": FunctionTransformer(np.arcsinh, np.sinh),
        "sinh": FunctionTransformer(np.sinh, np.arcsinh),
        "expit": FunctionTransformer(expit, logit),
        "pipeline": make_pipeline(PowerTransformer(), PCA(whiten=True)),
        "columns": columns,
        "remainder": ColumnTransformer([("log", logarithm, [1])], remainder="passthrough"),
        "frozen": FrozenEstimator(StandardScaler().fit(POSITIVE)),
        "own": Cube(),
    }


@family
def transformed(entry):
    through = sk.compose.TransformedDensity
    for name, transformer in transformers().items():
        with entry(name) as put:
            model = through(sk.KDESampler("scott"), transformer).fit(POSITIVE)
            put(
                mass=model.log_mass_,
                density=model.score_samples(at(POSITIVE)),
                sample=draws(model),
            )
    with entry("default") as put:
        model = through(None, StandardScaler()).fit(POSITIVE[:40])
        put(density=model.score_samples(at(POSITIVE)), sample=draws(model))
    with entry("function") as put:
        square = FunctionTransformer(np.square, np.sqrt)
        derivative = lambda X: np.log(2 * X).sum(axis=1)  # noqa: E731
        model = through(sk.KDESampler(), square, log_abs_det=derivative).fit(POSITIVE)
        put(density=model.score_samples(at(POSITIVE)), sample=draws(model))
    with entry("weights") as put:
        model = through(sk.KDESampler(), StandardScaler()).fit(POSITIVE[:60], None, WEIGHT)
        put(density=model.score_samples(at(POSITIVE)), sample=draws(model))
    with entry("repeated") as put:
        model = through(sk.KDESampler(0.3), PowerTransformer()).fit(POSITIVE[:60], None, WEIGHT)
        put(density=model.score_samples(at(POSITIVE)), sample=draws(model))
    with entry("frame") as put:
        model = through(sk.SmoothedScoreDiffusion(0.4, 0.5), StandardScaler()).fit(FRAME)
        put(density=model.score_samples(FRAME[:5]), sample=draws(model))
    with entry("changes") as put:
        change = sk.compose.change_of_variables(PowerTransformer().fit(POSITIVE))
        rows, factor = change.forward(POSITIVE[:5])
        back, inside = change.inverse(rows, rng(0))
        put(forward=[rows, factor], inverse=[back, inside], image=change.image(POSITIVE[:5]))


@family
def drawn(entry):
    sample = sk.compose.sample
    smoothed = sk.SmoothedScoreDiffusion(0.4, 0.5)
    grid = {"kdesampler__bandwidth": [0.3, 0.6]}
    chosen = {
        "smoothed": smoothed,
        "pipeline": make_pipeline(PowerTransformer(), smoothed),
        "pca": make_pipeline(StandardScaler(), PCA(2), sk.KDESampler()),
        "search": GridSearchCV(make_pipeline(StandardScaler(), sk.KDESampler()), grid, cv=3),
        "kernel-density": KernelDensity(bandwidth=0.5),
        "mixture": GaussianMixture(2, random_state=0),
    }
    for name, model in chosen.items():
        with entry(name) as put:
            put(sample=sample(model.fit(SPACE), 5, 7))
    with entry("frame") as put:
        put(sample=sample(sk.KDESampler().fit(FRAME), 5, 7, output="pandas"))
    with entry("frame-search") as put:
        model = GridSearchCV(make_pipeline(StandardScaler(), sk.KDESampler()), grid, cv=3)
        put(sample=sample(model.fit(FRAME), 5, 7, output="pandas"))
    with entry("top-level") as put:
        put(sample=sk.sample(sk.KDESampler().fit(FRAME), 5, 7))


# --------------------------------------------------------------------------------------- manifolds


@family
def manifold(entry):
    of = sk.manifolds
    X = SPACE[:12]
    sloped = np.array([[1.0, 0.2], [0.0, 1.0], [0.5, -0.3]])
    chosen = {
        "affine": subspace,
        "basis": lambda: of.AffineSubspace.from_basis([1.0, 0.0, 2.0], sloped),
        "circle": lambda: of.Circle([0.1, 0.2, 0.3], 1.5, sloped),
        "sphere": lambda: of.Sphere([0.1, 0.2, 0.3], 1.5),
        "torus": torus,
        "arc": arc,
        "cylinder": cylinder,
        "cloud": lambda: of.PointCloud(BALL, 2),
        "cloud-auto": lambda: of.PointCloud(BALL, n_neighbors=10),
        "learned-1": lambda: of.LocalPolynomialManifold(2, 1).fit(BALL),
        "learned-2": lambda: of.LocalPolynomialManifold(2).fit(BALL),
        "learned-3": lambda: of.LocalPolynomialManifold(2, 3, n_neighbors=30).fit(BALL),
        "learned-lattice": lambda: of.LocalPolynomialManifold(1, 3, n_neighbors=6).fit(LATTICE),
        "learned-thirteen": lambda: of.LocalPolynomialManifold(2, 1).fit(THIRTEEN),
        "cloud-thirteen": lambda: of.PointCloud(THIRTEEN, 2),
        "learned-auto": lambda: of.LocalPolynomialManifold().fit(
            BALL, sample_weight=np.arange(80.0)
        ),
    }
    for name, make in chosen.items():
        with entry(name) as put:
            known = make()
            rows = near(BALL) if name.startswith(("learned", "cloud")) else X
            rows = near(LATTICE) if name.endswith("lattice") else rows
            rows = near(THIRTEEN) if name.endswith("thirteen") else rows
            put(
                project=known.project(rows),
                distance=known.distance(rows),
                tangent=known.tangent(rows),
                numbers=[known.dimension, known.reach],
                tensor=known.project(torch.from_numpy(rows).float()),
            )
            if not name.startswith("cloud"):
                put(factors=known.projection_factors(rows))
            if not name.startswith(("cloud", "learned")):
                put(
                    derivative=known.project_with_derivative(rows)[2],
                    alone=known.projection_derivative(rows),
                )
            if not name.startswith("learned"):
                of.check_idempotent(known, rows)
            put(estimated=of.estimate_reach(known, rows))
    with entry("curve") as put:
        curve, t = ellipse(), np.linspace(0.1, 6.0, 7)
        put(
            points=curve.points(t),
            speed=curve.speed(t),
            length=[curve.length, curve.arc_length(t), curve.parameter_at(t / 2)],
            parameter=curve.parameter(near(RING)),
            numbers=[curve.reach, curve.error, curve.n_panels],
            foot=[curve.project(at(RING)), curve.distance(at(RING))],
        )


@family
def dimension(entry):
    data = {"plane": PLANE, "ring": RING, "ball": BALL, "flat": FLAT, "thirteen": THIRTEEN}
    for name, X in data.items():
        with entry(name) as put:
            result = sk.manifolds.intrinsic_dimension(X)
            put(found=[result.dimension, result.noise_variance, result.curvature])


# ------------------------------------------------------------------------------------ small modules


@family
def bandwidth(entry):
    of = sk.bandwidth
    for name, share in (
        ("equal", np.ones(60) / 60),
        ("weighted", (WEIGHT + 1) / (WEIGHT + 1).sum()),
    ):
        with entry(name) as put:
            put(
                rules=[of.scott(PLANE, share), of.silverman(PLANE, share)],
                bracket=of.stationary_bracket(PLANE, share),
                others=of.weight_of_others(share),
            )
    with entry("nearest") as put:
        put(found=of.nearest_distances(PLANE))
    with entry("maximize") as put:
        put(found=of.maximize_leave_one_out(lambda h: -((np.log(h) - 0.3) ** 2), 0.1, 10.0))


@family
def noise(entry):
    for name, kind, rate in (("ve", "VarianceExploding", ()), ("ou", "OrnsteinUhlenbeck", (0.7,))):
        with entry(name) as put:
            process, times = getattr(sk.noise, kind)(*rate), (0.1, 1.0, 3.0)
            put(
                found=[
                    [getattr(process, method)(t) for t in times]
                    for method in ("alpha", "variance", "time")
                ]
            )
    with entry("levels") as put:
        levels = sk.noise.NoiseLevels(0.1, 4.0, 5)
        put(
            steps=[list(step) for step in levels.steps(2)],
            middles=[levels.middle(k) for k in range(5)],
            level=[levels.level_of(scale) for scale in (0.05, 0.2, 1.0, 9.0)],
        )
    with entry("proportional") as put:
        put(scale=sk.kernels.ProportionalScale(0.7)(0.3))


# ------------------------------------------------------------------------------------------ metrics


@family
def metric(entry):
    of = sk.metrics
    X, Y = PLANE[:30], PLANE[30:] * 1.1 + 0.1
    generated = ring(30, 0.1, 170)
    on_circle = ring(40, 0.0, 172)

    calls = {
        "classifier": lambda: of.classifier_two_sample_test(X, Y, random_state=0),
        "classifier-folds": lambda: of.classifier_two_sample_test(
            X, Y, LogisticRegression(), cv=3, n_permutations=9, random_state=0
        ),
        "fidelity": lambda: of.fidelity_and_diversity(X, Y),
        "fidelity-3": lambda: of.fidelity_and_diversity(X, Y, n_neighbors=3),
        "coverage": lambda: of.coverage_at_scale(X, Y, [0.2, 0.5, 1.0]),
        "coverage-scale": lambda: of.coverage_scale(X, Y),
        "coverage-scale-all": lambda: of.coverage_scale(X, Y, alpha=0.0, c=0.8),
        "to-data": lambda: of.distance_to_data(X, Y),
        "to-manifold": lambda: of.distance_to_manifold(generated, circle()),
        "lateral": lambda: of.lateral_distance(generated, on_circle, circle()),
        "memorization": lambda: of.memorization(X, Y),
        "memorization-half": lambda: of.memorization(X, Y, threshold=0.5),
        "fisher": lambda: of.fisher_divergence(
            X, sk.KDESampler(0.6).fit(PLANE), lambda rows: -rows
        ),
        "forty": lambda: [
            of.fidelity_and_diversity(FORTY[:15], FORTY[15:], n_neighbors=3),
            of.coverage_scale(FORTY[:15], FORTY[10:]),
            of.distance_to_data(FORTY[:15], FORTY[10:]),
            of.memorization(FORTY[:15], FORTY[10:]),
        ],
    }
    for name, call in calls.items():
        with entry(name) as put:
            put(found=call())


# ----------------------------------------------------------------------------------------- datasets


@family
def dataset(entry):
    of = sk.datasets
    seeded = {"random_state": 0, "return_shape": True}
    turned = seeded | {"n_features": 5, "frame_state": 3, "noise": 0.1}
    even = seeded | {"spacing": "even"}
    lattice = {"size": 10, "width": 0.4, "centers": "square", "spacing": "even"}
    options = {
        "circle": ("circle", seeded),
        "circle-mises": ("circle", even | {"distribution": "von-mises", "radius": 2.0}),
        "circle-jump": (
            "circle",
            lambda: turned | {"distribution": of.PiecewiseConstant((1.0, 2.0, 4.0))},
        ),
        "ellipse": ("ellipse", seeded),
        "ellipse-even": ("ellipse", even | {"distribution": "parameter", "semi_axes": (2.0, 0.7)}),
        "ellipse-turned": ("ellipse", turned),
        "wavy": ("wavy_circle", seeded),
        "wavy-even": ("wavy_circle", even | {"amplitude": 0.2, "waves": 5}),
        "rough": ("rough_circle", seeded),
        "rough-turned": ("rough_circle", turned | {"smoothness": 3, "waves": 2}),
        "bean": ("lima_bean", seeded),
        "bean-even": ("lima_bean", even | {"distribution": "discontinuous"}),
        "sphere": ("sphere", seeded),
        "sphere-jump": ("sphere", turned | {"n_components": 3, "distribution": "discontinuous"}),
        "torus": ("torus", seeded),
        "torus-turned": ("torus", turned | {"distribution": "discontinuous"}),
        "roll": ("swiss_roll", seeded),
        "roll-turned": ("swiss_roll", turned | {"height": 2.0}),
        "affine": ("affine_subspace", seeded),
        "affine-normal": ("affine_subspace", turned | {"distribution": "gaussian"}),
        "bumps": ("bump_images", seeded | {"size": 10, "width": 0.4}),
        "bumps-random": (
            "bump_images",
            seeded | {"size": 10, "width": 0.4, "distribution": "uniform", "spacing": "random"},
        ),
        "sheet": ("bump_images", seeded | lattice),
        "sheet-random": ("bump_images", seeded | lattice | {"spacing": "random"}),
    }
    for name, (kind, option) in options.items():
        with entry(name) as put:
            X, shape = getattr(of, f"make_{kind}")(12, **made(option))
            fresh = shape.sample(6, 1)
            put(
                rows=X,
                fresh=fresh,
                density=shape.log_density(fresh),
                volume=shape.volume,
                foot=[shape.manifold.project(X), shape.manifold.distance(X)],
                tangent=shape.manifold.tangent(X),
                derivative=shape.manifold.project_with_derivative(X)[2],
                reach=shape.manifold.reach,
            )
    with entry("sheet-smoothed") as put:
        X, shape = of.make_bump_images(12, **seeded | lattice | {"spacing": "random", "noise": 0.1})
        model = sk.ManifoldAdaptedDiffusion(
            0.1, 0.2, manifold=shape.manifold, n_nodes=8, n_levels=4, n_steps=4
        ).fit(X)
        put(sample=draws(model, 3), density=model.score_samples(X[:4]))
    with entry("laws") as put:
        p = np.linspace(0.05, 0.95, 7)
        laws = (of.Uniform(), of.VonMises(3.0), of.PiecewiseConstant((1.0, 0.0, 2.0)))
        put(density=[law.density(p) for law in laws], quantile=[law.quantile(p) for law in laws])


# --------------------------------------------------------------------------------------- comparison


def difference(old, new):
    """Return the largest difference, relative to max(1, |value|) and absolute; 0 where equal."""
    if old.dtype != new.dtype or old.shape != new.shape:
        return np.inf, np.inf
    if old.dtype.kind not in "fiub":
        return (0.0, 0.0) if np.array_equal(old, new) else (np.inf, np.inf)
    old, new = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.abs(new - old)
        relative = gap / np.maximum(1.0, np.abs(old))
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    # What is infinite or no number on one side only is as far as can be.
    gap, relative = (
        np.where(same, 0.0, np.where(np.isfinite(each), each, np.inf)) for each in (gap, relative)
    )
    return float(relative.max(initial=0.0)), float(gap.max(initial=0.0))


def is_bit_equal(old, new):
    is_alike = old.dtype == new.dtype and old.shape == new.shape
    return is_alike and old.tobytes() == new.tobytes()


def entries(names):
    """Group the names of arrays by entry, which is all but their last part."""
    grouped = {}
    for name in names:
        grouped.setdefault(name.rpartition("/")[0], []).append(name)
    return grouped


def compare(old, new, tol):
    """Print how far each entry is from what it was; return whether all are within the tolerance."""
    n_entries = n_equal = n_beyond = 0
    worst = (0.0, 0.0, "none")
    for entry, names in entries(name for name in new if name in old).items():
        changed = [name for name in names if not is_bit_equal(old[name], new[name])]
        n_entries += 1
        n_equal += not changed
        if not changed:
            print(f"{entry}: bit-equal")
        found = {name: difference(old[name], new[name]) for name in changed}
        for name, (relative, absolute) in found.items():
            print(f"{name}: differs by {relative:.3g} relative, {absolute:.3g} absolute")
            if (old[name].dtype, old[name].shape) != (new[name].dtype, new[name].shape):
                print(f"    was {old[name].dtype} {old[name].shape}")
                print(f"    is  {new[name].dtype} {new[name].shape}")
            worst = max(worst, (relative, absolute, name))
        n_beyond += any(relative > tol for relative, _ in found.values())
    gone = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    for title, names in (("only in the file", gone), ("only in this run", added)):
        for entry, parts in entries(names).items():
            print(f"{entry}: {title}: {', '.join(part.rpartition('/')[2] for part in parts)}")
    print(
        f"\n{n_entries} entries, {n_equal} bit-equal, {n_beyond} beyond tol={tol:g}; largest "
        f"difference {worst[0]:.3g} relative, {worst[1]:.3g} absolute ({worst[2]}); "
        f"missing arrays: {len(added)} in the file, {len(gone)} in this run."
    )
    return not (n_beyond or gone or added)


def compute(only):
    """Run the families whose names contain a word."""
    results, begin = Results(), time.perf_counter()
    for function in FAMILIES:
        title = function.__name__.replace("_", "-")
        if only not in title:
            continue
        n_before, start = len(entries(results.arrays)), time.perf_counter()
        results.run(function)
        n = len(entries(results.arrays)) - n_before
        print(f"{title}: {n} entries in {time.perf_counter() - start:.1f} s", flush=True)
    n, seconds = len(entries(results.arrays)), time.perf_counter() - begin
    print(f"{n} entries of {len(results.arrays)} arrays in {seconds:.0f} s")
    for name, error in results.failures.items():
        print(f"FAILED {name}: {error}")
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--save", metavar="FILE", help="write the results to an npz file")
    action.add_argument("--compare", metavar="FILE", help="compare the results with a saved file")
    parser.add_argument("--tol", type=float, default=0.0, help="what may differ; relative")
    parser.add_argument("--only", default="", metavar="WORD", help="run these families only")
    options = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # of workers, if there are any
    torch.set_num_threads(1)
    threadpool_limits(1)
    warnings.simplefilter("ignore")
    print(f"skdiffsmooth: {os.path.dirname(sk.__file__)}")
    packages = ("numpy", "scipy", "scikit-learn", "torch")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages))

    results = compute(options.only)
    passed = not results.failures
    if options.save:
        np.savez_compressed(options.save, **results.arrays)
    else:
        with np.load(options.compare) as file:
            old = {
                name: file[name] for name in file.files if options.only in name.partition("/")[0]
            }
        print()
        passed = compare(old, results.arrays, options.tol) and passed
    if results.failures:
        print(f"{len(results.failures)} entries failed; see above.")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
