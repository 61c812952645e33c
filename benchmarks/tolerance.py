"""S1, S2: what `tol` reaches and costs, and the steps of `solver="auto"` beside those of Heun's method.

Fixed scales in scaled columns (bandwidth 0.85 h), no background, CPU seconds on one thread. Far rows are
held-out ones, moved by three standard deviations in each column. Divergences follow from log-densities
(Stein's identity) in the tables of three columns or more, and from traces in the others. To compare
times with those of another commit, run the script with PYTHONPATH set to a checkout of it.
"""

import time
import warnings
from unittest import mock

import numpy as np
from _common import full_requested, header, row
from _tables import load, split
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._diffusion import fitting
from skdiffsmooth.solvers import Adaptive

QUICK = ("iris", "wine")
FULL = ("iris", "crabs", "quakes", "glass", "moons", "wine")
TIMED = ("moons", "iris", "quakes", "wine", "body", "breast cancer")
WIDE = ("wine", "meat spectra", "body", "breast cancer", "digits")
# Components of the mixtures that are smoothed.
MIXTURES = {"iris": 4, "quakes": 8, "wine": 8}
SCALES = {"bandwidth": "0.85h", "metric": "scaled", "background": 0.0}


def rows_of(name, most):
    """Return training rows and held-out rows of a table."""
    if name == "moons":
        train, test = (make_moons(n, noise=0.08, random_state=n)[0] for n in (200, 60))
    else:
        train, test = split(load(name), 11, most)
    return train, test[:40]


def cpu_seconds(call):
    """Return the CPU seconds of a call, the least of two, and its value."""
    times = []
    for _ in range(2):
        start = time.process_time()
        value = call()
        times.append(time.process_time() - start)
    return min(times), value


def rms(values):
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def reached(names):
    """Print errors of log-densities for several `tol`, against 2048 nodes and 96 levels and steps."""
    header("data", "N", "d", "tol", "nodes", "error_", "mean", "rms", "rms / tol", "score (CPU s)")
    for name in names:
        train, test = rows_of(name, 150)
        scales = {**SCALES, "sigma": "1.5h"}
        many = {"n_nodes": 2048, "n_levels": 96, "n_steps": 96, "random_state": 7}
        converged = SmoothedScoreDiffusion(**scales, **many).fit(train).score_samples(test)
        for tol in ("auto", 0.1, 0.05, 0.02, 0.01):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = SmoothedScoreDiffusion(**scales, tol=tol).fit(train)
            spent, found = cpu_seconds(lambda m=model, x=test: m.score_samples(x))
            error = rms(found - converged)
            ratio = "" if tol == "auto" else f"{error / tol:.2f}"
            mean = f"{np.mean(found - converged):+.4f}"
            cells = f"{model.error_:.3f}", mean, f"{error:.4f}", ratio, f"{spent:.2f}"
            row(name, *train.shape, tol, model.n_nodes_, *cells)


def many_columns(names):
    """Print errors and times of traces and of frames in more than ten columns.

    Errors are over 60 held-out rows and five seeds, against the mean of four seeds of 768 nodes with
    traces.
    """
    header(
        "data",
        "N",
        "d",
        "by",
        "nodes",
        "steps",
        "mean",
        "sd of mean",
        "rms",
        "40 rows (CPU s)",
        "1000 draws",
    )
    scales = {**SCALES, "sigma": "1.5h"}
    many = {"n_nodes": 768, "n_levels": 48, "n_steps": 48}
    for name in names:
        train, test = split(load(name), 11, 200)
        test, converged = test[:60], None
        for by, most in (("traces", 10), ("frames", fitting._MOST_FRAMES)):
            with mock.patch.object(fitting, "_MOST_FRAMES", most):
                if converged is None:
                    seeds = range(101, 105)
                    models = [
                        SmoothedScoreDiffusion(**scales, **many, random_state=s) for s in seeds
                    ]
                    converged = np.mean([m.fit(train).score_samples(test) for m in models], axis=0)
                models = [
                    SmoothedScoreDiffusion(**scales, random_state=s).fit(train) for s in range(5)
                ]
                errors = np.array([model.score_samples(test) for model in models]) - converged
                scored, _ = cpu_seconds(lambda m=models[0], x=test: m.score_samples(x[:40]))
                drawn, _ = cpu_seconds(lambda m=models[0]: m.sample(1000, random_state=0))
            cells = (
                f"{errors.mean():+.4f}",
                f"{errors.mean(axis=1).std():.4f}",
                f"{rms(errors):.3f}",
            )
            size = models[0].n_nodes_, models[0].model_.n_steps
            row(name, *train.shape, by, *size, *cells, f"{scored:.3f}", f"{drawn:.3f}")


