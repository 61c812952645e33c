"""A trained score beside the one in closed form: held-out likelihood, and processor time.

Both with default parameters, on standardised columns. Times are of the process, on one thread: other
work on the machine does not count.
"""

import time
import warnings

import numpy as np
from _common import full_requested, header, row
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, NeuralScoreDiffusion, SmoothedScoreDiffusion


def roll(n, rng):
    """Return rows near a swiss roll in R^10."""
    X = np.zeros((n, 10))
    X[:, :3] = datasets.make_swiss_roll(n, random_state=rng)[0] / 10
    return X + 0.02 * rng.normal(size=X.shape)


def problems(full):
    """Return name, training rows and held-out rows."""
    rng = np.random.RandomState(0)
    sizes = (200, 1000, 5000) if full else (1000,)
    for n in sizes:
        X, _ = datasets.make_moons(n + 1000, noise=0.1, random_state=0)
        yield f"moons, {n} rows", X[:n], X[n:]
    X = rng.permutation(datasets.load_wine().data)
    yield "wine, 124 rows", X[:124], X[124:]
    X = roll(1630, rng)
    yield "swiss roll in R^10, 630 rows", X[:630], X[630:]
    if full:
        X = rng.permutation(datasets.load_digits().data)
        axes = np.linalg.svd(X - X.mean(0), full_matrices=False)[2][:8]
        yield "digits, 8 PCs, 1257 rows", X[:1257] @ axes.T, X[1257:] @ axes.T


def cost(call):
    """Return what a call returns, and its processor time in seconds."""
    start = time.process_time()
    value = call()
    return value, time.process_time() - start


def run(full=False):
    """Print the table."""
    print(
        "Held-out nats a row on standardised columns (+- the standard error of the difference to "
        "`SmoothedScoreDiffusion()`), and seconds of one core for the fit and for 1000 log-densities.\n"
    )
    header("data", "model", "nats", "difference", "fit (s)", "1000 log-densities (s)", "iterations")
    models = {
        "KDE": KDESampler("loo"),
        "smoothed": SmoothedScoreDiffusion(),
        "network": NeuralScoreDiffusion(),
        "network, not stopped": NeuralScoreDiffusion(early_stopping=False, n_iter_no_change=1000),
    }
    for name, training_rows, held_out in problems(full):
        scaler = StandardScaler().fit(training_rows)
        X, Q = scaler.transform(training_rows), scaler.transform(held_out)
        rows = {}
        for kind, model in models.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted, training = cost(lambda model=model, X=X: model.fit(X))
            log_density, scoring = cost(lambda f=fitted, Q=Q: f.score_samples(Q))
            rows[kind] = (
                log_density,
                training,
                scoring * 1000 / len(Q),
                getattr(fitted, "n_iter_", ""),
            )
        reference = rows["smoothed"][0]
        for kind, (log_density, training, scoring, n_iter) in rows.items():
            gap = log_density - reference
            row(
                *(name, kind, f"{log_density.mean():.3f}"),
                f"{gap.mean():+.3f} +- {gap.std() / np.sqrt(len(gap)):.3f}",
                *(f"{training:.1f}", f"{scoring:.2f}", n_iter),
            )


if __name__ == "__main__":
    run(full_requested())
