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

from skdiffsmooth import SmoothedScoreDiffusion
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


def run(names=tuple(TABLES)):
    """Print the mass of the default's density, and of those over windows and a mixture."""
    header("data", "N x d", "base", "mass - 1", "log-densities: mean", "rms", "CPU s")
    for name in names:
        train, _ = split(load(name), 0, MOST_ROWS)
        bases = {"rows": None}
        if name in WITH_BASES:
            mixture = GaussianMixture(4, reg_covar=0.05, random_state=0)
            bases |= {"windows": ManifoldParzen(), "mixture": mixture}
        for label, base in bases.items():
            start = time.process_time()
            with warnings.catch_warnings():
                # Mixtures that have not converged.
                warnings.simplefilter("ignore")
                model = SmoothedScoreDiffusion(base=base).fit(train)
                error = log_errors(model, TABLES[name])
            ratio = np.exp(error)
            row(
                name,
                " x ".join(map(str, train.shape)),
                label,
                f"{ratio.mean() - 1:+.4f} +- {ratio.std(ddof=1) / np.sqrt(len(ratio)):.4f}",
                f"{error.mean():+.4f}",
                f"{np.sqrt(np.mean(error**2)):.4f}",
                f"{time.process_time() - start:.0f}",
            )


if __name__ == "__main__":
    run(sys.argv[1:] or tuple(TABLES))
