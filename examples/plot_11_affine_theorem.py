"""
On flat data, any smoothing acts along the data only
====================================================

**The claim** (Prop. 3.1 of Farghly et al. 2025): if the data lie in an affine subspace, averaging
the score over x + xi, with xi of mean zero and *any* distribution, equals averaging it over x + P xi,
where P is the projection on the subspace. The components of xi across the subspace have no effect at
all.

It is proved there for expectations. It holds for any finite set of offsets too, as long as *their*
mean is zero. For this reason the library's nodes are mirrored, and it computes in the hull of
the data only.
"""

# %%
# Two hundred random problems
# ---------------------------
# The check is slow on purpose: it averages the score of the noised data in all d columns, from a
# ``KDESampler``, which does not use hulls, over whole offsets and over projected ones.
import matplotlib.pyplot as plt
import numpy as np

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_affine_subspace, make_circle
from skdiffsmooth.kernels import OffsetsKernel


def average_score(X, bandwidth, x, offsets, weights):
    """Return the score averaged over offsets (M, d), or over those of each query, (n, M, d)."""
    moved = x[:, None] + offsets
    score = KDESampler(bandwidth).fit(X).grad_log_density(moved.reshape(-1, X.shape[1]))
    return np.einsum("m,nmd->nd", weights, score.reshape(moved.shape))


def gaussian(rng, n, d):
    return rng.normal(size=(n, d))


def anisotropic(rng, n, d):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


def uniform_ball(rng, n, d):
    direction = rng.normal(size=(n, d))
    length = np.sqrt(d + 2) * rng.uniform(size=(n, 1)) ** (1 / d)
    return length * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def skewed(rng, n, d):
    return rng.exponential(size=(n, d))


kernels = {
    "Gaussian": gaussian,
    "anisotropic": anisotropic,
    "uniform ball": uniform_ball,
    "skewed, weighted": skewed,
}


def problem(seed, draw, mean=0.0):
    """Return how far the two averages differ, and the library's score from the first."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 13))
    k = int(rng.integers(1, d))
    X, shape = make_affine_subspace(
        30, n_components=k, n_features=d, frame_state=seed, random_state=seed, return_shape=True
    )
    weights = rng.dirichlet(np.ones(64)) if draw is skewed else np.full(64, 1 / 64)
    offsets = 0.5 * draw(rng, 64, d)
    offsets -= weights @ offsets
    x = X[rng.integers(0, 30, 40)] + 0.5 * rng.normal(size=(40, d))
    basis = shape.manifold.basis
    whole = average_score(X, 0.3, x, offsets + mean, weights)
    along = average_score(X, 0.3, x, (offsets + mean) @ basis @ basis.T, weights)
    size = np.abs(whole).max()
    library = SmoothedScoreDiffusion(0.3, 1.0, kernel=OffsetsKernel(offsets, weights)).fit(X)
    distance = np.abs(library.grad_log_density(x) - whole).max()
    return np.abs(whole - along).max() / size, distance / size


found = {name: [problem(seed, draw) for seed in range(50)] for name, draw in kernels.items()}
print("largest relative difference of the score over 50 random subspaces, d = 2 to 12")
print("kernel             all directions - along   library - all directions")
for name, differences in found.items():
    along, library = np.max(differences, axis=0)
    print(f"{name:18s} {along:22.1e} {library:26.1e}")

# %%
# What it needs
# -------------
# *Mean zero.* If the offsets have a mean m, its part across the subspace, divided by the noise
# variance, is added to the score; here m is a tenth of the kernel's scale in each column. *Flat data.*
# The second example has points of the unit circle, queries on it, and offsets projected on the tangent
# at each query.
shifted = [problem(seed, gaussian, mean=0.05)[0] for seed in range(50)]
print(f"with a mean of sigma / 10: {min(shifted):.1e} to {max(shifted):.1e}")

half = np.random.default_rng(0).normal(size=(32, 2))
offsets, weights = np.concatenate([half, -half]), np.full(64, 1 / 64)
X, x = make_circle(60, spacing="even"), make_circle(40, random_state=1)
tangent = np.stack([-x[:, 1], x[:, 0]], axis=1)
projected = (tangent @ offsets.T)[:, :, None] * tangent[:, None]
sigmas = np.geomspace(0.003, 0.3, 9)
curved = []
for sigma in sigmas:
    whole = average_score(X, 0.1, x, sigma * offsets, weights)
    along = average_score(X, 0.1, x, sigma * projected, weights)
    curved.append(np.abs(whole - along).max() / np.abs(whole).max())
slope = np.polyfit(np.log(sigmas[:4]), np.log(curved[:4]), 1)[0]
print(f"circle: {curved[0]:.1e} to {curved[-1]:.1e}, at first like sigma^{slope:.1f}")

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
cases = {name: np.array(values)[:, 0] for name, values in found.items()} | {
    "mean not zero": shifted
}
for position, differences in enumerate(cases.values()):
    # Differences of exactly zero are drawn at the bottom.
    axes[0].semilogy(np.full(50, position), np.maximum(differences, 1e-17), "_", markersize=12)
axes[0].set_xticks(range(len(cases)), [name.replace(" ", "\n") for name in cases])
axes[0].set(ylabel="relative difference", title="flat data, 50 subspaces each")
axes[1].loglog(sigmas, curved, "o-")
axes[1].set(xlabel="sigma / reach", title="a circle")

# %%
# What it does not say
# --------------------
# It says nothing about data that are nearly flat: any thickness makes the hull the whole space. For
# these there are the theorems for curved manifolds, which are bounds and not equalities
# (:ref:`sphx_glr_gallery_plot_07_divergence_grows_with_curvature.py`).
