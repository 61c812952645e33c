"""What scorers without an ODE choose, beside likelihoods: regret in held-out nats, and time.

Over a grid of bandwidth and sigma, in units of the leave-one-out bandwidth h of the training rows, each
criterion chooses a cell. Regret is what the choice loses on test rows to the cell that is best on them.
Cells are Euclidean and without a background, as scores without a likelihood need them; *defaults* is
the estimator that chooses metric, scales and background by its own leave-one-out likelihood.
"""

import time

import numpy as np
from _common import header, row, timed
from defaults import unrounded
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold, train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.model_selection import (
    denoising_score,
    hyvarinen_score,
    make_hyvarinen_scorer,
)

BANDWIDTHS = (0.55, 0.7, 0.85, 1.0, 1.2)
SIGMAS = (0.0, 0.75, 1.5, 2.5, 4.0)


def turned(X, rng, noise=0.05):
    """Return rows rotated into ten columns, with noise in all of them."""
    frame = np.linalg.qr(rng.normal(size=(10, 10)))[0][:, : X.shape[1]]
    return X @ frame.T + noise * rng.normal(size=(len(X), 10))


def tables(rng):
    """Return the data sets by name; those with a star are synthetic."""
    cells = unrounded(datasets.load_breast_cancer().data, rng)
    digits = datasets.load_digits().data + rng.uniform(size=(1797, 64))
    circle = make_circle(400, random_state=rng)
    roll = datasets.make_swiss_roll(400, random_state=0)[0]
    return {
        "iris": unrounded(datasets.load_iris().data, rng),
        "wine": unrounded(datasets.load_wine().data, rng),
        "breast cancer, radius and area": cells[:, [0, 3]],
        "breast cancer, means": cells[:, :10],
        "digits, 8 PCs, 400 rows": PCA(8, random_state=0).fit_transform(digits)[:400],
        "circle in R^10 *": turned(circle, rng),
        "swiss roll in R^10 *": turned(roll / roll.std(axis=0), rng),
    }


def held_out(scorer):
    """Return the mean of a scorer over three folds, for a model with parameters set."""

    def criterion(model, X):
        folds = KFold(3, shuffle=True, random_state=0).split(X)
        return np.mean([scorer(model.fit(X[fit]), X[held]) for fit, held in folds])

    return criterion


def leave_one_out(model, X):
    """Return the leave-one-out log-likelihood."""
    model.fit(X)
    return model.weights_ @ model.leave_one_out_log_density()


def criteria(h):
    """Return all criteria by name."""
    return {
        "likelihood, 3 folds": held_out(lambda model, X: model.score(X)),
        "leave-one-out likelihood": leave_one_out,
        "denoising, 3 folds": held_out(denoising_score),
        "Hyvarinen, 3 folds": held_out(hyvarinen_score),
        "Hyvarinen at noise h^2, 3 folds": held_out(make_hyvarinen_scorer(h**2, n_pairs=2)),
    }


def run():
    """Print the tables."""
    print(
        "Regret in nats +- its standard error over test rows; in brackets the pick, in units of h.\n"
    )
    spent, regrets = {}, {}
    header("data", "KDE, loo", "defaults", "best cell", *criteria(1.0))
    for name, X in tables(np.random.RandomState(0)).items():
        train, test = train_test_split(X, test_size=0.3, random_state=0)
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
        kde = KDESampler().fit(train)
        h = kde.bandwidth_
        grid = [(b, s) for b in BANDWIDTHS for s in SIGMAS]
        models = [SmoothedScoreDiffusion(b * h, s * h) for b, s in grid]
        truth = np.array([model.fit(train).score_samples(test) for model in models])
        best = truth.mean(1).argmax()
        cells = []
        for criterion, call in criteria(h).items():
            start = time.perf_counter()
            pick = int(np.argmax([call(model, train) for model in models]))
            spent.setdefault(criterion, []).append(time.perf_counter() - start)
            lost = truth[best] - truth[pick]
            error = lost.std(ddof=1) / np.sqrt(len(test))
            regrets.setdefault(criterion, []).append(lost.mean())
            b, s = grid[pick]
            cells.append(f"{lost.mean():.2f} +- {error:.2f} ({b:g}, {s:g})")
        b, s = grid[best]
        chosen = SmoothedScoreDiffusion().fit(train).score(test)
        row(
            name,
            f"{kde.score(test):.2f}",
            f"{chosen:.2f}",
            f"{truth[best].mean():.2f} ({b:g}, {s:g})",
            *cells,
        )
    print()
    times = {criterion: np.array(values) for criterion, values in spent.items()}
    reference = times["likelihood, 3 folds"]
    header("criterion", "mean regret", "worst regret", "time over the likelihood's")
    for criterion, values in regrets.items():
        ratios = times[criterion] / reference
        span = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        row(criterion, f"{np.mean(values):.2f}", f"{np.max(values):.2f}", span)
    parts()


def parts():
    """Print the time of a fit and of each scorer, over that of a likelihood."""
    print("\nOne fold at bandwidth 0.85 h, sigma 1.5 h: times over that of the likelihood.\n")
    header("data", "fit", "fit, n_nodes=64", "likelihood", "denoising", "Hyvarinen")
    for name, X in tables(np.random.RandomState(0)).items():
        train, test = train_test_split(StandardScaler().fit_transform(X), random_state=0)
        h = KDESampler().fit(train).bandwidth_
        model = SmoothedScoreDiffusion(0.85 * h, 1.5 * h)
        few = SmoothedScoreDiffusion(0.85 * h, 1.5 * h, n_nodes=64)
        scorers = (lambda model, X: model.score(X), denoising_score, hyvarinen_score)
        calls = [
            lambda m=model, X=train: m.fit(X),
            lambda m=few, X=train: m.fit(X),
            *(lambda s=scorer, m=model, X=test: s(m, X) for scorer in scorers),
        ]
        seconds = [timed(call)[0] for call in calls]
        row(name, *(f"{s / seconds[2]:.2f}" for s in seconds))


if __name__ == "__main__":
    run()
