"""
Polygons, and means of data points: the limits of isotropic smoothing
=====================================================================

**The claim**: smoothing that does not depend on a manifold interpolates *linearly*. Between two
points the flow fills the chord (`Chen 2025 <https://arxiv.org/abs/2502.19499>`_); with a fixed set of M
offsets, samples become means of M data points as the noise vanishes (`Scarvelis et al. 2025
<https://arxiv.org/abs/2310.12395>`_). So samples of a sparse circle form a polygon. Farghly et al.
(2025, Fig. 3) let the kernel follow the manifold instead.

Eight points of the unit circle.
"""

# %%
# Isotropic, with four offsets, and along the circle
# --------------------------------------------------
# By default each of 32 noise levels has 64 offsets of its own. With four offsets for all noise
# levels samples are means of four data points plus noise of the bandwidth, which alone leaves a mean
# distance of 0.005 sqrt(pi / 2) = 0.0063 from a point and 0.0040 from a line.
import itertools

import matplotlib.pyplot as plt
import numpy as np

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.manifolds import PointCloud
from skdiffsmooth.metrics import coverage_at_scale, distance_to_data, distance_to_manifold

X, shape = make_circle(8, spacing="even", return_shape=True)
circle, curve = shape.manifold, shape.sample(1000, spacing="even")
steps = np.linspace(0, 1, 400, endpoint=False)[:, None]
chords = [a + steps * (b - a) for a, b in zip(X, np.roll(X, -1, axis=0), strict=True)]
polygon = PointCloud(np.concatenate(chords), n_components=1)
fours = np.array(list(itertools.combinations_with_replacement(range(8), 4)))
means = PointCloud(X[fours].mean(axis=1))

bandwidth = 0.005
isotropic = SmoothedScoreDiffusion(bandwidth, 0.2)
four_offsets = SmoothedScoreDiffusion(bandwidth, 0.2, n_nodes=4, n_levels=1, n_steps=128)
along = ManifoldAdaptedDiffusion(bandwidth, 0.3, manifold=circle, n_nodes=64)
models = {
    "isotropic, sigma = 0.2": isotropic,
    "four offsets, sigma = 0.2": four_offsets,
    "along the circle, sigma = 0.3": along,
}
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharex=True, sharey=True, layout="constrained")
print("mean distance of samples from           circle   polygon   means of four   data")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    drawn = model.fit(X).sample(1000, random_state=0)
    away = [distance_to_manifold(drawn, manifold).mean() for manifold in (circle, polygon, means)]
    print(
        f"{name:36s} {away[0]:9.4f} {away[1]:9.4f} {away[2]:15.4f} "
        f"{distance_to_data(drawn, X).mean():6.3f}"
    )
    ax.plot(*curve.T, color="0.8", linewidth=1)
    ax.plot(*X[np.arange(9) % 8].T, color="0.8", linewidth=1)
    ax.plot(*drawn.T, ".", markersize=2)
    ax.plot(*X.T, "k.", markersize=5)
    ax.set(title=name, aspect="equal")

# %%
# What no scale can do
# --------------------
# The share of the circle with a sample within 0.05; the middle of a chord is 0.076 from it.
sigmas = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])
found = {"isotropic": [], "along the circle": []}
for sigma in sigmas:
    isotropic.set_params(sigma=sigma)
    along.set_params(sigma=sigma)
    for lines, model in zip(found.values(), (isotropic, along), strict=True):
        drawn = model.fit(X).sample(1000, random_state=0)
        distances = [distance_to_manifold(drawn, shown).mean() for shown in (circle, polygon)]
        lines.append([*distances, coverage_at_scale(drawn, curve, 0.05)])

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for k, (name, lines) in enumerate(found.items()):
    from_circle, from_polygon, covered = np.transpose(lines)
    axes[0].semilogy(sigmas, from_circle, "o-", color=f"C{k}", label=f"{name}: from the circle")
    axes[0].semilogy(sigmas, from_polygon, "o:", color=f"C{k}", label=f"{name}: from the polygon")
    axes[1].plot(sigmas, covered, "o-", label=name)
    best = int(np.argmax(covered))
    print(
        f"{name}: at most {covered[best]:.0%} of the circle covered, at sigma = {sigmas[best]:.2f}, "
        f"with samples {from_circle[best]:.4f} from it"
    )
axes[0].set(xlabel="sigma", ylabel="mean distance of samples")
axes[1].set(xlabel="sigma", ylabel="share of the circle covered")
axes[0].legend(fontsize=7)
axes[1].legend()

# %%
# What is not shown
# -----------------
# The kernel along the circle was given the circle; tangents learned from eight points are no better
# than the chords. With N points the chords are some pi^2 / 2 N^2 from the circle: with a
# few dozen the polygon is as good as the curve
# (:ref:`sphx_glr_gallery_plot_01_isotropic_smoothing.py`).
