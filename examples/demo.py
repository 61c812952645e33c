"""The main job on real data: tune the smoothing scale, compare densities, draw samples.

Splits each data set, tunes a Gaussian KDE, a Gaussian mixture and the smoothed score by the
likelihood of rows left out of the training rows, mixes the last two, and compares all of them on the
held-out rows. Prints one table and writes one figure. The data ship with scikit-learn; two
synthetic shapes are labelled so.

Run it from the repository with ``make demo``; under three minutes on two cores.
"""

import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from joblib import parallel_config
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityStacking
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

mpl.use("Agg")  # writes files, needs no display
import matplotlib.pyplot as plt

FOLDS = KFold(3, shuffle=True, random_state=0)
FIGURE = Path("demo.png")


def unrounded(X, rng):
    """Drop equal rows and add noise of one rounding unit to each column.

    Rounded measurements repeat, and a density with a spike at a repeated value would win.
    """
    X = np.unique(X, axis=0)
    units = [np.diff(np.unique(column)).min() for column in X.T]
    return X + units * rng.uniform(-0.5, 0.5, size=X.shape)


def turned(X, rng, d=10, noise=0.05):
    """Scale a shape to unit variance, rotate it into R^d and add noise."""
    X = (X - X.mean(axis=0)) / X.std(axis=0).max()
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return X @ rotation[: X.shape[1]] + noise * rng.normal(size=(len(X), d))


def load():
    """Return the data sets by name; those of the second block are synthetic."""
    rng = np.random.RandomState(0)
    cells = datasets.load_breast_cancer()
    size = [list(cells.feature_names).index(name) for name in ("mean radius", "mean area")]
    digits = datasets.load_digits().data
    circle = make_circle(400, random_state=rng)
    return {
        "iris": unrounded(datasets.load_iris().data, rng),
        "wine": unrounded(datasets.load_wine().data, rng),
        "cell radius, area": unrounded(cells.data[:, size], rng),
        "digits, 8 PCs": PCA(8, random_state=0).fit_transform(
            digits + rng.uniform(size=digits.shape)
        ),
        "swiss roll in R^10 *": turned(datasets.make_swiss_roll(900, random_state=0)[0], rng),
        "circle in R^10 *": turned(circle, rng),
    }


def compare(name, X):
    """Split, fit, and score the held-out rows; return a line of the table and what to draw."""
    train, test = train_test_split(X, test_size=0.3, random_state=0)
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    kde = KDESampler(bandwidth="loo").fit(train)
    mixture = GridSearchCV(
        GaussianMixture(n_init=3, reg_covar=1e-4, random_state=0),
        {"n_components": [1, 2, 3, 4, 6, 8, 12], "covariance_type": ["full", "diag"]},
        cv=FOLDS,
    ).fit(train)
    smoothed = SmoothedScoreDiffusion().fit(train)
    tuned = SmoothedScoreDiffusionCV().fit(train)
    members = [("smoothed", tuned.best_estimator_), ("mixture", mixture.best_estimator_)]
    stack = DensityStacking(members).fit(train)
    models = (kde, mixture.best_estimator_, smoothed, tuned, stack)
    gain = tuned.score_samples(test) - kde.score_samples(test)
    error = gain.std() / np.sqrt(len(gain))
    line = (
        f"{name:21s} {len(train):5d} {X.shape[1]:3d} "
        + " ".join(f"{model.score(test):9.2f}" for model in models)
        + f"  {gain.mean():+.2f} +- {error:.2f}  {tuned.metric_!s:9s} {tuned.bandwidth_:.2f} "
        f"{tuned.sigma_:.2f} {tuned.background_:.2f}"
    )
    drawn = {"kde": kde, "model": tuned, "h": kde.bandwidth_}
    return line, {"name": name, "train": train, "test": test, **drawn}