def steps(names):
    """Print errors of the steps alone, and CPU seconds, of log-densities and draws."""
    header("data", "solver", "rows", "CPU (s)", "mean", "rms", "largest")
    for name in names:
        train, test = rows_of(name, 300)
        signs = np.random.RandomState(5).choice([-1, 1], size=test.shape)
        far = test + 3 * train.std(axis=0) * signs
        models = {
            solver: SmoothedScoreDiffusion(**SCALES, sigma="2h", solver=given).fit(train)
            for solver, given in (("auto", "auto"), ("heun", "heun"), ("exact", Adaptive(2e-3)))
        }
        exact = models.pop("exact")
        for solver, model in models.items():
            for rows, X in (("held out", test), ("far", far)):
                spent, found = cpu_seconds(lambda m=model, x=X: m.score_samples(x))
                error = found - exact.score_samples(X)
                cells = f"{np.mean(error):+.4f}", f"{rms(error):.4f}", f"{np.abs(error).max():.3f}"
                row(name, solver, rows, f"{spent:.3f}", *cells)
            spent, found = cpu_seconds(lambda m=model: m.sample(300, random_state=1))
            gap = model.coordinates_.steps_to_metric(found - exact.sample(300, random_state=1))
            lengths = np.linalg.norm(gap, axis=1) / model.bandwidth_
            cells = f"{rms(lengths):.4f}", f"{lengths.max():.3f}"
            row(name, solver, "draws, in bandwidths", f"{spent:.3f}", "", *cells)


def times():
    """Print CPU seconds of 40 log-densities and of draws, over rows and over mixtures."""
    header("data", "N x d", "over", "40 log-densities", "mean (nats)", "draws", "CPU (s)")
    for name in TIMED:
        train, test = rows_of(name, 300)
        size = " x ".join(map(str, train.shape))
        distances, _ = NearestNeighbors(n_neighbors=6).fit(train).kneighbors()
        scale = np.median(distances[:, 4])
        models = {}
        for over, dtype in (("rows", "float64"), ("rows, float32", "float32")):
            model = SmoothedScoreDiffusion(scale / 2, scale, metric="euclidean", dtype=dtype)
            models[over] = model, 1000
        if name in MIXTURES:
            mixture = GaussianMixture(MIXTURES[name], reg_covar=0.01, random_state=0).fit(train)
            models["mixture"] = SmoothedScoreDiffusion(sigma=0.1, base=mixture), 300
        for over, (model, n_draws) in models.items():
            model.fit(train).score_samples(test[:2])
            spent, found = cpu_seconds(lambda m=model, x=test: m.score_samples(x))
            drawn, _ = cpu_seconds(lambda m=model, n=n_draws: m.sample(n, random_state=0))
            row(name, size, over, f"{spent:.3f}", f"{found.mean():.4f}", n_draws, f"{drawn:.3f}")


def run(full=False):
    """Print the tables."""
    print("Errors of log-densities of 40 held-out rows, in nats, over `tol`.\n")
    reached(FULL if full else QUICK[:1])
    print("\nErrors in more than ten columns.\n")
    many_columns(WIDE if full else QUICK[1:])
    print("\nErrors of the steps alone, against Adaptive(2e-3) with the same nodes.\n")
    steps(FULL if full else QUICK)
    print("\nTimes with given scales.\n")
    times()


if __name__ == "__main__":
    run(full_requested())
