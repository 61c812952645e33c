"""The mass of the default's density on real tables, which should be one (docs/evidence/accuracy.md).

    python benchmarks/mass.py [names of tables]

By bridge sampling (Meng and Wong 1996) between the model p and a Gaussian mixture q, which is normalised
and fitted to draws of the model in its own maps of columns. If draws have the density p / Z, then log Z
is the r at which the mean of p / (p + exp(r) q) over draws of q equals that of exp(r) q / (p + exp(r) q)
over other draws of p. The overlap, twice this mean, is 1 for equal densities; the error grows as it
falls.
"""

import sys

import numpy as np
from _common import header, row
from _tables import load, split
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.compose import TransformedDensity

# Training rows at most, draws for the mixture and draws of each density that are compared.
MOST_ROWS, N_FITTED, N_COMPARED = 800, 600, 300
N_COMPONENTS = (4, 8)
# Tables, each with the least variance of a mixture's components, in standardised columns.
TABLES = {"wine": 0.05, "diabetes": 0.005, "rain forecasts": 0.05, "cells": 0.05}


def bridge(on_p, on_q):
    """Return log Z, its standard error and the overlap from log p - log q on n draws of each."""

    def parts(r):
        return expit(on_q - r), expit(r - on_p)

    values = np.concatenate([on_p, on_q])
    ends = values.min() - 50, values.max() + 50
    log_mass = brentq(lambda r: np.subtract(*map(np.mean, parts(r))), *ends)
    variances = [part.var() / part.mean() ** 2 / len(part) for part in parts(log_mass)]
    return log_mass, np.sqrt(sum(variances)), 2 * parts(log_mass)[0].mean()


def mixture_of(model, draws, n_components, least_variance):
    """Return a Gaussian mixture of the draws, in the columns as the model maps them."""
    mixture = TransformedDensity(
        GaussianMixture(n_components, reg_covar=least_variance, random_state=0), StandardScaler()
    )
    if model.warp_ is None:
        return mixture.fit(draws)
    maps = FunctionTransformer(model.warp_.mapped, model.warp_.unmapped)
    return TransformedDensity(mixture, maps, log_abs_det=model.warp_.log_slopes).fit(draws)


def chain(name, shares=(0, 0.04, 0.1, 0.18, 0.3, 0.45, 0.6, 0.8, 1), n_draws=80):
    """Print the mass by bridges over shares of sigma^2, from the KDE at sigma = 0, whose mass is one.

    The background, a density of its own, is left out.
    """
    train, _ = split(load(name), 0, MOST_ROWS)
    chosen = SmoothedScoreDiffusion().fit(train)
    header("data", "sigma", "log mass", "standard error", "overlap with the last")
    total, variance, last = 0.0, 0.0, None
    for k, share in enumerate(shares):
        sigma = chosen.sigma_ * np.sqrt(share)
        model = SmoothedScoreDiffusion(
            chosen.bandwidth_, sigma, metric=chosen.metric_, background=0.0
        ).fit(train)
        draws = model.sample(n_draws, random_state=k)
        own = model.score_samples(draws)
        if last is not None:
            before, drawn, log_density = last
            log_ratio, error, overlap = bridge(
                own - before.score_samples(draws), model.score_samples(drawn) - log_density
            )
            total, variance = total + log_ratio, variance + error**2
            row(name, f"{sigma:.3f}", f"{total:+.3f}", f"{variance**0.5:.3f}", f"{overlap:.3f}")
        last = model, draws, own


def run(names=tuple(TABLES)):
    """Print the table; for cells, where no mixture overlaps with the model, the chain too."""
    header("data", "N x d", "components", "log mass", "standard error", "overlap")
    for name in names:
        train, _ = split(load(name), 0, MOST_ROWS)
        model = SmoothedScoreDiffusion().fit(train)
        draws = model.sample(N_FITTED + N_COMPARED, random_state=0)
        fitted, compared = draws[:N_FITTED], draws[N_FITTED:]
        on_p = model.score_samples(compared)
        for n_components in N_COMPONENTS:
            mixture = mixture_of(model, fitted, n_components, TABLES[name])
            Q = mixture.sample(N_COMPARED, random_state=1)
            ratios = (
                on_p - mixture.score_samples(compared),
                model.score_samples(Q) - mixture.score_samples(Q),
            )
            log_mass, error, overlap = bridge(*ratios)
            size = " x ".join(map(str, train.shape))
            row(name, size, n_components, f"{log_mass:+.3f}", f"{error:.3f}", f"{overlap:.3f}")
    if "cells" in names:
        print()
        chain("cells")


if __name__ == "__main__":
    run(sys.argv[1:] or tuple(TABLES))
