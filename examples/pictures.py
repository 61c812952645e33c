"""The pictures of README.md and of the index pages, drawn from real tables and two synthetic shapes.

python examples/pictures.py docs/images    # writes readme.png and cards/*.png, in half a minute
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_moons
from sklearn.mixture import GaussianMixture

from skdiffsmooth import KDESampler, LinearObservation, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityClassifier, DensityOutlierDetector, DensityStacking
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.displays import ScoreFieldDisplay
from skdiffsmooth.tables import TableDensity

mpl.use("Agg")  # writes files, needs no display
import matplotlib.pyplot as plt

# Okabe and Ito's palette, whose colours differ for readers with any colour vision.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#E69F00", "#009E73", "#000000"
CARD = {"figsize": (3.2, 2.0), "layout": "constrained"}


def grid_of(X, n=160, margin=0.12):
    """Return the axes of a grid about the rows, and its points (n * n, 2)."""
    low, high = X.min(axis=0), X.max(axis=0)
    pad = margin * (high - low)
    axes = [np.linspace(low[k] - pad[k], high[k] + pad[k], n) for k in range(2)]
    return axes, np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)


def shade(ax, model, X, depth=7.0):
    """Draw the density of a model of two columns, down to `depth` nats below its highest value."""
    (gx, gy), points = grid_of(X)
    log_density = model.score_samples(points).reshape(len(gy), len(gx))
    top = log_density.max()
    levels = np.linspace(top - depth, top, 8)
    return ax.contourf(gx, gy, log_density, levels=levels, cmap="Blues", extend="max")


def readme(path):
    """Draw two densities of the same rows, and new rows drawn from each."""
    columns = ["mean radius", "mean area"]
    X = load_breast_cancer(as_frame=True).data[columns].to_numpy()
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    train, test = X[::3], np.delete(X, np.s_[::3], axis=0)
    kde, smoothed = KDESampler("loo").fit(train), SmoothedScoreDiffusion().fit(train)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained", sharey=True)
    for ax, model, name in zip(axes, (kde, smoothed), ("KDE", "skdiffsmooth"), strict=False):
        shade(ax, model, train)
        ax.plot(*train.T, ".", color=BLACK, ms=2)
        ax.set_title(f"{name}: {model.score(test):+.2f} nats a row")
    axes[2].plot(*kde.sample(400, random_state=0).T, "x", color=ORANGE, ms=3, label="KDE")
    drawn = smoothed.sample(400, random_state=0)
    axes[2].plot(*drawn.T, ".", color=BLUE, ms=4, label="skdiffsmooth")
    axes[2].set_title("400 new rows of each")
    axes[2].legend(loc="upper left", frameon=False)
    for ax in axes:
        ax.set(xlabel="mean radius (standardised)", xlim=(-2, 3), ylim=(-1.8, 3.2))
    axes[0].set_ylabel("mean area (standardised)")
    figure.savefig(path / "readme.png", dpi=80)


def density(ax):
    X = load_wine(as_frame=True).data[["alcohol", "color_intensity"]].to_numpy()
    shade(ax, SmoothedScoreDiffusion().fit(X), X)
    ax.plot(*X.T, ".", color=BLACK, ms=2)


def scales(ax):
    X = make_circle(60, noise=0.05, random_state=0)
    h = KDESampler("loo").fit(X).bandwidth_
    ratios = np.linspace(0, 6, 13)
    models = [SmoothedScoreDiffusion(0.85 * h, r * h, n_nodes=32).fit(X) for r in ratios]
    curve = [model.leave_one_out_log_density().mean() for model in models]
    ax.plot(ratios, curve, color=BLUE)
    best = int(np.argmax(curve))
    ax.plot(ratios[best], curve[best], "o", color=ORANGE)
    ax.axhline(curve[0], color=BLACK, lw=0.8, ls="--")


def outliers(ax):
    X = load_wine(as_frame=True).data[["alcohol", "color_intensity"]].to_numpy()
    flagged = DensityOutlierDetector(contamination=0.05).fit(X).predict(X) == -1
    ax.plot(*X[~flagged].T, ".", color=BLUE, ms=3)
    ax.plot(*X[flagged].T, "x", color=ORANGE, ms=6)


def classify(ax):
    X, y = load_iris(return_X_y=True)
    X = X[:, 2:]
    model = DensityClassifier().fit(X, y)
    (gx, gy), points = grid_of(X, n=90)
    classes = model.predict(points).reshape(len(gy), len(gx))
    ax.contourf(
        gx, gy, classes, levels=[-0.5, 0.5, 1.5, 2.5], colors=[BLUE, ORANGE, GREEN], alpha=0.3
    )
    for k, (color, marker) in enumerate(zip((BLUE, ORANGE, GREEN), "o^s", strict=True)):
        ax.plot(*X[y == k].T, marker, color=color, ms=2)


def synthetic(ax):
    X = load_breast_cancer(as_frame=True).data[["mean radius", "mean area"]].to_numpy()
    drawn = SmoothedScoreDiffusion().fit(X).sample(300, random_state=0)
    ax.plot(*X.T, ".", color=BLACK, ms=2)
    ax.plot(*drawn.T, "x", color=BLUE, ms=3)
    ax.set(xlim=(6, 25), ylim=(0, 2000))


def conditional(ax):
    X = make_moons(200, noise=0.06, random_state=0)[0]
    model = SmoothedScoreDiffusion().fit(X)
    at = 0.3
    drawn = model.sample(400, random_state=0, given={0: at})
    ax.plot(*X.T, ".", color=BLACK, ms=2)
    ax.axvline(at, color=ORANGE, lw=1)
    heights, edges = np.histogram(drawn[:, 1], bins=40, density=True)
    ax.stairs(
        at + 0.25 * heights, edges, baseline=at, orientation="horizontal", fill=True, color=ORANGE
    )


def posterior(ax):
    X = make_circle(60, noise=0.05, random_state=0)
    model = SmoothedScoreDiffusion(0.1, 0.2).fit(X)
    measured = LinearObservation([[1.0, 0.5]], [0.4], noise=0.15)
    drawn = model.sample(200, random_state=0, likelihood=measured)
    ax.plot(*X.T, ".", color=BLACK, ms=3)
    ax.axline((0.4, 0.0), (0.0, 0.8), color=ORANGE, lw=1)
    ax.plot(*drawn.T, "x", color=BLUE, ms=3)
    ax.set_aspect("equal")
    ax.set_adjustable("datalim")


def periodic(ax):
    rng = np.random.RandomState(0)
    hour = np.append(rng.normal(8, 1.5, 60), rng.normal(23.5, 2, 90)) % 24
    model = SmoothedScoreDiffusion(periods={0: 24}).fit(hour[:, None])
    grid = np.linspace(0, 24, 300)
    ax.hist(hour, bins=24, range=(0, 24), density=True, color="0.8")
    ax.plot(grid, np.exp(model.score_samples(grid[:, None])), color=BLUE)


def tables(ax):
    rng = np.random.RandomState(0)
    kind = rng.choice(["cat", "dog", "hen"], size=300, p=[0.4, 0.4, 0.2])
    center = pd.Series(kind).map({"cat": 1.4, "dog": 2.6, "hen": 0.9}).to_numpy()
    frame = pd.DataFrame({"kind": kind, "mass": np.exp(center + 0.3 * rng.normal(size=300))})
    model = TableDensity().fit(frame)
    for name, color in zip(["cat", "dog", "hen"], (BLUE, ORANGE, GREEN), strict=True):
        drawn = model.sample(500, random_state=0, given={"kind": name})
        ax.hist(drawn["mass"], bins=np.linspace(0, 25, 50), color=color, alpha=0.7, label=name)
    ax.legend(frameon=False, fontsize=8)


def displays(ax):
    X = make_moons(200, noise=0.06, random_state=0)[0]
    ScoreFieldDisplay.from_estimator(SmoothedScoreDiffusion().fit(X), X).plot(ax=ax)
    ax.set(title="", xlabel="", ylabel="")
    if ax.get_legend():
        ax.get_legend().remove()


def compare(ax):
    X = make_circle(25, noise=0.03, random_state=1)
    # sharing one grid, so that the two densities can be compared
    (gx, gy), points = grid_of(X, margin=0.3)
    for model, color, style in (
        (KDESampler("loo").fit(X), ORANGE, "--"),
        (SmoothedScoreDiffusion().fit(X), BLUE, "-"),
    ):
        log_density = model.score_samples(points).reshape(len(gy), len(gx))
        levels = [log_density.max() - 3]
        ax.contour(gx, gy, log_density, levels=levels, colors=color, linestyles=style)
    ax.plot(*X.T, ".", color=BLACK, ms=3)
    ax.set_aspect("equal")


def stacking(ax):
    X = load_wine(as_frame=True).data[["alcohol", "flavanoids", "color_intensity", "proline"]]
    members = [
        ("smoothed", SmoothedScoreDiffusion()),
        ("3 Gaussians", GaussianMixture(3, random_state=0)),
        ("KDE", KDESampler("loo", metric="scaled")),
    ]
    weights = DensityStacking(members).fit(X).weights_
    names = [name for name, _ in members]
    ax.barh(names[::-1], weights[::-1], color=BLUE)
    ax.set_xlim(0, 1)
    ax.tick_params(labelsize=8)


def main():
    """Write all pictures into the folder that the command line names."""
    folder = Path(sys.argv[1])
    (folder / "cards").mkdir(parents=True, exist_ok=True)
    readme(folder)
    pictures = (density, scales, outliers, classify, synthetic, conditional, posterior, periodic)
    for draw in (*pictures, tables, displays, compare, stacking):
        figure, ax = plt.subplots(**CARD)
        draw(ax)
        if draw is not stacking:
            ax.set(xticks=[], yticks=[])
        figure.savefig(folder / "cards" / f"{draw.__name__}.png", dpi=100)
        plt.close(figure)


if __name__ == "__main__":
    main()
