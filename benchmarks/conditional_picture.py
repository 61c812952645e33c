"""The picture of docs/evidence/conditional.md: one conditional beside the joint density on a grid."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import trapezoid
from sklearn.datasets import make_moons

from skdiffsmooth import SmoothedScoreDiffusion

GIVEN = 0.25
N_DRAWS = 2000
OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "conditional.png"


def run():
    """Draw the picture."""
    X = make_moons(200, noise=0.05, random_state=0)[0]
    model = SmoothedScoreDiffusion().fit(X)
    first, second = np.linspace(-1.6, 2.6, 85), np.linspace(-1.1, 1.6, 55)
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    joint = np.exp(model.score_samples(grid)).reshape(len(second), -1)
    fine = np.linspace(-1.6, 2.6, 421)
    rows = np.column_stack([fine, np.full_like(fine, GIVEN)])
    along = np.exp(model.score_samples(rows))
    along /= trapezoid(along, fine)
    conditional = np.exp(model.score_samples(rows[::7], given=[1]))
    draws = model.sample(N_DRAWS, random_state=0, given={1: GIVEN})[:, 0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.pcolormesh(first, second, joint, cmap="Blues", shading="gouraud", rasterized=True)
    left.plot(*X.T, ".", color="black", markersize=2)
    left.axhline(GIVEN, color="tab:red")
    left.set(xlabel="column 0", ylabel="column 1", title=f"joint density; column 1 given, {GIVEN}")
    right.hist(
        draws, 84, range=(-1.6, 2.6), density=True, color="lightgray", label=f"{N_DRAWS} draws"
    )
    right.plot(fine, along, color="tab:blue", label="joint density on the grid, normalised")
    right.plot(rows[::7, 0], conditional, ".", color="tab:red", label="score_samples(given=[1])")
    right.set(xlabel="column 0", title=f"density of column 0 given column 1 = {GIVEN}")
    right.set_ylim(0, 1.5 * along.max())
    right.legend()
    figure.savefig(OUTPUT, dpi=80)
    error = np.abs(conditional / along[::7] - 1)[along[::7] > 1e-3].max()
    print(f"largest relative error of the conditional density: {error:.4f}")


if __name__ == "__main__":
    run()
