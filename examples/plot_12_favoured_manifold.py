"""
Which manifold does a kernel favour?
====================================

**The claim** (Thm 4.1 of Farghly et al. 2025): how far the log-smoothed density is from the one
that is smoothed along the level sets of a manifold M, whether or not the data lie on M, is
bounded by a curvature term and an interpolation error. The manifold of the least bound is the favoured
one: more smoothing is said to shift the preference from manifolds that fit the data to manifolds of
less curvature.

Thirty points of a circle with eight waves, and two candidates: the waves, on which they lie, and
the circle without them. The page computes the quantities of the theorem, the divergence that they
bound, and where samples go.
"""

# %%
# The two terms of the bound
# --------------------------
# What is known of M: its dimension d, its reach tau, and Delta, the largest distance of a data
# point from it. What is known of the kernel: K, how much it changes distances to M (here the root
# mean square, the largest over M; for a Gaussian about sigma). The theorem leaves out constants
# and logarithms. As we read its proof, each of its two terms has the factor K: curvature K d /
# tau, and interpolation error K Delta / eps, eps = bandwidth^2. Those are computed; any constants
# in front of them are not known.
import matplotlib.pyplot as plt
import numpy as np
from grids import regular_grid, renyi_divergence
from scipy.special import logsumexp
from scipy.stats import qmc

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import circle, make_wavy_circle
from skdiffsmooth.kernels import OffsetsKernel
from skdiffsmooth.manifolds import smooth_along_level_sets
from skdiffsmooth.metrics import distance_to_manifold

X, wavy = make_wavy_circle(30, spacing="even", return_shape=True)
shapes = {"waves": wavy, "circle": circle()}
half = qmc.MultivariateNormalQMC([0, 0], rng=np.random.default_rng(0)).random(32)
offsets = np.concatenate([half, -half])
bandwidth, sigmas = 0.05, np.geomspace(0.03, 0.5, 8)
grid = regular_grid([-1.35, -1.35], [1.35, 1.35], 108)


print("manifold   1 / tau   Delta / eps   K at sigma = " + ", ".join(f"{s:.2g}" for s in sigmas))
terms, facts = {}, {}
for name, shape in shapes.items():
    on_it = shape.sample(200, spacing="even")[:, None]
    moved = [(on_it + sigma * offsets).reshape(-1, 2) for sigma in sigmas]
    squares = [shape.manifold.distance(rows).reshape(200, -1) ** 2 for rows in moved]
    K = np.sqrt([square.mean(axis=1).max() for square in squares])
    delta, reach = shape.manifold.distance(X).max(), shape.manifold.reach
    terms[name], facts[name] = (K / reach, K * delta / bandwidth**2), (delta, reach)
    values = " ".join(f"{value:.3f}" for value in K)
    print(f"{name:9s} {1 / reach:8.2f} {delta / bandwidth**2:13.2f}   {values}")
# The bounds are equal where Delta / eps makes up for the difference of the curvatures.
equal = np.sqrt(facts["circle"][0] / (1 / facts["waves"][1] - 1 / facts["circle"][1]))
print(f"by the bound the circle is favoured from bandwidth {equal:.2f} on, at every sigma")


# %%
# K is the same for both up to 3 %, so the bounds cross in the bandwidth and not in sigma: below
# 0.12 the waves are favoured whatever the smoothing.
#
# The divergence that is bounded
# ------------------------------
# Divergences (order 1: nats) on a grid; *plain* and *corrected* level sets as in
# :ref:`sphx_glr_gallery_plot_07_divergence_grows_with_curvature.py`.
def normalised(log_density):
    return log_density - logsumexp(log_density) - np.log(grid.volume)


def both_divergences(manifold, sigma, smoothed):
    """Return the divergence from the density along plain and along corrected level sets."""
    moved = (grid.points[:, None] + sigma * offsets).reshape(-1, 2)
    mean_square = np.mean(manifold.distance(moved).reshape(-1, len(offsets)) ** 2, axis=1)
    divergences = []
    for levels in (None, np.sqrt(mean_square - mean_square.min())):
        adapted = smooth_along_level_sets(
            kde.score_samples, manifold, grid.points, sigma * offsets, distances=levels
        )
        found = renyi_divergence(smoothed, normalised(adapted), 1, volume=grid.volume)
        divergences.append(found.value)
    return divergences


kde = KDESampler(bandwidth).fit(X)
divergences = {name: [] for name in shapes}
for sigma in sigmas:
    model = SmoothedScoreDiffusion(bandwidth, sigma, kernel=OffsetsKernel(offsets), n_levels=1)
    smoothed = normalised(-model.fit(X).energy(grid.points))
    for name, shape in shapes.items():
        divergences[name].append(both_divergences(shape.manifold, sigma, smoothed))
found = {
    (name, level): np.array(divergences[name])[:, k]
    for name in shapes
    for k, level in enumerate(("plain", "corrected"))
}


def crossing(of_waves, of_circle):
    """Return the first scale at which the circle is the nearer one."""
    nearer = np.asarray(of_circle) < np.asarray(of_waves)
    return f"first at sigma = {sigmas[np.argmax(nearer)]:.2f}" if nearer.any() else "at no sigma"


for level in ("plain", "corrected"):
    pair = [found[name, level] for name in shapes]
    print(f"divergence, {level} level sets: the circle is nearer {crossing(*pair)}")

# %%
# Where samples go
# ----------------
# Mean distances of samples from each candidate, at three bandwidths on either side of the bound's
# crossing.
fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for noise, style in ((0.02, "-"), (bandwidth, "--"), (0.15, ":")):
    draws = [SmoothedScoreDiffusion(noise, s).fit(X).sample(1000, random_state=0) for s in sigmas]
    pair = [
        [distance_to_manifold(drawn, shape.manifold).mean() for drawn in draws]
        for shape in shapes.values()
    ]
    print(f"samples, bandwidth {noise}: nearer to the circle {crossing(*pair)}")
    for k, (name, values) in enumerate(zip(shapes, pair, strict=True)):
        axes[2].loglog(sigmas, values, style, color=f"C{k}", label=f"{name}, bandwidth {noise}")
for k, name in enumerate(shapes):
    axes[0].loglog(sigmas, terms[name][0], "-", color=f"C{k}", label=f"{name}: curvature")
    for level, style in (("plain", "x:"), ("corrected", "o-")):
        axes[1].loglog(sigmas, found[name, level], style, color=f"C{k}", label=f"{name}, {level}")
axes[0].loglog(sigmas, terms["circle"][1], ":", color="C1", label="circle: interpolation error")
for ax, title in zip(
    axes, ("terms of the bound", "divergence", "distance of samples"), strict=True
):
    ax.set(xlabel="sigma", title=title)
    ax.set_xticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
    ax.minorticks_off()
    ax.legend(fontsize=7)
axes[2].set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])

# %%
# What this says about the claim
# ------------------------------
# Samples do change from the waves to the circle as sigma grows, before they collapse; so does the
# divergence from the density along *plain* level sets, at a smaller scale. The bound, as read
# here, does not: which manifold it favours depends on the bandwidth only, and where that is the circle,
# at 0.15, samples are never nearer to it. Along *corrected* level sets the waves describe the density
# better at all scales. None of this contradicts the theorem, which requires that the sum of Delta and
# the largest change of a distance be below tau / 96: that is 0.0104 for the circle, whose Delta is
# 0.13. The theorem describes the mechanism; it does not predict the scale at which samples change.
