"""Error of the log-likelihood against nodes, levels and steps, and the mass of the default's density.

The first table is for twelve points on the unit circle, bandwidth sqrt(1e-3), sigma 0.15 (the setting of
the paper's Fig. 4): at low noise the posterior mean jumps between points, so that the error of finitely
many nodes is large. The second is for data and bandwidths whose range of noise is wide.
"""

import math
import time

import numpy as np
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture

from skdiffsmooth import CoarseScoreDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.datasets import make_circle

BANDWIDTH, SIGMA = math.sqrt(1e-3), 0.15
POINTS, QUERIES = (make_circle(n, spacing="even") for n in (12, 1000))


def model(n_nodes, n_levels, n_steps, seed=0):
    """Return the estimator, fitted."""
    return SmoothedScoreDiffusion(
        BANDWIDTH,
        SIGMA,
        n_nodes=n_nodes,
        n_levels=n_levels,
        n_steps=n_steps,
        random_state=seed,
    ).fit(POINTS)


def mass(fitted, width=1.8, n=201, center=(0.0, 0.0)):
    """Integrate exp(score_samples) over a square or, if the centre has one column, an interval."""
    axis = np.linspace(-width, width, n)
    grid = np.stack(np.meshgrid(*[axis] * len(center)), axis=-1).reshape(-1, len(center))
    density = np.exp(fitted.score_samples(center + grid))
    return density.sum() * (axis[1] - axis[0]) ** len(center)


def masses():
    """Print the table of masses of the default's density over wide ranges of noise."""
    print("\nMass of the density\n")
    print("| data | bandwidth | sigma | steps | mass - 1 |")
    print("|---|---|---|---|---|")

    def row(name, fitted, *parts):
        total = sum(mass(fitted, *part) for part in parts)
        print(
            f"| {name} | {fitted.bandwidth_:.3g} | {fitted.sigma_:.3g} | {fitted.n_steps_} "
            f"| {total - 1:+.5f} |",
            flush=True,
        )

    near, far = np.random.RandomState(0).normal(size=(2, 30, 1))
    for distance in (1e3, 1e6, 1e9, 1e12):
        rows = np.concatenate([near, distance + far])
        fitted = SmoothedScoreDiffusion(0.3, 0.4).fit(rows)
        row(f"two clusters {distance:.0e} apart", fitted, (6, 241, (0.0,)), (6, 241, (distance,)))
    # Fitted where the squares of distances leave digits for variances, and moved.
    mixture = GaussianMixture(4, random_state=0).fit(np.concatenate([near, 20 + far]))
    mixture.means_[mixture.means_ > 10] += distance - 20
    for name, base in ("windows", ManifoldParzen(5)), ("a mixture", mixture):
        fitted = SmoothedScoreDiffusion(0.3, 0.4, base=base).fit(rows)
        row(f"the last, over {name}", fitted, (6, 241, (0.0,)), (6, 241, (distance,)))
    for bandwidth in (0.01, 0.03, 0.3, 3.0):
        fitted = SmoothedScoreDiffusion(bandwidth, 0.45).fit(near)
        # Features are narrower than the bandwidth: 2.5 points in one leave an error of .002 at 0.01.
        width, n_points = 4 + 6 * bandwidth, 16 if bandwidth == 0.01 else 5
        row("30 normal rows", fitted, (width, int(n_points * width / bandwidth), (0.0,)))
    near, far = np.random.RandomState(0).normal(size=(2, 30, 2))
    fitted = SmoothedScoreDiffusion(0.3, 0.4).fit(np.concatenate([near, far + [1e3, 0.0]]))
    row("two clusters 1e+03 apart, 2-d", fitted, (5, 51, (0.0, 0.0)), (5, 51, (1e3, 0.0)))
    row("twelve points", SmoothedScoreDiffusion(BANDWIDTH, SIGMA).fit(POINTS), (1.4, 201))
    fitted = SmoothedScoreDiffusion(BANDWIDTH, SIGMA).fit(np.vstack([POINTS, [[300.0, 0.0]]]))
    row("and one 300 away", fitted, (1.4, 201), (0.4, 81, (300.0, 0.0)))
    moons, _ = make_moons(60, noise=0.05, random_state=0)
    h = SmoothedScoreDiffusion("loo", 0.0).fit(moons).bandwidth_
    for factor in (1.0, 0.5, 0.25):
        fitted = SmoothedScoreDiffusion(factor * h, 1.5 * h).fit(moons)
        row(f"two moons, {factor:g} h", fitted, (2.0, 301, (0.5, 0.25)))


def coarse():
    """Print the mass of CoarseScoreDiffusion with a bandwidth."""
    print("\nMass of CoarseScoreDiffusion, 80 rows of a noisy circle\n")
    print("| degree | bandwidth | mass |\n|---|---|---|")
    X = make_circle(80, noise=0.05, random_state=0)
    for degree in (0, 1, 2):
        for bandwidth in (0.1, 0.2):
            fitted = CoarseScoreDiffusion(0.3, degree, n_components=1, bandwidth=bandwidth).fit(X)
            print(f"| {degree} | {bandwidth} | {mass(fitted, 2.2, 89):.4f} |", flush=True)


def run(n_seeds=5):
    """Print the table."""
    converged = np.mean([model(1024, 96, 192, seed).score(QUERIES) for seed in range(3)])
    print(
        f"Accuracy: mean log-likelihood of 1000 points on the circle, converged {converged:.4f}\n"
    )
    print("| nodes | levels | steps | error, mean of seeds | sd over seeds | mass - 1 | time (s) |")
    print("|---|---|---|---|---|---|---|")
    settings = [
        (16, 32, 32),
        (64, 1, 32),
        (64, 8, 32),
        (64, 16, 32),
        (64, 32, 32),
        (64, 32, 96),
        (64, 96, 96),
        (256, 32, 32),
        (256, 96, 192),
    ]
    for n_nodes, n_levels, n_steps in settings:
        start = time.perf_counter()
        scores = [model(n_nodes, n_levels, n_steps, seed).score(QUERIES) for seed in range(n_seeds)]
        elapsed = (time.perf_counter() - start) / n_seeds
        excess = mass(model(n_nodes, n_levels, n_steps)) - 1
        print(
            f"| {n_nodes} | {n_levels} | {n_steps} | {np.mean(scores) - converged:+.4f} "
            f"| {np.std(scores):.4f} | {excess:+.4f} | {elapsed:.2f} |"
        )
    masses()
    coarse()


if __name__ == "__main__":
    run()
