"""Errors and times of log-densities: fixed steps beside the adaptive solver, and nodes.

One hundred held-out rows of each set, bandwidth 0.85 h and sigma 1.5 h with h the leave-one-out
bandwidth of the KDE (scales that are numbers come with the Euclidean metric and without a background);
the last table has the steps' errors with the scales that the defaults choose. *Gaps* are points half
way between training rows, under the unsmoothed score at half of the KDE's best bandwidth, where the flow
is stiff and the exact result, the KDE, is known. Elsewhere the converged values are those of
``Adaptive(tol=1e-7)``.
"""

import time
import warnings
from dataclasses import replace

import numpy as np
from _common import header, row
from sklearn.datasets import load_digits, load_wine, make_moons
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.scores import SmoothedScore
from skdiffsmooth.solvers import SOLVERS as SOLVER_CLASSES
from skdiffsmooth.solvers import Adaptive

SOLVERS = [("heun", n) for n in (32, 64, 128, 256)] + [(tol, 32) for tol in (1e-2, 1e-3, 1e-4)]


def data(n_queries=100):
    """Return training rows and queries of each set."""
    rng = np.random.RandomState(0)

    def split(X, n_train):
        X = X[rng.permutation(len(X))]
        return X[:n_train], X[n_train : n_train + n_queries]

    circle = make_circle(200, noise=0.02, random_state=rng)
    moons = make_moons(400, noise=0.05, random_state=0)[0]
    digits = PCA(8, random_state=0).fit_transform(load_digits().data)
    return {
        "two moons": split(StandardScaler().fit_transform(moons), 300),
        "circle": split(circle, 100),
        "wine": split(StandardScaler().fit_transform(load_wine().data), 118),
        "digits, 8 PCs": split(StandardScaler().fit_transform(digits), 300),
        "Student t(3) in R^4": split(rng.standard_t(3, size=(400, 4)), 300),
    }


def scales(train):
    """Return bandwidth and sigma."""
    h = KDESampler("loo").fit(train).bandwidth_
    return 0.85 * h, 1.5 * h


def problems():
    """Return fitted models, queries and converged log-densities."""
    found = {}
    for name, (train, queries) in data().items():
        model = SmoothedScoreDiffusion(*scales(train), solver=Adaptive(1e-7)).fit(train)
        found[name] = model, queries, model.score_samples(queries)
    train = data()["two moons"][0]
    exact = KDESampler(KDESampler("loo").fit(train).bandwidth_ / 2).fit(train)
    gaps = (train[:50] + train[50:100]) / 2
    model = SmoothedScoreDiffusion(exact.bandwidth_, 1e-9, n_nodes=2, terminal_scale=2.0).fit(train)
    found["gaps of two moons"] = model, gaps, exact.score_samples(gaps)
    return found


class Evaluations:
    """Counts the rows that fields are evaluated at."""

    def __init__(self):
        self.rows = 0
        self.original = SmoothedScore.with_divergence

    def __enter__(self):
        def counted(field, x, v):
            self.rows += len(x)
            return self.original(field, x, v)

        SmoothedScore.with_divergence = counted
        return self

    def __exit__(self, *error):
        SmoothedScore.with_divergence = self.original


def run():
    """Print all tables."""
    run_solvers()
    print()
    run_nodes()
    print()
    run_defaults()


def run_solvers():
    """Print errors and costs of solvers."""
    header(
        "data",
        "solver",
        "error, mean",
        "error, worst",
        "reported, worst",
        "covered",
        "evaluations a row",
        "time",
    )
    for name, (model, queries, converged) in problems().items():
        reference = None
        for solver, n_steps in SOLVERS:
            adaptive = not isinstance(solver, str)
            chosen = Adaptive(solver) if adaptive else SOLVER_CLASSES[solver]()
            steps = model.model_.levels.equal_steps(n_steps)
            model.model_ = replace(model.model_, solver=chosen, steps_of_levels=steps)
            with warnings.catch_warnings(), Evaluations() as evaluations:
                warnings.simplefilter("ignore", ConvergenceWarning)
                start = time.perf_counter()
                found = model.score_samples(queries)
                elapsed = time.perf_counter() - start
                asked = evaluations.rows / len(queries)
                _, reported = model.score_samples(queries, return_error=True)
            reference = reference or elapsed
            error = np.abs(found - converged)
            row(
                name,
                f"adaptive, {solver:.0e}" if adaptive else f"{solver}, {n_steps}",
                f"{error.mean():.1e}",
                f"{error.max():.1e}",
                f"{reported.max():.1e}",
                f"{np.mean(error <= reported):.0%}",
                f"{asked:.0f}",
                f"{elapsed / reference:.1f}",
            )


def run_nodes():
    """Print how far log-densities under two seeds of the nodes are from one another."""
    header("data", "nodes", "node_error_", "two seeds: rms / sqrt(2)", "of the mean / sqrt(2)")
    for name, (train, queries) in data().items():
        models = [
            SmoothedScoreDiffusion(*scales(train), solver="adaptive", random_state=k).fit(train)
            for k in (0, 1)
        ]
        gap = np.subtract(*(model.score_samples(queries) for model in models)) / np.sqrt(2)
        row(
            name,
            models[0].n_nodes_,
            f"{models[0].node_error_:.3f}",
            f"{np.sqrt(np.mean(gap**2)):.3f}",
            f"{abs(gap.mean()):.4f}",
        )


def run_defaults():
    """Print the errors of the default steps under chosen metric, scales and background."""
    header("data", "metric", "bandwidth", "sigma", "background", "error, mean", "error, worst")
    for name, (train, queries) in data().items():
        model = SmoothedScoreDiffusion().fit(train)
        found = model.score_samples(queries)
        model.model_ = replace(model.model_, solver=Adaptive(1e-7))
        error = np.abs(found - model.score_samples(queries))
        row(
            name,
            model.metric_,
            f"{model.bandwidth_:.2f}",
            f"{model.sigma_:.2f}",
            f"{model.background_:.2f}",
            f"{error.mean():.1e}",
            f"{error.max():.1e}",
        )


if __name__ == "__main__":
    run()
