"""
How much smoothing generalises best
===================================

**The claim** (Fig. 4 of Farghly et al. 2025): the likelihood of new points on a manifold, as a
function of the smoothing scale, is a curve with an interior best value. Too little smoothing
memorises, too much collapses the manifold; in between a smoothed score is far better than a
kernel density estimate at its own best bandwidth.

Twelve evenly spaced points of the unit circle, and the negative log-likelihood of a thousand
others. The page compares the published values, those of the published procedure run again, and those of
the library. The density of the circle itself, in place of twelve of its points, gives a lower bound.
"""

# %%
# Two models of the same twelve points
# ------------------------------------
# The bandwidth is the noise that is left at the end, here v = 0.001. The publication follows the
# flow from there to v = 5 in 100 Euler steps in v, on a geometric grid, where it ends in N(0, 5 I). At
# the left end of each step the score is averaged over 200 fresh Monte Carlo draws, and its divergence
# over 1000 others. The library fixes quasi-random nodes at each noise level, starts from the noised
# data and takes Heun steps: a density that is normalised, and the same at every call.
import math

import matplotlib.pyplot as plt
import numpy as np
from reference import FIG_4, TRUE_CIRCLE, published_log_density
from scipy.special import ive

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle

X = make_circle(12, spacing="even")
queries = make_circle(1000, spacing="even")
bandwidth, terminal_scale = math.sqrt(1e-3), math.sqrt(5)
sigmas = np.arange(0.05, 0.36, 0.025)

library = SmoothedScoreDiffusion(bandwidth, 0.1, terminal_scale=terminal_scale)
settings = {
    "the library's defaults": library,
    "converged (128 nodes, 64 levels)": SmoothedScoreDiffusion(
        bandwidth, 0.1, n_nodes=128, n_levels=64, n_steps=128, terminal_scale=terminal_scale
    ),
}
curves = {
    name: [-model.set_params(sigma=sigma).fit(X).score(queries) for sigma in sigmas]
    for name, model in settings.items()
}
# A hundred evenly spaced rows have the same mean as the thousand, in a tenth of the time.
curves["the published procedure"] = [
    -published_log_density(X, queries[::10], sigma).mean() for sigma in sigmas
]
bandwidths = np.geomspace(0.03, 1, 40)
kde = [-KDESampler(h).fit(X).score(queries) for h in bandwidths]

# %%
# The floor
# ---------
# No model with this noise is expected to give points of the circle a higher likelihood than the whole
# circle plus this noise, whose density at distance one from the centre is a Bessel function. The
# notebook of the publication prints another value, from 1000 Euler steps, and the 100 steps of its
# figure give a third: this is how much Euler steps in v add to a log-density near v = 0.001.
v = bandwidth**2
floor = math.log(2 * math.pi * v) - math.log(ive(0, 1 / v))
whole = make_circle(2000, spacing="even")
# Nothing is smoothed, so one draw is enough.
plain = {"sigma": 0.0, "n_score_draws": 1, "n_divergence_draws": 1}
print(f"the circle itself: {floor:.4f} exactly, {TRUE_CIRCLE} as published")
for n_steps in (100, 1000):
    value = -published_log_density(whole, queries[:1], n_steps=n_steps, **plain)[0]
    print(f"the circle itself, {n_steps} Euler steps: {value:.4f}")

# %%
# The curve
# ---------
fig, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
for (name, curve), style in zip(curves.items(), ("-", ":", "--"), strict=True):
    ax.plot(sigmas, curve, style, label=name)
ax.plot(*zip(*FIG_4.items(), strict=True), "ko", markersize=4, label="as published (Fig. 4)")
ax.axhline(min(kde), color="0.5", label=f"best KDE (bandwidth {bandwidths[np.argmin(kde)]:.2f})")
ax.axhline(floor, color="C4", linewidth=1, label=f"the circle itself, exactly: {floor:.3f}")
ax.axhline(TRUE_CIRCLE, color="C4", linestyle="--", label=f"as published: {TRUE_CIRCLE}")
ax.set_xlabel("smoothing scale sigma")
ax.set_ylabel("negative log-likelihood of new points (nats)")
ax.legend(fontsize=8)

for name, curve in curves.items():
    best = int(np.argmin(curve))
    gain = min(kde) - curve[best]
    print(f"{name}: {curve[best]:.3f} at sigma {sigmas[best]:.3f}, {gain:.2f} below the KDE")
print("sigma, as published, the published procedure, converged")
for sigma, published in FIG_4.items():
    k = int(np.argmin(abs(sigmas - sigma)))
    again, converged = curves["the published procedure"][k], curves[list(settings)[1]][k]
    print(f"{sigma:.2f} {published:6.2f} {again:7.3f} {converged:7.3f}")

# %%
# The published values are means over a thousand random points, these over evenly spaced ones: at sigma
# 0.05, where the density varies most, a mean over random points has a standard error of 0.08.
# `benchmarks/published.py --full` takes the points of the notebook.
#
# Is the density normalised?
# --------------------------
# Likelihoods can be compared only if the densities are normalised. On a grid the integral of the
# library's density is one, up to the solver's error. That of the published one is more than
# one, since 100 Euler steps in v are coarse: its lead over the converged curve is less than the
# logarithm of that mass, and no sign of a better model. (Its integral is taken in polar coordinates,
# over a twelfth of the plane, at the best scale.)
side = np.linspace(-2, 2, 201)
grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
density = np.exp(library.set_params(sigma=0.15).fit(X).score_samples(grid))
print(f"mass of the library's defaults: {density.sum() * (side[1] - side[0]) ** 2:.4f}")

radius, angle = np.meshgrid(np.linspace(0.01, 2, 200), np.arange(4) * math.pi / 24, indexing="ij")
rows = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(-1, 2)
density = np.exp(published_log_density(X, rows, 0.175)).reshape(radius.shape)
mass = 0.01 * np.sum(2 * math.pi * radius * density) / angle.shape[1]
print(f"mass of the published procedure: {mass:.2f}, whose logarithm is {math.log(mass):.2f}")