def draw(results):
    """Draw two densities, their samples, and held-out log-likelihood against sigma."""
    shown = next(r for r in results if r["name"] == "cell radius, area")
    figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    low, high = shown["test"].min(axis=0) - 0.3, shown["test"].max(axis=0) + 0.3
    # From the middle of the data on, where the curve bends and rows are few.
    low = np.maximum(low, -1.6)
    gx, gy = (np.linspace(low[k], high[k], 220) for k in range(2))
    grid = np.stack(np.meshgrid(gx, gy), axis=-1).reshape(-1, 2)
    titles = {
        "kde": "KDE, leave-one-out bandwidth",
        "model": f"smoothed score, sigma = {shown['model'].sigma_:.2f}",
    }
    for ax, key in zip(axes[0], titles, strict=True):
        log_density = shown[key].score_samples(grid).reshape(len(gy), len(gx))
        image = ax.pcolormesh(gx, gy, log_density, vmin=-8, vmax=2, cmap="viridis", shading="auto")
        ax.plot(*shown["test"].T, ".", color="white", ms=3, alpha=0.8, label="held-out rows")
        held_out = shown[key].score(shown["test"])
        ax.set(title=f"{titles[key]}: {held_out:.2f} nats a row", xlabel="radius", ylabel="area")
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    figure.colorbar(image, ax=axes[0], label="log-density (nats)")
    axes[0, 0].legend(loc="upper left")

    ax = axes[1, 0]
    for key, color, label in (
        ("kde", "tab:orange", "KDE"),
        ("model", "tab:blue", "smoothed score"),
    ):
        ax.plot(*shown[key].sample(1000, random_state=1).T, ".", color=color, ms=3, label=label)
    ax.set(title="1000 samples of each", xlabel="radius", ylabel="area")
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.legend(loc="upper left")

    ax = axes[1, 1]
    ratios = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6])
    for result in results:
        h = result["h"]
        curve = [
            SmoothedScoreDiffusion(0.85 * h, ratio * h).fit(result["train"]).score(result["test"])
            for ratio in ratios
        ]
        ax.plot(ratios, np.array(curve) - result["kde"].score(result["test"]), label=result["name"])
    ax.axhline(0, color="black", lw=0.8)
    ax.set(
        title="Gain over the KDE (bandwidth 0.85 h, Euclidean)",
        xlabel="smoothing scale sigma / h, h the KDE's bandwidth",
        ylabel="nats a row",
        ylim=(-1.5, None),
    )
    ax.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=120)


def main():
    """Run the comparison, print the table, write the figure."""
    # Many small fits: two at a time on one core each are faster than one at a time on two.
    torch.set_num_threads(1)
    with parallel_config("threading", n_jobs=2):
        run()


def run():
    """Compare on every data set."""
    start = time.perf_counter()
    data = load()
    lines, results = [], []
    for number, (name, X) in enumerate(data.items(), 1):
        print(f"[{number}/{len(data)}] {name}: tuning on {X.shape[0]} x {X.shape[1]}", flush=True)
        line, result = compare(name, X)
        lines.append(line)
        results.append(result)
    print("\nMean held-out log-likelihood, nats a row, standardised columns (higher is better)")
    print(
        "* synthetic. smoothed: default parameters. stack: tuned and mixture, mixed.\n"
        "gain: tuned minus KDE, with its paired standard error. On the right what was tuned.\n"
    )
    print(
        f"{'data':21s} {'N':>5s} {'d':>3s} {'KDE':>9s} {'mixture':>9s} {'smoothed':>9s} "
        f"{'tuned':>9s} {'stack':>9s}  {'gain':13s}  metric    bandwidth, sigma, background"
    )
    print("\n".join(lines))
    print("\nDrawing ...", flush=True)
    draw(results)
    print(f"Wrote {FIGURE.resolve()} after {time.perf_counter() - start:.0f} s.")
    print(
        "Next: open the figure; put your own array in place of one of the data sets in\n"
        "examples/demo.py; or, in Python:\n"
        "  from skdiffsmooth import SmoothedScoreDiffusion\n"
        "  model = SmoothedScoreDiffusion().fit(X); model.score_samples(Y); model.sample(100)"
    )


if __name__ == "__main__":
    main()
