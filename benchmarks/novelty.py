"""Novelty detection by density beside IsolationForest and LOF: ROC AUC and rates of false alarms.

Data ship with scikit-learn. One class is the novelty: another one for each seed in turn (digits,
wine), malignant cells always (breast cancer). Detectors are fitted to 60 % of the other rows and score
the remaining 40 % and all of the novel class. Columns are standardised with the training rows; digits
are reduced to 8 principal components and not rescaled, since pixels share a unit.
"""

import numpy as np
from _common import header, row
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import PowerTransformer, StandardScaler

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    ManifoldAdaptedDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.compose import DensityOutlierDetector, DensityStacking, TransformedDensity
from skdiffsmooth.compose._outliers import _threshold

CONTAMINATION = 0.1
# Where the smoothed detector is fitted five times more, to score training rows by folds.
FOLDED = ("wine",)
# The loader, the classes that are the novelty in turn, what the features go through, and the seeds.
TABLES = {
    "wine": (datasets.load_wine, range(3), StandardScaler(), 30),
    "breast cancer": (datasets.load_breast_cancer, [0], StandardScaler(), 10),
    "digits, 8 PCs": (datasets.load_digits, range(10), PCA(8, random_state=0), 10),
}


def detectors(seed):
    """Return the detectors by name."""
    return {
        "smoothed": DensityOutlierDetector(contamination=CONTAMINATION),
        "KDE": DensityOutlierDetector(KDESampler(), contamination=CONTAMINATION),
        "Gaussian": DensityOutlierDetector(
            GaussianMixture(1, reg_covar=1e-3), contamination=CONTAMINATION
        ),
        "IsolationForest": IsolationForest(contamination=CONTAMINATION, random_state=seed),
        "LOF": LocalOutlierFactor(novelty=True, contamination=CONTAMINATION),
    }


def in_sample_alarms(detector, train, inliers):
    """Return the false alarms of a threshold from the training rows' own log-densities."""
    density = detector.estimator_
    threshold = np.quantile(density.score_samples(train), CONTAMINATION)
    return np.mean(density.score_samples(inliers) < threshold)


def one_seed(X, is_novel, transformer, seed, is_folded):
    """Return the areas and the rates of false alarms of all detectors."""
    train, inliers = train_test_split(X[~is_novel], test_size=0.4, random_state=seed)
    transformer.fit(train)
    train, inliers, outliers = map(transformer.transform, (train, inliers, X[is_novel]))
    truth = np.repeat([1, 0], [len(inliers), len(outliers)])
    areas, rates = {}, {}
    for kind, detector in detectors(seed).items():
        detector.fit(train)
        scores = detector.score_samples(np.concatenate([inliers, outliers]))
        areas[kind] = roc_auc_score(truth, scores)
        rates[kind] = np.mean(detector.predict(inliers) == -1)
        if kind == "smoothed":
            rates["smoothed, in-sample"] = in_sample_alarms(detector, train, inliers)
            rates["smoothed, 5 folds"] = np.nan
            if is_folded:
                folded = DensityOutlierDetector(contamination=CONTAMINATION, cv=5).fit(train)
                rates["smoothed, 5 folds"] = np.mean(folded.predict(inliers) == -1)
    return areas, rates


# Base densities, as functions that make one.
DENSITIES = {
    "KDE": KDESampler,
    "smoothed": SmoothedScoreDiffusion,
    "manifold-adapted": ManifoldAdaptedDiffusion,
    "coarse": lambda: CoarseScoreDiffusion(0.5, bandwidth=0.1),
    "Gaussian": lambda: GaussianMixture(1),
    "five Gaussians": lambda: GaussianMixture(5, random_state=0),
    "stack": lambda: DensityStacking([("kde", KDESampler()), ("broad", GaussianMixture(1))]),
    "after a power transform": lambda: TransformedDensity(KDESampler(), PowerTransformer()),
}
N_TRAIN, N_NEW, N_SEEDS = 200, 300, 3


def _normal(rng, n):
    return rng.normal(size=(n, 2))


def _ring(rng, n):
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.1 * rng.normal(size=(n, 2))


def _heavy(rng, n):
    return rng.standard_t(3, size=(n, 2))


def _zeros(rng, n):
    """Seven tenths of the rows are zero."""
    return np.where(rng.uniform(size=(n, 1)) < 0.7, 0.0, rng.normal(8, 1, size=(n, 2)))


DRAWN = {
    "normal in R^2": _normal,
    "noisy circle": _ring,
    "Student t(3) in R^2": _heavy,
    "70 % zeros": _zeros,
}


def flagged_by_density():
    """Return the flagged fractions of training and new rows, at CONTAMINATION and at "auto"."""
    fractions = {}
    for name, draw in DRAWN.items():
        for kind, make in DENSITIES.items():
            found = []
            for seed in range(N_SEEDS):
                rng = np.random.RandomState(seed)
                train, new = draw(rng, N_TRAIN), draw(rng, N_NEW)
                detector = DensityOutlierDetector(make(), contamination=CONTAMINATION)
                try:
                    detector.fit(train)
                except ValueError:
                    # Too many held-out rows of density zero.
                    found.append(np.full((2, 2), np.nan))
                    continue
                scores = [detector.score_samples(rows) for rows in (train, new)]
                offsets = detector.offset_, _threshold(scores[0], np.ones(N_TRAIN), None)
                found.append([[np.mean(s < offset) for s in scores] for offset in offsets])
            fractions[name, kind] = np.mean(found, axis=0)
    return fractions


def run():
    """Print the two tables of real data, and those of drawn rows."""
    print(
        "Novelty: ROC AUC, mean of the seeds; in brackets what the smoothed score gains on it, with its "
        "paired standard error\n"
    )
    header("data", "seeds", *detectors(0))
    alarms = {}
    for name, (load, novel, transformer, n_seeds) in TABLES.items():
        X, y = load(return_X_y=True)
        found = [
            one_seed(X, y == novel[seed % len(novel)], transformer, seed, name in FOLDED)
            for seed in range(n_seeds)
        ]
        areas = np.array([list(area.values()) for area, _ in found])
        alarms[name] = {kind: np.mean([rate[kind] for _, rate in found]) for kind in found[0][1]}
        gains = areas[:, :1] - areas
        errors = gains.std(axis=0, ddof=1) / np.sqrt(n_seeds)
        cells = [
            f"{mean:.3f} ({gain:+.3f} +- {error:.3f})"
            for mean, gain, error in zip(
                areas.mean(axis=0), gains.mean(axis=0), errors, strict=True
            )
        ]
        row(name, n_seeds, f"{areas[:, 0].mean():.3f}", *cells[1:])

    print(f"\nFalse alarms among new inliers at contamination={CONTAMINATION}, mean of the seeds\n")
    header("data", *alarms["wine"])
    for name, rates in alarms.items():
        row(name, *("" if np.isnan(rate) else f"{rate:.3f}" for rate in rates.values()))
    fractions = flagged_by_density()
    for index, contamination in enumerate((CONTAMINATION, "auto")):
        print(
            f"\nFlagged at contamination={contamination!r}, of {N_TRAIN} training rows / of {N_NEW} new "
            f"rows; mean of {N_SEEDS} seeds\n"
        )
        header("distribution", *DENSITIES)
        for name in DRAWN:
            pairs = [fractions[name, kind][index] for kind in DENSITIES]
            row(name, *(f"{train:.3f} / {new:.3f}" for train, new in pairs))


if __name__ == "__main__":
    run()
