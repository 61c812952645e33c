"""
The scale chooses the geometry
==============================

**The claim** (Fig. 5 of Farghly et al. 2025): the same data, smoothed at growing scales, are
completed by simpler and simpler sets: the waves, then the circle without them, then their mean.

Thirty points of a circle with eight waves. 64 nodes of the kernel suffice for draws: with 512, which
log-densities need where sigma is many bandwidths, the distances below change by 1 %.
"""

# %%
# Three scales
# ------------
import matplotlib.pyplot as plt
import numpy as np
from measures import shrinkage

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_wavy_circle
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.metrics import distance_to_manifold

X, shape = make_wavy_circle(30, spacing="even", return_shape=True)
wavy, circle = shape.manifold, Circle([0.0, 0.0], 1.0)
sigmas = [0.1, 0.25, 1.0]
curve = shape.sample(1000, spacing="even")
angle = np.linspace(0, 2 * np.pi, 400)

fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), sharex=True, sharey=True, layout="constrained")
for ax, sigma in zip(axes, sigmas, strict=True):
    drawn = SmoothedScoreDiffusion(0.02, sigma, n_nodes=64).fit(X).sample(1000, random_state=0)
    ax.plot(np.cos(angle), np.sin(angle), color="C1", linewidth=0.8)
    ax.plot(*curve.T, ",", color="0.6")
    ax.plot(*drawn.T, ".", markersize=2)
    ax.plot(*X.T, "k.", markersize=5)
    ax.set(title=f"sigma = {sigma}", aspect="equal")

# %%
# Which set are samples closest to?
# ---------------------------------
# The mean distance of samples from the waves and from the circle, over all scales, and the total
# variance of the samples as a fraction of the data's.
scales = np.geomspace(0.05, 1.2, 14)
found = []
for sigma in scales:
    drawn = SmoothedScoreDiffusion(0.02, sigma, n_nodes=64).fit(X).sample(1000, random_state=0)
    distances = [distance_to_manifold(drawn, manifold).mean() for manifold in (wavy, circle)]
    found.append([*distances, shrinkage(drawn, X)])
from_waves, from_circle, variance = np.transpose(found)

fig, ax = plt.subplots(figsize=(5.8, 3.8), layout="constrained")
ax.loglog(scales, from_waves, "o-", label="mean distance from the waves")
ax.loglog(scales, from_circle, "o-", label="mean distance from the circle")
ax.loglog(scales, variance, "k:", label="variance of samples / variance of data")
ax.set(xlabel="smoothing scale sigma")
ax.legend()
crossing = scales[np.argmax(from_circle < from_waves)]
print(f"closer to the circle than to the waves from sigma = {crossing:.2f} on")
print(f"half of the variance is lost at sigma = {scales[np.argmax(variance < 0.5)]:.2f}")

# %%
# The waves have a reach of about 0.1, the circle of 1: samples leave each when sigma is no longer
# small against its reach. No scale is right for both; use a kernel along a known manifold then:
# :ref:`sphx_glr_gallery_plot_03_kernel_chooses_manifold.py`.
