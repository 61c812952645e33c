"""
The kernel chooses the manifold
===============================

**The claim** (Fig. 3 of Farghly et al. 2025): one data set lies on many manifolds. Which one a
diffusion completes is decided by the kernel that smooths its score, not by the data alone.

Sixteen points where a circle with eight waves crosses the circle without them, smoothed along the
waves, along the plain circle, along spokes through the points, along learned tangents, and with an
isotropic kernel.
"""

# %%
# Six models of one scale
# -----------------------
# The scale is beyond the reach of the waves (about 0.1), where log-densities along them may be off, as
# the warning would say. This page uses samples only. The spokes are a set of points: any
# shape that can be drawn can be used.
import warnings

import matplotlib.pyplot as plt
import numpy as np

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle, wavy_circle
from skdiffsmooth.manifolds import Circle, PointCloud
from skdiffsmooth.metrics import distance_to_data, distance_to_manifold

warnings.filterwarnings("ignore", message="sigma=.* is large")

bandwidth, sigma = 0.02, 0.2
X = make_circle(16, spacing="even")
shape = wavy_circle()
waves, circle = shape.manifold, Circle([0.0, 0.0], 1.0)
length = np.linspace(0.7, 1.3, 121)[:, None, None]
spokes = PointCloud((length * X / np.linalg.norm(X, axis=1, keepdims=True)).reshape(-1, 2))

models = {
    "KDE of the same scale": KDESampler(np.hypot(bandwidth, sigma)),
    "isotropic": SmoothedScoreDiffusion(bandwidth, sigma),
    "learned tangents": ManifoldAdaptedDiffusion(bandwidth, sigma, n_components=1),
    "along the waves": ManifoldAdaptedDiffusion(bandwidth, sigma, manifold=waves),
    "along the circle": ManifoldAdaptedDiffusion(bandwidth, sigma, manifold=circle),
    "along spokes": ManifoldAdaptedDiffusion(bandwidth, sigma, manifold=spokes),
}
draws = {name: model.fit(X).sample(600, random_state=0) for name, model in models.items()}

line = shape.sample(1000, spacing="even")
fig, axes = plt.subplots(2, 3, figsize=(9, 6.4), sharex=True, sharey=True, layout="constrained")
for ax, (name, drawn) in zip(axes.flat, draws.items(), strict=True):
    ax.plot(*line.T, ",", color="0.6")
    ax.plot(*drawn.T, ".", markersize=2)
    ax.plot(*X.T, "k.", markersize=4)
    ax.set(title=name, aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))

# %%
# Samples lie along the manifold of their kernel
# ----------------------------------------------
# Mean distances of samples from each manifold, and from the nearest training point.
manifolds = {"waves": waves, "circle": circle, "spokes": spokes}
print(f"{'':22s}" + "".join(f"{name:>9s}" for name in manifolds) + f"{'data':>9s}")
for name, drawn in draws.items():
    distances = [distance_to_manifold(drawn, manifold).mean() for manifold in manifolds.values()]
    distances.append(distance_to_data(drawn, X).mean())
    print(f"{name:22s}" + "".join(f"{distance:9.3f}" for distance in distances))

# %%
# What is not shown
# -----------------
# The data lie on all three manifolds and favour none. Which one an isotropic kernel completes depends
# on its scale (:ref:`sphx_glr_gallery_plot_05_scale_chooses_geometry.py`). Tangents learned from
# sixteen points are those of the circle, since there are no points between them.
