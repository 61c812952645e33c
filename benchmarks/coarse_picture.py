"""The picture of docs/guide/coarse.md: samples on a sphere, their distance from it, the rows."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from coarse_rates import SPHERE

from skdiffsmooth import CoarseScoreDiffusion, KDESampler

N_ROWS, N_SAMPLES = 400, 3000
OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "coarse.png"


def run():
    """Draw the picture."""
    X = SPHERE.sample(N_ROWS, 0)
    scale = N_ROWS ** (-1 / 6) / 2
    panels = {
        f"{N_ROWS} rows": X,
        f"KDE, bandwidth {scale:.2f}": KDESampler(scale).fit(X).sample(N_SAMPLES, 0),
        f"inertial, scale {scale:.2f}": CoarseScoreDiffusion(scale, 0, n_components=2)
        .fit(X)
        .sample(N_SAMPLES, 0),
        "coarse, degree 2, scale 0.30": CoarseScoreDiffusion(0.3, n_components=2)
        .fit(X)
        .sample(N_SAMPLES, 0),
    }
    figure, axes = plt.subplots(
        2, 2, figsize=(9, 6.5), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (name, rows) in zip(axes.flat, panels.items(), strict=True):
        off = SPHERE.manifold.distance(rows)
        # Longitude and height: an area-preserving map.
        height = rows[:, 2] / np.linalg.norm(rows, axis=1)
        points = axis.scatter(
            np.degrees(np.arctan2(rows[:, 1], rows[:, 0])),
            height,
            c=np.log10(np.maximum(off, 1e-4)),
            s=3,
            linewidths=0,
            cmap="viridis",
            vmin=-4,
            vmax=-0.5,
        )
        distance = "0" if off.max() < 1e-12 else f"{off.mean():.1g}"
        axis.set_title(f"{name}\nmean distance {distance}", fontsize=10)
        axis.set_xticks([-180, -90, 0, 90, 180])
    figure.supxlabel("longitude (degrees)")
    figure.supylabel("height")
    figure.colorbar(points, ax=axes, label="log10 distance from the sphere", shrink=0.8)
    figure.savefig(OUTPUT, dpi=80)


if __name__ == "__main__":
    run()
