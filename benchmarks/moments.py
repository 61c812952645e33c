"""Held-out worth of affine maps that give a smoothed density the moments that smoothing changed.

The tables are those of ``make table`` with at most 400 training and 400 held-out rows. Maps act on the
flow, in its own coordinates (hull coordinates of the model's metric); the background is mixed after
it. The density of a mapped model is exact: that of the flow at the inverse point, less log|det|. Moments
are those of draws, corrected by draws of the kernel density estimate from the same starts, whose moments
are known. ``--data iris,wine`` names tables; splits are kept in ``benchmarks/.cache/moments.json``.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import _tables
import numpy as np
from _common import header, row
from scipy.linalg import sqrtm

from skdiffsmooth import SmoothedScoreDiffusion

CACHE = Path(__file__).parent / ".cache" / "moments.json"
NAMES = [name for name in _tables.TABLES if name not in ("photo patches", "diamonds")]
MOST_TRAIN, MOST_TEST, N_DRAWS = 400, 400, 2000
FORMS = {
    "full": "to the mean and covariance of the rows",
    "factor": "one factor, to the trace of the rows",
    "widen": "a factor >= 1 for each principal axis of the rows",
    "kde": "to the mean and covariance of the kernel density estimate, which sigma = 0 is",
}


def moments(draws):
    """Return mean (r,) and covariance (r, r) of draws (n, r)."""
    return draws.mean(axis=0), np.cov(draws.T, bias=True).reshape(2 * [draws.shape[1]])


def model_moments(model, resources, mean, covariance):
    """Return mean and covariance of a flow, from those of its kernel density estimate."""
    source = model.data
    zero = replace(source.smoothing, scales=0 * source.smoothing.scales)
    both = []
    for each in (source, replace(source, smoothing=zero)):
        plain = replace(model, source=each, background=0.0, tail=None)
        draws = plain.draw(N_DRAWS, np.random.RandomState(0), resources)
        both.append(moments(model.embedding.split(draws)[0]))
    (m, S), (m0, S0) = both
    return mean + m - m0, covariance + S - S0


def transport(S, C):
    """Return the symmetric matrix A (r, r) with A S A = C."""
    root = np.real(sqrtm(S))
    inverse = np.linalg.inv(root)
    return inverse @ np.real(sqrtm(root @ C @ root)) @ inverse


def maps(S, rows, kde):
    """Return the matrix (r, r) of each form, from covariances of flow, rows and KDE."""
    variances, axes = np.linalg.eigh(rows)
    factors = np.sqrt(variances / np.sum(axes * (S @ axes), axis=0))
    return {
        "full": transport(S, rows),
        "factor": np.sqrt(np.trace(rows) / np.trace(S)) * np.eye(len(S)),
        "widen": axes * np.maximum(factors, 1) @ axes.T,
        "kde": transport(S, kde),
    }


def gains(estimator, train, test):
    """Return the trace without a map, and for each form the trace and the gains of test rows."""
    estimator.fit(train)
    model, resources = estimator.model_, estimator._resources()
    points, weights = model.data.hierarchy.at(0.0)
    mean = weights @ points
    rows = (points - mean).T * weights @ (points - mean)
    kde = rows + model.bandwidth**2 * np.eye(len(mean))
    center, S = model_moments(model, resources, mean, kde)
    queries, residual = model.embedding.split(test)

    def log_density(inverse, log_det):
        moved = center + (queries - mean) @ inverse if inverse is not None else queries
        flow = model._flow_log_density(moved, residual, resources)[0] - log_det
        return model._mixed(model._parts(flow, queries, residual, resources))

    before, results = log_density(None, 0.0), {"trace": np.trace(S) / np.trace(rows)}
    for form, A in maps(S, rows, kde).items():
        gain = log_density(np.linalg.inv(A), np.linalg.slogdet(A)[1]) - before
        results[form] = np.trace(A @ S @ A) / np.trace(rows), gain.round(5).tolist()
    return results


def measured(X, seed):
    """Return the figures of a split: at the default smoothing, and at three bandwidths."""
    train, test = _tables.split(X, seed, MOST_TRAIN)
    test = test[:MOST_TEST]
    chosen = SmoothedScoreDiffusion().fit(train)
    own = {"rows": len(train), "d": X.shape[1], "metric": chosen.metric_}
    own["default"] = gains(chosen, train, test)
    fixed = {key: getattr(chosen, f"{key}_") for key in ("bandwidth", "metric", "background")}
    wide = SmoothedScoreDiffusion(sigma=3 * chosen.bandwidth_, **fixed)
    return own | {"3 bandwidths": gains(wide, train, test)}


def report(results, smoothing):
    """Print a table of the splits of each data set, and what the rule says of each form."""
    print(f"\nGain in nats with its standard error, sigma: {smoothing}\n")
    header("data", "rows", "d", "metric", "trace", *FORMS, "trace, kde")
    figures = {form: [] for form in FORMS}
    for name, splits in results.items():
        for form, of_form in figures.items():
            gain = np.concatenate([one[smoothing][form][1] for one in splits])
            trace = np.mean([one[smoothing][form][0] for one in splits])
            of_form.append((gain.mean(), gain.std(ddof=1) / np.sqrt(len(gain)), trace))
        trace = np.mean([one[smoothing]["trace"] for one in splits])
        cells = [
            f"{mean:+.3f} ± {error:.3f}" for mean, error, _ in (f[-1] for f in figures.values())
        ]
        size = [splits[0][key] for key in ("rows", "d", "metric")]
        row(name, *size, f"{trace:.2f}", *cells, f"{figures['kde'][-1][2]:.2f}")
    for form, of_form in figures.items():
        gain, error, trace = np.array(of_form).T
        worse = (gain < -0.02) & (gain < -2 * error)
        names = ", ".join(np.array(list(results))[worse])
        print(
            f"\n{form}, {FORMS[form]}: of {len(results)} tables better on {np.sum(gain > 0)}, by two "
            f"standard errors on {np.sum(gain > 2 * error)}; worse by .02 nats and two standard errors "
            f"on {worse.sum()} ({names}); trace within .02 of one on "
            f"{np.sum(np.abs(trace - 1) <= 0.02)}; mean gain {gain.mean():+.3f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=",".join(NAMES))
    parser.add_argument("--again", action="store_true", help="do not use the kept results")
    options = parser.parse_args()
    kept = json.loads(CACHE.read_text()) if CACHE.exists() and not options.again else {}
    results = {}
    for name in options.data.split(","):
        X = _tables.load(name)
        for seed in range(3 if len(X) <= 1000 else 1):
            if (key := f"{name} {seed}") not in kept:
                kept[key] = measured(X, seed)
                CACHE.parent.mkdir(parents=True, exist_ok=True)
                CACHE.write_text(json.dumps(kept))
            results.setdefault(name, []).append(kept[key])
    for smoothing in ("default", "3 bandwidths"):
        report(results, smoothing)
