"""What a newcomer can do: estimate a density, find outliers, draw rows, classify, fit mixed columns.

Five tasks on data that ship with scikit-learn (two synthetic shapes are labelled so). Each prints a
few lines, and four are drawn in one figure, demo.png. Run it from the repository with ``make demo``; it
takes less than two minutes on two cores.
"""

import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from joblib import parallel_config
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion, compare
from skdiffsmooth.compose import DensityClassifier, DensityOutlierDetector
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.displays import STYLES, DensityDisplay
from skdiffsmooth.metrics import classifier_two_sample_test
from skdiffsmooth.tables import TableDensity

mpl.use("Agg")  # writes files, needs no display
import matplotlib.pyplot as plt

FIGURE = Path("demo.png")
RATIOS = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6])


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


def cells():
    """Return size and texture of cell nuclei, and whether they are benign, as a frame and a column."""
    data = datasets.load_breast_cancer(as_frame=True)
    return data.data[
        ["mean radius", "mean area", "mean texture", "mean smoothness"]
    ], data.target == 1


def tables():
    """Return tables by name, split and scaled; those with a star are synthetic."""
    rng = np.random.RandomState(0)
    digits = datasets.load_digits().data
    every = {
        "iris": unrounded(datasets.load_iris().data, rng),
        "wine": unrounded(datasets.load_wine().data, rng),
        "cell radius, area": unrounded(cells()[0].to_numpy()[:, :2], rng),
        "digits, 8 PCs": PCA(8, random_state=0).fit_transform(
            digits + rng.uniform(size=digits.shape)
        ),
        "swiss roll in R^10 *": turned(datasets.make_swiss_roll(900, random_state=0)[0], rng),
        "circle in R^10 *": turned(make_circle(400, random_state=rng), rng),
    }
    for name, X in every.items():
        train, test = train_test_split(X, test_size=0.3, random_state=0)
        scaler = StandardScaler().fit(train)
        yield name, scaler.transform(train), scaler.transform(test)


def densities(axes, ax):
    """Compare three densities on held-out rows, and draw two of them and the effect of sigma."""
    print("1. Density: held-out log-likelihood in nats a row, higher is better")
    print(
        f"   {'table':21s} {'N':>5s} {'d':>3s} {'KDE':>8s} {'mixture':>8s} {'smoothed':>8s}", end=""
    )
    print("   smoothed minus KDE (paired standard error); * synthetic")
    mixture = GridSearchCV(
        GaussianMixture(reg_covar=1e-4, random_state=0),
        {"n_components": [1, 2, 3, 4, 6, 8, 12]},
        cv=KFold(3, shuffle=True, random_state=0),
    )
    for (name, train, test), style in zip(tables(), STYLES, strict=False):
        models = {
            "KDE": KDESampler().fit(train),
            "mixture": mixture.fit(train).best_estimator_,
            "smoothed": SmoothedScoreDiffusion().fit(train),
        }
        result = compare(models, test)
        gain = result.log_density[:, 2] - result.log_density[:, 0]
        print(
            f"   {name:21s} {len(train):5d} {train.shape[1]:3d} "
            + " ".join(f"{mean:8.2f}" for mean in result.mean)
            + f"   {gain.mean():+.2f} +- {gain.std() / len(gain) ** 0.5:.2f}",
            flush=True,
        )
        h = models["KDE"].bandwidth_
        curve = [SmoothedScoreDiffusion(0.85 * h, r * h).fit(train).score(test) for r in RATIOS]
        ax.plot(
            RATIOS,
            np.array(curve) - result.mean[0],
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker,
            ms=5,
            label=name,
        )
        if name == "cell radius, area":
            for part, key in zip(axes, ("KDE", "smoothed"), strict=True):
                low, high = np.maximum(test.min(axis=0) - 0.3, -1.6), test.max(axis=0) + 0.3
                grid = [np.linspace(low[k], high[k], 120) for k in range(2)]
                DensityDisplay.from_estimator(models[key], test, grid=grid).plot(part)
                part.set(xlabel="cell radius (scaled)", ylabel="cell area (scaled)")
                part.set_title(f"{key}: {result.mean[result.names.index(key)]:.2f} nats a row")
    ax.axhline(0, color="black", lw=0.8)
    ax.set(
        title="Held-out gain over the KDE",
        xlabel="smoothing scale sigma / h, h the KDE's bandwidth",
        ylabel="nats a row",
        ylim=(-1.5, None),
    )
    ax.legend(fontsize=8)


