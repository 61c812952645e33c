"""Langevin chains: how uniform tempered distributions are, and effective draws a second.

A von Mises distribution on the unit circle plus noise has a score in closed form, so the tempered
distribution of the angle is known by quadrature and nothing is fitted. Run `python
benchmarks/langevin.py` (two minutes).
"""

import math
import warnings

import numpy as np
from _common import describe_machine, header, row, timed
from scipy import special, stats
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning

from skdiffsmooth import KDESampler, LangevinSampler, SmoothedScoreDiffusion

POWERS = (0.0, 0.5, 1.0, 1.5)
MOST_STEPS = 6000
N_CHAINS = 2000


def tilted(x, v):
    """Return w, of whose length the distribution on the circle is a Bessel function, and that length."""
    w = x / v + [1.0, 0.0]
    return w, np.linalg.norm(w, axis=1, keepdims=True)


def score(x, v):
    """Return the score of the noised distribution."""
    w, size = tilted(x, v)
    return (special.i1e(size) / special.i0e(size) * w / size - x) / v


def log_density(x, v):
    """Return its log-density up to a constant."""
    size = tilted(x, v)[1][:, 0]
    return np.log(special.i0e(size)) + size - np.sum(x**2, axis=1) / (2 * v)


def distance_from_uniform(v, power):
    """Return the largest difference of the angle's distribution functions, by quadrature."""
    width = math.sqrt(v ** (1 - power / 2))
    radius = np.linspace(max(0.0, 1 - 8 * width), 1 + 8 * width, 801)
    angle = np.linspace(-math.pi, math.pi, 801)
    r, t = np.meshgrid(radius, angle, indexing="ij")
    x = np.column_stack([(r * np.cos(t)).ravel(), (r * np.sin(t)).ravel()])
    logs = v ** (power / 2) * log_density(x, v).reshape(r.shape)
    density = np.sum(np.exp(logs - logs.max()) * r, axis=0)
    cdf = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return np.abs(cdf / cdf[-1] - (angle + math.pi) / (2 * math.pi)).max()


def tempered():
    """Print how far from uniform, and from the circle, the tempered distribution is."""
    print("\nTempered distribution on the circle\n")
    header("noise scale", "power", "exact", "chains", "off the circle", "relaxation steps")
    for scale in (0.2, 0.1, 0.05, 0.02):
        v = scale**2
        for power in POWERS:
            h = 0.1 * v ** (1 - power / 2)
            found, off, n_steps = "", "", math.ceil(5 / h)
            if n_steps <= MOST_STEPS:
                sampler = LangevinSampler(
                    1, n_warmup=n_steps, n_chains=N_CHAINS, noise_variance=v, temper=power
                )
                start = np.tile([-1.0, 0.0], (N_CHAINS, 1))
                x = sampler.run(lambda x, v=v: score(x, v), start, 0).samples
                found, off = off_uniform_and_circle(x)
            row(
                f"{scale:g}",
                f"{power:g}",
                f"{distance_from_uniform(v, power):.4f}",
                found,
                off,
                f"{1 / h:.0f}",
            )


def sharpened():
    """Print how untempered steps move tempered rows back to the circle, and leave them uniform."""
    print("\nPlain steps after power 1 at noise scale 0.02\n")
    header("steps", "from uniform", "off the circle")
    v = 0.02**2
    start = np.tile([-1.0, 0.0], (N_CHAINS, 1))
    common = {"n_chains": N_CHAINS, "noise_variance": v}
    x = LangevinSampler(1, n_warmup=2500, temper=1.0, **common)
    x = x.run(lambda x: score(x, v), start, 0).samples
    for n_steps in (0, 10, 30, 60):
        moved = x
        if n_steps:
            plain = LangevinSampler(1, n_warmup=n_steps - 1, **common)
            moved = plain.run(lambda x: score(x, v), x, 1).samples
        row(n_steps, *off_uniform_and_circle(moved))


def off_uniform_and_circle(x):
    """Return the statistic of Kolmogorov and Smirnov, and the root mean square distance."""
    angle = np.arctan2(x[:, 1], x[:, 0]) / (2 * math.pi) + 0.5
    distance = np.linalg.norm(x, axis=1) - 1
    statistic = stats.kstest(angle, "uniform").statistic
    return f"{statistic:.3f}", f"{math.sqrt(np.mean(distance**2)):.3f}"


def effective():
    """Print effective draws a second."""
    print(
        "\nEffective draws a second, the least of the columns; 500 rows, 100 chains of 1000 draws\n"
    )
    header("data", "model", "draws", "R-hat", "acceptance", "effective", "seconds", "a second")
    moons = make_moons(500, noise=0.05, random_state=0)[0]
    cloud = np.random.RandomState(0).standard_normal((500, 5))
    for data, X, h in (("two moons", moons, 0.1), ("Gaussian in R^5", cloud, 0.6)):
        for model in (KDESampler(h), SmoothedScoreDiffusion(h, 1.5 * h, n_nodes=64)):
            model.fit(X)
            for kind in ("unadjusted", "adjusted"):
                row(data, type(model).__name__, kind, *chains_of(model, kind == "adjusted"))
            spent, _ = timed(lambda m=model: m.sample(4000, random_state=0), 1)
            a_second = f"{4000 / spent:.0f}"
            row(data, type(model).__name__, "`sample`", "", "", 4000, f"{spent:.2f}", a_second)


def chains_of(model, metropolis):
    """Return a row's cells for chains over a model."""
    sampler = LangevinSampler(n_chains=100, metropolis=metropolis)
    with warnings.catch_warnings():
        # That some have not mixed is what the table says.
        warnings.simplefilter("ignore", ConvergenceWarning)
        spent, chains = timed(lambda: sampler.run(model, random_state=0), 1, warm_up=False)
    rate = "" if chains.acceptance_rate is None else f"{chains.acceptance_rate.mean():.2f}"
    least = chains.ess.min()
    cells = f"{chains.r_hat.max():.2f}", rate, f"{least:.0f}", f"{spent:.1f}"
    return *cells, f"{least / spent:.0f}"


if __name__ == "__main__":
    describe_machine()
    tempered()
    sharpened()
    effective()
