"""
Images of a bump in a square
============================

**The claim** (Fig. 15 of Farghly et al. 2025): what holds for a curve of images holds for a
surface of them: kernels adapted to it make new images at a small distance, isotropic ones at a larger
one.

The bump of :ref:`sphx_glr_gallery_plot_08_bump_images.py` with its center anywhere in a square:
116 training images of 64 x 64 pixels, on a triangular lattice of centers. They are half as far
from one another as those sixteen, so every kind of smoothing is better here.
"""

# %%
# The same three ways
# -------------------
# Noise of the bandwidth has the norm bandwidth * sqrt(4096) = 0.06. Each sample of the adapted
# kernel takes thousands of projections on the surface, so few are drawn.
import warnings

import matplotlib.pyplot as plt
import numpy as np
from measures import anisotropy

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_bump_images
from skdiffsmooth.metrics import distance_to_data, distance_to_manifold

# The largest scale is near the surface's reach, 6.4: log-densities would be inaccurate, samples are
# not.
warnings.filterwarnings("ignore", message="sigma=.* is large")

X, shape = make_bump_images(116, centers="square", spacing="even", return_shape=True)
sheet, bandwidth = shape.manifold, 0.001
scales = {
    "KDE": [0.006, 0.014, 0.021, 0.028, 0.035],
    "isotropic": [0.6, 1.0, 1.4, 1.8, 2.2],
    "adapted": [1.0, 1.6, 5.0],
}
ways = {
    "KDE": KDESampler,
    "isotropic": lambda sigma: SmoothedScoreDiffusion(bandwidth, sigma, n_nodes=64, n_steps=80),
    "adapted": lambda sigma: ManifoldAdaptedDiffusion(
        bandwidth, sigma, manifold=sheet, n_nodes=16, n_steps=80
    ),
}
draws = {
    name: [way(scale).fit(X).sample(40, random_state=0) for scale in scales[name]]
    for name, way in ways.items()
}

# %%
# Distances and positions
# -----------------------
# The distance from the data of images that are distributed evenly over the surface is known. Samples
# should be as far from the data, and no farther. On the right, centers of the nearest bumps.
even = distance_to_data(shape.sample(2000, random_state=0), X).mean()
print(f"even images of the surface: {even:.2f} from the data")

shown = {}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.5), layout="constrained")
axes[0].axvline(even, color="0.7", label="even on the surface")
axes[0].set(xlabel="mean distance from the data", ylabel="mean distance from the surface")
print("mean distance from the data, from the surface, and anisotropy, from scale to scale")
for ax, (name, drawn) in zip(axes[1:], draws.items(), strict=True):
    new = np.array([distance_to_data(images, X).mean() for images in drawn])
    off = np.array([distance_to_manifold(images, sheet).mean() for images in drawn])
    bent = [anisotropy(x.reshape(-1, 64, 64), background=0.15).mean() for x in drawn]
    axes[0].plot(new, off, "o-", label=name)
    # The scale at which samples are nearest to being as new as they should be.
    best = int(abs(new - even).argmin())
    shown[name] = drawn[best][:3]
    ax.plot(*sheet.centers(X).T, ".", color="0.7")
    ax.plot(*sheet.centers(drawn[best]).T, "o", markersize=4)
    ax.set(title=f"{name}, scale {scales[name][best]}", aspect="equal")
    cells = "   ".join(f"{a:.2f} {b:.2f} {c:.2f}" for a, b, c in zip(new, off, bent, strict=True))
    print(f"{name:10s}{cells}")
    print(f"{np.interp(1.2, new, off):10.2f} from the surface where samples are 1.2 from the data")
    if name == "isotropic":
        floor = np.sqrt(4096 / 50_000) * np.array(scales[name])
        noisy = np.interp(1.2, np.hypot(new, floor), np.hypot(off, floor))
        print(f"{noisy:10.2f} there, with the noise of 50 000 fresh draws")
axes[0].legend()

fig, axes = plt.subplots(1, 9, figsize=(11, 1.6), layout="constrained")
titles = [name for name, images in shown.items() for _ in images]
for ax, name, image in zip(axes, titles, np.concatenate(list(shown.values())), strict=True):
    ax.imshow(image.reshape(64, 64), cmap="gray", vmin=0, vmax=1)
    ax.set(title=name, xticks=[], yticks=[])

# %%
# The kernel density estimate stays on the lattice and adds noise to all pixels. Isotropic
# smoothing fills the square: with neighbours on all sides it averages bumps that overlap, whose
# mean is nearly round. Samples of the adapted kernel are several times nearer to the surface still, and
# stay on it where no image of it is farther from the data. But the kernel is given the surface, and one
# of its nodes takes as long as some twenty of the isotropic kernel.
#
# Distances are means over 40 samples, good to some per cent. What fresh Monte Carlo draws would
# do to the isotropic kernel comes from the formula of the page on the curve, with as many draws
# as there.
