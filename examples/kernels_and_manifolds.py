"""Draw samples of five models of the same sixty points of a wavy circle.

    python examples/kernels_and_manifolds.py kernels.png

Each panel states the mean distance of its samples from the curve that the points lie on.
"""

import sys
import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_wavy_circle
from skdiffsmooth.manifolds import Circle

BANDWIDTH, SIGMA = 0.02, 0.2

# The scale is above the curve's reach, where log-densities may be off. Only samples are drawn here.
warnings.filterwarnings("ignore", message="sigma=.* is large")


def main(path):
    """Fit the five models, draw samples, and save the figure at `path`."""
    X, shape = make_wavy_circle(60, distribution="parameter", random_state=0, return_shape=True)
    curve = shape.manifold
    models = {
        "KDE of the same scale": KDESampler(np.hypot(BANDWIDTH, SIGMA)),
        "isotropic": SmoothedScoreDiffusion(BANDWIDTH, SIGMA),
        "learned tangents": ManifoldAdaptedDiffusion(BANDWIDTH, SIGMA, n_components=1),
        "along the curve": ManifoldAdaptedDiffusion(BANDWIDTH, SIGMA, manifold=curve),
        "along the circle": ManifoldAdaptedDiffusion(
            BANDWIDTH, SIGMA, manifold=Circle([0.0, 0.0], 1.0)
        ),
    }
    line = curve.points(np.linspace(*curve.range, 400))
    figure, axes = plt.subplots(
        1, len(models), figsize=(3 * len(models), 3.8), layout="constrained"
    )
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        samples = model.fit(X).sample(600, random_state=0)
        distance = curve.distance(samples).mean()
        ax.plot(*line.T, color="0.8", linewidth=1, zorder=0)
        ax.scatter(*samples.T, s=2, color="C0", alpha=0.5)
        ax.scatter(*X.T, s=8, color="black")
        ax.set_title(f"{name}\n{distance:.3f} from the curve", fontsize=9)
        ax.set_aspect("equal")
        ax.set_xlim(-1.5, 1.5)
        ax.set_ylim(-1.5, 1.5)
        ax.axis("off")
        print(f"{name}: mean distance from the curve {distance:.4f}")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "kernels.png")
