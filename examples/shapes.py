"""Draw rows of the shapes of skdiffsmooth.datasets, colored by their density.

    python examples/shapes.py shapes.png

Each panel states the dimension and the reach of the manifold.
"""

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from skdiffsmooth import datasets

SHAPES = {
    "circle, von Mises": (datasets.make_circle, {"distribution": "von-mises"}),
    "ellipse, in the parameter": (datasets.make_ellipse, {"distribution": "parameter"}),
    "wavy circle": (datasets.make_wavy_circle, {}),
    "lima bean": (datasets.make_lima_bean, {}),
    "rough circle, smoothness 2": (datasets.make_rough_circle, {}),
    "sphere, discontinuous": (datasets.make_sphere, {"distribution": "discontinuous"}),
    "torus, discontinuous": (datasets.make_torus, {"distribution": "discontinuous"}),
    "swiss roll": (datasets.make_swiss_roll, {"distribution": "parameter"}),
}


def main(path):
    """Draw one panel for each shape, and save the figure at `path`."""
    figure = plt.figure(figsize=(15, 6.4), layout="constrained")
    for number, (name, (make, given)) in enumerate(SHAPES.items(), 1):
        is_curve = number <= 5
        X, shape = make(120 if is_curve else 1500, random_state=0, return_shape=True, **given)
        ax = figure.add_subplot(2, 5, number, projection=None if is_curve else "3d")
        ax.scatter(*X.T, s=8 if is_curve else 3, c=np.exp(shape.log_density(X)), cmap="viridis")
        finish(ax, name, shape)
    for number, centers in enumerate(("circle", "square"), 9):
        n = 16 if centers == "circle" else 116
        X, shape = datasets.make_bump_images(n, centers=centers, return_shape=True)
        ax = figure.add_subplot(2, 5, number)
        # One image, and the centers of the bumps of all: the centers of mass of their brightness.
        ax.imshow(X[3].reshape(64, 64), extent=[-1, 1, -1, 1], origin="lower", cmap="Greys")
        weight = (X / X.sum(axis=1, keepdims=True)).reshape(n, 64, 64)
        axis = np.linspace(-1, 1, 64)
        ax.scatter(weight.sum(1) @ axis, weight.sum(2) @ axis, s=8, color="C0")
        finish(ax, f"bump images, {centers}", shape)
    figure.savefig(path, dpi=70)


def finish(ax, name, shape):
    """Write the title, hide the axes."""
    reach = shape.manifold.reach
    ax.set_title(f"{name}\ndimension {shape.n_components}, reach {reach:.3g}", fontsize=10)
    ax.set_aspect("equal")
    ax.axis("off")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "shapes.png")