def outliers(ax):
    """Fit benign cells, and count which new ones are flagged."""
    X, is_benign = cells()
    known, new = train_test_split(X[is_benign], test_size=0.3, random_state=0)
    detector = DensityOutlierDetector(contamination=0.05).fit(known)
    others = X[~is_benign]
    flagged, alarms = (np.mean(detector.predict(rows) == -1) for rows in (others, new))
    print("\n2. Outliers: fitted on benign cells of four columns, 5 % false alarms requested")
    print(
        f"   flagged: {alarms:.0%} of new benign cells, {flagged:.0%} of malignant ones", flush=True
    )
    for rows, color, what in (
        (new, STYLES[0].color, "benign"),
        (others, STYLES[3].color, "malignant"),
    ):
        is_outlier = detector.predict(rows) == -1
        for some, marker, label in (
            (~is_outlier, ".", what),
            (is_outlier, "x", f"{what}, flagged"),
        ):
            ax.plot(
                rows["mean radius"][some],
                rows["mean texture"][some],
                marker,
                color=color,
                ms=5,
                mew=0.9,
                label=label,
            )
    ax.set(title="Outliers", xlabel="mean radius", ylabel="mean texture")
    ax.legend(fontsize=8)


def synthetic(ax):
    """Draw new rows, and test whether a classifier distinguishes them from held-out ones."""
    X, _ = cells()
    train, test = train_test_split(X, test_size=0.5, random_state=0)
    drawn = SmoothedScoreDiffusion().fit(train).sample(len(test), random_state=0)
    print("\n3. Synthetic rows: can a classifier distinguish them from held-out rows?")
    found = classifier_two_sample_test(drawn, test.to_numpy(), random_state=0)
    print(
        f"   accuracy {found.accuracy:.2f}, where 0.5 is guessing (p = {found.p_value:.2f})",
        flush=True,
    )
    pair = [1, 3]
    for rows, style, label in (
        (test.to_numpy(), STYLES[0], "held out"),
        (drawn, STYLES[1], "drawn"),
    ):
        ax.plot(
            *rows[:, pair].T,
            "o" if label == "held out" else "x",
            color=style.color,
            ms=4,
            mfc="none",
            mew=0.8,
            label=label,
        )
    ax.set(title="Synthetic rows", xlabel=X.columns[1], ylabel=X.columns[3])
    ax.legend(fontsize=8)


def classifier(ax):
    """Fit a density to each class, and draw the borders between classes."""
    print("\n4. Classifier: accuracy on held-out rows")
    for name, load in (("iris", datasets.load_iris), ("wine", datasets.load_wine)):
        X, y = load(return_X_y=True)
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=0, stratify=y)
        ours = DensityClassifier().fit(X, y).score(X_test, y_test)
        rival = QuadraticDiscriminantAnalysis().fit(X, y).score(X_test, y_test)
        print(f"   {name}: {ours:.3f}, one Gaussian for each class {rival:.3f}", flush=True)
    X, y = datasets.make_moons(300, noise=0.2, random_state=0)
    model = DensityClassifier().fit(X, y)
    DecisionBoundaryDisplay.from_estimator(
        model,
        X,
        response_method="predict_proba",
        class_of_interest=1,
        grid_resolution=80,
        cmap="PuOr",
        alpha=0.7,
        ax=ax,
        plot_method="contourf",
        levels=np.linspace(0, 1, 9),
    )
    for label, style in zip((0, 1), (STYLES[3], STYLES[4]), strict=True):
        ax.plot(
            *X[y == label].T,
            style.marker,
            color=style.color,
            mec="black",
            mew=0.4,
            ms=4,
            label=f"class {label}",
        )
    ax.set(title="Classifier: probability of class 1", xlabel="x0", ylabel="x1")
    ax.legend(fontsize=8)


def mixed_table():
    """Fit a frame with a column of text, draw rows of one species, and fill in missing species."""
    flowers = datasets.load_iris(as_frame=True)
    frame = flowers.data.assign(species=flowers.target_names[flowers.target])
    known, new = train_test_split(frame, test_size=0.3, random_state=0)
    model = TableDensity().fit(known)
    row = model.sample(1, random_state=0, given={"species": "setosa"}).iloc[0]
    missing = new.assign(species=None)
    is_right = model.impute(missing, random_state=0)["species"] == new["species"]
    print("\n5. A frame with a column of text (irises with their species)")
    print(f"   a new setosa: {', '.join(map(str, row[:-1]))} cm")
    print(f"   missing species drawn given the sizes: {is_right.mean():.0%} are right", flush=True)


def main():
    """Run the five tasks, and write the figure."""
    # Many small fits: two at a time on one core each are faster than one at a time on two.
    torch.set_num_threads(1)
    start = time.perf_counter()
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.6), layout="constrained")
    with parallel_config("threading", n_jobs=2):
        densities(axes[0, :2], axes[0, 2])
        outliers(axes[1, 0])
        synthetic(axes[1, 1])
        classifier(axes[1, 2])
        mixed_table()
    figure.savefig(FIGURE, dpi=110)
    print(
        f"\nWrote {FIGURE.resolve()} after {time.perf_counter() - start:.0f} s. Open it, and go on:"
    )
    print(
        "  from skdiffsmooth import SmoothedScoreDiffusion\n"
        "  model = SmoothedScoreDiffusion().fit(X)   # X: your array or frame of numbers\n"
        "  model.score_samples(Y); model.sample(100)"
    )


if __name__ == "__main__":
    main()
