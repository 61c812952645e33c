"""The mass of densities on real tables, which should be one (docs/evidence/accuracy.md).

    python benchmarks/mass.py [names of tables]

Samples are x = F(z), where z has the terminal density p_T and F follows the flow down. So the density of
x is p_T(z) / |det F'(z)|, by a central difference in each coordinate, and with e = log p(x) less its
logarithm, where p is what `score_samples` computes, the mass of p is the mean of exp(e) over draws. Both
follow one flow in opposite directions, so e is small: no other density has to overlap with p. The
background, which is a density in closed form, is left out.
"""

import sys
import time
import warnings

import numpy as np
from _common import header, row
from _tables import load, split
from sklearn.mixture import GaussianMixture

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.bases import ManifoldParzen

# Training rows at most; differences, in bandwidths.
MOST_ROWS, STEP = 800, 1e-4
# Tables, each with the number of draws; those on which windows and a mixture are smoothed, too.
TABLES = {
    "iris": 200,
    "wine": 200,
    "diabetes": 400,
    "breast cancer": 60,
    "rain forecasts": 100,
    "cells": 30,
}
WITH_BASES = "iris", "wine"


def log_errors(model, n, seed=0):
    """Return log-densities of n draws of the flow, less those that the Jacobian of the flow implies."""
    inner, resources = model.model_, model._resources()
    schedule = inner.source.schedule(resources)
    terminal, backend = inner.source.terminal(schedule), schedule.backend
    z = terminal.sample(np.random.RandomState(seed), n)
    rank = z.shape[1]
    half = STEP * inner.bandwidth * np.eye(rank)
    starts = (z[:, None] + np.concatenate([np.zeros((1, rank)), half, -half])).reshape(-1, rank)
    ends = inner._follow_down(
        starts, np.arange(len(starts)), n=len(starts), seed=None, resources=resources
    )
    x = ends[:, :-1].reshape(n, -1, rank)
    jacobian = (x[:, 1 : rank + 1] - x[:, rank + 1 :]) / (2 * STEP * inner.bandwidth)
    drawn = backend.array(terminal.log_density(backend.tensor(z)))
    drawn -= np.linalg.slogdet(jacobian)[1]
    return inner._follow_up(x[:, 0], resources=resources, with_error=False)[:, 0] - drawn


def row_of(model, n, *labels):
    """Print the mass of a fitted model, and the mean and rms of its errors at n draws."""
    start = time.process_time()
    error = log_errors(model, n)
    ratio = np.exp(error)
    row(
        *labels,
        f"{ratio.mean() - 1:+.4f} +- {ratio.std(ddof=1) / np.sqrt(n):.4f}",
        f"{error.mean():+.4f}",
        f"{np.sqrt(np.mean(error**2)):.4f}",
        f"{time.process_time() - start:.0f}",
    )


def narrow():
    """Print the mass in two dimensions for bandwidths from a hundredth to ten times the KDE's best."""
    X = np.random.RandomState(7).normal(size=(20, 2))
    h = KDESampler("loo").fit(X).bandwidth_
    mixture = GaussianMixture(3, random_state=0)
    bases = {
        "rows, ball": ({"kernel": "uniform-ball"}, (0.3, 0.1)),
        "windows": ({"base": ManifoldParzen(5)}, (0.3, 0.1)),
        "mixture": ({"base": mixture}, (0.3, 0.1)),
        "rows": ({}, (10, 3, 1, 0.3, 0.1, 0.03, 0.01)),
    }
    header("base", "bandwidth / h", "nodes", "steps", "mass - 1", "e: mean", "rms", "CPU s")
    for label, (parameters, factors) in bases.items():
        for factor in factors:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = SmoothedScoreDiffusion(factor * h, 1.5 * h, **parameters).fit(X)
            nodes = f"{model.n_nodes_}{' (warned)' if caught else ''}"
            row_of(model, 30, label, factor, nodes, model.n_steps_)


def run(names=()):
    """Print the mass of the default's density, and of those over windows and a mixture."""
    header("data", "N x d", "base", "mass - 1", "e: mean", "rms", "CPU s")
    for name in names or TABLES:
        train, _ = split(load(name), 0, MOST_ROWS)
        bases = {"rows": None}
        if name in WITH_BASES:
            mixture = GaussianMixture(4, reg_covar=0.05, random_state=0)
            bases |= {"windows": ManifoldParzen(), "mixture": mixture}
        for label, base in bases.items():
            with warnings.catch_warnings():
                # Mixtures that have not converged.
                warnings.simplefilter("ignore")
                model = SmoothedScoreDiffusion(base=base).fit(train)
            row_of(model, TABLES[name], name, " x ".join(map(str, train.shape)), label)
    if not names:
        print()
        narrow()


if __name__ == "__main__":
    run(sys.argv[1:])
