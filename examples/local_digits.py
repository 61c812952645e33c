"""The picture of docs/guide/local.md: drawn digits beside real ones.

python examples/local_digits.py docs/images/local_digits.png    # in a minute
"""

import sys

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits

from skdiffsmooth import KDESampler, LocalScoreDiffusion, SmoothedScoreDiffusion

mpl.use("Agg")  # writes files, needs no display
import matplotlib.pyplot as plt

N_COLUMNS = 12


def main(path):
    images = load_digits().data[:660]
    images = (images + np.random.RandomState(0).uniform(size=images.shape)) / 16
    models = {
        "kernel density": KDESampler(),
        "smoothed": SmoothedScoreDiffusion(),
        "local": LocalScoreDiffusion(image_shape=(8, 8)),
    }
    rows = {"real": images[:N_COLUMNS]}
    for name, model in models.items():
        rows[name] = model.fit(images).sample(N_COLUMNS, random_state=0)
    rows["nearest to local"] = nearest(rows["local"], images)
    fig, axes = plt.subplots(len(rows), 1, figsize=(6, 3.1), layout="constrained")
    for ax, (name, drawn) in zip(axes, rows.items(), strict=True):
        framed = np.pad(drawn.reshape(-1, 8, 8), ((0, 0), (0, 0), (0, 1)), constant_values=0)
        ax.imshow(np.hstack(framed), cmap="gray_r", vmin=0, vmax=1.06)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    fig.savefig(path, dpi=90)


def nearest(drawn, images):
    """Return the image at the least Euclidean distance from each drawn one."""
    squares = ((drawn[:, None] - images) ** 2).sum(axis=2)
    return images[squares.argmin(axis=1)]


if __name__ == "__main__":
    main(sys.argv[1])
