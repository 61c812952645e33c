"""Some columns given the others: distance from the joint density, and held-out log-densities."""

import numpy as np
from _common import header, row, timed
from criteria import tables
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal, qmc
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle

GRID = np.linspace(-5, 5, 501)
COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])


def normalised(log_density):
    """Return a density on the grid that integrates to one there."""
    density = np.exp(log_density - log_density.max())
    return density / trapezoid(density, GRID)


def along(value):
    """Return rows on the grid in the first column, the second one fixed."""
    return np.column_stack([GRID, np.full_like(GRID, value)])


def moments(density):
    """Return mean and variance of a density on the grid."""
    mean = trapezoid(density * GRID, GRID)
    return np.array([mean, trapezoid(density * (GRID - mean) ** 2, GRID)])


def gaussian():
    """Print mean and variance of one column given the other, for Gaussian data.

    In the Euclidean metric without a background, where the noised density is the one written below.
    """
    header("N", "bandwidth", "given", "exact", "smoothed, given", "smoothed, joint", "KDE")
    for n in (128, 512, 2048):
        X = qmc.MultivariateNormalQMC(np.zeros(2), COVARIANCE, seed=0).random(n)
        model = SmoothedScoreDiffusion(metric="euclidean", background=0.0).fit(X)
        h = model.bandwidth_
        kde = KDESampler(h).fit(X)
        noised = COVARIANCE + h**2 * np.eye(2)
        for value in (0.0, 1.5):
            mean = noised[0, 1] / noised[1, 1] * value
            exact = mean, noised[0, 0] - noised[0, 1] ** 2 / noised[1, 1]
            found = (
                model.score_samples(along(value), given=[1]),
                model.score_samples(along(value)),
                kde.score_samples(along(value), given=[1]),
            )
            cells = [exact, *(moments(normalised(f)) for f in found)]
            row(n, f"{h:.2f}", value, *(f"{m:.3f}, {v:.3f}" for m, v in cells))


def planar():
    """Print distances from the conditional of the joint density, in two dimensions."""
    rng = np.random.RandomState(0)
    circle = make_circle(300, noise=0.05, random_state=rng)
    sets = {
        "Gaussian, 400 rows": rng.multivariate_normal([0, 0], COVARIANCE, 400),
        "circle, 300 rows": circle,
        "two moons, 400 rows": datasets.make_moons(400, noise=0.05, random_state=0)[0],
    }
    header("data", "KL(joint, given), mean", "worst", "KL(joint, KDE), mean", "worst", "mass - 1")
    for name, rows in sets.items():
        X = StandardScaler().fit_transform(rows)
        model, kde = SmoothedScoreDiffusion().fit(X), KDESampler("loo").fit(X)
        distances, masses = [], []
        for value in np.quantile(X[:, 1], np.linspace(0.025, 0.975, 20)):
            joint = normalised(model.score_samples(along(value)))
            found = [m.score_samples(along(value), given=[1]) for m in (model, kde)]
            logs = np.log(np.maximum(joint, 1e-300))
            distances.append([trapezoid(joint * (logs - f), GRID) for f in found])
            masses.append(abs(trapezoid(np.exp(found[0]), GRID) - 1))
        mean, worst = np.mean(distances, axis=0), np.max(distances, axis=0)
        cells = [f"{x:.3f}" for pair in zip(mean, worst, strict=True) for x in pair]
        row(name, *cells, f"{np.max(masses):.4f}")


def held_out():
    """Print held-out log-densities of half the columns given the other half."""
    header(
        "data", "columns", "Gaussian", "KDE, loo", "smoothed", "gain over the KDE", "joint's time"
    )
    for name, X in tables(np.random.RandomState(0)).items():
        train, test = train_test_split(X, test_size=0.3, random_state=0)
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
        d = X.shape[1]
        given = list(range(0, d, 2))
        normal = multivariate_normal(train.mean(0), np.cov(train.T))
        part = multivariate_normal(train[:, given].mean(0), np.cov(train[:, given].T))
        model, kde = SmoothedScoreDiffusion().fit(train), KDESampler("loo").fit(train)
        seconds, found = timed(lambda m=model, q=test, g=given: m.score_samples(q, given=g), 1)
        joint_seconds, _ = timed(lambda m=model, q=test: m.score_samples(q), 1)
        plain = kde.score_samples(test, given=given)
        gain = found - plain
        row(
            name,
            f"{d - len(given)} given {len(given)}",
            f"{np.mean(normal.logpdf(test) - part.logpdf(test[:, given])):.2f}",
            f"{plain.mean():.2f}",
            f"{found.mean():.2f}",
            f"{gain.mean():+.2f} +- {gain.std(ddof=1) / np.sqrt(len(gain)):.2f}",
            f"{seconds / joint_seconds:.1f}x",
        )


def run():
    """Print all tables."""
    print("Gaussian data: mean and variance of a column given the other.\n")
    gaussian()
    print(
        "\nOne column given the other, against the joint density normalised along the grid, in nats.\n"
    )
    planar()
    print("\nEvery second column given, held-out nats a row.\n")
    held_out()


if __name__ == "__main__":
    run()
